"""The exponential, as instructions that a compiler can do on vectors: the library's is called number by number.

e^x = 2^k·e^r with k = rint(x/ln 2), so that |r| ≤ ln 2 / 2. r is what remains of x after k·ln 2 was taken away in two parts,
the first product exact; e^r is Taylor's series, up to where the next term is below an eighth of a unit in the last place;
2^k is put together from its bits. Adding 1.5·2^52 (in binary32 1.5·2^23) to a number rounds it to an integer, which then
stands in the low bits of the sum: that gives k both as a number and as bits.

Results are good to 2 units in the last place from `LOWEST` to `HIGHEST`. Arguments beyond count as these limits, so that nothing
overflows: there a sigmoid is 0 or 1 and a weight of a softmax 0, whatever comes out. What is not a number stays so.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

LOWEST = {"float64": -708.0, "float32": -87.0}
"""Smallest arguments whose results are normal numbers."""

HIGHEST = {"float64": 709.0, "float32": 88.0}
"""Largest arguments whose results are finite."""

LN2_HIGH = {"float64": float.fromhex("0x1.62e42feep-1"), "float32": float.fromhex("0x1.63p-1")}
"""The first bits of the logarithm of 2, so few that their product with k is exact: 33, and 9."""

LN2_LOW = {"float64": float.fromhex("0x1.a39ef35793c76p-33"), "float32": float.fromhex("-0x1.bd0106p-13")}
"""What remains of it."""

DEGREE = {"float64": 13, "float32": 7}
"""Last power of Taylor's series: the next term is at most 5e-18 and 6e-9."""

MANTISSA = {"float64": 52, "float32": 23}
"""Bits of a number below its leading one."""


@intrinsic
def _power_of_two(typing, t):  # type: ignore[no-untyped-def]
    """2^k, from the sum of k and what rounds to integers: its low bits are moved to where an exponent stands."""
    kind = "float64" if t == types.float64 else "float32"

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        integer = ir.IntType(64 if kind == "float64" else 32)
        one = np.array(1, kind).view(f"int{integer.width}")
        bits = builder.shl(builder.bitcast(args[0], integer), ir.Constant(integer, MANTISSA[kind]))
        return builder.bitcast(builder.add(bits, ir.Constant(integer, int(one))), args[0].type)

    return t(t), code


def exponential(x: Any) -> Any:
    """e^x for a number of binary64 or binary32; in compiled code only."""
    raise NotImplementedError


@overload(exponential)
def _exponential(x):  # type: ignore[no-untyped-def]
    kind = x.name
    number = getattr(np, kind)
    lowest, highest, high, low = (number(part[kind]) for part in (LOWEST, HIGHEST, LN2_HIGH, LN2_LOW))
    inverse, rounder = number(1 / math.log(2)), number(1.5 * 2 ** MANTISSA[kind])
    c0, c1, c2, c3, c4, c5, c6, c7 = (number(1 / math.factorial(n)) for n in range(8))
    c8, c9, c10, c11, c12, c13 = (number(1 / math.factorial(n)) for n in range(8, 14))
    wide = DEGREE[kind] == 13

    def code(x):  # type: ignore[no-untyped-def]
        x = lowest if x < lowest else x
        x = highest if x > highest else x
        t = x * inverse + rounder
        k = t - rounder
        r = (x - k * high) - k * low
        if wide:
            y = c8 + r * (c9 + r * (c10 + r * (c11 + r * (c12 + r * c13))))
            y = c7 + r * y
        else:
            y = c7
        y = c0 + r * (c1 + r * (c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * y))))))
        return y * _power_of_two(t)

    return code
