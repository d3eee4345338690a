"""Programs as workers: any that speaks the worker protocol, here our own worker, started as if it were foreign."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from serving import SAMPLES, TOKEN, Answer, Client, eventually, is_alive, marked_processes

from runner.errors import UsageError
from runner.local import processes
from runner.local.broken import HandlerError
from runner.local.server import LocalServer, Served


def worker(name: str) -> list[str]:
    """The command of a worker that runs a function of sample_handlers.py."""
    return [sys.executable, "-P", "-m", "runner.local.worker", f"{SAMPLES}:{name}"]


@asynccontextmanager
async def commanding(
    command: Sequence[str] | None, *, folder: Path | None = None, workers: int = 1, **options: Any
) -> AsyncIterator[Client]:
    """Serve one command as endpoint ``ep``; None for workers that others start."""
    lines: list[str] = []
    served = Served("ep", None, workers, command=command, folder=folder)
    async with (
        LocalServer([served], token=TOKEN, on_output=lambda worker, line: lines.append(line), **options) as server,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
    ):
        yield Client(server, session, lines=lines)


async def as_worker(client: Client, method: str, path: str, **options: Any) -> Answer:
    """One request of a worker, with the bare key."""
    key = client.server.variables(client.endpoint, "w")["RUNPOD_AI_API_KEY"]
    return await client.call(method, path, token=key, **options)


# How a command is started.


async def test_a_command_starts_in_its_folder_with_what_runpod_gives_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with our own environment, for CUDA_VISIBLE_DEVICES and the like, but without what is secret."""
    monkeypatch.setenv("RUNPOD_API_KEY", "secret-1")
    monkeypatch.setenv("OTHER_KEY", "secret-2")
    monkeypatch.setenv("MY_TOKEN", f"Bearer {TOKEN}")
    monkeypatch.setenv("RUNPOD_REALTIME_PORT", "80")
    monkeypatch.setenv("RUNPOD_WEBHOOK_OF_OUR_OWN_POD", "x")
    monkeypatch.setenv("RUNPOD_DEBUG_LEVEL", "DEBUG")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    async with commanding(worker("environment"), folder=tmp_path, hide_env=["OTHER_KEY"]) as client:
        given = (await client.result())["output"]
        environ = given["environ"]
        url = f"{client.server.base_url}/ep"
        assert given["cwd"] == str(tmp_path)
        assert environ["HOME"] not in (os.environ["HOME"], "")
        assert environ["CUDA_VISIBLE_DEVICES"] == "1"
        assert environ["PYTHONUNBUFFERED"] == "1"
        assert {key: value for key, value in environ.items() if key.startswith("RUNPOD_")} == {
            "RUNPOD_WEBHOOK_GET_JOB": f"{url}/job-take/$ID?gpu=LOCAL",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{url}/job-done/$RUNPOD_POD_ID/$ID?gpu=LOCAL",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{url}/job-stream/$RUNPOD_POD_ID/$ID?gpu=LOCAL",
            "RUNPOD_WEBHOOK_PING": f"{url}/ping/$RUNPOD_POD_ID?gpu=LOCAL",
            "RUNPOD_PING_INTERVAL": "10000",
            "RUNPOD_POD_ID": "ep-w1-1",
            "RUNPOD_POD_HOSTNAME": "ep-w1-1",
            "RUNPOD_ENDPOINT_ID": "ep",
            "RUNPOD_AI_API_KEY": environ["RUNPOD_AI_API_KEY"],
            "RUNPOD_DEBUG_LEVEL": "DEBUG",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }
        assert not [key for key, value in environ.items() if "secret" in value or TOKEN in value]


@pytest.mark.parametrize("program", ["a-worker", "bin/a-worker", "./bin/a-worker"])
async def test_a_program_is_found_on_path_or_from_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """As a shell in that folder would find it."""
    script = tmp_path / "bin" / "a-worker"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.join(worker("echo"))} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    async with commanding([program], folder=tmp_path) as client:
        assert (await client.result("hello"))["output"] == "hello"


STARTS = [
    (["sh", "-c", "echo no good >&2; exit 3"], "exited with code 3 before it was ready; its last words: no good", None),
    (["sh", "-c", "kill -9 $$"], "was killed by signal 9 before it was ready", None),
    (
        ["true"],
        "exited with code 0 before it was ready",
        "a worker goes on asking for jobs until it is ended, as runpod.serverless.start does",
    ),
    (
        ["no-such-program", "x"],
        "exited with code 127 before it was ready; its last words: can't start 'no-such-program': "
        "[Errno 2] No such file or directory",
        None,
    ),
    (
        ["sleep", "600"],
        "was not ready after 0.5s",
        "look for what it does before its first job: a download, a large model, an endless loop",
    ),
]


@pytest.mark.parametrize(("command", "what", "fix"), STARTS, ids=lambda value: value[0] if value else "")
async def test_a_command_that_becomes_no_worker_is_an_error(command: list[str], what: str, fix: str | None) -> None:
    """Before anything is accepted."""
    with pytest.raises(HandlerError) as caught:
        async with commanding(command, start_limit_s=0.5 if command[0] == "sleep" else 30.0):
            raise AssertionError("it started")
    assert (caught.value.message, caught.value.fix) == (f"the worker '{shlex.join(command)}' {what}", fix)


async def test_a_worker_that_calls_itself_unhealthy_is_an_error(tmp_path: Path) -> None:
    """A real one does so once, when its own checks fail, and exits."""
    script = (
        "import os, urllib.request as r\n"
        "url = os.environ['RUNPOD_WEBHOOK_PING'].replace('$RUNPOD_POD_ID', os.environ['RUNPOD_POD_ID'])\n"
        "url += '&status=unhealthy&check=_memory_check&reason=2+GB+free'\n"
        "r.urlopen(r.Request(url, headers={'Authorization': os.environ['RUNPOD_AI_API_KEY']}))\n"
        "raise SystemExit(1)\n"
    )
    (tmp_path / "sick.py").write_text(script)
    with pytest.raises(HandlerError) as caught:
        async with commanding([sys.executable, "sick.py"], folder=tmp_path):
            raise AssertionError("it started")
    said = f"the worker '{sys.executable} sick.py' calls itself unhealthy: _memory_check: 2 GB free"
    assert caught.value.message == said


async def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """Or workers would start in whatever folder we are in."""
    with pytest.raises(HandlerError, match=r"^the worker 'true' can't be started: .*No such file or directory"):
        async with commanding(["true"], folder=tmp_path / "gone"):
            raise AssertionError("it started")


async def test_an_endpoint_has_one_kind_of_workers() -> None:
    """Which would it run?"""
    with pytest.raises(UsageError, match=r"^endpoint 'ep' has a handler and a command$"):
        LocalServer([Served("ep", "/x.py:f", command=["true"])], token=TOKEN)


# How it is kept running.


async def test_a_command_is_restarted_and_ended_like_any_worker(tmp_path: Path) -> None:
    """Killed, exiting by itself, too slow: each job ends as on RunPod, and the next one runs."""
    async with commanding(worker("dies"), workers=2, grace_s=0.1) as client:
        jobs = [await client.run(input_) for input_ in ("before", "exit", "kill", "after")]
        ends = [await client.end(job_id) for job_id in jobs]
        assert [end["status"] for end in ends] == ["COMPLETED", "FAILED", "FAILED", "COMPLETED"]
        assert {end.get("error") for end in ends} == {None, "job timed out after 1 retries"}


async def test_a_shell_that_starts_the_worker_is_ended_with_it(tmp_path: Path) -> None:
    """What ends is everything that the command started, not its first process only."""
    command = ["sh", "-c", f"{shlex.join(worker('stubborn'))}; true"]
    async with commanding(command, grace_s=0.1) as client:
        job_id = await client.run(str(tmp_path / "pid"), executionTimeout=400)
        assert (await client.end(job_id))["status"] == "FAILED"
        await eventually(lambda: not is_alive(int((tmp_path / "pid").read_text())))
        assert (await client.result("ok"))["output"] == "ok"
        mark = client.server.environment("ep", "", "/")[processes.MARK]
    assert not marked_processes(f"{processes.MARK}={mark}")


async def test_a_worker_that_can_t_live_is_unhealthy_while_it_tries_again(tmp_path: Path) -> None:
    """Not only while it waits for the next try: it may take minutes to fail."""
    (tmp_path / "start.sh").write_text(f"test -e broken && sleep 1 && exit 1\nexec {shlex.join(worker('dies'))}\n")
    async with commanding(["sh", "start.sh"], folder=tmp_path) as client:
        (tmp_path / "broken").touch()
        await client.run("exit")

        async def is_unhealthy() -> bool:
            return (await client.health("workers"))["unhealthy"] == 1

        await eventually(is_unhealthy)
        for _ in range(60):
            await asyncio.sleep(0.01)
            counts = await client.health("workers")
            assert (counts["unhealthy"], counts["initializing"], counts["idle"]) == (1, 0, 0)
        (tmp_path / "broken").unlink()
        assert (await client.result("after"))["output"] == "after"


# Workers that others start.


async def test_workers_of_others_are_given_no_home_and_no_mark() -> None:
    """They have a home of their own, and are not ours to find."""
    async with commanding(None) as client:
        variables = client.server.variables("ep", "w7")
        assert variables["RUNPOD_POD_ID"] == "w7"
        assert [key for key in variables if not key.startswith("RUNPOD_")] == []
        assert await client.health("workers") == dict.fromkeys(
            ("idle", "initializing", "ready", "running", "throttled", "unhealthy"), 0
        )


async def test_a_worker_of_others_that_is_killed_loses_its_job_to_the_next(tmp_path: Path) -> None:
    """Nobody tells; its lease ends. Here the lease is short, and nobody pings."""
    async with commanding(None, lease_s=1.5) as client:
        job_id = await client.run(str(tmp_path / "gate"))
        first = await asyncio.create_subprocess_exec(*worker("gate"), env=_environment(client, "w1"))
        await client.until_status(job_id, "IN_PROGRESS")
        first.kill()
        await first.wait()
        second = await asyncio.create_subprocess_exec(*worker("gate"), env=_environment(client, "w2"))
        (tmp_path / "gate").touch()
        end = await client.end(job_id)
        assert (end["status"], end["workerId"], end["retries"]) == ("COMPLETED", "w2", 1)
        second.kill()
        await second.wait()


def _environment(client: Client, worker_id: str) -> dict[str, str]:
    return {**os.environ, **client.server.variables("ep", worker_id)}


async def test_pings_tell_which_jobs_a_worker_has() -> None:
    """As a real worker sends them, ids separated by commas, none when it is idle."""
    async with commanding(None) as client:
        assert (await as_worker(client, "GET", "ping/w1?gpu=X&runpod_version=1.12.0")).status == 200
        assert (await client.health("workers"))["initializing"] == 1
        jobs = [await client.run(), await client.run()]
        await as_worker(client, "GET", "job-take-batch/w1?gpu=X&batch_size=2&job_in_progress=0")
        await as_worker(client, "GET", f"ping/w1?gpu=X&job_id={'%2C'.join(jobs)}&runpod_version=1.12.0")
        assert (await client.health("workers"))["running"] == 1
        await as_worker(client, "GET", f"ping/w1?gpu=X&job_id={jobs[0]}&runpod_version=1.12.0")
        ends = [await client.status(job_id) for job_id in jobs]
        assert [(end["status"], end.get("retries")) for end in ends] == [("IN_PROGRESS", None), ("IN_QUEUE", 1)]


@pytest.mark.parametrize("end", ["stop", "cancel"])
async def test_held_requests_of_workers_are_answered_204_when_the_server_ends(end: str) -> None:
    """A real worker does not exit before its polls return; and what it posts until then is taken."""
    entered: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def serve() -> None:
        # A worker that ignores SIGTERM keeps the server, while it ends, until SIGKILL.
        stubborn = ["sh", "-c", f"trap '' TERM; {shlex.join(worker('echo'))}"]
        served = [Served("ep", None), Served("slow", None, command=stubborn)]
        async with (
            aiohttp.ClientSession() as session,
            LocalServer(served, token=TOKEN, grace_s=1.0) as server,
        ):
            entered.set_result(Client(server, session))
            await leave.wait()
            if end == "cancel":
                raise asyncio.CancelledError

    task = asyncio.ensure_future(serve())
    client = await entered
    job_id = await client.run()
    await as_worker(client, "GET", "job-take/w1?gpu=X&job_in_progress=0")
    held = [
        asyncio.ensure_future(as_worker(client, "GET", path))
        for path in ("job-stop/w1?gpu=X", "job-take/w2?gpu=X&job_in_progress=0")
    ]

    async def is_waiting() -> bool:
        return (await client.health("workers"))["idle"] == 1

    await eventually(is_waiting)
    leave.set()
    assert [(await answer).status for answer in held] == [204, 204]
    assert (await as_worker(client, "POST", f"job-done/w1/{job_id}?gpu=X", data=b'{"output":1}')).status == 200
    assert (await as_worker(client, "GET", "job-take/w1?gpu=X&job_in_progress=0")).status == 204
    assert (await client.call("GET", f"status/{job_id}")).status == 503
    await asyncio.wait([task])


async def test_a_server_without_workers_of_its_own_answers_held_requests_too() -> None:
    """It has nobody to wait for, and ends at once."""
    async with commanding(None) as client:
        held = asyncio.ensure_future(as_worker(client, "GET", "job-take/w1?gpu=X&job_in_progress=0"))

        async def is_waiting() -> bool:
            return (await client.health("workers"))["idle"] == 1

        await eventually(is_waiting)
        # The server ends before the session does.
        await client.server.__aexit__(None, None, None)
        assert (await held).status == 204


async def test_a_worker_of_an_earlier_server_is_held_before_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the wrong key, and would ask thousands of times a second."""
    monkeypatch.setattr("runner.local.worker_api.REFUSAL_HOLD_S", 0.2)
    async with commanding(None) as client:
        began = asyncio.get_running_loop().time()
        answer = await client.call("GET", "job-take/w1?gpu=X&job_in_progress=0", token="of-an-earlier-server")
        assert answer.status == 401
        assert asyncio.get_running_loop().time() - began >= 0.19


async def test_whatever_a_worker_posts_is_answered_below_500() -> None:
    """A 5xx is tried three times, with seconds in between; so a job that is unknown, or over, is no error."""
    async with commanding(None) as client:
        job_id = await client.run()
        await as_worker(client, "GET", "job-take/w1?gpu=X&job_in_progress=0")
        for path in (f"job-done/w1/{job_id}", "job-done/w1/unknown", f"job-done/w2/{job_id}", "job-stream/w1/unknown"):
            for body in (b'{"output": 1}', b"{}", b'{"output": 1'):
                answer = await as_worker(client, "POST", f"{path}?gpu=X&isStream=false", data=body)
                assert answer.status == (200 if body.endswith(b"}") else 400)


async def test_the_end_of_a_server_ends_a_command_with_sigterm_first(tmp_path: Path) -> None:
    """It may want to clean up."""
    script = f"trap 'echo ended > {tmp_path}/said; exit 0' TERM\n{shlex.join(worker('echo'))} &\nwait\n"
    async with commanding(["sh", "-c", script]) as client:
        assert (await client.result("x"))["output"] == "x"
    assert (tmp_path / "said").read_text() == "ended\n"


async def test_a_real_signal_to_a_worker_is_answered_by_a_new_one() -> None:
    """SIGTERM from outside, as an operator would send it."""
    async with commanding(worker("dies")) as client:
        first = await client.result("a")
        mark = client.server.environment("ep", first["workerId"], "/")[processes.MARK]
        pids = marked_processes(f"{processes.MARK}={mark}")
        (started,) = (pid for pid in pids if b"runner.local.launcher" not in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(started, signal.SIGTERM)
        await eventually(lambda: not any(map(is_alive, pids)))
        second = await client.result("b")
        assert (second["output"], second["workerId"]) == ("b", "ep-w1-2")
