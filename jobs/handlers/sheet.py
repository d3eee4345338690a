"""Lay small pictures out on one sheet, with nothing but the standard library."""

import base64
import struct
import zlib
from typing import Any

GAP = 4
PAPER = bytes((245, 243, 238))


def handler(job: dict[str, Any]) -> dict[str, Any]:
    """One PNG of all ``images`` (base64 of PNGs of one size), ``columns`` side by side."""
    given = job["input"]
    pictures = [pixels(base64.b64decode(image)) for image in given["images"]]
    columns = min(int(given["columns"]), len(pictures))
    width, height = len(pictures[0][0]) // 3, len(pictures[0])
    lines: list[bytes] = []
    for start in range(0, len(pictures), columns):
        lines += [b""] * GAP
        row = pictures[start : start + columns]
        lines += [PAPER * GAP + b"".join(one[y] + PAPER * GAP for one in row) for y in range(height)]
    across = GAP + columns * (width + GAP)
    filled = [line + PAPER * (across - len(line) // 3) for line in [*lines, *[b""] * GAP]]
    return {"image": base64.b64encode(png(filled)).decode(), "pictures": len(pictures)}


def pixels(data: bytes) -> list[bytes]:
    """The lines of a PNG of 8 bits a channel without filters, as `horse.py` draws it, from the top."""
    at, body = 8, b""
    width, height, *form = struct.unpack_from(">IIBBBBB", data, 16)
    if data[:8] != b"\x89PNG\r\n\x1a\n" or form != [8, 2, 0, 0, 0]:
        raise ValueError("expected a PNG in RGB")
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"IDAT":
            body += data[at + 8 : at + 8 + length]
        at += 12 + length
    lines, step = zlib.decompress(body), 1 + 3 * width
    return [lines[y * step + 1 : (y + 1) * step] for y in range(height)]


def png(lines: list[bytes]) -> bytes:
    """*lines* of RGB as a PNG."""
    header = struct.pack(">IIBBBBB", len(lines[0]) // 3, len(lines), 8, 2, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + line for line in lines), 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    )
