"""What a bar asks for, and what was measured."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.stage import Ran


@dataclass(frozen=True)
class Check:
    """
    A figure and its *bound*: the most that it may be, or the least with *at_least*. The median of the rounds counts.

    *goal* is what would be better still. *slack* is what the bound's own rounding leaves open.
    """

    what: str
    bound: float
    unit: str
    goal: float | None = None
    at_least: bool = False
    slack: float = 0.0

    def is_met(self, values: Sequence[float]) -> bool:
        """Whether *values*, one a round, meet it."""
        found = statistics.median(values)
        return found >= self.bound - self.slack if self.at_least else found <= self.bound + self.slack


@dataclass(frozen=True)
class Measured:
    """The *values* of each check, one a round, and every batch that *ran* for them."""

    values: Mapping[Check, Sequence[float]]
    ran: Sequence[Ran]
