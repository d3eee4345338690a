"""What becomes of jobs and workers that go silent, deaf or stale, on virtual time."""

import asyncio

from fakes import FakeClock, in_virtual_time

from runner.local.endpoint import Endpoint
from runner.local.external import External
from runner.local.job import Job, Policy
from runner.local.stops import Stops
from runner.local.wire import Submission
from runner.values import JsonObject

LEASE_S = 40.0
STOP_LIMIT_S = 5.0


class Ours:
    """Workers that are ours to end; none is a process."""

    leased = False

    def __init__(self) -> None:
        self.ended: list[str] = []

    def admits(self, worker_id: str) -> bool:
        return worker_id not in self.ended

    def alive(self, worker_id: str) -> None: ...

    def left(self, worker_id: str) -> None: ...

    def ready(self, worker_id: str) -> None: ...

    def failed(self, worker_id: str, report: JsonObject) -> None: ...

    def end(self, worker_id: str) -> bool:
        self.ended.append(worker_id)
        return True

    def counts(self) -> tuple[int, int, int]:
        return 0, 1, 0


def endpoint(workers: Ours | None = None) -> Endpoint:
    """An endpoint with these workers; without, others start them."""
    made = Endpoint(
        "ep",
        clock=FakeClock(),
        retention_s=1800.0,
        sync_retention_s=60.0,
        log=None,
        lease_s=LEASE_S,
        stop_limit_s=STOP_LIMIT_S,
    )
    if workers is not None:
        made.crew.workers = workers
    return made


async def take(at: Endpoint, worker: str, limit: int = 1) -> list[str]:
    """What *worker* gets, as the HTTP side does it."""
    at.crew.workers.ready(worker)
    return [job.id for job in await at.crew.take(worker, 20.0, limit=limit, is_gone=lambda: False)]


def submit(at: Endpoint) -> Job:
    """A new job, which may run for a day."""
    return at.submit(Submission("x", Policy(execution_timeout_s=86_400.0)), is_sync=False)


# Leases.


@in_virtual_time
async def test_a_job_of_a_silent_worker_is_run_again_once_then_given_up() -> None:
    """Nobody here sees the process of a worker in a container; RunPod waits 30 to 50 s as well."""
    ep = endpoint()
    job = submit(ep)
    await take(ep, "w1")
    await asyncio.sleep(LEASE_S - 1)
    assert job.worker_id == "w1"
    assert await take(ep, "w2") == [job.id]  # held until the lease ends
    assert (job.worker_id, job.retries) == ("w2", 1)
    await asyncio.sleep(LEASE_S + 1)
    assert (job.status, job.error, job.retries) == ("FAILED", b'"job timed out after 1 retries"', 1)
    ep.crew.done(job.id, "w1", output=b"1", error=None)
    assert job.status == "FAILED"  # too late


@in_virtual_time
async def test_pings_progress_and_chunks_keep_a_job_in_its_worker_s_hands() -> None:
    """A worker that works for an hour is no dead one."""
    ep = endpoint()
    job = submit(ep)
    await take(ep, "w1")
    for _ in range(30):
        await asyncio.sleep(30.0)
        ep.crew.works_on("w1", {job.id})
        await asyncio.sleep(30.0)
        ep.jobs.progress(job.id, "w1", b"1")
        await asyncio.sleep(30.0)
        ep.jobs.chunk(job.id, "w1", b"1")
    assert (job.worker_id, job.retries) == ("w1", 0)


@in_virtual_time
async def test_a_job_that_pings_name_no_more_is_lost_at_once() -> None:
    """Its result would have come before; what a worker could not post, it never speaks of again."""
    ep = endpoint(Ours())
    jobs = [submit(ep), submit(ep)]
    assert await take(ep, "w1", limit=2) == [job.id for job in jobs]
    ep.crew.works_on("w1", set())  # sent before it had them
    assert [job.retries for job in jobs] == [0, 0]
    ep.crew.works_on("w1", {job.id for job in jobs})
    ep.crew.works_on("w1", {jobs[0].id})
    assert [job.retries for job in jobs] == [0, 1]
    assert await take(ep, "w1") == [jobs[1].id]
    ep.crew.works_on("w1", {jobs[0].id})  # too new again
    assert [(job.worker_id, job.retries) for job in jobs] == [("w1", 0), ("w1", 1)]


@in_virtual_time
async def test_a_worker_of_ours_that_never_pings_needs_no_lease() -> None:
    """Its process is seen, and its function may take hours."""
    ep = endpoint(Ours())
    job = submit(ep)
    await take(ep, "w1")
    await asyncio.sleep(10 * LEASE_S)
    assert (job.worker_id, job.retries) == ("w1", 0)


@in_virtual_time
async def test_foreign_workers_are_counted_by_their_signs_of_life() -> None:
    """One that pings is starting until it asks for a job; one that is silent for a lease is gone."""
    clock = FakeClock()
    workers = External(clock, LEASE_S)
    workers.alive("w1")
    assert workers.counts() == (1, 0, 0)
    workers.ready("w1")
    workers.failed("w2", {})
    assert workers.counts() == (0, 1, 1)
    await asyncio.sleep(LEASE_S - 1)
    workers.alive("w1")
    await asyncio.sleep(1.0)
    assert workers.counts() == (0, 1, 0)
    workers.left("w1")
    assert workers.counts() == (0, 0, 0)


# Stops.


@in_virtual_time
async def test_a_worker_that_never_listens_is_ended_at_once() -> None:
    """Our own, and real ones before runpod 1.10.0."""
    workers = Ours()
    ep = endpoint(workers)
    job = submit(ep)
    await take(ep, "w1")
    ep.cancel(job.id)
    assert workers.ended == ["w1"]


@in_virtual_time
async def test_a_worker_that_listens_is_asked_and_goes_on() -> None:
    """It hears when it asks again: its loop runs, so the job's task is cancelled."""
    workers = Ours()
    ep = endpoint(workers)
    jobs = [submit(ep), submit(ep)]
    await take(ep, "w1", limit=2)
    asked = asyncio.ensure_future(ep.crew.stops("w1", 20.0))
    await asyncio.sleep(1.0)
    ep.cancel(jobs[0].id)
    assert await asked == [jobs[0].id]
    asked = asyncio.ensure_future(ep.crew.stops("w1", 20.0))
    await asyncio.sleep(10 * STOP_LIMIT_S)
    assert await asked == []
    assert workers.ended == []
    assert jobs[1].worker_id == "w1"


@in_virtual_time
async def test_a_worker_that_is_told_and_does_not_ask_again_is_ended() -> None:
    """A function blocks it. Its other jobs are run again elsewhere, when its process is gone."""
    workers = Ours()
    ep = endpoint(workers)
    job = submit(ep)
    await take(ep, "w1")
    asked = asyncio.ensure_future(ep.crew.stops("w1", 20.0))
    await asyncio.sleep(1.0)
    ep.cancel(job.id)
    assert await asked == [job.id]
    await asyncio.sleep(STOP_LIMIT_S - 0.1)
    assert workers.ended == []
    await asyncio.sleep(0.2)
    assert workers.ended == ["w1"]
    assert await take(ep, "w1") == []


@in_virtual_time
async def test_a_job_that_pings_still_name_after_its_stop_ends_its_worker() -> None:
    """It swallowed the cancellation, and would keep its place for ever."""
    workers = Ours()
    ep = endpoint(workers)
    job = submit(ep)
    await take(ep, "w1")
    assert await ep.crew.stops("w1", 1.0) == []
    ep.cancel(job.id)
    assert await ep.crew.stops("w1", 1.0) == [job.id]
    assert await ep.crew.stops("w1", 1.0) == []
    ep.crew.works_on("w1", {job.id})
    assert workers.ended == []  # it may be cleaning up
    await asyncio.sleep(STOP_LIMIT_S)
    ep.crew.works_on("w1", {job.id})
    assert workers.ended == ["w1"]


@in_virtual_time
async def test_a_foreign_worker_that_still_names_a_stopped_job_is_told_again() -> None:
    """It can't be ended from here, and the first answer may not have reached it."""
    ep = endpoint()
    job = submit(ep)
    await take(ep, "w1")
    ep.cancel(job.id)
    assert await ep.crew.stops("w1", 1.0) == [job.id]
    await asyncio.sleep(STOP_LIMIT_S)
    ep.crew.works_on("w1", {job.id})
    assert await ep.crew.stops("w1", 1.0) == [job.id]
    await asyncio.sleep(STOP_LIMIT_S)
    ep.crew.works_on("w1", set())
    assert await ep.crew.stops("w1", 1.0) == []


def test_an_order_that_comes_while_another_is_carried_out_has_its_own_time() -> None:
    """Asking again tells that the first was heard, not the second."""
    stops = Stops(5.0)
    stops.asks("w1", 0.0)
    stops.order("w1", "a", 1.0)
    assert stops.tell("w1") == ["a"]
    stops.order("w1", "b", 5.0)
    assert stops.next() == 6.0
    stops.asks("w1", 5.5)
    assert (stops.next(), stops.tell("w1")) == (10.5, ["b"])
    assert stops.deaf(10.4) is None
    assert (stops.deaf(10.5), stops.deaf(10.5)) == ("w1", None)
    stops.forget("w1")
    assert not stops.listens("w1")


# Fresh starts.


@in_virtual_time
async def test_a_worker_that_wants_a_fresh_start_finishes_its_other_jobs_first() -> None:
    """And is held, without a job, when it asks for more: it would ask without pause."""
    workers = Ours()
    ep = endpoint(workers)
    jobs = [submit(ep), submit(ep)]
    await take(ep, "w1", limit=2)
    ep.crew.done(jobs[0].id, "w1", output=b"1", error=None)
    ep.crew.recycle("w1")
    waiting = submit(ep)
    asked = asyncio.ensure_future(take(ep, "w1"))
    await asyncio.sleep(1.0)
    assert (workers.ended, asked.done()) == ([], False)
    ep.crew.done(jobs[1].id, "w1", output=b"1", error=None)
    assert workers.ended == ["w1"]
    assert await asked == []
    assert (waiting.status, [job.retries for job in jobs]) == ("IN_QUEUE", [0, 0])


@in_virtual_time
async def test_a_foreign_worker_that_wants_a_fresh_start_gets_further_jobs() -> None:
    """Only who started it can recycle it."""
    ep = endpoint()
    first, second = submit(ep), submit(ep)
    assert await take(ep, "w1") == [first.id]
    ep.crew.done(first.id, "w1", output=b"1", error=None)
    ep.crew.recycle("w1")
    assert await take(ep, "w1") == [second.id]


@in_virtual_time
async def test_a_dead_worker_s_last_request_gets_no_job() -> None:
    """It was under way when the process ended, and nobody would ever take the job back."""
    workers = Ours()
    ep = endpoint(workers)
    job = submit(ep)
    workers.ended.append("w1")
    assert await take(ep, "w1") == []
    assert job.status == "IN_QUEUE"
