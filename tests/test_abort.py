"""Thresholds of jobs, several bounds of one metric, and those that stop a batch early."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from terminal import Ran, runner, write

from runner.abort import Abort
from runner.judge import Numbers, StopAt, judge, lost, stop_reason
from runner.states import Outcome, State
from runner.stop import Reason, Switch
from runner.tally import JobTally, Tally
from runner.thresholds import Threshold, all_of, as_written, parse, read
from runner.values import JsonObject

HANDLER = """
import time

def handler(job):
    time.sleep(job["input"].get("sleep", 0))
    if job["input"]["n"] in job["input"].get("bad", []):
        raise ValueError("no horse")
    return job["input"]["n"]
"""


def a_job(planned: int = 100, *, in_flight: int = 0, execution_ms: int = 0, **states: int) -> JobTally:
    """A job of which so many runs have settled in each state."""
    job = JobTally(planned, in_flight=in_flight, execution_ms=execution_ms)
    for state, count in states.items():
        job.settle(State(state), None, count)
    return job


@pytest.mark.parametrize(
    ("metric", "text", "job", "why"),
    [
        ("failed", "< 1%", a_job(failed=1), "failed < 1% can't hold any more: already 1%"),
        ("failed", "< 1%", a_job(200, failed=1), None),
        ("failed", "<= 3", a_job(failed=3), None),
        ("failed", "<= 3", a_job(failed=4), "failed <= 3 can't hold any more: already 4 runs"),
        ("failed", "== 0", a_job(failed=1), "failed == 0 can't hold any more: already 1 run"),
        ("failed", "> 3", a_job(), None),
        ("succeeded", ">= 99%", a_job(failed=1), None),
        ("succeeded", ">= 99%", a_job(failed=1, skipped=1), "succeeded >= 99% can't hold any more: at most 98%"),
        ("succeeded", "== 100", a_job(cancelled=1), "succeeded == 100 can't hold any more: at most 99 runs"),
        ("skipped", "< 1", a_job(skipped=1), "skipped < 1 can't hold any more: already 1 run"),
        ("cost", "< 1 USD", a_job(execution_ms=999), None),
        ("cost", "< 1 USD", a_job(execution_ms=1250), "cost < 1 USD can't hold any more: already 1.25 USD"),
    ],
)
def test_a_bound_aborts_once_it_can_not_hold_any_more(metric: str, text: str, job: JobTally, why: str | None) -> None:
    """And says which, and what was counted."""
    expected = None if why is None else f"threshold {why}"
    assert lost([parse(metric, text)], [(job, 1.0)]) == expected
    job.in_flight = 1
    assert stop_reason(job, StopAt(usd_per_s=1.0, aborts=(parse(metric, text),))) == expected
    job.in_flight = job.pending
    assert stop_reason(job, StopAt(usd_per_s=1.0, aborts=(parse(metric, text),))) is None


@given(
    planned=st.integers(1, 50),
    text=st.sampled_from(["< 10%", "<= 3", "== 2", ">= 90%", "> 5", "== 50%", "< 0.5"]),
    metric=st.sampled_from(["failed", "succeeded"]),
    data=st.data(),
)
def test_what_is_aborted_would_have_failed_anyway(planned: int, text: str, metric: str, data: st.DataObject) -> None:
    """Whatever becomes of the rest; so an early failure by accident aborts nothing that could still pass."""
    failed = data.draw(st.integers(0, planned))
    succeeded = data.draw(st.integers(0, planned - failed))
    left = planned - failed - succeeded
    threshold = parse(metric, text)
    ends = []
    for more in range(left + 1):
        counts = {"failed": failed + more, "succeeded": succeeded + left - more}
        ends += [one.holds for one in judge([threshold], Numbers(planned, counts, {}, None))]
    why = lost([threshold], [(a_job(planned, failed=failed, succeeded=succeeded), None)])
    if threshold.operator == "==" and why is None:
        return  # a share between two counts can't be met, and is found out later
    assert (why is None) == any(ends)


async def test_a_bound_of_the_batch_stops_every_job_by_what_all_have_together() -> None:
    """A share is one of the whole plan; who looks first tells the others."""
    tally = Tally({"a": 60, "b": 40})
    switches = {"a": Switch(), "b": Switch()}
    abort = Abort({"failed": (Threshold("failed", None, "<=", 2, "runs", "<= 2", abort=True),)}, tally, switches, {})
    tally.jobs["a"].settle(State.FAILED, Outcome.FAILED, 2)
    assert abort.look() is None
    tally.jobs["b"].settle(State.FAILED, Outcome.FAILED)
    assert abort.look() == "threshold failed <= 2 can't hold any more: already 3 runs"
    assert [switch.reason for switch in switches.values()] == [Reason.STOP_WHEN, Reason.STOP_WHEN]


def test_bounds_are_read_back_as_they_were_written() -> None:
    """The manifest says what the job file said; one of an older version has texts only."""
    written: JsonObject = {
        "failed": {"bound": "< 1%", "abort": True},
        "execution_time": ["p95 < 30s", "max < 2m"],
        "cost": ["< 1 USD", {"bound": "< 2 USD", "abort": True}],
        "skipped": "== 0",
    }
    assert {metric: as_written(read(metric, bounds)) for metric, bounds in written.items()} == written
    assert [one.text for one in all_of(written)] == ["< 1%", "p95 < 30s", "max < 2m", "< 1 USD", "< 2 USD", "== 0"]


def ran(folder: Path, jobs: str, more: str = "") -> tuple[Ran, JsonObject]:
    """A batch of *jobs*, and its health report."""
    head = "version: 1\nname: horses\nendpoints: {local: {handler: 'handler.py:handler'}}\n"
    write(folder, {"handler.py": HANDLER, "job.yaml": f"{head}jobs:\n{jobs}{more}"})
    done = runner("run", "job.yaml", cwd=folder)
    health: JsonObject = json.loads((folder / "batches/horses/latest/health.json").read_text())
    return done, health


def test_an_aborted_job_settles_what_runs_and_skips_the_rest(tmp_path: Path) -> None:
    """Others go on; the message names threshold and value, and the exit code is 1."""
    done, health = ran(
        tmp_path,
        "  bad:\n    endpoint: local\n    concurrency: 1\n    rows: {matrix: {n: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}}\n"
        "    input: {n: '{{ matrix.n }}', bad: [1, 3, 4]}\n"
        "    thresholds: {failed: ['< 50%', {bound: '<= 1', abort: true}]}\n"
        "  good: {endpoint: local, input: {n: 1}}\n",
    )
    assert (done.code, health["verdict"]) == (1, "stopped")
    bad, good = health["jobs"]["bad"], health["jobs"]["good"]
    assert (bad["succeeded"], bad["failed"], bad["skipped"], good["succeeded"]) == (2, 2, 6, 1)
    why = "threshold failed <= 1 can't hold any more: already 2 runs"
    assert (bad["stopped"], good["stopped"]) == (why, None)
    assert health["thresholds"] == [
        {"job": "bad", "name": "failed", "bound": "< 50%", "value": 0.2, "pass": True},
        {"job": "bad", "name": "failed", "bound": "<= 1", "value": 2, "pass": False},
    ]
    assert f"  bad: {why}\n  threshold bad: failed <= 1: 2 runs\n" in done.out


def test_an_aborted_batch_starts_nothing_more_in_any_job(tmp_path: Path) -> None:
    """Also where a job has had no failure itself."""
    done, health = ran(
        tmp_path,
        "  bad: {endpoint: local, concurrency: 1, input: {n: 1, bad: [1]}}\n"
        "  slow:\n    endpoint: local\n    concurrency: 1\n    rows: {repeat: 50}\n    input: {n: 1, sleep: 0.2}\n",
        "thresholds: {failed: {bound: '== 0', abort: true}}\n",
    )
    assert (done.code, health["verdict"]) == (1, "stopped")
    slow = health["jobs"]["slow"]
    assert slow["stopped"] == "threshold failed == 0 can't hold any more: already 1 run"
    assert slow["skipped"] >= 40
    assert slow["succeeded"] + slow["skipped"] == 50
    assert health["batch"]["pending"] == 0


@pytest.mark.parametrize(
    ("bad", "code", "verdict"),
    [("[5]", 0, "pass"), ("[5, 6]", 1, "fail")],
    ids=["its bound allows for it", "it does not"],
)
def test_a_job_is_judged_by_its_own_bounds(tmp_path: Path, bad: str, code: int, verdict: str) -> None:
    """On its own runs: a share of ten, not of the batch."""
    rows = "rows: {matrix: {n: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}}"
    done, health = ran(
        tmp_path,
        f"  some: {{endpoint: local, {rows}, input: {{n: '{{{{ matrix.n }}}}', bad: {bad}}},"
        " thresholds: {failed: '<= 10%', execution_time: ['p95 < 30s', 'max < 2m']}}\n"
        f"  all: {{endpoint: local, {rows}, input: {{n: '{{{{ matrix.n }}}}'}}}}\n",
    )
    assert (done.code, health["verdict"]) == (code, verdict)
    assert [(one["job"], one["bound"]) for one in health["thresholds"]] == [
        ("some", "<= 10%"),
        ("some", "p95 < 30s"),
        ("some", "max < 2m"),
    ]


def test_bounds_of_one_job_excuse_no_failure_of_another(tmp_path: Path) -> None:
    """Who bounds the time of one job has not said that the other may fail."""
    done, health = ran(
        tmp_path,
        "  timed: {endpoint: local, input: {n: 1}, thresholds: {execution_time: max < 2m}}\n"
        "  other: {endpoint: local, input: {n: 1, bad: [1]}}\n",
    )
    assert (done.code, health["verdict"]) == (1, "fail")
    assert "1 of 2 runs did not succeed" in done.out
