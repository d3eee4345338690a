"""Each kind of fault over HTTP, by option and by a request's header: what a client sees, and what was done even so."""

import errno
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from serving import TOKEN, Client, serving

from runner.local import fault_text
from runner.local.faults import Faults, Kind

JSON, HTML, TEXT = "application/json", "text/html", "text/plain"
PAUSED = (
    '{"status":409,"title":"Conflict","code":"ENDPOINT_PAUSED",'
    '"detail":"Endpoint is paused (max_workers=0). Set max_workers > 0 to accept work."}'
)


def page(title: str) -> str:
    """A page as RunPod's edge serves it."""
    return f"<html><head><title>{title}</title></head><body><h1>{title}</h1><hr>cloudflare</body></html>"


@dataclass(frozen=True)
class Row:
    """
    What is *seen* of one kind, JOB standing for the id of the job: status, type and text, or how the answer breaks.

    *asked* is the operation; *is_done* whether it was carried out.
    """

    kind: Kind
    seen: str
    is_done: bool
    asked: str = "run"

    def __str__(self) -> str:
        return self.kind


QUEUED = '{"id":"JOB","status":"IN_QUEUE"}'
CHUNKS = '{"status":"COMPLETED","stream":[{"output":1},{"output":2}'
ROWS = [
    Row(Kind.TOO_MANY, f'429 {JSON} {{"error":"too many requests"}}', is_done=False),
    Row(Kind.INTERNAL, f'500 {JSON} {{"error":"internal server error"}}', is_done=False),
    Row(Kind.BAD_GATEWAY, f"502 {HTML} {page('502 Bad Gateway')}", is_done=False),
    Row(Kind.UNAVAILABLE, f"503 {TEXT} no healthy upstream", is_done=False),
    Row(Kind.GATEWAY_TIMEOUT, f"504 {HTML} {page('504 Gateway Timeout')}", is_done=False),
    Row(Kind.PAUSED, f"409 {JSON} {PAUSED}", is_done=False),
    Row(Kind.NOT_FOUND, f'404 {JSON} {{"detail":"job not found"}}', is_done=False, asked="status"),
    Row(Kind.RESET_BEFORE, "reset", is_done=False),
    Row(Kind.INTERNAL_AFTER, f'500 {JSON} {{"error":"internal server error"}}', is_done=True),
    Row(Kind.BAD_GATEWAY_AFTER, f"502 {HTML} {page('502 Bad Gateway')}", is_done=True),
    Row(Kind.UNAVAILABLE_AFTER, f"503 {TEXT} no healthy upstream", is_done=True),
    Row(Kind.GATEWAY_TIMEOUT_AFTER, f"504 {HTML} {page('504 Gateway Timeout')}", is_done=True),
    Row(Kind.RESET_AFTER, "reset", is_done=True),
    Row(Kind.SLOW, f"200 {JSON} {QUEUED} slowly", is_done=True),
    Row(Kind.CUT, "cut", is_done=True),
    Row(Kind.WRONG_TYPE, f"200 {HTML} {QUEUED}", is_done=True),
    Row(Kind.HTML, f"200 {HTML} {page('200 OK')}", is_done=True),
    Row(Kind.UNKNOWN_STATUS, f'200 {JSON} {{"status":"PREPARING"}}', is_done=True, asked="status"),
    Row(Kind.DUPLICATE_CHUNK, f'200 {JSON} {CHUNKS},{{"output":2}}]}}', is_done=True, asked="stream"),
    Row(
        Kind.LOST_CHUNK, f'200 {JSON} {{"status":"COMPLETED","stream":[{{"output":1}}]}}', is_done=True, asked="stream"
    ),
]
BATCH_KINDS = [Kind.SHIFTED_PAGE, Kind.BATCH_FAILS]
"""These are seen in test_batch_api_faults.py."""


def test_every_kind_has_its_row() -> None:
    """A new kind of fault must be seen here first."""
    assert [row.kind for row in ROWS] + BATCH_KINDS == list(Kind)


@pytest.mark.parametrize("by", ["option", "header"])
@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_a_fault_is_seen_once_and_the_next_request_is_served(tmp_path: Path, row: Row, by: str) -> None:
    """The log knows which it was, and whether the operation was carried out: that is what checks a client."""
    log = tmp_path / "log.jsonl"
    async with serving(None, log=log, faults=Faults(by_header=True)) as client:
        job_id = await finished(client)
        text = f"{row.kind},over=200ms" if row.kind is Kind.SLOW else str(row.kind)
        if by == "option":
            head, comma, options = text.partition(",")
            client.server.set_faults(fault_text.faults([f"{row.asked}:{head}=1{comma}{options}"]))
        seen = await asked(client, row.asked, job_id, header=text if by == "header" else None)
        again = await asked(client, row.asked, job_id, header=None)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    first, second = [event for event in events if event["event"] == "asked"][-2:]
    accepted = [event["job_id"] for event in events if event["event"] == "accepted"][1:]  # the first was ours
    made = [job_id] if row.asked != "run" else accepted
    assert seen.replace(made[0], "JOB") == row.seen
    assert again.startswith(f"200 {JSON} {{")
    assert (first["operation"], first["fault"], first["status"]) == (row.asked, row.kind, 200 if row.is_done else None)
    assert (second["operation"], second["fault"], second["status"]) == (row.asked, None, 200)
    assert len(accepted) == (1 + row.is_done if row.asked == "run" else 0)


async def finished(client: Client) -> str:
    """A job that a worker has streamed two chunks of, and finished."""
    key = client.server.variables("ep", "w1")["RUNPOD_AI_API_KEY"]
    job_id = await client.run()
    await client.call("GET", "job-take/w1?job_in_progress=0", token=key)
    for value in (1, 2):
        await client.call("POST", f"job-stream/w1/{job_id}?x", token=key, json={"output": value})
    await client.call("POST", f"job-done/w1/{job_id}?x", token=key, json={"output": []})
    return job_id


async def asked(client: Client, operation: str, job_id: str, *, header: str | None) -> str:
    """What is seen of one request, as `Row` has it."""
    submit = operation == "run"
    path = "run" if submit else f"{operation}/{job_id}"
    headers = {"Authorization": f"Bearer {TOKEN}"} | ({} if header is None else {fault_text.HEADER: header})
    options: dict[str, Any] = {"json": {"input": 1}} if submit else {}
    method, url = "POST" if submit else "GET", f"{client.server.base_url}/ep/{path}"
    try:
        async with client.session.request(method, url, headers=headers, **options) as response:
            began = time.monotonic()
            text = await response.text()
            slowly = " slowly" if time.monotonic() - began > 0.1 else ""
            if operation == "status" and response.status == 200:
                text = json.dumps({"status": json.loads(text)["status"]}, separators=(",", ":"))
            return f"{response.status} {response.content_type} {text}{slowly}"
    except aiohttp.ClientPayloadError:
        return "cut"
    except aiohttp.ClientOSError as error:
        return "reset" if error.errno == errno.ECONNRESET else str(error)


async def test_refusals_come_at_a_rate_or_in_bursts_as_they_were_asked_for() -> None:
    """By chance, and the same ones for the same seed; or the first three of every five, saying when to come again."""

    async def statuses(texts: list[str], seed: int, count: int) -> tuple[list[int], set[str | None]]:
        async with serving(None, faults=fault_text.faults(texts, seed=seed)) as client:
            answers = [await client.call("GET", "health") for _ in range(count)]
        told = {answer.headers.get("Retry-After") for answer in answers if answer.status == 429}
        return [answer.status for answer in answers], told

    by_chance, told = await statuses(["429=30%"], 7, 200)
    assert 30 <= by_chance.count(429) <= 90
    assert told == {None}
    assert await statuses(["429=30%"], 7, 200) == (by_chance, told)
    assert await statuses(["429=30%"], 8, 200) != (by_chance, told)
    bursts = await statuses(["health:429=3/5,retry_after=2s"], 7, 10)
    assert bursts == ([429, 429, 429, 200, 200] * 2, {"2"})


async def test_a_bad_day_is_the_same_for_clients_that_differ_in_how_often_they_look() -> None:
    """What submits meet is drawn for themselves; with one seed, two ways to poll are two ways through one day."""

    async def submits(looks: int) -> list[str]:
        faults = fault_text.faults(["429=15%", "502=10%", "500_after=10%", "reset_after=10%", "cut=10%"], seed=3)
        async with serving(None, faults=faults) as client:
            found = []
            for _ in range(25):
                found.append((await asked(client, "run", "", header=None)).partition(" ")[0])
                for _ in range(looks):
                    await asked(client, "status", "unknown", header=None)
            return found

    patient, eager = await submits(0), await submits(2)
    assert patient == eager
    assert set(patient) == {"200", "429", "502", "500", "reset", "cut"}
