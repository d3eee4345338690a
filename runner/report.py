"""Fold ledger records into the health report, and write it."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field

from runner import cost
from runner.batch import Folder
from runner.clock import iso
from runner.cost import NONE, Costs
from runner.course import Course
from runner.durable import write_whole
from runner.events import Sampled
from runner.gates import WHEN_FALSE
from runner.judge import Judged, Numbers, all_hold, judge
from runner.ledger import Ledger
from runner.records import record
from runner.states import SETTLED, Outcome, State
from runner.thresholds import Threshold, all_of
from runner.values import JsonObject, dump

RANKS = (50.0, 95.0, 99.0, 100.0)
RANK_NAMES = ("p50", "p95", "p99", "max")

PERCENTS = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
"""The statistics of thresholds that are percentiles; the other one is the mean."""


@record(frozen=True, slots=True)
class Told:
    """
    What the report needs and the ledger's tables don't hold: all of it stands in the manifest or in its notes.

    *of_jobs* are the thresholds of those jobs that have any. *stopped* says by job, for those that were stopped for
    good, why; *needs* which jobs each of those needs that do. *telling* are the jobs whose outputs are asked for what
    they cost.
    """

    batch: str
    name: str
    planned: Mapping[str, int]
    endpoint_of: Mapping[str, str]
    cost_per_second: Mapping[str, float | None]
    started_at: float
    ended_at: float | None
    verdict: str
    thresholds: tuple[Threshold, ...] = ()
    of_jobs: Mapping[str, tuple[Threshold, ...]] = field(default_factory=dict)
    stopped: Mapping[str, str] = field(default_factory=dict)
    telling: Collection[str] = ()
    profile: str | None = None
    needs: Mapping[str, Sequence[str]] = field(default_factory=dict)


def told(ledger: Ledger, folder: Folder, *, verdict: str | None = None) -> Told:
    """Read what a batch's manifest and notes say of it; *verdict* is used while the ledger has none."""
    manifest = folder.read_manifest()
    spec, planned = manifest["spec"], ledger.noted("plan")
    return Told(
        batch=folder.id,
        name=manifest["name"],
        planned=planned,
        endpoint_of={job: spec["jobs"][job]["endpoint"] for job in planned},
        cost_per_second={name: endpoint.get("cost_per_second") for name, endpoint in spec["endpoints"].items()},
        started_at=ledger.noted("started_at"),
        ended_at=ledger.noted("ended_at"),
        verdict=ledger.noted("verdict") or verdict or "running",
        thresholds=all_of(spec.get("thresholds", {})),
        of_jobs={job: found for job in planned if (found := all_of(spec["jobs"][job].get("thresholds", {})))},
        stopped=ledger.noted("stopped") or {},
        telling=tuple(job for job in planned if spec["jobs"][job].get("cost") is not None),
        profile=manifest.get("overrides", {}).get("profile"),
        needs={job: needs for job in planned if (needs := _needs(spec["jobs"][job]))},
    )


def _needs(job: JsonObject) -> list[str]:
    """The jobs that come before *job* of a manifest; one of an older version needs none."""
    source = job.get("rows", {}).get("job")
    return [*job.get("needs", ()), *([] if source is None else [source])]


def fold(ledger: Ledger, facts: Told) -> JsonObject:
    """The health report of a batch, over all its resumes: the object of health.json. It speaks of one moment."""
    with ledger.snapshot():
        counts, reused, costs = ledger.counts(), ledger.reused(), ledger.costs()
        jobs = {
            job: _job(ledger, job, planned, counts.get(job, {}), reused.get(job, 0), costs.get(job, NONE), facts)
            for job, planned in facts.planned.items()
        }
        for job in jobs:
            awaited = [name for name in facts.needs.get(job, ()) if name in jobs and jobs[name]["pending"]]
            if awaited and jobs[job]["pending"] and job not in counts:
                jobs[job]["waits_for"] = awaited
        endpoints = _endpoints(ledger, dict.fromkeys(facts.endpoint_of.values()), is_over=facts.ended_at is not None)
        thresholds = judged(ledger, facts)
    totals = {
        word: sum(job[word] for job in jobs.values()) for word in ("runs", *_WORDS, "pending", "retried", "reused")
    }
    cost_usd, basis = cost.total(jobs.values())
    return {
        "verdict": facts.verdict,
        "batch": {
            "id": facts.batch,
            "name": facts.name,
            "profile": facts.profile,
            "started_at": iso(facts.started_at),
            "ended_at": None if facts.ended_at is None else iso(facts.ended_at),
            **totals,
            "cost_usd": cost_usd,
            "cost_basis": basis,
        },
        "endpoints": endpoints,
        "jobs": jobs,
        "thresholds": [one.as_json() for one in thresholds],
    }


def judged(ledger: Ledger, facts: Told) -> tuple[Judged, ...]:
    """
    The thresholds of *facts*, held against what the ledger holds now: those of the batch against all jobs together,
    then those of each job.
    """
    if not facts.thresholds and not facts.of_jobs:
        return ()
    counts = ledger.counts()
    found = judge(facts.thresholds, _numbers(ledger, facts, facts.thresholds, counts, None))
    for job, bounds in facts.of_jobs.items():
        found += judge(bounds, _numbers(ledger, facts, bounds, counts, job), job)
    return found


def thresholds_hold(ledger: Ledger, facts: Told) -> bool | None:
    """
    Whether all thresholds of *facts* hold, None when there are none. Where jobs have some and the batch has none, every
    run of the other jobs must have succeeded, too, or be skipped because the job file says so.
    """
    found = all_hold(judged(ledger, facts))
    if found is None or facts.thresholds:
        return found
    counts = ledger.counts()
    for job, planned in facts.planned.items():
        succeeded = sum(count for (state, _), count in counts.get(job, {}).items() if state is State.SUCCEEDED)
        if job not in facts.of_jobs and succeeded < planned:
            found = found and succeeded + ledger.skipped_because(WHEN_FALSE, job) == planned
    return found


def _numbers(
    ledger: Ledger,
    facts: Told,
    bounds: Iterable[Threshold],
    counts: Mapping[str, Mapping[tuple[State, Outcome | None], int]],
    job: str | None,
) -> Numbers:
    """What *bounds* are held against: the numbers of *job*, None being all jobs together."""
    jobs = list(facts.planned) if job is None else [job]
    found: Counter[str] = Counter()
    for name in jobs:
        for (state, outcome), count in counts.get(name, {}).items():
            found[state.value] += count
            found["answer_lost"] += count if outcome is Outcome.ANSWER_LOST else 0
    if any(one.metric == "retried" for one in bounds):
        found["retried"] = ledger.tried_again(job)
    asked = [(one.metric, one.statistic) for one in bounds if one.statistic is not None]
    return Numbers(
        planned=sum(facts.planned[name] for name in jobs),
        counts=found,
        times_ms={(metric, statistic): _time(ledger, job, metric, statistic) for metric, statistic in asked},
        cost_usd=_cost_of(ledger, facts, jobs) if any(one.unit == "USD" for one in bounds) else None,
    )


def _time(ledger: Ledger, job: str | None, metric: str, statistic: str) -> float | None:
    """The *statistic* of a time of *job*, or of all jobs together, in ms."""
    column = f"{metric}_ms"
    if statistic in PERCENTS:
        return ledger.percentiles(job, column, [PERCENTS[statistic]])[0]
    mean = ledger.mean(job, column)
    return None if mean is None else round(mean, 3)


def _cost_of(ledger: Ledger, facts: Told, jobs: Sequence[str]) -> float | None:
    """What *jobs* cost together, as their own figures add up; None where that of one is not known."""
    spent, costs = ledger.spent(), ledger.costs()
    amounts = [
        _cost_usd(
            facts,
            job,
            spent.get(job, (0, 0))[1],
            costs.get(job, NONE),
            is_free=job in facts.telling and job not in costs and not ledger.untold(job),
        )
        for job in jobs
    ]
    known = [amount for amount in amounts if amount is not None]
    return round(sum(known), 6) if len(known) == len(amounts) else None


def _cost_usd(facts: Told, job: str, execution_ms: int, costs: Costs, *, is_free: bool) -> float | None:
    """
    What attempts told, and of the others execution only: start-up and idle time are billed too, so the bill is higher.
    *is_free*: there was no attempt that should have told and did not.
    """
    amount = cost.spent_usd(execution_ms, costs, facts.cost_per_second.get(facts.endpoint_of[job]))
    if amount is None:
        return 0.0 if is_free else None
    return round(amount, 6)


def write(folder: Folder, report: JsonObject) -> None:
    """Put *report* into the batch's health.json, whole or not at all."""
    write_whole(folder.health, dump(report) + b"\n")


_WORDS = tuple(state.value for state in State if state in SETTLED)


def _job(
    ledger: Ledger,
    job: str,
    planned: int,
    counts: Mapping[tuple[State, Outcome | None], int],
    reused: int,
    costs: Costs,
    facts: Told,
) -> JsonObject:
    states = {word: sum(count for (state, _), count in counts.items() if state.value == word) for word in _WORDS}
    outcomes: Counter[str] = Counter()
    for (state, outcome), count in counts.items():
        if outcome is not None and state in SETTLED:
            outcomes[outcome.value] += count
    retried, execution_time_ms = ledger.attempt_totals(job)
    is_telling = job in facts.telling or costs.told > 0
    untold = ledger.untold(job) if is_telling else 0
    cost_usd = _cost_usd(facts, job, execution_time_ms, costs, is_free=is_telling and not untold)
    return {
        "runs": planned,
        **states,
        "pending": planned - sum(states.values()),
        "outcomes": dict(sorted(outcomes.items())),
        "retried": retried,
        "reused": reused,
        "delay_time_ms": _percentiles(ledger, job, "delay_time_ms"),
        "execution_time_ms": _percentiles(ledger, job, "execution_time_ms"),
        "errors": [{"message": message, "count": count} for message, count in ledger.errors(job)],
        "cost_usd": cost_usd,
        "cost_basis": None if cost_usd is None else cost.basis(costs, untold, is_asked=is_telling),
        **({"cost_untold": untold} if is_telling else {}),
        "stopped": facts.stopped.get(job),
    }


def _percentiles(ledger: Ledger, job: str, column: str) -> JsonObject:
    return dict(zip(RANK_NAMES, ledger.percentiles(job, column, RANKS), strict=True))


def _endpoints(ledger: Ledger, planned: Iterable[str], *, is_over: bool) -> JsonObject:
    """
    What was seen of each endpoint. The diagnosis is of the newest looks, or of all of them if that is well now and the
    batch *is_over*; the counters are the last that could be read.
    """
    courses = {name: Course() for name in planned}
    read: dict[str, Sampled] = {}
    for sample in ledger.samples():
        courses.setdefault(sample.endpoint, Course()).add(sample)
        if sample.problem is None:
            read[sample.endpoint] = sample
    return {
        name: {
            "samples": course.looks,
            "diagnosis": course.over_all() if is_over else course.now(),
            "evidence": course.evidence(),
            "jobs": read[name].jobs if name in read else {},
            "workers": read[name].workers if name in read else {},
        }
        for name, course in courses.items()
    }
