"""How many workers there may be."""

import math

import pytest

from runner.crew import FEWEST, Crew


def test_all_jobs_are_looked_at_while_nobody_says_how_many_workers_there_are() -> None:
    """Better too many looks than an end that nobody sees."""
    crew = Crew()
    assert crew.oldest() == math.inf
    crew.saw({"throttled": 3})
    assert crew.oldest() == math.inf


@pytest.mark.parametrize(
    ("workers", "oldest"),
    [
        ({"idle": 0, "ready": 0, "running": 50}, 60),
        ({"idle": 20, "ready": 20, "running": 30}, 60),
        ({"idle": 0, "ready": 0, "running": 30, "initializing": 20}, 60),
        ({"idle": 0, "running": 1}, FEWEST),
    ],
)
def test_a_fifth_more_jobs_than_workers_are_looked_at(workers: dict[str, int], oldest: int) -> None:
    """Those that start are about to take jobs."""
    crew = Crew()
    crew.saw(workers)
    assert crew.oldest() == oldest


def test_workers_that_health_does_not_know_yet_are_known_by_what_they_end() -> None:
    """It is looked at every 15 s only: 25 jobs of 2 s that end each second need 50 workers."""
    crew = Crew()
    crew.saw({"running": 1})
    for number in range(100):
        crew.ended(2.0, 1000.0 + number / 25)
    assert crew.busy() == pytest.approx(50.0)
    assert crew.oldest() == pytest.approx(60, abs=1)


def test_an_end_before_its_time_means_that_more_have_to_be_looked_at() -> None:
    """A queue in another order than ours, or more workers than anybody told of."""
    crew = Crew()
    crew.saw({"running": 50})
    crew.outran()
    assert crew.oldest() == 90
    for _ in range(100):
        crew.outran()
    assert crew.oldest() <= 50_000
