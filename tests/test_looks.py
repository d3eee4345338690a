"""When a job is looked at next."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.hazard import TELLING
from runner.looks import CHEAP_S, DEAREST_S, LAST_S, Known, Price, bounded_s, wait_s
from runner.policy import DEFAULT_TTL_S, Looks

BOUNDS = Looks()


def wait(known: Known, **changed: float | Looks | None) -> float:
    """The wait after the submit of a job, where nothing else is said."""
    told = {"age_s": 0.0, "in_s": 0.0, "ran_s": None, "looks": 0, "price_s": CHEAP_S, "bounds": BOUNDS}
    return wait_s(known, **{**told, "ttl_s": DEFAULT_TTL_S, **changed})  # type: ignore[arg-type]


def taught(*, executions: float = 0.0, waits: float = 0.0) -> Known:
    """Enough jobs that ran, or ended, after a little more than so many seconds each."""
    known = Known()
    for number in range(TELLING):
        if executions:
            known.executions.add(executions * (1 + number / 100))
        if waits:
            known.waits.add(waits * (1 + number / 100))
    return known


def test_until_enough_is_known_looks_grow_apart() -> None:
    """0.25 s, half as much more each time, up to 5 s: nothing is known of the first jobs."""
    waits = [wait(Known(), looks=looks) for looks in range(10)]
    assert waits[:4] == [0.25, 0.375, 0.5625, 0.84375]
    assert waits[-1] == 5.0


def test_the_first_look_comes_where_the_quickest_ended() -> None:
    """Queue time included, which all of them had."""
    assert 8.0 <= wait(taught(waits=8.0)) <= 10.0
    assert 2.0 <= wait(taught(waits=8.0), in_s=6.0) <= 4.0


def test_a_job_that_says_since_when_it_runs_is_judged_by_that() -> None:
    """Its neighbours waited for a worker for longer, or not at all."""
    known = taught(executions=2.0, waits=8.0)
    assert 1.0 <= wait(known, in_s=30.0, ran_s=1.0) <= 1.5


def test_a_job_that_still_waits_for_a_worker_takes_at_least_as_long_as_the_quickest() -> None:
    """And no less than those before it."""
    assert wait(taught(executions=20.0), in_s=30.0, ran_s=0.0) >= 20.0
    assert wait(taught(executions=2.0, waits=8.0), in_s=1.0, ran_s=0.0) >= 7.0


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.floats(0.0, 1e6),
    st.floats(0.0, 1e6),
    st.sampled_from([0.0, 3.0, 4000.0]),
    st.sampled_from([Looks(), Looks(0.25, 20.0), Looks(2.0, 2.0), Looks(60.0, 300.0)]),
    st.sampled_from([60.0, 86_400.0]),
    st.sampled_from([CHEAP_S, DEAREST_S]),
    st.integers(0, 100),
)
def test_every_wait_is_within_the_bounds(
    age_s: float, in_s: float, learned: float, bounds: Looks, ttl_s: float, price_s: float, looks: int
) -> None:
    """`poll` in the job file, and what retention asks for."""
    known = taught(executions=learned, waits=learned)
    for ran_s in (None, 0.0, in_s):
        found = wait(
            known, age_s=age_s, in_s=in_s, ran_s=ran_s, bounds=bounds, ttl_s=ttl_s, price_s=price_s, looks=looks
        )
        assert bounds.least_s <= found <= bounds.most_s


def test_looks_come_closer_before_a_ttl_is_over() -> None:
    """A result may be gone with it, and the last seconds are seconds in which it may come."""
    at, looks = 0.0, []
    while at < 600.0:
        at += bounded_s(float("inf"), age_s=at, bounds=BOUNDS, ttl_s=600.0)
        looks.append(at)
    assert looks[:3] == [300.0, 450.0, 525.0]
    assert looks[-1] - looks[-2] == LAST_S
    assert len(looks) <= 15
    gaps = [b - a for a, b in pairwise(looks)]
    assert gaps == sorted(gaps, reverse=True)


def test_the_price_rises_until_the_looks_fit_and_falls_again() -> None:
    """Looks go with 1 / sqrt(price): here ten times as many as fit, at the lowest price."""
    price = Price()
    wanted = 10.0 / (1 / CHEAP_S) ** 0.5
    used = []
    for _ in range(30):
        used.append(wanted / price.price_s**0.5)
        price.update(min(1.0, used[-1]))
    assert max(used[-5:]) <= 0.75
    for _ in range(30):
        price.update(0.01)
    assert price.price_s == CHEAP_S


@pytest.mark.parametrize("used", [0.0, 0.5, 1.0, 100.0])
def test_a_price_stays_a_price(used: float) -> None:
    """Whatever the use."""
    price = Price()
    for _ in range(100):
        price.update(used)
    assert CHEAP_S <= price.price_s <= DEAREST_S
