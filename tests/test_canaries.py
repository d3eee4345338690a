"""No secret is in any file or on any stream, however a batch goes: canaries are planted, and looked for everywhere."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from canaries import FORMS, Canary, Mirror, files_below, given_away
from job_files import as_yaml
from terminal import DEADLINE_S, Ran, environment, finish, runner, start, wait_until, write

SEED = random.randrange(1_000_000)
ODD = """"{}'\\\\%/+<&>#tail"""
"""What the key has around its core: characters that JSON, URLs, HTML and Python each write in their own way."""

SHOWS = ("says-400", "says-500", "says-302", "says-html", "says-no-id", "fails", "fails-in-json", "fails-beside")
"""Endpoints that tell what they were sent where it becomes a message of ours."""


@dataclass(frozen=True)
class Planted:
    """The canaries of one batch, and where it runs."""

    folder: Path
    mirror: Mirror
    canaries: list[Canary]

    @property
    def env(self) -> dict[str, str]:
        """What the command is given."""
        return {one.name: one.value for one in self.canaries if one.name != "CANARY_DEFAULT"}

    def canary(self, name: str) -> Canary:
        """The one of this name."""
        return next(one for one in self.canaries if one.name == name)

    def write(self, name: str, endpoints: Mapping[str, object], jobs: Mapping[str, object]) -> Path:
        """The job file *name*."""
        path = self.folder / f"{name}.yaml"
        path.write_text(as_yaml({"version": 1, "name": name, "endpoints": endpoints, "jobs": jobs}))
        return path

    def remote(self, endpoint_id: str) -> dict[str, object]:
        """An endpoint of the mirror."""
        return {"id": endpoint_id, "base_url": self.mirror.url, "api_key": "${CANARY_API_KEY}"}

    def job(self, endpoint: str, **more: object) -> dict[str, object]:
        """A job that sends every secret there is, once for each form."""
        return {
            "endpoint": endpoint,
            "rows": {"matrix": {"form": list(FORMS)}},
            "input": {"form": "{{ matrix.form }}"},
            "webhook": "${CANARY_WEBHOOK}",
            "s3_config": {
                "access_id": "${CANARY_S3_ID}",
                "access_secret": "${CANARY_S3_SECRET}",
                "bucket_name": "b",
                "endpoint_url": "https://s3.example",
            },
        } | more

    def start(self, *words: str | Path) -> Ran:
        """A command, to its end."""
        return runner(*words, cwd=self.folder, env=self.env)

    def leaks(self, *rans: Ran, batch: Path | None = None, but: tuple[str, ...] = ()) -> list[str]:
        """Every canary that shows in a file below the batch's folder, or that a command has said."""
        found = []
        for number, ran in enumerate(rans):
            found += given_away(self.canaries, ran.out.encode(), f"stdout of {number}")
            found += given_away(self.canaries, ran.err.encode(), f"stderr of {number}")
        for name, data in files_below(batch or self.folder / "batches"):
            if not any(part in name for part in but):
                found += given_away(self.canaries, data, name)
        return found


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Planted]:
    """A folder with canaries of its own, and a mirror."""
    chance = random.Random(SEED)
    print(f"canaries of seed {SEED}")
    canaries = [
        Canary.make("CANARY_API_KEY", chance, around=f"rpa_{ODD}"),
        Canary.make("CANARY_WEBHOOK", chance, around="https://hooks.example/{}/in?sig=a%2Fb&to=\"é'<x>"),
        Canary.make("CANARY_S3_ID", chance, around="AKIA{}"),
        Canary.make("CANARY_S3_SECRET", chance, around="é/+=\\{}\"\n'%41"),
        Canary.make("CANARY_DEFAULT", chance, around="{}"),
    ]
    with Mirror() as mirror:
        yield Planted(tmp_path, mirror, canaries)


def test_what_services_tell_shows_no_secret(planted: Planted) -> None:
    """An error is told to people, files and dashboards: whatever it says, and however it is written."""
    file = planted.write(
        "shown", {name: planted.remote(name) for name in SHOWS}, {name: planted.job(name) for name in SHOWS}
    )
    ran = planted.start("run", file, "-v")
    assert ran.code == 1, ran.err
    assert len(planted.mirror.sent) == len(SHOWS) * len(FORMS)
    assert all(one.value in planted.mirror.sent[0] for one in planted.canaries[:1])  # they were really planted
    looked = [
        planted.start(*words)
        for words in (
            ["status", "shown"],
            ["status", "shown", "--format", "json"],
            ["results", "shown", "--format", "csv"],
            ["show", "shown", "fails-in-json:1"],
            ["list", "--format", "json"],
            ["resume", "shown", "--format", "json"],
        )
    ]
    assert [one.code for one in looked] == [0, 0, 0, 0, 0, 1]
    assert planted.leaks(ran, *looked) == []
    outcomes = json.loads((planted.folder / "batches/shown/latest/health.json").read_text())["jobs"]
    assert {name: next(iter(job["outcomes"])) for name, job in outcomes.items()} == {
        "says-400": "rejected",
        "says-500": "answer_lost",
        "says-302": "answer_lost",
        "says-html": "answer_lost",
        "says-no-id": "answer_lost",
        "fails": "failed",
        "fails-in-json": "failed",
        "fails-beside": "failed",
    }


def test_an_output_is_stored_as_it_is_and_shows_nowhere_else(planted: Planted) -> None:
    """What a worker returns is its user's: but it stays where outputs are, in results and streams."""
    names = ("tells", "streams")
    endpoints = {name: planted.remote("tells") for name in names}
    file = planted.write(
        "told",
        endpoints,
        {
            "tells": planted.job("tells", success_when="output.nothing == 1"),
            "streams": planted.job("streams", mode="stream"),
        },
    )
    ran = planted.start("run", file, "-v")
    looked = [planted.start(*words) for words in (["status", "told"], ["list"], ["results", "told", "--fields", "key"])]
    assert planted.leaks(ran, *looked, but=("results.jsonl", "streams/")) == []
    told = (planted.folder / "batches/told/latest/results.jsonl").read_text()
    assert planted.canary("CANARY_API_KEY").core in told


def test_an_endpoint_that_refuses_tells_no_secret(planted: Planted) -> None:
    """The summary of a refused batch says what the endpoint said."""
    file = planted.write("refused", {"r": planted.remote("says-401")}, {"r": planted.job("r")})
    ran = planted.start("run", file, "-v")
    unwell = planted.write("unwell", {"r": planted.remote("unwell")}, {"r": planted.job("r")})
    asked = planted.start("health", unwell, "--format", "json")
    assert (ran.code, asked.code) == (4, 1)
    assert planted.leaks(ran, asked) == []


def test_plan_validate_and_manifest_keep_references(planted: Planted) -> None:
    """Also of what the file has for a variable that is not set."""
    default = planted.canary("CANARY_DEFAULT").core
    hook = f"${{CANARY_UNSET:-https://hooks.example/{default}}}"
    set_hook = f"${{CANARY_WEBHOOK:-https://hooks.example/{default}}}"
    endpoints = {"good": planted.remote("good")}
    jobs = {"one": planted.job("good", webhook=hook), "two": planted.job("good", webhook=set_hook)}
    file = planted.write("good", endpoints, jobs)
    rans = [
        planted.start("run", file, "-v"),
        planted.start("plan", file, "--format", "json"),
        planted.start("plan", file),
    ]
    rans += [planted.start("validate", file), planted.start("validate", file, "--format", "json")]
    assert [one.code for one in rans] == [0, 0, 0, 0, 0], rans
    assert planted.leaks(*rans) == []


BAD: dict[str, tuple[dict[str, str], str]] = {
    "a literal key": ({"api_key": "KEY"}, "a literal key can't be part of a job file"),
    "a password in the URL": ({"base_url": "https://me:S3_ID@api.example/v2"}, "expected a URL such as"),
    "a query in the URL": ({"base_url": "https://api.example/v2?token=S3_ID"}, "expected a URL such as"),
    "a key that no header takes": ({"api_key": "${CANARY_S3_SECRET}"}, "no HTTP header can carry it"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_in_the_file_shows_no_secret(planted: Planted, name: str) -> None:
    """Not in the line that is shown, either."""
    changed, said = BAD[name]
    key, s3_id = planted.canary("CANARY_API_KEY").core, planted.canary("CANARY_S3_ID").core
    values = {key_: text.replace("S3_ID", s3_id) if text != "KEY" else key for key_, text in changed.items()}
    file = planted.write("bad", {"bad": planted.remote("good") | values}, {"job": planted.job("bad")})
    rans = [planted.start("validate", file), planted.start("run", file, "-v")]
    assert rans[1].code == 2, rans
    assert said in rans[1].err
    assert planted.leaks(*rans) == []


def test_nobody_to_be_reached_shows_no_secret(planted: Planted) -> None:
    """What a connection fails with is not told in aiohttp's words, which may hold headers."""
    file = planted.write(
        "nobody", {"r": planted.remote("x") | {"base_url": "http://127.0.0.1:9/v2"}}, {"r": planted.job("r")}
    )
    process = start("run", file, "-v", cwd=planted.folder, env=planted.env)
    wait_until(lambda: "no connection" in _log(planted, "nobody"), "the first failure")
    process.terminate()
    ran = finish(process)
    asked = planted.start("health", file)
    assert (ran.code, asked.code) == (143, 1)
    assert planted.leaks(ran, asked) == []


def test_a_kill_and_a_resume_leave_no_secret(planted: Planted) -> None:
    """Not in a half written file, either."""
    file = planted.write(
        "killed", {"r": planted.remote("waits")}, {"r": planted.job("r"), "s": planted.job("r", mode="sync")}
    )
    process = start("run", file, "-v", cwd=planted.folder, env=planted.env)
    wait_until(lambda: len(planted.mirror.sent) == 2 * len(FORMS), "all submits")
    process.kill()
    killed = finish(process)
    assert planted.leaks(killed) == []
    planted.mirror.release()
    ran = planted.start("resume", "killed")
    assert ran.code in (0, 1), ran  # what was killed before its answer is answer_lost
    assert planted.leaks(ran) == []


BUG = """
import sys
from runner import wire

send = wire.Wire.send

async def broken(self, call, body):
    if call.body is not None:
        raise LookupError(f"{call.body!r} {self._api_key.reveal()}")
    return await send(self, call, body)

wire.Wire.send = broken
sys.argv = ["runner", *sys.argv[1:]]
from runner.__main__ import main
main()
"""


def test_a_bug_of_ours_shows_no_secret(planted: Planted) -> None:
    """Tracebacks are pasted into issues, and an exception may hold whatever it was about."""
    write(planted.folder, {"bug.py": BUG})
    file = planted.write("bug", {"r": planted.remote("good")}, {"r": planted.job("r")})
    process = subprocess.run(
        [sys.executable, "bug.py", "run", str(file), "-v"],
        cwd=planted.folder,
        env=environment(planted.env),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    ran = Ran(process.returncode, process.stdout, process.stderr)
    assert ran.code == 3
    assert "LookupError: b'" in ran.err
    assert "this is a bug in runner" in ran.err
    assert planted.leaks(ran) == []


WORKER = """
import json, os

def handler(job):
    env = dict(os.environ)
    print(json.dumps({"job": job, "env": env}), flush=True)
    if job["input"]["form"] == "plain":
        return env
    raise ValueError(json.dumps({"job": job, "env": env}))
"""


def test_a_worker_that_tells_all_it_knows(planted: Planted) -> None:
    """It is not given our variables; what its job has of webhook and bucket is masked where we tell what it said."""
    write(planted.folder, {"worker.py": WORKER})
    endpoints: dict[str, object] = {"here": {"handler": "worker.py:handler"}, "there": planted.remote("good")}
    file = planted.write("worker", endpoints, {"w": planted.job("here")})
    ran = planted.start("run", file, "-v")
    assert ran.code == 1
    assert planted.leaks(ran, planted.start("status", "worker"), but=("results.jsonl",)) == []
    told = (planted.folder / "batches/worker/latest/results.jsonl").read_bytes()
    hidden = [one for one in planted.canaries if one.name != "CANARY_S3_ID"]
    assert given_away(hidden, told, "results.jsonl") == []
    errors = [line for line in told.splitlines() if b'"outcome":"failed"' in line]
    assert len(errors) == len(FORMS) - 1
    assert given_away(planted.canaries, b"".join(errors), "the errors in results.jsonl") == []
    command_file = planted.write(
        "command", {"c": {"command": "python none.py ${CANARY_API_KEY}"}}, {"c": planted.job("c")}
    )
    started = planted.start("run", command_file, "-v")
    assert started.code == 2
    assert planted.leaks(started, but=("results.jsonl",)) == []


def test_an_artifact_s_signature_stays_in_the_output(planted: Planted) -> None:
    """A presigned URL is a key to the bucket for as long as it lives: what we say of it ends before its query."""
    core = planted.canary("CANARY_DEFAULT").core
    urls = {
        "signed": f"https://127.0.0.1:9/image.png?X-Amz-Signature={core}",
        "named": f"https://me:{core}@127.0.0.1:9/x",
    }
    write(planted.folder, {"urls.py": f"def handler(job):\n    return {{'url': {urls!r}[job['input']['which']]}}\n"})
    job = {
        "endpoint": "here",
        "rows": {"matrix": {"which": list(urls)}},
        "input": {"which": "{{ matrix.which }}"},
        "artifacts": [{"path": "{{ run.index }}.png", "url": "{{ output.url }}"}],
    }
    file = planted.write("urls", {"here": {"handler": "urls.py:handler"}}, {"u": job})
    ran = planted.start("run", file, "-v")
    assert ran.code == 1
    assert planted.leaks(ran, planted.start("status", "urls"), but=("results.jsonl",)) == []
    lines = [
        json.loads(line) for line in (planted.folder / "batches/urls/latest/results.jsonl").read_text().splitlines()
    ]
    assert [line["outcome"] for line in lines] == ["artifact_failed"] * 2
    assert given_away(planted.canaries, json.dumps([line["error"] for line in lines]).encode(), "errors") == []


def _log(planted: Planted, name: str) -> str:
    path = planted.folder / "batches" / name / "latest" / "log.jsonl"
    return path.read_text() if path.exists() else ""
