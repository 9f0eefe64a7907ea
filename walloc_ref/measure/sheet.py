"""Contact sheets: images side by side under captions, to judge a codec by eye. Pillow alone; no part of the codec.

Two surprises:

1. The difference is signed: grey is none, brighter is too bright, and it is magnified by `GAIN`, which its caption says.
2. Images wider than `MAX_PANEL` are reduced in the overview; the details below it are never reduced but enlarged
   without smoothing, so that what is seen there are the decoder's own samples.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GAIN = 4
"""Magnification of the difference."""

MAX_PANEL = 800
"""Widest panel, in pixels of the sheet."""

MIN_PANEL = 360
"""Narrowest panel: room for a caption."""

MARGIN, TITLE_SIZE, TEXT_SIZE, LINE = 18, 19, 15, 21
"""Distances and sizes of text, in pixels of the sheet."""

DETAIL, DETAIL_ZOOM = 128, 3
"""Side of the square that is shown enlarged, in samples of the image; and how much."""

PAPER, INK, FAINT = (250, 250, 248), (24, 24, 28), (112, 112, 118)
"""Colours of the sheet."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One image of a sheet: a title, a line of figures, and uint8 samples (H, W) or (H, W, 3)."""

    title: str
    caption: str
    samples: NDArray[np.uint8]


def difference(original: NDArray[np.uint8], decoded: NDArray[np.uint8], gain: int = GAIN) -> NDArray[np.uint8]:
    """The signed difference decoded - original, magnified, around mid grey: uint8 of the same shape."""
    magnified = 128 + gain * (decoded.astype(np.int32) - original.astype(np.int32))
    return np.clip(magnified, 0, 255).astype(np.uint8)


def hardest_place(original: NDArray[np.uint8], decoded: NDArray[np.uint8], side: int = DETAIL) -> tuple[int, int]:
    """Upper left corner of the square of this side with the largest squared difference; places are tried in half steps."""
    squared = (decoded.astype(np.float64) - original) ** 2
    if squared.ndim == 3:
        squared = squared.sum(axis=2)
    total = np.zeros((squared.shape[0] + 1, squared.shape[1] + 1))
    total[1:, 1:] = squared.cumsum(axis=0).cumsum(axis=1)
    height, width = squared.shape
    tall, wide = min(side, height), min(side, width)
    places = [
        (top, left)
        for top in sorted({*range(0, height - tall + 1, max(1, tall // 2)), height - tall})
        for left in sorted({*range(0, width - wide + 1, max(1, wide // 2)), width - wide})
    ]

    def loss(place: tuple[int, int]) -> float:
        top, left = place
        return float(
            total[top + tall, left + wide] - total[top, left + wide] - total[top + tall, left] + total[top, left]
        )

    return max(places, key=loss)


def contact_sheet(
    heading: str, panels: Sequence[Panel], *, columns: int = 2, detail: tuple[int, int] | None = None
) -> bytes:
    """Draw a sheet.

    Parameters
    ----------
    heading : str
        First line of the sheet.
    panels : sequence of Panel
        Images of one size.
    columns : int
        Panels in a row.
    detail : (int, int), optional
        Upper left corner of a square that is shown enlarged, from every panel, in a last row.

    Returns
    -------
    bytes
        A PNG.
    """
    from PIL import Image, ImageDraw, ImageFont

    title_font, text_font = ImageFont.load_default(size=TITLE_SIZE), ImageFont.load_default(size=TEXT_SIZE)
    height, width = panels[0].samples.shape[:2]
    shown = max(MIN_PANEL, min(width, MAX_PANEL))
    tall = max(1, round(height * shown / width))
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    text = 2 * LINE + 6
    sheet_width = columns * (shown + MARGIN) + MARGIN
    top = MARGIN + LINE + MARGIN
    sheet_height = top + rows * (tall + text + MARGIN)
    details: list[NDArray[np.uint8]] = []
    detail_side = 0
    if detail is not None:
        y, x = detail
        details = [panel.samples[y : y + DETAIL, x : x + DETAIL] for panel in panels]
        detail_side = min(DETAIL_ZOOM * DETAIL, (sheet_width - MARGIN) // len(panels) - MARGIN)
        detail_tall = max(1, round(detail_side * details[0].shape[0] / details[0].shape[1]))
        sheet_height += LINE + detail_tall + LINE + MARGIN

    sheet = Image.new("RGB", (sheet_width, sheet_height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), heading, INK, title_font)
    for number, panel in enumerate(panels):
        left = MARGIN + number % columns * (shown + MARGIN)
        upper = top + number // columns * (tall + text + MARGIN)
        draw.text((left, upper), panel.title, INK, title_font)
        draw.text((left, upper + LINE + 2), panel.caption, FAINT, text_font)
        image = _image(panel.samples)
        smooth = Image.Resampling.LANCZOS if width > shown else Image.Resampling.NEAREST
        sheet.paste(image.resize((shown, tall), smooth) if shown != width else image, (left, upper + text))
    if detail is not None:
        upper = top + rows * (tall + text + MARGIN)
        about = f"Detail at column {detail[1]}, row {detail[0]}: where the model's error is largest"
        draw.text((MARGIN, upper), about, INK, title_font)
        for number, (panel, part) in enumerate(zip(panels, details)):
            left = MARGIN + number * (detail_side + MARGIN)
            enlarged = _image(part).resize((detail_side, detail_tall), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (left, upper + LINE + 6))
            draw.text((left, upper + LINE + 8 + detail_tall), panel.title, FAINT, text_font)
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()


def _image(samples: NDArray[np.uint8]) -> Any:
    """Samples as a Pillow image in RGB."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(samples)).convert("RGB")
