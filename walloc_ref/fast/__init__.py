"""Numba kernels: the same functions as the clear definitions, with the same signatures and the same results, faster.

Nothing here is imported before it is needed. How kernels become machine code, and where that is kept, stands in
`machine_code`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """A kernel: compiled when it first runs, or found compiled, and run without the interpreter lock."""
    from walloc_ref.fast.machine_code import Kernel  # here, so that threads are to be had without it

    return Kernel(function, **options)


def contracted(function: Callable[..., Any]) -> Any:
    """`bare` for sums of products, which an instruction may round once where it multiplies and adds.

    That is the one liberty that SPEC.md 2.1 leaves: nothing is reordered. So may BLAS, and PyTorch.
    """
    return jit(function, _nrt=False, fastmath={"contract"})


def bare(function: Callable[..., Any]) -> Any:
    """`jit` for functions that allocate no arrays, without code that counts references to those they are given.

    Numba would count whenever an array is taken out of a named tuple, with an atomic instruction, in the hottest loops.
    """
    return jit(function, _nrt=False)


def inlined(function: Callable[..., Any]) -> Any:
    """`bare`, and part of each caller, so that records passed between such functions only exist in registers."""
    return jit(function, _nrt=False, forceinline=True)


def apart(function: Callable[..., Any]) -> Any:
    """`bare`, and no part of its callers: its loops have the registers to themselves.

    What an `inlined` function calls would be inlined, too, unless told otherwise.
    """
    return jit(function, _nrt=False, forceinline=False)
