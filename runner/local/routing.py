"""Bring each request to its operation: who may, which endpoint, which method; and every refusal back as JSON."""

import hmac
from collections.abc import Mapping

from aiohttp import web

from runner.local import client_api, wire, worker_api
from runner.local.answers import Refusal, Route, answer
from runner.local.endpoint import Endpoint


class Routing:
    """
    Answer requests to ``/v2/{endpoint}/{operation}/{arguments}``.

    *authorization* and *worker_authorization* are the whole header that clients and workers must send: RunPod's
    clients say ``Bearer``, its workers send the bare key.
    """

    def __init__(self, endpoints: Mapping[str, Endpoint], *, authorization: str, worker_authorization: str) -> None:
        self._endpoints = endpoints
        self._authorization = authorization.encode()
        self._worker_authorization = worker_authorization.encode()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Carry out one request. What is wrong with it becomes its answer; only our own bugs are raised."""
        try:
            return await self._dispatch(request)
        except Refusal as refusal:
            return answer(refusal.body, status=refusal.status, headers=refusal.headers)
        except wire.BadBody as error:
            return answer({"error": str(error)}, status=400)

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        segments = request.path.split("/")
        operation = segments[3] if len(segments) > 3 else ""
        worker_route = worker_api.ROUTES.get(operation)
        self._admit(request, self._authorization if worker_route is None else self._worker_authorization)
        endpoint = self._endpoints.get(segments[2]) if len(segments) > 3 and segments[1] == "v2" else None
        if endpoint is None:
            raise Refusal(404, {"detail": "endpoint not found"})
        route = worker_route or client_api.ROUTES.get(operation)
        arguments = segments[4:]
        if route is None or len(arguments) != route.arguments:
            raise Refusal(404, {"detail": "operation not found"})
        if endpoint.closing:
            raise Refusal(503, {"error": "the local endpoint is stopping"})
        return await _checked_method(route, request).handle(endpoint, request, *arguments)

    def _admit(self, request: web.BaseRequest, expected: bytes) -> None:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if not hmac.compare_digest(given, expected):
            raise Refusal(401, {"error": "unauthorized"}, headers={"WWW-Authenticate": "Bearer"})


def _checked_method(route: Route, request: web.BaseRequest) -> Route:
    if request.method not in route.methods:
        headers = {"Allow": ", ".join(sorted(route.methods))}
        raise Refusal(405, {"detail": "method not allowed"}, headers=headers)
    return route
