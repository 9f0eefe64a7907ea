"""The companding quantiser: formula, thresholds, table and kernel, at every bit depth."""

from __future__ import annotations

import numpy as np
import pytest
import upstream
from numpy.testing import assert_array_equal

from walloc_ref.errors import BadSamples
from walloc_ref.fast import quantise as kernel
from walloc_ref.stages import quantise

bits_2_to_8 = pytest.mark.parametrize("bits", list(quantise.BITS))


def latents(bits: int) -> np.ndarray:
    """Random, extreme and special latents, every table entry, and both sides of every threshold."""
    rng = np.random.default_rng(bits)
    edges = quantise.thresholds(bits)
    beside = [np.nextafter(edges, way) for way in (-np.inf, np.inf)]
    special = [0.0, -0.0, 1e-300, 1e9, -1e9, np.inf, -np.inf]
    spread = rng.normal(size=20000) * quantise.scale(bits) * 2
    return np.concatenate([spread, edges, *beside, quantise.dequantiser_table(bits), special])


@bits_2_to_8
def test_thresholds_equal_formula(bits):
    y = latents(bits)
    companded = quantise.compand(y, bits)
    clear = quantise.margin(companded) > 2**-30  # the numerical contract's bound
    assert clear.sum() > 20000
    assert_array_equal(quantise.quantise(y, bits)[clear], quantise.round_to_symbols(companded)[clear])


@bits_2_to_8
def test_formula_ties_at_the_thresholds(bits):
    last = quantise.last_symbol(bits)
    ties = np.arange(-last, last) + 0.5
    np.testing.assert_allclose(quantise.compand(quantise.thresholds(bits), bits), ties, rtol=0, atol=1e-12)


@bits_2_to_8
def test_ties_go_to_even(bits):
    last = quantise.last_symbol(bits)
    edges = quantise.thresholds(bits)
    lower = np.arange(-last, last)
    even = np.where(lower % 2 == 0, lower, lower + 1)
    assert_array_equal(quantise.quantise(edges, bits), even)
    assert_array_equal(quantise.round_to_symbols(lower + 0.5), even)
    assert_array_equal(quantise.quantise(np.nextafter(edges, -np.inf), bits), lower)
    assert_array_equal(quantise.quantise(np.nextafter(edges, np.inf), bits), lower + 1)


@bits_2_to_8
def test_kernel_equals_definition(bits):
    y = latents(bits).reshape(1, -1)
    assert_array_equal(kernel.quantise(y, bits), quantise.quantise(y, bits))
    assert kernel.quantise(y, bits).dtype == np.int16


@bits_2_to_8
def test_every_symbol_comes_back(bits):
    last = quantise.last_symbol(bits)
    symbols = np.arange(-last, last + 1, dtype=np.int16)
    y = quantise.dequantise(symbols, bits)
    assert_array_equal(quantise.quantise(y, bits), symbols)
    assert_array_equal(y, -y[::-1])
    assert (np.diff(y) > 0).all()
    assert quantise.quantise(np.array([np.inf, -np.inf]), bits).tolist() == [last, -last]


@bits_2_to_8
def test_table_equals_formula(bits):
    from scipy.special import ndtri

    last = quantise.last_symbol(bits)
    probability = np.arange(-last, last + 1) / (2 * quantise.latent_max(bits)) + 0.5
    formula = quantise.scale(bits) * ndtri(np.clip(probability, 0.0001, 0.9999))
    np.testing.assert_allclose(quantise.dequantiser_table(bits), formula, rtol=1e-14, atol=1e-14)
    assert 0.0001 < probability.min() < probability.max() < 0.9999  # the clamp never acts on a symbol


@bits_2_to_8
def test_equal_to_upstream(bits):
    torch, walloc = upstream.load()
    last, scale, limit = quantise.last_symbol(bits), quantise.scale(bits), quantise.latent_max(bits)
    y = latents(bits)
    companded = walloc.ToUniform(scale, limit)(torch.tensor(y)).numpy()
    np.testing.assert_allclose(quantise.compand(y, bits), companded, rtol=0, atol=1e-12)
    rounded = walloc.Round().eval()(torch.tensor(companded)).numpy()
    assert_array_equal(quantise.round_to_symbols(companded), rounded)
    symbols = np.arange(-last, last + 1)
    restored = walloc.ToNormal(scale, limit)(torch.tensor(symbols.astype(float))).numpy()
    np.testing.assert_allclose(quantise.dequantise(symbols, bits), restored, rtol=1e-13, atol=1e-13)


def test_refusals():
    with pytest.raises(BadSamples, match=r"symbols: -128 to 0; -127 to 127"):
        quantise.dequantise(np.array([-128, 0]), 8)
    for function in (quantise.quantise, kernel.quantise):
        with pytest.raises(BadSamples, match="latents: NaN"):
            function(np.array([0.0, np.nan]), 8)
    for bits in (1, 9):
        with pytest.raises(BadSamples, match="latent_bits"):
            quantise.last_symbol(bits)


def test_margin():
    assert_array_equal(quantise.margin(np.array([0.5, 0.0, -0.25, -1.5, 3.75])), [0, 0.5, 0.25, 0, 0.25])
