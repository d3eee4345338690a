import asyncio
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from serving import Client, eventually, is_alive, marked_processes, sample, serving

from runner.local import processes

GAVE_UP = "job timed out after 1 retries"


@pytest.mark.parametrize("how", ["exit", "kill", "launcher"])
async def test_a_job_that_kills_its_worker_is_tried_again_then_fails_alone(how: str) -> None:
    """The platform's answer, after one retry; the jobs around it complete."""
    async with serving(sample("dies")) as client:
        jobs = [await client.run(input_) for input_ in ("before", how, "after")]
        before, bad, after = [await client.end(job_id) for job_id in jobs]
        assert (before["output"], after["output"]) == ("before", "after")
        assert (bad["status"], bad["error"], bad["retries"]) == ("FAILED", GAVE_UP, 1)
        assert "output" not in bad
        assert len({before["workerId"], bad["workerId"], after["workerId"]}) == 3
        assert await client.health("jobs") == {
            "completed": 2,
            "failed": 1,
            "inProgress": 0,
            "inQueue": 0,
            "retried": 1,
        }


async def test_a_worker_that_is_killed_from_outside_costs_its_job_a_retry_only(tmp_path: Path) -> None:
    """kill -9 of a worker, like an out-of-memory killer: the job is run again and completes."""
    async with serving(sample("gate")) as client:
        job_id = await client.run(str(tmp_path / "gate"))
        await client.until_status(job_id, "IN_PROGRESS")
        first = (await client.status(job_id))["workerId"]
        mark = client.server.environment("ep", first, "/")[processes.MARK]
        (worker,) = (pid for pid in marked_processes(f"{processes.MARK}={mark}") if _is_worker(pid))
        os.kill(worker, signal.SIGKILL)
        (tmp_path / "gate").touch()
        end = await client.end(job_id)
        assert (end["status"], end["retries"]) == ("COMPLETED", 1)
        assert end["workerId"] != first


def _is_worker(pid: int) -> bool:
    return b"runner.local.worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:5]


@pytest.mark.parametrize("end", ["executionTimeout", "cancel", "ttl"])
async def test_a_job_that_can_t_be_asked_is_ended_with_its_worker(tmp_path: Path, end: str) -> None:
    """It ignores signals and catches everything; its worker is killed, and the next one serves the queue."""
    async with serving(sample("stubborn"), grace_s=0.1) as client:
        file = tmp_path / "pid"
        policy: dict[str, Any] = {} if end == "cancel" else {end: 400}
        job_id = await client.run(str(file), **policy)
        next_job = await client.run("ok")
        await eventually(lambda: file.exists() and file.read_text())
        pid = int(file.read_text())
        if end == "cancel":
            assert (await client.call("POST", f"cancel/{job_id}")).body["status"] == "CANCELLED"
        assert (await client.end(next_job))["output"] == "ok"
        await eventually(lambda: not is_alive(pid))
        answer = await client.call("GET", f"status/{job_id}")
        if end == "ttl":
            assert answer.status == 404
        elif end == "cancel":
            assert answer.body["status"] == "CANCELLED"
        else:
            assert (answer.body["status"], answer.body["error"], answer.body["retries"]) == ("FAILED", GAVE_UP, 1)
            assert answer.body["executionTime"] >= 400


async def test_ending_one_worker_leaves_the_others_at_work(tmp_path: Path) -> None:
    """Each job has a process of its own."""
    async with serving(sample("gate"), workers=2) as client:
        bad, good = await client.run(str(tmp_path / "never")), await client.run(str(tmp_path / "gate"))
        for job_id in (bad, good):
            await client.until_status(job_id, "IN_PROGRESS")
        await client.call("POST", f"cancel/{bad}")
        (tmp_path / "gate").touch()
        end = await client.end(good)
        assert (end["status"], "retries" in end) == ("COMPLETED", False)


async def test_many_cancelled_jobs_cost_no_other_job_a_retry(tmp_path: Path) -> None:
    """A worker that is being ended gets no job that would die with it."""
    async with serving(sample("gate"), workers=2) as client:
        (tmp_path / "open").touch()
        jobs = []
        for _ in range(6):
            running = await client.run(str(tmp_path / "never"))
            jobs += [await client.run(str(tmp_path / "open")) for _ in range(3)]
            await client.until_status(running, "IN_PROGRESS")
            await client.call("POST", f"cancel/{running}")
        ends = [await client.end(job_id) for job_id in jobs]
        assert {end["status"] for end in ends} == {"COMPLETED"}
        assert (await client.health("jobs"))["retried"] == 0


async def test_a_worker_that_can_t_live_is_restarted_ever_more_slowly_and_counted(tmp_path: Path) -> None:
    """A crash loop must not eat the machine, and is visible; when it is mended, the queue is served."""
    starts, broken = tmp_path / "starts", tmp_path / "broken"
    path = tmp_path / "handler.py"
    path.write_text(
        "import os, pathlib\n"
        f"with open({str(starts)!r}, 'a') as file: file.write('x')\n"
        f"if pathlib.Path({str(broken)!r}).exists(): os._exit(1)\n"
        "def handler(job):\n"
        "    if job['input'] == 'exit': os._exit(1)\n"
        "    return 'ok'\n"
    )
    async with serving(f"{path}:handler") as client:
        broken.touch()
        job_id = await client.run("exit")
        after = await client.run("x")

        async def is_unhealthy() -> bool:
            return (await client.health("workers"))["unhealthy"] == 1

        await eventually(is_unhealthy)
        assert (await client.health("workers"))["idle"] == 0
        broken.unlink()
        assert (await client.end(after))["output"] == "ok"
        assert (await client.end(job_id))["error"] == GAVE_UP
        assert len(starts.read_text()) <= 8


async def test_workers_are_counted_through_their_life(tmp_path: Path) -> None:
    """Initializing until the first take, then idle or running."""
    async with serving(sample("gate"), workers=3) as client:

        async def all_ready() -> bool:
            return (await client.health("workers"))["idle"] == 3

        await eventually(all_ready)
        job_id = await client.run(str(tmp_path / "gate"))
        await client.until_status(job_id, "IN_PROGRESS")
        assert await client.health("workers") == {
            "idle": 2,
            "initializing": 0,
            "ready": 2,
            "running": 1,
            "throttled": 0,
            "unhealthy": 0,
        }
        (tmp_path / "gate").touch()
        await client.end(job_id)
        await eventually(all_ready)


@pytest.mark.parametrize("how", ["return", "raise"])
async def test_a_forked_child_does_not_answer_for_its_parent(how: str) -> None:
    """Its copy of the worker ends where the handler ends; the parent's result counts."""
    async with serving(sample("forks")) as client:
        for _ in range(3):
            end = await client.result(how)
            assert end["status"] == "COMPLETED"
            child = end["output"]["child"]
            assert child > 0
            await eventually(partial(_is_gone, child))


def _is_gone(pid: int) -> bool:
    return not is_alive(pid)


async def test_what_a_worker_started_ends_with_it(tmp_path: Path) -> None:
    """A child, and a daemon that left its session and ignores SIGTERM; also when the worker ended by itself."""
    async with serving(sample("leaves_family"), grace_s=0.1) as client:
        pids = (await client.result())["output"]
        assert all(map(is_alive, pids))
        hanging = await client.run(str(tmp_path / "family"))
        await client.until_status(hanging, "IN_PROGRESS")
        await eventually(lambda: (tmp_path / "family").exists() and (tmp_path / "family").read_text())
        pids += [int(text) for text in (tmp_path / "family").read_text().split()]
        await client.call("POST", f"cancel/{hanging}")
        await eventually(lambda: not any(map(is_alive, pids)))


async def test_what_an_exiting_worker_leaves_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher stays until the last of the family is gone."""
    family = tmp_path / "family"
    monkeypatch.setenv("FAMILY_FILE", str(family))
    async with serving(sample("leaves_family"), grace_s=0.1) as client:
        assert (await client.result("exit"))["error"] == GAVE_UP
        await eventually(lambda: not any(map(is_alive, map(int, family.read_text().split()))))


async def test_a_killed_launcher_leaves_nothing(tmp_path: Path) -> None:
    """The kernel kills its worker, and the server whatever else carries the worker's mark."""
    async with serving(sample("leaves_family")) as client:
        job_id = await client.run(str(tmp_path / "family"))
        await eventually(lambda: (tmp_path / "family").exists() and (tmp_path / "family").read_text())
        worker, launcher, *others = (int(text) for text in (tmp_path / "family").read_text().split())
        worker_id = (await client.status(job_id))["workerId"]
        os.kill(launcher, signal.SIGKILL)
        await eventually(lambda: not any(map(is_alive, [worker, launcher, *others])))
        mark = client.server.environment("ep", worker_id, "/")[processes.MARK]
        await eventually(lambda: not marked_processes(f"{processes.MARK}={mark}"))


async def test_a_refreshing_handler_gets_a_new_worker_for_each_job() -> None:
    """`refresh_worker` recycles the container on RunPod."""
    async with serving(sample("refreshes")) as client:
        first, second = await client.result(), await client.result()
        assert first["output"]["pid"] != second["output"]["pid"]
        assert first["workerId"] != second["workerId"]
        assert "retries" not in second


async def test_leaving_is_quick_and_leaves_nothing_though_workers_hang(tmp_path: Path) -> None:
    """Stubborn workers, under way and at start."""
    async with serving(sample("stubborn"), workers=4, grace_s=0.1) as client:
        files = [tmp_path / str(number) for number in range(2)]
        for file in files:
            await client.run(str(file))
        await eventually(lambda: all(file.exists() and file.read_text() for file in files))
        mark = client.server.environment("ep", "", "/")[processes.MARK]
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert not marked_processes(f"{processes.MARK}={mark}")


async def test_a_stopped_launcher_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can't hear that we leave; it is killed in time."""
    monkeypatch.setattr("runner.local.server._END_LIMIT_S", 0.2)
    async with serving(sample("echo")) as client:
        mark = client.server.environment("ep", "", "/")[processes.MARK]
        for pid in marked_processes(mark):
            if b"runner.local.launcher" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGSTOP)
    assert not marked_processes(f"{processes.MARK}={mark}")


async def test_cancelling_the_block_ends_everything() -> None:
    """Ctrl-C arrives as a cancellation."""
    marks: list[str] = []
    entered = asyncio.Event()

    async def block() -> None:
        async with serving(sample("echo")) as client:
            marks.append(client.server.environment("ep", "", "/")[processes.MARK])
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(block())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not marked_processes(f"{processes.MARK}={marks[0]}")


async def test_two_hundred_jobs_over_four_workers_all_complete_once() -> None:
    """Under load nothing is lost, doubled or mixed up."""
    async with serving(sample("echo"), workers=4) as client:
        jobs = [await client.run(number) for number in range(200)]
        outputs: list[Any] = [(await client.end(job_id))["output"] for job_id in jobs]
        assert outputs == list(range(200))
        assert await _completed(client) == 200


async def _completed(client: Client) -> int:
    return (await client.health("jobs"))["completed"]
