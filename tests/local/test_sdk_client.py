import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from sdk import needs_sdk
from serving import TOKEN, sample

from runner.local.server import LocalServer, Served

pytestmark = needs_sdk

SCRIPT = Path(__file__).with_name("sdk_client.py")
SERVED = [
    Served("echo", sample("echo")),
    Served("stream", sample("stream")),
    Served("fails", sample("raises")),
    Served("waiting", None),
]


async def returned(client: str, home: Path) -> dict[str, Any]:
    """What the official client returned, in a process of its own: importing it takes seconds and warns."""
    async with LocalServer(SERVED, token=TOKEN) as server:
        environment = {"PATH": "", "HOME": str(home), "RUNPOD_ENDPOINT_BASE_URL": server.base_url}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore", str(SCRIPT), client, TOKEN),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found


EXPECTED = {
    "output": {"n": 1},
    "status": "COMPLETED",
    "output of a failure": None,
    "status of a failure": "FAILED",
    "stream": [1, {"a": 2}],
    "status while waiting": "IN_QUEUE",
    "cancel": "CANCELLED",
    "status after cancel": "CANCELLED",
    "health": {
        "jobs": {"completed": 0, "failed": 0, "inProgress": 0, "inQueue": 2, "retried": 0},
        "workers": {"idle": 0, "initializing": 0, "ready": 0, "running": 0, "throttled": 0, "unhealthy": 0},
    },
    "purge_queue": {"removed": 2, "status": "completed"},
}


async def test_the_official_client_works_unchanged(tmp_path: Path) -> None:
    """Only its base URL is set, by its own variable."""
    assert await returned("sync", tmp_path) == EXPECTED | {
        "run_sync": {"n": 2},
        "run_sync of a failure": None,
        "key set globally": "global",
        "wrong key": "401 Unauthorized | Make sure Runpod API key is set and valid.",
    }


async def test_the_official_asynchronous_client_works_unchanged(tmp_path: Path) -> None:
    """The same answers, by another HTTP library."""
    assert await returned("asyncio", tmp_path) == EXPECTED
