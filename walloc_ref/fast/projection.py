"""The projection of audio in vector registers: `project` as in `walloc_ref.stages.projection`.

A BLAS copies what it multiplies into panels first, and the one that comes with NumPy may not know this processor's
registers. A tile of bands that has just been transformed is in cache as it stands, so that nothing is gained by copying.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from walloc_ref.fast import contracted
from walloc_ref.fast.lanes import multiply, panel, panel_of, tile, tile_rows


def project(bands: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """Same as `walloc_ref.stages.projection.project` of bands (K, n)."""
    (depth, n), latents = bands.shape, bias.size
    rows, columns = max(latents, tile(8)[0]), max(n, panel(8))
    if (rows, columns) != (latents, n):  # less than a tile
        weight = np.pad(weight, ((0, rows - latents), (0, 0)))
        bands = np.pad(bands, ((0, 0), (0, columns - n)))
    out = np.empty((rows, columns))
    flat = (np.ascontiguousarray(a).reshape(-1) for a in (weight, bands))
    _project(*flat, depth, columns, rows, out.reshape(-1))
    return out[:latents, :n] + bias[:, None]


@contracted
def _project(weight, bands, depth, n, rows, out):
    """weight·bands, all arrays flat: weight [rows, depth], bands [depth, n] -> out [rows, n].

    The last rows and columns of all make up the last tile, some of them once more, so that no tile is cut.
    """
    columns, together = panel_of(bands), tile_rows(bands)
    for left in range(0, n, columns):
        j = min(left, n - columns)
        for top in range(0, rows, together):
            r = min(top, rows - together)
            multiply(weight, r * depth, depth, 1, 0, depth, bands, j, n, out, r * n + j, n, False)
