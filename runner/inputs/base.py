"""What every kind of data file shares: a file read once, line by line, and digested on the way."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from runner.errors import UsageError
from runner.values import JsonObject

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Longest line, and longest field: a row is held in memory, and no endpoint takes more than 20 MB."""


@dataclass(slots=True)
class BadRow(Exception):
    """A row that can't be read. *source* is the text of the line, *file* the file as a message names it."""

    line: int
    column: int
    message: str
    fix: str | None = None
    source: str | None = None
    file: str | None = None


Report = Callable[[BadRow], None]
"""Told of each bad row; reading goes on with the next one unless it raises."""

Reader = Callable[["Tape", Report], Iterator[JsonObject]]
"""A kind of data file: its rows, in order, each a mapping of its own."""


class Tape:
    """
    The lines of a file, read once from start to end in constant memory; a ``.gz`` file's are unpacked.

    After the last line *sha256* is the digest of the whole file as it is on disk, *size_bytes* its size; *line* is the
    number of the last one handed out, *last* its bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line = 0
        self.last = b""
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._raw: IO[bytes]

    @property
    def sha256(self) -> str:
        """Digest of what was read so far."""
        return self._digest.hexdigest()

    def lines(self) -> Iterator[bytes]:
        """Every line with its line end, as bytes; a byte order mark is left out of the first one.

        Raises:
            BadRow: a line is too long to be one, or a ``.gz`` file can't be unpacked.
        """
        with self.path.open("rb") as raw:
            self._raw = raw
            readline = self._unpacked() if self.path.suffix.lower() == ".gz" else self._readline
            while data := readline(MAX_LINE_BYTES + 1):
                self.line += 1
                self.last = data
                if len(data) > MAX_LINE_BYTES:
                    raise BadRow(self.line, 1, "a line is longer than 64 MiB", "write one row a line")
                yield data.removeprefix(b"\xef\xbb\xbf") if self.line == 1 else data

    def close(self) -> None:
        """Close the file, wherever reading has stopped: a bad row's traceback may hold on to it for long."""
        if hasattr(self, "_raw"):
            self._raw.close()

    def _readline(self, size: int) -> bytes:
        return self._seen(self._raw.readline(size))

    def read(self, size: int) -> bytes:
        """The next *size* bytes as they are on disk, for what unpacks them."""
        return self._seen(self._raw.read(size))

    def _seen(self, data: bytes) -> bytes:
        self._digest.update(data)
        self.size_bytes += len(data)
        return data

    def _unpacked(self) -> Callable[[int], bytes]:
        """What reads the next line of a ``.gz`` file."""
        import gzip  # with zlib: only such files need them
        import zlib

        source: Any = self
        unpacked = gzip.GzipFile(fileobj=source, mode="rb")

        def readline(size: int) -> bytes:
            try:
                return unpacked.readline(size)
            except EOFError:
                raise BadRow(self.line + 1, 1, "the file ends before its gzip data does", "copy it again") from None
            except (gzip.BadGzipFile, zlib.error):
                fix = "pack it again, or name it without .gz"
                raise BadRow(self.line + 1, 1, "expected gzip data, as the file's name says", fix) from None

        return readline

    def text(self, data: bytes) -> str:
        """*data*, the line at hand, as text.

        Raises:
            BadRow: it is not UTF-8, or holds NUL.
        """
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            column = len(data[: error.start].decode("utf-8", "replace")) + 1
            shown = data.decode("utf-8", "replace")
            raise BadRow(self.line, column, "expected UTF-8 text", "save the file as UTF-8", shown) from None
        if "\0" in text:
            raise BadRow(self.line, text.index("\0") + 1, "a NUL character is no text", "save the file as UTF-8", text)
        return text


def changed(path: Path) -> UsageError:
    """The error for a data file that is no longer what the plan was made from."""
    return UsageError(f"'{path}' changed while it was being read", fix="start again once nothing writes to it")
