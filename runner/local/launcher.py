"""
Start one worker in a session of its own, and see to it that nothing of it outlives us or the server.

    python -P -m runner.local.launcher GRACE_S HOME COMMAND [ARGUMENT...]

Standard input is a pipe that the server holds open: when it closes, even because the server was killed, the worker is
ended, with every process that it started, wherever those moved to: SIGTERM, at most GRACE_S seconds, SIGKILL. The same
happens to what is left when the worker exits by itself, and on SIGTERM to us. Then HOME, a temporary folder, is
removed. The exit code is the worker's, 128 + n if signal n ended it.

On Linux we are the subreaper of all that the worker starts, so that double-forked daemons become our children; and
the kernel kills the worker if we are killed. This is a program of its own, with the standard library's lightest
modules only, so that it is there in a few milliseconds.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from typing import NoReturn

from runner.local import processes

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_LIMIT_S = 3.0
_STDIN = 0


def main(argv: list[str]) -> int:
    """Run the command until it exits or we must end it; returns our exit code."""
    grace_s, home, command = float(argv[0]), argv[1], argv[2:]
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake = _wake_pipe()
    worker = _start(command)
    family = _Family(worker, wake)
    family.watch()
    family.end(grace_s)
    _remove(home)
    return family.exit_code


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _wake_pipe() -> int:
    """A descriptor that becomes readable whenever a child exits or somebody asks us to end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: _asked.add(number))
    return reading


_asked: set[int] = set()
"""The signals that came."""


def _start(command: list[str]) -> int:
    """Start the command in its own session, without our standard input; its process id."""
    launcher = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become(command, launcher)
        except BaseException as error:  # noqa: BLE001 - nothing may get past here, or there were two launchers
            os.write(2, f"can't start {command[0]!r}: {error}\n".encode(errors="replace"))
        os._exit(127)
    return pid


def _become(command: list[str], launcher: int) -> NoReturn:
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(1)  # the launcher died before we asked the kernel to watch it
    os.dup2(os.open(os.devnull, os.O_RDONLY), _STDIN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and ignored signals survive exec
    os.execvp(command[0], command)


class _Family:
    """The worker and everything that it started."""

    def __init__(self, worker: int, wake: int) -> None:
        self.exit_code = 128 + signal.SIGKILL
        self._worker = worker
        self._worker_lives = True
        self._wake = wake

    def watch(self) -> None:
        """Return when the worker exited, the server closed our input, or a signal asks us to end."""
        poll = select.poll()
        poll.register(_STDIN, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while self._reap() and self._worker_lives and not _asked - {signal.SIGCHLD}:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._wake in ready:
                self._drain_wake()
            if _STDIN in ready and not os.read(_STDIN, 4096):
                return

    def end(self, grace_s: float) -> None:
        """End all that is left: ask, wait a little, kill until nothing is left."""
        self._signal(signal.SIGTERM)
        self._wait(grace_s)
        deadline = time.monotonic() + _KILL_LIMIT_S
        while self._reap() and time.monotonic() < deadline:
            self._signal(signal.SIGKILL)  # again and again: it may be starting new ones
            self._wait(0.02)

    def _wait(self, limit_s: float) -> None:
        """Until no child is left, at most so long."""
        deadline = time.monotonic() + limit_s
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        while self._reap() and (left_s := deadline - time.monotonic()) > 0:
            poll.poll(left_s * 1000)
            self._drain_wake()

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)

    def _reap(self) -> bool:
        """Bury the dead; False if no child is left. Orphans of the worker are our children too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._worker:
                self._worker_lives = False
                code = os.waitstatus_to_exitcode(status)
                self.exit_code = code if code >= 0 else 128 - code

    def _signal(self, number: signal.Signals) -> None:
        if not self._reap():
            return
        if self._worker_lives:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._worker, number)  # all we can do where there is no /proc
        processes.send(processes.descendants(os.getpid()), number)


def _remove(home: str) -> None:
    import shutil  # costs more to import than all the rest, and nobody waits for us any more

    shutil.rmtree(home, ignore_errors=True)  # what can't be removed is the system's to clean up, like all of /tmp


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
