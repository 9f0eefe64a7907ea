"""The bundled weights: their sizes, and that every figure in the README and the cards was measured on them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from walloc_ref import model as models

ROOT = Path(__file__).resolve().parent.parent
LIMIT, LIMIT_IN_ALL = 12_000_000, 40_000_000


@pytest.fixture(scope="module")
def table():
    spec = importlib.util.spec_from_file_location("table", ROOT / "weights" / "table.py")
    module = sys.modules["table"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bundled() -> dict[str, Path]:
    return {path.stem: path for path in sorted((ROOT / "weights").glob("*.safetensors"))}


def test_sizes_are_within_the_limits():
    sizes = {name: path.stat().st_size for name, path in bundled().items()}
    assert max(sizes.values()) <= LIMIT
    assert sum(sizes.values()) <= LIMIT_IN_ALL


def test_every_model_was_measured_and_has_entropy_tables(table):
    measured = {}
    for name in table.RESULTS:
        result = json.loads((ROOT / "weights" / name).read_text())
        measured |= {p["codec"]: p["model_id"] for p in result["points"] if p["model_id"]}
    loaded = {name: models.load(path) for name, path in bundled().items()}
    assert measured == {name: model.model_id for name, model in loaded.items()}
    for path in bundled().values():
        with safe_open(path, "np") as f:
            assert "walloc_ref.entropy" in f.metadata()


def test_readme_and_cards_say_what_was_measured(table):
    for path, text in table.texts().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run weights/table.py"
