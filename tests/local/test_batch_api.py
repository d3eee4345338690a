"""The local endpoint speaks RunPod's Batch API: drafts, states, limits, pages, and workers that run the requests."""

import asyncio
import json
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from batch_calls import counts, done, draft, ok, requests, take
from sdk import needs_sdk
from serving import TOKEN, Client, eventually, sample, serving
from threaded import shared

from runner.local.accepted import input_hash
from runner.local.server import LocalServer, Served

WORKERS = Path(__file__).parents[1] / "data/workers"


async def test_a_batch_goes_from_a_draft_to_done_and_stays_finalized() -> None:
    """With the shapes of the docs: counts, times in milliseconds here and as text there, output or error."""
    began = time.time()
    async with serving(sample("batched")) as client:
        created = await client.call("POST", "batch", json=[])
        assert (created.status, set(created.body)) == (200, {"id", "status", "requests"})
        assert (created.body["status"], created.body["requests"]) == ("DRAFT", [])
        batch_id = created.body["id"]
        body = {"requests": requests([1, "fail", None])}
        appended = await ok(client, "POST", f"batch/{batch_id}/requests", json=body)
        assert appended == {"id": batch_id, "status": "DRAFT", "requests": appended["requests"]}
        ids = [one["id"] for one in appended["requests"]]
        finalized = await ok(client, "POST", f"batch/{batch_id}/finalize")
        assert (finalized["id"], finalized["status"]) == (batch_id, "FINALIZED")

        async def stands() -> bool:
            found = await ok(client, "GET", f"batch/{batch_id}")
            return bool(found["requestCompleted"] + found["requestFailed"] == found["requestTotal"])

        await eventually(stands)
        summary = await ok(client, "GET", f"batch/{batch_id}")
        created_at = summary.pop("createdAt")
        assert isinstance(created_at, int)
        assert began - 1 <= created_at / 1000 <= time.time()
        assert summary == {
            "id": batch_id,
            "endpointId": "ep",
            "status": "FINALIZED",
            "requestTotal": 3,
            "requestInProgress": 0,
            "requestCompleted": 2,
            "requestFailed": 1,
        }
        page = await ok(client, "GET", f"batch/{batch_id}/requests")
        found = page.pop("requests")
        assert page == {"total": 3, "offset": 0, "limit": 50, "hasMore": False}
        for one in found:
            started, ended = (datetime.fromisoformat(one.pop(key)).timestamp() for key in ("startedAt", "completedAt"))
            assert began - 1 <= started <= ended <= time.time()
        assert [one["id"] for one in found] == ids
        assert [one["status"] for one in found] == ["COMPLETED", "FAILED", "COMPLETED"]
        assert found[0]["output"] == {"input": 1, "batch": batch_id}
        assert "no good" in found[1]["error"]
        assert "output" not in found[1]
        assert "error" not in found[0]


async def test_nothing_runs_until_it_is_finalized() -> None:
    """A draft is free, and so is what is removed from it; what comes after the finalize is refused."""
    async with serving(None) as client:
        batch = await draft(client, ["a", "b"])
        ids = [one["id"] for one in await batch.all()]
        more = await batch.append(["c"])
        assert counts(await batch.get()) == ("DRAFT", 3, 0, 0, 0)
        removed = await ok(client, "DELETE", f"batch/{batch.id}/requests/{ids[1]}")
        assert removed["requestTotal"] == 2
        again = await client.call("DELETE", f"batch/{batch.id}/requests/{ids[1]}")
        assert (again.status, again.body) == (404, {"detail": "request not found"})
        asking = asyncio.create_task(take(client))
        await batch.get()
        assert not asking.done()
        await batch.finalize()
        job = await asking
        assert job == {"id": ids[0], "input": "a", "batchId": batch.id}
        assert counts(await batch.get()) == ("FINALIZED", 2, 1, 0, 0)
        await done(client, job["id"], output=1)
        assert counts(await batch.get()) == ("FINALIZED", 2, 0, 1, 0)
        assert (await take(client))["id"] == more[0]
        for method, path, what in [
            ("POST", "requests", "requests can be added"),
            ("DELETE", f"requests/{ids[0]}", "requests can be removed"),
            ("POST", "finalize", "it can be finalized"),
        ]:
            options: dict[str, Any] = {"json": {"requests": []}} if path == "requests" else {}
            answer = await client.call(method, f"batch/{batch.id}/{path}", **options)
            expected = f"{what} while it is a DRAFT only, and the batch is FINALIZED"
            assert (answer.status, answer.body) == (409, {"error": expected})


async def test_batches_are_listed_newest_first_under_the_names_they_were_given() -> None:
    """A client finds a draft again that it lost, by its own name for it."""
    async with serving(None) as client:
        assert await ok(client, "GET", "batch") == {"batches": []}
        batches = [await draft(client) for _ in range(3)]
        named = await ok(client, "PUT", f"batch/{batches[1].id}", json={"name": "nightly é 1/3"})
        assert named["name"] == "nightly é 1/3"
        await ok(client, "PUT", f"batch/{batches[2].id}", json={"displayName": "x", "other": 1})
        listed = (await ok(client, "GET", "batch"))["batches"]
        assert [one["id"] for one in listed] == [one.id for one in reversed(batches)]
        assert [(one.get("name"), one.get("displayName")) for one in listed] == [
            (None, "x"),
            ("nightly é 1/3", None),
            (None, None),
        ]
        assert listed[1] == await batches[1].get()


async def test_cancelling_drops_what_is_queued_and_drains_what_runs() -> None:
    """CANCELLED only when nothing runs any more; what ran is billed, and has its result."""
    async with serving(None) as client:
        batch = await draft(client, range(4))
        await batch.finalize()
        first, second = await take(client), await take(client)
        assert counts(await batch.cancel()) == ("FINALIZED", 4, 2, 0, 0)
        await done(client, first["id"], output="ran")
        assert counts(await batch.get()) == ("FINALIZED", 4, 1, 1, 0)
        await done(client, second["id"], error="broke")
        assert counts(await batch.get()) == ("CANCELLED", 4, 0, 1, 1)
        assert [one["status"] for one in await batch.all()] == ["COMPLETED", "FAILED", "CANCELLED", "CANCELLED"]
        assert counts(await batch.cancel()) == ("CANCELLED", 4, 0, 1, 1)
        job_id = await client.run("other")
        assert (await take(client))["id"] == job_id


async def test_a_draft_that_is_cancelled_never_costs_anything() -> None:
    """It is over at once, and can't be finalized."""
    async with serving(None) as client:
        batch = await draft(client, range(2))
        assert counts(await batch.cancel()) == ("CANCELLED", 2, 0, 0, 0)
        answer = await client.call("POST", f"batch/{batch.id}/finalize")
        assert answer.status == 409
        job_id = await client.run("other")
        assert (await take(client))["id"] == job_id


async def test_a_batch_that_is_done_is_not_cancelled_any_more() -> None:
    """An empty one is done when it is finalized."""
    async with serving(None) as client:
        batch = await draft(client)
        assert counts(await batch.finalize()) == ("FINALIZED", 0, 0, 0, 0)
        assert counts(await batch.cancel()) == ("FINALIZED", 0, 0, 0, 0)
        assert await batch.page() == {"requests": [], "total": 0, "offset": 0, "limit": 50, "hasMore": False}


async def test_requests_of_batches_stay_apart_from_jobs() -> None:
    """Not in /health's counters, not purged, not found by the operations of jobs, and last in line."""
    async with serving(None) as client:
        batch = await draft(client, ["batched"])
        await batch.finalize()
        job_id = await client.run("queued")
        jobs = await client.health("jobs")
        assert jobs == {"completed": 0, "failed": 0, "inProgress": 0, "inQueue": 1, "retried": 0}
        assert (await take(client))["id"] == job_id
        await done(client, job_id, output=1)
        assert (await ok(client, "POST", "purge-queue"))["removed"] == 0
        request = await take(client)
        assert request["input"] == "batched"
        assert (await client.health("jobs"))["inProgress"] == 0
        for method, path in [("GET", "status"), ("POST", "cancel"), ("POST", "retry"), ("GET", "stream")]:
            answer = await client.call(method, f"{path}/{request['id']}")
            assert (answer.status, answer.body) == (404, {"detail": "job not found"})
        await done(client, request["id"], output=2)
        assert counts(await batch.get()) == ("FINALIZED", 1, 0, 1, 0)
        jobs = await client.health("jobs")
        assert jobs == {"completed": 1, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 0}


async def test_an_endpoint_has_ten_active_batches_and_a_batch_five_thousand_requests() -> None:
    """Drafts count as active until they are cancelled, finalized ones until they are done."""
    async with serving(None) as client:
        batches = [await draft(client) for _ in range(10)]
        answer = await client.call("POST", "batch", json=[])
        assert (answer.status, answer.body) == (429, {"error": "at most 10 batches can be active"})
        await batches[0].cancel()
        await batches[1].finalize()
        await draft(client)
        full = await draft(client, range(4_999))
        expected = (400, {"error": "a batch can have at most 5000 requests"})
        answer = await client.call("POST", f"batch/{full.id}/requests", json={"requests": requests([1, 2])})
        assert (answer.status, answer.body) == expected
        await full.append([1])
        assert counts(await full.get()) == ("DRAFT", 5_000, 0, 0, 0)
        await batches[2].cancel()
        answer = await client.call("POST", "batch", json=requests(range(5_001)))
        assert (answer.status, answer.body) == expected


async def test_an_endpoint_queues_at_most_fifty_thousand_requests() -> None:
    """Ten full batches fill it; the limit shows where it is set lower."""
    async with serving(None) as client:
        endpoint = client.server._endpoints["ep"]
        assert endpoint.batches.limits.queued == 50_000
        endpoint.batches.limits = type(endpoint.batches.limits)(queued=5)
        first, second = await draft(client, range(3)), await draft(client, range(3))
        await first.finalize()
        answer = await client.call("POST", f"batch/{second.id}/finalize")
        assert (answer.status, answer.body) == (429, {"error": "at most 5 requests can be queued"})
        assert counts(await second.get()) == ("DRAFT", 3, 0, 0, 0)
        await take(client)
        await second.finalize()


BAD: list[tuple[str, str, dict[str, Any], int, dict[str, str]]] = [
    ("POST", "batch", {"json": {}}, 400, {"error": "bad request: body: must be a JSON array"}),
    ("POST", "batch", {"json": [{}]}, 400, {"error": "bad request: body: request 0: 'input' is required"}),
    (
        "POST",
        "batch",
        {"json": [{"input": 1}, 2]},
        400,
        {"error": "bad request: body: request 1: must be a JSON object"},
    ),
    (
        "POST",
        "batch/{}/requests",
        {"json": []},
        400,
        {"error": "bad request: body: must be a JSON object with 'requests', an array"},
    ),
    (
        "PUT",
        "batch/{}",
        {"json": {"title": "x"}},
        400,
        {"error": "bad request: body: must be a JSON object with one of name, displayName"},
    ),
    ("PUT", "batch/{}", {"json": {"name": 1}}, 400, {"error": "bad request: body: 'name' must be a text"}),
    ("GET", "batch/{}/requests?offset=-1", {}, 400, {"error": "bad request: query: 'offset' must be a whole number"}),
    ("GET", "batch/{}/requests?limit=x", {}, 400, {"error": "bad request: query: 'limit' must be a whole number"}),
    ("GET", "batch/{}/requests?limit=0", {}, 400, {"error": "bad request: query: 'limit' must be positive"}),
    ("GET", "batch/unknown", {}, 404, {"detail": "batch not found"}),
    ("POST", "batch/unknown/finalize", {}, 404, {"detail": "batch not found"}),
    ("GET", "batch/{}/other", {}, 404, {"detail": "operation not found"}),
    ("GET", "batch/{}/finalize", {}, 405, {"detail": "method not allowed"}),
    ("DELETE", "batch/{}", {}, 405, {"detail": "method not allowed"}),
]


async def test_what_is_malformed_or_unknown_is_refused_and_changes_nothing() -> None:
    """With 4xx codes that are guesses, and words that say what was wrong."""
    async with serving(None) as client:
        batch = await draft(client, [1])
        for method, path, options, status, body in BAD:
            answer = await client.call(method, path.format(batch.id), **options)
            assert (answer.status, answer.body) == (status, body), path
        large = b'[{"input": "' + b"x" * 10 * 1024 * 1024 + b'"}]'
        answer = await client.call("POST", "batch", data=large)
        assert answer.body == {"error": "bad request: body: exceeded max body size of 10MiB"}
        assert answer.status == 400
        assert (await client.call("GET", "batch", token="Bearer wrong")).status == 401
        assert len((await ok(client, "GET", "batch"))["batches"]) == 1
        assert counts(await batch.get()) == ("DRAFT", 1, 0, 0, 0)


async def test_pages_show_every_request_once_and_say_whether_more_follow() -> None:
    """Whatever the size of the page; more than a thousand are not given at once."""
    async with serving(None) as client:
        batch = await draft(client, range(1_003))
        ids = [one["id"] for one in await batch.all()]
        assert len(set(ids)) == 1_003
        assert [one["id"] for one in await batch.all(limit=50)] == ids
        assert {key: value for key, value in (await batch.page("?limit=5000")).items() if key != "requests"} == {
            "total": 1_003,
            "offset": 0,
            "limit": 1_000,
            "hasMore": True,
        }
        assert (await batch.page("?offset=1003"))["requests"] == []
        assert set((await batch.page("?limit=1"))["requests"][0]) == {"id", "status"}


async def test_a_batch_is_forgotten_some_time_after_its_end() -> None:
    """As long as a /run job's result is kept; a draft stays."""
    async with serving(sample("echo"), retention_s=0.3) as client:
        kept, batch = await draft(client, [1]), await draft(client, [1])
        await batch.finalize()

        async def is_gone() -> bool:
            return (await client.call("GET", f"batch/{batch.id}")).status == 404

        await eventually(is_gone)
        assert [one["id"] for one in (await ok(client, "GET", "batch"))["batches"]] == [kept.id]


async def test_results_are_kept_while_the_batch_goes_on() -> None:
    """Though a job's result would be gone by then."""
    async with serving(None, retention_s=0.05) as client:
        batch = await draft(client, range(2))
        await batch.finalize()
        first = await take(client)
        await done(client, first["id"], output="kept")
        await eventually(lambda: client.server._endpoints["ep"].jobs.find(first["id"]) is None)
        assert [one.get("output") for one in await batch.all()] == ["kept", None]


async def test_a_request_that_kills_its_worker_fails_and_the_rest_goes_on() -> None:
    """As a job does, the second time; what was to be dropped meanwhile is not run again."""
    async with serving(sample("dies"), workers=2) as client:
        batch = await draft(client, ["exit", "fine", "kill"])
        await batch.finalize()
        assert counts(await batch.until_done(30.0)) == ("FINALIZED", 3, 0, 1, 2)
        assert [one.get("error") for one in await batch.all()] == [
            "job timed out after 1 retries",
            None,
            "job timed out after 1 retries",
        ]


async def test_a_request_whose_worker_dies_while_its_batch_is_cancelled_is_dropped() -> None:
    """It is no longer what runs."""
    async with serving(None) as client:
        batch = await draft(client, range(2))
        await batch.finalize()
        await take(client)
        assert counts(await batch.cancel()) == ("FINALIZED", 2, 1, 0, 0)
        client.server._endpoints["ep"].crew.gone("w1")
        assert counts(await batch.get()) == ("CANCELLED", 2, 0, 0, 0)


async def test_execution_timeout_holds_for_requests_and_their_ttl_does_not() -> None:
    """Batches wait for hours; a handler that hangs must not."""
    async with serving(sample("gate")) as client:
        policy = {"executionTimeout": 100, "ttl": 1}
        body = [{"input": "/nowhere", "policy": policy}, {"input": "/nowhere", "policy": policy}]
        batch_id = (await ok(client, "POST", "batch", json=body))["id"]
        await ok(client, "POST", f"batch/{batch_id}/finalize")

        async def has_failed() -> bool:
            return bool((await ok(client, "GET", f"batch/{batch_id}"))["requestFailed"] == 2)

        await eventually(has_failed)


async def test_the_log_tells_what_was_committed_and_what_of_it_ran(tmp_path: Path) -> None:
    """Nothing before the finalize; dropped requests are CANCELLED, the others were paid for."""
    log = tmp_path / "log.jsonl"

    def events(kind: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in log.read_bytes().splitlines()]
        return [line for line in lines if line["event"] == kind]

    async with serving(None, log=log) as client:
        batch = await draft(client, ["a", "b"])
        assert events("accepted") == []
        await batch.finalize()
        ids = [one["id"] for one in await batch.all()]
        assert [(one["operation"], one["job_id"], one["input"]) for one in events("accepted")] == [
            ("batch", ids[0], input_hash("a")),
            ("batch", ids[1], input_hash("b")),
        ]
        await take(client)
        await batch.cancel()
        await done(client, ids[0], output=1)
        assert [(one["job_id"], one["status"]) for one in events("done")] == [
            (ids[1], "CANCELLED"),
            (ids[0], "COMPLETED"),
        ]
        told = [(one["operation"], one["job_id"], one["status"]) for one in events("asked")]
        assert told == [
            ("batch-create", batch.id, 200),
            ("batch-finalize", batch.id, 200),
            ("batch-requests", batch.id, 200),
            ("batch-cancel", batch.id, 200),
        ]


async def test_twelve_thousand_requests_in_three_batches_run_once_each(tmp_path: Path) -> None:
    """Through worker processes, in bounded time, while they are followed."""
    log = tmp_path / "log.jsonl"
    # In a thread: the loop of a test is in debug mode, which makes the endpoint three times as slow.
    with shared([Served("ep", sample("echo"), workers=2)], log=log) as served:
        async with served.client("ep") as client:
            batches = []
            for start in range(0, 12_000, 4_000):
                batch = await draft(client)
                for first in range(start, start + 4_000, 500):
                    await batch.append(range(first, first + 500))
                await batch.finalize()
                batches.append(batch)
            for batch in batches:
                assert counts(await batch.until_done(120.0, every_s=0.2)) == ("FINALIZED", 4_000, 0, 4_000, 0)
            outputs = [one["output"] for batch in batches for one in await batch.all()]
    assert outputs == list(range(12_000))
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert set(Counter(line["input"] for line in lines if line["event"] == "accepted").values()) == {1}
    ends = Counter(line["job_id"] for line in lines if line["event"] == "done")
    assert len(ends) == 12_000
    assert set(ends.values()) == {1}


@needs_sdk
async def test_a_real_worker_runs_the_requests_of_a_batch() -> None:
    """Unmodified, built on the `runpod` package: it hands ``batchId`` on to its handler."""
    served = Served("ep", None, command=[sys.executable, "real.py", "plain"], folder=WORKERS)
    async with (
        LocalServer([served], token=TOKEN) as server,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
    ):
        client = Client(server, session)
        batch = await draft(client, [{"odd": "whole job"}, {"return": {"error": "no"}}])
        await batch.finalize()
        assert counts(await batch.until_done(60.0)) == ("FINALIZED", 2, 0, 1, 1)
        first, second = await batch.all()
        assert first["output"] == {"id": first["id"], "input": {"odd": "whole job"}, "batchId": batch.id}
        assert second["error"] == "no"


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS"])
async def test_other_methods_are_told_which_there_are(method: str) -> None:
    """Each path has its own."""
    async with serving(None) as client:
        assert (await client.call(method, "batch")).headers["Allow"] == "GET, POST"
