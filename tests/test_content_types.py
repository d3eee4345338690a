"""What a file is, by what it holds."""

import base64
import io
import json
import struct
import wave
import zipfile
import zlib
from pathlib import Path

import pytest

from runner.content_types import extension


def png() -> bytes:
    """A whole picture of one pixel."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0\0\0\0")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def wav() -> bytes:
    """A whole recording of one sample."""
    with io.BytesIO() as file:
        with wave.open(file, "wb") as writer:
            writer.setparams((1, 2, 8000, 1, "NONE", ""))
            writer.writeframes(b"\0\0")
        return file.getvalue()


def zipped() -> bytes:
    """A whole archive of one file."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.txt", "a")
        return file.getvalue()


def box(kind: bytes, brand: bytes) -> bytes:
    """The first box of a file of ISO's base media format."""
    return struct.pack(">I", 24) + kind + brand + b"\0\0\0\0" + b"isom" + brand


def ebml(doctype: bytes) -> bytes:
    """The head of a Matroska file."""
    return b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82" + bytes([0x80 + len(doctype)]) + doctype + b"\x42\x87"


GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")

KINDS = {
    "png": png(),
    "jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "gif": GIF,
    "webp": b"RIFF\x1a\0\0\0WEBPVP8L",
    "avif": box(b"ftyp", b"avif"),
    "heic": box(b"ftyp", b"heic"),
    "tiff": b"II*\0\x08\0\0\0",
    "mp4": box(b"ftyp", b"isom"),
    "mov": box(b"ftyp", b"qt  "),
    "m4a": box(b"ftyp", b"M4A "),
    "webm": ebml(b"webm"),
    "mkv": ebml(b"matroska"),
    "avi": b"RIFF\x1a\0\0\0AVI LIST",
    "wav": wav(),
    "mp3": b"\xff\xfb\x90\x64" + bytes(400),
    "ogg": b"OggS\0\x02" + bytes(22),
    "flac": b"fLaC\0\0\0\x22",
    "pdf": b"%PDF-1.7\n",
    "zip": zipped(),
    "gz": b"\x1f\x8b\x08\0",
    "glb": b"glTF\x02\0\0\0",
    "gltf": b'{"asset": {"version": "2.0"}, "scenes": []}',
    "npy": b"\x93NUMPY\x01\0",
    "parquet": b"PAR1\x15\x04",
    "json": b' [1, {"a": "\xc3\xa4"}]\n',
    "txt": "grüß Gott, 馬\r\n\tund so weiter".encode(),
    "bin": b"\x07\x08 whatever",
}


def of(folder: Path, data: bytes, declared: str | None = None) -> str:
    path = folder / "content"
    path.write_bytes(data)
    return extension(path, declared)


@pytest.mark.parametrize("suffix", KINDS)
def test_content_tells_its_type(tmp_path: Path, suffix: str) -> None:
    """A viewer opens a file by its suffix, and few workers say what they give."""
    assert of(tmp_path, KINDS[suffix]) == suffix


@pytest.mark.parametrize("suffix", [name for name in KINDS if name != "bin"])
@pytest.mark.parametrize("lie", ["image/png", "application/pdf", "text/csv", "application/x-msdownload", "image/bmp"])
def test_a_lying_declaration_changes_nothing(tmp_path: Path, suffix: str, lie: str) -> None:
    """It is a server's or a model's word: what is in the file counts."""
    assert of(tmp_path, KINDS[suffix], lie) == suffix


@pytest.mark.parametrize(
    ("declared", "suffix"),
    [
        ("audio/l16; rate=24000", "pcm"),
        ("AUDIO/PCM", "pcm"),
        ("model/stl", "stl"),
        ("text/csv; charset=latin-1", "csv"),
        ("image/png", "bin"),
        ("application/x-msdownload", "bin"),
        ("../../etc/passwd", "bin"),
        ("", "bin"),
        (None, "bin"),
    ],
)
def test_where_content_tells_nothing_a_declaration_may(tmp_path: Path, declared: str | None, suffix: str) -> None:
    """Save of a type that would show: a PNG that does not begin as one is none."""
    assert of(tmp_path, b"\xe4\0\xff\x01", declared) == suffix


@pytest.mark.parametrize(
    ("data", "declared", "suffix"),
    [
        pytest.param(b"", None, "bin", id="nothing"),
        pytest.param(b"", "text/plain", "txt", id="nothing, said to be text"),
        pytest.param(b"3", "application/json", "json", id="a number, said to be JSON"),
        pytest.param(b"3", None, "txt", id="a number"),
        pytest.param(b"{not json", "application/json", "txt", id="no JSON, whatever is said"),
        pytest.param(b'\xef\xbb\xbf{"a": 1}', None, "json", id="JSON behind a byte order mark"),
        pytest.param(b"[" * 100_000, None, "txt", id="brackets without end"),
        pytest.param(b"[" + b"1," * 5_000_000 + b"1]", None, "txt", id="JSON too long to look at"),
        pytest.param(b"[" + b"1," * 5_000_000 + b"1]", "application/json", "json", id="and said to be JSON"),
        pytest.param(("ä" * 40_000).encode() + b"\xff", None, "txt", id="long text, whose beginning counts"),
        pytest.param(b"a" + "ä".encode() * 40_000, None, "txt", id="a letter that the beginning cuts in two"),
        pytest.param("grüß".encode("latin-1"), None, "bin", id="text in another encoding"),
        pytest.param(b"\xff\xfe\x41\0", None, "bin", id="UTF-16, which begins almost like MP3"),
        pytest.param(b"\xff\xfb", None, "bin", id="an MP3 that is cut at once"),
        pytest.param(b"RIFF\0\0\0\0XXXX\0", None, "bin", id="RIFF of another kind"),
        pytest.param(b"\x1b[31mred", None, "bin", id="escapes of a terminal"),
        pytest.param(json.dumps({"asset": {"version": "2.0"}}).encode(), "application/json", "gltf", id="glTF in JSON"),
    ],
)
def test_what_is_at_the_edges(tmp_path: Path, data: bytes, declared: str | None, suffix: str) -> None:
    """Nothing raises, whatever a worker gives."""
    assert of(tmp_path, data, declared) == suffix
