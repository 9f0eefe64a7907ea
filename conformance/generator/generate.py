"""Writes every vector of the suite: what goes in from `signals.py`, what must come out from the upstream PyTorch model.

    python conformance/generator/generate.py              models, vectors and manifest, from nothing
    python conformance/generator/generate.py --bundled    only those of the bundled weights, the rest as it is
    python conformance/generator/generate.py --bundled rgb_4x mr_1x    only those of these weights
    python conformance/generator/generate.py --check      into a temporary folder, and compared with what is committed

It needs the `[torch]` extra. The upstream runs in binary64 on one thread; a vector with a margin within the bound of
SPEC.md 2.3 is refused; the upstream in binary32 runs beside it and its deviations are recorded. What has no counterpart
upstream (container, entropy coder, sample formats) comes of this package's clear definitions, or of arithmetic written out
here, and the manifest says which ("origin").
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np

SUITE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(SUITE.parent)]

import describe  # noqa: E402
import edges  # noqa: E402
import invalid  # noqa: E402
import signals  # noqa: E402
import volumes  # noqa: E402
from chains import RECOMPUTED, SMALL, Chain, Refused, Suite, admitted, deviation  # noqa: E402

from walloc_ref import model as models  # noqa: E402
from walloc_ref.conform import compare  # noqa: E402
from walloc_ref.conform.suite import BUNDLED, MANIFEST  # noqa: E402
from walloc_ref.stages import container, entropy  # noqa: E402

ATTEMPTS = 4
"""Inputs that are tried for a vector of bundled weights, until one has all margins beyond their bounds."""

TWINS = ("rgb_1x",)
"""Bundled weights with the encoder and the tables of others: as symbols are theirs, fewer images, for the decoder alone."""


def images(suite: Suite) -> None:
    """Chains of images."""
    photo = signals.photo
    both = {"exif": b"Exif\0\0made up", "icc_profile": bytes(range(200))}
    # every stage
    Chain(suite, "linear", "linear-photo", photo("wren", 41, 53, 30, 10), "photo", "u8", stages=True, flags=["odd"])
    Chain(
        suite,
        "linear",
        "linear-u16",
        photo("spices", 33, 47, 60, 60, np.uint16),
        "photo",
        "u16",
        stages=True,
        flags=["odd"],
    )
    Chain(
        suite,
        "linear",
        "linear-grey",
        photo("spices", 40, 37, 20, 90)[:, :, 1],
        "photo",
        "u8",
        stages=True,
        flags=["grey"],
    )
    Chain(suite, "linear", "linear-extremes", signals.extremes(36, 36), "extremes", "u8", stages=True)
    Chain(
        suite, "linear-j3", "linear-j3-zone", signals.zone_plate(25, 37), "zone-plate", "u8", stages=True, flags=["odd"]
    )
    Chain(
        suite,
        "linear-j4",
        "linear-j4-photo",
        photo("wren", 33, 47, 30, 20)[:, :, 0],
        "photo",
        "u8",
        stages=True,
    )
    Chain(suite, "linear-j1", "linear-j1-noise", signals.noise(19, 23, 2), "noise", "u8", stages=True, flags=["odd"])
    Chain(suite, "linear-j0", "linear-j0-ramp", signals.ramp(16, 17, 1), "ramp", "u8", stages=True)
    Chain(suite, "linear-b2", "linear-b2-photo", photo("spices", 22, 30, 80, 60)[:, :, :1], "photo", "u8", stages=True)
    Chain(suite, "linear-b5", "linear-b5-photo", photo("spices", 30, 22, 80, 60)[:, :, 1:2], "photo", "u8", stages=True)
    Chain(
        suite, "linear-b6", "linear-b6-zone", signals.zone_plate(27, 35, 1, np.uint16), "zone-plate", "u16", stages=True
    )
    Chain(suite, "residual", "residual-photo", photo("wren", 25, 31, 50, 40), "photo", "u8", stages=True)
    Chain(suite, "residual-3", "residual-3-photo", photo("spices", 24, 21, 70, 80)[:, :, 0], "photo", "u8", stages=True)
    Chain(suite, "codec2d", "codec2d-photo", photo("spices", 33, 26, 72, 60), "photo", "u8", stages=True, flags=["odd"])
    Chain(suite, "codec2d", "codec2d-zone", signals.zone_plate(28, 24, 3, np.uint16), "zone-plate", "u16", stages=True)
    Chain(
        suite,
        "codec2d-full",
        "codec2d-full-photo",
        photo("wren", 26, 31, 60, 30),
        "photo",
        "u8",
        stages=True,
        flags=["odd"],
    )
    # every phase of the transform, and lengths at which it wraps
    suite.small("phases")
    up, narrow = suite.pairs["phases"]
    for name, x in (
        ("phases-24", signals.impulses(4, 24)),
        ("phases-4", np.eye(16).reshape(16, 4, 4) / 2),
        ("phases-8x12", signals.impulses(4, 12)[:, 2:10]),
    ):
        bands, origin = up.analysis(x), "pywavelets" if up.short(x.shape) else "pytorch"
        flags = ["short"] if origin == "pywavelets" else []
        a, b = suite.file(f"vectors/{name}/padded.npy", x), suite.file(f"vectors/{name}/bands.npy", bands)
        suite.add(
            "encode",
            "analysis",
            name,
            "phases",
            a,
            b,
            "wavelet",
            origin,
            "impulses",
            ["4.1", "4.2", "4.4", "4.5", "4.6"],
            flags=flags,
            binary32=deviation(bands, narrow.analysis(x.astype(np.float32))),
        )
        units = np.zeros_like(bands[:, :, :])
        places = np.arange(units.shape[0])
        units[places, places % units.shape[1], (places // 3) % units.shape[2]] = 1
        a, b = (
            suite.file(f"vectors/{name}/units.npy", units),
            suite.file(f"vectors/{name}/synthesised.npy", up.synthesis(units)),
        )
        suite.add(
            "decode",
            "synthesis",
            name,
            "phases",
            a,
            b,
            "wavelet",
            origin,
            "impulses",
            ["4.3", "4.4", "4.6", "4.7"],
            flags=flags,
        )
    # whole images of every awkward size
    for height, width in (
        (1, 1),
        (1, 2),
        (2, 1),
        (1, 7),
        (5, 1),
        (2, 3),
        (3, 3),
        (4, 4),
        (5, 5),
        (7, 11),
        (8, 8),
        (16, 16),
        (15, 16),
        (16, 17),
        (17, 31),
        (64, 3),
        (3, 64),
        (63, 65),
    ):
        Chain(
            suite,
            "linear",
            f"linear-{height}x{width}",
            photo("spices", height, width, 40, 50),
            "photo",
            "u8",
            flags=["size"],
        )
    coding = container.Coding
    soft, spices = photo("wren", 34, 41, 60, 20), photo("spices", 26, 33, 80, 40)
    Chain(suite, "linear", "step-2-linear", soft, "photo", "u8", stages=True, coding=coding(step=2.0))
    Chain(suite, "linear", "step-fine", soft, "photo", "u8", coding=coding(step=2.0**-10))
    Chain(suite, "linear", "step-coarse", soft, "photo", "u8", coding=coding(step=2.0**10))
    Chain(suite, "linear", "step-unweighted", soft, "photo", "u8", coding=coding(step=3.0, weighted=True))
    Chain(suite, "weighted", "step-weighted", soft, "photo", "u8", stages=True, coding=coding(step=2.75, weighted=True))
    Chain(
        suite,
        "weighted",
        "step-weighted-fine",
        soft,
        "photo",
        "u8",
        coding=coding(step=0.4000091552734375, weighted=True),
    )
    Chain(suite, "weighted", "step-even", soft, "photo", "u8", coding=coding(step=2.75))
    coarse = coding(step=1.7000122070312500, weighted=True)
    Chain(suite, "weighted-residual", "step-residual", spices, "photo", "u8", stages=True, coding=coarse)
    coarse = coding(step=1.5, weighted=True)
    Chain(suite, "weighted-codec2d", "step-codec2d", spices, "photo", "u8", stages=True, coding=coarse)
    windows = {"codec2d": (8, 3), "weighted-codec2d": (9, 0), "codec2d-full": (8, 8)}
    sizes = {"codec2d": (70, 110, 20, 10), "weighted-codec2d": (37, 38, 20, 40), "codec2d-full": (33, 34, 30, 30)}
    for key, (window, context) in windows.items():
        step = {"step": 1.25, "weighted": True} if key.startswith("weighted") else {}
        how = coding(window=window, context=context, **step)
        samples = photo("wren", *sizes[key])
        Chain(suite, key, f"window-{key}", samples, "photo", "u8", stages=key != "codec2d", coding=how)
    for rows, window in ((12, 8), (11, 8), (14, 9), (13, 9)):  # half a window more or less makes one more of them
        how, samples = coding(window=window, context=1), photo("wren", 4 * rows, 7, 30, 40)
        Chain(
            suite, "weighted-codec2d", f"window-{rows}-of-{window}", samples, "photo", "u8", coding=how, flags=["size"]
        )
    Chain(suite, "codec2d", "window-large", spices, "photo", "u8", coding=coding(window=2**40 - 1, context=2**40 - 1))
    Chain(suite, "codec2d", "codec2d-1x1", photo("spices", 1, 1, 100, 20), "photo", "u8", flags=["size"])
    Chain(suite, "codec2d", "codec2d-5x2", photo("spices", 5, 2, 100, 20), "photo", "u8", flags=["size"])
    Chain(suite, "linear", "linear-checkerboard", signals.checkerboard(24, 28), "checkerboard", "u8")
    Chain(suite, "linear", "linear-constant", signals.constant(24, 20), "constant", "u8")
    Chain(suite, "linear", "linear-noise", signals.noise(36, 28), "noise", "u8")
    Chain(suite, "linear", "linear-black", np.zeros((20, 24, 3), np.uint8), "constant", "u8")
    Chain(suite, "linear", "linear-white", np.full((20, 24, 3), 65535, np.uint16), "constant", "u16")
    Chain(
        suite, "linear", "linear-slices", photo("wren", 61, 40, 20, 20), "photo", "u8", slice_size=4, flags=["slices"]
    )
    Chain(
        suite,
        "linear",
        "linear-slices-of-one",
        photo("wren", 22, 40, 40, 20),
        "photo",
        "u8",
        slice_size=1,
        flags=["slices"],
    )
    Chain(
        suite,
        "linear",
        "linear-metadata",
        photo("wren", 24, 24, 40, 60),
        "photo",
        "u8",
        extras=both,
        flags=["ancillary"],
    )
    Chain(
        suite,
        "linear",
        "linear-certified",
        photo("wren", 31, 27, 40, 60),
        "photo",
        "u8",
        certify=True,
        flags=["ancillary"],
    )
    Chain(
        suite,
        "codec2d",
        "codec2d-certified",
        photo("wren", 24, 40, 44, 50, np.uint16),
        "photo",
        "u16",
        certify=True,
        slice_size=3,
        flags=["ancillary", "slices"],
    )


def audio_chains(suite: Suite) -> None:
    """Chains of audio."""
    tone = signals.tone
    Chain(suite, "codec1d", "codec1d-tone", tone(1001), "tone", "s16", stages=True, flags=["odd"])
    Chain(
        suite,
        "codec1d-plain",
        "codec1d-plain-s24",
        (tone(777, 2, np.int32, 5e6) * 256).astype(np.int32),
        "tone",
        "s24",
        stages=True,
        rate=96000,
    )
    Chain(
        suite,
        "codec1d-full",
        "codec1d-full-u8",
        (tone(300, 2, np.int16, 90) + 128).clip(0, 255).astype(np.uint8),
        "tone",
        "u8",
        stages=True,
        rate=8000,
    )
    Chain(suite, "codec1d-j8", "codec1d-j8-tone", tone(2100), "tone", "s16", stages=True, rate=48000)
    Chain(suite, "codec1d", "codec1d-mono", tone(640, 1), "tone", "s16", flags=["grey"], stages=True)
    Chain(suite, "codec1d", "codec1d-f32", (tone(500, 2) / 30000).astype(np.float32), "tone", "f32", stages=True)
    Chain(suite, "codec1d-plain", "codec1d-plain-f64", tone(400, 2) / 30011, "tone", "f64")
    Chain(suite, "codec1d-plain", "codec1d-plain-s32", tone(21, 2, np.int32, 1.2e9), "tone", "s32")
    how = container.Coding(step=2.5, weighted=True)
    Chain(suite, "weighted-codec1d", "step-codec1d", tone(500), "tone", "s16", stages=True, coding=how)
    Chain(suite, "codec1d", "step-audio", tone(300), "tone", "s16", coding=container.Coding(step=0.5))
    Chain(suite, "codec1d", "codec1d-silence", np.full((100, 2), 37, np.int16), "silence", "s16", stages=True)
    Chain(suite, "codec1d", "codec1d-click", np.eye(200, 2, -77).astype(np.int16) * 32767, "click", "s16")
    Chain(
        suite, "codec1d", "codec1d-one", tone(1), "silence" if np.ptp(tone(1)) == 0 else "tone", "s16", flags=["size"]
    )
    Chain(suite, "codec1d", "codec1d-slices", tone(900), "tone", "s16", slice_size=25, flags=["slices"])
    Chain(suite, "codec1d", "codec1d-certified", tone(411), "tone", "s16", certify=True, flags=["ancillary"])


def quantiser(suite: Suite) -> None:
    """Values injected straight into the quantiser and the coder."""
    by_bits = {
        config["latent_bits"]: key
        for key, config in reversed(SMALL.items())
        if config["architecture"] == "LinearCodec2D"
    }
    for bits, key in sorted(by_bits.items()):
        suite.small(key)
        up, narrow = suite.pairs[key]
        last = 2 ** (bits - 1) - 1
        name = f"bits-{bits}"

        def put(what: str, content: np.ndarray | bytes, ending: str = "npy", name: str = name) -> str:
            return suite.file(f"vectors/{name}/{what}.{ending}", content)

        values = np.arange(-last, last + 1, dtype=np.int16).reshape(1, 1, -1)
        latents = up.dequantise(values)
        a, b = put("every-symbol", values), put("dequantised", latents)
        suite.add(
            "decode",
            "dequantise",
            name,
            key,
            a,
            b,
            "dequantise",
            "pytorch",
            "every-symbol",
            ["6.1", "6.4", "6.5"],
            binary32=deviation(latents, narrow.dequantise(values)),
        )
        companded = up.compand(latents)
        suite.add(
            "encode",
            "quantise",
            f"{name}-back",
            key,
            b,
            a,
            "exact",
            "pytorch",
            "every-symbol",
            ["6.1", "6.2", "6.3"],
            margin=admitted(companded, "symbols", name),
        )
        ties = np.arange(-last, last) + 0.5
        around = np.stack([np.nextafter(ties, -np.inf), ties, np.nextafter(ties, np.inf)], axis=1).reshape(1, 1, -1)
        suite.add(
            "encode",
            "round",
            f"{name}-ties",
            key,
            put("ties", around),
            put("ties-rounded", up.round(around)),
            "exact",
            "pytorch",
            "ties",
            ["1.4", "6.2"],
            flags=["tie"],
        )
        s = last / 1.85
        most, beside = 2 * (last + 0.5 - 0.001), ties[:, None] + [-(2.0**-24), 2.0**-24]
        near = np.array([s * NormalDist().inv_cdf(v / most + 0.5) for v in beside.flat]).reshape(1, 1, -1)
        companded = up.compand(near)
        suite.add(
            "encode", "quantise", f"{name}-near", key, put("near", near), put("near-quantised", up.round(companded)),
            "exact", "pytorch", "ties", ["2.3", "2.4", "6.2", "6.3"], margin=admitted(companded, "symbols", name),
        )  # fmt: skip
        wide = np.concatenate(
            [np.linspace(-8, 8, 801) * s + 1e-3, [0.0, -0.0, 1e9, -1e9, 1e300, -1e300, 1e-300]]
        ).reshape(1, 1, -1)
        companded = up.compand(wide)
        a, b = put("wide", wide), put("wide-companded", companded)
        suite.add(
            "encode",
            "compand",
            f"{name}-wide",
            key,
            a,
            b,
            "compand",
            "pytorch",
            "latents",
            ["6.1", "6.2"],
            flags=["saturated"],
            binary32=deviation(companded, narrow.compand(np.clip(wide, -1e30, 1e30).astype(np.float32))),
        )
        suite.add(
            "encode",
            "quantise",
            f"{name}-wide",
            key,
            a,
            put("wide-quantised", up.round(companded)),
            "exact",
            "pytorch",
            "latents",
            ["2.3", "2.4", "6.1", "6.2", "6.3"],
            margin=admitted(companded, "symbols", name),
            flags=["saturated"],
        )
        planes = suite.models[key].config.planes
        coder(suite, key, f"{name}-every", signals.every_symbol(planes, bits), "every-symbol")
    for key, shape in (
        ("linear", (6, 1, 1)),
        ("linear", (6, 1, 40)),
        ("linear", (6, 40, 1)),
        ("linear", (6, 13, 17)),
        ("linear-j3", (12, 9, 7)),
        ("linear-j0", (1, 30, 30)),
        ("linear-b2", (2, 20, 21)),
        ("linear-j1", (3, 20, 10)),
        ("codec1d", (6, 1, 150)),
    ):
        suite.small(key)
        name = f"coder-{key}-{'x'.join(map(str, shape))}"
        coder(suite, key, name, signals.symbols(shape, suite.models[key].config.latent_bits, seed=len(name)), "symbols")
    last = 127
    coder(suite, "linear", "coder-zeros", np.zeros((6, 16, 16), np.int16), "constant")
    coder(suite, "linear", "coder-largest", np.full((6, 9, 9), last, np.int16), "constant")
    coder(
        suite,
        "linear",
        "coder-alternating",
        (np.indices((6, 10, 10)).sum(0) % 2 * 2 * last - last).astype(np.int16),
        "extremes",
    )
    coder(
        suite,
        "linear",
        "coder-noise",
        np.random.default_rng(8).integers(-last, last + 1, (6, 12, 12)).astype(np.int16),
        "noise",
    )
    sparse = np.zeros((6, 20, 20), np.int16)
    sparse[::2, 7, 11], sparse[5, 19, 19], sparse[0, 0, 0] = last, -1, -last
    coder(suite, "linear", "coder-sparse", sparse, "symbols")
    # rounding to samples, where half-way cases are exact in binary64
    suite.small("codec1d")
    suite.small("linear")
    steps = np.concatenate([np.arange(-40, 40), [-32768, -32767, 32766, 32767]])
    x = np.stack([(steps + 0.5) / 32768, np.nextafter((steps + 0.5) / 32768, np.inf)])
    x = np.clip(x, -0.5 * 2, 0.5 * 2)
    expected = np.clip(np.rint(x * 32768), -32768, 32767).astype(np.int16).T
    a, b = (
        suite.file("vectors/ties-s16/cropped.npy", x),
        suite.file("vectors/ties-s16/samples.npy", np.ascontiguousarray(expected)),
    )
    suite.add(
        "decode",
        "samples",
        "ties-s16",
        "codec1d",
        a,
        b,
        "exact",
        "arithmetic",
        "ties",
        {"1.4"} | describe.AUDIO_SAMPLES,
        parameters={"format": "s16", "channels": "2", "mean": "0.0", "gain": "1.0"},
        flags=["audio", "tie"],
    )
    x = np.linspace(-0.5, 0.5, 256).reshape(1, 1, 256) * np.ones((3, 1, 1))
    x[1] = np.clip(x[1] + 0.4 / 255, -0.5, 0.5)
    x[2] = np.clip(x[2] - 0.4 / 255, -0.5, 0.5)
    x[:, :, 0], x[:, :, -1] = -0.5, 0.5
    expected = np.clip(np.rint(255 * (x + 0.5)), 0, 255).astype(np.uint8)
    a, b = (
        suite.file("vectors/levels-u8/cropped.npy", x),
        suite.file("vectors/levels-u8/samples.npy", np.moveaxis(expected, 0, -1)),
    )
    suite.add(
        "decode",
        "samples",
        "levels-u8",
        "linear",
        a,
        b,
        "exact",
        "arithmetic",
        "ramp",
        ["3.8"],
        parameters={"format": "u8", "channels": "3"},
        margin=admitted(255 * (x + 0.5), "u8", "levels"),
    )
    edge = np.array(
        [-1e9, -0.7, -0.5, np.nextafter(-0.5, -1), -0.25, 0.0, 0.25, np.nextafter(0.5, 1), 0.5, 0.51, 3e200]
    ).reshape(1, 1, -1)
    a, b = (
        suite.file("vectors/clamp/in.npy", edge),
        suite.file("vectors/clamp/out.npy", suite.pairs["linear"][0].clamp(edge)),
    )
    suite.add("decode", "clamp", "edges", None, a, b, "exact", "pytorch", "extremes", ["3.7"], flags=["clamped"])
    # padding of every small size
    for n in range(1, 14):
        x = (np.arange(2 * n, dtype=np.float64).reshape(2, 1, n) + 1) / 64
        for key in ("linear-j1",):
            suite.small(key)
        suite.small("linear-j3")
        x = np.concatenate([x, x[:1] - 0.25])
        padded = suite.pairs["linear-j3"][0].pad(x)
        a, b = suite.file(f"vectors/pad/{n}.npy", x), suite.file(f"vectors/pad/{n}-padded.npy", padded)
        suite.add(
            "encode",
            "pad",
            f"1x{n}",
            "linear-j3",
            a,
            b,
            "exact",
            "pytorch" if n > 4 else "numpy",
            "ramp",
            ["3.4", "3.5"],
            flags=["size"],
        )
        suite.add(
            "decode",
            "crop",
            f"1x{n}",
            "linear-j3",
            b,
            a,
            "exact",
            "pytorch" if n > 4 else "numpy",
            "ramp",
            ["3.6"],
            parameters={"sizes": f"1x{n}"},
            flags=["size"],
        )


def coder(suite: Suite, key: str, name: str, symbols: np.ndarray, signal: str) -> None:
    """Symbols through the entropy coder alone, one slice."""
    payload = entropy.encode(symbols, suite.models[key].tables)
    a = suite.file(f"vectors/{name}/symbols.npy", symbols)
    b = suite.file(f"vectors/{name}/slice.bin", payload)
    c = suite.file(f"vectors/{name}/slice.slice", compare.write_slice(symbols.shape, payload))
    suite.add("encode", "slice", name, key, a, b, "bytes", "definition", signal, describe.ENTROPY)
    suite.add("decode", "slice", name, key, c, a, "exact", "definition", signal, describe.ENTROPY)


def bundled(suite: Suite, names: Sequence[str] = ()) -> None:
    """Whole images, audio files and volumes through the bundled weights, or through those of these names."""
    photo, tone = signals.photo, signals.tone
    for name, path in models.available().items():
        if path.parent.resolve() != SUITE.parent / "weights" or (names and name not in names):
            continue
        key = suite.bundled(name, path)
        config = suite.models[key].config
        c = config.channels

        def chain(
            what: str, make: Callable[[int], np.ndarray], signal: str, form: str, key: str = key, **more: Any
        ) -> None:
            admitted_chain(suite, key, f"{key}-{what}", make, signal, form, **more)

        if config.kind == "volume":
            chain("bodies", lambda shift, c=c: signals.bodies(17, 30, 34 - shift, c), "bodies", "u8", certify=True)
            chain("3x4x5", lambda shift, c=c: signals.bodies(3, 4, 5 + shift, c), "bodies", "u8", flags=["size"])
            continue
        if config.kind == "audio":
            frames = 12345 if c <= 2 else 3210
            chain("tone", lambda shift, c=c, n=frames: tone(n + shift, c), "tone", "s16", certify=True)
            chain("short", lambda shift, c=c: tone(100 + shift, c, scale=3000), "tone", "s16")
            continue
        if name not in TWINS:
            chain("zone", lambda shift, c=c: signals.zone_plate(80, 88 + shift, c, np.uint16), "zone-plate", "u16")
        if c <= 3:
            if name not in TWINS:
                chain("wren", lambda shift, c=c: photo("wren", 112, 144 - shift)[:, :, :c], "photo", "u8", certify=True)
            chain(
                "spices",
                lambda shift, c=c: photo("spices", 97, 101, 15, 43 - shift)[:, :, :c],
                "photo",
                "u8",
                flags=["odd"],
            )
            chain(
                "3x5",
                lambda shift, c=c: photo("spices", 3, 5, 100, 20 + shift)[:, :, :c],
                "photo",
                "u8",
                flags=["size"],
            )


def admitted_chain(
    suite: Suite, key: str, name: str, make: Callable[[int], np.ndarray], *how: Any, **more: Any
) -> None:
    """A chain of the first of some inputs that is admitted: trained weights are not ours to choose."""
    for shift in range(ATTEMPTS):
        cases, files = list(suite.cases), dict(suite.files)
        try:
            Chain(suite, key, name, make(shift), *how, **more)
            return
        except Refused as error:
            suite.cases, suite.files, last = cases, files, error
    raise last


def generate(
    folder: Path, *, only_bundled: bool = False, names: Sequence[str] = (), with_bundled: bool = True
) -> Suite:
    """Write the suite to a folder; with `names`, of the bundled weights only those of these models anew."""
    suite = Suite(folder)
    if only_bundled:
        old = json.loads((SUITE / MANIFEST).read_text(encoding="utf-8"))

        def stays(key: str) -> bool:
            return key.removeprefix("bundled-") not in names if names else not key.startswith("bundled-")

        ours = [case for case in old["cases"] if stays(case["model"] or "")]
        suite.cases += ours
        used = {name for case in ours for name in (case["input"], case.get("output"), case.get("guard")) if name}
        used |= {entry["file"] for entry in old["models"].values() if not entry["file"].startswith(BUNDLED)}
        suite.files |= {name: (SUITE / name).read_bytes() for name in sorted(used)}
        suite.entries |= {k: v for k, v in old["models"].items() if not v["file"].startswith(BUNDLED) or stays(k)}
    else:
        images(suite)
        audio_chains(suite)
        quantiser(suite)
        volumes.add_all(suite)
        edges.add_all(suite)
        invalid.add_all(suite)
        del suite.files["vectors/edge-limit/stream.wlc"]
    if with_bundled:
        bundled(suite, names)
    suite.write()
    return suite


def differences(old: Path, new: Path, *, with_bundled: bool) -> list[str]:
    """What two suites differ in: files, reals by more than `RECOMPUTED`, the manifest but for observations."""
    problems = []
    manifests = [json.loads((folder / MANIFEST).read_text(encoding="utf-8")) for folder in (old, new)]
    cases = []
    for manifest in manifests:
        kept = {}
        for case in manifest["cases"]:
            if with_bundled or not (case["model"] or "").startswith("bundled-"):
                kept[case["id"]] = {key: v for key, v in case.items() if key not in ("margin", "binary32")}
        cases.append(kept)
    for name in sorted(cases[0].keys() | cases[1].keys()):
        if cases[0].get(name) != cases[1].get(name):
            problems.append(f"case {name}: {cases[0].get(name)} is now {cases[1].get(name)}")
    names = {c[part] for c in cases[1].values() for part in ("input", "output", "guard") if c.get(part)}
    names |= {entry["file"] for entry in manifests[1]["models"].values() if not entry["file"].startswith(BUNDLED)}
    for name in sorted(names):
        try:
            a, b = ((folder / name).read_bytes() for folder in (old, new))
        except OSError as error:
            problems.append(f"{name}: {error.strerror}")
            continue
        if a == b:
            continue
        if not name.endswith(".npy"):
            problems.append(f"{name}: different bytes")
            continue
        x, y = compare.read_array(a), compare.read_array(b)
        try:
            compare.same_type(x, y)
            if x.dtype.kind == "f":
                compare.close(x, y, RECOMPUTED)
            else:
                compare.equal(x, y)
        except compare.Different as error:
            problems.append(f"{name}: {error}")
    return problems


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the vectors of the conformance suite.")
    parser.add_argument(
        "--check", action="store_true", help="generate elsewhere and compare; exit with 1 on a difference"
    )
    help_text = "only the vectors of the bundled weights, or of those of these names"
    parser.add_argument("--bundled", nargs="*", metavar="NAME", help=help_text)
    parser.add_argument("--no-bundled", action="store_true", help="all vectors but those of the bundled weights")
    options = parser.parse_args()
    if not options.check:
        chosen, only = options.bundled or (), options.bundled is not None
        suite = generate(SUITE, only_bundled=only, names=chosen, with_bundled=not options.no_bundled)
        print(f"{len(suite.cases)} cases, {len(suite.files)} files, {sum(map(len, suite.files.values()))} bytes")
        return 0
    committed = json.loads((SUITE / MANIFEST).read_text(encoding="utf-8"))["models"]
    with_bundled = not options.no_bundled and any(key.startswith("bundled-") for key in committed)
    folder = Path(tempfile.mkdtemp(prefix="walloc-conformance-"))
    try:
        generate(folder, with_bundled=with_bundled)
        problems = differences(SUITE, folder, with_bundled=with_bundled)
    finally:
        shutil.rmtree(folder)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
