"""Do blocking things to one file in threads, one at a time, so that no disk ever holds up the event loop."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class OffLoop:
    """
    Calls functions in threads, one at a time, until `last` has called its own.

    A function whose caller is cancelled runs to its end all the same; what is asked for after it waits for it.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._is_over = False

    async def do(self, function: Callable[..., T], *args: object) -> T:
        """Call ``function(*args)`` in a thread: what it returns or raises."""
        return await asyncio.to_thread(self.here, function, *args)

    def here(self, function: Callable[..., T], *args: object) -> T:
        """As `do`, for a caller that is in a thread already."""
        with self._turn:
            if self._is_over:  # only a call that was cancelled before its thread began comes so late: nobody hears it
                raise RuntimeError("the last was called")
            return function(*args)

    async def last(self, function: Callable[[], None]) -> None:
        """Call *function* in a thread, and nothing after it; even if this call is cancelled."""
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._last, function))

    def _last(self, function: Callable[[], None]) -> None:
        with self._turn:
            self._is_over = True
            function()
