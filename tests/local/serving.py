"""Serve handlers on a local endpoint, and talk to it over real HTTP."""

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from runner.local.server import LocalServer, Served

TOKEN = "tok-0123456789abcdef"
SAMPLES = Path(__file__).parent / "sample_handlers.py"
LIMIT_S = 10.0


def sample(name: str) -> str:
    """The reference of a function in sample_handlers.py."""
    return f"{SAMPLES}:{name}"


@dataclass
class Answer:
    """An HTTP answer: its status, its JSON body (None if it is empty), its headers."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Client:
    """A client of one endpoint of a server."""

    server: LocalServer
    session: aiohttp.ClientSession
    endpoint: str = "ep"
    lines: list[str] = field(default_factory=list)

    async def call(self, method: str, path: str, *, token: str | None = None, **options: Any) -> Answer:
        """One request to ``/v2/{endpoint}/{path}``; *token* as the whole Authorization, default the right one."""
        headers = {"Authorization": f"Bearer {TOKEN}" if token is None else token} | options.pop("headers", {})
        if isinstance(options.get("data"), bytes):
            options["data"] = io.BytesIO(options["data"])  # aiohttp warns of large bytes
        url = f"{self.server.base_url}/{self.endpoint}/{path}"
        async with self.session.request(method, url, headers=headers, **options) as response:
            body = await response.json() if response.status != 204 else None
            return Answer(response.status, body, dict(response.headers))

    async def run(self, input_: Any = "x", operation: str = "run", **policy: Any) -> str:
        """Submit, and return the job id."""
        body = {"input": input_} | ({"policy": policy} if policy else {})
        answer = await self.call("POST", operation, json=body)
        assert answer.status == 200, answer
        job_id: str = answer.body["id"]
        return job_id

    async def status(self, job_id: str) -> dict[str, Any]:
        """How a job stands."""
        return await self._object("GET", f"status/{job_id}")

    async def end(self, job_id: str) -> dict[str, Any]:
        """How a job ended, waiting for it."""
        async with asyncio.timeout(LIMIT_S):
            return await self._object("GET", f"status-sync/{job_id}?wait=10000")

    async def result(self, input_: Any = "x", **policy: Any) -> dict[str, Any]:
        """Submit, and return how the job ended."""
        return await self.end(await self.run(input_, **policy))

    async def health(self, kind: str) -> dict[str, int]:
        """The counters of /health: kind is jobs or workers."""
        answer = await self._object("GET", "health")
        counters: dict[str, int] = answer[kind]
        return counters

    async def until_status(self, job_id: str, status: str) -> None:
        """Wait until a job has this status."""

        async def is_there() -> bool:
            return bool((await self.status(job_id))["status"] == status)

        await eventually(is_there)

    async def _object(self, method: str, path: str) -> dict[str, Any]:
        answer = await self.call(method, path)
        assert answer.status == 200, answer
        body: dict[str, Any] = answer.body
        return body


@asynccontextmanager
async def serving(
    handler: str | None, *, workers: int = 1, aggregate: bool = True, **options: Any
) -> AsyncIterator[Client]:
    """Serve one handler as endpoint ``ep``."""
    lines: list[str] = []
    served = Served("ep", handler, workers, aggregate)
    async with (
        LocalServer([served], token=TOKEN, on_output=lambda worker, line: lines.append(line), **options) as server,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
    ):
        yield Client(server, session, lines=lines)


async def eventually(holds: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
    """Look again and again until *holds* (a function or an async one) says so; fail after *limit_s*."""
    async with asyncio.timeout(limit_s):
        while True:
            found = holds()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.01)


def marked_processes(text: str) -> set[int]:
    """Process ids of all living processes whose environment or command line holds *text*, except our own."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            held = (entry / "environ").read_bytes() + b"\0" + (entry / "cmdline").read_bytes()
        except OSError:
            continue  # gone meanwhile, or another user's
        if text.encode() in held:
            found.add(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"
