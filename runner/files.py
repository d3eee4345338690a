"""
Read local files into inputs, from below the job file's folder or a batch's artifacts only; know their contents again
in an input.
"""

import base64
import hashlib
import stat
from pathlib import Path
from typing import Self

from runner import content_types
from runner.scalars import found
from runner.units import size
from runner.values import JsonValue

MAX_BYTES = 15 * 1024 * 1024 // 2
"""Largest file: as base64 it has 10 MiB, and RunPod takes no larger body."""

ARTIFACTS = "artifacts"
"""The folder of a batch's artifacts in its own."""

_MEDIA_TYPES = {
    **dict.fromkeys(("jpg", "jpeg"), "image/jpeg"),
    **{kind: f"image/{kind}" for kind in ("png", "gif", "webp", "bmp", "avif", "heic")},
    **dict.fromkeys(("tif", "tiff"), "image/tiff"),
    "svg": "image/svg+xml",
    **{kind: f"audio/{kind}" for kind in ("wav", "flac", "ogg", "aac")},
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    **{kind: f"video/{kind}" for kind in ("mp4", "webm")},
    "mov": "video/quicktime",
    **{kind: f"text/{kind}" for kind in ("csv", "html")},
    "txt": "text/plain",
    "pdf": "application/pdf",
    "json": "application/json",
    "zip": "application/zip",
    "gz": "application/gzip",
    "mkv": "video/x-matroska",
    "glb": "model/gltf-binary",
}
"""A table of our own: the standard library's depends on the machine, and keys must not."""


class FileText(str):
    """
    The content of a local file in an input: base64, or a data URI. Equal to the same text from elsewhere.

    *file* is the path as the template gave it, *sha256* the digest of the file's bytes.
    """

    __slots__ = ("file", "sha256")
    file: str
    sha256: str

    @classmethod
    def of(cls, text: str, *, file: str, sha256: str) -> Self:
        """*text*, and where it comes from."""
        self = cls(text)
        self.file, self.sha256 = file, sha256
        return self


def file_base64(name: object, folder: str) -> FileText:
    """
    The file *name* below *folder* as base64.

    Raises:
        ValueError: it can't be read, or may not be; the message says why.
    """
    name, data = _read(name, folder)
    return _text("", name, data)


def file_data_uri(name: object, folder: str) -> FileText:
    """
    The file *name* below *folder* as a data URI; its media type by its content, and by its suffix where that says
    nothing. Raises what `file_base64` does.
    """
    name, data = _read(name, folder)
    return _text(f"data:{_media_type(name, data)};base64,", name, data)


def artifact_base64(name: object, batch: str) -> FileText:
    """
    The artifact *name* of the batch in the folder *batch* as base64; the name is as `row.artifacts` has it.

    Raises:
        ValueError: it can't be read, or is no artifact; the message says why.
    """
    name, data = _read(name, batch, below=ARTIFACTS)
    return _text("", name, data)


def artifact_data_uri(name: object, batch: str) -> FileText:
    """The artifact *name* as a data URI, its media type as in `file_data_uri`. Raises what `artifact_base64` does."""
    name, data = _read(name, batch, below=ARTIFACTS)
    return _text(f"data:{_media_type(name, data)};base64,", name, data)


def _media_type(name: str, data: bytes) -> str:
    """The media type of *data*: by what only such files begin with, else by the suffix of *name*."""
    kinds = (content_types.by_mark(data), name.lower().rpartition(".")[2])
    return next((_MEDIA_TYPES[kind] for kind in kinds if kind in _MEDIA_TYPES), "application/octet-stream")


def _text(prefix: str, name: str, data: bytes) -> FileText:
    text = prefix + base64.b64encode(data).decode()
    return FileText.of(text, file=name, sha256=hashlib.sha256(data).hexdigest())


def _read(name: object, folder: str, *, below: str = "") -> tuple[str, bytes]:
    where = "the job file's folder" if not below else f"this batch's '{below}'"
    if not isinstance(name, str) or not name:
        raise ValueError(f"expected the path of a file, below {where}")
    if "\0" in name:
        raise ValueError("a path can't have a NUL character in it")
    try:
        data = _content(name, Path(folder).resolve(), below)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"there is no file {found(name)} below {where}") from None
    except OSError as error:
        raise ValueError(f"{found(name)} can't be read: {error.strerror or error}") from None
    except RuntimeError:  # a circle of links, until Python 3.13
        raise ValueError(f"{found(name)} can't be read: its links go in a circle") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"{found(name)} has more than {size(MAX_BYTES)}, the most that fits a request as base64")
    return name, data


def _content(name: str, base: Path, below: str) -> bytes:
    """What the file holds, and a byte more than is allowed where it holds that much."""
    path = (base / name).resolve()
    if Path(name).is_absolute() or not path.is_relative_to(base / below):
        if below:
            raise ValueError(f"{found(name)} is no artifact of this batch: write one of row.artifacts")
        raise ValueError(f"{found(name)} is outside the job file's folder: only files below it can be sent")
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise ValueError(f"{found(name)} is a folder")
    if not stat.S_ISREG(mode):  # opening a pipe would wait for whoever writes to it
        raise ValueError(f"{found(name)} is no regular file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def marks(value: JsonValue, path: tuple[str | int, ...] = ()) -> list[list[JsonValue]]:
    """Where in *value* texts come from files: ``[path, file, sha256]`` for each, as `marked` takes them back."""
    if isinstance(value, FileText):
        return [[list(path), value.file, value.sha256]]
    if isinstance(value, dict):
        return [mark for key, item in value.items() for mark in marks(item, (*path, key))]
    if isinstance(value, list):
        return [mark for index, item in enumerate(value) for mark in marks(item, (*path, index))]
    return []


def marked(value: JsonValue, known: list[list[JsonValue]]) -> JsonValue:
    """*value* with the texts that `marks` found made into `FileText` again, in place."""
    for path, file, sha256 in known:
        if not path:
            return FileText.of(value, file=file, sha256=sha256)
        holder = value
        for part in path[:-1]:
            holder = holder[part]
        holder[path[-1]] = FileText.of(holder[path[-1]], file=file, sha256=sha256)
    return value


def shown(value: JsonValue) -> JsonValue:
    """*value* as results have it: what came from a file is ``{"file", "sha256"}``. Parts without any are shared."""
    if isinstance(value, FileText):
        return {"file": value.file, "sha256": value.sha256}
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    return [shown(item) for item in value] if isinstance(value, list) else value
