"""A real worker, built on the `runpod` package and unmodified, behind the local endpoint."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sdk import needs_sdk
from serving import Client, eventually, is_alive
from threaded import Shared, shared

from runner.local.server import Served

pytestmark = needs_sdk

WORKERS = Path(__file__).parents[1] / "data/workers"
GAVE_UP = "job timed out after 1 retries"
LIMIT_S = 60.0
"""For what takes a second on an idle machine: a worker imports the SDK again."""


@pytest.fixture(scope="module")
def real() -> Iterator[Shared]:
    """One worker of each kind, for all tests: the SDK takes seconds to import. They ping each second."""
    served = [
        Served(kind, None, command=[sys.executable, "real.py", kind], folder=WORKERS)
        for kind in ("plain", "stream", "aggregate", "refresh")
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.local.environment.PING_INTERVAL_MS", 1000)
        with shared(served, stop_limit_s=1.5, grace_s=0.5) as server:
            yield server


async def ended(client: Client, job_id: str) -> dict[str, Any]:
    """How a job ended, without what differs from run to run."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            answer = await client.call("GET", f"status-sync/{job_id}?wait=30000")
            if answer.body["status"] not in ("IN_QUEUE", "IN_PROGRESS"):
                return {key: answer.body[key] for key in ("status", "output", "error", "retries") if key in answer.body}


def completed(output: Any) -> dict[str, Any]:
    return {"status": "COMPLETED", "output": output}


def failed(error: Any, **more: Any) -> dict[str, Any]:
    return {"status": "FAILED", "error": error, **more}


RETURNED: list[tuple[Any, dict[str, Any]]] = [
    ("text é😀", completed("text é😀")),
    ([1, {"error": "in a list"}], completed([1, {"error": "in a list"}])),
    (1.5, completed(1.5)),
    (2**70, completed(2**70)),
    (True, completed(True)),
    (False, completed(False)),
    (None, completed(None)),
    ({"a": {"b": []}}, completed({"a": {"b": []}})),
    ({"error": None, "a": 1}, completed({"a": 1})),
    ({"error": "no", "a": 1}, failed("no", output={"a": 1})),
    ({"error": "no"}, failed("no")),
    ({"error": {"code": 5}}, failed({"code": 5})),
    ({}, {"status": "COMPLETED"}),
    ({"error": ""}, {"status": "COMPLETED"}),
]


async def test_what_a_function_returns_ends_its_job(real: Shared) -> None:
    """Functions and coroutine functions alike; an `error` that is truthy makes it FAILED, nothing else does."""
    async with real.client("plain") as client:
        for then in ({}, {"then": "go"}):
            jobs = [await client.run({"return": value, **then}) for value, _ in RETURNED]
            ends = [await ended(client, job_id) for job_id in jobs]
            assert ends == [end for _, end in RETURNED]


async def test_what_a_function_raises_fails_its_job(real: Shared) -> None:
    """The error is JSON in a string, and names the worker by the id that we gave it."""
    async with real.client("plain") as client:
        for then in ({}, {"then": "go"}):
            end = await ended(client, await client.run({"raise": "no good: é", **then}))
            error = json.loads(end.pop("error"))
            assert end == {"status": "FAILED"}
            assert error.pop("error_traceback").splitlines()[-1] == "ValueError: no good: é"
            assert error.pop("worker_id").startswith("plain-w1-")
            assert error.pop("hostname").startswith("plain-w1-")
            assert error == {
                "error_type": "<class 'ValueError'>",
                "error_message": "no good: é",
                "runpod_version": error["runpod_version"],
            }


async def test_a_function_is_given_id_and_input(real: Shared) -> None:
    """And nothing else, when the client sent nothing else."""
    async with real.client("plain") as client:
        job_id = await client.run({"odd": "whole job"})
        assert (await ended(client, job_id)) == completed({"id": job_id, "input": {"odd": "whole job"}})


async def test_output_that_is_not_json_is_lost(real: Shared) -> None:
    """The worker posts nothing, and says that it has no job: it is run again, then given up, as RunPod does."""
    async with real.client("aggregate") as client:
        end = await ended(client, await client.run({"yield": [1], "odd": True}))
        assert end == failed(GAVE_UP, retries=1)


async def test_output_with_nan_is_refused_and_the_job_is_completed_without_it(real: Shared) -> None:
    """As on RunPod: the body is no JSON, and the worker does not try again."""
    async with real.client("plain") as client:
        assert await ended(client, await client.run({"odd": "nan"})) == {"status": "COMPLETED"}


async def test_progress_is_shown_while_the_job_runs(real: Shared, tmp_path: Path) -> None:
    """It comes from a thread of the worker, which has a session of its own."""
    async with real.client("plain") as client:
        job_id = await client.run({"progress": {"percent": 40}, "until": str(tmp_path / "seen")})

        async def is_shown() -> bool:
            status = await client.status(job_id)
            return status["status"] == "IN_PROGRESS" and status.get("output") == {"percent": 40}

        await eventually(is_shown, LIMIT_S)
        (tmp_path / "seen").touch()
        assert await ended(client, job_id) == completed("over")


STREAMED: list[tuple[str, dict[str, Any], list[Any], dict[str, Any]]] = [
    ("stream", {"yield": ["a", {"b": 1}, None]}, ["a", {"b": 1}, None], completed([])),
    ("aggregate", {"yield": ["a", {"b": 1}, None]}, ["a", {"b": 1}, None], completed(["a", {"b": 1}, None])),
    ("stream", {"yield": ["a", {"error": 7}, "never"]}, ["a"], failed("7")),
    ("aggregate", {"yield": ["a", {"error": "no"}, "never"]}, ["a"], failed("no")),
    ("stream", {"yield": []}, [], completed([])),
]


@pytest.mark.parametrize(("kind", "input_", "chunks", "end"), STREAMED)
async def test_what_a_generator_yields_is_streamed(
    real: Shared, kind: str, input_: dict[str, Any], chunks: list[Any], end: dict[str, Any]
) -> None:
    """With return_aggregate_stream it is the output as well; without, the output is an empty list."""
    async with real.client(kind) as client:
        job_id = await client.run(input_)
        assert await ended(client, job_id) == end
        assert (await client.call("GET", f"stream/{job_id}")).body == {
            "status": end["status"],
            "stream": [{"output": value} for value in chunks],
        }


@pytest.mark.parametrize("kind", ["stream", "aggregate"])
async def test_what_a_generator_raises_fails_its_job_in_plain_text(real: Shared, kind: str) -> None:
    """Unlike a function's: no JSON, and no output."""
    async with real.client(kind) as client:
        end = await ended(client, await client.run({"yield": [1], "raise": "no good"}))
        assert end["status"] == "FAILED"
        assert end["error"].startswith("handler: no good \ntraceback: Traceback (most recent call last):\n")
        assert "output" not in end


async def test_a_concurrency_modifier_gets_jobs_in_batches(real: Shared, tmp_path: Path) -> None:
    """Four jobs that wait for one another are four at the same time on one worker."""
    async with real.client("plain") as client:
        jobs = [await client.run({"then": "together", "count": 4, "return": n}) for n in range(4)]
        assert [await ended(client, job_id) for job_id in jobs] == [completed(n) for n in range(4)]
        assert len({(await client.status(job_id))["workerId"] for job_id in jobs}) == 1


async def test_an_async_job_is_stopped_alone(real: Shared, tmp_path: Path) -> None:
    """By the stop channel: its worker goes on with its other jobs, under the same id."""
    async with real.client("plain") as client:
        files = [tmp_path / name for name in ("cancelled", "timed out")]
        cancelled = await client.run({"then": "sleep", "file": str(files[0])})
        timed_out = await client.run({"then": "sleep", "file": str(files[1])}, executionTimeout=1500)
        other = await client.run({"then": "until", "file": str(tmp_path / "open"), "return": "over"})
        await eventually(lambda: all(file.exists() and file.read_text() for file in files), LIMIT_S)
        assert (await client.call("POST", f"cancel/{cancelled}")).body["status"] == "CANCELLED"
        assert await ended(client, timed_out) == failed(GAVE_UP, retries=1)
        await eventually(lambda: [file.read_text() for file in files] == ["cancelled"] * 2, LIMIT_S)
        (tmp_path / "open").touch()
        assert await ended(client, other) == completed("over")
        workers = {(await client.status(job_id))["workerId"] for job_id in (cancelled, timed_out, other)}
        assert len(workers) == 1


async def test_an_async_job_that_will_not_stop_is_ended_with_its_worker(real: Shared, tmp_path: Path) -> None:
    """It swallows the cancellation, and its worker's pings still name it; the job beside it is run again."""
    async with real.client("plain") as client:
        job_id = await client.run({"then": "ignore", "file": str(tmp_path / "pid")})
        other = await client.run({"then": "until", "file": str(tmp_path / "open"), "return": "over"})
        await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), LIMIT_S)
        await client.until_status(other, "IN_PROGRESS")
        pid = int((tmp_path / "pid").read_text())
        await client.call("POST", f"cancel/{job_id}")
        await eventually(lambda: not is_alive(pid), LIMIT_S)
        (tmp_path / "open").touch()
        assert await ended(client, other) == completed("over") | {"retries": 1}


async def test_a_function_that_runs_for_too_long_is_ended_with_its_worker(real: Shared, tmp_path: Path) -> None:
    """It blocks its worker, which hears of nothing; the next worker serves the queue."""
    async with real.client("refresh") as client:
        job_id = await client.run({"block": str(tmp_path / "pid")}, executionTimeout=1000)
        after = await client.run({"return": "next"})
        assert await ended(client, job_id) == failed(GAVE_UP, retries=1)
        pid = int((tmp_path / "pid").read_text())
        await eventually(lambda: not is_alive(pid), LIMIT_S)
        assert await ended(client, after) == completed("next")


@pytest.mark.parametrize(
    ("kind", "input_"),
    [("plain", {"return": {"refresh_worker": True, "a": 1}}), ("refresh", {"return": {"a": 1}})],
    ids=["returned", "configured"],
)
async def test_a_worker_that_asks_for_it_is_started_afresh(real: Shared, kind: str, input_: dict[str, Any]) -> None:
    """The real one posts its wish with the result; one that returned it does not exit by itself."""
    async with real.client(kind) as client:
        first = await client.run(input_)
        assert await ended(client, first) == completed({"a": 1})
        second = await client.run({"return": 2})
        assert await ended(client, second) == completed(2)
        statuses = [await client.status(job_id) for job_id in (first, second)]
        assert statuses[0]["workerId"] != statuses[1]["workerId"]
        assert "retries" not in statuses[1]


async def test_a_worker_that_is_killed_leaves_nothing_and_costs_its_job_a_retry(real: Shared, tmp_path: Path) -> None:
    """Its process for pings would live on, and claim that all is well."""
    async with real.client("plain") as client:
        job_id = await client.run({"then": "sleep", "file": str(tmp_path / "pid")})
        await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), LIMIT_S)
        pid = int((tmp_path / "pid").read_text())
        children = [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        assert children
        (tmp_path / "pid").unlink()
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not any(map(is_alive, children)), LIMIT_S)
        await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), LIMIT_S)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        assert await ended(client, job_id) == failed(GAVE_UP, retries=1)
