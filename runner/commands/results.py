"""``runner results``: the lines of results.jsonl, filtered and converted."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from runner import batch, extras, shards_folder
from runner.batch import Folder
from runner.durable import beside, replacing
from runner.errors import EXIT_PASS, UsageError
from runner.plain import plain
from runner.selection import Names, Where, check_fields
from runner.shards_folder import Common
from runner.sinks.base import Source, Write
from runner.sinks.kinds import KINDS, NEEDS, TABLES
from runner.standing import Chained, Line, standing
from runner.stdout import while_read, writer
from runner.tables import Keys, column


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    Which lines are wanted, and what of them. Empty names stand for all.

    *fields* are dotted paths; None: whole lines, and for tables their default columns.
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
    common = shards_folder.find(name, outputs)
    selected = _Selected([batch.find(name, outputs)] if common is None else _shards(common), wanted)
    if output is not None:
        with _whole(output) as file:
            selected.write(file.write)
        return EXIT_PASS
    out = out or sys.stdout.buffer
    if wanted.format == "parquet" and out.isatty():
        raise UsageError("parquet is nothing for a terminal", fix="name a file with --output")
    with while_read():
        selected.write(writer(out))
    return EXIT_PASS


def _shards(common: Common) -> list[Folder]:
    """The shards that are there; those that are missing, or not at their end, are said on stderr."""
    for one in common.left:
        said = f"shard {one.shard} is {one.standing}: {plain(common.start(one))}"
        print(f"note: not all is among these, {said}", file=sys.stderr)
    return [one.folder for one in common.there]


class _Selected:
    """What is wanted of a batch, checked before anything is written."""

    def __init__(self, folders: Sequence[Folder], wanted: Wanted) -> None:
        """*folders* are that of a batch, or those of its shards."""
        if wanted.format not in KINDS:
            *others, last = KINDS
            raise UsageError(
                f"--format is {', '.join(others)} or {last}, found {wanted.format!r}", fix="write --format csv"
            )
        if wanted.format in NEEDS and not extras.is_there(NEEDS[wanted.format]):
            raise UsageError(
                f"--format {wanted.format} needs {NEEDS[wanted.format]}, which is not installed", fix=extras.PARQUET
            )
        if wanted.format == "openai" and wanted.fields is not None:
            raise UsageError("--fields and --format openai exclude each other", fix="leave one out")
        check_fields(wanted.fields or ())
        self._folders = folders
        self._wanted = wanted
        self._names = Names.checked(
            jobs=wanted.jobs,
            states=wanted.states,
            outcomes=wanted.outcomes,
            known_jobs=folders[0].read_manifest()["plan"] if wanted.jobs else (),
        )
        self._where = None if wanted.where is None else Where(wanted.where)

    def write(self, write: Write) -> None:
        """Write the lines that are wanted, as they are wanted."""
        found = Chained()
        for folder in self._folders:
            part, doubt = standing(folder)
            found.parts.append(part)
            if doubt is not None:
                print(f"note: lines of runs that were run again may be among these: {doubt}", file=sys.stderr)
        fields = self._wanted.fields
        with closing(found) as lines:
            source = Source(
                lines=partial(self._kept, lines),
                of_columns=lambda: self._names.keep(lines),  # to ask --where once more would take twice as long
                fields=None if fields is None else [column(path) for path in fields],
                known=self._known(),
            )
            KINDS[self._wanted.format](source, write)

    def _kept(self, lines: Iterable[Line]) -> Iterator[Line]:
        kept = self._names.keep(lines)
        return kept if self._where is None else self._where.keep(kept)

    def _known(self) -> Keys:
        """Keys that are columns in any case; none where the manifest, which nothing else needs, can't be read."""
        if self._wanted.format in TABLES and self._wanted.fields is None:
            with suppress(UsageError):
                return Keys.planned(self._folders[0].read_manifest(), self._wanted.jobs)
        return Keys()


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
    try:
        with replacing(path, beside(path)) as file:
            yield file
    except OSError as error:
        raise UsageError(
            f"{path} can't be written: {error.strerror or error}",
            fix="see that its folder is there and has room, or name another file with --output",
        ) from None
