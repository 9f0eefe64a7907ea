"""The wavelet packet transform (SPEC.md section 4): analysis and synthesis, any number of axes.

The filter bank is CDF 9/7 with orthonormal gain, the `bior4.4` of PyWavelets, extended periodically. One level splits
*every* band along every axis, so J levels turn each channel into 2^(J·axes) bands of equal size.

Three surprises:

1. Bands are numbered channel-major, first level most significant. Within a level the digit is the sum of bit(axis)·2^axis
   where bit is 1 for high-pass and the first spatial axis counts as axis 0: in 2-D that is LL, LH, HL, HH = pywt's cA, cH,
   cV, cD, and LH is high-pass along the *rows' index* (axis 0).
2. A signal may be shorter than the filter. The period then wraps several times, as in PyWavelets. (The upstream's
   `pytorch_wavelets` wraps once only: at lengths of 8 and below it neither agrees nor inverts. See SPEC.md section 13.)
3. The taps are PyWavelets' and the upstream's own. They differ from the closed form by 3e-13, so that analysis and
   synthesis invert each other to 8.5e-13 a level and axis and not to rounding; lifting steps from the closed form would
   be as far from the upstream, more than the numerical contract allows for 16-bit samples. So the definition convolves.

Source: Cohen, Daubechies and Feauveau 1992; the band order is that of `Codec2D.analysis_one_level` of the upstream model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOW_REACH = 4
"""Taps of the analysis low-pass on each side of its centre (9 taps); the synthesis high-pass has as many."""

HIGH_REACH = 3
"""Taps of the analysis high-pass on each side of its centre (7 taps); the synthesis low-pass has as many."""

ANALYSIS_LOW = (0.8526986790088938, 0.37740285561283066, -0.11062440441843718, -0.023849465019556843,
                0.03782845550726404)  # fmt: skip
"""Analysis low-pass h[0], h[±1], … h[±4], centred on even samples (PyWavelets `bior4.4`, dec_lo)."""

ANALYSIS_HIGH = (-0.7884856164055829, 0.41809227322161724, 0.04068941760916406, -0.06453888262869706)
"""Analysis high-pass g[0], g[±1], … g[±3], centred on odd samples (PyWavelets `bior4.4`, dec_hi)."""

SYNTHESIS_LOW = tuple(-a if m % 2 == 0 else a for m, a in enumerate(ANALYSIS_HIGH))
"""Synthesis low-pass: -(-1)^m·g[m], centred on even samples (rec_lo)."""

SYNTHESIS_HIGH = tuple(-a if m % 2 == 0 else a for m, a in enumerate(ANALYSIS_LOW))
"""Synthesis high-pass: -(-1)^m·h[m], centred on odd samples (rec_hi)."""

HALO = 4
"""Positions at each end of a band that samples beyond the end can reach, at any number of levels.

Analysis at level j widens by LOW_REACH·2^(j-1) samples; the sum over levels is below 4·2^J, that is 4 positions of the
deepest band. Synthesis reaches 2 positions of the coarser band per level and side, 2·(1/2 + 1/4 + …) + … < 4. A piece of
a signal transformed with this many positions of context on each side therefore equals the same piece of the whole.
"""


def analyse(x: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """Wavelet packet analysis.

    Parameters
    ----------
    x : float64, shape (C, n0[, n1[, n2]])
        Signal; every n is a multiple of 2^levels.
    levels : int
        J, 0 or more.

    Returns
    -------
    float64, shape (C·2^(J·axes), n0/2^J, …)
        Bands, channel-major, in the order that the module describes.

    Examples
    --------
    >>> low, high = analyse(np.ones((1, 8)), 1)
    >>> low.round(6).tolist(), abs(high.round(6)).tolist()
    ([1.414214, 1.414214, 1.414214, 1.414214], [0.0, 0.0, 0.0, 0.0])
    >>> analyse(np.zeros((3, 16, 24)), 3).shape
    (192, 2, 3)
    """
    for _ in range(levels):
        for axis in range(x.ndim - 1, 0, -1):  # last axis first: its bit is the most significant of the level's digit
            bands = np.stack(_split(x, axis), axis=1)  # [C', …n…] -> [C', 2, …n/2…]
            x = bands.reshape(-1, *bands.shape[2:])  # [C'·2, …n/2…]
    return x


def synthesise(bands: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """Wavelet packet synthesis, the inverse of `analyse`.

    Parameters
    ----------
    bands : float64, shape (C·2^(J·axes), m0[, m1[, m2]])
    levels : int
        J, 0 or more.

    Returns
    -------
    float64, shape (C, m0·2^J, …)

    Examples
    --------
    >>> x = np.arange(16.0).reshape(1, 16)
    >>> bool(np.allclose(synthesise(analyse(x, 2), 2), x, atol=1e-10))
    True
    """
    x = bands
    for _ in range(levels):
        for axis in range(1, x.ndim):  # the order of analysis, backwards
            pair = x.reshape(-1, 2, *x.shape[1:])  # [C'·2, …n/2…] -> [C', 2, …n/2…]
            x = _merge(pair[:, 0], pair[:, 1], axis)  # [C', …n…]
    return x


def _split(x: NDArray[np.float64], axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Filter along `axis` and keep every second sample: low[n] around x[2n], high[n] around x[2n + 1]."""
    x = np.moveaxis(x, axis, -1)
    n = x.shape[-1]
    padded = x[..., np.arange(-LOW_REACH, n + LOW_REACH) % n]  # [..., n + 8], padded[i] = x[i - 4]

    def tap(offset: int) -> NDArray[np.float64]:
        """x[2k + offset] for k = 0 … n/2 - 1."""  # [..., n/2]
        return padded[..., LOW_REACH + offset : LOW_REACH + offset + n : 2][..., : n // 2]

    low = ANALYSIS_LOW[0] * tap(0)
    for m in range(1, LOW_REACH + 1):
        low += ANALYSIS_LOW[m] * (tap(-m) + tap(m))
    high = ANALYSIS_HIGH[0] * tap(1)
    for m in range(1, HIGH_REACH + 1):
        high += ANALYSIS_HIGH[m] * (tap(1 - m) + tap(1 + m))
    return np.moveaxis(low, -1, axis), np.moveaxis(high, -1, axis)


def _merge(low: NDArray[np.float64], high: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Put low[n] at 2n and high[n] at 2n + 1 and filter each with its synthesis filter: the inverse of `_split`."""
    low, high = np.moveaxis(low, axis, -1), np.moveaxis(high, axis, -1)
    half = low.shape[-1]
    around = np.arange(-2, half + 2) % half
    low, high = low[..., around], high[..., around]  # [..., half + 4], low[i] = band[i - 2]

    def at(band: NDArray[np.float64], k: int) -> NDArray[np.float64]:
        """band[n + k] for n = 0 … half - 1."""  # [..., half]
        return band[..., 2 + k : 2 + k + half]

    s, d = SYNTHESIS_LOW, SYNTHESIS_HIGH
    x = np.empty((*low.shape[:-1], 2 * half))
    x[..., 0::2] = s[0] * at(low, 0) + s[2] * (at(low, -1) + at(low, 1))
    x[..., 0::2] += d[1] * (at(high, -1) + at(high, 0)) + d[3] * (at(high, -2) + at(high, 1))
    x[..., 1::2] = s[1] * (at(low, 0) + at(low, 1)) + s[3] * (at(low, -1) + at(low, 2))
    x[..., 1::2] += d[0] * at(high, 0) + d[2] * (at(high, -1) + at(high, 1)) + d[4] * (at(high, -2) + at(high, 2))
    return np.moveaxis(x, -1, axis)
