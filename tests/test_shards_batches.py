"""Shards as processes of their own: together they are the batch that one process runs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from job_files import as_yaml
from terminal import Ran, Server, finish, runner, serving, start

OF = 4
RUNS = 24

HANDLER = """
def handler(job):
    given = job["input"]
    if given["n"] % 6 == 5:
        raise ValueError(f"no horse {given['n'] % 4}")
    return {"n": given["n"] * 10}
"""

JOB_FILE = {
    "version": 1,
    "name": "horses",
    "endpoints": {"local": {"handler": "echo.py:handler", "workers": 2, "cost_per_second": 0.0001}},
    "jobs": {
        "photos": {
            "endpoint": "local",
            "rows": {"file": "rows.csv"},
            "input": {"n": "{{ row.n | int }}"},
            "artifacts": [{"path": "{{ run.index }}.json", "json": "{{ output.n }}"}],
        }
    },
    "thresholds": {"failed": "< 20%", "answer_lost": "== 0"},
    "health": {"every": "1s"},
}

FIELDS = "key,job,index,state,outcome,row,matrix,repeat,input,output,error,attempts,artifacts"


def job_file(folder: Path, **more: Any) -> Path:
    """The job file in *folder*, with its handler and data."""
    (folder / "echo.py").write_text(HANDLER)
    (folder / "rows.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(RUNS)))
    path = folder / "job.yaml"
    path.write_text(as_yaml(JOB_FILE | more))
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One endpoint for all of them."""
    with serving(job_file(tmp_path_factory.mktemp("served"))) as server:
        yield server


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Path:
    """A folder in which three of four tasks of a Slurm array have run, all at once."""
    folder = tmp_path_factory.mktemp("sharded")
    path = job_file(folder)
    words: list[str | Path] = ["run", path, "--local", server.url, "--quiet", "--shard", "auto"]
    processes = [start(*words, cwd=folder, env=server.env | slurm(task)) for task in (1, 2, 4)]
    ran = [finish(process) for process in processes]
    assert {one.code for one in ran} <= {0, 1}, ran
    return folder


def slurm(task: int) -> dict[str, str]:
    """What Slurm tells a task of `sbatch --array=1-4`."""
    told = {"ID": task, "MIN": 1, "MAX": OF, "COUNT": OF, "STEP": 1}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in told.items()} | {"SLURM_ARRAY_JOB_ID": "871"}


def told(*words: str | Path, folder: Path, server: Server) -> Ran:
    """What a command says in *folder*, without that folder's own name."""
    ran = runner(*words, cwd=folder, env=server.env)
    return Ran(
        ran.code, ran.out.replace(str(folder), "DIR"), ran.err.replace(str(folder), "DIR").replace(server.url, "URL")
    )


def timeless(health: Any) -> Any:
    """A health report without what tells of times, of looks, and of the batch's own name."""
    batch = {name: value for name, value in health["batch"].items() if name not in ("id", "started_at", "ended_at")}
    jobs = {
        name: {key: value for key, value in job.items() if not key.endswith("_time_ms") and key != "cost_usd"}
        for name, job in health["jobs"].items()
    }
    batch.pop("cost_usd")
    return {"verdict": health["verdict"], "batch": batch, "jobs": jobs, "thresholds": health["thresholds"]}


def lines(folder: Path, name: str, server: Server) -> list[Any]:
    """What the results of a batch say, but for times, in the order of the plan."""
    found = told("results", name, "--fields", FIELDS, folder=folder, server=server)
    assert (found.code, found.err) == (0, "")
    return sorted((json.loads(line) for line in found.out.splitlines()), key=lambda line: int(line["index"]))


def test_who_asks_before_all_have_ended_hears_which_shard_is_missing(batches: Path, server: Server) -> None:
    """And the exact command that starts it."""
    said = told("status", "slurm-871", folder=batches, server=server)
    command = "runner run DIR/job.yaml --shard 3/4 --batch-id slurm-871 --output-dir DIR/batches --local " + server.url
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[0] == "unfinished: horses slurm-871"
    assert re.fullmatch(r"  \d+ of 24 runs pending", said.out.splitlines()[1])
    assert said.out.splitlines()[-4:] == [
        "  DIR/batches/horses/slurm-871",
        "  4 shards: 1 missing, 3 ended",
        f"  shard 3/4 is missing: {command}",
        "  or all of these here, one after another: runner resume DIR/batches/horses/slurm-871",
    ]
    results = told("results", "slurm-871", folder=batches, server=server)
    assert results.err == f"note: not all is among these, shard 3/4 is missing: {command}\n".replace(server.url, "URL")
    shards = told("status", "slurm-871", "--format", "json", folder=batches, server=server).json["shards"]
    assert [(one["shard"], one["standing"]) for one in shards] == [
        ("1/4", "ended"),
        ("2/4", "ended"),
        ("3/4", "missing"),
        ("4/4", "ended"),
    ]


def test_a_shard_that_has_begun_is_not_begun_again(batches: Path, server: Server) -> None:
    """A task that Slurm queues again, and a pod that Kubernetes starts again, say --resume, and get its end."""
    words = ["run", "job.yaml", "--local", server.url, "--shard", "1/4", "--batch-id", "slurm-871"]
    before = sum(server.submits().values())
    again = told(*words, folder=batches, server=server)
    assert (again.code, again.out) == (2, "")
    assert again.err == (
        "error: shard 1/4 of batch slurm-871 has begun, in DIR/batches/horses/slurm-871/shards/01-of-04\n"
        "  help: go on with it with --resume, which also says how it ended; or give all shards another --batch-id\n"
    )
    resumed = told(*words, "--resume", "--format", "json", folder=batches, server=server)
    assert resumed.code in (0, 1)
    assert resumed.json["batch"]["id"] == "01-of-04"
    assert sum(server.submits().values()) == before


def test_a_shard_of_another_number_or_of_other_data_is_refused(batches: Path, server: Server, tmp_path: Path) -> None:
    """Else some runs would be in two of them, and others in none."""
    words: list[str | Path] = ["--local", server.url, "--batch-id", "slurm-871", "--output-dir", batches / "batches"]
    other = told("run", "job.yaml", "--shard", "3/5", *words, folder=batches, server=server)
    assert (other.code, other.err) == (
        2,
        "error: --shard 3/5: batch slurm-871 has 4 shards, DIR/batches/horses/slurm-871/shards/01-of-04 is one of"
        " them\n  help: write --shard NUMBER/4, or another --batch-id\n",
    )
    path = job_file(tmp_path)
    (tmp_path / "rows.csv").write_text("n\n1\n2\n")
    differs = told("run", path, "--shard", "3/4", *words, folder=batches, server=server)
    assert (differs.code, differs.err) == (
        2,
        "error: shard 3/4 is not of one batch with shard 1/4 in DIR/batches/horses/slurm-871/shards: their data"
        " differ\n  help: give all shards the same file, data and options, or this one another --batch-id\n",
    )


def test_all_shards_together_are_the_batch_of_one_process(batches: Path, server: Server) -> None:
    """Results and report are the same but for times, whoever ran what; no run was sent twice."""
    resumed = told("resume", "slurm-871", "--format", "json", folder=batches, server=server)
    assert resumed.code == 0, resumed.err
    assert max(server.submits().values()) == 1
    alone = told("run", "job.yaml", "--local", server.url, "--format", "json", folder=batches, server=server)
    assert alone.code == 0, alone.err
    merged = told("report", "slurm-871", "--format", "json", folder=batches, server=server)
    assert [one["standing"] for one in merged.json["shards"]] == ["ended"] * OF
    assert timeless(merged.json) == timeless(resumed.json) == timeless(alone.json)
    assert lines(batches, "slurm-871", server) == lines(batches, "latest", server)
    page = (batches / "batches/horses/slurm-871/report.html").read_text()
    assert all(text in page for text in ("no horse 1", "shards/02-of-04/artifacts", "slurm-871"))
    assert "--repeat" not in page
    suites = [
        told("report", name, "--format", "junit", folder=batches, server=server) for name in ("slurm-871", "latest")
    ]
    counts = [
        re.findall(r'<testsuite name="(\S+)" tests="(\d+)" failures="(\d+)" errors="(\d+)"', one.out) for one in suites
    ]
    assert counts[0] == counts[1] == [("horses", "3", "0", "0"), ("horses.photos", "24", "4", "0")]


def test_a_run_is_shown_whichever_shard_has_it(batches: Path, server: Server) -> None:
    """By its place in the whole plan, or its key."""
    for index in (0, 5, 17, 23):
        found = told("show", "slurm-871", str(index), "--format", "json", folder=batches, server=server).json
        assert found["run"]["index"] == index
    again = told("show", "slurm-871", found["run"]["key"], "--format", "json", folder=batches, server=server).json
    assert again == found


def test_commands_for_one_batch_say_that_it_is_in_shards(batches: Path, server: Server) -> None:
    """And which do take all of them."""
    said = told("watch", "slurm-871", folder=batches, server=server)
    assert (said.code, said.err) == (
        2,
        "error: DIR/batches/horses/slurm-871 is the folder of a batch's shards, and this command takes one of them\n"
        "  help: give a folder in DIR/batches/horses/slurm-871/shards; status, results, verify, report, show, resume"
        " and cancel take all of them\n",
    )


def test_a_path_that_is_not_there_means_no_batch_elsewhere(batches: Path, server: Server) -> None:
    """Though one has its id."""
    said = told("status", "elsewhere/slurm-871", folder=batches, server=server)
    assert (said.code, said.err) == (
        2,
        "error: no batch 'elsewhere/slurm-871': it is no batch folder, and DIR/batches holds none of that name\n"
        "  help: give a batch folder, an id, a job file's name, or 'latest'; --output-dir says where to look\n",
    )


def test_a_shard_that_was_killed_while_it_began_begins_anew(tmp_path: Path, server: Server) -> None:
    """Nothing was sent before its ledger was there."""
    folder = tmp_path / "batches/horses/k/shards/01-of-02"
    folder.mkdir(parents=True)
    (folder / ".ledger.sqlite.tmp").write_text("half of it")
    (folder / "manifest.json").write_text("{}")
    words: list[str | Path] = ["--shard", "1/2", "--batch-id", "k", "--limit", "3", "--local", server.url]
    ran = told("run", job_file(tmp_path), *words, folder=tmp_path, server=server)
    assert (ran.code, ran.err) == (0, "running horses k 01-of-02: 1 runs\n")
    status = told("status", "k", folder=tmp_path, server=server)
    assert "  2 of 3 runs pending" in status.out.splitlines()


def test_a_batch_in_shards_is_cancelled_as_one(tmp_path: Path, server: Server) -> None:
    """What was never sent is skipped in each of them; a shard that never began has nothing to cancel."""
    path = job_file(tmp_path)
    words: list[str | Path] = ["--shard", "2/2", "--batch-id", "c", "--limit", "4", "--local", server.url]
    process = start(
        "run", path, *words, "--drain", "0s", cwd=tmp_path, env=server.env | {"RUNNER_LOCAL_TOKEN": "wrong"}
    )
    assert finish(process).code == 4
    ended = told("cancel", "c", folder=tmp_path, server=server)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0] == "unfinished: horses c"
    assert "  2 shards: 1 missing, 1 ended" in lines
