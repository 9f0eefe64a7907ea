"""The volume codec in slabs, its parts side by side: same integers as `walloc_ref.volume`, in a memory of slabs.

A packet tree is separable, so the transform is done in two steps: along depth for a block of rows at a time, and down and
across for a depth position at a time. Between them stands the *half*, what is transformed along depth alone. Blocks do not
depend on each other and neither do positions, so threads share both without any overlap.

A volume whose half would be large is done in slabs of depth positions. A slab needs `HALO` positions of context on either
side, which costs an encoder nothing but their filtering along depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref import image
from walloc_ref.architecture import Samples, Signal, Symbols
from walloc_ref.fast import signal as kernel
from walloc_ref.fast import wavelet as kernels
from walloc_ref.fast.image import Span, reach
from walloc_ref.fast.workers import for_each, threads
from walloc_ref.stages import signal, wavelet
from walloc_ref.stages.container import Coding, Layout

if TYPE_CHECKING:
    from walloc_ref.model import Config, Model
    from walloc_ref.plain import Functions

SLAB_SAMPLES = 1 << 25
"""Samples that a slab should have at most, 256 MiB of half."""

BLOCK_SAMPLES = 1 << 20
"""Samples that a block of rows should have, so that what is done to it stays in cache."""

Indices = NDArray[np.intp]


# ---- encoding


def samples_to_symbols(samples: Samples, layout: Layout, model: Model, functions: Functions) -> Symbols:
    """Same as `walloc_ref.volume.samples_to_symbols`."""

    depth, height, width, channels = samples.shape
    lines = np.ascontiguousarray(samples).reshape(depth * height, width, channels)  # as rows of one tall image

    def padded(depths: Indices, rows: Indices, columns: Indices) -> Signal:
        x = np.empty((channels, depths.size * rows.size, columns.size))  # [C′, n·r, m·w]
        places = (depths[:, None] * height + rows).ravel()
        kernel.gather(lines, places, columns, layout.mean, layout.gain, x)
        return signal.from_channels(x.reshape(channels, depths.size, rows.size, -1), model.config.channels)

    return _encode(padded, layout.sizes, layout, model, functions)


def signal_to_symbols(x: Signal, coding: Coding, model: Model, functions: Functions) -> Symbols:
    """Same as `walloc_ref.volume.signal_to_symbols`."""
    return _encode(lambda *places: at_places(x, places), x.shape[1:], coding, model, functions)


def at_places(x: NDArray[Any], places: Sequence[Indices]) -> NDArray[Any]:
    """The values of (N, z, h, w) at these places along each axis but the first."""
    for axis, place in enumerate(places, 1):
        x = x.take(place, axis)
    return x


def _encode(
    padded: Callable[[Indices, Indices, Indices], Signal],
    sizes: tuple[int, ...],
    coding: Coding,
    model: Model,
    functions: Functions,
) -> Symbols:
    """Symbols (D, z, h, w) of a volume whose signal (C, n, r, c) at any depths, rows and columns `padded` gives."""
    config, m = model.config, model.config.multiple
    depths, rows, columns = (signal.reflected_indices(n, m) for n in sizes)  # which sample stands at each padded place
    z, h, w = config.latent_sizes(sizes)
    order, step = band_order(config), model.plane_steps(coding)
    symbols = np.empty((config.planes, z, h, w), dtype=np.int16)
    for first, end in slabs(z, config, (h, w)):
        seen, inside = context(first, end, z)
        wanted = depths[(seen[:, None] * m + np.arange(m)).ravel()]
        half = np.empty((config.channels, m, end - first, rows.size, columns.size))

        def filter_block(block: slice, wanted: Indices = wanted, inside: slice = inside, half: Signal = half) -> None:
            x = padded(wanted, rows[block], columns)  # [C, n, r, m·w]
            half[:, :, :, block] = kernels.analyse_first(x, config.J)[:, :, inside]

        def encode_position(k: int, first: int = first, half: Signal = half) -> None:
            x = half[:, :, k].reshape(-1, *half.shape[3:])  # [C·2^J, m·h, m·w]
            bands = functions.analyse(x, config.J)[order][:, None]  # [K, 1, h, w]
            latents = config.record.to_latents(bands, model, coding, functions)  # [D, 1, h, w]
            symbols[:, first + k] = functions.quantise(latents / step, config.latent_bits)[:, 0]

        for_each(filter_block, blocks(0, rows.size, half))
        for_each(encode_position, range(end - first), report=True)
    return symbols


# ---- decoding


def symbols_to_samples(symbols: Symbols, layout: Layout, model: Model, functions: Functions) -> Samples:
    """Same as `walloc_ref.volume.symbols_to_samples`."""
    return _decode(symbols, layout, model, functions, None)


def certified_samples(
    symbols: Symbols, layout: Layout, model: Model, functions: Functions
) -> tuple[Samples, list[int]]:
    """Same as `walloc_ref.volume.certified_samples`."""
    uncertain: list[int] = []
    samples = _decode(symbols, layout, model, functions, uncertain)
    return samples, sorted(uncertain)


def _decode(
    symbols: Symbols, layout: Layout, model: Model, functions: Functions, uncertain: list[int] | None
) -> Samples:
    """Samples; indices of uncertain ones are added to the list, if there is one."""
    dtype = image.DTYPES[layout.sample_format]
    samples = np.empty((*layout.sizes, layout.channels), dtype)

    def keep(depth: int, row: int, x: Signal) -> None:
        x = signal.to_channels(x, layout.channels)
        part = functions.signal_to_image(x, dtype, layout.mean, layout.gain)
        samples[depth : depth + x.shape[1], row : row + x.shape[2]] = part
        if uncertain is not None and kernel.smallest_margin(x, dtype) <= image.MARGIN_BOUND[layout.sample_format]:
            d, r, *rest = np.unravel_index(image.uncertain(x, layout), part.shape)
            uncertain.extend(np.ravel_multi_index((d + depth, r + row, *rest), samples.shape).tolist())

    _synthesise(symbols, layout.sizes, layout, model, functions, keep)
    return samples


def symbols_to_signal(
    symbols: Symbols, sizes: tuple[int, ...], coding: Coding, model: Model, functions: Functions
) -> Signal:
    """Same as `walloc_ref.volume.symbols_to_signal`."""
    x = np.empty((model.config.channels, *sizes))

    def keep(depth: int, row: int, part: Signal) -> None:
        x[:, depth : depth + part.shape[1], row : row + part.shape[2]] = part

    _synthesise(symbols, sizes, coding, model, functions, keep)
    return x


def _synthesise(
    symbols: Symbols,
    sizes: tuple[int, ...],
    coding: Coding,
    model: Model,
    functions: Functions,
    keep: Callable[[int, int, Signal], None],
) -> None:
    """Give the clamped signal to `keep`: the numbers of the first depth and row, and (C, n, r, W), in any order."""
    config, m = model.config, model.config.multiple
    order, step = band_order(config), model.plane_steps(coding)
    z, h, w = symbols.shape[1:]
    before, above, left = (signal.padding_before(n, m) for n in sizes)
    for first, end in slabs(z, config, (h, w)):
        seen, inside = context(first, end, z)
        half = np.empty((config.channels, m, seen.size, m * h, m * w))
        top, bottom = max(first * m, before), min(end * m, before + sizes[0])

        def decode_position(k: int, seen: Indices = seen, half: Signal = half) -> None:
            latents = functions.dequantise(symbols[:, seen[k], None], config.latent_bits) * step  # [D, 1, h, w]
            bands = config.record.to_bands(latents, model, coding, functions)[:, 0]  # [K, h, w]
            by_path = np.empty_like(bands)
            by_path[order] = bands
            half[:, :, k] = functions.synthesise(by_path, config.J).reshape(half[:, :, k].shape)

        def merge_block(block: slice, start: int = (first - inside.start) * m, half: Signal = half,
                        top: int = top, bottom: int = bottom) -> None:  # fmt: skip
            x = kernels.synthesise_first(half[:, :, :, block], config.J)  # [C, n, r, m·w]
            x = functions.clamp(x[:, top - start : bottom - start, :, left : left + sizes[2]])
            keep(top - before, block.start - above, x)

        for_each(decode_position, range(seen.size), report=True)
        if top < bottom:
            for_each(merge_block, blocks(above, above + sizes[1], half))


def region_samples(
    symbols: Symbols, layout: Layout, region: tuple[int, ...], model: Model, functions: Functions
) -> Samples:
    """The samples (depth, height, width, C′) of a region, from symbols of which only the needed positions must be there."""
    config, m = model.config, model.config.multiple
    x, y, z, width, height, depth = region
    latent = config.latent_sizes(layout.sizes)
    rows, top = reach(y, height, layout.sizes[1], latent[1], m)
    columns, left = reach(x, width, layout.sizes[2], latent[2], m)
    step, dtype = model.plane_steps(layout), image.DTYPES[layout.sample_format]
    samples = np.empty((depth, height, width, layout.channels), dtype)

    def decode_part(part: Span) -> None:
        start, stop = part
        depths, front = reach(z + start, stop - start, layout.sizes[0], latent[0], m)
        latents = functions.dequantise(at_places(symbols, (depths, rows, columns)), config.latent_bits)
        bands = config.record.to_bands(latents * step, model, layout, functions)
        signal_ = functions.clamp(functions.synthesise(bands, config.J))
        signal_ = signal_[:, front : front + stop - start, top : top + height, left : left + width]
        signal_ = signal.to_channels(signal_, layout.channels)
        samples[start:stop] = functions.signal_to_image(signal_, dtype, layout.mean, layout.gain)

    positions = max(2 * wavelet.HALO, SLAB_SAMPLES // 4 // (config.bands * rows.size * columns.size))
    for_each(decode_part, parts(depth, positions * m), report=True)
    return samples


def needed_positions(layout: Layout, region: tuple[int, ...], model: Model) -> list[int]:
    """Depth positions whose symbols a region depends on."""
    sizes = model.config.latent_sizes(layout.sizes)
    return reach(region[2], region[5], layout.sizes[0], sizes[0], model.config.multiple)[0].tolist()


# ---- slabs, blocks, the order of the bands


def parts(n: int, size: int) -> list[Span]:
    """Equal parts of at most about so many."""
    count = max(1, -(-n // size))
    return list(pairwise(n * i // count for i in range(count + 1)))


def slabs(z: int, config: Config, across: tuple[int, ...]) -> list[Span]:
    """Parts of the depth positions whose halves have about `SLAB_SAMPLES` samples."""
    return parts(z, max(2 * wavelet.HALO, SLAB_SAMPLES // (config.bands * math.prod(across))))


def context(first: int, end: int, z: int) -> tuple[Indices, slice]:
    """The depth positions that a slab depends on, around the ends, and which of them are its own."""
    if end - first + 2 * wavelet.HALO >= z:
        return np.arange(z), slice(first, end)
    return np.arange(first - wavelet.HALO, end + wavelet.HALO) % z, slice(wavelet.HALO, wavelet.HALO + end - first)


def blocks(first: int, end: int, half: Signal) -> list[slice]:
    """Parts of the rows of a half, enough of them for all threads."""
    samples = half.size // half.shape[3]  # of a row
    size = min(max(1, BLOCK_SAMPLES // samples), -(-(end - first) // threads()))
    return [slice(first + start, first + stop) for start, stop in parts(end - first, size)]


def band_order(config: Config) -> Indices:
    """For each of the K bands its number where those of every path along depth follow each other: (c, path, 4^J others)."""
    one = _order_of_channel(config.J)
    return (np.arange(config.channels)[:, None] * one.size + one).ravel()


@lru_cache(maxsize=16)
def _order_of_channel(levels: int) -> Indices:
    """`band_order` of one channel."""
    volume, plane = kernels.band_numbers(3, levels), kernels.band_numbers(2, levels)[0]
    order = np.empty(volume.size, dtype=np.intp)
    order[volume] = (np.arange(1 << levels) << (2 * levels))[:, None, None] + plane
    return order
