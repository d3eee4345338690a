"""Decide, purely, when one job is looked at next."""

from runner.hazard import Times
from runner.policy import Looks

CHEAP_S = 0.05
"""
What a look costs while there is no want of them, in seconds of delay: jobs of 2 s are noticed 0.2 s late on average, at
5.5 requests each. Source: `benchmarks/polling.py`.
"""

DEAREST_S = 3600.0
"""The price stops rising here: `Looks.most_s` is what bounds the waits by then."""

FULL = 0.7
"""The share of the rate of looks that is meant to be used; the rest is for what comes all at once."""

LAST_S = 1.0
"""Looks come no closer than this before a ttl is over, where nothing else asks for it."""


class Known:
    """
    What is known of the jobs of one kind, that is of one endpoint and one job of the job file.

    Attributes:
        executions: How long they ran on their workers.
        waits: How long after they came among the oldest in flight they ended; their wait for a worker is part of it.
    """

    def __init__(self) -> None:
        self.executions = Times()
        self.waits = Times()


def wait_s(
    known: Known,
    *,
    age_s: float,
    in_s: float,
    ran_s: float | None,
    looks: int,
    price_s: float,
    bounds: Looks,
    ttl_s: float,
) -> float:
    """
    Seconds until the next look at a job.

    Args:
        known: What is known of others like it.
        age_s: Seconds since its submit.
        in_s: Seconds since it came among the oldest in flight.
        ran_s: Seconds for which it has run, 0 for one that was queued when it was seen last, None where nobody knows.
        looks: How often it was looked at until now.
        price_s: What a look costs.
        bounds: The closest and widest that looks may be.
        ttl_s: RunPod knows an unfinished job for so long from its submit.
    """
    waits = [
        times.wait_s(since_s, price_s)
        for times, since_s in ((known.executions, ran_s), (known.waits, in_s if not ran_s else None))
        if since_s is not None and times.is_telling
    ]
    wait = max(waits, default=bounds.wait_s(looks))
    return bounded_s(wait, age_s=age_s, bounds=bounds, ttl_s=ttl_s)


def bounded_s(wait: float, *, age_s: float, bounds: Looks, ttl_s: float) -> float:
    """*wait* within *bounds*; and ever closer before the ttl is over, for the result may be gone with it."""
    if age_s < ttl_s:
        wait = min(wait, max(LAST_S, (ttl_s - age_s) / 2))
    return min(bounds.most_s, max(bounds.least_s, wait))


class Price:
    """What a look costs: raised until their rate fits the budget, lowered again when it does."""

    def __init__(self) -> None:
        self.price_s = CHEAP_S

    def update(self, used: float) -> None:
        """
        Follow what the looks need: *used* is the share of their rate that was asked for lately, at a price that stayed.

        The rate goes with 1 / sqrt(price), so the price goes with the square; a step is at most a doubling.
        """
        step = min(2.0, max(0.5, (used / FULL) ** 2))
        self.price_s = min(DEAREST_S, max(CHEAP_S, self.price_s * step))
