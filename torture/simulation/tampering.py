"""Somebody damages a batch's folder between two processes: the next one must say so, and send nothing."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from runner.batch import Folder
from runner.errors import RunnerError
from torture.simulation.machine import Machine
from torture.simulation.process import Process
from torture.simulation.scenario import ProcessPlan
from torture.simulation.world import World


async def tampered(world: World, folder: Path, found: Folder, plan: ProcessPlan, number: int, machine: Machine) -> None:
    """Damage *found* as *plan* says, start a process on it, see that it says so, and put the files back."""
    files = [path for path in found.path.iterdir() if path.name.startswith((found.ledger.name, found.results.name))]
    before = {path: path.read_bytes() for path in files}
    if not _damaged(found, plan.tamper or ""):
        return
    world.say(f"somebody tampers with the batch: {plan.tamper}")
    world.count(f"tampered: {plan.tamper}")
    start = plan.start if plan.start == "run" else "resume"
    process = Process(world, replace(plan, start=start, acts=(), kill=None, disk=None), number, folder)
    machine.starts(process, moved=False)
    submits = len(world.submits)
    await process.run()
    world.blame_if(
        not isinstance(process.error, RunnerError), f"{plan.tamper}, and nothing was said: {process.error!r}"
    )
    world.blame_if(len(world.submits) > submits, f"{plan.tamper}, and something was sent all the same")
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    world.blame_if(left, f"tasks are left over: {sorted(task.get_name() for task in left)}")
    for path in found.path.iterdir():
        if path.name.startswith((found.ledger.name, found.results.name)) and path.is_file():
            path.unlink()
    for path, data in before.items():
        path.write_bytes(data)
    others = [path for path in found.path.parent.iterdir() if path.is_dir() and not path.is_symlink()]
    for other in others:
        if other != found.path and not (other / "manifest.json").exists():
            shutil.rmtree(other)


def _damaged(found: Folder, how: str) -> bool:
    """Damage the files; False where there is nothing yet that anybody could miss."""
    if not found.results.exists():
        return False
    if how.startswith("ledger"):
        for path in found.path.glob(f"{found.ledger.name}*"):
            path.unlink()
        if how == "ledger overwritten":
            found.ledger.write_bytes(b"not a ledger\n" * 1000)
        return True
    with closing(sqlite3.connect(found.ledger)) as db:
        row = db.execute(
            "SELECT line_offset, line_length FROM runs WHERE line_offset IS NOT NULL ORDER BY line_offset DESC LIMIT 1"
        ).fetchone()
    if row is None:
        return False
    data = found.results.read_bytes()
    match how:
        case "results deleted":
            found.results.unlink()
        case "results cut":
            found.results.write_bytes(data[: row[0] + row[1] // 2])
        case _:
            at = row[0] + row[1] // 2
            found.results.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    return True
