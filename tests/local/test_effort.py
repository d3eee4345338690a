"""What a request costs, in steps of the interpreter: the same on every machine, and however busy it is."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from runner.local.job import Job, Policy
from runner.local.jobs import Jobs
from runner.local.limits import Limit, Meter, RateLimits

NOW = 1000.0


def steps(action: Callable[[], object]) -> int:
    """How many lines of Python *action* runs, and how many functions written in C it calls."""
    count = 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return line

    def call(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "c_call"

    tracer = sys.gettrace()
    sys.settrace(line)
    sys.setprofile(call)
    try:
        action()
    finally:
        sys.setprofile(None)
        sys.settrace(tracer)
    return count


def full(size: int, *, finished: int = 0) -> Jobs:
    """An endpoint with so many queued jobs, and some finished ones."""
    jobs = Jobs()
    for number in range(finished):
        jobs.enqueue(Job(f"f{number}", b"{}", Policy(), False, NOW))
        jobs.take("w", NOW)
        jobs.done(f"f{number}", "w", NOW, output=b"1", error=None)
    for number in range(size):
        jobs.enqueue(Job(f"q{number}", b"{}", Policy(), False, NOW))
    jobs.next_deadline()  # as after every change: the endpoint sets its timer by it
    return jobs


def taken_and(jobs: Jobs, act: Callable[[str], object]) -> None:
    """Take the next job, and do something with it."""
    job = jobs.take("w", NOW)
    assert job is not None
    act(job.id)


OPERATIONS: dict[str, Callable[[Jobs], object]] = {
    "run": lambda jobs: jobs.enqueue(Job("x", b"{}", Policy(), False, NOW)),
    "status": lambda jobs: jobs.find("q3"),
    "status with ttl": lambda jobs: jobs.shorten("q3", NOW, 5.0),
    "cancel": lambda jobs: jobs.cancel("q5", NOW),
    "health": lambda jobs: (jobs.counts(), jobs.busy_workers(), jobs.is_queued()),
    "take": lambda jobs: jobs.take("w", NOW),
    "done": lambda jobs: taken_and(jobs, lambda name: jobs.done(name, "w", NOW, output=b"1", error=None)),
    "fail and retry": lambda jobs: taken_and(
        jobs, lambda name: (jobs.done(name, "w", NOW, output=None, error=b"1"), jobs.retry(name, NOW))
    ),
    "progress": lambda jobs: taken_and(jobs, lambda name: jobs.progress(name, "w", b"1")),
    "stream": lambda jobs: taken_and(jobs, lambda name: (jobs.chunk(name, "w", b"1"), jobs.drain(name, 9))),
    "hung up": lambda jobs: taken_and(jobs, lambda name: jobs.give_back(name, "w")),
    "worker died": lambda jobs: taken_and(jobs, lambda name: jobs.worker_died("w", NOW)),
    "nothing due": lambda jobs: (jobs.expire(NOW), jobs.next_deadline()),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_ten_thousand_queued_jobs_cost_a_request_no_more_than_ten(name: str) -> None:
    """A batch may be queued whole; nothing may look through the queue, nor through what is finished."""
    few, many = full(10), full(10_000, finished=1000)
    expected = steps(lambda: OPERATIONS[name](few))
    # The heap of deadlines is as deep as its size has digits; that is in C, and one call.
    assert steps(lambda: OPERATIONS[name](many)) <= expected + 5


def test_a_full_window_of_a_rate_limit_costs_a_request_no_more_than_an_empty_one() -> None:
    """Every time of the window is kept, and none but the oldest looked at."""

    def after(requests: int) -> int:
        meter = Meter(RateLimits({"run": Limit(2000)}))
        for number in range(requests):
            meter.admit("run", number / 1000)
        return steps(lambda: meter.admit("run", 2.0))

    assert after(1999) == after(1)
