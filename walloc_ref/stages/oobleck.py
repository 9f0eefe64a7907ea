"""The networks of the audio codec (SPEC.md section 11): the Oobleck decoder and encoder, and the 129-tap post filter.

Both networks are purely convolutional and normalise nothing, so that any piece of their output depends on a known,
short stretch of their input: DECODER_CONTEXT and ENCODER_CONTEXT. A file is therefore computed in pieces of CHUNK
positions, each a function of its own stretch alone; computing a whole file *is* computing its pieces, in any order, on
any number of threads.

Four surprises:

1. Every convolution has stride 1. A transposed convolution of 2 taps with padding 1 drops one position and an ordinary
   one adds one, so the encoder makes n + 2 latents of n positions and the decoder n positions of n + 2 latents.
2. Zeros surround the signal at the input of *every* layer, not only of the first: with biases, the layers would make
   something else of zeros. A window that reaches beyond an end of the file is therefore blanked there after each layer.
   (Snake maps 0 to 0, so it does not matter on which side of it.)
3. Weights are normalised over all dimensions but the first, also in a transposed convolution, whose first dimension
   is its *input* channels.
4. Snake's alpha and beta are stored as logarithms, and 1e-9 is added to beta before the division.

Source: `OobleckDecoder` and `OobleckEncoder` of diffusers, as `Codec1D` of the upstream model builds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import MalformedModel

Array = NDArray[np.float64]
Network = dict[str, Any]
"""Weights ready for use: nested dictionaries whose keys are the argument names of the layer functions."""

Snake = Callable[..., Array]
"""Has the signature of `snake`. Networks take the function as an argument, so that a kernel can stand in for it."""

DILATIONS = (1, 3, 9)
"""Dilations of the three residual units of a block."""

BLOCKS = 2
"""Blocks of a network: one for each stride that the upstream passes (two, both 1)."""

REACH = 3
"""Positions that a kernel of 7 taps reaches to each side, times its dilation."""

BETA_OFFSET = 1e-9
"""Added to Snake's beta before its reciprocal is taken."""

_BLOCK_REACH = BLOCKS * REACH * sum(DILATIONS)  # 78

DECODER_CONTEXT = (REACH + _BLOCK_REACH + REACH, REACH + _BLOCK_REACH + BLOCKS + REACH)
"""Output position t of the decoder depends on latents t - 84 … t + 86."""

ENCODER_CONTEXT = (REACH + _BLOCK_REACH + BLOCKS + 1, REACH + _BLOCK_REACH + 1)
"""Latent t of the encoder depends on input positions t - 84 … t + 82."""

POST_FILTER_TAPS = 129
"""Taps of the post filter."""

POST_REACH = POST_FILTER_TAPS // 2
"""Samples that the post filter reaches to each side."""

CHUNK = 1024
"""Output positions computed at a time; with 256 samples to a position six seconds at 44.1 kHz."""


def receptive_field(part: str) -> tuple[int, int]:
    """Input positions before and after position t that output position t of `part` depends on.

    Parameters
    ----------
    part : str
        "decoder" (t counts positions, the input counts latents with the border), "encoder" (the other way round) or
        "post" (samples).

    Returns
    -------
    (int, int)
        (left, right): the inputs t - left … t + right.
    """
    return {"decoder": DECODER_CONTEXT, "encoder": ENCODER_CONTEXT, "post": (POST_REACH, POST_REACH)}[part]


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
    """
    network: Network = {}
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
    """
    wide = _middle_width(latent_dim, width, "Nd")
    shapes = _conv_shapes("conv1", wide, latent_dim, 7)
    for number, outputs in enumerate((wide, latent_dim)):
        block = f"block.{number}."
        shapes |= _snake_shapes(block + "snake1", wide)
        shapes |= _conv_shapes(block + "conv_t1", wide, outputs, 2, bias=outputs)
        shapes |= _residual_shapes(block, outputs)
    shapes |= _snake_shapes("snake1", latent_dim)
    return shapes | _conv_shapes("conv2", bands, latent_dim, 7, bias=0)


def encoder_shapes(bands: int, width: int, latent_dim: int) -> dict[str, tuple[int, ...]]:
    """Names (without "encoder.0.") and shapes of the encoder's tensors; `width` is Ne, the rest as for the decoder."""
    wide = _middle_width(latent_dim, width, "Ne")
    shapes = _conv_shapes("conv1", latent_dim, bands, 7)
    for number, inputs in enumerate((latent_dim, wide)):
        block = f"block.{number}."
        shapes |= _residual_shapes(block, inputs)
        shapes |= _snake_shapes(block + "snake1", inputs)
        shapes |= _conv_shapes(block + "conv1", wide, inputs, 2)
    shapes |= _snake_shapes("snake1", wide)
    return shapes | _conv_shapes("conv2", latent_dim, wide, 3)


def _middle_width(latent_dim: int, width: int, field: str) -> int:
    """D·(width // D)."""
    if width < latent_dim:
        raise MalformedModel(f"config.{field}", width, f"at least latent_dim, {latent_dim}")
    return width // latent_dim * latent_dim


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


# ---- layers --------------------------------------------------------------------------------------------------------


def snake(x: Array, alpha: Array, gain: Array) -> Array:
    """Snake: x + sin²(alpha·x)·gain, gain = 1/(beta + 1e-9).

    Parameters
    ----------
    x : float64, shape (C, n)
    alpha, gain : float64, shape (C, 1)
    """
    return x + np.square(np.sin(alpha * x)) * gain  # [C, n]


def conv(x: Array, weight: Array, bias: Array | None = None, dilation: int = 1) -> Array:
    """Convolution without padding: out[t] = bias + sum over k of weight[:, :, k] x[t + k·dilation].

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
    """
    return weight[:, :, 0].T @ x[:, 1:] + weight[:, :, 1].T @ x[:, :-1] + bias[:, None]


def post_filter(x: Array, weight: Array, bias: Array) -> Array:
    """The post filter on samples that bring their context: (C, n + 128) -> (C, n).

    Parameters
    ----------
    x : float64, shape (C, n + 128)
        Samples, 64 more than wanted on each side; zeros beyond the ends of the padded file.
    weight : float64, shape (C, C, 129)
    bias : float64, shape (C,)
    """
    return conv(x, weight, bias)


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
    activate: Snake,
    *,
    snake1: Network,
    conv1: Network,
    snake2: Network,
    conv2: Network,
) -> Array:
    """x + conv2(snake2(conv1(snake1(x)))), conv1 of 7 dilated taps, conv2 of one."""  # [C, w] -> [C, w - 6·dilation]
    reach = REACH * dilation
    y = conv(activate(x, **snake1), **conv1, dilation=dilation)  # [C, w] -> [C, w - 2·reach]
    y = conv(activate(y, **snake2), **conv2)  # [C, w - 2·reach]
    y += x[:, reach:-reach]
    return _blank(y, first + reach, length)


def _residual_units(x: Array, first: int, length: int, block: Network, activate: Snake) -> tuple[Array, int]:
    """The three residual units of a block: [C, w] -> [C, w - 78] and the position of its first column."""
    for number, dilation in enumerate(DILATIONS, start=1):
        x = residual_unit(x, first, length, dilation, activate, **block[f"res_unit{number}"])
        first += REACH * dilation
    return x, first


def decoder_window(network: Network, z: Array, first: int, length: int, activate: Snake = snake) -> Array:
    """Decode the latents first … first + w - 1 of `length` to the positions first + 84 … first + w - 87.

    Parameters
    ----------
    network : dict
        `load(tensors, "decoder.1.")`.
    z : float64, shape (D, w)
        Latents after `quantise.to_normal`; columns outside 0 … length - 1 are zero.
    first : int
        Number of the first column; negative where the window begins before the file.
    length : int
        Latents in the file, border included: n + 2.
    activate : function
        `snake`, or its kernel.

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
        x = conv_transpose(activate(x, **block["snake1"]), **block["conv_t1"])  # [m·D, w'] -> [m·D or D, w' - 1]
        length -= 1
        _blank(x, first, length)
        x, first = _residual_units(x, first, length, block, activate)  # [.., w' - 79]
    return conv(activate(x, **network["snake1"]), **network["conv2"])  # [D, w'] -> [C·2^J, w' - 6]


def encoder_window(network: Network, bands: Array, first: int, length: int, activate: Snake = snake) -> Array:
    """Encode the positions first … first + w - 1 of `length` to the latents first + 84 … first + w - 83.

    Parameters
    ----------
    network : dict
        `load(tensors, "encoder.0.")`.
    bands : float64, shape (C·2^J, w)
        WPT coefficients; columns outside 0 … length - 1 are zero.
    first : int
        Number of the first column; negative where the window begins before the file.
    length : int
        Positions in the file: n.
    activate : function
        `snake`, or its kernel.

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
        x, first = _residual_units(x, first, length, block, activate)  # [D or m·D, w' - 78]
        x = conv(activate(x, **block["snake1"]), **block["conv1"])  # 2 taps, padding 1 -> [m·D, w' - 79]
        first, length = first + 1, length + 1  # latent t comes of positions t - 1 and t
        _blank(x, first, length)
    return conv(activate(x, **network["snake1"]), **network["conv2"])  # 3 taps: [m·D, w'] -> [D, w' - 2]


# ---- networks on files ---------------------------------------------------------------------------------------------


def window(x: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
    """Columns start … stop - 1 of `x` with zeros where there are none: (C, n) -> (C, stop - start)."""
    out = np.zeros((x.shape[0], stop - start), dtype=x.dtype)
    low, high = max(0, start), min(x.shape[1], stop)
    if low < high:
        out[:, low - start : high - start] = x[:, low:high]
    return out


def decode_part(network: Network, z: Array, start: int, stop: int, activate: Snake = snake) -> Array:
    """Positions start … stop - 1 of what the latents z decode to: (D, n + 2) -> (C·2^J, stop - start)."""
    left, right = DECODER_CONTEXT
    return decoder_window(network, window(z, start - left, stop + right), start - left, z.shape[1], activate)


def encode_part(network: Network, bands: Array, start: int, stop: int, activate: Snake = snake) -> Array:
    """Latents start … stop - 1 of what the bands encode to: (C·2^J, n) -> (D, stop - start)."""
    left, right = ENCODER_CONTEXT
    return encoder_window(network, window(bands, start - left, stop + right), start - left, bands.shape[1], activate)


def decode_chunks(network: Network, z: Array, chunk: int = CHUNK) -> Iterator[Array]:
    """Bands in pieces of `chunk` positions, the last one shorter; memory does not grow with the length of `z`."""
    positions = z.shape[1] - BLOCKS
    for start in range(0, positions, chunk):
        yield decode_part(network, z, start, min(start + chunk, positions))  # [C·2^J, chunk]


def decode(network: Network, z: Array) -> Array:
    """OobleckDecoder: (D, n + 2) -> (C·2^J, n)."""
    return np.concatenate(list(decode_chunks(network, z)), axis=1)


def encode_chunks(network: Network, bands: Array, chunk: int = CHUNK) -> Iterator[Array]:
    """Latents in pieces of `chunk`, the last one shorter; memory does not grow with the length of `bands`."""
    latents = bands.shape[1] + BLOCKS
    for start in range(0, latents, chunk):
        yield encode_part(network, bands, start, min(start + chunk, latents))  # [D, chunk]


def encode(network: Network, bands: Array) -> Array:
    """OobleckEncoder: (C·2^J, n) -> (D, n + 2)."""
    return np.concatenate(list(encode_chunks(network, bands)), axis=1)
