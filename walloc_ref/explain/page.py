"""The page: frame, style and script, figures with their captions, and pictures as data inside the text.

A page asks nothing of anybody: styles and script stand in it, pictures are SVG or PNG in `data:` addresses, and a content
security policy has the browser refuse whatever else would be asked for. Colours and typefaces are custom properties of
`:root` (`page.css`), so that a fragment made elsewhere looks like the rest:

    --paper --ink --muted --line --figure    ground, text, lesser text, rules, ground of figures
    --accent --accent-2 --good --bad         colours of what is drawn
    --serif --sans --mono                    typefaces
    --text --wide                            widths of text and of figures

A figure is `<figure class="figure">` with its picture in `<div class="body">` and a `<figcaption>`, as a child of a
`<section>`; figures and sections are numbered by the style sheet. An element with `data-say` inside a group of class
`probes` says that in the figure's `<output class="say">` under the pointer and under the arrow keys; an
`<input data-mix>` sets `--mix` of its figure.
"""

from __future__ import annotations

import base64
import html
import inspect
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' blob:; worker-src blob:; "
    "img-src data: blob:; media-src data: blob:; connect-src data: blob:; base-uri 'none'; form-action 'none'"
)
"""Content security policy of a page: what stands in it, and nothing else."""

POSITIVE, NEGATIVE = (205, 104, 38), (45, 112, 190)
"""Colours of values above and below zero, between the light and the dark values of --accent-2 and --accent."""


GAMMA = 0.75
"""Power of a value that its opacity is: a little below one, so that small values are seen at all."""

SHADES = 20
"""Steps of opacity on either side of zero: as many as are told apart, and no more, because noise fills a page."""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes
    ----------
    name : str
        Its identity, for links.
    title : str
        For the contents; in the page the heading stands in `body`'s section, above it, unless `whole`.
    body : str
        HTML.
    whole : bool
        Whether `body` is the whole `<section>` already, heading included.
    """

    name: str
    title: str
    body: str
    whole: bool = False


def page(title: str, lead: str, sections: Sequence[Section], closing: str) -> str:
    """The whole page.

    Parameters
    ----------
    title : str
        Plain text.
    lead, closing : str
        HTML: what stands before the contents, and in the footer.
    sections : sequence of Section
    """
    contents = "".join(f'<li><a href="#{part.name}">{escape(part.title)}</a></li>' for part in sections)
    body = "\n".join(
        part.body
        if part.whole
        else f'<section id="{part.name}">\n<h2>{escape(part.title)}</h2>\n{part.body}\n</section>'
        for part in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="walloc-ref explain">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{_part("page.css")}</style>
</head>
<body>
<a class="skip" href="#start">To the text</a>
<div class="bar screen"><button id="theme" type="button" hidden>Dark page</button></div>
<header class="lead">
<h1>{escape(title)}</h1>
{lead}
</header>
<nav class="contents" aria-label="Contents"><details open><summary>Contents</summary><ol>{contents}</ol></details></nav>
<main id="start">
{body}
</main>
<footer>
{closing}
</footer>
<script>
{_part("page.js")}</script>
</body>
</html>
"""


def _part(name: str) -> str:
    """A file that stands beside this module."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def escape(text: object) -> str:
    """Text as HTML, also within attributes."""
    return html.escape(str(text), quote=True)


# ---- figures


def figure(
    body: str, caption: str, clauses: Sequence[str], functions: Sequence[Callable[..., Any]], *, small: bool = False
) -> str:
    """A figure with its caption, which ends with the clauses of SPEC.md that define it and the functions that compute it.

    Parameters
    ----------
    body, caption : str
        HTML.
    clauses : sequence of str
        "4.5".
    functions : sequence of callable
        Functions and classes of this package.
    small : bool
        Whether it is no wider than the text.
    """
    named = ", ".join(f"<code>{escape(source(function))}</code>" for function in functions)
    many = "s" if len(clauses) > 1 else ""
    where = f'<span class="where">SPEC.md, clause{many} {", ".join(clauses)} · {named}</span>'
    return (
        f'<figure class="figure{" small" if small else ""}">\n<div class="body">\n{body}\n</div>\n'
        f"<figcaption>{caption} {where}</figcaption>\n</figure>"
    )


def source(function: Callable[..., Any]) -> str:
    """Where a function stands: `stages/wavelet.py: analyse`."""
    package = __name__.split(".")[0]
    module = inspect.unwrap(function).__module__.split(".")
    if module[0] != package:
        raise ValueError(f"{function} is none of {package}'s")
    return f"{'/'.join(module[1:])}.py: {function.__qualname__}"


def saying(hint: str) -> str:
    """The line of a figure in which its probes speak."""
    return f'<output class="say" aria-live="polite" data-hint="{escape(hint)}"></output>'


def slider(name: str, label: str, value: int, end: str = "") -> str:
    """The control of `--mix` of its figure, in per cent, between two words."""
    control = f'<input id="{name}" type="range" min="0" max="100" value="{value}" data-mix>'
    return f'<div class="slide"><label for="{name}">{label}</label>{control}<span>{end}</span></div>'


def grid(cells: Sequence[str], width: float = 20, kind: str = "") -> str:
    """Cells side by side, each at least so many rem wide; of kind `few` none grows to fill the row."""
    return f'<div class="{f"grid {kind}".rstrip()}" style="--cell:{width}rem">{"".join(cells)}</div>'


def cell(title: str, body: str, note: str = "") -> str:
    """One of several pictures side by side, with a title above and a note below, all HTML."""
    below = f'<p class="note">{note}</p>' if note else ""
    return f'<div class="cell"><p class="title">{title}</p>{body}{below}</div>'


# ---- pictures


def png(pixels: NDArray[Any]) -> str:
    """A picture uint8 (H, W), (H, W, 3) or (H, W, 4) as a PNG's `data:` address."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def indexed_png(indices: NDArray[np.uint8], colours: NDArray[np.uint8]) -> str:
    """A picture uint8 (H, W) of places in a palette uint8 (n, 4), red, green, blue, opacity, as a `data:` address."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(indices), "P")
    picture.putpalette(colours[:, :3].tobytes(), "RGB")
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True, transparency=colours[:, 3].tobytes())
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def signed_png(values: NDArray[Any], largest: float) -> str:
    """Reals (H, W) in colours of their signs, as opaque as they are large, so that zero is the ground of the figure.

    Parameters
    ----------
    values : array, shape (H, W)
    largest : float
        The magnitude that is opaque; larger ones are, too.
    """
    share = np.clip(np.asarray(values, np.float64) / (largest or 1.0), -1, 1)
    indices = np.rint(SHADES * (1 + np.sign(share) * np.abs(share) ** GAMMA)).astype(np.uint8)
    return indexed_png(indices, signed_palette())


def signed_palette() -> NDArray[np.uint8]:
    """Colours and opacity of `signed_png`: uint8 (2·SHADES + 1, 4)."""
    place = np.linspace(-1, 1, 2 * SHADES + 1)
    colours = np.where(place[:, None] > 0, POSITIVE, NEGATIVE)
    return np.concatenate([colours, np.rint(255 * np.abs(place))[:, None]], axis=1).astype(np.uint8)


def heat_png(values: NDArray[Any], largest: float) -> str:
    """Reals (H, W), 0 or more, in one colour, as opaque as they are large."""
    top = 2 * SHADES
    indices = np.rint(top * np.clip(np.asarray(values, np.float64) / (largest or 1.0), 0, 1)).astype(np.uint8)
    opacity = np.linspace(0, 255, top + 1)[:, None]
    return indexed_png(indices, np.concatenate([np.full((top + 1, 3), POSITIVE), opacity], axis=1).astype(np.uint8))


def picture(address: str, alternative: str, *, pixels: bool = False) -> str:
    """An image element; `pixels` where it is magnified and its pixels are to be seen."""
    kind = ' class="pixels"' if pixels else ""
    return f'<img{kind} src="{address}" alt="{escape(alternative)}">'


def file_name(path: str) -> str:
    """The last part of a path, as it is shown."""
    return Path(path).name
