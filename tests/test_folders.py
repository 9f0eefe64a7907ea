"""Whole folders: every file done once, nothing lost where one is bad or a worker dies."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from models import photograph, tiny_model
from PIL import Image

import walloc_ref
from walloc_ref import cli, folders
from walloc_ref import model as models
from walloc_ref.files import audio_files

NAMES = ("a.png", "b.PNG", "one/a.png", "one/two/c.bmp")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WALLOC_MODELS", str(tmp_path / "models"))
    for name, (architecture, options) in {"tiny": ("LinearCodec2D", {}), "sound": ("Codec1D", {})}.items():
        Path("models").mkdir(exist_ok=True)
        Path(f"models/{name}.safetensors").write_bytes(models.save(tiny_model(architecture, **options)))
    for number, name in enumerate(NAMES):
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(20 + number, 31)).save(Path("in", name))
    Path("in/notes.txt").write_text("not ours")
    Path("in/.hidden.png").write_text("nor this")


def run(capsys, *arguments):
    code = cli.main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def inside(name):
    return sorted(str(path.relative_to(name)) for path in Path(name).rglob("*") if path.is_file())


def test_there_and_back_and_again(capsys):
    code, out, err = run(capsys, "encode", "in", "--out", "coded", "--model", "tiny")
    assert (code, err) == (0, "") and out.startswith("coded: 4 files done, 0 were done before, 0 failed; ")
    assert inside("coded") == ["a.wlc", "b.wlc", "one/a.wlc", "one/two/c.wlc"]
    alone = walloc_ref.load_model("tiny").encode(np.asarray(Image.open("in/a.png")))
    assert Path("coded/a.wlc").read_bytes() == alone
    assert run(capsys, "decode", "coded", "back")[1].startswith("back: 4 files done")
    assert inside("back") == ["a.png", "b.png", "one/a.png", "one/two/c.png"]
    assert np.array_equal(
        np.asarray(Image.open("back/one/a.png")), walloc_ref.decode(Path("coded/one/a.wlc").read_bytes())
    )

    before = {name: Path("coded", name).stat().st_mtime_ns for name in inside("coded")}
    Path("coded/a.wlc").write_bytes(alone[:-3])  # damaged
    os.utime("in/one/a.png")  # changed
    Path("coded/one/two/c.wlc").unlink()  # not there
    assert "3 files done, 1 were done before, 0 failed" in run(capsys, "encode", "in", "coded", "--model", "tiny")[1]
    assert {name for name, t in before.items() if Path("coded", name).stat().st_mtime_ns == t} == {"b.wlc"}
    assert "0 files done, 4 were" in run(capsys, "encode", "in", "coded", "--model", "tiny")[1]
    assert "4 files done, 0 were" in run(capsys, "encode", "in", "coded", "--model", "tiny", "--force")[1]
    assert "4 files done" in run(capsys, "decode", "coded", "--out", "tiffs", "--format", "tif")[1]
    assert inside("tiffs")[0] == "a.tif"


def test_bad_files_are_listed_and_stop_no_others(capsys):
    Path("in/one/bad.png").write_bytes(b"no image")
    clip = audio_files.AudioSamples(np.zeros((900, 2), np.int16), 8000, "s16")
    with Path("in/z.wav").open("w+b") as file:
        audio_files.write_audio(file, clip, "z.wav")
    code, out, err = run(capsys, "encode", "in", "coded", "--model", "tiny")
    assert code == 3 and "4 files done, 0 were done before, 2 failed" in out
    assert [line.split(": ")[:3] for line in err.splitlines()] == [
        ["walloc-ref", "in/one/bad.png", "input"],
        ["walloc-ref", "in/z.wav", "model"],
    ]
    assert inside("coded") == ["a.wlc", "b.wlc", "one/a.wlc", "one/two/c.wlc"]
    assert not list(Path("coded").rglob(".*"))
    Path("coded/a.wlc").write_bytes(b"\0" * 99)
    code, out, err = run(capsys, "decode", "coded", "back")
    assert code == 3 and "3 files done" in out and err.startswith("walloc-ref: coded/a.wlc: ")


def test_a_process_that_dies_is_a_failure(capsys, monkeypatch):
    found = folders.jobs("encode", _options(), (".png",))
    monkeypatch.setattr(folders, "work", os.abort)  # pickled by its name, as a process's first deed
    summary = folders.run(found, lambda share: None)
    assert (summary.done, len(summary.failures)) == (0, 3)
    assert "its process ended" in summary.failures[0].reason


def _options(**more):
    import argparse

    defaults = vars(cli._parser().parse_args(["encode", "in", "coded", "--model", "tiny"]))
    return argparse.Namespace(**{**defaults, **more})


def test_wrong_arguments(capsys):
    for wrong in (["in"], ["in", "coded", "--out", "coded"], ["in/a.png", "a.wlc", "--dask", "127.0.0.1:1"]):
        code, out, err = run(capsys, "encode", *wrong, "--model", "tiny")
        assert (code, out, err.count("\n")) == (2, "", 1)
    Path("file").write_bytes(b"")
    Path("empty").mkdir()
    Image.fromarray(photograph(9, 9)).save("in/a.bmp")
    for source, target, why in (
        ("in", "file", "a folder"),
        ("empty", "out", "files that end"),
        ("in", "out", "one input"),
    ):
        code, out, err = run(capsys, "encode", source, target, "--model", "tiny")
        assert (code, out, err.count("\n")) == (3, "", 1) and why in err
    assert not Path("out").exists()


def test_dask_loses_a_worker_and_no_file(capsys):
    distributed = pytest.importorskip("distributed")
    for number in range(40):
        Image.fromarray(photograph(50 + number, 40)).save(f"in/more{number}.png")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        import threading

        def kill():
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and len(inside("coded")) < 2:
                time.sleep(0.01)
            os.kill(next(iter(cluster.workers.values())).pid, 9)

        Path("coded").mkdir()
        killer = threading.Thread(target=kill)
        killer.start()
        code, out, err = run(capsys, "encode", "in", "coded", "--model", "tiny", "--dask", cluster.scheduler_address)
        killer.join()
    assert code == 0 and "0 failed" in out, err
    assert len(inside("coded")) == 44
    for name in inside("coded"):
        assert walloc_ref.info(Path("coded", name).read_bytes()).channels == 3


def test_dask_that_does_not_answer(capsys, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(folders, "CONNECT_SECONDS", 1)
    code, _, err = run(capsys, "encode", "in", "coded", "--model", "tiny", "--dask", "127.0.0.1:1")
    assert code == 3 and "walloc-ref: --dask: 127.0.0.1:1" in err
