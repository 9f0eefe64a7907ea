"""Inputs at which implementations change their ways: sizes beyond a strip, a slice, a byte; values beyond full scale;
states of the entropy coder that chance does not reach.

Small models here have configurations of their own, so that a large image costs the suite little.
"""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import describe
import invalid
import numpy as np
import signals
from chains import Chain, Suite

from walloc_ref.conform import compare
from walloc_ref.fast import entropy as kernel
from walloc_ref.stages import container, entropy

MODELS: dict[str, dict[str, Any]] = {
    key: dict(zip(("architecture", "channels", "J", "latent_dim", "latent_bits"), values)) | more
    for key, (values, more) in {
        "edge-plain": (("LinearCodec2D", 1, 0, 1, 4), {}),
        "edge-bytes": (("LinearCodec2D", 1, 0, 1, 8), {}),
        "edge-planes-16": (("LinearCodec2D", 1, 0, 16, 5), {}),
        "edge-planes-260": (("LinearCodec2D", 2, 1, 260, 3), {}),
        "edge-channels-64": (("LinearCodec2D", 64, 0, 3, 6), {}),
        "edge-j6": (("LinearCodec2D", 1, 6, 2, 8), {}),
        "edge-residual-11": (("ResidualCodec2D", 1, 0, 1, 4), {"num_stages": 11}),
        "edge-j9": (("Codec1D", 1, 9, 2, 8), {"Ne": None, "Nd": 2, "lightweight_encode": True, "post_filter": False}),
        "edge-j10": (("Codec1D", 1, 10, 2, 8), {"Ne": None, "Nd": 2, "lightweight_encode": True, "post_filter": False}),
        "edge-sound": (
            ("Codec1D", 1, 1, 1, 8),
            {"Ne": None, "Nd": 1, "lightweight_encode": True, "post_filter": False},
        ),
        "edge-sound-ne": (
            ("Codec1D", 1, 1, 1, 8),
            {"Ne": 1 - 10**15, "Nd": 1, "lightweight_encode": True, "post_filter": False},
        ),
        "edge-wide": (("LinearCodec2D", 20, 4, 1, 8), {}),
        "edge-planes-4096": (("LinearCodec2D", 1, 0, 4096, 2), {}),
        "edge-channels-4096": (("LinearCodec2D", 4096, 0, 1, 8), {}),
    }.items()
}
"""Configurations. All have the default tables, and none in their files but `STORED`."""

STORED = ("edge-planes-260",)
"""Those with seeded tables in their files."""


def add_all(suite: Suite) -> None:
    """Everything here."""
    for number, (key, fields) in enumerate(MODELS.items()):
        planes = fields["latent_dim"] * fields.get("num_stages", 1)
        tables = signals.tables(planes, fields["latent_bits"], 260) if key in STORED else None
        suite.seeded(key, fields, 100 + number, tables=tables, bare=key not in STORED)
    sizes(suite)
    counts(suite)
    full_scale(suite)
    statistics(suite)
    sections(suite)
    model_files(suite)
    coder(suite)
    later(suite)


# ---- sizes and counts


def smooth(height: int, width: int, period: float = 97) -> np.ndarray:
    """An image of slow waves, (H, W), uint8."""
    y, x = np.mgrid[:height, :width]
    wave = np.sin(x / period * 2 * np.pi) + np.cos(y / 31) + np.sin((x + 3 * y) / 211)
    return np.clip(np.rint(128 + 40 * wave), 0, 255).astype(np.uint8)


def sizes(suite: Suite) -> None:
    """Images and audio larger than what a fast codec takes at a time."""
    large: dict[str, Any] = {"large": True, "flags": ["large"]}
    Chain(suite, "edge-plain", "edge-130x1100", smooth(130, 1100), "waves", "u8", slice_size=32, **large)
    Chain(suite, "edge-planes-16", "edge-planes-16", smooth(34, 514), "waves", "u8", slice_size=32, **large)
    Chain(suite, "codec2d", "edge-attention", signals.zone_plate(70, 73), "zone-plate", "u8", flags=["large"])
    long = signals.tone(9000, 2)
    Chain(suite, "codec1d", "edge-positions", long, "tone", "s16", large=True, flags=["large"])
    noise = signals.noise(150, 150, 1, seed=9)[:, :, 0]
    extras = {"icc_profile": bytes(i % 251 for i in range(17000)), "exif": b"Exif\0\0" + bytes(200)}
    Chain(
        suite,
        "edge-bytes",
        "edge-noise",
        noise,
        "noise",
        "u8",
        extras=extras,
        **{**large, "flags": ["large", "ancillary"]},
    )


def counts(suite: Suite) -> None:
    """Numbers that need a second byte, or a fourth."""
    Chain(suite, "edge-bytes", "edge-slices-130", smooth(130, 3), "waves", "u8", slice_size=1, flags=["slices"])
    planes = signals.zone_plate(8, 10, 2)
    Chain(suite, "edge-planes-260", "edge-planes-260", planes, "zone-plate", "u8", flags=["large"])
    Chain(suite, "edge-planes-4096", "edge-planes-4096", np.array([[9]], np.uint8), "constant", "u8", flags=["large"])
    for width in (127, 128):
        Chain(suite, "edge-bytes", f"edge-{width}", smooth(1, width), "waves", "u8", flags=["size"])
    wide = signals.noise(1, 1, 4096, seed=4)
    Chain(suite, "edge-channels-4096", "edge-channels-4096", wide, "noise", "u8", flags=["large"])
    Chain(suite, "edge-channels-64", "edge-channels-64", signals.noise(5, 6, 64), "noise", "u8")
    Chain(suite, "edge-j6", "edge-j6", signals.zone_plate(70, 50, 1), "zone-plate", "u8")
    rows = signals.zone_plate(9, 7, 1)
    Chain(suite, "edge-residual-11", "edge-residual-11", rows, "zone-plate", "u8", stages=True)
    for key in ("edge-j9", "edge-j10"):
        Chain(suite, key, key, signals.tone(3000, 1), "tone", "s16")
    Chain(suite, "edge-sound", "edge-rate", signals.tone(90, 1), "tone", "s16", rate=2_822_400)
    Chain(suite, "edge-sound", "edge-rate-largest", signals.tone(30, 1), "tone", "s16", rate=2**32 - 1)
    Chain(suite, "edge-sound", "edge-rate-one", signals.tone(30, 1), "tone", "s16", rate=1)
    Chain(suite, "edge-sound-ne", "edge-ne-given", signals.tone(60, 1), "tone", "s16")
    one = np.array([[200]], np.uint8)
    Chain(suite, "edge-bytes", "edge-one", one, "constant", "u8")
    # an image of more than 2^30 samples whose symbols a few bytes hold: to be rejected for its samples alone
    model, wide = suite.models["edge-wide"], 7328 // 16
    symbols = np.zeros((1, wide, wide), np.int16)
    header = container.Header(
        kind="image",
        sample_format="u8",
        channels=20,
        sizes=(7328, 7328),
        model_id=bytes.fromhex(model.model_id)[:16],
        J=4,
        latent_dim=1,
        latent_bits=8,
        slice_size=wide,
        symbol_hash=container.symbol_hash(symbols),
    )
    stream = container.Stream(header, (kernel.encode(symbols, model.tables),))
    suite.files["vectors/edge-limit/stream.wlc"] = container.write(stream)  # of which invalid.py makes a case
    # exactly 2^30 samples, of which the header can be read
    whole = {
        "kind": "image",
        "sample_format": "u8",
        "channels": 1,
        "sizes": [2**15, 2**15],
        "model_id": bytes(16).hex(),
    }
    whole |= {"J": 10, "latent_dim": 1, "latent_bits": 8, "step": 1.0, "weighted": False, "window": 0, "context": 0}
    whole |= {"slice_size": 32, "symbol_hash": bytes(8).hex(), "rate": 0, "mean": 0.0, "gain": 1.0}
    header = container.Header(
        kind="image", sample_format="u8", channels=1, sizes=(2**15, 2**15), model_id=bytes(16), J=10, latent_dim=1,
        latent_bits=8, slice_size=32, symbol_hash=bytes(8),
    )  # fmt: skip
    a = suite.file("vectors/edge-largest/stream.wlc", container.write(container.Stream(header, (b"\x80",))))
    b = suite.file("vectors/edge-largest/header.json", json.dumps(whole | {"slices": 1, "certified": False}).encode())
    how = ("json", "construction", "symbols", {"10.5", "10.6", "12.4"})
    suite.add("decode", "header", "edge-largest", "edge-plain", a, b, *how, flags=["large"], note="no model has it")
    # 2^21 frames: a size in four bytes, and symbols that cost next to nothing
    model, frames = suite.models["codec1d-j8"], 2**21 + 5
    symbols = np.zeros((3, 1, -(-frames // 256) + 2), np.int16)
    symbols[1, 0, 5000] = 9
    base = container.read(suite.files["vectors/codec1d-j8-tone/stream.wlc"]).header
    digest = container.symbol_hash(symbols)
    header = replace(base, sizes=(frames,), slice_size=symbols.shape[2], symbol_hash=digest)
    stream = container.Stream(header, (entropy.encode(symbols, model.tables),))
    a = suite.file("vectors/edge-frames/stream.wlc", container.write(stream))
    b = suite.file("vectors/edge-frames/symbols.json", compare.digest_of(symbols[:, 0]))
    clauses = {"1.6", "10.5", "10.6", "10.8"}
    suite.add(
        "decode",
        "symbols",
        "edge-frames",
        "codec1d-j8",
        a,
        b,
        "digest",
        "construction",
        "symbols",
        clauses,
        flags=["large"],
    )


# ---- values


def full_scale(suite: Suite) -> None:
    """Signals whose samples lie beyond full scale, on both sides, and just within."""
    x = np.array([[-0.5, 0.5, -0.49, 0.49, 0.0, -0.2, 0.2, 0.30000000000000004, -0.3]])
    for form, (dtype, full, silence, step) in {
        "u8": (np.uint8, 2**7, 128, 1),
        "s16": (np.int16, 2**15, 0, 1),
        "s24": (np.int32, 2**31, 0, 256),
        "s32": (np.int32, 2**31, 0, 1),
        "f32": (np.float32, 1, 0, 0),
        "f64": (np.float64, 1, 0, 0),
    }.items():
        mean, gain = 0.03125, 3.25
        values = (gain * x + mean).T
        if step:
            steps = full // step
            scaled = values * steps
            samples = (np.clip(np.rint(scaled), -steps, steps - 1).astype(np.int64) + silence) * step
        else:
            samples = values
        a = suite.file("vectors/edge-full-scale/signal.npy", x)
        b = suite.file(f"vectors/edge-full-scale/{form}.npy", samples.astype(dtype))
        how = {"f32": "samples-f32", "f64": "samples-f64"}.get(form, "exact")
        parameters = {"format": form, "channels": "1", "mean": repr(mean), "gain": repr(gain)}
        suite.add(
            "decode", "samples", f"edge-full-scale-{form}", "edge-sound", a, b, how, "arithmetic", "extremes",
            describe.AUDIO_SAMPLES, parameters=parameters, flags=["audio", "clamped"],
        )  # fmt: skip
    for form, full in (("u8", 255), ("u16", 65535)):
        x = np.array([-0.8, -0.5, -0.5 - 0.6 / full, 0.5 + 0.6 / full, 0.5, 0.9, 0.5 - 0.4 / full]).reshape(1, 1, -1)
        a = suite.file(f"vectors/edge-full-scale/image-{form}.npy", x)
        samples = np.clip(np.rint(full * (np.moveaxis(x, 0, -1) + 0.5)), 0, full).astype(
            {"u8": np.uint8, "u16": np.uint16}[form]
        )
        b = suite.file(f"vectors/edge-full-scale/image-{form}-samples.npy", samples)
        suite.add(
            "decode", "samples", f"edge-full-scale-image-{form}", "edge-plain", a, b, "exact", "arithmetic", "extremes",
            {"3.8"}, parameters={"format": form, "channels": "1"}, flags=["clamped"],
        )  # fmt: skip
    loud = signals.tone(120, 1) / 5000
    Chain(suite, "edge-sound", "edge-loud-f32", loud.astype(np.float32), "tone", "f32", stages=True)
    Chain(suite, "edge-sound", "edge-loud-f64", loud * 2.0**900, "tone", "f64")
    quiet = np.array([[3], [3], [4], [3], [2], [3], [3], [3]], np.int32) * 256
    Chain(suite, "edge-sound", "edge-quiet-s24", quiet, "tone", "s24", stages=True)


def statistics(suite: Suite) -> None:
    """Means whose rounding decides."""
    tiny = 2.0**-55
    rng = np.random.default_rng(12)
    mixed = np.array([1.0] + [tiny] * 40 + [-tiny * 3, 2**-53, 3 * 2**-54, 2**-54, -(2**-54), 5 * 2**-54])
    cases: dict[str, tuple[str, np.ndarray]] = {
        "mixed-f64": ("f64", mixed),
        "power-f64": ("f64", np.array([0.5, -0.25, 2**-55, 2**-54, 3 * 2**-55])),
        "below-power-f64": ("f64", np.array([np.nextafter(0.5, 0), 2**-55, 2**-54, 3 * 2**-55])),
        "zeros-f64": ("f64", np.array([0.0, -0.0, 0.0])),
        "subnormal-f64": ("f64", np.array([5e-324, 1e-323, 5e-324, 4.4e-323])),
        "largest-f64": ("f64", np.array([np.nextafter(2.0**1021, 0), -(2.0**1020), 2.0**1000])),
        "negative-f32": ("f32", -rng.random(33, np.float32) - np.float32(2)),
        "range-f32": ("f32", np.array([3e38, -3e38, 1e-38, 7.0], np.float32) / 4),
        "extremes-s16": ("s16", np.array([-32768, 32767, -32768], np.int16)),
        "extremes-s32": ("s32", np.array([-(2**31), 2**31 - 1, -(2**31), 1, 5], np.int32)),
        "thirds-u8": ("u8", np.array([0, 255, 128], np.uint8)),
        "blocks-low-u8": ("u8", np.array([7] + [90] * 2**16 + [250, 60, 200], np.uint8)),
        "blocks-high-u8": ("u8", np.array([250] + [90] * 2**16 + [70, 3, 200], np.uint8)),
    }
    for name, (form, values) in cases.items():
        samples = values.reshape(-1, 1)
        chain = Chain.__new__(Chain)
        chain.form, chain.samples = form, samples
        a = suite.file(f"vectors/edge-statistics/{name}.npy", samples)
        b = suite.file(f"vectors/edge-statistics/{name}-both.npy", np.array(chain.statistics()))
        suite.add(
            "encode", "statistics", f"edge-{name}", "edge-sound", a, b, "exact", "arithmetic", "extremes",
            describe.AUDIO_STATISTICS, parameters={"format": form}, flags=["audio"],
        )  # fmt: skip
    # the same numbers as an image of an odd number of samples
    a = suite.file("vectors/edge-statistics/image-f32.npy", cases["negative-f32"][1].reshape(3, 11, 1))
    suite.add(
        "encode", "statistics", "edge-image-f32", "edge-plain", a, "vectors/edge-statistics/negative-f32-both.npy",
        "exact", "arithmetic", "extremes", {"3.10", *describe.AUDIO_STATISTICS}, parameters={"format": "f32"},
    )  # fmt: skip


# ---- containers and models


def sections(suite: Suite) -> None:
    """Valid streams whose sections are unusual, and certificates."""
    parts = invalid.Parts(suite.files["vectors/linear-slices/stream.wlc"])
    symbols = "vectors/linear-slices/symbols.npy"
    unknown, exif = invalid.section(0x91, b"again"), invalid.section(invalid.EXIF, b"Exif\0\0")
    icc = invalid.section(invalid.ICC, bytes(3))
    large = invalid.section(0xA0, bytes(16500))
    for name, between in (
        ("unknown-twice", unknown + unknown),
        ("sections-in-another-order", exif + unknown + icc + unknown),
        ("unknown-large", large),
        ("empty-exif", invalid.section(invalid.EXIF, b"")),
        ("unknown-80", invalid.section(0x80, b"the first tag of an ancillary section")),
    ):
        file = suite.file(f"vectors/valid/{name}.wlc", parts.build(before=between))
        clauses, flags = ["10.2", "10.3", "10.4", "10.12"], ["ancillary"]
        suite.add(
            "decode", "symbols", name, "linear", file, symbols, "exact", "construction", "photo", clauses, flags=flags
        )
    audio = invalid.Parts(suite.files["vectors/codec1d-silence/stream.wlc"])
    for name, field in (
        ("gain-minus-zero", {"gain": struct.pack("<d", -0.0)}),
        ("mean-minus-zero", {"mean": struct.pack("<d", -0.0)}),
    ):
        file = suite.file(f"vectors/valid/{name}.wlc", audio.build(**field))
        wanted = "vectors/codec1d-silence/symbols.npy"
        suite.add(
            "decode",
            "symbols",
            name,
            "codec1d",
            file,
            wanted,
            "exact",
            "construction",
            "silence",
            ["10.6"],
            flags=["audio"],
        )
    # a certificate of samples without a margin: only its form counts
    floats = invalid.Parts(suite.files["vectors/codec1d-f32/stream.wlc"])
    between = invalid.section(invalid.CERTIFICATE, bytes(32) + b"\x01\x07")
    file = suite.file("vectors/valid/certificate-f32.wlc", floats.build(before=between))
    suite.add(
        "decode", "stream", "certificate-f32", "codec1d", file, "vectors/codec1d-f32/decoded.npy", "samples-f32",
        "construction", "tone", ["10.10", "10.11"], flags=["audio", "ancillary"],
    )  # fmt: skip
    # certificates that are false: the uncertain samples not set to 0, and one of them only
    decoded = compare.read_array(suite.files["vectors/linear-slices/decoded.npy"])
    places = np.flatnonzero(decoded.reshape(-1))[[3, 40]]
    gaps = invalid.varint(int(places[0])) + invalid.varint(int(places[1] - places[0] - 1))
    for name, zeroed, note in (
        ("uncertain-kept", (), "the hash is over the uncertain samples as they were decoded"),
        ("uncertain-one", places[:1], "the hash has one of two uncertain samples set to 0"),
    ):
        flat = decoded.reshape(-1).copy()
        flat[list(zeroed)] = 0
        payload = hashlib.sha256(flat.tobytes()).digest() + b"\x02" + gaps
        data = parts.build(before=invalid.section(invalid.CERTIFICATE, payload))
        file = suite.file(f"vectors/invalid/certificate-{name}.wlc", data)
        suite.add(
            "decode", "stream", f"invalid-certificate-{name}", "linear", file, None, "reject", "damage", "stream",
            ["10.10", "10.11", "12.1"], fault="wrong-hash", note=note, levels=["decoder"], flags=["fixed-crc"],
        )  # fmt: skip


def model_files(suite: Suite) -> None:
    """Valid model files that are unusual: nothing in them that does not count."""
    good = invalid.Weights(suite.files["models/edge-sound.safetensors"], default=True)
    given = invalid.Weights(suite.files["models/edge-sound-ne.safetensors"], default=True)
    fields = {key: value for key, value in good.config.items() if key != "Ne"}

    def text(config: dict[str, Any], more: str) -> str:
        return json.dumps(config)[:-1] + "," + more + "}"

    for name, base, chain, config, note in (
        ("ne-absent", good, "edge-rate", text(fields, '"note":""'), "Ne is missing, which means null"),
        (
            "ne-given",
            given,
            "edge-ne-given",
            text(given.config, '"note":[]'),
            "an Ne of 15 digits, which does not count",
        ),
        ("digits", good, "edge-rate", text(good.config, '"note":' + "9" * 5000), "an ignored number of 5000 digits"),
        ("exponent", good, "edge-rate", text(good.config, '"note":-1.5e+999'), "an ignored number beyond binary64"),
        ("deep", good, "edge-rate", text(good.config, '"note":' + "[" * 7 + "0" + "]" * 7), "nested exactly 8 deep"),
        (
            "unicode",
            good,
            "edge-rate",
            text(good.config, '"n\\u00f6te \\ud83d\\ude00":"\\u0000ö😀"'),
            "escapes and UTF-8",
        ),
        ("blanks", good, "edge-rate", " \n" + text(good.config, '\t"note" : true ') + "\r\n", "white space"),
    ):
        file = suite.file(f"models/valid/{name}.safetensors", base.build(text=config))
        key = f"valid-{name}"
        entry = suite.entries["edge-sound" if base is good else "edge-sound-ne"]
        suite.entries[key] = entry | {"file": file, "source": "a valid model, written in another way"}
        stream, wanted = f"vectors/{chain}/stream.wlc", f"vectors/{chain}/symbols.npy"
        clauses = ["8.1", "8.2", "8.3", "8.4", "8.6"]
        suite.add(
            "decode",
            "symbols",
            f"model-{name}",
            key,
            stream,
            wanted,
            "exact",
            "construction",
            "tone",
            clauses,
            note=note,
        )


# ---- the entropy coder


def serialised(
    bits: int,
    taps: Sequence[Sequence[tuple[int, int, int, int]]],
    units: Sequence[Sequence[Sequence[int]]],
    biases: Sequence[Sequence[int]],
    outputs: Sequence[Sequence[Sequence[int]]] | None = None,
    *,
    states: np.ndarray | int = 2048 * 16,
    mixers: np.ndarray | int = 320,
) -> bytes:
    """Tables as 7.2 writes them: taps (kind, source, dy, dx) a plane, units a tap, biases, outputs a hidden unit."""
    planes = len(taps)
    outputs = outputs or [[]] * planes
    data = b"WET1" + struct.pack("<HH", planes, bits)
    data += b"".join(bytes([len(t), len(o)]) for t, o in zip(taps, outputs))
    for kind, source, dy, dx in (tap for plane in taps for tap in plane):
        data += struct.pack("<HB", source, kind * 49 + (dy + 3) * 7 + dx + 3)
    for c in range(planes):
        for row in units[c]:
            data += struct.pack(f"<{len(row)}h", *row)
        data += struct.pack(f"<{len(biases[c])}i", *biases[c])
        for pair in outputs[c]:
            data += struct.pack("<2h", *pair)
    number = 16 * (748 + 11 * planes)
    data += np.broadcast_to(np.asarray(states), number).astype("<u2").tobytes()
    return data + np.broadcast_to(np.asarray(mixers), (8, 16, 4)).astype("<i2").tobytes()


def read_on(payload: bytes, shape: tuple[int, int, int], tables: entropy.Tables) -> np.ndarray:
    """The symbols that a payload begins with, whatever its end."""
    symbols = np.zeros(shape, np.int16)
    entropy.walk_slice(entropy.Decoder(payload + bytes(64)), symbols, tables)
    return symbols


def put_slice(
    suite: Suite,
    name: str,
    key: str,
    symbols: np.ndarray,
    note: str,
    clauses: set[str] = describe.ENTROPY,
    flags: Sequence[str] = (),
) -> None:
    """A slice, to be encoded and to be decoded."""
    payload = entropy.encode(symbols, suite.models[key].tables)
    folder = f"vectors/coder-{name}"
    a, b = suite.file(f"{folder}/symbols.npy", symbols), suite.file(f"{folder}/slice.bin", payload)
    c = suite.file(f"{folder}/slice.slice", compare.write_slice(symbols.shape, payload))
    how = ("definition", "symbols", clauses)
    suite.add("encode", "slice", f"coder-{name}", key, a, b, "bytes", *how, note=note, flags=[*flags])
    suite.add("decode", "slice", f"coder-{name}", key, c, a, "exact", *how, note=note, flags=[*flags])


def coder(suite: Suite) -> None:
    """Slices that bring the coder into states that chance does not reach."""

    put = functools.partial(put_slice, suite)

    def model(key: str, bits: int, planes: int, tables: bytes) -> entropy.Tables:
        fields = dict(
            zip(("architecture", "channels", "J", "latent_dim", "latent_bits"), ("LinearCodec2D", 1, 0, planes, bits))
        )
        suite.seeded(key, fields, 200 + len(suite.models), tables=tables)
        return suite.models[key].tables

    # one even decision, whose bound is 7fffffff, then decisions of which a one costs eleven bits. A payload that says
    # 7fffffff finds value equal to bound; one that says 80000000 ends in a carry through all bytes that were written
    first = np.full(16 * (748 + 33), 2048 * 16)
    starts = np.cumsum([0, *entropy.context_counts(3)])
    rules: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda n: n // 5,
        lambda n: n % 11 * 4,
        lambda n: n % 11 * 4,
        lambda n: n % 44,
    ]
    for start, count, scale_of in zip(starts, entropy.context_counts(3), rules):
        for context in start + np.flatnonzero(scale_of(np.arange(count)) >= 28):
            first[16 * context : 16 * context + 16] = 16 + 15
    near, far = 16 << 8, 12000 << 8
    tables = model(
        "edge-unlikely", 8, 3, serialised(8, [[]] * 3, [[]] * 3, [[0, near], [0, far], [0, far]], states=first)
    )
    for name, start in (("value-is-bound", "7fffffff"), ("carries", "800000")):
        for seed in range(2000):
            tail = np.random.default_rng(seed).integers(0, 256, 20, np.uint8).tobytes()
            try:
                symbols = read_on(bytes.fromhex(start) + tail, (3, 1, 1), tables)
                payload = entropy.encode(symbols, tables)
            except ValueError:
                continue
            if payload.hex().startswith(start):
                put(name, "edge-unlikely", symbols, f"the payload begins with {start}, next to the first bound")
                break
        else:
            raise AssertionError(name)
    # span exactly 2^24: eight decisions of probability one half, in contexts that nothing has touched
    scales = [1, 20, 50, 120, 300, 700, 1500, 3000, 6000, 9000]
    biases = [[0, scale << 8] for scale in scales]
    model("edge-halves", 8, 10, serialised(8, [[]] * 10, [[]] * 10, biases))
    symbols = np.zeros((10, 1, 3), np.int16)
    symbols[:, 0, 1:] = np.random.default_rng(3).integers(-2, 3, (10, 2))
    put(
        "halves",
        "edge-halves",
        np.ascontiguousarray(symbols),
        "span is 2^24 after eight even decisions: no byte is due",
    )
    put("halves-alone", "edge-halves", np.zeros((10, 1, 1), np.int16), "span is 2^24 after eight even decisions")
    # a last interval that begins one beyond a multiple of 2^24: nothing less than 2^24 - 1 completes it
    first = np.full((759, 16), 2048 * 16)
    first[:, :3] = np.array([1175, 2519, 3594]) * 16
    alone = np.broadcast_to([1024, 0, 0, 0], (8, 16, 4))
    tables = model("edge-finish", 2, 1, serialised(2, [[]], [[]], [[0, 9000]], states=first.reshape(-1), mixers=alone))
    last, one = entropy.Encoder(), np.ones((1, 1, 1), np.int16)
    entropy.walk_slice(last, one.copy(), tables)
    assert last.low % 2**24 == 1
    put("finish", "edge-finish", one, "the last interval begins at 1, less multiples of 2^24")
    # one that begins at a multiple: a last byte one larger is 2^24 from it
    first[:, :3] = np.array([3869, 3892, 1778]) * 16
    tables = model("edge-stop", 2, 1, serialised(2, [[]], [[]], [[0, 9000]], states=first.reshape(-1), mixers=alone))
    last = entropy.Encoder()
    entropy.walk_slice(last, one.copy(), tables)
    assert last.low % 2**24 == 0
    put("stop", "edge-stop", one, "the last interval begins at a multiple of 2^24")
    # logits that no other vector has
    known, squared = entropy.stretch_table().tolist(), np.zeros((8, 16, 4), int)
    for mixer, x in enumerate((-2015, -1987, -1894, -1858, -1802, -1782)):
        squared[mixer, 0, 0] = next(m for m in range(1, 4000) if 64 * m * known[80] >> 16 == x)
    scales = [2**e + r * 2 ** (e - 2) for e, r in (divmod(6 * mixer + 3 + 8, 4) for mixer in range(6))]
    tables = serialised(4, [[]] * 6, [[]] * 6, [[0, s << 8] for s in scales], states=80 * 16, mixers=squared)
    model("edge-logits", 4, 6, tables)
    put("logits", "edge-logits", np.zeros((6, 1, 1), np.int16), "six unlikely decisions that do not happen")
    # eight even decisions and no more: span is 2^24 when the slice ends
    model("edge-eight", 8, 8, serialised(8, [[]] * 8, [[]] * 8, biases[:8]))
    put("eight", "edge-eight", np.zeros((8, 1, 1), np.int16), "span is 2^24 at the end: no byte is due but the last")
    # ties of the means, and fractions of every size
    ties = [
        2048,
        -2048,
        2047,
        -2049,
        6144,
        -6144,
        4096 * 24 + 2048,
        -(4096 * 24) - 2048,
        0,
        32768 - 2048,
        4096 * 8,
        -4096 * 8,
    ]
    ties += [4096 * n + d for n in range(-9, 10) for d in (-1, 0, 1)]
    tables = serialised(6, [[]] * len(ties), [[]] * len(ties), [[tie, 30000] for tie in ties])
    model("edge-ties", 6, len(ties), tables)
    every = np.random.default_rng(4).integers(-3, 4, (len(ties), 2, 5)).astype(np.int16)
    put("ties", "edge-ties", every, "linear and final means that lie half way, and every fraction")
    # mixing weights at and beyond their clamp, states at their ends
    rng = np.random.default_rng(5)
    mixers = rng.choice([-32768, -32767, -16385, -16384, -16383, 16383, 16384, 16385, 32767], (8, 16, 4))
    states = rng.choice([16, 31, 65520, 65535, 32768, 20000, 47], 16 * (748 + 11 * 2))
    here = [[(1, 0, 0, -1), (1, 0, -1, 0)], [(1, 1, 0, -1), (0, 0, 0, 0), (1, 1, -1, 1)]]
    units = [[[0, 3000], [0, 3000]], [[0, 4000], [2000, 0], [0, 1000]]]
    model("edge-mixers", 6, 2, serialised(6, here, units, [[0, 9000], [500, 9000]], states=states, mixers=mixers))
    put(
        "mixers",
        "edge-mixers",
        signals.symbols((2, 9, 11), 6, seed=2),
        "mixing weights begin at and beyond their clamp",
    )
    put("mixers-zeros", "edge-mixers", np.zeros((2, 20, 20), np.int16), "and are driven on")
    quiet = np.broadcast_to(np.array([16384, 16383, -16384, -16383]), (8, 16, 4))
    model(
        "edge-clamp",
        3,
        1,
        serialised(3, [[]], [[]], [[0, 9000]], states=rng.choice([3000, 62000], 16 * 759), mixers=quiet),
    )
    walk = np.repeat(np.random.default_rng(6).integers(-3, 4, 60), np.random.default_rng(7).integers(1, 9, 60))
    put("clamp", "edge-clamp", walk.astype(np.int16).reshape(1, 1, -1), "mixing weights move into their clamp and back")
    # probabilities at their ends: runs of 2600 equal decisions, then others
    model("edge-limits", 2, 1, serialised(2, [[]], [[]], [[0, 9000]]))
    for name, usual in (("limit-low", 0), ("limit-high", 1)):
        run = np.full(3400, usual, np.int16)
        change = np.random.default_rng(11 + usual).integers(0, 12, 800) == 0
        run[2600:][change] = 1 - usual
        put(name, "edge-limits", run.reshape(1, 1, -1), "a probability reaches its limit, and comes back from it")
    for number in range(3):
        run = np.random.default_rng(number).choice([0, 1, -1], 2500, p=[0.985, 0.01, 0.005]).astype(np.int16)
        put(f"rare-{number}", "edge-limits", run.reshape(1, 50, -1), "counts reach 255")
    # every class of the scale, of activity and side, far from and near the neighbours
    wide = [[(1, 0, 0, -1), (1, 0, -1, 0), (0, 0, 0, -1)]] * 1
    model("edge-classes", 8, 1, serialised(8, wide, [[[0, 32000], [0, 500], [2000, 0]]], [[100, 0]]))
    growing = np.cumsum(np.random.default_rng(8).standard_cauchy((1, 12, 90)) * np.linspace(0.05, 3, 90), 2)
    growing = np.clip(np.rint(growing - growing.mean()), -127, 127).astype(np.int16)
    put("classes", "edge-classes", growing, "deviations from none to saturated")
    # residuals of every exponent and room, above and below expected values that are not 0
    offsets = [[4096 * 16 * n + 4096 * 3, 40000] for n in (-100, -60, -20, 20, 60, 100, 126, -126, 0)]
    model("edge-rooms", 8, 9, serialised(8, [[]] * 9, [[]] * 9, offsets))
    put("rooms", "edge-rooms", signals.every_symbol(9, 8), "every symbol beside nine expected values")
    # a saturated scale, and neighbours that lie at the margin of a side
    model("edge-scale", 8, 1, serialised(8, [[]], [[]], [[-4096, 20000 << 8]]))
    beside = np.random.default_rng(9).choice(
        [63, 64, 65, -63, -64, -65, 0], (1, 5, 30), p=[0.2, 0.3, 0.1, 0.1, 0.2, 0.05, 0.05]
    )
    put("margins", "edge-scale", beside.astype(np.int16), "a scale of 16383, neighbours at 1024 and 1025 sixteenths")
    # a saturated hidden unit, by which a mean just reaches, or just misses, the next sixteenth
    one = [[0, 30000, 9_000_000], [1, 30000, 9_000_000], [0, 30000, 9_000_000]]
    states = np.random.default_rng(10).choice([16, 31, 65520, 65535, 32768, 20000, 47], 16 * (748 + 11 * 3))
    out = [[[15, 0]], [[15, 0]], [[1, 0]]]
    model("edge-saturated", 8, 3, serialised(8, [[]] * 3, [[]] * 3, one, out, states=states))
    put(
        "saturated",
        "edge-saturated",
        signals.symbols((3, 3, 5), 8, seed=8),
        "32767, 15 times and once, next to half a step",
    )
    # as many taps and hidden units as there may be
    offsets = [(kind, 0, dy, dx) for kind in (0, 1) for dy in range(-3, 1) for dx in range(-3, 4) if (dy, dx) < (0, 0)]
    most = [(offsets * 4)[:160]]
    units = [[[(7 * i + 3 * u) % 5 - 2 for u in range(64)] for i in range(160)]]
    outputs = [[[40 * u % 201 - 100, 30 * u % 101] for u in range(62)]]
    biases = [[300, 9000, *(600 * u - 9000 for u in range(62))]]
    model("edge-most", 8, 1, serialised(8, most, units, biases, outputs))
    put("most", "edge-most", signals.symbols((1, 4, 5), 8, seed=9), "160 taps and 62 hidden units")
    # sums that reach the limit of 7.3 less one: of deviations, of symbols, of outputs; taps at both corners of the square
    near = [tap for tap in offsets if tap[0] == 1]
    taps_of = [(near * 3)[:64], [(0, 0, 3, 3), (1, 0, 3, 3), *((0, 1, dy, dx) for _, _, dy, dx in (near * 2)[:32])]]
    units = [[[0, 32767, 1, -1, 0]] * 64, [[64, 0], [32, 0], *[[0, 32767]] * 32]]
    limit = 2**31 - 2**16 - 1
    biases = [[0, limit - 64 * 1023 * 32767, 100000, 8388480, 500], [0, limit - 32 * 2032 * 32767]]
    outputs = [[[32767, 0], [32767, 0], [1, -32768]], []]
    model("edge-bounds", 8, 2, serialised(8, taps_of, units, biases, outputs))
    put("bounds", "edge-bounds", signals.symbols((2, 5, 6), 8, seed=10), "sums of which one more would be too much")
    hidden = [[-9000, 9000], [32767, -30000], [-1, 1]]
    reach = [[(0, 0, 0, -1), (1, 0, -1, 0), (0, 0, -1, 3), (0, 0, -3, -3)]]
    loud = [[[300, 10, 400, -400, 32767], [0, 900, 50, 60, 70], [-200, 0, 1, 2, 3], [5, 5, 5, 5, 5]]]
    model("edge-hidden", 7, 1, serialised(7, reach, loud, [[-3000, 20000, 256, -255, 8388480]], [hidden]))
    put("hidden", "edge-hidden", signals.symbols((1, 17, 19), 7, seed=5), "hidden units at 0, between, and saturated")
    small = signals.symbols((1, 5, 4), 7, seed=6)
    for h, w in ((1, 1), (1, 2), (2, 1), (3, 3), (5, 4)):
        put(
            f"hidden-{h}x{w}", "edge-hidden", np.ascontiguousarray(small[:, :h, :w]), "taps of reach 3 in a small plane"
        )


# ---- what one change of a program, a constant off by one, would leave as it is elsewhere


LATER: dict[str, dict[str, Any]] = {
    key: dict(zip(("architecture", "channels", "J", "latent_dim", "latent_bits"), values)) | more
    for key, (values, more) in {
        "edge-residual-1": (("ResidualCodec2D", 1, 0, 1, 4), {"num_stages": 1}),
        "edge-residual-64": (("ResidualCodec2D", 1, 0, 1, 4), {"num_stages": 64}),
        "edge-sound-full": (
            ("Codec1D", 1, 1, 1, 8),
            {"Ne": 3, "Nd": 2, "lightweight_encode": False, "post_filter": False},
        ),
        "edge-bands": (("LinearCodec2D", 1, 8, 1, 8), {}),
    }.items()
}
"""Later configurations, whose seeds leave those of the others as they are."""


def later(suite: Suite) -> None:
    """As few and as many stages as there may be, as many subbands, an encoder wider than they, windows along both axes."""
    for number, (key, fields) in enumerate(LATER.items()):
        suite.seeded(key, fields, 400 + number, bare=True)
    for key in ("edge-residual-1", "edge-residual-64"):
        Chain(suite, key, key, signals.zone_plate(3, 4, 1), "zone-plate", "u8")
    Chain(suite, "edge-sound-full", "edge-sound-full", signals.tone(30, 1), "tone", "s16")
    Chain(suite, "edge-bands", "edge-bands", np.array([[200]], np.uint8), "constant", "u8", flags=["large"])
    fields = MODELS["edge-sound"]
    suite.seeded("edge-snake", fields, 403, bare=True, change=minute)
    Chain(suite, "edge-snake", "edge-snake", signals.tone(30, 1), "tone", "s16", stages=True)
    three = container.Coding(window=8, context=1)
    Chain(suite, "weighted-codec2d", "edge-windows-3", signals.zone_plate(77, 7), "zone-plate", "u8", coding=three)
    Chain(suite, "codec2d-full", "edge-windows-across", signals.zone_plate(3, 78), "zone-plate", "u8", coding=three)
    two = signals.zone_plate(4, 8)  # groups of two or four values, some of which are nearly equal
    Chain(suite, "codec2d-full", "edge-two-positions", two, "zone-plate", "u8", stages=True)
    ends(suite)
    far(suite)


def minute(tensors: dict[str, np.ndarray]) -> None:
    """Make beta of some units so small that the 1e-9 added to it is what divides (11.7), and alpha as small in turn."""
    for name, tensor in tensors.items():
        if name.endswith("0.res_unit3.snake2.beta"):
            tensor[:] = -30
        elif name.endswith("0.res_unit3.snake2.alpha"):
            tensor[:] = -13


def ends(suite: Suite) -> None:
    """Probabilities at both ends of their range, of which one more or less is seen decisions later."""
    # at first a one is as likely as can be, or as unlikely, and runs of equal decisions make it more so
    first = np.full(16 * 759, 65520)
    fields = dict(zip(("architecture", "channels", "J", "latent_dim", "latent_bits"), ("LinearCodec2D", 1, 0, 1, 2)))
    suite.seeded("edge-ends", fields, 410, tables=serialised(2, [[]], [[]], [[0, 9000]], states=first))
    tables = serialised(2, [[]], [[]], [[0, 9000]], states=np.full(16 * 759, 16))
    suite.seeded("edge-ends-low", fields, 411, tables=tables)
    low, high = entropy.P_MIN, (1 << entropy.P_BITS) - entropy.P_MIN
    moved = [(low, high + 1), (low, high - 1), (low - 1, high), (low + 1, high)]
    for number, (key, seed) in enumerate(
        (("edge-ends", 0), ("edge-ends", 7), ("edge-ends-low", 1128), ("edge-ends-low", 1014))
    ):
        rng = np.random.default_rng(seed)
        run = np.repeat(rng.integers(-1, 2, 300), rng.integers(1, 12, 300)).astype(np.int16)[:300].reshape(1, 1, -1)
        payloads = [held(run, suite.models[key].tables, *bounds) for bounds in ((low, high), *moved)]
        told = [payload != payloads[0] for payload in payloads[1:]]
        assert told == [other == number for other in range(4)], "another seed is needed"
        put_slice(suite, f"ends-{number}", key, run, "a probability leaves its end, where one more or less tells")


def far(suite: Suite) -> None:
    """A volume's mean far beyond L, so that every symbol is coded by its distance from L."""
    fields = {"architecture": "LinearCodec3D", "channels": 1, "J": 0, "latent_dim": 1, "latent_bits": 3}
    suite.seeded("volume-mean", fields, 412, tables=serialised(3, [[]], [[]], [[4096 * 16 * 20, 9000]]))
    every = np.tile(np.arange(-3, 4, dtype=np.int16), (1, 2, 1, 1))
    clauses, note = describe.ENTROPY | {"16.3", "16.5", "16.6"}, "every symbol below a mean that is clamped to 16 L"
    put_slice(suite, "volume-mean", "volume-mean", every, note, clauses, ["volume"])


def held(symbols: np.ndarray, tables: entropy.Tables, low: int, high: int) -> bytes:
    """The payload of a coder whose adaptive probabilities are held in low … high, of which one may not be that of 7.9."""
    usual, own = entropy.clamp, (entropy.P_MIN, (1 << entropy.P_BITS) - entropy.P_MIN)
    entropy.clamp = lambda value, *bounds: usual(value, *((low, high) if bounds == own else bounds))
    try:
        return entropy.encode(symbols, tables)
    finally:
        entropy.clamp = usual
