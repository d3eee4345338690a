"""Build the library that stands between a process and its disk (`disk.c`), and say what it is to do."""

import atexit
import errno
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("disk.c")


class NoCompiler(Exception):
    """Raised when there is no C compiler."""


@cache
def library() -> Path:
    """
    The library, built once for this process.

    Raises:
        NoCompiler: it can't be built.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoCompiler("no cc, gcc or clang is there")
    folder = Path(tempfile.mkdtemp(prefix="torture-shim-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    built = folder / "disk.so"
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        [compiler, *flags, "-o", str(built), str(SOURCE), "-ldl", "-lpthread"], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise NoCompiler(f"{compiler} can't build {SOURCE.name}: {done.stderr[-500:]}")
    return built


@dataclass(frozen=True)
class Fault:
    """
    The *nth* call of kind *operation* (write, sync, rename, create, truncate, unlink, mkdir, any) on a path that has
    *needle* in it, or matches it where it has a "*", fails with *code*, and *many* in all; 0 means that the disk never
    comes back.
    """

    operation: str
    needle: str
    code: int
    nth: int = 1
    many: int = 0

    def __str__(self) -> str:
        times = "" if self.many == 0 else f", {self.many} times"
        return f"{errno.errorcode[self.code]} on {self.operation} of {self.needle} (from call {self.nth}{times})"


def variables(
    below: Path,
    *,
    log: Path | None = None,
    fault: Fault | None = None,
    struck: Path | None = None,
    slow: tuple[str, int] | None = None,
    kill: tuple[int, str] | None = None,
) -> dict[str, str]:
    """
    The environment in which a process meets the library.

    Args:
        below: What happens to files below this folder is seen.
        log: Where it is written down.
        fault: What goes wrong.
        struck: Where each call that went wrong is written down, for `strikes`.
        slow: A needle as `Fault` has it, and how many milliseconds longer a sync of such a path takes.
        kill: The number of the call at which the process is killed, and ``before``, ``after`` or ``torn``.
    """
    found = {"LD_PRELOAD": str(library()), "DISK_BELOW": str(below)}
    if log is not None:
        found["DISK_LOG"] = str(log)
    if fault is not None:
        found["DISK_FAULT"] = f"{fault.operation}:{fault.needle}:{fault.nth}:{fault.code}:{fault.many}"
    if struck is not None:
        found["DISK_STRUCK"] = str(struck)
    if slow is not None:
        found["DISK_SLOW"] = f"{slow[0]}:{slow[1]}"
    if kill is not None:
        found["DISK_KILL"] = f"{kill[0]}:{kill[1]}"
    return found


@dataclass(frozen=True)
class Strike:
    """A call that failed: when, in seconds since the epoch, which, and on what."""

    at: float
    operation: str
    path: str


def strikes(struck: Path) -> list[Strike]:
    """The calls that failed, in their order."""
    if not struck.exists():
        return []
    found = [line.split("\t") for line in struck.read_text().splitlines()]
    return [Strike(float(at), operation, path) for at, operation, path in found]
