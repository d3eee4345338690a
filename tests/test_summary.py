"""What a batch came to, in a few lines."""

from typing import Any

import pytest

from runner.summary import summary
from runner.values import JsonObject


def a_job(**more: Any) -> JsonObject:
    """One job's part of health.json: two runs, both succeeded, unless *more* says otherwise."""
    none = {"p50": None, "p95": None, "p99": None, "max": None}
    counts = {"runs": 2, "succeeded": 2, "failed": 0, "cancelled": 0, "skipped": 0, "pending": 0}
    rest = {"outcomes": {"completed": 2}, "retried": 0, "reused": 0, "errors": [], "stopped": None}
    cost = {"cost_usd": None, "cost_basis": None}
    return counts | rest | cost | {"delay_time_ms": none, "execution_time_ms": none} | more


def health(
    verdict: str, *, thresholds: list[JsonObject] | None = None, diagnosis: str = "not looked at", **jobs: JsonObject
) -> JsonObject:
    """The object of health.json, with one endpoint."""
    totals = {word: sum(job[word] for job in jobs.values()) for word in ("runs", "succeeded", "pending")}
    return {
        "verdict": verdict,
        "batch": {"id": "20261123T022312Z-7f3a", "name": "horses", **totals},
        "endpoints": {"sdxl": {"diagnosis": diagnosis}},
        "jobs": jobs,
        "thresholds": thresholds or [],
    }


def test_a_batch_that_passed_is_short() -> None:
    """Nobody reads more of it."""
    assert summary(health("pass", photos=a_job()), "/b/horses/x") == (
        "pass: horses 20261123T022312Z-7f3a\n  photos  2 of 2 succeeded\n  /b/horses/x"
    )


def test_a_cost_that_was_asked_for_and_never_told_is_said() -> None:
    """Silence would read as nothing paid."""
    assert summary(health("pass", photos=a_job(cost_untold=2)), "/b/horses/x").splitlines()[1] == (
        "  photos  2 of 2 succeeded, cost unknown (2 told none)"
    )


def test_a_batch_that_failed_says_what_and_how_often() -> None:
    """Each job in a line, its three commonest errors under it, cut and without what a terminal would act on."""
    errors = [
        {"message": "\x1b[31mCUDA out of memory\x1b[0m\nTraceback …", "count": 7},
        {"message": "x" * 200, "count": 2},
        {"message": "", "count": 1},
        {"message": "not shown", "count": 1},
    ]
    times = {"p50": 539, "p95": 12_345, "p99": 20_000, "max": 30_000}
    photos = a_job(
        runs=20,
        succeeded=5,
        skipped=5,
        outcomes={"completed": 5, "crashed": 8, "timed_out": 2},
        retried=4,
        errors=errors,
        cost_usd=0.123456,
        execution_time_ms=times,
    )
    assert summary(health("fail", photos=photos, up=a_job()), "/b/horses/x").splitlines() == [
        "fail: horses 20261123T022312Z-7f3a",
        "  15 of 22 runs did not succeed",
        "  photos  5 of 20 succeeded (8 crashed, 2 timed_out, 5 skipped), 4 retried,"
        " execution p50 539ms p95 12s, at least 0.1235 USD, execution only",
        "          7 x CUDA out of memory",
        f"          2 x {'x' * 99}…",
        "          1 x (no message)",
        "  up      2 of 2 succeeded",
        "  results.jsonl has each run's error, log.jsonl what happened when",
        "  to run again what did not succeed: runner resume /b/horses/x --retry-failed",
        "  /b/horses/x",
    ]


FAILED = a_job(runs=31, succeeded=30, failed=1, outcomes={"completed": 30, "failed": 1})
STOPPED = a_job(runs=100, succeeded=8, failed=12, skipped=80, stopped="stop_when: 12 of 100 runs failed (limit 10%)")
WAITING = a_job(runs=20, succeeded=5, pending=15)
CANCELLED = a_job(runs=2, succeeded=1, cancelled=1)
TOO_MANY = {"name": "failed", "bound": "< 1%", "value": 0.0323, "pass": False}
HOLDS = {"name": "cost", "bound": "< 5 USD", "value": 4.9, "pass": True}
TOO_SLOW = {"name": "execution_time", "bound": "p95 < 30s", "value": 31_204, "pass": False}
STUCK = "throttled: 9 jobs waiting, 2 workers without a free GPU; allow more GPU types or regions"


@pytest.mark.parametrize(
    ("told", "reasons"),
    [
        pytest.param(health("pass", job=FAILED, thresholds=[HOLDS]), [], id="a pass needs none"),
        pytest.param(health("pass", job=WAITING | {"pending": 0}, diagnosis=STUCK), [], id="whatever an endpoint says"),
        pytest.param(health("fail", job=FAILED), ["1 of 31 runs did not succeed"], id="no thresholds"),
        pytest.param(
            health("fail", job=FAILED, thresholds=[TOO_MANY, HOLDS, TOO_SLOW]),
            ["threshold failed < 1%: 3.2%", "threshold execution_time p95 < 30s: 31.2s"],
            id="thresholds that fail, and only these",
        ),
        pytest.param(
            health("stopped", job=STOPPED, other=a_job()),
            ["job: stop_when: 12 of 100 runs failed (limit 10%)"],
            id="stopped",
        ),
        pytest.param(
            health("stopped", job=STOPPED | {"stopped": None}), ["92 of 100 runs did not succeed"], id="stopped, untold"
        ),
        pytest.param(health("interrupted", job=WAITING), ["15 of 20 runs pending"], id="interrupted"),
        pytest.param(
            health("interrupted", job=CANCELLED), ["1 of 2 runs did not succeed"], id="interrupted and cancelled"
        ),
        pytest.param(health("interrupted", job=a_job(runs=1, pending=1)), ["1 of 1 run pending"], id="one run"),
        pytest.param(
            health("refused", job=WAITING, diagnosis="can't be told: HTTP 401"),
            ["15 of 20 runs pending", "endpoint sdxl: can't be told: HTTP 401"],
            id="refused",
        ),
        pytest.param(
            health("running", job=WAITING, diagnosis=STUCK),
            ["15 of 20 runs pending", f"endpoint sdxl: {STUCK}"],
            id="a queue that does not move",
        ),
        pytest.param(
            health("running", job=WAITING, diagnosis="working: 4 workers busy, nothing waits"),
            ["15 of 20 runs pending"],
            id="a queue that does",
        ),
    ],
)
def test_the_reasons_come_right_after_the_verdict(told: JsonObject, reasons: list[str]) -> None:
    """Whoever is woken by it wants to know first what to do, and whether it can wait."""
    lines = summary(told, "/b").splitlines()
    (first_job, *_) = [number for number, line in enumerate(lines) if line.startswith("  job ")]
    assert lines[1:first_job] == [f"  {reason}" for reason in reasons]


@pytest.mark.parametrize(
    ("told", "hints"),
    [
        (health("pass", job=FAILED), 0),
        (health("fail", job=FAILED), 1),
        (health("stopped", job=STOPPED), 1),
        (health("interrupted", job=WAITING), 0),
        (health("fail", job=a_job(), thresholds=[TOO_SLOW]), 0),
    ],
    ids=["pass", "fail", "stopped", "goes on", "nothing to run again"],
)
def test_a_batch_that_is_over_says_how_to_run_again_what_did_not_succeed(told: JsonObject, hints: int) -> None:
    """As a line that a shell takes as it is."""
    hint = "  to run again what did not succeed: runner resume '/my batches/x' --retry-failed"
    assert summary(told, "/my batches/x").splitlines()[:-1].count(hint) == hints


def test_what_an_endpoint_said_does_nothing_to_a_terminal() -> None:
    """It is foreign text as any other."""
    told = summary(health("refused", job=WAITING, diagnosis="can't be told: \x1b[2Jgone"), "/b")
    assert "  endpoint sdxl: can't be told: gone\n" in told


def test_the_folder_is_alone_in_the_last_line() -> None:
    """So that it can be copied, and scripts find it."""
    failed = FAILED | {"errors": [{"message": "no horse", "count": 1}]}
    for verdict in ("pass", "fail"):
        assert summary(health(verdict, job=failed), "/b/horses/x").splitlines()[-1] == "  /b/horses/x"


def test_a_batch_without_jobs_has_a_summary() -> None:
    """Whatever health.json holds."""
    assert summary(health("running"), "/b") == "running: horses 20261123T022312Z-7f3a\n  /b"
