"""Counts and the verdict."""

import pytest

from runner.states import Outcome, State, Verdict
from runner.tally import JobTally, Tally, verdict


def test_a_tally_covers_all_resumes() -> None:
    """A progress bar that starts from nothing after a resume would frighten people."""
    tally = Tally({"a": 5, "b": 2})
    tally.restore(
        {
            "a": {
                (State.SUCCEEDED, Outcome.COMPLETED): 2,
                (State.FAILED, Outcome.CRASHED): 1,
                (State.SUBMITTED, None): 1,
                (State.PENDING, None): 1,
            },
            "b": {(State.SKIPPED, None): 1},
        }
    )
    tally.jobs["a"].settle(State.SUCCEEDED, Outcome.COMPLETED)
    assert tally.jobs["a"] == JobTally(
        planned=5,
        settled_before=3,
        states=tally.jobs["a"].states,
        outcomes=tally.jobs["a"].outcomes,
    )
    assert tally.jobs["a"].states == {State.SUCCEEDED: 3, State.FAILED: 1}
    assert tally.jobs["a"].outcomes == {Outcome.COMPLETED: 3, Outcome.CRASHED: 1}
    assert (tally.planned, tally.settled, tally.pending) == (7, 5, 2)
    assert (tally.total(State.SUCCEEDED), tally.total(State.SKIPPED), tally.total(State.CANCELLED)) == (3, 1, 0)


def test_what_is_in_flight_is_pending() -> None:
    """It may still be left to a resume."""
    tally = Tally({"a": 5})
    tally.jobs["a"].in_flight = 3
    assert (tally.in_flight, tally.pending, tally.settled) == (3, 5, 0)


ALL, ONE_FAILED, ONE_LEFT, ONE_CANCELLED, NONE = "ssss", "sssf", "sss", "sssc", ""


@pytest.mark.parametrize(
    ("states", "interrupted", "refused", "stopped", "expected"),
    [
        (ALL, False, False, False, Verdict.PASS),
        (ALL, True, False, False, Verdict.PASS),
        (ALL, False, True, False, Verdict.PASS),
        (ALL, False, False, True, Verdict.PASS),
        (ONE_FAILED, False, False, False, Verdict.FAIL),
        (ONE_FAILED, True, False, False, Verdict.FAIL),
        (ONE_FAILED, False, False, True, Verdict.STOPPED),
        (ONE_FAILED, False, True, False, Verdict.REFUSED),
        (ONE_LEFT, True, False, False, Verdict.INTERRUPTED),
        (ONE_LEFT, True, True, True, Verdict.REFUSED),
        (ONE_LEFT, True, False, True, Verdict.INTERRUPTED),
        (ONE_CANCELLED, True, False, False, Verdict.INTERRUPTED),
        (ONE_CANCELLED, False, False, False, Verdict.FAIL),
        (NONE, False, False, False, Verdict.FAIL),
    ],
)
def test_the_verdict(states: str, interrupted: bool, refused: bool, stopped: bool, expected: Verdict) -> None:
    """Exit codes hang on it: an interrupt that came after the last run succeeded changed nothing."""
    tally = Tally({"a": 4})
    letters = {"s": State.SUCCEEDED, "f": State.FAILED, "c": State.CANCELLED}
    for letter in states:
        tally.jobs["a"].settle(letters[letter], None)
    assert verdict(tally, interrupted=interrupted, refused=refused, stopped=stopped) is expected


def test_an_empty_batch_passes() -> None:
    """A night without new rows is no failure."""
    assert verdict(Tally({"a": 0}), interrupted=False, refused=False, stopped=False) is Verdict.PASS
