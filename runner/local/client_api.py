"""
The operations that clients call, with RunPod's shapes, codes and limits.

Source: RunPod docs, "Operation reference" and "Send API requests" (read August 2026); what they leave open (the bodies
of errors, cancelling a finished job, a purged job's status) is as the public SDKs and clients expect it, or the choice
that is hardest on a client: a purged job is a 404.
"""

from aiohttp import web

from runner.local import wire
from runner.local.answers import (
    JOB_ID,
    TTL_MS,
    Route,
    answer,
    bad_request,
    find,
    milliseconds,
    read_body,
    status_of,
    wait_s,
)
from runner.local.endpoint import Endpoint
from runner.local.job import Job

RUN_LIMIT_MIB = 10
RUNSYNC_LIMIT_MIB = 20
STREAM_LIMIT_BYTES = 1024 * 1024


async def run(endpoint: Endpoint, request: web.BaseRequest) -> web.Response:
    """POST /run: queue a job."""
    job = await _submit(endpoint, request, is_sync=False)
    return answer({"id": job.id, "status": "IN_QUEUE"})


async def runsync(endpoint: Endpoint, request: web.BaseRequest) -> web.Response:
    """POST /runsync?wait=ms: queue a job and hold until it ends; if the wait is over first, it goes on by itself."""
    hold_s = wait_s(request, default_ms=90_000)
    job = await _submit(endpoint, request, is_sync=True)
    await endpoint.until(job, lambda: job.status.is_final, hold_s)
    return answer(status_of(job))


async def _submit(endpoint: Endpoint, request: web.BaseRequest, *, is_sync: bool) -> Job:
    body = await read_body(request, limit_mib=RUNSYNC_LIMIT_MIB if is_sync else RUN_LIMIT_MIB)
    job = endpoint.submit(wire.submission(body), is_sync=is_sync)
    request[JOB_ID] = job.id
    return job


async def status(endpoint: Endpoint, request: web.BaseRequest, job_id: str) -> web.Response:
    """GET /status/{job}?ttl=ms: how the job stands; a *ttl* lets it live for so long from now, and no longer."""
    ttl_s = milliseconds(request, "ttl", TTL_MS)
    job = find(endpoint, job_id)
    if ttl_s is not None:
        endpoint.shorten(job, ttl_s)
    return answer(status_of(job))


async def status_sync(endpoint: Endpoint, request: web.BaseRequest, job_id: str) -> web.Response:
    """GET /status-sync/{job}?wait=ms: hold until the job ends or the wait is over, then as /status."""
    hold_s = wait_s(request, default_ms=90_000)
    job = find(endpoint, job_id)
    await endpoint.until(job, lambda: job.status.is_final, hold_s)
    return answer(status_of(find(endpoint, job_id)))


async def stream(endpoint: Endpoint, request: web.BaseRequest, job_id: str) -> web.Response:
    """GET /stream/{job}?wait=ms: take out the chunks since the last read, holding while there are none."""
    hold_s = wait_s(request, default_ms=10_000)
    job = find(endpoint, job_id)
    await endpoint.until(job, lambda: bool(job.chunks) or job.status.is_final, hold_s)
    find(endpoint, job_id)
    if request.transport is None or request.transport.is_closing():
        return answer({})  # nobody reads it: the chunks stay for the next who asks
    chunks = endpoint.jobs.drain(job_id, STREAM_LIMIT_BYTES)
    # With chunks left, a final status would end the reading of clients that stop at the first one they see.
    shown = "IN_PROGRESS" if job.chunks else job.status
    return answer({"status": shown, "stream": [wire.fragment(chunk) for chunk in chunks]})


async def cancel(endpoint: Endpoint, request: web.BaseRequest, job_id: str) -> web.Response:
    """POST /cancel/{job}: end an unfinished job; a finished one stays as it is."""
    job = find(endpoint, job_id)
    endpoint.cancel(job_id)
    return answer({"id": job.id, "status": job.status})


async def retry(endpoint: Endpoint, request: web.BaseRequest, job_id: str) -> web.Response:
    """POST /retry/{job}: queue a failed job again, under its id."""
    job = find(endpoint, job_id)
    if not endpoint.retry(job):
        raise bad_request(f"bad request: only FAILED and TIMED_OUT jobs can be retried, this one is {job.status}")
    return answer({"id": job.id, "status": "IN_QUEUE"})


async def purge_queue(endpoint: Endpoint, request: web.BaseRequest) -> web.Response:
    """POST /purge-queue: drop every queued job, whoever queued it."""
    return answer({"removed": endpoint.jobs.purge(), "status": "completed"})


async def health(endpoint: Endpoint, request: web.BaseRequest) -> web.Response:
    """GET /health: the counters of jobs and workers."""
    counts = endpoint.jobs.counts()
    workers = endpoint.crew.counts()
    return answer(
        {
            "jobs": {
                "completed": counts.completed,
                "failed": counts.failed,
                "inProgress": counts.in_progress,
                "inQueue": counts.in_queue,
                "retried": counts.retried,
            },
            "workers": {
                "idle": workers.idle,
                "initializing": workers.initializing,
                "ready": workers.idle,
                "running": workers.running,
                "throttled": workers.throttled,
                "unhealthy": workers.unhealthy,
            },
        }
    )


GET = frozenset({"GET"})
POST = frozenset({"POST"})

ROUTES = {
    "run": Route(POST, 0, run),
    "runsync": Route(POST, 0, runsync),
    "status": Route(GET | POST, 1, status),
    "status-sync": Route(GET | POST, 1, status_sync),
    "stream": Route(GET | POST, 1, stream),
    "cancel": Route(POST, 1, cancel),
    "retry": Route(POST, 1, retry),
    "purge-queue": Route(POST, 0, purge_queue),
    "health": Route(GET, 0, health),
}
