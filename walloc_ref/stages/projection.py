"""The linear projection (SPEC.md section 5): subbands to latents by a matrix, and its linear counterparts.

For images it is a 1×1 convolution. For audio the upstream gave the kernel of one tap a padding of one, so that a latent
column of bias alone stands before the first and after the last position; the audio decoder takes both away again.

Three architectures consist of nothing else: `LinearCodec2D` and, for volumes, `LinearCodec3D`, a matrix each way, and
`ResidualCodec2D`, whose stages each code what the stages before left over.

Source: `encoder[0]` of `Codec2D` and `Codec1D`, `LinearCodec2D` and `ResidualCodec2D` of the upstream model, which has no
volumes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from walloc_ref.architecture import (
    COMMON_FIELDS,
    Architecture,
    Latents,
    Subbands,
    Tensors,
    Weights,
    layer_weights,
    no_check,
    projection_shapes,
)

if TYPE_CHECKING:
    from walloc_ref.model import Config, Model
    from walloc_ref.plain import Functions
    from walloc_ref.stages.container import Coding

BORDER = 1
"""Latent columns of bias alone at each end of an audio signal."""


def project(bands: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """y = W·X + b at every position (SPEC.md 5.1, 5.2).

    Parameters
    ----------
    bands : float64, shape (K, n0, …)
    weight : float64, shape (D, K)
    bias : float64, shape (D,)

    Returns
    -------
    float64, shape (D, n0, …)

    Examples
    --------
    >>> project(np.array([[1.0, 2.0], [10.0, 20.0]]), np.array([[1.0, 0.5]]), np.array([3.0])).tolist()
    [[9.0, 15.0]]
    """
    flat = bands.reshape(bands.shape[0], -1)  # [K, N]
    latents = weight @ flat  # [D, K], [K, N] -> [D, N]
    latents += bias[:, None]
    return latents.reshape(-1, *bands.shape[1:])


def add_border(latents: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put the column of bias alone before the first and after the last position: (D, l) -> (D, l + 2) (SPEC.md 11.5).

    >>> add_border(np.array([[1.0, 2.0]]), np.array([9.0])).tolist()
    [[9.0, 1.0, 2.0, 9.0]]
    """
    border = np.broadcast_to(bias[:, None], (bias.size, BORDER))
    return np.concatenate([border, latents, border], axis=1)


# ---- LinearCodec2D, LinearCodec3D ----------------------------------------------------------------------------------


def _linear_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    encoder = projection_shapes("encoder.0", config.latent_dim, config.bands, config.axes)
    return encoder | projection_shapes("decoder.1", config.bands, config.latent_dim, config.axes)


def _linear_weights(config: Config, tensors: Tensors) -> Weights:
    return {"encoder": layer_weights(tensors, "encoder.0"), "decoder": layer_weights(tensors, "decoder.1")}


def _linear_to_latents(bands: Subbands, model: Model, coding: Coding, functions: Functions) -> Latents:
    """SPEC.md 5.1, 16.4: (K, h, w) to (D, h, w), or (K, z, h, w) to (D, z, h, w)."""
    return functions.project(bands, **model.weights["encoder"])


def _linear_to_bands(latents: Latents, model: Model, coding: Coding, functions: Functions) -> Subbands:
    """SPEC.md 5.2, 16.4: (D, h, w) to (K, h, w), or (D, z, h, w) to (K, z, h, w)."""
    return functions.project(latents, **model.weights["decoder"])


LINEAR_CODEC_2D = Architecture(
    name="LinearCodec2D",
    kind="image",
    fields=COMMON_FIELDS,
    check=no_check,
    tensor_shapes=_linear_shapes,
    prepare=_linear_weights,
    to_latents=_linear_to_latents,
    to_bands=_linear_to_bands,
)

LINEAR_CODEC_3D = replace(LINEAR_CODEC_2D, name="LinearCodec3D", kind="volume")


# ---- ResidualCodec2D -----------------------------------------------------------------------------------------------


def _residual_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for stage in range(config.num_stages):
        shapes |= projection_shapes(f"encoders.{stage}", config.latent_dim, config.bands, config.axes)
        shapes |= projection_shapes(f"decoders.{stage}", config.bands, config.latent_dim, config.axes)
    return shapes


def _residual_weights(config: Config, tensors: Tensors) -> Weights:
    stages = range(config.num_stages)
    return {
        "encoders": [layer_weights(tensors, f"encoders.{stage}") for stage in stages],
        "decoders": [layer_weights(tensors, f"decoders.{stage}") for stage in stages],
    }


def _residual_to_latents(bands: Subbands, model: Model, coding: Coding, functions: Functions) -> Latents:
    """SPEC.md 5.3: (K, h, w) to the latents (S·D′, h, w) of all stages, each of what the decoded ones before it leave."""
    bits, left = model.config.latent_bits, bands
    steps = np.split(model.plane_steps(coding), model.config.num_stages)  # [D′, 1, 1] each
    stages = []
    for encoder, decoder, step in zip(model.weights["encoders"], model.weights["decoders"], steps):
        latents = functions.project(left, **encoder)  # [K, h, w] -> [D′, h, w]
        decoded = functions.dequantise(functions.quantise(latents / step, bits), bits) * step  # [D′, h, w]
        left = left - functions.project(decoded, **decoder)  # [K, h, w]
        stages.append(latents)
    return np.concatenate(stages)


def _residual_to_bands(latents: Latents, model: Model, coding: Coding, functions: Functions) -> Subbands:
    """SPEC.md 5.3: the sum of what the stages decode to."""
    parts = np.split(latents, model.config.num_stages)  # [D′, h, w] each
    return np.sum([functions.project(y, **decoder) for y, decoder in zip(parts, model.weights["decoders"])], axis=0)


RESIDUAL_CODEC_2D = Architecture(
    name="ResidualCodec2D",
    kind="image",
    fields={**COMMON_FIELDS, "num_stages": (1, 64)},
    check=no_check,
    tensor_shapes=_residual_shapes,
    prepare=_residual_weights,
    to_latents=_residual_to_latents,
    to_bands=_residual_to_bands,
    in_stages=True,
)
