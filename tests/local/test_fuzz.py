"""
Whatever is sent, by whomever, is answered as RunPod answers, or not at all: never with a 500, never with an error in
the server's log. To clients' operations and to workers' ones.
"""

import contextlib
import json
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from serving import TOKEN
from threaded import shared

from runner.local import client_api, fault_text, worker_api
from runner.local.faults import OPERATIONS, Faults
from runner.local.server import Served

PATIENCE_S = 0.3
"""How long an answer is waited for. One that is held longer is given up, as a client does that has enough."""

ANSWERS = {200, 204, 400, 401, 404, 405, 429}

FAULTS = [
    "429",
    "429,retry_after=1s",
    "not_found",
    "paused",
    "slow,over=5ms",
    "cut",
    "wrong_type",
    "html",
    "reset_after",
]
"""The ones that do not answer with 5xx on purpose."""


class Errors(logging.Handler):
    """Keeps what is logged as an error, by whomever."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


@dataclass
class Target:
    """A server to be shot at, the ids of jobs that it has, and its log of errors."""

    port: int
    worker_key: str
    log: Path
    errors: list[str]

    def answer(
        self, request: bytes, *, ends: bool = False, patience_s: float = PATIENCE_S
    ) -> tuple[int, str, bytes] | None:
        """Status, type and body of the answer; None if there is none, or if it breaks off. *ends*: no more is sent."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.settimeout(patience_s)
            with contextlib.suppress(ConnectionError):  # it may have heard enough before we said all
                connection.sendall(request)
                if ends:
                    connection.shutdown(socket.SHUT_WR)
            response = HTTPResponse(connection, method=request.partition(b" ")[0].decode("latin-1"))
            try:
                response.begin()
                return response.status, response.getheader("Content-Type", ""), response.read()
            except (OSError, HTTPException):  # too late, reset, cut, or no HTTP
                return None
            finally:
                response.close()

    def ask(self, method: str, path: str, key: str, body: bytes = b"", *, fault: str = "") -> tuple[int, bytes]:
        """One decent request, which may ask for a fault."""
        lines = [f"{method} /v2/ep/{path} HTTP/1.1", "Host: x", f"Authorization: {key}", f"Content-Length: {len(body)}"]
        if fault:
            lines.append(f"{fault_text.HEADER}: {fault}")
        head = "\r\n".join(lines) + "\r\n\r\n"
        found = self.answer(head.encode() + body, patience_s=30.0)
        assert found is not None
        return found[0], found[2]

    def job(self, state: str) -> str:
        """A new job in this state."""
        status, body = self.ask("POST", "run", TOKEN, b'{"input": 1}')
        assert status == 200
        job_id: str = json.loads(body)["id"]
        if state == "CANCELLED":
            self.ask("POST", f"cancel/{job_id}", TOKEN)
        elif state != "IN_QUEUE":
            while json.loads(self.ask("GET", f"status/{job_id}", TOKEN)[1])["status"] == "IN_QUEUE":
                self.ask("GET", "job-take/w1?job_in_progress=1", self.worker_key)
            self.ask("POST", f"job-stream/w1/{job_id}?x", self.worker_key, b'{"output": 1}')
        if state in ("COMPLETED", "FAILED"):
            result = b'{"output": 1}' if state == "COMPLETED" else b'{"error": 1}'
            self.ask("POST", f"job-done/w1/{job_id}?x", self.worker_key, result)
        return job_id

    def batch(self, state: str) -> str:
        """A new batch of one request in this state of jobs; IN_QUEUE: a draft."""
        for one in json.loads(self.ask("GET", "batch", TOKEN)[1])["batches"]:
            if one["status"] == "DRAFT":  # so many can be active, no more
                self.ask("POST", f"batch/{one['id']}/cancel", TOKEN)
        while (made := self.ask("POST", "batch", TOKEN, b'[{"input": 1}]'))[0] == 429:
            for worker in ("w1", "w2"):  # what they hold, they say they don't: it comes again, or has failed
                status, body = self.ask("GET", f"job-take/{worker}?job_in_progress=0", self.worker_key)
                if status == 200:
                    self.ask("POST", f"job-done/{worker}/{json.loads(body)['id']}?x", self.worker_key, b"{}")
        batch_id: str = json.loads(made[1])["id"]
        if state != "IN_QUEUE":
            self.ask("POST", f"batch/{batch_id}/finalize", TOKEN)
        if state == "CANCELLED":
            self.ask("POST", f"batch/{batch_id}/cancel", TOKEN)
        return batch_id


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """An endpoint without workers, so that the fuzz is the worker; nothing is held for long."""
    log = tmp_path_factory.mktemp("fuzz") / "log.jsonl"
    handler = Errors()
    logging.getLogger().addHandler(handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.local.worker_api.HOLD_S", 0.02)
        patch.setattr("runner.local.worker_api.REFUSAL_HOLD_S", 0.0)
        patch.setattr("runner.local.answers.WAIT_MS", range(1, 300_001))
        with shared([Served("ep", None)], log=log, faults=Faults(by_header=True)) as served:
            key = served.server.variables("ep", "w1")["RUNPOD_AI_API_KEY"]
            yield Target(served.server.port, key, log, handler.said)
    logging.getLogger().removeHandler(handler)


JOB = "(a-job)"
"""Stands for the id of a job that is there: ids are not known before the server runs."""

BATCH = "(a-batch)"
"""The same for a batch."""

BATCH_PATHS = ["batch", *(f"batch/{BATCH}{tail}" for tail in ("", "/requests", "/requests/x", "/finalize", "/cancel"))]

STATES = ["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED"]
"""What such a job may be."""

CLIENT_KEY, WORKER_KEY = "(the token)", "(the worker's key)"

texts = st.text(max_size=12)
odd_bytes = st.binary(max_size=12).map(lambda data: data.decode("latin-1"))
numbers = st.one_of(
    st.integers(-2, 1002), st.sampled_from([300_000, 300_001, 604_800_000, 604_800_001, 10**18, 2**64, 10**40])
)
quoted = st.one_of(texts.map(lambda text: text.encode(errors="replace")), st.binary(max_size=12)).map(quote)
words = st.one_of(
    quoted, quoted, st.sampled_from(["", "%", "%zz", "%ff", "%00", "..", ".", "%2F", "é", "%D9%A3"]), odd_bytes
)
seldom = st.sampled_from([False] * 9 + [True])

segments = st.one_of(
    st.sampled_from([*client_api.ROUTES, *worker_api.ROUTES, "v2", "ep", "w1", JOB, "other", "requests", "openai"]),
    words,
)
job_ids = st.sampled_from([JOB, JOB, "unknown", "sync-unknown-u1", "%ff", "a%2Fb", "..", "x" * 3000])


@st.composite
def paths(draw: st.DrawFn) -> tuple[str, bool]:
    """A path, and whether it is meant for workers; mostly of an operation that there is."""
    if draw(seldom):
        return "/" + "/".join(draw(st.lists(segments, max_size=7))), draw(st.booleans())
    if draw(st.sampled_from([True, False, False, False])):
        path = draw(st.sampled_from(BATCH_PATHS))
        return f"/v2/ep/{path.replace(BATCH, draw(words)) if draw(seldom) else path}", False
    routes = {**client_api.ROUTES, **worker_api.ROUTES}
    operation = draw(st.sampled_from(sorted(routes)))
    worker = operation in worker_api.ROUTES
    arguments = [draw(job_ids) for _ in range(routes[operation].arguments)]
    if worker and arguments:
        arguments[0] = draw(st.sampled_from(["w1", "w1", "w2", "%ff", ""]))
    if draw(seldom):
        arguments.append(draw(words))
    return "/".join(["/v2", draw(st.sampled_from(["ep"] * 9 + ["other"])), operation, *arguments]), worker


READ = {
    "runsync": ["wait"],
    "status": ["ttl"],
    "status-sync": ["wait"],
    "stream": ["wait"],
    "job-take": ["job_in_progress"],
    "job-take-batch": ["batch_size", "job_in_progress"],
    "job-done": ["isStream"],
    "ping": ["job_id", "status", "check", "reason"],
    "batch": ["offset", "limit"],
}
"""The words of a query that operations look at."""


@st.composite
def queries(draw: st.DrawFn, operation: str) -> str:
    """A query string; most name a short wait, or a request would be held for longer than we listen."""
    names = st.sampled_from([*READ.get(operation, []) * 3, "gpu", "x"])
    told = st.one_of(
        numbers.map(str), words, st.sampled_from(["unhealthy", "0", "true", f"{JOB},x", "1e3", "5.0", "-1"])
    )
    pairs = [f"{name}={value}" for name, value in draw(st.lists(st.tuples(names, told), max_size=3))]
    pairs.insert(0 if draw(seldom) else len(pairs), "wait=2")
    text = "&".join(pairs)
    return draw(st.sampled_from([f"?{text}", f"?gpu=X&{text}", f"?wait=2&{text}", f"?&&{text}", f"?{text}#x"]))


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), numbers, st.floats(allow_nan=False, allow_infinity=False), texts, st.just("\ud800")
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
policies = st.fixed_dictionaries(
    {}, optional={"ttl": numbers | values, "executionTimeout": numbers | values, "lowPriority": st.booleans() | values}
)
submits = st.fixed_dictionaries(
    {"input": values},
    optional={
        "policy": policies | values,
        "webhook": st.sampled_from(["http://127.0.0.1:1/", "", "x", None]) | values,
        "s3Config": st.dictionaries(texts, values, max_size=2) | values,
        "x": values | st.just(float("nan")),
    },
)
lists = st.lists(submits | values, max_size=3)
batches = st.one_of(
    lists, st.fixed_dictionaries({}, optional={"requests": lists | values, "name": values, "displayName": texts})
)
results = st.fixed_dictionaries(
    {},
    optional={"output": values, "error": values, "status": st.sampled_from(["IN_PROGRESS", "x", 1]), "stopPod": values},
)


@st.composite
def bodies(draw: st.DrawFn, operation: str) -> bytes:
    """A body: what the operation takes, in every shape; broken off, or of anything at all."""
    if draw(seldom):
        return draw(st.one_of(st.just(b""), st.binary(max_size=60)))
    fitting = batches if operation == "batch" else submits if operation in client_api.ROUTES else results
    text = json.dumps(draw(st.one_of(fitting, fitting, fitting, values)), ensure_ascii=draw(st.booleans()))
    data = text.encode(errors="surrogatepass")
    return data[: draw(st.integers(0, len(data)))] if draw(seldom) else data


@dataclass(frozen=True)
class Request:
    """One request as it is sent, with marks for what is known only when the server runs."""

    method: str
    path: str
    key: str | None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    job: str = "IN_QUEUE"

    def sent(self, target: Target) -> bytes:
        """Its bytes."""
        real = {CLIENT_KEY: f"Bearer {TOKEN}", WORKER_KEY: target.worker_key}
        path = self.path.replace(JOB, target.job(self.job)) if JOB in self.path else self.path
        path = path.replace(BATCH, target.batch(self.job)) if BATCH in path else path
        lines = [f"{self.method} {path} HTTP/1.1", "Host: x"]
        if self.key is not None:
            lines.append(f"Authorization: {real.get(self.key, self.key)}")
        lines += [f"{name}: {value}" for name, value in self.headers]
        if not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in self.headers):
            lines.append(f"Content-Length: {len(self.body)}")
        head = "\r\n".join(lines) + "\r\n\r\n"
        return head.encode("utf-8", errors="surrogateescape") + self.body


def _line(text: str) -> str:
    """*text* without what would end a line, or a word of the first line."""
    return "".join(character for character in text if character not in "\r\n \x00")


header_values = st.one_of(texts, odd_bytes, st.sampled_from(["100-continue", "gzip", "identity", "chunked", "0", "é"]))
headers = st.one_of(
    st.tuples(st.just(fault_text.HEADER), st.sampled_from(FAULTS) | texts),
    st.tuples(
        st.sampled_from(["User-Agent", "Content-Type", "Accept", "Cookie", "X-Request-ID", "Range"]), header_values
    ),
    st.tuples(st.just("Content-Encoding"), st.sampled_from(["identity", "gzip", "deflate, br", ""])),
    st.tuples(st.just("Expect"), st.sampled_from(["100-continue", "200-ok"])),
    st.tuples(st.just("Connection"), st.sampled_from(["close", "keep-alive", "upgrade"])),
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request that is HTTP, if not much else."""
    path, is_worker_s = draw(paths())
    routes = {**client_api.ROUTES, **worker_api.ROUTES}
    operation = path.split("/")[3] if path.count("/") > 2 else ""
    fitting = sorted(routes[operation].methods) if operation in routes else ["GET"]
    if operation == "batch":
        fitting = ["GET", "POST", "POST", "PUT", "DELETE"]
    return Request(
        draw(st.sampled_from(fitting * 20 + ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD", "get", "X"])),
        _line(path + draw(queries(operation))),
        draw(st.sampled_from([WORKER_KEY if is_worker_s else CLIENT_KEY] * 20 + [None, "", "Bearer", "é", CLIENT_KEY])),
        tuple((name, _line(value)) for name, value in draw(st.lists(headers, max_size=2))),
        draw(bodies(operation)),
        draw(st.sampled_from(STATES)),
    )


SETTINGS = settings(derandomize=True, max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))


@given(request=requests())
@example(Request("GET", "/v2/ep/status/\udcff", CLIENT_KEY))
@example(Request("GET", "/v2/ep/health", CLIENT_KEY, (("User-Agent", "\udcff"),)))
@example(Request("GET", "/v2/ep/job-take/\udcff?job_in_progress=0", WORKER_KEY))
@example(Request("POST", f"/v2/ep/run/{JOB}/extra?wait=1&wait=x", CLIENT_KEY, body=b'{"input": 1}'))
@SETTINGS
def test_whatever_is_asked_has_an_answer_of_runpod_s_kind(target: Target, request: Request) -> None:
    """Refused with JSON that says why, in one of the codes that its clients know; nobody sees an error of ours."""
    asks_for_fault = any(name == fault_text.HEADER for name, _ in request.headers)
    found = target.answer(request.sent(target))
    assert target.errors == []
    if found is None:
        return
    status, kind, body = found
    assert status in ANSWERS | ({409} if asks_for_fault or "/batch" in request.path else set())
    if request.method == "HEAD" or asks_for_fault or status == 204:
        return
    if kind.startswith("text/plain"):  # aiohttp's own: it is no HTTP, so no operation saw it
        assert status == 400
        return
    assert kind == "application/json"
    answer = json.loads(body)
    assert status < 400 or set(answer) in ({"error"}, {"detail"})


POSTS = {
    "run": "run",
    "runsync": "runsync?wait=1",
    "job-done": f"job-done/w1/{JOB}?isStream=false",
    "job-stream": f"job-stream/w1/{JOB}?isStream=false",
    "ping": "ping/w1?status=unhealthy",
}
"""The operations that read a body, and how they are called."""


@st.composite
def posts(draw: st.DrawFn) -> Request:
    """A decent request in all but its body."""
    operation = draw(st.sampled_from(sorted(POSTS)))
    key = CLIENT_KEY if operation in client_api.ROUTES else WORKER_KEY
    return Request("POST", f"/v2/ep/{POSTS[operation]}", key, body=draw(bodies(operation)), job="IN_PROGRESS")


@given(request=posts())
@example(Request("POST", "/v2/ep/run", CLIENT_KEY, body=b'{"input":1,"webhook":"\\ud800"}'))
@example(Request("POST", "/v2/ep/run", CLIENT_KEY, body=b'{"input":1,"policy":{"ttl":"1"}}'))
@example(Request("POST", f"/v2/ep/{POSTS['job-done']}", WORKER_KEY, body=b"[1]", job="IN_PROGRESS"))
@settings(SETTINGS, max_examples=400)
def test_any_body_is_taken_or_refused_and_what_came_of_it_can_be_asked(target: Target, request: Request) -> None:
    """By those who would find it broken: the worker that takes it, the client that looks."""
    data = request.sent(target)
    found = target.answer(data)
    assert found is not None
    assert found[0] in (200, 400)
    job_id = json.loads(found[2]).get("id") if found[0] == 200 and request.key == CLIENT_KEY else None
    if request.key == WORKER_KEY and JOB in request.path:
        job_id = data.split(b"/w1/")[1].partition(b"?")[0].decode()
    status, taken = target.ask("GET", "job-take-batch/w1?batch_size=9", target.worker_key)
    assert status in (200, 204)
    assert status == 204 or all({"id", "input"} <= set(job) for job in json.loads(taken))
    if job_id is not None:
        for path in (f"stream/{job_id}?wait=1", f"status/{job_id}"):  # its ttl may have been a millisecond
            assert target.ask("GET", path, TOKEN)[0] in (200, 404)
    assert target.errors == []


@given(head=st.binary(max_size=40), request=requests(), cut=st.integers(0, 60), junk=st.binary(min_size=1, max_size=8))
@settings(SETTINGS, max_examples=120)
def test_what_is_no_http_harms_nobody(target: Target, head: bytes, request: Request, cut: int, junk: bytes) -> None:
    """Bytes of any kind, a request that breaks off, one with junk in its middle: the next one is served."""
    whole = request.sent(target)
    for data in (head + b"\r\n\r\n", whole[:cut], whole[:cut] + junk + whole[cut:]):
        found = target.answer(data, ends=True)
        assert found is None or found[0] < 500 or any(name == fault_text.HEADER for name, _ in request.headers)
    assert target.errors == []
    assert target.ask("GET", "health", TOKEN)[0] == 200


DEPTHS = (100, 250, 253, 254, 255, 256, 300, *range(900, 1000, 9), 5_000, 100_000)


def test_what_is_nested_at_any_depth_is_taken_or_refused(target: Target) -> None:
    """Parsers and writers give up at depths of their own, and an answer is a little deeper than what is in it."""
    nested = [b"[" * depth + b"]" * depth for depth in DEPTHS]
    nested += [b'{"":' * depth + b"1" + b"}" * depth for depth in DEPTHS]
    for text in nested:
        for path in ("run", "runsync?wait=1"):
            body = b'{"input":' + text + b',"s3Config":{"x":' + text + b"}}"
            assert target.ask("POST", path, TOKEN, body)[0] in (200, 400)
        job_id = target.job("IN_PROGRESS")
        assert target.ask("POST", f"job-stream/w1/{job_id}?x", target.worker_key, b'{"output":' + text + b"}")[0] < 500
        for fault in ("duplicate_chunk", "lost_chunk"):
            assert target.ask("GET", f"stream/{job_id}?wait=1", TOKEN, fault=fault)[0] in (200, 400)
        assert target.ask("POST", f"job-done/w1/{job_id}?x", target.worker_key, b'{"output":' + text + b"}")[0] < 500
        for fault in ("unknown_status", "wrong_type"):
            assert target.ask("GET", f"status/{job_id}", TOKEN, fault=fault)[0] in (200, 400)
        while target.ask("GET", "job-take-batch/w2?batch_size=9", target.worker_key)[0] == 200:
            pass
    assert target.errors == []


def test_after_all_that_the_endpoint_and_its_log_are_whole(target: Target) -> None:
    """The counters agree with the jobs, each line of the log can be read, and a job still runs."""
    status, body = target.ask("POST", "run", TOKEN, b'{"input": "last"}')
    assert status == 200
    last = json.loads(body)["id"]
    lines = [json.loads(line) for line in target.log.read_bytes().splitlines()]
    assert {line["event"] for line in lines} <= {"accepted", "asked", "done", "webhook"}
    assert {line["operation"] for line in lines if line["event"] == "asked"} <= set(OPERATIONS)
    while (taken := target.ask("GET", "job-take/last?job_in_progress=1", target.worker_key))[0] == 200:
        job_id = json.loads(taken[1])["id"]
        assert target.ask("POST", f"job-done/last/{job_id}?x", target.worker_key, b'{"output": 1}')[0] == 200
    assert json.loads(target.ask("GET", f"status/{last}", TOKEN)[1])["output"] == 1
    assert json.loads(target.ask("GET", "health", TOKEN)[1])["jobs"]["inQueue"] == 0
    assert target.errors == []
