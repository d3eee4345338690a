"""A local server for all tests of a module: in a thread, since each test has a loop of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from serving import TOKEN, Client

from runner.local.server import LocalServer, Served


@dataclass
class Shared:
    """A server that runs in a thread, and what its workers printed, each line after its worker's id."""

    server: LocalServer
    lines: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def client(self, endpoint: str) -> AsyncIterator[Client]:
        """A client of one of its endpoints, in the loop of the test."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            yield Client(self.server, session, endpoint, self.lines)


@contextmanager
def shared(served: Sequence[Served], **options: Any) -> Iterator[Shared]:
    """Serve while the block runs."""
    lines: list[str] = []
    server = LocalServer(
        served, token=TOKEN, on_output=lambda worker, line: lines.append(f"{worker} {line}"), **options
    )
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        try:
            async with server:
                started.set_result((asyncio.get_running_loop(), stop))
                await stop.wait()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="local-server")
    thread.start()
    try:
        loop, stop = started.result()
        try:
            yield Shared(server, lines)
        finally:
            loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join()
