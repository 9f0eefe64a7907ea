"""Figures of the entropy coder at work: some symbols, with all that it looked at, asked, expected and paid for them.

The plain coder codes the detail and is watched (`conform.trace`), so that what stands in a figure is what ran.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from walloc_ref.conform import trace
from walloc_ref.explain.charts import drawing, named, number, share
from walloc_ref.explain.page import cell, escape, figure, grid
from walloc_ref.explain.work import Work
from walloc_ref.stages import entropy

MOST_SYMBOLS = 2000
"""Symbols that are coded and watched; a few thousand in a second."""


@dataclass
class Decision:
    """A binary decision: node, probabilities of a one, by context and mixed, weights, the bit, the interval before it."""

    node: int
    probabilities: list[float]
    weights: list[float]
    p: float
    bit: int
    low: int
    span: int

    @property
    def bits(self) -> float:
        """What it costs."""
        return -math.log2(self.p if self.bit else 1 - self.p)


@dataclass
class Symbol:
    """A coded symbol: where it stands, what the network said, its contexts and decisions."""

    place: tuple[int, int, int, int]  # depth, plane, row, column
    linear: int
    mean: int
    scale: int
    flip: int
    contexts: list[int]
    mixing_set: int
    value: int = 0
    decisions: list[Decision] = field(default_factory=list)

    @property
    def bits(self) -> float:
        """What it costs."""
        return sum(decision.bits for decision in self.decisions)


class _Enough(Exception):
    """So many symbols have been seen."""


def watch(symbols: np.ndarray, tables: entropy.Tables, most: int = MOST_SYMBOLS) -> list[Symbol]:
    """Code the first symbols of a slice, and note what happens."""
    found: list[Symbol] = []

    def write(line: str) -> None:
        word, *rest = line.split()
        values = dict(part.split("=", 1) for part in rest)
        if word == "symbol":
            if len(found) == most:
                raise _Enough
            place = tuple(int(values[name]) for name in trace.COORDINATES)
            found.append(
                Symbol(
                    place=place,  # type: ignore[arg-type]
                    linear=int(values["linear"]),
                    mean=int(values["mean"]),
                    scale=int(values["scale"]),
                    flip=int(values["flip"]),
                    contexts=_numbers(values["contexts"]),
                    mixing_set=int(values["set"]),
                )
            )
        elif word == "decision":
            scales = {"probabilities": 1 << entropy.P_BITS, "weights": 1 << 16}
            parts = {name: [v / unit for v in _numbers(values.get(name, ""))] for name, unit in scales.items()}
            found[-1].decisions.append(
                Decision(
                    node=int(values["node"]),
                    p=int(values["p"]) / (1 << 16),
                    bit=int(values["bit"]),
                    low=int(values["low"], 16),
                    span=int(values["span"], 16),
                    **parts,
                )
            )
        elif word == "coded":
            found[-1].value = int(values["symbol"])

    try:
        with trace.watched(write):
            entropy.encode(symbols, tables)
    except _Enough:
        pass
    return found


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def slice_of(work: Work) -> np.ndarray:
    """The first slice of a file, as the coder takes it."""
    bounds, shape = work.header.slice_bounds(0), work.header.slice_shape(0)
    return work.symbols[:, slice(*bounds)].reshape(shape)


def examples(found: list[Symbol], width: int) -> list[tuple[str, Symbol]]:
    """Three symbols worth looking at: one as expected, an ordinary one, and a surprise."""
    later = [s for s in found if s.place[2] + s.place[3] > 0] or found
    inner = [s for s in later if s.place[3] > 0 and (s.place[2] > 0 or width == 0)] or later
    by_cost = sorted(inner, key=lambda s: s.bits)
    as_expected = [s for s in by_cost if len(s.decisions) == 1] or by_cost
    off = [s for s in by_cost if len(s.decisions) > 1] or by_cost
    chosen = [
        ("A symbol as expected", as_expected[len(as_expected) // 3]),
        ("An ordinary one", off[len(off) // 2]),
        ("A surprise", by_cost[-1]),
    ]
    return list({id(symbol): (title, symbol) for title, symbol in chosen}.values())


def figures(detail: Work) -> list[str]:
    """A figure for each example."""
    symbols, tables = slice_of(detail), detail.codec.model.tables
    found = watch(symbols, tables)
    by_depth = symbols if symbols.ndim == 4 else symbols[:, None]  # (D, z, h, w)
    return [
        _figure(title, symbol, by_depth, tables, first=number == 0)
        for number, (title, symbol) in enumerate(examples(found, 0 if by_depth.shape[2] == 1 else 1))
    ]


def _figure(title: str, s: Symbol, symbols: np.ndarray, tables: entropy.Tables, first: bool) -> str:
    """The figure of one symbol."""
    z, c, y, x = s.place
    seen = cell("What it can see", _neighbours(s, symbols, tables), _elsewhere(s, symbols, tables))
    expected = s.mean + entropy.UNIT // 2 >> 4
    prediction = cell(
        "What it expects",
        _prediction(s, expected),
        f"mean {number(s.mean / entropy.UNIT)}, scale {number(s.scale / 256)}, so the expected symbol is "
        f"{number(expected)}",
    )
    where = f"plane {c}, row {y}, column {x}" + (f", depth position {z}" if symbols.shape[1] > 1 else "")
    off = abs(s.value - expected)
    outcome = "exactly what was expected" if off == 0 else f"{named(off, 'step')} from what was expected"
    explain = (
        " Left, the symbols that are coded already, above and before it; those that the network of this plane "
        "listens to "
        "are tinted, the stronger the more they weigh. From them it says a mean and a scale: how much it would be "
        "off. The "
        "symbol then is told in questions with two answers. For each, four contexts know from experience how often the "
        "answer was yes; their opinions are mixed, by weights that are learned as well, and the answer costs −log₂ "
        "of the "
        "probability that it was given. The bars show the coder's interval at each question: it is split in that "
        "proportion, the part of the answer (strong colour) becomes the whole bar of the next question, and when it "
        "gets too "
        "narrow, a byte is written."
        if first
        else ""
    )
    functions: list[Callable[..., Any]] = [entropy.predict, entropy.Mixer.code, entropy.code_residual]
    if first:
        functions = [entropy.Neighbours.get, entropy.predict, entropy.contexts, *functions[1:], entropy.Encoder.code]
    return figure(
        grid([seen, prediction], 17) + _decisions(s, expected),
        f"{title}: {where}. The symbol is {number(s.value)}, {outcome}, and costs {number(s.bits)} bits in "
        f"{named(len(s.decisions), 'question')}.{explain}",
        ["7.6", "7.7", "7.8", "7.9", "7.10", "7.12"] if first else ["7.7", "7.9", "7.10"],
        functions,
    )


def _neighbours(s: Symbol, symbols: np.ndarray, tables: entropy.Tables) -> str:
    """The own plane around a symbol, with the taps of the network tinted."""
    z, c, y, x = s.place
    reach, size = entropy.REACH, 44
    plane = symbols[c, z]
    weights = _weights(tables, c)
    strongest = max([abs(w) for *_, w in weights] or [1]) or 1
    above = reach if plane.shape[0] > 1 else 0  # audio has one row
    tint = {(dy, dx): 0.0 for dy in range(-above, 1) for dx in range(-reach, reach + 1)}
    for _, source, dy, dx, weight in weights:
        if source == c and (dy, dx) in tint:
            tint[dy, dx] = max(tint[dy, dx], abs(weight) / strongest)
    parts = []
    for (dy, dx), strength in tint.items():
        if dy == 0 and dx > 0:
            continue
        left, top = (dx + reach) * size, (dy + above) * size
        inside = 0 <= y + dy < plane.shape[0] and 0 <= x + dx < plane.shape[1]
        box = f'x="{left + 1}" y="{top + 1}" width="{size - 2}" height="{size - 2}" rx="2"'
        if dy == dx == 0:
            parts.append(f'<rect {box} fill="none" stroke="var(--accent-2)" stroke-width="2.5"/>')
            parts.append(_value(left, top, size, number(s.value), "fill two"))
            continue
        parts.append(f'<rect {box} class="grid" fill="none"/>')
        if strength:
            parts.append(f'<rect {box} class="fill" opacity="{0.12 + 0.5 * strength:.2f}"/>')
        parts.append(
            _value(left, top, size, number(int(plane[y + dy, x + dx])) if inside else "·", "" if inside else "dim")
        )
    what = f"The symbols above and before, and at the end of the lowest row the one that is coded, {s.value}"
    return drawing("".join(parts), (2 * reach + 1) * size, (above + 1) * size, what)


def _value(left: float, top: float, size: float, text: str, kind: str) -> str:
    return (
        f'<text x="{left + size / 2:g}" y="{top + size / 2 + 5:g}" text-anchor="middle" class="{kind}" '
        f'style="font-size:14px">{text}</text>'
    )


def _weights(tables: entropy.Tables, c: int) -> list[tuple[int, int, int, int, int]]:
    """Kind, source, dy, dx and weight in the linear mean and scale, of the taps of a plane."""
    taps = tables.taps[tables.taps[:, 0] == c, 1:]
    strength = np.abs(tables.units[c][:, :2]).sum(axis=1)
    return [(*map(int, tap), int(w)) for tap, w in zip(taps, strength)]  # type: ignore[misc]


def _elsewhere(s: Symbol, symbols: np.ndarray, tables: entropy.Tables) -> str:
    """In words, what the network sees in other planes."""
    z, c, y, x = s.place
    planes = len(symbols)
    others = sorted({source for kind, source, *_ in _weights(tables, c) if source != c})
    if not others:
        return "This plane is the first: there is nothing but itself to look at."
    here = [f"{source}: {number(int(symbols[source, z, y, x]))}" for source in others if source < planes]
    before = [source - planes for source in others if source >= planes]
    text = (
        f"And at this place in earlier planes: {', '.join(here[:8])}{', …' if len(here) > 8 else ''}. " if here else ""
    )
    if before:
        text += f"And what stands in the depth position before, in {named(len(before), 'plane')}."
    return escape(text)


def _prediction(s: Symbol, expected: int) -> str:
    """Mean and scale on a line of symbols, and the symbol that came."""
    mean, scale = s.mean / entropy.UNIT, s.scale / 256
    reach = max(3.0, 2.2 * scale, 1.25 * abs(s.value - mean))
    low, high = expected - reach, expected + reach
    place = lambda v: 14 + (v - low) / (high - low) * 332  # noqa: E731
    across = np.linspace(low, high, 121)
    bump = np.exp(-np.abs(across - mean) / max(scale, 0.06))
    curve = "L".join(f"{place(a):.1f} {92 - 70 * b:.1f}" for a, b in zip(across, bump))
    step = max(1, round(2 * reach / 9))
    first = math.ceil(low / step) * step
    marks = "".join(
        f'<path class="axis" d="M{place(v):.1f} 92v4"/>'
        f'<text x="{place(v):.1f}" y="109" class="dim" text-anchor="middle">{number(v)}</text>'
        for v in range(first, math.floor(high) + 1, step)
    )
    inner = (
        f'<path class="fill faint" d="M{place(low):.1f} 92L{curve}L{place(high):.1f} 92Z"/>'
        f'<path class="axis" d="M10 92H350"/>{marks}'
        f'<path class="curve" d="M{place(mean):.1f} 92V14"/>'
        f'<text x="{place(mean):.1f}" y="10" text-anchor="middle">mean</text>'
        f'<circle class="fill two" cx="{place(s.value):.1f}" cy="92" r="5"/>'
        f'<text x="{place(s.value):.1f}" y="128" text-anchor="middle" class="fill two">the symbol</text>'
    )
    return drawing(inner, 360, 134, f"Mean {mean:.2f}, scale {scale:.2f}; the symbol is {s.value}")


def question(decision: Decision, e: int, flip: int) -> str:
    """What is asked at a node; `e` is how often the number of bits has been raised."""
    if decision.node == entropy.ZERO:
        return "Is it another one than expected?"
    if decision.node == entropy.SIGN:
        return "Is it on the side away from the mean?"
    if entropy.EXPONENT <= decision.node < entropy.MANTISSA_1:
        return f"Is it {2 << e} or more away?"
    return "The next bit of the distance?"


def _decisions(s: Symbol, expected: int) -> str:
    """The table of decisions, with the interval of each as a bar."""
    rows, e = [], 0
    for decision in s.decisions:
        asked = question(decision, e, s.flip)
        if entropy.EXPONENT <= decision.node < entropy.MANTISSA_1:
            e += 1
        opinions = " ".join(f"{100 * p:.0f}" for p in decision.probabilities) or "none"
        rows.append(
            f"<tr><td>{asked}</td><td>{opinions}</td><td>{share(decision.p)}</td><td>{'yes' if decision.bit else 'no'}</td>"
            f'<td>{number(decision.bits)}</td><td style="width:30%;min-width:7rem">{_interval(decision)}</td></tr>'
        )
    names = ("question", "four contexts, % yes", "mixed", "answer", "bits", "interval: yes left, no right")
    head = "".join(f"<th>{name}</th>" for name in names)
    table = f'<table class="decisions"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _interval(decision: Decision) -> str:
    """The interval of a decision, split by its probability."""
    p = 200 * decision.p
    yes, no = ("", " faint") if decision.bit else (" faint", "")
    inner = (
        f'<rect class="fill{yes}" x="0" y="0" width="{max(p - 0.5, 0.5):.1f}" height="12"/>'
        f'<rect class="fill{no}" x="{p + 0.5:.1f}" y="0" width="{max(199.5 - p, 0.5):.1f}" height="12"/>'
    )
    answer = "the part of yes" if decision.bit else "the part of no"
    what = f"From {decision.low:x}, {decision.span:x} wide (hexadecimal), {share(decision.p)} for yes; {answer} goes on"
    return drawing(inner, 200, 12, what)
