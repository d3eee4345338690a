"""Look at the endpoints' health while a batch runs, and keep what they said."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import EndpointRefused, NotFound, RunPodError
from runner.events import Sampled
from runner.record import Recorder

EVERY_S = 15.0
"""Pause between two looks. Source: RunPod's own MCP server caches its queue diagnosis so long (summer 2026)."""

LAST_LOOK_S = 5.0
"""How long the looks after the end may take: who stopped a batch waits for them."""

log = logging.getLogger(__name__)


async def look(endpoint: LiveEndpoint, recorder: Recorder, clock: Clock) -> None:
    """
    Look once and record it. A failure is a sample too; that the endpoint is refused stands in its ``refusal``.

    Raises:
        RecordError: the batch folder can't be written.
    """
    name = endpoint.destination.name
    try:
        found = await endpoint.call("health", endpoint.client.health)
    except NotFound as error:
        endpoint.refuse(error, "check the endpoint's 'id', and that the key may see it")
        sample = Sampled(name, clock.now(), {}, {}, problem=error.message)
    except (RunPodError, EndpointRefused) as error:
        log.warning("health can't be read: %s", error.message, extra={"endpoint": name})
        sample = Sampled(name, clock.now(), {}, {}, problem=error.message)
    else:
        sample = Sampled(name, clock.now(), found.jobs, found.workers)
    recorder.tell(sample)


@asynccontextmanager
async def sampling(endpoints: Iterable[LiveEndpoint], recorder: Recorder, clock: Clock) -> AsyncIterator[None]:
    """
    Look at every endpoint now, again and again while the block runs, and once more after it.

    The first looks are done when the block begins: a wrong key or id is known before anything is submitted.
    """
    endpoints = list(endpoints)

    async def look_at_all() -> None:
        looks = await asyncio.gather(*(look(one, recorder, clock) for one in endpoints), return_exceptions=True)
        for failure in looks:
            if failure is not None:
                raise failure

    async def again() -> None:
        while True:
            await clock.sleep(EVERY_S)
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
