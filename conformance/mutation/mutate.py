"""Mutation testing: does the suite notice every fault that a program could have?

    python conformance/mutation/mutate.py                 every mutant of the plain codec's normative functions (hours)
    python conformance/mutation/mutate.py --only entropy  of one target
    python conformance/mutation/mutate.py --sample 60     as many mutants, drawn with a seed, as go into 60 seconds
    python conformance/mutation/mutate.py --write         the result goes into conformance/README.md

A *mutant* is the plain codec with one place changed: a comparison, a constant, an operator, a condition or a statement left
out, two arguments swapped (not those of min and max). It is *killed* where some vector of the stages that the function
belongs to gives another output, an exception or no end. Mutants that survive are listed with file and line.
`equivalent.json` holds those that no input can tell from the original, each with a reason that a reader can check; any
other survivor is a gap of the suite.

How: a function is compiled again from its changed syntax tree, and its code takes the place of the original's in a forked
process, so that every reference to it runs the mutant. The process answers case by case, the smallest inputs first; what it
answers is compared here, by the code that nobody changed, and at the first difference the process is killed. Nothing is
jitted: `stages.Stages(PLAIN)` is the plain codec.
"""

from __future__ import annotations

import argparse
import ast
import copy
import datetime
import functools
import importlib
import json
import os
import pickle
import random
import select
import signal
import struct
import sys
import time
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
sys.path.insert(0, str(ROOT))

from walloc_ref.conform import compare  # noqa: E402
from walloc_ref.conform import stages as stages_module  # noqa: E402
from walloc_ref.conform import suite as suites  # noqa: E402
from walloc_ref.conform.stages import Stages  # noqa: E402
from walloc_ref.errors import WallocError  # noqa: E402

EQUIVALENT = FOLDER / "equivalent.json"
"""Mutants that no input tells from the original, and why."""

SLOW = 4.0
"""Cases that take the plain codec longer than this many seconds are left out."""

PATIENCE = 8
"""A mutant that takes this many times as long as the plain codec, and a second, does not end."""

STREAMS = ("decode header", "decode symbols", "encode stream")
NETWORKS = ("decode decoder.*", "encode encoder.*", "decode network", "encode latents")
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "entropy": ("walloc_ref.stages.entropy", ("decode slice", "encode slice", "decode symbols")),
    "container": ("walloc_ref.stages.container", (*STREAMS, "decode stream")),
    "signal": ("walloc_ref.stages.signal", ("decode clamp", "decode crop", "decode samples", "encode statistics",
                                            "encode signal", "encode pad", "encode stream", "decode stream")),
    "wavelet": ("walloc_ref.stages.wavelet", ("decode synthesis", "encode analysis")),
    "quantise": ("walloc_ref.stages.quantise", ("decode dequantise", "encode compand", "encode round", "encode quantise",
                                                "decode stream")),
    "projection": ("walloc_ref.stages.projection", (*NETWORKS, "encode residual", "decode symbols")),
    "autoencoder_kl": ("walloc_ref.stages.autoencoder_kl", (*NETWORKS, "decode symbols")),
    "oobleck": ("walloc_ref.stages.oobleck", (*NETWORKS, "decode post", "decode symbols", "decode stream")),
    "model": ("walloc_ref.model", ("decode symbols",)),
    "architecture": ("walloc_ref.architecture", ("decode network", "encode latents", "decode symbols")),
    "image": ("walloc_ref.image", ("decode stream", "encode symbols", "encode stream")),
    "audio": ("walloc_ref.audio", ("decode stream", "encode symbols", "encode stream")),
}  # fmt: skip
"""Modules, and the stages whose vectors their functions are run against."""

SKIPPED = {
    "model": {"save", "folders", "available", "find", "name_of", "find_by_id"},
    "entropy": {"max_symbols"},
    "quantise": {"margin"},
    "container": {"place", "certify"},
}
"""Functions that are about this package and not about the codec, or that only word a message."""

Node = ast.AST
NEIGHBOUR: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATOR: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One place of one function changed."""

    target: str
    function: str
    line: int
    before: str
    after: str
    number: int
    tree: ast.FunctionDef | ast.Assign

    @property
    def name(self) -> str:
        """A name that does not change with the lines above: function, change, and which of equal ones."""
        return f"{self.target}.{self.function}: {self.before} -> {self.after} ({self.number})"


# ---- making mutants


def functions(target: str) -> Iterator[tuple[str, ast.FunctionDef | ast.Assign]]:
    """Functions, methods and constants of a module, by their qualified names."""
    module = importlib.import_module(TARGETS[target][0])
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Name, ast.Tuple)):
            yield ast.unparse(node.targets[0]), node
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    yield f"{node.name}.{part.name}", part


def changes(node: Node) -> Iterator[Node]:
    """What may stand in the place of a node."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if type(op) in NEIGHBOUR:
                other = copy.deepcopy(node)
                other.ops[i] = NEIGHBOUR[type(op)]()
                yield other
    elif isinstance(node, ast.BoolOp):
        for value in node.values:  # one operand left out
            rest = [v for v in node.values if v is not value]
            yield copy.deepcopy(rest[0]) if len(rest) == 1 else ast.BoolOp(node.op, copy.deepcopy(rest))
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATOR:
        other = copy.deepcopy(node)
        other.op = OPERATOR[type(node.op)]()
        yield other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        steps = (1, -1) if isinstance(node.value, int) else (node.value * 2.0**-20 or 1.0,)
        for step in steps:
            yield ast.Constant(node.value + step)
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("min", "max", "np.minimum", "np.maximum"):
        return
    elif isinstance(node, ast.Call) and len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args):
        for i in range(len(node.args) - 1):
            if ast.dump(node.args[i]) != ast.dump(node.args[i + 1]):
                other = copy.deepcopy(node)
                other.args[i], other.args[i + 1] = other.args[i + 1], other.args[i]
                yield other
    elif isinstance(node, ast.IfExp):
        yield copy.deepcopy(node.body)
        yield copy.deepcopy(node.orelse)
    elif isinstance(node, (ast.If, ast.While)) and isinstance(node, ast.If):
        other = copy.deepcopy(node)  # a check, or a branch, that is left out
        other.test = ast.Constant(False)
        yield other
    elif isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr)) and not isinstance(
        getattr(node, "value", None), ast.Constant
    ):
        yield ast.Pass()


def places(node: Node, path: tuple = ()) -> Iterator[tuple[tuple, Node]]:
    """All nodes below a node that are code and no words: where they stand, and they themselves."""
    for field, value in ast.iter_fields(node):
        if field in ("decorator_list", "returns", "annotation", "type_params") or isinstance(
            node, (ast.Raise, ast.JoinedStr)
        ):
            continue
        if isinstance(node, ast.arguments) and field not in ("defaults", "kw_defaults"):
            continue
        for i, part in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(part, ast.AST):
                yield (*path, (field, i)), part
                yield from places(part, (*path, (field, i)))


def mutants(target: str) -> Iterator[Mutant]:
    """All mutants of a target."""
    for name, tree in functions(target):
        if name.split(".")[-1] in SKIPPED.get(target, ()) or name.split(".")[-1] in ("__repr__", "place"):
            continue
        seen: Counter[tuple[str, str]] = Counter()
        for path, node in places(tree):
            for other in changes(node):
                if isinstance(node, ast.AugAssign) and isinstance(other, ast.Pass) and path[-1][0] != "body":
                    continue
                changed = copy.deepcopy(tree)
                parent: Any = changed
                for field, i in path[:-1]:
                    parent = getattr(parent, field) if i is None else getattr(parent, field)[i]
                field, i = path[-1]
                if i is None:
                    setattr(parent, field, other)
                else:
                    getattr(parent, field)[i] = other
                ast.fix_missing_locations(ast.copy_location(other, node))
                before, after = (ast.unparse(part).splitlines()[0][:70] for part in (node, other))
                seen[before, after] += 1
                yield Mutant(target, name, node.lineno, before, after, seen[before, after], changed)


def install(mutant: Mutant) -> None:
    """Put the mutant's code in the place of the original's, in this process."""
    module = importlib.import_module(TARGETS[mutant.target][0])
    if isinstance(mutant.tree, ast.Assign):
        exec(compile(ast.fix_missing_locations(ast.Module([mutant.tree], [])), "", "exec"), module.__dict__)
        forget(module)
        return
    owner: Any = module
    *outer, name = mutant.function.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original = owner.__dict__[name] if outer else getattr(module, name)
    if isinstance(original, (staticmethod, classmethod)):
        original = original.__func__
    if isinstance(original, property):
        original = original.fget
    if isinstance(original, functools.cached_property):
        original = original.func
    while hasattr(original, "__wrapped__"):
        original = original.__wrapped__
    tree = copy.copy(mutant.tree)
    assert isinstance(tree, ast.FunctionDef)
    tree.decorator_list = []
    space: dict[str, Any] = {}
    future = ast.parse("from __future__ import annotations").body
    code = compile(ast.fix_missing_locations(ast.Module([*future, tree], [])), module.__file__ or "", "exec")
    exec(code, dict(module.__dict__), space)
    made: types.FunctionType = space[name]
    if made.__code__.co_freevars != original.__code__.co_freevars:
        raise ValueError("a closure")
    original.__code__, original.__defaults__, original.__kwdefaults__ = (
        made.__code__,
        made.__defaults__,
        made.__kwdefaults__,
    )
    forget(module)


def forget(module: types.ModuleType) -> None:
    """Empty the caches that hold what the original computed."""
    for value in list(vars(module).values()):
        if hasattr(value, "cache_clear"):
            value.cache_clear()
    stages_module._load.cache_clear()


# ---- running them


@dataclass(frozen=True)
class Prepared:
    """A case with everything that is read from files."""

    case: suites.Case
    model: Path | None
    data: bytes
    seconds: float


class Runner:
    """The suite, and what each case costs the plain codec."""

    def __init__(self, suite: suites.Suite) -> None:
        self.suite, self.stages = suite, Stages()
        self.ran: dict[str, Prepared | None] = {}
        self.prepared: dict[str, list[Prepared]] = {}

    def cases(self, target: str, fast: bool) -> list[Prepared]:
        """Cases of a target, the cheapest first; what the plain codec does wrong, or too slowly, is left out."""
        key = f"{target} {fast}"
        if key not in self.prepared:
            wanted = TARGETS[target][1]
            found = []
            for case in self.suite.cases:
                name = case.stage_name
                if not any(name == w or (w.endswith("*") and name.startswith(w[:-1])) for w in wanted):
                    continue
                size = len(self.suite.read(case.input))
                if (case.model or "").startswith("bundled-") or size > (4_000 if fast else 200_000):
                    continue
                if case.id not in self.ran:
                    self.ran[case.id] = self.run(case)
                prepared = self.ran[case.id]
                if prepared is not None:
                    found.append(prepared)
            self.prepared[key] = sorted(found, key=lambda p: p.seconds)
        return self.prepared[key]

    def run(self, case: suites.Case) -> Prepared | None:
        """A case and what it costs; None where it costs too much."""
        data, model = self.suite.read(case.input), self.suite.model_path(case.model)
        started = time.perf_counter()
        with Quiet(SLOW):
            verdict = perform(self.stages, Prepared(case, model, data, 0.0))
            if wrong(self.suite, case, *verdict):
                raise AssertionError(f"{case.id}: the plain codec itself is wrong")
            return Prepared(case, model, data, time.perf_counter() - started)
        return None

    def kills(self, mutant: Mutant, cases: Sequence[Prepared]) -> str | None:
        """What killed the mutant: the id of a case, or None where it survived."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            self._child(mutant, cases, read, write)
        os.close(write)
        try:
            for prepared in cases:
                answer = receive(read, PATIENCE * prepared.seconds + 1)
                if answer is None:
                    return f"{prepared.case.id} (no answer)"
                if wrong(self.suite, prepared.case, *answer):
                    return prepared.case.id
        finally:
            os.close(read)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return None

    def _child(self, mutant: Mutant, cases: Sequence[Prepared], read: int, write: int) -> None:
        """Answer all cases, and end."""
        try:
            os.close(read)
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - warnings of wrong arithmetic, until the process ends
            install(mutant)
            for prepared in cases:
                packed = pickle.dumps(perform(self.stages, prepared))
                os.write(write, struct.pack("<Q", len(packed)))
                for at in range(0, len(packed), 1 << 16):
                    os.write(write, packed[at : at + (1 << 16)])
        except BaseException:
            pass
        finally:
            os._exit(0)


class Quiet:
    """Ends a block after some seconds; what it was doing counts for nothing."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        def ring(*_: object) -> None:
            raise TimeoutError

        self.before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, kind: type | None, *_: object) -> bool:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)
        return kind is TimeoutError


def perform(stages: Stages, prepared: Prepared) -> tuple[str, bytes]:
    """One case: "done" with the output, "rejected", or "crash"."""
    case = prepared.case
    try:
        return "done", stages.perform(case.op, case.stage, prepared.model, prepared.data, case.parameters)
    except WallocError:
        return "rejected", b""
    except TimeoutError:
        raise
    except Exception:
        return "crash", b""


def wrong(suite: suites.Suite, case: suites.Case, what: str, output: bytes) -> bool:
    """Whether an answer is not what the case demands."""
    if case.rejects:
        return what != "rejected"
    if what != "done":
        return True
    try:
        compare.check(case, suite, output)
    except compare.Different:
        return True
    return False


def receive(pipe: int, seconds: float) -> tuple[str, bytes] | None:
    """The next answer, or None where none comes."""

    def take(n: int) -> bytes | None:
        data = b""
        while len(data) < n:
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            part = os.read(pipe, min(n - len(data), 1 << 20)) if ready else b""
            if not part:
                return None
            data += part
        return data

    until = time.monotonic() + seconds
    size = take(8)
    packed = None if size is None else take(struct.unpack("<Q", size)[0])
    return None if packed is None else pickle.loads(packed)


# ---- the command


def main() -> int:
    """The command line: exit code 1 where a mutant survives that is not known to be equivalent."""
    parser = argparse.ArgumentParser(description="Mutants of the plain codec against the conformance suite.")
    parser.add_argument("--only", action="append", choices=[*TARGETS], help="a target; again for more")
    parser.add_argument("--sample", type=float, metavar="SECONDS", help="mutants drawn at random, for so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--floor", type=float, metavar="SHARE", help="fail only where less than this share is caught")
    parser.add_argument("--json", type=Path, help="all results as JSON")
    parser.add_argument("--write", action="store_true", help="write the score into conformance/README.md")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    runner = Runner(suites.load())
    known: dict[str, str] = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    drawn = [mutant for target in options.only or TARGETS for mutant in mutants(target)]
    if options.sample:
        random.Random(options.seed).shuffle(drawn)
    for target in options.only or TARGETS:  # before the clock starts
        runner.cases(target, bool(options.sample))
    until = time.monotonic() + options.sample if options.sample else float("inf")
    results: dict[str, tuple[Mutant, str | None]] = {}
    for mutant in drawn:
        cases = runner.cases(mutant.target, bool(options.sample))
        if time.monotonic() > until:
            break
        results[mutant.name] = mutant, runner.kills(mutant, cases)
        if results[mutant.name][1] is None:
            word = "equivalent" if mutant.name in known else "SURVIVED"
            print(f"{word}: {TARGETS[mutant.target][0]}, line {mutant.line}, {mutant.name}", flush=True)
    survivors = [name for name, (_, killer) in results.items() if killer is None]
    gaps = [name for name in survivors if name not in known]
    print(table(results, known))
    stale = [n for n in known if n in results and results[n][1] is not None and not options.sample]
    for name in stale:
        print(f"not equivalent, it is killed by {results[name][1]}: {name}")
    if options.json:
        options.json.write_text(
            json.dumps({n: killer for n, (_, killer) in results.items()}, indent=1, ensure_ascii=False)
        )
    if options.write:
        how = f"a sample drawn with seed {options.seed}" if options.sample else "all mutants"
        write(f"{how}:\n\n{table(results, known)}")
    if options.floor is not None:
        return 1 if len(gaps) > (1 - options.floor) * len(results) or not results else 0
    return 1 if gaps or stale else 0


def table(results: dict[str, tuple[Mutant, str | None]], known: dict[str, str]) -> str:
    """Mutants by target."""
    lines = ["| functions of | mutants | killed | equivalent | survived |", "| --- | --- | --- | --- | --- |"]
    total: Counter[str] = Counter()
    for target in dict.fromkeys(mutant.target for mutant, _ in results.values()):
        count: Counter[str] = Counter()
        for name, (mutant, killer) in results.items():
            if mutant.target == target:
                count["all"] += 1
                count["killed" if killer else "equivalent" if name in known else "survived"] += 1
        total += count
        row = [
            f"`{TARGETS[target][0].removeprefix('walloc_ref.')}`",
            *(str(count[k]) for k in ("all", "killed", "equivalent", "survived")),
        ]
        lines.append(f"| {' | '.join(row)} |")
    row = ["all", *(str(total[k]) for k in ("all", "killed", "equivalent", "survived"))]
    return "\n".join([*lines, f"| {' | '.join(row)} |"])


def write(text: str) -> None:
    """Put the table between its marks in conformance/README.md."""
    path = FOLDER.parent / "README.md"
    begin, end = "<!-- mutation begins -->\n", "<!-- mutation ends -->"
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    day = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    path.write_text(f"{before}{begin}Run of {day}, {text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
