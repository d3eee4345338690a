"""Bounds on the numbers of a batch."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.thresholds import BadThreshold, parse, share, usd


@pytest.mark.parametrize(
    ("metric", "text", "expected"),
    [
        ("failed", "< 1%", (None, "<", 0.01, "share")),
        ("failed", "<5", (None, "<", 5.0, "runs")),
        ("failed", " ==  0 ", (None, "==", 0.0, "runs")),
        ("succeeded", ">= 0.99", (None, ">=", 0.99, "share")),
        ("succeeded", ">= 100 %", (None, ">=", 1.0, "share")),
        ("succeeded", "> .5", (None, ">", 0.5, "share")),
        ("succeeded", ">= 1.0", (None, ">=", 1.0, "share")),
        ("retried", "<= 1", (None, "<=", 1.0, "runs")),
        ("execution_time", "p95 < 30s", ("p95", "<", 30_000.0, "ms")),
        ("delay_time", "max<=1.5m", ("max", "<=", 90_000.0, "ms")),
        ("delay_time", "mean < 500ms", ("mean", "<", 500.0, "ms")),
        ("cost", "< 5.00 USD", (None, "<", 5.0, "USD")),
        ("cost", "<= 12USD", (None, "<=", 12.0, "USD")),
    ],
)
def test_a_threshold_says_what_it_bounds_and_in_which_unit(
    metric: str, text: str, expected: tuple[str | None, str, float, str]
) -> None:
    """`1` is one run and `1.0` all of them: a decimal point makes a share."""
    found = parse(metric, text)
    assert (found.statistic, found.operator, found.bound, found.unit) == expected
    assert (found.metric, found.text) == (metric, text.strip())


@pytest.mark.parametrize(
    ("metric", "text", "message"),
    [
        ("failed", "1%", "expected a comparison, found '1%'"),
        ("failed", "", "expected a comparison, found ''"),
        ("failed", "< 1 %%", "expected a count of runs or a share of them, found '1 %%'"),
        ("failed", "< -1", "expected a count of runs or a share of them, found '-1'"),
        ("failed", "< 1e2", "expected a count of runs or a share of them, found '1e2'"),
        ("failed", "< ١", "expected a count of runs or a share of them, found '١'"),
        ("failed", "<", "expected a count of runs or a share of them, found ''"),
        ("failed", "!= 0", "unknown comparison '!='"),
        ("failed", "p95 < 1", "'failed' is one number, without 'p95'"),
        ("execution_time", "< 1s", "'execution_time' needs a statistic"),
        ("execution_time", "P95 < 1s", "unknown statistic 'P95'"),
        ("execution_time", "p95 < 1", "expected a duration with its unit, found '1'"),
        ("cost", "< $5", "expected an amount in USD, found '$5'"),
        ("cost", "< 5 usd", "expected an amount in USD, found '5 usd'"),
    ],
)
def test_what_is_no_threshold_says_what_to_write(metric: str, text: str, message: str) -> None:
    """A bound that is quietly read as another one decides a night's verdict."""
    with pytest.raises(BadThreshold) as raised:
        parse(metric, text)
    assert raised.value.message == message
    assert raised.value.fix


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [("< 1%", 0.01, False), ("<= 1%", 0.01, True), ("> 1", 1, False), (">= 1", 1, True), ("== 0", 0, True)],
)
def test_a_value_holds_a_bound_or_not(text: str, value: float, holds: bool) -> None:
    """The edge belongs to the operators with an equals sign."""
    assert parse("failed", text).holds(value) is holds


@settings(derandomize=True, deadline=None)
@given(
    st.sampled_from([("failed", "%"), ("execution_time", "s"), ("cost", " USD")]),
    st.sampled_from(["<", "<=", ">", ">=", "=="]),
    st.decimals(0, 100, places=3),
    st.one_of(st.integers(-1000, 1000), st.just(0)),
)
def test_what_is_said_of_a_number_agrees_with_the_verdict_on_it(
    kind: tuple[str, str], operator: str, bound: Decimal, off: int
) -> None:
    """ "p95 < 30s: 30s" of a batch that passed would make people doubt the rest."""
    metric, unit = kind
    statistic = "p95 " if unit == "s" else ""
    threshold = parse(metric, f"{statistic}{operator} {bound}{unit}")
    value = max(0.0, threshold.bound + off * {"%": 1e-6, "s": 1, " USD": 1e-4}[unit])
    text = threshold.say(value)
    # What is said is a bound itself, so that the same parser can read it.
    read = parse(metric, f"{statistic}< {text}").bound
    assert threshold.holds(read) is threshold.holds(value)


def test_a_number_that_is_not_there_says_why() -> None:
    """It fails a threshold, too."""
    told = [parse(metric, text).say(None) for metric, text in (("failed", "< 1%"), ("delay_time", "p50 < 1s"))]
    assert told == ["no run was planned", "no run has a time"]
    assert parse("cost", "< 1 USD").say(None) == "not known: an endpoint has no cost_per_second"


def test_shares_are_the_nearest_numbers_to_what_is_written() -> None:
    """99.9 divided by 100 is above 0.999, so that 999 of 1000 runs would not be 99.9 %."""
    assert [share(f"{tenths / 10}%") for tenths in range(1001)] == [tenths / 1000 for tenths in range(1001)]


def test_shares_and_amounts() -> None:
    """What stop_when takes, too."""
    assert [share(text) for text in ("10%", "0.5 %", "100%", "101%", "10", "%", "-1%")] == [
        *(0.1, 0.005, 1.0),
        *([None] * 4),
    ]
    assert [usd(text) for text in ("5.00 USD", "5USD", "5", "5 EUR", "USD", "1e3 USD")] == [5.0, 5.0, *([None] * 4)]
