"""How many runs are in flight."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.width import ADAPTIVE, BACK_S, CALM_S, START, Width


def width(concurrency: int | None = None, *, looks_per_s: float = 190.0) -> Width:
    """A width at RunPod's rate of looks."""
    return Width(concurrency, looks_per_s=looks_per_s)


def test_without_a_number_it_starts_with_what_wakes_workers_and_grows_with_them() -> None:
    """At most 200, whoever asks for more says so."""
    one = width()
    assert one.limit(0.0, workers=None, execution_s=1.0) == START
    one.saw(12, is_saturated=False)
    assert one.limit(0.0, workers=12, execution_s=1.0) == 96
    one.saw(12, is_saturated=True)
    assert one.limit(0.0, workers=12, execution_s=1.0) == 144
    one.saw(12, is_saturated=True)
    assert one.limit(0.0, workers=12, execution_s=1.0) == ADAPTIVE


def test_jobs_that_find_a_worker_free_widen_it() -> None:
    """Whatever /health says: there are more workers than jobs."""
    one = width()
    for _ in range(50):
        one.starved()
    assert one.limit(0.0, workers=1, execution_s=1.0) == START + 50


def test_a_number_in_the_job_file_is_reached_at_once_and_never_passed() -> None:
    """It is the user's own knowledge of the endpoint."""
    one = width(300)
    assert one.limit(0.0, workers=1, execution_s=1.0) == 300
    one.saw(1000, is_saturated=True)
    assert one.limit(0.0, workers=1000, execution_s=1.0) == 300


def test_trouble_shrinks_it_once_and_calm_brings_it_back() -> None:
    """Two hundred 429s of one moment are one trouble."""
    one = width(100)
    for _ in range(200):
        one.trouble(10.0)
    assert one.limit(10.0, workers=1, execution_s=1.0) == 70
    one.trouble(10.0 + CALM_S)
    assert one.limit(10.0 + CALM_S, workers=1, execution_s=1.0) < 60
    assert one.limit(10.0 + CALM_S + BACK_S, workers=1, execution_s=1.0) == 100


def test_trouble_leaves_every_worker_busy() -> None:
    """A bad hour of the network is no reason to pay for idle workers."""
    one = width(100)
    for number in range(50):
        one.trouble(number * CALM_S)
    assert one.limit(50 * CALM_S, workers=40, execution_s=1.0) >= 50


@pytest.mark.parametrize(
    ("workers", "execution_s", "most"),
    [(3, None, 18), (3, 60.0, 90), (3, 1.0, 200), (None, None, 6), (0, 60.0, 30)],
)
def test_what_is_queued_comes_to_its_end_before_its_ttl(
    workers: int | None, execution_s: float | None, most: int
) -> None:
    """An hour of ttl, five minutes a job at most: RunPod would forget the two hundredth, and we would call it lost."""
    one = width(200)
    one.expect(ttl_s=3600.0, execution_s=300.0)
    assert one.limit(0.0, workers=workers, execution_s=execution_s) == most


def test_no_more_are_in_flight_than_can_be_looked_at() -> None:
    """Each every five minutes, or its result is gone before anybody saw it."""
    assert width(200, looks_per_s=0.1).limit(0.0, workers=100, execution_s=1.0) == 30


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.one_of(st.none(), st.integers(1, 1000)),
    st.lists(st.tuples(st.sampled_from(["trouble", "starved", "saw"]), st.integers(0, 500)), max_size=40),
    st.one_of(st.none(), st.integers(0, 500)),
    st.one_of(st.none(), st.floats(0.0, 1e5)),
)
def test_it_is_never_none_and_never_more_than_was_said(
    concurrency: int | None, happened: list[tuple[str, int]], workers: int | None, execution_s: float | None
) -> None:
    """Nothing may stop a batch for good, and a number in the job file is a hard cap."""
    one, now = width(concurrency), 0.0
    one.expect(ttl_s=3600.0, execution_s=600.0)
    for what, number in happened:
        now += number / 10
        match what:
            case "trouble":
                one.trouble(now)
            case "starved":
                one.starved()
            case "saw":
                one.saw(number, is_saturated=bool(number % 2))
        assert 1 <= one.limit(now, workers=workers, execution_s=execution_s) <= (concurrency or ADAPTIVE)
