"""Keep an endpoint's workers running: start, watch, end and restart them."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.local import broken
from runner.local.endpoint import Endpoint
from runner.local.process import WorkerProcess
from runner.values import JsonObject

BACK_OFF_FIRST_S = 0.25
BACK_OFF_MAX_S = 30.0
HEAD_START_S = 0.25
STEADY_S = 60.0
"""A worker that lived so long breaks the run of failures before it."""


@dataclass(frozen=True, slots=True)
class Setup:
    """
    How workers are started: *command*, in the variables that *environment* makes of a worker id and a home folder.

    *source* is what they are made of, for messages; *folder* where they work, None for our own working directory;
    *grace_s* what they have between SIGTERM and SIGKILL.
    """

    source: broken.Source
    command: Sequence[str]
    environment: Callable[[str, str], Mapping[str, str]]
    folder: Path | None
    grace_s: float
    on_output: Callable[[str, str], None] | None


@dataclass(eq=False, slots=True)
class Slot:
    """One worker's place: the processes in it come one after the other, each under a worker id of its own."""

    number: int
    starts: int = 0
    failures: int = 0
    process: WorkerProcess | None = None


class Pool:
    """
    The worker processes of one endpoint.

    *started* is done when the first worker is ready, with None, or when the first failed to get so, with the reason;
    *ended* is set when no process is left after `close`.
    """

    leased = False

    def __init__(self, endpoint: Endpoint, setup: Setup, *, workers: int) -> None:
        self.source = setup.source
        self.started: asyncio.Future[broken.HandlerError | None] = asyncio.get_running_loop().create_future()
        self._endpoint = endpoint
        self._setup = setup
        self._slots = [Slot(number) for number in range(1, workers + 1)]
        self._tasks: list[asyncio.Task[None]] = []
        self._open = workers
        self._processes: dict[str, WorkerProcess] = {}
        self.ended = asyncio.Event()
        self._closing = asyncio.Event()
        endpoint.crew.workers = self

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start all workers, as tasks of *group*, which end after `close`."""
        name = f"worker-{self._endpoint.name}"
        self._tasks = [group.create_task(self._keep(slot), name=f"{name}-{slot.number}") for slot in self._slots]

    def close(self) -> None:
        """End all workers, for good; returns at once."""
        self._closing.set()
        for process in self._processes.values():
            process.end()

    def kill(self) -> None:
        """Kill what `close` did not end in time."""
        for process in list(self._processes.values()):
            process.kill()

    def abandon(self) -> None:
        """Stop waiting for processes that not even `kill` ended: the kernel holds them, and will let them go."""
        for task in self._tasks:
            task.cancel()

    # What the endpoint asks of its workers' keeper.

    def admits(self, worker_id: str) -> bool:
        # What a dead worker had still asked for must not be answered with a job that nobody would take back.
        process = self._processes.get(worker_id)
        return process is not None and not process.is_ending

    def alive(self, worker_id: str) -> None:
        """Not needed: we see its process."""

    def left(self, worker_id: str) -> None:
        """Not needed, for the same reason."""

    def ready(self, worker_id: str) -> None:
        process = self._processes.get(worker_id)
        if process is not None and not process.is_ready:
            process.is_ready = True
            self._settle_start(None)

    def failed(self, worker_id: str, report: JsonObject) -> None:
        if worker_id in self._processes:
            self._settle_start(broken.from_report(self._setup.source, report))

    def end(self, worker_id: str) -> bool:
        process = self._processes.get(worker_id)
        if process is None:
            return False
        process.end()
        return True

    def counts(self) -> tuple[int, int, int]:
        ready = sum(slot.process is not None and self._serves(slot.process) for slot in self._slots)
        # One whose last worker could not live is so until the next can, not only while it waits for that.
        unhealthy = sum(
            slot.failures > 0 and (slot.process is None or not slot.process.is_ready) for slot in self._slots
        )
        return len(self._slots) - ready - unhealthy, ready, unhealthy

    def _serves(self, process: WorkerProcess) -> bool:
        """Whether a worker is ready. One that is being ended gives way to the next, once it lost its jobs."""
        return process.is_ready and (not process.is_ending or bool(self._endpoint.jobs.held_by(process.worker_id)))

    def _settle_start(self, reason: broken.HandlerError | None) -> None:
        if not self.started.done():
            self.started.set_result(reason)

    async def _keep(self, slot: Slot) -> None:
        """Keep one worker running in this slot until the pool closes."""
        if slot.number > 1:
            # Let the first have the machine for a moment: it is the one that everybody waits for.
            await asyncio.wait([self.started], timeout=HEAD_START_S)
        while not self._closing.is_set():
            try:
                process = await self._start(slot)
            except OSError as error:  # out of processes, memory or disk: perhaps not for long
                self._settle_start(broken.not_started(self._setup.source, error))
                slot.failures += 1
            else:
                await self._watch(slot, process)
            await self._back_off(slot)
        self._open -= 1
        if self._open == 0:
            self.ended.set()

    async def _watch(self, slot: Slot, process: WorkerProcess) -> None:
        """Wait for the process to exit, and tell everybody whom it concerns."""
        exit_code = await process.exited
        was_busy = bool(self._endpoint.jobs.held_by(process.worker_id))
        del self._processes[process.worker_id]
        slot.process = None
        self._endpoint.crew.forget(process.worker_id)
        if not process.is_ready and not process.is_ending:
            self._settle_start(broken.from_exit(self._setup.source, exit_code, list(process.last_lines)))
        self._count(slot, process, exit_code, was_busy=was_busy)

    async def _start(self, slot: Slot) -> WorkerProcess:
        slot.starts += 1
        worker_id = f"{self._endpoint.name}-w{slot.number}-{slot.starts}"
        emit = self._setup.on_output

        def on_line(line: str) -> None:
            if emit is not None:
                emit(worker_id, line)

        process = await WorkerProcess.start(
            worker_id,
            self._setup.command,
            lambda home: self._setup.environment(worker_id, home),
            folder=self._setup.folder,
            grace_s=self._setup.grace_s,
            on_line=on_line,
        )
        self._processes[worker_id] = slot.process = process
        if self._closing.is_set():
            process.end()
        return process

    def _count(self, slot: Slot, process: WorkerProcess, exit_code: int, *, was_busy: bool) -> None:
        """
        Count failures in a row.

        A worker that dies while it has a job is its handler's doing, and paid for by the job's retries; one that we
        ended, or that exits by itself with 0, is fine. What is left is a worker that can't live.
        """
        lived_s = asyncio.get_running_loop().time() - process.started_at
        is_fine = process.is_ending or was_busy or (process.is_ready and (exit_code == 0 or lived_s > STEADY_S))
        slot.failures = 0 if is_fine else slot.failures + 1

    async def _back_off(self, slot: Slot) -> None:
        if slot.failures == 0 or self._closing.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(BACK_OFF_MAX_S, BACK_OFF_FIRST_S * 2.0 ** min(slot.failures - 1, 20))):
                await self._closing.wait()
