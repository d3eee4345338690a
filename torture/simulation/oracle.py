"""
Hold what the engine left behind against what RunPod knows, when nobody goes on with a batch any more.

The ten invariants, and where each is checked: 1 in `folder.py` (a line that was said to be saved is there) and
`attempts.py` (it is RunPod's own), 2 below and in `process.py` (no submit without its intent), 3 in `folder.py`, 4
below (rates) and in `process.py` (concurrency, money), 5 below (looks) and in `attempts.py` (what is called lost), 6
in `life.py`, 7 in `process.py` (a second start), 8 in `folder.py` and below (each run's time), 9 in `folder.py`, 10 in
the tests.
"""

import json
import math
import sqlite3
from collections import Counter
from contextlib import closing

from runner.batch import Folder
from runner.spec import RateLimits
from runner.units import duration_s
from runner.units import rate as parse_rate
from torture.simulation import draft_oracle, drafting, flows
from torture.simulation.attempts import LOOK_S, SYNC_LOOK_S, Row, calm_s, is_true, line_is_true
from torture.simulation.folder import SETTLED
from torture.simulation.process import Process
from torture.simulation.service import Job
from torture.simulation.times import EPOCH
from torture.simulation.world import SUBMITS, World

DEFAULT_RATES = RateLimits()


def after_life(world: World, processes: list[Process], folder: Folder, tally: Counter[str]) -> None:
    """What must hold when nobody goes on with the batch any more."""
    with closing(sqlite3.connect(folder.ledger)) as db:
        rows = [
            Row(*row)
            for row in db.execute(
                "SELECT key, attempt, job, intended_at, job_id, cancel_at, ended_at, outcome"
                " FROM attempts ORDER BY key, attempt"
            )
        ]
        runs = dict(db.execute("SELECT key, state FROM runs"))
        drafts, drafted = drafting.read(db)
        reopened = dict(db.execute("SELECT key, reopened_after FROM runs"))
    all_rows, all_attempts = rows, {(row.key, row.attempt): row for row in rows}
    # What was carried by the Batch API is held against that; the rest is as if there were no other.
    rows = [row for row in rows if (row.key, row.attempt) not in drafted]
    attempts = {(row.key, row.attempt): row for row in rows}
    last = processes[-1]
    lines = (
        {told["key"]: told for told in map(json.loads, folder.results.read_bytes().splitlines())}
        if folder.results.exists()
        else {}
    )
    _nothing_forgotten(world, processes, attempts)
    _sent_again_rightly(world, processes, all_rows, reopened)
    _ends_runs_in_time(world, processes, rows, {key for key, _ in drafted})
    for row in rows:
        if row.outcome is not None:
            is_true(world, processes, row)
    for key, told in lines.items():
        line_is_true(world, folder, told, all_attempts.get((key, told["attempts"])))
    draft_oracle.after_life(world, processes, drafts, drafted, all_attempts)
    _keeps_rates(world)
    _is_looked_at(world, processes, attempts)
    pending = [key for key, state in runs.items() if state not in SETTLED]
    refused = last.batch is not None and last.batch.exit_code == 4
    if pending and last.is_calm and not refused and last.plan.start != "cancel":
        world.blame_loss(f"{len(pending)} runs are left on a calm day")
    if last.is_calm and refused:
        forever = [window for window in world.scenario.windows if window.until_s == math.inf]
        world.blame_if(not forever, "an endpoint was refused on a calm day")
    has_ended = last.is_calm and not pending and not refused and last.plan.start != "cancel"
    if has_ended and not any(process.plan.start == "cancel" or process.wished_s for process in processes):
        was_retried = any(process.plan.start == "retry" for process in processes)
        for text in flows.wrong_end(world.scenario.spec["jobs"], list(lines.values()), was_retried=was_retried):
            world.blame(text)
    _count(world, all_rows, runs, tally)
    tally["jobs accepted"] += sum(not one.is_dropped for one in world.batches.requests.values())


def _nothing_forgotten(world: World, processes: list[Process], attempts: dict[tuple[str, int], Row]) -> None:
    """Every job that RunPod accepted stands in the ledger, as what it is; none twice."""
    owners: dict[tuple[str, int], Job] = {}
    for job in world.service.jobs.values():
        submit = job.submit
        which = (submit.key, submit.attempt)
        if which in owners:
            world.blame_payment(f"paid twice unawares: {job.job_id} and {owners[which].job_id} are both {submit}")
        owners[which] = job
        row = attempts.get(which)
        if row is None:
            world.blame_loss(f"{job.job_id} was accepted, and the ledger has no attempt {submit}")
        elif row.job_id is None:
            if row.outcome not in ("answer_lost", "too_large") and row.ended_at is not None:
                world.blame(f"{job.job_id} was accepted, and the ledger says {row.outcome} of {submit}")
            elif row.outcome == "answer_lost" and submit.answered and _ended_well(processes, submit.process):
                world.blame(f"the answer with {job.job_id} came, and {submit} is called answer_lost")
        elif row.job_id != job.job_id:
            world.blame(f"{submit} is {job.job_id}, and the ledger has {row.job_id}")
    left = {(submit.key, submit.attempt) for submit in world.submits}
    for which, row in attempts.items():
        ended_well = not any(one.is_dead or one.disk_failed for one in processes)
        if row.outcome == "answer_lost" and which not in left and ended_well:
            world.blame(f"{row.key[:6]}.{row.attempt} is called answer_lost, and it never left")
        if row.job_id is not None and row.job_id not in world.service.jobs:
            world.blame(f"the ledger knows a job {row.job_id} that never was")


def _ended_well(processes: list[Process], number: int) -> bool:
    process = next(one for one in processes if one.number == number)
    return not process.is_dead and not process.disk_failed


def _sent_again_rightly(world: World, processes: list[Process], rows: list[Row], reopened: dict[str, int]) -> None:
    """A run is submitted again only after what may be tried again, and as often as the file says."""
    # The ledger knows where a run was reopened last only.
    if sum(process.plan.start == "retry" for process in processes) > 1:
        return
    failures: Counter[str] = Counter()
    for row, following in zip(rows, [*rows[1:], None], strict=False):
        failures[row.key] += row.outcome not in (None, "answer_lost")
        if row.attempt == reopened.get(row.key, row.attempt):  # a run that was forgotten may have been anything
            failures[row.key] = 0
            continue
        if following is None or following.key != row.key:
            continue
        job = world.scenario.spec["jobs"][row.job]
        if row.outcome == "answer_lost":
            world.blame_if(job["on_answer_lost"] != "resubmit", f"{row.key[:6]} was sent again after answer_lost")
            continue
        retry = job.get("retry", {"attempts": 1, "outcomes": ["timed_out", "crashed", "lost"]})
        allowed = row.outcome in retry["outcomes"] and failures[row.key] < retry["attempts"]
        world.blame_if(
            not allowed, f"{row.key[:6]} was sent again after {row.attempt} attempts, the last {row.outcome}"
        )


def _ends_runs_in_time(world: World, processes: list[Process], rows: list[Row], drafted: set[str]) -> None:
    """``timeouts.run`` holds, for all attempts together; of runs that were *drafted* it bounds their RunPod batches."""
    if world.stepped_s or world.jumps or any(process.plan.start == "retry" for process in processes):
        return
    # What an endpoint refused to tell is left to a resume, however long the process goes on for others.
    if any(process.batch is not None and process.batch.exit_code == 4 for process in processes):
        return
    first = {row.key: row.intended_at for row in reversed(rows)}
    for row in rows:
        job = world.scenario.spec["jobs"][row.job]
        if row.ended_at is None or "run" not in job["timeouts"] or row.key in drafted:
            continue
        within_s = duration_s(job["timeouts"]["run"])
        # A submit that is out is waited for; each /cancel has its turn, and 15 s from then on.
        slack_s = duration_s(job["timeouts"]["request"]) + 45.0 + len(world.service.jobs) + 6 * world.scenario.commit_s
        # Who goes on with a job that has no time left looks at it first, for 10 s, and may cancel it then.
        slack_s += 27.0 * (len(processes) - 1)
        slack_s += 60.0 if any("429" in kind for kind in world.counts) else 0.0  # it holds every call back
        took_s = row.ended_at - first[row.key] - sum(process.plan.down_s for process in processes[:-1])
        world.blame_if(
            took_s > within_s + slack_s, f"{row.key[:6]} took {took_s:.0f} s, and {within_s:.0f} s were given"
        )


def _keeps_rates(world: World) -> None:
    """No window of a rate has more calls than it may; submits also across processes."""
    for endpoint_id, name in world.endpoints.items():
        limits = world.scenario.spec["endpoints"].get(name, {}).get("rate_limits", {})
        for bucket in RateLimits.model_fields:
            text = limits.get(bucket, "its default")
            rate = parse_rate(text) if bucket in limits else getattr(DEFAULT_RATES, bucket)
            sent = [one for one in world.sent if one[:2] == (endpoint_id, bucket)]
            for number in range(len(sent) - rate.count):
                first, beyond = sent[number], sent[number + rate.count]
                # Turns are exact; what is sent waits for its intent, and a slow disk pushes one closer to the next.
                jitter_s = 3.0 * world.scenario.commit_s if bucket in (*SUBMITS, "cancel") else 0.0
                if any(first[2] - jitter_s <= until_s <= beyond[2] for _, until_s in world.jumps):
                    continue  # what had its turn when we were stopped leaves when we go on
                if beyond[2] - first[2] >= rate.period_s - jitter_s - 1e-6:
                    continue
                if first[3] != beyond[3] and (bucket not in SUBMITS or world.stepped_s):
                    continue
                # A submit that was refused is taken back, and no later process knows of it.
                if first[3] != beyond[3] and any(one[4] is not None and one[4].refused for one in sent[number:]):
                    continue
                across = "" if first[3] == beyond[3] else " across a resume"
                world.blame(f"more than {text} calls of {bucket}{across}, at {beyond[2]:.3f}")
                break


def _is_looked_at(world: World, processes: list[Process], attempts: dict[tuple[str, int], Row]) -> None:
    """Every job is asked about often enough, by each process that follows it, where nothing is in its way."""
    if world.stepped_s:
        return
    for job in world.service.jobs.values():
        row = attempts.get((job.submit.key, job.submit.attempt))
        if row is None or row.job_id is None:
            continue
        spec = world.scenario.spec["jobs"][row.job]
        longest_s = min(duration_s(spec.get("poll", {}).get("max", "5m")), SYNC_LOOK_S if job.sync else LOOK_S)
        least_s = duration_s(spec.get("poll", {}).get("min", "1s"))
        slack_s = 15.0 + least_s + 6 * world.scenario.commit_s + 2 * world.scenario.thread_s
        ended_s = min(at - EPOCH for at in (row.ended_at, row.cancel_at, math.inf) if at is not None)
        for process in processes:
            if process.number < job.submit.process or process.plan.start == "cancel" or process.is_refused:
                continue
            looks = [one for one in world.looks.get(job.job_id, ()) if one.process == process.number]
            begins_s = max(process.began_s, job.accepted_s)
            ends_s = min(ended_s, process.ended_s, process.interrupted_s or math.inf, process.wished_s or math.inf)
            edges = [begins_s, *(at_s for one in looks for at_s in (one.from_s, one.until_s)), ends_s]
            for from_s, until_s in zip(edges[::2], edges[1::2], strict=True):
                gap_s = calm_s(world, job, from_s, min(until_s, ends_s))
                if gap_s > longest_s + slack_s:
                    world.blame(f"nobody asked about {job.job_id} for {gap_s:.0f} s, until {until_s:.3f}")


def _count(world: World, rows: list[Row], runs: dict[str, str], tally: Counter[str]) -> None:
    tally["runs"] += len(runs)
    tally["settled"] += sum(state in SETTLED for state in runs.values())
    tally["attempts"] += len(rows)
    tally["jobs accepted"] += len(world.service.jobs)
    for row, following in zip(rows, [*rows[1:], None], strict=False):
        again = following is not None and following.key == row.key
        tally["answers lost"] += row.outcome == "answer_lost"
        tally["answers lost, sent again knowingly"] += row.outcome == "answer_lost" and again
        tally["tried again"] += again and row.outcome != "answer_lost"
        job = world.service.jobs.get(row.job_id or "")
        tally["expired while nobody could look"] += row.outcome == "lost" and job is not None and job.is_ever_final
