"""What signals ask of a running batch, in the moment it ends."""

import asyncio
from pathlib import Path

from runner.batch import Folder
from runner.live import Live
from runner.stop import Reason
from runner.tally import Tally


def live() -> Live:
    """A batch of one job that has not begun."""
    return Live(Folder(Path("batch")), Tally({"job": 1}), {}, resumed=False)


async def test_a_drain_that_is_over_ends_quietly() -> None:
    """What is still in flight is left to resume: no error, and nothing cancelled at RunPod."""
    batch = live()

    class Hanging:
        trouble = None

        async def run(self) -> None:
            batch.drain(0.0)
            await asyncio.Event().wait()

    await batch.carry([Hanging()])  # type: ignore[list-item]
    assert batch.switches["job"].reason is Reason.INTERRUPT


async def test_a_second_signal_as_the_drain_ends_is_no_error() -> None:
    """A person presses Ctrl-C when they please."""
    batch = live()

    class Hanging:
        trouble = None

        async def run(self) -> None:
            batch.drain(0.0)
            try:
                await asyncio.Event().wait()
            finally:
                batch.drain(5.0)
                batch.cancel()

    await batch.carry([Hanging()])  # type: ignore[list-item]
    assert batch.switches["job"].reason is Reason.CANCEL


async def test_a_signal_after_the_end_is_no_error() -> None:
    """The report is being written, and the handlers are still there."""
    batch = live()
    await batch.carry([])
    batch.drain(1.0)
    batch.cancel()
    assert batch.interrupted
