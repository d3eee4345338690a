"""Live one seed: its processes, one after the other, until its batch has come to its end."""

import asyncio
import hashlib
import json
import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.execute import ended
from runner.resume import progress
from torture.simulation.folder import after_process
from torture.simulation.loop import SimLoop, Stuck
from torture.simulation.machine import Machine
from torture.simulation.oracle import after_life
from torture.simulation.process import Process, newest
from torture.simulation.reusing import again
from torture.simulation.scenario import Scenario
from torture.simulation.tampering import tampered
from torture.simulation.world import World

LONG = ", longer than a result is kept"


@dataclass
class Life:
    """What became of one seed."""

    seed: int
    wrong: list[str]
    lines: list[str]
    injected: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    tally: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0

    @property
    def digest(self) -> str:
        """The digest of the event log: the same for the same seed, always."""
        return hashlib.blake2b("\n".join(self.lines).encode(), digest_size=16).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """What a report folds."""
        return {
            "seed": self.seed,
            "digest": self.digest,
            "wrong": self.wrong,
            "counts": dict(sorted(self.counts.items())),
            "tally": dict(sorted(self.tally.items())),
            "took_s": round(self.took_s, 3),
        }


def live(scenario: Scenario, folder: Path, machine: Machine) -> Life:
    """Live *scenario* in *folder*, which is emptied."""
    began = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "job.yaml").write_text(json.dumps(scenario.spec))
    loop = SimLoop()
    loop.thread_s = scenario.thread_s
    unheard: list[str] = []
    loop.set_exception_handler(lambda _, context: unheard.append(_said(context)))
    world = World(scenario, loop)
    tally: Counter[str] = Counter()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_processes(world, folder, machine, tally))
    except Stuck as error:
        world.blame(f"stuck: {error}")
    except Exception as error:  # noqa: BLE001 - an oracle that can't read what was left has found something
        world.blame(f"what was left can't be read: {error!r}")
    finally:
        loop.on_turn = lambda: None
        asyncio.set_event_loop(None)
        loop.close()
    for text in unheard:
        world.blame(f"nobody heard: {text}")
    life = Life(scenario.seed, world.wrong, world.lines, world.injected, world.counts, tally)
    tally["lost"] += world.lost
    tally["paid twice"] += world.paid_twice
    life.took_s = time.perf_counter() - began
    return life


def _said(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{context['message']}: {error!r}" if error is not None else context["message"]


async def _processes(world: World, folder: Path, machine: Machine, tally: Counter[str]) -> None:
    scenario, loop = world.scenario, world.loop
    for endpoint, at_s in scenario.purges:
        loop.call_later(at_s, _purge, world, endpoint)
    processes: list[Process] = []
    moved = False
    plans = list(scenario.processes)
    last = max(number for number, plan in enumerate(plans) if plan.start != "retry" or number == 0)
    for number, plan in enumerate(plans, 1):
        if number > last:
            world.is_calm = True
        found = newest(folder / "batches")
        is_finished = found is not None and not progress(found).unfinished
        if is_finished and plan.start != "retry":
            continue
        if plan.edit is not None:
            _edited(world, folder / "job.yaml", plan.edit)
        if plan.mode is not None:
            _mode_changed(world, folder / "job.yaml", plan.mode)
        if plan.accept or found is None:  # without a batch a new one is started, with what the file says then
            world.take_in()
        if plan.tamper is not None and found is not None and plan.start in ("run", "resume"):
            await tampered(world, folder, found, plan, number, machine)
        if plan.moved:
            world.count("endpoints deployed anew")
        moved = moved != plan.moved
        process = Process(world, plan, number, folder)
        machine.starts(process, moved=moved)
        processes.append(process)
        await process.run()
        after_process(world, process)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if left:
            world.blame(f"tasks are left over: {sorted(task.get_name() for task in left)}")
            for task in left:
                task.cancel()
            await asyncio.wait(left)
        if world.wrong:
            return
        if plan.down_s:
            is_late = plan.down_s >= 1800.0
            world.count("machine off over midnight" if plan.down_s > 43_200.0 else f"a missed tick{LONG * is_late}")
        await asyncio.sleep(plan.down_s)
    found = newest(folder / "batches")
    if found is None:
        world.blame("there is no batch")
        return
    if not progress(found).unfinished and processes[-1].batch is not None:
        sent = len(world.sent)
        told = ended(found, retry_failed=False)
        if told is None or len(world.sent) != sent:
            world.blame("a finished batch that is resumed does something")
        elif told.exit_code != processes[-1].batch.exit_code:
            world.blame(f"a finished batch ends with {told.exit_code}, and before with {processes[-1].batch.exit_code}")
    after_life(world, processes, found, tally)
    if scenario.again and not (world.wrong or world.stepped_s or progress(found).unfinished):
        await again(world, folder, machine, found, len(plans), moved=moved)


def _edited(world: World, path: Path, edit: str) -> None:
    """Somebody changes the rows of a job, or what is made of them."""
    rng = random.Random(f"edit {world.scenario.seed}")
    name = rng.choice(sorted(world.spec["jobs"]))
    rows = world.spec["jobs"][name]["rows"]["inline"]
    at = rng.randrange(len(rows))
    match edit:
        case "add":
            rows.append({"n": 100})
        case "insert":
            rows.insert(at, {"n": 101})
        case "drop" if len(rows) > 1:
            del rows[at]
        case "change":
            rows[at] = {"n": 102}
        case "template":
            world.spec["jobs"][name]["input"] = {"n": "{{ row.n }}", "v": 2}
        case _:
            rows.reverse()
    path.write_text(json.dumps(world.spec))
    world.say(f"somebody edits {name}: {edit}")
    world.count(f"job file edited: {edit}")


def _mode_changed(world: World, path: Path, mode: str) -> None:
    """Somebody changes the mode of the job that uses the Batch API, or back."""
    assert world.scenario.batch is not None
    job, key = world.spec["jobs"][world.scenario.batch.job], world.scenario.batch.key
    if job["mode"] == mode:
        return
    job["mode"] = mode
    job.pop("batch_key", None)
    if mode == "batch" and key is not None:
        job["batch_key"] = key
    path.write_text(json.dumps(world.spec))
    world.say(f"somebody changes {world.scenario.batch.job} to mode {mode}")
    world.count(f"mode changed to {mode}")


def _purge(world: World, endpoint: str) -> None:
    gone = world.service.purge(endpoint, world.now_s)
    world.say(f"somebody purges {endpoint}: {gone} jobs")
    if gone:
        world.count("queue purged by somebody else")
