"""Figures of the rate: which planes the bits go to, and where in the picture, in time or in the volume they go."""

from __future__ import annotations

import numpy as np

from walloc_ref import codec as codecs
from walloc_ref.explain import sight
from walloc_ref.explain.charts import Chart, count, drawing, number, probes, share
from walloc_ref.explain.page import cell, escape, figure, grid, heat_png, saying, slider
from walloc_ref.explain.work import Work
from walloc_ref.fast import entropy as fast_entropy
from walloc_ref.stages import container, entropy

GREY = 0.6
"""Strength of the picture under a heat map."""


def stream(work: Work) -> str:
    """Figure: what the bytes of the stream are."""
    header, total = work.header, len(work.stream)
    found = container.read(work.stream)
    parts = [
        ("slices: the symbols", sum(map(len, found.slices)), ""),
        ("header, lengths and checksums", total - sum(map(len, found.slices)), " two"),
    ]
    x, inner = 0.0, []
    for name, size, kind in parts:
        width = 360 * size / total
        say = f"{name}: {count(size)} bytes, {share(size / total)}"
        inner.append(
            f'<rect class="fill{kind}" x="{x:.2f}" y="0" width="{width:.2f}" height="22" data-say="{escape(say)}"/>'
        )
        x += width
    rows = [
        ("magic and version", work.stream[:5].hex(" "), "10.1"),
        ("model", header.model_id[:6].hex() + "…", "8.8"),
        ("step", number(header.step) + (", weighted" if header.weighted else ""), "6.7"),
        ("symbols", " × ".join(map(str, (header.latent_dim, *header.latent_sizes))), "7.1"),
        ("slices", str(header.slice_count), "10.8"),
        ("hash of the symbols", header.symbol_hash.hex(), "10.9"),
    ]
    table = "".join(f'<tr><td>{a}</td><td class="mono">{escape(b)}</td><td>{c}</td></tr>' for a, b, c in rows)
    alternative = f"Bar of {total} bytes, nearly all of it slices"
    return figure(
        drawing(probes("".join(inner), len(inner), alternative), 360, 22, alternative)
        + '<ul class="key"><li><i></i>slices</li><li><i style="--swatch:var(--accent-2)"></i>everything else</li></ul>'
        + f"<table><thead><tr><th>the header says</th><th></th><th>clause</th></tr></thead><tbody>{table}</tbody></table>"
        + saying("Point at the bar, or move with the arrow keys."),
        f"The stream of {count(total)} bytes. {count(parts[0][1])} of them are symbols, entropy coded; the rest says "
        "what they "
        "are: sizes, step, which model to decode with, and a hash by which a decoder knows that it got every symbol "
        "right.",
        ["10.1", "10.5", "10.8"],
        [codecs.Codec.encode, container.write],
        small=True,
    )


def by_plane(work: Work) -> str:
    """Figure: bits of every plane, as bars."""
    costs = work.costs.reshape(len(work.costs), -1)
    total = costs.sum(axis=1)
    part = total / total.sum()
    planes = len(total)
    chart = Chart(
        (0, planes), (0, 100 * float(part.max()) * 1.08), "Share of the bits of every plane.", width=560, height=210
    )
    step = max(1, planes // 8)
    chart.axes("plane", "per cent of the bits", [(d + 0.5, str(d)) for d in range(0, planes, step)])
    inner = []
    for d in range(planes):
        x, y, right, base = chart.at_x(d + 0.08), chart.at_y(100 * part[d]), chart.at_x(d + 0.92), chart.at_y(0)
        say = (
            f"Plane {d}: {count(round(total[d] / 8))} bytes, {share(float(part[d]))} of all; "
            f"{number(costs[d].mean())} bits a "
            f"symbol, the dearest {number(costs[d].max())} bits."
        )
        inner.append(
            f'<rect class="fill" x="{x:.1f}" y="{y:.1f}" width="{right - x:.1f}" height="{max(base - y, 0.6):.1f}" '
            f'data-say="{escape(say)}"/>'
        )
    chart.parts.append(probes("".join(inner), 1, "Bits of every plane"))
    first = int(np.searchsorted(np.cumsum(np.sort(part)[::-1]), 0.5)) + 1
    return figure(
        chart.svg() + saying("Point at a bar, or move with the arrow keys."),
        f"Where the bits go, plane by plane. {first} of {planes} planes take half of them. These are no estimates: "
        "of every "
        "symbol it was noted how far it shrank the coder's interval, and the logarithm of that is what it costs.",
        ["7.11", "7.12"],
        [fast_entropy.costs, entropy.walk],
    )


def over_the_signal(work: Work) -> str:
    """Figure: bits of every position, over the picture."""
    bits = work.costs.sum(axis=0)
    if work.kind == "audio":
        return _over_time(work)
    unit = {"image": "pixels", "volume": "voxels"}[work.kind]
    edge = work.codec.config.multiple
    grey = work.padded.mean(axis=0, keepdims=True) * GREY
    if work.kind == "image":
        views = [("", sight.image(grey), bits)]
    else:
        z, y, x = (n // 2 for n in bits.shape)
        pictures = sight.slices_of(grey)
        views = [
            (name, sight.shades(part), heat)
            for (name, part), heat in zip(pictures, (bits[z], bits[:, y], bits[:, :, x]))
        ]
    largest = float(np.percentile(bits, 99.5))
    cells = []
    for name, pixels, heat in views:
        what = "The picture in grey, under the bits that every position takes" + (f": {name}" if name else "")
        stack = (
            f'<div class="stack fade"><img src="{sight.jpeg(pixels)}" alt="{what}">'
            f'<img class="pixels" src="{heat_png(heat, largest)}" alt=""></div>'
        )
        cells.append(cell(name, stack) if name else stack)
    body = grid(cells) if len(cells) > 1 else cells[0]
    dear = np.sort(bits.ravel())[::-1].cumsum()
    tenth = float(dear[max(0, bits.size // 10 - 1)] / dear[-1])
    swatch = "linear-gradient(to right,transparent,rgb(205,104,38))"
    key = f'<ul class="key"><li class="ramp">0 <b style="--swatch:{swatch}"></b> {number(largest)} bits</li></ul>'
    sizes = " by ".join([str(edge)] * bits.ndim)
    return figure(
        body + key + slider("heat", "picture", 85, "bits"),
        f"Where the bits go in the picture. A square is a latent position, {sizes} {unit}, with the bits of all its "
        "planes "
        f"together: {number(bits.mean())} on average, {number(bits.max())} at most. The dearest tenth of the "
        "positions takes "
        f"{share(tenth)} of the bits. Where the picture is smooth, or goes on as the coder expects, little has "
        "to be said; edges and textures are what is paid for.",
        ["7.11", "7.12"],
        [fast_entropy.costs, entropy.walk],
    )


def _over_time(work: Work) -> str:
    """`over_the_signal` of audio: bits over time, and by plane and time."""
    rate, edge = work.header.rate, work.codec.config.multiple
    bits = work.costs[:, 1:-1]
    n = bits.shape[1]
    seconds = n * edge / rate
    along = bits.sum(axis=0)
    stretch = -(-n // 700)
    whole = along[: n // stretch * stretch].reshape(-1, stretch).mean(axis=1)
    kilobits = whole * rate / edge / 1000
    chart = Chart((0, seconds), (0, float(kilobits.max()) * 1.08), "Bit rate over time.", width=560, height=190)
    chart.axes("seconds", "kilobits a second")
    chart.band((np.arange(kilobits.size) + 0.5) * stretch * edge / rate, np.zeros(kilobits.size), kilobits)
    drawn = bits[:, : n // stretch * stretch].reshape(len(bits), -1, stretch).mean(axis=2)
    heat = Chart((0, seconds), (len(bits), 0), "Bits of every plane over time.", width=560, height=240)
    heat.raster(heat_png(drawn, float(np.percentile(drawn, 99.7))))
    step = max(1, len(bits) // 5)
    heat.axes("seconds", "plane", None, [(d + 0.5, str(d)) for d in range(0, len(bits), step)])
    return figure(
        cell("Bit rate over time", chart.svg()) + cell("Bits of every plane over time", heat.svg()),
        f"Where the bits go in time. On average a second takes {number(along.mean() * rate / edge / 1000)} kilobits; "
        "it is more "
        "where something begins, because the coder predicts from what was before, and less where a sound goes on as "
        "it was "
        "or stops.",
        ["7.11", "7.12"],
        [fast_entropy.costs, entropy.walk],
    )
