import asyncio
import gzip
import json
import socket
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from serving import TOKEN, Answer, Client, eventually, sample, serving

from runner.errors import UsageError
from runner.local.accepted import input_hash
from runner.local.server import LocalServer, Served


async def taken(client: Client, worker: str = "w1", *, busy: int = 1) -> Answer:
    """What a worker gets that asks for a job, and that says it has one already, or has none."""
    return await as_worker(client, "GET", f"job-take/{worker}?gpu=X&job_in_progress={busy}")


async def as_worker(client: Client, method: str, path: str, **options: Any) -> Answer:
    """One request of a worker, with the bare key."""
    return await client.call(
        method, path, token=client.server.environment("ep", "w1", "/")["RUNPOD_AI_API_KEY"], **options
    )


async def posted(client: Client, job_id: str, body: Any, worker: str = "w1") -> Answer:
    """Post a result as the SDK does: JSON that says it is a form."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "charset": "utf-8"}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await as_worker(
        client, "POST", f"job-done/{worker}/{job_id}?gpu=X&isStream=false", data=data, headers=headers
    )


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """RunPod's shortest wait is a second; these tests need to see one pass, not to sit through it."""
    monkeypatch.setattr("runner.local.answers.WAIT_MS", range(1, 300_001))


# Clients.


async def test_a_job_runs_from_submit_to_result() -> None:
    """The whole path that a runner takes, with RunPod's fields and types."""
    async with serving(sample("echo")) as client:
        answer = await client.call("POST", "run", json={"input": {"n": 1}})
        assert answer.body == {"id": answer.body["id"], "status": "IN_QUEUE"}
        assert answer.body["id"].endswith("-u1")
        assert uuid.UUID(answer.body["id"].removesuffix("-u1"))
        assert answer.headers["Content-Type"] == "application/json"
        end = await client.end(answer.body["id"])
        assert isinstance(end.pop("delayTime"), int)
        assert isinstance(end.pop("executionTime"), int)
        assert isinstance(end.pop("workerId"), str)
        assert end == {"id": answer.body["id"], "status": "COMPLETED", "output": {"n": 1}}
        assert await client.status(answer.body["id"]) == await client.end(answer.body["id"])


@pytest.mark.parametrize(
    "input_", [None, 0, "", [], {}, False, "text", 1.5, 2**70, {"é": "😀"}, "\ud800", [[[[]]]]], ids=ascii
)
async def test_any_json_value_is_an_input_and_comes_through_unaltered(input_: Any) -> None:
    """Integers beyond 64 bit and lone surrogates included."""
    async with serving(None) as client:
        body = json.dumps({"input": input_, "unknown": 1}).encode()
        job_id = (await client.call("POST", "run", data=body)).body["id"]
        answer = await taken(client)
        assert answer.body == {"id": job_id, "input": input_}
        await posted(client, job_id, {"output": input_})
        assert (await client.end(job_id))["output"] == input_


async def test_runsync_answers_with_the_result_and_a_sync_id() -> None:
    """The prefix tells of the short retention."""
    async with serving(sample("echo")) as client:
        answer = await client.call("POST", "runsync?wait=10000", json={"input": 5})
        assert (answer.body["status"], answer.body["output"]) == ("COMPLETED", 5)
        assert answer.body["id"].startswith("sync-")


@pytest.mark.usefixtures("short_waits")
async def test_a_wait_that_is_over_answers_with_the_job_as_it_stands() -> None:
    """Not an error: the job goes on, and must be polled."""
    async with serving(None) as client:
        answer = await client.call("POST", "runsync?wait=20", json={"input": 5})
        assert (answer.status, answer.body["status"]) == (200, "IN_QUEUE")
        await taken(client)
        answer = await client.call("GET", f"status-sync/{answer.body['id']}?wait=20")
        assert (answer.status, answer.body["status"]) == (200, "IN_PROGRESS")
        assert "executionTime" not in answer.body


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_status_is_looked_up_by_get_and_post(method: str) -> None:
    """The Go SDK posts."""
    async with serving(sample("echo")) as client:
        job_id = await client.run()
        await client.end(job_id)
        for operation in ("status", "status-sync", "stream"):
            assert (await client.call(method, f"{operation}/{job_id}")).body["status"] == "COMPLETED"


async def test_progress_is_shown_until_the_end_and_never_after() -> None:
    """It comes on the result's URL, possibly after the result (runpod-python issue 250)."""
    async with serving(None) as client:
        job_id = await client.run()
        await taken(client)
        await posted(client, job_id, {"status": "IN_PROGRESS", "output": {"pct": 40}})
        running = await client.status(job_id)
        assert (running["status"], running["output"]) == ("IN_PROGRESS", {"pct": 40})
        await posted(client, job_id, {"output": "result"})
        late = await posted(client, job_id, {"status": "IN_PROGRESS", "output": {"pct": 90}})
        assert late.status == 200  # a refusal would be tried three times
        assert (await client.status(job_id))["output"] == "result"


@pytest.mark.usefixtures("short_waits")
async def test_a_stream_is_drained_on_read_and_ends_with_the_final_status() -> None:
    """No second reader gets a chunk again."""
    async with serving(None) as client:
        job_id = await client.run()
        await taken(client)
        for value in (1, {"tok": "é"}):
            await as_worker(client, "POST", f"job-stream/w1/{job_id}?isStream=false", json={"output": value})
        first = await client.call("GET", f"stream/{job_id}")
        assert first.body == {"status": "IN_PROGRESS", "stream": [{"output": 1}, {"output": {"tok": "é"}}]}
        empty = await client.call("GET", f"stream/{job_id}?wait=20")
        assert empty.body == {"status": "IN_PROGRESS", "stream": []}
        held = asyncio.ensure_future(client.call("GET", f"stream/{job_id}"))
        await as_worker(client, "POST", f"job-stream/w1/{job_id}?isStream=false", json={"output": 3})
        assert (await held).body["stream"] == [{"output": 3}]
        await posted(client, job_id, {"output": []})
        assert (await client.call("GET", f"stream/{job_id}")).body == {"status": "COMPLETED", "stream": []}


async def test_a_long_stream_comes_a_megabyte_at_a_time_and_is_not_final_before_its_end() -> None:
    """Clients that stop at the first final status would lose the rest."""
    async with serving(None) as client:
        job_id = await client.run()
        await taken(client)
        for number in range(3):
            chunk = {"output": str(number) * 600_000}
            await as_worker(client, "POST", f"job-stream/w1/{job_id}?isStream=false", json=chunk)
        await posted(client, job_id, {"output": []})
        reads = [(await client.call("GET", f"stream/{job_id}")).body for _ in range(4)]
        assert [(read["status"], len(read["stream"])) for read in reads] == [
            ("IN_PROGRESS", 1),
            ("IN_PROGRESS", 1),
            ("COMPLETED", 1),
            ("COMPLETED", 0),
        ]


async def test_a_chunk_over_a_megabyte_is_refused() -> None:
    """As RunPod does; the job goes on."""
    async with serving(None) as client:
        job_id = await client.run()
        await taken(client)
        chunk = json.dumps({"output": "x" * 1_100_000}).encode()
        answer = await as_worker(client, "POST", f"job-stream/w1/{job_id}?isStream=false", data=chunk)
        assert (answer.status, answer.body) == (400, {"error": "bad request: body: exceeded max body size of 1MiB"})
        assert (await client.status(job_id))["status"] == "IN_PROGRESS"


async def test_cancelling_ends_a_queued_job_and_leaves_a_finished_one() -> None:
    """The answer is how the job stands after it."""
    async with serving(None) as client:
        queued, finished = await client.run(), await client.run()
        assert (await client.call("POST", f"cancel/{queued}")).body == {"id": queued, "status": "CANCELLED"}
        await taken(client)
        await posted(client, finished, {"output": 1})
        assert (await client.call("POST", f"cancel/{finished}")).body == {"id": finished, "status": "COMPLETED"}
        assert (await client.status(queued))["status"] == "CANCELLED"


async def test_retry_queues_a_failed_job_again_and_refuses_others() -> None:
    """CANCELLED can't be retried, COMPLETED neither."""
    async with serving(None) as client:
        job_id = await client.run("again")
        assert (await client.call("POST", f"retry/{job_id}")).status == 400
        await taken(client)
        await posted(client, job_id, {"error": "no"})
        assert (await client.status(job_id))["error"] == "no"
        assert (await client.call("POST", f"retry/{job_id}")).body == {"id": job_id, "status": "IN_QUEUE"}
        assert await client.status(job_id) == {"id": job_id, "status": "IN_QUEUE"}
        assert (await taken(client)).body == {"id": job_id, "input": "again"}


async def test_purging_the_queue_makes_its_jobs_unknown() -> None:
    """What /status says then is not documented: 404 is the harder of two."""
    async with serving(None) as client:
        jobs = [await client.run() for _ in range(3)]
        held = asyncio.ensure_future(client.call("GET", f"status-sync/{jobs[2]}"))
        await taken(client)
        assert (await client.call("POST", "purge-queue")).body == {"removed": 2, "status": "completed"}
        assert (await client.call("GET", f"status/{jobs[1]}")).body == {"detail": "job not found"}
        assert (await held).status == 404
        assert (await client.status(jobs[0]))["status"] == "IN_PROGRESS"


async def test_health_counts_jobs_and_workers() -> None:
    """All eleven counters, as official code requires them."""
    async with serving(None) as client:
        for _ in range(4):
            await client.run()
        for body in ({"output": 1}, {"error": 1}):
            await posted(client, (await taken(client)).body["id"], body)
        await taken(client)
        answer = await client.call("GET", "health")
        assert answer.body == {
            "jobs": {"completed": 1, "failed": 1, "inProgress": 1, "inQueue": 1, "retried": 0},
            "workers": {"idle": 0, "initializing": 0, "ready": 0, "running": 1, "throttled": 0, "unhealthy": 0},
        }


# Refusals.


@pytest.mark.parametrize(
    "token",
    ["", "Bearer", "Bearer wrong", TOKEN[:-1], f"bearer {TOKEN}", f"Bearer {TOKEN}x", "Bearer \u00e9"],
    ids=ascii,
)
async def test_a_wrong_token_is_refused_everywhere(token: str) -> None:
    """Also for endpoints and operations that don't exist: nothing is told to strangers."""
    async with serving(None) as client:
        for path in ("health", "nothing", "job-take/w1", "status/x"):
            answer = await client.call("GET", path, token=token)
            assert (answer.status, answer.body) == (401, {"error": "unauthorized"})


async def test_the_bare_token_is_taken_as_well() -> None:
    """RunPod's documentation shows curl with it, and its SDKs send Bearer before it."""
    async with serving(None) as client:
        assert (await client.call("GET", "health", token=TOKEN)).status == 200


async def test_client_and_worker_keys_are_no_use_to_each_other() -> None:
    """A worker must not be able to submit, and a client not to take."""
    async with serving(None) as client:
        assert (await as_worker(client, "GET", "health")).status == 401
        assert (await client.call("GET", "job-take/w1")).status == 401
        key = client.server.environment("ep", "w1", "/")["RUNPOD_AI_API_KEY"]
        assert (await client.call("GET", "health", token=f"Bearer {key}")).status == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "status/unknown", 404),
        ("GET", "status-sync/unknown", 404),
        ("GET", "stream/unknown", 404),
        ("POST", "cancel/unknown", 404),
        ("POST", "retry/unknown", 404),
        ("GET", "nothing", 404),
        ("GET", "", 404),
        ("GET", "status", 404),
        ("GET", "status/a/b", 404),
        ("GET", "status/a%2Fb", 404),
        ("GET", "run", 405),
        ("PUT", "run", 405),
        ("GET", "runsync", 405),
        ("DELETE", "status/x", 405),
        ("GET", "cancel/x", 405),
        ("GET", "purge-queue", 405),
        ("POST", "health", 405),
        ("GET", "status-sync/x?wait=999", 400),
        ("GET", "status-sync/x?wait=300001", 400),
        ("GET", "status-sync/x?wait=1e4", 400),
        ("GET", "status-sync/x?wait=-5", 400),
        ("GET", "status-sync/x?wait=", 400),
        ("GET", f"stream/x?wait={'9' * 5000}", 400),
        ("POST", "runsync?wait=soon", 400),
    ],
)
async def test_a_bad_request_gets_its_status_and_json(method: str, path: str, status: int) -> None:
    """Never a 500, never HTML."""
    async with serving(None) as client:
        answer = await client.call(method, path)
        assert answer.status == status
        assert isinstance(answer.body.get("detail") or answer.body.get("error"), str)


async def test_an_unknown_endpoint_is_a_404_in_runpod_s_words() -> None:
    """So it says for endpoints that a key can't see."""
    async with serving(None) as client:
        client.endpoint = "other"
        answer = await client.call("POST", "run", json={"input": 1})
        assert (answer.status, answer.body) == (404, {"detail": "endpoint not found"})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b'"input"',
        b"{}",
        b'{"inputs": 1}',
        b'{"input": NaN}',
        b'{"input": 1, "input2": 12345678901234567890, "x": Infinity}',
        b'{"input": "\xff"}',
        b'{"input": 1',
        b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"input": ' + b"1" * 5000 + b"}",
        b'{"input": 1, "policy": []}',
        b'{"input": 1, "policy": {"executionTimeout": "5000"}}',
        b'{"input": 1, "policy": {"executionTimeout": true}}',
        b'{"input": 1, "policy": {"executionTimeout": 5000.5}}',
        b'{"input": 1, "policy": {"executionTimeout": 0}}',
        b'{"input": 1, "policy": {"ttl": -1}}',
        b'{"input": 1, "policy": {"ttl": 604800001}}',
        b'{"input": 1, "policy": {"ttl": 99999999999999999999}}',
        b'{"input": 1, "policy": {"lowPriority": "yes"}}',
    ],
    ids=lambda body: body[:40].decode(errors="replace"),
)
async def test_a_malformed_submit_is_refused_and_queues_nothing(body: bytes) -> None:
    """400 with a reason, whatever is sent."""
    async with serving(None) as client:
        for operation in ("run", "runsync?wait=1000"):
            answer = await client.call("POST", operation, data=body)
            assert answer.status == 400
            assert answer.body["error"].startswith("bad request: body: ")
        assert (await client.health("jobs"))["inQueue"] == 0


async def test_inputs_nested_at_any_depth_are_taken_or_refused() -> None:
    """Parsers and writers stop at different depths; in between is no 500."""
    async with serving(None) as client:
        for depth in (100, 250, 260, 500, *range(900, 1100, 7)):
            body = b'{"input": ' + b"[" * depth + b"]" * depth + b"}"
            answer = await client.call("POST", "run", data=body)
            assert answer.status in (200, 400), depth
        assert (await client.health("jobs"))["inQueue"] >= 3


@pytest.mark.parametrize(("operation", "limit_mib"), [("run", 10), ("runsync?wait=1000", 20)], ids=["run", "runsync"])
async def test_a_body_at_the_limit_is_taken_and_one_over_it_refused(operation: str, limit_mib: int) -> None:
    """In the words of the real gateway; with and without a Content-Length."""
    async with serving(None) as client:

        async def chunked(data: bytes) -> Any:
            yield data

        def body(size: int) -> bytes:
            return b'{"input":"' + b"x" * (size - 12) + b'"}'

        at, over = body(limit_mib * 1024 * 1024), body(limit_mib * 1024 * 1024 + 1)
        assert (await client.call("POST", operation, data=at)).status == 200
        for data in (over, chunked(over)):
            answer = await client.call("POST", operation, data=data)
            words = f"bad request: body: exceeded max body size of {limit_mib}MiB"
            assert (answer.status, answer.body) == (400, {"error": words})


async def test_compressed_bodies_are_refused() -> None:
    """Nothing documents that RunPod takes them, and a small one can unpack to gigabytes."""
    async with serving(None) as client:
        data = gzip.compress(b'{"input": 1}')
        answer = await client.call("POST", "run", data=data, headers={"Content-Encoding": "gzip"})
        assert (answer.status, answer.body["error"]) == (400, "bad request: body: Content-Encoding is not supported")


@pytest.mark.parametrize(
    "rest",
    [b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", b"Content-Length: x\r\n\r\n{}", b"Content-Length: 9\r\n\r\n{}"],
    ids=["bad chunk", "bad length", "cut short"],
)
async def test_a_request_that_breaks_http_harms_nobody(rest: bytes) -> None:
    """No job comes of it, and no error of ours; the next request is served."""
    async with serving(None) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
        head = f"POST /v2/ep/run HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
        writer.write(head + rest)
        writer.write_eof()
        answer = await reader.read()
        assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.0 400", b"")
        writer.close()
        await writer.wait_closed()
        assert (await client.health("jobs"))["inQueue"] == 0


async def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    """Curl waits a second for it on every large body."""
    async with serving(None) as client:
        answer = await client.call("POST", "run", json={"input": 1}, expect100=True)
        assert answer.status == 200


# Workers.


async def test_a_take_is_held_until_a_job_comes() -> None:
    """A worker does not pause after an empty answer: it would spin."""
    async with serving(None) as client:
        held = asyncio.ensure_future(taken(client))
        await eventually(lambda: _workers_are(client, idle=1))
        job_id = await client.run({"n": 1})
        assert (await held).body == {"id": job_id, "input": {"n": 1}}


async def _workers_are(client: Client, **expected: int) -> bool:
    counters = await client.health("workers")
    return all(counters[name] == number for name, number in expected.items())


async def test_a_batch_take_gives_at_most_what_was_asked_for() -> None:
    """More would block the worker's taker."""
    async with serving(None) as client:
        jobs = [await client.run(number) for number in range(3)]
        batches = [
            (await as_worker(client, "GET", "job-take-batch/w1?gpu=X&batch_size=2&job_in_progress=1")).body
            for _ in range(2)
        ]
        assert [[job["id"] for job in batch] for batch in batches] == [jobs[:2], jobs[2:]]
        for size in ("0", "x", "9" * 5000):
            assert (await as_worker(client, "GET", f"job-take-batch/w1?batch_size={size}")).status == 400


async def test_a_worker_that_hangs_up_gets_no_job() -> None:
    """Its request is over at once, and the job goes to the next."""
    async with serving(None) as client:
        gone = asyncio.ensure_future(taken(client, "w1"))
        await eventually(lambda: _workers_are(client, idle=1))
        gone.cancel()
        await eventually(lambda: _workers_are(client, idle=0))
        job_id = await client.run()
        assert (await taken(client, "w2")).body["id"] == job_id
        assert (await client.status(job_id))["workerId"] == "w2"


async def test_a_job_that_its_worker_knows_nothing_of_is_queued_again() -> None:
    """It was lost between us: the worker asks for one and says it has none."""
    async with serving(None) as client:
        job_id = await client.run()
        await taken(client, "w1")
        assert (await taken(client, "w1", busy=0)).body["id"] == job_id
        assert (await client.status(job_id))["retries"] == 1
        held = asyncio.ensure_future(taken(client, "w1", busy=0))
        await client.end(job_id)
        held.cancel()
        assert (await client.status(job_id))["error"] == "job timed out after 1 retries"


async def test_a_foreign_worker_is_told_to_stop_a_cancelled_job() -> None:
    """The stop channel is held like a take, and each order is given once."""
    async with serving(None) as client:
        job_id = await client.run()
        await taken(client)
        held = asyncio.ensure_future(as_worker(client, "GET", "job-stop/w1?gpu=X"))
        await client.call("POST", f"cancel/{job_id}")
        assert (await held).body == {"jobsToStop": [job_id]}


@pytest.mark.parametrize(
    "body", [b"{", b'{"output": NaN}', b"[1]", b'{"output": "' + b"x" * (21 * 1024 * 1024) + b'"}'],
    ids=["cut", "nan", "list", "21 MiB"],
)  # fmt: skip
async def test_a_result_that_can_t_be_taken_completes_the_job_without_output(body: bytes) -> None:
    """That is what RunPod's users see (runpod-python issue 309); the worker is not asked to try again."""
    async with serving(None) as client:
        job_id = await client.run()
        await taken(client)
        assert (await posted(client, job_id, body)).status == 400
        end = await client.status(job_id)
        assert end["status"] == "COMPLETED"
        assert not {"output", "error"} & set(end)


async def test_posts_for_unknown_jobs_are_no_server_errors() -> None:
    """A 5xx would be tried again for seconds."""
    async with serving(None) as client:
        assert (await posted(client, "unknown", {"output": 1})).status == 200
        assert (await as_worker(client, "POST", "job-stream/w1/unknown", json={"output": 1})).status == 200
        assert (await as_worker(client, "GET", "ping/w1?gpu=X&job_id=a,b&runpod_version=1.12.0")).status == 200


# Limits of time.


async def test_a_passed_ttl_makes_a_job_unknown_and_wakes_who_waits() -> None:
    """404, though the worker would have finished it."""
    async with serving(None) as client:
        job_id = await client.run(ttl=50)
        assert (await client.call("GET", f"status-sync/{job_id}")).status == 404


async def test_results_are_gone_when_their_retention_is_over() -> None:
    """A client that comes back too late must see that, not a success."""
    async with serving(sample("echo"), retention_s=0.05, sync_retention_s=0.05) as client:
        job_id = await client.run()
        await eventually(lambda: _is_unknown(client, job_id))


async def _is_unknown(client: Client, job_id: str) -> bool:
    return (await client.call("GET", f"status/{job_id}")).status == 404


# The server itself.


async def test_leaving_answers_everybody_who_waits() -> None:
    """Held requests end promptly, with what is known."""
    async with aiohttp.ClientSession() as session:
        async with serving(None) as client:
            client.session = session
            job_id = await client.run()
            held = [
                asyncio.ensure_future(client.call("GET", f"{operation}/{job_id}"))
                for operation in ("status-sync", "stream")
            ]
            held.append(asyncio.ensure_future(client.call("POST", "runsync", json={"input": 1})))
            await eventually(lambda: _queue_is(client, 2))
            await asyncio.sleep(0)
        answers = await asyncio.gather(*held)
        assert [(answer.status, answer.body["status"]) for answer in answers] == [(200, "IN_QUEUE")] * 3


async def _queue_is(client: Client, size: int) -> bool:
    return (await client.health("jobs"))["inQueue"] == size


async def test_the_block_s_own_error_comes_out_as_it_is() -> None:
    """Not wrapped in a group of exceptions."""
    with pytest.raises(ZeroDivisionError):
        async with serving(sample("echo")):
            raise ZeroDivisionError


@pytest.mark.usefixtures("short_waits")
async def test_the_log_tells_what_was_accepted_and_how_it_ended(tmp_path: Path) -> None:
    """The other side's story: tests compare it with the batch's."""
    path = tmp_path / "accepted.jsonl"
    path.write_text('{"event": "earlier"}\n')
    async with serving(None, log=path) as client:
        first = await client.run({"b": 1, "a": 2})
        await taken(client)
        await posted(client, first, {"error": "x"})
        await client.call("POST", f"retry/{first}")
        sync = (await client.call("POST", "runsync?wait=20", json={"input": 1})).body["id"]
        await client.call("GET", f"status/{first}", headers={"User-Agent": "me/1.0" + "x" * 100})
        await client.call("POST", "purge-queue")
        await client.call("GET", f"status/{first}")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    events = [(line["event"], line.get("operation"), line.get("job_id"), line.get("status")) for line in lines]
    assert events == [
        ("earlier", None, None, None),
        ("accepted", "run", first, None),
        ("asked", "run", first, 200),
        ("done", None, first, "FAILED"),
        ("accepted", "retry", first, None),
        ("asked", "retry", first, 200),
        ("accepted", "runsync", sync, None),
        ("asked", "runsync", sync, 200),
        ("asked", "status", first, 200),
        ("done", None, first, None),
        ("done", None, sync, None),
        ("asked", "purge-queue", None, 200),
        ("asked", "status", first, 404),
    ]
    assert lines[1]["input"] == input_hash({"a": 2, "b": 1}) == lines[4]["input"]
    assert (lines[1]["endpoint"], len(lines[1]["input"])) == ("ep", 32)
    assert lines[8]["client"] == "me/1.0" + "x" * 74
    assert lines[8]["fault"] is None


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "example.com", ""])
def test_only_loopback_is_served(host: str) -> None:
    """Whoever reaches the port can run code."""
    with pytest.raises(UsageError, match="loopback"):
        LocalServer([], token=TOKEN, host=host)


async def test_a_taken_port_is_a_usage_error_with_a_fix() -> None:
    """And nothing is left behind by the attempt."""
    with socket.create_server(("127.0.0.1", 0)) as taken_socket:
        port = taken_socket.getsockname()[1]
        with pytest.raises(UsageError, match=f"can't listen on 127.0.0.1 port {port}: ") as caught:
            async with serving(sample("echo"), port=port):
                pass
        assert caught.value.fix == "choose another port, or 0 for any free one"
    with pytest.raises(UsageError, match="can't listen"):
        async with serving(None, port=99_999):
            pass


@pytest.mark.parametrize(
    ("served", "words"),
    [
        ([Served("a b", None)], "'a b' can't be an endpoint id"),
        ([Served("", None)], "'' can't be an endpoint id"),
        ([Served("a", None), Served("a", None)], "two endpoints are named 'a'"),
        ([Served("a", "x.py:f", workers=0)], "endpoint 'a' needs at least 1 worker, found 0"),
    ],
)
def test_endpoints_that_can_t_be_served_are_usage_errors(served: list[Served], words: str) -> None:
    """Said before anything starts."""
    with pytest.raises(UsageError) as caught:
        LocalServer(served, token=TOKEN)
    assert caught.value.message == words
    with pytest.raises(UsageError, match="token is too short"):
        LocalServer([], token="")


async def test_every_endpoint_has_its_own_jobs() -> None:
    """Asking for a job through another endpoint is a 404."""
    served = [Served("one", sample("echo")), Served("two", sample("whole_job"))]
    async with LocalServer(served, token=TOKEN) as server, aiohttp.ClientSession() as session:
        one, two = Client(server, session, "one"), Client(server, session, "two")
        job_id = await one.run(1)
        assert (await one.end(job_id))["output"] == 1
        assert (await two.call("GET", f"status/{job_id}")).status == 404
        assert (await two.result({"x": 1}))["output"]["input"] == {"x": 1}
