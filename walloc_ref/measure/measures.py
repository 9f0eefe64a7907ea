"""Measures of distortion, and of one rate-distortion curve against another. No part of the codec.

Three surprises:

1. The mean PSNR over images (what the WaLLoC paper reports) and the PSNR of the mean squared error over images differ
   by half a decibel or more on a varied set; both are given everywhere, under their own names.
2. There are two conventions of SSIM, and they differ by 0.1: at full resolution, and with images first averaged down until
   the smaller side is about 256 samples, which is what the WaLLoC paper has. Both are given, under their own names.
3. A model without a quality knob is one point, and Bjøntegaard's integrals need curves. For a single point there are their
   limits: the difference in rate at equal PSNR, and in PSNR at equal rate, from the other codec's interpolated curve.

Sources: Wang, Bovik, Sheikh and Simoncelli 2004 (SSIM; the averaging is that of Wang's `ssim.m`, and the default of the
package piq); Wang, Simoncelli and Bovik 2003 (MS-SSIM); Bjøntegaard, VCEG-M33, with the piecewise cubic interpolation of
JCTVC-L1100; Watcharasupat and Lerch, "Quantifying Spatial Audio Quality Impairment", arXiv:2306.08053 (SSDR and SRDR,
there SSR and SRR).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GAUSSIAN_SIGMA, GAUSSIAN_RADIUS = 1.5, 5
"""Window of SSIM: 11×11 samples, standard deviation 1.5 (Wang et al. 2004)."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales of MS-SSIM, finest first (Wang et al. 2003)."""

SSIM_CONSTANTS = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)
"""C1 and C2 of SSIM at 8 bits (Wang et al. 2004)."""

REDUCED_SIDE = 256
"""Samples of the smaller side, about, that images are averaged down to for the reduced SSIM."""

FRAME_SECONDS, HOP_SECONDS, MAX_LAG_SECONDS = 30, 15, 1
"""Frames of SSDR and SRDR, and the largest delay between channels (as in Watcharasupat and Lerch's implementation)."""

Curve = Sequence[tuple[float, float]]
"""Rate and quality (PSNR, or another measure that rises) of a rate-distortion curve's points, in any order and unit."""


def mean_squared_error(original: NDArray, decoded: NDArray) -> float:
    """Mean of the squared difference over all samples, channels included; arrays of one shape, of any type."""
    if original.shape != decoded.shape:
        raise ValueError(f"shapes {original.shape} and {decoded.shape} differ")
    return float(np.mean(np.square(decoded.astype(np.float64) - original.astype(np.float64))))


def psnr(mse: float, peak: float = 255.0) -> float:
    """10·log10(peak²/mse) in dB, infinite where nothing differs."""
    return math.inf if mse == 0 else 10 * math.log10(peak * peak / mse)


@dataclass(frozen=True)
class Similarity:
    """Structural similarity of two images, each the mean over their channels; None where they are too small.

    Attributes
    ----------
    ssim : float or None
        At full resolution; of 11 samples and more.
    ssim_reduced : float or None
        With images first averaged by max(1, round(smaller side / 256)).
    ms_ssim : float or None
        Over five scales; of 176 samples and more.
    """

    ssim: float | None
    ssim_reduced: float | None
    ms_ssim: float | None


def structural_similarity(original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> Similarity:
    """SSIM in both conventions, and MS-SSIM, of uint8 images (H, W) or (H, W, C)."""
    window, side = 2 * GAUSSIAN_RADIUS + 1, min(original.shape[:2])
    factor = max(1, round(side / REDUCED_SIDE))
    deep = side >= window << (len(SCALE_WEIGHTS) - 1)
    plain, reduced, multi = [], [], []
    for x, y in zip(_channels(original), _channels(decoded)):
        if side < window:
            continue
        whole, contrast_structure = _similarity(x, y)
        plain.append(whole)
        if factor > 1:
            reduced.append(_similarity(_reduced(x, factor), _reduced(y, factor))[0])
        else:
            reduced.append(whole)
        if deep:
            multi.append(_over_scales(x, y, contrast_structure))
    return Similarity(*(float(np.mean(values)) if values else None for values in (plain, reduced, multi)))


def _over_scales(x: NDArray[np.float64], y: NDArray[np.float64], finest: float) -> float:
    """MS-SSIM of one channel; `finest`: contrast times structure at full resolution."""
    product = max(0.0, finest) ** SCALE_WEIGHTS[0]
    for scale, weight in enumerate(SCALE_WEIGHTS[1:], 1):
        x, y = _halved(x), _halved(y)
        whole, contrast_structure = _similarity(x, y)
        last = scale == len(SCALE_WEIGHTS) - 1
        product *= max(0.0, whole if last else contrast_structure) ** weight
    return product


def _similarity(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """SSIM of one channel, and its contrast times structure alone: means over all windows that lie within."""
    from scipy.ndimage import gaussian_filter

    def smooth(p: NDArray[np.float64]) -> NDArray[np.float64]:
        r = GAUSSIAN_RADIUS
        return gaussian_filter(p, GAUSSIAN_SIGMA, truncate=r / GAUSSIAN_SIGMA)[r:-r, r:-r]

    c1, c2 = SSIM_CONSTANTS
    mean_x, mean_y = smooth(x), smooth(y)
    covariance = smooth(x * y) - mean_x * mean_y
    variances = smooth(x * x + y * y) - mean_x**2 - mean_y**2
    contrast_structure = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float(np.mean(luminance * contrast_structure)), float(np.mean(contrast_structure))


def _channels(samples: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """The channels of (H, W) or (H, W, C) as float64 (H, W)."""
    planes = samples[:, :, None] if samples.ndim == 2 else samples
    return [planes[:, :, c].astype(np.float64) for c in range(planes.shape[2])]


def _reduced(x: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Means of whole squares of factor·factor samples: (H, W) to (⌊H/factor⌋, ⌊W/factor⌋)."""
    h, w = (size // factor for size in x.shape)
    return x[: h * factor, : w * factor].reshape(h, factor, w, factor).mean((1, 3))


def _halved(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 2×2 samples; an odd last row or column is repeated: (H, W) to (⌈H/2⌉, ⌈W/2⌉)."""
    x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2)), mode="edge")
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def spatial_distortion(original: NDArray[np.float64], decoded: NDArray[np.float64], rate: int) -> tuple[float, float]:
    """SSDR and SRDR: signal to spatial distortion, and to what is left of the error, in decibels.

    Each channel of the decoded signal is projected on all channels of the original, each delayed to where they correlate
    most; s is the original, s̃ the projection, ŝ what was decoded:

        SSDR = 10·log10(|s|² / |s̃ - s|²)        SRDR = 10·log10(|s|² / |ŝ - s̃|²)

    means over frames of 30 seconds every 15; frames in which a term is zero do not count.

    Parameters
    ----------
    original, decoded : float64, shape (frames, channels)
    rate : int
        Frames a second.
    """
    length, hop = FRAME_SECONDS * rate, HOP_SECONDS * rate
    found = []
    for first in range(0, max(1, len(original) - length + hop), hop):
        s, decoded_part = original[first : first + length], decoded[first : first + length]
        projection = _projections(s, decoded_part, MAX_LAG_SECONDS * rate)
        energies = [float(np.sum(np.square(e))) for e in (s, projection - s, decoded_part - projection)]
        if min(energies) > 0:
            found.append([10 * math.log10(energies[0] / energy) for energy in energies[1:]])
    if not found:
        return math.nan, math.nan
    return tuple(np.mean(found, axis=0).tolist())


def _projections(s: NDArray[np.float64], decoded: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Every decoded channel's projection on all channels of the original, delayed by up to `reach`: (frames, channels)."""
    from scipy import fft

    frames = len(s)
    reach = min(reach, frames - 1)
    size = fft.next_fast_len(frames + reach, real=True)  # what wraps around falls beyond the reach
    references, spectra = (fft.rfft(x, size, axis=0) for x in (s, decoded))
    projected = np.empty_like(decoded)
    for number in range(decoded.shape[1]):
        delayed = []
        for channel in range(s.shape[1]):
            correlation = np.abs(fft.irfft(spectra[:, number] * references[:, channel].conj(), size))
            around = np.concatenate([correlation[size - reach :], correlation[: reach + 1]])  # lags -reach … reach
            lag = int(np.argmax(around)) - reach
            moved = np.roll(s[:, channel], lag)
            moved[: max(lag, 0)] = 0
            moved[frames + min(lag, 0) :] = 0
            delayed.append(moved)
        columns = np.stack(delayed, axis=1)
        gains = np.linalg.lstsq(columns.T @ columns, columns.T @ decoded[:, number], rcond=None)[0]
        projected[:, number] = columns @ gains
    return projected


def bd_rate(anchor: Curve, test: Curve) -> float | None:
    """Bjøntegaard's mean difference in rate at equal quality, test against anchor, in percent; negative is better.

    None where the curves have fewer than two points each or do not overlap. A test of a single point gives the difference
    in rate at that point's PSNR.
    """
    change = _mean_difference(_by_psnr(anchor), _by_psnr(test))
    return None if change is None else 100 * (10**change - 1)


def bd_psnr(anchor: Curve, test: Curve) -> float | None:
    """Bjøntegaard's mean difference in PSNR at equal rate, test against anchor, in dB; positive is better.

    None where the curves have fewer than two points each or do not overlap. A test of a single point gives the difference
    in PSNR at that point's rate.
    """
    return _mean_difference(_by_rate(anchor), _by_rate(test))


def _by_rate(curve: Curve) -> list[tuple[float, float]]:
    """PSNR over log10(rate), rising in both: points that cost more and give less than another are left out."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(curve, key=lambda point: (point[0], -point[1])):
        if math.isfinite(quality) and rate > 0:
            at = math.log10(rate)
            if not kept or (quality > kept[-1][1] and at > kept[-1][0]):
                kept.append((at, quality))
    return kept


def _by_psnr(curve: Curve) -> list[tuple[float, float]]:
    """log10(rate) over PSNR, rising in both."""
    return [(quality, rate) for rate, quality in _by_rate(curve)]


def _mean_difference(anchor: list[tuple[float, float]], test: list[tuple[float, float]]) -> float | None:
    """Mean of test - anchor over the overlap of their abscissas, both interpolated by PCHIP."""
    if len(anchor) < 2 or not test:
        return None
    if len(test) == 1:
        at, value = test[0]
        if not anchor[0][0] <= at <= anchor[-1][0]:
            return None
        return value - float(_interpolant(anchor)(at))
    low, high = max(anchor[0][0], test[0][0]), min(anchor[-1][0], test[-1][0])
    if low >= high:
        return None
    area = [float(_interpolant(curve).integrate(low, high)) for curve in (test, anchor)]
    return (area[0] - area[1]) / (high - low)


def _interpolant(points: list[tuple[float, float]]) -> Any:
    """The monotone piecewise cubic through points that rise in both coordinates."""
    from scipy.interpolate import PchipInterpolator

    return PchipInterpolator(*zip(*points))
