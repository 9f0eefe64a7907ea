"""The suite on disk: `conformance/manifest.json` and the files that it names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from walloc_ref import model as models

MANIFEST = "manifest.json"
"""Name of the manifest in the suite's folder."""

VERSION = 1
"""Version of the manifest's schema that this runner reads."""

LEVELS = ("symbols", "decoder", "encoder", "decoder-binary32")
"""Claims that can be made, in the order in which they are reported."""

KINDS = ("image", "audio", "volume")
"""What a claim may be restricted to."""

BUNDLED = "bundled:"
"""Prefix of the path of a model that is not in the suite but among the bundled weights."""


class SuiteCorrupt(Exception):
    """The suite is not what its manifest says; no verdict about anything can be based on it."""


@dataclass(frozen=True)
class Case:
    """One test: an operation on one input, and what must come of it.

    Attributes
    ----------
    id : str
        `op.stage.chain`; never changes its meaning.
    op, stage : str
        What is run, see `stages.STAGES`.
    model : str or None
        Key of a model of the manifest.
    input, output : str
        Files, relative to the suite's folder. No output where the input is to be rejected.
    compare : str
        Key of a comparison of the manifest; "reject" where the input is to be rejected.
    parameters : mapping of str to str
    levels : tuple of str
        Levels that this case belongs to.
    required : bool
        Whether these levels require the case. The others are there to find the stage that is wrong: an implementation may
        say that it does not have that stage, but may not have it wrong.
    flags, clauses : tuple of str
        What it exercises: keys of the manifest's flags, and clauses of SPEC.md.
    signal, origin : str
        Keys of the manifest's signals (what went in) and origins (what computed the output).
    fault : str or None
        Class of the fault of an input that is to be rejected.
    margin : float or None
        Smallest distance of any integer of the output from a rounding tie.
    guard : str or None
        File with one bit for each sample, set where a binary32 decoder may differ by `guard_step`.
    guard_step : int
    guard_share : float
        Share of the samples that may differ at all.
    binary32 : mapping
        What PyTorch in binary32 was observed to do: "largest" and "differing".
    note : str
        A sentence on what is special.
    """

    id: str
    op: str
    stage: str
    model: str | None
    input: str
    output: str | None
    compare: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    levels: tuple[str, ...] = ()
    required: bool = False
    flags: tuple[str, ...] = ()
    clauses: tuple[str, ...] = ()
    signal: str = ""
    origin: str = ""
    fault: str | None = None
    margin: float | None = None
    guard: str | None = None
    guard_step: int = 1
    guard_share: float = 2.0**-7
    binary32: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def rejects(self) -> bool:
        """Whether the input is to be rejected."""
        return self.compare == "reject"

    @property
    def stage_name(self) -> str:
        """Operation and stage."""
        return f"{self.op} {self.stage}"


@dataclass(frozen=True)
class Suite:
    """The manifest and where it lies."""

    folder: Path
    manifest: Mapping[str, Any]

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """All cases, in the manifest's order, which is the order of the stages."""
        tuples = ("levels", "flags", "clauses")
        entries: list[dict[str, Any]] = self.manifest["cases"]
        fields: list[dict[str, Any]] = [
            {key: tuple(value) if key in tuples else value for key, value in entry.items()} for entry in entries
        ]
        return tuple(Case(**entry) for entry in fields)

    def case(self, name: str) -> Case:
        """The case of that id.

        Raises
        ------
        KeyError
            There is none.
        """
        for case in self.cases:
            if case.id == name:
                return case
        raise KeyError(name)

    def kind(self, case: Case) -> str | None:
        """What a case is about, a key of `KINDS`; None where it goes for all."""
        return None if case.model is None else self.manifest["models"][case.model]["kind"]

    def select(
        self, patterns: Iterable[str] = (), level: str | None = None, kind: str | None = None
    ) -> tuple[Case, ...]:
        """Cases of a level and a kind (all without one) whose ids match any of the patterns (all without any).

        A pattern without a wild card selects the ids that begin with it.
        """
        chosen = [p if any(c in p for c in "*?[") else p + "*" for p in patterns]
        return tuple(
            case
            for case in self.cases
            if (level is None or level in case.levels)
            and (kind is None or self.kind(case) in (None, kind))
            and (not chosen or any(fnmatchcase(case.id, pattern) for pattern in chosen))
        )

    def path(self, name: str) -> Path:
        """Where a file of the suite lies."""
        return self.folder / name

    def read(self, name: str) -> bytes:
        """The bytes of a file of the suite."""
        try:
            return self.path(name).read_bytes()
        except OSError as error:
            raise SuiteCorrupt(f"{name}: {error.strerror}") from error

    def model_path(self, key: str | None) -> Path | None:
        """Where the model of that key lies."""
        if key is None:
            return None
        name = self.manifest["models"][key]["file"]
        if not name.startswith(BUNDLED):
            return self.path(name)
        path = models.available().get(name[len(BUNDLED) :])
        if path is None:
            raise SuiteCorrupt(f"bundled model {name[len(BUNDLED) :]}: not at hand")
        return path

    def check(self) -> list[str]:
        """Everything that is not as the manifest says: files missing, changed or surplus, references to nothing."""
        problems = []
        files = self.manifest["files"]
        for name, facts in files.items():
            try:
                data = self.path(name).read_bytes()
            except OSError as error:
                problems.append(f"{name}: {error.strerror}")
                continue
            if hashlib.sha256(data).hexdigest() != facts["sha256"]:
                problems.append(f"{name}: not the file that the manifest lists")
        for folder in ("vectors", "models"):
            for path in sorted(self.path(folder).rglob("*")):
                name = path.relative_to(self.folder).as_posix()
                if path.is_file() and name not in files:
                    problems.append(f"{name}: not in the manifest")
        for key, facts in self.manifest["models"].items():
            if facts["file"].startswith(BUNDLED):
                try:
                    weights = self.model_path(key)
                    assert weights is not None
                    if hashlib.sha256(weights.read_bytes()).hexdigest() != facts["sha256"]:
                        problems.append(f"{facts['file']}: not the weights that the vectors were made with")
                except (SuiteCorrupt, OSError) as error:
                    problems.append(str(error))
            elif facts["file"] not in files:
                problems.append(f"model {key}: {facts['file']} is not in the manifest")
        seen = set()
        for case in self.cases:
            if case.id in seen:
                problems.append(f"{case.id}: twice in the manifest")
            seen.add(case.id)
            for name in (case.input, case.output, case.guard):
                if name is not None and name not in files:
                    problems.append(f"{case.id}: {name} is not in the manifest")
            if case.model is not None and case.model not in self.manifest["models"]:
                problems.append(f"{case.id}: model {case.model} is not in the manifest")
            if case.rejects == (case.output is not None):
                problems.append(f"{case.id}: an output, or a rejection, is expected")
        return problems


def default_folder() -> Path:
    """The suite in the wheel, or in the checkout."""
    package = Path(__file__).resolve().parent.parent
    bundled = package / "conformance"
    return bundled if bundled.is_dir() else package.parent / "conformance"


def load(folder: Path | None = None) -> Suite:
    """Read the manifest.

    Raises
    ------
    SuiteCorrupt
        There is none, it is not JSON, or it is of another version.
    """
    folder = folder or default_folder()
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            raise SuiteCorrupt(f"{folder / MANIFEST}: version {manifest['version']}, not {VERSION}")
        suite = Suite(folder, manifest)
        if not suite.cases:
            raise SuiteCorrupt(f"{folder / MANIFEST}: no cases")
    except OSError as error:
        raise SuiteCorrupt(f"{folder / MANIFEST}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SuiteCorrupt(f"{folder / MANIFEST}: {type(error).__name__}: {error}") from error
    return suite
