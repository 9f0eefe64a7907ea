"""What the vectors make happen: for each clause of SPEC.md the cases that exercise it, and the events in it that occurred.

    python conformance/coverage/cover.py             run all cases and print the table
    python conformance/coverage/cover.py --write     write it into conformance/COVERAGE.md

The plain codec is compiled again with counters. An *event* is one of

- both outcomes of each condition, and of each part of a condition;
- each side of each clamp, minimum and maximum: below, within, above; which of several values it was;
- each entry of each table that is read: squash, stretch, strengths, thresholds and latents of the quantiser;
- each decision node in each mixing set, each class of scale, activity, side and fraction, each count of a probability;
- lengths at which the transform wraps, numbers of levels, bits, formats of each kind, lengths of varints.

`CLAUSES` says which functions are which clause. A clause whose events all occurred is covered; one that lacks an event
must say in `absent.json` why that event cannot occur.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
sys.path[:0] = [str(ROOT)]

from walloc_ref.conform import stages as stages_module  # noqa: E402
from walloc_ref.conform import suite as suites  # noqa: E402
from walloc_ref.errors import WallocError  # noqa: E402

TABLE = FOLDER.parent / "COVERAGE.md"
ABSENT = FOLDER / "absent.json"
"""Events that cannot occur, and why."""

LARGEST = 70_000
"""Inputs of more bytes are left out: they are there for their size alone. Slices within streams, all of whose kinds stand
alone as well, go through the kernels, where nothing is counted."""

MODULES = {
    "signal": "walloc_ref.stages.signal", "wavelet": "walloc_ref.stages.wavelet", "entropy": "walloc_ref.stages.entropy",
    "projection": "walloc_ref.stages.projection", "quantise": "walloc_ref.stages.quantise",
    "container": "walloc_ref.stages.container", "oobleck": "walloc_ref.stages.oobleck",
    "autoencoder_kl": "walloc_ref.stages.autoencoder_kl", "model": "walloc_ref.model", "image": "walloc_ref.image",
    "architecture": "walloc_ref.architecture", "audio": "walloc_ref.audio", "codec": "walloc_ref.codec",
}  # fmt: skip
"""Modules that are counted in."""

CLAUSES: dict[str, str] = {
    "1.4": "quantise.round_to_symbols signal.scaled_to_audio",
    "1.6": "container._Reader.varint container._varint varint",
    "3.1": "format",
    "3.2": "signal.image_to_signal",
    "3.3": "signal.to_channels signal.from_channels",
    "3.4": "signal.reflected_indices signal.pad",
    "3.5": "container.latent_sizes",
    "3.6": "signal.crop",
    "3.7": "signal.clamp",
    "3.8": "signal.signal_to_image",
    "3.9": "signal.signal_to_image",
    "3.10": "signal.float_statistics signal.image_to_signal signal.scale_to_image",
    "4.1": "wavelet._split",
    "4.2": "wavelet._split split",
    "4.3": "wavelet._merge merge",
    "4.4": "split merge",
    "4.5": "levels",
    "4.6": "levels",
    "4.7": "levels",
    "5.1": "projection.project",
    "5.2": "projection.project",
    "5.3": "projection._residual_to_latents projection._residual_to_bands",
    "6.1": "quantise.last_symbol bits",
    "6.2": "quantise.quantise quantise.compand symbol",
    "6.3": "quantise.quantise symbol",
    "6.4": "quantise.dequantise latent",
    "6.5": "latent",
    "6.6": "quantise.quantise",
    "6.7": "quantise.plane_steps",
    "6.8": "quantise.plane_steps model.Model.weights_of_steps model.Model.plane_steps",
    "7.1": "entropy.check_payload entropy.checked_symbols entropy.walk_slice",
    "7.2": "entropy.Tables.from_bytes tap",
    "7.3": "entropy.Tables.from_bytes entropy._Reader.take",
    "7.5": "entropy.level entropy.clamp squash stretch adaptation",
    "7.6": "entropy.Neighbours.get entropy.Neighbours.put entropy.Neighbours.__init__",
    "7.7": "entropy.predict",
    "7.8": "entropy.contexts class activity side",
    "7.9": "entropy.Mixer.code node strength adaptation",
    "7.10": "entropy.code_residual entropy.mantissa_node",
    "7.11": "entropy.walk fraction",
    "7.12": "entropy.Encoder.code entropy.Encoder.shift entropy.Decoder.code",
    "7.13": "entropy.Decoder.__init__ entropy.Decoder.next_byte entropy.Decoder.finish",
    "7.14": "squash",
    "7.15": "entropy.walk_slice",
    "7.16": "entropy.default_tables",
    "8.1": "model._parse_json model._check_table model._read_safetensors",
    "8.2": "model.load model._from_base64 model._read_spread",
    "8.3": (
        "model.architecture_of model.Config.__post_init__ model.Config._check_field model.Config.from_fields "
        "autoencoder_kl._check oobleck._check"
    ),
    "8.4": "model.Config._check_field architecture",
    "8.5": "model.check_tensors",
    "8.6": "model.Model.model_id model.Model.weights_of_steps",
    "8.7": "model.Model.__post_init__",
    "8.8": "codec.check_header",
    "9.2": "autoencoder_kl.conv3x3",
    "9.3": "autoencoder_kl.group_norm",
    "9.4": "silu",
    "9.5": "autoencoder_kl.residual",
    "9.6": "autoencoder_kl.attention",
    "9.7": "autoencoder_kl.middle",
    "9.8": "autoencoder_kl.decode autoencoder_kl._to_bands",
    "9.9": "autoencoder_kl.encode autoencoder_kl._to_latents",
    "9.10": "autoencoder_kl.attention",
    "9.11": "autoencoder_kl.window_edges autoencoder_kl.windows",
    "10.1": "container.read_head",
    "10.2": "container._Reader.check_crc container._Reader.take",
    "10.3": "container.read_head",
    "10.4": "container.read_head",
    "10.5": "container._read_header container._write_header format container.has_gain",
    "10.6": "container._read_header container._Reader.bounded container._named",
    "10.7": "codec.check_header model.Config.check_channels",
    "10.8": "container.read",
    "10.9": "codec.check_symbols",
    "10.10": "container._read_certificate",
    "10.11": "codec.check_certificate",
    "10.12": "container.read_head",
    "10.15": "container.read_head",
    "11.1": "format signal.audio_statistics audio.describe",
    "11.2": "signal.audio_statistics",
    "11.3": "signal.audio_to_signal",
    "11.4": "signal.pad_end",
    "11.5": "projection.add_border oobleck._to_latents",
    "11.6": "oobleck.conv",
    "11.7": "oobleck._fold",
    "11.8": "oobleck.snake",
    "11.9": "oobleck.residual_unit",
    "11.10": "oobleck.decode oobleck.conv_transpose",
    "11.11": "oobleck.encode oobleck._to_latents",
    "11.12": "oobleck.post_filter audio.symbols_to_signal",
    "11.13": "audio.symbols_to_signal signal.to_channels",
    "11.14": "signal.scaled_to_audio signal.scale_to_audio",
    "11.16": "oobleck._shapes",
    "11.17": "signal.audio_to_signal",
    "12.1": "codec.check_header",
    "12.2": "container._Reader.take container.read",
    "12.3": "image.describe_kind audio.describe",
    "12.4": "container._read_header",
    "12.5": "entropy.check_payload",
    "12.6": "codec.check_budget",
    "16.1": "image.describe_kind",
    "16.2": "split merge levels",
    "16.3": "container.Header.slice_shape",
    "16.4": "projection.project architecture",
    "16.5": "entropy.walk_slice",
    "16.6": "entropy.Neighbours.__init__ model.Model.__post_init__ tap",
    "16.7": "container.Header.slice_shape",
    "16.8": "container._read_certificate codec.check_symbols",
    "16.9": "codec.check_budget",
}
"""Functions whose events are those of a clause, and groups of values, which have no dot."""

WORDS = {
    "1.1": "words",
    "1.2": "words",
    "1.3": "words",
    "1.5": "words",
    "1.7": "words; its blocks run in tests/test_spec.py",
    "1.8": "words",
    "9.1": "notation",
    "2.1": "what real arithmetic is",
    "2.2": "what is compared",
    "2.3": "margins, recorded with each case",
    "2.4": "every comparison of the suite",
    "2.5": "follows from section 7",
    "2.6": "tests/test_fast.py",
    "2.7": "measurements",
    "2.8": "measurements",
    "4.8": "a property, tests/test_spec.py",
    "4.9": "a derivation, tests/test_spec.py",
    "4.10": "another way to compute 4.2, tests/test_spec.py",
    "7.4": "notation",
    "7.17": "an example, tests/test_spec.py",
    "8.9": "an example, tests/test_spec.py",
    "10.13": "a permission",
    "10.14": "an example, tests/test_spec.py",
    "11.15": "follows from 11.6 to 11.12, tests/test_oobleck.py",
    "12.7": "advice",
    "14.1": "levels",
    "14.2": "follows from section 7",
    "14.3": "levels",
    "14.4": "levels",
    "16.10": "a difference from the upstream",
} | {f"13.{n}": "a difference from the upstream" for n in range(1, 10)}
"""Clauses in which nothing can happen, and what they are."""

happened: set[str] = set()
"""Events of the case that runs."""

possible: dict[str, list[str]] = defaultdict(list)
"""All events by function or group."""


def event(group: str, name: object) -> None:
    """Record an event."""
    happened.add(f"{group}: {name}")


# ---- counters


def branch(label: str, value: Any) -> Any:
    """A condition, whose outcome is recorded."""
    happened.add(f"{label} is {bool(value)}")
    return value


def chosen(label: str, function: Callable[..., Any], *values: Any, **more: Any) -> Any:
    """A minimum or maximum; which of its arguments it was is recorded."""
    result = function(*values, **more)
    if len(values) > 1:
        for i, value in enumerate(values):
            if np.isscalar(value) and value == result:
                happened.add(f"{label} gives number {i + 1}")
                break
    return result


def clamped(label: str, function: Callable[..., Any], v: Any, low: Any, high: Any) -> Any:
    """A clamp; which of its sides occurred is recorded."""
    array, low_, high_ = np.asarray(v), -np.inf if low is None else low, np.inf if high is None else high
    for side, there in (
        ("below", array < low_),
        ("above", array > high_),
        ("within", (array >= low_) & (array <= high_)),
    ):
        if there.any():
            happened.add(f"{label} {side}")
    return function(v, low, high)


class Counters(ast.NodeTransformer):
    """Puts a counter around each condition and each clamp of a function."""

    def __init__(self, name: str) -> None:
        self.name, self.seen = name, defaultdict(int)

    def label(self, node: ast.AST) -> str:
        """What a place is called in events."""
        text = ast.unparse(node)
        text = text if len(text) < 90 else text[:86] + " …"
        self.seen[text] += 1
        return f"{self.name}: {text}" + (f" ({self.seen[text]})" if self.seen[text] > 1 else "")

    def wrap(self, node: ast.expr) -> ast.expr:
        """A counter around a condition."""
        label = self.label(node)
        inner = self.visit(node)
        if isinstance(node, (ast.BoolOp, ast.Constant)) or (
            isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.BoolOp)
        ):
            return inner  # its parts are counted
        possible[self.name] += [f"{label} is True", f"{label} is False"]
        return self.call("__branch__", label, inner)

    def call(self, name: str, label: str, *arguments: ast.expr) -> ast.Call:
        """The call of a counter."""
        return ast.Call(ast.Name(name, ast.Load()), [ast.Constant(label), *arguments], [])

    def visit_If(self, node: ast.If) -> ast.AST:
        """As the visitor of that node."""
        node.test = self.wrap(node.test)
        node.body = [self.visit(n) for n in node.body]
        node.orelse = [self.visit(n) for n in node.orelse]
        return node

    def visit_While(self, node: ast.While) -> ast.AST:
        """As the visitor of that node."""
        return self.visit_If(node)  # type: ignore[arg-type]

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        """As the visitor of that node."""
        node.test, node.body, node.orelse = self.wrap(node.test), self.visit(node.body), self.visit(node.orelse)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        """As the visitor of that node."""
        node.values = [self.wrap(value) for value in node.values]
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """As the visitor of that node."""
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """As the visitor of that node."""
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """As the visitor of that node."""
        name, label = ast.unparse(node.func), ""
        if name in ("min", "max", "clamp", "np.clip") and len(node.args) > 1:
            label = self.label(node)
        node = self.generic_visit(node)  # type: ignore[assignment]
        if not label or any(isinstance(argument, ast.Starred) for argument in node.args):
            return node
        if name in ("clamp", "np.clip"):
            possible[self.name] += [f"{label} {side}" for side in ("below", "within", "above")]
            return self.call("__clamped__", label, node.func, *node.args)
        possible[self.name] += [f"{label} gives number {i + 1}" for i in range(len(node.args))]
        made = self.call("__chosen__", label, node.func, *node.args)
        made.keywords = node.keywords
        return made


def install() -> None:
    """Compile the functions of all modules again, with counters, and count values."""
    wanted = {name for names in CLAUSES.values() for name in names.split() if "." in name}
    for short, long in MODULES.items():
        module = importlib.import_module(long)
        vars(module).update(__branch__=branch, __chosen__=chosen, __clamped__=clamped)
        for owner, function in functions(ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))):
            name = f"{short}.{owner}.{function.name}" if owner else f"{short}.{function.name}"
            if name in wanted:
                made = Counters(name).visit(function)
                made.body.insert(0, ast.parse(f"__branch__({name!r}, True)").body[0])
                possible[name].append(f"{name} is True")
                replace(module, owner, made)
        for value in list(vars(module).values()):
            if hasattr(value, "cache_clear"):
                value.cache_clear()
    values()
    missing = {name for name in wanted if name not in possible}
    if missing:
        raise AssertionError(f"no such functions: {missing}")


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods of a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield "", node
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    yield node.name, part


def original(holder: Any, name: str) -> Any:
    """The function below whatever decorates it."""
    found = vars(holder)[name]
    for attribute in ("__func__", "fget", "func", "__wrapped__"):
        found = getattr(found, attribute, None) or found
    return found


def replace(module: Any, owner: str, function: ast.FunctionDef) -> None:
    """Give a function of a module other code."""
    function.decorator_list = []
    future = ast.parse("from __future__ import annotations").body
    code = ast.fix_missing_locations(ast.Module([*future, function], []))
    space: dict[str, Any] = {}
    exec(compile(code, module.__file__, "exec"), dict(vars(module)), space)
    original(vars(module)[owner] if owner else module, function.name).__code__ = space[function.name].__code__


# ---- values


def group(name: str, members: list[Any]) -> None:
    """Events that may occur in a group of values."""
    possible[name] += [f"{name}: {member}" for member in members]


def watch(holder: Any, name: str, seen: Callable[..., None]) -> None:
    """Call `seen` with the arguments and the result of each call of a function, whoever holds a reference to it."""
    function = original(holder, name)
    copy = type(function)(function.__code__, function.__globals__, name, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    key = f"__watched_{name}_{len(function.__globals__)}__"

    def watched(*arguments: Any, **more: Any) -> Any:
        result = copy(*arguments, **more)
        seen(result, *arguments, **more)
        return result

    function.__globals__[key] = watched
    space: dict[str, Any] = {}
    exec(f"def {name}(*arguments, **more): return {key}(*arguments, **more)", function.__globals__, space)
    function.__code__, function.__defaults__, function.__kwdefaults__ = space[name].__code__, None, None


class Watched(list):
    """A table that says which of its entries are read."""

    def __init__(self, name: str, first: int, entries: list[int]) -> None:
        super().__init__(entries)
        self.name, self.first, self.read = name, first, set()

    def __getitem__(self, index: Any) -> Any:
        if index not in self.read:
            self.read.add(index)
            happened.add(f"{self.name}: {index + self.first}")
        return super().__getitem__(index)


def values() -> None:
    """Count what is read from tables, and classes, lengths and forms."""
    from walloc_ref import architecture, model
    from walloc_ref.stages import autoencoder_kl, container, entropy, quantise, wavelet

    group("squash", list(range(-entropy.STRETCH_MAX, entropy.STRETCH_MAX + 1)))
    group("stretch", list(range(4096)))
    group("strength", list(range(16)))

    def tables(_: None, mixer: Any, given: entropy.Tables) -> None:
        mixer.squash = Watched("squash", -entropy.STRETCH_MAX, mixer.squash)
        mixer.stretch = Watched("stretch", 0, mixer.stretch)
        for s in set((given.states & 15).tolist()):
            event("strength", s)

    watch(entropy.Mixer, "__init__", tables)
    group("adaptation", list(range(256)))
    watch(entropy, "adaptation_rate", lambda _, n: event("adaptation", n))
    group("class", list(range(44)))
    watch(entropy, "scale_class", lambda found, _: event("class", found))
    group("activity", list(range(12)))
    watch(entropy, "activity_class", lambda found, _: event("activity", found))
    group("node", [f"{mixer}, {node}, {bit}" for mixer in range(8) for node in range(16) for bit in (0, 1)])
    watch(entropy.Mixer, "code", lambda bit, _, coder, mixer, at, node, given: event("node", f"{mixer}, {node}, {bit}"))
    group("side", list(range(9)))
    group("fraction", [f"{sign}{n}" for n in range(1, 8) for sign in "+-"] + ["0", "-8"])

    def context(
        found: list[int], c: int, depth: int, mean: int, scale: int, flip: int, fraction: int, near: Any
    ) -> None:
        event("side", (found[4] - sum(entropy.context_counts(depth)[:3])) // entropy.LEVELS)
        event("fraction", fraction if fraction == 0 else f"{'-' if flip < 0 else '+'}{fraction}")

    watch(entropy, "contexts", context)
    group("tap", [f"kind {k}, {p}" for k in (0, 1) for p in ("own plane", "plane before", "depth position before")])

    def taps(found: entropy.Tables, *_: Any) -> None:
        for c, kind, source, _, _ in found.taps.tolist():
            place = "own plane" if source == c else "plane before" if source < c else "depth position before"
            event("tap", f"kind {kind}, {place}")

    watch(entropy.Tables, "from_bytes", taps)
    every = [f"{bits} bits, {k}" for bits in range(2, 9) for k in range(1 - 2 ** (bits - 1), 2 ** (bits - 1))]
    group("symbol", every)
    group("latent", every)
    group("bits", list(range(2, 9)))

    def each(name: str, symbols: np.ndarray, bits: int) -> None:
        event("bits", bits)
        for k in np.unique(symbols).tolist():
            event(name, f"{bits} bits, {k}")

    watch(quantise, "quantise", lambda found, latents, bits: each("symbol", found, bits))
    watch(quantise, "dequantise", lambda found, symbols, bits: each("latent", symbols, bits))
    lengths = [
        f"{n} along axis {axis} of {axes}" for axes in (1, 2, 3) for axis in range(axes) for n in (2, 4, 6, 8, "more")
    ]
    group("split", lengths)
    group("merge", lengths)

    def length(name: str, x: np.ndarray, axis: int, times: int) -> None:
        n = x.shape[axis] * times
        event(name, f"{n if n <= 8 else 'more'} along axis {axis - 1} of {x.ndim - 1}")

    watch(wavelet, "_split", lambda _, x, axis: length("split", x, axis, 1))
    watch(wavelet, "_merge", lambda _, low, high, axis: length("merge", low, axis, 2))
    group(
        "levels",
        [
            f"{j} of {axes} axes"
            for axes, most in ((1, 10), (2, 6), (3, 3))
            for j in range(1 if axes == 3 else axes == 1, most + 1)
            if (axes, j) not in ((1, 2), (1, 4), (1, 5), (1, 6), (1, 7), (2, 5), (3, 3))
        ],
    )
    watch(wavelet, "analyse", lambda _, x, levels: event("levels", f"{levels} of {x.ndim - 1} axes"))
    group("format", [f"{form} of {kind}" for kind, forms in container.FORMATS_OF_KIND.items() for form in forms])
    watch(container, "_read_header", lambda found, *_: event("format", f"{found.sample_format} of {found.kind}"))
    group("varint", [f"{n} bytes" for n in (1, 2, 3, 4, 6)])
    watch(container, "_varint", lambda found, value: event("varint", f"{len(found)} bytes"))
    group(
        "architecture", [*model.ARCHITECTURES, "Codec2D, full", "Codec1D, full", "an Ne that does not count", "no Ne"]
    )

    def configured(_: None, config: model.Config) -> None:
        full = not config.lightweight_encode
        event("architecture", config.architecture + (", full" if full else ""))
        if not full and "Ne" in config.record.fields:
            event("architecture", "no Ne" if config.Ne is None else "an Ne that does not count")

    watch(model.Config, "__post_init__", configured)
    group("silu", ["below -709", "between", "above 709"])

    def activation(_: Any, x: np.ndarray) -> None:
        for name, there in (("below -709", x < -709), ("between", abs(x) < 709), ("above 709", x > 709)):
            if there.any():
                event("silu", name)

    watch(autoencoder_kl, "silu", activation)
    assert architecture


# ---- the table


def run(suite: suites.Suite, cases: tuple[suites.Case, ...]) -> dict[str, set[str]]:
    """The events of each case."""
    if not possible:
        install()
    from walloc_ref.fast import entropy as kernel
    from walloc_ref.plain import PLAIN

    plain = stages_module.Stages()
    quick = stages_module.Stages(dataclasses.replace(PLAIN, encode_slice=kernel.encode, decode_slice=kernel.decode))
    found = {}
    for case in cases:
        data = suite.read(case.input)
        if len(data) > LARGEST or (case.model or "").startswith("bundled-"):
            continue
        happened.clear()
        stages_module._load.cache_clear()
        try:
            stages = plain if case.stage == "slice" else quick
            stages.perform(case.op, case.stage, suite.model_path(case.model), data, case.parameters)
        except WallocError:
            pass
        found[case.id] = set(happened)
    return found


def cannot() -> dict[str, str]:
    """Events that cannot occur, and why."""
    groups: list[dict[str, Any]] = json.loads(ABSENT.read_text(encoding="utf-8"))
    return {name: group["reason"] for group in groups for name in group["events"]}


def clauses() -> list[str]:
    """All clauses of SPEC.md, in order."""
    return re.findall(r"^\*\*(\d+\.\d+)\*\* ", (ROOT / "SPEC.md").read_text(encoding="utf-8"), re.MULTILINE)


def rows(suite: suites.Suite, found: dict[str, set[str]]) -> list[tuple[str, list[str], list[str], list[str]]]:
    """Of each clause: its cases, the events that occurred, and those that did not."""
    occurred = set().union(*found.values())
    made = []
    for clause in clauses():
        groups = CLAUSES.get(clause, "").split()
        events = [e for name in groups for e in possible[name]]
        wanted = set(events)
        cases = [c.id for c in suite.cases if clause in c.clauses or not wanted.isdisjoint(found.get(c.id, ()))]
        made.append((clause, cases, [e for e in events if e in occurred], [e for e in events if e not in occurred]))
    return made


def table(suite: suites.Suite, found: dict[str, set[str]]) -> str:
    """The table, in Markdown."""
    absent = cannot()
    lines = [
        "# What the vectors exercise",
        "",
        "Written by `coverage/cover.py --write` from runs of the plain codec with counters; what an event is stands "
        "there. A case",
        "exercises a clause where it says so in the manifest or where one of the clause's events occurs in it.",
        "",
        "| clause | cases | for instance | events | which cannot occur |",
        "| --- | --- | --- | --- | --- |",
    ]
    for clause, cases, seen, unseen in rows(suite, found):
        if clause in WORDS:
            lines.append(f"| {clause} | | | {WORDS[clause]} | |")
            continue
        example = next((c.id for c in suite.cases if clause in c.clauses), cases[0] if cases else "NONE")
        known, unknown = [e for e in unseen if e in absent], [e for e in unseen if e not in absent]
        why = f"{len(known)}" if known else ""
        if unknown:
            why += " MISSING: " + "; ".join(unknown).replace("|", "\\|")
        total = len(seen) + len(unseen)
        lines.append(f"| {clause} | {len(cases)} | {example} | {len(seen)} of {total} | {why} |")
    lines += ["", "## Events that cannot occur", "", "| event | why |", "| --- | --- |"]
    every = {e for events in possible.values() for e in events}
    lines += [f"| `{name}` | {why} |".replace("||", "\\|\\|") for name, why in absent.items() if name in every]
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command line: exit code 1 where an event is missing without a reason, or has one and occurs."""
    parser = argparse.ArgumentParser(description="Which events of each clause the vectors make happen.")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    options = parser.parse_args()
    suite = suites.load()
    found = run(suite, suite.cases)
    text = table(suite, found)
    if options.write:
        TABLE.write_text(text, encoding="utf-8")
    else:
        print(text)
    absent = cannot()
    occurred = set().union(*found.values())
    bad = [f"it does occur: {name}" for name in absent if name in occurred]
    bad += [
        f"clause {clause}: {name}"
        for clause, _, _, unseen in rows(suite, found)
        for name in unseen
        if name not in absent
    ]
    bad += [
        f"clause {clause} has no case" for clause, cases, *_ in rows(suite, found) if not cases and clause not in WORDS
    ]
    print("\n".join(bad), file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
