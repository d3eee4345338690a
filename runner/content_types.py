"""
Tell what a file holds by its first bytes, as the suffix that such files have.

A table of our own: libmagic is no Python, puremagic guesses among hundreds of weak marks, filetype is not kept up, and
of a model's output there are few kinds. What a server or a data URI declares is believed only where the content says
nothing, and never of a type that would show in the content: nobody's word makes a PNG of a program.

Source: WHATWG, "MIME Sniffing"; the formats' own specifications, named beside their marks.
"""

import codecs
import re
from pathlib import Path
from typing import Final

from runner import values

UNKNOWN: Final = "bin"
_HEAD_BYTES = 64 * 1024
_JSON_BYTES = 8 * 1024 * 1024
"""A longer text is not parsed to see whether it is JSON."""

_BEGINNINGS: dict[bytes, str] = {
    b"\x89PNG\r\n\x1a\n": "png",  # W3C, PNG 5.2
    b"\xff\xd8\xff": "jpg",  # ITU T.81, B.1.1
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"II*\0": "tiff",  # TIFF 6.0
    b"MM\0*": "tiff",
    b"OggS": "ogg",  # RFC 3533
    b"fLaC": "flac",  # RFC 9639
    b"ID3": "mp3",  # ID3v2.4, 3.1
    b"%PDF-": "pdf",  # ISO 32000
    b"PK\x03\x04": "zip",  # APPNOTE 4.3
    b"PK\x05\x06": "zip",
    b"\x1f\x8b\x08": "gz",  # RFC 1952
    b"glTF": "glb",  # glTF 2.0, "Binary glTF"
    b"\x93NUMPY": "npy",  # NumPy, "NPY format"
    b"PAR1": "parquet",
}
_RIFF = {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}  # RFC 9649; RFC 2361
_BRANDS = {  # ISO/IEC 14496-12, `ftyp`; registered at mp4ra.org
    **dict.fromkeys((b"avif", b"avis"), "avif"),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1"), "heic"),
    b"qt  ": "mov",
    b"M4A ": "m4a",
}
_DOCTYPE = re.compile(rb"\x42\x82[\x81-\x88](webm|matroska)")  # RFC 8794, 11.2.4
_UNREADABLE = re.compile("[\0-\x08\x0b\x0e-\x1f\x7f]")

_DECLARED = {
    "text/plain": "txt",  # in another encoding than UTF-8, that is
    "text/csv": "csv",
    "application/json": "json",
    "audio/l16": "pcm",
    "audio/pcm": "pcm",
    "audio/aac": "aac",
    "image/bmp": "bmp",
    "image/jxl": "jxl",
    "video/mp2t": "ts",
    "model/stl": "stl",
    "application/msgpack": "msgpack",
}
"""Types that the table above doesn't know, which content may so be declared as."""


def extension(path: Path, declared: str | None) -> str:
    """
    The suffix for what is in the file at *path*, without a dot; ``bin`` where nothing tells.

    *declared* is its media type by someone's word, None for nobody's.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        found = by_mark(head)
        if found is not None:
            return found
        said = (declared or "").partition(";")[0].strip().lower()
        text = _as_text(head, is_whole=len(head) < _HEAD_BYTES)
        if text is None:
            return _DECLARED.get(said, UNKNOWN)
        is_declared = said == "application/json"
        if is_declared or text.lstrip()[:1] in ("{", "["):
            return _kind_of_json(head + file.read(_JSON_BYTES - len(head) + 1), is_declared=is_declared)
    return "txt"


def by_mark(head: bytes) -> str | None:
    """The type of a file that begins with *head*, by what only such files begin with."""
    for mark, suffix in _BEGINNINGS.items():
        if head.startswith(mark):
            return suffix
    if head[:4] in (b"RIFF", b"RF64"):
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "mp4")
    if head[:4] == b"\x1a\x45\xdf\xa3":
        doctype = _DOCTYPE.search(head[:64])
        return "webm" if doctype and doctype[1] == b"webm" else "mkv"
    return "mp3" if _is_mpeg_audio(head) else None


def _is_mpeg_audio(head: bytes) -> bool:
    """Whether *head* is the header of a frame of layer III. Source: ISO/IEC 11172-3, 2.4.1.3."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[1] & 0x18 == 0x08:
        return False
    return head[2] & 0xF0 not in (0x00, 0xF0) and head[2] & 0x0C != 0x0C


def _as_text(head: bytes, *, is_whole: bool) -> str | None:
    """The text in UTF-8 that *head* begins, or is; None where it is none, or nothing."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=is_whole)
    except UnicodeDecodeError:
        return None
    return text if text and not _UNREADABLE.search(text) else None


def _kind_of_json(data: bytes, *, is_declared: bool) -> str:
    """What a text is that may be JSON: of a long one its beginning decides, and what it is declared as."""
    if len(data) > _JSON_BYTES:
        return "json" if is_declared and data.lstrip()[:1] in (b"{", b"[") else "txt"
    try:
        value = values.parse(data.removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError):
        return "txt"
    asset = value.get("asset") if isinstance(value, dict) else None
    return "gltf" if isinstance(asset, dict) and "version" in asset else "json"  # glTF 2.0, 5.9
