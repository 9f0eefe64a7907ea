"""Kernels between samples and signals: the functions of `walloc_ref.signal` of the same names, in one pass each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from walloc_ref import signal as definition
from walloc_ref.kernels import jit


def padded_image_to_signal(
    samples: NDArray[np.unsignedinteger], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Same as `walloc_ref.signal.padded_image_to_signal`."""
    out = np.empty((samples.shape[2], rows.size, columns.size))
    _gather(samples, rows, columns, float(np.iinfo(samples.dtype).max), out)
    return out


def signal_to_image(signal: NDArray[np.float64], dtype: np.dtype | type) -> NDArray[np.unsignedinteger]:
    """Same as `walloc_ref.signal.signal_to_image`."""
    out = np.empty((*signal.shape[1:], signal.shape[0]), dtype)
    _scatter(signal, np.iinfo(dtype).max, out)
    return out


def smallest_margin(signal: NDArray[np.float64], dtype: np.dtype | type) -> float:
    """Smallest margin of all samples of a signal, as `walloc_ref.quantise.margin` gives it for each."""
    return _smallest_margin(signal, np.iinfo(dtype).max)


@jit
def _gather(samples, rows, columns, full, out):
    """out[c, i, j] = samples[rows[i], columns[j], c]/full - 1/2."""
    half = definition.SIGNAL_LIMIT
    for c in range(out.shape[0]):
        for i in range(rows.size):
            line = samples[rows[i]]
            target = out[c, i]
            for j in range(columns.size):
                target[j] = line[columns[j], c] / full - half


@jit
def _scatter(signal, full, out):
    """out[i, j, c] = clip(rint(full·(signal[c, i, j] + 1/2)), 0, full)."""
    half = definition.SIGNAL_LIMIT
    for i in range(out.shape[0]):
        for c in range(out.shape[2]):
            source = signal[c, i]
            for j in range(out.shape[1]):
                value = np.rint(full * (source[j] + half))
                out[i, j, c] = min(max(value, 0.0), full)


@jit
def _smallest_margin(signal, full):
    """Distance of the nearest full·(signal + 1/2) from a tie."""
    half = definition.SIGNAL_LIMIT
    smallest = 1.0
    for c in range(signal.shape[0]):
        for i in range(signal.shape[1]):
            source = signal[c, i]
            for j in range(source.size):
                value = full * (source[j] + half)
                margin = abs(value - np.floor(value) - 0.5)
                if margin < smallest:
                    smallest = margin
    return smallest
