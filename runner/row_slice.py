"""Part of a job's rows by their places: what ``--rows 10:20`` says."""

import re
from typing import Self

from runner.errors import UsageError
from runner.records import record

_FORM = re.compile(r"(\d{0,15}):(\d{0,15})", re.ASCII)


@record(frozen=True, slots=True)
class RowSlice:
    """The rows from *start* on, counted from 0, up to *stop*, which is not one of them; None is the end."""

    start: int = 0
    stop: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        What *text* says: ``10:20``, ``5:`` or ``:3``.

        Raises:
            UsageError: it says no such thing, or a slice that no row is in.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None or text.strip() == ":":
            fix = f"write --rows {text}:{int(text) + 1} for one row" if text.isdecimal() and text.isascii() else None
            raise UsageError(f"--rows wants FROM:TO, found {text!r}", fix=fix or "write --rows 10:20, 5: or :3")
        start, stop = int(found[1] or 0), int(found[2]) if found[2] else None
        if stop is not None and stop <= start:
            fix = "rows count from 0, and TO is not one of them"
            raise UsageError(f"--rows {text.strip()} has no row in it", fix=fix)
        return cls(start, stop)

    def __str__(self) -> str:
        return f"{self.start or ''}:{'' if self.stop is None else self.stop}"

    def within(self, limit: int | None) -> tuple[int, int | None]:
        """Where it starts and stops in rows of which there are *limit* at most; None is no limit, and no stop."""
        stops = [stop for stop in (self.stop, limit) if stop is not None]
        return self.start, min(stops, default=None)

    def count(self, rows: int) -> int:
        """How many of *rows* are in it."""
        return max(0, (rows if self.stop is None else min(rows, self.stop)) - self.start)


ALL = RowSlice()
"""Every row."""
