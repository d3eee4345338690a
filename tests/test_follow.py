import asyncio
from itertools import pairwise
from typing import Any

import pytest
from fakes import EPOCH, After, Play, Scene, http, in_virtual_time, not_found

from runner.answers import RemoteJob
from runner.errors import EndpointRefused, RateLimited, RunPodError, TooLarge, Unreachable, Unreadable, Unsupported
from runner.follow import Following, Vanished
from runner.states import Outcome
from runner.units import Rate

DONE = RemoteJob("job-1", "COMPLETED", "ok")
QUEUED = RemoteJob("job-1", "IN_QUEUE")
RUNNING = RemoteJob("job-1", "IN_PROGRESS")
HTML = Unreadable("GET /status of endpoint 'ep': HTTP 200 with an answer that is not JSON", status=200, detail="<html>")


def follow(scene: Scene, job_id: str = "job-1", *, age_s: float = 0.0) -> Following:
    """Follow a job that was submitted *age_s* seconds ago."""
    return Following(scene.endpoint, job_id, submitted_at=EPOCH - age_s, request_timeout_s=30.0, clock=scene.clock)


@in_virtual_time
async def test_a_held_look_answers_the_moment_the_job_ends() -> None:
    """One request a minute and a half is enough, and nobody waits for a poll."""
    scene = Scene()
    scene.runpod.add_job("job-1", Play(takes_s=200.0))
    assert isinstance(await follow(scene).until_final(), RemoteJob)
    assert scene.clock.elapsed_s == 200.0
    assert scene.runpod.calls["status-sync"] == [1000.0, 1090.0, 1180.0]
    assert scene.history == ["status-sync job-1"] * 3


@in_virtual_time
async def test_a_server_that_holds_nothing_is_not_hammered() -> None:
    """A proxy that cuts held requests, or a server that ignores `wait`, gets looks ever further apart."""
    scene = Scene()
    scene.runpod.will_say("status-sync", QUEUED)
    scene.after(60.0, scene.runpod.will_say, "status-sync", DONE)
    assert await follow(scene).until_final() == DONE
    gaps = [round(b - a, 2) for a, b in pairwise(scene.runpod.calls["status-sync"])]
    assert gaps[:8] == [0.38, 0.56, 0.84, 1.27, 1.9, 2.85, 4.27, 5.0]
    assert set(gaps[8:]) == {5.0}


@in_virtual_time
async def test_a_slow_server_is_not_taken_for_one_that_holds() -> None:
    """A plain look that took two seconds, or waited for its turn, is followed by a pause as any other."""
    scene = Scene(rates={"status": Rate(1, 3.0)})
    scene.endpoint.can_hold = False
    scene.runpod.will_say("status", *[After(2.0, RUNNING)] * 10, DONE)
    assert await follow(scene).until_final() == DONE
    assert [round(b - a, 1) for a, b in pairwise(scene.runpod.calls["status"])][-3:] == [7.0, 7.0, 7.0]


@pytest.mark.parametrize("error", [http(404), http(405), http(501)], ids=["404", "405", "501"])
@in_virtual_time
async def test_status_alone_is_asked_for_good_once_status_sync_turns_out_to_be_missing(error: RunPodError) -> None:
    """status-sync is in RunPod's clients only, so it may be gone one day; /status says that the job is there."""
    scene = Scene()
    scene.runpod.add_job("job-1", Play(takes_s=2.0))
    scene.runpod.add_job("job-2", Play(takes_s=2.0))
    scene.runpod.will_say("status-sync", error)
    assert isinstance(await follow(scene).until_final(), RemoteJob)
    assert isinstance(await follow(scene, "job-2").until_final(), RemoteJob)
    assert scene.history.count("status-sync job-1") == 1
    assert scene.history.count("status-sync job-2") == 0
    assert not scene.endpoint.can_hold


@in_virtual_time
async def test_a_job_that_is_not_visible_yet_does_not_speak_against_status_sync() -> None:
    """Once it has answered, a 404 is about the job; else one race would turn a batch to polling for good."""
    scene = Scene()
    scene.runpod.add_job("job-1", Play(takes_s=1.0))
    await follow(scene).until_final()
    scene.runpod.will_say("status-sync", not_found(), RemoteJob("job-2", "COMPLETED"))
    assert await follow(scene, "job-2").until_final() == RemoteJob("job-2", "COMPLETED")
    assert scene.endpoint.can_hold
    assert scene.history == ["status-sync job-1", "status-sync job-2", "status-sync job-2"]


@in_virtual_time
async def test_a_404_of_both_says_nothing_about_status_sync() -> None:
    """The job is what is missing."""
    scene = Scene()
    assert isinstance(await follow(scene, age_s=60.0).until_final(), Vanished)
    assert scene.endpoint.can_hold


@in_virtual_time
async def test_jobs_beyond_the_held_ones_are_looked_at_plainly() -> None:
    """Held requests eat the allowance for concurrent ones, so some stays free, and nobody waits for a place."""
    scene = Scene()
    scene.endpoint.held = asyncio.Semaphore(1)
    for job_id in ("job-1", "job-2"):
        scene.runpod.add_job(job_id, Play(takes_s=20.0))
    await asyncio.gather(follow(scene).until_final(), follow(scene, "job-2").until_final())
    assert scene.history.count("status-sync job-1") == 1
    assert scene.history.count("status job-2") > 5
    assert scene.clock.elapsed_s < 26.0


@pytest.mark.parametrize(
    ("error", "waits_s"),
    [
        pytest.param(http(500), 0.125 + 0.25 + 0.5 + 1.0, id="500"),
        pytest.param(http(502, "<html>"), 0.125 + 0.25 + 0.5 + 1.0, id="502"),
        pytest.param(RunPodError("reset"), 0.125 + 0.25 + 0.5 + 1.0, id="reset"),
        pytest.param(Unreachable("no connection"), 0.125 + 0.25 + 0.5 + 1.0, id="no connection"),
        pytest.param(http(400), 0.125 + 0.25 + 0.5 + 1.0, id="400"),
        pytest.param(http(403), 0.125 + 0.25 + 0.5 + 1.0, id="a lone 403"),
        pytest.param(http(429), 0.1 + 0.2 + 0.5 + 1.0, id="429"),
        pytest.param(http(429, retry_after="9"), 36.0, id="429 with Retry-After"),
    ],
)
@in_virtual_time
async def test_a_fault_on_the_way_is_no_outcome(error: RunPodError, waits_s: float) -> None:
    """The job goes on and is paid for, whatever becomes of a look at it."""
    scene = Scene()
    scene.runpod.will_say("status-sync", *[error] * 4, DONE)
    assert await follow(scene).until_final() == DONE
    assert scene.clock.elapsed_s == pytest.approx(waits_s)


@in_virtual_time
async def test_pauses_after_faults_stay_within_half_a_minute() -> None:
    """An endpoint that was away for hours is noticed soon after it is back: results are kept for 30 minutes."""
    scene = Scene(chance=0.999)
    scene.runpod.will_say("status-sync", http(503))
    scene.after(7200.0, scene.runpod.will_say, "status-sync", DONE)
    assert await follow(scene).until_final() == DONE
    assert 7200.0 <= scene.clock.elapsed_s <= 7230.0
    assert len(scene.runpod.calls["status-sync"]) < 260


@in_virtual_time
async def test_only_the_four_final_words_are_final() -> None:
    """An unknown word, a step back, or output under way (that is progress) is waited out."""
    scene = Scene()
    looks = [
        QUEUED,
        RemoteJob("job-1", "IN_PROGRESS", output={"pct": 40}),
        QUEUED,
        RemoteJob("job-1", "RUNNING"),
        RemoteJob("job-1", "WARMING_UP", output="not a result"),
        RemoteJob("job-1", "completed"),
        DONE,
    ]
    scene.runpod.will_say("status-sync", *looks)
    following = follow(scene)
    assert await following.until_final() == DONE
    assert len(scene.runpod.calls["status-sync"]) == 7
    assert following.last_status == "COMPLETED"


@pytest.mark.parametrize(
    ("age_s", "lasts_s"),
    [pytest.param(0.0, 11.0, id="just submitted"), pytest.param(600.0, 1.0, id="ten minutes ago")],
)
@in_virtual_time
async def test_a_404_means_lost_only_after_the_grace_and_a_second_look(age_s: float, lasts_s: float) -> None:
    """A job may not be visible at once, and one 404 of a proxy must not cost a result."""
    scene = Scene()
    found = await follow(scene, age_s=age_s).until_final()
    assert found == Vanished(Outcome.LOST, "RunPod no longer knows job job-1 (404 twice)")
    assert scene.clock.elapsed_s == pytest.approx(lasts_s, abs=0.01)
    assert scene.history[-3:] == ["status-sync job-1", "status job-1", "health"]


@in_virtual_time
async def test_a_404_that_takes_long_to_come_speaks_of_when_it_was_asked_for() -> None:
    """A job that was not visible yet must not be lost, and paid for again, for an answer's long way."""
    scene = Scene()
    scene.endpoint.can_hold = False
    scene.runpod.will_say("status", *[After(8.0, not_found())] * 3, DONE)
    assert await follow(scene).until_final() == DONE


@in_virtual_time
async def test_a_step_of_the_calendar_does_not_take_the_grace_away() -> None:
    """A machine may set its clock in the middle of a batch."""
    scene = Scene()
    scene.endpoint.can_hold = False
    scene.runpod.will_say("status", not_found(), not_found(), not_found(), DONE)
    following = follow(scene)
    scene.clock.stepped_s = 3600.0
    assert await following.until_final() == DONE


@in_virtual_time
async def test_a_job_that_shows_up_after_404s_is_followed() -> None:
    """Looks count in a row: one good answer, and the job is there."""
    scene = Scene()
    scene.endpoint.can_hold = False
    scene.runpod.will_say("status", not_found(), RUNNING, not_found(), RUNNING, not_found(), DONE)
    assert await follow(scene, age_s=60.0).until_final() == DONE


@pytest.mark.parametrize("error", [http(404), http(401), http(402)], ids=["404", "401", "402"])
@in_virtual_time
async def test_nothing_is_lost_while_the_endpoint_itself_is_refused(error: RunPodError) -> None:
    """A deleted key or endpoint makes every job answer 404: none of them is to be settled for that."""
    scene = Scene()
    scene.runpod.will_say("health", error)
    with pytest.raises(EndpointRefused) as caught:
        await follow(scene, age_s=60.0).until_final()
    assert scene.endpoint.refusal is caught.value
    if error.status == 404:
        assert caught.value.render() == (
            "error: endpoint 'sdxl' refused: POST /run of endpoint 'ep': HTTP 404\n"
            "  help: the endpoint is unknown to RunPod or to this key; its jobs are kept for --resume"
        )


@pytest.mark.parametrize("error", [http(500), http(429), http(403), Unreachable("no")], ids=str)
@in_virtual_time
async def test_nothing_is_lost_while_nobody_can_say_whether_the_endpoint_is_known(error: RunPodError) -> None:
    """An outage looks like this, and ends."""
    scene = Scene()
    scene.runpod.will_say("health", error)
    scene.after(600.0, scene.runpod.add_job, "job-1", Play(takes_s=0.0))
    assert isinstance(await follow(scene, age_s=60.0).until_final(), RemoteJob)
    assert scene.clock.elapsed_s < 700.0


@in_virtual_time
async def test_an_endpoint_that_was_unknown_for_a_moment_costs_no_result() -> None:
    """Each of the two looks must be borne out by /health: the first was of that moment, the second finds the job."""
    scene = Scene()
    scene.endpoint.can_hold = False
    scene.runpod.will_say("status", not_found(), DONE)
    assert await follow(scene, age_s=60.0).until_final() == DONE
    assert scene.history == ["status job-1", "health", "status job-1"]


@in_virtual_time
async def test_an_answer_of_health_from_before_the_look_does_not_count() -> None:
    """The endpoint may have gone since, and its jobs with it: none of them is to be settled for that."""
    scene = Scene()
    assert isinstance(await follow(scene, age_s=60.0).until_final(), Vanished)
    scene.runpod.will_say("health", http(404))
    with pytest.raises(EndpointRefused):
        await follow(scene, "job-2", age_s=60.0).until_final()


@in_virtual_time
async def test_one_answer_of_health_serves_all_jobs_that_are_missing() -> None:
    """A purged queue makes hundreds of jobs unknown at once, and /health has a rate of its own."""
    scene = Scene()
    found = await asyncio.gather(*(follow(scene, f"job-{n}", age_s=60.0).until_final() for n in range(100)))
    assert {one.outcome for one in found if isinstance(one, Vanished)} == {Outcome.LOST}
    assert scene.history.count("health") == 2, "one after each of the two looks"


@in_virtual_time
async def test_three_unreadable_answers_in_a_row_are_an_outcome() -> None:
    """A handler's answer that no reader takes will not get better, and somebody has to look at it."""
    scene = Scene()
    scene.runpod.will_say("status-sync", HTML)
    found = await follow(scene).until_final()
    assert found == Vanished(Outcome.UNREADABLE, f"{HTML.message}: <html>")
    assert len(scene.runpod.calls["status-sync"]) == 3


@in_virtual_time
async def test_a_page_of_a_proxy_that_passes_costs_no_result() -> None:
    """The three looks are far enough apart for a hiccup of the edge, and a good one starts the count anew."""
    scene = Scene()
    scene.endpoint.can_hold = False
    scene.runpod.add_job("job-1", Play(takes_s=600.0))
    for at_s in (10.0, 110.0):
        scene.after(at_s, scene.runpod.will_say, "status", HTML)
        scene.after(at_s + 20.0, scene.runpod.will_recover, "status")
    assert isinstance(await follow(scene).until_final(), RemoteJob)


@in_virtual_time
async def test_an_answer_that_is_too_large_is_an_outcome() -> None:
    """It would be as large the next time."""
    scene = Scene()
    scene.runpod.will_say("status-sync", TooLarge("an answer over 256 MiB", status=200))
    assert await follow(scene).until_final() == Vanished(Outcome.TOO_LARGE, "an answer over 256 MiB")


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(lambda runpod: None, id="held"),
        pytest.param(lambda runpod: runpod.will_say("status-sync", http(500)), id="backing off"),
        pytest.param(lambda runpod: runpod.will_say("status-sync", RateLimited("429", retry_after_s=60.0)), id="429"),
        pytest.param(lambda runpod: runpod.will_say("status-sync", Unsupported("405")), id="polling"),
    ],
)
@in_virtual_time
async def test_cancelling_the_wait_gives_everything_back(trouble: Any) -> None:
    """A held place that is not given back would slowly turn a batch to polling, then stop it."""
    scene = Scene(concurrency=1)
    scene.runpod.add_job("job-1", Play(takes_s=600.0))
    trouble(scene.runpod)
    task = asyncio.create_task(follow(scene).until_final())
    scene.after(30.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not scene.endpoint.held.locked()
    assert scene.runpod.cancelled == []


@pytest.mark.parametrize(
    ("age_s", "why"),
    [
        pytest.param(60.0, "404 twice", id="no reason is known"),
        pytest.param(
            2520.0, "nobody looked at it for 42m01s, and a result is kept for 30m", id="a laptop that was asleep"
        ),
        pytest.param(90_000.0, "its ttl of 1d is over", id="a ttl that is over"),
    ],
)
@in_virtual_time
async def test_a_lost_job_is_told_with_what_may_have_become_of_it(age_s: float, why: str) -> None:
    """RunPod answers 404 for five reasons; a result that expired unseen was paid for, and is called that."""
    scene = Scene()
    found = await follow(scene, age_s=age_s).until_final()
    assert found == Vanished(Outcome.LOST, f"RunPod no longer knows job job-1 ({why})")
