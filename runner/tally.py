"""Count, purely: what progress, the verdict and the report all read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.states import SETTLED, Outcome, State, Verdict


@dataclass(slots=True)
class JobTally:
    """
    The runs of one job: how many are planned, in flight, and settled by state and outcome.

    *settled_before* of them were settled when this process took the batch up.
    """

    planned: int
    in_flight: int = 0
    retried: int = 0
    settled_before: int = 0
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

    def settle(self, state: State, outcome: Outcome | None, count: int = 1) -> None:
        """Count *count* runs that settled."""
        self.states[state] += count
        if outcome is not None:
            self.outcomes[outcome] += count


class Tally:
    """The runs of a batch, by job."""

    def __init__(self, planned: Mapping[str, int]) -> None:
        self.jobs = {job: JobTally(count) for job, count in planned.items()}

    def restore(self, counts: Mapping[str, Mapping[tuple[State, Outcome | None], int]]) -> None:
        """Count what a ledger holds as settled, so that totals always cover the whole batch."""
        for job, found in counts.items():
            for (state, outcome), count in found.items():
                if state in SETTLED:
                    self.jobs[job].settle(state, outcome, count)
                    self.jobs[job].settled_before += count

    def total(self, state: State) -> int:
        """Runs of all jobs that settled in *state*."""
        return sum(job.states[state] for job in self.jobs.values())

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


def verdict(tally: Tally, *, interrupted: bool, refused: bool, stopped: bool) -> Verdict:
    """
    What the batch came to. Without thresholds it passes when every run succeeded, whatever came after the last one.

    A refusal is said before an interrupt: it will still be there after a resume.
    """
    if tally.total(State.SUCCEEDED) == tally.planned:
        return Verdict.PASS
    if refused:
        return Verdict.REFUSED
    if interrupted and (tally.pending or tally.total(State.CANCELLED)):
        return Verdict.INTERRUPTED
    if stopped:
        return Verdict.STOPPED
    return Verdict.FAIL
