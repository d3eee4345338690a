"""A batch while it runs: what a progress display reads, and what a signal asks for."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

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
        switches: What stops each job, by name.
        interrupted: Whether somebody asked for its end.
        troubles: Why plans could not be read on, once `carry` is over.
    """

    def __init__(self, folder: Folder, tally: Tally, endpoints: Mapping[str, LiveEndpoint], *, resumed: bool) -> None:
        self.folder = folder
        self.tally = tally
        self.endpoints = endpoints
        self.resumed = resumed
        self.switches: dict[str, Switch] = {job: Switch() for job in tally.jobs}
        self.interrupted = False
        self.troubles: list[RunnerError] = []
        self._scope: asyncio.Timeout | None = None  # none before the first run starts, and after the last has ended

    def drain(self, within_s: float) -> None:
        """Start nothing more; whatever is still in flight after *within_s* seconds is left to resume."""
        self.interrupted = True
        for switch in self.switches.values():
            switch.close(Reason.INTERRUPT)
        self._end_at(asyncio.get_running_loop().time() + within_s)

    def cancel(self) -> None:
        """Start nothing more, and cancel what is in flight at RunPod."""
        self.interrupted = True
        self._end_at(None)
        for switch in self.switches.values():
            switch.cancel(Reason.CANCEL)

    def _end_at(self, when: float | None) -> None:
        """Let the waiting end at *when* (loop time). One that is ending in this very moment takes no new time."""
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(when)

    async def carry(self, lanes: Sequence[Lanes]) -> None:
        """Run the lanes to their end, or to the end of a drain."""
        try:
            async with asyncio.timeout(None) as self._scope:
                await dispatch(lanes)
        except TimeoutError:
            if self._scope is None or not self._scope.expired():  # somebody else's
                raise
            log.warning("the drain is over; what is still in flight is left to resume")
        finally:
            self._scope = None
        self.troubles = [one.trouble for one in lanes if one.trouble is not None]
