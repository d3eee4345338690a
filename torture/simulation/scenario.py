"""What one seed decides: the job file, what happens to its processes, and how bad the day is outside."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

from torture.simulation import days, flows
from torture.simulation.days import BatchDay

ENDPOINTS = ("north", "south")
"""The endpoints' names in job files. Each is there twice at RunPod: as it was, and as it was deployed anew."""

KEY = "canary-key-0123456789abcdef"
HOOK_TOKEN = "canary-hook-0123456789abcdef"
S3_SECRET = "canary-s3-0123456789abcdef"
SECRETS = (KEY, HOOK_TOKEN, S3_SECRET)
"""What must stand in no file of a batch."""

RETRYABLE = (
    "completed_without_output",
    "check_failed",
    "failed",
    "timed_out",
    "crashed",
    "lost",
    "incomplete",
    "unreadable",
)

UNSENT = ("refused", "dns", "tls", "no_connection", "429", "429_seconds", "429_date")
"""Faults after which nothing was accepted, surely."""

BROKEN = (
    "reset",
    "disconnected",
    "silence",
    "500",
    "502_html",
    "503",
    "504",
    "524_html",
    "408",
    "302",
    "html_200",
    "not_json",
    "too_large",
    "bomb",
    "cut",
)
"""Faults after which a request may have been acted upon."""

DENIED = ("400", "403", "413", "422")
"""Answers that say no to one request."""

LOOKS = ("404_once", "stale", "no_status", "403")
"""Faults of looks alone."""

STREAMS = ("chunks_twice", "chunks_gone")
"""Faults of streams whose output /status has as well: nobody could notice them otherwise."""

SLOW = ("slow_body",)

LATE = "late"
"""An answer that takes as long on its way as slow ones do: only lives made by hand meet it surely."""

OUTAGES = ("refused", "dns", "silence", "503", "429", "502_html")

EDITS = ("add", "insert", "drop", "change", "turn round", "template")
"""What people do to a job file between two runs of it: to its rows, or to what is made of them."""

TAMPERS = ("results deleted", "results cut", "results changed", "ledger deleted", "ledger overwritten")
"""What people do to a batch's folder between two runs of it."""

POINTS = (
    "intent",
    "send",
    "arrived",
    "answered",
    "line",
    "torn line",
    "chunk",
    "unsynced",
    "synced",
    "committing",
    "committed",
    "folder",
    "rename",
    "renamed",
)
"""The places between two of our steps where a process may be killed."""

RARE = {"rename": 3, "renamed": 3, "torn line": 6, "chunk": 6}
"""Points that few lives come to often: how often they are passed at most before a kill there."""


AGAIN = "again"
"""How a process is started that begins another batch of a job file whose last one is done, or goes on with that."""


@dataclass(frozen=True)
class Kill:
    """The end of a process: at a *turn* of the loop, after *seconds*, or at the *nth* time at a *point*."""

    turn: int | None = None
    seconds: float | None = None
    point: str | None = None
    nth: int = 1
    power: bool = False


@dataclass(frozen=True)
class DiskFault:
    """
    The disk says no the *nth* time it is asked for *operation*; from then on always, if it is *full*.

    *late*: what it was asked for is done all the same.
    """

    operation: str
    nth: int
    errno: str
    full: bool = False
    late: bool = False


@dataclass(frozen=True)
class Act:
    """Something that happens to a process *after_s* seconds: *kind* says what, *value* how much."""

    kind: str
    after_s: float
    value: float = 0.0


@dataclass(frozen=True)
class ProcessPlan:
    """
    One process of a life, and how long nobody runs after it.

    *edit* is what somebody did to the job file before it starts; *accept*, that it shall take in what is other.
    *tamper* is what somebody did to the batch's folder: that is found, said, and mended before it starts.
    *mode* is what the mode of the job that uses the Batch API was changed to before it starts.
    """

    start: str
    acts: tuple[Act, ...] = ()
    kill: Kill | None = None
    disk: DiskFault | None = None
    down_s: float = 0.0
    moved: bool = False
    edit: str | None = None
    accept: bool = False
    tamper: str | None = None
    mode: str | None = None


@dataclass(frozen=True)
class Window:
    """A time in which one endpoint, or all that are called like it, is not well."""

    kind: str
    endpoint: str
    from_s: float
    until_s: float

    def holds(self, endpoint: str, now_s: float) -> bool:
        return self.endpoint == endpoint and self.from_s <= now_s < self.until_s


@dataclass(frozen=True)
class Met:
    """A time in which each request of one *operation* meets a *fault*."""

    operation: str
    fault: str
    from_s: float
    until_s: float

    def holds(self, operation: str, now_s: float) -> bool:
        return self.operation == operation and self.from_s <= now_s < self.until_s


@dataclass(frozen=True)
class Scenario:
    """
    All that a life is made of.

    *faults* is how likely a single request meets one of *kinds*. *muted* names faults that are left out: this is how
    a failing life is made smaller. *again*: the job file is run once more when its batch is done, and reuses what
    succeeded. For lives made by hand are *met*, faults that do not depend on chance, *unseen_s*, how long no job is
    visible at first, and *ending*, how every job ends; None leaves it to chance. *batch* is how the Batch API is, where
    a job uses it.
    """

    seed: int
    spec: dict[str, Any]
    processes: tuple[ProcessPlan, ...]
    windows: tuple[Window, ...] = ()
    purges: tuple[tuple[str, float], ...] = ()
    faults: float = 0.0
    kinds: tuple[str, ...] = ()
    status_sync: dict[str, int | None] = field(default_factory=dict)
    aggregates: dict[str, bool] = field(default_factory=dict)
    generators: float = 0.0
    slow: float = 0.0
    longest_s: float = 600.0
    is_bounded: bool = True
    commit_s: float = 0.01
    thread_s: float = 0.0
    muted: frozenset[str] = frozenset()
    met: tuple[Met, ...] = ()
    unseen_s: float | None = None
    ending: str | None = None
    again: bool = False
    batch: BatchDay | None = None


def draw(seed: int) -> Scenario:
    """The scenario of *seed*."""
    rng = random.Random(f"scenario {seed}")
    names = ENDPOINTS if rng.random() < 0.3 else ENDPOINTS[:1]
    spec = flows.draw(seed, _job_file(rng, names), _job)
    again = _reuses(random.Random(f"again {seed}"), spec)
    batch = days.drawn(seed, spec["jobs"])
    flow = any(flows.source_of(job) for job in spec["jobs"].values())
    bounded = all("run" in job["timeouts"] or "ttl" in job.get("policy", {}) for job in spec["jobs"].values())
    intensity = rng.choice([0.0, 0.0, 0.03, 0.03, 0.1, 0.1, 0.3])
    every_kind = (*UNSENT, *BROKEN, *DENIED, *LOOKS, *STREAMS, *SLOW)
    return Scenario(
        seed=seed,
        spec=spec,
        processes=_with_modes(
            seed, [replace(plan, edit=None) if flow else plan for plan in _processes(rng)], batch is not None
        ),
        windows=_windows(rng, names),
        purges=tuple((rng.choice(names), rng.expovariate(1 / 20)) for _ in range(rng.random() < 0.12)),
        faults=intensity,
        kinds=every_kind if rng.random() < 0.5 else tuple(rng.sample(every_kind, rng.randint(1, 6))),
        status_sync={name: rng.choice([None, None, None, None, 404, 405, 501]) for name in names},
        aggregates={name: rng.random() < 0.5 for name in names},
        generators=rng.choice([0.0, 0.8, 1.0]),
        slow=rng.choice([0.0, 0.0, 0.02, 0.2]),
        longest_s=1500.0 if bounded else 120.0,
        is_bounded=bounded,
        commit_s=rng.choice([0.001, 0.01, 0.01, 0.05, 0.5, 3.0]),
        thread_s=rng.choice([0.0, 0.0, 0.002, 0.3]),
        again=again,
        batch=batch,
    )


def _with_modes(seed: int, plans: list[ProcessPlan], has_batch: bool) -> tuple[ProcessPlan, ...]:
    """*plans* with what the mode of the job in mode batch is changed to between them."""
    modes = days.modes(seed, len(plans)) if has_batch else [None] * len(plans)
    return tuple(replace(plan, mode=mode) for plan, mode in zip(plans, modes, strict=True))


def _reuses(rng: random.Random, spec: dict[str, Any]) -> bool:
    """Whether there is a second batch; then most jobs of *spec* reuse what succeeded."""
    if rng.random() >= 0.2:
        return False
    for job in spec["jobs"].values():
        if rng.random() < 0.8:
            job["reuse"] = "succeeded"
    return True


def _job_file(rng: random.Random, names: tuple[str, ...]) -> dict[str, Any]:
    jobs = {f"job{number}": _job(rng, names) for number in range(rng.choice([1, 1, 1, 2, 3]))}
    long = any(job["timeouts"].get("run", "1h") in ("40m", "1h") for job in jobs.values())
    every = rng.choice(["15s", "1m"] if long else ["5s", "15s"])
    health: dict[str, Any] = {"every": every, "wait": rng.choice(["1s", "20s", "1m"])}
    if rng.random() < 0.1:
        health["require"] = {"workers_ready": 1}
    used = [name for name in names if any(job["endpoint"] == name for job in jobs.values())]
    return {
        "version": 1,
        "name": "sim",
        "endpoints": {name: _endpoint(rng, name) for name in used},
        "jobs": jobs,
        "health": health,
        **({"thresholds": _thresholds(rng)} if rng.random() < 0.2 else {}),
    }


def _thresholds(rng: random.Random) -> dict[str, str]:
    every = {
        "failed": rng.choice(["< 1", "<= 30%", "<= 2"]),
        "succeeded": rng.choice([">= 50%", ">= 1", ">= 0.9"]),
        "answer_lost": rng.choice(["< 1", "<= 20%"]),
        "retried": rng.choice(["<= 1", "< 50%"]),
        "skipped": rng.choice(["== 0", "< 50%"]),
    }
    return {name: every[name] for name in sorted(rng.sample(sorted(every), rng.randint(1, 3)))}


def _endpoint(rng: random.Random, name: str) -> dict[str, Any]:
    endpoint: dict[str, Any] = {"id": "${SIM_" + name.upper() + "}", "cost_per_second": 0.001}
    if rng.random() < 0.4:
        endpoint["concurrency"] = rng.randint(1, 6)
    if rng.random() < 0.5:
        endpoint["rate_limits"] = {
            "run": rng.choice(["2/s", "5/2s", "3/10s", "950/10s"]),
            "runsync": rng.choice(["2/s", "5/2s", "3/10s", "950/10s"]),
            "status": rng.choice(["40/10s", "20/s", "1900/10s"]),
            "cancel": rng.choice(["2/s", "95/10s"]),
            "health": rng.choice(["1/s", "10/10s"]),
        }
    return endpoint


def _job(rng: random.Random, names: tuple[str, ...]) -> dict[str, Any]:
    rows, equal = rng.choice([1, 2, 3, 5, 8, 12]), rng.random() < 0.3
    many = rng.random()
    if many < 0.003:
        rows = 250  # more than may be in flight, or cancelled, at once
    elif many < 0.013:
        rows = 60  # more than are looked at while few workers are there
    job: dict[str, Any] = {
        "endpoint": rng.choice(names),
        "mode": rng.choice(["async", "async", "async", "sync", "stream", "stream"]),
        "rows": {"inline": [{"n": number % 3 if equal else number} for number in range(rows)]},
        "input": {"n": "{{ row.n }}"},
        "timeouts": {"request": rng.choice(["1s", "5s", "30s", "30s"])},
        "on_answer_lost": rng.choice(["fail", "resubmit"]),
    }
    if rng.random() < 0.2:
        job["rows"]["repeat"] = 2
    if rng.random() < 0.6:
        job["timeouts"]["run"] = rng.choice(["20s", "2m", "10m", "40m", "1h"])
    if rng.random() < 0.12:
        job["timeouts"]["job"] = rng.choice(["15s", "1m", "10m", "1h"])
    if rng.random() < 0.5:
        job["retry"] = {
            "attempts": rng.randint(2, 4),
            "outcomes": sorted(rng.sample(RETRYABLE, rng.randint(1, len(RETRYABLE)))),
            "wait_initial": rng.choice(["100ms", "1s", "5s"]),
            "wait_max": rng.choice(["5s", "1m"]),
        }
    if rng.random() < 0.5:
        job["concurrency"] = rng.randint(1, 5)
    if rng.random() < 0.3:
        job["poll"] = {"min": rng.choice(["100ms", "1s"]), "max": rng.choice(["2s", "20s", "5m"])}
    if rng.random() < 0.25:
        job["policy"] = {"execution_timeout": rng.choice(["5s", "1m"])}
        if rng.random() < 0.5:
            job["policy"]["ttl"] = rng.choice(["1m", "10m", "1h"])
    if rng.random() < 0.2:
        job["success_when"] = "output.good"
    if rng.random() < 0.15:
        job["stop_when"] = rng.choice([{"failed": 1}, {"failed": "30%"}, {"cost": "0.01 USD"}])
    if rng.random() < 0.1:
        job["artifacts"] = [{"path": rng.choice(["{{ run.index }}.json", "{{ row.n }}.json"]), "json": "{{ output }}"}]
    if rng.random() < 0.1:
        job["webhook"] = "${SIM_HOOK}"
    if rng.random() < 0.1:
        job["s3_config"] = {
            "access_id": "x",
            "access_secret": "${SIM_S3_SECRET}",
            "bucket_name": "b",
            "endpoint_url": "https://s3.sim",
        }
    return job


def _processes(rng: random.Random) -> tuple[ProcessPlan, ...]:
    plans = [_process(rng, number) for number in range(rng.choice([1, 1, 1, 1, 2, 2, 3]))]
    last = ProcessPlan("resume" if rng.random() < 0.5 else "run", moved=rng.random() < 0.05)
    plans.append(last)
    if rng.random() < 0.1:
        plans.append(ProcessPlan("retry"))
    if len(plans) > 1 and rng.random() < 0.12:
        at = rng.randint(1, len(plans) - 1)
        plans[at] = replace(plans[at], edit=rng.choice(EDITS), accept=rng.random() < 0.4)
    if len(plans) > 1 and rng.random() < 0.06:
        at = rng.randint(1, len(plans) - 1)
        plans[at] = replace(plans[at], tamper=rng.choice(TAMPERS))
    return tuple(plans)


def _process(rng: random.Random, number: int) -> ProcessPlan:
    start = "run" if number == 0 or rng.random() < 0.5 else "resume"
    if number and rng.random() < 0.05:
        start = rng.choice(["cancel", "retry"])
    acts: list[Act] = []
    kill, disk = None, None
    when = rng.choice([rng.uniform(0, 2), rng.expovariate(1 / 10), rng.expovariate(1 / 60)])
    match rng.choice(["kill", "kill", "kill", "kill", "signal", "signal", "wish", "disk", "nothing"]):
        case "kill":
            kill = _kill(rng, when)
        case "signal":
            acts.append(Act("signal", when))
            if rng.random() < 0.1:
                acts.append(Act("second", when + rng.uniform(0.01, 5)))
            if rng.random() < 0.4:
                acts.append(Act("signal", when + rng.uniform(0.1, 20)))
                if rng.random() < 0.2:
                    kill = Kill(seconds=acts[-1].after_s + rng.uniform(1, 10))
        case "wish":
            acts.append(Act("wish", when))
        case "disk":
            operation = rng.choice(["write", "write", "sync", "sync", "commit", "commit", "insert", "rename"])
            nth = round(rng.expovariate(1 / 12)) + 1
            disk = DiskFault(
                operation,
                min(nth, 3) if operation == "rename" else nth,
                rng.choice(["ENOSPC", "EIO", "EROFS"]),
                full=rng.random() < 0.5,
                late=rng.random() < 0.3,
            )
    if rng.random() < 0.12:
        acts.append(Act(rng.choice(["sleep", "stop"]), rng.expovariate(1 / 15), rng.choice([30.0, 2400.0])))
    if rng.random() < 0.1:
        acts.append(Act("step", rng.expovariate(1 / 15), rng.choice([-86400.0, -3600.0, -5.0, 5.0, 3600.0, 86400.0])))
    if rng.random() < 0.1:
        acts.append(Act("second", rng.expovariate(1 / 5)))
    down_s = rng.choice([0.0, 0.0, 3.0, 50.0, 300.0, 2400.0, rng.choice([7200.0, 50_000.0])])
    return ProcessPlan(start, tuple(acts), kill, disk, down_s, moved=rng.random() < 0.05)


def _kill(rng: random.Random, when: float) -> Kill:
    power = rng.random() < 0.3
    match rng.choice(["turn", "turn", "point", "point", "time"]):
        case "turn":
            return Kill(turn=round(2 ** rng.uniform(3, 13)), power=power)
        case "point":
            point, nth = rng.choice(POINTS), round(rng.expovariate(1 / 8)) + 1
            return Kill(point=point, nth=min(nth, RARE.get(point, nth)), power=power)
    return Kill(seconds=when, power=power)


def kill_of(rng: random.Random) -> Kill:
    """The end of a process that had not much to do."""
    return Kill(turn=round(2 ** rng.uniform(3, 9))) if rng.random() < 0.5 else _kill(rng, rng.uniform(0, 2))


def _windows(rng: random.Random, names: tuple[str, ...]) -> tuple[Window, ...]:
    windows = []
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        kind = rng.choice([*OUTAGES, "401", "402", "paused", "unknown", "forbidden", "no workers"])
        begins = rng.choice([0.0, rng.expovariate(1 / 10), rng.expovariate(1 / 120)])
        # Who resubmits sends thousands in an hour of bad gateways, and the last tells no more than the first.
        lasts = rng.choice([5.0, 40.0, 200.0, 200.0 if kind in ("503", "502_html") else 3000.0])
        if kind == "unknown" and rng.random() < 0.3:
            lasts = float("inf")
        windows.append(Window(kind, rng.choice(names), begins, begins + lasts))
    return tuple(windows)
