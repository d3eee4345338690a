"""
Read jsonl: a JSON object a line, blank lines skipped.

The standard library has the last word: orjson reads integers beyond 64 bit as floats and sees no duplicate key. It
reads the lines of which that can't be so: flat ones, which most are.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson

from runner.inputs.base import BadRow, Report, Tape
from runner.spec import found
from runner.values import JsonObject, JsonValue

MAX_DEPTH = 64
_SPACED_COLONS = (b" :", b"\t:", b"\r:")
_LONG = 2.0**63
_TRAILING = re.compile(r",\s*([}\]])")


def read(tape: Tape, report: Report) -> Iterator[JsonObject]:
    """The rows of a jsonl file."""
    for data in tape.lines():
        if (row := _surely(data)) is not None:
            yield row
            continue
        if data.isspace():
            continue
        text = ""
        try:
            text = tape.text(data)
            yield _row(text)
        except BadRow as bad:
            report(bad)
        except json.JSONDecodeError as error:
            index, message, fix = complaint(error)
            report(BadRow(tape.line, index + 1, message, fix or "write one object a line", text))
        except (ValueError, RecursionError) as error:
            report(BadRow(tape.line, 1, str(error) if type(error) is ValueError else "nested too deeply", None, text))


def _surely(data: bytes) -> JsonObject | None:
    """The row in *data*, where orjson surely reads it as the standard library does; None where it might not."""
    try:
        row = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if type(row) is not dict or b"[" in data or data.count(b"{") != 1:
        return None
    # No key is there twice if there are as many as colons that can stand behind one.
    keys = len(row)
    if data.count(b":") != keys and data.count(b'":') + sum(map(data.count, _SPACED_COLONS)) != keys:
        return None
    for value in row.values():
        if type(value) is float and not -_LONG < value < _LONG:  # perhaps an integer
            return None
    return row


def _row(text: str) -> JsonObject:
    return checked(DECODER.decode(text.strip("\r\n")), text)


def checked(row: JsonValue, text: str) -> JsonObject:
    """
    *row*, when a request can carry it; *text* is what it was read from.

    Raises:
        ValueError: it is no object, too deep, or holds half a character.
    """
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, found {found(row)}")
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(row) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if "\\u" in text:  # an escape may stand for half a character, which no request could carry
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("half a surrogate pair is no character") from None
    return row


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key '{twice}'")
    return result


def _constant(word: str) -> None:
    raise ValueError(f"JSON has no number '{word}'")


def _float(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(f"number {found(text)} is too large")
    return number


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
"""Reads what JSON is, and no more: no duplicate keys, no NaN, no number that a float can't hold."""


def _depth(value: JsonValue) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, items), default=0)


def complaint(error: json.JSONDecodeError) -> tuple[int, str, str | None]:
    """Where the decoder has stopped in its text, why, and what to do about it: alike in every version of Python."""
    comma = error.doc.rfind(",", 0, error.pos + 1)
    trailing = _TRAILING.match(error.doc, comma) if comma >= 0 else None
    if trailing is not None and error.pos < trailing.end():
        return comma, f"not JSON: a comma before the closing '{trailing[1]}'", "remove it"
    return error.pos, f"not JSON: {error.msg[:1].lower()}{error.msg[1:]}", None
