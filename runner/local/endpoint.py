"""One endpoint at work: its jobs, everybody who waits for them, and the clock that moves them on."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Protocol

from runner.clock import Clock
from runner.local import wire
from runner.local.accepted import AcceptedLog
from runner.local.job import Job, Policy
from runner.local.jobs import Jobs, Stop
from runner.values import JsonObject, JsonValue


class Workers(Protocol):
    """What an endpoint needs of whoever runs its workers."""

    def ready(self, worker_id: str) -> None:
        """Called when a worker asks for a job: its handler is imported."""
        ...

    def failed(self, worker_id: str, report: JsonObject) -> None:
        """Called when a worker reports that it can't work, before it exits."""
        ...

    def end(self, worker_id: str) -> bool:
        """End this worker now; False if it is not one of ours, and only asking it to stop is left."""
        ...

    def counts(self) -> tuple[int, int, int]:
        """How many workers are initializing, ready (with a job or without), unhealthy."""
        ...


class Endpoint:
    """
    The state of one endpoint, and the futures of those who wait for it to change.

    Every decision is made by one synchronous call of `Jobs`; nothing is awaited between looking and acting.
    """

    def __init__(
        self, name: str, *, clock: Clock, retention_s: float, sync_retention_s: float, log: AcceptedLog | None
    ) -> None:
        self.name = name
        self.closing = False
        self.jobs = Jobs(retention_s=retention_s, sync_retention_s=sync_retention_s, on_change=self._changed)
        self.workers: Workers | None = None
        self._clock = clock
        self._log = log
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._takers: dict[asyncio.Future[None], None] = {}
        self._watchers: dict[str, dict[asyncio.Future[None], None]] = {}
        self._stops: dict[str, list[str]] = {}
        # Workers that are being ended: they get no further job, or a second one would lose its worker as well.
        self._doomed: set[str] = set()

    # Clients.

    def submit(self, input_: JsonValue, policy: Policy, *, is_sync: bool) -> Job:
        """
        Accept a new job.

        Raises:
            BadBody: the input is nested too deeply to be written again.
        """
        job_id = f"{'sync-' if is_sync else ''}{uuid.uuid4()}-u1"
        job = Job(job_id, wire.encode(input_), policy, is_sync, self._clock.monotonic())
        if self._log is not None:
            self._log.accepted(self.name, "runsync" if is_sync else "run", job_id, input_)
        self.jobs.enqueue(job)
        return job

    def cancel(self, job_id: str) -> None:
        """Cancel a known job, and end or ask the worker that runs it."""
        stop = self.jobs.cancel(job_id, self._clock.monotonic())
        if stop is not None:
            self._order(stop)

    def retry(self, job: Job) -> bool:
        """Queue a failed job again; False if it did not fail."""
        if not self.jobs.retry(job.id, self._clock.monotonic()):
            return False
        if self._log is not None:
            self._log.accepted(self.name, "retry", job.id, wire.parse(job.input))
        return True

    async def until(self, job: Job, satisfied: Callable[[], bool], wait_s: float) -> None:
        """Hold until *satisfied*, until *wait_s* passed, the job is forgotten, or the endpoint closes."""
        deadline = asyncio.get_running_loop().time() + wait_s
        while not (satisfied() or self.closing) and self.jobs.find(job.id) is job:
            if not await self._change(job.id, deadline):
                return

    async def _change(self, key: str, deadline: float) -> bool:
        """Wait for something to happen to *key*; False if nothing did until *deadline*, on the loop's clock."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watchers = self._watchers.setdefault(key, {})
        watchers[future] = None
        try:
            async with asyncio.timeout_at(deadline):
                await future
        except TimeoutError:
            return False
        finally:
            watchers.pop(future, None)
            if not watchers and self._watchers.get(key) is watchers:
                del self._watchers[key]
        return True

    # Workers.

    async def take(self, worker_id: str, wait_s: float, *, limit: int, is_gone: Callable[[], bool]) -> list[Job]:
        """
        Hand out at most *limit* jobs, waiting at most *wait_s* for the first.

        Nothing is handed to a worker that is being ended, or whose connection *is_gone*.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        try:
            while not (self.closing or is_gone() or worker_id in self._doomed):
                jobs = self._take_now(worker_id, limit)
                if jobs or not await self._arrival(deadline):
                    return jobs
            return []
        finally:
            # Whoever leaves hands the call on: it may have been for a job that was not taken here.
            if self.jobs.is_queued():
                self._wake_taker()

    async def _arrival(self, deadline: float) -> bool:
        """Wait for a job to be queued; False if there was none until *deadline*, on the loop's clock."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._takers[future] = None
        try:
            async with asyncio.timeout_at(deadline):
                await future
        except TimeoutError:
            return False
        finally:
            del self._takers[future]
        return True

    def _take_now(self, worker_id: str, limit: int) -> list[Job]:
        jobs: list[Job] = []
        while len(jobs) < limit:
            job = self.jobs.take(worker_id, self._clock.monotonic())
            if job is None:
                break
            jobs.append(job)
        return jobs

    def give_back(self, worker_id: str, jobs: list[Job]) -> None:
        """Queue jobs again that could not be handed over."""
        for job in jobs:
            self.jobs.give_back(job.id, worker_id)

    def done(self, job_id: str, worker_id: str, *, output: bytes | None, error: bytes | None) -> None:
        """Settle a job, unless it is settled, or another worker's by now."""
        self.jobs.done(job_id, worker_id, self._clock.monotonic(), output=output, error=error)

    def recycle(self, worker_id: str) -> None:
        """End a worker that asked for a fresh start (``refresh_worker``), once it holds no other job."""
        if not self.jobs.held_by(worker_id):
            self._end(worker_id)

    def worker_gone(self, worker_id: str) -> None:
        """Take back what a worker held that died, or that says it holds nothing."""
        self.jobs.worker_died(worker_id, self._clock.monotonic())

    def forget_worker(self, worker_id: str) -> None:
        """Take back what an ended worker held; its id never comes again."""
        self.worker_gone(worker_id)
        self._doomed.discard(worker_id)
        self._stops.pop(worker_id, None)

    async def stops(self, worker_id: str, wait_s: float) -> list[str]:
        """The jobs that this worker shall stop, waiting at most *wait_s* for one."""
        deadline = asyncio.get_running_loop().time() + wait_s
        while not self.closing and worker_id not in self._stops:
            if not await self._change(_stop_key(worker_id), deadline):
                break
        return self._stops.pop(worker_id, [])

    # Ours.

    def worker_counts(self) -> tuple[int, int, int, int]:
        """How many workers are idle, initializing, running, unhealthy, now."""
        running = self.jobs.busy_workers()
        if self.workers is None:
            return len(self._takers), 0, running, 0  # others run them: those that ask for a job are all we see
        initializing, ready, unhealthy = self.workers.counts()
        return max(0, ready - running), initializing, running, unhealthy

    def close(self) -> None:
        """Answer everybody who waits, and let nobody wait from now on."""
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        for future in self._takers:
            _wake(future)
        for key in list(self._watchers):
            self._wake_watchers(key)

    def _changed(self, job: Job) -> None:
        """What everybody must know after any change of a job; called by `Jobs`."""
        known = self.jobs.find(job.id) is job
        if self._log is not None and (job.status.is_final if known else not job.status.is_final):
            self._log.done(self.name, job.id, str(job.status) if known else None)
        self._wake_watchers(job.id)
        if known and not job.status.is_final and job.worker_id is None:
            self._wake_taker()
        self._set_timer()

    def _order(self, stop: Stop) -> None:
        """See to it that a worker stops working on a job that is over."""
        if not self._end(stop.worker_id):
            self._stops.setdefault(stop.worker_id, []).append(stop.job_id)
            self._wake_watchers(_stop_key(stop.worker_id))

    def _end(self, worker_id: str) -> bool:
        """End a worker that is ours to end; it gets no job from now on."""
        if self.workers is None or not self.workers.end(worker_id):
            return False
        self._doomed.add(worker_id)
        for future in self._takers:
            _wake(future)  # one of them may be the doomed worker's
        return True

    def _set_timer(self) -> None:
        at = self.jobs.next_deadline()
        if at == self._timer_at or self.closing:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        if at is None:
            self._timer = None
            return
        # Never under a millisecond: the loop's timers may ring a little early, and then it must not spin.
        delay_s = max(0.001, at - self._clock.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._expire)

    def _expire(self) -> None:
        self._timer = self._timer_at = None
        for stop in self.jobs.expire(self._clock.monotonic()):
            self._order(stop)
        self._set_timer()

    def _wake_taker(self) -> None:
        for future in self._takers:
            if not future.done():
                future.set_result(None)
                return

    def _wake_watchers(self, key: str) -> None:
        for future in self._watchers.pop(key, ()):
            _wake(future)


def _stop_key(worker_id: str) -> str:
    """The key under which a worker's stop orders are watched; the space keeps it apart from job ids."""
    return f"stop {worker_id}"


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
