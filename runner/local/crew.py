"""What the workers of one endpoint do, and what is done about those that go silent, deaf or stale."""

import asyncio
from collections.abc import Callable, Collection

from runner.clock import Clock
from runner.local.cold import Cold
from runner.local.deadlines import Deadlines
from runner.local.external import External
from runner.local.faults import FINE, Conditions
from runner.local.job import Job, Status
from runner.local.jobs import Jobs, Stop
from runner.local.stops import Stops
from runner.local.waiting import Waiting
from runner.local.workers import WorkerCounts, Workers


class Crew:
    """
    The workers of one endpoint, as its jobs see them.

    Every decision is made by one synchronous call of `Jobs`; nothing is awaited between looking and acting.

    Args:
        lease_s: How long a worker whose process nobody here sees may be silent about a job before it counts as lost.
        stop_limit_s: How long a worker may take to hear that it must stop a job, before it is ended.
        on_deadline: Called when what `next_deadline` says may have changed.
    """

    def __init__(
        self,
        jobs: Jobs,
        waiting: Waiting,
        clock: Clock,
        *,
        lease_s: float,
        stop_limit_s: float,
        on_deadline: Callable[[], None],
    ) -> None:
        self.workers: Workers = External(clock, lease_s)
        self._jobs = jobs
        self._waiting = waiting
        self._clock = clock
        self._lease_s = lease_s
        self._on_deadline = on_deadline
        self._conditions = FINE
        self._cold = Cold(0.0)
        self._stops = Stops(stop_limit_s)
        self._leases = Deadlines()
        self._named: set[str] = set()
        # Workers that asked for a fresh start: they finish what they have, and get no further job.
        self._worn: set[str] = set()

    def set_conditions(self, conditions: Conditions) -> None:
        """Have these conditions from now on; workers that were cold are no more, unless they come anew."""
        self._conditions = conditions
        self._cold = Cold(conditions.cold_start_s)

    def counts(self) -> WorkerCounts:
        """How the workers are, now."""
        running = self._jobs.busy_workers()
        initializing, ready, unhealthy = self.workers.counts()
        cold = sum(not self._jobs.held_by(one) for one in self._cold.ids(asyncio.get_running_loop().time()))
        return WorkerCounts(
            idle=max(0, ready - running - cold),
            initializing=initializing + cold,
            running=running + self._conditions.stalled,
            throttled=self._conditions.throttled,
            unhealthy=unhealthy + self._conditions.unhealthy,
        )

    # What workers do.

    async def take(self, worker_id: str, wait_s: float, *, limit: int, is_gone: Callable[[], bool]) -> list[Job]:
        """
        Hand out at most *limit* jobs, waiting at most *wait_s* for the first.

        Nothing is handed to a worker that is being ended, or whose connection *is_gone*.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        try:
            while not (self._waiting.closing or is_gone()) and self.workers.admits(worker_id):
                if worker_id in self._worn:
                    # Held all the same: the real worker does not pause after an answer without a job.
                    if not await self._waiting.change(_key(worker_id), deadline):
                        return []
                    continue
                warm_at = self._cold.until(worker_id, loop.time())
                if loop.time() < warm_at:
                    await self._waiting.change(_key(worker_id), min(warm_at, deadline))
                    if loop.time() >= deadline:
                        return []
                    continue
                jobs = self._take_now(worker_id, limit)
                if jobs or not await self._waiting.arrival(deadline):
                    return jobs
            return []
        except asyncio.CancelledError:
            if not self._jobs.held_by(worker_id):
                self.workers.left(worker_id)
            raise
        finally:
            # Whoever leaves hands the call on: it may have been for a job that was not taken here.
            if self._jobs.is_queued():
                self._waiting.arrived()

    def _take_now(self, worker_id: str, limit: int) -> list[Job]:
        jobs: list[Job] = []
        while len(jobs) < limit:
            job = self._jobs.take(worker_id, self._clock.monotonic())
            if job is None:
                break
            jobs.append(job)
        return jobs

    def give_back(self, worker_id: str, jobs: list[Job]) -> None:
        """Queue jobs again that could not be handed over."""
        for job in reversed(jobs):  # each goes before all others, so the oldest comes last
            self._jobs.give_back(job.id, worker_id)

    def done(self, job_id: str, worker_id: str, *, output: bytes | None, error: bytes | None) -> None:
        """Settle a job, unless it is settled, or another worker's by now."""
        self._jobs.done(job_id, worker_id, self._clock.monotonic(), output=output, error=error)

    def works_on(self, worker_id: str, job_ids: Collection[str]) -> None:
        """
        A worker says by a ping which jobs it has.

        Of one that it named before, and now doesn't, nothing will be heard again: its result would have come first. One
        that it never named may be too new, and has its lease. One that it was to stop long ago, it will not stop.
        """
        now = self._clock.monotonic()
        for job_id in self._jobs.held_by(worker_id):
            if job_id in job_ids:
                self._named.add(job_id)
            if job_id in job_ids or job_id not in self._leases:
                self._leases.set(job_id, now + self._lease_s)
            elif job_id in self._named:
                self._jobs.lost(job_id, now)
        self._retire(worker_id)
        disobeyed = self._stops.disobeys(worker_id, job_ids, now)
        if disobeyed and not self._end(worker_id):
            for job_id in disobeyed:
                self.order(Stop(worker_id, job_id))
        self._on_deadline()

    async def stops(self, worker_id: str, wait_s: float) -> list[str]:
        """The jobs that this worker shall stop, waiting at most *wait_s* for one."""
        self._stops.asks(worker_id, self._clock.monotonic())
        self._on_deadline()
        deadline = asyncio.get_running_loop().time() + wait_s
        while not self._waiting.closing and self.workers.admits(worker_id) and not self._stops.waiting(worker_id):
            if not await self._waiting.change(_key(worker_id), deadline):
                break
        return self._stops.tell(worker_id)

    def recycle(self, worker_id: str) -> None:
        """End a worker that asked for a fresh start (``refresh_worker``), once it holds no other job."""
        if not self.workers.leased:  # whoever started the others must recycle them
            self._worn.add(worker_id)
            self._retire(worker_id)

    def gone(self, worker_id: str) -> None:
        """Take back what a worker held that died, or that says it holds nothing."""
        self._jobs.worker_died(worker_id, self._clock.monotonic())
        self._retire(worker_id)

    def forget(self, worker_id: str) -> None:
        """Take back what an ended worker held; its id never comes again."""
        self._worn.discard(worker_id)
        self.gone(worker_id)
        self._stops.forget(worker_id)
        self._cold.forget(worker_id)

    # What happens to them.

    def order(self, stop: Stop) -> None:
        """
        See to it that a worker stops working on a job that is over.

        One that listens is asked, and ended only if it doesn't hear: its other jobs, if it has any, go on.
        """
        if not self._stops.listens(stop.worker_id) and self._end(stop.worker_id):
            return
        self._stops.order(stop.worker_id, stop.job_id, self._clock.monotonic())
        self._waiting.changed(_key(stop.worker_id))
        self._on_deadline()

    def follow(self, job: Job) -> None:
        """
        A job changed: whose it is, how it stands, what is known of it.

        Its lease begins anew with whatever its worker tells of it, and ends with its time on the worker.
        """
        if job.status is not Status.IN_PROGRESS or self._jobs.find(job.id) is not job:
            self._leases.drop(job.id)
            self._named.discard(job.id)
        elif self.workers.leased or job.id in self._leases:
            self._leases.set(job.id, self._clock.monotonic() + self._lease_s)
        if job.worker_id is not None and job.status.is_final:
            self._retire(job.worker_id)

    def next_deadline(self) -> float | None:
        """When `expire` will next have something to do, None for never."""
        ats = (self._leases.next(), self._stops.next())
        return min((one for one in ats if one is not None), default=None)

    def expire(self, now: float) -> None:
        """Take back the jobs of those that are silent for too long; end those that don't hear."""
        while (job_id := self._leases.due(now)) is not None:
            job = self._jobs.find(job_id)
            worker_id = job.worker_id if job is not None else None
            self._jobs.lost(job_id, now)
            if worker_id is not None:
                self._retire(worker_id)
        while (worker_id := self._stops.deaf(now)) is not None:
            self._end(worker_id)

    def _end(self, worker_id: str) -> bool:
        """End a worker that is ours to end; it gets no job from now on, and no answer to wait for."""
        if not self.workers.end(worker_id):
            return False
        self._waiting.call_takers()  # one of them may be this worker's
        self._waiting.changed(_key(worker_id))
        return True

    def _retire(self, worker_id: str) -> None:
        """End a worker that wants a fresh start and has no job left."""
        if worker_id in self._worn and not self._jobs.held_by(worker_id):
            self._worn.discard(worker_id)
            self._end(worker_id)


def _key(worker_id: str) -> str:
    """The key under which what concerns a worker is watched; the space keeps it apart from job ids."""
    return f"worker {worker_id}"
