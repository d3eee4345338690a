"""
Decide, purely, how many runs are in flight on an endpoint.

Enough to keep every worker busy and to have RunPod start more of them, as long as there is time for all to come to
their end: what waits in the queue costs nothing, but is lost once its ttl is over. Trouble halves it, calm brings it
back: additive increase, multiplicative decrease.

Source of the rule for trouble: Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion
avoidance in computer networks", 1989.
"""

import math

from runner.shards import WHOLE, Shard

ADAPTIVE = 200
"""The most runs in flight on an endpoint whose ``concurrency`` is not set."""

START = 64
"""So many at first, where nobody says a number: RunPod starts a worker for every 4 requests, unless told otherwise."""

PER_WORKER = 8
"""So many for each worker that is up: twice what has RunPod start more."""

SHRINK = 0.7
CALM_S = 5.0
"""Trouble within so long of the last is the same trouble."""

BACK_S = 60.0
"""After the worst trouble all is as before in so long."""

TTL_SHARE = 0.5
"""The share of a ttl that a queue may take; the rest is for workers that go away and for jobs that take longer."""

LOOK_S = 300.0
"""Each job in flight must be looked at as often: results are kept for 30 minutes only."""


class Width:
    """
    The number of runs in flight on one endpoint. Times are monotonic seconds.

    *concurrency* is what the job file says, a hard cap; None leaves it to us. *looks_per_s* is how many looks a second
    there may be here. Of all else, the workers among it, only the part of *shard* is ours.
    """

    def __init__(self, concurrency: int | None, *, looks_per_s: float, shard: Shard = WHOLE) -> None:
        self._of = shard.of
        self.most = max(1, shard.count(concurrency or ADAPTIVE))
        self._wanted = float(self.most if concurrency else max(1, min(shard.count(START), self.most)))
        self._kept = max(1, math.floor(looks_per_s * LOOK_S))
        self._left = 1.0
        self._shrunk_at = -math.inf
        self._ttl_s = math.inf
        self._longest_s = 0.0

    def expect(self, *, ttl_s: float, execution_s: float) -> None:
        """Runs of one more job are to come: RunPod forgets them after *ttl_s*, and they may take *execution_s*."""
        self._ttl_s = min(self._ttl_s, ttl_s)
        self._longest_s = max(self._longest_s, execution_s)

    def saw(self, workers: int | None, *, is_saturated: bool) -> None:
        """``/health`` showed so many *workers*, None for not; *is_saturated*: all are busy and jobs wait."""
        if workers is not None:
            self._want(PER_WORKER * workers / self._of)
        if is_saturated:
            self._want(1.5 * self._wanted)

    def starved(self) -> None:
        """A job found a worker free: with one more in flight there may be less idling."""
        self._want(self._wanted + 1.0)

    def trouble(self, now: float) -> None:
        """RunPod said 429, or failed."""
        if now - self._shrunk_at >= CALM_S:
            self._left = self._share(now) * SHRINK
            self._shrunk_at = now

    def limit(self, now: float, *, workers: int | None, execution_s: float | None) -> int:
        """
        How many runs may be in flight.

        Args:
            now: The time.
            workers: How many are up, None where nobody says.
            execution_s: What a run takes on average; None while none has ended.
        """
        crew = max(1.0, (workers or 0) / self._of)
        least = min(self.most, math.ceil(1.25 * crew) + 2)
        wanted = max(least, self._wanted * self._share(now))
        longest_s = execution_s if execution_s is not None else self._longest_s
        in_time = crew * TTL_SHARE * self._ttl_s / longest_s if longest_s > 0 else math.inf
        return max(1, math.floor(min(self.most, self._kept, wanted, max(crew, in_time))))

    def _want(self, wanted: float) -> None:
        self._wanted = min(float(self.most), max(self._wanted, wanted))

    def _share(self, now: float) -> float:
        return min(1.0, self._left + (now - self._shrunk_at) / BACK_S)
