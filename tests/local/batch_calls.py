"""Talk to the Batch API of a local endpoint, and be its worker by hand."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from serving import Answer, Client


def requests(inputs: Iterable[Any]) -> list[dict[str, Any]]:
    """Requests with these inputs."""
    return [{"input": one} for one in inputs]


@dataclass
class Batch:
    """A batch of an endpoint."""

    client: Client
    id: str

    async def get(self) -> dict[str, Any]:
        """How it stands."""
        return await ok(self.client, "GET", f"batch/{self.id}")

    async def append(self, inputs: Iterable[Any]) -> list[str]:
        """Add requests; their ids."""
        body = await ok(self.client, "POST", f"batch/{self.id}/requests", json={"requests": requests(inputs)})
        return [one["id"] for one in body["requests"]]

    async def finalize(self) -> dict[str, Any]:
        """Have it run."""
        return await ok(self.client, "POST", f"batch/{self.id}/finalize")

    async def cancel(self) -> dict[str, Any]:
        """Drop what is queued."""
        return await ok(self.client, "POST", f"batch/{self.id}/cancel")

    async def page(self, query: str = "") -> dict[str, Any]:
        """Some of its requests."""
        return await ok(self.client, "GET", f"batch/{self.id}/requests{query}")

    async def all(self, limit: int = 1000) -> list[dict[str, Any]]:
        """All of its requests, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            page = await self.page(f"?offset={len(found)}&limit={limit}")
            found += page["requests"]
            if not page["hasMore"]:
                return found

    async def until_done(self, limit_s: float = 10.0, every_s: float = 0.01) -> dict[str, Any]:
        """Look every *every_s* until as many requests have ended as there are; how it stands then."""
        async with asyncio.timeout(limit_s):
            while True:
                stands = await self.get()
                if stands["requestCompleted"] + stands["requestFailed"] == stands["requestTotal"]:
                    return stands
                await asyncio.sleep(every_s)


async def draft(client: Client, inputs: Iterable[Any] = ()) -> Batch:
    """A new draft."""
    body = await ok(client, "POST", "batch", json=requests(inputs))
    return Batch(client, body["id"])


async def ok(client: Client, method: str, path: str, **options: Any) -> dict[str, Any]:
    """The body of an answer that must be 200."""
    answer = await client.call(method, path, **options)
    assert answer.status == 200, answer
    body: dict[str, Any] = answer.body
    return body


async def take(client: Client, worker: str = "w1") -> dict[str, Any]:
    """The next job, as the worker gets it."""
    body: dict[str, Any] = (await _worker(client, "GET", f"job-take/{worker}?job_in_progress=1")).body
    return body


async def done(client: Client, job_id: str, worker: str = "w1", **result: Any) -> None:
    """The worker posts a result."""
    await _worker(client, "POST", f"job-done/{worker}/{job_id}?isStream=false", json=result)


async def _worker(client: Client, method: str, path: str, **options: Any) -> Answer:
    key = client.server.variables("ep", "w1")["RUNPOD_AI_API_KEY"]
    answer = await client.call(method, path, token=key, **options)
    assert answer.status == 200, answer
    return answer


def counts(stands: dict[str, Any]) -> tuple[str, int, int, int, int]:
    """Status, total, in progress, completed, failed."""
    names = ("requestTotal", "requestInProgress", "requestCompleted", "requestFailed")
    total, in_progress, completed, failed = (stands[name] for name in names)
    return stands["status"], total, in_progress, completed, failed
