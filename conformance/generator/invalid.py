"""Inputs that are to be rejected: valid ones, damaged in one way each, every CRC made right again unless that is wrong.

Nothing here uses the package's writers: streams and weights files are taken apart and put together byte by byte.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import struct
import zlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import edges
import numpy as np

from walloc_ref.conform import compare
from walloc_ref.errors import MalformedStream
from walloc_ref.stages import autoencoder_kl, container, entropy, oobleck

MAGIC = bytes.fromhex("89574c43")
HEAD, SLICES, CERTIFICATE, ICC, EXIF, METADATA = 0x01, 0x02, 0x81, 0x82, 0x83, 0x84


def varint(value: int) -> bytes:
    """LEB128, shortest form."""
    out = []
    while value > 127:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def crc(data: bytes) -> bytes:
    """CRC-32, little-endian."""
    return struct.pack("<I", zlib.crc32(data))


def section(tag: int, payload: bytes, *, length: bytes | None = None, wrong_crc: bool = False) -> bytes:
    """A whole section."""
    body = bytes([tag]) + (varint(len(payload)) if length is None else length) + payload
    return body + (bytes(4) if wrong_crc else crc(body))


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint and where it ends."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


class Parts:
    """A valid stream of HEAD and SLICES, taken apart."""

    def __init__(self, data: bytes) -> None:
        assert data[:6] == MAGIC + b"\x01\x01", data[:6].hex()
        length, at = read_varint(data, 6)
        head, at = data[at : at + length], at + length + 4
        assert data[at] == SLICES
        _, at = read_varint(data, at + 1)
        count, at = read_varint(data, at)
        sizes = []
        for _ in range(count):
            size, at = read_varint(data, at)
            sizes.append(size)
            at += 4
        at += 4
        self.slices = []
        for size in sizes:
            self.slices.append(data[at : at + size])
            at += size
        assert at == len(data)
        self.head = self.fields(head)

    @staticmethod
    def fields(head: bytes) -> dict[str, bytes]:
        """Fields of HEAD by name."""
        audio, volume, at, out = head[0] == 1, head[0] == 2, 0, {}
        numbers = ["channels", "frames", "rate"] if audio else ["channels", *["depth"] * volume, "height", "width"]
        for name, size in (
            ("kind", 1),
            ("format", 1),
            *((n, 0) for n in numbers),
            *((("mean", 8), ("gain", 8)) if audio or head[1] == 5 else ()),
            ("model", 16),
            ("J", 1),
            ("D", 0),
            ("b", 1),
            ("step", 4),
            ("weighted", 1),
            *(() if audio or volume else (("window", 0),)),
            ("slice_size", 0),
            ("hash", 8),
        ):
            end = at + size if size else read_varint(head, at)[1]
            out[name], at = head[at:end], end
        assert at == len(head)
        return out

    def build(
        self,
        *,
        before: bytes = b"",
        after: bytes = b"",
        slices: list[bytes] | None = None,
        head: bytes | None = None,
        wrong_head_crc: bool = False,
        count: int | None = None,
        table_crc: bool = True,
        slice_crcs: dict[int, bytes] | None = None,
        length_off: int = 0,
        sizes: dict[int, int] | None = None,
        **fields: bytes,
    ) -> bytes:
        """The stream again, with some fields replaced; `before` goes between HEAD and SLICES."""
        payload = b"".join((self.head | fields).values()) + after if head is None else head
        slices = self.slices if slices is None else slices
        table = varint(len(slices) if count is None else count)
        for i, s in enumerate(slices):
            table += varint((sizes or {}).get(i, len(s))) + (slice_crcs or {}).get(i, crc(s))
        start = bytes([SLICES]) + varint(len(table) + 4 + sum(map(len, slices)) + length_off) + table
        tail = start + (crc(start) if table_crc else bytes(4)) + b"".join(slices)
        return MAGIC + b"\x01" + section(HEAD, payload, wrong_crc=wrong_head_crc) + before + tail


class Weights:
    """A weights file taken apart; `default`: one with the default tables, which are left out."""

    def __init__(self, data: bytes, *, default: bool = False) -> None:
        self.default = default
        (n,) = struct.unpack("<Q", data[:8])
        self.header: dict[str, Any] = json.loads(data[8 : 8 + n])
        self.metadata: dict[str, str] = self.header.pop("__metadata__")
        self.tensors = {
            name: (
                entry["dtype"],
                entry["shape"],
                data[8 + n + entry["data_offsets"][0] : 8 + n + entry["data_offsets"][1]],
            )
            for name, entry in self.header.items()
        }
        self.config: dict[str, Any] = json.loads(self.metadata["walloc_ref.config"])
        if default:  # they need not be there
            self.metadata.pop("walloc_ref.entropy", None)
            planes = self.config["latent_dim"] * self.config.get("num_stages", 1)
            self.tables = entropy.default_tables(planes, self.config["latent_bits"]).to_bytes()
        else:
            self.tables = base64.b64decode(self.metadata["walloc_ref.entropy"])

    def build(
        self,
        *,
        tensors: dict[str, Any] | None = None,
        tables: bytes | None = None,
        config: object = None,
        text: str = "",
        drop: Iterable[str] = (),
        shift: int = 0,
        more: bytes = b"",
        **metadata: str,
    ) -> bytes:
        """The file again; without the recorded identity unless `id` is given."""
        tensors = self.tensors if tensors is None else tensors
        meta = {k: v for k, v in self.metadata.items() if k != "walloc_ref.id"}
        if tables is not None:
            meta["walloc_ref.entropy"] = base64.b64encode(tables).decode()
        if config is not None:
            meta["walloc_ref.config"] = json.dumps(config, sort_keys=True, separators=(",", ":"))
        if text:
            meta["walloc_ref.config"] = text
        meta |= {f"walloc_ref.{key}": value for key, value in metadata.items()}
        meta = {key: value for key, value in meta.items() if key not in drop}
        header: dict[str, Any] = {"__metadata__": meta} if "__metadata__" not in drop else {}
        at, payload = 0, b""
        for name, (dtype, shape, data) in tensors.items():
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at + shift, at + shift + len(data)]}
            at += len(data)
            payload += data
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 8)
        return struct.pack("<Q", len(encoded)) + encoded + payload + more

    def identity_of_file(self) -> str:
        """The identity that the file records."""
        return self.metadata["walloc_ref.id"]

    def identity(
        self,
        *,
        tensors: dict[str, Any] | None = None,
        tables: bytes | None = None,
        config: object = None,
        steps: bytes | None = None,
    ) -> bytes:
        """First 16 bytes of the identity that such a file would have, were it valid."""
        tensors = self.tensors if tensors is None else tensors
        digest = hashlib.sha256(b"walloc model 1\n")
        text = json.dumps(self.config if config is None else config, sort_keys=True, separators=(",", ":")).encode()
        planes = struct.unpack("<H", self.tables[4:6])[0] if steps is None else 0
        weights = bytes([128] * planes) if steps is None else steps
        for part in (text, self.tables if tables is None else tables, weights):
            digest.update(struct.pack("<Q", len(part)) + part)
        for name in sorted(tensors):
            digest.update(name.encode() + b"\0" + tensors[name][2])
        return digest.digest()[:16]


def add_all(suite: Any) -> None:
    """All inputs that are to be rejected."""
    streams(suite)
    payloads(suite)
    weights(suite)
    samples(suite)


def _adder(suite: Any, op: str, stage: str, ending: str, signal: str):
    """A function that adds one input that is to be rejected."""

    def add(name: str, data: bytes, fault: str, clauses: str, note: str, model: str = "linear", **more: object) -> None:
        file = suite.file(f"vectors/invalid/{name}.{ending}", data)
        suite.add(
            op,
            stage,
            f"invalid-{name}",
            model,
            file,
            None,
            "reject",
            "damage",
            signal,
            ["12.1", *clauses.split()],
            fault=fault,
            note=note,
            **more,
        )

    return add


def streams(suite: Any) -> None:
    """Damaged streams."""
    add = _adder(suite, "decode", "symbols", "wlc", "stream")
    whole = suite.files["vectors/linear-slices/stream.wlc"]
    parts = Parts(whole)
    audio = Parts(suite.files["vectors/codec1d-slices/stream.wlc"])
    head = b"".join(parts.head.values())
    bad = "malformed"
    fixed = {"flags": ["fixed-crc"]}

    add("empty", b"", bad, "10.1 12.2", "no bytes at all")
    add("magic", b"\x88" + whole[1:], bad, "10.1", "the first byte of the magic is another")
    add(
        "magic-text",
        whole.replace(b"\n", b"\r\n") if b"\n" in whole else b"\x09" + whole[1:],
        bad,
        "10.1 12.2",
        "went through a transfer as text",
    )
    add("magic-only", whole[:4], bad, "10.1 12.2", "ends after the magic")
    add("version-0", whole[:4] + b"\x00" + whole[5:], "unsupported", "10.1", "version 0")
    add("version-2", whole[:4] + b"\x02" + whole[5:], "unsupported", "10.1", "version 2")
    for name, size in (
        ("version", 5),
        ("head-tag", 6),
        ("head", 20),
        ("head-crc", 7 + len(head) + 2),
        ("slices-tag", 7 + len(head) + 4),
        ("table", 7 + len(head) + 20),
        ("payload", len(whole) - 30),
        ("last-byte", len(whole) - 1),
    ):
        add(
            f"truncated-{name}",
            whole[:size],
            bad,
            "10.8 12.2" if size > 60 else "10.2 12.2",
            f"ends after {size} bytes",
        )
    add("appended-byte", whole + b"\0", bad, "10.3 12.2", "one byte follows")
    add("appended-stream", whole + whole, bad, "10.3 12.2", "a second stream follows")
    tail = whole[len(MAGIC) + 1 + len(section(HEAD, head)) :]
    start = MAGIC + b"\x01"
    add("head-missing", start + tail, bad, "10.3", "SLICES comes first")
    add("head-second", start + section(EXIF, b"x") + section(HEAD, head) + tail, bad, "10.3", "EXIF comes before HEAD")
    add("head-twice", parts.build(before=section(HEAD, head)), bad, "10.3", "two HEAD sections")
    add("slices-missing", start + section(HEAD, head), bad, "10.3 12.2", "no SLICES section")
    for tag, name in ((CERTIFICATE, "certificate"), (ICC, "icc"), (EXIF, "exif"), (METADATA, "metadata")):
        payload = {CERTIFICATE: bytes(32) + b"\0", METADATA: b"{}"}.get(tag, b"abc")
        add(
            f"{name}-twice",
            parts.build(before=section(tag, payload) * 2),
            bad,
            "10.3",
            f"two sections of tag {tag:02x}",
            **fixed,
        )
    for tag in (0x00, 0x03, 0x7F):
        add(
            f"critical-{tag:02x}",
            parts.build(before=section(tag, b"new")),
            "unsupported",
            "10.4",
            "an unknown critical section",
            **fixed,
        )
    add("crc-head", parts.build(wrong_head_crc=True), bad, "10.2", "the CRC of HEAD is zero")
    flipped = bytearray(whole)
    flipped[7 + len(head) + 3] ^= 0x80
    add("crc-head-upper", bytes(flipped), bad, "10.2", "the last bit of the CRC of HEAD is another")
    for tag, name, payload in (
        (CERTIFICATE, "certificate", bytes(32) + b"\0"),
        (ICC, "icc", b"abc"),
        (EXIF, "exif", b"abc"),
    ):
        right = section(tag, payload)
        wrong = right[:-1] + bytes([right[-1] ^ 0x80])
        add(f"crc-{name}", parts.build(before=wrong), bad, "10.2", f"the last bit of the CRC of {name} is another")
    flipped = bytearray(whole)
    flipped[9] ^= 1
    add("crc-head-bit", bytes(flipped), bad, "10.2", "a bit of HEAD is flipped")
    add(
        "crc-ancillary",
        parts.build(before=section(0x90, b"unknown", wrong_crc=True)),
        bad,
        "10.2 10.4",
        "an unknown ancillary section with a wrong CRC: it is skipped, but checked",
    )
    add("crc-table", parts.build(table_crc=False), bad, "10.8", "the CRC of the slices' table is zero")
    upper = crc(parts.slices[1])
    upper = upper[:2] + bytes([upper[2] ^ 1]) + upper[3:]
    note = "the recorded CRC of a slice is wrong in its upper half"
    add("crc-slice-upper", parts.build(slice_crcs={1: upper}), bad, "10.8", note, **fixed)
    add("crc-slice", parts.build(slice_crcs={1: bytes(4)}), bad, "10.8", "the recorded CRC of a slice is zero", **fixed)
    flipped = bytearray(whole)
    flipped[-1] ^= 0x10
    add("slice-bit", bytes(flipped), bad, "10.8", "a bit of the last slice is flipped")
    add(
        "varint-padded",
        start + section(HEAD, head, length=bytes([len(head) | 0x80, 0])) + tail,
        bad,
        "1.6",
        "a length with a superfluous byte",
        **fixed,
    )
    add(
        "varint-long",
        start + section(HEAD, head, length=bytes([len(head) | 0x80] + [0x80] * 9 + [0])) + tail,
        bad,
        "1.6",
        "a length of 11 bytes",
        **fixed,
    )
    ten = bytes([len(head) | 0x80] + [0x80] * 8 + [0])
    add(
        "varint-ten",
        start + section(HEAD, head, length=ten) + tail,
        bad,
        "1.6",
        "a length of exactly 10 bytes",
        **fixed,
    )
    add(
        "varint-head",
        parts.build(height=bytes([parts.head["height"][0] | 0x80, 0])),
        bad,
        "1.6",
        "a height with a superfluous byte",
        **fixed,
    )
    add(
        "section-length",
        start + bytes([HEAD]) + varint(1 << 40) + head + tail,
        bad,
        "10.2 12.4",
        "HEAD claims 2^40 bytes",
    )

    header = _adder(suite, "decode", "header", "wlc", "stream")

    def field(
        name: str,
        value: bytes,
        clauses: str,
        note: str,
        base: Parts = parts,
        fault: str = bad,
        key: str = "",
        **more: Any,
    ) -> None:
        (which,) = note.split()[:1]
        key = key or ("codec1d" if base is audio else "linear")
        data = base.build(**{which: value}, **more)
        add(f"head-{name}", data, fault, clauses, note, key, **fixed)
        if not {"10.5", "10.6"}.isdisjoint(clauses.split()):  # 10.7 does not refuse it, where no model is compared
            header(f"head-{name}", data, fault, clauses, note, key, **fixed)

    field("kind", b"\x03", "10.5 10.6", "kind 3")
    field("kind-volume", b"\x02", "10.5 10.7", "kind 2 for an image: the fields do not fit")
    field("kind-other", b"\x01", "10.5 10.7", "kind 1 for an image: the fields do not fit")
    field("format-7", b"\x07", "3.1 10.5", "format 7")
    field("format-s24", b"\x03", "3.1 10.5", "format s24 for an image")
    field("format-f64", b"\x06", "3.1 10.5", "format f64 for an image")
    field("format-f32", b"\x05", "10.5", "format f32 for an image, but no mean and gain follow")
    field("format-u16", b"\x01", "3.1 10.5", "format u16 for audio", audio)
    field("channels-0", b"\x00", "10.6", "channels 0")
    field("channels-2", b"\x02", "10.7", "channels 2 in a model of 3")
    field("channels-4097", varint(4097), "10.6", "channels 4097")
    field("height-0", b"\x00", "10.6", "height 0")
    field("width-0", b"\x00", "10.6", "width 0")
    field("height-2-40", varint(1 << 40), "10.6 12.4", "height 2^40", fault="limit")
    field("frames-0", b"\x00", "10.6", "frames 0", audio)
    field("rate-0", b"\x00", "10.6", "rate 0", audio)
    field("rate-2-32", varint(1 << 32), "10.6", "rate 2^32", audio)
    field("mean-nan", struct.pack("<d", float("nan")), "10.6", "mean NaN", audio)
    field("mean-infinite", struct.pack("<d", float("inf")), "10.6", "mean infinite", audio)
    field("gain-nan", struct.pack("<d", float("nan")), "10.6", "gain NaN", audio)
    field("gain-negative", struct.pack("<d", -1.0), "10.6", "gain -1", audio)
    field("gain-infinite", struct.pack("<d", float("inf")), "10.6", "gain infinite", audio)
    field("J-11", b"\x0b", "10.6", "J 11", slices=parts.slices[:1], slice_size=b"\x01")
    field("J-other", b"\x03", "10.7", "J 3 in a model of 2")
    field("D-0", b"\x00", "10.6", "D 0")
    field("D-large", varint(4097), "10.6", "D 4097")
    field("D-other", b"\x05", "10.7", "D 5 in a model of 6")
    field("b-1", b"\x01", "10.6", "b 1")
    field("b-9", b"\x09", "10.6", "b 9")
    field("b-other", b"\x07", "10.7", "b 7 in a model of 8")
    field("step-0", bytes(4), "10.6", "step 0")
    field("step-small", struct.pack("<I", 63), "10.6", "step 63/65536")
    field("step-large", struct.pack("<I", (1 << 26) + 1), "10.6", "step 2^10 + 2^-16")
    field("step-0-audio", bytes(4), "10.6", "step 0 of audio", audio)
    field("weighted-2", b"\x02", "10.6", "weighted 2")
    small = Parts(suite.files["vectors/codec2d-5x2/stream.wlc"])
    field("window-7", b"\x07\x00", "10.6", "window 7", small, key="codec2d")
    field("window-1", b"\x01\x00", "10.6", "window 1", small, key="codec2d")
    field("window-2-40", varint(1 << 40) + b"\x00", "10.6", "window 2^40", small, key="codec2d")
    field("window-context-model", b"\x08\x09", "10.6", "window 8 with a context of 9", small, key="codec2d")
    field("window-linear", b"\x08\x00", "10.7", "window 8 for LinearCodec2D")
    field("window-context", b"\x08\x09", "10.6", "context 9 of window 8")
    field("slice-size-0", b"\x00", "10.6", "slice_size 0")
    field("slice-size-large", varint(17), "10.6 10.8", "slice_size 17 for 16 rows")
    single = Parts(suite.files["vectors/linear-7x11/stream.wlc"])
    field("slice-size-alone", b"\x03", "10.6", "slice_size 3 for 2 rows, in one slice", single)
    field("slice-size-other", b"\x05", "10.8", "slice_size 5 with the slices of 4")
    add("head-long", parts.build(after=b"\0"), bad, "10.6", "a byte after the last field of HEAD", **fixed)
    add("head-short", parts.build(head=head[:-1]), bad, "10.5 10.6", "HEAD lacks its last byte", **fixed)
    field("model", bytes(16), "8.8", "model of zeros", fault="wrong-model")
    other = bytearray(parts.head["model"])
    other[15] ^= 1
    field("model-bit", bytes(other), "8.8", "model differs in the last bit", fault="wrong-model")
    add(
        "model-other",
        suite.files["vectors/linear-j3-zone/stream.wlc"],
        "wrong-model",
        "8.8",
        "a valid stream with the file of another model",
    )
    broken = bytearray(parts.head["hash"])
    broken[7] ^= 0x80
    field("hash", bytes(broken), "10.9", "hash differs in one bit", fault="wrong-hash")

    n = len(parts.slices)
    gap = parts.build(length_off=1) + b"\0"
    add("slices-gap", gap, bad, "10.8", "a byte between the last slice and the end that the section declares", **fixed)
    add("count-less", parts.build(slices=parts.slices[:-1]), bad, "10.8", "the last slice is missing", **fixed)
    add("count-more", parts.build(slices=[*parts.slices, parts.slices[0]]), bad, "10.8", "a slice too many", **fixed)
    note = "the last slice is missing; of the header alone nothing else would tell"
    header("count-less", parts.build(slices=parts.slices[:-1]), bad, "10.8", note, **fixed)
    header("count-more", parts.build(slices=[*parts.slices, parts.slices[0]]), bad, "10.8", "a slice too many", **fixed)
    add("count-lie", parts.build(count=n + 1), bad, "10.8", "the table has one entry less than it says", **fixed)
    add("count-huge", parts.build(count=1 << 50), "limit", "10.8 12.4", "2^50 slices", **fixed)
    tall = {"height": varint(1 << 28), "width": b"\x01", "slice_size": b"\x01"}
    note = "2^26 slices of one row, none of which is there"
    add("count-truncated", parts.build(slices=[], count=1 << 26, **tall), bad, "10.8 12.4", note, **fixed)
    add("length-less", parts.build(length_off=-1), bad, "10.8", "the length of SLICES is one too small", **fixed)
    add("length-more", parts.build(length_off=1), bad, "10.8", "the length of SLICES is one too large", **fixed)
    add(
        "slice-length",
        parts.build(sizes={0: len(parts.slices[0]) + 1}),
        bad,
        "10.8",
        "a slice is one byte shorter than its length",
        **fixed,
    )
    add(
        "slices-swapped",
        parts.build(slices=[parts.slices[1], parts.slices[0], *parts.slices[2:]]),
        "wrong-hash",
        "10.8 10.9",
        "two slices have changed places: they may decode, but to other symbols",
        **fixed,
    )
    add("slice-empty", parts.build(slices=[b"", *parts.slices[1:]]), bad, "7.13 12.2", "a slice of no bytes", **fixed)
    add(
        "slice-cut",
        parts.build(slices=[parts.slices[0][:-1], *parts.slices[1:]]),
        bad,
        "7.13 12.2",
        "a slice lacks its last byte",
        **fixed,
    )
    add(
        "slice-long",
        parts.build(slices=[parts.slices[0] + b"\0", *parts.slices[1:]]),
        bad,
        "7.13 12.2",
        "a byte follows in a slice",
        **fixed,
    )
    big = {"height": varint(1 << 16), "width": varint(1 << 15), "slice_size": varint(1 << 14)}
    add("limit-samples", parts.build(slices=[parts.slices[0]], **big), "limit", "12.4", "2^31 pixels", **fixed)
    big = {"height": varint(1 << 14), "width": varint(1 << 14), "slice_size": varint(1 << 12)}
    add(
        "limit-payload",
        parts.build(slices=[parts.slices[0]], **big),
        "limit",
        "12.5",
        "2^28 pixels in a slice of a few bytes",
        **fixed,
    )
    big = {"frames": varint(1 << 28), "slice_size": varint((1 << 25) + 2)}
    add(
        "limit-audio",
        audio.build(slices=[audio.slices[0]], **big),
        "limit",
        "12.5",
        "2^28 frames in a slice of a few bytes",
        "codec1d",
        **fixed,
    )

    other_kinds(suite, add, parts, audio)
    wide = Parts(suite.files["vectors/edge-limit/stream.wlc"])
    note = "more than 2^30 samples, in symbols that the payload holds"
    for one in (add, header):
        one("limit-samples-alone", wide.build(), "limit", "12.4", note, "edge-wide", **fixed)

    def certificate(name: str, payload: bytes, note: str) -> None:
        add(f"certificate-{name}", parts.build(before=section(CERTIFICATE, payload)), bad, "10.10", note, **fixed)

    total = 61 * 40 * 3
    certificate("short", bytes(31), "the certificate has 31 bytes")
    certificate("count", bytes(32) + varint(1 << 40), "the certificate claims 2^40 indices")
    certificate("index", bytes(32) + b"\x01" + varint(total), "an index is the number of samples")
    certificate(
        "index-sum", bytes(32) + b"\x02" + varint(total - 1) + b"\0", "the second index is the number of samples"
    )
    certificate("long", bytes(32) + b"\x00\x00", "a byte follows in the certificate")
    add = _adder(suite, "decode", "stream", "wlc", "stream")
    add(
        "certificate-hash",
        parts.build(before=section(CERTIFICATE, bytes(32) + b"\0")),
        "wrong-hash",
        "10.11",
        "the hash of the samples is zero",
        levels=["decoder"],  # a certificate means nothing to a decoder-binary32
        **fixed,
    )

    # and what must not be rejected
    file = suite.file(
        "vectors/valid/unknown-ancillary.wlc",
        parts.build(before=section(0x90, b"from the future") + section(0xFF, b"")),
    )
    suite.add(
        "decode",
        "symbols",
        "unknown-ancillary",
        "linear",
        file,
        "vectors/linear-slices/symbols.npy",
        "exact",
        "construction",
        "photo",
        ["10.3", "10.4"],
        flags=["ancillary"],
    )


def other_kinds(suite: Any, add: Any, image: Parts, audio: Parts) -> None:
    """Streams that are not of the kind of their model, with all else its own, so that only 10.7 refuses them."""
    volume = Parts(suite.files["vectors/volume-slices/stream.wlc"])
    for name, key, base, sizes in (
        ("audio", "linear", audio, {"frames": 9}),
        ("volume", "linear", volume, {"depth": 1, "height": 5, "width": 6}),
        ("image-of-audio", "codec1d", image, {"height": 5, "width": 6}),
        ("volume-of-audio", "codec1d", volume, {"depth": 2, "height": 3, "width": 4}),
        ("image-of-volume", "volume-plain", image, {"height": 5, "width": 6}),
        ("audio-of-volume", "volume-plain", audio, {"frames": 9}),
    ):
        model = suite.models[key]
        config, kind = model.config, container.KINDS[base.head["kind"][0]]
        positions = container.latent_sizes(kind, tuple(sizes.values()), config.J)
        rows = (1, *positions) if kind == "audio" else positions
        symbols = np.random.default_rng(1).integers(-1, 2, (config.planes, *rows)).astype(np.int16)
        data = base.build(
            slices=[entropy.encode(symbols, model.tables)],
            channels=varint(config.channels),
            model=bytes.fromhex(model.model_id)[:16],
            J=bytes([config.J]),
            D=varint(config.planes),
            b=bytes([config.latent_bits]),
            slice_size=varint(positions[0]),
            hash=container.symbol_hash(symbols),
            **{field: varint(size) for field, size in sizes.items()},
        )
        flags = ["fixed-crc", *({"audio", "volume"} & {kind, config.kind})]
        note = f"a stream of {kind} of a model of {config.kind}, whose fields and symbols fit"
        add(f"kind-{name}", data, "malformed", "10.7", note, key, flags=sorted(flags))


def payloads(suite: Any) -> None:
    """Damaged slices."""
    add = _adder(suite, "decode", "slice", "slice", "symbols")
    symbols = compare.read_array(suite.files["vectors/coder-linear-6x13x17/symbols.npy"])
    payload = suite.files["vectors/coder-linear-6x13x17/slice.bin"]
    shape = symbols.shape
    write = compare.write_slice
    for name, data, note in (
        ("payload-empty", b"", "no bytes"),
        ("payload-one", payload[:1], "one byte"),
        ("payload-cut", payload[:-1], "the last byte is missing"),
        ("payload-half", payload[: len(payload) // 2], "the second half is missing"),
        ("payload-long", payload + b"\0", "a byte follows"),
        ("payload-longer", payload + payload, "the payload follows once more"),
        ("payload-zeros", bytes(len(payload)), "all bytes are zero"),
        ("payload-beyond", b"\xff" * 4 + bytes(60), "four bytes FF, beyond the first interval"),
        ("payload-beyond-for-good", b"\xff" * 64, "64 bytes FF: value would grow to 505 bits"),
    ):
        add(name, write(shape, data), "malformed", "7.13 12.2", note)
    large = np.zeros((12, 3, 3), np.int16)
    large[0, 0, 0] = 100  # at 7 bits a symbol is at most 63
    # a last byte that decodes to the same symbols and is not the encoder's
    for width in range(1, 40):
        short = np.ascontiguousarray(symbols[:, :1, :width]) if width <= 17 else symbols[:, :2, : width - 17]
        short = np.ascontiguousarray(short)
        right = entropy.encode(short, suite.models["linear"].tables)
        last = right[:-1] + bytes([right[-1] + 1 & 255])
        read = np.zeros(short.shape, np.int16)
        try:
            decoder = entropy.Decoder(last)
            entropy.walk_slice(decoder, read, suite.models["linear"].tables)
        except ValueError:
            continue
        if right[-1] < 255 and (read == short).all() and decoder.at == len(last) + 3:
            add("payload-last-byte", write(short.shape, last), "malformed", "7.13", "the last byte is one larger")
            break
    else:
        raise AssertionError("no slice whose last byte has a choice")
    stop = suite.files["vectors/coder-stop/slice.bin"]
    data = stop[:-1] + bytes([stop[-1] + 1])
    note = "the last byte is one larger, and so 2^24 from the encoder's"
    add("payload-last-byte-bound", write((1, 1, 1), data), "malformed", "7.13", note, "edge-stop")
    for name, data, note in (
        ("short", suite.files["vectors/coder-halves-alone/slice.bin"][:-1], "the last byte is missing"),
        ("more", suite.files["vectors/coder-halves-alone/slice.bin"] + b"\0", "a byte follows"),
    ):
        add(f"payload-{name}", write((10, 1, 1), data), "malformed", "7.13 12.2", note, "edge-halves")
    # a residual whose bits are few enough and whose value is too large: only the last check of 7.10 sees it
    tight = suite.models["edge-rooms"].tables
    for plane, value in itertools.product(range(9), range(-255, 256)):
        one = np.zeros((9, 1, 1), np.int16)
        one[plane] = value
        coder = entropy.Encoder()
        with contextlib.suppress(MalformedStream):
            entropy.walk_slice(coder, one.copy(), tight)
            continue
        loose = entropy.code_residual
        try:
            coder = entropy.Encoder()
            entropy.code_residual = lambda *a, loose=loose: loose(*a[:-1], (10**6, 10**6))
            entropy.walk_slice(coder, one.copy(), tight)
        finally:
            entropy.code_residual = loose
        data = coder.finish()
        try:
            entropy.decode(data, one.shape, tight)
        except MalformedStream as error:
            if str(error.value).startswith("a residual of") and not str(error.value).endswith("or more"):
                note = f"a symbol of {value}: the residual has few enough bits and is too large"
                add("residual-value", write(one.shape, data), "malformed", "7.10", note, "edge-rooms")
                break
    else:
        raise AssertionError("no such residual")
    tables = suite.models["linear-j3"].tables
    data = entropy.encode(large, replace(tables, latent_bits=8))
    add("residual-large", write(large.shape, data), "malformed", "7.10", "a symbol of 100 at 7 bits", "linear-j3")
    coder = entropy.Encoder()
    entropy.walk_slice(coder, np.full((5, 2, 2), 3, np.int16), suite.models["linear"].tables)
    five = write((5, 2, 2), coder.finish())
    add("shape-planes", five, "malformed", "7.1", "5 planes in a model of 6, coded as if it had 5")
    nothing = entropy.Encoder().finish()
    add("shape-zero", write((6, 0, 17), nothing), "malformed", "7.1", "no rows, and the payload of no symbols")
    add("shape-rows", write((6, 12, 17), payload), "malformed", "7.13 12.2", "a row less than was coded: bytes remain")
    add("shape-huge", write((6, 1 << 20, 1 << 20), payload), "limit", "12.4 12.5", "2^40 positions")


def weights(suite: Any) -> None:
    """Damaged weights files, with a stream that would fit them."""
    parts = Parts(suite.files["vectors/linear-7x11/stream.wlc"])
    good = Weights(suite.files["models/linear.safetensors"], default=True)

    def add(
        name: str,
        data: bytes,
        clauses: str,
        note: str,
        stage: str = "symbols",
        identity: bytes | None = None,
        parts: Parts = parts,
    ) -> None:
        key = f"invalid-{name}"
        file = suite.file(f"models/invalid/{name}.safetensors", data)
        kind = "audio" if b"Codec1D" in data else "image"
        suite.entries[key] = {"file": file, "id": None, "kind": kind, "config": None, "source": "damaged on purpose"}
        stream = suite.file(
            f"vectors/invalid-model/{name}.wlc", parts.build(**({"model": identity} if identity else {}))
        )
        suite.add(
            "decode",
            stage,
            f"model-{name}",
            key,
            stream,
            None,
            "reject",
            "damage",
            "model",
            ["12.1", *clauses.split()],
            fault="malformed",
            note=note,
        )

    raw = good.build()
    (n,) = struct.unpack("<Q", raw[:8])
    add("empty", b"", "8.1", "no bytes")
    add("cut", raw[:-1], "8.1", "the last byte is missing")
    add("cut-header", raw[: 8 + n // 2], "8.1", "ends within the header")
    add("header-length", struct.pack("<Q", 1 << 62) + raw[8:], "8.1 12.4", "a header of 2^62 bytes")
    add("header-json", raw[:8] + b"[" + raw[9:], "8.1", "the header is not JSON")
    add("appended", raw + bytes(4), "8.1", "four bytes follow the tensors")
    add("hole", good.build(shift=4, more=b""), "8.1", "tensors begin at offset 4 and end beyond the file")
    add("metadata", good.build(drop=["__metadata__"]), "8.2", "no metadata")
    add("format", good.build(format="2"), "8.2", "format 2")
    add("format-missing", good.build(drop=["walloc_ref.format"]), "8.2", "no format")
    add("id", good.build(id="0" * 64), "8.2 8.6", "the recorded identity is not that of the content")
    add("config-missing", good.build(drop=["walloc_ref.config"]), "8.2 8.3", "no configuration")
    add("config-json", good.build(text="{"), "8.3", "the configuration is not JSON")
    add("config-list", good.build(config=[1]), "8.3", "the configuration is a list")

    # and what is another file, but the same model
    plain = {"config": good.config | {"batch_size": 64}, "drop": ["walloc_ref.entropy", "walloc_ref.name"]}
    turned = dict(reversed(good.tensors.items()))
    for name, data, note in (
        ("default-tables", good.build(drop=["walloc_ref.entropy"]), "without tables: the default ones hold"),
        ("rewritten", good.build(tensors=turned, comment="made elsewhere", **plain), "written by another program"),
    ):
        file = suite.file(f"models/valid/{name}.safetensors", data)
        entry = suite.entries["linear"]
        suite.entries[name] = entry | {"file": file, "source": "the model linear, written in another way"}
        stream, symbols = (f"vectors/linear-7x11/{part}" for part in ("stream.wlc", "symbols.npy"))
        clauses = ["7.16", "8.1", "8.2", "8.3", "8.4", "8.6", "8.8"]
        how = ("exact", "construction", "photo", clauses)
        suite.add("decode", "symbols", f"model-{name}", name, stream, symbols, *how, note=note)

    def config(
        name: str, note: str, stage: str = "symbols", base: Weights = good, drop: str = "", **fields: object
    ) -> None:
        changed = {key: value for key, value in (base.config | fields).items() if key != drop}
        identity = base.identity(config=changed)
        add(f"config-{name}", base.build(config=changed), "8.3", note, stage, identity)

    config("field-missing", "latent_dim is missing", drop="latent_dim")
    config("architecture", "an unknown architecture", architecture="Codec3D")
    config("bits-9", "latent_bits 9", latent_bits=9)
    config("bits-float", "latent_bits 8.0", latent_bits=8.0)
    config("bits-true", "latent_bits true", latent_bits=True)
    config("J-11", "J 11", J=11)
    config("J-negative", "J -1", J=-1)
    config("channels-0", "channels 0", channels=0)
    config("channels-4097", "channels 4097", channels=4097, J=0)
    config("dim-0", "latent_dim 0", latent_dim=0)
    config("bands", "2^26 subbands", "stream", channels=64, J=10)
    sound = Weights(suite.files["models/edge-sound.safetensors"], default=True)
    clip = Parts(suite.files["vectors/edge-rate/stream.wlc"])
    for name, more, note in (
        ("boolean", {"post_filter": 0}, "post_filter 0, which is no boolean"),
        ("ne-null", {"lightweight_encode": False}, "a full encoder without a width"),
        ("ne-large", {"lightweight_encode": False, "Ne": 8193}, "a full encoder 8193 wide"),
        ("ne-text", {"Ne": "7"}, "an Ne that does not count and is no integer"),
        ("ne-true", {"Ne": True}, "an Ne that does not count and is true"),
        ("ne-digits", {"Ne": 10**15}, "an Ne that does not count and has 16 digits"),
        ("ne-digits-minus", {"Ne": -(10**15)}, "an Ne that does not count and has a minus and 16 digits"),
    ):
        changed = sound.config | more
        data, identity = sound.build(config=changed), sound.identity(config=changed)
        add(f"config-{name}", data, "8.3", note, identity=identity, parts=clip)
    stages = {"architecture": "ResidualCodec2D", "latent_dim": 4096, "num_stages": 64}
    config("planes-2-18", "2^18 planes, each field within its own limits", **stages)
    config("architecture-number", "architecture 7", architecture=7)
    config("architecture-list", "architecture is a list", architecture=["LinearCodec2D"])
    alone(suite, add)

    steps = base64.b64encode(bytes([128] * 5)).decode()
    few = good.identity(steps=bytes([128] * 5))
    add("steps-5", good.build(steps=steps), "8.2", "step weights of 5 planes in a model of 6", identity=few)
    strict(suite, add, good)
    add("steps-base64", good.build(steps="=!"), "8.2", "the step weights are not base64")
    add("tables-base64", good.build(entropy="=!"), "8.2", "the tables are not base64")

    def tables(name: str, changed: bytes, clauses: str, note: str) -> None:
        add(f"tables-{name}", good.build(tables=changed), clauses, note, identity=good.identity(tables=changed))

    right = good.tables  # 6 planes, 8 bits, no hidden units
    counts, taps = 8, 8 + 2 * 6
    units = taps + 3 * sum(right[counts:taps:2])
    states = len(right) - 2 * (512 + 16 * (748 + 11 * 6))

    def put(at: int, *values: int, kind: str = "B") -> bytes:
        packed = struct.pack(f"<{len(values)}{kind}", *values)
        return right[:at] + packed + right[at + len(packed) :]

    def whole_tables(
        name: str, note: str, taps: Any, units: Any, biases: Any, outputs: Any = None, coded: bool = False, **more: Any
    ) -> None:
        bits = more.pop("bits", 8)
        data = edges.serialised(bits, taps, units, biases, outputs, **more)
        base = Weights(suite.files["models/edge-bytes.safetensors"], default=True)
        identity = base.identity(tables=data)
        stream: Any = Parts(suite.files["vectors/edge-one/stream.wlc"])
        if coded:  # by these tables, whose taps count as 0 at the first position
            symbols = np.full((1, 1, 1), 3, np.int16)
            alike = edges.serialised(bits, [[]], [[]], biases, outputs, **more)
            payload = entropy.encode(symbols, entropy.Tables.from_bytes(alike))
            stream = Altered(stream, {"slices": [payload], "hash": container.symbol_hash(symbols)})
        add(f"tables-{name}", base.build(tables=data), "7.2 7.3", note, identity=identity, parts=stream)

    whole_tables("bits", "tables of 7 bits in a model of 8", [[]], [[]], [[0, 4096]], bits=7, coded=True)
    note = "a tap at the depth position before in a model of images"
    whole_tables("tap-depth", note, [[(0, 1, 0, -1)]], [[[64, 0]]], [[0, 4096]], coded=True)
    note = "a tap of the own plane in the row below, to the left"
    whole_tables("tap-below-left", note, [[(1, 0, 1, -1)]], [[[0, 1]]], [[0, 4096]], coded=True)
    note = "a unit of a deviation that just reaches 2^31 - 2^16"
    bound = [[0, 2**31 - 2**16 - 1023]]
    whole_tables("units-deviation-bound", note, [[(1, 0, 0, -1)]], [[[0, 1]]], bound, coded=True)
    left = (1, 0, 0, -1)
    whole_tables("taps-161", "161 taps, nothing else wrong", [[left] * 161], [[[0, 1]] * 161], [[0, 4096]])
    whole_tables("hidden-63", "63 hidden units", [[left]], [[[0] * 65]], [[0, 4096] + [0] * 63], [[[0, 0]] * 63])
    note = "a tap of kind 2 in whole tables"
    whole_tables("kind-2", note, [[(2, 0, 0, -1)]], [[[0, 1]]], [[0, 4096]])
    note = "units that may reach 2^31 - 2^16"
    whole_tables("units", note, [[left] * 65], [[[0, 32767]] * 65], [[0, 0]])
    whole_tables(
        "units-hidden", "a hidden unit's weights", [[left] * 66], [[[0, 0, -32768]] * 66], [[0, 0, 0]], [[[0, 0]]]
    )
    whole_tables("bias", "a bias of 2^31 - 2^16", [[]], [[]], [[0, 2**31 - 2**16]])
    whole_tables("bias-negative", "a bias of 2^16 - 2^31", [[]], [[]], [[2**16 - 2**31, 0]])
    note = "units of symbols that may reach 2^31, those of deviations would not"
    symbol = (0, 0, 0, -1)
    whole_tables("units-symbols", note, [[symbol] * 33], [[[0, 32767]] * 33], [[0, 0]])
    note = "units of symbols that just reach 2^31 - 2^16"
    bias = 2**31 - 2**16 - 32 * 2032 * 32767
    whole_tables("units-symbols-bound", note, [[symbol] * 32], [[[0, 32767]] * 32], [[0, bias]])
    outputs = [[[32767, 0], [32767, 0], [2, 0]]]
    whole_tables("outputs-bound", "outputs that just reach 2^31 - 2^16", [[]], [[]], [[0] * 5], outputs)
    outputs = [[[32767, 0]] * 3]
    whole_tables("outputs", "outputs that may reach 2^31", [[]], [[]], [[0] * 5], outputs)
    whole_tables("outputs-scale", "outputs of the scale", [[]], [[]], [[0] * 5], [[[0, -30000], [0, 30000], [0, 6000]]])
    whole_tables(
        "state-15", "the last state is 15", [[]], [[]], [[0, 4096]], states=np.append(np.full(16 * 759 - 1, 32768), 15)
    )
    tables("empty", b"", "7.3", "tables of no bytes")
    tables("cut", right[:-1], "7.3", "the tables lack their last byte")
    tables("long", right + b"\0", "7.3", "a byte follows the tables")
    tables("magic", put(0, right[0] ^ 1), "7.2 7.3", "the first byte of the tables is another")
    for name, changed, note in (
        ("magic", put(0, right[0] ^ 1), "the first byte of the tables is another"),
        ("long", right + b"\0", "a byte follows the tables"),
    ):  # written again, they would be those of the stream
        add(f"tables-{name}-alone", good.build(tables=changed), "7.2 7.3", note, identity=good.identity())
    tables("planes", put(4, 5, kind="H"), "7.3", "tables of 5 planes in a model of 6")
    tables("many-taps", put(counts, 161), "7.2 7.3", "161 taps")
    tables("many-hidden", put(counts + 1, 63), "7.2 7.3", "63 hidden units")
    tables("tap-here", put(taps + 2, 49 + 24), "7.2 7.3", "a tap at the position itself")
    tables("tap-later-row", put(taps + 2, 49 + 31), "7.2 7.3", "a tap in the row below")
    tables("tap-later-plane", put(taps, 1, kind="H"), "7.2 7.3", "a tap of the first plane in the second")
    tables("tap-kind", put(taps + 2, 98), "7.2 7.3", "a tap of kind 2")
    bias = units + 4 * right[counts]
    tables("overflow", put(bias, 2**31 - 2**16, kind="i"), "7.3", "a bias of 2^31 - 2^16")
    near = put(bias, 1023 * 300 + 2**16 - 2**31, kind="i")  # with a weight of -301 its sum may reach the limit
    near = near[:units] + struct.pack("<h", -301) + near[units + 2 :]
    tables("overflow-sum", near, "7.3", "a bias and a weight of plane 0 that may reach 2^31 - 2^16")
    tables("state-zero", put(states, 15, kind="H"), "7.3", "a first probability of 0")

    def tensors(name: str, change: dict[str, Any], clauses: str, note: str) -> None:
        changed = {key: value for key, value in (good.tensors | change).items() if value is not None}
        add(f"tensor-{name}", good.build(tensors=changed), clauses, note, "stream", good.identity(tensors=changed))

    dtype, shape, data = good.tensors["encoder.0.bias"]
    tensors("missing", {"encoder.0.bias": None}, "8.5", "encoder.0.bias is missing")
    tensors("surplus", {"wt.h0": ("F32", [1], bytes(4))}, "8.5", "a tensor that the architecture does not have")
    tensors("shape", {"encoder.0.bias": (dtype, [2, 3], data)}, "8.5", "encoder.0.bias has two axes")
    tensors("short", {"encoder.0.bias": (dtype, [5], data[:20])}, "8.5", "encoder.0.bias has 5 values")
    double = np.frombuffer(data, "<f4").astype("<f8").tobytes()
    tensors("f64", {"encoder.0.bias": ("F64", [6], double)}, "8.1 8.5", "encoder.0.bias is F64")
    tensors("bf16", {"encoder.0.bias": ("BF16", [6], data[:12])}, "8.1 8.5", "encoder.0.bias is BF16")
    tensors("f16", {"encoder.0.bias": ("F16", [6], data[:12])}, "8.1 8.5", "encoder.0.bias is F16")
    tensors(
        "nan",
        {"encoder.0.bias": (dtype, shape, np.array([np.nan] * 6, "<f4").tobytes())},
        "8.7",
        "encoder.0.bias is NaN",
    )
    turned = sound.tensors | {"decoder.1.conv1.weight_v": ("F32", [1, 1, 7], bytes(4 * 7))}
    data, identity = sound.build(tensors=turned), sound.identity(tensors=turned)
    note = "a row of decoder.1.conv1.weight_v is zero"
    add("tensor-direction", data, "11.7", note, "stream", identity, clip)
    block = suite.file("vectors/invalid-model/block.npy", np.zeros((1, 2)))
    suite.add(
        "decode", "decoder.conv1", "model-tensor-direction", "invalid-tensor-direction", block, None, "reject", "damage",
        "model", ["12.1", "11.7"], fault="malformed", note=note,
    )  # fmt: skip
    infinite = np.frombuffer(good.tensors["decoder.1.weight"][2], "<f4").copy()
    infinite[7] = np.inf
    kind, size, _ = good.tensors["decoder.1.weight"]
    tensors(
        "infinite",
        {"decoder.1.weight": (kind, size, infinite.tobytes())},
        "8.7",
        "a value of decoder.1.weight is infinite",
    )


def alone(suite: Any, add: Any) -> None:
    """Models of which the configuration alone is wrong: tensors, tables and stream are those that it asks for."""
    base = Weights(suite.files["models/edge-bytes.safetensors"], default=True)
    one = Parts(suite.files["vectors/edge-one/stream.wlc"])

    def put(name: str, note: str, shapes: Any, more: Any, planes: int = 1, **changed: Any) -> None:
        config = base.config | changed
        tensors = {
            tensor: ("F32", list(shape), struct.pack("<f", 0.25) * int(np.prod(shape)))
            for tensor, shape in shapes.items()
        }
        data = base.build(tensors=tensors, config=config)
        tables = {} if planes < 2 else {"tables": entropy.default_tables(planes, 8).to_bytes()}
        identity = base.identity(tensors=tensors, config=config, steps=bytes([128] * planes), **tables)
        add(f"alone-{name}", data, "8.3", note, identity=identity, parts=Altered(one, more))

    def linear(d: int, k: int) -> dict[str, tuple[int, ...]]:
        encoder = {"encoder.0.weight": (d, k, 1, 1), "encoder.0.bias": (d,)}
        return encoder | {"decoder.1.weight": (k, d, 1, 1), "decoder.1.bias": (k,)}

    put("channels-true", "channels true, which is no integer", linear(1, 1), {}, channels=True)
    put("channels-0", "channels 0", linear(1, 0), {}, channels=0)
    put("channels-4097", "channels 4097", linear(1, 4097), {}, channels=4097)
    put("bands", "65,792 subbands", linear(1, 65792), {"J": b"\x04"}, channels=257, J=4)
    kl = {"encoder.0.weight": (1, 1, 1, 1), "encoder.0.bias": (1,)}
    kl |= {f"decoder.1.{name}": shape for name, shape in autoencoder_kl.decoder_shapes(1, 8, 1).items()}
    fields = {"Nd": 8, "Ne": None, "lightweight_encode": True}
    put("Nd", "Nd 8, no multiple of 32", kl, {}, architecture="Codec2D", **fields)
    kl = {f"decoder.1.{name}": shape for name, shape in autoencoder_kl.decoder_shapes(1, 32, 1).items()}
    kl |= {f"encoder.0.{name}": shape for name, shape in autoencoder_kl.encoder_shapes(1, 1, 1).items()}
    full = {"Nd": 32, "Ne": 1, "lightweight_encode": False}
    put("Ne", "Ne 1 of a full encoder, no multiple of 32", kl, {}, architecture="Codec2D", **full)

    def planes(count: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """What of a stream makes it one of so many planes of zeros."""
        symbols = np.zeros((count, *shape), np.int16)
        payload = entropy.encode(symbols, entropy.default_tables(count, 8))
        return {"D": varint(count), "slices": [payload], "hash": container.symbol_hash(symbols)}

    none = {"encoder.0.weight": (1, 1, 1, 1), "encoder.0.bias": (1,)}
    none |= {f"decoder.1.{name}": shape for name, shape in autoencoder_kl.decoder_shapes(1, 0, 1).items()}
    put("Nd-0", "Nd 0", none, {}, architecture="Codec2D", **fields | {"Nd": 0})
    for stages in (0, 65):
        shapes = {}
        for stage in range(stages):
            shapes |= {f"encoders.{stage}.weight": (1, 1, 1, 1), f"encoders.{stage}.bias": (1,)}
            shapes |= {f"decoders.{stage}.weight": (1, 1, 1, 1), f"decoders.{stage}.bias": (1,)}
        more = planes(stages, (1, 1)) if stages else {"D": b"\x00"}
        changed = {"architecture": "ResidualCodec2D", "num_stages": stages}
        put(f"stages-{stages}", f"num_stages {stages}", shapes, more, planes=stages, **changed)

    def stage(name: str, note: str, shapes: Any, *, audio: bool = False, **changed: Any) -> None:
        """One that no stream can have (10.6), so that only a stage of it can be asked for."""
        config = (sound if audio else base).config | changed
        tensors = {tensor: ("F32", list(shape), bytes(4 * int(np.prod(shape)))) for tensor, shape in shapes.items()}
        file = suite.file(f"models/invalid/alone-{name}.safetensors", base.build(tensors=tensors, config=config))
        kind, axes = ("audio", 2) if audio else ("image", 3)
        entry = {"file": file, "id": None, "kind": kind, "config": None, "source": "damaged on purpose"}
        suite.entries[f"invalid-alone-{name}"] = entry
        signal = suite.file(f"vectors/invalid-model/{kind}.npy", np.zeros((1,) * axes))
        parameters = {"format": "u8", "channels": "1"} | ({"mean": "0.0", "gain": "1.0"} if audio else {})
        suite.add(
            "decode", "samples", f"model-alone-{name}", f"invalid-alone-{name}", signal, None, "reject", "damage",
            "model", ["12.1", "8.3"], fault="malformed", note=note, parameters=parameters,
        )  # fmt: skip

    sound = Weights(suite.files["models/edge-sound.safetensors"], default=True)
    stage("bits-1", "latent_bits 1", linear(1, 1), latent_bits=1)
    stage("bits-9", "latent_bits 9", linear(1, 1), latent_bits=9)
    stage("dim-0", "latent_dim 0", linear(0, 1), latent_dim=0)
    stage("J-minus-1", "J -1, which 4 channels would make one subband", linear(1, 1), channels=4, J=-1)
    shapes = {f"decoder.1.{part}": shape for part, shape in oobleck.decoder_shapes(1, 1, 2048).items()}
    shapes |= {"encoder.0.weight": (1, 2048, 1), "encoder.0.bias": (1,)}
    stage("J-11", "J 11, of 2048 subbands", shapes, audio=True, J=11)
    shapes = {}
    for n in range(17):
        shapes |= {f"encoders.{n}.weight": (241, 1, 1, 1), f"encoders.{n}.bias": (241,)}
        shapes |= {f"decoders.{n}.weight": (1, 241, 1, 1), f"decoders.{n}.bias": (1,)}
    stage("planes", "4097 planes", shapes, architecture="ResidualCodec2D", num_stages=17, latent_dim=241)
    base, one = sound, Parts(suite.files["vectors/edge-rate-one/stream.wlc"])
    (positions,) = container.latent_sizes("audio", (30,), 1)
    for name, wide in (("Nd", {"Nd": 1}), ("Ne", {"Nd": 2, "Ne": 1, "lightweight_encode": False})):
        shapes = {f"decoder.1.{part}": shape for part, shape in oobleck.decoder_shapes(2, wide["Nd"], 2).items()}
        if name == "Ne":
            shapes |= {f"encoder.0.{part}": shape for part, shape in oobleck.encoder_shapes(2, 1, 2).items()}
        else:
            shapes |= {"encoder.0.weight": (2, 2, 1), "encoder.0.bias": (2,)}
        more, changed = planes(2, (1, positions)), {"latent_dim": 2, **wide}
        put(f"narrow-{name}", f"{name} 1, less than latent_dim", shapes, more, planes=2, **changed)


class Altered:
    """Parts of a stream, of which some fields are others."""

    def __init__(self, parts: Parts, more: dict[str, Any]) -> None:
        self.parts, self.more = parts, more

    def build(self, **fields: bytes) -> bytes:
        """The stream."""
        return self.parts.build(**self.more, **fields)


def strict(suite: Any, add: Any, good: Weights) -> None:
    """JSON and base64 that one reader takes and another does not (8.1, 8.2)."""
    text = json.dumps(good.config)

    def field(more: str) -> str:
        return text[:-1] + "," + more + "}"

    for name, changed, note in (
        ("json-twice", field('"J": 2'), "a field of the configuration twice, with the same value"),
        ("json-twice-ignored", field('"x": 1, "x": 1'), "an ignored field twice"),
        ("json-twice-inside", field('"x": {"y": 1, "y": 2}'), "a member twice, in an ignored object"),
        ("json-twice-escaped", field('"x": 1, "\\u0078": 2'), "an ignored field twice, once with its name escaped"),
        ("json-nan", field('"x": NaN'), "NaN in an ignored field"),
        ("json-infinity", field('"x": -Infinity'), "-Infinity in an ignored field"),
        ("json-surrogate", field('"x": "\\ud800"'), "half a surrogate pair in an ignored field"),
        ("json-surrogate-name", field('"\\udc00": 0'), "half a surrogate pair in an ignored name"),
        ("json-deep", field('"x": ' + "[" * 8 + "]" * 8), "nested 9 deep"),
        ("json-comma", text[:-1] + ",}", "a comma after the last field"),
        ("json-zeros", field('"x": 01'), "a number that begins with 0"),
        ("json-comment", text + "//", "something follows the object"),
        ("json-control", field('"x": "\t"'), "a control character in a string"),
        ("json-exponent", text.replace('"J": 2', '"J": 2e0'), "J is 2e0"),
    ):
        assert changed != text
        add(f"config-{name}", good.build(text=changed), "8.1 8.3", note)
    raw = good.build()
    (n,) = struct.unpack("<Q", raw[:8])
    head, body = raw[8 : 8 + n].decode().rstrip(), raw[8 + n :]

    def header(name: str, changed: str, note: str) -> None:
        assert changed != head
        add(f"header-{name}", struct.pack("<Q", len(changed)) + changed.encode() + body, "8.1", note)

    entry = head[head.index('"encoder.0.bias"') :]
    entry = entry[: entry.index("}") + 1]
    header("tensor-twice", head[:-1] + ", " + entry + "}", "the entry of a tensor twice")
    members = json.loads("{" + entry + "}")["encoder.0.bias"]
    listed = json.dumps([members[name] for name in ("dtype", "shape", "data_offsets")])
    header("entry-list", head.replace(entry, f'"encoder.0.bias": {listed}'), "the entry of a tensor is a list")
    header("member", head.replace(entry, entry[:-1] + ', "x": 1}'), "a member more in the entry of a tensor")
    header(
        "metadata-twice",
        head.replace('"__metadata__": {', '"__metadata__": {"x": "1", "x": "1", '),
        "a key of the metadata twice",
    )
    header(
        "metadata-number", head.replace('"__metadata__": {', '"__metadata__": {"x": 1, '), "metadata that is a number"
    )
    header("offset", head.replace('"data_offsets": [0,', '"data_offsets": [0.0,'), "an offset of 0.0")
    tiny = Weights(suite.files["models/edge-bytes.safetensors"], default=True)
    stream = Parts(suite.files["vectors/edge-one/stream.wlc"])
    whole = tiny.build()
    (n,) = struct.unpack("<Q", whole[:8])
    meant = json.loads(whole[8 : 8 + n])
    first = min(tiny.tensors, key=lambda name: meant[name]["data_offsets"])
    pairs = {"__metadata__": [*meant["__metadata__"].items()]}
    shifted = {
        name: meant[name] | {"data_offsets": [4 + at for at in meant[name]["data_offsets"]]} for name in tiny.tensors
    }
    for name, changed, before, note in (
        ("metadata-pairs", pairs, 0, "the metadata are a list of pairs"),
        ("shape-number", {first: meant[first] | {"shape": 1}}, 0, "the shape of a tensor is a number"),
        ("offsets-three", {first: meant[first] | {"data_offsets": [0, 4, 4]}}, 0, "three offsets of a tensor"),
        ("type-alone", {first: meant[first] | {"dtype": "I32"}}, 0, "a tensor of I32, with as many bytes"),
        ("hole-alone", shifted, 4, "four bytes before the first tensor that are no tensor's"),
    ):
        text = json.dumps(meant | changed).encode()
        data = struct.pack("<Q", len(text)) + text + bytes(before) + whole[8 + n :]
        add(f"header-{name}", data, "8.1", note, parts=stream)
    note = "base64 whose unused bits are not zero"
    add("steps-unused-bits", tiny.build(steps="gB=="), "8.2", note, parts=stream)
    encoded = base64.b64encode(tiny.tables).decode()
    assert encoded.endswith("AE=")
    add("tables-unused-bits", tiny.build(entropy=encoded[:-2] + "F="), "8.2", note, parts=stream)
    add("id-upper", good.build(id=good.identity_of_file().upper()), "8.2", "the identity in upper case")


def samples(suite: Any) -> None:
    """Input that an encoder must refuse."""

    def add(
        stage: str, name: str, array: np.ndarray, clauses: str, note: str, model: str = "linear", **parameters: str
    ) -> None:
        file = suite.file(f"vectors/invalid-samples/{name}.npy", array)
        suite.add(
            "encode",
            stage,
            f"invalid-{name}",
            model,
            file,
            None,
            "reject",
            "damage",
            "noise",
            ["12.1", *clauses.split()],
            fault="samples",
            note=note,
            parameters=parameters,
        )

    u8 = np.zeros((8, 8, 3), np.uint8)
    add("stream", "two-channels", u8[:, :, :2], "3.2 12.3", "2 channels for a model of 3", format="u8")
    add(
        "stream", "four-channels", np.zeros((8, 8, 4), np.uint8), "3.2 12.3", "4 channels for a model of 3", format="u8"
    )
    add("stream", "no-rows", u8[:0], "3.2 12.3", "an image without rows", format="u8")
    add("stream", "four-axes", u8[None], "3.2 12.3", "an image of four axes", format="u8")
    add("stream", "one-axis", u8[0, :, 0], "3.2 12.3", "an image of one axis", format="u8")
    add("stream", "floats", u8.astype(np.float64), "3.2 12.3", "an image in f64", format="u8")
    floats = np.ones((8, 8, 3), np.float32)
    floats[7, 7, 2] = np.nan
    add("stream", "image-nan", floats, "3.10 12.3", "an image of floats with NaN", format="f32")
    floats[7, 7, 2] = -np.inf
    add("stream", "image-infinite", floats, "3.10 12.3", "an image of floats with infinity", format="f32")
    audio = np.zeros((64, 2), np.float32)
    audio[9, 1] = np.nan
    add("stream", "audio-nan", audio, "12.3", "audio with NaN", "codec1d", format="f32", rate="44100")
    audio = np.zeros((64, 2), np.float64)
    audio[63, 0] = np.inf
    for form, what, value in (("f64", "nan", np.nan), ("f64", "minus-infinite", -np.inf), ("f32", "infinite", np.inf)):
        some = np.array([[0.25], [value], [-0.5]], {"f32": np.float32, "f64": np.float64}[form])
        add(
            "statistics",
            f"statistics-{form}-{what}",
            some,
            "11.2 12.3",
            f"{value} in {form}",
            "edge-sound",
            format=form,
        )
    add("stream", "audio-infinite", audio, "12.3", "audio with infinity", "codec1d", format="f64", rate="44100")
    add(
        "stream",
        "audio-channels",
        np.zeros((64, 3), np.int16),
        "12.3",
        "3 channels for a model of 2",
        "codec1d",
        format="s16",
        rate="44100",
    )
    s24 = np.full((64, 2), 1 << 20, np.int32)
    s24[5, 0] += 255
    add(
        "stream",
        "audio-s24",
        s24,
        "11.1 12.3",
        "low bits that s24 does not have",
        "codec1d",
        format="s24",
        rate="44100",
    )
    for rate in (0, 1 << 32):
        note = f"a rate of {rate}"
        add("stream", f"audio-rate-{rate}", s24 * 0, "10.6 12.3", note, "codec1d", format="s24", rate=str(rate))
    note = "audio in u16"
    add("stream", "audio-u16", np.zeros((9, 2), np.uint16), "3.1 12.3", note, "codec1d", format="u16", rate="44100")
    audio = np.zeros((64, 2), np.float32)
    audio[0, 0] = -np.inf
    add("stream", "audio-minus-infinite", audio, "12.3", "audio with -infinity", "codec1d", format="f32", rate="44100")
    large = np.zeros((64, 2), np.float64)
    large[5, 0] = 2.0**1021
    add("stream", "audio-2-1021", large, "11.2 12.3", "a sample of 2^1021", "codec1d", format="f64", rate="44100")
    three = np.zeros((2, 2, 2), np.int16)
    add("stream", "audio-three-axes", three, "12.3", "audio of three axes", "codec1d", format="s16", rate="44100")
    add("stream", "audio-empty", np.zeros((0, 2), np.int16), "12.3", "no frames", "codec1d", format="s16", rate="44100")
    symbols = np.zeros((6, 4, 4), np.int16)
    symbols[3, 2, 1] = 128
    add("slice", "symbol-128", symbols, "6.1 12.3", "a symbol of 128 at 8 bits")
    wide = symbols.astype(np.int32)
    for name, value in (("65541", 65541), ("minus-65541", -65541)):
        wide[3, 2, 1] = value
        add("slice", f"symbol-{name}", wide.copy(), "6.1 12.3", f"a symbol of {value}, which 16 bits do not hold")
    symbols[3, 2, 1] = -128
    add("slice", "symbol-minus-128", symbols, "6.1 12.3", "a symbol of -128, which 8 bits could hold")
    add("slice", "symbol-empty", symbols[:, :0], "7.1 12.3", "no rows")
    add("slice", "symbol-floats", symbols * 0.0, "7.1 12.3", "symbols in f64")
    add("slice", "symbol-axes", symbols[:, 0] * 0, "7.1 12.3", "symbols of two axes")
    add("slice", "symbol-planes", np.zeros((5, 4, 4), np.int16), "7.1", "5 planes in a model of 6")
