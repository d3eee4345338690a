import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fake_http import RawServer, Reply, answer
from serving import Client, eventually, sample, serving

from runner.local.webhook import WebhookTerms

AT_ONCE = WebhookTerms(pause_s=0.0)
TAKEN = Reply(answer(b""))
FAILING = Reply(answer(b"", status="500 Internal Server Error"))


async def submit(client: Client, url: str, input_: Any = "x") -> str:
    """Submit a job whose end is to be told at *url*."""
    job_id: str = (await client.call("POST", "run", json={"input": input_, "webhook": url})).body["id"]
    return job_id


async def test_a_job_s_end_is_told_with_its_status_its_input_and_the_url() -> None:
    """The status object with two more fields, as RunPod's users see it."""
    async with serving(sample("echo")) as client, RawServer(TAKEN) as receiver:
        url = f"{receiver.url}/hook?secret=1"
        job_id = await submit(client, url, {"n": 1})
        await receiver.asked.wait()
        told = receiver.requests[0]
        assert told.head.startswith("POST /hook?secret=1 HTTP/1.1\r\n")
        assert "\r\nContent-Type: application/json\r\n" in told.head
        assert "uthorization" not in told.head
        expected = await client.status(job_id) | {"input": {"n": 1}, "webhook": url}
        assert json.loads(told.body) == expected


@pytest.mark.parametrize(
    ("handler", "operation", "status"),
    [("raises", "run", "FAILED"), ("echo", "runsync", "COMPLETED")],
)
async def test_every_end_is_told(handler: str, operation: str, status: str) -> None:
    """Failures above all; of /runsync too."""
    async with serving(sample(handler)) as client, RawServer(TAKEN) as receiver:
        await client.call("POST", operation, json={"input": "x", "webhook": receiver.url})
        await receiver.asked.wait()
        assert json.loads(receiver.requests[0].body)["status"] == status


async def test_a_cancelled_job_is_told_and_a_purged_one_is_not() -> None:
    """Of a job that is gone there is nothing to tell."""
    async with serving(None) as client, RawServer(TAKEN) as receiver:
        await submit(client, receiver.url)
        await client.call("POST", "purge-queue")
        job_id = await submit(client, receiver.url)
        await client.call("POST", f"cancel/{job_id}")
        await receiver.asked.wait()
        assert [json.loads(one.body)["id"] for one in receiver.requests] == [job_id]


@pytest.mark.parametrize(
    ("replies", "tries"),
    [([FAILING, TAKEN], 2), ([FAILING], 3), ([Reply(answer(b"", status="302 Found", headers=["Location: /"]))], 3)],
    ids=["taken at the second try", "never taken", "redirects are not followed"],
)
async def test_three_tries_are_made_until_one_is_answered_with_200(
    replies: list[Reply], tries: int, tmp_path: Path
) -> None:
    """And no more: who missed them must look for himself."""
    path = tmp_path / "log.jsonl"

    def logged() -> list[int | None]:
        events = [json.loads(line) for line in path.read_text().splitlines()]
        return [event["status"] for event in events if event["event"] == "webhook"]

    async with serving(sample("echo"), webhooks=AT_ONCE, log=path) as client, RawServer(*replies) as receiver:
        await submit(client, receiver.url)
        await eventually(lambda: len(logged()) == tries)
        assert len(receiver.requests) == tries
        assert logged()[:1] == [302 if b"302" in replies[0].data else 500]


async def test_a_receiver_that_is_not_there_harms_nobody(tmp_path: Path) -> None:
    """Three tries, and the server goes on."""
    path = tmp_path / "log.jsonl"
    async with serving(sample("echo"), webhooks=AT_ONCE, log=path) as client:
        async with RawServer(TAKEN) as receiver:
            url = receiver.url
        job_id = await submit(client, url)
        await eventually(lambda: path.read_text().count('"webhook"') == 3)
        assert (await client.status(job_id))["status"] == "COMPLETED"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://169.254.169.254/latest", "webhooks are not sent: '169.254.169.254' is not this machine"),
        ("http://example.com/x?token=secret", "webhooks are not sent: 'example.com' is not this machine"),
        ("http://127.0.0.1.nip.io/", "webhooks are not sent: '127.0.0.1.nip.io' is not this machine"),
        ("ftp://127.0.0.1/", "webhooks are not sent: that is no http URL"),
        ("not a url", "webhooks are not sent: that is no http URL"),
        ("http://[::1", "webhooks are not sent: that is no http URL"),
    ],
)
async def test_nothing_is_sent_beyond_this_machine(url: str, words: str) -> None:
    """Whoever may submit could reach what only this machine reaches. Said once, without secrets."""
    async with serving(sample("echo"), webhooks=AT_ONCE) as client:
        for _ in range(2):
            await client.end(await submit(client, url))
        assert client.lines == [words]


async def test_webhooks_may_be_sent_anywhere_where_that_is_asked_for() -> None:
    """To a name, for one; that it can't be reached is not our affair."""
    async with serving(sample("echo"), webhooks=WebhookTerms(anywhere=True, pause_s=0.0)) as client:
        job_id = await submit(client, "http://nowhere.invalid/")
        assert (await client.end(job_id))["status"] == "COMPLETED"
        assert client.lines == []


async def test_the_server_ends_though_a_webhook_is_not_told_yet() -> None:
    """The next try would be in 10 s."""
    async with RawServer(FAILING) as receiver, asyncio.timeout(8), serving(sample("echo")) as client:
        await submit(client, receiver.url)
        await receiver.asked.wait()


@pytest.mark.parametrize("value", [1, True, [], {}, "\ud800"], ids=ascii)
async def test_a_webhook_that_is_no_text_is_refused(value: Any) -> None:
    """Before anything is queued."""
    async with serving(None) as client:
        body = json.dumps({"input": 1, "webhook": value}).encode()
        answer = await client.call("POST", "run", data=body)
        assert (answer.status, answer.body) == (400, {"error": "bad request: body: 'webhook' must be a URL"})


async def test_the_worker_gets_webhook_and_s3_config_with_the_job() -> None:
    """The handler's code may want them; nobody else gets to see the secrets."""
    s3_config = {"accessId": "a", "accessSecret": "s", "bucketName": "b", "endpointUrl": "https://s3.invalid"}
    async with serving(sample("whole_job")) as client, RawServer(TAKEN) as receiver:
        body = {"input": {"n": 1}, "webhook": receiver.url, "s3Config": s3_config}
        job_id = (await client.call("POST", "run", json=body)).body["id"]
        given = (await client.end(job_id))["output"]
        assert given == {"id": job_id, "input": {"n": 1}, "webhook": receiver.url, "s3Config": s3_config}
        answer = await client.call("POST", "run", json={"input": 1, "s3Config": "x"})
        assert (answer.status, answer.body) == (400, {"error": "bad request: body: 's3Config' must be an object"})
