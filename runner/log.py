"""The structured log of a batch: one JSON object a line, secrets masked."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from runner.clock import iso
from runner.errors import RecordError
from runner.plain import plain
from runner.secret import Masker
from runner.stdout import let_go
from runner.values import dump

_OURS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class _Lines(logging.Formatter):
    """A record as JSON: when, how grave, which module, what, and the fields given as ``extra``."""

    def __init__(self, masker: Masker) -> None:
        super().__init__()
        self._masker = masker

    def format(self, record: logging.LogRecord) -> str:
        shown: dict[str, object] = {
            "at": iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        shown |= {name: value for name, value in record.__dict__.items() if name not in _OURS}
        if record.exc_info:
            shown["traceback"] = self.formatException(record.exc_info)
        return dump(self._masker.within(shown)).decode("utf-8", "backslashreplace")


class _File(logging.FileHandler):
    """The log file. That it can't be written must not be news of its own: what matters fails by itself."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Close it; what could not be written is given up."""
        with suppress(OSError):
            super().close()


class _Echo(logging.StreamHandler[TextIO]):
    """The log for people. A terminal that is gone must not end a batch that somebody pays for."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing, and no more if that can't be heard: what is left of it must not fail as the process ends."""
        if isinstance(sys.exc_info()[1], OSError):
            let_go(self.stream)


class _Words(logging.Formatter):
    """A record as a line for people: when, what, and the fields given as ``extra``."""

    def __init__(self, masker: Masker) -> None:
        super().__init__()
        self._masker = masker

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in record.__dict__.items() if name not in _OURS and value is not None}
        more = " ".join(f"{name}={value}" for name, value in fields.items())
        text = f"{iso(record.created)} {record.levelname.lower()}: {record.getMessage()}"
        return plain(self._masker(f"{text} ({more})" if more else text)).replace("\n", " ")


@contextmanager
def log_to(path: Path, masker: Masker, *, echo: TextIO | None = None) -> Iterator[None]:
    """
    Append what the package logs to *path* while the block runs, and say it on *echo* too.

    Raises:
        RecordError: it can't be opened.
    """
    try:
        handler = _File(path, encoding="utf-8")
    except OSError as error:
        raise RecordError(
            f"{path} can't be written: {error.strerror}",
            fix="see that the disk has room and the folder can be written, then go on with --resume",
        ) from None
    handler.setFormatter(_Lines(masker))
    logger = logging.getLogger("runner")
    before = logger.level
    logger.addHandler(handler)
    aloud = _Echo(echo) if echo is not None else None
    if aloud is not None:
        aloud.setFormatter(_Words(masker))
        logger.addHandler(aloud)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        if aloud is not None:
            logger.removeHandler(aloud)
        logger.setLevel(before)
        handler.close()
