"""`runner serve`: the local endpoints of a job file, or one handler, by themselves."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from terminal import ROOT, environment, finish, processes_with, runner, start, wait_until, write

from runner.local.faults import Kind

SMALL = f"{sys.executable} -P -m runner.local.worker"
Start = Callable[["subprocess.Popen[str]"], "subprocess.Popen[str]"]
HANDLER = 'def handler(job):\n    return job["input"]["text"].upper()\n\n\ndef other(job):\n    return "other"\n'
SLOW = "import time\n\ntime.sleep(600)\n\n\ndef handler(job): ...\n"
JOB_FILE = f"""\
version: 1
name: kinds
endpoints:
  own: {{handler: "echo.py:handler"}}
  program: {{command: {SMALL} ./echo.py:handler, workers: 2}}
  there: {{external: true}}
  remote: {{id: abc123, api_key: "${{REMOTE_KEY}}"}}
jobs:
  a: {{endpoint: own, input: {{text: a}}}}
  b: {{endpoint: program, input: {{text: b}}}}
  c: {{endpoint: there, input: {{text: c}}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a job file of every kind of local endpoint, and a handler."""
    write(tmp_path, {"kinds.yaml": JOB_FILE, "echo.py": HANDLER, "needs model.py": SLOW})
    return tmp_path


@pytest.fixture
def started() -> Iterator[Start]:
    """Starts processes, and kills those that a failed test leaves."""
    processes: list[subprocess.Popen[str]] = []

    def keep(process: "subprocess.Popen[str]") -> "subprocess.Popen[str]":
        processes.append(process)
        return process

    yield keep
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def introduced(process: "subprocess.Popen[str]", until: str) -> list[str]:
    """The lines that it prints, up to one that begins with *until*."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line.rstrip("\n"))
        if line.startswith(until):
            return said
    raise AssertionError("\n".join(said) + (process.stderr.read() if process.stderr else ""))


def end(process: "subprocess.Popen[str]", number: signal.Signals) -> str:
    """End it, cleanly; what it had said on stderr."""
    process.send_signal(number)
    ran = finish(process)
    assert ran.code == 0, ran.err
    return ran.err


def test_every_local_endpoint_is_served_and_a_worker_starts_by_what_is_printed(folder: Path, started: Start) -> None:
    """Pasted into a shell as it stands: what the worker itself must replace is quoted."""
    process = started(start("serve", "kinds.yaml", cwd=folder, env={"REMOTE_KEY": "secret-key"}))
    said = introduced(process, "# in Docker")
    assert said[0].startswith("serving own, program, there of kinds at http://127.0.0.1:")
    url, paste = said[0].split()[-1], said[5:-1]
    assert said[4:6] == [
        "",
        "# a worker of there: paste this into the shell that starts it, once for each, then start it",
    ]
    assert f"export RUNPOD_WEBHOOK_GET_JOB='{url}/there/job-take/$ID?gpu=LOCAL'" in paste
    names = re.findall(r"^export (\w+)=", "\n".join(paste), re.MULTILINE)
    given = " ".join(f"-e {name}" for name in names)
    assert sorted(said[-1].split()) == sorted(
        f"# in Docker, from that shell: docker run --rm --network host {given} IMAGE".split()
    )
    script = "\n".join([*paste, f"exec {SMALL} {folder}/echo.py:handler"])
    worker = started(subprocess.Popen(["bash", "-c", script], env=environment(), text=True))
    ran = runner(*said[2].split()[1:], cwd=folder, env={"RUNNER_LOCAL_TOKEN": said[1].partition("=")[2]})
    assert ran.code == 0, ran.err
    results = (folder / "batches/kinds/latest/results.jsonl").read_text().splitlines()
    found = {one["job"]: one for one in map(json.loads, results)}
    assert {job: one["output"] for job, one in found.items()} == {"a": "A", "b": "B", "c": "C"}
    assert found["b"]["worker_id"].startswith("program-w")
    assert re.fullmatch(r"there-\d+-\d+", found["c"]["worker_id"])
    worker.kill()
    worker.communicate()
    end(process, signal.SIGTERM)
    assert processes_with(str(folder)) == []


def test_a_token_of_the_user_s_own_is_never_shown(folder: Path, started: Start) -> None:
    """It is in the environment already, and terminals are recorded."""
    process = started(start("serve", "kinds.yaml", "--token-env", "MINE", cwd=folder, env={"MINE": "tok-of-the-user"}))
    said = introduced(process, "# in Docker")
    assert [line for line in said if "tok-of-the-user" in line] == []
    assert said[1].endswith(" --token-env MINE")
    assert '-H "Authorization: Bearer $MINE"' in said[2]
    assert "tok-of-the-user" not in end(process, signal.SIGINT)


@pytest.mark.parametrize(("words", "output"), [("echo.py", "HORSE"), ("echo.py:other", "other")])
def test_a_handler_is_served_by_itself(folder: Path, started: Start, words: str, output: str) -> None:
    """Under the name of its file: to try one, nobody needs a job file."""
    process = started(start("serve", words, cwd=folder))
    said = introduced(process, "curl ")
    assert said[0].startswith(f"serving echo of {words if ':' in words else words + ':handler'} at http://127.0.0.1:")
    script = f"{said[1]}\n{said[2]}".replace("/run ", "/runsync ").replace("curl", "curl -sS")
    script = script.replace('{"hello": "world"}', '{"text": "horse"}')
    answer = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["output"] == output, answer.stderr
    end(process, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_its_workers_start(folder: Path, started: Start, number: signal.Signals) -> None:
    """A model may take minutes to load; Ctrl-C must not."""
    process = started(start("serve", "needs model.py", cwd=folder))
    wait_until(lambda: len(processes_with("needs model.py")) >= 3, "the worker")
    assert end(process, number) == ""
    assert processes_with("needs model.py") == []


def test_workers_do_not_see_the_keys_of_the_file(tmp_path: Path) -> None:
    """Of no endpoint, and no webhook: a handler is often somebody else's code."""
    job_file = """\
version: 1
name: keys
endpoints:
  own: {handler: "look.py:handler"}
  remote: {id: abc123, api_key: "${REMOTE_KEY}"}
jobs:
  a: {endpoint: own, input: {x: 1}, webhook: "${HOOK_URL}"}
  b: {endpoint: remote, input: {x: 1}, webhook: "${HOOK_URL}"}
"""
    look = "import os\n\n\ndef handler(job):\n    return sorted(os.environ)\n"
    write(tmp_path, {"keys.yaml": job_file, "look.py": look})
    keys = {"REMOTE_KEY": "secret-key", "HOOK_URL": "http://127.0.0.1:9/secret-path", "KEPT": "x"}
    ran = runner("run", "keys.yaml", "--job", "a", "--quiet", cwd=tmp_path, env=keys)
    assert ran.code == 0, ran.err
    (line,) = (tmp_path / "batches/keys/latest/results.jsonl").read_text().splitlines()
    assert [name for name in keys if name in json.loads(line)["output"]] == ["KEPT"]


def test_a_command_of_a_job_file_takes_its_variables(tmp_path: Path) -> None:
    """Each within its word; nothing else is replaced, for there is no shell."""
    write(tmp_path, {"look.py": "import sys\n\n\ndef handler(job):\n    return sys.argv\n"})
    job_file = """\
version: 1
name: words
endpoints:
  own: {command: "${PYTHON_HERE} -P -m runner.local.worker 'a  b' $HOME ${MORE:-none} ./look.py:handler"}
jobs:
  a: {endpoint: own, input: {x: 1}}
"""
    write(tmp_path, {"words.yaml": job_file})
    ran = runner("run", "words.yaml", "--quiet", cwd=tmp_path)
    assert ran.code == 2
    assert "words.yaml:4:18: environment variable 'PYTHON_HERE' is not set" in ran.err
    keys = {"PYTHON_HERE": sys.executable, "MORE": "c d"}
    ran = runner("run", "words.yaml", "--quiet", cwd=tmp_path, env=keys)
    assert ran.code == 0, ran.err
    (line,) = (tmp_path / "batches/words/latest/results.jsonl").read_text().splitlines()
    assert json.loads(line)["output"][1:] == ["a  b", "$HOME", "c d", "./look.py:handler"]


def test_an_external_endpoint_must_be_served_before_it_is_run(folder: Path) -> None:
    """An embedded one would wait for workers that nobody can start in time."""
    ran = runner("run", "kinds.yaml", "--job", "c", cwd=folder)
    assert (ran.code, ran.out, ran.err) == (
        2,
        "",
        "error: endpoint 'there' is external: its workers are yours to start, so it must be served first\n"
        "  help: runner serve kinds.yaml, start a worker as it says, then runner run kinds.yaml --local URL\n",
    )
    assert not list(folder.glob("batches/kinds/2*"))
    assert runner("run", "kinds.yaml", "--job", "a", "--quiet", cwd=folder).code == 0


def test_a_command_that_becomes_no_worker_is_said(folder: Path) -> None:
    """Before anything is accepted, and with its last words."""
    write(folder, {"bad.yaml": JOB_FILE.replace(f"{SMALL} ./echo.py:handler", "sh -c 'echo oh no; exit 3'")})
    for words in (["serve"], ["run", "--job", "b"]):
        ran = runner(words[0], "bad.yaml", *words[1:], cwd=folder)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.endswith(
            "error: the worker 'sh -c 'echo oh no; exit 3'' exited with code 3 before it was ready;"
            " its last words: oh no\n"
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("absent.py", "error: there is no file 'absent.py'\n"),
        ("echo.py:handle", "error: 'echo.py' defines no 'handle'\n  help: did you mean 'handler'?\n"),
        (
            "remote.yaml",
            "error: remote.yaml has no local endpoint to serve\n"
            "  help: give an endpoint a 'handler' or a 'command', or make it 'external: true'\n",
        ),
    ],
)
def test_what_can_t_be_served_is_refused_with_its_fix(folder: Path, words: str, message: str) -> None:
    """Nobody should have to look the right call up."""
    remote = "version: 1\nname: r\nendpoints: {r: {id: abc}}\njobs: {a: {endpoint: r, input: {x: 1}}}\n"
    write(folder, {"remote.yaml": remote})
    ran = runner("serve", words, cwd=folder)
    assert (ran.code, ran.out, ran.err) == (2, "", message)


def test_a_killed_server_leaves_no_worker(folder: Path, started: Start) -> None:
    """Neither a handler's nor a command's, though nobody could end them."""
    process = started(start("serve", "kinds.yaml", cwd=folder, env={"RUN_MARK": str(folder)}))
    introduced(process, "# in Docker")
    wait_until(lambda: len(processes_with(str(folder))) == 7, "server, three launchers and three workers")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not processes_with(str(folder)), "the workers' end")


# Bad days.


def asked(process: "subprocess.Popen[str]") -> Callable[..., str]:
    """How to ask the endpoint ``echo`` that *process* serves: what is seen is a status, or "broken"."""
    said = introduced(process, "curl ")
    url, token = said[0].split()[-1], said[1].partition("=")[2]

    def ask(method: str, path: str, body: bytes | None = None, **headers: str) -> str:
        given = {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): text for name, text in headers.items()}}
        request = urllib.request.Request(f"{url}/echo/{path}", body, given, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return f"{answer.status} {answer.read().decode()}"
        except urllib.error.HTTPError as error:
            with error:
                return f"{error.code} {error.headers.get('Retry-After', '')}".rstrip()
        except (OSError, http.client.HTTPException):
            return "broken"

    return ask


def test_a_bad_day_is_served_as_it_was_ordered(folder: Path, started: Start) -> None:
    """By options, and by a request's header; the log says who met what, and what was queued all the same."""
    words = [
        "--fault",
        "run:429=1,retry_after=3s",
        "--fault",
        "status:502=1",
        "--fault",
        "unhealthy=2",
        "--fault-header",
    ]
    process = started(start("serve", "echo.py", "--log", "log.jsonl", "--seed", "5", *words, cwd=folder))
    ask = asked(process)
    assert introduced(process, "# a request")[1:] == [
        "# a bad day, seed 5: run:429=1,retry_after=3s status:502=1 unhealthy=2",
        "# a request may ask for a fault: -H 'X-Runner-Fault: 502'",
    ]
    body = b'{"input": {"text": "x"}}'
    assert ask("POST", "run", body) == "429 3"
    assert ask("POST", "run", body, X_Runner_Fault="reset_after") == "broken"
    job_id = json.loads(ask("POST", "run", body).removeprefix("200 "))["id"]
    assert ask("GET", f"status/{job_id}") == "502"
    assert '"output":"X"' in ask("GET", f"status-sync/{job_id}")
    assert json.loads(ask("GET", "health").removeprefix("200 "))["workers"]["unhealthy"] == 2
    assert end(process, signal.SIGTERM) == ""
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    met = [(one["operation"], one["fault"]) for one in events if one["event"] == "asked"]
    assert met == [
        ("run", "429"),
        ("run", "reset_after"),
        ("run", None),
        ("status", "502"),
        ("status-sync", None),
        ("health", None),
    ]
    assert sum(one["event"] == "accepted" for one in events) == 2


def test_the_same_seed_is_the_same_bad_day(folder: Path, started: Start) -> None:
    """On another server, another day: who found a bug can find it again."""

    def seen(seed: str) -> list[str]:
        words = ["--seed", seed, "--fault", "429=20%", "--fault", "500_after=20%", "--fault", "reset_before=20%"]
        process = started(start("serve", "echo.py", *words, cwd=folder))
        ask = asked(process)
        found = [ask("GET", "health").partition(" ")[0] for _ in range(40)]
        end(process, signal.SIGTERM)
        return found

    first = seen("7")
    assert set(first) == {"200", "429", "500", "broken"}
    assert seen("7") == first != seen("8")


def test_rate_limits_and_retention_are_kept_where_they_are_asked_for(folder: Path, started: Start) -> None:
    """What was refused is said at the end."""
    process = started(start("serve", "echo.py", "--rate-limits", "--retention", "50ms", cwd=folder))
    ask = asked(process)
    assert introduced(process, "# RunPod's") == ["", "# RunPod's rate limits are kept"]
    assert [ask("POST", "purge-queue")[:3] for _ in range(4)] == ["200", "200", "429", "429"]
    job_id = json.loads(ask("POST", "run", b'{"input": {"text": "x"}}').removeprefix("200 "))["id"]
    wait_until(lambda: ask("GET", f"status/{job_id}") == "404", "the result to be forgotten")
    assert end(process, signal.SIGTERM) == "refused by the rate limits: 2 of /echo/purge-queue\n"


def test_the_help_names_every_fault_and_a_wrong_one_is_refused(folder: Path) -> None:
    """Nobody should have to read the code to have a bad day."""
    said = runner("serve", "--help", cwd=folder).out
    states = ["cold_start", "throttled", "unhealthy", "stalled", "times_out"]
    known = [*Kind, *states, "retry_after", "retry_at", "over", "shown"]
    assert [kind for kind in known if not re.search(rf"\b{kind}\b", said)] == []
    for option in ("--fault", "--seed", "--fault-header", "--rate-limits", "--retention"):
        assert option in said
    ran = runner("serve", "echo.py", "--fault", "run:pause", cwd=folder)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: 'run:pause' is no fault: nothing is called 'pause'\n  help: choose one of 429, ")


def test_the_bad_day_of_the_readme_is_one(started: Start) -> None:
    """As it stands there."""
    (line,) = re.findall(
        r"^\$ \.venv/bin/runner (serve .* --fault .*)$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    process = started(start(*line.split(), cwd=ROOT))
    assert introduced(process, "# a bad day")[-1] == (
        "# a bad day, seed 0: 429=5%,retry_after=2s run:reset_after=3 cold_start=20s"
    )
    end(process, signal.SIGTERM)
