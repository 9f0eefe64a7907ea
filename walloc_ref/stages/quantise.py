"""The companding quantiser (SPEC.md section 6): latents to symbols and back.

A latent y is companded by the normal distribution function, v = 2·M·(Φ(y/s) - 1/2), and rounded to the symbol k, ties to
even. The inverse is a table over the symbols, y = s·Φ⁻¹(k/(2·M) + 1/2).

Latents are divided by a *step* before and multiplied by it after (6.7, 6.8): 1 is the model's own, larger is coarser. With
step weights, planes that the eye watches get finer steps than the others. Two surprises:

1. M ends in "- 0.001", so that no latent, however large, rounds beyond the last symbol 2^(b-1) - 1.
2. The argument of Φ⁻¹ is clamped to [0.0001, 0.9999]. Within the range of symbols that never acts: the outermost
   k/(2·M) + 1/2 is 0.834 at 2 bits and 0.998 at 8. It would act on -2^(b-1), which the upstream's `to_bytes` admits,
   but which no encoder produces and this format excludes.

Source: `ToUniform`, `Round` and `ToNormal` of the upstream model.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples

BITS = range(2, 9)
"""Bits of a symbol that the format knows (`latent_bits`)."""

SCALE_DIVISOR = 1.85
"""The companding scale is the last symbol over this (upstream: the latents are to have about this spread)."""

GUARD = 1e-3
"""How far the companding range ends before the tie above the last symbol (upstream: "- 1e-3")."""

UNIT_WEIGHT = 128
"""The step weight of a plane whose step is the stream's."""

PROBABILITY_MIN, PROBABILITY_MAX = 0.0001, 0.9999
"""Clamp of the argument of Φ⁻¹ (upstream: Hardtanh in `ToNormal`)."""


def last_symbol(bits: int) -> int:
    """The largest symbol, 2^(b-1) - 1; the smallest is its negative.

    >>> last_symbol(8)
    127
    """
    if bits not in BITS:
        raise BadSamples("latent_bits", bits, f"{BITS.start} to {BITS.stop - 1}")
    return 2 ** (bits - 1) - 1


def scale(bits: int) -> float:
    """The companding scale s = (2^(b-1) - 1)/1.85, in units of the latents.

    >>> round(scale(8), 6)
    68.648649
    """
    return last_symbol(bits) / SCALE_DIVISOR


def latent_max(bits: int) -> float:
    """The companding range M = 2^(b-1) - 1 + 0.5 - 0.001, in symbols.

    >>> latent_max(8)
    127.499
    """
    return last_symbol(bits) + 0.5 - GUARD


def plane_steps(step: float, weights: NDArray[np.uint8], axes: int) -> NDArray[np.float64]:
    """The step of every plane (SPEC.md 6.8): step up to 1, beyond that 1 + weight/128·(step - 1), exact in binary64.

    Parameters
    ----------
    step : float
        The stream's step.
    weights : uint8, shape (D,)
        Step weights of the planes.
    axes : int
        Spatial axes of the latents.

    Returns
    -------
    float64, shape (D, 1, …), to divide and multiply latents (D, h, …) by

    Examples
    --------
    >>> plane_steps(2.5, np.uint8([128, 0, 64]), axes=2).ravel().tolist()
    [2.5, 1.0, 1.75]
    """
    steps = 1 + weights / UNIT_WEIGHT * (step - 1) if step > 1 else np.full(weights.size, step)
    return steps.reshape(-1, *(1,) * axes)


def compand(latents: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """v = 2·M·(Φ(y/s) - 1/2): latents of any shape to real values between -M and M (upstream `ToUniform`).

    >>> compand(np.array([-1e9, 0.0, 1e9]), 3).tolist()
    [-3.499, 0.0, 3.499]
    """
    from scipy.special import ndtr  # here, because it takes longer to import than an image to encode

    return 2 * latent_max(bits) * (ndtr(latents / scale(bits)) - 0.5)


def round_to_symbols(companded: NDArray[np.float64]) -> NDArray[np.int16]:
    """Round to the nearest integer, ties to even (upstream `Round` in evaluation).

    >>> round_to_symbols(np.array([0.5, 1.5, -2.6])).tolist()
    [0, 2, -3]
    """
    return np.rint(companded).astype(np.int16)


def margin(companded: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of real values from the nearest tie, that is from an integer plus one half (SPEC.md section 2).

    >>> margin(np.array([2.5, 3.0])).tolist()
    [0.0, 0.5]
    """
    return np.abs(companded - np.floor(companded) - 0.5)


@cache
def thresholds(bits: int) -> NDArray[np.float64]:
    """Decision thresholds of the quantiser.

    Returns
    -------
    float64, shape (2^b - 2,), read-only
        The latents at which v is half way between two symbols: entry i lies between the symbols i - last and
        i - last + 1. A latent on a threshold belongs to the even one of its two symbols.

    Examples
    --------
    >>> thresholds(3).round(3).tolist()
    [-1.732, -0.918, -0.292, 0.292, 0.918, 1.732]
    """
    last = last_symbol(bits)
    ties = [symbol + 0.5 for symbol in range(last)]
    return _odd([tie / (2 * latent_max(bits)) + 0.5 for tie in ties], bits)


def _odd(probabilities: list[float], bits: int) -> NDArray[np.float64]:
    """s·Φ⁻¹ of rising probabilities above one half, preceded by the same negated and backwards."""
    from statistics import NormalDist  # here, because it takes longer to import than an image's header to read

    upper = scale(bits) * np.array([NormalDist().inv_cdf(p) for p in probabilities])
    result = np.concatenate([-upper[::-1], upper])
    result.setflags(write=False)
    return result


def quantise(latents: NDArray[np.float64], bits: int) -> NDArray[np.int16]:
    """Latents of any shape to symbols, by their decision thresholds: equal to rounding `compand`, and monotone.

    Returns
    -------
    int16, same shape, values -(2^(b-1) - 1) … 2^(b-1) - 1

    Raises
    ------
    BadSamples
        A latent is not a number.

    Examples
    --------
    >>> quantise(np.array([-1e300, -1.7, 0.2, 0.3]), 3).tolist()
    [-3, -2, 0, 1]
    """
    if np.isnan(latents).any():
        raise BadSamples("latents", "NaN", "numbers")
    last, edges = last_symbol(bits), thresholds(bits)
    below = np.searchsorted(edges, latents, side="left")  # thresholds < y
    not_above = np.searchsorted(edges, latents, side="right")  # thresholds <= y
    symbols = below - last  # a latent on a threshold falls to its lower symbol here …
    symbols += (not_above > below) & (symbols % 2 != 0)  # … and rises to the upper one where that is even
    return symbols.astype(np.int16)


@cache
def dequantiser_table(bits: int) -> NDArray[np.float64]:
    """Latents for the symbols -last … last: float64, shape (2^b - 1,), read-only (upstream `ToNormal`).

    >>> dequantiser_table(3).round(3).tolist()
    [-2.378, -1.284, -0.594, 0.0, 0.594, 1.284, 2.378]
    """
    last = last_symbol(bits)
    probabilities = [symbol / (2 * latent_max(bits)) + 0.5 for symbol in range(1, last + 1)]
    table = _odd([min(max(p, PROBABILITY_MIN), PROBABILITY_MAX) for p in probabilities], bits)
    table = np.insert(table, last, 0.0)
    table.setflags(write=False)
    return table


def dequantise(symbols: NDArray[np.int16], bits: int) -> NDArray[np.float64]:
    """Symbols of any shape to latents: a look-up in `dequantiser_table`.

    Raises
    ------
    BadSamples
        A symbol lies outside -(2^(b-1) - 1) … 2^(b-1) - 1.

    Examples
    --------
    >>> dequantise(np.int16([0, 3]), 3).round(6).tolist()
    [0.0, 2.377512]
    """
    last = last_symbol(bits)
    if symbols.size and (symbols.min() < -last or symbols.max() > last):
        raise BadSamples("symbols", f"{symbols.min()} to {symbols.max()}", f"-{last} to {last} at {bits} bits")
    return dequantiser_table(bits)[symbols.astype(np.intp) + last]
