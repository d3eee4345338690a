"""
An endpoint that remembers nothing by itself: which jobs it has accepted can be set to any moment of its past.

Every job is done at once. What it gives is a function of its input, and of how many with the same input came before.
"""

import asyncio
import threading
import uuid
from base64 import b64encode
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from runner.local.accepted import input_hash
from torture.scene import Truth

Job = dict[str, Any]


class Stub:
    """
    RunPod's API on loopback, in a thread of its own, while the ``with`` block runs.

    Attributes:
        accepted: By input, the ids of the jobs that were accepted, in their order.
    """

    def __init__(self) -> None:
        self.accepted: dict[str, list[str]] = {}
        self._jobs: dict[str, Job] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/v2/{endpoint}/{operation:run|runsync}", self._submit)
        app.router.add_get("/v2/{endpoint}/{operation:status|status-sync|stream}/{job_id}", self._look)
        app.router.add_get("/v2/{endpoint}/health", self._health)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._port}/v2"

    @property
    def truth(self) -> Truth:
        """What was accepted, and how it ended."""
        ended = {job_id: job["status"] for job_id, job in self._jobs.items()}
        return Truth({key: list(ids) for key, ids in self.accepted.items()}, ended)

    def recall(self, jobs: Mapping[str, Job]) -> None:
        """Know these jobs, by id and in their order, and no others."""
        self.accepted, self._jobs = {}, {}
        for job_id, job in jobs.items():
            self.accepted.setdefault(job["hash"], []).append(job_id)
            self._jobs[job_id] = {**job, "read": False}

    @property
    def jobs(self) -> dict[str, Job]:
        """Every job, by id."""
        return dict(self._jobs)

    # The API

    async def _submit(self, request: web.Request) -> web.Response:
        given = (await request.json())["input"]
        hashed = input_hash(given)
        before = self.accepted.setdefault(hashed, [])
        is_sync = request.match_info["operation"] == "runsync"
        job_id = f"{'sync-' if is_sync else ''}{uuid.uuid4()}-u1"
        self._jobs[job_id] = {"hash": hashed, "read": False, **outcome(given, len(before))}
        before.append(job_id)
        return web.json_response(self._shown(job_id) if is_sync else {"id": job_id, "status": "IN_QUEUE"})

    async def _look(self, request: web.Request) -> web.Response:
        job = self._jobs.get(request.match_info["job_id"])
        if job is None:
            return web.json_response({"error": "job not found"}, status=404)
        if request.match_info["operation"] != "stream":
            return web.json_response(self._shown(request.match_info["job_id"]))
        chunks = [] if job["read"] or not isinstance(job.get("output"), list) else job["output"]
        job["read"] = True
        return web.json_response({"status": job["status"], "stream": [{"output": one} for one in chunks]})

    def _shown(self, job_id: str) -> Job:
        hidden = ("hash", "read")
        told = {key: value for key, value in self._jobs[job_id].items() if key not in hidden}
        return {"id": job_id, "delayTime": 5, "executionTime": 7, "workerId": "w", **told}

    async def _health(self, _: web.Request) -> web.Response:
        jobs = dict.fromkeys(("completed", "failed", "inProgress", "inQueue", "retried"), 0)
        workers = dict.fromkeys(("idle", "initializing", "ready", "running", "throttled", "unhealthy"), 1)
        return web.json_response({"jobs": jobs, "workers": workers})


def outcome(given: Mapping[str, Any], before: int) -> Job:
    """What the handler of a `Scene` makes of its input, when so many with the same one came before."""
    job, n = given["job"], given["n"]
    if job == "streamed":
        return {"status": "COMPLETED", "output": [{"n": n, "word": number} for number in range(4)]}
    if before < given["fails"]:
        return {"status": "FAILED", "error": "no horse yet"} if n % 2 else {"status": "COMPLETED", "output": {"n": -1}}
    text = f"{job} {n}\n" * 40
    return {"status": "COMPLETED", "output": {"n": n, "text": b64encode(text.encode()).decode()}}
