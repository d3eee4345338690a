"""
Pipelines in simulated lives: jobs whose rows are runs of others, and jobs that wait for others; and what must hold.

Each input of a run that is made of other runs names them by key (``of``) and has their outputs (``out``), so that what
was sent to RunPod can be held against the results that were on disk by then.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

WHENS: dict[str, Callable[[Mapping[str, int]], bool]] = {
    "jobs.SOURCE.failed == 0": lambda of: of["failed"] == 0,
    "jobs.SOURCE.failed > 0": lambda of: of["failed"] > 0,
    "jobs.SOURCE.succeeded > 1": lambda of: of["succeeded"] > 1,
}
"""What a job may ask of the one that it needs before it begins; what is counted are the states of that one's runs."""

EVEN = "row.index % 2 == 0"
ONE = {"of": "{{ row.key }}", "out": "{{ row.output }}"}
ALL = {
    "of": "{{ row.runs | map(attribute='key') | list }}",
    "out": "{{ row.runs | map(attribute='output') | list }}",
}
STATES = ("succeeded", "failed", "cancelled", "skipped")
WHEN_FALSE = "when is false"


def draw(
    seed: int, spec: dict[str, Any], job: Callable[[random.Random, tuple[str, ...]], dict[str, Any]]
) -> dict[str, Any]:
    """*spec* with jobs that need those that it has, in some lives; *job* draws one."""
    rng = random.Random(f"upstream {seed}")
    if rng.random() >= 0.25:
        return spec
    jobs = dict(spec["jobs"])
    for number in range(rng.choice([1, 1, 2, 3])):
        source = rng.choice(sorted(jobs))
        made = job(rng, tuple(spec["endpoints"]))
        name, kind = f"made{number}", rng.choice(["each", "each", "each", "all", "after"])
        # What is a bound until the source was read to its end, and what begins with the job's first run, say no more
        # here than for other jobs.
        for key in ("stop_when", "artifacts"):
            made.pop(key, None)
        made["timeouts"].pop("job", None)
        if kind == "after":
            made["needs"] = [source]
            made["rows"]["inline"] = made["rows"]["inline"][:8]
        else:
            made["rows"] = {"job": source} | ({"collect": True} if kind == "all" else {})
            made["input"] = ALL if kind == "all" else ONE
        if kind == "each" and rng.random() < 0.3:
            made["rows"] |= rng.choice([{"where": EVEN}, {"limit": rng.randint(1, 4)}])
        if rng.random() < 0.25:
            made["when"] = rng.choice(sorted(WHENS)).replace("SOURCE", source)
        jobs[name] = made
    return {name: value for name, value in spec.items() if name != "thresholds"} | {"jobs": jobs}


def source_of(job: Mapping[str, Any]) -> str | None:
    """The job that *job* needs; None for one that needs none."""
    needs: Sequence[str] = job.get("needs", ())
    found: str | None = job["rows"].get("job", needs[0] if needs else None)
    return found


def is_needed(jobs: Mapping[str, Any], name: str) -> bool:
    """Whether another job needs that one."""
    return any(source_of(job) == name for job in jobs.values())


def wrong_start(
    jobs: Mapping[str, Any],
    name: str,
    given: Any,
    saved: Mapping[str, Sequence[dict[str, Any]]],
    planned: int,
    *,
    is_again: bool,
) -> str | None:
    """
    Why a run of the job *name* with the input *given* may not start now, None if it may.

    *saved* are the lines of each job that are on disk, *planned* is how many runs the job has that it needs. A run that
    *is_again* tried went through its job's gate before, and a person may have had runs run again that this had counted.
    """
    job = jobs[name]
    source = source_of(job)
    if source is None:
        return None
    lines = saved.get(source, ())
    rows, when = job["rows"], job.get("when")
    waits = when is not None or "job" not in rows or rows.get("collect", False)
    if waits and len(lines) != planned:
        return f"a run of {name} was started with {len(lines)} of {planned} runs of {source} settled"
    counts = {state: sum(line["state"] == state for line in lines) for state in STATES}
    if when is not None and not is_again and not WHENS[when.replace(source, "SOURCE")](counts):
        return f"a run of {name} was started, and {when!r} is false of {counts}"
    if when is None and "job" not in rows and counts["succeeded"] != planned:
        return f"a run of {name} was started, and {source} did not succeed: {counts}"
    if "job" not in rows:
        return None
    good = {line["key"]: line for line in lines if line["state"] == "succeeded"}
    if rows.get("collect"):
        wanted = sorted(good.values(), key=lambda line: line["index"])
        if given != {"of": [line["key"] for line in wanted], "out": [line.get("output") for line in wanted]}:
            return f"a run of {name} was made of other runs of {source} than those that succeeded"
        return None
    line = good.get(given["of"])
    if line is None:
        return f"a run of {name} was made of run {given['of'][:6]} of {source}, which is not saved as a success"
    if given["out"] != line.get("output"):
        return f"a run of {name} was made of another output than run {given['of'][:6]} of {source} has"
    return f"{name} has a run of a row that 'where' drops" if _drops(rows, line) else None


def _drops(rows: Mapping[str, Any], line: Mapping[str, Any]) -> bool:
    return rows.get("where") == EVEN and line["index"] % 2 == 1


def wrong_end(jobs: Mapping[str, Any], lines: Sequence[dict[str, Any]], *, was_retried: bool) -> list[str]:
    """What is wrong with the *lines* of a batch of these *jobs* of which every run is settled."""
    by_job: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    for line in lines:
        by_job[line["job"]].append(line)
    wrong: list[str] = []
    for name, job in jobs.items():
        source = source_of(job)
        if source is None:
            continue
        made, of = by_job[name], by_job[source]
        counts = {state: sum(line["state"] == state for line in of) for state in STATES}
        ran = [line for line in made if line["state"] in ("succeeded", "failed")]
        when = job.get("when")
        if when is not None and not was_retried:
            is_open = WHENS[when.replace(source, "SOURCE")](counts)
            if ran and not is_open:
                wrong.append(f"{name} ran, and {when!r} is false")
            if is_open and any(WHEN_FALSE in _why(line) for line in made):
                wrong.append(f"{name} was skipped, and {when!r} is true")
        if when is None and "job" not in job["rows"] and ran and counts["succeeded"] != len(of):
            wrong.append(f"{name} ran, and {source} did not succeed: {counts}")
        if "job" in job["rows"]:
            wrong += _made_of(name, job["rows"], made, of)
    return wrong


def _made_of(name: str, rows: Mapping[str, Any], made: list[dict[str, Any]], of: list[dict[str, Any]]) -> list[str]:
    good = {line["key"]: line for line in of if line["state"] == "succeeded"}
    if rows.get("collect"):
        keys = [
            [one["key"] for one in line["row"]["runs"]] for line in made if line["state"] in ("succeeded", "failed")
        ]
        wanted = [line["key"] for line in sorted(good.values(), key=lambda line: line["index"])]
        wrong = (
            [f"{name} was made of other runs than those that succeeded"] if any(one != wanted for one in keys) else []
        )
        return [*wrong, f"{name} has {len(made)} runs of one collected row"] if len(made) != 1 else wrong
    keys_of = [line["row"]["key"] for line in made]
    wrong = [f"{name} has two runs of one row"] if len(keys_of) != len(set(keys_of)) else []
    strange = set(keys_of) - {line["key"] for line in of}
    wrong += [f"{name} has runs of rows that are not there: {sorted(strange)}"] if strange else []
    limit = rows.get("limit")
    wanted_keys = {key for key, line in good.items() if not _drops(rows, line)}
    if limit is None and not wanted_keys <= set(keys_of):
        wrong.append(f"{name} lacks runs of rows: {sorted(wanted_keys - set(keys_of))}")
    if limit is None and (missed := {line["key"] for line in of} - good.keys() - set(keys_of)):
        wrong.append(f"{name} lacks skipped runs of rows: {sorted(missed)}")
    if limit is not None and len(made) != min(limit, len(of)):
        wrong.append(f"{name} has {len(made)} runs, and limit {limit} of {len(of)} rows")
    if any(line["row"]["key"] not in good for line in made if line["state"] == "succeeded"):
        wrong.append(f"{name} succeeded with a row that did not")
    return wrong


@cache
def parsed(line: bytes) -> dict[str, Any]:
    """A line of results.jsonl."""
    found: dict[str, Any] = json.loads(line)
    return found


def is_wanted(line: bytes) -> bool:
    """Whether this line is of a run that is skipped because the job file says so: such runs fail no batch."""
    told = parsed(line)
    return told["state"] == "skipped" and WHEN_FALSE in _why(told)


def _why(line: Mapping[str, Any]) -> str:
    return str((line.get("error") or {}).get("message", ""))
