"""Name the states and outcomes, which of them are final, and which moves are legal."""

from enum import StrEnum


class State(StrEnum):
    """Where a run stands. The last four are final: a run gets one of them and keeps it, unless a person reopens it."""

    PENDING = "pending"
    SUBMITTING = "submitting"
    SUBMITTED = "submitted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        """Whether the run is settled."""
        return self in SETTLED


SETTLED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.SKIPPED})

MOVES: dict[State, frozenset[State]] = {
    # pending settles at once when its row can't be rendered, its body is too large, or the batch is stopped for good;
    # and as succeeded when an earlier batch has its result.
    State.PENDING: frozenset({State.SUBMITTING, State.SUCCEEDED, State.FAILED, State.SKIPPED}),
    # back to pending: surely not accepted, or an attempt that is retried.
    State.SUBMITTING: frozenset({State.SUBMITTED, State.PENDING, State.FAILED, State.CANCELLED}),
    State.SUBMITTED: frozenset({State.PENDING, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    # back to pending: a person asks for it, by --retry-failed.
    State.FAILED: frozenset({State.PENDING}),
    State.CANCELLED: frozenset({State.PENDING}),
    State.SKIPPED: frozenset({State.PENDING}),
}


class Outcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    COMPLETED_WITHOUT_OUTPUT = "completed_without_output"
    CHECK_FAILED = "check_failed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    LOST = "lost"
    INCOMPLETE = "incomplete"
    UNREADABLE = "unreadable"
    ARTIFACT_FAILED = "artifact_failed"
    ANSWER_LOST = "answer_lost"
    REJECTED = "rejected"
    TOO_LARGE = "too_large"
    INVALID = "invalid"
    CANCELLED = "cancelled"

    @property
    def state(self) -> State:
        """The state in which a run settles when its last attempt ended like this."""
        if self is Outcome.COMPLETED:
            return State.SUCCEEDED
        return State.CANCELLED if self is Outcome.CANCELLED else State.FAILED


RETRYABLE = frozenset(
    {
        Outcome.COMPLETED_WITHOUT_OUTPUT,
        Outcome.CHECK_FAILED,
        Outcome.FAILED,
        Outcome.TIMED_OUT,
        Outcome.CRASHED,
        Outcome.LOST,
        Outcome.INCOMPLETE,
        Outcome.UNREADABLE,
    }
)
"""Outcomes that a job's ``retry.outcomes`` may name. answer_lost is not one: ``on_answer_lost`` alone decides there."""

FINAL_STATUSES = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
"""RunPod's final status words; any other word, known or not, means "not final yet"."""


def is_final_status(status: str) -> bool:
    """Whether RunPod's *status* is final. An unknown word is not: a deadline bounds the waiting, not this function."""
    return status in FINAL_STATUSES


class Verdict(StrEnum):
    """What a batch came to."""

    PASS = "pass"
    FAIL = "fail"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    REFUSED = "refused"
