"""
Speak RunPod's Batch API: one method an operation, wire JSON in, our records out. Nothing is retried here.

Source: RunPod docs, "Batch API" (beta; read August 2026). Guessed, for it is not documented: that a display name is put
as ``name`` and ``displayName``, and that a page may be asked for up to 1,000 requests, or gives fewer.
"""

from collections.abc import Sequence
from dataclasses import replace

from runner.answers import is_id
from runner.batch_answers import Counts, Page, read_appended, read_counts, read_made, read_page
from runner.runpod import RunPod
from runner.values import JsonValue, dump

CALL_BYTES = 10 * 1024 * 1024
"""The largest body of a call. Source: RunPod docs, "Batch API": 10 MiB."""


class RunPodBatches:
    """
    The batches of one endpoint. Every method raises `runner.errors.RunPodError`, as those of `RunPod` do.

    Nothing that was not finalized is run, or paid for: so only `finalize` may cost anything, and of each draft once.
    """

    def __init__(self, client: RunPod, *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def create(self) -> str:
        """
        Make an empty draft; its id.

        Raises:
            AnswerLost: there may be one more empty draft, which costs nothing.
        """
        return await self._client.ask("POST", "/batch", read_made, body=b"[]", timeout_s=self._timeout_s)

    async def append(self, batch_id: str, bodies: Sequence[bytes]) -> list[str]:
        """
        Add requests to a draft, each encoded as for /run; their ids in the same order, or none where none are given.

        Raises:
            AnswerLost: they may have been added.
        """
        body = b'{"requests":[' + b",".join(bodies) + b"]}"
        path = f"{_path(batch_id)}/requests"
        return await self._client.ask("POST", path, read_appended, body=body, timeout_s=self._timeout_s)

    async def name(self, batch_id: str, name: str) -> None:
        """Give a draft the display name by which people find it."""
        body = dump({"name": name, "displayName": name})
        await self._client.ask("PUT", _path(batch_id), _anything, body=body, timeout_s=self._timeout_s)

    async def finalize(self, batch_id: str) -> None:
        """
        Have a draft run: from here on it costs.

        Raises:
            AnswerLost: it may have been finalized; its status tells.
            Refused: its state forbids it: it may have been finalized before.
        """
        path = f"{_path(batch_id)}/finalize"
        await self._client.ask("POST", path, _anything, body=b"", timeout_s=self._timeout_s)

    async def cancel(self, batch_id: str) -> None:
        """Drop what is queued, which costs nothing; what runs goes on to its end."""
        path = f"{_path(batch_id)}/cancel"
        await self._client.ask("POST", path, _anything, body=b"", timeout_s=self._timeout_s)

    async def counts(self, batch_id: str) -> Counts:
        """How a batch stands."""
        return await self._client.ask("GET", _path(batch_id), read_counts, timeout_s=self._timeout_s)

    async def page(self, batch_id: str, *, offset: int, limit: int) -> Page:
        """Some requests of a batch, with what came of them, in an order that nobody knows."""
        path = f"{_path(batch_id)}/requests?offset={offset}&limit={limit}"
        page = await self._client.ask("GET", path, read_page, timeout_s=self._timeout_s, brings_result=True)
        safe = self._client.without_secrets
        return replace(page, children=[replace(one, job=safe(one.job)) for one in page.children])


def _path(batch_id: str) -> str:
    if not is_id(batch_id):
        raise ValueError(f"{batch_id!r} is not a batch id")  # ours to prevent: RunPod's ids are checked as they come
    return f"/batch/{batch_id}"


def _anything(_answer: JsonValue) -> None:
    """Whatever it says: that it was answered is all."""
