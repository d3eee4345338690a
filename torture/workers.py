"""
Kill workers of a local endpoint at random while a batch runs: ``python -m torture.workers [--seed N | --seeds N]``.

Every job must end as RunPod would end it: completed, on its first worker or on its second; or, when it lost both,
FAILED with the platform's own words. None may be stuck, and no process and no folder may be left.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from runner.local.server import LocalServer, Served
from torture.scene import Account
from torture.told import Told

PATIENCE_S = 180.0
"""How long a whole case may take on a busy machine before a job counts as stuck."""

GAVE_UP = "job timed out after 1 retries"
TOKEN = "torture-0123456789"

HANDLER = """
import os, time

def handler(job):
    given = job["input"]
    log = os.open(given["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"start {given['n']}\\n".encode())
    if given["exit"] is not None:
        os._exit(given["exit"])
    time.sleep(given["ms"] / 1000)
    os.write(log, f"end {given['n']}\\n".encode())
    os.close(log)
    return given["n"]

if __name__ == "__main__":
    import runpod
    runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda current: 8})
"""
"""For our own worker, and a worker of its own on the `runpod` package."""

WAYS = ("worker", "worker", "worker, politely", "launcher", "both")
"""What is killed; the first most often, as an out-of-memory killer does it."""


@dataclass(frozen=True)
class Case:
    """What is played. *is_real* is for workers on the `runpod` package."""

    seed: int
    jobs: int = 500
    kills: int = 20
    workers: int = 4
    is_real: bool = False
    exits: float = 0.01

    def __str__(self) -> str:
        kind = "real" if self.is_real else "own"
        return f"seed {self.seed}: {self.jobs} jobs, {self.kills} kills, {self.workers} {kind} workers"


@dataclass
class Story:
    """What came of it. *wrong* is empty when all is well."""

    statuses: list[dict[str, Any]] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def account(self, case: Case) -> Account:
        """What the table says of it: jobs that are stuck are lost, and one that ran too often is paid for twice."""
        problems = [f"[{case}] {one}" for one in self.wrong]
        stuck = case.jobs - sum(status.get("status") in ("COMPLETED", "FAILED") for status in self.statuses)
        return Account(tried=sum(self.kills.values()), runs=case.jobs, lost=stuck, problems=problems)

    def __str__(self) -> str:
        ends = Counter(str(status.get("status")) for status in self.statuses)
        again = sum(1 for status in self.statuses if status.get("retries") and status["status"] == "COMPLETED")
        return f"{dict(ends)}, {again} on their second worker, killed {dict(self.kills)}, {self.took_s:.1f} s"


async def play(case: Case) -> Story:
    """Play one case, and hold what came of it against what RunPod would have done."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        folder = Path(name)
        story = await _Stage(case, folder).play()
        left = [path.name for path in (folder / "tmp").iterdir()]
        if left:
            story.wrong.append(f"folders are left: {left}")
        if pids := _marked(name):
            story.wrong.append(f"processes are left: {pids}")
    story.took_s = time.monotonic() - began
    return story


class _Stage:
    """One case while it is played."""

    def __init__(self, case: Case, folder: Path) -> None:
        self._case = case
        self._chance = random.Random(f"workers {case.seed}")
        self._ways = [self._chance.choice(WAYS) for _ in range(case.kills)]
        self._folder = folder
        self._marks = str(folder)
        self._log = folder / "handler.log"
        self._story = Story()

    async def play(self) -> Story:
        (self._folder / "tmp").mkdir()
        (self._folder / "work.py").write_text(HANDLER)
        served = self._served()
        with _environment(TORTURE_MARK=self._marks, TMPDIR=str(self._folder / "tmp"), PYTHONUNBUFFERED="1"):
            tempfile.tempdir = None  # read anew from the environment
            try:
                async with (
                    LocalServer([served], token=TOKEN, log=self._folder / "accepted.jsonl", grace_s=0.3) as server,
                    aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
                ):
                    await self._batch(f"{server.base_url}/{served.name}", session)
            finally:
                tempfile.tempdir = None
        self._log_tells_the_same()
        return self._story

    def _served(self) -> Served:
        if self._case.is_real:
            command = [sys.executable, "work.py"]
            return Served("ep", None, self._case.workers, command=command, folder=self._folder)
        return Served("ep", f"{self._folder / 'work.py'}:handler", self._case.workers)

    async def _batch(self, url: str, session: aiohttp.ClientSession) -> None:
        case, chance = self._case, self._chance
        inputs = [self._input(number) for number in range(case.jobs)]
        at = sorted(chance.randrange(case.jobs * 9 // 10) for _ in range(case.kills))
        killing = asyncio.create_task(self._kill(at), name="kills")
        ids = []
        for given in inputs:  # the first are done, and the first kills come, before the last is sent
            async with session.post(f"{url}/run", json={"input": given}) as answer:
                ids.append((await answer.json())["id"])
        health: dict[str, Any] = {}
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            async with session.get(f"{url}/health") as answer:
                health = await answer.json()
            if health["jobs"]["completed"] + health["jobs"]["failed"] == case.jobs:
                break
            await asyncio.sleep(0.02)
        killing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await killing
        for job_id in ids:
            async with session.get(f"{url}/status/{job_id}") as answer:
                self._story.statuses.append(await answer.json())
        self._judge(inputs, health["jobs"])

    def _input(self, number: int) -> dict[str, Any]:
        exits = self._chance.random() < self._case.exits
        ms = self._chance.choice((1, 10, 30, 60))
        return {
            "n": number,
            "ms": ms,
            "exit": self._chance.choice((0, 1, 77)) if exits else None,
            "log": str(self._log),
        }

    # Kills.

    async def _kill(self, at: Sequence[int]) -> None:
        """Kill once so many jobs were done as *at* says, each time: a clock that no busy machine makes slow."""
        for count, way in zip(at, self._ways, strict=True):
            await _until(partial(self._is_done, count))
            launcher, worker = self._chance.choice(await _until(lambda: _victims(self._marks)))
            self._story.kills[way] += 1
            for pid, is_meant in ((launcher, way in ("launcher", "both")), (worker, way != "launcher")):
                if is_meant:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM if way == "worker, politely" else signal.SIGKILL)

    def _is_done(self, count: int) -> bool:
        return self._log_text().count("end ") >= count

    def _log_text(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    # What must have come of it.

    def _judge(self, inputs: list[dict[str, Any]], counts: dict[str, int]) -> None:
        starts = Counter(line.split()[1] for line in self._log_text().splitlines() if line.startswith("start "))
        for given, status in zip(inputs, self._story.statuses, strict=True):
            began, retries = starts[str(given["n"])], status.get("retries", 0)
            if status.get("status") == "COMPLETED":
                is_right = status.get("output") == given["n"] and given["exit"] is None and retries <= 1
            else:
                is_right = status.get("status") == "FAILED" and status.get("error") == GAVE_UP and retries == 1
            if not is_right or began > retries + 1 or (status.get("status") == "COMPLETED" and not began):
                self._story.wrong.append(f"job {given} began {began} times, and ended {status}")
        ends = Counter(str(status.get("status")) for status in self._story.statuses)
        expected = {
            "completed": ends["COMPLETED"],
            "failed": ends["FAILED"],
            "retried": sum(status.get("retries", 0) for status in self._story.statuses),
            "inQueue": 0,
            "inProgress": 0,
        }
        if counts != expected:
            self._story.wrong.append(f"/health says {counts}, and the jobs {expected}")
        if sum(self._story.kills.values()) != self._case.kills:
            self._story.wrong.append(f"the jobs were over after {sum(self._story.kills.values())} kills")

    def _log_tells_the_same(self) -> None:
        """The server's own log has every job accepted once, and ended once, as its status says."""
        events = [json.loads(line) for line in (self._folder / "accepted.jsonl").read_text().splitlines()]
        accepted = Counter(one["job_id"] for one in events if one["event"] == "accepted")
        ended = Counter((one["job_id"], one["status"]) for one in events if one["event"] == "done")
        statuses = Counter((one["id"], one["status"]) for one in self._story.statuses)
        if accepted != Counter(one["id"] for one in self._story.statuses) or ended != statuses:
            self._story.wrong.append("the log of accepted jobs tells another story")


async def _until(look: Callable[[], Any]) -> Any:
    """What *look* finds, as soon as it finds anything."""
    while True:
        if found := look():
            return found
        await asyncio.sleep(0.005)


@contextlib.contextmanager
def _environment(**variables: str) -> Any:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _marked(mark: str) -> list[int]:
    """Processes, this one aside, in whose environment *mark* is; a zombie has none."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (path / "environ").read_bytes() and int(path.name) != os.getpid():
                found.append(int(path.name))
    return found


def _victims(mark: str) -> list[tuple[int, int]]:
    """Each launcher that lives, with the process that it started, in the order of their ids."""
    pairs = []
    for pid in sorted(_marked(mark)):
        with contextlib.suppress(OSError):
            if b"runner.local.launcher" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                continue
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            pairs += [(pid, int(children[0]))] if children else []
    return pairs


def main() -> int:
    """Play many seeds, or one again; 1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one only")
    parser.add_argument("--seeds", type=int, default=10, help="play so many")
    parser.add_argument("--real", action="store_true", help="with workers on the runpod package only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report")
    args = parser.parse_args()
    seeds = [args.seed] if args.seed is not None else list(range(1, args.seeds + 1))
    cases = [] if args.real else [Case(seed) for seed in seeds]
    cases += [
        Case(seed, jobs=200, kills=10, workers=2, is_real=True, exits=0.0) for seed in seeds[: 10 if args.real else 2]
    ]
    told, began = Told("workers", "process"), time.monotonic()
    for case in cases:
        story = asyncio.run(play(case))
        print(f"{case}: {story}", *story.wrong, sep="\n  ", flush=True)
        told.add(f"workers killed, {'of the runpod package' if case.is_real else 'our own'}", story.account(case))
    if args.json is not None:
        told.write(args.json, seed=seeds[0], seconds=time.monotonic() - began)
    return 1 if told.problems else 0


if __name__ == "__main__":
    sys.exit(main())
