import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from serving import TOKEN, eventually, sample, serving

from runner.local import results
from runner.local.broken import HandlerError
from runner.local.lines import LINE_LIMIT_BYTES, Lines


async def test_a_handler_gets_the_job_as_a_dict_with_id_and_input() -> None:
    """That is what the SDK gives it."""
    async with serving(sample("whole_job")) as client:
        job_id = await client.run({"n": 1})
        assert (await client.end(job_id))["output"] == {"id": job_id, "input": {"n": 1}}


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("text", {"output": "text"}),
        (None, {"output": None}),
        (False, {"output": False}),
        (0, {"output": 0}),
        ([], {"output": []}),
        ([{"error": "in a list"}], {"output": [{"error": "in a list"}]}),
        (2**70, {"output": 2**70}),
        ({"a": 1}, {"output": {"a": 1}}),
        ({}, {}),
        ({"error": ""}, {}),
        ({"error": None, "a": 1}, {"output": {"a": 1}}),
        ({"error": "no", "a": 1}, {"output": {"a": 1}, "error": "no"}),
        ({"error": "no"}, {"error": "no"}),
        ({"error": {"code": 5}}, {"error": {"code": 5}}),
        ({"refresh_worker": True}, {"stopPod": True}),
        ({"refresh_worker": True, "a": 1}, {"output": {"a": 1}, "stopPod": True}),
        ({"refresh_worker": False, "a": 1}, {"output": {"a": 1}}),
        ({"output": 1}, {"output": {"output": 1}}),
    ],
    ids=str,
)
def test_what_a_handler_returns_becomes_the_body_that_the_sdk_posts(returned: Any, expected: dict[str, Any]) -> None:
    """Row by row as runpod 1.12.0 does it."""
    assert results.of_value(returned) == expected


async def test_returned_values_end_as_the_statuses_that_clients_know() -> None:
    """An `error` that is truthy makes it FAILED, nothing else does; {} is COMPLETED without output."""
    async with serving(sample("echo")) as client:
        expected: list[tuple[Any, dict[str, Any]]] = [
            ({"a": "é😀"}, {"status": "COMPLETED", "output": {"a": "é😀"}}),
            (None, {"status": "COMPLETED", "output": None}),
            ({}, {"status": "COMPLETED"}),
            ({"error": {"code": 5}, "a": 1}, {"status": "FAILED", "error": {"code": 5}, "output": {"a": 1}}),
            ({"error": "no"}, {"status": "FAILED", "error": "no"}),
            ([{"error": "no"}], {"status": "COMPLETED", "output": [{"error": "no"}]}),
        ]
        for input_, end in expected:
            assert _told(await client.result(input_)) == end


def _told(end: dict[str, Any]) -> dict[str, Any]:
    return {key: end[key] for key in ("status", "output", "error") if key in end}


async def test_whatever_a_handler_raises_fails_its_job_and_the_worker_lives() -> None:
    """The error is JSON in a string, with the SDK's keys."""
    raised = {
        "plain": ("<class 'ValueError'>", "no good: é"),
        "unprintable": ("Unprintable'>", "Unprintable (its text can't be shown: RuntimeError)"),
        "exit": ("<class 'SystemExit'>", "3"),
        "interrupt": ("<class 'KeyboardInterrupt'>", ""),
        "cancelled": ("<class 'asyncio.exceptions.CancelledError'>", ""),
    }
    keys = {"error_type", "error_message", "error_traceback", "hostname", "worker_id", "runpod_version"}
    async with serving(sample("raises")) as client:
        for how, (kind, message) in raised.items():
            end = await client.result(how)
            assert (end["status"], "output" in end, end["workerId"]) == ("FAILED", False, "ep-w1-1")
            error = json.loads(end["error"])
            assert set(error) == keys
            assert error["error_type"].endswith(kind)
            assert error["error_message"] == message
            assert "sample_handlers.py" in error["error_traceback"]
            assert error["worker_id"] == "ep-w1-1"


async def test_output_that_can_t_be_sent_fails_the_job_and_says_why() -> None:
    """Unlike the SDK's worker, which posts nothing and lets the job hang."""
    reasons = {
        "object": "is not JSON: Object of type object is not JSON serializable",
        "set": "is not JSON: Object of type set is not JSON serializable",
        "bytes": "is not JSON: Object of type bytes is not JSON serializable",
        "nan": "is not JSON: Out of range float values are not JSON compliant",
        "infinity": "is not JSON: Out of range float values are not JSON compliant",
        "tuple key": "is not JSON: keys must be str, int, float, bool or None, not tuple",
        "deep": "is not JSON: ",
        "huge": "is 22020109 bytes of JSON, and RunPod takes at most 20971520",
    }
    async with serving(sample("odd")) as client:
        for what, reason in reasons.items():
            end = await client.result(what)
            assert (end["status"], end["workerId"]) == ("FAILED", "ep-w1-1")
            assert end["error"].startswith(f"the handler's output {reason}")


async def test_odd_but_valid_output_comes_through() -> None:
    """Lone surrogates have no UTF-8, but JSON can escape them; big integers stay exact."""
    async with serving(sample("odd")) as client:
        for what, value in (("surrogate", "\ud800"), ("big", 2**70), ("none", None), ("list", [])):
            assert (await client.result(what))["output"] == value


async def test_large_inputs_and_outputs_come_through() -> None:
    """Near RunPod's own limits."""
    async with serving(sample("echo")) as client:
        text = "é" * (9 * 1024 * 1024 // 2)
        answer = await client.call("POST", "run", data=json.dumps({"input": text}, ensure_ascii=False).encode())
        assert (await client.end(answer.body["id"]))["output"] == text


async def test_an_async_handler_is_awaited_and_its_errors_told() -> None:
    """On one loop for the worker's whole life."""
    async with serving(sample("asynchronous")) as client:
        for number in range(3):
            assert (await client.result(number))["output"] == {"async": number}
    async with serving(sample("async_raises")) as client:
        assert json.loads((await client.result())["error"])["error_message"] == "async no good"


@pytest.mark.parametrize("name", ["stream", "async_stream"])
async def test_a_generator_s_yields_are_streamed_and_aggregated(name: str) -> None:
    """The output is the list of yields, unless that is switched off."""
    async with serving(sample(name)) as client:
        job_id = await client.run([1, {"tok": "x"}, None])
        assert _told(await client.end(job_id)) == {"status": "COMPLETED", "output": [1, {"tok": "x"}, None]}
        read = await client.call("GET", f"stream/{job_id}")
        assert read.body["stream"] == [{"output": 1}, {"output": {"tok": "x"}}, {"output": None}]
    async with serving(sample(name), aggregate=False) as client:
        job_id = await client.run([1, 2])
        assert _told(await client.end(job_id)) == {"status": "COMPLETED", "output": []}
        assert (await client.call("GET", f"stream/{job_id}")).body["stream"] == [{"output": 1}, {"output": 2}]


async def test_chunks_can_be_read_while_the_generator_runs(tmp_path: Path) -> None:
    """That is what a stream is for."""
    async with serving(sample("stream")) as client:
        gate = tmp_path / "gate"
        job_id = await client.run([1, str(gate), 2])
        read = await client.call("GET", f"stream/{job_id}?wait=10000")
        assert read.body == {"status": "IN_PROGRESS", "stream": [{"output": 1}]}
        gate.touch()
        assert (await client.end(job_id))["output"] == [1, 2]


@pytest.mark.parametrize(
    ("items", "error", "streamed"),
    [
        ([1, "raise", 2], "handler: broke off \ntraceback: Traceback", [1]),
        ([1, {"error": {"code": 5}}, 2], "{'code': 5}", [1]),
    ],
    ids=["raises", "yields an error"],
)
async def test_a_generator_that_breaks_off_fails_but_its_chunks_stay(
    items: list[Any], error: str, streamed: list[Any]
) -> None:
    """The error is plain text then, and no output comes with it."""
    async with serving(sample("stream")) as client:
        job_id = await client.run(items)
        end = await client.end(job_id)
        assert (end["status"], "output" in end) == ("FAILED", False)
        assert end["error"].startswith(error)
        read = await client.call("GET", f"stream/{job_id}")
        assert [chunk["output"] for chunk in read.body["stream"]] == streamed


async def test_a_worker_sees_runpod_s_variables_and_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler may be anybody's code; its arguments are in /proc for everybody."""
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_secret")
    monkeypatch.setenv("HIDDEN", "hidden")
    monkeypatch.setenv("CARRIES_TOKEN", f"x{TOKEN}")
    monkeypatch.setenv("SHOWN", "shown")
    async with serving(sample("environment"), hide_env=["HIDDEN"]) as client:
        end = await client.result()
        seen = end["output"]["environ"]
        assert not {"RUNPOD_API_KEY", "HIDDEN", "CARRIES_TOKEN"} & set(seen)
        assert (seen["SHOWN"], seen["RUNPOD_POD_ID"], seen["RUNPOD_ENDPOINT_ID"]) == ("shown", end["workerId"], "ep")
        assert not Path(seen["HOME"]).samefile(Path.home())
        assert "$ID?" in seen["RUNPOD_WEBHOOK_GET_JOB"]
        assert TOKEN not in json.dumps(end)
        assert seen["RUNPOD_AI_API_KEY"] not in json.dumps(end["output"]["argv"])
    assert not Path(seen["HOME"]).exists()


async def test_the_handler_s_folder_is_last_on_the_path(tmp_path: Path) -> None:
    """Its neighbours can be imported, but can't stand in for the standard library, like a queue.py."""
    (tmp_path / "queue.py").write_text("raise ImportError('the wrong queue')")
    (tmp_path / "neighbour.py").write_text("import queue\nVALUE = queue.Queue.__name__")
    (tmp_path / "json.py").write_text("import neighbour\ndef handler(job):\n    return [neighbour.VALUE, __name__]")
    async with serving(f"{tmp_path / 'json.py'}:handler") as client:
        assert (await client.result())["output"] == ["Queue", "handler_json"]


async def test_what_a_handler_prints_is_handed_on_line_by_line() -> None:
    """Stdout, stderr and raw writes alike."""
    async with serving(sample("prints")) as client:
        assert (await client.result("one\ntwo \ud800"))["status"] == "COMPLETED"
        await eventually(lambda: "raw" in client.lines)
        assert client.lines == ["one", "two \\ud800", "to stderr", "raw"]


async def test_a_flood_of_output_is_cut_and_blocks_nobody() -> None:
    """The job ends, other requests are answered, and memory stays."""
    async with serving(sample("floods")) as client:
        assert (await client.result())["output"] == "done"
        assert (await client.health("workers"))["idle"] == 1
    assert any("left out" in line for line in client.lines)
    assert sum(map(len, client.lines)) < 10_000_000


@pytest.mark.parametrize(
    ("source", "words", "fix"),
    [
        (
            "import os\nimport no_such_module.sub\ndef handler(job): ...",
            "ModuleNotFoundError: No module named 'no_such_module' (line 2: import no_such_module.sub)",
            f"install 'no_such_module' for {sys.executable}, or put no_such_module.py beside the handler",
        ),
        (
            "def handler(job):\n  return (",
            "SyntaxError: '(' was never closed (handler.py, line 2) (line 2: return ()",
            None,
        ),
        (
            "def f():\n    raise ValueError\nf()",
            "ValueError (line 2: raise ValueError)",
            None,
        ),
        ("import sys\nsys.exit('bye')", "SystemExit: bye (line 2: sys.exit('bye'))", None),
        ("def handle(job): ...", "there is no function 'handler'", "did you mean 'handle'?"),
        ("x = 1", "there is no function 'handler'", "define it: def handler(job): ..."),
        ("handler = 5", "'handler' is a int, not a function", None),
        (None, "there is no such file", None),
    ],
    ids=["module", "syntax", "raises", "exits", "typo", "empty", "no function", "no file"],
)
async def test_a_handler_that_can_t_be_imported_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None, words: str, fix: str | None
) -> None:
    """Said when the server starts, with the place in the file; no job has to wait to find out."""
    path = tmp_path / "handler.py"
    if source is not None:
        path.write_text(source)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HandlerError) as caught:
        async with serving(f"{path}:handler", workers=2):
            pass
    assert caught.value.message == f"handler.py:handler can't be imported: {words}"
    assert caught.value.fix == fix
    assert caught.value.exit_code == 2


async def test_a_worker_that_exits_at_import_without_a_word_is_an_error_too(tmp_path: Path) -> None:
    """With its exit code and its last lines."""
    path = tmp_path / "handler.py"
    path.write_text("import os\nprint('loading')\nprint('no licence')\nos._exit(3)")
    words = r"handler exited with code 3 before it was ready; its last words: loading \| no licence"
    with pytest.raises(HandlerError, match=words):
        async with serving(f"{path}:handler"):
            pass


async def test_a_worker_that_never_gets_ready_is_an_error_at_the_limit(tmp_path: Path) -> None:
    """An endless import must not hang a run without a word."""
    path = tmp_path / "handler.py"
    path.write_text("import time\ntime.sleep(600)")
    with pytest.raises(HandlerError, match=r"was not ready after 0.3s"):
        async with serving(f"{path}:handler", start_limit_s=0.3):
            pass


async def test_one_broken_endpoint_of_two_ends_the_start(tmp_path: Path) -> None:
    """Nothing of the good one is left running."""
    from runner.local.server import LocalServer, Served

    served = [Served("good", sample("echo")), Served("bad", f"{tmp_path / 'none.py'}:handler")]
    with pytest.raises(HandlerError, match=r"there is no such file"):
        async with LocalServer(served, token=TOKEN):
            pass


def test_lines_are_cut_into_pieces_and_a_flood_is_counted() -> None:
    """The rest of the second is left out; the next second is shown again."""
    emitted: list[str] = []
    lines = Lines(emitted.append)
    lines.feed(b"a\r\nb", 0.0)
    lines.feed(b"c\n" + b"x" * (LINE_LIMIT_BYTES + 1), 0.0)
    assert [line[:2] for line in emitted] == ["a", "bc", "xx"]
    lines.feed(b"y" * 2_000_000, 0.5)
    lines.feed(b"again\n\xff", 1.5)
    lines.close()
    assert emitted[3:] == ["... 2000000 bytes of output left out", "again", "\ufffd"]


async def test_a_worker_without_a_server_exits(tmp_path: Path) -> None:
    """It must not spin when the server is gone."""
    environment = {
        "RUNPOD_POD_ID": "w1",
        "RUNPOD_AI_API_KEY": "key",
        **{
            f"RUNPOD_WEBHOOK_{name}": "http://127.0.0.1:1/v2/ep/x/$ID?gpu=X"
            for name in ("GET_JOB", "POST_OUTPUT", "POST_STREAM", "PING")
        },
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "runner.local.worker", sample("echo")),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert (process.returncode, said.decode().partition(":")[0]) == (1, "the server is gone")
