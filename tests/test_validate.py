"""The commands that send nothing: validate and plan."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from job_files import write

from runner.commands.plan import plan
from runner.commands.validate import validate

DATA = Path(__file__).parent / "data"


def test_valid_files_are_listed_with_their_size(tmp_path: Path) -> None:
    """One line a file, on stdout."""
    out, err = io.StringIO(), io.StringIO()
    path = write(tmp_path, {"rows": {"matrix": {"a": [1, 2, 3]}, "repeat": 500}})
    assert validate([path, DATA / "good" / "smallest.yaml"], env={}, out=out, err=err) == 0
    assert out.getvalue().splitlines() == [
        f"{path}: ok (1 job, 1,500 runs)",
        f"{DATA / 'good' / 'smallest.yaml'}: ok (1 job, 1 run)",
    ]
    assert err.getvalue() == ""


def test_problems_go_to_stderr_and_make_it_2(tmp_path: Path) -> None:
    """A good file beside a bad one is still reported."""
    out, err = io.StringIO(), io.StringIO()
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\n")
    good = write(tmp_path, {})
    assert validate([bad, good], env={}, out=out, err=err) == 2
    assert out.getvalue() == f"{good}: ok (1 job, 1 run)\n"
    assert err.getvalue().startswith(f"{bad}:1:1: missing key 'name'\n   1 | version: 1\n     | ^\n")


@pytest.mark.parametrize(("strict", "code"), [(False, 0), (True, 2)])
def test_an_unset_variable_is_a_warning_unless_strict(tmp_path: Path, strict: bool, code: int) -> None:
    """CI has no key, and should still validate."""
    out, err = io.StringIO(), io.StringIO()
    path = write(tmp_path, {"endpoint": "a"}, endpoints={"a": {"id": "abc"}})
    assert validate([path], strict=strict, env={}, out=out, err=err) == code
    word = "" if strict else "warning: "
    assert f"{word}environment variable 'RUNPOD_API_KEY' is not set" in err.getvalue()


def test_json_is_one_document_on_stdout(tmp_path: Path) -> None:
    """The shape that editors and CI annotations read."""
    out, err = io.StringIO(), io.StringIO()
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "version: 1\nname: x\nendpoints: {a: {id: b}}\njobs: {j: {endpoint: a, input: 1, retry: {atempts: 2}}}\n"
    )
    assert validate([bad], as_json=True, env={}, out=out, err=err) == 2
    assert json.loads(out.getvalue()) == {
        "problems": [
            {
                "file": str(bad),
                "line": 3,
                "column": 16,
                "message": "environment variable 'RUNPOD_API_KEY' is not set",
                "fix": "export RUNPOD_API_KEY=…",
                "warning": True,
            },
            {
                "file": str(bad),
                "line": 4,
                "column": 43,
                "message": "unknown key 'atempts' in 'retry'",
                "fix": "did you mean 'attempts'?",
            },
        ]
    }
    assert err.getvalue() == ""


def test_plan_shows_what_would_be_sent(tmp_path: Path) -> None:
    """The body as RunPod gets it, before it is paid for."""
    out, err = io.StringIO(), io.StringIO()
    rows = {"matrix": {"seed": [1, 2]}}
    job = {
        "rows": rows,
        "input": {"s": "{{ matrix.seed }}"},
        "policy": {"execution_timeout": "10s", "low_priority": True},
    }
    path = write(tmp_path, job, endpoints={"local": {"handler": "echo.py:handler", "cost_per_second": 0.01}})
    assert plan(path, env={}, out=out, err=err) == 0
    lines = out.getvalue().splitlines()
    assert lines[0] == f"{path}: 1 job, 2 runs"
    assert lines[2] == "only: 2 runs on local endpoint 'local', mode async"
    assert lines[3] == "  first body, 72 B:"
    assert json.loads("\n".join(lines[4:13])) == {
        "input": {"s": 1},
        "policy": {"executionTimeout": 10000, "lowPriority": True},
    }
    assert lines[-1] == "  execution: at most 0.20 USD, if each run took 1 attempt of 10s"


def test_plan_as_json_has_runs_first_and_keys(tmp_path: Path) -> None:
    """For scripts that compare two plans."""
    out = io.StringIO()
    path = write(tmp_path, {"rows": {"inline": [{"a": 1}] * 9}, "input": {"a": "{{ row.a }}"}})
    assert plan(path, limit=5, as_json=True, env={}, out=out) == 0
    found = json.loads(out.getvalue())
    assert found["runs"] == found["jobs"]["only"]["runs"] == 5
    assert found["jobs"]["only"]["first"] == {"input": {"a": 1}}
    assert len(set(found["jobs"]["only"]["keys"])) == 3


def test_plan_of_a_bad_file_is_2(tmp_path: Path) -> None:
    """Problems look the same wherever they are found."""
    out, err = io.StringIO(), io.StringIO()
    path = write(tmp_path, {"retry": {"atempts": 3}})
    assert plan(path, env={}, out=out, err=err) == 2
    assert (out.getvalue(), "did you mean 'attempts'?" in err.getvalue()) == ("", True)
    assert plan(path, as_json=True, env={}, out=out) == 2
    assert json.loads(out.getvalue())["problems"][0]["fix"] == "did you mean 'attempts'?"


def test_rows_from_stdin_are_not_looked_at(tmp_path: Path) -> None:
    """The file is valid as far as it goes; whoever reads the line knows how far."""
    out, err = io.StringIO(), io.StringIO()
    path = write(tmp_path, {"rows": {"file": "-"}, "input": {"a": "{{ row.a }}"}})
    assert validate([path], env={}, out=out, err=err) == 0
    assert out.getvalue() == f"{path}: ok (1 job, 0 runs, and those from stdin)\n"
    assert "warning: rows from stdin are not checked" in err.getvalue()
    out, err = io.StringIO(), io.StringIO()
    assert plan(path, env={}, out=out, err=err) == 0
    assert "warning: rows from stdin are not checked" in err.getvalue()
    assert "only: 0 runs" in out.getvalue()


def test_plan_shows_what_is_passed_through_and_names_files(tmp_path: Path) -> None:
    """References stay references, and a megabyte of base64 is no help to anybody."""
    out = io.StringIO()
    job = {
        "webhook": "${HOOK}",
        "s3_config": {
            "access_id": "a",
            "access_secret": "${SECRET}",
            "bucket_name": "b",
            "endpoint_url": "https://s3.example.com",
        },
        "mode": "sync",
        "input": {"image": "{{ 'echo.py' | file_base64 }}"},
    }
    path = write(tmp_path, job)
    env = {"HOOK": "https://example.com/CANARY", "SECRET": "CANARY"}
    assert plan(path, env=env, as_json=True, out=out) == 0
    found = json.loads(out.getvalue())["jobs"]["only"]
    assert found["mode"] == "sync"
    assert found["first"]["input"]["image"]["file"] == "echo.py"
    assert found["first"]["webhook"] == "${HOOK}"
    assert found["first"]["s3Config"]["accessSecret"] == "${SECRET}"
    assert found["first_bytes"] > 200
    assert "CANARY" not in out.getvalue()


def test_control_characters_of_data_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """Rows come from anywhere."""
    out = io.StringIO()
    path = write(tmp_path, {"input": {"a": "\x1b[31mred\x9b"}})
    assert plan(path, env={}, out=out) == 0
    assert "\x1b" not in out.getvalue()
    assert "\x9b" not in out.getvalue()


LIGHT = """
import sys
from pathlib import Path
from runner.commands.validate import validate
assert validate([Path(sys.argv[1])]) == 0
print(sorted({"asyncio", "aiohttp", "jinja2", "sqlite3", "typer"} & set(sys.modules)))
"""


def test_validating_a_small_file_imports_nothing_heavy() -> None:
    """It runs in editors and hooks, where a second is long."""
    path = DATA / "good" / "smallest.yaml"
    done = subprocess.run([sys.executable, "-c", LIGHT, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
