"""
Make files of outputs: decoded, whole, each name taken once in a batch, and known by its digest.

A file is written aside and synced, then its name is claimed in the ledger, then it gets the name. A kill in between
leaves a file without a name, or a name that the same run may take again.
"""

import asyncio
import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from runner.artifact_paths import ASIDE
from runner.content_types import extension
from runner.decoding import ArtifactError, content, declared
from runner.durable import sync_folder
from runner.errors import RecordError
from runner.events import Claimed, FileClaim
from runner.fetch import Fetcher, FetchError
from runner.ledger import folded
from runner.originals import Original
from runner.record import Recorder
from runner.records import record
from runner.scalars import found
from runner.spec import MOST_ARTIFACT_BYTES
from runner.units import duration, size
from runner.values import JsonValue

__all__ = ["ArtifactError", "Artifacts", "Wanted"]

MOST_BYTES = MOST_ARTIFACT_BYTES
"""The largest file that is made: no answer is larger, and no download may be."""

MOST_BYTES_OF_A_RUN = 4 * 1024 * 1024 * 1024
"""What the files of one run may come to: a list of URLs, or all of the output for each item, must not fill the disk."""

DOWNLOADS_S = 3600.0
"""How long all downloads of one run may take together: a list of slow URLs must not keep a lane for days."""

FOLDER = "artifacts"

_OF_THE_PATH = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ})


@record(frozen=True, slots=True)
class Wanted:
    """
    An artifact to make: its *path* below the folder for artifacts, its *kind* in the job file, and of what.

    *by_type*, unless it is None, gives the path for the type that the content turns out to have, in place of *path*.
    *most_bytes* None is `MOST_BYTES`. *of* is what a message begins with: which item of a list it is made of.
    """

    path: str
    kind: str
    value: JsonValue
    by_type: Callable[[str], str] | None = None
    most_bytes: int | None = None
    of: str = ""


class Artifacts:
    """Makes the artifacts of one batch, whose folder is *folder*."""

    def __init__(self, folder: Path, recorder: Recorder, fetcher: Fetcher) -> None:
        self._folder = folder
        self._recorder = recorder
        self._fetcher = fetcher

    def clear(self) -> None:
        """Remove what an earlier process wrote aside and gave no name."""
        for left in (self._folder / FOLDER).glob(ASIDE):
            _remove(left)

    async def make(self, key: str, attempt: int, wanted: Sequence[Wanted], *, loopback: bool) -> list[FileClaim]:
        """
        Make every file that the run *key* wants, or none of them; each with its path in the batch folder.

        *loopback*: whether URLs of this machine may be fetched.

        Raises:
            ArtifactError: one can't be made, or another run has its name.
            RenderError: there is no path for the type of a content.
            RecordError: the batch folder can't be written.
        """
        if not wanted:
            return []
        asides = [self._folder / FOLDER / f".{key}.{number}.part" for number in range(len(wanted))]
        try:
            claims: list[FileClaim] = []
            left_bytes, until = MOST_BYTES_OF_A_RUN, asyncio.get_running_loop().time() + DOWNLOADS_S
            for one, aside in zip(wanted, asides, strict=True):
                claims.append(await self._write_aside(one, aside, until, loopback=loopback))
                left_bytes -= claims[-1].size_bytes
                if left_bytes < 0:
                    raise ArtifactError(f"the artifacts of this run come to more than {size(MOST_BYTES_OF_A_RUN)}")
            _check_names(claims)
            taken = await self._recorder.claim(Claimed(key, attempt, tuple(claims)))
            if taken is not None:
                whose = "a reused run" if taken.job is None else f"run {taken.index} of job '{taken.job}'"
                raise ArtifactError(f"{taken.path} is an artifact of {whose} already")
            await asyncio.to_thread(self._give_names, asides, claims)
        finally:
            for aside in asides:
                _remove(aside)
        return claims

    async def _write_aside(self, one: Wanted, aside: Path, until: float, *, loopback: bool) -> FileClaim:
        most_bytes, path = MOST_BYTES if one.most_bytes is None else one.most_bytes, one.path
        try:
            await asyncio.to_thread(_make_folder, aside.parent)
            aside.unlink(missing_ok=True)
            if isinstance(one.value, Original):
                media_type, (sha256, size_bytes) = None, await asyncio.to_thread(one.value.copy, aside)
            elif one.kind == "url":
                media_type = await self._fetch(one.value, aside, most_bytes, until, loopback=loopback)
                sha256, size_bytes = await asyncio.to_thread(_digest, aside)
            else:
                media_type = declared(one.kind, one.value)
                sha256, size_bytes = await asyncio.to_thread(_write, aside, one, most_bytes)
            if one.by_type is not None:
                path = one.by_type(await asyncio.to_thread(extension, aside, media_type))
        except OSError as error:
            raise _trouble(aside, error) from None
        except ArtifactError as error:
            raise ArtifactError(f"{one.of}{error}") from None
        return FileClaim(f"{FOLDER}/{path}", sha256, size_bytes)

    async def _fetch(self, url: JsonValue, to: Path, most_bytes: int, until: float, *, loopback: bool) -> str | None:
        """Download *url* before the loop's clock says *until*; the media type that the server says it has."""
        if not isinstance(url, str):
            raise ArtifactError(f"expected a URL, found {found(url)}")
        try:
            async with asyncio.timeout_at(until) as scope:
                return await self._fetcher.fetch(url, to, loopback=loopback, max_bytes=most_bytes)
        except FetchError as error:
            raise ArtifactError(error.message) from None
        except TimeoutError:  # a disk, too, can time out
            if not scope.expired():
                raise
            raise ArtifactError(f"the downloads of this run took longer than {duration(DOWNLOADS_S)}") from None

    def _give_names(self, asides: Sequence[Path], claims: Sequence[FileClaim]) -> None:
        folders: set[Path] = set()
        given: list[Path] = []
        for aside, claim in zip(asides, claims, strict=True):
            path = self._folder / claim.path
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                aside.replace(path)
            except OSError as error:
                if error.errno not in _OF_THE_PATH:
                    raise _trouble(path, error) from None
                for other in given:
                    _remove(other)
                raise ArtifactError(f"{found(claim.path)} can't be a file: {_said(error)}") from None
            given.append(path)
            folders |= {parent for parent in path.parents if parent.is_relative_to(self._folder)}
        for folder in sorted(folders):
            try:
                sync_folder(folder)
            except OSError as error:
                raise _trouble(folder, error) from None


def _check_names(claims: Sequence[FileClaim]) -> None:
    names: set[str] = set()
    for claim in claims:
        name = folded(claim.path)
        if name in names:
            raise ArtifactError(f"two artifacts of this run would have the path {found(claim.path)}")
        names.add(name)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _trouble(path, error) from None


def _make_folder(path: Path) -> None:
    path.mkdir(exist_ok=True)


def _write(path: Path, one: Wanted, most_bytes: int) -> tuple[str, int]:
    data = content(one.kind, one.value, most_bytes)
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
