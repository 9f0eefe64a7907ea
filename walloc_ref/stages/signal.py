"""Samples and signals (SPEC.md section 3): integers at the edge, reals in [-0.5, 0.5] inside; padding and cropping.

Arrays at the edge are laid out as imageio and soundfile have them, (H, W, C), (depth, H, W, C) and (frames, channels);
inside, channels come first. What stands here for images goes for volumes as it is. Four surprises:

1. Samples are rounded to nearest, ties to even. (The upstream's display helper truncates.)
2. Padding reflects without repeating the edge, as PyTorch's "reflect". Where the image is smaller than the padding,
   which PyTorch refuses, the reflection is repeated, and a single row or column is replicated, as NumPy's "reflect"
   does.
   Audio is padded with zeros at its end alone, after its mean has been removed.
3. Audio is normalised by one mean and one gain for all channels, which travel with it. Where the gain is 0, which is
   where all samples are equal, the signal is zero, and decoding restores the samples exactly.
4. Images of floats, reflectances say, have no full scale, so they are normalised as audio is.

Source: `pad`, `crop` and `compute_padding` of the upstream model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples

SIGNAL_LIMIT = 0.5
"""The signal lies in [-0.5, 0.5] and is clamped to it after synthesis (upstream: Hardtanh)."""


def image_to_signal(samples: NDArray[Any], mean: float = 0.0, gain: float = 1.0) -> NDArray[np.float64]:
    """Samples (H, W, C) to float64 (C, H, W) in [-0.5, 0.5] (SPEC.md 3.2, 3.9, 3.10).

    x = (u - lowest)/steps - 1/2 for integers, that is u/255 - 1/2 for uint8; (u - mean)/gain for float32.

    >>> image_to_signal(np.array([[[0], [255]]], np.uint8)).tolist()
    [[[-0.5, 0.5]]]
    """
    x = np.moveaxis(samples, -1, 0).astype(np.float64)
    if samples.dtype.kind == "f":
        return (x - mean) / gain if gain else np.zeros_like(x)
    lowest, steps = integer_range(samples.dtype)
    return (x - lowest) / steps - SIGNAL_LIMIT


def integer_range(dtype: np.dtype | type) -> tuple[int, int]:
    """The smallest integer of a type, and how many steps it is from there to the largest.

    >>> integer_range(np.int16)
    (-32768, 65535)
    """
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max) - int(np.iinfo(dtype).min)


def scale_to_image(
    signal: NDArray[np.float64], dtype: np.dtype | type, mean: float = 0.0, gain: float = 1.0
) -> NDArray[np.float64]:
    """steps·(x + 1/2), or gain·x + mean for floats: the real values that rounding turns into samples, any shape.

    >>> float(scale_to_image(np.array(0.1), np.uint8))
    153.0
    """
    if np.dtype(dtype).kind == "f":
        return gain * signal + mean
    return integer_range(dtype)[1] * (signal + SIGNAL_LIMIT)


def signal_to_image(
    signal: NDArray[np.float64], dtype: np.dtype | type, mean: float = 0.0, gain: float = 1.0
) -> NDArray[Any]:
    """The inverse of `image_to_signal`, rounded to the samples' type: float64 (C, H, W) to (H, W, C).

    >>> signal_to_image(np.array([[[-0.7, 0.0, 0.1]]]), np.uint8)[..., 0].tolist()  # clipped; ties to even
    [[0, 128, 153]]
    """
    scaled = np.moveaxis(scale_to_image(signal, dtype, mean, gain), 0, -1)
    if np.dtype(dtype).kind == "f":
        with np.errstate(over="ignore"):  # what is beyond float32 is infinite there
            return np.ascontiguousarray(scaled.astype(dtype))
    lowest, steps = integer_range(dtype)
    return np.ascontiguousarray((np.clip(np.rint(scaled), 0, steps) + lowest).astype(dtype))


def float_statistics(samples: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and gain of an image of floats (SPEC.md 3.10): those of audio (`audio_statistics`), in units of the samples.

    Raises
    ------
    BadSamples
        NaN or infinity: how many, and where the first one is.

    Examples
    --------
    >>> float_statistics(np.float32([[[1.0], [3.0]]]))
    (2.0, 2.0)
    """
    finite = np.isfinite(samples)
    if not finite.all():
        first = np.unravel_index(int(np.argmin(finite)), samples.shape)
        found = f"{samples.size - np.count_nonzero(finite)} of {samples.size} are NaN or infinite"
        raise BadSamples("samples", f"{found}, the first at [{', '.join(map(str, first))}]", "finite numbers")
    return audio_statistics(samples.reshape(-1, 1), "f32")


def clamp(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clamp to [-0.5, 0.5] (upstream: Hardtanh).

    >>> clamp(np.array([-0.7, 0.2])).tolist()
    [-0.5, 0.2]
    """
    return np.clip(signal, -SIGNAL_LIMIT, SIGNAL_LIMIT)


def padded_size(size: int, multiple: int) -> int:
    """`size` rounded up to a multiple of `multiple`.

    >>> padded_size(61, 8)
    64
    """
    return -(-size // multiple) * multiple


def padding_before(size: int, multiple: int) -> int:
    """Samples added before the first of `size`: half of all that are added, rounded down.

    >>> padding_before(61, 8)
    1
    """
    return (padded_size(size, multiple) - size) // 2


def reflected_indices(size: int, multiple: int) -> NDArray[np.intp]:
    """Which of `size` samples stands at each position of the padded axis: intp, shape (padded_size,).

    >>> reflected_indices(5, 8).tolist()
    [1, 0, 1, 2, 3, 4, 3, 2]
    """
    before = padding_before(size, multiple)
    position = np.arange(padded_size(size, multiple)) - before
    if size == 1:
        return np.zeros(position.size, dtype=np.intp)
    period = 2 * (size - 1)
    folded = np.abs(position) % period
    return np.minimum(folded, period - folded).astype(np.intp)


def pad(signal: NDArray[np.float64], multiple: int) -> NDArray[np.float64]:
    """Pad every axis but the first by centred reflection to a multiple of `multiple` (upstream `pad`).

    >>> pad(np.array([[[1.0, 2.0, 3.0]]]), 4).shape
    (1, 4, 4)
    """
    for axis in range(1, signal.ndim):
        signal = np.take(signal, reflected_indices(signal.shape[axis], multiple), axis=axis)
    return signal


def crop(signal: NDArray[np.float64], sizes: tuple[int, ...], multiple: int) -> NDArray[np.float64]:
    """Undo `pad`: cut `sizes` out of the middle of every axis but the first (upstream `crop`).

    >>> x = np.arange(15.0).reshape(1, 3, 5)
    >>> crop(pad(x, 8), (3, 5), 8).tolist() == x.tolist()
    True
    """
    starts = [padding_before(size, multiple) for size in sizes]
    window = (slice(None), *(slice(start, start + size) for start, size in zip(starts, sizes)))
    return signal[window]


def pad_end(signal: NDArray[np.float64], multiple: int) -> NDArray[np.float64]:
    """Zeros after the end of audio (C, frames), up to a multiple of `multiple` (SPEC.md 11.4).

    >>> pad_end(np.ones((1, 3)), 4).tolist()
    [[1.0, 1.0, 1.0, 0.0]]
    """
    return np.pad(signal, ((0, 0), (0, padded_size(signal.shape[1], multiple) - signal.shape[1])))


def from_channels(signal: NDArray[np.float64], channels: int) -> NDArray[np.float64]:
    """One channel repeated for a model of several (SPEC.md 3.3): (C′, …) to (C, …).

    >>> from_channels(np.array([[0.25]]), 3).tolist()
    [[0.25], [0.25], [0.25]]
    """
    return np.broadcast_to(signal, (channels, *signal.shape[1:]))


def to_channels(signal: NDArray[np.float64], channels: int) -> NDArray[np.float64]:
    """The mean of a model's channels where one is wanted (SPEC.md 3.3): (C, …) to (C′, …).

    >>> to_channels(np.array([[0.1], [0.2], [0.3]]), 1).round(6).tolist()
    [[0.2]]
    """
    return signal.mean(axis=0, keepdims=True) if channels < len(signal) else signal


class AudioFormat(NamedTuple):
    """How samples of audio are stored: value in units of full scale = (integer - silence)/full_scale.

    Attributes
    ----------
    dtype : type
        Type in arrays.
    full_scale : int
        Integer distance from silence to full scale; 1 for floats.
    silence : int
        The integer that is silence.
    step : int
        Distance between two integers that the format can hold; 0 for floats.
    """

    dtype: type[np.generic]
    full_scale: int
    silence: int
    step: int


AUDIO_FORMATS = {
    "u8": AudioFormat(np.uint8, 1 << 7, 1 << 7, 1),
    "s16": AudioFormat(np.int16, 1 << 15, 0, 1),
    "s24": AudioFormat(np.int32, 1 << 31, 0, 1 << 8),
    "s32": AudioFormat(np.int32, 1 << 31, 0, 1),
    "f32": AudioFormat(np.float32, 1, 0, 0),
    "f64": AudioFormat(np.float64, 1, 0, 0),
}
"""Sample formats of audio. s24 is stored in the upper 24 bits of 32, as soundfile does it."""

MEAN_BITS = 53
"""Bits that samples in floating point are rounded to for their mean, below the power of two above the largest."""

_BLOCK_FRAMES = 1 << 16
"""Frames that statistics look at at a time."""


def audio_statistics(samples: NDArray[Any], sample_format: str) -> tuple[float, float]:
    """Mean and gain of an audio signal, over all channels, in units of full scale.

    The mean is the exact sum of the samples over their number, rounded once, so that it depends on no order and no
    number of threads; samples in floating point are first rounded to multiples of 2^(e - 53), where 2^e is the smallest
    power of two above all of them. The gain is twice the largest distance of a sample from the mean.

    Parameters
    ----------
    samples : array, shape (frames, channels), of the format's dtype
    sample_format : str
        A key of `AUDIO_FORMATS`.

    Returns
    -------
    mean, gain : float

    Raises
    ------
    BadSamples
        NaN or infinity, samples beyond 2^1021, or low bits in s24 that it cannot hold.

    Examples
    --------
    >>> audio_statistics(np.int16([[0], [0], [32767], [-32768]]), "s16")
    (-7.62939453125e-06, 1.9999847412109375)
    """
    _, full_scale, silence, step = AUDIO_FORMATS[sample_format]
    low, high = math.inf, -math.inf
    for start, block in _blocks(samples):
        block_low, block_high = block.min(), block.max()
        if step == 0 and not np.isfinite(block).all():
            frame, channel = np.argwhere(~np.isfinite(block))[0]
            where = f"frame {start + frame}, channel {channel}"
            raise BadSamples("samples", f"{block[frame, channel]} at {where}", "finite numbers")
        if step > 1 and (block % step).any():
            raise BadSamples("samples", "bits below the 24th", f"multiples of {step} in {sample_format}")
        low, high = min(low, block_low), max(high, block_high)
    low, high = (float(v) - silence for v in (low, high))
    exponent = math.frexp(max(abs(low), abs(high)))[1]
    if exponent > 1021:
        raise BadSamples("samples", max(abs(low), abs(high)), "at most 2^1021")
    total = 0
    for _, block in _blocks(samples):
        if step == 0:
            block = np.rint(np.ldexp(block.astype(np.float64), MEAN_BITS - exponent))
        integers = block.astype(np.int64)
        total += (int((integers >> 26).sum()) << 26) + int((integers & ((1 << 26) - 1)).sum())  # sums of < 2^62
    exact = Fraction(total - silence * samples.size, samples.size)  # float() rounds once
    mean = float(exact * Fraction(2) ** (exponent - MEAN_BITS)) if step == 0 else float(exact) / full_scale
    peak = max(high / full_scale - mean, mean - low / full_scale)
    return mean, 2 * peak


def _blocks(samples: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Consecutive frames of `samples`, with the number of the first."""
    for start in range(0, len(samples), _BLOCK_FRAMES):
        yield start, samples[start : start + _BLOCK_FRAMES]


def audio_to_signal(samples: NDArray[Any], sample_format: str, mean: float, gain: float) -> NDArray[np.float64]:
    """x = (s - mean)/gain, or 0 where the gain is 0: (frames, channels) to float64 (C, frames) in [-0.5, 0.5].

    >>> audio_to_signal(np.int16([[-16384], [16384]]), "s16", 0.0, 1.0).tolist()
    [[-0.5, 0.5]]
    """
    _, full_scale, silence, _ = AUDIO_FORMATS[sample_format]
    x = np.empty(samples.shape[::-1])  # [C, frames]
    if gain == 0:
        x[:] = 0
        return x
    x[:] = samples.T
    x -= silence
    x /= full_scale
    x -= mean
    x /= gain
    return x


def scale_to_audio(signal: NDArray[np.float64], sample_format: str, mean: float, gain: float) -> NDArray[np.float64]:
    """gain·x + mean in steps of the sample format: the real values that rounding turns into samples, any shape.

    >>> float(scale_to_audio(np.array(0.25), "s16", 0.0, 1.0))
    8192.0
    """
    _, full_scale, _, step = AUDIO_FORMATS[sample_format]
    scaled = gain * signal
    scaled += mean
    scaled *= full_scale / max(1, step)
    return scaled


def signal_to_audio(signal: NDArray[np.float64], sample_format: str, mean: float, gain: float) -> NDArray[Any]:
    """Samples of a signal: float64 (C, frames) to (frames, channels) of the format's dtype.

    >>> signal_to_audio(np.array([[-0.5, 0.25]]), "s16", 0.0, 1.0).tolist()
    [[-16384], [8192]]
    """
    return scaled_to_audio(scale_to_audio(signal, sample_format, mean, gain), sample_format)


def scaled_to_audio(scaled: NDArray[np.float64], sample_format: str) -> NDArray[Any]:
    """Round what `scale_to_audio` gave to nearest, ties to even, and clip: (C, frames) to (frames, channels).

    >>> scaled_to_audio(np.array([[0.5, 1.5, 40000.0]]), "s16").tolist()
    [[0], [2], [32767]]
    """
    dtype, full_scale, silence, step = AUDIO_FORMATS[sample_format]
    if step == 0:
        return np.ascontiguousarray(scaled.T.astype(dtype))
    steps = full_scale // step
    integers = np.clip(np.rint(scaled), -steps, steps - 1)  # [C, frames]
    integers += silence
    return np.ascontiguousarray((integers * step).T.astype(dtype))
