"""The audio codec in pieces: same integers as `walloc_ref.audio`, in a memory that does not grow with the file.

Every stage is local, so everything runs on pieces of `PIECE` positions of 2^J samples, each a function of the file and
its own place alone: computing a file is computing its pieces, in any order, on any number of threads. What a piece needs
besides itself (SPEC.md 11.15):

    analysis        `wavelet.tile_halo` positions on each side, around the ends of the file (the transform is periodic)
    full encoder    84 positions before and 82 behind, zeros beyond the ends
    decoder         84 latents before and 86 behind, zeros beyond the ends
    synthesis       as many on each side, around the ends: the first piece needs the last positions decoded, too
    post filter     64 samples on each side, zeros beyond the ends of the padded file
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from walloc_ref import audio
from walloc_ref.architecture import Samples, Signal, Symbols
from walloc_ref.fast import oobleck
from walloc_ref.fast import projection as kernels
from walloc_ref.fast import signal as kernel
from walloc_ref.fast import wavelet as transform
from walloc_ref.fast.workers import Workroom, for_each, threads
from walloc_ref.stages import projection, signal, wavelet
from walloc_ref.stages.container import Coding, Layout
from walloc_ref.stages.oobleck import POST_REACH

if TYPE_CHECKING:
    from walloc_ref.model import Model
    from walloc_ref.plain import Functions

Source = Callable[[int, int], NDArray[np.float64]]
"""Gives the signal (C, stop - start) of the frames start … stop - 1, all of which exist."""

Sink = Callable[[int, NDArray[np.float64]], None]
"""Takes the number of a frame and the clamped signal (C, n) from there on."""

PIECE = 2048
"""Positions of a piece at most. The decoder's context adds up to 170 to the work, on average 88."""

SHORT = 256
"""Positions of a piece at least, where more pieces would share the work out more evenly."""

# How far encoding is from what a core can do: stereo_5x takes 216 operations a sample for the projection (108 latents of
# 512 bands, for 512 samples) and 92 for the transform (8 levels of 11.5). A core of 130 GFLOP/s needs 2.4 ns for those.
# Signal to symbols takes 7 to 9 ns: the transform 3.2, since each of its sums is that of the definition, not contracted,
# and every level is read from a second-level cache; the projection 2.1, at 105 GFLOP/s; the quantiser 1. The upstream in
# binary32 takes 37, so that eight times its speed would be 4.6. Two other ways were slower: lines that are split into even
# and odd samples, node by node (7 ns for the transform), and a projection by BLAS (4.4 ns, at 49 GFLOP/s).

TRANSFORM_SAMPLES = 1 << 15
"""Samples of a channel that are transformed at a time, so that all levels of a piece stay in a second-level cache."""


def samples_to_symbols(samples: Samples, layout: Layout, model: Model, functions: Functions) -> Symbols:
    """Same as `walloc_ref.audio.samples_to_symbols`."""

    def source(start: int, stop: int) -> Signal:
        x = functions.audio_to_signal(samples[start:stop], layout.sample_format, layout.mean, layout.gain)
        return signal.from_channels(x, model.config.channels)

    return Pieces(model, layout, functions).encode(source, len(samples))


def signal_to_symbols(x: Signal, coding: Coding, model: Model, functions: Functions) -> Symbols:
    """Same as `walloc_ref.audio.signal_to_symbols`."""
    return Pieces(model, coding, functions).encode(lambda start, stop: x[:, start:stop], x.shape[1])


def symbols_to_samples(symbols: Symbols, layout: Layout, model: Model, functions: Functions) -> Samples:
    """Same as `walloc_ref.audio.symbols_to_samples`."""
    return _decode(symbols, layout, model, functions, None)


def certified_samples(
    symbols: Symbols, layout: Layout, model: Model, functions: Functions
) -> tuple[Samples, list[int]]:
    """Same as `walloc_ref.audio.certified_samples`."""
    uncertain: list[NDArray[np.intp]] = []
    samples = _decode(symbols, layout, model, functions, uncertain)
    return samples, sorted(int(i) for part in uncertain for i in part)


def _decode(
    symbols: Symbols, layout: Layout, model: Model, functions: Functions, uncertain: list[NDArray[np.intp]] | None
) -> Samples:
    """Samples; indices of uncertain ones are added to the list, if there is one."""
    samples = np.empty((*layout.sizes, layout.channels), signal.AUDIO_FORMATS[layout.sample_format].dtype)
    how = (layout.sample_format, layout.mean, layout.gain)

    def keep(start: int, x: Signal) -> None:
        x = signal.to_channels(x, layout.channels)
        samples[start : start + x.shape[1]] = functions.signal_to_audio(x, *how)
        if uncertain is not None:
            bound = audio.MARGIN_BOUND[layout.sample_format]
            if kernel.smallest_audio_margin(x, *how) <= bound:
                uncertain.append(audio.uncertain(x, layout) + start * layout.channels)

    Pieces(model, layout, functions).decode(symbols, layout.sizes[0], keep)
    return samples


def symbols_to_signal(
    symbols: Symbols, sizes: tuple[int, ...], coding: Coding, model: Model, functions: Functions
) -> Signal:
    """Same as `walloc_ref.audio.symbols_to_signal`."""
    x = np.empty((model.config.channels, *sizes))

    def keep(start: int, part: Signal) -> None:
        x[:, start : start + part.shape[1]] = part

    Pieces(model, coding, functions).decode(symbols, sizes[0], keep)
    return x


class Pieces:
    """The pieces of a file: its model, how it is coded, and the functions to use."""

    def __init__(self, model: Model, coding: Coding, functions: Functions) -> None:
        self.config, self.weights, self.functions = model.config, model.weights, functions
        self.project = kernels.project if functions.project is projection.project else functions.project
        self.step, self.room = model.plane_steps(coding), Workroom()
        self.synthesis_by_phases = self.config.J > 0 and functions.synthesise is transform.synthesise
        self.synthesis_halo = self._halo(self.synthesis_by_phases)
        self.number = np.float32 if functions.precision == "binary32" else np.float64  # of the decoder network

    def encode(self, source: Source, frames: int) -> NDArray[np.int16]:
        """A signal of `frames` frames to symbols (D, l)."""
        positions = signal.padded_size(frames, self.config.multiple) // self.config.multiple
        latents = positions + 2 * projection.BORDER
        symbols = np.empty((self.config.planes, latents), dtype=np.int16)

        def encode_piece(span: tuple[int, int]) -> None:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not a number is refused by the quantiser
                symbols[:, slice(*span)] = self._encode_piece(source, frames, positions, *span)

        for_each(encode_piece, pieces(latents), report=True)
        return symbols

    def _encode_piece(self, source: Source, frames: int, positions: int, start: int, stop: int) -> NDArray[np.int16]:
        """Symbols of the latents start … stop - 1: (D, stop - start)."""
        if self.config.lightweight_encode:
            first, last = max(0, start - projection.BORDER), min(positions, stop - projection.BORDER)
            latents = np.empty((self.config.planes, stop - start))
            latents[:] = self.weights["encoder"]["bias"][:, None]  # what remains of it is the border
            if first < last:
                inner = latents[:, first + projection.BORDER - start :]
                for tile, bands in self._analyse_piece(source, frames, positions, first, last):
                    inner[:, tile] = self.project(bands, **self.weights["encoder"])  # while they are in cache
            return self._quantise(latents)
        left, right = oobleck.ENCODER_CONTEXT
        first, last = max(0, start - left), min(positions, stop + right)
        bands = np.empty((self.config.bands, last - first))
        for tile, part in self._analyse_piece(source, frames, positions, first, last):
            bands[:, tile] = part
        bands = oobleck.window(bands, start - left - first, stop + right - first)
        latents = oobleck.encoder_window(self.weights["encoder"], bands, start - left, positions)
        return self._quantise(latents)

    def _analyse_piece(
        self, source: Source, frames: int, positions: int, first: int, last: int
    ) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Bands (C·2^J, n) of the positions first … last - 1, equal to those of the whole file, a tile at a time.

        The slice counts from `first`; where bands stand, those of the next tile will.
        """
        m, levels = self.config.multiple, self.config.J
        by_phases = levels > 0 and self.functions.analyse is transform.analyse
        halo = self._halo(by_phases)
        if not by_phases and last - first + 2 * halo >= positions:
            whole = self.functions.analyse(self._padded(source, frames, 0, positions * m), levels)
            yield slice(0, last - first), whole[:, first:last]
            return
        for start, stop in self._tiles(last - first):
            x = self._padded(source, frames, (first + start - halo) * m, (first + stop + halo) * m)
            if by_phases:
                yield slice(start, stop), transform.analyse_piece(x, levels, self.room)
            else:
                yield slice(start, stop), self.functions.analyse(x, levels)[:, halo:-halo]

    def _synthesise_piece(self, bands: NDArray[np.float64]) -> NDArray[np.float64]:
        """Signal (C, n·2^J) of bands (C·2^J, n + 2·halo) that bring their context."""
        m, halo = self.config.multiple, self.synthesis_halo
        n = bands.shape[1] - 2 * halo
        x = np.empty((self.config.channels, n * m))
        for start, stop in self._tiles(n):
            around = bands[:, start : stop + 2 * halo]
            if self.synthesis_by_phases:
                part = transform.synthesise_piece(around, self.config.J, self.room)
            else:
                part = self.functions.synthesise(around, self.config.J)[:, halo * m : -halo * m]
            x[:, start * m : stop * m] = part
        return x

    def _halo(self, by_phases: bool) -> int:
        """Positions of context that the transform of a tile wants on each side."""
        return transform.tile_halo(self.config.J) if by_phases else wavelet.HALO

    def _tiles(self, positions: int) -> list[tuple[int, int]]:
        """Parts of a piece that are transformed at a time."""
        return spans(positions, max(8 * wavelet.HALO, TRANSFORM_SAMPLES >> self.config.J))

    def _padded(self, source: Source, frames: int, start: int, stop: int) -> NDArray[np.float64]:
        """Samples start … stop - 1 of the periodic signal whose period is the file padded with zeros."""
        if start >= 0 and stop <= frames:
            return source(start, stop)
        period = signal.padded_size(frames, self.config.multiple)
        x = np.zeros((self.config.channels, stop - start))
        at = start
        while at < stop:
            place = at % period
            end = min(place + stop - at, period)
            if place < frames:
                x[:, at - start : at - start + min(end, frames) - place] = source(place, min(end, frames))
            at += end - place
        return x

    def decode(self, symbols: Symbols, frames: int, keep: Sink) -> None:
        """Give the signal of all frames to `keep`, piece by piece, in any order."""

        def decode_piece(span: tuple[int, int]) -> None:
            first = span[0] * self.config.multiple
            with np.errstate(over="ignore", invalid="ignore"):
                piece = self._decode_piece(symbols, *span)[:, : frames - first]
                audio.check_numbers(piece)
                keep(first, piece)

        for_each(decode_piece, pieces(symbols.shape[1] - 2 * projection.BORDER), report=True)

    def _decode_piece(self, symbols: NDArray[np.int16], first: int, last: int) -> NDArray[np.float64]:
        """The clamped signal (C, (last - first)·2^J) of the positions first … last - 1."""
        m = self.config.multiple
        positions = symbols.shape[1] - 2 * projection.BORDER
        reach = POST_REACH if self.config.post_filter else 0
        beside = signal.padded_size(reach, m) // m  # positions that the post filter reaches
        halo = beside + self.synthesis_halo
        bands = self._decode_bands(symbols, first - halo, last + halo)
        x = self._synthesise_piece(bands)
        if self.config.post_filter:
            start = (first - beside) * m  # of the first column of x
            x[:, : max(0, -start)] = 0
            x[:, max(0, positions * m - start) :] = 0
            around = x[:, beside * m - reach : (beside + last - first) * m + reach]
            x = oobleck.post_filter(around, **self.weights["post"])
        return self.functions.clamp(x)

    def _decode_bands(self, symbols: NDArray[np.int16], start: int, stop: int) -> NDArray[np.float64]:
        """Bands (C·2^J, stop - start) of positions counted around the ends of the file."""
        positions = symbols.shape[1] - 2 * projection.BORDER
        parts = []
        if stop - start >= positions:
            whole, at = self._decode_positions(symbols, 0, positions), start
            while at < stop:
                place = at % positions
                end = min(place + stop - at, positions)
                parts.append(whole[:, place:end])
                at += end - place
            return np.concatenate(parts, axis=1)
        if start < 0:
            parts.append(self._decode_positions(symbols, start + positions, positions))
        parts.append(self._decode_positions(symbols, max(0, start), min(stop, positions)))
        if stop > positions:
            parts.append(self._decode_positions(symbols, 0, stop - positions))
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def _decode_positions(self, symbols: NDArray[np.int16], start: int, stop: int) -> NDArray[np.float64]:
        """Bands (C·2^J, stop - start) of the positions start … stop - 1, all in the file."""
        left, right = oobleck.DECODER_CONTEXT
        around = oobleck.window(symbols, start - left, stop + right)  # symbol 0 is latent 0
        z = self.functions.dequantise(around, self.config.latent_bits) * self.step  # [D, stop - start + 170]
        return oobleck.decoder_window(self.weights["decoder"], z, start - left, symbols.shape[1], self.number)

    def _quantise(self, latents: NDArray[np.float64]) -> Symbols:
        """Latents (D, n) to symbols."""
        return self.functions.quantise(latents / self.step, self.config.latent_bits)


def pieces(positions: int) -> list[tuple[int, int]]:
    """Equal pieces of at most `PIECE` positions; where they are long enough, as many for every thread."""
    fewest, workers = -(-positions // PIECE), threads()
    count = max(fewest, min(-(-fewest // workers) * workers, positions // SHORT))
    return [(positions * i // count, positions * (i + 1) // count) for i in range(count)]


def spans(positions: int, size: int) -> list[tuple[int, int]]:
    """Pieces of `size` positions, the last one shorter."""
    return [(start, min(start + size, positions)) for start in range(0, positions, size)]
