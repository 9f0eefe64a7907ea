"""The linear decoder that belongs to a lightweight encoder: what the network of a model is measured against.

From the latents y = W·X + b of coefficients X it takes the least-norm solution, X̂ = N⁻¹·(W·N⁻¹)⁺·(y - b), where N holds the
norms of the synthesis functions, so that "norm" means squared error of samples. For principal components times scales,
as the bundled models have them, it is the components over the scales: the transpose of the encoder, in the words of most
papers. No part of the codec.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from walloc_ref.model import Config, Model
from walloc_ref.pipeline import Pipeline
from walloc_ref.stages import quantise, signal, wavelet

POSITIONS = 12
"""Latent positions along an axis when norms are measured; synthesis functions reach over nine."""


def exists(config: Config) -> bool:
    """Whether the encoder is one projection."""
    return config.architecture == "LinearCodec2D" or (
        config.architecture in ("Codec1D", "Codec2D") and config.lightweight_encode
    )


def band_norms(levels: int, axes: int) -> NDArray[np.float64]:
    """Norm of the synthesis function of every band of one channel: shape (2^(levels·axes),)."""
    bands, sizes = 2 ** (levels * axes), (POSITIONS,) * axes
    norms = np.empty(bands)
    for band in range(bands):
        unit = np.zeros((bands, *sizes))
        place = (band, *(size // 2 for size in sizes))
        unit[place] = 1
        norms[band] = np.linalg.norm(wavelet.synthesise(unit, levels))
    return norms


def matrix(model: Model) -> NDArray[np.float64]:
    """The decoder's matrix, shape (C·2^(J·axes), latent_dim), from `Model.tensors` alone."""
    config = model.config
    weight = model.tensors["encoder.0.weight"].astype(np.float64)
    weight = weight.reshape(len(weight), -1)
    norms = np.tile(band_norms(config.J, 2 if config.kind == "image" else 1), config.channels)
    return np.linalg.pinv(weight / norms) / norms[:, None]


def decode(
    pipeline: Pipeline, decoder: NDArray[np.float64], symbols: NDArray[np.int16], sizes: tuple[int, ...]
) -> NDArray[np.float64]:
    """The clamped signal that symbols decode to, all at once in memory.

    Parameters
    ----------
    pipeline : Pipeline
    decoder : float64, (C·2^(J·axes), latent_dim)
        See `matrix`.
    symbols : int16, (planes, h, w) or (planes, l)
    sizes : (H, W) or (frames,)

    Returns
    -------
    float64, shape (C, H, W) or (C, frames)
    """
    config = pipeline.config
    if config.kind == "audio":
        symbols = symbols[:, 1:-1]  # the padded projection adds a position at each end
    latents = quantise.dequantise(symbols, config.latent_bits).reshape(len(symbols), -1)
    latents -= pipeline.model.tensors["encoder.0.bias"].astype(np.float64)[:, None]
    x = pipeline.synthesise((decoder @ latents).reshape(len(decoder), *symbols.shape[1:]))
    if config.kind == "image":
        x = signal.crop(x, sizes, config.multiple)
    else:
        x = x[:, : sizes[0]]
    return signal.clamp(x)
