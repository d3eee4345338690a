"""The lines of results.jsonl as a table: which columns there are, and what stands in a cell of CSV."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from runner.values import MISSING, JsonObject, JsonValue, dump

FIRST = ("key", "job", "index", "state", "outcome", "status")
LAST = (
    *("job_id", "worker_id", "attempts", "delay_time_ms", "execution_time_ms"),
    *("submitted_at", "settled_at", "artifacts"),
)
FIELDS = (*FIRST, "row", "matrix", "repeat", "input", "output", "error", *LAST)
"""The fields of a line. ``output`` is not there when there was none."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, and what it takes of a line; `MISSING` when the line has nothing there."""

    name: str
    take: Callable[[JsonObject], JsonValue]


def column(path: str) -> Column:
    """The column of a dotted *path* such as ``output.images.0.url``: keys of objects, positions in lists."""
    return Column(path, partial(_pick, path))


def default_columns(lines: Iterable[JsonObject]) -> list[Column]:
    """The columns of *lines*, which are read once: one for each key that a row or the matrix has in any of them."""
    rows: dict[str, None] = {}
    axes: dict[str, None] = {}
    for line in lines:
        for key in line["row"] or ():
            rows[key] = None
        for key in line["matrix"] or ():
            axes[key] = None
    return [
        *map(column, FIRST),
        *(Column(f"row.{key}", partial(_given, "row", key)) for key in rows),
        *(Column(f"matrix.{key}", partial(_given, "matrix", key)) for key in axes),
        column("repeat"),
        column("output"),
        Column("error", partial(_given, "error", "message")),
        Column("error_type", partial(_given, "error", "type")),
        *map(column, LAST),
    ]


def _given(field: str, key: str, line: JsonObject) -> JsonValue:
    return (line[field] or {}).get(key, MISSING)


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


def head(columns: Sequence[Column]) -> bytes:
    """The header of a CSV file."""
    return _csv([_text(column.name) for column in columns])


def row(columns: Sequence[Column], line: JsonObject) -> bytes:
    """The row of *line* in a CSV file."""
    return _csv([cell(column.take(line)) for column in columns])


def cell(value: JsonValue) -> str:
    """
    *value* as text in a cell: nothing for null and for what is not there, lists and objects as compact JSON.

    A text that a spreadsheet would take for a formula gets an apostrophe before it; numbers never do.
    """
    if isinstance(value, str):
        return _text(value)
    return "" if value is None or value is MISSING else dump(value).decode()


# As OWASP advises against CSV injection: also what looks like these signs to some spreadsheets, or hides them.
_FORMULA = tuple("=+-@\t\r\n\0＝＋－＠")
_QUOTED = re.compile('[",\r\n]|^ | $')


def _text(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(cells: Sequence[str]) -> bytes:
    # By hand: the csv module leaves a lone \r unquoted unless lines end in it, and a file for Unix should not have it.
    text = ",".join(['"' + one.replace('"', '""') + '"' if _QUOTED.search(one) else one for one in cells])
    if not text:
        text = '""'  # a line with nothing on it is no row to many readers
    return (text + "\n").encode("utf-8", "backslashreplace")
