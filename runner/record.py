"""
Record what happens, in order, without holding the event loop up: a thread around the batch's one `Store`.

What comes in while a commit is under way goes into the next one, so that a sync to disk is paid once for many runs.
"""

import asyncio
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Self

from runner.errors import RecordError
from runner.events import Claimed, Event
from runner.ledger import Taken
from runner.store import Store

Done = Future[Taken | None]
"""Resolved when an event is on disk; a claim that was not taken says who has the name."""

GROUP = 500
"""At most this many events share a commit: it bounds what waits in memory, not what is lost."""


class Recorder:
    """A `Store` with a thread around it; every method is for the event loop's thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: queue.SimpleQueue[tuple[Event, Done | None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._failure: RecordError | None = None
        self._is_closed = False
        self._ended: Future[None] = Future()

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        """
        Wait until everything that was said is on disk, also while cancelled: who closes the store comes after.

        Raises:
            RecordError: something that was told could not be written, and nobody has said so yet.
        """
        self._is_closed = True
        self._queue.put(None)
        await _waited_out(asyncio.wrap_future(self._ended))
        self._thread.join()
        if kind is None:
            self._check()

    @property
    def failure(self) -> RecordError | None:
        """Why nothing can be written any more; None while all is well."""
        return self._failure

    def tell(self, event: Event) -> None:
        """
        Record *event* soon, in order. Who must know that it is durable uses `record`.

        Raises:
            RecordError: an event before it could not be written.
        """
        self._put(event, None)

    async def record(self, event: Event) -> None:
        """
        Record *event*; when this returns it is on disk.

        Raises:
            RecordError: it could not be written, nor will anything after it.
        """
        done: Done = Future()
        self._put(event, done)
        await asyncio.wrap_future(done)

    async def claim(self, event: Claimed) -> Taken | None:
        """
        Record *event*; who has one of its names already, so that it is not taken, or None when it is.

        Raises:
            RecordError: as for `record`.
        """
        done: Done = Future()
        self._put(event, done)
        return await asyncio.wrap_future(done)

    def _put(self, event: Event, done: Done | None) -> None:
        self._check()
        assert not self._is_closed, f"nobody is left to record {event}"
        self._queue.put((event, done))

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            self._write_groups()
        finally:
            self._ended.set_result(None)

    def _write_groups(self) -> None:
        while (group := self._next_group()) is not None:
            self._write_group(group)

    def _write_group(self, group: Sequence[tuple[Event, Done | None]]) -> None:
        refused: dict[str, Taken] = {}
        try:
            if self._failure is None:
                refused = self._store.write([event for event, _ in group])
        except RecordError as error:
            self._failure = error
        except BaseException as error:  # noqa: BLE001 - a bug in the writer must reach whoever waits, not vanish
            self._failure = RecordError(f"the recorder failed: {error!r}")
            self._failure.__cause__ = error
        for event, done in group:
            if done is not None:
                taken = refused.get(event.key) if isinstance(event, Claimed) else None
                _resolve(done, taken, self._failure)

    def _next_group(self) -> list[tuple[Event, Done | None]] | None:
        first = self._queue.get()
        if first is None:
            return None
        group = [first]
        while len(group) < GROUP and not self._queue.empty():
            following = self._queue.get()
            if following is None:
                self._queue.put(None)
                break
            group.append(following)
        return group


async def _waited_out(waiter: asyncio.Future[None]) -> None:
    """Wait for *waiter* to its end; a cancellation that comes meanwhile is passed on after it."""
    cancelled: asyncio.CancelledError | None = None
    while not waiter.done():
        try:
            await asyncio.shield(waiter)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _resolve(done: Done, taken: Taken | None, failure: RecordError | None) -> None:
    if not done.set_running_or_notify_cancel():
        return
    if failure is None:
        done.set_result(taken)
    else:
        done.set_exception(failure)
