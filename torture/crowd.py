"""A batch with hundreds of jobs in flight on an endpoint that keeps RunPod's rate limits, and what became of each."""

import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.batch import Folder
from runner.ledger import Ledger
from runner.local.accepted import input_hash
from runner.local.limits import RateLimits
from runner.local.server import LocalServer, Served
from torture.processes import Ran, finish, kill, said, start, wait_until
from torture.scene import Account, Line, Truth, lines
from torture.weather import Loop

IN_FLIGHT = 200
RUNS = 240
WORKERS = 4

HANDLER = """
import os, time

def handler(job):
    given = job["input"]
    while not os.path.exists(given["go"]):
        time.sleep(0.02)
    return given["n"]
"""

JOB_FILE = """\
version: 1
name: crowd
endpoints:
  crowd: {{handler: "handler.py:handler", workers: {workers}, concurrency: {in_flight}}}
jobs:
  job:
    endpoint: crowd
    rows: {{file: rows.csv}}
    concurrency: {in_flight}
    policy: {{execution_timeout: 1m}}
    input: {{n: "{{{{ row.n | int }}}}", go: "{go}"}}
"""


@dataclass
class Crowd:
    """The batch, its endpoint, and what it comes to. Its jobs end once `go` was called."""

    folder: Path
    url: str
    token: str
    server: LocalServer
    log: Path
    total: int
    account: Account = field(default_factory=lambda: Account(cases=1, tried=1))
    _processes: "list[subprocess.Popen[str]]" = field(default_factory=list)

    # Processes

    @property
    def mark(self) -> dict[str, str]:
        """What the command needs in its environment."""
        return {"RUNNER_LOCAL_TOKEN": self.token, "TORTURE_MARK": str(self.folder)}

    def words(self, *more: str) -> list[str | Path]:
        """``run`` this batch."""
        return ["run", self.folder / "crowd.yaml", "--local", self.url, *more]

    def start(self, words: Sequence[str | Path]) -> "subprocess.Popen[str]":
        """Start a command."""
        process = start(words, cwd=self.folder, env=self.mark)
        self._processes.append(process)
        return process

    def finish(self, process: "subprocess.Popen[str]") -> Ran:
        """Wait for its end."""
        ran = finish(process)
        self._processes.remove(process)
        self.blame_if("Traceback" in ran.out + ran.err, f"a traceback: {ran.err[-2000:]}")
        return ran

    def command(self, words: Sequence[str | Path]) -> Ran:
        """A command, to its end."""
        return self.finish(self.start(words))

    def clear_up(self) -> None:
        """Kill what a case that went wrong left running."""
        for process in self._processes:
            kill(process)

    def wait_said(self, process: "subprocess.Popen[str]", text: str) -> None:
        """Wait until *process* says *text*, or ends."""
        wait_until(lambda: process.poll() is not None or any(text in one for one in said(process)), repr(text))

    # What happens

    def go(self) -> None:
        """Let every job end."""
        (self.folder / "go").touch()

    @property
    def truth(self) -> Truth:
        """What the endpoint says."""
        return Truth.read(self.log)

    def wait_crowded(self, process: "subprocess.Popen[str]") -> None:
        """Wait until so many jobs are in flight as may be, and their ids are known."""

        def is_crowded() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"it ended: {said(process)}")
            return self.log.read_bytes().count(b'"event":"accepted"') >= IN_FLIGHT and self.known() >= IN_FLIGHT

        wait_until(is_crowded, f"{IN_FLIGHT} jobs in flight", every_s=0.05)

    def known(self) -> int:
        """How many unfinished jobs the ledger knows by their ids."""
        batch = self.batch
        if not batch.ledger.exists():
            return 0
        with Ledger.read_only(batch.ledger) as ledger:
            return sum(one.job_id is not None and not one.ended for one in ledger.open_runs())

    # What is there

    @property
    def batch(self) -> Folder:
        """The newest batch."""
        return Folder((self.folder / "batches" / "crowd" / "latest").resolve())

    def settled(self) -> list[Line]:
        """The lines of results.jsonl."""
        return lines(self.batch.results)

    def outcomes(self) -> Counter[str | None]:
        """How many runs came to what."""
        return Counter(line["outcome"] for line in self.settled())

    def asked(self, operation: str) -> list[Line]:
        """The requests for *operation* that the endpoint was asked."""
        return [one for one in lines(self.log) if one["event"] == "asked" and one["operation"] == operation]

    # What must hold

    def blame_if(self, is_wrong: object, text: str) -> None:
        """Something is not as it was promised, if *is_wrong*."""
        if is_wrong:
            self.account.problems.append(text)

    def check(self, *, may_end: Sequence[str | None] = (), pending: int = 0, refused: Sequence[str] = ()) -> None:
        """
        Hold the batch against what the endpoint says: each run was accepted once at most, ends in one class, and what
        completed there is here. *may_end* are outcomes beside completed; *pending* runs are left; the rate limits may
        have refused the operations *refused* only.
        """
        truth, account = self.truth, self.account
        by_n: dict[int, Line] = {line["input"]["n"]: line for line in self.settled()}
        account.runs += self.total
        for n in range(self.total):
            ids = truth.accepted.get(input_hash(self.input(n)), ())
            line = by_n.get(n)
            account.paid_twice += max(0, len(ids) - 1)
            self.blame_if(len(ids) > 1, f"run {n} was accepted as {ids}")
            if line is None:
                continue
            self.blame_if(
                line["outcome"] not in ("completed", *may_end), f"run {n} is {line['outcome']}: {line['error']}"
            )
            self.blame_if(line["attempts"] != len(ids), f"run {n} has {line['attempts']} attempts, and was {ids}")
            ended = {truth.ended.get(one) for one in ids}
            is_lost = "COMPLETED" in ended and line["outcome"] not in ("completed", *_FORGOTTEN.intersection(may_end))
            account.lost += is_lost
            self.blame_if(is_lost, f"run {n} completed, and is called {line['outcome']}")
            is_true = line["outcome"] != "completed" or ("COMPLETED" in ended and line["output"] == n)
            self.blame_if(not is_true, f"run {n} is called completed: {line}, and the endpoint says {ended}")
            self.blame_if(
                line["outcome"] == "cancelled" and ended != {"CANCELLED"}, f"run {n} is {ended}, not cancelled"
            )
        missing = self.total - len(by_n)
        account.lost += max(0, missing - pending)
        self.blame_if(missing != pending, f"{missing} runs have no line, and {pending} are pending")
        totals = self.health["batch"]
        counted = Counter(line["state"] for line in by_n.values())
        states = ("succeeded", "failed", "cancelled", "skipped")
        self.blame_if(
            [totals[one] for one in states] != [counted[one] for one in states] or totals["pending"] != pending,
            f"health.json says {totals}, results.jsonl {dict(counted)}, and {pending} are pending",
        )
        over = {name: n for found in self.server.refused.values() for name, n in found.items() if name not in refused}
        self.blame_if(over, f"the rate limits refused {over}")

    @property
    def health(self) -> Any:
        """The object of health.json."""
        (found,) = lines(self.batch.health)
        return found

    def input(self, n: int) -> dict[str, Any]:
        """What the run *n* sends."""
        return {"n": n, "go": str(self.folder / "go")}


_FORGOTTEN = frozenset({"lost"})
"""The outcome of a job that completed while nobody could look."""


@contextmanager
def crowd(*, total: int = RUNS, in_flight: int = IN_FLIGHT, **options: Any) -> Iterator[Crowd]:
    """A batch of *total* runs, and its endpoint with RunPod's rate limits; *options* are `LocalServer`'s."""
    folder = Path(tempfile.mkdtemp(prefix="torture-crowd-"))
    try:
        (folder / "handler.py").write_text(HANDLER)
        (folder / "rows.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(total)))
        text = JOB_FILE.format(workers=WORKERS, in_flight=in_flight, go=folder / "go")
        (folder / "crowd.yaml").write_text(text)
        log, token = folder / "accepted.jsonl", f"crowd-{time.monotonic_ns()}-token"
        log.touch()
        served = Served("crowd", f"{folder / 'handler.py'}:handler", WORKERS)
        with Loop() as loop:
            server = LocalServer([served], token=token, log=log, rate_limits=RateLimits(), **options)
            loop.do(server.__aenter__())
            found = Crowd(folder, server.base_url, token, server, log, total)
            try:
                yield found
            finally:
                found.clear_up()
                found.go()
                loop.do(server.__aexit__(None, None, None))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
