"""
Keep the record of runs and attempts, and read it back to resume and to report.

A run gets its row when it is first intended, or settled without ever being sent; a run without a row is pending.
"""

import math
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, Self

from runner import files
from runner.cost import Costs
from runner.database import Database, Row
from runner.entries import Entries, Placed
from runner.entries import Place as Place
from runner.entries import Taken as Taken
from runner.entries import folded as folded
from runner.events import (
    Destination,
    Ending,
    FileClaim,
    Sampled,
)
from runner.records import record
from runner.runs import Run
from runner.seal import Seal
from runner.states import Outcome, State
from runner.values import MISSING, JsonValue, dump, parse

VERSION = 2

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE runs (
    key TEXT PRIMARY KEY, job TEXT NOT NULL, position INTEGER NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
    outcome TEXT, message TEXT, delay_time_ms INTEGER, execution_time_ms INTEGER,
    line_offset INTEGER, line_length INTEGER, line_digest BLOB, settled_at REAL,
    reopened_after INTEGER NOT NULL DEFAULT 0, given TEXT NOT NULL);
CREATE INDEX runs_by_state ON runs (job, state, outcome);
CREATE INDEX runs_open ON runs (job) WHERE settled_at IS NULL;
CREATE INDEX runs_reused ON runs (job, state, attempts) WHERE state = 'succeeded' AND attempts = 0;
CREATE INDEX runs_by_line ON runs (line_offset) WHERE line_offset IS NOT NULL;
CREATE INDEX runs_by_delay_time ON runs (job, delay_time_ms) WHERE delay_time_ms IS NOT NULL;
CREATE INDEX runs_by_execution_time ON runs (job, execution_time_ms) WHERE execution_time_ms IS NOT NULL;
CREATE INDEX runs_by_message ON runs (job, message) WHERE message IS NOT NULL;
CREATE TABLE attempts (
    key TEXT NOT NULL, attempt INTEGER NOT NULL, job TEXT NOT NULL, endpoint TEXT NOT NULL, base_url TEXT NOT NULL,
    endpoint_id TEXT NOT NULL, intended_at REAL NOT NULL, job_id TEXT, submitted_at REAL, cancel_at REAL,
    ended_at REAL, outcome TEXT, status TEXT, worker_id TEXT, delay_time_ms INTEGER, execution_time_ms INTEGER,
    error TEXT, cost_usd REAL, PRIMARY KEY (key, attempt));
CREATE INDEX attempts_by_time ON attempts (coalesce(submitted_at, ended_at, intended_at));
CREATE INDEX attempts_by_execution_time ON attempts (job, execution_time_ms) WHERE execution_time_ms IS NOT NULL;
CREATE INDEX attempts_by_cost ON attempts (job, cost_usd, execution_time_ms) WHERE cost_usd IS NOT NULL;
CREATE INDEX attempts_again ON attempts (job, attempt) WHERE attempt > 1;
CREATE TABLE plans (job TEXT PRIMARY KEY, rows BLOB NOT NULL);
CREATE TABLE artifacts (name TEXT PRIMARY KEY, path TEXT NOT NULL, key TEXT NOT NULL, attempt INTEGER NOT NULL,
    sha256 TEXT NOT NULL, size_bytes INTEGER NOT NULL);
CREATE TABLE samples (endpoint TEXT NOT NULL, at REAL NOT NULL, jobs TEXT NOT NULL, workers TEXT NOT NULL,
    problem TEXT);
"""
DRAFTS = (
    "CREATE TABLE drafts (number INTEGER PRIMARY KEY, job TEXT NOT NULL, endpoint TEXT NOT NULL,"
    " base_url TEXT NOT NULL, endpoint_id TEXT NOT NULL, intended_at REAL NOT NULL, key TEXT, batch_id TEXT,"
    " finalizing_at REAL, finalized_at REAL, cancel_at REAL, dropped_at REAL, over_at REAL)",
    "CREATE TABLE drafted (key TEXT NOT NULL, attempt INTEGER NOT NULL, draft INTEGER NOT NULL,"
    " PRIMARY KEY (key, attempt)) WITHOUT ROWID",
    "CREATE INDEX drafted_by_draft ON drafted (draft)",
)
SCHEMA += ";\n".join(DRAFTS) + ";\n"
# `given` is JSON: the row, matrix, repeat and input of the run, enough to send it again without the job file. It may be
# megabytes, so it is the last column, and each question of the report has an index that answers it without the table.
# The first `reopened_after` attempts of a run were over when a person asked for it again: its retries count from there.
# A plan's `rows` are the digests of the rows that a job was planned with, 64 bit each, sorted.
# An artifact's `name` is its path as a file system may see it that ignores case and the form of accents.
# A settled run's outcome, message and times are those of its line, which no attempt may have: a rejected run has none.
# One that succeeded without an attempt has the result of an earlier batch. Older ledgers lack the index for these.
# A draft's `number` counts those of the batch. `dropped_at` is when it was given up before it was finalized, `over_at`
# when nobody had to ask about it any more. `drafted` says which attempts are in which; their request ids are the
# `job_id` of the attempts. Older ledgers lack both until they are opened to be written to.
# An attempt's `cost_usd` is what its output told. Older ledgers of this version lack the column until they are opened
# to be written to.


@record(frozen=True, slots=True)
class OpenRun:
    """
    A run that has a row and is not settled, as resume finds it.

    *attempt* is the number of its last attempt, 0 for none; *ended* says whether that attempt has ended, so that the
    run waits for the next one, as one does that was reopened. *outcomes* are the endings of its attempts since then, in
    order; None is an attempt that ended with its embedded endpoint. *last* is how the last attempt of all ended, its
    output left out. *first_at* is when the first of them was intended, the start of ``timeouts.run``; None before.
    """

    run: Run
    attempt: int
    ended: bool
    destination: Destination
    job_id: str | None
    submitted_at: float | None
    first_at: float | None
    outcomes: tuple[Outcome | None, ...]
    last: Ending | None


@record(frozen=True, slots=True)
class KnownRun:
    """A run that has a row: where it stands. *settled_at* is None while it is not settled."""

    run: Run
    state: State
    outcome: Outcome | None
    attempts: int
    settled_at: float | None


@record(frozen=True, slots=True)
class SettledRun:
    """A settled run as another job's row needs it: which, how it ended, and where its line stands."""

    key: str
    job: str
    index: int
    state: State
    outcome: Outcome | None
    message: str | None
    place: Place


@record(frozen=True, slots=True)
class OpenDraft:
    """
    A draft of RunPod's Batch API, or the RunPod batch that it became, that is not over.

    *key* is the name of what its runs carry to be echoed, None for none. *batch_id* is None while RunPod has not
    answered. *finalizing_at* is when it was about to be finalized, *finalized_at* when RunPod said so, *dropped_at*
    when it was given up, *cancel_at* when it was decided to cancel it.
    """

    number: int
    job: str
    destination: Destination
    key: str | None
    batch_id: str | None
    finalizing_at: float | None
    finalized_at: float | None
    dropped_at: float | None
    cancel_at: float | None


@record(frozen=True, slots=True)
class Sent:
    """
    A run in a draft or a RunPod batch, without what it was given, for there may be many.

    *request_id* is None where RunPod gave none. *failures* counts its attempts before this one that the retry policy
    answers for; *first_at* and *submitted_at* are seconds since the epoch.
    """

    key: str
    attempt: int
    request_id: str | None
    failures: int
    first_at: float
    submitted_at: float


@record(frozen=True, slots=True)
class PastAttempt:
    """
    An attempt, under way or over. Times are seconds since the epoch, None for what has not happened.

    *cancel_at* is when it was decided to ask RunPod to cancel it. *ending* has no output; it is None while the attempt
    is under way, and when it ended with its embedded endpoint.
    """

    number: int
    destination: Destination
    job_id: str | None
    intended_at: float
    submitted_at: float | None
    cancel_at: float | None
    ended_at: float | None
    ending: Ending | None


class Ledger:
    """One batch's ledger.sqlite. One object writes; any number may read."""

    def __init__(self, database: Database, path: Path) -> None:
        self._db = database
        self.path = path
        self._has_drafts = database.first("SELECT 1 FROM sqlite_master WHERE name = 'drafted'") is not None
        self._has_costs = any(row["name"] == "cost_usd" for row in database.rows("PRAGMA table_info(attempts)"))

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new ledger at *path*, which must not exist."""
        return cls(Database.create(path, schema=SCHEMA, version=VERSION), path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """
        Open the ledger at *path* to go on with it.

        Raises:
            RecordError: it is damaged, or has lost what was written last, or can't be written.
        """
        with closing(Database.read_only(path, version=VERSION)) as found:  # so that a damaged one stays as it is
            seal = Seal(path)
            try:
                seal.check(found.commits)
                if not seal.is_whole:
                    found.check()
            except BaseException:
                seal.leave()
                raise
            # While that one is open: who comes first after a kill reads all of a WAL, and these are up to 32 MB.
            ledger = cls(Database.open(path, version=VERSION, seal=seal), path)
        if not ledger._has_costs:
            with ledger._db.transaction():
                ledger._db.do("ALTER TABLE attempts ADD COLUMN cost_usd REAL")
            ledger._has_costs = True
        if not ledger._has_drafts:
            with ledger._db.transaction():
                for statement in DRAFTS:
                    ledger._db.do(statement)
            ledger._has_drafts = True
        return ledger

    @classmethod
    def read_only(cls, path: Path) -> Self:
        """Open the ledger at *path* to look at it, also while another process writes; never disturbs that one."""
        return cls(Database.read_only(path, version=VERSION), path)

    @property
    def database(self) -> Database:
        """The file itself, for those who ask more of it than there is below (`timings.py`); they only read."""
        return self._db

    def close(self) -> None:
        """Close the file. What was committed stays."""
        self._db.close()

    def fold(self) -> None:
        """Let all that was committed be in the one file at `path`, durably, so that it can be given another name."""
        self._db.fold()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing

    def apply(self, events: Sequence[Placed]) -> dict[str, Taken]:
        """
        Commit *events* in one durable transaction, in their order; the place belongs to a `Settled`.

        Returns:
            By run key, the claims that were not taken, because another run has one of the names.
        """
        if not events:
            return {}
        entries = Entries(self._db)
        with self._db.transaction():
            for event, place in events:
                entries.enter(event, place)
            entries.flush()
        return entries.refused

    def close_gaps(self, **values: JsonValue) -> None:
        """
        Let every line's place be as if no superseded line stood before it, and `note` *values*, all at once.

        What has been written anew in the order of `places` is at these places.
        """
        places = list(self.places())
        with self._db.transaction():
            end = 0
            for offset, length in places:  # upwards, so that no new offset is another line's old one
                if offset != end:
                    self._db.do("UPDATE runs SET line_offset = ? WHERE line_offset = ?", (end, offset))
                end += length
            self._note(values)

    def drop_claims(self) -> None:
        """Let names go that a reused run claimed and that was not settled before a kill: no row speaks of it."""
        stale = "attempt = 0 AND key NOT IN (SELECT key FROM runs)"
        if self._db.first(f"SELECT 1 FROM artifacts WHERE {stale}") is not None:
            with self._db.transaction():
                self._db.do(f"DELETE FROM artifacts WHERE {stale}")

    def plan_rows(self, job: str, digests: "array[int]") -> None:
        """Remember the *digests* of the rows that *job* is planned with; the last word counts."""
        ordered = _ordered(digests)
        if sys.byteorder == "big":
            ordered.byteswap()
        with self._db.transaction():
            self._db.do("INSERT OR REPLACE INTO plans VALUES (?, ?)", (job, ordered.tobytes()))

    def note(self, **values: JsonValue) -> None:
        """Remember facts about the batch as a whole, such as ``plan={"photos": 600}``; the last word counts."""
        with self._db.transaction():
            self._note(values)

    def _note(self, values: Mapping[str, JsonValue]) -> None:
        for name, value in values.items():
            self._db.do("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, dump(value).decode()))

    # Reading

    def snapshot(self) -> AbstractContextManager[None]:
        """Let all that is read in the ``with`` block speak of one moment, also while another process writes."""
        return self._db.snapshot()

    def noted(self, name: str) -> JsonValue:
        """What `note` was told last of *name*; None when nothing was."""
        row = self._db.first("SELECT value FROM meta WHERE name = ?", (name,))
        return None if row is None else parse(row[0].encode())

    def knows(self, key: str) -> bool:
        """Whether the run *key* has a row: it was intended once, or is settled."""
        return self._db.first("SELECT 1 FROM runs WHERE key = ?", (key,)) is not None

    def awaits_answer(self, key: str, attempt: int) -> bool:
        """Whether *attempt* is the last one of the run *key*, and neither has a job id nor is over."""
        values = (key, attempt, State.SUBMITTING)
        return self._db.first("SELECT 1 FROM runs WHERE key = ? AND attempts = ? AND state = ?", values) is not None

    def last_line(self) -> Place | None:
        """Where the last line of results.jsonl stands that a settled run's row speaks of; None when there is none."""
        row = self._db.first(f"{_PLACES} WHERE line_offset IS NOT NULL ORDER BY line_offset DESC LIMIT 1")
        return None if row is None else Place(*row)

    def lines_end(self) -> int:
        """The offset in results.jsonl behind the last line that a settled run's row speaks of."""
        last = self.last_line()
        return 0 if last is None else last.offset + last.length

    def places(self) -> Iterator[tuple[int, int]]:
        """Offset and length of every line that a settled run's row speaks of, in the order of the file."""
        sql = "SELECT line_offset, line_length FROM runs WHERE line_offset IS NOT NULL ORDER BY line_offset"
        yield from ((row[0], row[1]) for row in self._db.rows(sql))

    def settled_line(self, key: str) -> Place | None:
        """Where the line of the run *key* stands; None when it is not settled."""
        row = self._db.first(f"{_PLACES} WHERE key = ? AND line_offset IS NOT NULL", (key,))
        return None if row is None else Place(*row)

    def succeeded_line(self, key: str) -> Place | None:
        """Where the line of the run *key* stands; None when it did not succeed."""
        row = self._db.first(f"{_PLACES} WHERE key = ? AND state = ?", (key, State.SUCCEEDED))
        return None if row is None else Place(*row)

    def reused(self) -> dict[str, int]:
        """Runs per job that have the result of an earlier batch; jobs without any are not in it."""
        rows = self._db.rows(
            f"SELECT job, count(*) FROM runs WHERE state = '{State.SUCCEEDED}' AND attempts = 0 GROUP BY job"
        )
        return {str(job): int(count) for job, count in rows}

    def settled_after(self, offset: int, most: int) -> list[SettledRun]:
        """The runs whose lines stand behind *offset* in results.jsonl, in the order of the file; at most *most*."""
        rows = self._db.rows(
            f"SELECT {_OF_SETTLED} FROM runs r WHERE line_offset > ? ORDER BY line_offset LIMIT ?", (offset, most)
        )
        return [_settled_run(row) for row in rows]

    def runs_of(self, job: str) -> Iterator[KnownRun]:
        """Every run of *job* that has a row."""
        for row in self._db.rows("SELECT * FROM runs WHERE job = ?", (job,)):
            yield _known_run(row)

    def made_of(self, job: str, key: str) -> Iterator[KnownRun]:
        """Every run of *job* that was made of the run *key* of another job."""
        sql = "SELECT * FROM runs WHERE job = ? AND json_extract(given, '$.row.key') = ?"
        for row in self._db.rows(sql, (job, key)):
            yield _known_run(row)

    def counts(self) -> dict[str, dict[tuple[State, Outcome | None], int]]:
        """Runs per job, by state and outcome; runs that have no row are not in it."""
        found: dict[str, dict[tuple[State, Outcome | None], int]] = {}
        for job, state, outcome, count in self._db.rows(
            "SELECT job, state, outcome, count(*) FROM runs GROUP BY job, state, outcome"
        ):
            found.setdefault(job, {})[State(state), Outcome(outcome) if outcome else None] = count
        return found

    def open_runs(self) -> list[OpenRun]:
        """
        The runs that have a row and are not settled: those with a job id first, the oldest submit first.

        Those that are in a draft or a RunPod batch are not among them: there may be many (`sent`).
        """
        not_drafted = f" AND NOT {_IS_DRAFTED}" if self._has_drafts else ""
        earlier: dict[str, list[Row]] = {}  # two questions for all: one a run would take most of a resume's start
        for row in self._db.rows(
            "SELECT a.key, a.intended_at, a.ended_at, a.outcome"
            " FROM runs r CROSS JOIN attempts a ON a.key = r.key AND a.attempt > r.reopened_after"
            f" WHERE r.settled_at IS NULL{not_drafted} ORDER BY a.attempt"
        ):
            earlier.setdefault(row["key"], []).append(row)
        rows = self._db.rows(
            "SELECT r.position, r.given, a.*"
            " FROM runs r CROSS JOIN attempts a ON a.key = r.key AND a.attempt = r.attempts"
            f" WHERE r.settled_at IS NULL{not_drafted} ORDER BY a.job_id IS NULL, a.submitted_at, r.job, r.position"
        )
        return [_open_run(row, earlier.get(row["key"], [])) for row in rows]

    def open_drafts(self) -> list[OpenDraft]:
        """The drafts and RunPod batches that are not over, by their numbers."""
        if not self._has_drafts:
            return []
        return [
            OpenDraft(
                number=row["number"],
                job=row["job"],
                destination=Destination(row["endpoint"], row["base_url"], row["endpoint_id"]),
                key=row["key"],
                batch_id=row["batch_id"],
                finalizing_at=row["finalizing_at"],
                finalized_at=row["finalized_at"],
                dropped_at=row["dropped_at"],
                cancel_at=row["cancel_at"],
            )
            for row in self._db.rows("SELECT * FROM drafts WHERE over_at IS NULL ORDER BY number")
        ]

    def last_draft(self) -> int:
        """The highest number that a draft of the batch has; 0 while there is none."""
        row = self._db.first("SELECT max(number) FROM drafts") if self._has_drafts else (None,)
        return row[0] or 0

    def sent(self, draft: int) -> list[Sent]:
        """The runs of a draft, or of the RunPod batch it became, that are not settled, nor tried again since."""
        of_run = "FROM attempts b WHERE b.key = d.key AND b.attempt > r.reopened_after"
        rows = self._db.rows(
            "SELECT d.key, d.attempt, a.job_id, (SELECT count(*) "
            f"{of_run} AND b.ended_at IS NOT NULL AND b.outcome IS NOT NULL AND b.outcome != ?) AS failures,"
            f" (SELECT min(b.intended_at) {of_run}) AS first_at, a.intended_at"
            f" FROM drafted d CROSS JOIN runs r ON r.key = d.key CROSS JOIN attempts a"
            " ON a.key = d.key AND a.attempt = d.attempt"
            " WHERE d.draft = ? AND r.settled_at IS NULL AND a.ended_at IS NULL ORDER BY r.position",
            (Outcome.ANSWER_LOST, draft),
        )
        return [Sent(key, attempt, *rest) for key, attempt, *rest in rows]

    def told(self, draft: int) -> list[str | None]:
        """The request ids of those runs of a draft, or of the RunPod batch it became, whose results are known."""
        rows = self._db.rows(
            "SELECT a.job_id FROM drafted d CROSS JOIN attempts a ON a.key = d.key AND a.attempt = d.attempt"
            " WHERE d.draft = ? AND a.ended_at IS NOT NULL",
            (draft,),
        )
        return [request_id for (request_id,) in rows]

    def drafted(self, job: str) -> int:
        """How many runs of *job* are in drafts or RunPod batches, and not settled."""
        if not self._has_drafts:
            return 0
        sql = f"SELECT count(*) FROM runs r WHERE r.settled_at IS NULL AND r.job = ? AND {_IS_DRAFTED}"
        return int(self._db.first(sql, (job,))[0])

    def unsuccessful(self) -> Iterator[tuple[str, Outcome | None]]:
        """Key and outcome of every settled run that did not succeed."""
        for key, outcome in self._db.rows(
            "SELECT key, outcome FROM runs WHERE settled_at IS NOT NULL AND state != ?", (State.SUCCEEDED,)
        ):
            yield key, Outcome(outcome) if outcome else None

    def skipped_because(self, end: str, job: str | None = None) -> int:
        """How many runs of *job*, or of all jobs, were skipped for a reason that ends so."""
        sql = "SELECT count(*) FROM runs WHERE state = ? AND message LIKE '%' || ?"
        of: tuple[str, ...] = () if job is None else (job,)
        (count,) = self._db.first(sql if job is None else f"{sql} AND job = ?", (State.SKIPPED, end, *of))
        return int(count)

    def planned_rows(self, job: str) -> "array[int]":
        """The digests of the rows that *job* was planned with, sorted; none for a job that it has not."""
        row = self._db.first("SELECT rows FROM plans WHERE job = ?", (job,))
        digests = array("Q", b"" if row is None else row[0])
        if sys.byteorder == "big":
            digests.byteswap()
        return digests

    def taken_up(self, job: str) -> int:
        """How many runs of *job* have a row."""
        (count,) = self._db.first("SELECT count(*) FROM runs WHERE job = ?", (job,))
        return int(count)

    def settled_at(self, key: str) -> float | None:
        """When the run *key* settled, seconds since the epoch; None when it did not."""
        row = self._db.first("SELECT settled_at FROM runs WHERE key = ?", (key,))
        return None if row is None else row[0]

    def artifacts(self, key: str) -> list[FileClaim]:
        """The files that the run *key* claimed, by path."""
        rows = self._db.rows("SELECT path, sha256, size_bytes FROM artifacts WHERE key = ? ORDER BY path", (key,))
        return [FileClaim(*row) for row in rows]

    def artifacts_after(self, number: int, most: int) -> list[tuple[int, SettledRun, FileClaim]]:
        """
        What runs that succeeded claimed in their last attempts: each file with its run, and a number that goes upwards.

        At most *most*, those behind *number*. An attempt that was cut off may have claimed names that its run has not.
        """
        rows = self._db.rows(
            f"SELECT a.rowid, a.path, a.sha256, a.size_bytes, {_OF_SETTLED} FROM artifacts a"
            " CROSS JOIN runs r ON r.key = a.key AND r.attempts = a.attempt WHERE a.rowid > ? AND r.state = ?"
            " ORDER BY a.rowid LIMIT ?",
            (number, State.SUCCEEDED, most),
        )
        return [(row[0], _settled_run(tuple(row)[4:]), FileClaim(*tuple(row)[1:4])) for row in rows]

    def recent_submits(self, since: float) -> list[tuple[str, float]]:
        """
        Endpoint name and time of every submit after *since*, oldest first: what a rate window must know.

        The time is the latest at which it can have been sent: when its answer came, or its end without one. An intent
        may have waited long for its turn, so its own time would let a window forget the submit too early.
        """
        rows = self._db.rows(
            "SELECT endpoint, coalesce(submitted_at, ended_at, intended_at) AS at FROM attempts"
            " WHERE coalesce(submitted_at, ended_at, intended_at) > ? ORDER BY at",
            (since,),
        )
        return [(endpoint, at) for endpoint, at in rows]

    def samples(self) -> Iterator[Sampled]:
        """Every look at an endpoint's health, in the order of looking."""
        for endpoint, at, jobs, workers, problem in self._db.rows("SELECT * FROM samples ORDER BY rowid"):
            yield Sampled(endpoint, at, parse(jobs), parse(workers), problem)

    def percentiles(self, job: str | None, column: str, ranks: Sequence[float]) -> list[int | None]:
        """
        Nearest-rank percentiles of *column* over the settled runs of *job*; None where there is none.

        *column* is ``delay_time_ms`` or ``execution_time_ms``, of a run's last attempt; *ranks* are in 0..100. An index
        keeps the values of a job in order. Those of all jobs together, which None asks for, are sorted by SQLite, for
        each rank anew. Either way our memory does not grow with the batch.
        """
        source, values = _times(job, column)
        (count,) = self._db.first(f"SELECT count(*) {source}", values)
        if not count:
            return [None for _ in ranks]
        passed = (max(0, math.ceil(count * rank / 100) - 1) for rank in ranks)
        nth = f"SELECT {column} {source} ORDER BY {column} LIMIT 1 OFFSET ?"
        return [self._db.first(nth, (*values, number))[0] for number in passed]

    def times(self, job: str | None, column: str) -> Iterator[tuple[int, int]]:
        """Each time of the runs that `percentiles` looks at, upwards, with how many runs have it."""
        source, values = _times(job, column)
        yield from ((row[0], row[1]) for row in self._db.rows(f"SELECT {column}, count(*) {source} GROUP BY 1", values))

    def mean(self, job: str | None, column: str) -> float | None:
        """The mean of *column*, over the same runs as `percentiles`; None where there is none."""
        source, values = _times(job, column)
        count, total = self._db.first(f"SELECT count(*), total({column}) {source}", values)
        return total / count if count else None

    def attempt_totals(self, job: str) -> tuple[int, int]:
        """Of *job*: how many attempts there were beyond each run's first, and the execution time of all, in ms."""
        (retried,) = self._db.first("SELECT count(*) FROM attempts WHERE job = ? AND attempt > 1", (job,))
        # total, not sum: it does not stop at 64 bit, whatever a server says.
        timed = "SELECT total(execution_time_ms) FROM attempts WHERE job = ? AND execution_time_ms IS NOT NULL"
        return retried, int(self._db.first(timed, (job,))[0])

    def spent(self) -> dict[str, tuple[int, int]]:
        """By job: how many attempts have an execution time, and the sum of it in ms. Jobs without any are not in it."""
        rows = self._db.rows(
            "SELECT job, count(*), total(execution_time_ms) FROM attempts"
            " WHERE execution_time_ms IS NOT NULL GROUP BY job"
        )
        return {job: (count, int(total)) for job, count, total in rows}

    def costs(self) -> dict[str, Costs]:
        """By job: what its attempts told that they cost. Jobs of which none did are not in it."""
        if not self._has_costs:
            return {}
        rows = self._db.rows(
            "SELECT job, count(*), total(cost_usd), count(execution_time_ms), total(execution_time_ms) FROM attempts"
            " WHERE cost_usd IS NOT NULL GROUP BY job"
        )
        return {job: Costs(told, usd, timed, int(ms)) for job, told, usd, timed, ms in rows}

    def untold(self, job: str) -> int:
        """How many attempts of *job* RunPod has, or may have, taken, that are over and told no cost."""
        told = " AND cost_usd IS NULL" if self._has_costs else ""
        sql = f"SELECT count(*) FROM attempts WHERE job = ? AND outcome IS NOT NULL{told} AND (job_id IS NOT NULL"
        (count,) = self._db.first(f"{sql} OR outcome = '{Outcome.ANSWER_LOST}')", (job,))
        return int(count)

    def tried_again(self, job: str | None = None) -> int:
        """How many runs of *job*, or of all jobs, took more than one attempt, however many more."""
        sql = "SELECT count(*) FROM attempts WHERE attempt > 1 AND attempt = 2"
        (runs,) = self._db.first(sql) if job is None else self._db.first(f"{sql} AND job = ?", (job,))
        return int(runs)

    def errors(self, job: str, most: int = 20) -> list[tuple[str, int]]:
        """The commonest messages (their first 1000 characters) of *job*'s unsuccessful runs, with their counts."""
        rows = self._db.rows(
            "SELECT message, count(*) AS times FROM runs WHERE job = ? AND message IS NOT NULL"
            " GROUP BY message ORDER BY times DESC, message LIMIT ?",
            (job, most),
        )
        return [(message, times) for message, times in rows]

    def keys_like(self, beginning: str, most: int) -> list[tuple[str, str, int]]:
        """Key, job and index of the runs whose keys begin so, of those that have a row; at most *most*."""
        rows = self._db.rows(
            "SELECT key, job, position FROM runs WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
            (beginning, beginning + "\U0010ffff", most),
        )
        return [(key, job, index) for key, job, index in rows]

    def key_at(self, job: str, index: int) -> str | None:
        """The key of a run by its place in the plan; None when it has no row. No index helps: it takes a while."""
        row = self._db.first("SELECT key FROM runs WHERE job = ? AND position = ?", (job, index))
        return None if row is None else str(row[0])

    def known(self, key: str) -> KnownRun | None:
        """The run *key*; None when it has no row."""
        row = self._db.first("SELECT * FROM runs WHERE key = ?", (key,))
        return None if row is None else _known_run(row)

    def attempts(self, key: str) -> list[PastAttempt]:
        """Every attempt at the run *key*, in order."""
        return [
            PastAttempt(
                number=row["attempt"],
                destination=Destination(row["endpoint"], row["base_url"], row["endpoint_id"]),
                job_id=row["job_id"],
                intended_at=row["intended_at"],
                submitted_at=row["submitted_at"],
                cancel_at=row["cancel_at"],
                ended_at=row["ended_at"],
                ending=_ending(row) if row["outcome"] else None,
            )
            for row in self._db.rows("SELECT * FROM attempts WHERE key = ? ORDER BY attempt", (key,))
        ]


_IS_DRAFTED = (
    "EXISTS (SELECT 1 FROM drafted d CROSS JOIN attempts x ON x.key = d.key AND x.attempt = d.attempt"
    " WHERE d.key = r.key AND d.attempt = r.attempts AND x.ended_at IS NULL)"
)
"""Whether the run *r* is in a draft or a RunPod batch now."""


_PLACES = "SELECT line_offset, line_length, line_digest FROM runs"
_OF_SETTLED = "r.key, r.job, r.position, r.state, r.outcome, r.message, r.line_offset, r.line_length, r.line_digest"


def _times(job: str | None, column: str) -> tuple[str, tuple[str, ...]]:
    """Where the times in *column* are, of *job* or of all jobs: a part of a question, and its values."""
    assert column in ("delay_time_ms", "execution_time_ms")
    if job is None:
        return f"FROM runs WHERE {column} IS NOT NULL", ()
    return f"FROM runs WHERE job = ? AND {column} IS NOT NULL", (job,)


def _settled_run(row: Iterable[Any]) -> SettledRun:
    """The settled run of which *row* has `_OF_SETTLED`."""
    key, job, index, state, outcome, message, *place = row
    return SettledRun(key, job, index, State(state), Outcome(outcome) if outcome else None, message, Place(*place))


def _known_run(row: Row) -> KnownRun:
    outcome = Outcome(row["outcome"]) if row["outcome"] else None
    return KnownRun(_run(row), State(row["state"]), outcome, row["attempts"], row["settled_at"])


def _ordered(digests: "array[int]") -> "array[int]":
    """*digests*, upwards, by their first byte at a time: a list of a million integers takes 40 MB, an array 8."""
    parts = [array("Q") for _ in range(256)]
    for digest in digests:
        parts[digest >> 56].append(digest)
    ordered = array("Q")
    for part in parts:
        ordered.extend(sorted(part))
    return ordered


def _open_run(row: Row, earlier: Sequence[Row]) -> OpenRun:
    """The open run of which *row* has the last attempt, and *earlier* all since it was last reopened."""
    return OpenRun(
        run=_run(row),
        attempt=row["attempt"],
        ended=row["ended_at"] is not None,
        destination=Destination(row["endpoint"], row["base_url"], row["endpoint_id"]),
        job_id=row["job_id"],
        submitted_at=row["submitted_at"],
        first_at=earlier[0]["intended_at"] if earlier else None,
        outcomes=tuple(
            Outcome(one["outcome"]) if one["outcome"] else None for one in earlier if one["ended_at"] is not None
        ),
        last=_ending(row) if row["outcome"] else None,
    )


def _ending(row: Row) -> Ending:
    """How the attempt in *row* ended. Its output is not in the ledger."""
    return Ending(
        outcome=Outcome(row["outcome"]),
        output=MISSING,
        error=None if row["error"] is None else parse(row["error"].encode()),
        status=row["status"],
        worker_id=row["worker_id"],
        delay_time_ms=row["delay_time_ms"],
        execution_time_ms=row["execution_time_ms"],
        cost_usd=row["cost_usd"] if "cost_usd" in row.keys() else None,  # noqa: SIM118 - a row's `in` is of values
    )


def _run(row: Row) -> Run:
    """The run of which *row* has key, job, position and what it was given."""
    given = parse(row["given"].encode())
    marks = given.pop("files", [])
    given["input"] = files.marked(given["input"], marks)
    return Run(key=row["key"], job=row["job"], index=row["position"], **given)
