"""Fold what happened over time into a fixed number of bins, whatever the number of runs. Pure."""

from array import array
from bisect import insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in *bins* equal parts; times are seconds since the epoch."""

    start: float
    end: float
    bins: int

    @property
    def length_s(self) -> float:
        """Its length; never zero."""
        return max(0.001, self.end - self.start)

    @property
    def bin_s(self) -> float:
        """The length of one bin."""
        return self.length_s / self.bins

    def place(self, at: float) -> float:
        """Where *at* is, in bins from the start; what is outside counts as at the border."""
        return min(float(self.bins), max(0.0, (at - self.start) / self.bin_s))

    def bin(self, at: float) -> int:
        """The number of the bin that *at* is in."""
        return min(self.bins - 1, int(self.place(at)))


class Occupancy:
    """How many of something there were at once, bin by bin: told of one stretch of time after the other."""

    def __init__(self, span: Span) -> None:
        self._bins = span.bins
        self._start, self._per_s = span.start, 1 / span.bin_s
        self._partly = array("d", bytes(8 * (span.bins + 1)))
        self._more = array("q", bytes(8 * (span.bins + 2)))
        self.total_s = 0.0

    def add(self, begin: float, end: float) -> None:
        """One was there from *begin* to *end*."""
        self.total_s += end - begin
        # Not by `Span.place`: a batch has a million of these, each four times.
        first, last = (begin - self._start) * self._per_s, (end - self._start) * self._per_s
        if first < 0 or last > self._bins:
            first, last = min(self._bins, max(0.0, first)), min(self._bins, max(0.0, last))
        left, right = int(first), int(last)
        if left == right:
            self._partly[left] += last - first
            return
        self._partly[left] += left + 1 - first
        self._partly[right] += last - right
        self._more[left + 1] += 1
        self._more[right] -= 1

    def means(self) -> list[float]:
        """How many there were on average in each bin."""
        found, whole = [], 0
        for number in range(self._bins):
            whole += self._more[number]
            found.append(whole + self._partly[number])
        return found


EXACT = 2048
"""So many values are kept as they are; of more, each within one in a hundred."""


class Median:
    """The middle of any number of values in little memory: exact for few, within 1 % for many."""

    def __init__(self) -> None:
        self._values: list[int] = []
        self._buckets: Counter[int] = Counter()
        self._count = 0

    def add(self, value: int) -> None:
        """One more *value*, not negative."""
        self._count += 1
        if self._buckets:
            self._buckets[_bucket(value)] += 1
            return
        insort(self._values, value)
        if len(self._values) > EXACT:
            self._buckets.update(map(_bucket, self._values))
            self._values.clear()

    @property
    def value(self) -> float | None:
        """The nearest-rank median; None without values."""
        if not self._count:
            return None
        rank = (self._count + 1) // 2
        if self._values:
            return self._values[rank - 1]
        passed = 0
        for bucket in sorted(self._buckets):
            passed += self._buckets[bucket]
            if passed >= rank:
                return float(round(_RATIO ** (bucket + 0.5) - 1))
        return None


_RATIO = 1.02


def _bucket(value: int) -> int:
    return floor(log(max(0, value) + 1) / log(_RATIO))


def lanes(stretches: Sequence[tuple[float, float]]) -> list[int]:
    """A lane for each of *stretches*, so that no two in one lane overlap; as few as can be, if they are in order."""
    free: list[tuple[float, int]] = []  # when each lane is free again, the soonest first
    found = []
    for begin, end in stretches:
        number = free.pop(0)[1] if free and free[0][0] <= begin else len(free)
        insort(free, (end, number))
        found.append(number)
    return found
