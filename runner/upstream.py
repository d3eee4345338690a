"""Read the settled runs of one job of a batch as the rows of another, in the order of settling, while it runs."""

import os
from collections.abc import Iterator
from pathlib import Path

from runner.errors import RecordError
from runner.ledger import Ledger, SettledRun
from runner.records import record
from runner.results import is_same
from runner.states import State
from runner.values import JsonObject, parse

AT_ONCE = 200
"""So many places of lines are read from the ledger together; a line itself is read when its turn comes."""


@record(frozen=True, slots=True)
class Given:
    """
    A settled run as a row. *number* is its place in its own plan; *why* says that it has nothing to give, None for one
    that succeeded.
    """

    number: int
    row: JsonObject
    why: str | None


class Upstream:
    """
    The runs of *job* that are settled durably. Its only state is how far results.jsonl was read, so a restart begins at
    the beginning and finds the same rows in the same order.
    """

    def __init__(self, job: str, ledger: Ledger, results: Path) -> None:
        self._job = job
        self._ledger = ledger
        self._results = results
        self._file: int | None = None
        self._offset = -1

    def new(self) -> Iterator[Given]:
        """
        What has settled since it was last asked, to the end of it.

        Raises:
            RecordError: results.jsonl can't be read, or is not as it was written.
        """
        while found := self._ledger.settled_after(self._offset, AT_ONCE):
            for run in found:
                self._offset = run.place.offset
                if run.job == self._job:
                    yield _given(run, self._line(run))

    def _line(self, run: SettledRun) -> JsonObject:
        place = run.place
        try:
            if self._file is None:
                self._file = os.open(self._results, os.O_RDONLY | os.O_CLOEXEC)
            text = os.pread(self._file, place.length, place.offset)
        except OSError as error:
            message = f"{self._results} can't be read: {error.strerror or error}"
            raise RecordError(message, fix="see who may read it, and its disk") from None
        if not is_same(text, place.digest):
            raise RecordError(
                f"{self._results} is not as it was written: the line at byte {place.offset} has changed",
                fix="restore the file from a copy; the ledger beside it still knows every job id",
            )
        line: JsonObject = parse(text)
        return line

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _given(run: SettledRun, line: JsonObject) -> Given:
    has_succeeded = run.state is State.SUCCEEDED
    row: JsonObject = {name: line[name] for name in ("job", "key", "index", "row", "matrix", "repeat")}
    row["output"] = line.get("output") if has_succeeded else None
    row["artifacts"] = line["artifacts"] if has_succeeded else []
    return Given(run.index, row, None if has_succeeded else _why(run))


def _why(run: SettledRun) -> str:
    named = f"run {run.index} of job '{run.job}'"
    if run.state is State.FAILED:
        return f"{named} failed" if run.outcome in (None, "failed") else f"{named} failed: {run.outcome}"
    return f"{named} was {run.state}" + (f": {run.message}" if run.state is State.SKIPPED and run.message else "")
