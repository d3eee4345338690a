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
from pathlib import Path
from typing import Self

from runner.errors import RecordError
from runner.events import Event, Settled
from runner.ledger import Ledger, Place
from runner.results import digest, settled

GROUP = 500
"""At most this many events share a commit: it bounds what waits in memory, not what is lost."""


class Store:
    """The files that hold what happened: results.jsonl and the ledger."""

    def __init__(self, ledger: Ledger, results: Path) -> None:
        self.ledger = ledger
        self._results = results
        with _said_plainly(results):
            self._file = os.open(results, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._end = os.lseek(self._file, 0, os.SEEK_END)

    def write(self, events: Sequence[Event]) -> None:
        """
        Make *events* durable, in their order.

        Raises:
            RecordError: a file could not be written; whatever was not committed is unknown, and this store is done.
        """
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
                _write_all(self._file, b"".join(lines))
                os.fdatasync(self._file)
            self._end = offset
        self.ledger.apply(placed)

    def repair(self) -> int:
        """
        Bring results.jsonl and the ledger together after a kill, and say how many lines were adopted.

        The ledger is committed after the line is synced, so a kill between the two leaves whole lines that no row
        speaks of: they are adopted, nothing is paid for again. A torn last line is cut.
        """
        start = self.ledger.lines_end()
        with _said_plainly(self._results):
            if start > self._end:
                raise RecordError(
                    f"{self._results} is shorter than the ledger says: {self._end} of {start} bytes are there",
                    fix="restore the file from a copy; the ledger beside it still knows every job id",
                )
            tail = os.pread(self._file, self._end - start, start)
        placed: list[tuple[Event, Place | None]] = []
        for line in tail[: tail.rfind(b"\n") + 1].splitlines(keepends=True):
            placed.append((settled(line), Place(start, len(line), digest(line))))
            start += len(line)
        if placed:
            self.ledger.apply(placed)
        self._cut(start)
        return len(placed)

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

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait until everything that was said is on disk."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    @property
    def failure(self) -> RecordError | None:
        """Why nothing can be written any more; None while all is well."""
        return self._failure

    def tell(self, event: Event) -> None:
        """Record *event* soon, in order. Who must know that it is durable uses `record`."""
        self._check()
        self._queue.put((event, None))

    async def record(self, event: Event) -> None:
        """
        Record *event*; when this returns it is on disk.

        Raises:
            RecordError: it could not be written, nor will anything after it.
        """
        self._check()
        done: Future[None] = Future()
        self._queue.put((event, done))
        await asyncio.wrap_future(done)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
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
