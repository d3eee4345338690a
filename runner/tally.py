"""Count, purely: what progress, the verdict and the report all read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from runner.states import SETTLED, Outcome, State, Verdict


@dataclass(slots=True)
class JobTally:
    """
    The runs of one job: how many are planned, in flight, and settled by state and outcome.

    *settled_before* of them took this process no time: they were settled when it took the batch up, or an earlier
    batch had their results; *reused* are all of the latter kind. *execution_ms* is what all attempts that ended took on
    their workers, those of earlier processes included; *timed_attempts* of them had a time.
    *waits_for* are the jobs that it waits for before its first run.
    """

    planned: int
    in_flight: int = 0
    retried: int = 0
    settled_before: int = 0
    reused: int = 0
    execution_ms: int = 0
    timed_attempts: int = 0
    waits_for: tuple[str, ...] = ()
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

    def ended(self, execution_ms: int | None) -> None:
        """Count the end of an attempt, whether its run settles or is tried again; None is a time that nobody gave."""
        if execution_ms is not None:
            self.execution_ms += execution_ms
            self.timed_attempts += 1


class Tally:
    """The runs of a batch, by job."""

    def __init__(self, planned: Mapping[str, int]) -> None:
        self.jobs = {job: JobTally(count) for job, count in planned.items()}

    def restore(
        self,
        counts: Mapping[str, Mapping[tuple[State, Outcome | None], int]],
        spent: Mapping[str, tuple[int, int]] = MappingProxyType({}),
        reused: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """
        Count what a ledger holds, so that totals always cover the whole batch: *counts* are runs, as `Ledger.counts`
        has them, *spent* by job the attempts that have a time and the sum of it in ms, as `Ledger.spent` has them,
        *reused* of the runs have the result of an earlier batch.
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
