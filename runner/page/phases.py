"""Where an attempt's time went: our own wait, the queue, execution, and until we saw the end. Pure."""

from enum import StrEnum

from runner.timings import Attempt


class Phase(StrEnum):
    """A part of an attempt's life, in the order in which they come."""

    WAIT = "wait"
    """From the intent until the submit was answered: pace, rate limits, the request itself."""

    QUEUE = "queue"
    """RunPod's delay time."""

    EXECUTION = "execution"
    """RunPod's execution time."""

    LAG = "lag"
    """From the end of the execution until we knew of it, its output written down."""

    UNTOLD = "untold"
    """At the endpoint, and RunPod did not say what with."""


Stretch = tuple[Phase, float, float]
"""A phase, and when it began and ended, seconds since the epoch."""


def phases(attempt: Attempt, *, now: float) -> list[Stretch]:
    """
    The phases of *attempt*, in order, none of them empty; one that is under way goes until *now*.

    The two clocks, ours and RunPod's, may differ: what RunPod tells never goes beyond what we saw of the attempt.
    """
    begin = attempt.intended_at
    end = max(begin, now if attempt.ended_at is None else attempt.ended_at)
    if attempt.submitted_at is None:
        return _filled([(Phase.WAIT, begin, end)])
    accepted = min(max(attempt.submitted_at, begin), end)
    queued_s = None if attempt.delay_time_ms is None else max(0, attempt.delay_time_ms) / 1000
    executed_s = None if attempt.execution_time_ms is None else max(0, attempt.execution_time_ms) / 1000
    if attempt.ended_at is None or (queued_s is None and executed_s is None):
        return _filled([(Phase.WAIT, begin, accepted), (Phase.UNTOLD, accepted, end)])
    # A held submit is answered when the job is over: it was accepted well before its answer came.
    accepted = max(begin, min(accepted, end - (queued_s or 0.0) - (executed_s or 0.0)))
    if queued_s is None:
        started = max(accepted, end - (executed_s or 0.0))
        return _filled(
            [(Phase.WAIT, begin, accepted), (Phase.UNTOLD, accepted, started), (Phase.EXECUTION, started, end)]
        )
    started = min(accepted + queued_s, max(accepted, end - (executed_s or 0.0)))
    stopped = started if executed_s is None else min(started + executed_s, end)
    last = Phase.UNTOLD if executed_s is None else Phase.LAG
    return _filled(
        [
            (Phase.WAIT, begin, accepted),
            (Phase.QUEUE, accepted, started),
            (Phase.EXECUTION, started, stopped),
            (last, stopped, end),
        ]
    )


def _filled(stretches: list[Stretch]) -> list[Stretch]:
    return [one for one in stretches if one[2] > one[1]]
