"""Decide when each call may go: exact sliding windows, and holding back after a 429. Pure; time is an argument."""

from collections import deque
from collections.abc import Iterable, Mapping

from runner.units import Rate

BUCKETS = {
    "run": "run",
    "runsync": "runsync",
    "status": "status",
    "status-sync": "status",
    "stream": "status",
    "cancel": "cancel",
    "retry": "run",
    "purge-queue": "purge",
    "health": "health",
}
"""
Which of the configured rates each operation counts against.

status, status-sync and stream share one. Source: RunPod docs, "Rate limits", as they stood until 2025; the current page
lists status and stream apart and leaves status-sync out, so sharing is the careful reading.
"""


class Window:
    """At most ``rate.count`` calls in any window of ``rate.period_s`` seconds: exact, because it keeps every time."""

    def __init__(self, rate: Rate, past: Iterable[float] = ()) -> None:
        self._rate = rate
        self._spent: deque[float] = deque(past, maxlen=rate.count)

    def wait_s(self, now: float) -> float:
        """Seconds until a call may go; 0 when one may go now."""
        if len(self._spent) < self._rate.count:
            return 0.0
        return max(0.0, self._spent[0] + self._rate.period_s - now)

    def spend(self, now: float) -> None:
        """Count a call that goes now."""
        self._spent.append(now)


class Pace:
    """When calls to one endpoint may go. Times are monotonic seconds."""

    def __init__(self, rates: Mapping[str, Rate], past: Mapping[str, Iterable[float]] | None = None) -> None:
        """*rates* has one entry for each bucket in `BUCKETS`; *past* are times of earlier calls, oldest first."""
        past = past or {}
        self._windows = {bucket: Window(rate, past.get(bucket, ())) for bucket, rate in rates.items()}
        self._held_until = 0.0

    def wait_s(self, operation: str, now: float) -> float:
        """Seconds until *operation* may be called; 0 when now."""
        return max(self._windows[BUCKETS[operation]].wait_s(now), self._held_until - now, 0.0)

    def spend(self, operation: str, now: float) -> None:
        """Count a call of *operation* that goes now."""
        self._windows[BUCKETS[operation]].spend(now)

    def hold(self, until: float) -> None:
        """Let nothing go before *until*: RunPod said 429, and what it counts may be more than what we count."""
        self._held_until = max(self._held_until, until)
