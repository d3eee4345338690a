"""Handlers of every temper, for the tests of the local endpoint."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

Job = dict[str, Any]


def echo(job: Job) -> Any:
    """Returns its input."""
    return job["input"]


def whole_job(job: Job) -> Any:
    """Returns all that it was given."""
    return job


def batched(job: Job) -> Any:
    """Returns its input and the batch that it is of; or fails, as its input says."""
    if job["input"] == "fail":
        raise ValueError("no good")
    return {"input": job["input"], "batch": job["batchId"]}


def gate(job: Job) -> Any:
    """Returns when the file that its input names exists."""
    while not Path(job["input"]).exists():
        time.sleep(0.005)
    return "opened"


def environment(job: Job) -> Any:
    """Returns its environment and arguments."""
    return {"environ": dict(os.environ), "argv": sys.argv, "path": sys.path, "cwd": str(Path.cwd())}


def prints(job: Job) -> Any:
    """Prints what it is told to."""
    print(job["input"])
    print("to stderr", file=sys.stderr)
    os.write(1, b"raw\n")
    return True


def floods(job: Job) -> Any:
    """Prints 40 MB, in one long line and many short ones."""
    print("x" * 1_000_000)
    for _ in range(40):
        print("y" * 99 + "\n", end="")
        os.write(1, b"z" * 999_999 + b"\n")
    return "done"


def odd(job: Job) -> Any:
    """Returns what JSON can't say, or barely."""
    values: dict[str, Any] = {
        "object": object(),
        "set": {1},
        "nan": [float("nan")],
        "infinity": float("inf"),
        "surrogate": "\ud800",
        "big": 2**70,
        "tuple key": {(1, 2): 3},
        "huge": "x" * (21 * 1024 * 1024),
        "none": None,
        "list": [],
        "false": False,
        "empty": {},
        "bytes": b"x",
    }
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    values["deep"] = deep
    return values[job["input"]]


class Unprintable(Exception):
    """Can't even say what is wrong."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def raises(job: Job) -> Any:
    """Raises in the way that its input says."""
    errors: dict[str, BaseException] = {
        "plain": ValueError("no good: é"),
        "unprintable": Unprintable(),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "cancelled": asyncio.CancelledError(),
    }
    raise errors[job["input"]]


async def asynchronous(job: Job) -> Any:
    """Returns its input after a turn of the loop."""
    await asyncio.sleep(0)
    return {"async": job["input"]}


async def async_raises(job: Job) -> Any:
    """Raises inside a coroutine."""
    raise ValueError("async no good")


def stream(job: Job) -> Iterator[Any]:
    """Yields the items of its input; 'raise' raises, and a file name is waited for."""
    for item in job["input"]:
        if item == "raise":
            raise ValueError("broke off")
        if isinstance(item, str) and item.startswith("/"):
            while not Path(item).exists():
                time.sleep(0.005)
            continue
        yield item


async def async_stream(job: Job) -> AsyncIterator[Any]:
    """Yields the items of its input."""
    for item in job["input"]:
        await asyncio.sleep(0)
        yield item


def dies(job: Job) -> Any:
    """Ends its process in the way that its input says; anything else is returned."""
    how = job["input"]
    if how == "exit":
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "launcher":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return how


def stubborn(job: Job) -> Any:
    """Ignores every signal that it can, says its process id, and hangs without giving the GIL back for long."""
    if job["input"] == "ok":
        return "ok"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Path(job["input"]).write_text(str(os.getpid()))
    while True:
        with contextlib.suppress(BaseException):
            sum(range(10_000_000))


def forks(job: Job) -> Any:
    """Forks, and lets parent and child return; or the child raise."""
    pid = os.fork()
    if pid == 0 and job["input"] == "raise":
        raise ValueError("in the child")
    return {"child": pid}


def leaves_family(job: Job) -> Any:
    """Starts a child, and a daemon in its own session that ignores SIGTERM; returns their process ids."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    code = (
        "import os, signal, sys, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.write(1, str(os.getpid()).encode())\n"
        "os.close(1)\n"
        "time.sleep(600)\n"
    )
    daemon = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    pids = [child.pid, int(daemon.stdout)]
    if isinstance(job["input"], str) and job["input"].startswith("/"):
        Path(job["input"]).write_text(" ".join(map(str, [os.getpid(), os.getppid(), *pids])))
        time.sleep(600)
    if job["input"] == "exit":
        Path(os.environ["FAMILY_FILE"]).write_text(" ".join(map(str, pids)))
        os._exit(0)
    return pids


def refreshes(job: Job) -> Any:
    """Asks for a fresh worker after the job."""
    return {"pid": os.getpid(), "refresh_worker": True}
