"""The objects below a URL: put, get, list and remove them, whatever keeps them. Alone imports fsspec."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from runner import extras, locations
from runner.errors import UsageError

CHUNK_BYTES = 8 * 1024 * 1024
"""A large file goes in parts of this size, so that it never is in memory."""

_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"})
"""Stores in which an object is there whole or not at all. In the others it is written aside, and moved."""


class StoreError(Exception):
    """Raised when a store does not do what it is asked."""


class Away(StoreError):
    """Raised when a store can't be reached, or is busy: it may do it later."""


class Denied(StoreError):
    """Raised when a store says no: no bucket, no credentials, no permission."""


class Missing(StoreError):
    """Raised when there is no such object."""


class Exists(StoreError):
    """Raised when an object was to be new, and is there."""


class Objects(Protocol):
    """The objects below one URL. Names are relative, with slashes. Every method raises StoreError."""

    url: str

    def put(self, name: str, data: bytes, *, new: bool = False) -> None:
        """Let *name* be *data*, whole; with *new* only if there is no such object yet."""

    def put_file(self, name: str, path: Path, *, new: bool = False) -> None:
        """Let *name* be what is in the file *path*, as `put` does."""

    def get(self, name: str) -> bytes:
        """What is in *name*."""

    def get_file(self, name: str, path: Path) -> None:
        """Write what is in *name* to the file *path*."""

    def names(self, below: str) -> dict[str, int]:
        """The objects in the folder *below*, at any depth, with their sizes in bytes."""

    def folders(self, below: str) -> list[str]:
        """The names of the folders in the folder *below*, which is empty for all."""

    def remove(self, name: str) -> None:
        """Let *name* be gone, if it is there."""


def open_objects(url: str) -> Objects:
    """
    The objects below *url*.

    Raises:
        UsageError: what speaks it is not installed, or nothing speaks it.
    """
    if locations.scheme(url) == "file":
        return Files(url)
    if not extras.is_there("fsspec"):
        raise UsageError(f"{url} needs fsspec, which is not installed", fix=extras.REMOTE)
    return Store(url)


@contextmanager
def said_plainly(objects: Objects) -> Iterator[None]:
    """Turn a StoreError of the block into a UsageError that says which folder can't be used."""
    try:
        yield
    except StoreError as error:
        raise UsageError(
            f"{objects.url} can't be used: {error}",
            fix="see that it can be reached from here, and that the credentials found here may read and write it",
        ) from None


class Files:
    """Objects that are files below a folder of this machine, or of one that it has mounted."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._root = Path(url.removeprefix("file://"))

    def put(self, name: str, data: bytes, *, new: bool = False) -> None:
        with self._aside(name, new) as aside:
            aside.write_bytes(data)

    def put_file(self, name: str, path: Path, *, new: bool = False) -> None:
        with self._aside(name, new) as aside:
            shutil.copyfile(path, aside)

    @contextmanager
    def _aside(self, name: str, new: bool) -> Iterator[Path]:
        path = self._root / name
        with self._said():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            try:
                yield aside
                with aside.open("rb") as file:
                    os.fsync(file.fileno())
                if new:
                    path.hardlink_to(aside)
                else:
                    aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)

    def get(self, name: str) -> bytes:
        with self._said():
            return (self._root / name).read_bytes()

    def get_file(self, name: str, path: Path) -> None:
        with self._said():
            shutil.copyfile(self._root / name, path)

    def names(self, below: str) -> dict[str, int]:
        with self._said():
            return {
                path.relative_to(self._root).as_posix(): path.stat().st_size
                for path in sorted((self._root / below).rglob("*"))
                if path.is_file() and not path.name.startswith(".")
            }

    def folders(self, below: str) -> list[str]:
        with self._said():
            folder = self._root / below
            found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
            return sorted(path.name for path in found if any(below.is_file() for below in path.rglob("*")))

    def remove(self, name: str) -> None:
        with self._said():
            (self._root / name).unlink(missing_ok=True)

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _told(error, self.url) from error


class Store:
    """Objects in a store that fsspec speaks to. Any thread may use it."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        self._scheme = locations.scheme(url)
        self._is_s3 = self._scheme in ("s3", "s3a")
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        if self._is_s3:
            # Its own tries on top of ours would keep a thread for minutes.
            options["config_kwargs"] = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}
            options["max_concurrency"] = 3
        try:
            self._fs, root = fsspec.core.url_to_fs(url, **options)
        except ImportError as error:
            fix = extras.REMOTE if self._is_s3 else _first_line(error)
            raise UsageError(f"{url} needs a library that is not installed", fix=fix) from None
        except ValueError as error:
            known = "s3://, gs://, abfs:// and what else fsspec knows"
            raise UsageError(f"{url} can't be used: {_first_line(error)}", fix=f"use one of {known}") from None
        if self._is_s3:
            self._fs.retries = 2
        self._root = root.rstrip("/")

    def put(self, name: str, data: bytes, *, new: bool = False) -> None:
        with self._said(name):
            if self._scheme in _WHOLE:
                self._fs.pipe_file(self._path(name), data, mode="create" if new else "overwrite")
                return
            with self._moved(name, new) as aside:
                self._fs.pipe_file(aside, data)

    def put_file(self, name: str, path: Path, *, new: bool = False) -> None:
        with self._said(name):
            more: dict[str, Any] = {"chunksize": CHUNK_BYTES} if self._is_s3 else {}
            if self._scheme in _WHOLE:
                mode = "create" if new else "overwrite"
                self._fs.put_file(str(path), self._path(name), mode=mode, **more)
                return
            with self._moved(name, new) as aside:
                self._fs.put_file(str(path), aside)

    @contextmanager
    def _moved(self, name: str, new: bool) -> Iterator[str]:
        """A path to write to, which is then moved to that of *name*."""
        path = self._path(name)
        folder, _, last = path.rpartition("/")
        if new and self._fs.exists(path):
            raise FileExistsError(path)
        self._fs.makedirs(folder, exist_ok=True)
        aside = f"{folder}/.{last}.{secrets.token_hex(4)}"
        try:
            yield aside
            self._fs.mv(aside, path)
        except BaseException:
            with suppress(Exception):  # what went wrong before is what matters
                self._fs.rm_file(aside)
            raise

    def get(self, name: str) -> bytes:
        with self._said(name):
            data: bytes = self._fs.cat_file(self._path(name))
            return data

    def get_file(self, name: str, path: Path) -> None:
        with self._said(name):
            self._fs.get_file(self._path(name), str(path))

    def names(self, below: str) -> dict[str, int]:
        with self._said(below):
            try:
                found = self._fs.find(self._path(below), detail=True)
            except FileNotFoundError as error:
                if _lacks_bucket(error):
                    raise
                return {}
            return {
                self._name(path): int(info.get("size") or 0)
                for path, info in sorted(found.items())
                if info.get("type") == "file" and not path.rpartition("/")[2].startswith(".")
            }

    def folders(self, below: str) -> list[str]:
        with self._said(below):
            try:
                found = self._fs.ls(self._path(below), detail=True)
            except FileNotFoundError as error:
                if _lacks_bucket(error):
                    raise
                return []
            names = {str(one["name"]).rstrip("/").rpartition("/")[2] for one in found if one["type"] == "directory"}
            return sorted(names)

    def remove(self, name: str) -> None:
        with self._said(name), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _name(self, path: str) -> str:
        return path.removeprefix(self._root).lstrip("/")

    @contextmanager
    def _said(self, name: str) -> Iterator[None]:
        """Turn what a store's own library raises into one of ours; each has exceptions of its own."""
        try:
            yield
        except Exception as error:  # there is no common class
            if _lacks_bucket(error):
                raise Denied(f"{_first_line(error)}: {self._root.partition('/')[0]}") from error
            raise _told(error, f"{self.url}/{name}") from error


_DENIED = (
    "NoCredentials",
    "PartialCredentials",
    "TokenRetrieval",
    "ProfileNotFound",
    "ParamValidation",
    "InvalidRegion",
)


def _told(error: Exception, what: str) -> StoreError:
    """*error*, which a store's library raised about *what*, as one of ours."""
    said = _first_line(error)
    if isinstance(error, FileExistsError):
        return Exists(f"{what} is there already")
    if isinstance(error, FileNotFoundError):
        return Missing(f"there is no {what}")
    if isinstance(error, PermissionError) or type(error).__name__.startswith(_DENIED):
        return Denied(said or _code(error) or type(error).__name__)
    return Away(said or type(error).__name__)


def _lacks_bucket(error: Exception) -> bool:
    """Whether *error* says that there is no bucket at all, which is not the same as an empty one."""
    return isinstance(error, FileNotFoundError) and _code(error) == "NoSuchBucket"


def _code(error: Exception) -> str:
    """What S3 itself called the *error*; empty where it did not."""
    return str(getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", ""))


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines else ""
