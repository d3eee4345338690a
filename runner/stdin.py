"""Keep what stdin gives as a file, so that rows can be read twice, and again after a restart."""

import asyncio
import os
import sys
import threading
from pathlib import Path

from runner.errors import RecordError, UsageError

PIECE_BYTES = 1024 * 1024


async def keep_stdin(path: Path) -> None:
    """
    Copy all that stdin gives to *path*, which must not exist.

    Raises:
        UsageError: stdin is a terminal, is closed, or can't be read.
        RecordError: *path* can't be written.
    """
    fix = "pipe rows of JSON into it, as in: runner run FILE < rows.jsonl"
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise UsageError("rows come from stdin, and nothing is piped into it", fix=fix)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Exception | None] = loop.create_future()
    source = os.dup(sys.stdin.fileno())

    def tell(failure: Exception | None) -> None:
        if not done.done():
            done.set_result(failure)

    def copy() -> None:
        failure = _copied(source, path, fix)
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, failure)

    # Not one of asyncio's threads: a Ctrl-C would wait for whoever is to write into the pipe.
    threading.Thread(target=copy, name="stdin", daemon=True).start()
    failure = await done
    if failure is not None:
        raise failure


def _copied(source: int, path: Path, fix: str) -> Exception | None:
    """Copy; why it failed."""
    try:
        with path.open("xb") as file:
            while True:
                try:
                    piece = os.read(source, PIECE_BYTES)
                except OSError as error:
                    return UsageError(f"stdin can't be read: {error.strerror}", fix=fix)
                if not piece:
                    break
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return RecordError(
            f"{path} can't be written: {error.strerror or error}",
            fix="see that the disk has room and the folder can be written",
        )
    finally:
        os.close(source)
    return None
