"""Jobs and workers of the fast fake: a queue, first come, first served, and time passing instead of work."""

import asyncio
import hashlib
import heapq
import math
import time
from collections import deque
from collections.abc import Callable

import orjson

from benchmarks.options import Options
from benchmarks.report import JobRecord

EARLY_S = 0.0005
"""How early a timer may ring: uvloop's have whole milliseconds."""

FINAL = frozenset({"COMPLETED", "CANCELLED"})


class BadBody(ValueError):
    """Raised when a submit has no JSON object with an ``input``."""


class Job:
    """
    One job. Times are on the monotonic clock.

    *waiting* holds what to call, once, when it is over.
    """

    __slots__ = (
        "accepted_at",
        "drained",
        "ended_at",
        "id",
        "key",
        "number",
        "operation",
        "seconds",
        "started_at",
        "status",
        "told_at",
        "waiting",
    )

    def __init__(self, number: int, key: str, operation: str, seconds: float, now: float) -> None:
        self.number = number
        self.id = f"{'sync-' if operation == 'runsync' else ''}{number:08x}-0000-4000-8000-{number:012x}-u1"
        self.key = key
        self.operation = operation
        self.seconds = seconds
        self.status = "IN_QUEUE"
        self.accepted_at = now
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.told_at: float | None = None
        self.drained = 0
        self.waiting: list[Callable[[], None]] = []

    def record(self, zero: float) -> JobRecord:
        """This job as the report has it, its times counted from *zero*."""
        times = (self.started_at, self.ended_at, self.told_at)
        started, ended, told = (None if at is None else round(at - zero, 6) for at in times)
        accepted = round(self.accepted_at - zero, 6)
        return JobRecord(self.key, self.operation, self.seconds, accepted, started, ended, told, self.status)


class Jobs:
    """
    All jobs of a server.

    The schedule does not drift: a worker takes its next job at the time at which the one before was to end, however
    late the timer rings. For those who ask, a job has ended when the timer rang.
    """

    def __init__(self, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        self.all: dict[str, Job] = {}
        self._loop = loop
        self._workers = options.workers
        self._free = options.workers
        self._queue: deque[Job] = deque()
        self._running: list[tuple[float, int, Job]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._durations = options.durations.draws(options.seed)
        self._chunks = options.chunks
        self._text = b'"text":"' + b"x" * max(0, options.output_bytes - 40) + b'"}'
        self.completed = 0

    def submit(self, body: bytes, operation: str, now: float) -> Job:
        """
        Accept a job; it may have ended when this returns.

        Raises:
            BadBody: there is no ``input`` in *body*.
        """
        try:
            given = orjson.loads(body)["input"]
        except (ValueError, TypeError, KeyError) as error:
            raise BadBody("bad request: body: 'input' is required") from error
        job = Job(len(self.all), _key(given), operation, next(self._durations), now)
        self.all[job.id] = job
        self._queue.append(job)
        if self._free:
            self._free -= 1
            self._work(now)
            self._advance(now)
        return job

    def cancel(self, job: Job, now: float) -> None:
        """End an unfinished job."""
        if job.status == "IN_PROGRESS":
            self._finish(job, "CANCELLED", now)
            self._work(now)
            self._advance(now)
        elif job.status == "IN_QUEUE":
            self._queue.remove(job)
            self._finish(job, "CANCELLED", now)

    def shown(self, job: Job) -> bytes:
        """The answer of /status."""
        status = job.status
        if status == "IN_QUEUE" or job.started_at is None:
            return b'{"id":"%b","status":"%b"}' % (job.id.encode(), status.encode())
        head = b'{"id":"%b","status":"%b","delayTime":%d' % (
            job.id.encode(),
            status.encode(),
            (job.started_at - job.accepted_at) * 1000,
        )
        if status != "COMPLETED":
            return head + b"}"
        output = b"[]" if self._chunks else b'{"key":%b,%b' % (orjson.dumps(job.key), self._text)
        return b'%b,"executionTime":%d,"workerId":"w","output":%b}' % (head, job.seconds * 1000, output)

    def drain(self, job: Job, now: float) -> bytes | None:
        """The answer of /stream, None while there is nothing to say."""
        due = self._chunks
        if job.status == "IN_QUEUE" or job.started_at is None:
            due = 0
        elif job.status == "IN_PROGRESS" and job.seconds:
            due = min(due, int((now - job.started_at) / job.seconds * due))
        if due <= job.drained and job.status not in FINAL:
            return None
        items = b",".join(b'{"output":{"chunk":%d,%b}' % (number, self._text) for number in range(job.drained, due))
        job.drained = max(job.drained, due)
        return b'{"status":"%b","stream":[%b]}' % (job.status.encode(), items)

    def next_chunk_at(self, job: Job) -> float | None:
        """When `drain` will have something to say before the job's end, None for not."""
        if job.status != "IN_PROGRESS" or job.started_at is None or job.drained + 1 >= self._chunks:
            return None
        return job.started_at + job.seconds * (job.drained + 1) / self._chunks

    def health(self) -> bytes:
        """The answer of /health."""
        running = self._workers - self._free
        jobs = {"completed": self.completed, "failed": 0, "inProgress": running}
        workers = {"idle": self._free, "initializing": 0, "ready": self._free, "running": running}
        return orjson.dumps(
            {
                "jobs": {**jobs, "inQueue": len(self._queue), "retried": 0},
                "workers": {**workers, "throttled": 0, "unhealthy": 0},
            }
        )

    def _advance(self, now: float) -> None:
        """End the jobs whose time has come, in the order of their ends, however late this is called."""
        running = self._running
        while running and running[0][0] <= now + EARLY_S:
            ends_at, _, job = heapq.heappop(running)
            if job.status == "IN_PROGRESS":
                self.completed += 1
                self._finish(job, "COMPLETED", now)
                self._work(ends_at)
        at = running[0][0] if running else math.inf
        if at != self._timer_at:
            self._timer_at = at
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if at == math.inf else self._loop.call_later(at - now, self._ring)

    def _ring(self) -> None:
        self._timer_at = math.inf
        self._advance(time.monotonic())

    def _work(self, free_at: float) -> None:
        """Give the queue's next job to a worker that has been free since *free_at*, which may be a moment ago."""
        if not self._queue:
            self._free += 1
            return
        job = self._queue.popleft()
        job.status = "IN_PROGRESS"
        job.started_at = max(free_at, job.accepted_at)
        heapq.heappush(self._running, (job.started_at + job.seconds, job.number, job))

    def _finish(self, job: Job, status: str, now: float) -> None:
        job.status = status
        job.ended_at = now
        waiting, job.waiting = job.waiting, []
        for tell in waiting:
            tell()


def _key(given: object) -> str:
    """What an input is known by."""
    if isinstance(given, dict) and "key" in given:
        return str(given["key"])
    return hashlib.blake2b(orjson.dumps(given, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()
