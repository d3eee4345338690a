"""Where a batch goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from happened import HERE, a_run, a_settled, an_ending, error, intended, skipped

from runner import batch
from runner.batch import Folder
from runner.errors import UsageError
from runner.events import EMBEDDED, Destination, Ended, Event, Settled
from runner.ledger import Ledger, OpenRun
from runner.resume import (
    Progress,
    check_options,
    most_urgent_first,
    newest_unfinished,
    past_submits,
    progress,
    reopen,
)
from runner.states import Outcome, State
from runner.store import Store
from runner.values import MISSING, JsonObject

LOCAL = Destination("local", EMBEDDED, "local")
LOST = "the runner ended before RunPod's answer came; the job may exist"


def an_open_run(**more: Any) -> OpenRun:
    """A submit whose answer never came, unless *more* says otherwise."""
    told: dict[str, Any] = {
        "run": a_run(),
        "attempt": 1,
        "ended": False,
        "destination": HERE,
        "job_id": None,
        "submitted_at": None,
        "first_at": 5.0,
        "outcomes": (),
        "last": None,
    }
    return OpenRun(**(told | more))


# What open runs need


@pytest.mark.parametrize("resubmit", [False, True])
def test_a_known_job_is_followed_where_it_was_sent(resubmit: bool) -> None:
    """It is paid for, and its result waits; the job file may name another endpoint by now."""
    one = an_open_run(job_id="J-u1", submitted_at=6.0, outcomes=(Outcome.FAILED,), attempt=2)
    events, (work,) = reopen([one], resubmit={"photos": resubmit}, now=9.0)
    assert events == []
    assert (work.run, work.job_id, work.submitted_at, work.destination) == (one.run, "J-u1", 6.0, HERE)
    assert (work.attempts, work.failures, work.first_at) == (2, 1, 5.0)


def test_an_unanswered_submit_is_settled_as_lost() -> None:
    """Sending it again might pay twice, so that is for the user to allow."""
    events, works = reopen([an_open_run()], resubmit={"photos": False}, now=9.0)
    (event,) = events
    assert works == []
    assert isinstance(event, Settled)
    assert (event.state, event.attempts, event.at) == (State.FAILED, 1, 9.0)
    assert event.ending is not None
    assert (event.ending.outcome, event.ending.error) == (Outcome.ANSWER_LOST, error(LOST))


def test_an_unanswered_submit_is_sent_again_where_the_file_allows_it() -> None:
    """It is counted, so that the report can say how often it may have been paid for twice."""
    events, (work,) = reopen([an_open_run()], resubmit={"photos": True}, now=9.0)
    (event,) = events
    assert isinstance(event, Ended)
    assert event.ending is not None
    assert (event.key, event.attempt, event.ending.outcome) == ("k1", 1, Outcome.ANSWER_LOST)
    assert (work.attempts, work.failures, work.job_id, work.destination) == (1, 0, None, None)
    assert work.last == event.ending, "a batch that is ended now must not call it never sent"


@pytest.mark.parametrize("job_id", [None, "J"], ids=["asked", "accepted"])
def test_a_job_of_an_embedded_endpoint_ended_with_it(job_id: str | None) -> None:
    """Nothing was billed and nobody can say how it went: it is pending again, whatever `on_answer_lost` says."""
    one = an_open_run(destination=LOCAL, job_id=job_id, submitted_at=job_id and 6.0)
    events, (work,) = reopen([one], resubmit={"photos": False}, now=9.0)
    assert events == [Ended("k1", 1, None, 9.0)]
    assert (work.attempts, work.failures, work.job_id) == (1, 0, None)


def test_a_run_that_waits_to_be_tried_again_goes_on_as_it_was() -> None:
    """Its failures count; what was lost with an endpoint of ours, or its answer, does not."""
    ending = replace(an_ending(Outcome.FAILED), output=MISSING)
    outcomes = (None, Outcome.FAILED, Outcome.ANSWER_LOST, Outcome.CRASHED)
    one = an_open_run(ended=True, job_id="old", attempt=4, outcomes=outcomes, last=ending)
    events, (work,) = reopen([one], resubmit={"photos": False}, now=9.0)
    assert events == []
    assert (work.attempts, work.failures, work.job_id, work.last) == (4, 2, None, ending)


def test_work_keeps_the_order_of_the_ledger() -> None:
    """Known jobs come first there: their results expire."""
    found = [an_open_run(run=a_run(f"k{n}"), job_id=f"J{n}", submitted_at=1.0) for n in (2, 0, 1)]
    assert [work.run.key for work in reopen(found, resubmit={"photos": False}, now=9.0)[1]] == ["k2", "k0", "k1"]


def test_what_expires_first_is_followed_first_whichever_job_it_is_of() -> None:
    """After a downtime: a result of /runsync is kept for a minute, others for half an hour from their end."""
    found = [
        an_open_run(run=a_run("old", "big"), job_id="J1", submitted_at=1.0),
        an_open_run(run=a_run("young", "small"), job_id="J2", submitted_at=2.0),
        an_open_run(run=a_run("held", "sync"), job_id="sync-J3", submitted_at=3.0),
        an_open_run(run=a_run("unsent", "never"), ended=True),
    ]
    jobs = ["never", "small", "big", "sync", "other"]
    works = reopen(found, resubmit=dict.fromkeys(jobs, False), now=9.0)[1]
    assert [work.run.key for work in works] == ["held", "old", "young", "unsent"]
    assert most_urgent_first(jobs, works) == ["sync", "big", "small", "never", "other"]
    assert most_urgent_first(["other", "big"], works) == ["big", "other"]


# Which batch


def a_batch(root: Path, plan: JsonObject, *events: Event, now: float, verdict: str | None = "pass") -> Folder:
    """A batch of which *events* are on record; without *verdict* it was killed."""
    root.mkdir(exist_ok=True)
    folder = batch.create(root, now=now)
    with Ledger.create(folder.ledger) as ledger:
        ledger.note(plan=plan, verdict=verdict)
    store = Store(Ledger.open(folder.ledger), folder.results)
    store.write(events)
    store.close()
    return folder


DONE = [a_settled(a_run("k1"), 0), skipped(a_run("k2"))]


def test_progress_counts_what_is_settled(tmp_path: Path) -> None:
    """A run in flight is not done, and one without a row is not begun."""
    folder = a_batch(tmp_path, {"photos": 4, "captions": 1}, *DONE, intended(a_run("k3")), now=0.0)
    found = progress(folder)
    assert (found, found.unfinished) == (Progress(5, 2, has_ended=True), 3)


def test_the_newest_batch_is_gone_on_with_if_it_is_unfinished(tmp_path: Path) -> None:
    """A finished one ends the search: what is older was left on purpose."""
    assert newest_unfinished(tmp_path / "none") is None
    older = a_batch(tmp_path, {"photos": 3}, *DONE, now=0.0)
    assert newest_unfinished(tmp_path) == (older, Progress(3, 2, has_ended=True))
    (tmp_path / "19700101T000009Z-0000").mkdir()  # killed before it had a ledger: nothing was sent
    assert newest_unfinished(tmp_path) == (older, Progress(3, 2, has_ended=True))
    a_batch(tmp_path, {"photos": 2}, *DONE, now=10.0)
    assert newest_unfinished(tmp_path) is None


def test_a_batch_that_was_killed_before_its_report_is_gone_on_with(tmp_path: Path) -> None:
    """A new one in its place would pay for every run again, when all that is missing is the verdict."""
    killed = a_batch(tmp_path, {"photos": 2}, *DONE, now=0.0, verdict=None)
    assert newest_unfinished(tmp_path) == (killed, Progress(2, 2, has_ended=False))


def test_a_batch_without_runs_is_finished(tmp_path: Path) -> None:
    """An evening without new data is an evening like any other."""
    a_batch(tmp_path, {"photos": 3}, now=0.0)
    a_batch(tmp_path, {"photos": 0}, now=10.0)
    assert newest_unfinished(tmp_path) is None


def test_a_batch_whose_ledger_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    """Whoever deleted the wrong file would pay for every run again."""
    folder = a_batch(tmp_path, {"photos": 3}, *DONE, now=0.0)
    folder.ledger.unlink()
    with pytest.raises(UsageError) as raised:
        newest_unfinished(tmp_path)
    assert raised.value.message == (
        f"{folder.ledger} is gone, and results.jsonl beside it is not: nobody knows which jobs batch {folder.id} sent"
    )
    assert raised.value.fix == (
        "restore it from a copy, or start a new batch with --fresh, which may pay again for what was sent"
    )
    a_batch(tmp_path, {"photos": 2}, *DONE, now=10.0)
    assert newest_unfinished(tmp_path) is None


# Whether it still is the same


@pytest.mark.parametrize(
    ("was", "said"),
    [
        pytest.param({"vars": {}, "jobs": [], "limit": 9}, "--limit 9", id="limit"),
        pytest.param(
            {"vars": {"style": "oil"}, "jobs": ["a", "b"], "limit": None}, "--var style=oil --job a --job b", id="more"
        ),
        pytest.param({"vars": {}, "jobs": [], "limit": None}, "none", id="none"),
    ],
)
def test_other_options_are_refused_and_said(was: JsonObject, said: str) -> None:
    """They choose other runs of the same file."""
    manifest = {"batch": "20270115T080000Z-0001", "overrides": was}
    check_options(manifest, overrides=was)
    with pytest.raises(UsageError) as caught:
        check_options(manifest, overrides={"vars": {}, "jobs": [], "limit": 1})
    assert caught.value.render() == (
        f"error: batch 20270115T080000Z-0001 can't be gone on with like this: its options were {said}\n"
        "  help: give the same options, or start a new batch with --fresh"
    )


# Rates


def test_submits_of_the_past_are_told_on_this_process_s_clock() -> None:
    """RunPod's window does not know that we were restarted."""
    recent = [("a", 90.0), ("b", 95.0), ("a", 99.0)]
    assert past_submits(recent, now=100.0, monotonic=7.0) == {"a": [-3.0, 6.0], "b": [2.0]}
    assert past_submits([], now=100.0, monotonic=7.0) == {}


def test_a_clock_that_was_set_back_puts_no_submit_into_the_future() -> None:
    """The window would wait for hours."""
    assert past_submits([("a", 9999.0)], now=100.0, monotonic=7.0) == {"a": [7.0]}
