"""
A small, fast fake of RunPod's API, which must never be the bottleneck of a client.

`benchmarks.service` starts it and says what to be like. It does what clients need and no more: HTTP/1.1 without
chunked requests, one request at a time on a connection. For being like RunPod there is the local endpoint.
"""

import asyncio
import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import cast

from benchmarks.loops import new_loop
from benchmarks.options import Options
from benchmarks.simulated import FINAL, BadBody, Job, Jobs
from runner.local.limits import Meter, RateLimits

REASONS = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 429: b"Too Many Requests", 500: b"Server Error"}
ANSWERS = {
    code: b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\n" % (code, text) for code, text in REASONS.items()
}
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n"
NOT_FOUND = b'{"detail":"job not found"}'
RATE_LIMITED = b'{"error":"rate limit exceeded"}'
METERED = frozenset({"run", "runsync", "status", "status-sync", "stream", "cancel"})


class Server:
    """What all connections share: the jobs, the limits, the faults, the counts."""

    def __init__(self, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        self.options = options
        self.loop = loop
        self.jobs = Jobs(options, loop)
        self.meter = None if options.limits is None else Meter(RateLimits(options.limits))
        self.requests: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.unknown = 0
        self.first_request: float | None = None
        self._cpu_before_s = 0.0
        self._chance = random.Random(options.seed)
        rates = options.faults
        self.bounds = (rates.refused, rates.refused + rates.broken, rates.refused + rates.broken + rates.cut)

    def draw(self) -> str | None:
        """What goes wrong with the next request."""
        if not self.bounds[2] or (drawn := self._chance.random()) >= self.bounds[2]:
            return None
        if drawn < self.bounds[0]:
            fault = "429"
        else:
            kind = "5xx" if drawn < self.bounds[1] else "reset"
            fault = f"{kind} {'before' if self._chance.random() < 0.5 else 'after'}"
        self.faults[fault] += 1
        return fault

    def count(self, operation: str, now: float) -> None:
        """Note a request; time and CPU count from the first."""
        if self.first_request is None:
            self.first_request = now
            self._cpu_before_s = time.process_time()
        self.requests[operation] += 1

    def report(self) -> bytes:
        """As `benchmarks.report.Report` reads it."""
        zero = self.first_request or 0.0
        limits = self.options.limits
        return json.dumps(
            {
                "workers": self.options.workers,
                "rates": None if limits is None else {name: limit.requests for name, limit in limits.items()},
                "requests": self.requests,
                "refused": {} if self.meter is None else self.meter.refused,
                "faults": self.faults,
                "unknown": self.unknown,
                "cpu_s": time.process_time() - self._cpu_before_s,
                "first_request": self.first_request,
                "jobs": [job.record(zero) for job in self.jobs.all.values()],
            }
        ).encode()


class Connection(asyncio.Protocol):
    """One connection of a client: a request, its answer, the next request."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = b""
        self._size = -1
        self._query = b""
        self._is_open = False
        self._admitted: str | None = None
        self._fault: str | None = None
        self._let_go: Callable[[], None] = _nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, error: Exception | None) -> None:
        """A client hung up: what it asked for goes on, but nobody waits for it."""
        self._let_go()
        self._close()

    def data_received(self, data: bytes) -> None:
        """Some bytes, from a part of a request to all of it."""
        self._buffer = self._buffer + data if self._buffer else data
        if not self._is_open and len(self._buffer) >= self._size:
            self._take()

    def _take(self) -> None:
        """Answer the request in the buffer, if all of it is there."""
        head_size = self._buffer.find(b"\r\n\r\n") + 4
        if head_size < 4:
            return
        head = self._buffer[:head_size]
        self._size = head_size + _content_length(head)
        if len(self._buffer) < self._size:
            return
        body = self._buffer[head_size : self._size]
        self._buffer = self._buffer[self._size :]
        self._size = -1
        if b"100-continue" in head:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        path, _, self._query = head.split(b" ", 2)[1].partition(b"?")
        segments = path.decode("latin-1").split("/")
        self._request(segments[3] if len(segments) > 3 else segments[-1], segments[-1], body)

    def _request(self, operation: str, argument: str, body: bytes) -> None:
        server = self._server
        self._is_open = True
        self._fault = None
        if operation == "_report":
            return self._answer(200, server.report())
        now = time.monotonic()
        server.count(operation, now)
        if operation == "health":
            return self._answer(200, server.jobs.health())
        if operation not in METERED:
            return self._answer(404, b'{"detail":"operation not found"}')
        if server.meter is not None:
            wait_s = server.meter.admit(operation, now)
            if wait_s is not None:
                return self._answer(429, RATE_LIMITED, wait_s)
            self._admitted = operation
        self._fault = server.draw()
        if self._fault == "429":
            self._fault = None
            return self._answer(429, RATE_LIMITED, 1.0)
        if self._fault is not None and self._fault.endswith("before"):
            return self._answer(500, b"")
        return self._carry(operation, argument, body, now)

    def _carry(self, operation: str, argument: str, body: bytes, now: float) -> None:
        jobs = self._server.jobs
        if operation in ("run", "runsync"):
            try:
                job = jobs.submit(body, operation, now)
            except BadBody as error:
                return self._answer(400, json.dumps({"error": str(error)}).encode())
            if operation == "run":
                return self._answer(200, b'{"id":"%b","status":"IN_QUEUE"}' % job.id.encode())
            return self._hold(job, 90_000)
        found = jobs.all.get(argument)
        if found is None or (operation == "status-sync" and not self._server.options.status_sync):
            self._server.unknown += 1
            return self._answer(404, NOT_FOUND)
        if operation == "status":
            return self._tell(found)
        if operation == "status-sync":
            return self._hold(found, 90_000)
        if operation == "stream":
            return self._stream(found, now + self._wait_s(10_000))
        jobs.cancel(found, now)
        return self._answer(200, b'{"id":"%b","status":"%b"}' % (found.id.encode(), found.status.encode()))

    def _wait_s(self, default_ms: int) -> float:
        text = self._query.partition(b"wait=")[2].partition(b"&")[0]
        return (int(text) if text.isdigit() else default_ms) / 1000

    def _tell(self, job: Job) -> None:
        """Answer how a job stands."""
        if job.told_at is None and job.status in FINAL and self._fault is None:
            job.told_at = time.monotonic()
        self._answer(200, self._server.jobs.shown(job))

    def _hold(self, job: Job, default_ms: int) -> None:
        """Answer when the job has ended, or the wait is over."""
        if job.status in FINAL:
            return self._tell(job)

        def over() -> None:
            timer.cancel()
            self._let_go = _nothing
            self._tell(job)

        def timed_out() -> None:
            job.waiting.remove(over)
            over()

        def let_go() -> None:
            timer.cancel()
            job.waiting.remove(over)

        timer = self._server.loop.call_later(self._wait_s(default_ms), timed_out)
        job.waiting.append(over)
        self._let_go = let_go
        return None

    def _stream(self, job: Job, deadline: float) -> None:
        """Answer with the chunks since the last time; while there are none, hold until *deadline*."""
        now = time.monotonic()
        chunks = self._server.jobs.drain(job, now)
        if chunks is None and now >= deadline:
            chunks = b'{"status":"%b","stream":[]}' % job.status.encode()
        if chunks is not None:
            self._let_go = _nothing
            if job.told_at is None and job.status in FINAL and self._fault is None:
                job.told_at = now
            return self._answer(200, chunks)

        def again() -> None:
            let_go()
            self._stream(job, deadline)

        def let_go() -> None:
            timer.cancel()
            if again in job.waiting:
                job.waiting.remove(again)

        at = min(deadline, self._server.jobs.next_chunk_at(job) or deadline)
        timer = self._server.loop.call_later(max(0.001, at - now), again)
        job.waiting.append(again)
        self._let_go = let_go
        return None

    def _answer(self, code: int, body: bytes, wait_s: float | None = None) -> None:
        """Send the answer, or what the fault makes of it, and go on with the next request."""
        self._close()
        transport = self._transport
        if self._fault is not None:
            if self._fault.startswith("reset"):
                self._fault = None
                return transport.abort()
            is_plain = self._server.requests.total() % 2 == 0
            head, body = (ANSWERS[500], b'{"error":"internal"}') if is_plain else (BAD_GATEWAY, b"<h1>Bad gateway</h1>")
        else:
            head = ANSWERS[code]
        if wait_s is not None and self._server.options.retry_after:
            head += b"Retry-After: %d\r\n" % max(1, math.ceil(wait_s))
        head += b"Content-Length: %d\r\n\r\n" % len(body)
        if len(body) < 16_384:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        if self._buffer:
            self._server.loop.call_soon(self.data_received, b"")
        return None

    def _close(self) -> None:
        """The request is answered, or nobody waits for it."""
        self._is_open = False
        if self._admitted is not None and self._server.meter is not None:
            self._server.meter.leave(self._admitted)
        self._admitted = None


def _nothing() -> None:
    pass


def _content_length(head: bytes) -> int:
    """The length of the body that follows *head*."""
    at = head.find(b"ontent-Length: ")  # as aiohttp and requests write it
    if at < 0:
        at = head.lower().find(b"ontent-length: ")
        if at < 0:
            return 0
    return int(head[at + 15 : head.index(b"\r", at)])


async def serve(options: Options) -> None:
    """Serve on a free port, which is the one line on stdout, until stdin ends."""
    loop = asyncio.get_running_loop()
    server = Server(options, loop)
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=4096)
    print(listening.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    listening.close()


def _line(source: int) -> bytes:
    """The next line, and no byte more: what stdin buffers, the loop does not see."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(source, 1)):
        line += byte
    return line


def main() -> None:
    """What to be like is the one line on stdin."""
    given = json.loads(_line(sys.stdin.fileno()))
    if given["cpu"] is not None:
        os.sched_setaffinity(0, {given["cpu"]})
    with asyncio.Runner(loop_factory=new_loop) as running:
        running.run(serve(Options.from_json(given["options"])))


if __name__ == "__main__":
    main()
