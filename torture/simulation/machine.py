"""The machine under a simulated life: the engine's own modules, over our clock, network, disk and chance."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import runner.artifacts
import runner.batch
import runner.conduct
import runner.database
import runner.durable
import runner.manifest
import runner.network
import runner.received
import runner.store
import runner.wire
from runner.runpod import RunPod
from runner.store import Store
from torture.simulation.disk import SimSqlite
from torture.simulation.process import Process
from torture.simulation.recorder import SimRecorder
from torture.simulation.scenario import HOOK_TOKEN, KEY, S3_SECRET
from torture.simulation.transport import MOST_BYTES, SimSession

ENVIRONMENT = {
    "RUNPOD_API_KEY": KEY,
    "SIM_HOOK": f"https://hook.sim/{HOOK_TOKEN}",
    "SIM_S3_SECRET": S3_SECRET,
    "SIM_NORTH": "north-a",
    "SIM_SOUTH": "south-a",
}


class Machine:
    """Stands for the machine that processes run on; *process* is the one that runs now."""

    def __init__(self) -> None:
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None, "a process runs"
        return self._process

    def starts(self, process: Process, *, moved: bool) -> None:
        """From now on it is *process* that runs; *moved*: its endpoints were deployed anew."""
        self._process = process
        process.world.process = process
        for name in ("NORTH", "SOUTH"):
            os.environ[f"SIM_{name}"] = f"{name.lower()}-{'b' if moved else 'a'}"


class _Os:
    """What the engine's modules see as `os`: that of the process that runs now."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine.process.disk, name)


class _Time:
    """What `runner.wire` sees as `time`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def time(self) -> float:
        return self._machine.process.world.times.calendar


class _Secrets:
    """What `runner.batch` sees as `secrets`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def randbelow(self, most: int) -> int:
        return self._machine.process.rng.randrange(most)


@asynccontextmanager
async def _no_fetcher(**_: object) -> AsyncIterator[None]:
    """No job of a simulated life has artifacts behind URLs."""
    yield None


@contextmanager
def installed() -> Iterator[Machine]:
    """Let the engine run on a simulated machine while the block runs."""
    machine = Machine()
    no_git: Any = lambda folder: None  # noqa: E731
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, ENVIRONMENT))
        for module, name, stand_in in (
            (runner.network, "RunPod", partial(RunPod, max_answer_bytes=MOST_BYTES)),
            (runner.network, "open_session", lambda: SimSession(machine.process)),
            (runner.conduct, "Recorder", lambda store, _: _recorder(store, machine)),
            (runner.conduct, "open_fetcher", _no_fetcher),
            (runner.batch, "secrets", _Secrets(machine)),
            (runner.manifest, "git_state", no_git),
            (runner.manifest, "version", cache(version)),
            (runner.wire, "time", _Time(machine)),
            (runner.store, "os", _Os(machine)),
            (runner.received, "os", _Os(machine)),
            (runner.durable, "os", _Os(machine)),
            (runner.artifacts, "os", _Os(machine)),
            (runner.database, "sqlite3", SimSqlite(lambda: machine._process)),
        ):
            stack.enter_context(patch.object(module, name, stand_in))
        stack.enter_context(patch.object(Path, "replace", _replacing(machine)))
        yield machine


def _replacing(machine: Machine) -> Any:
    """What stands for `Path.replace`."""
    really = Path.replace

    def replace(path: Path, target: Path) -> Path:
        process = machine._process
        if process is None or process.root not in path.parents:
            return really(path, target)
        return process.disk.rename(lambda: really(path, target))

    return replace


def _recorder(store: Store, machine: Machine) -> SimRecorder:
    return SimRecorder(store, machine.process)
