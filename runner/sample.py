"""Look at the endpoints' health while a batch runs, and keep what they said."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import EndpointRefused, NotFound, Paused, RunPodError
from runner.events import Sampled
from runner.health import PAUSED, workers_up
from runner.record import Recorder
from runner.units import duration

EVERY_S = 15.0
"""Pause between two looks. Source: RunPod's own MCP server caches its queue diagnosis so long (summer 2026)."""

GATE_S = 5.0
"""Pause between two looks at an endpoint that has not yet what the job file requires: somebody waits for it."""

LAST_LOOK_S = 5.0
"""How long the looks after the end may take: who stopped a batch waits for them."""

log = logging.getLogger(__name__)


async def look(endpoint: LiveEndpoint, recorder: Recorder, clock: Clock) -> Sampled:
    """
    Look once, record it and return it. A failure is a sample too; that the endpoint is refused stands in its
    ``refusal``.

    Raises:
        RecordError: the batch folder can't be written.
    """
    name = endpoint.destination.name
    try:
        found = await endpoint.health()
    except NotFound as error:
        endpoint.refuse(error, "check the endpoint's 'id', and that the key may see it")
        sample = Sampled(name, clock.now(), {}, {}, problem=error.message)
    except Paused:
        sample = Sampled(name, clock.now(), {}, {}, problem=PAUSED)
    except (RunPodError, EndpointRefused) as error:
        log.warning("health can't be read: %s", error.message, extra={"endpoint": name})
        sample = Sampled(name, clock.now(), {}, {}, problem=error.message)
    else:
        sample = Sampled(name, clock.now(), found.jobs, found.workers)
    recorder.tell(sample)
    return sample


async def gate(
    endpoint: LiveEndpoint,
    recorder: Recorder,
    clock: Clock,
    *,
    workers_ready: int,
    wait_s: float,
    every_s: float = EVERY_S,
) -> None:
    """
    Wait until *endpoint* shows *workers_ready* workers that take jobs; after *wait_s* seconds it is refused.

    That it is refused, for this or by what it answers, stands in its ``refusal``. A look that fails otherwise is not
    the last word while there is time. Cancelling the wait changes nothing.

    Raises:
        RecordError: the batch folder can't be written.
    """
    over_at = clock.monotonic() + wait_s
    up: int | None = None
    while True:
        sample = await look(endpoint, recorder, clock)
        if endpoint.refusal is not None:
            return
        if sample.problem is None:
            up = workers_up(sample.workers)
            if up is not None and up >= workers_ready:
                return
        left_s = over_at - clock.monotonic()
        if left_s <= 0:
            break
        await clock.sleep(min(GATE_S, every_s, left_s))
    name, after = endpoint.destination.name, f" after {duration(wait_s)}" if wait_s else ""
    if up is None:
        why = f" ({sample.problem})" if sample.problem else ""
        message = f"endpoint {name!r} does not say how many workers are ready{after}{why}"
        fix = "see what 'runner health' says of it, or leave health.require.workers_ready out"
    else:
        workers = "1 worker" if workers_ready == 1 else f"{workers_ready} workers"
        message = f"endpoint {name!r} has {up} of {workers} ready{after}"
        fix = "raise its min workers, or lower health.require.workers_ready"
    endpoint.refuse_because(message, fix)


@asynccontextmanager
async def sampling(
    endpoints: Iterable[LiveEndpoint], recorder: Recorder, clock: Clock, *, every_s: float = EVERY_S
) -> AsyncIterator[None]:
    """
    Look at every endpoint now, every *every_s* seconds while the block runs, and once more after it.

    The first looks are done when the block begins: a wrong key or id is known before anything is submitted.
    """
    endpoints = list(endpoints)

    async def look_at_all() -> None:
        looks = await asyncio.gather(*(look(one, recorder, clock) for one in endpoints), return_exceptions=True)
        for failure in looks:
            if isinstance(failure, BaseException):
                raise failure

    async def again() -> None:
        while True:
            await clock.sleep(every_s)
            await look_at_all()

    await look_at_all()
    task = asyncio.create_task(again(), name="sampler")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        failure = None if task.cancelled() else task.exception()  # it ends by itself only with an error
    if failure is not None:
        raise failure
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_LOOK_S):
            await look_at_all()
