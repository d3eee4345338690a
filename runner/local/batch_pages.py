"""
Show batches to clients: their counts, and their requests by pages, in the order of the day. Pure.

Source: RunPod docs, "Batch API" (beta; read August 2026). Not documented, so guessed: requests that wait or run are on
the pages too, with RunPod's statuses of jobs; in which order requests come, so there are several.
"""

import random
from collections.abc import Iterator

from runner.clock import iso
from runner.local import wire
from runner.local.batches import Batch, Request
from runner.local.faults import Order
from runner.local.job import Status
from runner.values import JsonObject


def summary(batch: Batch, endpoint: str, *, extra: bool) -> JsonObject:
    """How the batch stands. *extra*: with fields that nobody knows, as a beta may have them tomorrow."""
    shown: JsonObject = {
        "id": batch.id,
        "endpointId": endpoint,
        "status": batch.state,
        "requestTotal": len(batch.requests),
        "requestInProgress": batch.in_progress,
        "requestCompleted": batch.completed,
        "requestFailed": batch.failed,
        "createdAt": int(batch.created_at * 1000),
        **batch.names,
    }
    return shown | _more(extra)


def page(batch: Batch, order: Order, seed: str, *, offset: int, limit: int, shift: int, extra: bool) -> JsonObject:
    """*limit* requests from *offset* on; *shift* many later than the page says. *seed* is that of the shuffle."""
    ordered = _ordered(batch, order, seed)
    some = ordered[offset + shift : offset + shift + limit]
    shown: JsonObject = {
        "requests": [_request(one) | _more(extra) for one in some],
        "total": len(ordered),
        "offset": offset,
        "limit": limit,
        "hasMore": offset + limit < len(ordered),
    }
    return shown | _more(extra)


def _more(extra: bool) -> JsonObject:
    return {"betaPriority": {"tier": None}, "betaTags": []} if extra else {}


def _ordered(batch: Batch, order: Order, seed: str) -> list[Request]:
    requests = list(batch.requests.values())
    if order is Order.INPUTS:
        return requests
    if order is Order.SHUFFLED:
        random.Random(f"{seed} {batch.number}").shuffle(requests)
        return requests
    unfinished = [one for one in requests if not one.seen.is_final]
    if order is Order.NEWEST_FIRST:
        return [*reversed(batch.ended), *unfinished]
    if order is Order.UNFINISHED_FIRST:
        return [*unfinished, *batch.ended]
    return [*sorted(batch.ended, key=lambda one: one.seen is Status.COMPLETED), *unfinished]


def _request(request: Request) -> JsonObject:
    job = request.job
    shown: JsonObject = {"id": job.id, "status": job.status, **dict(_times(request))}
    if job.output is not None:
        shown["output"] = wire.fragment(job.output)
    if job.error is not None:
        shown["error"] = wire.fragment(job.error)
    return shown


def _times(request: Request) -> Iterator[tuple[str, str]]:
    if request.started_at is not None:
        yield "startedAt", iso(request.started_at)
    if request.ended_at is not None:
        yield "completedAt", iso(request.ended_at)
