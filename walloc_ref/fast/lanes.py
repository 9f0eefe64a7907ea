"""Products and tiles in vector registers: the few loops that a compiler does not vectorise by itself, written as such.

Arrays are flat and channels lie innermost, so that a vector of channels is one load and what is done to a position is done
to a vector of its channels at once. `multiply` is the innermost loop of a matrix product; with `ROWS` by `PANEL` sums in
registers, a step of it costs a load for each row and each vector of the panel, and a multiplication and addition for each
sum. What is added in which order depends on the depth alone, never on rows, threads or blocks.

An instruction that multiplies and adds rounds once, where there is one (SPEC.md 2.1 leaves it open).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

CHANNELS = 32
"""Channels are filled up to a multiple of this: of every panel, and of the groups of a GroupNorm."""

BLOCK_ROWS = 12
"""Rows of a block are a multiple of this: of the rows that are in registers at once, whatever their type."""


@lru_cache(maxsize=1)
def registers() -> tuple[int, int]:
    """Vector registers of this processor: how many, and of how many bytes."""
    name, features = config.CPU_NAME, config.CPU_FEATURES
    if name is None:
        features = binding.get_host_cpu_features().flatten()
    if "+avx512f" in (features or ""):
        return 32, 64
    if "+avx2" in (features or ""):
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


SIDES = {8: 4, 4: 4}
"""Results along a side of a tile of Winograd's convolution, by the bytes of a number."""

POINTS = {2: ("0", "1", "-1"), 4: ("0", "1", "-1", "1/2", "-2")}
"""Points of `winograd`, by results along a side."""

Matrix = tuple[tuple[float, ...], ...]


def side(itemsize: int) -> int:
    """Results along a side of a tile."""
    return SIDES[itemsize]


def _constant(of: Callable[[int], int]) -> Any:
    """A function of an array, in compiled code: a constant of the type of its numbers."""

    @intrinsic
    def found(typing, array):  # type: ignore[no-untyped-def]
        value = of(4 if array.dtype == types.float32 else 8)

        def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return ir.Constant(ir.IntType(64), value)

        return types.int64(array), code

    return found


lanes_of, panel_of, tile_rows = _constant(lanes), _constant(panel), _constant(lambda itemsize: tile(itemsize)[0])
"""`lanes`, `panel` and the rows of `tile` for the numbers of an array, in compiled code."""


# ---- code of kernels -----------------------------------------------------------------------------------------------


def _number(array: types.Array) -> ir.Type:
    """The type of an array's numbers."""
    return ir.FloatType() if array.dtype == types.float32 else ir.DoubleType()


class _Code:
    """Builds instructions on vectors of the numbers of a flat array."""

    def __init__(self, context: Any, builder: Any, array: types.Array) -> None:
        self.context, self.builder = context, builder
        self.number = _number(array)
        self.itemsize = 4 if array.dtype == types.float32 else 8
        self.lanes = lanes(self.itemsize)
        self.vector = ir.VectorType(self.number, self.lanes)
        name = "f32" if self.itemsize == 4 else "f64"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        self.fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{self.lanes}{name}")

    def base(self, array: types.Array, value: Any) -> Any:
        """The pointer to an array's first number."""
        return self.context.make_array(array)(self.context, self.builder, value).data

    def at(self, base: Any, offset: Any) -> Any:
        return self.builder.gep(base, [offset])

    def load(self, pointer: Any) -> Any:
        found = self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()))
        found.align = self.itemsize
        return found

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, self.vector.as_pointer())).align = self.itemsize

    def splat(self, number: Any) -> Any:
        """A vector of equal numbers."""
        empty = ir.Constant(self.vector, ir.Undefined)
        zero = ir.Constant(ir.IntType(32), 0)
        first = self.builder.insert_element(empty, number, zero)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, empty, mask)

    def constant(self, value: float) -> Any:
        return ir.Constant(self.vector, [float(value)] * self.lanes)

    def add(self, a: Any, factor: Any, b: Any) -> Any:
        """a + factor·b."""
        return self.builder.call(self.fma, [factor, b, a])

    def combine(self, factors: Sequence[float], values: Sequence[Any]) -> Any:
        """The sum of factors·values, those of factor 0 left out."""
        total = None
        for factor, value in zip(factors, values):
            if factor == 0:
                continue
            if total is None:
                total = value if factor == 1 else self.builder.fmul(self.constant(factor), value)
            elif factor in (1, -1):
                total = (self.builder.fadd if factor == 1 else self.builder.fsub)(total, value)
            else:
                total = self.add(total, self.constant(factor), value)
        return total

    def sandwich(self, matrix: Sequence[Sequence[float]], values: list[list[Any]]) -> list[list[Any]]:
        """matrix·values·matrixᵀ for a square of vectors, rows of it."""
        columns = [[self.combine(row, column) for row in matrix] for column in zip(*values)]  # of matrix·values
        return [[self.combine(row, line) for row in matrix] for line in zip(*columns)]


@intrinsic
def multiply(typing, a, a_at, a_row, parts, part_step, depth, b, b_at, b_row, c, c_at, c_row, more):  # type: ignore[no-untyped-def]
    """C[r, j] = sum over parts q and k < depth of A[r, q, k]·B[q·depth + k, j], for the rows and columns of a tile.

    Parameters
    ----------
    a, b, c : flat arrays of one type
    a_at, b_at, c_at : int
        Where the tile's first number stands.
    a_row, b_row, c_row : int
        Numbers from row to row.
    parts, part_step, depth : int
        The sum runs over `parts` times `depth` numbers of a row of A; parts begin `part_step` numbers apart.
    more : bool
        Add to what stands in C.
    """

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kinds = signature.args
        make = _Code(context, builder, kinds[0])
        rows, width = tile(make.itemsize)
        (a, a_at, a_row, parts, part_step, depth, b, b_at, b_row, c, c_at, c_row, more) = args
        third = [make.at(make.base(kinds[0], a), a_at)]  # every third row: the two after it are at sums of two registers
        for _ in range(rows // 3 - 1):
            third.append(make.at(third[-1], builder.mul(a_row, ir.Constant(a_row.type, 3))))
        out = [make.at(make.base(kinds[9], c), c_at)]
        for _ in range(rows - 1):
            out.append(make.at(out[-1], c_row))
        b_first = make.at(make.base(kinds[6], b), b_at)
        integer = a_at.type
        one, zero = ir.Constant(integer, 1), ir.Constant(integer, 0)
        vectors = [ir.Constant(integer, j * make.lanes) for j in range(width)]
        nothing = make.constant(0)
        with builder.if_else(builder.trunc(more, ir.IntType(1)) if more.type.width > 1 else more) as (then, otherwise):
            with then:
                old = [make.load(make.at(p, v)) for p in out for v in vectors]
                loaded = builder.block
            with otherwise:
                fresh = builder.block
        start = []
        for value in old:
            phi = builder.phi(make.vector)
            phi.add_incoming(value, loaded)
            phi.add_incoming(nothing, fresh)
            start.append(phi)
        entry = builder.block
        part_head = builder.append_basic_block("part")
        body = builder.append_basic_block("body")
        part_end = builder.append_basic_block("part.end")
        done = builder.append_basic_block("done")
        builder.branch(part_head)

        builder.position_at_end(part_head)
        q = builder.phi(integer)
        b_part = builder.phi(third[0].type)
        outer = [builder.phi(make.vector) for _ in start]
        q.add_incoming(zero, entry)
        b_part.add_incoming(b_first, entry)
        for phi, value in zip(outer, start):
            phi.add_incoming(value, entry)
        offset = builder.mul(q, part_step)
        a_part = [make.at(p, offset) for p in third]
        builder.branch(body)

        builder.position_at_end(body)
        k = builder.phi(integer)
        b_now = builder.phi(third[0].type)
        sums = [builder.phi(make.vector) for _ in start]
        k.add_incoming(zero, part_head)
        b_now.add_incoming(b_part, part_head)
        a_now = [builder.phi(third[0].type) for _ in third]
        for phi, value in zip(a_now, a_part):
            phi.add_incoming(value, part_head)
        for phi, value in zip(sums, outer):
            phi.add_incoming(value, part_head)
        columns = [make.load(make.at(b_now, v)) for v in vectors]
        after = []
        for r in range(rows):
            row = a_now[r // 3]
            if r % 3:
                row = make.at(row, builder.mul(a_row, ir.Constant(a_row.type, r % 3)))
            factor = make.splat(builder.load(row))
            after += [make.add(sums[r * width + j], factor, columns[j]) for j in range(width)]
        k_next = builder.add(k, one)
        b_next = make.at(b_now, b_row)
        k.add_incoming(k_next, body)
        b_now.add_incoming(b_next, body)
        for phi in a_now:
            phi.add_incoming(make.at(phi, one), body)
        for phi, value in zip(sums, after):
            phi.add_incoming(value, body)
        builder.cbranch(builder.icmp_signed("<", k_next, depth), body, part_end)

        builder.position_at_end(part_end)
        q_next = builder.add(q, one)
        q.add_incoming(q_next, part_end)
        b_part.add_incoming(b_next, part_end)
        for phi, value in zip(outer, after):
            phi.add_incoming(value, part_end)
        builder.cbranch(builder.icmp_signed("<", q_next, parts), part_head, done)

        builder.position_at_end(done)
        for r in range(rows):
            for j in range(width):
                make.store(after[r * width + j], make.at(out[r], vectors[j]))
        return context.get_dummy_value()

    integers = types.int64
    return types.void(
        a, integers, integers, integers, integers, integers, b, integers, integers, c, integers, integers, types.boolean
    ), code


@intrinsic
def tile_in(typing, x, x_at, x_row, x_column, out, out_at, out_step):  # type: ignore[no-untyped-def]
    """Bᵀ·d·B for the square d of positions that begins at `x_at`, for a vector of channels (`winograd`).

    Parameters
    ----------
    x, out : flat arrays of one type
    x_at, x_row, x_column : int
        Where the first position stands, and numbers from row to row and from column to column.
    out_at, out_step : int
        Where the first of the results stands, row by row, and numbers from one to the next.
    """

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        x, x_at, x_row, x_column, out, out_at, out_step = args
        make = _Code(context, builder, signature.args[0])
        matrix = winograd(side(make.itemsize))[0]
        row, square = make.at(make.base(signature.args[0], x), x_at), []
        for _ in matrix:
            place, line = row, []
            for _ in matrix:
                line.append(make.load(place))
                place = make.at(place, x_column)
            square.append(line)
            row = make.at(row, x_row)
        place = make.at(make.base(signature.args[4], out), out_at)
        for line in make.sandwich(matrix, square):
            for value in line:
                make.store(value, place)
                place = make.at(place, out_step)
        return context.get_dummy_value()

    return types.void(x, *(types.int64,) * 3, out, *(types.int64,) * 2), code


@intrinsic
def tile_out(typing, x, x_at, x_step, out, out_at, out_row, out_column):  # type: ignore[no-untyped-def]
    """Aᵀ·m·A for a square m that stands as `tile_in` writes it, to a square of positions; parameters likewise."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        x, x_at, x_step, out, out_at, out_row, out_column = args
        make = _Code(context, builder, signature.args[0])
        matrix = winograd(side(make.itemsize))[2]
        place, square = make.at(make.base(signature.args[0], x), x_at), []
        for _ in matrix[0]:
            line = []
            for _ in matrix[0]:
                line.append(make.load(place))
                place = make.at(place, x_step)
            square.append(line)
        row = make.at(make.base(signature.args[3], out), out_at)
        for line in make.sandwich(matrix, square):
            place = row
            for value in line:
                make.store(value, place)
                place = make.at(place, out_column)
            row = make.at(row, out_row)
        return context.get_dummy_value()

    return types.void(x, *(types.int64,) * 2, out, *(types.int64,) * 3), code


# ---- Winograd's convolution ----------------------------------------------------------------------------------------


@lru_cache
def winograd(outputs: int) -> tuple[Matrix, Matrix, Matrix]:
    """Matrices Bᵀ, G, Aᵀ with Aᵀ((G·g)⊙(Bᵀ·d)) = d⋆g, for 3 taps g and n = outputs + 2 positions d.

    A polynomial of degree n - 1 is known by its values at n - 1 points and by its highest coefficient ("at infinity"). The
    product of the polynomials with coefficients g (3) and y (`outputs`) has degree n - 1, so it is
    V⁻¹((V·g)⊙(V·y)) with V[p, k] = p^k: n multiplications (Toom and Cook). Read as a matrix applied to y and transposed, that
    is the correlation d⋆g: Aᵀ = Vᵀ, and Bᵀ is V⁻ᵀ, whose rows are the coefficients of Lagrange's polynomials
    prod_{q≠p}(x - q)/prod_{q≠p}(p - q). The denominators go to G, where they are applied once, exactly.
    In two dimensions the same is done along rows and along columns: n² multiplications for `outputs`² results of 9.

    Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016. Points: Barabasz, Anderson,
    Soodhalter and Gregg, ACM TOMS 2020, who found that a point together with its negative reciprocal loses least.
    """
    points = [Fraction(p) for p in POINTS[outputs]]
    size = len(points) + 1

    def product(roots: Sequence[Fraction]) -> list[Fraction]:
        """Coefficients of prod(x - root), the constant first."""
        found = [Fraction(1)]
        for root in roots:
            found = [low - root * high for low, high in zip([Fraction(0), *found], [*found, Fraction(0)])]
        return found + [Fraction(0)] * (size - len(found))

    into, kernel = [], []
    for p in points:
        others = [q for q in points if q != p]
        scale = math.prod((p - q for q in others), start=Fraction(1))
        into.append(product(others))
        kernel.append([p**k / scale for k in range(3)])
    into.append(product(points))
    kernel.append([Fraction(k == 2) for k in range(3)])
    out = [[*(p**k for p in points), Fraction(k == outputs - 1)] for k in range(outputs)]
    b, g, a = (tuple(tuple(float(v) for v in row) for row in m) for m in (into, kernel, out))
    return b, g, a
