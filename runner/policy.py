"""Decide, purely: which outcome an answer is, retry or settle, how long to wait."""

import re
from collections.abc import Collection

from runner.answers import RemoteJob
from runner.records import record
from runner.states import RETRYABLE, Outcome
from runner.values import MISSING, JsonValue, Missing

DEFAULT_EXECUTION_TIMEOUT_S = 600.0
"""RunPod's ``executionTimeout`` where nobody sets one. Source: RunPod docs, "Execution policies"."""

DEFAULT_TTL_S = 86_400.0
"""RunPod's ``ttl`` when the request sets none. Source: RunPod docs, "Execution policies"."""

KEPT_S = 1800.0
"""How long the result of a job of /run is kept after its end. Source: RunPod docs, "Operation reference"."""

SYNC_KEPT_S = 60.0
"""How long the result of a job of /runsync is kept: 1 minute; one page says 5. Source: RunPod docs, the careful way."""

GAVE_UP = re.compile(r"job timed out after \d+ retries")
"""What RunPod says both when a job ran into its limit and when its worker died. Source: field reports, summer 2026."""


def outcome(job: RemoteJob, *, execution_timeout_s: float | None) -> Outcome:
    """
    The outcome that the final answer *job* tells of.

    *execution_timeout_s* is what the request's policy asked for; None means RunPod's default of 10 minutes. The text
    "job timed out after N retries" stands for two things: with an execution time at the limit the job was too slow,
    otherwise its worker died or never reported.
    """
    match job.status:
        case "COMPLETED" if job.error is not None:
            return Outcome.FAILED
        case "COMPLETED":
            return Outcome.COMPLETED_WITHOUT_OUTPUT if job.output is MISSING else Outcome.COMPLETED
        case "CANCELLED":
            return Outcome.CANCELLED
        case "TIMED_OUT":
            return Outcome.TIMED_OUT
    error = job.error if isinstance(job.error, str) else ""
    if error == "Job ID not found":  # the SDK's own dev server, instead of a 404
        return Outcome.LOST
    if GAVE_UP.search(error) is None:
        return Outcome.FAILED
    limit_s = DEFAULT_EXECUTION_TIMEOUT_S if execution_timeout_s is None else execution_timeout_s
    ran_s = (job.execution_time_ms or 0) / 1000
    return Outcome.TIMED_OUT if ran_s >= 0.99 * limit_s else Outcome.CRASHED


def stream_output(job: RemoteJob, chunks: list[JsonValue], *, is_whole: bool) -> tuple[JsonValue | Missing, bool]:
    """
    The output of a stream job that ended as *job* says, and whether it can be vouched for.

    *is_whole* says that *chunks* are surely all, once each. The list that ``/status`` may have is. A generator without
    aggregation leaves ``[]`` there, so anything that is no list was returned by a handler that streams nothing.
    """
    if job.status != "COMPLETED":
        return chunks or job.output, True
    if isinstance(job.output, list) and job.output:
        return job.output, True
    if is_whole:
        return chunks or job.output, True
    is_returned = job.output is not MISSING and job.output != [] and not chunks
    return chunks or job.output, is_returned


@record(frozen=True, slots=True)
class RetryPolicy:
    """Which outcomes are tried again, how often in all (*attempts* counts the first), how soon."""

    attempts: int
    outcomes: Collection[Outcome]
    wait_initial_s: float
    wait_max_s: float

    def next_wait_s(self, ended: Outcome, *, failures: int, jitter: float, wanted: bool | None = None) -> float | None:
        """
        Seconds to wait before the next attempt, or None to settle.

        *failures* counts the attempts that this policy has to answer for, the one that just ended included: those that
        ended in a retryable outcome. *jitter* is in [0, 1). *wanted* is ``retry_when``'s word, which takes the place of
        *outcomes*; None where there is none.
        """
        if ended not in RETRYABLE or failures >= self.attempts:
            return None
        if not (ended in self.outcomes if wanted is None else wanted):
            return None
        return backoff_s(failures, initial_s=self.wait_initial_s, most_s=self.wait_max_s, jitter=jitter)


def backoff_s(failures: int, *, initial_s: float, most_s: float, jitter: float) -> float:
    """Seconds to wait after *failures* failures in a row (1 or more): doubling, capped, half of it by chance."""
    # Capped exponent: 2**30 s is beyond any most_s, and 2**1024 overflows a float.
    ceiling_s = min(most_s, initial_s * 2.0 ** min(failures - 1, 30))
    return ceiling_s * (0.5 + jitter / 2)  # the caller draws jitter, so this stays pure


@record(frozen=True, slots=True)
class Looks:
    """How far apart two looks at a job may be, in seconds."""

    least_s: float = 0.25
    most_s: float = 300.0

    def wait_s(self, looks: int) -> float:
        """Seconds to wait after *looks* looks whose server held no request: growing to 5 s, within the bounds."""
        longest_s = min(self.most_s, max(5.0, self.least_s))
        return min(longest_s, self.least_s * 1.5 ** min(looks, 10))


DEFAULT_LOOKS = Looks()
