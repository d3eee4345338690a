"""Find processes that are ours to end. Linux only; elsewhere there is nothing to read, and nothing is found."""

import os
import signal
from collections.abc import Iterable

MARK = "RUNNER_LOCAL_MARK"
"""Environment variable that every process of a worker inherits, and that names the worker among all of the machine."""


def descendants(root: int) -> list[int]:
    """The process ids of the living children of *root*, their children, and so on; zombies are left out."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        parent = _parent(pid)
        if parent is not None:
            children.setdefault(parent, []).append(pid)
    found = list(children.get(root, ()))
    for pid in found:  # grows while it is walked
        found += children.get(pid, ())
    return found


def marked(mark: str) -> list[int]:
    """The process ids of our user whose environment, as it was when they started, holds this mark."""
    wanted = f"{MARK}={mark}".encode()
    return [pid for pid in _pids() if wanted in _read(pid, "environ").split(b"\0")]


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to those that still live and may be signalled."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue  # gone meanwhile, or it became another user's; neither is ours to end


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - no pathlib: 10 ms
    except FileNotFoundError:
        return []


def _parent(pid: int) -> int | None:
    # The name, in parentheses, may hold spaces and parentheses itself: what counts comes after the last one.
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 and fields[0] != b"Z" else None


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123 - the same
            return file.read()
    except OSError:
        return b""  # gone meanwhile, or not ours to look at
