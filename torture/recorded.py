"""
Be the command, and put marks into the record of its disk: ``python -m torture.recorded WORDS...``.

``sent HASH`` stands before the first byte of a submit leaves, HASH being that of its input; ``settled KEY DIGEST
STATE`` after a line of results.jsonl was acknowledged as durable.
"""

import os
from typing import Any

from runner import runpod, store
from runner.events import Settled
from runner.local.accepted import input_hash
from runner.results import digest
from runner.values import parse


def main() -> None:
    """Put the marks around the package's functions, and be the command."""
    from runner.__main__ import main as command

    log = os.open(os.environ["DISK_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def mark(text: str) -> None:
        os.write(log, f"mark\t{text}\t\t0\t0\n\n".encode())

    def marked(name: str) -> None:
        original = getattr(runpod.RunPod, name)

        async def replaced(self: Any, body: bytes, **options: Any) -> Any:
            mark(f"sent {input_hash(parse(body)['input'])}")
            return await original(self, body, **options)

        setattr(runpod.RunPod, name, replaced)

    write = store.Store.write

    def written(self: Any, events: Any) -> Any:
        found = write(self, events)
        for event in events:
            if isinstance(event, Settled):
                mark(f"settled {event.run.key} {digest(event.line).hex()} {event.state}")
        return found

    marked("run")
    marked("runsync")
    store.Store.write = written  # type: ignore[method-assign]
    command()


if __name__ == "__main__":
    main()
