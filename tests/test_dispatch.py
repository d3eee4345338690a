import asyncio
import gc
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
from fakes import EPOCH, FakeRunPod, Play, Scene, a_run, an_endpoint, http, in_virtual_time, not_found
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.artifacts import Artifacts
from runner.check import Templates
from runner.dispatch import Lanes, dispatch
from runner.endpoint import LiveEndpoint
from runner.errors import AnswerLost, RecordError, Unreachable, UsageError
from runner.events import Accepted, CancelDecided, Destination, Ended, Event, Intended, Settled, Withdrawn
from runner.feed import Feed
from runner.judge import StopAt
from runner.outputs import Outputs
from runner.payload import RUN_BODY_BYTES
from runner.policy import RetryPolicy
from runner.runs import Run
from runner.states import MOVES, RETRYABLE, Outcome, State
from runner.stop import Reason, Switch
from runner.tally import JobTally
from runner.units import Rate
from runner.values import parse
from runner.work import Work, ours

NOTHING_MORE = Outputs(Templates(input=lambda _scope: None, where=None), {}, cast(Artifacts, None), loopback=False)
NO_LIMIT = StopAt()
ONCE = RetryPolicy(1, (), 1.0, 60.0)
CRASHED = Play(status="FAILED", failure="job timed out after 1 retries")
LOST_ANSWER = Play(error=AnswerLost("no answer within 30s"), accepted=True)


def plan(count: int, *, job: str = "photos") -> Iterator[Run]:
    """The runs of a job."""
    return (a_run(number, job=job) for number in range(count))


def job(
    scene: Scene,
    runs: Iterator[Run],
    *,
    planned: int = 10,
    width: int = 5,
    first: Iterable[Work] = (),
    known: frozenset[str] = frozenset(),
    retry: RetryPolicy = ONCE,
    resubmit: bool = False,
    timeout_s: float | None = None,
    endpoint: LiveEndpoint | None = None,
    elsewhere: Mapping[Destination, LiveEndpoint] | None = None,
    switch: Switch | None = None,
    tally: JobTally | None = None,
    stop_at: StopAt = NO_LIMIT,
) -> Lanes:
    """One job's lanes; by default they use the scene's endpoint and switch."""
    switch = switch or scene.switch
    return Lanes(
        name="photos",
        feed=Feed(runs, first, known=known.__contains__, switch=switch, clock=scene.clock),
        width=width,
        terms=scene.terms,
        retry=retry,
        resubmit=resubmit,
        stop_at=stop_at,
        timeout_s=timeout_s,
        endpoint=endpoint or scene.endpoint,
        elsewhere=elsewhere or {},
        recorder=scene.recorder,
        received=scene.received,
        outputs=NOTHING_MORE,
        clock=scene.clock,
        switch=switch,
        tally=tally or JobTally(planned),
    )


def ended(scene: Scene) -> dict[str, int]:
    """How many runs settled in each state, with each outcome."""
    settled = scene.recorder.settled.values()
    return dict(Counter(f"{one.state} {one.ending.outcome if one.ending else None}" for one in settled))


# Concurrency


@in_virtual_time
async def test_there_are_no_more_tasks_than_runs_in_flight_ask_for() -> None:
    """A width of 200 for an endpoint that takes five at once is no reason for 200 tasks; nor is a plan of 400 runs."""
    scene = Scene(concurrency=5)
    most = 0

    def look(given: object) -> Play:
        nonlocal most
        most = max(most, sum(task.get_name().startswith("lane-") for task in asyncio.all_tasks()))
        return Play()

    scene.runpod.play = look
    await dispatch([job(scene, plan(400), planned=400, width=200)])
    assert len(scene.recorder.settled) == 400
    assert most == 6, "and one that waits"


@in_virtual_time
async def test_a_job_has_no_more_runs_in_flight_than_its_lanes() -> None:
    """`concurrency` is a hard cap: workers, or an account, take no more."""
    scene = Scene()
    await dispatch([job(scene, plan(50), width=7)])
    assert scene.runpod.most_in_flight == 7
    assert ended(scene) == {"succeeded completed": 50}
    assert scene.clock.elapsed_s == pytest.approx(8 * 1.02, abs=0.1)


@in_virtual_time
async def test_jobs_that_share_an_endpoint_share_its_concurrency_fairly() -> None:
    """The endpoint's cap holds over all jobs, and none of them starves."""
    scene = Scene(concurrency=10)
    jobs = [job(scene, plan(60, job=name), width=8, switch=Switch()) for name in ("photos", "texts")]
    watch = asyncio.create_task(dispatch(jobs))
    await asyncio.sleep(4.0)
    settled = Counter(one.run.job for one in scene.recorder.settled.values())
    assert min(settled.values()) >= 10
    await watch
    assert scene.runpod.most_in_flight == 10
    assert ended(scene) == {"succeeded completed": 120}


@in_virtual_time
async def test_an_idle_job_holds_no_place_of_an_endpoint() -> None:
    """A job whose runs wait to be tried again leaves the workers to the others."""
    scene = Scene(concurrency=1)
    scene.runpod.play = lambda given: CRASHED if given["n"] == 0 else Play()
    patient = RetryPolicy(3, RETRYABLE, 100.0, 100.0)
    await dispatch(
        [
            job(scene, iter([a_run(0, job="flaky")]), retry=patient, switch=Switch()),
            job(scene, (a_run(number) for number in range(1, 41)), switch=Switch()),
        ]
    )
    settled = [event.run.job for event in scene.recorder.events if isinstance(event, Settled)]
    assert settled == ["photos"] * 40 + ["flaky"]
    assert scene.clock.elapsed_s < 110.0


@in_virtual_time
async def test_a_run_that_waits_to_be_tried_again_gives_its_lane_back() -> None:
    """One flaky input must not keep a worker idle for a minute."""
    scene = Scene()
    scene.runpod.play = lambda given: CRASHED if given["n"] == 0 and len(scene.runpod.jobs) < 5 else Play()
    await dispatch([job(scene, plan(10), width=1, retry=RetryPolicy(2, RETRYABLE, 8.0, 60.0))])
    order = [given["n"] for given in scene.runpod.submitted]
    assert order[:4] == [0, 1, 2, 3]
    assert 0 in order[4:7], "and it is tried again before the plan goes on"
    assert ended(scene) == {"succeeded completed": 10}


@in_virtual_time
async def test_no_worker_waits_while_a_settled_run_goes_to_the_disk() -> None:
    """The next run's intent comes after it in order, so that one commit does for both."""
    scene = Scene()
    scene.recorder.commit_s = 0.5
    await dispatch([job(scene, plan(2), planned=2, width=1)])
    assert ended(scene) == {"succeeded completed": 2}
    assert scene.clock.elapsed_s == pytest.approx(2 * (0.5 + 1.0) + 0.5, abs=0.1)


@in_virtual_time
async def test_a_run_counts_once_it_is_on_the_disk_and_the_job_waits_for_that() -> None:
    """Progress never says more than a resume would find."""
    scene, tally = Scene(), JobTally(1)
    scene.recorder.commit_s = 0.5
    watch = asyncio.create_task(dispatch([job(scene, plan(1), planned=1, tally=tally)]))
    await asyncio.sleep(1.8)
    assert [*scene.recorder.settled] == ["photos-0"]
    assert tally.settled == 0
    await watch
    assert tally.settled == 1


@in_virtual_time
async def test_a_job_with_stop_when_knows_of_a_failure_before_it_starts_anything_more() -> None:
    """What is on the disk decides, also over the next run of the same lane."""
    scene = Scene()
    scene.runpod.play = lambda given: CRASHED
    await dispatch([job(scene, plan(5), planned=5, width=1, stop_at=StopAt(failed_count=1))])
    assert ended(scene) == {"failed crashed": 1, "skipped None": 4}


# Retries


@pytest.mark.parametrize(
    ("attempts", "outcomes", "submits", "end"),
    [
        pytest.param(1, RETRYABLE, 1, "failed crashed", id="never"),
        pytest.param(3, RETRYABLE, 3, "failed crashed", id="three times"),
        pytest.param(3, {Outcome.LOST}, 1, "failed crashed", id="another outcome"),
    ],
)
@in_virtual_time
async def test_an_outcome_is_tried_again_as_often_as_the_policy_says(
    attempts: int, outcomes: Any, submits: int, end: str
) -> None:
    """Every attempt is paid for."""
    scene = Scene()
    scene.runpod.play = lambda given: CRASHED
    await dispatch([job(scene, plan(1), retry=RetryPolicy(attempts, outcomes, 1.0, 60.0))])
    assert len(scene.runpod.jobs) == submits
    assert ended(scene) == {end: 1}
    [settled] = scene.recorder.settled.values()
    assert settled.attempts == submits
    told = [words for words in scene.history if words.startswith(("Intended", "Ended", "Settled"))]
    again = [f"{what} {n}" for n in range(1, submits) for what in ("Intended", "Ended")]
    assert told == [
        *(f"{one} crashed" if one.startswith("Ended") else one for one in again),
        f"Intended {submits}",
        "Settled failed crashed",
    ]


@pytest.mark.parametrize(
    ("resubmit", "attempts", "plays", "submits", "end"),
    [
        pytest.param(False, 5, [LOST_ANSWER], 1, "failed answer_lost", id="by default it is not sent again"),
        pytest.param(True, 1, [LOST_ANSWER] * 4 + [Play()], 5, "succeeded completed", id="resubmit has no bound"),
        pytest.param(True, 2, [LOST_ANSWER, CRASHED, LOST_ANSWER, Play()], 4, "succeeded completed", id="both"),
        pytest.param(True, 2, [CRASHED, LOST_ANSWER, CRASHED], 3, "failed crashed", id="each is counted for itself"),
    ],
)
@in_virtual_time
async def test_a_lost_answer_is_a_matter_of_its_own_policy(
    resubmit: bool, attempts: int, plays: list[Play], submits: int, end: str
) -> None:
    """It may pay twice, so the user says so apart from `retry`, and it uses up no retry."""
    scene = Scene()
    scene.runpod.will_play(*plays)
    await dispatch([job(scene, plan(1), retry=RetryPolicy(attempts, RETRYABLE, 1.0, 60.0), resubmit=resubmit)])
    [settled] = scene.recorder.settled.values()
    assert (len(scene.runpod.jobs), settled.attempts) == (submits, submits)
    assert ended(scene) == {end: 1}


@in_virtual_time
async def test_a_lost_answer_is_resubmitted_ever_less_often() -> None:
    """An hour in which RunPod answers nothing but 502 must not be an hour of a paid job a second."""
    scene = Scene()
    scene.runpod.will_play(*[LOST_ANSWER] * 5, Play())
    await dispatch([job(scene, plan(1), retry=RetryPolicy(1, RETRYABLE, 2.0, 10.0), resubmit=True)])
    sent = scene.runpod.calls["run"]
    assert [round(after - before, 1) for before, after in itertools.pairwise(sent)] == [1.0, 2.0, 4.0, 5.0, 5.0]


@in_virtual_time
async def test_what_was_never_accepted_is_not_tried_again_though_the_calendar_steps_back() -> None:
    """There is no attempt of it that the ledger could end."""
    scene = Scene(run_timeout_s=10.0)
    scene.runpod.will_say("run", http(429))
    scene.after(3.0, setattr, scene.clock, "stepped_s", -3600.0)
    await dispatch([job(scene, plan(1), retry=RetryPolicy(3, RETRYABLE, 1.0, 60.0))])
    assert ended(scene) == {"failed timed_out": 1}
    assert not [words for words in scene.history if words.startswith("Ended")]


@in_virtual_time
async def test_no_attempt_begins_when_timeouts_run_leaves_no_time_for_it() -> None:
    """The limit is over all attempts, waits included."""
    scene = Scene(run_timeout_s=30.0)
    scene.runpod.play = lambda given: replace(CRASHED, takes_s=10.0)
    await dispatch([job(scene, plan(1), retry=RetryPolicy(9, RETRYABLE, 4.0, 4.0))])
    assert len(scene.runpod.jobs) == 3
    assert ended(scene) == {"failed timed_out": 1}
    assert scene.clock.elapsed_s == pytest.approx(30.0, abs=0.1)


@in_virtual_time
async def test_a_run_that_can_t_be_sent_is_settled_and_costs_nothing() -> None:
    """A row that can't be rendered, or a body that RunPod refuses, is that run's trouble only."""
    scene = Scene()
    large = replace(a_run(1), input={"n": 1, "image": "x" * RUN_BODY_BYTES})
    await dispatch([job(scene, iter([a_run(0, problem="input.n: no such column"), large, a_run(2)]))])
    assert ended(scene) == {"failed invalid": 1, "failed too_large": 1, "succeeded completed": 1}
    errors = [one.ending.error["message"] for one in scene.recorder.settled.values() if one.ending and one.ending.error]
    assert errors == [
        "input.n: no such column",
        "the request body has 10.0 MiB, and RunPod's /run takes 10.0 MiB",
    ]


# timeouts.job


@in_virtual_time
async def test_timeouts_job_ends_the_job_and_gives_every_run_a_state() -> None:
    """What runs is cancelled, or counts if it just ended; what waits keeps its last ending; the rest is skipped."""
    scene = Scene()
    slow = {0: Play(takes_s=600.0), 1: replace(CRASHED, takes_s=20.0), 2: Play(takes_s=99.995)}
    scene.runpod.play = lambda given: slow.get(given["n"], Play(takes_s=600.0))
    tally = JobTally(20)
    retry = RetryPolicy(3, RETRYABLE, 400.0, 400.0)
    await dispatch([job(scene, plan(20), width=4, timeout_s=100.0, retry=retry, tally=tally)])
    assert ended(scene) == {
        "failed timed_out": 3,
        "failed crashed": 1,
        "succeeded completed": 1,
        "skipped None": 15,
    }
    assert tally.settled == 20
    assert scene.clock.elapsed_s == pytest.approx(100.0, abs=0.1)
    errors = [one.ending.error for one in scene.recorder.settled.values() if one.ending and one.ending.error]
    said = "timeouts.job passed; the job's last status was IN_PROGRESS, and it was cancelled"
    assert said in {error["message"] for error in errors}


@in_virtual_time
async def test_timeouts_job_skips_what_waits_to_be_accepted() -> None:
    """A run that RunPod never took is not in flight, whatever a lane is doing about it; the counts add up."""
    scene = Scene()
    scene.runpod.play = lambda given: Play(error=http(409)) if given["n"] % 2 else Play(error=http(429))
    tally = JobTally(10)
    await dispatch([job(scene, plan(10), timeout_s=100.0, tally=tally)])
    assert ended(scene) == {"skipped None": 10}
    assert tally.pending == 0
    assert scene.clock.elapsed_s == pytest.approx(100.0, abs=0.1)
    assert scene.runpod.cancelled == []


@pytest.mark.parametrize("reason", [Reason.INTERRUPT, Reason.REFUSED])
@in_virtual_time
async def test_timeouts_job_also_ends_a_job_that_was_stopped_before(reason: Reason) -> None:
    """A deadline is a deadline; but what a resume was promised stays for it."""
    scene = Scene()
    scene.runpod.play = lambda given: Play(takes_s=3600.0)
    scene.after(10.0, scene.switch.close, reason)
    await dispatch([job(scene, plan(10), timeout_s=100.0)])
    assert scene.clock.elapsed_s == pytest.approx(100.0, abs=0.1)
    assert ended(scene) == {"failed timed_out": 5}


@in_virtual_time
async def test_many_runs_are_skipped_quickly() -> None:
    """A commit takes a disk some milliseconds; a million of them, one by one, would take an hour."""
    scene = Scene()
    scene.runpod.play = lambda given: Play(takes_s=600.0)
    await dispatch([job(scene, plan(1_000), timeout_s=10.0, planned=1_000)])
    assert ended(scene) == {"failed timed_out": 5, "skipped None": 995}
    assert scene.clock.elapsed_s < 10.2


# Stops


@pytest.mark.parametrize("resubmit", [False, True])
@in_virtual_time
async def test_an_interrupt_starts_nothing_more_and_follows_what_runs(resubmit: bool) -> None:
    """What is paid for is fetched; the rest waits for a resume, without a line in results."""
    scene = Scene()
    scene.runpod.play = lambda given: Play(takes_s=60.0) if given["n"] != 3 else CRASHED
    scene.after(10.0, scene.switch.close, Reason.INTERRUPT)
    tally = JobTally(100)
    retry = RetryPolicy(2, RETRYABLE, 30.0, 30.0)
    await dispatch([job(scene, plan(100), retry=retry, resubmit=resubmit, tally=tally)])
    assert ended(scene) == {"succeeded completed": 5}
    assert (tally.pending, tally.in_flight) == (95, 0)
    assert scene.history[-1] != "Settled failed crashed"
    assert len(scene.runpod.jobs) == 6


@in_virtual_time
async def test_a_second_ctrl_c_cancels_what_runs_and_leaves_the_rest() -> None:
    """The person has decided about what runs; what was never sent costs nothing."""
    scene = Scene()
    scene.runpod.play = lambda given: Play(takes_s=600.0)
    scene.after(10.0, scene.switch.close, Reason.INTERRUPT)
    scene.after(12.0, scene.switch.cancel, Reason.CANCEL)
    await dispatch([job(scene, plan(100))])
    assert ended(scene) == {"cancelled cancelled": 5}
    assert scene.clock.elapsed_s == pytest.approx(12.0, abs=0.1)


@in_virtual_time
async def test_a_run_that_failed_when_it_was_to_be_cancelled_is_not_tried_again() -> None:
    """The person asked for an end, and it has one."""
    scene = Scene()
    scene.runpod.play = lambda given: replace(CRASHED, takes_s=9.995)
    scene.after(10.0, scene.switch.cancel, Reason.CANCEL)
    await dispatch([job(scene, plan(1), retry=RetryPolicy(5, RETRYABLE, 1.0, 1.0))])
    assert ended(scene) == {"failed crashed": 1}


@in_virtual_time
async def test_lanes_that_wait_for_the_endpoint_end_with_the_others() -> None:
    """Nobody may hang on a place that comes free only when the batch is over."""
    scene = Scene(concurrency=1)
    scene.runpod.play = lambda given: Play(takes_s=30.0)
    scene.after(10.0, scene.switch.close, Reason.INTERRUPT)
    await dispatch([job(scene, plan(10))])
    assert scene.clock.elapsed_s == pytest.approx(30.0, abs=0.1)
    assert ended(scene) == {"succeeded completed": 1}


@in_virtual_time
async def test_a_refused_endpoint_ends_its_jobs_and_no_others() -> None:
    """A wrong key for one endpoint is no reason to leave another idle; what runs there is followed."""
    scene = Scene()
    other = FakeRunPod()
    other.play = lambda given: Play(error=http(402)) if given["n"] == 8 else Play(takes_s=20.0)
    refusing = an_endpoint(other, scene.clock, name="broke")
    switches = [Switch(), Switch(), Switch()]
    await dispatch(
        [
            job(scene, plan(30), switch=switches[0]),
            job(scene, plan(30, job="texts"), endpoint=refusing, switch=switches[1]),
            job(scene, plan(30, job="tones"), endpoint=refusing, switch=switches[2]),
        ]
    )
    assert [switch.reason for switch in switches] == [None, Reason.REFUSED, Reason.REFUSED]
    settled = Counter((one.run.job, one.state) for one in scene.recorder.settled.values())
    assert settled["photos", State.SUCCEEDED] == 30
    assert sum(settled.values()) - 30 == len(other.jobs)
    assert {state for _, state in settled} == {State.SUCCEEDED}


# Bugs and full disks


class Bug(Exception):
    """What nobody foresaw."""


@in_virtual_time
async def test_a_failing_lane_leaves_every_other_job_running() -> None:
    """A bug in one lane must not cancel jobs that somebody pays for: a resume finds them."""
    scene = Scene()
    scene.runpod.play = lambda given: Play(takes_s=600.0) if given["n"] < 4 else Play(error=Bug("in one lane"))
    with pytest.raises(ExceptionGroup) as caught:
        await dispatch([job(scene, plan(5)), job(scene, plan(3, job="texts"), switch=Switch())])
    assert caught.group_contains(Bug, match="in one lane")
    assert scene.runpod.cancelled == []
    assert len([one for one in scene.recorder.events if isinstance(one, Accepted)]) == len(scene.runpod.jobs) == 7
    assert scene.recorder.settled == {}


@pytest.mark.parametrize("broken_at", range(0, 40, 3))
@in_virtual_time
async def test_a_full_disk_comes_out_as_one_error_that_a_person_can_read(broken_at: int) -> None:
    """Twenty lanes meet it at once; nothing is cancelled, and nothing is sent that was not written down."""
    scene = Scene()
    scene.recorder.broken_at = broken_at
    with pytest.raises(RecordError) as caught:
        await dispatch([job(scene, plan(50, job=name), width=20, switch=Switch()) for name in ("photos", "texts")])
    assert caught.value.render() == "error: the disk is full"
    assert scene.runpod.cancelled == []
    assert len(scene.runpod.asked) <= len([one for one in scene.recorder.events if isinstance(one, Intended)])


@in_virtual_time
async def test_a_settled_run_that_can_t_be_recorded_ends_the_batch_at_once() -> None:
    """Whoever follows a job for an hour yet must not hide it so long: nobody would make room on the disk."""
    scene = Scene()
    scene.recorder.loses = True
    scene.runpod.will_play(Play(takes_s=1.0), Play(takes_s=3600.0))
    with pytest.raises(RecordError):
        await dispatch([job(scene, plan(2), width=2)])
    assert scene.clock.elapsed_s < 5
    assert scene.runpod.cancelled == []


@in_virtual_time
async def test_a_bug_beside_a_full_disk_is_not_hidden() -> None:
    """Exit code 3 wants its traceback."""
    scene = Scene()
    scene.runpod.will_play(Play(error=Bug()))
    scene.recorder.broken_at = 5
    with pytest.raises(ExceptionGroup) as caught:
        await dispatch([job(scene, plan(5))])
    assert caught.group_contains(Bug)


@in_virtual_time
async def test_a_plan_that_can_t_be_read_on_ends_its_job_and_harms_nothing() -> None:
    """Somebody changed the data in the middle: what is in flight is followed, the error is kept for the end."""
    scene = Scene()
    scene.runpod.play = lambda given: Play(takes_s=60.0)
    error = UsageError("rows.csv has changed")

    def torn() -> Iterator[Run]:
        yield from plan(12)
        raise error

    torn_job, other = job(scene, torn()), job(scene, plan(5, job="texts"), switch=Switch())
    await dispatch([torn_job, other])
    assert ended(scene) == {"succeeded completed": 17}
    assert torn_job.trouble is error
    assert torn_job.switch.reason is Reason.INTERRUPT
    assert other.trouble is None


# Resume


@in_virtual_time
async def test_what_an_earlier_process_left_comes_first_then_the_plan() -> None:
    """A finished result is kept for 30 minutes; what was settled is not sent again."""
    scene = Scene()
    scene.runpod.add_job("job-9", Play(takes_s=1.0), {"n": 9})
    first = [
        Work(a_run(9), attempts=1, job_id="job-9", submitted_at=EPOCH - 60, first_at=EPOCH - 60),
        Work(a_run(7), attempts=2, failures=1, first_at=EPOCH - 60, last=ours(Outcome.CRASHED, "it crashed")),
    ]
    known = frozenset(f"photos-{number}" for number in (0, 1, 2, 3, 7, 9))
    await dispatch([job(scene, plan(10), width=1, first=first, known=known)])
    assert [given["n"] for given in scene.runpod.submitted] == [9, 7, 4, 5, 6, 8]
    assert scene.recorder.settled["photos-9"].attempts == 1
    assert scene.recorder.settled["photos-7"].attempts == 3


@in_virtual_time
async def test_a_job_is_followed_where_it_was_sent_to() -> None:
    """An id belongs to one endpoint: asked of another, it is 404, and a paid result would be lost."""
    scene = Scene()
    old = FakeRunPod()
    old.add_job("job-9", CRASHED)
    there = Destination("sdxl", "https://api.runpod.ai/v2", "old")
    work = Work(a_run(9), attempts=1, job_id="job-9", submitted_at=EPOCH, first_at=EPOCH, destination=there)
    elsewhere = {there: an_endpoint(old, scene.clock)}
    await dispatch([job(scene, plan(0), first=[work], elsewhere=elsewhere, retry=RetryPolicy(2, RETRYABLE, 1.0, 1.0))])
    assert old.history == ["status-sync job-9"]
    assert scene.runpod.submitted == [{"n": 9}], "the next attempt goes to where the job file says"
    assert ended(scene) == {"succeeded completed": 1}


@in_virtual_time
async def test_an_endpoint_of_before_that_is_gone_does_not_stop_the_job() -> None:
    """Its jobs stay for a resume; the endpoint that the job file speaks of is as good as ever."""
    scene = Scene()
    old = FakeRunPod()
    old.will_say("health", not_found())
    there = Destination("sdxl", "https://api.runpod.ai/v2", "old")
    work = Work(a_run(9), attempts=1, job_id="job-9", submitted_at=EPOCH - 60, first_at=EPOCH, destination=there)
    lanes = job(scene, plan(8), first=[work], elsewhere={there: an_endpoint(old, scene.clock)})
    await dispatch([lanes])
    assert ended(scene) == {"succeeded completed": 8}
    assert lanes.switch.reason is None


@in_virtual_time
async def test_known_jobs_have_their_places_before_a_lane_of_any_job_takes_one() -> None:
    """Else the jobs of a resumed batch would together pass the concurrency of the endpoint they share."""
    scene = Scene(concurrency=2)
    works = []
    for number in range(2):
        scene.runpod.add_job(f"job-{number}", Play(takes_s=10.0))
        works.append(Work(a_run(number), attempts=1, job_id=f"job-{number}", submitted_at=EPOCH, first_at=EPOCH))
    await dispatch([job(scene, plan(4), width=4), job(scene, plan(0), first=works)])
    assert min(scene.runpod.calls["run"]) >= 1010.0


@in_virtual_time
async def test_every_known_job_is_looked_at_at_once_and_counts_as_in_flight() -> None:
    """Results are kept for half an hour; that the concurrency was lowered since doesn't take a job out of flight."""
    scene = Scene(concurrency=2)
    works = []
    for number in range(20):
        scene.runpod.add_job(f"job-{number}", Play(takes_s=10.0 + number))
        works.append(Work(a_run(number), attempts=1, job_id=f"job-{number}", submitted_at=EPOCH, first_at=EPOCH))
    known = frozenset(work.run.key for work in works)
    await dispatch([job(scene, plan(22), planned=22, width=2, first=works, known=known)])
    assert scene.runpod.calls["status-sync"][:20] == [1000.0] * 20
    assert scene.runpod.calls["run"] == [1028.01, 1029.01], "when the 19th and the 20th of them had ended"
    assert ended(scene) == {"succeeded completed": 22}


@in_virtual_time
async def test_the_first_known_jobs_are_asked_for_while_the_last_wait_to_be_taken_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection takes a few turns of the loop, and a thousand jobs that are taken up in one make it a long one."""
    scene, tally = Scene(), JobTally(200)
    works = []
    for number in range(200):
        scene.runpod.add_job(f"job-{number}", Play())
        works.append(Work(a_run(number), attempts=1, job_id=f"job-{number}", submitted_at=EPOCH, first_at=EPOCH))
    taken_up: list[int] = []
    answer = scene.runpod.status_sync

    async def connect_first(*given: Any, **named: Any) -> Any:
        for _ in range(3):
            await asyncio.sleep(0)
        taken_up.append(tally.in_flight)
        return await answer(*given, **named)

    monkeypatch.setattr(scene.runpod, "status_sync", connect_first)
    await dispatch([job(scene, plan(0), first=works, tally=tally)])
    assert taken_up[0] < 100
    assert ended(scene) == {"succeeded completed": 200}


@pytest.mark.parametrize(
    ("reason", "followed"), [(Reason.REFUSED, True), (Reason.CANCEL, True), (Reason.INTERRUPT, False)]
)
@in_virtual_time
async def test_known_jobs_are_followed_even_when_nothing_may_be_submitted(reason: Reason, followed: bool) -> None:
    """An account without credit still has results to fetch."""
    scene = Scene()
    works = []
    for number in range(3):
        scene.runpod.add_job(f"job-{number}", Play())
        works.append(Work(a_run(number), attempts=1, job_id=f"job-{number}", submitted_at=EPOCH, first_at=EPOCH))
    scene.switch.close(reason)
    await dispatch([job(scene, plan(10), width=1, first=works)])
    assert ended(scene) == ({"succeeded completed": 3} if followed else {})
    assert scene.runpod.asked == []


@in_virtual_time
async def test_known_runs_are_passed_over_without_keeping_others_waiting() -> None:
    """Late in a batch of a million there is much to skip, and looks are due meanwhile."""
    scene = Scene()
    drawn, turns = 0, 0

    def runs() -> Iterator[Run]:
        nonlocal drawn
        for run in plan(20_003):
            drawn += 1
            yield run

    async def others() -> None:
        nonlocal turns
        while drawn < 20_000:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    known = frozenset(a_run(number).key for number in range(20_000))
    await dispatch([job(scene, runs(), known=known, width=3)])
    await task
    assert sorted(given["n"] for given in scene.runpod.submitted) == [20_000, 20_001, 20_002]
    assert turns >= 100


@in_virtual_time
async def test_a_stop_ends_the_passing_over_of_known_runs() -> None:
    """Ctrl-C is not to wait for the rest of a million lookups."""
    scene = Scene()
    drawn = 0

    def runs() -> Iterator[Run]:
        nonlocal drawn
        for number in range(20_000):
            drawn += 1
            if number == 999:
                scene.switch.close(Reason.INTERRUPT)
            yield a_run(number)

    known = frozenset(a_run(number).key for number in range(20_000))
    await dispatch([job(scene, runs(), known=known)])
    assert drawn == 1_000


@in_virtual_time
async def test_a_plan_is_drawn_as_it_is_needed() -> None:
    """Memory and tasks are those of the lanes, however long the plan."""
    scene = Scene()
    scene.runpod.play = lambda given: Play(takes_s=1.0)
    drawn = itertools.count()
    last = 0

    def million() -> Iterator[Run]:
        nonlocal last
        for number in range(1_000_000):
            last = next(drawn) + 1
            yield a_run(number, job="million")

    scene.after(20.5, scene.switch.close, Reason.INTERRUPT)
    task = asyncio.create_task(dispatch([job(scene, million(), width=10, planned=1_000_000)]))
    await asyncio.sleep(20.0)
    tasks = len(asyncio.all_tasks())
    gc.collect()
    alive = sum(isinstance(one, Work) and one.run.job == "million" for one in gc.get_objects())
    await task
    assert len(scene.runpod.jobs) <= last <= len(scene.runpod.jobs) + 1
    assert tasks <= 10 + 5
    assert alive <= 30


@in_virtual_time
async def test_lanes_without_work_wake_up_for_a_retry() -> None:
    """Whoever is idle takes it: a lost wake-up would hang the batch."""
    scene = Scene()
    plays = iter([replace(CRASHED, takes_s=5.0), Play(takes_s=500.0)])
    scene.runpod.play = lambda given: next(plays, Play())
    await dispatch([job(scene, plan(2), retry=RetryPolicy(2, RETRYABLE, 20.0, 20.0))])
    intended = [event for event in scene.recorder.events if isinstance(event, Intended)]
    assert [(one.run.index, one.attempt, round(one.at - EPOCH)) for one in intended] == [
        (0, 1, 0),
        (1, 1, 0),
        (0, 2, 15),
    ]


# Whatever happens

PLAYS = st.sampled_from(
    [
        Play(),
        Play(takes_s=30.0),
        Play(takes_s=1e6),
        Play(answer_s=12.0),
        CRASHED,
        Play(status="FAILED", failure="no", takes_s=5.0),
        Play(status="CANCELLED"),
        Play(status="TIMED_OUT", takes_s=9.0),
        LOST_ANSWER,
        replace(LOST_ANSWER, answer_s=30.0, accepted=False),
        Play(error=http(429)),
        Play(error=http(429, retry_after="20")),
        Play(error=http(400)),
        Play(error=http(403)),
        Play(error=http(409)),
        Play(error=Unreachable("no connection"), answer_s=3.0),
        Play(error=http(402)),
    ]
)
STOPS = st.sampled_from(["close", "cancel", "task"])


def do(stop: str, lanes: Lanes, task: "asyncio.Task[None]") -> None:
    """Stop a batch: a first Ctrl-C, a second one, or the end of the drain."""
    match stop:
        case "close":
            lanes.switch.close(Reason.INTERRUPT)
        case "cancel":
            lanes.switch.cancel(Reason.CANCEL)
        case "task":
            task.cancel()


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    plays=st.lists(PLAYS, max_size=12),
    stops=st.lists(st.tuples(STOPS, st.floats(0.0, 60.0)), max_size=3),
    attempts=st.integers(1, 3),
    timeout_s=st.one_of(st.none(), st.floats(0.0, 90.0)),
    resubmit=st.booleans(),
)
def test_every_run_is_settled_once_or_left_as_the_ledger_has_it(
    plays: list[Play], stops: list[tuple[str, float]], attempts: int, timeout_s: float | None, resubmit: bool
) -> None:
    """Whatever RunPod does and whoever stops the batch: nothing is paid for beyond the policy, and nothing is lost."""

    @in_virtual_time
    async def carry() -> None:
        scene = Scene(run_timeout_s=120.0, rates={"run": Rate(4, 2.0)})
        scene.runpod.will_play(*plays)
        tally = JobTally(8)
        retry = RetryPolicy(attempts, RETRYABLE, 1.0, 10.0)
        lanes = job(scene, plan(8), width=3, retry=retry, resubmit=resubmit, timeout_s=timeout_s, tally=tally)
        task = asyncio.create_task(dispatch([lanes]))
        for stop, at_s in stops:
            scene.after(at_s, partial(do, stop, lanes, task))
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None
        scenes_add_up(scene, tally, cut=task.cancelled())
        allowed_submits(scene, attempts, resubmit=resubmit)
        if timeout_s is not None and not task.cancelled() and lanes.switch.reason in (None, Reason.JOB_TIMEOUT):
            assert tally.pending == 0 or scene.endpoint.refusal or any(stop == "close" for stop, _ in stops)

    carry()


def scenes_add_up(scene: Scene, tally: JobTally, *, cut: bool) -> None:
    """Every move is legal, the tally says what the ledger says, and a job that RunPod answered for is known."""
    states = {a_run(number).key: State.PENDING for number in range(8)}
    known: dict[str, str | None] = {}
    for event in scene.recorder.events:
        key, state, job_id = moved(event)
        if state is not None:
            assert state in MOVES[states[key]], f"{states[key]} to {state}"
            states[key], known[key] = state, job_id
    assert Counter(state for state in states.values() if state.is_final) == tally.states
    assert tally.in_flight == 0
    assert sum(tally.outcomes.values()) + tally.states[State.SKIPPED] == tally.settled
    if not cut:  # then no answer is under way, so what stands as intended would be a lost answer for no reason
        assert State.SUBMITTING not in states.values()
    for key, state in states.items():
        assert (state is State.SUBMITTED) == (not state.is_final and known.get(key) is not None)


def moved(event: Event) -> tuple[str, State | None, str | None]:
    """Whose state an event changes, to which, and the job id that is known then."""
    match event:
        case Intended():
            return event.run.key, State.SUBMITTING, None
        case Accepted():
            return event.key, State.SUBMITTED, event.job_id
        case Withdrawn() | Ended():
            # A lost answer ends an attempt that never was submitted.
            return event.key, State.PENDING, None
        case Settled():
            return event.run.key, event.state, None
        case CancelDecided():
            return event.key, None, None
    raise AssertionError(event)


def allowed_submits(scene: Scene, attempts: int, *, resubmit: bool) -> None:
    """Jobs that RunPod made for a run: as many as the policy allows, and one for each answer that was lost."""
    lost: Counter[str] = Counter()
    ended_: Counter[str] = Counter()
    for event in scene.recorder.events:
        if isinstance(event, Ended) and event.ending is not None:
            (lost if event.ending.outcome is Outcome.ANSWER_LOST else ended_)[event.key] += 1
    made = Counter(f"photos-{given['n']}" for given in scene.runpod.submitted)
    for key, count in made.items():
        assert count <= attempts + lost[key]
        assert ended_[key] < attempts
        assert resubmit or not lost[key]


# stop_when


@in_virtual_time
async def test_stop_when_starts_nothing_more_and_lets_what_runs_end() -> None:
    """A model that fails on everything must not be paid for a million times."""
    scene = Scene()
    scene.runpod.play = lambda given: Play(
        status="FAILED" if given["n"] < 3 else "COMPLETED",
        failure="bad" if given["n"] < 3 else None,
        takes_s=1.0 if given["n"] < 3 else 10.0,
    )
    tally = JobTally(20)
    lanes = job(scene, plan(20), planned=20, width=5, stop_at=StopAt(failed_count=3), tally=tally)
    await dispatch([lanes])
    assert ended(scene) == {"failed failed": 3, "succeeded completed": 4, "skipped None": 13}
    assert lanes.stopped_because == "stop_when: 3 of 20 runs failed (limit 3)"
    assert tally.pending == 0


@in_virtual_time
async def test_a_batch_that_is_stopped_tries_nothing_again() -> None:
    """A run that waits for its second attempt settles as its first one ended, with the id of its job."""
    scene = Scene()
    scene.runpod.play = lambda given: CRASHED if given["n"] == 0 else Play(status="FAILED", failure="bad", takes_s=5.0)
    retry = RetryPolicy(2, (Outcome.CRASHED,), 60.0, 60.0)
    lanes = job(scene, plan(2), planned=2, width=2, retry=retry, stop_at=StopAt(failed_count=1))
    await dispatch([lanes])
    assert ended(scene) == {"failed failed": 1, "failed crashed": 1}
    assert {parse(one.line)["job_id"] for one in scene.recorder.settled.values()} == {"job-1", "job-2"}


@in_virtual_time
async def test_money_spent_stops_a_job_with_a_reserve_for_what_runs() -> None:
    """Execution time at the file's rate is a lower bound of the bill."""
    scene = Scene()
    scene.runpod.play = lambda given: Play(execution_time_ms=1000)
    stop_at = StopAt(cost_usd=10.0, usd_per_s=1.0)
    lanes = job(scene, plan(100), planned=100, width=2, stop_at=stop_at)
    await dispatch([lanes])
    assert ended(scene)["succeeded completed"] in (9, 10)
    assert lanes.stopped_because is not None
    assert lanes.stopped_because.startswith("stop_when: ")


@in_virtual_time
async def test_runner_cancel_ends_what_runs_and_skips_the_rest() -> None:
    """Nothing of the batch is left at RunPod, and every run has a line."""
    scene = Scene()
    scene.runpod.play = lambda given: Play(takes_s=1000.0)
    lanes = job(scene, plan(8), planned=8, width=3)
    scene.after(5.0, scene.switch.cancel, Reason.ABANDON)
    await dispatch([lanes])
    assert ended(scene) == {"cancelled cancelled": 3, "skipped None": 5}
    assert sorted(scene.runpod.cancelled) == ["job-1", "job-2", "job-3"]
    assert lanes.stopped_because == "cancelled by 'runner cancel'"
