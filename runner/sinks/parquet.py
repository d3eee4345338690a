"""The results as Parquet: columns with types, for DuckDB, pandas, polars and whatever else reads tables."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from runner.sinks.base import Source, Write
from runner.sinks.fit import fitting, moment
from runner.standing import Line
from runner.tables import Column, Type, named_apart
from runner.values import MISSING, JsonValue, dump

LIBRARY = "pyarrow"

PIECE_BYTES = 1024 * 1024
"""So much of results.jsonl is held as Python has it: several times that."""

GROUP_BYTES = 8 * 1024 * 1024
"""So much is held as Arrow has it, to be one row group: readers take one at a time."""

JSON_MARK = {b"encoding": b"json"}
"""The metadata of a column whose texts are JSON, so that it can be told from one of texts."""


def write(source: Source, write: Write) -> None:
    """
    A column for each of the source's, of the type that every value fits as it is: int64, double, bool, string, and for
    our own fields UTC timestamps in ms and lists of strings. Where there is none, each value stands as its JSON.

    Raises:
        ImportError: pyarrow is not there.
    """
    import pyarrow
    import pyarrow.parquet

    columns = named_apart(source.columns())
    types = fitting(columns, (line for _, line in source.of_columns()))
    columns = [replace(column, type=type_) for column, type_ in zip(columns, types, strict=True)]
    schema = _schema(pyarrow, columns)
    file = _File(write)
    writer = pyarrow.parquet.ParquetWriter(file, schema, compression="zstd")
    try:
        for group in _groups(_pieces(pyarrow, schema, columns, source.lines())):
            writer.write_table(pyarrow.Table.from_batches(group, schema))
        writer.close()
    except BaseException:
        file.let_go()  # whatever has failed, the writer adds its footer as it goes
        with suppress(Exception):
            writer.close()
        raise


def _schema(pa: Any, columns: Sequence[Column]) -> Any:
    types = {
        Type.BOOL: pa.bool_(),
        Type.INT: pa.int64(),
        Type.FLOAT: pa.float64(),
        Type.TEXT: pa.string(),
        Type.TIME: pa.timestamp("ms", tz="UTC"),
        Type.TEXTS: pa.list_(pa.string()),
        Type.JSON: pa.string(),
    }
    marks = {Type.JSON: JSON_MARK}
    return pa.schema([pa.field(one.name, types[one.type], metadata=marks.get(one.type)) for one in columns])


def _pieces(pa: Any, schema: Any, columns: Sequence[Column], lines: Iterable[Line]) -> Iterator[Any]:
    """The *lines* as record batches, each of about `PIECE_BYTES` of text."""
    told = [(column.take, _AS.get(column.type, _as_it_is)) for column in columns]
    cells: list[list[JsonValue]] = [[] for _ in columns]
    held_bytes = 0

    def piece() -> Any:
        return pa.record_batch(
            [pa.array(values, field.type) for values, field in zip(cells, schema, strict=True)], schema=schema
        )

    for text, line in lines:
        for values, (take, as_) in zip(cells, told, strict=True):
            value = take(line)
            values.append(None if value is None or value is MISSING else as_(value))
        held_bytes += len(text)
        if held_bytes >= PIECE_BYTES:
            yield piece()
            cells, held_bytes = [[] for _ in columns], 0
    if held_bytes:
        yield piece()


def _groups(pieces: Iterable[Any]) -> Iterator[list[Any]]:
    """The *pieces*, as many together as make a row group."""
    group: list[Any] = []
    held_bytes = 0
    for piece in pieces:
        group.append(piece)
        held_bytes += piece.nbytes
        if held_bytes >= GROUP_BYTES:
            yield group
            group, held_bytes = [], 0
    if group:
        yield group


def _as_it_is(value: JsonValue) -> JsonValue:
    return value


def _as_json(value: JsonValue) -> str:
    return dump(value).decode()


_AS: dict[Type, Callable[[JsonValue], Any]] = {Type.FLOAT: float, Type.TIME: moment, Type.JSON: _as_json}


class _File:
    """What pyarrow wants of a file, around what takes bytes: also a pipe, which can't tell where it is."""

    closed = False

    def __init__(self, write: Write) -> None:
        self._write = write
        self._end = 0
        self._is_let_go = False

    def write(self, data: Any) -> int:
        if not self._is_let_go:
            self._write(bytes(data))
        self._end += len(data)
        return len(data)

    def tell(self) -> int:
        return self._end

    def let_go(self) -> None:
        """Write nothing more, and say nothing of it."""
        self._is_let_go = True

    def flush(self) -> None: ...

    def close(self) -> None: ...
