"""Rows that are the files of a folder: one row a file, in the order of their paths."""

import hashlib
import os
import re
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

from runner import values
from runner.errors import UsageError
from runner.inputs.base import Report, changed
from runner.inputs.find import Trouble
from runner.inputs.source import InputFile
from runner.values import JsonObject

EVERY = "*"
"""The glob where none is written: the files that are in no folder below. Whoever wants more says so, and pays."""


def folder_problem(base: Path, name: str, glob: str) -> Trouble | None:
    """What is wrong with `rows.folder` and `rows.glob`, seen from the job file's folder *base*."""
    path = base / name
    if Path(name).is_absolute() or not _is_below(path, base):
        return f"'{name}' is outside the job file's folder: only files below it can be sent", None
    if not path.is_dir():
        there = f"'{name}' is no folder" if path.exists() else f"there is no folder '{name}'"
        return there, "paths start at the job file's folder"
    if glob.startswith("/") or ".." in glob.split("/"):
        return f"the glob '{glob}' leads out of the folder", "write it as seen from the folder, such as **/*.png"
    try:
        found = listed(base, name, glob)
    except OSError as error:
        return f"'{error.filename}' can't be read: {error.strerror}", None
    if not found:
        return f"no file in '{name}' matches '{glob}'", "write glob: '**/*' for the files in folders below it, too"
    shown = PurePosixPath(name)
    return next((bad for one in found if (bad := _file_problem(f"{path}/{one}", f"{shown / one}", base))), None)


def _file_problem(path: str, name: str, base: Path) -> Trouble | None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"the name of the file {name!a} is no UTF-8", "rename it"
    if os.path.islink(path):  # noqa: PTH114  # there may be 100,000 of them, and a Path takes longer than to look
        if not os.path.exists(path):  # noqa: PTH110
            return f"'{name}' is a link that leads nowhere", "remove it"
        if not _is_below(Path(path), base):
            message = f"'{name}' is a link out of the job file's folder: only what is below it can be sent"
            return message, "copy it there"
    if not os.path.isfile(path):  # noqa: PTH113
        return f"'{name}' is no regular file", "move it elsewhere, or write a glob that leaves it out"
    return None if os.access(path, os.R_OK) else (f"'{name}' can't be read", None)


def _is_below(path: Path, base: Path) -> bool:
    try:
        return path.resolve().is_relative_to(base.resolve())
    except (OSError, RuntimeError, ValueError):  # a circle of links, until Python 3.13; a NUL
        return False


def listed(base: Path, name: str, glob: str) -> list[str]:
    """
    The files below the folder *name* of *base* that *glob* matches, as paths from it, in the order of these by code
    points.

    What starts with a dot is left out, and a link to a folder that holds it is not followed. One to a folder outside of
    *base* stands for itself. The list is in memory: 100 bytes or so a file.
    """
    patterns = [tuple(alternative.split("/")) for alternative in _alternatives(glob)]
    is_deep = any("**" in pattern for pattern in patterns)
    deepest = max(map(len, patterns))
    root = base.resolve()
    found: list[str] = []
    waiting: list[tuple[str, tuple[str, ...], tuple[Path, ...]]] = [("", (), ((base / name).resolve(),))]
    while waiting:
        prefix, names, above = waiting.pop()
        with os.scandir(base / name / prefix) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                parts = (*names, entry.name)
                if not entry.is_dir():
                    if any(_matches(parts, pattern) for pattern in patterns):
                        found.append(prefix + entry.name)
                elif is_deep or len(parts) < deepest:
                    real = Path(entry.path).resolve() if entry.is_symlink() else above[-1] / entry.name
                    if not real.is_relative_to(root):
                        found.append(prefix + entry.name)
                    elif not any(one.is_relative_to(real) for one in above):
                        waiting.append((f"{prefix}{entry.name}/", parts, (*above, real)))
    return sorted(found)


@lru_cache
def _alternatives(glob: str) -> tuple[str, ...]:
    """*glob* with each choice of what stands in braces."""
    braces = re.search(r"\{([^{}]*)\}", glob)
    if braces is None:
        return (glob,)
    ways = (glob[: braces.start()] + one + glob[braces.end() :] for one in braces[1].split(","))
    return tuple(found for way in ways for found in _alternatives(way))


def _matches(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether the path of *names* is one of *pattern*; ``**`` stands for any number of folders."""
    if not pattern or not names:
        return not pattern and not names
    if pattern[0] == "**":
        rest = pattern[1:] or ("*",)
        return any(_matches(names[skipped:], rest) for skipped in range(len(names)))
    return fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


class FolderFiles:
    """
    A row for each file of a folder.

    The first reading digests them and keeps the rows in a temporary file; later ones take them from there, and raise
    UsageError where a file has another size or time of change. To the manifest all of them are one file, which is named
    like the glob; its digest is that of the lines ``sha256sum`` would print of the files.
    """

    def __init__(self, base: Path, name: str, glob: str) -> None:
        self._base = base
        self._name = PurePosixPath(name)
        self._glob = glob
        self._kept: _Kept | None = None
        self._file: InputFile | None = None

    def copy(self, row: JsonObject, /) -> JsonObject:
        """A row that shares nothing with *row*: there is nothing in one that could be shared."""
        return dict(row)

    @property
    def files(self) -> Sequence[InputFile]:
        """All of them as one, once they were read to the end."""
        return [self._file] if self._file is not None else []

    def rows(self, report: Report) -> Iterator[JsonObject]:
        """Every row. Raises UsageError for a file that changed, or can't be read."""
        if self._kept is not None:
            return self._again(self._kept)
        return self._first()

    def recall(self, known: Mapping[Path, InputFile]) -> bool:
        """Whether the files are as they are *known*. All of them are digested to know."""
        before = known.get(self.path.absolute())
        return before is not None and self.digest() == before.sha256

    def digest(self) -> str | None:
        """The digest of all of them as they are now; None when they can't be read."""
        try:
            for _ in self._first():
                pass
        except (OSError, UsageError):
            return None
        return None if self._file is None else self._file.sha256

    def verify(self) -> None:
        """Raise UsageError when a file's size or time of change is not what it was."""
        if self._kept is not None:
            for _ in self._again(self._kept):
                pass

    @property
    def path(self) -> Path:
        """What stands for all of them in a manifest."""
        return self._base / self._name / self._glob

    def _first(self) -> Iterator[JsonObject]:
        kept, whole, size_bytes, count = _Kept(), hashlib.sha256(), 0, 0
        for relative in listed(self._base, str(self._name), self._glob):
            row, stamp = self._row(relative)
            whole.update(f"{row['sha256']}  {relative}\n".encode())
            size_bytes += row["size_bytes"]
            count += 1
            kept.add(row, stamp)
            yield row
        self._kept = kept
        self._file = InputFile(self.path, whole.hexdigest(), size_bytes, count)

    def _row(self, relative: str) -> tuple[JsonObject, int]:
        """The row of one file, and its time of change."""
        name = self._name / relative
        path = self._base / name
        try:
            before = path.stat()
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            after = path.stat()
        except OSError as error:
            raise UsageError(f"'{path}' can't be read: {error.strerror or error}") from None
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise changed(path)
        row: JsonObject = {"path": str(name), "name": name.name, "stem": name.stem, "suffix": name.suffix}
        return row | {"size_bytes": after.st_size, "sha256": sha256}, after.st_mtime_ns

    def _again(self, kept: "_Kept") -> Iterator[JsonObject]:
        for row, stamp in kept.all():
            path = self._base / row["path"]
            try:
                status = path.stat()
            except OSError:
                raise changed(path) from None
            if (status.st_size, status.st_mtime_ns) != (row["size_bytes"], stamp):
                raise changed(path)
            yield row


class _Kept:
    """Rows with their stamps, in a temporary file that goes when this does."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="runner-")  # noqa: SIM115  # closed by the finalizer
        weakref.finalize(self, self._file.close)

    def add(self, row: JsonObject, stamp: int) -> None:
        """Keep one more."""
        self._file.write(values.dump([row, stamp]) + b"\n")

    def all(self) -> Iterator[tuple[JsonObject, int]]:
        """Every one, in order; several may be read at once."""
        at = 0
        while True:
            self._file.seek(at)
            line = self._file.readline()
            if not line:
                return
            at += len(line)
            row, stamp = values.parse(line)
            yield row, stamp
