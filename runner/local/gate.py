"""Let each request of a client through: rate limits, then faults, then the operation itself; all of it noted."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aiohttp import web

from runner.clock import Clock
from runner.errors import UsageError
from runner.local import fault_text, spoil, wire
from runner.local.accepted import AcceptedLog
from runner.local.answers import FAULT, JOB_ID, Refusal, Route, bad_request
from runner.local.endpoint import Endpoint
from runner.local.faults import ALWAYS, Draws, Fault, Faults
from runner.local.limits import Meter, RateLimits


class Gate:
    """
    The clients' way to one endpoint.

    *limits* None: none are kept. *log* None: nothing is noted.
    """

    def __init__(
        self, endpoint: Endpoint, clock: Clock, *, limits: RateLimits | None, faults: Faults, log: AcceptedLog | None
    ) -> None:
        self.endpoint = endpoint
        self._clock = clock
        self._meter = Meter(limits or RateLimits(table={}))
        self._log = log
        self._opened_at = clock.monotonic()
        self.set_faults(faults)

    @property
    def refused(self) -> dict[str, int]:
        """How many requests the rate limits refused, by operation; operations without a refusal are left out."""
        return dict(self._meter.refused)

    def set_faults(self, faults: Faults) -> None:
        """Have *faults* from now on, drawn from the beginning; times go on counting from the server's start."""
        self._faults = faults
        self._draws = Draws(self.endpoint.name, faults.faults, faults.seed)
        self.endpoint.set_conditions(faults.conditions, seed=faults.seed)

    async def carry(
        self, operation: str, route: Route, request: web.BaseRequest, arguments: Sequence[str]
    ) -> web.StreamResponse:
        """Carry one request through, to its answer."""
        fault: Fault | None = None
        carried: web.Response | None = None
        try:
            with self._admitted(operation):
                fault = self._fault(operation, request, arguments)
                instead = None if fault is None else spoil.instead(fault, request, self._clock.now())
                if instead is not None:
                    return instead
                if fault is not None:
                    request[FAULT] = fault
                carried = await _carried(self.endpoint, route, request, arguments)
        except Refusal as refusal:
            carried = refusal.answer()
        finally:
            if self._log is not None:
                self._log.asked(
                    self.endpoint.name,
                    operation,
                    arguments[0] if arguments else request.get(JOB_ID),
                    status=None if carried is None else carried.status,
                    fault=None if fault is None else fault.kind,
                    client=request.headers.get("User-Agent", ""),
                )
        return carried if fault is None else await spoil.afterwards(fault, request, carried)

    @contextmanager
    def _admitted(self, operation: str) -> Iterator[None]:
        wait_s = self._meter.admit(operation, self._clock.monotonic())
        if wait_s is not None:
            headers = {"Retry-After": str(max(1, math.ceil(wait_s)))} if self._meter.says_when else None
            raise Refusal(429, {"error": f"rate limit exceeded: too many requests to /{operation}"}, headers=headers)
        try:
            yield
        finally:
            self._meter.leave(operation)

    def _fault(self, operation: str, request: web.BaseRequest, arguments: Sequence[str]) -> Fault | None:
        """The fault of this request: what it asks for itself, where it may, else what is drawn."""
        asked = request.headers.get(fault_text.HEADER) if self._faults.by_header else None
        if asked is None:
            return self._drawn(operation, arguments)
        try:
            fault = fault_text.fault(asked)
        except UsageError as error:
            raise bad_request(f"bad request: header: {fault_text.HEADER}: {error.message}") from error
        message = None
        if not fault.concerns(operation):
            message = f"{fault.kind} can't happen to this operation"
        elif fault.often != ALWAYS:
            message = "it is for one request, so it can't say how often"
        if message is not None:
            raise bad_request(f"bad request: header: {fault_text.HEADER}: {message}")
        return fault

    def _drawn(self, operation: str, arguments: Sequence[str]) -> Fault | None:
        if not self._faults.faults:
            return None
        now = self._clock.monotonic()
        job_age_s = self.endpoint.age_s(arguments[0]) if arguments else None
        return self._draws.draw(operation, age_s=now - self._opened_at, job_age_s=job_age_s)


async def _carried(
    endpoint: Endpoint, route: Route, request: web.BaseRequest, arguments: Sequence[str]
) -> web.Response:
    """The answer of the operation, refusals included."""
    try:
        response = await route.handle(endpoint, request, *arguments)
    except Refusal as refusal:
        return refusal.answer()
    except wire.BadBody as error:
        return bad_request(str(error)).answer()
    assert isinstance(response, web.Response), "what clients ask for is answered in one piece"
    return response
