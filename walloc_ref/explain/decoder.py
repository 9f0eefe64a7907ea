"""Figures of the decoder: what each of its stages adds, and what the codec as a whole makes of an impulse."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from walloc_ref import codec as codecs
from walloc_ref.explain import latents as functions_of_latents
from walloc_ref.explain import sight
from walloc_ref.explain.charts import Chart, number
from walloc_ref.explain.page import cell, figure, grid, picture, png, signed_png
from walloc_ref.explain.work import Work, decibels, linear_back
from walloc_ref.stages import autoencoder_kl, oobleck, projection, quantise, wavelet

BLOCKS = ("conv_in", "mid.resnet0", "mid.attention", "mid.resnet1", "up.resnet0", "up.resnet1", "up.resnet2")
"""Blocks of the image decoder before its head (SPEC.md 9.8)."""

NAMES = {
    "conv_in": "first convolution",
    "mid.resnet0": "residual block",
    "mid.attention": "attention",
    "mid.resnet1": "residual block",
    "up.resnet0": "residual block",
    "up.resnet1": "residual block",
    "up.resnet2": "residual block, the last",
}
"""The same, in words."""

STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Numbers of planes that a linear decoder is shown with."""


# ---- stages ------------------------------------------------------------------------------------------------------------


def stages(detail: Work, back: NDArray[np.float64] | None) -> str:
    """Figures of what every stage of the decoder adds."""
    found = [] if back is None else [plane_by_plane(detail, back)]
    if detail.codec.config.architecture == "Codec2D":
        found.append(through_the_network(detail))
    if detail.kind == "audio":
        found.append(audio_network(detail, back))
    return "\n".join(found)


def signal_of(work: Work, bands: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subbands to the clamped and cropped signal, as `image.symbols_to_signal` ends."""
    config, functions = work.codec.config, work.codec.stages
    return functions.crop(functions.clamp(functions.synthesise(bands, config.J)), work.header.sizes, config.multiple)


def plane_by_plane(work: Work, back: NDArray[np.float64]) -> str:
    """Figure: the linear decoder with the first planes alone, then with more and more of them."""
    bias = work.codec.model.weights["encoder"]["bias"]
    order = np.argsort(-np.square(back).sum(axis=0) * np.square(work.latents_back).reshape(len(bias), -1).mean(axis=1))
    numbers = [n for n in STEPS if n < len(bias)] + [len(bias)]
    if len(numbers) > 6:
        numbers = [numbers[i] for i in np.unique(np.round(np.linspace(0, len(numbers) - 1, 6)).astype(int))]
    empty = bias.reshape(-1, *(1,) * (work.latents_back.ndim - 1)) * np.ones_like(work.latents_back)
    pictures, qualities = [], []
    for n in numbers:
        y = empty.copy()
        y[order[:n]] = work.latents_back[order[:n]]
        x = linear_back(work, back, y)
        qualities.append(decibels(work.signal, x))
        title = f"{n} plane{'s' if n > 1 else ''} <span class='muted'>{number(qualities[-1])} dB</span>"
        if work.kind == "image":
            pictures.append(
                cell(title, picture(sight.jpeg(sight.image(x), sight.DETAIL_BYTES), f"Decoded from {n} planes"))
            )
        elif work.kind == "volume":
            name, middle = sight.slices_of(x)[0]
            pictures.append(cell(title, picture(png(sight.shades(middle)), f"{n} planes: {name}", pixels=True)))
    pictures += _reference(work)
    if work.kind == "audio":
        chart = Chart(
            (0, float(np.log2(numbers[-1]))), (0, max(qualities) * 1.1), "Quality rises with the planes.", height=190
        )
        chart.axes("planes", "dB", [(float(np.log2(n)), str(n)) for n in numbers])
        chart.curve(np.log2(numbers), qualities)
        for n, quality in zip(numbers, qualities):
            chart.dot(float(np.log2(n)), quality)
        body = f'<div class="centre">{chart.svg()}</div>'
    else:
        body = grid(pictures, 6.8)
    linear = work.codec.config.record.block is None
    whose = (
        "This model's decoder is just that, one matrix and the inverse transform."
        if linear
        else "This model does not decode so; it is what its network is to be measured against."
    )
    clauses = ["5.2", "4.7", "6.4"] if work.kind != "volume" else ["16.4", "4.7", "6.4"]
    return figure(
        body,
        "A linear decoder, plane by plane, on the detail. Each plane adds its latents times its synthesis functions, "
        "the "
        f"most important planes first; those that are not there yet count as zero. {whose}",
        clauses,
        [quantise.dequantise, projection.project, wavelet.synthesise],
    )


def _reference(work: Work) -> list[str]:
    """The original, to compare with."""
    if work.kind == "image":
        return [
            cell(
                "the original", picture(sight.jpeg(sight.image(work.signal), sight.DETAIL_BYTES), "The original detail")
            )
        ]
    if work.kind == "volume":
        name, middle = sight.slices_of(work.signal)[0]
        return [cell("the original", picture(png(sight.shades(middle)), f"The original: {name}", pixels=True))]
    return []


def through_the_network(work: Work) -> str:
    """Figure: what the head of the decoder makes of every block's output, and how much every block changes."""
    weights = work.codec.model.weights["decoder"]
    x = work.latents_back
    cells, previous = [], None
    final = autoencoder_kl.decode(work.latents_back, weights)
    changes = []
    for block in BLOCKS:
        before = x
        x = autoencoder_kl.block("decoder", block, x, weights)
        changes.append(1.0 if block == "conv_in" else float(np.linalg.norm(x - before) / np.linalg.norm(x)))
        seen = signal_of(work, autoencoder_kl.head(x, weights))
        quality = decibels(work.signal, seen)
        note = "" if previous is None else f"changes {number(100 * changes[-1])} % of what passes through"
        cells.append(
            cell(
                f"{NAMES[block]}<br><span class='muted'>{number(quality)} dB</span>",
                picture(sight.jpeg(sight.image(seen), sight.DETAIL_BYTES), f"The picture after: {NAMES[block]}"),
                note,
            )
        )
        previous = seen
    assert np.allclose(autoencoder_kl.head(x, weights), final)
    return figure(
        grid(cells + _reference(work), 11),
        "What each block of the network adds, on the detail. Between the first convolution and the last one (the "
        "head), "
        "every block adds something to what passes through. Here the head was asked early: after each block, as if "
        "it were "
        "the last. It was never trained for that, so the first pictures are what it makes of unfinished thoughts; "
        "the last "
        "one is what the decoder gives. Below each picture, how much the block changed.",
        ["9.2", "9.5", "9.6", "9.8"],
        [autoencoder_kl.decode, autoencoder_kl.block, autoencoder_kl.residual, autoencoder_kl.attention],
    )


def audio_network(work: Work, back: NDArray[np.float64] | None) -> str:
    """Figure: spectrograms of what is left wrong by the linear decoder, by the network, and after the post filter."""
    config, functions = work.codec.config, work.codec.stages
    rate, frames = work.header.rate, work.header.sizes[0]
    found = []
    if back is not None:
        found.append(("A linear decoder", linear_back(work, back, work.latents_back)))
    bands = functions.audio_decoder(work.latents_back, work.codec.model.weights["decoder"])
    x = functions.synthesise(bands, config.J)
    found.append(("The network", functions.clamp(x)[:, :frames]))
    if config.post_filter:
        x = functions.post_filter(x, **work.codec.model.weights["post"])
        found.append(("The network and the post filter", functions.clamp(x)[:, :frames]))
    loudest = sight.loudest(sight.spectrogram(work.signal))
    seconds = frames / rate
    cells = [
        cell(
            f"{name} <span class='muted'>{number(decibels(work.signal, heard))} dB</span>",
            sight.spectrogram_picture(
                sight.spectrogram(work.signal - heard), loudest, rate, seconds, f"What is wrong after: {name}"
            ),
        )
        for name, heard in found
    ]
    return figure(
        grid(cells, 17),
        "What each stage of the decoder adds, on the detail: spectrograms of what is still wrong, on the scale of the "
        "original. The less colour, the better. A linear decoder leaves most of what the latents do not hold; the "
        "network "
        "guesses some of it from what music is usually like"
        + ("; the post filter evens out what the transform leaves behind." if config.post_filter else "."),
        ["11.6", "11.9", "11.10", *(["11.12"] if config.post_filter else [])],
        [oobleck.decode, oobleck.residual_unit, *([oobleck.post_filter] if config.post_filter else [])],
    )


# ---- the impulse response ----------------------------------------------------------------------------------------------


def impulse(work: Work) -> str:
    """Figure: what the whole codec makes of an impulse, at several places within a latent position."""
    config = work.codec.config
    multiple = config.multiple
    size = functions_of_latents.POSITIONS * multiple
    middle, step, codec = size // 2, work.header.step, work.codec
    shape = (config.channels, *(size,) * config.axes)
    dark = 0.0 if config.axes == 1 else -0.5  # silence, or black
    flat = np.full(shape, dark)
    part = slice(middle - 2 * multiple, middle + 3 * multiple)

    def answer(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return codec.from_symbols(codec.to_symbols(x, step=step), shape, step=step)

    ground, cells = answer(flat), []
    for offset in sorted({0, multiple // 4, multiple // 2, multiple - 1}):
        x = flat.copy()
        place = (slice(None),) + (middle + offset,) * config.axes
        x[place] = 0.5
        back = answer(x) - ground
        peak = float(back[place].mean()) / (0.5 - dark)
        energy = float(np.square(back).sum() / np.square(x - flat).sum())
        note = f"{number(100 * peak)}\u202f% of its height and {number(100 * energy)}\u202f% of its energy come back"
        title = f"{offset} sample{'' if offset == 1 else 's'} into the position"
        what = f"Answer to an impulse, {title}"
        if config.axes == 1:
            heard = back[0, part]
            reach = max(0.02, float(np.abs(heard).max()))
            chart = Chart((-2.0 * multiple, 3.0 * multiple), (-1.1 * reach, 1.1 * reach), what, height=150)
            chart.axes("samples", "")
            chart.curve(np.arange(heard.size) - 2 * multiple, heard)
            cells.append(cell(title, chart.svg(), note))
            continue
        seen = back.mean(axis=0)
        if config.axes == 3:
            seen = seen[middle + offset]
        seen = seen[part, part]
        cells.append(cell(title, picture(signed_png(seen, float(np.abs(seen).max())), what, pixels=True), note))
    kinds = {"image": "one white pixel on black", "audio": "one click in silence", "volume": "one white voxel in black"}
    return figure(
        grid(cells, 17 if config.axes == 1 else 10),
        f"The impulse response of the whole codec: {kinds[work.kind]}, encoded with step {number(step)} and decoded. "
        "A lossless "
        "codec would give a single point back. What comes instead is the point, spread over the functions of those "
        "latents "
        f"that are kept, and rounded. It differs with the place, because the transform works on a grid of {multiple} "
        "samples. "
        "Orange is above the ground, blue below, each picture in its own scale.",
        ["4.5", "5.1", "6.2", "4.7"],
        [codecs.Codec.to_symbols, codecs.Codec.from_symbols],
    )
