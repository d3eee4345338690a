"""Where a job's rows come from: a data file, the job file itself, or nowhere, which is one run without a row."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runner import render
from runner.inputs.base import BadRow, Report, Tape, changed
from runner.inputs.kinds import KINDS
from runner.values import JsonObject


@dataclass(frozen=True, slots=True)
class InputFile:
    """A data file as the plan was made from it. *rows* counts all of them, before `where` and `limit`."""

    path: Path
    sha256: str
    size_bytes: int
    rows: int


class Inline:
    """Rows in the job file; a job without rows has one, which is None."""

    copy = staticmethod(render.copy)

    def __init__(self, rows: list[JsonObject] | None) -> None:
        self._rows: list[JsonObject] | list[None] = [None] if rows is None else rows

    def rows(self, report: Report) -> Iterator[JsonObject | None]:
        """Every row."""
        return (render.copy(row) for row in self._rows)


class DataFile:
    """
    Rows in a file.

    The first reading to the end digests it; a later one that meets another file raises UsageError, at its start when
    size or time of change differ, else at its end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: InputFile | None = None
        kind = path.suffix.lower().lstrip(".")
        self._read = KINDS[kind]
        self.copy: Callable[[JsonObject], JsonObject] = render.copy if kind == "jsonl" else dict
        self._stamp: tuple[int, int] | None = None

    def rows(self, report: Report) -> Iterator[JsonObject]:
        """Every row. Raises BadRow for what can't be read on, and UsageError when the file changed."""
        self.verify()
        tape, count = Tape(self.path), 0
        try:
            for row in self._read(tape, report):
                count += 1
                if self.file is not None and count > self.file.rows:
                    raise changed(self.path)
                yield row
        except (BadRow, OSError):
            if self.file is None:
                raise
            raise changed(self.path) from None  # it was readable to the end once
        now = InputFile(self.path, tape.sha256, tape.size_bytes, count)
        self.verify()
        if self.file is None:
            self.file = now
        elif self.file != now:
            raise changed(self.path)

    def verify(self) -> None:
        """Raise UsageError when the file's size or time of change is not what it was."""
        try:
            status = self.path.stat()
        except OSError:
            if self._stamp is None:
                raise
            raise changed(self.path) from None
        stamp = (status.st_size, status.st_mtime_ns)
        if self._stamp is None:
            self._stamp = stamp
        elif stamp != self._stamp:
            raise changed(self.path)
