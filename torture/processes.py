"""Start the command and the endpoint as processes of their own, and see that none is left."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

PATIENCE_S = 120.0
"""How long anything may take on a busy machine before it counts as stuck."""

TOKEN = "torture-0123456789"

RUNNER = ("-m", "runner")

popen: "Callable[..., subprocess.Popen[str]]" = partial(subprocess.Popen, text=True, start_new_session=True)
"""How a process is started."""


class Stuck(Exception):
    """Raised when something that must happen did not, in all that time."""


@dataclass(frozen=True)
class Ran:
    """What a process left behind. *code* is negative for a signal."""

    code: int
    out: str
    err: str


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without RunPod's variables and ours, output buffered as users have it, and *extra*."""
    unwanted = re.compile("RUNPOD|RUNNER|PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if not unwanted.search(name)}
    return kept | {"PYTHONWARNINGS": "error", "COLUMNS": "100", "RUNNER_LOCAL_TOKEN": TOKEN} | dict(extra)


def start(
    words: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], main: Sequence[str] = RUNNER
) -> "subprocess.Popen[str]":
    """Start ``python MAIN WORDS`` in a session of its own; its output goes to files that `finish` reads."""
    number = time.monotonic_ns()
    out, err = cwd / f".out-{number}", cwd / f".err-{number}"
    with out.open("w") as out_file, err.open("w") as err_file:
        process = popen(
            [sys.executable, *main, *map(str, words)],
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=out_file,
            stderr=err_file,
        )
    _files[process.pid] = (out, err)
    return process


_files: dict[int, tuple[Path, Path]] = {}


def finish(process: "subprocess.Popen[str]") -> Ran:
    """Wait until *process* ends by itself."""
    try:
        code = process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        out, err = said(process)
        raise Stuck(f"still running after {PATIENCE_S:g} s: {process.args!r}\n{out}\n{err}") from None
    ran = Ran(code, *said(process))
    for path in _files.pop(process.pid):
        path.unlink()
    return ran


def kill(process: "subprocess.Popen[str]") -> None:
    """End it, if it still runs, and forget what it said."""
    process.kill()
    process.wait()
    for path in _files.pop(process.pid, ()):
        path.unlink(missing_ok=True)


def said(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What a process printed until now, on stdout and on stderr."""
    out, err = _files[process.pid]
    return out.read_text(errors="replace"), err.read_text(errors="replace")


def wait_until(
    true: Callable[[], object], what: str, *, every_s: float = 0.005, patience_s: float = PATIENCE_S
) -> None:
    """Look again and again until *true*."""
    give_up = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > give_up:
            raise Stuck(f"waited {patience_s:g} s for {what}")
        time.sleep(every_s)


def processes_with(*marks: str) -> list[int]:
    """Processes, this one aside, whose environment and command line hold all *marks*; zombies have neither."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:
            continue
        if all(mark.encode() in text for mark in marks) and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


@dataclass(frozen=True)
class Served:
    """
    A ``runner serve`` of its own process. *log* is its own account of what it accepted; *mark* is in the environment of
    its workers.
    """

    url: str
    log: Path
    mark: str
    process: "subprocess.Popen[str]"


@contextmanager
def serving(
    job_file: Path, *, env: Mapping[str, str], port: int = 0, log: Path | None = None, faults: Sequence[str] = ()
) -> Iterator[Served]:
    """
    Serve the local endpoints of *job_file* while the block runs, on a day with these *faults*; none of its processes is
    left afterwards.
    """
    log = log or job_file.parent / "accepted.jsonl"
    words: list[str | Path] = [
        "serve",
        job_file,
        "--log",
        log,
        "--token-env",
        "RUNNER_LOCAL_TOKEN",
        "--port",
        str(port),
        *(word for fault in faults for word in ("--fault", fault)),
    ]
    process = start(words, cwd=job_file.parent, env=env)

    def speaks() -> bool:
        if process.poll() is not None:
            raise Stuck(f"no endpoint is served: {said(process)[1]}")
        return said(process)[0].startswith("serving ") and "\n" in said(process)[0]

    try:
        wait_until(speaks, "the endpoint to be served", every_s=0.05)
        url = said(process)[0].splitlines()[0].split()[-1]
        yield Served(url, log, env["TORTURE_MARK"], process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        finish(process)
