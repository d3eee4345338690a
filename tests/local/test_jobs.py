import time
from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from runner.local.job import Job, Policy, Status
from runner.local.jobs import GAVE_UP, Counts, Jobs, Stop

NOW = 1000.0


def queued(jobs: Jobs, job_id: str = "a", *, now: float = NOW, is_sync: bool = False, **policy: Any) -> Job:
    """A job that was just queued."""
    job = Job(job_id, b"{}", Policy(**policy), is_sync, now)
    jobs.enqueue(job)
    return job


def status(jobs: Jobs, job_id: str) -> Status | None:
    """The status of a job, None if it is unknown. (A call, so that a checker does not believe it stays.)"""
    job = jobs.find(job_id)
    return None if job is None else job.status


def test_jobs_are_taken_oldest_first_and_low_priority_last() -> None:
    """That is the order RunPod documents."""
    jobs = Jobs()
    queued(jobs, "low", low_priority=True)
    queued(jobs, "a")
    queued(jobs, "b")
    taken = [jobs.take("w", NOW) for _ in range(4)]
    assert [job and job.id for job in taken] == ["a", "b", "low", None]


def test_a_job_s_life_is_timed_in_milliseconds() -> None:
    """delayTime is the wait for a worker, executionTime the work; both are what a report's costs come from."""
    jobs = Jobs()
    job = queued(jobs)
    jobs.take("w", NOW + 1.5)
    assert (job.status, job.delay_ms, job.execution_ms, job.worker_id) == (Status.IN_PROGRESS, 1500, None, "w")
    assert jobs.done("a", "w", NOW + 2.0, output=b"1", error=None)
    assert (status(jobs, "a"), job.execution_ms, job.output, job.error) == (Status.COMPLETED, 500, b"1", None)


def test_an_error_makes_a_job_failed_and_may_come_with_output() -> None:
    """A handler that returns {"error": ..., "rest": ...} has both."""
    jobs = Jobs()
    job = queued(jobs)
    jobs.take("w", NOW)
    jobs.done("a", "w", NOW, output=b'{"rest":1}', error=b'"x"')
    assert (job.status, job.output, job.error) == (Status.FAILED, b'{"rest":1}', b'"x"')


def test_what_comes_after_the_end_is_ignored() -> None:
    """Progress is sent from a thread and can overtake the result (runpod-python issue 250)."""
    jobs = Jobs()
    job = queued(jobs)
    jobs.take("w", NOW)
    jobs.done("a", "w", NOW, output=b"1", error=None)
    assert not jobs.progress("a", "w", b"2")
    assert not jobs.chunk("a", "w", b"2")
    assert not jobs.done("a", "w", NOW, output=b"2", error=b"3")
    assert jobs.cancel("a", NOW) is None
    assert (job.status, job.output, job.error, list(job.chunks)) == (Status.COMPLETED, b"1", None, [])


def test_another_worker_s_result_is_ignored() -> None:
    """A worker that was given up may still speak, while the job is with the next."""
    jobs = Jobs()
    queued(jobs)
    jobs.take("w1", NOW)
    jobs.worker_died("w1", NOW)
    jobs.take("w2", NOW)
    assert not jobs.done("a", "w1", NOW, output=b"1", error=None)
    assert jobs.done("a", "w2", NOW, output=b"2", error=None)


def test_a_job_whose_worker_dies_is_run_once_more_then_given_up() -> None:
    """RunPod runs a job at least once, and says how often it tried again."""
    jobs = Jobs()
    job = queued(jobs)
    queued(jobs, "b")
    jobs.take("w1", NOW)
    jobs.chunk("a", "w1", b"1")
    jobs.worker_died("w1", NOW + 1)
    assert (job.status, job.retries, job.delay_ms, list(job.chunks)) == (Status.IN_QUEUE, 1, None, [])
    assert jobs.take("w2", NOW + 2) is job  # before "b": it has waited longest
    jobs.worker_died("w2", NOW + 3)
    assert (status(jobs, "a"), job.error, job.output, job.retries) == (Status.FAILED, GAVE_UP, None, 1)
    assert jobs.counts() == Counts(completed=0, failed=1, retried=1, in_queue=1, in_progress=0)


def test_a_passed_execution_timeout_fails_the_job_and_stops_its_worker() -> None:
    """Field reports agree: FAILED, not TIMED_OUT, and executionTime never under the limit."""
    jobs = Jobs()
    job = queued(jobs, execution_timeout_s=5.0)
    jobs.take("w", NOW + 100)
    assert jobs.next_deadline() == NOW + 105
    assert jobs.expire(NOW + 104.9) == []
    assert jobs.expire(NOW + 105.0001) == [Stop("w", "a")]
    assert (job.status, job.error, job.retries) == (Status.FAILED, GAVE_UP, 1)
    assert job.execution_ms is not None
    assert job.execution_ms >= 5000


@pytest.mark.parametrize("is_taken", [False, True], ids=["queued", "running"])
def test_a_passed_ttl_removes_a_job_wherever_it_stands(is_taken: bool) -> None:
    """RunPod documents it: gone, even if it would have completed a moment later."""
    jobs = Jobs()
    queued(jobs, ttl_s=10.0)
    if is_taken:
        jobs.take("w", NOW + 9)
    stops = jobs.expire(NOW + 10)
    assert stops == ([Stop("w", "a")] if is_taken else [])
    assert jobs.find("a") is None
    assert not jobs.done("a", "w", NOW + 11, output=b"1", error=None)
    assert jobs.counts() == Counts(0, 0, 0, 0, 0)


@pytest.mark.parametrize(("is_sync", "kept_s"), [(False, 1800.0), (True, 60.0)], ids=["run", "runsync"])
def test_a_result_is_kept_for_its_retention_whatever_its_ttl(is_sync: bool, kept_s: float) -> None:
    """30 min for /run, 1 min for /runsync, from the end: a laptop that sleeps longer loses it."""
    jobs = Jobs()
    queued(jobs, is_sync=is_sync, ttl_s=20.0)
    jobs.take("w", NOW)
    jobs.done("a", "w", NOW + 10, output=None, error=None)
    jobs.expire(NOW + 10 + kept_s - 0.1)
    assert status(jobs, "a") is Status.COMPLETED
    jobs.expire(NOW + 10 + kept_s)
    assert jobs.find("a") is None


def test_cancelling_stops_a_running_job_and_unqueues_a_queued_one() -> None:
    """The worker must hear of it: a cancelled job that runs on is paid for."""
    jobs = Jobs()
    running, waiting = queued(jobs, "a"), queued(jobs, "b")
    jobs.take("w", NOW)
    assert jobs.cancel("a", NOW + 1) == Stop("w", "a")
    assert jobs.cancel("b", NOW + 1) is None
    assert (running.status, waiting.status) == (Status.CANCELLED, Status.CANCELLED)
    assert (running.execution_ms, waiting.execution_ms) == (1000, None)
    assert jobs.take("w2", NOW) is None


def test_only_a_failed_job_can_be_retried_and_it_starts_afresh() -> None:
    """Same id and input, the failure forgotten, and a ttl that runs from now."""
    jobs = Jobs()
    job = queued(jobs, ttl_s=100.0)
    assert not jobs.retry("a", NOW)
    jobs.take("w", NOW)
    jobs.done("a", "w", NOW, output=b"1", error=b"2")
    assert jobs.retry("a", NOW + 90)
    assert (job.status, job.output, job.error, job.worker_id) == (Status.IN_QUEUE, None, None, None)
    assert jobs.next_deadline() == NOW + 190
    assert jobs.counts() == Counts(completed=0, failed=1, retried=1, in_queue=1, in_progress=0)


def test_purging_forgets_what_is_queued_and_leaves_what_runs() -> None:
    """Everybody's queued jobs go."""
    jobs = Jobs()
    for job_id in ("a", "b", "c"):
        queued(jobs, job_id, low_priority=job_id == "c")
    jobs.take("w", NOW)
    assert jobs.purge() == 2
    assert [status(jobs, job_id) for job_id in ("a", "b", "c")] == [Status.IN_PROGRESS, None, None]


def test_chunks_are_drained_once_and_a_megabyte_at_a_time() -> None:
    """A read takes what it shows, but a single large chunk must not be stuck for ever."""
    jobs = Jobs()
    queued(jobs)
    jobs.take("w", NOW)
    for chunk in (b"12345", b"678", b"9", b"too large"):
        jobs.chunk("a", "w", chunk)
    reads = [jobs.drain("a", 8) for _ in range(4)]
    assert reads == [[b"12345", b"678"], [b"9"], [b"too large"], []]


def test_a_job_that_was_not_handed_over_waits_first_in_line_without_a_retry() -> None:
    """The worker hung up before it got it: nothing ran."""
    jobs = Jobs()
    queued(jobs, "a")
    queued(jobs, "b")
    jobs.take("w", NOW)
    assert jobs.give_back("a", "w")
    assert not jobs.give_back("a", "w")
    again = jobs.take("w", NOW)
    assert again is not None
    assert (again.id, again.retries) == ("a", 0)


def test_ten_thousand_queued_jobs_cost_a_request_no_more_than_ten() -> None:
    """A batch may be queued whole; nothing may look through the queue."""

    def seconds(size: int) -> float:
        jobs = Jobs()
        for number in range(size):
            queued(jobs, f"q{number}")
        started = time.process_time()
        for number in range(500):
            queued(jobs, f"x{number}", now=NOW)
            jobs.cancel(f"x{number}", NOW)
            taken = jobs.take("w", NOW)
            assert taken is not None
            jobs.done(taken.id, "w", NOW, output=None, error=None)
            queued(jobs, f"y{number}")
            jobs.expire(NOW)
            jobs.next_deadline()
            jobs.counts()
        return time.process_time() - started

    seconds(10)
    few, many = min(seconds(10) for _ in range(3)), min(seconds(10_000) for _ in range(3))
    assert many < 5 * few + 0.01


class Life(RuleBasedStateMachine):
    """Any order of calls, against what must hold at every instant."""

    known = Bundle("known")
    workers = st.sampled_from(["w1", "w2"])

    @initialize()
    def start(self) -> None:
        self.now = NOW
        self.made = 0
        self.jobs = Jobs(retention_s=50.0, sync_retention_s=5.0, on_change=lambda job: self.changed.append(job.id))
        self.changed: list[str] = []
        self.ended: dict[str, tuple[Any, ...]] = {}
        self.finals = 0

    @rule(target=known, ttl_s=st.sampled_from([3.0, 1000.0]), low=st.booleans(), is_sync=st.booleans())
    def enqueue(self, ttl_s: float, low: bool, is_sync: bool) -> str:
        self.made += 1
        job_id = f"job-{self.made}"
        queued(self.jobs, job_id, now=self.now, is_sync=is_sync, ttl_s=ttl_s, low_priority=low, execution_timeout_s=4)
        return job_id

    @rule(worker=workers)
    def take(self, worker: str) -> None:
        taken = self.jobs.take(worker, self.now)
        assert (taken is not None) or not self.jobs.is_queued()

    @rule(worker=workers, job_id=known, error=st.sampled_from([None, b"1"]))
    def done(self, worker: str, job_id: str, error: bytes | None) -> None:
        held = job_id in self.jobs.held_by(worker)
        assert self.jobs.done(job_id, worker, self.now, output=b"1", error=error) is held

    @rule(worker=workers, job_id=known)
    def speak(self, worker: str, job_id: str) -> None:
        held = job_id in self.jobs.held_by(worker)
        assert self.jobs.progress(job_id, worker, b"2") is held
        assert self.jobs.chunk(job_id, worker, b"3") is held

    @rule(worker=workers, job_id=known)
    def give_back(self, worker: str, job_id: str) -> None:
        self.jobs.give_back(job_id, worker)

    @rule(worker=workers)
    def die(self, worker: str) -> None:
        self.jobs.worker_died(worker, self.now)
        assert self.jobs.held_by(worker) == []

    @rule(job_id=known)
    def cancel(self, job_id: str) -> None:
        if self.jobs.find(job_id) is not None:
            self.jobs.cancel(job_id, self.now)

    @rule(job_id=consumes(known))
    def retry(self, job_id: str) -> None:
        if self.jobs.find(job_id) is not None and self.jobs.retry(job_id, self.now):
            self.ended.pop(job_id)

    @rule()
    def purge(self) -> None:
        assert self.jobs.purge() >= 0
        assert not self.jobs.is_queued()

    @rule(seconds=st.sampled_from([0.5, 2.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.jobs.expire(self.now)
        deadline = self.jobs.next_deadline()
        assert deadline is None or deadline > self.now

    @invariant()
    def the_counters_add_up(self) -> None:
        states = [job.status for job in self.jobs._jobs.values()]
        counts = self.jobs.counts()
        assert counts.in_queue == states.count(Status.IN_QUEUE)
        assert counts.in_progress == states.count(Status.IN_PROGRESS)
        held = [job_id for worker in ("w1", "w2") for job_id in self.jobs.held_by(worker)]
        assert len(held) == counts.in_progress
        assert self.jobs.busy_workers() == sum(bool(self.jobs.held_by(worker)) for worker in ("w1", "w2"))
        assert counts.completed + counts.failed >= self.finals
        self.finals = counts.completed + counts.failed

    @invariant()
    def what_ended_stays_as_it_was(self) -> None:
        for job in self.jobs._jobs.values():
            if job.status.is_final:
                seen = (job.status, job.output, job.error, job.delay_ms, job.execution_ms, job.worker_id, job.retries)
                assert self.ended.setdefault(job.id, seen) == seen

    @invariant()
    def every_known_job_has_a_deadline(self) -> None:
        assert len(self.jobs._deadlines) == len(self.jobs._jobs)


TestLife = Life.TestCase
TestLife.settings = settings(
    derandomize=True,
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_counts_are_plain_numbers() -> None:
    """/health shows them as JSON."""
    assert astuple(Jobs().counts()) == (0, 0, 0, 0, 0)
