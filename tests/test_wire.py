"""What a mocked client can't show: real sockets that are refused, cut, reset, kept alive, held and flooded."""

import asyncio
import gzip
import json
import os
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

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
from runner.exchange import Session
from runner.parsing import parse_answer
from runner.runpod import RunPod, open_session
from runner.secret import Secret
from runner.spool import BATCH_BYTES, MEMORY_BYTES, Spool
from runner.values import JsonValue, has_long_integer, is_deeper

KEY = "rpa_PLANTED0KEY"
JOB = b'{"id": "J-u1", "status": "IN_QUEUE"}'
OK = Reply(answer(JOB))
CLOSED = "POST /run of endpoint 'abc': the connection was closed before an answer came"
LIMIT = 64 * 1024 * 1024
BIG = MEMORY_BYTES + 3 * BATCH_BYTES
"""The length of an answer that memory is not meant for."""


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with open_session() as opened:
        yield opened


def endpoint(
    session: Session,
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


def completed(output: JsonValue) -> Reply:
    """The answer to a look at a job that ended well."""
    return Reply(answer(json.dumps({"id": "J-u1", "status": "COMPLETED", "output": output}).encode()))


async def lost(runpod: RunPod) -> RunPodError:
    """The error of a submit that fails."""
    with pytest.raises(RunPodError) as caught:
        await runpod.run(b'{"input": {"n": 1}}')
    return caught.value


async def test_a_request_goes_over_the_wire_as_it_should(session: Session) -> None:
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


async def test_a_body_of_10_mib_is_sent_whole(session: Session) -> None:
    """aiohttp warns about large bodies given as bytes; ours must neither warn nor stall the loop."""
    body = b'{"input": "' + b"x" * (10 * 1024 * 1024 - 13) + b'"}'
    async with RawServer(OK) as server:
        await endpoint(session, server.url).run(body)
    assert server.requests[0].body == body


async def test_a_refused_connection_is_surely_not_sent(session: Session) -> None:
    """Nothing was accepted, so the run may be submitted again without paying twice."""
    with socket.socket() as bound:  # bound, but not listening
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        error = await lost(endpoint(session, f"http://127.0.0.1:{port}"))
    assert type(error) is Unreachable
    assert str(error) == f"POST /run of endpoint 'abc': no connection to 127.0.0.1:{port}: connection refused"
    assert KEY not in shown(error, with_locals=True)


async def test_a_connection_that_never_comes_about_is_surely_not_sent(session: Session) -> None:
    """Here TLS never gets an answer: the request itself can't have left us."""
    async with RawServer(Reply(then=Then.HOLD)) as server:
        url = server.url.replace("http:", "https:")
        error = await lost(endpoint(session, url, connect_timeout_s=0.05))
    assert type(error) is Unreachable
    assert str(error) == "POST /run of endpoint 'abc': no connection within 50ms"


async def test_failing_tls_is_surely_not_sent(session: Session) -> None:
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
async def test_a_broken_answer_is_lost(session: Session, reply: Reply, message: str) -> None:
    """The request was in: the job may exist, and only the user's policy may submit it again."""
    async with RawServer(reply) as server:
        error = await lost(endpoint(session, server.url))
    assert type(error) is AnswerLost
    assert str(error) == message
    assert len(server.requests) == 1


async def test_a_body_reset_half_way_is_lost(session: Session) -> None:
    """As before; the kernel decides whether the cut or the reset is seen first."""
    async with RawServer(Reply(answer(JOB, length=500), Then.RESET)) as server:
        error = await lost(endpoint(session, server.url))
    assert type(error) is AnswerLost


async def test_no_answer_in_time_is_lost(session: Session) -> None:
    """A slow submit may have been accepted: RunPod's own SDK loses paid jobs this way."""
    async with RawServer(Reply(then=Then.HOLD)) as server:
        error = await lost(endpoint(session, server.url, request_timeout_s=0.05))
    assert type(error) is AnswerLost
    assert str(error) == "POST /run of endpoint 'abc': no answer within 50ms"


async def test_a_body_that_stalls_is_lost(session: Session) -> None:
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


async def test_what_came_of_a_body_earns_it_time(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result of 200 MB takes longer than any request timeout: it may, as long as it keeps coming."""
    leap = TimeLeap(monkeypatch, by_s=2.0)
    body = [b'{"status": "COMPLETED", "output": "', *[b"x" * 131_072] * 5, b'"}']  # 128 KiB earn two seconds
    reply = Reply(answer(body[0], length=sum(map(len, body))), pieces=tuple(body[1:]))
    async with RawServer(reply, between=leap) as server:
        job = await endpoint(session, server.url, request_timeout_s=3.0).status("J-u1")
    assert job.output == "x" * 131_072 * 5
    assert leap.total_s == 12.0


async def test_a_dripping_body_is_lost(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every read in time, but never done: a broken server must not hold a lane for hours."""
    leap = TimeLeap(monkeypatch, by_s=2.0)
    drops = tuple(JOB[i : i + 1] for i in range(len(JOB)))
    reply = Reply(answer(b"", length=len(JOB)), pieces=drops)
    async with RawServer(reply, between=leap) as server:
        error = await lost(endpoint(session, server.url, request_timeout_s=3.0))
    assert type(error) is AnswerLost
    assert leap.total_s < 10.0


async def test_a_wait_is_added_to_the_timeout(session: Session) -> None:
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


async def test_cancelling_a_call_passes_through(session: Session) -> None:
    """A drain or an interrupt must not be taken for a transport fault, and retried."""
    async with RawServer(Reply(then=Then.HOLD)) as server, asyncio.TaskGroup() as group:
        task = group.create_task(endpoint(session, server.url).run(b"{}"))
        await server.asked.wait()
        task.cancel()
    assert task.cancelled()


async def test_a_post_on_a_dead_connection_is_not_sent_again(session: Session) -> None:
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
    session: Session, monkeypatch: pytest.MonkeyPatch, idle_s: float, connections: list[int]
) -> None:
    """RunPod's side may be closing an old one just now, and a POST on it would be a lost answer."""
    async with RawServer(OK) as server:
        runpod = endpoint(session, server.url)
        await runpod.run(b"{}")
        monkeypatch.setattr("runner.exchange.monotonic", lambda: time.monotonic() + idle_s)
        await runpod.run(b"{}")
    assert [request.connection for request in server.requests] == connections


@pytest.mark.parametrize("then", [Then.CLOSE, Then.RESET], ids=["closed", "reset"])
async def test_a_get_on_a_dead_connection_is_not_sent_again_either(session: Session, then: Then) -> None:
    """aiohttp would. Of /stream the first may have taken chunks out, and a stream with a hole would look whole."""
    async with RawServer(OK, Reply(then=then), OK) as server:
        runpod = endpoint(session, server.url)
        await runpod.status("J-u1")
        with pytest.raises(AnswerLost):
            await runpod.stream("J-u1")
    assert [request.connection for request in server.requests] == [0, 0]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(session: Session, status: str) -> None:
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


async def test_cookies_are_not_kept(session: Session) -> None:
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
async def test_an_answer_over_the_limit_is_not_taken(session: Session, data: bytes) -> None:
    """Hostile or broken answers must not fill the memory of a batch, nor its disk."""
    async with RawServer(Reply(data)) as server:
        runpod = endpoint(session, server.url)
        with pytest.raises(TooLarge) as caught:
            await runpod.status("J-u1")
        error = await lost(runpod)
        with pytest.raises(TooLarge):
            await runpod.runsync(b"{}", wait_ms=1000)
    assert str(caught.value) == "GET /status/J-u1 of endpoint 'abc': HTTP 200 with an answer over 1.0 MiB"
    assert caught.value.status == 200
    # To a submit it was a success all the same: the job may exist, and a second one would be paid for, too.
    assert type(error) is AnswerLost
    assert str(error) == "POST /run of endpoint 'abc': HTTP 200 with an answer over 1.0 MiB"


async def test_a_big_answer_over_the_limit_leaves_no_file(session: Session, files: "Files") -> None:
    """It was going to a file when it passed the limit."""
    async with RawServer(Reply(chunked(b" " * BIG))) as server:
        with pytest.raises(TooLarge):
            await endpoint(session, server.url, max_answer_bytes=MEMORY_BYTES + 2 * BATCH_BYTES).status("J-u1")
    assert len(files.made) == 1


async def test_a_compressed_answer_is_read(session: Session) -> None:
    """aiohttp asks for gzip, and RunPod's edge may use it."""
    data = answer(gzip.compress(JOB), headers=["Content-Encoding: gzip"])
    async with RawServer(Reply(data)) as server:
        assert await endpoint(session, server.url).status("J-u1") == RemoteJob("J-u1", "IN_QUEUE")


@pytest.mark.parametrize("items", [600, 6000, 12_000], ids=["0.6 MB", "6 MB", "12 MB, from a file"])
async def test_a_large_answer_is_parsed_in_a_thread(
    session: Session, monkeypatch: pytest.MonkeyPatch, items: int
) -> None:
    """The result is the same, and other runs go on meanwhile."""
    threads: list[threading.Thread] = []

    def watched(value: JsonValue, most: int) -> bool:
        threads.append(threading.current_thread())
        return is_deeper(value, most)

    monkeypatch.setattr("runner.parsing.is_deeper", watched)
    output = [["x" * 1000]] * items
    async with RawServer(completed(output)) as server:
        job = await endpoint(session, server.url, max_answer_bytes=LIMIT).status("J-u1")
    assert job.output == output
    assert threads[0] is not threading.current_thread()


@pytest.mark.parametrize("length", [1000, 600_000, 10_000_000], ids=["small", "large", "from a file"])
@pytest.mark.parametrize("number", ["NaN", "123456789012345678901"])
async def test_numbers_that_the_fast_parser_would_spoil_are_kept(session: Session, length: int, number: str) -> None:
    """A paid result must not fail, or change, for the parser that is fastest, whatever its length."""
    text = f'{{"status": "COMPLETED", "output": ["{"x" * length}", {number}]}}'
    async with RawServer(Reply(answer(text.encode()))) as server:
        job = await endpoint(session, server.url, max_answer_bytes=LIMIT).status("J-u1")
    assert isinstance(job.output, list)
    assert str(job.output[1]) == number


@pytest.mark.parametrize("before", range(1_048_555, 1_048_577, 7))
def test_a_long_integer_is_found_wherever_it_stands(before: int) -> None:
    """Large answers are looked through in pieces, and it may stand across two."""
    assert has_long_integer(b"x" * before + b"1234567890123456789" + b"x" * 100)
    assert not has_long_integer(b"x" * before + b"123456789012345678" + b"x" * 100)


# Big answers: over 8 MiB they go to a file


class Files:
    """The temporary files that were made, and what was *done* with them. *before* is called first, in the thread."""

    def __init__(self) -> None:
        self.made: list[IO[bytes]] = []
        self.done: list[str] = []
        self.before: Callable[[str], object] = lambda what: None
        self.make: Callable[[], IO[bytes]] = tempfile.TemporaryFile

    def __call__(self) -> "WatchedFile":
        self.touch("open")
        self.made.append(self.make())
        return WatchedFile(self.made[-1], self)

    def touch(self, what: str) -> None:
        self.before(what)
        self.done.append(what)


class WatchedFile:
    """What the client gets for such a file."""

    def __init__(self, file: IO[bytes], files: Files) -> None:
        self._file = file
        self._files = files

    def writelines(self, pieces: list[bytes]) -> None:
        self._files.touch("write")
        self._file.writelines(pieces)

    def read(self, most_bytes: int) -> bytes:
        self._files.touch("read")
        return self._file.read(most_bytes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """Watches the files. However a test ends, none may be open."""
    watched = Files()
    monkeypatch.setattr("runner.spool.tempfile.TemporaryFile", watched)
    yield watched
    assert [file for file in watched.made if not file.closed] == []


async def test_a_big_answer_waits_in_a_file_without_a_name(session: Session, files: Files) -> None:
    """Hundreds of them at once would not fit into memory, and a kill must not leave them behind."""
    names: list[int] = []
    files.before = lambda what: names.extend(os.fstat(file.fileno()).st_nlink for file in files.made)
    async with RawServer(completed("x" * BIG)) as server:
        job = await endpoint(session, server.url, max_answer_bytes=LIMIT).status("J-u1")
    assert job.output == "x" * BIG
    assert files.done[0] == "open"
    assert files.done[1:-1] == ["write"] * len(files.done[1:-1])
    assert files.done[-1] == "read"
    assert set(names) == {0}


async def test_an_answer_of_8_mib_needs_no_file(session: Session, files: Files) -> None:
    """A disk is slower than memory, and may be full."""
    reply = Reply(answer(b'{"status": "COMPLETED"'.ljust(MEMORY_BYTES - 1) + b"}"))
    async with RawServer(reply) as server:
        assert (await endpoint(session, server.url, max_answer_bytes=LIMIT).status("J-u1")).status == "COMPLETED"
    assert files.made == []


async def test_a_slow_disk_is_not_a_slow_answer(
    session: Session, monkeypatch: pytest.MonkeyPatch, files: Files
) -> None:
    """The server did its part in time: giving up on it would lose a submit's answer."""
    leap = TimeLeap(monkeypatch, by_s=0)

    def slowly(what: str) -> None:
        if files.done == ["open", "write"]:  # the last write: all has come by now
            leap.total_s = 10_000.0

    files.before = slowly
    output = "x" * (MEMORY_BYTES + BATCH_BYTES // 2)
    async with RawServer(completed(output)) as server:
        job = await endpoint(session, server.url, max_answer_bytes=LIMIT).status("J-u1")
    assert job.output == output
    assert files.done == ["open", "write", "write", "read"]
    assert leap.total_s == 10_000.0


FULL = (
    f"with an answer that can't be kept in {tempfile.gettempdir()}: no space left on device"
    " (make room there, or set TMPDIR to another folder)"
)


@pytest.mark.parametrize("operation", ["run", "status"])
async def test_a_full_disk_loses_an_answer_and_says_so(session: Session, files: Files, operation: str) -> None:
    """A submit may have made a job, so it must not be taken for refused; a look can be repeated."""
    files.make = lambda: Path("/dev/full").open("r+b")  # noqa: SIM115 - the client closes it
    async with RawServer(completed("x" * BIG)) as server:
        runpod = endpoint(session, server.url, max_answer_bytes=LIMIT)
        with pytest.raises(AnswerLost) as caught:
            await (runpod.run(b"{}") if operation == "run" else runpod.status("J-u1"))
    call = "POST /run" if operation == "run" else "GET /status/J-u1"
    assert type(caught.value) is AnswerLost
    assert str(caught.value) == f"{call} of endpoint 'abc': HTTP 200 {FULL}"
    assert (caught.value.status, caught.value.__context__) == (200, None)


async def test_no_folder_for_files_loses_an_answer_and_says_so(session: Session, files: Files) -> None:
    """In a container with a read-only root there may be none."""

    def nowhere() -> IO[bytes]:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    files.make = nowhere
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", None)
        async with RawServer(completed("x" * BIG)) as server:
            with pytest.raises(AnswerLost) as caught:
                await endpoint(session, server.url, max_answer_bytes=LIMIT).status("J-u1")
    assert str(caught.value) == (
        "GET /status/J-u1 of endpoint 'abc': HTTP 200 with an answer that can't be kept: no usable temporary directory"
        " found in ['/tmp'] (make room there, or set TMPDIR to another folder)"
    )


@pytest.mark.parametrize("body", [b'{"status": "COMPLETED"}', b"<html>"], ids=["readable", "unreadable"])
async def test_a_file_that_cannot_be_read_back_loses_the_answer(session: Session, files: Files, body: bytes) -> None:
    """Disks do that, too. It is not the answer that is at fault."""

    def broken(what: str) -> None:
        if what == "read" and (body[:1] == b"{" or "read" in files.done):
            raise OSError(5, "Input/output error")

    files.before = broken
    async with RawServer(Reply(answer(body.ljust(BIG)))) as server:
        with pytest.raises(AnswerLost) as caught:
            await endpoint(session, server.url, max_answer_bytes=LIMIT).status("J-u1")
    assert type(caught.value) is AnswerLost
    assert str(caught.value) == "GET /status/J-u1 of endpoint 'abc': HTTP 200 " + FULL.replace(
        "no space left on device", "input/output error"
    )
    assert caught.value.__context__ is None


@pytest.mark.parametrize("at", ["open", "write", "second write", "read", "parse", "more"])
async def test_cancelling_a_big_answer_leaves_nothing_behind(
    session: Session, files: Files, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """A batch that is stopped has hundreds of calls under way; a file that a thread still writes must not be closed."""
    there, go_on = threading.Event(), threading.Event()

    def wait_here() -> None:
        there.set()
        assert go_on.wait(10)

    def before(what: str) -> None:
        if what == at or (at == "second write" and files.done == ["open", "write"]):
            wait_here()

    def slow(value: JsonValue, most: int) -> bool:
        wait_here()
        return False

    files.before = before
    if at == "parse":
        monkeypatch.setattr("runner.parsing.is_deeper", slow)
    body = completed([[]] * 300 + ["x" * BIG]).data
    reply = Reply(body[:-1], Then.HOLD) if at == "more" else Reply(body)
    async with RawServer(reply) as server, asyncio.TaskGroup() as group:
        task = group.create_task(endpoint(session, server.url, max_answer_bytes=LIMIT).status("J-u1"))
        if at == "more":
            while "write" not in files.done:  # noqa: ASYNC110 - the other side is a thread
                await asyncio.sleep(0.001)
        else:
            assert await asyncio.to_thread(there.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
    assert task.cancelled()
    assert [file for file in files.made if not file.closed] == []


async def test_cancelling_twice_leaves_nothing_behind_either(session: Session, files: Files) -> None:
    """Ctrl-C comes in rows. The thread that still writes closes the file when it is done."""
    there, go_on = threading.Event(), threading.Event()

    def before(what: str) -> None:
        if what == "write":
            there.set()
            assert go_on.wait(10)

    files.before = before
    async with RawServer(completed("x" * BIG)) as server, asyncio.TaskGroup() as group:
        task = group.create_task(endpoint(session, server.url, max_answer_bytes=LIMIT).status("J-u1"))
        assert await asyncio.to_thread(there.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert not files.made[0].closed
    go_on.set()
    while not files.made[0].closed:  # noqa: ASYNC110 - the other side is a thread
        await asyncio.sleep(0.001)


async def test_big_answers_are_parsed_one_at_a_time(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds one of them and what it parses to; the others wait on disk. A cancelled one lets the next go."""
    go_on, at_once, counts, waiting = threading.Event(), 0, [0], []

    def watched(value: JsonValue, levels: int) -> bool:
        nonlocal at_once
        at_once += 1
        counts.append(at_once)
        assert go_on.wait(10)
        at_once -= 1
        return False

    async def asked(body: Spool) -> JsonValue:
        waiting.append(body)
        return await parse_answer(body)

    monkeypatch.setattr("runner.parsing.is_deeper", watched)
    monkeypatch.setattr("runner.runpod.parse_answer", asked)
    async with RawServer(completed([[]] * 300 + ["x" * BIG])) as server, asyncio.TaskGroup() as group:
        runpod = endpoint(session, server.url, max_answer_bytes=LIMIT)
        tasks = [group.create_task(runpod.status(f"J-{n}")) for n in range(6)]
        while len(waiting) < 6 or counts == [0]:  # noqa: ASYNC110 - the other side is a thread
            await asyncio.sleep(0.001)
        tasks[3].cancel()
        await asyncio.sleep(0)
        go_on.set()
    assert [task.cancelled() for task in tasks] == [False, False, False, True, False, False]
    assert max(counts) == 1


def test_big_answers_are_parsed_whichever_loop_asks() -> None:
    """A notebook runs one batch after the other, each with a loop of its own."""

    async def ask() -> int:
        async with open_session() as session, RawServer(completed("x" * BIG)) as server:
            runpod = endpoint(session, server.url, max_answer_bytes=LIMIT)
            jobs = await asyncio.gather(*[runpod.status("J-u1") for _ in range(3)])
            return [job.output for job in jobs].count("x" * BIG)

    assert [asyncio.run(ask()) for _ in range(2)] == [3, 3]


async def test_many_big_answers_at_once_cost_the_memory_of_few(tmp_path: Path) -> None:
    """With 200 calls at once a machine would be killed otherwise. Here 8 answers of 32 MiB come at once."""
    head = b'{"status": "COMPLETED", "output": "'
    size = 32 * 1024 * 1024

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(head, length=len(head) + size + 2))
        for _ in range(size // 65_536):
            writer.write(b"x" * 65_536)
            await writer.drain()
        writer.write(b'"}')
        await writer.drain()
        writer.close()

    script = """if True:
        import asyncio, re, sys
        from pathlib import Path
        from runner.runpod import RunPod, open_session
        from runner.secret import Secret
        def peak_kib():
            return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
        async def look(runpod):
            return len((await runpod.status("J-u1")).output)
        async def main():
            async with open_session() as session:
                runpod = RunPod(session, base_url=sys.argv[1], endpoint_id="abc", api_key=Secret("key", name="key"))
                before = peak_kib()
                lengths = await asyncio.gather(*[look(runpod) for _ in range(8)])
                print(set(lengths), (peak_kib() - before) // 1024)
        asyncio.run(main())
    """
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, url, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
    lengths, grown_mib = out.decode().split()
    assert lengths == f"{{{size}}}"
    # 8 times 8 MiB that came before there was a file, one answer and what it parses to; all of them would be 512.
    assert int(grown_mib) < 250, grown_mib


# Answers that can't be read


async def unreadable(session: Session, body: bytes) -> Unreadable:
    """The error of a look that is answered with *body*."""
    async with RawServer(Reply(answer(body))) as server:
        with pytest.raises(Unreadable) as caught:
            await endpoint(session, server.url, max_answer_bytes=LIMIT).status("J-u1")
    return caught.value


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>\x00\xff\x1b[31m\r\n", id="bytes as they came"),
        pytest.param(b"\xe4" * MEMORY_BYTES, id="8 MiB"),
    ],
)
async def test_an_answer_that_cannot_be_read_is_handed_on(session: Session, body: bytes) -> None:
    """Somebody paid for it; a person may still make something of it."""
    assert (await unreadable(session, body)).body == body


async def test_of_an_unreadable_answer_the_first_8_mib_are_handed_on(session: Session, files: Files) -> None:
    """Enough to see what it is; the rest would fill a disk."""
    error = await unreadable(session, bytes(range(256)) * (BIG // 256))
    assert error.body is not None
    assert error.body[:MEMORY_BYTES] == error.body
    # Its last bytes could have been the beginning of a key, and one is masked whole or not there at all.
    assert len(error.body) == MEMORY_BYTES


def keys_at(*places: int, length: int) -> bytes:
    """A body of *length* with our key at these places."""
    body = bytearray(b"x" * length)
    for place in places:
        body[place : place + len(KEY)] = KEY.encode()
    return bytes(body[:length])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(keys_at(0, 50, length=100), id="short"),
        pytest.param(b"\xff" + KEY.encode() + b"\xff", id="among bytes that are no text"),
        *[
            pytest.param(keys_at(MEMORY_BYTES - n, length=BIG), id=f"across the end, {n} in")
            for n in range(1, len(KEY), 4)
        ],
        *[
            # Masking shortens what comes before, so that later bytes move to where they are kept.
            pytest.param(keys_at(*range(0, BIG, 64), length=BIG - n), id=f"everywhere, cut after {n}")
            for n in range(0, 64, 13)
        ],
    ],
)
async def test_our_key_is_in_no_body_that_is_handed_on(session: Session, body: bytes) -> None:
    """It is written to a file: not even the beginning of a key may be there."""
    error = await unreadable(session, body)
    assert error.body is not None
    assert b"***" in error.body or len(body) >= MEMORY_BYTES
    assert KEY.encode()[:6] not in error.body
    assert KEY not in shown(error, with_locals=False)


@pytest.mark.parametrize(
    ("status", "then", "kind"),
    [
        pytest.param("429 Too Many", Then.CLOSE, RateLimited, id="429, cut"),
        pytest.param("429 Too Many", Then.HOLD, RateLimited, id="429, stalled"),
        pytest.param("404 Not Found", Then.RESET, NotFound, id="404, reset"),
    ],
)
async def test_a_status_counts_although_its_body_never_ends(
    session: Session, status: str, then: Then, kind: type[RunPodError]
) -> None:
    """The status line alone says whether something was accepted; a lost explanation must not blur that."""
    async with RawServer(Reply(answer(b"slow down", status=status, length=500), then)) as server:
        error = await lost(endpoint(session, server.url, request_timeout_s=0.5))
    assert type(error) is kind


async def test_of_an_endless_error_page_only_the_start_is_read(session: Session) -> None:
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
async def test_an_echoed_key_is_in_no_error(session: Session, data: bytes) -> None:
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
async def test_no_error_leads_back_to_the_request(session: Session, reply: Reply) -> None:
    """aiohttp's exceptions hold the request's headers, so ours are not chained to them and hold no frame of theirs."""
    async with RawServer(reply) as server:
        runpod = endpoint(session, server.url, request_timeout_s=0.5)
        error = await lost(runpod)
    assert error.__context__ is None
    assert error.__cause__ is None
    assert KEY not in shown(error, with_locals=True)
    assert repr(runpod) == f"RunPod({server.url}/abc)"


async def test_html_with_200_is_unreadable_and_kept_as_evidence(session: Session) -> None:
    """A proxy's login page is a whole answer, yet names no job: the submit may have gone through."""
    async with RawServer(Reply(answer(b"<html>log in</html>"))) as server:
        error = await lost(endpoint(session, server.url))
    assert type(error) is Unreadable
    assert str(error) == "POST /run of endpoint 'abc': HTTP 200 with an answer that is not JSON"
    assert error.detail == "<html>log in</html>"
