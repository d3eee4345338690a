"""One process of a simulated life: the real engine, from its job file to its end, whichever end that is."""

import asyncio
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.batch import Folder, newest_first
from runner.errors import BatchBusy
from runner.events import (
    Accepted,
    Appended,
    BatchCancelDecided,
    CancelDecided,
    Claimed,
    DraftDropped,
    Drafted,
    DraftMade,
    DraftOver,
    Ended,
    Event,
    Finalized,
    Finalizing,
    Forgotten,
    Intended,
    Planned,
    Reopened,
    Sampled,
    Settled,
    Withdrawn,
)
from runner.execute import Batch, execute
from runner.live import Live
from runner.options import Options
from runner.resume import progress
from runner.runs import Run
from torture.simulation import flows
from torture.simulation.disk import Disk
from torture.simulation.drafting import Drafting
from torture.simulation.scenario import AGAIN, Act, ProcessPlan
from torture.simulation.service import Submit
from torture.simulation.times import SimClock
from torture.simulation.transport import Exchange
from torture.simulation.world import World

DRAIN_S = 25.0

SLOW_S = 0.25
"""A commit that takes so long is one of a slow disk."""


@dataclass
class Intent:
    """A submit that the engine is about to send."""

    event: Intended
    is_durable: bool = False


class Process:
    """
    A process, while it lives and after.

    Attributes:
        batch: What `execute` returned, if it did.
        error: What it raised, if it did.
        settled: The runs that it was told are on disk, by key: their lines.
    """

    def __init__(self, world: World, plan: ProcessPlan, number: int, folder: Path) -> None:
        self.world = world
        self.plan = plan
        self.number = number
        self.folder = folder
        self.root = folder / "batches"
        self.disk = Disk(self)
        self.rng = random.Random(f"process {world.scenario.seed} {number}")
        self.is_calm = world.is_calm
        self.is_dead = False
        self.disk_failed = False
        self.live: Live | None = None
        self.batch: Batch | None = None
        self.error: BaseException | None = None
        self.began_s = world.now_s
        self.ended_s = world.now_s
        self.interrupted_s: float | None = None
        self.cancelled_s: float | None = None
        self.wished_s: float | None = None
        self.settled: dict[str, bytes] = {}
        self.reopened: set[str] = set()
        self.forgotten: set[str] = set()
        self._found: dict[str, bytes] = {}
        self.in_flight: dict[str, tuple[str, str]] = {}
        self._job_ids: dict[str, str] = {}
        self.drafting = Drafting(self)
        self.failed_s: dict[str, list[float]] = {}
        self.spent_ms: Counter[str] = Counter()
        self._ended_s = -1.0
        self._points: Counter[str] = Counter()
        self._intents: dict[asyncio.Task[Any] | None, Intent] = {}
        self._waiting: list[Intent] = []
        self._cancels: set[tuple[str, int]] = set()
        self._begun_turn = world.loop.turns
        self._killed: asyncio.Future[None] = world.loop.create_future()
        self.others: list[asyncio.Task[None]] = []

    @property
    def image(self) -> Path:
        return self.folder / "image"

    @property
    def is_refused(self) -> bool:
        """Whether an endpoint was refused: what it does not tell is left to a resume."""
        return self.batch is not None and self.batch.exit_code == 4

    # Its life

    async def run(self) -> None:
        """Carry it to its end; afterwards its folder is as it left it."""
        world, loop, plan = self.world, self.world.loop, self.plan
        world.say(f"process {self.number} begins: {plan.start}")
        loop.on_turn = self._turn
        clock = SimClock(world.times, self.rng)
        task = loop.create_task(execute(self.options(), watch=self._watch, clock=clock), name="process")
        timers = [loop.call_later(act.after_s, self._act, act) for act in plan.acts]
        if plan.kill is not None and plan.kill.seconds is not None:
            timers.append(loop.call_later(plan.kill.seconds, self.kill))
        awaited: list[asyncio.Future[Any]] = [task, self._killed]
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        for timer in timers:
            timer.cancel()
        if self.is_dead:
            # What it does from now on is undone: it only gives back what it holds in this process.
            task.cancel()
            await asyncio.wait([task])
            self._restore()
        loop.on_turn = lambda: None
        self.ended_s = self.ended_s if self.is_dead else world.now_s
        if self.others:
            await asyncio.wait(self.others)
        if self.is_dead:
            task.cancelled() or task.exception()
            return
        error = task.exception()
        if error is None:
            self.batch = task.result()
            world.say(f"process {self.number} ends: {self.batch.verdict}, {self.batch.exit_code}")
        else:
            self.error = error
            world.say(f"process {self.number} ends: {type(error).__name__}")

    def options(self) -> Options:
        """What the process is asked to do."""
        found, accept = newest_first(self.root / "sim"), self.plan.accept
        if self.plan.start == "run" or not found:
            return Options(self.folder / "job.yaml", resume=True, output_dir=self.root, accept_changes=accept)
        start = self.plan.start
        if start == AGAIN:
            return Options(self.folder / "job.yaml", resume=progress(found[0]).unfinished > 0, output_dir=self.root)
        return Options.of_batch(
            found[0], retry_failed=start == "retry", cancel=start == "cancel", accept_changes=accept
        )

    def _watch(self, live: Live) -> None:
        self.live = live
        # What a kill or a failing disk left whole is adopted by now, and what can't be followed is settled.
        lines = live.folder.results.read_bytes().splitlines(keepends=True) if live.folder.results.exists() else []
        self._found = {flows.parsed(line)["key"]: line for line in lines}
        for name, job in live.tally.jobs.items():
            self.failed_s[name] = [-1.0] * job.failed
            self.spent_ms[name] = job.execution_ms
        with closing(sqlite3.connect(live.folder.ledger)) as ledger:
            for key, job, endpoint_id, job_id in ledger.execute(
                "SELECT a.key, a.job, a.endpoint_id, a.job_id FROM attempts a JOIN runs r ON r.key = a.key"
                " AND r.attempts = a.attempt WHERE a.job_id IS NOT NULL AND a.ended_at IS NULL"
            ):
                self.in_flight[key], self._job_ids[key] = (job, endpoint_id), job_id
            self.drafting.found(ledger)
        for key in self.drafting.runs:
            self.in_flight.pop(key, None)

    def _turn(self) -> None:
        kill = self.plan.kill
        if kill is not None and kill.turn is not None and self.world.loop.turns - self._begun_turn == kill.turn:
            self.kill()

    def at(self, point: str) -> None:
        """The process is at *point*, where it may be killed."""
        if self.is_dead:
            return
        is_due = self.is_due(point)
        self._points[point] += 1
        if is_due:
            self.kill()

    def is_due(self, point: str) -> bool:
        """Whether it is killed when it comes to *point* the next time."""
        kill = self.plan.kill
        return not self.is_dead and kill is not None and kill.point == point and self._points[point] + 1 == kill.nth

    def kill(self) -> None:
        """End the process here and now."""
        if self.is_dead or self._killed.done() or self.world.process is not self:
            return
        kill = self.plan.kill
        power = self.rng if kill is not None and kill.power else None
        what = "power loss" if power else "kill"
        where = f" at {kill.point}" if kill is not None and kill.point else ""
        self.world.say(f"process {self.number}: {what}{where}")
        self.world.count(f"{what}{where}")
        self.disk.image(self.root, self.image, power)
        self.is_dead = True
        self.ended_s = self.world.now_s
        self._killed.set_result(None)

    def _restore(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.image.rename(self.root)

    # What happens to it

    def _act(self, act: Act) -> None:
        world = self.world
        if self.is_dead:
            return
        match act.kind:
            case "signal":
                self._signal()
            case "wish" if self.live is not None:
                world.say("somebody wishes to cancel it")
                world.count("runner cancel while it runs")
                self.live.folder.wish.touch()
                if self.wished_s is None:
                    self.wished_s = world.now_s
            case "sleep":
                world.say(f"the machine sleeps for {act.value} s")
                world.count(f"machine asleep for {act.value:.0f} s")
                world.jump(act.value)
            case "stop":
                world.say(f"the process is stopped for {act.value} s")
                world.count(f"process stopped for {act.value:.0f} s")
                world.loop.now_s += act.value
                world.jumps.append((world.now_s - act.value, world.now_s))
            case "step":
                world.say(f"the calendar steps by {act.value} s")
                world.count("calendar stepped " + ("back" if act.value < 0 else "forward"))
                world.times.stepped_s += act.value
                world.stepped_s.append(world.now_s)
            case "second" if self.live is not None:
                self.others.append(world.loop.create_task(self._second(), name="second"))

    def _signal(self) -> None:
        world = self.world
        if self.live is None:  # no handler yet: it ends the process
            self.kill()
        elif self.interrupted_s is None:
            world.say("signal: drain")
            world.count("signal")
            self.interrupted_s = world.now_s
            self.live.drain(DRAIN_S)
        elif self.cancelled_s is None and world.now_s - self.interrupted_s >= 1.0:
            world.say("signal: cancel")
            world.count("second signal")
            self.cancelled_s = world.now_s
            self.live.cancel()

    async def _second(self) -> None:
        """Another process of the same job file is started: it is told so, and sends nothing."""
        self.world.count("second start" + (" while the first drains" if self.interrupted_s is not None else ""))
        try:
            await execute(self.options(), clock=SimClock(self.world.times, self.rng))
        except BatchBusy:
            self.world.say("a second process is told that the batch is running")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            if self.is_dead or self.disk_failed:  # of the same machine
                return
            self.world.blame(f"a second process ends with {error!r}")
        else:
            self.world.blame("a second process ran beside the first")

    # What it tells

    def commit_s(self) -> float:
        """How long the next commit takes."""
        took_s = self.world.scenario.commit_s * (0.5 + self.rng.random())
        if took_s >= SLOW_S:
            self.world.count("slow fsync")
        return took_s

    def told(self, event: Event) -> None:
        """The engine told its recorder of *event*."""
        if self.is_dead:
            return
        if not isinstance(event, Sampled):
            self.world.say(f"  {_words(event)}")
        self.drafting.told(event)
        match event:
            case Intended():
                intent = Intent(event)
                self._intents[asyncio.current_task()] = intent
                self._waiting.append(intent)
                assert isinstance(event.run.input, dict)
                self.world.started(event.run)
                self._may_start(event)
                self.may_be_made(event.run, is_again=event.attempt > 1)
                self.in_flight[event.run.key] = (event.run.job, event.destination.endpoint_id)
                self._job_ids.pop(event.run.key, None)
                self.at("intent")
            case Accepted():
                self._job_ids[event.key] = event.job_id
            case Withdrawn():
                self.in_flight.pop(event.key, None)
            case Ended():
                drafted = self.drafting.ended(event.key)
                if event.key not in self.in_flight and drafted is None:
                    self.world.blame(f"{event.key[:6]} is tried again, and nothing of it was in flight")
                self.world.told_s[event.key, event.attempt] = self.world.now_s
                job, _ = self.in_flight.pop(event.key, (drafted or "", ""))
                self._spent(job, event)
            case Settled():
                self.world.told_s[event.run.key, event.attempts] = self.world.now_s
                self.in_flight.pop(event.run.key, None)
                self.drafting.ended(event.run.key)
                if event.ending is not None and event.attempts:  # what is reused cost another batch
                    self._spent(event.run.job, event)

    def _spent(self, job: str, event: Ended | Settled) -> None:
        if event.ending is not None and event.ending.execution_time_ms is not None:
            self.spent_ms[job] += event.ending.execution_time_ms
            self._ended_s = self.world.now_s + self.world.scenario.commit_s * 3

    def durable(self, events: Sequence[Event]) -> None:
        """*events* are on disk, and the engine may believe it."""
        for event in events:
            self.drafting.durable(event)
            if isinstance(event, Settled):
                self.settled[event.run.key] = event.line
                if event.state == "failed":
                    self.failed_s.setdefault(event.run.job, []).append(self.world.now_s)
                self.reopened.discard(event.run.key)
                self.forgotten.discard(event.run.key)
            elif isinstance(event, Reopened):
                self.reopened.add(event.key)
            elif isinstance(event, Forgotten):
                self.forgotten.add(event.key)
                self.settled.pop(event.key, None)
            elif isinstance(event, CancelDecided):
                self._cancels.add((event.key, event.attempt))
            elif isinstance(event, Intended):
                for intent in self._waiting:
                    intent.is_durable = intent.is_durable or intent.event is event
                self._waiting = [one for one in self._waiting if not one.is_durable]

    def submitting(self, exchange: Exchange) -> Submit:
        """A submit leaves: whose it is. The intent must be on disk by now."""
        world = self.world
        intent = self._intents.pop(asyncio.current_task(), None)
        number = len(world.submits) + 1
        if intent is None:
            world.blame("a submit left without an intent")
            return Submit(number, self.number, "?", "?", 0, exchange.endpoint, world.now_s)
        if not intent.is_durable:
            world.blame("a submit left before its intent was on disk")
        run = intent.event.run
        return Submit(number, self.number, run.job, run.key, intent.event.attempt, exchange.endpoint, world.now_s)

    def cancelling(self, exchange: Exchange) -> None:
        """A /cancel leaves: it must have been decided, on disk."""
        job = self.world.service.jobs.get(exchange.job_id or "")
        if job is not None and (job.submit.key, job.submit.attempt) not in self._cancels:
            self.world.blame(f"{job.job_id} is cancelled, and nobody recorded the decision")

    def _may_start(self, event: Intended) -> None:
        """A run is started: the limits must allow it."""
        world, job = self.world, self.world.scenario.spec["jobs"][event.run.job]
        endpoint_id = event.destination.endpoint_id
        spec = world.scenario.spec["endpoints"][job["endpoint"]]
        others = [
            one
            for key, one in self.in_flight.items()
            if key != event.run.key and one[1] == endpoint_id and not self._is_over(key)
        ]
        of_job = sum(one[0] == event.run.job for one in others)
        for what, there, most in (
            ("endpoint", len(others), spec.get("concurrency")),
            ("job", of_job, job.get("concurrency")),
        ):
            # Where the disk fails, a run that is given up makes room for one that is given up as well.
            if most is not None and there >= most and not self.disk_failed:
                world.blame(f"{there + 1} runs in flight at once, and the {what}'s concurrency is {most}")
        self.may_begin(event.run.job)

    def may_begin(self, name: str) -> None:
        """Runs of the job *name* are started: nobody may have said that none shall be, and its budget allows it."""
        world = self.world
        if self.interrupted_s is not None and world.now_s > self.interrupted_s:
            world.blame("a run was started after a signal")
        jumped_s = world.jumps[-1][1] if world.jumps else 0.0
        if self.wished_s is not None and world.now_s > max(self.wished_s, jumped_s) + 1.0:
            world.blame("a run was started after somebody had cancelled the batch")
        self._within_budget(name, world.scenario.spec["jobs"][name].get("stop_when", {}))

    def may_be_made(self, run: Run, *, is_again: bool) -> None:
        """A run is started, for the first time or *is_again*, whose job may need another: that must be on disk."""
        jobs, name = self.world.scenario.spec["jobs"], run.job
        source = flows.source_of(jobs[name])
        if source is None:
            return
        assert self.live is not None
        planned = self.live.tally.jobs[source].planned
        wrong = flows.wrong_start(jobs, name, run.input, self._saved(), planned, is_again=is_again)
        self.world.blame_if(wrong, wrong or "")

    def _saved(self) -> dict[str, list[dict[str, Any]]]:
        """The lines that are on disk, by job."""
        assert self.live is not None
        found = self.world.acknowledged | self._found | self.settled
        by_job: dict[str, list[dict[str, Any]]] = {}
        for key, line in found.items():
            if key not in self.reopened | self.forgotten:
                by_job.setdefault(flows.parsed(line)["job"], []).append(flows.parsed(line))
        return by_job

    def _is_over(self, key: str) -> bool:
        """Whether the job of a run has ended at RunPod: then it is in nobody's way, settled or not."""
        job = self.world.service.jobs.get(self._job_ids.get(key, ""))
        return job is not None and self.world.now_s >= min(job.final_s, job.gone_s)

    def _within_budget(self, name: str, stop_when: dict[str, Any]) -> None:
        assert self.live is not None
        tally, world = self.live.tally.jobs[name], self.world
        if tally.pending <= tally.in_flight:
            return
        failed = sum(at_s < world.now_s for at_s in self.failed_s[name])
        limit = stop_when.get("failed")
        if isinstance(limit, str):
            limit = max(1, -(-int(limit.rstrip("%")) * tally.planned // 100))
        if limit is not None and failed >= limit:
            world.blame(f"a run was started after {failed} of {tally.planned} runs had failed")
        if "cost" in stop_when and self._ended_s < world.now_s:
            spent_usd, most_usd = self.spent_ms[name] / 1000 * 0.001, float(stop_when["cost"].split()[0])
            if spent_usd >= most_usd:
                world.blame(f"a run was started after {spent_usd} of {most_usd} USD were spent")


def _words(event: Event) -> str:
    match event:
        case Intended():
            return f"{event.run.job} {event.run.key[:6]}.{event.attempt} intended"
        case Withdrawn():
            return f"{event.key[:6]}.{event.attempt} withdrawn"
        case Accepted():
            return f"{event.key[:6]}.{event.attempt} accepted as {event.job_id}"
        case Claimed():
            return f"{event.key[:6]}.{event.attempt} claims {[file.path for file in event.files]}"
        case CancelDecided():
            return f"{event.key[:6]}.{event.attempt} to be cancelled"
        case Ended():
            return f"{event.key[:6]}.{event.attempt} ended: {event.ending.outcome if event.ending else None}"
        case Settled():
            ending = event.ending
            why = f" ({ending.error['message'][:80]})" if ending is not None and ending.error else ""
            return f"{event.run.key[:6]}.{event.attempts} settled: {ending.outcome if ending else event.state}{why}"
        case Reopened():
            return f"{event.key[:6]} reopened"
        case Sampled():
            return f"{event.endpoint} sampled"
        case Forgotten():
            return f"{event.key[:6]} forgotten"
        case Appended():
            runs = ", ".join(f"{one.run.key[:6]}.{one.attempt}" for one in event.requests)
            return f"draft {event.number} has {runs}"
        case Drafted() | DraftMade() | DraftDropped() | Finalizing() | Finalized() | BatchCancelDecided() | DraftOver():
            return f"{type(event).__name__} {event.number}"
        case Planned():
            return f"{event.job} has {event.runs} runs"
        case _:
            return type(event).__name__


def newest(root: Path) -> Folder | None:
    """The newest batch in *root*."""
    found = newest_first(root / "sim")
    return found[0] if found else None
