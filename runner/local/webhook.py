"""Tell of a job's end at the URL that its submit named, as RunPod does."""

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from yarl import URL

from runner.local import wire
from runner.local.accepted import AcceptedLog
from runner.local.answers import status_of
from runner.local.job import Job

TRIES = 3
PAUSE_S = 10.0
"""Source: RunPod docs, "Webhook notifications" (read August 2026): up to 2 more attempts, 10 s apart."""

ANSWER_LIMIT_S = 10.0
AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class WebhookTerms:
    """
    Where webhooks may go, and how long to wait before the next try.

    By default to loopback addresses only: whoever may submit must not be able to send requests from this machine to
    others.
    """

    anywhere: bool = False
    pause_s: float = PAUSE_S


class Webhooks:
    """
    Posts the status object, with ``input`` and ``webhook`` in it, at most three times, until one is answered with 200.

    *tell* is called, with endpoint and words, once for each host that nothing may be sent to.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        terms: WebhookTerms,
        log: AcceptedLog | None,
        tell: Callable[[str, str], None] | None,
    ) -> None:
        self._group = group
        self._terms = terms
        self._log = log
        self._tell = tell
        self._told: set[str] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    def send(self, endpoint: str, job: Job) -> None:
        """Tell of the end of *job*, if its submit asked for that; returns at once."""
        if job.webhook is None:
            return
        url = _url(job.webhook)
        if url is None or not (self._terms.anywhere or _is_loopback(url)):
            self._refuse(endpoint, job.id, url)
            return
        body = wire.encode({**status_of(job), "input": wire.fragment(job.input), "webhook": job.webhook})
        task = self._group.create_task(self._deliver(endpoint, job.id, url, body), name=f"webhook-{job.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is not delivered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _refuse(self, endpoint: str, job_id: str, url: URL | None) -> None:
        host = "" if url is None or url.host is None else url.host
        if self._log is not None:
            self._log.webhook(endpoint, job_id, None)
        if self._tell is not None and host not in self._told:
            self._told.add(host)
            # The rest of the URL may hold a secret.
            why = f"'{host}' is not this machine" if host else "that is no http URL"
            self._tell(endpoint, f"webhooks are not sent: {why}")

    async def _deliver(self, endpoint: str, job_id: str, url: URL, body: bytes) -> None:
        for number in range(TRIES):
            if number:
                await asyncio.sleep(self._terms.pause_s)
            async with self._turns:
                status = await self._post(url, body)
            if self._log is not None:
                self._log.webhook(endpoint, job_id, status)
            if status == 200:
                return

    async def _post(self, url: URL, body: bytes) -> int | None:
        """The HTTP status of the answer, None if there was none."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_LIMIT_S))
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, OSError, ValueError):  # a timeout is an OSError, a host that can't be a ValueError
            return None


def _url(text: str) -> URL | None:
    try:
        url = URL(text)
    except ValueError:
        return None
    return url if url.scheme in ("http", "https") and url.host else None


def _is_loopback(url: URL) -> bool:
    host = url.host or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
