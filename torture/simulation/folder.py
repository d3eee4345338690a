"""What must hold whenever a process has ended, however it did: invariants 1, 3, 8 and 9, by what is in its folder."""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from runner.batch import Folder
from runner.errors import RecordError, UsageError
from runner.results import digest
from runner.units import duration_s
from torture.simulation import flows
from torture.simulation.process import Process, newest
from torture.simulation.scenario import SECRETS
from torture.simulation.world import World

SETTLED = ("succeeded", "failed", "cancelled", "skipped")


def after_process(world: World, process: Process) -> None:
    """What must hold whenever a process has ended, however it did."""
    _ends_as_told(world, process)
    found = newest(process.root)
    _keeps_secrets(world, process.root)
    if process.plan.start == "retry":
        world.acknowledged = {
            key: line for key, line in world.acknowledged.items() if json.loads(line)["state"] == "succeeded"
        }
    for gone in process.forgotten:
        world.acknowledged.pop(gone, None)
    world.acknowledged |= process.settled
    if found is None:
        if world.acknowledged:
            world.blame("runs were settled, and there is no batch")
        return
    lines = found.results.read_bytes().splitlines(keepends=True) if found.results.exists() else []
    if process.is_dead and not any(plan.start == "retry" for plan in world.scenario.processes):
        # What a kill left whole is a result, whether the ledger speaks of it already or not.
        whole = {key: line for line in lines if (key := _key(line)) is not None}
        world.acknowledged |= whole
    for key, line in world.acknowledged.items():
        if line not in lines:
            world.blame_loss(f"run {key[:6]} was settled on disk, and its line is gone")
    if process.batch is not None:
        _adds_up(world, process, found)
    _ends_in_time(world, process)


def _key(line: bytes) -> str | None:
    """The key of the run that *line* tells of; None if it is torn, or zeros."""
    try:
        return str(json.loads(line)["key"]) if line.endswith(b"\n") else None
    except ValueError:
        return None


def _ends_as_told(world: World, process: Process) -> None:
    error = process.error
    if process.is_dead or error is None:
        if error is None and not process.is_dead and process.disk_failed and not process.others:
            world.blame("the disk failed, and the process ended as if it had not")
        return
    # A folder that can't be made is said as a UsageError: nothing was sent.
    for text in (str(error), repr(error)):
        world.blame_if(any(secret in text for secret in SECRETS), "a secret is in what a process says last")
    is_said = isinstance(error, RecordError) or (isinstance(error, UsageError) and process.live is None)
    if not (is_said and process.disk_failed):
        world.blame(f"the process ended with {error!r}")


def _keeps_secrets(world: World, root: Path) -> None:
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            world.blame_if([secret for secret in SECRETS if secret.encode() in data], f"a secret is in {path.name}")


def _adds_up(world: World, process: Process, folder: Folder) -> None:
    """Every run in one class, the classes as many as the plan, and the files agree."""
    assert process.batch is not None
    with closing(sqlite3.connect(folder.ledger)) as db:
        runs = db.execute("SELECT key, job, state, outcome, line_offset, line_length, line_digest FROM runs").fetchall()
        plan = json.loads(db.execute("SELECT value FROM meta WHERE name = 'plan'").fetchone()[0])
        again = Counter(job for (job,) in db.execute("SELECT job FROM attempts WHERE attempt > 1"))
        retried = db.execute("SELECT count(DISTINCT key) FROM attempts WHERE attempt > 1").fetchone()[0]
    data = folder.results.read_bytes()
    keys = [json.loads(line)["key"] for line in data.splitlines()]
    settled = [run for run in runs if run[2] in SETTLED]
    world.blame_if(len(keys) != len(set(keys)), "a run has two lines in results.jsonl")
    world.blame_if(set(keys) != {run[0] for run in settled}, "results.jsonl and the ledger don't have the same runs")
    for key, _, state, outcome, offset, length, known in settled:
        line = data[offset : offset + length]
        if digest(line) != known:
            world.blame(f"the line of run {key[:6]} is not the one that the ledger knows")
            continue
        told = json.loads(line)
        world.blame_if((told["state"], told["outcome"]) != (state, outcome), f"line and ledger differ on {key[:6]}")
    health = json.loads(folder.health.read_bytes())
    counts = Counter((run[1], run[2]) for run in settled)
    for name, planned in plan.items():
        job = health["jobs"][name]
        pending = planned - sum(counts[name, state] for state in SETTLED)
        world.blame_if(job["runs"] != planned, f"health.json has {job['runs']} runs of {planned}")
        world.blame_if(
            [job[state] for state in SETTLED] != [counts[name, state] for state in SETTLED]
            or job["pending"] != pending
            or pending < 0,
            f"the states in health.json don't add up: {job}",
        )
        of_runs = sum(job["outcomes"].values())
        world.blame_if(of_runs != planned - job["skipped"] - pending + _stopped(settled, name), "outcomes don't add up")
        outcomes = Counter(run[3] for run in settled if run[1] == name and run[3] is not None)
        world.blame_if(job["outcomes"] != outcomes, f"the outcomes in health.json are not the ledger's: {job}")
        world.blame_if(job["retried"] != again[name], f"health.json has {job['retried']} retried of {again[name]}")
    total = health["batch"]
    code = process.batch.exit_code
    wanted = sum(flows.is_wanted(line) for line in data.splitlines(keepends=True))
    all_succeeded = total["succeeded"] + wanted == total["runs"]
    is_well = all_succeeded
    if world.spec.get("thresholds"):
        is_well = all_hold(world.spec["thresholds"], settled, retried, total["runs"]) and not total["pending"]
    # A batch that was stopped is no pass, however well it did until then.
    as_it_should = code == 0 if is_well and all_succeeded else code != 0 if not is_well else True
    world.blame_if(not as_it_should, f"exit code {code} with {total['succeeded']} of {total['runs']} succeeded")
    world.blame_if(code == 130 and process.interrupted_s is None, "interrupted by nobody")
    pending = total["pending"]
    # Who cancels is told of jobs that did not confirm it in time.
    may_pend = code in (4, 130) or process.wished_s is not None or process.plan.start == "cancel"
    world.blame_if(pending > 0 and not may_pend, f"{pending} runs are pending, and the exit code is {code}")


def all_hold(thresholds: dict[str, str], settled: list[Any], retried: int, planned: int) -> bool:
    """Whether the *thresholds* of a job file hold, read and counted anew."""
    values = Counter(run[2] for run in settled)
    values["answer_lost"] = sum(run[3] == "answer_lost" for run in settled)
    values["retried"] = retried
    for name, text in thresholds.items():
        sign, bound = text.split()
        is_share = "%" in bound or "." in bound
        most = float(bound.rstrip("%")) / (100 if "%" in bound else 1)
        value = values[name] / planned if is_share and planned else values[name]
        if not {"<": value < most, "<=": value <= most, ">=": value >= most, "==": value == most}[sign]:
            return False
    return True


def _stopped(settled: list[Any], name: str) -> int:
    """Skipped runs that have an outcome nevertheless: none, by the contract."""
    return sum(1 for run in settled if run[1] == name and run[2] == "skipped" and run[3] is not None)


def _ends_in_time(world: World, process: Process) -> None:
    acts = {act.kind for act in process.plan.acts}
    if process.is_dead or acts & {"sleep", "stop"}:
        return
    slack_s = 10.0 + 5 * world.scenario.commit_s + 10 * world.scenario.thread_s
    limits = [job["timeouts"].get("job") for job in world.spec["jobs"].values()]
    if all(limits) and world.scenario.batch is None:  # what runs of a RunPod batch can't be cancelled
        most_s = process.began_s + max(map(duration_s, limits)) + 105.0 + slack_s + len(world.service.jobs)
        world.blame_if(process.ended_s > most_s, f"timeouts.job passed {process.ended_s - most_s:.0f} s too long ago")
    if process.cancelled_s is not None:
        # Each /cancel has its turn, two a second at worst, and 15 s from then on. A submit that is out is waited for,
        # and a 403 to it is held against /health: 30 s each at most.
        most_s = process.cancelled_s + 15.0 + slack_s + len(world.service.jobs) + 60.0
        world.blame_if(process.ended_s > most_s, "a second Ctrl-C was not heeded in time")
    elif process.interrupted_s is not None and process.wished_s is None:
        most_s = process.interrupted_s + 25.0 + slack_s
        world.blame_if(process.ended_s > most_s, f"a signal was heeded {process.ended_s - most_s:.0f} s late")
