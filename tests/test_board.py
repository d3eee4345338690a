"""What a terminal shows of a running batch, whatever its size."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.board import EndpointView, JobView, Line, View, board, rate, usd, workers
from runner.cells import columns, cut, padded, wrapped
from runner.cost import Costs
from runner.events import Sampled
from runner.speed import Speed
from runner.states import Outcome, State
from runner.tally import JobTally


def a_speed(settled: int = 100, spent: float | None = None) -> Speed:
    """So many runs in 20 s."""
    speed = Speed()
    speed.saw(0.0, 0, None if spent is None else 0.0)
    speed.saw(20.0, settled, spent)
    return speed


def a_job(name: str = "photos", *, spent: float | None = 0.2, **more: object) -> JobView:
    """A job of 600 runs on its way."""
    tally = JobTally(600, in_flight=8, execution_ms=1000, timed_attempts=100)
    tally.settle(State.SUCCEEDED, Outcome.COMPLETED, 90)
    tally.settle(State.FAILED, Outcome.CRASHED, 10)
    for key, value in more.items():
        setattr(tally, key, value)
    return JobView(name, tally, a_speed(spent=spent), spent)


def waiting(name: str, *needed: str) -> JobView:
    """A job that has not begun."""
    return JobView(name, JobTally(3, waits_for=needed), Speed())


def over(name: str) -> JobView:
    """A job that is done."""
    tally = JobTally(5)
    tally.settle(State.SUCCEEDED, Outcome.COMPLETED, 5)
    return JobView(name, tally, a_speed(5))


def a_view(
    *jobs: JobView, endpoints: Sequence[EndpointView] = (), is_ending: bool = False, spent: float | None = 0.2
) -> View:
    """A batch of *jobs*, 20 s after its start."""
    settled = sum(one.tally.settled for one in jobs)
    return View(jobs, endpoints, a_speed(settled, spent), 20.0, is_ending)


def texts(view: View, width: int = 100, height: int = 24) -> list[str]:
    """The lines of the board."""
    return [line.text for line in board(view, width=width, height=height)]


CALM = EndpointView("sdxl", Sampled("sdxl", 0.0, {"inQueue": 1200}, {"running": 3, "idle": 1, "ready": 1}))
STUCK = EndpointView("llava", trouble="throttled: 2 of 2 workers without a free GPU, 9 jobs waiting; allow more GPUs")


def test_the_board_says_how_far_how_fast_and_at_what_cost() -> None:
    """For each job and for all, and below it how the endpoints are."""
    view = a_view(a_job(), waiting("captions", "photos"), endpoints=[CALM, STUCK])
    assert texts(view) == [
        "job           settled  in flight  succeeded  failed   rate               eta     USD  USD/h",
        "photos    100/600 16%          8         90      10  5.0/s             1m40s  0.2000  36.00",
        "captions          0/3                     0       0         waits for photos",
        "all       100/603 16%          8         90      10  5.0/s             1m40s  0.2000  36.00",
        "endpoint llava: throttled: 2 of 2 workers without a free GPU, 9 jobs waiting; allow more GPUs",
        "endpoint sdxl: workers: 3 busy, 1 idle; 1,200 waiting",
        "20s; at least 0.2000 USD, execution only; 36.00 USD/h; Ctrl-C starts nothing more and follows what",
        "runs",
    ]


def test_a_job_alone_needs_no_sum_and_an_end_no_hint() -> None:
    """What is said twice is read once."""
    assert texts(a_view(a_job(spent=None), is_ending=True, spent=None)) == [
        "job         settled  in flight  succeeded  failed   rate    eta",
        "photos  100/600 16%          8         90      10  5.0/s  1m40s",
        "20s",
    ]


def test_a_narrow_terminal_has_fewer_columns_not_broken_ones() -> None:
    """What matters most stays longest: how far, what failed, how long."""
    view = a_view(a_job("a-job-with-a-long-name"))
    assert texts(view, 60)[:2] == [
        "job                settled  in flight  failed    eta     USD",
        "a-job-with-a…  100/600 16%          8      10  1m40s  0.2000",
    ]
    assert texts(view, 40)[:2] == [
        "job               settled  failed    eta",
        "a-job-with-…  100/600 16%      10  1m40s",
    ]
    assert texts(view, 22)[:2] == ["job            settled", "a-job-wi…  100/600 16%"]
    assert texts(a_view(a_job(), waiting("captions", "photos")), 40)[:3] == [
        "job           settled  failed    eta",
        "photos    100/600 16%      10  1m40s",
        "captions          0/3       0  wait…",
    ]


def test_jobs_that_do_not_fit_are_counted_and_those_at_work_are_shown() -> None:
    """A file of forty jobs on a laptop's screen."""
    jobs = [*(over(f"over-{number}") for number in range(20)), a_job("now"), *(waiting(f"w{n}", "now") for n in "abcd")]
    shown = texts(a_view(*jobs), 100, 9)
    assert [line[:15].rstrip() for line in shown] == [
        *("job          se", "now      100/60", "wa", "wb", "wc", "21 more  100/10", "all      200/71"),
        *("20s; at least 0", "runs"),
    ]


@pytest.mark.parametrize("height", [2, 3])
def test_of_a_terminal_of_few_lines_one_tells_all(height: int) -> None:
    """A tmux pane may be that small."""
    shown = texts(a_view(a_job(), over("other")), 80, height)
    assert shown[0] == "105/605 17% settled, 10 failed, 8 in flight, 5.2/s, 1m35s left"
    assert len(shown) <= height


def test_endpoints_in_trouble_come_first_and_the_others_are_counted() -> None:
    """Ten endpoints that are well may not hide the one that is not."""
    many = [EndpointView(f"e{n}", CALM.newest) for n in range(10)]
    shown = texts(a_view(a_job(), endpoints=[*many, STUCK]), 120, 12)
    assert [line for line in shown if line.startswith("endpoint llava")]
    assert any(line.endswith("more endpoints") for line in shown)
    assert len(shown) <= 12


def test_costs_are_said_with_what_they_are_made_of() -> None:
    """Live as in the report."""
    exact = a_job(costs=Costs(100, 0.2, 100, 1000))
    mixed = a_job(costs=Costs(60, 0.2, 60, 600))
    assert texts(a_view(exact))[-1].startswith("20s; 0.2000 USD; 36.00 USD/h; Ctrl-C")
    assert "at least 0.2000 USD, 40 attempts told no cost;" in " ".join(texts(a_view(mixed)))
    assert "at least 0.4000 USD, in part execution only;" in " ".join(texts(a_view(exact, a_job("other"))))


def test_workers_are_told_by_what_they_do() -> None:
    """In the words of the diagnosis."""
    assert workers(Sampled("x", 0.0, {}, {"initializing": 2, "throttled": 1})) == (
        "workers: 2 starting, 1 without a free GPU"
    )
    assert workers(Sampled("x", 0.0, {"inQueue": 3}, {})) == "no workers; 3 waiting"
    assert workers(Sampled("x", 0.0, {}, {}, "HTTP 500")) == workers(None) == ""


def test_numbers_are_as_long_as_they_have_to_be() -> None:
    """Columns are few."""
    assert [rate(one) for one in (1234.5, 12.3, 4.56, 0.5, 0.02, 0.001)] == [
        *("1,234/s", "12/s", "4.6/s", "30/min", "1.2/min", "3.6/h"),
    ]
    assert [usd(one) for one in (0, 0.000123, 0.1234, 12.345, 1234.5)] == [
        *("0", "0.000123", "0.1234", "12.35", "1,234.50"),
    ]


def test_text_is_cut_by_the_columns_that_it_takes() -> None:
    """A name in Japanese takes two for each letter, a combining accent none."""
    assert (columns("abc"), columns("馬の写真"), columns("e\u0301")) == (3, 8, 1)
    assert cut("馬の写真", 5) == "馬の…"
    assert [cut("abc", width) for width in (3, 2, 1, 0)] == ["abc", "a…", "…", ""]
    assert cut("a\nb\tc", 10) == "a b c"
    assert wrapped("one two three", 7) == ["one two", "three"]
    assert wrapped("one two three four", 7, 2) == ["one two", "three…"]
    assert (padded("馬", 4), padded("馬", 4, left=False)) == ("馬  ", "  馬")


NAMES = st.text(st.sampled_from("ab-馬é"), min_size=1, max_size=60)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(NAMES, st.sampled_from(["now", "over", "waits"])), min_size=1, max_size=12),
    st.lists(st.booleans(), max_size=4),
    st.integers(2, 220),
    st.integers(2, 60),
)
def test_no_line_is_too_wide_and_no_board_too_high(
    jobs: list[tuple[str, str]], endpoints: list[bool], width: int, height: int
) -> None:
    """A line that wraps is never drawn over again: it stays for ever."""

    def a_view_of(kind: str, name: str) -> JobView:
        if kind == "waits":
            return waiting(name, "something-that-takes-long")
        return a_job(name) if kind == "now" else over(name)

    views = [a_view_of(kind, f"{number}{name}") for number, (name, kind) in enumerate(jobs)]
    lines: list[Line] = board(
        a_view(*views, endpoints=[STUCK if bad else CALM for bad in endpoints]), width=width, height=height
    )
    assert 1 <= len(lines) <= height
    assert max(columns(line.text) for line in lines) <= width
