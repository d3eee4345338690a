"""`runner validate`: every problem of every file; sends nothing."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from runner.errors import EXIT_INVALID, EXIT_PASS, JobFileError, Problem
from runner.variants import check_all
from runner.zones import summary

BETA = "mode batch: RunPod's Batch API is beta, may change, and may take hours to begin (docs/batch-mode.md)"
"""What to know of a job in that mode before anything is sent."""


def validate(
    paths: Sequence[Path],
    *,
    overrides: Mapping[str, str] = MappingProxyType({}),
    profile: str | None = None,
    strict: bool = False,
    as_json: bool = False,
    env: Mapping[str, str] | None = None,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """
    Check each file, its data, and the first run of each of its jobs, without a profile and under each.

    Unset variables are told for *profile* only, None being none.
    Text goes to *out* for what is well and to *err* for problems; as JSON all problems go to *out*, as one document.

    Returns:
        0 when every file is valid, 2 when one is not. *strict* makes an unset variable an error.

    Raises:
        UsageError: *overrides* name a variable, or *profile* a profile, that a file has not.
    """
    out, err = out or sys.stdout, err or sys.stderr
    told: list[Problem] = []
    for path in paths:
        problems, summary = _checked(path, overrides, profile, strict, env)
        told += problems
        if not as_json:
            for problem in problems:
                print(problem.render(), file=err)
            if summary:
                print(f"{path}: {summary}", file=out)
    if as_json:
        print(json.dumps({"problems": [problem.as_json() for problem in told]}, ensure_ascii=False), file=out)
    return EXIT_PASS if all(problem.warning for problem in told) else EXIT_INVALID


def _checked(
    path: Path, overrides: Mapping[str, str], profile: str | None, strict: bool, env: Mapping[str, str] | None
) -> tuple[Sequence[Problem], str | None]:
    """Problems of the file at *path*, and one line about it when it is valid."""
    try:
        found = check_all(path, overrides=overrides, profile=profile, env=env, env_required=strict)
    except JobFileError as error:
        return error.problems, None
    plan = found.plan
    if plan is None or not all(problem.warning for problem in found.problems):
        return found.problems, None
    more = ", and those from stdin" if plan.notes else ""
    names = ", ".join(f"'{name}'" for name in found.profiles)
    under = f"; profile{'s' if len(found.profiles) > 1 else ''} {names}" if names else ""
    told = f"ok ({count(len(plan.jobs), 'job')}, {count(plan.total, 'run')}{more}{under})"
    if found.schedule is not None:
        told += f"\n  begins {summary(found.schedule, datetime.now(UTC))}"
    for job in found.beta:
        told += f"\n  {job}: {BETA}"
    return found.problems, told


def count(number: int, noun: str) -> str:
    """*number* of *noun*, in the plural where it is due."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
