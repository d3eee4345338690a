"""Judge a batch's numbers, purely: whether its thresholds hold, and whether a job has gone far enough to be stopped."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runner.tally import JobTally
from runner.thresholds import Threshold, parse, percent
from runner.values import JsonObject


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Judged:
    """A threshold, the number that it bounds (None when there is none), and whether it holds."""

    threshold: Threshold
    value: float | None
    holds: bool

    def as_json(self) -> JsonObject:
        """The threshold as health.json has it."""
        bound = self.threshold
        return {"name": bound.metric, "bound": bound.text, "value": self.value, "pass": self.holds}


def judge(thresholds: Iterable[Threshold], numbers: Numbers) -> tuple[Judged, ...]:
    """
    *thresholds*, held against *numbers*, in their order.

    One that has no number fails, unless no run was planned at all: a night without new rows is no failure.
    """
    judged = []
    for threshold in thresholds:
        value = numbers.value(threshold)
        holds = not numbers.planned if value is None else threshold.holds(value)
        judged.append(Judged(threshold, value, holds))
    return tuple(judged)


def all_hold(judged: Iterable[Judged]) -> bool | None:
    """Whether every threshold holds; None when there are none."""
    held = [one.holds for one in judged]
    return all(held) if held else None


def said(one: JsonObject) -> str:
    """A threshold of health.json, with the number that it bounds, for people: ``failed < 1%: 3.2%``."""
    return f"{one['name']} {one['bound']}: {parse(one['name'], one['bound']).say(one['value'])}"


@dataclass(frozen=True, slots=True)
class StopAt:
    """When one job is stopped for good (``stop_when``); None is no limit. *usd_per_s* is what its endpoint costs."""

    failed_count: int | None = None
    failed_share: float | None = None
    cost_usd: float | None = None
    usd_per_s: float | None = None


def stop_reason(job: JobTally, at: StopAt) -> str | None:
    """
    Why *job* is to start nothing more, as a sentence; None while it may, and while nothing is left to start.

    Money is what was spent on execution, a lower bound of the bill, and a reserve for the runs in flight: each may cost
    what an attempt cost on average so far, which is nothing while no attempt has ended.
    """
    if job.pending <= job.in_flight:
        return None
    return _too_many_failed(job, at) or _too_dear(job, at)


def _too_many_failed(job: JobTally, at: StopAt) -> str | None:
    if at.failed_count is not None and job.failed >= at.failed_count:
        limit = str(at.failed_count)
    elif at.failed_share is not None and job.failed / job.planned >= at.failed_share:
        limit = percent(at.failed_share)
    else:
        return None
    return f"stop_when: {job.failed} of {job.planned} runs failed (limit {limit})"


def _too_dear(job: JobTally, at: StopAt) -> str | None:
    if at.cost_usd is None or at.usd_per_s is None or not job.timed_attempts:
        return None
    spent_usd = job.execution_ms / 1000 * at.usd_per_s
    reserve_usd = job.in_flight * spent_usd / job.timed_attempts
    if spent_usd + reserve_usd < at.cost_usd:
        return None
    reserve = f" and about {_usd(reserve_usd)} USD in flight" if reserve_usd else ""
    return f"stop_when: {_usd(spent_usd)} USD spent{reserve} (limit {_as_written(at.cost_usd)} USD)"


def _usd(amount: float) -> str:
    return f"{amount:.4f}" if amount >= 0.01 else f"{amount:.6f}"


def _as_written(amount: float) -> str:
    return f"{amount:.2f}" if round(amount, 2) == amount else f"{amount:.15g}"
