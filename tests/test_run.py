"""The main job, end to end: real processes, the real local endpoint, real files and signals."""

import base64
import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from terminal import ROOT, Server, finish, lines, processes_with, runner, serving, start, wait_until, write

import runner as package
from runner.batch import Folder

HANDLER = """
import os, time

def handler(job):
    given = job["input"]
    what = given.get("do", "echo")
    if what == "raise":
        raise ValueError("no horse")
    if what == "exit":
        os._exit(3)
    if what == "hang":
        open(given["mark"], "a").close()
        time.sleep(600)
    if what == "env":
        return dict(os.environ)
    time.sleep(given.get("sleep", 0))
    return given
"""

GRID = """\
version: 1
name: grid
endpoints:
  local: {handler: "handler.py:handler", workers: 2}
jobs:
  grid:
    endpoint: local
    rows:
      file: rows.csv
      matrix: {seed: [1, 2]}
    input: {text: "{{ row.text }}", seed: "{{ matrix.seed }}", sleep: 0.008}
"""


def job_file(text: str, *, name: str = "one", input_: str = "{x: 1}", more: str = "") -> str:
    """A job file with one endpoint and one job, and *more* keys of the job."""
    return f"""\
version: 1
name: {name}
endpoints:
  local: {text}
jobs:
  job:
    endpoint: local
    input: {input_}
{more}"""


LOCAL = '{handler: "handler.py:handler"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a handler and its job file of 300 rows and 2 seeds."""
    rows = "".join(f"row {number}\n" for number in range(300))
    write(tmp_path, {"handler.py": HANDLER, "grid.yaml": GRID, "rows.csv": "text\n" + rows})
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """The grid's endpoint, served by a process of its own."""
    with serving(folder / "grid.yaml") as found:
        yield found


def latest(folder: Path, name: str = "grid") -> Folder:
    """The newest batch."""
    return Folder((folder / "batches" / name / "latest").resolve())


def settled(folder: Path, name: str = "grid") -> int:
    """How many lines the newest batch has; 0 before there is one."""
    path = folder / "batches" / name / "latest" / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_stranger_runs_the_first_example(tmp_path: Path) -> None:
    """It is the first thing that anybody does with the project."""
    ran = runner("run", ROOT / "jobs/hello.yaml", "--output-dir", tmp_path, cwd=tmp_path)
    batch = Folder((tmp_path / "hello" / "latest").resolve())
    assert (ran.code, ran.err) == (0, f"running hello {batch.id}: 3 runs\n")
    assert ran.out.startswith(f"pass: hello {batch.id}\n  queued    1 of 1 succeeded, execution p50 ")
    found = {one["job"]: one for one in lines(batch.results)}
    assert {name: (one["state"], one["output"]) for name, one in found.items()} == {
        name: ("succeeded", list("Hello, World!")) for name in ("queued", "held", "streamed")
    }
    left = {path.relative_to(batch.path).as_posix() for path in batch.path.rglob("*") if path.is_file()}
    chunks = f"streams/{found['streamed']['key']}.1.jsonl"
    known = {"health.json", "report.html", "ledger.sqlite", "log.jsonl", "manifest.json", "results.jsonl"}
    assert left == {*known, ".ledger.seal", chunks}


def test_a_line_of_results_says_all_of_its_run(folder: Path) -> None:
    """These fields are the contract with everybody's notebooks."""
    write(folder, {"one.yaml": job_file(LOCAL)})
    assert runner("run", "one.yaml", cwd=folder).code == 0
    (line,) = lines(latest(folder, "one").results)
    assert list(line) == [
        *["key", "job", "index", "state", "outcome", "status", "row", "matrix", "repeat", "input", "output", "error"],
        *["job_id", "worker_id", "attempts", "delay_time_ms", "execution_time_ms", "submitted_at", "settled_at"],
        "artifacts",
    ]
    assert line["attempts"] == 1
    assert line["submitted_at"] <= line["settled_at"]


def test_a_kill_in_the_middle_costs_nothing(folder: Path, server: Server) -> None:
    """A night's batch must survive the machine: nothing lost, nothing paid for twice."""
    words = ("run", "grid.yaml", "--local", server.url)
    process = start(*words, cwd=folder, env=server.env)
    wait_until(lambda: settled(folder) >= 50, "50 settled runs")
    process.send_signal(signal.SIGKILL)
    finish(process)
    before = settled(folder)
    assert before < 600

    ran = runner(*words, "--resume", cwd=folder, env=server.env)
    found = lines(latest(folder).results)
    lost = [one for one in found if one["outcome"] == "answer_lost"]
    assert len(found) == len({one["key"] for one in found}) == 600
    assert {one["outcome"] for one in found} <= {"completed", "answer_lost"}
    assert len(lost) <= 200  # only what the kill cut off between a request and its answer
    assert ran.code == (1 if lost else 0), ran.err
    submits = server.submits()
    assert set(submits.values()) == {1}
    assert 600 - len(lost) <= len(submits) <= 600
    health = json.loads(latest(folder).health.read_bytes())
    assert health["batch"]["runs"] == 600
    assert health["batch"]["succeeded"] + health["batch"]["failed"] == 600


def test_an_embedded_endpoint_goes_with_its_process_and_a_resume_starts_its_jobs_again(folder: Path) -> None:
    """Its jobs ended unpaid, so they are pending again; and no worker may be left behind."""
    process = start("run", "grid.yaml", cwd=folder, env={"MARK": (mark := f"mark-{os.getpid()}-{id(folder)}")})
    wait_until(lambda: settled(folder) >= 20, "20 settled runs")
    process.send_signal(signal.SIGKILL)
    finish(process)
    wait_until(lambda: not processes_with(mark), "every process of the batch to end")
    ran = runner("run", "grid.yaml", "--resume", cwd=folder)
    assert ran.code == 0, ran.err
    found = lines(latest(folder).results)
    assert len({one["key"] for one in found}) == len(found) == 600
    assert {one["outcome"] for one in found} == {"completed"}


def test_a_second_start_is_refused_while_the_first_runs(folder: Path) -> None:
    """Two crons at once would pay for everything twice."""
    write(folder, {"one.yaml": job_file(LOCAL, input_=f"{{do: hang, mark: {folder / 'mark'}}}")})
    process = start("run", "one.yaml", cwd=folder)
    wait_until((folder / "mark").exists, "the handler to run")
    ran = runner("run", "one.yaml", cwd=folder)
    assert ran.code == 5
    assert ran.err.startswith(f"error: another batch of 'one' is running: process {process.pid} on ")
    live = runner("status", "one", "--format", "json", cwd=folder).json
    assert (live["verdict"], live["batch"]["pending"]) == ("running", 1)
    process.send_signal(signal.SIGKILL)
    finish(process)
    ended = runner("status", "one", "--format", "json", cwd=folder).json
    assert (ended["verdict"], ended["batch"]["pending"]) == ("unfinished", 1)
    last = runner("status", "one", cwd=folder).out.splitlines()[-1]
    assert last == f"  to go on with it: runner resume {(folder / 'batches/one/latest').resolve()}"


def test_an_unfinished_batch_is_neither_forgotten_nor_mixed_up(folder: Path, server: Server) -> None:
    """Whether paid work goes on or starts again is for a person to say."""
    process = start("run", "grid.yaml", "--local", server.url, cwd=folder, env=server.env)
    wait_until(lambda: settled(folder) >= 1, "the first run")
    process.send_signal(signal.SIGKILL)
    finish(process)
    batch, done = latest(folder), settled(folder)
    ran = runner("run", "grid.yaml", "--local", server.url, cwd=folder, env=server.env)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: batch {batch.id} of 'grid' is unfinished: ")
    assert ran.err.endswith("  help: go on with it with --resume, or start a new one beside it with --fresh\n")
    assert settled(folder) == done

    (folder / "rows.csv").write_text("text\nanother\n")
    ran = runner("run", "grid.yaml", "--local", server.url, "--fresh", cwd=folder, env=server.env)
    assert (ran.code, settled(folder)) == (0, 2)


def test_first_ctrl_c_drains_and_a_resume_finishes(folder: Path, server: Server) -> None:
    """What runs is paid for: it is followed, and the rest waits for a resume."""
    process = start("run", "grid.yaml", "--local", server.url, cwd=folder, env=server.env)
    wait_until(lambda: settled(folder) >= 20, "20 settled runs")
    process.send_signal(signal.SIGINT)
    ran = finish(process)
    assert ran.code == 130, ran.err
    assert "SIGINT: starting nothing more; following " in ran.err
    assert ran.err.endswith("  go on with --resume\n")
    assert len(server.events("accepted")) == settled(folder) < 600
    assert json.loads(latest(folder).health.read_bytes())["verdict"] == "interrupted"
    assert runner("run", "grid.yaml", "--local", server.url, "--resume", cwd=folder, env=server.env).code == 0
    assert set(server.submits().values()) == {1}
    assert len(server.submits()) == settled(folder) == 600


def test_sigterm_leaves_what_runs_to_a_resume(folder: Path) -> None:
    """A shutdown must not cancel paid work, nor wait for it longer than it may."""
    write(folder, {"one.yaml": job_file(LOCAL, input_=f"{{do: hang, mark: {folder / 'mark'}}}")})
    with serving(folder / "one.yaml") as server:
        words = ("run", "one.yaml", "--local", server.url)
        process = start(*words, "--drain", "100ms", cwd=folder, env=server.env)
        wait_until((folder / "mark").exists, "the handler to run")
        process.send_signal(signal.SIGTERM)
        ran = finish(process)
        assert ran.code == 143, ran.err
        assert (settled(folder, "one"), server.events("done")) == (0, [])


def test_a_second_ctrl_c_cancels_what_runs(folder: Path) -> None:
    """Who presses it twice wants the meter to stop."""
    write(folder, {"one.yaml": job_file(LOCAL, input_=f"{{do: hang, mark: {folder / 'mark'}}}")})
    with serving(folder / "one.yaml") as server:
        process = start("run", "one.yaml", "--local", server.url, cwd=folder, env=server.env)
        wait_until((folder / "mark").exists, "the handler to run")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "SIGINT" not in process.stderr.readline():
            pass
        # Within a second it would count as a key that bounced, so it is sent until it counts.
        wait_until(lambda: _interrupted(process, server), "the job to be cancelled")
        ran = finish(process)
        assert ran.code == 130, ran.err
        assert [event["status"] for event in server.events("done")] == ["CANCELLED"]
    (line,) = lines(latest(folder, "one").results)
    assert (line["state"], line["outcome"], line["status"]) == ("cancelled", "cancelled", "CANCELLED")


def _interrupted(process: "subprocess.Popen[str]", server: Server) -> bool:
    if server.events("done"):
        return True
    try:
        process.wait(1.05)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    return bool(server.events("done"))


def test_a_failing_run_fails_the_batch_and_says_why(folder: Path) -> None:
    """Exit code and summary are all that cron sees."""
    write(folder, {"one.yaml": job_file(LOCAL, input_="{do: raise}")})
    ran = runner("run", "one.yaml", "--quiet", cwd=folder)
    batch = latest(folder, "one")
    assert (ran.code, ran.out) == (1, "")
    first, why, job, error, look, again, where = ran.err.splitlines()
    assert (first, why) == (f"fail: one {batch.id}", "  1 of 1 run did not succeed")
    assert (error, where) == ("       1 x ValueError: no horse", f"  {batch.path}")
    assert look == "  results.jsonl has each run's error, log.jsonl what happened when"
    assert again == f"  to run again what did not succeed: runner resume {batch.path} --retry-failed"
    assert job.startswith("  job  0 of 1 succeeded (1 failed), execution p50 ")
    (line,) = lines(batch.results)
    assert (line["state"], line["outcome"], line["status"]) == ("failed", "failed", "FAILED")
    assert line["error"]["type"] == "ValueError"
    assert "handler.py" in line["error"]["traceback"]
    assert "output" not in line


def test_a_worker_that_dies_harms_its_own_run_only(folder: Path) -> None:
    """One bad input of a thousand must not take the others along."""
    rows = "    rows: {inline: [{do: echo}, {do: exit}, {do: echo}]}\n"
    write(folder, {"one.yaml": job_file(LOCAL, input_='{do: "{{ row.do }}"}', more=rows)})
    assert runner("run", "one.yaml", cwd=folder).code == 1
    found = {one["index"]: one["outcome"] for one in lines(latest(folder, "one").results)}
    assert found == {0: "completed", 1: "crashed", 2: "completed"}


def test_a_retried_run_says_how_often_it_was_paid_for(folder: Path) -> None:
    """Attempts are money: the report counts them."""
    retry = "    retry: {attempts: 3, outcomes: [failed], wait_initial: 1ms}\n"
    write(folder, {"one.yaml": job_file(LOCAL, input_="{do: raise}", more=retry)})
    ran = runner("run", "one.yaml", "--format", "json", cwd=folder)
    assert ran.code == 1
    assert ran.json == json.loads(latest(folder, "one").health.read_bytes())
    assert ran.json["jobs"]["job"]["retried"] == 2
    (line,) = lines(latest(folder, "one").results)
    assert (line["attempts"], line["outcome"]) == (3, "failed")


def test_a_run_past_its_time_is_cancelled_at_the_endpoint(folder: Path) -> None:
    """Our own limit has to stop the meter, not just our waiting."""
    more = "    timeouts: {run: 300ms}\n"
    write(folder, {"one.yaml": job_file(LOCAL, input_=f"{{do: hang, mark: {folder / 'mark'}}}", more=more)})
    with serving(folder / "one.yaml") as server:
        ran = runner("run", "one.yaml", "--local", server.url, cwd=folder, env=server.env)
        assert [event["status"] for event in server.events("done")] == ["CANCELLED"]
    (line,) = lines(latest(folder, "one").results)
    assert (ran.code, line["outcome"], line["attempts"]) == (1, "timed_out", 1)


def test_the_policy_ends_a_handler_that_hangs(folder: Path) -> None:
    """RunPod's own limit, sent with the request."""
    more = "    policy: {execution_timeout: 300ms}\n"
    write(folder, {"one.yaml": job_file(LOCAL, input_=f"{{do: hang, mark: {folder / 'mark'}}}", more=more)})
    assert runner("run", "one.yaml", cwd=folder).code == 1
    (line,) = lines(latest(folder, "one").results)
    assert (line["outcome"], line["status"]) == ("timed_out", "FAILED")


def test_jobs_that_run_out_of_time_skip_what_was_never_sent(folder: Path) -> None:
    """The counts add up to the plan: nothing is left without a word."""
    more = "    rows: {inline: [{n: 1}, {n: 2}, {n: 3}]}\n    concurrency: 1\n    timeouts: {job: 400ms}\n"
    input_ = f'{{do: hang, mark: {folder / "mark"}, n: "{{{{ row.n }}}}"}}'
    write(folder, {"one.yaml": job_file(LOCAL, input_=input_, more=more)})
    ran = runner("run", "one.yaml", "--format", "json", cwd=folder)
    assert (ran.code, ran.json["verdict"]) == (1, "stopped")
    job = ran.json["jobs"]["job"]
    assert (job["failed"], job["skipped"], job["outcomes"]) == (1, 2, {"timed_out": 1})
    assert [one["outcome"] for one in lines(latest(folder, "one").results)] == ["timed_out", None, None]


REMOTE = '{{id: local, api_key: "${{RUNPOD_API_KEY}}", base_url: "{url}"}}'
CANARY = "rpa_CANARY0123456789abcdefghijkl"


def test_a_key_is_found_nowhere(folder: Path) -> None:
    """Batch folders are copied, mailed and checked in."""
    remote = """\
version: 1
name: remote
endpoints:
  remote: {id: local, base_url: "URL"}
jobs:
  good: {endpoint: remote, input: {do: echo}}
  bad: {endpoint: remote, input: {do: raise}}
  env: {endpoint: remote, input: {do: env}}
"""
    with serving(folder / "grid.yaml", token=CANARY) as server:
        write(folder, {"remote.yaml": remote.replace("URL", server.url)})
        env = {"RUNPOD_API_KEY": CANARY}
        ran = [runner(verb, "remote.yaml", cwd=folder, env=env) for verb in ("validate", "plan", "health", "run")]
        assert [one.code for one in ran] == [0, 0, 0, 1], [one.err for one in ran]
        wrong = runner("run", "remote.yaml", cwd=folder, env={"RUNPOD_API_KEY": CANARY[:-1] + "X"})
        assert wrong.code == 4
        assert wrong.err.splitlines()[1:3] == [
            "error: endpoint 'remote' refused: GET /health of endpoint 'local': HTTP 401 "
            '({"error":"unauthorized"})',
            "  help: check the endpoint's 'api_key': RunPod's console lists the valid ones",
        ]
        assert CANARY[:-1] not in wrong.out + wrong.err
        kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert not [path for path, data in kept.items() if CANARY[:-1].encode() in data]
    assert not [one for one in ran if CANARY in one.out + one.err]
    assert len(kept) > 10


def test_an_unknown_endpoint_is_refused_before_anything_is_sent(folder: Path, server: Server) -> None:
    """A wrong id is the commonest mistake of a first run."""
    text = job_file(REMOTE.format(url=server.url).replace("id: local", "id: nowhere"), input_="{do: echo}")
    write(folder, {"one.yaml": text})
    ran = runner("run", "one.yaml", cwd=folder, env={"RUNPOD_API_KEY": server.token})
    assert ran.code == 4
    assert "error: endpoint 'local' refused: GET /health of endpoint 'nowhere': HTTP 404" in ran.err
    assert server.events("accepted") == []


def test_an_invalid_file_sends_nothing_and_leaves_nothing(folder: Path) -> None:
    """Exit 2 promises that no request was made."""
    write(folder, {"one.yaml": job_file(LOCAL, more="    atempts: 3\n")})
    ran = runner("run", "one.yaml", cwd=folder)
    assert ran.code == 2
    assert ran.err.startswith("one.yaml:9:5: unknown key 'atempts'")
    assert not (folder / "batches").exists()


def test_a_file_in_an_input_stands_in_results_by_its_digest(folder: Path) -> None:
    """Megabytes of base64 in every line would make the results unreadable."""
    input_ = "{image: \"{{ 'rows.csv' | file_base64 }}\"}"
    write(folder, {"one.yaml": job_file(LOCAL, input_=input_)})
    ran = runner("run", "one.yaml", cwd=folder)
    assert ran.code == 0, ran.err
    (line,) = lines(latest(folder, "one").results)
    data = (folder / "rows.csv").read_bytes()
    assert line["input"] == {"image": {"file": "rows.csv", "sha256": sha256(data).hexdigest()}}
    assert base64.b64decode(line["output"]["image"]) == data


VALUES = [
    *["", "007", "1e5", "[1]", "null", "{{ 7*7 }}", "${HOME}", "a,b", 'say "hi"', "line\none", "\ttab", "€ 馬 🐎"],
    *["\u2028", "<script>alert(1)</script>", "\x1b[31mred", "=1+1", "\x7f", "ends in space "],
]
JSON_VALUES: list[Any] = [
    *VALUES,
    0,
    -1,
    2**63,
    10**30,
    1.5,
    1e-300,
    True,
    False,
    None,
    [],
    {},
    [[{"a": [None]}]],
    {"": 0},
]


def test_every_value_arrives_as_it_was_written(folder: Path) -> None:
    """Through data file, template, HTTP, handler and results: a model must see what the researcher wrote."""
    with (folder / "values.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["value"])
        writer.writerows([value] for value in VALUES if value)
    write(folder, {"values.jsonl": "".join(json.dumps({"value": value}) + "\n" for value in JSON_VALUES)})
    jobs = "version: 1\nname: one\nendpoints: {local: " + LOCAL + "}\njobs:\n"
    for kind in ("csv", "jsonl"):
        jobs += f"  {kind}:\n    endpoint: local\n    rows: {{file: values.{kind}}}\n"
        jobs += '    input: {value: "{{ row.value }}"}\n'
    write(folder, {"one.yaml": jobs})
    ran = runner("run", "one.yaml", cwd=folder)
    assert ran.code == 0, ran.err
    found = sorted(lines(latest(folder, "one").results), key=lambda one: (one["job"], one["index"]))
    wanted = [{"value": value} for value in [*filter(None, VALUES), *JSON_VALUES]]
    for kind in ("row", "input", "output"):
        assert [repr(one[kind]) for one in found] == [repr(value) for value in wanted]


def test_a_handler_that_cannot_be_imported_is_said_with_its_place(folder: Path) -> None:
    """It is the user's own code that has to be mended."""
    write(folder, {"one.yaml": job_file(LOCAL), "handler.py": "import nowhere_to_be_found\ndef handler(job): pass\n"})
    ran = runner("run", "one.yaml", cwd=folder)
    assert ran.code == 2
    assert "handler.py:handler can't be imported: ModuleNotFoundError: No module named 'nowhere_to_be_found'" in ran.err
    assert "Traceback" not in ran.err
    assert not list((folder / "batches").glob("one/2*"))


async def test_python_runs_a_job_file(folder: Path) -> None:
    """Notebooks and tests call the same thing as the command."""
    write(folder, {"one.yaml": job_file(LOCAL, input_='{text: "{{ vars.text }}"}') + "vars: {text: a}\n"})
    batch = await package.run(folder / "one.yaml", vars={"text": "b"})
    assert (batch.verdict, batch.exit_code) == ("pass", 0)
    assert [one["output"] for one in batch.results()] == [{"text": "b"}]
    assert batch.health["jobs"]["job"]["succeeded"] == 1


def test_a_manifest_tells_enough_to_repeat_the_batch(folder: Path) -> None:
    """Months later somebody asks what made this picture."""
    assert runner("run", "grid.yaml", "--limit", "1", cwd=folder).code == 0
    manifest: dict[str, Any] = json.loads(latest(folder).manifest.read_bytes())
    assert manifest["job_file"] == {
        "path": str(folder / "grid.yaml"),
        "text": (folder / "grid.yaml").read_text(),
        "sha256": sha256((folder / "grid.yaml").read_bytes()).hexdigest(),
    }
    assert [(one["path"], one["rows"]) for one in manifest["inputs"]] == [(str(folder / "rows.csv"), 300)]
    assert manifest["overrides"] == {"vars": {}, "jobs": [], "limit": 1}
    assert manifest["plan"] == {"grid": 1}
    assert manifest["versions"]["python"] == sys.version.split()[0]


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_validates_and_plans(path: Path, tmp_path: Path) -> None:
    """An example that fails teaches the wrong thing."""
    assert runner("validate", path, cwd=tmp_path).code == 0
    assert runner("plan", path, "--format", "json", cwd=tmp_path).code == 0
