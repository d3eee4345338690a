"""The results as CSV, for spreadsheets too: no cell can become a formula."""

import re
from collections.abc import Sequence

from runner.sinks.base import Source, Write
from runner.tables import Column
from runner.values import MISSING, JsonObject, JsonValue, dump


def write(source: Source, write: Write) -> None:
    """A header, and a row for each line; nothing stands for null, JSON for lists and objects."""
    columns = source.columns()
    write(head(columns))
    for _, line in source.lines():
        write(row(columns, line))


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
    if type(value) is int:
        return str(value)
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
