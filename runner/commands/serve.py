"""``runner serve``: the local endpoints of a job file, or one handler, by themselves."""

import asyncio
import os
import re
import secrets
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from runner import runtime
from runner.check import open_job_file
from runner.errors import EXIT_PASS, UsageError
from runner.handlers import handler_problem
from runner.local import fault_text
from runner.local.limits import RateLimits
from runner.local.server import LocalServer, Served
from runner.network import hidden_names, served
from runner.plain import plain
from runner.spec import LocalEndpoint

TOKEN_ENV = "RUNNER_LOCAL_TOKEN"
"""Where 'runner run --local' looks for the token by itself."""


@dataclass(frozen=True)
class Where:
    """Where to serve, and what to keep: *token_env* names a variable with the token; None makes a new one."""

    host: str = "127.0.0.1"
    port: int = 0
    token_env: str | None = None
    log: Path | None = None


@dataclass(frozen=True)
class Manner:
    """
    How clients are treated: *faults* as people write them, which of them clients may ask for by header, RunPod's rate
    limits or none, and how long results are kept (those of /runsync a minute at most).
    """

    faults: tuple[str, ...] = ()
    seed: int = 0
    fault_header: bool = False
    rate_limits: bool = False
    retention_s: float = 1800.0


@dataclass(frozen=True)
class _Offer:
    """What is served: *source* is what it was made of; *hidden* names variables that no worker may see."""

    source: str
    served: list[Served]
    hidden: list[str]
    job_file: Path | None


def serve(
    what: Path,
    where: Where,
    manner: Manner,
    *,
    profile: str | None = None,
    out: TextIO = sys.stdout,
    err: TextIO = sys.stderr,
) -> int:
    """
    Serve every local endpoint of the job file *what*, as *profile* has it, under its name, until a signal comes.

    A handler, ``PATH.py`` or ``PATH.py:function``, is served as it is, under the name of its file.

    Raises:
        UsageError: nothing can be served: no local endpoint, a handler that can't be imported, a port in use; or one of
            the faults is none.
    """
    offer = _handler(str(what))
    if offer is not None and profile is not None:
        raise UsageError(f"a profile is part of a job file, and {what} is a handler", fix="leave --profile out")
    return runtime.run(_serve(offer or _file(what, profile), where, manner, out, err))


def _file(path: Path, profile: str | None) -> _Offer:
    job_file = open_job_file(path, profile=profile)
    local = [served(n, one, job_file) for n, one in job_file.endpoints.items() if isinstance(one, LocalEndpoint)]
    if not local:
        fix = "give an endpoint a 'handler' or a 'command', or make it 'external: true'"
        raise UsageError(f"{path} has no local endpoint to serve", fix=fix)
    return _Offer(job_file.name, local, hidden_names(job_file), path)


def _handler(what: str) -> _Offer | None:
    """The one handler that *what* names, None when it names a job file."""
    match = re.fullmatch(r"(?P<file>.+\.py)(:(?P<function>[^/]*))?", what)
    if match is None:
        return None
    file, function = match["file"], match["function"] or "handler"
    if not Path(file).is_file():
        raise UsageError(f"there is no file '{file}'")
    trouble = handler_problem(Path(), f"{file}:{function}")
    if trouble is not None:
        raise UsageError(trouble[0], fix=trouble[1])
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(file).stem).strip("-") or "handler"
    return _Offer(f"{file}:{function}", [Served(name, f"{Path(file).absolute()}:{function}")], [], None)


async def _serve(offer: _Offer, where: Where, manner: Manner, out: TextIO, err: TextIO) -> int:
    token = _token(where.token_env)

    def tell(worker_id: str, text: str) -> None:
        print(f"[{worker_id}] {plain(text)}", file=err, flush=True)

    hidden = [*offer.hidden, *([where.token_env] if where.token_env else [])]
    server = LocalServer(
        offer.served,
        token=token,
        host=where.host,
        port=where.port,
        log=where.log,
        hide_env=hidden,
        on_output=tell,
        retention_s=manner.retention_s,
        sync_retention_s=min(manner.retention_s, 60.0),
        rate_limits=RateLimits() if manner.rate_limits else None,
        faults=fault_text.faults(manner.faults, seed=manner.seed, by_header=manner.fault_header),
    )
    loop = asyncio.get_running_loop()
    try:
        # A signal ends the block also while workers start, which may take minutes.
        async with asyncio.timeout(None) as life:

            def stop() -> None:
                if life.when() is None:
                    life.reschedule(loop.time())

            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, stop)
            async with server:
                lines = [*_introduction(server, offer, where.token_env, token), *_manner(manner)]
                print("\n".join(lines), file=out, flush=True)
                await asyncio.Event().wait()
    except TimeoutError:
        if not life.expired():
            raise
    if manner.rate_limits:
        print(_refused(server), file=err, flush=True)
    return EXIT_PASS


def _token(env: str | None) -> str:
    if env is None:
        return secrets.token_urlsafe(24)
    token = os.environ.get(env)
    if not token:
        raise UsageError(f"the environment variable {env} is not set", fix=f"export {env}=…, or leave --token-env out")
    return token


def _introduction(server: LocalServer, offer: _Offer, env: str | None, token: str) -> list[str]:
    """How to reach it. A token that we made is shown, for nobody else knows it; the user's own is not."""
    names = [one.name for one in offer.served]
    lines = [f"serving {', '.join(names)} of {offer.source} at {server.base_url}"]
    if env is None:
        lines.append(f"export {TOKEN_ENV}={token}")
    if offer.job_file is not None:
        option = "" if env is None else f" --token-env {env}"
        lines.append(f"runner run {offer.job_file} --local {server.base_url}{option}")
    lines.append(
        f'curl {server.base_url}/{names[0]}/run -H "Authorization: Bearer ${env or TOKEN_ENV}"'
        """ -H 'Content-Type: application/json' -d '{"input": {"hello": "world"}}'"""
    )
    for one in offer.served:
        if one.handler is None and one.command is None:
            lines += ["", *_for_a_worker(server.variables(one.name, "NEW"), one.name)]
    return lines


def _manner(manner: Manner) -> list[str]:
    """What else clients should know."""
    lines = []
    if manner.rate_limits:
        lines.append("# RunPod's rate limits are kept")
    if manner.faults:
        lines.append(f"# a bad day, seed {manner.seed}: {plain(' '.join(manner.faults))}")
    if manner.fault_header:
        lines.append(f"# a request may ask for a fault: -H '{fault_text.HEADER}: 502'")
    return ["", *lines] if lines else []


def _refused(server: LocalServer) -> str:
    """What the rate limits refused, until now."""
    counts = [
        f"{count} of /{name}/{operation}"
        for name, refused in server.refused.items()
        for operation, count in sorted(refused.items())
    ]
    return f"refused by the rate limits: {', '.join(counts) or 'nothing'}"


def _for_a_worker(variables: dict[str, str], name: str) -> list[str]:
    """What to type for a worker that is started by hand. Quoted, for it is the worker that replaces ``$ID``."""
    fixed = {key: value for key, value in variables.items() if key != "RUNPOD_POD_ID"}
    docker = " ".join(f"-e {key}" for key in variables)
    return [
        f"# a worker of {name}: paste this into the shell that starts it, once for each, then start it",
        *(f"export {key}='{value}'" for key, value in fixed.items()),
        f'export RUNPOD_POD_ID="{name}-$$-$(date +%s)"  # no two may have the same',
        f"# in Docker, from that shell: docker run --rm --network host {docker} IMAGE",
    ]
