"""An image's subbands in tiles that bring their context: put in as they are made, given out as soon as a tile is whole.

Synthesis is local: a tile with `HALO` positions of context on each side, taken round the ends of the image, gives what the
whole image gives there. Networks make subbands in windows, of another size and without that context. What a window
gives goes to the tiles that want it, and whoever puts in the last positions of a tile is given the tile. So only the tiles
of a row or two are in memory, besides those at the top, which wait for the last row.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from walloc_ref.stages.wavelet import HALO

Span = tuple[int, int]
"""First latent row or column, and the first one after the last."""

Tile = tuple[Span, Span]
"""Rows and columns."""


def seen(span: Span, n: int) -> Span:
    """The positions that a span depends on; those before 0 and from n on are counted round the ends of the axis.

    >>> seen((0, 20), 100), seen((0, 95), 100)
    ((-4, 24), (0, 100))
    """
    first, end = span
    return (0, n) if end - first + 2 * HALO >= n else (first - HALO, end + HALO)


def shared(span: Span, given: Span, n: int) -> list[tuple[slice, slice]]:
    """Positions that a span depends on and that are given: slices of what is `seen`, and the same ones of what is given.

    >>> shared((0, 20), (20, 100), 100)
    [(slice(0, 4, None), slice(76, 80, None)), (slice(24, 28, None), slice(0, 4, None))]
    """
    low, high = seen(span, n)
    found = []
    for turn in (-n, 0, n):
        start = given[0] + turn
        first, end = max(low, start), min(high, given[1] + turn)
        if first < end:
            found.append((slice(first - low, end - low), slice(first - start, end - start)))
    return found


def cut(x: NDArray, tile: Tile) -> NDArray:
    """What a tile depends on of a whole image's x (N, h, w)."""
    _, h, w = x.shape
    rows, columns = ([part for _, part in shared(span, (0, n), n)] for span, n in zip(tile, (h, w)))
    strip = x[:, rows[0]] if len(rows) == 1 else np.concatenate([x[:, part] for part in rows], 1)
    return strip[:, :, columns[0]] if len(columns) == 1 else np.concatenate([strip[:, :, part] for part in columns], 2)


class Mosaic:
    """Tiles that wait for their subbands.

    Parameters
    ----------
    bands : int
    sizes : tuple of int
        Latent rows and columns of the image.
    rows, columns : list of Span
        Of the tiles.
    """

    def __init__(self, bands: int, sizes: tuple[int, int], rows: list[Span], columns: list[Span]) -> None:
        self.bands, self.sizes, self.rows, self.columns = bands, sizes, rows, columns
        self.lock = threading.Lock()
        self.waiting: dict[Tile, tuple[NDArray[np.float64], list[int]]] = {}
        """Subbands with context (K, r, c) of tiles that some have come for, and how many positions are missing."""

    def put(self, rows: Span, columns: Span, given: NDArray[np.float64]) -> Iterator[tuple[Tile, NDArray[np.float64]]]:
        """Put in subbands (K, …) of some rows and columns; the tiles that are whole with these, and their subbands."""
        h, w = self.sizes
        down = [(span, places) for span in self.rows if (places := shared(span, rows, h))]
        across = [(span, places) for span in self.columns if (places := shared(span, columns, w))]
        for (tile_rows, places), (tile_columns, others) in product(down, across):
            tile = tile_rows, tile_columns
            with self.lock:
                if tile not in self.waiting:
                    shape = [end - first for first, end in map(seen, tile, self.sizes)]
                    self.waiting[tile] = np.empty((self.bands, *shape)), [shape[0] * shape[1]]
                whole, missing = self.waiting[tile]
            count = 0
            for (to_rows, of_rows), (to_columns, of_columns) in product(places, others):
                part = given[:, of_rows, of_columns]
                whole[:, to_rows, to_columns] = part
                count += part[0].size
            with self.lock:
                missing[0] -= count
                if missing[0]:
                    continue
                del self.waiting[tile]
            yield tile, whole
