"""What every kind of data file shares: a file read once, line by line, and digested on the way."""

import codecs
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runner.errors import UsageError
from runner.inputs.packed import Damaged, Unpacked, packing_of
from runner.values import JsonObject

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Longest line, and longest field: a row is held in memory, and no endpoint takes more than 20 MB."""

PIECE_BYTES = 256 * 1024

_SAVE = "save the file as UTF-8"
_MARKS = {
    codecs.BOM_UTF16_LE: ("UTF-16", _SAVE),
    codecs.BOM_UTF16_BE: ("UTF-16", _SAVE),
    b"\x1f\x8b\x08": ("gzip data", "name it with .gz behind"),
    b"\x28\xb5\x2f\xfd": ("zstd data", "name it with .zst behind"),
    b"\xfd7zXZ\0": ("xz data", "name it with .xz behind"),
    b"PAR1\x15": ("parquet", "name it with .parquet"),
    b"PK\x03\x04": ("a zip file, or a workbook", "save the table as csv, in UTF-8"),
}
"""How files begin that are no UTF-8 text: what they hold, and what to do about it."""


@dataclass(slots=True)
class BadRow(Exception):
    """
    A row that can't be read. *source* is the text of the line, *file* the file as a message names it.

    In a file without lines *line* is the number of the row.
    """

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
    The lines of a file, read once from start to end in constant memory; a packed file's are unpacked.

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
            BadRow: a line is too long to be one, the file can't be unpacked, or it is no text of ours from its start.
        """
        with self.path.open("rb") as raw:
            self._raw = raw
            packing = packing_of(self.path.name)
            readline = self._unpacked(packing) if packing else self._readline
            while data := readline(MAX_LINE_BYTES + 1):
                self.line += 1
                self.last = data
                if self.line == 1:
                    self._no_text(data)
                    data = data.removeprefix(codecs.BOM_UTF8)
                if len(data) > MAX_LINE_BYTES:
                    raise BadRow(self.line, 1, "a line is longer than 64 MiB", "write one row a line")
                yield data

    def digest(self) -> None:
        """Read the whole file for its digest alone, for a kind whose rows are read from all over it."""
        with self.path.open("rb") as raw:
            self._raw = raw
            while self.read(PIECE_BYTES):
                pass

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

    def _unpacked(self, packing: str) -> Callable[[int], bytes]:
        """What reads the next line of a packed file."""
        unpacked = io.BufferedReader(Unpacked(self.read, packing), PIECE_BYTES)

        def readline(size: int) -> bytes:
            try:
                return unpacked.readline(size)
            except Damaged as damaged:
                raise BadRow(self.line + 1, 1, damaged.message, damaged.fix) from None

        return readline

    @staticmethod
    def _no_text(data: bytes) -> None:
        """Raise BadRow when *data*, the beginning of a file, tells that it holds something else than UTF-8."""
        for mark, (found, fix) in _MARKS.items():
            if data.startswith(mark):
                raise BadRow(1, 1, f"expected UTF-8 text, found {found}", fix)

    def text(self, data: bytes) -> str:
        """*data*, the line at hand, as text.

        Raises:
            BadRow: it is not UTF-8, or holds NUL.
        """
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            column = len(data[: error.start].decode("utf-8", "replace")) + 1
            shown, odd = data.decode("utf-8", "replace"), data[error.start]
            fix = f"save the file as UTF-8; in Latin-1 that byte is '{chr(odd)}'" if chr(odd).isprintable() else _SAVE
            raise BadRow(self.line, column, f"expected UTF-8 text, found the byte 0x{odd:02X}", fix, shown) from None
        if "\0" in text:
            raise BadRow(self.line, text.index("\0") + 1, "a NUL character is no text", _SAVE, text)
        return text


def changed(path: Path) -> UsageError:
    """The error for a data file that is no longer what the plan was made from."""
    return UsageError(f"'{path}' changed while it was being read", fix="start again once nothing writes to it")
