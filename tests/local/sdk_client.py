"""
Drive endpoints with the official `runpod` client, and print what it returned as one JSON object.

    RUNPOD_ENDPOINT_BASE_URL=... python sdk_client.py sync|asyncio TOKEN

The endpoints are echo, stream, fails, and waiting, which has no workers.
"""

import asyncio
import json
import sys
from typing import Any

import runpod


def with_sync(token: str) -> dict[str, Any]:
    """Every method of the client that most programs use."""
    echo, stream, fails, waiting = (runpod.Endpoint(name, token) for name in ("echo", "stream", "fails", "waiting"))
    found: dict[str, Any] = {}

    job = echo.run({"input": {"n": 1}, "policy": {"ttl": 60_000}})
    found["output"] = job.output(timeout=30)
    found["status"] = job.status()
    found["run_sync"] = echo.run_sync({"n": 2})
    found["run_sync of a failure"] = fails.run_sync({"input": "x"}, timeout=30)

    failed = fails.run({"input": "x"})
    found["output of a failure"] = failed.output(timeout=30)
    found["status of a failure"] = failed.status()

    found["stream"] = list(stream.run({"input": [1, {"a": 2}]}).stream())

    queued = [waiting.run({"input": number}) for number in (1, 2, 3)]
    found["status while waiting"] = queued[0].status()
    found["cancel"] = queued[0].cancel()["status"]
    found["status after cancel"] = queued[0].status()
    found["health"] = waiting.health()
    found["purge_queue"] = waiting.purge_queue()

    runpod.api_key = token
    found["key set globally"] = runpod.Endpoint("echo").run_sync({"input": "global"})
    try:
        runpod.Endpoint("echo", "wrong-" + token).health()
    except RuntimeError as error:
        found["wrong key"] = str(error)
    return found


async def with_asyncio(token: str) -> dict[str, Any]:
    """The same, of the asynchronous client, which has no run_sync."""
    found: dict[str, Any] = {}
    async with runpod.http_client.AsyncClientSession() as session:
        echo, stream, fails, waiting = (
            runpod.AsyncioEndpoint(name, session, token) for name in ("echo", "stream", "fails", "waiting")
        )
        job = await echo.run({"n": 1})
        found["output"] = await job.output(timeout=30)
        found["status"] = await job.status()

        failed = await fails.run({"n": 1})
        found["output of a failure"] = await failed.output(timeout=30)
        found["status of a failure"] = await failed.status()

        found["stream"] = [chunk async for chunk in (await stream.run([1, {"a": 2}])).stream()]

        queued = [await waiting.run({"n": number}) for number in (1, 2, 3)]
        found["status while waiting"] = await queued[0].status()
        found["cancel"] = (await queued[0].cancel())["status"]
        found["status after cancel"] = await queued[0].status()
        found["health"] = await waiting.health()
        found["purge_queue"] = await waiting.purge_queue()
    return found


if __name__ == "__main__":
    print(json.dumps(with_sync(sys.argv[2]) if sys.argv[1] == "sync" else asyncio.run(with_asyncio(sys.argv[2]))))
