"""A job file whose handler notes each call, so that a test can say what was run and what was taken from elsewhere."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

from job_files import as_yaml
from terminal import Ran, lines, runner, start

from runner.batch import Folder, newest_first

HANDLER = """
import os

def handler(job):
    given = job["input"]
    with open("CALLS", "a") as calls:
        calls.write(f"{given['n']}\\n")
    if os.path.exists(f"BAD{given['n']}"):
        raise ValueError("no sum")
    return {"double": 2 * given["n"], "text": f"it is {given['n']}"}
"""


@dataclass(frozen=True)
class Sums:
    """The job file in *folder*, its batches, and what its handler did."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *rows: int, job: Mapping[str, Any] | None = None, **more: Any) -> "Sums":
        """A job ``double`` of *rows*, which reuses what succeeded; *job* has more keys of it, *more* of the file."""
        made = cls(folder)
        made.set_handler()
        made.set_rows(*rows)
        made.set_job(job, **more)
        return made

    def set_handler(self, more: str = "") -> None:
        """Write the handler, with *more* at its end."""
        text = HANDLER.replace("CALLS", str(self.folder / "calls")).replace("BAD", f"{self.folder}/bad")
        (self.folder / "handler.py").write_text(text + more)

    def set_rows(self, *rows: int) -> None:
        """Let these be the rows."""
        (self.folder / "rows.csv").write_text("n\n" + "".join(f"{n}\n" for n in rows))

    def set_job(self, job: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Write the job file."""
        told: dict[str, Any] = {"endpoint": "local", "rows": {"file": "rows.csv"}, "reuse": "succeeded"}
        told |= {"input": {"n": "{{ row.n | int }}"}} | dict(job or {})
        whole: dict[str, Any] = {"version": 1, "name": "sums"}
        whole |= {"endpoints": {"local": {"handler": "handler.py:handler"}}, "jobs": {"double": told}} | more
        (self.folder / "sums.yaml").write_text(as_yaml(whole))

    @property
    def calls(self) -> list[int]:
        """What the handler was called with since this was last asked, in order of size."""
        path = self.folder / "calls"
        found = sorted(int(line) for line in path.read_text().split()) if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    @property
    def batches(self) -> list[Folder]:
        """The batches, the newest first."""
        return newest_first(self.folder / "batches/sums")

    @property
    def lines(self) -> list[Any]:
        """The results of the newest batch, in the order of the plan."""
        return sorted(lines(self.batches[0].results), key=lambda line: line["index"])

    @property
    def reused(self) -> int:
        """How many runs of the newest batch were reused, by its report, its lines and its ledger's counts alike."""
        health = json.loads(self.batches[0].health.read_bytes())
        assert health["batch"]["reused"] == sum(job["reused"] for job in health["jobs"].values())
        assert health["batch"]["reused"] == sum("reused_from" in line for line in self.lines)
        assert health["batch"]["runs"] == len(self.lines) == len({line["key"] for line in self.lines})
        return int(health["batch"]["reused"])

    def run(self, *words: str | Path, env: Mapping[str, str] | None = None) -> Ran:
        """``runner run`` of the job file to its end."""
        return runner("run", "sums.yaml", *words, cwd=self.folder, env=env)

    def passes(self, *words: str | Path) -> Ran:
        """``runner run`` of the job file, which must pass."""
        ran = self.run(*words)
        assert ran.code == 0, ran.err + ran.out
        return ran

    def runner(self, *words: str | Path) -> Ran:
        """``runner`` with *words*."""
        return runner(*words, cwd=self.folder)

    def start(self, *words: str | Path) -> Popen[str]:
        """``runner run`` of the job file, begun."""
        return start("run", "sums.yaml", *words, cwd=self.folder)
