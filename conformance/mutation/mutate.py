"""Mutation testing: does the suite notice every fault that a program could have?

    python conformance/mutation/mutate.py                 every mutant of everything (hours)
    python conformance/mutation/mutate.py --only entropy  of one target
    python conformance/mutation/mutate.py --results F     what F has already is not run again; the rest is appended to it
    python conformance/mutation/mutate.py --sample 60     as many mutants, drawn with a seed, as go into 60 seconds
    python conformance/mutation/mutate.py --write         the result goes into conformance/README.md

A *mutant* is a program with one place changed: a comparison, a constant (of a module and the default of a dataclass,
too), an operator, a condition or a statement left out, two arguments swapped (not those of min and max). The programs
are the plain codec, the naive codec of the tests, and the blocks of SPEC.md that are code. A mutant is *killed* where
some vector of the stages that the function belongs to gives another output, an exception or no end, or where it does
not even import: every mutant compiles, but a constant, a table or a default that is computed on import may raise, or
not end. The results say so, as the table does, because no vector was needed for it. Mutants that survive are listed
with file and line. `equivalent.json` holds those that no vector of the suite can tell from the
original, each with a reason that a reader can check, in groups of two kinds: `equivalent` ones do for every input what
the original does; `unobservable` ones do not, but nothing that the protocol asks for or compares shows it: another
check refuses the same input, or it is about certificates, messages, arguments that no case has. Any other survivor is a
gap of the suite.

How: a function is compiled again from its changed syntax tree, and its code takes the place of the original's in a
forked process, so that every reference to it runs the mutant. The process answers case by case: only cases that
execute the changed statement (found once, by tracing each case), those first that killed other mutants of the same
function, then the cheapest of each stage. What it answers is compared here, by the code that nobody changed, and at
the first difference the process is killed. Time is the processor's, so that a loaded machine kills no mutant. Nothing
is jitted: `stages.Stages(PLAIN)` is the plain codec.

Each mutant has a process of its own, so that nothing it leaves behind (caches, constants, arrays that it wrote to,
limits) reaches the next. A fork takes some ten milliseconds; what takes longer is to read models, so those are read
once, here, and inherited. They are as they came from their files: this process runs no case after it has read them.
Only mutants that have a part in reading a model, by the lines that run while one is read, and those that change what
is computed on import, read it again.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import datetime
import functools
import gc
import hashlib
import importlib
import inspect
import json
import os
import pickle
import random
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(FOLDER)]

import naively  # noqa: E402

from walloc_ref.conform import compare  # noqa: E402
from walloc_ref.conform import stages as stages_module  # noqa: E402
from walloc_ref.conform import suite as suites  # noqa: E402
from walloc_ref.conform.stages import Stages  # noqa: E402
from walloc_ref.errors import WallocError  # noqa: E402

EQUIVALENT = FOLDER / "equivalent.json"
"""Kinds, reasons, and the mutants that for each of them no vector tells from the original."""

KINDS = ("equivalent", "unobservable")
"""No input tells; or nothing that is compared does."""

SLOW = 4.0
"""Cases that take the plain codec longer than this many seconds, or than a tenth of the budget, are left out."""

SLOW_NAIVELY = 2.0
"""The same for the naive codec, which takes a hundred times as long."""

PATIENCE = 8
"""A mutant that takes this many times as long as the original, and a quarter of a second, does not end."""

IMPORT = 5.0
"""Nor does one whose constants take so many seconds."""

ON_IMPORT = "import"
"""What kills a mutant that raises, or does not end, before it is given any case."""

FOLLOWED = 2000
"""Calls of a function that are traced in one case."""

MEMORY = 2 << 30
"""A mutant that wants more memory than this on top of the original's has failed."""

STREAMS = ("decode header", "decode symbols", "encode stream")
NETWORKS = ("decode decoder.*", "encode encoder.*", "decode network", "encode latents")
WHOLE = ("decode stream", "encode symbols", "encode stream")
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "entropy": ("walloc_ref.stages.entropy", ("decode slice", "encode slice", "decode symbols", "decode samples")),
    "container": ("walloc_ref.stages.container", (*STREAMS, "decode stream")),
    "quantise": ("walloc_ref.stages.quantise", ("decode dequantise", "encode compand", "encode round", "encode quantise",
                                                "decode stream", "encode symbols")),
    "wavelet": ("walloc_ref.stages.wavelet", ("decode synthesis", "encode analysis")),
    "projection": ("walloc_ref.stages.projection", (*NETWORKS, "encode residual", "decode symbols")),
    "signal": ("walloc_ref.stages.signal", ("decode clamp", "decode crop", "decode samples", "encode statistics",
                                            "encode signal", "encode pad", "encode stream", "decode stream")),
    "image": ("walloc_ref.image", WHOLE),
    "audio": ("walloc_ref.audio", WHOLE),
    "volume": ("walloc_ref.volume", WHOLE),
    "model": ("walloc_ref.model", ("decode symbols", "decode samples", "decode stream", "encode symbols",
                                   "encode latents")),
    "architecture": ("walloc_ref.architecture", ("decode network", "encode latents", "decode symbols",
                                                 "decode samples")),
    "oobleck": ("walloc_ref.stages.oobleck", (*NETWORKS, "decode post", "decode symbols", "decode stream")),
    "autoencoder_kl": ("walloc_ref.stages.autoencoder_kl", (*NETWORKS, "decode symbols", "decode stream",
                                                            "encode symbols")),
    "spec": ("SPEC.md", naively.STAGES),
    "naive": ("naive", naively.STAGES),
}  # fmt: skip
"""Modules, and the stages whose vectors their functions are run against."""

NAIVELY = ("spec", "naive")
"""Targets that the naive codec runs; the others the plain one does."""

SKIPPED = {
    "model": {
        "save",
        "folders",
        "available",
        "find",
        "name_of",
        "find_by_id",
        "_in_order",
        "_read_spread",
        "encodes_by_projection",
    },
    "entropy": {"max_symbols"},
    "quantise": {"margin"},
    "container": {
        "place",
        "certify",
        "symbols",
        "SAMPLE_BITS",
        "metadata_to_bytes",
        "metadata_from_bytes",
        "MAX_METADATA_BYTES",
        "EXAMPLE_HEADER",
    },
    "naive": {"executable"},
}
"""Functions that are about this package and not about the codec, or that only word a message."""

SWITCHES = ("copy", "write", "strict", "compare")
"""Keywords whose True and False are about memory and checks of Python's own, and change no value."""

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
    """One place of one function changed; `lines` are those of its statement, None where that runs on import."""

    target: str
    function: str
    line: int
    before: str
    after: str
    number: int
    tree: ast.stmt
    lines: tuple[int, int] | None

    @property
    def name(self) -> str:
        """A name that does not change with the lines above: function, change, and which of equal ones."""
        return f"{self.target}.{self.function}: {self.before} -> {self.after} ({self.number})"


# ---- making mutants


def source(target: str) -> ast.Module:
    """The syntax tree of a target; that of SPEC.md has the lines of the document."""
    name = TARGETS[target][0]
    if target == "spec":
        tree = ast.Module([], [])
        for block in naively.blocks():
            tree.body += ast.parse(block).body
        return tree
    module = importlib.import_module(name)
    return ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))


def functions(target: str) -> Iterator[tuple[str, ast.stmt]]:
    """Functions, methods, constants, defaults of dataclasses, by qualified names; of SPEC.md all other statements, too."""
    for node in source(target).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Name, ast.Tuple)):
            yield ast.unparse(node.targets[0]), node
        elif isinstance(node, ast.AnnAssign) and node.value:
            yield ast.unparse(node.target), node
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    yield f"{node.name}.{part.name}", part
                elif isinstance(part, ast.AnnAssign) and part.value:
                    yield f"{node.name}.{ast.unparse(part.target)}", part
        elif target == "spec" and isinstance(node, (ast.For, ast.While)):
            yield ast.unparse(node).splitlines()[0], node


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
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
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
    elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr)) and not isinstance(
        node.value, (ast.Constant, types.NoneType)
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
        if isinstance(node, ast.keyword) and node.arg in SWITCHES:
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
                lines = statement(tree, path)
                yield Mutant(target, name, node.lineno, before, after, seen[before, after], changed, lines)  # type: ignore[attr-defined]


def statement(tree: ast.stmt, path: tuple) -> tuple[int, int] | None:
    """First and last line of the statement that a place belongs to, or of its head where it has a body."""
    if not isinstance(tree, ast.FunctionDef) or path[0][0] == "args":
        return None
    found: Any = tree
    node: Any = tree
    for field, i in path:
        node = getattr(node, field) if i is None else getattr(node, field)[i]
        if isinstance(node, ast.stmt):
            found = node
    if hasattr(found, "body"):
        return found.lineno, max(found.lineno, found.body[0].lineno - 1)
    return found.lineno, found.end_lineno


def install(mutant: Mutant) -> None:
    """Put the mutant's code in the place of the original's, in this process, and empty the caches of its module."""
    spec = mutant.target == "spec"
    module = naively.naive if spec else importlib.import_module(TARGETS[mutant.target][0])
    space = naively.naive.SPEC if spec else module.__dict__
    if isinstance(mutant.tree, ast.AnnAssign) and "." in mutant.function:
        owner, field = mutant.function.split(".")
        value = ast.fix_missing_locations(ast.Expression(mutant.tree.value))  # type: ignore[arg-type]
        default(space[owner], field, eval(compile(value, "", "eval"), space))
        spread(module, {owner: space[owner]})
        forget(module)
        return
    if not isinstance(mutant.tree, ast.FunctionDef):
        code = ast.Module([mutant.tree], [])
        if spec:  # what follows may have been computed from it
            code = source("spec")
            number = next(i for i, node in enumerate(code.body) if node.lineno == mutant.tree.lineno)
            code.body[number] = mutant.tree
        before = {name: space.get(name) for name in assigned(mutant.tree)}
        exec(compile(ast.fix_missing_locations(code), "", "exec"), space)
        if not spec:
            spread(module, before)
        forget(module)
        return
    *outer, name = mutant.function.split(".")
    owner: Any = space
    for part in outer:
        owner = owner[part].__dict__
    original = owner[name]
    if isinstance(original, (staticmethod, classmethod)):
        original = original.__func__
    if isinstance(original, property):
        original = original.fget
    if isinstance(original, functools.cached_property):
        original = original.func
    while hasattr(original, "__wrapped__"):
        original = original.__wrapped__
    tree = copy.copy(mutant.tree)
    tree.decorator_list = []
    made_in: dict[str, Any] = {}
    frame = ast.parse("from __future__ import annotations\nclass Frame: pass")
    within = original.__code__.co_freevars == ("__class__",)  # it says super(), which only a class body explains
    if within:
        tree.body = [*tree.body, *ast.parse("__class__").body]  # type: ignore[attr-defined] # even where no super() is left
    (frame.body[1].body if within else frame.body).append(tree)  # type: ignore[attr-defined]
    exec(compile(ast.fix_missing_locations(frame), module.__file__ or "", "exec"), dict(space), made_in)
    made: types.FunctionType = vars(made_in["Frame"])[name] if within else made_in[name]
    if made.__code__.co_freevars != original.__code__.co_freevars:
        raise ValueError("a closure")
    original.__code__, original.__defaults__, original.__kwdefaults__ = (
        made.__code__,
        made.__defaults__,
        made.__kwdefaults__,
    )
    forget(module)


def default(owner: type, field: str, value: object) -> None:
    """Give a field of a dataclass, and of those derived from it, another default."""
    init: Any = owner.__init__  # type: ignore[misc]
    parameters = inspect.signature(init).parameters.values()
    given = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY and p.default is not p.empty]
    init.__defaults__ = tuple(value if n == field else old for n, old in zip(given, init.__defaults__ or ()))
    init.__kwdefaults__ = {n: value if n == field else old for n, old in (init.__kwdefaults__ or {}).items()}
    for derived in owner.__subclasses__():
        default(derived, field, value)


def assigned(node: ast.stmt) -> set[str]:
    """Names that a statement assigns to."""
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    parts = [part for target in targets for part in getattr(target, "elts", [target])]
    return {part.id for part in parts if isinstance(part, ast.Name)}


def spread(changed: types.ModuleType, before: dict[str, Any]) -> None:
    """Carry other values of a module's constants to what was made of them on import.

    That is constants computed from them, in this module and in others, the same names in modules that import them, and
    defaults of arguments; and what was made of those in turn.
    """
    loaded = sorted(sys.modules.items())
    found = {name: module for name, module in loaded if name.startswith("walloc_ref") or module is changed}
    modules = {m.__name__: m for m in found.values() if getattr(m, "__file__", None)}
    trees = {n: ast.parse(Path(m.__file__ or "").read_text(encoding="utf-8")) for n, m in modules.items()}
    new: dict[tuple[str, str], Any] = {(changed.__name__, name): old for name, old in before.items()}
    known: set[tuple[str, str]] = set()
    while new:  # what changed last, by module and name, and its old value
        known |= new.keys()
        more: dict[tuple[str, str], Any] = {}
        for name, module in modules.items():
            space = vars(module)
            names = {n for m, n in new if m == name}
            for (m, n), old in new.items():
                if m != name and n in space and space[n] is old:  # imported from there
                    space[n] = vars(modules[m])[n]
                    names.add(n)
                    known.add((name, n))
            if not names and not any(space.get(m.split(".")[-1]) is modules[m] for m, _ in new):
                continue
            for node in trees[name].body:
                made = assigned(node)
                if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value and made:
                    if any((name, n) in known for n in made) or not reads(node.value, names, space, new, modules):
                        continue
                    more |= {(name, n): space[n] for n in made}
                    exec(compile(ast.Module([node], []), "", "exec"), space)
                    names |= made
                    known |= {(name, n) for n in made}
                elif isinstance(node, ast.FunctionDef):
                    function = space[node.name]
                    while hasattr(function, "__wrapped__"):
                        function = function.__wrapped__
                    defaults(function, node, names, space)
        new = more


def reads(
    value: ast.expr,
    names: Container[str],
    space: dict[str, Any],
    new: Container[tuple[str, str]],
    modules: dict[str, types.ModuleType],
) -> bool:
    """Whether an expression is made of one of these names, or of what is `new` in a module, as `module.NAME`."""
    for node in ast.walk(value):
        if isinstance(node, ast.Name) and node.id in names:
            return True
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = space.get(node.value.id)
            if isinstance(module, types.ModuleType) and (module.__name__, node.attr) in new:
                return True
    return False


def defaults(function: Any, node: ast.FunctionDef, names: set[str], space: dict[str, Any]) -> None:
    """Evaluate the defaults of a function again that are constants of these names."""

    def again(expression: ast.expr | None, old: Any) -> Any:
        return space[expression.id] if isinstance(expression, ast.Name) and expression.id in names else old

    if function.__defaults__:
        function.__defaults__ = tuple(map(again, node.args.defaults, function.__defaults__))
    if function.__kwdefaults__:
        given = {a.arg: d for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults)}
        function.__kwdefaults__ = {n: again(given.get(n), old) for n, old in function.__kwdefaults__.items()}


def forget(module: types.ModuleType) -> None:
    """Empty the caches that hold what the original computed."""
    for value in list(vars(module).values()):
        if hasattr(value, "cache_clear"):
            value.cache_clear()


def forget_models() -> None:
    """Models are read again."""
    stages_module._load.cache_clear()
    naively.read.cache_clear()


def forget_all() -> None:
    """Nothing is kept of what ran before."""
    forget_models()
    for name, _ in TARGETS.values():
        forget(naively.naive if name == "SPEC.md" else importlib.import_module(name))


# ---- running them


Lines = dict[str, frozenset[int]]
"""Numbers of lines, by target."""


@dataclass(frozen=True)
class Prepared:
    """A case with everything that is read from files, what it costs, and the lines that it executes in each file.

    `reading` is what it costs to read its model, which the lines, and not the seconds, have in them.
    """

    case: suites.Case
    model: Path | None
    data: bytes
    seconds: float
    lines: Lines
    reading: float = 0.0


class Runner:
    """The suite, what each case costs, and what it executes."""

    def __init__(
        self, suite: suites.Suite, fast: bool = False, budget: float = float("inf"), first: Sequence[str] = ()
    ) -> None:
        self.suite, self.fast, self.budget, self.first = suite, fast, budget, first
        self.stages: dict[bool, Any] = {False: Stages(), True: naively.Naive()}
        importlib.import_module("scipy.special")  # which is imported on first use, and slowly
        unbounded = functools.lru_cache(maxsize=None)
        if stages_module._load.cache_parameters()["maxsize"]:
            stages_module._load = unbounded(stages_module._load.__wrapped__)  # type: ignore[assignment]
        self.prepared: dict[str, list[Prepared]] = {}
        self.kills_of: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        manifest = (suite.folder / "manifest.json").read_bytes()
        self.digest = hashlib.sha256(manifest).hexdigest()[:16]
        sources = b"".join(Path(name).read_bytes() for name in sorted(map(str, files().values())))
        key = hashlib.sha256(sources).hexdigest()[:16]
        self.remembered = Path(tempfile.gettempdir()) / f"walloc-mutation-{key}-{fast}-{budget}.pickle"
        self.ran: dict[tuple[bool, str, str], tuple[float, Lines] | None] = {}
        self.on_reading: defaultdict[str, frozenset[int]] = defaultdict(frozenset)
        self.unread = True
        if self.remembered.exists():
            self.ran = pickle.loads(self.remembered.read_bytes())

    def cases(self, target: str) -> list[Prepared]:
        """Cases of a target, the cheapest first; what the original does too slowly is left out."""
        if target not in self.prepared:
            wanted, naive = TARGETS[target][1], target in NAIVELY
            found, before = [], len(self.ran)
            for case in self.suite.cases:
                name = case.stage_name
                if not any(name == w or (w.endswith("*") and name.startswith(w[:-1])) for w in wanted):
                    continue
                data, model = self.suite.read(case.input), self.suite.model_path(case.model)
                largest = 4_000 if naive or self.fast else 200_000
                if (case.model or "").startswith("bundled-") or len(data) > largest:
                    continue
                key = naive, case.id, self.content(case)
                if key not in self.ran:
                    self.ran[key] = self.run(case, model, data, naive)
                ran = self.ran[key]
                if ran is not None:
                    found.append(Prepared(case, model, data, *ran, self.reading(case.model, naive)))
            if len(self.ran) > before:
                self.remembered.write_bytes(pickle.dumps(self.ran))
            self.prepared[target] = sorted(found, key=lambda p: p.seconds)
            self.unread = True
        return self.prepared[target]

    def content(self, case: suites.Case) -> str:
        """What the manifest says of the files that a case reads."""
        names = [case.input] if case.model is None else [case.input, self.suite.manifest["models"][case.model]["file"]]
        return " ".join(self.suite.manifest["files"].get(name, {}).get("sha256", "")[:12] for name in names)

    def reading(self, name: str | None, naive: bool) -> float:
        """Seconds that it takes to read a model; the lines that it executes are added to those known."""
        path = self.suite.model_path(name)
        if name is None or path is None:
            return 0.0
        entry = self.suite.manifest["models"][name]["file"]
        key = naive, name, self.suite.manifest["files"].get(entry, {}).get("sha256", "")[:12]
        if key not in self.ran:
            forget_all()
            started = time.thread_time()
            self.read(path, naive)
            seconds = time.thread_time() - started
            forget_all()
            self.ran[key] = seconds, trace(lambda: self.read(path, naive))
        seconds, lines = self.ran[key] or (0.0, {})
        for target, numbers in lines.items():
            self.on_reading[target] |= numbers
        return seconds

    def read(self, path: Path, naive: bool) -> None:
        """Read a model, as a case does that names it; one that is damaged stays unread."""
        with contextlib.suppress(WallocError, naively.naive.Rejected):
            naively.read(path) if naive else self.stages[False].load(path)

    def ready(self) -> None:
        """Read all models afresh, for the mutants' processes to inherit."""
        if self.unread:
            forget_models()
            for target, cases in self.prepared.items():
                for path in {p.model for p in cases if p.model is not None}:
                    self.read(path, target in NAIVELY)
            gc.collect()
            gc.freeze()  # what is here is not walked, and its pages not copied, while a case's time runs
            self.unread = False

    def rereads(self, mutant: Mutant) -> bool:
        """Whether models may look otherwise to this mutant: it changes what runs on import, or while one is read."""
        if mutant.lines is None:
            return True
        first, last = mutant.lines
        return not self.on_reading[mutant.target].isdisjoint(range(first, last + 1))

    def run(self, case: suites.Case, model: Path | None, data: bytes, naive: bool) -> Any:
        """What a case costs and executes; None where it costs too much, or the naive codec does not have it."""
        prepared = Prepared(case, model, data, 0.0, {})
        verdict = None
        if model is not None:
            self.read(model, naive)
        started = time.thread_time()  # that of the process is behind by a tick while a timer like Quiet's runs
        named = any(part in case.id for part in self.first)
        with Quiet(min(float("inf") if named else self.budget / 10, SLOW_NAIVELY if naive else SLOW)):
            verdict = perform(self.stages[naive], prepared)
        seconds = time.thread_time() - started
        if verdict is None or verdict[0] == "unsupported":
            return None
        if wrong(self.suite, case, *verdict):
            if naive and case.op == "encode" and case.fault is not None:
                return None  # the naive encoder looks at no input
            raise AssertionError(f"{case.id}: the original itself is wrong")
        forget_all()
        seen = trace(lambda: perform(self.stages[naive], prepared))
        return seconds, seen

    def order(self, mutant: Mutant) -> list[Prepared]:
        """Cases that execute the mutant's statement, the most telling first, as many as the budget allows.

        Where a mutant reads models again, a case takes so much longer, and of the budget once for each model.
        """
        cases = self.cases(mutant.target)
        if mutant.lines is not None:
            file, wanted = mutant.target, range(mutant.lines[0], mutant.lines[1] + 1)
            cases = [p for p in cases if not p.lines.get(file, frozenset()).isdisjoint(wanted)]
            if not cases and mutant.target == "spec":  # no stage has it: the document's own examples
                lines = naively.examples(mutant.function)
                case = suites.Case("example", "decode", "example", None, "", None, "example")
                return [Prepared(replace(case, id=f"example {n}"), None, n.encode(), 0.1, {}) for n in lines]
        again, read = self.rereads(mutant), set()
        if again:
            cases = sorted((replace(p, seconds=p.seconds + p.reading) for p in cases), key=lambda p: p.seconds)
        killed = self.kills_of[mutant.target, mutant.function]
        telling = sorted(cases, key=lambda p: -killed[p.case.id] / (p.seconds + 0.002))[:8]
        telling = [p for p in telling if killed[p.case.id]]
        named = [p for p in cases if any(part in p.case.id for part in self.first)]
        telling = [*named, *(p for p in telling if p not in named)]
        first = {p.case.id for p in telling}
        chosen, spent = [], 0.0
        for prepared in [*telling, *mixed([p for p in cases if p.case.id not in first])]:
            spent += prepared.seconds - (prepared.reading if again and prepared.model in read else 0.0)
            if spent > self.budget and chosen:
                break
            read.add(prepared.model)
            chosen.append(prepared)
        return chosen

    def kills(self, mutant: Mutant, cases: Sequence[Prepared] | None = None) -> str | None:
        """What killed the mutant: the id of a case, or `ON_IMPORT` and why, or None where it survived."""
        cases = self.order(mutant) if cases is None else cases
        self.ready()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            self._child(mutant, cases, read, write)
        os.close(write)
        try:
            answer = receive(read, 100 * IMPORT)
            if answer is None or answer[0] != "done":
                return f"{ON_IMPORT} ({answer[1].decode() if answer else 'no answer'})"
            for prepared in cases:
                answer = receive(read, 100 * (prepared.seconds + 1))
                if answer is None or wrong(self.suite, prepared.case, *answer):
                    self.kills_of[mutant.target, mutant.function][prepared.case.id] += 1
                    return prepared.case.id + ("" if answer else " (no answer)")
            return None
        finally:
            os.close(read)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def _child(self, mutant: Mutant, cases: Sequence[Prepared], read: int, write: int) -> None:
        """Become the mutant, answer all cases, and end."""
        try:
            os.close(read)
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - warnings of wrong arithmetic, until the process ends
            pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
            if pages:
                most = pages * resource.getpagesize() + MEMORY
                resource.setrlimit(resource.RLIMIT_AS, (most, most))
            signal.setitimer(signal.ITIMER_PROF, IMPORT)  # whose signal ends this process
            try:
                install(mutant)
            except Exception as error:
                send(write, ("crash", type(error).__name__.encode()))
                return
            send(write, ("done", b""))
            if self.rereads(mutant):
                forget_models()
            stages = self.stages[mutant.target in NAIVELY]
            for prepared in cases:
                signal.setitimer(signal.ITIMER_PROF, PATIENCE * prepared.seconds + 0.25)
                send(write, perform(stages, prepared))
        except BaseException:
            pass
        finally:
            os._exit(0)


def mixed(cases: Sequence[Prepared]) -> Iterator[Prepared]:
    """Cases in another order: the stage, or its damaged inputs, that has had the least time gives its next one."""
    queues: defaultdict[tuple[str, bool], list[Prepared]] = defaultdict(list)
    for prepared in reversed(cases):
        queues[prepared.case.stage_name, prepared.case.rejects].append(prepared)
    spent = dict.fromkeys(queues, 0.0)
    while spent:
        kind = min(spent, key=lambda kind: spent[kind] + queues[kind][-1].seconds)
        prepared = queues[kind].pop()
        spent[kind] += prepared.seconds
        if not queues[kind]:
            del spent[kind]
        yield prepared


def files() -> dict[str, Path]:
    """The file of each target."""
    found = {}
    for target, (name, _) in TARGETS.items():
        found[target] = ROOT / name if name == "SPEC.md" else Path(importlib.import_module(name).__file__ or "")
    return found


def trace(work: Callable[[], object]) -> dict[str, frozenset[int]]:
    """Run something; the lines that it executed, by target. A function whose lines all ran is not followed any more."""
    names = {str(path): target for target, path in files().items()}
    seen: dict[str, set[int]] = {target: set() for target in TARGETS}
    missing: dict[types.CodeType, set[int]] = {}
    calls: Counter[types.CodeType] = Counter()

    def follow(frame: types.FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if code.co_filename not in names:
            return None
        if code not in missing:
            missing[code] = {line for *_, line in code.co_lines() if line not in (None, code.co_firstlineno)}
            seen[names[code.co_filename]].add(code.co_firstlineno)
        calls[code] += 1
        left, lines = missing[code], seen[names[code.co_filename]]
        if not left or calls[code] > FOLLOWED:
            return None

        def step(frame: types.FrameType, event: str, _: object) -> Any:
            if event == "line":
                lines.add(frame.f_lineno)
                left.discard(frame.f_lineno)
            return step

        return step

    sys.settrace(follow)
    try:
        work()
    finally:
        sys.settrace(None)
    return {target: frozenset(lines) for target, lines in seen.items() if lines}


class Quiet:
    """Ends a block after some seconds of this process; what it was doing counts for nothing."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        def ring(*_: object) -> None:
            raise TimeoutError

        self.before = signal.signal(signal.SIGVTALRM, ring)
        signal.setitimer(signal.ITIMER_VIRTUAL, self.seconds)

    def __exit__(self, kind: type | None, *_: object) -> bool:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, self.before)
        return kind is TimeoutError


def perform(stages: Any, prepared: Prepared) -> tuple[str, bytes]:
    """One case: "done" with the output, "rejected", "unsupported" or "crash"."""
    case = prepared.case
    try:
        return "done", stages.perform(case.op, case.stage, prepared.model, prepared.data, case.parameters)
    except (WallocError, naively.naive.Rejected):
        return "rejected", b""
    except stages_module.Unsupported:
        return "unsupported", b""
    except TimeoutError:
        raise
    except Exception:
        return "crash", b""


def wrong(suite: suites.Suite, case: suites.Case, what: str, output: bytes) -> bool:
    """Whether an answer is not what the case demands."""
    if case.rejects:
        return what != "rejected"
    if case.stage == "example":
        return output != b"True"
    if what != "done":
        return True
    try:
        compare.check(case, suite, output)
    except compare.Different:
        return True
    return False


def send(pipe: int, answer: tuple[str, bytes]) -> None:
    """Give an answer."""
    packed = pickle.dumps(answer)
    os.write(pipe, struct.pack("<Q", len(packed)))
    for at in range(0, len(packed), 1 << 16):
        os.write(pipe, packed[at : at + (1 << 16)])


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


def known_survivors(what: str = "kind") -> dict[str, str]:
    """Names of mutants that no vector tells from the original, and of which kind they are, or the `reason`."""
    groups: list[dict[str, Any]] = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    return {name: group[what] for group in groups for name in group["mutants"]}


def main() -> int:
    """The command line: exit code 1 where a mutant survives that no reason is known for."""
    parser = argparse.ArgumentParser(description="Mutants of the codec and of SPEC.md against the conformance suite.")
    parser.add_argument("--only", action="append", choices=[*TARGETS], help="a target; again for more")
    parser.add_argument("--sample", type=float, metavar="SECONDS", help="mutants drawn at random, for so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--floor", type=float, metavar="SHARE", help="fail only where less than this share is caught")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds of cases that a mutant is given")
    parser.add_argument("--results", type=Path, metavar="FILE", help="resume from this file, and append to it")
    parser.add_argument(
        "--first", action="append", default=[], metavar="TEXT", help="cases to begin with, by their ids"
    )
    parser.add_argument(
        "--survivors", action="store_true", help="only what survived before, and no reason is known for it"
    )
    parser.add_argument("--write", action="store_true", help="write the score into conformance/README.md")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    runner = Runner(suites.load(), bool(options.sample), options.budget, options.first)
    known = known_survivors()
    targets = options.only or [*TARGETS]
    drawn = [mutant for target in targets for mutant in mutants(target)]
    before = remembered(options.results, runner, known)
    if options.survivors:
        lived = survivors_in(options.results) - known.keys()
        drawn = [mutant for mutant in drawn if mutant.name in lived]
    if options.sample:
        random.Random(options.seed).shuffle(drawn)
        for target in targets:  # before the clock starts
            runner.cases(target)
    until = time.monotonic() + options.sample if options.sample else float("inf")
    results: dict[str, tuple[Mutant, str | None]] = {}
    for mutant in drawn:
        if time.monotonic() > until:
            break
        fresh = mutant.name not in before
        killer = runner.kills(mutant) if fresh else before[mutant.name]
        results[mutant.name] = mutant, killer
        if fresh and options.results:
            line = {"name": mutant.name, "killer": killer, "suite": runner.digest, "budget": str(options.budget)}
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if killer is None:
            word = known.get(mutant.name, "SURVIVED")
            print(f"{word}: {TARGETS[mutant.target][0]}, line {mutant.line}, {mutant.name}", flush=True)
    survivors = [name for name, (_, killer) in results.items() if killer is None]
    gaps = [name for name in survivors if name not in known]
    print(table(results, known))
    stale = [n for n in known if n in results and results[n][1] is not None]
    for name in stale:
        print(f"not {known[name]}, it is killed by {results[name][1]}: {name}")
    if options.write:
        how = f"a sample drawn with seed {options.seed}" if options.sample else "all mutants"
        left = [target for target in TARGETS if target not in targets]
        missing = f" No complete run yet of: {', '.join(left)}." if left else ""
        share = 1 - len(gaps) / max(1, len(results) - len(survivors) + len(gaps))
        score = f"{100 * share:.2f} % of those killed that are neither equivalent nor unobservable.{missing}"
        write(f"{how}: {score}\n\n{table(results, known)}")
    if options.floor is not None:
        return 1 if len(gaps) > (1 - options.floor) * len(results) or not results else 0
    return 1 if gaps or stale else 0


def survivors_in(path: Path) -> set[str]:
    """What a file of results says survived last."""
    last = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        last[entry["name"]] = entry["killer"]
    return {name for name, killer in last.items() if killer is None}


def remembered(path: Path | None, runner: Runner, known: Container[str] = ()) -> dict[str, str | None]:
    """Results of earlier runs: what a case of the suite killed, and what survived this suite with no smaller budget.

    What survived any suite and is `known`, with its reason, is not tried again either.
    """
    if path is None or not path.exists():
        return {}
    ids, found = {"example", ON_IMPORT, *(case.id for case in runner.suite.cases)}, {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        killer = entry["killer"]
        still = entry["suite"] == runner.digest and float(entry["budget"]) >= runner.budget
        still = still or entry["name"] in known
        if still if killer is None else killer.split(" ")[0] in ids:
            found[entry["name"]] = killer
        else:
            found.pop(entry["name"], None)
    return found


def fate(killer: str | None) -> str | None:
    """How a mutant died, in the words of the table."""
    return killer and ("on import" if killer.split(" ")[0] == ON_IMPORT else "killed")


def table(results: dict[str, tuple[Mutant, str | None]], known: dict[str, str]) -> str:
    """Mutants by target; of those that are `known` by their kinds."""
    words = ("killed", "on import", *KINDS, "survived")
    lines = [f"| functions of | mutants | {' | '.join(words)} |", "| --- " * (len(words) + 2) + "|"]
    total: Counter[str] = Counter()

    def row(name: str, count: Counter[str]) -> str:
        return f"| {name} | {count.total()} | {' | '.join(str(count[word]) for word in words)} |"

    for target in dict.fromkeys(mutant.target for mutant, _ in results.values()):
        of = {name: killer for name, (mutant, killer) in results.items() if mutant.target == target}
        count = Counter(fate(killer) or known.get(name, "survived") for name, killer in of.items())
        total += count
        lines.append(row(f"`{TARGETS[target][0].removeprefix('walloc_ref.')}`", count))
    return "\n".join([*lines, row("all", total)])


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
