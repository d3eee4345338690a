"""Any order of events, against a second, naive telling of what becomes of a job."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from runner.local.job import Job, Policy, Status
from runner.local.jobs import GAVE_UP, Counts, Jobs, Stop

NOW = 1000.0
KEPT_S = {False: 50.0, True: 5.0}
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


@dataclass
class Told:
    """What the naive telling knows of one job."""

    id: str
    is_low: bool
    is_sync: bool
    ttl_s: float
    timeout_s: float
    until: float
    status: str = "IN_QUEUE"
    worker: str | None = None
    taken_at: float = 0.0
    output: bytes | None = None
    error: bytes | None = None
    retries: int = 0
    chunks: list[bytes] = field(default_factory=list)


class Telling:
    """
    The jobs of an endpoint in the plainest way: one list, looked through from the beginning every time.

    The list is in the order of the queue: what was given back goes to its front.
    """

    def __init__(self) -> None:
        self.jobs: list[Told] = []
        self.completed = self.failed = self.retried = 0

    def find(self, job_id: str) -> Told | None:
        return next((job for job in self.jobs if job.id == job_id), None)

    def held(self, worker: str) -> list[Told]:
        held = [job for job in self.jobs if job.status == "IN_PROGRESS" and job.worker == worker]
        return sorted(held, key=lambda job: job.taken_at)

    def in_line(self) -> Iterator[Told]:
        for is_low in (False, True):
            yield from (job for job in self.jobs if job.status == "IN_QUEUE" and job.is_low is is_low)

    def end(self, job: Told, status: str, now: float, output: bytes | None = None, error: bytes | None = None) -> None:
        job.status, job.output, job.error = status, output, error
        job.until = now + KEPT_S[job.is_sync]
        self.completed += status == "COMPLETED"
        self.failed += status in ("FAILED", "TIMED_OUT")

    def queue_again(self, job: Told, *, first: bool) -> None:
        job.status, job.worker, job.output, job.error, job.chunks = "IN_QUEUE", None, None, None, []
        self.jobs.remove(job)
        self.jobs.insert(0 if first else len(self.jobs), job)

    def lose(self, job: Told, now: float) -> None:
        if job.retries == 1:
            self.end(job, "FAILED", now, error=GAVE_UP)
        else:
            job.retries = 1
            self.retried += 1
            self.queue_again(job, first=True)


class Life(RuleBasedStateMachine):
    """Each rule does the same to both, and compares what they answer; the invariants compare what they know."""

    known = Bundle("known")
    workers = st.sampled_from(["w1", "w2"])

    @initialize(target=known)
    def start(self) -> MultipleResults[str]:
        """Some jobs from the beginning: what hypothesis tries may never queue one."""
        self.now = NOW
        self.made: list[str] = []
        self.changed: set[str] = set()
        self.seen: dict[str, object] = {}
        self.jobs = Jobs(
            retention_s=KEPT_S[False],
            sync_retention_s=KEPT_S[True],
            on_change=lambda job: self.changed.add(job.id),
        )
        self.told = Telling()
        return multiple(
            *(  # type: ignore[arg-type]  # its stub knows no rules
                self.enqueue(ttl_s, timeout_s, is_low, is_sync=is_low)
                for ttl_s in (1000.0, 3.0)
                for timeout_s in (600.0, 2.5)
                for is_low in (True, False)
            )
        )

    @rule(
        target=known,
        ttl_s=st.sampled_from([3.0, 1000.0]),
        timeout_s=st.sampled_from([2.5, 600.0]),
        is_low=st.booleans(),
        is_sync=st.booleans(),
    )
    def enqueue(self, ttl_s: float, timeout_s: float, is_low: bool, is_sync: bool) -> str:
        job_id = f"job-{len(self.made)}"
        self.made.append(job_id)
        self.jobs.enqueue(Job(job_id, b"{}", Policy(timeout_s, ttl_s, is_low), is_sync, self.now))
        self.told.jobs.append(Told(job_id, is_low, is_sync, ttl_s, timeout_s, self.now + ttl_s))
        return job_id

    @rule(worker=workers)
    def take(self, worker: str) -> None:
        expected = next(self.told.in_line(), None)
        taken = self.jobs.take(worker, self.now)
        assert (taken and taken.id) == (expected and expected.id)
        if expected is not None:
            expected.status, expected.worker, expected.taken_at = "IN_PROGRESS", worker, self.now

    @rule(worker=workers, job_id=known, output=st.sampled_from([None, b"1"]), error=st.sampled_from([None, b"2"]))
    def done(self, worker: str, job_id: str, output: bytes | None, error: bytes | None) -> None:
        held = [job for job in self.told.held(worker) if job.id == job_id]
        assert self.jobs.done(job_id, worker, self.now, output=output, error=error) is bool(held)
        for job in held:
            self.told.end(job, "COMPLETED" if error is None else "FAILED", self.now, output, error)

    @rule(worker=workers, job_id=known)
    def speak(self, worker: str, job_id: str) -> None:
        held = [job for job in self.told.held(worker) if job.id == job_id]
        assert self.jobs.progress(job_id, worker, b"3") is bool(held)
        assert self.jobs.chunk(job_id, worker, b"4") is bool(held)
        for job in held:
            job.output = b"3"
            job.chunks.append(b"4")

    @rule(job_id=known)
    def read_stream(self, job_id: str) -> None:
        job = self.told.find(job_id)
        if job is not None:
            assert self.jobs.drain(job_id, 2) == job.chunks[:2]
            del job.chunks[:2]

    @rule(worker=workers, job_id=known)
    def give_back(self, worker: str, job_id: str) -> None:
        held = [job for job in self.told.held(worker) if job.id == job_id]
        assert self.jobs.give_back(job_id, worker) is bool(held)
        for job in held:
            self.told.queue_again(job, first=True)

    @rule(worker=workers)
    def die(self, worker: str) -> None:
        self.jobs.worker_died(worker, self.now)
        for job in reversed(self.told.held(worker)):
            self.told.lose(job, self.now)

    @rule(job_id=known)
    def cancel(self, job_id: str) -> None:
        job = self.told.find(job_id)
        if job is None:
            return
        stop = self.jobs.cancel(job_id, self.now)
        assert stop == (Stop(job.worker, job_id) if job.status == "IN_PROGRESS" and job.worker else None)
        if job.status not in FINAL:
            self.told.end(job, "CANCELLED", self.now)

    @rule(job_id=known)
    def retry(self, job_id: str) -> None:
        job = self.told.find(job_id)
        if job is None:
            return
        may = job.status in ("FAILED", "TIMED_OUT")
        assert self.jobs.retry(job_id, self.now) is may
        if may:
            job.retries, job.until = 0, self.now + job.ttl_s
            self.told.retried += 1
            self.told.queue_again(job, first=False)

    @rule()
    def purge(self) -> None:
        queued = list(self.told.in_line())
        assert self.jobs.purge() == len(queued)
        for job in queued:
            self.told.jobs.remove(job)

    @rule(job_id=known, ttl_s=st.sampled_from([1.0, 40.0, 2000.0]))
    def shorten(self, job_id: str, ttl_s: float) -> None:
        job = self.told.find(job_id)
        if job is not None:
            self.jobs.shorten(job_id, self.now, ttl_s)
            until = self.now + ttl_s
            job.until = min(job.until, until) if job.status in FINAL else until

    @rule(times_out=st.booleans())
    def read_the_docs(self, times_out: bool) -> None:
        self.jobs.times_out = times_out

    @rule(seconds=st.sampled_from([0.5, 2.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        stops = self.jobs.expire(self.now)
        running = [job for job in self.told.jobs if job.status == "IN_PROGRESS"]
        expected = set()
        for job in list(self.told.jobs):
            has_timed_out = job in running and job.taken_at + job.timeout_s <= self.now
            if job in running and job.worker and (has_timed_out or job.until <= self.now):
                expected.add(Stop(job.worker, job.id))
            if job.until <= self.now:
                self.told.jobs.remove(job)
            elif has_timed_out:
                job.retries = 1
                self.told.end(job, "TIMED_OUT" if self.jobs.times_out else "FAILED", self.now, error=GAVE_UP)
        assert len(stops) == len(expected)
        assert set(stops) == expected
        deadline = self.jobs.next_deadline()
        assert deadline is None or deadline > self.now

    @invariant()
    def both_tell_the_same_of_every_job(self) -> None:
        for job_id in self.made:
            job, told = self.jobs.find(job_id), self.told.find(job_id)
            assert (job is None) is (told is None), job_id
            if job is None or told is None:
                continue
            known = (str(job.status), job.output, job.error, job.retries, job.worker_id, list(job.chunks))
            assert known == (told.status, told.output, told.error, told.retries, told.worker, told.chunks), job_id

    @invariant()
    def the_counters_add_up(self) -> None:
        states = [job.status for job in self.told.jobs]
        assert self.jobs.counts() == Counts(
            self.told.completed,
            self.told.failed,
            self.told.retried,
            states.count("IN_QUEUE"),
            states.count("IN_PROGRESS"),
        )
        held = {worker: {job.id for job in self.told.held(worker)} for worker in ("w1", "w2")}
        assert {worker: set(self.jobs.held_by(worker)) for worker in held} == held
        assert self.jobs.busy_workers() == sum(map(bool, held.values()))
        assert self.jobs.is_queued() is ("IN_QUEUE" in states)

    @invariant()
    def times_are_there_when_they_can_be(self) -> None:
        for job in filter(None, map(self.jobs.find, self.made)):
            was_taken = job.taken_at is not None
            assert (job.delay_ms is not None) is was_taken
            assert (job.execution_ms is not None) is (was_taken and job.status.is_final)
            assert was_taken or job.status in (Status.IN_QUEUE, Status.CANCELLED)

    @invariant()
    def every_known_job_has_a_deadline_and_every_change_is_told(self) -> None:
        found = {job.id: (job.status, job.output) for job in filter(None, map(self.jobs.find, self.made))}
        assert len(self.jobs._deadlines) == len(found)
        different = {job_id for job_id in self.seen.keys() | found if self.seen.get(job_id) != found.get(job_id)}
        assert different <= self.changed
        self.seen, self.changed = dict(found), set()


TestLife = Life.TestCase
TestLife.settings = settings(
    derandomize=True,
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
