"""Rows that can be read again and again: those of data files, and those that stand in the job file itself."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from runner import render
from runner.inputs.base import BadRow, Report, Tape, changed
from runner.inputs.find import kind_of
from runner.inputs.kinds import KINDS
from runner.records import record
from runner.values import JsonObject


@record(frozen=True, slots=True)
class InputFile:
    """A data file as the plan was made from it. *rows* counts all of them, before `where` and `limit`."""

    path: Path
    sha256: str
    size_bytes: int
    rows: int


class Source(Protocol):
    """Rows that can be read again and again, and are the same each time."""

    def copy(self, row: JsonObject, /) -> JsonObject:
        """A row that shares nothing with *row*."""
        ...

    def rows(self, report: Report) -> Iterator[JsonObject | None]:
        """Every row. Raises BadRow for what can't be read on, and UsageError when it is another than before."""
        ...

    def verify(self) -> None:
        """Raise UsageError when what was read is seen to have changed since."""
        ...

    def recall(self, known: Mapping[Path, InputFile]) -> bool:
        """Take what is *known* of its files for what a reading to the end found, where they are still those; if so."""
        ...

    @property
    def files(self) -> Sequence[InputFile]:
        """The files that were read to their ends."""
        ...


class Inline:
    """Rows in the job file; a job without rows has one, which is None."""

    copy = staticmethod(render.copy)
    files: Sequence[InputFile] = ()

    def __init__(self, rows: list[JsonObject] | None) -> None:
        self._rows: list[JsonObject] | list[None] = [None] if rows is None else rows

    def rows(self, report: Report) -> Iterator[JsonObject | None]:
        """Every row."""
        return (render.copy(row) for row in self._rows)

    def recall(self, known: Mapping[Path, InputFile]) -> bool:
        """They have no files."""
        return True

    def verify(self) -> None:
        """They can't change."""


class DataFile:
    """
    Rows in a file. *line* is where the row stands that was handed out last.

    The first reading to the end digests it; a later one that meets another file raises UsageError, at its start when
    size or time of change differ, else at its end. *shown* is what messages call it.
    """

    def __init__(self, path: Path, *, kind: str | None = None, shown: str | None = None) -> None:
        self.path = path
        self.file: InputFile | None = None
        kind = kind_of(path.name) if kind is None else kind
        self.shown = str(path) if shown is None else shown
        self.line = 0
        self._read = KINDS[kind]
        self.copy: Callable[[JsonObject], JsonObject] = dict if kind in ("csv", "tsv") else render.copy
        self._stamp: tuple[int, int] | None = None

    @property
    def files(self) -> Sequence[InputFile]:
        """The file, once it was read to its end."""
        return [self.file] if self.file is not None else []

    def rows(self, report: Report) -> Iterator[JsonObject]:
        """Every row. Raises BadRow for what can't be read on, and UsageError when the file changed."""

        def named(bad: BadRow) -> None:
            bad.file = self.shown
            report(bad)

        self.verify()
        tape, count = Tape(self.path), 0
        try:
            for row in self._read(tape, named):
                count += 1
                if self.file is not None and count > self.file.rows:
                    raise changed(self.path)
                self.line = tape.line
                yield row
        except (BadRow, OSError) as error:
            if self.file is not None:
                raise changed(self.path) from None  # it was readable to the end once
            if isinstance(error, BadRow):
                error.file = self.shown
            raise
        finally:
            tape.close()
        now = InputFile(self.path, tape.sha256, tape.size_bytes, count)
        self.verify()
        if self.file is None:
            self.file = now
        elif self.file != now:
            raise changed(self.path)

    def recall(self, known: Mapping[Path, InputFile]) -> bool:
        """Whether the file is as it is *known*: then it need not be read for what a reading to the end tells."""
        before = known.get(self.path.absolute())
        if before is None:
            return False
        try:
            self.verify()
            with self.path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != before.sha256:
                    return False
        except OSError:
            return False
        self.verify()
        self.file = replace(before, path=self.path)
        return True

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


class DataFiles:
    """Rows in several files, one after the other."""

    def __init__(self, parts: Sequence[DataFile]) -> None:
        self._parts = parts
        self.copy = parts[0].copy if len(parts) == 1 else render.copy  # flat rows are copied faster

    @property
    def files(self) -> Sequence[InputFile]:
        """Those that were read to their ends."""
        return [file for part in self._parts for file in part.files]

    def rows(self, report: Report) -> Iterator[JsonObject]:
        """Every row, file by file."""
        for part in self._parts:
            yield from part.rows(report)

    def recall(self, known: Mapping[Path, InputFile]) -> bool:
        """Whether all of them are as they are *known*."""
        return all(part.recall(known) for part in self._parts)

    def verify(self) -> None:
        """Raise UsageError when one of them changed."""
        for part in self._parts:
            part.verify()
