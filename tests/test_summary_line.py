"""The line of JSON that a batch ends with for scripts: its fields are a contract."""

import io
import json
import os
import signal
from pathlib import Path

import pytest
from terminal import Ran, finish, runner, start, wait_until, write

from runner.commands.resume import resume
from runner.commands.run import Style
from runner.summary import sum_up
from runner.values import JsonObject, parse

JOB_FILE = """\
version: 1
name: horses
endpoints: {local: {handler: "handler.py:handler", cost_per_second: 0.001}}
jobs:
  photos: {endpoint: local, rows: {inline: [{n: 1}, {n: 2}]}, input: {n: "{{ row.n }}"}}
"""
HANDLER = "def handler(job):\n    return 6 / (job['input']['n'] - LEAST)\n"
FIELDS = [
    *("verdict", "exit_code", "name", "batch", "profile", "folder", "started_at", "ended_at"),
    *("runs", "succeeded", "failed", "cancelled", "skipped", "pending", "retried", "reused"),
    *("cost_usd", "cost_basis", "stopped", "thresholds_broken"),
]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A batch of two runs of which one fails, and what was said of it."""
    folder = tmp_path_factory.mktemp("ended")
    write(folder, {"handler.py": HANDLER.replace("LEAST", "2"), "job.yaml": JOB_FILE})
    return folder, runner("run", "job.yaml", "--summary", "json", cwd=folder)


def test_a_batch_ends_with_one_line_of_json(ended: tuple[Path, Ran]) -> None:
    """Stdout has nothing else, so a script parses it as it is; a person reads stderr."""
    folder, ran = ended
    batch = (folder / "batches/horses/latest").resolve()
    assert ran.out.count("\n") == 1
    assert list(ran.json) == FIELDS
    health = parse((batch / "health.json").read_bytes())
    assert ran.json == sum_up(health, str(batch), 1)
    assert {key: ran.json[key] for key in ("verdict", "exit_code", "runs", "succeeded", "failed", "folder")} == {
        **{"verdict": "fail", "exit_code": 1, "runs": 2, "succeeded": 1, "failed": 1},
        "folder": str(batch),
    }
    assert ran.json["cost_basis"] == "execution"
    assert f"fail: horses {batch.name}\n  1 of 2 runs did not succeed\n" in ran.err


def test_going_on_with_one_that_is_over_says_the_same_line(ended: tuple[Path, Ran]) -> None:
    """And writes its metrics, too, where they are asked for: cron may come again."""
    folder, ran = ended
    out, err = io.StringIO(), io.StringIO()
    style = Style(quiet=True, sums_up_as_json=True, prometheus=folder / "m.prom")
    assert resume("horses", style, output_dir=folder / "batches", out=out, err=err) == 1
    assert out.getvalue() == ran.out
    assert err.getvalue().startswith("fail: horses ")
    assert 'runner_verdict{batch="horses",verdict="fail"} 1\n' in (folder / "m.prom").read_text()


def test_the_line_comes_when_all_is_well_and_nobody_wants_to_hear_it(tmp_path: Path) -> None:
    """It was asked for; stderr stays silent, so cron writes no other mail than what is piped on."""
    write(tmp_path, {"handler.py": HANDLER.replace("LEAST", "9"), "job.yaml": JOB_FILE})
    ran = runner("run", "job.yaml", "--quiet", "--summary", "json", cwd=tmp_path)
    assert (ran.code, ran.err, ran.json["verdict"], ran.json["exit_code"]) == (0, "", "pass", 0)


def test_a_batch_that_was_terminated_tells_its_exit_code(tmp_path: Path) -> None:
    """It is the one that the process ends with."""
    begun = tmp_path / "begun"
    handler = (
        f"import pathlib, time\n\ndef handler(job):\n    pathlib.Path({str(begun)!r}).touch()\n    time.sleep(60)\n"
    )
    write(tmp_path, {"handler.py": handler, "job.yaml": JOB_FILE})
    process = start("run", "job.yaml", "--drain", "0s", "--summary", "json", cwd=tmp_path)
    wait_until(begun.exists, "a run to begin")
    os.kill(process.pid, signal.SIGTERM)
    ran = finish(process)
    assert (ran.code, ran.json["exit_code"], ran.json["verdict"]) == (143, 143, "interrupted")
    assert ran.json["pending"] == 2


def test_where_nothing_was_started_there_is_no_line(tmp_path: Path) -> None:
    """The exit code says what to do; a verdict there is none."""
    write(tmp_path, {"job.yaml": JOB_FILE.replace("endpoint: local", "endpoint: nowhere")})
    ran = runner("run", "job.yaml", "--summary", "json", cwd=tmp_path)
    assert (ran.code, ran.out) == (2, "")


def test_what_was_stopped_and_what_is_broken_is_told() -> None:
    """Why it is no pass, without another file to read."""
    counts = dict.fromkeys(("runs", "succeeded", "failed", "cancelled", "skipped", "pending", "retried", "reused"), 0)
    times = {"started_at": "2026-11-23T02:23:12.000Z", "ended_at": None}
    broken = {"name": "failed", "bound": "< 1%", "value": 0.5, "pass": False}
    health: JsonObject = {
        "verdict": "stopped",
        "batch": {"id": "x", "name": "n", "cost_usd": None, "cost_basis": None, **counts, **times},
        "jobs": {"a": {"stopped": "stop_when: 1 of 2 runs failed (limit 1)"}, "b": {"stopped": None}},
        "thresholds": [broken, broken | {"job": "a"}, broken | {"pass": True}],
    }
    told = sum_up(health, "/b", 1)
    assert told["stopped"] == {"a": "stop_when: 1 of 2 runs failed (limit 1)"}
    assert told["thresholds_broken"] == ["failed < 1%: 50%", "a: failed < 1%: 50%"]
    assert json.loads(json.dumps(told)) == told
