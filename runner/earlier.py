"""Look runs up in the earlier batches of a job file, which are only read."""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import BinaryIO, Self

from runner.batch import Folder, newest_first
from runner.errors import RunnerError
from runner.events import FileClaim, Settled
from runner.ledger import Ledger
from runner.records import record
from runner.results import is_same, settled
from runner.runs import Run
from runner.shapes import SHAPES
from runner.states import State

log = logging.getLogger(__name__)

DEPTH = 30
"""So many earlier batches are looked at, the newest: each is two or three open files."""

CACHE_KIB = 512
"""What the pages of one earlier ledger may take in memory: keys come in no order, so more would help little."""


@record(frozen=True, slots=True)
class Found:
    """A result of an earlier batch: the end of the run there, and the files that it made."""

    batch: Folder
    settled: Settled
    files: Sequence[FileClaim]


class Before:
    """One earlier batch, of which the results of *jobs* can be taken. Who opens it closes it."""

    def __init__(self, folder: Folder, ledger: Ledger, lines: BinaryIO, jobs: frozenset[str]) -> None:
        self.folder = folder
        self.jobs = jobs
        self._ledger = ledger
        self._lines = lines

    @classmethod
    def open(cls, folder: Folder, wanted: Mapping[str, str]) -> Self | None:
        """
        The batch in *folder*; None where no job of it has the shape that is *wanted*.

        Raises:
            RunnerError: its ledger can't be read.
            OSError: its results can't be read.
        """
        ledger = Ledger.read_only(folder.ledger)
        try:
            shapes = ledger.noted(SHAPES) or {}
            jobs = frozenset(name for name, one in wanted.items() if shapes.get(name) == [one])
            if jobs and folder.results.exists():
                ledger.database.do(f"PRAGMA cache_size = -{CACHE_KIB}")
                ledger.database.do("BEGIN")  # until it is closed: each look-up by itself would take its locks anew
                return cls(folder, ledger, folder.results.open("rb"), jobs)
        except BaseException:
            ledger.close()
            raise
        ledger.close()
        return None

    def find(self, run: Run) -> Found | None:
        """
        What came of *run* there; None when it did not succeed, or its line is not as it was written.

        Raises:
            RunnerError: the ledger is damaged.
            OSError: the results can't be read.
        """
        place = self._ledger.succeeded_line(run.key)
        if place is None:
            return None
        text = os.pread(self._lines.fileno(), place.length, place.offset)
        if not is_same(text, place.digest):
            log.warning("a result of an earlier batch is not as it was written", extra=fields(run, self.folder))
            return None
        event = settled(text)
        if event.state is not State.SUCCEEDED or event.ending is None or event.run.key != run.key:
            return None
        return Found(self.folder, event, self._ledger.artifacts(run.key) if event.ending.artifacts else ())

    def close(self) -> None:
        """Close its files."""
        with closing(self._ledger):
            self._lines.close()


class Earlier:
    """
    The earlier batches of a job file whose results can be taken, the newest first; *notes* say which can't be read.

    Looking through them takes a look-up in each, by an index that is on disk already.
    """

    def __init__(self, batches: Sequence[Before], notes: Sequence[str]) -> None:
        self.notes = tuple(notes)
        self._batches = list(batches)

    @classmethod
    def open(cls, folder: Folder, wanted: Mapping[str, str]) -> Self:
        """
        Those beside the batch in *folder* that have results of the jobs and shapes *wanted*. One that can't be read has
        a note, and hides no other.
        """
        found: list[Before] = []
        notes: list[str] = []
        others = [one for one in newest_first(folder.root) if one.path != folder.path]
        for one in others[:DEPTH] if wanted else ():
            try:
                before = Before.open(one, wanted)
            except (RunnerError, OSError) as error:
                notes.append(_note(one, error))
                continue
            if before is not None:
                found.append(before)
        for note in notes:
            log.warning("%s", note)
        if found:
            log.info("results of earlier batches are reused", extra={"batches": [one.folder.id for one in found]})
        return cls(found, notes)

    def holding(self, job: str) -> list[Before]:
        """The batches that have results of *job*."""
        return [one for one in self._batches if job in one.jobs]

    def leave(self, before: Before, error: RunnerError | OSError) -> None:
        """Look at *before* no more: it has turned out not to be readable."""
        log.warning("%s", _note(before.folder, error))
        self._batches.remove(before)
        before.close()

    def close(self) -> None:
        """Close all files."""
        for one in self._batches:
            one.close()
        self._batches.clear()


def _note(folder: Folder, error: RunnerError | OSError) -> str:
    why = error.message if isinstance(error, RunnerError) else error.strerror or str(error)
    return f"nothing is reused from batch {folder.id}: {why}"


def fields(run: Run, batch: Folder) -> dict[str, object]:
    """What the log says of *run* in an earlier *batch*."""
    return {"job": run.job, "run": run.key, "batch": batch.id}
