"""Reading YAML: 1.2 core scalars, every problem at once, places that can be trusted."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job_files import as_yaml

from runner.check import open_job_file
from runner.errors import JobFileError, RunnerError
from runner.load import load
from runner.plan import make_plan

HEAD = "version: 1\nname: t\n"
REST = 'endpoints:\n  local: {handler: "h.py:h"}\njobs:\n  j: {endpoint: local, input: {x: 1}}\n'


def read(folder: Path, text: str | bytes) -> object:
    """The value of a file, whatever the grammar says of it."""
    path = folder / "job.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(path).document.value


def problems(folder: Path, text: str | bytes) -> list[str]:
    """Place and message of each problem of a file."""
    path = folder / "job.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    try:
        found = load(path).problems
    except JobFileError as error:
        found = list(error.problems)
    return [f"{problem.line}:{problem.column}: {problem.message}" for problem in found]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"),
        ("NO", "NO"),
        ("1:30", "1:30"),
        ("12:30:45", "12:30:45"),
        ("2026-11-23", "2026-11-23"),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        ("-1.5E-3", -0.0015),
        (".5", 0.5),
        ("3.", 3.0),
        ("+7", 7),
        ("0", 0),
        ("-0", 0),
        ("0x1f", 31),
        ("0o17", 15),
        ("0b11", "0b11"),
        ("017x", "017x"),
        ("~", None),
        ("Null", None),
        ("nULL", "nULL"),
        ("True", True),
        ("tRUE", "tRUE"),
        ("FALSE", False),
        ("'1'", "1"),
        ('"true"', "true"),
        ("=", "="),
        ("<<", "<<"),
        ("٣", "٣"),
        ("99999999999999999999", 99999999999999999999),
    ],
)
def test_scalars_are_yaml_1_2_core(tmp_path: Path, written: str, value: object) -> None:
    """PyYAML's own reading makes false of NO and 5400 of 1:30."""
    parts = read(tmp_path, f"a: {written}\n")
    assert isinstance(parts, dict)
    assert parts["a"] == value
    assert type(parts["a"]) is type(value)


def test_merge_keys_are_read_and_own_keys_win(tmp_path: Path) -> None:
    """YAML 1.2 dropped them, but many files share settings this way."""
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 3}\nd:\n  <<: *b\n"
    assert read(tmp_path, text) == {
        "a": {"x": 1, "y": 1},
        "b": {"y": 2, "z": 2},
        "c": {"x": 3, "y": 1, "z": 2},
        "d": {"y": 2, "z": 2},
    }


def test_a_problem_inside_a_merged_mapping_points_at_what_was_merged(tmp_path: Path) -> None:
    """The place to mend is where it is written, not where it is used."""
    text = HEAD + "vars: {}\n" + REST.replace("input: {x: 1}", "input: {x: 1}, timeouts: &t {request: 30}")
    text += "  k: {endpoint: local, input: {x: 1}, timeouts: {<<: *t}}\n"
    assert problems(tmp_path, text) == ["7:62: a duration needs a unit, found 30"]


def test_a_byte_order_mark_shifts_no_column(tmp_path: Path) -> None:
    """Windows editors write one."""
    assert problems(tmp_path, b"\xef\xbb\xbfnaem: 1\n" + (HEAD + REST).encode())[0] == "1:1: unknown key 'naem'"


def test_columns_count_characters(tmp_path: Path) -> None:
    """Editors do, bytes or not."""
    text = HEAD + 'description: "äöü🐎", \n' + REST
    assert problems(tmp_path, HEAD + "vars: {ä🐎: 1, b: 007}\n" + REST) == ["3:18: number '007' starts with a zero"]
    assert problems(tmp_path, text) == ["3:20: the text goes on after its closing quote"]


@pytest.mark.parametrize("end", ["\r\n", "\r"], ids=["windows", "old mac"])
def test_lines_end_as_yaml_says(tmp_path: Path, end: str) -> None:
    """A place must be right whatever wrote the file."""
    assert problems(tmp_path, (HEAD + "vars: {a: 007}\n" + REST).replace("\n", end)) == [
        "3:11: number '007' starts with a zero"
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "1:1: the file is empty"),
        (b"\n\n# only this\n", "1:1: the file is empty"),
        (b"a: \xff\n", "1:4: expected UTF-8 text"),
        ("a: 1\n".encode("utf-16"), "1:1: expected UTF-8 text"),
        (b"name: a\nb: \x07\n", "2:4: character U+0007 can't be part of a YAML file"),
        (b"a: \x00\n", "1:4: character U+0000 can't be part of a YAML file"),
        (b"just text\n", "1:1: expected a mapping with the keys of a job file, found 'just text'"),
        (b"? [a, b]\n: c\n", "1:3: a key must be text, and this is not"),
        (b"%YAML 1.1\n---\nname: a\n---\nname: b\n", "4:1: a second document starts here"),
        (b"a: &a [*a]\n", "1:4: nested deeper than 64 levels through its aliases"),
        (b"[" * 100_000, "1:65: nested deeper than 64 levels"),
        (b"a: " + b"9" * 5000 + b"\n", "1:4: this number is too large"),
        (b" " * (8 * 2**20 + 1), "1:1: a job file has at most 8 MiB"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_odd_files_get_one_clear_message(tmp_path: Path, data: bytes, message: str) -> None:
    """Never a traceback, and always a place: this is the first thing a new user meets."""
    assert problems(tmp_path, data)[0] == message


def test_aliases_cannot_make_a_file_explode(tmp_path: Path) -> None:
    """Nine lines are enough for a billion values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    message = problems(tmp_path, "\n".join(lines))[0]
    assert message.endswith("more than 1000000 values once the aliases are written out")


@pytest.mark.parametrize("name", ["absent.yaml", "."], ids=["missing", "folder"])
def test_what_is_no_file_is_named(tmp_path: Path, name: str) -> None:
    """With a place like any other problem, so that --format json has one shape."""
    with pytest.raises(JobFileError) as raised:
        load(tmp_path / name)
    messages = {"absent.yaml": "there is no such file", ".": "this is a folder"}
    assert [(p.line, p.column, p.message) for p in raised.value.problems] == [(1, 1, messages[name])]


@pytest.mark.parametrize(
    "line",
    [
        "api_key: rpa_CANARY",
        "api_key: CANARY, with a comma # and more",
        'api_key: "CANARY"',
        "api_key:\n      CANARY",
        "api_key: |\n      CANARY",
        '"api_key" : CANARY',
        "api_key: ${KEY:-CANARY}",
        "api_key: [CANARY]",
        "api_key: {a: CANARY}",
        "api_key: ${KEY} CANARY",
        "id: rpa_CANARY",
        "webhook: https://example.com/CANARY",
    ],
)
@pytest.mark.parametrize("slip", ["", "  bad: [", "  @x"], ids=["valid yaml", "open bracket", "at sign"])
def test_a_literal_key_is_never_shown(tmp_path: Path, line: str, slip: str) -> None:
    """Messages end up in logs of CI, which many people read."""
    (tmp_path / "job.yaml").write_text(f"{HEAD}endpoints:\n  sdxl:\n    {line}\n{slip}\n{REST[11:]}")
    with pytest.raises(JobFileError) as raised:
        make_plan(open_job_file(tmp_path / "job.yaml", env={}))
    assert "CANARY" not in raised.value.render()
    assert "CANARY" not in str([problem.as_json() for problem in raised.value.problems])


@pytest.mark.parametrize(
    "line",
    [
        "webhook: CANARY",
        "webhook: https://example.com/CANARY",
        "webhook:\n      https://example.com/CANARY",
        "webhook: [CANARY]",
        "webhook: {a: CANARY}",
        "webhook: ${HOOK} CANARY",
        "webhook: ${HOOK:-CANARY}",
        "s3_config: CANARY",
        "s3_config: [CANARY]",
        "s3_config:\n      CANARY",
        "s3_config: {access_id: [CANARY], access_secret: CANARY}",
        "s3_config: {access_secret: ${SECRET:-CANARY}}",
        "s3_config:\n      access_secret:\n        CANARY",
        "s3_config:\n      access_secret: |\n        CANARY\n        CANARY",
        's3_config:\n      "access_secret": "CANARY"',
        "s3_config:\n      access_id:\n        CANARY\n      bucket_name: 7",
    ],
)
@pytest.mark.parametrize("slip", ["atempts: 2", "bad: [", "@x"], ids=["valid yaml", "open bracket", "at sign"])
def test_a_secret_of_a_job_is_never_shown(tmp_path: Path, line: str, slip: str) -> None:
    """Neither by what is wrong with it, nor by what is wrong beside it."""
    text = (
        f"{HEAD}endpoints:\n  local: {{handler: 'h.py:h'}}\njobs:\n  j:\n    endpoint: local\n    {line}\n    {slip}\n"
    )
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(JobFileError) as raised:
        make_plan(open_job_file(tmp_path / "job.yaml", env={}))
    assert "CANARY" not in raised.value.render()
    assert "CANARY" not in str([problem.as_json() for problem in raised.value.problems])


GOOD_FOLDER = Path(__file__).parent / "data" / "good"
GOOD = (GOOD_FOLDER / "full.yaml").read_text()


@settings(
    derandomize=True, max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_mangled_job_file_never_brings_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever a slip of the hand leaves behind, the answer is a place in the file."""
    text = GOOD
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.sampled_from([0, 0, 1, 2, 5, 40]))
        scraps = [
            "",
            ":",
            "{{",
            "}}",
            "${",
            "[",
            "]",
            "\t",
            '"',
            "'",
            "- ",
            "&a ",
            "*a",
            "!!x ",
            "\n",
            "0",
            "{%",
            "<<",
            "é",
        ]
        text = text[:start] + data.draw(st.sampled_from(scraps)) + text[end:]
    check_that_problems_have_places(tmp_path, text)


def check_that_problems_have_places(folder: Path, text: str) -> None:
    """Open and plan the job file *text*: it is fine, or each problem points into it."""
    for name in ("data", "handlers"):
        if not (folder / name).exists():
            (folder / name).symlink_to(GOOD_FOLDER / name)
    path = folder / "job.yaml"
    path.write_text(text)
    try:
        make_plan(open_job_file(path, env={}))
    except JobFileError as error:
        lines = text.count("\n") + 1
        for problem in error.problems:
            assert problem.column >= 1
            assert problem.message
            assert not re.search(r"[Ii]nput should|pydantic|NoneType|object has no attribute", problem.message)
            if problem.file == str(path):
                assert 1 <= problem.line <= lines + 1
    except RunnerError as error:
        pytest.fail(f"a slip in the file is a problem with a place, not {error!r}")


WRONG: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, -1, 7, 1.5, 10**20, "", "x", "-", "10%", "5s", "p95 < 3s", "< 1%", "5 USD"),
        *("${X}", "${{ x }}", "{{ x }}", "{{ output.a }}", "{{ row.items | file_base64 }}", "row.lang", "\ud7ff"),
        *("*", "data/*", "../x", "a\0b", [], {}, [[]], [{}], [None], {"a": 1}, {"path": "a"}, {"": ""}, ["x"]),
        {"file": "-"},
    ]
).map(copy.deepcopy)
KEYS = st.sampled_from(["x", "pathh", "webhook", "job", "needs", "", "<<", "1"])


@settings(
    derandomize=True, max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_job_file_of_wrong_values_never_brings_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    """Any key may hold, lack or gain anything: the grammar is closed, and so is what is said of it."""
    value = load(GOOD_FOLDER / "full.yaml").document.value
    for _ in range(data.draw(st.integers(1, 4))):
        part, steps = value, data.draw(st.integers(0, 5))
        for _ in range(steps):
            inner = part[data.draw(st.sampled_from(places(part)))]
            if not isinstance(inner, dict | list) or not inner:
                break
            part = inner
        at, what = data.draw(st.sampled_from(places(part))), data.draw(st.integers(0, 5))
        if what == 0:
            del part[at]
        elif what == 1 and isinstance(part, dict):
            part[data.draw(KEYS)] = data.draw(WRONG)
        else:
            part[at] = data.draw(WRONG)
        if not value:
            break
    check_that_problems_have_places(tmp_path, as_yaml(value))


def places(part: Any) -> list[Any]:
    """The keys or positions of a mapping or a list."""
    return list(part) if isinstance(part, dict) else list(range(len(part)))
