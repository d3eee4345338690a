"""Data files, read once, row by row, and never guessed at."""

import gzip
import hashlib
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.inputs import jsonl, shuffle, whole
from runner.inputs.base import BadRow, Tape
from runner.inputs.find import find, kind_of
from runner.inputs.kinds import KINDS
from runner.inputs.source import DataFile
from runner.spec import DATA_KINDS


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
        (b"a\n1\nd\xe9\n", [{"a": "1"}, "3:2: expected UTF-8 text, found the byte 0xE9"]),
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
        (b'{"a": "d\xe9"}\n{"b": 1}\n', ["1:9: expected UTF-8 text, found the byte 0xE9", {"b": 1}]),
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


ATOMS = (
    '"a"',
    '"b"',
    '"\\u0061"',
    '"x: y"',
    '"q\\":"',
    '"{"',
    "[1]",
    ":",
    " :",
    ": ",
    ",",
    "-0",
    "1e5",
    "1.5",
    "null",
    "NaN",
)
LARGE = ("9223372036854775808", "18446744073709551615", "18446744073709551616", "-9223372036854775809", "1e19", "1E400")


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(ATOMS + LARGE), max_size=9))
def test_the_quick_reader_of_jsonl_never_differs_from_the_careful_one(atoms: list[str]) -> None:
    """It may leave a line to the other one; what it reads is the same, types and order included."""
    for text in ("{" + "".join(atoms) + "}", "{" + ",".join(f'"{n % 3}":{one}' for n, one in enumerate(atoms)) + "}"):
        row = jsonl._surely(text.encode())
        assert row is None or repr(row) == repr(jsonl._row(text))


def test_the_quick_reader_of_jsonl_reads_what_most_lines_are() -> None:
    """A batch reads its rows three times before and while it runs."""
    assert jsonl._surely(b'{"prompt": "a: b, {c}", "seed": 7, "guidance": 7.5, "hd": true}\n') is None
    assert jsonl._surely(b'{"prompt": "a: b, c", "seed": 7, "guidance": 7.5, "hd": true}\n') == {
        "prompt": "a: b, c",
        "seed": 7,
        "guidance": 7.5,
        "hd": True,
    }


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


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'[{"a": 1}, {"b": [null, 1.0]}]', [{"a": 1}, {"b": [None, 1.0]}]),
        (b"\xef\xbb\xbf [ ] \r\n", []),
        (
            b'\n[\n{"a":\n1}\n,{"id": 123456789012345678901234567890}]\n',
            [{"a": 1}, {"id": 123456789012345678901234567890}],
        ),
        (b"", ["1:1: expected a list of objects"]),
        (b'{"a": 1}\n{"a": 2}\n', ["1:1: expected a list of objects"]),
        (b'[{"a": 1}\n {"a": 2}]', [{"a": 1}, "2:2: expected ',' or ']' after an object"]),
        (b'[{"a": 1},\n]', [{"a": 1}, "1:10: a comma after the last object"]),
        (b'[{"a": 1}', [{"a": 1}, "1:10: expected ',' or ']' after an object"]),
        (b'[{"a": 1}] x', [{"a": 1}, "1:12: expected the end of the file after the list"]),
        (
            b'[{"a": 1},\n 7, "x", {"a": 2}]',
            [{"a": 1}, "2:2: expected an object, found 7", "2:5: expected an object, found 'x'", {"a": 2}],
        ),
        (b'[{"a": 1},\n {"a": tru}]', [{"a": 1}, "2:8: not JSON: expecting value"]),
        (b'[{"a": 1, "a": 2}]', ["1:2: duplicate key 'a'"]),
        (b'[{"a": NaN}]', ["1:2: JSON has no number 'NaN'"]),
        (b'[{"a": "\\ud800"}, {"b": 1}]', ["1:2: half a surrogate pair is no character", {"b": 1}]),
        (b'[{"a": ' + b"[" * 100 + b"]" * 100 + b"}]", ["1:2: nested deeper than 64 levels"]),
        (b'[{"a": ' + b"[" * 99_999, ["1:2: nested too deeply"]),
        ('[{"a": "x\u2028y"},\n7]'.encode(), [{"a": "x\u2028y"}, "2:1: expected an object, found 7"]),
        (b'[{"a": 1},\n{"b": "d\xe9"}]', ["2:9: expected UTF-8 text, found the byte 0xE9"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_json(tmp_path: Path, data: bytes, expected: list[object]) -> None:
    """One list of objects, by the rules of jsonl, each problem at its line."""
    assert rows(tmp_path, "a.json", data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"- {a: 1, b: no}\n- a: 1:30\n  b: [~, 1e3]\n", [{"a": 1, "b": "no"}, {"a": "1:30", "b": [None, 1000.0]}]),
        (b"- &x {a: 1}\n- {<<: *x, b: 2}\n", [{"a": 1}, {"a": 1, "b": 2}]),
        (b"[]\n", []),
        ("- ä: 🐎\n".encode(), [{"ä": "🐎"}]),
        (b"", ["1:1: expected a list of mappings"]),
        (b"a: 1\n", ["1:1: expected a list of mappings"]),
        (
            b"- {a: 1}\n- 7\n- [1]\n",
            [{"a": 1}, "2:3: expected a mapping, found 7", "3:3: expected a mapping, found a list"],
        ),
        (
            b"- {a: 007}\n- {b: 1, b: 2}\n",
            ["1:7: number '007' starts with a zero", "2:10: duplicate key 'b'", {"a": "007"}, {"b": 1}],
        ),
        (b"- a: 1\n---\n- b: 1\n", ["2:1: a second document starts here"]),
        (b"- a: [1\n", ["2:1: expected ',' or ']'"]),
        (b"- a: !!python/object x\n", ["1:6: tag '!!python/object' is not supported", {"a": "x"}]),
        (b"- a: \x07\n", ["1:6: character U+0007 can't be part of a YAML file"]),
        (b"- " + b"[" * 100_000, ["1:66: nested deeper than 64 levels"]),
        (b"- d\xe9\n", ["1:4: expected UTF-8 text, found the byte 0xE9"]),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("suffix", ["yaml", "yml"])
def test_yaml(tmp_path: Path, suffix: str, data: bytes, expected: list[object]) -> None:
    """Read as a job file is: what YAML 1.1 would make of `no` and `1:30` was never meant."""
    assert rows(tmp_path, f"a.{suffix}", data) == expected


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_a_file_that_is_held_in_memory_may_not_be_large(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """jsonl is for that, and the message says so."""
    monkeypatch.setattr(whole, f"MAX_{kind.upper()}_BYTES", 2**20)
    assert rows(tmp_path, f"a.{kind}", b"[\n" * 2**19) != []
    found = rows(tmp_path, f"a.{kind}", b"[]" + b"\n" * 2**20)
    assert found == ["1:1: a file of this kind has at most 1 MiB, for it is held in memory"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"a\n1\n2\n"),
        ("a.tsv", b"a\n1\n2\n"),
        ("a.jsonl", b'{"a": "1"}\n{"a": "2"}\n'),
        ("a.json", b'[{"a": "1"}, {"a": "2"}]'),
    ],
)
def test_a_packed_file_is_read_as_the_file_in_it(tmp_path: Path, name: str, data: bytes) -> None:
    """Its digest is that of the file on disk, which is what somebody can check."""
    path = tmp_path / f"{name}.GZ"
    path.write_bytes(gzip.compress(data[:5]) + gzip.compress(data[5:]))  # as `cat a.gz b.gz` makes them
    source = DataFile(path)
    assert read_all(source) == [{"a": "1"}, {"a": "2"}]
    assert source.file is not None
    assert source.file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.file.size_bytes == path.stat().st_size
    assert read_all(source) == [{"a": "1"}, {"a": "2"}]


def test_a_packed_file_is_read_in_constant_memory(tmp_path: Path) -> None:
    """A few kilobytes can hold gigabytes."""
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a\n" + (b"1" * 99 + b"\n") * 80_000))
    tracemalloc.start()
    assert sum(1 for _ in DataFile(path).rows(never)) == 80_000
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", ["10.csv", "2.csv", "B.csv", "a.csv"]),
        ("**/*.csv", ["10.csv", "2.csv", "B.csv", "a.csv", "sub/c.csv"]),
        ("[ab].csv", ["a.csv"]),
        ("?.jsonl*", ["a.jsonl.gz"]),
        ("a[1].csv", ["a[1].csv"]),
        ("*.parquet", []),
        ("a.csv", ["a.csv"]),
        ("absent.csv", ["absent.csv"]),
    ],
)
def test_a_glob_is_the_files_in_the_order_of_their_names(tmp_path: Path, pattern: str, names: list[str]) -> None:
    """By code points, the same on every machine; folders and hidden files are none."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "folder.csv").mkdir()
    for name in ("a.csv", "B.csv", "2.csv", "10.csv", ".hidden.csv", "sub/c.csv", "a.jsonl.gz", "b.txt"):
        (tmp_path / name).touch()
    if pattern == "a[1].csv":
        (tmp_path / "a[1].csv").touch()
    assert [str(path.relative_to(tmp_path)) for path in find(tmp_path, pattern)] == names
    assert [str(path) for path in find(Path("/elsewhere"), str(tmp_path / pattern))] == [
        str(tmp_path / name) for name in names
    ]


def test_the_order_of_a_seed_is_pinned() -> None:
    """The same on every machine, in every version of Python: this test may not change."""
    assert list(shuffle.order(range(10), 7, None)) == ORDER_OF_7
    assert list(shuffle.order(range(10), 8, None)) != ORDER_OF_7
    assert list(shuffle.order(range(10), -7, None)) != ORDER_OF_7


ORDER_OF_7 = [2, 5, 4, 1, 6, 9, 3, 8, 7, 0]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 10_000), max_size=60), st.integers(), st.integers(1, 70))
def test_an_order_holds_each_row_once_and_hangs_on_no_other(numbers: set[int], seed: int, limit: int) -> None:
    """A row that `where` leaves out, or one that is added, moves no other past another."""
    whole_order = list(shuffle.order(sorted(numbers), seed, None))
    assert sorted(whole_order) == sorted(numbers)
    assert list(shuffle.order(sorted(numbers), seed, limit)) == whole_order[:limit]
    some = {number for number in numbers if number % 3}
    assert list(shuffle.order(sorted(some), seed, None)) == [number for number in whole_order if number in some]


def test_shuffled_rows_are_what_they_were(tmp_path: Path) -> None:
    """They wait in a file of ours, and come back as they were read."""
    kinds: list[object] = [10**30, 1.0, 1, -0.0, None, True, "a\u2028\n", {"x": []}]
    given = [{"n": n, "v": value} for n, value in enumerate(kinds)]
    numbers = shuffle.order(range(len(given)), 1, None)
    spool = shuffle.Spool(iter(given), numbers)
    for _ in range(2):
        found = list(spool.rows())
        assert found == [given[number] for number in numbers]
        assert [type(row["v"]) for row in found] == [type(given[number]["v"]) for number in numbers]
    assert len(spool) == 8
    assert next(spool.rows()) is not next(spool.rows())


def test_a_reader_of_every_kind_that_the_grammar_names() -> None:
    """A kind that is accepted and can't be read would end in a traceback."""
    assert set(KINDS) == set(DATA_KINDS)
    assert [kind_of(name) for name in ("a.csv", "x/B.JSONL", "a.tsv.gz", "noext", ".gz", "a.b.yml")] == [
        *("csv", "jsonl", "tsv", "noext", "", "yml")
    ]


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
