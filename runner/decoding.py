"""The bytes that an artifact is made of: what a part of an output stands for, never more of it than is allowed."""

import base64
import binascii
import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from runner.scalars import found
from runner.units import size
from runner.values import JsonValue, dump

_DATA_URI = re.compile(r"data:([^,]*?)(;base64)?,", re.IGNORECASE)
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")
_SPACES = str.maketrans("", "", " \t\r\n")
_AT_ONCE = 64 * 1024
"""Characters whose escapes are taken at once: each is an object for a moment, and a text of megabytes may be full."""


class ArtifactError(Exception):
    """Raised when an artifact can't be made of what a run gave; the message says why."""


def content(kind: str, value: JsonValue, most_bytes: int) -> bytes:
    """
    The bytes of an artifact of *kind*, save ``url``: at most *most_bytes*, which is looked at before it is decoded.

    Raises:
        ArtifactError: *value* is not what the kind wants, or it is too much; the message says what was found.
    """
    data = _KINDS[kind](value, most_bytes)
    fits(len(data), most_bytes)
    return data


def fits(size_bytes: int, most_bytes: int) -> None:
    """
    Make sure that an artifact of *size_bytes* is within the limit.

    Raises:
        ArtifactError: it is not.
    """
    if size_bytes > most_bytes:
        raise ArtifactError(f"an artifact of {size(size_bytes)}, and {size(most_bytes)} is the most")


def declared(kind: str, value: JsonValue) -> str | None:
    """The media type that an artifact of *kind* says it has, save ``url``; None where nothing is said."""
    if kind == "data_uri":
        head = _data_uri(value)
        return head[1] if head else None
    return {"text": "text/plain", "json": "application/json"}.get(kind)


def _data_uri(value: JsonValue) -> re.Match[str] | None:
    return _DATA_URI.match(value[:1000]) if isinstance(value, str) else None


def _of_base64(value: JsonValue, most_bytes: int) -> bytes:
    if not isinstance(value, str):
        raise ArtifactError(f"expected a text in base64, found {found(value)}")
    text = value.translate(_SPACES)
    if text[:5].lower() == "data:":
        raise ArtifactError("expected a text in base64, found a data URI: write 'data_uri' in place of 'base64'")
    fits(len(text) * 3 // 4 - text[-2:].count("="), most_bytes)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        odd = _NOT_BASE64.search(text)
        why = f"character {found(odd[0])} at {odd.start() + 1}" if odd else f"{len(text)} characters, not whole groups"
        raise ArtifactError(f"this is not base64: {why}") from None


def _of_data_uri(value: JsonValue, most_bytes: int) -> bytes:
    head = _data_uri(value)
    if head is None:
        raise ArtifactError(f"expected a data URI, found {found(value)}")
    rest = value[head.end() :]
    return _of_base64(rest, most_bytes) if head[2] else _unescaped(rest, most_bytes)


def _unescaped(text: str, most_bytes: int) -> bytes:
    """*text* without its percent escapes, piece by piece."""
    fits(-(-len(text) // 3), most_bytes)  # all of it may be escapes
    made, start = bytearray(), 0
    while start < len(text):
        end = start + _AT_ONCE
        last = text.rfind("%", end - 2, end)
        end = last if last > start else end  # an escape stays whole
        made += unquote_to_bytes(_encoded(text[start:end]))
        fits(len(made), most_bytes)
        start = end
    return bytes(made)


def _of_text(value: JsonValue, most_bytes: int) -> bytes:
    if not isinstance(value, str):
        raise ArtifactError(f"expected a text, found {found(value)}")
    fits(len(value), most_bytes)
    return _encoded(value)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ArtifactError("this text has a lone surrogate, which no file in UTF-8 can have") from None


def _of_json(value: JsonValue, _most_bytes: int) -> bytes:
    return dump(value) + b"\n"


_KINDS: dict[str, Callable[[JsonValue, int], bytes]] = {
    "base64": _of_base64,
    "data_uri": _of_data_uri,
    "text": _of_text,
    "json": _of_json,
}
