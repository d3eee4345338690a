"""Places for what may go on at once."""

import asyncio

import pytest
from fakes import in_virtual_time

from runner.slots import Slots


@in_virtual_time
async def test_no_more_than_the_limit_at_once_and_first_come_first_served() -> None:
    """Concurrency is a hard cap."""
    slots, order, most = Slots(2), [], 0

    async def use(number: int) -> None:
        nonlocal most
        async with slots:
            order.append(number)
            most = max(most, slots.taken)
            await asyncio.sleep(1.0)

    await asyncio.gather(*(use(number) for number in range(7)))
    assert (order, most, slots.taken) == (list(range(7)), 2, 0)


@in_virtual_time
async def test_who_is_there_already_keeps_others_waiting() -> None:
    """Three jobs of an earlier process with a limit of two: a place is free when the second has ended."""
    slots = Slots(2)
    for _ in range(3):
        slots.take_over()
    entered = asyncio.create_task(slots.__aenter__())
    for ended in (False, True):
        await asyncio.sleep(0.1)
        assert entered.done() is False
        slots.release()
        await asyncio.sleep(0.1)
        assert entered.done() is ended
    await entered


@pytest.mark.parametrize("has_place", [False, True], ids=["while it waits", "as it gets its place"])
@in_virtual_time
async def test_a_cancelled_wait_costs_nobody_a_place(has_place: bool) -> None:
    """Places that leak would make a batch slower and slower."""
    slots = Slots(1)
    slots.take_over()
    waiting = asyncio.create_task(slots.__aenter__())
    await asyncio.sleep(0.1)
    if has_place:
        slots.release()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    if not has_place:
        slots.release()
    assert slots.taken == 0
    async with asyncio.timeout(1.0), slots:
        assert slots.taken == 1
