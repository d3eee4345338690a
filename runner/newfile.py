"""Write a new file that is there whole or not at all, without holding up the event loop."""

import asyncio
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from runner.offloop import OffLoop

BATCH_BYTES: Final = 1024 * 1024
"""It is written in pieces of this size: each costs a thread's turn."""


class NewFile:
    """
    A file in the making. It is gone when the ``async with`` block ends, unless it was finished.

    Every method raises OSError: the disk says no, or the file was there before (FileExistsError), and then it stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._off_loop = OffLoop()
        self._file: BinaryIO | None = None
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._is_finished = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_finished:
            return
        try:
            await self._off_loop.last(self._remove)
        except OSError:
            if not isinstance(error, asyncio.CancelledError):  # that must go on, whatever the disk says
                raise

    async def restart(self) -> None:
        """Make the file, or empty it."""
        self._pieces, self._held_bytes = [], 0
        await self._off_loop.do(self._emptied)

    async def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes >= BATCH_BYTES:
            pieces, self._pieces, self._held_bytes = self._pieces, [], 0
            await self._off_loop.do(self._write, pieces)

    async def finish(self) -> None:
        """Write what is left, and keep the file."""
        await self._off_loop.do(self._closed, self._pieces)
        self._is_finished = True

    def _emptied(self) -> None:
        if self._file is None:
            self._file = self._path.open("xb")
        else:
            self._file.seek(0)
            self._file.truncate()

    def _write(self, pieces: list[bytes]) -> None:
        assert self._file is not None, "it was made"
        self._file.writelines(pieces)

    def _closed(self, pieces: list[bytes]) -> None:
        assert self._file is not None, "it was made"
        self._file.writelines(pieces)
        self._file.close()

    def _remove(self) -> None:
        if self._file is not None:  # else what is there, if anything, is not ours
            with suppress(OSError):  # it writes what is left, and that is not wanted any more
                self._file.close()
            self._path.unlink(missing_ok=True)
