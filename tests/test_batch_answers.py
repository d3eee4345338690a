"""What the Batch API answers, as records: beta, so whatever is missing, new or odd is survived where it may be."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.batch_answers import read_appended, read_counts, read_made, read_page

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "requests", "status"]), inner),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_no_answer_is_a_crash(answer: Any) -> None:
    """ValueError says that nothing can be told; every other end would be ours."""
    for read in (read_made, read_appended, read_counts, read_page):
        try:
            read(answer)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("answer", "ids"),
    [
        ({"requests": [{"id": "a"}, {"id": "b"}]}, ["a", "b"]),
        ({"requestIds": ["a", "b"]}, ["a", "b"]),
        ({"id": "batch", "ids": ["a"]}, ["a"]),
        ({"requests": [{"id": "a"}, {"id": "a"}]}, []),
        ({"requests": [{"id": "a"}, {}]}, []),
        ({"requests": [{"id": "../x"}]}, []),
        ({"status": "DRAFT"}, []),
        ([], []),
    ],
    ids=str,
)
def test_ids_are_all_there_or_none_is(answer: Any, ids: list[str]) -> None:
    """Half of them would tell half of the results, and the others would be put down to the wrong runs."""
    assert read_appended(answer) == ids


def test_a_batch_of_nothing_is_not_done() -> None:
    """Its counts may not be there yet."""
    assert not read_counts({"status": "FINALIZED", "requestTotal": 0, "requestCompleted": 0}).is_done
    assert not read_counts({"status": "FINALIZED"}).is_done
    assert read_counts({"status": "ODD", "requestTotal": 2, "requestCompleted": 1, "requestFailed": 1}).is_done


def test_times_of_a_request_make_its_execution_time() -> None:
    """Where it has none of its own; a time that can't be read is as good as none."""
    told = {
        "id": "r",
        "status": "COMPLETED",
        "startedAt": "2026-08-21T06:00:01Z",
        "completedAt": "2026-08-21T06:00:04.5Z",
    }
    (child,) = read_page({"requests": [told]}).children
    assert (child.job.execution_time_ms, child.started_at) == (3500, 1787292001.0)
    (child,) = read_page({"requests": [told | {"executionTime": 7}]}).children
    assert child.job.execution_time_ms == 7
    (child,) = read_page({"requests": [told | {"startedAt": "soon"}]}).children
    assert (child.job.execution_time_ms, child.started_at) == (None, None)


def test_what_is_no_request_is_passed_over() -> None:
    """It counts as shown, so that the next page begins behind it."""
    page = read_page({"requests": [{"id": "r", "status": "LATER"}, {"id": 7}, None, {"id": "s"}], "total": "4"})
    assert ([one.job.job_id for one in page.children], page.shown, page.total, page.has_more) == (["r"], 4, None, None)
    assert not page.children[0].is_final
