"""Kernels of the audio networks: `snake` and `post_filter` as in `walloc_ref.stages.oobleck`.

Convolutions of many channels are BLAS's business already. What is left is Snake, two or three sines a sample, and the
post filter, whose matrices are too small for BLAS. Both differ from the definition by a few units in the last place:
`snake` through its own sine, `post_filter` through the order of its sums.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from walloc_ref.fast import jit

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
    """Same as `walloc_ref.stages.oobleck.post_filter`."""
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
