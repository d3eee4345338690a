"""
Make files of outputs: decoded, whole, each name taken once in a batch, and known by its digest.

A file is written aside and synced, then its name is claimed in the ledger, then it gets the name. A kill in between
leaves a file without a name, or a name that the same run may take again.
"""

import asyncio
import base64
import binascii
import errno
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from runner.durable import sync_folder
from runner.errors import RecordError
from runner.events import Claimed, FileClaim
from runner.fetch import Fetcher, FetchError
from runner.ledger import folded
from runner.record import Recorder
from runner.scalars import found
from runner.units import size
from runner.values import JsonValue, dump

MOST_BYTES = 256 * 1024 * 1024
"""The largest file that is made: no answer is larger, and no download may be."""

FOLDER = "artifacts"

_DATA_URI = re.compile(r"data:([^,]*?)(;base64)?,", re.IGNORECASE)
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")
_SPACES = str.maketrans("", "", " \t\r\n")
_OF_THE_PATH = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ})


class ArtifactError(Exception):
    """Raised when an artifact can't be made of what a run gave; the message says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An artifact to make: its *path* below the folder for artifacts, its *kind* in the job file, and of what."""

    path: str
    kind: str
    value: JsonValue


class Artifacts:
    """Makes the artifacts of one batch, whose folder is *folder*."""

    def __init__(self, folder: Path, recorder: Recorder, fetcher: Fetcher) -> None:
        self._folder = folder
        self._recorder = recorder
        self._fetcher = fetcher

    def clear(self) -> None:
        """Remove what an earlier process wrote aside and gave no name."""
        for left in (self._folder / FOLDER).glob(".*.part"):
            _remove(left)

    async def make(self, key: str, attempt: int, wanted: Sequence[Wanted], *, loopback: bool) -> list[FileClaim]:
        """
        Make every file that the run *key* wants, or none of them; each with its path in the batch folder.

        *loopback*: whether URLs of this machine may be fetched.

        Raises:
            ArtifactError: one can't be made, or another run has its name.
            RecordError: the batch folder can't be written.
        """
        asides = [self._folder / FOLDER / f".{key}.{number}.part" for number in range(len(wanted))]
        try:
            claims = [
                await self._write_aside(one, aside, loopback=loopback)
                for one, aside in zip(wanted, asides, strict=True)
            ]
            names = [folded(claim.path) for claim in claims]
            for number, name in enumerate(names):
                if name in names[:number]:
                    raise ArtifactError(f"two artifacts of this run would have the path {found(claims[number].path)}")
            taken = await self._recorder.claim(Claimed(key, attempt, tuple(claims)))
            if taken is not None:
                raise ArtifactError(f"{taken.path} is an artifact of run {taken.index} of job '{taken.job}' already")
            await asyncio.to_thread(self._give_names, asides, claims)
        finally:
            for aside in asides:
                _remove(aside)
        return claims

    async def _write_aside(self, one: Wanted, aside: Path, *, loopback: bool) -> FileClaim:
        try:
            await asyncio.to_thread(_make_folder, aside.parent)
            aside.unlink(missing_ok=True)
            if one.kind == "url":
                await self._fetch(one.value, aside, loopback=loopback)
                sha256, size_bytes = await asyncio.to_thread(_digest, aside)
            else:
                sha256, size_bytes = await asyncio.to_thread(_write, aside, one)
        except OSError as error:
            raise _trouble(aside, error) from None
        return FileClaim(f"{FOLDER}/{one.path}", sha256, size_bytes)

    async def _fetch(self, url: JsonValue, to: Path, *, loopback: bool) -> None:
        if not isinstance(url, str):
            raise ArtifactError(f"expected a URL, found {found(url)}")
        try:
            await self._fetcher.fetch(url, to, loopback=loopback, max_bytes=MOST_BYTES)
        except FetchError as error:
            raise ArtifactError(error.message) from None

    def _give_names(self, asides: Sequence[Path], claims: Sequence[FileClaim]) -> None:
        folders: set[Path] = set()
        for aside, claim in zip(asides, claims, strict=True):
            path = self._folder / claim.path
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                aside.replace(path)
            except OSError as error:
                if error.errno in _OF_THE_PATH:
                    raise ArtifactError(f"{found(claim.path)} can't be a file: {_said(error)}") from None
                raise _trouble(path, error) from None
            folders |= {parent for parent in path.parents if parent.is_relative_to(self._folder)}
        for folder in sorted(folders):
            try:
                sync_folder(folder)
            except OSError as error:
                raise _trouble(folder, error) from None


def content(kind: str, value: JsonValue) -> bytes:
    """
    The bytes of an artifact of *kind*, save ``url``.

    Raises:
        ArtifactError: *value* is not what the kind wants; the message says what was found.
    """
    return _KINDS[kind](value)


def _of_base64(value: JsonValue) -> bytes:
    if not isinstance(value, str):
        raise ArtifactError(f"expected a text in base64, found {found(value)}")
    text = value.translate(_SPACES)
    if text[:5].lower() == "data:":
        raise ArtifactError("expected a text in base64, found a data URI: write 'data_uri' in place of 'base64'")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        odd = _NOT_BASE64.search(text)
        why = f"character {found(odd[0])} at {odd.start() + 1}" if odd else f"{len(text)} characters, not whole groups"
        raise ArtifactError(f"this is not base64: {why}") from None


def _of_data_uri(value: JsonValue) -> bytes:
    head = _DATA_URI.match(value[:1000]) if isinstance(value, str) else None
    if head is None:
        raise ArtifactError(f"expected a data URI, found {found(value)}")
    assert isinstance(value, str)
    rest = value[head.end() :]
    return _of_base64(rest) if head[2] else unquote_to_bytes(rest)


def _of_text(value: JsonValue) -> bytes:
    if not isinstance(value, str):
        raise ArtifactError(f"expected a text, found {found(value)}")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise ArtifactError("this text has a lone surrogate, which no file in UTF-8 can have") from None


def _of_json(value: JsonValue) -> bytes:
    return dump(value) + b"\n"


_KINDS: dict[str, Callable[[JsonValue], bytes]] = {
    "base64": _of_base64,
    "data_uri": _of_data_uri,
    "text": _of_text,
    "json": _of_json,
}


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _trouble(path, error) from None


def _make_folder(path: Path) -> None:
    path.mkdir(exist_ok=True)


def _write(path: Path, one: Wanted) -> tuple[str, int]:
    data = content(one.kind, one.value)
    if len(data) > MOST_BYTES:
        raise ArtifactError(f"an artifact of {size(len(data))}, and {size(MOST_BYTES)} is the most")
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest(), len(data)


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size


def _said(error: OSError) -> str:
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return "a part of the path is a file already"
    return (error.strerror or str(error)).lower()


def _trouble(path: Path, error: OSError) -> RecordError:
    return RecordError(
        f"{path} can't be written: {error.strerror or error}",
        fix="see that the disk has room and the folder can be written, then go on with --resume",
    )
