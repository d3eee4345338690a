"""The lines of results.jsonl as a table: which columns there are, and what each takes of a line."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from functools import partial
from operator import methodcaller
from typing import Any, Self

from runner.records import record
from runner.values import MISSING, JsonObject, JsonValue

FIRST = ("key", "job", "index", "state", "outcome", "status")
LAST = (
    *("job_id", "worker_id", "attempts", "delay_time_ms", "execution_time_ms"),
    *("submitted_at", "settled_at", "artifacts", "reused_from", "cost_usd"),
)
FIELDS = (*FIRST, "row", "matrix", "repeat", "input", "output", "error", *LAST)
"""
The fields of a line; ``output`` is only there when there was one, ``reused_from`` when another batch made it,
``cost_usd`` when the last attempt told what it cost.
"""

MOST_OUTPUT_KEYS = 100
"""Outputs that have more keys than this together are data by name, not records: none of their keys is a column."""

MOST_CHARACTERS = 10_000
"""A key of outputs that has a longer text anywhere is no column: it would stand in the file twice."""


class Type(StrEnum):
    """What the values of a column are, where a column has a type. Null is of every type."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    TEXT = "text"
    TIME = "time"
    """As results.jsonl writes times."""
    TEXTS = "texts"
    """Lists of texts."""
    JSON = "json"
    """Anything, as the JSON that says it."""


TYPES: Mapping[str, Type] = {
    **dict.fromkeys(("index", "repeat", "attempts", "delay_time_ms", "execution_time_ms"), Type.INT),
    **dict.fromkeys(("submitted_at", "settled_at"), Type.TIME),
    "artifacts": Type.TEXTS,
    "cost_usd": Type.FLOAT,
}
"""The types of our own fields that are no texts."""


ROW_KEYS: Mapping[str, tuple[str, ...]] = {
    "job": ("job", "key", "index", "row", "matrix", "repeat", "output", "artifacts"),
    "folder": ("path", "name", "stem", "suffix", "size_bytes", "sha256"),
    "openai": ("custom_id", "method", "url", "body"),
}
"""The keys that rows have in any case, by what they come from."""

COLLECTED = ("runs",)
"""Those of the one row that collects the runs of a job."""


@record(frozen=True, slots=True)
class Column:
    """
    A column: its name, and what it takes of a line; `MISSING` when the line has nothing there.

    *type* is what its values are when they fit it, and what it has where there are none.
    """

    name: str
    take: Callable[[JsonObject], JsonValue]
    type: Type = Type.TEXT


def column(path: str) -> Column:
    """The column of a dotted *path* such as ``output.images.0.url``: keys of objects, positions in lists."""
    take = partial(_pick, path) if "." in path else methodcaller("get", path, MISSING)
    return Column(path, take, TYPES.get(path, Type.TEXT))


@record(frozen=True, slots=True)
class Keys:
    """Keys that rows and the matrix have, as far as they are known without any line."""

    rows: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()

    @classmethod
    def planned(cls, manifest: JsonObject, jobs: Collection[str] = ()) -> Self:
        """Those that the batch of *manifest* was started with, of *jobs* alone where some are named."""
        rows: dict[str, None] = {}
        axes: dict[str, None] = {}
        for name, job in manifest.get("spec", {}).get("jobs", {}).items():
            if name in manifest["plan"] and (not jobs or name in jobs):
                given: Mapping[str, Any] = job["rows"]
                for row in given.get("inline") or ():
                    rows |= dict.fromkeys(row)
                for source, keys in ROW_KEYS.items():
                    if given.get(source) is not None:
                        rows |= dict.fromkeys(COLLECTED if given.get("collect") else keys)
                for combination in (given.get("matrix") or {}, *(given.get("include") or ())):
                    axes |= dict.fromkeys(combination)
        return cls(tuple(rows), tuple(axes))


def default_columns(lines: Iterable[JsonObject], known: Keys | None = None) -> list[Column]:
    """
    The columns of *lines*, which are read once.

    There is one for each key that a row or the matrix has in any of them, those that are *known* first; and one for
    each key of outputs that are objects, if it has nothing but numbers, texts, true, false and null in all of them.
    """
    known = known or Keys()
    rows, axes = dict.fromkeys(known.rows), dict.fromkeys(known.axes)
    outputs: dict[str, bool] = {}  # whether the key can be a column
    for line in lines:
        for key in line["row"] or ():
            rows[key] = None
        for key in line["matrix"] or ():
            axes[key] = None
        output = line.get("output")
        if type(output) is dict and len(outputs) <= MOST_OUTPUT_KEYS:
            for key, value in output.items():
                outputs[key] = outputs.get(key, True) and _is_short(value)
    if len(outputs) > MOST_OUTPUT_KEYS:
        outputs = {}
    return [
        *map(column, FIRST),
        *(Column(f"row.{key}", partial(_given, "row", key)) for key in rows),
        *(Column(f"matrix.{key}", partial(_given, "matrix", key)) for key in axes),
        column("repeat"),
        column("output"),
        *(Column(f"output.{key}", partial(_given, "output", key)) for key, is_column in outputs.items() if is_column),
        Column("error", partial(_given, "error", "message")),
        Column("error_type", partial(_given, "error", "type")),
        *map(column, LAST),
    ]


def _is_short(value: JsonValue) -> bool:
    return len(value) <= MOST_CHARACTERS if isinstance(value, str) else not isinstance(value, dict | list)


def named_apart(columns: Iterable[Column]) -> list[Column]:
    """*columns* with names that UTF-8 can have, no two of them the same."""
    found: dict[str, Column] = {}
    for one in columns:
        name = plain = one.name.encode("utf-8", "backslashreplace").decode()
        number = 1
        while name in found:
            number += 1
            name = f"{plain}_{number}"
        found[name] = replace(one, name=name)
    return list(found.values())


def _given(field: str, key: str, line: JsonObject) -> JsonValue:
    given = line.get(field)
    return given.get(key, MISSING) if type(given) is dict else MISSING


def _pick(path: str, value: JsonValue) -> JsonValue:
    """What stands at *path* in *value*. A key may have dots in it: the longest key that fits is taken."""
    if isinstance(value, list):
        number, _, rest = path.partition(".")
        if not number.isdecimal() or int(number) >= len(value):
            return MISSING
        return _pick(rest, value[int(number)]) if rest else value[int(number)]
    if not isinstance(value, dict):
        return MISSING
    if path in value:
        return value[path]
    end = path.rfind(".")
    while end > 0:
        if path[:end] in value:
            return _pick(path[end + 1 :], value[path[:end]])
        end = path.rfind(".", 0, end)
    return MISSING
