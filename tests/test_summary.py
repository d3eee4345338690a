"""What a batch came to, in a few lines."""

from typing import Any

from runner.summary import summary
from runner.values import JsonObject


def a_job(**more: Any) -> JsonObject:
    """One job's part of health.json: two runs, both succeeded, unless *more* says otherwise."""
    none = {"p50": None, "p95": None, "p99": None, "max": None}
    counts = {"runs": 2, "succeeded": 2, "failed": 0, "cancelled": 0, "skipped": 0, "pending": 0}
    rest = {"outcomes": {"completed": 2}, "retried": 0, "errors": [], "cost_usd": None}
    return counts | rest | {"delay_time_ms": none, "execution_time_ms": none} | more


def health(verdict: str, **jobs: JsonObject) -> JsonObject:
    return {"verdict": verdict, "batch": {"id": "20261123T022312Z-7f3a", "name": "horses"}, "jobs": jobs}


def test_a_batch_that_passed_is_short() -> None:
    """Nobody reads more of it."""
    assert summary(health("pass", photos=a_job()), "/b/horses/x") == (
        "pass: horses 20261123T022312Z-7f3a\n  photos  2 of 2 succeeded\n  /b/horses/x"
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
        skipped=2,
        pending=3,
        outcomes={"completed": 5, "crashed": 8, "timed_out": 2},
        retried=4,
        errors=errors,
        cost_usd=0.123456,
        execution_time_ms=times,
    )
    assert summary(health("fail", photos=photos, up=a_job()), "/b/horses/x").splitlines() == [
        "fail: horses 20261123T022312Z-7f3a",
        "  photos  5 of 20 succeeded (8 crashed, 2 timed_out, 2 skipped, 3 pending), 4 retried,"
        " execution p50 539ms p95 12s, at least 0.1235 USD",
        "          7 x CUDA out of memory",
        f"          2 x {'x' * 99}…",
        "          1 x ",
        "  up      2 of 2 succeeded",
        "  /b/horses/x",
    ]


def test_a_batch_without_jobs_has_a_summary() -> None:
    """Whatever health.json holds."""
    assert summary(health("unfinished"), "/b") == "unfinished: horses 20261123T022312Z-7f3a\n  /b"
