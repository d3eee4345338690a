"""Make the answer to one request go wrong, as it was decided. The one place where faults are applied."""

import asyncio
import math
import socket
import struct
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from aiohttp import web

from runner.local import wire
from runner.local.answers import answer
from runner.local.faults import Fault, Kind

PIECES = 16
"""So many pieces make a slow answer."""

_NO_LINGER = struct.pack("ii", 1, 0)

_AFTER = {
    Kind.INTERNAL_AFTER: Kind.INTERNAL,
    Kind.BAD_GATEWAY_AFTER: Kind.BAD_GATEWAY,
    Kind.UNAVAILABLE_AFTER: Kind.UNAVAILABLE,
    Kind.GATEWAY_TIMEOUT_AFTER: Kind.GATEWAY_TIMEOUT,
    Kind.RESET_AFTER: Kind.RESET_BEFORE,
}
"""What is the same to who asked, though here the operation was carried out."""


def instead(fault: Fault, request: web.BaseRequest, now: float) -> web.Response | None:
    """The answer instead of carrying out the operation; None if it is to be carried out. *now* is UTC."""
    if fault.kind is Kind.RESET_BEFORE:
        return _reset(request)
    refusal = _REFUSALS.get(fault.kind)
    if refusal is None:
        return None
    response = refusal()
    if fault.retry_after_s is not None:
        at = formatdate(now + fault.retry_after_s, usegmt=True)
        response.headers["Retry-After"] = at if fault.as_date else str(math.ceil(fault.retry_after_s))
    return response


async def afterwards(fault: Fault, request: web.BaseRequest, response: web.Response) -> web.StreamResponse:
    """*response*, the answer of an operation that was carried out, gone wrong."""
    if fault.kind in _AFTER:
        kind = _AFTER[fault.kind]
        return _reset(request) if kind is Kind.RESET_BEFORE else _REFUSALS[kind]()
    if fault.kind is Kind.SLOW:
        return await _slow(request, response, fault.over_s)
    if fault.kind is Kind.CUT:
        return await _cut(request, response)
    if fault.kind is Kind.WRONG_TYPE:
        return web.Response(body=response.body, status=response.status, content_type="text/html")
    if fault.kind is Kind.HTML:
        return _page(HTTPStatus.OK)
    return _altered(fault, response)


def _altered(fault: Fault, response: web.Response) -> web.Response:
    """The JSON of an answer, with something else in it."""
    value = wire.parse(_body(response))
    if not isinstance(value, dict):
        return response
    if fault.kind is Kind.UNKNOWN_STATUS and "status" in value and response.status == HTTPStatus.OK:
        return answer(value | {"status": fault.shown})
    chunks: list[Any] = value.get("stream") or []
    if chunks and fault.kind is Kind.DUPLICATE_CHUNK:
        return answer(value | {"stream": [*chunks, chunks[-1]]})
    if chunks and fault.kind is Kind.LOST_CHUNK:
        return answer(value | {"stream": chunks[:-1]})
    return response


async def _slow(request: web.BaseRequest, response: web.Response, over_s: float) -> web.StreamResponse:
    body = _body(response)
    slow = _headed(response, body)
    await slow.prepare(request)
    size = max(1, math.ceil(len(body) / PIECES))
    for start in range(0, len(body), size):
        await asyncio.sleep(over_s / PIECES)
        await slow.write(body[start : start + size])
    return slow


async def _cut(request: web.BaseRequest, response: web.Response) -> web.StreamResponse:
    body = _body(response)
    cut = _headed(response, body)
    cut.force_close()
    await cut.prepare(request)
    await cut.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return cut


def _headed(response: web.Response, body: bytes) -> web.StreamResponse:
    """An answer with the head of *response*, whose body is yet to be written."""
    headed = web.StreamResponse(status=response.status, headers={"Content-Type": response.headers["Content-Type"]})
    headed.content_length = len(body)
    return headed


def _body(response: web.Response) -> bytes:
    body = response.body
    assert isinstance(body, bytes), "every operation answers with bytes"
    return body


def _reset(request: web.BaseRequest) -> web.Response:
    """Reset the connection; the answer that is returned reaches nobody."""
    transport = request.transport
    if transport is not None:
        # Without lingering, what the other side sees is a reset, not an end.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()
    return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR)


def _page(status: HTTPStatus) -> web.Response:
    """A page as the real API's edge serves it."""
    title = f"{status.value} {status.phrase}"
    text = f"<html><head><title>{title}</title></head><body><h1>{title}</h1><hr>cloudflare</body></html>"
    return web.Response(text=text, status=status, content_type="text/html")


_REFUSALS: dict[Kind, Callable[[], web.Response]] = {
    Kind.TOO_MANY: lambda: answer({"error": "too many requests"}, status=429),
    Kind.INTERNAL: lambda: answer({"error": "internal server error"}, status=500),
    Kind.BAD_GATEWAY: lambda: _page(HTTPStatus.BAD_GATEWAY),
    Kind.UNAVAILABLE: lambda: web.Response(text="no healthy upstream", status=503),
    Kind.GATEWAY_TIMEOUT: lambda: _page(HTTPStatus.GATEWAY_TIMEOUT),
    Kind.PAUSED: lambda: answer(
        {
            "status": 409,
            "title": "Conflict",
            "code": "ENDPOINT_PAUSED",
            "detail": "Endpoint is paused (max_workers=0). Set max_workers > 0 to accept work.",
        },
        status=409,
    ),
    Kind.NOT_FOUND: lambda: answer({"detail": "job not found"}, status=404),
}
