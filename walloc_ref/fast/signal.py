"""Kernels between samples and signals: the functions of `walloc_ref.stages.signal` of the same names, in one pass each."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.fast import bare
from walloc_ref.fast.workers import Workroom
from walloc_ref.stages import signal as definition


def padded_image_to_signal(
    samples: NDArray[Any],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    mean: float = 0.0,
    gain: float = 1.0,
    room: Workroom | None = None,
) -> NDArray[np.float64]:
    """`walloc_ref.stages.signal.image_to_signal` of the samples (H, W, C) at these rows and columns."""
    shape = samples.shape[2], rows.size, columns.size
    out = np.empty(shape) if room is None else room.array("signal", shape)
    gather(samples, rows, columns, mean, gain, out)
    return out


def gather(
    samples: NDArray[Any],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    mean: float,
    gain: float,
    out: NDArray[np.float64],
) -> None:
    """`padded_image_to_signal` into an array (C, rows, columns)."""
    if samples.dtype.kind == "u" and samples.itemsize <= 2:
        _look_up(samples, rows, columns, _values(samples.dtype), out)
    elif samples.dtype.kind != "f":
        lowest, steps = definition.integer_range(samples.dtype)
        _gather(samples, rows, columns, float(lowest), float(steps), definition.SIGNAL_LIMIT, out)
    elif gain:
        _gather(samples, rows, columns, mean, gain, 0.0, out)
    else:
        out[:] = 0


@lru_cache(maxsize=4)
def _values(dtype: np.dtype) -> NDArray[np.float64]:
    """The signal's value for every sample that there is."""
    every = np.arange(np.iinfo(dtype).max + 1, dtype=np.int64).astype(dtype)
    return np.ascontiguousarray(definition.image_to_signal(every[:, None, None]).reshape(-1))


def signal_to_image(
    signal: NDArray[np.float64], dtype: np.dtype | type, mean: float = 0.0, gain: float = 1.0
) -> NDArray[Any]:
    """Same as `walloc_ref.stages.signal.signal_to_image`."""
    out = np.empty((*signal.shape[1:], signal.shape[0]), dtype)
    flat = signal.reshape(signal.shape[0], -1, signal.shape[-1]), out.reshape(-1, signal.shape[-1], signal.shape[0])
    if out.dtype.kind == "f":
        _scatter_floats(flat[0], mean, gain, flat[1])
    else:
        _scatter(flat[0], *definition.integer_range(dtype), flat[1])
    return out


def smallest_margin(signal: NDArray[np.float64], dtype: np.dtype | type) -> float:
    """Smallest margin of all samples of a signal, as `walloc_ref.stages.quantise.margin` gives it for each."""
    return _smallest_margin(signal.reshape(signal.shape[0], -1, signal.shape[-1]), definition.integer_range(dtype)[1])


def audio_to_signal(samples: NDArray[Any], sample_format: str, mean: float, gain: float) -> NDArray[np.float64]:
    """Same as `walloc_ref.stages.signal.audio_to_signal`."""
    if gain == 0:
        return definition.audio_to_signal(samples, sample_format, mean, gain)
    _, full_scale, silence, _ = definition.AUDIO_FORMATS[sample_format]
    out = np.empty(samples.shape[::-1])
    _normalise(samples, float(silence), float(full_scale), mean, gain, out)
    return out


def signal_to_audio(signal: NDArray[np.float64], sample_format: str, mean: float, gain: float) -> NDArray[Any]:
    """Same as `walloc_ref.stages.signal.signal_to_audio`."""
    dtype, full_scale, silence, step = definition.AUDIO_FORMATS[sample_format]
    out = np.empty(signal.shape[::-1], dtype)
    if step == 0:
        _denormalise(signal, mean, gain, out)
    else:
        _denormalise_and_round(signal, mean, gain, full_scale // step, silence, step, out)
    return out


def smallest_audio_margin(signal: NDArray[np.float64], sample_format: str, mean: float, gain: float) -> float:
    """Smallest margin of all samples of an audio signal in a format of integers."""
    _, full_scale, _, step = definition.AUDIO_FORMATS[sample_format]
    return _smallest_audio_margin(signal, mean, gain, full_scale // step)


@bare
def _look_up(samples, rows, columns, values, out):
    """out[c, i, j] = values[samples[rows[i], columns[j], c]]: a look-up takes less time than a division.

    Subscripts are none of them negative; for signed ones Numba would add a test.
    """
    for i in range(rows.size):
        line = samples[rows[i]]
        for c in range(out.shape[0]):
            target = out[c, i]
            for j in range(columns.size):
                target[j] = values[line[np.uintp(columns[j]), np.uintp(c)]]


@bare
def _gather(samples, rows, columns, origin, scale, shift, out):
    """out[c, i, j] = (samples[rows[i], columns[j], c] - origin)/scale - shift."""
    for c in range(out.shape[0]):
        for i in range(rows.size):
            line = samples[rows[i]]
            target = out[c, i]
            for j in range(columns.size):
                target[j] = (np.float64(line[columns[j], c]) - origin) / scale - shift


@bare
def _scatter(signal, lowest, full, out):
    """out[i, j, c] = clip(rint(full·(signal[c, i, j] + 1/2)), 0, full) + lowest."""
    half = definition.SIGNAL_LIMIT
    for i in range(out.shape[0]):
        for c in range(out.shape[2]):
            source = signal[c, i]
            for j in range(out.shape[1]):
                value = np.rint(full * (source[j] + half))
                out[i, j, c] = min(max(value, 0.0), full) + lowest


@bare
def _scatter_floats(signal, mean, gain, out):
    """out[i, j, c] = gain·signal[c, i, j] + mean."""
    for i in range(out.shape[0]):
        for c in range(out.shape[2]):
            source = signal[c, i]
            for j in range(out.shape[1]):
                out[i, j, c] = gain * source[j] + mean


@bare
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


@bare
def _normalise(samples, silence, full_scale, mean, gain, out):
    """out[c, i] = ((samples[i, c] - silence)/full_scale - mean)/gain."""
    scale = 1 / full_scale  # a power of two: exact
    for c in range(out.shape[0]):
        target = out[c]
        for i in range(target.size):
            target[i] = ((np.float64(samples[i, c]) - silence) * scale - mean) / gain


@bare
def _denormalise(signal, mean, gain, out):
    """out[i, c] = gain·signal[c, i] + mean."""
    for c in range(out.shape[1]):
        source = signal[c]
        for i in range(source.size):
            out[i, c] = gain * source[i] + mean


@bare
def _denormalise_and_round(signal, mean, gain, steps, silence, step, out):
    """out[i, c] = (clip(rint((gain·signal[c, i] + mean)·steps), -steps, steps - 1) + silence)·step."""
    for c in range(out.shape[1]):
        source = signal[c]
        for i in range(source.size):
            value = np.rint((gain * source[i] + mean) * steps)
            value = min(max(value, -float(steps)), float(steps - 1))
            out[i, c] = (value + silence) * step


@bare
def _smallest_audio_margin(signal, mean, gain, steps):
    """Distance of the nearest (gain·signal + mean)·steps from a tie."""
    smallest = 1.0
    for c in range(signal.shape[0]):
        source = signal[c]
        for i in range(source.size):
            value = (gain * source[i] + mean) * steps
            margin = abs(value - np.floor(value) - 0.5)
            if margin < smallest:
                smallest = margin
    return smallest
