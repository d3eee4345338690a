"""Some of the rows: `sample` in the file, ``--rows`` and ``--where`` from the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from job_files import opened, write
from terminal import lines, runner

from runner.batch import create
from runner.drift import same_plan
from runner.errors import JobFileError, UsageError
from runner.inputs import shuffle
from runner.manifest import manifest
from runner.narrow import narrowed
from runner.options import Options
from runner.plan import Counter, make_plan
from runner.recorded import recorded
from runner.resume import check_options
from runner.row_slice import RowSlice

INLINE = [{"n": n} for n in range(20)]


def found(
    folder: Path, rows: dict[str, Any], *, limit: int | None = None, part: str | None = None, where: str | None = None
) -> list[int]:
    """The `n` of every run, in order; each run has the index of its place."""
    job = {"rows": {"inline": INLINE} | rows, "input": {"n": "{{ row.n }}"}}
    chosen = RowSlice.parse(part) if part is not None else None
    job_file = narrowed(opened(folder, job, vars={"most": 15}), rows=chosen, where=where)
    plan = make_plan(job_file, limit=limit)
    expanded = list(plan.jobs["only"].expand(Counter()))
    assert [run.index for run in expanded] == list(range(plan.total))
    again = [run.input["n"] for run in plan.jobs["only"].expand(Counter())]
    assert again == [run.input["n"] for run in expanded]
    assert len(plan.jobs["only"].row_digests()) * plan.jobs["only"].products >= plan.total
    return again


SAMPLE_OF_7 = sorted(shuffle.order(range(20), 7, 5))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"sample": 5}, sorted(shuffle.order(range(20), 0, 5))),
        ({"sample": {"size": 5, "seed": 7}}, SAMPLE_OF_7),
        ({"sample": {"size": 99}}, list(range(20))),
        ({"sample": {"size": 5, "seed": 7}, "limit": 3}, SAMPLE_OF_7[:3]),
        ({"sample": {"size": 5, "seed": 7}, "repeat": 2}, [n for n in SAMPLE_OF_7 for _ in range(2)]),
        ({"sample": {"size": 5, "seed": 7}, "where": "row.n != 99"}, SAMPLE_OF_7),
        ({"sample": {"size": 3, "seed": 7}, "where": "row.n < 10"}, sorted(shuffle.order(range(10), 7, 3))),
        ({"sample": {"size": 5, "seed": 7}, "shuffle": 8}, list(shuffle.order(SAMPLE_OF_7, 8, None))),
        ({"sample": {"size": 5, "seed": 7}, "shuffle": 8, "limit": 2}, list(shuffle.order(SAMPLE_OF_7, 8, 2))),
    ],
    ids=str,
)
def test_a_sample_comes_after_where_and_before_shuffle_and_limit(
    tmp_path: Path, rows: dict[str, Any], expected: list[int]
) -> None:
    """In the order of the file, so that a sample of a time series is one."""
    assert found(tmp_path, rows) == expected


@pytest.mark.parametrize(
    ("text", "rows", "limit", "expected"),
    [
        ("10:13", {}, None, [10, 11, 12]),
        ("18:", {}, None, [18, 19]),
        (":2", {}, None, [0, 1]),
        ("18:99", {}, None, [18, 19]),
        ("99:", {}, None, []),
        ("1:3", {"where": "row.n > 4"}, None, [6, 7]),
        ("1:9", {"limit": 3}, None, [1, 2]),
        ("5:9", {"limit": 3}, None, []),
        ("1:3", {"repeat": 2}, None, [1, 1, 2, 2]),
        ("1:3", {"matrix": {"m": [1, 2]}}, 3, [1, 1, 2]),
        ("1:3", {"shuffle": 7}, None, list(shuffle.order(range(20), 7, 3))[1:]),
        ("1:3", {"sample": {"size": 5, "seed": 7}}, None, SAMPLE_OF_7[1:3]),
    ],
    ids=str,
)
def test_a_slice_is_of_the_rows_that_the_file_chooses(
    tmp_path: Path, text: str, rows: dict[str, Any], limit: int | None, expected: list[int]
) -> None:
    """After where, sample, shuffle and limit, before matrix and repeat: slices side by side are the whole."""
    assert found(tmp_path, rows, limit=limit, part=text) == expected


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("", "--rows wants FROM:TO, found ''", "write --rows 10:20, 5: or :3"),
        (":", "--rows wants FROM:TO, found ':'", "write --rows 10:20, 5: or :3"),
        ("7", "--rows wants FROM:TO, found '7'", "write --rows 7:8 for one row"),
        ("-3:", "--rows wants FROM:TO, found '-3:'", "write --rows 10:20, 5: or :3"),
        ("1:2:3", "--rows wants FROM:TO, found '1:2:3'", "write --rows 10:20, 5: or :3"),
        ("٣:", "--rows wants FROM:TO, found '٣:'", "write --rows 10:20, 5: or :3"),
        ("3:3", "--rows 3:3 has no row in it", "rows count from 0, and TO is not one of them"),
        ("9:3", "--rows 9:3 has no row in it", "rows count from 0, and TO is not one of them"),
    ],
)
def test_what_is_no_slice_is_told(text: str, message: str, fix: str) -> None:
    """Before anything is read."""
    with pytest.raises(UsageError) as raised:
        RowSlice.parse(text)
    assert (raised.value.message, raised.value.fix) == (message, fix)


@pytest.mark.parametrize("text", ["10:20", "5:", ":3"])
def test_a_slice_reads_back_from_its_text(text: str) -> None:
    """The manifest has it."""
    assert str(RowSlice.parse(text)) == text


@pytest.mark.parametrize(
    ("rows", "where", "expected"),
    [
        ({}, "row.n >= 18", [18, 19]),
        ({"where": "row.n % 2 == 0"}, "row.n > vars.most", [16, 18]),
        ({"limit": 2}, "row.n > 4", [5, 6]),
        ({"sample": {"size": 2, "seed": 7}}, "row.n < 10", sorted(shuffle.order(range(10), 7, 2))),
        ({"where": "row.n < 5"}, "row.n > 10", []),
    ],
    ids=str,
)
def test_an_expression_keeps_rows_in_addition_to_the_file(
    tmp_path: Path, rows: dict[str, Any], where: str, expected: list[int]
) -> None:
    """Where the file's own stands: before sample, shuffle and limit."""
    assert found(tmp_path, rows, where=where) == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("row.m > 1", "--where 'row.m > 1': the rows have no 'm'"),
        ("row.n >", "--where 'row.n >': "),
        ("matrix.x", "--where 'matrix.x': unknown name 'matrix'"),
        ("n > 1", "--where 'n > 1': unknown name 'n'"),
        ("'a' | file_base64", "'file_base64' is for 'input' only"),
    ],
)
def test_an_expression_that_is_none_is_told(tmp_path: Path, where: str, message: str) -> None:
    """As one in the file is: with what was meant, before anything is read."""
    with pytest.raises(UsageError) as raised:
        found(tmp_path, {}, where=where)
    assert message in raised.value.message


def test_an_expression_that_fails_on_a_row_names_it(tmp_path: Path) -> None:
    """It was no name that is wrong, but a value."""
    for where, message in (
        ("row.n", "row 1: --where: expected true or false, found 0"),
        ("row.n.x == 1", "row 1: --where: "),
    ):
        with pytest.raises(JobFileError) as raised:
            found(tmp_path, {}, where=where)
        assert raised.value.problems[0].message.startswith(message)


def test_a_job_without_rows_is_no_part_of_it(tmp_path: Path) -> None:
    """A job that warms up beside one with rows runs all the same."""
    jobs = {
        "warm_up": {"endpoint": "local", "input": {"x": 1}},
        "main": {"endpoint": "local", "input": {"x": "{{ row.n }}"}, "rows": {"inline": INLINE}},
    }
    job_file = narrowed(opened(tmp_path, {}, jobs=jobs), rows=RowSlice(2, 4), where="row.n > 5")
    plan = make_plan(job_file)
    assert {name: [run.input["x"] for run in job.expand(Counter())] for name, job in plan.jobs.items()} == {
        "warm_up": [1],
        "main": [8, 9],
    }


def test_without_any_rows_there_is_nothing_to_choose(tmp_path: Path) -> None:
    """Ten runs instead of two because an option was ignored would be paid for."""
    job_file = opened(tmp_path, {"rows": {"repeat": 10}})
    with pytest.raises(UsageError, match=r"^--rows chooses among rows, and no job in .*job\.yaml has any$"):
        narrowed(job_file, rows=RowSlice(0, 2))
    with pytest.raises(UsageError, match=r"^--where chooses among rows, and no job in .*job\.yaml has any$"):
        narrowed(job_file, where="true")


def test_a_batch_remembers_what_was_chosen(tmp_path: Path) -> None:
    """A resume without these options would be another plan; one that takes them from the manifest is the same."""
    chosen = Options(tmp_path / "job.yaml", rows=RowSlice(1, 3), where="row.n > 5").chosen
    assert chosen == {"vars": {}, "jobs": [], "limit": None, "rows": "1:3", "where": "row.n > 5"}
    assert Options(tmp_path / "job.yaml").chosen == {"vars": {}, "jobs": [], "limit": None}


def batch(folder: Path) -> dict[str, Any]:
    """The manifest of the newest batch."""
    found: dict[str, Any] = json.loads((folder / "batches/t/latest/manifest.json").read_text())
    return found


def test_plan_and_run_choose_the_same(tmp_path: Path) -> None:
    """What was looked at is what is paid for."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "rows.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(50)))
    rows = {"file": "rows.csv", "sample": 30, "where": "row.n | int < 45"}
    path = write(tmp_path, {"rows": rows, "input": {"n": "{{ row.n }}"}})
    options = ("--where", "row.n | int > 9", "--rows", "5:12")
    planned = runner("plan", path, *options, "--format", "json", cwd=tmp_path)
    ran = runner("run", path, *options, cwd=tmp_path)
    assert (planned.code, ran.code) == (0, 0), planned.err + ran.err
    results = lines(tmp_path / "batches/t/latest/results.jsonl")
    keys = [one["key"] for one in sorted(results, key=lambda one: int(one["index"]))]
    assert (len(keys), keys[:3]) == (7, planned.json["jobs"]["only"]["keys"])
    assert batch(tmp_path)["overrides"]["rows"] == "5:12"
    resumed = runner("resume", "t", cwd=tmp_path)
    assert (resumed.code, len(lines(tmp_path / "batches/t/latest/results.jsonl"))) == (0, 7)


def test_a_batch_goes_on_with_the_rows_that_were_chosen(tmp_path: Path) -> None:
    """`runner resume` has no such options: they are the batch's own."""
    (tmp_path / "pyproject.toml").touch()
    path = write(tmp_path, {"rows": {"inline": INLINE}, "input": {"n": "{{ row.n }}"}})
    (tmp_path / "echo.py").write_text("import os\ndef handler(job):\n    return {'go': os.stat('go').st_size}\n")
    failed = runner("run", path, "--where", "row.n > 5", "--rows", "1:3", cwd=tmp_path)
    assert failed.code == 1
    (tmp_path / "go").touch()
    ran = runner("resume", "t", "--retry-failed", cwd=tmp_path)
    assert ran.code == 0, ran.err
    results = lines(tmp_path / "batches/t/latest/results.jsonl")
    assert sorted(one["row"]["n"] for one in results) == [7, 8]


def test_other_rows_are_refused_when_a_batch_goes_on(tmp_path: Path) -> None:
    """Which of the two was meant is not for us to guess; the message has them as they are typed."""
    chosen = Options(tmp_path / "job.yaml", rows=RowSlice(1, 3), where="row.n > 5").chosen
    check_options({"batch": "b", "overrides": chosen}, overrides=chosen)
    with pytest.raises(UsageError) as raised:
        check_options({"batch": "b", "overrides": chosen}, overrides=chosen | {"rows": "1:4"})
    assert raised.value.message == (
        "batch b can't be gone on with like this: its options were --rows 1:3 --where 'row.n > 5'"
    )


def test_whoever_goes_on_with_a_batch_or_cancels_it_has_its_rows(tmp_path: Path) -> None:
    """From the job file, without reading the data again; and from the manifest, when the file is gone."""
    (tmp_path / "rows.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(50)))
    job = {"rows": {"file": "rows.csv", "repeat": 2}, "input": {"n": "{{ row.n }}"}}
    options = Options(tmp_path / "job.yaml", rows=RowSlice(2, 5), where="row.n | int > 9", limit=5)
    job_file = narrowed(opened(tmp_path, job), rows=options.rows, where=options.where)
    plan = make_plan(job_file, limit=options.limit)
    (tmp_path / "root").mkdir()
    made = manifest(create(tmp_path / "root", now=0.0), options, job_file, plan, started_at=0.0)
    told = json.loads(json.dumps(made))
    known = same_plan(told, job_file, options.chosen, only=(), stdin=None)
    assert known is not None
    again = narrowed(recorded(told), rows=options.rows, where=options.where)
    for one in (plan, known, make_plan(again, limit=options.limit)):
        assert [run.input for run in one.jobs["only"].expand(Counter())] == [
            {"n": n} for n in ("12", "12", "13", "13", "14")
        ]
    for other in (replace(options, rows=RowSlice(2, 6)), replace(options, where="row.n | int > 8")):
        assert same_plan(told, job_file, other.chosen, only=(), stdin=None) is None
