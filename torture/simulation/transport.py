"""The network of a simulated life: what aiohttp's session is to `runner.wire`, with every fault that the day brings."""

import asyncio
import errno
import json
import random
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.utils import formatdate
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from runner.deadlines import Deadlines
from torture.simulation.scenario import BROKEN, DENIED, KEY, LATE, UNSENT
from torture.simulation.service import ODD_WORDS, Job, Submit

if TYPE_CHECKING:
    from torture.simulation.process import Process
    from torture.simulation.world import Look, World

HTML = b"<html><body><h1>Bad gateway</h1>Authorization: Bearer " + KEY.encode() + b"</body></html>"
"""A proxy's page that tells everybody what we sent."""

HUGE = 500 * 1024 * 1024

MOST_BYTES = 9 * 1024 * 1024
"""The largest answer that is taken in simulated lives: more than memory may hold of one, and soon read."""

LATE_S = 8.0
"""A slow answer takes so much longer."""

PIECE = bytes(1024 * 1024)
"""What a bomb unpacks to, over and over."""


@dataclass(frozen=True)
class Said:
    """An HTTP answer as the server sends it. A *cut* one ends in the middle of its body, a *bomb* never."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    cut: bool = False
    bomb: bool = False

    @classmethod
    def json(cls, value: Any, status: int = 200) -> "Said":
        return cls(status, json.dumps(value, ensure_ascii=False).encode())


class SimSession:
    """What `runner.wire` sees of aiohttp: one process's way into the world. Its deadlines are the real ones."""

    def __init__(self, process: "Process") -> None:
        self.deadlines = Deadlines()
        self._process = process

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    def request(self, method: str, url: URL, *, data: Any, headers: dict[str, str], **_: Any) -> "Exchange":
        body = b"" if data is None else data if isinstance(data, bytes) else data.read()
        return Exchange(self._process, method, str(url), body, headers["Authorization"])


class Exchange:
    """One request and its answer. The server does its part even if nobody waits for it any more."""

    def __init__(self, process: "Process", method: str, url: object, body: bytes, authorization: str) -> None:
        parts = urlsplit(str(url))
        _, _, self.endpoint_id, self.operation, *rest = parts.path.split("/")
        self.job_id = rest[0] if rest else None
        query = parse_qs(parts.query)
        self.wait_s = float(query.get("wait", ["0"])[0]) / 1000
        self.page = int(query.get("offset", ["0"])[0]), int(query.get("limit", ["50"])[0])
        self.batch_call = _batch_call(method, rest) if self.operation == "batch" else None
        self.body = body
        self.process = process
        self.world: World = process.world
        self.endpoint = self.world.endpoints[self.endpoint_id]
        self.submit: Submit | None = None
        self.fault: str | None = None
        self.is_open = False
        self.chunks: list[Any] = []
        self.pieces = 1
        self.until_s = 0.0
        self.job: Job | None = None
        self.looked: Look | None = None
        self._may_speak = authorization == f"Bearer {KEY}"
        self._answer: asyncio.Future[Said | Exception] | None = None
        self._lost = False
        self._rng = random.Random()
        self._timer: asyncio.TimerHandle | None = None

    # The client's side

    async def __aenter__(self) -> "Response":
        process, world = self.process, self.world
        if process.is_dead:
            raise _reset()
        world.left(self)
        read = world.service.jobs.get(self.job_id or "") if self.operation == "stream" else None
        if read is not None:
            read.unheard += 1  # until its answer is there: what it took may be gone with it
        process.at("send")
        subject = self.job_id or (self.submit and f"{self.submit.key[:8]}.{self.submit.attempt}") or ""
        self._rng, self.fault = world.drawn(self, subject)
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        rng = self._rng
        up_s, self.down_s = rng.uniform(0.002, 0.08), rng.uniform(0.002, 0.08)
        if rng.random() < 0.02:
            self.down_s += rng.choice([0.5, LATE_S])
        if self.fault == LATE:
            self.down_s += LATE_S
        self.pieces = rng.choice([1, 1, 3])
        self.pause_s = 0.003
        if self.fault == "slow_body":
            self.pieces, self.pause_s = 3, rng.choice([0.4, 4.0])
        if self.fault in ("refused", "dns", "tls", "no_connection"):
            self.say(f"no connection: {self.fault}")
            await asyncio.sleep({"no_connection": 10.0}.get(self.fault, up_s))
            if read is not None:
                read.unheard -= 1
            self._looked_until_now()
            raise _no_connection(self.fault)
        self.is_open = True
        world.connected(self)
        world.open.append(self)
        loop.call_later(up_s, self._arrive)
        try:
            said = await self._answer
        finally:
            self.is_open = False
            world.open.remove(self)
            self._looked_until_now()
        if isinstance(said, Exception):
            raise said
        return Response(self, said)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """The connection is closed or kept: nobody can tell."""

    def _looked_until_now(self) -> None:
        if self.looked is not None:
            self.looked.until_s = self.world.now_s

    def break_off(self) -> None:
        """The connection is gone: our machine slept. Whatever the server does, nobody hears of it."""
        self._lost = True
        if self._answer is not None and not self._answer.done():
            self.say("the connection broke while we slept")
            self._answer.set_result(_reset())

    def delivered(self, status: int) -> None:
        """All of an answer is with the client."""
        if self.submit is not None and self.submit.job_id is not None and self.fault not in BROKEN:
            self.submit.answered = True
        read = self.world.service.jobs.get(self.job_id or "") if self.operation == "stream" else None
        if read is not None:
            read.delivered += self.chunks
            read.unheard -= status in (200, 401, 402, 403, 409, 429) and self.fault not in BROKEN
        self.world.heard(self)

    def say(self, text: str) -> None:
        what = f"{self.batch_call or self.operation} {self.job_id or self.submit or self.endpoint}"
        self.world.say(f"  {what}: {text}")

    # The server's side

    def _arrive(self) -> None:
        world, fault = self.world, self.fault
        now_s = world.now_s
        self.process.at("arrived")
        if fault in UNSENT:
            self.say("429")
            self._reply(self._rate_limited(fault))
            return
        if fault in DENIED:
            self.say(f"denied: {fault}")
            self._reply(Said.json({"error": f"no: {KEY}"}, int(fault)))
            return
        is_acted_upon = fault not in BROKEN or fault == "cut" or self._rng.random() < 0.5
        if fault in BROKEN and not is_acted_upon:
            self._break(fault)
            return
        refusal = self._refusal()
        if refusal is not None:
            self.say(f"{refusal.status}")
            self.fault = None
            self._reply(refusal)
            return
        self.until_s = now_s + self.wait_s
        match self.operation:
            case "run" | "runsync":
                assert self.submit is not None
                request = json.loads(self.body)
                job = world.service.accept(
                    self.submit, self.endpoint_id, request, sync=self.operation == "runsync", now_s=now_s
                )
                self.say(f"accepted as {job.job_id}")
                if fault in BROKEN:
                    world.count("answer lost after acceptance")
                world.accepted(self, job)
                self.job = job
            case "health":
                self._reply(Said.json(world.health(self.endpoint)))
                return
            case "batch":
                self._reply(self._of_batch())
                return
            case _:
                found = world.service.jobs.get(self.job_id or "")
                self.job = found if found is not None and found.endpoint_id == self.endpoint_id else None
        if self.operation == "stream":
            self.until_s = now_s + (self.wait_s or 10.0)
        self.look()

    def _of_batch(self) -> Said:
        """What the Batch API answers, once it has done what it is asked."""
        world, call = self.world, self.batch_call
        assert call is not None
        if self.fault in BROKEN:
            world.count(f"answer to {call} of a batch lost")
        status, told = world.batches.answer(
            call,
            self.job_id,
            self.body,
            self.page,
            endpoint_id=self.endpoint_id,
            now_s=world.now_s,
            rng=self._rng,
            is_calm=world.is_calm,
        )
        for kind in world.batches.counts:
            world.count(kind)
        world.batches.counts.clear()
        self.say(f"{status}")
        return Said.json(told, status)

    def look(self) -> None:
        """Answer if there is something to answer, else hold the request until there may be."""
        world, job, now_s = self.world, self.job, self.world.now_s
        if self.operation == "run":
            assert job is not None
            self._reply(Said.json({"id": job.job_id, "status": "IN_QUEUE"}))
            return
        if self.operation == "cancel":
            self._reply(self._cancelled())
            return
        unsupported = world.scenario.status_sync.get(self.endpoint) if self.operation == "status-sync" else None
        if unsupported is not None:
            self._reply(Said.json({"error": "not found"}, unsupported))
            return
        if self.fault == "404_once" and job is not None and not job.false_404:
            job.false_404 = True
            self._reply(Said.json({"error": "job not found"}, 404))
            return
        seen = job.seen(now_s) if job is not None else None
        if self.operation == "runsync":
            assert job is not None
            seen = seen or {"id": job.job_id, "status": "IN_QUEUE"}  # it is held by whoever took it
        if job is None or seen is None:
            if job is not None:
                world.count(_why_unknown(job, now_s))
            self._reply(Said.json({"error": "job not found"}, 404))
            return
        if self.operation == "stream":
            self._stream(job, seen, now_s)
            return
        is_final = now_s >= job.final_s
        if is_final or now_s >= self.until_s:
            self._note(job, str(seen["status"]), is_final=is_final)
            if self.fault == "stale":
                seen = job.seen(max(job.visible_s, now_s - 3.0)) or seen
            elif self.fault == "no_status":
                seen = {"id": job.job_id}
                job.unreadable += 1
            self._reply(Said.json(seen))
            return
        self._hold(min(self.until_s, job.next_s(now_s)))

    def _note(self, job: Job, status: str, *, is_final: bool) -> None:
        """Count what is told that is not as usual."""
        if status in ODD_WORDS:
            self.world.count("status unknown")
        if status == "IN_QUEUE" and job.shown not in ("", "IN_QUEUE"):
            self.world.count("IN_PROGRESS, then IN_QUEUE")
        job.shown = status
        if is_final and not job.is_told:
            job.is_told = True
            self.world.count(f"job ended: {job.kind}")

    def _hold(self, until_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.world.held.append(self)
        self._timer = loop.call_later(max(0.0, until_s - self.world.now_s) + 1e-6, self.wake)

    def wake(self) -> None:
        """Look again, if the request is held."""
        if self in self.world.held:
            self.world.held.remove(self)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self.look()

    def _stream(self, job: Job, seen: dict[str, Any], now_s: float) -> None:
        there = [chunk for at_s, chunk in job.chunks[job.taken :] if at_s <= now_s]
        is_final = now_s >= job.final_s
        if not there and not is_final and now_s < self.until_s:
            self._hold(min(self.until_s, job.next_s(now_s)))
            return
        job.taken += len(there)
        self.chunks = list(there)
        if self.fault == "chunks_twice":
            there = [*there, *there]
        elif self.fault == "chunks_gone":
            there = there[1:]
        self._reply(Said.json({"status": seen["status"], "stream": [{"output": chunk} for chunk in there]}))

    def _cancelled(self) -> Said:
        job = self.job
        if job is not None and job.seen(self.world.now_s) is not None:
            if self.world.now_s >= job.final_s:
                self.world.count("cancel after completion")
            elif job.stubborn:
                self.world.count("cancel overtaken by completion")
        said = self.world.service.cancel(job, self.world.now_s) if job is not None else ""
        if job is None or not said:
            return Said.json({"error": "job not found"}, 404)
        self.say(said)
        return Said.json({"id": job.job_id, "status": said})

    def _refusal(self) -> Said | None:
        """What the endpoint says to everybody just now."""
        trouble = self.world.trouble(self.endpoint)
        if trouble == "unknown":
            return Said.json({"detail": "endpoint not found"}, 404)
        if trouble == "401" or not self._may_speak:
            return Said.json({"error": "unauthorized"}, 401)
        if trouble == "402":
            return Said.json({"error": "no credit"}, 402)
        if trouble == "forbidden":
            return Said.json({"error": "forbidden"}, 403)
        if trouble == "paused" and (self.operation in ("run", "runsync") or self.batch_call in ("create", "finalize")):
            return Said.json({"status": 409, "code": "ENDPOINT_PAUSED"}, 409)
        return None

    def _rate_limited(self, fault: str) -> Said:
        headers = {}
        if fault == "429_seconds":
            headers["Retry-After"] = str(self._rng.choice([0, 1, 20]))
        if fault == "429_date":
            headers["Retry-After"] = formatdate(self.world.times.calendar + 15, usegmt=True)
        return Said(429, b"slow down", headers)

    def _reply(self, said: Said) -> None:
        """Send *said*, through whatever the fault makes of it."""
        if self.fault in BROKEN:
            self._break(self.fault, said)
            return
        self._send(said)

    def _break(self, fault: str, said: Said | None = None) -> None:
        self.say(f"fault {fault}{'' if said is None else ', acted upon'}")
        match fault:
            case "silence":
                return
            case "reset":
                self._send(_reset())
            case "disconnected":
                self._send(aiohttp.ServerDisconnectedError())
            case "cut":
                whole = said or Said.json({})
                self._send(Said(whole.status, whole.body, cut=True))
            case "html_200":
                self._unreadable()
                self._send(Said(200, HTML))
            case "not_json":
                self._unreadable()
                self._send(Said(200, b'{"status": '))
            case "too_large":
                self._send(Said(200, b"", length=HUGE))
            case "bomb":
                self._send(Said(200, b"", bomb=True))
            case "302":
                self._send(Said(302, b"", {"Location": "https://elsewhere.sim"}))
            case _:
                status = int(fault.partition("_")[0])
                self._send(Said(status, HTML if fault.endswith("html") else b'{"error": "internal"}'))

    def _unreadable(self) -> None:
        job = self.job or self.world.service.jobs.get(self.job_id or "")
        if job is not None:
            job.unreadable += 1

    def _send(self, said: Said | Exception) -> None:
        if self.submit is not None and isinstance(said, Said):
            self.submit.refused = 400 <= said.status < 500 and said.status != 408
        asyncio.get_running_loop().call_later(self.down_s, self._deliver, said)

    def _deliver(self, said: Said | Exception) -> None:
        if self._answer is None or self._answer.done() or self._lost or self.process.is_dead:
            return
        if isinstance(said, Said):
            self.say(f"-> {said.status} {said.body[:70].decode('utf-8', 'replace')!r}")
        self._answer.set_result(said)
        self.process.at("answered")


class Response:
    """An answer whose head is there."""

    def __init__(self, exchange: Exchange, said: Said) -> None:
        self.status = said.status
        self.headers = said.headers
        self.content_length = len(said.body) if said.length is None else said.length
        self.content = self
        self._exchange = exchange
        self._said = said
        self._left: AsyncIterator[bytes] | None = None

    async def readany(self) -> bytes:
        """The next piece; nothing at the end."""
        self._left = self._left or self.iter_any()
        return await anext(self._left, b"")

    def at_eof(self) -> bool:
        """Whether the end is known already: here it has to be asked for."""
        return False

    async def iter_any(self) -> AsyncIterator[bytes]:
        body, pieces = self._said.body, self._exchange.pieces
        while self._said.bomb:
            yield PIECE
            await asyncio.sleep(0)
        if self._said.cut:
            yield body[: len(body) // 2]
            await asyncio.sleep(0.01)
            raise aiohttp.ClientPayloadError("not enough data")
        step = max(1, -(-len(body) // pieces))
        for start in range(0, len(body), step):
            if start:
                await asyncio.sleep(self._exchange.pause_s)
                if self._exchange._lost:
                    raise _reset()
            yield body[start : start + step]
        self._exchange.delivered(self.status)


def _batch_call(method: str, rest: list[str]) -> str:
    """What a request of the Batch API asks for."""
    match method, *rest[1:]:
        case "POST", "requests":
            return "append"
        case "GET", "requests":
            return "page"
        case "POST", "finalize" | "cancel" as call:
            return str(call)
        case "PUT", *_:
            return "name"
        case "POST", *_:
            return "create"
    return "counts"


def _why_unknown(job: Job, now_s: float) -> str:
    if now_s < job.visible_s:
        return "404 just after submit"
    return f"404: {job.gone_why}" if now_s >= job.gone_s else "404 after expiry"


def _reset() -> Exception:
    return aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset by peer")


def _no_connection(kind: str) -> Exception:
    key = ConnectionKey("api.sim", 443, True, True, None, None, None)
    match kind:
        case "dns":
            return aiohttp.ClientConnectorDNSError(key, OSError(-2, "Name or service not known"))
        case "tls":
            return aiohttp.ClientConnectorSSLError(key, ssl.SSLError(1, "handshake failure"))
        case "no_connection":
            return aiohttp.ConnectionTimeoutError("Connection timeout")
    return aiohttp.ClientConnectorError(key, OSError(errno.ECONNREFUSED, "Connection refused"))
