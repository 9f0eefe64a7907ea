"""The bundled weights: sizes, recorded identities, and that every figure in README and cards was measured on them."""

from __future__ import annotations

import importlib.util
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import walloc_ref
from walloc_ref import cli
from walloc_ref import model as models

ROOT = Path(__file__).resolve().parent.parent
LIMIT, LIMIT_IN_ALL = 12_000_000, 40_000_000
"""Bytes in a wheel, whose files are deflated: nearly half of `rgb_2x` is zeros."""


@pytest.fixture(scope="module")
def table():
    spec = importlib.util.spec_from_file_location("result_tables", ROOT / "weights" / "result_tables.py")
    module = sys.modules["result_tables"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bundled() -> dict[str, Path]:
    return {path.stem: path for path in sorted((ROOT / "weights").glob("*.safetensors"))}


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as f:
        return f.metadata()


def test_sizes_are_within_the_limits():
    sizes = {name: len(zlib.compress(path.read_bytes())) for name, path in bundled().items()}
    assert max(sizes.values()) <= LIMIT
    assert sum(sizes.values()) <= LIMIT_IN_ALL


def test_every_model_was_measured_and_has_entropy_tables(table):
    measured = {}
    for name in table.RESULTS:
        result = json.loads((ROOT / "weights" / name).read_text())
        measured |= {p["codec"]: p["model_id"] for p in result["points"] if p["model_id"]}
    loaded = {name: models.load(path) for name, path in bundled().items()}
    measured |= {name: loaded[name].model_id for name in table.FITTED}  # whose cards name the identity, see below
    assert measured == {name: model.model_id for name, model in loaded.items()}
    for path in bundled().values():
        assert "walloc_ref.entropy" in metadata(path)


@pytest.mark.parametrize("name", sorted(bundled()))
def test_identity_is_recorded_and_finds_the_model(name):
    path = bundled()[name]
    identity = models.load(path).model_id
    assert metadata(path).get("walloc_ref.id") == identity, "written without `walloc_ref.model.save`"
    for prefix in (bytes.fromhex(identity), bytes.fromhex(identity)[:16]):  # the whole, and what a stream holds of it
        assert models.name_of(prefix) == name
        assert models.find_by_id(prefix).name == name


@pytest.mark.parametrize("name", sorted(bundled()))
def test_info_names_the_model(name, tmp_path, capsys):
    codec = walloc_ref.load_model(name)
    rng = np.random.default_rng(4)
    if codec.config.kind == "volume":
        samples, rate = rng.integers(0, 256, (5, 9, 8, codec.config.channels), dtype=np.uint8), None
    elif codec.config.kind == "audio":
        samples, rate = rng.integers(-9000, 9000, (900, codec.config.channels), dtype=np.int16), 44_100
    else:
        samples, rate = rng.integers(0, 256, (17, 23, codec.config.channels), dtype=np.uint8), None
    stream = tmp_path / "x.wlc"
    stream.write_bytes(codec.encode(samples, rate))
    assert cli.main(["info", str(stream)]) == 0
    told = capsys.readouterr().out
    assert name in told and "not at hand" not in told
    assert cli.main(["info", "--json", str(stream)]) == 0
    assert name in json.dumps(json.loads(capsys.readouterr().out))


def test_readme_and_cards_say_what_was_measured(table):
    for path, text in table.texts().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run weights/result_tables.py"


def test_tables_leave_speeds_out(table):
    for name in table.RESULTS:
        result = json.loads((ROOT / "weights" / name).read_text(encoding="utf-8"))
        header, _, *rows = table.readme_table(result).splitlines()
        assert "MP/s" not in header and "MS/s" not in header
        assert len(rows) == len(table.points(result)) and {row.count("|") for row in rows} == {header.count("|")}
