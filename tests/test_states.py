"""States, outcomes and legal moves."""

import pytest

from runner.states import FINAL_STATUSES, MOVES, RETRYABLE, SETTLED, Outcome, State, Verdict, is_final_status


def test_a_settled_run_moves_no_more() -> None:
    """A run gets one last state, so that the counts add up to the plan; only a person takes back what failed."""
    assert {state for state, moves in MOVES.items() if moves <= {State.PENDING}} == SETTLED
    assert MOVES[State.SUCCEEDED] == frozenset()
    assert {state for state in State if state.is_final} == SETTLED
    assert MOVES.keys() == set(State)


def test_every_run_can_settle_from_wherever_it_stands() -> None:
    """None is left over when a batch is stopped for good."""
    for state in set(State) - SETTLED:
        assert State.FAILED in MOVES[state]


def test_nothing_succeeds_or_runs_without_being_submitted() -> None:
    """A success without a job would be one that nobody paid for, save for one that an earlier batch paid for."""
    assert [state for state, moves in MOVES.items() if State.SUCCEEDED in moves] == [State.PENDING, State.SUBMITTED]
    assert [state for state, moves in MOVES.items() if State.SUBMITTED in moves] == [State.SUBMITTING]
    assert [state for state, moves in MOVES.items() if State.SKIPPED in moves] == [State.PENDING]


TABLE = {
    "completed": ("succeeded", False),
    "completed_without_output": ("failed", True),
    "check_failed": ("failed", True),
    "failed": ("failed", True),
    "timed_out": ("failed", True),
    "crashed": ("failed", True),
    "lost": ("failed", True),
    "incomplete": ("failed", True),
    "unreadable": ("failed", True),
    "artifact_failed": ("failed", False),
    "answer_lost": ("failed", False),
    "rejected": ("failed", False),
    "too_large": ("failed", False),
    "invalid": ("failed", False),
    "cancelled": ("cancelled", False),
}


def test_outcomes_are_those_of_the_contract() -> None:
    """Each has its state, and says whether it may be tried again."""
    assert {one.value: (one.state.value, one in RETRYABLE) for one in Outcome} == TABLE


@pytest.mark.parametrize(
    ("status", "final"),
    [(status, True) for status in sorted(FINAL_STATUSES)]
    + [(status, False) for status in ("IN_QUEUE", "IN_PROGRESS", "RUNNING", "UNKNOWN", "completed", "")],
)
def test_an_unknown_status_is_not_final(status: str, final: bool) -> None:
    """A word that RunPod adds tomorrow must not end a job that still runs."""
    assert is_final_status(status) is final


def test_verdicts_are_those_of_the_contract() -> None:
    """Cron jobs read them in health.json."""
    assert [one.value for one in Verdict] == ["pass", "fail", "stopped", "interrupted", "refused"]
