"""Samples, signals, padding and cropping of images."""

from __future__ import annotations

import numpy as np
import pytest
import upstream
from models import photograph
from numpy.testing import assert_array_equal

from walloc_ref.errors import BadSamples
from walloc_ref.fast import signal as kernel
from walloc_ref.stages import quantise, signal


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_every_sample_survives(dtype):
    info = np.iinfo(dtype)
    samples = np.arange(info.min, int(info.max) + 1).astype(dtype).reshape(-1, 1, 1)
    x = signal.image_to_signal(samples)
    assert x.min() == -0.5
    assert x.max() == 0.5
    assert_array_equal(signal.signal_to_image(x, dtype), samples)


def test_samples_round_to_nearest_ties_to_even():
    values = np.array([0.4, 0.6, 0.5, 1.5, 2.5, 254.6, -3.0, 300.0])
    x = (values / 255 - 0.5).reshape(1, 1, -1)
    scaled = signal.scale_to_image(x, np.uint8)
    expected = np.clip(np.rint(scaled), 0, 255).reshape(1, -1, 1)
    assert_array_equal(signal.signal_to_image(x, np.uint8), expected)
    assert expected.ravel()[[0, 1, 5, 6, 7]].tolist() == [0, 1, 255, 0, 255]


def test_padding_is_centred_reflection():
    x = np.arange(5.0).reshape(1, 1, 5)
    assert_array_equal(signal.pad(x, 8)[0, 3], [1, 0, 1, 2, 3, 4, 3, 2])


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (3, 16), (8, 8), (9, 15), (17, 31)])
@pytest.mark.parametrize("multiple", [1, 2, 8, 16])
def test_padding_equals_numpy_and_crops_back(size, multiple):
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, *size))
    before = [signal.padding_before(n, multiple) for n in size]
    after = [signal.padded_size(n, multiple) - n - b for n, b in zip(size, before)]
    padded = signal.pad(x, multiple)
    assert_array_equal(padded, np.pad(x, [(0, 0), *zip(before, after)], mode="reflect"))
    assert all(n % multiple == 0 for n in padded.shape[1:])
    assert_array_equal(signal.crop(padded, size, multiple), x)


@pytest.mark.parametrize("size", [(9, 15), (17, 31), (16, 8), (33, 6)])
def test_padding_equals_upstream(size):
    torch, walloc = upstream.load()
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, *size))
    padded = walloc.pad(torch.tensor(x)[None], 8)
    assert_array_equal(signal.pad(x, 8), padded[0].numpy())
    assert_array_equal(signal.crop(signal.pad(x, 8), size, 8), walloc.crop(padded, size)[0].numpy())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (16, 8)])
def test_kernels_equal_definitions(dtype, size):
    samples = photograph(*size, dtype=dtype)
    rows, columns = (signal.reflected_indices(n, 8) for n in size)
    x = signal.image_to_signal(samples[rows[3:]][:, columns])
    assert_array_equal(kernel.padded_image_to_signal(samples, rows[3:], columns), x)
    x = np.random.default_rng(0).uniform(-0.7, 0.7, (3, *size))
    x[0, 0, 0] = (2.5 / signal.integer_range(dtype)[1]) - 0.5  # next to a tie
    assert_array_equal(kernel.signal_to_image(x, dtype), signal.signal_to_image(x, dtype))
    margins = quantise.margin(signal.scale_to_image(x, dtype))
    assert kernel.smallest_margin(x, dtype) == margins.min()


def test_floats_have_mean_and_gain():
    samples = np.random.default_rng(3).normal(7, 2, (9, 11, 3)).astype(np.float32)
    mean, gain = signal.float_statistics(samples)
    assert mean == pytest.approx(samples.astype(np.float64).mean(), rel=1e-15)
    x = signal.image_to_signal(samples, mean, gain)
    assert np.abs(x).max() == 0.5
    assert_array_equal(signal.signal_to_image(x, np.float32, mean, gain), samples)
    rows, columns = np.arange(9), np.arange(11)[::-1]
    assert_array_equal(kernel.padded_image_to_signal(samples, rows, columns, mean, gain), x[:, :, ::-1])
    assert_array_equal(kernel.signal_to_image(x, np.float32, mean, gain), samples)
    flat = np.full((2, 3, 1), 0.1, np.float32)
    mean, gain = signal.float_statistics(flat)
    assert (mean, gain) == (float(np.float32(0.1)), 0)
    for module in (signal, kernel):
        assert_array_equal(module.signal_to_image(np.full((1, 2, 3), 0.3), np.float32, mean, gain), flat)
    assert_array_equal(signal.image_to_signal(flat, mean, gain), np.zeros((1, 2, 3)))
    assert_array_equal(kernel.padded_image_to_signal(flat, np.arange(2), np.arange(3), mean, gain), np.zeros((1, 2, 3)))


def test_what_is_not_finite_is_counted_and_named():
    samples = np.zeros((4, 5, 6, 2), np.float32)
    samples[2, 1, 3, 1], samples[3, 0, 0, 0], samples[3, 4, 5, 1] = np.nan, np.inf, -np.inf
    with pytest.raises(BadSamples, match=r"3 of 240 are NaN or infinite, the first at \[2, 1, 3, 1\]"):
        signal.float_statistics(samples)
