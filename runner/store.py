"""
Write what happened to a batch's files: results line, sync, ledger commit, in that order; mend them after a kill.

One store writes at a time, and everything in it is synchronous: `runner.record` puts a thread around it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from runner.durable import sync_folder
from runner.entries import Placed
from runner.errors import RecordError
from runner.events import Event, Forgotten, Reopened, Settled
from runner.ledger import Ledger, Place, Taken
from runner.results import LONG_BYTES, accepted, digest, is_same, settled

GROUP = 500
"""So many lines that are adopted share a commit: it bounds what waits in memory."""


MADE = "results_made"
"""What the ledger has noted by this name: how often results.jsonl was written anew; nothing when it never was."""


class Store:
    """The files that hold what happened: results.jsonl and the ledger."""

    def __init__(self, ledger: Ledger, results: Path) -> None:
        self.ledger = ledger
        self._results = results
        with _said_plainly(results):
            self._file = os.open(results, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            self._end = os.lseek(self._file, 0, os.SEEK_END)
            sync_folder(results.parent)

    def write(self, events: Sequence[Event]) -> dict[str, Taken]:
        """
        Make *events* durable, in their order.

        Returns:
            By run key, the claims that were not taken, because another run has one of the names.

        Raises:
            RecordError: a file could not be written; whatever was not committed is unknown, and this store is done.
        """
        if not events:
            return {}
        if any(isinstance(event, Forgotten) for event in events):
            self.ledger.note(superseded_end=self._end)  # every line before has its row; those that follow have none yet
        placed: list[Placed] = []
        offset = self._end
        short: list[bytes] = []
        with _said_plainly(self._results):
            for event in events:
                place = None
                if isinstance(event, Settled):
                    place = Place(offset, len(event.line), digest(event.line))
                    offset += len(event.line)
                    short.append(event.line)
                    if len(event.line) > LONG_BYTES:
                        # Not kept to be joined. Written as soon as it was read through, it is in the cache.
                        _write_each(self._file, short)
                placed.append((event, place))
            _write_each(self._file, short)
            if offset > self._end:
                os.fdatasync(self._file)
        self._end = offset
        return self.ledger.apply(placed)

    def reopen(self, events: Sequence[Reopened]) -> None:
        """Let settled runs be run again; their lines are superseded from now on, and go when the batch ends."""
        if not events:
            return
        self.ledger.note(superseded_end=self._end)
        self.ledger.apply([(event, None) for event in events])

    def drop_superseded(self) -> None:
        """
        Write results.jsonl anew without the lines of runs that were run again.

        A kill at any point leaves the old file with the old places in the ledger, or the new ones with both.
        """
        if not self.ledger.noted("superseded_end"):
            return
        aside = self._aside
        with _said_plainly(aside), aside.open("wb") as file:
            for offset, length in self.ledger.places():
                file.write(os.pread(self._file, length, offset))
            file.flush()
            os.fsync(file.fileno())
            sync_folder(aside.parent)
        made = (self.ledger.noted(MADE) or 0) + 1
        self.ledger.close_gaps(superseded_end=0, results_aside=True, **{MADE: made})
        self._take_aside()

    @property
    def _aside(self) -> Path:
        return self._results.with_name(f".{self._results.name}.new")

    def _take_aside(self) -> None:
        """Let the file that was written anew take its name; its places are in the ledger."""
        with _said_plainly(self._results):
            if self._aside.exists():
                self._aside.replace(self._results)
                sync_folder(self._results.parent)
            old, self._file = self._file, os.open(self._results, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            os.close(old)
            self._end = os.lseek(self._file, 0, os.SEEK_END)
        self.ledger.note(results_aside=False)

    def repair(self) -> int:
        """
        Bring results.jsonl and the ledger together after a kill, and say how many lines were adopted.

        The ledger is committed after the line is synced, so a kill between the two leaves whole lines that no row
        speaks of: they are adopted, nothing is paid for again. A torn last line is cut. Power loss may also leave a
        line with a hole in it, before whole ones: these are adopted, and the file is written anew without it.

        Raises:
            RecordError: a file can't be written, or results.jsonl is not the one that the ledger speaks of.
        """
        if self.ledger.noted("results_aside"):
            self._take_aside()
        end = self._checked_end()
        with _said_plainly(self._results):
            os.fdatasync(self._file)  # the kill may have come before the sync, and the ledger must not be ahead
        group: list[Placed] = []
        adopted, has_hole = 0, bool(self.ledger.noted("has_hole"))
        for line in self._lines(end):
            events = self._told(line)
            if events is None and not has_hole:
                has_hole = True
                self.ledger.note(has_hole=True)  # before the line behind it has a row: from there on nobody looks back
            adopted += bool(events)
            group += [(event, Place(end, len(line), digest(line))) for event in events or []]
            end += len(line)
            if len(group) >= GROUP:
                self.ledger.apply(group)
                group = []
        self.ledger.apply(group)
        self._cut(end)
        self.ledger.drop_claims()
        if has_hole:
            self.ledger.note(superseded_end=end, has_hole=False)
            self.drop_superseded()
        return adopted

    def _checked_end(self) -> int:
        """Where the last line ends that the ledger speaks of; that line must be there, unchanged."""
        superseded_end = self.ledger.noted("superseded_end") or 0
        last = self.ledger.last_line()
        end = max(superseded_end, last.offset + last.length if last else 0)
        if end > self._end:
            raise RecordError(
                f"{self._results} is shorter than the ledger says: {self._end} of {end} bytes are there",
                fix="restore the file from a copy; the ledger beside it still knows every job id",
            )
        if last is None:
            return int(end)
        with _said_plainly(self._results):
            line = os.pread(self._file, last.length, last.offset)
        if not is_same(line, last.digest):
            raise RecordError(
                f"{self._results} is not as it was written: the line at byte {last.offset} has changed",
                fix="restore the file from a copy; the ledger beside it still knows every job id",
            )
        return int(end)

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


def _write_each(file: int, lines: list[bytes]) -> None:
    """Write *lines*, the last of which may be long, and forget them: all short ones at once."""
    last = [lines.pop()] if lines and len(lines[-1]) > LONG_BYTES else []
    for data in filter(None, (b"".join(lines), *last)):
        _write_all(file, data)
    lines.clear()


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
