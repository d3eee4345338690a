"""What aiohttp's session would see to, and an exchange past it has to."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fake_http import RawServer, Reply, Then, answer

from runner.answers import RemoteJob
from runner.errors import AnswerLost
from runner.exchange import INLINE_BODY_BYTES, KEPT_S, Session
from runner.runpod import RunPod, open_session
from runner.secret import Secret

QUEUED = answer(b'{"id": "J-u1", "status": "IN_QUEUE"}')
DONE = answer(b'{"id": "J-u1", "status": "COMPLETED", "output": 7}')


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with open_session() as opened:
        yield opened


def endpoint(session: Session, url: str) -> RunPod:
    return RunPod(session, base_url=url, endpoint_id="abc", api_key=Secret("rpa_PLANTED0KEY", name="RUNPOD_API_KEY"))


async def test_a_late_answer_is_nobody_elses(session: Session) -> None:
    """What comes after we gave up would be taken for the answer to the next request on that connection."""
    given_up = asyncio.Event()

    async def until_given_up() -> None:
        await given_up.wait()

    async with RawServer(Reply(pieces=(DONE,)), Reply(QUEUED), between=until_given_up) as server:
        runpod = endpoint(session, server.url)
        with pytest.raises(AnswerLost):
            await runpod.status("J-u1", timeout_s=0.05)
        given_up.set()
        assert await runpod.status("J-u1") == RemoteJob("J-u1", "IN_QUEUE")
    assert [one.connection for one in server.requests] == [0, 1]


async def test_a_word_before_the_answer_is_not_the_answer(session: Session) -> None:
    """A proxy may say 103 at any time."""
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"
    async with RawServer(Reply(hint + DONE)) as server:
        job = await endpoint(session, server.url).status("J-u1")
    assert job == RemoteJob("J-u1", "COMPLETED", output=7)


async def test_a_connection_serves_one_request_after_the_other(session: Session) -> None:
    """A new one costs a TLS handshake: two round trips, and more CPU than the request."""
    async with RawServer(Reply(QUEUED)) as server:
        for _ in range(3):
            await endpoint(session, server.url).status("J-u1")
    assert [one.connection for one in server.requests] == [0, 0, 0]


async def test_a_connection_that_the_server_closes_is_not_used_again(session: Session) -> None:
    """Whatever is sent on it is lost, and a lost submit may have been paid for."""
    closing = answer(b'{"id": "J-u1", "status": "IN_QUEUE"}', headers=["Connection: close"])
    async with RawServer(Reply(closing, Then.CLOSE)) as server:
        for _ in range(2):
            await endpoint(session, server.url).run(b'{"input": 1}')
            assert session.idle == []
    assert [one.connection for one in server.requests] == [0, 1]


async def test_what_comes_unasked_is_nobodys_answer(session: Session) -> None:
    """A connection on which more came than was asked for would give the next job the state of another."""
    asked = asyncio.Event()

    async def until_asked() -> None:
        await asked.wait()

    async with RawServer(Reply(QUEUED, pieces=(DONE,)), Reply(QUEUED), between=until_asked) as server:
        runpod = endpoint(session, server.url)
        await runpod.status("J-u1")
        [kept] = session.idle
        asked.set()
        async with asyncio.timeout(10):
            while kept.protocol is not None and not kept.protocol.should_close:  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(0)
        assert await runpod.status("J-u1") == RemoteJob("J-u1", "IN_QUEUE")
    assert [one.connection for one in server.requests] == [0, 1]


async def test_connections_that_nobody_needs_any_more_are_closed(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a burst the other side need not keep hundreds of them open for the one that is used on."""
    clock = [0.0]
    monkeypatch.setattr("runner.exchange.monotonic", lambda: clock[0])
    async with RawServer(Reply(QUEUED)) as server:
        runpod = endpoint(session, server.url)
        await asyncio.gather(*(runpod.status("J-u1") for _ in range(5)))
        burst = session.idle
        assert len(burst) == 5
        for clock[0] in (0.8 * KEPT_S, 1.2 * KEPT_S):
            await runpod.status("J-u1")
        assert [one.closed for one in burst] == [True] * 4 + [False]
        assert session.idle == burst[4:]


async def test_no_connection_outlives_its_session() -> None:
    async with RawServer(Reply(QUEUED)) as server:
        async with open_session() as session:
            await endpoint(session, server.url).status("J-u1")
            [kept] = session.idle
        assert kept.closed
        assert session.idle == []


@pytest.mark.parametrize("length", [INLINE_BODY_BYTES, INLINE_BODY_BYTES + 1], ids=["at once", "in pieces"])
async def test_a_body_is_sent_alike_whatever_its_length(session: Session, length: int) -> None:
    """Short ones go past aiohttp's session and long ones through it: the service must not see a difference."""
    body = b'{"input": "'.ljust(length - 2, b"x") + b'"}'
    async with RawServer(Reply(QUEUED)) as server:
        await endpoint(session, server.url).run(body)
        await endpoint(session, server.url).run(b'{"input": 1}')
    [long, short] = server.requests
    assert long.body == body
    assert names(long.head) == names(short.head)


def names(head: str) -> set[str]:
    """First line, and the headers but the length."""
    return {line for line in head.strip().split("\r\n") if not line.startswith("Content-Length")}
