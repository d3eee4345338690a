"""Judge whether a job may begin, by the runs of the jobs that it needs. Pure."""

from collections.abc import Callable, Mapping
from enum import Enum

from runner.needs import needed
from runner.records import record
from runner.render import Render, RenderError
from runner.spec import Job
from runner.states import State
from runner.tally import JobTally
from runner.values import JsonObject

WHEN_FALSE = "when is false"
"""How every reason ends for which runs are skipped because the job's author said so: they are no failure."""


class Standing(Enum):
    """Where a needed job stands."""

    UNDER_WAY = "under way"
    SETTLED = "settled"
    """All of its runs are."""

    LEFT = "left"
    """Nothing more of it will settle in this process, and not all of it is settled: a resume goes on with it."""


@record(frozen=True, slots=True)
class Closed:
    """The job's runs are skipped, and *why*."""

    why: str

    @property
    def is_wanted(self) -> bool:
        """Whether the author of the job file said so, by `when`."""
        return self.why.endswith(WHEN_FALSE)


@record(frozen=True, slots=True)
class Gate:
    """What lets one job begin. *when* is its expression, None where none is written."""

    job: Job
    when: Render | None
    vars: JsonObject

    @property
    def waits_for(self) -> tuple[str, ...]:
        """The jobs that must be settled; a source of rows need not be, where it is only read as it settles."""
        needs, rows = needed(self.job), self.job.rows
        is_streamed = self.job.when is None and not rows.collect
        return tuple(name for name in needs if not (is_streamed and name == rows.job))

    def judged(self, tallies: Mapping[str, JobTally], closed: Callable[[str], Closed | None]) -> Closed | None:
        """
        Why the job may not begin, once all that it waits for are settled; None when it may. *tallies* are by job;
        *closed* says the same of each job that it needs.
        """
        if self.job.when is not None:
            return self._by_when(tallies)
        for name in self.waits_for:
            tally = tallies[name]
            failed = tally.planned - tally.states[State.SUCCEEDED]
            if failed and name != self.job.rows.job:
                return skipped(name, closed(name)) or Closed(
                    f"{failed} of {tally.planned} runs of job '{name}' did not succeed"
                )
        return None

    def _by_when(self, tallies: Mapping[str, JobTally]) -> Closed | None:
        if self.when is None:
            return None
        seen = {name: _counts(tallies[name]) for name in needed(self.job)}
        try:
            return None if self.when({"jobs": seen, "vars": self.vars}) else Closed(WHEN_FALSE)
        except RenderError as error:
            return Closed(f"when: {error.message}")


def skipped(name: str, closed: Closed | None) -> Closed | None:
    """Why a job is skipped that needs the job *name*, when that one was skipped by its own `when`."""
    if closed is None or not closed.is_wanted:
        return None
    return Closed(f"job '{name}' was skipped: {WHEN_FALSE}")


def _counts(tally: JobTally) -> dict[str, int]:
    states = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.SKIPPED)
    return {"runs": tally.planned} | {state.value: tally.states[state] for state in states}
