"""``runner health``: each endpoint's ``/health``, explained."""

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from runner.check import open_job_file
from runner.clock import SystemClock
from runner.endpoint import LiveEndpoint
from runner.errors import EXIT_FAIL, EXIT_PASS, EXIT_REFUSED, RunnerError, RunPodError
from runner.events import Sampled
from runner.health import diagnosis
from runner.network import Network
from runner.spec import LocalEndpoint
from runner.stdout import while_read
from runner.values import dump


def health(
    path: Path, *, local_url: str | None, token_env: str, as_json: bool = False, out: TextIO = sys.stdout
) -> int:
    """
    Print what every endpoint of the job file at *path* says of itself.

    Embedded endpoints live only while a batch runs, so they are left out unless *local_url* names a served one.

    Returns:
        0 when all answered, 4 when one refused us, 1 when one could not be reached.
    """
    return asyncio.run(_health(path, local_url, token_env, as_json, out))


async def _health(path: Path, local_url: str | None, token_env: str, as_json: bool, out: TextIO) -> int:
    job_file = open_job_file(path, env_required=True)
    remote = [n for n, one in job_file.endpoints.items() if local_url or not isinstance(one, LocalEndpoint)]
    shown: dict[str, object] = {}
    code = EXIT_PASS
    async with Network(job_file, remote, SystemClock(), local_url=local_url, token_env=token_env) as network:
        for name, endpoint in network.endpoints({}).items():
            sample, failed = await _ask(name, endpoint)
            code = max(code, failed)
            found = {"diagnosis": diagnosis(sample), "jobs": sample.jobs, "workers": sample.workers}
            shown[name] = found
            if not as_json:
                _show(name, found, out)
    embedded = {"diagnosis": EMBEDDED, "jobs": {}, "workers": {}}
    for name in job_file.endpoints.keys() - set(remote):
        shown[name] = embedded
        if not as_json:
            _show(name, embedded, out)
    if as_json:
        with while_read():
            print(dump({"endpoints": shown}).decode(), file=out)
    return code


EMBEDDED = "embedded: lives only while a batch runs; serve it with 'runner serve' and give --local URL"


async def _ask(name: str, endpoint: LiveEndpoint) -> tuple[Sampled, int]:
    """The sample, and the exit code that it asks for."""
    try:
        found = await endpoint.call("health", endpoint.client.health)
    except RunnerError as error:
        return Sampled(name, time.time(), {}, {}, problem=error.message), EXIT_REFUSED
    except RunPodError as error:
        code = EXIT_REFUSED if error.status in (403, 404) else EXIT_FAIL
        return Sampled(name, time.time(), {}, {}, problem=error.message), code
    return Sampled(name, time.time(), found.jobs, found.workers), EXIT_PASS


def _show(name: str, found: Mapping[str, Any], out: TextIO) -> None:
    with while_read():
        print(f"{name}: {found['diagnosis']}", file=out)
        for kind in ("jobs", "workers"):
            if counters := found[kind]:
                print(f"  {kind:<8}" + "  ".join(f"{word} {count}" for word, count in counters.items()), file=out)
