"""Count, purely: what progress, the verdict and the report all read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from runner.cost import NONE, Costs, spent_usd
from runner.states import SETTLED, Outcome, State, Verdict


@dataclass(slots=True)
class JobTally:
    """
    The runs of one job: how many are planned, in flight, and settled by state and outcome.

    *settled_before* of them took this process no time: they were settled when it took the batch up, or an earlier
    batch had their results; *reused* are all of the latter kind. *execution_ms* is what all attempts that ended took on
    their workers, those of earlier processes included; *timed_attempts* of them had a time. *costs* are what those of
    them cost that told it.
    *waits_for* are the jobs that it waits for before its first run. *elsewhere* are the runs that other shards of the
    batch have, of which nothing more is known here.
    """

    planned: int
    in_flight: int = 0
    retried: int = 0
    settled_before: int = 0
    reused: int = 0
    execution_ms: int = 0
    timed_attempts: int = 0
    costs: Costs = NONE
    waits_for: tuple[str, ...] = ()
    elsewhere: int = 0
    states: Counter[State] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)

    @property
    def settled(self) -> int:
        """Runs that have their last state."""
        return sum(self.states.values())

    @property
    def pending(self) -> int:
        """Runs that are not settled, whether in flight or not yet started."""
        return self.planned - self.settled

    @property
    def failed(self) -> int:
        """Runs that settled as failed."""
        return self.states[State.FAILED]

    def settle(self, state: State, outcome: Outcome | None, count: int = 1) -> None:
        """Count *count* runs that settled."""
        self.states[state] += count
        if outcome is not None:
            self.outcomes[outcome] += count

    def forget(self, state: State, outcome: Outcome | None) -> None:
        """Take back a run that settled before, and is no longer in the plan."""
        self.states[state] -= 1
        self.settled_before -= 1
        if outcome is not None:
            self.outcomes[outcome] -= 1

    def reuse(self) -> None:
        """Count a run that settled with the result of an earlier batch."""
        self.settle(State.SUCCEEDED, Outcome.COMPLETED)
        self.settled_before += 1
        self.reused += 1

    def ended(self, execution_ms: int | None, cost_usd: float | None = None) -> None:
        """
        Count the end of an attempt, whether its run settles or is tried again; None is a time, or a cost, that nobody
        told.
        """
        if execution_ms is not None:
            self.execution_ms += execution_ms
            self.timed_attempts += 1
        if cost_usd is not None:
            timed, executed_ms = (0, 0) if execution_ms is None else (1, execution_ms)
            self.costs = self.costs.plus(Costs(1, cost_usd, timed, executed_ms))

    @property
    def untold_attempts(self) -> int:
        """Attempts that have an execution time and told no cost."""
        return self.timed_attempts - self.costs.timed

    @property
    def priced_attempts(self) -> int:
        """Attempts of which it is known what they cost, or what their execution did where there is a rate."""
        return self.untold_attempts + self.costs.told

    def spent_usd(self, usd_per_s: float | None) -> float | None:
        """What the attempts cost that ended; *usd_per_s* is the endpoint's rate. None where nothing is known."""
        return spent_usd(self.execution_ms, self.costs, usd_per_s)


class Tally:
    """The runs of a batch, by job."""

    def __init__(self, planned: Mapping[str, int]) -> None:
        self.jobs = {job: JobTally(count) for job, count in planned.items()}

    def restore(
        self,
        counts: Mapping[str, Mapping[tuple[State, Outcome | None], int]],
        spent: Mapping[str, tuple[int, int]] = MappingProxyType({}),
        reused: Mapping[str, int] = MappingProxyType({}),
        costs: Mapping[str, Costs] = MappingProxyType({}),
    ) -> None:
        """
        Count what a ledger holds, so that totals always cover the whole batch: *counts* are runs, as `Ledger.counts`
        has them, *spent* by job the attempts that have a time and the sum of it in ms, as `Ledger.spent` has them,
        *reused* of the runs have the result of an earlier batch; *costs* are what attempts told that they cost.
        """
        for job, found in counts.items():
            for (state, outcome), count in found.items():
                if state in SETTLED:
                    self.jobs[job].settle(state, outcome, count)
                    self.jobs[job].settled_before += count
        for job, (attempts, execution_ms) in spent.items():
            self.jobs[job].timed_attempts += attempts
            self.jobs[job].execution_ms += execution_ms
        for job, count in reused.items():
            self.jobs[job].reused += count
        for job, told in costs.items():
            self.jobs[job].costs = self.jobs[job].costs.plus(told)

    def total(self, state: State) -> int:
        """Runs of all jobs that settled in *state*."""
        return sum(job.states[state] for job in self.jobs.values())

    @property
    def reused(self) -> int:
        """Runs of all jobs that have the result of an earlier batch."""
        return sum(job.reused for job in self.jobs.values())

    @property
    def planned(self) -> int:
        """Runs of all jobs."""
        return sum(job.planned for job in self.jobs.values())

    @property
    def pending(self) -> int:
        """Runs of all jobs that are not settled."""
        return sum(job.pending for job in self.jobs.values())

    @property
    def settled(self) -> int:
        """Runs of all jobs that are settled."""
        return self.planned - self.pending

    @property
    def in_flight(self) -> int:
        """Runs of all jobs that a lane is carrying right now."""
        return sum(job.in_flight for job in self.jobs.values())


def verdict(
    tally: Tally,
    *,
    interrupted: bool,
    refused: bool,
    stopped: bool,
    thresholds_hold: bool | None = None,
    unwanted: int = 0,
) -> Verdict:
    """
    What the batch came to.

    It passes when all its thresholds hold, or without any (*thresholds_hold* is None) when every run succeeded. What
    came after the last success changes nothing; a batch with pending runs, or one that was *stopped* for good before
    every run succeeded, is no pass whatever its thresholds say. A refusal is said before an interrupt: it will still be
    there after a resume. *unwanted* runs were skipped because the job file says so, which is as good as a success.
    """
    all_succeeded = tally.total(State.SUCCEEDED) + unwanted == tally.planned
    is_well = all_succeeded if thresholds_hold is None else thresholds_hold and not tally.pending
    if all_succeeded:
        return Verdict.PASS if is_well else Verdict.FAIL
    if refused and not is_well:
        return Verdict.REFUSED
    if interrupted and (tally.pending or tally.total(State.CANCELLED)):
        return Verdict.INTERRUPTED
    if stopped:
        return Verdict.STOPPED
    return Verdict.PASS if is_well else Verdict.FAIL
