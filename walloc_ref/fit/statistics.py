"""Mean and covariance of subbands, over more material than memory holds.

Arrays are opened one at a time, several of them side by side, and transformed in pieces. Sums are taken in the order of the
arrays whatever runs when, around the mean of the first piece, so that nothing cancels and the number of threads changes no
bit. Where there are too many subbands for a covariance of all with all, `blocks` still holds that of the channels within
each subband.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.codec import KINDS
from walloc_ref.errors import BadSamples
from walloc_ref.fast import workers
from walloc_ref.model import Config
from walloc_ref.plain import Functions
from walloc_ref.stages import signal
from walloc_ref.stages.container import Layout

Array = NDArray[Any]
PIECE_SAMPLES = 1 << 24
"""Samples of a piece, about: an array of more is transformed in several."""

MAX_DENSE_BANDS = 4096
"""Most subbands whose covariance is taken as a whole: 128 MiB."""

BACKGROUND = 1 / 4
"""Share of the samples that have the same value, from which on it is a background."""

SIDE_BY_SIDE = 1 << 25
"""Numbers that the partial sums of arrays side by side may take."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Statistics of subbands.

    Attributes
    ----------
    count, samples : int
        Latent positions, and the samples that they are of.
    mean : float64, shape (K,)
    blocks : float64, shape (K / C, C, C)
        Covariance of the channels within each subband.
    covariance : float64, shape (K, K), or None
        Of all subbands, unless there are more than `MAX_DENSE_BANDS`.
    """

    count: int
    samples: int
    mean: NDArray[np.float64]
    blocks: NDArray[np.float64]
    covariance: NDArray[np.float64] | None


def opened(source: Any) -> Array:
    """The samples of a source."""
    return np.asarray(source() if callable(source) else source)


def pieces(samples: Array, config: Config, functions: Functions) -> Iterator[tuple[NDArray[np.float64], Layout]]:
    """Signals (C, …) of an array, piece by piece along its first axis, and what the whole of it is like.

    Raises
    ------
    BadSamples
        Samples that a model of this configuration does not take.
    """
    samples, layout = KINDS[config.kind].describe(samples, config)
    rows = (
        max(1, PIECE_SAMPLES // max(1, config.channels * samples[0, ..., 0].size * config.multiple)) * config.multiple
    )
    for start in range(0, len(samples), rows):
        part = samples[start : start + rows]
        if config.kind == "audio":
            x = functions.audio_to_signal(part, layout.sample_format, layout.mean, layout.gain)
        else:
            x = to_signal(part, layout, functions)
        yield np.ascontiguousarray(signal.from_channels(x, config.channels)), layout


def to_signal(samples: Array, layout: Layout, functions: Functions) -> NDArray[np.float64]:
    """Samples of an image or a volume to their signal."""
    return functions.image_to_signal(samples, layout.mean, layout.gain)


def subbands(x: NDArray[np.float64], config: Config, functions: Functions) -> NDArray[np.float64]:
    """A signal (C, …) of any size, padded and transformed: (K, positions)."""
    pad = signal.pad_end if config.kind == "audio" else functions.pad
    return functions.analyse(pad(x, config.multiple), config.J).reshape(config.bands, -1)


def background(sources: Sequence[Any]) -> tuple[int, ...] | None:
    """The value, one for each channel, that at least `BACKGROUND` of all samples have; None if there is none, or of floats.

    Parameters
    ----------
    sources : sequence
        Of images or volumes, of one integer format; the last axis of their samples is the channels.
    """

    def counts(source: Any) -> NDArray[np.int64]:
        samples = opened(source)
        lowest = np.iinfo(samples.dtype).min
        length = int(np.iinfo(samples.dtype).max) - lowest + 1
        return np.stack([np.bincount(samples[..., c].ravel() - np.int64(lowest), minlength=length) for c in range(C)])

    def matching(source: Any) -> tuple[int, int]:
        samples = opened(source)
        return int((samples == value).all(-1).sum()), samples[..., 0].size

    first = opened(sources[0])
    C = first.shape[-1]  # noqa: N806
    if first.dtype.kind not in "iu" or first.itemsize > 2:
        return None
    total = np.sum(workers.for_each(counts, sources), 0)  # [C, values]
    value = total.argmax(1) + np.iinfo(first.dtype).min
    if (total.max(1) < BACKGROUND * total.sum(1)).any():
        return None
    found = np.sum(workers.for_each(matching, sources), 0)
    return tuple(int(v) for v in value) if found[0] >= BACKGROUND * found[1] else None


def gather(
    sources: Sequence[Any],
    config: Config,
    functions: Functions,
    progress: Callable[[float], None] | None = None,
) -> Moments:
    """Statistics of the subbands of all sources.

    Raises
    ------
    BadSamples
        Samples that a model of this configuration does not take, or no sources.
    """
    if not sources:
        raise BadSamples("arrays", "none", "at least one")
    K, C = config.bands, config.channels  # noqa: N806
    first, _ = next(pieces(opened(sources[0]), config, functions))
    shift = subbands(first, config, functions).mean(1)  # [K]
    dense = K <= MAX_DENSE_BANDS

    def sums(source: Any) -> tuple[int, int, NDArray[np.float64], NDArray[np.float64]]:
        samples = opened(source)
        total, count, gram = np.zeros(K), 0, np.zeros((K, K) if dense else (K // C, C, C))
        for x, _ in pieces(samples, config, functions):
            bands = subbands(x, config, functions)  # [K, N]
            bands -= shift[:, None]
            total += bands.sum(1)
            count += bands.shape[1]
            if dense:
                gram += bands @ bands.T
            else:
                by_subband = bands.reshape(C, K // C, -1).transpose(1, 0, 2)  # [K/C, C, N]
                gram += by_subband @ by_subband.transpose(0, 2, 1)
        return count, samples.size, total, gram

    count, samples, total, gram = 0, 0, np.zeros(K), np.zeros((K, K) if dense else (K // C, C, C))
    group = max(1, SIDE_BY_SIDE // gram.size)
    for at in range(0, len(sources), group):
        for n, size, part, part_gram in workers.for_each(sums, sources[at : at + group]):
            count += n
            samples += size
            total += part
            gram += part_gram
        if progress is not None:
            progress(min(1.0, (at + group) / len(sources)))
    off = total / count
    if dense:
        covariance = gram / count - np.outer(off, off)
        index = np.arange(K).reshape(C, K // C)
        blocks = np.stack([covariance[np.ix_(i, i)] for i in index.T])
        return Moments(count, samples, shift + off, blocks, covariance)
    by_channel = off.reshape(C, K // C).T  # [K/C, C]
    return Moments(count, samples, shift + off, gram / count - by_channel[:, :, None] * by_channel[:, None, :], None)


def centred(moments: Moments, around: NDArray[np.float64]) -> Moments:
    """The same moments around another mean."""
    off = moments.mean - around
    by_channel = off.reshape(moments.blocks.shape[1], -1).T
    blocks = moments.blocks + by_channel[:, :, None] * by_channel[:, None, :]
    whole = None if moments.covariance is None else moments.covariance + np.outer(off, off)
    return replace(moments, mean=around, blocks=blocks, covariance=whole)
