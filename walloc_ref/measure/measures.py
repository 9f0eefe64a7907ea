"""Measures of distortion, and of one rate-distortion curve against another. No part of the codec.

Three surprises:

1. The mean PSNR over images (what the WaLLoC paper reports) and the PSNR of the mean squared error over images differ
   by half a decibel or more on a varied set; both are given everywhere, under their own names.
2. SSIM and MS-SSIM need scikit-image. Where it is missing, or an image too small, they are None, never a stand-in.
3. A model without a quality knob is one point, and Bjøntegaard's integrals need curves. For a single point there are their
   limits: the difference in rate at equal PSNR, and in PSNR at equal rate, from the other codec's interpolated curve.

Sources: Wang, Bovik, Sheikh and Simoncelli 2004 (SSIM); Wang, Simoncelli and Bovik 2003 (MS-SSIM); Bjøntegaard, VCEG-M33,
with the piecewise cubic interpolation of JCTVC-L1100.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

GAUSSIAN_SIGMA, GAUSSIAN_RADIUS = 1.5, 5
"""Window of SSIM: 11×11 samples, standard deviation 1.5 (Wang et al. 2004)."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales of MS-SSIM, finest first (Wang et al. 2003)."""

NO_LUMINANCE = 1e6
"""The constant K1 at which the luminance term of SSIM is 1 to within rounding, which leaves contrast times structure."""

Curve = Sequence[tuple[float, float]]
"""Rate and PSNR of the points of a rate-distortion curve, in any order; rates in any unit."""


def mean_squared_error(original: NDArray, decoded: NDArray) -> float:
    """Mean of the squared difference over all samples, channels included; arrays of one shape, of any type."""
    if original.shape != decoded.shape:
        raise ValueError(f"shapes {original.shape} and {decoded.shape} differ")
    return float(np.mean(np.square(decoded.astype(np.float64) - original.astype(np.float64))))


def psnr(mse: float, peak: float = 255.0) -> float:
    """10·log10(peak²/mse) in dB, infinite where nothing differs."""
    return math.inf if mse == 0 else 10 * math.log10(peak * peak / mse)


def structural_similarity(original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> tuple[float | None, float | None]:
    """SSIM and MS-SSIM: the mean over the channels of each channel's.

    Parameters
    ----------
    original, decoded : uint8, shape (H, W) or (H, W, C)

    Returns
    -------
    ssim, ms_ssim : float or None
        None without scikit-image; SSIM None below 11 samples in height or width, MS-SSIM None below 176.
    """
    try:
        from skimage.metrics import structural_similarity as ssim_of
    except ImportError:
        return None, None
    window = 2 * GAUSSIAN_RADIUS + 1
    if min(original.shape[:2]) < window:
        return None, None

    def similarity(x: NDArray[np.float64], y: NDArray[np.float64], k1: float) -> float:
        options = {"gaussian_weights": True, "sigma": GAUSSIAN_SIGMA, "use_sample_covariance": False, "K1": k1}
        return float(ssim_of(x, y, data_range=255, **options))

    plain, multi = [], []
    deep = min(original.shape[:2]) >= window << (len(SCALE_WEIGHTS) - 1)
    for x, y in zip(_channels(original), _channels(decoded)):
        plain.append(similarity(x, y, 0.01))
        product = 1.0
        for scale, weight in enumerate(SCALE_WEIGHTS if deep else ()):
            last = scale == len(SCALE_WEIGHTS) - 1
            product *= max(0.0, similarity(x, y, 0.01 if last else NO_LUMINANCE)) ** weight
            x, y = _halved(x), _halved(y)
        multi.append(product)
    return float(np.mean(plain)), float(np.mean(multi)) if deep else None


def _channels(samples: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """The channels of (H, W) or (H, W, C) as float64 (H, W)."""
    planes = samples[:, :, None] if samples.ndim == 2 else samples
    return [planes[:, :, c].astype(np.float64) for c in range(planes.shape[2])]


def _halved(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 2×2 samples; an odd last row or column is repeated: (H, W) to (⌈H/2⌉, ⌈W/2⌉)."""
    x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2)), mode="edge")
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def bd_rate(anchor: Curve, test: Curve) -> float | None:
    """Bjøntegaard's mean difference in rate at equal PSNR, test against anchor, in percent; negative is better.

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
    for rate, quality in sorted(curve):
        if math.isfinite(quality) and rate > 0 and (not kept or (quality > kept[-1][1] and rate > 10 ** kept[-1][0])):
            kept.append((math.log10(rate), quality))
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
