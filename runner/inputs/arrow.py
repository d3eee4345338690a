"""
Columns of Arrow as JSON values: a value is the same in JSON, or a text by the one rule of its type, or refused.

    integers, floats, booleans, text, null     themselves; NaN and infinity are refused
    decimal                                    text, every digit kept: "12.50"
    date                                       text: "2026-11-23"
    timestamp                                  text: "2026-11-23T02:23:12.5"; in UTC, with a Z, where it has a time zone
    time                                       text: "02:23:12.5"
    binary                                     text in base64
    list, struct                               list, object
    map whose keys are text                    object
    dictionary, extension                      as what they stand for; a UUID is its text
    anything else                              the file is refused
"""

import base64
import datetime
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

import pyarrow
from pyarrow import types

from runner.values import JsonValue

MAX_DEPTH = 64


class Refused(Exception):
    """Raised for a type that has no form in JSON; the message says which."""


class Values(NamedTuple):
    """The values of a column, and why some can't be had, by their positions."""

    values: list[JsonValue]
    bad: dict[int, str]


Convert = Callable[[Any], Values]
"""Takes an Arrow array of one type."""


def converter(kind: Any, name: str, depth: int = 1) -> Convert:
    """What converts columns of the type *kind*; messages call it *name*.

    Raises:
        Refused: there is no rule for the type, or for one in it.
    """
    if depth > MAX_DEPTH:
        raise Refused(f"column '{name}' is nested deeper than {MAX_DEPTH} levels")
    for is_it, make in _RULES:
        if is_it(kind):
            return make(kind, name, depth)
    raise Refused(f"column '{name}' is of the type {kind}, which has no form in JSON")


def _as_is(kind: Any, name: str, depth: int) -> Convert:
    return lambda array: Values(array.to_pylist(), {})


def _each(read: Callable[[Any], list[Any]], write: Callable[[Any], JsonValue], name: str) -> Convert:
    """Converts each value by itself; what *write* raises a ValueError for is bad."""

    def convert(array: Any) -> Values:
        values: list[JsonValue] = []
        bad: dict[int, str] = {}
        for index, value in enumerate(read(array)):
            try:
                values.append(None if value is None else write(value))
            except (ValueError, OverflowError) as error:
                values.append(None)
                bad[index] = f"column '{name}': {error}"
        return Values(values, bad)

    return convert


def _listed(array: Any) -> list[Any]:
    return list(array.to_pylist())


def _whole(bits: Any) -> Callable[[Any], list[Any]]:
    """Reads what is a whole number within: Python's own types of time are too coarse, or end too early."""
    return lambda array: list(array.cast(bits).to_pylist())


def _float(kind: Any, name: str, depth: int) -> Convert:
    def write(value: float) -> float:
        if not math.isfinite(value):
            word = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
            raise ValueError(f"JSON has no number '{word}'")
        return value

    return _each(_listed, write, name)


def _text(kind: Any, name: str, depth: int) -> Convert:
    bytes_ = pyarrow.large_binary() if types.is_large_string(kind) else pyarrow.binary()

    def write(value: bytes) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError("a text is not UTF-8") from None

    careful = _each(lambda array: list(array.cast(bytes_).to_pylist()), write, name)

    def convert(array: Any) -> Values:
        try:
            return Values(array.to_pylist(), {})
        except UnicodeDecodeError:
            return careful(array)

    return convert


def _binary(kind: Any, name: str, depth: int) -> Convert:
    return _each(_listed, lambda value: base64.b64encode(value).decode(), name)


def _decimal(kind: Any, name: str, depth: int) -> Convert:
    return _each(_listed, lambda value: f"{value:f}", name)


_EPOCH = datetime.date(1970, 1, 1).toordinal()
_DAY_S = 24 * 60 * 60
_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _day(days: int) -> str:
    try:
        return datetime.date.fromordinal(_EPOCH + days).isoformat()
    except (ValueError, OverflowError):
        raise ValueError("a date is not in the years 1 to 9999") from None


def _clock(value: int, unit: str) -> str:
    """The time of a day, *value* units after midnight, with as many digits as it has."""
    seconds, rest = divmod(value, _A_SECOND[unit])
    if not 0 <= seconds < _DAY_S:
        raise ValueError("a time is not within a day")
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    digits = f"{rest:0{len(str(_A_SECOND[unit])) - 1}}".rstrip("0")
    return f"{text}.{digits}" if rest else text


def _date32(kind: Any, name: str, depth: int) -> Convert:
    return _each(_whole(pyarrow.int32()), _day, name)


def _date64(kind: Any, name: str, depth: int) -> Convert:
    def write(value: int) -> str:
        days, rest = divmod(value, _DAY_S * 1000)
        if rest:
            raise ValueError("a date has a time of day")
        return _day(days)

    return _each(_whole(pyarrow.int64()), write, name)


def _timestamp(kind: Any, name: str, depth: int) -> Convert:
    a_day, zone = _DAY_S * _A_SECOND[kind.unit], "" if kind.tz is None else "Z"

    def write(value: int) -> str:
        days, rest = divmod(value, a_day)
        return f"{_day(days)}T{_clock(rest, kind.unit)}{zone}"

    return _each(_whole(pyarrow.int64()), write, name)


def _time(kind: Any, name: str, depth: int) -> Convert:
    bits = pyarrow.int32() if types.is_time32(kind) else pyarrow.int64()
    return _each(_whole(bits), lambda value: _clock(value, kind.unit), name)


def _dictionary(kind: Any, name: str, depth: int) -> Convert:
    inner = converter(kind.value_type, name, depth)
    return lambda array: inner(array.dictionary_decode())


def _extension(kind: Any, name: str, depth: int) -> Convert:
    if kind.extension_name == "arrow.uuid":
        return _each(lambda array: list(array.storage.to_pylist()), lambda value: str(UUID(bytes=value)), name)
    inner = converter(kind.storage_type, name, depth)
    return lambda array: inner(array.storage)


def _list(kind: Any, name: str, depth: int) -> Convert:
    inner = converter(kind.value_type, f"{name}[]", depth + 1)

    def convert(array: Any) -> Values:
        items, bad_items = inner(array.flatten())
        parts = list(_parts(array.value_lengths().to_pylist()))
        values = [None if part is None else items[part.start : part.stop] for part in parts]
        return Values(values, _of_parts(parts, bad_items))

    return convert


def _parts(lengths: list[int | None]) -> Iterator[range | None]:
    start = 0
    for length in lengths:
        yield None if length is None else range(start, start + length)
        start += length or 0


def _of_parts(parts: list[range | None], bad: dict[int, str]) -> dict[int, str]:
    """What is wrong with the parts, where that is known of what is in them."""
    if not bad:
        return {}
    whole = ((index, next((bad[n] for n in part or () if n in bad), None)) for index, part in enumerate(parts))
    return {index: message for index, message in whole if message is not None}


def _map(kind: Any, name: str, depth: int) -> Convert:
    if not (types.is_string(kind.key_type) or types.is_large_string(kind.key_type)):
        raise Refused(f"column '{name}' is a map whose keys are {kind.key_type}, and JSON's are text")
    key, value = converter(kind.key_type, name, depth), converter(kind.item_type, f"{name}{{}}", depth + 1)
    pairs = pyarrow.struct([pyarrow.field("key", kind.key_type), pyarrow.field("value", kind.item_type)])

    def convert(array: Any) -> Values:
        keys, items = array.cast(pyarrow.list_(pairs)).flatten().flatten()
        (names, bad_names), (values, bad_values) = key(keys), value(items)
        parts = list(_parts(array.cast(pyarrow.list_(pairs)).value_lengths().to_pylist()))
        bad = _of_parts(parts, bad_names | bad_values)
        objects: list[JsonValue] = []
        for index, part in enumerate(parts):
            made = None if part is None else {names[n]: values[n] for n in part}
            if made is not None and part is not None and len(made) != len(part):
                bad.setdefault(index, f"column '{name}': a key is there twice")
            objects.append(made)
        return Values(objects, bad)

    return convert


def _struct(kind: Any, name: str, depth: int) -> Convert:
    fields = [kind.field(index) for index in range(kind.num_fields)]
    names = [field.name for field in fields]
    if len(set(names)) != len(names):
        raise Refused(f"column '{name}' has two fields of one name")
    parts = [converter(field.type, f"{name}.{field.name}", depth + 1) for field in fields]

    def convert(array: Any) -> Values:
        columns = [part(column) for part, column in zip(parts, array.flatten(), strict=True)]
        there = array.is_valid().to_pylist()
        rows = zip(*(column.values for column in columns), strict=True) if columns else iter([()] * len(there))
        made = zip(rows, there, strict=True)
        values = [dict(zip(names, row, strict=True)) if is_there else None for row, is_there in made]
        bad: dict[int, str] = {}
        for column in columns:
            bad = column.bad | bad
        return Values(values, bad)

    return convert


def _is_any(*names: str) -> Callable[[Any], bool]:
    tests = [getattr(types, f"is_{name}") for name in names]
    return lambda kind: any(test(kind) for test in tests)


_RULES: list[tuple[Callable[[Any], bool], Callable[[Any, str, int], Convert]]] = [
    (lambda kind: isinstance(kind, pyarrow.BaseExtensionType), _extension),
    (_is_any("null", "boolean", "integer"), _as_is),
    (_is_any("floating"), _float),
    (_is_any("string", "large_string", "string_view"), _text),
    (_is_any("binary", "large_binary", "fixed_size_binary", "binary_view"), _binary),
    (_is_any("decimal"), _decimal),
    (_is_any("date32"), _date32),
    (_is_any("date64"), _date64),
    (_is_any("timestamp"), _timestamp),
    (_is_any("time32", "time64"), _time),
    (_is_any("dictionary"), _dictionary),
    (_is_any("map"), _map),
    (_is_any("list", "large_list", "fixed_size_list", "list_view", "large_list_view"), _list),
    (_is_any("struct"), _struct),
]
"""Which rule is for which types; the first that fits."""
