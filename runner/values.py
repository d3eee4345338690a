"""JSON values: their types, the mark for "no value at all", and one canonical text for each."""

import json
import re
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

import orjson

JsonValue = Any
"""Any JSON value. ``Any`` on purpose: users' data has no shape that a checker could hold us to."""

JsonObject = dict[str, Any]
"""A JSON object."""


class Missing(Enum):
    """The type of `MISSING`."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING
"""Stands where a key was not there at all; null is a value."""


_DIGITS: Final = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))
_LONG: Final = 19
_WINDOW_BYTES: Final = 1024 * 1024


def has_long_integer(text: bytes) -> bool:
    """Whether so many digits stand in a row in *text* that they may not fit 64 bit."""
    for start in range(0, len(text), _WINDOW_BYTES):  # ten times as fast as a regular expression
        if b"0" * _LONG in text[start : start + _WINDOW_BYTES + _LONG - 1].translate(_DIGITS):
            return True
    return False


def parse(data: bytes) -> JsonValue:
    """
    The JSON value in *data*, integers of any size and NaN kept as Python has them.

    orjson reads integers beyond 64 bit as floats and refuses NaN, so such texts go to the standard library.

    Raises:
        ValueError: no JSON reader takes it.
    """
    return _parse(data, float)


def parse_foreign(data: bytes) -> JsonValue:
    """
    The JSON value in *data*, as `parse` has it, but ``NaN``, ``Infinity`` and ``-Infinity`` become texts.

    It is for answers that end up in files of ours: as numbers no other JSON reader would take these files, and as
    null nobody would see that there was something.

    Raises:
        ValueError: no JSON reader takes it.
    """
    return _parse(data, str)


def _parse(data: bytes, constant: Callable[[str], object]) -> JsonValue:
    if not has_long_integer(data):
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass
    return json.loads(data, parse_constant=constant)


ROOMY_BYTES: Final = range(16 * 1024, 4 * 1024 * 1024)
"""
Lines of such lengths are copied once: orjson leaves room for eight times a long text. Of longer ones the system has
that room by itself, where the C library takes it from there, and it stays without memory as long as nobody uses it.
"""


def dump_line(value: JsonValue) -> bytes:
    """As `dump`, and a newline; in no more memory than it needs."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return dump(value) + b"\n"
    return bytes(memoryview(text)) if len(text) in ROOMY_BYTES else text


def dump(value: JsonValue) -> bytes:
    """
    *value* as one line of compact JSON, UTF-8, keys in their own order. What orjson refuses, the stdlib writes.

    A lone surrogate, which UTF-8 can't have, stands as its escape, so that every reader takes the line.

    Raises:
        TypeError: a value in it is not JSON's.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode() if text.isprintable() else _SURROGATES.sub(_escape, text).encode()


_SURROGATES = re.compile("[\ud800-\udfff]")


def _escape(surrogate: re.Match[str]) -> str:
    return f"\\u{ord(surrogate[0]):04x}"


def canonical(value: JsonValue) -> bytes:
    """*value* as the one text that equal values share: sorted keys, no spaces."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        return text.encode("utf-8", "surrogatepass")


def is_deeper(value: JsonValue, most: int) -> bool:
    """Whether lists and objects in *value* nest more than *most* levels deep."""
    level = [value]
    for _ in range(most + 1):
        level = [
            child
            for one in level
            if isinstance(one, list | dict)
            for child in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True
