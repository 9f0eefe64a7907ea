"""The tool that looks for faults which the suite would not notice: it makes faults, and tells killed from surviving."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "conformance" / "mutation"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir() or sys.platform == "win32", reason="not in a checkout, or no fork")


@pytest.fixture(scope="module")
def mutate():
    sys.path.insert(0, str(FOLDER))
    try:
        import mutate

        return mutate
    finally:
        sys.path.remove(str(FOLDER))


@pytest.mark.parametrize(
    "code, wanted",
    [
        ("a < b", ["a <= b"]),
        ("a == b", ["a != b"]),
        ("a or b", ["b", "a"]),
        ("a + b", ["a - b"]),
        ("7", ["8", "6"]),
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


def test_names_are_unique_and_every_target_has_mutants(mutate):
    for target in mutate.TARGETS:
        names = [mutant.name for mutant in mutate.mutants(target)]
        assert len(names) == len(set(names)) > 5, target


def test_equivalent_mutants_exist_and_have_reasons(mutate):
    known = json.loads(mutate.EQUIVALENT.read_text(encoding="utf-8"))
    names = {mutant.name for target in mutate.TARGETS for mutant in mutate.mutants(target)}
    assert known.keys() <= names, known.keys() - names
    assert all(len(reason) > 40 for reason in known.values())


def test_mutants_are_killed_and_what_is_the_same_survives(mutate):
    runner = mutate.Runner(mutate.suites.load())
    cases = [case for case in runner.suite.cases if case.stage_name == "encode round"][:3]
    prepared = [
        mutate.Prepared(case, runner.suite.model_path(case.model), runner.suite.read(case.input), 0.1) for case in cases
    ]
    for mutant in mutate.mutants("quantise"):
        if mutant.function in ("round_to_symbols", "compand"):
            killer = runner.kills(mutant, prepared)
            assert (killer is not None) == (mutant.function == "round_to_symbols"), mutant.name
    assert not mutate.wrong(runner.suite, cases[0], *mutate.perform(runner.stages, prepared[0]))
