"""Look at the endpoints' health while a batch runs, and keep what they said."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import EndpointRefused, NotFound, Paused, RunPodError
from runner.events import Sampled
from runner.health import PAUSED, Diagnosis, diagnosis, is_grave, workers_up
from runner.record import Recorder
from runner.units import duration

EVERY_S = 15.0
"""Pause between two looks. Source: RunPod's own MCP server caches its queue diagnosis so long (summer 2026)."""

GATE_S = 5.0
"""Pause between two looks at an endpoint that has not yet what the job file requires: somebody waits for it."""

LAST_LOOK_S = 5.0
"""How long the looks after the end may take: who stopped a batch waits for them."""

HINDRANCES = ("crash-looping", "throttled", "cold start")
"""What keeps workers from getting ready, as a diagnosis calls it."""

MORE_WORKERS = "raise its active (min) workers, or lower health.require.workers_ready"
WAIT_LONGER = "wait longer (health.wait), raise its active (min) workers, or lower health.require.workers_ready"

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
        problem = PAUSED if endpoint.is_paused else None  # it need not say so of itself
        sample = Sampled(name, clock.now(), found.jobs, found.workers, problem)
    recorder.tell(sample)
    _say(endpoint, sample)
    return sample


def _say(endpoint: LiveEndpoint, sample: Sampled) -> None:
    """Log how the endpoint is when that has changed."""
    news = endpoint.course.add(sample)
    if news is not None:
        level = logging.WARNING if is_grave(news) else logging.INFO
        log.log(level, "%s", news, extra={"endpoint": endpoint.destination.name})


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
    told: Diagnosis | None = None
    while True:
        sample = await look(endpoint, recorder, clock)
        if endpoint.refusal is not None:
            return
        if sample.problem is None:
            up = workers_up(sample.workers)
            if up is not None and up >= workers_ready:
                return
            told = diagnosis(sample, is_awaited=True)
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
        message, fix = f"endpoint {name!r} has {up} of {workers} ready{after}", MORE_WORKERS
        if told is not None and told.word in HINDRANCES:
            message += f": {told.word}: {told.seen}"
            fix = told.fix if told.fix and is_grave(told.word) else WAIT_LONGER
    endpoint.refuse_because(message, fix)


@asynccontextmanager
async def sampling(
    endpoints: Iterable[LiveEndpoint], recorder: Recorder, clock: Clock, *, every_s: float = EVERY_S, waits: bool = True
) -> AsyncIterator[None]:
    """
    Look at every endpoint now, every *every_s* seconds while the block runs, and once more after it.

    Nothing is submitted before the first looks are done: a wrong key or id is known by then. With *waits* the block
    begins after them, else at once, and jobs that were submitted before can be followed meanwhile.
    """
    endpoints = list(endpoints)

    async def look_at_all() -> None:
        looks = await asyncio.gather(*(look(one, recorder, clock) for one in endpoints), return_exceptions=True)
        for failure in looks:
            if isinstance(failure, BaseException):
                raise failure

    async def first_look() -> None:
        try:
            await look_at_all()
        finally:
            for endpoint in endpoints:
                endpoint.looked_at()

    async def again() -> None:
        if not waits:
            await first_look()
        while True:
            await clock.sleep(every_s)
            await look_at_all()

    for endpoint in endpoints:
        endpoint.to_be_looked_at()
    if waits:
        await first_look()
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
