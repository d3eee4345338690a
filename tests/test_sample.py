"""Looks at the endpoints' health, and the gate that waits for workers."""

import asyncio
import logging

import pytest
from fakes import EPOCH, After, FakeRunPod, Scene, an_endpoint, http, in_virtual_time

from runner.answers import EndpointHealth
from runner.errors import Paused, RecordError
from runner.events import Sampled
from runner.health import PAUSED
from runner.sample import gate, look, sampling

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
    sample = await look(scene.endpoint, scene.recorder, scene.clock)
    assert scene.recorder.events == [sample] == [Sampled("sdxl", EPOCH, GOOD.jobs, GOOD.workers)]


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
        pytest.param(http(409), None, PAUSED, id="409"),
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
async def test_an_endpoint_that_refuses_submits_as_paused_is_so_whatever_its_health_says() -> None:
    """Its counters are all 0, which looks like an idle one; and once a job is taken, it is paused no more."""

    async def refused() -> None:
        raise http(409)

    async def taken() -> None:
        """Nothing is wrong."""

    scene = Scene()
    scene.runpod.will_say("health", GOOD)
    with pytest.raises(Paused):
        await scene.endpoint.call("run", refused)
    await look(scene.endpoint, scene.recorder, scene.clock)
    await scene.endpoint.call("status", taken)
    await look(scene.endpoint, scene.recorder, scene.clock)
    await scene.endpoint.call("run", taken)
    await look(scene.endpoint, scene.recorder, scene.clock)
    assert [problem for _, _, problem in sampled(scene)] == [PAUSED, PAUSED, None]


@in_virtual_time
async def test_the_log_says_what_became_of_an_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    """Once for each change, so that a night with a throttled endpoint is two lines."""
    caplog.set_level(logging.INFO, logger="runner.sample")
    scene = Scene()
    scene.runpod.will_say("health", GOOD, GOOD, EndpointHealth({"inQueue": 0}, {"running": 2}))
    for _ in range(3):
        await look(scene.endpoint, scene.recorder, scene.clock)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "throttled: 2 of 3 workers without a free GPU, 3 jobs waiting; allow more GPU types or data centers",
        ),
        ("INFO", "working: 2 workers busy, nothing waits"),
    ]


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
async def test_the_job_file_says_how_often_an_endpoint_is_looked_at() -> None:
    """`health.every`: a batch of a week needs no look every quarter of a minute."""
    scene = Scene()
    async with sampling([scene.endpoint], scene.recorder, scene.clock, every_s=60.0):
        await asyncio.sleep(130.0)
    assert [at for at, _, _ in sampled(scene)] == [0.0, 60.0, 120.0, 130.0]


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


@in_virtual_time
async def test_what_was_submitted_before_is_followed_while_health_is_asked_for() -> None:
    """A resume follows at once, results expire; only what is new waits until a wrong key or id would be known."""
    scene = Scene()
    scene.runpod.latency_s = 2.0
    async with sampling([scene.endpoint], scene.recorder, scene.clock, waits=False):
        assert (scene.clock.elapsed_s, scene.endpoint.is_open) == (0.0, False)
        await scene.endpoint.until_open()
        assert scene.clock.elapsed_s == 2.0


@in_virtual_time
async def test_a_health_that_can_t_be_read_holds_nothing_back() -> None:
    """An outage of /health is in the report; it says nothing of submits."""
    scene = Scene()
    scene.runpod.will_say("health", http(503))
    async with sampling([scene.endpoint], scene.recorder, scene.clock, waits=False):
        await scene.endpoint.until_open()
    assert scene.clock.elapsed_s == 0.0


# The gate


def workers(idle: int, running: int = 0) -> EndpointHealth:
    """What an endpoint says that has so many workers up."""
    return EndpointHealth({"inQueue": 0}, {"idle": idle, "ready": idle, "running": running, "initializing": 1})


@in_virtual_time
async def test_the_gate_opens_as_soon_as_there_are_enough_workers() -> None:
    """Each look is a sample, so that the report shows how long the workers took."""
    scene = Scene()
    scene.runpod.will_say("health", workers(0), workers(1), workers(1, running=1), workers(2, running=1))
    await gate(scene.endpoint, scene.recorder, scene.clock, workers_ready=3, wait_s=300.0)
    assert scene.endpoint.refusal is None
    assert [at for at, _, _ in sampled(scene)] == [0.0, 5.0, 10.0, 15.0]


@in_virtual_time
async def test_the_gate_opens_at_once_where_the_workers_are_there() -> None:
    """A warm endpoint costs one look."""
    scene = Scene()
    scene.runpod.will_say("health", workers(3))
    await gate(scene.endpoint, scene.recorder, scene.clock, workers_ready=3, wait_s=0.0)
    assert (scene.endpoint.refusal, scene.clock.elapsed_s) == (None, 0.0)


@pytest.mark.parametrize(
    ("answers", "wait_s", "wanted", "refusal"),
    [
        pytest.param(
            [workers(1)],
            300.0,
            3,
            "error: endpoint 'sdxl' has 1 of 3 workers ready after 5m: cold start: 1 of 2 workers starting\n"
            "  help: wait longer (health.wait), raise its active (min) workers, or lower health.require.workers_ready",
            id="too few",
        ),
        pytest.param(
            [workers(0)],
            0.0,
            1,
            "error: endpoint 'sdxl' has 0 of 1 worker ready: cold start: 1 of 1 worker starting\n"
            "  help: wait longer (health.wait), raise its active (min) workers, or lower health.require.workers_ready",
            id="no time to wait",
        ),
        pytest.param(
            [workers(2), http(503)],
            90.0,
            3,
            "error: endpoint 'sdxl' has 2 of 3 workers ready after 90s: cold start: 1 of 3 workers starting\n"
            "  help: wait longer (health.wait), raise its active (min) workers, or lower health.require.workers_ready",
            id="the last word counts",
        ),
        pytest.param(
            [EndpointHealth({"inQueue": 0}, {"idle": 0, "running": 0, "initializing": 0})],
            300.0,
            1,
            "error: endpoint 'sdxl' has 0 of 1 worker ready after 5m\n"
            "  help: raise its active (min) workers, or lower health.require.workers_ready",
            id="one that scales to zero",
        ),
        pytest.param(
            [EndpointHealth({"inQueue": 0}, {"idle": 1, "running": 0, "throttled": 2})],
            300.0,
            3,
            "error: endpoint 'sdxl' has 1 of 3 workers ready after 5m: throttled: 2 of 3 workers without a free GPU\n"
            "  help: allow more GPU types or data centers",
            id="no GPUs",
        ),
        pytest.param(
            [EndpointHealth({"inQueue": 0}, {"idle": 2, "running": 0, "unhealthy": 2})],
            300.0,
            4,
            "error: endpoint 'sdxl' has 2 of 4 workers ready after 5m: crash-looping: 2 of 4 workers unhealthy, 2 up\n"
            "  help: see their logs in RunPod's console, then the endpoint's container image, start command and"
            " env variables",
            id="workers that crash",
        ),
        pytest.param(
            [http(503)],
            60.0,
            3,
            "error: endpoint 'sdxl' does not say how many workers are ready after 1m"
            " (POST /run of endpoint 'ep': HTTP 503)\n"
            "  help: see what 'runner health' says of it, or leave health.require.workers_ready out",
            id="an outage",
        ),
        pytest.param(
            [EndpointHealth({}, {})],
            60.0,
            3,
            "error: endpoint 'sdxl' does not say how many workers are ready after 1m\n"
            "  help: see what 'runner health' says of it, or leave health.require.workers_ready out",
            id="no counters",
        ),
    ],
)
@in_virtual_time
async def test_an_endpoint_without_the_workers_is_refused_when_the_wait_is_over(
    answers: list[object], wait_s: float, wanted: int, refusal: str
) -> None:
    """Nothing is submitted that would wait in the queue until its ttl ends it."""
    scene = Scene()
    scene.runpod.will_say("health", *answers)
    await gate(scene.endpoint, scene.recorder, scene.clock, workers_ready=wanted, wait_s=wait_s)
    assert (scene.endpoint.refusal and scene.endpoint.refusal.render()) == refusal
    assert scene.clock.elapsed_s == wait_s


@in_virtual_time
async def test_an_outage_while_waiting_is_not_the_last_word() -> None:
    """RunPod's front door has bad minutes, and workers that start meanwhile."""
    scene = Scene()
    scene.runpod.will_say("health", http(503), http(409), http(429), workers(3))
    await gate(scene.endpoint, scene.recorder, scene.clock, workers_ready=3, wait_s=300.0)
    assert scene.endpoint.refusal is None
    assert len(sampled(scene)) == 4


@pytest.mark.parametrize("status", [401, 404])
@in_virtual_time
async def test_a_wrong_key_or_id_ends_the_wait(status: int) -> None:
    """No time makes it right, and its own message says what to mend."""
    scene = Scene()
    scene.runpod.will_say("health", workers(0), http(status))
    await gate(scene.endpoint, scene.recorder, scene.clock, workers_ready=3, wait_s=300.0)
    assert scene.endpoint.refusal is not None
    assert scene.endpoint.refusal.message == f"endpoint 'sdxl' refused: POST /run of endpoint 'ep': HTTP {status}"
    assert scene.clock.elapsed_s == 5.0


@in_virtual_time
async def test_the_gate_looks_as_often_as_the_job_file_says_if_that_is_more_often() -> None:
    """`health.every: 1s` is for a test with a local endpoint; nobody waits 5 s for it."""
    scene = Scene()
    scene.runpod.will_say("health", workers(0), workers(0), workers(1))
    await gate(scene.endpoint, scene.recorder, scene.clock, workers_ready=1, wait_s=300.0, every_s=1.0)
    assert [at for at, _, _ in sampled(scene)] == [0.0, 1.0, 2.0]


@in_virtual_time
async def test_a_gate_that_nobody_waits_at_any_more_refuses_nothing() -> None:
    """Ctrl-C ends the wait; a resume asks again."""
    scene = Scene()
    scene.runpod.will_say("health", workers(0))
    waiting = asyncio.create_task(gate(scene.endpoint, scene.recorder, scene.clock, workers_ready=1, wait_s=300.0))
    await asyncio.sleep(12.0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert scene.endpoint.refusal is None
