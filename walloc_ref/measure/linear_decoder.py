"""The linear decoder that belongs to a lightweight encoder: what the network of a model is measured against.

From the latents y = W·X + b of coefficients X it takes the least-norm solution, X̂ = N⁻¹·(W·N⁻¹)⁺·(y - b), where N holds the
norms of the synthesis functions, so that "norm" means squared error of samples. For principal components times scales,
as the bundled models have them, it is the components over the scales: the transpose of the encoder, in the words of most
papers. No part of the codec.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from walloc_ref.codec import Codec
from walloc_ref.model import Model
from walloc_ref.rate_control import band_norms
from walloc_ref.stages import quantise, signal


def matrix(model: Model) -> NDArray[np.float64]:
    """The decoder's matrix, shape (C·2^(J·axes), latent_dim), from `Model.tensors` alone."""
    config = model.config
    weight = model.tensors["encoder.0.weight"].astype(np.float64)
    weight = weight.reshape(len(weight), -1)
    norms = np.tile(band_norms(config.J, config.axes), config.channels)
    return np.linalg.pinv(weight / norms) / norms[:, None]


def decode(
    codec: Codec, decoder: NDArray[np.float64], symbols: NDArray[np.int16], sizes: tuple[int, ...], step: float = 1.0
) -> NDArray[np.float64]:
    """The clamped signal that symbols decode to, all at once in memory.

    Parameters
    ----------
    codec : Codec
    decoder : float64, (C·2^(J·axes), latent_dim)
        See `matrix`.
    symbols : int16, (planes, h, w) or (planes, l)
    sizes : (H, W) or (frames,)
    step : float
        The step that the symbols were quantised with.

    Returns
    -------
    float64, shape (C, H, W) or (C, frames)
    """
    config = codec.config
    if config.kind == "audio":
        symbols = symbols[:, 1:-1]  # the padded projection adds a position at each end
    latents = quantise.dequantise(symbols, config.latent_bits) * codec.model.plane_steps(codec.coding(step=step))
    latents = latents.reshape(len(symbols), -1) - codec.model.weights["encoder"]["bias"][:, None]
    x = codec.synthesise((decoder @ latents).reshape(len(decoder), *symbols.shape[1:]))
    if config.kind == "image":
        x = signal.crop(x, sizes, config.multiple)
    else:
        x = x[:, : sizes[0]]
    return signal.clamp(x)
