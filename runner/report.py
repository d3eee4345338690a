"""Fold ledger records into the health report, and write it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from runner.batch import Folder
from runner.clock import iso
from runner.durable import write_whole
from runner.events import Sampled
from runner.health import diagnosis
from runner.judge import Judged, Numbers, judge
from runner.ledger import Ledger
from runner.states import SETTLED, Outcome, State
from runner.thresholds import Threshold, parse
from runner.values import JsonObject, dump

RANKS = (50.0, 95.0, 99.0, 100.0)
RANK_NAMES = ("p50", "p95", "p99", "max")

PERCENTS = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
"""The statistics of thresholds that are percentiles; the other one is the mean."""


@dataclass(frozen=True, slots=True)
class Told:
    """
    What the report needs and the ledger's tables don't hold: all of it stands in the manifest or in its notes.

    *stopped* says by job, for those that were stopped for good, why.
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
    stopped: Mapping[str, str] = field(default_factory=dict)


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
        thresholds=tuple(parse(metric, text) for metric, text in spec.get("thresholds", {}).items()),
        stopped=ledger.noted("stopped") or {},
    )


def fold(ledger: Ledger, facts: Told) -> JsonObject:
    """The health report of a batch, over all its resumes: the object of health.json. It speaks of one moment."""
    with ledger.snapshot():
        counts = ledger.counts()
        jobs = {job: _job(ledger, job, planned, counts.get(job, {}), facts) for job, planned in facts.planned.items()}
        endpoints = _endpoints(ledger, dict.fromkeys(facts.endpoint_of.values()))
        thresholds = judged(ledger, facts)
    totals = {word: sum(job[word] for job in jobs.values()) for word in ("runs", *_WORDS, "pending", "retried")}
    return {
        "verdict": facts.verdict,
        "batch": {
            "id": facts.batch,
            "name": facts.name,
            "started_at": iso(facts.started_at),
            "ended_at": None if facts.ended_at is None else iso(facts.ended_at),
            **totals,
        },
        "endpoints": endpoints,
        "jobs": jobs,
        "thresholds": [one.as_json() for one in thresholds],
    }


def judged(ledger: Ledger, facts: Told) -> tuple[Judged, ...]:
    """The thresholds of *facts*, held against what the ledger holds now of all jobs together, in their order."""
    if not facts.thresholds:
        return ()
    counts: Counter[str] = Counter()
    for job in ledger.counts().values():
        for (state, outcome), count in job.items():
            counts[state.value] += count
            counts["answer_lost"] += count if outcome is Outcome.ANSWER_LOST else 0
    counts["retried"] = ledger.tried_again()
    asked = [(one.metric, one.statistic) for one in facts.thresholds if one.statistic is not None]
    return judge(
        facts.thresholds,
        Numbers(
            planned=sum(facts.planned.values()),
            counts=counts,
            times_ms={(metric, statistic): _time(ledger, metric, statistic) for metric, statistic in asked},
            cost_usd=_cost_of_all(ledger, facts),
        ),
    )


def _time(ledger: Ledger, metric: str, statistic: str) -> float | None:
    """The *statistic* of a time of all jobs together, in ms."""
    column = f"{metric}_ms"
    if statistic in PERCENTS:
        return ledger.percentiles(None, column, [PERCENTS[statistic]])[0]
    mean = ledger.mean(None, column)
    return None if mean is None else round(mean, 3)


def _cost_of_all(ledger: Ledger, facts: Told) -> float | None:
    """What all jobs cost together, as their own figures add up; None where the rate of one is not known."""
    spent = ledger.spent()
    costs = [_cost_usd(facts, job, spent.get(job, (0, 0))[1]) for job in facts.planned]
    known = [cost for cost in costs if cost is not None]
    return round(sum(known), 6) if len(known) == len(costs) else None


def _cost_usd(facts: Told, job: str, execution_ms: int) -> float | None:
    """Execution only: start-up and idle time are billed too, so the bill is higher."""
    rate = facts.cost_per_second.get(facts.endpoint_of[job])
    return None if rate is None else round(execution_ms / 1000 * rate, 6)


def write(folder: Folder, report: JsonObject) -> None:
    """Put *report* into the batch's health.json, whole or not at all."""
    write_whole(folder.health, dump(report) + b"\n")


_WORDS = tuple(state.value for state in State if state in SETTLED)


def _job(
    ledger: Ledger, job: str, planned: int, counts: Mapping[tuple[State, Outcome | None], int], facts: Told
) -> JsonObject:
    states = {word: sum(count for (state, _), count in counts.items() if state.value == word) for word in _WORDS}
    outcomes: Counter[str] = Counter()
    for (state, outcome), count in counts.items():
        if outcome is not None and state in SETTLED:
            outcomes[outcome.value] += count
    retried, execution_time_ms = ledger.attempt_totals(job)
    return {
        "runs": planned,
        **states,
        "pending": planned - sum(states.values()),
        "outcomes": dict(sorted(outcomes.items())),
        "retried": retried,
        "delay_time_ms": _percentiles(ledger, job, "delay_time_ms"),
        "execution_time_ms": _percentiles(ledger, job, "execution_time_ms"),
        "errors": [{"message": message, "count": count} for message, count in ledger.errors(job)],
        "cost_usd": _cost_usd(facts, job, execution_time_ms),
        "stopped": facts.stopped.get(job),
    }


def _percentiles(ledger: Ledger, job: str, column: str) -> JsonObject:
    return dict(zip(RANK_NAMES, ledger.percentiles(job, column, RANKS), strict=True))


def _endpoints(ledger: Ledger, planned: Iterable[str]) -> JsonObject:
    """
    What was seen of each endpoint. The diagnosis is of the newest look; the counters are the last that could be read.
    """
    looks: Counter[str] = Counter()
    newest: dict[str, Sampled | None] = dict.fromkeys(planned)
    read: dict[str, Sampled] = {}
    for sample in ledger.samples():
        looks[sample.endpoint] += 1
        newest[sample.endpoint] = sample
        if sample.problem is None:
            read[sample.endpoint] = sample
    return {
        name: {
            "samples": looks[name],
            "diagnosis": diagnosis(sample),
            "jobs": read[name].jobs if name in read else {},
            "workers": read[name].workers if name in read else {},
        }
        for name, sample in newest.items()
    }
