"""
Decide what becomes of every job of one endpoint: RunPod's job states, purely.

    enqueue ─▶ IN_QUEUE ──take──▶ IN_PROGRESS ──done──▶ COMPLETED, FAILED
                  ▲ │                │  │ │
                  │ └─cancel─────────│──│─┴─cancel─────▶ CANCELLED
                  └─worker died once─┘  └─worker died again, executionTimeout──▶ FAILED
    FAILED, TIMED_OUT ──retry──▶ IN_QUEUE       ttl over, purged, retention over ──▶ forgotten (404)

No I/O and no clock: *now* is always seconds on one monotonic clock. No operation looks at more than the jobs it is
about, so ten thousand queued jobs cost a request no more than ten.

Sources: RunPod docs, "Operation reference", "Execution policies" (read August 2026); what a lost worker and a passed
executionTimeout look like is from public field reports, which agree on FAILED, `job timed out after 1 retries`. The
docs' own TIMED_OUT is there on demand (`times_out`).
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from runner.local.deadlines import Deadlines
from runner.local.job import Job, Status

GAVE_UP = b'"job timed out after 1 retries"'
"""RunPod's error, as JSON, when the platform gave up on a job: its workers died, or executionTimeout passed."""

AUTOMATIC_RETRIES = 1


class Stop(NamedTuple):
    """A worker must stop this job, which is over for everybody else."""

    worker_id: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Counts:
    """The job counters of /health. The first three only ever grow."""

    completed: int
    failed: int
    retried: int
    in_queue: int
    in_progress: int


class Jobs:
    """
    The jobs of one endpoint.

    Args:
        retention_s: How long a /run job's result is kept after its end; RunPod: 30 min.
        sync_retention_s: The same for /runsync; RunPod: 1 min.
        on_change: Called after every change of a job's status, output or chunks, and when it is forgotten.

    While `times_out` is set, a passed executionTimeout ends a job TIMED_OUT, as the docs have it, instead of FAILED.
    """

    def __init__(
        self,
        *,
        retention_s: float = 1800.0,
        sync_retention_s: float = 60.0,
        on_change: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self.times_out = False
        self._retention_s = {False: retention_s, True: sync_retention_s}
        self._on_change = on_change
        self._jobs: dict[str, Job] = {}
        self._queue: OrderedDict[str, Job] = OrderedDict()
        self._low_queue: OrderedDict[str, Job] = OrderedDict()
        self._batch_queue: OrderedDict[str, Job] = OrderedDict()
        self._taken: dict[str, dict[str, Job]] = {}
        self._deadlines = Deadlines()
        self._in_progress = self._completed = self._failed = self._retried = 0

    def find(self, job_id: str) -> Job | None:
        """The job, None if it is unknown, expired or purged."""
        return self._jobs.get(job_id)

    def counts(self) -> Counts:
        """The counters, as of now; requests of batches, which RunPod keeps apart, are not in them."""
        queued = len(self._queue) + len(self._low_queue)
        return Counts(self._completed, self._failed, self._retried, queued, self._in_progress)

    def is_queued(self) -> bool:
        """Whether any job waits for a worker."""
        return bool(self._queue or self._low_queue or self._batch_queue)

    def busy_workers(self) -> int:
        """How many workers hold at least one job."""
        return len(self._taken)

    def held_by(self, worker_id: str) -> list[str]:
        """The ids of the jobs that this worker has in progress."""
        return list(self._taken.get(worker_id, ()))

    def next_deadline(self) -> float | None:
        """When `expire` will next have something to do, None for never."""
        return self._deadlines.next()

    # What clients do.

    def enqueue(self, job: Job) -> None:
        """Queue a new job, behind all others of its priority."""
        self._jobs[job.id] = job
        self._requeue(job)

    def cancel(self, job_id: str, now: float) -> Stop | None:
        """Cancel an unfinished job; final ones stay as they are. Returns what must be stopped, None for nothing."""
        job = self._jobs[job_id]
        if job.status.is_final:
            return None
        stop = self._stop(job)
        self._finish(job, Status.CANCELLED, now)
        return stop

    def retry(self, job_id: str, now: float) -> bool:
        """Queue a FAILED or TIMED_OUT job again, with a fresh ttl; False if it is in any other state."""
        job = self._jobs[job_id]
        if job.status not in (Status.FAILED, Status.TIMED_OUT):
            return False
        job.reset()
        job.retries = 0
        job.queued_at = now
        job.expires_at = now + job.policy.ttl_s
        self._retried += 1
        self._requeue(job)
        return True

    def shorten(self, job_id: str, now: float, ttl_s: float) -> None:
        """
        Let the job live for *ttl_s* from now: an unfinished one whatever its policy says, a result never longer.

        Source: RunPod docs, /status, ``ttl`` (read August 2026); older ones say that it removes a result sooner.
        """
        job = self._jobs[job_id]
        if job.status.is_final:
            self._deadlines.hasten(job_id, now + ttl_s)
        else:
            job.expires_at = now + ttl_s
            self._deadlines.set(job_id, self._unfinished_until(job))

    def purge(self) -> int:
        """Forget every queued job but those of batches; how many there were."""
        queued = [*self._queue.values(), *self._low_queue.values()]
        for job in queued:
            self._forget(job)
        return len(queued)

    def drain(self, job_id: str, limit_bytes: int) -> list[bytes]:
        """Take out the oldest chunks that fit *limit_bytes* together, but at least one if there is any."""
        chunks = self._jobs[job_id].chunks
        count = size = 0
        for chunk in chunks:
            size += len(chunk)
            if count and size > limit_bytes:
                break
            count += 1
        drained = chunks[:count]
        del chunks[:count]
        return drained

    # What workers do. Each says whether it counted: a job that ended, or went to another worker, is out of reach.

    def take(self, worker_id: str, now: float) -> Job | None:
        """Hand the oldest job to the worker, low priority after the rest, batches last; None if none is queued."""
        queue = self._queue or self._low_queue or self._batch_queue
        if not queue:
            return None
        job = queue.popitem(last=False)[1]
        job.status = Status.IN_PROGRESS
        job.worker_id = worker_id
        job.taken_at = now
        job.delay_ms = max(0, int((now - job.queued_at) * 1000))
        self._taken.setdefault(worker_id, {})[job.id] = job
        self._in_progress += job.batch_id is None
        self._deadlines.set(job.id, self._unfinished_until(job))
        self._on_change(job)
        return job

    def give_back(self, job_id: str, worker_id: str) -> bool:
        """Queue a job first again whose worker hung up before it got it: nothing ran, so it is no retry."""
        job = self._held(job_id, worker_id)
        if job is None:
            return False
        self._release(job)
        job.reset()
        self._requeue(job, first=True)
        return True

    def progress(self, job_id: str, worker_id: str, output: bytes | None) -> bool:
        """Show *output* while the job runs."""
        job = self._held(job_id, worker_id)
        if job is None:
            return False
        job.output = output
        self._on_change(job)
        return True

    def chunk(self, job_id: str, worker_id: str, chunk: bytes) -> bool:
        """Add one partial output, to be read once."""
        job = self._held(job_id, worker_id)
        if job is None:
            return False
        job.chunks.append(chunk)
        self._on_change(job)
        return True

    def done(self, job_id: str, worker_id: str, now: float, *, output: bytes | None, error: bytes | None) -> bool:
        """Settle the job: FAILED if there is an *error*, else COMPLETED, with or without *output*."""
        job = self._held(job_id, worker_id)
        if job is None:
            return False
        job.output, job.error = output, error
        self._finish(job, Status.COMPLETED if error is None else Status.FAILED, now)
        return True

    # What happens to them.

    def worker_died(self, worker_id: str, now: float) -> None:
        """Queue the worker's jobs first again; those that lost a worker before are FAILED."""
        for job_id in reversed(self.held_by(worker_id)):  # each goes before all others, so the oldest comes last
            self.lost(job_id, now)

    def lost(self, job_id: str, now: float) -> None:
        """Queue a job in progress first again, whose worker will not speak of it any more; FAILED the second time."""
        job = self._jobs[job_id]
        if job.retries >= AUTOMATIC_RETRIES:
            self._give_up(job, now)
            return
        self._release(job)
        job.reset()
        job.retries += 1
        self._retried += job.batch_id is None
        self._requeue(job, first=True)

    def expire(self, now: float) -> list[Stop]:
        """Do what is due by *now*; returns what must be stopped."""
        stops = []
        while (job_id := self._deadlines.due(now)) is not None:
            job = self._jobs[job_id]
            stop = self._stop(job)
            if stop is not None:
                stops.append(stop)
            if job.status.is_final or now >= job.expires_at:
                self._forget(job)
            else:
                # RunPod counts the retry it would have made, and gives up: the time is spent either way.
                job.retries = AUTOMATIC_RETRIES
                self._give_up(job, now, Status.TIMED_OUT if self.times_out else Status.FAILED)
        return stops

    def _unfinished_until(self, job: Job) -> float:
        """When this job, unfinished, is removed or has run for too long."""
        if job.taken_at is None:
            return job.expires_at
        return min(job.expires_at, job.taken_at + job.policy.execution_timeout_s)

    def _held(self, job_id: str, worker_id: str) -> Job | None:
        return self._taken.get(worker_id, {}).get(job_id)

    def _stop(self, job: Job) -> Stop | None:
        if job.status is not Status.IN_PROGRESS or job.worker_id is None:
            return None
        return Stop(job.worker_id, job.id)

    def _requeue(self, job: Job, *, first: bool = False) -> None:
        queue = self._queue_of(job)
        queue[job.id] = job
        if first:
            queue.move_to_end(job.id, last=False)
        self._deadlines.set(job.id, self._unfinished_until(job))
        self._on_change(job)

    def _queue_of(self, job: Job) -> OrderedDict[str, Job]:
        if job.batch_id is not None:
            return self._batch_queue
        return self._low_queue if job.policy.low_priority else self._queue

    def _release(self, job: Job) -> None:
        """Take the job out of the queue, or out of its worker's hands."""
        if job.status is Status.IN_QUEUE:
            self._queue_of(job).pop(job.id)
        elif job.status is Status.IN_PROGRESS and job.worker_id is not None:
            held = self._taken[job.worker_id]
            del held[job.id]
            if not held:
                del self._taken[job.worker_id]
            self._in_progress -= job.batch_id is None

    def _finish(self, job: Job, status: Status, now: float) -> None:
        self._release(job)
        job.status = status
        if job.taken_at is not None:
            # Rounded up: a job stopped at its limit must not look as if it had stayed under it.
            job.execution_ms = math.ceil((now - job.taken_at) * 1000)
        if status is Status.CANCELLED:
            job.output = None
        if job.batch_id is None:
            self._completed += status is Status.COMPLETED
            self._failed += status in (Status.FAILED, Status.TIMED_OUT)
        self._deadlines.set(job.id, now + self._retention_s[job.is_sync])
        self._on_change(job)

    def _give_up(self, job: Job, now: float, status: Status = Status.FAILED) -> None:
        job.output, job.error = None, GAVE_UP
        self._finish(job, status, now)

    def _forget(self, job: Job) -> None:
        self._release(job)
        del self._jobs[job.id]
        self._deadlines.drop(job.id)
        self._on_change(job)
