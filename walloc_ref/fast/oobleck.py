"""The audio networks of `walloc_ref.stages.oobleck` on windows, and kernels of Snake and the post filter.

Convolutions normalise nothing, so any piece of a network's output depends on a known, short stretch of its input:
`DECODER_CONTEXT` and `ENCODER_CONTEXT`. A window brings its context along, and no layer pads. Zeros beyond the ends of the
file must be there at the input of *every* layer: a window that reaches beyond an end is blanked there after each.

Convolutions of many channels are BLAS's business already. What is left is Snake, two or three sines a sample, and the
post filter, whose matrices are too small for BLAS. Both differ from the definition by a few units in the last place:
`snake` through its own sine, `post_filter` through the order of its sums.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.fast import jit
from walloc_ref.stages.oobleck import BLOCKS, DILATIONS, REACH, Array, Network, conv_transpose

_BLOCK_REACH = BLOCKS * REACH * sum(DILATIONS)  # 78

DECODER_CONTEXT = (REACH + _BLOCK_REACH + REACH, REACH + _BLOCK_REACH + BLOCKS + REACH)
"""Output position t of the decoder depends on latents t - 84 … t + 86 (SPEC.md 11.15)."""

ENCODER_CONTEXT = (REACH + _BLOCK_REACH + BLOCKS + 1, REACH + _BLOCK_REACH + 1)
"""Latent t of the encoder depends on input positions t - 84 … t + 82."""

PI_1 = 3.1415926534682512
"""The first 33 bits of pi, so that its product with an integer below 2^20 is exact."""

PI_2 = 1.2154201012607932e-10
"""The next bits of pi, likewise 33 of them."""

PI_3 = 4.044532497591901e-21
"""The rest of pi in binary64."""

INVERSE_PI = 1 / math.pi

MAX_ARGUMENT = 1e6
"""Arguments beyond this are left to the library's sine: further periods would not be subtracted exactly."""

S3, S5, S7, S9, S11, S13, S15, S17, S19, S21 = ((-1.0) ** ((n - 1) // 2) / math.factorial(n) for n in range(3, 22, 2))
"""Taylor coefficients of the sine; at pi/2 the first one left out is 6e-19 of the result."""

TILE = 512
"""Samples that the post filter keeps in cache."""

UNROLL = 8
"""Taps of the post filter between a load and a store; 129 = 16·8 + 1."""


# ---- kernels -------------------------------------------------------------------------------------------------------


def snake(x: NDArray[np.float64], alpha: NDArray[np.float64], gain: NDArray[np.float64]) -> NDArray[np.float64]:
    """Same as `walloc_ref.stages.oobleck.snake`."""
    out = np.empty_like(x, order="C")
    _snake(x, alpha[:, 0], gain[:, 0], out)
    return out


@jit
def _snake(x, alpha, gain, out):
    """x [C, n], alpha [C], gain [C] -> out [C, n]; the period of sin² is pi."""
    for c in range(x.shape[0]):
        a, g = alpha[c], gain[c]
        large = 0
        for i in range(x.shape[1]):
            v = x[c, i]
            y = a * v
            large += not abs(y) < MAX_ARGUMENT
            k = np.rint(y * INVERSE_PI)
            r = ((y - k * PI_1) - k * PI_2) - k * PI_3
            q = r * r
            s = S17 + q * (S19 + q * S21)
            s = S11 + q * (S13 + q * (S15 + q * s))
            s = S5 + q * (S7 + q * (S9 + q * s))
            s = r + r * q * (S3 + q * s)
            out[c, i] = v + s * s * g
        if large:
            for i in range(x.shape[1]):
                s = np.sin(a * x[c, i])
                out[c, i] = x[c, i] + s * s * g


def post_filter(x: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """The post filter on samples that bring their context: (C, n + 128), (C, C, 129), (C,) to (C, n)."""
    out = np.empty((weight.shape[0], x.shape[1] - weight.shape[2] + 1))
    _post_filter(np.ascontiguousarray(x), np.ascontiguousarray(weight), bias, out)
    return out


@jit
def _post_filter(x, weight, bias, out):
    """x [C, n + 128], weight [C, C, 129], bias [C] -> out [C, n]."""
    channels, n = out.shape
    taps = weight.shape[2]
    whole = taps - taps % UNROLL
    for start in range(0, n, TILE):
        width = min(TILE, n - start)
        for c in range(channels):
            y = out[c, start : start + width]
            y[:] = bias[c]
            for source in range(channels):
                w = weight[c, source]
                for k in range(0, whole, UNROLL):
                    s = x[source, start + k : start + k + width + UNROLL]
                    w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
                    w4, w5, w6, w7 = w[k + 4], w[k + 5], w[k + 6], w[k + 7]
                    for i in range(width):
                        v = (w0 * s[i] + w1 * s[i + 1]) + (w2 * s[i + 2] + w3 * s[i + 3])
                        v += (w4 * s[i + 4] + w5 * s[i + 5]) + (w6 * s[i + 6] + w7 * s[i + 7])
                        y[i] += v
                for k in range(whole, taps):
                    s = x[source, start + k : start + k + width]
                    for i in range(width):
                        y[i] += w[k] * s[i]


def conv(x: Array, weight: Array, bias: Array | None = None, dilation: int = 1) -> Array:
    """Convolution of a window that brings its context: out[t] = bias + sum over k of weight[:, :, k] x[t + k·dilation].

    Parameters
    ----------
    x : float64, shape (Cin, n)
    weight : float64, shape (Cout, Cin, K)
    bias : float64, shape (Cout,), or None
    dilation : int

    Returns
    -------
    float64, shape (Cout, n - (K - 1)·dilation)
    """
    taps = weight.shape[2]
    n = x.shape[1] - (taps - 1) * dilation
    out = weight[:, :, 0] @ x[:, :n]  # [Cout, Cin], [Cin, n] -> [Cout, n]
    for k in range(1, taps):
        out += weight[:, :, k] @ x[:, k * dilation : k * dilation + n]
    if bias is not None:
        out += bias[:, None]
    return out


def window(x: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
    """Columns start … stop - 1 of `x` with zeros where there are none: (C, n) -> (C, stop - start)."""
    out = np.zeros((x.shape[0], stop - start), dtype=x.dtype)
    low, high = max(0, start), min(x.shape[1], stop)
    if low < high:
        out[:, low - start : high - start] = x[:, low:high]
    return out


# ---- networks on windows -------------------------------------------------------------------------------------------
# A window is an array of columns and the position of its first column in the file; every function shortens it by its
# reach, and `length` is the number of positions that exist, outside which a window must be zero.


def _blank(x: Array, first: int, length: int) -> Array:
    """Set the columns outside positions 0 … length - 1 to zero, in place."""
    x[:, : max(0, -first)] = 0.0
    x[:, max(0, length - first) :] = 0.0
    return x


def residual_unit(
    x: Array,
    first: int,
    length: int,
    dilation: int,
    *,
    snake1: Network,
    conv1: Network,
    snake2: Network,
    conv2: Network,
) -> Array:
    """x + conv2(snake2(conv1(snake1(x)))), conv1 of 7 dilated taps, conv2 of one."""  # [C, w] -> [C, w - 6·dilation]
    reach = REACH * dilation
    y = conv(snake(x, **snake1), **conv1, dilation=dilation)  # [C, w] -> [C, w - 2·reach]
    y = conv(snake(y, **snake2), **conv2)  # [C, w - 2·reach]
    y += x[:, reach:-reach]
    return _blank(y, first + reach, length)


def _residual_units(x: Array, first: int, length: int, block: Network) -> tuple[Array, int]:
    """The three residual units of a block: [C, w] -> [C, w - 78] and the position of its first column."""
    for number, dilation in enumerate(DILATIONS, start=1):
        x = residual_unit(x, first, length, dilation, **block[f"res_unit{number}"])
        first += REACH * dilation
    return x, first


def decoder_window(network: Network, z: Array, first: int, length: int) -> Array:
    """Decode the latents first … first + w - 1 of `length` to the positions first + 84 … first + w - 87.

    Parameters
    ----------
    network : dict
        `stages.oobleck.load(tensors, "decoder.1.")`.
    z : float64, shape (D, w)
        Latents after `quantise.to_normal`; columns outside 0 … length - 1 are zero.
    first : int
        Number of the first column; negative where the window begins before the file.
    length : int
        Latents in the file, border included: n + 2.

    Returns
    -------
    float64, shape (C·2^J, w - 170)
        Bands. Positions outside 0 … length - 3 hold no meaning.
    """
    x = conv(z, **network["conv1"])  # [D, w] -> [m·D, w - 6]
    first += REACH
    _blank(x, first, length)
    for number in range(BLOCKS):
        block = network["block"][str(number)]
        x = conv_transpose(snake(x, **block["snake1"]), **block["conv_t1"])  # [m·D, w'] -> [m·D or D, w' - 1]
        length -= 1
        _blank(x, first, length)
        x, first = _residual_units(x, first, length, block)  # [.., w' - 79]
    return conv(snake(x, **network["snake1"]), **network["conv2"])  # [D, w'] -> [C·2^J, w' - 6]


def encoder_window(network: Network, bands: Array, first: int, length: int) -> Array:
    """Encode the positions first … first + w - 1 of `length` to the latents first + 84 … first + w - 83.

    Parameters
    ----------
    network : dict
        `stages.oobleck.load(tensors, "encoder.0.")`.
    bands : float64, shape (C·2^J, w)
        WPT coefficients; columns outside 0 … length - 1 are zero.
    first : int
        Number of the first column; negative where the window begins before the file.
    length : int
        Positions in the file: n.

    Returns
    -------
    float64, shape (D, w - 166)
        Latents before `quantise`. Latents outside 0 … length + 1 hold no meaning.
    """
    x = conv(bands, **network["conv1"])  # [C·2^J, w] -> [D, w - 6]
    first += REACH
    _blank(x, first, length)
    for number in range(BLOCKS):
        block = network["block"][str(number)]
        x, first = _residual_units(x, first, length, block)  # [D or m·D, w' - 78]
        x = conv(snake(x, **block["snake1"]), **block["conv1"])  # 2 taps, padding 1 -> [m·D, w' - 79]
        first, length = first + 1, length + 1  # latent t comes of positions t - 1 and t
        _blank(x, first, length)
    return conv(snake(x, **network["snake1"]), **network["conv2"])  # 3 taps: [m·D, w'] -> [D, w' - 2]


def decode(z: Array, network: Network) -> Array:
    """Same as `stages.oobleck.decode`."""
    left, right = DECODER_CONTEXT
    n = z.shape[1] - BLOCKS
    return decoder_window(network, window(z, -left, n + right), -left, z.shape[1])


def encode(bands: Array, network: Network) -> Array:
    """Same as `stages.oobleck.encode`."""
    left, right = ENCODER_CONTEXT
    n = bands.shape[1]
    return encoder_window(network, window(bands, -left, n + BLOCKS + right), -left, n)
