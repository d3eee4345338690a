"""
Read json and yaml: one list of mappings, which is a file's whole content.

Such a file is held in memory, so it may not be large; jsonl is for that. Json is read by the rules of jsonl, yaml by
those of job files, so that `no` and `1:30` stay text and a duplicate key is told.
"""

import json
import re
from collections.abc import Generator, Iterator

from runner import load
from runner.inputs import jsonl
from runner.inputs.base import BadRow, Report, Tape
from runner.lines import BREAK, Fault
from runner.spec import found
from runner.values import JsonObject

MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_YAML_BYTES = 8 * 1024 * 1024
"""As for a job file: reading YAML takes a second for 2 MB."""

_SPACE = re.compile(r"[ \t\n\r]*")
_LIST_FIX = "write one list of objects: [{…}, {…}]"


def read_json(tape: Tape, report: Report) -> Iterator[JsonObject]:
    """The rows of a json file."""
    text = _text(tape, MAX_JSON_BYTES)
    index = _space(text, 0)
    if not text.startswith("[", index):
        raise _at(text, index, "expected a list of objects", _LIST_FIX)
    index = _space(text, index + 1)
    if text.startswith("]", index):
        index += 1
    else:
        index = yield from _items(text, index, report)
    index = _space(text, index)
    if index < len(text):
        raise _at(text, index, "expected the end of the file after the list", _LIST_FIX)


def _items(text: str, index: int, report: Report) -> Generator[JsonObject, None, int]:
    """The objects of a list whose first starts at *index*; returns where the list has ended."""
    while True:
        try:
            row, end = jsonl.DECODER.raw_decode(text, index)
        except json.JSONDecodeError as error:
            raise _at(text, *jsonl.complaint(error)) from None
        except (ValueError, RecursionError) as error:
            raise _at(text, index, str(error) if type(error) is ValueError else "nested too deeply") from None
        try:
            yield jsonl.checked(row, text[index:end])
        except ValueError as error:
            report(_at(text, index, str(error)))
        index = _space(text, end)
        if text.startswith("]", index):
            return index + 1
        if not text.startswith(",", index):
            raise _at(text, index, "expected ',' or ']' after an object")
        comma, index = index, _space(text, index + 1)
        if text.startswith("]", index):
            raise _at(text, comma, "a comma after the last object", "remove it")


def read_yaml(tape: Tape, report: Report) -> Iterator[JsonObject]:
    """The rows of a yaml file."""
    text = _text(tape, MAX_YAML_BYTES)
    try:
        items, faults = load.read_list(text)
    except Fault as fault:
        raise _fault(text, fault) from None
    for each in faults:
        report(_fault(text, each))
    for line, column, row in items:
        if isinstance(row, dict):
            yield row
        else:
            report(_fault(text, Fault(line, column, f"expected a mapping, found {found(row)}")))


def _text(tape: Tape, most_bytes: int) -> str:
    """The whole file as text.

    Raises:
        BadRow: it is too large, or no text.
    """
    parts, length = [], 0
    for line in tape.lines():
        length += len(line)
        if length > most_bytes:
            message = f"a file of this kind has at most {most_bytes // 2**20} MiB, for it is held in memory"
            raise BadRow(1, 1, message, "write the rows as jsonl: an object a line")
        parts.append(tape.text(line))
    return "".join(parts)


def _space(text: str, index: int) -> int:
    """Where the white space at *index* ends."""
    found = _SPACE.match(text, index)
    return found.end() if found else index


def _at(text: str, index: int, message: str, fix: str | None = None) -> BadRow:
    """A problem at *index* of a json text."""
    start = text.rfind("\n", 0, index) + 1
    source = text[start:].partition("\n")[0] if start < len(text) else None
    return BadRow(text.count("\n", 0, index) + 1, index - start + 1, message, fix, source)


def _fault(text: str, fault: Fault) -> BadRow:
    """A problem of a yaml text."""
    lines = BREAK.split(text)
    source = lines[fault.line - 1] if fault.line <= len(lines) else None
    return BadRow(fault.line, fault.column, fault.message, fault.fix, source)
