"""
Read from a ledger what a report draws: when each attempt was where, which runs took longest, what went wrong.

Each question is answered row by row, or with a bounded number of rows, so that memory does not grow with the batch.
"""

from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise

from runner.ledger import Ledger
from runner.records import record
from runner.states import SETTLED, State
from runner.values import JsonObject, JsonValue, parse

IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".avif")
"""How the names of files end that a browser shows as a picture. SVG is left out: it can do more than be looked at."""


@record(frozen=True, slots=True)
class Attempt:
    """
    When an attempt was where; times are seconds since the epoch, None for what has not happened or was not told.

    *delay_time_ms* and *execution_time_ms* are RunPod's.
    """

    key: str
    number: int
    job: str
    worker_id: str | None
    intended_at: float
    submitted_at: float | None
    ended_at: float | None
    delay_time_ms: int | None
    execution_time_ms: int | None


@record(frozen=True, slots=True)
class TimedRun:
    """A settled run with its times; *worker_id* is of its last attempt."""

    key: str
    job: str
    index: int
    state: State
    attempts: int
    delay_time_ms: int | None
    execution_time_ms: int
    worker_id: str | None


@record(frozen=True, slots=True)
class FailedRun:
    """A run that did not succeed; *error* is its last attempt's, None where it had none."""

    key: str
    index: int
    outcome: str | None
    worker_id: str | None
    error: JsonObject | None


@record(frozen=True, slots=True)
class EndedRun:
    """
    A settled run and how it ended. *message* is that of its line, *error* and *worker_id* are its last attempt's: None
    where it had none.
    """

    key: str
    index: int
    state: State
    outcome: str | None
    message: str | None
    execution_time_ms: int | None
    worker_id: str | None
    error: JsonObject | None


@record(frozen=True, slots=True)
class Artifact:
    """A file made of a run's output: its *path* in the batch folder."""

    path: str
    job: str
    index: int
    size_bytes: int


class Timings:
    """What *ledger* knows of times; the caller holds a snapshot where it wants one moment."""

    def __init__(self, ledger: Ledger) -> None:
        self._db = ledger.database

    def last_at(self) -> float | None:
        """When the last thing happened to an attempt; None when there are none."""
        row = self._db.first(
            "SELECT max(max(intended_at, coalesce(submitted_at, intended_at), coalesce(ended_at, intended_at)))"
            " FROM attempts"
        )
        return None if row is None else row[0]

    def count(self) -> int:
        """How many attempts there are."""
        return int(self._db.first("SELECT count(*) FROM attempts")[0])

    def attempts(self) -> Iterator[Attempt]:
        """Every attempt, in about the order in which they were intended."""
        for row in self._db.rows(
            "SELECT key, attempt, job, worker_id, intended_at, submitted_at, ended_at, delay_time_ms, execution_time_ms"
            " FROM attempts"
        ):
            yield Attempt(*row)

    def indexes(self) -> dict[str, int]:
        """The place in the plan of each run that was attempted: for batches of which all attempts are shown."""
        rows = self._db.rows("SELECT a.key, r.position FROM attempts a JOIN runs r ON r.key = a.key")
        return {key: index for key, index in rows}  # noqa: C416 - a row is no pair to a type checker

    def workers(self) -> Iterator[tuple[str | None, int, int]]:
        """Each worker with how many attempts it ended and how long it executed, in ms; the busiest first."""
        for worker, attempts, total in self._db.rows(
            "SELECT worker_id, count(*), total(execution_time_ms) AS busy FROM attempts"
            " WHERE ended_at IS NOT NULL GROUP BY worker_id ORDER BY busy DESC, worker_id"
        ):
            yield worker, attempts, int(total)

    def looks(self) -> Sequence[float]:
        """When the endpoint was looked at that was so most often."""
        most = "SELECT endpoint FROM samples GROUP BY endpoint ORDER BY count(*) DESC, endpoint LIMIT 1"
        return array("d", (at for (at,) in self._db.rows(f"SELECT at FROM samples WHERE endpoint = ({most})")))

    def is_quiet(self, begin: float, end: float) -> bool:
        """Whether no attempt was intended or ended, and no run settled, between *begin* and *end*."""
        sql = (
            "SELECT 1 FROM attempts WHERE intended_at BETWEEN ?1 AND ?2 OR ended_at BETWEEN ?1 AND ?2"
            " UNION ALL SELECT 1 FROM runs WHERE settled_at BETWEEN ?1 AND ?2 LIMIT 1"
        )
        return self._db.first(sql, (begin, end)) is None

    def settled(self, start: float, bin_s: float, *, since: float, until: float) -> Iterator[tuple[State, int, int]]:
        """How many runs settled from *since* to *until*, by state and by which *bin_s* seconds after *start* it was."""
        for state, number, count in self._db.rows(
            "SELECT state, CAST((settled_at - ?) / ? AS INTEGER) AS bin, count(*) FROM runs"
            " WHERE settled_at >= ? AND settled_at < ? GROUP BY state, bin",
            (start, bin_s, since, until),
        ):
            yield State(state), number, count

    def histogram(self, job: str, column: str, edges: Sequence[float]) -> list[int]:
        """How many settled runs of *job* have a time from one of *edges* (ms, upwards) up to the next."""
        assert column in ("delay_time_ms", "execution_time_ms")
        sql = f"SELECT count(*) FROM runs WHERE job = ? AND {column} >= ? AND {column} < ?"
        return [int(self._db.first(sql, (job, low, high))[0]) for low, high in pairwise(edges)]

    def slowest(self, job: str, most: int) -> list[TimedRun]:
        """The runs of *job* with the longest execution."""
        rows = self._db.rows(
            "SELECT r.key, r.job, r.position, r.state, r.attempts, r.delay_time_ms, r.execution_time_ms, a.worker_id"
            " FROM runs r LEFT JOIN attempts a ON a.key = r.key AND a.attempt = r.attempts"
            " WHERE r.job = ? AND r.execution_time_ms IS NOT NULL ORDER BY r.execution_time_ms DESC LIMIT ?",
            (job, most),
        )
        return [TimedRun(row[0], row[1], row[2], State(row[3]), *row[4:]) for row in rows]

    def messages(self, job: str) -> Iterator[tuple[str, int]]:
        """Each error message of *job* (its first 1000 characters) with how many runs have it, by code points."""
        rows = self._db.rows(
            "SELECT message, count(*) FROM runs WHERE job = ? AND message IS NOT NULL"
            " GROUP BY message ORDER BY message",
            (job,),
        )
        yield from ((message, count) for message, count in rows)

    def failed(self, job: str, message: str, most: int) -> list[FailedRun]:
        """Some runs of *job* that have this *message*."""
        rows = self._db.rows(
            "SELECT r.key, r.position, r.outcome, a.worker_id, a.error"
            " FROM runs r LEFT JOIN attempts a ON a.key = r.key AND a.attempt = r.attempts"
            " WHERE r.job = ? AND r.message = ? LIMIT ?",
            (job, message, most),
        )
        return [
            FailedRun(row[0], row[1], row[2], row[3], None if row[4] is None else parse(row[4].encode()))
            for row in rows
        ]

    def settled_runs(self, job: str, most: int, states: Sequence[State] | None = None) -> Iterator[EndedRun]:
        """The first runs of *job*, in the order of the plan, that settled, or in one of *states*."""
        wanted = states or tuple(state for state in State if state in SETTLED)
        for row in self._db.rows(
            "SELECT r.key, r.position, r.state, r.outcome, r.message, r.execution_time_ms, a.worker_id, a.error"
            " FROM runs r LEFT JOIN attempts a ON a.key = r.key AND a.attempt = r.attempts"
            f" WHERE r.job = ? AND r.state IN ({', '.join('?' * len(wanted))}) ORDER BY r.position LIMIT ?",
            (job, *wanted, most),
        ):
            error = None if row[7] is None else parse(row[7].encode())
            yield EndedRun(row[0], row[1], State(row[2]), row[3], row[4], row[5], row[6], error)

    def matrix(self, job: str) -> Iterator[tuple[JsonObject, State, int | None]]:
        """Of each run of *job* that has a row: its matrix, state and execution time; nothing where it has no matrix."""
        for given, state, time_ms in self._db.rows(
            "SELECT given, state, execution_time_ms FROM runs WHERE job = ?", (job,)
        ):
            matrix: JsonValue = parse(given.encode()).get("matrix")
            if not matrix:
                return
            yield matrix, State(state), time_ms

    def artifacts(self, most: int, *, images: bool) -> list[Artifact]:
        """The first files that outputs became: those that are pictures, or those that are not."""
        rows = self._db.rows(
            "SELECT a.path, r.job, r.position, a.size_bytes FROM artifacts a JOIN runs r ON r.key = a.key"
            f" WHERE {'' if images else 'NOT '}({_PICTURES}) AND r.settled_at IS NOT NULL"
            " ORDER BY r.job, r.position, a.path LIMIT ?",
            (most,),
        )
        return [Artifact(*row) for row in rows]

    def artifact_totals(self) -> tuple[int, int]:
        """How many files outputs became, and their bytes."""
        count, total = self._db.first("SELECT count(*), total(size_bytes) FROM artifacts")
        return int(count), int(total)


_PICTURES = " OR ".join(f"lower(a.path) LIKE '%{suffix}'" for suffix in IMAGES)
