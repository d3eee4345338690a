"""When each call may go."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.pace import BUCKETS, Pace, Window
from runner.units import Rate

ALL = {bucket: Rate(2, 10.0) for bucket in BUCKETS.values()}
SLACK_S = 1e-6
"""What sums of floats may be off by, far below what a network adds."""


def times(window: Window, gaps: list[float], *, start: float = 1000.0) -> list[float]:
    """When calls go that come *gaps* apart, each as soon as it may after the one before."""
    now, gone = start, []
    for gap in gaps:
        now += gap
        while (wait_s := window.wait_s(now)) > 0:
            now += wait_s
        window.spend(now)
        gone.append(now)
    return gone


GAPS = st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.3, 1.0, 7.0]), min_size=1, max_size=80)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(1, 8), st.sampled_from([0.5, 1.0, 10.0]), GAPS, st.integers(0, 12))
def test_no_window_ever_holds_more_than_its_count(count: int, period_s: float, gaps: list[float], earlier: int) -> None:
    """RunPod counts in windows that begin anywhere, and of earlier processes, too."""
    past = [999.0 + number * period_s / count / 4 for number in range(min(earlier, count))]
    gone = past + times(Window(Rate(count, period_s), past), gaps)
    for first, one_too_many in zip(gone, gone[count:], strict=False):
        assert one_too_many - first >= period_s - SLACK_S


@pytest.mark.parametrize("rate", [Rate(1, 0.5), Rate(7, 1.0), Rate(950, 10.0)], ids=str)
def test_the_full_rate_is_reached(rate: Rate) -> None:
    """A limiter that is careful by half makes a batch take twice as long."""
    gone = times(Window(rate), [0.0] * (rate.count * 3))
    assert gone[-1] - gone[0] == pytest.approx(2 * rate.period_s)
    assert sum(one == gone[0] for one in gone) == rate.count


def test_more_past_calls_than_the_count_are_no_trouble() -> None:
    """The rate in the file may have been lowered since."""
    window = Window(Rate(2, 10.0), [1.0, 2.0, 3.0, 4.0])
    assert window.wait_s(4.0) == 9.0


def test_calls_that_share_a_bucket_share_its_rate() -> None:
    """status, status-sync and stream are one limit at RunPod, read carefully."""
    pace = Pace(ALL)
    pace.spend("status", 0.0)
    pace.spend("stream", 1.0)
    assert pace.wait_s("status-sync", 2.0) == 8.0
    assert [pace.wait_s(one, 2.0) for one in ("run", "cancel", "health", "purge-queue")] == [0.0, 0.0, 0.0, 0.0]


def test_the_past_of_one_bucket_is_not_that_of_another() -> None:
    """Only submits are known from the ledger."""
    pace = Pace(ALL, {"run": [-5.0, -1.0]})
    assert (pace.wait_s("run", 0.0), pace.wait_s("status", 0.0)) == (5.0, 0.0)


def test_a_hold_stops_every_call_and_is_never_shortened() -> None:
    """After a 429 the whole endpoint waits, for as long as the longest answer said."""
    pace = Pace(ALL)
    pace.hold(30.0)
    pace.hold(20.0)
    assert {pace.wait_s(one, 10.0) for one in BUCKETS} == {20.0}
    assert {pace.wait_s(one, 31.0) for one in BUCKETS} == {0.0}


def test_every_configured_rate_has_an_operation() -> None:
    """A key of `rate_limits` that nothing reads would be a setting that quietly does nothing."""
    from runner.spec import RateLimits

    assert set(BUCKETS.values()) == set(RateLimits.model_fields)


def test_a_wait_is_enough() -> None:
    """Who sleeps as long as told need not ask again and again."""
    window = Window(Rate(3, 0.1))
    now = 12345.678
    for _ in range(30):
        now += window.wait_s(now)
        assert window.wait_s(now) <= SLACK_S
        window.spend(now)
    assert all(one <= other for one, other in pairwise(window._spent))
