"""Write whole files, and make names durable: a file's own sync keeps its bytes, not its place in the folder."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from runner.errors import RecordError


def write_whole(path: Path, data: bytes) -> None:
    """
    Write *data* to *path* so that a reader sees the old file or the new one, also after power loss.

    Raises:
        RecordError: it can't be written; the old file is untouched.
    """
    try:
        with replacing(path, path.with_name(f".{path.name}.tmp")) as file:
            file.write(data)
    except OSError as error:
        raise RecordError(
            f"{path} can't be written: {error.strerror or error}",
            fix="see that the disk has room and the folder can be written, then go on with --resume",
        ) from None


@contextmanager
def replacing(path: Path, aside: Path) -> Iterator[BinaryIO]:
    """
    A file that gets the name *path* when the block ends well, and is gone when it does not. Until then it is *aside*.

    Raises:
        OSError: it can't be written; what had the name is untouched.
    """
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """A name beside *path* that nobody else writes to, for `replacing` where others may write the same file."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def sync_folder(path: Path) -> None:
    """Make the names in *path* durable."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
