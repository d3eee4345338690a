"""One endpoint at work: its jobs, what clients do with them, and the clock that moves them on."""

import asyncio
import uuid
from collections.abc import Callable, Sequence

from runner.clock import Clock
from runner.local import wire
from runner.local.accepted import AcceptedLog
from runner.local.batches import Batch, Batches
from runner.local.crew import Crew
from runner.local.faults import FINE, Conditions
from runner.local.job import Job
from runner.local.jobs import Jobs
from runner.local.waiting import Waiting


class Endpoint:
    """
    The jobs of one endpoint, its *crew* of workers, and everybody who waits for either.

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
        self.jobs = Jobs(retention_s=retention_s, sync_retention_s=sync_retention_s, on_change=self._changed)
        self.batches = Batches(self.jobs, retention_s=retention_s, on_accept=self._committed)
        self.conditions = FINE
        self.seed = 0
        self._waiting = Waiting()
        self.crew = Crew(
            self.jobs,
            self._waiting,
            clock,
            lease_s=lease_s,
            stop_limit_s=stop_limit_s,
            on_deadline=self._set_timer,
        )
        self._clock = clock
        self._log = log
        self._on_end = on_end
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None

    @property
    def closing(self) -> bool:
        """Whether it is `close`d."""
        return self._waiting.closing

    def set_conditions(self, conditions: Conditions, *, seed: int = 0) -> None:
        """Have these conditions from now on, with this *seed* for what is drawn."""
        self.conditions, self.seed = conditions, seed
        self.batches.delay_s = conditions.batch_delay_s
        self.crew.set_conditions(conditions)
        self.jobs.times_out = conditions.times_out

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
            self.crew.order(stop)

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

    def age_s(self, one: str) -> float | None:
        """How long ago the job of this id was queued, or the batch made; None if there is neither."""
        job, batch = self.jobs.find(one), self.batches.find(one)
        if job is not None:
            return self._clock.monotonic() - job.queued_at
        return None if batch is None else self._clock.now() - batch.created_at

    # The Batch API: what needs the clock.

    def batch_job(self, asked: wire.Submission) -> Job:
        """
        A job to be, for a batch. Its webhook will not be told.

        Raises:
            BadBody: the input is nested too deeply to be written again.
        """
        s3_config = None if asked.s3_config is None else wire.encode(asked.s3_config)
        now = self._clock.monotonic()
        return Job(f"req_{uuid.uuid4().hex}", wire.encode(asked.input), asked.policy, False, now, s3_config=s3_config)

    def create_batch(self, jobs: Sequence[Job]) -> Batch:
        """Have a new draft; raises `NotAllowed`."""
        return self.batches.create(f"batch_{uuid.uuid4().hex}", self._clock.now(), jobs)

    def finalize_batch(self, batch: Batch, *, fails: bool) -> None:
        """Commit a draft; raises `NotAllowed`."""
        self.batches.finalize(batch, self._clock.monotonic(), fails=fails)
        self._set_timer()

    def cancel_batch(self, batch: Batch) -> None:
        """Drop what is queued of a batch."""
        self.batches.cancel(batch, self._clock.monotonic())
        self._set_timer()

    def _committed(self, job: Job) -> None:
        if self._log is not None:
            self._log.accepted(self.name, "batch", job.id, wire.parse(job.input))

    async def until(self, job: Job, satisfied: Callable[[], bool], wait_s: float) -> None:
        """Hold until *satisfied*, until *wait_s* passed, the job is forgotten, or the endpoint closes."""
        deadline = asyncio.get_running_loop().time() + wait_s
        while not (satisfied() or self.closing) and self.jobs.find(job.id) is job:
            if not await self._waiting.change(job.id, deadline):
                return

    def close(self) -> None:
        """Answer everybody who waits, and let nobody wait from now on."""
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.close()

    def _changed(self, job: Job) -> None:
        """What everybody must know after any change of a job; called by `Jobs`."""
        known = self.jobs.find(job.id) is job
        if self._log is not None and (job.status.is_final if known else not job.status.is_final):
            self._log.done(self.name, job.id, str(job.status) if known else None)
        if known and job.status.is_final:
            self._on_end(job)
        self._waiting.changed(job.id)
        self.crew.follow(job)
        if known and not job.status.is_final and job.worker_id is None:
            self._waiting.arrived()
        if job.batch_id is not None:
            self.batches.follow(job, self._clock.monotonic(), self._clock.now())
        self._set_timer()

    def _set_timer(self) -> None:
        ats = (self.jobs.next_deadline(), self.crew.next_deadline(), self.batches.next_deadline())
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
            self.crew.order(stop)
        self.crew.expire(now)
        self.batches.expire(now)
        self._set_timer()
