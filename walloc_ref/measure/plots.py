"""The plots of evaluations and of benchmarks, drawn by matplotlib (the extra `plots`). No part of the codec."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from walloc_ref.errors import UnreadableFile
from walloc_ref.measure import costs
from walloc_ref.measure.evaluate import REFERENCE_BITS, title

COLOURS = {
    "webp": "#0072b2",
    "jpeg": "#999999",
    "jpeg2000": "#e69f00",
    "jxl": "#009e73",
    "avif": "#cc79a7",
    "opus": "#0072b2",
    "mp3": "#999999",
}
"""Colours of the other codecs' curves, told apart by colour-blind eyes as well (Okabe and Ito 2008)."""

MODEL_COLOUR = "#d55e00"
"""Colour of the models."""

UPSTREAM_COLOUR = "#222222"
"""Colour of the upstream in PyTorch."""

ROOM = 1.35
"""The plot reaches from the models' lowest rate over this to their highest times this, squared: curves run beyond."""


SUFFIXES = (".png", ".svg", ".pdf")
"""Files that are written."""


def check(suffix: str) -> None:
    """Refuse early what cannot be drawn.

    Raises
    ------
    UnreadableFile
        matplotlib is missing, or the suffix is none of `SUFFIXES`.
    """
    from importlib.util import find_spec

    if suffix not in SUFFIXES:
        raise UnreadableFile("--plot", suffix or "no suffix", "a name that ends in " + ", ".join(SUFFIXES))
    if find_spec("matplotlib") is None:
        raise UnreadableFile("--plot", "matplotlib is missing", "pip install matplotlib")


def _round_numbers(axes: Any, style: str) -> None:
    """Name 1, 2 and 5 times powers of ten on a logarithmic axis, and draw lines at the other digits."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(style)
    axes.xaxis.set_minor_locator(LogLocator(subs=range(1, 10)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def rate_distortion(result: Mapping[str, Any], *, suffix: str = ".png") -> bytes:
    """Draw mean PSNR over rate: the other codecs' curves and the models' points.

    Parameters
    ----------
    result : mapping
        As `evaluate.evaluate` returns it, or as it was read back from JSON.
    suffix : str
        One of `SUFFIXES`.

    Raises
    ------
    UnreadableFile
        See `check`.
    """
    check(suffix)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = result["kind"] == "image"
    points = [p for p in result["points"] if p["psnr"] is not None]
    models = [p for p in points if p["model_id"] is not None]
    several = len({p["grey"] for p in points}) > 1
    for name, grey in dict.fromkeys((p["codec"], p["grey"]) for p in points if p["setting"] is not None):
        curve = [p for p in points if p["setting"] is not None and (p["codec"], p["grey"]) == (name, grey)]
        curve.sort(key=lambda p: p["bits_per_place"])
        label = title(name) + (", grey" if grey and several else "")
        rates, qualities = [p["bits_per_place"] for p in curve], [p["psnr"] for p in curve]
        style: dict[str, Any] = {
            "color": COLOURS.get(name),
            "linestyle": "--" if grey and several else "-",
            "label": label,
        }
        axes.plot(rates, qualities, marker=".", markersize=4, linewidth=1.4, **style)
    for model in result.get("curves", ()):
        rates = [p["bits_per_place"] for p in model["points"]]
        axes.plot(rates, [p["psnr"] for p in model["points"]], color=MODEL_COLOUR, linewidth=1.4, zorder=4)
    for point in models:
        axes.plot(point["bits_per_place"], point["psnr"], "o", color=MODEL_COLOUR, markersize=7, zorder=3)
        lifted = any(_beneath(other, point) for other in models)
        axes.annotate(
            point["codec"],
            (point["bits_per_place"], point["psnr"]),
            xytext=(-7, 6) if lifted else (7, -12),
            horizontalalignment="right" if lifted else "left",
            textcoords="offset points",
            color=MODEL_COLOUR,
            fontsize=10,
        )
    axes.set_xscale("log")
    low, high = (f(p["bits_per_place"] for p in models) for f in (min, max))
    inside = [p["psnr"] for p in points if low / ROOM**2 <= p["bits_per_place"] <= high * ROOM**2]
    axes.set_xlim(low / ROOM**2, high * ROOM**2)
    room = max(0.5, (max(inside) - min(inside)) / 16)  # for the name of the highest point
    axes.set_ylim(min(inside) - 0.5, max(inside) + room)
    axes.set_xlabel("bits per pixel, of complete files" if image else "bits per sample, of complete files")
    count = len(result["items"])
    axes.set_ylabel(f"PSNR / dB, mean over {count} " + (("images" if image else "clips") if count > 1 else "item"))
    _round_numbers(axes, "{x:g}")
    axes.grid(which="both", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    bits = models[0]["ratio"] * models[0]["bits_per_place"] if models else REFERENCE_BITS[result["kind"]]
    above = axes.secondary_xaxis("top", functions=(lambda rate: _over(bits, rate), lambda ratio: _over(bits, ratio)))
    above.set_xlabel("ratio")
    _round_numbers(above, "{x:g}:1")
    axes.legend(frameon=False, loc="lower right")
    out = io.BytesIO()
    figure.savefig(out, format=suffix.removeprefix("."))
    return out.getvalue()


def cost(result: Mapping[str, Any], *, suffix: str = ".png") -> bytes:
    """Draw speed over size, encoding on the left and decoding on the right: a line a codec and number of threads.

    Parameters
    ----------
    result : mapping
        As `costs.run` returns it, or as it was read back from JSON.
    suffix : str
        One of `SUFFIXES`.

    Raises
    ------
    UnreadableFile
        See `check`.
    """
    check(suffix)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    image, sizes = result["kind"] == "image", sorted(set(result["sizes"]))
    whole = figure.subplots(1, 2, sharey=True)
    lines: dict[str, Any] = {}
    for axes, stage in zip(whole, ("encode", "decode")):
        curves: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for case in result["cases"]:
            if case["stage"] == stage:
                curves.setdefault((costs.label(case, result), case["threads"]), []).append(case)
        for (name, threads), curve in curves.items():
            curve.sort(key=lambda case: case["size"])
            label = f"{name}, {threads} thread" + ("s" if threads > 1 else "")
            (lines[label],) = axes.plot(
                [case["size"] for case in curve],
                [case["mega_places_per_second"] for case in curve],
                color=_cost_colour(curve[0]),
                linestyle="-" if threads > 1 else "--",
                marker=_cost_marker(curve[0]),
                markersize=5,
                linewidth=1.4,
            )
        axes.set_title(stage)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("megapixels" if image else "seconds")
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    whole[0].set_ylabel("megapixels a second" if image else "million samples a second")
    figure.legend(lines.values(), lines.keys(), frameon=False, loc="outside right upper", fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format=suffix.removeprefix("."))
    return out.getvalue()


def _cost_colour(case: Mapping[str, Any]) -> str:
    """Colour of a line of `cost`."""
    ours = case["variant"] in (costs.KERNEL, costs.NARROW)
    return MODEL_COLOUR if ours else COLOURS.get(case["variant"], UPSTREAM_COLOUR)


def _cost_marker(case: Mapping[str, Any]) -> str:
    """Marker of a line of `cost`: binary32, and settings that are not those of equal bytes, stand out."""
    if case["setting"] is None:
        return "^" if case["variant"] == costs.NARROW else "o"
    return "o" if case["equal_bytes"] else "x"


def _beneath(other: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    """Whether another point lies so near beneath a point that its label has that point's place."""
    nearby = abs(other["bits_per_place"] / point["bits_per_place"] - 1) < 0.2
    return nearby and 0 < point["psnr"] - other["psnr"] < 1


def _over(bits: float, value: Any) -> Any:
    """bits/value; matplotlib also asks at zero."""
    import numpy as np

    with np.errstate(divide="ignore"):
        return bits / np.asarray(value, dtype=float)
