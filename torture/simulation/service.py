"""RunPod as it is in a simulated life: it knows every job that was accepted, what became of it, and until when."""

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torture.simulation.scenario import Scenario

NO_WORKERS = "no workers"
"""A time in which an endpoint is scaled to zero: what is queued there stays queued."""

ODD_WORDS = ("RUNNING", "STARTING_UP", "WARMING_2")
"""Statuses that RunPod's documentation does not have."""

KEPT_S = 1800.0
SYNC_KEPT_S = 60.0
TTL_S = 86_400.0
EXECUTION_TIMEOUT_S = 600.0

GRACE_S = 8.0
"""A job may be invisible for so long after it was accepted; ours to wait is 10 s."""


@dataclass(eq=False)
class Submit:
    """One submit that left us: of which run and attempt it was, and what became of it."""

    number: int
    process: int
    job: str
    key: str
    attempt: int
    endpoint: str
    sent_s: float
    job_id: str | None = None
    answered: bool = False
    refused: bool = False
    fault: str | None = None

    def __str__(self) -> str:
        return f"{self.job} {self.key[:6]}.{self.attempt}"


@dataclass(eq=False)
class Job:
    """A job that RunPod has, with all that will become of it; times are the world's, in seconds."""

    job_id: str
    endpoint_id: str
    endpoint: str
    given: Any
    submit: Submit
    sync: bool
    accepted_s: float
    visible_s: float
    kind: str
    steps: list[tuple[float, dict[str, Any]]]
    final_s: float
    final: dict[str, Any]
    expires_s: float
    ttl_s: float
    began_s: float
    limit_s: float
    chunks: list[tuple[float, Any]] = field(default_factory=list)
    gone_s: float = math.inf
    gone_why: str = ""
    reruns: bool = False
    taken: int = 0
    delivered: list[Any] = field(default_factory=list)
    unheard: int = 0
    unreadable: int = 0
    stubborn: bool = False
    was_cancelled: bool = False
    false_404: bool = False
    shown: str = ""
    is_told: bool = False

    def seen(self, now_s: float) -> dict[str, Any] | None:
        """What a look at *now_s* shows; None when there is no such job, not yet or no more."""
        if now_s < self.visible_s or now_s >= self.gone_s or now_s >= self.end_s:
            return None
        if now_s >= self.final_s:
            return {"id": self.job_id, **self.final}
        shown = self.steps[0][1]
        for at_s, step in self.steps:
            if at_s <= now_s:
                shown = step
        return {"id": self.job_id, **shown}

    @property
    def end_s(self) -> float:
        """When nobody knows it any more: its result has expired, or its ttl came first."""
        return self.expires_s if self.final_s < self.ttl_s else self.ttl_s

    @property
    def is_ever_final(self) -> bool:
        """Whether it ends by itself, or was ended, before it is forgotten."""
        return self.final_s < min(self.gone_s, self.ttl_s)

    def next_s(self, now_s: float) -> float:
        """When something about it changes next."""
        times = [self.visible_s, self.gone_s, self.end_s, self.final_s, *(at_s for at_s, _ in self.chunks)]
        return min((at_s for at_s in times if at_s > now_s), default=math.inf)


class Service:
    """
    The endpoints and their jobs.

    *changed* is called with a job whose future has changed, for whoever holds a request open for it.
    """

    def __init__(self, scenario: Scenario, changed: Callable[[Job], None]) -> None:
        self.jobs: dict[str, Job] = {}
        self.expires_with_ttl = random.Random(f"ttl {scenario.seed}").random() < 0.3
        self._scenario = scenario
        self._changed = changed
        self._counts: Counter[str] = Counter()

    def accept(self, submit: Submit, endpoint_id: str, request: dict[str, Any], *, sync: bool, now_s: float) -> Job:
        """Make a job of a request."""
        what = f"{submit.endpoint} {json.dumps(request['input'], sort_keys=True)}"
        self._counts[what] += 1
        rng = random.Random(f"job {self._scenario.seed} {what} {self._counts[what]}")
        job_id = f"{'sync-' if sync else ''}{len(self.jobs) + 1}-{submit.key[:6]}-u1"
        job = self._drawn(rng, job_id, submit, endpoint_id, request, sync, now_s)
        self.jobs[job_id] = job
        submit.job_id = job_id
        return job

    def _drawn(
        self,
        rng: random.Random,
        job_id: str,
        submit: Submit,
        endpoint_id: str,
        request: dict[str, Any],
        sync: bool,
        now_s: float,
    ) -> Job:
        scenario, policy = self._scenario, request.get("policy", {})
        limit_s = policy.get("executionTimeout", EXECUTION_TIMEOUT_S * 1000) / 1000
        queued_s = rng.choice([0.02, rng.expovariate(1 / 1.0), rng.expovariate(1 / 10)])
        runs_s = rng.choice([0.05, rng.expovariate(1 / 0.5), rng.expovariate(1 / 5)])
        if rng.random() < scenario.slow:
            runs_s = rng.uniform(60, scenario.longest_s)
        began_s = self._staffed_s(submit.endpoint, now_s + queued_s)
        queued_s = began_s - now_s
        steps: list[tuple[float, dict[str, Any]]] = [(now_s, {"status": "IN_QUEUE"})]
        word = rng.choice(["IN_PROGRESS"] * 12 + list(ODD_WORDS))
        steps.append((began_s, {"status": word, "delayTime": round(queued_s * 1000)}))
        if rng.random() < 0.2:
            steps.append((began_s + runs_s / 2, {"status": "IN_PROGRESS", "output": {"pct": 50}}))
        reruns = rng.random() < 0.06
        chunks = self._chunks(rng, job_id, began_s, runs_s)
        if reruns:
            again_s = began_s + runs_s * rng.random()
            chunks = [(at_s, chunk) for at_s, chunk in chunks if at_s <= again_s]
            began_s = again_s + rng.choice([0.05, 5.0, 20.0])
            steps = [one for one in steps if one[0] <= again_s]
            steps += [(again_s, {"status": "IN_QUEUE"}), (began_s, {"status": "IN_PROGRESS"})]
            chunks += self._chunks(rng, job_id, began_s, runs_s)
        kind = rng.choices(*zip(*ENDINGS, strict=True))[0]
        kind = scenario.ending or kind
        if kind == "never" and not scenario.is_bounded:
            kind = "crashed"  # else our own day of waiting would be all that happens
        if kind in ("null", "says error"):
            chunks = []  # returned by a handler, and those stream nothing
        if runs_s > limit_s:
            kind, runs_s = rng.choice(["too_slow", "timed_out"]), limit_s
        final_s = math.inf if kind == "never" else began_s + runs_s
        ran_ms = round(runs_s * 1000)
        ttl_s = now_s + policy.get("ttl", TTL_S * 1000) / 1000
        job = Job(
            job_id=job_id,
            endpoint_id=endpoint_id,
            endpoint=submit.endpoint,
            given=request["input"],
            submit=submit,
            sync=sync,
            accepted_s=now_s,
            visible_s=now_s + (rng.uniform(0, GRACE_S) if rng.random() < 0.1 else 0.0),
            kind=kind,
            steps=steps,
            final_s=final_s,
            final=self._final(rng, job_id, submit, request["input"], kind, ran_ms, chunks, reruns=reruns),
            expires_s=final_s,
            ttl_s=ttl_s,
            began_s=began_s,
            limit_s=limit_s,
            chunks=[(min(at_s, final_s), chunk) for at_s, chunk in chunks],
            reruns=reruns,
            stubborn=rng.random() < 0.15,
        )
        if scenario.unseen_s is not None:
            job.visible_s = now_s + scenario.unseen_s
        self._keep(job)
        if kind == "vanishes":
            job.gone_s, job.gone_why = rng.uniform(now_s + 0.01, final_s), "lost by the platform"
        elif rng.random() < 0.004:
            job.gone_s, job.gone_why = final_s + rng.uniform(0.0, 5.0), "its result was lost by the platform"
        return job

    def _staffed_s(self, endpoint: str, at_s: float) -> float:
        """When a worker is there that could begin at *at_s*."""
        for window in self._scenario.windows:
            if window.kind == NO_WORKERS and window.holds(endpoint, at_s):
                at_s = window.until_s
        return at_s

    def _keep(self, job: Job) -> None:
        job.expires_s = job.final_s + (SYNC_KEPT_S if job.sync else KEPT_S)
        if self.expires_with_ttl:
            job.expires_s = min(job.expires_s, max(job.ttl_s, job.final_s + 0.5))

    def _chunks(self, rng: random.Random, job_id: str, began_s: float, runs_s: float) -> list[tuple[float, Any]]:
        if rng.random() >= self._scenario.generators:
            return []
        times = sorted(began_s + runs_s * rng.random() for _ in range(rng.choice([0, 1, 2, 3, 6])))
        return [(at_s, {"i": number, "job": job_id, "text": "é\u2028\n"}) for number, at_s in enumerate(times)]

    def _final(
        self,
        rng: random.Random,
        job_id: str,
        submit: Submit,
        given: Any,
        kind: str,
        ran_ms: int,
        chunks: list[tuple[float, Any]],
        *,
        reruns: bool,
    ) -> dict[str, Any]:
        told: dict[str, Any] = {"executionTime": ran_ms, "delayTime": 20, "workerId": f"w{rng.randint(1, 3)}"}
        if reruns:
            told["retries"] = 1
        match kind:
            case "failed":
                error = json.dumps({"error_type": "<class 'ValueError'>", "error_message": "no horse"})
                return told | {"status": "FAILED", "error": error}
            case "crashed":
                return told | {"status": "FAILED", "error": "job timed out after 1 retries", "executionTime": 0}
            case "too_slow":
                return told | {"status": "FAILED", "error": "job timed out after 1 retries"}
            case "timed_out":
                return told | {"status": "TIMED_OUT"}
            case "cancelled":
                return told | {"status": "CANCELLED"}
            case "error beside":
                return told | {"status": "COMPLETED", "error": "it went wrong", "output": {"good": True}}
            case "no output":
                return told | {"status": "COMPLETED"}
            case "null":
                return told | {"status": "COMPLETED", "output": None}
            case "says error":
                return told | {"status": "COMPLETED", "output": {"error": "no horse", "job": job_id}}
        output: Any = {"good": rng.random() < 0.8, "of": given, "job": job_id, "text": "naïve \u2028 \x7f"}
        if chunks or (self._scenario.generators == 1.0):
            last = [chunk for _, chunk in chunks][-_last_run(chunks) :] if chunks else []
            output = last if self._scenario.aggregates[submit.endpoint] else []
        return told | {"status": "COMPLETED", "output": output}

    def has_aggregate(self, job: Job) -> bool:
        """Whether all that *job* streams is its output at /status as well."""
        output = job.final.get("output")
        return self._scenario.aggregates[job.endpoint] and isinstance(output, list) and bool(output)

    def cancel(self, job: Job, now_s: float) -> str:
        """End *job* if it can still be ended; the status that the answer says."""
        if job.seen(now_s) is None:
            return ""
        job.was_cancelled = True
        if now_s >= job.final_s:
            return str(job.final["status"])
        if not job.stubborn:  # else it completes all the same
            job.final_s = now_s + 0.01
            job.chunks = [one for one in job.chunks if one[0] <= now_s]
            ran_ms = round(max(0.0, now_s - job.began_s) * 1000)
            job.final = {"status": "CANCELLED", "executionTime": ran_ms, "workerId": "w1"}
            self._keep(job)
            self._changed(job)
        return "CANCELLED"

    def purge(self, endpoint: str, now_s: float) -> int:
        """Somebody else drops the queue of *endpoint*; how many jobs went."""
        queued = [
            job
            for job in self.jobs.values()
            if job.endpoint == endpoint
            and now_s < min(job.final_s, job.gone_s, job.ttl_s)
            and (job.seen(max(now_s, job.visible_s)) or {}).get("status") == "IN_QUEUE"
        ]
        for number, job in enumerate(queued):
            if number % 2:
                job.final_s, job.final = now_s, {"status": "CANCELLED"}
                self._keep(job)
            else:
                job.gone_s, job.gone_why = now_s, "purged"
            self._changed(job)
        return len(queued)


ENDINGS = (
    ("completed", 68),
    ("failed", 8),
    ("crashed", 3),
    ("timed_out", 2),
    ("cancelled", 1),
    ("error beside", 2),
    ("no output", 4),
    ("null", 2),
    ("says error", 2),
    ("never", 1),
    ("vanishes", 2),
)
"""How jobs end, by weight."""


def _last_run(chunks: list[tuple[float, Any]]) -> int:
    """How many of the last chunks are of the last run: each run counts from 0."""
    for back in range(1, len(chunks) + 1):
        if chunks[-back][1]["i"] == 0:
            return back
    return len(chunks)


def expected(job: Job) -> str:
    """The outcome that the final state of *job* means, before any ``success_when``: RunPod's own word, read anew."""
    final = job.final
    match final["status"]:
        case "COMPLETED" if final.get("error"):
            return "failed"
        case "COMPLETED":
            return "completed" if "output" in final else "completed_without_output"
        case "CANCELLED":
            return "cancelled"
        case "TIMED_OUT":
            return "timed_out"
    if "job timed out" in str(final.get("error")):
        return "timed_out" if final["executionTime"] >= 990 * job.limit_s else "crashed"
    return "failed"
