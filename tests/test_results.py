"""Lines of results.jsonl."""

import json
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import pytest
from happened import a_run, a_settled, accepted, an_ending, skipped
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import results
from runner.events import Ending
from runner.runs import Run
from runner.states import Outcome, State
from runner.values import MISSING, parse

SURROGATES = st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from("\ud800\udfff\x00\x1b\u2028\r"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | SURROGATES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SURROGATES, inner, max_size=3),
    max_leaves=8,
)
COUNT = st.none() | st.integers(0, 2**63 - 1)


def paired(value: object) -> bool:
    """Whether two surrogates stand side by side somewhere: JSON reads them as one character."""
    text = str(value) if isinstance(value, str) else "".join(map(str, flat(value)))
    return any("\ud800" <= one < "\udc00" <= other < "\ue000" for one, other in pairwise(text))


def flat(value: object) -> list[object]:
    if isinstance(value, dict):
        return [part for item in value.items() for one in item for part in [*flat(one), " "]]
    if isinstance(value, list):
        return [part for one in value for part in [*flat(one), " "]]
    return [value]


VALUE = JSON.filter(lambda value: not paired(value))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    given_=VALUE,
    row=st.none() | st.dictionaries(st.text(max_size=3), VALUE, max_size=2),
    output=VALUE | st.just(MISSING),
    message=st.text(),
    outcome=st.sampled_from(Outcome),
    times=st.tuples(COUNT, COUNT),
)
def test_a_line_tells_the_whole_of_what_settled(
    given_: object,
    row: dict[str, object] | None,
    output: object,
    message: str,
    outcome: Outcome,
    times: tuple[int, int],
) -> None:
    """After a kill the line is all that is left of it."""
    run = Run("photos", 3, "k1", row, {"seed": 1}, 2, given_)
    error = {"type": None, "message": message, "traceback": None}
    ending = Ending(outcome, output, error, "COMPLETED", "w1", *times)
    event = a_settled(run, 2, ending, at=1_800_000_000.25)
    assert event.line.count(b"\n") == 1
    assert event.line.decode()
    assert results.settled(event.line) == event
    assert results.accepted(event.line) == accepted(run, 2)


def test_a_line_has_the_fields_that_users_rely_on() -> None:
    """Their scripts read them by name."""
    run = Run("photos", 17, "9f2c", {"prompt": "a horse"}, {"seed": 1}, 0, {"prompt": "a horse"})
    ending = Ending(Outcome.COMPLETED, ["x"], None, "COMPLETED", "w1", 19, 539)
    text = results.line(
        run, ending, state=State.SUCCEEDED, attempts=1, job_id="c671-u1", submitted_at=0.5, settled_at=1_800_000_000.0
    )
    assert json.loads(text) == {
        "key": "9f2c",
        "job": "photos",
        "index": 17,
        "state": "succeeded",
        "outcome": "completed",
        "status": "COMPLETED",
        "row": {"prompt": "a horse"},
        "matrix": {"seed": 1},
        "repeat": 0,
        "input": {"prompt": "a horse"},
        "output": ["x"],
        "error": None,
        "job_id": "c671-u1",
        "worker_id": "w1",
        "attempts": 1,
        "delay_time_ms": 19,
        "execution_time_ms": 539,
        "submitted_at": "1970-01-01T00:00:00.500Z",
        "settled_at": "2027-01-15T08:00:00.000Z",
        "artifacts": [],
    }


@pytest.mark.parametrize(("output", "there"), [(None, True), (MISSING, False), (False, True), ({}, True)], ids=repr)
def test_no_output_is_no_key_and_null_is_an_output(output: object, there: bool) -> None:
    """A handler may return None on purpose."""
    event = a_settled(a_run(), ending=an_ending(output=output))
    assert ("output" in parse(event.line)) is there
    read = results.settled(event.line).ending
    assert read is not None
    assert read.output is output or read.output == output


def test_a_skipped_run_has_a_line_without_outcome() -> None:
    """It was never sent, so nothing is said of how it went."""
    event = skipped(a_run())
    assert results.settled(event.line) == event
    assert results.accepted(event.line) is None
    shown = parse(event.line)
    assert (shown["state"], shown["outcome"], shown["job_id"], shown["attempts"]) == ("skipped", None, None, 0)


def test_reading_skips_the_torn_last_line(tmp_path: Path) -> None:
    """A kill leaves one, and a batch may be read while it runs."""
    path = tmp_path / "results.jsonl"
    lines = [a_settled(a_run(key), ending=an_ending(output="\r\u2028\x85")).line for key in ("a", "b", "c")]
    for torn in (b"", lines[2][:-1], lines[2][:20], b"{"):
        path.write_bytes(lines[0] + lines[1] + torn)
        assert [one["key"] for one in results.read(path)] == ["a", "b"]


@pytest.mark.parametrize(("length", "digest_bytes"), [(1, 16), (results.LONG_BYTES, 16), (300_000, 4)])
def test_a_digest_knows_a_line_again(length: int, digest_bytes: int) -> None:
    """128 bit, as `key` has; those of a long line are 32, which show damage as well and cost less."""
    text = b"a" * length
    digest = results.digest(text)
    assert len(digest) == digest_bytes
    assert results.is_same(text, digest)
    for other in (text[:-1] + b"b", b"b" + text[1:], text + b"\n", text[:-1]):
        assert not results.is_same(other, digest)


def test_a_long_line_is_known_by_the_digest_of_a_short_one_as_well() -> None:
    """Ledgers have been written with it."""
    text = b"a" * 300_000
    digest = blake2b(text, digest_size=16).digest()
    assert results.is_same(text, digest)
    assert not results.is_same(text + b"\n", digest)
    assert not results.is_same(text, b"")
