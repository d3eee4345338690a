"""Make job files for tests."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.check import JobFile, open_job_file
from runner.plan import Counter, Run, make_plan

HANDLER = "def handler(job):\n    return job['input']\n"


def write(folder: Path, job: Mapping[str, Any], *, text: str | None = None, **more: Any) -> Path:
    """A job file with one job on a local endpoint; *text* takes the place of all of it."""
    (folder / "echo.py").write_text(HANDLER)
    whole = {"version": 1, "name": "t", "endpoints": {"local": {"handler": "echo.py:handler"}}}
    whole |= {"jobs": {"only": {"endpoint": "local", "input": {"x": 1}} | dict(job)}} | more
    path = folder / "job.yaml"
    path.write_text(as_yaml(whole) if text is None else text)
    return path


def as_yaml(value: object) -> str:
    """*value* as JSON that is YAML, too: which has no pairs of surrogates, and more characters to escape."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda odd: f"\\u{ord(odd[0]):04x}", text)


def opened(folder: Path, job: Mapping[str, Any], **more: Any) -> JobFile:
    """The checked job file of `write`."""
    return open_job_file(write(folder, job, **more), env={})


def runs(folder: Path, job: Mapping[str, Any], *, limit: int | None = None, **more: Any) -> list[Run]:
    """Every run of that job."""
    plan = make_plan(opened(folder, job, **more), limit=limit)
    expanded = list(plan.jobs["only"].expand(Counter()))
    assert len(expanded) == plan.total
    return expanded
