"""The command line: what it writes, prints and returns; one exit code and one line for every fault."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from models import photograph, tiny_model
from numpy.testing import assert_array_equal
from PIL import Image

import walloc_ref
from walloc_ref import cli
from walloc_ref import model as models
from walloc_ref.stages import container


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder with an image, a model on the search path, and a stream; no progress bar, however slow it is."""
    monkeypatch.setattr(cli, "PROGRESS_DELAY", 3600.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(models.SEARCH_PATH_VARIABLE, str(tmp_path))
    Path("tiny.safetensors").write_bytes(models.save(tiny_model("Codec2D")))
    Path("second.safetensors").write_bytes(models.save(tiny_model("LinearCodec2D", seed=1)))
    Image.fromarray(photograph(40, 52)).save("in.png")
    Path("in.wlc").write_bytes(walloc_ref.load_model("tiny").encode(photograph(40, 52), certify=True))
    return tmp_path


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = cli.main(arguments)
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_encode_and_decode(capsys):
    code, out, err = run(capsys, "encode", "in.png", "out.wlc", "--model", "tiny")
    assert (code, err) == (0, "")
    size = Path("out.wlc").stat().st_size
    ratio = 40 * 52 * 3 / size
    assert out.startswith(
        f"out.wlc: {size} bytes, 52x40, {ratio:.1f}:1, {8 * size / 2080:.3f} bits per pixel, model tiny, "
    )
    code, out, err = run(capsys, "decode", "out.wlc", "out.png")
    assert (code, err) == (0, "")
    assert out.startswith("out.png: 52x40, symbols verified, model tiny, ")
    decoded = walloc_ref.decode(Path("out.wlc").read_bytes())
    assert_array_equal(np.asarray(Image.open("out.png")), decoded)


def test_certified(capsys):
    assert run(capsys, "encode", "in.png", "out.wlc", "--model", "tiny.safetensors", "--certify")[0] == 0
    code, out, _ = run(capsys, "decode", "out.wlc", "out.bmp", "--model", "tiny.safetensors")
    assert code == 0
    assert "symbols and samples verified" in out


def test_info(capsys):
    code, out, _ = run(capsys, "info", "in.wlc")
    assert code == 0
    assert "52x40, 3 channels, u8" in out
    assert "model           tiny, identity" in out
    code, out, _ = run(capsys, "info", "in.wlc", "--json")
    facts = json.loads(out)
    assert facts["sizes"] == [40, 52]
    assert facts["stream_bytes"] == Path("in.wlc").stat().st_size


def test_info_needs_no_model_and_decodes_nothing(capsys, monkeypatch):
    Path("tiny.safetensors").unlink()
    monkeypatch.setattr("walloc_ref.codec._decode_slice", None)
    code, out, _ = run(capsys, "info", "in.wlc")
    assert code == 0
    assert "not at hand" in out


def test_models(capsys):
    code, out, _ = run(capsys, "models")
    assert code == 0
    assert tiny_model("Codec2D").model_id[:32] in out
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["second", "tiny"]


def test_pipes(monkeypatch):
    command = [sys.executable, "-m", "walloc_ref.cli"]
    image = Path("in.png").read_bytes()
    encoded = subprocess.run([*command, "encode", "-", "-", "--model", "tiny"], input=image, capture_output=True)
    assert encoded.returncode == 0
    assert encoded.stdout[:4] == container.MAGIC
    assert b"bits per pixel" in encoded.stderr
    decoded = subprocess.run([*command, "decode", "-", "out.png"], input=encoded.stdout, capture_output=True)
    assert decoded.returncode == 0
    assert_array_equal(np.asarray(Image.open("out.png")), walloc_ref.decode(encoded.stdout))


def test_keep_going(capsys):
    data = bytearray(Path("in.wlc").read_bytes())
    data[-1] ^= 1
    Path("bad.wlc").write_bytes(data)
    code, out, err = run(capsys, "decode", "bad.wlc", "out.png")
    assert (code, out) == (3, "")
    assert err.startswith("walloc-ref: slice 0: CRC ")
    assert not Path("out.png").exists()
    code, out, err = run(capsys, "decode", "bad.wlc", "out.png", "--keep-going")
    assert code == 1
    assert "nothing verified" in out
    assert err == "walloc-ref: slice 0: damaged, filled with zeros; latent positions 0 to 9 of 10\n"
    assert np.asarray(Image.open("out.png")).shape == (40, 52, 3)


def test_metadata_is_carried_on_request(capsys):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    Image.fromarray(photograph(8, 8)).save("meta.png", exif=exif, icc_profile=b"profile")
    assert run(capsys, "encode", "meta.png", "a.wlc", "--model", "tiny")[0] == 0
    assert run(capsys, "encode", "meta.png", "b.wlc", "--model", "tiny", "--metadata")[0] == 0
    assert run(capsys, "decode", "a.wlc", "a.png")[0] == run(capsys, "decode", "b.wlc", "b.png")[0] == 0
    assert "icc_profile" not in Image.open("a.png").info
    assert Image.open("b.png").info["icc_profile"] == b"profile"
    assert Image.open("b.png").getexif()[0x010E] == "a description"


def test_sixteen_bits(capsys):
    import tifffile

    tifffile.imwrite("deep.tif", photograph(20, 20, dtype=np.uint16))
    assert run(capsys, "encode", "deep.tif", "deep.wlc", "--model", "tiny")[0] == 0
    code, _, err = run(capsys, "decode", "deep.wlc", "deep.jpg")
    assert code == 3
    assert "for 16-bit samples" in err
    assert run(capsys, "decode", "deep.wlc", "deep.png")[0] == 0
    assert walloc_ref.decode(Path("deep.wlc").read_bytes()).dtype == np.uint16


STREAM_FAULTS = {
    "empty": (lambda d: b"", "magic: nothing"),
    "not a stream": (lambda d: b"\x89PNG" + d[4:], "magic: 89504e47; 89574c43, a WaLLoC stream"),
    "future version": (lambda d: d[:4] + b"\x02" + d[5:], "version: 2; 1, the only one this reader knows"),
    "truncated": (lambda d: d[:-20], "SLICES.length: "),
    "flipped": (lambda d: d[:20] + bytes([d[20] ^ 1]) + d[21:], "section 0x01.CRC: "),
    "trailing": (lambda d: d + b"\0", "end: 1 bytes more; nothing follows SLICES"),
}


@pytest.mark.parametrize("fault", STREAM_FAULTS)
@pytest.mark.parametrize("command", ["decode", "info"])
def test_bad_streams(capsys, fault, command):
    damage, message = STREAM_FAULTS[fault]
    Path("bad.wlc").write_bytes(damage(Path("in.wlc").read_bytes()))
    code, out, err = run(capsys, command, "bad.wlc", *(["out.png"] if command == "decode" else []))
    if (fault, command) == ("truncated", "info"):  # the header is whole, and says so much
        assert code == 0
        return
    assert code == 3
    assert out == ""
    assert err.startswith(f"walloc-ref: {message}")
    assert err.count("\n") == 1
    assert not Path("out.png").exists()


OTHER_FAULTS = {
    "no such input": (["encode", "absent.png", "o.wlc"], 3, "input: absent.png; a readable file (No such file or"),
    "folder as input": (["decode", ".", "o.png"], 3, "input: .; a readable file (Is a directory)"),
    "not an image": (["encode", "tiny.safetensors", "o.wlc"], 3, "input: tiny.safetensors; an image (PNG"),
    "no such folder": (["encode", "in.png", "absent/o.wlc", "--model", "tiny"], 3, "output: absent/o.wlc; a writable"),
    "unknown model": (["encode", "in.png", "o.wlc", "--model", "big"], 3, "model: big; one of second, tiny"),
    "not a model": (["encode", "in.png", "o.wlc", "--model", "./in.png"], 3, "weights file: in.png; a safetensors"),
    "other model": (["decode", "in.wlc", "o.png", "--model", "second"], 3, "model identity: "),
    "format": (["decode", "in.wlc", "o.gif"], 3, "output: o.gif; a name that ends in .png"),
    "limit": (["decode", "in.wlc", "o.png", "--max-samples", "6239"], 3, "samples: 6240; at most 6239; raise it with"),
    "encode limit": (["encode", "in.png", "o.wlc", "--max-samples", "6239"], 3, "input: in.png, 52x40; at most 6239"),
    "no command": ([], 2, "usage: walloc-ref"),
    "unknown option": (["info", "in.wlc", "--fast"], 2, "usage: walloc-ref"),
}


@pytest.mark.parametrize("fault", OTHER_FAULTS)
def test_other_faults(capsys, fault, place):
    arguments, expected, message = OTHER_FAULTS[fault]
    before = sorted(place.iterdir())
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (expected, "")
    assert err.removeprefix("walloc-ref: ").startswith(message)
    assert expected == 2 or err.count("\n") == 1
    assert sorted(place.iterdir()) == before


def test_transparent_image(capsys):
    samples = np.dstack([photograph(8, 8), np.zeros((8, 8), np.uint8)])
    Image.fromarray(samples).save("clear.png")
    code, _, err = run(capsys, "encode", "clear.png", "o.wlc", "--model", "tiny")
    assert code == 3
    assert "transparent pixels; an opaque image; or name a --background colour" in err
    assert run(capsys, "encode", "clear.png", "o.wlc", "--model", "tiny", "--background", "white")[0] == 0


def test_unwritable_output_leaves_the_old_file(capsys, monkeypatch):
    Path("o.wlc").write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli.os, "replace", fail)
    code, _, err = run(capsys, "encode", "in.png", "o.wlc", "--model", "tiny")
    assert code == 3
    assert err == "walloc-ref: output: o.wlc; a writable file (No space left on device)\n"
    assert Path("o.wlc").read_bytes() == b"old"
    assert not list(Path().glob(".o.wlc*"))


def test_output_may_be_a_device(capsys):
    assert run(capsys, "encode", "in.png", "/dev/null", "--model", "tiny")[0] == 0


def test_progress_shows_only_to_people_and_only_when_work_is_long(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run(capsys, "encode", "in.png", "o.wlc", "--model", "tiny")[2] == ""
    monkeypatch.setattr(cli, "PROGRESS_DELAY", 0.0)
    assert "%" in run(capsys, "decode", "o.wlc", "o.png")[2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert run(capsys, "decode", "o.wlc", "o.png")[2] == ""


def test_version(capsys):
    code, out, _ = run(capsys, "--version")
    assert (code, out) == (0, f"walloc-ref {walloc_ref.__version__}\n")


def test_read_only_installation_still_works(tmp_path):
    """Numba finds no folder for its cache; kernels are then compiled in every process."""
    program = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "import numpy as np, walloc_ref\n"
        "from walloc_ref.fast import quantise\n"
        "assert quantise.quantise(np.zeros(3), 8).tolist() == [0, 0, 0]\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
