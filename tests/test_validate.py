"""The commands that send nothing: validate and plan."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from job_files import write
from terminal import environment, lines, runner

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


PLUGIN = """
from pathlib import Path

class Plugin:
    def new_schema_validator(self, *_):
        Path("seen").touch()
        return None, None, None

plugin = Plugin()
"""


def test_no_plugin_of_pydantic_sees_a_job_file(tmp_path: Path) -> None:
    """What somebody installed to watch their own models would log what stands in a job file, secrets, too."""
    about = tmp_path / "watch-1.dist-info"
    defaults = {"retry": {"attempts": 2}}
    profiles = {"dev": {"defaults": {"concurrency": 1}}}
    path = write(tmp_path, {}, thresholds={"failed": "< 1%"}, defaults=defaults, profiles=profiles)
    (tmp_path / "watch.py").write_text(PLUGIN)
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: watch\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[pydantic]\nwatch = watch:plugin\n")
    env = environment() | {"PYTHONPATH": str(tmp_path)}
    watched = "import pydantic\nclass Model(pydantic.BaseModel): pass"
    for code, is_seen in (("import runner.__main__; runner.__main__.main()", False), (watched, True)):
        subprocess.run([sys.executable, "-c", code, "validate", str(path)], cwd=tmp_path, env=env, check=True)
        assert (tmp_path / "seen").exists() is is_seen


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
    assert lines[-2:] == [
        "  execution: 0.02 USD for each second that every run takes; 0.20 USD if each took 1 attempt of 10s",
        "  not in it: the time in which workers start and idle, jobs that RunPod runs again by itself",
    ]


def test_plan_as_json_has_runs_first_and_keys(tmp_path: Path) -> None:
    """For scripts that compare two plans."""
    out = io.StringIO()
    path = write(tmp_path, {"rows": {"inline": [{"a": 1}] * 9}, "input": {"a": "{{ row.a }}"}})
    assert plan(path, limit=5, as_json=True, env={}, out=out) == 0
    found = json.loads(out.getvalue())
    assert found["runs"] == found["jobs"]["only"]["runs"] == 5
    assert found["jobs"]["only"]["first"] == {"input": {"a": 1}}
    assert len(set(found["jobs"]["only"]["keys"])) == 3


@pytest.mark.parametrize(
    ("endpoint", "job", "shown"),
    [
        ({}, {}, []),
        ({"cost_per_second": 0.00031}, {}, ["execution: 0.00062 USD for each second that every run takes"]),
        ({"cost_per_second": 0}, {}, ["execution: 0.00 USD for each second that every run takes"]),
        (
            {"cost_per_second": 700},
            {"policy": {"execution_timeout": "5m"}, "retry": {"attempts": 3}},
            [
                "execution: 1,400.00 USD for each second that every run takes; "
                "1,260,000.00 USD if each took 3 attempts of 5m"
            ],
        ),
        (
            {"cost_per_second": 1},
            {"stop_when": {"cost": "0.5 USD"}, "on_answer_lost": "resubmit"},
            [
                "execution: 2.00 USD for each second that every run takes",
                "stop_when: nothing more is started once 0.50 USD are spent on execution",
            ],
        ),
    ],
    ids=["no rate", "small", "free", "large", "stop_when"],
)
def test_the_estimate_says_what_is_known_and_what_is_not(
    tmp_path: Path, endpoint: dict[str, object], job: dict[str, object], shown: list[str]
) -> None:
    """Nobody can know the bill before it comes: a small amount isn't rounded to nothing, a bound isn't made up."""
    out = io.StringIO()
    path = write(
        tmp_path, {"rows": {"repeat": 2}} | job, endpoints={"local": {"handler": "echo.py:handler"} | endpoint}
    )
    assert plan(path, env={}, out=out) == 0
    said = out.getvalue().splitlines()
    found = [line.strip() for line in said if line.strip().startswith(("execution:", "stop_when:", "not in it:"))]
    again = ", and resubmits" if "on_answer_lost" in job else ""
    rest = f"not in it: the time in which workers start and idle, jobs that RunPod runs again by itself{again}"
    assert found == [*shown, rest] if shown else found == []


def test_the_estimate_as_json_is_null_where_nothing_is_known(tmp_path: Path) -> None:
    """A script that adds up must not take an unknown for nothing."""
    out = io.StringIO()
    local = {"handler": "echo.py:handler"}
    endpoints = {"a": local, "b": local | {"cost_per_second": 0.01}}
    job = {"input": {"x": 1}, "rows": {"repeat": 3}}
    bounded = {"policy": {"execution_timeout": "10s"}, "retry": {"attempts": 2}}
    jobs = {"none": job | {"endpoint": "a"}, "rate": job | {"endpoint": "b"}, "all": job | {"endpoint": "b"} | bounded}
    assert plan(write(tmp_path, {}, jobs=jobs, endpoints=endpoints), as_json=True, env={}, out=out) == 0
    found = json.loads(out.getvalue())["jobs"]
    costs = {name: (one["cost_per_second_usd"], one["cost_at_limit_usd"]) for name, one in found.items()}
    assert costs == {"none": (None, None), "rate": (0.03, None), "all": (0.03, 0.6)}


def test_the_keys_of_a_plan_are_those_of_its_runs(tmp_path: Path) -> None:
    """Whoever looks one up in the results finds it: files, equal inputs, templates and all."""
    rows = {"file": "rows.csv", "matrix": {"seed": [1, 2]}, "repeat": 2}
    given = {"text": "{{ row.text }} {{ vars.v }}", "file": "{{ 'rows.csv' | file_base64 }}"}
    jobs = {
        "one": {"endpoint": "local", "rows": rows, "input": given | {"seed": "{{ matrix.seed }}"}},
        "two": {"endpoint": "local", "rows": rows, "input": given},
    }
    (tmp_path / "rows.csv").write_text("text\na\na\nb\n")
    path = write(tmp_path, {}, jobs=jobs, vars={"v": "x"})
    options = ("--var", "v=y", "--limit", "4")
    planned = runner("plan", path, *options, "--format", "json", cwd=tmp_path).json
    ran = runner("run", path, *options, "--output-dir", "out", cwd=tmp_path)
    assert (ran.code, planned["runs"]) == (0, 8), ran.err
    results = lines(tmp_path / "out/t/latest/results.jsonl")
    for name, job in planned["jobs"].items():
        keys = [one["key"] for one in sorted(results, key=lambda one: one["index"]) if one["job"] == name]
        assert (job["runs"], job["keys"]) == (len(keys), keys[:3])


def test_a_first_body_that_runpod_would_refuse_is_said(tmp_path: Path) -> None:
    """Each run would be too_large; `sync` takes twice as much."""
    for mode, bytes_, words in [("async", 11, "more than the 10.0 MiB"), ("sync", 11, None), ("sync", 20, "more than")]:
        out = io.StringIO()
        rows = {"inline": [{"text": "x" * (bytes_ * 2**20 // 8)}]}
        job = {"mode": mode, "rows": rows, "input": ["{{ row.text }}"] * 8}
        assert plan(write(tmp_path, job), env={}, out=out) == 0
        (line,) = [line for line in out.getvalue().splitlines() if line.startswith("  first body, ")]
        assert (words or "more than") in line if words else line.endswith("MiB:")


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


class Terminal(io.StringIO):
    """A stdin that nobody pipes anything into."""

    def isatty(self) -> bool:
        """A person sits there, and waits for an answer."""
        return True


PIPED = {"rows": {"file": "-", "limit": 3, "matrix": {"seed": [1, 2]}}, "input": {"a": "{{ row.a }}"}}


def test_plan_reads_the_rows_that_are_piped_into_it(tmp_path: Path) -> None:
    """What a run would submit, to the last run; the copy that it was read from is gone."""
    path = write(tmp_path, PIPED)
    (tmp_path / "tmp").mkdir()
    words = [sys.executable, "-m", "runner", "plan", str(path)]
    env = environment({"TMPDIR": str(tmp_path / "tmp")})
    rows = "".join(f'{{"a": {number}}}\n' for number in range(5))

    def ran(*more: str, given: str = rows) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*words, *more], input=given, env=env, capture_output=True, text=True, check=False)

    found = ran("--format", "json")
    assert (found.returncode, found.stderr) == (0, "")
    document = json.loads(found.stdout)
    assert (document["runs"], document["jobs"]["only"]["runs"], document["jobs"]["only"]["first"]) == (
        *(6, 6),
        {"input": {"a": 0}},
    )
    (file,) = document["inputs"]
    assert (file["path"], file["rows"], file["size_bytes"]) == ("stdin", 5, len(rows))
    assert f"{path}: 1 job, 6 runs\n  stdin: 5 rows, 45 B, sha256 " in ran().stdout
    bad = ran(given='{"a": 1}\nprompt\n')
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith(
        "stdin:2:1: not JSON: expecting value\n   2 | prompt\n     | ^\n  help: write one object"
    )
    assert ran(given="").stdout.startswith(f"{path}: 1 job, 0 runs\n")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_plan_at_a_terminal_says_that_it_read_no_rows(tmp_path: Path) -> None:
    """It must not wait for somebody to type jsonl, nor pretend that there are none."""
    path = write(tmp_path, PIPED | {"policy": {"execution_timeout": "1m"}})
    out, err = io.StringIO(), io.StringIO()
    assert plan(path, env={}, stdin=Terminal(), out=out, err=err) == 0
    assert "warning: rows from stdin are not checked" in err.getvalue()
    assert out.getvalue() == (
        f"{path}: 1 job, 0 runs, and those from stdin\n\nonly: runs from stdin on local endpoint 'local', mode async\n"
    )
    out = io.StringIO()
    assert plan(path, env={}, stdin=Terminal(), as_json=True, out=out, err=err) == 0
    job = json.loads(out.getvalue())["jobs"]["only"]
    assert (job["runs"], job["first"], job["keys"]) == (None, None, [])


def test_a_plan_without_rows_from_stdin_leaves_it_alone(tmp_path: Path) -> None:
    """A pipe may be meant for the next command; reading this one would fail."""
    plain = {"endpoint": "local", "input": {"x": 1}}
    path = write(tmp_path, {}, jobs={"piped": {"endpoint": "local"} | PIPED, "plain": plain})
    closed = io.StringIO()
    closed.read = closed.fileno = None  # type: ignore[method-assign, assignment]
    assert plan(path, only=["plain"], env={}, stdin=closed, out=io.StringIO()) == 0


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
