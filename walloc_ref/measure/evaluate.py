"""Evaluation: models against other codecs at matched rates, and the demonstration on one photograph. No part of the codec.

What counts is bytes of complete files, ours and the others', and samples as a user gets them, rounded. For each model,
every other codec codes every image or clip at the setting whose file is nearest in size; and each codec's whole curve is
drawn at fixed settings. The result is one dictionary that goes to JSON as it is (`evaluate` says its layout), and from
which the tables and the plot are made. Two surprises:

1. Rates are totals: 8 bits times all bytes over all pixels (audio: over all samples of all channels), not means of ratios.
2. The PSNR of audio is -10·log10 of the mean squared error of the signal with its mean removed, divided by its peak and
   halved, as the authors of WaLLoC define it: the peak-to-peak range is 1.
"""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import walloc_ref
from walloc_ref.codec import Codec, decode_stream
from walloc_ref.errors import BadSamples
from walloc_ref.fast.workers import Progress, threads
from walloc_ref.measure import linear_decoder, measures, other_codecs, sheet
from walloc_ref.measure.other_codecs import OtherCodec
from walloc_ref.stages import signal

T = TypeVar("T")

FORMAT, EARLIER_FORMAT = "walloc_ref.eval 2", "walloc_ref.eval 1"
"""Layout of the result: see `evaluate`; and the one before, whose points lack some figures, which is taken over as well."""

PHOTOGRAPH = Path(__file__).resolve().parent.parent / "photographs" / "coffee.png"
"""The photograph that travels with the package; `photographs/README.md` names its author and licence."""

WARM_UP = {"image": (1024, 64), "audio": (1 << 18,)}
"""Part of the first input that is coded once before anything is timed, so that no time is one of compiling.

It is tall (long), because large inputs are coded in strips, and narrow, because it should be quick.
"""

REFERENCE_BITS = {"image": 8, "audio": 16}
"""Bits of an uncoded sample that ratios are counted against. (The paper counts audio as 16 bits, whatever the file has.)"""

BD_MEASURES = ("psnr", "ssim", "ssim_reduced", "ms_ssim")
"""Measures that BD-rates are taken over; the similarities in decibels, -10·log10(1 - s)."""

FIGURES = ("psnr", "linear_psnr", "ssim", "ssim_reduced", "ms_ssim", "ssdr", "srdr")
"""Figures of an item whose means over items are a point's."""

LIMIT_OF_NEAREST = 0.05
"""A file at "the same bytes" that is further off than this share of the model's is marked in the tables."""


@dataclass(frozen=True, eq=False)
class Item:
    """An image, uint8 (H, W) or (H, W, 3), or a clip, (frames, channels) with its rate and sample format."""

    name: str
    samples: NDArray
    rate: int | None = None
    sample_format: str | None = None

    @property
    def kind(self) -> str:
        """What it is: "image" or "audio"."""
        return "image" if self.rate is None else "audio"

    @property
    def places(self) -> int:
        """Pixels, or samples of all channels."""
        return self.samples.size if self.kind == "audio" else self.samples.shape[0] * self.samples.shape[1]


@dataclass(frozen=True)
class Measured:
    """One item coded once. Rates and times are in bytes and seconds; what could not be measured is None.

    `ssim_reduced` is the SSIM of images averaged down first, `ssdr` and `srdr` are those of audio of several channels, in
    decibels (see `measures`); `linear_psnr` is that of a model's symbols decoded by its `linear_decoder`.
    """

    item: str
    bytes: int
    mse: float
    psnr: float
    encode_seconds: float
    decode_seconds: float
    ssim: float | None = None
    ssim_reduced: float | None = None
    ms_ssim: float | None = None
    ssdr: float | None = None
    srdr: float | None = None
    setting: float | None = None
    linear_psnr: float | None = None


@dataclass(frozen=True, eq=False)
class Against:
    """Another codec's side of a demonstration: its file nearest in size, and what it decodes to."""

    name: str
    measured: Measured
    samples: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Demonstration:
    """What `demonstrate` found.

    Attributes
    ----------
    measured : Measured
        Of our stream.
    against : tuple of Against
    stream : bytes
        The stream, without certificate.
    samples : uint8, (H, W) or (H, W, 3)
        The decoded image.
    image : bytes
        A contact sheet, PNG.
    table : str
        The figures, for a terminal.
    """

    measured: Measured
    against: tuple[Against, ...]
    stream: bytes
    samples: NDArray[np.uint8]
    image: bytes
    table: str


def demonstrate(
    samples: NDArray[np.uint8],
    codec: Codec,
    *,
    name: str = "photograph",
    against: Sequence[str] = ("webp", "jpeg"),
    progress: Progress | None = None,
) -> Demonstration:
    """Code a photograph, verify and measure it, and compare it with other codecs at the same bytes.

    Parameters
    ----------
    samples : uint8, shape (H, W) or (H, W, 3)
    codec : Codec
    name : str
        What to call the photograph.
    against : sequence of str
        Names of `other_codecs.OTHER_CODECS`.
    progress : callable, optional
        Called with the share of the work that is done.

    Raises
    ------
    BadSamples
        Not an 8-bit image, or a codec that is not known.
    HashMismatch
        The stream did not decode to what was encoded.
    """
    tell = progress or (lambda share: None)
    item = Item(name, fitting(_eight_bit(samples, name), codec))
    _warm_up(codec, item)
    stream, encode_seconds = _timed(lambda: codec.encode(item.samples))
    tell(0.2)
    certified = codec.encode(item.samples, certify=True, progress=lambda share: tell(0.2 + 0.3 * share))
    decoded, decode_seconds = _timed(lambda: decode_stream(certified, codec=codec))
    tell(0.7)
    assert decoded.certified
    measured = _measured(item, len(stream), decoded.samples, encode_seconds, decode_seconds)
    others = []
    for number, other_name in enumerate(against):
        other = other_codecs.find("image", other_name)
        if other.missing() is None:
            others.append(_nearest(other, item, len(stream), {}))
        tell(0.7 + 0.3 * (number + 1) / len(against))
    image = _sheet(codec, item, measured, decoded.samples, others)
    rows = [
        (f"walloc_ref {codec.name}", measured),
        *((f"{title(a.name)}{_at(a.measured)}", a.measured) for a in others),
    ]
    table = format_table(
        ["", "bytes", "ratio", "bits/pixel", "PSNR dB", "SSIM", "MS-SSIM", "encode s", "decode s"],
        [
            [
                label,
                str(m.bytes),
                f"{_raw_bytes(item) / m.bytes:.1f}:1",
                f"{8 * m.bytes / item.places:.3f}",
                _number(m.psnr, 2),
                _number(m.ssim, 4),
                _number(m.ms_ssim, 4),
                f"{m.encode_seconds:.3f}",
                f"{m.decode_seconds:.3f}",
            ]
            for label, m in rows
        ],
    )
    return Demonstration(measured, tuple(others), stream, decoded.samples, image, table)


def evaluate(
    items: Sequence[Item],
    codecs: Sequence[Codec],
    against: Sequence[str],
    *,
    curves: bool = True,
    steps: Sequence[float] = (),
    steps_of: Mapping[str, Sequence[float]] | None = None,
    scales: Sequence[float] = (),
    beside: Sequence[str] | None = None,
    earlier: Mapping[str, Any] | None = None,
    draw: Callable[[str, bytes], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure models and other codecs on images, or on audio.

    Parameters
    ----------
    items : sequence of Item
        All images, or all clips.
    codecs : sequence of Codec
        Models of that kind.
    against : sequence of str
        Names of `other_codecs.OTHER_CODECS`; one that is not installed is left out, and the result says so.
    curves : bool
        Code everything at all settings of the other codecs' curves, too (needed for rates at equal PSNR).
    steps : sequence of float
        Steps of the quantiser at which every model is measured as well: its curve.
    steps_of : mapping, optional
        By names of models, other steps for them.
    scales : sequence of float
        Scales below 1 to which images are reduced before they are coded with step 1, and enlarged from afterwards: the
        other way to lower rates.
    beside : sequence of str, optional
        Those of `against` that code everything at the same bytes as every model, which takes several attempts a file; all
        where it is left out.
    earlier : mapping, optional
        An earlier result of the same files: curves of other codecs are taken over, and models of the same identity that
        were measured at the same steps and scales beside the same codecs.
    draw : callable, optional
        Is given "model/item" and a contact sheet, PNG, of every image for every model.
    progress : callable, optional
        Called with the share of the work that is done.

    Returns
    -------
    dict, ready for JSON
        "format", "version", "kind"; "machine" (processor, threads, Python, libraries); "items" (name, shape, rate, SHA-256
        of the samples); "missing" (codecs that could not be used, and why); "points": one entry for each model, for
        each codec and model at the same bytes ("same_bytes_as"), and for each codec and setting ("setting"), with
        totals ("bytes", "bits_per_place", "ratio", "dimensionality_reduction", means over items of `FIGURES`,
        "psnr_of_mean_mse", "encode_mega_per_second", "decode_mega_per_second") and in "items" every item's `Measured`
        fields;
        "comparisons": of each model, and of all models as one curve, with each codec's curve
        ("bd_rate_percent", "bd_psnr_db"; for a single model the differences at its PSNR and at its rate). What is
        infinite or missing is None. "curves", where steps are asked for: of each model "model", "model_id", "grey",
        "points" (a point's totals, "step", no items; step 1 among them), "scaled" (the same, with "scale") and "against":
        for each other codec and each of `BD_MEASURES` the BD-rate ("bd_rate_percent": PCHIP of log rate over the mean of
        the measure) and the range that it is taken over ("from", "to"), the whole one that both curves have.

    Raises
    ------
    BadSamples
        Nothing to measure, mixed kinds, an image that is not 8-bit or of channels that other codecs do not know, a name
        that is not known, steps of a model that is not measured, or an earlier result of something else.
    """
    if not items or not codecs:
        raise BadSamples("eval", "no files" if not items else "no models", "at least one of each")
    kinds = {item.kind for item in items} | {codec.config.kind for codec in codecs}
    if len(kinds) > 1:
        raise BadSamples("eval", " and ".join(sorted(kinds)), "files and models of one kind")
    kind = kinds.pop()
    others = [other_codecs.find(kind, name) for name in against]
    missing = {other.name: reason for other in others if (reason := other.missing())}
    others = [other for other in others if other.name not in missing]
    _check_channels(items, others)
    nearby = [other for other in others if beside is None or other.name in beside]
    if unknown := set(steps_of or {}) - {codec.name for codec in codecs}:
        raise BadSamples("steps_of", min(unknown), "a model that is measured")
    stepped = [(steps_of or {}).get(codec.name, steps) for codec in codecs]
    work = _work(codecs, others, curves) + len(codecs) * (len(nearby) + len(scales)) + sum(map(len, stepped))
    done = _Steps(progress, len(items) * work)

    points: list[dict[str, Any]] = []
    variants: dict[bool, list[Item]] = {}
    models = [(codec, kind == "image" and codec.config.channels == 1) for codec in codecs]
    for codec, grey in models:
        if grey not in variants:
            variants[grey] = [_comparable(item, codec) for item in items]
    listed = [_identity(item) for item in items]
    earlier = None if earlier is None else _taken_over(earlier, listed)
    for grey, variant in variants.items() if curves else ():
        for other in others:
            kept = [p for p in (earlier or {"points": []})["points"] if _on_curve(p, other.name, grey)]
            if kept:
                points += kept
                done.done(len(items) * len(other.curve))
                continue
            at: dict[float, list[Measured]] = {setting: [] for setting in other.curve}
            for item in variant:
                for setting in other.curve:
                    at[setting].append(_code(other, item, setting, spatial=False).measured)
                    done.done()
            points += [_point(other.name, grey, variant, at[s], setting=s) for s in other.curve]
    sizes = {
        (other.name, grey, i): {p["setting"]: p["items"][i]["bytes"] for p in points if _on_curve(p, other.name, grey)}
        for other in others
        for grey in variants
        for i in range(len(items))
    }
    model_curves: list[dict[str, Any]] = []
    for (codec, grey), own in zip(models, stepped, strict=True):
        known = _known(earlier, codec, grey, own, scales, [other.name for other in nearby])
        if known is not None and draw is None:
            points += known[0]
            model_curves.append(known[1])
            done.done(len(items) * (1 + len(nearby) + len(own) + len(scales)))
            continue
        ours: list[Measured] = []
        theirs: dict[str, list[Measured]] = {other.name: [] for other in nearby}
        _warm_up(codec, variants[grey][0])
        linear = linear_decoder.matrix(codec.model) if codec.config.encodes_by_projection else None
        for number, item in enumerate(variants[grey]):
            samples, measured = _code_ours(codec, item, linear)
            ours.append(measured)
            done.done()
            nearest = []
            for other in nearby:
                nearest.append(_nearest(other, item, measured.bytes, sizes[other.name, grey, number]))
                theirs[other.name].append(nearest[-1].measured)
                done.done()
            if draw is not None and kind == "image":
                draw(f"{codec.name}/{item.name}", _sheet(codec, item, measured, samples, nearest))
        points.append(_point(codec.name, grey, variants[grey], ours, codec=codec))
        model_curves.append(_model_curve(codec, grey, variants[grey], points[-1], own, scales, linear, done))
        for name, coded_by in theirs.items():
            points.append(_point(name, grey, variants[grey], coded_by, same_bytes_as=codec.name))
    for curve in model_curves:
        curve["against"] = {other.name: _bd_rates(curve, points, other.name) for other in others}
    result = {
        "format": FORMAT,
        "version": walloc_ref.__version__,
        "kind": kind,
        "machine": machine(),
        "items": listed,
        "missing": missing,
        "points": points,
        "comparisons": _comparisons(points, models, others),
        "curves": model_curves if any(stepped) or scales else [],
    }
    return _finite(result)


def _taken_over(earlier: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An earlier result, with None for figures that its layout did not have.

    Raises
    ------
    BadSamples
        It is of other files, or has another layout.
    """
    if earlier.get("format") not in (FORMAT, EARLIER_FORMAT) or earlier.get("items") != items:
        raise BadSamples("reuse", "a result of other files, or not of this version", f"{FORMAT} of the same files")
    nothing = dict.fromkeys(FIGURES)
    curves = [
        {"scaled": [], **curve, "points": [{**nothing, **p} for p in curve["points"]]} for curve in earlier["curves"]
    ]
    return {**earlier, "points": [{**nothing, **p} for p in earlier["points"]], "curves": curves}


def _known(
    earlier: Mapping[str, Any] | None,
    codec: Codec,
    grey: bool,
    steps: Sequence[float],
    scales: Sequence[float],
    beside: Sequence[str],
) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """An earlier result's points and curve of a model, where they are what is asked for."""
    for curve in (earlier or {"curves": []})["curves"]:
        if (curve["model"], curve["model_id"], curve["grey"]) != (codec.name, codec.model_id, grey):
            continue
        of_model = [p for p in (earlier or {})["points"] if codec.name in (p["codec"], p["same_bytes_as"])]
        found = [p for p in of_model if p["grey"] == grey and p["setting"] is None]
        same = {p["step"] for p in curve["points"]} == {1.0, *steps} and {p["codec"] for p in found} >= set(beside)
        if same and {p["scale"] for p in curve["scaled"]} == set(scales):
            return [p for p in found if p["codec"] in (codec.name, *beside)], dict(curve)
    return None


def _model_curve(
    codec: Codec,
    grey: bool,
    items: Sequence[Item],
    at_one: Mapping[str, Any],
    steps: Sequence[float],
    scales: Sequence[float],
    linear: NDArray[np.float64] | None,
    done: _Steps,
) -> dict[str, Any]:
    """A model at several steps, and at step 1 on scaled images, by rising rate."""

    def measured(key: str, value: float) -> dict[str, Any]:
        coded = []
        for item in items:
            coded.append(
                _code_ours(codec, item, linear, value)[1] if key == "step" else _code_scaled(codec, item, value)
            )
            done.done()
        return {**_point(codec.name, grey, items, coded, codec=codec), key: value}

    points = [{**at_one, "step": 1.0}]
    for step in steps:
        if step == 1:
            done.done(len(items))
        else:
            points.append(measured("step", step))
    scaled = [measured("scale", scale) for scale in scales]

    def kept(found: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
        names = (key, "bytes", "bits_per_place", "ratio", *FIGURES)
        return [{name: p[name] for name in names} for p in sorted(found, key=lambda p: p["bytes"])]

    return {
        "model": codec.name,
        "model_id": codec.model_id,
        "grey": grey,
        "points": kept(points, "step"),
        "scaled": kept(scaled, "scale"),
    }


def _bd_rates(curve: Mapping[str, Any], points: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """BD-rates of a model's curve against another codec's, over the range of each measure that both have."""
    theirs = [p for p in points if _on_curve(p, name, curve["grey"])]
    return {measure: _bd_rate(curve["points"], theirs, measure) for measure in BD_MEASURES if theirs}


def _bd_rate(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], measure: str) -> dict[str, Any]:
    """BD-rate over one measure; None where it is not measured, or the curves do not overlap."""
    if any(p[measure] is None for p in (*ours, *theirs)):
        return {"bd_rate_percent": None, "from": None, "to": None}
    test, anchor = ([(p["bits_per_place"], p[measure]) for p in curve] for curve in (ours, theirs))
    low = max(min(q for _, q in c) for c in (anchor, test))
    high = min(max(q for _, q in c) for c in (anchor, test))
    if measure != "psnr":
        test, anchor = ([(r, measures.psnr(1 - q, 1.0) / 2) for r, q in c] for c in (test, anchor))
    if len(test) < 2 or low >= high:
        return {"bd_rate_percent": None, "from": None, "to": None}
    return {"bd_rate_percent": measures.bd_rate(anchor, test), "from": low, "to": high}


def fits(items: Sequence[Item], codec: Codec) -> bool:
    """Whether a model can take all these items: images any, where it has one channel or three; clips of its channels."""
    if codec.config.kind == "image":
        return codec.config.channels in (1, 3)
    return all(item.samples.ndim == 2 and item.samples.shape[1] == codec.config.channels for item in items)


def table(result: Mapping[str, Any], *, markdown: bool = False) -> str:
    """The tables of a result: what everything measured, and models against the other codecs' curves.

    Parameters
    ----------
    result : mapping
        As `evaluate` returns it, or as it was read back from JSON.
    markdown : bool
        For a document, not for a terminal.
    """
    image = result["kind"] == "image"
    points = result["points"]
    rows = []
    for point in points:
        if point["model_id"] is None:
            continue
        rows.append(_row(point, image))
        for other in points:
            if other["same_bytes_as"] == point["codec"] and other["grey"] == point["grey"]:
                off = other["bytes"] / point["bytes"] - 1
                label = ("same bytes: " if markdown else "  ") + title(other["codec"])
                rows.append(_row(other, image, label, " *" if abs(off) > LIMIT_OF_NEAREST else ""))
    places = "pixel" if image else "sample"
    unit = "MP/s" if image else "MS/s"
    header = [
        "",
        "reduction",
        "bytes",
        f"bits/{places}",
        "ratio",
        "PSNR dB",
        "linear dB",
        "of mean MSE",
    ]
    header += ["SSIM", "SSIM reduced", "MS-SSIM"] if image else ["SSDR dB", "SRDR dB"]
    header += [f"encode {unit}", f"decode {unit}"]
    count = len(result["items"])
    text = (
        f"{count} {'images' if image else 'clips'}; below each model other codecs at the same bytes, file by file\n\n"
    )
    text += format_table(header, rows, markdown=markdown)
    if any(row[2].endswith("*") for row in rows):
        text += f"\n* its nearest size is more than {LIMIT_OF_NEAREST:.0%} off"
    compared = [
        [
            entry["model"] or "all models",
            title(entry["against"]),
            _number(entry["bd_rate_percent"], 1, sign=True),
            _number(entry["bd_psnr_db"], 2, sign=True),
        ]
        for entry in result["comparisons"]
    ]
    if compared:
        text += "\n\nagainst the other codecs' curves (one model: at its PSNR, at its rate; n/a: beyond the curve)\n\n"
        text += format_table(["", "against", "rate %", "PSNR dB"], compared, markdown=markdown)
    for curve in result.get("curves", ()):
        text += f"\n\n{curve['model']} over steps"
        text += "\n\n" + step_table(curve, image, markdown=markdown)
        rates = bd_table(curve, markdown=markdown)
        text += "\n\nBD-rate, and the range that both curves have\n\n" + rates if rates else ""
    for absent, reason in result["missing"].items():
        text += f"\n{title(absent)} left out: {reason}"
    return text


def step_table(curve: Mapping[str, Any], image: bool, *, markdown: bool = False) -> str:
    """A model at its steps; beside them, where it was measured, the same bytes reached by scaling images first."""
    scaled = bool(curve["scaled"])
    header = ["step", "bytes", "ratio", "PSNR dB", "linear dB"]
    header += ["SSIM", "SSIM reduced", "MS-SSIM"] if image else ["SSDR dB", "SRDR dB"]
    header += ["scaled first, same bytes: dB"] * scaled
    rows = []
    for p in curve["points"]:
        row = [f"{p['step']:.3g}", str(p["bytes"]), f"{p['ratio']:.1f}:1"]
        row += [_dashed(p["psnr"], 2), _dashed(p["linear_psnr"], 2), *_further(p, image, _dashed)]
        rows.append(row + [_dashed(_scaled_psnr(curve, p), 2)] * scaled)
    return format_table(*filled(header, rows), markdown=markdown)


def filled(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """A table without the columns in which nothing was measured: those of dashes alone."""
    kept = [i for i in range(len(header)) if any(row[i] != "–" for row in rows)]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in rows]


def bd_table(curve: Mapping[str, Any], *, markdown: bool = False) -> str:
    """BD-rates of a model over its steps, a line for each other codec; empty where there is none."""
    names = {"psnr": "PSNR", "ssim": "SSIM", "ssim_reduced": "SSIM reduced", "ms_ssim": "MS-SSIM"}
    rows = []
    for other, entries in curve["against"].items():
        cells = []
        for measure in BD_MEASURES:
            found, digits = entries.get(measure), 1 if measure == "psnr" else 3
            if found is None or found["bd_rate_percent"] is None:
                cells.append("–")
            else:
                cells.append(
                    f"{found['bd_rate_percent']:+.1f} % ({found['from']:.{digits}f} to {found['to']:.{digits}f})"
                )
        if any(cell != "–" for cell in cells):
            rows.append([title(other), *cells])
    return format_table(["against", *names.values()], rows, markdown=markdown) if rows else ""


def _scaled_psnr(curve: Mapping[str, Any], point: Mapping[str, Any]) -> float | None:
    """PSNR that scaling images first reaches at the bytes of a point, between the scales that were measured."""
    (one,) = (p for p in curve["points"] if p["step"] == 1)
    line = sorted((math.log(p["bytes"]), p["psnr"]) for p in (*curve["scaled"], one))
    at = math.log(point["bytes"])
    if not line[0][0] <= at <= line[-1][0]:
        return None
    return float(np.interp(at, [rate for rate, _ in line], [quality for _, quality in line]))


def _further(point: Mapping[str, Any], image: bool, number: Callable[[float | None, int], str]) -> list[str]:
    """The cells of a point's measures other than PSNR."""
    if image:
        return [number(point[name], 4) for name in ("ssim", "ssim_reduced", "ms_ssim")]
    return [number(point[name], 2) for name in ("ssdr", "srdr")]


def _dashed(value: float | None, digits: int) -> str:
    """A number for a table, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def machine() -> dict[str, Any]:
    """What measurements depend on: processor, threads, versions."""
    from importlib import metadata

    versions: dict[str, str | None] = {}
    for package in ("numpy", "scipy", "numba", "pillow", "pillow-jxl-plugin", "soundfile", "scikit-image"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "processor": _processor(),
        "threads": threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


def _processor() -> str:
    """Name of the processor, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


class _Steps:
    """Counts finished steps and reports their share."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.count = progress, total, 0

    def done(self, count: int = 1) -> None:
        self.count += count
        if self.progress is not None:
            self.progress(self.count / self.total)


def _work(codecs: Sequence[Codec], others: Sequence[OtherCodec], curves: bool) -> int:
    """Steps for each item: models at step 1, and curves."""
    variants = len({codec.config.kind == "image" and codec.config.channels == 1 for codec in codecs})
    return len(codecs) + (variants * sum(len(other.curve) for other in others) if curves else 0)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """A result and the seconds that it took."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def _check_channels(items: Sequence[Item], others: Sequence[OtherCodec]) -> None:
    """Refuse images of channels that the other codecs do not know."""
    for item in items if others else ():
        channels = 1 if item.samples.ndim == 2 else item.samples.shape[2]
        if item.kind == "image" and channels not in (1, 3):
            names = ", ".join(other.name for other in others)
            raise BadSamples(f"{item.name}: channels", channels, f"1 or 3, for {names}; or --against none")


def _eight_bit(samples: NDArray, name: str) -> NDArray[np.uint8]:
    """The samples, or an error where they are not 8-bit."""
    if samples.dtype != np.uint8:
        raise BadSamples(f"{name}: samples.dtype", samples.dtype, "uint8; other codecs are compared on 8-bit images")
    return samples


def fitting(samples: NDArray[np.uint8], codec: Codec) -> NDArray[np.uint8]:
    """An image as the model takes it: luma (ITU-R BT.601) for a model of one channel."""
    if codec.config.channels != 1 or samples.ndim == 2:
        return samples
    from PIL import Image

    return np.asarray(Image.fromarray(samples).convert("L"))


def _comparable(item: Item, codec: Codec) -> Item:
    """An item as this model, and the other codecs beside it, are given it."""
    if item.kind == "audio":
        return item
    return Item(item.name, fitting(_eight_bit(item.samples, item.name), codec))


def _warm_up(codec: Codec, item: Item) -> None:
    """Code a small part once, so that kernels are compiled."""
    part = item.samples[tuple(slice(size) for size in WARM_UP[item.kind])]
    decode_stream(codec.encode(part, item.rate, sample_format=item.sample_format), codec=codec)


def _raw_bytes(item: Item) -> int:
    """Bytes of the item uncoded, at the bits that ratios are counted against."""
    return item.samples.size * REFERENCE_BITS[item.kind] // 8


def _measured(
    item: Item,
    size: int,
    decoded: NDArray,
    encode_seconds: float,
    decode_seconds: float,
    *,
    setting: float | None = None,
    spatial: bool = True,
) -> Measured:
    """Compare decoded samples with the item's; `spatial`: distortion between channels of audio, which takes long."""
    if item.kind == "audio":
        original, heard = unit_range(item.samples), unit_range(decoded)
        mse = measures.mean_squared_error(original, heard) / (2 * _centred(item)[1]) ** 2
        found = Measured(item.name, size, mse, measures.psnr(mse, 1.0), encode_seconds, decode_seconds, setting=setting)
        if original.shape[1] == 1 or not spatial:
            return found
        assert item.rate is not None
        ssdr, srdr = measures.spatial_distortion(original, heard, item.rate)
        return replace(found, ssdr=ssdr, srdr=srdr)
    mse = measures.mean_squared_error(item.samples, decoded)
    found = Measured(item.name, size, mse, measures.psnr(mse), encode_seconds, decode_seconds, setting=setting)
    return replace(found, **asdict(measures.structural_similarity(item.samples, decoded)))


def unit_range(samples: NDArray) -> NDArray[np.float64]:
    """Audio of any sample type as float64 (frames, channels), full scale 1."""
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.dtype == np.uint8:
        return samples / 128 - 1
    if np.issubdtype(samples.dtype, np.integer):
        return samples / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float64)


def _identity(item: Item) -> dict[str, Any]:
    """What tells an item from others, for JSON."""
    digest = hashlib.sha256(np.ascontiguousarray(item.samples).data).hexdigest()
    return {"name": item.name, "shape": list(item.samples.shape), "rate": item.rate, "sha256": digest}


def _on_curve(point: Mapping[str, Any], name: str, grey: bool) -> bool:
    """Whether a point is one of the curve of this codec."""
    return point["setting"] is not None and (point["codec"], point["grey"]) == (name, grey)


def _code_ours(
    codec: Codec, item: Item, linear: NDArray[np.float64] | None, step: float = 1.0
) -> tuple[NDArray, Measured]:
    """Code an item with a model: the decoded samples, whose symbols were verified, and their figures."""
    how: dict[str, Any] = {"sample_format": item.sample_format, "step": step}
    stream, encode_seconds = _timed(lambda: codec.encode(item.samples, item.rate, **how))
    decoded, decode_seconds = _timed(lambda: decode_stream(stream, codec=codec))
    measured = _measured(item, len(stream), decoded.samples, encode_seconds, decode_seconds)
    channels = item.samples.size // item.places if item.kind == "image" else item.samples.shape[1]
    if linear is not None and channels == codec.config.channels:
        symbols = walloc_ref.decode_symbols(stream, codec=codec)
        measured = replace(measured, linear_psnr=_linear_psnr(codec, linear, item, symbols, step))
    return decoded.samples, measured


def _code_scaled(codec: Codec, item: Item, scale: float) -> Measured:
    """Reduce an image by a scale (Lanczos), code it with step 1, and enlarge what was decoded to the image's size."""
    from PIL import Image

    height, width = item.samples.shape[:2]
    small = (max(1, round(width * scale)), max(1, round(height * scale)))

    def resized(samples: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(samples).resize(size, Image.Resampling.LANCZOS))

    stream, encode_seconds = _timed(lambda: codec.encode(resized(item.samples, small)))
    decoded, decode_seconds = _timed(lambda: resized(decode_stream(stream, codec=codec).samples, (width, height)))
    return _measured(item, len(stream), decoded, encode_seconds, decode_seconds)


def _linear_psnr(
    codec: Codec, linear: NDArray[np.float64], item: Item, symbols: NDArray[np.int16], step: float
) -> float:
    """PSNR of the symbols decoded linearly."""
    places = item.samples.shape[: 2 if item.kind == "image" else 1]
    x = linear_decoder.decode(codec, linear, symbols, places, step)
    if item.kind == "image":
        decoded = signal.signal_to_image(x, np.uint8).reshape(item.samples.shape)
        return measures.psnr(measures.mean_squared_error(item.samples, decoded))
    original, peak = _centred(item)
    return measures.psnr(float(np.mean((original.T / (2 * peak) - x) ** 2)), 1.0)


def _centred(item: Item) -> tuple[NDArray[np.float64], float]:
    """Audio without its mean, float64 (frames, channels), and its peak."""
    original = unit_range(item.samples)
    original = original - original.mean()
    return original, float(np.abs(original).max()) or 1.0


def _code(other: OtherCodec, item: Item, setting: float, *, spatial: bool = True) -> Against:
    """Code an item with another codec."""
    samples = unit_range(item.samples) if item.kind == "audio" else item.samples
    data, encode_seconds = _timed(lambda: other.encode(samples, item.rate, setting))
    decoded, decode_seconds = _timed(lambda: other.decode(data, samples, item.rate))
    if item.kind == "audio":
        decoded = other_codecs.aligned(decoded, samples)
    measured = _measured(item, len(data), decoded, encode_seconds, decode_seconds, setting=setting, spatial=spatial)
    return Against(other.name, measured, decoded)


def _nearest(other: OtherCodec, item: Item, wanted: int, known: dict[float, int]) -> Against:
    """Code an item with another codec at the setting whose file is nearest in size."""
    samples = unit_range(item.samples) if item.kind == "audio" else item.samples
    setting, _ = other_codecs.nearest_size(
        lambda setting: other.encode(samples, item.rate, setting), other.settings, wanted, known
    )
    return _code(other, item, setting)


def _point(
    name: str,
    grey: bool,
    items: Sequence[Item],
    measured: Sequence[Measured],
    *,
    codec: Codec | None = None,
    setting: float | None = None,
    same_bytes_as: str | None = None,
) -> dict[str, Any]:
    """Totals of one codec over all items, and every item's figures."""
    places = sum(item.places for item in items)
    size = sum(m.bytes for m in measured)
    reduction = None
    if codec is not None:
        symbols = sum(codec.config.planes * math.prod(_latent_sizes(codec, item)) for item in items)
        reduction = sum(item.samples.size for item in items) / symbols
    mean_mse = float(np.mean([m.mse for m in measured]))
    return {
        "codec": name,
        "grey": grey,
        "model_id": codec.model_id if codec else None,
        "config": asdict(codec.config) if codec else None,
        "setting": setting,
        "same_bytes_as": same_bytes_as,
        "bytes": size,
        "bits_per_place": 8 * size / places,
        "ratio": sum(_raw_bytes(item) for item in items) / size,
        "dimensionality_reduction": reduction,
        **{name: _mean([getattr(m, name) for m in measured]) for name in FIGURES},
        "psnr_of_mean_mse": measures.psnr(mean_mse, 255.0 if items[0].kind == "image" else 1.0),
        "encode_mega_per_second": places / 1e6 / sum(m.encode_seconds for m in measured),
        "decode_mega_per_second": places / 1e6 / sum(m.decode_seconds for m in measured),
        "items": [asdict(m) for m in measured],
    }


def _latent_sizes(codec: Codec, item: Item) -> tuple[int, ...]:
    """Latent positions of an item along each axis."""
    sizes = item.samples.shape[:2] if item.kind == "image" else item.samples.shape[:1]
    return codec.config.latent_sizes(sizes)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None where one is missing."""
    present = [v for v in values if v is not None]
    return float(np.mean(present)) if present and len(present) == len(values) else None


def _comparisons(
    points: Sequence[Mapping[str, Any]], models: Sequence[tuple[Codec, bool]], others: Sequence[OtherCodec]
) -> list[dict[str, Any]]:
    """Each model, and all models of a variant as one curve, against the curve of each other codec."""

    def curve(name: str, grey: bool) -> list[tuple[float, float]]:
        chosen = [p for p in points if _on_curve(p, name, grey)]
        return [(p["bits_per_place"], p["psnr"]) for p in chosen]

    def item_curve(name: str, grey: bool, number: int) -> list[tuple[float, float]]:
        chosen = [p for p in points if _on_curve(p, name, grey)]
        return [(p["items"][number]["bytes"], p["items"][number]["psnr"]) for p in chosen]

    of_model = {p["model_id"]: p for p in points if p["model_id"] is not None}
    found = []
    for other in others:
        for codec, grey in models:
            anchor = curve(other.name, grey)
            if len(anchor) < 2:
                continue
            point = of_model[codec.model_id]
            test = [(point["bits_per_place"], point["psnr"])]
            each = [
                measures.bd_rate(item_curve(other.name, grey, i), [(m["bytes"], m["psnr"])])
                for i, m in enumerate(point["items"])
            ]
            found.append(
                {
                    "model": codec.name,
                    "grey": grey,
                    "against": other.name,
                    "bd_rate_percent": measures.bd_rate(anchor, test),
                    "bd_psnr_db": measures.bd_psnr(anchor, test),
                    "rate_percent_of_items": each,
                }
            )
        for grey in sorted({grey for _, grey in models}):
            test = [(p["bits_per_place"], p["psnr"]) for p in of_model.values() if p["grey"] == grey]
            anchor = curve(other.name, grey)
            if len(test) > 1 and len(anchor) > 1:
                found.append(
                    {
                        "model": None,
                        "grey": grey,
                        "against": other.name,
                        "bd_rate_percent": measures.bd_rate(anchor, test),
                        "bd_psnr_db": measures.bd_psnr(anchor, test),
                        "rate_percent_of_items": None,
                    }
                )
    return found


def _sheet(codec: Codec, item: Item, ours: Measured, decoded: NDArray, nearest: Sequence[Against]) -> bytes:
    """The contact sheet of one image: original, decoded, difference, and the first other codec at the same bytes."""
    raw = _raw_bytes(item)
    panels = [
        sheet.Panel("Original", f"{item.samples.shape[1]}x{item.samples.shape[0]}, {raw} bytes", item.samples),
        sheet.Panel(f"walloc_ref, {codec.name}", _caption(ours, item), decoded),
        sheet.Panel(
            f"Difference, {sheet.GAIN} times, around grey",
            f"{codec.name} less original",
            sheet.difference(item.samples, decoded),
        ),
    ]
    for other in nearest[:1]:
        name = f"{title(other.name)} at the same bytes"
        panels.append(sheet.Panel(name, _caption(other.measured, item), other.samples))
    detail = sheet.hardest_place(item.samples, decoded)
    return sheet.contact_sheet(f"{item.name}, {codec.name}", panels, detail=detail)


def _caption(measured: Measured, item: Item) -> str:
    """Figures of one coded image, on one line."""
    text = f"{measured.bytes} bytes, {_raw_bytes(item) / measured.bytes:.0f}:1, {_number(measured.psnr, 2)} dB"
    return text if measured.ssim is None else f"{text}, SSIM {measured.ssim:.3f}"


TITLES = {
    "webp": "WebP",
    "jpeg": "JPEG",
    "jpeg2000": "JPEG 2000",
    "jxl": "JPEG XL",
    "avif": "AVIF",
    "opus": "Opus",
    "mp3": "MP3",
}
"""Names of the other codecs, for people."""


def title(name: str) -> str:
    """The name of another codec, for people."""
    return TITLES.get(name, name.capitalize())


def _at(measured: Measured) -> str:
    """The setting of the quality knob, for the first column of a table."""
    return "" if measured.setting is None else f", quality {measured.setting:g}"


def _row(point: Mapping[str, Any], image: bool, label: str | None = None, mark: str = "") -> list[str]:
    """A point as a row of the table."""
    reduction = point["dimensionality_reduction"]
    return [
        label or point["codec"],
        "" if reduction is None else f"{reduction:.1f}",
        f"{point['bytes']}{mark}",
        f"{point['bits_per_place']:.4f}",
        f"{point['ratio']:.1f}:1",
        _number(point["psnr"], 2),
        "" if point.get("linear_psnr") is None else _number(point["linear_psnr"], 2),
        _number(point["psnr_of_mean_mse"], 2),
        *_further(point, image, _number),
        f"{point['encode_mega_per_second']:.2f}",
        f"{point['decode_mega_per_second']:.2f}",
    ]


def _number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """A number for a table, or n/a."""
    if value is None:
        return "n/a"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False) -> str:
    """Aligned columns: the first to the left, all others to the right."""
    if markdown:
        lines = ["| " + " | ".join(cell.strip() for cell in row) + " |" for row in (header, *rows)]
        lines.insert(1, "| --- |" + " ---: |" * (len(header) - 1))
        return "\n".join(lines)
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _finite(value: Any) -> Any:
    """The same with numbers that JSON does not know, infinity and NaN, as None."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
