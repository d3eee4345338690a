"""A case while it is played: its batch, its processes, the endpoint that is served for it."""

import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from runner.resume import progress
from torture.killed import SUBMITTED_FROM, SUBMITTED_LOG
from torture.processes import RUNNER, Ran, Served, Stuck, finish, kill, processes_with, said, serving, start, wait_until
from torture.scene import Account, Broken, Line, Scene, Truth, audit, lines

KILLED = ("-m", "torture.killed")


class Oracle(Protocol):
    """An endpoint that keeps a *log* of what it accepted; *mark* is in the environment of its workers."""

    @property
    def url(self) -> str:
        """Where runners find it."""

    @property
    def log(self) -> Path:
        """Its own account."""

    @property
    def mark(self) -> str:
        """What tells its processes from others."""


@dataclass
class Stand:
    """
    One case. *began* is where the endpoint's log stood when it began; *chance* is its own, from the seed.

    *env* is in the environment of its processes. *is_broken_rightly*: a traceback is what the fault must bring.
    """

    scene: Scene
    served: Oracle
    chance: random.Random
    began: int = 0
    env: dict[str, str] = field(default_factory=dict)
    account: Account = field(default_factory=Account)
    is_broken_rightly: bool = False
    _read: int = 0
    _events: int = 0
    _processes: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def __post_init__(self) -> None:
        """Remember where the log stands."""
        self.began = self.served.log.stat().st_size if self.served.log.exists() else 0
        self._read = self.began

    def beside(self, served: Oracle) -> None:
        """From now on this is the endpoint."""
        self.served, self.began, self._read, self._events = served, 0, 0, 0

    @property
    def truth(self) -> Truth:
        """What the endpoint says of this case."""
        return Truth.read(self.served.log, self.began)

    @property
    def events(self) -> int:
        """How many jobs were accepted, and how many ended: a clock that does not depend on how busy the machine is."""
        with self.served.log.open("rb") as file:
            file.seek(self._read)
            told = file.read()
        told = told[: told.rfind(b"\n") + 1]
        self._read += len(told)
        self._events += told.count(b'"event":"accepted"') + told.count(b'"event":"done"')
        return self._events

    def asked(self) -> list[Line]:
        """The requests that the endpoint was asked, in order."""
        return [one for one in lines(self.served.log, self.began) if one["event"] == "asked"]

    # Processes

    def words(self, *more: str) -> list[str | Path]:
        """``run`` this job file at this endpoint."""
        return ["run", self.scene.job_file, "--local", self.served.url, *more]

    def start(self, words: Sequence[str | Path], *, main: Sequence[str] = RUNNER) -> "subprocess.Popen[str]":
        """Start a command."""
        env = {
            "TORTURE_MARK": self.scene.mark,
            SUBMITTED_LOG: str(self.served.log),
            SUBMITTED_FROM: str(self.began),
        }
        process = start(words, cwd=self.scene.folder, env=env | self.env, main=main)
        self._processes.append(process)
        return process

    def finish(self, process: "subprocess.Popen[str]") -> Ran:
        """Wait for its end, which may not be a bug's."""
        ran = finish(process)
        self._processes.remove(process)
        if ("Traceback" in ran.err + ran.out or ran.code == 3) and not self.is_broken_rightly:
            self.account.problems.append(f"a traceback: {ran.err[-1500:]}")
        return ran

    def end_processes(self) -> None:
        """Kill what a case that went wrong left running."""
        for process in self._processes:
            kill(process)
        self._processes.clear()

    def command(self, words: Sequence[str | Path], *, main: Sequence[str] = RUNNER) -> Ran:
        """A command, to its end."""
        return self.finish(self.start(words, main=main))

    def kill_at(self, step: str, nth: int, words: Sequence[str | Path]) -> bool:
        """A command, killed the nth time that it comes to *step*; whether it came so far."""
        ran = self.command([step, str(nth), *words], main=KILLED)
        is_killed = ran.code == -signal.SIGKILL
        self.account.kills += is_killed
        return is_killed

    def wait_said(self, process: "subprocess.Popen[str]", text: str) -> None:
        """Wait until *process* says *text*."""

        def is_said() -> bool:
            if any(text in one for one in said(process)):
                return True
            if process.poll() is not None:
                raise Stuck(f"it ended with {process.poll()}, and never said {text!r}: {said(process)}")
            return False

        wait_until(is_said, repr(text))

    def wait_events(self, process: "subprocess.Popen[str]", wanted: int) -> None:
        """Wait until so much has happened at the endpoint, or the process ends before."""
        wait_until(lambda: process.poll() is not None or self.events >= wanted, f"{wanted} events", every_s=0.003)

    def wait_settled(self, process: "subprocess.Popen[str]", wanted: int) -> None:
        """Wait until so many runs are settled, or the process ends before."""
        there = f"{wanted} settled runs"
        wait_until(lambda: process.poll() is not None or len(self.settled()) >= wanted, there, every_s=0.01)

    def kill(self, process: "subprocess.Popen[str]") -> None:
        """SIGKILL it where it stands, if it still does."""
        if process.poll() is None:
            process.kill()
            self.account.kills += 1
        self.finish(process)

    # Ends

    def settled(self) -> list[Line]:
        """The lines of the newest batch; none before there is one."""
        return lines(self.scene.root / "latest" / "results.jsonl")

    def end(self, *more: str, **allowed: Any) -> Ran:
        """Go on with the batch until it is whole, and hold it against what the endpoint says. *allowed* as `audit`."""
        ran = self.command(self.onwards(*more))
        self.audit(ran, **allowed)
        return ran

    def onwards(self, *more: str) -> list[str | Path]:
        """How the batch is gone on with: by a resume that sends nothing, where all of it is settled."""
        batches = self.scene.batches()
        if batches and not progress(batches[-1]).unfinished:
            return ["resume", self.scene.name, *more]
        return self.words("--resume", *more)

    @property
    def unfinished(self) -> int:
        """Runs of the newest batch that are not settled."""
        return progress(self.scene.batch).unfinished

    def audit(self, ran: Ran, **allowed: Any) -> None:
        """Hold the batch that *ran* finished against what the endpoint says; *allowed* as `scene.audit` has it."""
        try:
            found = audit(self.scene, self.truth, **({"code": ran.code} | allowed))
        except Broken as error:
            found = Account(cases=1, problems=[str(error)])
        if found.problems:
            found.problems.append(f"its last process: {ran.code} {ran.out[-1500:]} {ran.err[-1500:]}")
        self.account.add(found)
        for one in self.scene.batches():
            if one.log.exists() and "Traceback" in one.log.read_text(errors="replace") and not self.is_broken_rightly:
                self.account.problems.append(f"a traceback in {one.log}")
        try:
            wait_until(lambda: not processes_with(self.scene.mark), "every process of the batch to end")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this case's problem
            self.account.problems.append(str(error))

    def check_over(self) -> None:
        """A finished batch that is gone on with sends nothing, and exits as it did."""
        before = (self.truth.accepted, self.scene.batch.results.read_bytes(), self.command(["status", self.scene.name]))
        ran = self.command(["resume", self.scene.name])
        after = (self.truth.accepted, self.scene.batch.results.read_bytes(), self.command(["status", self.scene.name]))
        if before[:2] != after[:2] or ran.code not in (0, 1):
            self.account.problems.append(f"a finished batch was gone on with: {ran}")


@contextmanager
def served_for_all(*, workers: int = 3, ms: int = 4) -> Iterator[Served]:
    """An endpoint that outlives every runner, with a folder of its own that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="torture-served-"))
    try:
        scene = Scene.make(folder / "scene", workers=workers, ms=ms)
        (scene.folder / "accepted.jsonl").touch()
        with serving(scene.job_file, env={"TORTURE_MARK": str(folder)}) as served:
            yield served
        left = processes_with(str(folder))
        if left:
            raise Broken(f"the endpoint left processes behind: {left}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
