"""Traces of the suite's cases: they replay to what the suite holds, and find where a wrong coder goes wrong."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import naive
import numpy as np
import pytest

from walloc_ref import cli
from walloc_ref.conform import compare, mutants, stages, trace
from walloc_ref.conform import suite as suites
from walloc_ref.errors import UnreadableFile
from walloc_ref.plain import PLAIN
from walloc_ref.stages import autoencoder_kl, entropy

ROOT = Path(__file__).resolve().parent.parent
SUITE = suites.load()
SPEC = naive.SPEC

SLICES = ["coder-hidden-5x4", "coder-hidden", "bits-4-every", "coder-volume-6x3x1x20", "coder-carries"]


def traced(identifier, implementation=None):
    lines = []
    trace.trace(SUITE, SUITE.case(identifier), lines.append, implementation)
    return lines


def steps(lines, word):
    return [step.values for step in trace.read("\n".join(lines).encode(), "trace") if step.word == word]


def numbers(text):
    return [int(n) for n in text.split(",")]


def symbols_of(lines):
    """The symbols that a trace of one slice says, at the places that it says."""
    (shape,) = (numbers(step["shape"]) for step in steps(lines, "slice"))
    symbols = np.full((shape[0], *([1] if len(shape) == 3 else []), *shape[1:]), -999)
    for place, coded in zip(steps(lines, "symbol"), steps(lines, "coded"), strict=True):
        symbols[tuple(int(place[key]) for key in ("plane", "depth", "row", "column"))] = int(coded["symbol"])
    return symbols.reshape(shape)


@pytest.mark.parametrize("name", SLICES)
def test_a_trace_of_the_coder_replays_to_the_payload_and_to_the_symbols(name):
    lines = traced(f"encode.slice.{name}")
    coder = SPEC["Encoder"]()
    for step in steps(lines, "decision"):
        assert (coder.low, coder.span) == (int(step["low"], 16), int(step["span"], 16))
        if "probabilities" in step:
            pairs = zip(numbers(step["weights"]), numbers(step["probabilities"]), strict=True)
            dot = sum(weight * SPEC["STRETCH"][p >> 10] for weight, p in pairs) >> 16
            assert SPEC["SQUASH"][SPEC["clamp"](dot, -2047, 2047)] == int(step["p"])
        else:
            assert (step["node"], step["p"]) == ("-1", "32768")
        coder.code(int(step["p"]), int(step["bit"]))
    (end,) = steps(lines, "end")
    case = SUITE.case(f"encode.slice.{name}")
    assert coder.finish() == bytes.fromhex(end["payload"]) == SUITE.read(case.output)
    symbols = compare.read_array(SUITE.read(case.input))
    assert np.array_equal(symbols_of(lines), symbols)
    decoded = traced(f"decode.slice.{name}")
    assert np.array_equal(symbols_of(decoded), symbols)
    assert trace.diff("\n".join(lines).encode(), "\n".join(decoded).encode())[0]


@pytest.mark.parametrize("name", ["coder-hidden-5x4", "bits-4-every"])
def test_a_trace_says_what_the_model_saw(name):
    case = SUITE.case(f"encode.slice.{name}")
    tables = naive.tables_of(stages.Stages().load(SUITE.model_path(case.model)).tables.to_bytes())
    for step in steps(traced(case.id), "symbol"):
        linear, mean, scale = SPEC["predict"](tables, int(step["plane"]), numbers(step["taps"]))
        largest = sum(numbers(step["room"])) // 2
        assert linear == int(step["linear"])
        assert SPEC["clamp"](mean, -16 * largest, 16 * largest) == int(step["mean"])
        assert SPEC["clamp"](scale, 1, 16383) == int(step["scale"])
        size = SPEC["level"](int(step["scale"]), 4, 8, 44)
        assert (int(step["set"]), numbers(step["contexts"])[0]) == (
            size // 6,
            size * 5 + (int(step["fraction"]) + 1 >> 1),
        )


def test_the_worked_example_of_the_specification_is_traced_as_it_stands_there():
    """By the functions of the specification and by the plain coder, line by line."""
    lines = []
    symbols = np.array([[[0, 2, -1]]])
    with trace.watched(lines.append):
        assert entropy.encode(symbols, entropy.default_tables(1, 3)).hex() == "8c3e"
    (block,) = re.findall(r"^```constants trace\n(.*?)^```$", (ROOT / "SPEC.md").read_text("utf-8"), re.M | re.S)
    rows, places = iter(block.splitlines()), iter(steps(lines, "symbol"))
    for step in steps(lines, "decision"):
        if step["node"] == "0":
            place = next(places)
        wanted = next(rows).split()
        found = [place["set"], *place["contexts"].split(","), *(step[k] for k in ("node", "p", "bit", "low", "span"))]
        assert found == wanted
    assert next(rows, None) is None


def parted(mutant, identifier):
    """The right trace, the wrong one, and what is said of the two."""
    (wrong,) = (m for m in mutants.MUTANTS if m.name == mutant)
    right = traced(identifier)
    with wrong.make() as implementation:
        other = traced(identifier, implementation)
    same, text = trace.diff("\n".join(right).encode(), "\n".join(other).encode())
    assert not same
    return right, other, text


@pytest.mark.parametrize(
    "mutant, name, fields, clause",
    [
        ("adaptation-rate", "coder-hidden-5x4", {"probabilities"}, "7.9"),
        ("zero-neighbours", "coder-linear-6x13x17", {"taps"}, "7.6"),
        ("no-hidden-units", "coder-hidden-5x4", {"scale"}, "7.7"),
        ("no-depth-before", "coder-volume-6x3x1x20", {"taps"}, "7.6"),
        ("depth-afresh", "coder-volume-6x3x1x20", {"probabilities"}, "7.9"),
    ],
)
@pytest.mark.parametrize("op", ["encode", "decode"])
def test_a_wrong_coder_is_located_at_its_first_wrong_step(op, mutant, name, fields, clause):
    right, other, text = parted(mutant, f"{op}.slice.{name}")
    at = next(i for i, (a, b) in enumerate(zip(right, other)) if a != b)
    word = right[at].split()[0]
    number = sum(line.split()[0] == word for line in right[: at + 1])
    assert text.startswith(f"First difference: {word} {number}")
    place = [line for line in right[: at + 1] if line.startswith("symbol")][-1]
    for key in trace.COORDINATES:
        assert re.search(rf"\b{key} {re.search(f' {key}=([0-9]+)', place)[1]}\b", text)
    named = set(re.findall(r"^  (\w+) ", text, re.M))
    assert fields <= named and f"({clause} of SPEC.md)" in text


def test_a_wrong_rate_shows_where_a_probability_is_used_for_the_second_time():
    right, _, text = parted("adaptation-rate", "decode.slice.coder-linear-6x13x17")
    seen, number, contexts = set(), 0, []
    for line in right:
        word, *fields = line.split()
        values = dict(field.split("=") for field in fields)
        if word == "symbol":
            contexts = numbers(values["contexts"])
        if word != "decision":
            continue
        number += 1
        states = {(context, values["node"]) for context in contexts} if values["node"] != "-1" else set()
        if states & seen:
            break
        seen |= states
    assert text.startswith(f"First difference: decision {number} at node {values['node']} of slice 1,")


def test_a_payload_that_is_rejected_shows_how_far_it_was_read():
    lines = traced("decode.slice.invalid-residual-value")
    assert lines[-1].startswith("rejected slice payload: a residual of") and lines[-2].startswith("decision")
    cut = traced("decode.slice.invalid-payload-half")
    valid = traced("decode.slice.coder-linear-6x13x17")
    assert cut[-1].startswith("rejected") and len(cut) < len(valid)


def test_streams_are_traced_slice_by_slice():
    lines = traced("decode.symbols.linear-slices")
    symbols = compare.read_array(SUITE.read(SUITE.case("decode.symbols.linear-slices").output))
    assert len(steps(lines, "slice")) == len(steps(lines, "end")) == 4
    assert len(steps(lines, "coded")) == symbols.size
    assert sum(int(s["symbol"]) for s in steps(lines, "coded")) == int(symbols.sum())


# ---- arrays


def one_of_each():
    """The valid case with the smallest input of each stage that has arrays."""
    found = {}
    for case in SUITE.cases:
        stage, size = (case.op, case.stage), SUITE.path(case.input).stat().st_size
        if case.rejects or stage in trace.CODER or (case.model or "").startswith("bundled-"):
            continue
        found[stage] = min(found.get(stage, (size, case.id)), (size, case.id))
    return [name for _, name in found.values()]


def test_every_stage_is_traced():
    found = {(SUITE.case(name).op, SUITE.case(name).stage) for name in one_of_each()}
    assert found | set(trace.CODER) == stages.STAGES.keys()


@pytest.mark.parametrize("identifier", one_of_each())
def test_a_trace_of_any_other_stage_ends_with_what_the_suite_holds(identifier):
    case = SUITE.case(identifier)
    lines, arrays = [], {}
    trace.trace(SUITE, case, lines.append, arrays=arrays)
    described = steps(lines, "array")
    if case.stage == "header":
        assert {step["name"] for step in steps(lines, "field")} == set(naive_header(case))
        return
    assert [name.partition("-")[2] for name in arrays] == [step["name"] for step in described]
    assert described[-1]["name"] == "output"
    for step, array in zip(described, arrays.values(), strict=True):
        assert step["sha256"] == hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        assert step["shape"] == ",".join(map(str, array.shape))
        if array.size:
            assert float(step["min"]) == array.min() and float(step["max"]) == array.max()
    (*_, output) = arrays.values()
    written = output.tobytes() if case.stage_name == "encode stream" else compare.write_array(output)
    compare.check(case, SUITE, written)


def naive_header(case):
    return json.loads(SUITE.read(case.output))


def test_what_was_replaced_is_put_back():
    names = trace.watchers(lambda line: None)
    right = {name: getattr(entropy, name) for name in names}
    layers = {name: getattr(autoencoder_kl, name) for name in trace.LAYERS[autoencoder_kl]}
    traced("encode.slice.coder-hidden-1x1")
    traced("decode.slice.invalid-residual-value")
    traced("decode.network.codec2d-photo")
    assert right == {name: getattr(entropy, name) for name in names}
    assert layers == {name: getattr(autoencoder_kl, name) for name in layers}


def test_a_wrong_network_is_located_at_the_layer_that_is_wrong(tmp_path):
    case = SUITE.case("decode.network.codec2d-photo")
    right, wrong = [], []
    arrays, others = {}, {}
    trace.trace(SUITE, case, right.append, arrays=arrays)
    silu = autoencoder_kl.silu
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder_kl, "silu", lambda x: silu(x) * (1 + 1e-4))
        trace.trace(SUITE, case, wrong.append, arrays=others)
    number = [step["name"] for step in steps(right, "array")].index("silu") + 1
    same, text = trace.diff("\n".join(right).encode(), "\n".join(wrong).encode())
    assert not same and text.startswith(f"First difference: array {number} silu") and "(9.4 of SPEC.md)" in text
    files = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for file, found in zip(files, (arrays, others), strict=True):
        np.savez(file, **found)
    same, text = trace.diff(*(file.read_bytes() for file in files))
    assert not same and re.match(rf"First difference: {number - 1:04}-silu at \[.*\(9.4 of SPEC.md\)", text)


def test_rounding_is_told_from_a_fault(tmp_path):
    arrays = {"0000-analyse": np.linspace(-1, 1, 12).reshape(3, 4)}
    near = {"0000-analyse": arrays["0000-analyse"] * (1 + 1e-15)}
    turned = {"0000-analyse": arrays["0000-analyse"][::-1]}

    def text(found):
        return "\n".join(trace.described(name.partition("-")[2], array) for name, array in found.items()).encode()

    def archive(found):
        np.savez(tmp_path / "x.npz", **found)
        return (tmp_path / "x.npz").read_bytes()

    for other in (near, turned):
        same, said = trace.diff(text(arrays), text(other))
        assert not same and said.startswith("The bytes of 1 arrays differ, first of array 1 analyse")
    assert trace.diff(archive(arrays), archive(near))[0]
    assert not trace.diff(archive(arrays), archive(turned))[0]
    assert not trace.diff(archive(arrays), archive(arrays | {"0001-pad": np.zeros(3)}))[0]
    assert not trace.diff(archive(arrays), archive({"0000-analyse": np.zeros(12)}))[0]


# ---- files


def test_fields_that_another_program_does_not_write_are_not_compared():
    lines = traced("encode.slice.coder-hidden-3x3")
    few = [re.sub(r" (weights|probabilities|taps|room)=\S+", "", line) for line in lines]
    assert trace.diff("\n".join(lines).encode(), "\n".join(["# mine", "", *few]).encode())[0]
    shorter = "\n".join(lines[:-1]).encode()
    same, text = trace.diff("\n".join(lines).encode(), shorter, ("a", "mine"))
    assert not same and text.startswith("mine ends where the other one goes on: end")


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b"what is this", b"case id=x", b"PK\3\4", b"decision other=1", b"\xff\xfe"]
)
def test_what_is_no_trace_is_never_equal_to_one(data):
    lines = "\n".join(line for line in traced("encode.slice.coder-hidden-1x1") if line.startswith("decision")).encode()
    try:
        same, _ = trace.diff(lines, data)
    except UnreadableFile:
        return
    assert not same


def test_archives_that_are_none_are_refused(tmp_path):
    np.savez(tmp_path / "empty.npz")
    np.savez(tmp_path / "text.npz", a=np.array(["text"]))
    np.savez(tmp_path / "right.npz", a=np.zeros(3))
    right = (tmp_path / "right.npz").read_bytes()
    for data in ((tmp_path / "empty.npz").read_bytes(), right[:40], b"PK" + bytes(100)):
        with pytest.raises(UnreadableFile):
            trace.diff(data, data)
    words = (tmp_path / "text.npz").read_bytes()
    assert not trace.diff(words, words)[0]


def test_on_the_command_line(tmp_path, capsys):
    a, b, c = (str(tmp_path / name) for name in ("a.txt", "b.txt", "c.npz"))
    assert cli.main(["conform", "trace", "encode.slice.coder-hidden-3x3", "--out", a]) == 0
    assert cli.main(["conform", "trace", "encode.slice.coder-hidden-3x3"]) == 0
    said = capsys.readouterr().out
    assert said == Path(a).read_text() and said.startswith("case id=encode.slice.coder-hidden-3x3 ")
    assert cli.main(["conform", "trace", "--diff", a, a]) == 0
    assert "No difference in" in capsys.readouterr().out
    Path(b).write_text(said.replace("node=2", "node=3", 1))
    assert cli.main(["conform", "trace", "--diff", a, b]) == 1
    assert "at node 2 of slice 1, depth 0, plane 0, row 0, column 0\n  node 2, 3 (7.10" in capsys.readouterr().out
    assert cli.main(["conform", "trace", "encode.analysis.linear-photo", "--out", c]) == 0
    with np.load(c) as arrays:
        assert list(arrays) == ["0000-input", "0001-analyse", "0002-output"]
    assert cli.main(["conform", "trace", "--diff", c, c]) == 0
    assert cli.main(["conform", "trace", "--diff", a, c]) == 3
    assert cli.main(["conform", "trace", "encode.slice.coder-hidden-3x3", "--out", c]) == 3
    assert cli.main(["conform", "trace", "no-such-case"]) == 3
    for wrong in ([], ["x", "--diff", a, b], ["--diff", a, b, "--out", c]):
        assert cli.main(["conform", "trace", *wrong]) == 2


# ---- the tables of clauses


def test_fields_and_arrays_are_those_that_there_are_and_clauses_exist():
    spec = (ROOT / "SPEC.md").read_text("utf-8")
    clauses = set(re.findall(r"^\*\*(\d+\.\d+)\*\*", spec, re.M))
    used = {clause for known in trace.FIELDS.values() for clause in known.values()} | set(trace.CLAUSES.values())
    assert used <= clauses
    assert set(trace.ARRAYS) <= set(vars(PLAIN))
    lines = traced("encode.slice.coder-volume-6x3x1x20") + traced("decode.slice.coder-volume-6x3x1x20")
    lines += traced("decode.header.linear-1x1")
    written = {}
    for line in lines:
        word, *fields = line.split()
        written.setdefault(word, set()).update(field.partition("=")[0] for field in fields)
    del written["case"]
    assert written == {word: set(known) for word, known in trace.FIELDS.items()}
