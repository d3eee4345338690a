"""How long jobs take, learned; and where looks pay."""

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.durations import bimodal, exponential, fixed, lognormal
from runner.hazard import KEPT, OVER, OVER_S, TELLING, Times

SECONDS = st.floats(min_value=0.0, max_value=1e6, allow_nan=False)
PRICES = st.sampled_from([0.001, 0.05, 1.0, 3600.0])


def learned(seconds: list[float]) -> Times:
    """Times that know *seconds*."""
    times = Times()
    for one in seconds:
        times.add(one)
    return times


def drawn(durations: Callable[[], float], count: int = KEPT) -> Times:
    """Times that know *count* draws."""
    return learned([durations() for _ in range(count)])


def schedule(times: Times, price_s: float, *, until_s: float) -> list[float]:
    """When a job is looked at that has not ended until *until_s*."""
    at, looks = 0.0, []
    while at < until_s:
        at += times.wait_s(at, price_s)
        looks.append(at)
    return looks


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(SECONDS, min_size=TELLING, max_size=300), SECONDS, PRICES)
def test_a_wait_is_above_zero_and_never_far_beyond_what_was_seen(
    seen: list[float], age_s: float, price_s: float
) -> None:
    """Whatever comes in: no look after look in no time, and no sleep that a new kind of job would be lost in."""
    times = learned(seen)
    wait_s = times.wait_s(age_s, price_s)
    longest_s = max(seen[-KEPT:])
    assert wait_s >= 0.0
    assert wait_s > 0.0 or age_s <= longest_s
    assert age_s + wait_s <= max(longest_s * (1 + OVER) + OVER_S, age_s * 1.5) + 1e-6
    assert math.isfinite(times.hazard(age_s))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.floats(0.1, 1000.0), min_size=TELLING, max_size=100), st.floats(0.0, 1000.0))
def test_a_dearer_look_is_never_an_earlier_one(seen: list[float], age_s: float) -> None:
    """The price is what the budget is kept by."""
    times = learned(seen)
    waits = [times.wait_s(age_s, price_s) for price_s in (0.01, 0.05, 0.2, 1.0, 10.0)]
    assert waits == sorted(waits)


@pytest.mark.parametrize("mean_s", [0.5, 10.0, 600.0])
def test_the_hazard_of_what_has_no_memory_is_found_to_be_constant(mean_s: float) -> None:
    """An exponential time's is 1 / mean, at every age."""
    durations = exponential(mean_s).draws(1)
    found = []
    for _ in range(20):
        times = drawn(lambda: next(durations))
        found.append([times.hazard(share * mean_s) * mean_s for share in (0.2, 0.7, 1.5)])
    for at_one_age in zip(*found, strict=True):
        assert sum(at_one_age) / len(at_one_age) == pytest.approx(1.0, rel=0.3)


def test_an_estimate_follows_an_endpoint_that_changes() -> None:
    """A new model behind the same endpoint: what it did an hour ago says nothing."""
    times = learned([60.0 + number / 100 for number in range(KEPT)] + [2.0 + number / 1000 for number in range(KEPT)])
    assert schedule(times, 0.05, until_s=2.3)[0] == pytest.approx(2.0, abs=0.3)
    assert times.mean_s == pytest.approx(2.1, abs=0.1)


def test_jobs_that_take_the_same_are_looked_at_once() -> None:
    """Right after their end."""
    durations, noise = fixed(5.0).draws(1), random.Random(1)
    times = drawn(lambda: next(durations) + noise.uniform(0.0, 0.05))
    (look,) = schedule(times, 0.05, until_s=5.05)
    assert 5.05 <= look <= 5.06


def test_nobody_looks_between_two_kinds_of_jobs() -> None:
    """Half of the looks of any even schedule would find nothing, for nothing ends there."""
    durations = bimodal(2.0, 30.0, 0.5).draws(1)
    looks = schedule(drawn(lambda: next(durations)), 0.05, until_s=40.0)
    assert sum(5.0 < look < 22.0 for look in looks) <= 3
    assert sum(1.5 < look < 3.0 for look in looks) >= 2
    assert sum(25.0 < look < 36.0 for look in looks) >= 4


def test_looks_begin_where_the_quickest_ended() -> None:
    """Before that no job ever ended."""
    durations = lognormal(10.0).draws(1)
    seen = [next(durations) for _ in range(KEPT)]
    assert schedule(learned(seen), 0.05, until_s=1.0)[0] >= min(seen)
    assert learned(seen).hazard(min(seen) * 0.99) == 0.0
