"""Time, sleep and chance behind one small object, so that tests can own all three."""

import asyncio
import random
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """What decides "when" in the engine. Durations come from `monotonic`; only records hold `now`."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back; comparable within one process only."""
        ...

    def chance(self) -> float:
        """A number in [0, 1), for jitter."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait *delay_s* seconds; at once, but not without yielding, if it is not positive."""
        ...


class SystemClock:
    """The machine's own clock."""

    now = staticmethod(time.time)  # as they are: each run asks some twenty times
    monotonic = staticmethod(time.monotonic)
    chance = staticmethod(random.random)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(max(0.0, delay_s))


def iso(at: float) -> str:
    """*at* (seconds since the epoch) as UTC ISO 8601 with milliseconds, as every file of a batch writes it."""
    second, us = divmod(round(at * 1_000_000), 1_000_000)
    return f"{_second(second)}.{us // 1000:03d}Z"


@lru_cache(16)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()[:19]
