"""Fuzzing: valid files of tiny models, damaged in every way, given to everything that reads bytes.

    python tests/fuzz.py --cases 100000 --seed 1 --target all

Whatever the input, a reader ends in success, with the hashes verified, or in a `WallocError`; its memory is bounded by the
payload and by the declared output within the limit; and it takes linear time. Anything else is reported, with the command
that repeats it. A case is a function of target, seed and number alone.

Damage is done at two depths: to the bytes of the file, and to a part of it (a field, a slice, a chunk, an opcode, an entry
of an archive) whose checksums and lengths are then put right, so that the code behind them is reached.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import faulthandler
import gzip
import importlib.util
import io
import json
import math
import multiprocessing
import os
import pickletools
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import tracemalloc
import unittest.mock
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import models
import numpy as np
import pickles
import tifffile
from PIL import Image

from walloc_ref import cli, codec, plain
from walloc_ref import model as weights
from walloc_ref.conform import suite as suites
from walloc_ref.errors import UnreadableFile, WallocError
from walloc_ref.files import audio_files, checkpoint, geometry, image_files, media, tiles, whole_files
from walloc_ref.files.arrays import FORMATS, Wanted
from walloc_ref.plain import compiled
from walloc_ref.stages import container, entropy, signal

MAX_SAMPLES = 1 << 16
"""Limit that every reader gets: what it may allocate is a small multiple of this."""

MAX_CASE_BYTES = 1 << 16
"""Damaged files are cut to this length."""

MEMORY_BASE, MEMORY_PER_BYTE, MEMORY_PER_SAMPLE = 4 << 20, 64, 128
"""Bound of the memory of a case: so much, and so much for each byte of the payload and each sample of the limit."""

SLOW = 1.0
"""Seconds that no case may take, even in the second attempt. (All take milliseconds.)"""

RESIDENT = 1 << 30
"""Bytes that the process may grow by in any case."""

ADDRESSES = 6 << 30
"""Bytes of addresses that a process of the command gets, so that a case that is greedy harms no other program."""

TRACE_EVERY = 61
"""One case in so many is run with its memory traced, which takes several times as long."""

INTERESTING = (0, 1, 2, 3, 4, 7, 8, 16, 32, 63, 64, 100, 126, 127, 128, 129, 192, 254, 255)
INTERESTING_NUMBERS = (
    0,
    1,
    2,
    3,
    10,
    11,
    127,
    128,
    255,
    256,
    65535,
    65536,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    1 << 40,
    (1 << 63) - 1,
)


# ---- damage --------------------------------------------------------------------------------------------------------


def flip(data: bytearray, rng: random.Random) -> bytearray:
    """A few bits."""
    for _ in range(1 << rng.randrange(4)):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def set_byte(data: bytearray, rng: random.Random) -> bytearray:
    """One byte to a value at the edge of something."""
    if data:
        data[rng.randrange(len(data))] = rng.choice(INTERESTING)
    return data


def truncate(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data) + 1)]


def extend(data: bytearray, rng: random.Random) -> bytearray:
    return data + rng.randbytes(1 << rng.randrange(8))


def remove(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data) + 1)
    del data[at : at + (1 << rng.randrange(7))]
    return data


def insert(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(1 << rng.randrange(5))
    return data


def repeat(data: bytearray, rng: random.Random) -> bytearray:
    """A piece of it twice, somewhere."""
    if data:
        start = rng.randrange(len(data))
        at = rng.randrange(len(data) + 1)
        data[at:at] = data[start : start + (1 << rng.randrange(8))]
    return data


def overwrite(data: bytearray, rng: random.Random) -> bytearray:
    """A number at the edge of something, in the width and order of some field."""
    number = rng.choice(INTERESTING_NUMBERS)
    width = rng.choice((2, 4, 8))
    piece = (number & ((1 << 8 * width) - 1)).to_bytes(width, rng.choice(("little", "big")))
    if rng.random() < 0.3:
        piece = container._varint(number)
    at = rng.randrange(len(data) + 1)
    data[at : at + len(piece)] = piece
    return data


MUTATORS = (flip, flip, flip, set_byte, set_byte, truncate, extend, remove, insert, repeat, overwrite)


def damaged(data: bytes, rng: random.Random, others: list[bytes] | None = None) -> bytes:
    """The bytes with one to four kinds of damage, or spliced with others."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        out = rng.choice(MUTATORS)(out, rng)
    if others and rng.random() < 0.1:
        other = rng.choice(others)
        out = out[: rng.randrange(len(out) + 1)] + other[rng.randrange(len(other) + 1) :]
    return bytes(out[:MAX_CASE_BYTES])


# ---- targets -------------------------------------------------------------------------------------------------------


class Wrong(Exception):
    """A reader returned something that it must not."""


def demand(condition: bool, what: str) -> None:
    if not condition:
        raise Wrong(what)


class ContainerTarget:
    """`container.read`, `codec.info`, `codec.decode_stream`: streams of four tiny models, images, audio and volumes."""

    def __init__(self) -> None:
        image = models.photograph(21, 13)
        self.codecs = [models.tiny_codec("LinearCodec2D"), models.tiny_codec("ResidualCodec2D")]
        self.streams = []
        for number, codec_ in enumerate(self.codecs):
            for certify in (False, True):
                data = codec_.encode(image, certify=certify, icc_profile=b"profile" if certify else None)
                self.streams.append((number, container.read(data)))
        rows = self.codecs[0].encode(image[:, :, :1].repeat(3, axis=2), certify=True)
        stream = container.read(rows)
        symbols = codec.decode_symbols(rows, codec=self.codecs[0])
        parts = [
            plain.chosen().encode_slice(symbols[:, i : i + 1], self.codecs[0].model.tables)
            for i in range(symbols.shape[1])
        ]
        self.streams.append((0, replace(stream, header=replace(stream.header, slice_size=1), slices=tuple(parts))))
        self.codecs.append(models.tiny_codec("Codec1D", latent_dim=2, Nd=2, J=1))
        audio = np.random.default_rng(0).normal(0, 0.2, (50, 2)).clip(-1, 1)
        for samples in (
            (audio * 32767).astype(np.int16),
            audio.astype(np.float32),
            (audio[:, :1] * 127 + 128).astype(np.uint8),
        ):
            self.streams.append(
                (2, container.read(self.codecs[2].encode(samples, certify=samples.dtype != np.float32)))
            )
        volumes = models.tiny_model("LinearCodec3D")
        volumes = replace(volumes, tables=models.depth_tables(volumes.config.planes, volumes.config.latent_bits))
        self.codecs.append(codec.Codec(volumes))
        for number, samples in (
            (0, models.volume(3, 14, 15, dtype=np.int16)),
            (0, models.volume(3, 9, 15, dtype=np.float32)),
            (3, models.volume(7, 9, 11)),
            (3, models.volume(9, 3, 4, dtype=np.float32)),
        ):
            samples = np.moveaxis(samples, 0, -1) if number == 0 else samples
            data = self.codecs[number].encode(
                samples, certify=samples.dtype != np.float32, metadata={"spacing": [2, 1]}
            )
            self.streams.append((number, container.read(data)))
        self.seeds = [container.write(stream) for _, stream in self.streams]

    def make(self, rng: random.Random) -> Any:
        number, stream = rng.choice(self.streams)
        depth = rng.random()
        if depth < 0.35:
            data = damaged(container.write(stream), rng, self.seeds)
        elif depth < 0.55:
            data = self.with_field(stream, rng)
        elif depth < 0.75:
            parts = list(stream.slices)
            which = rng.randrange(len(parts))
            parts[which] = damaged(parts[which], rng, parts)
            data = container.write(replace(stream, slices=tuple(parts)))
        else:
            data = self.with_sections(stream, rng)
        return number, data, rng.random() < 0.3

    def with_field(self, stream: container.Stream, rng: random.Random) -> bytes:
        """One field of HEAD changed, everything else in order."""
        header = stream.header
        names = ["channels", "sizes", "J", "latent_dim", "latent_bits", "slice_size", "model_id", "symbol_hash"]
        if container.has_gain(header.kind, header.sample_format):
            names += ["rate", "mean", "gain", "sample_format"] * 2
        name = rng.choice(names)
        number = rng.choice(INTERESTING_NUMBERS + INTERESTING)
        new: Any = number
        if name == "sizes":
            new = tuple(number if rng.random() < 0.5 else size + rng.randrange(-2, 3) for size in header.sizes)
            new = tuple(max(0, size) for size in new)
        elif name in ("J", "latent_bits"):
            new = number % 256
        elif name in ("mean", "gain"):
            new = rng.choice((0.0, -0.0, 1.0, -1.0, 1e-308, 5e-324, 1e10, 1e300, 1.7e308, -1e300, np.inf, np.nan))
        elif name == "sample_format":
            new = rng.choice(container.SAMPLE_FORMATS)
        elif name in ("model_id", "symbol_hash"):
            new = (damaged(getattr(header, name), rng) + bytes(16))[: len(getattr(header, name))]
        return container.write(replace(stream, header=replace(header, **{name: new})))

    def with_sections(self, stream: container.Stream, rng: random.Random) -> bytes:
        """Payloads of sections damaged, their order and tags changed, their CRCs put right."""
        sections = [(container.HEAD, container._write_header(stream.header))]
        if stream.certificate is not None:
            sections.append((container.CERTIFICATE, container._write_certificate(stream.certificate)))
        if stream.icc_profile is not None:
            sections.append((container.ICC_PROFILE, stream.icc_profile))
        if stream.metadata is not None:
            sections.append((container.METADATA, stream.metadata))
        table = container._varint(len(stream.slices))
        table += b"".join(container._varint(len(p)) + container._crc(p) for p in stream.slices)
        which = rng.randrange(len(sections) + 1)
        if which == len(sections):
            table = damaged(table, rng)
        else:
            tag, payload = sections[which]
            if rng.random() < 0.3:
                tag = rng.choice((0, 1, 2, 3, 0x7F, 0x80, 0x81, 0x82, 0x83, 0x84, 0xFF))
            sections[which] = (tag, damaged(payload, rng) if rng.random() < 0.8 else payload)
        if rng.random() < 0.1:
            sections.insert(rng.randrange(len(sections) + 1), rng.choice(sections))
        out = container.MAGIC + bytes([container.VERSION]) + b"".join(container._section(*part) for part in sections)
        length = len(table) + 4 + sum(map(len, stream.slices))
        if rng.random() < 0.1:
            length = rng.choice(INTERESTING_NUMBERS)
        start = bytes([container.SLICES]) + container._varint(length) + table
        return out + start + container._crc(start) + b"".join(stream.slices)

    def run(self, case: Any) -> int:
        number, data, keep_going = case
        codec_ = self.codecs[number]
        with contextlib.suppress(WallocError):
            codec.info(data)
        result = codec.decode_stream(data, codec=codec_, max_samples=MAX_SAMPLES, keep_going=keep_going)
        demand(result.samples.size == result.header.samples, "samples of another size than declared")
        if not result.damaged:
            symbols = codec.decode_symbols(data, codec=codec_, max_samples=MAX_SAMPLES)
            demand(container.symbol_hash(symbols) == result.header.symbol_hash, "a wrong symbol hash")
        return len(data)


def wild_tables(seed: int, planes: int, bits: int, size: int = 1000, *, depth: bool = False) -> entropy.Tables:
    """Tables that use everything: taps in all directions, hidden units, weights up to `size`, any states."""
    rng = np.random.default_rng(seed)
    taps, units, biases, outputs = [], [], [], []
    for c in range(planes):
        n, hidden = int(rng.integers(0, 14)), int(rng.integers(0, 5))
        for _ in range(n):
            source, dy, dx = int(rng.integers(c + 1)), int(rng.integers(-3, 4)), int(rng.integers(-3, 4))
            if source == c and (dy, dx) >= (0, 0):
                dy, dx = -abs(dy), -abs(dx) - (dy == 0 and dx == 0)
            if depth and rng.random() < 0.4:
                source = planes + int(rng.integers(planes))
            taps.append((c, int(rng.integers(2)), source, dy, dx))
        units.append(rng.integers(-size, size + 1, (n, 2 + hidden)))
        biases.append(rng.integers(-30 * size, 30 * size + 1, 2 + hidden))
        outputs.append(rng.integers(-size, size + 1, (hidden, 2)))
    states = rng.integers(16, 1 << 16, sum(entropy.context_counts(planes)) * entropy.NODES)
    mixers = rng.integers(-(1 << 15), 1 << 15, (entropy.MIXERS, entropy.NODES, entropy.CONTEXTS))
    return entropy.Tables(planes, bits, np.array(taps).reshape(-1, 5), units, biases, outputs, states, mixers)


class CoderTarget:
    """The entropy decoder, with damaged payloads, shapes and tables."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.cases = []
        flat = ((1, 2, 1, 1), (3, 8, 5, 7), (4, 6, 9, 4), (2, 3, 1, 40), (6, 8, 8, 8))
        for planes, bits, *sizes in (*flat, (2, 8, 3, 4, 5), (3, 5, 6, 1, 2), (1, 8, 1, 5, 6)):
            last = (1 << (bits - 1)) - 1
            for kind in range(5):
                tables = entropy.default_tables(planes, bits)
                if kind >= 3:
                    tables = wild_tables(kind, planes, bits, depth=len(sizes) == 3)
                if kind in (0, 3):
                    symbols = np.rint(rng.laplace(0, last / 12 + 0.3, (planes, *sizes))).clip(-last, last)
                elif kind in (1, 4):
                    symbols = rng.choice((-last, last), (planes, *sizes))
                else:
                    symbols = np.zeros((planes, *sizes))
                symbols = symbols.astype(np.int16)
                self.cases.append((tables, symbols.shape, self.encode(symbols, tables)))
        self.payloads = [payload for *_, payload in self.cases]
        self.tables = [tables.to_bytes() for tables, *_ in self.cases]

    @staticmethod
    def encode(symbols: Any, tables: Any) -> bytes:
        if compiled():
            from walloc_ref.fast import entropy as kernel

            return kernel.encode(symbols, tables)
        return entropy.encode(symbols, tables)

    @staticmethod
    def decode(data: bytes, shape: Any, tables: Any) -> Any:
        if compiled():
            from walloc_ref.fast import entropy as kernel

            return kernel.decode(data, shape, tables)
        return entropy.decode(data, shape, tables)

    def make(self, rng: random.Random) -> Any:
        tables, shape, payload = rng.choice(self.cases)
        depth, table_bytes = rng.random(), None
        if depth < 0.6:
            payload = damaged(payload, rng, self.payloads)
        elif depth < 0.7:
            payload = rng.randbytes(rng.randrange(64))
        elif depth < 0.8:
            shape = (shape[0], *(rng.choice((n, n + 1, n - 1, *INTERESTING_NUMBERS)) for n in shape[1:]))
        elif depth < 0.95:
            table_bytes = damaged(tables.to_bytes(), rng)
        else:
            size = rng.choice((100, 3000, 20000, 32767))
            seed, bits = rng.randrange(1 << 30), tables.latent_bits
            table_bytes = wild_tables(seed, shape[0], bits, size, depth=len(shape) == 4).to_bytes()
            return payload, shape, tables, table_bytes, rng.randrange(1 << 30)
        return payload, shape, tables, table_bytes, (rng.randrange(1 << 30) if rng.random() < 0.05 else None)

    def run(self, case: Any) -> int:
        payload, shape, tables, table_bytes, fresh = case
        if table_bytes is not None:
            tables = entropy.Tables.from_bytes(table_bytes)
        last = (1 << (tables.latent_bits - 1)) - 1
        if fresh is not None and tables.latent_dim == shape[0] and 0 < math.prod(shape[1:]) < 4096:
            symbols = np.random.default_rng(fresh).integers(-last, last + 1, shape).astype(np.int16)
            coded = self.encode(symbols, tables)
            demand(np.array_equal(self.decode(coded, shape, tables), symbols), "other symbols than were encoded")
            if fresh % 64 == 0 and symbols.size < 200:
                demand(entropy.encode(symbols, tables) == coded, "other bytes than those of the definition")
        if math.prod(shape) > MAX_SAMPLES:
            entropy.check_payload(payload, shape, tables)  # the rest the container's limit would refuse
            return len(payload)
        if compiled() and math.prod(shape) < 150 and zlib.crc32(payload) % 128 == 0:
            self.compare(payload, shape, tables)
        symbols = self.decode(payload, shape, tables)
        demand(symbols.shape == tuple(shape) and symbols.dtype == np.int16, "another shape or type than declared")
        demand(-last <= int(symbols.min()) and int(symbols.max()) <= last, "symbols out of range")
        return len(payload)

    def compare(self, payload: bytes, shape: Any, tables: Any) -> None:
        """Definition and kernel agree on damaged payloads, too: the same symbols, or both refuse."""
        outcomes: list[Any] = []
        for decode in (entropy.decode, self.decode):
            try:
                outcomes.append(decode(payload, shape, tables).tobytes())
            except WallocError as error:
                outcomes.append(type(error))
        demand(outcomes[0] == outcomes[1], f"definition {outcomes[0]!r:.60}, kernel {outcomes[1]!r:.60}")


class TilesTarget:
    """`tiles.read`: PNG, WebP, TIFF and .npy."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.files = []
        for planes, bits, h, w in ((12, 8, 4, 3), (5, 3, 3, 6)):
            last = (1 << (bits - 1)) - 1
            symbols = rng.integers(-last, last + 1, (planes, h, w)).astype(np.int16)
            for suffix in (".png", ".webp", ".tif", ".npy"):
                self.files.append((planes, bits, suffix, tiles.write(symbols, bits, "x" + suffix)))
        self.seeds = [file[3] for file in self.files]

    def make(self, rng: random.Random) -> Any:
        planes, bits, suffix, data = rng.choice(self.files)
        if suffix == ".png" and rng.random() < 0.6:
            data = self.png(data, rng)
        elif suffix == ".npy" and rng.random() < 0.4:
            shape = [
                rng.choice((planes, 4, 3, *INTERESTING_NUMBERS, -1, -(1 << 40))) for _ in range(rng.randrange(1, 6))
            ]
            kind = rng.choice(("<i2", "|O", "<f8", "|V0", "<U9999999", "<i8", ">i2", "|b1", "<c16", "<M8[s]", "|S0"))
            header = repr({"descr": kind, "fortran_order": rng.random() < 0.2, "shape": tuple(shape)})
            if rng.random() < 0.2:
                header = damaged(header.encode(), rng).decode("latin-1")
            if rng.random() < 0.05:
                header = rng.choice("([{-'\"") * rng.choice((100, 3000, 5000, 60000))
            text = (header + "\n").encode("latin-1")[:65535]
            data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data[128:]
        elif suffix == ".webp" and rng.random() < 0.3:
            body = damaged(data[12:], rng)
            data = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
        else:
            data = damaged(data, rng, self.seeds)
        return data, planes, bits

    @staticmethod
    def png(data: bytes, rng: random.Random) -> bytes:
        """A chunk damaged, its length and CRC put right; pixels may be damaged before they are deflated."""
        chunks, at = [], 8
        while at < len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
            at += 12 + size
        which = rng.randrange(len(chunks))
        tag, body = chunks[which]
        if tag == b"IDAT" and rng.random() < 0.7:
            body = zlib.compress(damaged(zlib.decompress(body), rng), 1)
        elif tag == b"IHDR" and rng.random() < 0.5:
            size = [rng.choice((*INTERESTING_NUMBERS, 8, 12)) & 0xFFFFFFFF for _ in range(2)]
            body = struct.pack(">II", *size) + body[8:]
        else:
            body = damaged(body, rng)
        chunks[which] = (tag, body)
        if rng.random() < 0.1:
            bomb = zlib.compress(bytes(1 << 20), 9)
            extra = rng.choice(
                ((b"iCCP", b"x\0\0" + bomb), (b"zTXt", b"x\0\0" + bomb), (b"iTXt", b"x\0\1\0\0\0" + bomb))
            )
            chunks.insert(1, extra)
        out = data[:8]
        for tag, body in chunks:
            out += struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))
        return out

    def run(self, case: Any) -> int:
        data, planes, bits = case
        symbols = tiles.read(data, planes, bits, max_positions=MAX_SAMPLES // 16)
        last = (1 << (bits - 1)) - 1
        demand(symbols.shape[0] == planes and symbols.ndim == 3 and symbols.dtype == np.int16, "another shape or type")
        demand(-last <= int(symbols.min()) and int(symbols.max()) <= last, "symbols out of range")
        return len(data)


class WeightsTarget:
    """`model.load`: weights files; one in a while that is accepted also decodes."""

    def __init__(self) -> None:
        small = {"Codec1D": {"latent_dim": 2, "Nd": 2, "J": 1, "channels": 1, "post_filter": False}}
        self.files = [
            weights.save(models.tiny_model(name, **small.get(name, {}))) for name in models.TINY if name != "Codec2D"
        ]
        self.files.append(weights.save(models.tiny_model(channels=1, J=0, latent_dim=1, latent_bits=3)))
        folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.folder = tempfile.TemporaryDirectory(prefix="walloc-fuzz-", dir=folder)
        self.path = Path(self.folder.name) / "model.safetensors"

    def make(self, rng: random.Random) -> Any:
        data = rng.choice(self.files)
        if rng.random() < 0.25:
            return damaged(data, rng, self.files), rng.random() < 0.1
        size = int.from_bytes(data[:8], "little")
        header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
        metadata = header["__metadata__"]
        if rng.random() < 0.8:
            metadata.pop("walloc_ref.id")
        if rng.random() < 0.2:
            metadata.pop("walloc_ref.entropy")
        depth = rng.random()
        if depth < 0.02:
            metadata["walloc_ref.config"] = rng.choice(("[" * 5000, '{"J":' + "9" * 5000 + "}", "{}", "", "NaN"))
        elif depth < 0.3:
            fields = json.loads(metadata["walloc_ref.config"])
            odd = (
                *INTERESTING_NUMBERS,
                -1,
                None,
                True,
                "x",
                1.5,
                [],
                {},
                1e400,
                "Codec2D",
                "Codec1D",
                "ResidualCodec2D",
            )
            for _ in range(rng.choice((1, 1, 3))):
                fields[rng.choice((*sorted(fields), "num_stages"))] = rng.choice(odd)
            metadata["walloc_ref.config"] = json.dumps(fields)
        elif depth < 0.4:
            key = rng.choice(sorted(metadata))
            metadata[key] = damaged(metadata[key].encode(), rng).decode("latin-1")
        elif depth < 0.6 and "walloc_ref.entropy" in metadata:
            changed = damaged(base64.b64decode(metadata["walloc_ref.entropy"]), rng)
            metadata["walloc_ref.entropy"] = base64.b64encode(changed).decode()
        elif depth < 0.75:
            name = rng.choice(sorted(header))
            entry = header[name]
            if name != "__metadata__":
                key = rng.choice(("dtype", "shape", "data_offsets", "name"))
                if key == "dtype":
                    entry["dtype"] = rng.choice(("F64", "F16", "BF16", "I8", "BOOL", "F8_E4M3", "X", 3))
                elif key == "name":
                    header[rng.choice(("x", name + "\0", name * 9, ""))] = header.pop(name)
                else:
                    entry[key] = [rng.choice((*INTERESTING_NUMBERS, -1, 1, 2)) for _ in range(rng.randrange(5))]
        else:
            numbers = np.frombuffer(body, "<f4").copy()
            for _ in range(rng.choice((1, 1, 5))):
                odd = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 0.0, -0.0, 1e20, 200.0, -200.0)
                numbers[rng.randrange(len(numbers))] = rng.choice(odd)
            body = numbers.tobytes()
        text = json.dumps(header).encode()
        if rng.random() < 0.1:
            text = damaged(text, rng)
        return struct.pack("<Q", len(text)) + text + body, rng.random() < 0.5

    def run(self, case: Any) -> int:
        data, decodes = case
        self.path.write_bytes(data)
        model = weights.load(self.path)
        if decodes and model.config.kind == "image" and model.config.bands <= 64:
            codec_ = codec.Codec(model)
            symbols = np.zeros((model.config.planes, 3, 2), dtype=np.int16)
            symbols[0, 1] = 1, -1
            stream = codec_.encode_symbols(symbols)
            demand(
                np.array_equal(codec.decode_symbols(stream, codec=codec_), symbols), "other symbols than were encoded"
            )
            samples = codec.decode(stream, codec=codec_)
            codec_.encode(samples)
        return len(data)


class CheckpointTarget:
    """`checkpoint.read` and `to_model`."""

    OPCODES = bytes(ord(opcode.code) for opcode in pickletools.opcodes)

    def __init__(self) -> None:
        self.files = []
        for architecture, kind in (("LinearCodec2D", "f4"), ("ResidualCodec2D", "f8"), ("LinearCodec2D", "bf16")):
            model = models.tiny_model(architecture, channels=1, J=1, latent_dim=2)
            root, storages = pickles.parts(model, kind=kind)
            self.files.append((pickles.program(root), storages))
        try:
            import torch
        except ImportError:
            return
        for architecture in ("LinearCodec2D", "Codec1D"):
            model = models.tiny_model(architecture)
            out = io.BytesIO()
            state = {name: torch.tensor(tensor) for name, tensor in model.tensors.items()}
            torch.save({"model_state_dict": state, "config": vars(model.config)}, out)
            archive = checkpoint._Archive(out.getvalue())
            keys = [name.rpartition("/")[2] for name in archive.entries if "/data/" in name]
            self.files.append((archive.pickle(), {key: bytes(archive.read(f"data/{key}")) for key in keys}))

    def make(self, rng: random.Random) -> Any:
        program, storages = rng.choice(self.files)
        storages, depth = dict(storages), rng.random()
        if depth < 0.2:
            return damaged(pickles.archive(program, storages), rng)
        if depth < 0.6:
            program = damaged(program, rng)
        elif depth < 0.85:
            out = bytearray(program)
            for _ in range(rng.choice((1, 1, 2, 8))):
                at = rng.randrange(len(out) + 1)
                code = bytes([rng.choice(self.OPCODES)]) * rng.choice((1, 1, 1, 3, 2000))
                out[at : at + rng.choice((0, 1))] = code
            program = bytes(out)
        else:
            key = rng.choice(sorted(storages))
            storages[key] = damaged(storages[key], rng)
        return pickles.archive(program[:MAX_CASE_BYTES], storages)

    def run(self, data: bytes) -> int:
        checkpoint.to_model(checkpoint.read(data), "x")
        return len(data)


class AudioTarget:
    """`audio_files.read_audio`: what surrounds libsndfile. (In C, the library's own allocations are not seen here.)"""

    KINDS = (("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAVEX", "PCM_U8"), ("WAV", "ULAW"),
             ("RF64", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("AIFF", "PCM_16"), ("OGG", "VORBIS"),
             ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"))  # fmt: skip

    def __init__(self) -> None:
        import soundfile

        self.files = []
        samples = np.random.default_rng(0).normal(0, 0.2, (2000, 2)).cumsum(axis=0) % 1 - 0.5
        for kind, subtype in self.KINDS:
            if soundfile.check_format(kind, subtype):
                for channels in (1, 2):
                    out = io.BytesIO()
                    soundfile.write(out, samples[:, :channels], 48000, format=kind, subtype=subtype)
                    self.files.append(out.getvalue())

    def make(self, rng: random.Random) -> Any:
        data = rng.choice(self.files)
        if rng.random() < 0.5:  # the header decides most
            size = rng.choice((48, 96, 512))
            return (damaged(data[:size], rng) + data[size:])[:MAX_CASE_BYTES]
        return damaged(data, rng)[:MAX_CASE_BYTES]

    def run(self, data: bytes) -> int:
        clip = audio_files.read_audio(io.BytesIO(data), "x", max_samples=MAX_SAMPLES)
        demand(0 < clip.samples.size <= MAX_SAMPLES, f"{clip.samples.shape} samples")
        demand(clip.samples.dtype == signal.AUDIO_FORMATS[clip.sample_format].dtype, f"{clip.samples.dtype}")
        return len(data)


class ImagesTarget:
    """`image_files.read_image`: what surrounds Pillow, tifffile and pypng."""

    def __init__(self) -> None:
        colour, deep = models.photograph(9, 11), models.photograph(9, 11, dtype=np.uint16)
        upright = Image.Exif()
        upright[image_files.ORIENTATION_TAG] = 6
        palette = Image.fromarray(colour).quantize(16)
        palette.info["transparency"] = 3
        images = [
            (Image.fromarray(colour), ".png", {}),
            (Image.fromarray(colour[:, :, 0]), ".png", {"exif": upright}),
            (Image.fromarray(colour).convert("RGBA"), ".png", {"icc_profile": b"profile"}),
            (palette, ".png", {}),
            (Image.fromarray(colour), ".jpg", {"exif": upright}),
            (Image.fromarray(colour).convert("CMYK"), ".jpg", {}),
            (Image.fromarray(colour), ".webp", {"lossless": True}),
            (Image.fromarray(colour), ".webp", {"quality": 50, "exif": upright}),
            (Image.fromarray(colour), ".tiff", {"compression": "tiff_lzw"}),
            (Image.fromarray(colour), ".bmp", {}),
            (Image.fromarray(colour), ".gif", {}),
        ]
        self.files = []
        for image, suffix, options in images:
            out = io.BytesIO()
            image.save(out, format=Image.registered_extensions()[suffix], **options)
            self.files.append(out.getvalue())
        for samples in (deep, deep[:, :, 0]):
            for name in ("x.png", "x.tiff"):
                self.files.append(image_files.write_image(image_files.ImageSamples(samples), name))

    def make(self, rng: random.Random) -> Any:
        data = rng.choice(self.files)
        if data.startswith(image_files.PNG_MAGIC) and rng.random() < 0.5:
            return TilesTarget.png(data, rng)
        return damaged(data, rng, self.files)

    def run(self, data: bytes) -> int:
        image = image_files.read_image(data, "x", background="white", max_samples=MAX_SAMPLES)
        demand(0 < image.samples.size <= 3 * MAX_SAMPLES, f"{image.samples.shape} samples")
        demand(image.samples.ndim == 2 or image.samples.shape[2] == 3, f"{image.samples.shape}")
        demand(image.samples.dtype in (np.uint8, np.uint16), f"{image.samples.dtype}")
        return len(data)


class MediaTarget:
    """`media.read`: arrays, ENVI, MATLAB, NIfTI, DICOM, stacks of TIFF, whose checks are made right again."""

    def __init__(self) -> None:
        self.place = tempfile.TemporaryDirectory(prefix="walloc-fuzz-media-")
        known = geometry.Geometry(
            spacing=(3.0, 0.5, 0.25), wavelengths=(4.0, 5.0), header={"envi": {"map info": "UTM, 1"}}
        )
        suffixes = [".npy", ".npz", ".mat", ".tif", ".hdr"]
        suffixes += [".nii", ".nii.gz"] if importlib.util.find_spec("nibabel") else []
        self.files: list[tuple[str, bytes]] = []
        for suffix in suffixes:
            for dtype in (np.uint8, np.int16, np.float32):
                kind, samples = "volume", models.volume(3, 5, 7, dtype=dtype)
                if suffix == ".hdr":
                    kind, samples = "image", models.volume(5, 7, 2, dtype=dtype)
                found = media.Media(
                    kind=kind, samples=samples, sample_format=FORMATS[samples.dtype.name], geometry=known
                )
                name = str(Path(self.place.name, f"x{suffix}"))
                media.write(name, name, found)
                self.files.append((suffix, Path(name).read_bytes()))
        out = io.BytesIO()
        tifffile.imwrite(out, models.volume(3, 5, 7), photometric="minisblack", compression="zlib")
        self.files.append((".tif", out.getvalue()))
        if importlib.util.find_spec("pydicom"):
            self.files.append((".dcm", self.dicom()))

    @staticmethod
    def dicom() -> bytes:
        """A slice."""
        from pydicom.dataset import FileDataset, FileMetaDataset

        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = "1.2.3"
        meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        one = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        one.SOPClassUID = one.SOPInstanceUID = one.SeriesInstanceUID = "1.2.3"
        one.Rows, one.Columns, one.BitsAllocated, one.BitsStored, one.HighBit = 5, 8, 8, 8, 7
        one.PixelRepresentation, one.SamplesPerPixel, one.PhotometricInterpretation = 0, 1, "MONOCHROME2"
        one.PixelSpacing, one.SliceThickness = [1, 1], 2
        one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
        one.PixelData = bytes(40)
        one["PixelData"].VR = "OB"
        out = io.BytesIO()
        one.save_as(out, enforce_file_format=True)
        return out.getvalue()

    def make(self, rng: random.Random) -> Any:
        suffix, data = rng.choice(self.files)
        others = [other for _, other in self.files]
        if suffix == ".nii.gz" and rng.random() < 0.8:
            return suffix, gzip.compress(damaged(gzip.decompress(data), rng, others))
        if suffix == ".npz" and rng.random() < 0.8:
            out = io.BytesIO()
            with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
                for name in archive.namelist():
                    made.writestr(
                        name, damaged(archive.read(name), rng, others) if rng.random() < 0.7 else archive.read(name)
                    )
            return suffix, out.getvalue()
        if suffix == ".mat" and rng.random() < 0.8:
            element = zlib.decompress(data[136 : 136 + int.from_bytes(data[132:136], "little")])
            body = zlib.compress(damaged(element, rng, others))
            return suffix, data[:132] + len(body).to_bytes(4, "little") + body
        return suffix, damaged(data, rng, others)

    def run(self, case: Any) -> int:
        suffix, data = case
        name = Path(self.place.name, f"x{suffix}")
        name.write_bytes(data)
        wanted = Wanted(kind="volume", axes="DHW" if suffix == ".mat" else None, max_samples=MAX_SAMPLES)
        found = media.read(str(name), wanted, background="white")
        demand(0 < found.samples.size <= 3 * MAX_SAMPLES, f"{found.samples.shape} samples")
        demand(found.kind == "audio" or found.samples.dtype.name in FORMATS, f"{found.samples.dtype}")
        demand(geometry.from_json(found.geometry.to_json()) == found.geometry, "a geometry that is not its own")
        return len(data)


class CliTarget:
    """`cli.main`, all commands: files of the other targets, options at the edge of something, suites and reports.

    It ends with an exit code of its own, prints one line on the standard error where that is 3, nothing that commands a
    terminal, and no library prints past it.
    """

    slow, memory, warm = 10.0, 1 << 30, 16

    def __init__(self) -> None:
        self.container, self.tiles, self.weights = ContainerTarget(), TilesTarget(), WeightsTarget()
        self.checkpoint, self.audio, self.images = CheckpointTarget(), AudioTarget(), ImagesTarget()
        self.media = MediaTarget()
        self.place = tempfile.TemporaryDirectory(prefix="walloc-fuzz-cli-")
        self.folder = Path(self.place.name)
        self.models = [f"tiny{number}" for number in range(len(self.container.codecs))]
        for name, codec_ in zip(self.models, self.container.codecs):
            (self.folder / f"{name}.safetensors").write_bytes(weights.save(codec_.model))
        self.kept = set(self.folder.iterdir())
        self.suite = suites.load(None)
        self.manifest = (self.suite.folder / "manifest.json").read_bytes()
        small = [case for case in self.suite.cases if len(self.suite.read(case.input)) < 3000]
        self.ids = sorted(case.id for case in small if "kl" not in case.id)
        self.commands = [
            *[self.decode, self.encode] * 5,
            *[self.info, self.symbols, self.validate, self.export, self.checkpoint_, self.model] * 3,
            self.evaluation, self.conform, self.conform_suite, self.usage, self.rare,
        ]  # fmt: skip

    def make(self, rng: random.Random) -> Any:
        """Arguments, and the files that they name; names of files begin with @."""
        arguments, files = rng.choice(self.commands)(rng)
        if rng.random() < 0.03:
            odd = (
                "",
                "-",
                "--",
                "\x1b[2J",
                "\udcff",
                "ü" * 300,
                "nan",
                "-5",
                "9" * 5000,
                "/dev/full",
                "@.",
                "@in.wlc/x",
            )
            arguments = [*arguments]
            arguments[rng.randrange(len(arguments))] = rng.choice(odd)
        return arguments, files

    def stream(self, rng: random.Random) -> bytes:
        """A stream, damaged or with foreign metadata."""
        if rng.random() < 0.6:
            return self.container.make(rng)[1]
        _, stream = rng.choice(self.container.streams)
        header = stream.header
        if header.kind == "image":
            exif = Image.Exif()
            exif[0x010E] = "x" * rng.choice((1, 100, 70000))
            block = exif.tobytes()
            icc_profile = rng.choice((None, b"", b"profile", rng.randbytes(200), bytes(100000)))
            stream = replace(
                stream,
                exif=rng.choice((None, b"", block, damaged(block[:MAX_CASE_BYTES], rng), rng.randbytes(50))),
                icc_profile=icc_profile,
            )
        else:
            rate = rng.choice((1, 44100, 655350, 655351, (1 << 31) - 1, 1 << 31, (1 << 32) - 1))
            stream = replace(stream, header=replace(header, rate=rate))
        known = {
            "spacing": [3, 2, 1],
            "affine": [[1, 0, 0, 5]] * 4,
            "rescale": [2, 1],
            "units": "mm",
            "bands": ["\x1b[2J"],
        }
        known |= {
            "channel_mask": 3,
            "wavelengths": [1, 2, 3],
            "header": {"nifti": {"qform_code": 1}, "envi": {"x": "}"}},
        }
        for key in rng.sample(sorted(known), 2):
            known[key] = rng.choice((None, -1, 1e300, 10**400, "x", [], [[]], {}, {"nifti": {"pixdim": 1e300}}, True))
        if rng.random() < 0.5:
            text = json.dumps(known).encode()
            stream = replace(stream, metadata=damaged(text, rng) if rng.random() < 0.3 else text)
        return container.write(stream)

    LIMIT = ("--max-samples", str(MAX_SAMPLES))
    OUTPUTS = (
        "@o.png",
        "@o.jpg",
        "@o.webp",
        "@o.tif",
        "@o.bmp",
        "@o.wav",
        "@o.flac",
        "@o.npy",
        "@o.npz",
        "@o.mat",
        "@o.hdr",
        "@o.nii",
        "@o.nii.gz",
        "-",
        "/dev/null",
        "@o.x",
        "@o",
    )

    @staticmethod
    def some(rng: random.Random, *options: tuple[str, ...]) -> list[str]:
        """A few of these options."""
        return [word for option in options if rng.random() < 0.2 for word in option]

    def decode(self, rng: random.Random) -> Any:
        options = self.some(
            rng, ("--keep-going",), ("--no-metadata",), ("--format", rng.choice((".tif", "wav", "x", ""))),
            ("--model", rng.choice(self.models)),
        )  # fmt: skip
        arguments = ["decode", "@in.wlc", rng.choice(self.OUTPUTS), *self.LIMIT, *options]
        return arguments, {"in.wlc": self.stream(rng)}

    def encode(self, rng: random.Random) -> Any:
        data = rng.choice((self.audio, self.images, self.images, self.media)).make(rng)
        data = data[1] if isinstance(data, tuple) else data
        options = self.some(
            rng, ("--metadata",), ("--no-icc",), ("--certify",), ("--force",), ("--background", rng.choice(("red", "x"))),
            ("--no-geometry",), ("--axes", rng.choice(("DHW", "HWC", "hw", "HX"))), ("--variable", "samples"),
            ("--shape", rng.choice(("105", "3,35", "3,5,7", "0"))), ("--sample-format", rng.choice(("u8", "f32", "x"))),
        )  # fmt: skip
        output = rng.choice(("@o.wlc", "@o.wlc", "@o.wlc", "-", "@in.x", "@tiny0.safetensors/x.wlc"))
        return ["encode", "@in.x", output, *self.LIMIT, *options, "--model", rng.choice(self.models)], {"in.x": data}

    def info(self, rng: random.Random) -> Any:
        return ["info", "@in.wlc", *self.some(rng, ("--json",))], {"in.wlc": self.stream(rng)}

    def validate(self, rng: random.Random) -> Any:
        return ["conform", "validate", "@in.wlc"], {"in.wlc": self.stream(rng)}

    def export(self, rng: random.Random) -> Any:
        output = rng.choice(("@o.png", "@o.webp", "@o.tif", "@o.npy", "@o.x", "-"))
        fold = self.some(rng, ("--fold", rng.choice(("1", "4096", "4097", "0", "-1"))))
        return ["symbols", "export", "@in.wlc", output, *self.LIMIT, *fold], {"in.wlc": self.stream(rng)}

    def symbols(self, rng: random.Random) -> Any:
        size = ("--size", rng.choice(("8x8", "16x12", "1x1", "40", "0x4", f"{1 << 40}x{1 << 40}", "x", "999999999999")))
        rate = ("--rate", rng.choice(("1", "0", "4294967295", "4294967296", "2147483648")))
        action, output = rng.choice((("import", "@o.wlc"), ("decode", "@o.png"), ("decode", "@o.wav")))
        files = {"in.png": self.tiles.make(rng)[0]}
        source = "@in.png"
        if rng.random() < 0.2:
            source, output, files = "@in", "@o", {f"in/{i}.png": self.tiles.make(rng)[0] for i in range(3)}
        options = self.some(rng, size, rate)
        return ["symbols", action, source, output, *self.LIMIT, "--model", rng.choice(self.models), *options], files

    def checkpoint_(self, rng: random.Random) -> Any:
        files = {"in.pth": self.checkpoint.make(rng)}
        config = {"channels": 1, "J": 1, "latent_dim": 2, "latent_bits": 8}
        config[rng.choice((*config, "Ne"))] = rng.choice((1, 2.0, 1e400, -1, None, "x", [], True, 1 << 70))
        files["c.json"] = (
            damaged(json.dumps(config).encode(), rng) if rng.random() < 0.3 else json.dumps(config).encode()
        )
        return ["import", "@in.pth", *self.some(rng, ("@c.json",)), "@o.safetensors"], files

    def model(self, rng: random.Random) -> Any:
        data, name = self.weights.make(rng)[0], rng.choice(("a", "tiny0", "z" * 240))
        command = rng.choice((["models"], ["info", "@in.wlc"], ["decode", "@in.wlc", "@o.png"]))
        if rng.random() < 0.3:
            command = ["encode", "@in.png", "@o.wlc", "--model", f"@{name}.safetensors"]
        image = rng.choice(self.images.files)
        return command, {f"{name}.safetensors": data, "in.wlc": rng.choice(self.container.seeds), "in.png": image}

    def evaluation(self, rng: random.Random) -> Any:
        report = json.dumps({"kind": "image", "files": [{"name": "in"}], "codecs": {}}).encode()
        files = {"in.png": self.images.make(rng), "r.json": damaged(report, rng)}
        options = self.some(rng, ("--reuse", "@r.json"), ("--json", "@j"), ("--markdown",), ("--seconds", "0.01"))
        against = rng.choice(("none", "none", "webp", "x", ""))
        return ["eval", "@in.png", "--models", "tiny0", "--against", against, "--no-curves", *options], files

    def conform(self, rng: random.Random) -> Any:
        case = rng.choice(self.ids)
        actual = {"a": damaged(self.suite.read(self.suite.case(case).input), rng)}
        impl = self.some(rng, ("--impl", rng.choice(("true", "", "'", "''", "{input}", "false", "sleep 9"))))
        command = rng.choice(
            (
                ["conform", "run", "--only", case, "--timeout", "0.5", *impl, *self.some(rng, ("--serve",))],
                ["conform", "run", "--only", rng.choice((case, "[", "no")), "--report", "json"],
                ["conform", "list", rng.choice(("", "[", "*", case))],
                ["conform", "explain", case],
                ["conform", "diff", case, "--actual", "@a", *self.some(rng, ("--image", "@o.png"))],
            )
        )
        return command, actual

    def conform_suite(self, rng: random.Random) -> Any:
        manifest = json.loads(self.manifest)
        part: Any = manifest
        for _ in range(rng.randrange(1, 6)):
            keys = range(len(part)) if isinstance(part, list) else sorted(part) if isinstance(part, dict) else []
            if not keys:
                break
            key = rng.choice(keys)
            if rng.random() < 0.4:
                part[key] = rng.choice((None, 0, -1, 1 << 70, "x", "../../x", "/dev/zero", [], {}, True, 1.5))
                break
            part = part[key]
        data = json.dumps(manifest).encode()
        data = data if rng.random() < 0.8 else bytes(damaged(self.manifest[:MAX_CASE_BYTES], rng))
        command = rng.choice((["list"], ["explain", rng.choice(self.ids)], ["run", "--only", rng.choice(self.ids)]))
        return ["conform", *command, "--suite", "@suite"], {"suite/manifest.json": data}

    def usage(self, rng: random.Random) -> Any:
        words = ["encode", "decode", "info", "--json", "symbols", "conform", "run", "--jobs", "-1", "models", "@in.wlc",
                 "--help", "--version", "eval", "--seconds", "nan", "--max-samples", "\x1b]0;x"]  # fmt: skip
        chosen = [rng.choice(words) for _ in range(rng.randrange(1, 5))]
        if chosen[:2] == ["conform", "run"]:  # all of it is no case for a fuzzer
            chosen[2:] = ["--only", "decode.crop*"]
        return chosen, {"in.wlc": rng.choice(self.container.seeds)}

    def rare(self, rng: random.Random) -> Any:
        files = {"in.png": self.images.make(rng)}
        bench = ["bench", "@in.png", "--model", "tiny0", "--repeats", "1", "--threads", "1", "--no-clear"]
        if rng.random() < 0.8:
            return bench, files
        return ["demo", "@in.png", "--model", "tiny0", "--out", "@o.png"], files

    def run(self, case: Any) -> int:
        arguments, files = case
        for name, data in files.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_bytes(data)
        words = [str(self.folder / word[1:]) if word.startswith("@") else word for word in arguments]
        standard_input = unittest.mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"nothing")))
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "ascii")
        place = unittest.mock.patch.dict(os.environ, {weights.SEARCH_PATH_VARIABLE: str(self.folder)})
        try:
            with (
                place,
                standard_input,
                whole_files.library_notes() as notes,
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                try:
                    code = cli.main(words)
                except SystemExit as end:
                    code = end.code
        finally:
            for path in set(self.folder.iterdir()) - self.kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for name in {f"{name}.safetensors" for name in self.models} & set(files):
                number = self.models.index(name.removesuffix(".safetensors"))
                (self.folder / name).write_bytes(weights.save(self.container.codecs[number].model))
        printed, said = out.buffer.getvalue(), err.buffer.getvalue().decode()
        demand(code in (0, 1, 2, 3, 4), f"exit code {code}")
        demand(not notes, f"printed past the program: {notes[:1]}")
        lines = said.splitlines()
        several = words[0] in ("symbols", "models", "eval") or "--keep-going" in words
        demand(
            code != 3 or (bool(lines) if several else len(lines) == 1),
            f"{len(lines)} lines for {code}: {said[:300]!r}",
        )
        demand("Traceback" not in said and len(said) < 10000 * (20 if several else 1), f"{said[:300]!r}")
        demand(all(c >= " " or c == "\n" for c in said), "a control character on the standard error")
        if "-" not in words:
            demand(all(c >= 32 or c == 10 for c in printed), "a control character on the standard output")
        if code in (2, 3, 4):
            raise UnreadableFile("exit code", code, "0")
        return sum(map(len, files.values()))


TARGETS: dict[str, Callable[[], Any]] = {
    "container": ContainerTarget,
    "coder": CoderTarget,
    "tiles": TilesTarget,
    "weights": WeightsTarget,
    "checkpoint": CheckpointTarget,
    "audio": AudioTarget,
    "images": ImagesTarget,
    "media": MediaTarget,
    "cli": CliTarget,
}


# ---- the run -------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What a run found."""

    target: str
    cases: int = 0
    accepted: int = 0
    refused: Counter = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, -1)
    largest: tuple[int, int] = (0, -1)
    resident: int = 0

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {count}" for name, count in self.refused.most_common())
        rate = self.cases / max(self.seconds, 1e-9)
        mb, peak = self.resident / 1e6, self.largest[0] / 1e6
        lines = [
            f"{self.target}: {self.cases} cases in {self.seconds:.1f} s ({rate:.0f}/s), {len(self.failures)} failures",
            f"  accepted {self.accepted}; refused: {kinds or 'none'}",
            f"  slowest {self.slowest[0] * 1e3:.1f} ms (case {self.slowest[1]}); "
            f"largest allocation {peak:.2f} MB (case {self.largest[1]}); resident memory grew by {mb:.1f} MB",
        ]
        for text in self.failures.values():
            lines.append("  FAILURE " + text.replace("\n", "\n    "))
        return "\n".join(lines)


def attempt(target: Any, case: Any, report: Report) -> tuple[int | None, str | None]:
    """Run one case: the bytes that it read, and what went wrong."""
    try:
        size = target.run(case)
        report.accepted += 1
        return size, None
    except WallocError as error:
        report.refused[type(error).__name__] += 1
        return None, None
    except Exception as error:
        place = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-3:]]
        return None, f"{type(error).__name__} at {' '.join(place)}: {str(error)[:200]}"


def size_of(case: Any) -> int:
    """Bytes in a case."""
    if isinstance(case, (bytes, bytearray)):
        return len(case)
    return sum(size_of(part) for part in case) if isinstance(case, (tuple, list)) else 0


def run(
    name: str,
    cases: int,
    seed: int,
    *,
    first: int = 0,
    journal: str | None = None,
    save: str | None = None,
    seconds: float = float("inf"),
) -> Report:
    """Run cases `first` … `first + cases - 1` of a target, or as many as fit in the time."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", RuntimeWarning)
    os.environ.setdefault("WALLOC_THREADS", "1")
    target, report = TARGETS[name](), Report(name)
    slow = getattr(target, "slow", SLOW)
    for number in range(-getattr(target, "warm", 64), 0):  # imports and compilation are no case's fault
        attempt(target, target.make(random.Random(number)), Report(name))
    seen: Counter[str] = Counter()
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    handle = os.open(journal, os.O_RDWR | os.O_CREAT, 0o644) if journal else None
    started = time.perf_counter()
    for number in range(first, first + cases):
        case = target.make(random.Random((seed << 40) + number))
        if handle is not None:
            os.pwrite(handle, b"%-24d" % number, 0)  # where it was, if the process dies
        traced = number % TRACE_EVERY == 0
        if traced:
            tracemalloc.start()
        begin = time.perf_counter()
        peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _, failure = attempt(target, case, report)
        took = time.perf_counter() - begin
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before)
        if failure is None and grown > RESIDENT:  # what libraries in C allocate
            failure = f"memory: resident memory grew by {grown} bytes"
        if traced:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            report.largest = max(report.largest, (peak, number))
            bound = MEMORY_BASE + MEMORY_PER_BYTE * size_of(case) + MEMORY_PER_SAMPLE * MAX_SAMPLES
            if failure is None and peak > getattr(target, "memory", bound):
                failure = f"memory: {peak} bytes for {size_of(case)}"
        else:
            if took > slow:  # once more, the machine may have been busy
                begin = time.perf_counter()
                attempt(target, case, Report(name))
                took = min(took, time.perf_counter() - begin)
                if failure is None and took > slow:
                    failure = f"time: {took:.2f} s for {size_of(case)} bytes"
            report.slowest = max(report.slowest, (took, number))
        report.cases += 1
        if failure is not None:
            key = failure.partition(":")[0] if failure.startswith(("memory", "time")) else failure.partition(": ")[0]
            seen[key] += 1
            if key not in report.failures:
                command = f"python tests/fuzz.py --target {name} --seed {seed} --first {number} --cases 1"
                report.failures[key] = f"{failure}\n{command}"
                if save:
                    Path(save).mkdir(parents=True, exist_ok=True)
                    (Path(save) / f"{name}-{seed}-{number}.txt").write_text(repr(case))
                if journal:
                    print(f"{name} FAILURE {report.failures[key]}", flush=True)
        if time.perf_counter() - started > seconds:
            break
    report.seconds = time.perf_counter() - started
    report.resident = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - pages)
    for key, count in seen.items():
        report.failures[key] += f"\n{count} times"
    if handle is not None:
        os.close(handle)
    return report


def _job(arguments: tuple[Any, ...]) -> Report:
    name, cases, seed, first, journal, save = arguments
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return run(name, cases, seed, first=first, journal=journal, save=save)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", type=int, default=10000, help="cases of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--target", default="all", choices=["all", *TARGETS])
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--journal", help="file that holds the number of the case that runs")
    parser.add_argument("--save", help="folder for the inputs of failures")
    options = parser.parse_args()
    faulthandler.enable()
    failed = False
    for name in TARGETS if options.target == "all" else [options.target]:
        share = -(-options.cases // options.jobs)
        starts = range(options.first, options.first + options.cases, share)
        jobs = [
            (
                name,
                min(share, options.first + options.cases - start),
                options.seed,
                start,
                options.journal,
                options.save,
            )
            for start in starts
        ]
        if len(jobs) == 1:
            reports = [_job(jobs[0])]
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:  # whose processes may have children
                reports = list(pool.map(_job, jobs))
        for report in reports:
            print(report, flush=True)
            failed |= bool(report.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
