"""Every source of rows behaves alike: the same rows in the same order, little memory, each bad row with its place."""

import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_files import opened, runs, write
from row_sources import (
    FILES,
    NAMES,
    PACK,
    TEXT_FILES,
    WRITE,
    make,
    never,
    open_rows,
    packed,
    request,
    some_rows,
    write_rows,
)
from terminal import ROOT

from runner.check import open_job_file
from runner.errors import JobFileError, UsageError
from runner.files import MAX_BYTES
from runner.inputs.base import MAX_LINE_BYTES, BadRow
from runner.inputs.delimited import MAX_ROW_BYTES
from runner.inputs.kinds import KINDS
from runner.inputs.packed import MOST_BYTES, PACKINGS
from runner.inputs.source import DataFile
from runner.inputs.whole import MAX_JSON_BYTES, MAX_YAML_BYTES
from runner.plan import make_plan
from runner.spec import DATA_KINDS
from runner.spec import PACKINGS as NAMED_PACKINGS


def told(folder: Path, rows: dict[str, Any]) -> list[str]:
    """What is wrong with the data of a job with these *rows*, as a person reads it."""
    with pytest.raises(JobFileError) as raised:
        make_plan(opened(folder, {"rows": rows}))
    return raised.value.render().replace(f"{folder}/", "").split("\n")


def test_the_suite_has_every_kind_and_packing() -> None:
    """A kind that is left out here is held to nothing."""
    assert set(KINDS) == set(DATA_KINDS) == set(WRITE)
    assert set(PACKINGS) == set(NAMED_PACKINGS) == set(PACK)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_comes_in_order_each_time(name: str, tmp_path: Path) -> None:
    """Planning counts the rows that the second reading hands out, and texts stay what they are."""
    made = make(name, tmp_path, 25)
    for _ in range(3):
        assert list(made.source.rows(never)) == made.rows
    made.source.verify()


@pytest.mark.parametrize("name", NAMES)
def test_a_row_that_is_changed_changes_no_other(name: str, tmp_path: Path) -> None:
    """Whoever takes megabytes out of one run's row must not touch the next reading."""
    made = make(name, tmp_path, 3)
    for row in made.source.rows(never):
        assert row is not None
        row.clear()
    copied = [made.source.copy(row) for row in made.source.rows(never) if row is not None]
    for one in copied:
        one.clear()
    assert list(made.source.rows(never)) == made.rows


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, 1])
def test_one_row_and_none_are_as_good_as_many(name: str, count: int, tmp_path: Path) -> None:
    """A quiet night has no rows, and that is no mistake."""
    if (name, count) != ("inline", 0):  # which the grammar refuses
        made = make(name, tmp_path, count)
        assert list(made.source.rows(never)) == made.rows


@pytest.mark.parametrize("name", [name for name in NAMES if name != "inline"])
def test_data_that_change_between_two_readings_are_noticed(name: str, tmp_path: Path) -> None:
    """Runs would get other keys than the plan counted, and a resume would drift."""
    made = make(name, tmp_path, 25)
    list(made.source.rows(never))
    status = made.data.stat()
    made.data.write_bytes(made.data.read_bytes() + b"\n")
    os.utime(made.data, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UsageError, match="changed while it was being read"):
        made.source.verify()
    with pytest.raises(UsageError, match="changed while it was being read"):
        list(made.source.rows(never))
    made.data.unlink()
    with pytest.raises(UsageError, match="changed while it was being read"):
        list(made.source.rows(never))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "inline"])
def test_known_data_are_known_again(name: str, tmp_path: Path) -> None:
    """A resume digests what it has read once; other data are looked at anew."""
    made = make(name, tmp_path, 25)
    list(made.source.rows(never))
    known = {file.path.absolute(): file for file in made.source.files}
    assert sum(file.rows for file in known.values()) == 25
    again = open_rows(name, tmp_path, made.rows)
    assert again.recall(known)
    assert list(again.files) == list(made.source.files)
    assert list(again.rows(never)) == made.rows
    assert not open_rows(name, tmp_path, made.rows).recall({})
    made.data.write_bytes(made.data.read_bytes() + b"\n")
    assert not open_rows(name, tmp_path, made.rows).recall(known)


STREAMED = [name for name in NAMES if name.partition(".")[0] not in ("json", "yaml", "yml", "inline", "folder")]


@pytest.mark.parametrize("name", [name for name in STREAMED if "." not in name or name.startswith("jsonl")])
def test_rows_are_read_in_little_memory(name: str, tmp_path: Path) -> None:
    """Twenty times the rows take no more of it, however they are packed."""
    made = make(name, tmp_path, 20_000)
    made.rows.clear()
    tracemalloc.start()
    try:
        assert sum(1 for _ in made.source.rows(never)) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (
        12_000_000 if name.endswith(".xz") else 4_000_000
    )  # xz has a dictionary of 8 MiB; the rows are 10 MB


@pytest.mark.parametrize("suffix", TEXT_FILES)
def test_a_byte_order_mark_is_no_part_of_the_first_row(suffix: str, tmp_path: Path) -> None:
    """Excel writes one, and `row.n` would not be there."""
    data = WRITE[suffix.partition(".")[0]](some_rows(3))
    (tmp_path / f"rows.{suffix}").write_bytes(packed(suffix, b"\xef\xbb\xbf" + data))
    assert list(DataFile(tmp_path / f"rows.{suffix}").rows(never)) == some_rows(3)


@pytest.mark.parametrize("suffix", [suffix for suffix in TEXT_FILES if suffix.startswith(("csv", "tsv", "jsonl"))])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_blank_lines_are_no_rows(suffix: str, end: bytes, tmp_path: Path) -> None:
    """They come from editors, and from joining files."""
    data = WRITE[suffix.partition(".")[0]](some_rows(3)).replace(b"\r\n", b"\n").replace(b"\n", end + end) + end
    (tmp_path / f"rows.{suffix}").write_bytes(packed(suffix, data))
    assert list(DataFile(tmp_path / f"rows.{suffix}").rows(never)) == some_rows(3)


BAD = {
    "csv": (b"n\n0\n1,2\n3\n4,5\n", [3, 5]),
    "tsv": (b"n\n0\n1\t2\n3\n4\t5\n", [3, 5]),
    "jsonl": (b'{"n": "0"}\n[1]\n{"n": "3"}\n{"n": }\n', [2, 4]),
    "json": (b'[{"n": "0"},\n1,\n{"n": "3"},\n2]', [2, 4]),
    "yaml": (b"- n: '0'\n- 1\n- n: '3'\n- 2\n", [2, 4]),
    "yml": (b"- n: '0'\n- 1\n- n: '3'\n- 2\n", [2, 4]),
}


@pytest.mark.parametrize("suffix", TEXT_FILES)
def test_every_bad_row_is_told_with_its_file_and_line(suffix: str, tmp_path: Path) -> None:
    """All of them at once, and the rows between them are read."""
    data, where = BAD[suffix.partition(".")[0]]
    (tmp_path / f"rows.{suffix}").write_bytes(packed(suffix, data))
    found: list[BadRow] = []
    rows = list(DataFile(tmp_path / f"rows.{suffix}").rows(found.append))
    assert (rows, [bad.line for bad in found]) == ([{"n": "0"}, {"n": "3"}], where)
    places = [line for line in told(tmp_path, {"file": f"rows.{suffix}"}) if line.startswith("rows.")]
    assert [place.split(":")[:2] for place in places] == [[f"rows.{suffix}", str(line)] for line in where]


def test_a_bad_file_of_a_glob_is_named(tmp_path: Path) -> None:
    """Line 2 of which of forty shards?"""
    write_rows(tmp_path / "a.csv", some_rows(2))
    (tmp_path / "b.jsonl").write_text('{"n": 1}\nx\n')
    assert told(tmp_path, {"file": "?.*"})[0] == "b.jsonl:2:1: not JSON: expecting value"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("n,text\n1,ä\n".encode("utf-16"), ":1:1: expected UTF-8 text, found UTF-16"),
        ("n,text\n1,ä\n".encode("utf-16-be"), ":1:1: a NUL character is no text"),
        ("n,text\n1,é\n".encode("latin-1"), ":2:3: expected UTF-8 text, found the byte 0xE9"),
        (PACK["gz"](b"n\n1\n"), ":1:1: expected UTF-8 text, found gzip data"),
        (PACK["zst"](b"n\n1\n"), ":1:1: expected UTF-8 text, found zstd data"),
        (PACK["xz"](b"n\n1\n"), ":1:1: expected UTF-8 text, found xz data"),
        (WRITE["parquet"](some_rows(1)), ":1:1: expected UTF-8 text, found parquet"),
        (b"PK\x03\x04\x14\0", ":1:1: expected UTF-8 text, found a zip file, or a workbook"),
    ],
    ids=["utf-16", "utf-16 without a mark", "latin-1", "gzip", "zstd", "xz", "parquet", "workbook"],
)
def test_what_is_no_utf_8_text_is_called_by_its_name(tmp_path: Path, data: bytes, message: str) -> None:
    """Nobody guesses an encoding: a wrong guess would be sent, and paid for."""
    (tmp_path / "rows.csv").write_bytes(data)
    assert told(tmp_path, {"file": "rows.csv"})[0] == f"rows.csv{message}"


def test_a_latin_1_byte_is_shown_as_the_letter_that_it_may_be(tmp_path: Path) -> None:
    """So that its author sees what happened."""
    (tmp_path / "rows.csv").write_bytes("name\nJosé\n".encode("latin-1"))
    assert told(tmp_path, {"file": "rows.csv"})[-1] == "  help: save the file as UTF-8; in Latin-1 that byte is 'é'"


LARGE = 123456789012345678901234567890


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.jsonl", '{"v": %d}\n{"v": -0.0}\n{"v": 1.0}\n{"v": 1}', [LARGE, -0.0, 1.0, 1]),
        ("a.json", '[{"v": %d}, {"v": -0.0}, {"v": 1.0}, {"v": 1}]', [LARGE, -0.0, 1.0, 1]),
        ("a.yaml", "- v: %d\n- v: -0.0\n- v: 1.0\n- v: 1\n", [LARGE, -0.0, 1.0, 1]),
        ("a.csv", "v\n%d\n-0.0\n1.0\n1\n", [str(LARGE), "-0.0", "1.0", "1"]),
    ],
)
def test_numbers_arrive_as_they_are_written(name: str, data: str, expected: list[object], tmp_path: Path) -> None:
    """Ids of 30 digits are common, and a float would be another id; what a csv has is text."""
    (tmp_path / name).write_text(data % LARGE)
    found = runs(tmp_path, {"rows": {"file": name}, "input": {"v": "{{ row.v }}"}})
    assert [repr(run.input["v"]) for run in found] == [repr(value) for value in expected]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", '{"v": NaN}', "JSON has no number 'NaN'"),
        ("a.json", '[{"v": -Infinity}]', "JSON has no number '-Infinity'"),
        ("a.yaml", "- v: .nan\n", "JSON has no number '.nan'"),
        ("a.jsonl", '{"v": 1e999}', "number '1e999' is too large"),
    ],
)
def test_what_json_has_no_number_for_is_refused(name: str, data: str, message: str, tmp_path: Path) -> None:
    """No endpoint could be sent it."""
    (tmp_path / name).write_text(data)
    assert message in told(tmp_path, {"file": name})[0]


def test_a_header_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    """One of the two would be lost."""
    (tmp_path / "a.csv").write_text("v,w,v\n1,2,3\n")
    assert told(tmp_path, {"file": "a.csv"})[0] == "a.csv:1:1: column 'v' is there twice"


@pytest.mark.parametrize(
    ("library", "name", "message", "fix"),
    [
        (
            "pyarrow",
            "a.parquet",
            "reading .parquet files needs pyarrow, which is not installed",
            "pip install 'runpod-runner[parquet]'",
        ),
        (
            "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd",
            "a.csv.zst",
            "reading .zst files needs a library that is not installed",
            "pip install 'runpod-runner[zst]'",
        ),
    ],
    ids=["parquet", "zst"],
)
def test_a_library_that_is_not_there_is_asked_for(
    library: str, name: str, message: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the place in the job file, before anything is read; and where the file is read all the same, no traceback."""
    write_rows(tmp_path / name, some_rows(1))
    job_file = opened(tmp_path, {"rows": {"file": name}})
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(JobFileError) as raised:
        opened(tmp_path, {"rows": {"file": name}})
    (problem,) = raised.value.problems
    assert (problem.message, problem.fix, problem.line) == (message, fix, 1)
    with pytest.raises(JobFileError) as raised:
        make_plan(job_file)
    (problem,) = raised.value.problems
    assert (problem.message, problem.fix) == (message, fix)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1).filter(
    lambda name: name == name.strip()
)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("property")


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([name for name in TEXT_FILES if name.startswith(("csv", "tsv"))]))
def test_every_table_of_texts_comes_through(folder: Path, data: st.DataObject, suffix: str) -> None:
    """Line ends, quotes and delimiters of any kind are part of a value, and of a name."""
    names = data.draw(st.lists(NAME, min_size=2, max_size=4, unique=True))
    values = data.draw(st.lists(st.tuples(*(TEXT for _ in names)), min_size=1, max_size=4))
    rows = [dict(zip(names, row, strict=True)) for row in values]
    write_rows(folder / f"rows.{suffix}", rows)
    assert list(DataFile(folder / f"rows.{suffix}").rows(never)) == rows


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    st.lists(st.dictionaries(TEXT, VALUE, max_size=4), max_size=4),
    st.sampled_from([name for name in TEXT_FILES if name.startswith("json")]),
)
def test_every_object_of_json_comes_through(folder: Path, rows: list[dict[str, Any]], suffix: str) -> None:
    """Types, signs and digits: 1, 1.0 and true are three values."""
    write_rows(folder / f"rows.{suffix}", rows)
    found = list(DataFile(folder / f"rows.{suffix}").rows(never))
    assert [repr(row) for row in found] == [repr(row) for row in rows]


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(1, 70), st.integers())
def test_a_sample_is_the_same_everywhere_and_keeps_the_order(rows: int, size: int, seed: int) -> None:
    """It is what `shuffle` with its seed would put first, as it stands in the file."""
    from runner.inputs.shuffle import order, sample

    drawn = sample(range(rows), seed, size)
    assert drawn == sorted(order(range(rows), seed, None)[:size])
    assert sample(range(100), 7, 5) == [27, 43, 58, 66, 69]


def test_a_sample_is_uniform() -> None:
    """Each of ten rows is drawn about as often as any other: 2,000 draws of 5."""
    from runner.inputs.shuffle import sample

    counts = [0] * 10
    for seed in range(2000):
        for number in sample(range(10), seed, 5):
            counts[number] += 1
    assert sum(counts) == 10_000
    assert all(900 < count < 1100 for count in counts)  # the deviation is 22


def test_a_file_for_openai_runs_as_it_is(tmp_path: Path) -> None:
    """RunPod's vLLM worker takes route and body by these names."""
    made = make("openai", tmp_path, 3)
    given_input = {"openai_route": "{{ row.url }}", "openai_input": "{{ row.body }}"}
    found = runs(tmp_path, {"rows": {"openai": made.data.name}, "input": given_input})
    assert [run.input for run in found] == [
        {"openai_route": one["url"], "openai_input": one["body"]} for one in made.rows
    ]
    assert [run.row for run in found] == made.rows


def test_two_requests_with_one_id_are_told_with_both_places(tmp_path: Path) -> None:
    """Their answers could not be told apart. Blank lines and other files count like anywhere."""
    one, two, three = (json.dumps(request(number)) for number in range(3))
    (tmp_path / "a.jsonl").write_text(f"{one}\n\n{two}\n{one}\n")
    (tmp_path / "b.jsonl").write_text(f"{three}\n{two}\n{one}\n")
    assert told(tmp_path, {"openai": "?.jsonl"}) == [
        "a.jsonl:4:1: custom_id 'request-0' is that of a.jsonl:1, too",
        "  help: answers are told apart by it: give each its own",
        "b.jsonl:2:1: custom_id 'request-1' is that of a.jsonl:3, too",
        "  help: answers are told apart by it: give each its own",
        "b.jsonl:3:1: custom_id 'request-0' is that of a.jsonl:1, too",
        "  help: answers are told apart by it: give each its own",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"custom_id": None}, "missing key 'custom_id' in a request for OpenAI"),
        ({"custom_id": 7}, "expected a text as 'custom_id', found 7"),
        ({"custom_id": ""}, "expected a text as 'custom_id', found ''"),
        ({"method": "GET"}, "expected 'POST' as 'method', found 'GET'"),
        ({"url": "chat"}, "expected a path such as '/v1/chat/completions' as 'url', found 'chat'"),
        ({"body": []}, "expected an object as 'body', found a list"),
        ({"body": None}, "missing key 'body' in a request for OpenAI"),
    ],
)
def test_what_is_no_request_is_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """OpenAI would refuse the whole file."""
    bad = {key: value for key, value in (request(1) | change).items() if value is not None}
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(request(0))}\n{json.dumps(bad)}\n")
    assert told(tmp_path, {"openai": "a.jsonl"})[0] == f"a.jsonl:2:1: {message}"


def test_ids_are_counted_in_little_memory(tmp_path: Path) -> None:
    """The duplicate of the first is found behind 20,000 others."""
    made = make("openai", tmp_path, 20_000)
    with made.data.open("a") as file:
        file.write(json.dumps(request(0)) + "\n")
    found: list[BadRow] = []
    tracemalloc.start()
    try:
        for _ in made.source.rows(found.append):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [bad.line for bad in found] == [20_001]
    assert peak < 4_000_000


def test_a_plan_takes_no_more_memory_for_more_rows(tmp_path: Path) -> None:
    """A million rows took 4 MB more than two thousand when this was written; here are 50,000, and the real process."""
    for count in (2_000, 50_000):
        write_rows(tmp_path / f"{count}.jsonl", some_rows(count))
    opened(tmp_path, {"rows": {"file": "2000.jsonl"}, "input": {"n": "{{ row.n }}", "text": "{{ row.text }}"}})
    ran = subprocess.run(
        [sys.executable, "-c", PLANS, tmp_path / "job.yaml"], capture_output=True, text=True, check=True
    )
    small, large = map(int, ran.stdout.split())
    assert large - small < 8_000  # KiB; the rows as Python has them are 25 MB


PLANS = """
import resource, sys
from pathlib import Path
from runner.check import open_job_file
from runner.occurrences import KeyIndex
from runner.plan import make_plan

path = Path(sys.argv[1])
for name in ("2000", "50000"):
    path.write_text(path.read_text().replace("2000.jsonl", f"{name}.jsonl"))
    plan = make_plan(open_job_file(path)).jobs["only"]
    index = KeyIndex()
    assert sum(1 for _ in plan.expand(index)) == plan.runs == int(name)
    index.close()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_the_page_about_rows_says_what_is(tmp_path: Path) -> None:
    """Its examples run, and its bounds are those of the code."""
    page = (ROOT / "docs/rows.md").read_text()
    make("folder", tmp_path, 2)
    make("openai", tmp_path, 2)
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        local = 'version: 1\nname: x\nendpoints: {E: {handler: "echo.py:handler"}}\n'
        write(tmp_path, {}, text=local + re.sub(r"endpoint: \w+", "endpoint: E", example))
        (tmp_path / "photos/a.jpg").touch()
        assert make_plan(open_job_file(tmp_path / "job.yaml", env={})).total > 1
    for bytes_, words in (
        (MAX_LINE_BYTES, "A line has at most"),
        (MAX_ROW_BYTES, "a row of csv"),
        (MAX_JSON_BYTES, "json file has at most"),
        (MAX_YAML_BYTES, "a yaml file"),
        (MOST_BYTES, "in at most"),
    ):
        assert f"{words} {bytes_ // 2**20} MiB" in page.replace("\n", " ")
    assert f"a file of at most {MAX_BYTES / 2**20} MiB" in page


@pytest.mark.parametrize("suffix", FILES)
def test_whatever_is_in_a_file_is_rows_or_told(suffix: str, tmp_path: Path) -> None:
    """A file that was cut, mended by hand or hit on the way is no bug of ours, and ends in no traceback."""
    path, chance = tmp_path / f"rows.{suffix}", Random(suffix)
    write_rows(path, some_rows(20))
    whole = path.read_bytes()
    told = 0
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 5)):
            at = chance.randrange(len(data) - 1)
            data[at : at + chance.randint(0, 8)] = chance.randbytes(chance.randint(0, 8))
        path.write_bytes(data)
        bad: list[BadRow] = []
        try:
            rows = list(DataFile(path).rows(bad.append))
        except BadRow as one:
            bad.append(one)
        else:
            assert all(isinstance(row, dict) for row in rows)
        told += bool(bad)
    assert told > 10
