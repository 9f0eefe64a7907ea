"""The tool that looks for faults which the suite would not notice: it makes faults, and tells killed from surviving."""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "conformance" / "mutation"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir() or sys.platform == "win32", reason="not in a checkout, or no fork")


def imported(name, folder=FOLDER):
    """A module of the suite's tools."""
    before = [*sys.path]
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path[:] = before


@pytest.fixture(scope="module")
def mutate():
    return imported("mutate")


@pytest.mark.parametrize(
    "code, wanted",
    [
        ("a < b", ["a <= b"]),
        ("a == b", ["a != b"]),
        ("a or b", ["b", "a"]),
        ("a + b", ["a - b"]),
        ("7", ["8", "6"]),
        ("True", ["False"]),
        ("f(a, b)", ["f(b, a)"]),
        ("max(a, b)", []),
        ("-a", ["a"]),
        ("x = a", ["pass"]),
    ],
)
def test_changes(code, wanted, mutate):
    (node,) = ast.parse(code).body
    node = node.value if isinstance(node, ast.Expr) else node
    assert [ast.unparse(ast.fix_missing_locations(ast.Module([other], []))) for other in mutate.changes(node)] == wanted


def test_switches_that_change_no_value_stay(mutate):
    (function,) = ast.parse("def f(a):\n    return a.sum(keepdims=True).astype(int, copy=False)").body
    found = [node.value for _, node in mutate.places(function) if isinstance(node, ast.Constant)]
    assert found == [True]


def test_names_are_unique_and_every_target_has_mutants(mutate):
    for target in mutate.TARGETS:
        names = [mutant.name for mutant in mutate.mutants(target)]
        assert len(names) == len(set(names)) >= 5, target


def test_equivalent_mutants_exist_and_have_reasons(mutate):
    known = mutate.known_survivors("reason")
    names = {mutant.name for target in mutate.TARGETS for mutant in mutate.mutants(target)}
    assert known.keys() <= names, known.keys() - names
    assert all(len(reason) > 40 for reason in known.values())
    assert set(mutate.known_survivors().values()) == set(mutate.KINDS)
    listed = [name for group in json.loads(mutate.EQUIVALENT.read_text(encoding="utf-8")) for name in group["mutants"]]
    assert len(listed) == len(known), "one reason each"


def test_table_counts_each_kind(mutate):
    few = [next(mutate.mutants(target)) for target in ("wavelet", "model", "quantise", "signal", "image")]
    killers = ("a case (no answer)", "import (IndexError)", None, None, None)
    results = {mutant.name: (mutant, killer) for mutant, killer in zip(few, killers)}
    known = dict(zip(list(results)[2:], ("equivalent", "unobservable")))
    rows = [line.split("|")[2:-1] for line in mutate.table(results, known).splitlines()]
    wanted = ["mutants", "killed", "on import", "equivalent", "unobservable", "survived"]
    assert [cell.strip() for cell in rows[0]] == wanted
    assert [[int(cell) for cell in row] for row in rows[2:]] == [
        [1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0], [1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, 1],
        [5, 1, 1, 1, 1, 1],
    ]  # fmt: skip


def seen(mutate, target, name, look):
    """The numbers that `look` gives in processes that run the mutants of that name."""
    found = set()
    for mutant in mutate.mutants(target):
        if mutant.function == name:
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    mutate.install(mutant)
                    os.write(write, str(look()).encode())
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            os.close(write)
            with os.fdopen(read) as pipe:
                found.add(int(pipe.read()))
    return found


@pytest.mark.parametrize(
    "target, name, look",
    [
        ("architecture", "WIDTH", lambda records: records["Codec1D"].fields["Nd"][1]),
        ("projection", "RESIDUAL_CODEC_2D", lambda records: records["ResidualCodec2D"].fields["num_stages"][1]),
    ],
)
def test_changed_constants_reach_what_was_made_of_them(target, name, look, mutate):
    """In modules that were imported later, too, and in what those made of them."""
    from walloc_ref import model

    most = look(model.ARCHITECTURES)
    assert seen(mutate, target, name, lambda: look(model.ARCHITECTURES)) == {most - 1, most, most + 1}


def test_changed_defaults_reach_what_was_made_on_import(mutate):
    """The record of linear codecs has no `in_stages` of its own; other modules and tables know it."""
    from walloc_ref import model

    look = lambda: model.ARCHITECTURES["LinearCodec2D"].in_stages  # noqa: E731
    assert seen(mutate, "architecture", "Architecture.in_stages", lambda: int(look())) == {True}
    assert look() is False


@pytest.mark.parametrize(
    "target, name, look, wanted",
    [
        ("container", "Coding.window", lambda m: m.Header.__init__.__kwdefaults__["window"], {1, -1}),
        ("architecture", "NetworkWeights.__init__", lambda m: len(m.NetworkWeights({"a": 1})), {0, 1}),
    ],
    ids=["of a class above", "that says super()"],
)
def test_changed_defaults_and_constructors_run(target, name, look, wanted, mutate):
    module = importlib.import_module(mutate.TARGETS[target][0])
    assert seen(mutate, target, name, lambda: look(module)) == wanted


def test_mutants_are_killed_and_what_is_the_same_survives(mutate):
    runner = mutate.Runner(mutate.suites.load())
    cases = [case for case in runner.suite.cases if case.stage_name == "encode round"][:3]
    prepared = [
        mutate.Prepared(case, runner.suite.model_path(case.model), runner.suite.read(case.input), 0.1, {})
        for case in cases
    ]
    for mutant in mutate.mutants("quantise"):
        if mutant.function in ("round_to_symbols", "compand"):
            killer = runner.kills(mutant, prepared)
            assert (killer is not None) == (mutant.function == "round_to_symbols"), mutant.name
    assert not mutate.wrong(runner.suite, cases[0], *mutate.perform(runner.stages[False], prepared[0]))


@pytest.mark.parametrize(
    "code, killer",
    [("STRETCH[4096] = 1", "import (IndexError)"), ("while True: pass", "import (no answer)"), ("x = 0", None)],
)
def test_death_on_import_is_told_apart(code, killer, mutate, monkeypatch):
    monkeypatch.setattr(mutate, "IMPORT", 1.0)
    mutant = next(m for m in mutate.mutants("spec") if m.function.startswith("for q in range(4096)"))
    (tree,) = ast.parse(f"for q in range(4096):\n    {code}").body
    ast.increment_lineno(tree, mutant.tree.lineno - 1)
    assert mutate.Runner(mutate.suites.load()).kills(mutate.replace(mutant, tree=tree), []) == killer


def test_models_are_read_again_where_a_mutant_changes_how(mutate):
    """The others have the models that this process read before them, as they came from their files."""
    runner = mutate.Runner(mutate.suites.load())
    case = next(case for case in runner.suite.cases if case.id == "encode.slice.linear-extremes")
    path = runner.suite.model_path(case.model)
    cost = runner.reading(case.model, naive=True)
    runner.prepared["naive"] = [mutate.Prepared(case, path, runner.suite.read(case.input), 1.0, {}, cost)]
    mutants = {mutant.function: mutant for mutant in mutate.mutants("naive")}  # the last of each
    again = {name for name, mutant in mutants.items() if runner.rereads(mutant)}
    assert {"read_model", "canonical", "Bytes.take", "AXES"} <= again
    assert not {"read_head", "encode_slice", "in_windows", "Network.attention"} & again
    runner.ready()
    tree = ast.parse("def read_model(data):\n    raise Rejected('8.1')").body[0]
    reader = mutate.replace(mutants["read_model"], tree=tree)
    assert runner.kills(reader, runner.prepared["naive"]) == case.id
    unseen = mutate.replace(reader, lines=(1, 1))  # said to change a line that no reading runs
    assert runner.kills(unseen, runner.prepared["naive"]) is None


def test_traces_name_the_lines_that_run(mutate):
    from walloc_ref.stages import signal

    path = mutate.files()["signal"].read_text(encoding="utf-8").splitlines()
    lines = mutate.trace(lambda: signal.reflected_indices(1, 4))["signal"]
    text = [path[n - 1].strip() for n in lines]
    assert "return np.zeros(position.size, dtype=np.intp)" in text
    assert "period = 2 * (size - 1)" not in text


def test_results_are_remembered_as_long_as_they_hold(mutate, tmp_path):
    runner = mutate.Runner(mutate.suites.load(), budget=1.0)
    case = runner.suite.cases[0].id
    rows = (
        {"name": "killed", "killer": f"{case} (no answer)", "suite": "old", "budget": "0.1"},
        {"name": "gone", "killer": "decode.none", "suite": runner.digest, "budget": "9"},
        {"name": "survived", "killer": None, "suite": runner.digest, "budget": "1.0"},
        {"name": "tried less", "killer": None, "suite": runner.digest, "budget": "0.5"},
        {"name": "another suite", "killer": None, "suite": "old", "budget": "9"},
    )
    path = tmp_path / "results"
    path.write_text("".join(mutate.json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert mutate.remembered(path, runner) == {"killed": f"{case} (no answer)", "survived": None}


def test_naive_codec_answers_as_the_suite_wants(mutate):
    suite, naive = mutate.suites.load(), mutate.naively.Naive()
    wanted = {"decode.slice.coder-hidden-2x1", "decode.stream.linear-2x3", "encode.stream.edge-rate-largest"}
    for case in suite.cases:
        if case.id in wanted or case.id == "decode.symbols.invalid-magic":
            prepared = mutate.Prepared(case, suite.model_path(case.model), suite.read(case.input), 0.1, {})
            assert not mutate.wrong(suite, case, *mutate.perform(naive, prepared)), case.id
            wanted.discard(case.id)
    assert not wanted


def test_every_check_has_a_vector_and_every_damaged_vector_one_check():
    """Without the check that refuses it, every damaged vector fares otherwise, and the committed table says how."""
    refusals = imported("refusals")
    code = "import refusals as r; f = r.rows(r.suites.load()); print(r.table(f)); print(*r.problems(f), sep='\\n')"
    done = subprocess.run(  # in a process of its own: it replaces the package's functions
        [sys.executable, "-c", code], cwd=FOLDER, capture_output=True, check=True, text=True, env=environment()
    )
    text, problems = done.stdout.rsplit("\n\n", 1)
    assert not problems.strip()
    assert text.rstrip("\n") + "\n" == refusals.TABLE.read_text(encoding="utf-8")


def test_coverage_table_has_every_clause_and_no_gap():
    """The table is that of these clauses, and none lacks a case or an event."""
    cover = imported("cover", ROOT / "conformance" / "coverage")
    text = cover.TABLE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+\.\d+) \| (?:(\d+) )?\| ([^|]*)\| ([^|]*?) *\|", text, re.MULTILINE)
    assert [clause for clause, *_ in rows] == cover.clauses()
    for clause, cases, example, events in rows:
        assert clause in cover.WORDS or (int(cases) > 0 and example.strip() and re.fullmatch(r"\d+ of \d+", events)), (
            clause
        )
    assert "MISSING" not in text
    assert "NONE" not in text
    assert not cover.WORDS.keys() & cover.CLAUSES.keys()
    assert cover.WORDS.keys() | cover.CLAUSES.keys() == set(cover.clauses())


def test_coverage_counts_what_happens():
    """Counters tell which side of a condition and of a clamp occurred, and change nothing."""
    cover = imported("cover", ROOT / "conformance" / "coverage")
    (function,) = ast.parse("def f(a):\n    return clamp(a, 0, 9) if a > 3 or a < -3 else min(a, 2)").body
    counted = ast.fix_missing_locations(ast.Module([cover.Counters("m.f").visit(function)], []))
    space = {"__branch__": cover.branch, "__chosen__": cover.chosen, "__clamped__": cover.clamped}
    space["clamp"] = lambda v, low, high: builtins.min(builtins.max(v, low), high)
    exec(compile(counted, "", "exec"), space)
    cover.happened.clear()
    assert [space["f"](a) for a in (12, 3)] == [9, 2]
    assert cover.happened == {
        "m.f: a > 3 is True", "m.f: a > 3 is False", "m.f: a < -3 is False", "m.f: clamp(a, 0, 9) above",
        "m.f: min(a, 2) gives number 2",
    }  # fmt: skip


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
