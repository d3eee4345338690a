"""
Ways to break the engine that the kills must notice: without the intent, and without the lock.

The engine is copied to a temporary folder and broken there; a few cases of `torture.kills` and `torture.interrupts` are
played with it, those that are about what was broken.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from torture.mutants import Mutation

ROOT = Path(__file__).parent.parent
SEED = 1


@dataclass(frozen=True)
class Killing:
    """A *mutation*, None for the engine as it is, and the cases of *program* that must notice it."""

    mutation: Mutation | None
    program: str
    cases: tuple[str, ...]


INTENT = ("accepted, unanswered #1", "id not committed #1", "random 1")
ANSWERS = ("answer lost, later than is waited for", "body truncated, fail")
LOCK = ("2 starts after nothing", "freed, served")

KILLING = {
    "the intent is not written": Killing(
        Mutation(
            "the intent is not written",
            "submission.py",
            (  # with the answer it is, or the ledger would refuse the rest, and anybody would notice that
                ("await self._recorder.record(intended)", "self._intended = intended"),
                (
                    "        self._recorder.tell(Accepted(",
                    "        self._recorder.tell(self._intended)\n        self._recorder.tell(Accepted(",
                ),
            ),
        ),
        "kills",
        INTENT,
    ),
    "the lock is not taken": Killing(
        Mutation(
            "the lock is not taken",
            "batch.py",
            (("        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", ""),),
        ),
        "interrupts",
        LOCK,
    ),
    "a request is sent twice": Killing(
        Mutation(
            "a request is sent twice",
            "exchange.py",
            (("transport.write(self._data)", "transport.write(self._data + self._data)"),),
        ),
        "kills",
        ANSWERS,
    ),
    "as it is, intent": Killing(None, "kills", INTENT),
    "as it is, lock": Killing(None, "interrupts", LOCK),
    "as it is, answers": Killing(None, "kills", ANSWERS),
}
"""By name. Of the last three nothing must be noticed, or the others would show nothing."""


def noticed(name: str) -> str | None:
    """
    What the kills say of the engine with the mutation *name* of `KILLING`; None when they find nothing wrong.

    Takes about a minute.

    Raises:
        LookupError: the text to change is not there exactly once, so nothing would be shown.
    """
    killing = KILLING[name]
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        at = Path(folder)
        for package in ("runner", "torture"):
            shutil.copytree(ROOT / package, at / package, ignore=shutil.ignore_patterns("__pycache__"))
        if killing.mutation is not None:
            _break(at / "runner" / killing.mutation.file, killing.mutation)
        words = [word for case in killing.cases for word in ("--case", case)]
        ran = subprocess.run(
            [sys.executable, "-m", f"torture.{killing.program}", "--seed", str(SEED), *words],
            cwd=at,
            env=os.environ | {"PYTHONPATH": folder},  # before the package that is installed, for every process of it
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode == 0:
        return None
    told = [line for line in ran.stdout.splitlines() if line.startswith("[")]
    told.sort(key=lambda line: "accepted, and only" not in line)  # what is paid for twice says the most
    return next(iter(told), (ran.stderr.strip().splitlines() or ["it ended without a word"])[-1])


def _break(path: Path, mutation: Mutation) -> None:
    text = path.read_text()
    for before, after in mutation.edits:
        if text.count(before) != 1:
            raise LookupError(f"{mutation.name!r}: {text.count(before)} times in {path.name}, not once: {before!r}")
        text = text.replace(before, after)
    path.write_text(text)
