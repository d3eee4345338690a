"""The recorder of a simulated life: the real one, with a virtual disk's pace in place of its thread."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from runner.events import Event
from runner.record import Done, Recorder
from runner.store import Store

if TYPE_CHECKING:
    from torture.simulation.process import Process

Entry = tuple[Event, Done | None] | None


class SimRecorder(Recorder):
    """Groups events and writes them as the real one does; a group takes as long as the scenario's disk."""

    def __init__(self, store: Store, process: "Process") -> None:
        super().__init__(store)
        self._process = process
        self._queue = _Queue(self._came)  # type: ignore[assignment]
        self._thread = _NoThread()  # type: ignore[assignment]
        self._is_busy = False

    def _put(self, event: Event, done: Done | None) -> None:
        super()._put(event, done)
        self._process.told(event)

    def _came(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        group = self._next_group()
        if group is None:
            self._ended.set_result(None)
            return
        asyncio.get_running_loop().call_later(self._process.commit_s(), self._end, group)

    def _end(self, group: list[tuple[Event, Done | None]]) -> None:
        self._write_group(group)
        if self._failure is None and not self._process.is_dead:
            self._process.durable([event for event, _ in group])
        self._is_busy = False
        if not self._queue.empty():
            self._came()


class _Queue:
    """A queue that tells when something is put into it, and is never waited at."""

    def __init__(self, came: Any) -> None:
        self._entries: deque[Entry] = deque()
        self._came = came

    def put(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._came()

    def get(self) -> Entry:
        return self._entries.popleft()

    def empty(self) -> bool:
        return not self._entries


class _NoThread:
    def start(self) -> None:
        """Nothing: the loop does its work."""

    def join(self) -> None:
        """It has ended."""
