"""``runner results``: the lines of results.jsonl, filtered and converted."""

import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runner import batch, tables
from runner.batch import Folder
from runner.durable import sync_folder
from runner.errors import EXIT_PASS, UsageError
from runner.selection import Names, Where, check_fields
from runner.standing import Line, standing
from runner.stdout import while_read, writer
from runner.tables import Column
from runner.values import MISSING, JsonObject, dump

FORMATS = ("jsonl", "json", "csv")

Write = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    Which lines are wanted, and what of them. Empty names stand for all.

    *fields* are dotted paths; None: whole lines, and for CSV its default columns.
    """

    jobs: Sequence[str] = ()
    states: Sequence[str] = ()
    outcomes: Sequence[str] = ()
    where: str | None = None
    format: str = "jsonl"
    fields: Sequence[str] | None = None


def results(
    name: str, wanted: Wanted, *, output_dir: Path | None, output: Path | None = None, out: BinaryIO | None = None
) -> int:
    """
    Write what is *wanted* of the batch *name* to the file *output*, whole or not at all; None: to stdout.

    Raises:
        UsageError: there is no such batch, what is wanted makes no sense, or *output* can't be written.
    """
    outputs = batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=output_dir)
    selected = _Selected(batch.find(name, outputs), wanted)
    if output is not None:
        with _whole(output) as file:
            selected.write(file.write)
        return EXIT_PASS
    with while_read():
        selected.write(writer(out or sys.stdout.buffer))
    return EXIT_PASS


class _Selected:
    """What is wanted of a batch, checked before anything is written."""

    def __init__(self, folder: Folder, wanted: Wanted) -> None:
        if wanted.format not in FORMATS:
            raise UsageError(f"--format is jsonl, json or csv, found {wanted.format!r}", fix="write --format csv")
        check_fields(wanted.fields or ())
        self._folder = folder
        self._format = wanted.format
        self._columns = None if wanted.fields is None else [tables.column(path) for path in wanted.fields]
        self._names = Names.checked(
            jobs=wanted.jobs,
            states=wanted.states,
            outcomes=wanted.outcomes,
            known_jobs=folder.read_manifest()["plan"] if wanted.jobs else (),
        )
        self._where = None if wanted.where is None else Where(wanted.where)

    def write(self, write: Write) -> None:
        """Write the lines that are wanted, as they are wanted."""
        found, doubt = standing(self._folder)
        if doubt is not None:
            print(f"note: lines of runs that were run again may be among these: {doubt}", file=sys.stderr)
        with closing(found) as lines:
            kept = self._names.keep(lines)
            if self._where is not None:
                kept = self._where.keep(kept)
            if self._format == "csv":
                columns = self._columns
                if columns is None:  # of the names alone: to ask --where twice would take twice as long
                    columns = tables.default_columns(line for _, line in self._names.keep(lines))
                write(tables.head(columns))
                for _, line in kept:
                    write(tables.row(columns, line))
            elif self._format == "json":
                _write_array(self._texts(kept), write)
            else:
                for text in self._texts(kept):
                    write(text)

    def _texts(self, lines: Iterable[Line]) -> Iterator[bytes]:
        """Each line as it stands, or an object of its chosen fields; without those that it does not have."""
        for text, line in lines:
            yield text if self._columns is None else dump(_object(self._columns, line)) + b"\n"


def _object(columns: Sequence[Column], line: JsonObject) -> JsonObject:
    taken = ((column.name, column.take(line)) for column in columns)
    return {name: value for name, value in taken if value is not MISSING}


def _write_array(texts: Iterable[bytes], write: Write) -> None:
    before = b"[\n"
    for text in texts:
        write(before + text.removesuffix(b"\n"))
        before = b",\n"
    write(b"\n]\n" if before == b",\n" else b"[]\n")


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file that gets the name *path* when the block ends well, and is gone when it does not."""
    path = path.resolve()
    if any((folder / "ledger.sqlite").exists() for folder in path.parents):
        raise UsageError(
            f"{path} is in a batch's folder, whose files are the record of what ran",
            fix="name a file elsewhere with --output",
        )
    if path.exists() and not path.is_file():
        raise UsageError(
            f"{path} can't be written: it is no regular file", fix="name a file, or leave --output out for stdout"
        )
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise UsageError(
            f"{path} can't be written: {error.strerror or error}",
            fix="see that its folder is there and has room, or name another file with --output",
        ) from None
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
