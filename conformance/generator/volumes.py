"""Vectors of volumes, of images in s16 and f32, of hundreds of channels and of metadata; valid ones and damaged ones."""

from __future__ import annotations

import json
import struct
from typing import Any

import describe
import invalid
import numpy as np
import signals
from chains import Chain, Suite
from invalid import Parts, Weights, varint

from walloc_ref.conform import compare
from walloc_ref.stages import container, entropy

BESIDE = json.dumps({"spacing": [2.5, 0.7, 0.7], "units": "mm", "name": "Körper"}, ensure_ascii=False).encode()
"""A METADATA section."""


def add_all(suite: Suite) -> None:
    """All of it."""
    volumes(suite)
    formats(suite)
    slices(suite)
    damaged(suite)


def volumes(suite: Suite) -> None:
    """Chains of volumes."""
    bodies, coding = signals.bodies, container.Coding
    Chain(suite, "volume", "volume-bodies", bodies(7, 10, 9), "bodies", "u8", stages=True, flags=["odd"])
    two = bodies(5, 7, 10, 2, np.int16)
    Chain(suite, "volume-j2", "volume-j2-signed", two, "bodies", "s16", stages=True, flags=["odd"])
    Chain(suite, "volume-j2", "volume-j2-u16", bodies(8, 8, 12, 2, np.uint16), "bodies", "u16", slice_size=2)
    floats = bodies(7, 8, 6, 1, np.float32)
    Chain(suite, "volume", "volume-floats", floats, "bodies", "f32", stages=True, flags=["odd"])
    grey = bodies(5, 7, 6) // 3 + 80  # far from the clamp: half of black and white is a tie
    Chain(suite, "volume-j2", "volume-j2-grey", grey, "bodies", "u8", stages=True, flags=["grey", "odd"])
    for size in ((1, 1, 1), (1, 2, 9), (8, 1, 1), (2, 3, 1), (17, 4, 5), (3, 20, 18)):
        name = f"volume-{'x'.join(map(str, size))}"
        Chain(suite, "volume", name, bodies(*size), "bodies", "u8", flags=["size"])
    slow = bodies(25, 6, 7)
    Chain(suite, "volume", "volume-slices", slow, "bodies", "u8", slice_size=5, flags=["slices"])
    Chain(suite, "volume", "volume-slices-of-one", bodies(8, 7, 5), "bodies", "u8", slice_size=1, flags=["slices"])
    Chain(suite, "volume-plain", "volume-plain", bodies(10, 10, 9), "bodies", "u8")
    Chain(suite, "volume", "volume-certified", bodies(6, 9, 8, 1, np.int16), "bodies", "s16", certify=True)
    Chain(suite, "volume", "volume-step", bodies(8, 9, 10), "bodies", "u8", coding=coding(step=1.75))
    beside = {"metadata": BESIDE}
    Chain(suite, "volume", "volume-metadata", bodies(5, 6, 4), "bodies", "u8", extras=beside, flags=["ancillary"])


def formats(suite: Suite) -> None:
    """Images in s16 and f32, and of 200 channels; audio with metadata."""
    photo = signals.photo
    signed = (photo("spices", 11, 18, 60, 60, np.uint16).astype(np.int32) - 32768).astype(np.int16)
    Chain(suite, "linear", "linear-s16", signed, "photo", "s16", stages=True, flags=["odd"])
    Chain(suite, "linear", "linear-s16-certified", signed[:9, :8], "photo", "s16", certify=True)
    floats = (photo("wren", 10, 15, 60, 60).astype(np.float32) - 77) / 9
    Chain(suite, "linear", "linear-f32", floats, "photo", "f32", stages=True, flags=["odd"])
    Chain(suite, "linear", "linear-f32-grey", floats[:, :, 1], "photo", "f32", flags=["grey"])
    Chain(suite, "linear", "linear-f32-constant", np.full((6, 7, 3), np.float32(0.1)), "constant", "f32", stages=True)
    extremes = np.where(signals.extremes(9, 10) > 0, 32767, -32768).astype(np.int16)
    Chain(suite, "linear", "linear-s16-extremes", extremes, "extremes", "s16", stages=True)
    spectrum = signals.spectrum(3, 5, 200)
    Chain(suite, "linear-200", "linear-200-spectrum", spectrum, "spectrum", "u16", stages=True)
    reflectances = signals.spectrum(3, 4, 200, np.float32)
    Chain(suite, "linear-200", "linear-200-floats", reflectances, "spectrum", "f32")
    Chain(suite, "linear-200", "linear-200-grey", spectrum[:, :, 0], "spectrum", "u16", flags=["grey"])
    beside = {"metadata": b"{}", "exif": b"Exif"}
    Chain(
        suite, "linear", "linear-beside", photo("wren", 7, 6, 40, 60), "photo", "u8", extras=beside, flags=["ancillary"]
    )
    beside = {"metadata": BESIDE}
    Chain(suite, "codec1d", "codec1d-beside", signals.tone(60), "tone", "s16", extras=beside, flags=["ancillary"])


def slices(suite: Suite) -> None:
    """Symbols of volumes through the entropy coder alone."""

    def coder(key: str, name: str, symbols: np.ndarray, signal: str) -> None:
        payload = entropy.encode(symbols, suite.models[key].tables)
        a = suite.file(f"vectors/{name}/symbols.npy", symbols)
        b = suite.file(f"vectors/{name}/slice.bin", payload)
        c = suite.file(f"vectors/{name}/slice.slice", compare.write_slice(symbols.shape, payload))
        clauses = describe.ENTROPY | {"16.3", "16.5", "16.6"}
        for op, source, output, how in (("encode", a, b, "bytes"), ("decode", c, a, "exact")):
            suite.add(op, "slice", name, key, source, output, how, "definition", signal, clauses, flags=["volume"])

    for key, shape in (
        ("volume", (6, 1, 1, 1)),
        ("volume", (6, 9, 1, 1)),
        ("volume", (6, 3, 1, 20)),
        ("volume", (6, 4, 7, 5)),
        ("volume-j2", (5, 5, 6, 9)),
        ("volume-plain", (3, 3, 6, 6)),
    ):
        suite.small(key)
        name = f"coder-{key}-{'x'.join(map(str, shape))}"
        bits = suite.models[key].config.latent_bits
        coder(key, name, signals.symbols(shape, bits, seed=len(name)), "symbols")
    still = np.repeat(signals.symbols((6, 1, 5, 6), 8, seed=3), 7, axis=1)
    coder("volume", "coder-volume-still", still, "symbols")
    coder("volume", "coder-volume-largest", np.full((6, 3, 4, 4), 127, np.int16), "constant")


def damaged(suite: Any) -> None:
    """Streams, slices, weights files and samples that are to be rejected."""
    parts = Parts(suite.files["vectors/volume-slices/stream.wlc"])
    floats = Parts(suite.files["vectors/linear-f32/stream.wlc"])
    add, bad = invalid._adder(suite, "decode", "symbols", "wlc", "stream"), "malformed"

    def field(name: str, value: bytes, clauses: str, note: str, fault: str = bad) -> None:
        data = parts.build(**{note.split()[0]: value})
        add(f"volume-{name}", data, fault, clauses, note, "volume", flags=["fixed-crc", "volume"])

    field("kind-image", b"\x00", "10.5 10.7", "kind 0 for a volume: the fields do not fit")
    field("format-s32", b"\x04", "3.1 10.5", "format s32 for a volume")
    field("depth-0", b"\x00", "10.6", "depth 0")
    field("depth-more", b"\x1b", "10.8", "depth 27, a position more than the slices hold")
    field("channels-2", b"\x02", "10.7", "channels 2 in a model of 1")
    field("slice-size-large", varint(14), "10.6 10.8", "slice_size 14 for 13 depth positions")
    field("hash", bytes(8), "10.9 16.8", "hash of zeros", "wrong-hash")
    big = {"depth": varint(1 << 10), "height": varint(1 << 10), "width": varint(1 << 9), "slice_size": varint(1 << 9)}
    data = parts.build(slices=[parts.slices[0]], **big)
    flags = ["fixed-crc", "volume"]
    add("volume-limit-payload", data, "limit", "12.5", "2^29 voxels in a slice of a few bytes", "volume", flags=flags)
    swapped = [parts.slices[1], parts.slices[0], *parts.slices[2:]]
    note = "two slices have changed places: they may decode, but to other symbols"
    add("volume-slices-swapped", parts.build(slices=swapped), "wrong-hash", "10.8 10.9", note, "volume", flags=flags)
    for name, which, value in (
        ("mean-nan", "mean", float("nan")),
        ("gain-negative", "gain", -1.0),
        ("gain-infinite", "gain", float("inf")),
    ):
        data = floats.build(**{which: struct.pack("<d", value)})
        add(
            f"floats-{name}", data, bad, "10.6", f"{which} {value} of an image of floats", "linear", flags=["fixed-crc"]
        )

    add = invalid._adder(suite, "decode", "slice", "slice", "symbols")
    payload, write = suite.files["vectors/coder-volume-6x4x7x5/slice.bin"], compare.write_slice
    for name, shape, data, note in (
        ("empty", (6, 4, 7, 5), b"", "no bytes"),
        ("half", (6, 4, 7, 5), payload[: len(payload) // 2], "the second half is missing"),
        ("long", (6, 4, 7, 5), payload + b"\0", "a byte follows"),
        ("less", (6, 3, 7, 5), payload, "a depth position less than was coded: bytes remain"),
        ("no-depth", (6, 0, 7, 5), entropy.Encoder().finish(), "no depth positions, and the payload of no symbols"),
    ):
        clauses = "7.13 12.2 16.5" if name != "no-depth" else "16.5"
        add(f"volume-payload-{name}", write(shape, data), bad, clauses, note, "volume", flags=["volume"])

    weights = Weights(suite.files["models/volume.safetensors"])
    name, note = "volume-tap-beyond", "a tap at source plane 2·D"
    planes = struct.unpack("<H", weights.tables[4:6])[0]
    first = 8 + 2 * planes  # of the first tap, its source plane
    tables = weights.tables[:first] + struct.pack("<H", 2 * planes) + weights.tables[first + 2 :]
    data = Parts(suite.files["vectors/volume-bodies/stream.wlc"]).build(model=weights.identity(tables=tables))
    file = suite.file(f"vectors/invalid-model/{name}.wlc", data)
    model = suite.file(f"models/invalid/{name}.safetensors", weights.build(tables=tables))
    entry = {"file": model, "id": None, "kind": "volume", "config": None, "source": "damaged on purpose"}
    suite.entries[f"invalid-{name}"] = entry
    suite.add("decode", "symbols", f"model-{name}", f"invalid-{name}", file, None, "reject", "damage", "model",
              ["12.1", "7.2", "7.3", "16.6"], fault="malformed", note=note)  # fmt: skip

    def samples(name: str, array: np.ndarray, clauses: str, note: str, form: str) -> None:
        file = suite.file(f"vectors/invalid-samples/volume-{name}.npy", array)
        suite.add("encode", "stream", f"invalid-volume-{name}", "volume", file, None, "reject", "damage", "noise",
                  ["12.1", *clauses.split()], fault="samples", note=note, parameters={"format": form})  # fmt: skip

    samples("two-axes", np.zeros((8, 8), np.uint8), "16.1 12.3", "a volume of two axes", "u8")
    samples("no-depth", np.zeros((0, 8, 8), np.uint8), "16.1 12.3", "a volume without depth", "u8")
    samples("channels", np.zeros((4, 4, 4, 2), np.uint8), "16.1 12.3", "2 channels for a model of 1", "u8")
    nan = np.zeros((4, 5, 6), np.float32)
    nan[2, 1, 0] = np.nan
    samples("nan", nan, "3.10 12.3", "a volume of floats with NaN", "f32")
