"""The command line: what a mistyped call gets, and what each command prints."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import environment, finish, runner, serving, start, write

HANDLER = "def handler(job):\n    return job['input']\n"
ECHO = """\
version: 1
name: echo
endpoints:
  local: {handler: "echo.py:handler"}
jobs:
  greet:
    endpoint: local
    input: {text: hello}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a job file that runs."""
    write(tmp_path, {"echo.yaml": ECHO, "echo.py": HANDLER})
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nofile.yaml"], "nofile.yaml:1:1: there is no such file\n"),
        (
            ["run", "echo.yaml", "--var", "x"],
            "error: --var wants NAME=VALUE, found 'x'\n  help: write --var style=ink\n",
        ),
        (
            ["run", "echo.yaml", "--var", "x=1"],
            "error: unknown variable 'x' in echo.yaml\n  help: the file has no vars\n",
        ),
        (
            ["run", "echo.yaml", "--job", "greed"],
            "error: unknown job 'greed' in echo.yaml\n  help: did you mean 'greet'?\n",
        ),
        (
            ["plan", "echo.yaml", "--format", "xml"],
            "error: --format is text or json, found 'xml'\n  help: write --format json\n",
        ),
        (
            ["run", "echo.yaml", "--drain", "30"],
            "error: --drain '30': a duration needs a number and a unit: 500ms, 90s, 5m, 2h or 1d\n"
            "  help: write --drain 25s\n",
        ),
        (
            ["run", "echo.yaml", "--resume", "--fresh"],
            "error: --resume and --fresh exclude each other\n  help: leave one out\n",
        ),
        (
            ["run", "echo.yaml", "--summary", "json", "--format", "json"],
            "error: --summary json and --format json exclude each other\n  help: leave one out\n",
        ),
        (
            ["run", "echo.yaml", "--summary", "short"],
            "error: --summary is text or json, found 'short'\n  help: write --summary json\n",
        ),
        (
            ["run", "echo.yaml", "--local", "http://127.0.0.1:9/v2"],
            "error: --local needs the served endpoint's token, and the environment variable RUNNER_LOCAL_TOKEN is not"
            " set\n  help: export RUNNER_LOCAL_TOKEN=… as 'runner serve' prints it, or name another with --token-env\n",
        ),
        (
            ["serve", "echo.yaml", "--host", "0.0.0.0"],
            "error: '0.0.0.0' is not a loopback address, and the local endpoint serves this machine only\n"
            "  help: use 127.0.0.1, and a tunnel such as 'ssh -L' to reach it from elsewhere\n",
        ),
        (
            ["serve", "echo.yaml", "--token-env", "NOWHERE"],
            "error: the environment variable NOWHERE is not set\n  help: export NOWHERE=…, or leave --token-env out\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistaken_call_exits_2_with_its_fix(folder: Path, words: list[str], message: str) -> None:
    """Nobody should have to look the right call up."""
    ran = runner(*words, cwd=folder)
    assert (ran.code, ran.out, ran.err) == (2, "", message)
    assert not list(folder.glob("batches/echo/2*"))


@pytest.mark.parametrize(
    "words", [["plan"], ["run", "echo.yaml", "--bogus"], ["frob"], ["run", "echo.yaml", "--limit", "0"]]
)
def test_a_call_that_cannot_be_parsed_exits_2(folder: Path, words: list[str]) -> None:
    """Scripts tell a wrong call from a failed batch by it."""
    ran = runner(*words, cwd=folder)
    assert (ran.code, ran.out) == (2, "")
    assert "Error: " in ran.err


def test_a_bug_is_called_one(folder: Path) -> None:
    """Exit 3 and a traceback: not the user's fault, and something to report."""
    write(folder, {"sitecustomize.py": "import runner.check\nrunner.check.open_job_file = None\n"})
    ran = runner("plan", "echo.yaml", cwd=folder, env={"PYTHONPATH": str(folder)})
    assert ran.code == 3
    assert ran.err.startswith("Traceback (most recent call last):")
    assert ran.err.endswith("this is a bug in runner; please report it with the lines above\n")


def test_quiet_says_nothing_when_all_is_well(folder: Path) -> None:
    """Cron mails whatever is printed."""
    ran = runner("run", "echo.yaml", "--quiet", cwd=folder)
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_json_is_the_only_thing_on_stdout(folder: Path) -> None:
    """It is piped into jq."""
    ran = runner("run", "echo.yaml", "--format", "json", cwd=folder)
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["verdict"] == "pass"
    status = runner("status", "--format", "json", cwd=folder)
    assert (status.code, status.json) == (0, ran.json)


def test_status_finds_a_batch_by_folder_id_and_name(folder: Path) -> None:
    """Whatever a person has at hand."""
    assert runner("run", "echo.yaml", "--quiet", cwd=folder).code == 0
    path = (folder / "batches/echo/latest").resolve()
    said = {runner("status", name, cwd=folder).out for name in ("latest", "echo", path.name, str(path))}
    (text,) = said
    assert text.startswith(f"pass: echo {path.name}\n  greet  1 of 1 succeeded, execution p50 ")
    ran = runner("status", "nothing", cwd=folder)
    assert (ran.code, ran.err) == (
        2,
        f"error: no batch 'nothing': it is no batch folder, and {folder / 'batches'} holds none of that name\n"
        "  help: give a batch folder, an id, a job file's name, or 'latest'; --output-dir says where to look\n",
    )


def test_what_serve_prints_works_as_it_stands(folder: Path) -> None:
    """It is copied into a shell."""
    process = start("serve", "echo.yaml", cwd=folder)
    assert process.stdout is not None
    said = [process.stdout.readline().strip() for _ in range(4)]
    assert said[0].startswith("serving local of echo at http://127.0.0.1:")
    script = f"{said[1]}\n{said[3].replace('curl', 'curl -sS')}\n"
    answer = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["status"] == "IN_QUEUE", answer.stderr
    name, _, token = said[1].removeprefix("export ").partition("=")
    ran = runner(*said[2].split()[1:], cwd=folder, env={name: token})
    assert ran.code == 0, ran.err
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 0


def test_a_port_in_use_is_said(folder: Path) -> None:
    """The second terminal is forgotten often enough."""
    with serving(folder / "echo.yaml") as server:
        port = server.url.split(":")[2].removesuffix("/v2")
        ran = runner("serve", "echo.yaml", "--port", port, cwd=folder)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"error: can't listen on 127.0.0.1 port {port}: Address already in use\n"
        "  help: choose another port, or 0 for any free one\n"
    )


def test_health_explains_each_endpoint(folder: Path) -> None:
    """Before spending: is the key right, and does anybody work there?"""
    ran = runner("health", "echo.yaml", cwd=folder)
    assert (ran.code, ran.out) == (
        0,
        "local: embedded: lives only while a batch runs; serve it with 'runner serve' and give --local URL\n",
    )
    with serving(folder / "echo.yaml") as server:
        ran = runner("health", "echo.yaml", "--local", server.url, "--format", "json", cwd=folder, env=server.env)
        assert (ran.code, ran.json["endpoints"]["local"]["diagnosis"]) == (0, "idle: nothing waits and nothing runs")
        assert ran.json["endpoints"]["local"]["workers"]["ready"] == 1
        ran = runner(
            "health", "echo.yaml", "--local", server.url, cwd=folder, env={"RUNNER_LOCAL_TOKEN": "wrong-token"}
        )
        assert ran.code == 4
        assert ran.out.startswith(
            "local: can't be told: endpoint 'local' refused: GET /health of endpoint 'local': HTTP 401"
        )
        assert ran.err == ""  # once is enough


@pytest.mark.parametrize("command", ["status", "health echo.yaml"])
def test_nobody_reading_on_is_no_error(folder: Path, command: str) -> None:
    """Somebody quits the pager."""
    if command == "status":
        assert runner("run", "echo.yaml", "--quiet", cwd=folder).code == 0
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "runner", *command.split()]
    ran = subprocess.run(words, cwd=folder, env=environment(), stdout=writer, stderr=subprocess.PIPE, check=True)
    os.close(writer)
    assert ran.stderr == b""


def test_an_unwritable_output_folder_is_refused_before_anything_is_sent(folder: Path) -> None:
    """A result that can't be kept is money thrown away."""
    (folder / "file").write_text("")
    ran = runner("run", "echo.yaml", "--output-dir", "file", cwd=folder)
    assert (ran.code, ran.err) == (
        2,
        f"error: the output folder {folder / 'file' / 'echo'} can't be made: Not a directory\n"
        "  help: name another one with 'outputs.dir' in the job file, or with --output-dir\n",
    )
