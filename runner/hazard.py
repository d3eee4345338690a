"""
Learn how long jobs take, and say when it pays to look whether one has ended. Pure.

The fewest looks for a given delay come at the density sqrt(h(t) / 2c), where h(t) is the hazard: how likely a job that
has run for t seconds ends in the next one. c is the price of a look, in seconds of delay that it has to save. So the
next look is where the integral of the density has grown by one; where nothing can end, no look is spent.

Source: the inspection paradox read backwards; minimise delay plus c times looks over schedules of density r(t), which
costs 1 / (2 r) of delay at each end and r looks a second (Barlow, Hunter and Proschan, "Optimum checking procedures",
1963, for unknown failure times).
"""

import math
from bisect import bisect_right
from collections import deque

KEPT = 256
"""So many of the latest times are believed: what an endpoint does changes, with its inputs and its workers."""

BINS = 24
"""The hazard is constant over so many stretches, with as many ends in each: enough for two peaks, and smooth."""

TELLING = 20
"""From so many times on they tell more than no knowledge at all."""

OVER = 0.05
"""Looks come past the longest time seen by so much of the spread, to find what takes as long again."""

OVER_S = 0.005
"""And by so much at least."""


class Times:
    """The latest times, in seconds, that something took."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=KEPT)
        self._sum_s = 0.0
        self._new = 0
        self._edges: list[float] = []
        self._grown: list[float] = []

    def add(self, seconds: float) -> None:
        """One more is known to have taken *seconds*."""
        if len(self._recent) == KEPT:
            self._sum_s -= self._recent[0]
        self._recent.append(max(0.0, seconds))
        self._sum_s += max(0.0, seconds)
        self._new += 1

    @property
    def is_telling(self) -> bool:
        """Whether enough are known for `wait_s`."""
        return len(self._recent) >= TELLING

    @property
    def mean_s(self) -> float | None:
        """The mean of what is known; None while nothing is."""
        return max(0.0, self._sum_s) / len(self._recent) if self._recent else None

    def hazard(self, age_s: float) -> float:
        """How likely, a second, is the end of what has taken *age_s* seconds: 0 before the quickest that was seen."""
        self._learn()
        place = bisect_right(self._edges, age_s)
        if place == 0:
            return 0.0
        if place == len(self._edges):
            return 1.0 / max(age_s, 1e-9)
        width = self._edges[place] - self._edges[place - 1]
        grown = self._grown[place] - self._grown[place - 1]
        return 2.0 * (grown / width) ** 2

    def wait_s(self, age_s: float, price_s: float) -> float:
        """
        Seconds until the next look at what has taken *age_s* seconds, where a look costs *price_s*.

        Beyond all that was seen a wait is at most half the age. `is_telling` must hold.
        """
        self._learn()
        edges, grown = self._edges, self._grown
        if age_s >= edges[-1]:
            return min(age_s / 2, math.sqrt(2.0 * price_s * age_s))
        place = bisect_right(edges, age_s)
        reached = 0.0
        if place:
            share = (age_s - edges[place - 1]) / (edges[place] - edges[place - 1])
            reached = grown[place - 1] + share * (grown[place] - grown[place - 1])
        target = reached + math.sqrt(price_s)
        # So close to the last end another look saves less than it costs.
        is_close = edges[-1] - max(age_s, edges[0]) <= 2.0 * price_s
        if is_close or target >= grown[-1]:
            return edges[-1] + max(OVER_S, OVER * (edges[-1] - edges[0])) - age_s
        after = bisect_right(grown, target)
        share = (target - grown[after - 1]) / (grown[after] - grown[after - 1])
        return edges[after - 1] + share * (edges[after] - edges[after - 1]) - age_s

    def _learn(self) -> None:
        """Bring the integral of sqrt(h / 2) up to date; it is that of the density for a price of 1 s."""
        known = len(self._recent)
        if self._edges and self._new < max(1, known // 16):
            return
        self._new = 0
        times = sorted(self._recent)
        step = max(1, known // BINS)
        self._edges, self._grown = [times[0]], [0.0]
        alive = known + 1  # one for what was never seen
        for first in range(0, known - 1, step):
            last = min(first + step, known - 1)
            ended, width = last - first, times[last] - times[first]
            died = math.log(alive / (alive - ended))  # the integral of the hazard
            alive -= ended
            if width > 0:
                self._edges.append(times[last])
                self._grown.append(self._grown[-1] + math.sqrt(died * width / 2))
