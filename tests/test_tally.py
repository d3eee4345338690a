"""Counts and the verdict."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert (tally.jobs["a"].failed, tally.jobs["b"].failed) == (1, 0)
    assert (tally.planned, tally.settled, tally.pending) == (7, 5, 2)
    assert (tally.total(State.SUCCEEDED), tally.total(State.SKIPPED), tally.total(State.CANCELLED)) == (3, 1, 0)


def test_what_is_in_flight_is_pending() -> None:
    """It may still be left to a resume."""
    tally = Tally({"a": 5})
    tally.jobs["a"].in_flight = 3
    assert (tally.in_flight, tally.pending, tally.settled) == (3, 5, 0)


def test_execution_time_adds_up_over_all_attempts_and_resumes() -> None:
    """A money limit that forgets what was spent before a resume, or on retries, is none."""
    tally = Tally({"a": 5, "b": 2})
    tally.restore({}, {"a": (3, 1200)})
    tally.jobs["a"].ended(300)
    tally.jobs["a"].ended(0)
    tally.jobs["a"].ended(None)
    assert (tally.jobs["a"].execution_ms, tally.jobs["a"].timed_attempts) == (1500, 5)
    assert (tally.jobs["b"].execution_ms, tally.jobs["b"].timed_attempts) == (0, 0)


ALL, ONE_FAILED, ONE_LEFT, ONE_CANCELLED, NONE = "ssss", "sssf", "sss", "sssc", ""
LETTERS = {"s": State.SUCCEEDED, "f": State.FAILED, "c": State.CANCELLED, "k": State.SKIPPED}


def tally_of(states: str) -> Tally:
    """A batch of four runs, those of *states* settled."""
    tally = Tally({"a": 4})
    for letter in states:
        tally.jobs["a"].settle(LETTERS[letter], None)
    return tally


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
    assert verdict(tally_of(states), interrupted=interrupted, refused=refused, stopped=stopped) is expected


@pytest.mark.parametrize(
    ("states", "flags", "hold", "expected"),
    [
        pytest.param(ONE_FAILED, "", True, Verdict.PASS, id="thresholds may allow failures"),
        pytest.param("sskk", "", True, Verdict.PASS, id="and skipped runs"),
        pytest.param(ONE_FAILED, "", False, Verdict.FAIL, id="a threshold fails"),
        pytest.param(ALL, "", True, Verdict.PASS, id="all succeeded"),
        pytest.param(ALL, "", False, Verdict.FAIL, id="all succeeded, too slowly"),
        pytest.param(ALL, "irs", True, Verdict.PASS, id="whatever came after the last success"),
        pytest.param(ALL, "irs", False, Verdict.FAIL, id="whatever came after it, too slowly"),
        pytest.param(ONE_LEFT, "", True, Verdict.FAIL, id="a pending run never passes"),
        pytest.param(ONE_LEFT, "r", True, Verdict.REFUSED, id="refused with pending runs"),
        pytest.param(ONE_LEFT, "i", True, Verdict.INTERRUPTED, id="interrupted with pending runs"),
        pytest.param(ONE_FAILED, "r", True, Verdict.PASS, id="refused after the last run settled"),
        pytest.param(ONE_FAILED, "r", False, Verdict.REFUSED, id="refused, and no pass"),
        pytest.param(ONE_CANCELLED, "i", True, Verdict.INTERRUPTED, id="an interrupt cancelled one"),
        pytest.param(ONE_FAILED, "i", True, Verdict.PASS, id="interrupted after the last run settled"),
        pytest.param("sskk", "s", True, Verdict.STOPPED, id="a batch that was cut short is no pass"),
        pytest.param("sskk", "s", False, Verdict.STOPPED, id="nor a mere failure"),
    ],
)
def test_the_verdict_with_thresholds(states: str, flags: str, hold: bool, expected: Verdict) -> None:
    """They decide alone what is good enough, but only of a batch that came to its end."""
    came_to = verdict(
        tally_of(states), interrupted="i" in flags, refused="r" in flags, stopped="s" in flags, thresholds_hold=hold
    )
    assert came_to is expected


@settings(derandomize=True, deadline=None)
@given(
    st.text("".join(LETTERS), max_size=4),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from([None, True, False]),
)
def test_a_pass_is_a_whole_batch_that_is_good_enough(
    states: str, flags: tuple[bool, bool, bool], hold: bool | None
) -> None:
    """Exit 0 is what a nightly job trusts without looking."""
    interrupted, refused, stopped = flags
    tally = tally_of(states)
    came_to = verdict(tally, interrupted=interrupted, refused=refused, stopped=stopped, thresholds_hold=hold)
    all_succeeded = states == ALL
    if came_to is Verdict.PASS:
        assert not tally.pending
        assert hold is not False
        assert all_succeeded or (hold and not stopped)
    if not any(flags):
        assert came_to in (Verdict.PASS, Verdict.FAIL)
    if all_succeeded:
        assert came_to is (Verdict.FAIL if hold is False else Verdict.PASS)


def test_an_empty_batch_passes() -> None:
    """A night without new rows is no failure."""
    assert verdict(Tally({"a": 0}), interrupted=False, refused=False, stopped=False) is Verdict.PASS
