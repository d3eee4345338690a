"""
Ways of waiting for jobs, simulated: an endpoint with so many workers and one queue, first come, first served. Pure.

The engine's own decisions are used: `runner.looks` for when to look, `runner.oldest` for which jobs to look at.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from statistics import mean

from benchmarks.durations import Durations
from runner.looks import Known, wait_s
from runner.oldest import Oldest, Place
from runner.policy import Looks

HELD_S = 90.0
TTL_S = 86_400.0


@dataclass(frozen=True)
class Work:
    """A workload: *workers* of an endpoint, and how many jobs are in flight for each of them."""

    name: str
    durations: Durations
    per_worker: float
    workers: int = 50


@dataclass(eq=False, slots=True)
class Job:
    """A job at the endpoint. Times are seconds since the beginning."""

    submitted_s: float
    takes_s: float
    began_s: float | None = None
    ended_s: float | None = None
    waiting: list[Callable[[], None]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """What one way came to on one workload: *delay_s* on average after an end, *requests* a job."""

    delay_s: float
    late_s: float
    requests: float


class Simulation:
    """One batch. A way to wait is called with each new job; it looks, and calls `noticed` at the end."""

    def __init__(self, work: Work, jobs: int, seed: int) -> None:
        self.now_s = 0.0
        self.requests = 0
        self.delays_s: list[float] = []
        self._jobs = jobs
        self._draws: Iterator[float] = work.durations.draws(seed)
        self._free = work.workers
        self._queue: list[Job] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def run(self, in_flight: int, way: "Way") -> Result:
        """Carry all jobs through *way*."""
        self._way = way
        for _ in range(min(in_flight, self._jobs)):
            self._submit()
        while self._events:
            self.now_s, _, act = heapq.heappop(self._events)
            act()
        late_s = sorted(self.delays_s)[int(0.95 * len(self.delays_s))]
        return Result(mean(self.delays_s), late_s, self.requests / len(self.delays_s))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Call *act* in *seconds*."""
        heapq.heappush(self._events, (self.now_s + seconds, next(self._numbers), act))

    def look(self, job: Job) -> bool:
        """Spend a request; whether *job* has ended."""
        self.requests += 1
        return job.ended_s is not None

    def noticed(self, job: Job) -> None:
        """The end of *job* was seen: the next one may go."""
        assert job.ended_s is not None
        self.delays_s.append(self.now_s - job.ended_s)
        self._submit()

    def _submit(self) -> None:
        if not self._jobs:
            return
        self._jobs -= 1
        self.requests += 1
        job = Job(self.now_s, next(self._draws))
        self._queue.append(job)
        self._work()
        self._way.follow(self, job)

    def _work(self) -> None:
        while self._free and self._queue:
            self._free -= 1
            job = self._queue.pop(0)
            job.began_s = self.now_s
            self.after(job.takes_s, lambda job=job: self._end(job))  # type: ignore[misc]

    def _end(self, job: Job) -> None:
        job.ended_s = self.now_s
        self._free += 1
        self._work()
        for told in job.waiting:
            told()


class Way:
    """A way to wait: *follow* is called with each job as it is submitted."""

    def follow(self, simulation: Simulation, job: Job) -> None:
        raise NotImplementedError


class Spaced(Way):
    """Looks whose pauses follow from their number alone: *first_s*, then *growth* times as long each, at most 5 s."""

    def __init__(self, first_s: float, growth: float = 1.0) -> None:
        self._first_s = first_s
        self._growth = growth

    def follow(self, simulation: Simulation, job: Job, looks: int = 0) -> None:
        def look() -> None:
            if simulation.look(job):
                simulation.noticed(job)
            else:
                self.follow(simulation, job, looks + 1)

        simulation.after(min(5.0, self._first_s * self._growth ** min(looks, 20)), look)


class Held(Way):
    """A request that the server holds until the job ends, asked again after `HELD_S`; by the oldest only."""

    def __init__(self, oldest: int) -> None:
        self._oldest = Oldest(oldest)

    def follow(self, simulation: Simulation, job: Job) -> None:
        def hold() -> None:
            if simulation.look(job):
                over()
                return
            job.waiting = [over]
            simulation.after(HELD_S, again)

        def again() -> None:
            if job.ended_s is None:
                hold()

        def over() -> None:
            self._oldest.leave(place)
            simulation.noticed(job)

        place = self._oldest.enter(simulation.now_s, lambda: simulation.after(0.0, hold))


class Learned(Way):
    """Ours, where the server holds nothing: `runner.looks` on the oldest jobs."""

    def __init__(self, oldest: int, price_s: float) -> None:
        self._oldest = Oldest(oldest)
        self._price_s = price_s
        self._known = Known()
        self._bounds = Looks()

    def follow(self, simulation: Simulation, job: Job) -> None:
        looks, in_since_s = 0, 0.0
        place: Place | None = None
        ran_s: float | None = None

        def came_in() -> None:
            nonlocal in_since_s
            in_since_s = simulation.now_s
            pause()

        def pause() -> None:
            wait = wait_s(
                self._known,
                age_s=simulation.now_s - job.submitted_s,
                in_s=simulation.now_s - in_since_s,
                ran_s=ran_s,
                looks=looks,
                price_s=self._price_s,
                bounds=self._bounds,
                ttl_s=TTL_S,
            )
            simulation.after(wait, look)

        def look() -> None:
            nonlocal looks, ran_s
            looks += 1
            if not simulation.look(job):
                ran_s = 0.0 if job.began_s is None else simulation.now_s - job.began_s
                pause()
                return
            assert job.ended_s is not None
            self._known.executions.add(job.takes_s)
            self._known.waits.add(job.ended_s - in_since_s)
            assert place is not None
            self._oldest.leave(place)
            simulation.noticed(job)

        place = self._oldest.enter(simulation.now_s, came_in)
