"""The container `.wlc`, version 1 (SPEC.md section 10): bytes to sections and back, without any meaning of the symbols.

    +------+---------+---------+-------------------------------+-----------------------------+
    | 89 57 4C 43    | version | HEAD  section                 | ancillary sections, SLICES  |
    | \\x89 W  L  C   | 01      | tag length payload CRC        | …                           |
    +------+---------+---------+-------------------------------+-----------------------------+

    section   tag u8 | length varint | payload | CRC-32 of tag, length and payload, u32
    HEAD      kind u8 | format u8 | channels varint | sizes varint… | rate varint (audio only)
              | mean f64, gain f64 (audio, and floats of the other kinds) | model identity 16 bytes | J u8
              | latent_dim varint | latent_bits u8 | step u32 | weighted u8
              | window varint [, context varint] (image only) | slice_size varint | symbol hash 8 bytes
    SLICES    tag u8 | length varint | count varint | (length varint, CRC-32 u32) of each slice | CRC-32 of all that, u32
              | slice payloads

Integers are little-endian, varints LEB128 in their shortest form. A tag from 0x80 on is ancillary: a reader that does not
know it skips it. An unknown tag below 0x80 must be refused. HEAD is first, SLICES last, and nothing follows.
Two surprises:

1. Each slice has its own CRC and the CRC of the SLICES section ends before the payloads, so that a damaged slice is named
   and the others still decode.
2. Whether the declared sizes are believable is checked before anything is allocated: against limits, against the length
   of the payload, and against what the coder can at most produce from a payload, which the caller knows.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples, LimitExceeded, MalformedStream, UnsupportedStream, reason

T = TypeVar("T")

MAGIC = b"\x89WLC"
"""First bytes of a stream; the first one is no text in any encoding, so that a transfer as text shows at once."""

VERSION = 1
"""Version of the container. A reader refuses any other."""

HEAD, SLICES = 0x01, 0x02
"""Tags of the critical sections."""

CERTIFICATE, ICC_PROFILE, EXIF, METADATA = 0x81, 0x82, 0x83, 0x84
"""Tags of the ancillary sections."""

ANCILLARY = 0x80
"""The tag bit that allows an older reader to skip a section."""

KINDS = ("image", "audio", "volume")
"""What a stream holds; the index is the code in HEAD."""

SAMPLE_FORMATS = ("u8", "u16", "s16", "s24", "s32", "f32", "f64")
"""Sample formats; the index is the code in HEAD. s24 travels in 32-bit integers, its values scaled by 2^8."""

SAMPLE_BITS = {"u8": 8, "u16": 16, "s16": 16, "s24": 24, "s32": 32, "f32": 32, "f64": 64}
"""Bits of a sample before encoding."""

FLOAT_FORMATS = ("f32", "f64")
"""Formats whose samples have no margin, so that no certificate speaks of them (SPEC.md 10.11)."""

FORMATS_OF_KIND = {
    "image": ("u8", "u16", "s16", "f32"),
    "audio": ("u8", "s16", "s24", "s32", "f32", "f64"),
    "volume": ("u8", "u16", "s16", "f32"),
}
"""Sample formats that each kind admits."""

AXES_OF_KIND = {"image": 2, "audio": 1, "volume": 3}
"""Spatial axes, and so the number of sizes in HEAD."""

BORDER_OF_KIND = {"image": 0, "audio": 2, "volume": 0}
"""Latent positions along each axis that stand for no samples (SPEC.md 11.5)."""

MODEL_ID_BYTES = 16
"""Bytes of the model's SHA-256 that travel in HEAD."""

SYMBOL_HASH_BYTES = 8
"""Bytes of the SHA-256 of the symbols that travel in HEAD."""

MAX_SIZE = (1 << 40) - 1
"""Largest size along one axis."""

MAX_CHANNELS, MAX_RATE, MAX_LATENT_DIM = 4096, (1 << 32) - 1, 4096
"""Limits of the other fields of HEAD."""

STEP_UNIT = 2.0**-16
"""The step travels as a multiple of this."""

MIN_STEP, MAX_STEP = 2.0**-10, 2.0**10
"""Limits of the step."""

MIN_WINDOW = 8
"""Smallest window of the networks; with a context of at most the window, none costs more than nine times the whole."""

MAX_SAMPLES = 1 << 30
"""Samples, channels included, that are decoded unless the caller raises the limit."""

MAX_METADATA_BYTES = 1 << 20
"""Longest METADATA section."""

MAX_VARINT_BYTES = 9
"""A varint has at most 63 bits."""


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How latents were quantised, and what the networks see at a time.

    Attributes
    ----------
    step : float
        The quantiser's step relative to the model's own (SPEC.md 6.7), a multiple of 2^-16.
    weighted : bool
        Whether the planes' steps follow the model's step weights, or all are equal.
    window, context : int
        Latent positions along each axis of a window of the networks, and of context on each side of it (SPEC.md 9.11);
        window 0: the networks see all positions at once.
    """

    step: float = 1.0
    weighted: bool = False
    window: int = 0
    context: int = 0


@dataclass(frozen=True, kw_only=True)
class Layout(Coding):
    """What samples are like, and how they are coded: all that decoding needs to know beside the model and the symbols.

    Attributes
    ----------
    kind : str
        "image", "audio" or "volume".
    sample_format : str
        "u8", "u16", "s16", "s24", "s32", "f32" or "f64".
    channels : int
    sizes : tuple of int
        Samples along each spatial axis: (height, width), (frames,) or (depth, height, width).
    rate : int
        Samples a second (audio), else 0.
    mean, gain : float
        Audio, and floats of the other kinds: samples = gain·signal + mean, in units of full scale; else 0 and 1.
    """

    kind: str
    sample_format: str
    channels: int
    sizes: tuple[int, ...]
    rate: int = 0
    mean: float = 0.0
    gain: float = 1.0

    @property
    def samples(self) -> int:
        """Number of samples, channels included."""
        return self.channels * math.prod(self.sizes)


@dataclass(frozen=True, kw_only=True)
class Header(Layout):
    """What HEAD says.

    Attributes
    ----------
    model_id : bytes
        First 16 bytes of the model's identity.
    J, latent_dim, latent_bits : int
        Levels, planes of symbols, bits of a symbol.
    slice_size : int
        Latent positions along the first spatial axis in every slice but the last, which may have fewer.
    symbol_hash : bytes
        First 8 bytes of the SHA-256 of the symbols.
    """

    model_id: bytes
    J: int
    latent_dim: int
    latent_bits: int
    slice_size: int
    symbol_hash: bytes

    @property
    def latent_sizes(self) -> tuple[int, ...]:
        """Latent positions along each spatial axis."""
        return latent_sizes(self.kind, self.sizes, self.J)

    @property
    def symbols(self) -> int:
        """Number of symbols of the whole stream."""
        return self.latent_dim * math.prod(self.latent_sizes)

    @property
    def slice_count(self) -> int:
        """Number of slices."""
        return -(-self.latent_sizes[0] // self.slice_size)

    def slice_bounds(self, number: int) -> tuple[int, int]:
        """First latent position along the first spatial axis of a slice, and the first one after it.

        >>> replace(EXAMPLE_HEADER, slice_size=1).slice_bounds(1)
        (1, 2)
        """
        start = number * self.slice_size
        return start, min(start + self.slice_size, self.latent_sizes[0])

    def slice_shape(self, number: int) -> tuple[int, ...]:
        """Shape in which the entropy coder sees a slice: (D, rows, w), (D, 1, positions) of audio (SPEC.md 7.1), or
        (D, depth positions, h, w) of a volume (16.5).

        >>> EXAMPLE_HEADER.slice_shape(0)
        (1, 2, 1)
        """  # fmt: skip
        start, stop = self.slice_bounds(number)
        if self.kind == "audio":
            return self.latent_dim, 1, stop - start
        return self.latent_dim, stop - start, *self.latent_sizes[1:]

    def place(self, number: int) -> str:
        """Where a slice lies, in words.

        >>> EXAMPLE_HEADER.place(0)
        'latent positions 0 to 1 of 2'
        """
        start, stop = self.slice_bounds(number)
        return f"latent positions {start} to {stop - 1} of {self.latent_sizes[0]}"


EXAMPLE_HEADER = Header(
    kind="image",
    sample_format="u8",
    channels=1,
    sizes=(2, 1),
    model_id=bytes.fromhex("054b78dad2fe9b18220f8c6e69ee1243"),
    J=0,
    latent_dim=1,
    latent_bits=8,
    slice_size=2,
    symbol_hash=bytes.fromhex("d1b4ede8702023b7"),
)
"""The header of the stream of SPEC.md 10.14, two pixels, for examples."""


def latent_sizes(kind: str, sizes: tuple[int, ...], levels: int) -> tuple[int, ...]:
    """Latent positions along each spatial axis: sizes over 2^J, rounded up; audio has two border positions more.

    >>> latent_sizes("image", (61, 40), 3), latent_sizes("audio", (900,), 3)
    ((8, 5), (115,))
    """
    return tuple(-(-size >> levels) + BORDER_OF_KIND[kind] if size else 0 for size in sizes)


@dataclass(frozen=True)
class Certificate:
    """What `encode --certify` adds: a hash of the decoded samples, and the positions that it leaves out.

    Attributes
    ----------
    sample_hash : bytes
        SHA-256 over the decoded samples, little-endian in their layout at the edge, the uncertain ones set to zero.
    uncertain : tuple of int
        Rising indices, into the flattened samples, of those whose margin is within the bound of the numerical contract.
    """

    sample_hash: bytes
    uncertain: tuple[int, ...]


@dataclass(frozen=True)
class Stream:
    """A parsed stream: header, coded slices, what stood beside them.

    Attributes
    ----------
    damaged : tuple of int
        Slices whose payload is incomplete or does not match its CRC (only where the reader was told to keep going).
    """

    header: Header
    slices: tuple[bytes, ...]
    certificate: Certificate | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    metadata: bytes | None = None
    damaged: tuple[int, ...] = field(default=())


def write(stream: Stream) -> bytes:
    """A stream as bytes.

    >>> write(Stream(EXAMPLE_HEADER, (b"\\x2c",))).hex()[-26:]  # SLICES of SPEC.md 10.14
    '020b01016e83dae0ff9c6b302c'
    """
    out = bytearray(MAGIC)
    out.append(VERSION)
    out += _section(HEAD, _write_header(stream.header))
    if stream.certificate is not None:
        out += _section(CERTIFICATE, _write_certificate(stream.certificate))
    if stream.icc_profile is not None:
        out += _section(ICC_PROFILE, stream.icc_profile)
    if stream.exif is not None:
        out += _section(EXIF, stream.exif)
    if stream.metadata is not None:
        out += _section(METADATA, stream.metadata)
    table = bytearray(_varint(len(stream.slices)))
    for payload in stream.slices:
        table += _varint(len(payload)) + _crc(payload)
    length = len(table) + 4 + sum(map(len, stream.slices))  # 4: the CRC of the table
    start = bytes([SLICES]) + _varint(length) + table
    return bytes(out) + start + _crc(start) + b"".join(stream.slices)


def read(data: bytes, *, max_samples: int = MAX_SAMPLES, keep_going: bool = False) -> Stream:
    """Parse a stream. Nothing is decoded, and nothing larger than the data is allocated.

    Parameters
    ----------
    data : bytes
    max_samples : int
        Largest number of samples that is accepted.
    keep_going : bool
        Report damaged slices in `Stream.damaged` instead of refusing the stream.

    Raises
    ------
    MalformedStream, UnsupportedStream, LimitExceeded

    Examples
    --------
    >>> stream = Stream(EXAMPLE_HEADER, (b"\\x2c",))
    >>> read(write(stream)) == stream
    True
    >>> read(write(stream)[:-1])
    Traceback (most recent call last):
    walloc_ref.errors.MalformedStream: SLICES.length: 11; 10 bytes follow; the stream is truncated
    """
    header, extras, at = read_head(data, max_samples=max_samples)
    sections = _Reader(data, at)
    _, length, start = sections.section_start()
    if not keep_going and length > sections.left:
        raise MalformedStream("SLICES.length", length, f"{sections.left} bytes follow; the stream is truncated")
    if length < sections.left:
        raise MalformedStream("end", f"{sections.left - length} bytes more", "nothing follows SLICES")
    count = sections.varint("SLICES.count")
    if count != header.slice_count:
        raise MalformedStream("SLICES.count", count, f"{header.slice_count} of {header.slice_size} latent positions")
    if count * 5 > sections.left:
        raise MalformedStream("SLICES.count", count, f"{sections.left} bytes follow; the stream is truncated")
    table = [(sections.varint(f"slice {i}.length"), sections.take(4, f"slice {i}.CRC")) for i in range(count)]
    sections.check_crc(start, "SLICES.CRC")
    slices, damaged = [], []
    declared = sections.at - start[1] + sum(size for size, _ in table)
    if declared != length:
        raise MalformedStream("SLICES.length", length, f"table and slices have {declared} bytes")
    for number, (size, crc) in enumerate(table):
        payload = data[sections.at : sections.at + size]
        sections.at += len(payload)
        if len(payload) != size or _crc(payload) != crc:
            if not keep_going:
                found = f"CRC {_crc(payload).hex()}"
                raise MalformedStream(f"slice {number}", found, f"{crc.hex()}, {header.place(number)}")
            damaged.append(number)
        slices.append(payload)
    return replace(extras, slices=tuple(slices), damaged=tuple(damaged))


def read_head(data: bytes, *, max_samples: int = MAX_SAMPLES) -> tuple[Header, Stream, int]:
    """Parse everything before SLICES.

    Returns
    -------
    header : Header
    stream : Stream
        With no slices.
    at : int
        Offset of the SLICES section.

    Examples
    --------
    >>> header, _, at = read_head(write(Stream(EXAMPLE_HEADER, (b"\\x2c",))))
    >>> header == EXAMPLE_HEADER, at
    (True, 50)
    """
    if data[: len(MAGIC)] != MAGIC:
        raise MalformedStream("magic", data[: len(MAGIC)].hex() or "nothing", f"{MAGIC.hex()}, a WaLLoC stream")
    if len(data) == len(MAGIC):
        raise MalformedStream("version", "nothing", "a version; the stream is truncated")
    if data[len(MAGIC)] != VERSION:
        raise UnsupportedStream("version", data[len(MAGIC)], f"{VERSION}, the only one this reader knows")
    sections = _Reader(data, len(MAGIC) + 1)
    header: Header | None = None
    stream = None
    seen: set[int] = set()
    while True:
        if sections.left == 0:
            raise MalformedStream("SLICES", "missing", "a SLICES section; the stream is truncated")
        tag = data[sections.at]
        if header is None and tag != HEAD:
            raise MalformedStream("section tag", f"{tag:#04x}", f"{HEAD:#04x}, HEAD, as first section")
        if tag == SLICES:
            assert header is not None and stream is not None
            return header, stream, sections.at
        tag, length, start = sections.section_start()
        payload = sections.take(length, f"section {tag:#04x}.length")
        sections.check_crc(start, f"section {tag:#04x}.CRC")
        if tag in seen and tag in (HEAD, CERTIFICATE, ICC_PROFILE, EXIF, METADATA):
            raise MalformedStream("section tag", f"{tag:#04x}", "at most one such section")
        seen.add(tag)
        if tag == HEAD:
            header = _read_header(payload, max_samples)
            stream = Stream(header, ())
        elif tag == CERTIFICATE:
            assert header is not None and stream is not None
            stream = replace(stream, certificate=_read_certificate(payload, header.samples))
        elif tag == ICC_PROFILE:
            assert stream is not None
            stream = replace(stream, icc_profile=payload)
        elif tag == EXIF:
            assert stream is not None
            stream = replace(stream, exif=payload)
        elif tag == METADATA:
            assert stream is not None
            stream = replace(stream, metadata=payload)
        elif tag < ANCILLARY:
            raise UnsupportedStream("section tag", f"{tag:#04x}", "a critical section that this reader knows")


def has_gain(kind: str, sample_format: str) -> bool:
    """Whether mean and gain travel in HEAD: with audio, and with floats (SPEC.md 10.5).

    >>> has_gain("image", "u8"), has_gain("image", "f32"), has_gain("audio", "s16")
    (False, True, True)
    """
    return kind == "audio" or sample_format == "f32"


def metadata_to_bytes(metadata: Mapping[str, Any]) -> bytes:
    """The payload of METADATA (SPEC.md 10.15): a JSON object in UTF-8.

    Raises
    ------
    BadSamples
        No mapping with text for keys, something in it that JSON does not know (NaN is), or too long.

    Examples
    --------
    >>> metadata_to_bytes({"spacing": [0.5, 0.5, 2]})
    b'{"spacing":[0.5,0.5,2]}'
    """
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise BadSamples("metadata", type(metadata).__name__, "a mapping from text to what JSON can hold")
    try:
        text = json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        data = text.encode()
    except (ValueError, TypeError, RecursionError) as error:  # half surrogates have no UTF-8
        raise BadSamples("metadata", reason(error), "what JSON can hold") from error
    if len(data) > MAX_METADATA_BYTES:
        raise BadSamples("metadata", f"{len(data)} bytes of JSON", f"at most {MAX_METADATA_BYTES}")
    return data


def metadata_from_bytes(data: bytes) -> dict[str, Any]:
    """The inverse of `metadata_to_bytes`.

    Raises
    ------
    MalformedStream
        Longer than a METADATA section may be, or not a JSON object in UTF-8.

    Examples
    --------
    >>> metadata_from_bytes(b'{"unit":"mm"}')
    {'unit': 'mm'}
    """

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    if len(data) > MAX_METADATA_BYTES:
        raise MalformedStream("METADATA.length", len(data), f"at most {MAX_METADATA_BYTES}")
    try:
        metadata = json.loads(data.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise MalformedStream("METADATA", reason(error), "a JSON object in UTF-8") from error
    if not isinstance(metadata, dict):
        raise MalformedStream("METADATA", type(metadata).__name__, "a JSON object")
    return metadata


def symbol_hash(symbols: NDArray[np.int16]) -> bytes:
    """First 8 bytes of the SHA-256 over the symbols, int16 little-endian, planes first.

    >>> symbol_hash(np.int16([[[-1], [1]]])).hex()  # SPEC.md 10.14
    'd1b4ede8702023b7'
    """
    return hashlib.sha256(np.ascontiguousarray(symbols, dtype="<i2").data).digest()[:SYMBOL_HASH_BYTES]


def certify(samples: NDArray, uncertain: Sequence[int] | NDArray[np.integer]) -> Certificate:
    """Hash the samples, laid out as at the edge, with those at the indices `uncertain` set to zero.

    >>> same = [certify(np.uint8([1, 2, last]), [2]).sample_hash.hex()[:8] for last in (3, 4)]
    >>> same[0] == same[1], certify(np.uint8([1, 2, 3]), [2]).uncertain
    (True, (2,))
    """
    little = np.array(samples, dtype=samples.dtype.newbyteorder("<"), order="C")
    little.reshape(-1)[np.asarray(uncertain, dtype=np.intp)] = 0
    return Certificate(hashlib.sha256(little.data).digest(), tuple(int(i) for i in uncertain))


def _write_header(header: Header) -> bytes:
    """The payload of HEAD."""
    out = bytearray([KINDS.index(header.kind), SAMPLE_FORMATS.index(header.sample_format)])
    out += _varint(header.channels)
    for size in header.sizes:
        out += _varint(size)
    if header.kind == "audio":
        out += _varint(header.rate)
    if has_gain(header.kind, header.sample_format):
        out += struct.pack("<dd", header.mean, header.gain)
    out += header.model_id[:MODEL_ID_BYTES]
    out.append(header.J)
    out += _varint(header.latent_dim)
    out.append(header.latent_bits)
    out += round(header.step / STEP_UNIT).to_bytes(4, "little")
    out.append(header.weighted)
    if header.kind == "image":
        out += _varint(header.window)
        if header.window:
            out += _varint(header.context)
    out += _varint(header.slice_size)
    return bytes(out + header.symbol_hash)


def _read_header(payload: bytes, max_samples: int) -> Header:
    """The inverse of `_write_header`, with every limit checked."""
    fields = _Reader(payload, 0)
    kind = _named(KINDS, fields.byte("HEAD.kind"), "HEAD.kind")
    sample_format = _named(SAMPLE_FORMATS, fields.byte("HEAD.format"), "HEAD.format")
    if sample_format not in FORMATS_OF_KIND[kind]:
        raise MalformedStream("HEAD.format", sample_format, f"for {kind}: " + ", ".join(FORMATS_OF_KIND[kind]))
    channels = fields.bounded("HEAD.channels", 1, MAX_CHANNELS)
    sizes = tuple(fields.bounded("HEAD.size", 1, MAX_SIZE) for _ in range(AXES_OF_KIND[kind]))
    rate, mean, gain = 0, 0.0, 1.0
    if kind == "audio":
        rate = fields.bounded("HEAD.rate", 1, MAX_RATE)
    if has_gain(kind, sample_format):
        mean, gain = struct.unpack("<dd", fields.take(16, "HEAD.mean"))
        if not math.isfinite(mean):
            raise MalformedStream("HEAD.mean", mean, "a finite number")
        if not (math.isfinite(gain) and gain >= 0):
            raise MalformedStream("HEAD.gain", gain, "a finite number, 0 or more")
    header = Header(
        kind=kind,
        sample_format=sample_format,
        channels=channels,
        sizes=sizes,
        rate=rate,
        mean=mean,
        gain=gain,
        model_id=fields.take(MODEL_ID_BYTES, "HEAD.model_id"),
        J=fields.byte("HEAD.J"),
        latent_dim=fields.bounded("HEAD.latent_dim", 1, MAX_LATENT_DIM),
        latent_bits=fields.byte("HEAD.latent_bits"),
        step=int.from_bytes(fields.take(4, "HEAD.step"), "little") * STEP_UNIT,
        weighted=_named((False, True), fields.byte("HEAD.weighted"), "HEAD.weighted"),
        window=(window := fields.bounded("HEAD.window", 0, MAX_SIZE) if kind == "image" else 0),
        context=fields.bounded("HEAD.context", 0, window) if window else 0,
        slice_size=fields.bounded("HEAD.slice_size", 1, MAX_SIZE),
        symbol_hash=fields.take(SYMBOL_HASH_BYTES, "HEAD.symbol_hash"),
    )
    if fields.left:
        raise MalformedStream("HEAD.length", len(payload), f"{fields.at} bytes of fields")
    if header.J > 10:
        raise MalformedStream("HEAD.J", header.J, "0 to 10")
    if not 2 <= header.latent_bits <= 8:
        raise MalformedStream("HEAD.latent_bits", header.latent_bits, "2 to 8")
    if not MIN_STEP <= header.step <= MAX_STEP:
        raise MalformedStream("HEAD.step", header.step, f"{MIN_STEP} to {MAX_STEP}")
    if 0 < header.window < MIN_WINDOW:
        raise MalformedStream("HEAD.window", header.window, f"0 for none, or {MIN_WINDOW} and more")
    if header.samples > max_samples:
        raise LimitExceeded("samples", header.samples, f"at most {max_samples}; raise it with --max-samples")
    if header.slice_size > header.latent_sizes[0]:
        raise MalformedStream(
            "HEAD.slice_size", header.slice_size, f"at most {header.latent_sizes[0]} latent positions"
        )
    return header


def _write_certificate(certificate: Certificate) -> bytes:
    """The payload of CERTIFICATE: hash, count, and the distance of each uncertain index from the one before."""
    out = bytearray(certificate.sample_hash) + _varint(len(certificate.uncertain))
    before = -1
    for index in certificate.uncertain:
        out += _varint(index - before - 1)
        before = index
    return bytes(out)


def _read_certificate(payload: bytes, samples: int) -> Certificate:
    """The inverse of `_write_certificate`."""
    fields = _Reader(payload, 0)
    digest = fields.take(32, "CERTIFICATE.hash")
    count = fields.varint("CERTIFICATE.count")
    if count > fields.left:
        raise MalformedStream("CERTIFICATE.count", count, f"{fields.left} bytes follow")
    uncertain, before = [], -1
    for _ in range(count):
        before += fields.varint("CERTIFICATE.index") + 1
        if before >= samples:
            raise MalformedStream("CERTIFICATE.index", before, f"below {samples} samples")
        uncertain.append(before)
    if fields.left:
        raise MalformedStream("CERTIFICATE.length", len(payload), f"{fields.at} bytes of fields")
    return Certificate(digest, tuple(uncertain))


def _section(tag: int, payload: bytes) -> bytes:
    """A whole section: tag, length, payload, CRC."""
    body = bytes([tag]) + _varint(len(payload)) + payload
    return body + _crc(body)


def _crc(data: bytes) -> bytes:
    """CRC-32 (ISO 3309, as in PNG and zlib), little-endian."""
    return zlib.crc32(data).to_bytes(4, "little")


def _varint(value: int) -> bytes:
    """LEB128: seven bits a byte, lowest first, the top bit set on all bytes but the last."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _named(names: Sequence[T], code: int, what: str) -> T:
    """The name of a code."""
    if code >= len(names):
        raise MalformedStream(what, code, f"0 to {len(names) - 1}")
    return names[code]


class _Reader:
    """A place in some bytes; every step forward is checked."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    @property
    def left(self) -> int:
        """Bytes from here to the end."""
        return len(self.data) - self.at

    def take(self, size: int, what: str) -> bytes:
        """The next `size` bytes."""
        if size > self.left:
            raise MalformedStream(what, f"{size} bytes", f"{self.left} bytes follow; the stream is truncated")
        self.at += size
        return self.data[self.at - size : self.at]

    def byte(self, what: str) -> int:
        """The next byte."""
        return self.take(1, what)[0]

    def varint(self, what: str) -> int:
        """The next varint, which must be in its shortest form."""
        value = 0
        for shift in range(0, 7 * MAX_VARINT_BYTES, 7):
            byte = self.byte(what)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise MalformedStream(what, "a padded varint", "the shortest form")
                return value
        raise MalformedStream(what, f"a varint of over {MAX_VARINT_BYTES} bytes", "at most 63 bits")

    def bounded(self, what: str, low: int, high: int) -> int:
        """The next varint, from `low` to `high`."""
        value = self.varint(what)
        if not low <= value <= high:
            raise MalformedStream(what, value, f"{low} to {high}")
        return value

    def section_start(self) -> tuple[int, int, tuple[int, int]]:
        """Tag and length of a section, and where its tag and its payload start."""
        first = self.at
        tag = self.byte("section tag")
        length = self.varint(f"section {tag:#04x}.length")
        return tag, length, (first, self.at)

    def check_crc(self, start: tuple[int, int], what: str) -> None:
        """Compare the next four bytes with the CRC of everything since the tag of the section."""
        actual = _crc(self.data[start[0] : self.at])
        recorded = self.take(4, what)
        if recorded != actual:
            raise MalformedStream(
                what, recorded.hex(), f"{actual.hex()}, the CRC of what was read; the section is damaged"
            )
