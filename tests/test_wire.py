"""What a mocked client can't show: real sockets that are refused, cut, reset, kept alive, held and flooded."""

import asyncio
import gzip
import json
import socket
import threading
import time
import traceback
from collections.abc import AsyncIterator
from importlib.metadata import version

import aiohttp
import pytest
from fake_http import RawServer, Reply, Then, answer

from runner.answers import RemoteJob
from runner.errors import (
    AnswerLost,
    NotFound,
    RateLimited,
    RunPodError,
    TooLarge,
    Unreachable,
    Unreadable,
)
from runner.runpod import RunPod, open_session
from runner.secret import Secret
from runner.values import JsonValue, parse

KEY = "rpa_PLANTED0KEY"
JOB = b'{"id": "J-u1", "status": "IN_QUEUE"}'
OK = Reply(answer(JOB))
CLOSED = "POST /run of endpoint 'abc': the connection was closed before an answer came"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


def endpoint(
    session: aiohttp.ClientSession,
    url: str,
    *,
    request_timeout_s: float = 30.0,
    connect_timeout_s: float = 10.0,
    max_answer_bytes: int = 1024 * 1024,
) -> RunPod:
    return RunPod(
        session,
        base_url=url,
        endpoint_id="abc",
        api_key=Secret(KEY, name="RUNPOD_API_KEY"),
        request_timeout_s=request_timeout_s,
        connect_timeout_s=connect_timeout_s,
        max_answer_bytes=max_answer_bytes,
    )


async def lost(runpod: RunPod) -> RunPodError:
    """The error of a submit that fails."""
    with pytest.raises(RunPodError) as caught:
        await runpod.run(b'{"input": {"n": 1}}')
    return caught.value


async def test_a_request_goes_over_the_wire_as_it_should(session: aiohttp.ClientSession) -> None:
    """RunPod gets the body byte for byte, its length, our name, and the key as a bearer token."""
    async with RawServer(OK) as server:
        job = await endpoint(session, server.url + "/v2/").run('{"input": {"text": "ä"}}'.encode())

    assert job == RemoteJob("J-u1", "IN_QUEUE")
    [request] = server.requests
    assert request.body == '{"input": {"text": "ä"}}'.encode()
    lines = request.head.split("\r\n")
    assert lines[0] == "POST /v2/abc/run HTTP/1.1"
    assert f"Authorization: Bearer {KEY}" in lines
    assert "Content-Type: application/json" in lines
    assert "Content-Length: 25" in lines
    assert f"User-Agent: runner/{version('runpod-runner')}" in lines


async def test_a_body_of_10_mib_is_sent_whole(session: aiohttp.ClientSession) -> None:
    """aiohttp warns about large bodies given as bytes; ours must neither warn nor stall the loop."""
    body = b'{"input": "' + b"x" * (10 * 1024 * 1024 - 13) + b'"}'
    async with RawServer(OK) as server:
        await endpoint(session, server.url).run(body)
    assert server.requests[0].body == body


async def test_a_refused_connection_is_surely_not_sent(session: aiohttp.ClientSession) -> None:
    """Nothing was accepted, so the run may be submitted again without paying twice."""
    with socket.socket() as bound:  # bound, but not listening
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        error = await lost(endpoint(session, f"http://127.0.0.1:{port}"))
    assert type(error) is Unreachable
    assert str(error) == f"POST /run of endpoint 'abc': no connection to 127.0.0.1:{port}: connection refused"
    assert KEY not in shown(error, with_locals=True)


async def test_a_connection_that_never_comes_about_is_surely_not_sent(session: aiohttp.ClientSession) -> None:
    """Here TLS never gets an answer: the request itself can't have left us."""
    async with RawServer(Reply(then=Then.HOLD)) as server:
        url = server.url.replace("http:", "https:")
        error = await lost(endpoint(session, url, connect_timeout_s=0.05))
    assert type(error) is Unreachable
    assert str(error) == "POST /run of endpoint 'abc': no connection within 50ms"


async def test_failing_tls_is_surely_not_sent(session: aiohttp.ClientSession) -> None:
    """No request travels before the handshake is done."""
    async with RawServer(greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        error = await lost(endpoint(session, server.url.replace("http:", "https:")))
    assert type(error) is Unreachable
    assert str(error).startswith(f"POST /run of endpoint 'abc': no connection to 127.0.0.1:{server.port}: ")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        pytest.param(Reply(then=Then.CLOSE), CLOSED, id="closed before the answer"),
        pytest.param(
            Reply(then=Then.RESET),
            "POST /run of endpoint 'abc': the connection broke (connection reset by peer)",
            id="reset before the answer",
        ),
        pytest.param(Reply(b"HTTP/1.1 200 O", Then.CLOSE), CLOSED, id="closed in the status line"),
        pytest.param(
            Reply(answer(JOB, length=500), Then.CLOSE),
            "POST /run of endpoint 'abc': the answer was cut short, or could not be decompressed",
            id="body cut",
        ),
        pytest.param(
            Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{'id'", Then.CLOSE),
            "POST /run of endpoint 'abc': the answer was cut short, or could not be decompressed",
            id="chunk cut",
        ),
        pytest.param(
            Reply(answer(JOB, headers=["Content-Encoding: gzip"]), Then.CLOSE),
            "POST /run of endpoint 'abc': the answer was cut short, or could not be decompressed",
            id="not gzip",
        ),
        pytest.param(
            Reply(b"SSH-2.0-x\r\n\r\n"), "POST /run of endpoint 'abc': the answer was not HTTP", id="not HTTP"
        ),
    ],
)
async def test_a_broken_answer_is_lost(session: aiohttp.ClientSession, reply: Reply, message: str) -> None:
    """The request was in: the job may exist, and only the user's policy may submit it again."""
    async with RawServer(reply) as server:
        error = await lost(endpoint(session, server.url))
    assert type(error) is AnswerLost
    assert str(error) == message
    assert len(server.requests) == 1


async def test_a_body_reset_half_way_is_lost(session: aiohttp.ClientSession) -> None:
    """As before; the kernel decides whether the cut or the reset is seen first."""
    async with RawServer(Reply(answer(JOB, length=500), Then.RESET)) as server:
        error = await lost(endpoint(session, server.url))
    assert type(error) is AnswerLost


async def test_no_answer_in_time_is_lost(session: aiohttp.ClientSession) -> None:
    """A slow submit may have been accepted: RunPod's own SDK loses paid jobs this way."""
    async with RawServer(Reply(then=Then.HOLD)) as server:
        error = await lost(endpoint(session, server.url, request_timeout_s=0.05))
    assert type(error) is AnswerLost
    assert str(error) == "POST /run of endpoint 'abc': no answer within 50ms"


async def test_a_body_that_stalls_is_lost(session: aiohttp.ClientSession) -> None:
    """An answer that began is no reason to wait for ever."""
    async with RawServer(Reply(answer(JOB, length=500), Then.HOLD)) as server:
        error = await lost(endpoint(session, server.url, request_timeout_s=0.05))
    assert type(error) is AnswerLost


class TimeLeap:
    """Moves the running loop's clock on at once, instead of waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, by_s: float) -> None:
        self._by_s = by_s
        self.total_s = 0.0
        loop = asyncio.get_running_loop()
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + self.total_s)

    async def __call__(self) -> None:
        for _ in range(20):  # let the other side read what is written before time moves
            await asyncio.sleep(0)
        self.total_s += self._by_s


async def test_what_came_of_a_body_earns_it_time(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result of 200 MB takes longer than any request timeout: it may, as long as it keeps coming."""
    leap = TimeLeap(monkeypatch, by_s=2.0)
    body = [b'{"status": "COMPLETED", "output": "', *[b"x" * 131_072] * 5, b'"}']  # 128 KiB earn two seconds
    reply = Reply(answer(body[0], length=sum(map(len, body))), pieces=tuple(body[1:]))
    async with RawServer(reply, between=leap) as server:
        job = await endpoint(session, server.url, request_timeout_s=3.0).status("J-u1")
    assert job.output == "x" * 131_072 * 5
    assert leap.total_s == 12.0


async def test_a_dripping_body_is_lost(session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every read in time, but never done: a broken server must not hold a lane for hours."""
    leap = TimeLeap(monkeypatch, by_s=2.0)
    drops = tuple(JOB[i : i + 1] for i in range(len(JOB)))
    reply = Reply(answer(b"", length=len(JOB)), pieces=drops)
    async with RawServer(reply, between=leap) as server:
        error = await lost(endpoint(session, server.url, request_timeout_s=3.0))
    assert type(error) is AnswerLost
    assert leap.total_s < 10.0


async def test_a_wait_is_added_to_the_timeout(session: aiohttp.ClientSession) -> None:
    """A held request that we give up on first loses the job's id."""
    async with RawServer(Reply(then=Then.HOLD)) as server:
        runpod = endpoint(session, server.url, request_timeout_s=0.01)
        for ask, limit in [
            (runpod.status_sync("J", wait_ms=20), "30ms"),
            (runpod.runsync(b"{}", wait_ms=40), "50ms"),
            (runpod.stream("J", wait_ms=30), "40ms"),
            (runpod.status("J", timeout_s=0.02), "20ms"),
            (runpod.run(b"x" * 6554), "110ms"),
        ]:
            with pytest.raises(AnswerLost) as caught:
                await ask
            assert str(caught.value).endswith(f": no answer within {limit}")


async def test_cancelling_a_call_passes_through(session: aiohttp.ClientSession) -> None:
    """A drain or an interrupt must not be taken for a transport fault, and retried."""
    async with RawServer(Reply(then=Then.HOLD)) as server, asyncio.TaskGroup() as group:
        task = group.create_task(endpoint(session, server.url).run(b"{}"))
        await server.asked.wait()
        task.cancel()
    assert task.cancelled()


async def test_a_post_on_a_dead_connection_is_not_sent_again(session: aiohttp.ClientSession) -> None:
    """aiohttp sends idempotent requests again by itself; a second POST would be a second, paid job."""
    async with RawServer(OK, Reply(then=Then.CLOSE), OK) as server:
        runpod = endpoint(session, server.url)
        await runpod.run(b'{"input": 1}')
        with pytest.raises(AnswerLost) as caught:
            await runpod.run(b'{"input": 2}')

    assert str(caught.value) == CLOSED
    assert [(request.connection, request.body) for request in server.requests] == [
        (0, b'{"input": 1}'),
        (0, b'{"input": 2}'),
    ]


@pytest.mark.parametrize(
    ("idle_s", "connections"),
    [pytest.param(4.0, [0, 0], id="used again while young"), pytest.param(6.0, [0, 1], id="left alone when old")],
)
async def test_only_young_connections_are_used_again(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, idle_s: float, connections: list[int]
) -> None:
    """RunPod's side may be closing an old one just now, and a POST on it would be a lost answer."""
    async with RawServer(OK) as server:
        runpod = endpoint(session, server.url)
        await runpod.run(b"{}")
        monkeypatch.setattr("aiohttp.connector.monotonic", lambda: time.monotonic() + idle_s)
        await runpod.run(b"{}")
    assert [request.connection for request in server.requests] == connections


async def test_a_get_on_a_dead_connection_is_sent_again_by_itself(session: aiohttp.ClientSession) -> None:
    """It changes nothing at RunPod, so a poll need not fail for a connection that grew old."""
    async with RawServer(OK, Reply(then=Then.CLOSE), OK) as server:
        runpod = endpoint(session, server.url)
        await runpod.status("J-u1")
        assert await runpod.status("J-u1") == RemoteJob("J-u1", "IN_QUEUE")
    assert [request.connection for request in server.requests] == [0, 0, 1]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(session: aiohttp.ClientSession, status: str) -> None:
    """The key belongs to one origin; wherever the redirect points, nothing is sent there."""
    async with RawServer(OK) as other:
        moved = Reply(answer(b"", status=status, headers=[f"Location: {other.url}/v2/abc/run"]))
        async with RawServer(moved) as server:
            runpod = endpoint(session, server.url)
            error = await lost(runpod)
            with pytest.raises(AnswerLost):
                await runpod.status("J-u1")
    assert type(error) is AnswerLost
    assert str(error) == f"POST /run of endpoint 'abc': HTTP {status[:3]}, a redirect, which is not followed"
    assert other.requests == []


async def test_cookies_are_not_kept(session: aiohttp.ClientSession) -> None:
    """Nothing that a server sets travels to the next request."""
    async with RawServer(Reply(answer(JOB, headers=["Set-Cookie: a=b"]))) as server:
        runpod = endpoint(session, server.url)
        await runpod.status("J-u1")
        await runpod.status("J-u1")
    assert "cookie" not in server.requests[1].head.lower()


def chunked(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(answer(b"[", length=1_048_577), id="by its announced length"),
        pytest.param(chunked(b" " * 1_048_577), id="by what came"),
        pytest.param(
            answer(gzip.compress(b" " * 50_000_000), headers=["Content-Encoding: gzip"]), id="by what it unpacks to"
        ),
    ],
)
async def test_an_answer_over_the_limit_is_not_taken(session: aiohttp.ClientSession, data: bytes) -> None:
    """Hostile or broken answers must not fill the memory of a batch."""
    async with RawServer(Reply(data)) as server:
        with pytest.raises(TooLarge) as caught:
            await endpoint(session, server.url).status("J-u1")
    assert str(caught.value) == "GET /status/J-u1 of endpoint 'abc': HTTP 200 with an answer over 1.0 MiB"
    assert caught.value.status == 200


async def test_a_compressed_answer_is_read(session: aiohttp.ClientSession) -> None:
    """aiohttp asks for gzip, and RunPod's edge may use it."""
    data = answer(gzip.compress(JOB), headers=["Content-Encoding: gzip"])
    async with RawServer(Reply(data)) as server:
        assert await endpoint(session, server.url).status("J-u1") == RemoteJob("J-u1", "IN_QUEUE")


async def test_a_large_answer_is_parsed_in_a_thread(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is the same, and other runs go on meanwhile."""
    threads: list[threading.Thread] = []

    def watched(body: bytes) -> JsonValue:
        threads.append(threading.current_thread())
        return parse(body)

    monkeypatch.setattr("runner.runpod.parse_foreign", watched)
    output = ["x" * 1000] * 6000
    data = answer(json.dumps({"status": "COMPLETED", "output": output}).encode())
    async with RawServer(Reply(data)) as server:
        job = await endpoint(session, server.url, max_answer_bytes=10_000_000).status("J-u1")
    assert job.output == output
    assert threads[0] is not threading.current_thread()


@pytest.mark.parametrize(
    ("status", "then", "kind"),
    [
        pytest.param("429 Too Many", Then.CLOSE, RateLimited, id="429, cut"),
        pytest.param("429 Too Many", Then.HOLD, RateLimited, id="429, stalled"),
        pytest.param("404 Not Found", Then.RESET, NotFound, id="404, reset"),
    ],
)
async def test_a_status_counts_although_its_body_never_ends(
    session: aiohttp.ClientSession, status: str, then: Then, kind: type[RunPodError]
) -> None:
    """The status line alone says whether something was accepted; a lost explanation must not blur that."""
    async with RawServer(Reply(answer(b"slow down", status=status, length=500), then)) as server:
        error = await lost(endpoint(session, server.url, request_timeout_s=0.5))
    assert type(error) is kind


async def test_of_an_endless_error_page_only_the_start_is_read(session: aiohttp.ClientSession) -> None:
    """An error page is evidence, not data."""
    async with RawServer(Reply(answer(b"x" * 100_000, status="502 Bad", length=10**9), Then.HOLD)) as server:
        async with asyncio.timeout(10):  # the rest never comes: waiting for it would take 30 s
            error = await lost(endpoint(session, server.url))
    assert type(error) is AnswerLost
    assert error.detail == "x" * 2048


def shown(error: RunPodError, *, with_locals: bool) -> str:
    """All that a log could hold of *error*; some loggers print the locals of every frame."""
    lines = traceback.TracebackException.from_exception(error, capture_locals=with_locals).format()
    return "".join([repr(error), str(error), error.detail, repr(vars(error)), *lines])


@pytest.mark.parametrize(
    "data",
    [
        *[pytest.param(answer(KEY.encode(), status=f"{n} {KEY}"), id=str(n)) for n in (302, 400, 401, 404, 429, 500)],
        pytest.param(answer(KEY.encode()), id="200, no JSON"),
        pytest.param(answer(f'{{"id": "{KEY}!"}}'.encode()), id="200, no job"),
        pytest.param(answer(f'["{KEY}"]'.encode()), id="200, list"),
        pytest.param(answer(KEY.encode(), length=500), id="cut"),
        pytest.param(f"{KEY}\r\n\r\n".encode(), id="status line"),
        pytest.param(f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode(), id="header"),
        pytest.param(f"HTTP/1.1 200 OK\r\nContent-Length: {KEY}\r\n\r\n".encode(), id="length"),
        pytest.param(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode(), id="chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + KEY.encode() * 10_000 + b"\r\n\r\n", id="endless header"),
    ],
)
async def test_an_echoed_key_is_in_no_error(session: aiohttp.ClientSession, data: bytes) -> None:
    """Servers and proxies do print the headers they got on their error pages."""
    async with RawServer(Reply(data, Then.CLOSE)) as server:
        error = await lost(endpoint(session, server.url))
    assert KEY not in shown(error, with_locals=False)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(then=Then.CLOSE), id="closed"),
        pytest.param(Reply(then=Then.RESET), id="reset"),
        pytest.param(Reply(then=Then.HOLD), id="timeout"),
        pytest.param(Reply(b"SSH-2.0-x\r\n\r\n"), id="not HTTP"),
        pytest.param(Reply(answer(b"", status="401 No")), id="401"),
        pytest.param(Reply(answer(b"")), id="unreadable"),
    ],
)
async def test_no_error_leads_back_to_the_request(session: aiohttp.ClientSession, reply: Reply) -> None:
    """aiohttp's exceptions hold the request's headers, so ours are not chained to them and hold no frame of theirs."""
    async with RawServer(reply) as server:
        runpod = endpoint(session, server.url, request_timeout_s=0.5)
        error = await lost(runpod)
    assert error.__context__ is None
    assert error.__cause__ is None
    assert KEY not in shown(error, with_locals=True)
    assert repr(runpod) == f"RunPod({server.url}/abc)"


async def test_html_with_200_is_unreadable_and_kept_as_evidence(session: aiohttp.ClientSession) -> None:
    """A proxy's login page is a whole answer, yet names no job: the submit may have gone through."""
    async with RawServer(Reply(answer(b"<html>log in</html>"))) as server:
        error = await lost(endpoint(session, server.url))
    assert type(error) is Unreadable
    assert str(error) == "POST /run of endpoint 'abc': HTTP 200 with an answer that is not JSON"
    assert error.detail == "<html>log in</html>"
