"""The suite as it comes into being, and chains: one signal through one model, with every array on its way.

A chain asks the upstream model for each stage, keeps what came of it as files, and adds the cases that start from each.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import describe
import numpy as np
import signals
from upstream import Upstream, versions

from walloc_ref import model as models
from walloc_ref.conform import compare
from walloc_ref.conform.stages import ORDER
from walloc_ref.conform.suite import BUNDLED, MANIFEST
from walloc_ref.fast import entropy as kernel
from walloc_ref.stages import container, entropy

BOUNDS = {"symbols": 2.0**-30, "u8": 2.0**-30, "u16": 2.0**-24, "s16": 2.0**-24, "s24": 2.0**-16, "s32": 2.0**-8}
"""Bounds of the margins (SPEC.md 2.3)."""

STEPS = {"u8": 255, "u16": 65535, "s16": 65535}
"""F of SPEC.md 3.2, 3.9."""

LOWEST = {"u8": 0, "u16": 0, "s16": -32768}
"""The smallest samples of an image."""

FULL_SCALE = {"u8": 1 << 7, "s16": 1 << 15, "s24": 1 << 31, "s32": 1 << 31, "f32": 1, "f64": 1}
"""Integer distance from silence to full scale of the sample formats of audio."""

DELTA = 2.0**-13
"""Error of the signal that a binary32 decoder may have: `describe.BINARY32` derives it."""

RECOMPUTED = 1e-12
"""How far a real-valued stage may be from the committed one when the suite is generated again, of the largest value."""


def _network(encoder: int | None, decoder: int) -> dict[str, int | bool | None]:
    """Fields of a configuration that has a network, by the widths of encoder and decoder."""
    return {"Ne": encoder, "Nd": decoder, "lightweight_encode": encoder is None}


PLAIN_CODING = container.Coding()
"""Step 1 and no windows."""

CODED = {"step": repr, "weighted": lambda value: str(int(value)), "window": str, "context": str}
"""Fields of `container.Coding` as parameters of a case."""

CODED_STAGES = {("decode", "dequantise"), ("decode", "network")} | {
    ("encode", stage) for stage in ("latents", "quantise", "residual", "symbols", "stream")
}
"""Stages that are told step and windows."""

SMALL = {
    key: dict(zip(("architecture", "channels", "J", "latent_dim", "latent_bits"), values)) | more
    for key, (values, more) in {
        "linear": (("LinearCodec2D", 3, 2, 6, 8), {}),
        "linear-j3": (("LinearCodec2D", 3, 3, 12, 7), {}),
        "linear-j4": (("LinearCodec2D", 1, 4, 5, 4), {}),
        "linear-j1": (("LinearCodec2D", 2, 1, 3, 3), {}),
        "linear-j0": (("LinearCodec2D", 1, 0, 1, 8), {}),
        "linear-b2": (("LinearCodec2D", 1, 1, 2, 2), {}),
        "linear-b5": (("LinearCodec2D", 1, 1, 2, 5), {}),
        "linear-b6": (("LinearCodec2D", 1, 1, 2, 6), {}),
        "phases": (("LinearCodec2D", 16, 2, 1, 8), {}),
        "residual": (("ResidualCodec2D", 3, 1, 3, 8), {"num_stages": 2}),
        "residual-3": (("ResidualCodec2D", 1, 2, 2, 5), {"num_stages": 3}),
        "codec2d": (("Codec2D", 3, 2, 6, 8), _network(None, 64)),
        "codec2d-full": (("Codec2D", 3, 2, 4, 6), _network(64, 32)),
        "codec1d": (("Codec1D", 2, 3, 6, 8), _network(None, 12) | {"post_filter": True}),
        "codec1d-plain": (("Codec1D", 2, 4, 5, 6), _network(None, 11) | {"post_filter": False}),
        "codec1d-full": (("Codec1D", 2, 2, 4, 7), _network(8, 8) | {"post_filter": False}),
        "codec1d-j8": (("Codec1D", 2, 8, 3, 8), _network(None, 6) | {"post_filter": True}),
        "weighted": (("LinearCodec2D", 3, 2, 6, 8), {}),
        "weighted-codec1d": (("Codec1D", 2, 3, 4, 8), _network(None, 8) | {"post_filter": False}),
        "weighted-codec2d": (("Codec2D", 3, 2, 6, 8), _network(None, 32) | {"Ne": 7}),  # which does not count (8.4)
        "weighted-residual": (("ResidualCodec2D", 3, 1, 3, 8), {"num_stages": 2}),
    }.items()
}
"""Configurations of the small seeded models."""

LATER = {
    key: dict(zip(("architecture", "channels", "J", "latent_dim", "latent_bits"), values))
    for key, values in {
        "volume": ("LinearCodec3D", 1, 1, 6, 8),
        "volume-j2": ("LinearCodec3D", 2, 2, 5, 6),
        "volume-plain": ("LinearCodec3D", 1, 1, 3, 8),
        "linear-200": ("LinearCodec2D", 200, 0, 12, 8),
    }.items()
}
"""Later ones, whose seeds leave those of the others as they are."""

DEFAULT_TABLES = ("linear", "linear-b2", "codec1d-full", "phases", "volume-plain")
"""Small models with the entropy coder's default tables; the others have seeded ones with all that tables can hold."""

WILD_TABLES = ("linear-j0", "linear-b6", "residual-3")
"""Those whose tables make means, scales and hidden units saturate."""


HOT = ("weighted-codec2d",)
"""Those whose attention scores and activations go beyond what e^x can hold in binary64 (709)."""

STEP_WEIGHTS = {
    "weighted": (0, 1, 40, 127, 128, 255),
    "weighted-codec1d": (200, 128, 64, 3),
    "weighted-codec2d": (10, 20, 30, 128, 129, 100),
    "weighted-residual": (5, 128, 77, 128, 0, 255),
}
"""Step weights of the small models that have some."""


class Refused(Exception):
    """A vector that may not be part of the suite."""


class Suite:
    """Files, models and cases as they come into being."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, bytes] = {}
        self.cases: list[dict] = []
        self.entries: dict[str, dict] = {}
        self.models: dict[str, models.Model] = {}
        self.pairs: dict[str, tuple[Upstream, Upstream]] = {}

    def small(self, key: str) -> None:
        """Add a small seeded model."""
        if key in self.models:
            return
        tables = None
        fields = (SMALL | LATER)[key]
        seed = sorted(SMALL).index(key) + 1 if key in SMALL else 101 + sorted(LATER).index(key)
        config = models.Config(**fields)
        if key not in DEFAULT_TABLES:
            kinds = {"wild": key in WILD_TABLES, "depth": config.kind == "volume"}
            tables = signals.tables(config.planes, config.latent_bits, len(key), **kinds)
        steps = np.array(STEP_WEIGHTS[key], np.uint8) if key in STEP_WEIGHTS else None
        heat = signals.heat if key in HOT else None
        self.seeded(key, fields, seed, tables=tables, steps=steps, change=heat)

    def seeded(
        self,
        key: str,
        fields: Mapping[str, Any],
        seed: int,
        *,
        tables: bytes | None = None,
        steps: np.ndarray | None = None,
        change: Callable[[dict[str, np.ndarray]], None] | None = None,
        bare: bool = False,
    ) -> None:
        """Add a model of seeded weights; `bare`: without the default tables in its file."""
        config = models.Config(**fields)
        tensors = signals.weights(config.record.tensor_shapes(config), dict(fields), seed)
        if change is not None:
            change(tensors)
        parsed = entropy.default_tables(config.planes, config.latent_bits)
        if tables is not None:
            parsed = entropy.Tables.from_bytes(tables)
            assert parsed.to_bytes() == tables
        model = models.Model(config, tensors, parsed, key, steps)
        name = f"models/{key}.safetensors"
        self.file(name, ordered(models.save(model), drop=["walloc_ref.entropy"] if bare else []))
        self._add_model(key, model, name, "seeded random weights, see generator/signals.py")

    def bundled(self, name: str, path: Path) -> str:
        """Add a bundled model; the key that it gets."""
        model = models.load(path)
        facts = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        key = f"bundled-{name}"
        self._add_model(key, model, BUNDLED + name, f"bundled weights, see weights/{name}.md", facts)
        return key

    def _add_model(self, key: str, model: models.Model, file: str, source: str, more: dict | None = None) -> None:
        config = json.loads(model.config.to_json())
        self.models[key] = model
        entry = {"file": file, "id": model.model_id, "kind": model.config.kind, "config": config, "source": source}
        self.entries[key] = entry | (more or {})
        self.pairs[key] = Upstream(model), Upstream(model, 32)

    def file(self, name: str, content: np.ndarray | bytes) -> str:
        """Add a file; its name."""
        data = content if isinstance(content, bytes) else compare.write_array(content)
        if self.files.setdefault(name, data) != data:
            raise Refused(f"{name}: two contents")
        return name

    def add(
        self,
        op: str,
        stage: str,
        chain: str,
        model: str | None,
        source: str,
        output: str | None,
        how: str,
        origin: str,
        signal: str,
        clauses: Iterable[str],
        **more: object,
    ) -> None:
        """Add a case."""
        clauses = set(clauses)
        levels, required = describe.levels_of(op, stage, output is None, clauses)
        case = {
            "id": f"{op}.{stage}.{chain}",
            "op": op,
            "stage": stage,
            "model": model,
            "input": source,
            "output": output,
            "compare": how,
            "levels": levels,
            "required": required,
            "signal": signal,
            "origin": origin,
            "clauses": sorted(clauses, key=describe.clause_key),
        }
        self.cases.append(case | {key: value for key, value in more.items() if value not in (None, {}, [], "")})

    def smallest_margins(self) -> dict[str, float]:
        """By boundary: symbols, and the sample formats of whole decodes."""
        smallest: dict[str, float] = {}
        for case in self.cases:
            if "margin" in case and (case["op"], case["stage"]) != ("decode", "samples"):
                encode = case["op"] == "encode"
                kind = "symbols" if encode else container.read(self.files[case["input"]]).header.sample_format
                smallest[kind] = min(case["margin"], smallest.get(kind, 1.0))
        return smallest

    def manifest(self) -> str:
        """The manifest as text, one case a line."""
        self.cases.sort(key=lambda case: (ORDER[case["op"], case["stage"]], case["compare"] == "reject", case["id"]))
        head = {
            "version": 1,
            "schema": "manifest.schema.json",
            "specification": "SPEC.md, version 1",
            "generator": {"versions": versions(), "smallest_margins": self.smallest_margins()},
            "levels": describe.LEVELS,
            "binary32": {"delta": DELTA, "share": compare.BINARY32_SHARE, "reason": describe.BINARY32},
            "comparisons": describe.COMPARISONS,
            "flags": describe.FLAGS,
            "faults": describe.FAULTS,
            "signals": signals.SIGNALS,
            "origins": describe.ORIGINS,
            "informative_clauses": describe.INFORMATIVE,
            "models": self.entries,
            "files": {
                name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for name, data in sorted(self.files.items())
            },
        }
        text = json.dumps(head, indent=1, ensure_ascii=False)[:-2]
        cases = ",\n".join("  " + json.dumps(case, ensure_ascii=False) for case in self.cases)
        return f'{text},\n "cases": [\n{cases}\n ]\n}}\n'

    def write(self) -> None:
        """Write everything, and remove vectors and models that are no longer there.

        Reals that agree with those of a file that is there stay as they are: PyTorch sums in another order on another
        machine, and its last digits are no reason for a new file.
        """
        for name, data in self.files.items():
            path = self.folder / name
            if name.endswith(".npy") and path.exists() and same_reals(path.read_bytes(), data):
                self.files[name] = path.read_bytes()
        for sub in ("vectors", "models"):
            for path in (self.folder / sub).rglob("*"):
                if path.is_file() and path.relative_to(self.folder).as_posix() not in self.files:
                    path.unlink()
        for name, data in self.files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
        (self.folder / MANIFEST).write_text(self.manifest(), encoding="utf-8")


def same_reals(old: bytes, new: bytes) -> bool:
    """Whether two array files hold the same reals, but for the order of some sums."""
    x, y = compare.read_array(old), compare.read_array(new)
    if x.dtype.kind != "f" or x.dtype != y.dtype or x.shape != y.shape:
        return False
    with np.errstate(invalid="ignore"):  # ∞ - ∞: other files
        return bool(np.abs(x - y).max(initial=0) <= RECOMPUTED * max(1.0, np.abs(x).max(initial=0)))


def ordered(data: bytes, drop: Iterable[str] = ()) -> bytes:
    """A weights file whose metadata are sorted: safetensors writes them in another order every time. Some are dropped."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = {key: value for key, value in sorted(header["__metadata__"].items()) if key not in drop}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def margin(values: np.ndarray) -> float:
    """Smallest distance from a tie."""
    return float(np.abs(values - np.floor(values) - 0.5).min())


def admitted(values: np.ndarray, kind: str, what: str) -> float:
    """The smallest margin, which must exceed the bound."""
    smallest = margin(values)
    if not smallest > BOUNDS[kind]:
        raise Refused(f"{what}: margin {smallest:.3g} is within the bound of {kind}")
    return smallest


def deviation(wide: np.ndarray, narrow: np.ndarray) -> dict:
    """What binary32 was observed to do in a stage of real values."""
    return {"largest": float(np.abs(wide - narrow.astype(np.float64)).max())}


def differing(wide: np.ndarray, narrow: np.ndarray) -> dict:
    """What binary32 was observed to do to integers."""
    distance = np.abs(wide.astype(np.int64) - narrow.astype(np.int64))
    return {"largest": int(distance.max()), "differing": int((distance > 0).sum()), "of": int(distance.size)}


class Chain:
    """One signal through one model: all intermediate arrays, and the cases that start from each.

    Parameters
    ----------
    suite : Suite
    key : str
        The model.
    name : str
        Of the chain, unique.
    samples : array
        (H, W), (H, W, C), (frames, channels), (depth, H, W) or (depth, H, W, C).
    signal : str
        Key of `signals.SIGNALS`.
    form : str
        Sample format.
    stages : bool
        Whether every stage gets a case, not only the whole.
    flags : list of str
    slice_size : int, optional
        Of the stream; all in one slice if not given.
    extras : dict
        Of `container.Stream`.
    rate : int
        Samples a second, audio only.
    coding : container.Coding
        Step and windows.
    large : bool
        Too large for the suite: of symbols and decoded samples it holds SHA-256 only, and slices are coded by the kernel,
        which the package's tests hold equal to the definition.
    """

    def __init__(
        self,
        suite: Suite,
        key: str,
        name: str,
        samples: np.ndarray,
        signal: str,
        form: str,
        *,
        stages: bool = False,
        flags: Iterable[str] = (),
        slice_size: int | None = None,
        extras: dict | None = None,
        rate: int = 44100,
        certify: bool = False,
        coding: container.Coding = PLAIN_CODING,
        large: bool = False,
    ) -> None:
        if not key.startswith("bundled-"):
            suite.small(key)
        self.suite, self.key, self.name, self.signal, self.form = suite, key, name, signal, form
        self.model, (self.up, self.narrow) = suite.models[key], suite.pairs[key]
        self.config, self.audio = self.model.config, self.model.config.kind == "audio"
        self.samples, self.stages, self.flags, self.rate = samples, stages, list(flags), rate
        self.coding, self.steps = coding, self.model.plane_steps(coding)
        self.large, self.coder = large, kernel.encode if large else entropy.encode
        self.volume, self.axes = self.config.kind == "volume", self.config.axes
        self.sizes = samples.shape[: self.axes]
        self.edge = samples if samples.ndim > self.axes else samples[..., None]  # with a channel axis
        self.channels = self.edge.shape[-1]
        self.normalised = self.audio or self.form == "f32"
        self.mean, self.gain = self.statistics() if self.normalised else (0.0, 1.0)
        padded = (self.config.channels, *(-(-n // self.config.multiple) * self.config.multiple for n in self.sizes))
        self.wavelet = "pywavelets" if self.up.short(padded) else "pytorch"
        if self.wavelet == "pywavelets":
            self.flags.append("short")
        self.encode(slice_size, extras or {})
        self.decode(certify)

    # ---- shorthand

    def put(self, what: str, content: np.ndarray | bytes, ending: str = "npy") -> str:
        """A file of this chain; samples of bundled models have one for all of them, since most are given the same ones."""
        if what == "samples" and self.key.startswith("bundled-"):
            data = content if isinstance(content, bytes) else compare.write_array(content)
            digest = hashlib.sha256(data).hexdigest()[:8]
            return self.suite.file(f"vectors/bundled-samples/{self.name.rsplit('-', 1)[1]}-{digest}.npy", data)
        return self.suite.file(f"vectors/{self.name}/{what}.{ending}", content)

    def integers(self, what: str, content: np.ndarray) -> str:
        """A file of integers, or of their digest where there are too many of them."""
        return self.put(what, compare.digest_of(content), "json") if self.large else self.put(what, content)

    def case(
        self,
        op: str,
        stage: str,
        source: str,
        output: str,
        how: str,
        origin: str,
        clauses: Iterable[str],
        **more: object,
    ) -> None:
        """A case of this chain."""
        if self.large and how == "exact":
            how = "digest"
        kind = [self.config.kind] if self.audio or self.volume else []
        kind += ["channels"] if self.config.channels > 64 else []
        kind += (["step"] if self.coding.step != 1 else []) + (["window"] if self.coding.window else [])
        flags = sorted({*self.flags, *kind, *more.pop("flags", [])})
        how_coded = {
            key: CODED[key](value) for key, value in asdict(self.coding).items() if value != getattr(PLAIN_CODING, key)
        }
        if (op, stage) in CODED_STAGES and how_coded:
            more["parameters"] = {**(more.get("parameters") or {}), **how_coded}
            clauses = set(clauses) | ({"6.7"} if self.coding.step != 1 else set())
            clauses |= {"6.8"} if self.coding.weighted else set()
        if self.coding.window and stage in ("network", "latents", "stream", "symbols"):
            clauses = set(clauses) | {"9.11"}
        clauses = set(clauses) | describe.kind_clauses(op, stage, self.config, self.form)
        if origin == "pytorch" and self.volume:
            origin = "pytorch-volume"
        self.suite.add(
            op, stage, self.name, self.key, source, output, how, origin, self.signal, clauses, flags=flags, **more
        )

    def statistics(self) -> tuple[float, float]:
        """Mean and gain, in exact arithmetic up to the one rounding that each has."""
        silence, full = (128 if self.form == "u8" else 0), FULL_SCALE[self.form]
        values = self.samples.reshape(-1)
        if self.form in ("f32", "f64"):
            largest = float(np.abs(values).max())
            unit = Fraction(2) ** (math.frexp(largest)[1] - 53)
            total = sum(round(Fraction(float(v)) / unit) for v in values)  # round() of a Fraction: ties to even
            mean = float(Fraction(total, values.size) * unit)
        else:
            mean = float(Fraction(sum(int(v) - silence for v in values), values.size)) / full
        high, low = ((float(v) - silence) / full for v in (values.max(), values.min()))
        return mean, 2 * max(high - mean, mean - low)

    def to_signal(self) -> np.ndarray:
        """(C', …) in [-0.5, 0.5]."""
        first = np.moveaxis(self.edge, -1, 0).astype(np.float64)
        if not self.normalised:
            return (first - LOWEST[self.form]) / STEPS[self.form] - 0.5
        if self.gain == 0:
            return np.zeros_like(first)
        return ((first - (128 if self.form == "u8" else 0)) / FULL_SCALE[self.form] - self.mean) / self.gain

    # ---- encoding

    def encode(self, slice_size: int | None, extras: dict) -> None:
        """Samples to the stream."""
        up, narrow, config = self.up, self.narrow, self.config
        samples = self.put("samples", self.samples)
        x = self.to_signal()
        form = {"format": self.form}
        whole = dict(form, rate=str(self.rate)) if self.audio else form
        scale = dict(form, mean=repr(self.mean), gain=repr(self.gain)) if self.normalised else form
        pad = up.pad(np.broadcast_to(x, (config.channels, *x.shape[1:])))
        bands = up.analysis(pad)
        narrow_bands = narrow.analysis(
            narrow.pad(np.broadcast_to(x, (config.channels, *x.shape[1:])).astype(np.float32))
        )
        residual = config.architecture == "ResidualCodec2D"
        if residual:
            companded, self.symbols = up.residual(bands, self.steps)
            narrow_symbols = narrow.residual(narrow_bands, self.steps)[1]
        else:
            inside = not config.lightweight_encode and self.coding.window > 0
            windows = (self.coding.window, self.coding.context)
            latents = up.windowed(up.latents, bands, *windows) if inside else up.latents(bands)
            companded = up.compand(latents / self.steps)
            self.symbols = up.round(companded)
            narrow_latents = (
                narrow.windowed(narrow.latents, narrow_bands, *windows) if inside else narrow.latents(narrow_bands)
            )
            narrow_symbols = narrow.round(narrow.compand(narrow_latents / self.steps.astype(np.float32)))
        smallest = admitted(companded, "symbols", f"{self.name}, symbols")
        seen = {"margin": smallest, "binary32": differing(self.symbols, narrow_symbols)}
        symbols = self.integers("symbols", self.symbols)
        clauses = describe.clauses_of(config, encode=True)
        exact_origin = "pytorch" if self.wavelet == "pytorch" else "pywavelets"
        self.case(
            "encode", "symbols", samples, symbols, "exact", exact_origin, clauses | {"2.4"}, parameters=whole, **seen
        )
        size = slice_size or self.symbols.shape[1]
        cuts = range(0, self.symbols.shape[1], size)
        cut = (
            (lambda s: self.symbols[:, None, s : s + size]) if self.audio else (lambda s: self.symbols[:, s : s + size])
        )
        payloads = tuple(self.coder(np.ascontiguousarray(cut(s)), self.model.tables) for s in cuts)
        self.header = container.Header(
            kind=config.kind,
            sample_format=self.form,
            channels=self.channels,
            sizes=tuple(self.sizes),
            model_id=bytes.fromhex(self.model.model_id)[:16],
            J=config.J,
            latent_dim=config.planes,
            latent_bits=config.latent_bits,
            slice_size=size,
            rate=self.rate if self.audio else 0,
            mean=self.mean,
            gain=self.gain,
            symbol_hash=hashlib.sha256(self.symbols.astype("<i2").tobytes()).digest()[:8],
            **asdict(self.coding),
        )
        self.stream = container.Stream(self.header, payloads, **extras)
        plain = self.put("stream", container.write(replace(self.stream, certificate=None)), "wlc")
        self.case(
            "encode",
            "stream",
            samples,
            plain,
            "stream",
            exact_origin,
            clauses | {"2.4", "10.1", "10.2", "10.5", "10.8", "10.9", "8.8", "14.2"},
            parameters=whole,
            **seen,
        )
        if not self.stages:
            return
        if self.normalised:
            both = self.put("statistics", np.array([self.mean, self.gain]))
            self.case(
                "encode", "statistics", samples, both, "exact", "arithmetic", describe.AUDIO_STATISTICS, parameters=form
            )
        signal = self.put("signal", x)
        clause = describe.AUDIO_SIGNAL if self.audio else {"3.2"}
        self.case("encode", "signal", samples, signal, "signal", "arithmetic", clause, parameters=scale)
        if self.channels == config.channels:
            self.case(
                "encode",
                "pad",
                signal,
                self.put("padded", pad),
                "exact",
                "numpy" if self.volume else "pytorch",
                describe.AUDIO_PADDING if self.audio else {"3.4", "3.5"},
            )
        padded = self.put("padded", pad)
        file = self.put("bands", bands)
        wave = {"4.1", "4.2", "4.5", "4.6", *(() if self.audio else ("4.4",))}
        self.case(
            "encode",
            "analysis",
            padded,
            file,
            "wavelet",
            self.wavelet,
            wave,
            binary32=deviation(bands, narrow.analysis(pad.astype(np.float32))),
        )
        if residual:
            self.case("encode", "residual", file, symbols, "exact", "pytorch", {"5.3", "6.2", "6.4"}, margin=smallest)
            return
        if not config.lightweight_encode and not self.coding.window:
            self.blocks("encoder", bands, latents, describe.ENCODER_BLOCKS)
        latent = self.put("latents", latents)
        how = "projection" if config.lightweight_encode else "network"
        clause = describe.latent_clauses(config)
        self.case(
            "encode",
            "latents",
            file,
            latent,
            how,
            "pytorch",
            clause,
        )
        value, over_steps = self.put("companded", companded), latents / self.steps
        self.case(
            "encode",
            "compand",
            latent if self.coding.step == 1 else self.put("over-steps", over_steps),
            value,
            "compand",
            "pytorch",
            {"6.1", "6.2"},
            binary32=deviation(companded, narrow.compand(over_steps.astype(np.float32))),
        )
        self.case("encode", "round", value, symbols, "exact", "pytorch", {"1.4", "6.2"}, margin=smallest)
        self.case(
            "encode",
            "quantise",
            latent,
            symbols,
            "exact",
            "pytorch",
            {"2.3", "2.4", "6.1", "6.2", "6.3"},
            margin=smallest,
        )
        if not self.audio:
            self.slices(symbols)

    def slices(self, symbols: str) -> None:
        """Coding of all symbols as one slice."""
        payload = entropy.encode(self.symbols, self.model.tables)
        self.case(
            "encode", "slice", symbols, self.put("slice", payload, "bin"), "bytes", "definition", describe.ENTROPY
        )
        file = self.put("slice", compare.write_slice(self.symbols.shape, payload), "slice")
        self.case("decode", "slice", file, symbols, "exact", "definition", describe.ENTROPY)

    def blocks(self, network: str, x: np.ndarray, last: np.ndarray, clauses: dict[str, set[str]]) -> None:
        """A case for each block of a network."""
        op = network[:-1]
        source = self.put(f"{network}-0", x)
        narrow = dict(self.narrow.blocks(network))
        for number, (name, module) in enumerate(self.up.blocks(network)):
            y = self.up.run(module, x)
            output = self.put(f"{network}-{number + 1}", y)
            self.case(
                op,
                f"{network}.{name}",
                source,
                output,
                "network",
                "pytorch",
                (describe.AUDIO_DECODER if op == "decode" else describe.AUDIO_ENCODER) if self.audio else clauses[name],
                binary32=deviation(y, self.narrow.run(narrow[name], x.astype(np.float32))),
            )
            source, x = output, y
        assert np.abs(x - last).max() < RECOMPUTED * max(1, np.abs(last).max()), (
            f"{self.name}: the blocks of the {network}"
        )

    # ---- decoding

    def decode(self, certify: bool) -> None:
        """The stream to samples."""
        up, narrow, config = self.up, self.narrow, self.config
        latents = up.dequantise(self.symbols) * self.steps
        windows = (self.coding.window, self.coding.context)
        bands = up.windowed(up.network, latents, *windows) if self.coding.window else up.network(latents)
        x = up.synthesis(bands)
        filtered = up.post(x) if config.post_filter else x
        clamped = up.clamp(filtered)
        cropped = up.crop(clamped, self.sizes)
        scaled = self.scaled(cropped)  # [C', …]
        samples = self.rounded(scaled)
        slim_latents = narrow.dequantise(self.symbols) * self.steps.astype(np.float32)
        slim = narrow.synthesis(
            narrow.windowed(narrow.network, slim_latents, *windows)
            if self.coding.window
            else narrow.network(slim_latents)
        )
        slim = narrow.crop(narrow.clamp(narrow.post(slim) if config.post_filter else slim), self.sizes)
        deviates = float(np.abs(slim.astype(np.float64) - cropped).max())
        if deviates > DELTA / 4:
            raise Refused(f"{self.name}: binary32 deviates by {deviates:.3g}, more than a quarter of delta")
        seen: dict = {}
        floating = self.form in ("f32", "f64")
        if not floating:
            slim_samples = self.rounded(self.scaled(slim.astype(np.float64)))
            seen = {
                "margin": admitted(scaled, self.form, f"{self.name}, samples"),
                "binary32": differing(samples, slim_samples) | {"signal": deviates},
            }
            if self.large:
                seen["levels"] = ["decoder"]  # whose tolerance needs no samples
            else:
                seen |= self.guard(scaled, samples, slim_samples)
        if certify:
            uncertain = tuple(range(3, samples.size, max(1, samples.size // 3)))  # more than needed; any is allowed
            zeroed = samples.astype(samples.dtype.newbyteorder("<")).copy()
            zeroed.reshape(-1)[list(uncertain)] = 0
            certificate = container.Certificate(hashlib.sha256(zeroed.tobytes()).digest(), uncertain)
            self.stream = replace(self.stream, certificate=certificate)
        ending = "stream-certified" if certify else "stream"
        stream = self.put(ending, container.write(self.stream), "wlc")
        symbols = self.integers("symbols", self.symbols)
        edge = samples[..., 0] if not self.audio and self.channels == 1 else samples
        decoded = self.integers("decoded", edge)
        framing = {"1.6", "10.1", "10.2", "10.3", "10.5", "10.6", "10.8"}
        if self.stream.metadata:
            framing |= {"10.4", "10.15"}
        if certify or self.stream.exif or self.stream.icc_profile:
            framing |= {"10.4", "10.10", "10.11"} if certify else {"10.4", "10.12"}
        self.case(
            "decode",
            "header",
            stream,
            self.put(f"header{ending[6:]}", self.fields(), "json"),
            "json",
            "construction",
            framing,
        )
        self.case(
            "decode",
            "symbols",
            stream,
            symbols,
            "exact",
            "construction",
            framing | describe.ENTROPY | {"8.4", "8.6", "8.8", "10.7", "10.9"},
        )
        clauses = describe.clauses_of(config, encode=False) | ({"11.17"} if self.audio and self.gain == 0 else set())
        origin = "pytorch" if self.wavelet == "pytorch" else "pywavelets"
        if self.channels < config.channels:
            clauses = clauses | {"3.3"}
        how = {"f32": "samples-f32", "f64": "samples-f64"}.get(self.form, "exact")
        self.case("decode", "stream", stream, decoded, how, origin, clauses | {"2.4", *(framing - {"1.6"})}, **seen)
        if not self.stages:
            return
        latent = self.put("dequantised", latents)
        self.case(
            "decode",
            "dequantise",
            symbols,
            latent,
            "dequantise",
            "pytorch",
            {"6.4", "6.5"},
            binary32=deviation(latents, slim_latents),
        )
        if config.architecture in ("Codec2D", "Codec1D") and not self.coding.window:
            self.blocks("decoder", latents, bands, describe.DECODER_BLOCKS)
        band = self.put("decoded-bands", bands)
        self.case(
            "decode",
            "network",
            latent,
            band,
            "network",
            "pytorch",
            describe.network_clauses(config),
        )
        wave = {"4.3", "4.6", "4.7", *(() if self.audio else ("4.4",))}
        synthesised = self.put("synthesised", x)
        self.case(
            "decode",
            "synthesis",
            band,
            synthesised,
            "wavelet",
            self.wavelet,
            wave,
            binary32=deviation(x, narrow.synthesis(bands.astype(np.float32))),
        )
        before = synthesised
        if config.post_filter:
            before = self.put("filtered", filtered)
            self.case(
                "decode",
                "post",
                synthesised,
                before,
                "network",
                "pytorch",
                describe.AUDIO_POST,
                binary32=deviation(filtered, narrow.post(x.astype(np.float32))),
            )
        clamp = self.put("clamped", clamped)
        flags = ["clamped"] if (clamped != filtered).any() else []
        self.case(
            "decode",
            "clamp",
            before,
            clamp,
            "exact",
            "pytorch",
            describe.AUDIO_CLAMP if self.audio else {"3.7"},
            flags=flags,
        )
        crop = self.put("cropped", cropped)
        sizes = {"sizes": "x".join(map(str, self.sizes))}
        self.case(
            "decode",
            "crop",
            clamp,
            crop,
            "exact",
            "pytorch",
            describe.AUDIO_CROP if self.audio else {"3.6"},
            parameters=sizes,
        )
        form = {"format": self.form, "channels": str(self.channels)}
        if self.normalised:
            form |= {"mean": repr(self.mean), "gain": repr(self.gain)}
        edge_file = self.put("edge", samples) if edge.shape != samples.shape else decoded
        clause = describe.AUDIO_SAMPLES if self.audio else {"3.1", "3.8"}
        if self.channels < config.channels:
            clause = clause | {"3.3"}
        self.case(
            "decode",
            "samples",
            crop,
            edge_file,
            how,
            "arithmetic",
            clause | {"1.4", "2.3", "2.4"},
            parameters=form,
            margin=seen.get("margin"),
        )

    def scaled(self, x: np.ndarray) -> np.ndarray:
        """The real values that are rounded to samples: (C', …)."""
        if self.channels < len(x):
            x = x.mean(axis=0, keepdims=True)
        if not self.normalised:
            return STEPS[self.form] * (x + 0.5)
        steps = {"s24": 1 << 23}.get(self.form, FULL_SCALE[self.form])
        return (self.gain * x + self.mean) * steps

    def rounded(self, scaled: np.ndarray) -> np.ndarray:
        """Samples (H, W, C'), (frames, C') or (depth, H, W, C')."""
        last = np.moveaxis(scaled, 0, -1)
        if not self.normalised:
            return (np.clip(np.rint(last), 0, STEPS[self.form]) + LOWEST[self.form]).astype(self.samples.dtype)
        if self.form in ("f32", "f64"):
            return last.astype(self.samples.dtype)
        steps = {"s24": 1 << 23}.get(self.form, FULL_SCALE[self.form])
        whole = np.clip(np.rint(last), -steps, steps - 1).astype(np.int64)
        return (whole * (256 if self.form == "s24" else 1) + (128 if self.form == "u8" else 0)).astype(
            self.samples.dtype
        )

    def guard(self, scaled: np.ndarray, samples: np.ndarray, slim: np.ndarray) -> dict:
        """Where, and by how much, a binary32 decoder may differ; refused where PyTorch's does not keep to it."""
        unit = 256 if self.form == "s24" else 1
        steps = (
            STEPS[self.form] if not self.audio else {"s24": 1 << 23}.get(self.form, FULL_SCALE[self.form]) * self.gain
        )
        reach = DELTA * steps
        step = max(1, math.ceil(reach)) * unit
        near = np.moveaxis(np.abs(scaled - np.floor(scaled) - 0.5) <= reach, 0, -1)
        if not near.any() and (samples == slim).all():
            near = np.zeros(near.shape, bool)
        share = compare.BINARY32_SHARE if reach < 0.5 else 1.0
        packed = np.packbits(near.reshape(-1), bitorder="little")
        try:
            compare.guarded(samples, slim, packed, step, share)
        except compare.Different as error:
            raise Refused(f"{self.name}: binary32: {error}") from error
        result = {"guard": self.put("guard", packed)}
        return result | ({"guard_step": step} if step != 1 else {}) | ({"guard_share": share} if share == 1 else {})

    def fields(self) -> bytes:
        """The JSON of `decode header`."""
        h = self.header
        fields = {
            "kind": h.kind,
            "sample_format": h.sample_format,
            "channels": h.channels,
            "sizes": list(h.sizes),
            "model_id": h.model_id.hex(),
            "J": h.J,
            "latent_dim": h.latent_dim,
            "latent_bits": h.latent_bits,
            "step": h.step,
            "weighted": h.weighted,
            "window": h.window,
            "context": h.context,
            "slice_size": h.slice_size,
            "symbol_hash": h.symbol_hash.hex(),
            "rate": h.rate,
            "mean": h.mean,
            "gain": h.gain,
            "slices": len(self.stream.slices),
            "certified": self.stream.certificate is not None,
        }
        return json.dumps(fields).encode()
