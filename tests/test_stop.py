import asyncio

import pytest
from fakes import FakeClock, in_virtual_time

from runner.stop import Over, Reason, Switch


@in_virtual_time
async def test_the_first_reason_to_close_stays_and_a_cancel_overrules_it() -> None:
    """A refusal during a drain must not hide that a person asked for the end."""
    switch = Switch()
    assert (switch.is_closed, switch.reason) == (False, None)
    switch.close(Reason.INTERRUPT)
    switch.close(Reason.REFUSED)
    assert (switch.is_closed, switch.reason) == (True, Reason.INTERRUPT)
    switch.cancel(Reason.CANCEL)
    assert switch.reason is Reason.CANCEL


@pytest.mark.parametrize(
    ("within_s", "closes_at_s", "lasts_s", "is_closed"),
    [
        pytest.param(5.0, None, 5.0, False, id="never"),
        pytest.param(5.0, 2.0, 2.0, True, id="while it waits"),
        pytest.param(0.0, None, 0.0, False, id="no time"),
        pytest.param(-1.0, None, 0.0, False, id="less than no time"),
        pytest.param(5.0, 5.0, 5.0, True, id="in the very moment"),
    ],
)
@in_virtual_time
async def test_waiting_for_the_end_takes_no_longer_than_asked(
    within_s: float, closes_at_s: float | None, lasts_s: float, is_closed: bool
) -> None:
    """It is how a back-off is slept: a stop ends it at once."""
    clock, switch = FakeClock(), Switch()
    if closes_at_s is not None:
        asyncio.get_running_loop().call_later(closes_at_s, switch.close, Reason.INTERRUPT)
    assert await switch.closed(within_s) is is_closed
    assert clock.elapsed_s == lasts_s


@pytest.mark.parametrize(
    ("how", "ends"),
    [
        pytest.param("close", {"start": 2.0, "started": 9.0, "limit": 9.0}, id="close"),
        pytest.param("cancel", {"start": 2.0, "started": 9.0, "limit": 2.0}, id="cancel"),
        pytest.param("neither", {"start": 5.0, "started": 9.0, "limit": 5.0}, id="time"),
    ],
)
@in_virtual_time
async def test_a_close_ends_what_waits_to_start_and_a_cancel_also_what_is_in_flight(
    how: str, ends: dict[str, float]
) -> None:
    """What has left is never cut short: its answer holds the id of a paid job."""
    clock, switch = FakeClock(), Switch()
    ended: dict[str, float] = {}

    async def bounded(name: str, within_s: float) -> None:
        try:
            async with switch.limit(within_s) if name == "limit" else switch.start(within_s) as scope:
                if name == "started":
                    switch.started(scope)
                await asyncio.sleep(9.0)
        except Over:
            pass
        ended[name] = clock.elapsed_s

    loop = asyncio.get_running_loop()
    if how == "close":
        loop.call_later(2.0, switch.close, Reason.INTERRUPT)
    if how == "cancel":
        loop.call_later(2.0, switch.cancel, Reason.CANCEL)
    within_s = 5.0 if how == "neither" else 60.0
    await asyncio.gather(*(bounded(name, within_s) for name in ("start", "started", "limit")))
    assert ended == ends


@in_virtual_time
async def test_nothing_starts_once_it_is_closed() -> None:
    """Also what comes late is ended at its first wait."""
    switch = Switch()
    switch.cancel(Reason.CANCEL)
    for bounded in (switch.start, switch.limit):
        with pytest.raises(Over):
            async with bounded(60.0):
                await asyncio.sleep(1.0)


@in_virtual_time
async def test_a_stop_in_the_moment_that_a_limit_passes_is_no_error() -> None:
    """A limit that has just passed takes no new time; asyncio would raise in the signal's handler."""
    switch, loop = Switch(), asyncio.get_running_loop()

    def stop() -> None:
        switch.close(Reason.INTERRUPT)
        switch.cancel(Reason.CANCEL)

    async def bounded() -> None:
        async with switch.limit(5.0), switch.start(6.0):
            loop.call_later(5.0, loop.call_soon, stop)
            loop.call_later(5.0, stop)
            await asyncio.sleep(60.0)

    with pytest.raises(Over):
        await bounded()


@in_virtual_time
async def test_a_timeout_of_somebody_else_comes_out_as_itself() -> None:
    """Taken for a limit of ours it would cancel a job that runs well."""
    switch = Switch()
    with pytest.raises(TimeoutError, match="a bug"):
        async with switch.limit(5.0):
            raise TimeoutError("a bug")


@in_virtual_time
async def test_a_cancelled_task_stays_cancelled() -> None:
    """A limit must not swallow what ends the whole batch."""
    switch = Switch()

    async def wait() -> None:
        async with switch.limit(5.0):
            await asyncio.sleep(60.0)

    for at_s in (1.0, 5.0):
        task = asyncio.create_task(wait())
        asyncio.get_running_loop().call_later(at_s, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
