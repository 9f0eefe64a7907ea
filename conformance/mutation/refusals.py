"""Does every damaged vector break exactly one rule, and does every rule have a vector that breaks it alone?

    python conformance/mutation/refusals.py               print the table
    python conformance/mutation/refusals.py --write       write it into conformance/mutation/REFUSALS.md

A *check* is a `raise` of the plain codec, named by its function and its condition, and by the field that it complains
about. Each case that is to be rejected runs once as it is, which tells the check that refuses it, and once with nothing but
that check left out. Then it must fare otherwise: be *accepted*, fail, or be refused where the damage shows later. A hash
that is wrong in the end (10.9) is such a consequence, and so is what the coder says of bytes that are not its own; another
rule that is broken as well is not, and such a vector would prove nothing about the first. The table says how each fares,
and which checks no vector reaches; `refusals.json` says why.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
sys.path[:0] = [str(ROOT)]

from walloc_ref.conform import stages as stages_module  # noqa: E402
from walloc_ref.conform import suite as suites  # noqa: E402
from walloc_ref.errors import WallocError  # noqa: E402

MODULES = {
    "walloc_ref.stages.container": None,
    "walloc_ref.stages.entropy": None,
    "walloc_ref.stages.signal": None,
    "walloc_ref.stages.oobleck": None,
    "walloc_ref.stages.autoencoder_kl": None,
    "walloc_ref.model": None,
    "walloc_ref.image": None,
    "walloc_ref.audio": None,
    "walloc_ref.codec": ("check_header", "check_budget", "check_symbols", "check_certificate"),
}
"""Modules whose refusals are tried, and in which functions; None for all."""

REASONS = FOLDER / "refusals.json"
"""Checks that no vector can reach, and why; and vectors that another check refuses as well, and why."""

TABLE = FOLDER / "REFUSALS.md"

CONSEQUENCES = ("codec.check_symbols", "codec.check_certificate", "entropy.code_residual", "entropy.Decoder")
"""What refuses a stream whose damage nothing noticed when it was read."""

SECONDS, MEMORY = 10, 1 << 30
"""What a program without a check may take before it counts as one that does not end, or asks for too much."""


@dataclass(frozen=True)
class Check:
    """A `raise`: where, under which condition, and which field it named (empty before it was met)."""

    place: str
    condition: str
    field: str = ""

    def __str__(self) -> str:
        words = f"`{self.place}`: `{self.condition}`"
        return f"{words}, {self.field}" if self.field else words


CHECKS: dict[int, Check] = {}
"""All checks, by number."""

met: list[Check] = []
"""Checks that refused something, in order, since the list was emptied."""

dropped: Check | None = None
"""The check that does not refuse anything at present."""


def refuse(number: int, error: BaseException, cause: BaseException | None = None) -> None:
    """What stands in the place of `raise error`."""
    known = CHECKS[number]
    field = generic(str(getattr(error, "field", "")))
    check = Check(known.place, known.condition, field)
    if check == dropped:
        return
    met.append(check)
    raise error from cause


def generic(field: str) -> str:
    """A field without numbers and names that differ from file to file."""
    words = field.split(" ")
    return words[0] if words[0] in ("slice", "tensor", "section") and "." not in field else field


class Raises(ast.NodeTransformer):
    """Replaces each `raise` by a call of `refuse`."""

    def __init__(self, place: str) -> None:
        self.place, self.conditions = place, ["always"]

    def body(self, nodes: list[ast.stmt], condition: str) -> list[ast.stmt]:
        """Statements below a condition."""
        self.conditions.append(condition)
        made = [self.visit(node) for node in nodes]
        self.conditions.pop()
        return made

    def visit_If(self, node: ast.If) -> ast.If:
        """As the visitor of that node."""
        test = ast.unparse(node.test)
        node.body, node.orelse = self.body(node.body, test), self.body(node.orelse, f"not ({test})")
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.ExceptHandler:
        """As the visitor of that node."""
        node.body = self.body(node.body, f"except {ast.unparse(node.type) if node.type else ''}")
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        """As the visitor of that node."""
        if node.exc is None:
            return node
        number = len(CHECKS)
        CHECKS[number] = Check(self.place, self.conditions[-1])
        arguments = [ast.Constant(number), node.exc, *([node.cause] if node.cause else [])]
        call = ast.Call(ast.Name("__refuse__", ast.Load()), arguments, [])
        return ast.copy_location(ast.Expr(call), node)


def install() -> None:
    """Compile the functions of all modules again, with `refuse` in the place of `raise`."""
    for name, chosen in MODULES.items():
        module = importlib.import_module(name)
        vars(module)["__refuse__"] = refuse
        tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
        for owner, function in functions(tree):
            if chosen is not None and function.name not in chosen:
                continue
            qualified = f"{owner}.{function.name}" if owner else function.name
            before = len(CHECKS)
            made = Raises(f"{name.split('.')[-1]}.{qualified}").visit(function)
            if len(CHECKS) > before:
                replace(module, owner, made)


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods of a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield "", node
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    yield node.name, part


def replace(module: Any, owner: str, function: ast.FunctionDef) -> None:
    """Give a function of a module other code."""
    function.decorator_list = []
    future = ast.parse("from __future__ import annotations").body
    code = ast.fix_missing_locations(ast.Module([*future, function], []))
    space: dict[str, Any] = {}
    exec(compile(code, module.__file__, "exec"), dict(vars(module)), space)
    holder = vars(module)[owner] if owner else module
    original = vars(holder)[function.name]
    original = getattr(original, "__func__", original)
    original = getattr(original, "fget", original)
    while hasattr(original, "__wrapped__"):
        original = original.__wrapped__
    original.__code__ = space[function.name].__code__


def outcome(suite: suites.Suite, case: suites.Case) -> str:
    """What the plain codec makes of a case: "accepted", the check that refused it, or how it failed."""
    met.clear()
    stages, model = stages_module.Stages(), suite.model_path(case.model)
    try:
        stages.perform(case.op, case.stage, model, suite.read(case.input), case.parameters)
    except WallocError as error:
        if not met or met[0].condition.startswith("except"):
            return f"fails with {type(error.__cause__ or error).__name__}"
        return str(met[0])
    except MemoryError:
        return "asks for too much memory"
    except Exception as error:
        return f"fails with {type(error).__name__}"
    return "accepted"


def without(suite: suites.Suite, case: suites.Case, check: Check) -> str:
    """`outcome` where a check is left out, in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(suite, case, check, write)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as file:
        text = file.read()
    os.waitpid(child, 0)
    return text or "does not end"


def _answer(suite: suites.Suite, case: suites.Case, check: Check, write: int) -> NoReturn:
    """The stage of that name."""
    global dropped
    try:
        dropped = check
        stages_module._load.cache_clear()
        resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[0],) * 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        os.write(write, outcome(suite, case).encode())
    finally:
        os._exit(0)


@dataclass(frozen=True)
class Row:
    """A case that is to be rejected: what refuses it, and what comes of it without that."""

    case: suites.Case
    check: Check | None
    without: str


def rows(suite: suites.Suite) -> list[Row]:
    """All cases that are to be rejected."""
    if not CHECKS:
        install()
    found = []
    for case in suite.cases:
        if not case.rejects:
            continue
        first = outcome(suite, case)
        cause = met[0] if met else None  # what was raised first, and then only worded in another way
        if first == "accepted":
            raise AssertionError(f"{case.id} is accepted")
        found.append(Row(case, cause, "" if cause is None else without(suite, case, cause)))
    return found


def reasons(kind: str) -> dict[str, str]:
    """Why checks are "unreached", or vectors "refused again", by name."""
    groups: list[dict[str, Any]] = json.loads(REASONS.read_text(encoding="utf-8"))[kind]
    return {name: group["reason"] for group in groups for name in group["names"]}


def table(found: list[Row]) -> str:
    """The table, in Markdown."""
    again, missing = reasons("refused again"), reasons("unreached")
    lines = [
        "# What refuses each damaged vector",
        "",
        "Written by `refusals.py --write`. A check is a function of the plain codec, its condition, and the field that it "
        "names.",
        "",
        "| case | refused by | without that check |",
        "| --- | --- | --- |",
    ]
    for row in found:
        check = "a library, before the codec sees it" if row.check is None else str(row.check)
        then = f"{row.without} ({again[row.case.id]})" if row.case.id in again else row.without
        lines.append(f"| {row.case.id} | {escaped(check)} | {escaped(then)} |")
    lines += ["", "## Checks that no vector reaches", "", "| check | why |", "| --- | --- |"]
    lines += [f"| {escaped(check)} | {missing.get(check, 'MISSING')} |" for check in unreached(found)]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|")


def unreached(found: list[Row]) -> list[str]:
    """Checks, without fields, that refuse none of the cases."""
    reached = {(row.check.place, row.check.condition) for row in found if row.check}
    return sorted({str(c) for c in CHECKS.values() if (c.place, c.condition) not in reached})


def refused_again(found: list[Row]) -> dict[str, str]:
    """Cases that another rule refuses when the check of theirs is left out, and that rule's check."""
    own = tuple(f"`{name}" for name in CONSEQUENCES)
    return {
        row.case.id: row.without for row in found if row.without.startswith("`") and not row.without.startswith(own)
    }


def problems(found: list[Row]) -> list[str]:
    """What is without a reason, and reasons for what is not so."""
    again, missing = reasons("refused again"), reasons("unreached")
    now, never = refused_again(found), unreached(found)
    bad = [f"{name}: refused again by {check}" for name, check in now.items() if name not in again]
    bad += [f"no vector for {check}" for check in never if check not in missing]
    bad += [
        f"a reason for what is not so: {name}" for name in [*again, *missing] if name not in now and name not in never
    ]
    return bad


def main() -> int:
    """The command line: exit code 1 where a check or a vector lacks what it needs."""
    parser = argparse.ArgumentParser(description="What refuses each damaged vector, and what happens without that.")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    options = parser.parse_args()
    found = rows(suites.load())
    text = table(found)
    if options.write:
        TABLE.write_text(text, encoding="utf-8")
    else:
        print(text)
    bad = problems(found)
    print("\n".join(bad), file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
