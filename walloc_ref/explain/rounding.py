"""Figures of the quantiser: the companding curve with its thresholds, and the planes of symbols with their histograms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from walloc_ref.explain import latents
from walloc_ref.explain.charts import Chart, number, share
from walloc_ref.explain.page import cell, figure, grid, heat_png, picture, signed_png
from walloc_ref.explain.work import Work
from walloc_ref.stages import quantise

MOST_PLANES = {"image": 48, "audio": 24, "volume": 48}
"""Planes that are drawn, those that cost most."""

COLUMNS = 900
"""Positions of a plane of audio that are drawn; of more, the largest of each stretch."""


def companding(work: Work) -> str:
    """Figure: the companding curve, whole and near zero, with this file's values below and beside it."""
    bits = work.codec.config.latent_bits
    last, s = quantise.last_symbol(bits), quantise.scale(bits)
    values = (work.latents / work.steps).ravel()
    reach = float(np.clip(np.abs(values).max() * 1.05, 2.6 * s, 4 * s))
    whole = _curve(values, reach, bits, "The companding curve: steep in the middle, flat at both ends.")
    near = _curve(
        values, min(6.6, 3 * s), bits, "Near zero the curve is a staircase of about equal steps.", stairs=True
    )
    beyond = float(np.mean(np.abs(work.symbols) == last))
    zeros = float(np.mean(work.symbols == 0))
    ones = float(np.mean(np.abs(work.symbols) == 1))
    t = quantise.thresholds(bits)[last:]
    table = quantise.dequantiser_table(bits)[last:]
    shown = [k for k in (1, 2, 3, 10, 50, last) if 0 < k <= last]
    rows = "".join(
        f"<tr><td>{k}</td><td>{t[k - 1]:.3f}</td><td>{f'{t[k]:.3f}' if k < last else '∞'}</td><td>{table[k]:.3f}</td></tr>"
        for k in dict.fromkeys(shown)
    )
    key = (
        '<ul class="key"><li><i></i>the curve v(y), and the steps that rounding makes of it</li>'
        '<li><i style="--swatch:var(--accent-2)"></i>how many latents of this file lie where</li>'
        '<li><i style="--swatch:var(--muted)"></i>thresholds</li></ul>'
    )
    table_html = (
        '<div class="centre"><table><thead><tr><th>symbol</th><th>from latent</th><th>up to</th><th>decoded as</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )
    return figure(
        grid([cell("The whole curve", whole), cell("Near zero", near)]) + key + table_html,
        "Companding and rounding. A latent, divided by its step, goes across; the curve, the normal distribution "
        "function "
        f"stretched to ±{quantise.latent_max(bits) + quantise.GUARD:g}, bends it; rounding to the nearest whole "
        "number makes it a "
        f"symbol of {bits} bits. Where latents are common the curve is steep and thresholds lie close; far out it is "
        "flat, "
        "and rare large values share a symbol, so that none ever falls off the end. In this file "
        f"{share(zeros)} of all symbols are 0, {share(ones)} are ±1, and {share(beyond)} stand at the last symbol. "
        "The decoder "
        "has no curve, only a table: every symbol becomes the latent in the last column.",
        ["6.1", "6.2", "6.3", "6.4"],
        [quantise.compand, quantise.thresholds, quantise.quantise, quantise.dequantise],
    )


def _curve(values: NDArray[np.float64], reach: float, bits: int, what: str, *, stairs: bool = False) -> str:
    """The curve within ±reach, with the density of latents below it."""
    y = np.linspace(-reach, reach, 401)
    v = quantise.compand(y, bits)
    high = float(v[-1])
    chart = Chart((-reach, reach), (-high * 1.04, high * 1.04), what, height=260)
    chart.axes("latent y, over its step", "symbol v")
    edges = np.linspace(-reach, reach, 81)
    counts, _ = np.histogram(values, edges)
    density = np.log1p(counts) / (np.log1p(counts.max()) or 1.0)
    base = -high * 1.04
    chart.band(
        np.repeat(edges, 2)[1:-1], np.full(160, base), base + 0.62 * high * np.repeat(density, 2), "fill two faint"
    )
    thresholds = quantise.thresholds(bits)
    inside = thresholds[np.abs(thresholds) <= reach]
    bottom = chart.at_y(base)
    marks = "".join(f"M{chart.at_x(t):.2f} {bottom:.1f}v-{7 if stairs else 5}" for t in inside)
    chart.parts.append(f'<path class="axis" d="{marks}" style="stroke-width:{1 if stairs else 0.5}"/>')
    if stairs:
        chart.curve(y, v, "curve faint")
        steps = np.concatenate([[-reach], np.repeat(inside, 2), [reach]])
        levels = quantise.quantise(np.concatenate([[-reach], (inside[:-1] + inside[1:]) / 2, [reach]]), bits)
        chart.curve(steps, np.repeat(levels, 2), "curve")
    else:
        chart.curve(y, v, "curve")
    return chart.svg()


def planes(work: Work) -> str:
    """Figure: planes of symbols as pictures, each with its histogram and what it costs."""
    costs = work.costs.reshape(len(work.costs), -1)
    shown = latents.chosen(work, MOST_PLANES[work.kind])
    config = work.codec.config
    cells = []
    for d in shown:
        plane = work.symbols[d]
        title = f"{d} <span class='muted'>{number(float(costs[d].mean()))} bits</span>"
        cells.append(cell(title, _plane(plane, d) + _histogram(plane, d, 220 if plane.ndim == 1 else 120)))
    what = {
        "image": "Each latent, at all positions, is a small picture: a plane.",
        "audio": "Each latent, at all positions, is a row of numbers over time, a plane, shown by their size.",
        "volume": "Each latent, at all positions, is a small volume: a plane, of which the middle depth position is shown.",
    }[work.kind]
    few = f" The {len(shown)} planes of {config.planes} that cost most are shown." if len(shown) < config.planes else ""
    width = {"image": 8, "audio": 15, "volume": 6}[work.kind]
    return figure(
        grid(cells, width, "few" if work.kind == "audio" else "few tight"),
        f"Planes of symbols, each under its number, with what a symbol of it costs on average. {what} Orange is "
        "above zero, "
        "blue below, every plane in its own scale. Below each the histogram of its symbols, on a scale of square "
        "roots: the "
        f"narrower, the fewer bits.{few} What can still be recognised in a plane, the entropy coder "
        "can predict.",
        ["6.2", "6.7"],
        [quantise.quantise, quantise.plane_steps],
    )


def _plane(plane: NDArray[np.int16], d: int) -> str:
    """A plane as a picture."""
    if plane.ndim == 1:
        stretch = -(-plane.size // COLUMNS)
        padded = np.abs(np.pad(plane, (0, -plane.size % stretch)).reshape(-1, stretch)).max(axis=1)
        strip = heat_png(np.repeat(padded[None], 2, axis=0), max(1.0, float(np.percentile(padded, 99))))
        element = f'<img class="pixels" style="height:100%" src="{strip}" alt="Plane {d} over time">'
        return f'<div style="height:1.6rem;overflow:hidden">{element}</div>'
    shown = plane[plane.shape[0] // 2] if plane.ndim == 3 else plane
    return picture(signed_png(shown, max(1.0, float(np.percentile(np.abs(shown), 99)))), f"Plane {d}", pixels=True)


def _histogram(plane: NDArray[np.int16], d: int, wide: float) -> str:
    """The histogram of a plane's symbols, without axes but for zero."""
    from walloc_ref.explain.charts import drawing

    reach = max(3, int(np.percentile(np.abs(plane), 99.5)))
    counts, edges = np.histogram(np.clip(plane, -reach, reach), np.arange(-reach - 0.5, reach + 1))
    heights = 26 * np.sqrt(counts / counts.max())
    x = (edges + reach + 0.5) / (2 * reach + 1) * wide
    bars = "".join(f"M{a:.1f} 28v-{h:.1f}H{b:.1f}V28Z" for a, b, h in zip(x, x[1:], heights) if h > 0)
    ends = (
        f'<text x="0" y="39" class="dim" style="font-size:9px">−{reach}</text>'
        f'<text x="{wide / 2:g}" y="39" class="dim" text-anchor="middle" style="font-size:9px">0</text>'
        f'<text x="{wide:g}" y="39" class="dim" text-anchor="end" style="font-size:9px">{reach}</text>'
    )
    inner = f'<path class="fill" d="{bars}"/><path class="axis" d="M0 28.5H{wide:g}"/>{ends}'
    zeros = share(float(np.mean(plane == 0)))
    return drawing(inner, wide, 42, f"Histogram of plane {d}: {zeros} are zero, most within ±{reach}")
