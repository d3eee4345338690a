"""What a client is asked to do, and how it says what came of it."""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """
    Run a job for each line of the file *rows*, which is its input; write a line for each result to the file *results*.

    *mode* is ``run`` or ``runsync``; *in_flight* is how many jobs may be under way at once. *base_url* is without the
    *endpoint*'s id. *sdk* is the folder with the JavaScript SDK's ``node_modules``.
    """

    base_url: str
    endpoint: str
    rows: str
    results: str
    mode: str
    in_flight: int
    sdk: str = ""

    def to_json(self) -> str:
        """As `told` reads it."""
        return json.dumps(asdict(self))


def told() -> Task:
    """The task that stands on this process's command line."""
    fields: dict[str, Any] = json.loads(sys.argv[1])
    return Task(**fields)


def say(*, lost: int) -> None:
    """Say that the task is done, but for so many jobs."""
    print(json.dumps({"lost": lost}), flush=True)
