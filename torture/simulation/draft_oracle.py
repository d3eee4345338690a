"""
Drafts of RunPod's Batch API in simulated lives, held against what RunPod has when nobody goes on with a batch any more.

Each request that was paid for is one attempt of the ledger, and the other way round; nothing of a draft that was given
up is ever executed; what is called a run's end is what became of its own request.
"""

import math
from collections import Counter
from dataclasses import dataclass

from torture.simulation.attempts import Row
from torture.simulation.batches import DRAFT, FAILED, Batch, Request
from torture.simulation.drafting import OneDraft
from torture.simulation.process import Process
from torture.simulation.service import expected
from torture.simulation.times import EPOCH
from torture.simulation.world import World

QUIET_S = 400.0
"""A process that has had so long a good time has read what there was: counts are looked at once a minute."""


def after_life(
    world: World,
    processes: list[Process],
    drafts: list[OneDraft],
    drafted: dict[tuple[str, int], int],
    attempts: dict[tuple[str, int], Row],
) -> None:
    """What must hold of drafts when nobody goes on with the batch any more."""
    known = {one.batch_id: one for one in drafts if one.batch_id is not None}
    world.blame_if(len(known) != sum(one.batch_id is not None for one in drafts), "two drafts have one id")
    by_draft: dict[int, list[Row]] = {}
    for which, number in drafted.items():
        by_draft.setdefault(number, []).append(attempts[which])
    last = processes[-1]
    has_ended = last.is_calm and last.batch is not None and last.batch.exit_code not in (4, 130)
    for batch in world.batches.batches.values():
        draft = known.get(batch.batch_id)
        if batch.finalized_s is not None:
            if draft is None or draft.dropped_at is not None:
                world.blame_payment(f"{batch.batch_id} was finalized, and the ledger gave it up, or never knew it")
                continue
            _is_whole(world, batch, by_draft.get(draft.number, []))
            _are_true(world, processes, batch, draft, by_draft.get(draft.number, []))
        elif draft is not None and has_ended and batch.state(world.now_s) == DRAFT:
            world.blame(f"{batch.batch_id} is left as a draft at RunPod")
    for one in drafts:
        world.blame_if(one.dropped_at is not None and one.number in by_draft, f"draft {one.number} is dropped, and not")
        world.blame_if(has_ended and one.over_at is None, f"draft {one.number} is not over")


def _is_whole(world: World, batch: Batch, rows: list[Row]) -> None:
    """What was paid for is what the ledger says."""
    paid, told = len(batch.requests), len(rows)
    if paid > told:
        world.blame_payment(f"{paid} requests of {batch.batch_id} were committed, and the ledger has {told} attempts")
    elif paid < told:
        world.blame(f"{told} attempts are in {batch.batch_id}, and it has {paid} requests")
    day = world.scenario.batch
    if day is not None and day.key is not None:
        marks = Counter(one.given.get(day.key) for one in batch.requests)
        if marks != Counter(f"{row.key}.{row.attempt}" for row in rows):
            world.blame_payment(f"{batch.batch_id} has other runs than the ledger says")
    elif Counter(one.job_id for one in batch.requests) != Counter(row.job_id for row in rows):
        world.blame_payment(f"{batch.batch_id} has other requests than the ledger says")


def _are_true(world: World, processes: list[Process], batch: Batch, draft: OneDraft, rows: list[Row]) -> None:
    day = world.scenario.batch
    key = None if day is None else day.key
    by_mark = {one.given.get(key): one for one in batch.requests} if key is not None else {}
    by_id = {one.job_id: one for one in batch.requests}
    for row in rows:
        own = by_mark.get(f"{row.key}.{row.attempt}") if key is not None else by_id.get(row.job_id or "")
        if row.outcome is None or own is None:
            continue
        if row.job_id is not None and row.job_id != own.job_id:
            world.blame_loss(f"{own.job_id} is {row.key[:6]}.{row.attempt}, and the ledger has {row.job_id}")
        _is_true(world, processes, batch, draft, row, own)


def _is_true(world: World, processes: list[Process], batch: Batch, draft: OneDraft, row: Row, own: Request) -> None:
    """What an attempt is called is what became of *own*, its request."""
    named, who = row.outcome, f"{row.key[:6]}.{row.attempt} ({own.job_id})"
    assert named is not None
    if named == "lost":
        _is_lost(world, processes, batch, row, who)
        return
    if named in ("answer_lost", "rejected", "too_large"):
        world.blame(f"{who} is called {named} in mode batch")
        return
    if world.stepped_s == [] and row.ended_at is not None and row.ended_at - EPOCH < own.final_s - 1e-3:
        world.blame(f"{who} is called {named} before it had ended")
        return
    if own.is_dropped:
        allowed = {"crashed" if batch.ending == FAILED else "cancelled"}
        allowed |= {"cancelled", "timed_out"} if draft.cancel_at is not None else set()
        allowed |= {"failed"} if row.job_id is None else set()  # several came to nothing, and nobody can say which how
        world.blame_if(named not in allowed, f"{who} is called {named}, and was dropped: {batch.ending}")
        return
    real = _real(own)
    allowed = {real}
    if real == "completed":
        allowed |= {"check_failed", "artifact_failed"}
    elif real == "completed_without_output":
        allowed |= {"check_failed"}
    elif row.job_id is None:  # several failed, and nobody can say which how
        allowed |= {"failed"}
    world.blame_if(named not in allowed, f"{who} is called {named}, and ended as {real}")


def _real(own: Request) -> str:
    final = dict(own.final)
    final.setdefault("executionTime", round((own.final_s - own.began_s) * 1000))
    return expected(_Ended(final, own.limit_s))  # type: ignore[arg-type]


@dataclass
class _Ended:
    """What `expected` looks at."""

    final: dict[str, object]
    limit_s: float


def _is_lost(world: World, processes: list[Process], batch: Batch, row: Row, who: str) -> None:
    """It may be lost only where nobody who lived had the time to look, or could not read what there was."""
    told_s = row.ended_at - EPOCH if row.ended_at is not None and not world.stepped_s else math.inf
    if told_s < batch.gone_s:
        near = any(at_s > told_s - QUIET_S for _, at_s in world.troubled if at_s <= told_s)
        world.blame_if(not near, f"{who} is called lost, and RunPod keeps {batch.batch_id} until {batch.gone_s:.3f}")
        return
    edges = [(batch.over_s, batch.gone_s)]
    for process in processes:
        from_s, until_s = max(edges[0][0], process.began_s), min(edges[0][1], process.ended_s)
        if process.interrupted_s is not None or process.is_refused or until_s - from_s < 2 * QUIET_S:
            continue
        troubles = [at_s for _, at_s in world.troubled if from_s <= at_s <= until_s]
        jumps = [at_s for jump in world.jumps for at_s in jump if from_s <= at_s <= until_s]
        if not troubles and not jumps and not world.stepped_s:
            world.blame_loss(f"{who} is called lost, and process {process.number} could have read it")
