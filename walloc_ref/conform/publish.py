"""What others read: a report that an implementer can publish, and the suite in the form that fluster reads."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import Counter

from walloc_ref import __version__
from walloc_ref.conform import compare
from walloc_ref.conform.runner import PASS, Report
from walloc_ref.conform.suite import MANIFEST, Suite

FLUSTER_FORMATS = {"image": "RGB", "audio": "None", "volume": "None"}
"""Fluster's `output_format`, which describes video alone: nothing here depends on it."""


def facts(suite: Suite, command: str | None) -> dict[str, str]:
    """What a report says of itself: what was tested, with which suite, when."""
    digest = hashlib.sha256(suite.read(MANIFEST)).hexdigest()
    return {
        "implementation": command or f"walloc_ref {__version__}",
        "runner": f"walloc_ref {__version__}",
        "specification": suite.manifest["specification"],
        "manifest_sha256": digest,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def markdown(report: Report, about: dict[str, str]) -> str:
    """A report to publish: levels, versions, cases by stage, every case that is wrong, date."""
    counts = Counter(result.verdict for result in report.results)
    lines = ["# Conformance to the WaLLoC specification", ""]
    lines += [f"- {key.replace('_', ' ')}: `{value}`" for key, value in about.items()]
    lines += [f"- cases: {len(report.results)} of {report.cases_in_suite}", "", "| level | verdict |", "| --- | --- |"]
    lines += [f"| {level} | {verdict} |" for level, verdict in report.levels.items()]
    verdicts = sorted(counts, key=lambda verdict: (verdict != PASS, verdict))
    lines += ["", "| stage | " + " | ".join(verdicts) + " |", "| --- |" + " --- |" * len(verdicts)]
    for stage, found in report.stages():
        lines.append(f"| {stage} | " + " | ".join(str(found[verdict]) for verdict in verdicts) + " |")
    wrong = [result for result in report.results if result.wrong]
    if wrong:
        lines += ["", "Wrong:", ""]
        lines += [
            f"- `{result.case.id}`: {result.verdict}; clauses {', '.join(result.case.clauses)}" for result in wrong
        ]
    return "\n".join(lines)


def fluster(suite: Suite) -> str:
    """All valid streams whose samples are exact, as a test suite of fluster: JSON.

    A result is the MD5 of the samples alone, little-endian, last index fastest, as a decoder would write them to a file.
    """
    vectors = []
    for case in suite.cases:
        if (case.op, case.stage, case.compare) != ("decode", "stream", "exact") or case.output is None:
            continue
        samples = compare.read_array(suite.read(case.output))
        vectors.append(
            {
                "name": case.id.removeprefix("decode.stream."),
                "source": case.input,
                "source_checksum": hashlib.md5(suite.read(case.input)).hexdigest(),
                "input_file": case.input.rsplit("/", 1)[-1],
                "output_format": FLUSTER_FORMATS[suite.kind(case) or "image"],
                "result": hashlib.md5(samples.tobytes()).hexdigest(),
            }
        )
    about = f"Valid streams of the conformance suite; {suite.manifest['specification']}"
    return json.dumps({"name": "WALLOC", "codec": "WaLLoC", "description": about, "test_vectors": vectors}, indent=4)
