import asyncio

import pytest
from fakes import EPOCH, After, FakeRunPod, Scene, an_endpoint, http, in_virtual_time

from runner.answers import EndpointHealth
from runner.errors import RecordError
from runner.events import Sampled
from runner.sample import look, sampling

GOOD = EndpointHealth({"inQueue": 3}, {"ready": 1, "throttled": 2})


def sampled(scene: Scene) -> list[tuple[float, str, str | None]]:
    """When each sample was taken, of which endpoint, and what was wrong."""
    samples = [event for event in scene.recorder.events if isinstance(event, Sampled)]
    return [(round(one.at - EPOCH, 3), one.endpoint, one.problem) for one in samples]


@in_virtual_time
async def test_a_look_keeps_the_counters_that_runpod_gave() -> None:
    """The report says from them why a queue is stuck."""
    scene = Scene()
    scene.runpod.will_say("health", GOOD)
    await look(scene.endpoint, scene.recorder, scene.clock)
    assert scene.recorder.events == [Sampled("sdxl", EPOCH, GOOD.jobs, GOOD.workers)]


@pytest.mark.parametrize(
    ("error", "refusal", "problem"),
    [
        pytest.param(
            http(404),
            "error: endpoint 'sdxl' refused: POST /run of endpoint 'ep': HTTP 404\n"
            "  help: check the endpoint's 'id', and that the key may see it",
            "POST /run of endpoint 'ep': HTTP 404",
            id="404",
        ),
        pytest.param(
            http(401),
            "error: endpoint 'sdxl' refused: POST /run of endpoint 'ep': HTTP 401\n"
            "  help: check the endpoint's 'api_key': RunPod's console lists the valid ones",
            "endpoint 'sdxl' refused: POST /run of endpoint 'ep': HTTP 401",
            id="401",
        ),
        pytest.param(http(403), None, "POST /run of endpoint 'ep': HTTP 403", id="403 speaks of /health alone"),
        pytest.param(http(503), None, "POST /run of endpoint 'ep': HTTP 503", id="503"),
    ],
)
@in_virtual_time
async def test_a_look_that_fails_is_a_sample_too(error: Exception, refusal: str | None, problem: str) -> None:
    """A wrong key or id is known before anything is submitted; an outage belongs in the report."""
    scene = Scene()
    scene.runpod.will_say("health", error)
    await look(scene.endpoint, scene.recorder, scene.clock)
    assert scene.recorder.events == [Sampled("sdxl", EPOCH, {}, {}, problem)]
    assert (scene.endpoint.refusal and scene.endpoint.refusal.render()) == refusal


@in_virtual_time
async def test_endpoints_are_looked_at_before_during_and_after() -> None:
    """A batch that takes a second has two samples, and no endpoint waits for a slower one."""
    scene = Scene()
    slow = FakeRunPod()
    slow.latency_s = 2.0
    async with sampling([scene.endpoint, an_endpoint(slow, scene.clock, name="slow")], scene.recorder, scene.clock):
        assert scene.clock.elapsed_s == 2.0
        await asyncio.sleep(31.0)
    assert sampled(scene) == [
        (0.0, "sdxl", None),
        (2.0, "slow", None),
        (17.0, "sdxl", None),
        (19.0, "slow", None),
        (33.0, "sdxl", None),
        (35.0, "slow", None),
    ]


@in_virtual_time
async def test_the_last_look_keeps_nobody_waiting() -> None:
    """Kubernetes kills 30 s after SIGTERM, and the report is still to be written."""
    scene = Scene()
    async with sampling([scene.endpoint], scene.recorder, scene.clock):
        scene.runpod.will_say("health", After(60.0, GOOD))
    assert scene.clock.elapsed_s == 5.0
    assert sampled(scene) == [(0.0, "sdxl", None)]


@in_virtual_time
async def test_an_error_in_the_block_comes_out_at_once() -> None:
    """A batch that failed has no last look to wait for."""
    scene = Scene()
    with pytest.raises(TimeoutError):
        async with sampling([scene.endpoint], scene.recorder, scene.clock):
            await asyncio.wait_for(asyncio.Event().wait(), 1.0)
    assert scene.history.count("health") == 1


@pytest.mark.parametrize("broken_at", [0, 2], ids=["at once", "later"])
@in_virtual_time
async def test_a_folder_that_can_t_be_written_comes_out_and_leaves_nothing_running(broken_at: int) -> None:
    """A full disk must not be hidden by what only watches."""
    scene = Scene()
    scene.recorder.broken_at = broken_at
    slow = FakeRunPod()
    slow.latency_s = 2.0
    endpoints = [scene.endpoint, an_endpoint(slow, scene.clock, name="slow")]
    with pytest.raises(RecordError):
        async with sampling(endpoints, scene.recorder, scene.clock):
            await asyncio.sleep(60.0)
