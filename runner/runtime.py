"""The event loop and the garbage collector of a process that is ours alone: what the command does, and no library."""

import asyncio
import gc
import importlib.util
import os
from collections.abc import Callable, Coroutine
from typing import TypeVar

T = TypeVar("T")

LOOP_VARIABLE = "RUNNER_LOOP"
"""Set to ``asyncio``, it keeps the standard library's loop where uvloop is installed."""

YOUNG = 20_000
"""So many new objects until the collector looks at them: what a batch has in flight fits, and dies by itself."""


def run(main: Coroutine[object, object, T]) -> T:
    """What *main* comes to, on uvloop's loop where that is installed."""
    with asyncio.Runner(loop_factory=_uvloop()) as runner:
        return runner.run(main)


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes uvloop's loops; None where it is not installed, or not wanted."""
    if os.environ.get(LOOP_VARIABLE) == "asyncio" or importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def settle_in() -> None:
    """
    Let the collector leave alone what is there now, modules and models, and look less often at what comes.

    It finds next to nothing in a batch, and looking took a sixth of the time.
    """
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 50)
