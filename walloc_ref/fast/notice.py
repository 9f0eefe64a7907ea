"""Who is told that kernels are being compiled, which takes seconds, once. The command line says it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

listeners: list[Callable[[str], None]] = []
"""Called with the name of each kernel that is about to be compiled."""


@contextlib.contextmanager
def compiling(name: str) -> Iterator[None]:
    """A block in which a kernel is compiled."""
    for listener in listeners:
        listener(name)
    yield
