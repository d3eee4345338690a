"""
Unpack data files on the way: ``.gz``, ``.zst``, ``.bz2`` and ``.xz``, all in one manner and in constant memory.

The standard library's file objects are not used: they take a file that is cut or padded each in a way of its own, and
those of xz and zstd give a file as much memory as it asks for.
"""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from runner.records import record

PIECE_BYTES = 64 * 1024
MOST_BYTES = 128 * 1024 * 1024
"""Memory that unpacking one file may take: what ``xz -9`` needs, and the largest window of zstd without ``--long``."""


@dataclass(slots=True)
class Damaged(Exception):
    """Raised for a file that can't be unpacked."""

    message: str
    fix: str


class Unpacker(Protocol):
    """What the libraries' decompressors have in common: one of them takes one member of a file."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


@record(frozen=True, slots=True)
class Packing:
    """A way to pack files: its *name* for people, and what makes an unpacker and names its errors."""

    name: str
    make: Callable[[], tuple[Unpacker, type[Exception]]]


def packing_of(name: str) -> str:
    """The last suffix of a file's name where it tells that the file is packed, such as ``gz``; else an empty text."""
    suffix = name.lower().rpartition(".")[2]
    return suffix if "." in name and suffix in PACKINGS else ""


class _Gzip:
    """zlib's decompressor, with the manners of the others."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return bytes(self._inner.decompress(self._inner.unconsumed_tail + data, max_length))


def _gzip() -> tuple[Unpacker, type[Exception]]:
    import zlib  # all of these where they are needed: most files are not packed

    return _Gzip(zlib.decompressobj(wbits=31)), zlib.error


def _bzip2() -> tuple[Unpacker, type[Exception]]:
    import bz2

    return bz2.BZ2Decompressor(), OSError


def _xz() -> tuple[Unpacker, type[Exception]]:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_BYTES), lzma.LZMAError


def _zstd() -> tuple[Unpacker, type[Exception]]:
    # The backport is the standard library's own module for older versions: one API, and one day no extra.
    zstd: Any = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    limit = {zstd.DecompressionParameter.window_log_max: MOST_BYTES.bit_length() - 1}
    return zstd.ZstdDecompressor(options=limit), zstd.ZstdError


PACKINGS: dict[str, Packing] = {
    "gz": Packing("gzip", _gzip),
    "zst": Packing("zstd", _zstd),
    "bz2": Packing("bzip2", _bzip2),
    "xz": Packing("xz", _xz),
}
"""Every packing, by suffix. ``spec.PACKINGS`` names them for users."""


class Unpacked(io.RawIOBase):
    """
    What is in a packed file, all of its members one after the other; zeros between and behind them are padding.

    *read* gives the next bytes of the file, none at its end. Reading raises Damaged.
    """

    def __init__(self, read: Callable[[int], bytes], suffix: str) -> None:
        super().__init__()
        self._read = read
        self._packing = PACKINGS[suffix]
        self._suffix = suffix
        self._member: Unpacker | None = None
        self._error: type[Exception] = Exception
        self._fed = b""
        self._given = False  # whether anything came out yet

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill *buffer* as far as one step goes; 0 at the end."""
        data = self._some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _some(self, size: int) -> bytes:
        while True:
            if (self._member is None or self._member.eof) and not self._begin():
                return b""
            member = self._member
            assert member is not None
            piece = b""
            if member.needs_input:
                piece, self._fed = self._fed or self._read(PIECE_BYTES), b""
            data = self._step(member, piece, size)
            if data:
                self._given = True
                return data
            if not piece and member.needs_input and not member.eof:
                raise Damaged(f"the file ends before its {self._packing.name} data does", "copy it again")

    def _begin(self) -> bool:
        """Begin the next member; whether there is one."""
        rest = b"" if self._member is None else self._member.unused_data.lstrip(b"\0")
        while not rest:
            rest = self._read(PIECE_BYTES)
            if not rest and self._member is None:
                raise Damaged(f"the file ends before its {self._packing.name} data does", "copy it again")
            if not rest:
                return False
            rest = rest if self._member is None else rest.lstrip(b"\0")
        self._fed = rest
        try:
            self._member, self._error = self._packing.make()
        except ImportError:
            without = f"this Python was built without {self._packing.name}", "unpack the file"
            raise Damaged(*(MISSING_ZSTD if self._suffix == "zst" else without)) from None
        return True

    def _step(self, member: Unpacker, piece: bytes, size: int) -> bytes:
        name = self._packing.name
        try:
            return member.decompress(piece, size)
        except self._error as error:
            if "emory" in str(error):
                message = f"unpacking this {name} data takes more than {MOST_BYTES // 2**20} MiB of memory"
                raise Damaged(message, "pack it again, without --long or the like") from None
        if self._given:
            raise Damaged(f"the {name} data is damaged", "copy it again")
        fix = f"pack it again, or name it without .{self._suffix}"
        raise Damaged(f"expected {name} data, as the file's name says", fix)


MISSING_ZSTD = ("reading .zst files needs a library that is not installed", "pip install 'runpod-runner[zst]'")
"""What is wrong, and what to do about it, where zstd is not there."""
