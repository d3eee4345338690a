"""
Segments: what of a ledger has changed since the last one, as rows, and a ledger made of them again.

Triggers note which rows change, of whatever table, so nothing that a ledger learns can be forgotten here. A segment has
each of these rows as it is at one moment, so applying it once more, or a later one with the same rows, does no harm.
"""

import base64
import gzip
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runner.database import Database
from runner.entries import UNSENT
from runner.errors import RecordError
from runner.values import JsonObject, dump, parse

ROWS_AT_ONCE = 500
_FIX = "put the object back from an older version of it"


@dataclass(frozen=True, slots=True)
class Table:
    """A table that segments are of: its *columns*, and the *keys* by which a row of it is known."""

    name: str
    columns: tuple[str, ...]
    keys: tuple[str, ...]

    def place(self, row: str = "") -> str:
        """SQL for what a row is noted by; *row* is NEW or OLD in a trigger."""
        named = [f"{row}.{key}" if row else key for key in self.keys]
        return named[0] if len(named) == 1 else f"json_array({', '.join(named)})"

    @property
    def is_noted(self) -> str:
        """SQL for "this row is among those that changed"; its two values are the table and the newest number."""
        noted = f"FROM {UNSENT} WHERE part = ? AND number <= ?"
        if len(self.keys) == 1:
            return f"{self.keys[0]} IN (SELECT place {noted})"
        parts = ", ".join(f"json_extract(place, '$[{number}]')" for number in range(len(self.keys)))
        return f"({', '.join(self.keys)}) IN (SELECT {parts} {noted})"


def tables(database: Database) -> list[Table]:
    """The tables that segments are of."""
    names = [row[0] for row in database.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    return [_table(database, name) for name in names if name != UNSENT and not name.startswith("sqlite_")]


def _table(database: Database, name: str) -> Table:
    found = list(database.rows(f"SELECT name, pk FROM pragma_table_info('{name}')"))
    (is_rowless,) = database.first("SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", (name,))
    keys = [row[0] for row in sorted(found, key=lambda row: row[1]) if row[1]] if is_rowless else ["rowid"]
    return Table(name, tuple(row[0] for row in found), tuple(keys))


def capture(database: Database, *, is_sent: bool = False) -> None:
    """
    Note every change of a row from now on. What was there before, and is not noted yet, counts as changed, unless it
    *is_sent*.
    """
    database.do("PRAGMA recursive_triggers = ON")  # else a row that makes room for another one goes unseen
    known = {row[0] for row in database.rows("SELECT name FROM sqlite_master WHERE type IN ('table', 'trigger')")}
    with database.transaction():
        if UNSENT not in known:
            # AUTOINCREMENT: a number must not come again after its row was removed.
            database.do(f"CREATE TABLE {UNSENT} (number INTEGER PRIMARY KEY AUTOINCREMENT, part TEXT, place)")
        for table in tables(database):
            for word, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
                name = f"{UNSENT}_{table.name}_{word.lower()}"
                if name not in known:
                    database.do(
                        f"CREATE TRIGGER {name} AFTER {word} ON {table.name} BEGIN"
                        f" INSERT INTO {UNSENT} (part, place) VALUES ('{table.name}', {table.place(row)}); END"
                    )
            if f"{UNSENT}_{table.name}_insert" not in known and not is_sent:
                database.do(
                    f"INSERT INTO {UNSENT} (part, place) SELECT '{table.name}', {table.place()} FROM {table.name}"
                )


def newest(database: Database) -> int:
    """The number of the newest change that has not been sent; 0 when there is none."""
    return int(database.first(f"SELECT coalesce(max(number), 0) FROM {UNSENT}")[0])


def forget(database: Database, upto: int) -> None:
    """Changes up to the number *upto* are sent."""
    database.do(f"DELETE FROM {UNSENT} WHERE number <= ?", (upto,))


def write(database: Database, path: Path, *, upto: int) -> None:
    """Write all changes up to the number *upto* to *path*."""
    with _packed(path) as packed:
        for line in _lines(database, upto):
            packed.write(dump(line) + b"\n")


def head(path: Path, header: JsonObject, body: Path) -> str:
    """Make the segment *path* of its *header* and of the *body* that was written; its digest, SHA-256."""
    with _packed(path) as packed:
        packed.write(dump(header) + b"\n")
    with path.open("ab") as file, body.open("rb") as rest:
        shutil.copyfileobj(rest, file)
    return digest_of(path)


@contextmanager
def _packed(path: Path) -> Iterator[gzip.GzipFile]:
    # Without a time in it: the same rows are the same bytes.
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=3, mtime=0) as packed,
    ):
        yield packed


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lines(database: Database, upto: int) -> Iterator[JsonObject | list[object]]:
    for table in tables(database):
        of = (table.name, upto)
        if database.first(f"SELECT 1 FROM {UNSENT} WHERE part = ? AND number <= ?", of) is None:
            continue
        yield {"table": table.name, "columns": table.columns, "keys": table.keys}
        gone = database.rows(
            f"SELECT DISTINCT place FROM {UNSENT} WHERE part = ? AND number <= ?"
            f" AND place NOT IN (SELECT {table.place()} FROM {table.name} WHERE {table.is_noted})",
            (*of, *of),
        )
        for places in _some(row[0] for row in gone):
            yield {"gone": places}
        for row in database.rows(f"SELECT {_names(table)} FROM {table.name} WHERE {table.is_noted}", of):
            yield [_shown(value) for value in row]


def _names(table: Table) -> str:
    names = [f'"{column}"' for column in table.columns]
    return ", ".join(["rowid", *names] if table.keys == ("rowid",) else names)


def _some(places: Iterator[object]) -> Iterator[list[object]]:
    some: list[object] = []
    for place in places:
        some.append(place)
        if len(some) == ROWS_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _shown(value: object) -> object:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _read(value: object) -> object:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


def header(path: Path) -> JsonObject:
    """
    What the segment in *path* says of itself.

    Raises:
        RecordError: it is damaged.
    """
    with _opened(path) as file:
        found = _line(path, file)
        if not isinstance(found, dict) or "writer" not in found:
            raise RecordError(f"{path} is damaged: it has no header", fix=_FIX)
        return found


def apply(database: Database, path: Path) -> None:
    """
    Let *database* have what the segment in *path* says; call it in a transaction.

    Raises:
        RecordError: it is damaged, or of another version.
    """
    known = {table.name: table for table in tables(database)}
    with _opened(path) as file:
        _line(path, file)
        table, statement, rows = Table("", (), ()), "", list[Sequence[object]]()
        while (line := _line(path, file)) is not None:
            if isinstance(line, list):
                rows.append([_read(value) for value in line])
                if len(rows) == ROWS_AT_ONCE:
                    database.do_each(statement, rows)
                    rows = []
                continue
            if rows:
                database.do_each(statement, rows)
                rows = []
            if "gone" in line:
                which = " AND ".join(f"{key} = ?" for key in table.keys)
                places = [(one,) if len(table.keys) == 1 else tuple(parse(one.encode())) for one in line["gone"]]
                database.do_each(f"DELETE FROM {table.name} WHERE {which}", places)
                continue
            table = Table(line["table"], tuple(line["columns"]), tuple(line["keys"]))
            there = known.get(table.name)
            if there is None or there.keys != table.keys or not {*there.columns} >= {*table.columns}:
                raise RecordError(
                    f"{path.name} has a part {table.name!r} that this version does not know",
                    fix="use the runner that wrote it; manifest.json beside it names the version",
                )
            names = _names(table)
            marks = ", ".join("?" * len(names.split(", ")))
            statement = f"INSERT OR REPLACE INTO {table.name} ({names}) VALUES ({marks})"
        if rows:
            database.do_each(statement, rows)


def _opened(path: Path) -> gzip.GzipFile:
    return gzip.GzipFile(path, "rb")


def _line(path: Path, file: BinaryIO | gzip.GzipFile) -> JsonObject | None:
    try:
        text = file.readline()
        return parse(text) if text else None
    except (OSError, EOFError, ValueError) as error:
        raise RecordError(
            f"{path} is damaged: {error}", fix="put the object back from an older version of it"
        ) from None
