"""Work side by side: on how many threads, and who is told how far it is. Neither changes a result."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

T = TypeVar("T")
R = TypeVar("R")

Progress = Callable[[float], None]
"""A callback with the share of the work that is done, rising to 1."""

THREADS_VARIABLE = "WALLOC_THREADS"
"""Environment variable with the number of worker threads."""

_here = threading.local()
"""Of this thread: `busy`, whether it is one of our workers; `report`, the callback of the call that runs on it."""


def threads() -> int:
    """Number of worker threads: `WALLOC_THREADS` if set, else the processors that this process may run on."""
    wanted = os.environ.get(THREADS_VARIABLE, "")
    if wanted.isascii() and wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Workroom(threading.local):
    """Arrays that each worker keeps from one item to the next.

    Megabytes that are given back go to the system, and come again as pages that it has to find and clear, one fault for
    each 4096 bytes: for tiles of an image, that took as long as half of the work on them.
    """

    def array(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The worker's array of this name, not cleared; whoever had it before is done with it."""
        size = math.prod(shape)
        flat = self.__dict__.get(name)
        if flat is None or flat.size < size:
            flat = self.__dict__[name] = np.empty(size)
        return flat[:size].reshape(shape)


@lru_cache(maxsize=1)
def _pools() -> ThreadpoolController:
    """The thread pools of the BLAS libraries that are loaded."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


_limit_lock = threading.Lock()
_limit_users = 0
_limit: contextlib.AbstractContextManager[object] | None = None


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS keeps to one thread while any such block is at work, and gets back what it had when the last one ends."""
    global _limit, _limit_users
    with _limit_lock:
        if _limit_users == 0:
            _limit = _pools().limit(limits=1)
            _limit.__enter__()
        _limit_users += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limit_users -= 1
            if _limit_users == 0 and _limit is not None:
                _limit.__exit__(None, None, None)
                _limit = None


@contextlib.contextmanager
def reporting(progress: Progress | None) -> Iterator[None]:
    """Have the outermost `for_each` with `report` in this block tell `progress` how far it is."""
    before = getattr(_here, "report", None)
    _here.report = progress
    try:
        yield
    finally:
        _here.report = before


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Have all `for_each` in this block share their threads: many short ones need not start theirs every time."""
    if getattr(_here, "busy", False) or getattr(_here, "pool", None) is not None or threads() == 1:
        yield
        return
    from concurrent.futures import ThreadPoolExecutor

    with one_blas_thread(), ThreadPoolExecutor(threads()) as pool:
        _here.pool = pool
        try:
            yield
        finally:
            _here.pool = None


def for_each(work: Callable[[T], R], items: Sequence[T], *, report: bool = False) -> list[R]:
    """`work` on every item, on as many threads as there are processors; the results in the order of the items.

    Meanwhile BLAS keeps to one thread: its own threads would wait for each other, busily. Within work that is itself an
    item of another `for_each`, items are done one after the other.
    """
    progress: Progress | None = getattr(_here, "report", None) if report else None
    if getattr(_here, "busy", False):
        return [work(item) for item in items]

    def item_of_worker(item: T) -> R:
        _here.busy = True
        try:
            return work(item)
        finally:
            _here.busy = False

    results: list[R] = []
    with contextlib.ExitStack() as stack:
        pool = getattr(_here, "pool", None)
        if pool is None:
            stack.enter_context(one_blas_thread())
            count = min(threads(), len(items))
            if count > 1:
                from concurrent.futures import ThreadPoolExecutor  # here, because who only reads headers needs none

                pool = stack.enter_context(ThreadPoolExecutor(count))
        # one thread is this one: another would hand over with every item, which took a tenth of the time of small ones
        for result in map(item_of_worker, items) if pool is None else pool.map(item_of_worker, items):
            results.append(result)
            if progress is not None:
                progress(len(results) / len(items))
    return results
