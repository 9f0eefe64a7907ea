"""The upstream PyTorch model in binary64, for tests that compare with it; they skip where it is not installed."""

from __future__ import annotations

from typing import Any

import pytest

from walloc_ref.measure import upstream
from walloc_ref.model import Model


def load() -> tuple[Any, Any]:
    """(torch, walloc.walloc), or skip the test."""
    try:
        return upstream.load()
    except ImportError as error:
        pytest.skip(f"could not import {error.name}")


def build(model: Model) -> Any:
    """The upstream's model with these weights, in binary64, for evaluation."""
    load()
    return upstream.build(model)
