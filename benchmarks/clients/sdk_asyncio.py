"""RunPod's own Python SDK with asyncio, as its README has it: run, then output, which looks once a second."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from benchmarks.clients.task import Task, say, told

PATIENCE_S = 600


async def main(task: Task) -> int:
    """Carry the batch to its end; how many jobs were lost on the way."""
    os.environ["RUNPOD_ENDPOINT_BASE_URL"] = task.base_url  # it is read on import
    import runpod
    from runpod import AsyncioEndpoint, http_client

    runpod.api_key = "key"
    lost = 0

    async def lane(rows: Iterator[str], results: IO[str]) -> None:
        nonlocal lost
        for row in rows:
            try:
                job = await endpoint.run({"input": json.loads(row)})
                output = await job.output(timeout=PATIENCE_S)
            except Exception:  # noqa: BLE001 - whatever it raises, that job's result is lost
                lost += 1
            else:
                results.write(json.dumps({"output": output}) + "\n")

    with Path(task.rows).open() as rows, Path(task.results).open("w") as results:
        async with http_client.AsyncClientSession() as session, asyncio.TaskGroup() as group:
            endpoint = AsyncioEndpoint(task.endpoint, session)
            for _ in range(task.in_flight):
                group.create_task(lane(rows, results))
    return lost


if __name__ == "__main__":
    say(lost=asyncio.run(main(told())))
