"""Lines of results.jsonl as columns and cells."""

import csv
import io
import json
from dataclasses import replace

import pytest
from happened import a_run, a_settled, an_ending
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.sinks.delimited import cell, head, row
from runner.tables import FIELDS, MOST_CHARACTERS, MOST_OUTPUT_KEYS, Keys, column, default_columns, named_apart
from runner.values import MISSING, JsonObject, JsonValue, parse

LINE: JsonObject = {"row": {"a.b": 1, "a": {"b": 2, "c.d": 3}}, "output": {"images": [{"url": "x"}, {"url": None}]}}


def test_the_fields_are_those_of_a_line() -> None:
    """A field that is new in results.jsonl must be one that can be asked for."""
    line = parse(a_settled(a_run(), ending=an_ending(output=1)).line)
    assert sorted({*line, "reused_from", "cost_usd"}) == sorted(FIELDS)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("row.a.b", 1),
        ("row.a.c.d", 3),
        ("row.a", {"b": 2, "c.d": 3}),
        ("output.images.0.url", "x"),
        ("output.images.1.url", None),
        ("output.images.1", {"url": None}),
        ("output.images.2.url", MISSING),
        ("output.images.url", MISSING),
        ("output.images.-1", MISSING),
        ("output.images.0.url.more", MISSING),
        ("output.nothing", MISSING),
        ("error.message", MISSING),
        ("row.", MISSING),
    ],
)
def test_a_path_leads_to_a_value(path: str, value: JsonValue) -> None:
    """Through objects and lists; a key with dots, as the columns of a CSV file may have, is found as well."""
    assert column(path).take(LINE) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (MISSING, ""),
        (True, "true"),
        (-5, "-5"),
        (-0.5, "-0.5"),
        (10**30, "1" + "0" * 30),
        ("a horse", "a horse"),
        ("", ""),
        ({"a": ["é", -1]}, '{"a":["é",-1]}'),
        ([], "[]"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("\n=1", "'\n=1"),
        ("＝1+1", "'＝1+1"),
        ("1-1", "1-1"),
        ("'=1", "'=1"),
    ],
    ids=repr,
)
def test_a_cell_can_not_become_a_formula(value: JsonValue, text: str) -> None:
    """What a model wrote is opened in a spreadsheet; numbers stay numbers there, also negative ones."""
    assert cell(value) == text


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.text(), min_size=1, max_size=4).filter(lambda cells: not any("\0" in text for text in cells)))
def test_any_reader_of_csv_gets_the_cells_back(cells: list[str]) -> None:
    """Quotes, commas, line ends of all kinds, a row with nothing in it."""
    columns = [column(str(number)) for number in range(len(cells))]
    line: JsonObject = {str(number): text for number, text in enumerate(cells)}
    data = head(columns) + row(columns, line) + row(columns, line)
    found = list(csv.reader(io.StringIO(data.decode(), newline="")))
    assert found == [[str(number) for number in range(len(cells))], *[[cell(text) for text in cells]] * 2]


def test_a_lone_surrogate_does_not_keep_a_file_from_being_written() -> None:
    """JSON can say it, UTF-8 can't."""
    assert row([column("output")], {"output": "a\ud800"}) == b"a\\ud800\n"


def test_default_columns_are_those_that_any_line_has() -> None:
    """Rows of several jobs don't have the same keys; the first to come is the first column."""
    lines: list[JsonObject] = [
        {"row": {"b": 1}, "matrix": None},
        {"row": None, "matrix": {"seed": 1}},
        {"row": {"a": 1, "b": 2}, "matrix": {"size": 2, "seed": 1}},
    ]
    names = [column.name for column in default_columns(iter(lines))]
    assert names == [
        *("key", "job", "index", "state", "outcome", "status", "row.b", "row.a", "matrix.seed", "matrix.size"),
        *("repeat", "output", "error", "error_type", "job_id", "worker_id", "attempts", "delay_time_ms"),
        *("execution_time_ms", "submitted_at", "settled_at", "artifacts", "reused_from", "cost_usd"),
    ]


def names(lines: list[JsonObject], known: Keys | None = None) -> list[str]:
    """The default columns that are not always there."""
    whole = ({"row": None, "matrix": None} | line for line in lines)
    return [one.name for one in default_columns(whole, known) if "." in one.name]


def test_a_flat_output_has_a_column_for_each_key() -> None:
    """So that one can take the mean of a score without knowing JSON; what is nested stays in the output alone."""
    lines: list[JsonObject] = [
        {"output": {"score": 0.5, "label": None, "boxes": None}},
        {"output": "no horse"},
        {},
        {"output": {"label": "horse", "boxes": [1], "text": "x" * (MOST_CHARACTERS + 1)}},
    ]
    assert names(lines) == ["output.score", "output.label"]


def test_outputs_with_very_many_keys_have_no_columns_of_them() -> None:
    """Keys that are data, such as ids, would make a table as wide as it is long."""
    assert len(names([{"output": {str(n): n for n in range(MOST_OUTPUT_KEYS)}}])) == MOST_OUTPUT_KEYS
    assert names([{"output": {str(n): n}} for n in range(MOST_OUTPUT_KEYS + 1)]) == []


def test_what_the_job_file_names_is_a_column_before_any_run_has_it() -> None:
    """A nightly table has the same columns when nothing has settled, and in the order of the file."""
    manifest = {
        "plan": {"photos": 4, "captions": 1},
        "spec": {
            "jobs": {
                "photos": {"rows": {"inline": [{"b": 1}, {"a": 2}], "matrix": {"seed": [1]}, "include": [{"size": 9}]}},
                "captions": {"rows": {"inline": None, "matrix": {"lang": ["de"]}, "include": []}},
                "left out": {"rows": {"inline": [{"c": 1}]}},
            }
        },
    }
    known = Keys.planned(manifest)
    assert known == Keys(("b", "a"), ("seed", "size", "lang"))
    assert names([{"row": {"z": 1, "a": 1}}], known) == [
        *("row.b", "row.a", "row.z", "matrix.seed", "matrix.size", "matrix.lang"),
    ]
    assert Keys.planned(manifest, ["captions"]) == Keys((), ("lang",))
    assert Keys.planned({"plan": {}}) == Keys()


def test_columns_of_one_name_are_told_apart() -> None:
    """A table can't have two of one name, nor a name that UTF-8 can't have."""
    given = [replace(column("key"), name=name) for name in ("key", "key", "row.\ud800", "row.\\ud800", "key_2")]
    assert [one.name for one in named_apart(given)] == ["key", "key_2", "row.\\ud800", "row.\\ud800_2", "key_2_2"]


def test_an_error_is_two_columns() -> None:
    """One to read, one to count."""
    line = {"row": None, "matrix": None, "error": {"type": "ValueError", "message": "no horse", "traceback": "…"}}
    taken = {column.name: column.take(line) for column in default_columns([]) if column.name.startswith("error")}
    assert taken == {"error": "no horse", "error_type": "ValueError"}
    assert json.loads(json.dumps(taken)) == taken
