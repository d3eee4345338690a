"""The embedded local endpoint: RunPod's API on loopback, with workers of our own behind it."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import re
import secrets
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from runner.clock import Clock, SystemClock
from runner.errors import UsageError
from runner.local import broken
from runner.local.accepted import AcceptedLog
from runner.local.broken import HandlerError, Source
from runner.local.endpoint import Endpoint
from runner.local.environment import inherited, protocol
from runner.local.faults import Faults
from runner.local.gate import Gate
from runner.local.limits import RateLimits
from runner.local.pool import Pool, Setup
from runner.local.processes import MARK
from runner.local.routing import Routing
from runner.local.webhook import Webhooks, WebhookTerms

__all__ = ["HandlerError", "LocalServer", "Served"]

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_END_LIMIT_S = 3.5
_KILL_LIMIT_S = 1.0
_ANSWER_LIMIT_S = 0.5


@dataclass(frozen=True)
class Served:
    """
    One endpoint to serve: *name* is its endpoint id.

    Its *workers* run either *handler*, an absolute ``/path/file.py:function``, or *command*, a program and its
    arguments, started in *folder*. With neither, they are started by somebody else, with `LocalServer.variables`.
    *return_aggregate_stream* is for handlers, as in the SDK, but on by default: the output of a generator is the list
    of its yields.
    """

    name: str
    handler: str | None
    workers: int = 1
    return_aggregate_stream: bool = True
    command: Sequence[str] | None = None
    folder: Path | None = None


class LocalServer:
    """
    Serve endpoints at *base_url* while the ``async with`` block runs.

    Entering waits until each endpoint has one worker that imported its handler, not for the others. Leaving answers
    who still waits, ends all workers and everything they started, within 5 s, and removes their files.

    Args:
        served: The endpoints.
        token: What clients must send as ``Authorization: Bearer``. Workers never see it.
        host: A loopback address; others are refused, for everybody who reaches the port may run handlers.
        port: 0 takes any free one.
        log: Where to keep the log of accepted jobs (`AcceptedLog`), None for nowhere.
        hide_env: Names of environment variables that workers must not see, besides RUNPOD_API_KEY.
        on_output: Called in the event loop with worker id and line for what workers print; it must be quick.
        retention_s: How long results are kept; RunPod: 30 min.
        sync_retention_s: The same for /runsync; RunPod: 1 min.
        start_limit_s: How long a worker may take to import its handler. RunPod marks workers unhealthy after 7 min.
        grace_s: What a worker gets between SIGTERM and SIGKILL. A real one needs about a second to leave.
        stop_limit_s: How long a worker that listens to orders to stop one job may take to hear one, before it is ended:
            a plain function keeps a real worker from hearing anything.
        lease_s: How long a worker that others started may be silent about a job, before that is run again, or FAILED
            the second time. Real workers ping every 10 s; RunPod gives up on silent ones after 30 to 50 s.
        rate_limits: What clients are held to, None for nothing; `RateLimits()` is RunPod's table.
        faults: What goes wrong on purpose.
        webhooks: Where webhooks may be sent; by default to loopback addresses only.

    Raises, on entering:
        HandlerError: a handler can't be imported, or a command does not become a worker.
        UsageError: an endpoint, the host or the port can't be served.
    """

    def __init__(
        self,
        served: Sequence[Served],
        *,
        token: str,
        host: str = "127.0.0.1",
        port: int = 0,
        log: Path | None = None,
        hide_env: Collection[str] = (),
        on_output: Callable[[str, str], None] | None = None,
        retention_s: float = 1800.0,
        sync_retention_s: float = 60.0,
        start_limit_s: float = 420.0,
        grace_s: float = 2.0,
        stop_limit_s: float = 5.0,
        lease_s: float = 40.0,
        rate_limits: RateLimits | None = None,
        faults: Faults | None = None,
        webhooks: WebhookTerms | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.port = port
        self._served = _checked(served)
        self._host = _loopback(host)
        self._token = _checked_token(token)
        self._worker_key = secrets.token_urlsafe(24)
        self._mark = secrets.token_hex(8)
        self._log_path = log
        self._environment = inherited(hide_env, token)
        self._on_output = on_output
        self._retention_s = retention_s
        self._sync_retention_s = sync_retention_s
        self._start_limit_s = start_limit_s
        self._grace_s = grace_s
        self._stop_limit_s = stop_limit_s
        self._lease_s = lease_s
        self._rate_limits = rate_limits
        self._faults = faults or Faults()
        self._webhook_terms = webhooks or WebhookTerms()
        self._clock = clock or SystemClock()
        self._endpoints: dict[str, Endpoint] = {}
        self._gates: dict[str, Gate] = {}
        self._pools: list[Pool] = []
        self._group = asyncio.TaskGroup()
        self._files = contextlib.ExitStack()
        self._runner: web.ServerRunner | None = None
        self._webhooks: Webhooks | None = None

    @property
    def refused(self) -> dict[str, dict[str, int]]:
        """How many requests the rate limits refused, by endpoint and operation."""
        return {name: gate.refused for name, gate in self._gates.items()}

    def set_faults(self, faults: Faults) -> None:
        """Have *faults* from now on, drawn from the beginning; times go on counting from the server's start."""
        for gate in self._gates.values():
            gate.set_faults(faults)

    @property
    def base_url(self) -> str:
        """Where the endpoints are: ``{base_url}/{endpoint_id}/run`` and so on."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}/v2"

    def variables(self, name: str, worker_id: str) -> dict[str, str]:
        """
        What a worker of endpoint *name* finds us by: RunPod's own variables, nothing else.

        No two living workers may have the same *worker_id*.
        """
        url = f"{self.base_url}/{name}"
        return protocol(endpoint_url=url, endpoint=name, worker_id=worker_id, key=self._worker_key)

    def environment(self, name: str, worker_id: str, home: str) -> dict[str, str]:
        """
        The whole environment of a worker that is started here: `variables`, and ours without the user's secrets.

        *worker_id* must be new. *home* is a folder for that worker alone: the SDK would prefer a key in
        ``~/.runpod/config.toml`` to the one given here.
        """
        own = {"HOME": home, "RUNPOD_POD_HOSTNAME": worker_id, MARK: f"{self._mark}-{worker_id}"}
        return {**self._environment, **self.variables(name, worker_id), **own}

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        try:
            await self._start()
        except BaseException as error:
            await self._leave(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave(error)

    # Start and end.

    async def _start(self) -> None:
        log = None
        if self._log_path is not None:
            log = self._files.enter_context(AcceptedLog(self._log_path, self._clock))
        self._webhooks = Webhooks(self._group, self._webhook_terms, log, self._on_output)
        for served in self._served:
            endpoint = self._endpoints[served.name] = Endpoint(
                served.name,
                clock=self._clock,
                retention_s=self._retention_s,
                sync_retention_s=self._sync_retention_s,
                log=log,
                lease_s=self._lease_s,
                stop_limit_s=self._stop_limit_s,
                on_end=partial(self._webhooks.send, served.name),
            )
            self._gates[served.name] = Gate(
                endpoint, self._clock, limits=self._rate_limits, faults=self._faults, log=log
            )
        await self._listen()
        setups = [(served, setup) for served in self._served if (setup := self._setup(served)) is not None]
        self._pools = [Pool(self._endpoints[one.name], setup, workers=one.workers) for one, setup in setups]
        for pool in self._pools:
            pool.start(self._group)
        await self._first_workers()

    async def _listen(self) -> None:
        routing = Routing(self._gates, token=self._token, worker_key=self._worker_key)
        server = web.Server(
            routing.answer, handler_cancellation=True, access_log=None, auto_decompress=False, logger=_http_log()
        )
        fix = "choose another port, or 0 for any free one"
        if not 0 <= self.port <= 65535:  # uvloop would take another one
            raise UsageError(f"can't listen on {self._host} port {self.port}: ports go from 0 to 65535", fix=fix)
        self._runner = web.ServerRunner(server, shutdown_timeout=_ANSWER_LIMIT_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self.port).start()
        except OSError as error:
            # asyncio's own text names the address once more.
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise UsageError(f"can't listen on {self._host} port {self.port}: {reason}", fix=fix) from error
        self.port = self._runner.addresses[0][1]

    def _setup(self, served: Served) -> Setup | None:
        """How the workers of an endpoint are started, None if that is somebody else's business."""

        def environment(worker_id: str, home: str) -> dict[str, str]:
            # What a program prints through a pipe would come when it ends; our own worker sees to that by itself.
            early = {} if served.command is None else {"PYTHONUNBUFFERED": "1"}
            return early | self.environment(served.name, worker_id, home)

        if served.command is not None:
            source, command = Source.of_command(served.command), served.command
        elif served.handler is not None:
            aggregate = "--aggregate" if served.return_aggregate_stream else "--no-aggregate"
            source = Source.of_handler(served.handler)
            command = [sys.executable, "-P", "-m", "runner.local.worker", aggregate, served.handler]
        else:
            return None
        return Setup(source, command, environment, served.folder, self._grace_s, self._on_output)

    async def _first_workers(self) -> None:
        """Wait for the first worker of each endpoint; the first that fails is the error."""
        try:
            async with asyncio.timeout(self._start_limit_s):
                for started in asyncio.as_completed([pool.started for pool in self._pools]):
                    if (reason := await started) is not None:
                        raise reason
        except TimeoutError:
            slow = next(pool for pool in self._pools if not pool.started.done())
            raise broken.too_slow(slow.source, self._start_limit_s) from None

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await self._stop()
        finally:
            self._files.close()
            # The block's own error is not the group's: it must come out as it is, not in an ExceptionGroup. But a
            # cancellation must go through the group, since it may be the group's own.
            if isinstance(error, asyncio.CancelledError):
                await self._group.__aexit__(type(error), error, error.__traceback__)
            else:
                await self._group.__aexit__(None, None, None)

    async def _stop(self) -> None:
        """
        End everything, in an order in which nobody is left without an answer.

        The workers' end is ordered before held requests are answered, for a worker whose request is answered asks
        again at once. We listen to the last, and refuse: a connection that asyncio accepts while its server closes is
        never closed (Python 3.11), and workers may be connecting just now.
        """
        for pool in self._pools:
            pool.close()
        for endpoint in self._endpoints.values():
            endpoint.close()
        if self._pools:
            await self._ended()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._webhooks is not None:
            await self._webhooks.close()

    async def _ended(self) -> None:
        """Wait until all workers are gone, and kill those that are not in time."""
        for limit_s in (_END_LIMIT_S, _KILL_LIMIT_S):
            try:
                async with asyncio.timeout(limit_s):
                    await asyncio.gather(*(pool.ended.wait() for pool in self._pools))
                return
            except TimeoutError:
                for pool in self._pools:
                    pool.kill()
        for pool in self._pools:
            pool.abandon()


def _http_log() -> logging.Logger:
    """Where aiohttp tells of errors. What is no HTTP is told to who sent it, and to nobody else."""
    log = logging.getLogger("runner.local.http")
    if not log.filters:
        log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
    return log


def _checked_token(token: str) -> str:
    if len(token) < 8:
        raise UsageError("the local endpoint's token is too short", fix="use at least 8 characters")
    return token


def _checked(served: Sequence[Served]) -> Sequence[Served]:
    names = [one.name for one in served]
    for one in served:
        if not _NAME.fullmatch(one.name):
            raise UsageError(f"'{one.name}' can't be an endpoint id", fix="use letters, digits, '-' and '_' only")
        if names.count(one.name) > 1:
            raise UsageError(f"two endpoints are named '{one.name}'", fix="give each its own name")
        if one.handler is not None and one.command is not None:
            raise UsageError(f"endpoint '{one.name}' has a handler and a command", fix="give it one of the two")
        if one.workers < 1:
            raise UsageError(f"endpoint '{one.name}' needs at least 1 worker, found {one.workers}")
    return tuple(served)


def _loopback(host: str) -> str:
    """*host* as a loopback address; localhost is 127.0.0.1, since port 0 would give its two addresses two ports."""
    try:
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return "127.0.0.1" if host == "localhost" else host
    except ValueError:
        pass  # a name: it may resolve to anything
    fix = "use 127.0.0.1, and a tunnel such as 'ssh -L' to reach it from elsewhere"
    raise UsageError(f"'{host}' is not a loopback address, and the local endpoint serves this machine only", fix=fix)
