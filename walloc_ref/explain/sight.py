"""Signals as pictures: images as they look, volumes as slices through their middle, audio as waveform and spectrogram."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.explain.charts import Chart
from walloc_ref.explain.page import escape, heat_png, picture, png, signed_png
from walloc_ref.stages.signal import SIGNAL_LIMIT

Signal = NDArray[np.float64]

JPEG_QUALITIES = (90, 80, 65, 50, 35, 20)
"""Of pictures that are shown as a whole; what is to be looked at closely is shown exactly, as PNG. The first is taken whose
bytes go into the page."""

WHOLE_BYTES, DETAIL_BYTES = 110_000, 26_000
"""Most bytes of a JPEG of the whole picture, and of the detail."""

GAIN = 4
"""Magnification of differences, at the least that the largest colours show a quarter of the range."""

SPECTRUM, HOP_ROWS, HOP_COLUMNS = 1024, 220, 520
"""Frames of a stretch of a spectrogram; rows and columns of its picture at most."""

FLOOR_DB = 75.0
"""Decibels below the loudest that a spectrogram shows."""

SILENCE_DB = -60.0
"""Loudest decibels below which nothing is shown."""

HEARD = 3 * 44100
"""Frames of audio that can be heard in a page."""


def image(x: Signal) -> NDArray[np.uint8]:
    """A signal (C, H, W) as it looks: uint8 (H, W) of one channel, else (H, W, 3), of many channels in false colours."""
    if len(x) == 1:
        return shades(x[0])
    if len(x) != 3:
        x = np.stack([part.mean(axis=0) for part in np.array_split(x[::-1], 3)] if len(x) > 3 else [x[0], x[1], x[1]])
    return np.moveaxis(shades(x), 0, -1)


def shades(x: Signal) -> NDArray[np.uint8]:
    """A signal as uint8."""
    return np.clip(np.rint(255 * (x + SIGNAL_LIMIT)), 0, 255).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8], most: int = WHOLE_BYTES) -> str:
    """A picture as the `data:` address of a JPEG, of this size at most if any quality gives that."""
    from PIL import Image

    for quality in JPEG_QUALITIES:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
        if file.tell() <= most:
            break
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def slices_of(x: NDArray[Any]) -> list[tuple[str, NDArray[Any]]]:
    """The three planes through the middle of a volume (C, Z, H, W), mean of its channels, and what they are."""
    v = x.mean(axis=0)
    z, y, across = (n // 2 for n in v.shape)
    return [
        (f"depth {z}, seen along depth", v[z]),
        (f"row {y}, depth downwards", v[:, y]),
        (f"column {across}, depth downwards", v[:, :, across]),
    ]


def pictures(x: Signal, kind: str, what: str, *, exact: bool = True) -> list[tuple[str, str]]:
    """A signal of an image or a volume as picture elements, with titles."""
    if kind == "image":
        pixels = image(x)
        return [("", picture(png(pixels) if exact else jpeg(pixels), what))]
    return [(name, picture(png(shades(part)), f"{what}: {name}", pixels=True)) for name, part in slices_of(x)]


def differences(x: Signal, kind: str, largest: float, what: str) -> list[tuple[str, str]]:
    """A difference of signals as picture elements, in colours of its sign, with titles."""
    if kind == "image":
        return [("", picture(signed_png(x.mean(axis=0), largest), what))]
    return [(name, picture(signed_png(part, largest), f"{what}: {name}", pixels=True)) for name, part in slices_of(x)]


# ---- audio -----------------------------------------------------------------------------------------------------------


def spectrogram(x: Signal) -> NDArray[np.float64]:
    """Decibels above the floor, 0 to `FLOOR_DB`, of audio (C, frames), mean of the channels: rows from high to low."""
    mono = x.mean(axis=0)
    if mono.size < SPECTRUM:
        mono = np.pad(mono, (0, SPECTRUM - mono.size))
    hop = max(SPECTRUM // 8, -(-(mono.size - SPECTRUM) // HOP_COLUMNS))
    starts = np.arange(0, mono.size - SPECTRUM + 1, max(1, hop))
    stretches = mono[starts[:, None] + np.arange(SPECTRUM)] * np.hanning(SPECTRUM)  # [columns, SPECTRUM]
    power = np.abs(np.fft.rfft(stretches, axis=1)[:, 1:]) ** 2  # [columns, SPECTRUM / 2]
    rows = -(-power.shape[1] // HOP_ROWS)
    power = power[:, : power.shape[1] // rows * rows].reshape(len(power), -1, rows).mean(axis=2).T[::-1]
    return 10 * np.log10(power + 1e-20)


def loudest(decibels: NDArray[np.float64]) -> float:
    """The decibels that are the full colour: the largest, unless all is silence."""
    return max(float(decibels.max()), SILENCE_DB)


def spectrogram_picture(decibels: NDArray[np.float64], full: float, rate: int, seconds: float, what: str) -> str:
    """A spectrogram with axes; `full` decibels are the full colour."""
    chart = Chart((0, seconds), (0, rate / 2000), what, height=200)
    address = heat_png(np.clip(decibels - full + FLOOR_DB, 0, None), FLOOR_DB)
    chart.raster(address, pixels=False)
    chart.axes("seconds", "kHz")
    return chart.svg()


def waveform(
    curves: Sequence[tuple[NDArray[np.float64], str]], rate: int, start: float, what: str, height: float = 170
) -> str:
    """Curves of samples on one axis of time; each with its class."""
    frames = len(curves[0][0])
    largest = max(float(np.abs(values).max()) for values, _ in curves) or 0.5
    span = (start, start + frames / rate)
    scale = 1.0 if span[1] - span[0] > 0.5 else 1000.0  # short stretches in milliseconds
    shift = 0.0 if scale == 1.0 else start
    chart = Chart(
        ((span[0] - shift) * scale, (span[1] - shift) * scale), (-1.05 * largest, 1.05 * largest), what, height=height
    )
    chart.axes("seconds" if scale == 1.0 else f"milliseconds after {start:.2f} s", "signal")
    times = (span[0] - shift + np.arange(frames) / rate) * scale
    for values, kind in curves:
        chart.curve(times, values, kind)
    return chart.svg()


def player(x: Signal, rate: int, what: str) -> str:
    """A player for a mean of channels: the first `HEARD` frames, losslessly, within the page."""
    import soundfile

    mono = np.clip(x.mean(axis=0)[:HEARD], -0.5, 0.5 - 2**-16)
    file = io.BytesIO()
    soundfile.write(file, np.rint(mono * 2**16).astype(np.int16), rate, format="FLAC", subtype="PCM_16")
    address = "data:audio/flac;base64," + base64.b64encode(file.getvalue()).decode()
    return f'<audio class="screen" controls preload="none" aria-label="{escape(what)}" src="{address}"></audio>'
