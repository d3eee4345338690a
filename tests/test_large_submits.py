"""A body that takes a while to send goes by aiohttp's session: what is asked of it, and what its answers come to."""

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aioresponses import CallbackResult, aioresponses

from runner.answers import RemoteJob
from runner.errors import AnswerLost, RateLimited, Refused
from runner.exchange import INLINE_BODY_BYTES, Session
from runner.runpod import RunPod, open_session
from runner.secret import Secret

BASE = "https://api.runpod.ai/v2"
KEY = "rpa_PLANTED0KEY"
BODY = b'{"input": {"image": "%s"}}' % (b"A" * INLINE_BODY_BYTES)


class Response(aiohttp.ClientResponse):
    """A ClientResponse as aioresponses makes it: it does not know of `stream_writer`, which aiohttp 3.14 needs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **kwargs)


@pytest.fixture
def service() -> Iterator[aioresponses]:
    with aioresponses() as mock:
        yield mock


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with open_session() as opened:
        yield opened


@pytest.fixture
def runpod(session: Session) -> RunPod:
    return RunPod(session, base_url=BASE, endpoint_id="abc", api_key=Secret(KEY, name="RUNPOD_API_KEY"))


async def test_a_long_body_is_sent_whole_once_and_to_nobody_else(service: aioresponses, runpod: RunPod) -> None:
    """With the key, and not where a redirect says."""
    sent: list[tuple[bytes, dict[str, Any]]] = []

    def heard(_url: object, **options: Any) -> CallbackResult:
        sent.append((options.pop("data").read(), options))
        return CallbackResult(body='{"id": "J-u1", "status": "IN_QUEUE"}', response_class=Response)

    service.post(f"{BASE}/abc/run", callback=heard)
    assert await runpod.run(BODY) == RemoteJob("J-u1", "IN_QUEUE")
    [(body, options)] = sent
    assert body == BODY
    assert options["headers"]["Authorization"] == f"Bearer {KEY}"
    assert options["headers"]["Content-Type"] == "application/json"
    assert options["allow_redirects"] is False


@pytest.mark.parametrize(
    ("status", "expected"), [(429, RateLimited), (400, Refused), (502, AnswerLost)], ids=["429", "400", "502"]
)
async def test_a_refused_long_body_is_told_as_any_other(
    service: aioresponses, runpod: RunPod, status: int, expected: type[Exception]
) -> None:
    """Whether it may have been accepted hangs on the status alone."""
    service.post(f"{BASE}/abc/run", status=status, body="{}", response_class=Response)
    with pytest.raises(expected):
        await runpod.run(BODY)


async def test_a_connection_that_breaks_under_a_long_body_is_an_answer_lost(
    service: aioresponses, runpod: RunPod
) -> None:
    """The other side may have read all of it."""
    service.post(f"{BASE}/abc/run", exception=aiohttp.ServerDisconnectedError())
    with pytest.raises(AnswerLost) as caught:
        await runpod.run(BODY)
    assert KEY not in str(caught.value)
