"""The audio codec: the stages of `Codec1D` strung together.

Every stage is local, so everything runs on pieces of `PIECE` positions of 2^J samples, each a function of the file and
its own place alone: computing a file is computing its pieces, in any order, on any number of threads, in a memory that
does not grow with its length. What a piece needs besides itself:

    analysis        HALO positions on each side, around the ends of the file (the transform is periodic)
    full encoder    84 positions before and 82 behind, zeros beyond the ends
    decoder         84 latents before and 86 behind, zeros beyond the ends
    synthesis       HALO positions on each side, around the ends: the first piece needs the last positions decoded, too
    post filter     64 samples on each side, zeros beyond the ends of the padded file
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples, MalformedModel
from walloc_ref.fast.workers import Progress, compiled, for_each
from walloc_ref.pipeline import Pipeline
from walloc_ref.stages import oobleck, projection, quantise, signal, wavelet
from walloc_ref.stages.container import MAX_RATE, Header

Source = Callable[[int, int], NDArray[np.float64]]
"""Gives the signal (C, stop - start) of the frames start … stop - 1, all of which exist."""

Sink = Callable[[int, NDArray[np.float64]], None]
"""Takes the number of a frame and the clamped signal (C, n) from there on."""

PIECE = 1024
"""Positions of a piece. The decoder's context adds up to 170 to the work, on average 88."""

TRANSFORM_SAMPLES = 1 << 14
"""Samples of a channel that are transformed at a time, so that all levels of a piece stay in a second-level cache."""

DEFAULT_RATE = 44100
"""Samples a second where nothing is said."""

MARGIN_BOUND = {"u8": 2.0**-30, "s16": 2.0**-24, "s24": 2.0**-16, "s32": 2.0**-8}
"""Bound of the margin of a sample, in steps of the sample format (SPEC.md section 2)."""


class AudioPipeline(Pipeline):
    """The stages for one model. Weights are promoted to binary64 once, when first used."""

    def to_symbols(self, x: NDArray[np.float64]) -> NDArray[np.int16]:
        """A signal (C, L) of any length to symbols (D, l)."""
        return self._encode(lambda start, stop: x[:, start:stop], x.shape[1])

    def from_symbols(
        self, symbols: NDArray[np.int16], shape: tuple[int, ...] | None = None, progress: Progress | None = None
    ) -> NDArray[np.float64]:
        """Symbols to the clamped signal, (C, (l - 2)·2^J) or cropped to `shape`."""
        border = 2 * projection.BORDER
        if symbols.shape[1] <= border:
            raise BadSamples("symbols.shape", symbols.shape, f"at least {border + 1} latent positions")
        frames = (symbols.shape[1] - border) * self.config.multiple if shape is None else shape[1]
        x = np.empty((self.config.channels, frames))

        def keep(start: int, piece: NDArray[np.float64]) -> None:
            x[:, start : start + piece.shape[1]] = piece

        self._decode(symbols, frames, keep, progress)
        return x

    def latent_sizes(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Latent positions of a signal of this length, border included."""
        return (signal.padded_size(sizes[0], self.config.multiple) // self.config.multiple + 2 * projection.BORDER,)

    def check_channels(self, channels: int) -> None:
        """Refuse a number of channels that the model cannot code."""
        if channels not in (1, self.config.channels):
            raise BadSamples("channels", channels, f"{self.config.channels}, or 1, for this model")

    def describe(
        self, samples: NDArray[Any], rate: int | None, sample_format: str | None
    ) -> tuple[NDArray[Any], Header]:
        """Check samples; return them as (frames, channels), and the header that describes them, not yet coded."""
        rate = DEFAULT_RATE if rate is None else rate
        if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)) or not 1 <= rate <= MAX_RATE:
            raise BadSamples("rate", rate, f"an integer from 1 to {MAX_RATE}")
        native = samples.dtype.newbyteorder("=")
        fitting = [name for name, known in signal.AUDIO_FORMATS.items() if native == np.dtype(known.dtype)]
        if not fitting or sample_format not in (None, *fitting):
            known = ", ".join(f"{name} in {np.dtype(f.dtype)}" for name, f in signal.AUDIO_FORMATS.items())
            raise BadSamples("samples.dtype", f"{sample_format or ''} in {samples.dtype}".lstrip(), known)
        if samples.ndim == 1:
            samples = samples[:, None]
        if samples.ndim != 2 or samples.size == 0:
            raise BadSamples("samples.shape", samples.shape, "(frames,) or (frames, channels), no size 0")
        self.check_channels(samples.shape[1])
        found = sample_format or fitting[-1]  # int32 without a name has 32 bits
        mean, gain = signal.audio_statistics(samples, found)
        header = Header(
            kind="audio",
            sample_format=found,
            channels=samples.shape[1],
            sizes=samples.shape[:1],
            model_id=b"",
            J=self.config.J,
            latent_dim=self.config.planes,
            latent_bits=self.config.latent_bits,
            slice_size=1,
            symbol_hash=b"",
            rate=int(rate),
            mean=mean,
            gain=gain,
        )
        return samples, header

    def samples_to_symbols(
        self, samples: NDArray[Any], header: Header, progress: Progress | None = None
    ) -> NDArray[np.int16]:
        """Samples (frames, channels) to symbols (D, l). One channel is repeated for a model of several."""

        def source(start: int, stop: int) -> NDArray[np.float64]:
            part = (samples[start:stop], header.sample_format, header.mean, header.gain)
            if compiled():
                from walloc_ref.fast import signal as kernel

                x = kernel.audio_to_signal(*part)
            else:
                x = signal.audio_to_signal(*part)
            return np.broadcast_to(x, (self.config.channels, stop - start))

        return self._encode(source, len(samples), progress)

    def symbols_to_samples(
        self, symbols: NDArray[np.int16], header: Header, progress: Progress | None = None
    ) -> tuple[NDArray[Any], list[int]]:
        """Symbols to samples (frames, channels) of the header's format, and the indices of the uncertain ones.

        Audio of one channel coded by a model of several is the mean of the decoded channels. Samples in floating point
        have no certain values: there, none is reported.
        """
        samples = np.empty((*header.sizes, header.channels), signal.AUDIO_FORMATS[header.sample_format].dtype)
        uncertain: list[NDArray[np.intp]] = []

        def keep(start: int, piece: NDArray[np.float64]) -> None:
            if header.channels < len(piece):
                piece = piece.mean(axis=0, keepdims=True)
            how = (header.sample_format, header.mean, header.gain)
            bound = MARGIN_BOUND.get(header.sample_format, -1.0)
            place = slice(start, start + piece.shape[1])
            if compiled():
                from walloc_ref.fast import signal as kernel

                samples[place] = kernel.signal_to_audio(piece, *how)
                if bound < 0 or kernel.smallest_audio_margin(piece, *how) > bound:
                    return
            else:
                samples[place] = signal.signal_to_audio(piece, *how)
            close = np.flatnonzero(quantise.margin(signal.scale_to_audio(piece, *how).T) <= bound)
            uncertain.append(close + start * header.channels)

        self._decode(symbols, header.sizes[0], keep, progress)
        return samples, sorted(int(i) for part in uncertain for i in part)

    @cached_property
    def _projection(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Matrix [D, C·2^J] and bias [D] of the lightweight encoder."""
        return self._tensor("encoder.0.weight")[:, :, 0], self._tensor("encoder.0.bias")

    @cached_property
    def _encoder(self) -> oobleck.Network:
        return oobleck.load(self.model.tensors, "encoder.0.")

    @cached_property
    def _decoder(self) -> oobleck.Network:
        return oobleck.load(self.model.tensors, "decoder.1.")

    @cached_property
    def _post(self) -> dict[str, NDArray[np.float64]]:
        """Weight [C, C, 129] and bias [C] of the post filter."""
        return {key: self._tensor(f"post.{key}") for key in ("weight", "bias")}

    def _tensor(self, name: str) -> NDArray[np.float64]:
        return self.model.tensors[name].astype(np.float64)

    @cached_property
    def _activate(self) -> oobleck.Snake:
        """Snake, or its kernel."""
        if compiled():
            from walloc_ref.fast import oobleck as kernel

            return kernel.snake
        return oobleck.snake

    def _encode(self, source: Source, frames: int, progress: Progress | None = None) -> NDArray[np.int16]:
        """A signal of `frames` frames to symbols (D, l)."""
        positions = signal.padded_size(frames, self.config.multiple) // self.config.multiple
        latents = positions + 2 * projection.BORDER
        symbols = np.empty((self.config.planes, latents), dtype=np.int16)

        def encode_piece(span: tuple[int, int]) -> None:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not a number is refused by the quantiser
                symbols[:, slice(*span)] = self._encode_piece(source, frames, positions, *span)

        for_each(encode_piece, _spans(latents, PIECE), progress)
        return symbols

    def _encode_piece(self, source: Source, frames: int, positions: int, start: int, stop: int) -> NDArray[np.int16]:
        """Symbols of the latents start … stop - 1: (D, stop - start)."""
        if self.config.lightweight_encode:
            first, last = max(0, start - projection.BORDER), min(positions, stop - projection.BORDER)
            latents = np.empty((self.config.planes, stop - start))
            latents[:] = self._projection[1][:, None]  # what remains of it is the border
            if first < last:
                column = first + projection.BORDER - start
                bands = self._analyse_piece(source, frames, positions, first, last)
                latents[:, column : column + last - first] = projection.project(bands, *self._projection)
            return self.quantise(latents)
        left, right = oobleck.ENCODER_CONTEXT
        first, last = max(0, start - left), min(positions, stop + right)
        bands = self._analyse_piece(source, frames, positions, first, last)  # [C·2^J, last - first]
        bands = oobleck.window(bands, start - left - first, stop + right - first)
        return self.quantise(oobleck.encoder_window(self._encoder, bands, start - left, positions, self._activate))

    def _analyse_piece(self, source: Source, frames: int, positions: int, first: int, last: int) -> NDArray[np.float64]:
        """Bands (C·2^J, last - first) of the positions first … last - 1, equal to those of the whole file."""
        m, halo = self.config.multiple, wavelet.HALO
        if last - first + 2 * halo >= positions:
            return self.analyse(self._padded(source, frames, 0, positions * m))[:, first:last]
        bands = np.empty((self.config.bands, last - first))
        for start, stop in self._tiles(last - first):
            x = self._padded(source, frames, (first + start - halo) * m, (first + stop + halo) * m)
            bands[:, start:stop] = self.analyse(x)[:, halo:-halo]
        return bands

    def _synthesise_piece(self, bands: NDArray[np.float64]) -> NDArray[np.float64]:
        """Signal (C, n·2^J) of bands (C·2^J, n + 2·HALO) that bring their context."""
        m, halo = self.config.multiple, wavelet.HALO
        n = bands.shape[1] - 2 * halo
        x = np.empty((self.config.channels, n * m))
        for start, stop in self._tiles(n):
            x[:, start * m : stop * m] = self.synthesise(bands[:, start : stop + 2 * halo])[:, halo * m : -halo * m]
        return x

    def _tiles(self, positions: int) -> list[tuple[int, int]]:
        """Parts of a piece that are transformed at a time."""
        return _spans(positions, max(8 * wavelet.HALO, TRANSFORM_SAMPLES >> self.config.J))

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

    def _decode(self, symbols: NDArray[np.int16], frames: int, keep: Sink, progress: Progress | None = None) -> None:
        """Give the signal of all frames to `keep`, piece by piece, in any order."""

        def decode_piece(span: tuple[int, int]) -> None:
            first = span[0] * self.config.multiple
            with np.errstate(over="ignore", invalid="ignore"):
                piece = self._decode_piece(symbols, *span)[:, : frames - first]
                if np.isnan(piece).any():
                    raise MalformedModel("decoded signal", "not a number", "weights that overflow nowhere")
                keep(first, piece)

        for_each(decode_piece, _spans(symbols.shape[1] - 2 * projection.BORDER, PIECE), progress)

    def _decode_piece(self, symbols: NDArray[np.int16], first: int, last: int) -> NDArray[np.float64]:
        """The clamped signal (C, (last - first)·2^J) of the positions first … last - 1."""
        m = self.config.multiple
        positions = symbols.shape[1] - 2 * projection.BORDER
        reach = oobleck.POST_REACH if self.config.post_filter else 0
        beside = signal.padded_size(reach, m) // m  # positions that the post filter reaches
        halo = beside + wavelet.HALO
        bands = self._decode_bands(symbols, first - halo, last + halo)
        x = self._synthesise_piece(bands)
        if self.config.post_filter:
            start = (first - beside) * m  # of the first column of x
            x[:, : max(0, -start)] = 0
            x[:, max(0, positions * m - start) :] = 0
            x = self._post_filter(x[:, beside * m - reach : (beside + last - first) * m + reach])
        return signal.clamp(x)

    def _decode_bands(self, symbols: NDArray[np.int16], start: int, stop: int) -> NDArray[np.float64]:
        """Bands (C·2^J, stop - start) of positions counted around the ends of the file."""
        positions = symbols.shape[1] - 2 * projection.BORDER
        if stop - start >= positions:
            return self._decode_positions(symbols, 0, positions)[:, np.arange(start, stop) % positions]
        parts = []
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
        z = quantise.dequantise(around, self.config.latent_bits)  # [D, stop - start + 170]
        return oobleck.decoder_window(self._decoder, z, start - left, symbols.shape[1], self._activate)

    def _post_filter(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The post filter on samples that bring their context: (C, n + 128) to (C, n)."""
        if compiled():
            from walloc_ref.fast import oobleck as kernel

            return kernel.post_filter(x, **self._post)
        return oobleck.post_filter(x, **self._post)


def _spans(positions: int, size: int) -> list[tuple[int, int]]:
    """Pieces of `size` positions, the last one shorter."""
    return [(start, min(start + size, positions)) for start in range(0, positions, size)]
