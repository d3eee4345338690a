"""The recorder of a simulated life: the real one, with a virtual disk's pace in place of its thread."""

import asyncio
from typing import TYPE_CHECKING

from runner.events import Event
from runner.record import Done, Entry, Recorder
from runner.store import Store

if TYPE_CHECKING:
    from torture.simulation.process import Process


class SimRecorder(Recorder):
    """Groups events and writes them as the real one does; a group takes as long as the scenario's disk."""

    def __init__(self, store: Store, process: "Process") -> None:
        super().__init__(store)
        self._process = process
        self._thread = _NoThread()  # type: ignore[assignment]

    def _put(self, event: Event, done: Done | None) -> None:
        super()._put(event, done)
        self._process.told(event)

    def _hand_over(self, group: list[Entry]) -> None:
        asyncio.get_running_loop().call_later(self._process.commit_s(), self._written, group)

    def _written(self, group: list[Entry]) -> None:
        refused = self._write(group)
        if self._failure is None and not self._process.is_dead:
            self._process.durable([event for event, _ in group])
        self._end(group, refused)


class _NoThread:
    def start(self) -> None:
        """Nothing: the loop does its work."""

    def join(self) -> None:
        """It has ended."""
