"""The lines of results.jsonl that stand at one moment, also while a batch is live: none torn, none superseded."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from runner.batch import Folder
from runner.errors import RunnerError, UsageError
from runner.ledger import Ledger, Place
from runner.results import is_same
from runner.values import JsonObject, parse

Line = tuple[bytes, JsonObject]
"""A line as it stands, newline included, and what it says."""

LOOKS = 3
"""How often files are looked at that change meanwhile: the end of a batch writes results.jsonl anew, once."""


class Lines:
    """
    The whole lines that results.jsonl had when it was opened. They can be read again; a torn last one is left out.

    A batch that has only just begun may have no file yet, and then has no lines. Opening and reading raise UsageError
    when the file can't be read, or a line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = 0
        self._file: BinaryIO | None = None
        self.superseded: Sequence[tuple[int, int]] = ()  # where lines begin and end that are left out, upwards
        with self._said_plainly(), suppress(FileNotFoundError):
            self._file = path.open("rb")
            self._end = os.fstat(self._file.fileno()).st_size

    @property
    def is_replaced(self) -> bool:
        """Whether another file has the name by now."""
        try:
            return self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __iter__(self) -> Iterator[Line]:
        if self._file is None:
            return
        end, gaps = 0, iter(self.superseded)
        gap = next(gaps, None)
        with self._said_plainly():
            self._file.seek(0)
            for number, text in enumerate(self._file, 1):
                start, end = end, end + len(text)
                if end > self._end or not text.endswith(b"\n"):
                    return
                while gap is not None and start >= gap[1]:
                    gap = next(gaps, None)
                if gap is None or start < gap[0]:
                    yield text, self._parsed(number, text)

    def _parsed(self, number: int, text: bytes) -> JsonObject:
        try:
            line: JsonObject = parse(text)
        except ValueError:
            raise UsageError(
                f"line {number} of {self._path} can't be read: it is not JSON",
                fix="restore the file from a copy; a hole that a power loss left is mended by going on with the batch",
            ) from None
        return line

    @contextmanager
    def _said_plainly(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"{self._path} can't be read: {error.strerror or error}", fix="see who may read it, and its disk"
            ) from None


class Chained:
    """The lines of several batches, one after another; they can be read again."""

    def __init__(self) -> None:
        self.parts: list[Lines] = []

    def __iter__(self) -> Iterator[Line]:
        for lines in self.parts:
            yield from lines

    def close(self) -> None:
        """Close all files."""
        for lines in self.parts:
            lines.close()


def standing(folder: Folder) -> tuple[Lines, str | None]:
    """
    The lines that stand in *folder*, to be closed; and why superseded ones may be among them, None when none are.

    Raises:
        UsageError: results.jsonl can't be read.
    """
    why = None
    for _ in range(LOOKS):
        lines = Lines(folder.results)
        # The ledger after the file: as long as it speaks of superseded lines, the file that is open has them.
        try:
            with Ledger.read_only(folder.ledger) as ledger, ledger.snapshot():
                is_between = bool(ledger.noted("results_aside"))
                lines.superseded = _gaps(ledger)
        except RunnerError as error:
            return lines, error.message
        if lines.superseded or not (is_between or (folder.results.exists() and lines.is_replaced)):
            return lines, None
        why = f"the end of the batch was cut off while it wrote {folder.results} anew"
        lines.close()
    return Lines(folder.results), why


def _gaps(ledger: Ledger) -> list[tuple[int, int]]:
    """Where lines stand that no row speaks of any more."""
    superseded_end = ledger.noted("superseded_end") or 0
    gaps, end = [], 0
    if superseded_end:
        for offset, length in ledger.places():
            if offset >= superseded_end:
                break
            if offset > end:
                gaps.append((end, offset))
            end = offset + length
    if end < superseded_end:
        gaps.append((end, superseded_end))
    return gaps


def line_at(folder: Folder, place: Place) -> JsonObject | None:
    """The line of results.jsonl at *place*; None when the file has another there, or none."""
    try:
        with folder.results.open("rb") as file:
            text = os.pread(file.fileno(), place.length, place.offset)
    except OSError:
        return None
    if not is_same(text, place.digest):
        return None
    line: JsonObject = parse(text)
    return line
