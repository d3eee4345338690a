"""
A scripted RunPod on a loopback socket, and whole batches run against it.

What a test does not script goes well: a submit makes ``job-1``, ``job-2``, …; a job completes with the output "ok".
"""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from fake_http import RawServer, Reply, Request, Then, answer
from job_files import as_yaml
from terminal import lines

from runner.batch import Folder
from runner.clock import SystemClock
from runner.execute import Batch, execute
from runner.ledger import Ledger
from runner.options import Options
from runner.states import Outcome, State
from runner.values import JsonObject, JsonValue

KEY = "rpa_SCRIPTED0KEY"

Script = Mapping[str, Reply | Sequence[Reply]]
"""
Replies of one endpoint, by operation (``status``) or by operation and job (``status/job-2``): a list in its order, of
which the last one stays. ``status`` also answers /status-sync, unless that has replies of its own. Once a job was asked
to be cancelled, ``status after cancel`` and ``stream after cancel`` come before.
"""

CLOSED = Reply(then=Then.CLOSE)
RESET = Reply(then=Then.RESET)
SILENT = Reply(then=Then.HOLD)
CUT = Reply(answer(b'{"id": "job-1", "status": "COMP', length=500), Then.CLOSE)
HTML = b"<html>Bad gateway</html>"


def says(body: JsonValue | bytes, status: str = "200 OK", *headers: str) -> Reply:
    """An answer with *body*, JSON unless it is bytes."""
    return Reply(answer(body if isinstance(body, bytes) else json.dumps(body).encode(), status=status, headers=headers))


def job(status: str, number: int = 1, **fields: JsonValue) -> JsonObject:
    """What RunPod says of ``job-N``."""
    return {"id": f"job-{number}", "status": status, **fields}


def chunks(status: str, *given: JsonValue) -> Reply:
    """An answer of /stream."""
    return says({"status": status, "stream": [{"output": one} for one in given]})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came: *at* is in seconds of the server's own clock."""

    at: float
    endpoint: str
    operation: str
    job_id: str | None
    body: bytes


class ScriptedRunPod(RawServer):
    """Endpoints by id, each with its script; any other id is an endpoint on which all goes well."""

    def __init__(self, scripts: Mapping[str, Script] = MappingProxyType({}), *, port: int = 0) -> None:
        super().__init__()
        self.port = port  # 0: any
        self.asked_for: list[Asked] = []
        self._scripts = {
            endpoint: {name: [said] if isinstance(said, Reply) else list(said) for name, said in script.items()}
            for endpoint, script in scripts.items()
        }
        self._cancelled: set[tuple[str, str | None]] = set()
        self._news = asyncio.Event()

    @property
    def base_url(self) -> str:
        """What a job file has as its endpoint's ``base_url``."""
        return f"{self.url}/v2"

    def count(self, operation: str, endpoint: str = "ep") -> int:
        """How often *operation* was asked of *endpoint*."""
        return sum((one.operation, one.endpoint) == (operation, endpoint) for one in self.asked_for)

    async def until_asked(self, operation: str, endpoint: str = "ep", *, times: int = 1) -> None:
        """Wait until *operation* was asked of *endpoint* so often."""
        async with asyncio.timeout(10):
            while self.count(operation, endpoint) < times:
                self._news.clear()
                await self._news.wait()

    def reply(self, request: Request) -> Reply:
        _, _, endpoint, operation, *more = request.head.split(" ", 2)[1].partition("?")[0].split("/")
        job_id = more[0] if more else None
        self.asked_for.append(Asked(time.monotonic(), endpoint, operation, job_id, request.body))
        self._news.set()
        scripted = self._scripted(endpoint, operation, job_id)
        if scripted is None and operation == "status-sync":
            scripted = self._scripted(endpoint, "status", job_id)
        if operation == "cancel":
            self._cancelled.add((endpoint, job_id))
        return scripted or self._good(endpoint, operation)

    def _scripted(self, endpoint: str, operation: str, job_id: str | None) -> Reply | None:
        script = self._scripts.get(endpoint, {})
        names = [f"{operation}/{job_id}", operation]
        if (endpoint, job_id) in self._cancelled:
            names.insert(0, f"{operation} after cancel")
        said = next((script[name] for name in names if name in script), None)
        if said is None:
            return None
        return said.pop(0) if len(said) > 1 else said[0]

    def _good(self, endpoint: str, operation: str) -> Reply:
        number = self.count("run", endpoint) + self.count("runsync", endpoint)
        match operation:
            case "run":
                return says(job("IN_QUEUE", number))
            case "stream":
                return chunks("COMPLETED")
            case "cancel":
                return says(job("CANCELLED", number))
            case "health":
                return says({"jobs": {"inQueue": 0}, "workers": {"idle": 1, "ready": 1}})
        return says(job("COMPLETED", number, output="ok"))


class Hurry(SystemClock):
    """
    The machine's clock, but *speed* seconds pass in one.

    What the engine waits for of its own accord (a grace, a back-off, a pause between looks) is over soon, while time
    limits of requests stay what they are.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._now = time.time()
        self._monotonic = time.monotonic()

    def now(self) -> float:
        return self._now + (self.monotonic() - self._monotonic)

    def monotonic(self) -> float:
        return self._monotonic + (time.monotonic() - self._monotonic) * self._speed

    async def sleep(self, delay_s: float) -> None:
        await super().sleep(delay_s / self._speed)


@dataclass(frozen=True)
class Carried:
    """A batch that came to its end: its settled runs by job, in the order of settling."""

    batch: Batch
    runs: Mapping[str, Sequence[JsonObject]]

    def chunks(self, name: str, attempt: int = 1) -> list[Any]:
        """What is in the stream file of an attempt at the one run of the job *name*."""
        (line,) = self.runs[name]
        return lines(self.batch.folder.path / "streams" / f"{line['key']}.{attempt}.jsonl")

    def files(self, folder: str) -> list[str]:
        """The names of the files in a folder of the batch."""
        return sorted(path.name for path in (self.batch.folder.path / folder).glob("*"))


def write_job_file(
    folder: Path,
    server: ScriptedRunPod,
    jobs: Mapping[str, Mapping[str, Any]],
    *,
    neighbour: ScriptedRunPod | None = None,
    endpoint: Mapping[str, Any] = MappingProxyType({}),
    **more: Any,
) -> Path:
    """
    A job file with *jobs*, each on the endpoint of its own name, and a neighbour that must not notice what they do.

    Its endpoint is at the server *neighbour*, by default the same one. *endpoint* has more keys of the endpoints of
    *jobs*, *more* has more keys of the file.
    """
    given = {"input": {"n": 1}}
    neighbours = {name: {"endpoint": name} | given | dict(job) for name, job in jobs.items()}
    whole = {
        "version": 1,
        "name": "t",
        "endpoints": {name: {"id": name, "base_url": server.base_url} | dict(endpoint) for name in jobs}
        | {"next": {"id": "next", "base_url": (neighbour or server).base_url}},
        "jobs": neighbours | {"neighbour": {"endpoint": "next"} | given},
        "health": {"every": "1h", "wait": "200ms"},
    }
    path = folder / "job.yaml"
    path.write_text(as_yaml(whole | more))
    return path


@contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: syncs to a disk are most of the time of a small batch."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield otherwise
        return
    with TemporaryDirectory(dir=memory) as path:
        yield Path(path)


async def carry(path: Path, *, speed: float = 100.0, **options: Any) -> Carried:
    """
    Run the job file at *path* as a whole, on a clock that runs *speed* times as fast.

    Whatever becomes of its runs: the counts add up, the neighbour succeeds, and nothing half-written is left.
    """
    batch = await execute(Options(path, **options), clock=Hurry(speed))
    found = list(batch.results())
    runs = {name: [line for line in found if line["job"] == name] for name in batch.health["jobs"]}
    for name, told in batch.health["jobs"].items():
        _check_counts(told, runs[name])
    assert [line["outcome"] for line in runs["neighbour"]] == ["completed"]
    assert not list((batch.folder.path / "artifacts").rglob("*.part"))
    assert lines(batch.folder.results) == found
    assert json.loads(batch.folder.health.read_bytes()) == batch.health
    return Carried(batch, runs)


def _check_counts(told: JsonObject, settled: Sequence[JsonObject]) -> None:
    """health.json says of a job what its lines say: states sum to the runs, outcomes to those that were started."""
    states = {word: told[word] for word in ("succeeded", "failed", "cancelled", "skipped", "pending")}
    assert sum(states.values()) == told["runs"]
    assert sum(told["outcomes"].values()) == told["runs"] - told["skipped"] - told["pending"]
    counted = Counter(line["state"] for line in settled)
    assert {word: counted[word] for word in states} | {"pending": told["runs"] - len(settled)} == states
    assert Counter(line["outcome"] for line in settled if line["outcome"]) == told["outcomes"]


def under_way(folder: Path) -> dict[str, str | None]:
    """
    By job, the id of the run that is under way, as the newest batch of the job file in *folder* has it on disk.

    Nothing as long as the neighbour's run is not over: an end of the process would not be ours to speak of.
    """
    with Ledger.read_only(Folder(folder / "batches" / "t" / "latest").ledger) as ledger:
        if not ledger.counts().get("neighbour", {}).get((State.SUCCEEDED, Outcome.COMPLETED)):
            return {}
        return {one.run.job: one.job_id for one in ledger.open_runs()}
