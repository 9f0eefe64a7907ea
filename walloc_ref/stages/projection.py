"""The linear projection (SPEC.md section 5): subbands to latents by a matrix, and its linear counterparts.

For images it is a 1×1 convolution. For audio the upstream gave the kernel of one tap a padding of one, so that a latent
column of bias alone stands before the first and after the last position; the audio decoder takes both away again.

Source: `encoder[0]` of `Codec2D` and `Codec1D`, `decoder[1]` of `LinearCodec2D` of the upstream model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BORDER = 1
"""Latent columns of bias alone at each end of an audio signal."""


def project(bands: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """y = W·X + b at every position.

    Parameters
    ----------
    bands : float64, shape (K, n0, …)
    weight : float64, shape (D, K)
    bias : float64, shape (D,)

    Returns
    -------
    float64, shape (D, n0, …)
    """
    flat = bands.reshape(bands.shape[0], -1)  # [K, N]
    latents = weight @ flat  # [D, K], [K, N] -> [D, N]
    latents += bias[:, None]
    return latents.reshape(-1, *bands.shape[1:])


def add_border(latents: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put the column of bias alone before the first and after the last position: (D, l) -> (D, l + 2)."""
    border = np.broadcast_to(bias[:, None], (bias.size, BORDER))
    return np.concatenate([border, latents, border], axis=1)
