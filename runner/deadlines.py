"""
Bound how long a block may take, with one timer for all blocks.

Nearly none of them ever goes off: a timer for each request, which `asyncio.timeout` sets and takes back, took 5 µs and
more, and this takes 1.5.
"""

import asyncio
from types import TracebackType
from typing import Self


class Deadlines:
    """
    What bounds the blocks of one event loop.

    Attributes:
        blocks: Those that are under way.
    """

    def __init__(self) -> None:
        self.blocks: set[Deadline] = set()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def within(self, limit_s: float) -> "Deadline":
        """
        A ``with`` block that raises TimeoutError once it has taken *limit_s* seconds, as `asyncio.timeout` does: what
        it waits for is cancelled.
        """
        return Deadline(self, self._loop.time() + limit_s)

    def wake_by(self, when: float | None) -> None:
        """Look at all blocks no later than *when*, by the loop's clock; None: never."""
        if when is None or (self._timer is not None and self._timer.when() <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer, now = None, self._loop.time()
        for block in [one for one in self.blocks if one.when is not None and one.when <= now]:
            block.expire()
        self.wake_by(min((one.when for one in self.blocks if one.when is not None), default=None))


class Deadline:
    """
    A block of one task that may take so long.

    Attributes:
        when: When it is over, by the loop's clock; None: never.
        is_over: Whether it was cancelled for that.
    """

    __slots__ = ("_all", "_cancelling", "_task", "is_over", "when")

    _task: asyncio.Task[object]

    def __init__(self, all_: Deadlines, when: float | None) -> None:
        self._all = all_
        self.when = when
        self.is_over = False

    def reschedule(self, when: float | None) -> None:
        """Let it be over at *when* instead, by the loop's clock; None: never."""
        self.when = when
        self._all.wake_by(when)

    def expire(self) -> None:
        """Cancel what the block waits for."""
        self.is_over = True
        self.when = None
        self._task.cancel()

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._all.blocks.add(self)
        self._all.wake_by(self.when)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._all.blocks.discard(self)  # the timer stays: as a rule the next block wants it no earlier
        # Cancelled by somebody else as well, it stays cancelled.
        if self.is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
