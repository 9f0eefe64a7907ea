"""The page on learning from latents runs, and its experiment does on a few made signals what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import walloc_ref
from walloc_ref.errors import BadSamples
from walloc_ref.learning import experiment

PAGE = Path(walloc_ref.__file__).parent / "learning" / "README.md"
PHOTOGRAPH = Path(walloc_ref.__file__).parent / "photographs" / "coffee.png"


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(PHOTOGRAPH.read_bytes())
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(block, names)
    photo, right = names["photo"].astype(float), names["right"]

    def error(picture):
        return np.mean((picture.astype(float) - photo)[:, right] ** 2)

    assert error(names["coloured"]) < 0.2 * error(names["grey"])  # colours came back where nothing was learned from
    assert (tmp_path / "train.tar").stat().st_size > 0
    for name in ("coloured.jpg", "denoised.jpg"):  # the pictures in the page are those that it makes
        shown, made = (
            np.asarray(Image.open(folder / name).convert("RGB"), float) for folder in (PAGE.parent, tmp_path)
        )
        assert shown.shape == made.shape and np.abs(shown - made).mean() < 4
        assert (PAGE.parent / name).stat().st_size < 150_000


@pytest.mark.parametrize("kind", ["images", "audio", "throughput"])
def test_the_tables_of_the_page_are_those_of_the_results(kind):
    page = PAGE.read_text(encoding="utf-8")
    result = json.loads((PAGE.parent / f"{kind}.json").read_text(encoding="utf-8"))
    assert (result["format"], result["kind"]) == (experiment.FORMAT, kind)
    assert experiment.fill(page, result) == page
    for row in result["rows"] if kind != "throughput" else ():
        assert len(row["scores"]) == result["seeds"] == 5
        assert row["accuracy"] == pytest.approx(np.mean(row["scores"]))
        assert row["spread"] == pytest.approx(np.std(row["scores"]))


@pytest.fixture
def images(tmp_path):
    """Three classes of thirty images of 40 by 40: bars across, bars down, a disc; each somewhere, in any colour."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40]
    for label in range(3):
        (tmp_path / f"class{label}").mkdir()
        for number in range(30):
            shift, colour = rng.integers(0, 8), rng.uniform(100, 255, 3)
            shape = [(y + shift) % 8 < 4, (x + shift) % 8 < 4, (y - 20) ** 2 + (x - 12 - shift) ** 2 < 150][label]
            image = np.clip(shape[:, :, None] * colour + rng.normal(20, 8, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / f"class{label}" / f"{number:04}.png")
    return tmp_path


def test_learners_tell_shapes_apart_through_latents(images, tmp_path, capsys):
    pytest.importorskip("sklearn")
    out = tmp_path / "out.json"
    pytest.importorskip("matplotlib")
    plot = tmp_path / "out.png"
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- measured: images -->\nold\n<!-- end -->\nb\n")
    words = ["images", str(images), "--models", "rgb_16x", "--seeds", "2", "--json", str(out), "--plot", str(plot)]
    words += ["--page", str(page)]
    assert experiment.main(words) == 0
    result = json.loads(out.read_text())
    assert result["signals"] == 90 and result["groups"] == 3
    assert plot.read_bytes().startswith(b"\x89PNG")
    rows = {(row["view"], row["learner"]): row for row in result["rows"]}
    assert rows["symbols", "trees"]["accuracy"] > 0.8
    assert rows["symbols", "trees"]["dimensions"] == rows["reduced", "trees"]["dimensions"] == 300
    assert "| symbols | rgb_16x |" in capsys.readouterr().out
    kept = result["rows"].pop()  # as if it had been stopped
    result["rows"][0]["accuracy"] = 2.0  # to be seen that it is kept
    out.write_text(json.dumps(result))
    again = [*words[: words.index("--plot")], "--resume"]
    assert experiment.main(again) == 0
    resumed = json.loads(out.read_text())["rows"]
    assert resumed[:-1] == result["rows"] and resumed[-1]["scores"] == kept["scores"]
    assert experiment.main([*again, "--seeds", "3"]) == 3 and "other seeds" in capsys.readouterr().err
    text = page.read_text()
    assert "| symbols | rgb_16x |" in text and "old" not in text and text.startswith("a\n") and text.endswith("b\n")
    with pytest.raises(BadSamples, match="page"):
        experiment.fill("nothing", result)


def test_nobody_is_in_both_sets():
    groups = np.repeat(np.arange(20), 5)
    data = experiment.Data(np.zeros((100, 4, 4, 3), np.uint8), np.arange(100) % 3, groups)
    for seed in range(5):
        train, test = experiment.split(data, seed)
        assert len(train) + len(test) == 100 and not set(groups[train]) & set(groups[test])
    audio = experiment.Data(np.zeros((100, 8), np.int16), np.arange(100) % 3, groups % 4, rate=8000)
    assert len({tuple(np.unique(audio.groups[experiment.split(audio, seed)[1]])) for seed in range(4)}) == 4


def test_data_that_are_none_are_refused(tmp_path, capsys):
    pytest.importorskip("sklearn")
    assert experiment.main(["images", str(tmp_path)]) == 3
    assert "two classes" in capsys.readouterr().err
    assert experiment.main(["images", str(tmp_path), str(tmp_path)]) == 3
    assert "folders" in capsys.readouterr().err
    assert experiment.main(["images", str(tmp_path), "--plot", "x.gif"]) == 3  # before anything is measured
    assert "--plot" in capsys.readouterr().err


def test_throughput_is_measured(images, tmp_path, capsys):
    page, out = tmp_path / "page.md", tmp_path / "out.json"
    page.write_text("<!-- measured: throughput -->\n<!-- end -->\n")
    words = ["throughput", str(images / "class0"), str(images / "class1"), "--models", "rgb_16x", "--limit", "2"]
    assert experiment.main([*words, "--json", str(out), "--page", str(page)]) == 0
    result = json.loads(out.read_text())
    assert [(row["name"], row["images"], row["pixels"]) for row in result["rows"]] == [
        ("class0", 2, 1600),
        ("class1", 2, 1600),
    ]
    for row in result["rows"]:
        assert row["symbols"] == 12 * 5 * 5
        assert 0 < row["entropy_ms"] < row["pixels_ms"] and row["symbols_ms"] > 0 and row["jpeg_ms"] > 0
    table = experiment.table(result)
    assert table in capsys.readouterr().out and table in page.read_text()
