"""Open what reaches the endpoints of a job file: one HTTP session, an embedded server where one is wanted, clients."""

import logging
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from runner import startup, variables
from runner.check import JobFile
from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import UsageError
from runner.events import EMBEDDED, Destination
from runner.layers import secret_texts
from runner.pace import Pace
from runner.runpod import RunPod, open_session
from runner.secret import Masker, Secret
from runner.spec import Endpoint, LocalEndpoint, RateLimits, RemoteEndpoint

if TYPE_CHECKING:
    from runner.local.server import Served  # a sixth of what importing this would take, and most need no server

workers_log = logging.getLogger("runner.workers")

# A command without a log of its own says by itself what is worth saying: it must not appear on stderr a second time.
logging.getLogger("runner").addHandler(logging.NullHandler())


def served(name: str, endpoint: LocalEndpoint, job_file: JobFile) -> "Served":
    """The local *endpoint* of *job_file*, as the server takes it."""
    from runner.local.server import Served

    if endpoint.command is not None:
        command = startup.words(endpoint.command, os.environ)
        return Served(name, None, workers=endpoint.workers, command=command, folder=job_file.folder)
    if endpoint.handler is None:
        return Served(name, None)
    file, _, function = endpoint.handler.rpartition(":")
    return Served(
        name,
        f"{job_file.folder / file}:{function}",
        workers=endpoint.workers,
        return_aggregate_stream=endpoint.return_aggregate_stream,
    )


def secret_names(job_file: JobFile) -> list[str]:
    """The environment variables that hold the file's API keys."""
    remote = [one for one in job_file.endpoints.values() if isinstance(one, RemoteEndpoint)]
    return sorted({name for one in remote for name in variables.names(one.api_key)})


def _sounding(job_file: JobFile) -> list[str]:
    """The environment variables of endpoints that hold secrets by their names, as a token in a worker's command."""
    texts = []
    for one in job_file.endpoints.values():
        texts += [one.command or ""] if isinstance(one, LocalEndpoint) else [one.id, one.base_url]
    return [name for text in texts for name in variables.names(text) if variables.sounds_secret(name)]


def hidden_names(job_file: JobFile) -> list[str]:
    """
    The environment variables that no worker may see: keys, webhooks, and secrets that jobs carry themselves; those of
    profiles that are not chosen, too.
    """
    jobs = job_file.jobs.values()
    texts = [one.webhook for one in jobs if one.webhook is not None]
    texts += [one.s3_config.access_secret for one in jobs if one.s3_config is not None]
    texts += secret_texts({key: job_file.document.value.get(key) for key in ("endpoints", "defaults", "profiles")})
    return sorted({*secret_names(job_file), *(name for text in texts for name in variables.names(text))})


class Network:
    """
    The way to the endpoints called *names*. Everything it opened is closed when the ``async with`` block ends.

    *local_url* is the base URL of a served local endpoint to use instead of an embedded one; *token_env* names the
    environment variable with its token.

    Raises, on entering:
        HandlerError: a handler can't be imported, or a command does not become a worker.
        UsageError: a key, a URL or an id can't be used; or an external endpoint is to be embedded.
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
                self._refuse_external(local)
                await self._embed(local, stack)
            elif local:
                self._token = self._served_token()
            self._session = await stack.enter_async_context(open_session())
            for name in (*secret_names(self._job_file), *_sounding(self._job_file)):
                if os.environ.get(name):
                    self.masker.add(Secret(os.environ[name], name=f"${{{name}}}"))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._stack.aclose()

    @property
    def longest_window_s(self) -> float:
        """The longest window of any rate of submits: how far back earlier ones count."""
        limits = [one.rate_limits for one in self._specs.values() if isinstance(one, RemoteEndpoint)]
        rates = [rate for one in [*limits, RateLimits.left_out()] for rate in (one.run, one.runsync)]
        return max(rate.period_s for rate in rates)

    async def _embed(self, local: Mapping[str, LocalEndpoint], stack: AsyncExitStack) -> None:
        self._token = Secret(secrets.token_urlsafe(24), name="the embedded endpoint's token")
        self.masker.add(self._token)
        from runner.local.server import LocalServer

        server = LocalServer(
            [served(name, one, self._job_file) for name, one in local.items()],
            token=self._token.reveal(),
            hide_env=hidden_names(self._job_file),
            on_output=_log_output,
        )
        self._embedded = await stack.enter_async_context(server)

    def _refuse_external(self, local: Mapping[str, LocalEndpoint]) -> None:
        for name, endpoint in local.items():
            if endpoint.external:
                file = self._job_file.document.file
                raise UsageError(
                    f"endpoint '{name}' is external: its workers are yours to start, so it must be served first",
                    fix=f"runner serve {file}, start a worker as it says, then runner run {file} --local URL",
                )

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

    @property
    def destinations(self) -> dict[str, Destination]:
        """Where each endpoint leads, by its name."""
        return {name: self._destination(name) for name in self._specs}

    def endpoints(self, past: Mapping[str, list[float]]) -> dict[str, LiveEndpoint]:
        """A live endpoint for each name. *past* are times (monotonic) of recent submits to each."""
        return {
            name: self._live(spec, self._destination(name), past.get(name, [])) for name, spec in self._specs.items()
        }

    def elsewhere(
        self,
        destinations: Iterable[Destination],
        before: Iterable[tuple[str, Endpoint]],
    ) -> dict[Destination, LiveEndpoint]:
        """
        A live endpoint for each of *destinations*, where jobs were sent to, and which the job file no longer speaks of.

        *before* are the endpoints of the batch until now, by name: what was sent by one of them goes by its key.

        Raises:
            UsageError: a variable or a token that one of them needs is not set.
        """
        specs = [*before, *self._specs.items()]
        return {one: self._live(_sent_by(one, specs), one, []) for one in destinations}

    def _destination(self, name: str) -> Destination:
        spec = self._specs[name]
        if isinstance(spec, LocalEndpoint):
            return Destination(name, self._local_url or EMBEDDED, name)
        return Destination(name, variables.resolve(spec.base_url, os.environ), variables.resolve(spec.id, os.environ))

    def _live(self, spec: Endpoint, to: Destination, past: list[float]) -> LiveEndpoint:
        if isinstance(spec, LocalEndpoint):
            self._token = self._token or self._served_token()
            key, limits = self._token, RateLimits()
        else:
            key = Secret(variables.resolve(spec.api_key, os.environ), name=spec.api_key)
            limits = spec.rate_limits
        url = self._embedded.base_url if to.base_url == EMBEDDED else to.base_url
        client = RunPod(self._session, base_url=url, endpoint_id=to.endpoint_id, api_key=key, masker=self.masker)
        shard = self._job_file.shard
        rates = {bucket: shard.rate(getattr(limits, bucket)) for bucket in RateLimits.model_fields}
        # Nobody wrote down by which of the two a submit went, so each counts it.
        pace = Pace(rates, {"run": past, "runsync": past})
        return LiveEndpoint(to, client, pace, self._clock, concurrency=spec.concurrency, shard=shard)


def _sent_by(to: Destination, specs: Iterable[tuple[str, Endpoint]]) -> Endpoint:
    """The endpoint of *specs* that leads to *to*; the last of its name where none does any more."""
    named = [spec for name, spec in specs if name == to.name]
    return next((spec for spec in named if _leads_to(spec, to)), named[-1])


def _leads_to(spec: Endpoint, to: Destination) -> bool:
    if isinstance(spec, LocalEndpoint):
        return to.endpoint_id == to.name
    parts = (spec.base_url, spec.id)
    if any(variables.unset(part, os.environ) for part in parts):
        return False
    return (to.base_url, to.endpoint_id) == tuple(variables.resolve(part, os.environ) for part in parts)


def _log_output(worker_id: str, text: str) -> None:
    workers_log.info(text, extra={"worker_id": worker_id})
