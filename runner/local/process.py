"""One worker process under its launcher, as the server sees it."""

import asyncio
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, cast

from runner.local import processes
from runner.local.lines import Lines

_PIPE_LIMIT_S = 1.0
_KILL_ROUNDS = 20


class WorkerProcess(asyncio.SubprocessProtocol):
    """
    A launcher and its worker.

    *exited* is done, with the exit code, when nothing of either is left; *is_ready* once the worker asked for a job;
    *is_ending* once we ended it.
    """

    def __init__(self, worker_id: str, home: str, on_line: Callable[[str], None]) -> None:
        self.worker_id = worker_id
        self.is_ready = False
        self.is_ending = False
        self.mark = ""
        self.started_at = asyncio.get_running_loop().time()
        self.last_lines: deque[str] = deque(maxlen=5)
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._home = home
        self._on_line = on_line
        self._lines = Lines(self._line)
        self._transport: asyncio.SubprocessTransport | None = None
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def start(
        cls,
        worker_id: str,
        command: Sequence[str],
        environment: Callable[[str], Mapping[str, str]],
        *,
        folder: Path | None,
        grace_s: float,
        on_line: Callable[[str], None],
    ) -> Self:
        """
        Start *command* under a launcher, with a home folder of its own, for which *environment* makes the variables.

        It works in *folder*, None for our own working directory.

        Raises:
            OSError: the launcher can't be started.
        """
        home = tempfile.mkdtemp(prefix="runner-worker-")
        process = cls(worker_id, home, on_line)
        variables = environment(home)
        process.mark = variables[processes.MARK]
        launcher = [sys.executable, "-P", "-m", "runner.local.launcher", str(grace_s), home, *command]
        try:
            await asyncio.get_running_loop().subprocess_exec(
                lambda: process,
                *launcher,
                cwd=folder,
                env=variables,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for the server alone
            )
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        return process

    def end(self) -> None:
        """Have the launcher end everything, by closing its input; returns at once."""
        self.is_ending = True
        pipe = self._transport.get_pipe_transport(0) if self._transport is not None else None
        if pipe is not None:
            pipe.close()

    def kill(self) -> None:
        """Kill the launcher and all that carries the worker's mark, for when `end` took too long."""
        self.is_ending = True
        if self._transport is not None and self._transport.get_returncode() is None:
            self._transport.kill()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)  # uvloop's is none by inheritance

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._lines.feed(data, asyncio.get_running_loop().time())

    def process_exited(self) -> None:
        """The launcher is gone; if it was killed, what it watched over may not be."""
        if self._transport is not None and (self._transport.get_returncode() or 0) < 0:
            self._kill_orphans()
        # What the worker printed last is still in the pipe. Whoever keeps the pipe open can't keep us waiting.
        self._timer = asyncio.get_running_loop().call_later(_PIPE_LIMIT_S, self._finish)

    def _kill_orphans(self) -> None:
        """Kill what carries the worker's mark, until nothing does: it may be starting new processes meanwhile."""
        for _ in range(_KILL_ROUNDS):
            orphans = processes.marked(self.mark)
            if not orphans:
                return
            processes.send(orphans, signal.SIGKILL)

    def connection_lost(self, exc: Exception | None) -> None:
        """The launcher is gone and its output is read."""
        self._finish()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.exited.done() or self._transport is None:
            return
        self._lines.close()
        # Closed before the exit code is out: an open transport that is collected is a ResourceWarning.
        self._transport.close()
        shutil.rmtree(self._home, ignore_errors=True)  # the launcher did it, unless it was killed
        code = self._transport.get_returncode()
        self.exited.set_result(code if code is not None and code >= 0 else 128 - (code or 0))

    def _line(self, line: str) -> None:
        self.last_lines.append(line)
        self._on_line(line)
