"""Judge a batch's numbers, purely: whether its thresholds hold, and whether a job has gone far enough to be stopped."""

import math
from collections.abc import Iterable, Mapping, Sequence

from runner.records import record
from runner.states import Outcome, State
from runner.tally import JobTally
from runner.thresholds import Threshold, parse, percent
from runner.values import JsonObject


@record(frozen=True, slots=True)
class Numbers:
    """
    What the thresholds of a whole batch are held against.

    *counts* are runs, by metric. *times_ms* are of the settled runs of all jobs, by metric and statistic: None where no
    run has a time; what no threshold asks for need not be there. *cost_usd* is None where a rate is not known.
    """

    planned: int
    counts: Mapping[str, int]
    times_ms: Mapping[tuple[str, str], float | None]
    cost_usd: float | None

    def value(self, threshold: Threshold) -> float | None:
        """The number that *threshold* bounds, in its unit; None when there is none."""
        if threshold.statistic is not None:
            return self.times_ms[threshold.metric, threshold.statistic]
        if threshold.unit == "USD":
            return self.cost_usd
        count = self.counts[threshold.metric]
        if threshold.unit == "share":
            return count / self.planned if self.planned else None
        return count


@record(frozen=True, slots=True)
class Judged:
    """A threshold, the number that it bounds (None when there is none), and whether it holds; *job* is whose it is."""

    threshold: Threshold
    value: float | None
    holds: bool
    job: str | None = None

    def as_json(self) -> JsonObject:
        """The threshold as health.json has it."""
        bound = self.threshold
        of: JsonObject = {} if self.job is None else {"job": self.job}
        return of | {"name": bound.metric, "bound": bound.text, "value": self.value, "pass": self.holds}


def judge(thresholds: Iterable[Threshold], numbers: Numbers, job: str | None = None) -> tuple[Judged, ...]:
    """
    *thresholds*, of the whole batch or of *job*, held against *numbers* of the same, in their order.

    One that has no number fails, unless no run was planned at all: a night without new rows is no failure.
    """
    judged = []
    for threshold in thresholds:
        value = numbers.value(threshold)
        holds = not numbers.planned if value is None else threshold.holds(value)
        judged.append(Judged(threshold, value, holds, job))
    return tuple(judged)


def all_hold(judged: Iterable[Judged]) -> bool | None:
    """Whether every threshold holds; None when there are none."""
    held = [one.holds for one in judged]
    return all(held) if held else None


def said(one: JsonObject) -> str:
    """A threshold of health.json, with the number that it bounds, for people: ``failed < 1%: 3.2%``."""
    of = f"{one['job']}: " if one.get("job") else ""
    return f"{of}{one['name']} {one['bound']}: {parse(one['name'], one['bound']).say(one['value'])}"


BLIND = 5
"""A budget is not kept while so many attempts ended of which nobody knows what they cost."""


@record(frozen=True, slots=True)
class StopAt:
    """
    When one job is stopped for good (``stop_when``); None is no limit. *usd_per_s* is what its endpoint costs; without
    it the outputs are to tell (``cost``). *aborts* are thresholds of the job, each of which stops it once it can't hold
    any more. *longest_s* is how long an attempt may take; None is not known.
    """

    failed_count: int | None = None
    failed_share: float | None = None
    cost_usd: float | None = None
    usd_per_s: float | None = None
    aborts: tuple[Threshold, ...] = ()
    longest_s: float | None = None

    @property
    def is_any(self) -> bool:
        """Whether anything stops the job; what a second costs stops nothing by itself."""
        return (
            self.failed_count is not None
            or self.failed_share is not None
            or self.cost_usd is not None
            or bool(self.aborts)
        )


def stop_reason(job: JobTally, at: StopAt) -> str | None:
    """
    Why *job* is to start nothing more, as a sentence; None while it may, and while nothing is left to start.

    Money is what was spent, and a reserve for the runs in flight: each may cost what an attempt cost on average so far,
    which is nothing while no attempt has ended. Spent is what attempts told, and for those that did not their execution
    at the endpoint's rate; where none is known, what the others cost on average.
    """
    if job.pending <= job.in_flight:
        return None
    return _too_many_failed(job, at) or _too_dear(job, at) or lost(at.aborts, [(job, at.usd_per_s)])


def lost(thresholds: Iterable[Threshold], jobs: Sequence[tuple[JobTally, float | None]]) -> str | None:
    """
    Why one of *thresholds*, which are of all *jobs* together, can't hold any more, whatever becomes of the runs that
    are not settled; None while all can. Each job comes with what a second of its endpoint costs.

    A share is one of the whole plan, so the first failure of many breaks no bound that the last one could still hold.
    """
    for threshold in thresholds:
        low, high = _reach(threshold, jobs)
        if (value := threshold.lost(low, high)) is not None:
            how = "already" if value == low else "at most"
            return f"threshold {threshold.metric} {threshold.text} can't hold any more: {how} {threshold.say(value)}"
    return None


def _reach(threshold: Threshold, jobs: Sequence[tuple[JobTally, float | None]]) -> tuple[float, float]:
    """The least and the most that the number of *threshold* can be when every run is settled, in its unit."""
    if threshold.unit == "USD":
        return sum(job.spent_usd(usd_per_s) or 0 for job, usd_per_s in jobs), math.inf
    count = sum(_counted(job, threshold.metric) for job, _ in jobs)
    elsewhere = sum(job.elsewhere for job, _ in jobs)
    most = count + sum(job.pending for job, _ in jobs) + elsewhere
    planned = sum(job.planned for job, _ in jobs) + elsewhere
    if threshold.unit == "share":
        return (count / planned, most / planned) if planned else (-math.inf, math.inf)
    return count, most


def _counted(job: JobTally, metric: str) -> int:
    return job.outcomes[Outcome.ANSWER_LOST] if metric == "answer_lost" else job.states[State(metric)]


def _too_many_failed(job: JobTally, at: StopAt) -> str | None:
    if at.failed_count is not None and job.failed >= at.failed_count:
        limit = str(at.failed_count)
    elif at.failed_share is not None and job.failed / job.planned >= at.failed_share:
        limit = percent(at.failed_share)
    else:
        return None
    return f"stop_when: {job.failed} of {job.planned} runs failed (limit {limit})"


def _too_dear(job: JobTally, at: StopAt) -> str | None:
    if at.cost_usd is None or not job.priced_attempts:
        return None
    spent_usd = _spent_usd(job, at)
    if spent_usd is None:
        if job.untold_attempts < BLIND:
            return None
        return (
            f"stop_when: none of {job.untold_attempts} attempts told what it cost, so nobody knows what is spent"
            f" (limit {_as_written(at.cost_usd)} USD); mend 'cost', or give the endpoint its cost_per_second"
        )
    reserve_usd = job.in_flight * spent_usd / job.priced_attempts
    if round(spent_usd + reserve_usd, 9) < at.cost_usd:  # ten times 0.1 is 0.9999999999999999
        return None
    reserve = f" and about {_usd(reserve_usd)} USD in flight" if reserve_usd else ""
    return f"stop_when: {_usd(spent_usd)} USD spent{reserve} (limit {_as_written(at.cost_usd)} USD)"


def _spent_usd(job: JobTally, at: StopAt) -> float | None:
    """What *job* has spent, as its budget counts it; None where nothing is known."""
    spent_usd = job.spent_usd(at.usd_per_s)
    if at.usd_per_s is None and spent_usd is not None:  # then attempts told it, and the others cost about as much
        spent_usd += job.untold_attempts * spent_usd / job.costs.told
    return spent_usd


def may_widen(job: JobTally, at: StopAt) -> bool:
    """
    Whether *job*, which is about to begin one more attempt, may begin another beside it without a risk for its budget.

    Each may cost what an attempt cost on average so far; while none has ended, all that it has time for. So a first
    burst can't spend what the whole job may. Where only outputs tell, one by one is tried until one did.
    """
    if at.cost_usd is None:
        return True
    spent_usd = _spent_usd(job, at) if job.priced_attempts else None
    if spent_usd is not None:
        each_usd: float | None = spent_usd / job.priced_attempts
    elif at.usd_per_s is None:
        return False
    else:
        each_usd = None if at.longest_s is None else at.longest_s * at.usd_per_s
    return each_usd is None or (spent_usd or 0.0) + (job.in_flight + 2) * each_usd <= at.cost_usd


def _usd(amount: float) -> str:
    return f"{amount:.4f}" if amount >= 0.01 else f"{amount:.6f}"


def _as_written(amount: float) -> str:
    return f"{amount:.2f}" if round(amount, 2) == amount else f"{amount:.15g}"
