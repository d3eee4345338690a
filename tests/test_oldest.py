"""Which jobs in flight are the oldest."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.oldest import Oldest, Place


def entered(oldest: Oldest, since: float, told: list[float]) -> Place:
    """A place for a job of *since*, which stands in *told* once it is among the oldest."""
    return oldest.enter(since, lambda: told.append(since))


def test_the_oldest_come_in_as_places_are_left() -> None:
    """By when they were submitted, whoever came first to ask."""
    oldest, told = Oldest(2), list[float]()
    places = {since: entered(oldest, since, told) for since in (1.0, 2.0, 9.0, 5.0, 7.0)}
    assert told == [1.0, 2.0]
    oldest.leave(places[2.0])
    oldest.leave(places[7.0])
    oldest.leave(places[2.0])
    assert told == [1.0, 2.0, 5.0]
    oldest.leave(places[1.0])
    assert told == [1.0, 2.0, 5.0, 9.0]


def test_a_larger_limit_lets_more_in_and_a_smaller_one_sends_nobody_away() -> None:
    """Whoever has begun to be looked at has taught what its looks are worth."""
    oldest, told = Oldest(1), list[float]()
    places = [entered(oldest, float(since), told) for since in range(5)]
    oldest.resize(3)
    assert told == [0.0, 1.0, 2.0]
    oldest.resize(1)
    assert [place.is_in for place in places] == [True, True, True, False, False]
    for place in places[:2]:
        oldest.leave(place)
    assert told == [0.0, 1.0, 2.0]
    oldest.leave(places[2])
    assert told == [0.0, 1.0, 2.0, 3.0]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(1, 6), st.integers(0, 1000), st.integers(1, 60))
def test_no_place_is_lost_and_none_given_twice(limit: int, seed: int, steps: int) -> None:
    """In any order of comings and goings."""
    chance, oldest, there = random.Random(seed), Oldest(limit), list[Place]()
    for _ in range(steps):
        if there and chance.random() < 0.4:
            oldest.leave(there.pop(chance.randrange(len(there))))
        else:
            there.append(entered(oldest, chance.random(), []))
        assert sum(place.is_in for place in there) == min(limit, len(there))
