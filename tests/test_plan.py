"""Expanding a job into its runs."""

import csv
import gzip
import json
import os
import tracemalloc
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_files import opened, runs, write

from runner import values
from runner.check import open_job_file
from runner.errors import JobFileError, UsageError
from runner.inputs import shuffle
from runner.inputs.base import BadRow
from runner.matrix import combinations
from runner.plan import Counter, make_plan
from runner.spec import Rows


def test_rows_then_matrix_then_repeat(tmp_path: Path) -> None:
    """The order is a promise: index and --limit speak of it."""
    rows = {"inline": [{"a": 1}, {"a": 2}], "matrix": {"x": [1, 2], "y": ["p", "q"]}, "repeat": 2}
    found = runs(tmp_path, {"rows": rows, "input": {"v": "{{ [row.a, matrix.x, matrix.y, repeat] }}"}})
    expected = [[a, x, y, r] for a in (1, 2) for x in (1, 2) for y in ("p", "q") for r in (0, 1)]
    assert [run.input["v"] for run in found] == expected
    assert [run.index for run in found] == list(range(16))
    assert (found[3].row, found[3].matrix, found[3].repeat) == ({"a": 1}, {"x": 1, "y": "q"}, 1)


def test_without_rows_there_is_one_run(tmp_path: Path) -> None:
    """The smallest job file says what to run, and no more."""
    (run,) = runs(tmp_path, {"input": {"x": 1}})
    assert (run.job, run.index, run.row, run.matrix, run.repeat, run.input) == ("only", 0, None, None, 0, {"x": 1})


@pytest.mark.parametrize(
    ("rows", "limit", "kept"),
    [
        ({"where": "row.n != 2"}, None, [1, 3, 4, 1]),
        ({"where": "row.n != 2", "limit": 2}, None, [1, 3]),
        ({"where": "row.n > vars.least"}, None, [2, 3, 4]),
        ({"limit": 2, "repeat": 2}, None, [1, 1, 2, 2]),
        ({"limit": 2, "repeat": 2}, 3, [1, 1, 2]),
        ({"where": "false"}, None, []),
        ({}, 1, [1]),
        ({}, 99, [1, 2, 3, 4, 1]),
    ],
)
def test_where_then_limit_cut_rows_and_the_command_line_cuts_runs(
    tmp_path: Path, rows: dict[str, Any], limit: int | None, kept: list[int]
) -> None:
    """`limit: 2` is two rows, `--limit 2` two runs."""
    rows = {"inline": [{"n": n} for n in (1, 2, 3, 4, 1)]} | rows
    found = runs(tmp_path, {"rows": rows, "input": {"n": "{{ row.n }}"}}, limit=limit, vars={"least": 1})
    assert [run.input["n"] for run in found] == kept


def test_the_limit_of_rows_leaves_the_whole_file_digested(tmp_path: Path) -> None:
    """The manifest speaks of the file, not of the part that was used."""
    (tmp_path / "a.csv").write_text("a\n1\n2\n3\n")
    plan = make_plan(opened(tmp_path, {"rows": {"file": "a.csv", "limit": 1}}))
    assert (plan.total, plan.inputs[0].rows, plan.inputs[0].path) == (1, 3, tmp_path / "a.csv")
    assert len(list(plan.jobs["only"].expand(Counter()))) == 1


def test_shuffle_comes_after_where_and_before_limit(tmp_path: Path) -> None:
    """`limit` takes a sample of what `where` keeps, and the sample is the same every night."""
    inline = [{"n": n} for n in range(20)]

    def found(**rows: object) -> list[int]:
        expanded = runs(tmp_path, {"rows": {"inline": inline} | rows, "input": {"n": "{{ row.n }}"}})
        assert [run.index for run in expanded] == list(range(len(expanded)))
        return [run.input["n"] for run in expanded]

    everything = found(shuffle=7)
    assert everything == list(shuffle.order(range(20), 7, None))
    assert found(shuffle=7, limit=3) == everything[:3]
    assert found(shuffle=7, where="row.n < 10") == [n for n in everything if n < 10]
    assert found(shuffle=7, where="row.n < 10", limit=2, repeat=2) == [2, 2, 5, 5]
    assert found(shuffle=8) != everything


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl.gz", "a.json", "a.yaml", "?.csv"])
def test_rows_of_every_kind_can_be_shuffled(tmp_path: Path, name: str) -> None:
    """And every expansion of a plan gives the same."""
    count = 50
    (tmp_path / "a.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(count)))
    lines = [json.dumps({"n": str(n)}) for n in range(count)]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (tmp_path / "a.json").write_text(f"[{','.join(lines)}]")
    (tmp_path / "a.yaml").write_text("".join(f"- {line}\n" for line in lines))
    job = {"rows": {"file": name, "shuffle": 1, "limit": 30}, "input": {"n": "{{ row.n | int }}"}}
    plan = make_plan(opened(tmp_path, job))
    first, second = ([run.input["n"] for run in plan.jobs["only"].expand(Counter())] for _ in range(2))
    assert first == second == list(shuffle.order(range(count), 1, 30))
    assert plan.inputs[0].rows == count


def test_files_of_a_glob_are_one_list_of_rows(tmp_path: Path) -> None:
    """Each is an input of its own, so that the manifest can tell which one changed."""
    (tmp_path / "data").mkdir()
    for name in ("b", "a"):
        (tmp_path / f"data/{name}.csv").write_text(f"v\n{name}1\n{name}2\n")
    (tmp_path / "data/c.jsonl").write_text('{"v": "c1"}\n')
    job = {"rows": {"file": "data/*", "limit": 4}, "input": {"v": "{{ row.v }}"}}
    plan = make_plan(opened(tmp_path, job))
    assert [run.input["v"] for run in plan.jobs["only"].expand(Counter())] == ["a1", "a2", "b1", "b2"]
    assert [(file.path.name, file.rows) for file in plan.inputs] == [("a.csv", 2), ("b.csv", 2), ("c.jsonl", 1)]
    (tmp_path / "data/c.jsonl").write_text('{"v": "c2"}\n{"v": "c3"}\n')
    with pytest.raises(UsageError, match="changed while it was being read"):
        list(plan.jobs["only"].expand(Counter()))


def test_rows_from_stdin_are_jsonl_in_a_copy(tmp_path: Path) -> None:
    """The copy is read twice like any file; messages speak of stdin."""
    copy = tmp_path / "copy"
    copy.write_text('{"v": 1}\n\n{"v": [2]}\n')
    job_file = opened(tmp_path, {"rows": {"file": "-"}, "input": {"v": "{{ row.v }}"}})
    plan = make_plan(job_file, stdin=copy)
    assert [run.input["v"] for run in plan.jobs["only"].expand(Counter())] == [1, [2]]
    assert ([file.path for file in plan.inputs], plan.notes) == ([copy], ())
    copy.write_text("v\n1\n")
    with pytest.raises(JobFileError) as raised:
        make_plan(job_file, stdin=copy)
    first = raised.value.problems[0]
    assert (first.file, first.line, first.message) == ("stdin", 1, "not JSON: expecting value")


def test_without_stdin_its_rows_are_a_note(tmp_path: Path) -> None:
    """validate in CI has no rows to look at, and says so."""
    job = {"endpoint": "local", "input": {"v": 1}}
    jobs = {"piped": job | {"rows": {"file": "-", "shuffle": 1}}, "plain": job}
    plan = make_plan(opened(tmp_path, {}, jobs=jobs))
    assert (plan.jobs["piped"].runs, plan.jobs["plain"].runs) == (0, 1)
    assert [(note.message, note.warning) for note in plan.notes] == [("rows from stdin are not checked", True)]


def test_one_path_for_the_artifacts_of_many_runs_is_a_problem(tmp_path: Path) -> None:
    """All but the first would fail, after they were paid for. `--limit 1` makes the file no better."""
    job = {"artifacts": [{"path": "a.png", "base64": "{{ output }}"}], "rows": {"repeat": 2}}
    with pytest.raises(JobFileError, match=r"all 2 runs would write 'a\.png'"):
        make_plan(opened(tmp_path, job), limit=1)
    assert make_plan(opened(tmp_path, job | {"rows": {"repeat": 1}})).total == 1


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.sampled_from(
    [*("{{ 7*7 }}", "{% raw %}", "${HOME}", "$${x}", "007", "1e5", "[1]", "null", "=1+1", "\x1b[31m", "a\r\nb", '"')]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def same(one: object, other: object) -> bool:
    """Whether two values are equal in every type and sign: 1, 1.0 and true are three values."""
    return repr(one) == repr(other)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4), st.sampled_from(["jsonl", "json", "jsonl.gz", "inline"]))
def test_every_json_value_goes_into_an_input_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, given_values: list[object], kind: str
) -> None:
    """What a model is sent is what the data says: no text is read again, no number rounded, no key lost."""
    folder = tmp_path_factory.mktemp("property")
    lines = [json.dumps({"v": value}, ensure_ascii=number % 2 == 0) for number, value in enumerate(given_values)]
    text = f"[{','.join(lines)}]" if kind == "json" else "\n".join(lines)
    rows: dict[str, object] = {"inline": [{"v": value} for value in given_values]}
    if kind != "inline":
        data = text.encode()
        (folder / f"a.{kind}").write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
        rows = {"file": f"a.{kind}"}
    template = {"lone": "{{ row.v }}", "inside": ["{{ [row.v] }}"], "var": "{{ vars.v }}"}
    found = runs(folder, {"rows": rows, "input": template}, vars={"v": "{{ row.v }}"})
    for run, value in zip(found, given_values, strict=True):
        assert same(run.input, {"lone": value, "inside": [[value]], "var": "{{ row.v }}"}), run.problem
        assert same(values.parse(values.dump(run.input)), run.input)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_every_text_of_a_csv_goes_into_an_input_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    """`{{ 7*7 }}` in a cell is six characters and a sum that nobody does."""
    folder = tmp_path_factory.mktemp("property")
    with (folder / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["v"], *([text] for text in texts)])
    found = runs(folder, {"rows": {"file": "a.csv"}, "input": {"v": "{{ row.v }}", "t": "<{{ row.v }}>"}})
    assert [run.input for run in found] == [{"v": text, "t": f"<{text}>"} for text in texts]


GITHUB = {"fruit": ["apple", "pear"], "animal": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"matrix": {"a": [1, 2], "b": [3, 4]}}, [(1, 3), (1, 4), (2, 3), (2, 4)]),
        ({"matrix": {"a": [1, 2], "b": [3, 4]}, "exclude": [{"a": 2, "b": 3}]}, [(1, 3), (1, 4), (2, 4)]),
        ({"matrix": {"a": [1, 2], "b": [3, 4]}, "exclude": [{"b": 3}]}, [(1, 4), (2, 4)]),
        ({"matrix": {"a": [1, True]}, "exclude": [{"a": True}]}, [(1,)]),
        ({"matrix": {"a": [1]}, "exclude": [{"a": 1}], "include": [{"a": 1}]}, [(1,)]),
        ({"include": [{"a": 1}, {"a": 2}]}, [(1,), (2,)]),
    ],
)
def test_a_matrix_combines_and_leaves_out(rows: dict[str, Any], expected: list[tuple[int, ...]]) -> None:
    """The last key changes fastest; exclude comes before include."""
    assert [tuple(found.values()) for found in combinations(Rows.model_validate(rows))] == expected


def test_include_is_as_in_github_actions() -> None:
    """The example of GitHub's own documentation, so that nobody has to learn it twice."""
    include = [
        {"color": "green"},
        {"color": "pink", "animal": "cat"},
        {"fruit": "apple", "shape": "circle"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
    assert combinations(Rows.model_validate({"matrix": GITHUB, "include": include})) == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]


def test_keys_are_pinned(tmp_path: Path) -> None:
    """A key is the same in every batch, on every machine, in every version: this test may not change."""
    rows = {"inline": [{"p": "ü"}, {"p": "ü"}]}
    found = runs(tmp_path, {"rows": rows, "input": {"b": 1, "a": "{{ row.p }}"}})
    assert [run.key for run in found] == ["519ecfb59468f45d8a3b6c5563223071", "f598c71db73e694bd677e7e0a698d86b"]
    text = '["only",{"a":"ü","b":1}]'.encode()
    assert [blake2b(text + b"#%d" % n, digest_size=16).hexdigest() for n in (0, 1)] == [run.key for run in found]


def test_equal_inputs_get_keys_of_their_own_and_others_keep_theirs(tmp_path: Path) -> None:
    """A row added in front must not change what the others are called."""
    job = {"input": {"a": "{{ row.p }}"}}
    before = runs(tmp_path, job | {"rows": {"inline": [{"p": 1}, {"p": 2}, {"p": 1}]}})
    after = runs(tmp_path, job | {"rows": {"inline": [{"p": 3}, {"p": 2}, {"p": 1}, {"p": 1}]}})
    assert len({run.key for run in before}) == 3
    assert {run.key for run in before} < {run.key for run in after}


def test_a_key_depends_on_job_name_and_input_alone(tmp_path: Path) -> None:
    """Another endpoint, policy or retry is the same run, and its result can be kept."""
    job = {"input": {"a": 1}}
    (one,) = runs(tmp_path, job)
    (other,) = runs(tmp_path, job | {"retry": {"attempts": 3}, "policy": {"ttl": "1h"}, "rows": {"inline": [{"z": 1}]}})
    assert one.key == other.key
    plan = make_plan(opened(tmp_path, {}, jobs={"renamed": {"endpoint": "local", "input": {"a": 1}}}))
    assert next(plan.jobs["renamed"].expand(Counter())).key != one.key


def test_a_later_row_that_cannot_be_rendered_is_a_run_with_a_problem(tmp_path: Path) -> None:
    """One bad row of a million must not stop the rest, and gets its own line in the results."""
    rows = {"inline": [{"n": "1"}, {"n": "x"}, {"n": "2"}, {}, {"n": "x"}], "matrix": {"m": [1]}}
    found = runs(tmp_path, {"rows": rows, "input": {"n": "{{ row.n | int }}"}})
    assert [run.input for run in found] == [{"n": 1}, None, {"n": 2}, None, None]
    assert found[1].problem == "input.n: 'x' is not a whole number"
    assert found[3].problem == "input.n: there is no 'n' here; there are no keys"
    assert found[1].row == {"n": "x"}
    assert len({run.key for run in found}) == 5


def test_a_row_that_renders_to_an_empty_input_has_a_problem(tmp_path: Path) -> None:
    """RunPod would drop it, and the job fail after a retry that is paid for."""
    found = runs(tmp_path, {"rows": {"inline": [{"i": {"a": 1}}, {"i": {}}]}, "input": "{{ row.i }}"})
    assert [run.problem for run in found] == [
        None,
        "input: an empty input, {}, never arrives: RunPod drops it, and the job fails after a retry",
    ]


def test_runs_share_nothing_that_could_change(tmp_path: Path) -> None:
    """Whoever takes megabytes out of one run's input must not touch the next."""
    rows = {"inline": [{"l": [1]}], "matrix": {"m": [[1], [2]]}, "repeat": 2}
    found = runs(tmp_path, {"rows": rows, "input": {"a": {"b": [1]}, "c": "{{ row.l }}", "d": "{{ matrix.m }}"}})
    for part in ("row", "matrix", "input"):
        mutable: list[int] = []
        for run in found:
            mutable += [id(getattr(run, part)), *(id(value) for value in getattr(run, part).values())]
        assert len(set(mutable)) == len(mutable)


def test_bad_rows_are_told_with_their_lines_up_to_a_point(tmp_path: Path) -> None:
    """All that a person can use at once, not a million of them."""
    (tmp_path / "a.csv").write_text("a,b\n" + "1\n" * 100)
    with pytest.raises(JobFileError) as raised:
        make_plan(opened(tmp_path, {"rows": {"file": "a.csv"}}))
    assert [problem.line for problem in raised.value.problems] == list(range(2, 22))
    assert raised.value.problems[0].file == str(tmp_path / "a.csv")


def test_a_file_that_cannot_be_read_on_is_closed(tmp_path: Path) -> None:
    """Whoever keeps the error, such as a notebook, must not keep the file open with it."""
    (tmp_path / "a.csv").write_text("a,a\n1,2\n")
    with pytest.raises(JobFileError) as raised:
        make_plan(opened(tmp_path, {"rows": {"file": "a.csv"}}))
    held = [path for path in Path("/proc/self/fd").iterdir() if os.path.realpath(path) == str(tmp_path / "a.csv")]
    assert (raised.value.problems[0].message, held) == ("column 'a' is there twice", [])


def test_problems_of_all_jobs_are_told_at_once(tmp_path: Path) -> None:
    """Data is checked in one go, as the file is."""
    jobs = {
        name: {"endpoint": "local", "rows": {"inline": [{"a": "x"}]}, "input": {"a": "{{ row.a | int }}"}}
        for name in ("one", "two")
    }
    with pytest.raises(JobFileError) as raised:
        make_plan(opened(tmp_path, {}, jobs=jobs))
    assert [problem.message for problem in raised.value.problems] == [
        f"the first run of job '{name}' can't be rendered: 'x' is not a whole number" for name in ("one", "two")
    ]


def test_only_chosen_jobs_are_planned_in_file_order(tmp_path: Path) -> None:
    """--job twice runs both, and never in the order of the command line."""
    jobs = {name: {"endpoint": "local", "input": {"a": 1}} for name in ("c", "a", "b")}
    job_file = opened(tmp_path, {}, jobs=jobs)
    assert list(make_plan(job_file, only=["b", "c"]).jobs) == ["c", "b"]
    assert make_plan(job_file).total == 3
    with pytest.raises(UsageError, match="unknown job 'd'"):
        make_plan(job_file, only=["d"])


def test_where_that_fails_on_a_row_names_it(tmp_path: Path) -> None:
    """Rows that are kept make the plan, so this can't wait until they are sent."""
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b": 1}\n')
    with pytest.raises(JobFileError) as raised:
        make_plan(opened(tmp_path, {"rows": {"file": "a.jsonl", "where": "row.a == 1"}}))
    assert raised.value.problems[0].message == "row 2: there is no 'a' here; known: 'b'"


def test_a_file_that_changed_after_planning_stops_the_expansion(tmp_path: Path) -> None:
    """Rather than drift: other rows would get other runs' places."""
    (tmp_path / "a.csv").write_text("a\n1\n2\n")
    plan = make_plan(opened(tmp_path, {"rows": {"file": "a.csv"}, "input": {"a": "{{ row.a }}"}}))
    (tmp_path / "a.csv").write_text("a\n1\n2\n3\n")
    with pytest.raises(UsageError, match="changed while it was being read"):
        list(plan.jobs["only"].expand(Counter()))


def test_two_jobs_on_one_file_are_one_input(tmp_path: Path) -> None:
    """The manifest lists files, not readings."""
    (tmp_path / "a.csv").write_text("a\n1\n")
    jobs = {name: {"endpoint": "local", "rows": {"file": "a.csv"}, "input": {"a": 1}} for name in ("one", "two")}
    assert len(make_plan(opened(tmp_path, {}, jobs=jobs)).inputs) == 1


class Nothing:
    """Occurrences that remember nothing, as the ledger's index is not in memory."""

    def count(self, digest: bytes) -> int:
        """Every run is the first of its kind."""
        return 0


def peak(folder: Path, count: int, **rows: object) -> int:
    """Most memory in use while *count* rows are planned and expanded."""
    with (folder / "a.csv").open("w") as file:
        file.write("prompt,lang\n")
        file.writelines(f"a horse number {n},en\n" for n in range(count))
    path = write(
        folder, {"rows": {"file": "a.csv"} | rows, "input": {"p": "{{ row.prompt }}, {{ vars.s }}"}}, vars={"s": "ink"}
    )
    job_file = open_job_file(path, env={})
    tracemalloc.start()
    plan = make_plan(job_file)
    assert sum(1 for _ in plan.jobs["only"].expand(Nothing())) == plan.total == rows.get("limit", count)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_the_plan(tmp_path: Path) -> None:
    """A million rows run in the memory of ten."""
    peak(tmp_path, 10)
    small, large = peak(tmp_path, 1_000), peak(tmp_path, 20_000)
    assert large < small + 100_000


def test_shuffling_costs_an_index_and_a_sample_less(tmp_path: Path) -> None:
    """What is documented: about 60 bytes a row while the order is made; with a limit, for that many rows."""
    peak(tmp_path, 10)
    small, large = peak(tmp_path, 1_000, shuffle=1), peak(tmp_path, 21_000, shuffle=1)
    assert large < small + 20_000 * 80
    assert large > small + 20_000 * 40
    sample = peak(tmp_path, 21_000, shuffle=1, limit=10)
    assert sample < small


def test_runs_are_made_when_they_are_asked_for(tmp_path: Path) -> None:
    """The first is sent while the last is not yet read."""
    plan = make_plan(opened(tmp_path, {"rows": {"matrix": {"a": [1, 2]}, "repeat": 10**9}}))
    assert plan.total == 2 * 10**9
    expanded: Iterator[Any] = plan.jobs["only"].expand(Counter())
    assert [next(expanded).index for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            BadRow(7, 1, "the row has 1 cell, the header has 2"),
            "the data of job 'only' is no longer what was planned: the row has 1 cell, the header has 2",
        ),
        (OSError(5, "Input/output error"), "the data of job 'only' can't be read any more: Input/output error"),
    ],
    ids=["changed", "disk"],
)
def test_data_that_fails_in_the_middle_is_said_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, message: str
) -> None:
    """What was sent goes on, and the rest waits for a resume: it is no bug of ours, and no traceback."""
    (tmp_path / "a.csv").write_text("text\none\ntwo\n")
    plan = make_plan(opened(tmp_path, {"rows": {"file": "a.csv"}}))
    (job,) = plan.jobs.values()

    def rows(_self: object, _report: object) -> Iterator[dict[str, str]]:
        yield {"text": "one"}
        raise fault

    monkeypatch.setattr(type(job._source), "rows", rows)
    expanded = job.expand(Counter())
    assert next(expanded).row == {"text": "one"}
    with pytest.raises(UsageError) as raised:
        next(expanded)
    assert (raised.value.message, raised.value.fix) == (message, "put it back as it was, then go on with --resume")
