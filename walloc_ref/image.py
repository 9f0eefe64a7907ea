"""The image codec, plainly: samples to symbols and back, whole arrays, one stage a line (SPEC.md sections 3 to 6, 9).

    samples --3--> signal --4--> subbands --5--> latents --6--> symbols
    samples <--3-- signal <--4-- subbands <--9-- latents <--6-- symbols

`functions` is a table of the stages' functions: `plain.PLAIN`, or one with some of them replaced. Symbols become bytes in
`stages.entropy`, and bytes a stream in `stages.container`. Nothing counts the axes: `volume.py` is these functions, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from walloc_ref.architecture import Samples, Signal, Symbols
from walloc_ref.errors import BadSamples
from walloc_ref.stages import quantise, signal
from walloc_ref.stages.container import Coding, Layout

if TYPE_CHECKING:
    from walloc_ref.model import Config, Model
    from walloc_ref.plain import Functions

DTYPES: dict[str, np.dtype] = {
    "u8": np.dtype(np.uint8),
    "u16": np.dtype(np.uint16),
    "s16": np.dtype(np.int16),
    "f32": np.dtype(np.float32),
}
"""Types of the sample formats (SPEC.md 3.1)."""

MARGIN_BOUND = {"u8": 2.0**-30, "u16": 2.0**-24, "s16": 2.0**-24}
"""Bound of the margin of a sample, in steps of the sample format (SPEC.md 2.3). Floats have no certain values."""


# ---- decoding


def symbols_to_samples(symbols: Symbols, layout: Layout, model: Model, functions: Functions) -> Samples:
    """Decode: symbols (D, h, w) to samples (H, W, C′) of the layout's format."""
    x = symbols_to_signal(symbols, layout.sizes, layout, model, functions)  # (C, H, W)
    x = signal.to_channels(x, layout.channels)  # (C′, H, W)                3.3
    dtype = DTYPES[layout.sample_format]
    return functions.signal_to_image(x, dtype, layout.mean, layout.gain)  # (H, W, C′)                3.8 to 3.10


def symbols_to_signal(
    symbols: Symbols, sizes: tuple[int, ...], coding: Coding, model: Model, functions: Functions
) -> Signal:
    """Symbols (D, h, w) to the clamped signal (C, H, W)."""
    config, step = model.config, model.plane_steps(coding)
    y = functions.dequantise(symbols, config.latent_bits) * step  # (D, h, w)     latents       6.4, 6.7
    bands = config.record.to_bands(y, model, coding, functions)  # (K, h, w)     subbands      9.8, 5.2, 5.3
    x = functions.synthesise(bands, config.J)  # (C, m·h, m·w) signal        4.7
    x = functions.clamp(x)  #                             3.7
    return functions.crop(x, sizes, config.multiple)  # (C, H, W)                   3.6


# ---- encoding


def samples_to_symbols(samples: Samples, layout: Layout, model: Model, functions: Functions) -> Symbols:
    """Encode: samples (H, W, C′) of the layout's format to symbols (D, h, w)."""
    x = functions.image_to_signal(samples, layout.mean, layout.gain)  # (C′, H, W)                  3.2, 3.9, 3.10
    x = signal.from_channels(x, model.config.channels)  # (C, H, W)                   3.3
    return signal_to_symbols(x, layout, model, functions)  # (D, h, w)


def signal_to_symbols(x: Signal, coding: Coding, model: Model, functions: Functions) -> Symbols:
    """A signal (C, H, W) of any size to symbols (D, h, w)."""
    config, step = model.config, model.plane_steps(coding)
    x = functions.pad(x, config.multiple)  # (C, m·h, m·w)               3.4
    bands = functions.analyse(x, config.J)  # (K, h, w)     subbands      4.5
    y = config.record.to_latents(bands, model, coding, functions)  # (D, h, w)     latents       5.1, 5.3, 9.9
    return functions.quantise(y / step, config.latent_bits)  # (D, h, w)     symbols       6.2, 6.7


# ---- what is certain, and what comes in


def certified_samples(
    symbols: Symbols, layout: Layout, model: Model, functions: Functions
) -> tuple[Samples, list[int]]:
    """Decode, and list the indices of the samples whose margin is within the bound (SPEC.md 2.4, 10.10)."""
    x = symbols_to_signal(symbols, layout.sizes, layout, model, functions)
    x = signal.to_channels(x, layout.channels)
    samples = functions.signal_to_image(x, DTYPES[layout.sample_format], layout.mean, layout.gain)
    return samples, uncertain(x, layout).tolist()


def uncertain(x: Signal, layout: Layout) -> np.ndarray:
    """Indices, into samples (H, W, C′), of those that a signal (C′, H, W) leaves uncertain."""
    scaled = np.moveaxis(signal.scale_to_image(x, DTYPES[layout.sample_format]), 0, -1)  # (H, W, C′)
    return np.flatnonzero(quantise.margin(scaled) <= MARGIN_BOUND[layout.sample_format])


def describe(
    samples: Samples, config: Config, rate: int | None = None, sample_format: str | None = None
) -> tuple[Samples, Layout]:
    """Check samples (SPEC.md 3.2, 12.3); return them as (H, W, C′), and what they are like.

    Raises
    ------
    BadSamples
    """
    return describe_kind("image", ("H", "W"), samples, config, rate, sample_format)


def describe_kind(
    kind: str, axes: tuple[str, ...], samples: Samples, config: Config, rate: int | None, sample_format: str | None
) -> tuple[Samples, Layout]:
    """`describe` for a kind whose samples have these spatial axes, and channels after them, if there are several."""
    if rate is not None:
        raise BadSamples("rate", rate, f"none for {kind}s")
    found = {dtype: name for name, dtype in DTYPES.items()}.get(samples.dtype.newbyteorder("="))
    if found is None or sample_format not in (None, found):
        known = ", ".join(f"{dtype} ({name})" for name, dtype in DTYPES.items())
        raise BadSamples("samples.dtype", sample_format or samples.dtype, f"one of {known} for {kind}s")
    samples = samples.astype(DTYPES[found], copy=False)  # of this machine's byte order
    if samples.ndim == len(axes):
        samples = samples[..., None]
    if samples.ndim != len(axes) + 1 or samples.size == 0:
        shape = ", ".join(axes)
        raise BadSamples("samples.shape", samples.shape, f"({shape}) or ({shape}, C), no size 0")
    config.check_channels(samples.shape[-1])
    mean, gain = signal.float_statistics(samples) if found == "f32" else (0.0, 1.0)
    layout = Layout(
        kind=kind, sample_format=found, channels=samples.shape[-1], sizes=samples.shape[:-1], mean=mean, gain=gain
    )
    return samples, layout
