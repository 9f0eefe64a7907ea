"""Cases against an implementation: this package, any command, or a server. Verdicts, levels and reports.

Nothing passes by default. A case passes only where the implementation answered and the answer was compared; a run without
cases, a file that is missing and a case that was skipped are not a pass.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

from walloc_ref.conform import compare
from walloc_ref.conform.stages import ORDER, Stages, Unsupported
from walloc_ref.conform.suite import KINDS, LEVELS, Case, Suite
from walloc_ref.errors import WallocError

CONFORMANT, NOT_CONFORMANT, INCOMPLETE, SUITE_CORRUPT, NOT_STARTED = 0, 1, 2, 3, 4
"""Exit codes of a run."""

DONE, REJECTED, UNSUPPORTED = 0, 10, 11
"""Exit codes of a command that is tested."""

DEFAULT_TIMEOUT = 60.0
"""Seconds that one case may take."""

PASS, FAIL, ACCEPTED, CRASH, HANG, MISSING = "pass", "fail", "accepted", "crash", "hang", "unsupported"
"""Verdicts. ACCEPTED: an input that is to be rejected was not."""

PLACEHOLDERS = ("op", "stage", "model", "input", "output", "parameters")
"""Words of a command template."""


class CannotStart(Exception):
    """The command could not be started at all."""


@dataclass(frozen=True)
class Answer:
    """What an implementation made of a case: "done" with the output, "rejected", "unsupported", "crash" or "hang"."""

    what: str
    output: bytes = b""
    message: str = ""


@dataclass(frozen=True)
class Result:
    """Verdict on one case."""

    case: Case
    verdict: str
    message: str
    seconds: float

    @property
    def wrong(self) -> bool:
        """Whether the implementation was shown to be wrong."""
        return self.verdict not in (PASS, MISSING)


class Implementation(Protocol):
    """What is tested."""

    def answer(self, case: Case, suite: Suite) -> Answer:
        """Run one case."""

    def close(self) -> None:
        """End what was started."""


class InProcess:
    """This package, or a wrong implementation made of it."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages

    def answer(self, case: Case, suite: Suite) -> Answer:
        """Run one case. Whatever is raised that is no `WallocError` is a crash."""
        data = suite.read(case.input)
        try:
            output = self.stages.perform(case.op, case.stage, suite.model_path(case.model), data, case.parameters)
        except WallocError as error:
            return Answer("rejected", message=str(error))
        except Unsupported as error:
            return Answer("unsupported", message=str(error))
        except Exception as error:
            return Answer("crash", message=f"{type(error).__name__}: {error}")
        return Answer("done", output)

    def close(self) -> None:
        """Nothing was started."""


class Command:
    """A command that is started for each case.

    Parameters
    ----------
    template : str
        Split into words as a shell would; then {op}, {stage}, {model}, {input}, {output} and {parameters} are replaced.
    timeout : float
        Seconds until a case counts as hanging.
    """

    def __init__(self, template: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.words = shlex.split(template)
        self.timeout = timeout
        self.has_parameters = "{parameters}" in template
        if not self.words:
            raise CannotStart("the command is empty")

    def answer(self, case: Case, suite: Suite) -> Answer:
        """Run one case in a process group of its own, so that a hang takes no children with it."""
        if case.parameters and not self.has_parameters:
            return Answer("unsupported", message="the command has no {parameters}")
        with tempfile.TemporaryDirectory(prefix="walloc-conform-") as folder:
            output = Path(folder) / f"output{_ending(case)}"
            words = [_filled(word, _values(case, suite, output)) for word in self.words]
            try:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as error:
                raise CannotStart(f"{words[0]}: {error.strerror}") from error
            try:
                _, said = process.communicate(timeout=self.timeout)
            except subprocess.TimeoutExpired:
                _end(process)
                return Answer("hang", message=f"no end after {self.timeout:g} s")
            message = said.decode("utf-8", "replace").strip().splitlines()[-1:]
            return _judged(process.returncode, output, message[0] if message else "")

    def close(self) -> None:
        """Nothing runs between cases."""


class Server:
    """A command that is started once for each worker and gets one line for each case."""

    def __init__(self, command: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.words = shlex.split(command)
        self.timeout = timeout
        self._local = threading.local()
        self._started: list[subprocess.Popen[str]] = []
        if not self.words:
            raise CannotStart("the command is empty")

    def answer(self, case: Case, suite: Suite) -> Answer:
        """Send one case to this worker's process; start the process where there is none."""
        with tempfile.TemporaryDirectory(prefix="walloc-conform-") as folder:
            output = Path(folder) / f"output{_ending(case)}"
            values = _values(case, suite, output)
            process, lines = self._process()
            try:
                assert process.stdin is not None
                process.stdin.write("\t".join(values[name] for name in PLACEHOLDERS) + "\n")
                process.stdin.flush()
                line = lines.get(timeout=self.timeout)
            except queue.Empty:
                self._drop(process)
                return Answer("hang", message=f"no answer after {self.timeout:g} s")
            except OSError as error:
                line = None
                message = str(error.strerror)
            else:
                message = "the process ended"
            if line is None:
                self._drop(process)
                return Answer("crash", message=message)
            word, _, rest = line.strip().partition(" ")
            codes = {"ok": DONE, "rejected": REJECTED, "unsupported": UNSUPPORTED}
            if word not in codes:
                return Answer("crash", message=f"answered {line.strip()[:60]!r}")
            return _judged(codes[word], output, rest)

    def close(self) -> None:
        """End all processes."""
        for process in self._started:
            _end(process)

    def _process(self) -> tuple[subprocess.Popen[str], queue.Queue[str | None]]:
        """This worker's process and the lines that it says."""
        if getattr(self._local, "process", None) is None:
            try:
                process = subprocess.Popen(
                    self.words,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    start_new_session=True,
                )
            except OSError as error:
                raise CannotStart(f"{self.words[0]}: {error.strerror}") from error
            lines: queue.Queue[str | None] = queue.Queue()

            def listen() -> None:
                assert process.stdout is not None
                for line in process.stdout:
                    lines.put(line)
                lines.put(None)

            threading.Thread(target=listen, daemon=True).start()
            self._started.append(process)
            self._local.process, self._local.lines = process, lines
        return self._local.process, self._local.lines

    def _drop(self, process: subprocess.Popen[str]) -> None:
        """End this worker's process, so that the next case starts a new one."""
        _end(process)
        self._local.process = None


def _values(case: Case, suite: Suite, output: Path) -> dict[str, str]:
    """What the placeholders stand for."""
    model = suite.model_path(case.model)
    return {
        "op": case.op,
        "stage": case.stage,
        "model": "-" if model is None else str(model),
        "input": str(suite.path(case.input)),
        "output": str(output),
        "parameters": ",".join(f"{key}={value}" for key, value in case.parameters.items()) or "-",
    }


def _filled(word: str, values: dict[str, str]) -> str:
    """A word of the template with its placeholders replaced."""
    for name, value in values.items():
        word = word.replace("{" + name + "}", value)
    return word


def _ending(case: Case) -> str:
    """The ending of the output file's name."""
    return Path(case.output).suffix if case.output else ".out"


def _judged(code: int, output: Path, message: str) -> Answer:
    """The answer that an exit code stands for."""
    if code == REJECTED:
        return Answer("rejected", message=message)
    if code == UNSUPPORTED:
        return Answer("unsupported", message=message)
    if code != DONE:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Answer("crash", message=f"{how}{': ' + message if message else ''}")
    try:
        return Answer("done", output.read_bytes(), message)
    except OSError:
        return Answer("crash", message="it said that it was done, but wrote no output")


def _end(process: subprocess.Popen[Any]) -> None:
    """Kill a process, and the group that it leads."""
    with contextlib.suppress(OSError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        process.wait(5)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def judge(case: Case, answer: Answer, suite: Suite, level: str | None = None) -> tuple[str, str]:
    """Verdict and message."""
    if answer.what == "unsupported":
        return MISSING, answer.message
    if answer.what in ("crash", "hang"):
        return answer.what, answer.message
    if case.rejects:
        if answer.what == "rejected":
            return PASS, answer.message
        return ACCEPTED, f"{len(answer.output)} bytes of output for an input that is to be rejected ({case.fault})"
    if answer.what == "rejected":
        return FAIL, f"rejected a valid input: {answer.message}"
    try:
        compare.check(case, suite, answer.output, level)
    except compare.Different as difference:
        return FAIL, str(difference)
    return PASS, ""


def run(
    suite: Suite,
    implementation: Implementation,
    cases: Sequence[Case],
    *,
    level: str | None = None,
    kind: str | None = None,
    jobs: int = 1,
    stop_at_first: bool = False,
    tell: Callable[[Result], None] | None = None,
) -> Report:
    """Run cases.

    Parameters
    ----------
    suite : Suite
    implementation : Implementation
    cases : sequence of Case
    level : str, optional
        "decoder-binary32" compares with that level's tolerance.
    kind : str, optional
        "image", "audio" or "volume", where levels are claimed for that only.
    jobs : int
        Cases that run at the same time.
    stop_at_first : bool
        End with the first case that shows an error (one job only).
    tell : callable, optional
        Called with each result as soon as it is there.

    Raises
    ------
    CannotStart, SuiteCorrupt
    """

    def one(case: Case) -> Result:
        started = time.perf_counter()
        answer = implementation.answer(case, suite)
        verdict, message = judge(case, answer, suite, level)
        result = Result(case, verdict, message, time.perf_counter() - started)
        if tell is not None:
            tell(result)
        return result

    ordered = sorted(cases, key=lambda case: ORDER.get((case.op, case.stage), len(ORDER)))
    results: list[Result] = []
    try:
        if jobs == 1:
            for case in ordered:
                results.append(one(case))
                if stop_at_first and results[-1].wrong:
                    break
        else:
            with ThreadPoolExecutor(jobs) as pool:
                futures = [pool.submit(one, case) for case in ordered]
                try:
                    results = [future.result() for future in futures]
                except BaseException:
                    for future in futures:
                        future.cancel()
                    raise
    finally:
        implementation.close()
    partial = len(cases) < len(suite.select((), level, kind))
    levels = {name: level_of(suite, results, name, kind) for name in (LEVELS if level is None else (level,))}
    if level is None and levels["decoder"].startswith("not"):
        levels["decoder-binary32"] = "not run, it has a tolerance of its own"
    return Report(tuple(results), level, kind, partial, len(suite.cases), levels)


def level_of(suite: Suite, results: Sequence[Result], level: str, kind: str | None = None) -> str:
    """What can be said about a level: "conformant", "not conformant, …" or "incomplete, …"."""
    by_id = {result.case.id: result for result in results}
    members = suite.select((), level, kind)
    wrong = sum(by_id[case.id].wrong for case in members if case.id in by_id)
    required = [case for case in members if case.required]
    missing = sum(case.id not in by_id or by_id[case.id].verdict == MISSING for case in required)
    if wrong:
        return f"not conformant, {wrong} cases wrong"
    if not missing and required:
        return "conformant"
    verdict = f"incomplete, {missing} of {len(required)} required cases not run or unsupported"
    fine = [name for name in KINDS if kind is None and level_of(suite, results, level, name) == "conformant"]
    return f"{verdict}; conformant for {fine[0]} alone" if fine else verdict


@dataclass(frozen=True)
class Report:
    """Results of a run; `partial` where cases were left out on request, so that no level can be claimed."""

    results: tuple[Result, ...]
    level: str | None
    kind: str | None
    partial: bool
    cases_in_suite: int
    levels: dict[str, str]

    @property
    def exit_code(self) -> int:
        """Conformant only where something was run, nothing was wrong, and nothing that is required was missing."""
        if any(result.wrong for result in self.results):
            return NOT_CONFORMANT
        required_missing = any(r.verdict == MISSING and r.case.required for r in self.results)
        if required_missing or not any(r.verdict == PASS for r in self.results):
            return INCOMPLETE
        return CONFORMANT

    def first_divergent(self) -> list[Result]:
        """The first wrong result of each operation, in the order of the stages."""
        firsts: dict[str, Result] = {}
        for result in self.results:
            if result.wrong:
                firsts.setdefault(result.case.op, result)
        return list(firsts.values())

    def stages(self) -> list[tuple[str, Counter[str]]]:
        """Verdicts by stage, in the order of the stages."""
        counts: dict[str, Counter[str]] = {}
        for result in self.results:
            counts.setdefault(result.case.stage_name, Counter())[result.verdict] += 1
        return list(counts.items())

    def text(self, verbose: bool = False) -> str:
        """For people."""
        lines = []
        for stage, counts in self.stages():
            shown = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
            lines.append(f"{stage:28}{shown}")
        for result in self.results:
            if result.wrong or verbose:
                lines.append(f"{result.verdict.upper():12}{result.case.id}: {result.message}")
        for result in self.first_divergent():
            lines.append(f"First divergent stage of {result.case.op}: {result.case.stage} ({result.case.id})")
        counts = Counter(result.verdict for result in self.results)
        total = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())) or "no cases"
        lines.append(f"{len(self.results)} of {self.cases_in_suite} cases: {total}")
        only = f" for {self.kind}{'' if self.kind == 'audio' else 's'}" if self.kind else ""
        lines += [f"level {level}{only}: {verdict}" for level, verdict in self.levels.items()]
        return "\n".join(lines)

    def json(self) -> str:
        """For programs."""
        return json.dumps(
            {
                "exit_code": self.exit_code,
                "level": self.level,
                "kind": self.kind,
                "levels": self.levels,
                "counts": Counter(result.verdict for result in self.results),
                "first_divergent": {r.case.op: r.case.stage for r in self.first_divergent()},
                "results": [
                    {
                        "id": r.case.id,
                        "op": r.case.op,
                        "stage": r.case.stage,
                        "required": r.case.required,
                        "verdict": r.verdict,
                        "message": r.message,
                        "seconds": round(r.seconds, 4),
                        "clauses": r.case.clauses,
                    }
                    for r in self.results
                ],
            },
            indent=1,
        )

    def junit(self) -> str:
        """JUnit XML. What is unsupported is skipped, or an error where a level requires it."""
        suite = ElementTree.Element("testsuite", name="walloc conformance", tests=str(len(self.results)))
        kinds: Counter[str] = Counter()
        for r in self.results:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{r.case.op}.{r.case.stage}", name=r.case.id, time=f"{r.seconds:.4f}"
            )
            if r.verdict == PASS:
                continue
            kind = "failure" if r.verdict in (FAIL, ACCEPTED) else "error"
            if r.verdict == MISSING and not r.case.required:
                kind = "skipped"
            ElementTree.SubElement(case, kind, message=_xml_text(f"{r.verdict}: {r.message}"))
            kinds[kind] += 1
        for kind, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            suite.set(attribute, str(kinds[kind]))
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


def _xml_text(text: str) -> str:
    """Text without the control characters that XML does not have."""
    return "".join(c if c >= " " or c in "\t\n" else "\ufffd" for c in text)
