"""A loop without a machine under it: its time is a number, its threads are calls, its order is always the same."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")

BEGINS_S = 1000.0
"""Where the loop's time stands at first: a monotonic clock may stand anywhere."""

MOST_TURNS = 1_500_000
"""A life that takes more turns of the loop than this never ends."""


class Stuck(Exception):
    """Raised out of the loop when nothing can ever happen any more, or something happens for ever."""


class SimLoop(asyncio.SelectorEventLoop):
    """
    A loop in virtual time: where nothing is to be done it jumps to the next timer.

    What is given to a thread is done by the loop itself, *thread_s* later. Tasks are numbered, and hash by their
    number, so that a set of them has the same order whenever the same things happen. *on_turn* is called in every
    turn, before its timers: it may do what it likes.
    """

    def __init__(self) -> None:
        self.now_s = BEGINS_S
        self.turns = 0
        self.thread_s = 0.0
        self.on_turn: Callable[[], None] = lambda: None
        self._numbers = count(1)
        super().__init__(_NoMachine(self))
        self.set_task_factory(self._task)  # type: ignore[arg-type]

    def time(self) -> float:
        return self.now_s

    def _task(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], **more: Any) -> "asyncio.Task[T]":
        return _Task(next(self._numbers), coro, loop=loop, **more)

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, **more: Any) -> asyncio.Handle:  # type: ignore[override]
        return self.call_soon(callback, *args, **more)  # there are no other threads

    def run_in_executor(self, executor: object, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":  # type: ignore[override]
        done: asyncio.Future[T] = self.create_future()

        def call() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - it is handed on to who waits
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        self.call_later(self.thread_s, call)
        return done

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be done in this moment."""
        return not self._ready  # type: ignore[attr-defined]


class _Task(asyncio.Task[T]):
    """A task with a number."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, T], **more: Any) -> None:
        self._number = number  # before anything else: it is put into a set as it is made
        super().__init__(coro, **more)

    def __hash__(self) -> int:
        return self._number


class _NoMachine(selectors.SelectSelector):
    """Waits for nothing: time jumps instead."""

    def __init__(self, loop: SimLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self._loop
        loop.turns += 1
        if loop.turns > MOST_TURNS:
            raise Stuck(f"more than {MOST_TURNS} turns")
        loop.on_turn()
        if timeout == 0 or not loop.is_idle:
            return []
        if timeout is None:
            raise Stuck("everything waits for something else")
        loop.now_s += max(0.0, timeout)
        return []
