"""JSON values."""

import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import values

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(JSON.filter(lambda value: "\ud800" not in str(value)))
def test_what_is_written_reads_back(value: object) -> None:
    """Results and inputs go through files."""
    assert values.parse(values.dump(value)) == value


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**30])
def test_integers_beyond_64_bit_stay_integers(number: int) -> None:
    """orjson alone would read them as floats, and an id would change."""
    assert values.parse(values.dump({"id": number})) == {"id": number}


def test_nan_is_read_as_python_does() -> None:
    """Workers send it, although JSON has no such number."""
    assert math.isnan(values.parse(b"[NaN]")[0])


def test_nan_in_a_foreign_answer_becomes_text() -> None:
    """As null nobody would see it, and as a number no other reader would take our files."""
    assert values.parse_foreign(b"[NaN, -Infinity, 1]") == ["NaN", "-Infinity", 1]


def test_what_is_no_json_is_refused() -> None:
    """The caller decides what that means."""
    with pytest.raises(ValueError, match="Expecting"):
        values.parse(b"{nope}")


@pytest.mark.parametrize("length", [10, 20_000, 300_000])
@pytest.mark.parametrize("more", [None, 2**70])
def test_a_line_takes_no_more_memory_than_it_needs(length: int, more: int | None) -> None:
    """Lines wait for the disk, as many as runs are in flight, and orjson makes room for eight times a long text."""
    value = {"output": "x" * length, "more": more}
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    line = values.dump_line(value)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert line == values.dump(value) + b"\n"
    assert held < 1.1 * len(line) + 20_000


def test_equal_values_share_one_canonical_text() -> None:
    """A run's key must not depend on the order of keys in the file."""
    assert values.canonical({"b": [1, {"d": 2, "c": 3}], "a": "ü"}) == '{"a":"ü","b":[1,{"c":3,"d":2}]}'.encode()
    assert values.canonical({"b": 10**30, "a": 1}) == values.canonical({"a": 1, "b": 10**30})


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), ("1", 1), (None, "null"), ([], {})])
def test_different_values_differ_in_canonical_text(one: object, other: object) -> None:
    """Two runs that differ in type only are two runs."""
    assert values.canonical(one) != values.canonical(other)


def test_missing_is_not_null() -> None:
    """COMPLETED without output and COMPLETED with null are two outcomes."""
    assert values.MISSING is not None
    assert repr(values.MISSING) == "MISSING"


def test_nesting_is_counted_in_levels() -> None:
    """An output nested too deeply could be read and never be written again."""
    assert not values.is_deeper([[1], {"a": [2]}], 3)
    assert values.is_deeper([[1], {"a": [2]}], 2)
    assert not values.is_deeper("text", 0)
