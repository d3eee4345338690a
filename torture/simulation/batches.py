"""
RunPod's Batch API in a simulated life: drafts, what becomes of them once they are finalized, and pages that shift.

Written apart from the local endpoint's, so that one misreading is not made twice. Whatever becomes of a request is
drawn when its batch is finalized. Empty drafts do not count among active ones: of some nobody ever heard the id.
"""

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from torture.simulation.days import BatchDay
from torture.simulation.service import EXECUTION_TIMEOUT_S
from torture.simulation.times import EPOCH

DRAFT, FINALIZED, FAILED, CANCELLED = "DRAFT", "FINALIZED", "FAILED", "CANCELLED"

MOST_ACTIVE = 10

KINDS = (("completed", 70), ("failed", 12), ("other failure", 5), ("crashed", 4), ("timed_out", 3), ("error beside", 3))
"""How requests end, by weight."""

SILENT = (("no output", 3), ("null", 2))
"""The same, where nobody needs an echo."""


@dataclass(eq=False)
class Request:
    """A request of a batch; its times are the world's, and of a draft they are for ever."""

    job_id: str
    batch: "Batch"
    given: Any
    limit_s: float
    began_s: float = math.inf
    final_s: float = math.inf
    final: dict[str, Any] = field(default_factory=dict)
    chunks: tuple[()] = ()

    @property
    def is_dropped(self) -> bool:
        """Whether it was dropped before it ran: it cost nothing."""
        return self.began_s == math.inf

    def shown(self, now_s: float) -> dict[str, Any]:
        """What a page shows of it."""
        if now_s >= self.final_s:
            times = {} if self.is_dropped else {"startedAt": _iso(self.began_s), "completedAt": _iso(self.final_s)}
            return {"id": self.job_id, **self.final, **times}
        if now_s >= self.began_s:
            return {"id": self.job_id, "status": "IN_PROGRESS", "startedAt": _iso(self.began_s)}
        return {"id": self.job_id, "status": "IN_QUEUE"}


@dataclass(eq=False)
class Batch:
    """A batch. *ending* is what it is once what runs has ended; None for one that stays FINALIZED."""

    batch_id: str
    endpoint_id: str
    number: int
    kept_s: float
    requests: list[Request] = field(default_factory=list)
    finalized_s: float | None = None
    ended_s: float | None = None
    ending: str | None = None
    names: dict[str, Any] = field(default_factory=dict)

    def settle(self, now_s: float, fate: tuple[float, str] | None) -> None:
        """End it by its *fate*, if that has come."""
        if fate is not None and now_s >= fate[0]:
            self.end(fate[1], fate[0])

    def end(self, ending: str, now_s: float) -> None:
        """Drop what is queued, unless it is over."""
        if self.ending is not None or (self.finalized_s is not None and now_s >= self.over_s):
            return
        self.ending, self.ended_s = ending, now_s
        for one in self.requests:
            if one.began_s > now_s:
                one.began_s, one.final_s, one.final = math.inf, now_s, {"status": "CANCELLED"}

    @property
    def over_s(self) -> float:
        """When nothing of it goes on."""
        last_s = max((one.final_s for one in self.requests), default=self.finalized_s or 0.0)
        return max(last_s, self.ended_s or 0.0)

    @property
    def gone_s(self) -> float:
        """When nobody knows it any more."""
        is_ever_over = self.finalized_s is not None or self.ending is not None
        return self.over_s + self.kept_s if is_ever_over else math.inf

    def state(self, now_s: float) -> str:
        """RunPod's word for it."""
        if self.finalized_s is None:
            return self.ending or DRAFT
        return self.ending if self.ending is not None and now_s >= self.over_s else FINALIZED

    def is_active(self, now_s: float) -> bool:
        """Whether it counts among those of which there may be ten."""
        if self.finalized_s is None:
            return self.ending is None and bool(self.requests)
        return now_s < self.over_s

    def summary(self, now_s: float) -> dict[str, Any]:
        """How it stands."""
        ended = [one.final["status"] for one in self.requests if now_s >= one.final_s]
        return {
            "id": self.batch_id,
            "status": self.state(now_s),
            "requestTotal": len(self.requests),
            "requestInProgress": sum(one.began_s <= now_s < one.final_s for one in self.requests),
            "requestCompleted": ended.count("COMPLETED"),
            "requestFailed": sum(status in ("FAILED", "TIMED_OUT") for status in ended),
            **self.names,
        }


class Batches:
    """The batches of all endpoints, and what somebody else will do to them."""

    def __init__(self, seed: int, day: BatchDay) -> None:
        self.batches: dict[str, Batch] = {}
        self.requests: dict[str, Request] = {}
        self.counts: list[str] = []
        self._seed = seed
        self._day = day
        self._fates: dict[str, tuple[float, str]] = {}

    def answer(
        self,
        operation: str,
        batch_id: str | None,
        body: bytes,
        page: tuple[int, int],
        *,
        endpoint_id: str,
        now_s: float,
        rng: random.Random,
        is_calm: bool,
    ) -> tuple[int, Any]:
        """The status and the body of an answer. *page* is the offset and the limit of one that is asked for."""
        if operation == "create":
            return self._create(endpoint_id, now_s, rng, is_calm=is_calm)
        batch = self.batches.get(batch_id or "")
        if batch is not None:
            batch.settle(now_s, self._fates.get(batch.batch_id))
        if batch is None or batch.endpoint_id != endpoint_id or now_s >= batch.gone_s:
            if batch is not None:
                self.counts.append("404 to a RunPod batch that is no longer kept")
            return 404, {"detail": "batch not found"}
        match operation:
            case "append":
                return self._append(batch, json.loads(body), now_s, rng, is_calm=is_calm)
            case "finalize":
                if batch.state(now_s) != DRAFT:
                    return 409, {"error": f"the batch is {batch.state(now_s)}"}
                self._finalize(batch, now_s)
            case "cancel":
                batch.end(CANCELLED, now_s)
            case "name":
                batch.names = json.loads(body)
            case "page":
                return 200, self._page(batch, *page, now_s, rng, is_calm=is_calm)
        return 200, batch.summary(now_s)

    def _create(self, endpoint_id: str, now_s: float, rng: random.Random, *, is_calm: bool) -> tuple[int, Any]:
        there = [one for one in self.batches.values() if one.endpoint_id == endpoint_id and one.is_active(now_s)]
        if len(there) >= MOST_ACTIVE:
            return 429, {"error": f"at most {MOST_ACTIVE} batches can be active"}
        number = len(self.batches) + 1
        batch = Batch(f"batch-{number}", endpoint_id, number, self._day.kept_s)
        self.batches[batch.batch_id] = batch
        if not is_calm and rng.random() < self._day.fates / 5:
            self._fates[batch.batch_id] = (now_s + rng.uniform(0.0, 1.0), CANCELLED)
            self.counts.append("draft cancelled by somebody else")
        return 200, batch.summary(now_s)

    def _append(
        self, batch: Batch, asked: dict[str, Any], now_s: float, rng: random.Random, *, is_calm: bool
    ) -> tuple[int, Any]:
        if batch.state(now_s) != DRAFT:
            return 409, {"error": f"the batch is {batch.state(now_s)}"}
        new = []
        for one in asked["requests"]:
            limit_s = one.get("policy", {}).get("executionTimeout", EXECUTION_TIMEOUT_S * 1000) / 1000
            new.append(Request(f"request-{len(self.requests) + 1}", batch, one["input"], limit_s))
            self.requests[new[-1].job_id] = new[-1]
        batch.requests += new
        told: dict[str, Any] = {"id": batch.batch_id, "status": DRAFT}
        if self._day.ids:
            told["requests"] = [{"id": one.job_id} for one in new]
            if not is_calm and len(new) > 1 and rng.random() < self._day.shifts / 2:
                del told["requests"][-1]
                self.counts.append("an append answered with an id too few")
        return 200, told

    def _finalize(self, batch: Batch, now_s: float) -> None:
        rng = random.Random(f"batch {self._seed} {batch.number}")
        batch.finalized_s = now_s
        free_s = [now_s + rng.choice(self._day.delays)] * rng.choice([1, 2, 5])
        kinds, weights = zip(*KINDS, *(SILENT if self._day.key is None else ()), strict=True)
        for one in batch.requests:
            at = min(range(len(free_s)), key=free_s.__getitem__)
            kind = rng.choices(kinds, weights)[0]
            runs_s = rng.choice([0.05, rng.expovariate(1 / 5), rng.expovariate(1 / 30)])
            if runs_s > one.limit_s:
                kind, runs_s = "timed_out", one.limit_s
            one.began_s = free_s[at]
            one.final_s = free_s[at] = one.began_s + runs_s
            one.final = self._final(one, kind)
        if batch.requests and rng.random() < self._day.fates:
            ending = rng.choice([FAILED, CANCELLED])
            self._fates[batch.batch_id] = (rng.uniform(now_s, batch.over_s), ending)
            self.counts.append(f"RunPod batch {ending} by somebody else")

    def _final(self, one: Request, kind: str) -> dict[str, Any]:
        match kind:
            case "failed":
                return {"status": "FAILED", "error": "no horse"}
            case "other failure":
                return {"status": "FAILED", "error": f"no horse for {one.job_id}"}
            case "crashed":
                return {"status": "FAILED", "error": "job timed out after 1 retries", "executionTime": 0}
            case "timed_out":
                return {"status": "TIMED_OUT"}
            case "no output":
                return {"status": "COMPLETED"}
            case "null":
                return {"status": "COMPLETED", "output": None}
        output = {"good": len(one.job_id) % 2 == 0, "of": one.given, "job": one.job_id, "text": "naïve \u2028"}
        if self._day.key is not None and self._day.key in one.given:
            output[self._day.key] = one.given[self._day.key]
        error = {"error": "it went wrong"} if kind == "error beside" else {}
        return {"status": "COMPLETED", "output": output, **error}

    def _page(
        self, batch: Batch, offset: int, limit: int, now_s: float, rng: random.Random, *, is_calm: bool
    ) -> dict[str, Any]:
        limit = min(limit, self._day.page)
        ordered = list(self._ordered(batch, now_s))
        shift = 0
        if not is_calm and rng.random() < self._day.shifts:
            shift = rng.choice([-2, -1, 1, 2, len(ordered)])
            self.counts.append("batch page shifted")
        start = max(0, offset + shift)
        return {
            "requests": [one.shown(now_s) | {"beta": {}} for one in ordered[start : start + limit]],
            "total": len(ordered),
            "hasMore": offset + limit < len(ordered),
        }

    def _ordered(self, batch: Batch, now_s: float) -> Iterator[Request]:
        over = sorted((one for one in batch.requests if now_s >= one.final_s), key=lambda one: -one.final_s)
        rest = [one for one in batch.requests if now_s < one.final_s]
        match self._day.order:
            case "newest first":
                yield from over
                yield from rest
            case "unfinished first":
                yield from rest
                yield from over
            case _:
                shuffled = list(batch.requests)
                random.Random(f"order {self._seed} {batch.number}").shuffle(shuffled)
                yield from shuffled


def _iso(world_s: float) -> str:
    return datetime.fromtimestamp(EPOCH + world_s, UTC).isoformat()
