"""Numba kernels: the same functions as the clear definitions, with the same signatures and the same results, faster.

Nothing here is imported before it is needed. Numba keeps compiled code beside the module, or in the user's cache folder;
where neither can be written (a read-only installation without a home) compilation simply happens in every process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def jit(function: Callable[..., Any]) -> Any:
    """Compile `function` lazily without the interpreter lock, with an on-disk cache where one can be written."""
    import numba  # here, so that threads are to be had without a compiler

    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # Numba found no folder for its cache
        return numba.njit(nogil=True, error_model="numpy")(function)
