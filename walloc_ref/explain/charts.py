"""Drawings as SVG: axes, curves and bars in user units of a small picture, so that text can be read on a telephone.

Colours come from classes of `page.css`, not from attributes, so that a drawing follows the page from light to dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from walloc_ref.explain.page import escape

LEFT, RIGHT, TOP, BOTTOM = 40, 8, 10, 34
"""Room around the plot, in user units: for the numbers of the vertical axis, for those below and their name."""

WIDE = 480
"""User units from which on a drawing has larger text on a telephone."""

MOST_POINTS = 800
"""Points of a curve; of longer ones the smallest and largest of each stretch are kept."""


@dataclass
class Chart:
    """A drawing with two axes; what is added to it appears in that order.

    Attributes
    ----------
    x, y : (float, float)
        What the axes span, from left to right and from bottom to top.
    alternative : str
        What the drawing shows, for those who do not see it.
    width, height : float
        Of the whole, in user units.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    alternative: str
    width: float = 360
    height: float = 220
    left: float = LEFT
    parts: list[str] = field(default_factory=list)
    filled: bool = False

    def at_x(self, value: float) -> float:
        """Place of a value on the horizontal axis."""
        low, high = self.x
        return self.left + (value - low) / (high - low) * (self.width - self.left - RIGHT)

    def at_y(self, value: float) -> float:
        """Place of a value on the vertical axis."""
        low, high = self.y
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)

    def axes(
        self,
        x_name: str,
        y_name: str,
        x_ticks: Sequence[tuple[float, str]] | None = None,
        y_ticks: Sequence[tuple[float, str]] | None = None,
    ) -> None:
        """Both axes with numbers and names; ticks of round numbers where none are given."""
        bottom, right = self.height - BOTTOM, self.width - RIGHT
        for value, text in ticks(*self.y, 5) if y_ticks is None else y_ticks:
            y = self.at_y(value)
            if not self.filled:
                self.parts.append(f'<path class="grid" d="M{self.left:g} {y:.1f}H{right:g}"/>')
            self.text(self.left - 5, y + 3.8, text, "dim", "end")
        for value, text in ticks(*self.x, 6) if x_ticks is None else x_ticks:
            x = self.at_x(value)
            self.parts.append(f'<path class="axis" d="M{x:.1f} {bottom:g}v4"/>')
            self.text(x, bottom + 15, text, "dim", "middle")
        self.parts.append(f'<path class="axis" d="M{self.left:g} {bottom:g}H{right:g}"/>')
        self.text((self.left + right) / 2, self.height - 4, x_name, "dim", "middle")
        self.text(self.left, TOP - 2, y_name, "dim", "start")

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        """Words at a place in user units."""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>')

    def curve(self, x: ArrayLike, y: ArrayLike, kind: str = "curve") -> None:
        """A line through points."""
        self.parts.append(f'<path class="{kind}" d="{self.path(np.asarray(x, float), np.asarray(y, float))}"/>')

    def path(self, x: Any, y: Any) -> str:
        """The path through points, thinned where there are many."""
        if len(x) > MOST_POINTS:
            parts = np.array_split(np.arange(len(x)), MOST_POINTS // 2)
            keep = np.concatenate([np.sort([p[np.argmin(y[p])], p[np.argmax(y[p])]]) for p in parts])
            x, y = x[keep], y[keep]
        return "M" + "L".join(f"{self.at_x(a):.1f} {self.at_y(b):.1f}" for a, b in zip(x, y))

    def band(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, kind: str = "fill") -> None:
        """The area between two curves."""
        x, low, high = (np.asarray(values, float) for values in (x, low, high))
        there = "L".join(f"{self.at_x(a):.1f} {self.at_y(b):.1f}" for a, b in zip(x, high))
        back = "L".join(f"{self.at_x(a):.1f} {self.at_y(b):.1f}" for a, b in zip(x[::-1], low[::-1]))
        self.parts.append(f'<path class="{kind}" d="M{there}L{back}Z"/>')

    def bars(self, edges: ArrayLike, values: ArrayLike, kind: str = "fill") -> None:
        """Bars from zero, or from the axis, between edges: one path."""
        edges, values = np.asarray(edges, float), np.asarray(values, float)
        base = self.at_y(max(self.y[0], 0.0))
        drawn = "".join(
            f"M{self.at_x(a):.1f} {base:.1f}V{self.at_y(v):.1f}H{self.at_x(b):.1f}V{base:.1f}Z"
            for a, b, v in zip(edges, edges[1:], values)
            if v != 0
        )
        self.parts.append(f'<path class="{kind}" d="{drawn}"/>')

    def raster(self, address: str, *, pixels: bool = True) -> None:
        """A picture that fills the plot, as a `data:` address; no rules go through it."""
        self.filled = True
        left, top = self.left, TOP
        width, height = self.width - self.left - RIGHT, self.height - TOP - BOTTOM
        kind = ' class="pixels"' if pixels else ""
        self.parts.append(
            f'<image{kind} href="{address}" x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" '
            'preserveAspectRatio="none"/>'
        )

    def dot(self, x: float, y: float, kind: str = "fill", radius: float = 3.5, say: str = "") -> None:
        """A point; `say` where it speaks."""
        speaks = f' data-say="{escape(say)}"' if say else ""
        self.parts.append(
            f'<circle class="{kind}" cx="{self.at_x(x):.1f}" cy="{self.at_y(y):.1f}" r="{radius:g}"{speaks}/>'
        )

    def svg(self) -> str:
        """The drawing."""
        return drawing("".join(self.parts), self.width, self.height, self.alternative)


def drawing(inner: str, width: float, height: float, alternative: str) -> str:
    """An SVG element of these user units."""
    kind = ' class="wide"' if width >= WIDE else ""
    return (
        f'<svg{kind} viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(alternative)}">'
        f"<title>{escape(alternative)}</title>{inner}</svg>"
    )


def probes(inner: str, columns: int, name: str) -> str:
    """A group of elements with `data-say`, in rows of so many."""
    return f'<g class="probes" tabindex="0" data-columns="{columns}" aria-label="{escape(name)}">{inner}</g>'


def ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Round numbers within a range, at most so many and one, as places and texts."""
    span = high - low
    if span <= 0:
        return [(low, number(low))]
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    return [(i * step, number(i * step)) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number in few digits, with a true minus."""
    if value == 0:
        return "0"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−").replace(",", "\u202f")


def share(part: float) -> str:
    """A share in per cent."""
    if 0.9995 <= part < 1:
        return f"{100 * part:.3f}\u202f%"
    return f"{100 * part:.1f}\u202f%" if part >= 0.001 or part == 0 else f"{100 * part:.2g}\u202f%"


def several(n: int, noun: str) -> str:
    """So many of something: `1 level`, `3 levels`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def count(n: int) -> str:
    """A whole number with narrow spaces between thousands."""
    return f"{n:,}".replace(",", "\u202f")


def named(n: int, what: str) -> str:
    """A number of things, one or several."""
    return f"{count(n)} {what}{'' if n == 1 else 's'}"
