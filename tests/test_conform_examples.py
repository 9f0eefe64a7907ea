"""The decoders that conformance/README.md starts newcomers with: each must reach the level that it claims."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from walloc_ref import load_model
from walloc_ref.conform import runner
from walloc_ref.conform import suite as suites
from walloc_ref.stages import container

CONFORMANCE = Path(__file__).resolve().parent.parent / "conformance"
SUITE = suites.load()
WORDS = "{op} {stage} {model} {input} {output}"

pytestmark = pytest.mark.skipif(not (CONFORMANCE / "examples").is_dir(), reason="not in a checkout")


def wrong(report):
    return [(r.case.id, r.verdict, r.message) for r in report.results if r.verdict != runner.PASS and r.case.required]


def small_cases(level, kind=None, *, every=1):
    """Required cases of the small models."""
    chosen = [c for c in SUITE.select((), level, kind) if c.required and not (c.model or "").startswith("bundled-")]
    return chosen[::every]


def test_the_example_in_python_reaches_level_symbols():
    command = runner.Command(f"{sys.executable} {CONFORMANCE / 'examples' / 'symbols.py'} {WORDS}")
    assert wrong(runner.run(SUITE, command, small_cases("symbols", every=5))) == []
    assert wrong(runner.run(SUITE, command, SUITE.select(["decode.slice.coder-zeros", "decode.slice.invalid-p"]))) == []


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_the_example_in_javascript_reaches_level_symbols():
    script = CONFORMANCE / "examples" / "symbols.mjs"
    server = runner.Server(f"node {script} --serve")
    report = runner.run(SUITE, server, SUITE.select((), "symbols"), level="symbols")
    assert wrong(report) == []
    assert report.levels == {"symbols": "conformant"} and report.exit_code == runner.CONFORMANT
    assert wrong(runner.run(SUITE, runner.Command(f"node {script} {WORDS}"), small_cases("symbols", every=40))) == []


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_decoder_in_c_reaches_level_decoder_for_images(tmp_path):
    program = tmp_path / "decoder"
    subprocess.run(["cc", "-O2", "-o", program, CONFORMANCE / "examples" / "decoder.c", "-lm"], check=True, timeout=120)
    command = runner.Command(f"{program} {WORDS}")
    assert wrong(runner.run(SUITE, command, small_cases("decoder", "image"), level="decoder", kind="image")) == []


def test_all_refuse_a_payload_beyond_the_first_interval(tmp_path):
    programs = [[sys.executable, CONFORMANCE / "examples" / "symbols.py"]]
    if shutil.which("node"):
        programs.append(["node", CONFORMANCE / "examples" / "symbols.mjs"])
    if shutil.which("cc"):
        subprocess.run(
            ["cc", "-O2", "-o", tmp_path / "decoder", CONFORMANCE / "examples" / "decoder.c", "-lm"],
            check=True,
            timeout=120,
        )
        programs.append([tmp_path / "decoder"])
    model = CONFORMANCE / "models" / "linear-j3.safetensors"
    stream = container.read(load_model(model).encode(np.zeros((40, 48, 3), np.uint8)))
    for n in (4, 5, 200):
        source = tmp_path / f"{n}.wlc"
        source.write_bytes(container.write(replace(stream, slices=(b"\xff" * n,))))
        for program in programs:
            words = ["decode", "symbols", model, source, tmp_path / "symbols.npy"]
            done = subprocess.run([*program, *words], capture_output=True, text=True, timeout=60)
            assert done.returncode == runner.REJECTED, (program, done)


def test_the_readme_names_the_stages_and_the_examples():
    text = (CONFORMANCE / "README.md").read_text(encoding="utf-8")
    stages = {(op, stage) for op, stage in re.findall(r"^\| (decode|encode) \| ([a-z]+) \|", text, re.MULTILINE)}
    known = {(case.op, case.stage) for case in SUITE.cases if "." not in case.stage}
    assert stages == known
    for name in re.findall(r"\]\(((?:examples/)?[a-z.]+)\)", text):
        assert (CONFORMANCE / name).is_file(), name
