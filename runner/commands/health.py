"""``runner health``: each endpoint's ``/health``, explained."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from runner.check import JobFile, open_job_file
from runner.clock import Clock, SystemClock
from runner.course import Course
from runner.endpoint import LiveEndpoint
from runner.errors import EXIT_FAIL, EXIT_PASS, EXIT_REFUSED, Paused, RunnerError, RunPodError
from runner.events import Sampled
from runner.health import PAUSED
from runner.network import Network
from runner.spec import LocalEndpoint
from runner.stdout import while_read
from runner.values import dump

LOOKS = 3
"""An endpoint is looked at so often, where one look can't tell what is the matter."""

AGAIN_S = 3.0
"""Pause between two of them: a worker takes a waiting job within a second or two."""


def health(
    path: Path,
    *,
    profile: str | None = None,
    local_url: str | None,
    token_env: str,
    as_json: bool = False,
    out: TextIO = sys.stdout,
) -> int:
    """
    Print what every endpoint of the job file at *path*, under *profile*, says of itself.

    One whose queue does not move, for all that one look tells, is looked at again some seconds later. Embedded
    endpoints live only while a batch runs, so they are left out unless *local_url* names a served one.

    Returns:
        0 when all answered, 4 when one refused us, 1 when one could not be reached.
    """
    job_file = open_job_file(path, profile=profile, env_required=True)
    return asyncio.run(_health(job_file, local_url, token_env, as_json, out))


async def _health(job_file: JobFile, local_url: str | None, token_env: str, as_json: bool, out: TextIO) -> int:
    remote = [n for n, one in job_file.endpoints.items() if local_url or not isinstance(one, LocalEndpoint)]
    shown: dict[str, object] = {}
    code, clock = EXIT_PASS, SystemClock()
    async with Network(job_file, remote, clock, local_url=local_url, token_env=token_env) as network:
        endpoints = network.endpoints({})
        for name, (found, failed) in zip(
            endpoints, await asyncio.gather(*(_look(*one, clock) for one in endpoints.items())), strict=True
        ):
            code = max(code, failed)
            shown[name] = found
            if not as_json:
                _show(name, found, out)
    embedded = {"diagnosis": EMBEDDED, "evidence": {}, "jobs": {}, "workers": {}}
    for name in job_file.endpoints.keys() - set(remote):
        shown[name] = embedded
        if not as_json:
            _show(name, embedded, out)
    if as_json:
        with while_read():
            print(dump({"endpoints": shown}).decode(), file=out)
    return code


EMBEDDED = "embedded: lives only while a batch runs; serve it with 'runner serve' and give --local URL"


async def _look(name: str, endpoint: LiveEndpoint, clock: Clock) -> tuple[dict[str, Any], int]:
    """What is to be shown of an endpoint, after one look or a few; and the exit code that it asks for."""
    course = Course()
    while True:
        sample, failed = await _ask(name, endpoint, clock)
        course.add(sample)
        if failed or course.newest.is_sure or course.looks == LOOKS:
            break
        await clock.sleep(AGAIN_S)
    said = {"diagnosis": course.now(), "evidence": course.evidence(), "jobs": sample.jobs, "workers": sample.workers}
    return said, failed


async def _ask(name: str, endpoint: LiveEndpoint, clock: Clock) -> tuple[Sampled, int]:
    """The sample, and the exit code that it asks for."""
    try:
        found = await endpoint.call("health", endpoint.client.health)
    except RunnerError as error:
        return Sampled(name, clock.now(), {}, {}, problem=error.message), EXIT_REFUSED
    except Paused:
        return Sampled(name, clock.now(), {}, {}, problem=PAUSED), EXIT_REFUSED
    except RunPodError as error:
        code = EXIT_REFUSED if error.status in (403, 404) else EXIT_FAIL
        return Sampled(name, clock.now(), {}, {}, problem=error.message), code
    return Sampled(name, clock.now(), found.jobs, found.workers), EXIT_PASS


def _show(name: str, found: Mapping[str, Any], out: TextIO) -> None:
    with while_read():
        print(f"{name}: {found['diagnosis']}", file=out)
        for kind in ("jobs", "workers"):
            if counters := found[kind]:
                print(f"  {kind:<8}" + "  ".join(f"{word} {count}" for word, count in counters.items()), file=out)
