"""
Make requests over aiohttp's connections and hear the answers with aiohttp's parser, past its session.

For each request the session merges headers, takes the URL apart, looks for cookies, proxies, redirects and middlewares,
and on Python 3.11 starts a task that writes the body: most of what a request costs, and the same every time. What is
hard is kept: names, TLS, the pool and the parser are aiohttp's.

Source: aiohttp 3.14.5, client.py (`ClientSession._request`) and client_reqrep.py (`ClientResponse.start`).
"""

import importlib.metadata
import io
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from time import monotonic
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp import hdrs
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from yarl import URL

from runner.deadlines import Deadlines

BROKEN = (aiohttp.ClientError, OSError, HttpProcessingError)  # a TimeoutError is an OSError
"""What comes of an exchange that does not end well, as connector, connection and parser have it."""

INLINE_BODY_BYTES: Final = 64 * 1024
"""A longer body is sent in pieces: a socket takes about so much at once, and aiohttp warns above 1 MiB."""

KEPT_S: Final = 5.0
"""
So long a connection is kept that nobody uses. A POST on one that the other side is just closing fails, and then the job
may exist: so submits use young connections only.
"""


def open_session() -> "Session":
    """
    The one HTTP session of a process, to be closed by whoever opens it.

    It knows no key: each request brings its own.
    """
    connector = aiohttp.TCPConnector(
        limit=0,  # pace.py decides how many calls are out
        # Names are looked up as all other programs of the machine do it, also where aiodns is installed.
        resolver=aiohttp.ThreadedResolver(),
        keepalive_timeout=KEPT_S,
        # ssl is left alone: aiohttp makes one verifying TLS context at import, and shares it.
    )
    return Session(
        connector,
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "User-Agent": f"runner/{_version()}"},
            # The key goes to the endpoint's origin alone. The environment's proxy would see it on the way to a local
            # endpoint (plain http), and ~/.netrc would bring a second Authorization, for which aiohttp refuses to send.
            trust_env=False,
        ),
    )


def _version() -> str:
    try:
        return importlib.metadata.version("runpod-runner")
    except importlib.metadata.PackageNotFoundError:
        return "0"


class Session(AbstractAsyncContextManager["Session"]):
    """
    The connections of a process, aiohttp's own session for what takes long to send, and the deadlines of all requests.
    """

    def __init__(self, connector: aiohttp.TCPConnector, session: aiohttp.ClientSession) -> None:
        self.connector = connector
        self.aiohttp = session
        self.deadlines = Deadlines()
        self._hosts: dict[tuple[str, str], Host] = {}

    @property
    def idle(self) -> list[Connection]:
        """The connections that are kept for the next requests."""
        return [connection for host in self._hosts.values() for connection in host.idle]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for host in self._hosts.values():
            host.close()
        await self.aiohttp.close()

    def request(
        self, method: str, url: str, *, data: bytes | None, headers: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> "Exchange | aiohttp.client._RequestContextManager":
        """
        A request as an ``async with`` block; what the block gets has the `status`, `headers` and `content` of its
        answer. A redirect is an answer like any other: a key among the headers must not travel on.

        *url* is encoded as it has to be, and has neither user nor fragment. *timeout* is for connecting: ``total`` and
        ``sock_read`` are to be None.
        """
        if data is not None and len(data) > INLINE_BODY_BYTES:  # it takes a while, and an answer may come meanwhile
            whole, body = URL(url, encoded=True), io.BytesIO(data)
            return self.aiohttp.request(
                method, whole, data=body, headers=headers, allow_redirects=False, timeout=timeout
            )
        scheme, _, rest = url.partition("://")
        where, _, path = rest.partition("/")
        if (host := self._hosts.get((scheme, where))) is None:
            host = self._hosts[scheme, where] = Host(self, f"{scheme}://{where}")
        lines = "".join([f"\r\n{name}: {value}" for name, value in headers.items()])
        head = f"{method} /{path} HTTP/1.1{host.head}{lines}\r\n"
        if data is None:
            return Exchange(host, f"{head}\r\n".encode("ascii"), timeout)
        return Exchange(host, f"{head}Content-Length: {len(data)}\r\n\r\n".encode("ascii") + data, timeout)


class Host:
    """
    One origin: what all requests to it have in common, and the connections to it that nobody uses just now.

    The connector has such a pool, too, and a new parser is made for each request there. To spare that, and a timer for
    each request (`deadlines.py`), was 7 % of the CPU of zero-second jobs by run + status.
    """

    def __init__(self, session: Session, origin: str) -> None:
        url = URL(origin, encoded=True)
        self.connector = session.connector
        self.request = aiohttp.ClientRequest(hdrs.METH_GET, url)
        """What tells the connector where to."""
        headers = {**self.request.headers, **session.aiohttp.headers}
        self.head = "".join(f"\r\n{name}: {value}" for name, value in headers.items())
        self._idle: deque[tuple[float, Connection]] = deque()  # since when; the last one is the youngest

    @property
    def idle(self) -> list[Connection]:
        """The connections that are kept."""
        return [connection for _, connection in self._idle]

    def take(self) -> Connection | None:
        """A connection that is open, and has its parser; None where there is none."""
        oldest = monotonic() - KEPT_S
        while self._idle:
            since, connection = self._idle.pop()
            protocol = connection.protocol
            assert protocol is not None
            # What came on it meanwhile is an answer to nobody.
            if since >= oldest and protocol.is_connected() and not protocol.should_close:
                return connection
            connection.close()
        return None

    def give_back(self, connection: Connection) -> None:
        """Keep *connection* for a while, if it can be used again."""
        protocol = connection.protocol
        if protocol is None or protocol.should_close:
            connection.close()
            return
        now = monotonic()
        self._idle.append((now, connection))
        while now - self._idle[0][0] > KEPT_S:
            self._idle.popleft()[1].close()

    def close(self) -> None:
        """Close what nobody uses."""
        while self._idle:
            self._idle.pop()[1].close()


class Exchange:
    """
    One request, sent once, and its answer.

    The connection goes back to the pool after the block if all of the answer has come, and is closed otherwise.
    """

    __slots__ = ("_connection", "_data", "_host", "_timeout", "content", "headers", "status")

    status: int
    headers: Mapping[str, str]
    content: aiohttp.StreamReader

    def __init__(self, host: Host, data: bytes, timeout: aiohttp.ClientTimeout) -> None:
        self._host = host
        self._data = data
        self._timeout = timeout

    @property
    def content_length(self) -> int | None:
        """What the answer says of its length; None where it says nothing."""
        said = self.headers.get(hdrs.CONTENT_LENGTH)
        return None if said is None else int(said)

    def whole(self) -> bytes | None:
        """The body, if all of it came with its head, as most do; it is given once."""
        return self.content.read_nowait() if self.content.is_eof() else None

    async def __aenter__(self) -> Self:
        connection = self._host.take() or await self._connected()
        try:
            protocol, transport = connection.protocol, connection.transport
            if protocol is None or transport is None or transport.is_closing():
                raise aiohttp.ServerDisconnectedError
            transport.write(self._data)
            self._data = b""  # it has our key, and what was sent is in nobody's way while the answer is held
            message, content = await protocol.read()
            while 100 <= message.code <= 199 and message.code != 101:  # the answer is still to come
                message, content = await protocol.read()
        except BaseException:  # what comes later on this connection, nobody must take for an answer to something else
            connection.close()
            raise
        self._connection = connection
        self.status, self.headers, self.content = message.code, message.headers, content
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._host.give_back(self._connection)

    async def _connected(self) -> Connection:
        """A new connection, or one that was released by aiohttp's session."""
        try:
            connection = await self._host.connector.connect(self._host.request, [], self._timeout)
        except TimeoutError:
            raise aiohttp.ConnectionTimeoutError from None
        if connection.protocol is not None:
            connection.protocol.set_response_params(read_until_eof=True)
        return connection
