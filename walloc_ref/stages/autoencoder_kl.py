"""The nonlinear networks of the image codec (SPEC.md section 9): decoder and full encoder, as plain functions on arrays.

One resolution, no up-sampling: a 3×3 convolution, a middle block (residual, attention, residual), a stack of residual
blocks (3 in the decoder, 2 in the encoder), and GroupNorm, SiLU, 3×3 convolution. Weights are a mapping from the upstream's
tensor names, less the prefix of the network, to arrays, all in binary64.

Where the time goes: the convolutions, 94·N²·h·w multiplications for N channels; and in large windows the attention, 2·N
times the *square* of h·w.

Source: `Decoder` and `Encoder` of diffusers' `AutoencoderKL`, as `Codec2D` builds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from walloc_ref.architecture import (
    COMMON_FIELDS,
    WIDTH,
    Architecture,
    Latents,
    Subbands,
    Tensors,
    layer_weights,
    projection_shapes,
    tensors_under,
)
from walloc_ref.architecture import Weights as ModelWeights
from walloc_ref.errors import MalformedModel

if TYPE_CHECKING:
    from walloc_ref.model import Config, Model
    from walloc_ref.plain import Functions
    from walloc_ref.stages.container import Coding

Array = NDArray[np.float64]
Weights = Mapping[str, Array]

GROUPS = 32
"""Groups of every GroupNorm (upstream `norm_num_groups`)."""

EPSILON = 1e-6
"""Added to the variance in every GroupNorm (upstream `resnet_eps`)."""

DECODER_BLOCKS = 3
"""Residual blocks after the decoder's middle block (upstream `layers_per_block` + 1)."""

ENCODER_BLOCKS = 2
"""Residual blocks before the encoder's middle block (upstream `layers_per_block`)."""


# ---- networks ------------------------------------------------------------------------------------------------------


def decode(z: Array, weights: Weights) -> Array:
    """Latents to subbands (SPEC.md 9.8).

    Parameters
    ----------
    z : shape (D, h, w)
        Dequantised latents.
    weights : mapping
        Tensors of `decoder.1.*`, named without that prefix.

    Returns
    -------
    shape (C·4^J, h, w)

    Examples
    --------
    >>> shapes = decoder_shapes(2, 32, 4)  # D, N, K
    >>> decode(np.zeros((2, 3, 5)), {name: np.zeros(shape) for name, shape in shapes.items()}).shape
    (4, 3, 5)
    """
    x = conv3x3(z, *layer(weights, "conv_in"))  # [D, h, w] -> [N, h, w]
    x = middle(x, weights)  # [N, h, w]
    for i in range(DECODER_BLOCKS):
        x = residual(x, weights, f"up_blocks.0.resnets.{i}")  # [N, h, w]
    return head(x, weights)  # [N, h, w] -> [C·4^J, h, w]


def encode(bands: Array, weights: Weights) -> Array:
    """Subbands to latents by the full encoder (SPEC.md 9.9): (C·4^J, h, w) to (D, h, w); tensors of `encoder.0.*`.

    >>> shapes = encoder_shapes(4, 32, 2)  # K, N, D
    >>> encode(np.zeros((4, 3, 5)), {name: np.zeros(shape) for name, shape in shapes.items()}).shape
    (2, 3, 5)
    """
    x = conv3x3(bands, *layer(weights, "conv_in"))  # [C·4^J, h, w] -> [N, h, w]
    for i in range(ENCODER_BLOCKS):
        x = residual(x, weights, f"down_blocks.0.resnets.{i}")  # [N, h, w]
    x = middle(x, weights)  # [N, h, w]
    return head(x, weights)  # [N, h, w] -> [D, h, w]


def middle(x: Array, weights: Weights) -> Array:
    """Residual block, attention, residual block (SPEC.md 9.7): (N, h, w) to (N, h, w).

    >>> weights = {name: np.zeros(shape) for name, shape in decoder_shapes(2, 32, 4).items()}
    >>> bool((middle(np.ones((32, 2, 2)), weights) == 1).all())  # weights of zero leave the sum alone
    True
    """
    x = residual(x, weights, "mid_block.resnets.0")
    x = attention(x, weights, "mid_block.attentions.0")
    return residual(x, weights, "mid_block.resnets.1")


def head(x: Array, weights: Weights) -> Array:
    """GroupNorm, SiLU and the last convolution.

    >>> weights = {name: np.zeros(shape) for name, shape in decoder_shapes(2, 32, 4).items()}
    >>> head(np.ones((32, 2, 2)), weights).shape
    (4, 2, 2)
    """
    x = silu(group_norm(x, *layer(weights, "conv_norm_out")))
    return conv3x3(x, *layer(weights, "conv_out"))


# ---- blocks and layers ---------------------------------------------------------------------------------------------


def residual(x: Array, weights: Weights, name: str) -> Array:
    """x + conv(silu(norm(conv(silu(norm(x)))))) (SPEC.md 9.5): (N, h, w) to (N, h, w).

    >>> weights = {name: np.zeros(shape) for name, shape in decoder_shapes(2, 32, 4).items()}
    >>> bool((residual(np.ones((32, 2, 2)), weights, "up_blocks.0.resnets.0") == 1).all())
    True
    """
    y = conv3x3(silu(group_norm(x, *layer(weights, f"{name}.norm1"))), *layer(weights, f"{name}.conv1"))
    y = conv3x3(silu(group_norm(y, *layer(weights, f"{name}.norm2"))), *layer(weights, f"{name}.conv2"))
    return x + y


def attention(x: Array, weights: Weights, name: str) -> Array:
    """x + out(softmax(q·kᵀ/√N)·v), one head over all positions (SPEC.md 9.6): (N, h, w) to (N, h, w).

    >>> weights = {name: np.zeros(shape) for name, shape in decoder_shapes(2, 32, 4).items()}
    >>> bool((attention(np.ones((32, 2, 2)), weights, "mid_block.attentions.0") == 1).all())
    True
    """
    channels, positions = x.shape[0], x[0].size
    tokens = group_norm(x, *layer(weights, f"{name}.group_norm")).reshape(channels, positions)  # [N, P]
    query, key, value = (linear(tokens, *layer(weights, f"{name}.to_{part}")) for part in "qkv")  # [N, P] each
    scores = query.T @ key * channels**-0.5  # [P, N], [N, P] -> [P queries, P keys]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    mixed = value @ (scores / scores.sum(axis=1, keepdims=True)).T  # [N, P], [P, P] -> [N, P]
    return x + linear(mixed, *layer(weights, f"{name}.to_out.0")).reshape(x.shape)


def conv3x3(x: Array, weight: Array, bias: Array) -> Array:
    """Cross-correlation with zeros beyond the border (SPEC.md 9.2): (K, h, w), (N, K, 3, 3), (N,) to (N, h, w).

    >>> conv3x3(np.ones((1, 3, 3)), np.ones((1, 1, 3, 3)), np.zeros(1))[0].tolist()  # zeros beyond the border
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    inputs, h, w = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))  # [K, h + 2, w + 2]
    out = np.zeros((weight.shape[0], h * w))
    for a in range(3):
        for b in range(3):
            out += weight[:, :, a, b] @ padded[:, a : a + h, b : b + w].reshape(inputs, -1)  # [N, K], [K, h·w]
    return (out + bias[:, None]).reshape(-1, h, w)


def linear(tokens: Array, weight: Array, bias: Array) -> Array:
    """W·t + b for every token: (N, P), (M, N), (M,) to (M, P).

    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), np.array([0.0, 1.0])).tolist()
    [[3.0, 6.0], [5.0, 9.0]]
    """
    return weight @ tokens + bias[:, None]


def group_norm(x: Array, weight: Array, bias: Array) -> Array:
    """Zero mean and unit variance over each group of channels and all positions, then scale and shift (SPEC.md 9.3).

    >>> x = np.tile([1.0, 3.0], (32, 1, 1))  # (32, 1, 2), a channel for each group
    >>> group_norm(x, np.ones(32), np.zeros(32))[0].round(3).tolist()
    [[-1.0, 1.0]]
    """
    grouped = x.reshape(GROUPS, -1)  # [32, N/32·h·w]
    centred = grouped - grouped.mean(axis=1, keepdims=True)
    variance = np.mean(centred**2, axis=1, keepdims=True)  # biased, as upstream
    normal = (centred / np.sqrt(variance + EPSILON)).reshape(x.shape)
    return normal * weight[:, None, None] + bias[:, None, None]


def silu(x: Array) -> Array:
    """x·sigmoid(x), element by element (SPEC.md 9.4).

    >>> silu(np.array([-1000.0, 0.0, 1.0])).round(6).tolist()
    [-0.0, 0.0, 0.731059]
    """
    with np.errstate(over="ignore"):  # exp(-x) is inf far below zero, and x/inf the right zero
        return x / (1 + np.exp(-x))


def block(network: str, name: str, x: Array, weights: Weights) -> Array:
    """A block: "conv_in", "mid.resnet0", "mid.attention", "mid.resnet1", "up.resnet0" ("down." to encode), … "head".

    >>> weights = {name: np.zeros(shape) for name, shape in decoder_shapes(2, 32, 4).items()}
    >>> block("decoder", "conv_in", np.ones((2, 3, 3)), weights).shape
    (32, 3, 3)
    """
    if name == "conv_in":
        return conv3x3(x, *layer(weights, "conv_in"))
    if name == "head":
        return head(x, weights)
    part, unit = name.split(".")
    if unit == "attention":
        return attention(x, weights, "mid_block.attentions.0")
    place = "mid_block.resnets" if part == "mid" else f"{part}_blocks.0.resnets"
    return residual(x, weights, f"{place}.{unit[-1]}")


def layer(weights: Weights, name: str) -> tuple[Array, Array]:
    """Weight and bias of a layer.

    >>> layer({"to_q.weight": 1, "to_q.bias": 2}, "to_q")
    (1, 2)
    """
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


# ---- windows -------------------------------------------------------------------------------------------------------
# GroupNorm and attention see all positions. In windows, what a network sees is bounded, and so are memory and cost.


def window_edges(positions: int, window: int) -> list[int]:
    """Where the windows along an axis begin, and the end: about equal parts of about `window` (SPEC.md 9.11).

    >>> window_edges(100, 32), window_edges(47, 32), window_edges(5, 0)
    ([0, 33, 66, 100], [0, 47], [0, 5])
    """
    count = max(1, (positions + window // 2) // window) if window else 1
    return [positions * i // count for i in range(count + 1)]


Place = tuple[slice, slice]
"""Rows and columns of latent positions."""


def windows(positions: tuple[int, ...], window: int, context: int) -> Iterator[tuple[Place, Place, Place]]:
    """The windows of (h, w) positions (SPEC.md 9.11): what each keeps, what its network sees, and where in that the
    kept part lies.

    >>> kept, seen, inside = list(windows((10, 100), 32, 8))[1]
    >>> kept[1], seen[1], inside[1]
    (slice(33, 66, None), slice(25, 74, None), slice(8, 41, None))
    """
    kept, seen, inside = [], [], []
    for size in positions:
        edges = window_edges(size, window)
        firsts, ends = edges[:-1], edges[1:]
        lows = [max(0, first - context) for first in firsts]
        kept.append([slice(first, end) for first, end in zip(firsts, ends)])
        seen.append([slice(low, min(size, end + context)) for low, end in zip(lows, ends)])
        inside.append([slice(first - low, end - low) for first, end, low in zip(firsts, ends, lows)])
    return zip(product(*kept), product(*seen), product(*inside))


def in_windows(
    network: Callable[[Array, Weights], Array], x: Array, weights: Weights, outputs: int, coding: Coding
) -> Array:
    """A network on every window, (N, h, w) to (outputs, h, w).

    >>> from walloc_ref.stages.container import Coding
    >>> coding = Coding(window=8, context=2)
    >>> in_windows(lambda x, weights: x.sum(0, keepdims=True), np.ones((3, 20, 9)), {}, 1, coding).shape
    (1, 20, 9)
    """
    y = np.empty((outputs, *x.shape[1:]))
    for (rows, columns), (seen_rows, seen_columns), inside in windows(x.shape[1:], coding.window, coding.context):
        y[:, rows, columns] = network(x[:, seen_rows, seen_columns], weights)[:, inside[0], inside[1]]
    return y


# ---- Codec2D -------------------------------------------------------------------------------------------------------


def tensor_shapes(inputs: int, width: int, outputs: int, *, blocks: str, count: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a network, less its prefix.

    Parameters
    ----------
    inputs, width, outputs : int
        Channels in, N, channels out.
    blocks : str
        "up_blocks" (decoder) or "down_blocks" (encoder).
    count : int
        `DECODER_BLOCKS` or `ENCODER_BLOCKS`.

    Examples
    --------
    >>> tensor_shapes(12, 32, 192, blocks="up_blocks", count=3)["conv_in.weight"]
    (32, 12, 3, 3)
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def put(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]

    put("conv_in", width, inputs, 3, 3)
    for name in [f"mid_block.resnets.{i}" for i in range(2)] + [f"{blocks}.0.resnets.{i}" for i in range(count)]:
        for part in "12":
            put(f"{name}.norm{part}", width)
            put(f"{name}.conv{part}", width, width, 3, 3)
    put("mid_block.attentions.0.group_norm", width)
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        put(f"mid_block.attentions.0.{part}", width, width)
    put("conv_norm_out", width)
    put("conv_out", outputs, width, 3, 3)
    return shapes


decoder_shapes = partial(tensor_shapes, blocks="up_blocks", count=DECODER_BLOCKS)
"""Tensors of the decoder."""

encoder_shapes = partial(tensor_shapes, blocks="down_blocks", count=ENCODER_BLOCKS)
"""Tensors of the full encoder."""


def _check(config: Config) -> None:
    for name in ("Nd",) if config.lightweight_encode else ("Nd", "Ne"):
        if getattr(config, name) % GROUPS:
            raise MalformedModel(f"config.{name}", getattr(config, name), f"a multiple of {GROUPS}")


def _shapes(config: Config) -> dict[str, tuple[int, ...]]:
    assert config.Nd is not None
    decoder = decoder_shapes(config.latent_dim, config.Nd, config.bands)
    shapes = {f"decoder.1.{name}": shape for name, shape in decoder.items()}
    if config.lightweight_encode:
        return projection_shapes("encoder.0", config.latent_dim, config.bands, config.axes) | shapes
    assert config.Ne is not None
    encoder = encoder_shapes(config.bands, config.Ne, config.latent_dim)
    return shapes | {f"encoder.0.{name}": shape for name, shape in encoder.items()}


def _prepare(config: Config, tensors: Tensors) -> ModelWeights:
    if config.lightweight_encode:
        return {"encoder": layer_weights(tensors, "encoder.0"), "decoder": tensors_under(tensors, "decoder.1.")}
    return {"encoder": tensors_under(tensors, "encoder.0."), "decoder": tensors_under(tensors, "decoder.1.")}


def _to_latents(bands: Subbands, model: Model, coding: Coding, functions: Functions) -> Latents:
    """SPEC.md 5.1, or 9.9 in the windows of 9.11: (K, h, w) to (D, h, w)."""
    weights = model.weights["encoder"]
    if model.config.lightweight_encode:
        return functions.project(bands, **weights)
    return in_windows(functions.image_encoder, bands, weights, model.config.latent_dim, coding)


def _to_bands(latents: Latents, model: Model, coding: Coding, functions: Functions) -> Subbands:
    """SPEC.md 9.8 in the windows of 9.11: (D, h, w) to (K, h, w)."""
    return in_windows(functions.image_decoder, latents, model.weights["decoder"], model.config.bands, coding)


CODEC_2D = Architecture(
    name="Codec2D",
    kind="image",
    fields={**COMMON_FIELDS, "Ne": WIDTH, "Nd": WIDTH, "lightweight_encode": bool},
    check=_check,
    tensor_shapes=_shapes,
    prepare=_prepare,
    to_latents=_to_latents,
    to_bands=_to_bands,
    sees_everything=True,
    block=block,
)
