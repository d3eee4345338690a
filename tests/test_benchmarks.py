"""The fast fake of RunPod's API, which clients are timed on, does what its options say and reports what it did."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from terminal import ROOT

from benchmarks.durations import Durations, bimodal, exponential, fixed, lognormal
from benchmarks.load import Work, load
from benchmarks.options import BAD_DAY, DOCUMENTED_LIMITS, Options, Rates
from benchmarks.report import JobRecord, Report
from benchmarks.service import Service, serving
from runner.local.limits import Limit


@dataclass
class Client:
    """A client of a server of its own."""

    server: Service
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """One request: the HTTP status and the JSON of its answer, None if that is not JSON."""
        async with self.session.request(method, f"{self.server.url}/{path}", **options) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else None

    async def run(self, key: int, operation: str = "run") -> str:
        """Submit, and return the job id."""
        status, body = await self.call("POST", operation, json={"input": {"key": key}})
        assert status == 200, body
        job_id: str = body["id"]
        return job_id


@contextlib.asynccontextmanager
async def client(options: Options) -> AsyncIterator[Client]:
    """A server with *options*, and a client of it."""
    with serving(options) as server:
        async with aiohttp.ClientSession() as session:
            yield Client(server, session)


async def test_a_job_is_queued_runs_and_is_completed_with_its_own_key() -> None:
    """The shapes are RunPod's; a submit says IN_QUEUE whatever became of the job since."""
    async with client(Options(workers=1, durations=fixed(0.4), output_bytes=1000)) as one:
        first, second = await one.run(1), await one.run(2)
        assert (await one.call("GET", f"status/{first}"))[1].keys() == {"id", "status", "delayTime"}
        assert await one.call("GET", f"status/{second}") == (200, {"id": second, "status": "IN_QUEUE"})
        status, body = await one.call("GET", f"status-sync/{second}?wait=5000")
        assert (status, body["status"], body["output"]["key"]) == (200, "COMPLETED", "2")
        assert 900 < len(body["output"]["text"]) <= 1000
        assert await one.call("GET", "status/nobody") == (404, {"detail": "job not found"})
        assert (await one.call("POST", "run", data=b"no"))[0] == 400


async def test_jobs_run_first_come_first_served_and_the_schedule_does_not_drift() -> None:
    """However late a timer rings, the next job starts when the one before was to end."""
    async with client(Options(workers=2, durations=lognormal(0.02))) as one:
        await asyncio.gather(*(one.run(key) for key in range(40)))
        await one.call("GET", f"status-sync/{await one.run(40)}")
        report = one.server.report()
    starts = [job.started for job in report.jobs]
    assert None not in starts
    assert starts == sorted(starts, key=float)  # type: ignore[arg-type]
    # Two workers who never rest: each start is the end of an earlier job, or that job's own submit.
    ends = [job.started + job.seconds for job in report.jobs if job.started is not None]
    for job in report.jobs:
        assert job.started is not None
        assert min(abs(job.started - one) for one in [*ends, job.accepted]) < 1e-5


async def test_held_requests_are_answered_at_the_end_and_not_before() -> None:
    """A wait that is over is answered with how the job stands, and the next one is told of the end at once."""
    async with client(Options(durations=fixed(1.0))) as one:
        job_id = await one.run(1)
        early = (await one.call("GET", f"status-sync/{job_id}?wait=200"))[1]
        late = (await one.call("GET", f"status-sync/{job_id}?wait=90000"))[1]
        assert (early["status"], late["status"]) == ("IN_PROGRESS", "COMPLETED")
        assert (await one.call("POST", "runsync", json={"input": 5}))[1]["status"] == "COMPLETED"
        report = one.server.report()
    assert dict(report.requests) == {"run": 1, "status-sync": 2, "runsync": 1}
    assert max(report.detections_s) < 0.1


async def test_without_status_sync_there_is_a_404_and_status_works() -> None:
    """What a client sees where RunPod has dropped an operation that it never documented."""
    async with client(Options(status_sync=False)) as one:
        job_id = await one.run(1)
        assert (await one.call("GET", f"status-sync/{job_id}"))[0] == 404
        assert (await one.call("GET", f"status/{job_id}"))[1]["status"] == "COMPLETED"


async def test_limits_are_exact_and_what_is_refused_counts_as_nothing() -> None:
    """Of any number of requests in one window exactly as many are let in as the table says."""
    limits = {"run": Limit(30), "status": Limit(1000, 2)}
    async with client(Options(durations=fixed(60.0), limits=limits, retry_after=True)) as one:
        answers = await asyncio.gather(*(one.call("POST", "run", json={"input": 1}) for _ in range(50)))
        assert sorted(status for status, _ in answers) == [200] * 30 + [429] * 20
        job_id = next(body["id"] for status, body in answers if status == 200)
        held = [asyncio.create_task(one.call("GET", f"status-sync/{job_id}?wait=500")) for _ in range(3)]
        statuses = sorted([(await task)[0] for task in held])
        assert statuses == [200, 200, 429]
        report = one.server.report()
    assert len(report.jobs) == 30
    assert dict(report.refused) == {"run": 20, "status-sync": 1}
    assert report.requests["run"] == 50


async def test_a_job_can_be_cancelled_and_health_counts() -> None:
    """A cancelled job frees its worker, or its place in the queue."""
    async with client(Options(workers=1, durations=fixed(60.0))) as one:
        ids = [await one.run(key) for key in range(3)]
        assert await one.call("POST", f"cancel/{ids[1]}") == (200, {"id": ids[1], "status": "CANCELLED"})
        assert await one.call("POST", f"cancel/{ids[0]}") == (200, {"id": ids[0], "status": "CANCELLED"})
        health = (await one.call("GET", "health"))[1]
        assert health["jobs"] == {"completed": 0, "failed": 0, "inProgress": 1, "inQueue": 0, "retried": 0}
        assert (await one.call("GET", f"status/{ids[2]}"))[1]["status"] == "IN_PROGRESS"


async def test_a_stream_gives_each_chunk_out_once() -> None:
    """Evenly over the job's time, and none is left when it says that the job has ended."""
    async with client(Options(durations=fixed(0.5), chunks=5)) as one:
        job_id = await one.run(1)
        chunks: list[int] = []
        answers = 0
        status = ""
        while status != "COMPLETED":
            body = (await one.call("GET", f"stream/{job_id}"))[1]
            status = body["status"]
            chunks += [item["output"]["chunk"] for item in body["stream"]]
            answers += 1
        assert chunks == [0, 1, 2, 3, 4]
        assert answers >= 2
        assert (await one.call("GET", f"status/{job_id}"))[1]["output"] == []


async def test_a_lost_answer_leaves_a_job_that_the_report_knows_of() -> None:
    """Faults strike before acceptance or after it; the report counts both, and what was paid for twice."""
    async with client(Options(faults=Rates(refused=0.1, broken=0.2, cut=0.2))) as one:
        failures = 0
        for key in range(100):
            for _ in range(20):
                try:
                    if (await one.call("POST", "run", json={"input": {"key": key}}))[0] == 200:
                        break
                except aiohttp.ClientError:
                    pass
                failures += 1
        report = one.server.report()
    faults = report.faults
    assert failures == sum(faults.values())
    assert {"429", "5xx before", "5xx after", "reset before", "reset after"} == set(faults)
    assert report.accepted.keys() == {str(key) for key in range(100)}
    assert len(report.jobs) == 100 + faults["5xx after"] + faults["reset after"]
    assert report.duplicates == len(report.jobs) - 100
    assert report.requests["run"] == 100 + failures


async def test_the_report_adds_up_after_a_load() -> None:
    """Every request of the load generator is in the report, and nothing else."""
    with serving(Options(workers=4, durations=fixed(0.002))) as server:
        measured = await load(server.url, "any", Work(300, look="status-sync", until_final=True), connections=8)
        report = server.report()
    assert measured.requests == sum(report.requests.values()) == 600
    assert report.requests_per_job == 2.0
    assert len(report.jobs) == len(report.accepted) == len(report.detections_s) == 300
    assert report.duplicates == 0
    assert 0.15 - 0.01 <= report.ideal_makespan_s <= report.makespan_s + 0.003
    assert report.cpu_s > 0


def test_options_reach_the_server_as_they_are() -> None:
    """RunPod's own table too, which nobody can change."""
    options = Options(durations=bimodal(2, 30), limits=DOCUMENTED_LIMITS, faults=BAD_DAY, chunks=3)
    assert Options.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_the_local_endpoint_can_be_timed() -> None:
    """One row for each kind of work, and what holds of it; whether it does is not for a busy machine to say."""
    command = [sys.executable, "-m", "benchmarks.local_server", "--jobs", "20", "--rounds", "2", "--queued", "100"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode in (0, 1), ended.stderr) == (True, "")
    _, few, many, worked, rate, ratio = ended.stdout.splitlines()
    assert few.startswith("run + status, 10 queued ")
    assert many.startswith("run + status, 100 queued ")
    assert worked.startswith("run + status-sync, 4 workers ")
    assert rate.endswith(" if nothing else took CPU), at least 1,500")
    assert ratio.endswith(" x the CPU a request with 100 queued as with 10, at most 1.15")


def jobs(*seconds: float) -> list[JobRecord]:
    """Jobs that were all accepted at once."""
    return [JobRecord(str(n), "run", one, 0.0, None, None, None, "COMPLETED") for n, one in enumerate(seconds)]


def report_of(jobs: list[JobRecord], *, workers: int, rates: dict[str, int] | None = None) -> Report:
    """A report on *jobs*."""
    return Report(workers, rates, {}, {}, {}, 0, 0.0, 0.0, jobs)


def test_the_ideal_is_a_queue_whose_workers_never_rest() -> None:
    """First come, first served: 3 goes to the worker that is free first."""
    assert report_of(jobs(2, 1, 3), workers=2).ideal_makespan_s == 4


def test_the_limits_bound_the_ideal() -> None:
    """At 10 submits in 10 s the last of 21 jobs is sent after 20 s; at 5 looks in 10 s it is seen after 40 s."""
    assert report_of(jobs(*[0.5] * 21), workers=9, rates={"run": 10}).limit_bound_makespan_s == 20.5
    assert report_of(jobs(*[0.5] * 21), workers=9, rates={"run": 10, "status": 5}).limit_bound_makespan_s == 40


@pytest.mark.parametrize("durations", [fixed(2), lognormal(2, 0.5), exponential(2), bimodal(1, 6, 0.2)])
def test_durations_have_the_mean_that_they_say_and_are_the_same_for_a_seed(durations: Durations) -> None:
    """Lognormal times too: their mean, not their median, is what was asked for."""
    draws, again = durations.draws(7), durations.draws(7)
    drawn = [next(draws) for _ in range(20_000)]
    assert drawn[:100] == [next(again) for _ in range(100)]
    assert sum(drawn) / len(drawn) == pytest.approx(2, rel=0.05)
    assert min(drawn) >= 0
