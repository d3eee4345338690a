"""
Record what happens, in order, without holding the event loop up: a thread around the batch's one `Store`.

What comes in while a commit is under way goes into the next one, so that a sync to disk is paid once for many runs.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from runner.errors import RecordError
from runner.events import Claimed, Event
from runner.ledger import Taken
from runner.store import Store

Done = asyncio.Future[Taken | None]
"""Resolved when an event is on disk; a claim that was not taken says who has the name."""

Entry = tuple[Event, Done | None]

GROUP = 500
"""At most this many events share a commit: it bounds what waits in memory, not what is lost."""

MANY = 64
"""Where so many events shared a commit, the next one lets some gather: then it is our CPU that jobs wait for."""

APART_S = 0.016
"""
So far apart such commits begin. While one is under way, its thread and the event loop take the interpreter's lock from
each other at every statement and every answer, which was a tenth of the CPU of a batch of very short jobs.

A kill meanwhile leaves more submits in doubt. At RunPod's limits it never comes to that: 100 submits a second for an
endpoint are five events in such a time.
"""


class Afar(Protocol):
    """What keeps a second record of a batch, elsewhere (`remote/`)."""

    def saved(self) -> asyncio.Future[None]:
        """Done once all that the ledger holds now is there, too; not before, so perhaps never."""


class Recorder:
    """
    A `Store` with a thread around it; every method is for the event loop's thread.

    Attributes:
        afar: Where an intent has to be, too, before its request leaves; None where the batch folder is enough.
    """

    afar: Afar | None = None

    def __init__(self, store: Store, afar: Afar | None = None) -> None:
        self.afar = afar
        self._store = store
        self._waiting: deque[Entry] = deque()
        self._is_writing = False  # or is about to
        self._last_count = 0  # events of the last group
        self._last_begun_at = 0.0  # by the loop's clock
        self._groups: queue.SimpleQueue[list[Entry] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._failure: RecordError | None = None
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: asyncio.Future[None] | None = None  # there while somebody waits for the end

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        """
        Wait until everything that was said is on disk, also while cancelled: who closes the store comes after.

        Raises:
            RecordError: something that was told could not be written, and nobody has said so yet.
        """
        self._is_closed = True
        if self._is_writing:
            self._idle = asyncio.get_running_loop().create_future()
            await _waited_out(self._idle)
        self._groups.put(None)
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
        await self._told(event)

    def record_soon(self, event: Event) -> Done:
        """
        Record *event* soon, in order; what is returned is done when it is on disk, or raises as `record` does.

        Raises:
            RecordError: an event before it could not be written.
        """
        return self._told(event)

    async def claim(self, event: Claimed) -> Taken | None:
        """
        Record *event*; who has one of its names already, so that it is not taken, or None when it is.

        Raises:
            RecordError: as for `record`.
        """
        return await self._told(event)

    def _told(self, event: Event) -> Done:
        assert self._loop is not None
        done: Done = self._loop.create_future()
        self._put(event, done)
        return done

    def _put(self, event: Event, done: Done | None) -> None:
        if self._failure is not None:
            raise self._failure
        assert not self._is_closed, f"nobody is left to record {event}"
        self._waiting.append((event, done))
        if not self._is_writing:
            self._begin_soon()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _begin_soon(self) -> None:
        """
        Begin a group once all that happens in this turn of the loop has been said: it is one wakeup, one commit. Where
        events come thick and fast, none begins sooner than `APART_S` after the last one.
        """
        assert self._loop is not None
        self._is_writing = True
        may_gather = len(self._waiting) < GROUP and not self._is_closed
        wait_s = 0.0
        if self._last_count >= MANY and may_gather:
            wait_s = self._last_begun_at + APART_S - self._loop.time()
        if wait_s > 0:
            self._loop.call_later(wait_s, self._begin)
        else:
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        assert self._loop is not None
        group = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
        self._last_count, self._last_begun_at = len(group), self._loop.time()
        self._hand_over(group)

    def _hand_over(self, group: list[Entry]) -> None:
        """Give *group* to the thread, or, where time is simulated, to what stands for one."""
        self._groups.put(group)

    def _work(self) -> None:
        assert self._loop is not None
        while (group := self._groups.get()) is not None:
            refused = self._write(group)
            self._loop.call_soon_threadsafe(self._end, group, refused)
            del group  # its lines may be long, and the next group may be a while off

    def _write(self, group: Sequence[Entry]) -> dict[str, Taken]:
        """Write *group*, unless one before it could not be; the claims that were not taken."""
        try:
            if self._failure is None:
                return self._store.write([event for event, _ in group])
        except RecordError as error:
            self._failure = error
        except BaseException as error:  # noqa: BLE001 - a bug in the writer must reach whoever waits, not vanish
            self._failure = RecordError(f"the recorder failed: {error!r}")
            self._failure.__cause__ = error
        return {}

    def _end(self, group: Sequence[Entry], refused: Mapping[str, Taken]) -> None:
        """Tell all who wait for an event of *group* what became of it, and begin what was said meanwhile."""
        for event, done in group:
            if done is None or done.done():  # whoever waited was cancelled
                continue
            if self._failure is None:
                done.set_result(refused.get(event.key) if isinstance(event, Claimed) else None)
            else:
                done.set_exception(self._failure)
        self._is_writing = False
        if self._waiting:
            self._begin_soon()  # after those who were told have said what they do next
        elif self._idle is not None:
            self._idle.set_result(None)


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
