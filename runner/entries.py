"""
Enter events in the ledger's tables: one statement for the rows of many, because SQLite lets go of the interpreter's
lock at each, and a batch in full flight wants it back every time.
"""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from runner import files
from runner.database import Database
from runner.events import (
    Accepted,
    Appended,
    BatchCancelDecided,
    CancelDecided,
    Claimed,
    DraftDropped,
    Drafted,
    DraftMade,
    DraftOver,
    Ended,
    Ending,
    Event,
    Finalized,
    Finalizing,
    Forgotten,
    Intended,
    Planned,
    Reopened,
    Sampled,
    Settled,
    Uploaded,
    Withdrawn,
)
from runner.records import record
from runner.runs import Run
from runner.states import MOVES, State
from runner.values import JsonObject, dump, parse

MESSAGE_LENGTH = 1000
"""Characters of an error message by which the report tells errors apart; attempts keep the whole of it."""

UNSENT = "unsent"
"""The table of the changes that the remote folder has not, in a ledger that has one (`remote/`)."""

ROWS_AT_ONCE = (1, 8, 32)
"""
Rows that a statement may have: few sizes, for SQLite keeps compiled what it meets again. Rows without a key fill it up:
they are cheaper than one more statement.
"""


@record(frozen=True, slots=True)
class Place:
    """Where a settled run's line stands in results.jsonl."""

    offset: int
    length: int
    digest: bytes


@record(frozen=True, slots=True)
class Taken:
    """A file name that another run has: its *path*, and which run; None while that one is just being reused."""

    path: str
    job: str | None
    index: int | None


Placed = tuple[Event, Place | None]
"""An event; the place belongs to a `Settled`."""

Columns = tuple[object, ...]


class Entries:
    """
    The events of one transaction, in their order. The usual ones of many runs wait for `flush`, which enters them
    together; those of one run never change places.
    """

    def __init__(self, database: Database) -> None:
        self.refused: dict[str, Taken] = {}
        self._db = database
        self._steps: dict[str, int] = {}  # by run, how far what waits takes it
        self._intended: list[Intended] = []
        self._accepted: dict[str, Accepted] = {}
        self._settled: list[tuple[Settled, Place]] = []

    def enter(self, event: Event, place: Place | None) -> None:
        """Enter *event* now, or keep it for `flush`; *refused* takes it if it is a claim that can't be had."""
        match event:
            case Intended():
                self._step(event.run.key, 1)
                self._intended.append(event)
            case Accepted():
                self._step(event.key, 2)
                self._accepted[event.key] = event
            case Settled():
                assert place is not None, "a settled run has a line"
                self._step(event.run.key, 3)
                self._settled.append((event, place))
            case Sampled():
                row = (event.endpoint, event.at, dump(event.jobs), dump(event.workers), event.problem)
                self._db.do("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", row)
            case _:
                self.flush()
                self._enter_one(event)

    def _step(self, key: str, step: int) -> None:
        if self._steps.get(key, 0) >= step:
            self.flush()
        self._steps[key] = step

    def flush(self) -> None:
        """Enter everything that waits."""
        self._intend()
        accepted_too, settled_only = [], []
        for event, place in self._settled:
            # What was accepted and settled in one transaction is written once.
            accepted = self._accepted.get(event.run.key)
            if event.ending is not None and accepted is not None and accepted.attempt == event.attempts:
                accepted_too.append((event, place, accepted))
                del self._accepted[event.run.key]
            else:
                settled_only.append((event, place))
        self._accept(list(self._accepted.values()))
        self._settle(accepted_too, settled_only)
        self._steps.clear()
        self._intended.clear()
        self._accepted.clear()
        self._settled.clear()

    # Many at once

    def _intend(self) -> None:
        wanted = len(self._intended)
        runs = [
            (one.run.key, one.run.job, one.run.index, State.SUBMITTING.value, one.attempt, given(one.run))
            for one in self._intended
        ]
        assert self._do(_INTEND, runs) == wanted, f"one of {wanted} runs can't become submitting"
        attempts = []
        for one in self._intended:
            to = one.destination
            attempts.append((one.run.key, one.attempt, one.run.job, to.name, to.base_url, to.endpoint_id, one.at))
        self._do(_INTEND_ATTEMPT, attempts)

    def _accept(self, events: Sequence[Accepted]) -> None:
        wanted = len(events)
        known = self._do(_ACCEPT_ATTEMPT, [(one.key, one.attempt, one.job_id, one.at) for one in events])
        assert known == wanted, f"one of {wanted} attempts has no row"
        moved = self._do(_ACCEPT, [(one.key,) for one in events])
        assert moved == wanted, f"one of {wanted} runs can't become submitted"

    def _settle(
        self, accepted_too: Sequence[tuple[Settled, Place, Accepted]], settled_only: Sequence[tuple[Settled, Place]]
    ) -> None:
        rows: list[Columns] = []
        for event, _, accepted in accepted_too:
            assert event.ending is not None
            ended = _ended(event.ending, event.at)
            rows.append((event.run.key, event.attempts, *ended, accepted.job_id, accepted.at))
        assert self._do(_END_ACCEPTED, rows) == len(rows), f"one of {len(rows)} attempts has no row, or is over"
        # An attempt that ended before keeps its own ending.
        rows = [
            (event.run.key, event.attempts, *_ended(event.ending, event.at))
            for event, _ in settled_only
            if event.ending is not None and event.attempts
        ]
        self._do(_END, rows)
        settled = [*settled_only, *((event, place) for event, place, _ in accepted_too)]
        # From any state that is not final: a line that is adopted may be several moves ahead of the ledger.
        sent = [(event, place) for event, place in settled if event.attempts]
        changed = self._do(_SETTLE, [(event.run.key, *_settled(event, place)) for event, place in sent])
        unsent = [(event, place) for event, place in settled if not event.attempts]  # as a rule they have no row
        changed += self._do(_SETTLE_ROWLESS, [_row(event, place) for event, place in unsent])
        if changed < len(settled):
            keys = {event.run.key for event, _ in sent}
            known = self._db.rows(f"SELECT key FROM runs WHERE key IN ({', '.join('?' * len(keys))})", tuple(keys))
            rowless = keys - {row[0] for row in known}
            missing = [_row(event, place) for event, place in sent if event.run.key in rowless]
            changed += self._do(_SETTLE_ROWLESS, missing)
        assert changed == len(settled), f"one of {len(settled)} runs is settled already"
        # The line knows better: a kill between the two may have kept the last withdrawal from the ledger. After one no
        # run succeeds.
        failed = [event for event, _ in settled if event.state is not State.SUCCEEDED]
        self._do(_DROP_LATER, [(event.run.key, event.attempts) for event in failed])

    def _do(self, statement: "_Statement", rows: Sequence[Columns]) -> int:
        """Run *statement* for all *rows*; how many rows of the table it changed."""
        changed = 0
        for start in range(0, len(rows), ROWS_AT_ONCE[-1]):
            some = rows[start : start + ROWS_AT_ONCE[-1]]
            size = next(size for size in ROWS_AT_ONCE if size >= len(some))
            fill = (None,) * (statement.columns * (size - len(some)))
            changed += self._db.do(statement.text(size), (*chain.from_iterable(some), *fill))
        return changed

    # One by one

    def _enter_one(self, event: Event) -> None:
        match event:
            case Claimed():
                self._claim(event)
            case Reopened():
                self._reopen(event)
            case Forgotten():
                self._forget(event.key)
            case Planned():
                self._plan(event)
            case Appended():
                self._append(event)
            case DraftDropped():
                self._drop(event)
            case Drafted() | DraftMade() | Finalizing() | Finalized() | BatchCancelDecided() | DraftOver():
                self._draft(event)
            case Withdrawn():
                self._withdraw(event)
            case Uploaded():
                self._db.do(f"DELETE FROM {UNSENT} WHERE number <= ?", (event.upto,))
            case CancelDecided():
                self._attempt(event.key, event.attempt, cancel_at=event.at)
            case Ended():
                columns = zip(_ENDED, _ended(event.ending, event.at), strict=True)
                self._attempt(event.key, event.attempt, **dict(columns))
                self._move(event.key, State.PENDING)

    def _claim(self, event: Claimed) -> None:
        names = [folded(file.path) for file in event.files]
        for name in names:
            other = self._db.first(
                "SELECT a.path, r.job, r.position FROM artifacts a LEFT JOIN runs r ON r.key = a.key"
                " WHERE a.name = ? AND a.key != ? AND (r.key IS NOT NULL OR a.attempt = 0)",
                (name, event.key),
            )
            if other is not None:
                self.refused[event.key] = Taken(*other)
                return
        for name, file in zip(names, event.files, strict=True):
            row = (name, file.path, event.key, event.attempt, file.sha256, file.size_bytes)
            self._db.do("INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?, ?)", row)

    def _reopen(self, event: Reopened) -> None:
        """
        Let a settled run be run again. One that was never sent goes back to having no row, so that the plan has it.

        Its line stays in results.jsonl until the batch ends; that no row speaks of it any more makes it superseded.
        """
        if self._db.do("DELETE FROM runs WHERE key = ? AND attempts = 0", (event.key,)):
            return
        reopened = self._db.do(
            "UPDATE runs SET state = ?, reopened_after = attempts, outcome = NULL, message = NULL,"
            " delay_time_ms = NULL, execution_time_ms = NULL, line_offset = NULL, line_length = NULL,"
            " line_digest = NULL, settled_at = NULL WHERE key = ? AND settled_at IS NOT NULL AND state != ?",
            (State.PENDING, event.key, State.SUCCEEDED),
        )
        assert reopened, f"run {event.key} can't be run again"

    def _forget(self, key: str) -> None:
        open_ = f"'{State.SUBMITTING}', '{State.SUBMITTED}'"
        forgotten = self._db.do(f"DELETE FROM runs WHERE key = ? AND state NOT IN ({open_})", (key,))
        assert forgotten, f"run {key} is under way, and can't be forgotten"
        self._db.do("DELETE FROM artifacts WHERE key = ?", (key,))  # whoever comes after it may have these names

    def _plan(self, event: Planned) -> None:
        (planned,) = self._db.first("SELECT value FROM meta WHERE name = 'plan'")
        counted = parse(planned.encode()) | {event.job: event.runs}
        self._db.do("INSERT OR REPLACE INTO meta VALUES ('plan', ?)", (dump(counted).decode(),))

    def _draft(self, event: Drafted | DraftMade | Finalizing | Finalized | BatchCancelDecided | DraftOver) -> None:
        if isinstance(event, Drafted):
            to = event.destination
            row = (event.number, event.job, to.name, to.base_url, to.endpoint_id, event.at, event.key)
            self._db.do(
                "INSERT INTO drafts (number, job, endpoint, base_url, endpoint_id, intended_at, key)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            return
        column, value = ("batch_id", event.batch_id) if isinstance(event, DraftMade) else (_AT[type(event)], event.at)
        known = self._update("drafts", {column: value}, "number = ?", (event.number,))
        assert known, f"draft {event.number} has no row"

    def _append(self, event: Appended) -> None:
        """Runs become part of a draft: intended, accepted where their ids are known, and in it, all at once."""
        mine = ((one.run.key, one.attempt, event.number) for one in event.requests)
        self._db.do_each("INSERT INTO drafted VALUES (?, ?, ?)", mine)
        for one in event.requests:
            self._intended.append(Intended(one.run, one.attempt, event.destination, event.at))
            if one.request_id is not None:
                self._accepted[one.run.key] = Accepted(one.run.key, one.attempt, one.request_id, event.at)
        self.flush()

    def _drop(self, event: DraftDropped) -> None:
        """Take back what `_append` entered. No run of it is settled: it was never run."""
        mine = "SELECT key FROM drafted WHERE draft = ?"
        self._db.do(
            "DELETE FROM attempts WHERE (key, attempt) IN (SELECT key, attempt FROM drafted WHERE draft = ?)",
            (event.number,),
        )
        self._db.do(
            f"UPDATE runs SET state = ?, attempts = attempts - 1 WHERE key IN ({mine})", (State.PENDING, event.number)
        )
        self._db.do(f"DELETE FROM runs WHERE key IN ({mine}) AND attempts = 0", (event.number,))
        self._db.do("DELETE FROM drafted WHERE draft = ?", (event.number,))
        known = self._update("drafts", {"dropped_at": event.at}, "number = ? AND finalized_at IS NULL", (event.number,))
        assert known, f"draft {event.number} has no row, or was finalized"

    def _withdraw(self, event: Withdrawn) -> None:
        self._move(event.key, State.PENDING, attempts=event.attempt - 1)
        intent = "DELETE FROM attempts WHERE key = ? AND attempt = ? AND job_id IS NULL"
        assert self._db.do(intent, (event.key, event.attempt)), f"run {event.key} was accepted, and can't be withdrawn"
        if event.attempt == 1:  # it never was anything else than pending, so it goes back to having no row
            self._db.do("DELETE FROM runs WHERE key = ?", (event.key,))

    def _move(self, key: str, to: State, **columns: object) -> None:
        """Give the run *key* its next state, where that is a legal move."""
        where = f"key = ? AND state IN ({_origins(to)})"
        assert self._update("runs", {"state": to, **columns}, where, (key,)), f"run {key} can't become {to}"

    def _attempt(self, key: str, attempt: int, **columns: object) -> None:
        known = self._update("attempts", columns, "key = ? AND attempt = ?", (key, attempt))
        assert known, f"attempt {attempt} of run {key} has no row"

    def _update(self, table: str, columns: Mapping[str, object], where: str, which: Columns) -> bool:
        setting = ", ".join(f"{name} = ?" for name in columns)
        return self._db.do(f"UPDATE {table} SET {setting} WHERE {where}", (*columns.values(), *which)) == 1


_AT = {
    Finalizing: "finalizing_at",
    Finalized: "finalized_at",
    BatchCancelDecided: "cancel_at",
    DraftOver: "over_at",
}
"""The columns of a draft that say when."""


def folded(path: str) -> str:
    """*path* as a file system may see it that ignores case and the form of accents."""
    return unicodedata.normalize("NFC", path).casefold()


def given(run: Run) -> str:
    """What *run* was given, as its row has it."""
    shown: JsonObject = {"row": run.row, "matrix": run.matrix, "repeat": run.repeat, "input": run.input}
    marks = files.marks(run.input)
    if run.problem:
        shown["problem"] = run.problem
    if run.skip:
        shown["skip"] = run.skip
    if marks:
        shown["files"] = marks
    return dump(shown).decode()


_ENDED = ("ended_at", "outcome", "status", "worker_id", "delay_time_ms", "execution_time_ms", "error", "cost_usd")


def _ended(ending: Ending | None, at: float) -> Columns:
    """The columns `_ENDED` of an attempt that ended."""
    if ending is None:
        return (at, None, None, None, None, None, None, None)
    return (
        at,
        ending.outcome.value,
        ending.status,
        ending.worker_id,
        ending.delay_time_ms,
        ending.execution_time_ms,
        None if ending.error is None else dump(ending.error).decode(),
        ending.cost_usd,
    )


_SETTLED = (
    *("state", "attempts", "outcome", "message", "delay_time_ms", "execution_time_ms"),
    *("line_offset", "line_length", "line_digest", "settled_at"),
)


def _settled(event: Settled, place: Place) -> Columns:
    """The columns `_SETTLED` of a run."""
    ending = event.ending
    return (
        event.state.value,
        event.attempts,
        ending.outcome.value if ending else None,
        _message(event),
        ending.delay_time_ms if ending else None,
        ending.execution_time_ms if ending else None,
        place.offset,
        place.length,
        place.digest,
        event.at,
    )


def _row(event: Settled, place: Place) -> Columns:
    """All columns of a run that is settled without having had a row."""
    return (event.run.key, *_settled(event, place), event.run.job, event.run.index, given(event.run))


def _message(event: Settled) -> str | None:
    """What the report says went wrong, the exception's type first where it is known; None when nothing did."""
    error = event.ending.error if event.ending else None
    if event.ending is None and event.state is State.SKIPPED and event.run.skip is not None:
        return event.run.skip[:MESSAGE_LENGTH]
    if error is None or event.state is State.SUCCEEDED:
        return None
    kind, message = error.get("type"), error["message"]
    if kind and not message.startswith(kind):
        message = f"{kind}: {message}" if message else kind
    return str(message[:MESSAGE_LENGTH])


def _origins(to: State) -> str:
    """The states from which *to* may be entered, save by who reopens a run, as SQL has them."""
    return ", ".join(f"'{state}'" for state, moves in MOVES.items() if to in moves and not state.is_final)


class _Statement:
    """A statement for any number of rows, each of *columns* values; one whose first is NULL changes nothing."""

    def __init__(self, columns: int, form: Callable[[str], str]) -> None:
        self.columns = columns
        self._form = form
        self._texts: dict[int, str] = {}

    def text(self, rows: int) -> str:
        """The statement for *rows* rows."""
        if rows not in self._texts:
            row = f"({', '.join('?' * self.columns)})"
            self._texts[rows] = self._form(f"VALUES {', '.join([row] * rows)}")
        return self._texts[rows]


def _updating(table: str, names: Sequence[str], where: str, *, keys: int) -> _Statement:
    """Sets the columns *names*; the first *keys* values of a row say which row it is about."""
    setting = ", ".join(f"{name} = new.column{number}" for number, name in enumerate(names, keys + 1))
    return _Statement(
        keys + len(names), lambda rows: f"UPDATE {table} SET {setting} FROM ({rows}) AS new WHERE {where}"
    )


_ATTEMPT = "key = new.column1 AND attempt = new.column2"
_INTEND = _Statement(
    6,
    lambda rows: (
        f"INSERT INTO runs (key, job, position, state, attempts, given) SELECT * FROM ({rows}) WHERE column1 NOT NULL"
        " ON CONFLICT (key) DO UPDATE SET state = excluded.state, attempts = excluded.attempts"
        f" WHERE state IN ({_origins(State.SUBMITTING)})"
    ),
)
_INTEND_ATTEMPT = _Statement(
    7,
    lambda rows: (
        "INSERT INTO attempts (key, attempt, job, endpoint, base_url, endpoint_id, intended_at)"
        f" SELECT * FROM ({rows}) WHERE column1 NOT NULL"
    ),
)
_ACCEPT_ATTEMPT = _updating("attempts", ("job_id", "submitted_at"), _ATTEMPT, keys=2)
_ACCEPT = _Statement(
    1,
    lambda rows: (
        f"UPDATE runs SET state = '{State.SUBMITTED}' FROM ({rows}) AS new"
        f" WHERE key = new.column1 AND state IN ({_origins(State.SUBMITTED)})"
    ),
)
_END = _updating("attempts", _ENDED, f"{_ATTEMPT} AND ended_at IS NULL", keys=2)
_END_ACCEPTED = _updating("attempts", (*_ENDED, "job_id", "submitted_at"), f"{_ATTEMPT} AND ended_at IS NULL", keys=2)
_SETTLE = _updating("runs", _SETTLED, "key = new.column1 AND settled_at IS NULL", keys=1)
_SETTLE_ROWLESS = _Statement(
    14,
    lambda rows: (
        f"INSERT INTO runs (key, {', '.join(_SETTLED)}, job, position, given)"
        f" SELECT * FROM ({rows}) WHERE column1 NOT NULL ON CONFLICT (key) DO UPDATE"
        f" SET {', '.join(f'{name} = excluded.{name}' for name in _SETTLED)} WHERE settled_at IS NULL"
    ),
)
_DROP_LATER = _Statement(
    2,
    lambda rows: (
        "DELETE FROM attempts WHERE (key, attempt) IN (SELECT a.key, a.attempt"
        f" FROM ({rows}) AS new CROSS JOIN attempts AS a ON a.key = new.column1 AND a.attempt > new.column2)"
    ),
)
