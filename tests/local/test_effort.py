"""What a request costs, in steps of the interpreter: the same on every machine, and however busy it is."""

import contextlib
import gc
import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any
from unittest import mock

import pytest
from aiohttp import streams, web
from aiohttp.test_utils import make_mocked_request
from fakes import FakeClock

from runner.local import wire
from runner.local.endpoint import Endpoint
from runner.local.faults import Faults
from runner.local.gate import Gate
from runner.local.job import Job, Policy
from runner.local.jobs import Jobs
from runner.local.limits import Limit, Meter, RateLimits
from runner.local.routing import Routing

NOW = 1000.0
MANY = 2000
TOKEN = "tok-0123456789abcdef"
WORKER_KEY = "key-0123456789abcdef"


def steps(action: Callable[[], object]) -> int:
    """How many lines of Python *action* runs, and how many functions written in C it calls; none of a collection."""
    count = 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return line

    def call(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "c_call"

    tracer = sys.gettrace()
    gc.collect()
    gc.disable()  # what is called when others' garbage goes would be counted, too
    sys.settrace(line)
    sys.setprofile(call)
    try:
        action()
    finally:
        sys.setprofile(None)
        sys.settrace(tracer)
        gc.enable()
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
def test_thousands_of_queued_jobs_cost_a_request_no_more_than_ten(name: str) -> None:
    """A batch may be queued whole; nothing may look through the queue, nor through what is finished."""
    few, many = full(10), full(MANY, finished=300)
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


class Asked:
    """An endpoint with so many queued jobs and one that is completed, asked without a network between."""

    def __init__(self, size: int) -> None:
        clock = FakeClock()
        self.endpoint = Endpoint("ep", clock=clock, retention_s=1800.0, sync_retention_s=60.0, log=None)
        gate = Gate(self.endpoint, clock, limits=RateLimits(), faults=Faults(), log=None)
        self._routing = Routing({"ep": gate}, token=TOKEN, worker_key=WORKER_KEY)
        self.completed = self.submit()
        for _ in range(size):
            self.submit()
        assert self.ask("GET", "job-take/w").status == 200
        assert self.ask("POST", f"job-done/w/{self.completed}", {"output": 1}).status == 200

    def submit(self) -> str:
        """Queue a job, and return its id."""
        return self.endpoint.submit(wire.submission(b'{"input": {}}'), is_sync=False).id

    def ask(self, method: str, path: str, body: object = None) -> web.StreamResponse:
        """One request, from its routing to its answer, which must not have to wait."""
        asking = self._routing.answer(self._request(method, path, body))
        with pytest.raises(StopIteration) as ended:
            asking.send(None)
        answer: web.StreamResponse = ended.value.value
        return answer

    def steps(self, method: str, path: str, body: object = None) -> int:
        """What such a request costs."""
        asking = self._routing.answer(self._request(method, path, body))

        def ask() -> None:
            with contextlib.suppress(StopIteration):
                asking.send(None)
                pytest.fail("the request had to wait")

        return steps(ask)

    def _request(self, method: str, path: str, body: object) -> web.Request:
        content = streams.StreamReader(mock.Mock(_reading_paused=False), limit=2**16)
        content.feed_data(json.dumps(body).encode())
        content.feed_eof()
        key = WORKER_KEY if path.startswith("job-") else f"Bearer {TOKEN}"
        transport = mock.Mock(**{"is_closing.return_value": False, "get_extra_info.return_value": None})
        headers = {"Authorization": key}
        return make_mocked_request(method, f"/v2/ep/{path}", headers, payload=content, transport=transport)


REQUESTS: dict[str, tuple[str, str, object]] = {
    "run": ("POST", "run", {"input": {"n": 1}}),
    "status": ("GET", "status/{queued}", None),
    "status of a completed job": ("GET", "status/{completed}", None),
    "status-sync of a completed job": ("GET", "status-sync/{completed}", None),
    "stream of a completed job": ("GET", "stream/{completed}", None),
    "cancel": ("POST", "cancel/{queued}", None),
    "health": ("GET", "health", None),
    "unknown": ("GET", "status/nobody", None),
    "job-take": ("GET", "job-take/w", None),
    "job-done": ("POST", "job-done/w/{taken}", {"output": 1}),
    "ping": ("GET", "ping/w", None),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_whole_request_costs_no_more_with_thousands_of_jobs_than_with_ten(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Routing, rate limits, faults, the job itself, whoever waits and the timer: all that stands behind an answer."""
    # aiohttp formats the header Date anew in the first answer of every second.
    monkeypatch.setattr("aiohttp.web_response.rfc822_formatted_time", lambda: "Mon, 23 Nov 2026 18:00:00 GMT")

    def cost(size: int) -> int:
        asked = Asked(size)
        method, path, body = REQUESTS[name]
        asked.ask("GET", "job-take/w")
        ids = {"queued": asked.submit(), "completed": asked.completed, "taken": asked.endpoint.jobs.held_by("w")[0]}
        costs = asked.steps(method, path.format(**ids), body)
        asked.endpoint.close()
        return costs

    assert cost(MANY) <= cost(10) + 5
