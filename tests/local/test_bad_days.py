import contextlib
import errno
import json
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from serving import TOKEN, Client, eventually, sample, serving

from runner.local import fault_text
from runner.local.faults import Faults
from runner.local.server import LocalServer

BY_HEADER = Faults(by_header=True)
PAUSED = {
    "status": 409,
    "title": "Conflict",
    "code": "ENDPOINT_PAUSED",
    "detail": "Endpoint is paused (max_workers=0). Set max_workers > 0 to accept work.",
}


def day(*texts: str, seed: int = 0) -> Faults:
    """A bad day."""
    return fault_text.faults(texts, seed=seed, by_header=True)


async def got(client: Client, method: str, path: str, fault: str | None = None, **options: Any) -> tuple[int, str, str]:
    """The answer to one request, with *fault* asked for: its status, its type, its text."""
    headers = {"Authorization": f"Bearer {TOKEN}"} | ({} if fault is None else {fault_text.HEADER: fault})
    url = f"{client.server.base_url}/ep/{path}"
    async with client.session.request(method, url, headers=headers, **options) as response:
        return response.status, response.content_type, await response.text()


async def submitted(client: Client, fault: str) -> tuple[int, str, str]:
    """The answer to a submit."""
    return await got(client, "POST", "run", fault, json={"input": 1})


async def queued(client: Client) -> int:
    """How many jobs wait."""
    return (await client.health("jobs"))["inQueue"]


REFUSALS = [
    ("429", 429, "application/json", '{"error":"too many requests"}'),
    ("500", 500, "application/json", '{"error":"internal server error"}'),
    ("502", 502, "text/html", "<h1>502 Bad Gateway</h1>"),
    ("503", 503, "text/plain", "no healthy upstream"),
    ("504", 504, "text/html", "<h1>504 Gateway Timeout</h1>"),
    ("paused", 409, "application/json", json.dumps(PAUSED, separators=(",", ":"))),
]


@pytest.mark.parametrize(("fault", "status", "kind", "text"), REFUSALS, ids=[row[0] for row in REFUSALS])
async def test_a_refused_submit_queues_nothing(fault: str, status: int, kind: str, text: str) -> None:
    """Each in the shape that the real gateway, or the edge before it, is known for."""
    async with serving(None, faults=BY_HEADER) as client:
        found = await submitted(client, fault)
        assert (found[:2], text in found[2]) == ((status, kind), True)
        assert await queued(client) == 0


@pytest.mark.parametrize(("fault", "status", "kind", "text"), REFUSALS[1:5], ids=[row[0] for row in REFUSALS[1:5]])
async def test_the_same_refusal_may_hide_that_the_job_was_queued(fault: str, status: int, kind: str, text: str) -> None:
    """A client can't tell the two apart, and must not pay twice."""
    async with serving(None, faults=BY_HEADER) as client:
        found = await submitted(client, f"{fault}_after")
        assert (found[:2], text in found[2]) == ((status, kind), True)
        assert await queued(client) == 1


@pytest.mark.parametrize(("fault", "jobs"), [("reset_before", 0), ("reset_after", 1)])
async def test_a_reset_connection_may_have_queued_the_job(fault: str, jobs: int) -> None:
    """A reset, not an end: and the next request is served."""
    async with serving(None, faults=BY_HEADER) as client:
        with pytest.raises(aiohttp.ClientOSError) as caught:
            await submitted(client, fault)
        assert caught.value.errno == errno.ECONNRESET
        assert await queued(client) == jobs


@pytest.mark.parametrize("fault", ["429", "503"])
async def test_a_refusal_can_say_when_to_come_again(fault: str) -> None:
    """In seconds, rounded up, or as a date."""
    async with serving(None, faults=BY_HEADER) as client:
        for option, limits in (("", None), (",retry_after=1500ms", (2, 2)), (",retry_at=60s", (57, 62))):
            answer = await client.call("POST", "cancel/x", headers={fault_text.HEADER: "429" + option})
            told = answer.headers.get("Retry-After")
            if limits is None:
                assert told is None
            else:
                assert told is not None
                wait_s = int(told) if told.isdecimal() else parsedate_to_datetime(told).timestamp() - time.time()
                assert limits[0] <= wait_s <= limits[1]


async def test_a_slow_answer_comes_whole_but_late() -> None:
    """The head is there at once, and bytes keep coming: a timeout between bytes never rings."""
    async with serving(None, faults=BY_HEADER) as client:
        started = time.monotonic()
        status, _, text = await got(client, "GET", "health", "slow,over=300ms")
        assert time.monotonic() - started > 0.25
        assert (status, set(json.loads(text))) == (200, {"jobs", "workers"})


async def test_a_cut_answer_ends_before_its_length() -> None:
    """The job is queued all the same."""
    async with serving(None, faults=BY_HEADER) as client:
        with pytest.raises(aiohttp.ClientPayloadError):
            await submitted(client, "cut")
        assert await queued(client) == 1


async def test_an_answer_may_have_the_wrong_type_or_be_a_page() -> None:
    """200 is no promise of JSON."""
    async with serving(None, faults=BY_HEADER) as client:
        status, kind, text = await submitted(client, "wrong_type")
        assert (status, kind, json.loads(text)["status"]) == (200, "text/html", "IN_QUEUE")
        status, kind, text = await submitted(client, "html")
        assert (status, kind, "<h1>200 OK</h1>" in text) == (200, "text/html", True)
        assert await queued(client) == 2


async def test_a_status_may_be_one_that_nobody_heard_of() -> None:
    """It must be taken for "not final yet", whatever the job is."""
    async with serving(sample("echo"), faults=BY_HEADER) as client:
        end = await client.end(job_id := await client.run())
        for fault, shown in (("unknown_status", "PREPARING"), ("unknown_status,shown=RUNNING", "RUNNING")):
            _, _, text = await got(client, "GET", f"status/{job_id}", fault)
            assert json.loads(text) == end | {"status": shown}
        assert await client.status(job_id) == end


@pytest.mark.parametrize(("fault", "read"), [("duplicate_chunk", [1, 2, 2]), ("lost_chunk", [1])])
async def test_a_stream_may_show_a_chunk_twice_or_never(fault: str, read: list[int]) -> None:
    """There is no number on a chunk, and no second reading."""
    async with serving(sample("stream"), faults=BY_HEADER) as client:
        job_id = await client.run([1, 2])
        await client.end(job_id)
        _, _, text = await got(client, "GET", f"stream/{job_id}", fault)
        assert [chunk["output"] for chunk in json.loads(text)["stream"]] == read
        _, _, text = await got(client, "GET", f"stream/{job_id}", fault)
        assert json.loads(text)["stream"] == []


async def test_chunks_of_a_lost_answer_are_lost() -> None:
    """Drained on read, though nobody read them."""
    async with serving(sample("stream"), faults=BY_HEADER) as client:
        job_id = await client.run([1, 2])
        await client.end(job_id)
        with pytest.raises(aiohttp.ClientOSError):
            await got(client, "GET", f"stream/{job_id}", "reset_after")
        _, _, text = await got(client, "GET", f"stream/{job_id}")
        assert json.loads(text) == {"status": "COMPLETED", "stream": []}


async def test_a_fault_changes_a_refusal_too() -> None:
    """The connection of a 404 can break like any other."""
    async with serving(None, faults=BY_HEADER) as client:
        with pytest.raises(aiohttp.ClientPayloadError):
            await got(client, "GET", "status/unknown", "cut")
        status, _, text = await got(client, "GET", "status/unknown", "unknown_status")
        assert (status, json.loads(text)) == (404, {"detail": "job not found"})


async def test_a_header_asks_for_nothing_where_clients_may_not() -> None:
    """A server that people work with keeps to its own day."""
    async with serving(None, faults=day()) as client:
        assert (await submitted(client, "500"))[0] == 500
        client.server.set_faults(Faults())
        assert (await submitted(client, "500"))[0] == 200
        assert (await submitted(client, "nonsense"))[0] == 200


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("nonsense", "'nonsense' is no fault: nothing is called 'nonsense'"),
        ("lost_chunk", "lost_chunk can't happen to this operation"),
        ("status:500", "500 can't happen to this operation"),
    ],
)
async def test_a_fault_that_can_t_be_is_a_bad_request(fault: str, words: str) -> None:
    """A test that asks for the wrong thing must not pass because nothing went wrong."""
    async with serving(None, faults=BY_HEADER) as client:
        status, _, text = await submitted(client, fault)
        assert (status, json.loads(text)) == (400, {"error": f"bad request: header: X-Runner-Fault: {words}"})
        assert await queued(client) == 0


async def test_a_bad_day_can_be_repeated() -> None:
    """The same seed and the same requests: the same faults, on another server."""

    async def statuses(seed: int) -> list[int]:
        async with serving(None, faults=day("429=20%", "run:502=20%", "500_after=10%", seed=seed)) as client:
            found = []
            for _ in range(30):
                found.append((await got(client, "POST", "run", json={"input": 1}))[0])
                found.append((await got(client, "GET", "status/unknown"))[0])
            return found

    first, again, other = await statuses(7), await statuses(7), await statuses(8)
    assert first == again != other
    assert {200, 404, 429, 500, 502} == set(first)


async def test_a_job_may_be_unknown_for_a_while_after_its_submit() -> None:
    """Some see a 404 at first; it is no reason to give the job up."""
    async with serving(None, faults=day("not_found=1s")) as client:
        job_id = await client.run()
        assert (await client.call("GET", f"status/{job_id}")).body == {"detail": "job not found"}
        await eventually(lambda: _is_known(client, job_id))


async def _is_known(client: Client, job_id: str) -> bool:
    return (await client.call("GET", f"status/{job_id}")).status == 200


async def test_a_paused_endpoint_refuses_submits_until_it_wakes() -> None:
    """RunPod answers 409 for some seconds after workers are allowed again."""
    async with serving(None, faults=day("paused=1s")) as client:
        job = {"input": 1}
        answer = await client.call("POST", "run", json=job)
        assert (answer.status, answer.body) == (409, PAUSED)
        assert (await client.call("GET", "health")).status == 200

        async def is_taken() -> bool:
            return (await client.call("POST", "run", json=job)).status == 200

        await eventually(is_taken)


async def test_workers_are_shown_initializing_while_they_are_cold() -> None:
    """And take nothing: a job waits for the whole start."""
    async with serving(sample("echo"), faults=day("cold_start=2s")) as client:
        job_id = await client.run()
        workers = await client.health("workers")
        assert (workers["initializing"], workers["idle"], workers["running"]) == (1, 0, 0)
        assert (await client.status(job_id))["status"] == "IN_QUEUE"
        assert (await client.end(job_id))["delayTime"] > 1000

        async def is_warm() -> bool:
            workers = await client.health("workers")
            return (workers["initializing"], workers["idle"], workers["ready"]) == (0, 1, 1)

        await eventually(is_warm)
        assert (await client.result())["delayTime"] < 1000


async def test_the_server_ends_at_once_while_workers_are_cold() -> None:
    """Nobody waits for a cold start that nobody needs any more."""
    async with serving(sample("echo"), faults=day("cold_start=1h")) as client:
        await client.run()
        started = time.monotonic()
    assert time.monotonic() - started < 5


async def test_throttled_unhealthy_and_stalled_workers_are_shown() -> None:
    """What a client sees while the host is full, or containers crash or hang."""
    async with serving(None, faults=day("throttled=2", "unhealthy=1", "stalled=3")) as client:
        workers = await client.health("workers")
        assert workers == {
            "idle": 0, "initializing": 0, "ready": 0, "running": 3, "throttled": 2, "unhealthy": 1
        }  # fmt: skip


async def test_a_passed_execution_timeout_may_end_a_job_as_the_docs_say(tmp_path: Path) -> None:
    """Users see FAILED, the docs say TIMED_OUT: a client must know both."""
    async with serving(sample("gate"), faults=day("times_out")) as client:
        job_id = await client.run(str(tmp_path / "never"), executionTimeout=100)
        end = await client.end(job_id)
        assert (end["status"], end["error"]) == ("TIMED_OUT", "job timed out after 1 retries")
        assert (await client.health("jobs"))["failed"] == 1
        assert (await client.call("POST", f"retry/{job_id}")).status == 200


async def test_the_log_says_what_went_wrong_on_purpose(tmp_path: Path) -> None:
    """Who checks a client needs to know what it was made to see, and what was done all the same."""
    path = tmp_path / "log.jsonl"
    async with serving(None, faults=BY_HEADER, log=path) as client:
        for fault in ("429", "500_after", "reset_before", "reset_after"):
            with contextlib.suppress(aiohttp.ClientOSError):
                await submitted(client, fault)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    asked = [line for line in lines if line["event"] == "asked"]
    accepted = [line["job_id"] for line in lines if line["event"] == "accepted"]
    assert [(line["fault"], line["status"], line["job_id"]) for line in asked] == [
        ("429", None, None),
        ("500_after", 200, accepted[0]),
        ("reset_before", None, None),
        ("reset_after", 200, accepted[1]),
    ]


def test_the_server_takes_a_day_as_it_is() -> None:
    """Before it starts, there is nothing to have faults."""
    LocalServer([], token=TOKEN, faults=day("429")).set_faults(Faults())
