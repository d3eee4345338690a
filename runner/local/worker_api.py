"""
The operations that workers call: RunPod's worker protocol, as an unmodified `runpod` worker speaks it.

Source: runpod 1.12.0 worker code (rp_job, rp_http, rp_ping, rp_stop), checked against a running worker.
"""

from aiohttp import web

from runner.local import wire
from runner.local.answers import MIB, Route, TooLarge, answer, bad_request, read_body
from runner.local.client_api import GET, POST, STREAM_LIMIT_BYTES
from runner.local.endpoint import Endpoint
from runner.local.job import Job
from runner.values import JsonObject

RESULT_LIMIT_MIB = 20
HOLD_S = 20.0
"""How long a take or stop request is held. A worker gives up after 90 s, and does not pause after a 204."""


async def take(endpoint: Endpoint, request: web.BaseRequest, worker_id: str) -> web.StreamResponse:
    """GET /job-take/{worker}: one job, or 204 after a while."""
    jobs = await _take(endpoint, request, worker_id, limit=1)
    return await _hand_over(endpoint, request, worker_id, jobs, _offer(jobs[0])) if jobs else _nothing()


async def take_batch(endpoint: Endpoint, request: web.BaseRequest, worker_id: str) -> web.StreamResponse:
    """GET /job-take-batch/{worker}?batch_size=n: at most so many jobs, or 204 after a while."""
    text = request.query.get("batch_size", "1")
    if not (text.isdecimal() and len(text) <= 6 and int(text) >= 1):
        raise bad_request("bad request: query: 'batch_size' must be a positive integer")
    jobs = await _take(endpoint, request, worker_id, limit=int(text))
    body = b"[" + b",".join(_offer(job) for job in jobs) + b"]"
    return await _hand_over(endpoint, request, worker_id, jobs, body) if jobs else _nothing()


async def _take(endpoint: Endpoint, request: web.BaseRequest, worker_id: str, *, limit: int) -> list[Job]:
    endpoint.crew.workers.ready(worker_id)
    if request.query.get("job_in_progress") == "0" and endpoint.jobs.held_by(worker_id):
        # It holds nothing, so what we think it has was lost on the way: handed out as it hung up, or its result
        # could not be posted. The worker will never speak of it again.
        endpoint.crew.gone(worker_id)

    def is_gone() -> bool:
        return request.transport is None or request.transport.is_closing()

    return await endpoint.crew.take(worker_id, HOLD_S, limit=limit, is_gone=is_gone)


def _offer(job: Job) -> bytes:
    """What a worker gets of a job."""
    offer: JsonObject = {"id": job.id, "input": wire.fragment(job.input)}
    if job.webhook is not None:
        offer["webhook"] = job.webhook
    if job.s3_config is not None:
        offer["s3Config"] = wire.fragment(job.s3_config)
    if job.batch_id is not None:
        offer["batchId"] = job.batch_id
    return wire.encode(offer)


async def _hand_over(
    endpoint: Endpoint, request: web.BaseRequest, worker_id: str, jobs: list[Job], body: bytes
) -> web.StreamResponse:
    """Write the answer here, so that jobs go back to the queue if it can't be written."""
    response = web.Response(body=body, content_type="application/json")
    handed_over = False
    try:
        await response.prepare(request)
        await response.write_eof()
        handed_over = request.transport is not None and not request.transport.is_closing()
    finally:
        if not handed_over:
            endpoint.crew.give_back(worker_id, jobs)
    return response


def _nothing() -> web.Response:
    return web.Response(status=204)


async def done(endpoint: Endpoint, request: web.BaseRequest, worker_id: str, job_id: str) -> web.Response:
    """
    POST /job-done/{worker}/{job}: the result, or a report of progress.

    A result that can't be taken (not JSON, NaN in it, over 20 MiB) is refused once and for all, and the job is
    COMPLETED without output, as on RunPod (runpod-python issue 309).
    """
    endpoint.crew.workers.alive(worker_id)
    try:
        # Sent as application/x-www-form-urlencoded, but it is JSON: the type is not looked at.
        posted = wire.result(await read_body(request, limit_mib=RESULT_LIMIT_MIB))
    except (wire.BadBody, TooLarge):
        endpoint.crew.done(job_id, worker_id, output=None, error=None)
        raise
    output = wire.text_or_none(posted, "output")
    if posted.get("status") == "IN_PROGRESS":
        endpoint.jobs.progress(job_id, worker_id, output)
    else:
        error = wire.text_or_none(posted, "error") if posted.get("error") else None
        endpoint.crew.done(job_id, worker_id, output=output, error=error)
        if posted.get("stopPod"):
            endpoint.crew.recycle(worker_id)
    return answer({"status": "ok"})


async def chunk(endpoint: Endpoint, request: web.BaseRequest, worker_id: str, job_id: str) -> web.Response:
    """POST /job-stream/{worker}/{job}: one partial output, of at most 1 MiB."""
    endpoint.crew.workers.alive(worker_id)
    body = await read_body(request, limit_mib=STREAM_LIMIT_BYTES // MIB)
    endpoint.jobs.chunk(job_id, worker_id, wire.encode(wire.result(body)))
    return answer({"status": "ok"})


async def stop(endpoint: Endpoint, request: web.BaseRequest, worker_id: str) -> web.Response:
    """GET /job-stop/{worker}: which of its jobs to stop, or 204 after a while."""
    endpoint.crew.workers.alive(worker_id)
    job_ids = await endpoint.crew.stops(worker_id, HOLD_S)
    return answer({"jobsToStop": job_ids}) if job_ids else _nothing()


async def ping(endpoint: Endpoint, request: web.BaseRequest, worker_id: str) -> web.Response:
    """
    GET /ping/{worker}?job_id=a,b: the worker is alive, and has these jobs, no others; or, with ``status=unhealthy``, it
    is about to exit, and why.

    Our own worker POSTs the latter, with an object that says more than the query's 256 characters.
    """
    body = await read_body(request, limit_mib=1)
    if request.query.get("status") == "unhealthy":
        report = wire.result(body) if body else {}
        query = {key: request.query.get(key, "") for key in ("check", "reason")}
        endpoint.crew.workers.failed(worker_id, query | report)
    else:
        endpoint.crew.workers.alive(worker_id)
        endpoint.crew.works_on(worker_id, frozenset(request.query.get("job_id", "").split(",")))
    return answer({"status": "ok"})


POLLED = frozenset({"job-take", "job-take-batch", "job-stop"})
"""What a worker asks again and again, at once after any answer but 429."""

REFUSAL_HOLD_S = 1.0
"""How long such a request with a wrong key is held before it is refused."""

ROUTES = {
    "job-take": Route(GET, 1, take),
    "job-take-batch": Route(GET, 1, take_batch),
    "job-done": Route(POST, 2, done),
    "job-stream": Route(POST, 2, chunk),
    "job-stop": Route(GET, 1, stop),
    "ping": Route(GET | POST, 1, ping),
}
