"""Attempts as the ledger has them, and whether what it calls each of them is what became of its job: invariant 5."""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from runner.batch import Folder
from runner.units import duration_s
from torture.simulation.process import Process
from torture.simulation.service import Job, expected
from torture.simulation.times import EPOCH
from torture.simulation.world import World

LOOK_S = 300.0
SYNC_LOOK_S = 20.0
"""A job is looked at so often at least, by the contract; one of /runsync more often."""


@dataclass
class Row:
    """An attempt, as the ledger has it."""

    key: str
    attempt: int
    job: str
    intended_at: float
    job_id: str | None
    cancel_at: float | None
    ended_at: float | None
    outcome: str | None


def world_s(world: World, at: float | None) -> float | None:
    """A time of the ledger as the world's; None where the calendar can't be trusted."""
    return None if at is None or world.stepped_s else at - EPOCH


def is_true(world: World, processes: list[Process], row: Row) -> None:
    """What the ledger calls an attempt is what became of its job."""
    job = world.service.jobs.get(row.job_id or "")
    who = f"{row.key[:6]}.{row.attempt}"
    if job is None:
        known = ("answer_lost", "rejected", "too_large", "timed_out", "cancelled")
        world.blame_if(row.outcome not in known, f"{who} never was a job, and is called {row.outcome}")
        return
    spec = world.scenario.spec["jobs"][row.job]
    named, ended_s = row.outcome, world_s(world, row.ended_at)
    real = expected(job) if job.is_ever_final else None
    match named:
        case "completed":
            ok = real == "completed" or (real == "completed_without_output" and _has_chunks(job, spec))
            world.blame_if(not ok, f"{who} is called completed, and {job.job_id} ended as {real}")
        case "check_failed":
            ok = real in ("completed", "completed_without_output") and "success_when" in spec
            world.blame_if(not ok, f"{who} is called check_failed, and {job.job_id} ended as {real}")
        case "incomplete":
            _is_incomplete(world, processes, row, job, who)
        case "lost":
            _is_lost(world, processes, row, job, who, ended_s)
        case "unreadable":
            world.blame_if(job.unreadable < 3, f"{who} is called unreadable after {job.unreadable} unreadable answers")
        case "too_large":
            world.blame_if(
                not any(word in kind for kind in world.counts for word in ("too_large", "bomb")),
                f"{who} is called too_large, and nothing was",
            )
        case "artifact_failed":
            world.blame_if("artifacts" not in spec, f"{who} has no artifacts")
        case "timed_out" | "cancelled" if row.cancel_at is not None and real != named:
            # Our own word, after a cancel: then RunPod had no better one to give.
            runs_on = (
                not job.was_cancelled and ended_s is not None and ended_s < min(job.final_s, job.gone_s, job.ttl_s)
            )
            if runs_on and not _disturbed(world, row, (world_s(world, row.cancel_at) or 0.0) - 1.0, ended_s or 0.0):
                world.blame(f"{who} is called {named}, and {job.job_id} runs on uncancelled")
            has_result = real not in (None, "cancelled") and ended_s is not None
            if has_result and job.seen(ended_s or 0.0) is not None and job.final_s < (ended_s or 0.0) - 60:
                world.blame_if(
                    not _disturbed(world, row, job.final_s, ended_s or 0.0),
                    f"{who} is called {named}, and {job.job_id} had ended as {real}",
                )
        case _:
            world.blame_if(named != real, f"{who} is called {named}, and {job.job_id} ended as {real}")


def _has_chunks(job: Job, spec: dict[str, Any]) -> bool:
    return spec["mode"] == "stream" and bool(job.chunks)


def _is_incomplete(world: World, processes: list[Process], row: Row, job: Job, who: str) -> None:
    died = len({process.number for process in processes if process.number >= job.submit.process}) > 1
    whole = len(job.delivered) == len(job.chunks) and not job.reruns and not died and not job.unheard
    world.blame_if(whole, f"{who} is called incomplete, and all its chunks came")


def _is_lost(world: World, processes: list[Process], row: Row, job: Job, who: str, ended_s: float | None) -> None:
    """A job is lost only when RunPod knows it no more, and then nobody who lived had the time to look."""
    if ended_s is None:  # the calendar was stepped
        ended_s = world.told_s.get((row.key, row.attempt), math.inf)
    gone_s = min(job.gone_s, job.end_s)
    if ended_s < gone_s:
        world.blame(f"{who} is called lost, and RunPod knows {job.job_id} until {gone_s:.3f}")
        return
    if not job.is_ever_final or job.gone_s < job.end_s:
        return  # nobody could have had its result
    look_s = SYNC_LOOK_S if job.sync else LOOK_S
    calm_s = _calm_s(world, processes, job)
    # Twice the longest pause, and what a look itself may take.
    if calm_s > 2 * look_s + 60 * (not job.sync):
        world.blame_loss(f"{who} expired, and somebody could have looked at {job.job_id} for {calm_s:.0f} s")


def _calm_s(world: World, processes: list[Process], job: Job) -> float:
    """The longest time between end and expiry of *job* in which a process followed it and nothing was in the way."""
    begins, ends = job.final_s, min(job.end_s, job.gone_s)
    best = 0.0
    for process in processes:
        if process.number < job.submit.process or process.is_refused:
            continue
        start, end = max(begins, process.began_s), min(ends, process.ended_s, process.interrupted_s or math.inf)
        best = max(best, calm_s(world, job, start, end))
    return best


def calm_s(world: World, job: Job, start: float, end: float) -> float:
    """The longest time between *start* and *end* in which nothing was in the way of a look at *job*."""
    if start >= end:
        return 0.0
    timeouts = world.scenario.spec["jobs"][job.submit.job]["timeouts"]
    waits_s = duration_s(timeouts["request"]) + (SYNC_LOOK_S if job.sync else 90.0) + 30.0
    # A request that meets no answer is waited for, and the next look comes after a pause.
    troubles = [(at_s, at_s + waits_s) for endpoint, at_s in world.troubled if endpoint == job.endpoint]
    lame = sorted(
        (from_s, until_s) for from_s, until_s in (*world.jumps, *troubles) if from_s < end and until_s > start
    )
    best, free_from_s = 0.0, start
    for from_s, until_s in lame:
        best = max(best, from_s - free_from_s)
        free_from_s = max(free_from_s, until_s)
    return max(best, end - free_from_s)


def _disturbed(world: World, row: Row, from_s: float, until_s: float) -> bool:
    job = world.service.jobs[row.job_id or ""]
    return any(endpoint == job.endpoint and from_s <= at_s <= until_s for endpoint, at_s in world.troubled)


def line_is_true(world: World, folder: Folder, told: dict[str, Any], row: Row | None) -> None:
    """A saved result is RunPod's, complete."""
    who = told["key"][:6]
    if told["attempts"] and row is None:
        world.blame(f"the line of {who} speaks of attempt {told['attempts']}, which the ledger does not have")
    # A run whose time passes while it waits to be tried again ends by our word, not by that of its last job.
    if row is not None and told["outcome"] == row.outcome != "timed_out":
        world.blame_if(told["job_id"] != row.job_id, f"the line of {who} names {told['job_id']}, and not {row.job_id}")
    if told["outcome"] not in ("completed", "check_failed"):
        return
    job = world.service.jobs.get(told["job_id"]) or world.batches.requests.get(told["job_id"])
    if job is None:
        world.blame(f"the line of {who} speaks of a job that never was")
        return
    spec = world.scenario.spec["jobs"][told["job"]]
    wanted = job.final.get("output", None)
    if spec["mode"] == "stream" and not (isinstance(wanted, list) and wanted) and job.chunks:
        wanted = [chunk for _, chunk in job.chunks]
    output = told.get("output")
    if told["artifacts"]:
        (path,) = told["artifacts"]
        data = (folder.path / path).read_bytes()
        output = json.loads(data)
        # What an artifact took out stands in the line as a reference, if there was enough of it.
        reference = {"file": path, "sha256": hashlib.sha256(data).hexdigest()}
        world.blame_if(told["output"] not in (reference, output), f"the line of {who} does not name its artifact")
    if told["outcome"] == "check_failed" and "output" not in told:
        return  # of an attempt that another process made: the ledger keeps no outputs
    if output != wanted:
        world.blame_loss(f"the output of {who} is not that of {job.job_id}: {output} instead of {wanted}")
