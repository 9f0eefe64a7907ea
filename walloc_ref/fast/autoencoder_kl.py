"""The image networks of `walloc_ref.stages.autoencoder_kl`, in blocks: same functions, same integers, bounded memory.

Convolutions unfold a band of rows at a time, so that BLAS does the work in one product; attention answers a block of
queries at a time, whose scores stay in cache. Bands and blocks are done side by side. A network whose attention ends in a
matrix of zeros needs no attention: what it adds is its last bias, exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from walloc_ref.fast.workers import for_each
from walloc_ref.stages.autoencoder_kl import (
    DECODER_BLOCKS,
    ENCODER_BLOCKS,
    EPSILON,
    GROUPS,
    Array,
    Weights,
    layer,
    linear,
)

COLUMN_ELEMENTS = 1 << 20
"""Elements of the unfolded columns of a convolution that are held at once, 8 MiB."""

QUERY_ROWS = 64
"""Queries that the attention answers at once: their scores stay in cache up to some thousand positions."""


def decode(z: Array, weights: Weights) -> Array:
    """Same as `stages.autoencoder_kl.decode`."""
    x = middle(conv3x3(z, *layer(weights, "conv_in")), weights)
    for i in range(DECODER_BLOCKS):
        x = residual(x, weights, f"up_blocks.0.resnets.{i}")
    return head(x, weights)


def encode(bands: Array, weights: Weights) -> Array:
    """Same as `stages.autoencoder_kl.encode`."""
    x = conv3x3(bands, *layer(weights, "conv_in"))
    for i in range(ENCODER_BLOCKS):
        x = residual(x, weights, f"down_blocks.0.resnets.{i}")
    return head(middle(x, weights), weights)


def middle(x: Array, weights: Weights) -> Array:
    """Same as `stages.autoencoder_kl.middle`."""
    x = residual(x, weights, "mid_block.resnets.0")
    x = attention(x, weights, "mid_block.attentions.0")
    return residual(x, weights, "mid_block.resnets.1")


def head(x: Array, weights: Weights) -> Array:
    """Same as `stages.autoencoder_kl.head`."""
    return conv3x3(silu(group_norm(x, *layer(weights, "conv_norm_out"))), *layer(weights, "conv_out"))


def residual(x: Array, weights: Weights, name: str) -> Array:
    """Same as `stages.autoencoder_kl.residual`."""
    y = conv3x3(silu(group_norm(x, *layer(weights, f"{name}.norm1"))), *layer(weights, f"{name}.conv1"))
    y = conv3x3(silu(group_norm(y, *layer(weights, f"{name}.norm2"))), *layer(weights, f"{name}.conv2"))
    y += x
    return y


def attention(x: Array, weights: Weights, name: str) -> Array:
    """Same as `stages.autoencoder_kl.attention`: the softmax of a query needs all keys but no other query."""
    out_weight, out_bias = layer(weights, f"{name}.to_out.0")
    if not out_weight.any():
        return x + out_bias[:, None, None]
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
    return x + linear(mixed, out_weight, out_bias).reshape(x.shape)


def conv3x3(x: Array, weight: Array, bias: Array) -> Array:
    """Same as `stages.autoencoder_kl.conv3x3`."""
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


def group_norm(x: Array, weight: Array, bias: Array) -> Array:
    """Same as `stages.autoencoder_kl.group_norm`, in as few arrays as possible."""
    grouped = x.reshape(GROUPS, -1)  # [32, N/32·h·w]
    centred = grouped - grouped.mean(axis=1, keepdims=True)
    variance = np.einsum("gi,gi->g", centred, centred)[:, None] / grouped.shape[1]
    centred /= np.sqrt(variance + EPSILON)
    y = centred.reshape(x.shape)
    y *= weight[:, None, None]
    y += bias[:, None, None]
    return y


def silu(x: Array) -> Array:
    """Same as `stages.autoencoder_kl.silu`, in place."""
    with np.errstate(over="ignore"):
        y = np.exp(-x)
    y += 1
    np.divide(x, y, out=x)
    return x
