"""The image codec in tiles and windows, side by side: same integers as `walloc_ref.image`, in a memory of rows of them.

Everything but the networks is local, so it runs on tiles: a tile with `HALO` latent positions of context on each side
gives what the whole image gives. Networks run on the windows of the stream (SPEC.md 9.11), each of which sees nothing
beyond its context. A region of an image takes the tiles, windows and slices that it depends on, and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from walloc_ref import image
from walloc_ref.architecture import Latents, Samples, Signal, Subbands, Symbols
from walloc_ref.fast import signal as kernel
from walloc_ref.fast import wavelet as transform
from walloc_ref.fast.mosaic import Mosaic, Span, Tile, cut, seen
from walloc_ref.fast.workers import Workroom, for_each, threads
from walloc_ref.stages import signal, wavelet
from walloc_ref.stages.autoencoder_kl import windows
from walloc_ref.stages.container import Coding, Layout

if TYPE_CHECKING:
    from walloc_ref.model import Config, Model
    from walloc_ref.plain import Functions

STRIP = 48
"""Latent rows of a tile, or of a strip as wide as the image. The context adds 2·HALO rows, 17 % at this height."""

TILE = 128
"""Latent columns of a tile. The context adds 6 %."""

STRIP_SAMPLES = 1 << 24
"""Samples that a strip should have at most, 128 MiB of signal: fewer rows of images that are wide or have many channels."""


# ---- encoding


def samples_to_symbols(samples: Samples, layout: Layout, model: Model, functions: Functions) -> Symbols:
    """Same as `walloc_ref.image.samples_to_symbols`."""

    def padded(rows: NDArray[np.intp], columns: NDArray[np.intp], room: Workroom | None = None) -> Signal:
        x = kernel.padded_image_to_signal(samples, rows, columns, layout.mean, layout.gain, room)  # [C′, r, m·w]
        return x if len(x) == model.config.channels else signal.from_channels(x, model.config.channels)

    return _encode(padded, layout.sizes, layout, model, functions)


def signal_to_symbols(x: Signal, coding: Coding, model: Model, functions: Functions) -> Symbols:
    """Same as `walloc_ref.image.signal_to_symbols`."""

    def padded(rows: NDArray[np.intp], columns: NDArray[np.intp], room: Workroom | None = None) -> Signal:
        return x[:, rows[:, None], columns]

    return _encode(padded, x.shape[1:], coding, model, functions)


def _encode(
    padded: Callable[..., Signal],
    sizes: tuple[int, ...],
    coding: Coding,
    model: Model,
    functions: Functions,
) -> Symbols:
    """Symbols (D, h, w) of an image whose signal (C, r, c) at any rows and columns `padded` gives, in a room if given."""
    config, m = model.config, model.config.multiple
    rows, columns = (signal.reflected_indices(n, m) for n in sizes)  # which sample stands at each padded place
    step = model.plane_steps(coding)
    even = bool((step == 1).all())

    def bands_of(first: int, end: int) -> Subbands:
        """Subbands of the latent rows first … end, computed with enough context to be those of the whole image."""
        whole = (end - first + 2 * wavelet.HALO) * m >= rows.size
        wanted = rows if whole else rows[np.arange((first - wavelet.HALO) * m, (end + wavelet.HALO) * m) % rows.size]
        bands = functions.analyse(padded(wanted, columns), config.J)
        return bands[:, first:end] if whole else bands[:, wavelet.HALO : -wavelet.HALO]

    h, w = config.latent_sizes(sizes)
    symbols = np.empty((config.planes, h, w), dtype=np.int16)
    if not config.lightweight_encode:
        latents = _network(bands_of(0, h), coding, config.latent_dim, functions.image_encoder, model.weights["encoder"])
        return functions.quantise(latents if even else latents / step, config.latent_bits)

    def encode_strip(span: Span) -> None:
        latents = config.record.to_latents(bands_of(*span), model, coding, functions)
        symbols[:, slice(*span)] = functions.quantise(latents if even else latents / step, config.latent_bits)

    if config.J == 0 or functions.analyse is not transform.analyse:
        for_each(encode_strip, strips(h, rows_of_strip(config, w)), report=True)
        return symbols
    halo, room = transform.tile_halo(config.J), Workroom()

    def encode_tile(tile: Tile) -> None:
        (top, bottom), (left, right) = tile
        wanted = rows[np.arange((top - halo) * m, (bottom + halo) * m) % rows.size]
        across = columns[np.arange((left - halo) * m, (right + halo) * m) % columns.size]
        x = padded(wanted, across.reshape(-1, m).T.ravel(), room)  # [C, (R + 2·halo)·m, m·(W + 2·halo)], by phases
        x = np.ascontiguousarray(x).reshape(config.channels, wanted.size, m, -1)
        latents = config.record.to_latents(transform.analyse_tile(x, config.J, room), model, coding, functions)
        place = (slice(None), slice(top, bottom), slice(left, right))
        symbols[place] = functions.quantise(latents if even else latents / step, config.latent_bits)

    for_each(encode_tile, list(product(*_grid(config, h, w))), report=True)
    return symbols


# ---- decoding


def symbols_to_samples(symbols: Symbols, layout: Layout, model: Model, functions: Functions) -> Samples:
    """Same as `walloc_ref.image.symbols_to_samples`."""
    return _decode(symbols, layout, model, functions, None)


def certified_samples(
    symbols: Symbols, layout: Layout, model: Model, functions: Functions
) -> tuple[Samples, list[int]]:
    """Same as `walloc_ref.image.certified_samples`."""
    uncertain: list[NDArray[np.intp]] = []
    samples = _decode(symbols, layout, model, functions, uncertain)
    return samples, sorted(int(i) for part in uncertain for i in part)


def _decode(
    symbols: Symbols, layout: Layout, model: Model, functions: Functions, uncertain: list[NDArray[np.intp]] | None
) -> Samples:
    """Samples; indices of uncertain ones are added to the list, if there is one."""
    dtype = image.DTYPES[layout.sample_format]
    samples = np.empty((*layout.sizes, layout.channels), dtype)

    def keep(top: int, left: int, x: Signal) -> None:
        x = signal.to_channels(x, layout.channels)
        place = slice(top, top + x.shape[1]), slice(left, left + x.shape[2])
        samples[place] = functions.signal_to_image(x, dtype, layout.mean, layout.gain)
        if uncertain is not None and kernel.smallest_margin(x, dtype) <= image.MARGIN_BOUND[layout.sample_format]:
            i, j, c = np.unravel_index(image.uncertain(x, layout), (*x.shape[1:], layout.channels))
            uncertain.append(np.ravel_multi_index((i + top, j + left, c), samples.shape))

    _synthesise(symbols, layout.sizes, layout, model, functions, keep)
    return samples


def symbols_to_signal(
    symbols: Symbols, sizes: tuple[int, ...], coding: Coding, model: Model, functions: Functions
) -> Signal:
    """Same as `walloc_ref.image.symbols_to_signal`."""
    x = np.empty((model.config.channels, *sizes))

    def keep(top: int, left: int, part: Signal) -> None:
        x[:, top : top + part.shape[1], left : left + part.shape[2]] = part

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
    """Give the clamped signal to `keep` in tiles: numbers of the first row and column, values (C, r, c); in any order."""
    config, latent = model.config, symbols.shape[1:]
    step = model.plane_steps(coding)
    rows, columns = _grid(config, *latent)
    tiles = list(product(rows, columns))

    def latents_of(part: Symbols) -> Latents:
        return functions.dequantise(part, config.latent_bits) * step

    def finish(tile: Tile, bands: Subbands) -> None:
        x = functions.clamp(functions.synthesise(bands, config.J))
        (top, down), (left, across) = (_cropped(*axis, config.multiple) for axis in zip(tile, latent, sizes))
        keep(top, left, x[:, down, across])

    if not config.record.sees_everything:

        def decode_tile(tile: Tile) -> None:
            finish(tile, config.record.to_bands(latents_of(cut(symbols, tile)), model, coding, functions))

        for_each(decode_tile, tiles, report=True)
        return
    weights, places = model.weights["decoder"], list(windows(latent, coding.window, coding.context))
    if len(places) == 1:
        bands = functions.image_decoder(latents_of(symbols), weights)  # which uses all threads itself
        for_each(lambda tile: finish(tile, cut(bands, tile)), tiles)
        return
    mosaic = Mosaic(config.bands, latent, rows, columns)

    def decode_window(place: tuple) -> None:
        (down, across), (seen_down, seen_across), inside = place
        bands = functions.image_decoder(latents_of(symbols[:, seen_down, seen_across]), weights)
        for whole in mosaic.put((down.start, down.stop), (across.start, across.stop), bands[:, inside[0], inside[1]]):
            finish(*whole)

    for_each(decode_window, places, report=True)


def _cropped(span: Span, n: int, size: int, m: int) -> tuple[int, slice]:
    """Along an axis of n latent positions and of `size` samples: the first sample of a tile, and which of its padded ones
    and those around them are samples of its own.
    """  # fmt: skip
    before = signal.padding_before(size, m)
    first, end = max(span[0] * m, before), min(span[1] * m, before + size)
    start = seen(span, n)[0] * m
    return first - before, slice(first - start, end - start)


def _network(
    x: NDArray, coding: Coding, outputs: int, network: Callable[..., NDArray[np.float64]], weights: object
) -> NDArray[np.float64]:
    """A network on every window, side by side: (N, h, w) to (outputs, h, w)."""
    places = list(windows(x.shape[1:], coding.window, coding.context))
    if len(places) == 1:
        return network(x, weights)  # which uses all threads itself
    y = np.empty((outputs, *x.shape[1:]))

    def run(place: tuple) -> None:
        (rows, columns), (seen_rows, seen_columns), inside = place
        y[:, rows, columns] = network(x[:, seen_rows, seen_columns], weights)[:, inside[0], inside[1]]

    for_each(run, places, report=True)
    return y


def _grid(config: Config, h: int, w: int) -> tuple[list[Span], list[Span]]:
    """Rows and columns of tiles."""
    return strips(h, rows_of_strip(config, min(w, TILE))), parts(w, max(1, round(w / TILE)))


def rows_of_strip(config: Config, w: int) -> int:
    """Latent rows that a strip of this width should have."""
    return min(STRIP, max(2 * wavelet.HALO, STRIP_SAMPLES // (config.bands * w)))


def strips(h: int, rows: int) -> list[Span]:
    """Equal parts of about so many latent rows, or fewer rows where that gives every thread a part."""
    return parts(h, max(1, round(h / rows), min(threads(), h // (4 * wavelet.HALO))))


def parts(n: int, count: int) -> list[Span]:
    """As many equal parts."""
    return list(pairwise(n * i // count for i in range(count + 1)))


# ---- regions


@dataclass(frozen=True)
class Needed:
    """What a region of an image depends on.

    Attributes
    ----------
    rows, columns : intp
        Latent rows and columns that are synthesised, in order, around the ends (the transform is periodic).
    top, left : int
        First padded sample of the synthesised part that is of the region.
    windows : list
        Those that the rows and columns lie in.
    symbol_rows : set of int
        Latent rows whose symbols are needed.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    top: int
    left: int
    windows: list
    symbol_rows: set[int]


def needed(layout: Layout, region: tuple[int, int, int, int], model: Model) -> Needed:
    """What the samples x … x + width, y … y + height depend on; `region` is (x, y, width, height)."""
    config, m = model.config, model.config.multiple
    x, y, width, height = region
    latent = config.latent_sizes(layout.sizes)
    places, firsts = [], []
    for start, length, size, n in ((y, height, layout.sizes[0], latent[0]), (x, width, layout.sizes[1], latent[1])):
        positions, first = reach(start, length, size, n, m)
        places.append(positions)
        firsts.append(first)
    rows, columns = places
    if not config.record.sees_everything:
        return Needed(rows, columns, firsts[0], firsts[1], [], set(rows.tolist()))
    chosen = [
        place
        for place in windows(latent, layout.window, layout.context)
        if np.any((rows >= place[0][0].start) & (rows < place[0][0].stop))
        and np.any((columns >= place[0][1].start) & (columns < place[0][1].stop))
    ]
    seen = {row for _, (seen_rows, _), _ in chosen for row in range(seen_rows.start, seen_rows.stop)}
    return Needed(rows, columns, firsts[0], firsts[1], chosen, seen)


def reach(start: int, length: int, size: int, n: int, m: int) -> tuple[NDArray[np.intp], int]:
    """Latent positions along an axis that the samples start … start + length depend on, and which of the samples that they
    synthesise is the first one wanted.
    """  # fmt: skip
    start += signal.padding_before(size, m)
    first, end = start // m, -(-(start + length) // m)
    if end - first + 2 * wavelet.HALO >= n:
        return np.arange(n), start
    return np.arange(first - wavelet.HALO, end + wavelet.HALO) % n, start - (first - wavelet.HALO) * m


def region_samples(
    symbols: Symbols, layout: Layout, region: tuple[int, int, int, int], model: Model, functions: Functions
) -> Samples:
    """The samples (height, width, C′) of a region, from symbols of which only the needed rows must be there."""
    config, parts = model.config, needed(layout, region, model)
    step = model.plane_steps(layout)
    bands = np.empty((config.bands, parts.rows.size, parts.columns.size))
    if config.record.sees_everything:

        def run(place: tuple) -> None:
            (rows, columns), (seen_rows, seen_columns), inside = place
            latents = functions.dequantise(symbols[:, seen_rows, seen_columns], config.latent_bits) * step
            y = functions.image_decoder(latents, model.weights["decoder"])[:, inside[0], inside[1]]
            into = np.flatnonzero((parts.rows >= rows.start) & (parts.rows < rows.stop))
            across = np.flatnonzero((parts.columns >= columns.start) & (parts.columns < columns.stop))
            taken = y[:, parts.rows[into] - rows.start][:, :, parts.columns[across] - columns.start]
            bands[:, into[:, None], across] = taken

        for_each(run, parts.windows, report=True)
    else:
        wanted = symbols[:, parts.rows][:, :, parts.columns]
        latents = functions.dequantise(wanted, config.latent_bits) * step
        bands = config.record.to_bands(latents, model, layout, functions)
    x = functions.clamp(functions.synthesise(bands, config.J))
    _, _, width, height = region
    x = x[:, parts.top : parts.top + height, parts.left : parts.left + width]
    x, dtype = signal.to_channels(x, layout.channels), image.DTYPES[layout.sample_format]
    return functions.signal_to_image(x, dtype, layout.mean, layout.gain)
