"""What was asked of a job's lanes: go on, start nothing more, or cancel what is in flight."""

import asyncio
from contextlib import AbstractAsyncContextManager
from enum import Enum
from types import TracebackType


class Reason(Enum):
    """Why a job starts nothing more."""

    INTERRUPT = "interrupt"
    """A signal: what is not settled stays for resume."""

    REFUSED = "refused"
    """Its endpoint takes no more jobs: what is not settled stays for resume."""

    CANCEL = "cancel"
    """A second Ctrl-C: what runs is cancelled; what was never sent stays for resume."""

    STOP_WHEN = "stop_when"
    """``stop_when``: what was never sent is skipped, what runs goes on to its end."""

    JOB_TIMEOUT = "job_timeout"
    """``timeouts.job``: what was never sent is skipped, what runs is cancelled."""

    ABANDON = "abandon"
    """``runner cancel``: what was never sent is skipped, what runs is cancelled."""

    @property
    def is_for_good(self) -> bool:
        """Whether no resume goes on with what was never sent."""
        return self in (Reason.STOP_WHEN, Reason.JOB_TIMEOUT, Reason.ABANDON)


class Over(Exception):
    """Raised in a block that `Switch.start` or `Switch.limit` bounds, when it may not go on."""


class Switch:
    """
    One job's switch. Closing it starts nothing more; `cancel` also ends the waiting of what is in flight.

    Attributes:
        reason: Why it was closed; None while it is not.
        is_closed: Whether nothing more may start.
    """

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self.is_closed = False  # as the event has it, which each run would ask several times
        self._closed = asyncio.Event()
        self._cancelled = False
        # Dicts, for a set has no order: whoever waits is ended in the order in which they came.
        self._starting: dict[asyncio.Timeout, None] = {}
        self._in_flight: dict[asyncio.Timeout, None] = {}

    def close(self, reason: Reason) -> None:
        """Start nothing more, and end all waiting for a start. The first reason stays."""
        if self.reason is None:
            self.reason = reason
        self._close()
        _end(self._starting)

    def cancel(self, reason: Reason) -> None:
        """Start nothing more, and end all waiting now, so that each attempt in flight is cancelled at RunPod."""
        self.reason = reason
        self._close()
        self._cancelled = True
        _end(self._starting)
        _end(self._in_flight)

    def _close(self) -> None:
        self.is_closed = True
        self._closed.set()

    async def closed(self, within_s: float) -> bool:
        """Wait until the switch is closed, at most *within_s* seconds; whether it is."""
        if within_s > 0 and not self.is_closed:
            try:
                async with asyncio.timeout(within_s):
                    await self._closed.wait()
            except TimeoutError:
                return self.is_closed
        return self.is_closed

    def start(self, within_s: float) -> AbstractAsyncContextManager[asyncio.Timeout]:
        """Raise Over in the block after *within_s* seconds, or as soon as the switch is closed; until `started`."""
        return _Bounded(0 if self.is_closed else within_s, self._starting)

    def started(self, scope: asyncio.Timeout) -> None:
        """From here on nothing cuts the block of *scope* short, which is of `start`."""
        self._starting.pop(scope, None)
        scope.reschedule(None)

    def limit(self, within_s: float) -> AbstractAsyncContextManager[asyncio.Timeout]:
        """Raise Over in the block after *within_s* seconds, or as soon as `cancel` is called."""
        return _Bounded(0 if self._cancelled else within_s, self._in_flight)


class _Bounded(AbstractAsyncContextManager[asyncio.Timeout]):
    """A block that ends with Over when its scope expires, which is in *scopes* while the block runs."""

    __slots__ = ("_scope", "_scopes")

    def __init__(self, within_s: float, scopes: dict[asyncio.Timeout, None]) -> None:
        self._scope = asyncio.timeout(within_s)
        self._scopes = scopes

    async def __aenter__(self) -> asyncio.Timeout:
        await self._scope.__aenter__()
        self._scopes[self._scope] = None
        return self._scope

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scopes.pop(self._scope, None)
        try:
            await self._scope.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise Over from None
        if isinstance(error, TimeoutError) and self._scope.expired():
            raise Over from None


def _end(scopes: dict[asyncio.Timeout, None]) -> None:
    now = asyncio.get_running_loop().time()
    for scope in scopes:
        if not scope.expired():  # one whose time has come in this very moment takes no new one
            scope.reschedule(now)
