"""Run the command as a user does: a process of its own, real files, real signals."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forked import environment as environment
from forked import named, popen

HERE = Path(__file__).parent
ROOT = HERE.parent
DEADLINE_S = 30.0


@dataclass(frozen=True)
class Ran:
    """What a finished command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its stdout as the one JSON document that it must be."""
        return json.loads(self.out)


def start(
    *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, module: str = "runner"
) -> subprocess.Popen[str]:
    """Start ``python -m`` *module*, by default ``runner``, with *words*, in a session of its own."""
    return popen(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str]) -> Ran:
    """Wait until *process* ends by itself."""
    try:
        out, err = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {DEADLINE_S} s:\n{out}\n{err}") from None
    return Ran(process.returncode, out, err)


def runner(*words: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> Ran:
    """Run ``runner`` with *words* to its end."""
    return finish(start(*words, cwd=cwd, env=env))


def wait_until(true: Callable[[], object], what: str) -> None:
    """Look again and again until *true*; fails after a while, saying *what* was waited for."""
    give_up = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < give_up, f"waited {DEADLINE_S} s for {what}"
        time.sleep(0.01)


@dataclass(frozen=True)
class Server:
    """A ``runner serve`` of its own process."""

    url: str
    token: str
    log: Path

    @property
    def env(self) -> dict[str, str]:
        """What ``--local`` needs."""
        return {"RUNNER_LOCAL_TOKEN": self.token}

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What the server says it did."""
        if not self.log.exists():
            return []
        lines = self.log.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in found if event["event"] == kind]

    def submits(self) -> dict[str, int]:
        """How often each input was accepted, by its hash."""
        counts: dict[str, int] = {}
        for event in self.events("accepted"):
            counts[event["input"]] = counts.get(event["input"], 0) + 1
        return counts


@contextmanager
def serving(job_file: Path, *, token: str | None = None, faults: Sequence[str] = ()) -> Iterator[Server]:
    """Serve the local endpoints of *job_file* while the block runs, on a day with these *faults*."""
    log = job_file.parent / f"serve-{time.monotonic_ns()}.jsonl"
    words: list[str | Path] = ["serve", job_file, "--log", log]
    if token is not None:
        words += ["--token-env", "SERVED_TOKEN"]
    for fault in faults:
        words += ["--fault", fault]
    process = start(*words, cwd=job_file.parent, env={"SERVED_TOKEN": token or ""})
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("serving "), said + (process.stderr.read() if process.stderr else "")
        url = said.split()[-1]
        if token is None:
            token = process.stdout.readline().strip().partition("=")[2]
        yield Server(url, token, log)
    finally:
        process.send_signal(signal.SIGTERM)
        ran = finish(process)
    assert ran.code == 0, ran.err


def processes_with(mark: str) -> list[int]:
    """Processes whose command line or environment holds *mark*."""
    found = [pid for pid, text in named().items() if mark.encode() in text]
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in text and int(path.name) not in found:
            found.append(int(path.name))
    return found


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write *files* into *folder*."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of the file at *path*."""
    with path.open("rb") as file:  # str.splitlines would also end lines at U+2028
        return [json.loads(line) for line in file]
