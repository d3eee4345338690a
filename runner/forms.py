"""Write the other forms of results.jsonl that a job file asks for, beside it, each whole or not at all."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from runner import extras
from runner.batch import Folder
from runner.durable import replacing
from runner.errors import RecordError, UsageError
from runner.standing import standing
from runner.tables import Keys

RECORD = "jsonl"
"""The form that is always there: the record."""

log = logging.getLogger(__name__)


def beside(forms: Sequence[str]) -> list[str]:
    """Those of *forms* that are made of the record, each once."""
    return [form for form in dict.fromkeys(forms) if form != RECORD]


def write(folder: Folder, forms: Sequence[str]) -> None:
    """
    Make each of *forms*, which are none but `beside`, of the lines that stand in *folder*, in constant memory.

    Raises:
        RecordError: one can't be made; results.jsonl, and an older file of that form, are untouched.
    """
    from runner.sinks.base import Source
    from runner.sinks.kinds import KINDS

    try:
        found, doubt = standing(folder)
        if doubt is not None:
            log.warning("lines of runs that were run again may be among the results: %s", doubt)
        with closing(found) as lines:
            source = Source(lambda: iter(lines), lambda: iter(lines), known=Keys.planned(folder.read_manifest()))
            for form in forms:
                with _whole(folder.form(form)) as file:
                    KINDS[form](source, file.write)
                log.info("wrote %s", folder.form(form).name)
    except UsageError as error:  # what is there can't be read: nobody's arguments are wrong
        raise RecordError(error.message, fix=error.fix) from None


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file that gets the name *path* when the block ends well, and is gone when it does not."""
    aside = path.with_name(f".{path.name}.tmp")  # the same each time, so that a kill leaves one at most
    try:
        with replacing(path, aside) as file:
            yield file
    except OSError as error:
        raise _not_written(
            path, error.strerror or str(error), "see that the disk has room and the folder can be written"
        ) from error
    except ImportError as error:
        raise _not_written(path, str(error), extras.PARQUET) from error


def _not_written(path: Path, why: str, fix: str) -> RecordError:
    return RecordError(
        f"{path} can't be written: {why}; no result is lost, they are in results.jsonl beside it",
        fix=f"{fix}, then go on with 'runner resume {path.parent}', which writes it",
    )
