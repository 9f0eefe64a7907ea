"""Kernels of the wavelet packet transform: `analyse` and `synthesise` as in `walloc_ref.stages.wavelet`.

A full packet tree is separable: all J levels along one axis commute with all J levels along another. So each axis is done
in one go, on data that stays in cache: the last axis row by row, the others on panels of columns, and the panels of the
axis before the last are written straight to their bands. Signals are viewed with three axes [C, n0, n1, n2]; absent axes
have length 1 and no levels. Each sum is that of the definition, term by term; along one axis the results are equal to the
last bit, along several they differ by the order of the axes alone, a few units in the last place.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from walloc_ref.fast import bare
from walloc_ref.fast.autoencoder_kl import transpose
from walloc_ref.fast.lanes import both, lanes_of, merged
from walloc_ref.fast.workers import Workroom
from walloc_ref.stages import wavelet

H0, H1, H2, H3, H4 = wavelet.ANALYSIS_LOW
G0, G1, G2, G3 = wavelet.ANALYSIS_HIGH
S0, S1, S2, S3 = wavelet.SYNTHESIS_LOW
D0, D1, D2, D3, D4 = wavelet.SYNTHESIS_HIGH

PANEL = 64
"""Columns of a panel: 512 bytes a row, so that 512 rows fit into a second-level cache twice."""

WRAP = 4
"""Periodic context kept on each side of a row or panel while it is filtered."""


class Room(NamedTuple):
    """Where kernels keep what they work on, made by who calls them."""

    row: NDArray[np.float64]  # [n2]
    row2: NDArray[np.float64]
    even: NDArray[np.float64]  # [n2/2 + 2·WRAP]
    odd: NDArray[np.float64]
    plane: NDArray[np.float64]  # [n0, n1, n2]: one channel, its last axis (and then its first) transformed
    panel: NDArray[np.float64]  # [max(n0, n1), PANEL]
    panel2: NDArray[np.float64]


def room(sizes: tuple[int, ...]) -> Room:
    """Room for a signal of the sizes n0, n1, n2, or for lines of the length n2 alone."""
    n2 = sizes[-1]
    plane = sizes if len(sizes) == 3 else (0, 0, 0)
    panels = [np.empty((max(plane[:2]), PANEL)) for _ in range(2)]
    even, odd = (np.empty(n2 // 2 + 2 * WRAP) for _ in range(2))
    return Room(np.empty(n2), np.empty(n2), even, odd, np.empty(plane), panels[0], panels[1])


def analyse(x: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """Same as `walloc_ref.stages.wavelet.analyse`."""
    axes = x.ndim - 1
    if axes == 1:
        lines = np.empty((x.shape[0], 1 << levels, x.shape[1] >> levels))
        _analyse_lines(np.ascontiguousarray(x, dtype=np.float64), levels, lines, room(x.shape[1:]))
        return lines.reshape(-1, lines.shape[2])
    sizes = (1,) * (3 - axes) + x.shape[1:]  # n0, n1, n2
    depth = (0,) * (3 - axes) + (levels,) * axes
    band = band_numbers(axes, levels)  # [2^J0, 2^J1, 2^J2]
    out = np.empty((x.shape[0] * band.size, *(n >> j for n, j in zip(sizes, depth))))
    signal = np.ascontiguousarray(x, dtype=np.float64).reshape(x.shape[0], *sizes)
    _analyse(signal, depth[0], depth[1], depth[2], band, out, room(sizes))
    return out.reshape(out.shape[0], *(n >> levels for n in x.shape[1:]))


def tile_halo(levels: int) -> int:
    """Positions of context that `analyse_tile` wants on each side of a tile."""
    return max(wavelet.HALO, levels + 1)


def analyse_tile(x: NDArray[np.float64], levels: int, room: Workroom | None = None) -> NDArray[np.float64]:
    """Subbands of a part of an image that brings its context, in one pass over data that stay in cache.

    Of the last axis the samples of equal phase stand together, so that a level along it consists of sums of whole rows, as
    one down the columns does: no sample has to change its place within a vector. Sample 2^J·q + p of a row is [p, q].

    Parameters
    ----------
    x : float64, shape (C, (R + 2·halo)·2^J, 2^J, W + 2·halo), halo = `tile_halo(levels)`
    levels : int
        At least one.
    room : Workroom, optional
        Where the result and what comes before it may stand.

    Returns
    -------
    float64, shape (C·4^J, R, W)
        What `analyse` gives for the whole image at these positions, to the last bit.
    """
    channels, r, m, n = x.shape
    halo = tile_halo(levels)
    room = room or Workroom()
    out = room.array("subbands", (channels * m * m, r // m - 2 * halo, n - 2 * halo))
    across, panel = room.array("across", (m, r * out.shape[2])), room.array("panel", (r * out.shape[2],))
    band = band_numbers(2, levels)[0]
    _analyse_tile(x.reshape(channels, r, -1), halo, levels, band, out, across, np.empty(m * n), panel)
    return out


def analyse_piece(x: NDArray[np.float64], levels: int, room: Workroom | None = None) -> NDArray[np.float64]:
    """`analyse_tile` of audio: (C, (n + 2·halo)·2^J) with its context to (C·2^J, n), to the last bit what `analyse` gives.

    Nodes of the last levels have few samples. Side by side, by phases, they fill vectors, and none begins anew.
    """
    channels, m, halo, room = x.shape[0], 1 << levels, tile_halo(levels), room or Workroom()
    stride = x.shape[1] // m
    out = room.array("subbands", (channels, m, stride - 2 * halo))
    phases, row = room.array("phases", (m, stride)), room.array("row", (m * stride,))
    _analyse_piece(x.reshape(channels, stride, m), halo, levels, out, phases, phases.reshape(-1), row)
    return out.reshape(-1, out.shape[2])


def synthesise_piece(bands: NDArray[np.float64], levels: int, room: Workroom | None = None) -> NDArray[np.float64]:
    """The inverse of `analyse_piece`: (C·2^J, n + 2·halo) with their context to (C, n·2^J), as `synthesise` gives it."""
    m, stride, room = 1 << levels, bands.shape[1], room or Workroom()
    bands = np.ascontiguousarray(bands)
    out = room.array("samples", (len(bands) // m, stride - 2 * tile_halo(levels), m))
    rows = [room.array(name, (m, stride)) for name in ("phases", "phases of the next level")]
    _synthesise_piece(bands.reshape(len(out), -1), levels, out, *rows, *(row.reshape(-1) for row in rows))
    return out.reshape(len(out), -1)


def synthesise(bands: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """Same as `walloc_ref.stages.wavelet.synthesise`."""
    axes = bands.ndim - 1
    if axes == 1:
        signal = np.empty((bands.shape[0] >> levels, bands.shape[1] << levels))
        _synthesise_lines(np.ascontiguousarray(bands, dtype=np.float64), levels, signal, room(signal.shape[1:]))
        return signal
    sizes = (1,) * (3 - axes) + bands.shape[1:]  # m0, m1, m2
    depth = (0,) * (3 - axes) + (levels,) * axes
    band = band_numbers(axes, levels)
    out = np.empty((bands.shape[0] // band.size, *(m << j for m, j in zip(sizes, depth))))
    bands = np.ascontiguousarray(bands, dtype=np.float64)
    _synthesise(bands.reshape(-1, *sizes), *depth, band, out, room(out.shape[1:]))
    return out.reshape(out.shape[0], *(m << levels for m in bands.shape[1:]))


def analyse_first(x: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """All levels along the first spatial axis alone: (C, n, …) to (C, 2^J, n/2^J, …), bands by path."""
    out = np.empty((x.shape[0], 1 << levels, x.shape[1] >> levels, math.prod(x.shape[2:])))
    panels = np.empty((2, x.shape[1], PANEL))
    _analyse_first(np.ascontiguousarray(x).reshape(*x.shape[:2], -1), levels, out, panels[0], panels[1])
    return out.reshape(*out.shape[:3], *x.shape[2:])


def synthesise_first(bands: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """The inverse of `analyse_first`: (C, 2^J, m, …) to (C, m·2^J, …)."""
    out = np.empty((bands.shape[0], bands.shape[2] << levels, math.prod(bands.shape[3:])))
    panels = np.empty((2, out.shape[1], PANEL))
    _synthesise_first(np.ascontiguousarray(bands).reshape(*bands.shape[:3], -1), levels, out, panels[0], panels[1])
    return out.reshape(*out.shape[:2], *bands.shape[3:])


def band_numbers(axes: int, levels: int) -> NDArray[np.int64]:
    """Band within a channel for the low/high path along each axis, first level most significant: int64 [2^J0, 2^J1, 2^J2].

    A path holds one bit a level. The digits of the band number interleave the bits of the axes.
    """
    path = np.arange(1 << levels)
    spread = sum(((path >> level) & 1) << (axes * level) for level in range(levels)) + np.zeros_like(path)
    number = np.zeros((1,) * (3 - axes) + (1 << levels,) * axes, dtype=np.int64)
    for axis in range(axes):
        shape = [1, 1, 1]
        shape[3 - axes + axis] = -1
        number = number + (spread << axis).reshape(shape)
    return number


@bare
def _copy(source, target):
    """target[: len(source)] = source, which Numba would do by way of a new array."""
    for i in range(source.size):
        target[i] = source[i]


@bare
def _copy_panel(source, target):
    """The same for rows of two axes."""
    for i in range(source.shape[0]):
        _copy(source[i], target[i])


@bare
def _both(low, high, a, m4, m3, m2, m1, c, p1, p2, p3, p4):
    """Low and high band of the lines of `a` that begin at c and p1, from these and the ones around them."""
    n, step = low.size, lanes_of(a)
    if n >= step:
        for j in range(0, n - step, step):
            both(low, high, j, a, m4, m3, m2, m1, c, p1, p2, p3, p4)
        both(low, high, n - step, a, m4, m3, m2, m1, c, p1, p2, p3, p4)  # some of the last ones again
    else:
        _both_one_by_one(low, high, a, m4, m3, m2, m1, c, p1, p2, p3, p4)


@bare
def _both_one_by_one(low, high, a, m4, m3, m2, m1, c, p1, p2, p3, p4):
    """`_both` of lines shorter than a register."""
    for j in range(low.size):
        v = H0 * a[c + j]
        v += H1 * (a[m1 + j] + a[p1 + j])
        v += H2 * (a[m2 + j] + a[p2 + j])
        v += H3 * (a[m3 + j] + a[p3 + j])
        v += H4 * (a[m4 + j] + a[p4 + j])
        low[j] = v
        v = G0 * a[p1 + j]
        v += G1 * (a[c + j] + a[p2 + j])
        v += G2 * (a[m1 + j] + a[p3 + j])
        v += G3 * (a[m2 + j] + a[p4 + j])
        high[j] = v


@bare
def _place(first, rest, stride, k):
    """Where sample k of a node begins whose 2^rest phases are the lines from `first` on; phases follow each other around.

    Shifts, since a division takes as long as a whole vector of sums, and there would be eighteen for a line of ten vectors.
    """
    return (first + (k & ((1 << rest) - 1))) * stride + (k >> rest)


@bare
def _analyse_phases(a, b, stride, levels, halo, across, row):
    """All levels along one row, a [2^J · stride] by phases, to line `row` of across[path]; `b` as scratch."""
    m = across.shape[0]
    start = 0  # the columns whose context is known begin here, and end as far from the end
    for level in range(levels):
        q, rest = m >> level, levels - level
        half = q >> 1
        start = halo if half == 1 else start + 1
        n = stride - 2 * start
        line = row * n
        for p in range(1 << level):
            f = p * q
            for k in range(half):
                i = 2 * k
                at = (f + k) * stride + start
                behind = at + half * stride
                low = across[f][line : line + n] if half == 1 else b[at : at + n]
                high = across[f + 1][line : line + n] if half == 1 else b[behind : behind + n]
                _both(
                    low, high, a,
                    start + _place(f, rest, stride, i - 4), start + _place(f, rest, stride, i - 3),
                    start + _place(f, rest, stride, i - 2), start + _place(f, rest, stride, i - 1),
                    start + _place(f, rest, stride, i), start + _place(f, rest, stride, i + 1),
                    start + _place(f, rest, stride, i + 2), start + _place(f, rest, stride, i + 3),
                    start + _place(f, rest, stride, i + 4),
                )  # fmt: skip
        a, b = b, a


@bare
def _analyse_rows(a, b, count, levels, origin, out, base, band):
    """All levels down a panel a [count · W] whose first row is number `origin`, to out[base + band[path]]."""
    w = out.shape[2]
    for level in range(levels):
        k0, k1 = (origin + 5) >> 1, (origin + count - 5) >> 1  # the rows whose context is there
        last = level == levels - 1
        if last:
            k0, k1 = 0, out.shape[1] - 1
        rows = k1 - k0 + 1
        for p in range(1 << level):
            for k in range(k0, k1 + 1):
                c = (p * count + 2 * k - origin) * w
                at = (2 * p * rows + k - k0) * w
                behind = at + rows * w
                low = out[base + band[2 * p]][k] if last else b[at : at + w]
                high = out[base + band[2 * p + 1]][k] if last else b[behind : behind + w]
                _both(low, high, a, c - 4 * w, c - 3 * w, c - 2 * w, c - w, c, c + w, c + 2 * w, c + 3 * w, c + 4 * w)
        origin, count = k0, rows
        a, b = b, a


@bare
def _analyse_tile(x, halo, levels, band, out, across, rows, panel):
    """See `analyse_tile`; x [C, r, 2^J · stride], band [2^J, 2^J] by the paths down and across; scratch after that."""
    channels, r, _ = x.shape
    m = across.shape[0]
    stride = out.shape[2] + 2 * halo
    for c in range(channels):
        for i in range(r):
            _analyse_phases(x[c, i], rows, stride, levels, halo, across, i)
        for p in range(m):
            _analyse_rows(across[p], panel, r, levels, -halo * m, out, c * m * m, band[:, p])


@bare
def _analyse_piece(x, halo, levels, out, phases, row, row2):
    """See `analyse_piece`; x [C, stride, 2^J] -> out [C, 2^J, n]; scratch phases [2^J, stride], also flat, and row2."""
    stride = x.shape[1]
    for c in range(x.shape[0]):
        transpose(x[c], 0, stride, phases)
        _analyse_phases(row, row2, stride, levels, halo, out[c], 0)


@bare
def _merged(even, odd, a, m1, c, p1, p2, om2, om1, oc, op1, op2):
    """Even and odd samples of the lines of `a` of the low band, around c, and of the high band, around oc."""
    n, step = even.size, lanes_of(a)
    if n >= step:
        for j in range(0, n - step, step):
            merged(even, odd, j, a, m1, c, p1, p2, om2, om1, oc, op1, op2)
        merged(even, odd, n - step, a, m1, c, p1, p2, om2, om1, oc, op1, op2)  # some of the last ones again
    else:
        for j in range(n):
            v = S0 * a[c + j] + S2 * (a[m1 + j] + a[p1 + j])
            v += D1 * (a[om1 + j] + a[oc + j]) + D3 * (a[om2 + j] + a[op1 + j])
            w = S1 * (a[c + j] + a[p1 + j]) + S3 * (a[m1 + j] + a[p2 + j])
            w += D0 * a[oc + j] + D2 * (a[om1 + j] + a[op1 + j]) + D4 * (a[om2 + j] + a[op2 + j])
            even[j], odd[j] = v, w


@bare
def _synthesise_piece(x, levels, out, phases, phases2, row, row2):
    """See `synthesise_piece`; x [C, 2^J · stride] -> out [C, n, 2^J]; phases [2^J, stride] and, flat, row as scratch."""
    n, m = out.shape[1:]
    stride = phases.shape[1]
    halo = (stride - n) // 2
    for c in range(out.shape[0]):
        a, b = x[c], row
        start = 0  # the columns whose context was known begin here, and end as far from the end
        for level in range(levels - 1, -1, -1):
            rest = levels - level - 1
            half = 1 << rest
            start += 2 if half == 1 else 1  # of a node of one line, two before and after it are two columns away
            width = stride - 2 * start
            for p in range(1 << level):
                f = p * 2 * half
                g = f + half
                for k in range(half):
                    at = (f + 2 * k) * stride + start
                    behind = at + stride
                    _merged(
                        b[at : at + width], b[behind : behind + width], a,
                        start + _place(f, rest, stride, k - 1), start + _place(f, rest, stride, k),
                        start + _place(f, rest, stride, k + 1), start + _place(f, rest, stride, k + 2),
                        start + _place(g, rest, stride, k - 2), start + _place(g, rest, stride, k - 1),
                        start + _place(g, rest, stride, k), start + _place(g, rest, stride, k + 1),
                        start + _place(g, rest, stride, k + 2),
                    )  # fmt: skip
            if level == levels - 1:
                a, b = row, row2
            else:
                a, b = b, a
        found = phases if levels % 2 == 1 else phases2
        whole = n // 8 * 8
        for first in range(0, whole, 8):  # eight at a time, so that lines are used up
            part = out[c, first : first + 8]
            for p in range(m):
                source = found[p, halo + first : halo + first + 8]
                for q in range(8):
                    part[q, p] = source[q]
        for q in range(whole, n):
            for p in range(m):
                out[c, q, p] = found[p, halo + q]


@bare
def _split_row(row, start, half, low, high, even, odd):
    """One level on row[start : start + 2·half]: low band to low[0:half], high band to high[0:half].

    Views at each offset, not offsets of one index: so the compiler sees that no index is negative, and vectorises.
    """
    both = row[start : start + 2 * half]
    for k in range(half):
        even[WRAP + k] = both[2 * k]
        odd[WRAP + k] = both[2 * k + 1]
    _wrap(even, half)
    _wrap(odd, half)
    m2, m1, c, p1, p2 = even[2:], even[3:], even[4:], even[5:], even[6:]
    om2, om1, oc, op1 = odd[2:], odd[3:], odd[4:], odd[5:]
    for k in range(half):
        v = H0 * c[k]
        v += H1 * (om1[k] + oc[k])
        v += H2 * (m1[k] + p1[k])
        v += H3 * (om2[k] + op1[k])
        v += H4 * (m2[k] + p2[k])
        low[k] = v
        v = G0 * oc[k]
        v += G1 * (c[k] + p1[k])
        v += G2 * (om1[k] + op1[k])
        v += G3 * (m1[k] + p2[k])
        high[k] = v


@bare
def _merge_row(low, high, half, row, start, even, odd):
    """The inverse of `_split_row`: bands low[0:half] and high[0:half] to row[start : start + 2·half]."""
    for k in range(half):
        even[WRAP + k] = low[k]
        odd[WRAP + k] = high[k]
    _wrap(even, half)
    _wrap(odd, half)
    m1, c, p1, p2 = even[3:], even[4:], even[5:], even[6:]
    om2, om1, oc, op1, op2 = odd[2:], odd[3:], odd[4:], odd[5:], odd[6:]
    both = row[start : start + 2 * half]
    for k in range(half):
        v = S0 * c[k] + S2 * (m1[k] + p1[k])
        v += D1 * (om1[k] + oc[k]) + D3 * (om2[k] + op1[k])
        w = S1 * (c[k] + p1[k]) + S3 * (m1[k] + p2[k])
        w += D0 * oc[k] + D2 * (om1[k] + op1[k]) + D4 * (om2[k] + op2[k])
        both[2 * k] = v
        both[2 * k + 1] = w


@bare
def _wrap(band, half):
    """Periodic context on both sides of band[WRAP : WRAP + half]."""
    for k in range(WRAP):
        band[k] = band[WRAP + (k - WRAP) % half]
        band[WRAP + half + k] = band[WRAP + k % half]


@bare
def _split_panel(a, first, half, width, b):
    """One level down the rows first … first + 2·half of panel `a`: low rows to b[first:], high rows to b[first + half:]."""
    n = 2 * half
    for k in range(half):
        c = first + 2 * k
        m1, m2 = first + (2 * k - 1) % n, first + (2 * k - 2) % n
        m3, m4 = first + (2 * k - 3) % n, first + (2 * k - 4) % n
        p1, p2 = c + 1, first + (2 * k + 2) % n
        p3, p4 = first + (2 * k + 3) % n, first + (2 * k + 4) % n
        low, high = first + k, first + half + k
        for j in range(width):
            v = H0 * a[c, j]
            v += H1 * (a[m1, j] + a[p1, j])
            v += H2 * (a[m2, j] + a[p2, j])
            v += H3 * (a[m3, j] + a[p3, j])
            v += H4 * (a[m4, j] + a[p4, j])
            b[low, j] = v
            v = G0 * a[p1, j]
            v += G1 * (a[c, j] + a[p2, j])
            v += G2 * (a[m1, j] + a[p3, j])
            v += G3 * (a[m2, j] + a[p4, j])
            b[high, j] = v


@bare
def _merge_panel(a, first, half, width, b):
    """The inverse of `_split_panel`: bands at a[first:] and a[first + half:] to rows first … first + 2·half of `b`."""
    for k in range(half):
        l0, lp1, lm1 = first + k, first + (k + 1) % half, first + (k - 1) % half
        lp2 = first + (k + 2) % half
        h0, hp1, hm1 = first + half + k, first + half + (k + 1) % half, first + half + (k - 1) % half
        hp2, hm2 = first + half + (k + 2) % half, first + half + (k - 2) % half
        even, odd = first + 2 * k, first + 2 * k + 1
        for j in range(width):
            v = S0 * a[l0, j] + S2 * (a[lm1, j] + a[lp1, j])
            v += D1 * (a[hm1, j] + a[h0, j]) + D3 * (a[hm2, j] + a[hp1, j])
            b[even, j] = v
            v = S1 * (a[l0, j] + a[lp1, j]) + S3 * (a[lm1, j] + a[lp2, j])
            v += D0 * a[h0, j] + D2 * (a[hm1, j] + a[hp1, j]) + D4 * (a[hm2, j] + a[hp2, j])
            b[odd, j] = v


@bare
def _analyse_panel(a, b, n, levels, width):
    """All levels down the n rows of panel `a`, `b` as scratch; the result ends in a[0:n] in path order."""
    for level in range(levels):
        m = n >> level
        for p in range(1 << level):
            _split_panel(a, p * m, m // 2, width, b)
        a, b = b, a
    if levels % 2 == 1:
        _copy_panel(a[:n, :width], b)


@bare
def _synthesise_panel(a, b, n, levels, width):
    """The inverse of `_analyse_panel`."""
    for level in range(levels - 1, -1, -1):
        m = n >> level
        for p in range(1 << level):
            _merge_panel(a, p * m, m // 2, width, b)
        a, b = b, a
    if levels % 2 == 1:
        _copy_panel(a[:n, :width], b)


@bare
def _analyse_row(a, b, n, levels, even, odd):
    """All levels along a[0:n], `b` as scratch; the result ends in a[0:n] in path order."""
    for level in range(levels):
        m = n >> level
        half = m // 2
        for p in range(1 << level):
            _split_row(a, p * m, half, b[p * m : p * m + half], b[p * m + half : p * m + m], even, odd)
        a, b = b, a
    if levels % 2 == 1:
        _copy(a[:n], b)


@bare
def _synthesise_row(a, b, n, levels, even, odd):
    """The inverse of `_analyse_row`."""
    for level in range(levels - 1, -1, -1):
        m = n >> level
        half = m // 2
        for p in range(1 << level):
            _merge_row(a[p * m : p * m + half], a[p * m + half : p * m + m], half, b, p * m, even, odd)
        a, b = b, a
    if levels % 2 == 1:
        _copy(a[:n], b)


@bare
def _analyse_lines(x, levels, out, room):
    """x [C, n] -> out [C, 2^J, n/2^J]: in one dimension the path is the band."""
    n = x.shape[1]
    m = n >> levels
    row, row2, even, odd = room.row, room.row2, room.even, room.odd
    for c in range(x.shape[0]):
        _copy(x[c], row)
        _analyse_row(row, row2, n, levels, even, odd)
        for p in range(1 << levels):
            _copy(row[p * m : (p + 1) * m], out[c, p])


@bare
def _synthesise_lines(x, levels, out, room):
    """x [C·2^J, m] -> out [C, m·2^J]: the inverse of `_analyse_lines`."""
    m = x.shape[1]
    n = m << levels
    row, row2, even, odd = room.row, room.row2, room.even, room.odd
    for c in range(out.shape[0]):
        for p in range(1 << levels):
            _copy(x[(c << levels) + p], row[p * m :])
        _synthesise_row(row, row2, n, levels, even, odd)
        _copy(row, out[c])


@bare
def _analyse_first(x, levels, out, panel, panel2):
    """x [C, n, N] -> out [C, 2^J, m, N]: panels of columns down the first axis."""
    _, n, columns = x.shape
    m = n >> levels
    for c in range(x.shape[0]):
        for q in range(0, columns, PANEL):
            width = min(PANEL, columns - q)
            _copy_panel(x[c, :, q : q + width], panel)
            _analyse_panel(panel, panel2, n, levels, width)
            for i in range(n):
                for j in range(width):
                    out[c, i // m, i % m, q + j] = panel[i, j]


@bare
def _synthesise_first(x, levels, out, panel, panel2):
    """x [C, 2^J, m, N] -> out [C, n, N]: the inverse of `_analyse_first`."""
    _, n, columns = out.shape
    m = n >> levels
    for c in range(out.shape[0]):
        for q in range(0, columns, PANEL):
            width = min(PANEL, columns - q)
            for i in range(n):
                for j in range(width):
                    panel[i, j] = x[c, i // m, i % m, q + j]
            _synthesise_panel(panel, panel2, n, levels, width)
            _copy_panel(panel[:, :width], out[c, :, q : q + width])


@bare
def _analyse(x, j0, j1, j2, band, out, room):
    """x [C, n0, n1, n2] -> out [C·bands, m0, m1, m2]; `band` as `band_numbers` gives it."""
    channels, n0, n1, n2 = x.shape
    _, m0, m1, m2 = out.shape
    row, row2, even, odd, plane, panel, panel2 = room
    bands = 1 << (j0 + j1 + j2)
    for c in range(channels):
        for i0 in range(n0):
            for i1 in range(n1):
                _copy(x[c, i0, i1], row)
                _analyse_row(row, row2, n2, j2, even, odd)
                _copy(row, plane[i0, i1])
        if j0 > 0:
            for i1 in range(n1):
                for q in range(0, n2, PANEL):
                    width = min(PANEL, n2 - q)
                    _copy_panel(plane[:, i1, q : q + width], panel)
                    _analyse_panel(panel, panel2, n0, j0, width)
                    _copy_panel(panel[:n0, :width], plane[:, i1, q : q + width])
        for i0 in range(n0):
            p0, k0 = i0 // m0, i0 % m0
            for p2 in range(1 << j2):
                for q in range(0, m2, PANEL):
                    width = min(PANEL, m2 - q)
                    _copy_panel(plane[i0, :, p2 * m2 + q : p2 * m2 + q + width], panel)
                    _analyse_panel(panel, panel2, n1, j1, width)
                    for i1 in range(n1):
                        number = c * bands + band[p0, i1 // m1, p2]
                        for j in range(width):
                            out[number, k0, i1 % m1, q + j] = panel[i1, j]


@bare
def _synthesise(x, j0, j1, j2, band, out, room):
    """x [C·bands, m0, m1, m2] -> out [C, n0, n1, n2]: the inverse of `_analyse`, its steps backwards."""
    channels, n0, n1, n2 = out.shape
    _, m0, m1, m2 = x.shape
    row, row2, even, odd, plane, panel, panel2 = room
    bands = 1 << (j0 + j1 + j2)
    for c in range(channels):
        for i0 in range(n0):
            p0, k0 = i0 // m0, i0 % m0
            for p2 in range(1 << j2):
                for q in range(0, m2, PANEL):
                    width = min(PANEL, m2 - q)
                    for i1 in range(n1):
                        number = c * bands + band[p0, i1 // m1, p2]
                        for j in range(width):
                            panel[i1, j] = x[number, k0, i1 % m1, q + j]
                    _synthesise_panel(panel, panel2, n1, j1, width)
                    _copy_panel(panel[:n1, :width], plane[i0, :, p2 * m2 + q : p2 * m2 + q + width])
        if j0 > 0:
            for i1 in range(n1):
                for q in range(0, n2, PANEL):
                    width = min(PANEL, n2 - q)
                    _copy_panel(plane[:, i1, q : q + width], panel)
                    _synthesise_panel(panel, panel2, n0, j0, width)
                    _copy_panel(panel[:n0, :width], plane[:, i1, q : q + width])
        for i0 in range(n0):
            for i1 in range(n1):
                _copy(plane[i0, i1], row)
                _synthesise_row(row, row2, n2, j2, even, odd)
                _copy(row, out[c, i0, i1])
