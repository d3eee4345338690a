"""`runner plan`: runs, payloads and an estimate; sends nothing."""

import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from runner import values
from runner.check import JobFile, open_job_file
from runner.commands.validate import count
from runner.errors import EXIT_INVALID, EXIT_PASS, JobFileError
from runner.files import shown
from runner.payload import payload, wire_policy, wire_s3_config
from runner.plan import Counter, JobPlan, Plan, make_plan
from runner.spec import Endpoint, LocalEndpoint
from runner.units import duration, size
from runner.values import JsonObject, JsonValue

FIRST_KEYS = 3


def plan(
    path: Path,
    *,
    overrides: Mapping[str, str] = MappingProxyType({}),
    only: Sequence[str] = (),
    limit: int | None = None,
    as_json: bool = False,
    env: Mapping[str, str] | None = None,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """
    Show what a run of the file at *path* would submit.

    Returns:
        0, or 2 when the file is invalid.

    Raises:
        UsageError: *overrides* or *only* name what the file has not.
    """
    out, err = out or sys.stdout, err or sys.stderr
    try:
        job_file = open_job_file(path, overrides=overrides, only=only, env=env)
        planned = make_plan(job_file, only=only, limit=limit)
    except JobFileError as error:
        if as_json:
            problems = [problem.as_json() for problem in error.problems]
            print(json.dumps({"problems": problems}, ensure_ascii=False), file=out)
        else:
            print(error.render(), file=err)
        return EXIT_INVALID
    for problem in (*job_file.warnings, *planned.notes):
        print(problem.render(), file=err)
    jobs = {name: _described(job_file, job) for name, job in planned.jobs.items()}
    if as_json:
        document = {"jobs": jobs, "runs": planned.total, "inputs": _inputs(planned)}
        print(json.dumps(document, ensure_ascii=False), file=out)
    else:
        print("\n".join(_lines(path, planned, jobs)), file=out)
    return EXIT_PASS


def _described(job_file: JobFile, planned: JobPlan) -> dict[str, Any]:
    """One job of the plan, as ``--format json`` has it."""
    first = list(itertools.islice(planned.expand(Counter()), FIRST_KEYS))
    body = _body(planned, first[0].input) if first else None
    endpoint = job_file.endpoints[planned.job.endpoint]
    return {
        "endpoint": planned.job.endpoint,
        "local": isinstance(endpoint, LocalEndpoint),
        "mode": planned.job.mode,
        "runs": planned.runs,
        "first": shown(body),
        "first_bytes": len(values.dump(body)) if body else None,
        "keys": [run.key for run in first],
        "cost_at_most_usd": _cost(planned, endpoint),
    }


def _body(planned: JobPlan, given: JsonValue) -> JsonObject:
    """The body of a submit; references stay references."""
    job = planned.job
    s3_config = None if job.s3_config is None else dict(wire_s3_config(job.s3_config))
    return payload(given, wire_policy(job.policy), webhook=job.webhook, s3_config=s3_config)


def _cost(planned: JobPlan, endpoint: Endpoint) -> float | None:
    """USD for execution if every attempt took all its time; None when the file doesn't bound it."""
    execution_s = planned.job.policy.execution_timeout_s
    if endpoint.cost_per_second is None or execution_s is None:
        return None
    return float(f"{planned.runs * planned.job.retry.attempts * execution_s * endpoint.cost_per_second:.6g}")


def _inputs(planned: Plan) -> list[dict[str, Any]]:
    return [
        {"path": str(file.path), "sha256": file.sha256, "size_bytes": file.size_bytes, "rows": file.rows}
        for file in planned.inputs
    ]


def _lines(path: Path, planned: Plan, jobs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The plan for people."""
    yield f"{path}: {count(len(jobs), 'job')}, {count(planned.total, 'run')}"
    for file in planned.inputs:
        yield f"  {file.path}: {count(file.rows, 'row')}, {size(file.size_bytes)}, sha256 {file.sha256[:12]}"
    for name, job in jobs.items():
        where = f"local endpoint '{job['endpoint']}'" if job["local"] else f"endpoint '{job['endpoint']}'"
        yield f"\n{name}: {count(job['runs'], 'run')} on {where}, mode {job['mode']}"
        if job["first"] is not None:
            yield f"  first body, {size(job['first_bytes'])}:"
            yield _indented(job["first"])
            yield f"  first keys: {', '.join(job['keys'])}"
        if job["cost_at_most_usd"] is not None:
            execution_s = planned.jobs[name].job.policy.execution_timeout_s or 0.0
            attempts = count(planned.jobs[name].job.retry.attempts, "attempt")
            bound = f"if each run took {attempts} of {duration(execution_s)}"
            yield f"  execution: at most {job['cost_at_most_usd']:,.2f} USD, {bound}"


def _indented(value: JsonValue, longest: int = 2000) -> str:
    """*value* as indented JSON, cut where it gets long; control characters are escaped by JSON itself."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    text = text if len(text) <= longest else text[:longest] + " …"
    shown = "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)
    return "\n".join(f"    {line}" for line in shown.split("\n"))
