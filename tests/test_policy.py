"""Outcomes of answers, retries and waits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.answers import RemoteJob
from runner.policy import Looks, RetryPolicy, backoff_s, outcome
from runner.states import RETRYABLE, Outcome
from runner.values import MISSING, JsonValue

GAVE_UP = "job timed out after 1 retries"
POLICY = RetryPolicy(attempts=3, outcomes={Outcome.CRASHED, Outcome.TIMED_OUT}, wait_initial_s=1.0, wait_max_s=60.0)


@pytest.mark.parametrize(
    ("status", "output", "error", "execution_ms", "limit_s", "expected"),
    [
        pytest.param("COMPLETED", {"x": 1}, None, 5, None, "completed", id="completed"),
        pytest.param("COMPLETED", None, None, 5, None, "completed", id="null is an output"),
        pytest.param("COMPLETED", MISSING, None, 5, None, "completed_without_output", id="no output"),
        pytest.param("COMPLETED", {"x": 1}, "oops", 5, None, "failed", id="completed with an error"),
        pytest.param("COMPLETED", {"x": 1}, GAVE_UP, 5, None, "failed", id="completed, and gave up"),
        pytest.param("CANCELLED", MISSING, None, None, None, "cancelled", id="cancelled"),
        pytest.param("CANCELLED", MISSING, GAVE_UP, None, None, "cancelled", id="cancelled, whatever it says"),
        pytest.param("TIMED_OUT", MISSING, None, None, None, "timed_out", id="timed out"),
        pytest.param("FAILED", MISSING, "ValueError", 5, None, "failed", id="the handler's error"),
        pytest.param("FAILED", MISSING, None, 5, None, "failed", id="no error told"),
        pytest.param("FAILED", MISSING, {"code": GAVE_UP}, 5, None, "failed", id="an error that is no text"),
        pytest.param("FAILED", MISSING, "Job ID not found", None, None, "lost", id="unknown to the dev server"),
        pytest.param("FAILED", MISSING, GAVE_UP, 600_000, None, "timed_out", id="at the default limit"),
        pytest.param("FAILED", MISSING, GAVE_UP, 599_000, None, "timed_out", id="nearly at the default limit"),
        pytest.param("FAILED", MISSING, GAVE_UP, 593_000, None, "crashed", id="below the default limit"),
        pytest.param("FAILED", MISSING, GAVE_UP, 30_000, 30.0, "timed_out", id="at its own limit"),
        pytest.param("FAILED", MISSING, GAVE_UP, 30_000, 60.0, "crashed", id="below its own limit"),
        pytest.param("FAILED", MISSING, GAVE_UP, None, 60.0, "crashed", id="never reported"),
        pytest.param("FAILED", MISSING, f"E: {GAVE_UP}.", 61_000, 60.0, "timed_out", id="with words around it"),
        pytest.param("FAILED", MISSING, "job timed out after many retries", 61_000, 60.0, "failed", id="other words"),
    ],
)
def test_the_outcome_of_a_final_answer(
    status: str, output: JsonValue, error: JsonValue, execution_ms: int | None, limit_s: float | None, expected: str
) -> None:
    """Users filter and retry by it."""
    job = RemoteJob("J", status, output, error, execution_time_ms=execution_ms)
    assert outcome(job, execution_timeout_s=limit_s).value == expected


@pytest.mark.parametrize("ended", list(Outcome))
def test_only_what_was_asked_for_and_may_be_is_tried_again(ended: Outcome) -> None:
    """Every attempt may cost money."""
    expected = ended in (Outcome.CRASHED, Outcome.TIMED_OUT)
    assert (POLICY.next_wait_s(ended, failures=1, jitter=0.0) is not None) is expected
    greedy = RetryPolicy(9, set(Outcome), 1.0, 60.0)
    assert (greedy.next_wait_s(ended, failures=1, jitter=0.0) is not None) is (ended in RETRYABLE)


@pytest.mark.parametrize("ended", list(Outcome))
@pytest.mark.parametrize("wanted", [True, False])
def test_retry_when_takes_the_place_of_outcomes(ended: Outcome, wanted: bool) -> None:
    """But makes no attempt of an outcome that is never tried again, nor one more than there may be."""
    again = POLICY.next_wait_s(ended, failures=1, jitter=0.0, wanted=wanted) is not None
    assert again is (wanted and ended in RETRYABLE)
    assert POLICY.next_wait_s(ended, failures=POLICY.attempts, jitter=0.0, wanted=wanted) is None


@pytest.mark.parametrize(
    ("failures", "jitter", "wait_s"),
    [(1, 0.0, 0.5), (1, 1.0, 1.0), (2, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, None), (4, 0.0, None)],
)
def test_attempts_are_counted_with_the_first(failures: int, jitter: float, wait_s: float | None) -> None:
    """`attempts: 3` is three submits, not four."""
    assert POLICY.next_wait_s(Outcome.CRASHED, failures=failures, jitter=jitter) == wait_s


@pytest.mark.parametrize("attempts", [0, 1])
def test_by_default_nothing_is_tried_again(attempts: int) -> None:
    """Money is spent on request only."""
    assert RetryPolicy(attempts, set(Outcome), 1.0, 60.0).next_wait_s(Outcome.FAILED, failures=1, jitter=0.5) is None


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 10**6), st.floats(0.001, 100), st.floats(0.001, 1e6), st.floats(0, 1, exclude_max=True))
def test_waits_stay_between_half_and_the_whole_of_the_cap(
    failures: int, initial_s: float, most_s: float, jitter: float
) -> None:
    """Not even a million failures make a wait of years, or an overflow."""
    wait_s = backoff_s(failures, initial_s=initial_s, most_s=most_s, jitter=jitter)
    ceiling_s = min(most_s, initial_s * 2 ** min(failures - 1, 30))
    assert ceiling_s / 2 <= wait_s <= ceiling_s


def test_looks_become_rarer_up_to_five_seconds() -> None:
    """Short jobs are seen soon, long ones don't eat the rate."""
    waits = [Looks().wait_s(looks) for looks in range(12)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1], Looks().wait_s(10**9)) == (0.25, 5.0, 5.0)
