"""Data files, read once, row by row, and never guessed at."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.inputs.base import BadRow, Tape
from runner.inputs.kinds import KINDS
from runner.inputs.source import DataFile


def never(bad: BadRow) -> None:
    """A report for files that have no bad row."""
    raise bad


def rows(folder: Path, name: str, data: bytes) -> list[object]:
    """The rows of a file, bad ones as ``line:column: message``."""
    (folder / name).write_bytes(data)
    found: list[object] = []
    try:
        read = KINDS[name.rpartition(".")[2]]
        found += read(Tape(folder / name), lambda bad: found.append(f"{bad.line}:{bad.column}: {bad.message}"))
    except BadRow as bad:
        found.append(f"{bad.line}:{bad.column}: {bad.message}")
    return found


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a,b\n1,x\n", [{"a": "1", "b": "x"}]),
        (b"a,b\r\n1,x\r\n", [{"a": "1", "b": "x"}]),
        (b"\xef\xbb\xbfa\n1", [{"a": "1"}]),
        (b'a,b\n"x, y","say ""hi"""\n', [{"a": "x, y", "b": 'say "hi"'}]),
        (b'a,b\n"two\nlines",x\n1,y\n', [{"a": "two\nlines", "b": "x"}, {"a": "1", "b": "y"}]),
        (b"a\n007\n1e5\n[1]\nnull\n", [{"a": "007"}, {"a": "1e5"}, {"a": "[1]"}, {"a": "null"}]),
        (b"a,b\n,\n\n1,2\n", [{"a": "", "b": ""}, {"a": "1", "b": "2"}]),
        (b"\n\na\n1\n", [{"a": "1"}]),
        ("ä,b\né,🐎\n".encode(), [{"ä": "é", "b": "🐎"}]),
        (b"a\n", []),
        (b"a,b\n" + b"x" * 200_000 + b",y\n", [{"a": "x" * 200_000, "b": "y"}]),
        (b"", ["1:1: the file has no header"]),
        (b"a,a\n1,2\n", ["1:1: column 'a' is there twice"]),
        (b"a,,c\n1,2,3\n", ["1:1: column 2 has no name"]),
        (b"a, b\n1,2\n", ["1:1: column ' b' starts or ends with a space"]),
        (
            b"a,b\n1\n2,x\n3,y,z\n",
            [
                "2:1: expected 2 values as in the header, found 1",
                {"a": "2", "b": "x"},
                "4:1: expected 2 values as in the header, found 3",
            ],
        ),
        (
            b'a,b\n"two\nlines",x\n1\n',
            [{"a": "two\nlines", "b": "x"}, "4:1: expected 2 values as in the header, found 1"],
        ),
        (b'a\n1\n"open\n2\n', [{"a": "1"}, "3:1: a quote in this row is never closed"]),
        (b'a\n"x"y\n', ["2:1: text after a closing quote"]),
        (b"a\n1\rb\n", ["2:1: a carriage return inside a line"]),
        (b"a\nx\0y\n", ["2:2: a NUL character is no text"]),
        (b"a\n1\nd\xe9\n", [{"a": "1"}, "3:2: expected UTF-8 text"]),
    ],
)
def test_csv(tmp_path: Path, data: bytes, expected: list[object]) -> None:
    """Every value is text, and a row that doesn't fit is told with its line instead of padded."""
    assert rows(tmp_path, "a.csv", data) == expected


def test_tsv_has_tabs_between_values(tmp_path: Path) -> None:
    """Commas mean nothing there."""
    assert rows(tmp_path, "a.tsv", b"a\tb\n1,5\t x\n") == [{"a": "1,5", "b": " x"}]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": 1}\n{"b": [null, true]}\n', [{"a": 1}, {"b": [None, True]}]),
        (b'\n  \n{"a": 1}', [{"a": 1}]),
        (b'\xef\xbb\xbf{"a": 1}\r\n', [{"a": 1}]),
        (b'{"id": 123456789012345678901234567890}\n', [{"id": 123456789012345678901234567890}]),
        (b'{"a": 1.0, "b": 1}\n', [{"a": 1.0, "b": 1}]),
        (b'{"a": "\\ud83d\\udc0e"}\n', [{"a": "🐎"}]),
        (
            b'[1]\n"x"\nnull\n',
            [
                "1:1: expected an object, found a list",
                "2:1: expected an object, found 'x'",
                "3:1: expected an object, found null",
            ],
        ),
        (b'{"a": 1\n{"b": 2}\n', ["1:8: not JSON: expecting ',' delimiter", {"b": 2}]),
        (b"{'a': 1}\n", ["1:2: not JSON: expecting property name enclosed in double quotes"]),
        (b'{"a": 1} {"b": 2}\n', ["1:10: not JSON: extra data"]),
        (b'{"a": NaN}\n', ["1:1: JSON has no number 'NaN'"]),
        (b'{"a": -Infinity}\n', ["1:1: JSON has no number '-Infinity'"]),
        (b'{"a": 1e999}\n', ["1:1: number '1e999' is too large"]),
        (b'{"a": {"b": 1, "b": 2}}\n', ["1:1: duplicate key 'b'"]),
        (b'{"a": "\\ud800"}\n', ["1:1: half a surrogate pair is no character"]),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}\n", ["1:1: nested deeper than 64 levels"]),
        (b'{"a": ' + b"[" * 99_999 + b"\n", ["1:1: nested too deeply"]),
        (b'{"a": "d\xe9"}\n{"b": 1}\n', ["1:9: expected UTF-8 text", {"b": 1}]),
        (b"", []),
    ],
    ids=lambda value: str(value)[:40],
)
def test_jsonl(tmp_path: Path, data: bytes, expected: list[object]) -> None:
    """An object a line, by the rules of JSON; what a request couldn't carry is refused here."""
    found = rows(tmp_path, "a.jsonl", data)
    assert found == expected
    assert [type(value) for row in found if isinstance(row, dict) for value in row.values()] == [
        type(value) for row in expected if isinstance(row, dict) for value in row.values()
    ]


def test_duplicate_keys_hide_behind_no_line(tmp_path: Path) -> None:
    """A bad line leaves the lines after it readable, so that all are told at once."""
    data = b'{"a": 1, "a": 2}\n{"a": 3}\n{"a": 1, "a": 2}\n'
    assert rows(tmp_path, "a.jsonl", data) == ["1:1: duplicate key 'a'", {"a": 3}, "3:1: duplicate key 'a'"]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2, max_size=2)
    )
)
def test_whatever_the_csv_module_writes_reads_back(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]]
) -> None:
    """Values may hold line ends, quotes and delimiters of any kind."""
    import csv

    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *table])
    assert list(DataFile(path).rows(never)) == [dict(zip("ab", row, strict=True)) for row in table]


def read_all(source: DataFile) -> list[object]:
    """Every row, none of them bad."""
    return list(source.rows(never))


def test_the_first_reading_digests_the_file(tmp_path: Path) -> None:
    """The manifest says exactly which data was run."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\r\n1\r\n2")
    source = DataFile(path)
    read_all(source)
    assert source.file is not None
    assert source.file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (source.file.size_bytes, source.file.rows) == (7, 2)
    assert read_all(source) == [{"a": "1"}, {"a": "2"}]


@pytest.mark.parametrize("new", ["a\n1\n3\n", "a\n1\n2\n3\n", "a\n1\n", "a,b\n1\n", None], ids=repr)
def test_a_file_that_changed_is_noticed(tmp_path: Path, new: str | None) -> None:
    """Runs would get other keys than the plan counted, and a resume would drift."""
    path = tmp_path / "a.csv"
    path.write_text("a\n1\n2\n")
    source = DataFile(path)
    read_all(source)
    path.unlink()
    if new is not None:
        path.write_text(new)
    with pytest.raises(UsageError, match="changed while it was being read"):
        read_all(source)


def test_a_change_that_keeps_size_and_time_is_noticed_by_the_digest(tmp_path: Path) -> None:
    """Tools that restore times exist."""
    import os

    path = tmp_path / "a.csv"
    path.write_text("a\n1\n2\n")
    source = DataFile(path)
    read_all(source)
    status = path.stat()
    path.write_text("a\n1\n3\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UsageError, match="changed while it was being read"):
        read_all(source)
