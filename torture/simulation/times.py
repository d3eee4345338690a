"""The three times of a simulated life: the world's, the calendar of our machine, and its monotonic clock."""

import asyncio
import random

from torture.simulation.loop import BEGINS_S, SimLoop

EPOCH = 1_800_000_000.0
"""What the machine's calendar says when a life begins."""


class Times:
    """
    Time in the world, and what our machine believes of it.

    While a laptop sleeps its monotonic clock stands still, the world goes on, and so does its calendar.
    """

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self.slept_s = 0.0
        self.stepped_s = 0.0

    @property
    def world_s(self) -> float:
        """Seconds since the life began, where RunPod is."""
        return self._loop.now_s - BEGINS_S + self.slept_s

    @property
    def calendar(self) -> float:
        """What the machine takes for the time, in seconds since the epoch."""
        return EPOCH + self.world_s + self.stepped_s


class SimClock:
    """The `runner.clock.Clock` of one process."""

    def __init__(self, times: Times, chance: random.Random) -> None:
        self._times = times
        self._chance = chance

    def now(self) -> float:
        return self._times.calendar

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def chance(self) -> float:
        return self._chance.random()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(max(0.0, delay_s))
