"""The fast codec is held equal to the plain one: every architecture, odd sizes, any number of threads, steps, windows."""

from __future__ import annotations

import threading
from dataclasses import fields, replace

import numpy as np
import pytest
from models import TINY, photograph, tiny_model, volume

import walloc_ref
from walloc_ref.codec import Codec
from walloc_ref.errors import BadSamples
from walloc_ref.fast import image as strips
from walloc_ref.fast import mosaic, workers
from walloc_ref.fast import volume as slabs
from walloc_ref.fast.table import BINARY32, FAST
from walloc_ref.plain import PLAIN
from walloc_ref.stages import wavelet
from walloc_ref.stages.autoencoder_kl import window_edges, windows

MODELS = {
    **{name: (name, {}) for name in TINY},
    "Codec2D, full encoder": ("Codec2D", {"lightweight_encode": False, "Ne": 32}),
    "Codec1D, full encoder": ("Codec1D", {"lightweight_encode": False, "Ne": 8, "post_filter": False}),
    "LinearCodec3D, channels": ("LinearCodec3D", {"channels": 2, "J": 2, "latent_dim": 5}),
    "LinearCodec2D, bands": ("LinearCodec2D", {"channels": 70, "J": 1, "latent_dim": 9}),
}
SIZES = {
    "image": [(1, 1), (9, 2), (33, 47), (70, 61)],
    "audio": [(1,), (77,), (3001,)],
    "volume": [(1, 1, 1), (3, 9, 2), (45, 10, 17), (2, 33, 41)],
}


def model(name):
    architecture, options = MODELS[name]
    found = tiny_model(architecture, **options)
    weights = np.random.default_rng(5).integers(0, 256, found.config.planes).astype(np.uint8)
    return replace(found, step_weights=weights)


def signal(kind, size, channels):
    if kind == "image":
        return photograph(*size, channels)
    if kind == "volume":
        return volume(*size, channels)
    return (9000 * np.random.default_rng(1).standard_normal((*size, 2))).clip(-32768, 32767).astype(np.int16)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("step", [1.0, 2.25, 0.3])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_streams_and_samples_are_equal(name, step, threads, monkeypatch):
    monkeypatch.setenv("WALLOC_THREADS", threads)
    monkeypatch.setattr(strips, "STRIP", 5)
    monkeypatch.setattr(strips, "TILE", 3)
    monkeypatch.setattr(slabs, "SLAB_SAMPLES", 9 * 8 * 20 * 24)
    monkeypatch.setattr(slabs, "BLOCK_SAMPLES", 700)
    fast, plain = (Codec(model(name), functions) for functions in (FAST, PLAIN))
    for size in SIZES[fast.config.kind]:
        samples = signal(fast.config.kind, size, fast.config.channels)
        options = {"window": 8} if fast.config.record.sees_everything else {}
        data = fast.encode(samples, step=step, certify=True, **options)
        assert data == plain.encode(samples, step=step, certify=True, **options)
        assert walloc_ref.info(data).weighted == (step > 1)
        decoded = walloc_ref.decode(data, codec=plain)
        assert np.array_equal(walloc_ref.decode(data, codec=fast), decoded)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("step", [1.0, 2.25])
def test_symbols_and_signals_are_equal(name, step, monkeypatch):
    monkeypatch.setattr(strips, "STRIP", 5)
    monkeypatch.setattr(strips, "TILE", 3)
    monkeypatch.setattr(slabs, "SLAB_SAMPLES", 9 * 8 * 20 * 24)
    monkeypatch.setattr(slabs, "BLOCK_SAMPLES", 700)
    fast, plain = (Codec(model(name), functions) for functions in (FAST, PLAIN))
    for size in SIZES[fast.config.kind]:
        x = np.random.default_rng(2).uniform(-0.5, 0.5, (fast.config.channels, *size))
        symbols = fast.to_symbols(x, step=step)
        assert np.array_equal(symbols, plain.to_symbols(x, step=step))
        assert np.allclose(
            fast.from_symbols(symbols, x.shape, step=step), plain.from_symbols(symbols, x.shape, step=step), atol=1e-12
        )


@pytest.mark.parametrize("threads", ["1", "3"])
def test_windows_and_tiles_of_any_sizes_make_the_same_image(threads, monkeypatch):
    monkeypatch.setenv("WALLOC_THREADS", threads)
    codec = Codec(model("Codec2D"), FAST)
    samples = photograph(190, 167, codec.config.channels)
    for window, strip, tile in ((9, 13, 11), (33, 5, 2)):
        data, decoded = codec.encode(samples, window=window), []
        for rows, columns in ((1000, 1000), (strip, tile)):
            monkeypatch.setattr(strips, "STRIP", rows)
            monkeypatch.setattr(strips, "TILE", columns)
            decoded.append(walloc_ref.decode(data, codec=codec))
        assert np.array_equal(*decoded)


def test_a_mosaic_gives_each_tile_once_and_holds_few():
    h, w = 200, 61
    whole = np.random.default_rng(3).standard_normal((2, h, w))
    rows, columns = strips.parts(h, 19), strips.parts(w, 3)
    tiles, found, most = mosaic.Mosaic(2, (h, w), rows, columns), {}, 0
    for (down, across), _, _ in windows((h, w), 16, 3):
        for tile, bands in tiles.put((down.start, down.stop), (across.start, across.stop), whole[:, down, across]):
            assert tile not in found
            found[tile] = bands
        most = max(most, len(tiles.waiting))
    assert sorted(found) == [(down, across) for down in rows for across in columns] and not tiles.waiting
    for ((top, bottom), (left, right)), bands in found.items():
        down = np.arange(top - wavelet.HALO, bottom + wavelet.HALO) % h
        across = np.arange(left - wavelet.HALO, right + wavelet.HALO) % w
        assert np.array_equal(bands, whole[:, down[:, None], across])
        assert np.array_equal(bands, mosaic.cut(whole, ((top, bottom), (left, right))))
    assert most <= len(columns) * 6  # of 19 rows: the first, and those that a row of windows touches


@pytest.mark.parametrize("name", [name for name in MODELS if "2D" in name])
def test_regions_are_parts_of_the_whole(name):
    codec = Codec(model(name), FAST)
    samples = photograph(90, 71, codec.config.channels)
    options = {"window": 8} if codec.config.record.sees_everything else {}
    for data in (codec.encode(samples, **options), codec.encode(samples)):
        whole = walloc_ref.decode(data, codec=codec)
        for x, y, width, height in ((0, 0, 71, 90), (0, 0, 1, 1), (70, 89, 1, 1), (20, 31, 9, 40), (3, 60, 68, 2)):
            part = walloc_ref.decode(data, codec=codec, region=(x, y, width, height))
            assert np.array_equal(part, whole[y : y + height, x : x + width])
    for wrong in ((0, 0, 72, 1), (-1, 0, 1, 1), (5, 5, 0, 1), (0, 90, 1, 1)):
        with pytest.raises(BadSamples, match="region"):
            walloc_ref.decode(data, codec=codec, region=wrong)


def test_a_region_decodes_only_what_it_depends_on(monkeypatch):
    codec = Codec(model("Codec2D"), FAST)
    monkeypatch.setattr("walloc_ref.codec.SLICE_ROWS", 4)
    monkeypatch.setattr("walloc_ref.codec.SLICE_SYMBOLS", 1)
    data = codec.encode(photograph(400, 400), window=10)
    slices, networks = [], []

    def decode_slice(*arguments):
        slices.append(1)
        return FAST.decode_slice(*arguments)

    def image_decoder(*arguments):
        networks.append(1)
        return FAST.image_decoder(*arguments)

    counting = replace(FAST, decode_slice=decode_slice, image_decoder=image_decoder)
    walloc_ref.decode(data, codec=Codec(codec.model, counting), region=(180, 180, 30, 30))
    assert walloc_ref.info(data).slices == 25
    assert 0 < len(slices) < 13
    assert 0 < len(networks) <= 16


def test_the_table_replaces_functions_and_nothing_else():
    same = {f.name for f in fields(PLAIN) if getattr(PLAIN, f.name) is getattr(FAST, f.name)}
    assert same == {"image_to_signal", "audio_statistics", "pad", "crop", "clamp", "project", "dequantise", "precision"}


@pytest.mark.parametrize(("positions", "window"), [(1, 8), (7, 8), (12, 8), (100, 32), (100, 0), (3, 1 << 40)])
def test_windows_cover_every_position_once(positions, window):
    edges = window_edges(positions, window)
    assert edges[0] == 0
    assert edges[-1] == positions
    assert sorted(edges) == edges
    count = np.zeros((positions, 5), int)
    for kept, seen, inside in windows((positions, 5), window, 3):
        count[kept] += 1
        ones = np.zeros((positions, 5), int)
        ones[seen][inside] = 1
        assert np.array_equal(np.argwhere(ones), np.argwhere(np.zeros_like(ones) + _mask(ones.shape, kept)))
    assert (count == 1).all()


def _mask(shape, place):
    mask = np.zeros(shape, int)
    mask[place] = 1
    return mask


def test_work_within_work_is_done_in_turn_and_blas_gets_its_threads_back(monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    monkeypatch.setenv("WALLOC_THREADS", "3")
    before = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
    result = workers.for_each(lambda i: workers.for_each(lambda j: 10 * i + j, range(3)), range(4))
    assert result == [[10 * i + j for j in range(3)] for i in range(4)]
    assert [pool["num_threads"] for pool in threadpoolctl.threadpool_info()] == before


@pytest.mark.parametrize("threads", ["1", "3"])
def test_one_thread_is_the_one_that_asks(threads, monkeypatch):
    monkeypatch.setenv("WALLOC_THREADS", threads)
    told, here = [], threading.get_ident()
    with workers.reporting(told.append):
        found = workers.for_each(lambda i: (i, threading.get_ident()), range(8), report=True)
        with pytest.raises(ZeroDivisionError):
            workers.for_each(lambda i: 1 // i, range(2), report=True)
        assert workers.for_each(lambda i: workers.for_each(lambda j: j, range(3), report=True), [0]) == [[0, 1, 2]]
    assert [i for i, _ in found] == list(range(8))
    assert {thread == here for _, thread in found} == {threads == "1"}
    assert told == [i / 8 for i in range(1, 9)]
    assert workers.for_each(abs, []) == []


def test_progress_is_told_of_the_outer_work_alone():
    told = []
    codec = Codec(model("Codec2D"), FAST)
    data = codec.encode(photograph(100, 90), window=8, progress=told.append)
    assert told[-1] == 1.0
    told.clear()
    walloc_ref.decode(data, codec=codec, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize("name", [name for name in MODELS if "encoder" not in name])
def test_binary32_is_close_named_and_never_certified(name):
    codec = Codec(model(name), FAST)
    samples = signal(codec.config.kind, SIZES[codec.config.kind][-1], codec.config.channels)
    options = {"window": 8} if codec.config.record.sees_everything else {}
    data = codec.encode(samples, certify=True, **options)
    exact = walloc_ref.decode_stream(data, codec=codec)
    narrow = walloc_ref.decode_stream(data, codec=codec, precision="binary32")
    assert (exact.precision, exact.certified) == ("binary64", True)
    assert (narrow.precision, narrow.certified, narrow.uncertain) == ("binary32", False, 0)
    off = np.abs(narrow.samples.astype(int) - exact.samples)
    assert (off > 0).mean() < 0.02
    assert off.max() <= (64 if codec.config.kind == "audio" else 1)  # tiny audio models decode to far beyond the clamp
    sizes, kind = samples.shape[: codec.config.axes], codec.config.kind
    symbols = codec.to_symbols(np.random.default_rng(0).uniform(-0.5, 0.5, (codec.config.channels, *sizes)))
    wide, slim = (
        functions.symbols_to_signal[kind](symbols, sizes, codec.coding(), codec.model, functions)
        for functions in (FAST, BINARY32)
    )
    assert np.abs(slim - wide).max() < 2.0**-10
    assert (slim != wide).any() == (codec.config.Nd is not None)
    if codec.config.kind == "image":
        part = walloc_ref.decode_stream(data, codec=codec, region=(3, 4, 20, 30), precision="binary32")
        assert (part.precision, part.certified) == ("binary32", False)
        assert np.array_equal(part.samples, narrow.samples[4:34, 3:23])


def test_other_precisions_are_refused(monkeypatch):
    data = Codec(model("Codec2D"), FAST).encode(photograph(9, 9))
    codec = Codec(model("Codec2D"))
    with pytest.raises(BadSamples, match="precision: binary16"):
        walloc_ref.decode(data, codec=codec, precision="binary16")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    with pytest.raises(BadSamples, match="NUMBA_DISABLE_JIT"):
        walloc_ref.decode(data, codec=codec, precision="binary32")
