"""
Fetch what an artifact's URL names, guarded: the URL is a model's output, and may be anybody's wish.

A connection is made to an address that was looked at, and to no other: the check sits where the socket is made, behind
name resolution, and so holds for literal addresses, for whatever a name resolves to, and for every redirect.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver

from runner.addresses import Reach, is_within
from runner.clock import Clock, SystemClock
from runner.faults import retry_after_s
from runner.hops import FetchError, Hop
from runner.newfile import NewFile
from runner.policy import backoff_s
from runner.units import duration, size
from runner.wire import failure_text

__all__ = ["FetchError", "Fetcher", "Limits", "open_fetcher"]

MAX_BYTES: Final = 256 * 1024 * 1024
REDIRECTS: Final = 5
RETRIES: Final = 3
_MOVED = (301, 302, 303, 307, 308)


class _Fault(Exception):
    """Raised when a URL's content can't be had just now. *wait_s* is what the server asked for."""

    def __init__(self, message: str, *, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a download may take to connect, between two bytes, and in all, attempts and pauses included."""

    connect_s: float = 10.0
    silence_s: float = 30.0
    whole_s: float = 900.0


@asynccontextmanager
async def open_fetcher(
    *, clock: Clock | None = None, resolver: AbstractResolver | None = None, limits: Limits = Limits()
) -> AsyncIterator["Fetcher"]:
    """
    The fetcher of a batch, closed when the ``async with`` block ends.

    It has no cookies, no proxy and no header of ours. *resolver* finds the addresses of names, None asks the system.
    """
    async with AsyncExitStack() as stack:
        found = aiohttp.ThreadedResolver() if resolver is None else resolver
        sessions = {reach: await stack.enter_async_context(_session(reach, found, limits)) for reach in Reach}
        yield Fetcher(sessions, clock or SystemClock(), limits)


def _session(reach: Reach, resolver: AbstractResolver, limits: Limits) -> aiohttp.ClientSession:
    """A session whose connections stay within *reach*. Each reach has its own: a pool would mix them."""

    def connectable(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, proto, _, address = info
        if not is_within(str(address[0]), reach):
            raise _Elsewhere(reach.value)
        return socket.socket(family, kind, proto)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=resolver,
            socket_factory=connectable,
            use_dns_cache=False,  # it looks names up in tasks of its own, which outlive a cancelled call
            limit=0,  # waiting for a connection would count as connecting
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity"},
        trust_env=False,
        timeout=aiohttp.ClientTimeout(
            total=None, connect=limits.connect_s, sock_connect=limits.connect_s, sock_read=limits.silence_s
        ),
    )


class _Elsewhere(OSError):
    """Raised instead of connecting to an address that is out of reach."""


class Fetcher:
    """Downloads files; made by `open_fetcher`."""

    def __init__(self, sessions: Mapping[Reach, aiohttp.ClientSession], clock: Clock, limits: Limits) -> None:
        self._sessions = sessions
        self._clock = clock
        self._limits = limits

    async def fetch(self, url: str, to: Path, *, loopback: bool, max_bytes: int = MAX_BYTES) -> str | None:
        """
        Download *url* into the new file *to*. What fails for the moment is tried again, from the beginning.

        Args:
            url: https, and a host with a public address; so is wherever it redirects to.
            to: Is not there yet, in a folder that is. Not synced. On any failure, also when cancelled, it is removed.
            loopback: Whether hosts of this machine may be reached, too, also over http.
            max_bytes: The longest content taken, after decompression.

        Returns:
            The ``Content-Type`` that the server gives, None when it gives none. It may be anything.

        Raises:
            FetchError: the content can't be had.
            OSError: *to* can't be written, or is there already (FileExistsError); the URL is not at fault.
        """
        first = Hop.of(url, loopback=loopback)
        async with NewFile(to) as file:
            try:
                async with asyncio.timeout(self._limits.whole_s) as scope:
                    media_type = await self._until_fetched(first, file, max_bytes)
                    await file.finish()  # the last to be waited for: what is cancelled later would leave it there
            except TimeoutError:  # a disk, too, can time out
                if not scope.expired():
                    raise
            if scope.expired():
                raise FetchError(f"{first}: it took longer than {duration(self._limits.whole_s)}")
        return media_type

    async def _until_fetched(self, first: Hop, file: NewFile, max_bytes: int) -> str | None:
        failures = 0
        while True:
            try:
                return await self._try(first, file, max_bytes)
            except _Fault as error:
                failures += 1
                fault = error
            if failures > RETRIES:
                raise FetchError(f"{fault.message}, tried {failures} times")
            wait_s = backoff_s(failures, initial_s=0.5, most_s=8.0, jitter=self._clock.chance())
            await self._clock.sleep(max(wait_s, fault.wait_s))

    async def _try(self, hop: Hop, file: NewFile, max_bytes: int) -> str | None:
        """One attempt: follow the redirects, then write what is there, and say what type it is declared to have."""
        for _ in range(REDIRECTS + 1):
            async with AsyncExitStack() as stack:
                response = await self._answer(hop, stack)
                if response.status in _MOVED and "Location" in response.headers:
                    hop = hop.redirected(response.headers["Location"])
                    continue
                self._check(hop, response)
                await self._write(hop, response, file, max_bytes)
                return response.headers.get("Content-Type")
        raise FetchError(f"{hop}: more than {REDIRECTS} redirects")

    async def _answer(self, hop: Hop, stack: AsyncExitStack) -> aiohttp.ClientResponse:
        try:
            return await stack.enter_async_context(self._sessions[hop.reach].get(hop.url, allow_redirects=False))
        except (aiohttp.ClientError, OSError, ValueError) as error:  # an odd host name is a ValueError
            failure = self._failure(hop, error)
        raise failure  # here it is not chained to an exception that holds the whole URL

    def _check(self, hop: Hop, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status == 429 or status >= 500:
            asked_s = retry_after_s(response.headers.get("Retry-After"), now=self._clock.now())
            raise _Fault(f"{hop}: HTTP {status}", wait_s=asked_s or 0.0)
        if not 200 <= status < 300:
            raise FetchError(f"{hop}: HTTP {status}")

    async def _write(self, hop: Hop, response: aiohttp.ClientResponse, file: NewFile, max_bytes: int) -> None:
        too_large = FetchError(f"{hop}: it is over {size(max_bytes)}")
        if (response.content_length or 0) > max_bytes:
            raise too_large
        await file.restart()
        total = 0
        while piece := await self._piece(hop, response):
            total += len(piece)
            if total > max_bytes:
                raise too_large
            await file.add(piece)

    async def _piece(self, hop: Hop, response: aiohttp.ClientResponse) -> bytes:
        """The next bytes of the content, decompressed if the server compressed it unasked; none at its end."""
        try:
            return await response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            failure = self._failure(hop, error)
        raise failure

    def _failure(self, hop: Hop, error: Exception) -> "FetchError | _Fault":
        """What *error* of aiohttp's means: for good, or for the moment."""
        if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, _Elsewhere):
            return FetchError(f"{hop}: {hop.reach.value}")
        if isinstance(error, aiohttp.InvalidURL) or not isinstance(error, aiohttp.ClientError | OSError):
            return FetchError(f"{hop}: no request can be made of it")
        text = failure_text(error, connect_timeout_s=self._limits.connect_s, read_timeout_s=self._limits.silence_s)
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return FetchError(f"{hop}: {text}")
        return _Fault(f"{hop}: {text}")
