"""Small networks that predict symbols, trained on their code length: a group of planes side by side, in NumPy alone.

Each plane has a network of one hidden layer, sums -> ReLU -> corrections of mean and scale, beside a linear scale. The code
length is that of a mixture of three logistic distributions around the mean, whose widths are multiples of the scale; what
the coder adapts while it codes replaces that mixture later. Gradients are written out; Adam with a cosine and a limit of
each plane's gradient takes the steps.

Source: Kingma and Ba 2015 (Adam); Salimans, Karpathy, Chen and Kingma 2017 (mixtures of logistics for symbols).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

BATCH = 1024
"""Samples of a step."""

RATE, BETAS = 5e-3, (0.9, 0.99)
"""Learning rate and memories of Adam."""

WARM_UP = 100
"""Steps over which the rate rises."""

SCALE_MIN = 0.05
"""Below this scale, in symbols, the scale falls exponentially instead of linearly, so that it stays positive."""

WIDTH_MIN, PROBABILITY_MIN = 0.02, 1e-6
"""Smallest width of a logistic distribution, in symbols, and what is added to probabilities."""

WIDTHS = (-1.2, -0.4, 0.4)
"""First logarithms of the widths of the mixture, over the scale."""

Array = NDArray[np.float32]
Parameters = dict[str, Array]


def initial(size: int, hidden: int, scales: Array, rng: np.random.Generator) -> Parameters:
    """Parameters of a group.

    Parameters
    ----------
    size, hidden : int
        Inputs and hidden units of a network.
    scales : float32, shape (group, size)
        First weights of the linear scale.

    Returns
    -------
    dict
        w (group, size, hidden), b (group, 1, hidden), o (group, hidden, 2): the network; s (group, size), s0 (group, 1):
        the linear scale; width, share (group, 1, 3): the mixture. All float32.
    """
    group = len(scales)

    def uniform(*shape: int) -> Array:
        return rng.random(shape, np.float32) - np.float32(0.5)

    return {
        "w": uniform(group, size, hidden) / np.float32(size**0.5),
        "b": np.zeros((group, 1, hidden), np.float32),
        "o": uniform(group, hidden, 2) * np.float32(0.6 / max(hidden, 1) ** 0.5),
        "s": scales.copy(),
        "s0": np.full((group, 1), 0.05, np.float32),
        "width": np.tile(np.array(WIDTHS, np.float32), (group, 1, 1)),
        "share": np.zeros((group, 1, 3), np.float32),
    }


def bits(p: Mapping[str, Array], x: Array, mean: Array, target: Array) -> tuple[Array, Parameters]:
    """Mean code length of each plane, and its gradient.

    Parameters
    ----------
    p : mapping
        As `initial` returns them.
    x : float32, shape (group, n, size)
    mean, target : float32, shape (group, n)
        Linear mean and symbol.

    Returns
    -------
    float32, shape (group,), bits a symbol
    dict
        Gradient of their sum, shaped as the parameters.
    """
    n = x.shape[1]
    sums = x @ p["w"] + p["b"]  # [g, n, hidden]
    hidden = np.maximum(sums, 0)
    correction = hidden @ p["o"]  # [g, n, 2]
    raw = (x @ p["s"][:, :, None])[:, :, 0] + p["s0"] + correction[:, :, 1]  # [g, n]
    low = np.exp(np.clip(raw / SCALE_MIN - 1, -4, 0))
    linear = raw > SCALE_MIN
    scale = np.where(linear, raw, SCALE_MIN * low)
    factor = np.exp(p["width"])  # [g, 1, 3]
    width = scale[:, :, None] * factor + np.float32(WIDTH_MIN)  # [g, n, 3]
    off = (target - mean - correction[:, :, 0])[:, :, None]
    above, below = (off + np.float32(0.5)) / width, (off - np.float32(0.5)) / width
    upper, lower = _sigmoid(above), _sigmoid(below)
    share = np.exp(p["share"])
    share /= share.sum(2, keepdims=True)
    each = upper - lower  # [g, n, 3]
    total = (each * share).sum(2) + np.float32(PROBABILITY_MIN)  # [g, n]
    length = -np.log2(total).mean(1)

    d_total = (-1 / (math.log(2) * n)) / total  # [g, n]
    d_share = (d_total[:, :, None] * each).sum(1, keepdims=True)  # [g, 1, 3]
    d_each = d_total[:, :, None] * share
    d_above = d_each * upper * (1 - upper)
    d_below = d_each * lower * (1 - lower)
    d_off = ((d_above - d_below) / width).sum(2)  # [g, n]
    d_width = (d_below * below - d_above * above) / width  # [g, n, 3]
    d_raw = (d_width * factor).sum(2) * np.where(linear, np.float32(1), low * (raw > -3 * SCALE_MIN))
    d_correction = np.stack([-d_off, d_raw], 2)  # [g, n, 2]
    d_sums = (d_correction @ p["o"].transpose(0, 2, 1)) * (sums > 0)
    back = x.transpose(0, 2, 1)  # [g, size, n]
    return length, {
        "w": back @ d_sums,
        "b": d_sums.sum(1, keepdims=True),
        "o": hidden.transpose(0, 2, 1) @ d_correction,
        "s": (back @ d_raw[:, :, None])[:, :, 0],
        "s0": d_raw.sum(1, keepdims=True),
        "width": (d_width * scale[:, :, None]).sum(1, keepdims=True) * factor,
        "share": share * (d_share - (share * d_share).sum(2, keepdims=True)),
    }


def train(p: Parameters, x: Array, mean: Array, target: Array, steps: int, rng: np.random.Generator) -> float:
    """Train the parameters of a group, in place; returns the mean code length of the last steps.

    Parameters as in `bits`, n all samples.
    """
    first = {name: np.zeros_like(value) for name, value in p.items()}
    second = {name: np.zeros_like(value) for name, value in p.items()}
    recent: list[float] = []
    for step in range(steps):
        rate = RATE * min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-6
        i = rng.integers(0, x.shape[1], BATCH)
        length, gradient = bits(p, x[:, i], mean[:, i], target[:, i])
        for name, g in gradient.items():
            axes = tuple(range(1, g.ndim))
            norm = np.sqrt(np.square(g).sum(axes, keepdims=True))
            g *= np.minimum(1 / np.maximum(norm, 1e-9), 1)  # each plane's gradient by itself
            first[name] += (1 - BETAS[0]) * (g - first[name])
            second[name] += (1 - BETAS[1]) * (np.square(g) - second[name])
            unbiased = np.sqrt(second[name] / (1 - BETAS[1] ** (step + 1))) + 1e-8
            p[name] -= (rate / (1 - BETAS[0] ** (step + 1)) * (first[name] / unbiased)).astype(np.float32)
        recent = [*recent[-200:], float(length.mean())]
    return float(np.mean(recent)) if recent else math.nan


def _sigmoid(x: Array) -> Array:
    """1/(1 + e^-x), without overflow."""
    return np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * x))
