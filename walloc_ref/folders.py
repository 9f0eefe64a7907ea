"""Whole folders, encoded or decoded on all processors, or on a cluster that Dask keeps: the same job for every file.

Every file is a job of its own, in a process of its own that uses one thread, so that a file that ends a process ends no
other work. What is finished stays finished: a job whose output exists, is not older than its input and is whole is not done
again. Three surprises:

1. Outputs appear under their names whole or not at all, so an output that is there was written to its end. Streams are
   checked all the same, by the checksums of their sections. Other options are not noticed: `--force` does all again.
2. Subfolders are kept. Two inputs that would become one output (a.png and a.jpg) are refused before anything is done.
3. With Dask, jobs go to whatever workers its scheduler has, and to others where workers die. They read and write the
   same paths as here: the folders must be where all of them see them.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from walloc_ref.errors import BadSamples, UnreadableFile, WallocError
from walloc_ref.fast.workers import THREADS_VARIABLE, threads

STREAM_SUFFIX = ".wlc"

RETRIES = 2
"""How often Dask tries a job again that an exception ended; those whose worker died it moves by itself."""

CONNECT_SECONDS = 20
"""How long a scheduler has to answer."""

_models: dict[Any, Any] = {}
"""Of a process that does jobs: the models it has loaded."""


@dataclass(frozen=True)
class Job:
    """One file: `action` is "encode" or "decode", `options` are those of the command line for this file alone."""

    action: str
    source: str
    target: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: an exit code (None where it was done before), and a line that says why it failed."""

    source: str
    code: int | None
    reason: str = ""
    samples: int = 0
    input_bytes: int = 0
    output_bytes: int = 0


@dataclass
class Summary:
    """What became of all jobs."""

    done: int = 0
    skipped: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count a job."""
        self.skipped += outcome.code is None
        if outcome.code == 0:
            self.done += 1
            self.input_bytes += outcome.input_bytes
            self.output_bytes += outcome.output_bytes
        elif outcome.code:
            self.failures.append(outcome)

    def text(self) -> str:
        """In one line."""
        parts = [f"{self.done} files done", f"{self.skipped} were done before", f"{len(self.failures)} failed"]
        return f"{', '.join(parts)}; {self.input_bytes} bytes to {self.output_bytes}"


def jobs(action: str, options: argparse.Namespace, suffixes: Sequence[str]) -> list[Job]:
    """The jobs for the files of `options.input`, with `options.output` as the folder of the outputs.

    Raises
    ------
    UnreadableFile
        No such files, two that would become one, or a folder of outputs that cannot be one.
    """
    source, target = Path(options.input), Path(options.output)
    if target.exists() and not target.is_dir():
        raise UnreadableFile("output", target, "a folder, where the input is one")
    shared = {name: value for name, value in vars(options).items() if name not in ("command", "out", "dask")}
    found: list[Job] = []
    taken: dict[Path, Path] = {}
    for path in sorted(source.rglob("*")):
        endings = [suffix for suffix in suffixes if path.name.lower().endswith(suffix)]
        if not endings or not path.is_file() or path.name.startswith("."):
            continue
        stem = path.name[: -max(map(len, endings))]  # .nii.gz is one ending
        name = target / path.relative_to(source).with_name(stem + (STREAM_SUFFIX if action == "encode" else ""))
        if name in taken:
            raise UnreadableFile("output", name, f"a name for one input; {taken[name]} and {path} would become it")
        taken[name] = path
        found.append(Job(action, str(path), str(name), shared))
    if not found:
        raise UnreadableFile("input", source, "a folder with files that end in " + ", ".join(suffixes))
    return found


def work(job: Job) -> Outcome:
    """Do one job, unless it was done before."""
    from walloc_ref import cli

    try:
        target = job.target if job.action == "encode" else job.target + _ending(job)
        if not job.options.get("force") and finished(job.source, target):
            return Outcome(job.source, None)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        options = argparse.Namespace(**{**job.options, "input": job.source, "output": target, "models": _models})
        code, _ = (cli.encode_file if job.action == "encode" else cli.decode_file)(options)
        reason = "damaged slices, filled with zeros" if code else ""
        sizes = os.path.getsize(job.source), os.path.getsize(target)
        return Outcome(job.source, code, reason, input_bytes=sizes[0], output_bytes=sizes[1])
    except (WallocError, OSError) as error:
        return Outcome(job.source, cli.BAD_INPUT, str(error))
    except MemoryError:
        return Outcome(job.source, cli.BAD_INPUT, "memory: exhausted")


def _ending(job: Job) -> str:
    """What the name of a decoded file ends in."""
    from walloc_ref.files import media
    from walloc_ref.files.whole_files import read_file
    from walloc_ref.stages import container

    suffix = job.options.get("format")
    if not suffix:
        header, _, _ = container.read_head(read_file(job.source), max_samples=job.options["max_samples"])
        suffix = media.usual_suffix(header.kind, header.sample_format, header.channels)
    return suffix if suffix.startswith(".") else "." + suffix


def finished(source: str, target: str) -> bool:
    """Whether an output exists, is not older than its input and, if it is a stream, is whole."""
    from walloc_ref.stages import container

    try:
        status = os.stat(target)
        if status.st_size == 0 or status.st_mtime_ns < os.stat(source).st_mtime_ns:
            return False
        if target.endswith(STREAM_SUFFIX):
            container.read(Path(target).read_bytes(), max_samples=2**62)
    except (OSError, WallocError):
        return False
    return True


def run(work_list: Sequence[Job], tell: Callable[[float], None], address: str | None = None) -> Summary:
    """Do all jobs, here or where the Dask scheduler at `address` has workers.

    Raises
    ------
    BadSamples
        Dask is not installed, or no scheduler answers.
    """
    summary = Summary()
    told = time.monotonic() - 1
    for number, outcome in enumerate(_with_dask(work_list, address) if address else _here(work_list)):
        summary.add(outcome)
        if time.monotonic() - told > 0.1 or number + 1 == len(work_list):
            tell((number + 1) / len(work_list))
            told = time.monotonic()
    summary.failures.sort(key=lambda outcome: outcome.source)
    return summary


def _one_thread() -> None:
    """What a process does before its first job."""
    os.environ[THREADS_VARIABLE] = "1"


def _here(work_list: Sequence[Job]) -> Iterator[Outcome]:
    """Jobs on the processors of this machine, as they end."""
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    count = min(threads(), len(work_list))
    with ProcessPoolExecutor(count, get_context("spawn"), initializer=_one_thread) as pool:
        futures = {pool.submit(work, job): job for job in work_list}
        try:
            yield from _outcomes(as_completed(futures), futures)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _with_dask(work_list: Sequence[Job], address: str) -> Iterator[Outcome]:
    """Jobs on Dask's workers, as they end."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise BadSamples("--dask", address, "Dask: pip install distributed") from error
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        raise BadSamples("--dask", address, f"the address of a scheduler that answers ({error})") from error
    with client:
        submitted = client.map(work, list(work_list), pure=False, retries=RETRIES)
        futures = dict(zip(submitted, work_list))
        yield from _outcomes(as_completed(submitted), futures)


def _outcomes(ended: Iterable[Any], futures: dict[Any, Job]) -> Iterator[Outcome]:
    """Outcomes of futures as they end; a process that died is one, too."""
    from walloc_ref import cli

    for future in ended:
        try:
            yield future.result()
        except Exception as error:  # whatever ended the process
            yield Outcome(futures[future].source, cli.BAD_INPUT, f"its process ended ({type(error).__name__})")
