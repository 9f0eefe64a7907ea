"""Figures of the projection: the matrix, what it keeps, and what each latent looks for and puts back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from walloc_ref.explain import sight, transform
from walloc_ref.explain.charts import Chart, number, share
from walloc_ref.explain.page import cell, figure, grid, heat_png, indexed_png, picture, signed_png
from walloc_ref.explain.work import Work, decibels, linear_back
from walloc_ref.measure import linear_decoder
from walloc_ref.stages import autoencoder_kl, projection, wavelet

MOST_FUNCTIONS = 16
"""Latents whose functions are drawn, those that cost most."""

MOST_WAVEFORMS = 6
"""The same of audio."""

POSITIONS = 12
"""Latent positions along an axis on which a synthesis function is made; it reaches over nine."""

COLOURS = 96
"""Colours of a small picture of a function."""


# ---- functions in the signal domain ------------------------------------------------------------------------------------


def analysis_along(levels: int) -> NDArray[np.float64]:
    """Along one axis, the analysis function of every band at position 0: (2^levels, 10·2^levels), sample 0 in the middle.

    y[k] = Σ taps[i]·x[2·k + d + i], d = 0 of the low-pass and 1 of the high-pass, level after level; so the taps of a level
    lie 2^level samples apart.
    """
    middle = 5 << levels
    found = np.zeros((1 << levels, 2 * middle))
    for band in range(1 << levels):
        function, start = np.ones(1), 0
        for level in range(levels):
            high = band >> levels - 1 - level & 1
            half = wavelet.ANALYSIS_HIGH if high else wavelet.ANALYSIS_LOW
            reach = len(half) - 1
            spread = np.zeros((2 * reach << level) + 1)
            spread[:: 1 << level] = [half[abs(i)] for i in range(-reach, reach + 1)]
            function = np.convolve(function, spread)
            start += (high - reach) << level
        found[band, middle + start : middle + start + function.size] = function
    return found


def synthesis_along(levels: int) -> NDArray[np.float64]:
    """The same of synthesis: what one coefficient of every band becomes."""
    unit = np.zeros((1 << levels, 1 << levels, POSITIONS))
    unit[range(1 << levels), range(1 << levels), POSITIONS // 2] = 1
    found = wavelet.synthesise(unit.reshape(-1, POSITIONS), levels)  # one channel for each band: [2^J, n]
    middle = POSITIONS // 2 << levels
    return found[:, middle - (5 << levels) : middle + (5 << levels)]


def functions_of(weights: NDArray[np.float64], along: NDArray[np.float64], channels: int, axes: int) -> NDArray:
    """Functions of latents (D, C, …) from their weights of subbands (D, K) and the functions of bands along an axis."""
    levels = len(along).bit_length() - 1
    numbers = np.empty((1 << levels,) * axes, dtype=np.intp)
    for bands in np.ndindex(*numbers.shape):
        numbers[bands] = sum(
            (bands[a] >> level & 1) << (axes * level + a) for a in range(axes) for level in range(levels)
        )
    part = slice(3 << levels, 8 << levels)  # from two positions before to three after: there is next to nothing beyond
    function = weights.reshape(len(weights), channels, -1)[:, :, numbers]  # [D, C, 2^J, …]
    for _ in range(axes):
        function = np.tensordot(
            function, along[:, part], axes=(2, 0)
        )  # the first axis of bands becomes the last of samples
    return function


def chosen(work: Work, most: int) -> list[int]:
    """The planes that cost most, in their order."""
    costs = work.costs.reshape(len(work.costs), -1).sum(axis=1)
    return sorted(np.argsort(-costs, kind="stable")[:most].tolist())


def of_network(detail: Work, planes: list[int]) -> NDArray[np.float64] | None:
    """What the decoder adds for one more latent in the middle of the detail: (planes, C, …); None if that is small."""
    config, functions = detail.codec.config, detail.codec.stages
    middle = tuple(n // 2 for n in detail.latents_back.shape[1:])
    if config.record.block is None or min(middle) < 3 or config.axes == 1:
        return None
    around = tuple(slice(at - 2 << config.J, at + 3 << config.J) for at in middle)

    def decode(latents: NDArray[np.float64]) -> NDArray[np.float64]:
        bands = config.record.to_bands(latents, detail.codec.model, detail.header, functions)
        whole = functions.synthesise(bands, config.J)
        return np.stack([channel[around] for channel in whole])

    ground, found = decode(detail.latents_back), []
    for d in planes:
        raised = detail.latents_back.copy()
        usual = float(np.sqrt(np.mean(np.square(detail.latents[d]))))
        raised[d][middle] += max(usual, float(detail.steps[d].ravel()[0]))
        found.append(decode(raised) - ground)
    return np.stack(found)


def function_picture(function: NDArray[np.float64], what: str) -> str:
    """A function (C, …) of an image, or of a volume in its middle depth, as a picture; grey, or the ground, is zero."""
    if function.ndim == 4:
        depth = int(np.argmax(np.square(function).sum(axis=(0, 2, 3))))
        function = function[:, depth]
    largest = float(np.abs(function).max()) or 1.0
    if len(function) == 3:
        from PIL import Image

        few = Image.fromarray(sight.image(0.5 * function / largest)).quantize(COLOURS)
        table = np.asarray(few.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        palette = np.full((256, 4), 255, np.uint8)
        palette[: len(table), :3] = table
        return picture(indexed_png(np.asarray(few), palette), what, pixels=True)
    return picture(signed_png(function.mean(axis=0), largest), what, pixels=True)


# ---- figures -----------------------------------------------------------------------------------------------------------


def matrix(work: Work) -> str:
    """Figure: the matrix of the projection, subbands in the order of frequency."""
    config = work.codec.config
    weight = work.codec.model.weights["encoder"]["weight"]  # [D, K]
    weight = weight.reshape(len(weight), -1)
    ranks = transform.ranks_of_bands(config.J, config.axes)
    order = np.lexsort((*ranks.T, ranks.sum(axis=1)))
    columns = np.concatenate([order + c * len(order) for c in range(config.channels)])
    rows = weight[:, columns] / (np.abs(weight).max(axis=1, keepdims=True) + 1e-30)
    height = min(260.0, max(120.0, 480 / rows.shape[1] * rows.shape[0]))
    what = f"The matrix of {len(rows)} latents by {rows.shape[1]} subbands"
    chart = Chart((0, rows.shape[1]), (len(rows), 0), what, width=480, height=height + 44)
    chart.raster(signed_png(rows, 1))
    per = len(order)
    marks = [(c * per, f"channel {c}") for c in range(config.channels)] if config.channels <= 8 else [(0, "0")]
    step = max(1, len(rows) // 6)
    chart.axes(
        "subbands, from low frequencies to high",
        "latents",
        marks,
        [(d + 0.5, str(d)) for d in range(0, len(rows), step)],
    )
    kind = {"image": "4.6", "audio": "11.5", "volume": "16.4"}[work.kind]
    factor = rows.shape[1] / len(rows)
    fewer = f"{number(factor)} times fewer" if factor > 1 else "as many"
    return figure(
        chart.svg(),
        f"The projection is one matrix: at every position, {rows.shape[1]} numbers of the subbands become {len(rows)} "
        f"latents, {fewer}. Each row says how a latent is mixed, each in its "
        "own "
        "scale: orange adds, blue subtracts. Most rows listen to a few low subbands; where several channels appear "
        "in one "
        "row, the latent knows what they have in common. This and the transform are all that the encoder computes "
        "before "
        "it rounds.",
        ["5.1", kind],
        [projection.project],
    )


def kept(work: Work, back: NDArray[np.float64]) -> str:
    """Figure: how much of each subband the latents keep, before anything is rounded."""
    config = work.codec.config
    per = 1 << config.J * config.axes
    bias = work.codec.model.weights["encoder"]["bias"]
    latents = work.latents
    if work.kind == "audio":
        latents = latents[:, projection.BORDER : -projection.BORDER]
    estimate = back @ (latents.reshape(len(latents), -1) - bias[:, None])  # [K, N]
    bands = work.bands.reshape(len(estimate), -1)
    lost = np.square(bands - estimate).reshape(config.channels, per, -1).sum(axis=(0, 2))
    energy = np.square(bands).reshape(config.channels, per, -1).sum(axis=(0, 2))
    part = np.clip(1 - lost / np.maximum(energy, 1e-12), 0, 1)
    total = 1 - float(lost.sum()) / (float(energy.sum()) or 1.0)
    quality = decibels(work.signal, linear_back(work, back, work.latents))
    if config.axes == 1:
        order = [transform.band_of_rank(rank) for rank in range(per)]
        edges = np.arange(per + 1) * work.header.rate / 2000 / per
        chart = Chart(
            (0, float(edges[-1])),
            (0, 100),
            "Share of each subband that is kept, over frequency.",
            width=560,
            height=190,
        )
        chart.axes("kHz", "per cent of the energy kept")
        chart.band(np.repeat(edges, 2)[1:-1], np.zeros(2 * per), np.repeat(100 * part[order], 2))
        body = chart.svg()
    else:
        texts = [f"{round(100 * float(value))}" for value in part]
        layers = range(1 << config.J) if config.axes == 3 else range(1)
        cells = [
            cell(
                f"Depth frequency {layer + 1} of {1 << config.J}"
                if config.axes == 3
                else "Per cent kept of each subband",
                transform.tiles(
                    texts,
                    part,
                    config.J,
                    config.axes,
                    layer,
                    "Per cent kept of each subband, low frequencies first",
                    0.62,
                ),
            )
            for layer in layers
        ]
        body = grid(cells) if len(cells) > 1 else f'<div class="centre">{cells[0]}</div>'
    return figure(
        body,
        f"What the projection keeps. From {len(back.T)} latents, not yet rounded, the best linear guess at the "
        f"{len(back)} subbands has {share(total)} of their energy back. The share is shown for each subband, in the "
        "order "
        "of the mosaic: where it is low, the detail is gone before any bit is counted. The linear decoder that "
        "belongs to this "
        f"encoder gets to {number(quality)} dB on this file, however many bits it had; what a network does better, "
        "it does by "
        "knowing what such files are usually like.",
        ["5.1", "5.2"],
        [projection.project, linear_decoder.matrix],
    )


def functions(work: Work, detail: Work, back: NDArray[np.float64]) -> str:
    """Figure: each latent's analysis and synthesis function, and what the network adds for one latent."""
    if work.kind == "audio":
        return _functions_of_audio(work, back)
    config = work.codec.config
    planes = chosen(work, MOST_FUNCTIONS)
    weight = work.codec.model.weights["encoder"]["weight"].reshape(config.planes, -1)
    looked = functions_of(weight[planes], analysis_along(config.J), config.channels, config.axes)
    put = functions_of(back.T[planes], synthesis_along(config.J), config.channels, config.axes)
    made = of_network(detail, planes)
    nonlinear = made is not None
    cells = []
    for i, d in enumerate(planes):
        pictures = [
            function_picture(looked[i], f"Analysis function of latent {d}"),
            function_picture(put[i], f"Synthesis function of latent {d}"),
        ]
        if made is not None:
            pictures.append(function_picture(made[i], f"What the network adds for latent {d}"))
        inner = "".join(f"<div>{one}</div>" for one in pictures)
        cells.append(cell(f"latent {d}", f'<div class="row">{inner}</div>'))
    few = f" The {len(planes)} latents that cost most are shown." if len(planes) < config.planes else ""
    side = 5 << config.J
    ground = (
        "Grey is zero, colours are those of the channels."
        if config.channels == 3
        else "Orange is above zero, blue below."
    )
    network = (
        " Right, what this model's decoder, which is a network, adds if this latent alone is raised in the middle of "
        "a part "
        "of this picture: near the linear pattern, but bent by what stands around it."
        if nonlinear
        else ""
    )
    return figure(
        grid(cells, 13 if nonlinear else 9, "few"),
        f"What each latent looks for, and puts back, in squares of {side} by {side} samples. Left, the analysis "
        "function: "
        "the latent is the sum of the samples under it, times this picture. Next to it the synthesis function: what "
        "the "
        f"linear decoder adds to the picture for a latent of one.{network} {ground} Usually brightness and colour of a "
        f"whole area come first, then edges and stripes of rising frequency.{few}",
        ["4.2", "4.7", "5.1", "9.8" if nonlinear else "5.2"],
        [wavelet.analyse, wavelet.synthesise, projection.project, *([autoencoder_kl.decode] if nonlinear else [])],
    )


def _functions_of_audio(work: Work, back: NDArray[np.float64]) -> str:
    """`functions` of audio: frequencies of all latents, and some waveforms."""
    config, rate = work.codec.config, work.header.rate
    per = 1 << config.J
    weight = work.codec.model.weights["encoder"]["weight"].reshape(config.planes, -1)
    order = [transform.band_of_rank(rank) for rank in range(per)]
    heard = np.sqrt(np.square(weight.reshape(len(weight), config.channels, per)).sum(axis=1))[:, order]
    heard /= heard.max(axis=1, keepdims=True) + 1e-30
    top = float(rate) / 2000
    chart = Chart((0, top), (config.planes, 0), "Which frequencies every latent listens to.", width=560, height=240)
    chart.raster(heat_png(heard, 1))
    step = max(1, config.planes // 5)
    chart.axes("kHz", "latents", None, [(d + 0.5, str(d)) for d in range(0, config.planes, step)])
    planes = chosen(work, MOST_WAVEFORMS)
    looked = functions_of(weight[planes], analysis_along(config.J), config.channels, 1)
    put = functions_of(back.T[planes], synthesis_along(config.J), config.channels, 1)
    cells = []
    for i, d in enumerate(planes):
        span = looked.shape[-1] / rate * 1000
        drawn = Chart(
            (0, span), (-1.1, 1.1), f"Waveform that latent {d} looks for, and the one it puts back.", height=150
        )
        drawn.axes("milliseconds", "", None, [(0, "0")])
        times = np.arange(looked.shape[-1]) / rate * 1000
        for function, kind in ((put[i], "curve two"), (looked[i], "curve")):
            one = function[int(np.argmax(np.square(function).sum(axis=1)))]
            drawn.curve(times, one / (np.abs(one).max() or 1.0), kind)
        cells.append(cell(f"latent {d}", drawn.svg()))
    key = (
        '<ul class="key"><li><i></i>analysis: what it looks for</li>'
        '<li><i style="--swatch:var(--accent-2)"></i>synthesis: what the linear decoder puts back</li></ul>'
    )
    return figure(
        cell("Frequencies that each latent listens to", chart.svg(), "each row in its own scale")
        + grid(cells, 17)
        + key,
        "What each latent looks for, and puts back. Above, one row for each latent: the subbands that it is mixed "
        "from. "
        f"Below, the {len(planes)} latents that cost most as waveforms in time, of the channel in which they are "
        "louder, each "
        "scaled to its largest value: the latent is the sum of the samples times the blue curve.",
        ["4.2", "4.7", "5.1", "11.5"],
        [wavelet.analyse, wavelet.synthesise, projection.project],
    )


def full_encoder(work: Work) -> str:
    """In place of the figures of a projection, where an encoder is a network or works in stages."""
    config = work.codec.config
    stages = "in stages, each of what the ones before have left" if config.record.in_stages else "by a network"
    where = {"image": "stages/autoencoder_kl.py: encode", "audio": "stages/oobleck.py: encode"}.get(work.kind, "")
    return f"<p>The encoder of this model makes its latents {stages} ({where}): there is no single matrix to show.</p>"
