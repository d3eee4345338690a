"""
Processes of the command, forked from one that has imported it: a tenth of the time of a new interpreter.

What comes is a process like any other, and our own child: its own id, session, folder, environment, descriptors,
signals, exit code. To be our child it is forked by one that then exits, while we take in orphans (`prctl(2)`,
PR_SET_CHILD_SUBREAPER). It differs from a new process in three things. Its command line and environment in /proc are
the zygote's: `named` knows the right ones. What an interpreter reads while it starts, it doesn't: where that could make
a difference, nothing is forked. And modules that only some commands import are there for all: tests of that start new
interpreters.
"""

import atexit
import ctypes
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from zygote import LENGTH_BYTES

IO = int | TextIO
MODULES = ("runner", "torture.killed", "torture.killed_remotely")
_PR_SET_CHILD_SUBREAPER = 36
_LIMIT_S = 60.0
# Whose value may differ from the zygote's: nothing but our own code reads them, and while it runs.
_OURS = (
    "RUNNER_",
    "RUNPOD_",
    "CANARY_",
    "PYTEST_",
    "STAGE_MARK",
    "TORTURE_",
    "AWS_",
    "SERVED_TOKEN",
    "REMOTE_KEY",
    "RUN_MARK",
    "MARK",
    "MINE",
    "KEY",
    "URL",
)

_named: dict[int, tuple["Forked", bytes]] = {}


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without anything of RunPod's, output buffered as users have it, and *extra*."""
    unwanted = re.compile("RUNPOD|RUNNER|PYTHONUNBUFFERED|_RJEM_")  # the last is what polars leaves behind
    kept = {name: value for name, value in os.environ.items() if not unwanted.search(name)}
    return kept | {"PYTHONWARNINGS": "error", "COLUMNS": "100"} | dict(extra or {})


def popen(
    args: Sequence[str], *, cwd: Path | str, env: Mapping[str, str], stdin: IO, stdout: IO, stderr: IO
) -> "subprocess.Popen[str]":
    """
    What `subprocess.Popen` makes of *args*, in a session of its own: forked, if it is one of `MODULES` and makes no
    difference.
    """
    if args[:2] == [sys.executable, "-m"] and args[2] in MODULES and _can_fork(env):
        return Forked(args, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr)
    return subprocess.Popen(
        args, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, text=True, start_new_session=True
    )


class Forked(subprocess.Popen[str]):
    """``python -m MODULE WORDS``, as `subprocess.Popen` would start it in a session of its own."""

    def __init__(
        self, args: Sequence[str], *, cwd: Path | str, env: Mapping[str, str], stdin: IO, stdout: IO, stderr: IO
    ) -> None:
        self._asked = {"module": args[2], "words": args[3:], "cwd": str(Path(cwd).absolute()), "env": dict(env)}
        super().__init__(args, stdin=stdin, stdout=stdout, stderr=stderr, text=True)
        named()  # forgets those that ended
        names = [*args, *(f"{name}={value}" for name, value in env.items())]
        _named[self.pid] = self, "\0".join(names).encode(errors="surrogateescape")

    def _execute_child(self, *given: Any) -> None:
        """What Popen calls to have the process; its pipes are arguments 11 to 16, -1 where we share ours."""
        pipes = given[10:16]
        ends = [end if end >= 0 else ours for ours, end in enumerate((pipes[0], pipes[3], pipes[5]))]
        try:
            self.pid = _zygote().fork(self._asked, ends)
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _can_fork(env: Mapping[str, str]) -> bool:
    """Whether what this environment differs in is not read while Python starts."""
    return sys.platform == "linux" and all(name.startswith(_OURS) for name, _ in env.items() ^ _zygote().env.items())


def named() -> dict[int, bytes]:
    """The words and variables of the forked processes that have not ended."""
    for pid, (process, _) in list(_named.items()):
        if process.poll() is not None:
            del _named[pid]
    return {pid: text for pid, (_, text) in _named.items()}


@cache
def _zygote() -> "_Zygote":
    return _Zygote(environment())


class _Zygote:
    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self._lock = threading.Lock()
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(_LIMIT_S)
        program = Path(__file__).with_name("zygote.py")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(program), str(theirs.fileno())],
                env=env,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        atexit.register(self._end)

    def fork(self, asked: Mapping[str, Any], descriptors: Sequence[int]) -> int:
        pid, body = 0, json.dumps(asked).encode()
        with self._lock:
            socket.send_fds(self._ours, [len(body).to_bytes(LENGTH_BYTES, "big")], list(descriptors))
            self._ours.sendall(body)
            with suppress(ConnectionError):
                pid = int.from_bytes(self._ours.recv(LENGTH_BYTES), "big")
            if not pid:
                raise AssertionError(f"the process that forks ended:\n{self._process.communicate()[1].decode()}")
            _take_orphans(True)
            try:
                self._ours.sendall(b".")
                assert self._ours.recv(1) == b"."
            finally:
                _take_orphans(False)
        return pid

    def _end(self) -> None:
        self._ours.close()
        self._process.communicate()


def _take_orphans(yes: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
