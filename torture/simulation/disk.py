"""The disk of a simulated life: real files on a real file system, with a disk below that says no, or forgets."""

import errno
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torture.simulation.process import Process


class Disk:
    """
    What stands between one process and its files.

    *synced* says of each file that is appended to how much of it surely survives a power loss.
    """

    def __init__(self, process: "Process") -> None:
        self.synced: dict[str, int] = {}
        self._process = process
        self._paths: dict[int, str] = {}
        self._counts: dict[str, int] = {}
        self._is_full = False

    def asked(self, operation: str, act: Callable[[], Any]) -> Any:
        """Do *act*, unless the disk says no to it."""
        process, fault = self._process, self._process.plan.disk
        if process.is_dead:
            raise OSError(errno.EIO, "the process is dead")
        number = self._counts[operation] = self._counts.get(operation, 0) + 1
        hit = fault is not None and not self._is_full and (operation, number) == (fault.operation, fault.nth)
        if fault is None or not (hit or self._is_full):
            return act()
        if hit:
            self._is_full = fault.full
            process.world.count(f"disk {fault.errno} on {operation}{', done all the same' if fault.late else ''}")
        process.disk_failed = True
        process.world.say(f"the disk says {fault.errno} to {operation} {number}")
        if fault.late and hit:
            act()
        code = getattr(errno, fault.errno)
        raise OSError(code, os.strerror(code))

    # What the engine's modules see as `os`

    def open(self, path: Any, flags: int, *more: Any) -> int:
        file = os.open(path, flags, *more)
        self._paths[file] = str(path)
        return file

    def write(self, file: int, data: Any) -> int:
        path = self._paths.get(file, "")
        is_result = path.endswith("results.jsonl")
        self._process.at("line" if is_result else "chunk")
        if is_result:
            if self._process.is_due("torn line"):
                os.write(file, bytes(data)[: len(data) // 2])
            self._process.at("torn line")
        written = int(self.asked("write", lambda: os.write(file, data)))
        self._process.at("unsynced" if is_result else "chunk")
        return written

    def fdatasync(self, file: int) -> None:
        self.asked("sync", lambda: None)
        self.synced[self._paths.get(file, "")] = os.fstat(file).st_size
        self._process.at("synced")

    def fsync(self, file: int) -> None:
        self.asked("sync", lambda: None)
        self._process.at("folder")

    def rename(self, act: Callable[[], Path]) -> Path:
        """A whole file takes its name, by *act*."""
        self._process.at("rename")
        path: Path = self.asked("rename", act)
        self._process.at("renamed")
        return path

    def close(self, file: int) -> None:
        self._paths.pop(file, None)
        os.close(file)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    # What becomes of the files

    def image(self, root: Path, to: Path, power: random.Random | None) -> None:
        """
        Copy what a process leaves in *root* when it ends here and now.

        *power* is chance, if the machine ends with it: then what was not synced is there or not, or is zeros.
        """
        if root.exists():
            shutil.copytree(root, to, symlinks=True, ignore=shutil.ignore_patterns("*-shm"))
        else:
            to.mkdir()
        if power is None:
            return
        for path in sorted([*to.rglob("results.jsonl"), *to.rglob("streams/*.jsonl")]):
            size = path.stat().st_size
            synced = self.synced.get(str(root / path.relative_to(to)), size if path.name == "results.jsonl" else 0)
            if synced < size:
                self._process.world.count("unsynced bytes lost")
                _forget(path, min(synced, size), size, power)


def _forget(path: Path, synced: int, size: int, power: random.Random) -> None:
    """Let *path* be as it may be after a power loss: its bytes from *synced* on were not on the disk."""
    kept = power.randint(synced, size)
    with path.open("r+b") as file:
        match power.choice(["short", "short", "hole", "all"]):
            case "short":
                file.truncate(kept)
            case "hole":
                file.seek(synced)
                file.write(bytes(kept - synced))


class SimSqlite:
    """What `runner.database` sees as `sqlite3`."""

    def __init__(self, current: Callable[[], "Process | None"]) -> None:
        self._current = current

    def connect(self, database: str, **more: Any) -> sqlite3.Connection:
        process = self._current()
        is_ours = database.startswith("file:") and "mode=rw" in database and process is not None
        connection = sqlite3.connect(database, factory=_Connection, **more)
        connection.process = process if is_ours else None
        if is_ours:  # the disk below is memory: waiting for it proves nothing
            connection.is_quiet = True
        return connection

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)


class _Connection(sqlite3.Connection):
    """A connection whose disk may say no."""

    process: "Process | None" = None
    is_quiet = False

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        process = self.process
        word = sql.split(" ", 1)[0]
        if process is None or word not in ("COMMIT", "INSERT", "UPDATE"):
            return super().execute(sql, *values)
        if word == "COMMIT":
            process.at("committing")
        try:
            done = process.disk.asked("commit" if word == "COMMIT" else "insert", lambda: self._do(sql, values))
        except OSError as error:
            raise sqlite3.OperationalError(f"disk I/O error ({error.strerror})") from None
        if word == "COMMIT":
            process.at("committed")
        assert isinstance(done, sqlite3.Cursor)
        return done

    def _do(self, sql: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        return super().execute(sql, *values)
