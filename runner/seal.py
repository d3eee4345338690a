"""
Know a ledger again that nobody but its writer has touched: how often it was committed, and its digest while closed.

SQLite takes a WAL that was cut, or left behind by a copy, for the work of a crash, and goes on without what was in it:
jobs would be sent and paid for again. So their number is kept beside it, too.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.errors import RecordError

_TEXT = re.compile(rb"(\d{20})\n(?:([0-9a-f]{32})\n)?")
_COUNT_LENGTH = 21


class Seal:
    """
    The file beside the ledger at *ledger*; whoever writes to that opens it.

    It is never ahead of the ledger: a count is written when its commit is durable, and a digest is gone from the disk
    before the ledger changes. So a crash at any point makes it say less, never anything wrong.

    Attributes:
        commits: How many commits it knows of; 0 where it says nothing.
        is_whole: Whether the ledger was closed, and has every byte that it had then.

    Raises:
        RecordError: the ledger is not as it was closed, or the file can't be written.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._path = ledger.with_name(f".{ledger.stem}.seal")
        self.is_whole = False
        with self._said_plainly():
            self._file: int | None = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            said = _TEXT.fullmatch(os.pread(self._file, 100, 0))  # else it is new, or a crash kept it from the disk
        self.commits = int(said[1]) if said else 0
        if said and said[2]:
            try:
                self._break(said[2].decode())
            except BaseException:
                self.leave()
                raise

    def _break(self, digest: str) -> None:
        """Hold the ledger against its *digest*, which is out of date from now on."""
        assert self._file is not None
        if not self._has_wal():
            if _digest(self._ledger) != digest:
                raise self._changed(f"{self._ledger} is not as it was closed: some of its bytes have changed")
            self.is_whole = True
        with self._said_plainly():
            os.ftruncate(self._file, _COUNT_LENGTH)
            os.fsync(self._file)

    def check(self, commits: int) -> None:
        """
        Make sure that a ledger with so many *commits* has lost none.

        Raises:
            RecordError: it has.
        """
        if commits < self.commits:
            raise self._changed(
                f"{self._ledger} has lost what was written last: {self.commits} commits were made, and it has {commits}"
            )
        self.commits = commits

    def committed(self) -> None:
        """One more commit is durable."""
        self.commits += 1
        if self._file is not None:
            with self._said_plainly():
                os.pwrite(self._file, b"%020d\n" % self.commits, 0)

    def close(self) -> None:
        """The ledger is closed: keep its digest, if all of it is in its one file."""
        if self._file is None:
            return
        with suppress(OSError):  # then it says less, which harms nobody; what the disk does to others is said by them
            if self.commits and not self._has_wal():
                os.pwrite(self._file, b"%020d\n%s\n" % (self.commits, _digest(self._ledger).encode()), 0)
        self.leave()

    def leave(self) -> None:
        """Close the file as it is."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _has_wal(self) -> bool:
        wal = self._ledger.with_name(f"{self._ledger.name}-wal")
        return wal.exists() and wal.stat().st_size > 0

    def _changed(self, message: str) -> RecordError:
        return RecordError(
            message,
            fix="put the batch's folder back from a copy, all of it, or start a new batch with --fresh, which may pay"
            f" again for what was sent; delete {self._path} to go on with what is there",
        )

    @contextmanager
    def _said_plainly(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RecordError(
                f"{self._path} can't be written: {error.strerror or error}",
                fix="see that the disk has room and the folder can be written, then go on with --resume",
            ) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
