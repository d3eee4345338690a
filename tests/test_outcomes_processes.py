"""Outcomes as users meet them: real handlers on the embedded endpoint, real processes, exit codes."""

import asyncio
import json
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from result_lines import MODES, Line, completed, jobs, line_of, operation
from scripted import KEY, SILENT, Script, ScriptedRunPod, chunks, job, says, under_way, write_job_file
from terminal import finish, lines, runner, serving, start, wait_until, write

from runner.batch import Folder

HANDLER = """
import os, time
from pathlib import Path

def handler(job):
    given = job["input"]
    what = given["do"]
    if what in ("words", "break", "once"):
        return words(what, given)
    if what == "hang":
        Path(given["mark"]).touch()
        time.sleep(600)
    if what == "raise":
        raise ValueError("no horse")
    if what == "exit":
        os._exit(3)
    return {"echo": {"a": 1}, "null": None, "nothing": {}, "list": ["x"], "error": {"error": "no horse"}}[what]

def words(what, given):
    yield "a"
    if what == "break":
        raise ValueError("no words")
    if what == "once" and not os.path.exists(given["mark"]):
        Path(given["mark"]).touch()
        os._exit(3)
    yield "b"
"""

DOES = ["echo", "null", "nothing", "list", "error", "raise", "exit", "hang", "words", "break", "once"]

GAVE_UP = "job timed out after 1 retries"

PLAIN: dict[str, tuple[Any, ...]] = {
    "echo": ("completed", {"a": 1}, None),
    "null": ("completed", None, None),
    "nothing": ("completed_without_output", "none", "RunPod says COMPLETED and gives no output"),
    "list": ("completed", ["x"], None),
    "error": ("failed", "none", "no horse"),
    "raise": ("failed", "none", "no horse"),
    "exit": ("crashed", "none", GAVE_UP),
    "hang": ("timed_out", "none", GAVE_UP),
    "words": ("completed", ["a", "b"], None),
    "break": ("failed", "none", "no words"),
    "once": ("completed", ["a", "b"], None),
}
"""What comes of each, in modes async and sync: outcome, output, message."""

STREAMED = PLAIN | {"break": ("failed", ["a"], "no words")}
"""The same in mode stream, where RunPod aggregates what generators yield."""

UNAGGREGATED = STREAMED | {
    "once": ("incomplete", ["a", "b"], "chunks of the stream may be missing; those that came are kept")
}
"""The same where it does not: what a job yields that ran twice can't be told apart."""


def test_a_real_handler_comes_to_the_same_in_every_mode(tmp_path: Path) -> None:
    """Who tries a handler here must meet on RunPod what they met here, whichever mode they choose."""
    local = {"handler": "handler.py:handler", "workers": 4}
    endpoints = {"local": local, "bare": local | {"return_aggregate_stream": False}}
    common: dict[str, Any] = {"endpoint": "local", "policy": {"execution_timeout": "1500ms"}}
    given = {
        name: {**common, **keys, "rows": {"inline": [{"do": what} for what in DOES]}}
        | {"input": {"do": "{{ row.do }}", "mark": f"{tmp_path}/{name}-{{{{ row.do }}}}"}}
        for name, keys in {**jobs({}), "bare": {"mode": "stream", "endpoint": "bare"}}.items()
    }
    text = json.dumps({"version": 1, "name": "t", "endpoints": endpoints, "jobs": given})
    write(tmp_path, {"handler.py": HANDLER, "job.yaml": text})
    ran = runner("run", "job.yaml", "--format", "json", cwd=tmp_path)
    assert (ran.code, ran.json["verdict"], ran.err) == (1, "fail", "")

    batch = latest(tmp_path)
    found: dict[str, dict[str, Any]] = {name: {} for name in given}
    for line in lines(batch.results):
        message = line["error"] and line["error"]["message"]
        found[line["job"]][line["row"]["do"]] = (line["outcome"], line.get("output", "none"), message)
        assert (line["state"] == "succeeded") == (line["outcome"] == "completed")
        assert line["attempts"] == 1
    outcome, once, message = found["bare"]["once"]
    assert once in (["a", "b"], ["a", "a", "b"])  # before it died the first one may have been read of, or not
    found["bare"]["once"] = (outcome, once[-2:], message)
    assert found == {"async": PLAIN, "sync": PLAIN, "stream": STREAMED, "bare": UNAGGREGATED}
    for name, told in ran.json["jobs"].items():
        assert told["runs"] == sum(told["outcomes"].values()) == len(DOES), name
    streams = {path.name for path in (batch.path / "streams").iterdir()}
    yielding = [
        one for one in lines(batch.results) if one["job"] in ("stream", "bare") and one["row"]["do"] in DOES[-3:]
    ]
    assert streams == {f"{one['key']}.1.jsonl" for one in yielding}


def latest(folder: Path) -> Folder:
    """The newest batch."""
    return Folder((folder / "batches" / "t" / "latest").resolve())


def test_a_job_that_somebody_else_cancels_is_cancelled(tmp_path: Path) -> None:
    """Somebody pressed the button in RunPod's console: it is no failure of the handler's, and no success."""
    given = {
        name: {"endpoint": "local", "input": {"do": "hang", "mark": f"{tmp_path}/{name}"}} | keys
        for name, keys in jobs({}).items()
    }
    endpoints = {"local": {"handler": "handler.py:handler", "workers": 3}}
    text = json.dumps({"version": 1, "name": "t", "endpoints": endpoints, "jobs": given})
    write(tmp_path, {"handler.py": HANDLER, "job.yaml": text})
    with serving(tmp_path / "job.yaml") as server:
        process = start("run", "job.yaml", "--local", server.url, cwd=tmp_path, env=server.env)
        wait_until(lambda: all((tmp_path / mode).exists() for mode in MODES), "the handlers to run")
        for event in server.events("accepted"):
            headers = {"Authorization": f"Bearer {server.token}"}
            with urlopen(Request(f"{server.url}/local/cancel/{event['job_id']}", b"{}", headers)):
                pass
        ran = finish(process)
    assert ran.code == 1, ran.err
    message = "RunPod says CANCELLED and gives no error"
    assert [line_of(line) for line in lines(latest(tmp_path).results)] == [
        Line("cancelled", "cancelled", "CANCELLED", message=message, job_id=line["job_id"])
        for line in lines(latest(tmp_path).results)
    ]


FAILED = {"status/job-1": says(job("FAILED", error="no horse"))}
UNAUTHORIZED = says({"error": "unauthorized"}, "401 X")


@pytest.mark.parametrize(
    ("script", "keys", "code", "verdict", "told"),
    [
        pytest.param({}, {}, 0, "pass", [], id="all runs succeed"),
        pytest.param(FAILED, {}, 1, "fail", ["  1 of 4 runs did not succeed"], id="a run fails"),
        pytest.param(
            {"run": says({}, "500 X")},
            {},
            1,
            "fail",
            ["  3 x POST /run of endpoint 'it': HTTP 500: {}; the job may exist and be paid for"],
            id="an answer is lost",
        ),
        pytest.param(FAILED, {"stop_when": {"failed": 1}}, 1, "stopped", ["1 failed, 2 skipped"], id="stop_when stops"),
        pytest.param(
            {"run": UNAUTHORIZED},
            {},
            4,
            "refused",
            ["error: endpoint 'it' refused: POST /run of endpoint 'it': HTTP 401", "  go on with --resume"],
            id="the endpoint refuses",
        ),
    ],
)
async def test_the_exit_code_is_all_that_cron_sees(
    script: Script, keys: Mapping[str, Any], code: int, verdict: str, told: Sequence[str], tmp_path: Path
) -> None:
    """Quiet when all is well; otherwise the reason on stderr, and never a traceback."""
    rows = {"rows": {"inline": [{"n": 1}, {"n": 2}, {"n": 3}]}, "concurrency": 1}
    async with ScriptedRunPod({"it": script}) as server:
        path = write_job_file(tmp_path, server, {"it": {**rows, **keys}})
        ran = await asyncio.to_thread(runner, "run", path, "--quiet", cwd=tmp_path, env={"RUNPOD_API_KEY": KEY})
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert json.loads(latest(tmp_path).health.read_bytes())["verdict"] == verdict
    assert [text for text in told if text not in ran.err] == [], ran.err
    assert "Traceback" not in ran.err
    assert ran.err if told else not ran.err


async def test_a_kill_while_a_first_look_is_out_costs_nothing_in_any_mode(tmp_path: Path) -> None:
    """Not even with /runsync, whose answer alone has the id: it is on disk before the job is looked at."""
    scripts: dict[str, Script] = {
        "async": {"status": [SILENT, says(job("COMPLETED", output=["a"]))]},
        "sync": {"runsync": says(job("IN_PROGRESS")), "status": [SILENT, says(job("COMPLETED", output=["a"]))]},
        "stream": {"stream": [SILENT, chunks("COMPLETED")], "status": says(job("COMPLETED", output=["a"]))},
    }
    env = {"RUNPOD_API_KEY": KEY}
    async with ScriptedRunPod(scripts) as server:
        path = write_job_file(tmp_path, server, jobs({}))
        process = start("run", path, cwd=tmp_path, env=env)
        for mode, look in [("async", "status-sync"), ("sync", "status-sync"), ("stream", "stream")]:
            await server.until_asked(look, mode)
        await asyncio.to_thread(wait_until, lambda: under_way(tmp_path) == dict.fromkeys(MODES, "job-1"), "the ids")
        process.send_signal(signal.SIGKILL)
        finish(process)
        ran = await asyncio.to_thread(runner, "run", path, "--resume", cwd=tmp_path, env=env)
        assert [server.count(operation(mode), mode) for mode in MODES] == [1, 1, 1]
    assert ran.code == 0, ran.err
    found = {line["job"]: line_of(line) for line in lines(latest(tmp_path).results)}
    assert found == {**dict.fromkeys(MODES, completed(["a"])), "neighbour": completed("ok")}
