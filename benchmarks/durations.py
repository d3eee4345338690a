"""How long simulated jobs take: the distributions that waiting strategies are compared on. Pure and seeded."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Durations:
    """
    A distribution of execution times; build one with `fixed`, `lognormal`, `exponential` or `bimodal`.

    *mean_s* is the mean of what is drawn, for ``bimodal`` that of the quick jobs. *sigma* is the standard deviation of
    the logarithm (``lognormal``). *slow_s* and *slow_share* are how long the slow jobs take, and how many of all are
    slow (``bimodal``); quick and slow ones alike vary by a tenth.
    """

    kind: Literal["fixed", "lognormal", "exponential", "bimodal"]
    mean_s: float
    sigma: float = 0.0
    slow_s: float = 0.0
    slow_share: float = 0.0

    def draws(self, seed: int) -> Iterator[float]:
        """Durations in seconds, for ever: the same ones for the same *seed*."""
        chance = random.Random(seed)
        if self.kind == "fixed":
            while True:
                yield self.mean_s
        elif self.kind == "exponential":
            while True:
                yield chance.expovariate(1 / self.mean_s)
        elif self.kind == "lognormal":
            mu = math.log(self.mean_s) - self.sigma**2 / 2
            while True:
                yield chance.lognormvariate(mu, self.sigma)
        else:
            while True:
                centre_s = self.slow_s if chance.random() < self.slow_share else self.mean_s
                yield max(0.0, chance.gauss(centre_s, centre_s / 10))


def fixed(seconds: float) -> Durations:
    """Every job takes so long; 0 is over at once."""
    return Durations("fixed", seconds)


def lognormal(mean_s: float, sigma: float = 0.5) -> Durations:
    """Most are near the mean, a few take several times as long: what inference looks like."""
    return Durations("lognormal", mean_s, sigma=sigma)


def exponential(mean_s: float) -> Durations:
    """Having waited tells nothing of how long it still takes."""
    return Durations("exponential", mean_s)


def bimodal(quick_s: float, slow_s: float, slow_share: float = 0.2) -> Durations:
    """Two kinds of jobs."""
    return Durations("bimodal", quick_s, slow_s=slow_s, slow_share=slow_share)
