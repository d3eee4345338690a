"""The ledger: what each event leaves in it, and what is read back."""

import math
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from happened import HERE, a_run, a_settled, accepted, an_ending, ended, error, intended, skipped, unsynced
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runner.errors import RecordError, UsageError
from runner.events import CancelDecided, Destination, Ended, Ending, Event, Sampled, Settled, Withdrawn
from runner.ledger import Ledger, OpenRun, Place
from runner.occurrences import KeyIndex
from runner.results import digest
from runner.runs import Run
from runner.states import Outcome, State

FIX_DAMAGED = (
    "\n  help: put it back from a copy, or start a new batch with --fresh; results.jsonl beside it has what was settled"
)
FIX = "\n  help: see that the disk has room and the folder can be written, then go on with --resume"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.create(path) as ledger:
        yield ledger


def tell(ledger: Ledger, *events: Event) -> None:
    """Apply *events*, lines placed one behind the other."""
    placed: list[tuple[Event, Place | None]] = []
    end = ledger.lines_end()
    for event in events:
        place = None
        if isinstance(event, Settled):
            place = Place(end, len(event.line), digest(event.line))
            end += len(event.line)
        placed.append((event, place))
    ledger.apply(placed)


def the_open_run(ledger: Ledger) -> OpenRun:
    (one,) = ledger.open_runs()
    return one


# What each event leaves


def test_an_intent_is_an_open_run_without_a_job_id(ledger: Ledger) -> None:
    """After a kill here nobody knows whether the job exists, and the ledger must say so."""
    run = a_run(given={"prompt": "a horse"})
    tell(ledger, intended(run, at=5.0))
    assert the_open_run(ledger) == OpenRun(run, 1, False, HERE, None, None, 5.0, (), None)
    assert ledger.counts() == {"photos": {(State.SUBMITTING, None): 1}}
    assert ledger.knows("k1")
    assert ledger.awaits_answer("k1", 1)


def test_an_answer_adds_the_job_id(ledger: Ledger) -> None:
    """With it a resume follows the job instead of paying again."""
    run = a_run()
    tell(ledger, intended(run, at=5.0), accepted(run, at=6.0))
    assert the_open_run(ledger) == OpenRun(run, 1, False, HERE, "k1-job-1", 6.0, 5.0, (), None)
    assert ledger.counts() == {"photos": {(State.SUBMITTED, None): 1}}
    assert not ledger.awaits_answer("k1", 1)


def test_a_row_that_can_not_be_rendered_keeps_its_problem(ledger: Ledger) -> None:
    """It is settled by it, also after a resume."""
    run = a_run(problem="input.x: nope")
    tell(ledger, intended(run))
    assert the_open_run(ledger).run == run


def test_a_withdrawn_first_intent_leaves_nothing(ledger: Ledger) -> None:
    """A refused connection is no attempt: the run is as new."""
    run = a_run()
    tell(ledger, intended(run), Withdrawn("k1", 1))
    assert (ledger.open_runs(), ledger.counts(), ledger.knows("k1")) == ([], {}, False)
    assert ledger.recent_submits(0) == []


def test_a_withdrawn_later_intent_leaves_the_attempts_before_it(ledger: Ledger) -> None:
    """What was paid for before stays on record."""
    run = a_run()
    tell(ledger, intended(run), accepted(run), ended(run))
    before = ledger.open_runs()
    tell(ledger, intended(run, 2), Withdrawn("k1", 2))
    assert ledger.open_runs() == before
    assert ledger.counts() == {"photos": {(State.PENDING, None): 1}}
    assert ledger.attempt_totals("photos") == (0, 0)


def test_an_ended_attempt_waits_for_the_next_with_all_that_was_said_of_it(ledger: Ledger) -> None:
    """The retry policy counts it after a resume, too."""
    run = a_run()
    ending = Ending(Outcome.CRASHED, None, error("gone"), "FAILED", "w1", 7, 8)
    tell(ledger, intended(run, at=5.0), accepted(run, at=6.0), ended(run, ending=ending))
    found = the_open_run(ledger)
    assert (found.attempt, found.ended, found.outcomes) == (1, True, (Outcome.CRASHED,))
    assert found.last is not None
    assert (found.last.error, found.last.status, found.last.worker_id) == (error("gone"), "FAILED", "w1")
    assert (found.last.delay_time_ms, found.last.execution_time_ms) == (7, 8)


def test_later_attempts_count_from_the_first_intent(ledger: Ledger) -> None:
    """`timeouts.run` covers all attempts."""
    run = a_run()
    elsewhere = Destination("sdxl", "https://other/v2", "old")
    tell(ledger, intended(run, at=5.0, to=elsewhere), Ended("k1", 1, None, 6.0), intended(run, 2, at=7.0))
    tell(ledger, accepted(run, 2, at=8.0), ended(run, 2), intended(run, 3, at=9.0))
    found = the_open_run(ledger)
    assert (found.attempt, found.ended, found.first_at, found.outcomes) == (3, False, 5.0, (None, Outcome.FAILED))
    assert (found.destination, found.last) == (HERE, None)
    assert ledger.attempt_totals("photos") == (2, 0)


def test_a_settled_run_is_not_open_and_knows_its_line(ledger: Ledger) -> None:
    """The line can be read from its place without reading the file."""
    one, other = a_run("k1"), a_run("k2", index=1)
    settled = a_settled(one)
    tell(ledger, intended(one), accepted(one), settled, skipped(other))
    assert ledger.open_runs() == []
    assert ledger.settled_line("k1") == Place(0, len(settled.line), digest(settled.line))
    assert ledger.settled_line("nobody") is None
    assert ledger.last_line() == ledger.settled_line("k2")
    assert ledger.counts() == {
        "photos": {(State.SKIPPED, None): 1, (State.SUCCEEDED, Outcome.COMPLETED): 1},
    }


def test_a_run_may_settle_without_an_attempt(ledger: Ledger) -> None:
    """A row that can't be rendered, a body that is too large: there is an error, and no attempt that had it."""
    tell(ledger, a_settled(a_run(), 0, an_ending(Outcome.INVALID)))
    assert ledger.counts() == {"photos": {(State.FAILED, Outcome.INVALID): 1}}
    assert ledger.errors("photos") == [("it was invalid", 1)]
    assert ledger.attempt_totals("photos") == (0, 0)


def test_a_rejected_retry_leaves_the_attempt_before_it_as_it_was(path: Path, ledger: Ledger) -> None:
    """Attempts are only ever added: the first one ran, and its seconds were paid for."""
    run = a_run()
    first = an_ending(Outcome.CRASHED, execution_time_ms=5000)
    tell(ledger, intended(run), accepted(run), ended(run, ending=first), intended(run, 2), Withdrawn("k1", 2))
    tell(ledger, a_settled(run, 1, an_ending(Outcome.REJECTED)))
    assert ledger.attempt_totals("photos") == (0, 5000)
    assert ledger.errors("photos") == [("it was rejected", 1)]
    assert ledger.percentiles("photos", "execution_time_ms", (50,)) == [None]
    rows = sqlite3.connect(path).execute("SELECT attempt, outcome, ended_at FROM attempts").fetchall()
    assert rows == [(1, "crashed", 102.0)]


def test_a_line_takes_back_what_a_kill_kept_from_being_withdrawn(ledger: Ledger) -> None:
    """The withdrawal and the line share a commit: after a kill only the line is there, and is adopted."""
    run = a_run()
    tell(ledger, intended(run), a_settled(run, 0, an_ending(Outcome.REJECTED)))
    assert ledger.recent_submits(0) == []


def test_a_decision_to_cancel_moves_nothing(path: Path, ledger: Ledger) -> None:
    """The job may still complete, and then its result counts."""
    run = a_run()
    tell(ledger, intended(run), accepted(run), CancelDecided("k1", 1, 7.0))
    assert ledger.counts() == {"photos": {(State.SUBMITTED, None): 1}}
    assert sqlite3.connect(path).execute("SELECT cancel_at FROM attempts").fetchall() == [(7.0,)]


def test_samples_come_back_in_the_order_of_looking(ledger: Ledger) -> None:
    """Even when the clock was set back in between."""
    looks = [Sampled("a", 9.0, {"inQueue": 1}, {}), Sampled("b", 5.0, {}, {"idle": 2}, "HTTP 500")]
    tell(ledger, *looks)
    assert list(ledger.samples()) == looks


def test_notes_keep_their_last_word(ledger: Ledger) -> None:
    """A resume takes back the verdict of the process before."""
    assert ledger.noted("verdict") is None
    ledger.note(plan={"photos": 2}, verdict="interrupted")
    ledger.note(verdict=None)
    assert (ledger.noted("plan"), ledger.noted("verdict")) == ({"photos": 2}, None)


# Legal moves

INTENDED = intended(a_run())
ILLEGAL: dict[str, list[Event]] = {
    "settled twice": [skipped(a_run()), skipped(a_run())],
    "intended while intended": [INTENDED, intended(a_run(), 2)],
    "intended after it settled": [skipped(a_run()), INTENDED],
    "the same attempt again": [INTENDED, ended(a_run()), intended(a_run(), 1)],
    "accepted twice": [INTENDED, accepted(a_run()), accepted(a_run())],
    "accepted without an intent": [accepted(a_run())],
    "withdrawn after it was accepted": [INTENDED, accepted(a_run()), Withdrawn("k1", 1)],
    "ended without an attempt": [ended(a_run())],
}


@pytest.mark.parametrize("events", ILLEGAL.values(), ids=list(ILLEGAL))
def test_an_illegal_move_is_refused_and_nothing_of_its_group_stays(ledger: Ledger, events: list[Event]) -> None:
    """A bug must stop the batch before it makes the counts lie."""
    with pytest.raises(AssertionError):
        tell(ledger, *events)
    assert (ledger.counts(), ledger.open_runs()) == ({}, [])
    tell(ledger, INTENDED)


# Reading back


def test_open_runs_come_with_job_ids_first_and_the_oldest_submit_first(ledger: Ledger) -> None:
    """Results expire 30 minutes after completion: whoever waited longest is looked at first."""
    late, early, asked, waiting = (a_run(f"k{n}", index=n) for n in range(4))
    tell(ledger, intended(asked, at=1.0), intended(late), accepted(late, at=30.0), intended(early))
    tell(ledger, accepted(early, at=20.0), intended(waiting, at=0.5), ended(waiting))
    assert [one.run.key for one in ledger.open_runs()] == ["k1", "k0", "k2", "k3"]


def test_recent_submits_are_dated_by_the_latest_moment_at_which_they_were_sent(ledger: Ledger) -> None:
    """RunPod counts when a request arrives; one that waited for its turn was sent later than it was intended."""
    answered, lost, asked, old = (a_run(f"k{n}", index=n) for n in range(4))
    tell(ledger, intended(answered, at=1.0), accepted(answered, at=50.0))
    tell(ledger, intended(lost, at=2.0), ended(lost, ending=an_ending(Outcome.ANSWER_LOST), at=45.0))
    tell(ledger, intended(asked, at=48.0), intended(old, at=3.0), accepted(old, at=40.0))
    assert ledger.recent_submits(40.0) == [("sdxl", 45.0), ("sdxl", 48.0), ("sdxl", 50.0)]


def test_errors_are_the_commonest_first_and_cut(ledger: Ledger) -> None:
    """The report shows a few; a handler may put megabytes into one."""
    messages = ["b", "a", "b", "c", "x" * 5000]
    for number, message in enumerate(messages):
        tell(ledger, a_settled(a_run(f"k{number}"), 0, an_ending(Outcome.FAILED, error=error(message))))
    tell(ledger, a_settled(a_run("ok"), 0), a_settled(a_run("other", "captions"), 0, an_ending(Outcome.LOST)))
    assert ledger.errors("photos") == [("b", 2), ("a", 1), ("c", 1), ("x" * 1000, 1)]
    assert ledger.errors("photos", most=1) == [("b", 2)]


def test_execution_times_add_up_over_all_attempts_beyond_64_bit(ledger: Ledger) -> None:
    """Whatever a server says, the report must come."""
    run = a_run()
    tell(ledger, intended(run), ended(run, ending=an_ending(Outcome.FAILED, execution_time_ms=2**62)))
    tell(ledger, intended(run, 2), a_settled(run, 2, an_ending(execution_time_ms=2**62)))
    tell(ledger, intended(a_run("k2")), a_settled(a_run("k2"), 1, an_ending(execution_time_ms=2**62)))
    assert ledger.attempt_totals("photos") == (1, 3 * 2**62)


def nearest_rank(values: list[int], rank: int) -> int:
    """The smallest value that *rank* percent of all are not above: the definition, word by word."""
    return min(value for value in values if 100 * sum(other <= value for other in values) >= rank * len(values))


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=120), st.lists(st.integers(1, 100), min_size=1, max_size=5))
def test_percentiles_are_nearest_rank(values: list[int], ranks: list[int]) -> None:
    """A percentile is a time that some run really took."""
    with tempfile.TemporaryDirectory() as folder, Ledger.create(Path(folder) / "ledger.sqlite") as ledger:
        unsynced(ledger)
        numbered = enumerate(values)
        tell(ledger, *(a_settled(a_run(f"k{n}"), 0, an_ending(execution_time_ms=value)) for n, value in numbered))
        tell(ledger, a_settled(a_run("unknown"), 0), a_settled(a_run("else", "b"), 0, an_ending(execution_time_ms=999)))
        expected = [nearest_rank(values, rank) for rank in ranks]
        assert ledger.percentiles("photos", "execution_time_ms", ranks) == expected
        assert ledger.percentiles("photos", "delay_time_ms", ranks) == [None for _ in ranks]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=60), st.integers(1, 100))
def test_the_times_of_all_jobs_are_taken_together(values: list[tuple[str, int]], rank: int) -> None:
    """A threshold is of the batch, and percentiles of its jobs can't be put together afterwards."""
    with tempfile.TemporaryDirectory() as folder, Ledger.create(Path(folder) / "ledger.sqlite") as ledger:
        unsynced(ledger)
        for number, (job, value) in enumerate(values):
            tell(ledger, a_settled(a_run(f"k{number}", job), 0, an_ending(execution_time_ms=value)))
        tell(ledger, a_settled(a_run("unknown"), 0))
        times = [value for _, value in values]
        expected = [nearest_rank(times, rank)] if times else [None]
        assert ledger.percentiles(None, "execution_time_ms", [rank]) == expected
        assert ledger.mean(None, "execution_time_ms") == (sum(times) / len(times) if times else None)
        of_a = [value for job, value in values if job == "a"]
        assert ledger.mean("a", "execution_time_ms") == (sum(of_a) / len(of_a) if of_a else None)
        assert ledger.mean(None, "delay_time_ms") is None


def test_what_was_spent_is_told_by_job(ledger: Ledger) -> None:
    """A money limit goes on from there after a resume; an attempt without a time cost nothing that is known."""
    one, other, third = a_run("k1"), a_run("k2", "captions"), a_run("k3")
    assert ledger.spent() == {}
    tell(ledger, intended(one), ended(one, ending=an_ending(Outcome.CRASHED, execution_time_ms=70)))
    tell(ledger, intended(one, 2), ended(one, 2, ending=an_ending(Outcome.CRASHED, execution_time_ms=0)))
    tell(ledger, intended(one, 3), a_settled(one, 3, an_ending(execution_time_ms=5)))
    tell(ledger, intended(other), a_settled(other, 1, an_ending(execution_time_ms=9)))
    tell(ledger, intended(third), a_settled(third, 1))
    assert ledger.spent() == {"photos": (3, 75), "captions": (1, 9)}


def test_a_run_that_was_tried_again_counts_once(ledger: Ledger) -> None:
    """However often; a retry that was surely not accepted is none."""
    for number, attempts in enumerate((1, 2, 4)):
        run = a_run(f"k{number}", "ab"[number % 2])
        for attempt in range(1, attempts):
            tell(ledger, intended(run, attempt), ended(run, attempt))
        tell(ledger, intended(run, attempts), a_settled(run, attempts))
    withdrawn = a_run("k3")
    tell(ledger, intended(withdrawn), ended(withdrawn), intended(withdrawn, 2), Withdrawn("k3", 2))
    assert ledger.tried_again() == 2


def test_an_error_is_told_with_its_type(ledger: Ledger) -> None:
    """Unless the message begins with it, as some handlers write it themselves."""
    errors = [("KeyError", "'nope'"), ("ValueError", "ValueError: no"), (None, "gone"), ("Empty", "")]
    for number, (kind, message) in enumerate(errors):
        failed = an_ending(Outcome.FAILED, error=error(message) | {"type": kind})
        tell(ledger, a_settled(a_run(f"k{number}"), 0, failed))
    tell(ledger, a_settled(a_run("long"), 0, an_ending(Outcome.FAILED, error=error("x" * 999) | {"type": "E"})))
    assert ledger.errors("photos") == [
        *((text, 1) for text in ("E: " + "x" * 997, "Empty", "KeyError: 'nope'", "ValueError: no", "gone")),
    ]


# Two processes, and bad files


def test_a_reader_sees_what_is_committed_while_another_connection_writes(path: Path, ledger: Ledger) -> None:
    """`runner status` looks at a running batch and neither waits nor makes it wait."""
    tell(ledger, intended(a_run()))
    with Ledger.read_only(path) as reader:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE runs SET state = 'failed'")
        assert reader.counts() == {"photos": {(State.SUBMITTING, None): 1}}
        with reader.snapshot():
            assert reader.knows("k1")
            other.execute("COMMIT")
            assert reader.counts() == {"photos": {(State.SUBMITTING, None): 1}}
        assert reader.counts() == {"photos": {(State.FAILED, None): 1}}
        with pytest.raises(RecordError, match="attempt to write a readonly database"):
            reader.note(x=1)
        other.close()


def test_a_finished_ledger_is_read_where_nothing_can_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's cron job wrote it, somebody else looks: SQLite alone would want to make files beside it."""
    with Ledger.create(path) as ledger:
        ledger.note(verdict="pass")
    monkeypatch.setattr("os.access", lambda *_: False)
    with Ledger.read_only(path) as reader:
        assert reader.noted("verdict") == "pass"
        assert [one.name for one in path.parent.iterdir()] == ["ledger.sqlite"]


def test_what_was_committed_is_there_after_the_writer_vanished(path: Path, tmp_path: Path) -> None:
    """A copy of the files as they lie, WAL and all, is what power loss leaves."""
    with Ledger.create(path) as ledger:
        tell(ledger, intended(a_run()))
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in ("ledger.sqlite", "ledger.sqlite-wal"):
            (copy / name).write_bytes((tmp_path / name).read_bytes())
    with Ledger.open(copy / "ledger.sqlite") as found:
        assert found.knows("k1")


def test_odd_characters_in_a_path_are_no_uri(tmp_path: Path) -> None:
    """A folder may be called anything."""
    path = tmp_path / "50%20 #1?mode=memory"
    Ledger.create(path).close()
    assert path.stat().st_size > 0
    Ledger.read_only(path).close()


def test_a_missing_ledger_is_said_plainly(path: Path) -> None:
    """And opening one makes none."""
    with pytest.raises(RecordError) as caught:
        Ledger.open(path)
    assert caught.value.render() == f"error: the ledger {path} can't be used: unable to open database file{FIX}"
    assert not path.exists()


def test_a_file_that_is_no_ledger_is_said_plainly(path: Path) -> None:
    """Somebody's backup tool wrote over it."""
    path.write_bytes(b"SQLite? no." * 500)
    for how in (Ledger.open, Ledger.read_only):
        with pytest.raises(RecordError) as caught:
            how(path)
        assert caught.value.render() == f"error: the ledger {path} can't be used: file is not a database{FIX_DAMAGED}"


def look(path: Path) -> None:
    """Read the ledger at *path* from end to end."""
    with Ledger.read_only(path) as ledger:
        ledger.counts()
        ledger.settled_line("k7")
        list(ledger.samples())


DAMAGE = {"cut": lambda data: data[:8192], "overwritten": lambda data: data[:4096] + b"?" * (len(data) - 4096)}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_ledger_is_said_plainly_wherever_it_shows(path: Path, damage: Callable[[bytes], bytes]) -> None:
    """SQLite may notice on opening, or only when it comes to a page."""
    with Ledger.create(path) as ledger:
        tell(ledger, *(a_settled(a_run(f"k{number}"), 0) for number in range(200)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RecordError) as caught:
        look(path)
    assert (
        caught.value.render()
        == f"error: the ledger {path} can't be used: database disk image is malformed{FIX_DAMAGED}"
    )


@pytest.mark.parametrize("version", [0, 99], ids=["empty", "of the future"])
def test_a_foreign_version_is_refused(path: Path, version: int) -> None:
    """Reading it wrongly would be worse than not at all."""
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    with pytest.raises(UsageError) as caught:
        Ledger.open(path)
    assert caught.value.render() == (
        f"error: {path} is no ledger that this version reads: its format is {version}, and 2 is wanted\n"
        "  help: use the runner that wrote it, manifest.json beside it names the version; --fresh starts a new batch"
    )


def test_a_full_disk_is_said_plainly_and_the_commits_before_it_stay(path: Path, ledger: Ledger) -> None:
    """SQLite rolls back by itself then; saying so must not hide why."""
    tell(ledger, intended(a_run()))
    pages = ledger._db.first("PRAGMA page_count")[0]
    ledger._db.first(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(RecordError) as caught:
        tell(ledger, intended(a_run("k2", given={"x": "y" * 100_000})))
    assert caught.value.render() == f"error: the ledger {path} can't be used: database or disk is full{FIX}"
    assert [one.run.key for one in ledger.open_runs()] == ["k1"]


QUESTIONS = {
    "counts": "SELECT job, state, outcome, count(*) FROM runs GROUP BY job, state, outcome",
    "delay time": "SELECT delay_time_ms FROM runs WHERE job = ? AND delay_time_ms IS NOT NULL ORDER BY delay_time_ms",
    "execution time": "SELECT count(*) FROM runs WHERE job = ? AND execution_time_ms IS NOT NULL",
    "total": "SELECT total(execution_time_ms) FROM attempts WHERE job = ? AND execution_time_ms IS NOT NULL",
    "retried": "SELECT count(*) FROM attempts WHERE job = ? AND attempt > 1",
    "total by job": "SELECT job, count(*), total(execution_time_ms) FROM attempts"
    " WHERE execution_time_ms IS NOT NULL GROUP BY job",
    "reused": "SELECT job, count(*) FROM runs WHERE state = 'succeeded' AND attempts = 0 GROUP BY job",
    "tried again": "SELECT count(*) FROM attempts WHERE attempt > 1 AND attempt = 2",
    "mean of all": "SELECT count(*), total(delay_time_ms) FROM runs WHERE delay_time_ms IS NOT NULL",
    "errors": "SELECT message, count(*) FROM runs WHERE job = ? AND message IS NOT NULL GROUP BY message",
}


@pytest.mark.parametrize("sql", QUESTIONS.values(), ids=list(QUESTIONS))
def test_the_report_reads_an_index_and_no_table(ledger: Ledger, sql: str) -> None:
    """A million runs carry gigabytes of inputs: a table scan for each figure would take minutes."""
    (plan,) = [row[3] for row in ledger._db.rows(f"EXPLAIN QUERY PLAN {sql}", ("photos",) * sql.count("?"))]
    assert "USING COVERING INDEX" in plan


def test_a_resume_finds_its_place_through_an_index(path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it has to look at, none of it grows with what is settled."""
    asked: list[str] = []
    real = type(ledger._db).rows

    def watched(self: object, sql: str, values: tuple[object, ...] = ()) -> Iterator[sqlite3.Row]:
        asked.extend(row[3] for row in real(ledger._db, f"EXPLAIN QUERY PLAN {sql}", values))
        return real(ledger._db, sql, values)

    monkeypatch.setattr(type(ledger._db), "rows", watched)
    monkeypatch.setattr(type(ledger._db), "first", lambda *words: next(watched(*words), None))
    ledger.open_runs()
    ledger.last_line()
    ledger.recent_submits(0)
    assert [step for step in asked if step.startswith("SCAN") and step != "SCAN r USING INDEX runs_open"] == []


# Equal runs


def test_equal_runs_are_counted_on_disk() -> None:
    """Each of them gets a key of its own, however many there are."""
    index = KeyIndex()
    assert [index.count(digest) for digest in (b"a", b"b", b"a", b"a", b"b")] == [0, 0, 1, 2, 1]
    index.close()


# Any legal life of a batch, closed and reopened anywhere


@dataclass
class Model:
    """A run as the ledger should have it."""

    run: Run
    state: State = State.PENDING
    attempts: int = 0
    outcome: Outcome | None = None
    outcomes: list[Outcome | None] = field(default_factory=list)
    job_ids: dict[int, str] = field(default_factory=dict)
    spent_ms: int = 0


class Life(RuleBasedStateMachine):
    """Random legal events, against a model in memory."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.sqlite"
        self.ledger = unsynced(Ledger.create(self.path))
        self.runs = [Model(a_run(f"k{number}", "ab"[number % 2], index=number)) for number in range(4)]
        self.now = 0.0

    def at(self) -> float:
        self.now += 1.0
        return self.now

    def some(self, data: st.DataObject, *states: State) -> Model:
        return data.draw(st.sampled_from([one for one in self.runs if one.state in states]))

    def has(self, *states: State) -> bool:
        return any(one.state in states for one in self.runs)

    @rule(data=st.data())
    @precondition(lambda self: self.has(State.PENDING))
    def intend(self, data: st.DataObject) -> None:
        one = self.some(data, State.PENDING)
        one.state, one.attempts = State.SUBMITTING, one.attempts + 1
        tell(self.ledger, intended(one.run, one.attempts, at=self.at()))

    @rule(data=st.data())
    @precondition(lambda self: self.has(State.SUBMITTING))
    def withdraw(self, data: st.DataObject) -> None:
        one = self.some(data, State.SUBMITTING)
        tell(self.ledger, Withdrawn(one.run.key, one.attempts))
        one.state, one.attempts = State.PENDING, one.attempts - 1

    @rule(data=st.data())
    @precondition(lambda self: self.has(State.SUBMITTING))
    def accept(self, data: st.DataObject) -> None:
        one = self.some(data, State.SUBMITTING)
        event = accepted(one.run, one.attempts, at=self.at())
        tell(self.ledger, event)
        one.state = State.SUBMITTED
        one.job_ids[one.attempts] = event.job_id

    @rule(data=st.data(), outcome=st.sampled_from([None, *Outcome]), spent_ms=st.integers(0, 99))
    @precondition(lambda self: self.has(State.SUBMITTING, State.SUBMITTED))
    def end(self, data: st.DataObject, outcome: Outcome | None, spent_ms: int) -> None:
        one = self.some(data, State.SUBMITTING, State.SUBMITTED)
        ending = None if outcome is None else an_ending(outcome, execution_time_ms=spent_ms)
        tell(self.ledger, Ended(one.run.key, one.attempts, ending, self.at()))
        one.state = State.PENDING
        one.outcomes.append(outcome)
        one.spent_ms += 0 if outcome is None else spent_ms

    @rule(data=st.data(), outcome=st.sampled_from(Outcome), spent_ms=st.integers(0, 99))
    @precondition(lambda self: self.has(State.PENDING, State.SUBMITTING, State.SUBMITTED))
    def settle(self, data: st.DataObject, outcome: Outcome, spent_ms: int) -> None:
        one = self.some(data, State.PENDING, State.SUBMITTING, State.SUBMITTED)
        ending = an_ending(outcome, execution_time_ms=spent_ms)
        tell(self.ledger, a_settled(one.run, one.attempts, ending, at=self.at()))
        if one.state is not State.PENDING:
            one.spent_ms += spent_ms
        one.state, one.outcome = outcome.state, outcome

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = unsynced(Ledger.open(self.path))

    @invariant()
    def the_counts_are_the_runs(self) -> None:
        expected: dict[str, dict[tuple[State, Outcome | None], int]] = {}
        for one in self.runs:
            if one.attempts or one.state is not State.PENDING:
                job = expected.setdefault(one.run.job, {})
                job[one.state, one.outcome] = job.get((one.state, one.outcome), 0) + 1
        assert self.ledger.counts() == expected

    @invariant()
    def the_open_runs_are_those_that_began_and_did_not_settle(self) -> None:
        expected = {
            one.run.key: (one.attempts, one.state is State.PENDING, tuple(one.outcomes))
            for one in self.runs
            if one.attempts and not one.state.is_final
        }
        found = self.ledger.open_runs()
        assert {one.run.key: (one.attempt, one.ended, one.outcomes) for one in found} == expected
        ids = {one.run.key: one.job_ids.get(one.attempts) for one in self.runs}
        assert all(one.job_id == ids[one.run.key] for one in found)

    @invariant()
    def what_was_spent_adds_up(self) -> None:
        for job in "ab":
            mine = [one for one in self.runs if one.run.job == job]
            retried = sum(max(0, one.attempts - 1) for one in mine)
            assert self.ledger.attempt_totals(job) == (retried, sum(one.spent_ms for one in mine))

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            self.folder.cleanup()


TestLife = Life.TestCase
TestLife.settings = settings(derandomize=True, deadline=None, max_examples=30, stateful_step_count=20)


def test_percentile_ranks_reach_from_the_least_to_the_greatest(ledger: Ledger) -> None:
    """p100 is what the report calls max."""
    for number in range(7):
        tell(ledger, a_settled(a_run(f"k{number}"), 0, an_ending(delay_time_ms=number)))
    assert ledger.percentiles("photos", "delay_time_ms", (0, 50, 95, 100)) == [0, math.ceil(3.5) - 1, 6, 6]
