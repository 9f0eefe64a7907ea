"""What the two READMEs say of the code is true: the quotation, the reading order, the commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
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
    for block in blocks("python"):
        if "import walloc_ref" in block:
            names = {}
            exec(block, names)
            assert names["samples"].shape == (90, 120, 3)
            assert abs(walloc_ref.info(names["data"]).ratio / 80 - 1) < 0.02
            assert names["x_hat"].shape == (3, 90, 120)


def test_the_commands_run(tmp_path, monkeypatch, capsys):
    soundfile = pytest.importorskip("soundfile")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photograph(400, 450)).save("photo.jpg")
    wave = np.random.default_rng(0).normal(0, 3000, (9000, 2)).astype(np.int16)
    soundfile.write("song.flac", wave, 44100)
    monkeypatch.setenv(SEARCH_PATH_VARIABLE, str(tmp_path))
    Path("MODEL.safetensors").write_bytes(save(tiny_model("LinearCodec3D")))
    tifffile.imwrite("stack.tif", volume(9, 20, 30), photometric="minisblack")
    (tmp_path / "PHOTOS").mkdir()
    Image.fromarray(photograph(40, 45)).save("PHOTOS/a.png")
    ran = 0
    for block in blocks("sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["walloc-ref"] and words[1] in ("encode", "decode", "info", "models") and "-" not in words:
                assert cli.main(words[1:]) == 0, line
                ran += 1
    capsys.readouterr()
    assert ran >= 9
