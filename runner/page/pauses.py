"""
When nobody carried a batch on: between a kill and the resume in the morning. What is drawn over time leaves it out, for
else it would be most of the picture. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low

LOOKS = 10
"""An endpoint is looked at all the time: who leaves out so many looks is not there."""

LEAST_S = 120.0
SHARE = 0.1
"""Pauses that are less of a batch are drawn as they are."""

MOST = 50


@dataclass(frozen=True, slots=True)
class Pauses:
    """The stretches of time that are left out, in order; times are seconds since the epoch."""

    stretches: Sequence[tuple[float, float]] = ()

    @property
    def total_s(self) -> float:
        """How long they are together."""
        return sum(end - begin for begin, end in self.stretches)

    def drawn(self, at: float) -> float:
        """When *at* would have been without pauses before it; what is in one is at its beginning."""
        return at - sum(min(at, end) - begin for begin, end in self.stretches if begin < at)


def between(looks: Sequence[float]) -> list[tuple[float, float]]:
    """
    Where there may have been a pause, by the times at which one endpoint was looked at.

    It begins and ends as long after and before a look as the next one would have been: what happened last before a
    kill, and first after a resume, is no part of it.
    """
    gaps = [(begin, end) for begin, end in pairwise(looks) if end > begin]
    if not gaps:
        return []
    usual_s = median_low([end - begin for begin, end in gaps])
    least_s = max(LEAST_S, LOOKS * usual_s)
    edge_s = max(usual_s, LEAST_S / LOOKS)
    return [(begin + edge_s, end - edge_s) for begin, end in gaps if end - begin >= least_s][:MOST]


def worth_it(stretches: Sequence[tuple[float, float]], *, start: float, until: float) -> Pauses:
    """*stretches* as pauses of a batch that went from *start* to *until*; none where they are a small part of it."""
    inside = [(begin, end) for begin, end in stretches if start <= begin and end <= until]
    found = Pauses(inside)
    return found if found.total_s > SHARE * (until - start) else Pauses()
