"""``runner purge``: drop what waits in an endpoint's queue, whoever sent it."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

from runner.check import JobFile, open_job_file
from runner.clock import SystemClock
from runner.endpoint import LiveEndpoint
from runner.errors import EXIT_FAIL, EXIT_PASS, AnswerLost, Forbidden, NotFound, RunnerError, RunPodError, UsageError
from runner.events import Destination
from runner.network import Network
from runner.progress import say
from runner.spec import LocalEndpoint
from runner.values import dump
from runner.wording import suggest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Queue:
    """How many jobs wait at an endpoint, and run there; None: it did not say."""

    of: Destination
    waiting: int | None
    running: int | None


def purge(
    path: Path,
    name: str,
    *,
    confirmed: bool,
    profile: str | None = None,
    local_url: str | None,
    token_env: str,
    as_json: bool = False,
    out: TextIO = sys.stdout,
    err: TextIO = sys.stderr,
    ask: TextIO = sys.stdin,
) -> int:
    """
    Drop every queued job of the endpoint *name* of the job file at *path*, under *profile*; running ones go on.

    Unless it is *confirmed*, a person is asked on the terminal of *ask* and *err*.

    Returns:
        0 when the queue was dropped, 1 when the person said no.

    Raises:
        UsageError: there is no such endpoint, or nobody to ask.
        EndpointRefused: the endpoint is unknown, or not ours to purge.
        RunnerError: the endpoint did not answer; whether the queue may have been dropped is said.
    """
    # What the endpoint warns of is in the error that ends the command; Python would print it a second time.
    logging.getLogger("runner").addHandler(logging.NullHandler())
    job_file = open_job_file(path, profile=profile)
    _check(job_file, name, local_url)

    def call(do: Callable[[LiveEndpoint], Awaitable[T]]) -> T:
        return asyncio.run(_call(job_file, name, local_url, token_env, do))

    if not confirmed:
        if not (ask.isatty() and err.isatty()):
            raise UsageError(
                f"purging drops every queued job of endpoint '{name}', other clients' too, and there is no terminal to"
                " ask on",
                fix="add --yes to do it unasked",
            )
        # Asked between two event loops: in one, Ctrl-C would not interrupt the question.
        if not _agreed(call(_look), err, ask):
            say("nothing was purged", err)
            return EXIT_FAIL
    removed = call(_purge)
    if as_json:
        print(dump({"endpoint": name, "removed": removed}).decode(), file=out)
    else:
        print(f"{name}: {_told(removed)}", file=out)
    return EXIT_PASS


def _check(job_file: JobFile, name: str, local_url: str | None) -> None:
    """
    Raises:
        UsageError: there is no such endpoint, or none that lives now.
    """
    endpoint = job_file.endpoints.get(name)
    if endpoint is None:
        fix = suggest(name, job_file.endpoints)
        raise UsageError(f"unknown endpoint '{name}' in {job_file.document.file}", fix=fix)
    if not isinstance(endpoint, LocalEndpoint):
        if local_url is not None:
            raise UsageError(f"--local is for embedded endpoints, and '{name}' is on RunPod", fix="leave --local out")
    elif local_url is None:
        raise UsageError(
            f"endpoint '{name}' is embedded: it lives only while a batch runs, and so does its queue",
            fix="to purge one that 'runner serve' serves, give --local URL",
        )


async def _call(
    job_file: JobFile, name: str, local_url: str | None, token_env: str, do: Callable[[LiveEndpoint], Awaitable[T]]
) -> T:
    async with Network(job_file, [name], SystemClock(), local_url=local_url, token_env=token_env) as network:
        endpoint = network.endpoints({})[name]
        try:
            return await do(endpoint)
        except (Forbidden, NotFound) as error:
            raise endpoint.refuse(error, "check the endpoint's 'id', and that its 'api_key' may do this") from None
        except RunPodError as error:
            said = f"{error.message}: {error.detail}" if error.detail else error.message
            if isinstance(error, AnswerLost) and do is _purge:
                said += f"; the queue of endpoint '{name}' may have been dropped"
                raise RunnerError(said, fix="see with 'runner health' what waits there") from None
            raise RunnerError(f"{said}; nothing was purged", fix="try again in a while") from None


async def _look(endpoint: LiveEndpoint) -> Queue:
    jobs = (await endpoint.call("health", endpoint.client.health)).jobs
    return Queue(endpoint.destination, jobs.get("inQueue"), jobs.get("inProgress"))


async def _purge(endpoint: LiveEndpoint) -> int | None:
    return (await endpoint.call("purge-queue", endpoint.client.purge_queue)).removed


def _agreed(queue: Queue, err: TextIO, ask: TextIO) -> bool:
    """Whether the person at the terminal says yes to what there is."""
    waiting = f"{_jobs(queue.waiting)} {'waits' if queue.waiting == 1 else 'wait'}"
    running = (
        f"{'an unknown number' if queue.running is None else queue.running} {'runs' if queue.running == 1 else 'run'}"
    )
    where = f"endpoint '{queue.of.name}' (id {queue.of.endpoint_id})"
    say(f"{where}: {waiting}, {running}; purging drops the waiting ones, whoever sent them", err)
    print("purge? [y/N] ", end="", file=err, flush=True)
    return ask.readline().strip().lower() in ("y", "yes")


def _jobs(count: int | None) -> str:
    if count is None:
        return "an unknown number of jobs"
    return "1 job" if count == 1 else f"{count} jobs"


def _told(removed: int | None) -> str:
    if removed is None:
        return "the queue was dropped; RunPod did not say how many jobs that were"
    return f"{_jobs(removed)} dropped"
