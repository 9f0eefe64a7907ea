"""The decoders that conformance/README.md starts newcomers with: each must reach the level that it claims."""

from __future__ import annotations

import json
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
PATIENCE = 600
"""Seconds for a case where sanitizers, emulators or starting a machine make a program slow, on a busy machine."""

pytestmark = pytest.mark.skipif(not (CONFORMANCE / "examples").is_dir(), reason="not in a checkout")


def wrong(report):
    return [(r.case.id, r.verdict, r.message) for r in report.results if r.verdict != runner.PASS and r.case.required]


def small_cases(level, *, every=1):
    """Required cases of the small models."""
    chosen = [c for c in SUITE.select((), level) if c.required and not (c.model or "").startswith("bundled-")]
    return chosen[::every]


def test_the_example_in_python_reaches_level_symbols():
    command = runner.Command(f"{sys.executable} {CONFORMANCE / 'examples' / 'symbols.py'} {WORDS}")
    assert wrong(runner.run(SUITE, command, small_cases("symbols", every=5))) == []
    assert wrong(runner.run(SUITE, command, SUITE.select(["decode.slice.coder-zeros", "decode.slice.invalid-p"]))) == []


DECODER = CONFORMANCE / "examples" / "decoder.c"
SANITIZERS = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
needs_c = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def compiled(program, *options, compiler="cc"):
    """decoder.c as a program."""
    words = [compiler, *options, "-o", program, DECODER, "-lm"]
    subprocess.run(words, check=True, timeout=120)
    return program


@needs_c
def test_the_decoder_in_c_reaches_level_decoder(tmp_path):
    command = runner.Command(f"{compiled(tmp_path / 'decoder', '-std=c99', '-O2')} {WORDS}")
    report = runner.run(SUITE, command, SUITE.select((), "decoder"), level="decoder")
    assert wrong(report) == []
    assert report.levels == {"decoder": "conformant"} and report.exit_code == runner.CONFORMANT


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_the_decoder_in_javascript_reaches_level_decoder():
    script = CONFORMANCE / "examples" / "decoder.mjs"
    server = runner.Server(f"node {script} --serve")
    report = runner.run(SUITE, server, SUITE.select((), "decoder"), level="decoder")
    assert wrong(report) == []
    assert report.levels == {"decoder": "conformant"} and report.exit_code == runner.CONFORMANT
    command = runner.Command(f"node {script} {WORDS}")
    assert wrong(runner.run(SUITE, command, small_cases("decoder", every=60))) == []


@needs_c
def test_the_decoder_in_c_does_nothing_undefined(tmp_path, monkeypatch):
    try:
        program = compiled(tmp_path / "decoder", *SANITIZERS)
    except subprocess.CalledProcessError:
        pytest.skip("the compiler has no sanitizers")
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")  # what is not freed ends with the process
    command = runner.Command(f"{program} {WORDS}", PATIENCE)
    assert wrong(runner.run(SUITE, command, small_cases("decoder", every=2))) == []


@needs_c
def test_the_decoder_in_c_in_binary32_has_the_samples_of_its_level(tmp_path):
    command = runner.Command(f"{compiled(tmp_path / 'decoder', '-O2', '-DBINARY32')} {WORDS}")
    cases = [
        case
        for case in small_cases("decoder-binary32")
        if case.stage == "stream" and case.id not in NOT_IN_BINARY32 and not case.rejects
    ]
    assert len(cases) > 50
    assert wrong(runner.run(SUITE, command, cases, level="decoder-binary32")) == []


NOT_IN_BINARY32 = {"decode.stream.codec1d-f32", "decode.stream.codec1d-plain-f64"}
"""Samples of f32 and f64 are compared with the tolerance of binary64 at every level: they have no step (14.1)."""


@needs_c
@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
@pytest.mark.skipif(
    shutil.which("clang") is None or shutil.which("wasm-ld") is None or not Path("/usr/lib/wasm32-wasi").is_dir(),
    reason="needs Debian's clang, lld, wasi-libc and libclang-rt-dev-wasm32",
)
def test_webassembly_gives_the_same_integers(tmp_path):
    options = ["--target=wasm32-wasi", "--sysroot=/usr", "-O3", "-Wl,-z,stack-size=1048576"]
    program = compiled(tmp_path / "decoder.wasm", *options, compiler="clang")
    command = runner.Command(f"node --no-warnings {CONFORMANCE / 'examples' / 'wasi.mjs'} {program} {WORDS}", PATIENCE)
    assert wrong(runner.run(SUITE, command, small_cases("decoder", every=4))) == []


@pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-gcc") is None or shutil.which("qemu-aarch64-static") is None,
    reason="needs Debian's gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user-static",
)
def test_64_bit_arm_gives_the_same_integers(tmp_path):
    program = compiled(tmp_path / "decoder", "-O3", "-static", compiler="aarch64-linux-gnu-gcc")
    command = runner.Command(f"qemu-aarch64-static {program} {WORDS}", PATIENCE)
    assert wrong(runner.run(SUITE, command, small_cases("decoder", every=4))) == []


@needs_c
def test_the_decoder_in_c_reads_model_files_strictly(tmp_path):
    program = compiled(tmp_path / "decoder", *SANITIZERS)
    good = (CONFORMANCE / "models" / "linear-j1.safetensors").read_bytes()
    stream = next(SUITE.path(c.input) for c in SUITE.cases if c.model == "linear-j1" and c.stage == "symbols")
    n = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + n])
    config = header["__metadata__"]["walloc_ref.config"]
    header["__metadata__"].pop("walloc_ref.id", None)

    def answer(config=config, **changes):
        changed = header | changes
        changed["__metadata__"] = header["__metadata__"] | {"walloc_ref.config": config}
        text = json.dumps(changed).encode()
        model = tmp_path / "model.safetensors"
        model.write_bytes(len(text).to_bytes(8, "little") + text + good[8 + n :])
        words = [program, "decode", "symbols", model, stream, tmp_path / "out.npy"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, env={"ASAN_OPTIONS": "detect_leaks=0"})
        return done.returncode, done.stderr

    tensor = next(name for name in header if name != "__metadata__")
    rest = config[1:]
    for text in (
        '"a":1e999,',
        '"a":-0.5,',
        f'"a":{"9" * 5000},',
        '"a":"\\ud83d\\ude00 \\u0000",',
        '"a":[[[[[[[1]]]]]]],',
    ):
        assert answer(f"{{{text}{rest}")[0] == runner.DONE, text
    for text in (
        '"a":1,"\\u0061":2,',
        '"a":{"b":1,"b":1},',
        '"a":NaN,',
        '"a":-Infinity,',
        '"a":01,',
        '"a":+1,',
        '"a":.5,',
        '"a":1.,',
        '"a":[1,],',
        '"a":"\\ud800",',
        '"a":"\\udc00\\ud800",',
        '"a":"\\x",',
        '"a":True,',
        '"a":[[[[[[[[1]]]]]]]],',
        ",",
    ):
        assert answer(f"{{{text}{rest}")[0] == runner.REJECTED, text
    assert answer(re.sub(r'("latent_bits": ?\d)', r"\1.0", config))[0] == runner.REJECTED
    assert answer(**{tensor: header[tensor] | {"more": 1}})[0] == runner.REJECTED


def test_all_refuse_a_payload_beyond_the_first_interval(tmp_path):
    programs = [[sys.executable, CONFORMANCE / "examples" / "symbols.py"]]
    if shutil.which("node"):
        programs.append(["node", CONFORMANCE / "examples" / "decoder.mjs"])
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
