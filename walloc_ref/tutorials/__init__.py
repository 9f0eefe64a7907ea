"""Tutorials that run: pages of Markdown in this folder, read in the order of its README. No part of the codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any


def complaints(patterns: Sequence[str], **functions: Any) -> dict[str, str]:
    """Which vectors complain about a codec with some functions replaced, and what they say.

    Parameters
    ----------
    patterns : sequence of str
        Cases of the conformance suite, as `walloc-ref conform run --only` takes them.
    **functions
        Functions of the table `plain.Functions`, by their names, in place of the plain ones.

    Returns
    -------
    dict
        Of each case that does not pass, by its id, what is wrong.

    Raises
    ------
    KeyError
        No case has such an id.
    """
    from walloc_ref.conform import runner
    from walloc_ref.conform import suite as suites
    from walloc_ref.conform.mutants import BASE
    from walloc_ref.conform.stages import Stages

    suite = suites.load()
    cases = suite.select(patterns)
    if not cases:
        raise KeyError(f"no cases: {', '.join(patterns)}")
    report = runner.run(suite, runner.InProcess(Stages(replace(BASE, **functions))), cases)
    return {result.case.id: result.message for result in report.results if result.verdict != runner.PASS}
