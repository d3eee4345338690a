"""Open SQLite files so that commits last, and say plainly what is wrong with one. Alone imports sqlite3."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from runner.errors import RecordError, UsageError
from runner.seal import Seal

Row = sqlite3.Row
"""A row of an answer: its values by position and by name."""

Value = Any
"""What SQLite keeps: text, bytes, an int of 64 bit, a float, None."""


class Database:
    """
    One SQLite file, or one that goes away by itself. Nothing is in a transaction but what `transaction` holds.

    A file is in WAL mode with synchronous=FULL: what a commit returned for survives power loss on an honest disk, and
    readers in other processes neither wait nor make anybody wait.
    """

    def __init__(self, connection: sqlite3.Connection, what: str) -> None:
        self._db = connection
        self._what = what  # as a message names it
        self._seal: Seal | None = None  # of one that is written to, and has one

    @classmethod
    def create(cls, path: Path, *, schema: str, version: int) -> Self:
        """Make a new file at *path*, which must not exist. A kill may leave one without tables."""
        with _said_plainly(_named(path)), closing(_connect(path, "rwc")) as db:
            db.executescript(f"BEGIN; {schema} PRAGMA user_version = {version}; COMMIT;")
        return cls.open(path, version=version)

    @classmethod
    def open(cls, path: Path, *, version: int, seal: Seal | None = None) -> Self:
        """Open the file at *path* to write; it must have *version*. Commits are counted, and *seal* knows of them."""
        database = cls._opened(path, "rw", version)
        database._seal = seal
        with _said_plainly(_named(path)):
            (mode,) = database._db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":  # SQLite doesn't call it an error
                raise sqlite3.OperationalError(f"disk I/O error, its mode stays {mode!r}")
            database._db.execute("PRAGMA synchronous = FULL")
            # Keys come in no order, so a commit touches a page or two for each event: copy them back less often than
            # SQLite would, and keep them at hand.
            database._db.execute("PRAGMA wal_autocheckpoint = 8000")
            database._db.execute("PRAGMA cache_size = -4096")
        return database

    @classmethod
    def read_only(cls, path: Path, *, version: int) -> Self:
        """Open the file at *path* to look at it, also while another process writes."""
        return cls._opened(path, "ro", version)

    @classmethod
    def _opened(cls, path: Path, mode: str, version: int) -> Self:
        with _said_plainly(_named(path)):
            db = _connect(path, mode)
            try:
                _check_version(db, path, version)
            except BaseException:
                db.close()
                raise
        return cls(db, _named(path))

    @classmethod
    def scratch(cls, *, schema: str) -> Self:
        """A database on disk that is gone when it is closed, or when its process is."""
        what = "the temporary file of a plan's keys"
        with _said_plainly(what):
            db = sqlite3.connect("", isolation_level=None)
            db.execute("PRAGMA journal_mode = OFF")
            db.execute("PRAGMA synchronous = OFF")
            db.executescript(schema)
        return cls(db, what)

    def close(self) -> None:
        """Close the file. What was committed stays."""
        self._db.close()
        if self._seal is not None:
            self._seal.close()

    def fold(self) -> None:
        """Bring everything from the WAL into the file itself. Closing does so, too, and says nothing where it fails."""
        self.first("PRAGMA wal_checkpoint(TRUNCATE)")

    def shrink(self) -> None:
        """Let go of the pages that are at hand, and sort in a MiB: for who reads all of the file once."""
        self.first("PRAGMA shrink_memory")
        self.first("PRAGMA cache_size = -1024")

    @property
    def commits(self) -> int:
        """How many commits of a transaction a sealed file has seen."""
        return int(self.first("PRAGMA application_id")[0])

    def check(self) -> None:
        """
        Look through the whole file.

        Raises:
            RecordError: it is damaged.
        """
        said = self.first("PRAGMA quick_check(1)")[0]
        if said != "ok":
            raise RecordError(f"{self._what} is damaged: {str(said).splitlines()[-1]}", fix=_FIX_DAMAGED)

    def do(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Run a statement that changes rows; how many it changed."""
        try:
            return self._db.execute(sql, values).rowcount
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _plainly(error, self._what) from error

    def do_each(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Run a statement that changes rows once for each of *rows*."""
        try:
            self._db.executemany(sql, rows)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _plainly(error, self._what) from error

    def first(self, sql: str, values: Sequence[Value] = ()) -> Any:
        """The first row of an answer; None when there is none."""
        try:
            return self._db.execute(sql, values).fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _plainly(error, self._what) from error

    def rows(self, sql: str, values: Sequence[Value] = ()) -> Iterator[Row]:
        """The rows of an answer, read as they are asked for."""
        try:
            yield from self._db.execute(sql, values)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _plainly(error, self._what) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes of the block durable together when it ends, or none when it raises."""
        with self._until_committed("BEGIN IMMEDIATE"):
            yield
            if self._seal is not None:
                self.do(f"PRAGMA application_id = {self._seal.commits + 1}")
        if self._seal is not None:
            self._seal.committed()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every answer in the block speak of the same moment, whatever others commit meanwhile."""
        with self._until_committed("BEGIN"):
            yield

    @contextmanager
    def _until_committed(self, begin: str) -> Iterator[None]:
        self.do(begin)
        try:
            yield
            self.do("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk makes SQLite roll back by itself
                self.do("ROLLBACK")
            raise


def _named(path: Path) -> str:
    return f"the ledger {path}"


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    if mode == "ro" and not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists():
        mode = "ro&immutable=1"  # nobody writes, and we can't make the -shm file that a reader needs otherwise
    quoted = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    # The recorder's thread uses the connection that another thread opened; only one of them does at any time.
    db = sqlite3.connect(
        f"file:{quoted}?mode={mode}", uri=True, isolation_level=None, timeout=10.0, check_same_thread=False
    )
    db.row_factory = sqlite3.Row
    return db


def _check_version(db: sqlite3.Connection, path: Path, wanted: int) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != wanted:
        raise UsageError(
            f"{path} is no ledger that this version reads: its format is {version}, and {wanted} is wanted",
            fix="use the runner that wrote it, manifest.json beside it names the version; --fresh starts a new batch",
        )


@contextmanager
def _said_plainly(what: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _plainly(error, what) from error


_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FIX = "see that the disk has room and the folder can be written, then go on with --resume"
_FIX_DAMAGED = (
    "put it back from a copy, or start a new batch with --fresh; results.jsonl beside it has what was settled"
)


def _plainly(error: sqlite3.Error | OSError | UnicodeDecodeError, what: str) -> Exception:
    """What SQLite says of the file, the disk or the folder, as an error that names the file and what to do."""
    if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
        return AssertionError(f"{what} was used wrongly: {error}")  # our bug, not the file's
    said = error.strerror if isinstance(error, OSError) and error.strerror else error
    if isinstance(error, UnicodeDecodeError):  # SQLite itself never looks whether a text is one
        return RecordError(f"{what} is damaged: a text in it is no UTF-8", fix=_FIX_DAMAGED)
    damaged = isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in _DAMAGED
    return RecordError(f"{what} can't be used: {said}", fix=_FIX_DAMAGED if damaged else _FIX)
