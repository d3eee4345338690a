"""The states of batches hold together whatever happens in whatever order; by random histories, without HTTP."""

from collections import Counter
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.local.batches import Batch, Batches, BatchLimits, NotAllowed, State
from runner.local.job import Job, Policy, Status
from runner.local.jobs import Jobs

RETENTION_S = 50.0


class World:
    """Batches, their jobs, and two workers; the time is what each step makes it."""

    def __init__(self, delay_s: float) -> None:
        self.now = 0.0
        self.number = 0
        self.accepted: Counter[str] = Counter()
        self.ran: set[str] = set()
        self.over: dict[str, tuple[Any, ...]] = {}
        self.known: list[Batch] = []
        self.jobs = Jobs(retention_s=5.0, on_change=self.changed)
        limits = BatchLimits(active=3, requests=4, queued=8)
        self.batches = Batches(self.jobs, retention_s=RETENTION_S, on_accept=self.accept, limits=limits)
        self.batches.delay_s = delay_s

    def changed(self, job: Job) -> None:
        self.batches.follow(job, self.now, self.now)

    def accept(self, job: Job) -> None:
        self.accepted[job.id] += 1

    def made(self, count: int) -> list[Job]:
        self.number += count
        return [Job(f"r{self.number - n}", b"1", Policy(3.0, 1.0), False, self.now) for n in range(count)]

    def step(self, what: str, place: int) -> None:
        """One thing that a client or a worker does, or that time does."""
        batch = self.known[place % len(self.known)] if self.known else None
        if what == "create":
            self.known.append(self.batches.create(f"b{self.number}-{len(self.known)}", self.now, self.made(place % 5)))
        elif what == "pass":
            self.now += place
            self.jobs.expire(self.now)
            self.batches.expire(self.now)
        elif what == "take":
            job = self.jobs.take(f"w{place % 2}", self.now)
            if job is not None:
                assert self.accepted[job.id] == 1, "nothing runs that was not committed"
                self.ran.add(job.id)
        elif what in ("done", "give back"):
            worker = f"w{place % 2}"
            for job_id in self.jobs.held_by(worker)[:1]:
                if what == "done":
                    self.jobs.done(job_id, worker, self.now, output=b"1", error=b"2" if place % 3 == 0 else None)
                else:
                    self.jobs.give_back(job_id, worker)
        elif what == "die":
            self.jobs.worker_died(f"w{place % 2}", self.now)
        elif what == "purge":
            assert self.jobs.purge() == 0
        elif batch is not None:
            self.change(what, batch, place)

    def change(self, what: str, batch: Batch, place: int) -> None:
        """What a client does to a batch."""
        if what == "append":
            self.batches.append(batch, self.made(place % 3))
        elif what == "remove" and batch.requests:
            self.batches.remove(batch, list(batch.requests)[place % len(batch.requests)])
        elif what in ("finalize", "doom"):
            self.batches.finalize(batch, self.now, fails=what == "doom")
        elif what == "cancel":
            self.batches.cancel(batch, self.now)

    def check(self) -> None:
        """What must be true at any moment."""
        active = 0
        for batch in self.known:
            statuses = Counter(one.job.status for one in batch.requests.values())
            assert [one.seen for one in batch.requests.values()] == [one.job.status for one in batch.requests.values()]
            assert batch.in_progress == statuses[Status.IN_PROGRESS]
            assert batch.completed == statuses[Status.COMPLETED]
            assert batch.failed == statuses[Status.FAILED]
            assert (
                len(set(map(id, batch.ended)))
                == len(batch.ended)
                == sum(count for status, count in statuses.items() if status.is_final)
            )
            if batch.state is State.DRAFT:
                assert not any(self.accepted[one] for one in batch.requests)
            elif batch.state is State.FINALIZED:
                assert batch.queued == statuses[Status.IN_QUEUE]
                assert all(self.accepted[one] == 1 for one in batch.requests)
                assert batch.ending is None or batch.in_progress > 0, "what is being ended drains, and nothing else"
            else:
                assert batch.in_progress == batch.queued == statuses[Status.IN_QUEUE] == 0
            active += not batch.is_over
            if batch.is_over:
                stands = (batch.state, batch.completed, batch.failed, len(batch.requests), len(batch.ended))
                assert self.over.setdefault(batch.id, stands) == stands, "what is over stays as it is"
        assert active <= 3
        counts = self.jobs.counts()
        assert (counts.completed, counts.failed, counts.retried, counts.in_queue, counts.in_progress) == (0, 0, 0, 0, 0)


STEPS = ("create", "append", "remove", "finalize", "finalize", "doom", "cancel", "purge", "give back", "die", "pass")
steps = st.tuples(st.sampled_from((*STEPS, *["take", "done"] * 4)), st.integers(0, 7))


@given(history=st.lists(steps, max_size=80), delay_s=st.sampled_from([0.0, 2.0]))
@settings(derandomize=True, max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_counts_states_and_limits_agree_whatever_happens(history: list[tuple[str, int]], delay_s: float) -> None:
    """Refused or carried out; nothing runs that was not finalized, and in the end everything is over."""
    world = World(delay_s)
    for what, place in history:
        with suppress(NotAllowed):
            world.step(what, place)
        world.check()
    for batch in world.known:
        if batch.state is State.DRAFT:
            world.batches.cancel(batch, world.now)
    for _ in range(200):
        world.step("pass", 4)
        world.step("take", 0)
        world.step("done", 0)
        world.check()
    assert all(batch.is_over for batch in world.known)
    assert world.batches.newest_first() == []
