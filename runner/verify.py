"""Hold a batch's files against its ledger: each line of results.jsonl by its digest, artifacts by size and sha256."""

import hashlib
import os
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from runner import locations
from runner.batch import Folder
from runner.errors import UsageError
from runner.events import FileClaim
from runner.ledger import Ledger, SettledRun
from runner.records import record
from runner.results import is_same
from runner.standing import LOOKS, line_at

AT_ONCE = 500
"""So many rows are read from the ledger together."""

PIECE_BYTES = 1024 * 1024

_KEY = re.compile(rb'"key":\s?"([^"\\]*)"')
"""The key of a line, also of one that is no JSON any more."""


class Kind(StrEnum):
    """What can be wrong with a file of a batch."""

    RESULTS_SHORT = "results_short"
    LINE_CHANGED = "line_changed"
    LINE_GONE = "line_gone"
    LINES_MOVED = "lines_moved"
    """One finding for all of a file: where a line is gone, each one behind it has moved."""
    LINE_UNKNOWN = "line_unknown"
    FILE_GONE = "file_gone"
    FILE_CHANGED = "file_changed"
    FILE_UNREADABLE = "file_unreadable"


@record(frozen=True, slots=True)
class Finding:
    """
    What is not as it was written in *file*, and of which *run* it is, if of any. *line* counts from 1, *byte* is where
    it begins; of a line that is gone, where it began.
    """

    kind: Kind
    message: str
    file: Path
    run: SettledRun | None = None
    line: int | None = None
    byte: int | None = None


@dataclass(slots=True)
class Checked:
    """
    How many lines and files were looked at, and their bytes.

    *notes* are what a person has to know beside, and no damage.
    """

    lines: int = 0
    files: int = 0
    size_bytes: int = 0
    notes: list[str] = field(default_factory=list)


def verify(folder: Folder, checked: Checked) -> Iterator[Finding]:
    """
    All in *folder* that is not as it was written; *checked* counts what was looked at. Nothing is changed.

    Raises:
        UsageError: results.jsonl can't be read, or is just being written anew.
        RecordError: the ledger can't be read.
    """
    with Ledger.read_only(folder.ledger) as ledger:
        try:
            with _at_one_moment(folder.results, ledger) as file:
                yield from _Lines(folder.results, file, ledger, checked).findings()
        except OSError as error:
            raise UsageError(
                f"{folder.results} can't be read: {error.strerror or error}", fix="see who may read it, and its disk"
            ) from None
        if (url := locations.url_of(folder.path)) is None:
            yield from _artifacts(folder, ledger, checked)
        else:
            checked.notes.append(f"the artifacts of {url} are there, and were not looked at")


@contextmanager
def _at_one_moment(results: Path, ledger: Ledger) -> Iterator[BinaryIO]:
    """
    The file at *results* that *ledger* speaks of for as long as the block runs, one without lines where there is none.

    Raises:
        UsageError: it is being written anew, or that was cut off.
    """
    for _ in range(LOOKS):
        with ExitStack() as stack:
            path = results if results.exists() else Path(os.devnull)
            file = stack.enter_context(path.open("rb", buffering=PIECE_BYTES))
            # As `standing` has it: the ledger after the file, which is the old one while superseded lines are noted.
            stack.enter_context(ledger.snapshot())
            is_replaced = results.exists() and not os.path.samestat(os.fstat(file.fileno()), results.stat())
            if ledger.noted("superseded_end") or not (ledger.noted("results_aside") or is_replaced):
                yield file
                return
    raise UsageError(
        f"{results} can't be checked: the end of the batch is writing it anew, or was cut off while it did",
        fix="check the batch once it has ended; 'runner resume' ends one that was cut off",
    )


class _Lines:
    """The lines of results.jsonl at one moment: each at its place, and where that is not so, what became of it."""

    def __init__(self, path: Path, file: BinaryIO, ledger: Ledger, checked: Checked) -> None:
        self._path = path
        self._file = file
        self._ledger = ledger
        self._checked = checked
        superseded_end = ledger.noted("superseded_end") or 0
        self._end = max(ledger.lines_end(), superseded_end)
        # A hole that a power loss left is no damage: going on with the batch takes it out.
        self._superseded_end = self._end if ledger.noted("has_hole") else superseded_end
        self._size_bytes = os.fstat(file.fileno()).st_size  # after the ledger: what that speaks of is in the file
        self._wrong = array("Q")  # where lines were that are not there, upwards: 8 bytes each, if all of a million
        self._odd = self._size_bytes  # the first bytes that should not be there, as far as places tell
        self._longest = PIECE_BYTES
        self._runs = 0  # that are settled

    def findings(self) -> Iterator[Finding]:
        """All that is not as it was written."""
        self._read_places()
        ledger, path, size_bytes, end = self._ledger, self._path, self._size_bytes, self._end
        has_ended = ledger.noted("verdict") is not None and self._runs >= sum(ledger.noted("plan").values())
        if size_bytes < end:
            short = f"shorter than the ledger says: {size_bytes:,} of {end:,} bytes are there"
            yield Finding(Kind.RESULTS_SHORT, f"{path} is {short if path.exists() else 'gone'}", path)
        elif size_bytes > end and has_ended:
            self._odd = min(self._odd, end)
        elif size_bytes > end:
            self._checked.notes.append(
                f"the last {size_bytes - end:,} bytes of {path} are not in the ledger yet: the batch is not at its end,"
                " and whoever goes on with it adopts whole lines and cuts off a torn one"
            )
        if self._wrong or self._odd < size_bytes:
            # Only there every line is a run's: what is before may be superseded, what is behind was just written.
            yield from self._search(range(self._superseded_end, size_bytes if has_ended else end))

    def _read_places(self) -> None:
        """Look at each line where it was written."""
        upto = self._superseded_end
        for run in _settled(self._ledger):
            place = run.place
            if place.offset > upto:
                self._odd = min(self._odd, upto)
            upto = max(upto, place.offset + place.length)
            self._longest = max(self._longest, place.length)
            self._file.seek(place.offset)
            text = self._file.read(place.length)
            self._checked.size_bytes += len(text)
            self._runs += 1
            if not is_same(text, place.digest):
                self._wrong.append(place.offset)
        self._checked.lines += self._runs

    def _search(self, spoken: range) -> Iterator[Finding]:
        """Go through the file from where it is not as it was written, and tell lines by their keys."""
        wrong = self._wrong
        is_found, instead = bytearray(len(wrong)), array("Q", bytes(8 * len(wrong)))
        moved, first = 0, (0, 0, 0)
        for number, at, text in self._physical(min([self._odd, *wrong[:1]])):
            key = _KEY.search(text)
            place = None if key is None else self._ledger.settled_line(key[1].decode("utf-8", "replace"))
            which = _index(wrong, at if place is None else place.offset)
            if which is None or is_found[which]:
                if at in spoken and (place is None or place.offset != at):
                    yield self._line(Kind.LINE_UNKNOWN, number, at)
            elif place is None:
                instead[which] = number  # the line that was here, unless that turns up elsewhere
            elif is_same(text, place.digest):
                is_found[which], moved, first = True, moved + 1, first if moved else (number, at, place.offset)
            elif at in spoken or place.offset not in spoken:  # else it is of an earlier end of the run
                is_found[which] = True
                yield self._line(Kind.LINE_CHANGED, number, at, of=place.offset)
        if moved:
            number, at, offset = first
            more = f" (and {moved - 1:,} more have moved)" if moved > 1 else ""
            yield self._line(Kind.LINES_MOVED, number, at, f"was written at byte {offset:,}{more}", of=offset)
        for number, found, offset in zip(instead, is_found, wrong, strict=True):
            if number:
                kind = Kind.LINE_UNKNOWN if found else Kind.LINE_CHANGED
                yield self._line(kind, number, offset, of=None if found else offset)
            elif not found:
                run = self._run(offset)
                message = f"the line of {_named(run)} is gone from {self._path}: it was at byte {offset:,}"
                yield Finding(Kind.LINE_GONE, message, self._path, run, byte=offset)

    def _physical(self, start: int) -> Iterator[tuple[int, int, bytes]]:
        """Number, offset and text of each line from *start* on, of one that is longer than any of ours a part."""
        self._file.seek(0)
        number, at = 1, 0
        while at < start and (piece := self._file.read(min(PIECE_BYTES, start - at))):
            number, at = number + piece.count(b"\n"), at + len(piece)
        while text := self._file.readline(self._longest + 1):
            yield number, at, text
            while text and not text.endswith(b"\n"):
                at += len(text)
                text = self._file.readline(self._longest + 1)
            number, at = number + 1, at + len(text)

    def _run(self, offset: int) -> SettledRun:
        """The run whose line was written at *offset*."""
        return self._ledger.settled_after(offset - 1, 1)[0]

    def _line(self, kind: Kind, number: int, at: int, said: str | None = None, of: int | None = None) -> Finding:
        """What is *said* of the line that begins *at* a byte; it is that *of* the run whose line was written there."""
        run = None if of is None else self._run(of)
        said = said or ("is none that the ledger speaks of" if run is None else "is not as it was written")
        whose = "" if run is None else f": it is that of {_named(run)}"
        message = f"line {number:,} of {self._path}, at byte {at:,}, {said}{whose}"
        return Finding(kind, message, self._path, run, number, at)


def _settled(ledger: Ledger) -> Iterator[SettledRun]:
    """Every settled run, in the order of results.jsonl."""
    offset = -1
    while found := ledger.settled_after(offset, AT_ONCE):
        yield from found
        offset = found[-1].place.offset


def _index(offsets: "array[int]", offset: int) -> int | None:
    """Where *offset* is in *offsets*, which go upwards."""
    found = bisect_left(offsets, offset)
    return found if found < len(offsets) and offsets[found] == offset else None


def _named(run: SettledRun) -> str:
    return f"run {run.index} of job '{run.job}', key {run.key}"


def _artifacts(folder: Folder, ledger: Ledger, checked: Checked) -> Iterator[Finding]:
    """Files that are not as they were made. No snapshot is held: to read gigabytes would hold a live batch's WAL up."""
    after = 0
    while found := ledger.artifacts_after(after, AT_ONCE):
        after = found[-1][0]
        for _, run, claim in found:
            path = folder.path / claim.path
            wrong = _wrong(path, claim, checked)
            if wrong is not None and not _is_of(run, claim, folder):
                continue
            checked.files += 1
            if wrong is not None:
                kind, why = wrong
                yield Finding(kind, f"{path} {why}; it is an artifact of {_named(run)}", path, run)


def _wrong(path: Path, claim: FileClaim, checked: Checked) -> tuple[Kind, str] | None:
    """What is wrong with the file at *path*; None where nothing is."""
    try:
        if not path.is_file():
            return Kind.FILE_GONE, "is gone"
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes != claim.size_bytes:
                return Kind.FILE_CHANGED, f"has {size_bytes:,} bytes, and was made with {claim.size_bytes:,}"
            checked.size_bytes += size_bytes
            if hashlib.file_digest(file, "sha256").hexdigest() != claim.sha256:
                return Kind.FILE_CHANGED, "is not as it was made: its sha256 is another"
    except OSError as error:
        return Kind.FILE_UNREADABLE, f"can't be read: {error.strerror or error}"
    return None


def _is_of(run: SettledRun, claim: FileClaim, folder: Folder) -> bool:
    """Whether *claim* is one of the *run* as it settled: its line may have other names than a kill left claimed."""
    line = line_at(folder, run.place)
    return line is None or claim.path in line["artifacts"]
