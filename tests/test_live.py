"""What signals ask of a running batch, in the moment it ends."""

import asyncio
from pathlib import Path

import pytest

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
        trouble = stopped_because = None

        async def run(self) -> None:
            batch.drain(0.0)
            await asyncio.Event().wait()

    async with batch.until_over():
        await batch.carry([Hanging()])  # type: ignore[list-item]
    assert batch.switches["job"].reason is Reason.INTERRUPT


async def test_a_second_signal_as_the_drain_ends_is_no_error() -> None:
    """A person presses Ctrl-C when they please."""
    batch = live()

    class Hanging:
        trouble = stopped_because = None

        async def run(self) -> None:
            batch.drain(0.0)
            try:
                await asyncio.Event().wait()
            finally:
                batch.drain(5.0)
                batch.cancel()

    async with batch.until_over():
        await batch.carry([Hanging()])  # type: ignore[list-item]
    assert batch.switches["job"].reason is Reason.CANCEL


async def test_a_signal_after_the_end_is_no_error() -> None:
    """The report is being written, and the handlers are still there."""
    batch = live()
    async with batch.until_over():
        await batch.carry([])
    batch.drain(1.0)
    batch.cancel()
    assert batch.interrupted


@pytest.mark.parametrize("when", ["before the block", "before the first run", "after the last run"])
async def test_with_no_run_in_flight_a_signal_ends_the_waiting_at_once(when: str) -> None:
    """Nobody waits a drain long for an endpoint that does not say how it is."""
    batch, reached = live(), []
    if when == "before the block":
        batch.drain(60.0)
    async with asyncio.timeout(10.0), batch.until_over():
        if when == "after the last run":
            await batch.carry([])
        if when != "before the block":
            batch.drain(60.0)
        await asyncio.Event().wait()
        reached.append("what comes after")
    assert (batch.interrupted, reached) == (True, [])


async def test_a_time_limit_of_somebody_else_comes_out_as_itself() -> None:
    """Taken for the end of a drain it would hide a bug."""
    with pytest.raises(TimeoutError, match="a bug"):
        async with live().until_over():
            raise TimeoutError("a bug")


async def test_the_end_for_good_overrules_a_signal_and_no_signal_overrules_it() -> None:
    """Who cancelled a batch finds it ended, with nothing left for a resume, whatever keys were pressed meanwhile."""
    batch = live()
    batch.drain(1.0)
    batch.abandon()
    assert (batch.interrupted, batch.switches["job"].reason) == (False, Reason.ABANDON)
    batch.drain(1.0)
    batch.cancel()
    assert batch.switches["job"].reason is Reason.ABANDON
