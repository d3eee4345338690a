"""A whole job file, checked: the corpus of bad and good files, and what a table can't show."""

import os
from pathlib import Path
from typing import Any

import pytest
from job_files import opened, write

from runner.check import open_job_file
from runner.errors import JobFileError, RunnerError, UsageError
from runner.plan import make_plan
from runner.render import RenderError
from runner.spec import LocalEndpoint, RemoteEndpoint

DATA = Path(__file__).parent / "data"
BAD = sorted(path.stem for path in (DATA / "bad").glob("*.yaml"))
GOOD = sorted(path.stem for path in (DATA / "good").glob("*.yaml"))


ENV = {
    "SDXL_ENDPOINT_ID": "a",
    "RUNPOD_API_KEY": "b",
    "HOOK_URL": "https://example.com/c",
    "S3_ACCESS_ID": "d",
    "S3_SECRET": "e",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_exactly_this_message(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What, where and how to mend it: the message is the product here."""
    monkeypatch.chdir(DATA / "bad")
    with pytest.raises(RunnerError) as raised:
        make_plan(open_job_file(Path(f"{name}.yaml"), env={}))
    assert raised.value.render() + "\n" == Path(f"{name}.txt").read_text()


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_opens_and_plans(name: str) -> None:
    """Every key and form that is supported stays so."""
    job_file = open_job_file(DATA / "good" / f"{name}.yaml", env=ENV)
    assert make_plan(job_file).total > 0
    assert job_file.warnings == ()


def test_every_bad_file_has_its_message_and_no_message_is_left_over() -> None:
    """A renamed file must not leave a message that nothing checks."""
    assert sorted(path.stem for path in (DATA / "bad").glob("*.txt")) == BAD
    assert len(BAD) >= 100


def test_a_job_file_has_what_the_engine_needs() -> None:
    """In users' units, with references still in place."""
    job_file = open_job_file(DATA / "good" / "full.yaml", env={})
    sdxl, local = job_file.endpoints["sdxl"], job_file.endpoints["local"]
    assert isinstance(sdxl, RemoteEndpoint)
    assert isinstance(local, LocalEndpoint)
    assert (sdxl.id, sdxl.api_key) == ("${SDXL_ENDPOINT_ID}", "${RUNPOD_API_KEY}")
    assert (local.handler, local.workers, local.return_aggregate_stream) == ("handlers/echo.py:handler", 4, False)
    assert job_file.folder == DATA / "good"
    assert job_file.vars["home"] == "here"
    assert job_file.vars["literal"] == "${x}"
    assert len(job_file.sha256) == 64
    assert job_file.outputs.dir == "../batches"


@pytest.mark.parametrize(
    ("declared", "given", "value"),
    [("ink", "oil", "oil"), ("ink", "3", "3"), (1, "2", 2), (1.5, "2", 2.0), (True, "false", False), ([1], "[2]", [2])],
    ids=repr,
)
def test_an_override_takes_the_type_that_the_file_has(
    tmp_path: Path, declared: object, given: str, value: object
) -> None:
    """`--var seed=3` must not turn a number into text: other runs would get other keys."""
    path = write(tmp_path, {}, vars={"x": declared})
    found = open_job_file(path, env={}, overrides={"x": given}).vars["x"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("override", "message", "fix"),
    [
        ({"stile": "oil"}, "unknown variable 'stile' in {path}", "did you mean 'style'?"),
        ({"size": "big"}, "variable 'size' is a number in the file, found 'big'", "write --var size=3, or the like"),
    ],
    ids=["unknown", "type"],
)
def test_an_override_that_fits_nothing_is_refused(
    tmp_path: Path, override: dict[str, str], message: str, fix: str
) -> None:
    """A misspelled --var would run the whole batch with the wrong style."""
    path = write(tmp_path, {}, vars={"style": "ink", "size": 3})
    with pytest.raises(UsageError) as raised:
        open_job_file(path, env={}, overrides=override)
    assert (raised.value.message, raised.value.fix) == (message.format(path=path), fix)


def test_an_unknown_job_is_a_usage_error(tmp_path: Path) -> None:
    """It comes from the command line, so it has no place in the file."""
    with pytest.raises(UsageError) as raised:
        open_job_file(write(tmp_path, {}), env={}, only=["onyl"])
    assert raised.value.fix == "did you mean 'only'?"


S3 = {"access_id": "${ID}", "access_secret": "${SECRET}", "bucket_name": "b", "endpoint_url": "${S3_URL}"}


@pytest.mark.parametrize(
    ("only", "missing"),
    [
        (["one"], ["HOOK"]),
        (["two"], ["ID", "S3_URL", "SECRET"]),
        (["three"], []),
        ([], ["HOOK", "ID", "S3_URL", "SECRET"]),
    ],
    ids=["webhook", "s3", "neither", "all"],
)
def test_unset_variables_are_told_for_what_chosen_jobs_pass_through(
    tmp_path: Path, only: list[str], missing: list[str]
) -> None:
    """As for endpoints: the job that needs no bucket runs without its secret."""
    job = {"endpoint": "local", "input": 1}
    jobs = {"one": job | {"webhook": "${HOOK}"}, "two": job | {"s3_config": S3}, "three": job}
    path = write(tmp_path, {}, jobs=jobs)
    found = open_job_file(path, env={}, only=only)
    expected = [f"environment variable '{name}' is not set" for name in missing]
    assert sorted(problem.message for problem in found.warnings) == expected
    assert found.jobs["two"].s3_config is not None
    assert found.jobs["two"].s3_config.access_secret == "${SECRET}"


@pytest.mark.parametrize(
    ("webhook", "good"),
    [
        ("https://example.com/hook?token=${TOKEN}", True),
        ("http://10.0.0.1:8000/", True),
        ("${HOOK}", True),
        ("${HOOK:-https://example.com}", True),
        ("${UNSET}", True),
        ("${UNSET}/done", True),
        ("${PLAIN}", False),
        ("${HOOK:-https://example.com} and more", False),
        ("https://", False),
        ("example.com", False),
        ("mailto:me@example.com", False),
        ("https://exa mple.com", False),
    ],
)
def test_a_webhook_is_a_url_as_far_as_it_is_known(tmp_path: Path, webhook: str, good: bool) -> None:
    """RunPod would try three times and say nothing; the message here doesn't show it, for it is a secret."""
    path = write(tmp_path, {"webhook": webhook})
    env = {"HOOK": "https://example.com/CANARY", "PLAIN": "CANARY", "TOKEN": "CANARY"}
    if good:
        open_job_file(path, env=env)
        return
    with pytest.raises(JobFileError, match="http or https URL") as raised:
        open_job_file(path, env=env)
    assert "CANARY" not in raised.value.render()


def scope(**more: Any) -> dict[str, Any]:
    """What `success_when` sees of a run."""
    seen = {"status": "COMPLETED", "row": {"n": 2}, "matrix": None, "vars": {"least": 3}, "repeat": 0}
    return seen | {"execution_time_ms": 500, "delay_time_ms": 20} | more


@pytest.mark.parametrize(
    ("text", "output", "expected"),
    [
        ("output is defined", {"output": None}, True),
        ("output is defined", {}, False),
        ("output.image is defined", {"output": {"image": "x"}}, True),
        ("output.image is defined", {"output": {"error": "x"}}, False),
        ("output.items is defined", {"output": {}}, False),
        ("output.items == 3", {"output": {"items": 3}}, True),
        ("output is none", {"output": None}, True),
        ("output[0].ok", {"output": [{"ok": True}]}, True),
        ("output.images | length >= vars.least", {"output": {"images": [1, 2]}}, False),
        ("output.n == row.n and repeat == 0 and status == 'COMPLETED'", {"output": {"n": 2}}, True),
        ("execution_time_ms < 1000 and delay_time_ms < 10", {"output": 1}, False),
        ("'error' not in output", {"output": {"error": 1}}, False),
        ("output | length > 100_000", {"output": "x" * 5_000_000}, True),
    ],
)
def test_success_when_looks_at_an_output(tmp_path: Path, text: str, output: dict[str, object], expected: bool) -> None:
    """COMPLETED says that the handler returned, not that it did what was asked."""
    job = {"success_when": text, "rows": {"inline": [{"n": 2}]}}
    render = opened(tmp_path, job, vars={"least": 3}).templates["only"].success_when
    assert render is not None
    assert render(scope(**output)) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("output.image", "expected true or false, found 'x'"),
        ("output.imag", "there is no 'imag' here; did you mean 'image'?"),
        ("output.image > 3", "the template fails: '>' not supported between instances of 'str' and 'int'"),
        ("output.image is defined and 1", "expected true or false, found 1"),
    ],
)
def test_success_when_that_is_neither_true_nor_false_says_so(tmp_path: Path, text: str, message: str) -> None:
    """The run's error is made of it, so that the expression can be mended and the outputs looked at again."""
    render = opened(tmp_path, {"success_when": text}).templates["only"].success_when
    assert render is not None
    with pytest.raises(RenderError) as raised:
        render(scope(output={"image": "x"}))
    assert raised.value.message == message


def test_artifacts_are_made_of_a_run_and_its_output(tmp_path: Path) -> None:
    """Megabytes are handed on as they are, whatever a request's budget says."""
    artifacts = [
        {"path": "{{ row.lang }}/{{ run.index }}-{{ run.key }}.png", "base64": "{{ output.image }}"},
        {"path": "a.json", "json": {"all": "{{ output.scores }}", "of": ["{{ vars.v }}", 1]}},
        {"path": "b.json", "json": "{{ output }}"},
        {"path": "c.txt", "text": "{{ output.text | upper }} of {{ matrix.m }}"},
    ]
    rows = {"inline": [{"lang": "en"}], "matrix": {"m": [1]}}
    compiled = opened(tmp_path, {"artifacts": artifacts, "rows": rows}, vars={"v": "w"}).templates["only"].artifacts
    output = {"image": "x" * 5_000_000, "scores": [0.5] * 300_000, "text": "abc"}
    seen = {"row": {"lang": "en"}, "matrix": {"m": 1}, "vars": {"v": "w"}, "repeat": 0}
    seen |= {"run": {"index": 3, "key": "k"}}
    assert [(one.path(seen), one.kind) for one in compiled] == [
        ("en/3-k.png", "base64"),
        ("a.json", "json"),
        ("b.json", "json"),
        ("c.txt", "text"),
    ]
    values = [one.value(seen | {"output": output}) for one in compiled]
    assert values == [output["image"], {"all": output["scores"], "of": ["w", 1]}, output, "ABC of 1"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.png", "a.png"),
        (7, "7"),
        ("../../etc/cron.d/x", "an artifact's path can't leave its folder: '..' leads out of it: '../../etc/cron.d/x'"),
        ("{{/../../../}}/x", "an artifact's path can't leave its folder: '..' leads out of it: '{{/../../../}}/x'"),
        ("/etc/passwd", "an artifact's path is relative: '/etc/passwd'"),
        ("", "an artifact's path is empty: ''"),
        (None, "expected a path, found null"),
        ({"a": 1}, "expected a path, found a mapping"),
    ],
)
def test_a_rendered_path_is_checked_again(tmp_path: Path, value: object, expected: str) -> None:
    """Rows come from anywhere, and an artifact is a file on this machine."""
    artifacts = [{"path": "{{ row.name }}", "base64": "{{ output.image }}"}]
    job = {"artifacts": artifacts, "rows": {"inline": [{"name": "a"}]}}
    (compiled,) = opened(tmp_path, job).templates["only"].artifacts
    try:
        found = compiled.path({"row": {"name": value}})
    except RenderError as error:
        found = error.message
    assert found == expected


def test_an_artifact_without_its_part_of_the_output_says_what_is_missing(tmp_path: Path) -> None:
    """The output is kept, and the artifact's message is all there is to go by."""
    artifacts = [{"path": "a.png", "base64": "{{ output.image }}"}]
    (compiled,) = opened(tmp_path, {"artifacts": artifacts}).templates["only"].artifacts
    with pytest.raises(RenderError) as raised:
        compiled.value({"output": {"error": "out of memory"}})
    assert raised.value.loc == ("jobs", "only", "artifacts", 0, "base64")
    assert raised.value.message == "there is no 'image' here; known: 'error'"


REMOTE: dict[str, Any] = {
    "endpoints": {"a": {"id": "${A_ID}"}, "b": {"id": "${B_ID}"}, "local": {"handler": "echo.py:handler"}}
}


@pytest.mark.parametrize(
    ("endpoint", "env", "missing"),
    [
        ("a", {}, ["A_ID", "RUNPOD_API_KEY"]),
        ("a", {"A_ID": "x"}, ["RUNPOD_API_KEY"]),
        ("a", {"A_ID": "x", "RUNPOD_API_KEY": ""}, ["RUNPOD_API_KEY"]),
        ("a", {"A_ID": "x", "RUNPOD_API_KEY": "k"}, []),
        ("local", {}, []),
    ],
    ids=["both", "key", "empty key", "none", "local needs none"],
)
def test_unset_variables_are_told_for_the_endpoints_of_chosen_jobs(
    tmp_path: Path, endpoint: str, env: dict[str, str], missing: list[str]
) -> None:
    """Whoever runs one job need not set what others need; validate in CI has no key at all."""
    jobs = {"only": {"endpoint": endpoint, "input": 1}, "other": {"endpoint": "b", "input": 1}}
    path = write(tmp_path, {}, **REMOTE, jobs=jobs)
    expected = sorted(f"environment variable '{name}' is not set" for name in missing)
    job_file = open_job_file(path, env=env, only=["only"])
    assert sorted(problem.message for problem in job_file.warnings) == expected
    if missing:
        with pytest.raises(JobFileError) as raised:
            open_job_file(path, env=env, only=["only"], env_required=True)
        assert sorted(problem.message for problem in raised.value.problems) == expected


def test_a_resolved_value_is_checked_but_never_shown(tmp_path: Path) -> None:
    """An id with a slash would send the key to another path; what was in the variable is nobody's business."""
    with pytest.raises(JobFileError) as raised:
        opened(tmp_path, {"endpoint": "a"}, endpoints={"a": {"id": "${PATH_ID:-CANARY/x}"}})
    assert [problem.message for problem in raised.value.problems if not problem.warning] == [
        "an endpoint id has letters, digits, '-' and '_' only"
    ]


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://api.runpod.ai/v2", True),
        ("http://localhost:8000/v2", True),
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:80/v2", True),
        ("http://127.0.0.1.example.com/v2", False),
        ("http://localhost@example.com/v2", False),
        ("http://10.0.0.1/v2", False),
        ("https://user:pass@api.runpod.ai/v2", False),
        ("https://api.runpod.ai/v2?x=1", False),
        ("ftp://localhost/v2", False),
        ("https://", False),
    ],
)
def test_the_key_travels_over_https_or_loopback_only(tmp_path: Path, url: str, good: bool) -> None:
    """It is sent with every request to that URL."""
    endpoints = {"a": {"id": "abc", "base_url": url}}
    if good:
        opened(tmp_path, {"endpoint": "a"}, endpoints=endpoints)
    else:
        with pytest.raises(JobFileError):
            opened(tmp_path, {"endpoint": "a"}, endpoints=endpoints)


def test_a_local_endpoint_takes_a_short_execution_timeout(tmp_path: Path) -> None:
    """A test of a timeout should not take 5 s; RunPod takes none below that."""
    assert opened(tmp_path, {"policy": {"execution_timeout": "200ms"}}).warnings == ()


@pytest.mark.parametrize(
    ("timeouts", "words"),
    [
        ({"run": "1m"}, "'run' (1m) is below the policy's"),
        ({"run": "2h", "job": "1h"}, "'job' (1h) is below 'run' (2h)"),
    ],
    ids=["run", "job"],
)
def test_times_that_can_hardly_be_meant_are_warned_of(tmp_path: Path, timeouts: dict[str, str], words: str) -> None:
    """They are valid, and cancel jobs that are paid for."""
    found = opened(tmp_path, {"policy": {"execution_timeout": "5m"}, "timeouts": timeouts}).warnings
    assert [warning.message[: len(words)] for warning in found] == [words]


INPUT_WITH_VARIABLES = """\
version: 1
name: t
endpoints: {local: {handler: "echo.py:handler"}}
jobs:
  only:
    endpoint: local
    input:
      model: ${MODEL}
      list: ["$${SIZE} a ${MODEL:-sdxl}, ${SIZE}", {key: "{{ '${API_KEY}' }}"}]
      "${NAME}": "$${LITERAL} $5 ${} {{ vars.x | default('$') }}{x}"
"""


def test_a_variable_in_an_input_is_warned_of_for_it_stays_a_text(tmp_path: Path) -> None:
    """The handler would get `${MODEL}` in all innocence, a thousand times, paid for."""
    warnings = open_job_file(write(tmp_path, {}, text=INPUT_WITH_VARIABLES), env={"MODEL": "x"}).warnings
    assert [(one.line, one.column, one.message, one.fix) for one in warnings] == [
        (line, column, f"'${{{name}}}' is not replaced in 'input': the handler gets it as it is written", fix)
        for line, column, name, fix in [
            (8, 14, "MODEL", "declare it under vars, as model: ${MODEL}, and write {{ vars.model }}"),
            (9, 26, "MODEL", "declare it under vars, as model: ${MODEL}, and write {{ vars.model }}"),
            (9, 42, "SIZE", "declare it under vars, as size: ${SIZE}, and write {{ vars.size }}"),
            (
                *(9, 63, "API_KEY"),
                "a secret can't be part of an input, which is recorded: set it in the endpoint's environment",
            ),
        ]
    ]
    assert all(one.warning for one in warnings)


@pytest.mark.parametrize(
    "source",
    [
        "def handler(job): ...",
        "async def handler(job): ...",
        "class handler: ...",
        "handler = print",
        "a, (handler, b) = 1, (2, 3)",
        "handler: object = print",
        "from x import y as handler",
        "import handler",
        "from x import *",
        "try:\n    from x import handler\nexcept ImportError:\n    handler = None",
        "if True:\n    pass\nelse:\n    def handler(job): ...",
    ],
)
def test_a_handler_is_found_without_importing_it(tmp_path: Path, source: str) -> None:
    """Its imports may need a GPU, and validate runs in CI."""
    path = write(tmp_path, {})
    (tmp_path / "echo.py").write_text(f"import a_module_that_is_not_there\n{source}\n")
    open_job_file(path, env={})


def test_a_handler_that_is_no_python_says_where(tmp_path: Path) -> None:
    """The file to mend is the handler, not the job file."""
    path = write(tmp_path, {})
    (tmp_path / "echo.py").write_text("def handler(job):\nreturn 1\n")
    with pytest.raises(JobFileError) as raised:
        open_job_file(path, env={})
    assert raised.value.problems[0].message.startswith("'echo.py' is not valid Python: line 2: expected an indented")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_data_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Before anything is sent."""
    (tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "a.csv").chmod(0)
    with pytest.raises(JobFileError, match="can't be read"):
        opened(tmp_path, {"rows": {"file": "a.csv"}})


def test_a_guarded_key_may_be_missing(tmp_path: Path) -> None:
    """`is defined` and `default` are there for that."""
    template = "{{ matrix.extra | default(1) }}{{ 2 if vars.x is defined }}"
    opened(tmp_path, {"rows": {"matrix": {"a": [1]}}, "input": {"x": template}}, vars={"y": 1})
