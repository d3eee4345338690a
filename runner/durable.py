"""Write whole files, and make names durable: a file's own sync keeps its bytes, not its place in the folder."""

import os
from contextlib import suppress
from pathlib import Path

from runner.errors import RecordError


def write_whole(path: Path, data: bytes) -> None:
    """
    Write *data* to *path* so that a reader sees the old file or the new one, also after power loss.

    Raises:
        RecordError: it can't be written; the old file is untouched.
    """
    aside = path.with_name(f".{path.name}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise RecordError(
            f"{path} can't be written: {error.strerror or error}",
            fix="see that the disk has room and the folder can be written, then go on with --resume",
        ) from None


def sync_folder(path: Path) -> None:
    """Make the names in *path* durable."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
