"""Kernels whose machine code is kept: a second process needs no compiler, whatever happens to the folder meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from walloc_ref import cli
from walloc_ref.fast import bare, jit, machine_code

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = (
    "import sys, numpy as np\n"
    "from walloc_ref.fast import quantise\n"
    "assert quantise.quantise(np.zeros(3), 8).tolist() == [0, 0, 0]\n"
    "print('compiled' if 'numba' in sys.modules else 'found')\n"
)


def start(folder, program=PROGRAM):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": path}
    return subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=-1, stderr=-1, text=True)


def ended(process):
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return out.strip()


def test_code_is_found_by_the_next_process_and_damaged_code_is_not(tmp_path):
    assert ended(start(tmp_path)) == "compiled"
    (file,) = tmp_path.glob("*.kernel")
    assert ended(start(tmp_path)) == "found"
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:40], b"", whole[:-9] + b"x" + whole[-8:]):
        file.write_bytes(damaged)
        assert machine_code._content(damaged) is None
    assert ended(start(tmp_path)) == "compiled"
    assert machine_code._content(file.read_bytes()).symbol


def test_two_processes_at_once(tmp_path):
    both = [start(tmp_path / "new") for _ in range(2)]
    assert "compiled" in [ended(process) for process in both]
    assert len(list((tmp_path / "new").iterdir())) == 1  # and no file half written
    assert ended(start(tmp_path / "new")) == "found"


def test_nowhere_to_write(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for _ in range(2):
        assert ended(start(tmp_path / "file" / "folder")) == "compiled"


def test_a_folder_that_can_only_be_read_is_read(tmp_path, monkeypatch):
    ready, own = tmp_path / "ready", tmp_path / "own"
    ready.mkdir()
    monkeypatch.setattr(machine_code, "folders", lambda: [ready, own])
    code = machine_code.Code("symbol", "d", False, b"object\nfile")
    machine_code._write("a.kernel", code)
    assert (ready / "a.kernel").exists() and machine_code._read("a.kernel") == code
    monkeypatch.setattr(machine_code, "folders", lambda: [Path(os.devnull) / "x", own])
    machine_code._write("a.kernel", code)
    assert (own / "a.kernel").exists() and machine_code.writable_folder() == own


def test_the_name_depends_on_what_the_code_depends_on(monkeypatch):
    def name(kind):
        machine_code._surroundings.cache_clear()
        return machine_code.Kernel(name)._file_name(kind)

    names = {name("i "), name("f ")}
    monkeypatch.setenv("NUMBA_OPT", "1")
    names.add(name("i "))
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    names.add(name("i "))
    assert len(names) == 3
    machine_code._surroundings.cache_clear()


def test_arguments_and_results():
    def mixed(flag, n, x, pair, values, out):
        for i in range(values.size):
            out[i] = values[i] * x + n
        return flag, pair[0] + pair[1][0], x / 2

    kernel = bare(mixed)
    out, part = np.zeros(3), np.zeros(6, np.int16)
    part[:] = np.arange(6)
    for values in (part[:3], part[::2]):
        for n in (3, np.int32(3)):
            assert kernel(True, n, 0.5, (1, (np.int64(2), 5.0)), values, out) == (True, 3, 0.25)
            assert np.array_equal(out, values * 0.5 + 3)
    assert len(kernel._by_signature) == 2
    assert all("run" in str(run) for run in kernel._by_signature.values())  # machine code, not Numba's dispatcher
    with pytest.raises(TypeError, match="str: kernels take"):
        kernel("no", 1, 1.0, (1, (1, 1.0)), part, out)


def test_kernels_that_allocate_run_by_way_of_numba():
    def allocate(n):
        return np.arange(n)

    inner = jit(allocate)

    def outer(n):
        return inner(n).sum()

    assert jit(outer)(5) == 10


def test_code_that_is_called_in_another_way_than_expected_is_left_to_numba(monkeypatch):
    monkeypatch.setattr(machine_code, "_kinds_of", lambda function: ["ptr", "ptr", "i64", "i64"])
    kernel = bare(lambda x, n: x * n)
    assert kernel(1.5, 4) == 6.0
    assert not any("run" in str(run) for run in kernel._by_signature.values())


def test_plain_python(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert bare(lambda text: text + "!")("plain") == "plain!"


def test_warmup_compiles_everything_once(capsys):
    for _ in range(2):
        assert cli.main(["warmup"]) == 0
    assert "all kernels were there" in capsys.readouterr().out


def test_the_first_command_says_what_takes_long(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.integers(-3, 4, (12, 4, 4)).astype(np.int16))
    arguments = ["symbols", "import", str(tmp_path / "x.npy"), str(tmp_path / "x.wlc"), "--model", "rgb_16x"]
    program = f"import sys; sys.argv[1:] = {arguments!r}; from walloc_ref import cli; sys.exit(cli.main())"
    said = []
    for _ in range(2):
        process = start(tmp_path / "cache", program)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0
        said.append(err)
    assert said[0].count("\n") == 1 and "compiling kernels for this processor, once" in said[0]
    assert str(tmp_path / "cache") in said[0] and said[1] == ""
