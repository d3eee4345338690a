"""`runner validate`: every problem of every file; sends nothing."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from runner.check import open_job_file
from runner.errors import EXIT_INVALID, EXIT_PASS, JobFileError, Problem
from runner.plan import make_plan


def validate(
    paths: Sequence[Path],
    *,
    overrides: Mapping[str, str] = MappingProxyType({}),
    strict: bool = False,
    as_json: bool = False,
    env: Mapping[str, str] | None = None,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """
    Check each file, its data, and the first run of each of its jobs.

    Text goes to *out* for what is well and to *err* for problems; as JSON all problems go to *out*, as one document.

    Returns:
        0 when every file is valid, 2 when one is not. *strict* makes an unset variable an error.

    Raises:
        UsageError: *overrides* name a variable that a file has not.
    """
    out, err = out or sys.stdout, err or sys.stderr
    told: list[Problem] = []
    for path in paths:
        problems, summary = _checked(path, overrides, strict, env)
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
    path: Path, overrides: Mapping[str, str], strict: bool, env: Mapping[str, str] | None
) -> tuple[Sequence[Problem], str | None]:
    """Problems of the file at *path*, and one line about it when it is valid."""
    try:
        job_file = open_job_file(path, overrides=overrides, env=env, env_required=strict)
        plan = make_plan(job_file)
    except JobFileError as error:
        return error.problems, None
    more = ", and those from stdin" if plan.notes else ""
    summary = f"ok ({count(len(plan.jobs), 'job')}, {count(plan.total, 'run')}{more})"
    return [*job_file.warnings, *plan.notes], summary


def count(number: int, noun: str) -> str:
    """*number* of *noun*, in the plural where it is due."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
