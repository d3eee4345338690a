"""
Read parquet, some rows at a time: the columns of a file become the keys of its rows by the rules of `arrow`.

A row that can't be one is told by its number, from 1, for there are no lines.
"""

from collections.abc import Iterator
from typing import Any

from runner.inputs.base import BadRow, Report, Tape
from runner.inputs.find import MISSING_PARQUET
from runner.plain import plain
from runner.values import JsonObject

BATCH_BYTES = 16 * 1024 * 1024
"""So much of a file is unpacked at once, by what its index says of the average row."""

BATCH_ROWS = 1024
"""At most."""


def read(tape: Tape, report: Report) -> Iterator[JsonObject]:
    """The rows of a parquet file."""
    try:
        import pyarrow  # 170 MB, and some files need it
        from pyarrow import parquet

        from runner.inputs.arrow import Refused
    except ImportError:
        raise BadRow(1, 1, *MISSING_PARQUET) from None
    tape.digest()
    number = 0
    try:
        # Threads and reading ahead would take memory for columns as a whole.
        with parquet.ParquetFile(tape.path, buffer_size=1024 * 1024, pre_buffer=False) as file:
            for row in _rows(file, report):
                number += 1
                if row is not None:
                    yield row
    except Refused as refused:
        fix = "write the column as text or numbers, or leave it out"
        raise BadRow(1, 1, str(refused), fix) from None
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # names that are no UTF-8 are a ValueError
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = plain(str(error).partition("\n")[0])
        message = (
            f"the parquet data is damaged: {why}" if number else f"expected parquet, as the file's name says: {why}"
        )
        raise BadRow(number + 1, 1, message, "write the file again") from None


def _rows(file: Any, report: Report) -> Iterator[JsonObject | None]:
    """Every row; None for one that was told of."""
    from runner.inputs.arrow import Refused, converter

    schema, names = file.schema_arrow, file.schema_arrow.names
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise Refused(f"column '{twice}' is there twice")
    for column in file.schema:
        if column.physical_type == "INT96":
            raise Refused(f"column '{column.path}' is of the type INT96, whose times the library may change")
    convert = [converter(field.type, field.name) for field in schema]
    number = 0
    for index in range(file.num_row_groups):
        for batch in file.iter_batches(_batch_rows(file.metadata.row_group(index)), [index], use_threads=False):
            columns = [one(column) for one, column in zip(convert, batch.columns, strict=True)]
            bad = {at: message for column in columns for at, message in column.bad.items()}
            for at in range(batch.num_rows):
                number += 1
                if at in bad:
                    report(BadRow(number, 1, bad[at], "write null instead, or leave the row out"))
                    yield None
                else:
                    yield {name: column.values[at] for name, column in zip(names, columns, strict=True)}


def _batch_rows(group: Any) -> int:
    """How many rows of *group* are read at once."""
    a_row = max(1, group.total_byte_size // max(1, group.num_rows))
    return int(max(1, min(BATCH_ROWS, BATCH_BYTES // a_row)))
