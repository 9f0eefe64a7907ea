"""The audio codec, plainly: samples to symbols and back, whole arrays, one stage a line (SPEC.md sections 11, 4 to 6).

    samples --11--> signal --4--> subbands --5---> latents --6--> symbols
    samples <--11-- signal <--4-- subbands <--11-- latents <--6-- symbols

`functions` is a table of the stages' functions: `plain.PLAIN`, or one with some of them replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from walloc_ref.architecture import Samples, Signal, Symbols
from walloc_ref.errors import BadSamples, MalformedModel
from walloc_ref.stages import quantise, signal
from walloc_ref.stages.container import MAX_RATE, Coding, Layout

if TYPE_CHECKING:
    from walloc_ref.model import Config, Model
    from walloc_ref.plain import Functions

DEFAULT_RATE = 44100
"""Samples a second where nothing is said."""

MARGIN_BOUND = {"u8": 2.0**-30, "s16": 2.0**-24, "s24": 2.0**-16, "s32": 2.0**-8}
"""Bound of the margin of a sample, in steps of the sample format (SPEC.md 2.3). Floats have no certain values."""


# ---- decoding


def symbols_to_samples(symbols: Symbols, layout: Layout, model: Model, functions: Functions) -> Samples:
    """Decode: symbols (D, n + 2) to samples (frames, C′) of the layout's format."""
    x = symbols_to_signal(symbols, layout.sizes, layout, model, functions)  # (C, frames)
    x = signal.to_channels(x, layout.channels)  # (C′, frames)                3.3
    return functions.signal_to_audio(x, layout.sample_format, layout.mean, layout.gain)  # (frames, C′)    11.14


def symbols_to_signal(
    symbols: Symbols, sizes: tuple[int, ...], coding: Coding, model: Model, functions: Functions
) -> Signal:
    """Symbols (D, n + 2) to the clamped signal (C, frames)."""
    config, step = model.config, model.plane_steps(coding)
    with np.errstate(over="ignore", invalid="ignore"):
        y = functions.dequantise(symbols, config.latent_bits) * step  # (D, n + 2)   latents       6.4, 6.7
        bands = config.record.to_bands(y, model, coding, functions)  # (K, n)       subbands      11.10
        x = functions.synthesise(bands, config.J)  # (C, n·m)     signal        4.7
        if config.post_filter:
            x = functions.post_filter(x, **model.weights["post"])  # (C, n·m)                   11.12
    check_numbers(x)
    x = functions.clamp(x)  #                            11.13
    return x[:, : sizes[0]]  # (C, frames)                11.13


# ---- encoding


def samples_to_symbols(samples: Samples, layout: Layout, model: Model, functions: Functions) -> Symbols:
    """Encode: samples (frames, C′) to symbols (D, n + 2)."""
    x = functions.audio_to_signal(samples, layout.sample_format, layout.mean, layout.gain)  # (C′, frames)    11.3
    x = signal.from_channels(x, model.config.channels)  # (C, frames)                3.3
    return signal_to_symbols(x, layout, model, functions)  # (D, n + 2)


def signal_to_symbols(x: Signal, coding: Coding, model: Model, functions: Functions) -> Symbols:
    """A signal (C, frames) of any length to symbols (D, n + 2)."""
    config, step = model.config, model.plane_steps(coding)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not a number is refused by the quantiser
        x = signal.pad_end(x, config.multiple)  # (C, n·m)                   11.4
        bands = functions.analyse(x, config.J)  # (K, n)       subbands      4.5
        y = config.record.to_latents(bands, model, coding, functions)  # (D, n + 2)   latents       11.5, 11.11
        return functions.quantise(y / step, config.latent_bits)  # (D, n + 2)   symbols       6.2, 6.7


# ---- what is certain, and what comes in


def check_numbers(x: Signal) -> None:
    """Refuse a signal that weights beyond all measure made not a number."""
    if np.isnan(x).any():
        raise MalformedModel("decoded signal", "not a number", "weights that overflow nowhere")


def certified_samples(
    symbols: Symbols, layout: Layout, model: Model, functions: Functions
) -> tuple[Samples, list[int]]:
    """Decode, and list the indices of the samples whose margin is within the bound (SPEC.md 2.4, 10.10)."""
    x = symbols_to_signal(symbols, layout.sizes, layout, model, functions)
    x = signal.to_channels(x, layout.channels)
    samples = functions.signal_to_audio(x, layout.sample_format, layout.mean, layout.gain)
    return samples, uncertain(x, layout).tolist()


def uncertain(x: Signal, layout: Layout) -> np.ndarray:
    """Indices, into samples (frames, C′), of those that a signal (C′, frames) leaves uncertain."""
    scaled = signal.scale_to_audio(x, layout.sample_format, layout.mean, layout.gain).T  # (frames, C′)
    return np.flatnonzero(quantise.margin(scaled) <= MARGIN_BOUND[layout.sample_format])


def describe(
    samples: Samples, config: Config, rate: int | None = None, sample_format: str | None = None
) -> tuple[Samples, Layout]:
    """Check samples (SPEC.md 11.1); return them as (frames, C′), and what they are like, mean and gain included (11.2).

    Raises
    ------
    BadSamples
    """
    rate = DEFAULT_RATE if rate is None else rate
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)) or not 1 <= rate <= MAX_RATE:
        raise BadSamples("rate", rate, f"an integer from 1 to {MAX_RATE}")
    native = samples.dtype.newbyteorder("=")
    fitting = [name for name, known in signal.AUDIO_FORMATS.items() if native == np.dtype(known.dtype)]
    if not fitting or sample_format not in (None, *fitting):
        known = ", ".join(f"{name} in {np.dtype(f.dtype)}" for name, f in signal.AUDIO_FORMATS.items())
        raise BadSamples("samples.dtype", f"{sample_format or ''} in {samples.dtype}".lstrip(), known)
    samples = samples.astype(native, copy=False)
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2 or samples.size == 0:
        raise BadSamples("samples.shape", samples.shape, "(frames,) or (frames, channels), no size 0")
    config.check_channels(samples.shape[1])
    found = sample_format or fitting[-1]  # int32 without a name has 32 bits
    mean, gain = signal.audio_statistics(samples, found)
    layout = Layout(
        kind="audio",
        sample_format=found,
        channels=samples.shape[1],
        sizes=samples.shape[:1],
        rate=int(rate),
        mean=mean,
        gain=gain,
    )
    return samples, layout
