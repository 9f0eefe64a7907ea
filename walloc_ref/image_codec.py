"""The image codec: the stages of `Codec2D`, `LinearCodec2D` and `ResidualCodec2D` strung together.

Everything but the full encoder and the nonlinear decoder is local, so it runs on strips of rows: a strip with `HALO`
latent rows of context on each side gives what the whole image gives, in a memory that does not grow with its height, and
strips run side by side. The nonlinear networks see the whole image of latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples
from walloc_ref.fast.workers import Progress, compiled, for_each, threads
from walloc_ref.pipeline import Pipeline
from walloc_ref.stages import autoencoder_kl, projection, quantise, signal, wavelet
from walloc_ref.stages.container import Header

Rows = Callable[[NDArray[np.intp]], NDArray[np.float64]]
"""Gives the signal (C, n, W) of n rows by their indices."""

STRIP = 48
"""Latent rows of a strip. The context adds 2·HALO rows, 17 % at this height, to the work."""

MARGIN_BOUND = {"u8": 2.0**-30, "u16": 2.0**-24}
"""Bound of the margin of a sample, in steps of the sample format (SPEC.md section 2)."""


class ImagePipeline(Pipeline):
    """The stages for one model. Weights are promoted to binary64 once, when first used."""

    def to_symbols(self, x: NDArray[np.float64]) -> NDArray[np.int16]:
        """A signal (C, H, W) of any size to symbols (planes, h, w)."""
        columns = signal.reflected_indices(x.shape[2], self.config.multiple)
        return self._rows_to_symbols(lambda index: x[:, index][:, :, columns], x.shape[1], x.shape[2])

    def from_symbols(
        self, symbols: NDArray[np.int16], shape: tuple[int, ...] | None = None, progress: Progress | None = None
    ) -> NDArray[np.float64]:
        """Symbols to the clamped signal, (C, h·2^J, w·2^J) or cropped to `shape`."""
        bands = self._symbols_to_bands(symbols, progress)
        height, width = (n * self.config.multiple for n in symbols.shape[1:]) if shape is None else shape[1:]
        x = np.empty((self.config.channels, height, width))

        def keep(rows: slice, strip: NDArray[np.float64]) -> None:
            x[:, rows] = strip

        self._bands_to_rows(bands, height, width, keep)
        return x

    def latent_sizes(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Latent positions along each axis of a signal of these sizes."""
        return tuple(signal.padded_size(n, self.config.multiple) // self.config.multiple for n in sizes)

    def check_channels(self, channels: int) -> None:
        """Refuse a number of channels that the model cannot code."""
        if channels not in (1, self.config.channels):
            limit = f"{self.config.channels}, or 1, for this model"
            raise BadSamples("channels", channels, limit)

    def describe(
        self, samples: NDArray, rate: int | None, sample_format: str | None
    ) -> tuple[NDArray[np.unsignedinteger], Header]:
        """Check samples; return them as (H, W, C), and the header that describes them, not yet coded."""
        if rate is not None:
            raise BadSamples("rate", rate, "none for an image")
        found = {np.dtype(np.uint8): "u8", np.dtype(np.uint16): "u16"}.get(samples.dtype.newbyteorder("="))
        if found is None or sample_format not in (None, found):
            raise BadSamples("samples.dtype", sample_format or samples.dtype, "uint8 (u8) or uint16 (u16) for an image")
        if samples.ndim == 2:
            samples = samples[:, :, None]
        if samples.ndim != 3 or samples.size == 0:
            raise BadSamples("samples.shape", samples.shape, "(H, W) or (H, W, C), no size 0")
        self.check_channels(samples.shape[2])
        header = Header(
            kind="image",
            sample_format=found,
            channels=samples.shape[2],
            sizes=samples.shape[:2],
            model_id=b"",
            J=self.config.J,
            latent_dim=self.config.planes,
            latent_bits=self.config.latent_bits,
            slice_size=1,
            symbol_hash=b"",
        )
        return samples, header

    def samples_to_symbols(
        self, samples: NDArray[np.unsignedinteger], header: Header, progress: Progress | None = None
    ) -> NDArray[np.int16]:
        """uint8 or uint16 (H, W, C) to symbols (planes, h, w). One channel is repeated for a model of several."""
        height, width, _ = samples.shape
        columns = signal.reflected_indices(width, self.config.multiple)

        def rows(index: NDArray[np.intp]) -> NDArray[np.float64]:
            if compiled():
                from walloc_ref.fast import signal as kernel

                x = kernel.padded_image_to_signal(samples, index, columns)
            else:
                x = signal.padded_image_to_signal(samples, index, columns)
            return np.broadcast_to(x, (self.config.channels, *x.shape[1:]))

        return self._rows_to_symbols(rows, height, width, progress)

    def symbols_to_samples(
        self, symbols: NDArray[np.int16], header: Header, progress: Progress | None = None
    ) -> tuple[NDArray[np.unsignedinteger], list[int]]:
        """Symbols to samples (H, W, C) of the header's format, and the indices of the uncertain ones.

        An image of one channel coded by a model of several is the mean of the decoded channels.
        """
        bands = self._symbols_to_bands(symbols, progress)
        height, width = header.sizes
        dtype = np.dtype(np.uint8 if header.sample_format == "u8" else np.uint16)
        samples = np.empty((height, width, header.channels), dtype)
        uncertain: list[NDArray[np.intp]] = []
        bound = MARGIN_BOUND[header.sample_format]

        def keep(rows: slice, strip: NDArray[np.float64]) -> None:
            if header.channels < len(strip):
                strip = strip.mean(axis=0, keepdims=True)
            if compiled():
                from walloc_ref.fast import signal as kernel

                samples[rows] = kernel.signal_to_image(strip, dtype)
                if kernel.smallest_margin(strip, dtype) > bound:
                    return
            else:
                samples[rows] = signal.signal_to_image(strip, dtype)
            margins = quantise.margin(np.moveaxis(signal.scale_to_image(strip, dtype), 0, -1))  # [rows, W, C]
            uncertain.append(np.flatnonzero(margins <= bound) + rows.start * width * header.channels)

        self._bands_to_rows(bands, height, width, keep)
        return samples, sorted(int(i) for part in uncertain for i in part)

    @cached_property
    def _weights(self) -> dict[str, NDArray[np.float64]]:
        """All tensors in binary64; the matrices of 1×1 convolutions with two axes."""
        tensors = {name: tensor.astype(np.float64) for name, tensor in self.model.tensors.items()}
        return {name: t[:, :, 0, 0] if t.shape[2:] == (1, 1) else t for name, t in tensors.items()}

    def _network(self, prefix: str) -> dict[str, NDArray[np.float64]]:
        """Tensors of a network, named without its prefix."""
        return {name[len(prefix) :]: t for name, t in self._weights.items() if name.startswith(prefix)}

    def _project(self, x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        """The linear projection `name`."""
        return projection.project(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _rows_to_symbols(
        self, rows: Rows, height: int, width: int, progress: Progress | None = None
    ) -> NDArray[np.int16]:
        """Encode an image that is given row by row, its columns padded already."""
        m = self.config.multiple
        source = signal.reflected_indices(height, m)
        h, w = source.size // m, signal.padded_size(width, m) // m
        if not self.config.lightweight_encode:
            latents = autoencoder_kl.encode(self.analyse(rows(source)), self._network("encoder.0."))
            return self.quantise(latents)
        symbols = np.empty((self.config.planes, h, w), dtype=np.int16)

        def encode_strip(span: tuple[int, int]) -> None:
            first, end = span
            symbols[:, first:end] = self._bands_to_symbols(self._analyse_strip(rows, source, first, end))

        for_each(encode_strip, list(_strips(h)), progress)
        return symbols

    def _analyse_strip(self, rows: Rows, source: NDArray[np.intp], first: int, end: int) -> NDArray[np.float64]:
        """Subbands of the latent rows first … end, computed with enough context to be those of the whole image."""
        m = self.config.multiple
        if (end - first + 2 * wavelet.HALO) * m >= source.size:
            return self.analyse(rows(source))[:, first:end]
        wanted = np.arange((first - wavelet.HALO) * m, (end + wavelet.HALO) * m) % source.size
        return self.analyse(rows(source[wanted]))[:, wavelet.HALO : -wavelet.HALO]

    def _bands_to_symbols(self, bands: NDArray[np.float64]) -> NDArray[np.int16]:
        """Projection and quantiser: (C·4^J, r, w) to (planes, r, w)."""
        if self.config.architecture != "ResidualCodec2D":
            return self.quantise(self._project(bands, "encoder.0"))
        remaining, stages = bands, []
        for stage in range(self.config.num_stages):
            stages.append(self.quantise(self._project(remaining, f"encoders.{stage}")))
            remaining = remaining - self._decode_stage(stages[-1], stage)
        return np.concatenate(stages)

    def _decode_stage(self, symbols: NDArray[np.int16], stage: int) -> NDArray[np.float64]:
        """What one stage of `ResidualCodec2D` adds to the subbands."""
        latents = quantise.dequantise(symbols, self.config.latent_bits)
        return self._project(latents, f"decoders.{stage}")

    def _symbols_to_bands(self, symbols: NDArray[np.int16], progress: Progress | None) -> NDArray[np.float64]:
        """Dequantiser and decoder: (planes, h, w) to (C·4^J, h, w)."""
        if self.config.architecture == "ResidualCodec2D":
            stages = np.split(symbols, self.config.num_stages)
            return np.sum([self._decode_stage(part, stage) for stage, part in enumerate(stages)], axis=0)
        latents = quantise.dequantise(symbols, self.config.latent_bits)
        if self.config.architecture == "LinearCodec2D":
            return self._project(latents, "decoder.1")
        return autoencoder_kl.decode(latents, self._network("decoder.1."), progress)

    def _bands_to_rows(
        self,
        bands: NDArray[np.float64],
        height: int,
        width: int,
        keep: Callable[[slice, NDArray[np.float64]], None],
    ) -> None:
        """Synthesis, clamp and crop, strip by strip; `keep` gets the rows of the image and their signal (C, n, W)."""
        m, h = self.config.multiple, bands.shape[1]
        above, left = signal.padding_before(height, m), signal.padding_before(width, m)

        def decode_strip(span: tuple[int, int]) -> None:
            first, end = span
            x = signal.clamp(self._synthesise_strip(bands, first, end))
            top, bottom = max(first * m, above), min(end * m, above + height)
            if top < bottom:
                keep(
                    slice(top - above, bottom - above), x[:, top - first * m : bottom - first * m, left : left + width]
                )

        for_each(decode_strip, list(_strips(h)))

    def _synthesise_strip(self, bands: NDArray[np.float64], first: int, end: int) -> NDArray[np.float64]:
        """Signal of the latent rows first … end, computed with enough context to be that of the whole image."""
        m, h = self.config.multiple, bands.shape[1]
        if end - first + 2 * wavelet.HALO >= h:
            return self.synthesise(bands)[:, first * m : end * m]
        wanted = np.arange(first - wavelet.HALO, end + wavelet.HALO) % h
        return self.synthesise(bands[:, wanted])[:, wavelet.HALO * m : -wavelet.HALO * m]


def _strips(h: int) -> Iterator[tuple[int, int]]:
    """Equal parts of about `STRIP` latent rows, or fewer rows where that gives every thread a part."""
    count = max(1, round(h / STRIP), min(threads(), h // (4 * wavelet.HALO)))
    edges = [h * i // count for i in range(count + 1)]
    return pairwise(edges)
