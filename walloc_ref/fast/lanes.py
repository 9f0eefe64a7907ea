"""Vectors of channels: how many numbers a register holds, and what kernels may ask of registers as if it were a function.

Arrays are flat and channels lie innermost, so that a vector of channels is one load, and what is done to a position is done
to a vector of its channels at once. The few loops that a compiler does not bring into that form by itself are written in
`instructions`, instruction by instruction, for the registers of the processor at hand: products of matrices, and the
transforms of Winograd's convolution, whose matrices stand here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

CHANNELS = 32
"""Channels are filled up to a multiple of this: of every panel, and of the groups of a GroupNorm."""

BLOCK_ROWS = 12
"""Rows of a block are a multiple of this: of the rows that are in registers at once, whatever their type."""

SIDE = 4
"""Results along a side of a tile of Winograd's convolution."""

POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2))
"""Points of `winograd` for `SIDE` results, besides infinity."""

Matrix = tuple[tuple[float, ...], ...]


@lru_cache(maxsize=1)
def registers() -> tuple[int, int]:
    """Vector registers of the processor that is compiled for: how many, and of how many bytes."""
    from llvmlite import binding

    features = os.environ.get("NUMBA_CPU_FEATURES") if os.environ.get("NUMBA_CPU_NAME") else None
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    if "+avx512f" in features:
        return 32, 64
    if "+avx2" in features:
        return 16, 32
    return (32 if "aarch64" in binding.get_default_triple() else 16), 16


def lanes(itemsize: int) -> int:
    """Numbers in a vector register."""
    return registers()[1] // itemsize


def tile(itemsize: int) -> tuple[int, int]:
    """Rows, and vectors of a panel, whose products are summed in registers: with 32 registers 24 sums, else 12."""
    count, size = registers()
    if count == 16:
        return 6, 2
    return (6, 4) if 4 * (size // itemsize) <= CHANNELS else (12, 2)


def panel(itemsize: int) -> int:
    """Columns whose products are summed in registers; divides `CHANNELS`."""
    return tile(itemsize)[1] * lanes(itemsize)


def half_tile(itemsize: int) -> tuple[int, int]:
    """Rows, and vectors of half a panel: what remains of channels that do not fill the last one costs half as much."""
    return BLOCK_ROWS, tile(itemsize)[1] // 2


class Instructions:
    """A function of `instructions`, as a name in kernels: made when Numba first asks for it.

    It asks for the type of a name, by this attribute; so nothing of Numba is loaded where kernels are found compiled.
    """

    def __init__(self, name: str, plain: Callable[..., Any] | None = None) -> None:
        self.name, self.plain = name, plain

    def __call__(self, *arguments: Any) -> Any:
        """What uncompiled kernels call instead."""
        if self.plain is None:
            raise NotImplementedError(f"{self.name} without compilation")
        return self.plain(*arguments)

    @cached_property
    def _numba_type_(self) -> Any:
        from numba.core.registry import cpu_target

        from walloc_ref.fast import instructions

        cpu_target.target_context.refresh()  # so that it knows what was defined just now
        cpu_target.typing_context.refresh()
        return cpu_target.typing_context.resolve_value_type(getattr(instructions, self.name))


multiply, multiply_half, tile_in, tile_out, exponential = (
    Instructions(name) for name in ("multiply", "multiply_half", "tile_in", "tile_out", "exponential")
)
"""In compiled code: what stands under these names in `instructions`."""

both, merged = Instructions("both"), Instructions("merged")
"""In compiled code: a vector of both bands of the transform, and of what they came of; without compilation no line is long
enough to ask for them."""

lanes_of = Instructions("lanes_of", lambda array: array.size + 1)
panel_of, tile_rows = Instructions("panel_of"), Instructions("tile_rows")
"""In compiled code: `lanes`, `panel` and the rows of `tile` for the numbers of an array."""


@lru_cache(maxsize=1)
def winograd() -> tuple[Matrix, Matrix, Matrix]:
    """Matrices Bᵀ, G, Aᵀ with Aᵀ((G·g)⊙(Bᵀ·d)) = d⋆g, for 3 taps g and n = SIDE + 2 positions d.

    A polynomial of degree n - 1 is known by its values at n - 1 points and by its highest coefficient ("at infinity").
    The product of the polynomials with coefficients g (3) and y (`SIDE`) has degree n - 1, so it is
    V⁻¹((V·g)⊙(V·y)) with V[p, k] = p^k: n multiplications (Toom and Cook). Read as a matrix applied to y and
    transposed, that is the correlation d⋆g: Aᵀ = Vᵀ, and Bᵀ is V⁻ᵀ, whose rows are the coefficients of Lagrange's
    polynomials prod_{q≠p}(x - q)/prod_{q≠p}(p - q). The denominators go to G, where they are applied once.
    In two dimensions the same is done along rows and along columns: n² multiplications for `SIDE`² results, not 9 for each.

    Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016. Points: Barabasz, Anderson,
    Soodhalter and Gregg, ACM TOMS 2020, who found that a point together with its negative reciprocal loses least.
    """
    size = len(POINTS) + 1

    def product(roots: Sequence[Fraction]) -> list[Fraction]:
        """Coefficients of prod(x - root), the constant first."""
        found = [Fraction(1)]
        for root in roots:
            found = [low - root * high for low, high in zip([Fraction(0), *found], [*found, Fraction(0)])]
        return found + [Fraction(0)] * (size - len(found))

    into, kernel = [], []
    for p in POINTS:
        others = [q for q in POINTS if q != p]
        scale = math.prod((p - q for q in others), start=Fraction(1))
        into.append(product(others))
        kernel.append([p**k / scale for k in range(3)])
    into.append(product(POINTS))
    kernel.append([Fraction(k == 2) for k in range(3)])
    out = [[*(p**k for p in POINTS), Fraction(k == SIDE - 1)] for k in range(SIDE)]
    b, g, a = (tuple(tuple(float(v) for v in row) for row in m) for m in (into, kernel, out))
    return b, g, a
