"""
Keep the record of runs and attempts, and read it back to resume and to report. Alone imports sqlite3.

A run gets its row when it is first intended, or settled without ever being sent; a run without a row is pending.
SQLite is in WAL mode with synchronous=FULL: what a commit returned for survives power loss on an honest disk.
"""

import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from runner.errors import RecordError, UsageError
from runner.events import (
    Accepted,
    CancelDecided,
    Destination,
    Ended,
    Ending,
    Event,
    Intended,
    Sampled,
    Settled,
    Withdrawn,
)
from runner.plan import Run
from runner.states import SETTLED, Outcome, State
from runner.values import MISSING, JsonObject, JsonValue, dump, parse

VERSION = 1

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE runs (
    key TEXT PRIMARY KEY, job TEXT NOT NULL, position INTEGER NOT NULL, state TEXT NOT NULL, outcome TEXT,
    attempts INTEGER NOT NULL, given TEXT NOT NULL,
    line_offset INTEGER, line_length INTEGER, line_digest BLOB, settled_at REAL);
CREATE INDEX runs_by_state ON runs (job, state, outcome);
CREATE TABLE attempts (
    key TEXT NOT NULL, attempt INTEGER NOT NULL, endpoint TEXT NOT NULL, base_url TEXT NOT NULL,
    endpoint_id TEXT NOT NULL, intended_at REAL NOT NULL, job_id TEXT, submitted_at REAL, cancel_at REAL,
    ended_at REAL, outcome TEXT, status TEXT, worker_id TEXT, delay_time_ms INTEGER, execution_time_ms INTEGER,
    error TEXT, PRIMARY KEY (key, attempt));
CREATE TABLE samples (endpoint TEXT NOT NULL, at REAL NOT NULL, jobs TEXT NOT NULL, workers TEXT NOT NULL,
    problem TEXT);
"""
# `given` is JSON: the row, matrix, repeat and input of the run, enough to send it again without the job file.


@dataclass(frozen=True, slots=True)
class Place:
    """Where a settled run's line stands in results.jsonl."""

    offset: int
    length: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class OpenRun:
    """
    A run that has a row and is not settled, as resume finds it.

    *attempt* is the number of its last attempt, 0 for none; *ended* says whether that attempt has ended, so that the
    run waits for the next one. *outcomes* are the endings of all its attempts, in order; None is an attempt that ended
    with its embedded endpoint. *last* is how the last one ended, its output left out.
    *first_at* is when the first attempt was intended, the start of ``timeouts.run``.
    """

    run: Run
    attempt: int
    ended: bool
    destination: Destination
    job_id: str | None
    submitted_at: float | None
    first_at: float
    outcomes: tuple[Outcome | None, ...]
    last: Ending | None


class Ledger:
    """One batch's ledger.sqlite. One object writes; any number may read."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self.path = path

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new ledger at *path*, which must not exist."""
        with _said_plainly(path):
            db = _connect(f"file:{_quoted(path)}?mode=rwc")
            _make_durable(db)
            db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        return cls(db, path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the ledger at *path* to go on with it."""
        with _said_plainly(path):
            db = _connect(f"file:{_quoted(path)}?mode=rw")
            _check_version(db, path)
            _make_durable(db)
        return cls(db, path)

    @classmethod
    def read_only(cls, path: Path) -> Self:
        """Open the ledger at *path* to look at it, also while another process writes; never disturbs that one."""
        with _said_plainly(path):
            db = _connect(f"file:{_quoted(path)}?mode=ro")
            _check_version(db, path)
        return cls(db, path)

    def close(self) -> None:
        """Close the file. What was committed stays."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing

    def apply(self, events: Sequence[tuple[Event, Place | None]]) -> None:
        """Commit *events* in one durable transaction, in their order; the place belongs to a `Settled`."""
        with _said_plainly(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for event, place in events:
                    self._apply(event, place)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _apply(self, event: Event, place: Place | None) -> None:
        match event:
            case Intended():
                self._intend(event)
            case Withdrawn():
                self._withdraw(event)
            case Accepted():
                self._accept(event)
            case CancelDecided():
                self._attempt(event.key, event.attempt, cancel_at=event.at)
            case Ended():
                self._end(event.key, event.attempt, event.ending, event.at)
                self._run(event.key, state=State.PENDING)
            case Settled():
                self._settle(event, place)
            case Sampled():
                row = (event.endpoint, event.at, dump(event.jobs), dump(event.workers), event.problem)
                self._db.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", row)

    def _intend(self, event: Intended) -> None:
        run, to = event.run, event.destination
        self._db.execute(
            "INSERT INTO runs (key, job, position, state, attempts, given) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET state = excluded.state, attempts = excluded.attempts",
            (run.key, run.job, run.index, State.SUBMITTING, event.attempt, _given(run)),
        )
        self._db.execute(
            "INSERT INTO attempts (key, attempt, endpoint, base_url, endpoint_id, intended_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (run.key, event.attempt, to.name, to.base_url, to.endpoint_id, event.at),
        )

    def _withdraw(self, event: Withdrawn) -> None:
        self._db.execute("DELETE FROM attempts WHERE key = ? AND attempt = ?", (event.key, event.attempt))
        if event.attempt == 1:  # it never was anything else than pending, so it goes back to having no row
            self._db.execute("DELETE FROM runs WHERE key = ?", (event.key,))
        else:
            self._run(event.key, state=State.PENDING, attempts=event.attempt - 1)

    def _accept(self, event: Accepted) -> None:
        self._attempt(event.key, event.attempt, job_id=event.job_id, submitted_at=event.at)
        self._run(event.key, state=State.SUBMITTED)

    def _end(self, key: str, attempt: int, ending: Ending | None, at: float) -> None:
        if ending is None:
            self._attempt(key, attempt, ended_at=at)
            return
        self._attempt(
            key,
            attempt,
            ended_at=at,
            outcome=ending.outcome,
            status=ending.status,
            worker_id=ending.worker_id,
            delay_time_ms=ending.delay_time_ms,
            execution_time_ms=ending.execution_time_ms,
            error=None if ending.error is None else dump(ending.error).decode(),
        )

    def _settle(self, event: Settled, place: Place | None) -> None:
        assert place is not None, "a settled run has a line"
        run, ending = event.run, event.ending
        if ending is not None and event.attempts:
            self._end(run.key, event.attempts, ending, event.at)
        columns: dict[str, object] = {
            "state": event.state,
            "outcome": ending.outcome if ending else None,
            "attempts": event.attempts,
            "line_offset": place.offset,
            "line_length": place.length,
            "line_digest": place.digest,
            "settled_at": event.at,
        }
        if not self._update("runs", columns, "key = ?", (run.key,)):  # it was never sent
            columns |= {"key": run.key, "job": run.job, "position": run.index, "given": _given(run)}
            names, marks = ", ".join(columns), ", ".join("?" * len(columns))
            self._db.execute(f"INSERT INTO runs ({names}) VALUES ({marks})", tuple(columns.values()))

    def _run(self, key: str, **columns: object) -> None:
        known = self._update("runs", columns, "key = ?", (key,))
        assert known, f"run {key} has no row"

    def _attempt(self, key: str, attempt: int, **columns: object) -> None:
        known = self._update("attempts", columns, "key = ? AND attempt = ?", (key, attempt))
        assert known, f"attempt {attempt} of run {key} has no row"

    def _update(self, table: str, columns: dict[str, object], where: str, which: tuple[object, ...]) -> bool:
        setting = ", ".join(f"{name} = ?" for name in columns)
        done = self._db.execute(f"UPDATE {table} SET {setting} WHERE {where}", (*columns.values(), *which))
        return done.rowcount == 1

    def note(self, **values: JsonValue) -> None:
        """Remember facts about the batch as a whole, such as ``plan={"photos": 600}``; the last word counts."""
        with _said_plainly(self.path):
            self._db.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                [(name, dump(value).decode()) for name, value in values.items()],
            )

    # Reading

    def noted(self, name: str) -> JsonValue:
        """What `note` was told last of *name*; None when nothing was."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else parse(row[0].encode())

    def knows(self, key: str) -> bool:
        """Whether the run *key* has a row: it was intended once, or is settled."""
        return self._db.execute("SELECT 1 FROM runs WHERE key = ?", (key,)).fetchone() is not None

    def lines_end(self) -> int:
        """The offset in results.jsonl behind the last line that a settled run's row speaks of."""
        row = self._db.execute("SELECT max(line_offset + line_length) FROM runs").fetchone()
        return row[0] or 0

    def settled_line(self, key: str) -> Place | None:
        """Where the line of the run *key* stands; None when it is not settled."""
        row = self._db.execute(
            "SELECT line_offset, line_length, line_digest FROM runs WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None or row[0] is None else Place(*row)

    def counts(self) -> dict[str, dict[tuple[State, Outcome | None], int]]:
        """Runs per job, by state and outcome; runs that have no row are not in it."""
        found: dict[str, dict[tuple[State, Outcome | None], int]] = {}
        for job, state, outcome, count in self._db.execute(
            "SELECT job, state, outcome, count(*) FROM runs GROUP BY job, state, outcome"
        ):
            found.setdefault(job, {})[State(state), Outcome(outcome) if outcome else None] = count
        return found

    def open_runs(self) -> list[OpenRun]:
        """The runs that have a row and are not settled: those with a job id first, the oldest submit first."""
        rows = self._db.execute(
            "SELECT r.key, r.job, r.position, r.given, a.* FROM runs r"
            " JOIN attempts a ON a.key = r.key AND a.attempt = r.attempts"
            f" WHERE r.state NOT IN ({', '.join('?' * len(SETTLED))})"
            " ORDER BY a.job_id IS NULL, a.submitted_at, r.job, r.position",
            tuple(SETTLED),
        ).fetchall()
        return [self._open_run(row) for row in rows]

    def _open_run(self, row: sqlite3.Row) -> OpenRun:
        earlier = self._db.execute(
            "SELECT intended_at, ended_at, outcome FROM attempts WHERE key = ? ORDER BY attempt", (row["key"],)
        ).fetchall()
        return OpenRun(
            run=Run(key=row["key"], job=row["job"], index=row["position"], **parse(row["given"].encode())),
            attempt=row["attempt"],
            ended=row["ended_at"] is not None,
            destination=Destination(row["endpoint"], row["base_url"], row["endpoint_id"]),
            job_id=row["job_id"],
            submitted_at=row["submitted_at"],
            first_at=earlier[0]["intended_at"],
            outcomes=tuple(
                Outcome(one["outcome"]) if one["outcome"] else None for one in earlier if one["ended_at"] is not None
            ),
            last=_ending(row) if row["outcome"] else None,
        )

    def recent_submits(self, since: float) -> list[tuple[str, float]]:
        """Endpoint name and time of every submit intended after *since*, oldest first: what a rate window must know."""
        rows = self._db.execute(
            "SELECT endpoint, intended_at FROM attempts WHERE intended_at > ? ORDER BY intended_at", (since,)
        )
        return [(endpoint, at) for endpoint, at in rows]

    def samples(self) -> Iterator[Sampled]:
        """Every look at an endpoint's health, oldest first."""
        for endpoint, at, jobs, workers, problem in self._db.execute("SELECT * FROM samples ORDER BY at"):
            yield Sampled(endpoint, at, parse(jobs), parse(workers), problem)

    def percentiles(self, job: str, column: str, ranks: Sequence[float]) -> list[int | None]:
        """
        Nearest-rank percentiles of *column* over the last attempts of *job*'s settled runs; None where there is none.

        *column* is ``delay_time_ms`` or ``execution_time_ms``; *ranks* are in 0..100, ascending. SQLite sorts, on disk
        where it must, and one pass picks, so memory does not grow with the batch.
        """
        assert column in ("delay_time_ms", "execution_time_ms")
        source = (
            "FROM attempts a JOIN runs r ON r.key = a.key AND r.attempts = a.attempt"
            f" WHERE r.job = ? AND r.settled_at IS NOT NULL AND a.{column} IS NOT NULL"
        )
        (count,) = self._db.execute(f"SELECT count(*) {source}", (job,)).fetchone()
        if not count:
            return [None for _ in ranks]
        ordered = enumerate(self._db.execute(f"SELECT a.{column} {source} ORDER BY 1", (job,)), start=1)
        found: list[int | None] = []
        at, value = 0, None
        for rank in ranks:
            while at < max(1, math.ceil(count * rank / 100)):
                at, (value,) = next(ordered)
            found.append(value)
        return found

    def attempt_totals(self, job: str) -> tuple[int, int]:
        """Of *job*: how many attempts there were beyond each run's first, and the execution time of all, in ms."""
        retried, execution_time_ms = self._db.execute(
            "SELECT coalesce(sum(a.attempt > 1), 0), coalesce(sum(a.execution_time_ms), 0)"
            " FROM attempts a JOIN runs r ON r.key = a.key WHERE r.job = ?",
            (job,),
        ).fetchone()
        return retried, execution_time_ms

    def errors(self, job: str, most: int = 20) -> list[tuple[str, int]]:
        """The commonest error messages of *job*'s unsuccessful runs, with their counts."""
        rows = self._db.execute(
            "SELECT json_extract(a.error, '$.message') AS message, count(*) AS times FROM attempts a"
            " JOIN runs r ON r.key = a.key AND r.attempts = a.attempt"
            " WHERE r.job = ? AND r.settled_at IS NOT NULL AND a.error IS NOT NULL"
            " GROUP BY message ORDER BY times DESC, message LIMIT ?",
            (job, most),
        )
        return [(message, times) for message, times in rows]


class KeyIndex:
    """Counts equal runs on disk, in a file that SQLite removes by itself, so that a long plan needs no memory."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID")

    def count(self, digest: bytes) -> int:
        """How often *digest* was counted before; counts it once more."""
        row = self._db.execute(
            "INSERT INTO seen VALUES (?, 1) ON CONFLICT (digest) DO UPDATE SET count = count + 1 RETURNING count",
            (digest,),
        ).fetchone()
        return int(row[0]) - 1

    def close(self) -> None:
        """Let the file go."""
        self._db.close()


def _ending(row: sqlite3.Row) -> Ending:
    """How the attempt in *row* ended. Its output is not in the ledger."""
    return Ending(
        outcome=Outcome(row["outcome"]),
        output=MISSING,
        error=None if row["error"] is None else parse(row["error"].encode()),
        status=row["status"],
        worker_id=row["worker_id"],
        delay_time_ms=row["delay_time_ms"],
        execution_time_ms=row["execution_time_ms"],
    )


def _given(run: Run) -> str:
    given: JsonObject = {"row": run.row, "matrix": run.matrix, "repeat": run.repeat, "input": run.input}
    return dump(given | ({"problem": run.problem} if run.problem else {})).decode()


def _connect(uri: str) -> sqlite3.Connection:
    # The recorder's thread uses the connection that another thread opened; only one of them does at any time.
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0, check_same_thread=False)
    db.row_factory = sqlite3.Row
    return db


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _make_durable(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        raise UsageError(
            f"{path} is no ledger that this version reads: its format is {version}, and {VERSION} is wanted",
            fix="use the runner that wrote it; manifest.json beside it names the version",
        )


@contextmanager
def _said_plainly(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one that names the file and what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise RecordError(
            f"the ledger {path} can't be used: {error}",
            fix="see that the disk has room and the folder can be written, then go on with --resume",
        ) from error
