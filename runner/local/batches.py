"""
Decide what becomes of every batch of one endpoint: the states of RunPod's Batch API, purely.

    create ─▶ DRAFT ──finalize──▶ FINALIZED ──cancel──▶ CANCELLED   once what runs has ended
                └──cancel──▶ CANCELLED  └───────────────▶ FAILED    on demand only, the same way

No I/O and no clock: *now* is always seconds on one monotonic clock, *at* seconds since the epoch.

Source: RunPod docs, "Batch API" (beta; read August 2026). There is no state for a batch that is done: it stays
FINALIZED, with as many requests completed and failed as there are. What the docs leave open is guessed here, and named:

- a draft counts among the active batches, until it is cancelled; a finalized one until it is done
- an empty draft can be finalized, and is done then
- of a request's policy only ``executionTimeout`` counts: batches wait for hours; webhooks are not sent
- requests that a cancel drops are CANCELLED, and neither completed nor failed
- a batch and its results are kept as long as a /run job's result, from its end; a draft for ever
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from runner.local.deadlines import Deadlines
from runner.local.job import Job, Policy, Status
from runner.local.jobs import Jobs

_NEVER_S = 10 * 365 * 86_400.0


class State(StrEnum):
    """A batch's states."""

    DRAFT = "DRAFT"
    FINALIZED = "FINALIZED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(slots=True, eq=False)
class Request:
    """
    One request of a batch: *job* is queued when the batch starts. The times, of its last attempt, are None until then.
    """

    job: Job
    started_at: float | None = None
    ended_at: float | None = None
    seen: Status = Status.IN_QUEUE


@dataclass(slots=True, eq=False)
class Batch:
    """
    One batch. *number* counts the batches of the endpoint, *names* is what clients called it, under their own keys.

    *ended* are the requests that are over, in that order. *ending* is the state that it will have once *in_progress* is
    0; *fails_at* how many requests it ends before it fails, None for never.
    """

    id: str
    number: int
    created_at: float
    state: State = State.DRAFT
    requests: dict[str, Request] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    ended: list[Request] = field(default_factory=list)
    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    is_started: bool = False
    ending: State | None = None
    fails_at: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it will change any more."""
        if self.state is State.FINALIZED:
            return self.completed + self.failed == len(self.requests)
        return self.state is not State.DRAFT

    @property
    def queued(self) -> int:
        """How many requests wait for a worker."""
        return 0 if self.state is State.DRAFT else len(self.requests) - len(self.ended) - self.in_progress


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """*active* batches of an endpoint, *requests* of a batch, *queued* requests of all of them."""

    active: int = 10
    requests: int = 5_000
    queued: int = 50_000


class NotAllowed(Exception):
    """Raised when a batch's state forbids it; the message is for the client."""


class TooMany(NotAllowed):
    """Raised when the endpoint has as much as it may: it may be allowed later."""


class TooLong(NotAllowed):
    """Raised when a batch would have too many requests."""


class Batches:
    """
    The batches of one endpoint, whose requests become jobs of *jobs*, apart from those of /run.

    Args:
        retention_s: How long a batch is kept after its end.
        on_accept: Called with each job that is committed to be run: what may cost.
    """

    def __init__(
        self,
        jobs: Jobs,
        *,
        retention_s: float,
        on_accept: Callable[[Job], None] = lambda job: None,
        limits: BatchLimits | None = None,
    ) -> None:
        self.limits = limits or BatchLimits()
        self.delay_s = 0.0
        """How long a finalized batch waits before its first request is queued."""
        self._jobs = jobs
        self._retention_s = retention_s
        self._on_accept = on_accept
        self._batches: dict[str, Batch] = {}
        self._deadlines = Deadlines()
        self._number = 0

    def find(self, batch_id: str) -> Batch | None:
        """The batch, None if it is unknown or forgotten."""
        return self._batches.get(batch_id)

    def newest_first(self) -> list[Batch]:
        """All of them."""
        return list(reversed(self._batches.values()))

    def next_deadline(self) -> float | None:
        """When `expire` will next have something to do, None for never."""
        return self._deadlines.next()

    # What clients do. Each raises `NotAllowed`, and has changed nothing then.

    def create(self, batch_id: str, at: float, jobs: Iterable[Job] = ()) -> Batch:
        """Have a new draft of these requests."""
        if sum(not batch.is_over for batch in self._batches.values()) >= self.limits.active:
            raise TooMany(f"at most {self.limits.active} batches can be active")
        batch = Batch(batch_id, self._number, at)
        self.append(batch, jobs)
        self._number += 1
        self._batches[batch_id] = batch
        return batch

    def append(self, batch: Batch, jobs: Iterable[Job]) -> None:
        """Add requests to a draft, all or none."""
        _only_of_drafts(batch, "requests can be added")
        requests = {job.id: Request(job) for job in jobs}
        if len(batch.requests) + len(requests) > self.limits.requests:
            raise TooLong(f"a batch can have at most {self.limits.requests} requests")
        for request in requests.values():
            job = request.job
            job.batch_id = batch.id
            job.policy = Policy(job.policy.execution_timeout_s, _NEVER_S)
        batch.requests |= requests

    def remove(self, batch: Batch, request_id: str) -> bool:
        """Take a request out of a draft; False if it has none such."""
        _only_of_drafts(batch, "requests can be removed")
        return batch.requests.pop(request_id, None) is not None

    def finalize(self, batch: Batch, now: float, *, fails: bool = False) -> None:
        """Commit a draft: its requests are run from now on. *fails*: until half of them have ended."""
        _only_of_drafts(batch, "it can be finalized")
        queued = sum(other.queued for other in self._batches.values())
        if queued + len(batch.requests) > self.limits.queued:
            raise TooMany(f"at most {self.limits.queued} requests can be queued")
        batch.state = State.FINALIZED
        batch.fails_at = len(batch.requests) // 2 if fails else None
        for request in batch.requests.values():
            self._on_accept(request.job)
        if self.delay_s > 0:
            self._deadlines.set(batch.id, now + self.delay_s)
        else:
            self._start(batch, now)

    def cancel(self, batch: Batch, now: float) -> None:
        """Drop what is queued; CANCELLED once what runs has ended. A batch that is over stays as it is."""
        if not batch.is_over:
            self._end(batch, State.CANCELLED, now)

    # What happens to them.

    def follow(self, job: Job, now: float, at: float) -> None:
        """A request's job changed."""
        batch = self._batches.get(job.batch_id or "")
        request = None if batch is None else batch.requests.get(job.id)
        if batch is None or request is None or request.seen is job.status:
            return
        was, request.seen = request.seen, job.status
        if was is Status.IN_PROGRESS:
            batch.in_progress -= 1
        if job.status is Status.IN_PROGRESS:
            batch.in_progress += 1
            request.started_at = at
        elif job.status.is_final:
            request.ended_at = at
            self._count(batch, request)
        else:
            request.started_at = None
            if batch.ending is not None:  # its worker died: it is no longer what runs
                self._jobs.cancel(job.id, now)
                return
        self._settle(batch, now)

    def expire(self, now: float) -> None:
        """Start what was delayed, and forget what was kept for long enough."""
        while (batch_id := self._deadlines.due(now)) is not None:
            batch = self._batches[batch_id]
            if batch.is_over:
                del self._batches[batch_id]
            else:
                self._start(batch, now)

    def _start(self, batch: Batch, now: float) -> None:
        batch.is_started = True
        for request in list(batch.requests.values()):
            request.job.queued_at = now
            request.job.expires_at = now + request.job.policy.ttl_s
            self._jobs.enqueue(request.job)
        self._settle(batch, now)

    def _count(self, batch: Batch, request: Request) -> None:
        batch.ended.append(request)
        batch.completed += request.seen is Status.COMPLETED
        batch.failed += request.seen in (Status.FAILED, Status.TIMED_OUT)

    def _end(self, batch: Batch, state: State, now: float) -> None:
        batch.ending = batch.ending or state
        for request in list(batch.requests.values()):
            if request.job.status is not Status.IN_QUEUE:
                continue
            if batch.is_started:
                self._jobs.cancel(request.job.id, now)
            else:
                request.job.status = request.seen = Status.CANCELLED
                self._count(batch, request)
        self._settle(batch, now)

    def _settle(self, batch: Batch, now: float) -> None:
        """See whether the batch is over, or is to fail."""
        if batch.fails_at is not None and batch.ending is None and len(batch.ended) >= batch.fails_at:
            self._end(batch, State.FAILED, now)
            return
        if batch.ending is not None and batch.in_progress == 0 and not batch.queued:
            batch.state = batch.ending
        if batch.is_over:
            self._deadlines.set(batch.id, now + self._retention_s)


def _only_of_drafts(batch: Batch, what: str) -> None:
    if batch.state is not State.DRAFT:
        raise NotAllowed(f"{what} while it is a DRAFT only, and the batch is {batch.state}")
