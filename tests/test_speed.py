"""How fast a job goes, and how long it will take."""

import pytest

from runner.speed import MOST, Speed


def seen(*moments: tuple[float, int, float | None]) -> Speed:
    """What was seen at these seconds: runs settled, USD spent."""
    speed = Speed()
    for moment in moments:
        speed.saw(*moment)
    return speed


def test_nothing_is_known_at_the_start() -> None:
    """A guess from half a second would jump about."""
    for speed in (Speed(), seen((0, 0, 0.0)), seen((0, 0, 0.0), (0.5, 3, 0.1)), seen((0, 0, 0.0), (60, 0, 0.0))):
        assert (speed.runs_per_s, speed.usd_per_h, speed.left_s(10)) == (None, None, None)


def test_a_pace_is_that_of_all_the_time_while_it_is_short() -> None:
    """Ten runs in five seconds, and what they cost."""
    speed = seen((0, 0, 0.0), (5, 10, 0.5))
    assert (speed.runs_per_s, speed.usd_per_h, speed.left_s(30), speed.left_s(0)) == (2.0, 360.0, 15.0, None)


def test_a_cold_start_is_forgotten_after_a_while() -> None:
    """Ten minutes without a worker say nothing of the time that is left."""
    speed = Speed()
    for second in range(0, 601):
        speed.saw(second, 0, 0.0)
    for second in range(601, 801):
        speed.saw(second, (second - 600) * 5, 0.0)
    assert speed.left_s(100) == pytest.approx(20.0)


def test_runs_that_take_longer_than_a_minute_have_a_pace_too() -> None:
    """Nothing has settled of late, and that is how it goes."""
    speed = Speed()
    for second in range(0, 1000):
        speed.saw(second, 4 if second >= 700 else 0, 1.0 if second >= 700 else 0.0)
    assert speed.runs_per_s == pytest.approx(4 / 999)
    assert speed.usd_per_h == pytest.approx(3600 / 999)


def test_what_is_kept_does_not_grow_with_the_time() -> None:
    """A batch may take days."""
    speed = Speed()
    for second in range(0, 50_000, 2):
        speed.saw(second, second // 2, None)
    assert len(speed._seen) <= MOST
    assert speed.runs_per_s == pytest.approx(0.5, rel=0.01)
    assert speed.usd_per_h is None
