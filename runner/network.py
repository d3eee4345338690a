"""Open what reaches the endpoints of a job file: one HTTP session, an embedded server where one is wanted, clients."""

import logging
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Self

from runner import variables
from runner.check import JobFile
from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import UsageError
from runner.events import EMBEDDED, Destination
from runner.local.server import LocalServer, Served
from runner.pace import Pace
from runner.runpod import RunPod, open_session
from runner.secret import Masker, Secret
from runner.spec import LocalEndpoint, RateLimits, RemoteEndpoint

WIDTH = 200
"""Runs in flight on an endpoint whose ``concurrency`` is not set."""

workers_log = logging.getLogger("runner.workers")


def served(name: str, endpoint: LocalEndpoint, job_file: JobFile) -> Served:
    """The local *endpoint* of *job_file*, as the server takes it."""
    file, _, function = endpoint.handler.rpartition(":")
    return Served(
        name,
        f"{job_file.folder / file}:{function}",
        workers=endpoint.workers,
        return_aggregate_stream=endpoint.return_aggregate_stream,
    )


def secret_names(job_file: JobFile) -> list[str]:
    """The environment variables that hold the file's API keys: no worker may see them."""
    remote = [one for one in job_file.endpoints.values() if isinstance(one, RemoteEndpoint)]
    return sorted({name for one in remote for name in variables.names(one.api_key)})


class Network:
    """
    The way to the endpoints called *names*. Everything it opened is closed when the ``async with`` block ends.

    *local_url* is the base URL of a served local endpoint to use instead of an embedded one; *token_env* names the
    environment variable with its token.

    Raises, on entering:
        HandlerError: a handler can't be imported.
        UsageError: a key, a URL or an id can't be used.
    """

    def __init__(
        self, job_file: JobFile, names: Iterable[str], clock: Clock, *, local_url: str | None, token_env: str
    ) -> None:
        self.masker = Masker()
        self._job_file = job_file
        self._specs = {name: job_file.endpoints[name] for name in dict.fromkeys(names)}
        self._clock = clock
        self._local_url = local_url
        self._token_env = token_env
        self._stack = AsyncExitStack()
        self._token: Secret | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            local = {name: one for name, one in self._specs.items() if isinstance(one, LocalEndpoint)}
            if local and self._local_url is None:
                await self._embed(local, stack)
            elif local:
                self._token = self._served_token()
            self._session = await stack.enter_async_context(open_session())
            for name in secret_names(self._job_file):
                if os.environ.get(name):
                    self.masker.add(Secret(os.environ[name], name=f"${{{name}}}"))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._stack.aclose()

    @property
    def longest_window_s(self) -> float:
        """The longest window of any configured rate: how far back earlier submits count."""
        limits = [one.rate_limits for one in self._specs.values() if isinstance(one, RemoteEndpoint)]
        return max((one.run.period_s for one in [*limits, RateLimits()]), default=0.0)

    async def _embed(self, local: Mapping[str, LocalEndpoint], stack: AsyncExitStack) -> None:
        self._token = Secret(secrets.token_urlsafe(24), name="the embedded endpoint's token")
        self.masker.add(self._token)
        server = LocalServer(
            [served(name, one, self._job_file) for name, one in local.items()],
            token=self._token.reveal(),
            hide_env=secret_names(self._job_file),
            on_output=_log_output,
        )
        self._embedded = await stack.enter_async_context(server)

    def _served_token(self) -> Secret:
        value = os.environ.get(self._token_env)
        if not value:
            raise UsageError(
                f"--local needs the served endpoint's token, and the environment variable {self._token_env} is not set",
                fix=f"export {self._token_env}=… as 'runner serve' prints it, or name another with --token-env",
            )
        token = Secret(value, name=f"${{{self._token_env}}}")
        self.masker.add(token)
        return token

    def endpoints(self, past: Mapping[str, list[float]]) -> dict[str, LiveEndpoint]:
        """A live endpoint for each name. *past* are times (monotonic) of recent submits to each."""
        return {name: self._live(name, self._destination(name), past.get(name, [])) for name in self._specs}

    def elsewhere(
        self, destinations: Iterable[Destination], now: Mapping[str, LiveEndpoint]
    ) -> dict[Destination, LiveEndpoint]:
        """A live endpoint for each place that jobs were sent to, and that the job file no longer speaks of."""
        known = {one.destination for one in now.values()}
        return {one: self._live(one.name, one, []) for one in destinations if one not in known}

    def _destination(self, name: str) -> Destination:
        spec = self._specs[name]
        if isinstance(spec, LocalEndpoint):
            return Destination(name, self._local_url or EMBEDDED, name)
        return Destination(name, variables.resolve(spec.base_url, os.environ), variables.resolve(spec.id, os.environ))

    def _live(self, name: str, to: Destination, past: list[float]) -> LiveEndpoint:
        spec = self._specs[name]
        if isinstance(spec, LocalEndpoint):
            assert self._token is not None, "a local endpoint has a token"
            key, limits = self._token, RateLimits()
        else:
            key = Secret(variables.resolve(spec.api_key, os.environ), name=spec.api_key)
            limits = spec.rate_limits
        url = self._embedded.base_url if to.base_url == EMBEDDED else to.base_url
        client = RunPod(self._session, base_url=url, endpoint_id=to.endpoint_id, api_key=key)
        rates = {bucket: getattr(limits, bucket) for bucket in RateLimits.model_fields}
        return LiveEndpoint(to, client, Pace(rates, {"run": past}), self._clock, concurrency=spec.concurrency or WIDTH)


def _log_output(worker_id: str, text: str) -> None:
    workers_log.info(text, extra={"worker_id": worker_id})
