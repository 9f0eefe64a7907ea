"""Figures of what goes in and what comes out: the file, original and decoded, their difference, and rate against step."""

from __future__ import annotations

import numpy as np

from walloc_ref import codec as codecs
from walloc_ref.codec import Codec
from walloc_ref.explain import sight
from walloc_ref.explain.charts import Chart, count, number, probes
from walloc_ref.explain.page import cell, figure, grid, saying, slider
from walloc_ref.explain.work import Work, coded, decibels
from walloc_ref.files.media import Media
from walloc_ref.measure import sheet
from walloc_ref.stages import signal

STEPS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
"""Steps of the curve of rates, times that of the file."""

MAGNIFIED = 64
"""Side of the squares that are shown enlarged, in samples."""

INSTANT = 0.012
"""Seconds of a waveform that are shown enlarged."""


def what_goes_in(work: Work, window: tuple[slice, ...]) -> str:
    """Figure: the file; in an image a frame around the detail."""
    if work.kind == "audio":
        return _audio_in(work)
    shown = sight.pictures(work.signal, work.kind, "The file that is explained", exact=work.kind != "image")
    cells = [cell(title, element) if title else element + _frame(work, window) for title, element in shown]
    cells = [one if one.startswith("<div") else f'<div class="stack">{one}</div>' for one in cells]
    edges = np.linspace(-0.5, 0.5, 129)
    few = len(work.signal) <= 3
    counts = [np.histogram(channel, edges)[0] for channel in (work.signal if few else [work.signal])]
    chart = Chart((-0.5, 0.5), (0, float(max(c.max() for c in counts)) * 1.05), "Histogram of the signal.", height=150)
    chart.axes("signal", "", None, [])
    for i, found in enumerate(counts):
        chart.curve((edges[1:] + edges[:-1]) / 2, found, ("curve", "curve two", "curve faint")[i])
    swatches = ("accent", "accent-2", "muted")
    key = "".join(f'<li><i style="--swatch:var(--{swatches[i]})"></i>channel {i}</li>' for i in range(len(counts)))
    histogram = chart.svg() + (f'<ul class="key">{key}</ul>' if len(counts) > 1 else "")
    body = (grid(cells, 14) if len(cells) > 1 else cells[0]) + f'<div class="centre">{histogram}</div>'
    sizes = " × ".join(map(str, work.header.sizes[::-1]))
    padded = " × ".join(map(str, work.padded.shape[:0:-1]))
    grown = (
        f", and mirrored at its edges to {padded}, a multiple of {work.codec.config.multiple}"
        if padded != sizes
        else ""
    )
    unit = {"u8": "Bytes of 0 to 255 become", "u16": "Integers of 0 to 65,535 become"}.get(
        work.header.sample_format, "Samples become"
    )
    return figure(
        body,
        f"What goes in: {sizes} samples in {len(work.signal)} channel{'s' if len(work.signal) > 1 else ''}{grown}. "
        f"{unit} "
        "real numbers between −½ and ½, the signal, so that grey is zero; below, how often each value occurs.",
        ["3.2", "3.4"] if work.kind == "image" else ["16.1", "3.2", "3.4"],
        [signal.image_to_signal, signal.pad],
    )


def _frame(work: Work, window: tuple[slice, ...]) -> str:
    """A frame around the detail of an image."""
    if work.kind != "image":
        return ""
    rows, columns = window
    tall, wide = work.header.sizes
    box = (
        f'x="{columns.start}" y="{rows.start}" width="{columns.stop - columns.start}" height="{rows.stop - rows.start}"'
    )
    return (
        f'<svg viewBox="0 0 {wide} {tall}" aria-hidden="true"><rect {box} fill="none" stroke="#000" stroke-width="3"/>'
        f'<rect {box} fill="none" stroke="#fff" stroke-width="1.4" stroke-dasharray="6 4"/></svg>'
    )


def _audio_in(work: Work) -> str:
    """`what_goes_in` of audio."""
    rate, seconds = work.header.rate, work.header.sizes[0] / work.header.rate
    decibels_found = sight.spectrogram(work.signal)
    waves = [
        cell(f"Waveform, channel {i}", sight.waveform([(channel, "curve")], rate, 0, f"Waveform of channel {i}", 110))
        for i, channel in enumerate(work.signal[:2])
    ]
    body = (
        grid(waves, 17)
        + cell(
            "Spectrogram",
            sight.spectrogram_picture(
                decibels_found, sight.loudest(decibels_found), rate, seconds, "Spectrogram of the file"
            ),
        )
        + sight.player(work.signal, rate, "The original, both channels as one")
    )
    return figure(
        body,
        f"What goes in: {count(work.header.sizes[0])} samples at {count(rate)} Hz in {work.header.channels} "
        f"channel{'s' if work.header.channels > 1 else ''}, {number(seconds)} seconds. The mean, "
        f"{number(work.header.mean)}, is "
        f"taken away and the rest divided by the gain, {number(work.header.gain)}, so that the signal fills −½ to ½ "
        "exactly; "
        "both numbers travel in the stream. The spectrogram says how loud each frequency is at each time.",
        ["11.1", "11.2", "11.3"],
        [signal.audio_statistics, signal.audio_to_signal],
        small=True,
    )


def comparison(work: Work) -> str:
    """Figure: original and decoded, on top of each other."""
    total = len(work.stream)
    facts = f"{count(total)} bytes, {number(work.ratio)} times fewer than the samples have, {number(work.psnr)} dB"
    if work.kind == "audio":
        return _audio_out(work, facts)
    before = sight.pictures(work.signal, work.kind, "Original", exact=work.kind != "image")
    after = sight.pictures(work.signal_back, work.kind, "Decoded", exact=work.kind != "image")
    cells = []
    for (title, one), (_, other) in zip(before, after):
        stack = f'<div class="stack wipe">{one}{other}</div>'
        cells.append(cell(title, stack) if title else stack)
    jpeg = " (For this page both went through JPEG; the next figure is exact.)" if work.kind == "image" else ""
    return figure(
        (grid(cells, 14) if len(cells) > 1 else cells[0]) + slider("wipe", "the line", 50),
        f"Original, left of the line, and decoded, right of it: {facts}. Move the line.{jpeg}",
        ["3.7", "3.8"],
        [signal.clamp, signal.signal_to_image],
    )


def _audio_out(work: Work, facts: str) -> str:
    """`comparison` of audio."""
    rate, seconds = work.header.rate, work.header.sizes[0] / work.header.rate
    loudest = sight.loudest(sight.spectrogram(work.signal))
    cells = [
        cell(
            name,
            sight.spectrogram_picture(sight.spectrogram(x), loudest, rate, seconds, f"Spectrogram: {name}")
            + (sight.player(x, rate, f"{name}, both channels as one") if name == "Decoded" else ""),
        )
        for name, x in (
            ("Original", work.signal),
            ("Decoded", work.signal_back),
            ("Difference", work.signal_back - work.signal),
        )
    ]
    return figure(
        grid(cells, 17),
        f"Original, decoded, and what is wrong, as spectrograms on one scale: {facts}. What is quiet and high is "
        "left out "
        "first. (The players hold the first seconds, as one channel and without loss.)",
        ["11.13", "11.14"],
        [signal.clamp, signal.signal_to_audio],
    )


def magnified(work: Work) -> str:
    """Figure: the place with the largest error, exactly, magnified, and the difference."""
    if work.kind == "audio":
        return _instant(work)
    error = work.signal_back - work.signal
    largest = float(np.percentile(np.abs(error), 99.8)) or 1 / 255
    if work.kind == "volume":
        triples = [
            [
                cell(f"{word}: {name}" if i == 0 else word, element)
                for word, element in (("Original", a), ("Decoded", b), ("Difference", c))
            ]
            for i, ((name, a), (_, b), (_, c)) in enumerate(
                zip(
                    sight.pictures(work.signal, "volume", "Original"),
                    sight.pictures(work.signal_back, "volume", "Decoded"),
                    sight.differences(error, "volume", largest, "Difference"),
                )
            )
        ]
        body = "".join(grid(row, 9) for row in triples[:2])
        where = ""
    else:
        first = sight.image(work.signal)
        top, left = sheet.hardest_place(first, sight.image(work.signal_back), MAGNIFIED)
        part = (slice(None), slice(top, top + MAGNIFIED), slice(left, left + MAGNIFIED))
        elements = [
            ("Original", sight.pictures(work.signal[part], "image", "Original, magnified")[0][1]),
            ("Decoded", sight.pictures(work.signal_back[part], "image", "Decoded, magnified")[0][1]),
            ("Difference", sight.differences(error[part], "image", largest, "Difference, magnified")[0][1]),
        ]
        body = grid([cell(name, element.replace("<img ", '<img class="pixels" ')) for name, element in elements], 12)
        whole = sight.differences(error, "image", largest, "Difference of the whole picture")[0][1]
        body += f'<div style="margin-top:1.1rem">{cell("Difference, everywhere", whole)}</div>'
        where = f" Above, the square with the largest error, at column {left} and row {top}, sample by sample."
    return figure(
        body,
        f"The difference.{where} Orange is too bright, blue too dark; the strongest colour is an error of "
        f"{number(255 * largest)} of 255 steps. What is wrong is what was too fine or too irregular to be kept: "
        "textures, and "
        "the sharpness of edges. Smooth areas are nearly right.",
        ["2.2", "3.8"],
        [signal.signal_to_image, decibels],
    )


def _instant(work: Work) -> str:
    """`magnified` of audio: a few milliseconds where the bits are."""
    rate = work.header.rate
    loud = np.square(work.signal).sum(axis=0)
    frames = max(64, round(INSTANT * rate))
    energy = np.convolve(loud, np.ones(frames), "valid") if loud.size > frames else loud[:1]
    start = int(np.argmax(energy))
    part = slice(start, start + frames)
    curves = [(work.signal[0, part], "curve"), (work.signal_back[0, part], "curve two")]
    key = '<ul class="key"><li><i></i>original</li><li><i style="--swatch:var(--accent-2)"></i>decoded</li></ul>'
    drawn = sight.waveform(curves, rate, start / rate, "Original and decoded waveform, magnified", 220)
    return figure(
        drawn + key,
        "The loudest few milliseconds, of the first channel. The decoded curve follows the slow swings; the fine "
        "hair on "
        "them is what was not worth its bits.",
        ["2.2", "11.14"],
        [signal.signal_to_audio, decibels],
        small=True,
    )


def rate_against_step(codec: Codec, media: Media, step: float) -> str:
    """Figure: bytes and decibels of the detail, coded with several steps."""
    points = []
    positions = np.prod(media.samples.shape[: codec.config.axes])
    for factor in STEPS:
        value, size, quality = coded(codec, media, float(np.clip(step * factor, 2**-10, 2**10)))
        points.append((value, 8 * size / positions, quality, size))
    rates, qualities = [p[1] for p in points], [p[2] for p in points]
    low, high = min(qualities), max(qualities)
    room = max(1.0, 0.12 * (high - low))
    chart = Chart(
        (0, max(rates) * 1.06),
        (low - room, high + room),
        "Quality rises with the rate, ever more slowly.",
        width=480,
        height=270,
    )
    unit = {"image": "pixel", "audio": "frame", "volume": "voxel"}[media.kind]
    chart.axes(f"bits per {unit}", "dB")
    chart.curve(rates, qualities)
    inner = Chart(chart.x, chart.y, "", width=chart.width, height=chart.height)
    for value, rate, psnr, size in points:
        say = f"Step {number(value)}: {count(size)} bytes, {number(rate)} bits per {unit}, {psnr:.2f} dB."
        inner.dot(rate, psnr, "fill two" if abs(value - step) < 1e-9 else "fill", 5, say)
    chart.parts.append(probes("".join(inner.parts), 1, "Steps"))
    for value, rate, psnr, _ in points[::2]:
        chart.text(chart.at_x(rate) + 7, chart.at_y(psnr) + 14, f"step {number(value)}", "dim")
    first, last = points[0], points[-1]
    return figure(
        f'<div class="centre">{chart.svg()}</div>' + saying("Point at a dot, or move with the arrow keys."),
        "Rate against step, on the detail. Latents are divided by the step before they are rounded: a larger one makes "
        f"smaller symbols, fewer bits and larger errors. From step {number(first[0])} to {number(last[0])} the bytes "
        "fall from "
        f"{count(first[3])} to {count(last[3])}, and the quality by {number(first[2] - last[2])} dB. One number, in "
        "the header "
        "of the stream, is all that changes.",
        ["6.7", "6.8"],
        [codecs.Codec.encode, codecs.Codec.coding],
        small=True,
    )
