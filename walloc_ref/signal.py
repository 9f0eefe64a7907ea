"""Samples and signals (SPEC.md section 3): integers at the edge, reals in [-0.5, 0.5] inside; padding and cropping.

Arrays at the edge are laid out as imageio and soundfile have them, (H, W, C) and (frames, channels); inside, channels come
first. Two surprises:

1. Samples are rounded to nearest, ties to even. (The upstream's display helper truncates.)
2. Padding reflects without repeating the edge, as PyTorch's "reflect". Where the picture is smaller than the padding,
   which PyTorch refuses, the reflection is repeated, and a single row or column is replicated, as NumPy's "reflect" does.

Source: `pad`, `crop` and `compute_padding` of the upstream model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIGNAL_LIMIT = 0.5
"""The signal lies in [-0.5, 0.5] and is clamped to it after synthesis (upstream: Hardtanh)."""

IMAGE_FULL_SCALE = {"u8": 255, "u16": 65535}
"""Largest sample of each image sample format."""


def image_to_signal(samples: NDArray[np.unsignedinteger]) -> NDArray[np.float64]:
    """x = u/255 - 1/2 (or 65535): uint8 or uint16 (H, W, C) to float64 (C, H, W) in [-0.5, 0.5]."""
    full_scale = float(np.iinfo(samples.dtype).max)
    return np.moveaxis(samples, -1, 0) / full_scale - SIGNAL_LIMIT


def scale_to_image(signal: NDArray[np.float64], dtype: np.dtype | type) -> NDArray[np.float64]:
    """255·(x + 1/2) (or 65535): the real values that rounding turns into samples, any shape."""
    return np.iinfo(dtype).max * (signal + SIGNAL_LIMIT)


def signal_to_image(signal: NDArray[np.float64], dtype: np.dtype | type) -> NDArray[np.unsignedinteger]:
    """clip(rint(255·(x + 1/2)), 0, 255) (or 65535): float64 (C, H, W) to uint8 or uint16 (H, W, C)."""
    rounded = np.clip(np.rint(scale_to_image(signal, dtype)), 0, np.iinfo(dtype).max)
    return np.ascontiguousarray(np.moveaxis(rounded, 0, -1).astype(dtype))


def clamp(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clamp to [-0.5, 0.5] (upstream: Hardtanh)."""
    return np.clip(signal, -SIGNAL_LIMIT, SIGNAL_LIMIT)


def padded_size(size: int, multiple: int) -> int:
    """`size` rounded up to a multiple of `multiple`."""
    return -(-size // multiple) * multiple


def padding_before(size: int, multiple: int) -> int:
    """Samples added before the first of `size`: half of all that are added, rounded down."""
    return (padded_size(size, multiple) - size) // 2


def reflected_indices(size: int, multiple: int) -> NDArray[np.intp]:
    """Which of `size` samples stands at each position of the padded axis: intp, shape (padded_size,)."""
    before = padding_before(size, multiple)
    position = np.arange(padded_size(size, multiple)) - before
    if size == 1:
        return np.zeros(position.size, dtype=np.intp)
    period = 2 * (size - 1)
    folded = np.abs(position) % period
    return np.minimum(folded, period - folded).astype(np.intp)


def pad(signal: NDArray[np.float64], multiple: int) -> NDArray[np.float64]:
    """Pad every axis but the first by centred reflection to a multiple of `multiple` (upstream `pad`)."""
    for axis in range(1, signal.ndim):
        signal = np.take(signal, reflected_indices(signal.shape[axis], multiple), axis=axis)
    return signal


def crop(signal: NDArray[np.float64], sizes: tuple[int, ...], multiple: int) -> NDArray[np.float64]:
    """Undo `pad`: cut `sizes` out of the middle of every axis but the first (upstream `crop`)."""
    starts = [padding_before(size, multiple) for size in sizes]
    return signal[(slice(None), *(slice(a, a + n) for a, n in zip(starts, sizes)))]
