"""The projection of audio in vector registers: `project` as in `walloc_ref.stages.projection`.

A BLAS copies what it multiplies into panels first, and the one that comes with NumPy may not know this processor's
registers. A tile of bands that has just been transformed is in cache as it stands, so that nothing is gained by copying.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from walloc_ref.fast import contracted
from walloc_ref.fast.lanes import multiply, panel, panel_of, tile, tile_rows
from walloc_ref.stages import projection


def project(bands: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """Same as `walloc_ref.stages.projection.project` of bands (K, n)."""
    n = bands.shape[1]
    if n < panel(8) or bias.size < tile(8)[0]:
        return projection.project(bands, weight, bias)
    latents = np.empty((bias.size, n))
    flat = (np.ascontiguousarray(a).reshape(-1) for a in (weight, bands))
    _project(*flat, bands.shape[0], n, bias.size, latents.reshape(-1))
    latents += bias[:, None]
    return latents


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
