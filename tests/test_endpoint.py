import asyncio
import functools
from collections.abc import Sequence
from itertools import pairwise

import pytest
from fakes import FAST, FakeClock, Play, Scene, http, in_virtual_time

from runner.answers import EndpointHealth
from runner.endpoint import CAPS, LiveEndpoint
from runner.errors import AnswerLost, EndpointRefused, Forbidden, RateLimited, RunPodError, Unreachable
from runner.pace import Pace
from runner.units import Rate


async def submit(scene: Scene, number: int = 0) -> None:
    """Submit a run; what is wrong with that comes out."""
    body = b'{"input":{"n":%d}}' % number
    await scene.endpoint.call("run", lambda: scene.runpod.run(body))


async def submit_all(scene: Scene, count: int) -> list[BaseException | None]:
    """Submit *count* runs at once; how each ended."""
    return await asyncio.gather(*(submit(scene, number) for number in range(count)), return_exceptions=True)


def most_within(period_s: float, times: Sequence[float]) -> int:
    """How many of *times* fall into one window, at most."""
    return max(sum(start <= at < start + period_s for at in times) for start in times)


@in_virtual_time
async def test_no_window_passes_the_rate_and_nobody_waits_longer_than_that_takes() -> None:
    """RunPod answers 429 beyond it; slower would waste the workers."""
    scene = Scene(rates={"run": Rate(7, 2.0)})
    early = asyncio.create_task(submit_all(scene, 20))
    await asyncio.sleep(3.1)
    await submit_all(scene, 15)
    await early
    times = scene.runpod.calls["run"]
    assert len(times) == 35
    assert most_within(2.0 - 1e-6, times) == 7
    assert times[-1] - times[0] == pytest.approx(8.0, abs=0.001)


@in_virtual_time
async def test_no_more_calls_than_the_cap_are_under_way_first_come_first_served() -> None:
    """RunPod counts what is open at once as well, and a run that waits longest goes next."""
    scene = Scene()
    scene.runpod.latency_s = 1.0
    await submit_all(scene, 500)
    assert scene.runpod.most_at_once["run"] == CAPS["run"]
    assert scene.runpod.asked == [{"n": number} for number in range(500)]
    assert scene.clock.elapsed_s == 3.0


@in_virtual_time
async def test_each_operation_has_a_turn_of_its_own() -> None:
    """Jobs are looked at while submits wait: retention is a deadline."""
    scene = Scene(rates={"run": Rate(1, 60.0)})
    scene.runpod.add_job("job-0", Play())
    submits = asyncio.create_task(submit_all(scene, 3))
    await scene.clock.until_sleeping(1)
    await scene.endpoint.call("status", lambda: scene.runpod.status("job-0"))
    assert scene.clock.elapsed_s == 0.0
    await submits
    assert scene.clock.elapsed_s == 120.0


@in_virtual_time
async def test_who_gives_up_its_turn_leaves_it_to_the_next() -> None:
    """A stop cancels waiters in the middle of the queue; the others must not wait for them."""
    scene = Scene(rates={"run": Rate(1, 10.0)})
    tasks = [asyncio.create_task(submit(scene, number)) for number in range(5)]
    await scene.clock.until_sleeping(1)
    for number in (1, 2):  # the one that sleeps, and one that waits behind it
        tasks[number].cancel()
    await asyncio.wait(tasks)
    assert scene.runpod.submitted == [{"n": 0}, {"n": 3}, {"n": 4}]
    assert scene.clock.elapsed_s == 20.0


@pytest.mark.parametrize(("retry_after", "waits_s"), [("20", 20.0), (None, 0.0), ("0", 0.0)])
@in_virtual_time
async def test_a_429_that_says_when_to_come_again_holds_back_every_call(
    retry_after: str | None, waits_s: float
) -> None:
    """What RunPod counts may be more than what we count. One that says nothing may be about one call."""
    scene = Scene()
    scene.runpod.will_play(Play(error=http(429, retry_after=retry_after)))
    with pytest.raises(RateLimited):
        await submit(scene)
    await asyncio.gather(submit(scene), scene.endpoint.call("health", scene.runpod.health))
    assert [scene.runpod.calls[one][-1] - 1000.0 for one in ("run", "health")] == [waits_s, waits_s]


@in_virtual_time
async def test_429s_here_and_there_hold_nobody_else_back() -> None:
    """A bad moment of RunPod's is no full window: every fifth call refused, and the others go as they come."""
    scene = Scene()
    scene.runpod.latency_s = 0.01
    for number in range(100):
        scene.runpod.will_play(Play(error=http(429) if number % 5 == 0 else None))
        if number % 5:
            await submit(scene, number)
            continue
        with pytest.raises(RateLimited):
            await submit(scene, number)
    assert scene.clock.elapsed_s == pytest.approx(1.0)
    assert scene.endpoint.slots.limit == 200


@in_virtual_time
async def test_a_held_look_that_was_let_in_tells_that_the_window_is_not_full() -> None:
    """Its answer is a minute away, and a 429 would have been there by now."""
    scene = Scene()
    scene.runpod.add_job("job-0", Play(takes_s=60.0))
    look = functools.partial(scene.runpod.status_sync, "job-0", wait_ms=90_000)
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            held = group.create_task(scene.endpoint.call("status-sync", look))
            await asyncio.sleep(1.5)
            scene.runpod.will_say("status", http(429))
            with pytest.raises(RateLimited):
                await scene.endpoint.call("status", lambda: scene.runpod.status("job-0"))
            assert scene.clock.elapsed_s == pytest.approx(1.5 * (number + 1))
            assert not held.done()


@in_virtual_time
async def test_many_429s_at_once_count_once() -> None:
    """Two hundred requests that were under way together are one event, not a reason to wait for hours."""
    scene = Scene()
    scene.runpod.latency_s = 0.1
    scene.runpod.will_play(*[Play(error=http(429))] * 190)
    await submit_all(scene, 190)
    await submit(scene)
    assert scene.runpod.calls["run"][-1] == pytest.approx(1000.0 + 0.1 + 0.5)


@in_virtual_time
async def test_429s_that_go_on_slow_down_further_even_while_looks_succeed() -> None:
    """A full queue refuses submits only; looks that go well must not make us hammer it. The first two may be chance."""
    scene = Scene()
    scene.runpod.add_job("job-0", Play())
    scene.runpod.play = lambda given: Play(error=http(429))
    for _ in range(9):
        with pytest.raises(RateLimited):
            await submit(scene)
        await scene.endpoint.call("status", lambda: scene.runpod.status("job-0"))
    gaps = [round(b - a, 3) for a, b in pairwise(scene.runpod.calls["run"])]
    assert gaps == [0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    scene.runpod.play = lambda given: Play()
    await submit(scene)
    await asyncio.sleep(0.1)
    scene.runpod.will_play(*[Play(error=http(429))] * 3)
    for _ in range(3):
        with pytest.raises(RateLimited):
            await submit(scene)
    await submit(scene)
    assert scene.runpod.calls["run"][-1] - scene.runpod.calls["run"][-2] == 0.5


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        pytest.param(http(401), True, id="401"),
        pytest.param(http(402), True, id="402"),
        pytest.param(http(400), False, id="400"),
        pytest.param(http(404), False, id="404: the caller knows whether it is the endpoint"),
        pytest.param(http(409), False, id="409"),
        pytest.param(http(429), False, id="429"),
        pytest.param(http(500), False, id="500"),
        pytest.param(AnswerLost("no answer"), False, id="no answer"),
        pytest.param(Unreachable("no connection"), False, id="no connection"),
    ],
)
@in_virtual_time
async def test_an_answer_about_the_key_or_the_account_refuses_the_endpoint(error: RunPodError, refused: bool) -> None:
    """Nothing will do better there, so nothing more is tried; any other answer is about one call."""
    scene = Scene()
    scene.runpod.will_play(Play(error=error))
    with pytest.raises(EndpointRefused if refused else type(error)) as caught:
        await submit(scene)
    assert scene.endpoint.refusal is (caught.value if refused else None)


@in_virtual_time
async def test_a_refusal_ends_submits_at_once_and_lets_looks_go_on() -> None:
    """What is in flight is paid for; those that wait for their turn are not sent to be refused as well."""
    scene = Scene(rates={"run": Rate(1, 10.0)})
    scene.runpod.add_job("job-0", Play())
    scene.runpod.will_play(Play(error=http(402)))
    endings = await submit_all(scene, 50)
    assert {type(ending) for ending in endings} == {EndpointRefused}
    assert scene.history.count("run") == 1
    assert (await scene.endpoint.call("status", lambda: scene.runpod.status("job-0"))).job_id == "job-0"


@pytest.mark.parametrize(
    ("health", "refused"),
    [
        pytest.param(None, False, id="health answers"),
        pytest.param(http(403), True, id="403"),
        pytest.param(http(404), True, id="404"),
        pytest.param(http(401), True, id="401"),
        pytest.param(http(500), False, id="500"),
    ],
)
@in_virtual_time
async def test_a_403_counts_for_the_endpoint_once_health_confirms_it(health: RunPodError | None, refused: bool) -> None:
    """A firewall may dislike one body: that is one run's trouble, not the batch's."""
    scene = Scene()
    if health is not None:
        scene.runpod.will_say("health", health)
    scene.runpod.will_play(Play(error=http(403)))
    with pytest.raises(EndpointRefused if refused else Forbidden):
        await submit(scene)
    assert (scene.endpoint.refusal is not None) is refused
    assert scene.history == ["run", "health"]


@in_virtual_time
async def test_403s_at_once_are_confirmed_by_one_look_and_later_ones_by_another() -> None:
    """/health has a rate of its own; but a key that is revoked now must not be vouched for by an answer of before."""
    scene = Scene()
    scene.runpod.latency_s = 0.1
    scene.runpod.play = lambda given: Play(error=http(403))
    assert {type(ending) for ending in await submit_all(scene, 50)} == {Forbidden}
    assert scene.history.count("health") == 1
    scene.runpod.will_say("health", http(403))
    assert {type(ending) for ending in await submit_all(scene, 50)} == {EndpointRefused}


@in_virtual_time
async def test_an_endpoint_that_was_never_reached_is_refused_after_two_minutes() -> None:
    """A wrong URL or no network is said soon, not after the day that timeouts.run may last."""
    scene = Scene()
    scene.runpod.play = lambda given: Play(error=Unreachable("no connection to nowhere:443"))
    clock = scene.clock
    while scene.endpoint.refusal is None:
        with pytest.raises((Unreachable, EndpointRefused)):
            await submit(scene)
        await clock.sleep(1.0)
    assert clock.elapsed_s == 121.0
    assert scene.endpoint.refusal.render() == (
        "error: endpoint 'sdxl' refused: no connection to nowhere:443\n"
        "  help: check the endpoint's 'base_url' and this machine's network"
    )


@pytest.mark.parametrize("answer", [None, http(500), http(429), http(404)], ids=["200", "500", "429", "404"])
@in_virtual_time
async def test_an_endpoint_that_was_reached_once_is_waited_for(answer: RunPodError | None) -> None:
    """A night without network in the middle of a batch costs a night, nothing else."""
    scene = Scene()
    scene.runpod.will_play(Play(error=answer))
    await submit_all(scene, 1)
    scene.runpod.play = lambda given: Play(error=Unreachable("no connection"))
    for _ in range(10):
        with pytest.raises(Unreachable):
            await submit(scene)
        await scene.clock.sleep(3600.0)
    assert scene.endpoint.refusal is None


@in_virtual_time
async def test_that_an_endpoint_is_known_is_believed_for_some_seconds() -> None:
    """Many jobs may be missing at once."""
    scene = Scene()
    for _ in range(3):
        await scene.endpoint.check_known(within_s=5.0)
        await scene.clock.sleep(2.0)
    await scene.endpoint.check_known(within_s=5.0)
    assert scene.history.count("health") == 2


@in_virtual_time
async def test_a_clock_that_steps_changes_no_pace() -> None:
    """Rates and patience are measured on a clock that never steps back."""
    scene = Scene(rates={"run": Rate(1, 10.0)})
    clock: FakeClock = scene.clock
    for step_s in (-3600.0, 7200.0, 0.0):
        await submit(scene)
        clock.stepped_s += step_s
    assert clock.elapsed_s == 20.0


# As many in flight as are of use


@in_virtual_time
async def test_health_says_how_many_runs_may_be_in_flight() -> None:
    """Where the job file leaves it to us, and again after each look."""
    scene = Scene()
    endpoint = LiveEndpoint(scene.endpoint.destination, scene.runpod, Pace(FAST), scene.clock, concurrency=None)
    widths = []
    for workers, queued in ((0, 0), (12, 0), (12, 50), (25, 50)):
        found = EndpointHealth({"inQueue": queued}, {"idle": 0, "ready": 0, "running": workers})
        scene.runpod.will_say("health", found)
        await endpoint.health()
        widths.append(endpoint.slots.limit)
    assert widths == [64, 96, 144, 200]


@pytest.mark.parametrize("error", [http(429), http(500), http(502)], ids=["429", "500", "502"])
@in_virtual_time
async def test_trouble_shrinks_what_is_in_flight_and_calm_brings_it_back(error: RunPodError) -> None:
    """Whoever is overwhelmed is not helped by as many more. One that goes wrong, or two, may be chance."""
    scene = Scene(concurrency=100)
    scene.runpod.will_play(*[Play(error=error)] * 3)
    for left in (100, 100, 70):
        with pytest.raises(RunPodError):
            await submit(scene)
        assert scene.endpoint.slots.limit == left
    await asyncio.sleep(60.0)
    scene.endpoint.ended("photos", ran_s=1.0, queued_s=1.0, waited_s=None)
    assert scene.endpoint.slots.limit == 100


@in_virtual_time
async def test_a_short_ttl_narrows_it_until_it_is_known_how_long_runs_take() -> None:
    """What waits in the queue when its ttl is over is lost."""
    scene = Scene(concurrency=100)
    scene.endpoint.expect(ttl_s=600.0, execution_s=60.0)
    assert scene.endpoint.slots.limit == 5
    scene.endpoint.ended("photos", ran_s=1.0, queued_s=0.0, waited_s=None)
    assert scene.endpoint.slots.limit == 100
