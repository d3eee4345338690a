"""What every operation of the local endpoint shares: how it refuses, answers, and reads what it was sent."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from runner.local import wire
from runner.local.endpoint import Endpoint
from runner.local.faults import Fault
from runner.local.job import Job, Status
from runner.values import JsonObject

MIB = 1024 * 1024
WAIT_MS = range(1_000, 300_001)
TTL_MS = range(1, 604_800_001)

JOB_ID = web.RequestKey("job_id", str)
"""Under this, a submit leaves the id of its job, or batch, in the request, for whoever keeps the log."""

FAULT = web.RequestKey("fault", Fault)
"""Under this, an operation that carries out its own faults finds the one of the request."""


class Refusal(Exception):
    """Raised to answer a request with an error status and a JSON body."""

    def __init__(self, status: int, body: JsonObject, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.headers = headers

    def answer(self) -> web.Response:
        """What to answer."""
        return answer(self.body, status=self.status, headers=self.headers)


class TooLarge(Refusal):
    """Raised for a body over its limit: 400, in the real gateway's words."""

    def __init__(self, limit_mib: int) -> None:
        super().__init__(400, {"error": f"bad request: body: exceeded max body size of {limit_mib}MiB"})


@dataclass(frozen=True, slots=True)
class Route:
    """An operation: its methods, how many path segments follow its name, and what does it."""

    methods: frozenset[str]
    arguments: int
    handle: Callable[..., Awaitable[web.StreamResponse]]


def answer(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """*value* as a JSON answer."""
    return web.Response(body=wire.encode(value), status=status, content_type="application/json", headers=headers)


def bad_request(message: str) -> Refusal:
    """The refusal of a request that is malformed; *message* says how."""
    return Refusal(400, {"error": message})


async def read_body(request: web.BaseRequest, *, limit_mib: int) -> bytes:
    """
    The whole body.

    Raises:
        TooLarge: it is over the limit.
        Refusal: 400 when it is compressed, or its transfer encoding is broken.
    """
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise bad_request("bad request: body: Content-Encoding is not supported")
    if (request.content_length or 0) > limit_mib * MIB:
        raise TooLarge(limit_mib)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    parts: list[bytes] = []
    size = 0
    try:
        while part := await request.content.readany():
            size += len(part)
            if size > limit_mib * MIB:
                raise TooLarge(limit_mib)
            parts.append(part)
    except (web.RequestPayloadError, BadHttpMessage) as error:
        raise bad_request(f"bad request: body: {error}") from error
    return b"".join(parts)


def wait_s(request: web.BaseRequest, *, default_ms: int) -> float:
    """
    Seconds in the query's ``wait``, which counts milliseconds.

    Raises:
        Refusal: 400 when it is no integer in 1000..300000.
    """
    asked_s = milliseconds(request, "wait", WAIT_MS)
    return default_ms / 1000 if asked_s is None else asked_s


def milliseconds(request: web.BaseRequest, name: str, bounds: range) -> float | None:
    """
    Seconds in a query's milliseconds, None if it is not there.

    Raises:
        Refusal: 400 when it is no integer within *bounds*.
    """
    text = request.query.get(name)
    if text is None:
        return None
    # isdecimal takes digits of all alphabets, and int understands them; the length keeps int cheap.
    if not (text.isdecimal() and len(text) <= 9 and int(text) in bounds):
        raise bad_request(f"bad request: query: '{name}' must be milliseconds in {bounds[0]}..{bounds[-1]}")
    return int(text) / 1000


def find(endpoint: Endpoint, job_id: str) -> Job:
    """
    The job of this id.

    Raises:
        Refusal: 404 when it is unknown here, expired or purged; or a batch's, which the Batch API alone tells of.
    """
    job = endpoint.jobs.find(job_id)
    if job is None or job.batch_id is not None:
        raise Refusal(404, {"detail": "job not found"})
    return job


def status_of(job: Job) -> JsonObject:
    """
    The answer of /status, for `answer`.

    Source: shapes in RunPod docs and public SDK types; `output` in progress is a progress report, and a job whose
    handler returned ``{}`` is COMPLETED without it.
    """
    shown: JsonObject = {"id": job.id, "status": job.status}
    if job.delay_ms is not None:
        shown["delayTime"] = job.delay_ms
    if job.execution_ms is not None:
        shown["executionTime"] = job.execution_ms
    if job.worker_id is not None and job.status is not Status.IN_QUEUE:
        shown["workerId"] = job.worker_id
    if job.output is not None:
        shown["output"] = wire.fragment(job.output)
    if job.error is not None:
        shown["error"] = wire.fragment(job.error)
    if job.retries:
        shown["retries"] = job.retries
    return shown
