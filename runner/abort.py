"""Stop a whole batch once a threshold of it, which says ``abort: true``, can't hold any more."""

from collections.abc import Mapping

from runner.judge import lost
from runner.stop import Reason, Switch
from runner.tally import Tally
from runner.thresholds import Threshold


class Abort:
    """
    The thresholds of a batch that stop all of its jobs. Each job's lanes `look` when a run of theirs has settled.

    Attributes:
        why: Why the batch starts nothing more, as a sentence; None while it may.
    """

    def __init__(
        self,
        thresholds: Mapping[str, tuple[Threshold, ...]],
        tally: Tally,
        switches: Mapping[str, Switch],
        usd_per_s: Mapping[str, float | None],
    ) -> None:
        """*usd_per_s* is what a second of each job's endpoint costs, by job."""
        self.why: str | None = None
        self._thresholds = [one for bounds in thresholds.values() for one in bounds if one.abort]
        self._tally = tally
        self._switches = switches
        self._jobs = [(job, usd_per_s.get(name)) for name, job in tally.jobs.items()]

    @property
    def is_asked(self) -> bool:
        """Whether any threshold stops the batch."""
        return bool(self._thresholds)

    def look(self) -> str | None:
        """Why nothing more is to start, None while it may; all jobs are told. Where nothing is left to start it may."""
        if self.why is None and self._thresholds and self._tally.pending > self._tally.in_flight:
            self.why = lost(self._thresholds, self._jobs)
            if self.why is not None:
                for switch in self._switches.values():
                    switch.close(Reason.STOP_WHEN)
        return self.why
