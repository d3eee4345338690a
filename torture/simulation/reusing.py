"""A second batch of the same job file in simulated lives, whose jobs reuse what succeeded in the first."""

import json
import random
from pathlib import Path
from typing import Any

from runner.batch import Folder
from runner.resume import progress
from torture.simulation.folder import after_process
from torture.simulation.machine import Machine
from torture.simulation.process import Process, newest
from torture.simulation.scenario import AGAIN, ProcessPlan, kill_of
from torture.simulation.world import World


async def again(world: World, folder: Path, machine: Machine, first: Folder, number: int, *, moved: bool) -> None:
    """Run the job file whose batch *first* has ended once more, perhaps with a kill, to its end."""
    rng = random.Random(f"second batch {world.scenario.seed}")
    plans = [ProcessPlan(AGAIN, kill=kill_of(rng)) if rng.random() < 0.6 else ProcessPlan(AGAIN), ProcessPlan(AGAIN)]
    world.acknowledged = {}
    world.take_in()
    before = len(world.submits)
    for plan in plans:
        found = newest(folder / "batches")
        if found is not None and found.path != first.path and not progress(found).unfinished:
            break
        number += 1
        process = Process(world, plan, number, folder)
        machine.starts(process, moved=moved)
        await process.run()
        after_process(world, process)
        if newest(folder / "batches") == first:  # a kill before there was another one
            world.acknowledged = {}
        if world.wrong:
            return
    second = newest(folder / "batches")
    if second is None or second == first:
        world.blame("a second batch of a job file that is done was not begun")
        return
    world.count("a second batch, what succeeded reused")
    for text in _wrong(world, first, second, {one.key for one in world.submits[before:]}, moved=moved):
        world.blame(text)


def _wrong(world: World, first: Folder, second: Folder, sent: set[str], *, moved: bool) -> list[str]:
    """What is wrong with the *second* batch, of which the runs *sent* were submitted."""
    known, lines = _lines(first), _lines(second)
    # Where a batch has gone on at another endpoint, or in another mode, nobody can tell which result is of which.
    may_refuse = moved or any(plan.moved or plan.accept or plan.mode for plan in world.scenario.processes)
    wrong: list[str] = []
    for key, line in lines.items():
        name, before = f"run {key[:6]} of {line['job']}", known.get(key)
        has_succeeded = before is not None and before["state"] == "succeeded"
        reuses = world.scenario.spec["jobs"][line["job"]].get("reuse") == "succeeded"
        if "reused_from" not in line:
            if has_succeeded and reuses and not may_refuse and line["state"] != "skipped":
                wrong.append(f"{name} had succeeded, and was run again: {line['outcome']}")
            continue
        world.count("run reused")
        if not reuses or before is None or not has_succeeded:
            wrong.append(f"{name} is reused from a batch in which it did not succeed, or though nobody asked for it")
            continue
        if line["reused_from"] != first.id or line["attempts"] or line["job_id"] is not None:
            wrong.append(f"{name} says that it is of {line['reused_from']}, by {line['job_id']}")
        if key in sent:
            world.blame_payment(f"{name} was reused, and paid for again")
        if (line.get("output"), line["artifacts"]) != (before.get("output"), before["artifacts"]):
            wrong.append(f"{name} was reused with another result than it had")
        if any((second.path / path).read_bytes() != (first.path / path).read_bytes() for path in line["artifacts"]):
            wrong.append(f"{name} was reused, and its files have other bytes")
    return wrong


def _lines(folder: Folder) -> dict[str, dict[str, Any]]:
    return {told["key"]: told for told in map(json.loads, folder.results.read_bytes().splitlines())}
