"""Keep the bytes of an answer while it comes: few in memory, many in an unnamed temporary file."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import IO, Final, Self, TypeVar

from runner.offloop import OffLoop

T = TypeVar("T")

MEMORY_BYTES: Final = 8 * 1024 * 1024
"""What an answer may hold of the memory before it goes to a file."""

BATCH_BYTES: Final = 1024 * 1024
"""From then on it is written in pieces of this size: each costs a thread's turn."""


class Unkept(Exception):
    """Raised when the temporary folder does not take an answer, or give it back: it "can't be kept", where and why."""


class Spool:
    """
    The bytes of one answer.

    The file is gone when the ``async with`` block ends, however it ends; after a SIGKILL, too, for it has no name.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        self.is_in_file = False
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._off_loop: OffLoop | None = None  # made with the file: most answers never need one
        self._file: IO[bytes] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let the file go; where all is in memory there is none, and nothing to wait for."""
        if self.is_in_file:
            await self._file_turns.last(self._close)

    def add(self, piece: bytes) -> None:
        """Take *piece*, for now into memory; `flush` when `is_due`."""
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        self.size_bytes += len(piece)

    @property
    def is_due(self) -> bool:
        """Whether memory holds so much that `flush` has to take it."""
        return self._held_bytes > (BATCH_BYTES if self.is_in_file else MEMORY_BYTES)

    async def flush(self) -> None:
        """
        Write what memory holds to the file, in a thread.

        Raises:
            Unkept: it can't be written, or there is no file to be had.
        """
        pieces, self._pieces, self._held_bytes, self.is_in_file = self._pieces, [], 0, True
        await self._file_turns.do(_kept, self._write, pieces)

    def whole(self) -> bytes:
        """
        All of it. This reads the file: call it in a thread when `is_in_file`.

        Raises:
            Unkept: the file can't be read.
        """
        if not self.is_in_file:
            return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        found: bytes = self._file_turns.here(_kept, self._read, -1)
        return found

    async def head(self, most_bytes: int) -> bytes:
        """
        Its first *most_bytes*, or all of it.

        Raises:
            Unkept: the file can't be read.
        """
        if not self.is_in_file:
            return self.whole()[:most_bytes]
        found: bytes = await self._file_turns.do(_kept, self._read, most_bytes)
        return found

    @property
    def _file_turns(self) -> OffLoop:
        if self._off_loop is None:
            self._off_loop = OffLoop()
        return self._off_loop

    def _write(self, pieces: list[bytes]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the block
        self._file.writelines(pieces)
        self._file.flush()

    def _read(self, most_bytes: int) -> bytes:
        assert self._file is not None, "what is in the file has been written"
        self._file.seek(0)
        return self._file.read(most_bytes)

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # what could not be written is tried again here, and nobody wants it any more
                self._file.close()


def _kept(function: Callable[..., T], *args: object) -> T:
    """``function(*args)``, what the disk says against it in our words."""
    try:
        return function(*args)
    except OSError as error:
        reason = error.strerror or str(error)
        # There is none as long as no usable one was found; then the reason says where it was looked for.
        where = f" in {tempfile.tempdir}" if tempfile.tempdir else ""
        raise Unkept(
            f"can't be kept{where}: {reason[:1].lower()}{reason[1:]} (make room there, or set TMPDIR to another folder)"
        ) from error
