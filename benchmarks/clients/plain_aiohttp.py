"""
The measure: aiohttp as lean as it gets without giving up its client, on uvloop, with orjson.

It writes the lines that the runner writes. It retries nothing, keeps no record, and syncs nothing to disk.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import aiohttp
import orjson
from yarl import URL

from benchmarks.clients.task import Task, say, told
from benchmarks.loops import new_loop

WAIT_MS = 90_000


async def main(task: Task) -> None:
    """Carry the batch to its end."""
    url = f"{task.base_url}/{task.endpoint}"
    submit = f"{url}/run" if task.mode == "run" else f"{url}/runsync?wait={WAIT_MS}"
    with Path(task.rows).open("rb") as rows, Path(task.results).open("wb") as results:
        numbered = enumerate(rows)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Authorization": "Bearer key", "Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=None),
        )
        async with session, asyncio.TaskGroup() as group:
            for _ in range(task.in_flight):
                group.create_task(lane(session, URL(submit, encoded=True), url, numbered, results))


async def lane(
    session: aiohttp.ClientSession, submit: URL, url: str, rows: Iterator[tuple[int, bytes]], results: IO[bytes]
) -> None:
    """Run one job after the other."""
    for index, text in rows:
        row = orjson.loads(text)
        submitted_at = time.time()
        job = await ask(session.post(submit, data=orjson.dumps({"input": row})))
        while job["status"] != "COMPLETED":
            look = URL(f"{url}/status-sync/{job['id']}?wait={WAIT_MS}", encoded=True)
            job = await ask(session.get(look))
        results.write(orjson.dumps(line(index, row, job, submitted_at), option=orjson.OPT_APPEND_NEWLINE))


async def ask(request: Any) -> dict[str, Any]:
    """The JSON of one answer."""
    async with request as response:
        answer: dict[str, Any] = orjson.loads(await response.read())
        return answer


def line(index: int, row: dict[str, Any], job: dict[str, Any], submitted_at: float) -> dict[str, Any]:
    """A result as the runner's results.jsonl has it."""
    return {
        "key": f"{index:032x}",
        "job": "all",
        "index": index,
        "state": "succeeded",
        "outcome": "completed",
        "status": job["status"],
        "row": row,
        "matrix": None,
        "repeat": 0,
        "input": row,
        "output": job["output"],
        "error": None,
        "job_id": job["id"],
        "worker_id": job["workerId"],
        "attempts": 1,
        "delay_time_ms": job["delayTime"],
        "execution_time_ms": job["executionTime"],
        "submitted_at": submitted_at,
        "settled_at": time.time(),
        "artifacts": [],
    }


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main(told()))
    say(lost=0)
