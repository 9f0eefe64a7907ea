"""The networks of the audio codec (SPEC.md section 11): the Oobleck decoder and encoder, and the 129-tap post filter.

All are purely convolutional and normalise nothing. Four surprises:

1. Every convolution has stride 1. A transposed convolution of 2 taps with padding 1 drops one position and an ordinary
   one adds one, so the encoder makes n + 2 latents of n positions and the decoder n positions of n + 2 latents.
2. Zeros surround the signal at the input of *every* layer, not only of the first: with biases, the layers would make
   something else of zeros. (Snake maps 0 to 0, so it does not matter on which side of it.)
3. Weights are normalised over all dimensions but the first, also in a transposed convolution, whose first dimension
   is its *input* channels.
4. Snake's alpha and beta are stored as logarithms, and 1e-9 is added to beta before the division.

Source: `OobleckDecoder` and `OobleckEncoder` of diffusers, as `Codec1D` of the upstream model builds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.architecture import (
    COMMON_FIELDS,
    WIDTH,
    Architecture,
    Latents,
    NetworkWeights,
    Subbands,
    Tensors,
    Weights,
    layer_weights,
    projection_shapes,
)
from walloc_ref.errors import MalformedModel
from walloc_ref.stages import projection

if TYPE_CHECKING:
    from walloc_ref.model import Config, Model
    from walloc_ref.plain import Functions
    from walloc_ref.stages.container import Coding

Array = NDArray[np.float64]
Network = dict[str, Any]
"""Weights ready for use: nested dictionaries whose keys are the argument names of the layer functions."""

DILATIONS = (1, 3, 9)
"""Dilations of the three residual units of a block."""

BLOCKS = 2
"""Blocks of a network: one for each stride that the upstream passes (two, both 1)."""

REACH = 3
"""Positions that a kernel of 7 taps reaches to each side, times its dilation."""

BETA_OFFSET = 1e-9
"""Added to Snake's beta before its reciprocal is taken."""

POST_FILTER_TAPS = 129
"""Taps of the post filter."""

POST_REACH = POST_FILTER_TAPS // 2
"""Samples that the post filter reaches to each side."""


# ---- networks ------------------------------------------------------------------------------------------------------


def decode(z: Array, network: Network) -> Array:
    """Latents to subbands (SPEC.md 11.10).

    Parameters
    ----------
    z : float64, shape (D, n + 2)
    network : dict
        `load(tensors, "decoder.1.")`.

    Returns
    -------
    float64, shape (C·2^J, n)

    Examples
    --------
    >>> shapes = decoder_shapes(2, 4, 8)  # D, Nd, K
    >>> network = load({name: np.ones(shape) for name, shape in shapes.items()})
    >>> decode(np.zeros((2, 5)), network).shape  # drops two positions
    (8, 3)
    """
    x = conv(z, **network["conv1"], padding=REACH)  # [D, n + 2] -> [B, n + 2]
    for number in range(BLOCKS):
        x = decoder_block(x, **network["block"][str(number)])  # [B, n + 2] -> [B, n + 1] -> [D, n]
    return head(x, network)  # [D, n] -> [C·2^J, n]


def encode(bands: Array, network: Network) -> Array:
    """Subbands to latents by the full encoder (SPEC.md 11.11): (C·2^J, n) to (D, n + 2).

    >>> shapes = encoder_shapes(8, 4, 2)  # K, Ne, D
    >>> network = load({name: np.ones(shape) for name, shape in shapes.items()})
    >>> encode(np.zeros((8, 3)), network).shape  # adds two positions
    (2, 5)
    """
    x = conv(bands, **network["conv1"], padding=REACH)  # [C·2^J, n] -> [D, n]
    for number in range(BLOCKS):
        x = encoder_block(x, **network["block"][str(number)])  # [D, n] -> [B, n + 1] -> [B, n + 2]
    return head(x, network)  # [B, n + 2] -> [D, n + 2]


def decoder_block(
    x: Array, snake1: Network, conv_t1: Network, res_unit1: Network, res_unit2: Network, res_unit3: Network
) -> Array:
    """Snake, a transposed convolution that drops one position, and three residual units.

    >>> network = load({name: np.ones(shape) for name, shape in decoder_shapes(2, 4, 8).items()})
    >>> decoder_block(np.zeros((4, 5)), **network["block"]["0"]).shape
    (4, 4)
    """
    x = conv_transpose(snake(x, **snake1), **conv_t1)  # n -> n - 1
    return residual_units(x, res_unit1, res_unit2, res_unit3)


def encoder_block(
    x: Array, res_unit1: Network, res_unit2: Network, res_unit3: Network, snake1: Network, conv1: Network
) -> Array:
    """Three residual units, Snake, and a convolution that adds one position.

    >>> network = load({name: np.ones(shape) for name, shape in encoder_shapes(8, 4, 2).items()})
    >>> encoder_block(np.zeros((2, 5)), **network["block"]["0"]).shape
    (4, 6)
    """
    x = residual_units(x, res_unit1, res_unit2, res_unit3)
    return conv(snake(x, **snake1), **conv1, padding=1)  # 2 taps: n -> n + 1


def residual_units(x: Array, *units: Network) -> Array:
    """The three residual units of a block, of rising dilation: (N, n) to (N, n).

    >>> block = load({name: np.ones(shape) for name, shape in decoder_shapes(2, 4, 8).items()})["block"]["0"]
    >>> residual_units(np.zeros((4, 5)), block["res_unit1"], block["res_unit2"], block["res_unit3"]).shape
    (4, 5)
    """
    for dilation, unit in zip(DILATIONS, units):
        x = residual_unit(x, dilation, **unit)
    return x


def residual_unit(x: Array, dilation: int, snake1: Network, conv1: Network, snake2: Network, conv2: Network) -> Array:
    """x + conv2(snake2(conv1(snake1(x)))), conv1 of 7 dilated taps, conv2 of one (SPEC.md 11.9).

    >>> block = load({name: np.ones(shape) for name, shape in decoder_shapes(2, 4, 8).items()})["block"]["0"]
    >>> residual_unit(np.zeros((4, 5)), 3, **block["res_unit2"]).shape
    (4, 5)
    """
    y = conv(snake(x, **snake1), **conv1, padding=REACH * dilation, dilation=dilation)  # [N, n]
    return x + conv(snake(y, **snake2), **conv2)  # [N, n]


def head(x: Array, network: Network) -> Array:
    """Snake and the last convolution, of 7 taps in the decoder and 3 in the encoder.

    >>> network = load({name: np.ones(shape) for name, shape in decoder_shapes(2, 4, 8).items()})
    >>> head(np.zeros((2, 5)), network).shape
    (8, 5)
    """
    taps = network["conv2"]["weight"].shape[2]
    return conv(snake(x, **network["snake1"]), **network["conv2"], padding=taps // 2)


def block(network: str, name: str, x: Array, weights: Network) -> Array:
    """One block, on a whole file: "conv1", "block0", "block1", … or "head" of the "encoder" or the "decoder".

    >>> network = load({name: np.ones(shape) for name, shape in decoder_shapes(2, 4, 8).items()})
    >>> block("decoder", "block1", np.zeros((4, 5)), network).shape
    (2, 4)
    """
    if name == "conv1":
        return conv(x, **weights["conv1"], padding=REACH)
    if name == "head":
        return head(x, weights)
    run = decoder_block if network == "decoder" else encoder_block
    return run(x, **weights["block"][name[-1]])


def post_filter(x: Array, weight: Array, bias: Array) -> Array:
    """The convolution of 129 taps after the synthesis (SPEC.md 11.12): (C, n), (C, C, 129), (C,) to (C, n).

    >>> weight = np.zeros((1, 1, POST_FILTER_TAPS))
    >>> weight[0, 0, POST_REACH] = 1  # the middle tap alone
    >>> post_filter(np.array([[1.0, 2.0]]), weight, np.zeros(1)).tolist()
    [[1.0, 2.0]]
    """
    return conv(x, weight, bias, padding=POST_REACH)


# ---- layers --------------------------------------------------------------------------------------------------------


def snake(x: Array, alpha: Array, gain: Array) -> Array:
    """Snake: x + sin²(alpha·x)·gain, gain = 1/(beta + 1e-9).

    Parameters
    ----------
    x : float64, shape (C, n)
    alpha, gain : float64, shape (C, 1)

    Examples
    --------
    >>> snake(np.array([[0.0, np.pi / 2]]), np.ones((1, 1)), np.ones((1, 1))).round(6).tolist()
    [[0.0, 2.570796]]
    """
    return x + np.square(np.sin(alpha * x)) * gain  # [C, n]


def conv(x: Array, weight: Array, bias: Array | None = None, padding: int = 0, dilation: int = 1) -> Array:
    """Cross-correlation with zeros beyond both ends (SPEC.md 11.6).

    Parameters
    ----------
    x : float64, shape (Cin, n)
    weight : float64, shape (Cout, Cin, T)
    bias : float64, shape (Cout,), or None
    padding, dilation : int

    Returns
    -------
    float64, shape (Cout, n + 2·padding - (T - 1)·dilation)

    Examples
    --------
    >>> conv(np.array([[1.0, 2.0]]), np.array([[[10.0, 1.0]]]), np.zeros(1), padding=1).tolist()
    [[1.0, 12.0, 20.0]]
    """
    padded = np.pad(x, ((0, 0), (padding, padding)))
    taps = weight.shape[2]
    n = padded.shape[1] - (taps - 1) * dilation
    out = np.zeros((weight.shape[0], n))
    for k in range(taps):
        out += weight[:, :, k] @ padded[:, k * dilation : k * dilation + n]  # [Cout, Cin], [Cin, n] -> [Cout, n]
    return out if bias is None else out + bias[:, None]


def conv_transpose(x: Array, weight: Array, bias: Array) -> Array:
    """Transposed convolution of 2 taps, stride 1, padding 1: out[t] = bias + W0' x[t+1] + W1' x[t], W = weight[:, :, k].

    Parameters
    ----------
    x : float64, shape (Cin, n)
    weight : float64, shape (Cin, Cout, 2)
    bias : float64, shape (Cout,)

    Returns
    -------
    float64, shape (Cout, n - 1)

    Examples
    --------
    >>> conv_transpose(np.array([[1.0, 2.0, 3.0]]), np.array([[[10.0, 1.0]]]), np.zeros(1)).tolist()
    [[21.0, 32.0]]
    """
    return weight[:, :, 0].T @ x[:, 1:] + weight[:, :, 1].T @ x[:, :-1] + bias[:, None]


# ---- weights -------------------------------------------------------------------------------------------------------


def load(tensors: Mapping[str, NDArray[Any]], prefix: str = "") -> Network:
    """Nest the tensors under `prefix`, fold the weight normalisation and take Snake's parameters out of the logarithm.

    Parameters
    ----------
    tensors : mapping of str to array
        Upstream's state dict: `prefix` + "conv1.weight_g", "block.0.res_unit1.snake1.alpha", …
    prefix : str
        "decoder.1." or "encoder.0.", or nothing where the names come without.

    Returns
    -------
    dict
        {"conv1": {"weight", "bias"}, "block": {"0": {"snake1": {"alpha", "gain"}, …}, …}, …}, all float64.

    Raises
    ------
    MalformedModel
        For a direction of length zero (the upstream computes NaN there), or where a tensor is missing or has the wrong
        number of axes.

    Examples
    --------
    >>> tensors = {"conv1.weight_g": np.full((1, 1, 1), 10.0), "conv1.weight_v": np.array([[[3.0, 4.0]]])}
    >>> load(tensors)["conv1"]["weight"].tolist()  # g·v over the length of v
    [[[6.0, 8.0]]]
    """
    network: Network = NetworkWeights({})
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            *path, key = name[len(prefix) :].split(".")
            node = network
            for part in path:
                node = node.setdefault(part, {})
            node[key] = np.asarray(tensor, dtype=np.float64)
    return _fold(network, prefix)


def _fold(node: Network, name: str) -> Network:
    """Replace weight_g, weight_v by weight and the stored alpha, beta by what Snake multiplies with."""
    if "weight_v" in node and "weight_g" in node:
        g, v = node.pop("weight_g"), node.pop("weight_v")  # [first, 1, 1], [first, second, taps]
        if v.ndim != 3 or g.shape != (v.shape[0], 1, 1):
            raise MalformedModel(f"{name}weight_g", g.shape, f"must be ({v.shape[0] if v.ndim else 0}, 1, 1)")
        length = np.sqrt(np.sum(v * v, axis=(1, 2), keepdims=True))  # [first, 1, 1]
        if not np.all(length > 0):
            raise MalformedModel(f"{name}weight_v", "a direction of length 0", "every row must have a positive norm")
        node["weight"] = v * (g / length)
    if "alpha" in node and "beta" in node:
        with np.errstate(over="ignore"):  # exp of a large logarithm is inf, and samples then "not a number", an error
            node["alpha"] = np.exp(node["alpha"].reshape(-1, 1))  # [1, C, 1] -> [C, 1]
            node["gain"] = 1.0 / (np.exp(node.pop("beta").reshape(-1, 1)) + BETA_OFFSET)
    for key, child in node.items():
        if isinstance(child, dict):
            _fold(child, f"{name}{key}.")
    return node


def decoder_shapes(latent_dim: int, width: int, bands: int) -> dict[str, tuple[int, ...]]:
    """Names (without "decoder.1.") and shapes of the decoder's tensors.

    Parameters
    ----------
    latent_dim, width, bands : int
        D, Nd and C·2^J. The middle is D·(Nd // D) channels wide, as upstream's `channel_multiples` make it.

    Examples
    --------
    >>> decoder_shapes(2, 5, 8)["conv1.weight_v"]  # 5 is rounded down to a multiple of 2
    (4, 2, 7)
    """
    wide = width // latent_dim * latent_dim
    shapes = _conv_shapes("conv1", wide, latent_dim, 7)
    for number, outputs in enumerate((wide, latent_dim)):
        block = f"block.{number}."
        shapes |= _snake_shapes(block + "snake1", wide)
        shapes |= _conv_shapes(block + "conv_t1", wide, outputs, 2, bias=outputs)
        shapes |= _residual_shapes(block, outputs)
    shapes |= _snake_shapes("snake1", latent_dim)
    return shapes | _conv_shapes("conv2", bands, latent_dim, 7, bias=0)


def encoder_shapes(bands: int, width: int, latent_dim: int) -> dict[str, tuple[int, ...]]:
    """Names (without "encoder.0.") and shapes of the encoder's tensors; `width` is Ne, the rest as for the decoder.

    >>> encoder_shapes(8, 5, 2)["conv1.weight_v"]
    (2, 8, 7)
    """
    wide = width // latent_dim * latent_dim
    shapes = _conv_shapes("conv1", latent_dim, bands, 7)
    for number, inputs in enumerate((latent_dim, wide)):
        block = f"block.{number}."
        shapes |= _residual_shapes(block, inputs)
        shapes |= _snake_shapes(block + "snake1", inputs)
        shapes |= _conv_shapes(block + "conv1", wide, inputs, 2)
    shapes |= _snake_shapes("snake1", wide)
    return shapes | _conv_shapes("conv2", latent_dim, wide, 3)


def _conv_shapes(name: str, first: int, second: int, taps: int, bias: int | None = None) -> dict[str, tuple[int, ...]]:
    """A weight-normalised convolution; `bias` channels of bias (default `first`; none at all for 0)."""
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight_g": (first, 1, 1), f"{name}.weight_v": (first, second, taps)}
    bias = first if bias is None else bias
    return shapes | {f"{name}.bias": (bias,)} if bias else shapes


def _snake_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.alpha": (1, channels, 1), f"{name}.beta": (1, channels, 1)}


def _residual_shapes(block: str, channels: int) -> dict[str, tuple[int, ...]]:
    """The three residual units of a block."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(1, len(DILATIONS) + 1):
        unit = f"{block}res_unit{number}."
        shapes |= _snake_shapes(unit + "snake1", channels) | _conv_shapes(unit + "conv1", channels, channels, 7)
        shapes |= _snake_shapes(unit + "snake2", channels) | _conv_shapes(unit + "conv2", channels, channels, 1)
    return shapes


# ---- Codec1D -------------------------------------------------------------------------------------------------------


def _check(config: Config) -> None:
    for name in ("Nd",) if config.lightweight_encode else ("Nd", "Ne"):
        if getattr(config, name) < config.latent_dim:
            raise MalformedModel(f"config.{name}", getattr(config, name), f"at least latent_dim, {config.latent_dim}")


def _shapes(config: Config) -> dict[str, tuple[int, ...]]:
    assert config.Nd is not None
    decoder = decoder_shapes(config.latent_dim, config.Nd, config.bands)
    shapes = {f"decoder.1.{name}": shape for name, shape in decoder.items()}
    if config.lightweight_encode:
        shapes = projection_shapes("encoder.0", config.latent_dim, config.bands, config.axes) | shapes
    else:
        assert config.Ne is not None
        encoder = encoder_shapes(config.bands, config.Ne, config.latent_dim)
        shapes |= {f"encoder.0.{name}": shape for name, shape in encoder.items()}
    if config.post_filter:
        shapes["post.weight"] = (config.channels, config.channels, POST_FILTER_TAPS)
        shapes["post.bias"] = (config.channels,)
    return shapes


def _prepare(config: Config, tensors: Tensors) -> Weights:
    light = config.lightweight_encode
    encoder = layer_weights(tensors, "encoder.0") if light else load(tensors, "encoder.0.")
    weights = {"encoder": encoder, "decoder": load(tensors, "decoder.1.")}
    return weights | ({"post": layer_weights(tensors, "post")} if config.post_filter else {})


def _to_latents(bands: Subbands, model: Model, coding: Coding, functions: Functions) -> Latents:
    """SPEC.md 11.5 or 11.11: (K, n) to (D, n + 2)."""
    weights = model.weights["encoder"]
    if model.config.lightweight_encode:
        return projection.add_border(functions.project(bands, **weights), weights["bias"])
    return functions.audio_encoder(bands, weights)


def _to_bands(latents: Latents, model: Model, coding: Coding, functions: Functions) -> Subbands:
    """SPEC.md 11.10: (D, n + 2) to (K, n)."""
    return functions.audio_decoder(latents, model.weights["decoder"])


CODEC_1D = Architecture(
    name="Codec1D",
    kind="audio",
    fields={**COMMON_FIELDS, "Ne": WIDTH, "Nd": WIDTH, "lightweight_encode": bool, "post_filter": bool},
    check=_check,
    tensor_shapes=_shapes,
    prepare=_prepare,
    to_latents=_to_latents,
    to_bands=_to_bands,
    block=block,
)
