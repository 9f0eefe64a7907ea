"""Spectral images, volumes, audio of many channels: models fitted to a part, measured on another. No part of the codec.

Each half of the samples is coded by a model that `walloc_ref.fit` made of the other half, or each of several files by a
model of all the others; bytes and errors of these parts are added up. What their users take today codes the same parts:

    spectral images   JPEG 2000, all bands in one codestream; and over principal components of the spectrum, which are part
                      of the file (16 bits a number), or come from the other parts, as ours do, and are not counted
    volumes           JPEG 2000 with all slices in one codestream; JPEG 2000 and JPEG XL slice by slice
    audio             Opus, each channel a file, at the same share of the bits

and without loss gzip and JPEG 2000 say where the far end is. Four surprises:

1. Slices or bands in one codestream cost JPEG 2000 a third less than single files at low rates, because headers go, and its
   rate control spends bits where they count most. So that is what counts.
2. PSNR refers to the range of the format for 8 bits, and for wider formats to what the samples span, since 12 bits of a
   sensor in 16 would add decibels for nothing. Audio: to the peak-to-peak range of the file, as its stream does.
3. Curves are compared at equal PSNR, bytes interpolated on their logarithm (PCHIP); nothing is extrapolated.
4. Seconds are the processor's, of all threads together: what else the machine does meanwhile counts less than on a clock.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref import fit as fitting
from walloc_ref.codec import Codec, decode
from walloc_ref.errors import BadSamples, UnreadableFile
from walloc_ref.measure import measures
from walloc_ref.measure.other_codecs import AudioCodec, aligned, find

Samples = NDArray[Any]

FORMAT = "walloc_ref.eval parts 1"
"""Of results."""

PSNRS = (30.0, 32.5, 35.0, 37.5, 40.0, 42.5, 45.0)
"""Where curves are compared, in decibels."""

STEPS = (0.84, 1.41, 2.38, 4.0, 6.73, 11.3, 19.0, 32.0, 54.0, 90.0)
"""Steps of the quantiser that a model is measured at."""

FITTED_PSNR = 45.0
"""What models are fitted for: at step 1 the error of a uniform quantiser in all components is that of this PSNR."""

LEVELS = {"spectral": (1,), "volume": (1, 2), "audio": (6, 8)}
"""Levels of the models that are fitted where nothing is said."""

COMPONENTS = (3, 5, 10, 20)
"""Principal components of the spectrum that are coded; at each PSNR the number that takes the fewest bytes counts."""

COMPONENT_BYTES = 2
"""Of a number of a component or of the mean, in a file."""

REQUIRED = "JPEG 2000 and JPEG XL need the package imagecodecs"


@dataclass(frozen=True)
class Point:
    """A signal coded once: bytes, mean squared error, quality, processor seconds; of parts, their sums or means.

    `angle` is the mean spectral angle in degrees, `ssim` that of slices or bands; None where it means nothing.
    """

    setting: str
    bytes: int
    mse: float
    psnr: float
    encode_seconds: float
    decode_seconds: float
    angle: float | None = None
    ssim: float | None = None


@dataclass(frozen=True, eq=False)
class Curve:
    """A codec's points, by rising bytes."""

    name: str
    points: tuple[Point, ...]

    def bytes_at(self, psnr: float) -> float | None:
        """Bytes at a PSNR, or None beyond the ends."""
        return self._at(psnr, [math.log(p.bytes) for p in self.rising], exponent=True)

    def seconds_at(self, psnr: float) -> float | None:
        """Processor seconds of encoding at a PSNR."""
        return self._at(psnr, [p.encode_seconds for p in self.rising], exponent=False)

    def measure_at(self, psnr: float, name: str) -> float | None:
        """The spectral angle or SSIM ("angle", "ssim") at a PSNR."""
        return self._at(psnr, [getattr(p, name) for p in self.rising], exponent=False)

    @property
    def rising(self) -> list[Point]:
        """Points that are better than all that take fewer bytes, each of the fewest bytes for its quality."""
        kept: list[Point] = []
        for point in sorted(self.points, key=lambda p: p.bytes):
            if math.isfinite(point.psnr) and (not kept or point.psnr > kept[-1].psnr + 0.01):
                kept.append(point)
        return kept

    def _at(self, psnr: float, values: Sequence[float], *, exponent: bool) -> float | None:
        from scipy.interpolate import PchipInterpolator

        at = [p.psnr for p in self.rising]
        if len(at) < 2 or not at[0] <= psnr <= at[-1]:
            return None
        value = float(PchipInterpolator(at, values)(psnr))
        return math.exp(value) if exponent else value


@dataclass(frozen=True, eq=False)
class Subject:
    """What is measured.

    Attributes
    ----------
    name : str
    kind : str
        "spectral" (H, W, bands), "volume" (depth, H, W) or "audio" (frames, channels).
    parts : tuple of arrays
        Halves of a file, or files; each is coded by models that were fitted to all others.
    peaks : tuple of float
        The ranges that their PSNR refers to: of audio each file's own, otherwise one for all.
    rate : int, optional
        Of audio.
    """

    name: str
    kind: str
    parts: tuple[Samples, ...]
    peaks: tuple[float, ...]
    rate: int | None = None

    @property
    def peak(self) -> float:
        """The largest range."""
        return max(self.peaks)

    @property
    def first(self) -> Samples:
        """One of the parts, which all have the same format and channels."""
        return self.parts[0]

    def others(self, part: Samples) -> list[Samples]:
        """All parts but this one."""
        return [other for other in self.parts if other is not part]


AXES = {"spectral": 3, "volume": 3, "audio": 2}
"""Axes of the samples of each kind."""


def subject(name: str, samples: Samples, kind: str, rate: int | None = None) -> Subject:
    """The halves of a file.

    Raises
    ------
    BadSamples
        Not the axes of its kind, or less than two samples along the first.
    """
    _check_axes(samples, kind)
    middle = len(samples) // 2
    return Subject(name, kind, (samples[:middle], samples[middle:]), (_range([samples]),) * 2, rate)


def subject_of_files(name: str, files: Sequence[Samples], kind: str, rate: int | None = None) -> Subject:
    """Files, each of which is left out in turn.

    Raises
    ------
    BadSamples
        Less than two, not the axes of their kind, or not of one format and number of channels.
    """
    if len(files) < 2:
        raise BadSamples("files", len(files), "at least two, one to measure on and others to fit to")
    for samples in files:
        _check_axes(samples, kind)
        alike = [(f.dtype.name, f.shape[-1] if kind != "volume" else 1) for f in (files[0], samples)]
        if alike[0] != alike[1]:
            raise BadSamples("files", " and ".join(f"{c} channels of {d}" for d, c in alike), "one format for all")
    peaks = [_range([samples] if kind == "audio" else files) for samples in files]
    return Subject(name, kind, tuple(files), tuple(peaks), rate)


def _check_axes(samples: Samples, kind: str) -> None:
    if kind not in AXES:
        raise BadSamples("kind", kind, "one of " + ", ".join(AXES))
    if samples.ndim != AXES[kind] or len(samples) < 2:
        raise BadSamples(
            "samples.shape", samples.shape, f"{AXES[kind]} axes for {kind}, two samples or more along the first"
        )


def _range(arrays: Sequence[Samples]) -> float:
    """The range that PSNR refers to; at least a sample step of what is constant."""
    if arrays[0].dtype == np.uint8:
        return 255.0
    return float(max(a.max() for a in arrays)) - float(min(a.min() for a in arrays)) or 1.0


# ---- ours ---------------------------------------------------------------------------------------------------------------


def fitted_curve(
    about: Subject, levels: int, components: str | None = None, *, spectrum_as_axis: bool = False
) -> tuple[Curve, list[Codec]]:
    """A model of all parts but one, measured on that one; for each.

    With `spectrum_as_axis` a spectral image is coded as a volume whose depth is the spectrum.
    """
    kind = "image" if about.kind == "spectral" else about.kind
    turn: Callable[[Samples], Samples] = lambda a: a  # noqa: E731
    back = turn
    if spectrum_as_axis:
        kind = "volume"
        turn, back = (lambda a: np.ascontiguousarray(np.moveaxis(a, -1, 0))), (lambda a: np.moveaxis(a, 0, -1))
    target = FITTED_PSNR + (20 * math.log10(_full_scale(about) / about.peak) if about.kind != "audio" else 0)
    codecs = []
    for number, part in enumerate(about.parts):
        name, material = f"{about.name}_{number}", [turn(other) for other in about.others(part)]
        own_step = 255 * math.sqrt(12) * 10 ** (-target / 20)
        found = fitting.fit(material, kind=kind, levels=levels, step=own_step, components=components, name=name)
        codecs.append(Codec(found.model))
    codecs[0].encode(turn(about.first), about.rate)  # so that nothing is compiled while it is timed
    points = []
    for step in STEPS:
        parts = []
        for half, codec in zip(about.parts, codecs):
            begin = time.process_time()
            data = codec.encode(turn(half), about.rate, step=step)
            middle = time.process_time()
            decoded = decode(data, codec=codec)
            parts.append(_part(about, half, back(decoded), len(data), middle - begin, time.process_time() - middle))
        points.append(_together(f"step {step:g}", about, parts))
    label = f"walloc_ref, J = {levels}" + (f", {components}" if components else "")
    return Curve(label + (", spectrum as an axis" if spectrum_as_axis else ""), tuple(points)), codecs


# ---- the others ---------------------------------------------------------------------------------------------------------


def _codecs() -> Any:
    """The package imagecodecs.

    Raises
    ------
    BadSamples
        It is not installed.
    """
    try:
        import imagecodecs
    except ImportError as error:
        raise BadSamples("against", "jpeg2000, jpegxl", REQUIRED) from error
    return imagecodecs


def _jpeg2000(planes: Samples, level: float) -> bytes:
    """Planes (H, W, n) of integers in one codestream; `level` is a PSNR over the range of the format, 0 without loss."""
    options = {"reversible": True} if level == 0 else {"level": level, "reversible": False}
    return _codecs().jpeg2k_encode(np.ascontiguousarray(planes), codecformat="J2K", mct=False, **options)


def _read_jpeg2000(data: bytes, like: Samples) -> Samples:
    return np.asarray(_codecs().jpeg2k_decode(data)).reshape(like.shape)


def _planes_last(about: Subject, samples: Samples) -> Samples:
    """Bands or slices as the last axis."""
    return samples if about.kind == "spectral" else np.moveaxis(samples, 0, -1)


def _planes_back(about: Subject, samples: Samples) -> Samples:
    return samples if about.kind == "spectral" else np.moveaxis(samples, -1, 0)


def _full_scale(about: Subject) -> float:
    return 255.0 if about.first.dtype == np.uint8 else 65535.0


def jpeg2000(about: Subject) -> Curve:
    """All bands or slices of a half in one codestream."""
    extra = 20 * math.log10(_full_scale(about) / about.peak)

    def code(half: Samples, level: float) -> tuple[int, Samples, float, float]:
        planes = _planes_last(about, half)
        begin = time.process_time()
        data = _jpeg2000(planes, level + extra)
        middle = time.process_time()
        decoded = _read_jpeg2000(data, planes)
        return len(data), _planes_back(about, decoded), middle - begin, time.process_time() - middle

    return _curve(about, "JPEG 2000, one codestream", code, [28 + 2.0 * i for i in range(10)])


def jpeg2000_planes(about: Subject) -> Curve:
    """Every band or slice a codestream."""
    extra = 20 * math.log10(_full_scale(about) / about.peak)

    def code(half: Samples, level: float) -> tuple[int, Samples, float, float]:
        planes = _planes_last(about, half)
        decoded, size = np.empty_like(planes), 0
        begin = time.process_time()
        files = [_jpeg2000(planes[..., i], level + extra) for i in range(planes.shape[-1])]
        middle = time.process_time()
        for i, data in enumerate(files):
            decoded[..., i] = _read_jpeg2000(data, planes[..., i])
            size += len(data)
        return size, _planes_back(about, decoded), middle - begin, time.process_time() - middle

    return _curve(about, "JPEG 2000 by slice", code, [26 + 3.0 * i for i in range(8)])


def jpegxl_planes(about: Subject) -> Curve:
    """Every band or slice a JPEG XL file (lossy, effort 7), wider formats stretched to their range."""
    low, stretch = float(min(part.min() for part in about.parts)), _full_scale(about) / about.peak
    dtype = about.first.dtype

    def code(half: Samples, distance: float) -> tuple[int, Samples, float, float]:
        planes = np.ascontiguousarray(np.moveaxis(_planes_last(about, half), -1, 0))
        if dtype != np.uint8:
            planes = np.rint((planes.astype(np.float64) - low) * stretch).astype(np.uint16)
        begin = time.process_time()
        files = [_codecs().jpegxl_encode(p, distance=distance, effort=7, lossless=False) for p in planes]
        middle = time.process_time()
        decoded = np.stack([_codecs().jpegxl_decode(d).reshape(planes.shape[1:]) for d in files])
        seconds = time.process_time() - middle
        if dtype != np.uint8:
            decoded = np.rint(decoded / stretch + low).astype(dtype)
        return sum(map(len, files)), _planes_back(about, np.moveaxis(decoded, 0, -1)), middle - begin, seconds

    return _curve(about, "JPEG XL by slice", code, [0.3, 0.6, 1.0, 2.0, 4.0, 8.0, 15.0])


def jpeg2000_of_spectrum(about: Subject, own: bool) -> Curve:
    """JPEG 2000 over principal components of the spectrum: those of the half itself, counted, or of the other half."""
    points: list[Point] = []
    for count in COMPONENTS:
        if count > about.first.shape[-1]:
            break

        def code(half: Samples, level: float, count: int = count) -> tuple[int, Samples, float, float]:
            other = half if own else np.concatenate([o.reshape(-1, o.shape[-1]) for o in about.others(half)])
            begin = time.process_time()
            mean, vectors = _spectrum(other, count)
            values = (half.reshape(-1, half.shape[-1]).astype(np.float64) - mean) @ vectors  # [pixels, count]
            low, high = values.min(), values.max()
            stretch = min(65535 / max(high - low, 1e-9), 4 * 65535 / about.peak)
            planes = np.rint((values - low) * stretch).astype(np.uint16).reshape(*half.shape[:2], count)
            share = 10 * math.log10(half.shape[-1] / count)  # the error of all bands is that of fewer components
            full = 20 * math.log10(65535 / (about.peak * stretch))
            data = _jpeg2000(planes, max(1.0, level + full - share))
            middle = time.process_time()
            decoded = _read_jpeg2000(data, planes).reshape(-1, count) / stretch + low
            samples = _rounded(decoded @ vectors.T + mean, half)
            beside = COMPONENT_BYTES * (count + 1) * half.shape[-1] if own else 0
            return len(data) + beside, samples, middle - begin, time.process_time() - middle

        found = _curve(about, "", code, [24 + 2.5 * i for i in range(12)])
        points += [replace(p, setting=f"{count} components, {p.setting}") for p in found.points]
    name = "JPEG 2000 over components of the spectrum, " + ("counted" if own else "of the others, not counted")
    return Curve(name, tuple(points))


def _spectrum(half: Samples, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (bands,) and principal components (bands, count) of the spectra."""
    spectra = half.reshape(-1, half.shape[-1]).astype(np.float64)
    mean = spectra.mean(0)
    _, vectors = np.linalg.eigh((spectra - mean).T @ (spectra - mean))
    vectors = vectors[:, ::-1][:, :count].astype(np.float16).astype(np.float64)  # as a file would hold them
    return mean.astype(np.float32).astype(np.float64), vectors


def _rounded(values: NDArray[np.float64], like: Samples) -> Samples:
    """Values in the format of the samples."""
    if like.dtype.kind == "f":
        return values.reshape(like.shape).astype(like.dtype)
    info = np.iinfo(like.dtype)
    return np.clip(np.rint(values), info.min, info.max).astype(like.dtype).reshape(like.shape)


def opus_channels(about: Subject) -> Curve:
    """Opus, each channel a file."""
    opus = find("audio", "opus")
    assert isinstance(opus, AudioCodec) and about.rate is not None
    rate = about.rate
    full = 1.0 if about.first.dtype.kind == "f" else float(np.iinfo(about.first.dtype).max) + 1

    def code(half: Samples, level: float) -> tuple[int, Samples, float, float]:
        x = half / full
        begin = time.process_time()
        files = [opus.encode(x[:, c : c + 1], rate, level) for c in range(x.shape[1])]
        middle = time.process_time()
        decoded = [aligned(opus.decode(d, x[:, c : c + 1], rate), x[:, c : c + 1]) for c, d in enumerate(files)]
        samples = _rounded(np.concatenate(decoded, 1) * full, half)
        return sum(map(len, files)), samples, middle - begin, time.process_time() - middle

    return _curve(about, "Opus by channel", code, opus.curve)


def without_loss(about: Subject) -> dict[str, int]:
    """Bytes of all parts without loss."""
    found = {"samples": sum(part.nbytes for part in about.parts), "gzip": 0}
    for half in about.parts:
        found["gzip"] += len(gzip.compress(np.ascontiguousarray(half).tobytes(), 9, mtime=0))
        if about.kind != "audio":
            found["JPEG 2000"] = found.get("JPEG 2000", 0) + len(_jpeg2000(_planes_last(about, half), 0))
    return found


def _curve(
    about: Subject,
    name: str,
    code: Callable[[Samples, float], tuple[int, Samples, float, float]],
    settings: Sequence[float],
) -> Curve:
    """All parts at all settings."""
    points = []
    for setting in settings:
        parts = []
        for half in about.parts:
            size, decoded, encode_seconds, decode_seconds = code(half, setting)
            parts.append(_part(about, half, decoded, size, encode_seconds, decode_seconds))
        points.append(_together(f"{setting:g}", about, parts))
    return Curve(name, tuple(points))


# ---- quality ------------------------------------------------------------------------------------------------------------


def spectral_angle(original: Samples, decoded: Samples) -> float:
    """Mean angle between the spectra of all pixels, in degrees; pixels of zeros are left out."""
    a = original.reshape(-1, original.shape[-1]).astype(np.float64)
    b = decoded.reshape(-1, decoded.shape[-1]).astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(1)[lengths > 0] / lengths[lengths > 0]
    return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean()) if cosines.size else 0.0


def slice_similarity(about: Subject, original: Samples, decoded: Samples) -> float | None:
    """Mean SSIM of every eighth band or slice, or None without scikit-image."""
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        return None
    a, b = _planes_last(about, original), _planes_last(about, decoded)
    if min(a.shape[:2]) < 2 * measures.GAUSSIAN_RADIUS + 1:
        return None
    options = {"gaussian_weights": True, "sigma": measures.GAUSSIAN_SIGMA, "use_sample_covariance": False}
    found = [
        structural_similarity(
            a[..., i].astype(np.float64), b[..., i].astype(np.float64), data_range=about.peak, **options
        )
        for i in range(0, a.shape[-1], 8)
    ]
    return float(np.mean(found))


def _part(
    about: Subject, half: Samples, decoded: Samples, size: int, encode_seconds: float, decode_seconds: float
) -> Point:
    """A part coded once."""
    mse = measures.mean_squared_error(half, decoded)
    angle = spectral_angle(half, decoded) if about.kind == "spectral" else None
    ssim = slice_similarity(about, half, decoded) if about.kind != "audio" else None
    peak = about.peaks[[part is half for part in about.parts].index(True)]
    return Point("", size, mse, measures.psnr(mse, peak), encode_seconds, decode_seconds, angle, ssim)


def _together(setting: str, about: Subject, parts: Sequence[Point]) -> Point:
    """All parts."""
    sizes = [part.size for part in about.parts]
    mse = sum(p.mse * n for p, n in zip(parts, sizes)) / sum(sizes)
    share = sum(p.mse * n / peak**2 for p, n, peak in zip(parts, sizes, about.peaks)) / sum(sizes)

    def mean(values: Sequence[float | None]) -> float | None:
        return None if None in values else float(np.mean([v for v in values if v is not None]))

    return Point(
        setting,
        sum(p.bytes for p in parts),
        mse,
        measures.psnr(share, 1.0),
        sum(p.encode_seconds for p in parts),
        sum(p.decode_seconds for p in parts),
        mean([p.angle for p in parts]),
        mean([p.ssim for p in parts]),
    )


# ---- the whole ----------------------------------------------------------------------------------------------------------


def evaluate(
    about: Subject,
    *,
    reuse: dict[str, Any] | None = None,
    draw: Callable[[str, bytes], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Fit models to all parts but one, measure them on that one, and measure what else there is.

    Parameters
    ----------
    about : Subject
    reuse : dict, optional
        An earlier result of the same samples, to take the other codecs' curves from.
    draw : callable, optional
        Is given the subject's name and pictures, PNG, of its last part before and after, at about `DRAWN_PSNR`.
    progress : callable, optional
        Called with the share of the work that is done.

    Returns
    -------
    dict, ready for JSON
        "format", "name", "kind", "shapes", "dtype", "peak"; "without_loss": bytes; "curves": of each codec "name", "ours"
        and "points", `Point` as a dictionary; "at_psnr": for each of `PSNRS` "psnr" and for each curve's name bytes and
        processor seconds of encoding, or None beyond its ends.

    Raises
    ------
    BadSamples
        imagecodecs is not installed, or samples that it does not take.
    """
    shapes = [list(part.shape) for part in about.parts]
    if reuse is not None and (reuse.get("name"), reuse.get("shapes")) != (about.name, shapes):
        raise BadSamples("reuse", f"{reuse.get('name')}, {reuse.get('shapes')}", f"{about.name}, {shapes}")
    jobs: list[Callable[[], tuple[Curve, list[Codec] | None]]] = []
    for levels in LEVELS[about.kind]:
        if about.kind == "spectral":
            for components in ("dense", "separable"):
                jobs.append(lambda j=levels, c=components: fitted_curve(about, j, c))  # type: ignore[misc]
        else:
            jobs.append(lambda j=levels: fitted_curve(about, j))  # type: ignore[misc]
    if about.kind == "spectral":
        jobs.append(lambda: fitted_curve(about, max(LEVELS["spectral"]), spectrum_as_axis=True))
        others: tuple[Callable[[], Curve], ...] = (
            lambda: jpeg2000(about),
            lambda: jpeg2000_of_spectrum(about, own=True),
            lambda: jpeg2000_of_spectrum(about, own=False),
            lambda: jpegxl_planes(about),
        )
    elif about.kind == "volume":
        others = (lambda: jpeg2000(about), lambda: jpeg2000_planes(about), lambda: jpegxl_planes(about))
    else:
        others = (lambda: opus_channels(about),)
    if reuse is None:
        jobs += [lambda other=other: (other(), None) for other in others]  # type: ignore[misc]
    else:
        earlier = [_read_curve(curve) for curve in reuse["curves"] if not curve["ours"]]
        jobs += [lambda curve=curve: (curve, None) for curve in earlier]  # type: ignore[misc]
    curves: list[tuple[Curve, bool]] = []
    first: list[Codec] | None = None
    for number, job in enumerate(jobs):
        curve, codecs = job()
        curves.append((curve, codecs is not None))
        first = first or codecs
        if progress is not None:
            progress((number + 1) / len(jobs))
    if draw is not None and first is not None:
        ours = curves[0][0]
        nearest = min(ours.points, key=lambda p: abs(p.psnr - DRAWN_PSNR))
        step = STEPS[ours.points.index(nearest)]
        half = about.parts[-1]
        decoded = decode(first[-1].encode(half, about.rate, step=step), codec=first[-1])
        draw(about.name, pictures(about, half, decoded))
    return assembled(about, curves, without_loss(about) if reuse is None else reuse["without_loss"])


def assembled(about: Subject, curves: Sequence[tuple[Curve, bool]], lossless: dict[str, int]) -> dict[str, Any]:
    """A result as `evaluate` returns it, of curves and whether each is ours."""
    return {
        "format": FORMAT,
        "name": about.name,
        "kind": about.kind,
        "shapes": [list(part.shape) for part in about.parts],
        "dtype": str(about.first.dtype),
        "peak": about.peak,
        "without_loss": lossless,
        "curves": [{"name": c.name, "ours": ours, "points": [vars(p) for p in c.points]} for c, ours in curves],
        "at_psnr": [
            {
                "psnr": psnr,
                "bytes": {c.name: c.bytes_at(psnr) for c, _ in curves},
                "seconds": {c.name: c.seconds_at(psnr) for c, _ in curves},
            }
            for psnr in PSNRS
        ],
    }


def read_results(data: bytes, name: str) -> dict[str, dict[str, Any]]:
    """Results as `evaluate` gives them, from a JSON list of them, by the names of their subjects.

    Raises
    ------
    UnreadableFile
        It is nothing of the kind.
    """
    try:
        found = {result["name"]: result for result in json.loads(data)}
        for result in found.values():
            if result["format"] != FORMAT:
                raise ValueError(f"format {result['format']}, not {FORMAT}")
            [_read_curve(curve) for curve in result["curves"] if curve["ours"] in (True, False)]
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableFile("--reuse", name, f"what --json wrote ({error})") from error
    return found


def _read_curve(curve: dict[str, Any]) -> Curve:
    """A curve as a result holds it."""
    return Curve(curve["name"], tuple(Point(**point) for point in curve["points"]))


def table(result: dict[str, Any]) -> str:
    """Bytes at equal PSNR, and how ours compare with the best of ours at each."""
    names = [c["name"] for c in result["curves"]]
    ours = {c["name"] for c in result["curves"] if c["ours"]}
    wide = max(map(len, names)) + 2
    shapes = " and ".join("x".join(map(str, shape)) for shape in result["shapes"])
    lines = [f"{result['name']}: {result['kind']}, {shapes}, {result['dtype']}; each by a model of the others"]
    lines.append("bytes at" + " " * (wide - 8) + "".join(f"{row['psnr']:>8g} dB" for row in result["at_psnr"]))
    for name in names:
        sizes = [row["bytes"][name] for row in result["at_psnr"]]
        lines.append(name.ljust(wide) + "".join(f"{'' if n is None else round(n):>11}" for n in sizes))
    lines.append("the best of ours, against")
    for name in (n for n in names if n not in ours):
        cells = []
        for row in result["at_psnr"]:
            best = min((row["bytes"][n] for n in ours if row["bytes"][n] is not None), default=None)
            other = row["bytes"][name]
            cells.append("" if best is None or other is None else f"{100 * (best / other - 1):+.1f} %")
        lines.append(name.ljust(wide) + "".join(f"{cell:>11}" for cell in cells))
    lines.append("processor seconds of encoding")
    for name in names:
        seconds = [row["seconds"][name] for row in result["at_psnr"]]
        lines.append(name.ljust(wide) + "".join(f"{'' if s is None else f'{s:.3f}':>11}" for s in seconds))
    for measure, what in (("angle", "mean spectral angle, degrees, of"), ("ssim", "mean SSIM by band or slice, of")):
        for curve in result["curves"]:
            found = [p for p in curve["points"] if p[measure] is not None]
            if found:
                cells = [f"{p['psnr']:.1f} dB {p[measure]:.3f}" for p in found[:: max(1, len(found) // 6)]]
                lines.append(f"{what} {curve['name']}: " + ", ".join(cells))
    lines.append("without loss: " + ", ".join(f"{name} {size}" for name, size in result["without_loss"].items()))
    return "\n".join(lines)


def markdown(result: dict[str, Any]) -> str:
    """The same for a document: bytes, how the best of ours compares, processor seconds, what else was measured."""
    from walloc_ref.measure.evaluate import format_table

    names = [c["name"] for c in result["curves"]]
    ours = [c["name"] for c in result["curves"] if c["ours"]]
    rows = [row for row in result["at_psnr"] if any(n is not None for n in row["bytes"].values())]
    header = ["", *(f"{row['psnr']:g} dB" for row in rows)]

    def cell(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    def against(row: dict[str, Any], name: str) -> float | None:
        best = min((row["bytes"][n] for n in ours if row["bytes"][n] is not None), default=None)
        return None if best is None or row["bytes"][name] is None else 100 * (best / row["bytes"][name] - 1)

    shapes = " and ".join("×".join(map(str, shape)) for shape in result["shapes"])
    lossless = ", ".join(f"{name} {size}" for name, size in result["without_loss"].items())
    text = f"`{result['name']}`: {shapes}, {result['dtype']}; without loss, bytes: {lossless}.\n\n"
    table_rows = [[f"{name}: bytes", *(cell(row["bytes"][name], ".0f") for row in rows)] for name in names]
    others = [n for n in names if n not in ours]
    table_rows += [
        [f"the best of ours against {n}, %", *(cell(against(row, n), "+.1f") for row in rows)] for n in others
    ]
    table_rows += [[f"{n}: encode, s", *(cell(row["seconds"][n], ".2f") for row in rows)] for n in names]
    for measure, what in (("angle", "mean spectral angle, degrees"), ("ssim", "mean SSIM of slices")):
        for curve in result["curves"]:
            found = Curve(curve["name"], tuple(Point(**point) for point in curve["points"]))
            if all(getattr(p, measure) is not None for p in found.points):
                values = [found.measure_at(row["psnr"], measure) for row in rows]
                table_rows.append([f"{curve['name']}: {what}", *(cell(v, ".3f") for v in values)])
    return text + format_table(header, table_rows, markdown=True)


# ---- pictures -----------------------------------------------------------------------------------------------------------

DRAWN_PSNR = 35.0
"""Quality at which pictures are drawn, about: there loss is seen."""

DIFFERENCE = 8
"""Differences are drawn this many times as large, around grey."""


def pictures(about: Subject, original: Samples, decoded: Samples) -> bytes:
    """Before, after, difference side by side, PNG: false colours and spectra, orthogonal slices, or waveforms."""
    from PIL import Image

    low, high = float(original.min()), float(original.max())

    def shown(samples: Samples) -> NDArray[np.float64]:
        return (samples.astype(np.float64) - low) / max(high - low, 1e-30)

    before, after = shown(original), shown(decoded)
    rows = []
    if about.kind == "audio":
        frames = slice(len(before) // 2, len(before) // 2 + 2048)
        rows = [_plot([before[frames, c], after[frames, c]]) for c in range(min(4, before.shape[1]))]
    elif about.kind == "spectral":
        bands = [before.shape[2] * k // 8 for k in (6, 3, 1)]
        bright = max(float(np.quantile(before[:, :, bands], 0.99)), 1e-30)
        stretched = [np.clip(a[:, :, bands] / bright, 0, 1) for a in (before, after)]
        rows.append(_triptych(stretched[0], stretched[1]))
        h, w = before.shape[:2]
        for y, x in ((h // 4, w // 4), (h // 2, w // 2), (3 * h // 4, 3 * w // 4)):
            rows.append(_plot([before[y, x], after[y, x]]))
    else:
        for axis in range(3):
            at = before.shape[axis] // 2
            grey = [np.repeat(np.take(a, at, axis)[:, :, None], 3, axis=2) for a in (before, after)]
            rows.append(_triptych(grey[0], grey[1]))
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    out = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(out, "PNG", optimize=True)
    return out.getvalue()


def _triptych(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Two pictures (H, W, 3), of which 0 … 1 is seen, and their difference, at least 256 pixels wide each."""
    difference = np.clip(0.5 + DIFFERENCE * (after - before) / 2, 0, 1)
    times = max(1, -(-256 // before.shape[1]))
    parts = [
        np.rint(255 * np.clip(p, 0, 1)).astype(np.uint8).repeat(times, 0).repeat(times, 1)
        for p in (before, after, difference)
    ]
    return np.concatenate([np.pad(p, ((0, 0), (0, 4), (0, 0)), constant_values=255) for p in parts], axis=1)


def _plot(curves: Sequence[NDArray[np.float64]]) -> NDArray[np.uint8]:
    """The first curve in black, the second in red, their difference in blue below, at the same scale."""
    from PIL import Image, ImageDraw

    width, height = 772, 160
    image = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    low, high = float(min(c.min() for c in curves)), float(max(c.max() for c in curves))
    x = np.linspace(2, width - 3, curves[0].size)
    for curve, colour in zip(curves, ((0, 0, 0), (220, 40, 40))):
        y = 4 + 110 * (high - curve) / max(high - low, 1e-30)
        draw.line(list(zip(x.tolist(), y.tolist())), fill=colour)
    y = 138 - np.clip(110 * (curves[1] - curves[0]) / max(high - low, 1e-30), -20, 20)
    draw.line([(0, 138), (width, 138)], fill=(210, 210, 210))
    draw.line(list(zip(x.tolist(), y.tolist())), fill=(40, 70, 200))
    return np.asarray(image)
