"""Kernels' innermost loops, instruction by instruction (LLVM's, through llvmlite): what `lanes` names.

`multiply` is the innermost loop of a matrix product: rows by vectors of sums stay in registers, a step costs a load for
each row and each vector of the panel, and a multiplication and addition for each sum. What is added in which order depends
on the depth alone, never on rows, threads or blocks. An instruction that multiplies and adds rounds once, where there is
one (SPEC.md 2.1 leaves it open).

`exponential` is made of instructions that a compiler can do on vectors; the library's is called number by number.
e^x = 2^k·e^r with k = rint(x/ln 2), so that |r| ≤ ln 2 / 2. r is what remains of x after k·ln 2 was taken away in two
parts, the first product exact; e^r is Taylor's series, up to where the next term is below an eighth of a unit in the last
place; 2^k is put together from its bits. Adding 1.5·2^52 (in binary32 1.5·2^23) to a number rounds it to an integer, which
then stands in the low bits of the sum: that gives k both as a number and as bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from walloc_ref.fast.lanes import half_tile, lanes, panel, tile, winograd
from walloc_ref.stages import wavelet
from walloc_ref.stages.entropy import COUNT_MAX, LEARNING_SHIFT, P_BITS, P_MIN, WEIGHT_MAX

LOWEST = {"float64": -708.0, "float32": -87.0}
"""Smallest arguments of the exponential whose results are normal numbers; smaller ones count as these."""

HIGHEST = {"float64": 709.0, "float32": 88.0}
"""Largest arguments whose results are finite; larger ones count as these."""

LN2_HIGH = {"float64": float.fromhex("0x1.62e42feep-1"), "float32": float.fromhex("0x1.63p-1")}
"""The first bits of the logarithm of 2, so few that their product with k is exact: 33, and 9."""

LN2_LOW = {"float64": float.fromhex("0x1.a39ef35793c76p-33"), "float32": float.fromhex("-0x1.bd0106p-13")}
"""What remains of it."""

DEGREE = {"float64": 13, "float32": 7}
"""Last power of Taylor's series: the next term is at most 5e-18 and 6e-9."""

MANTISSA = {"float64": 52, "float32": 23}
"""Bits of a number below its leading one."""


def _as_it_is(module: Any) -> Any:
    """What tells LLVM not to unroll a loop: with two steps at once, sums would no longer fit into the registers.

    A loop's metadata begin with themselves, so that no two loops have the same.
    """
    off = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    own = module.add_metadata([ir.MetaDataString(module, f"loop {len(module.metadata)}"), off])
    own.operands = (own, off)
    return own


def _constant(of: Callable[[int], int]) -> Any:
    """A function of an array: what `of` says of the bytes of its numbers."""

    @intrinsic
    def found(typing, array):
        def code(context, builder, signature, args):
            return ir.Constant(ir.IntType(64), of(array.dtype.bitwidth // 8))

        return types.int64(array), code

    return found


lanes_of, panel_of, tile_rows = _constant(lanes), _constant(panel), _constant(lambda itemsize: tile(itemsize)[0])


class _Code:
    """Builds instructions on vectors of the numbers of a flat array."""

    def __init__(self, context: Any, builder: Any, array: types.Array) -> None:
        self.context, self.builder = context, builder
        self.number = context.get_value_type(array.dtype)
        self.itemsize = array.dtype.bitwidth // 8
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


def _products(shape: Callable[[int], tuple[int, int]]) -> Any:
    """`multiply` for tiles of a shape: rows and vectors, by the bytes of a number."""

    @intrinsic
    def multiply(typing, a, a_at, a_row, parts, part_step, depth, b, b_at, b_row, c, c_at, c_row, more):
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

        def code(context, builder, signature, args):
            kinds = signature.args
            make = _Code(context, builder, kinds[0])
            rows, width = shape(make.itemsize)
            (a, a_at, a_row, parts, part_step, depth, b, b_at, b_row, c, c_at, c_row, more) = args
            third = [
                make.at(make.base(kinds[0], a), a_at)
            ]  # every third row: the two after it are at sums of two registers
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
            with builder.if_else(builder.trunc(more, ir.IntType(1)) if more.type.width > 1 else more) as (
                then,
                otherwise,
            ):
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
            again = builder.cbranch(builder.icmp_signed("<", k_next, depth), body, part_end)
            again.set_metadata("llvm.loop", _as_it_is(builder.module))

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
            a,
            integers,
            integers,
            integers,
            integers,
            integers,
            b,
            integers,
            integers,
            c,
            integers,
            integers,
            types.boolean,
        ), code

    return multiply


multiply, multiply_half = _products(tile), _products(half_tile)


@intrinsic
def tile_in(typing, x, x_at, x_row, x_column, out, out_at, out_step):
    """Bᵀ·d·B for the square d of positions that begins at `x_at`, for a vector of channels (`winograd`).

    Parameters
    ----------
    x, out : flat arrays of one type
    x_at, x_row, x_column : int
        Where the first position stands, and numbers from row to row and from column to column.
    out_at, out_step : int
        Where the first of the results stands, row by row, and numbers from one to the next.
    """

    def code(context, builder, signature, args):
        x, x_at, x_row, x_column, out, out_at, out_step = args
        make = _Code(context, builder, signature.args[0])
        matrix = winograd()[0]
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
def tile_out(typing, x, x_at, x_step, out, out_at, out_row, out_column):
    """Aᵀ·m·A for a square m that stands as `tile_in` writes it, to a square of positions; parameters likewise."""

    def code(context, builder, signature, args):
        x, x_at, x_step, out, out_at, out_row, out_column = args
        make = _Code(context, builder, signature.args[0])
        matrix = winograd()[2]
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


@intrinsic
def both(typing, low, high, j, a, m4, m3, m2, m1, c, p1, p2, p3, p4):
    """A vector of the low and of the high band from j on: the sums of `wavelet.analyse`, in its order.

    Nine lines are read once. Told in loops, LLVM would have to know that none of them overlaps with what is written,
    and asks so only of a few; then they are read twice, and each sum is written and read in between.

    Parameters
    ----------
    low, high, a : flat float64
    j : int
    m4 … p4 : int
        Where the lines begin, from four before c to four after it.
    """

    def code(context, builder, signature, args):
        make, kinds = _Code(context, builder, signature.args[3]), signature.args
        base = make.base(kinds[3], args[3])
        x = [make.load(make.at(make.at(base, line), args[2])) for line in args[4:]]  # m4 … p4
        for into, middle, taps in ((0, 4, wavelet.ANALYSIS_LOW), (1, 5, wavelet.ANALYSIS_HIGH)):
            total = builder.fmul(make.constant(taps[0]), x[middle])
            for k, tap in enumerate(taps[1:], 1):
                total = builder.fadd(
                    total, builder.fmul(make.constant(tap), builder.fadd(x[middle - k], x[middle + k]))
                )
            make.store(total, make.at(make.base(kinds[into], args[into]), args[2]))
        return context.get_dummy_value()

    integer = types.int64
    return types.void(low, high, integer, a, *(integer,) * 9), code


@intrinsic
def merged(typing, even, odd, j, a, m1, c, p1, p2, om2, om1, oc, op1, op2):
    """A vector of the even and of the odd samples from j on: the sums of `wavelet.synthesise`, in its order (see `both`).

    Parameters
    ----------
    even, odd, a : flat float64
    j : int
    m1 … p2, om2 … op2 : int
        Where the lines of the low band begin, from one before c to two after it, and those of the high band around oc.
    """

    def code(context, builder, signature, args):
        make, kinds = _Code(context, builder, signature.args[3]), signature.args
        base = make.base(kinds[3], args[3])
        m1, c, p1, p2, om2, om1, oc, op1, op2 = (make.load(make.at(make.at(base, line), args[2])) for line in args[4:])

        def total(taps: Sequence[float], first: Any, *pairs: tuple[Any, Any]) -> Any:
            """The first line, or pair of lines, and further pairs, each times its tap."""
            found = builder.fmul(make.constant(taps[0]), first)
            for tap, (before, after) in zip(taps[1:], pairs):
                found = builder.fadd(found, builder.fmul(make.constant(tap), builder.fadd(before, after)))
            return found

        low, high = wavelet.SYNTHESIS_LOW, wavelet.SYNTHESIS_HIGH
        found = builder.fadd(total(low[0::2], c, (m1, p1)), total(high[1::2], builder.fadd(om1, oc), (om2, op1)))
        make.store(found, make.at(make.base(kinds[0], args[0]), args[2]))
        found = builder.fadd(
            total(low[1::2], builder.fadd(c, p1), (m1, p2)), total(high[0::2], oc, (om1, op1), (om2, op2))
        )
        make.store(found, make.at(make.base(kinds[1], args[1]), args[2]))
        return context.get_dummy_value()

    integer = types.int64
    return types.void(even, odd, integer, a, *(integer,) * 9), code


@intrinsic
def exponential(typing, x):
    """e^x of a number of binary64 or binary32, good to 2 units in the last place within the limits; of NaN, NaN."""

    def code(context, builder, signature, args):
        kind, (x,) = signature.args[0].name, args
        number, integer = x.type, ir.IntType(signature.args[0].bitwidth)
        name = {"float64": "f64", "float32": "f32"}[kind]
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(number, [number] * 3), f"llvm.fmuladd.{name}"
        )

        def constant(value: float) -> Any:
            return ir.Constant(number, float(np.dtype(kind).type(value)))

        for order, limit in (("<", LOWEST[kind]), (">", HIGHEST[kind])):
            x = builder.select(builder.fcmp_ordered(order, x, constant(limit)), constant(limit), x)
        rounder = constant(1.5 * 2 ** MANTISSA[kind])
        t = builder.call(fma, [x, constant(1 / math.log(2)), rounder])
        k = builder.fneg(builder.fsub(t, rounder))
        r = builder.call(fma, [k, constant(LN2_LOW[kind]), builder.call(fma, [k, constant(LN2_HIGH[kind]), x])])
        y = constant(1 / math.factorial(DEGREE[kind]))
        for power in range(DEGREE[kind] - 1, -1, -1):
            y = builder.call(fma, [y, r, constant(1 / math.factorial(power))])
        bits = builder.shl(builder.bitcast(t, integer), ir.Constant(integer, MANTISSA[kind]))
        one = int(
            np.array(1, kind).view(f"int{integer.width}")
        )  # moved to where an exponent stands, k is added to that of 1
        return builder.fmul(y, builder.bitcast(builder.add(bits, ir.Constant(integer, one)), number))

    return x(x), code


class _Four:
    """Builds instructions on four 32-bit integers at a time: what one decision of the entropy coder has of everything."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context, self.builder = context, builder
        self.narrow, self.wide = (ir.VectorType(ir.IntType(bits), 4) for bits in (32, 64))

    def base(self, array: types.Array, value: Any) -> Any:
        """The pointer to an array's first number."""
        return self.context.make_array(array)(self.context, self.builder, value).data

    def constant(self, value: int) -> Any:
        return ir.Constant(self.narrow, [value] * 4)

    def splat(self, number: Any) -> Any:
        """A vector of equal numbers, of the low 32 bits of a 64-bit one."""
        number, empty = self.builder.trunc(number, ir.IntType(32)), ir.Constant(self.narrow, ir.Undefined)
        first = self.builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(first, empty, ir.Constant(self.narrow, [0] * 4))

    def together(self, numbers: Sequence[Any]) -> Any:
        """A vector of four numbers of any size."""
        vector = ir.Constant(ir.VectorType(numbers[0].type, 4), ir.Undefined)
        for lane, number in enumerate(numbers):
            vector = self.builder.insert_element(vector, number, ir.Constant(ir.IntType(32), lane))
        return vector

    def apart(self, vector: Any) -> list[Any]:
        return [self.builder.extract_element(vector, ir.Constant(ir.IntType(32), lane)) for lane in range(4)]

    def look_up(self, base: Any, places: Sequence[Any]) -> Any:
        """Numbers of an array at four places."""
        return self.together([self.builder.load(self.builder.gep(base, [place])) for place in places])

    def at(self, base: Any, place: Any) -> Any:
        """The pointer to four numbers that follow each other."""
        return self.builder.bitcast(self.builder.gep(base, [place]), self.narrow.as_pointer())

    def product(self, a: Any, b: Any) -> Any:
        """All 64 bits of the products."""
        return self.builder.mul(self.builder.sext(a, self.wide), self.builder.sext(b, self.wide))

    def clamp(self, vector: Any, low: int, high: int) -> Any:
        for order, limit in (("<", self.constant(low)), (">", self.constant(high))):
            vector = self.builder.select(self.builder.icmp_signed(order, vector, limit), limit, vector)
        return vector


@intrinsic
def mix(typing, states, stretch, weights, a, b, c, d, m):
    """The sum of stretch[probability]·weight over the contexts of a decision.

    Parameters
    ----------
    states : int32, flat
        Probabilities in their upper 24 bits (`Model.states`), of which the upper 12 count.
    stretch, weights : int16, int32, flat
    a, b, c, d, m : int
        Where the four states stand, and the first of the four weights.
    """

    def code(context, builder, signature, args):
        four, kinds = _Four(context, builder), signature.args
        states, stretch = four.base(kinds[0], args[0]), four.base(kinds[1], args[1])
        shift = ir.Constant(ir.IntType(32), P_BITS - 12 + 8)
        places = [builder.lshr(builder.load(builder.gep(states, [place])), shift) for place in args[3:7]]
        places = [builder.zext(place, ir.IntType(64)) for place in places]
        inputs = builder.sext(four.look_up(stretch, places), four.narrow)
        weights = builder.load(four.at(four.base(kinds[2], args[2]), args[7]), align=4)
        first, second, third, fourth = four.apart(four.product(inputs, weights))
        return builder.add(builder.add(first, second), builder.add(third, fourth))

    return types.int64(states, stretch, weights, *(types.int64,) * 5), code


@intrinsic
def learn(typing, states, stretch, weights, rates, a, b, c, d, m, bit, error):
    """What states and weights learn from a decision: `entropy.learned` and `entropy.adapted`, four at a time.

    Parameters
    ----------
    states, stretch, weights, a, b, c, d, m
        As in `mix`.
    rates : uint16, flat
        By the count in a state's lower 8 bits.
    bit, error : int
        The decision, and by how much 65536 times it exceeds what was expected.
    """

    def code(context, builder, signature, args):
        four, kinds = _Four(context, builder), signature.args
        states, stretch = four.base(kinds[0], args[0]), four.base(kinds[1], args[1])
        weights, rates = four.at(four.base(kinds[2], args[2]), args[8]), four.base(kinds[3], args[3])
        places, (bit, error) = args[4:8], args[9:]
        old = four.look_up(states, places)

        index = four.apart(builder.lshr(old, four.constant(P_BITS - 12 + 8)))
        inputs = builder.sext(
            four.look_up(stretch, [builder.zext(i, ir.IntType(64)) for i in index]), four.narrow
        )  # at most 11 bits, and the error has 17
        move = builder.add(builder.mul(inputs, four.splat(error)), four.constant(1 << (LEARNING_SHIFT - 1)))
        move = builder.ashr(move, four.constant(LEARNING_SHIFT))
        changed = four.clamp(builder.add(builder.load(weights, align=4), move), -WEIGHT_MAX, WEIGHT_MAX)
        builder.store(changed, weights, align=4)

        count, p = builder.and_(old, four.constant(COUNT_MAX)), builder.lshr(old, four.constant(8))
        rate = four.look_up(rates, [builder.zext(n, ir.IntType(64)) for n in four.apart(count)])
        goal = four.splat(builder.shl(bit, ir.Constant(bit.type, P_BITS)))
        move = four.product(builder.sub(goal, p), builder.zext(rate, four.narrow))  # 22 bits, 16 bits
        move = builder.trunc(builder.ashr(move, ir.Constant(four.wide, [16] * 4)), four.narrow)
        p = four.clamp(builder.add(p, move), P_MIN, (1 << P_BITS) - P_MIN)
        full = builder.icmp_signed("<", count, four.constant(COUNT_MAX))
        count = builder.sub(count, builder.sext(full, four.narrow))  # true is -1
        changed = builder.or_(builder.shl(p, four.constant(8)), count)
        for place, state in zip(places, four.apart(changed)):
            builder.store(state, builder.gep(states, [place]))
        return context.get_dummy_value()

    return types.void(states, stretch, weights, rates, *(types.int64,) * 7), code
