import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import aiohttp
import pytest
from aiohttp import hdrs
from aiohttp.client_reqrep import ConnectionKey
from fake_http import RawServer, Reply, Request, Then, answer

from runner.answers import Chunks, EndpointHealth, Purged, RemoteJob
from runner.deadlines import Deadline
from runner.errors import (
    AnswerLost,
    Forbidden,
    NotFound,
    Paused,
    PaymentRequired,
    RateLimited,
    Refused,
    RunPodError,
    TooLarge,
    Unauthorized,
    Unreachable,
    Unreadable,
    Unsupported,
    UsageError,
)
from runner.exchange import Exchange, Session
from runner.runpod import RunPod, open_session
from runner.secret import Secret

BASE = "https://api.runpod.ai/v2"
KEY = "rpa_PLANTED0KEY"
SESSION_HEADERS = {"Accept": "application/json", "User-Agent": f"runner/{version('runpod-runner')}"}
BODY = b'{"input": {"n": 1}}'


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it came."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


class Service(RawServer):
    """RunPod's side: says what the next call gets, and what the only call was."""

    def __init__(self) -> None:
        super().__init__()
        self._answer = b""

    def will_answer(self, body: str | bytes = "{}", *, status: int = 200, headers: tuple[str, ...] = ()) -> None:
        data = body if isinstance(body, bytes) else body.encode()
        self._answer = answer(data, status=f"{status} said", headers=headers)

    def reply(self, request: Request) -> Reply:
        return Reply(self._answer, Then.CLOSE)

    @property
    def sent(self) -> Sent:
        """The only request there was."""
        [request] = self.requests
        first, *lines = request.head.strip().split("\r\n")
        method, path, _ = first.split(" ")
        return Sent(method, path, request.body, dict(line.split(": ", 1) for line in lines))


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with Service() as opened:
        yield opened


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with open_session() as opened:
        yield opened


@pytest.fixture
def runpod(session: Session, service: Service) -> RunPod:
    return RunPod(session, base_url=f"{service.url}/v2", endpoint_id="abc", api_key=Secret(KEY, name="RUNPOD_API_KEY"))


async def call(runpod: RunPod, operation: str) -> object:
    """Call *operation* as a table names it."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "run": lambda: runpod.run(BODY),
        "runsync": lambda: runpod.runsync(BODY, wait_ms=10_000),
        "status": lambda: runpod.status("J-u1"),
        "status_sync": lambda: runpod.status_sync("J-u1", wait_ms=20_000),
        "stream": lambda: runpod.stream("J-u1"),
        "stream_held": lambda: runpod.stream("J-u1", wait_ms=1000),
        "cancel": lambda: runpod.cancel("J-u1"),
        "retry": lambda: runpod.retry("J-u1"),
        "purge_queue": runpod.purge_queue,
        "health": runpod.health,
    }
    return await calls[operation]()


OPERATIONS = [
    pytest.param(
        "run",
        ("POST", "/abc/run", BODY),
        '{"id": "J-u1", "status": "IN_QUEUE"}',
        RemoteJob("J-u1", "IN_QUEUE"),
        id="run",
    ),
    pytest.param(
        "runsync",
        ("POST", "/abc/runsync?wait=10000", BODY),
        '{"id": "sync-J-u1", "status": "COMPLETED", "output": 1, "executionTime": 5}',
        RemoteJob("sync-J-u1", "COMPLETED", output=1, execution_time_ms=5),
        id="runsync",
    ),
    pytest.param(
        "status",
        ("GET", "/abc/status/J-u1", None),
        '{"id": "J-u1", "status": "IN_PROGRESS", "delayTime": 7}',
        RemoteJob("J-u1", "IN_PROGRESS", delay_time_ms=7),
        id="status",
    ),
    pytest.param(
        "status_sync",
        ("GET", "/abc/status-sync/J-u1?wait=20000", None),
        '{"id": "J-u1", "status": "FAILED", "error": "x"}',
        RemoteJob("J-u1", "FAILED", error="x"),
        id="status_sync",
    ),
    pytest.param(
        "stream",
        ("GET", "/abc/stream/J-u1", None),
        '{"status": "IN_PROGRESS", "stream": [{"output": "a"}]}',
        Chunks("IN_PROGRESS", ["a"]),
        id="stream",
    ),
    pytest.param(
        "stream_held",
        ("GET", "/abc/stream/J-u1?wait=1000", None),
        '[{"output": "a"}]',
        Chunks("UNKNOWN", ["a"]),
        id="stream, held as told",
    ),
    pytest.param(
        "cancel",
        ("POST", "/abc/cancel/J-u1", b"{}"),
        '{"id": "J-u1", "status": "CANCELLED"}',
        RemoteJob("J-u1", "CANCELLED"),
        id="cancel",
    ),
    pytest.param(
        "retry",
        ("POST", "/abc/retry/J-u1", b"{}"),
        '{"id": "J-u1", "status": "IN_QUEUE"}',
        RemoteJob("J-u1", "IN_QUEUE"),
        id="retry",
    ),
    pytest.param(
        "purge_queue",
        ("POST", "/abc/purge-queue", b"{}"),
        '{"removed": 17, "status": "completed"}',
        Purged(17),
        id="purge_queue",
    ),
    pytest.param(
        "health",
        ("GET", "/abc/health", None),
        '{"jobs": {"inQueue": 2}, "workers": {"idle": 1}}',
        EndpointHealth({"inQueue": 2}, {"idle": 1}),
        id="health",
    ),
]


@pytest.mark.parametrize(("operation", "request_", "body", "record"), OPERATIONS)
async def test_an_operation_is_one_request_and_one_record(
    service: Service,
    runpod: RunPod,
    operation: str,
    request_: tuple[str, str, bytes | None],
    body: str,
    record: object,
) -> None:
    """The paths, verbs and bodies are those of RunPod's reference and SDKs; the key goes with each request."""
    method, path, sent_body = request_
    service.will_answer(body)
    assert await call(runpod, operation) == record

    sent = service.sent
    assert (sent.method, sent.path, sent.body) == (method, f"/v2{path}", sent_body or b"")
    expected: dict[str, str] = {**SESSION_HEADERS, "Authorization": f"Bearer {KEY}"}
    expected |= {
        "Host": f"127.0.0.1:{service.port}",
        "Accept-Encoding": aiohttp.ClientRequest.DEFAULT_HEADERS[hdrs.ACCEPT_ENCODING],
    }
    if sent_body is not None:
        expected |= {"Content-Type": "application/json", "Content-Length": str(len(sent_body))}
    assert sent.headers == expected


@pytest.mark.parametrize(
    ("operation", "limit_s"),
    [
        pytest.param("status", 30.0, id="status"),
        pytest.param("status_sync", 50.0, id="status_sync adds its wait"),
        pytest.param("stream", 40.0, id="stream adds RunPod's own 10 s"),
        pytest.param("stream_held", 31.0, id="stream adds its wait"),
    ],
)
async def test_a_held_call_is_given_its_wait_on_top(
    monkeypatch: pytest.MonkeyPatch,
    session: Session,
    service: Service,
    runpod: RunPod,
    operation: str,
    limit_s: float,
) -> None:
    """Giving up before RunPod answers loses what it would have said; connecting stays short whatever the wait."""
    limits_s: list[float] = []
    connecting: list[aiohttp.ClientTimeout] = []
    real, connect = session.deadlines.within, session.connector.connect

    def within(limit_s: float) -> Deadline:
        limits_s.append(limit_s)
        return real(limit_s)

    async def connecting_to(request: aiohttp.ClientRequest, traces: Any, limits: aiohttp.ClientTimeout) -> Any:
        connecting.append(limits)
        return await connect(request, traces, limits)

    monkeypatch.setattr(session.deadlines, "within", within)
    monkeypatch.setattr(session.connector, "connect", connecting_to)
    service.will_answer('{"status": "IN_QUEUE"}')
    await call(runpod, operation)
    assert limits_s == [limit_s]
    assert connecting == [aiohttp.ClientTimeout(total=None, connect=10.0, sock_connect=10.0, sock_read=None)]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (301, "", AnswerLost),
        (400, "bad request: body: exceeded max body size of 10MiB", TooLarge),
        (400, '{"error": "no input"}', Refused),
        (401, "", Unauthorized),
        (402, "", PaymentRequired),
        (403, "<html>", Forbidden),
        (404, '{"detail": "endpoint not found"}', NotFound),
        (405, '{"detail": "Method Not Allowed"}', Unsupported),
        (408, "", AnswerLost),
        (409, '{"status": 409, "code": "ENDPOINT_PAUSED"}', Paused),
        (413, "", TooLarge),
        (422, '{"detail": []}', Refused),
        (429, "slow down", RateLimited),
        (500, "", AnswerLost),
        (501, "", Unsupported),
        (502, "<html>", AnswerLost),
        (503, "", AnswerLost),
        (504, "", AnswerLost),
    ],
)
async def test_an_unsuccessful_answer_is_an_error(
    service: Service, runpod: RunPod, status: int, body: str, kind: type[RunPodError]
) -> None:
    """Each says what may be concluded, where it happened, and what RunPod said."""
    service.will_answer(body, status=status)
    with pytest.raises(RunPodError) as caught:
        await runpod.status("J-u1")
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"GET /status/J-u1 of endpoint 'abc': HTTP {status}")
    assert (caught.value.status, caught.value.detail) == (status, body)


async def test_a_rate_limit_says_how_long_to_wait(service: Service, runpod: RunPod) -> None:
    """A call that comes back too soon is refused again."""
    service.will_answer(status=429, headers=("Retry-After: 7",))
    with pytest.raises(RateLimited) as caught:
        await runpod.run(BODY)
    assert caught.value.retry_after_s == 7.0
    assert str(caught.value) == "POST /run of endpoint 'abc': HTTP 429"


TARGET = ConnectionKey("api.runpod.ai", 443, True, True, None, None, None)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        pytest.param(
            aiohttp.ClientConnectorDNSError(TARGET, OSError(-2, "Name or service not known")),
            Unreachable,
            "no connection to api.runpod.ai:443: its name was not found",
            id="DNS",
        ),
        pytest.param(
            aiohttp.ClientConnectorCertificateError(TARGET, ssl.SSLCertVerificationError(1, "self-signed")),
            Unreachable,
            "no connection to api.runpod.ai:443: its certificate was not accepted: self-signed",
            id="certificate",
        ),
        pytest.param(
            aiohttp.ClientConnectorSSLError(TARGET, ssl.SSLError(1, "handshake failure")),
            Unreachable,
            "no connection to api.runpod.ai:443: TLS failed: handshake failure",
            id="TLS",
        ),
        pytest.param(
            aiohttp.ClientConnectorError(TARGET, OSError("Multiple exceptions: a, b")),
            Unreachable,
            "no connection to api.runpod.ai:443: Multiple exceptions: a, b",
            id="several addresses",
        ),
        pytest.param(aiohttp.ConnectionTimeoutError(), Unreachable, "no connection within 10s", id="connect timeout"),
        pytest.param(aiohttp.SocketTimeoutError(), AnswerLost, "no answer within 30s", id="read timeout"),
        pytest.param(TimeoutError(), AnswerLost, "no answer within 30s", id="timeout"),
        pytest.param(
            aiohttp.ServerDisconnectedError(),
            AnswerLost,
            "the connection was closed before an answer came",
            id="server disconnected",
        ),
        pytest.param(
            aiohttp.ClientOSError(104, "Connection reset by peer"),
            AnswerLost,
            "the connection broke (connection reset by peer)",
            id="reset",
        ),
        pytest.param(
            ConnectionResetError(104, "x"),
            AnswerLost,
            "the connection broke (connection reset by peer)",
            id="raw reset",
        ),
        pytest.param(
            aiohttp.ClientPayloadError("x"),
            AnswerLost,
            "the answer was cut short, or could not be decompressed",
            id="payload",
        ),
        pytest.param(
            aiohttp.ClientConnectionError("x"), AnswerLost, "the connection broke (ClientConnectionError)", id="other"
        ),
    ],
)
async def test_a_broken_connection_is_named_by_what_may_be_concluded(
    monkeypatch: pytest.MonkeyPatch, runpod: RunPod, error: Exception, kind: type[RunPodError], message: str
) -> None:
    """Only a failure to connect is "surely not sent"; taking another for it pays twice."""

    async def fail(_: Exchange) -> Exchange:
        raise error

    monkeypatch.setattr(Exchange, "__aenter__", fail)
    with pytest.raises(RunPodError) as caught:
        await runpod.health()
    assert type(caught.value) is kind
    assert str(caught.value) == f"GET /health of endpoint 'abc': {message}"
    assert caught.value.status is None


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        pytest.param("<html>", 200, "an answer that is not JSON", id="HTML"),
        pytest.param("", 204, "an answer that is not JSON", id="empty"),
        pytest.param("[" * 100_000, 200, "an answer that is not JSON", id="nested without end"),
        pytest.param(b"\xff\xfe{}", 200, "an answer that is not JSON", id="not text"),
        pytest.param("[]", 200, "an answer that is not a JSON object", id="list"),
        pytest.param('"J-u1"', 202, "an answer that is not a JSON object", id="text"),
        pytest.param('{"status": "IN_QUEUE"}', 200, "an answer that names no job", id="no id"),
        pytest.param('{"id": "../health"}', 200, "an answer that names no job", id="an id that leaves its path"),
    ],
)
async def test_a_submit_answered_with_something_else_is_unreadable(
    service: Service, runpod: RunPod, body: str | bytes, status: int, reason: str
) -> None:
    """It was a success for somebody: the job may exist, and there is no id to look at it."""
    service.will_answer(body, status=status)
    with pytest.raises(Unreadable) as caught:
        await runpod.run(BODY)
    assert str(caught.value) == f"POST /run of endpoint 'abc': HTTP {status} with {reason}"
    assert caught.value.status == status


async def test_an_output_with_nan_and_long_integers_is_read(service: Service, runpod: RunPod) -> None:
    """Workers do send them, and a paid result must not fail for the parser that is fastest."""
    service.will_answer('{"status": "COMPLETED", "output": [NaN, 123456789012345678901]}')
    output = (await runpod.status("J-u1")).output
    assert repr(output) == "['NaN', 123456789012345678901]"


async def test_an_output_nested_too_deeply_is_unreadable(service: Service, runpod: RunPod) -> None:
    """It could be read and never be written again, so it must not end the batch when it is settled."""
    deep = "[" * 300 + "]" * 300
    service.will_answer('{"status": "COMPLETED", "output": ' + deep + "}")
    with pytest.raises(Unreadable) as caught:
        await runpod.status("J-u1")
    assert caught.value.message == "GET /status/J-u1 of endpoint 'abc': HTTP 200 with an answer that is not JSON"


async def test_an_odd_health_has_no_counters(service: Service, runpod: RunPod) -> None:
    """That the endpoint answers with 200 is the news; counters are extra."""
    service.will_answer('["ok"]')
    assert await runpod.health() == EndpointHealth({}, {})


async def test_a_job_id_that_could_leave_its_path_is_not_sent(service: Service, runpod: RunPod) -> None:
    """A ledger can be edited, and ``/status/../purge-queue`` would be normalised into another operation."""
    with pytest.raises(ValueError) as caught:
        await runpod.cancel("../purge-queue")
    assert str(caught.value) == "'../purge-queue' is not a job id"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param({"endpoint_id": "a/b"}, "'a/b' is not an endpoint id", id="path in id"),
        pytest.param({"endpoint_id": ""}, "'' is not an endpoint id", id="empty id"),
        pytest.param({"base_url": "api.runpod.ai/v2"}, "the base URL can't be used", id="no scheme"),
        pytest.param({"base_url": "file:///etc"}, "the base URL can't be used", id="other scheme"),
        pytest.param({"base_url": "https://u:p@x/v2"}, "the base URL can't be used", id="password"),
        pytest.param({"base_url": "https://x/v2?a=b"}, "the base URL can't be used", id="query"),
        pytest.param({"base_url": "https://x:port/v2"}, "the base URL can't be used", id="port"),
        pytest.param({"base_url": "https://[x/v2"}, "the base URL can't be used", id="bracket"),
        *[
            pytest.param(
                {"api_key": Secret(key, name="RUNPOD_API_KEY")},
                "the API key in RUNPOD_API_KEY is empty, or no HTTP header can carry it",
                id=name,
            )
            for key, name in [("", "no key"), ("a\nb", "key with a line end"), ("a b", "key with a space"), ("ä", "ä")]
        ],
    ],
)
async def test_what_no_request_can_be_made_of_is_refused_at_once(
    session: Session, changed: dict[str, Any], message: str
) -> None:
    """The user can mend it, and no run has been submitted yet. The key is not shown."""
    given: dict[str, Any] = {"base_url": BASE, "endpoint_id": "abc", "api_key": Secret(KEY, name="RUNPOD_API_KEY")}
    with pytest.raises(UsageError) as caught:
        RunPod(session, **(given | changed))
    assert str(caught.value) == message


async def test_the_session_knows_no_key_and_keeps_connections_young(session: Session) -> None:
    """One session serves every endpoint: what it sends by itself goes to all of them."""
    assert dict(session.aiohttp.headers) == SESSION_HEADERS
    assert isinstance(session.aiohttp.cookie_jar, aiohttp.DummyCookieJar)
    assert session.aiohttp.trust_env is False
    assert session.aiohttp.trace_configs == []
    assert session.connector.limit == 0
