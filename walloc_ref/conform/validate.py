"""A stream that some encoder wrote: its first violation, with the clause of SPEC.md, the offset of the byte and a hint.

The walk below is a second reading of SPEC.md section 10 that shares no code with `container.read`; the tests hold the two
against each other on every vector, valid or not.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from walloc_ref import codec
from walloc_ref import model as models
from walloc_ref.errors import HashMismatch, UnknownModel, WallocError
from walloc_ref.plain import chosen
from walloc_ref.stages import container, entropy

MAGIC = bytes.fromhex("89574c43")
"""SPEC.md 10.1."""

FORMATS = {
    0: ("u8", "image audio volume"),
    1: ("u16", "image volume"),
    2: ("s16", "image audio volume"),
    3: ("s24", "audio"),
    4: ("s32", "audio"),
    5: ("f32", "image audio volume"),
    6: ("f64", "audio"),
}
"""Codes of the sample formats and the kinds that they are of (3.1)."""

NAMES = {0x01: "HEAD", 0x02: "SLICES", 0x81: "CERTIFICATE", 0x82: "ICC_PROFILE", 0x83: "EXIF", 0x84: "METADATA"}
"""Tags (10.3)."""


class Violation(Exception):
    """The first thing that is wrong.

    Attributes
    ----------
    clause : str
        Of SPEC.md.
    offset : int
        Of the byte, from the start of the stream, at which the wrong field begins.
    what, hint : str
    """

    def __init__(self, clause: str, offset: int, what: str, hint: str) -> None:
        self.clause, self.offset, self.what, self.hint = clause, offset, what, hint
        super().__init__(f"byte {offset}: {what} (clause {clause}). {hint}")


@dataclass
class Findings:
    """What was verified, and what could not be."""

    verified: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class _Walk:
    """A place in the stream, up to an end that no field may cross."""

    def __init__(self, data: bytes, at: int, end: int, inside: str) -> None:
        self.data, self.at, self.end, self.inside = data, at, end, inside

    def take(self, size: int, name: str, clause: str) -> bytes:
        """The next bytes."""
        if size > self.end - self.at:
            raise Violation(
                clause,
                self.at,
                f"{name} needs {size} bytes, {self.end - self.at} are left in {self.inside}",
                "The stream is truncated, or an earlier length or field is wrong.",
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def varint(self, name: str, low: int, high: int, clause: str) -> int:
        """The next varint, between its limits."""
        start, value = self.at, 0
        for i in range(9):
            byte = self.take(1, name, clause)[0]
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if byte == 0 and i:
                    raise Violation(
                        "1.6",
                        start,
                        f"the varint {name} is padded",
                        "Write the shortest form: no last byte 00 after others.",
                    )
                if not low <= value <= high:
                    raise Violation(clause, start, f"{name} is {value}", f"It must be {low} to {high}.")
                return value
        raise Violation("1.6", start, f"the varint {name} has more than 9 bytes", "A varint has at most 63 bits.")

    def byte(self, name: str, low: int, high: int, clause: str) -> int:
        """The next byte, between its limits."""
        value = self.take(1, name, clause)[0]
        if not low <= value <= high:
            raise Violation(clause, self.at - 1, f"{name} is {value}", f"It must be {low} to {high}.")
        return value


def validate(data: bytes, model: models.Model | None = None, *, decode: bool = True) -> Findings:
    """Read a stream to its end.

    Parameters
    ----------
    data : bytes
    model : Model, optional
        The stream's model; else it is looked for among those at hand.
    decode : bool
        Whether to verify a certificate, which needs a whole decode.

    Returns
    -------
    Findings

    Raises
    ------
    Violation
        The first one.
    """
    findings = Findings()
    header, slices, certificate = _container(data)
    findings.verified += ["container", f"{len(slices)} slices with their CRCs"]
    if model is None:
        try:
            model = models.find_by_id(header.model_id)
        except UnknownModel:
            findings.missing.append(f"the model {header.model_id.hex()}… is not at hand: symbols not decoded")
            return findings
    _symbols(header, slices, model)
    findings.verified.append("symbols and their hash")
    if certificate:
        if decode:
            try:
                codec.decode(data, codec=codec.Codec(model))
            except HashMismatch as error:
                raise Violation(
                    "10.11",
                    certificate,
                    str(error),
                    "The decoded samples are others than the encoder's: one of "
                    "the two decodes wrongly, or an uncertain sample is not listed (10.10).",
                ) from error
            findings.verified.append("certificate of the samples")
        else:
            findings.missing.append("the certificate was not verified")
    return findings


def _container(data: bytes) -> tuple[container.Header, list[tuple[int, bytes]], int]:
    """Header, slices with their offsets, and the offset of a certificate's payload or 0."""
    walk = _Walk(data, 0, len(data), "the stream")
    magic = walk.take(4, "the magic", "10.1")
    if magic != MAGIC:
        hint = "If the first byte is missing its top bit, or 0A became 0D 0A, it went through a transfer as text."
        raise Violation("10.1", 0, f"the stream begins with {magic.hex()}, not {MAGIC.hex()}", hint)
    version = walk.take(1, "the version", "10.1")[0]
    if version != 1:
        raise Violation("10.1", 4, f"version {version}", "This document is version 1.")
    header, seen, certificate = None, set(), 0
    while True:
        start = walk.at
        if start == len(data):
            raise Violation(
                "10.3", start, "the stream ends without SLICES", "SLICES is the last section, and must be there."
            )
        tag = walk.take(1, "a tag", "10.2")[0]
        name = NAMES.get(tag, f"section {tag:02x}")
        if (header is None) != (tag == 1):
            hint = "HEAD comes first, once." if header is None else "There is one HEAD already."
            raise Violation("10.3", start, f"{name} in this place", hint)
        if tag == 2:
            assert header is not None
            return header, _slices(data, start, header), certificate
        length = walk.varint(f"the length of {name}", 0, 2**63 - 1, "10.2")
        payload = walk.at
        walk.take(length, f"the payload of {name}", "10.2")
        actual = zlib.crc32(data[start : walk.at])
        recorded = int.from_bytes(walk.take(4, f"the CRC of {name}", "10.2"), "little")
        if recorded != actual:
            hint = "The CRC covers tag, length and payload; it is that of PNG and zlib, stored little-endian."
            raise Violation(
                "10.2", walk.at - 4, f"the CRC of {name} is {recorded:08x}, that of the bytes {actual:08x}", hint
            )
        if tag in NAMES and tag in seen:
            raise Violation("10.3", start, f"a second {name}", "It may appear once.")
        seen.add(tag)
        if tag == 1:
            header = _head(data, payload, walk.at - 4)
        elif tag == 0x81:
            assert header is not None
            _certificate(data, payload, walk.at - 4, header.samples)
            certificate = payload
        elif tag < 0x80:
            raise Violation(
                "10.4",
                start,
                f"unknown critical section {tag:02x}",
                "New sections that may be skipped take a tag from 80 on.",
            )


def _head(data: bytes, start: int, end: int) -> container.Header:
    """The payload of HEAD."""
    walk = _Walk(data, start, end, "HEAD")
    kind = ("image", "audio", "volume")[walk.byte("kind", 0, 2, "10.5")]
    code = walk.byte("format", 0, 6, "3.1")
    form, kinds = FORMATS[code]
    if kind not in kinds.split():
        raise Violation("3.1", walk.at - 1, f"format {form} for kind {kind}", f"It is one of {kinds} only.")
    channels = walk.varint("channels", 1, 4096, "10.6")
    names = {"image": ("H", "W"), "audio": ("frames",), "volume": ("Z", "H", "W")}[kind]
    sizes = tuple(walk.varint(name, 1, 2**40 - 1, "10.6") for name in names)
    rate, mean, gain = 0, 0.0, 1.0
    if kind == "audio":
        rate = walk.varint("rate", 1, 2**32 - 1, "10.6")
    if kind == "audio" or form == "f32":
        mean, gain = struct.unpack("<dd", walk.take(16, "mean and gain", "10.5"))
        if not math.isfinite(mean):
            raise Violation("10.6", walk.at - 16, f"mean is {mean}", "It must be finite.")
        if not (math.isfinite(gain) and gain >= 0):
            raise Violation("10.6", walk.at - 8, f"gain is {gain}", "It must be finite and not negative.")
    identity = walk.take(16, "the model", "10.5")
    levels = walk.byte("J", 0, 10, "10.6")
    planes = walk.varint("D", 1, 4096, "10.6")
    bits = walk.byte("b", 2, 8, "10.6")
    step = int.from_bytes(walk.take(4, "step", "10.5"), "little") / 2**16
    if not 2**-10 <= step <= 2**10:
        raise Violation("10.6", walk.at - 4, f"step is {step}", "It must be 2^-10 to 2^10, in 2^-16.")
    weighted = walk.byte("weighted", 0, 1, "10.6")
    window_at = walk.at
    window = walk.varint("window", 0, 2**40 - 1, "10.6") if kind == "image" else 0
    if 0 < window < 8:
        raise Violation("10.6", window_at, f"window is {window}", "It must be 0 for none, or 8 and more.")
    context = walk.varint("context", 0, window, "10.6") if window else 0
    at = walk.at
    slice_size = walk.varint("slice_size", 1, 2**40 - 1, "10.6")
    digest = walk.take(8, "the symbol hash", "10.5")
    if walk.at != end:
        raise Violation(
            "10.6",
            walk.at,
            f"{end - walk.at} bytes after the last field of HEAD",
            "The length of HEAD is wrong, or a field is.",
        )
    header = container.Header(
        kind=kind,
        sample_format=form,
        channels=channels,
        sizes=sizes,
        rate=rate,
        mean=mean,
        gain=gain,
        model_id=identity,
        J=levels,
        latent_dim=planes,
        latent_bits=bits,
        step=step,
        weighted=bool(weighted),
        window=window,
        context=context,
        slice_size=slice_size,
        symbol_hash=digest,
    )
    if header.samples > container.MAX_SAMPLES:
        raise Violation(
            "12.4", start, f"{header.samples} samples", f"A reader takes {container.MAX_SAMPLES} unless told otherwise."
        )
    if slice_size > header.latent_sizes[0]:
        hint = f"There are {header.latent_sizes[0]} latent positions along the first axis."
        raise Violation("10.6", at, f"slice_size is {slice_size}", hint)
    return header


def _certificate(data: bytes, start: int, end: int, samples: int) -> None:
    """The payload of CERTIFICATE."""
    walk = _Walk(data, start, end, "CERTIFICATE")
    walk.take(32, "the sample hash", "10.10")
    count = walk.varint("the count of uncertain samples", 0, end - start, "10.10")
    index = -1
    for _ in range(count):
        at = walk.at
        index += walk.varint("a gap", 0, 2**63 - 1, "10.10") + 1
        if index >= samples:
            raise Violation(
                "10.10", at, f"index {index} of {samples} samples", "Gaps count from the sample after the one before."
            )
    if walk.at != end:
        raise Violation(
            "10.10", walk.at, f"{end - walk.at} bytes after the last index", "The count is wrong, or the length."
        )


def _slices(data: bytes, start: int, header: container.Header) -> list[tuple[int, bytes]]:
    """The SLICES section: offset and payload of each slice."""
    walk = _Walk(data, start + 1, len(data), "SLICES")
    at = walk.at
    length = walk.varint("the length of SLICES", 0, 2**63 - 1, "10.8")
    left = len(data) - walk.at
    if length != left:
        hint = (
            "It counts all bytes after it, to the end of the stream; nothing may follow."
            if length < left
            else "The stream is truncated."
        )
        raise Violation("10.8", at, f"the length of SLICES is {length}, {left} bytes follow", hint)
    at = walk.at
    count = walk.varint("the count of slices", 0, 2**63 - 1, "10.8")
    wanted = -(-header.latent_sizes[0] // header.slice_size)
    if count != wanted:
        hint = f"{header.latent_sizes[0]} latent positions in slices of {header.slice_size} make {wanted}."
        raise Violation("10.8", at, f"{count} slices", hint)
    if 5 * count > len(data) - walk.at:
        raise Violation("10.8", at, f"{count} slices", "Their table alone is longer than the stream.")
    table = []
    for number in range(count):
        size = walk.varint(f"the length of slice {number}", 0, 2**63 - 1, "10.8")
        table.append((size, int.from_bytes(walk.take(4, f"the CRC of slice {number}", "10.8"), "little")))
    actual = zlib.crc32(data[start : walk.at])
    recorded = int.from_bytes(walk.take(4, "the CRC of the table", "10.8"), "little")
    if recorded != actual:
        hint = "It covers everything from the tag of SLICES to the end of the table, not the payloads."
        raise Violation(
            "10.8", walk.at - 4, f"the CRC of the table is {recorded:08x}, that of the bytes {actual:08x}", hint
        )
    if sum(size for size, _ in table) != len(data) - walk.at:
        hint = (
            f"The slices have {sum(size for size, _ in table)} bytes by their table, {len(data) - walk.at} follow it."
        )
        raise Violation("10.8", walk.at, "slices and their lengths do not fit", hint)
    slices = []
    for number, (size, crc) in enumerate(table):
        at = walk.at
        payload = walk.take(size, f"slice {number}", "10.8")
        if zlib.crc32(payload) != crc:
            raise Violation(
                "10.8",
                at,
                f"the CRC of slice {number} is {crc:08x}, that of its bytes {zlib.crc32(payload):08x}",
                "The slice is damaged.",
            )
        slices.append((at, payload))
    return slices


def _symbols(header: container.Header, slices: list[tuple[int, bytes]], model: models.Model) -> NDArray[np.int16]:
    """Everything that needs the model but no floating-point number."""
    config = model.config
    if not bytes.fromhex(model.model_id).startswith(header.model_id):
        raise Violation("8.8", 0, f"the stream's model is {header.model_id.hex()}…", f"This one is {model.model_id}.")
    for name, found, wanted in (
        ("kind", header.kind, config.kind),
        ("J", header.J, config.J),
        ("D", header.latent_dim, config.planes),
        ("b", header.latent_bits, config.latent_bits),
    ):
        if found != wanted:
            raise Violation("10.7", 0, f"{name} is {found} in HEAD, {wanted} in the model", "They must agree.")
    if header.window and not config.record.sees_everything:
        raise Violation("10.7", 0, f"window is {header.window}", f"No network of {config.architecture} has windows.")
    if header.channels not in (1, config.channels):
        raise Violation("10.7", 0, f"{header.channels} channels", f"The model takes {config.channels}, or 1.")
    parts = []
    for number, (offset, payload) in enumerate(slices):
        first = number * header.slice_size
        rows = min(header.slice_size, header.latent_sizes[0] - first)
        shape = header.slice_shape(number)
        if math.prod(shape) > entropy.max_symbols(len(payload)):
            hint = f"{len(payload)} bytes code at most {entropy.max_symbols(len(payload))}."
            raise Violation("12.5", offset, f"slice {number} has {math.prod(shape)} symbols", hint)
        try:
            symbols = chosen().decode_slice(payload, shape, model.tables)
        except WallocError as error:
            hint = f"It holds latent positions {first} to {first + rows - 1}. Run the vectors of `encode slice`."
            raise Violation(
                "7.10" if "residual" in str(error) else "7.13", offset, f"slice {number} does not decode: {error}", hint
            ) from error
        parts.append(symbols.reshape(header.latent_dim, rows, *header.latent_sizes[1:]))
    symbols = np.concatenate(parts, axis=1)
    digest = hashlib.sha256(np.ascontiguousarray(symbols, "<i2").tobytes()).digest()[:8]
    if digest != header.symbol_hash:
        hint = "It is over int16, little-endian, planes first, of all slices together."
        raise Violation("10.9", 0, f"the symbols' hash is {digest.hex()}, recorded is {header.symbol_hash.hex()}", hint)
    return symbols
