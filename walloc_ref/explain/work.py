"""All that the codec makes of samples on their way through it, kept stage by stage, for figures to show.

`follow` is `image.py` (or `audio.py`) once more, with every value held on to: the functions are those of the codec's table,
in the same order. What comes of it is held equal to what `Codec.encode` writes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from walloc_ref import codec as codecs
from walloc_ref import image
from walloc_ref.architecture import Latents, Samples, Signal, Subbands, Symbols
from walloc_ref.codec import Codec
from walloc_ref.files.media import Media
from walloc_ref.measure import linear_decoder
from walloc_ref.rate_control import raw_bytes
from walloc_ref.stages import container, projection, quantise, signal
from walloc_ref.stages.container import Header

MOST = {"image": 1 << 18, "audio": 1 << 19, "volume": 1 << 19}
"""Pixels, frames or voxels that are followed; of more a part from the middle is."""

DETAIL = {"image": (32, 32), "audio": (256,), "volume": (8, 16, 16)}
"""Latent positions of the detail, for figures that take long."""


@dataclass(frozen=True, eq=False)
class Work:
    """Samples, and what became of them.

    Attributes
    ----------
    codec : Codec
    samples : array
        (H, W, C′), (frames, C′) or (Z, H, W, C′).
    stream : bytes
        What `Codec.encode` makes of them.
    header : Header
    signal, padded : float64, (C, …)
    bands : float64, (K, …)
    latents : float64, (D, …)
        Not yet divided by their steps.
    steps : float64, (D, 1, …)
    companded : float64, (D, …)
    symbols : int16, (D, …)
    costs : float64, (D, …)
        What every symbol costs in the stream, in bits.
    latents_back : float64, (D, …)
        Dequantised, multiplied by their steps.
    bands_back : float64, (K, …)
    signal_back : float64, (C, …)
        Clamped and cropped.
    samples_back : array
    """

    codec: Codec
    samples: Samples
    stream: bytes
    header: Header
    signal: Signal
    padded: Signal
    bands: Subbands
    latents: Latents
    steps: NDArray[np.float64]
    companded: Latents
    symbols: Symbols
    costs: NDArray[np.float64]
    latents_back: Latents
    bands_back: Subbands
    signal_back: Signal
    samples_back: Samples

    @property
    def kind(self) -> str:
        """image, audio or volume."""
        return self.header.kind

    @property
    def ratio(self) -> float:
        """Bytes of the samples over bytes of the stream."""
        return raw_bytes(self.header) / len(self.stream)

    @property
    def psnr(self) -> float:
        """Of the decoded signal, in decibels: the peak-to-peak range is 1."""
        return decibels(self.signal, self.signal_back)


def decibels(x: Signal, back: Signal) -> float:
    """PSNR of signals, whose range is 1."""
    error = float(np.mean(np.square(x - back)))
    return -10 * math.log10(error) if error else math.inf


def follow(codec: Codec, media: Media, **rate: float | int | None) -> Work:
    """Take samples through the codec; `rate` is what is asked of `Codec.encode`: quality, ratio, … step."""
    model, config, functions = codec.model, codec.config, codec.stages
    extras = {"rate": media.rate, "sample_format": media.sample_format} if media.kind == "audio" else {}
    stream = codec.encode(media.samples, **extras, **rate)  # type: ignore[arg-type]
    header = container.read(stream).header
    axes = config.axes
    samples = media.samples.reshape(*media.samples.shape[:axes], -1)
    x = _signal_of(codec, header, samples)
    padded = signal.pad_end(x, config.multiple) if media.kind == "audio" else functions.pad(x, config.multiple)
    bands = functions.analyse(padded, config.J)
    latents = config.record.to_latents(bands, model, header, functions)
    steps = model.plane_steps(header)
    symbols = functions.quantise(latents / steps, config.latent_bits)
    if not np.array_equal(symbols, codecs.decode_symbols(stream, codec=codec)):
        raise AssertionError("the stages, one by one, make other symbols than the codec")
    latents_back = functions.dequantise(symbols, config.latent_bits) * steps
    bands_back = config.record.to_bands(latents_back, model, header, functions)
    x_back, samples_back = _decoded(codec, header, bands_back)
    return Work(
        codec=codec,
        samples=samples,
        stream=stream,
        header=header,
        signal=x,
        padded=padded,
        bands=bands,
        latents=latents,
        steps=steps,
        companded=quantise.compand(latents / steps, config.latent_bits),
        symbols=symbols,
        costs=costs(codec, header, symbols),
        latents_back=latents_back,
        bands_back=bands_back,
        signal_back=x_back,
        samples_back=samples_back,
    )


def coded(codec: Codec, media: Media, step: float) -> tuple[float, int, float]:
    """Samples coded with a step, and decoded: the step as the stream has it, bytes, decibels."""
    extras = {"rate": media.rate, "sample_format": media.sample_format} if media.kind == "audio" else {}
    stream = codec.encode(media.samples, **extras, step=step)  # type: ignore[arg-type]
    header = container.read(stream).header
    samples = media.samples.reshape(*media.samples.shape[: codec.config.axes], -1)
    symbols = codecs.decode_symbols(stream, codec=codec)
    x = codec.stages.symbols_to_signal[media.kind](symbols, header.sizes, header, codec.model, codec.stages)
    return header.step, len(stream), decibels(_signal_of(codec, header, samples), x)


def _signal_of(codec: Codec, header: Header, samples: Samples) -> Signal:
    """Samples to the signal, not yet padded, in the model's channels."""
    functions = codec.stages
    if header.kind == "audio":
        x = functions.audio_to_signal(samples, header.sample_format, header.mean, header.gain)
    else:
        x = functions.image_to_signal(samples, header.mean, header.gain)
    return signal.from_channels(x, codec.config.channels)


def _decoded(codec: Codec, header: Header, bands: Subbands) -> tuple[Signal, Samples]:
    """The end of decoding, from subbands on: the signal, clamped and cropped, and samples."""
    functions, config = codec.stages, codec.config
    x = functions.synthesise(bands, config.J)
    if header.kind != "audio":
        x = functions.crop(functions.clamp(x), header.sizes, config.multiple)
        dtype = image.DTYPES[header.sample_format]
        return x, functions.signal_to_image(signal.to_channels(x, header.channels), dtype, header.mean, header.gain)
    if config.post_filter:
        x = functions.post_filter(x, **codec.model.weights["post"])
    x = functions.clamp(x)[:, : header.sizes[0]]
    heard = signal.to_channels(x, header.channels)
    return x, functions.signal_to_audio(heard, header.sample_format, header.mean, header.gain)


def costs(codec: Codec, header: Header, symbols: Symbols) -> NDArray[np.float64]:
    """What every symbol of a stream costs, in bits, slice by slice: the shape of `symbols`."""
    from walloc_ref.fast import entropy as coder

    found = np.empty(symbols.shape)
    for number in range(header.slice_count):
        part = slice(*header.slice_bounds(number))
        slice_symbols = symbols[:, part].reshape(header.slice_shape(number))
        found[:, part] = coder.costs(slice_symbols, codec.model.tables).reshape(found[:, part].shape)
    return found


def cropped(media: Media, most: int, multiple: int) -> tuple[Media, tuple[slice, ...]]:
    """The middle of samples, where there are more than `most` pixels, frames or voxels, and where it lies."""
    axes = {"image": 2, "audio": 1, "volume": 3}[media.kind]
    sizes = media.samples.shape[:axes]
    total = math.prod(sizes)
    if total <= most:
        return media, tuple(slice(0, n) for n in sizes)
    left = most
    kept: list[tuple[int, int]] = []
    for place, size in sorted(enumerate(sizes), key=lambda pair: pair[1]):  # short axes are kept as long as they are
        share = round(left ** (1 / (axes - len(kept))))
        length = min(size, max(multiple, share // multiple * multiple))
        left //= length
        kept.append((place, length))
    lengths = [length for _, length in sorted(kept)]
    starts = [(n - length) // 2 // multiple * multiple for n, length in zip(sizes, lengths)]
    window = tuple(slice(start, start + length) for start, length in zip(starts, lengths))
    return replace(media, samples=media.samples[window]), window


def detail_of(work: Work) -> tuple[slice, ...]:
    """Where the detail lies, in samples: the place of its size with the most bits."""
    multiple, sizes = work.codec.config.multiple, work.header.sizes
    border = 1 if work.kind == "audio" else 0
    positions = work.costs.sum(axis=0)
    if border:
        positions = positions[border:-border]
    lengths = [min(n, want) for n, want in zip(positions.shape, DETAIL[work.kind])]
    total = positions
    for axis, length in enumerate(lengths):  # sums over windows, an axis at a time
        summed = np.cumsum(np.insert(total, 0, 0, axis=axis), axis=axis)
        ahead, behind = (
            np.take(summed, range(*span), axis)
            for span in ((length, summed.shape[axis]), (0, summed.shape[axis] - length))
        )
        total = ahead - behind
    corner = np.unravel_index(int(np.argmax(total)), total.shape)
    before = [0 if work.kind == "audio" else signal.padding_before(n, multiple) for n in sizes]
    starts = [max(0, int(at) * multiple - first) for at, first in zip(corner, before)]
    return tuple(slice(start, min(n, start + length * multiple)) for start, length, n in zip(starts, lengths, sizes))


def part_of(media: Media, window: tuple[slice, ...]) -> Media:
    """Some of the samples."""
    return replace(media, samples=media.samples[window])


# ---- the linear part -------------------------------------------------------------------------------------------------


def linear_matrix(work: Work) -> NDArray[np.float64] | None:
    """The least-norm linear decoder of a lightweight encoder, (K, D); None for other encoders."""
    config = work.codec.config
    if config.record.in_stages or not config.lightweight_encode:
        return None
    return linear_decoder.matrix(work.codec.model)


def linear_back(work: Work, matrix: NDArray[np.float64], latents: Latents) -> Signal:
    """The signal that latents decode to by a matrix alone, clamped and cropped."""
    config, functions = work.codec.config, work.codec.stages
    bias = work.codec.model.weights["encoder"]["bias"]
    if work.kind == "audio":
        latents = latents[:, projection.BORDER : -projection.BORDER]
    centred = latents.reshape(len(latents), -1) - bias[:, None]
    x = functions.synthesise((matrix @ centred).reshape(-1, *latents.shape[1:]), config.J)
    if work.kind == "audio":
        return functions.clamp(x)[:, : work.header.sizes[0]]
    return functions.crop(functions.clamp(x), work.header.sizes, config.multiple)
