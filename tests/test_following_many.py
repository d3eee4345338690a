"""Which of many jobs are looked at, and when: the oldest, where ends are likely, and all before it is too late."""

import asyncio
from itertools import pairwise

import pytest
from fakes import EPOCH, FakeJob, Play, Scene, in_virtual_time

from runner.answers import EndpointHealth, RemoteJob
from runner.crew import FEWEST
from runner.endpoint import HELD
from runner.follow import Following, Vanished
from runner.hazard import TELLING
from runner.looks import CHEAP_S
from runner.policy import DEFAULT_LOOKS, Looks
from runner.units import Rate


def follow(
    scene: Scene,
    number: int,
    *,
    age_s: float = 0.0,
    at_once: bool = False,
    looks: Looks = DEFAULT_LOOKS,
    ttl_s: float = 86_400.0,
) -> Following:
    """Follow job *number*; the smaller the number, the earlier it was submitted."""
    return Following(
        scene.endpoint,
        f"job-{number}",
        submitted_at=EPOCH - age_s + number / 1000,
        request_timeout_s=30.0,
        clock=scene.clock,
        job="photos",
        at_once=at_once,
        looks=looks,
        ttl_s=ttl_s,
    )


async def follow_all(scene: Scene, count: int, **terms: object) -> list[RemoteJob | Vanished]:
    """Follow so many jobs at once."""
    return await asyncio.gather(*(follow(scene, number, **terms).until_final() for number in range(count)))  # type: ignore[arg-type]


def jobs(scene: Scene, count: int, *, takes_s: float) -> list[FakeJob]:
    """So many jobs that end *takes_s* from now."""
    return [scene.runpod.add_job(f"job-{number}", Play(takes_s=takes_s)) for number in range(count)]


@in_virtual_time
async def test_only_jobs_that_can_be_running_hold_a_request() -> None:
    """Each costs a server, and our allowance, for as long as it waits."""
    scene = Scene()
    scene.runpod.will_say("health", EndpointHealth({}, {"running": 2}))
    await scene.endpoint.health()
    jobs(scene, 20, takes_s=60.0)
    task = asyncio.create_task(follow_all(scene, 20))
    await asyncio.sleep(30.0)
    assert scene.history[1:] == [f"status-sync job-{number}" for number in range(FEWEST)]
    await task


@in_virtual_time
async def test_a_job_that_can_not_be_running_is_looked_at_in_time_all_the_same() -> None:
    """The order of the queue is not documented, and results are kept for 30 minutes only."""
    scene = Scene()
    scene.endpoint.oldest.resize(1)
    scene.runpod.add_job("job-0", Play(takes_s=7200.0))
    scene.runpod.add_job("job-1", Play(takes_s=10.0))
    task = asyncio.create_task(follow_all(scene, 1))
    await asyncio.sleep(1.0)
    assert isinstance(await follow(scene, 1).until_final(), RemoteJob)
    assert scene.clock.elapsed_s == 301.0
    task.cancel()
    await asyncio.wait([task])


@in_virtual_time
async def test_looks_come_closer_before_the_ttl_takes_the_job_away() -> None:
    """A result may be gone with its ttl."""
    scene = Scene()
    scene.endpoint.oldest.resize(0)
    scene.runpod.add_job("job-1", Play(takes_s=595.0))
    assert isinstance(await follow(scene, 1, ttl_s=600.0).until_final(), RemoteJob)
    assert 595.0 <= scene.clock.elapsed_s <= 600.0
    assert len(scene.runpod.calls["status"]) <= 10


@in_virtual_time
async def test_jobs_of_an_earlier_process_are_looked_at_at_once() -> None:
    """They may have ended long ago: the clock of their results runs."""
    scene = Scene()
    scene.endpoint.oldest.resize(5)
    jobs(scene, 50, takes_s=0.0)
    await follow_all(scene, 50, age_s=600.0, at_once=True)
    assert scene.clock.elapsed_s == 0.0


@in_virtual_time
async def test_whoever_asks_a_second_time_looks_at_once() -> None:
    """A cancel was sent meanwhile, and somebody waits for what it came to."""
    scene = Scene()
    scene.endpoint.oldest.resize(0)
    scene.runpod.add_job("job-1", Play(takes_s=3.0))
    following = follow(scene, 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5.0):
            await following.until_final()
    assert isinstance(await following.until_final(), RemoteJob)
    assert scene.clock.elapsed_s == 5.0


@in_virtual_time
async def test_jobs_beyond_the_held_requests_are_looked_at_where_they_may_end() -> None:
    """More workers than requests may be held: nobody waits for one of these to be free."""
    scene = Scene()
    for _ in range(TELLING):
        scene.endpoint.known("photos").waits.add(40.0)
    jobs(scene, HELD + 10, takes_s=40.5)
    await follow_all(scene, HELD + 10)
    assert scene.runpod.most_at_once["status-sync"] == HELD
    assert 10 <= len(scene.runpod.calls["status"]) <= 30
    assert 40.5 <= scene.clock.elapsed_s <= 43.0


@in_virtual_time
async def test_without_held_requests_the_first_look_comes_where_others_ended() -> None:
    """Nothing ends before that, so nothing is asked."""
    scene = Scene()
    scene.endpoint.can_hold = False
    for number in range(TELLING):
        scene.endpoint.known("photos").waits.add(20.0 + number / 100)
    jobs(scene, 1, takes_s=20.1)
    await follow_all(scene, 1)
    assert scene.runpod.calls["status"][0] >= 1020.0
    assert len(scene.runpod.calls["status"]) <= 2


@in_virtual_time
async def test_the_bounds_of_the_job_file_hold_whatever_was_learned() -> None:
    """`poll` is the user's word."""
    scene = Scene()
    scene.endpoint.can_hold = False
    for _ in range(TELLING):
        scene.endpoint.known("photos").waits.add(500.0)
    jobs(scene, 1, takes_s=100.0)
    await follow_all(scene, 1, looks=Looks(2.0, 7.0))
    gaps = [b - a for a, b in pairwise([1000.0, *scene.runpod.calls["status"]])]
    assert {round(gap, 3) for gap in gaps} == {7.0}


@in_virtual_time
async def test_looks_fit_into_their_rate_however_many_jobs_there_are() -> None:
    """The price of a look rises, so that each waits longer, instead of all waiting for their turn."""
    scene = Scene(rates={"status": Rate(100, 10.0)})
    scene.endpoint.can_hold = False
    for number in range(TELLING * 5):
        scene.endpoint.known("photos").waits.add(1.0 + number)
    jobs(scene, 200, takes_s=300.0)
    task = asyncio.create_task(follow_all(scene, 200))
    await asyncio.sleep(200.0)
    late = [at for at in scene.runpod.calls["status"] if at >= 1100.0]
    assert 500 <= len(late) <= 950, "of 1000 that the rate allows, so that none waits"
    assert scene.endpoint.price.price_s > CHEAP_S
    await task


@in_virtual_time
async def test_what_ends_before_its_turn_widens_the_search() -> None:
    """The endpoint has more workers than it said."""
    scene = Scene()
    scene.runpod.will_say("health", EndpointHealth({}, {"running": 1}))
    await scene.endpoint.health()
    jobs(scene, 60, takes_s=30.0)
    for job in list(scene.runpod.jobs.values()):
        job.final = RemoteJob(job.job_id, "COMPLETED", "ok", delay_time_ms=0, execution_time_ms=30_000)
    scene.runpod.jobs["job-0"].ends_at += 10.0
    await follow_all(scene, 60)
    assert scene.clock.elapsed_s <= 41.0
    assert scene.runpod.most_at_once["status-sync"] > 12
