"""The card of a fitted model: what it was fitted on, what it keeps and does, and pictures of its first components."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from walloc_ref.fit import Fit
from walloc_ref.plain import chosen

PICTURES = 16
"""Components that are drawn."""

TILE, GAP = 96, 4
"""Pixels of a picture and between pictures."""

REACH = 3
"""Latent positions on each side that are drawn; synthesis functions fade within them."""

FEW_CHANNELS = 4
"""Up to so many channels are seen in the picture of a component; of more, a curve over the channels stands below it."""

MAX_NAMES = 40
"""Names of files that a card lists."""

SEVERAL = {"image": "images", "audio": "audio", "volume": "volumes"}
"""Words for signals of each kind."""

LIMIT = {
    "dense": "Components are those of all subbands together.",
    "separable": "Components are those of the channels, the same in every subband.",
}


def card(found: Fit, names: Sequence[str], picture_name: str) -> str:
    """The model card, Markdown.

    Parameters
    ----------
    found : Fit
    names : sequence of str
        Of what it was fitted on, as given; those that were set aside included.
    picture_name : str
        The file that the pictures of the components go to.
    """
    config, model = found.model.config, found.model
    on = "what was set aside" if found.held_out else "what it was fitted on (nothing was set aside)"
    listed = "\n".join(f"- `{name}`" for name in names[:MAX_NAMES])
    more = f"\n- and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    rows = "\n".join(f"| {m.step:g} | {m.bytes} | {m.ratio:.1f}:1 | {m.psnr:.2f} |" for m in found.measured)
    size = f"{config.channels} channel{'s' if config.channels > 1 else ''}, J = {config.J}, {config.planes} latents"
    kept = f"{config.bands / config.planes:.1f} times fewer than subbands"
    narrow = (
        f" {found.narrowed} of them have a smaller scale, for the range of {config.latent_bits}-bit symbols."
        if found.narrowed
        else ""
    )
    behind = ""
    if found.background is not None:
        value = f" {found.background[0]}" if len(set(found.background)) == 1 else ""
        behind = (
            f" Latents of the background{value}, which a quarter of the samples or more have, are zero at every step."
        )
    return f"""# {model.name}

A linear model of {SEVERAL[config.kind]}, `{config.architecture}`, fitted in closed form by `walloc-ref fit`.

| | |
| --- | --- |
| size | {size} of {config.latent_bits} bits, {kept} |
| identity | `{model.model_id}` |
| fitted on | {found.fitted} samples, {found.positions} latent positions |
| set aside | {found.held_out} samples |
| energy kept | {100 * found.energy_kept:.4f} % of the variance |
| parameters | {sum(t.size for t in model.tensors.values())}, and {len(model.tables.to_bytes())} bytes of entropy tables |

{LIMIT[found.components.kind]}{narrow}{behind}
Encoder and decoder are transposes of each other but for the weights of the transform and a factor for each latent;
nothing was trained on gradients but the entropy coder's networks.

## Rate and quality

Measured on {on}, complete streams.
PSNR is that of the mean squared error over all samples, over the range of the sample format (of audio
and of floats: over the range that each file spans).

| step | bytes | ratio | PSNR dB |
| ---: | ---: | ---: | ---: |
{rows}

## First components

![The first {min(PICTURES, config.planes)} components, by falling variance]({picture_name})

## Files

{listed}{more}
"""


def picture(found: Fit) -> bytes:
    """The synthesis functions of the first components, four in a row, PNG: grey is zero, each at its own contrast."""
    from PIL import Image

    count = min(PICTURES, found.model.config.planes)
    drawn = [_tile(found, d) for d in range(count)]
    columns = min(4, count)
    height, width = drawn[0].shape[:2]
    rows = -(-count // columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, np.uint8)
    for number, tile in enumerate(drawn):
        y, x = GAP + number // columns * (height + GAP), GAP + number % columns * (width + GAP)
        sheet[y : y + height, x : x + width] = tile
    out = io.BytesIO()
    Image.fromarray(sheet).save(out, "PNG", optimize=True)
    return out.getvalue()


def _tile(found: Fit, number: int) -> NDArray[np.uint8]:
    """One component."""
    function = synthesis_function(found, number)  # [C, …]
    strongest = int(np.argmax(np.square(function).reshape(len(function), -1).sum(1)))
    if found.model.config.kind == "audio":
        return _curves(function / max(float(np.abs(function).max()), 1e-30))
    if found.model.config.kind == "volume":
        depth = int(np.argmax(np.square(function).sum((0, 2, 3))))
        function = function[:, depth]
    shown = function if len(function) == 3 else np.repeat(function[strongest : strongest + 1], 3, axis=0)
    shown = shown / max(float(np.abs(shown).max()), 1e-30)
    tile = _resized(np.rint(127.5 + 127.5 * np.moveaxis(shown, 0, -1)).astype(np.uint8))
    if len(function) <= FEW_CHANNELS:
        return tile
    by_place = function.reshape(len(function), -1)
    spectrum = by_place[:, int(np.argmax(np.abs(by_place[strongest])))]
    return np.concatenate([tile, _curves(spectrum[None] / np.abs(spectrum).max())])


def synthesis_function(found: Fit, number: int) -> NDArray[np.float64]:
    """What a latent of a component alone decodes to, in units of the signal: (C, …)."""
    config = found.model.config
    bands = np.zeros((config.bands, *(2 * REACH + 1,) * config.axes))
    middle: tuple[Any, ...] = (slice(None), *[REACH] * config.axes)
    bands[middle] = found.components.rows[number] / found.components.weights
    return chosen().synthesise(bands, config.J)


def _resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image on a tile, its samples seen."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.NEAREST))


def _curves(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Curves (n, length) of values from -1 to 1 on a tile, one above the other."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (TILE, TILE), (244, 244, 244))
    draw = ImageDraw.Draw(image)
    shown = values[:FEW_CHANNELS]
    band = TILE / len(shown)
    for number, curve in enumerate(shown):
        x = np.linspace(1, TILE - 2, curve.size)
        y = (number + 0.5 - 0.45 * curve) * band
        draw.line([(0, (number + 0.5) * band), (TILE, (number + 0.5) * band)], fill=(200, 200, 200))
        draw.line(list(zip(x.tolist(), y.tolist())), fill=(30, 60, 140))
    return np.asarray(image)
