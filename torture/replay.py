"""
What a disk may hold after the power went, by the record of what a process did to it.

Only what was synced is certain: a file's bytes by a sync of the file, its name by one of its folder. Of what came
after, any part may have arrived.
"""

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512


@dataclass(frozen=True)
class Op:
    """One line of the record, with its data."""

    kind: str
    path: str
    other: str
    offset: int
    data: bytes


def read(log: Path) -> list[Op]:
    """The record that `disk.c` wrote."""
    found = []
    with log.open("rb") as file:
        while head := file.readline():
            kind, path, other, offset, length = head.decode().rstrip("\n").split("\t")
            found.append(Op(kind, path, other, int(offset), file.read(int(length))))
            file.read(1)
    return found


@dataclass
class Inode:
    """A file's bytes: as they are, as they were when it was last synced, and what was done since."""

    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    since: list[Op] = field(default_factory=list)

    def sync(self) -> None:
        """Everything that was done is certain."""
        if self.since:
            self.synced = bytes(self.data)
            self.since = []

    def some(self, chance: random.Random) -> bytes:
        """What was synced, and of the rest what chance lets arrive, by sectors."""
        data = bytearray(self.synced)
        for op in self.since:
            if op.kind == "truncate":
                _resize(data, op.offset) if chance.random() < 0.5 else None
                continue
            for start in range(0, len(op.data), SECTOR):
                if chance.random() < 0.5:
                    _put(data, op.offset + start, op.data[start : start + SECTOR])
        return bytes(data)


Entry = Inode | str | None
"""What a name stands for: a file, a link to a text, or a folder (None)."""


@dataclass
class Renaming:
    """A change of names: those that went and those that came, which happen together or not at all."""

    gone: tuple[str, ...]
    come: dict[str, Entry]

    @property
    def folders(self) -> set[str]:
        """Whose sync makes it certain."""
        return {path.rpartition("/")[0] for path in (*self.gone, *self.come)}


class Disk:
    """A disk, as far as the record goes. *root* is the folder whose content is followed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, Entry] = {}
        self._certain: dict[str, Entry] = {}
        self._pending: list[Renaming] = []

    def do(self, op: Op) -> None:
        """Let *op* happen."""
        match op.kind:
            case "create":
                self._rename((), {op.path: Inode()})
            case "symlink":
                self._rename((), {op.path: op.other})
            case "mkdir":
                self._rename((), {op.path: None})
            case "unlink":
                self._rename((op.path,), {})
            case "rename":
                inside = [path for path in self._names if path == op.path or path.startswith(f"{op.path}/")]
                self._rename(tuple(inside), {op.other + path[len(op.path) :]: self._names[path] for path in inside})
            case "write" | "truncate":
                file = self._names.get(op.path)
                if isinstance(file, Inode):
                    _apply(file.data, op)
                    file.since.append(op)
            case "sync":
                self._sync(op.path)

    def _rename(self, gone: tuple[str, ...], come: dict[str, Entry]) -> None:
        change = Renaming(gone, come)
        _change(self._names, change)
        self._pending.append(change)

    def _sync(self, path: str) -> None:
        entry = self._names.get(path)
        if isinstance(entry, Inode):
            entry.sync()
            return
        for change in [one for one in self._pending if path in one.folders]:
            _change(self._certain, change)
            self._pending.remove(change)

    # What may be left of it

    def present(self) -> dict[str, bytes | str | None]:
        """Everything arrived: a kill that spared the machine."""
        return {path: bytes(one.data) if isinstance(one, Inode) else one for path, one in self._names.items()}

    def absent(self) -> dict[str, bytes | str | None]:
        """Nothing arrived but what was synced."""
        return {path: one.synced if isinstance(one, Inode) else one for path, one in self._reachable(self._certain)}

    def mixed(self, chance: random.Random) -> dict[str, bytes | str | None]:
        """Names as far as chance let them arrive, in their order, and bytes in none."""
        names = dict(self._certain)
        for change in self._pending[: chance.randint(0, len(self._pending))]:
            _change(names, change)
        found = self._reachable(names)
        return {path: one.some(chance) if isinstance(one, Inode) else one for path, one in found}

    def _reachable(self, names: dict[str, Entry]) -> Iterator[tuple[str, Entry]]:
        """The names whose folders are there, too."""
        for path, entry in sorted(names.items()):
            folder = path.rpartition("/")[0]
            while len(folder) > len(str(self._root)) and folder in names:
                folder = folder.rpartition("/")[0]
            if folder == str(self._root):
                yield path, entry


def _change(names: dict[str, Entry], change: Renaming) -> None:
    for path in change.gone:
        names.pop(path, None)
    names.update(change.come)


def _apply(data: bytearray, op: Op) -> None:
    if op.kind == "truncate":
        _resize(data, op.offset)
    else:
        _put(data, op.offset, op.data)


def _resize(data: bytearray, length: int) -> None:
    if len(data) > length:
        del data[length:]
    data.extend(bytes(length - len(data)))


def _put(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


def torn(op: Op) -> Op | None:
    """The first half of a write; None for what happens whole or not at all."""
    if op.kind != "write" or len(op.data) < 2:
        return None
    return Op(op.kind, op.path, op.other, op.offset, op.data[: len(op.data) // 2])


def lay_out(root: Path, names: dict[str, bytes | str | None], *, keep: frozenset[str]) -> None:
    """Let *root* hold *names* and nothing else, save what is called as in *keep*."""
    for path in root.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name, content in sorted(names.items()):
        path = Path(name)
        if name.endswith("-shm"):  # shared memory: whoever opens the file first makes it anew
            continue
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
