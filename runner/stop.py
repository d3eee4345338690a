"""What was asked of a job's lanes: go on, start nothing more, or cancel what is in flight."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum


class Reason(Enum):
    """Why a job starts nothing more."""

    INTERRUPT = "interrupt"
    """A signal: what is not settled stays for resume."""

    REFUSED = "refused"
    """Its endpoint takes no more jobs: what is not settled stays for resume."""

    JOB_TIMEOUT = "job_timeout"
    """``timeouts.job``: what was never sent is skipped, what runs is cancelled."""

    CANCEL = "cancel"
    """A decision to end it: what runs is cancelled; what was never sent stays for resume."""


class Switch:
    """One job's switch. Closing it starts nothing more; `cancel` also ends the waiting of what is in flight."""

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self._closed = asyncio.Event()
        self._scopes: set[asyncio.Timeout] = set()
        self._cancelled = False

    @property
    def is_closed(self) -> bool:
        """Whether nothing more may start."""
        return self._closed.is_set()

    def close(self, reason: Reason) -> None:
        """Start nothing more. The first reason stays."""
        if self.reason is None:
            self.reason = reason
        self._closed.set()

    def cancel(self, reason: Reason) -> None:
        """Start nothing more, and end all waiting now, so that each attempt in flight is cancelled at RunPod."""
        self.reason = reason
        self._closed.set()
        self._cancelled = True
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            scope.reschedule(now)

    async def closed(self, within_s: float) -> bool:
        """Wait until the switch is closed, at most *within_s* seconds; whether it is."""
        if within_s > 0 and not self.is_closed:
            try:
                async with asyncio.timeout(within_s):
                    await self._closed.wait()
            except TimeoutError:
                return False
        return self.is_closed

    @asynccontextmanager
    async def limit(self, within_s: float) -> AsyncIterator[None]:
        """Raise TimeoutError in the block after *within_s* seconds, or as soon as `cancel` is called."""
        async with asyncio.timeout(0 if self._cancelled else within_s) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
