"""Components and a scale to the tensors of a model: an encoder, a decoder, biases, step weights.

One scale for all components makes one step for all, which is what squared error wants. The quantiser has 2^b - 1 symbols,
though, and compands: where a component's latents would spread far beyond its scale s, its steps there grow without bound.
A Gaussian of standard deviation sigma, in units of s, is quantised with an error of 1/(sigma·(1 - 2·sigma²)^(1/4)), which
is smallest at sigma = 1/√3; so no component gets a larger scale than that, nor one that puts its largest latent beyond
`REACH`. Those that get less have a coarser step at 1 already and so take less of what a coarser step adds: their step
weights say it (SPEC.md 6.8).

Audio has no linear architecture upstream. Its Oobleck decoder becomes one: identity taps, of the two transposed
convolutions the first with its tap 0 and the second with its tap 1, which takes the border away; Snake with
alpha = e^-20 and 1/beta = e^-80, which changes no binary64; residual branches with a gain of zero.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from walloc_ref.fit.components import Components
from walloc_ref.model import Config
from walloc_ref.stages import quantise
from walloc_ref.stages.oobleck import BLOCKS, DILATIONS

SPREAD = 1 / math.sqrt(3)
"""Largest standard deviation of a plane's latents, over the companding scale s; see above."""

REACH = 2.5
"""Largest latent of a plane, over s: steps are 23 times those at the origin there."""

SNAKE_ALPHA, SNAKE_BETA = -20.0, 80.0
"""Logarithms of Snake's parameters at which it is the identity."""

ARCHITECTURES = {"image": "LinearCodec2D", "audio": "Codec1D", "volume": "LinearCodec3D"}
"""What is fitted for each kind of signal."""

Tensors = dict[str, NDArray[np.float32]]


def configuration(kind: str, channels: int, levels: int, latents: int, bits: int) -> Config:
    """The configuration of a fitted model."""
    width = latents if kind == "audio" else None
    return Config(ARCHITECTURES[kind], channels, levels, latents, bits, Nd=width)


def slope(bits: int) -> float:
    """Symbols for each unit of a latent, at the origin (SPEC.md 6.2)."""
    return 2 * quantise.latent_max(bits) / (quantise.scale(bits) * math.sqrt(2 * math.pi))


def scales(components: Components, largest: NDArray[np.float64], scale: float, bits: int) -> NDArray[np.float64]:
    """The scale of each component: `scale`, or less where its latents would leave the quantiser's range.

    Parameters
    ----------
    components : Components
    largest : float64, shape (n,)
        Largest magnitudes of the components seen, in units of the signal.
    scale : float
    bits : int
    """
    s = quantise.scale(bits)
    spread = SPREAD * s / np.maximum(np.sqrt(components.variances), 1e-30)
    return np.minimum(scale, np.minimum(spread, REACH * s / np.maximum(largest, 1e-30)))


def step_weights(each: NDArray[np.float64], scale: float) -> NDArray[np.uint8]:
    """Step weights by which a plane whose own step is coarser takes less of what a coarser step adds."""
    return np.rint(quantise.UNIT_WEIGHT * each / scale).astype(np.uint8)


def tensors(config: Config, components: Components, each: NDArray[np.float64], gains: NDArray[np.float64]) -> Tensors:
    """The tensors of a model.

    Parameters
    ----------
    config : Config
    components : Components
        As many as the model has latents.
    each : float64, shape (D,)
        Their scales.
    gains : float64, shape (D,)
        What decoded latents are multiplied by.
    """
    one_tap = (1,) * config.axes
    encoder = each[:, None] * components.rows * components.weights  # [D, K]
    decoder = (components.rows / components.weights * (gains / each)[:, None]).T  # [K, D]
    audio = config.kind == "audio"
    mean = np.zeros_like(components.mean) if audio else components.mean
    found = {
        "encoder.0.weight": encoder.reshape(*encoder.shape, *one_tap),
        "encoder.0.bias": -encoder @ mean,
    }
    if audio:
        found |= {f"decoder.1.{name}": value for name, value in _oobleck(decoder).items()}
    else:
        found |= {"decoder.1.weight": decoder.reshape(*decoder.shape, *one_tap), "decoder.1.bias": mean}
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in found.items()}


def _oobleck(matrix: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Tensors, without "decoder.1.", of an Oobleck decoder (Nd = D) that multiplies by a matrix (K, D)."""
    D = matrix.shape[1]  # noqa: N806

    def conv(name: str, taps: int, at: int, gain: float) -> dict[str, NDArray[np.float64]]:
        v = np.zeros((D, D, taps))
        v[np.arange(D), np.arange(D), at] = 1
        g = np.full((D, 1, 1), gain)
        return {f"{name}.weight_g": g, f"{name}.weight_v": v, f"{name}.bias": np.zeros(D)}

    def snake(name: str) -> dict[str, NDArray[np.float64]]:
        return {f"{name}.alpha": np.full((1, D, 1), SNAKE_ALPHA), f"{name}.beta": np.full((1, D, 1), SNAKE_BETA)}

    found = conv("conv1", 7, 3, 1.0)
    for number in range(BLOCKS):
        block = f"block.{number}."
        found |= snake(block + "snake1") | conv(block + "conv_t1", 2, number, 1.0)
        for unit in range(1, len(DILATIONS) + 1):
            name = f"{block}res_unit{unit}."
            found |= snake(name + "snake1") | conv(name + "conv1", 7, 3, 0.0)
            found |= snake(name + "snake2") | conv(name + "conv2", 1, 0, 0.0)
    norms = np.linalg.norm(matrix, axis=1)
    v = np.zeros((*matrix.shape, 7))
    v[:, :, 3] = matrix
    v[norms == 0, 0, 3] = 1  # a direction that a gain of zero may have
    return found | snake("snake1") | {"conv2.weight_g": norms[:, None, None], "conv2.weight_v": v}
