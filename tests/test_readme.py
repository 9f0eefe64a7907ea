"""What the two READMEs say of the code is true: the quotation, the reading order, the commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pickles
import pytest
import tifffile
from models import photograph, tiny_model, volume
from PIL import Image

import walloc_ref
from walloc_ref import cli
from walloc_ref.model import SEARCH_PATH_VARIABLE, save

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").is_file() else ""
pytestmark = pytest.mark.skipif(not README, reason="not in a checkout")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_decoder_is_quoted_from_the_code():
    quoted = next(block for block in blocks("python") if "to_bands" in block)
    source = [line.strip() for line in (ROOT / "walloc_ref" / "image.py").read_text(encoding="utf-8").splitlines()]
    for line in quoted.splitlines():
        assert line.strip() in source


def test_the_reading_order_is_true():
    folder = ROOT / "walloc_ref"
    rows = re.findall(r"^\| (\[.*?) \| (\d+) \|", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 9
    for names, lines in rows:
        files = re.findall(r"\]\((.*?)\)", names)
        found = sum(len((folder / name).read_text(encoding="utf-8").splitlines()) for name in files)
        assert abs(found - int(lines)) <= 0.1 * found, (names, found)


def test_the_examples_in_python_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photograph(90, 120)).save("photo.png")
    names = {}
    for block in blocks("python"):
        if "walloc_ref" in block:
            exec(block, names)
    assert names["samples"].shape == (90, 120, 3)
    assert abs(walloc_ref.info(names["data"]).ratio / 80 - 1) < 0.02
    assert names["x_hat"].shape == (3, 90, 120)
    assert names["matrix"].shape == (1, 12, 12, 15)
    assert walloc_ref.decode(Path("x.wlc").read_bytes()).shape == (90, 120, 3)


def photographs(folder, sizes, channels=3):
    """Photographs in two folders below one, which are labels."""
    for number, size in enumerate(sizes):
        place = Path(folder) / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(*size, channels, seed=number).squeeze()).save(place / f"{number}.png")


def prepare_use():
    soundfile = pytest.importorskip("soundfile")
    Image.fromarray(photograph(400, 450)).save("photo.jpg")
    wave = np.random.default_rng(0).normal(0, 3000, (9000, 2)).astype(np.int16)
    soundfile.write("song.flac", wave, 44100)
    Path("MODEL.safetensors").write_bytes(save(tiny_model("LinearCodec3D")))
    tifffile.imwrite("stack.tif", volume(9, 20, 30), photometric="minisblack")
    photographs("PHOTOS", [(40, 45)])


def prepare_fit():
    pytest.importorskip("imagecodecs")
    photographs("FOLDER", [(48, 48)] * 2, channels=1)
    np.save("cube.npy", photograph(32, 32, 3, dtype=np.uint16))


def prepare_features():
    photographs("FOLDER", [(40, 45)] * 3)


def prepare_symbols():
    Image.fromarray(photograph(512, 768)).save("photo.png")
    codec = walloc_ref.load_model("rgb_16x")
    Path("photo.wlc").write_bytes(codec.encode(np.asarray(Image.open("photo.png"))))
    Path("FOLDER").mkdir()
    assert cli.main(["symbols", "export", "photo.wlc", "FOLDER/one.webp"]) == 0
    model = tiny_model("Codec2D")
    Path("checkpoint.pth").write_bytes(pickles.checkpoint(model, config=None))
    Path("config.json").write_text(model.config.to_json())


def prepare_nothing():
    pass


PREPARED = {
    "walloc-ref encode": prepare_use,
    "walloc-ref fit": prepare_fit,
    "walloc-ref features": prepare_features,
    "walloc-ref symbols": prepare_symbols,
    "walloc-ref conform": prepare_nothing,
}
"""What the commands of a block find, by its first words."""

ELSEWHERE = ("python3 -m venv", ".venv/bin/python -m pytest")
"""Commands that set up and test a clone: CI runs them."""


@pytest.mark.parametrize("start", PREPARED)
def test_the_commands_run(start, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(SEARCH_PATH_VARIABLE, str(tmp_path))
    (block,) = (block for block in blocks("sh") if block.startswith(start))
    PREPARED[start]()
    for line in block.splitlines():
        if line.startswith("curl"):
            pipe = line.replace("curl -s URL", "cat photo.jpg")
            pipe = pipe.replace("walloc-ref", f"{shlex.quote(sys.executable)} -m walloc_ref.cli")
            subprocess.run(["bash", "-c", f"set -o pipefail; {pipe}"], check=True, timeout=300)
            assert Image.open("photo.png").size == Image.open("photo.jpg").size
            continue
        words = shlex.split(line, comments=True)
        assert words[0] == "walloc-ref", line
        if words[1] == "conform":  # an implementation of somebody's own
            own = f"{shlex.quote(sys.executable)} {ROOT / 'conformance' / 'examples' / 'symbols.py'}"
            words = [word.replace("mydec", own) for word in words] + ["--only", "decode.slice.coder-zeros"]
        if words[1] == "warmup":
            continue  # minutes; tests/test_machine_code.py has it
        assert cli.main(words[1:]) == 0, line
    capfd.readouterr()


def test_every_block_runs():
    """Each block is Python that a test here runs or compares, commands that one runs, or a drawing."""
    known = {"python", "sh", "text"}
    assert {name for name in re.findall(r"^```(\w*)$", README, re.MULTILINE) if name} <= known
    for block in blocks("sh"):
        assert any(block.startswith(start) for start in (*PREPARED, *ELSEWHERE)), block
    for block in blocks("python"):
        assert "walloc_ref" in block or "to_bands" in block, block
