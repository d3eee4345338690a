"""
Carry one request to RunPod, and its whole answer back. Alone imports aiohttp's client.

A POST is surely sent at most once: aiohttp re-sends a request on a dead kept-alive connection only for its
IDEMPOTENT_METHODS, to which POST does not belong. It may send a GET twice: harmless, save for /stream, whose chunks
are lost with a lost answer anyway.

Source: aiohttp 3.14.5, client.py and connector.py.
"""

import asyncio
import importlib.metadata
import io
import os
import time
from dataclasses import dataclass
from typing import Final

import aiohttp

from runner.errors import AnswerLost, RunPodError, TooLarge, Unreachable
from runner.faults import Refusal, fault
from runner.plain import plain
from runner.secret import Masker, Secret
from runner.units import duration, size

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
CONNECT_TIMEOUT_S: Final = 10.0
SLOWEST_BYTES_PER_S: Final = 64 * 1024
"""A body earns its request this much more time: a slow line must not turn a large submit into a lost answer."""


def open_session() -> aiohttp.ClientSession:
    """
    The one HTTP session of a process, to be closed by whoever opens it.

    It knows no key: each request brings its own.
    """
    connector = aiohttp.TCPConnector(
        limit=0,  # pace.py decides how many calls are out
        # A POST on a connection that the other side is just closing fails, and then the job may exist. So submits
        # use young connections only.
        keepalive_timeout=5.0,
        # ssl is left alone: aiohttp makes one verifying TLS context at import, and shares it.
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept": "application/json", "User-Agent": f"runner/{_version()}"},
        # The key goes to the endpoint's origin alone. The environment's proxy would see it on the way to a local
        # endpoint (plain http), and ~/.netrc would bring a second Authorization, for which aiohttp refuses to send.
        trust_env=False,
    )


def _version() -> str:
    try:
        return importlib.metadata.version("runpod-runner")
    except importlib.metadata.PackageNotFoundError:
        return "0"


@dataclass(frozen=True, slots=True)
class Call:
    """
    One request. *where* names it in messages.

    *limit_s* bounds the time until the answer begins, connecting and sending included.
    """

    where: str
    method: str
    url: str
    body: bytes | None
    limit_s: float


class Wire:
    """Sends calls with one key, over a session that it shares with others."""

    def __init__(
        self, session: aiohttp.ClientSession, *, api_key: Secret, connect_timeout_s: float, max_answer_bytes: int
    ) -> None:
        self._session = session
        self._api_key = api_key
        self._masker = Masker([api_key])
        self._connect_timeout_s = connect_timeout_s
        self._max_answer_bytes = max_answer_bytes

    async def send(self, call: Call) -> tuple[int, bytes]:
        """
        Send *call* once.

        Returns:
            The HTTP status, 2xx, and the whole body, decompressed.

        Raises:
            RunPodError: there was no such answer. It is not chained to aiohttp's exception, which may hold our key
                among the request's headers.
        """
        refusal: Refusal | None = None
        try:
            async with asyncio.timeout(call.limit_s) as scope, self._request(call) as response:
                if 200 <= response.status < 300:
                    return response.status, await self._read(response, call, scope)
                refusal = Refusal(response.status, response.headers.get("Retry-After"))
                async for chunk in response.content.iter_any():
                    refusal.body += chunk
                    if refusal.is_heard:
                        break
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            failure = None if refusal else self._lost(call, error)
        else:
            failure = None
        if refusal is not None:  # its status came; that the rest did not changes nothing
            failure = fault(call.where, refusal, masker=self._masker, now=time.time())
        # Raised here, not in the handler: there Python would chain it to aiohttp's exception.
        assert failure is not None
        raise failure

    def _request(self, call: Call) -> "aiohttp.client._RequestContextManager":
        headers = {"Authorization": f"Bearer {self._api_key.reveal()}"}
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        return self._session.request(
            call.method,
            call.url,
            # As a file it is sent in pieces; as bytes above 1 MiB aiohttp warns that it blocks the loop.
            data=None if call.body is None else io.BytesIO(call.body),
            headers=headers,
            allow_redirects=False,  # the key must not travel on
            timeout=aiohttp.ClientTimeout(
                total=None,  # `send` bounds the whole, and lets the bound grow with the body
                connect=self._connect_timeout_s,
                sock_connect=self._connect_timeout_s,
                sock_read=call.limit_s,
            ),
        )

    async def _read(self, response: aiohttp.ClientResponse, call: Call, scope: asyncio.Timeout) -> bytes:
        """The body, as long as it stays under the limit; the deadline moves with every piece that comes."""
        too_large = TooLarge(
            f"{call.where}: HTTP {response.status} with an answer over {size(self._max_answer_bytes)}",
            status=response.status,
        )
        if (response.content_length or 0) > self._max_answer_bytes:
            raise too_large
        chunks: list[bytes] = []
        total = 0
        # Decompressed piece by piece, so a small body that unpacks to gigabytes is noticed in time.
        async for chunk in response.content.iter_any():
            total += len(chunk)
            if total > self._max_answer_bytes:
                raise too_large
            chunks.append(chunk)
            deadline = scope.when()
            assert deadline is not None
            scope.reschedule(deadline + len(chunk) / SLOWEST_BYTES_PER_S)
        return b"".join(chunks)

    def _lost(self, call: Call, error: Exception) -> RunPodError:
        """What it means that no whole answer came. Says it in our words: aiohttp's may hold headers."""
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return Unreachable(f"{call.where}: no connection within {duration(self._connect_timeout_s)}")
        if isinstance(error, aiohttp.ClientConnectorError):
            return Unreachable(f"{call.where}: no connection to {error.host}:{error.port}: {_reason(error)}")
        if isinstance(error, TimeoutError):
            return AnswerLost(f"{call.where}: no answer within {duration(call.limit_s)}")
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return AnswerLost(f"{call.where}: the connection was closed before an answer came")
        if isinstance(error, aiohttp.ClientPayloadError):
            return AnswerLost(f"{call.where}: the answer was cut short, or could not be decompressed")
        if isinstance(error, aiohttp.ClientResponseError):
            return AnswerLost(f"{call.where}: the answer was not HTTP")
        return AnswerLost(f"{call.where}: the connection broke ({_reason(error)})")


def _reason(error: Exception) -> str:
    """Why there is no connection, in few words."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name was not found"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return plain(f"its certificate was not accepted: {error.certificate_error}")
    if isinstance(error, aiohttp.ClientSSLError):
        return plain(f"TLS failed: {error.os_error}")
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    if isinstance(error, aiohttp.ClientConnectorError):  # several addresses, each with a reason of its own
        return plain(str(error.os_error))
    return type(error).__name__
