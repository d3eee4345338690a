"""Open the source that a job's `rows` speak of, and say beforehand what is wrong with it."""

from collections.abc import Iterator
from pathlib import Path

from runner.inputs.find import STDIN, data_file_problem, find, requests_problem
from runner.inputs.folder import EVERY, FolderFiles, folder_problem
from runner.inputs.openai import Requests
from runner.inputs.source import DataFile, DataFiles, Inline, Source
from runner.spec import SOURCES, Rows
from runner.wording import Finding, Loc

_WORDS = ", ".join(f"'{key}'" for key in SOURCES) + " or 'job'"
_NEED_ROWS = ("where", "sample", "shuffle", "limit")


def source_of(rows: Rows, folder: Path, stdin: Path | None) -> Source | None:
    """The source of *rows*; None when they come from stdin, of which there is no copy."""
    if rows.folder is not None:
        return FolderFiles(folder, rows.folder, rows.glob or EVERY)
    if rows.openai is not None:
        return Requests([DataFile(path) for path in find(folder, rows.openai)])
    if rows.file is None:
        return Inline(rows.inline)
    if rows.file == STDIN:
        return None if stdin is None else DataFile(stdin, kind="jsonl", shown="stdin")
    return DataFiles([DataFile(path) for path in find(folder, rows.file)])


def problems(loc: Loc, rows: Rows, folder: Path) -> Iterator[Finding]:
    """What is wrong with where *rows*, which stand at *loc*, come from; *folder* is the job file's."""
    given = [key for key in SOURCES if getattr(rows, key) is not None]
    if len(given) > 1:
        message = f"'{given[0]}' and '{given[1]}' can't stand together"
        yield Finding((*loc, given[1]), message, "keep one of the two", at_key=True)
    if rows.file is not None and (trouble := data_file_problem(folder, rows.file)):
        yield Finding((*loc, "file"), *trouble)
    if rows.openai is not None and (trouble := requests_problem(folder, rows.openai)):
        yield Finding((*loc, "openai"), *trouble)
    if rows.folder is not None and (trouble := folder_problem(folder, rows.folder, rows.glob or EVERY)):
        yield Finding((*loc, "folder"), *trouble)
    if rows.glob is not None and rows.folder is None:
        yield Finding((*loc, "glob"), "'glob' needs a 'folder'", "'file' takes a glob itself", at_key=True)
    for key in () if given or rows.job is not None else _NEED_ROWS:
        if getattr(rows, key) is not None:
            message = f"'{key}' needs rows, and the job has none"
            yield Finding((*loc, key), message, f"say where they come from: {_WORDS}", at_key=True)
