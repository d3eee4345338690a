"""One timer bounds every request: each block ends at its own time, as under `asyncio.timeout`."""

import asyncio
from collections.abc import Coroutine

import pytest

from runner.deadlines import Deadlines

SOON_S, LATER_S = 0.01, 3600.0


@pytest.fixture
async def deadlines() -> Deadlines:
    return Deadlines()


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def failure(block: Coroutine[None, None, None]) -> BaseException | None:
    """How *block* ends, soon."""
    task = asyncio.create_task(block)
    ended, _ = await asyncio.wait([task], timeout=10)
    assert ended, "its timer did not go off"
    return task.exception()


async def bounded(deadlines: Deadlines, limit_s: float, done: asyncio.Event) -> str:
    try:
        with deadlines.within(limit_s):
            await done.wait()
    except TimeoutError:
        return "over"
    return "done"


@pytest.mark.parametrize("limit_s", [0.0, SOON_S])
async def test_what_takes_too_long_is_ended(deadlines: Deadlines, limit_s: float) -> None:
    async def block() -> None:
        with deadlines.within(limit_s):
            await never()

    assert isinstance(await failure(block()), TimeoutError)


async def test_each_block_has_a_time_of_its_own(deadlines: Deadlines) -> None:
    """A short one that begins after a long one must not wait for that one's timer."""
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        limits_s = (LATER_S, SOON_S, LATER_S, 2 * SOON_S)
        blocks = [group.create_task(bounded(deadlines, limit_s, done)) for limit_s in limits_s]
        await asyncio.wait((blocks[1], blocks[3]), timeout=10)
        done.set()
    assert [block.result() for block in blocks] == ["done", "over", "done", "over"]


async def test_one_timer_is_set_for_all(deadlines: Deadlines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer for each request cost as much as the rest of what is done for it here."""
    timers: list[float] = []
    loop = asyncio.get_running_loop()
    real = loop.call_at

    def call_at(when: float, callback: object, *args: object, **more: object) -> asyncio.TimerHandle:
        timers.append(when)
        return real(when, callback, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_at", call_at)
    for _ in range(1000):
        with deadlines.within(LATER_S):
            await asyncio.sleep(0)
    assert len(timers) == 1


async def test_what_ends_in_time_is_left_alone(deadlines: Deadlines) -> None:
    """The timer of a block that is over must not end the one that the same task is in by then."""
    with deadlines.within(SOON_S):
        pass
    with deadlines.within(LATER_S):
        await asyncio.sleep(3 * SOON_S)


async def test_more_time_can_be_given(deadlines: Deadlines) -> None:
    loop = asyncio.get_running_loop()
    with deadlines.within(SOON_S) as scope:
        scope.reschedule(loop.time() + LATER_S)
        await asyncio.sleep(3 * SOON_S)


async def test_time_can_be_taken_away(deadlines: Deadlines) -> None:
    async def block() -> None:
        with deadlines.within(LATER_S) as scope:
            scope.reschedule(None)
            scope.reschedule(asyncio.get_running_loop().time() + SOON_S)
            await never()

    assert isinstance(await failure(block()), TimeoutError)


async def test_a_cancellation_from_outside_stays_one(deadlines: Deadlines) -> None:
    """Whoever cancelled a request must not be told that it took too long, even if it did so at the same moment."""

    async def block() -> None:
        with deadlines.within(SOON_S) as scope:
            try:
                await never()
            finally:
                assert scope.is_over
                task = asyncio.current_task()
                assert task is not None
                task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(block())


async def test_a_cancelled_request_is_not_told_as_late(deadlines: Deadlines) -> None:
    task = asyncio.create_task(bounded(deadlines, LATER_S, asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_failure_at_the_last_moment_is_told_as_it_is(deadlines: Deadlines) -> None:
    async def block() -> None:
        with deadlines.within(SOON_S):
            try:
                await never()
            except asyncio.CancelledError:
                raise ValueError("of its own") from None

    with pytest.raises(ValueError, match="of its own"):
        await block()
