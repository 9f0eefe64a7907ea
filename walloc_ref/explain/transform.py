"""Figures of the wavelet packet transform: its filters, the subbands as a mosaic or a scalogram, and their energies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from walloc_ref.explain.charts import Chart, drawing, number, probes, several, share
from walloc_ref.explain.page import cell, escape, figure, grid, heat_png, saying, signed_png
from walloc_ref.explain.work import Work
from walloc_ref.stages import wavelet

SCALOGRAM_DB = 66.0
"""Decibels below the largest that a scalogram shows."""

SILENCE_DB = -90.0
"""A largest energy in decibels below which nothing is shown."""


def band_of_rank(rank: int) -> int:
    """The number of the 1-D subband that is `rank`-th in frequency.

    A high-pass and the dropping of every second sample mirror the spectrum, so that in its half low and high change
    places: subbands in the order of their frequencies are numbered by the reflected binary code.
    """
    return rank ^ (rank >> 1)


def band_at(ranks: tuple[int, ...], levels: int) -> int:
    """The number, within a channel, of the subband with these ranks along the spatial axes (SPEC.md 4.4, 4.6)."""
    axes, found = len(ranks), 0
    for axis, rank in enumerate(ranks):
        band = band_of_rank(rank)
        for level in range(levels):
            found |= (band >> level & 1) << (axes * level + axis)
    return found


def ranks_of_bands(levels: int, axes: int) -> NDArray[np.intp]:
    """The inverse of `band_at`: ranks of every subband of a channel, shape (2^(levels·axes), axes)."""
    found = np.empty((1 << levels * axes, axes), dtype=np.intp)
    for ranks in np.ndindex(*(1 << levels,) * axes):
        found[band_at(ranks, levels)] = ranks
    return found


def filters() -> str:
    """Figure: taps and frequency responses of the analysis filters."""
    low = np.array([wavelet.ANALYSIS_LOW[abs(i)] for i in range(-wavelet.LOW_REACH, wavelet.LOW_REACH + 1)])
    high = np.array([wavelet.ANALYSIS_HIGH[abs(i)] for i in range(-wavelet.HIGH_REACH, wavelet.HIGH_REACH + 1)])
    taps = Chart(
        (-4.8, 4.8), (-0.95, 0.95), "The taps of the low-pass are a smooth hump; those of the high-pass change sign."
    )
    taps.axes("place of the tap", "tap", [(i, number(i)) for i in range(-4, 5)])
    for values, reach, shift, kind in ((low, 4, -0.12, ""), (high, 3, 0.12, " two")):
        for i, value in zip(range(-reach, reach + 1), values):
            x, y, zero = taps.at_x(i + shift), taps.at_y(value), taps.at_y(0)
            taps.parts.append(f'<path class="curve{kind}" d="M{x:.1f} {zero:.1f}V{y:.1f}"/>')
            taps.dot(i + shift, value, f"fill{kind}", 2.6)
    omega = np.linspace(0, np.pi, 120)
    response = Chart(
        (0, 0.5),
        (0, 1.55),
        "The low-pass lets slow changes through, the high-pass fast ones; they cross in the middle.",
    )
    response.axes("frequency, in cycles a sample", "gain")
    for values, reach, kind in ((low, 4, "curve"), (high, 3, "curve two")):
        gain = np.abs(values @ np.exp(-1j * np.outer(np.arange(-reach, reach + 1), omega)))
        response.curve(omega / (2 * np.pi), gain, kind)
    key = (
        '<ul class="key"><li><i></i>low-pass, 9 taps</li>'
        '<li><i style="--swatch:var(--accent-2)"></i>high-pass, 7 taps</li></ul>'
    )
    return figure(
        grid([taps.svg(), response.svg()]) + key,
        "The two filters that everything begins with. The low-pass takes a weighted mean of nine samples, the "
        "high-pass "
        "what seven samples differ by. Each is computed at every second place only, so that there are as many numbers "
        "after as before: half of them say what is smooth, half what changes.",
        ["4.1", "4.2"],
        [wavelet.analyse],
    )


def mosaic(work: Work) -> str:
    """Figure: the subbands of an image, or of a volume, as a labelled mosaic beside their energies."""
    config = work.codec.config
    axes, levels, per = config.axes, config.J, 1 << config.J * config.axes
    channel = config.channels // 2
    bands = work.bands.reshape(config.channels, per, *work.bands.shape[1:])
    energy = np.square(bands).sum(axis=(0, *range(2, bands.ndim)))
    energy = energy / (energy.sum() or 1.0)
    decibels = 10 * np.log10(np.maximum(energy, 1e-12))
    shown = bands[channel]
    if axes == 3:
        shown = shown[:, shown.shape[1] // 2]  # the middle depth position
    says = [
        f"Subband {k}: {words(k, levels, axes)}. It holds {share(float(energy[k]))} of the energy, "
        f"{number(round(float(decibels[k])))} dB."
        for k in range(per)
    ]
    side = 1 << levels
    cells = []
    for layer in range(side if axes == 3 else 1):
        which = f", depth frequency {layer + 1} of {side}" if axes == 3 else ""
        label = f"Mosaic of {side * side} subbands{which}"
        title = which[2:].capitalize() if which else f"Subbands of channel {channel}"
        cells.append(
            cell(title, _pictures(shown, levels, axes, layer, says, label), "down and across: rising frequency")
        )
        strengths = np.clip(1 + decibels / 60, 0, 1)
        texts = [number(round(float(value))) for value in decibels]
        label += ": energies in decibels of the whole"
        drawn = tiles(texts, strengths, levels, axes, layer, label, shown.shape[1] / shown.shape[2])
        cells.append(cell("Energy, in decibels of the whole", drawn, "all channels together"))
    where = "three axes" if axes == 3 else "both axes"
    depth = (
        " A volume has frequencies in depth as well: each row of this figure is one of them, and what is shown is the "
        "middle depth position."
        if axes == 3
        else ""
    )
    return figure(
        grid(cells) + saying("Point at a tile, or move with the arrow keys, to see which filters made it."),
        f"The transform. Every band is split along {where}, {several(levels, 'time')}, which turns a channel into {per} "
        "small pictures, the subbands: each shows the same scene, through another pair of filters. Blue is below zero, "
        "orange "
        "above, each tile in its own scale. The one in the corner, low-pass throughout, holds "
        f"{share(float(energy[0]))} of the energy; most others hold next to nothing, which is what makes compression "
        f"possible.{depth} The tiles are ordered by frequency; their numbers are those of the specification.",
        ["4.4", "4.5", "4.6"] if axes == 2 else ["4.5", "4.6", "16.2"],
        [wavelet.analyse],
    )


def _layer(levels: int, axes: int, layer: int) -> list[tuple[int, int, int]]:
    """Row, column and number of every subband in a mosaic."""
    side = 1 << levels
    head = (layer,) if axes == 3 else ()
    return [(row, column, band_at((*head, row, column), levels)) for row in range(side) for column in range(side)]


def _pictures(shown: NDArray[np.float64], levels: int, axes: int, layer: int, says: list[str], label: str) -> str:
    """A mosaic of subbands (K, h, w), each in its own scale, that says what is in it."""
    side, (tall, wide) = 1 << levels, shown.shape[1:]
    whole = np.zeros((side * (tall + 1) - 1, side * (wide + 1) - 1))
    width = 360 / side
    height = width * tall / wide
    places = []
    for row, column, k in _layer(levels, axes, layer):
        largest = float(np.percentile(np.abs(shown[k]), 99.5)) or 1.0
        top, left = row * (tall + 1), column * (wide + 1)
        whole[top : top + tall, left : left + wide] = shown[k] / largest
        box = f'x="{column * width:.2f}" y="{row * height:.2f}" width="{width:.2f}" height="{height:.2f}"'
        places.append(f'<rect {box} fill="transparent" data-say="{escape(says[k])}"/>')
    image = (
        f'<image href="{signed_png(whole, 1)}" width="360" height="{side * height:.1f}" preserveAspectRatio="none"/>'
    )
    return drawing(image + probes("".join(places), side, label), 360, side * height, label)


def tiles(
    texts: list[str], strengths: NDArray[np.float64], levels: int, axes: int, layer: int, label: str, ratio: float
) -> str:
    """A mosaic of numbers, one a subband, on a ground as strong as `strengths` says, 0 to 1."""
    side = 1 << levels
    width = 360 / side
    height = max(width * ratio, 13.0)
    parts = []
    for row, column, k in _layer(levels, axes, layer):
        x, y = column * width, row * height
        parts.append(
            f'<rect class="fill two" x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" width="{width - 1:.1f}" '
            f'height="{height - 1:.1f}" opacity="{0.75 * float(strengths[k]):.2f}"/>'
        )
        if side <= 8:
            parts.append(
                f'<text x="{x + width / 2:.1f}" y="{y + height / 2 + 3.6:.1f}" text-anchor="middle" '
                f'style="font-size:{min(11.0, width / 4):.1f}px">{texts[k]}</text>'
            )
    return drawing("".join(parts), 360, side * height, label)


def words(k: int, levels: int, axes: int) -> str:
    """The filters that made a subband, level by level."""
    letters = {1: "LH", 2: ("LL", "LH", "HL", "HH"), 3: None}[axes]
    steps = []
    for level in reversed(range(levels)):
        digit = k >> axes * level & ((1 << axes) - 1)
        steps.append(letters[digit] if letters else "".join("LH"[digit >> axis & 1] for axis in range(axes)))
    return ", then ".join(steps) or "the samples themselves"


def scalogram(work: Work) -> str:
    """Figure: the subbands of audio over time, in the order of their frequencies, and their energies."""
    config, rate = work.codec.config, work.header.rate
    side = 1 << config.J
    bands = work.bands.reshape(config.channels, side, -1)
    order = [band_of_rank(rank) for rank in range(side)]
    power = np.square(bands).mean(axis=0)[order]  # [side, n], low frequencies first
    total = power.sum(axis=1)
    decibels = 10 * np.log10(power + 1e-20)
    columns = -(-power.shape[1] // 900)
    fitted = decibels[:, : power.shape[1] // columns * columns].reshape(side, -1, columns).max(axis=2)
    seconds = power.shape[1] * side / rate
    chart = Chart(
        (0, seconds), (0, rate / 2000), f"Scalogram: energy of {side} subbands over time.", width=560, height=270
    )
    address = heat_png(
        np.clip(fitted[::-1] - max(float(fitted.max()), SILENCE_DB) + SCALOGRAM_DB, 0, None), SCALOGRAM_DB
    )
    chart.raster(address)
    chart.axes("seconds", "kHz")
    part = 10 * np.log10(total / (total.sum() or 1.0) + 1e-12)
    spectrum = Chart(
        (0, rate / 2000), (-80, 0), "Energy of every subband, falling towards high frequencies.", width=560, height=180
    )
    spectrum.axes("kHz", "dB of the whole")
    edges = np.arange(side + 1) * rate / 2000 / side
    shown = np.clip(part, -80, 0)
    spectrum.band(np.repeat(edges, 2)[1:-1], np.full(2 * side, -80.0), np.repeat(shown, 2), "fill")
    half = int(np.searchsorted(np.cumsum(total) / (total.sum() or 1), 0.99)) + 1
    each = rate / 2 / side
    return figure(
        cell(
            "Energy of the subbands over time",
            chart.svg(),
            f"one row a subband, {number(each)} Hz high; one column {number(side / rate * 1000)} ms",
        )
        + cell("The same, summed over time", spectrum.svg()),
        f"The transform, as a scalogram. Every band is split in two, {several(config.J, 'time')}, which turns {side} "
        "samples in a row "
        f"into one number in each of {side} subbands: less knowledge of when, more of how high. Strong colour is loud; "
        f"{number(SCALOGRAM_DB)} dB below the loudest the ground shows. The lowest {half} of {side} subbands hold 99 "
        "% of "
        "the energy of this file. Rows are in the order of frequency, which is not that of the subbands' numbers: "
        "dropping "
        "every second sample behind a high-pass turns the spectrum round.",
        ["4.4", "4.5", "4.6"],
        [wavelet.analyse],
    )
