"""The wavelet packet transform: definition, kernel, PyWavelets and the upstream against each other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import upstream
from numpy.testing import assert_array_equal

from walloc_ref.fast import wavelet as kernel
from walloc_ref.fast.workers import Workroom
from walloc_ref.stages import wavelet

pywt = pytest.importorskip("pywt")

SHAPES = [(1, 1), (2, 2), (1, 3), (2, 5)]
"""Channels and, in units of 2^J, the first size; the others differ from it."""


def packet(x: np.ndarray, levels: int) -> np.ndarray:
    """The full packet tree by PyWavelets: (n0, …) to (bands, m0, …)."""
    if levels == 0:
        return x[None]
    parts = pywt.dwtn(x, "bior4.4", "periodization")
    # The digit of a band sums bit(axis)·2^axis, so the last axis varies slowest.
    keys = ["".join(reversed(bits)) for bits in itertools.product("ad", repeat=x.ndim)]
    return np.concatenate([packet(parts[key], levels - 1) for key in keys])


def sizes(axes: int, levels: int, factor: int) -> tuple[int, ...]:
    return tuple((factor + i) << levels for i in range(axes))


def cases() -> list[tuple[int, int, int, int]]:
    """(axes, levels, channels, factor), as many levels as stay quick."""
    deepest = {1: 8, 2: 5, 3: 3}
    return [(a, j, c, f) for a, top in deepest.items() for j in range(top + 1) for c, f in SHAPES]


@pytest.mark.parametrize(("axes", "levels", "channels", "factor"), cases())
def test_definition_equals_pywavelets_and_inverts(axes, levels, channels, factor):
    rng = np.random.default_rng(levels)
    x = rng.uniform(-0.5, 0.5, (channels, *sizes(axes, levels, factor)))
    bands = wavelet.analyse(x, levels)
    expected = np.concatenate([packet(channel, levels) for channel in x])
    np.testing.assert_allclose(bands, expected, rtol=0, atol=1e-12)
    # The taps invert each other to about 1e-12 a level and axis, and no better (see the module's docstring).
    tolerance = max(1e-15, 1e-12 * levels * axes)
    np.testing.assert_allclose(wavelet.synthesise(bands, levels), x, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("axes", "levels", "channels", "factor"), cases())
def test_kernel_equals_definition(axes, levels, channels, factor):
    rng = np.random.default_rng(levels)
    x = rng.uniform(-0.5, 0.5, (channels, *sizes(axes, levels, factor)))
    bands, fast = wavelet.analyse(x, levels), kernel.analyse(x, levels)
    back, fast_back = wavelet.synthesise(bands, levels), kernel.synthesise(bands, levels)
    if axes == 1:
        assert_array_equal(fast, bands)
        assert_array_equal(fast_back, back)
    else:  # the order of the axes differs, and so does rounding
        np.testing.assert_allclose(fast, bands, rtol=0, atol=4e-15)
        np.testing.assert_allclose(fast_back, back, rtol=0, atol=4e-15)


def test_wide_rows_fill_several_panels():
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 32, 8 * (2 * kernel.PANEL + 3)))
    np.testing.assert_allclose(kernel.analyse(x, 2), wavelet.analyse(x, 2), rtol=0, atol=4e-15)


def test_band_order():
    """A vertical wave is high-pass along the columns' index alone: band 2 of the first level (HL)."""
    x = np.broadcast_to(np.array([0.5, -0.5] * 8), (1, 16, 16))
    energy = (wavelet.analyse(x, 1) ** 2).sum(axis=(1, 2))
    assert_array_equal(energy > 1e-9, [False, False, True, False])
    energy = (wavelet.analyse(x.swapaxes(1, 2), 1) ** 2).sum(axis=(1, 2))
    assert_array_equal(energy > 1e-9, [False, True, False, False])


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 6, 8])
def test_halo_is_enough_and_no_larger_than_needed(levels):
    """A piece with `HALO` positions of context on both sides transforms as within the whole; from J = 3 on less fails."""
    rng = np.random.default_rng(0)
    m, n, piece = 1 << levels, 24, slice(9, 14)
    x = rng.uniform(-0.5, 0.5, (1, n * m))
    bands = wavelet.analyse(x, levels)
    for halo, exact in ((wavelet.HALO, True), (wavelet.HALO - 1, levels < 3)):
        part = x[:, (piece.start - halo) * m : (piece.stop + halo) * m]
        assert np.array_equal(wavelet.analyse(part, levels)[:, halo:-halo], bands[:, piece]) == exact
    back = wavelet.synthesise(bands, levels)
    halo = wavelet.HALO
    part = bands[:, piece.start - halo : piece.stop + halo]
    assert_array_equal(
        wavelet.synthesise(part, levels)[:, halo * m : -halo * m], back[:, piece.start * m : piece.stop * m]
    )


def test_taps_are_pywavelets():
    w = pywt.Wavelet("bior4.4")
    low, high = wavelet.ANALYSIS_LOW, wavelet.ANALYSIS_HIGH
    assert w.dec_lo[1:] == [*low[:0:-1], *low]
    assert w.dec_hi[1:8] == [*high[:0:-1], *high]
    low, high = wavelet.SYNTHESIS_LOW, wavelet.SYNTHESIS_HIGH
    assert w.rec_lo[1:8] == [*low[:0:-1], *low]
    assert w.rec_hi[1:] == [*high[:0:-1], *high]


@pytest.mark.parametrize(("levels", "size"), [(1, (12, 10)), (2, (20, 24)), (3, (40, 48)), (3, (40, 88))])
def test_definition_equals_upstream_in_2d(levels, size):
    torch, walloc = upstream.load()
    torch.set_default_dtype(torch.float64)
    try:
        codec = walloc.LinearCodec2D(3, levels, 3, 8).double()
        x = np.random.default_rng(1).uniform(-0.5, 0.5, (3, *size))
        bands = codec.wavelet_analysis(torch.tensor(x)[None], levels)
        np.testing.assert_allclose(wavelet.analyse(x, levels), bands[0].numpy(), rtol=0, atol=1e-12)
        back = codec.wavelet_synthesis(bands, levels)[0].numpy()
        np.testing.assert_allclose(wavelet.synthesise(bands[0].numpy(), levels), back, rtol=0, atol=1e-12)
    finally:
        torch.set_default_dtype(torch.float32)


def test_upstream_departs_only_at_lengths_of_eight_and_below():
    torch, walloc = upstream.load()
    torch.set_default_dtype(torch.float64)
    try:
        codec = walloc.LinearCodec2D(1, 1, 3, 8).double()
        x = np.random.default_rng(1).uniform(-0.5, 0.5, (1, 16, 16))
        for n in range(2, 17, 2):
            bands = codec.wavelet_analysis(torch.tensor(x[:, :n])[None], 1)
            own = np.abs(bands[0].numpy() - wavelet.analyse(x[:, :n], 1)).max()
            inverse = np.abs(codec.wavelet_synthesis(bands, 1)[0].numpy() - x[:, :n]).max()
            assert (own < 1e-12) == (n > 8)
            assert (inverse < 1e-11) == (n > 8)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("levels", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 9)])
def test_tiles_with_their_context_are_parts_of_the_whole(levels, size):
    m, halo = 1 << levels, kernel.tile_halo(levels)
    h, w = size
    x = np.random.default_rng(levels).uniform(-0.5, 0.5, (2, h * m, w * m))
    whole = kernel.analyse(x, levels)
    for top, bottom, left, right in ((0, h, 0, w), (0, 1, w - 1, w), (h // 2, h, 0, w // 2 + 1)):
        rows = np.arange((top - halo) * m, (bottom + halo) * m) % (h * m)
        columns = (np.arange((left - halo) * m, (right + halo) * m) % (w * m)).reshape(-1, m).T.ravel()
        part = np.ascontiguousarray(x[:, rows[:, None], columns]).reshape(2, rows.size, m, -1)
        assert np.array_equal(kernel.analyse_tile(part, levels), whole[:, top:bottom, left:right])


@pytest.mark.parametrize("levels", [1, 2, 5, 8])
@pytest.mark.parametrize("n", [1, 2, 13, 70])
def test_pieces_with_their_context_are_parts_of_the_whole(levels, n):
    m, halo = 1 << levels, kernel.tile_halo(levels)
    x = np.random.default_rng(levels).uniform(-0.5, 0.5, (2, n * m))
    whole, room = kernel.analyse(x, levels), Workroom()
    for first, last in ((0, n), (0, 1), (n - 1, n), (n // 3, n - n // 4)):
        part = x[:, np.arange((first - halo) * m, (last + halo) * m) % (n * m)]
        assert np.array_equal(kernel.analyse_piece(part, levels, room), whole[:, first:last])
        around = whole[:, np.arange(first - halo, last + halo) % n]
        expected = kernel.synthesise(whole, levels)[:, first * m : last * m]
        assert np.array_equal(kernel.synthesise_piece(around, levels, room), expected)
