"""When each call may go."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.pace import BUCKETS, Pace, Turn, Window
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
        window.spend(now).answered(now)
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
    pace.spend("status", 0.0).answered(0.0)
    pace.spend("stream", 1.0).answered(1.0)
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


# As the server counts


LATENCIES = st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.2, 0.9]), st.sampled_from([0.0, 0.02, 0.7])), min_size=1)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(1, 9), st.sampled_from([0.5, 2.0, 10.0]), GAPS, LATENCIES)
def test_no_window_of_the_server_is_passed_whatever_the_network_does(
    count: int, period_s: float, gaps: list[float], latencies: list[tuple[float, float]]
) -> None:
    """A burst that was slow to arrive, and one that was quick, may come within one window of the server's."""
    window, now = Window(Rate(count, period_s)), 1000.0
    open_turns: list[tuple[float, Turn]] = []
    arrived = []

    def hear() -> None:
        for answered_at, turn in [one for one in open_turns if one[0] <= now]:
            turn.answered(answered_at)
            open_turns.remove((answered_at, turn))

    for number, gap in enumerate(gaps):
        now += gap
        hear()
        while (wait_s := window.wait_s(now)) > 0:
            now += max(wait_s, 1e-6)
            hear()
        there_s, back_s = latencies[number % len(latencies)]
        arrived.append(now + there_s)
        open_turns.append((now + there_s + back_s, window.spend(now, within_s=2.0)))
    arrived.sort()
    for first, one_too_many in zip(arrived, arrived[count:], strict=False):
        assert one_too_many - first >= period_s - SLACK_S


def test_a_round_trip_is_all_that_exactness_costs() -> None:
    """The next window's calls follow a period after the answers, one for one: no pause beyond that."""
    window, now, gone = Window(Rate(5, 10.0)), 0.0, []
    for _ in range(20):
        while (wait_s := window.wait_s(now)) > 0:
            now += wait_s
        turn = window.spend(now, within_s=10.0)
        gone.append(now)
        now += 0.1
        turn.answered(now)
    assert gone[-1] == pytest.approx(3 * 10.1 + 4 * 0.1)


@pytest.mark.parametrize(("operation", "wait_s"), [("status-sync", 11.0), ("status", 20.0)])
def test_a_request_that_is_held_counts_when_it_has_surely_come_there(operation: str, wait_s: float) -> None:
    """Its answer is a minute away; a plain one's that hangs must not stop everything either."""
    pace = Pace(ALL)
    for _ in range(2):
        pace.spend(operation, 0.0)
    assert pace.wait_s("status", 30.0) == 0.0
    now = 0.0
    while (left_s := pace.wait_s("status", now)) > 0:
        now += left_s
    assert now == pytest.approx(wait_s)


# What a 429 teaches


def refuse(window: Window, now: float, *, every_s: float, count: int) -> float:
    """Let *count* calls go *every_s* apart, the last one refused; when that was."""
    for _ in range(count):
        now += every_s
        turn = window.spend(now)
        turn.answered(now)
    window.refused(turn, now)
    return now


def most_in_a_period(window: Window, now: float, *, calls: int) -> int:
    """How many of *calls* calls, each as soon as it may, fall into one period of 10 s."""
    gone = times(window, [0.0] * calls, start=now)
    return max(sum(at - 10.0 + SLACK_S < one <= at for one in gone) for at in gone)


def test_a_429_at_the_full_rate_makes_the_window_smaller() -> None:
    """The server's own may be a stricter one than the table says: it is found, not run into again and again."""
    window = Window(Rate(100, 10.0))
    now = refuse(window, 1000.0, every_s=0.1, count=91)
    assert most_in_a_period(window, now, calls=300) == round(0.95 * 90)


def test_a_429_in_a_burst_spreads_the_calls() -> None:
    """A server that counts in seconds refuses what one that counts in ten allows."""
    window = Window(Rate(100, 10.0))
    now = refuse(window, 1000.0, every_s=0.001, count=30)
    gone = times(window, [0.0] * 50, start=now)
    gaps = [round(b - a, 6) for a, b in pairwise(gone)]
    assert set(gaps) == {round(0.1 / 0.9, 6)}


def test_a_429_among_few_calls_is_about_something_else() -> None:
    """A full queue, another client: going slower than slow would only waste the workers."""
    window = Window(Rate(100, 10.0))
    now = refuse(window, 1000.0, every_s=0.5, count=40)
    assert times(window, [0.0] * 50, start=now) == [now] * 50


def test_what_a_429_taught_is_forgotten_after_a_minute() -> None:
    """A bad minute of RunPod's must not slow down the night."""
    window = Window(Rate(100, 10.0))
    now = refuse(window, 1000.0, every_s=0.001, count=30)
    assert times(window, [0.0] * 100, start=now + 60.0) == [now + 60.0] * 100


def test_more_429s_of_one_burst_make_the_window_smaller_still() -> None:
    """Of calls that are under way nobody knows yet whether they are taken: the first 429 can't say how many were."""
    window, now = Window(Rate(100, 10.0)), 1000.0
    turns = [window.spend(now) for _ in range(100)]
    for turn in turns[80:]:
        turn.answered(now)
        window.refused(turn, now + 0.1)
    assert most_in_a_period(window, now + 10.0, calls=200) == round(0.95 * 80)


def test_429s_here_and_there_make_a_window_smaller_once() -> None:
    """It was not our doing, if less of us is refused as often: a bad hour must not halve the rate."""
    window, now = Window(Rate(100, 10.0)), 1000.0
    for number in range(1, 400):
        now += window.wait_s(now)
        turn = window.spend(now)
        turn.answered(now)
        now += 0.1
        if number % 20 == 0:
            window.refused(turn, now)
    assert most_in_a_period(window, now, calls=200) >= 80


def test_a_smaller_window_grows_back_little_by_little() -> None:
    """All at once would be a burst of 429s, if the server is as strict as it was."""
    for later_s, most in ((59.0, 86), (65.0, 91), (70.0, 96), (80.0, 100)):
        window, count = Window(Rate(100, 10.0)), 0
        now = refuse(window, 1000.0, every_s=0.1, count=91) + later_s
        while window.wait_s(now) <= 0:
            window.spend(now)
            count += 1
        assert count == most


# Whose a refusal is


def test_refusals_count_in_a_row_only() -> None:
    """Three of nothing else are no chance; a call taken between, or at the same time, makes them some."""
    pace = Pace({bucket: Rate(1000, 10.0) for bucket in BUCKETS.values()})

    def call(now: float, *, is_taken: bool = False) -> bool:
        turn = pace.spend("run", now)
        turn.answered(now)
        if is_taken:
            pace.taken("run", turn)
            return False
        return pace.refused("run", turn, now)

    assert [call(1.0), call(2.0), call(3.0, is_taken=True), call(4.0), call(5.0)] == [False] * 5
    assert pace.wait_s("run", 5.0) == 0.0
    assert call(6.0)
    assert (pace.wait_s("run", 6.0), pace.wait_s("status", 6.0)) == (0.5, 0.0)
