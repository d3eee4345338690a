from dataclasses import astuple
from typing import Any

import pytest

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


def test_a_cancelled_job_has_no_output() -> None:
    """What it reported so far is progress, and no result."""
    jobs = Jobs()
    job = queued(jobs)
    jobs.take("w", NOW)
    jobs.progress("a", "w", b"1")
    jobs.cancel("a", NOW)
    assert job.output is None


@pytest.mark.parametrize("is_taken", [False, True], ids=["queued", "running"])
def test_a_ttl_of_a_look_is_an_unfinished_job_s_new_time_to_live(is_taken: bool) -> None:
    """Longer or shorter; an executionTimeout stays what it is."""
    jobs = Jobs()
    queued(jobs, ttl_s=100.0, execution_timeout_s=50.0)
    if is_taken:
        jobs.take("w", NOW)
    jobs.shorten("a", NOW, 500.0)
    assert jobs.next_deadline() == NOW + (50.0 if is_taken else 500.0)
    jobs.shorten("a", NOW + 1, 6.0)
    jobs.expire(NOW + 6.9)
    assert jobs.find("a") is not None
    jobs.expire(NOW + 7)
    assert jobs.find("a") is None


def test_a_ttl_of_a_look_removes_a_result_sooner_and_never_keeps_it_longer() -> None:
    """Results are for RunPod to keep or not."""
    jobs = Jobs(retention_s=30.0)
    queued(jobs)
    jobs.take("w", NOW)
    jobs.done("a", "w", NOW, output=b"1", error=None)
    jobs.shorten("a", NOW, 500.0)
    assert jobs.next_deadline() == NOW + 30
    jobs.shorten("a", NOW, 6.0)
    jobs.expire(NOW + 6)
    assert jobs.find("a") is None


def test_jobs_of_a_dead_worker_wait_in_the_order_in_which_it_took_them() -> None:
    """A worker may hold several."""
    jobs = Jobs()
    for job_id in ("a", "b", "c"):
        queued(jobs, job_id)
    for _ in range(2):
        jobs.take("w", NOW)
    jobs.worker_died("w", NOW)
    taken = [jobs.take("w2", NOW) for _ in range(3)]
    assert [job and job.id for job in taken] == ["a", "b", "c"]


def test_an_execution_timeout_may_end_a_job_as_the_docs_say() -> None:
    """TIMED_OUT, on demand; it counts as failed, and can be retried with its whole ttl."""
    jobs = Jobs()
    jobs.times_out = True
    job = queued(jobs, ttl_s=100.0, execution_timeout_s=5.0)
    jobs.take("w", NOW)
    jobs.expire(NOW + 5)
    assert (status(jobs, "a"), job.error, jobs.counts().failed) == (Status.TIMED_OUT, GAVE_UP, 1)
    assert jobs.retry("a", NOW + 90)
    assert jobs.next_deadline() == NOW + 190


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


def test_counts_are_plain_numbers() -> None:
    """/health shows them as JSON."""
    assert astuple(Jobs().counts()) == (0, 0, 0, 0, 0)
