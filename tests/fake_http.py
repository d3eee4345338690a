"""A scripted HTTP server on a raw loopback socket, for what a mocked client can't show: how connections end."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self

Between = Callable[[], Awaitable[None]]


class Then(Enum):
    """What the server does with the connection after it has written a reply."""

    KEEP = "keep it open for the next request"
    CLOSE = "close it in order"
    RESET = "reset it"
    HOLD = "say nothing more until the test ends"


@dataclass(frozen=True, slots=True)
class Reply:
    """The very bytes to write when a request is in, piece by piece if they are many, and what to do then."""

    data: bytes = b""
    then: Then = Then.KEEP
    pieces: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived; *connection* counts from 0."""

    head: str
    body: bytes
    connection: int


def answer(body: bytes, *, status: str = "200 OK", headers: Sequence[str] = (), length: int | None = None) -> bytes:
    """An HTTP answer with *body*; *length* is what it claims to have."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class RawServer:
    """Answers the n-th request, over all connections, with the n-th reply; then with the last one again."""

    def __init__(self, *replies: Reply, greeting: bytes = b"", between: Between | None = None) -> None:
        """*greeting* goes out before any request; *between* is awaited before each further piece of a reply."""
        self._replies = replies
        self._greeting = greeting
        self._between = between
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._count = 0
        self.requests: list[Request] = []
        self.asked = asyncio.Event()
        """Set once the first request is in."""
        self.port = 0

    @property
    def url(self) -> str:
        """The base URL to give to a client."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        number, self._count = self._count, self._count + 1
        # A cancelled handler would be reported by asyncio's streams as if it were an error.
        with suppress(asyncio.CancelledError, OSError):
            writer.write(self._greeting)
            while request := await _read(reader, number):
                self.requests.append(request)
                self.asked.set()
                reply = self.reply(request)
                await self._write(reply, writer)
                if reply.then is Then.HOLD:
                    await asyncio.Event().wait()
                if reply.then is Then.RESET:
                    _reset(writer)
                if reply.then is not Then.KEEP:
                    break
        writer.close()

    def reply(self, request: Request) -> Reply:
        """What to answer to *request*, the newest of `requests`."""
        return self._replies[min(len(self.requests), len(self._replies)) - 1]

    async def _write(self, reply: Reply, writer: asyncio.StreamWriter) -> None:
        writer.write(reply.data)
        for piece in reply.pieces:
            if self._between:
                await self._between()
            writer.write(piece)
        await writer.drain()


async def _read(reader: asyncio.StreamReader, connection: int) -> Request | None:
    """The next whole request, or None once the client has closed."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    length = next((line.split(":")[1] for line in head.splitlines() if line.lower().startswith("content-length:")), "0")
    return Request(head, await reader.readexactly(int(length)), connection)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Make the close of this connection a reset."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
