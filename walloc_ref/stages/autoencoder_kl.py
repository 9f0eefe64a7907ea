"""The nonlinear networks of the image codec (SPEC.md section 9): decoder and full encoder, as plain functions on arrays.

One resolution, no up-sampling: a 3×3 convolution, a middle block (residual, attention, residual), a stack of residual
blocks (3 in the decoder, 2 in the encoder), and GroupNorm, SiLU, 3×3 convolution. Weights are a mapping from the upstream's
tensor names, less the prefix of the network, to arrays, all in binary64.

Where the time goes: the convolutions, 94·N²·h·w multiplications for N channels; and on large images the attention, 2·N
times the *square* of h·w, for which memory nevertheless grows only linearly, because queries are taken block by block.

Source: `Decoder` and `Encoder` of diffusers' `AutoencoderKL`, as `Codec2D` builds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from walloc_ref.fast.workers import for_each

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

COLUMN_ELEMENTS = 1 << 20
"""Elements of the unfolded columns of a convolution that are held at once, 8 MiB."""

QUERY_ROWS = 64
"""Queries that the attention answers at once: their scores stay in cache up to some thousand positions."""


def decode(z: Array, weights: Weights, progress: Callable[[float], None] | None = None) -> Array:
    """Latents to subbands.

    Parameters
    ----------
    z : shape (D, h, w)
        Dequantised latents.
    weights : mapping
        Tensors of `decoder.1.*`, named without that prefix.
    progress : callable, optional
        Is told the share of the blocks that is done.

    Returns
    -------
    shape (C·4^J, h, w)
    """
    tell = progress or (lambda share: None)
    x = conv3x3(z, *layer(weights, "conv_in"))  # [D, h, w] -> [N, h, w]
    x = middle(x, weights)  # [N, h, w]
    for i in range(DECODER_BLOCKS):
        tell((i + 1) / (DECODER_BLOCKS + 2))
        x = residual(x, weights, f"up_blocks.0.resnets.{i}")  # [N, h, w]
    x = head(x, weights)  # [N, h, w] -> [C·4^J, h, w]
    tell(1.0)
    return x


def encode(bands: Array, weights: Weights) -> Array:
    """Subbands to latents by the full encoder: shape (C·4^J, h, w) to (D, h, w); tensors of `encoder.0.*`."""
    x = conv3x3(bands, *layer(weights, "conv_in"))  # [C·4^J, h, w] -> [N, h, w]
    for i in range(ENCODER_BLOCKS):
        x = residual(x, weights, f"down_blocks.0.resnets.{i}")  # [N, h, w]
    x = middle(x, weights)  # [N, h, w]
    return head(x, weights)  # [N, h, w] -> [D, h, w]


def middle(x: Array, weights: Weights) -> Array:
    """Residual block, attention, residual block: (N, h, w) to (N, h, w)."""
    x = residual(x, weights, "mid_block.resnets.0")
    x = attention(x, weights, "mid_block.attentions.0")
    return residual(x, weights, "mid_block.resnets.1")


def head(x: Array, weights: Weights) -> Array:
    """GroupNorm, SiLU and the last convolution."""
    x = silu(group_norm(x, *layer(weights, "conv_norm_out")))
    return conv3x3(x, *layer(weights, "conv_out"))


def residual(x: Array, weights: Weights, name: str) -> Array:
    """x + conv(silu(norm(conv(silu(norm(x)))))): (N, h, w) to (N, h, w)."""
    y = conv3x3(silu(group_norm(x, *layer(weights, f"{name}.norm1"))), *layer(weights, f"{name}.conv1"))
    y = conv3x3(silu(group_norm(y, *layer(weights, f"{name}.norm2"))), *layer(weights, f"{name}.conv2"))
    return x + y


def attention(x: Array, weights: Weights, name: str) -> Array:
    """x + out(softmax(q·kᵀ/√N)·v), one head over all positions: (N, h, w) to (N, h, w).

    The softmax of a query needs all keys but no other query, so blocks of queries are finished one by one.
    """
    channels, positions = x.shape[0], x[0].size
    tokens = group_norm(x, *layer(weights, f"{name}.group_norm")).reshape(channels, positions)  # [N, P]
    query, key, value = (linear(tokens, *layer(weights, f"{name}.to_{part}")) for part in "qkv")  # [N, P] each
    query = np.ascontiguousarray(query.T) * channels**-0.5  # [P, N]
    value = np.ascontiguousarray(value.T)  # [P, N]
    mixed = np.empty((channels, positions))

    def answer(start: int) -> None:
        block = slice(start, start + QUERY_ROWS)
        scores = query[block] @ key  # [B, N], [N, P] -> [B, P]
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        mixed[:, block] = ((scores @ value) / scores.sum(axis=1, keepdims=True)).T  # [B, P], [P, N] -> [N, B]

    for_each(answer, range(0, positions, QUERY_ROWS))
    return x + linear(mixed, *layer(weights, f"{name}.to_out.0")).reshape(x.shape)


def conv3x3(x: Array, weight: Array, bias: Array) -> Array:
    """Cross-correlation with zeros beyond the border: (K, h, w), (N, K, 3, 3), (N,) to (N, h, w).

    A band of rows at a time is unfolded into columns of 9·K values, so that BLAS does the work in one product.
    """
    inputs, h, w = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))  # [K, h + 2, w + 2]
    kernel = weight.reshape(weight.shape[0], -1)  # [N, K·9]
    out = np.empty((weight.shape[0], h, w))
    rows = max(1, COLUMN_ELEMENTS // (9 * inputs * w))

    def convolve(top: int) -> None:
        windows = sliding_window_view(padded[:, top : top + rows + 2], (3, 3), axis=(1, 2))  # [K, r, w, 3, 3]
        columns = windows.transpose(0, 3, 4, 1, 2).reshape(9 * inputs, -1)  # [K·9, r·w]
        out[:, top : top + rows] = (kernel @ columns).reshape(out.shape[0], -1, w)

    for_each(convolve, range(0, h, rows))
    out += bias[:, None, None]
    return out


def linear(tokens: Array, weight: Array, bias: Array) -> Array:
    """W·t + b for every token: (N, P), (M, N), (M,) to (M, P)."""
    return weight @ tokens + bias[:, None]


def group_norm(x: Array, weight: Array, bias: Array) -> Array:
    """Zero mean and unit variance over each group of channels and all positions, then scale and shift by channel."""
    grouped = x.reshape(GROUPS, -1)  # [32, N/32·h·w]
    mean = grouped.mean(axis=1, keepdims=True)
    centred = grouped - mean
    variance = np.einsum("gi,gi->g", centred, centred)[:, None] / grouped.shape[1]  # biased, as upstream
    centred /= np.sqrt(variance + EPSILON)
    y = centred.reshape(x.shape)
    y *= weight[:, None, None]
    y += bias[:, None, None]
    return y


def silu(x: Array) -> Array:
    """x·sigmoid(x), element by element."""
    with np.errstate(over="ignore"):  # exp(-x) is inf far below zero, and x/inf the right zero
        return x / (1 + np.exp(-x))


def layer(weights: Weights, name: str) -> tuple[Array, Array]:
    """Weight and bias of a layer."""
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


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
