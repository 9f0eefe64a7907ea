"""What an architecture is to the codec: one record, made in the module that holds its network.

Four classes of the upstream model are known: `LinearCodec2D` and `ResidualCodec2D` (`stages.projection`), `Codec2D`
(`stages.autoencoder_kl`) and `Codec1D` (`stages.oobleck`); `LinearCodec3D` (`stages.projection`) is the first of them with
an axis more. Everything that tells one from another stands in its record, so
that a new network is a new module and a line in `model.ARCHITECTURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from walloc_ref.model import Config, Model
    from walloc_ref.plain import Functions
    from walloc_ref.stages.container import Coding

Samples = NDArray[Any]
"""Integers or floats at the edge: (H, W, C′), (frames, C′) or (depth, H, W, C′)."""

Signal = NDArray[np.float64]
"""Reals in [-0.5, 0.5], channels first: (C, H, W), (C, L) or (C, depth, H, W)."""

Subbands = NDArray[np.float64]
"""Wavelet packet coefficients: (K, h, w), (K, n) or (K, z, h, w), K = C·2^(J·axes)."""

Latents = NDArray[np.float64]
"""What is quantised: (D, h, w), (D, l) or (D, z, h, w)."""

Symbols = NDArray[np.int16]
"""Quantised latents: (D, h, w), (D, l) or (D, z, h, w), in -(2^(b-1) - 1) … 2^(b-1) - 1."""

Tensors = Mapping[str, NDArray[np.float32]]
"""Tensors of a weights file, by the upstream's names."""

Weights = Mapping[str, Any]
"""Weights ready for use, in binary64: nested mappings whose keys are the argument names of the functions that take them."""

Limits = Mapping[str, "tuple[int, int] | type[bool]"]
"""Fields of a configuration: smallest and largest integer, or `bool`."""

COMMON_FIELDS: Limits = {
    "channels": (1, 4096),
    "J": (0, 10),
    "latent_dim": (1, 4096),
    "latent_bits": (2, 8),
}
"""Fields that every architecture has (SPEC.md 8.3)."""

WIDTH = (1, 8192)
"""Limits of `Nd` and `Ne`."""


@dataclass(frozen=True)
class Architecture:
    """One class of the upstream model.

    Attributes
    ----------
    name : str
        The upstream's class, or ours.
    kind : str
        What it codes: "image", "audio" or "volume".
    fields : mapping
        The fields of its canonical configuration and their limits (SPEC.md 8.3).
    check : callable
        Raises `MalformedModel` where a configuration within the limits is impossible all the same.
    tensor_shapes : callable
        Names and shapes of the tensors that a configuration asks for (SPEC.md 8.5).
    prepare : callable
        A configuration and its tensors to `Weights`.
    to_latents : callable
        Subbands (K, …) to latents (D, …), not yet divided by their steps: (bands, model, coding, functions).
    to_bands : callable
        Latents (D, …), already multiplied by their steps, to subbands (K, …): (latents, model, coding, functions).
    sees_everything : bool
        Whether a network sees all positions, so that windows mean something (SPEC.md 9.11).
    in_stages : bool
        Whether latents come of what the decoded ones before them leave (SPEC.md 5.3), so that no projection stands alone.
    block : callable or None
        One named block of a network, for who compares networks block by block: (name of the network, name of the block,
        x, weights of the network) to what the block makes of x.
    """

    name: str
    kind: str
    fields: Limits
    check: Callable[[Config], None]
    tensor_shapes: Callable[[Config], dict[str, tuple[int, ...]]]
    prepare: Callable[[Config, Tensors], Weights]
    to_latents: Callable[[Subbands, Model, Coding, Functions], Latents]
    to_bands: Callable[[Latents, Model, Coding, Functions], Subbands]
    sees_everything: bool = False
    in_stages: bool = False
    block: Callable[[str, str, NDArray[np.float64], Any], NDArray[np.float64]] | None = None


def no_check(config: Config) -> None:
    """For architectures without further conditions."""


def layer_weights(tensors: Tensors, name: str) -> dict[str, NDArray[np.float64]]:
    """Weight and bias of a layer in binary64; the matrix of a convolution of one tap has two axes."""
    weight = tensors[f"{name}.weight"].astype(np.float64)
    if weight[0, 0].size == 1:
        weight = weight.reshape(weight.shape[:2])
    return {"weight": weight, "bias": tensors[f"{name}.bias"].astype(np.float64)}


def projection_shapes(name: str, outputs: int, inputs: int, axes: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a linear projection: a convolution of one tap along each axis."""
    return {f"{name}.weight": (outputs, inputs, *(1,) * axes), f"{name}.bias": (outputs,)}


class NetworkWeights(dict[str, Any]):
    """Weights of a network, and with them what a faster codec has made of them: `arranged`, by names of its own."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        super().__init__(weights)
        self.arranged: dict[Any, Any] = {}


def tensors_under(tensors: Tensors, prefix: str) -> NetworkWeights:
    """Tensors whose names begin with `prefix`, named without it, in binary64."""
    found = {name[len(prefix) :]: t.astype(np.float64) for name, t in tensors.items() if name.startswith(prefix)}
    return NetworkWeights(found)
