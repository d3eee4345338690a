"""A batch while it runs: what a progress display reads, and what a signal asks for."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from runner.batch import Folder
from runner.dispatch import Lanes, dispatch
from runner.endpoint import LiveEndpoint
from runner.errors import RunnerError
from runner.stop import Reason, Switch
from runner.tally import Tally

log = logging.getLogger(__name__)


class Live:
    """
    One batch in flight. It is made before the first run starts.

    Attributes:
        resumed: Whether an earlier process began it.
        notes: What a person must know before it goes on.
        hints: What a person may want to know.
        afar: Says what is wrong with the remote folder; None while nothing is.
        usd_per_s: What a second of each job's endpoint costs, by job, None where the job file does not say.
        switches: What stops each job, by name.
        interrupted: Whether a signal asked for its end.
        stopped: Why jobs were stopped for good, by name, once `carry` is over.
        troubles: Why plans could not be read on, once `carry` is over.
    """

    def __init__(self, folder: Folder, tally: Tally, endpoints: Mapping[str, LiveEndpoint], *, resumed: bool) -> None:
        self.folder = folder
        self.tally = tally
        self.endpoints = endpoints
        self.resumed = resumed
        self.notes: list[str] = []
        self.hints: list[str] = []
        self.afar: Callable[[], str | None] = lambda: None
        self.usd_per_s: dict[str, float | None] = {}
        self.switches: dict[str, Switch] = {job: Switch() for job in tally.jobs}
        self.interrupted = False
        self.stopped: dict[str, str] = {}
        self.troubles: list[RunnerError] = []
        self._over_at: float | None = None  # loop time; None while nobody asked for an end
        self._scope: asyncio.Timeout | None = None
        self._is_carrying = False

    def drain(self, within_s: float) -> None:
        """
        Start nothing more; whatever is still in flight after *within_s* seconds is left to resume.

        Before the first run starts, and after the last has ended, there is nothing to wait for.
        """
        self.interrupted = True
        for switch in self.switches.values():
            switch.close(Reason.INTERRUPT)
        self._end_at(asyncio.get_running_loop().time() + (within_s if self._is_carrying else 0.0))

    def cancel(self) -> None:
        """Start nothing more, and cancel what is in flight at RunPod. What was ended for good stays so."""
        self.interrupted = True
        self._end_at(None)
        for switch in self.switches.values():
            switch.cancel(Reason.ABANDON if switch.reason is Reason.ABANDON else Reason.CANCEL)

    def abandon(self) -> None:
        """End the batch for good, whatever a signal asked for: cancel what is in flight, skip what was never sent."""
        self.interrupted = False
        self._end_at(None)
        for switch in self.switches.values():
            switch.cancel(Reason.ABANDON)

    def _end_at(self, when: float | None) -> None:
        """Let the waiting end at *when* (loop time). One that is ending in this very moment takes no new time."""
        self._over_at = when
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(when)

    @asynccontextmanager
    async def until_over(self) -> AsyncIterator[None]:
        """Let the block end in the middle, without an error, when a drain is over."""
        try:
            async with asyncio.timeout_at(self._over_at) as self._scope:
                yield
        except TimeoutError:
            if self._scope is None or not self._scope.expired():  # somebody else's
                raise
            log.warning("ended by a signal; what is in flight is left to resume")
        finally:
            self._scope = None

    async def carry(self, lanes: Sequence[Lanes]) -> None:
        """Run the lanes to their end."""
        self._is_carrying = True
        try:
            await dispatch(lanes)
        finally:
            self._is_carrying = False
            self.troubles = [one.trouble for one in lanes if one.trouble is not None]
            self.stopped = {one.name: one.stopped_because for one in lanes if one.stopped_because is not None}
