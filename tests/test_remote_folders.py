"""Batches whose folder is elsewhere, from the command line, on two machines that share nothing else."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from job_files import write
from terminal import Ran, finish, runner, start, wait_until

ROWS = {"rows": {"inline": [{"n": n} for n in range(4)]}, "input": {"n": "{{ row.n }}"}}
ONE, TWO = "one", "two"


class Machines:
    """Machines with a cache each, and one folder that both can reach."""

    def __init__(self, folder: Path, **job: object) -> None:
        self.folder = folder
        self.url = f"file://{folder / 'there'}"
        self.job_file = write(folder, ROWS | job, outputs={"dir": self.url})

    def env(self, machine: str) -> dict[str, str]:
        """What is different on *machine*."""
        return {"RUNNER_CACHE_DIR": str(self.folder / machine)}

    def do(self, machine: str, *words: str) -> Ran:
        """Run the command on *machine*."""
        return runner(*words, cwd=self.folder, env=self.env(machine))

    def run(self, machine: str, *words: str) -> Ran:
        """Run the job file there."""
        return self.do(machine, "run", str(self.job_file), *words)

    def killed(self, machine: str, step: str) -> None:
        """Run the job file there, and kill it at *step*."""
        words = [step, "1", "run", str(self.job_file), "--quiet"]
        ran = finish(start(*words, cwd=self.folder, env=self.env(machine), module="torture.killed_remotely"))
        assert ran.code == -9, ran.err

    @property
    def batches(self) -> list[Path]:
        """What is there, the oldest first."""
        return sorted(path for path in (self.folder / "there/t").iterdir() if path.is_dir())


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    """Two machines."""
    return Machines(tmp_path)


def test_a_batch_is_read_in_place_from_another_machine(machines: Machines) -> None:
    """Whoever has the URL needs neither the machine that ran it nor the job file."""
    ran = machines.run(ONE)
    assert ran.code == 0, ran.err
    (batch,) = machines.batches
    url = f"{machines.url}/t/{batch.name}"
    assert ran.out.splitlines()[-1] == f"  {url}"

    status = machines.do(TWO, "status", url)
    assert status.out.splitlines()[0] == f"pass: t {batch.name}"
    results = machines.do(TWO, "results", f"{machines.url}/t/latest", "--fields", "index,output.n")
    assert sorted(results.out.splitlines()) == [f'{{"index":{n},"output.n":{n}}}' for n in range(4)]
    (listed,) = machines.do(TWO, "list", machines.url, "--format", "json").json["batches"]
    assert (listed["path"], listed["settled"], listed["size_bytes"]) == (url, 4, None)
    shown = machines.do(TWO, "show", "latest", "2", "--output-dir", machines.url, "--format", "json").json
    assert (shown["batch"]["path"], shown["run"]["output"]) == (url, {"n": 2})
    page = Path(machines.do(TWO, "report", url).out.strip())
    assert page.is_relative_to(machines.folder / TWO)
    assert b"<html" in page.read_bytes()

    contents = json.loads((batch / "contents.json").read_bytes())
    assert (contents["verdict"], contents["unfinished"]) == ("pass", 0)
    named = {one["name"]: one["size_bytes"] for one in contents["objects"]}
    assert {"health.json", "report.html", "manifest.json", "log.jsonl"} < named.keys()
    assert all((batch / name).stat().st_size == size_bytes for name, size_bytes in named.items())


def test_a_batch_is_gone_on_with_elsewhere(machines: Machines) -> None:
    """With nothing here but the job file; `runner run` says that there is one."""
    machines.killed(ONE, "all settled, the rest not there")
    (batch,) = machines.batches
    refused = machines.run(TWO)
    assert refused.code == 2
    assert refused.err.splitlines()[0] == f"error: batch {batch.name} of 't' is unfinished: 4 of 4 runs are not settled"
    assert machines.run(TWO, "--resume").code == 0
    assert machines.batches == [batch]
    again = machines.do(TWO, "resume", f"{machines.url}/t/{batch.name}")
    assert again.code == 0
    assert again.out.splitlines()[1].startswith("  only  4 of 4 succeeded")


def test_the_machine_that_was_cut_off_goes_on_with_what_it_knows(machines: Machines) -> None:
    """All was settled there, and only its disk knows it: nothing is run again."""
    machines.killed(ONE, "all settled, the rest not there")
    ran = machines.run(ONE, "--resume", "--format", "json")
    assert ran.json["jobs"]["only"]["succeeded"] == 4
    (batch,) = machines.batches
    lines = [json.loads(line) for part in (batch / "results").iterdir() for line in part.read_text().splitlines()]
    assert sorted(line["attempts"] for line in lines) == [1] * 4
    assert json.loads((batch / "contents.json").read_bytes())["unfinished"] == 0


def test_what_lacks_its_last_object_is_made_whole(machines: Machines) -> None:
    """A reader waits for contents.json; a finished batch without it would keep that reader waiting for good."""
    machines.killed(ONE, "reports there, contents not")
    (batch,) = machines.batches
    assert not (batch / "contents.json").exists()
    assert machines.do(TWO, "resume", f"{machines.url}/t/latest").code == 0
    assert (batch / "contents.json").exists()
    assert machines.run(TWO, "--resume").code == 0  # that is the next one
    assert len(machines.batches) == 2


def test_a_finished_batch_is_not_in_the_way_of_the_next_one(machines: Machines) -> None:
    """Nor is it fetched for it: it may be large."""
    assert machines.run(ONE).code == 0
    (first,) = machines.batches
    # Of two that machines start in one second nobody can tell by their ids which is the newer one.
    wait_until(lambda: datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ") > first.name[:16], "the next second")
    assert machines.run(TWO).code == 0
    (second,) = set(machines.batches) - {first}
    assert not list((machines.folder / TWO).glob(f"remote/*/t/{first.name}"))
    listed = machines.do(TWO, "list", "--output-dir", machines.url).out.splitlines()
    assert [row.split()[1] for row in listed[1:]] == [second.name, first.name]


def test_one_process_at_a_time_writes_there(machines: Machines) -> None:
    """The message names it; --take-over is for who knows better."""
    lease = machines.folder / "there/t/lease.json"
    lease.parent.mkdir(parents=True)
    told = {"token": "x", "host": "gpu-7", "pid": 1, "machine": "m", "since": "2026-01-01T00:00:00+00:00"}
    lease.write_text(json.dumps(told | {"renewed_at": time.time() - 20, "batch": None}))
    refused = machines.run(TWO)
    assert refused.code == 5
    assert refused.err.splitlines()[0] == (
        f"error: {machines.url}/t is being written to: process 1 on gpu-7, since 2026-01-01T00:00:00+00:00"
    )
    assert machines.run(TWO, "--take-over").code == 0
    assert not lease.exists()


def test_a_batch_that_runs_elsewhere_is_said_to_and_is_cancelled_there(machines: Machines) -> None:
    """A wish would be a file that nobody over there reads."""
    machines.killed(ONE, "all settled, the rest not there")
    (batch,) = machines.batches
    lease = machines.folder / "there/t/lease.json"
    told = json.loads(lease.read_bytes()) | {"renewed_at": time.time() - 20, "machine": "another", "batch": batch.name}
    lease.write_text(json.dumps(told))
    url = f"{machines.url}/t/{batch.name}"
    assert machines.do(TWO, "status", url).out.splitlines()[0] == f"running: t {batch.name}"
    refused = machines.do(TWO, "cancel", url)
    assert (refused.code, refused.err) == (
        5,
        f"error: {url} is being run on another machine\n"
        "  help: stop it there, with Ctrl-C or runner cancel, or write --take-over\n",
    )
    ended = machines.do(TWO, "cancel", url, "--take-over")
    assert ended.code == 0, ended.err
    assert machines.do(TWO, "status", url).out.splitlines()[0] == f"stopped: t {batch.name}"


def test_what_is_only_for_folders_of_this_machine_says_so(machines: Machines) -> None:
    """Rather than doing half of it."""
    for verb in ("clean", "watch"):
        ran = machines.do(ONE, verb, "--output-dir", machines.url)
        assert ran.code == 2
        assert ran.err.splitlines()[0] == (
            f"error: {machines.url} is elsewhere, and runner {verb} is for folders of this machine"
        )
    missing = machines.do(ONE, "status", f"{machines.url}/nothing")
    assert missing.err == (
        f"error: no batch 'nothing/latest': {machines.url} holds none\n"
        "  help: give the URL of a batch's folder, or that of a job file's name below 'outputs.dir'\n"
    )


def test_runs_made_of_others_have_their_files_elsewhere_too(tmp_path: Path) -> None:
    """A run that reads an artifact of another one reads it where the batch goes on."""
    (tmp_path / "echo.py").write_text("def handler(job):\n    return job['input']\n")
    jobs = {
        "a": ROWS | {"endpoint": "local", "artifacts": [{"path": "{{ run.index }}.txt", "text": "n {{ output.n }}"}]},
        "b": {
            "endpoint": "local",
            "rows": {"job": "a"},
            "input": {"text": "{{ row.artifacts[0] | artifact_base64 }}"},
        },
    }
    machines = Machines(tmp_path)
    machines.job_file.write_text(
        json.dumps(
            {
                "version": 1,
                "name": "t",
                "outputs": {"dir": machines.url},
                "endpoints": {"local": {"handler": "echo.py:handler"}},
                "jobs": jobs,
            }
        )
    )
    machines.killed(ONE, "reports there, contents not")
    (batch,) = machines.batches
    ran = machines.do(TWO, "run", str(machines.job_file), "--resume", "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.json["jobs"]["b"]["succeeded"] == 4
    assert len(list(machines.folder.glob(f"two/remote/*/t/{batch.name}/artifacts/*.txt"))) == 4
