"""The world of one simulated life: time, RunPod, the weather on the way there, and everything that was seen."""

import copy
import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.runs import Run
from torture.simulation.batches import Batches
from torture.simulation.days import BatchDay
from torture.simulation.loop import SimLoop
from torture.simulation.scenario import BROKEN, DENIED, ENDPOINTS, OUTAGES, SLOW, STREAMS, UNSENT, Scenario
from torture.simulation.service import NO_WORKERS, Job, Service, Submit
from torture.simulation.times import Times
from torture.simulation.transport import Exchange

if TYPE_CHECKING:
    from torture.simulation.process import Process

SUBMITS = ("run", "runsync")
LOOKING = ("status", "status-sync", "stream")


@dataclass(eq=False)
class Look:
    """One request that asks about a job: by which process, and from when until when it was under way."""

    process: int
    from_s: float
    until_s: float = math.inf


class World:
    """
    What goes on outside of our processes, and the diary of it.

    *lines* are the event log. *wrong* are the invariants that were seen broken. *counts* is what was injected, by kind.
    *told_s* is when the engine said of an attempt that it had ended, by key and number.
    """

    def __init__(self, scenario: Scenario, loop: SimLoop) -> None:
        self.scenario = scenario
        self.spec = copy.deepcopy(scenario.spec)
        self.loop = loop
        self.times = Times(loop)
        self.service = Service(scenario, self.changed)
        self.batches = Batches(scenario.seed, scenario.batch or BatchDay(job=""))
        self.lines: list[str] = []
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.injected: list[str] = []
        self.looks: dict[str, list[Look]] = {}
        self.lost = 0
        self.paid_twice = 0
        self.endpoints = {f"{name}-{which}": name for name in ENDPOINTS for which in ("a", "b")}
        self.open: list[Exchange] = []
        self.held: list[Exchange] = []
        self.submits: list[Submit] = []
        self.sent: list[tuple[str, str, float, int, Submit | None]] = []
        self.troubled: list[tuple[str, float]] = []
        self.stepped_s: list[float] = []
        self.jumps: list[tuple[float, float]] = []
        self.acknowledged: dict[str, bytes] = {}
        self.told_s: dict[tuple[str, int], float] = {}
        self.is_calm = False
        self.process: Process | None = None
        self._workers = random.Random(f"workers {scenario.seed}").choice([1, 1, 4, 50])
        self._asked: Counter[str] = Counter()
        self._planned: dict[tuple[str, int, bool], int] = {}
        self._started: dict[tuple[str, int, bool], set[str]] = {}
        self.take_in()

    @property
    def now_s(self) -> float:
        """Seconds since the life began."""
        return self.times.world_s

    def say(self, text: str) -> None:
        """Put a line into the diary."""
        self.lines.append(f"{self.now_s:12.3f} {text}")

    def blame(self, text: str) -> None:
        """An invariant does not hold."""
        self.say(f"WRONG: {text}")
        self.wrong.append(text)

    def blame_if(self, is_wrong: object, text: str) -> None:
        """An invariant does not hold, if *is_wrong*."""
        if is_wrong:
            self.blame(text)

    def count(self, kind: str) -> None:
        """Something was done to us."""
        self.counts[kind] += 1

    def blame_loss(self, text: str) -> None:
        """A result is lost."""
        self.lost += 1
        self.blame(text)

    def blame_payment(self, text: str) -> None:
        """A run was paid for twice, unawares."""
        self.paid_twice += 1
        self.blame(text)

    # What may be run

    def take_in(self) -> None:
        """What the job file says now is what the batch runs."""
        for name, job in self.spec["jobs"].items():
            rows = Counter(row["n"] for row in job["rows"].get("inline", ()))
            for n, count in rows.items():
                count *= job["rows"].get("repeat", 1)
                which = (name, n, "v" in job["input"])
                self._planned[which] = max(count, self._planned.get(which, 0))

    def started(self, run: Run) -> None:
        """A run is started: it must be one that was planned, or taken in."""
        assert isinstance(run.input, dict)
        if "n" not in run.input:  # made of other runs: `flows` knows of which
            return
        which = (run.job, run.input["n"], "v" in run.input)
        keys = self._started.setdefault(which, set())
        keys.add(run.key)
        self.blame_if(len(keys) > self._planned.get(which, 0), f"run {run.key[:6]} of {run.job} was never asked for")

    # The weather

    def drawn(self, exchange: Exchange, subject: str) -> tuple[random.Random, str | None]:
        """Chance for one request, and the fault that it meets; that of everybody comes first."""
        outage = self.outage(exchange.endpoint)
        scenario, operation = self.scenario, exchange.operation
        where = f"{operation} {exchange.endpoint} {subject}"
        self._asked[where] += 1
        name = f"{where} {self._asked[where]}"
        rng = random.Random(f"net {scenario.seed} {name}")
        planned = next((one.fault for one in scenario.met if one.holds(operation, self.now_s)), None)
        if planned is not None:
            self.count(f"{planned} on {operation}")
            self.disturb(exchange.endpoint)
            return rng, planned
        if outage is not None or self.is_calm or rng.random() >= scenario.faults:
            return rng, outage
        possible = self._possible(operation, exchange)
        if not possible:
            return rng, None
        fault = rng.choice(possible)
        if name in scenario.muted:
            return rng, None
        self.injected.append(name)
        self.count(f"{fault} on {'submit' if operation in SUBMITS else operation}")
        self.disturb(exchange.endpoint)
        return rng, fault

    def _possible(self, operation: str, exchange: Exchange) -> list[str]:
        kinds = self.scenario.kinds
        fitting = [*UNSENT, *BROKEN, *SLOW]
        if operation in SUBMITS:
            fitting += DENIED
        elif operation in ("status", "status-sync"):
            fitting += ["403", "404_once", "stale", "no_status"]
        elif exchange.batch_call == "append":
            fitting += ["400", "413", "422"]
        elif operation in ("stream", "health"):
            fitting += ["403"]
        job = self.service.jobs.get(exchange.job_id or "")
        if operation == "stream" and job is not None and self.service.has_aggregate(job):
            fitting += STREAMS
        return [kind for kind in fitting if kind in kinds]

    def outage(self, endpoint: str) -> str | None:
        """The fault that everything meets now on the way to *endpoint*."""
        for window in self._windows(endpoint):
            if window in OUTAGES:
                self.disturb(endpoint)
                return window
        return None

    def trouble(self, endpoint: str) -> str | None:
        """What is wrong with *endpoint* itself now."""
        for window in self._windows(endpoint):
            if window not in OUTAGES and window != NO_WORKERS:
                self.disturb(endpoint)
                if window == "401" and self.service.jobs:
                    self.count("401 half way")
                return window
        return None

    def _windows(self, endpoint: str) -> list[str]:
        holding = [one for one in self.scenario.windows if one.holds(endpoint, self.now_s)]
        if self.is_calm:
            holding = [one for one in holding if one.until_s == float("inf")]
        for one in holding:
            self.counts[f"time of {one.kind}"] += 1
        return [one.kind for one in holding]

    def disturb(self, endpoint: str) -> None:
        """Something is not well on the way to *endpoint*: what comes of it is no fault of ours."""
        self.troubled.append((endpoint, self.now_s))

    def health(self, endpoint: str) -> dict[str, dict[str, int]]:
        ready = 0 if NO_WORKERS in self._windows(endpoint) else self._workers
        return {
            "jobs": {"completed": 1, "failed": 0, "inProgress": 0, "inQueue": int(not ready), "retried": 0},
            "workers": {"idle": ready, "initializing": 0, "ready": ready, "running": 0, "throttled": 0, "unhealthy": 0},
        }

    # What happens between us and RunPod

    def left(self, exchange: Exchange) -> None:
        """A request is about to leave one of our processes."""
        process = exchange.process
        if exchange.operation in SUBMITS:
            exchange.submit = process.submitting(exchange)
            self.submits.append(exchange.submit)
        elif exchange.operation == "cancel":
            process.cancelling(exchange)
        elif exchange.batch_call is not None:
            process.drafting.leaves(exchange)
        elif exchange.operation in LOOKING and exchange.job_id is not None:
            exchange.looked = Look(process.number, self.now_s)
            self.looks.setdefault(exchange.job_id, []).append(exchange.looked)
        exchange.say("sent")

    def connected(self, exchange: Exchange) -> None:
        """A request is on its way: from here on RunPod counts it."""
        bucket = "status" if exchange.operation in LOOKING else exchange.operation
        self.sent.append((exchange.endpoint_id, bucket, self.now_s, exchange.process.number, exchange.submit))

    def accepted(self, exchange: Exchange, job: Job) -> None:
        """RunPod made a job of a submit."""
        assert exchange.submit is not None
        exchange.submit.fault = exchange.fault

    def heard(self, exchange: Exchange) -> None:
        """The whole of an answer came."""

    def changed(self, job: Job) -> None:
        """The future of a job is another one now."""
        for exchange in [one for one in self.held if one.job is job]:
            self.loop.call_soon(exchange.wake)

    def jump(self, seconds: float) -> None:
        """The world goes on for *seconds* while our machine sleeps; what was open is cut."""
        self.times.slept_s += seconds
        self.jumps.append((self.now_s - seconds, self.now_s))
        for exchange in list(self.open):
            exchange.break_off()
        for exchange in list(self.held):
            self.loop.call_soon(exchange.wake)
