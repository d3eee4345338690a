"""Estimate, purely, how many workers an endpoint has at work, and so how many of the oldest jobs may be running."""

import math
from collections import deque
from collections.abc import Mapping

from runner.health import workers_up

SPARE = 1.2
"""
Looked at are so many times as many jobs as there are workers: what is younger can't have begun.

The surplus hides that an end is noticed a moment after it, and that the next job has begun by then. Source: simulation
of lognormal, exponential and bimodal times; `benchmarks/polling.py` shows it.
"""

FEWEST = 10
"""So many jobs are looked at at least: an endpoint that scales up has more workers than it said a moment ago."""

ENDS = 64
"""So many of the latest ends tell how many jobs run at once."""


class Crew:
    """What is known of an endpoint's workers. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.told: int | None = None
        self._coming = 0
        self._ends: deque[tuple[float, float]] = deque()
        self._ran_s = 0.0
        self._spare = SPARE

    def saw(self, workers: Mapping[str, int]) -> None:
        """``/health`` showed these counters of workers."""
        self.told = workers_up(workers)
        self._coming = workers.get("initializing", 0)

    def ended(self, ran_s: float, now: float) -> None:
        """A job that ran for *ran_s* seconds ended."""
        self._ends.append((now, ran_s))
        self._ran_s += ran_s
        if len(self._ends) > ENDS:
            self._ran_s = max(0.0, self._ran_s - self._ends.popleft()[1])

    def outran(self) -> None:
        """A job ended before it was among the oldest: there are more workers, or the queue is in another order."""
        self._spare = min(1000.0, self._spare * 1.5)

    def busy(self) -> float:
        """How many jobs run at once, by Little's law: those that end in a second, times the seconds that one takes."""
        if len(self._ends) < ENDS // 4:
            return 0.0
        span_s = max(1e-3, self._ends[-1][0] - self._ends[0][0])
        return max(0.0, self._ran_s - self._ends[0][1]) / span_s

    def oldest(self) -> float:
        """How many of the oldest jobs are worth a look: all of them, while nobody says how many workers there are."""
        if self.told is None:
            return math.inf
        believed = max(float(self.told + self._coming), self.busy())
        return max(FEWEST, math.ceil(self._spare * believed))
