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
from typing import Any

from torture.killed import SUBMITTED_FROM, SUBMITTED_LOG
from torture.processes import RUNNER, Ran, Served, finish, processes_with, serving, start, wait_until
from torture.scene import Account, Broken, Line, Scene, Truth, audit, lines

KILLED = ("-m", "torture.killed")


@dataclass
class Stand:
    """
    One case. *began* is where the endpoint's log stood when it began; *chance* is its own, from the seed.

    *env* is in the environment of its processes.
    """

    scene: Scene
    served: Served
    chance: random.Random
    began: int = 0
    env: dict[str, str] = field(default_factory=dict)
    account: Account = field(default_factory=Account)

    def __post_init__(self) -> None:
        """Remember where the log stands."""
        self.began = self.served.log.stat().st_size if self.served.log.exists() else 0

    @property
    def truth(self) -> Truth:
        """What the endpoint says of this case."""
        return Truth.read(self.served.log, self.began)

    @property
    def events(self) -> int:
        """How many jobs were accepted, and how many ended: a clock that does not depend on how busy the machine is."""
        with self.served.log.open("rb") as file:
            file.seek(self.began)
            said = file.read()
        return said.count(b'"event":"accepted"') + said.count(b'"event":"done"')

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
        return start(words, cwd=self.scene.folder, env=env | self.env, main=main)

    def finish(self, process: "subprocess.Popen[str]") -> Ran:
        """Wait for its end, which may not be a bug's."""
        ran = finish(process)
        if "Traceback" in ran.err + ran.out or ran.code == 3:
            self.account.problems.append(f"a traceback: {ran.err[-3000:]}")
        return ran

    def command(self, words: Sequence[str | Path], *, main: Sequence[str] = RUNNER) -> Ran:
        """A command, to its end."""
        return self.finish(self.start(words, main=main))

    def kill_at(self, step: str, nth: int, words: Sequence[str | Path]) -> bool:
        """A command, killed the nth time that it comes to *step*; whether it came so far."""
        ran = self.command([step, str(nth), *words], main=KILLED)
        is_killed = ran.code == -signal.SIGKILL
        self.account.kills += is_killed
        return is_killed

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

    def end(self) -> None:
        """Go on with the batch until it is whole, and hold it against what the endpoint says."""
        self.audit(self.command(self.words("--resume")))

    def audit(self, ran: Ran, **allowed: Any) -> None:
        """Hold the batch that *ran* finished against what the endpoint says; *allowed* as `scene.audit` has it."""
        try:
            found = audit(self.scene, self.truth, code=ran.code, **allowed)
        except Broken as error:
            found = Account(cases=1, problems=[str(error)])
        if found.problems:
            found.problems.append(f"its last process: {ran.code} {ran.out[-1500:]} {ran.err[-1500:]}")
        self.account.add(found)
        for one in self.scene.batches():
            if "Traceback" in one.log.read_text(errors="replace"):
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
