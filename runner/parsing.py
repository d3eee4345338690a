"""Parse the JSON of answers without holding up the event loop: big ones in threads, the biggest one at a time."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import orjson

from runner.spool import Spool
from runner.values import JsonValue, has_long_integer, is_deeper, parse_foreign

INLINE_BYTES: Final = 500_000
"""Up to here parsing takes a few milliseconds, and a thread would cost more than it gives."""

SMALL_BYTES = 1024
"""Up to here one search of the text costs less than looking at what was parsed."""

FEW_VALUES = 300
"""So many values are looked at one by one; a longer answer has its text searched instead."""

MAX_DEPTH: Final = 200
"""Levels of nesting that an answer may have: the JSON that we write of it must be readable for everybody."""

# One thread for all that is in files, whichever loop asks: so memory holds one such answer and what it parses to.
# Its thread starts with the first of them. What waits for it waits on disk.
_biggest = ThreadPoolExecutor(1, thread_name_prefix="parse")


async def parse_answer(body: Spool) -> JsonValue:
    """
    The JSON value in *body*.

    Raises:
        ValueError, RecursionError: no JSON reader takes it, or it nests so deeply that we could not write it again.
        Unkept: its file can't be read.
    """
    if body.is_in_file:
        return await asyncio.get_running_loop().run_in_executor(_biggest, _parse_file, body)
    if body.size_bytes > INLINE_BYTES:
        return await asyncio.to_thread(parse, body.whole())
    return parse(body.whole())


def _parse_file(body: Spool) -> JsonValue:
    return parse(body.whole())


def parse(text: bytes) -> JsonValue:
    """The JSON value in *text*, as `parse_answer` has it."""
    if len(text) <= SMALL_BYTES:
        value = parse_foreign(text)
    else:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = parse_foreign(text)
        else:
            if _is_plain(value):
                return value
            if has_long_integer(text):
                value = parse_foreign(text)
    # Deep only if it has that many brackets: counting them is nothing beside parsing.
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and is_deeper(value, MAX_DEPTH):
        raise ValueError("an answer that is nested too deeply")
    return value


def _is_plain(value: JsonValue) -> bool:
    """
    Whether *value*, as orjson has it, is surely what its text says, and not nested too deeply.

    orjson makes floats of integers that do not fit 64 bit. An image as base64 is megabytes of text in a few values, so
    that looking at these is a thousand times as fast as searching the text for long integers.
    """
    level = [value]
    seen = 0
    for _ in range(MAX_DEPTH):
        seen += len(level)
        below: list[JsonValue] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
            elif isinstance(one, list):
                below += one
            elif isinstance(one, float) and not -(2.0**63) < one < 2.0**63:
                return False
        if not below:
            return True
        if seen + len(below) > FEW_VALUES:
            return False
        level = below
    return False
