"""Lives made by hand, for what chance comes to too seldom. Each says what it is there for."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from torture.simulation import flows
from torture.simulation.scenario import (
    ENDPOINTS,
    LATE,
    RETRYABLE,
    Act,
    DiskFault,
    Kill,
    Met,
    ProcessPlan,
    Scenario,
    Window,
    draw,
)

LOOKS = {"min": "1s", "max": "1s"}
"""A look each second, so that one falls into each time that matters."""

NO_HOLD = {"north": 501}
"""No look is held at the server."""

TWICE = (ProcessPlan("run"), ProcessPlan("run"))


def quiet(
    seed: int = 1,
    *,
    rows: int = 3,
    job: dict[str, Any] | None = None,
    endpoint: dict[str, Any] | None = None,
    **more: Any,
) -> Scenario:
    """One job of *rows* runs on a good day, unless *job*, *endpoint* and *more* say otherwise."""
    told: dict[str, Any] = {
        "endpoint": "north",
        "mode": "async",
        "rows": {"inline": [{"n": number} for number in range(rows)]},
        "input": {"n": "{{ row.n }}"},
        "timeouts": {"request": "5s", "run": "10m"},
        "on_answer_lost": "fail",
    }
    spec = {
        "version": 1,
        "name": "sim",
        "endpoints": {"north": {"id": "${SIM_NORTH}", "cost_per_second": 0.001} | (endpoint or {})},
        "jobs": {"job0": told | (job or {})},
        "health": {"every": "15s", "wait": "20s"},
    }
    given = {"spec": spec, "processes": (ProcessPlan("run"),), "aggregates": dict.fromkeys(ENDPOINTS, False)}
    return Scenario(seed=seed, **(given | more))


def _lives() -> dict[str, Scenario]:
    slow: dict[str, Any] = {"slow": 1.0, "longest_s": 90.0, "ending": "completed"}
    return {
        # Its 404 was true when the look was sent, and is old when it comes; the next one is wrong.
        "a slow answer about a job that is not visible yet": quiet(
            rows=3,
            job={"poll": LOOKS, "timeouts": {"request": "30s", "run": "10m"}},
            unseen_s=7.0,
            met=(Met("status", LATE, 4.0, 6.9), Met("status", "404_once", 12.0, 30.0)),
            status_sync=NO_HOLD,
            **slow,
        ),
        "the clock is set forward while a job is not visible yet": quiet(
            rows=1,
            job={"poll": LOOKS},
            processes=(ProcessPlan("run", acts=(Act("step", 2.5, 3600.0),)),),
            unseen_s=8.0,
            status_sync=NO_HOLD,
            **slow,
        ),
        # /health was asked for the first 404, and answered; then the endpoint is gone for a while.
        "an endpoint that is unknown just after it was known": quiet(
            rows=5,
            job={"poll": LOOKS},
            processes=TWICE,
            windows=(Window("unknown", "north", 21.5, 40.0),),
            met=(Met("status", "404_once", 20.0, 30.0),),
            status_sync=NO_HOLD,
            **slow,
        ),
        "the clock is set back while a run waits for its turn": quiet(
            rows=2,
            job={
                "timeouts": {"request": "5s", "run": "20s"},
                "retry": {"attempts": 3, "outcomes": ["timed_out"], "wait_initial": "1s", "wait_max": "5s"},
            },
            endpoint={"rate_limits": {"run": "1/1m"}},
            processes=(ProcessPlan("run", acts=(Act("step", 10.0, -3600.0),)),),
            ending="completed",
        ),
        "a drain that ends while an intent is written": quiet(
            rows=1, processes=(ProcessPlan("run", acts=(Act("signal", 1.0),)), ProcessPlan("run")), commit_s=60.0
        ),
        "a cancel before the job is visible": quiet(
            rows=1,
            job={"timeouts": {"request": "5s", "run": "3s"}, "poll": LOOKS},
            unseen_s=7.0,
            status_sync=NO_HOLD,
            **slow,
        ),
        "a drain that ends while the last result is written": quiet(
            rows=1,
            processes=(ProcessPlan("run", acts=(Act("signal", 75.0),)), ProcessPlan("run")),
            commit_s=60.0,
            ending="completed",
        ),
        "a disk that refuses the ledger its name": quiet(
            processes=(ProcessPlan("run", disk=DiskFault("rename", 2, "EIO")), ProcessPlan("run"))
        ),
        "a run is given up while it waits to be tried again": quiet(
            rows=3,
            job={"retry": {"attempts": 3, "outcomes": sorted(RETRYABLE), "wait_initial": "60s", "wait_max": "5m"}},
            processes=(ProcessPlan("run", kill=Kill(seconds=30.0)), ProcessPlan("run", edit="template")),
            ending="failed",
        ),
        # Ten are looked at often: the others wait for minutes, and must be looked at all the same.
        "many jobs and one worker": quiet(
            rows=40,
            job={"timeouts": {"request": "5s"}},
            slow=1.0,
            longest_s=1500.0,
            is_bounded=False,
            ending="completed",
            status_sync=NO_HOLD,
        ),
        "two runs want one file": quiet(
            rows=2,
            job={
                "rows": {"inline": [{"n": 0}, {"n": 0}]},
                "artifacts": [{"path": "{{ row.n }}.json", "json": "{{ output }}"}],
            },
            ending="completed",
        ),
        "a disk that does not keep the ledger's name": quiet(
            processes=(ProcessPlan("run", disk=DiskFault("sync", 6, "EIO")), ProcessPlan("run"))
        ),
        # What an earlier process sent is in flight from the start, whichever job looks for a place first.
        "jobs that share few places go on": _twins(
            quiet(
                rows=4,
                endpoint={"concurrency": 2},
                processes=(ProcessPlan("run", kill=Kill(seconds=5.0)), ProcessPlan("run")),
                **slow,
            )
        ),
        "a job takes the first rows to come of another, and no more": _made(
            quiet(rows=5, ending="completed"), {"job": "job0", "limit": 2}, flows.ONE
        ),
        "what failed succeeds later, and what was collected grows": _made(
            quiet(rows=12, processes=(ProcessPlan("run"), ProcessPlan("retry"))),
            {"job": "job0", "collect": True},
            flows.ALL,
        ),
    }


def _twins(one: Scenario) -> Scenario:
    """*one* with a second job that is like the first."""
    one.spec["jobs"]["job1"] = deepcopy(one.spec["jobs"]["job0"])
    return one


def _made(one: Scenario, rows: dict[str, Any], given: dict[str, str]) -> Scenario:
    """*one* with a second job whose rows are runs of the first."""
    one.spec["jobs"]["made0"] = one.spec["jobs"]["job0"] | {"rows": rows, "input": given}
    return one


LIVES = _lives()
"""By name."""

NAMES: Sequence[str] = tuple(LIVES)

SEEDS = tuple(range(-1, -len(NAMES) - 1, -1))
"""They are lived by number, as drawn ones are: -1 is the first of them."""


def scenario(seed: int) -> Scenario:
    """The scenario of *seed*: one made by hand, if it is below 0."""
    return LIVES[NAMES[-seed - 1]] if seed < 0 else draw(seed)
