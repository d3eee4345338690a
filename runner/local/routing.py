"""Bring each request to its operation: who may, which endpoint, which method; and every refusal back as JSON."""

import asyncio
import hmac
from collections.abc import Mapping, Sequence

from aiohttp import web

from runner.local import batch_api, client_api, wire, worker_api
from runner.local.answers import Refusal, Route, bad_request
from runner.local.gate import Gate

HANG_UP = 499
"""Stands for an answer that nobody reads; the number is nginx's."""


class Routing:
    """
    Answer requests to ``/v2/{endpoint}/{operation}/{arguments}``.

    Clients send *token* with ``Bearer`` before it, as RunPod's SDKs do, or bare, as its documentation's curl does;
    workers send *worker_key* bare.
    """

    def __init__(self, gates: Mapping[str, Gate], *, token: str, worker_key: str) -> None:
        self._gates = gates
        self._client_authorizations = (f"Bearer {token}".encode(), token.encode())
        self._worker_authorizations = (worker_key.encode(),)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Carry out one request. What is wrong with it becomes its answer; only our own bugs are raised."""
        try:
            return await self._dispatch(request)
        except Refusal as refusal:
            return refusal.answer()
        except wire.BadBody as error:
            return bad_request(str(error)).answer()
        except ConnectionError:
            return web.Response(status=HANG_UP)  # to nobody: who asked hung up while the answer was written

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        segments = request.path.split("/")
        operation = segments[3] if len(segments) > 3 else ""
        worker_route = worker_api.ROUTES.get(operation)
        if operation in worker_api.POLLED and not _is_admitted(request, self._worker_authorizations):
            # A worker that an earlier server gave its key to: a real one asks again at once, for ever.
            await asyncio.sleep(worker_api.REFUSAL_HOLD_S)
        _admit(request, self._client_authorizations if worker_route is None else self._worker_authorizations)
        gate = self._gates.get(segments[2]) if len(segments) > 3 and segments[1] == "v2" else None
        if gate is None:
            raise Refusal(404, {"detail": "endpoint not found"})
        arguments = segments[4:]
        if operation == "batch":
            operation, arguments = batch_api.operation(request.method, arguments)
            route: Route | None = batch_api.ROUTES[operation]
        else:
            route = worker_route or client_api.ROUTES.get(operation)
        if route is None or len(arguments) != route.arguments:
            raise Refusal(404, {"detail": "operation not found"})
        if gate.endpoint.closing and worker_route is None:
            raise Refusal(503, {"error": "the local endpoint is stopping"})
        route = _checked_method(route, request)
        if worker_route is not None:
            return await route.handle(gate.endpoint, request, *arguments)
        return await gate.carry(operation, route, request, arguments)


def _is_admitted(request: web.BaseRequest, expected: Sequence[bytes]) -> bool:
    given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
    return any(hmac.compare_digest(given, one) for one in expected)


def _admit(request: web.BaseRequest, expected: Sequence[bytes]) -> None:
    if not _is_admitted(request, expected):
        raise Refusal(401, {"error": "unauthorized"}, headers={"WWW-Authenticate": "Bearer"})


def _checked_method(route: Route, request: web.BaseRequest) -> Route:
    if request.method not in route.methods:
        headers = {"Allow": ", ".join(sorted(route.methods))}
        raise Refusal(405, {"detail": "method not allowed"}, headers=headers)
    return route
