"""
Every outcome in every mode, through the whole program, against a scripted RunPod over real sockets.

A test runs one batch with a job for each mode, so that the modes can't disturb each other either. `scripted.carry`
checks of every batch that the counts add up.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fake_http import Reply, Then, answer
from result_lines import MODES, Line, all_lines_of, completed, failed, jobs, lines_of, operation, patience
from scripted import (
    CLOSED,
    CUT,
    HTML,
    KEY,
    RESET,
    SILENT,
    Carried,
    Script,
    ScriptedRunPod,
    carry,
    chunks,
    in_memory,
    job,
    says,
    write_job_file,
)

from runner.runpod import RunPod
from runner.values import MISSING, JsonObject, JsonValue

WAYS = {"async": "async", "sync": "sync", "followed": "sync", "stream": "stream", "chunks": "stream"}
"""
How an answer can come, and the mode of it: "sync" at once by /runsync, "followed" later, "stream" without any chunk,
"chunks" after two of them.
"""


@pytest.fixture(autouse=True)
async def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and whole batches in a twentieth of a second each."""
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    # Debug mode takes down a stack for every callback: half of the time. The parts are tested in it.
    asyncio.get_running_loop().set_debug(False)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is written quickly."""
    with in_memory(tmp_path) as path:
        yield path


def scripts(final: JsonObject | bytes, status: str) -> dict[str, Script]:
    """For each way, the endpoint whose job ends with the answer *final*, of which *status* is the status."""
    said, queued, running = says(final), says(job("IN_QUEUE")), says(job("IN_PROGRESS", output={"percent": 40}))
    return {
        "async": {"status": [queued, running, said]},
        "sync": {"runsync": said},
        "followed": {"runsync": running, "status": said},
        "stream": {"stream": chunks(status), "status": said},
        "chunks": {"stream": [chunks("IN_PROGRESS", "a"), chunks(status, "b"), chunks(status)], "status": said},
    }


# How jobs end


@dataclass(frozen=True)
class Ending:
    """
    A job's final answer, and the line that comes of it. *keys* are more keys of the job file's job.

    *chunked* is the line where chunks came before; None: the same with the chunks as its output.
    """

    final: JsonObject | bytes
    line: Line
    chunked: Line | None = None
    keys: Mapping[str, Any] | None = None


RAISED = json.dumps(
    {"error_type": "<class 'ValueError'>", "error_message": "no horse", "error_traceback": "Traceback …\n  here"}
)
GAVE_UP = "job timed out after 1 retries"
NO_OUTPUT = "RunPod says COMPLETED and gives no output"

ENDINGS = [
    pytest.param(Ending(job("COMPLETED", output={"x": 1}), completed({"x": 1})), id="an output is completed"),
    pytest.param(Ending(job("COMPLETED", output=None), completed(None)), id="null is an output"),
    pytest.param(Ending(job("COMPLETED", output=False), completed(False)), id="false is an output"),
    pytest.param(Ending(job("COMPLETED", output=[]), completed([])), id="an empty list gives way to chunks"),
    pytest.param(
        Ending(job("COMPLETED", output=["a", "b", "c"]), completed(["a", "b", "c"]), completed(["a", "b", "c"])),
        id="a list at the end wins over chunks",
    ),
    pytest.param(
        Ending(b'{"id": "job-1", "status": "COMPLETED", "output": {"score": NaN}}', completed({"score": "NaN"})),
        id="a bare NaN is read",
    ),
    pytest.param(
        Ending(
            job("COMPLETED"), failed("completed_without_output", NO_OUTPUT, status="COMPLETED"), completed(["a", "b"])
        ),
        id="no output is completed_without_output",
    ),
    pytest.param(
        Ending(
            job("COMPLETED"), completed(MISSING), completed(["a", "b"]), keys={"success_when": "status == 'COMPLETED'"}
        ),
        id="no output is completed where success_when holds",
    ),
    pytest.param(
        Ending(
            job("COMPLETED"),
            failed("completed_without_output", NO_OUTPUT, status="COMPLETED"),
            failed("check_failed", "success_when is false", status="COMPLETED", output=["a", "b"]),
            keys={"success_when": "output is undefined and false"},
        ),
        id="no output stays completed_without_output where success_when is false",
    ),
    pytest.param(
        Ending(
            job("COMPLETED", output={"x": 1}),
            failed("check_failed", "success_when is false", status="COMPLETED", output={"x": 1}),
            keys={"success_when": "output == 'never'"},
        ),
        id="a false success_when is check_failed, with its output",
    ),
    pytest.param(
        Ending(
            job("COMPLETED", output=0),
            failed("check_failed", "success_when: the template fails: division by zero", status="COMPLETED", output=0),
            keys={"success_when": "1 / 0 > 1"},
        ),
        id="a raising success_when is check_failed, with its words",
    ),
    pytest.param(
        Ending(
            job("COMPLETED", output=[1]),
            failed("check_failed", "success_when: expected true or false, found 1", status="COMPLETED", output=[1]),
            failed("check_failed", "success_when: expected true or false, found 1", status="COMPLETED", output=[1]),
            keys={"success_when": "output[0]"},
        ),
        id="a success_when that is neither true nor false is check_failed",
    ),
    pytest.param(
        Ending(
            job("FAILED", error=RAISED),
            failed("failed", "no horse", type="ValueError", traceback="Traceback …\n  here"),
        ),
        id="a handler that raised is failed, its exception parsed",
    ),
    pytest.param(
        Ending(
            job("FAILED", error="handler: no horse \ntraceback: Traceback …"),
            failed("failed", "no horse", traceback="Traceback …"),
        ),
        id="a generator that raised is failed, its exception parsed",
    ),
    pytest.param(
        Ending(job("FAILED", error="no", output={"code": 7}), failed("failed", "no", output={"code": 7})),
        id="an output beside FAILED is kept",
    ),
    pytest.param(
        Ending(
            job("COMPLETED", output="half", error="no horse"),
            failed("failed", "no horse", status="COMPLETED", output="half"),
        ),
        id="COMPLETED with an error beside it is failed",
    ),
    pytest.param(
        Ending(job("COMPLETED", output="ok", error=""), completed("ok")),
        id="COMPLETED with an empty error is completed",
    ),
    pytest.param(
        Ending(job("TIMED_OUT"), failed("timed_out", "RunPod says TIMED_OUT and gives no error", status="TIMED_OUT")),
        id="TIMED_OUT is timed_out",
    ),
    pytest.param(
        Ending(job("FAILED", error=GAVE_UP, executionTime=600_100), failed("timed_out", GAVE_UP)),
        id="given up at RunPod's limit is timed_out",
    ),
    pytest.param(
        Ending(
            job("FAILED", error=GAVE_UP, executionTime=59_900),
            failed("timed_out", GAVE_UP),
            keys={"policy": {"execution_timeout": "1m"}},
        ),
        id="given up at the file's limit is timed_out",
    ),
    pytest.param(
        Ending(job("FAILED", error=GAVE_UP, executionTime=31_000, retries=1), failed("crashed", GAVE_UP)),
        id="given up before the limit is crashed",
    ),
    pytest.param(
        Ending(job("FAILED", error="Job ID not found"), failed("lost", "Job ID not found")),
        id="FAILED, Job ID not found, is lost",
    ),
    pytest.param(
        Ending(
            job("CANCELLED"),
            Line("cancelled", "cancelled", "CANCELLED", message="RunPod says CANCELLED and gives no error"),
        ),
        id="cancelled by somebody else is cancelled",
    ),
]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_final_answer_means_the_same_in_every_mode(ending: Ending, folder: Path) -> None:
    """Who switches a job from async to stream must not get other outcomes, and chunks are the output in all of them."""
    status = "COMPLETED" if isinstance(ending.final, bytes) else ending.final["status"]
    async with ScriptedRunPod(scripts(ending.final, status)) as server:
        carried = await carry(write_job_file(folder, server, jobs(ending.keys or {}, WAYS)))
    chunked = ending.chunked or replace(ending.line, output=["a", "b"])
    assert lines_of(carried) == {way: chunked if way == "chunks" else ending.line for way in WAYS}
    assert carried.chunks("chunks") == ["a", "b"]
    assert carried.files("streams") == [f"{carried.runs['chunks'][0]['key']}.1.jsonl"]
    all_well = {ending.line.state, chunked.state} == {"succeeded"}
    assert (carried.batch.verdict, carried.batch.exit_code) == (("pass", 0) if all_well else ("fail", 1))


# What a submit comes to


@dataclass(frozen=True)
class Submit:
    """What a submit is answered, and the line's outcome and message. CALL stands for the call, as messages name it."""

    reply: Reply
    outcome: str
    message: str


MAY_EXIST = "; the job may exist and be paid for"
DISCONNECTED = "CALL: the connection was closed before an answer came"
CONFUSED = "CALL: HTTP 200 with an answer that is not JSON"

REFUSED_SUBMITS = [
    pytest.param(
        Submit(says({"error": "no"}, "400 Bad Request"), "rejected", 'CALL: HTTP 400: {"error": "no"}'),
        id="400 is rejected",
    ),
    pytest.param(Submit(says({}, "405 X"), "rejected", "CALL: HTTP 405: {}"), id="405 is rejected"),
    pytest.param(Submit(says(b"", "422 X"), "rejected", "CALL: HTTP 422"), id="422 without a body is rejected"),
    pytest.param(
        Submit(says(HTML, "403 Forbidden"), "rejected", f"CALL: HTTP 403: {HTML.decode()}"), id="a lone 403 is rejected"
    ),
    pytest.param(Submit(says(b"", "413 X"), "too_large", "CALL: HTTP 413"), id="413 is too_large"),
    pytest.param(
        Submit(
            says({"error": "bad request: body: exceeded max body size of 10MiB"}, "400 Bad Request"),
            "too_large",
            'CALL: HTTP 400: {"error": "bad request: body: exceeded max body size of 10MiB"}',
        ),
        id="400 with RunPod's words for it is too_large",
    ),
]

LOST_SUBMITS = [
    pytest.param(Submit(SILENT, "answer_lost", "CALL: no answer within LIMIT"), id="no answer in time"),
    pytest.param(
        Submit(RESET, "answer_lost", "CALL: the connection broke (connection reset by peer)"), id="reset after the send"
    ),
    pytest.param(Submit(CLOSED, "answer_lost", DISCONNECTED), id="closed after the send"),
    pytest.param(
        Submit(CUT, "answer_lost", "CALL: the answer was cut short, or could not be decompressed"), id="a cut answer"
    ),
    pytest.param(Submit(says(b"", "408 X"), "answer_lost", "CALL: HTTP 408"), id="408"),
    pytest.param(Submit(says("oops", "500 X"), "answer_lost", 'CALL: HTTP 500: "oops"'), id="500"),
    pytest.param(Submit(says(HTML, "502 X"), "answer_lost", f"CALL: HTTP 502: {HTML.decode()}"), id="502 with HTML"),
    pytest.param(Submit(says(b"", "503 X", "Retry-After: 1"), "answer_lost", "CALL: HTTP 503"), id="503"),
    pytest.param(
        Submit(
            says(b"", "307 X", "Location: http://127.0.0.1:9/"),
            "answer_lost",
            "CALL: HTTP 307, a redirect, which is not followed",
        ),
        id="a redirect",
    ),
    pytest.param(Submit(says(HTML), "answer_lost", f"{CONFUSED}: {HTML.decode()}"), id="200 with HTML"),
    pytest.param(Submit(says(b""), "answer_lost", CONFUSED), id="200 with nothing"),
    pytest.param(
        Submit(says(b'{"id": "job-1", "sta'), "answer_lost", f'{CONFUSED}: {{"id": "job-1", "sta'),
        id="200 with cut JSON",
    ),
    pytest.param(
        Submit(
            says({"status": "IN_QUEUE"}),
            "answer_lost",
            'CALL: HTTP 200 with an answer that names no job: {"status": "IN_QUEUE"}',
        ),
        id="200 without an id",
    ),
    pytest.param(
        Submit(
            says({"id": "../../x", "status": "IN_QUEUE"}, "202 Accepted"),
            "answer_lost",
            'CALL: HTTP 202 with an answer that names no job: {"id": "../../x", "status": "IN_QUEUE"}',
        ),
        id="202 with an id that is none",
    ),
]


def said(submit: Submit, mode: str) -> str:
    """Its message, for a job of *mode* on an endpoint of that name."""
    call = f"POST /{operation(mode)} of endpoint '{mode}'"
    return submit.message.replace("CALL", call).replace("LIMIT", "450ms" if mode == "sync" else "400ms")


@pytest.fixture
def _short_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """/runsync is asked to hold for 50 ms only, so that a lost answer is lost soon."""
    monkeypatch.setattr("runner.submission.SYNC_WAIT_MS", 50)


@pytest.mark.parametrize("submit", REFUSED_SUBMITS)
async def test_a_submit_that_is_refused_settles_the_run_and_cost_nothing(submit: Submit, folder: Path) -> None:
    """Nothing was accepted, so it counts as no attempt; sending the same again would be refused again."""
    async with ScriptedRunPod({mode: {"run": submit.reply, "runsync": submit.reply} for mode in MODES}) as server:
        carried = await carry(write_job_file(folder, server, jobs({})))
        assert [server.count(operation(mode), mode) for mode in MODES] == [1, 1, 1]
    assert lines_of(carried) == {
        mode: Line("failed", submit.outcome, None, message=said(submit, mode), attempts=0, job_id=None)
        for mode in MODES
    }
    assert (carried.batch.verdict, carried.batch.exit_code) == ("fail", 1)


@pytest.mark.usefixtures("_short_hold")
@pytest.mark.parametrize("submit", LOST_SUBMITS)
async def test_a_submit_that_may_have_been_accepted_is_answer_lost_and_not_sent_again(
    submit: Submit, folder: Path
) -> None:
    """A second submit may run, and cost, the same job twice; the report has to say what nobody knows."""
    async with ScriptedRunPod({mode: {"run": submit.reply, "runsync": submit.reply} for mode in MODES}) as server:
        carried = await carry(write_job_file(folder, server, jobs(patience(submit.reply))))
        assert [server.count(operation(mode), mode) for mode in MODES] == [1, 1, 1]
    assert lines_of(carried) == {
        mode: Line("failed", "answer_lost", None, message=said(submit, mode) + MAY_EXIST, job_id=None) for mode in MODES
    }
    assert (carried.batch.verdict, carried.batch.exit_code) == ("fail", 1)


@pytest.mark.usefixtures("_short_hold")
@pytest.mark.parametrize("submit", LOST_SUBMITS)
async def test_a_lost_answer_is_sent_again_where_the_file_says_so_and_counts(submit: Submit, folder: Path) -> None:
    """Who would rather pay twice than miss a result says `resubmit`; `retry.attempts` does not bound it."""
    again = patience(submit.reply) | {"on_answer_lost": "resubmit", "retry": {"wait_initial": "1ms"}}
    replies = {
        "run": [submit.reply, submit.reply, says(job("IN_QUEUE", 3))],
        "runsync": [submit.reply, submit.reply, says(job("COMPLETED", 3, output="ok"))],
    }
    async with ScriptedRunPod(dict.fromkeys(MODES, replies)) as server:
        carried = await carry(write_job_file(folder, server, jobs(again)))
        assert [server.count(operation(mode), mode) for mode in MODES] == [3, 3, 3]
    assert lines_of(carried) == dict.fromkeys(MODES, replace(completed("ok"), attempts=3, job_id="job-3"))
    assert [carried.batch.health["jobs"][mode]["retried"] for mode in MODES] == [2, 2, 2]
    assert (carried.batch.verdict, carried.batch.exit_code) == ("pass", 0)


@pytest.mark.parametrize(
    ("reply", "least_s"),
    [
        pytest.param(says({}, "429 Too Many Requests"), 0.5, id="429"),
        pytest.param(says({}, "429 Too Many Requests", "Retry-After: 30"), 30.0, id="429 with Retry-After"),
        pytest.param(says({"code": "ENDPOINT_PAUSED"}, "409 Conflict"), 0.05, id="409, paused for a moment"),
    ],
)
async def test_a_submit_that_was_surely_not_accepted_is_sent_again_and_does_not_count(
    reply: Reply, least_s: float, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't pay twice, so nobody has to be asked."""
    monkeypatch.setattr("runner.submission.PAUSED_WAIT_S", 0.05)
    replies = {
        "run": [reply, reply, says(job("IN_QUEUE", 3))],
        "runsync": [reply, reply, says(job("COMPLETED", 3, output="ok"))],
    }
    speed = 1.0 if least_s < 0.1 else 100.0
    async with ScriptedRunPod(dict.fromkeys(MODES, replies)) as server:
        carried = await carry(write_job_file(folder, server, jobs({}), health={"wait": "1m"}), speed=speed)
        for mode in MODES:
            times = [one.at for one in server.asked_for if (one.endpoint, one.operation) == (mode, operation(mode))]
            assert min(later - sooner for sooner, later in pairwise(times)) * speed >= 0.98 * least_s
    assert lines_of(carried) == dict.fromkeys(MODES, replace(completed("ok"), job_id="job-3"))
    assert [carried.batch.health["jobs"][mode]["retried"] for mode in MODES] == [0, 0, 0]


async def test_an_endpoint_that_is_reached_late_gets_its_runs_once(folder: Path) -> None:
    """No connection is no submit: a machine may be started before the network, and nothing is paid for twice."""
    server = ScriptedRunPod()
    async with server:
        path = write_job_file(folder, server, jobs({}))
    task = asyncio.create_task(carry(path, speed=20.0))
    await asyncio.sleep(0.3)
    async with server:  # at the same port
        carried = await task
    assert lines_of(carried) == dict.fromkeys(MODES, completed("ok"))
    assert [server.count(operation(mode), mode) for mode in MODES] == [1, 1, 1]


async def test_a_body_over_the_limit_is_too_large_and_not_sent(folder: Path) -> None:
    """RunPod would refuse it, at times with a 502 that looks as if it might have been accepted."""
    (folder / "heavy.bin").write_bytes(bytes(15 * 512 * 1024))
    ten_mib = "{{ 'heavy.bin' | file_base64 }}"
    given = jobs({"input": {"image": ten_mib}})
    given["twice"] = {"mode": "sync", "input": {"image": ten_mib, "mask": ten_mib}}
    async with ScriptedRunPod() as server:
        carried = await carry(write_job_file(folder, server, given))
        assert [server.count("run", mode) + server.count("runsync", mode) for mode in given] == [0, 1, 0, 0]

    def over(has: str, takes: str) -> Line:
        message = f"the request body has {has}, and RunPod's {takes}"
        return Line("failed", "too_large", None, message=message, attempts=0, job_id=None)

    assert lines_of(carried) == {
        "async": over("10.0 MiB", "/run takes 10.0 MiB"),
        "sync": completed("ok"),
        "stream": over("10.0 MiB", "/run takes 10.0 MiB"),
        "twice": over("20.0 MiB", "/runsync takes 19.1 MiB"),
    }


async def test_a_row_that_can_not_be_rendered_is_invalid_and_the_others_run(folder: Path) -> None:
    """One bad row of a million is that row's problem."""
    rows = {"rows": {"inline": [{"n": "1"}, {"n": "two"}, {"n": "3"}]}, "input": {"n": "{{ row.n | int }}"}}
    async with ScriptedRunPod() as server:
        carried = await carry(write_job_file(folder, server, jobs(rows | {"concurrency": 1})))
        assert [server.count(operation(mode), mode) for mode in MODES] == [2, 2, 2]
    message = "input.n: 'two' is not a whole number"
    bad = Line("failed", "invalid", None, message=message, attempts=0, job_id=None)
    assert all_lines_of(carried) == {mode: [completed("ok"), bad, completed("ok", job_id="job-2")] for mode in MODES}
    assert (carried.batch.verdict, carried.batch.exit_code) == ("fail", 1)


# Faults while a job is followed


FOLLOWED = {"async": "async", "followed": "sync", "stream": "stream"}
"""The ways in which a job is looked at after its submit."""


def following(*status: Reply, **more: Reply | Sequence[Reply]) -> dict[str, Script]:
    """For each of those ways, the endpoint that answers looks with *status*."""
    common: Script = {"runsync": says(job("IN_QUEUE")), "stream": chunks("COMPLETED"), "status": status}
    return {way: {**common, **{name.replace("_", "-"): said for name, said in more.items()}} for way in FOLLOWED}


OK = says(job("COMPLETED", output="ok"))


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        pytest.param(says({}, "429 X"), 2, id="429"),
        pytest.param(says({}, "429 X", "Retry-After: 20"), 2, id="429 with Retry-After"),
        pytest.param(says("oops", "500 X"), 3, id="500"),
        pytest.param(says(HTML, "502 X"), 3, id="502 with HTML"),
        pytest.param(says({}, "408 X"), 3, id="408"),
        pytest.param(says({}, "307 X", "Location: /"), 3, id="a redirect"),
        pytest.param(says({}, "400 X"), 3, id="400"),
        pytest.param(RESET, 3, id="reset"),
        pytest.param(CLOSED, 3, id="closed"),
        pytest.param(CUT, 3, id="a cut body"),
        pytest.param(SILENT, 1, id="no answer in time"),
        pytest.param(says(HTML), 2, id="200 with HTML, twice"),
        pytest.param(says({"id": "job-1"}), 2, id="200 without a status, twice"),
        pytest.param(says(job("HIBERNATING")), 3, id="a status nobody knows"),
        pytest.param(says(HTML, "403 X"), 2, id="a lone 403"),
    ],
)
async def test_faults_while_following_are_no_outcomes(fault: Reply, times: int, folder: Path) -> None:
    """The job goes on, whatever stands between it and us, and a paid result is not given up."""
    replies = following(*[fault] * times, OK, status_sync=says({}, "405 X"))
    async with ScriptedRunPod(replies) as server:
        carried = await carry(write_job_file(folder, server, jobs(patience(fault), FOLLOWED)))
        assert [server.count("run", way) + server.count("runsync", way) for way in FOLLOWED] == [1, 1, 1]
        assert [server.count("status", way) for way in FOLLOWED] == [times + 1] * 3
    assert lines_of(carried) == dict.fromkeys(FOLLOWED, completed("ok"))
    assert (carried.batch.verdict, carried.batch.exit_code) == ("pass", 0)


NOT_FOUND = says({"error": "job not found"}, "404 Not Found")


async def test_a_job_that_is_unknown_at_first_is_looked_at_again(folder: Path) -> None:
    """It may not be visible to every server of RunPod's at once."""
    async with ScriptedRunPod(following(NOT_FOUND, NOT_FOUND, NOT_FOUND, OK)) as server:
        carried = await carry(write_job_file(folder, server, jobs({}, FOLLOWED)), speed=5)
    assert lines_of(carried) == dict.fromkeys(FOLLOWED, completed("ok"))


async def test_a_job_that_is_unknown_is_lost_after_a_grace_of_10_s(folder: Path) -> None:
    """A job may not be visible at once; after the grace it will not come any more. What it streamed is kept."""
    replies = following(NOT_FOUND, stream=NOT_FOUND)
    replies["chunks"] = {"stream": [chunks("IN_PROGRESS", "a"), NOT_FOUND], "status": NOT_FOUND}
    async with ScriptedRunPod(replies) as server:
        path = write_job_file(folder, server, jobs({}, FOLLOWED | {"chunks": "stream"}))
        carried = await carry(path, speed=20.0)  # a busy machine must not make a minute of its pauses
    gone = Line("failed", "lost", None, message="RunPod no longer knows job job-1 (404 twice)")
    assert lines_of(carried) == {
        **dict.fromkeys(FOLLOWED, gone),
        "chunks": replace(gone, output=["a"], status="IN_PROGRESS"),
    }
    assert all(took_s(carried, way) >= 10 for way in FOLLOWED)


def took_s(carried: Carried, name: str) -> float:
    """Seconds from the submit of the one run of the job *name* to its end."""
    (told,) = carried.runs[name]
    return (datetime.fromisoformat(told["settled_at"]) - datetime.fromisoformat(told["submitted_at"])).total_seconds()


WELL = says({"workers": {"idle": 1}})


async def test_a_job_is_not_lost_while_health_does_not_answer(folder: Path) -> None:
    """Then the 404 may be the word of whatever stands before the endpoint; the endpoint comes back, and the result."""
    replies = following(*[NOT_FOUND] * 24, OK, health=[WELL, says({}, "500 X")])
    async with ScriptedRunPod(replies) as server:
        carried = await carry(write_job_file(folder, server, jobs({}, FOLLOWED)))
        assert all(server.count("health", way) > 2 for way in FOLLOWED)
    assert all(took_s(carried, way) >= 10 for way in FOLLOWED)
    assert lines_of(carried) == dict.fromkeys(FOLLOWED, completed("ok"))


async def test_jobs_of_an_endpoint_that_is_unknown_itself_stay_pending(folder: Path) -> None:
    """It was deleted, or the key may not see it any more: whoever mends that goes on with the results."""
    unknown = says({"detail": "endpoint not found"}, "404 X")
    async with ScriptedRunPod(following(NOT_FOUND, health=[WELL, unknown])) as server:
        carried = await carry(write_job_file(folder, server, jobs({}, FOLLOWED)))
    assert [carried.runs[way] for way in FOLLOWED] == [[], [], []]
    assert (carried.batch.verdict, carried.batch.exit_code) == ("refused", 4)
    assert sorted(one.message for one in carried.batch.refusals) == [
        f"endpoint '{way}' refused: GET /health of endpoint '{way}': HTTP 404 ({{\"detail\": \"endpoint not found\"}})"
        for way in sorted(FOLLOWED)
    ]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(says(HTML), f"not JSON: {HTML.decode()}", id="HTML"),
        pytest.param(says(b'{"status": "COMP'), 'not JSON: {"status": "COMP', id="cut JSON"),
        pytest.param(says([]), "not a JSON object: []", id="a list"),
    ],
)
async def test_an_answer_that_nobody_can_read_is_unreadable_the_third_time_and_kept(
    reply: Reply, reason: str, folder: Path
) -> None:
    """It was paid for: a person may still get something out of it."""
    replies = following(reply)
    replies["chunks"] = {"stream": [chunks("IN_PROGRESS", "a"), chunks("COMPLETED")], "status": reply}
    async with ScriptedRunPod(replies) as server:
        carried = await carry(write_job_file(folder, server, jobs({}, FOLLOWED | {"chunks": "stream"})))
        assert [server.count("status-sync", way) for way in replies] == [3, 3, 3, 3]
    for way, found in lines_of(carried).items():
        kept = f"unreadable/{carried.runs[way][0]['key']}.1.bin"
        message = (
            f"GET /status-sync/job-1 of endpoint '{way}': HTTP 200 with an answer that is {reason} (kept as {kept})"
        )
        output = ["a"] if way == "chunks" else MISSING
        status = "COMPLETED" if way in ("stream", "chunks") else None  # so /stream had said
        assert found == Line("failed", "unreadable", status, output, message=message)
        assert (carried.batch.folder.path / kept).read_bytes() == reply.data.partition(b"\r\n\r\n")[2]


HUGE = Reply(answer(b'{"status": "COMPLETED", "output": "', length=300 * 1024 * 1024), Then.HOLD)


async def test_an_answer_of_300_mb_is_too_large_and_harms_nobody(folder: Path) -> None:
    """One such output must not take the memory, or the time, of the others."""
    replies = {**following(HUGE), "sync": {"runsync": HUGE}}
    async with ScriptedRunPod(replies) as server:
        carried = await carry(write_job_file(folder, server, jobs({}, FOLLOWED | {"sync": "sync"})))
    over = "HTTP 200 with an answer over 256.0 MiB"
    big = Line("failed", "too_large", None)
    assert lines_of(carried) == {
        "async": replace(big, message=f"GET /status-sync/job-1 of endpoint 'async': {over}"),
        "followed": replace(big, message=f"GET /status-sync/job-1 of endpoint 'followed': {over}"),
        "stream": replace(big, message=f"GET /status-sync/job-1 of endpoint 'stream': {over}", status="COMPLETED"),
        "sync": replace(big, message=f"POST /runsync of endpoint 'sync': {over}", job_id=None),
    }


async def test_an_answer_that_does_not_say_how_long_it_is_is_measured_as_it_comes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit, which is 256 MiB, is 100 kB here."""
    monkeypatch.setattr("runner.network.RunPod", partial(RunPod, max_answer_bytes=100_000))
    body = json.dumps(job("COMPLETED", output="x" * 200_000)).encode()
    endless = Reply(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body, Then.CLOSE)
    async with ScriptedRunPod(following(endless)) as server:
        carried = await carry(write_job_file(folder, server, jobs({}, FOLLOWED)))
    assert {way: (line.outcome, line.attempts) for way, line in lines_of(carried).items()} == dict.fromkeys(
        FOLLOWED, ("too_large", 1)
    )


# Streams


@dataclass(frozen=True)
class Streamed:
    """What /stream and then /status answer, and the line and the chunks on disk that come of it."""

    replies: Sequence[Reply]
    final: JsonObject
    line: Line
    kept: Sequence[JsonValue]


A, B, OVER = chunks("IN_PROGRESS", "a"), chunks("IN_PROGRESS", "b"), chunks("COMPLETED")
EMPTY = job("COMPLETED", output=[])
"""What /status says of a generator without aggregation."""

WHOLE = job("COMPLETED", output=["a", "b"])
HOLES = failed(
    "incomplete", "chunks of the stream may be missing; those that came are kept", status="COMPLETED", output=["a", "b"]
)


def broken(fault: Reply, name: str) -> list[Any]:
    """A fault between two chunks, without and with a list at the end that makes up for it."""
    return [
        pytest.param(Streamed([A, fault, B, OVER], EMPTY, HOLES, ["a", "b"]), id=f"{name} is incomplete"),
        pytest.param(
            Streamed([A, fault, B, OVER], WHOLE, completed(["a", "b"]), ["a", "b"]),
            id=f"{name} does not matter where the list is at the end",
        ),
    ]


STREAMS = [
    *broken(CUT, "an answer cut off"),
    *broken(RESET, "a reset"),
    *broken(CLOSED, "a closed connection"),
    *broken(SILENT, "no answer in time"),
    *broken(says({}, "500 X"), "500"),
    *broken(says(HTML, "502 X"), "502 with HTML"),
    *broken(says(HTML), "200 with HTML"),
    *broken(HUGE, "an answer of 300 MB"),
    *broken(chunks("IN_QUEUE"), "back in the queue"),
    pytest.param(
        Streamed([A, B, OVER], EMPTY | {"retries": 1}, HOLES, ["a", "b"]), id="a job that was run again is incomplete"
    ),
    pytest.param(
        Streamed([A, B, OVER], WHOLE | {"retries": 1}, completed(["a", "b"]), ["a", "b"]),
        id="a job that was run again is completed where the list is at the end",
    ),
    pytest.param(
        Streamed([CUT, CUT, CUT], EMPTY, replace(HOLES, output=[]), []), id="a stream that can't be read is incomplete"
    ),
    pytest.param(
        Streamed([says({}, "405 X")], EMPTY | {"output": "ok"}, completed("ok"), []),
        id="an endpoint without /stream completes what returns",
    ),
    pytest.param(
        Streamed([says({}, "405 X")], EMPTY, replace(HOLES, output=[]), []),
        id="an endpoint without /stream is incomplete for a generator",
    ),
    pytest.param(
        Streamed([A, says({}, "429 X", "Retry-After: 5"), B, OVER], EMPTY, completed(["a", "b"]), ["a", "b"]),
        id="429 loses nothing",
    ),
    pytest.param(
        Streamed([NOT_FOUND, A, B, OVER], EMPTY, completed(["a", "b"]), ["a", "b"]), id="404 at first loses nothing"
    ),
    pytest.param(
        Streamed([chunks("COMPLETED", "a"), chunks("COMPLETED", "b"), OVER], EMPTY, completed(["a", "b"]), ["a", "b"]),
        id="chunks after the final status are read",
    ),
    pytest.param(
        Streamed(
            [chunks("IN_PROGRESS", None, 0, "", {"x": []}), OVER],
            EMPTY,
            completed([None, 0, "", {"x": []}]),
            [None, 0, "", {"x": []}],
        ),
        id="a chunk may be any JSON",
    ),
    pytest.param(
        Streamed(
            [says(b'{"status": "IN_PROGRESS", "stream": [{"output": [NaN]}]}'), OVER],
            EMPTY,
            completed([["NaN"]]),
            [["NaN"]],
        ),
        id="a bare NaN in a chunk is read",
    ),
    pytest.param(
        Streamed(
            [says([{"output": "a", "metrics": {}}, {"metrics": {}}]), says({"status": "COMPLETED"})],
            EMPTY,
            completed(["a"]),
            ["a"],
        ),
        id="a bare list is read, metrics are no chunks",
    ),
]


@pytest.mark.parametrize("streamed", STREAMS)
async def test_a_stream_is_completed_only_where_every_chunk_is_vouched_for(
    streamed: Streamed, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk is given out once; half a text that looks whole would be worse than an error."""
    monkeypatch.setattr("runner.runpod.STREAM_HOLD_MS", 50)
    script: Script = {"stream": streamed.replies, "status": says(streamed.final)}
    async with ScriptedRunPod({"it": script}) as server:
        carried = await carry(
            write_job_file(folder, server, {"it": {"mode": "stream"} | patience(*streamed.replies)}), speed=20
        )
    assert lines_of(carried) == {"it": streamed.line}
    assert (carried.chunks("it") if streamed.kept else carried.files("streams")) == streamed.kept


async def test_a_stream_that_takes_too_much_is_too_large_and_the_job_is_cancelled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit, which is 256 MiB, is 1,000 bytes here. Nobody would read on, so nobody should pay on."""
    monkeypatch.setattr("runner.streaming.MOST_BYTES", 1000)
    script: Script = {"stream": chunks("IN_PROGRESS", "x" * 600)}
    async with ScriptedRunPod({"it": script}) as server:
        carried = await carry(write_job_file(folder, server, {"it": {"mode": "stream"}}))
        assert server.count("cancel", "it") == 1
    message = "the stream has more than 1000 B; what was read is kept"
    assert lines_of(carried) == {"it": Line("failed", "too_large", "IN_PROGRESS", ["x" * 600] * 2, message=message)}
    assert carried.chunks("it") == ["x" * 600] * 2
