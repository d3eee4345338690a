"""Which jobs come first, and whether a job may begin after them."""

from typing import Any

import pytest

from runner.gates import Closed, Gate
from runner.needs import in_order, missing, needed, sample
from runner.render import RenderError
from runner.spec import Job
from runner.states import Outcome, State
from runner.tally import JobTally


def job(**more: object) -> Job:
    """A job that has *more*."""
    return Job.model_validate({"endpoint": "e", "input": 1} | more)


def tally(planned: int, *, succeeded: int = 0, failed: int = 0, skipped: int = 0) -> JobTally:
    """The counts of a job."""
    found = JobTally(planned)
    found.settle(State.SUCCEEDED, Outcome.COMPLETED, succeeded)
    found.settle(State.FAILED, Outcome.FAILED, failed)
    found.settle(State.SKIPPED, None, skipped)
    return found


def never(_: str) -> Closed | None:
    """No other job was held back."""
    return None


JOBS = {"c": job(rows={"job": "b"}), "a": job(), "b": job(needs=["a"]), "d": job(needs=["a", "c"], rows={"job": "c"})}


def test_a_job_needs_the_source_of_its_rows_once() -> None:
    """However often it is named."""
    assert [needed(one) for one in JOBS.values()] == [("b",), (), ("a",), ("a", "c")]


def test_jobs_come_behind_what_they_need() -> None:
    """And else stay as they stand in the file."""
    assert in_order(JOBS, list(JOBS)) == ["a", "b", "c", "d"]
    assert in_order({name: job() for name in "xyz"}, ["z", "x", "y"]) == ["z", "x", "y"]
    circle = {"x": job(needs=["y"]), "y": job(needs=["x"]), "z": job()}
    assert in_order(circle, list(circle)) == ["z", "x", "y"]


def test_what_is_left_out_is_found() -> None:
    """The first of them."""
    assert missing(JOBS, ["a", "b"]) is None
    assert missing(JOBS, ["a", "d"]) == ("d", "c")


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        pytest.param(tally(0), None, id="no run at all"),
        pytest.param(tally(2, succeeded=2), None, id="all succeeded"),
        pytest.param(tally(3, succeeded=2, failed=1), "1 of 3 runs of job 'a' did not succeed", id="one failed"),
        pytest.param(tally(2, skipped=2), "2 of 2 runs of job 'a' did not succeed", id="skipped"),
    ],
)
def test_every_needed_run_must_succeed(counts: JobTally, why: str | None) -> None:
    """Unless `when` says otherwise."""
    found = Gate(job(needs=["a"]), None, {}).judged({"a": counts}, never)
    assert found == (None if why is None else Closed(why))


def test_what_was_not_wanted_is_told_on() -> None:
    """So that what comes after it is no failure either."""
    gate = Gate(job(needs=["a"]), None, {})
    found = gate.judged({"a": tally(1, skipped=1)}, lambda _: Closed("when is false"))
    assert found == Closed("job 'a' was skipped: when is false")
    assert found.is_wanted
    found = gate.judged({"a": tally(1, skipped=1)}, lambda _: Closed("1 of 1 runs of job 'z' did not succeed"))
    assert found is not None
    assert not found.is_wanted


def test_when_sees_counts_of_what_is_needed() -> None:
    """All settled states, and the runs."""
    seen: list[object] = []

    def when(scope: dict[str, object]) -> bool:
        seen.append(scope)
        return False

    gate = Gate(job(needs=["a"], when="x"), when, {"v": 1})
    assert gate.judged({"a": tally(3, succeeded=1, failed=2), "z": tally(1)}, never) == Closed("when is false")
    counted = {"runs": 3, "succeeded": 1, "failed": 2, "cancelled": 0, "skipped": 0}
    assert seen == [{"jobs": {"a": counted}, "vars": {"v": 1}}]
    assert list(sample(gate.job)["a"]) == list(counted)


def test_a_when_that_fails_holds_the_job_back_and_says_why() -> None:
    """It is no bug of ours, and nothing is sent in doubt."""

    def fails(_: object) -> bool:
        raise RenderError(("jobs", "b", "when"), "division by zero")

    found = Gate(job(needs=["a"], when="x"), fails, {}).judged({"a": tally(1)}, never)
    assert found == Closed("when: division by zero")
    assert not found.is_wanted


def test_a_source_of_rows_is_waited_for_only_where_all_of_it_is_needed() -> None:
    """Else its runs are rows as they settle."""
    gates: dict[str, dict[str, Any]] = {
        "streamed": {"rows": {"job": "a"}, "needs": ["b"]},
        "collected": {"rows": {"job": "a", "collect": True}},
        "gated": {"rows": {"job": "a"}, "when": "x"},
    }
    assert {name: Gate(job(**more), None, {}).waits_for for name, more in gates.items()} == {
        "streamed": ("b",),
        "collected": ("a",),
        "gated": ("a",),
    }
