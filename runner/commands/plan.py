"""`runner plan`: runs, payloads and an estimate; sends nothing."""

import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from runner import batch, money, values, variables, zones
from runner.check import JobFile, open_job_file
from runner.commands.validate import BETA, count
from runner.cost import Basis
from runner.errors import EXIT_INVALID, EXIT_PASS, JobFileError, UsageError
from runner.files import shown
from runner.inputs.find import STDIN
from runner.narrow import narrowed
from runner.needs import needed
from runner.payload import RUN_BODY_BYTES, RUNSYNC_BODY_BYTES, payload, wire_policy, wire_s3_config
from runner.plan import Counter, JobPlan, Plan, make_plan
from runner.row_slice import RowSlice
from runner.spec import Endpoint, Job, LocalEndpoint
from runner.units import duration, elapsed, size
from runner.values import JsonObject, JsonValue

FIRST_KEYS = 3


def plan(
    path: Path,
    *,
    overrides: Mapping[str, str] = MappingProxyType({}),
    only: Sequence[str] = (),
    profile: str | None = None,
    limit: int | None = None,
    rows: RowSlice | None = None,
    where: str | None = None,
    as_json: bool = False,
    env: Mapping[str, str] | None = None,
    stdin: TextIO | None = None,
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> int:
    """
    Show what a run of the file at *path* would submit.

    Rows of a job whose `rows.file` is ``-`` are read from *stdin*, None being this process's; from a terminal they are
    not, and only noted.

    Returns:
        0, or 2 when the file is invalid.

    Raises:
        UsageError: *overrides*, *only*, *profile* or *where* name what the file has not, or *stdin* can't be read.
    """
    out, err = out or sys.stdout, err or sys.stderr
    try:
        job_file = open_job_file(path, overrides=overrides, only=only, profile=profile, env=env)
        job_file = narrowed(job_file, rows=rows, where=where)
        with _piped(job_file, only, stdin or sys.stdin) as piped:
            planned = make_plan(job_file, only=only, limit=limit, stdin=piped)
            jobs = {name: _described(job_file, job, piped) for name, job in planned.jobs.items()}
    except JobFileError as error:
        if as_json:
            problems = [problem.as_json() for problem in error.problems]
            print(json.dumps({"problems": problems}, ensure_ascii=False), file=out)
        else:
            print(error.render(), file=err)
        return EXIT_INVALID
    for problem in (*job_file.warnings, *planned.notes):
        print(problem.render(), file=err)
    inputs = _inputs(planned, piped)
    if as_json:
        document = {"profile": job_file.profile, "jobs": jobs, "runs": planned.total, "inputs": inputs}
        if job_file.spec.schedule is not None:
            document["schedule"] = zones.facts(job_file.spec.schedule, datetime.now(UTC))
        print(json.dumps(document, ensure_ascii=False), file=out)
    else:
        print("\n".join(_lines(job_file, planned, jobs, inputs)), file=out)
    return EXIT_PASS


@contextmanager
def _piped(job_file: JobFile, only: Sequence[str], stdin: TextIO | None) -> Iterator[Path | None]:
    """What is piped into *stdin*, in a file of this block; None when no job reads it, or it is a terminal."""
    reads = any(job_file.jobs[name].rows.file == STDIN for name in job_file.chosen(only))
    if not reads or stdin is None or stdin.closed or stdin.isatty():
        yield None
        return
    import shutil  # 10 ms both, and only rows from stdin need them
    import tempfile

    with tempfile.NamedTemporaryFile(prefix="runner-plan-", suffix=".jsonl") as copy:
        try:
            shutil.copyfileobj(stdin.buffer, copy)
            copy.flush()
        except OSError as error:
            raise UsageError(f"stdin can't be copied: {error.strerror or error}", fix="pipe rows into it") from None
        yield Path(copy.name)


def _described(job_file: JobFile, planned: JobPlan, stdin: Path | None) -> dict[str, Any]:
    """One job of the plan, as ``--format json`` has it. *runs* is None when its rows were not read."""
    is_read = planned.job.rows.file != STDIN or stdin is not None
    is_made = planned.job.rows.job is not None  # of another job's runs: nobody knows the first one yet
    first = [] if is_made else list(itertools.islice(planned.expand(Counter()), FIRST_KEYS))
    body = _body(planned, first[0].input) if first else None
    endpoint = job_file.endpoints[planned.job.endpoint]
    return {
        "endpoint": planned.job.endpoint,
        "local": isinstance(endpoint, LocalEndpoint),
        "mode": planned.job.mode,
        "runs": planned.runs if is_read else None,
        "first": shown(body),
        "first_bytes": len(values.dump(body)) if body else None,
        "keys": [run.key for run in first],
        **(_costs(planned, endpoint) if is_read else _UNKNOWN),
        **_past(job_file, planned, endpoint),
    }


def _past(job_file: JobFile, planned: JobPlan, endpoint: Endpoint) -> dict[str, Any]:
    """How long runs took in an earlier batch, and what those of the plan cost at that; nothing where there is none."""
    root = batch.outputs_root(job_file.path, dir_in_file=job_file.outputs.dir, output_dir=None) / job_file.name
    told = money.past(root, planned.name, endpoint.model_dump(mode="json", by_alias=True))
    if told is None:
        return {}
    past = {"batch": told.batch, "runs": told.runs, "p50_ms": told.p50_ms, "p95_ms": told.p95_ms}
    rate = endpoint.cost_per_second
    for name, time_ms in (("p50", told.p50_ms), ("p95", told.p95_ms)):
        cost = None if rate is None else _rounded(told.cost_usd(time_ms, planned.runs, rate))
        past[f"cost_{name}_usd"] = cost
    if told.run_usd is not None:
        amounts = {"cost_run_usd": _rounded(told.run_usd), "cost_usd": _rounded(told.run_usd * planned.runs)}
        past |= {**amounts, "cost_basis": told.basis}
    return {"past": past}


def _body(planned: JobPlan, given: JsonValue) -> JsonObject:
    """The body of a submit; references stay references, and what is secret and is none does not show."""
    job = planned.job
    webhook = None if job.webhook is None else variables.shown(job.webhook)
    bucket = {} if job.s3_config is None else wire_s3_config(job.s3_config)
    s3_config: JsonObject = {
        name: variables.shown(text) if name.startswith("access") else text for name, text in bucket.items()
    }
    return payload(given, wire_policy(job.policy), webhook=webhook, s3_config=s3_config or None)


def _costs(planned: JobPlan, endpoint: Endpoint) -> dict[str, float | None]:
    """
    What execution costs, in USD: for each second that every run takes, and if all attempts took all their time.

    None for what the file doesn't tell. Neither is a bound of the bill: workers cost while they start and idle, RunPod
    runs a job again by itself when its worker dies, and a lost answer may be paid for beside its resubmit.
    """
    if endpoint.cost_per_second is None:
        return _UNKNOWN
    per_s, execution_s = planned.runs * endpoint.cost_per_second, planned.job.policy.execution_timeout_s
    at_limit = None if execution_s is None else _rounded(per_s * planned.job.retry.attempts * execution_s)
    return {"cost_per_second_usd": _rounded(per_s), "cost_at_limit_usd": at_limit}


_UNKNOWN: dict[str, float | None] = {"cost_per_second_usd": None, "cost_at_limit_usd": None}


def _rounded(amount: float) -> float:
    return float(f"{amount:.6g}")


def _inputs(planned: Plan, stdin: Path | None) -> list[dict[str, Any]]:
    return [
        {
            "path": "stdin" if file.path == stdin else str(file.path),
            "sha256": file.sha256,
            "size_bytes": file.size_bytes,
            "rows": file.rows,
        }
        for file in planned.inputs
    ]


def _lines(
    job_file: JobFile, planned: Plan, jobs: dict[str, dict[str, Any]], inputs: Sequence[dict[str, Any]]
) -> Iterator[str]:
    """The plan for people."""
    more = ", and those from stdin" if planned.notes else ""
    under = "" if job_file.profile is None else f" with profile '{job_file.profile}'"
    yield f"{job_file.path}{under}: {count(len(jobs), 'job')}, {count(planned.total, 'run')}{more}"
    if job_file.spec.schedule is not None:
        yield f"  begins {zones.summary(job_file.spec.schedule, datetime.now(UTC))}"
    for file in inputs:
        rows, digest = count(file["rows"], "row"), file["sha256"][:12]
        yield f"  {file['path']}: {rows}, {size(file['size_bytes'])}, sha256 {digest}"
    for name, job in jobs.items():
        runs = "runs from stdin" if job["runs"] is None else count(job["runs"], "run")
        where = f"local endpoint '{job['endpoint']}'" if job["local"] else f"endpoint '{job['endpoint']}'"
        rows_of = planned.jobs[name].job.rows.job
        if rows_of is not None:
            runs = f"up to {runs}, rows from job '{rows_of}',"
        yield f"\n{name}: {runs} on {where}, mode {job['mode']}"
        if job["mode"] == "batch":
            yield f"  {BETA}"
        if before := needed(planned.jobs[name].job):
            yield f"  waits for: {', '.join(before)}"
        if rows_of is not None:
            yield f"  first body: made of what job '{rows_of}' gives, so nobody knows it yet"
        if job["first"] is not None:
            most = RUNSYNC_BODY_BYTES if job["mode"] == "sync" else RUN_BODY_BYTES
            over = f", more than the {size(most)} that RunPod takes" if job["first_bytes"] > most else ""
            yield f"  first body, {size(job['first_bytes'])}{over}:"
            yield _indented(job["first"])
            yield f"  first keys: {', '.join(job['keys'])}"
        if "past" in job:
            yield _before(job["past"])
        yield from _estimate(planned.jobs[name].job, job["cost_per_second_usd"], job["cost_at_limit_usd"])


def _before(past: dict[str, Any]) -> str:
    """What an earlier batch tells of the time, and so of the cost."""
    took = f"p50 {elapsed(past['p50_ms'] / 1000)}, p95 {elapsed(past['p95_ms'] / 1000)}"
    line = f"  execution before: {took}, of {count(past['runs'], 'run')} in batch {past['batch']}"
    if "cost_usd" in past:
        about = "about" if past["cost_basis"] == Basis.EXACT else "at least"
        return f"{line}; {about} {_usd(past['cost_usd'])} USD at {_usd(past['cost_run_usd'])} a run, as outputs told"
    if past["cost_p50_usd"] is None:
        return line
    return f"{line}; about {_usd(past['cost_p50_usd'])} USD if each takes p50, {_usd(past['cost_p95_usd'])} USD at p95"


def _estimate(job: Job, per_s: float | None, at_limit: float | None) -> Iterator[str]:
    """What is known of the cost, and what is not; nothing where neither a rate nor an output tells of it."""
    if job.cost is not None:
        others = "no rate for those that do not" if per_s is None else "those that do not count by their execution"
        yield f"  cost: as outputs tell it, {others}"
    if per_s is not None:
        each = f"{_usd(per_s)} USD for each second that every run takes"
        if at_limit is not None:
            attempts, execution = count(job.retry.attempts, "attempt"), duration(job.policy.execution_timeout_s or 0.0)
            each += f"; {_usd(at_limit)} USD if each took {attempts} of {execution}"
        yield f"  execution: {each}"
    if job.stop_when.cost_usd is not None and (job.cost is not None or per_s is not None):
        on = "" if job.cost is not None else " on execution"
        yield f"  stop_when: nothing more is started once {_usd(job.stop_when.cost_usd)} USD are spent{on}"
    if per_s is not None:
        again = ", and resubmits" if job.on_answer_lost == "resubmit" else ""
        yield f"  not in it: the time in which workers start and idle, jobs that RunPod runs again by itself{again}"


def _usd(amount: float) -> str:
    """*amount* with cents, or with two digits that are not zero."""
    digits = 2 if amount <= 0 else max(2, 1 - math.floor(math.log10(amount)))
    whole, _, cents = f"{amount:,.{digits}f}".partition(".")
    return f"{whole}.{cents.rstrip('0'):0<2}"


def _indented(value: JsonValue, longest: int = 2000) -> str:
    """*value* as indented JSON, cut where it gets long; control characters are escaped by JSON itself."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    text = text if len(text) <= longest else text[:longest] + " …"
    shown = "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)
    return "\n".join(f"    {line}" for line in shown.split("\n"))
