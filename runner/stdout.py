"""Print on stdout: bytes as they are for a program, harmless text for a person; and stop when nobody reads on."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import UnsupportedOperation
from typing import BinaryIO, TextIO

from runner.errors import UsageError
from runner.plain import plain


@contextmanager
def while_read() -> Iterator[None]:
    """
    End the block quietly when whoever reads stdout is gone, as behind ``| head``: what it wanted it has.

    The block may do nothing else that raises OSError.

    Raises:
        UsageError: stdout is a file that can't be written.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        let_go(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise UsageError(f"stdout can't be written: {error.strerror}", fix="see that its disk has room") from None


def let_go(file: TextIO) -> None:
    """Send nowhere what *file*, which can't be written, still holds: the interpreter would fail of it as it ends."""
    with suppress(UnsupportedOperation):  # no real file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())
        os.close(nowhere)


def writer(out: BinaryIO) -> Callable[[bytes], object]:
    """What writes foreign bytes to *out*: a terminal gets them without what it would act on."""
    if not out.isatty():
        return out.write
    return lambda data: out.write(plain(data.decode("utf-8", "backslashreplace")).encode())
