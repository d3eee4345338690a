"""
Carry one request to RunPod, and its whole answer back.

Every request is sent at most once: an `Exchange` sends nothing twice, and aiohttp's session, which sends long bodies,
never re-sends a POST. A POST sent twice could make two paid jobs; a /stream sent twice would hide that the first one's
chunks went with its answer.
"""

import asyncio
import os
import time
from typing import Final, NamedTuple

import aiohttp
from aiohttp.http import HttpProcessingError

from runner.deadlines import Deadline
from runner.errors import AnswerLost, RunPodError, TooLarge, Unreachable
from runner.exchange import BROKEN, Exchange, Session
from runner.faults import Refusal, fault
from runner.plain import plain
from runner.secret import Masker, Secret
from runner.spool import Spool, Unkept
from runner.units import duration, size

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
CONNECT_TIMEOUT_S: Final = 10.0
SLOWEST_BYTES_PER_S: Final = 64 * 1024
"""A body earns its request this much more time: a slow line must not turn a large submit into a lost answer."""


class Call(NamedTuple):
    """
    One request. *where* names it in messages; *url* is encoded as it has to be.

    *limit_s* bounds the time until the answer begins, connecting and sending included. *brings_result* says that the
    answer may be a job's result.
    """

    where: str
    method: str
    url: str
    body: bytes | None
    limit_s: float
    brings_result: bool


class Wire:
    """Sends calls with one key, over a session that it shares with others."""

    def __init__(
        self,
        session: Session,
        *,
        api_key: Secret,
        masker: Masker,
        connect_timeout_s: float,
        max_answer_bytes: int,
    ) -> None:
        self._session = session
        self._api_key = api_key
        self._masker = masker
        self._connect_timeout_s = connect_timeout_s
        self._max_answer_bytes = max_answer_bytes
        # Only what makes a connection: `send` bounds the rest, and one timer is cheaper than two.
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=connect_timeout_s, sock_connect=connect_timeout_s, sock_read=None
        )

    async def send(self, call: Call, body: Spool) -> int:
        """
        Send *call* once.

        Args:
            call: The request.
            body: An empty one, that takes the answer's body, decompressed.

        Returns:
            The HTTP status, 2xx.

        Raises:
            RunPodError: there was no such answer, or it can't be kept. It is not chained to aiohttp's exception, which
                may hold our key among the request's headers.
        """
        refusal: Refusal | None = None
        failure: RunPodError | None = None
        try:
            with self._session.deadlines.within(call.limit_s) as scope:
                async with self._request(call) as response:
                    if 200 <= response.status < 300:
                        await self._read(response, call, scope, body)
                        return response.status
                    refusal = Refusal(response.status, response.headers.get("Retry-After"))
                    async for chunk in response.content.iter_any():
                        refusal.body += chunk
                        if refusal.is_heard:
                            break
        except Unkept as error:
            failure = unkept(call, response.status, error)
        except BROKEN as error:
            failure = None if refusal else self._lost(call, error)
        if refusal is not None:  # its status came; that the rest did not changes nothing
            failure = fault(call.where, refusal, masker=self._masker, now=time.time())
        # Raised here, not in the handler: there Python would chain it to aiohttp's exception.
        assert failure is not None
        raise failure

    def _request(self, call: Call) -> "Exchange | aiohttp.client._RequestContextManager":
        headers = {"Authorization": f"Bearer {self._api_key.reveal()}"}
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        return self._session.request(call.method, call.url, data=call.body, headers=headers, timeout=self._timeout)

    async def _read(
        self, response: Exchange | aiohttp.ClientResponse, call: Call, scope: Deadline, body: Spool
    ) -> None:
        """
        Fill *body*, as long as it stays under the limit; the deadline moves with every piece that comes.

        Silence is borne for as long as the beginning of the answer was.
        """
        if isinstance(response, Exchange) and (piece := response.whole()) is not None:
            if len(piece) > self._max_answer_bytes:
                raise self._too_large(call, response.status)
            body.add(piece)
            return
        if (response.content_length or 0) > self._max_answer_bytes:
            raise self._too_large(call, response.status)
        loop, content, deadline = asyncio.get_running_loop(), response.content, scope.when
        assert deadline is not None
        # Decompressed piece by piece, so a small body that unpacks to gigabytes is noticed in time.
        while chunk := await content.readany():
            if body.size_bytes + len(chunk) > self._max_answer_bytes:
                raise self._too_large(call, response.status)
            body.add(chunk)
            if content.at_eof():  # most answers come in one piece, and need no new deadline
                break
            deadline += len(chunk) / SLOWEST_BYTES_PER_S
            if body.is_due:
                began_at = loop.time()
                scope.reschedule(None)  # a slow disk here is not a slow answer
                await body.flush()
                deadline += loop.time() - began_at
            scope.reschedule(min(deadline, loop.time() + call.limit_s))
        if body.is_in_file:
            scope.reschedule(None)
            await body.flush()

    def _too_large(self, call: Call, status: int) -> RunPodError:
        # A look lost nothing, and only a job's result is so long; what any other POST did, nobody knows.
        kind = TooLarge if call.method == "GET" or call.brings_result else AnswerLost
        return kind(f"{call.where}: HTTP {status} with an answer over {size(self._max_answer_bytes)}", status=status)

    def _lost(self, call: Call, error: Exception) -> RunPodError:
        """What it means that no whole answer came."""
        is_unsent = isinstance(error, aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError)
        kind = Unreachable if is_unsent else AnswerLost
        said = failure_text(error, connect_timeout_s=self._connect_timeout_s, read_timeout_s=call.limit_s)
        return kind(f"{call.where}: {said}")


def unkept(call: Call, status: int, error: Unkept) -> AnswerLost:
    """
    What it means that the whole answer of *call* was more than our disk takes: a look can be repeated, and what a POST
    did, it did.
    """
    return AnswerLost(f"{call.where}: HTTP {status} with an answer that {error}", status=status)


def failure_text(error: Exception, *, connect_timeout_s: float, read_timeout_s: float) -> str:
    """Why no whole answer came, in our words: aiohttp's may hold headers."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {duration(connect_timeout_s)}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {error.host}:{error.port}: {_reason(error)}"
    if isinstance(error, TimeoutError):
        return f"no answer within {duration(read_timeout_s)}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before an answer came"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer was cut short, or could not be decompressed"
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        return "the answer was not HTTP"
    return f"the connection broke ({_reason(error)})"


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
