"""The command line: what it writes, prints and returns; one exit code and one line for every fault."""

from __future__ import annotations

import json
import os
import re
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


def test_profile_is_carried_and_exif_on_request(capsys):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    Image.fromarray(photograph(8, 8)).save("meta.png", exif=exif, icc_profile=b"profile")
    found = {}
    for options in ((), ("--metadata",), ("--no-icc",)):
        assert run(capsys, "encode", "meta.png", "a.wlc", "--model", "tiny", *options)[0] == 0
        assert run(capsys, "decode", "a.wlc", "a.png")[0] == 0
        image = Image.open("a.png")
        found[options] = image.info.get("icc_profile"), image.getexif().get(0x010E)
    assert found == {
        (): (b"profile", None),
        ("--metadata",): (b"profile", "a description"),
        ("--no-icc",): (None, None),
    }


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
    "folder as input": (["info", "."], 3, "input: .; a readable file (Is a directory)"),
    "not an image": (["encode", "tiny.safetensors", "o.wlc"], 3, "input: tiny.safetensors; an image (PNG"),
    "no such number": (
        ["decode", "in.wlc", "o.png", "--max-samples", "-5"],
        2,
        "argument --max-samples: -5 is not a whole number from 1 on; see walloc-ref decode --help",
    ),
    "no number": (["eval", "in.png", "--seconds", "nan"], 2, "argument --seconds: nan is not a time over 0 and"),
    "not a stream's name": (["encode", "in.png", "o.png"], 3, "output: o.png; a name that ends in .wlc, or --force"),
    "over the input": (["encode", "in.png", "in.png"], 3, "output: in.png; a name that ends in .wlc, or --force"),
    "over a link's input": (["encode", "in.png", "link.wlc"], 3, "output: link.wlc; another file than the input"),
    "folder as output": (["encode", "in.png", "folder.wlc"], 3, "output: folder.wlc; a writable file (Is a directory"),
    "empty command": (
        ["conform", "run", "--impl", ""],
        2,
        "argument --impl: the command is empty; see walloc-ref conform run",
    ),
    "empty model": (["decode", "in.wlc", "o.png", "--model", ""], 2, "argument model: empty; see walloc-ref --help"),
    "empty name": (["symbols", "decode", "", "o", "--model", "tiny"], 2, "argument input: empty"),
    "blank command": (["conform", "run", "--impl", " "], 2, "argument --impl: the command is empty"),
    "half a command": (["conform", "run", "--impl", "'"], 2, "argument --impl: ' is no command (No closing"),
    "no time": (["conform", "run", "--timeout", "nan"], 2, "argument --timeout: nan is not a time"),
    "long name": (["decode", "x" * 100000, "o.png"], 3, "input: " + "x" * 375 + "…"),
    "commands in a name": (["info", "\x1b[2J\n"], 3, "input: \\x1b[2J\\n; a readable file"),
    "commands in an option": (["info", "in.wlc", "--\x1b[2J"], 2, "unrecognized arguments: --\\x1b[2J; see"),
    "no such folder": (["encode", "in.png", "absent/o.wlc", "--model", "tiny"], 3, "output: absent/o.wlc; a writable"),
    "unknown model": (["encode", "in.png", "o.wlc", "--model", "big"], 3, "model: big; one of second, tiny"),
    "not a model": (["encode", "in.png", "o.wlc", "--model", "./in.png"], 3, "weights file: in.png; a safetensors"),
    "other model": (["decode", "in.wlc", "o.png", "--model", "second"], 3, "model identity: "),
    "format": (["decode", "in.wlc", "o.gif"], 3, "output: o.gif; a name that ends in .png"),
    "limit": (["decode", "in.wlc", "o.png", "--max-samples", "6239"], 3, "samples: 6240; at most 6239; raise it with"),
    "encode limit": (["encode", "in.png", "o.wlc", "--max-samples", "6239"], 3, "input: in.png, 52x40; at most 6239"),
    "no command": ([], 2, "the following arguments are required: COMMAND"),
    "unknown option": (["info", "in.wlc", "--fast"], 2, "unrecognized arguments: --fast; see walloc-ref --help"),
}


@pytest.mark.parametrize("fault", OTHER_FAULTS)
def test_other_faults(capsys, fault, place):
    arguments, expected, message = OTHER_FAULTS[fault]
    Path("folder.wlc").mkdir()
    Path("link.wlc").symlink_to("in.png")
    before = sorted(place.iterdir())
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (expected, "")
    assert err.removeprefix("walloc-ref: ").startswith(message)
    assert err.count("\n") == 1
    assert "\x1b" not in err
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

    monkeypatch.setattr(os, "replace", fail)
    code, _, err = run(capsys, "encode", "in.png", "o.wlc", "--model", "tiny")
    assert code == 3
    assert err == "walloc-ref: output: o.wlc; a writable file (No space left on device)\n"
    assert Path("o.wlc").read_bytes() == b"old"
    assert not list(Path().glob(".walloc-ref-*"))


# ---- files, pipes and terminals -------------------------------------------------------------------------------------

PROGRAM = f"{sys.executable} -m walloc_ref.cli"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell in which $W is the program."""
    everything = {**os.environ, "W": PROGRAM, "PYTHONPATH": str(Path(cli.__file__).parents[1]), **environment}
    done = subprocess.run(["bash", "-c", line], capture_output=True, env=everything, text=True, timeout=120)
    done.stderr = re.sub("walloc-ref: compiling kernels .*\n", "", done.stderr)  # where it is the first command ever
    return done


def test_input_that_cannot_be_sought_in_and_output_to_pipes():
    line = (
        "set -e -o pipefail; $W encode <(cat in.png) a.wlc --model tiny >/dev/null;"
        "$W encode /dev/stdin b.wlc --model tiny <in.png >/dev/null; mkfifo f; cat in.png >f &"
        "$W encode f c.wlc --model tiny >/dev/null; cat in.wlc | $W decode /dev/stdin - 2>/dev/null | cat >d.png;"
        "$W decode in.wlc /dev/stdout --format tif 2>/dev/null | cat >e.tif"
    )
    done = shell(line)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("a.wlc").read_bytes() == Path("b.wlc").read_bytes() == Path("c.wlc").read_bytes()
    decoded = walloc_ref.decode(Path("in.wlc").read_bytes())
    assert_array_equal(np.asarray(Image.open("d.png")), decoded)


FULL = "walloc-ref: file: the standard output; one that can be used (No space left on device)\n"
TERMINALS = {
    "full output": ("$W info in.wlc >/dev/full", 3, FULL),
    "full output, long": ("$W conform list >/dev/full", 3, FULL),
    "full help": ("$W --help >/dev/full", 3, FULL),
    "full output of samples": ("$W decode in.wlc - >/dev/full", 3, "walloc-ref: output: -; a writable file (No space "),
    "full device": ("$W decode in.wlc /dev/full", 3, "walloc-ref: output: /dev/full; a writable file (No space "),
    "closed input": ("$W info - <&-", 3, "walloc-ref: input: the standard input; one that is open\n"),
    "closed input, unused": ("$W info in.wlc <&- >/dev/null", 0, ""),
    "closed output": ("$W info in.wlc >&-", 0, ""),
    "closed output of samples": ("$W decode in.wlc - >&-", 3, "walloc-ref: output: the standard output; one that is "),
    "closed error": ("$W decode absent.wlc o.png 2>&-", 3, ""),
    "closed error, unused": ("$W decode in.wlc o.png 2>&- >/dev/null", 0, ""),
    "all closed": ("$W decode in.wlc o.png <&- >&- 2>&-", 0, ""),
    "ASCII": ("PYTHONIOENCODING=ascii $W info 'ü·.wlc'", 3, "walloc-ref: input: \\xfc\\xb7.wlc; a readable file"),
    "half a character": ("$W info $'\\xff'", 3, "walloc-ref: input: \\udcff; a readable file"),
    "left": ("$W conform list | head -1 >/dev/null; exit ${PIPESTATUS[0]}", 3, ""),
    "endless input": (
        "$W info /dev/zero",
        3,
        "walloc-ref: input: /dev/zero, 285212672 bytes or more; at most 268435456",
    ),
    "endless image": (
        "ulimit -v 4000000; $W encode /dev/full o.wlc",
        3,
        "walloc-ref: input: /dev/full, 285212672 bytes",
    ),
    "endless model": ("mkfifo a.safetensors; $W models >/dev/null", 0, ""),
    "bad model": ("echo >a.safetensors; $W info in.wlc >/dev/null; $W decode in.wlc o.png >/dev/null", 0, ""),
    "bad model, listed": ("echo >a.safetensors; $W models >/dev/null", 3, "walloc-ref: "),
}


@pytest.mark.parametrize("case", TERMINALS)
def test_terminals(case):
    line, expected, message = TERMINALS[case]
    done = shell(line)
    assert (done.returncode, done.stdout) == (expected, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == bool(message)


def test_interrupted_and_out_of_memory(capsys, monkeypatch):
    for error, expected in ((KeyboardInterrupt(), (130, "", "")), (MemoryError(), (3, "", OUT_OF_MEMORY))):

        def fail(_: str, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(cli, "read_file", fail)
        assert run(capsys, "info", "in.wlc") == expected


OUT_OF_MEMORY = "walloc-ref: memory: exhausted; a smaller input\n"


@pytest.mark.parametrize("name", ["full.wav", "full.flac"])
def test_full_disk(capsys, monkeypatch, name):
    rng = np.random.default_rng(0)
    Path("audio.safetensors").write_bytes(models.save(tiny_model("Codec1D")))
    noise = rng.integers(-20000, 20000, (200000, 2)).astype(np.int16)
    Path("in2.wlc").write_bytes(walloc_ref.load_model("audio").encode(noise, 44100))
    Path(name).symlink_to("/dev/full")
    code, out, err = run(capsys, "decode", "in2.wlc", name, "--format", name[-4:])
    assert (code, out) == (3, "")
    assert err == f"walloc-ref: output: {name}; a writable file (No space left on device)\n"


def test_output_keeps_permissions_and_links(capsys):
    Path("target.wlc").write_bytes(b"old")
    Path("target.wlc").chmod(0o640)
    Path("link.wlc").symlink_to("target.wlc")
    Path("new.wlc").symlink_to("folder-less.wlc")
    for name in ("link.wlc", "new.wlc", "n" * 246 + ".wlc"):
        assert run(capsys, "encode", "in.png", name, "--model", "tiny")[0] == 0
    assert Path("link.wlc").is_symlink() and Path("new.wlc").is_symlink()
    assert Path("target.wlc").stat().st_mode & 0o777 == 0o640
    assert Path("target.wlc").read_bytes() == Path("folder-less.wlc").read_bytes()


def test_force(capsys):
    os.link("in.png", "same.wlc")
    code, _, err = run(capsys, "encode", "in.png", "same.wlc", "--model", "tiny")
    assert code == 3 and "another file than the input" in err
    for name in ("same.wlc", "o.bin", "in.png"):
        assert run(capsys, "encode", "in.png", name, "--force", "--model", "tiny")[0] == 0
    assert Path("in.png").read_bytes()[:4] == container.MAGIC


def test_output_may_be_a_device(capsys):
    assert run(capsys, "encode", "in.png", "/dev/null", "--model", "tiny")[0] == 0


def test_progress_shows_only_to_people_and_only_when_work_is_long(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run(capsys, "encode", "in.png", "o.wlc", "--model", "tiny", "--window", "8")[2] == ""
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


def test_rate_and_windows_on_the_command_line(capsys):
    sizes = []
    for option in (["--quality", "20"], ["--quality", "60"], ["--step", "0.5"], ["--window", "none"]):
        code, _, err = run(capsys, "encode", "in.png", "out.wlc", "--model", "tiny", *option)
        assert (code, err) == (0, "")
        sizes.append(Path("out.wlc").stat().st_size)
    assert sizes[0] < sizes[1]
    code, _, _ = run(capsys, "encode", "in.png", "out.wlc", "--model", "tiny", "--max-bytes", str(sizes[3] - 40))
    assert code == 0 and Path("out.wlc").stat().st_size <= sizes[3] - 40
    for wrong in (["--quality", "1", "--step", "1"], ["--window", "x"], ["--max-bytes", "x"]):
        code, _, err = run(capsys, "encode", "in.png", "out.wlc", "--model", "tiny", *wrong)
        assert code == 2 and "Traceback" not in err
    for wrong in (["--quality", "101"], ["--step", "0"], ["--ratio", "nan"], ["--window", "5"]):
        code, _, err = run(capsys, "encode", "in.png", "out.wlc", "--model", "tiny", *wrong)
        assert code == 3 and err.count("\n") == 1


def test_models_where_none_is_named(capsys):
    Image.open("in.png").convert("L").save("grey.png")
    for words, model in (
        (["in.png"], "rgb_4x"),
        (["in.png", "--step", "2"], "rgb_4x"),
        (["in.png", "--quality", "40"], "rgb_2x"),
        (["grey.png"], "gray_16x"),
        (["grey.png", "--psnr", "30"], "rgb_2x"),
        (["in.png", "--quality", "55"], "rgb_1x"),
        (["in.png", "--psnr", "40"], "linear_rgb_1x"),
        (["in.png", "--ratio", "3"], "linear_rgb_1x"),
        (["grey.png", "--quality", "95"], "linear_rgb_1x"),
    ):
        code, out, _ = run(capsys, "encode", words[0], "out.wlc", "--force", *words[1:])
        assert code == 0 and f"model {model}," in out
    for quality, model in (("40", "rgb_2x"), ("55", "rgb_1x"), ("95", "linear_rgb_1x")):
        code, out, _ = run(capsys, "explain", "in.png", "--out", "page.html", "--quality", quality)
        assert code == 0 and model in Path("page.html").read_text(encoding="utf-8") and f"model {model}," in out
    code, _, err = run(capsys, "encode", "in.png", "out.wlc", "--force", "--model", "rgb_2x", "--psnr", "60")
    assert code == 3 and err.startswith("walloc-ref: psnr: 60")


def test_a_region_on_the_command_line(capsys):
    assert run(capsys, "encode", "in.png", "out.wlc", "--model", "tiny")[0] == 0
    assert run(capsys, "decode", "out.wlc", "whole.png")[0] == 0
    code, out, err = run(capsys, "decode", "out.wlc", "part.png", "--region", "10,5,20,30")
    assert (code, err) == (0, "") and "region 20x30 at 10,5, its slices verified" in out
    whole, part = (np.asarray(Image.open(name)) for name in ("whole.png", "part.png"))
    assert np.array_equal(part, whole[5:35, 10:30])
    code, _, err = run(capsys, "decode", "out.wlc", "part.png", "--region", "10,5,200,30")
    assert code == 3 and err.startswith("walloc-ref: region: ")
    assert run(capsys, "decode", "out.wlc", "part.png", "--region", "10,5,20")[0] == 2


def test_what_libraries_log_is_not_said_twice():
    """Pillow logs what it does not know of a TIFF; without a listener that goes to the standard error."""
    Image.fromarray(photograph(8, 8)).save("odd.tif")
    data = bytearray(Path("odd.tif").read_bytes())
    entry = data.index(b"\x15\x01\x03\x00\x01\x00\x00\x00")  # SamplesPerPixel, SHORT, 1 value
    data[entry + 8 : entry + 10] = (22528).to_bytes(2, "little")
    Path("odd.tif").write_bytes(data)
    command = [sys.executable, "-m", "walloc_ref.cli", "encode", "odd.tif", "odd.wlc"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == cli.BAD_INPUT
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_urls_are_read_and_written(capsys):
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/in.png", Path("in.png").read_bytes())
    assert run(capsys, "encode", "memory://in.png", "memory://out.wlc", "--model", "tiny")[0] == cli.DONE
    assert run(capsys, "encode", "in.png", "same.wlc", "--model", "tiny")[0] == cli.DONE
    assert fsspec.filesystem("memory").cat("/out.wlc") == Path("same.wlc").read_bytes()
    assert run(capsys, "decode", "memory://out.wlc", "out.png")[0] == cli.DONE
    assert run(capsys, "info", "memory://out.wlc")[0] == cli.DONE
    for name in ("memory://nothing.png", "nonsense://x.png"):
        code, _, err = run(capsys, "encode", name, "x.wlc", "--model", "tiny")
        assert code == cli.BAD_INPUT and len(err.splitlines()) == 1 and name in err
    code, _, err = run(capsys, "encode", "memory://in.png", "memory://out.png", "--model", "tiny")
    assert code == cli.BAD_INPUT and ".wlc" in err
