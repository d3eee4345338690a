"""One endpoint at work: its jobs, everybody who waits for them, and the clock that moves them on."""

import asyncio
import uuid
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

from runner.clock import Clock
from runner.local import wire
from runner.local.accepted import AcceptedLog
from runner.local.cold import Cold
from runner.local.deadlines import Deadlines
from runner.local.external import External
from runner.local.faults import FINE, Conditions
from runner.local.job import Job, Status
from runner.local.jobs import Jobs, Stop
from runner.local.stops import Stops
from runner.values import JsonObject


class Workers(Protocol):
    """What an endpoint needs of whoever runs its workers."""

    leased: bool
    """Whether only its signs of life tell that a worker lives; if not, its end will be told."""

    def admits(self, worker_id: str) -> bool:
        """Whether this worker may have jobs: it lives, and is not being ended."""
        ...

    def alive(self, worker_id: str) -> None:
        """Called at every sign of life."""
        ...

    def left(self, worker_id: str) -> None:
        """Called when a worker without a job hangs up while it waits for one."""
        ...

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


class WorkerCounts(NamedTuple):
    """The worker counters of /health."""

    idle: int
    initializing: int
    running: int
    throttled: int
    unhealthy: int


class Endpoint:
    """
    The state of one endpoint, and the futures of those who wait for it to change.

    Every decision is made by one synchronous call of `Jobs`; nothing is awaited between looking and acting.

    Args:
        lease_s: How long a worker whose process nobody here sees may be silent about a job before it counts as lost.
        stop_limit_s: How long a worker may take to hear that it must stop a job, before it is ended.
        on_end: Called with each job that ended, and that can still be asked for.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Clock,
        retention_s: float,
        sync_retention_s: float,
        log: AcceptedLog | None,
        lease_s: float = 40.0,
        stop_limit_s: float = 5.0,
        on_end: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self.name = name
        self.closing = False
        self.jobs = Jobs(retention_s=retention_s, sync_retention_s=sync_retention_s, on_change=self._changed)
        self.workers: Workers = External(clock, lease_s)
        self._clock = clock
        self._lease_s = lease_s
        self._log = log
        self._on_end = on_end
        self._conditions = FINE
        self._cold = Cold(0.0)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._takers: dict[asyncio.Future[None], None] = {}
        self._watchers: dict[str, dict[asyncio.Future[None], None]] = {}
        self._stops = Stops(stop_limit_s)
        self._leases = Deadlines()
        self._named: set[str] = set()
        # Workers that asked for a fresh start: they finish what they have, and get no further job.
        self._worn: set[str] = set()

    def set_conditions(self, conditions: Conditions) -> None:
        """Have these conditions from now on; workers that were cold are no more, unless they come anew."""
        self._conditions = conditions
        self._cold = Cold(conditions.cold_start_s)
        self.jobs.times_out = conditions.times_out

    # Clients.

    def submit(self, asked: wire.Submission, *, is_sync: bool) -> Job:
        """
        Accept a new job.

        Raises:
            BadBody: the input is nested too deeply to be written again.
        """
        job = Job(
            f"{'sync-' if is_sync else ''}{uuid.uuid4()}-u1",
            wire.encode(asked.input),
            asked.policy,
            is_sync,
            self._clock.monotonic(),
            webhook=asked.webhook,
            s3_config=None if asked.s3_config is None else wire.encode(asked.s3_config),
        )
        if self._log is not None:
            self._log.accepted(self.name, "runsync" if is_sync else "run", job.id, asked.input)
        self.jobs.enqueue(job)
        return job

    def cancel(self, job_id: str) -> None:
        """Cancel a known job, and end or ask the worker that runs it."""
        stop = self.jobs.cancel(job_id, self._clock.monotonic())
        if stop is not None:
            self._order(stop)

    def shorten(self, job: Job, ttl_s: float) -> None:
        """Let a known job live for *ttl_s* from now, a result never longer than it would."""
        self.jobs.shorten(job.id, self._clock.monotonic(), ttl_s)
        self._set_timer()

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
            while not (self.closing or is_gone()) and self.workers.admits(worker_id):
                if worker_id in self._worn:
                    # Held all the same: the real worker does not pause after an answer without a job.
                    if not await self._change(_worker_key(worker_id), deadline):
                        return []
                    continue
                warm_at = self._cold.until(worker_id, loop.time())
                if loop.time() < warm_at:
                    await self._change(_worker_key(worker_id), min(warm_at, deadline))
                    if loop.time() >= deadline:
                        return []
                    continue
                jobs = self._take_now(worker_id, limit)
                if jobs or not await self._arrival(deadline):
                    return jobs
            return []
        except asyncio.CancelledError:
            if not self.jobs.held_by(worker_id):
                self.workers.left(worker_id)
            raise
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
        for job in reversed(jobs):  # each goes before all others, so the oldest comes last
            self.jobs.give_back(job.id, worker_id)

    def done(self, job_id: str, worker_id: str, *, output: bytes | None, error: bytes | None) -> None:
        """Settle a job, unless it is settled, or another worker's by now."""
        self.jobs.done(job_id, worker_id, self._clock.monotonic(), output=output, error=error)

    def recycle(self, worker_id: str) -> None:
        """End a worker that asked for a fresh start (``refresh_worker``), once it holds no other job."""
        if not self.workers.leased:  # whoever started the others must recycle them
            self._worn.add(worker_id)
            self._retire(worker_id)

    def worker_gone(self, worker_id: str) -> None:
        """Take back what a worker held that died, or that says it holds nothing."""
        self.jobs.worker_died(worker_id, self._clock.monotonic())
        self._retire(worker_id)

    def forget_worker(self, worker_id: str) -> None:
        """Take back what an ended worker held; its id never comes again."""
        self._worn.discard(worker_id)
        self.worker_gone(worker_id)
        self._stops.forget(worker_id)
        self._cold.forget(worker_id)

    def works_on(self, worker_id: str, job_ids: Collection[str]) -> None:
        """
        A worker says by a ping which jobs it has.

        Of one that it named before, and now doesn't, nothing will be heard again: its result would have come first. One
        that it never named may be too new, and has its lease. One that it was to stop long ago, it will not stop.
        """
        now = self._clock.monotonic()
        for job_id in self.jobs.held_by(worker_id):
            if job_id in job_ids:
                self._named.add(job_id)
            if job_id in job_ids or job_id not in self._leases:
                self._leases.set(job_id, now + self._lease_s)
            elif job_id in self._named:
                self.jobs.lost(job_id, now)
        self._retire(worker_id)
        disobeyed = self._stops.disobeys(worker_id, job_ids, now)
        if disobeyed and not self._end(worker_id):
            for job_id in disobeyed:
                self._order(Stop(worker_id, job_id))
        self._set_timer()

    async def stops(self, worker_id: str, wait_s: float) -> list[str]:
        """The jobs that this worker shall stop, waiting at most *wait_s* for one."""
        self._stops.asks(worker_id, self._clock.monotonic())
        self._set_timer()
        deadline = asyncio.get_running_loop().time() + wait_s
        while not self.closing and self.workers.admits(worker_id) and not self._stops.waiting(worker_id):
            if not await self._change(_worker_key(worker_id), deadline):
                break
        return self._stops.tell(worker_id)

    # Ours.

    def worker_counts(self) -> WorkerCounts:
        """How the workers are, now."""
        running = self.jobs.busy_workers()
        initializing, ready, unhealthy = self.workers.counts()
        cold = self._cold.count(asyncio.get_running_loop().time())
        return WorkerCounts(
            idle=max(0, ready - running - cold),
            initializing=initializing + cold,
            running=running,
            throttled=self._conditions.throttled,
            unhealthy=unhealthy + self._conditions.unhealthy,
        )

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
        if known and job.status.is_final:
            self._on_end(job)
        self._wake_watchers(job.id)
        self._lease(job)
        if job.worker_id is not None and job.status.is_final:
            self._retire(job.worker_id)
        if known and not job.status.is_final and job.worker_id is None:
            self._wake_taker()
        self._set_timer()

    def _order(self, stop: Stop) -> None:
        """
        See to it that a worker stops working on a job that is over.

        One that listens is asked, and ended only if it doesn't hear: its other jobs, if it has any, go on.
        """
        if not self._stops.listens(stop.worker_id) and self._end(stop.worker_id):
            return
        self._stops.order(stop.worker_id, stop.job_id, self._clock.monotonic())
        self._wake_watchers(_worker_key(stop.worker_id))
        self._set_timer()

    def _end(self, worker_id: str) -> bool:
        """End a worker that is ours to end; it gets no job from now on, and no answer to wait for."""
        if not self.workers.end(worker_id):
            return False
        for future in self._takers:
            _wake(future)  # one of them may be this worker's
        self._wake_watchers(_worker_key(worker_id))
        return True

    def _retire(self, worker_id: str) -> None:
        """End a worker that wants a fresh start and has no job left."""
        if worker_id in self._worn and not self.jobs.held_by(worker_id):
            self._worn.discard(worker_id)
            self._end(worker_id)

    def _lease(self, job: Job) -> None:
        """A job's lease begins anew with whatever its worker tells of it, and ends with its time on the worker."""
        if job.status is not Status.IN_PROGRESS or self.jobs.find(job.id) is not job:
            self._leases.drop(job.id)
            self._named.discard(job.id)
        elif self.workers.leased or job.id in self._leases:
            self._leases.set(job.id, self._clock.monotonic() + self._lease_s)

    def _set_timer(self) -> None:
        ats = (self.jobs.next_deadline(), self._leases.next(), self._stops.next())
        at = min((one for one in ats if one is not None), default=None)
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
        now = self._clock.monotonic()
        for stop in self.jobs.expire(now):
            self._order(stop)
        while (job_id := self._leases.due(now)) is not None:
            job = self.jobs.find(job_id)
            worker_id = job.worker_id if job is not None else None
            self.jobs.lost(job_id, now)
            if worker_id is not None:
                self._retire(worker_id)
        while (worker_id := self._stops.deaf(now)) is not None:
            self._end(worker_id)
        self._set_timer()

    def _wake_taker(self) -> None:
        for future in self._takers:
            if not future.done():
                future.set_result(None)
                return

    def _wake_watchers(self, key: str) -> None:
        for future in self._watchers.pop(key, ()):
            _wake(future)


def _worker_key(worker_id: str) -> str:
    """The key under which what concerns a worker is watched; the space keeps it apart from job ids."""
    return f"worker {worker_id}"


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
