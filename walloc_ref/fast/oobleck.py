"""The audio networks of `walloc_ref.stages.oobleck` on windows, and kernels of Snake and the post filter.

Convolutions normalise nothing, so any piece of a network's output depends on a known, short stretch of its input:
`DECODER_CONTEXT` and `ENCODER_CONTEXT`. A window brings its context along, and no layer pads. Zeros beyond the ends of the
file must be there at the input of *every* layer: a window that reaches beyond an end is blanked there after each.

Inside, channels lie innermost, (n, C), filled up with zeros to whole halves of panels: a tap of a convolution is a matrix
product of positions that stand `dilation` rows further down, so all taps are summed in registers and nothing is unfolded.
The kernel of Snake has its own sine; the post filter, which has few channels, takes samples side by side for channels. All
differ from the definition by the order of their sums and a few units in the last place. Snake is computed in binary64 also
where the rest is in binary32: its argument may be large.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.fast import bare, contracted
from walloc_ref.fast.autoencoder_kl import transpose
from walloc_ref.fast.lanes import BLOCK_ROWS, multiply, multiply_half, panel, panel_of, tile_rows
from walloc_ref.stages.oobleck import BLOCKS, DILATIONS, REACH, Array, Network

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

STRETCH = 16
"""Samples of a channel that the post filter computes at once."""

STRETCHES = 100 * BLOCK_ROWS
"""So many of them follow each other in one product."""


# ---- kernels -------------------------------------------------------------------------------------------------------


@bare
def _snake(x, channels, alpha, gain, out):
    """x + sin²(alpha·x)·gain, all arrays flat: x, out [n, stride], alpha, gain [C]; the period of sin² is pi."""
    stride = alpha.size
    for start in range(0, x.size, stride):
        source, target = x[start : start + stride], out[start : start + stride]
        large = 0
        for c in range(channels):
            large += not abs(alpha[c] * source[c]) < MAX_ARGUMENT
        if large:
            for c in range(channels):
                s = np.sin(alpha[c] * source[c])
                target[c] = source[c] + s * s * gain[c]
            continue
        for c in range(channels):
            v = np.float64(source[c])
            y = alpha[c] * v
            k = np.rint(y * INVERSE_PI)
            r = ((y - k * PI_1) - k * PI_2) - k * PI_3
            q = r * r
            s = S17 + q * (S19 + q * S21)
            s = S11 + q * (S13 + q * (S15 + q * s))
            s = S5 + q * (S7 + q * (S9 + q * s))
            s = r + r * q * (S3 + q * s)
            target[c] = v + s * s * gain[c]


@contracted
def _conv(x, stride, depth, taps, dilation, kernel, bias, rows, out):
    """out[t] = bias + sum over k of x[t + k·dilation]·W_k, all arrays flat.

    x [rows + (taps - 1)·dilation, stride], of which `depth` channels count, kernel as `_panels` makes it, bias [N]
    -> out [rows, N]; rows are a multiple of `BLOCK_ROWS`, N of half a panel.
    """
    outputs, columns, together = bias.size, panel_of(x), tile_rows(x)
    whole = outputs // columns * columns
    for j in range(0, whole, columns):
        for t in range(0, rows, together):
            multiply(
                x, t * stride, stride, taps, dilation * stride, depth,
                kernel, j * taps * depth, columns, out, t * outputs + j, outputs, False,
            )  # fmt: skip
    if whole < outputs:
        for t in range(0, rows, BLOCK_ROWS):
            multiply_half(
                x, t * stride, stride, taps, dilation * stride, depth,
                kernel, whole * taps * depth, columns // 2, out, t * outputs + whole, outputs, False,
            )  # fmt: skip
    for t in range(rows):
        line = out[t * outputs : (t + 1) * outputs]
        for c in range(outputs):
            line[c] += bias[c]


def _filled(channels: int, itemsize: int) -> int:
    """The next multiple of half a panel."""
    half = panel(itemsize) // 2
    return -(-channels // half) * half


def _panels(taps: NDArray[Any]) -> NDArray[Any]:
    """Matrices [taps, K, N] so that what `_conv` reads one after the other stands so: [panels, taps, K, panel], flat.

    The last panel is half as wide where N is an odd number of halves.
    """
    columns = panel(taps.itemsize)
    return np.concatenate([taps[:, :, j : j + columns].reshape(-1) for j in range(0, taps.shape[2], columns)])


def post_filter(x: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """The post filter on samples that bring their context: (C, n + 128), (C, C, 129), (C,) to (C, n).

    `STRETCH` samples of all channels come of one row of a matrix product, whose other side holds the taps once for each of
    them, a row further down: a ninth of it is zeros, but sums stay in registers. `STRETCHES` rows at a time stay in cache.
    """
    channels, _, taps = weight.shape
    n, depth = x.shape[1] - taps + 1, taps - 1 + STRETCH
    filled = _filled(channels * STRETCH, 8)
    shifted, biases = np.zeros((channels, depth, filled)), np.zeros(filled)  # [C in, samples, C out by STRETCH]
    biases[: channels * STRETCH] = np.repeat(bias, STRETCH)
    for c in range(channels):
        for i in range(STRETCH):
            shifted[:, i : i + taps, c * STRETCH + i] = weight[c]
    kernel = _panels(shifted)
    rows = min(STRETCHES, -(-n // (STRETCH * BLOCK_ROWS)) * BLOCK_ROWS)
    length = -(-(rows * STRETCH + taps) // STRETCH)  # of a channel, in stretches
    source, out = np.zeros((channels, length * STRETCH)), np.empty((rows, filled))
    flat, answer = (source.reshape(-1), out.reshape(-1)), np.empty((channels, n))
    for start in range(0, n, rows * STRETCH):
        part = x[:, start : start + length * STRETCH]
        source[:, : part.shape[1]], source[:, part.shape[1] :] = part, 0
        _conv(flat[0], STRETCH, depth, channels, length, kernel, biases, rows, flat[1])
        found = out[:, : channels * STRETCH].reshape(rows, channels, STRETCH).transpose(1, 0, 2)
        count = min(rows * STRETCH, n - start)
        answer[:, start : start + count] = found.reshape(channels, -1)[:, :count]
    return answer


def window(x: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
    """Columns start … stop - 1 of `x` with zeros where there are none: (C, n) -> (C, stop - start)."""
    out = np.zeros((x.shape[0], stop - start), dtype=x.dtype)
    low, high = max(0, start), min(x.shape[1], stop)
    if low < high:
        out[:, low - start : high - start] = x[:, low:high]
    return out


# ---- networks on windows -------------------------------------------------------------------------------------------
# A window is an array of positions and the position of its first row in the file; every function shortens it by its reach,
# and `length` is the number of positions that exist, outside which a window must be zero.


class _Window:
    """Positions `first` … of a file of `length` positions: values (rows + room, stride), of which `channels` count.

    The room after the rows is what products of whole tiles read beyond the last row; like the channels beyond those that
    count, it holds anything, and what comes of it is not kept.
    """

    def __init__(self, rows: int, channels: int, first: int, length: int, number: np.dtype) -> None:
        self.rows, self.channels, self.first, self.length = rows, channels, first, length
        self.stride = _filled(channels, number.itemsize)
        self.values: NDArray[Any] = np.empty((rows + BLOCK_ROWS, self.stride), number)

    def like(self) -> _Window:
        """Another of the same shape and place."""
        return _Window(self.rows, self.channels, self.first, self.length, self.values.dtype)

    def blank(self) -> _Window:
        """Zeros where there are no positions."""
        self.values[: max(0, min(self.rows, -self.first))] = 0
        self.values[max(0, self.length - self.first) :] = 0
        return self


class _Layers:
    """The layers of a network on windows; weights, arranged for the kernels when first needed, are kept with it."""

    def __init__(self, network: Network, number: type) -> None:
        self.network, self.number = network, np.dtype(number)
        self.arranged: dict[Any, Any] = getattr(network, "arranged", {})

    def conv(self, x: _Window, layer: Network, name: str, *, dilation: int = 1, transposed: bool = False) -> _Window:
        """A convolution without padding, or the transposed one of two taps: out[t] = W1ᵀ·x[t] + W0ᵀ·x[t + 1]."""
        key = (name, self.number)
        if key not in self.arranged:
            self.arranged[key] = self._kernel(layer, transposed)
        kernel, bias, taps, depth, outputs = self.arranged[key]
        rows = x.rows - (taps - 1) * dilation
        out = _Window(rows, outputs, x.first, x.length, self.number)
        filled = -(-rows // BLOCK_ROWS) * BLOCK_ROWS
        _conv(x.values.reshape(-1), x.stride, depth, taps, dilation, kernel, bias, filled, out.values.reshape(-1))
        return out

    def _kernel(self, layer: Network, transposed: bool) -> tuple[NDArray[Any], NDArray[Any], int, int, int]:
        """Weights as `_panels` makes them, bias [N] filled up with zeros; taps, K and outputs."""
        weight = layer["weight"]  # [N, K, taps]
        if transposed:
            weight = weight.transpose(1, 0, 2)[:, :, ::-1]
        outputs, depth, taps = weight.shape
        filled = _filled(outputs, self.number.itemsize)
        kernel, bias = np.zeros((taps, depth, filled), self.number), np.zeros(filled, self.number)
        kernel[:, :, :outputs] = weight.transpose(2, 1, 0)
        bias[:outputs] = layer.get("bias", 0)
        return _panels(kernel), bias, taps, depth, outputs

    def snake(self, x: _Window, layer: Network) -> _Window:
        """Snake."""
        out = x.like()
        alpha, gain = np.zeros(x.stride), np.zeros(x.stride)
        alpha[: x.channels], gain[: x.channels] = layer["alpha"][:, 0], layer["gain"][:, 0]
        size = x.rows * x.stride
        _snake(x.values.reshape(-1)[:size], x.channels, alpha, gain, out.values.reshape(-1)[:size])
        return out

    def residual_units(self, x: _Window, number: int) -> _Window:
        """The three residual units of a block: x + conv2(snake2(conv1(snake1(x)))), 78 positions shorter."""
        block = self.network["block"][str(number)]
        for index, dilation in enumerate(DILATIONS, start=1):
            unit, name = block[f"res_unit{index}"], f"block.{number}.res_unit{index}"
            y = self.conv(self.snake(x, unit["snake1"]), unit["conv1"], f"{name}.conv1", dilation=dilation)
            y = self.conv(self.snake(y, unit["snake2"]), unit["conv2"], f"{name}.conv2")
            reach = REACH * dilation
            y.values[: y.rows] += x.values[reach : reach + y.rows]
            y.first = x.first + reach
            x = y.blank()
        return x

    def head(self, x: _Window) -> Array:
        """Snake and the last convolution, channels first again."""
        y = self.conv(self.snake(x, self.network["snake1"]), self.network["conv2"], "conv2")
        out = np.empty((y.channels, y.rows))
        transpose(y.values, 0, y.rows, out)
        return out

    def enter(self, x: Array, first: int, length: int) -> _Window:
        """A window (C, n) and the first convolution."""
        window = _Window(x.shape[1], x.shape[0], first, length, self.number)
        window.values[: window.rows, : window.channels] = x.T
        y = self.conv(window, self.network["conv1"], "conv1")
        y.first += REACH
        return y.blank()


def decoder_window(network: Network, z: Array, first: int, length: int, number: type = np.float64) -> Array:
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
    number : type
        Of the numbers that are computed with.

    Returns
    -------
    float64, shape (C·2^J, w - 170)
        Bands. Positions outside 0 … length - 3 hold no meaning.
    """
    layers = _Layers(network, number)
    x = layers.enter(z, first, length)  # [D, w] -> [m·D, w - 6]
    for i in range(BLOCKS):
        block = network["block"][str(i)]
        x = layers.conv(layers.snake(x, block["snake1"]), block["conv_t1"], f"block.{i}.conv_t1", transposed=True)
        x.length -= 1
        x = layers.residual_units(x.blank(), i)  # [m·D, w'] -> [m·D or D, w' - 79]
    return layers.head(x)  # [D, w'] -> [C·2^J, w' - 6]


def encoder_window(network: Network, bands: Array, first: int, length: int, number: type = np.float64) -> Array:
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
    number : type
        Of the numbers that are computed with.

    Returns
    -------
    float64, shape (D, w - 166)
        Latents before `quantise`. Latents outside 0 … length + 1 hold no meaning.
    """
    layers = _Layers(network, number)
    x = layers.enter(bands, first, length)  # [C·2^J, w] -> [D, w - 6]
    for i in range(BLOCKS):
        block = network["block"][str(i)]
        x = layers.residual_units(x, i)  # [D or m·D, w' - 78]
        x = layers.conv(layers.snake(x, block["snake1"]), block["conv1"], f"block.{i}.conv1")  # 2 taps: w' - 79
        x.first, x.length = x.first + 1, x.length + 1  # latent t comes of positions t - 1 and t
        x.blank()
    return layers.head(x)  # 3 taps: [m·D, w'] -> [D, w' - 2]


def decode(z: Array, network: Network, number: type = np.float64) -> Array:
    """Same as `stages.oobleck.decode`, in numbers of a type."""
    left, right = DECODER_CONTEXT
    n = z.shape[1] - BLOCKS
    return decoder_window(network, window(z, -left, n + right), -left, z.shape[1], number)


def encode(bands: Array, network: Network, number: type = np.float64) -> Array:
    """Same as `stages.oobleck.encode`, in numbers of a type."""
    left, right = ENCODER_CONTEXT
    n = bands.shape[1]
    return encoder_window(network, window(bands, -left, n + BLOCKS + right), -left, n, number)
