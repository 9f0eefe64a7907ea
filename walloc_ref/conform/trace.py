"""What the plain codec does in a case, step by step, as lines of text; and the first step at which two such texts part.

Of the entropy coder every symbol and every decision is written down, of the other stages every array that a function gives.
The plain codec knows nothing of this: while a case is traced, functions that it calls by their names are replaced by the
same functions that also take a note. So a trace shows what ran, and of a wrong implementation what went wrong. One trace at
a time in a process.

A line is a word and fields, `word key=value key=value`, without blanks in a value. Lines of the coder, in their order:

    slice     shape
    symbol    depth plane row column | taps linear mean scale | flip fraction set contexts room
    decision  node probabilities weights | p bit low span, of a decoder value; before the decision, `low` … in hexadecimal
    coded     symbol deviation
    end       of an encoder bytes payload

`node` is -1 for bits of probability ½, which have no contexts; then there are neither probabilities nor weights. Others are

    case      id clauses
    field     name value, of a header
    array     name dtype shape min max mean sha256, of its bytes
    rejected  and why
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from walloc_ref.conform import compare
from walloc_ref.conform.stages import Stages
from walloc_ref.conform.suite import Case, Suite
from walloc_ref.errors import UnreadableFile, WallocError, printable
from walloc_ref.plain import PLAIN, Functions, chosen
from walloc_ref.stages import autoencoder_kl, entropy, oobleck

Keep = Callable[[str, object], None]
"""Takes an array's name and the array, or what becomes one."""

CODER = (("decode", "slice"), ("decode", "symbols"), ("encode", "slice"))
"""Stages that consist of the entropy coder."""

NO_NODE = -1
"""Instead of a node, where a bit has probability ½ and no contexts."""

SAME = 1e-9
"""Floating-point numbers of arrays that are this close, of the largest or of 1, differ by rounding."""

MAX_ARRAY_BYTES = 1 << 31
"""Largest array of an .npz file that is compared."""

COORDINATES = ("depth", "plane", "row", "column")
"""Fields that say where a symbol stands."""

FIELDS = {
    "slice": {"shape": "7.1"},
    "symbol": {
        "depth": "16.5",
        "plane": "7.11",
        "row": "7.11",
        "column": "7.11",
        "taps": "7.6",
        "linear": "7.7",
        "mean": "7.7",
        "scale": "7.7",
        "flip": "7.11",
        "fraction": "7.11",
        "set": "7.8",
        "contexts": "7.8",
        "room": "7.11",
    },
    "decision": {
        "node": "7.10",
        "probabilities": "7.9",
        "weights": "7.9",
        "p": "7.9",
        "bit": "7.10",
        "low": "7.12",
        "span": "7.12",
        "value": "7.12",
    },
    "coded": {"symbol": "7.11", "deviation": "7.6"},
    "end": {"bytes": "7.12", "payload": "7.12"},
    "field": {"name": "10.5", "value": "10.5"},
}
"""Clauses of SPEC.md that define the fields, by the word of their line."""

ARRAYS = {
    "image_to_signal": "3.2",
    "signal_to_image": "3.8",
    "audio_statistics": "11.2",
    "audio_to_signal": "11.3",
    "signal_to_audio": "11.14",
    "pad": "3.4",
    "crop": "3.6",
    "clamp": "3.7",
    "analyse": "4.5",
    "synthesise": "4.7",
    "project": "5.1",
    "image_encoder": "9.9",
    "image_decoder": "9.8",
    "audio_encoder": "11.11",
    "audio_decoder": "11.10",
    "post_filter": "11.12",
    "quantise": "6.2",
    "dequantise": "6.4",
    "encode_slice": "7.15",
    "decode_slice": "7.15",
}
"""Functions of the table whose results are kept, with their clauses."""

LAYERS: Mapping[ModuleType, Mapping[str, str]] = {
    autoencoder_kl: {"conv3x3": "9.2", "group_norm": "9.3", "silu": "9.4", "residual": "9.5", "attention": "9.6"},
    oobleck: {"conv": "11.6", "conv_transpose": "11.6", "snake": "11.8", "residual_unit": "11.9"},
}
"""Functions within networks whose results are kept, with their clauses."""

CLAUSES = {**ARRAYS, **{name: clause for layers in LAYERS.values() for name, clause in layers.items()}}
"""Clauses that define the arrays, by their names."""


# ---- writing ----------------------------------------------------------------------------------------------------------


def trace(
    suite: Suite,
    case: Case,
    write: Callable[[str], None],
    implementation: Stages | None = None,
    arrays: dict[str, NDArray] | None = None,
) -> None:
    """Run a case and write down what happens.

    Parameters
    ----------
    suite : Suite
    case : Case
    write : callable
        Called with each line.
    implementation : Stages, optional
        A wrong one; without it the plain codec, which outside of the coder's stages codes slices as the fast one does.
    arrays : dict, optional
        Gets the arrays themselves, in their order; of the coder's stages there are none.
    """
    write(line("case", id=case.id, clauses=case.clauses))
    coder = (case.op, case.stage) in CODER
    data, model = suite.read(case.input), suite.model_path(case.model)

    def keep(name: str, value: object) -> None:
        array = as_array(value)
        write(described(name, array))
        if arrays is not None:
            arrays[f"{len(arrays):04}-{name}"] = array

    if implementation is None:
        fast = chosen()
        own = PLAIN if coder else replace(PLAIN, encode_slice=fast.encode_slice, decode_slice=fast.decode_slice)
        implementation = Stages(own)
    observed = copy.copy(implementation)
    patches: list[contextlib.AbstractContextManager[object]] = [watched(write)]
    if not coder:
        observed.functions = _table(implementation.functions, keep)
        patches = [mock.patch.multiple(module, **_kept(vars(module), names, keep)) for module, names in LAYERS.items()]
        if case.input.endswith(".npy") and not case.rejects:
            keep("input", compare.read_array(data))
    with contextlib.ExitStack() as watching:
        for patch in patches:
            watching.enter_context(patch)
        try:
            output = observed.perform(case.op, case.stage, model, data, case.parameters)
        except WallocError as error:
            write(f"rejected {printable(str(error))}")
            return
    if coder:
        return
    if case.stage == "header":
        for name, value in json.loads(output).items():
            write(line("field", name=name, value=json.dumps(value, separators=(",", ":"))))
    else:
        keep("output", output if case.stage_name == "encode stream" else compare.read_array(output))


def watched(write: Callable[[str], None]) -> contextlib.AbstractContextManager[object]:
    """While this lasts, all that `stages.entropy` codes is written down."""
    return mock.patch.multiple(entropy, **watchers(write))


def has_arrays(case: Case) -> bool:
    """Whether a case's trace is one of arrays, rather than one of decisions, or of a header's fields."""
    return (case.op, case.stage) not in CODER and case.stage != "header"


def line(word: str, **values: object) -> str:
    """A line of a trace; numbers of a sequence are joined by commas."""
    shown = {key: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else v for key, v in values.items()}
    return " ".join([word, *(f"{key}={value}" for key, value in shown.items())])


def as_array(value: object) -> NDArray:
    """What a function gives: an array, several numbers, or bytes."""
    return np.frombuffer(value, np.uint8) if isinstance(value, (bytes, bytearray)) else np.asarray(value)


def described(name: str, array: NDArray) -> str:
    """The line of an array."""
    facts = json.loads(compare.digest_of(array))
    numbers = array.astype(np.float64) if array.size else np.full(1, np.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        low, high, mean = float(numbers.min()), float(numbers.max()), float(numbers.mean())
    return line(
        "array", name=name, dtype=facts["descr"], shape=facts["shape"], min=low, max=high, mean=mean,
        sha256=facts["sha256"],
    )  # fmt: skip


def _kept(functions: Mapping[str, Any], names: Mapping[str, str], keep: Keep) -> dict[str, Any]:
    """Functions of those names that also keep what they give."""

    def keeping(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **more: Any) -> Any:
            result = function(*arguments, **more)
            keep(name, result)
            return result

        return run

    return {name: keeping(name, functions[name]) for name in names}


def _table(functions: Functions, keep: Keep) -> Functions:
    """A table of functions that keep what they give."""
    own = {field.name: getattr(functions, field.name) for field in fields(functions)}
    return replace(functions, **_kept(own, ARRAYS, keep))


def watchers(write: Callable[[str], None]) -> dict[str, Any]:
    """What replaces functions and classes of `entropy`: the same, and they write down what passes through."""
    right, here = copy.copy(vars(entropy)), dict[str, Any]()  # `here`: what is known of the symbol that is coded
    about = dict[str, Any]()  # the decision that is coded

    def walk_slice(coder: Any, symbols: NDArray, tables: entropy.Tables) -> None:
        here["depth"] = -1
        write(line("slice", shape=symbols.shape))
        right["walk_slice"](coder, symbols, tables)

    def walk(*arguments: Any) -> entropy.Neighbours:
        here["depth"] += 1
        return right["walk"](*arguments)

    def positions(*shape: int) -> Iterator[tuple[int, int, int]]:
        for place in right["positions"](*shape):
            here.update(zip(COORDINATES[1:], place, strict=True))
            yield place

    def predict(v: NDArray, *weights: NDArray) -> tuple[int, int, int]:
        found = right["predict"](v, *weights)
        here.update(taps=v.tolist(), linear=found[0])
        return found

    def contexts(c: int, depth: int, mean: int, scale: int, flip: int, fraction: int, near: list[int]) -> list[int]:
        here.update(mean=mean, scale=scale, flip=flip, fraction=fraction)
        return right["contexts"](c, depth, mean, scale, flip, fraction, near)

    def code_residual(coder: Any, mix: Any, mixer: int, at: list[int], r: int, room: tuple[int, int]) -> int:
        write(line("symbol", **here, set=mixer, contexts=at, room=room))
        return right["code_residual"](coder, mix, mixer, at, r, room)

    def before(coder: Any) -> dict[str, str]:
        value = {"value": f"{coder.value:08x}"} if hasattr(coder, "value") else {}
        return {"low": f"{coder.low:010x}", "span": f"{coder.span:08x}", **value}

    def decision(p: int, bit: int, state: dict[str, str]) -> None:
        write(line("decision", **(about or {"node": NO_NODE}), p=p, bit=bit, **state))
        about.clear()

    class Neighbours(entropy.Neighbours):
        def put(self, here: tuple[int, int, int], symbol: int, linear_mean: int) -> None:
            super().put(here, symbol, linear_mean)
            write(line("coded", symbol=symbol, deviation=int(self.planes[1][here])))

    class Mixer(entropy.Mixer):
        def code(self, coder: Any, mixer: int, at: list[int], node: int, bit: int) -> int:
            probabilities = [self.p[i * entropy.NODES + node] for i in at]
            about.update(node=node, probabilities=probabilities, weights=list(self.weights[mixer][node]))
            return super().code(coder, mixer, at, node, bit)

    class Encoder(entropy.Encoder):
        def code(self, p: int, bit: int) -> int:
            decision(p, bit, before(self))
            return super().code(p, bit)

        def finish(self) -> bytes:
            payload = super().finish()
            write(line("end", bytes=len(payload), payload=payload.hex()))
            return payload

    class Decoder(entropy.Decoder):
        def code(self, p: int, bit: int | None = None) -> int:
            state = before(self)
            bit = super().code(p, bit)
            decision(p, bit, state)
            return bit

        def finish(self) -> None:
            super().finish()
            write("end")

    return {
        "walk_slice": walk_slice,
        "walk": walk,
        "positions": positions,
        "predict": predict,
        "contexts": contexts,
        "code_residual": code_residual,
        "Neighbours": Neighbours,
        "Mixer": Mixer,
        "Encoder": Encoder,
        "Decoder": Decoder,
    }


# ---- comparing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A line of a trace, read."""

    word: str
    values: Mapping[str, str]


def read(data: bytes, name: str) -> list[Step]:
    """The lines of a trace, less blank ones and those that begin with #; `UnreadableFile` where one is none."""
    steps = []
    for number, row in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        word, *parts = row.split() or ["#"]
        if word.startswith("#"):
            continue
        if word == "rejected":
            parts = []
        if not all("=" in part for part in parts):
            raise UnreadableFile(name, f"line {number}: {row[:60]}", "a line of a trace: a word, and fields key=value")
        steps.append(Step(word, dict(part.split("=", 1) for part in parts)))
    if not any(step.word != "case" for step in steps):
        raise UnreadableFile(name, f"{len(data)} bytes", "a trace, which has lines")
    return steps


def diff(first: bytes, second: bytes, names: Sequence[str] = ("A", "B")) -> tuple[bool, str]:
    """Whether two traces are equal, and in words where they part first. Fields that only one of them has are not compared.

    Parameters
    ----------
    first, second : bytes
        Both are texts, or both .npz files.
    names : sequence of str
        What to call them.

    Raises
    ------
    UnreadableFile
        One of them is no trace, or they have no fields in common.
    """
    files = [data[:2] == b"PK" for data in (first, second)]
    if all(files):
        return _diff_arrays(_read_arrays(first, names[0]), _read_arrays(second, names[1]))
    if any(files):
        raise UnreadableFile(names[files.index(True)], "an .npz file", "a text, as the other one is; or both .npz")
    return _diff_steps(read(first, names[0]), read(second, names[1]), names)


def _diff_steps(first: list[Step], second: list[Step], names: Sequence[str]) -> tuple[bool, str]:
    """`diff` of lines."""
    clauses = next((step.values.get("clauses", "") for step in first if step.word == "case"), "")
    first, second = ([step for step in steps if step.word != "case"] for steps in (first, second))
    place: dict[str, str] = {}
    counts = {"slice": 0, "symbol": 0, "decision": 0, "array": 0}
    close: list[str] = []
    compared = 0
    for a, b in zip_longest(first, second):
        for word in {step.word for step in (a, b) if step is not None} & counts.keys():
            counts[word] += 1
        if a is None or b is None:
            ended, other = (names[0], b) if a is None else (names[1], a)
            return False, f"{ended} ends where the other one goes on: {_shown(other, place, counts)}"
        if a.word != b.word:
            return False, f"First difference: {_shown(a, place, counts)} in {names[0]}, {b.word} in {names[1]}"
        shared = [key for key in a.values if key in b.values]
        compared += len(shared)
        if a.word == "slice":
            place = {}
        if a.word == "symbol":
            place = {key: a.values[key] for key in COORDINATES if key in a.values}
        wrong = [key for key in shared if a.values[key] != b.values[key]]
        if not wrong:
            continue
        where = _shown(a, place, counts)
        if a.word == "array" and wrong and _rounding(a, b, wrong):
            close.append(where)
            continue
        known = FIELDS.get(a.word, {})
        own = CLAUSES.get(a.values.get("name", ""), clauses) if a.word == "array" else ""
        lines = [f"First difference: {where}"]
        lines += [f"  {key} {a.values[key]}, {b.values[key]}{_clause(known.get(key, own))}" for key in wrong]
        return False, "\n".join([*lines, *_bits(close)])
    if not compared and first:
        raise UnreadableFile(names[1], "its fields", f"some of those of {names[0]}")
    if close:
        return False, "\n".join(_bits(close))
    return True, f"No difference in {len(first)} lines, {counts['decision']} decisions, {counts['array']} arrays."


def _shown(step: Step, place: Mapping[str, str], counts: Mapping[str, int]) -> str:
    """Which line this is."""
    if step.word in ("slice", "array"):
        return " ".join([step.word, str(counts[step.word]), step.values.get("name", "")]).rstrip()
    if step.word == "field":
        return f"field {step.values.get('name', '')}"
    number = f" {counts[step.word]}" if step.word in counts else ""
    node = f" at node {step.values['node']}" if "node" in step.values else ""
    at = ", ".join(f"{key} {value}" for key, value in place.items())
    return f"{step.word}{number}{node} of slice {counts['slice']}{', ' if at else ''}{at}"


def _clause(clause: str) -> str:
    """A clause, or several, in words."""
    return f" ({clause.replace(',', ', ')} of SPEC.md)" if clause else ""


def _rounding(a: Step, b: Step, wrong: Sequence[str]) -> bool:
    """Whether no more than rounding can be seen: bytes differ, but smallest, largest and mean value are about the same."""
    if not set(wrong) <= {"sha256", "min", "max", "mean"} or not a.values.get("dtype", "").startswith("<f"):
        return False
    try:
        pairs = [(float(a.values[key]), float(b.values[key])) for key in ("min", "max", "mean")]
    except (KeyError, ValueError):
        return False
    return all(abs(x - y) <= SAME * max(1.0, abs(x)) for x, y in pairs)


def _bits(close: Sequence[str]) -> list[str]:
    """What to say of arrays that differ in their bytes alone."""
    if not close:
        return []
    return [
        f"The bytes of {len(close)} arrays differ, first of {close[0]}; smallest, largest and mean value agree within",
        f"{SAME:g}: it is rounding, or the same values in other places, which .npz files tell apart.",
    ]


def _read_arrays(data: bytes, name: str) -> dict[str, NDArray]:
    """The arrays of an .npz file, in their order."""
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                if entry.file_size > MAX_ARRAY_BYTES:
                    raise UnreadableFile(
                        name, f"{entry.filename}: {entry.file_size} bytes", f"at most {MAX_ARRAY_BYTES}"
                    )
                arrays[entry.filename.removesuffix(".npy")] = compare.read_array(archive.read(entry))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError, compare.Different) as error:
        raise UnreadableFile(name, error, "an .npz file of arrays") from error
    if not arrays:
        raise UnreadableFile(name, "no arrays", "an .npz file of arrays")
    return arrays


def _diff_arrays(first: Mapping[str, NDArray], second: Mapping[str, NDArray]) -> tuple[bool, str]:
    """`diff` of arrays: the first that differs by more than rounding."""
    largest = 0.0
    for number, (a, b) in enumerate(zip_longest(first, second), 1):
        if a != b:
            return False, f"First difference: array {number} is {a or 'missing'}, {b or 'missing'}"
        x, y, clause = first[a], second[b], _clause(CLAUSES.get(a.partition("-")[2], ""))
        if x.dtype != y.dtype or x.shape != y.shape:
            return False, f"First difference: {a} is {x.dtype} {x.shape}, {y.dtype} {y.shape}{clause}"
        if x.dtype.kind not in "fiu":
            return False, f"{a} is of type {x.dtype}, which no trace has"
        if not x.size:
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            distance = np.abs(x.astype(np.float64) - y.astype(np.float64))
            distance[x == y] = 0.0  # also where both are infinite
            limit = SAME * max(1.0, float(np.abs(x).max())) if x.dtype.kind == "f" else 0.0
        if not distance.max() <= limit:
            at = np.unravel_index(int(np.argmax(~(distance <= limit))), x.shape)
            place = [int(i) for i in at]
            return (
                False,
                f"First difference: {a} at {place}: {x[at]!s}, {y[at]!s}{clause}; largest {distance.max():.3g}",
            )
        largest = max(largest, float(distance.max()))
    return True, f"No difference in {len(first)} arrays; the largest, of rounding, is {largest:.3g}."
