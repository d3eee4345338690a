"""An endpoint in virtual time with so many workers and one queue, first come, first served, that says what it saw."""

import asyncio
import heapq
from collections.abc import Coroutine, Iterator
from statistics import mean
from typing import Any

from fakes import FakeJob, FakeRunPod, Play, Scene, a_run, http
from test_dispatch import job

from runner.answers import EndpointHealth, RemoteJob
from runner.dispatch import dispatch
from runner.endpoint import LiveEndpoint
from runner.events import Destination
from runner.local.limits import Meter, RateLimits
from runner.pace import Pace
from runner.spec import RateLimits as Rates
from runner.values import JsonValue


class Queued(FakeJob):
    """A job that waits for a worker until *starts_at*."""

    starts_at: float
    accepted_at: float
    told_at: float | None = None

    def seen(self, now: float) -> RemoteJob:
        if now < self.starts_at:
            return RemoteJob(self.job_id, "IN_QUEUE")
        if now < self.ends_at:
            return RemoteJob(self.job_id, "IN_PROGRESS", delay_time_ms=self.final.delay_time_ms)
        self.told_at = now if self.told_at is None else self.told_at
        return self.final


class Fleet(FakeRunPod):
    """
    *workers* that take jobs, each for a time drawn from *durations*.

    *meter* refuses what RunPod's limits would. *tells_workers* says whether ``/health`` counts workers, *tells_times*
    whether answers have times.
    """

    def __init__(self, workers: int, durations: Iterator[float]) -> None:
        super().__init__()
        self.workers = workers
        self.meter: Meter | None = None
        self.tells_workers = True
        self.tells_times = True
        self._durations = durations
        self._free_at = [0.0] * workers

    def add_job(self, job_id: str, play: Play, given: JsonValue = None) -> FakeJob:
        now, ran_s = asyncio.get_running_loop().time(), next(self._durations)
        starts_at = max(now, heapq.heappop(self._free_at))
        heapq.heappush(self._free_at, starts_at + ran_s)
        times = (round((starts_at - now) * 1000), round(ran_s * 1000)) if self.tells_times else (None, None)
        final = RemoteJob(job_id, "COMPLETED", "ok", delay_time_ms=times[0], execution_time_ms=times[1])
        queued = Queued(job_id, given, now, starts_at + ran_s, final)
        queued.starts_at = starts_at
        queued.accepted_at = now
        self.jobs[job_id] = queued
        return queued

    async def _healthy(self) -> EndpointHealth:
        return EndpointHealth({}, {"idle": 0, "ready": 0, "running": self.workers} if self.tells_workers else {})

    async def _serve(self, operation: str, words: str, otherwise: Coroutine[Any, Any, object]) -> object:
        if self.meter is None:
            return await super()._serve(operation, words, otherwise)
        await asyncio.sleep(self.latency_s)  # on its way there
        if self.meter.admit(operation, asyncio.get_running_loop().time()) is not None:
            otherwise.close()
            raise http(429)
        try:
            return await super()._serve(operation, words, otherwise)
        finally:
            self.meter.leave(operation)

    @property
    def all(self) -> list[Queued]:
        return [one for one in self.jobs.values() if isinstance(one, Queued)]

    @property
    def requests_per_job(self) -> float:
        """Requests for each job, /health left out."""
        return sum(len(calls) for name, calls in self.calls.items() if name != "health") / len(self.jobs)

    @property
    def delays_s(self) -> list[float]:
        """How long after its end each job was first told to have ended; sorted."""
        return sorted(one.told_at - one.ends_at for one in self.all if one.told_at is not None)

    @property
    def mean_delay_s(self) -> float:
        return mean(self.delays_s)

    @property
    def makespan_s(self) -> float:
        """From the first submit to the last end that was told."""
        return max(one.told_at or 0.0 for one in self.all) - min(one.accepted_at for one in self.all)

    @property
    def ideal_s(self) -> float:
        """How long the same jobs take if all wait in the queue from the beginning."""
        free_at = [0.0] * self.workers
        for one in self.all:
            heapq.heappush(free_at, heapq.heappop(free_at) + (one.ends_at - one.starts_at))
        return max(free_at)


async def carry(
    fleet: Fleet, count: int, *, in_flight: int | None, width: int | None = None, limits: bool = False
) -> LiveEndpoint:
    """Carry *count* runs through *fleet*, with at most *in_flight* at once; with *limits* at RunPod's rates."""
    asyncio.get_running_loop().set_debug(False)  # ten times as quick
    scene = Scene()
    scene.runpod = fleet
    fleet.history = scene.history
    if limits:
        fleet.meter = Meter(RateLimits())
    rates = Rates()
    pace = Pace({name: getattr(rates, name) for name in Rates.model_fields})
    to = Destination("sdxl", "https://api.runpod.ai/v2", "ep")
    scene.endpoint = LiveEndpoint(to, fleet, pace, scene.clock, concurrency=in_flight)
    await scene.endpoint.health()
    runs = (a_run(number) for number in range(count))
    await dispatch([job(scene, runs, planned=count, width=width or in_flight or count)])
    assert len(scene.recorder.settled) == count
    return scene.endpoint
