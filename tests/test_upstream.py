"""Settled runs of one job as rows of another, read while more of them settle."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from happened import a_run, a_settled, an_ending, carried, new_store, opened_store, skipped

from runner.errors import RecordError
from runner.events import Forgotten, Planned, Settled
from runner.ledger import Ledger
from runner.runs import Run
from runner.states import Outcome, State
from runner.store import Store
from runner.upstream import Given, Upstream
from runner.work import Work, settle


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A batch with nothing settled yet."""
    store = new_store(tmp_path)
    yield store
    store.close()


@pytest.fixture
def upstream(store: Store, tmp_path: Path) -> Iterator[Upstream]:
    """The runs of the job photos, seen by a reader of its own."""
    with Ledger.read_only(tmp_path / "ledger.sqlite") as ledger:
        found = Upstream("photos", ledger, tmp_path / "results.jsonl")
        yield found
        found.close()


def test_runs_are_rows_in_the_order_of_settling_each_once(store: Store, upstream: Upstream) -> None:
    """However often it is asked, and whatever else settles."""
    assert list(upstream.new()) == []
    store.write(carried(a_run("k2", index=2), an_ending(output={"x": 1}, artifacts=("artifacts/a.png",))))
    store.write(carried(a_run("other", job="texts")))
    store.write(carried(a_run("k0", index=0)))
    row = {"job": "photos", "key": "k2", "index": 2, "row": None, "matrix": None, "repeat": 0}
    first, second = upstream.new()
    assert first == Given(2, row | {"output": {"x": 1}, "artifacts": ["artifacts/a.png"]}, None)
    assert (second.number, second.row["output"]) == (0, None)
    assert list(upstream.new()) == []
    store.write(carried(a_run("k1", index=1)))
    assert [given.number for given in upstream.new()] == [1]


def test_more_runs_than_are_looked_at_together_come_all_the_same(store: Store, upstream: Upstream) -> None:
    """Those of other jobs in between count, too."""
    for number in range(450):
        store.write([skipped(a_run(f"p{number}", index=number)), skipped(a_run(f"t{number}", job="texts"))])
    assert [given.number for given in upstream.new()] == list(range(450))


@pytest.mark.parametrize(
    ("event", "why"),
    [
        pytest.param(a_settled(a_run(), 0, an_ending(Outcome.FAILED)), "run 0 of job 'photos' failed", id="failed"),
        pytest.param(
            a_settled(a_run(), 0, an_ending(Outcome.TIMED_OUT)),
            "run 0 of job 'photos' failed: timed_out",
            id="timed out",
        ),
        pytest.param(
            a_settled(a_run(), 0, an_ending(Outcome.CANCELLED)), "run 0 of job 'photos' was cancelled", id="cancelled"
        ),
        pytest.param(skipped(a_run()), "run 0 of job 'photos' was skipped", id="skipped"),
        pytest.param(
            settle(Work(replace(a_run(), skip="when is false")), None, now=1.0),
            "run 0 of job 'photos' was skipped: when is false",
            id="skipped for a reason",
        ),
    ],
)
def test_what_did_not_succeed_has_nothing_to_give(store: Store, upstream: Upstream, event: Settled, why: str) -> None:
    """And says why."""
    store.write([event])
    (given,) = upstream.new()
    assert given.why == why
    assert (given.row["output"], given.row["artifacts"]) == (None, [])


def test_a_line_that_was_changed_is_no_row(store: Store, upstream: Upstream, tmp_path: Path) -> None:
    """Nothing is sent that nobody gave."""
    store.write(carried(a_run(), an_ending(output="a horse")))
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes().replace(b"a horse", b"a house"))
    with pytest.raises(RecordError) as raised:
        list(upstream.new())
    assert raised.value.render() == (
        f"error: {path} is not as it was written: the line at byte 0 has changed\n"
        "  help: restore the file from a copy; the ledger beside it still knows every job id"
    )


# What the ledger keeps of it


def test_why_a_run_was_skipped_is_in_its_line_and_in_the_report(tmp_path: Path) -> None:
    """Also when a kill came between the two, and the line is all there is."""
    new_store(tmp_path).close()
    run = replace(a_run(), input=None, skip="run 3 of job 'captions' failed: timed_out")
    event = settle(Work(run), None, now=5.0)
    (tmp_path / "results.jsonl").write_bytes(event.line)
    opened = opened_store(tmp_path)
    assert opened.repair() == 1
    assert opened.ledger.errors("photos") == [(run.skip, 1)]
    known = opened.ledger.known("k1")
    assert known is not None
    assert (known.state, known.run) == (State.SKIPPED, run)
    assert opened.ledger.skipped_because("timed_out") == 1
    assert opened.ledger.skipped_because("when is false") == 0
    opened.close()


def test_a_forgotten_run_leaves_its_attempts_and_its_line_goes(store: Store, tmp_path: Path) -> None:
    """It was paid for; but it is no run of the batch any more."""
    store.write(carried(a_run("old"), an_ending(execution_time_ms=40)))
    store.write([Forgotten("old"), *carried(a_run("new"))])
    assert store.ledger.known("old") is None
    assert store.ledger.attempt_totals("photos") == (0, 40)
    store.drop_superseded()
    assert [b'"new"' in line for line in (tmp_path / "results.jsonl").read_bytes().splitlines()] == [True]


def test_a_count_replaces_the_bound_of_one_job(store: Store) -> None:
    """The others stay as they were planned."""
    store.ledger.note(plan={"a": 9, "b": 9})
    store.write([Planned("b", 4)])
    assert store.ledger.noted("plan") == {"a": 9, "b": 4}


def test_runs_that_were_made_of_a_run_are_found(store: Store) -> None:
    """By the row that they were given."""
    made = Run("later", 0, "m1", {"key": "k1", "job": "photos"}, None, 0, {"x": 1})
    store.write([*carried(a_run("k1")), *carried(made), *carried(a_run("m2", job="later"))])
    assert [one.run.key for one in store.ledger.made_of("later", "k1")] == ["m1"]
    assert [one.run.key for one in store.ledger.runs_of("later")] == ["m1", "m2"]
