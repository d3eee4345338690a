"""
The operations of RunPod's Batch API that clients call.

Source: RunPod docs, "Batch API" (beta; read August 2026). What they leave open is guessed here, and named:

- what PUT takes: ``name`` and ``displayName``, texts, in any state; it answers how the batch stands
- so do finalize, cancel and DELETE
- appending answers the batch's id and status, and the ids of the new requests unless they are switched off
- the list is an object with ``batches``
- at most 1,000 requests a page; who asks for more gets these
- codes: 400 for what is malformed or has too many requests, 404 for what is unknown, 409 for what the state forbids,
  429 for too many active batches or queued requests
- there are no rate limits
- a request can't be asked for or cancelled by the operations of jobs: 404
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aiohttp import web

from runner.local import batch_pages, wire
from runner.local.answers import FAULT, JOB_ID, Refusal, Route, answer, bad_request, read_body
from runner.local.batches import Batch, NotAllowed, TooLong, TooMany
from runner.local.endpoint import Endpoint
from runner.local.faults import Kind
from runner.local.job import Job
from runner.values import JsonObject, JsonValue

CALL_LIMIT_MIB = 10
PAGE = 50
PAGE_LIMIT = 1_000
_NAMES = ("name", "displayName")


async def create(endpoint: Endpoint, request: web.BaseRequest) -> web.Response:
    """POST /batch: have a draft of the requests in an array, which may be empty."""
    value = wire.parse(await read_body(request, limit_mib=CALL_LIMIT_MIB))
    if not isinstance(value, list):
        raise bad_request("bad request: body: must be a JSON array")
    jobs = _jobs(endpoint, value)
    with _allowed():
        batch = endpoint.create_batch(jobs)
    request[JOB_ID] = batch.id
    return _accepted(endpoint, batch, jobs)


async def append(endpoint: Endpoint, request: web.BaseRequest, batch_id: str) -> web.Response:
    """POST /batch/{batch}/requests: add requests to a draft, all or none."""
    batch = _find(endpoint, batch_id)
    value = wire.parse(await read_body(request, limit_mib=CALL_LIMIT_MIB))
    asked = value.get("requests") if isinstance(value, dict) else None
    if not isinstance(asked, list):
        raise bad_request("bad request: body: must be a JSON object with 'requests', an array")
    jobs = _jobs(endpoint, asked)
    with _allowed():
        endpoint.batches.append(batch, jobs)
    return _accepted(endpoint, batch, jobs)


def _jobs(endpoint: Endpoint, values: Sequence[JsonValue]) -> list[Job]:
    jobs = []
    for place, value in enumerate(values):
        try:
            jobs.append(endpoint.batch_job(wire.asked(value)))
        except wire.BadBody as error:
            text = str(error).removeprefix("bad request: body: ")
            raise bad_request(f"bad request: body: request {place}: {text}") from error
    return jobs


def _accepted(endpoint: Endpoint, batch: Batch, jobs: Sequence[Job]) -> web.Response:
    shown: JsonObject = {"id": batch.id, "status": batch.state}
    if endpoint.conditions.batch_ids:
        shown["requests"] = [{"id": job.id} for job in jobs]
    return answer(shown)


async def remove(endpoint: Endpoint, request: web.BaseRequest, batch_id: str, request_id: str) -> web.Response:
    """DELETE /batch/{batch}/requests/{request}: take one out of a draft."""
    batch = _find(endpoint, batch_id)
    with _allowed():
        if not endpoint.batches.remove(batch, request_id):
            raise Refusal(404, {"detail": "request not found"})
    return _shown(endpoint, batch)


async def finalize(endpoint: Endpoint, request: web.BaseRequest, batch_id: str) -> web.Response:
    """POST /batch/{batch}/finalize: run it."""
    batch = _find(endpoint, batch_id)
    fault = request.get(FAULT)
    with _allowed():
        endpoint.finalize_batch(batch, fails=fault is not None and fault.kind is Kind.BATCH_FAILS)
    return _shown(endpoint, batch)


async def update(endpoint: Endpoint, request: web.BaseRequest, batch_id: str) -> web.Response:
    """PUT /batch/{batch}: call it something."""
    batch = _find(endpoint, batch_id)
    value = wire.parse(await read_body(request, limit_mib=CALL_LIMIT_MIB))
    names = {key: value[key] for key in _NAMES if key in value} if isinstance(value, dict) else {}
    if not names:
        raise bad_request(f"bad request: body: must be a JSON object with one of {', '.join(_NAMES)}")
    for key, name in names.items():
        if not (isinstance(name, str) and wire.is_unicode(name)):
            raise bad_request(f"bad request: body: '{key}' must be a text")
        batch.names[key] = name
    return _shown(endpoint, batch)


async def cancel(endpoint: Endpoint, request: web.BaseRequest, batch_id: str) -> web.Response:
    """POST /batch/{batch}/cancel: drop what is queued; what runs goes on to its end."""
    batch = _find(endpoint, batch_id)
    endpoint.cancel_batch(batch)
    return _shown(endpoint, batch)


async def status(endpoint: Endpoint, request: web.BaseRequest, batch_id: str) -> web.Response:
    """GET /batch/{batch}: how it stands."""
    return _shown(endpoint, _find(endpoint, batch_id))


async def listed(endpoint: Endpoint, request: web.BaseRequest) -> web.Response:
    """GET /batch: how all of them stand, newest first."""
    return answer({"batches": [_summary(endpoint, batch) for batch in endpoint.batches.newest_first()]})


async def page(endpoint: Endpoint, request: web.BaseRequest, batch_id: str) -> web.Response:
    """GET /batch/{batch}/requests?offset=n&limit=n: some of its requests, with what came of them."""
    offset, limit = _count(request, "offset", 0), _count(request, "limit", PAGE)
    batch = _find(endpoint, batch_id)
    if limit == 0:
        raise bad_request("bad request: query: 'limit' must be positive")
    fault = request.get(FAULT)
    return answer(
        batch_pages.page(
            batch,
            endpoint.conditions.batch_order,
            f"{endpoint.seed} {endpoint.name}",
            offset=offset,
            limit=min(limit, PAGE_LIMIT),
            shift=int(fault is not None and fault.kind is Kind.SHIFTED_PAGE),
            extra=endpoint.conditions.batch_extra,
        )
    )


def _count(request: web.BaseRequest, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise bad_request(f"bad request: query: '{name}' must be a whole number")
    return int(text)


def _find(endpoint: Endpoint, batch_id: str) -> Batch:
    batch = endpoint.batches.find(batch_id)
    if batch is None:
        raise Refusal(404, {"detail": "batch not found"})
    return batch


def _summary(endpoint: Endpoint, batch: Batch) -> JsonObject:
    return batch_pages.summary(batch, endpoint.name, extra=endpoint.conditions.batch_extra)


def _shown(endpoint: Endpoint, batch: Batch) -> web.Response:
    return answer(_summary(endpoint, batch))


@contextmanager
def _allowed() -> Iterator[None]:
    """Refuse what batches do not allow."""
    try:
        yield
    except NotAllowed as error:
        code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
        raise Refusal(code, {"error": str(error)}) from error


_CODES = {TooLong: 400, TooMany: 429, NotAllowed: 409}

_GET, _POST, _PUT, _DELETE = (frozenset({method}) for method in ("GET", "POST", "PUT", "DELETE"))

ROUTES = {
    "batch-create": Route(_POST, 0, create),
    "batch-list": Route(_GET, 0, listed),
    "batch-status": Route(_GET, 1, status),
    "batch-update": Route(_PUT, 1, update),
    "batch-append": Route(_POST, 1, append),
    "batch-remove": Route(_DELETE, 2, remove),
    "batch-finalize": Route(_POST, 1, finalize),
    "batch-cancel": Route(_POST, 1, cancel),
    "batch-requests": Route(_GET, 1, page),
}
"""By what the operations are called here: several share a path, so faults and the log need names for them."""

_PATHS = {
    "": ("batch-create", "batch-list"),
    "{}": ("batch-status", "batch-update"),
    "{}/requests": ("batch-append", "batch-requests"),
    "{}/requests/{}": ("batch-remove",),
    "{}/finalize": ("batch-finalize",),
    "{}/cancel": ("batch-cancel",),
}


def operation(method: str, segments: Sequence[str]) -> tuple[str, list[str]]:
    """
    Which operation a path under ``/batch`` means, and its arguments. *segments* is what follows ``batch``.

    Raises:
        Refusal: 404 when there is no such path, 405 when it has no such method.
    """
    shape = "/".join("{}" if place % 2 == 0 else segment for place, segment in enumerate(segments))
    names = _PATHS.get(shape)
    if names is None:
        raise Refusal(404, {"detail": "operation not found"})
    for name in names:
        if method in ROUTES[name].methods:
            return name, list(segments[::2])
    allowed = sorted(one for name in names for one in ROUTES[name].methods)
    raise Refusal(405, {"detail": "method not allowed"}, headers={"Allow": ", ".join(allowed)})
