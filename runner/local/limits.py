"""Hold clients to RunPod's rate limits: exact sliding windows, and caps on what is open at once. Pure."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

WINDOW_S = 10.0

BUCKETS = {
    "run": "run",
    "runsync": "runsync",
    "status": "status",
    "status-sync": "status",
    "stream": "status",
    "cancel": "cancel",
    "purge-queue": "purge-queue",
}
"""
Which limit each operation counts against; those that are not here have none.

status, status-sync and stream share one. Source: RunPod docs, "Rate limits", as they stood until 2025; the current page
lists status and stream apart and leaves status-sync out, so sharing is the harder reading.
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most *requests* in any window of 10 s, and at most *concurrent* of them open at once; None for no cap."""

    requests: int
    concurrent: int | None = None


DOCUMENTED: Mapping[str, Limit] = MappingProxyType(
    {
        "run": Limit(1000, 200),
        "runsync": Limit(2000, 400),
        "status": Limit(2000, 400),
        "cancel": Limit(100, 20),
        "purge-queue": Limit(2),
    }
)
"""Source: RunPod docs, "Rate limits" (read August 2026). More running workers raise them there, by a factor unknown."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits of each bucket, and whether a refusal says in ``Retry-After`` when to come again."""

    table: Mapping[str, Limit] = field(default_factory=lambda: DOCUMENTED)
    retry_after: bool = False


class Bucket:
    """What counts against one limit."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._times: deque[float] = deque()
        self._open = 0

    def admit(self, now: float) -> float | None:
        """None if a request may go, which then counts and is open; else after how many seconds one may."""
        while self._times and self._times[0] <= now - WINDOW_S:
            self._times.popleft()
        if len(self._times) >= self._limit.requests:
            return self._times[0] + WINDOW_S - now if self._times else WINDOW_S
        if self._limit.concurrent is not None and self._open >= self._limit.concurrent:
            return 0.0
        self._times.append(now)
        self._open += 1
        return None

    def leave(self) -> None:
        """An admitted request is answered."""
        self._open -= 1


class Meter:
    """
    The limits of one endpoint, all its clients together, and what they refused.

    A refused request counts against nothing. *now* is always seconds on one monotonic clock. `refused` counts by
    operation, in the words of the path.
    """

    def __init__(self, limits: RateLimits) -> None:
        self._buckets = {name: Bucket(limit) for name, limit in limits.table.items()}
        self.says_when = limits.retry_after
        self.refused: Counter[str] = Counter()

    def admit(self, operation: str, now: float) -> float | None:
        """
        None if a request may go, which must `leave` when it is answered; else after how many seconds one may.

        These are 0 where too many are open, for nobody knows when one of them ends.
        """
        bucket = self._buckets.get(BUCKETS.get(operation, ""))
        wait_s = None if bucket is None else bucket.admit(now)
        if wait_s is not None:
            self.refused[operation] += 1
        return wait_s

    def leave(self, operation: str) -> None:
        """A request that was admitted is answered."""
        bucket = self._buckets.get(BUCKETS.get(operation, ""))
        if bucket is not None:
            bucket.leave()
