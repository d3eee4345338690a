"""Thresholds held against a batch's numbers, and a job's limits against its counts."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.judge import Judged, Numbers, StopAt, all_hold, judge, may_widen, said, stop_reason
from runner.states import Outcome, State
from runner.tally import JobTally
from runner.thresholds import COUNTS, parse

COUNTED = {"failed": 1, "succeeded": 595, "cancelled": 0, "skipped": 4, "retried": 7, "answer_lost": 1}
TIMES = {("execution_time", "p95"): 29_999, ("delay_time", "mean"): 12.346, ("delay_time", "max"): None}


def numbers(
    planned: int = 600,
    *,
    counts: Mapping[str, int] = COUNTED,
    times_ms: Mapping[tuple[str, str], float | None] = TIMES,
    cost_usd: float | None = 4.931,
) -> Numbers:
    """Of a batch of six hundred runs, unless told otherwise."""
    return Numbers(planned, counts, times_ms, cost_usd)


@pytest.mark.parametrize(
    ("metric", "text", "value", "holds"),
    [
        ("failed", "< 1%", 1 / 600, True),
        ("failed", "< 1", 1, False),
        ("succeeded", ">= 99%", 595 / 600, True),
        ("succeeded", ">= 595", 595, True),
        ("cancelled", "== 0", 0, True),
        ("skipped", "<= 0.5%", 4 / 600, False),
        ("retried", "< 7", 7, False),
        ("answer_lost", "== 0", 1, False),
        ("execution_time", "p95 < 30s", 29_999, True),
        ("delay_time", "mean < 12ms", 12.346, False),
        ("delay_time", "max < 1d", None, False),
        ("cost", "< 5.00 USD", 4.931, True),
    ],
)
def test_a_threshold_is_held_against_its_number(metric: str, text: str, value: float | None, holds: bool) -> None:
    """In its own unit: runs, a share of all planned runs, milliseconds, dollars."""
    threshold = parse(metric, text)
    (judged,) = judge([threshold], numbers())
    assert judged == Judged(threshold, value, holds)
    assert judged.as_json() == {"name": metric, "bound": text, "value": value, "pass": holds}


def test_thresholds_keep_their_order() -> None:
    """A reader compares the report with the job file."""
    texts = {"skipped": "< 5", "failed": "< 1%", "cost": "< 5 USD"}
    judged = judge([parse(*one) for one in texts.items()], numbers())
    assert [one.threshold.metric for one in judged] == list(texts)


@pytest.mark.parametrize(
    ("planned", "metric", "text", "holds"),
    [
        (0, "failed", "< 1%", True),
        (0, "succeeded", ">= 99%", True),
        (0, "delay_time", "max < 1s", True),
        (0, "cost", "< 1 USD", True),
        (1, "delay_time", "max < 1s", False),
        (1, "cost", "< 1 USD", False),
    ],
)
def test_without_a_number_only_an_empty_batch_passes(planned: int, metric: str, text: str, holds: bool) -> None:
    """A night without new rows is no failure; a night in which no run came as far as a time is one."""
    (judged,) = judge([parse(metric, text)], numbers(planned, cost_usd=None))
    assert (judged.value, judged.holds) == (None, holds)


def test_a_count_is_judged_of_an_empty_batch_too() -> None:
    """Who asks for ten successes is told of a night without any."""
    counts = dict.fromkeys(COUNTS, 0)
    judged = judge([parse("succeeded", ">= 10"), parse("failed", "< 1")], numbers(0, counts=counts))
    assert [(one.value, one.holds) for one in judged] == [(0, False), (0, True)]


def test_all_thresholds_must_hold() -> None:
    """And a batch that has none is judged otherwise."""
    good, bad = (Judged(parse("failed", "< 1"), 0, holds) for holds in (True, False))
    assert (all_hold([good, good]), all_hold([good, bad]), all_hold([])) == (True, False, None)


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 100_000), st.data())
def test_a_bound_that_says_exactly_the_share_is_met(planned: int, data: st.DataObject) -> None:
    """999 of 1000 is 99.9 %, whatever binary fractions make of either."""
    permille = data.draw(st.integers(0, 1000))
    count = planned * permille  # of planned * 1000 runs
    for text in (f"{permille / 10:.1f}%", f"{permille / 1000:.3f}"):
        found = numbers(planned * 1000, counts={"failed": count})
        at_least, at_most, exactly = (parse("failed", f"{operator} {text}") for operator in (">=", "<=", "=="))
        assert [one.holds for one in judge([at_least, at_most, exactly], found)] == [True, True, True]


@pytest.mark.parametrize(
    ("metric", "bound", "value", "text"),
    [
        ("failed", "< 1%", 0.0323, "failed < 1%: 3.2%"),
        ("failed", "< 1%", 0.01, "failed < 1%: 1%"),
        ("failed", "< 1%", 0.010001, "failed < 1%: 1%"),
        ("failed", "<= 1%", 0.010001, "failed <= 1%: 1.0001%"),
        ("succeeded", ">= 99.9%", 0.9985, "succeeded >= 99.9%: 99.85%"),
        ("succeeded", ">= 99.9%", 0.998, "succeeded >= 99.9%: 99.8%"),
        ("failed", "< 1", 1, "failed < 1: 1 run"),
        ("failed", "< 5", 12, "failed < 5: 12 runs"),
        ("execution_time", "p95 < 30s", 31_204, "execution_time p95 < 30s: 31.2s"),
        ("execution_time", "p95 < 31.2s", 31_204, "execution_time p95 < 31.2s: 31.2s"),
        ("execution_time", "p95 <= 31.2s", 31_204, "execution_time p95 <= 31.2s: 31.204s"),
        ("execution_time", "max < 1m", 120_000, "execution_time max < 1m: 2m"),
        ("delay_time", "mean < 12ms", 12.346, "delay_time mean < 12ms: 12.3ms"),
        ("delay_time", "max < 1s", None, "delay_time max < 1s: no run has a time"),
        ("cost", "< 5 USD", 5.1234, "cost < 5 USD: 5.12 USD"),
        ("cost", "<= 5 USD", 5.000001, "cost <= 5 USD: 5.000001 USD"),
        ("cost", "< 0.001 USD", 0.00123, "cost < 0.001 USD: 0.0012 USD"),
        ("cost", "< 5 USD", None, "cost < 5 USD: not known: an endpoint has no cost_per_second"),
    ],
)
def test_a_judged_threshold_is_said_for_people(metric: str, bound: str, value: float | None, text: str) -> None:
    """Its number in the unit in which the bound is written, and not rounded to one that would hold."""
    assert said({"name": metric, "bound": bound, "value": value, "pass": False}) == text


# stop_when


def a_job(planned: int = 100, **more: int) -> JobTally:
    """A job of which *failed* runs failed, and as much was spent as *more* says."""
    job = JobTally(planned, in_flight=more.get("in_flight", 0))
    job.settle(State.FAILED, Outcome.FAILED, more.get("failed", 0))
    job.settle(State.SUCCEEDED, Outcome.COMPLETED, more.get("succeeded", 0))
    job.execution_ms, job.timed_attempts = more.get("execution_ms", 0), more.get("timed_attempts", 0)
    return job


@pytest.mark.parametrize(
    ("failed", "at", "reason"),
    [
        (0, StopAt(failed_count=1), None),
        (9, StopAt(failed_count=10), None),
        (10, StopAt(failed_count=10), "stop_when: 10 of 100 runs failed (limit 10)"),
        (9, StopAt(failed_share=0.1), None),
        (12, StopAt(failed_share=0.1), "stop_when: 12 of 100 runs failed (limit 10%)"),
        (7, StopAt(failed_share=0.07), "stop_when: 7 of 100 runs failed (limit 7%)"),
        (1, StopAt(failed_share=0.005), "stop_when: 1 of 100 runs failed (limit 0.5%)"),
        (99, StopAt(), None),
    ],
)
def test_failures_stop_a_job_when_they_reach_the_limit(failed: int, at: StopAt, reason: str | None) -> None:
    """A percentage is of the plan, so that the first failure of a long night does not end it."""
    assert stop_reason(a_job(failed=failed), at) == reason


COSTS = StopAt(cost_usd=5.0, usd_per_s=0.001)


@pytest.mark.parametrize(
    ("spent", "in_flight", "reason"),
    [
        pytest.param((0, 0), 50, None, id="nothing is known yet"),
        pytest.param((4_000_000, 40), 9, None, id="below"),
        pytest.param((4_931_200, 49), 0, None, id="below, and nothing in flight"),
        pytest.param(
            (4_000_000, 40),
            10,
            "stop_when: 4.0000 USD spent and about 1.0000 USD in flight (limit 5.00 USD)",
            id="what is in flight reaches it",
        ),
        pytest.param((5_012_345, 50), 0, "stop_when: 5.0123 USD spent (limit 5.00 USD)", id="spent"),
    ],
)
def test_money_stops_a_job_with_a_reserve_for_what_is_in_flight(
    spent: tuple[int, int], in_flight: int, reason: str | None
) -> None:
    """What runs can't be unpaid, so the last dollar must not be spent twice."""
    execution_ms, attempts = spent
    job = a_job(in_flight=in_flight, execution_ms=execution_ms, timed_attempts=attempts)
    assert stop_reason(job, COSTS) == reason


def test_small_amounts_are_said_exactly_enough() -> None:
    """A limit of a tenth of a cent is one for a test run."""
    job = a_job(execution_ms=1_234, timed_attempts=1)
    at = StopAt(cost_usd=0.001, usd_per_s=0.001)
    assert stop_reason(job, at) == "stop_when: 0.001234 USD spent (limit 0.001 USD)"


def test_money_without_a_rate_stops_nothing() -> None:
    """The job file is refused before it comes to that."""
    assert stop_reason(a_job(execution_ms=10**9, timed_attempts=1), StopAt(cost_usd=1.0)) is None


def test_a_job_of_which_nothing_is_left_to_start_is_not_stopped() -> None:
    """Its last run may be the failure too many: nothing was cut short, and the thresholds judge it."""
    at = StopAt(failed_count=10, cost_usd=5.0, usd_per_s=1.0)
    job = a_job(failed=10, succeeded=88, execution_ms=10**9, timed_attempts=100, in_flight=1)
    why = "stop_when: 10 of 100 runs failed (limit 10)"
    assert stop_reason(job, at) == why
    job.in_flight = 2
    assert stop_reason(job, at) is None
    job.in_flight = 1  # the other one waits to be tried again: that would be a start
    assert stop_reason(job, at) == why
    job.settle(State.SUCCEEDED, Outcome.COMPLETED)
    assert stop_reason(job, at) is None
    assert stop_reason(JobTally(0), StopAt(failed_count=1, failed_share=0.1)) is None


@settings(derandomize=True, deadline=None)
@given(
    st.lists(st.integers(0, 10_000), max_size=60),
    st.integers(1, 20),
    st.floats(0.5, 50.0),
)
def test_a_job_overspends_at_most_what_is_in_flight(times_ms: list[int], lanes: int, limit_usd: float) -> None:
    """Asked before each start, as lanes do, the limit is passed by no more than what is in flight can cost."""
    at = StopAt(cost_usd=limit_usd, usd_per_s=1.0)
    job = JobTally(len(times_ms) + 1)
    waiting, flying = list(times_ms), list[int]()
    while flying or waiting:
        while waiting and len(flying) < lanes and stop_reason(job, at) is None:
            flying.append(waiting.pop())
            job.in_flight += 1
        if not flying:
            break
        job.in_flight -= 1
        job.ended(flying.pop(0))
    spent_usd = job.execution_ms / 1000
    assert spent_usd < limit_usd + lanes * max(times_ms, default=0) / 1000
    assert stop_reason(job, at) is not None or not waiting


@pytest.mark.parametrize(
    ("in_flight", "execution_ms", "timed", "may"),
    [(0, 0, 0, True), (3, 0, 0, True), (4, 0, 0, False), (0, 4000, 4, True), (5, 4000, 4, False), (4, 1000, 1, True)],
)
def test_a_budget_keeps_the_first_burst_small(in_flight: int, execution_ms: int, timed: int, may: bool) -> None:
    """While nobody knows what a run costs, each may cost all that it has time for."""
    job = JobTally(100, in_flight=in_flight, execution_ms=execution_ms, timed_attempts=timed)
    assert may_widen(job, StopAt(cost_usd=10.0, usd_per_s=1.0, longest_s=2.0)) is may
    assert may_widen(job, StopAt(usd_per_s=1.0, longest_s=2.0))
