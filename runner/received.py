"""Keep what jobs sent, as it came: the chunks of streams, and answers that nobody can read."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from runner.durable import sync_folder, write_whole
from runner.errors import RecordError
from runner.values import JsonValue, dump, parse


class Received:
    """The two folders of a batch for it, made when they are first needed: *folder* is the batch's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stream(self, key: str, attempt: int) -> "StreamFile":
        """The file for the chunks of an attempt at the run *key*."""
        return StreamFile(self._folder / "streams" / f"{key}.{attempt}.jsonl")

    async def keep_unreadable(self, key: str, attempt: int, body: bytes) -> str:
        """
        Keep the answer *body*; its path in the batch folder.

        Raises:
            RecordError: it can't be written.
        """
        path = self._folder / "unreadable" / f"{key}.{attempt}.bin"

        def write() -> None:
            with suppress(FileExistsError):
                path.parent.mkdir()
            write_whole(path, body)

        await asyncio.to_thread(write)
        return str(path.relative_to(self._folder))


class StreamFile:
    """
    The chunks of one attempt, a line of JSON each, appended as they arrive.

    Every method raises RecordError when the file can't be read or written. What `append` returned from survives the
    end of this process; what `close` returned from also survives power loss.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    async def read(self) -> list[JsonValue]:
        """
        The chunks that an earlier process left. Lines that its end, or a power loss, damaged are taken out of the file.
        """
        return await asyncio.to_thread(self._read)

    def _read(self) -> list[JsonValue]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._trouble(error) from None
        chunks, lines = [], []
        for line in data.splitlines(keepends=True):
            with suppress(ValueError):  # zeros, where its bytes never reached the disk; or its end is missing
                chunks.append(parse(line if line.endswith(b"\n") else b""))
                lines.append(line)
        if sum(map(len, lines)) < len(data):
            write_whole(self._path, b"".join(lines))
        return chunks

    async def append(self, chunks: list[JsonValue]) -> int:
        """Write *chunks*; how many bytes they took."""
        return await asyncio.to_thread(self._append, chunks)

    def _append(self, chunks: list[JsonValue]) -> int:
        text = b"".join(dump(chunk) + b"\n" for chunk in chunks)
        try:
            if self._file is None:
                with suppress(FileExistsError):
                    self._path.parent.mkdir()
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            view = memoryview(text)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise self._trouble(error) from None
        return len(text)

    async def close(self) -> None:
        """Make the file durable, if there is one, and close it."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._file is None:
            return
        try:
            os.fdatasync(self._file)
            sync_folder(self._path.parent)
            sync_folder(self._path.parent.parent)
        except OSError as error:
            raise self._trouble(error) from None
        finally:
            self.leave()

    def leave(self) -> None:
        """Close the file as it is, for who may not wait."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _trouble(self, error: OSError) -> RecordError:
        return RecordError(
            f"{self._path} can't be written: {error.strerror or error}",
            fix="see that the disk has room and the folder can be written, then go on with --resume",
        )
