"""The container: exact bytes, and one refusal for every rule."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from walloc_ref.errors import BadSamples, LimitExceeded, MalformedStream, UnsupportedStream
from walloc_ref.stages import container
from walloc_ref.stages.container import Certificate, Header, Stream

IMAGE = Header(
    kind="image",
    sample_format="u8",
    channels=3,
    sizes=(50, 300),
    model_id=bytes(range(16)),
    J=3,
    latent_dim=12,
    latent_bits=8,
    slice_size=4,
    symbol_hash=b"abcdefgh",
)
AUDIO = replace(
    IMAGE,
    kind="audio",
    sample_format="s16",
    channels=2,
    sizes=(1000,),
    J=8,
    rate=44100,
    mean=-0.25,
    gain=0.5,
    slice_size=6,
)
VOLUME = replace(IMAGE, kind="volume", sample_format="s16", channels=1, sizes=(20, 50, 300))
FLOATS = replace(VOLUME, sample_format="f32", mean=0.25, gain=3.5)
STREAM = Stream(IMAGE, (b"first", b"second"))


def header_bytes(**changes: object) -> bytes:
    """HEAD's payload for IMAGE, field by field, so that any field can be wrong."""
    fields = {
        "kind": b"\x00",
        "format": b"\x00",
        "channels": b"\x03",
        "sizes": b"\x32\xac\x02",
        "model_id": bytes(range(16)),
        "J": b"\x03",
        "latent_dim": b"\x0c",
        "latent_bits": b"\x08",
        "step": b"\x00\x00\x01\x00",
        "weighted": b"\x00",
        "window": b"\x00",
        "slice_size": b"\x04",
        "symbol_hash": b"abcdefgh",
    }
    return b"".join((fields | changes).values())  # type: ignore[arg-type]


def section(tag: int, payload: bytes) -> bytes:
    body = bytes([tag, len(payload)]) + payload
    return body + struct.pack("<I", zlib.crc32(body))


def slices(*payloads: bytes, count: bytes | None = None, extra: int = 0) -> bytes:
    table = (bytes([len(payloads)]) if count is None else count) + b"".join(
        bytes([len(p)]) + struct.pack("<I", zlib.crc32(p)) for p in payloads
    )
    body = bytes([2, len(table) + 4 + sum(map(len, payloads)) + extra]) + table
    return body + struct.pack("<I", zlib.crc32(body)) + b"".join(payloads)


def whole(head: bytes | None = None, *between: bytes, tail: bytes | None = None) -> bytes:
    head = section(1, header_bytes()) if head is None else head
    return b"\x89WLC\x01" + head + b"".join(between) + (slices(b"first", b"second") if tail is None else tail)


def test_exact_bytes():
    assert container.write(STREAM) == whole()
    assert container.read(whole()) == STREAM


@pytest.mark.parametrize("header", [IMAGE, AUDIO, VOLUME, replace(IMAGE, sample_format="u16", channels=1), FLOATS])
def test_round_trip_with_everything(header):
    header = replace(header, slice_size=header.latent_sizes[0])
    certificate = Certificate(bytes(range(32)), (0, 1, 5, 1999))
    stream = Stream(header, (b"only",), certificate, b"profile", b"exif" * 100, b'{"spacing":[2,1,1]}')
    assert container.read(container.write(stream)) == stream


def test_unknown_ancillary_section_is_skipped_and_critical_one_refused():
    assert container.read(whole(None, section(0xFF, b"later"))) == STREAM
    with pytest.raises(UnsupportedStream, match="section tag: 0x7f"):
        container.read(whole(None, section(0x7F, b"later")))


def test_overhead_of_an_image():
    header = replace(IMAGE, sizes=(4000, 6000), slice_size=500)
    payload = bytes(1 << 20)
    assert len(container.write(Stream(header, (payload,)))) - len(payload) <= 72


def test_latent_geometry():
    assert IMAGE.latent_sizes == (7, 38)
    assert IMAGE.slice_count == 2
    assert [IMAGE.slice_bounds(i) for i in range(2)] == [(0, 4), (4, 7)]
    assert AUDIO.latent_sizes == (6,)  # 1000 / 256 rounded up, and two border positions
    assert IMAGE.symbols == 12 * 7 * 38
    assert VOLUME.latent_sizes == (3, 7, 38)
    assert replace(VOLUME, slice_size=2).slice_shape(1) == (12, 1, 7, 38)


def test_metadata_are_a_json_object():
    for metadata in ({}, {"spacing": [2.5, 1, 1], "name": "Schädel"}, {"bands": list(range(4000))}):
        assert container.metadata_from_bytes(container.metadata_to_bytes(metadata)) == metadata
    for wrong in ([1], {1: 2}, {"a": float("nan")}, {"a": {1, 2}}, {"a": "\ud800"}, {"a": "x" * (1 << 20)}, {"a": b""}):
        with pytest.raises(BadSamples, match="metadata"):
            container.metadata_to_bytes(wrong)
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for wrong in (b"", b"[]", b"{", b'{"a":NaN}', b'{"a":"\xff"}', deep, b'{"a":"' + b"x" * (1 << 20) + b'"}'):
        with pytest.raises(MalformedStream, match="METADATA"):
            container.metadata_from_bytes(wrong)


MALFORMED = {
    "magic": (b"\x89PNG" + whole()[4:], "magic"),
    "empty": (b"", "magic: nothing"),
    "version missing": (b"\x89WLC", "version: nothing"),
    "head missing": (whole(b""), "section tag: 0x02"),
    "no slices": (b"\x89WLC\x01" + section(1, header_bytes()), "SLICES: missing"),
    "head damaged": (whole(section(1, header_bytes())[:-1] + b"?"), "section 0x01.CRC"),
    "head twice": (whole(None, section(1, header_bytes())), "section tag: 0x01; at most one"),
    "certificate twice": (whole(None, *[section(0x81, bytes(33))] * 2), "section tag: 0x81; at most one"),
    "kind": (whole(section(1, header_bytes(kind=b"\x03"))), "HEAD.kind: 3"),
    "format": (whole(section(1, header_bytes(format=b"\x07"))), "HEAD.format: 7"),
    "format of other kind": (whole(section(1, header_bytes(format=b"\x03"))), "HEAD.format: s24"),
    "channels": (whole(section(1, header_bytes(channels=b"\x00"))), "HEAD.channels: 0"),
    "size zero": (whole(section(1, header_bytes(sizes=b"\x00\x05"))), "HEAD.size: 0"),
    "size huge": (whole(section(1, header_bytes(sizes=b"\xff\xff\xff\xff\xff\x7f\x05"))), "HEAD.size: "),
    "varint padded": (whole(section(1, header_bytes(sizes=b"\x85\x00\x05"))), "HEAD.size: a padded varint"),
    "varint endless": (
        whole(section(1, header_bytes(sizes=b"\xff" * 9 + b"\x01\x05"))),
        "HEAD.size: a varint of over 9",
    ),
    "J": (whole(section(1, header_bytes(J=b"\x0b"))), "HEAD.J: 11"),
    "latent_dim": (whole(section(1, header_bytes(latent_dim=b"\x00"))), "HEAD.latent_dim: 0"),
    "latent_bits": (whole(section(1, header_bytes(latent_bits=b"\x09"))), "HEAD.latent_bits: 9"),
    "slice_size zero": (whole(section(1, header_bytes(slice_size=b"\x00"))), "HEAD.slice_size: 0"),
    "slice_size": (whole(section(1, header_bytes(slice_size=b"\x08"))), "HEAD.slice_size: 8; at most 7"),
    "head too short": (whole(section(1, header_bytes(symbol_hash=b"abc"))), "HEAD.symbol_hash"),
    "head too long": (whole(section(1, header_bytes(symbol_hash=b"abcdefghi"))), "HEAD.length"),
    "slice count": (whole(tail=slices(b"first", b"second", b"third")), "SLICES.count: 3; 2 of 4"),
    "slice table": (whole(tail=slices(b"first", b"second", extra=1) + b"?"), "SLICES.length"),
    "slice table damaged": (whole()[:-15] + b"?" + whole()[-14:], "SLICES.CRC"),
    "slice damaged": (whole()[:-1] + b"?", r"slice 1: CRC .* latent positions 4 to 6 of 7"),
    "truncated in a slice": (whole()[:-1], "SLICES.length.*truncated"),
    "trailing byte": (whole() + b"?", "end: 1 bytes more"),
    "metadata twice": (whole(None, *[section(0x84, b"{}")] * 2), "section tag: 0x84; at most one"),
    "channels huge": (whole(section(1, header_bytes(channels=b"\x81\x20"))), "HEAD.channels: 4097"),
    "floats without gain": (whole(section(1, header_bytes(format=b"\x05"))), "HEAD.latent_bits"),
    "certificate count": (whole(None, section(0x81, bytes(32) + b"\x09")), "CERTIFICATE.count: 9"),
    "certificate index": (whole(None, section(0x81, bytes(32) + b"\x01\xc8\xdf\x02")), "CERTIFICATE.index: 45000"),
    "certificate length": (whole(None, section(0x81, bytes(34))), "CERTIFICATE.length"),
    "certificate short": (whole(None, section(0x81, bytes(31))), "CERTIFICATE.hash"),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed(fault):
    data, message = MALFORMED[fault]
    with pytest.raises(MalformedStream, match=message):
        container.read(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 0}, "HEAD.rate: 0"),
        ({"mean": float("nan")}, "HEAD.mean: nan"),
        ({"gain": float("inf")}, "HEAD.gain: inf"),
        ({"gain": -1.0}, "HEAD.gain: -1"),
    ],
)
def test_malformed_audio(changes, message):
    with pytest.raises(MalformedStream, match=message):
        container.read(container.write(Stream(replace(AUDIO, **changes), (b"",))))


def test_later_version_is_refused():
    with pytest.raises(UnsupportedStream, match="version: 2; 1, the only one"):
        container.read(b"\x89WLC\x02" + whole()[5:])


def test_too_many_samples_are_refused():
    with pytest.raises(LimitExceeded, match="samples: 45000; at most 44999; raise it with --max-samples"):
        container.read(whole(), max_samples=44999)


def test_every_truncation_is_refused():
    data = container.write(Stream(IMAGE, (b"first", b"second"), Certificate(bytes(32), (7,)), b"profile"))
    for end in range(len(data)):
        with pytest.raises(MalformedStream):
            container.read(data[:end])


def test_every_flipped_bit_is_noticed():
    data = container.write(Stream(IMAGE, (b"first", b"second"), Certificate(bytes(32), (7,)), b"profile"))
    for place in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises((MalformedStream, UnsupportedStream)):
            container.read(bytes(damaged))


def test_keep_going_names_damaged_and_missing_slices():
    data = whole()
    assert container.read(data[:-1] + b"?", keep_going=True).damaged == (1,)
    assert container.read(data[:-8], keep_going=True).damaged == (0, 1)
    assert container.read(data[:-6], keep_going=True).damaged == (1,)


def test_huge_slice_count_allocates_nothing():
    header = header_bytes(sizes=b"\xff\xff\xff\xff\x03\x01", slice_size=b"\x01")
    count = b"\x80\x80\x80\x40"  # 2^27, one for each latent row
    data = whole(section(1, header), tail=slices(count=count))
    with pytest.raises(MalformedStream, match="SLICES.count: 134217728; .*truncated"):
        container.read(data, max_samples=1 << 62)


def test_certificate_leaves_uncertain_samples_out():
    samples = np.arange(12, dtype=np.uint16).reshape(2, 3, 2)
    other = samples.copy()
    other[0, 1, 1] += 1
    assert container.certify(samples, [3]) == container.certify(other, [3])
    assert container.certify(samples, []) != container.certify(other, [])
    assert_array_equal(samples, np.arange(12).reshape(2, 3, 2))  # certify leaves its argument alone


def test_symbol_hash_is_of_little_endian_planes():
    symbols = np.array([[[1, -2]]], dtype=np.int16)
    import hashlib

    assert container.symbol_hash(symbols) == hashlib.sha256(b"\x01\x00\xfe\xff").digest()[:8]
