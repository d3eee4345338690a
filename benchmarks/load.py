"""A load generator that is cheap enough to saturate a server from one core: raw HTTP, bytes in and out."""

import asyncio
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from urllib.parse import urlsplit

FINAL = (b'"COMPLETED"', b'"FAILED"', b'"CANCELLED"', b'"TIMED_OUT"')


@dataclass
class Measured:
    """What came of it: *latencies_s* by operation, *errors* by HTTP status, everything in *seconds*."""

    seconds: float = 0.0
    latencies_s: dict[str, "array[float]"] = field(default_factory=dict)
    errors: Counter[int] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """How many requests were answered."""
        return sum(len(one) for one in self.latencies_s.values())

    def add(self, other: "Measured") -> None:
        """Count *other* in, which was measured at another time."""
        self.seconds += other.seconds
        self.errors.update(other.errors)
        for operation, latencies in other.latencies_s.items():
            self.latencies_s.setdefault(operation, array("d")).extend(latencies)

    def percentile_ms(self, share: float) -> float:
        """The latency that *share* of all requests stay within."""
        ordered = sorted(one for latencies in self.latencies_s.values() for one in latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


@dataclass(frozen=True)
class Work:
    """
    What each of *jobs* jobs is: a submit, and a look at it.

    *submit* is ``run`` or ``runsync``; *look* is ``status``, ``status-sync``, or None for no look. *until_final* looks
    until the job has ended.
    """

    jobs: int
    submit: str = "run"
    look: str | None = "status"
    until_final: bool = False


async def load(url: str, token: str, work: Work, *, connections: int = 16) -> Measured:
    """
    Do *work* against the endpoint at *url*, *connections* jobs at a time, as fast as the server lets us.

    Raises:
        ConnectionError: the server hung up.
    """
    parts = urlsplit(url)
    shared = _Shared(work, parts.path, f"Host: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n".encode())
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    lanes = [_Lane(shared) for _ in range(min(connections, work.jobs))]
    for lane in lanes:
        await loop.create_connection(partial(_itself, lane), str(parts.hostname), int(parts.port or 80))
    await asyncio.gather(*(lane.over for lane in lanes))
    shared.measured.seconds = time.perf_counter() - started
    return shared.measured


def _itself(lane: "_Lane") -> "_Lane":
    return lane


class _Shared:
    """What all connections share."""

    def __init__(self, work: Work, path: str, headers: bytes) -> None:
        self.work = work
        self.left = work.jobs
        self.number = 0
        self.measured = Measured()
        operations = [work.submit] if work.look is None else [work.submit, work.look]
        self.measured.latencies_s = {operation: array("d") for operation in operations}
        self.submit = b"POST %b/%b HTTP/1.1\r\n%bContent-Type: application/json\r\nContent-Length: %%d\r\n\r\n%%b" % (
            path.encode(),
            work.submit.encode(),
            headers,
        )
        self.look = b"GET %b/%b/%%b HTTP/1.1\r\n%b\r\n" % (path.encode(), (work.look or "").encode(), headers)


class _Lane(asyncio.Protocol):
    """One connection, one job at a time."""

    def __init__(self, shared: _Shared) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._shared = shared
        self._buffer = b""
        self._look = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start with the first job."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._submit()

    def connection_lost(self, error: Exception | None) -> None:
        """The end, unless we wanted it, is an error."""
        if not self.over.done():
            self.over.set_exception(error or ConnectionError("the server hung up"))

    def data_received(self, data: bytes) -> None:
        """An answer, or a part of it."""
        self._buffer = data = self._buffer + data if self._buffer else data
        head_size = data.find(b"\r\n\r\n") + 4
        if head_size < 4:
            return
        at = data.find(b"Content-Length: ") + 16
        if len(data) < head_size + int(data[at : data.index(b"\r", at)]):
            return
        self._buffer = b""
        self._latencies.append(time.perf_counter() - self._asked_at)
        if data[9:12] != b"200":
            self._shared.measured.errors[int(data[9:12])] += 1
            self._submit()
            return
        self._answered(data[head_size:])

    def _answered(self, body: bytes) -> None:
        work = self._shared.work
        if work.look is None or (self._look and not (work.until_final and not any(one in body for one in FINAL))):
            self._submit()
            return
        if not self._look:
            self._look = self._shared.look % body.split(b'"id":"', 1)[1].split(b'"', 1)[0]
        self._ask(work.look, self._look)

    def _submit(self) -> None:
        """Go on with the next job, if there is one."""
        shared = self._shared
        self._look = b""
        if not shared.left:
            self.over.set_result(None)
            self._transport.close()
            return
        shared.left -= 1
        shared.number += 1
        body = b'{"input":{"key":%d}}' % shared.number
        self._ask(shared.work.submit, shared.submit % (len(body), body))

    def _ask(self, operation: str, request: bytes) -> None:
        self._latencies = self._shared.measured.latencies_s[operation]
        self._asked_at = time.perf_counter()
        self._transport.write(request)
