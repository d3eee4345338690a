"""Whose a result of a RunPod batch is: never guessed, never told twice, never by order."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.answers import RemoteJob
from runner.batch_answers import Child
from runner.echo import Whose, mark, marked
from runner.ledger import Sent
from runner.values import MISSING


def sent(count: int, *, ids: bool = True) -> list[Sent]:
    """So many runs in a RunPod batch, in their first attempt."""
    return [Sent(f"k{n}", 1, f"req_{n}" if ids else None, 0, 0.0, 0.0) for n in range(count)]


def child(request_id: str, output: Any = MISSING, *, status: str = "COMPLETED", error: Any = None) -> Child:
    """A request that is over."""
    return Child(RemoteJob(request_id, status, output, error), None)


def echo(number: int, request_id: str) -> Child:
    """A result that gives the key of a run back."""
    return child(request_id, {"key": mark(f"k{number}", 1)})


@given(st.integers(0, 2**32), st.booleans())
def test_each_run_gets_its_own_result_once_in_any_order(seed: int, has_ids: bool) -> None:
    """Pages shift and repeat; what was told before is told nobody again."""
    chance = random.Random(seed)
    whose = Whose(sent(8, ids=has_ids), None if has_ids else "key")
    pages = [(n, echo(n, f"req_{n}")) for n in range(8)] * 3
    chance.shuffle(pages)
    taken = [(n, one.key) for n, page in pages if (one := whose.take(page)) is not None]
    assert sorted(taken) == [(n, f"k{n}") for n in range(8)]
    assert (whose.left, list(whose.rest())) == (0, [])


def test_a_request_of_somebody_else_is_passed_over() -> None:
    """It counts for nothing, with ids."""
    whose = Whose(sent(1), None)
    assert whose.take(child("other", 1)) is None
    assert whose.left == 1
    assert not whose.is_accounted


def test_an_echo_that_contradicts_an_id_is_believed() -> None:
    """That ids come in the order of requests is a guess; from then on no id of that batch counts."""
    whose = Whose(sent(3), "key")
    first = whose.take(echo(1, "req_0"))
    assert first is not None
    assert first.key == "k1"
    assert whose.take(child("req_2", status="FAILED", error="e")) is None
    second = whose.take(echo(0, "req_1"))
    assert second is not None
    assert second.key == "k0"
    (rest,) = whose.rest()
    assert (rest.sent.key, rest.why) == ("k2", "")
    assert rest.job is not None
    assert rest.job.job_id == "req_2"


def test_one_failure_that_is_left_is_of_the_one_run_that_is_left() -> None:
    """All others have their results, so there is no doubt."""
    whose = Whose(sent(2, ids=False), "key")
    assert whose.take(child("b", status="FAILED", error="boom")) is None
    assert not whose.is_accounted
    assert whose.take(echo(1, "a")) is not None
    assert whose.is_accounted
    (rest,) = whose.rest()
    assert (rest.sent.key, rest.why, rest.job and rest.job.error) == ("k0", "", "boom")


def test_failures_that_are_alike_are_told_as_they_are() -> None:
    """Whichever is whose, it came to the same; how many there were is said."""
    whose = Whose(sent(2, ids=False), "key")
    for name in "ab":
        whose.take(child(name, status="FAILED", error="boom"))
    assert {rest.why for rest in whose.rest()} == {"one of 2 that ended alike"}


def test_failures_that_differ_are_nobodys() -> None:
    """That they failed is sure, how is not."""
    whose = Whose(sent(2, ids=False), "key")
    whose.take(child("a", status="FAILED", error="one"))
    whose.take(child("b", status="FAILED", error={"x": 1}))
    rest = list(whose.rest())
    assert [(one.job, one.is_failed) for one in rest] == [(None, True)] * 2
    assert rest[0].why == 'one of 2 requests that failed, and nobody can say which how: one (1); {"x":1} (1)'


def test_what_was_completed_without_an_echo_makes_no_run_succeed() -> None:
    """Its result is somebody's, and nobody can say whose."""
    whose = Whose(sent(2, ids=False), "key")
    whose.take(child("a", {"key": "other"}))
    whose.take(child("b", status="FAILED", error="boom"))
    assert whose.mute == "a"
    assert {(one.job, one.is_failed, one.is_silent) for one in whose.rest()} == {(None, False, False)}


@pytest.mark.parametrize(
    ("given_", "found"),
    [({"n": 1}, {"n": 1, "key": "k.1"}), ({"key": 1}, None), ([1], None), ("text", None)],
    ids=str,
)
def test_only_a_mapping_without_it_takes_the_key(given_: Any, found: Any) -> None:
    """What the user wrote is never overwritten, nor changed for others who have it."""
    before = repr(given_)
    assert marked(given_, "key", mark("k", 1)) == found
    assert repr(given_) == before


def test_what_an_earlier_process_was_told_is_not_left_over() -> None:
    """Its results are on the pages still: what is left is known by elimination all the same."""
    whose = Whose(sent(1, ids=False), "key", ["req_1", "req_2", None])
    assert whose.take(echo(1, "req_1")) is None
    assert whose.take(echo(2, "req_2")) is None
    assert whose.take(child("req_3", status="FAILED", error="e")) is None
    assert not whose.is_accounted
    assert whose.take(child("req_0", status="FAILED", error="e")) is None
    assert whose.is_accounted
    assert [(rest.sent.key, rest.job and rest.job.error, rest.why) for rest in whose.rest()] == [
        ("k0", "e", "one of 2 that ended alike")
    ]


def test_what_was_dropped_is_silent_though_a_page_had_shifted() -> None:
    """None of it ran: that not all of it was shown makes no run lost."""
    whose = Whose(sent(3, ids=False), "key")
    for request_id in ("req_0", "req_1"):
        assert whose.take(child(request_id, status="CANCELLED")) is None
    assert [rest.is_silent for rest in whose.rest()] == [True, True, True]
