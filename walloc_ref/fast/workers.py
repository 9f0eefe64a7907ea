"""How work is carried out: compiled or not, on how many threads. Neither changes a result."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

T = TypeVar("T")
R = TypeVar("R")

Progress = Callable[[float], None]
"""Is told the share of the work that is done, rising to 1."""

THREADS_VARIABLE = "WALLOC_THREADS"
"""Environment variable with the number of worker threads."""


def compiled() -> bool:
    """Whether kernels are used: always, unless `NUMBA_DISABLE_JIT` would make them slower than the definitions."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


def threads() -> int:
    """Number of worker threads: `WALLOC_THREADS` if set, else the processors that this process may run on."""
    wanted = os.environ.get(THREADS_VARIABLE, "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@lru_cache(maxsize=1)
def _pools() -> ThreadpoolController:
    """The thread pools of the BLAS libraries that are loaded."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def for_each(work: Callable[[T], R], items: Sequence[T], progress: Progress | None = None) -> list[R]:
    """`work` on every item, on as many threads as there are processors; the results in the order of the items.

    Meanwhile BLAS keeps to one thread: its own threads would wait for each other, busily.
    """
    results = []
    with _pools().limit(limits=1), ThreadPoolExecutor(max(1, min(threads(), len(items)))) as pool:
        for result in pool.map(work, items):
            results.append(result)
            if progress is not None:
                progress(len(results) / len(items))
    return results
