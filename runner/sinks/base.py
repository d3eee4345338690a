"""What every form of the results shares: lines that can be read again, and what is wanted of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from runner.standing import Line
from runner.tables import Column, Keys, default_columns
from runner.values import MISSING, JsonObject

Write = Callable[[bytes], object]
"""Takes the next bytes of a file."""


@dataclass(frozen=True, slots=True)
class Source:
    """
    The lines that a form of the results is made of.

    Attributes:
        lines: Reads them, from the first on with each call.
        of_columns: Reads those that columns are made of: the same, and those that nothing but an expression leaves out.
        fields: The columns that were asked for; None: whole lines, and for tables the default columns.
        known: Keys that are columns also where no line has them.
    """

    lines: Callable[[], Iterator[Line]]
    of_columns: Callable[[], Iterator[Line]]
    fields: Sequence[Column] | None = None
    known: Keys = field(default_factory=Keys)

    def columns(self) -> list[Column]:
        """The columns of a table; the default ones take a pass over the lines."""
        if self.fields is not None:
            return list(self.fields)
        return default_columns((line for _, line in self.of_columns()), self.known)

    def objects(self) -> Iterator[tuple[bytes | None, JsonObject]]:
        """Each line, its text first; with fields an object of these, without those that it does not have."""
        for text, line in self.lines():
            if self.fields is None:
                yield text, line
            else:
                taken = ((column.name, column.take(line)) for column in self.fields)
                yield None, {name: value for name, value in taken if value is not MISSING}


Sink = Callable[[Source, Write], None]
"""
A form of the results: writes a whole file in it, in constant memory.

Raises:
    UsageError: the lines can't be read, or can't be said in this form.
    OSError: what it writes to says no.
"""
