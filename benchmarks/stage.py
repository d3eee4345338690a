"""Where clients are measured: the server on one core, one client at a time on another, rows and results in a folder."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.clients.task import Task
from benchmarks.options import Options
from benchmarks.processes import cores
from benchmarks.report import Report
from benchmarks.service import ENDPOINT, Service, serving

ROOT = Path(__file__).resolve().parent.parent
RUNNER = Path(sys.executable).with_name("runner")
KEY_VARIABLE = "RUNNER_BENCH_KEY"
UNLIMITED = dict.fromkeys(("run", "runsync", "status"), "1000000/1s")

CLIENTS = {
    "plain aiohttp": "plain_aiohttp",
    "runpod, threads": "sdk_threads",
    "runpod, asyncio": "sdk_asyncio",
    "runpod-sdk (JS)": "sdk_js",
}
"""The clients beside the runner, and the modules that they are."""


@dataclass(frozen=True)
class Cost:
    """What a process cost. *began* is on the machine's monotonic clock; *out* is what it printed."""

    began: float
    seconds: float
    cpu_s: float
    peak_bytes: int
    exit_code: int
    out: str


@dataclass(frozen=True)
class Ran:
    """What came of one batch of one client. *report* is the server's story, None where nobody asked for it."""

    client: str
    jobs: int
    lost: int
    cost: Cost
    report: Report | None

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds a job, those of starting the process included."""
        return self.cost.cpu_s / self.jobs * 1000

    @property
    def seen(self) -> Report:
        """The server's story, where somebody asked for it."""
        assert self.report is not None
        return self.report


@dataclass(frozen=True)
class Work:
    """
    A batch to measure: *jobs* jobs by ``run`` or ``runsync`` on a server like *options*, so many *in_flight*.

    *job* is what the runner's job has beside that. *hears* is False where the server's story would be too long.
    """

    options: Options
    jobs: int
    mode: str = "run"
    in_flight: int = 100
    job: Mapping[str, Any] | None = None
    hears: bool = True


class Stage:
    """
    Runs commands, clients and the runner in *folder*.

    *has_peers* says whether RunPod's SDKs take part; *sdk* has the one for JavaScript, None where it can't be had.
    """

    def __init__(self, folder: Path, sdk: Path | None, *, has_peers: bool = True) -> None:
        self.folder = folder
        self.sdk = sdk
        self.has_peers = has_peers
        self.server_core, self.client_core = cores()
        if shutil.which("taskset") is None:
            self.client_core = None

    def has(self, client: str) -> bool:
        """Whether *client*, one beside the runner, can take part here."""
        if CLIENTS[client] == "plain_aiohttp":
            return True
        if CLIENTS[client] == "sdk_js":
            return self.has_peers and self.sdk is not None
        return self.has_peers and importlib.util.find_spec("runpod") is not None

    def run(self, command: Sequence[str | Path], **variables: str) -> Cost:
        """
        Run *command* on the clients' core, to its end.

        Raises:
            RuntimeError: it said that it failed.
        """
        told = self.folder / "told.json"
        measured = [sys.executable, "-I", "-S", str(Path(__file__).with_name("measured.py")), str(told)]
        done = subprocess.run(
            [*self.pinned, *measured, *map(str, command)],
            cwd=ROOT,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=True,
        )
        cost = Cost(**json.loads(told.read_text()), out=done.stdout)
        if cost.exit_code:
            raise RuntimeError(f"{' '.join(map(str, command))} failed: {done.stderr[-2000:]}")
        return cost

    @property
    def pinned(self) -> list[str]:
        """What stands before a command to keep it on the clients' core."""
        return [] if self.client_core is None else ["taskset", "-c", str(self.client_core)]

    def serve(self, options: Options) -> contextlib.AbstractContextManager[Service]:
        """A server on its own core."""
        return serving(options, cpu=self.server_core)

    def rows(self, count: int) -> Path:
        """A file with so many small inputs."""
        path = self.folder / f"rows-{count}.jsonl"
        if not path.exists():
            with path.open("w") as file:
                file.writelines(
                    f'{{"key": {number}, "prompt": "a small prompt, {number}"}}\n' for number in range(count)
                )
        return path

    def ran(self, client: str, work: Work) -> Ran:
        """
        Let *client* do *work* on a server of its own.

        Raises:
            RuntimeError: the client failed as a whole.
        """
        with self.serve(work.options) as server:
            if client == "runner":
                cost, lost = self._run_runner(server, work)
            else:
                cost, lost = self._run_client(client, server, work)
            return Ran(client, work.jobs, lost, cost, server.report() if work.hears else None)

    def _run_client(self, client: str, server: Service, work: Work) -> tuple[Cost, int]:
        module, results = CLIENTS[client], self.folder / "results.jsonl"
        rows = str(self.rows(work.jobs))
        task = Task(server.base_url, ENDPOINT, rows, str(results), work.mode, work.in_flight, str(self.sdk or ""))
        program: list[str | Path] = [sys.executable, "-m", f"benchmarks.clients.{module}"]
        if module == "sdk_js":
            program = ["node", ROOT / "benchmarks/clients/sdk_js.mjs"]
        cost = self.run([*program, task.to_json()])
        results.unlink()
        return cost, int(json.loads(cost.out.splitlines()[-1])["lost"])

    def _run_runner(self, server: Service, work: Work) -> tuple[Cost, int]:
        with self.batches() as batches:
            file = self.job_file(server.base_url, work)
            cost = self.run([RUNNER, "run", file, "--quiet", "--output-dir", batches], **{KEY_VARIABLE: "key"})
            [results] = batches.glob("bench/2*/results.jsonl")
            with results.open("rb") as lines:
                settled = sum(b'"state":"succeeded"' in line for line in lines)
        return cost, work.jobs - settled

    @contextlib.contextmanager
    def batches(self) -> Iterator[Path]:
        """A folder for batches, which is gone after the block: the next batch meets the same disk."""
        path = self.folder / "batches"
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def job_file(self, base_url: str, work: Work) -> Path:
        """The job file for *work* on a server. YAML takes JSON."""
        mode = {"run": "async", "runsync": "sync"}[work.mode]
        endpoint = {
            "id": ENDPOINT,
            "api_key": f"${{{KEY_VARIABLE}}}",
            "base_url": base_url,
            "concurrency": work.in_flight,
            **({} if work.options.limits else {"rate_limits": UNLIMITED}),
        }
        job = {
            "endpoint": "bench",
            "mode": mode,
            "rows": {"file": str(self.rows(work.jobs))},
            "input": {"key": "{{ row.key }}", "prompt": "{{ row.prompt }}"},
            **(work.job or {}),
        }
        path = self.folder / "bench.yaml"
        document = {"version": 1, "name": "bench", "endpoints": {"bench": endpoint}, "jobs": {"all": job}}
        path.write_text(json.dumps(document, indent=1))
        return path
