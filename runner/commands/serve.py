"""``runner serve``: the local endpoints of a job file, by themselves."""

import asyncio
import os
import secrets
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from runner.check import JobFile, open_job_file
from runner.errors import EXIT_PASS, UsageError
from runner.local.server import LocalServer, Served
from runner.network import secret_names, served
from runner.plain import plain
from runner.spec import LocalEndpoint


@dataclass(frozen=True)
class Where:
    """Where to serve, and what to keep: *token_env* names a variable with the token; None makes a new one."""

    host: str = "127.0.0.1"
    port: int = 0
    token_env: str | None = None
    log: Path | None = None


def serve(path: Path, where: Where, *, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> int:
    """
    Serve every local endpoint of the job file at *path*, under its name, until a signal comes.

    Raises:
        UsageError: nothing can be served: no local endpoint, a handler that can't be imported, a port in use.
    """
    return asyncio.run(_serve(path, where, out, err))


async def _serve(path: Path, where: Where, out: TextIO, err: TextIO) -> int:
    job_file = open_job_file(path)
    local = [served(n, one, job_file) for n, one in job_file.endpoints.items() if isinstance(one, LocalEndpoint)]
    if not local:
        raise UsageError(f"{path} has no local endpoint to serve", fix="give an endpoint a 'handler'")
    token = _token(where.token_env)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)

    def tell(worker_id: str, text: str) -> None:
        print(f"[{worker_id}] {plain(text)}", file=err, flush=True)

    hidden = [*secret_names(job_file), *([where.token_env] if where.token_env else [])]
    server = LocalServer(
        local, token=token, host=where.host, port=where.port, log=where.log, hide_env=hidden, on_output=tell
    )
    async with server:
        _introduce(server, job_file, local, path, where.token_env, token, out)
        await stopped.wait()
    return EXIT_PASS


def _token(env: str | None) -> str:
    if env is None:
        return secrets.token_urlsafe(24)
    token = os.environ.get(env)
    if not token:
        raise UsageError(f"the environment variable {env} is not set", fix=f"export {env}=…, or leave --token-env out")
    return token


def _introduce(
    server: LocalServer, job_file: JobFile, local: list[Served], path: Path, env: str | None, token: str, out: TextIO
) -> None:
    """Say how to reach it. A token that we made is shown, for nobody else knows it; the user's own is not."""
    name = env or "RUNNER_LOCAL_TOKEN"
    print(f"serving {', '.join(one.name for one in local)} of {job_file.name} at {server.base_url}", file=out)
    if env is None:
        print(f"export {name}={token}", file=out)
    option = "" if env is None else f" --token-env {env}"
    print(f"runner run {path} --local {server.base_url}{option}", file=out)
    print(
        f'curl {server.base_url}/{local[0].name}/run -H "Authorization: Bearer ${name}"'
        """ -H 'Content-Type: application/json' -d '{"input": {"hello": "world"}}'""",
        file=out,
        flush=True,
    )
