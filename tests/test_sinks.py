"""Every form of the results, held to the same: nothing lost, nothing changed, whatever the values are."""

import csv
import io
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from frames import needs_pyarrow
from happened import a_run, a_settled, an_ending, skipped
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.sinks.base import Source
from runner.sinks.delimited import cell
from runner.sinks.fit import moment
from runner.sinks.kinds import KINDS, TABLES
from runner.states import Outcome
from runner.tables import TYPES, Column, Keys, Type, named_apart
from runner.values import MISSING, JsonObject, JsonValue, dump, parse

EVERY = [pytest.param(kind, marks=needs_pyarrow if kind == "parquet" else ()) for kind in KINDS]
Lines = list[JsonObject]


def source(lines: Iterable[JsonObject], fields: Sequence[Column] | None = None, known: Keys | None = None) -> Source:
    """*lines* as a sink is given them."""
    texts = [dump(line) + b"\n" for line in lines]

    def read() -> Iterator[tuple[bytes, JsonObject]]:
        return ((text, parse(text)) for text in texts)

    return Source(read, read, fields, known or Keys())


def written(kind: str, given: Source) -> bytes:
    """The file that comes of it."""
    out = io.BytesIO()
    KINDS[kind](given, out.write)
    return out.getvalue()


def a_line(row: JsonObject | None, output: JsonValue = MISSING, *, number: int = 0, **more: Any) -> JsonObject:
    """The line of a run that succeeded with *output*."""
    line: JsonObject = parse(a_settled(a_run(f"k{number}", index=number), ending=an_ending(output=None)).line)
    line |= {"row": row, "output": output} | more
    return {name: value for name, value in line.items() if value is not MISSING}


def lines_of(rows: Iterable[JsonObject], outputs: Iterable[JsonValue] = ()) -> Lines:
    """A line for each of *rows*, known by their ``custom_id`` as well."""
    given = iter(outputs)
    return [
        a_line(row | {"custom_id": f"c{number}"}, next(given, MISSING), number=number)
        for number, row in enumerate(rows)
    ]


# What each form must say of lines, and how it is read


def _json_lines(data: bytes) -> Lines:
    return [parse(text) for text in data.splitlines()]


def _cells(data: bytes) -> Lines:
    return [dict(row) for row in csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True)]


def _table(data: bytes) -> Lines:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    found: Lines = [{} for _ in range(table.num_rows)]
    for field, values in zip(table.schema, table.columns, strict=True):
        is_json = (field.metadata or {}).get(b"encoding") == b"json"
        for line, value in zip(found, values.to_pylist(), strict=True):
            if value is not None:
                line[field.name] = parse(value.encode()) if is_json else value
    return found


READ: dict[str, Callable[[bytes], Lines]] = {
    "jsonl": _json_lines,
    "json": parse,
    "csv": _cells,
    "parquet": _table,
    "openai": _json_lines,
}


def expected(kind: str, given: Source) -> Lines:
    """What its reader must find."""
    lines = [line for _, line in given.lines()]
    if kind in TABLES:
        columns = given.columns()
        if kind == "csv":
            return [{_utf8(one.name): _utf8(cell(one.take(line))) for one in columns} for line in lines]
        return [_values(named_apart(columns), line) for line in lines]
    if kind != "openai":
        return lines
    return [
        {
            "id": line["key"],
            "custom_id": line["row"]["custom_id"],
            "response": {"status_code": 200, "request_id": line["job_id"], "body": line.get("output")},
            "error": None,
        }
        for line in lines
    ]


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _values(columns: Sequence[Column], line: JsonObject) -> JsonObject:
    taken = {one.name: one.take(line) for one in columns}
    found = {name: value for name, value in taken.items() if value is not None and value is not MISSING}
    return {name: moment(value) if TYPES.get(name) is Type.TIME else value for name, value in found.items()}


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same, 1 and 1.0 too, but not 1 and true, nor 0.0 and -0.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and isinstance(other, float):
        return repr(one) == repr(other)
    return bool(one == other)


def check(kind: str, given: Source) -> None:
    """Hold the file of *kind* against what it must say."""
    found, wanted = READ[kind](written(kind, given)), expected(kind, given)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert is_same(one, other), f"{one}\n{other}"


HOSTILE = (
    *("", " ", "=1+1", "+1", "-1", "@x", "\t", "\r", "\n", "\r\n", "＝1", '"', '""', "a,b", "a;b", "a\nb", "a\rb"),
    *("\x1b[31m", "\x9b31m", "\u2028", "\u202e", "\ufeff", "\ufffe", "\x7f", "\x01", "🐴", "e\u0301", "null", "NaN"),
    *("007", "1e5", "true", "[1]", '{"a":1}', "2026-11-23", "2026-11-23T00:00:00.000Z", "x" * 20_000),
)
ODD = ("\0", "a\0b", "\ud800", "a\udfff")
"""Texts that not every reader of CSV takes, or that UTF-8 has as their escapes only."""


@pytest.mark.parametrize("kind", EVERY)
def test_a_batch_without_a_result_is_a_file_that_can_be_read(kind: str) -> None:
    """A nightly job must not fail of a night on which nothing ran."""
    check(kind, source([]))
    check(kind, source([], known=Keys(("prompt",), ("seed",))))


@pytest.mark.parametrize("kind", EVERY)
def test_every_line_comes_once_in_order(kind: str) -> None:
    """Also the thousandth."""
    check(kind, source(lines_of([{"n": n} for n in range(1200)], [{"score": n / 3} for n in range(1200)])))


@pytest.mark.parametrize("kind", EVERY)
def test_a_text_comes_out_as_it_went_in(kind: str) -> None:
    """What people and models write: line ends, quotes, controls, and what looks like something else."""
    texts = [text for text in (*HOSTILE, *ODD) if kind != "csv" or "\0" not in text]
    check(kind, source(lines_of([{"t": text} for text in texts], texts)))
    check(kind, source(lines_of([{"t": text} for text in texts], [{"t": text, "n": [text]} for text in texts])))


@pytest.mark.parametrize("kind", EVERY)
def test_a_key_comes_out_as_it_went_in(kind: str) -> None:
    """The first line of somebody's CSV file is as hostile as the others."""
    texts = [text for text in (*HOSTILE, *ODD) if kind != "csv" or "\0" not in text]
    check(kind, source(lines_of([dict.fromkeys(texts, 1)], [dict.fromkeys(texts, 1)])))
    check(kind, source(lines_of([{text: 1} for text in texts], [{text: "x"} for text in texts])))


MIXTURES: dict[str, list[JsonValue]] = {
    "whole numbers": [1, -1, 0, 2**63 - 1, -(2**63)],
    "numbers": [1, 0.5, -0.0, 1e308, 5e-324, 2**53],
    "true and false": [True, False, None],
    "null": [None, None],
    "all kinds": [1, "1", 1.0, True, None, [1], {"a": 1}, "", [], {}],
    "true and 1": [True, 1, 0, False],
    "beyond 64 bit": [2**63, -(2**63) - 1, 10**30, 1],
    "whole numbers that no double is, beside one": [2**53 + 1, 0.5],
    "numbers in texts": ["1", "2", 3],
    "nested": [{"a": {"b": [1, {"c": None}]}}, {"a": 2**70}, [[]]],
    "lists of texts": [["a"], [], ["b", "c"]],
    "times": ["2026-11-23T00:00:00.000Z", "2026-11-23T01:00:00.000Z"],
    "a lone surrogate": ["\ud800", "x", "é"],
}


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("name", MIXTURES)
def test_no_value_is_changed_to_be_like_its_neighbours(kind: str, name: str) -> None:
    """In one column, and of the outputs, with other columns beside it; also where some runs have none of it."""
    values = MIXTURES[name]
    check(kind, source(lines_of([{"v": value} for value in values], values)))
    check(kind, source(lines_of([{"v": value} for value in values] + [{}], [{"v": value} for value in values])))


@pytest.mark.parametrize("kind", EVERY)
def test_fields_of_ours_that_are_not_what_they_should_be_come_out_too(kind: str) -> None:
    """A service that sends a time as a text has no batch fail at its end."""
    lines = lines_of([{}, {}])
    odd = {"worker_id": 7, "delay_time_ms": "soon", "artifacts": None, "status": ["x"], "attempts": 2**70}
    lines[0] |= odd
    given = source(lines)
    found = READ[kind](written(kind, given))
    assert len(found) == 2
    if kind == "parquet":
        assert {name: found[0].get(name) for name in odd} == odd


def _disk(room_bytes: int) -> Callable[[bytes], int]:
    """A disk that gets full."""
    left = [room_bytes]

    def write(data: bytes) -> int:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return len(data)

    return write


@pytest.mark.parametrize("room_bytes", [0, 3, 300])
@pytest.mark.parametrize("kind", EVERY)
def test_a_full_disk_is_said_as_such(kind: str, room_bytes: int) -> None:
    """Whoever opened the file knows what to do with that, and with nothing else."""
    lines = lines_of([{"n": n} for n in range(100)])
    with pytest.raises(OSError, match="No space left on device") as caught:
        KINDS[kind](source(lines), _disk(room_bytes))
    assert caught.value.errno == 28


@pytest.mark.parametrize("kind", EVERY)
def test_memory_does_not_grow_with_the_lines(kind: str) -> None:
    """20,000 lines take no more than 5,000."""
    peaks = []
    for lines in (5_000, 20_000):
        tracemalloc.start()
        try:
            KINDS[kind](_many(lines), lambda data: None)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 12_000_000
    assert peaks[1] < 1.25 * peaks[0] + 500_000


def _many(lines: int) -> Source:
    line = a_line({"prompt": "a horse " * 20, "n": 0}, {"score": 0.5, "text": "x" * 300})

    def read() -> Iterator[tuple[bytes, JsonObject]]:
        for number in range(lines):
            told = line | {"row": {"n": number, "custom_id": str(number)}}
            yield dump(told) + b"\n", told

    return Source(read, read)


# What one form has for itself


def _types(lines: Lines, **more: Any) -> dict[str, str]:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(pyarrow.BufferReader(written("parquet", source(lines, **more))))
    return {
        field.name: "json" if (field.metadata or {}).get(b"encoding") == b"json" else str(field.type)
        for field in schema
    }


@needs_pyarrow
@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("whole numbers", "int64"),
        ("numbers", "double"),
        ("true and false", "bool"),
        ("null", "string"),
        ("times", "string"),
        ("lists of texts", "json"),
        *((name, "json") for name in ("all kinds", "true and 1", "beyond 64 bit", "numbers in texts", "nested")),
        ("whole numbers that no double is, beside one", "json"),
        ("a lone surrogate", "json"),
    ],
)
def test_a_column_has_the_type_that_all_its_values_fit(name: str, type_: str) -> None:
    """A text that looks like a time is a text: only ours are known to be times."""
    values = MIXTURES[name]
    assert _types([a_line({"v": value}) for value in values])["row.v"] == type_


@needs_pyarrow
def test_our_own_columns_have_their_types_whatever_has_settled() -> None:
    """Files of many nights are read as one table."""
    ours = {
        **dict.fromkeys(("key", "job", "state", "outcome", "status", "output", "error", "error_type"), "string"),
        **dict.fromkeys(("job_id", "worker_id", "reused_from"), "string"),
        "cost_usd": "double",
        **dict.fromkeys(("index", "repeat", "attempts", "delay_time_ms", "execution_time_ms"), "int64"),
        **dict.fromkeys(("submitted_at", "settled_at"), "timestamp[ms, tz=UTC]"),
        "artifacts": "list<element: string>",
    }
    assert _types([]) == ours
    assert _types([a_line(None, "a horse", artifacts=["artifacts/1.png"])]) == ours
    assert _types([parse(skipped(a_run()).line)]) == ours


def test_openai_s_lines_say_what_did_not_succeed() -> None:
    """As its error files have it: no response, and why."""
    failed = parse(a_settled(a_run("k1", index=1), ending=an_ending(Outcome.FAILED, output=MISSING)).line)
    never = parse(skipped(a_run("k2", index=2)).line)
    numbers = count()
    lines = [
        line | {"row": {"custom_id": f"c{next(numbers)}"}}
        for line in (a_line(None, [{"id": "chatcmpl-1"}]), failed, never, a_line(None, [{"a": 1}, {"a": 2}], number=3))
    ]
    found = _json_lines(written("openai", source(lines)))
    assert [one["custom_id"] for one in found] == ["c0", "c1", "c2", "c3"]
    assert [one["response"] and one["response"]["body"] for one in found] == [
        {"id": "chatcmpl-1"},
        None,
        None,
        [{"a": 1}, {"a": 2}],
    ]
    assert [one["error"] for one in found] == [
        None,
        {"code": "failed", "message": "it was failed"},
        {"code": "skipped", "message": "the run was skipped"},
        None,
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"custom_id": "a"}, None],
            "error: --format openai knows a run by the custom_id of its row, and run 1 of job photos has none\n"
            "  help: choose the jobs whose rows have one with --job, or write --format jsonl",
        ),
        (
            [{"custom_id": "a"}, {"custom_id": "b"}, {"custom_id": "a"}],
            "error: --format openai knows a run by its custom_id, and run 2 of job photos has one that another run has:"
            ' "a"\n  help: choose one of them with --job, or with --where "matrix.seed == 1"',
        ),
    ],
    ids=["none", "twice"],
)
def test_what_openai_s_form_can_not_say_is_refused(rows: list[JsonObject | None], message: str) -> None:
    """Before a line is written: half a file would be taken for a whole one."""
    told: list[bytes] = []
    with pytest.raises(UsageError) as caught:
        KINDS["openai"](source([a_line(row, number=number) for number, row in enumerate(rows)]), told.append)
    assert (caught.value.render(), told) == (message, [])


_TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS
)
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(_TEXTS, inner), max_leaves=4)
_ROWS = st.dictionaries(st.sampled_from(["a", "b", "A", "a.b", ""]) | _TEXTS, _VALUES, max_size=3)


@needs_pyarrow
@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(st.tuples(_ROWS, _VALUES), max_size=4), st.lists(_SCALARS, min_size=1, max_size=4))
def test_rows_come_through_jsonl_and_parquet_unchanged(pairs: list[tuple[JsonObject, Any]], one: list[Any]) -> None:
    """Whatever JSON can say; null and nothing are the same in a table."""
    lines = lines_of([row | {"one": one[number % len(one)]} for number, (row, _) in enumerate(pairs)])
    for line, (_, output) in zip(lines, pairs, strict=True):
        line["output"] = output
    check("jsonl", source(lines))
    check("parquet", source(lines))
