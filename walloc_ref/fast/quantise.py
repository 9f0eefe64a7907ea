"""Kernel of the companding quantiser: `quantise` as in `walloc_ref.stages.quantise`, equal for every latent.

The decision threshold is found by a uniform grid over the latents that gives the first candidate, and a step or two along
the thresholds from there. Only comparisons with the thresholds decide.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from walloc_ref.errors import BadSamples
from walloc_ref.fast import bare
from walloc_ref.stages import quantise as definition

GRID_CELLS = 2048
"""Cells of the grid between the first and the last threshold: at 8 bits one in four holds a threshold."""


def quantise(latents: NDArray[np.float64], bits: int) -> NDArray[np.int16]:
    """Same as `walloc_ref.stages.quantise.quantise`."""
    first, lowest, cells_per_unit = _grid(bits)
    flat = np.ascontiguousarray(latents, dtype=np.float64).reshape(-1)
    out = np.empty(flat.size, dtype=np.int16)
    if not _quantise(flat, definition.thresholds(bits), first, lowest, cells_per_unit, out):
        raise BadSamples("latents", "NaN", "numbers")
    return out.reshape(latents.shape)


@cache
def _grid(bits: int) -> tuple[NDArray[np.int64], float, float]:
    """Number of thresholds below each grid cell, the latent at which cell 0 starts, and cells per unit of latent."""
    edges = definition.thresholds(bits)
    cells_per_unit = GRID_CELLS / (edges[-1] - edges[0])
    starts = edges[0] + np.arange(GRID_CELLS) / cells_per_unit
    return np.searchsorted(edges, starts, side="left").astype(np.int64), float(edges[0]), float(cells_per_unit)


@bare
def _quantise(latents, edges, first, lowest, cells_per_unit, out):
    """Fill `out` with symbols; False if a latent is not a number."""
    last = edges.size // 2
    for n in range(latents.size):
        y = latents[n]
        if y != y:
            return False
        position = (y - lowest) * cells_per_unit
        cell = 0
        if position >= first.size:
            cell = first.size - 1
        elif position > 0.0:
            cell = int(position)
        below = first[cell]  # of the thresholds, those that lie below y
        while below > 0 and edges[below - 1] >= y:
            below -= 1
        while below < edges.size and edges[below] < y:
            below += 1
        symbol = below - last
        if below < edges.size and edges[below] == y and symbol % 2 != 0:
            symbol += 1
        out[n] = symbol
    return True
