"""
Know which of the jobs in flight are the oldest. Pure.

RunPod's queue is first come, first served: as many jobs run as there are workers, and these are the oldest. So looks at
younger ones find nothing.
"""

import heapq
import math
from collections.abc import Callable
from itertools import count


class Place:
    """The place of one job. *is_in* says whether it is among the oldest."""

    __slots__ = ("_told", "is_in", "is_there")

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self.is_in = False
        self.is_there = True


class Oldest:
    """The *limit* oldest jobs. Who is among them stays so, also when the limit shrinks."""

    def __init__(self, limit: float = math.inf) -> None:
        self._limit = limit
        self._in = 0
        self._out = 0
        self._waiting: list[tuple[float, int, Place]] = []  # no two numbers are equal, so places are not compared
        self._numbers = count()

    def enter(self, since: float, told: Callable[[], None]) -> Place:
        """A place for a job submitted at *since*; *told* is called once it is among the oldest, which may be now."""
        place = Place(told)
        heapq.heappush(self._waiting, (since, next(self._numbers), place))
        self._out += 1
        self._admit()
        return place

    def leave(self, place: Place) -> None:
        """Its job has ended, or nobody follows it any more. Leaving twice is no harm."""
        if not place.is_there:
            return
        place.is_there = False
        place._told = _nothing  # whoever was told holds the place: without this the two would hold each other
        if place.is_in:
            self._in -= 1
            self._admit()
        else:
            self._out -= 1

    def resize(self, limit: float) -> None:
        """Make *limit* places of it."""
        self._limit = limit
        self._admit()

    def _admit(self) -> None:
        while self._in < self._limit and self._out:
            place = heapq.heappop(self._waiting)[2]
            if place.is_there:
                self._out -= 1
                self._in += 1
                place.is_in = True
                place._told()


def _nothing() -> None:
    pass
