"""A batch in mode batch against a real local endpoint, on a day that the test chooses; both in this process."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from terminal import lines

from runner.execute import Batch, execute
from runner.ledger import Ledger
from runner.live import Live
from runner.local import fault_text
from runner.local.server import LocalServer, Served
from runner.options import Options

HANDLER = """
import os, time

def echo(job):
    given = job["input"]
    time.sleep(given.get("s", 0))
    while os.path.exists(given.get("block", "/none")):
        time.sleep(0.01)
    tries = given.get("tries")
    before = 0
    if tries:
        before = os.path.getsize(tries) if os.path.exists(tries) else 0
        open(tries, "a").write("x")
    if before < given.get("fails", 0):
        raise ValueError(f"no {given['n']}")
    told = {"n": given["n"]}
    return told | ({"key": given["key"]} if "key" in given else {})

def mute(job):
    return {"n": job["input"]["n"]}
"""
TOKEN = "tok-of-batch-days"
OF_THE_DAY = ("job_id", "worker_id", "delay_time_ms", "execution_time_ms", "submitted_at", "settled_at")
"""What a line says of when and where it was made."""


@dataclass
class Day:
    """A local endpoint, and a folder for job files and batches."""

    server: LocalServer
    folder: Path
    log: Path

    def write(self, text: str, **job: Any) -> Path:
        """The job file whose rows are *text*'s numbers of runs; *job* are keys of its one job."""
        told = {
            "endpoint": "local",
            "mode": "batch",
            "rows": {"matrix": {"n": list(range(int(text)))}},
            "input": {"n": "{{ matrix.n }}"},
            "poll": {"min": "50ms", "max": "100ms"},
        } | job
        return self.write_jobs({"a": {key: value for key, value in told.items() if value is not None}})

    def write_jobs(self, jobs: dict[str, Any], **more: Any) -> Path:
        """The job file with these jobs."""
        endpoints = {"local": {"handler": "handler.py:echo", "cost_per_second": 0.01}}
        path = self.folder / "b.yaml"
        path.write_text(json.dumps({"version": 1, "name": "b", "endpoints": endpoints, "jobs": jobs} | more))
        return path

    async def run(self, path: Path, *, watch: Callable[[Live], None] | None = None, **options: Any) -> Batch:
        """Run the job file, or go on with it."""
        return await execute(Options(path, local_url=self.server.base_url, **options), watch=watch)

    def lines(self, **only: Any) -> list[dict[str, Any]]:
        """The lines of the newest batch, by their index, of those where these keys have these values."""
        found = lines(self.folder / "batches/b/latest/results.jsonl")
        found.sort(key=lambda line: (line["job"], line["index"]))
        return [line for line in found if all(line[name] == value for name, value in only.items())]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What the endpoint says it did."""
        return [one for one in lines(self.log) if one["event"] == kind] if self.log.exists() else []

    def paid(self) -> Counter[str]:
        """How often each input was committed to be run."""
        return Counter(one["input"] for one in self.events("accepted"))

    def asked(self) -> Counter[str]:
        """How often each operation was asked for."""
        return Counter(one["operation"] for one in self.events("asked"))

    def ledger(self) -> Ledger:
        """That of the newest batch, to look at."""
        return Ledger.read_only(self.folder / "batches/b/latest/ledger.sqlite")


@asynccontextmanager
async def day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *faults: str, handler: str = "echo", workers: int = 1, **more: Any
) -> AsyncIterator[Day]:
    """A day with these *faults*."""
    (tmp_path / "handler.py").write_text(HANDLER)
    monkeypatch.setenv("RUNNER_LOCAL_TOKEN", TOKEN)
    log = tmp_path / "endpoint.jsonl"
    served = [Served("local", f"{tmp_path / 'handler.py'}:{handler}", workers)]
    async with LocalServer(served, token=TOKEN, faults=fault_text.faults(faults), log=log, **more) as server:
        yield Day(server, tmp_path, log)


def the_same(told: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines without what only a day has."""
    return [{name: value for name, value in line.items() if name not in OF_THE_DAY} for line in told]
