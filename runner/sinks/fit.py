"""Find the type that fits every value of a column, so that no value has to change. Pure."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from runner.clock import iso
from runner.tables import Column, Type
from runner.values import MISSING, JsonObject, JsonValue

# What was seen of a column, one bit each.
BOOL, INT, LONG, FLOAT, TEXT, TIME, TEXTS, OTHER = (1 << n for n in range(8))

_EXACT = 2**53
"""Every integer up to here is a double, too."""

_TYPES = {
    BOOL: Type.BOOL,
    INT: Type.INT,
    LONG: Type.INT,
    INT | LONG: Type.INT,
    FLOAT: Type.FLOAT,
    INT | FLOAT: Type.FLOAT,
    TEXT: Type.TEXT,
    TIME: Type.TIME,
    TEXTS: Type.TEXTS,
}


def fitting(columns: Sequence[Column], lines: Iterable[JsonObject]) -> list[Type]:
    """
    The type of each of *columns* that every value in *lines* fits as it is; JSON where there is none.

    Null, and what is not there, fits all. Whole numbers fit doubles as far as doubles have them all.
    """
    seen = [0] * len(columns)
    told = [(number, column.take, _BITS_OF.get(column.type, _bits)) for number, column in enumerate(columns)]
    for line in lines:
        for number, take, bits in told:
            value = take(line)
            if value is not None and value is not MISSING:
                seen[number] |= bits(value)
    return [_TYPES.get(one, Type.JSON) if one else column.type for one, column in zip(seen, columns, strict=True)]


def _bits(value: JsonValue) -> int:
    kind = type(value)
    if kind is str:
        return TEXT if _is_utf8(value) else OTHER
    if kind is int:
        if -_EXACT <= value <= _EXACT:
            return INT
        return LONG if -(2**63) <= value < 2**63 else OTHER
    return BOOL if kind is bool else FLOAT if kind is float else OTHER


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can say
        return False
    return True


def _time_bits(value: JsonValue) -> int:
    if type(value) is not str:
        return _bits(value)
    try:
        is_ours = iso(moment(value).timestamp()) == value
    except (ValueError, OverflowError):
        is_ours = False
    return TIME if is_ours else _bits(value)


def moment(text: str) -> datetime:
    """The time that *text* says, as results.jsonl has it."""
    return datetime.fromisoformat(text)


def _texts_bits(value: JsonValue) -> int:
    if type(value) is list and all(type(one) is str and _is_utf8(one) for one in value):
        return TEXTS
    return _bits(value)


_BITS_OF: dict[Type, Callable[[JsonValue], int]] = {Type.TIME: _time_bits, Type.TEXTS: _texts_bits}
