"""``runner schema``: the JSON Schema of job files, for editors."""

import sys
from typing import TextIO

from runner.errors import EXIT_PASS
from runner.schema import text


def schema(*, out: TextIO = sys.stdout) -> int:
    """Print the schema."""
    print(text(), end="", file=out)
    return EXIT_PASS
