"""
The one writer of a batch: results line, sync, ledger commit, in that order.

`Store` is the synchronous core. `Recorder` puts a thread around it and groups what comes in while a commit is under
way into the next one, so that a sync to disk is paid once for many runs.
"""

import asyncio
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Self

from runner.durable import sync_folder
from runner.errors import RecordError
from runner.events import Event, Settled
from runner.ledger import Ledger, Place
from runner.results import accepted, digest, settled

GROUP = 500
"""At most this many events share a commit: it bounds what waits in memory, not what is lost."""


class Store:
    """The files that hold what happened: results.jsonl and the ledger."""

    def __init__(self, ledger: Ledger, results: Path) -> None:
        self.ledger = ledger
        self._results = results
        with _said_plainly(results):
            self._file = os.open(results, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            self._end = os.lseek(self._file, 0, os.SEEK_END)
            sync_folder(results.parent)

    def write(self, events: Sequence[Event]) -> None:
        """
        Make *events* durable, in their order.

        Raises:
            RecordError: a file could not be written; whatever was not committed is unknown, and this store is done.
        """
        if not events:
            return
        placed: list[tuple[Event, Place | None]] = []
        lines: list[bytes] = []
        offset = self._end
        for event in events:
            place = None
            if isinstance(event, Settled):
                place = Place(offset, len(event.line), digest(event.line))
                lines.append(event.line)
                offset += len(event.line)
            placed.append((event, place))
        if lines:
            with _said_plainly(self._results):
                for line in lines:  # not joined: outputs may be large, and they are in memory already
                    _write_all(self._file, line)
                os.fdatasync(self._file)
            self._end = offset
        self.ledger.apply(placed)

    def repair(self) -> int:
        """
        Bring results.jsonl and the ledger together after a kill, and say how many lines were adopted.

        The ledger is committed after the line is synced, so a kill between the two leaves whole lines that no row
        speaks of: they are adopted, nothing is paid for again. A torn last line is cut. Power loss may also leave a
        line with a hole in it, before whole ones: it is left out, and they are written again.

        Raises:
            RecordError: a file can't be written, or results.jsonl is not the one that the ledger speaks of.
        """
        end = self._checked_end()
        with _said_plainly(self._results):
            os.fdatasync(self._file)  # the kill may have come before the sync, and the ledger must not be ahead
        group: list[tuple[Event, Place | None]] = []
        moved: list[Event] = []
        adopted, has_hole = 0, False
        for line in self._lines(end):
            events = self._told(line)
            has_hole = has_hole or events is None
            adopted += bool(events)
            if has_hole:
                moved += events or []
                continue
            group += [(event, Place(end, len(line), digest(line))) for event in events or []]
            end += len(line)
            if len(group) >= GROUP:
                self.ledger.apply(group)
                group = []
        self.ledger.apply(group)
        self._cut(end)
        self.write(moved)
        return adopted

    def _checked_end(self) -> int:
        """Where the last line ends that the ledger speaks of; that line must be there, unchanged."""
        last = self.ledger.last_line()
        if last is None:
            return 0
        end = last.offset + last.length
        if end > self._end:
            raise RecordError(
                f"{self._results} is shorter than the ledger says: {self._end} of {end} bytes are there",
                fix="restore the file from a copy; the ledger beside it still knows every job id",
            )
        with _said_plainly(self._results):
            line = os.pread(self._file, last.length, last.offset)
        if digest(line) != last.digest:
            raise RecordError(
                f"{self._results} is not as it was written: the line at byte {last.offset} has changed",
                fix="restore the file from a copy; the ledger beside it still knows every job id",
            )
        return end

    def _lines(self, start: int) -> Iterator[bytes]:
        """The whole lines from *start* on."""
        with _said_plainly(self._results), self._results.open("rb") as file:
            file.seek(start)
            yield from takewhile(lambda line: line.endswith(b"\n"), file)

    def _told(self, line: bytes) -> list[Event] | None:
        """What *line* tells and the ledger does not know, nothing for a run settled before; None if it is damaged."""
        try:
            event, before = settled(line), accepted(line)
        except (ValueError, KeyError, TypeError):
            return None
        if self.ledger.settled_line(event.run.key) is not None:
            return []
        if before is not None and self.ledger.awaits_answer(before.key, before.attempt):
            return [before, event]
        return [event]

    def _cut(self, end: int) -> None:
        if end == self._end:
            return
        with _said_plainly(self._results):
            os.ftruncate(self._file, end)
            os.fdatasync(self._file)
        self._end = end

    def close(self) -> None:
        """Close both files."""
        os.close(self._file)
        self.ledger.close()


class Recorder:
    """A `Store` with a thread around it; every method is for the event loop's thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: queue.SimpleQueue[tuple[Event, Future[None] | None] | None] = queue.SimpleQueue()
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
        done: Future[None] = Future()
        self._put(event, done)
        await asyncio.wrap_future(done)

    def _put(self, event: Event, done: Future[None] | None) -> None:
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
            try:
                if self._failure is None:
                    self._store.write([event for event, _ in group])
            except RecordError as error:
                self._failure = error
            except BaseException as error:  # noqa: BLE001 - a bug in the writer must reach whoever waits, not vanish
                self._failure = RecordError(f"the recorder failed: {error!r}")
                self._failure.__cause__ = error
            for _, done in group:
                if done is not None:
                    _resolve(done, self._failure)

    def _next_group(self) -> list[tuple[Event, Future[None] | None]] | None:
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


def _resolve(done: Future[None], failure: RecordError | None) -> None:
    if not done.set_running_or_notify_cancel():
        return
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


@contextmanager
def _said_plainly(path: Path) -> Iterator[None]:
    """Turn an OSError into one error that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise RecordError(
            f"{path} can't be written: {error.strerror or error}",
            fix="see that the disk has room and the folder can be written, then go on with --resume",
        ) from error
