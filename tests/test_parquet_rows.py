"""Rows from parquet: each value the same, or a text by the one rule of its type, or refused with its place."""

import base64
import datetime as dt
import math
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from row_sources import never

from runner.inputs.base import BadRow
from runner.inputs.parquet import BATCH_ROWS
from runner.inputs.source import DataFile


def read(folder: Path, table: Any, **options: Any) -> list[Any]:
    """The rows of *table* once it is a file, and what is wrong with rows, as a person reads it."""
    path = folder / "a.parquet"
    parquet.write_table(table, path, **options)
    found: list[Any] = []
    try:
        found += DataFile(path).rows(lambda bad: found.append(f"{bad.line}: {bad.message}"))
    except BadRow as bad:
        found.append(f"{bad.line}: {bad.message}; {bad.fix}")
    return found


def column(values: list[Any], kind: Any) -> Any:
    """A table of one column."""
    return pyarrow.table({"v": pyarrow.array(values, kind)})


ZONE = "Europe/Berlin"


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (pyarrow.null(), [None], [None]),
        (pyarrow.bool_(), [True, None], [True, None]),
        (pyarrow.int8(), [-128, None], [-128, None]),
        (pyarrow.int64(), [-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
        (pyarrow.uint64(), [2**64 - 1, None], [2**64 - 1, None]),
        (pyarrow.float64(), [0.1, -0.0, 1.0, None], [0.1, -0.0, 1.0, None]),
        (pyarrow.float32(), [0.5, 0.1], [0.5, 0.10000000149011612]),
        (pyarrow.float16(), [0.5, None], [0.5, None]),
        (pyarrow.string(), ["007", "", "ä 🐎", None], ["007", "", "ä 🐎", None]),
        (pyarrow.large_string(), ["x", None], ["x", None]),
        (pyarrow.binary(), [b"\xff\0", b"", None], ["/wA=", "", None]),
        (pyarrow.binary(2), [b"hi", None], ["aGk=", None]),
        (pyarrow.decimal128(20, 2), [Decimal("12.50"), Decimal("-0.01"), None], ["12.50", "-0.01", None]),
        (pyarrow.decimal256(60, 0), [Decimal(10**59)], ["1" + "0" * 59]),
        (pyarrow.date32(), [dt.date(2026, 11, 23), dt.date(1, 1, 1), None], ["2026-11-23", "0001-01-01", None]),
        (pyarrow.timestamp("s"), [0, None], ["1970-01-01T00:00:00", None]),
        (pyarrow.timestamp("ms"), [1_500, -1], ["1970-01-01T00:00:01.5", "1969-12-31T23:59:59.999"]),
        (pyarrow.timestamp("ns"), [1], ["1970-01-01T00:00:00.000000001"]),
        (pyarrow.timestamp("us", ZONE), [0, 10**6], ["1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z"]),
        (pyarrow.time32("ms"), [45_296_000, None], ["12:34:56", None]),
        (pyarrow.time64("ns"), [1], ["00:00:00.000000001"]),
        (pyarrow.uuid(), [UUID(int=1).bytes, None], ["00000000-0000-0000-0000-000000000001", None]),
        (pyarrow.list_(pyarrow.int64()), [[1, None], [], None, [2]], [[1, None], [], None, [2]]),
        (pyarrow.large_list(pyarrow.date32()), [[dt.date(2026, 1, 1)]], [["2026-01-01"]]),
        (pyarrow.list_(pyarrow.float32(), 2), [[1.0, 2.0], None], [[1.0, 2.0], None]),
        (
            pyarrow.struct([("a", pyarrow.int64()), ("b", pyarrow.list_(pyarrow.binary()))]),
            [{"a": 1, "b": [b"x"]}, None, {"a": None, "b": None}],
            [{"a": 1, "b": ["eA=="]}, None, {"a": None, "b": None}],
        ),
        (
            pyarrow.map_(pyarrow.string(), pyarrow.date32()),
            [[("k", dt.date(2026, 1, 1)), ("l", None)], [], None],
            [{"k": "2026-01-01", "l": None}, {}, None],
        ),
        (pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), ["a", "b", "a", None], ["a", "b", "a", None]),
    ],
    ids=str,
)
def test_each_type_has_its_one_form(tmp_path: Path, kind: Any, values: list[Any], expected: list[Any]) -> None:
    """None of them is rounded, moved to another time zone, or guessed at."""
    array = values if kind != pyarrow.uuid() else pyarrow.array(values, pyarrow.binary(16))
    found = read(tmp_path, column(array, kind) if kind != pyarrow.uuid() else _uuids(array))
    assert [repr(row) for row in found] == [repr({"v": value}) for value in expected]


def _uuids(storage: Any) -> Any:
    return pyarrow.table({"v": pyarrow.ExtensionArray.from_storage(pyarrow.uuid(), storage)})


@pytest.mark.parametrize(
    ("kind", "values", "messages"),
    [
        (
            pyarrow.float64(),
            [math.nan, 1.0, math.inf, -math.inf],
            [
                "1: column 'v': JSON has no number 'NaN'",
                "3: column 'v': JSON has no number 'Infinity'",
                "4: column 'v': JSON has no number '-Infinity'",
            ],
        ),
        (
            pyarrow.list_(pyarrow.struct([("f", pyarrow.float32())])),
            [[{"f": 1.0}, {"f": math.nan}], [{"f": 2.0}], [], [{"f": math.nan}]],
            [
                "1: column 'v[].f': JSON has no number 'NaN'",
                "4: column 'v[].f': JSON has no number 'NaN'",
            ],
        ),
        (pyarrow.date32(), [-(10**9)], ["1: column 'v': a date is not in the years 1 to 9999"]),
        (pyarrow.timestamp("us"), [2**62, 0], ["1: column 'v': a date is not in the years 1 to 9999"]),
        (
            pyarrow.map_(pyarrow.string(), pyarrow.int8()),
            [[("k", 1), ("k", 2)]],
            ["1: column 'v': a key is there twice"],
        ),
    ],
    ids=str,
)
def test_a_value_without_a_form_is_a_bad_row(tmp_path: Path, kind: Any, values: list[Any], messages: list[str]) -> None:
    """With the number of the row and the name of the column; the other rows are read."""
    far = kind == pyarrow.date32()  # Python has no such date
    found = read(tmp_path, column(pyarrow.array(values, pyarrow.int32()).view(kind) if far else values, kind))
    assert [one for one in found if isinstance(one, str)] == messages
    assert len(found) == len(values)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            pyarrow.table({"v": pyarrow.array([1], pyarrow.duration("s"))}),
            "column 'v' is of the type duration[s], which has no form in JSON",
        ),
        (
            pyarrow.table({"v": pyarrow.array([[(1, 2)]], pyarrow.map_(pyarrow.int8(), pyarrow.int8()))}),
            "column 'v' is a map whose keys are int8, and JSON's are text",
        ),
        (pyarrow.table([[1], [2]], names=["v", "v"]), "column 'v' is there twice"),
    ],
    ids=["duration", "map", "twice"],
)
def test_a_column_without_a_form_refuses_the_file(tmp_path: Path, table: Any, message: str) -> None:
    """Once, not for each row."""
    assert read(tmp_path, table) == [f"1: {message}; write the column as text or numbers, or leave it out"]


def test_old_timestamps_of_96_bits_are_refused(tmp_path: Path) -> None:
    """As nanoseconds in 64 bits, 0001-01-01 becomes a day of 1754, and nobody is told."""
    table = column([0], pyarrow.timestamp("us"))
    (found,) = read(tmp_path, table, use_deprecated_int96_timestamps=True)
    assert found.startswith("1: column 'v' is of the type INT96, whose times the library may change; ")


def test_text_that_is_not_utf_8_is_a_bad_row(tmp_path: Path) -> None:
    """Writers don't check it."""
    bad = pyarrow.StringArray.from_buffers(
        2, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"a\xff")
    )
    assert read(tmp_path, pyarrow.table({"v": bad})) == [{"v": "a"}, "2: column 'v': a text is not UTF-8"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected parquet, as the file's name says: "),
        (b"n,text\n1,2\n", "expected parquet, as the file's name says: "),
        (b"PAR1" + b"\0" * 100 + b"PAR1", "expected parquet, as the file's name says: "),
    ],
    ids=["empty", "csv", "damaged"],
)
def test_what_is_no_parquet_is_told(tmp_path: Path, data: bytes, message: str) -> None:
    """The library's own words come behind ours."""
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(BadRow) as raised:
        list(DataFile(tmp_path / "a.parquet").rows(never))
    assert raised.value.message.startswith(message)
    assert raised.value.fix == "write the file again"


def test_a_damaged_page_is_told_where_reading_has_stopped(tmp_path: Path) -> None:
    """Rows before it were read, and none is made up."""
    path = tmp_path / "a.parquet"
    rows = 20_000
    table = pyarrow.table({"v": [f"text {number}" for number in range(rows)]})
    parquet.write_table(table, path, row_group_size=rows // 2, use_dictionary=False, compression="zstd")
    data = bytearray(path.read_bytes())
    middle = len(data) * 3 // 4
    data[middle : middle + 100] = b"\0" * 100
    path.write_bytes(data)
    found: list[Any] = []
    with pytest.raises(BadRow, match="the parquet data is damaged: ") as raised:
        found += DataFile(path).rows(never)
    assert raised.value.line == len(found) + 1 > rows // 2


def test_large_rows_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    """A row group of images is no reason for gigabytes."""
    path = tmp_path / "a.parquet"
    image = bytes(range(256)) * 4096
    values = [bytes([number]) + image for number in range(60)]
    pages = {"data_page_size": 2**20, "write_batch_size": 1}  # a page is read as a whole
    parquet.write_table(column(values, pyarrow.binary()), path, use_dictionary=False, **pages)
    before = pyarrow.total_allocated_bytes()
    most = 0
    tracemalloc.start()
    try:
        for number, row in enumerate(DataFile(path).rows(never)):
            assert row["v"] == base64.b64encode(values[number]).decode()
            most = max(most, pyarrow.total_allocated_bytes() - before)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 40 * 2**20  # the file has 60 MiB
    assert peak < 60 * 2**20


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (pyarrow.string(), TEXT),
    (pyarrow.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pyarrow.uint64(), st.integers(0, 2**64 - 1)),
    (pyarrow.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    (pyarrow.bool_(), st.booleans()),
    (pyarrow.list_(pyarrow.string()), st.lists(TEXT, max_size=3)),
    (
        pyarrow.struct([("x", pyarrow.int64()), ("y", pyarrow.list_(pyarrow.float64()))]),
        st.builds(
            lambda x, y: {"x": x, "y": y},
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3),
        ),
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("property")


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.data(), st.integers(0, 20), st.integers(1, 7), st.booleans())
def test_every_value_that_json_has_comes_through(
    folder: Path, data: st.DataObject, count: int, group: int, dictionary: bool
) -> None:
    """Whatever the columns, the row groups and the encoding."""
    kinds = data.draw(st.dictionaries(TEXT.filter(bool), st.sampled_from(TYPES), min_size=1, max_size=3))
    rows = [
        {name: data.draw(st.none() | values) for name, (_, values) in kinds.items()}  # a column of its own type each
        for _ in range(count)
    ]
    schema = pyarrow.schema([(name, kind) for name, (kind, _) in kinds.items()])
    table = pyarrow.Table.from_pylist(rows, schema)
    found = read(folder, table, row_group_size=group, use_dictionary=dictionary)
    assert [repr(row) for row in found] == [repr(row) for row in rows]


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.datetimes() | st.none(), min_size=1, max_size=5), st.sampled_from(["us", "ms", "s"]), st.booleans())
def test_every_time_comes_through(folder: Path, times: list[dt.datetime | None], unit: str, utc: bool) -> None:
    """Python reads the texts back as the times that they were."""
    least = {"us": 1, "ms": 1000, "s": 10**6}[unit]
    zone = dt.UTC if utc else None
    exact = [time and time.replace(microsecond=time.microsecond // least * least, tzinfo=zone) for time in times]
    found = read(folder, column(exact, pyarrow.timestamp(unit, "UTC" if utc else None)))
    assert [row["v"] and dt.datetime.fromisoformat(row["v"]) for row in found] == exact


def test_a_batch_is_no_boundary(tmp_path: Path) -> None:
    """Lists and objects have offsets of their own, which start anew nowhere."""
    count = 2 * BATCH_ROWS + 3
    rows = [{"l": [number] * (number % 4), "s": {"n": number}, "t": str(number)} for number in range(count)]
    assert read(tmp_path, pyarrow.Table.from_pylist(rows)) == rows
