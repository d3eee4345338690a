"""
Read csv and tsv: a header, then rows; every value is text.

Quotes are doubled inside quotes. Blank lines are skipped.
"""

import csv
from collections.abc import Iterator

from runner.inputs.base import BadRow, Report, Tape
from runner.values import JsonObject

MAX_ROW_BYTES = 32 * 1024 * 1024
"""Longest row, quoted line ends and all. The csv module keeps 4 bytes for each character of a field while it reads."""


def read_csv(tape: Tape, report: Report) -> Iterator[JsonObject]:
    """The rows of a csv file."""
    return _read(tape, report, ",")


def read_tsv(tape: Tape, report: Report) -> Iterator[JsonObject]:
    """The rows of a tsv file."""
    return _read(tape, report, "\t")


def _read(tape: Tape, report: Report, delimiter: str) -> Iterator[JsonObject]:
    csv.field_size_limit(MAX_ROW_BYTES)  # process-wide; the default of 128 KiB is less than one base64 image
    header: list[str] | None = None
    start, length = 1, 0

    def texts() -> Iterator[str]:
        nonlocal length
        for line in tape.lines():
            length += len(line)
            if length > MAX_ROW_BYTES:
                raise _endless(start, tape.line)
            yield tape.text(line)

    records = csv.reader(texts(), delimiter=delimiter, strict=True)
    try:
        for record in records:
            if header is None:
                header = _checked(record, start) if record else None
            elif len(record) == len(header):
                yield dict(zip(header, record, strict=True))
            elif record:
                report(_ragged(record, header, start, tape))
            start, length = tape.line + 1, 0
    except csv.Error as error:
        raise _malformed(error, start, tape.line) from None
    if header is None:
        raise BadRow(1, 1, "the file has no header", "name the columns in the first line")


def _checked(header: list[str], line: int) -> list[str]:
    """*header*, when its names can be told apart."""
    shown, seen = ",".join(header), set[str]()
    for number, name in enumerate(header):
        if not name:
            raise BadRow(line, 1, f"column {number + 1} has no name", "name every column in the header", shown)
        if name != name.strip():
            raise BadRow(line, 1, f"column '{name}' starts or ends with a space", "write the header without it", shown)
        if name in seen:
            raise BadRow(line, 1, f"column '{name}' is there twice", "rename one of the two", shown)
        seen.add(name)
    return header


def _ragged(record: list[str], header: list[str], line: int, tape: Tape) -> BadRow:
    message = f"expected {len(header)} values as in the header, found {len(record)}"
    fix = "put a value with a delimiter in it into double quotes"
    if len(record) < len(header):
        missing = header[len(record)]
        fix = f"give it a value for '{missing}' too; one that is empty is a delimiter with nothing behind it"
    return BadRow(line, 1, message, fix, tape.last.decode() if line == tape.line else None)


def _endless(start: int, line: int) -> BadRow:
    """A row that is too long to be one."""
    if start == line:
        return BadRow(start, 1, f"a row is longer than {MAX_ROW_BYTES // 2**20} MiB", "write one row a line")
    return BadRow(start, 1, "a quote in this row is never closed", "write a quote inside quotes twice")


def _malformed(error: csv.Error, start: int, line: int) -> BadRow:
    """The csv module's complaint, in our words."""
    text = str(error)
    if "unexpected end of data" in text:
        return BadRow(start, 1, "a quote in this row is never closed", "write a quote inside quotes twice")
    if "expected after" in text:
        return BadRow(line, 1, "text after a closing quote", "write a quote inside quotes twice")
    if "new-line character" in text:
        return BadRow(line, 1, "a carriage return inside a line", "end lines with a line feed")
    return BadRow(line, 1, f"not readable: {text}")
