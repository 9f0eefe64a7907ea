"""Hostile and damaged input: a short run of the fuzzer, damaged slices by number and position, and bounded cost."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fuzz
import numpy as np
import pytest
from models import photograph, tiny_codec, tiny_model
from numpy.testing import assert_array_equal

import walloc_ref
from walloc_ref import codec as codecs
from walloc_ref import model as weights
from walloc_ref.errors import (
    HashMismatch,
    LimitExceeded,
    MalformedModel,
    MalformedStream,
    UnknownModel,
    UnreadableFile,
    WallocError,
)
from walloc_ref.files import image_files
from walloc_ref.plain import compiled
from walloc_ref.stages import container, entropy

SECONDS = {"container": 1.2, "coder": 0.8, "tiles": 0.8, "weights": 1.0, "checkpoint": 1.2, "cli": 4.0}
"""What each target of the fuzzer may take here."""


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_fuzz(target, monkeypatch):
    monkeypatch.setenv("WALLOC_THREADS", "1")
    report = fuzz.run(target, 100000, 1, seconds=SECONDS.get(target, 0.8))
    assert not report.failures, str(report)
    assert report.cases == report.accepted + sum(report.refused.values()) > 0
    if compiled():
        assert report.cases > (5 if target == "cli" else 15)
        assert min(report.accepted, sum(report.refused.values())) > 0


def test_fuzz_cases_are_reproducible():
    target = fuzz.CoderTarget()
    assert repr(target.make(fuzz.random.Random(5))) == repr(fuzz.CoderTarget().make(fuzz.random.Random(5)))


def test_fuzz_reports_what_is_wrong(monkeypatch):
    """The harness is tested, too: a reader that raises, one that lies, one that is greedy, one that is slow."""

    def fails(self, case):
        raise KeyError("x")

    def lies(self, case):
        fuzz.demand(False, "a wrong symbol hash")

    def is_greedy(self, case):
        np.ones(1 << 22).sum()

    def is_slow(self, case):
        time.sleep(0.002)

    monkeypatch.setattr(fuzz, "SLOW", 0.001)
    for run, word in ((fails, "KeyError"), (lies, "Wrong"), (is_greedy, "memory"), (is_slow, "time")):
        monkeypatch.setattr(fuzz.CoderTarget, "run", run)
        report = fuzz.run("coder", 2, 0)
        assert any(word in text for text in report.failures.values()), (word, str(report))
        assert "python tests/fuzz.py --target coder --seed 0 --first" in str(report)


def test_fuzz_command():
    script = Path(fuzz.__file__)
    command = [sys.executable, str(script), "--cases", "40", "--seed", "3", "--target", "tiles"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("tiles: 40 cases in ")


# ---- damaged slices ------------------------------------------------------------------------------------------------

CODEC = tiny_codec("LinearCodec2D")


@pytest.fixture(scope="module")
def stream() -> container.Stream:
    """Fourteen rows of latents in five slices of three, the last one of two, certified."""
    data = CODEC.encode(photograph(56, 24), certify=True)
    whole = container.read(data)
    symbols = codecs.decode_symbols(data, codec=CODEC)
    header = replace(whole.header, slice_size=3)
    bounds = [header.slice_bounds(number) for number in range(header.slice_count)]
    assert bounds[-1] == (12, 14)
    parts = tuple(CODEC.stages.encode_slice(symbols[:, first:end], CODEC.model.tables) for first, end in bounds)
    return replace(whole, header=header, slices=parts)


def with_payload(stream: container.Stream, number: int, payload: bytes) -> bytes:
    """The stream with another payload in a slice and a CRC that fits: only the coder can notice."""
    return container.write(replace(stream, slices=(*stream.slices[:number], payload, *stream.slices[number + 1 :])))


def with_flipped_bit(stream: container.Stream, number: int) -> bytes:
    """The stream with one bit of a slice flipped: its CRC tells."""
    data = bytearray(container.write(stream))
    behind = sum(map(len, stream.slices[number:]))
    data[len(data) - behind + 1] ^= 0x10
    return bytes(data)


@pytest.mark.parametrize("number", range(5))
def test_a_damaged_slice_is_named(stream, number):
    first, end = (3 * number, min(14, 3 * number + 3))
    place = rf"slice {number}.*latent positions {first} to {end - 1} of 14"
    with pytest.raises(MalformedStream, match=place):
        walloc_ref.decode(with_flipped_bit(stream, number), codec=CODEC)
    with pytest.raises(MalformedStream, match=place):
        walloc_ref.decode(with_payload(stream, number, b""), codec=CODEC)
    with pytest.raises(MalformedStream, match=place):
        walloc_ref.decode(with_payload(stream, number, stream.slices[number] + b"\0"), codec=CODEC)


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("damage", ["CRC", "coder"])
def test_keep_going_fills_with_zeros(stream, number, damage):
    data = with_flipped_bit(stream, number) if damage == "CRC" else with_payload(stream, number, b"")
    result = walloc_ref.decode_stream(data, codec=CODEC, keep_going=True)
    assert result.damaged == (number,)
    assert not result.certified
    symbols = codecs.decode_symbols(container.write(stream), codec=CODEC).copy()
    symbols[:, 3 * number : 3 * number + 3] = 0
    assert_array_equal(result.samples, CODEC.samples_of_symbols(symbols, (56, 24)))


def test_keep_going_on_a_whole_stream_verifies(stream):
    data = container.write(stream)
    result = walloc_ref.decode_stream(data, codec=CODEC, keep_going=True)
    assert result.damaged == () and result.certified
    assert_array_equal(result.samples, walloc_ref.decode(data, codec=CODEC))


def test_keep_going_with_every_slice_damaged(stream):
    data = container.write(replace(stream, slices=(b"",) * 5))
    result = walloc_ref.decode_stream(data, codec=CODEC, keep_going=True)
    assert result.damaged == (0, 1, 2, 3, 4)
    assert_array_equal(result.samples, CODEC.samples_of_symbols(np.zeros((6, 14, 6), np.int16), (56, 24)))


def test_keep_going_through_a_truncation(stream):
    data = container.write(stream)
    left = len(data) - len(stream.slices[4]) - len(stream.slices[3]) // 2  # slice 3 in part, slice 4 not at all
    with pytest.raises(MalformedStream, match="truncated"):
        walloc_ref.decode(data[:left], codec=CODEC)
    result = walloc_ref.decode_stream(data[:left], codec=CODEC, keep_going=True)
    assert result.damaged == (3, 4)
    whole = walloc_ref.decode(data, codec=CODEC)
    rows = 3 * 3 * 4 - 16  # above the damage, less what the synthesis of its neighbourhood reaches
    assert_array_equal(result.samples[16:rows], whole[16:rows])


def test_keep_going_does_not_excuse_a_damaged_head(stream):
    data = bytearray(container.write(stream))
    data[12] ^= 1
    with pytest.raises(MalformedStream):
        walloc_ref.decode_stream(bytes(data), codec=CODEC, keep_going=True)


def test_symbols_that_are_not_those_recorded(stream):
    other = container.read(CODEC.encode(photograph(56, 24, seed=1)))
    data = container.write(replace(stream, header=replace(stream.header, symbol_hash=other.header.symbol_hash)))
    with pytest.raises(HashMismatch, match="HEAD.symbol_hash"):
        walloc_ref.decode(data, codec=CODEC)
    with pytest.raises(HashMismatch):
        walloc_ref.decode_stream(data, codec=CODEC, keep_going=True)


def test_samples_that_are_not_those_certified(stream):
    certificate = replace(stream.certificate, sample_hash=bytes(32))
    with pytest.raises(HashMismatch, match="CERTIFICATE.hash"):
        walloc_ref.decode(container.write(replace(stream, certificate=certificate)), codec=CODEC)


def test_another_model_is_refused(stream):
    with pytest.raises(UnknownModel, match="model identity"):
        walloc_ref.decode(container.write(stream), codec=tiny_codec("LinearCodec2D", seed=9))


def test_damaged_sound_is_named():
    codec = tiny_codec("Codec1D")
    samples = np.random.default_rng(0).integers(-9000, 9000, (4000, 2)).astype(np.int16)
    whole = container.read(codec.encode(samples))
    symbols = codecs.decode_symbols(container.write(whole), codec=codec)
    header = replace(whole.header, slice_size=200)
    parts = [
        codec.stages.encode_slice(symbols[:, None, i : i + 200], codec.model.tables)
        for i in range(0, symbols.shape[1], 200)
    ]
    data = container.write(replace(whole, header=header, slices=(parts[0], b"", *parts[2:])))
    with pytest.raises(MalformedStream, match=r"slice 1.*latent positions 200 to 399 of 502"):
        walloc_ref.decode(data, codec=codec)
    result = walloc_ref.decode_stream(data, codec=codec, keep_going=True)
    assert result.damaged == (1,) and result.samples.shape == (4000, 2)


def test_info_does_not_decode(stream, monkeypatch):
    """Neither damage in the slices nor an unknown model matter to it."""
    data = with_flipped_bit(stream, 2)
    monkeypatch.setattr(codecs, "_decode_slice", None)
    monkeypatch.setattr(codecs, "Codec", None)
    facts = walloc_ref.info(data)
    assert (facts.sizes, facts.slices, facts.certified) == ((56, 24), 5, True)


def test_every_truncation_is_an_error(stream):
    data = container.write(stream)
    for length in range(len(data)):
        with pytest.raises(WallocError):
            walloc_ref.decode(data[:length], codec=CODEC)
        with pytest.raises(WallocError):
            container.read(data[:length])


def test_every_flipped_bit_is_noticed(stream):
    """No single bit of a stream can change without an error."""
    data = container.write(stream)
    rng = np.random.default_rng(0)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.integers(8)
        with pytest.raises(WallocError):
            walloc_ref.decode(bytes(damaged), codec=CODEC)


# ---- bounded cost --------------------------------------------------------------------------------------------------


def peak(data: bytes, **options: object) -> int:
    """Bytes that refusing a stream takes at most."""
    tracemalloc.start()
    try:
        with pytest.raises(WallocError):
            walloc_ref.decode_stream(data, codec=CODEC, **options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("keep_going", [False, True])
def test_absurd_sizes_are_refused_before_anything_is_allocated(stream, keep_going):
    empty = replace(stream, slices=(b"x",), certificate=None)
    for sizes in ((1 << 39, 1 << 39), (1 << 39, 1), (1, 1 << 39), (1 << 15, 1 << 15)):
        header = replace(stream.header, sizes=sizes, slice_size=-(-sizes[0] // 4))
        data = container.write(replace(empty, header=header))
        for limit in (container.MAX_SAMPLES, 1 << 62):
            if keep_going and limit == 1 << 62:
                continue  # that is what was asked for
            assert peak(data, max_samples=limit, keep_going=keep_going) < 1 << 20


def test_padding_is_within_the_limit_too():
    """An image one sample wide decodes to 2^J columns; what is decoded is bounded, not only what is returned."""
    codec = tiny_codec("LinearCodec2D", J=3)
    stream = container.read(codec.encode(photograph(9, 8)))
    header = replace(stream.header, sizes=(1 << 22, 1), slice_size=1 << 19)
    data = container.write(replace(stream, header=header, slices=(bytes(1 << 10),), certificate=None))
    with pytest.raises(LimitExceeded, match=r"sizes: 1x4194304, with padding 100663296 samples; at most 50331648"):
        walloc_ref.decode(data, codec=codec)
    with pytest.raises(LimitExceeded, match=r"sizes"):
        codecs.decode_symbols(data, codec=codec)
    with pytest.raises(LimitExceeded, match=r"sizes"):
        codec.encode(np.zeros((1 << 22, 1, 3), np.uint8))
    thin = photograph(200, 1)
    assert walloc_ref.decode(codec.encode(thin), codec=codec).shape == thin.shape


def test_networks_see_a_bounded_number_of_positions(monkeypatch):
    codec = tiny_codec("Codec2D", J=0)
    samples = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(LimitExceeded, match="window: 4096 latent positions.*at most 2048"):
        codec.encode(samples, window=0, max_samples=1 << 24)
    data = codec.encode(samples, window=8, max_samples=1 << 24)
    assert walloc_ref.decode(data, codec=codec, max_samples=1 << 24).shape == samples.shape
    with pytest.raises(LimitExceeded, match="window"):
        walloc_ref.decode(codec.encode(samples, window=0), codec=codec, max_samples=1 << 24)


def test_damaged_slices_count(stream):
    header = replace(stream.header, sizes=(12000, 12000), slice_size=750)
    data = container.write(replace(stream, header=header, slices=(b"",) * 4, certificate=None))
    with pytest.raises(LimitExceeded, match="slices: 0 bytes of slices; too few for 54000000 symbols"):
        walloc_ref.decode_stream(data, codec=CODEC, keep_going=True)


def test_many_slices_need_many_bytes(stream):
    header = replace(stream.header, sizes=(1 << 29, 1), slice_size=1)
    data = container.write(replace(stream, header=header, slices=(b"",) * 4, certificate=None))
    assert peak(data, max_samples=1 << 40) < 1 << 20


def test_limit_can_be_raised(stream):
    data = container.write(stream)
    with pytest.raises(LimitExceeded, match="--max-samples"):
        walloc_ref.decode(data, codec=CODEC, max_samples=56 * 24 * 3 - 1)
    assert walloc_ref.decode(data, codec=CODEC, max_samples=56 * 24 * 3).shape == (56, 24, 3)


# ---- weights files -------------------------------------------------------------------------------------------------


def edited(changes: dict[str, str | None], body: Callable[[bytes], bytes] = bytes, **options: Any) -> bytes:
    """A weights file with other metadata (None removes an entry), without its identity."""
    data = weights.save(tiny_model(**options))
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    metadata = {**header["__metadata__"], "walloc_ref.id": None, **changes}
    header["__metadata__"] = {key: text for key, text in metadata.items() if text is not None}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body(data[8 + size :])


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100000, '{"J":' + "9" * 5000 + "}", "NaN", '{"architecture": []}']
)
def test_odd_configurations_are_refused(tmp_path, text):
    (tmp_path / "x").write_bytes(edited({"walloc_ref.config": text}))
    with pytest.raises(MalformedModel, match=r"^(walloc_ref\.config|config)"):
        weights.load(tmp_path / "x")


def test_declared_sizes_of_a_model_are_not_allocated(tmp_path):
    fields = {"architecture": "ResidualCodec2D", "channels": 64, "J": 5, "latent_dim": 4096, "latent_bits": 8}
    for more in ({"num_stages": 64}, {"num_stages": 1}):
        (tmp_path / "x").write_bytes(
            edited({"walloc_ref.config": json.dumps(fields | more), "walloc_ref.entropy": None})
        )
        tracemalloc.start()
        with pytest.raises(MalformedModel):
            weights.load(tmp_path / "x")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


def test_tables_of_another_model_are_refused(tmp_path):
    for name, options in (("latent_dim", {"latent_dim": 5}), ("latent_bits", {"latent_bits": 7})):
        tables = base64.b64encode(tiny_model(**options).tables.to_bytes()).decode()
        (tmp_path / "x").write_bytes(edited({"walloc_ref.entropy": tables}))
        with pytest.raises(MalformedModel, match=f"entropy tables.{name}"):
            weights.load(tmp_path / "x")
    for text in ("x", "é", "", "V0VUMQ=="):
        (tmp_path / "x").write_bytes(edited({"walloc_ref.entropy": text}))
        with pytest.raises(MalformedModel, match=r"walloc_ref.entropy"):
            weights.load(tmp_path / "x")


@pytest.mark.parametrize("size", [100, 3000, 20000])
@pytest.mark.parametrize("seed", range(4))
def test_tables_that_were_never_trained(size, seed):
    """Whatever weights a file's tables hold, if they are accepted the coder stays exact, at any cost in bytes."""
    tables = entropy.Tables.from_bytes(fuzz.wild_tables(seed, 3, 8, size).to_bytes())
    for symbols in (
        np.random.default_rng(seed).choice((-127, 0, 127), (3, 3, 5)).astype(np.int16),
        np.where(np.indices((3, 3, 5)).sum(axis=0) % 2, 127, -127).astype(np.int16),
    ):
        data = fuzz.CoderTarget.encode(symbols, tables)
        assert data == entropy.encode(symbols, tables)
        assert_array_equal(fuzz.CoderTarget.decode(data, symbols.shape, tables), symbols)


# ---- images ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tag", "number"), [(279, 0x70000000), (273, 0x70000000), (258, 0x70000000)])
def test_a_tiff_is_believed_as_far_as_it_goes(tag, number):
    """StripByteCounts, StripOffsets, and the number of BitsPerSample: readers would allocate what they declare."""
    data = bytearray(image_files.write_image(image_files.ImageSamples(photograph(9, 11, dtype=np.uint16)), "x.tiff"))
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    place = next(p for p in range(at + 2, at + 2 + 12 * entries, 12) if struct.unpack_from("<H", data, p) == (tag,))
    if tag == 258:
        struct.pack_into("<I", data, place + 4, number)
    else:
        struct.pack_into("<HII", data, place + 2, 4, 1, number)
    tracemalloc.start()
    with pytest.raises(UnreadableFile, match="complete TIFF"):
        image_files.read_image(bytes(data), "x")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("extended", [False, True])
def test_a_webp_is_measured_before_it_is_opened(extended):
    sizes = (16382 | 16382 << 14).to_bytes(4, "little")
    body = b"VP8L" + struct.pack("<I", 100) + b"\x2f" + sizes + bytes(95)
    if extended:
        body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xfe\x3f\x00" * 2 + body
    with pytest.raises(LimitExceeded, match="16383x16383"):
        image_files.read_image(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body, "x", max_samples=1 << 24)
