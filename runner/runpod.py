"""
Speak RunPod's HTTP API: one method an operation, wire JSON in, our records out.

Nothing is retried here: every method sends one request and says what its failure lets the caller conclude.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlsplit

from yarl import URL

from runner.answers import (
    Chunks,
    EndpointHealth,
    Purged,
    RemoteJob,
    is_id,
    read_chunks,
    read_health,
    read_job,
    read_purged,
    read_submitted,
)
from runner.errors import Unreadable, UsageError
from runner.exchange import Session, open_session
from runner.faults import evidence
from runner.parsing import INLINE_BYTES, parse, parse_answer
from runner.plain import plain
from runner.secret import Masker, Secret
from runner.spool import Spool, Unkept
from runner.values import JsonValue
from runner.wire import CONNECT_TIMEOUT_S, MAX_ANSWER_BYTES, SLOWEST_BYTES_PER_S, Call, Wire, unkept

__all__ = ["RunPod", "open_session"]

T = TypeVar("T")

STREAM_HOLD_MS: Final = 10_000
"""How long RunPod holds an empty /stream when not told."""

UNREADABLE_BYTES: Final = 8 * 1024 * 1024
"""How much of an answer that can't be read is kept."""

_KEY = re.compile(r"[\x21-\x7e]+")


class RunPod:
    """
    One endpoint, seen through RunPod's HTTP API.

    Every method raises `runner.errors.RunPodError`: `NotSent` when surely nothing was accepted, `AnswerLost` when it
    may have been, `Refused` when RunPod said no. Cancelling a call never cancels the job.

    ``timeout_s`` of a method replaces *request_timeout_s* for that call. Either is the time until the answer begins,
    not counting the time that RunPod was asked to hold it; bodies earn time by their length, in both directions.
    """

    def __init__(
        self,
        session: Session,
        *,
        base_url: str,
        endpoint_id: str,
        api_key: Secret,
        masker: Masker | None = None,
        request_timeout_s: float = 30.0,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """
        Args:
            session: From `open_session`; not closed here.
            base_url: Up to and without the endpoint id, as ``https://api.runpod.ai/v2``.
            endpoint_id: RunPod's id of the endpoint.
            api_key: Sent to *base_url* only.
            masker: Masks what errors say, should they echo what we sent; it learns the key.
            request_timeout_s: Time for an answer to begin, holding not counted.
            connect_timeout_s: Time for name, connection and TLS together; running out of it is `Unreachable`.
            max_answer_bytes: The largest answer taken, after decompression.

        Raises:
            UsageError: the URL, the id or the key can't be used.
        """
        if not is_id(endpoint_id):
            raise UsageError(f"'{plain(endpoint_id)}' is not an endpoint id", fix="an id has letters, digits, '-', '_'")
        if not _KEY.fullmatch(api_key.reveal()):
            raise UsageError(
                f"the API key in {api_key.name} is empty, or no HTTP header can carry it",
                fix="copy the key again, without spaces or line breaks",
            )
        self.endpoint_id = endpoint_id
        self._base = _checked(base_url)
        self._url = f"{URL(self._base)}/{endpoint_id}"  # encoded once: all that is added to it needs none
        self._masker = Masker() if masker is None else masker
        self._masker.add(api_key)
        self._request_timeout_s = request_timeout_s
        self._wire = Wire(
            session,
            api_key=api_key,
            masker=self._masker,
            connect_timeout_s=connect_timeout_s,
            max_answer_bytes=max_answer_bytes,
        )

    def __repr__(self) -> str:
        return f"RunPod({self._base}/{self.endpoint_id})"

    async def run(self, body: bytes, *, timeout_s: float | None = None) -> RemoteJob:
        """
        Queue one job, without waiting for it to start.

        Args:
            body: The encoded request, ``{"input": …}`` with what else RunPod knows; at most 10 MiB.
            timeout_s: See the class.

        Returns:
            The job's id and first status. Its output can be fetched for 30 min after it completes.

        Raises:
            NotSent: nothing was queued; sending it again can't pay twice.
            AnswerLost: the job may exist, and a second submit may run it twice. So is an answer without an id.
            Refused: nothing was queued.

        Source: RunPod docs, "Operation reference", /run (read August 2026).
        """
        return await self._ask(self._call("POST", "/run", body=body, timeout_s=timeout_s), read_submitted)

    async def runsync(self, body: bytes, *, wait_ms: int, timeout_s: float | None = None) -> RemoteJob:
        """
        Queue one job and hold the request until it is final, or *wait_ms* has passed.

        Args:
            body: As for `run`; at most 20 MiB.
            wait_ms: 1_000..300_000; added to the timeout.
            timeout_s: See the class.

        Returns:
            The job; if it is not final it goes on, and has to be followed. Its output is kept for 1 min only.

        Raises:
            NotSent, AnswerLost, Refused: as for `run`.
            TooLarge: as for `run`; with a 2xx the job ran, and its result is more than we take.
        """
        call = self._call("POST", "/runsync", body=body, wait_ms=wait_ms, timeout_s=timeout_s, brings_result=True)
        return await self._ask(call, read_submitted)

    async def status(self, job_id: str, *, timeout_s: float | None = None) -> RemoteJob:
        """
        Look at one job.

        Raises:
            NotFound: the job is unknown here: expired, past its ttl, purged, of another endpoint, or not yet visible.
            NotSent, AnswerLost: nothing is known; the job goes on.
        """
        call = self._call("GET", "/status", job_id=job_id, timeout_s=timeout_s)
        return await self._ask(call, partial(read_job, job_id=job_id))

    async def status_sync(self, job_id: str, *, wait_ms: int, timeout_s: float | None = None) -> RemoteJob:
        """
        Look at one job once it is final, or when *wait_ms* (1_000..300_000) has passed.

        Raises:
            NotFound: as for `status`, or the operation itself is not there: look with `status` to know.
            Unsupported: the operation is not there; it is in RunPod's SDKs, not in its documentation.
        """
        call = self._call("GET", "/status-sync", job_id=job_id, wait_ms=wait_ms, timeout_s=timeout_s)
        return await self._ask(call, partial(read_job, job_id=job_id))

    async def stream(self, job_id: str, *, wait_ms: int | None = None, timeout_s: float | None = None) -> Chunks:
        """
        Take the chunks that the job yielded since the last read.

        Args:
            job_id: From `run`.
            wait_ms: How long RunPod holds the request while there are none; None leaves it at RunPod's 10 s.
            timeout_s: See the class.

        Raises:
            AnswerLost: chunks may have been taken, and are gone: the stream can't be vouched for any more.
        """
        call = self._call("GET", "/stream", job_id=job_id, wait_ms=wait_ms, held_ms=STREAM_HOLD_MS, timeout_s=timeout_s)
        return await self._ask(call, read_chunks)

    async def cancel(self, job_id: str, *, timeout_s: float | None = None) -> RemoteJob:
        """
        Stop a job, queued or running. It may have completed first: look at it once more.

        Raises:
            NotFound: nothing is there to stop.
            AnswerLost: it may have been stopped.
        """
        call = self._call("POST", "/cancel", job_id=job_id, body=b"{}", timeout_s=timeout_s)
        return await self._ask(call, partial(read_job, job_id=job_id))

    async def retry(self, job_id: str, *, timeout_s: float | None = None) -> RemoteJob:
        """
        Queue a FAILED or TIMED_OUT job again, under the same id. What it left behind, error included, is gone then.

        Raises:
            NotFound: the job is no longer kept.
            AnswerLost: it may run, and be paid for, again.
        """
        call = self._call("POST", "/retry", job_id=job_id, body=b"{}", timeout_s=timeout_s)
        return await self._ask(call, partial(read_job, job_id=job_id))

    async def purge_queue(self, *, timeout_s: float | None = None) -> Purged:
        """
        Drop every queued job of the endpoint, those of other clients too. Running ones go on.

        Raises:
            AnswerLost: the queue may have been dropped.
        """
        return await self._ask(self._call("POST", "/purge-queue", body=b"{}", timeout_s=timeout_s), read_purged)

    async def health(self, *, timeout_s: float | None = None) -> EndpointHealth:
        """
        The endpoint's counters of jobs and workers.

        Raises:
            Unauthorized, Forbidden, NotFound: no call to this endpoint will do better with this key.
        """
        return await self._ask(self._call("GET", "/health", timeout_s=timeout_s), read_health)

    async def ask(
        self,
        method: str,
        path: str,
        read: Callable[[JsonValue], T],
        *,
        body: bytes | None = None,
        timeout_s: float | None = None,
        brings_result: bool = False,
    ) -> T:
        """Call *path*, encoded as it has to be, with its slash; *read* makes a record of the answer."""
        call = self._call(method, path, body=body, timeout_s=timeout_s, brings_result=brings_result)
        return await self._ask(call, read)

    def _call(
        self,
        method: str,
        operation: str,
        *,
        job_id: str | None = None,
        body: bytes | None = None,
        wait_ms: int | None = None,
        held_ms: int = 0,
        timeout_s: float | None = None,
        brings_result: bool = False,
    ) -> Call:
        if job_id is not None and not is_id(job_id):
            raise ValueError(f"{job_id!r} is not a job id")  # ours to prevent: RunPod's ids are checked as they come
        path = operation if job_id is None else f"{operation}/{job_id}"
        query = "" if wait_ms is None else f"?wait={wait_ms}"
        limit_s = self._request_timeout_s if timeout_s is None else timeout_s
        limit_s += (held_ms if wait_ms is None else wait_ms) / 1000 + len(body or b"") / SLOWEST_BYTES_PER_S
        where = f"{method} {path} of endpoint '{self.endpoint_id}'"
        return Call(where, method, f"{self._url}{path}{query}", body, limit_s, brings_result)

    async def _ask(self, call: Call, read: Callable[[JsonValue], T]) -> T:
        """Send *call* and *read* its answer."""
        body = Spool()
        try:
            status = await self._wire.send(call, body)
            if body.size_bytes <= INLINE_BYTES:
                with suppress(ValueError, RecursionError):  # said below, which is rare
                    return self.without_secrets(read(parse(body.whole())))
            try:
                return await self._answer(call, status, body, read)
            except Unkept as error:
                failure = unkept(call, status, error)
        finally:
            if body.is_in_file:  # most never are, and have nothing to wait for
                await body.close()
        raise failure  # here it is chained to nothing

    async def _answer(self, call: Call, status: int, body: Spool, read: Callable[[JsonValue], T]) -> T:
        try:
            answer = await parse_answer(body)
        except (ValueError, RecursionError):
            reason = "an answer that is not JSON"
        else:
            try:
                return self.without_secrets(read(answer))
            except ValueError as error:
                reason = str(error)
        # The next bytes tell whether a secret begins where the rest is cut off.
        head = await body.head(UNREADABLE_BYTES + self._masker.longest_bytes)
        kept = partial(self._masked, head, is_cut=len(head) < body.size_bytes)
        raise Unreadable(
            f"{call.where}: HTTP {status} with {reason}",
            status=status,
            detail=evidence(head, self._masker),
            body=await asyncio.to_thread(kept) if len(head) > INLINE_BYTES else kept(),
        )

    def without_secrets(self, found: T) -> T:
        """*found*, the error in it masked: a worker may tell all that it was sent. Its output stays as it is."""
        if isinstance(found, RemoteJob) and found.error is not None:
            return replace(found, error=self._masker.within(found.error))
        return found

    def _masked(self, head: bytes, *, is_cut: bool) -> bytes:
        """The first `UNREADABLE_BYTES` of *head*, without our secrets. *is_cut*: there was more."""
        # As latin-1 every byte is a character and stays one.
        text = self._masker(head.decode("latin-1")).encode("latin-1")
        if is_cut:  # maybe inside a secret: its beginning is still there
            text = text[: -self._masker.longest_bytes]
        return text[:UNREADABLE_BYTES]


def _checked(base_url: str) -> str:
    """*base_url* without a slash at its end."""
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    # A name and password in the URL would be a second Authorization, and end up in messages.
    if not usable or "@" in parts.netloc or parts.query or parts.fragment or not base_url.isprintable():
        raise UsageError("the base URL can't be used", fix="write it as https://api.runpod.ai/v2")
    return base_url.rstrip("/")
