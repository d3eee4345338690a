"""Places for what may go on at once. Who is there already is never turned away, whoever comes waits for a place."""

import asyncio
from collections import deque
from contextlib import AbstractAsyncContextManager
from types import TracebackType


class Slots(AbstractAsyncContextManager[None]):
    """
    At most *limit* places taken at once, first come, first served.

    A job of an earlier process is in flight, whatever the limit is now: it takes its place by `take_over`, and nobody
    else gets one until enough of them have ended.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_now(self) -> bool:
        """Take a place if that needs no waiting; whether it was taken."""
        if self.taken < self.limit and not self._waiting:
            self.taken += 1
            return True
        return False

    async def take(self) -> None:
        """Take a place, when it is our turn."""
        if self.take_now():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had just got the place
                self.release()
            raise

    def take_over(self) -> None:
        """Take a place, also one too many."""
        self.taken += 1

    def release(self) -> None:
        """Give a place back."""
        self.taken -= 1
        if self._waiting:
            self._wake()

    def resize(self, limit: int) -> None:
        """Make *limit* places of it. Who has one keeps it."""
        self.limit = limit
        self._wake()

    async def __aenter__(self) -> None:
        if not self.take_now():
            await self.take()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def _wake(self) -> None:
        while self._waiting and self.taken < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.taken += 1
                turn.set_result(None)
