import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from fakes import EPOCH, After, Play, Scene, a_run, http, in_virtual_time, not_found

from runner.answers import RemoteJob
from runner.errors import AnswerLost, EndpointRefused, RecordError, RunPodError, TooLarge, Unreachable, Unreadable
from runner.events import Destination, Ending
from runner.policy import Looks
from runner.states import Outcome, State
from runner.stop import Reason
from runner.units import Rate
from runner.values import MISSING
from runner.work import Left, Work, ours, settle

REFUSED = Unreachable("POST /run of endpoint 'ep': no connection to api.runpod.ai:443: connection refused")
TOLD = '{"error_type": "<class \'ValueError\'>", "error_message": "no horse", "error_traceback": "Traceback ..."}'
KNOWN = Work(a_run(), attempts=1, job_id="job-1", submitted_at=EPOCH, first_at=EPOCH)


@in_virtual_time
async def test_an_intent_is_durable_before_the_request_leaves_and_the_id_is_told_at_once() -> None:
    """Without that order a kill could lose a job that is paid for."""
    scene = Scene()
    attempt = scene.attempt()
    ending = await attempt.make()
    assert ending == Ending(Outcome.COMPLETED, "ok", None, "COMPLETED", "w-1")
    assert scene.history == ["Intended 1", "run", "Accepted job-1", "status-sync job-1"]
    assert attempt.work == Work(
        a_run(), attempts=1, job_id="job-1", submitted_at=EPOCH + 0.01, first_at=EPOCH, failures=0
    )


@pytest.mark.parametrize(
    ("play", "outcome", "error"),
    [
        pytest.param(Play(), "completed", None, id="completed"),
        pytest.param(Play(output=None), "completed", None, id="null is an output"),
        pytest.param(
            Play(output=MISSING),
            "completed_without_output",
            (None, "RunPod says COMPLETED and gives no output", None),
            id="no output",
        ),
        pytest.param(Play(failure="bad"), "failed", (None, "bad", None), id="COMPLETED with an error beside it"),
        pytest.param(
            Play(status="FAILED", failure=TOLD, output=MISSING),
            "failed",
            ("ValueError", "no horse", "Traceback ..."),
            id="an exception as JSON text",
        ),
        pytest.param(
            Play(status="FAILED", failure={"error_message": "no horse"}),
            "failed",
            (None, "no horse", None),
            id="an object",
        ),
        pytest.param(
            Play(status="FAILED", failure="handler: no horse\ntraceback: Traceback ..."),
            "failed",
            (None, "no horse", "Traceback ..."),
            id="an exception in a generator",
        ),
        pytest.param(Play(status="FAILED", failure=["no", 1]), "failed", (None, '["no",1]', None), id="a list"),
        pytest.param(
            Play(status="FAILED"), "failed", (None, "RunPod says FAILED and gives no error", None), id="no error at all"
        ),
        pytest.param(
            Play(status="TIMED_OUT"),
            "timed_out",
            (None, "RunPod says TIMED_OUT and gives no error", None),
            id="TIMED_OUT",
        ),
        pytest.param(
            Play(status="FAILED", failure="job timed out after 1 retries", execution_time_ms=600_100),
            "timed_out",
            (None, "job timed out after 1 retries", None),
            id="given up at the limit",
        ),
        pytest.param(
            Play(status="FAILED", failure="job timed out after 1 retries", execution_time_ms=31_000),
            "crashed",
            (None, "job timed out after 1 retries", None),
            id="given up before the limit",
        ),
        pytest.param(
            Play(status="FAILED", failure="job timed out after 2 retries"),
            "crashed",
            (None, "job timed out after 2 retries", None),
            id="given up without a time",
        ),
        pytest.param(
            Play(status="FAILED", failure="Job ID not found"),
            "lost",
            (None, "Job ID not found", None),
            id="the SDK's dev server does not know it",
        ),
        pytest.param(
            Play(status="CANCELLED"),
            "cancelled",
            (None, "RunPod says CANCELLED and gives no error", None),
            id="cancelled in the console",
        ),
    ],
)
@in_virtual_time
async def test_a_final_answer_is_named_and_its_error_parsed(
    play: Play, outcome: str, error: tuple[str | None, str, str | None] | None
) -> None:
    """Retry, report and verdict rest on the outcome; a person reads the error."""
    scene = Scene()
    scene.runpod.will_play(play)
    ending = await scene.attempt().make()
    assert isinstance(ending, Ending)
    assert (ending.outcome, ending.status, ending.output) == (outcome, play.status, play.output)
    shown = None if error is None else dict(zip(("type", "message", "traceback"), error, strict=True))
    assert ending.error == shown


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(AnswerLost("no answer within 30s"), "no answer within 30s", id="read timeout"),
        pytest.param(AnswerLost("the connection was closed"), "the connection was closed", id="reset"),
        pytest.param(http(408), "POST /run of endpoint 'ep': HTTP 408", id="408"),
        pytest.param(http(500, "oops"), "POST /run of endpoint 'ep': HTTP 500: oops", id="500"),
        pytest.param(
            http(502, "<html>Bad gateway"), "POST /run of endpoint 'ep': HTTP 502: <html>Bad gateway", id="502"
        ),
        pytest.param(
            http(307), "POST /run of endpoint 'ep': HTTP 307, a redirect, which is not followed", id="redirect"
        ),
        pytest.param(
            Unreadable("HTTP 200 with an answer that is not JSON", status=200, detail="<html>"),
            "HTTP 200 with an answer that is not JSON: <html>",
            id="HTML",
        ),
        pytest.param(
            Unreadable("HTTP 200 with an answer that names no job", status=200),
            "HTTP 200 with an answer that names no job",
            id="no id",
        ),
    ],
)
@in_virtual_time
async def test_a_submit_that_may_have_been_accepted_is_never_sent_again_here(error: RunPodError, said: str) -> None:
    """There is no idempotency key: sending it again could pay twice, so `on_answer_lost` alone decides."""
    scene = Scene()
    scene.runpod.will_play(Play(error=error))
    attempt = scene.attempt()
    assert await attempt.make() == ours(Outcome.ANSWER_LOST, f"{said}; the job may exist and be paid for")
    assert scene.history == ["Intended 1", "run"]
    assert (attempt.work.attempts, attempt.work.job_id) == (1, None)


@pytest.mark.parametrize(
    ("error", "outcome", "said"),
    [
        pytest.param(http(400, "no"), "rejected", "POST /run of endpoint 'ep': HTTP 400: no", id="400"),
        pytest.param(http(403), "rejected", "POST /run of endpoint 'ep': HTTP 403", id="a lone 403"),
        pytest.param(http(405), "rejected", "POST /run of endpoint 'ep': HTTP 405", id="405"),
        pytest.param(http(422), "rejected", "POST /run of endpoint 'ep': HTTP 422", id="422"),
        pytest.param(http(413), "too_large", "POST /run of endpoint 'ep': HTTP 413", id="413"),
        pytest.param(
            http(400, "bad request: body: exceeded max body size of 10MiB"),
            "too_large",
            "POST /run of endpoint 'ep': HTTP 400: bad request: body: exceeded max body size of 10MiB",
            id="400 in RunPod's words",
        ),
    ],
)
@in_virtual_time
async def test_a_submit_that_was_refused_is_withdrawn_and_counts_as_no_attempt(
    error: RunPodError, outcome: str, said: str
) -> None:
    """Nothing was made, so nothing must look as if it may have been."""
    scene = Scene()
    scene.runpod.will_play(Play(error=error))
    attempt = scene.attempt()
    assert await attempt.make() == ours(Outcome(outcome), said)
    assert [words for words in scene.history if words != "health"] == ["Intended 1", "run", "Withdrawn 1"]
    assert attempt.work.attempts == 0


@pytest.mark.parametrize(
    ("error", "waits_s"),
    [
        pytest.param(REFUSED, 0.25 + 0.5 + 1.0, id="no connection"),
        pytest.param(http(429), 0.1 + 0.2 + 0.5, id="429"),
        pytest.param(http(429, retry_after="7"), 21.0, id="429 with Retry-After"),
        pytest.param(http(429, retry_after="0"), 0.1 + 0.2 + 0.5, id="429 with a Retry-After of nothing"),
        pytest.param(http(409), 45.0, id="paused"),
    ],
)
@in_virtual_time
async def test_what_was_surely_not_accepted_is_sent_again_and_counts_once(error: RunPodError, waits_s: float) -> None:
    """A refused connection costs nobody anything; while we wait, the ledger does not say that a job may exist."""
    scene = Scene()
    scene.recorder = type(scene.recorder)(scene.history, commit_s=0.0)
    scene.runpod.will_play(*[Play(error=error)] * 3)
    attempt = scene.attempt()
    assert await attempt.make() == Ending(Outcome.COMPLETED, "ok", None, "COMPLETED", "w-1")
    again = ["Intended 1", "run", "Withdrawn 1"]
    assert scene.history == [*again * 3, "Intended 1", "run", "Accepted job-1", "status-sync job-1"]
    assert attempt.work.attempts == 1
    assert scene.clock.elapsed_s == waits_s + 1.0


@pytest.mark.parametrize("error", [REFUSED, http(429, retry_after="60"), http(409)], ids=["network", "429", "paused"])
@pytest.mark.parametrize("reason", [Reason.INTERRUPT, Reason.JOB_TIMEOUT])
@in_virtual_time
async def test_a_stop_ends_the_waiting_for_another_try(error: RunPodError, reason: Reason) -> None:
    """Ctrl-C while RunPod is away must not take as long as RunPod's absence, nor leave a run that looks sent."""
    scene = Scene()
    scene.runpod.play = lambda given: Play(error=error)
    scene.after(9.0, scene.switch.close if reason is Reason.INTERRUPT else scene.switch.cancel, reason)
    attempt = scene.attempt()
    assert await attempt.make() is Left.LEFT
    assert scene.clock.elapsed_s == 9.0
    assert attempt.work == Work(a_run(), first_at=EPOCH)
    assert scene.history[-1] == "Withdrawn 1"


@in_virtual_time
async def test_a_run_that_waits_for_its_turn_is_not_sent_after_a_stop() -> None:
    """Start nothing more means just that, and what was never sent leaves no intent behind."""
    scene = Scene(rates={"run": Rate(1, 10.0)})
    scene.after(12.0, scene.switch.close, Reason.INTERRUPT)
    attempts = [scene.attempt(Work(a_run(number))) for number in range(4)]
    endings = await asyncio.gather(*(attempt.make() for attempt in attempts))
    assert [ending is Left.LEFT for ending in endings] == [False, False, True, True]
    assert scene.history.count("run") == 2
    assert [words for words in scene.history if words.startswith("Intended")] == ["Intended 1"] * 2
    assert scene.clock.elapsed_s == 12.0


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda scene: scene.switch.close(Reason.INTERRUPT), id="first Ctrl-C"),
        pytest.param(lambda scene: scene.switch.cancel(Reason.JOB_TIMEOUT), id="timeouts.job"),
        pytest.param(lambda scene: scene.switch.cancel(Reason.CANCEL), id="second Ctrl-C"),
    ],
)
@in_virtual_time
async def test_a_submit_under_way_is_never_cut_short(stop: Any) -> None:
    """Its answer holds the id of a job that is paid for."""
    scene = Scene()
    scene.runpod.will_play(Play(answer_s=20.0))
    scene.after(5.0, stop, scene)
    ending = await scene.attempt().make()
    assert isinstance(ending, Ending)
    assert scene.history[:3] == ["Intended 1", "run", "Accepted job-1"]


@in_virtual_time
async def test_timeouts_run_does_not_cut_a_submit_short_either() -> None:
    """The job is known by then, so it can be cancelled instead of being lost."""
    scene = Scene(run_timeout_s=10.0)
    scene.runpod.will_play(Play(answer_s=20.0, takes_s=60.0))
    ending = await scene.attempt().make()
    assert isinstance(ending, Ending)
    assert ending.outcome is Outcome.TIMED_OUT
    assert scene.history[:3] == ["Intended 1", "run", "Accepted job-1"]
    assert scene.history[-3:] == ["CancelDecided 1", "cancel job-1", "status-sync job-1"]


@pytest.mark.parametrize("error", [REFUSED, http(429, retry_after="300"), http(409)], ids=["network", "429", "paused"])
@in_virtual_time
async def test_timeouts_run_also_bounds_the_waiting_to_be_accepted(error: RunPodError) -> None:
    """Fifteen minutes means fifteen minutes, whoever is to blame."""
    scene = Scene(run_timeout_s=100.0)
    scene.runpod.will_say("health", not_found())
    scene.endpoint._reached = True
    scene.runpod.play = lambda given: Play(error=error)
    attempt = scene.attempt()
    said = "timeouts.run passed before the endpoint accepted the run"
    assert await attempt.make() == ours(Outcome.TIMED_OUT, said)
    assert scene.clock.elapsed_s == pytest.approx(100.0, abs=0.1)
    assert scene.history[-1] == "Withdrawn 1"
    assert attempt.work.attempts == 0


@in_virtual_time
async def test_a_run_that_waited_to_be_tried_again_is_known_by_its_last_job() -> None:
    """That is the one that was paid for, so its line names it."""
    scene = Scene(run_timeout_s=100.0)
    scene.endpoint._reached = True
    scene.runpod.play = lambda given: Play(error=http(429, retry_after="300"))
    before = Work(a_run(), attempts=1, job_id="job-1", submitted_at=EPOCH, first_at=EPOCH)
    attempt = scene.attempt(before.again(ours(Outcome.CRASHED, "its worker died"), failures=1))
    ending = await attempt.make()
    assert isinstance(ending, Ending)
    assert ending.outcome is Outcome.TIMED_OUT
    assert (attempt.work.attempts, attempt.work.job_id, attempt.work.submitted_at) == (1, "job-1", EPOCH)


@pytest.mark.parametrize(
    ("error", "health", "message"),
    [
        pytest.param(
            http(401, "bad key"),
            None,
            "error: endpoint 'sdxl' refused: POST /run of endpoint 'ep': HTTP 401 (bad key)\n"
            "  help: check the endpoint's 'api_key': RunPod's console lists the valid ones",
            id="401",
        ),
        pytest.param(
            http(402),
            None,
            "error: endpoint 'sdxl' refused: POST /run of endpoint 'ep': HTTP 402\n"
            "  help: add credit to the RunPod account, then go on with --resume",
            id="402",
        ),
        pytest.param(
            http(403),
            http(403),
            "error: endpoint 'sdxl' refused: POST /run of endpoint 'ep': HTTP 403\n"
            "  help: check that the endpoint's 'api_key' may use this endpoint",
            id="403, confirmed",
        ),
        pytest.param(
            http(404),
            None,
            "error: endpoint 'sdxl' refused: POST /run of endpoint 'ep': HTTP 404\n"
            "  help: check the endpoint's 'id', and that the key may see it",
            id="404",
        ),
        pytest.param(
            http(409, "max_workers=0"),
            None,
            "error: endpoint 'sdxl' refused: POST /run of endpoint 'ep': HTTP 409 (max_workers=0)\n"
            "  help: set the endpoint's max workers above 0",
            id="409 for five minutes",
        ),
        pytest.param(
            REFUSED,
            None,
            f"error: endpoint 'sdxl' refused: {REFUSED.message}\n"
            "  help: check the endpoint's 'base_url' and this machine's network",
            id="never reached",
        ),
    ],
)
@in_virtual_time
async def test_a_refused_endpoint_leaves_the_run_as_it_was(
    error: RunPodError, health: RunPodError | None, message: str
) -> None:
    """A wrong key says nothing about the run: it is there for a resume, and looks as if it was never sent."""
    scene = Scene()
    if health is not None:
        scene.runpod.will_say("health", health)
    scene.runpod.play = lambda given: Play(error=error)
    attempt = scene.attempt()
    with pytest.raises(EndpointRefused) as caught:
        await attempt.make()
    assert caught.value.render() == message
    assert [words for words in scene.history if words != "health"][-3:] == ["Intended 1", "run", "Withdrawn 1"]
    assert attempt.work == Work(a_run(), first_at=EPOCH)
    with pytest.raises(EndpointRefused):
        await scene.attempt(Work(a_run(1))).make()
    assert scene.history[-1] == "Withdrawn 1", "the next run is not even intended"


@in_virtual_time
async def test_a_paused_endpoint_is_tried_every_15_s_for_as_long_as_the_terms_say() -> None:
    """Idle endpoints are paused by RunPod itself, and take some time to come back."""
    scene = Scene(paused_s=300.0)
    scene.runpod.play = lambda given: Play(error=http(409))
    with pytest.raises(EndpointRefused):
        await scene.attempt().make()
    assert scene.history.count("run") == 21
    assert scene.clock.elapsed_s == pytest.approx(300.0, abs=0.5)


@in_virtual_time
async def test_timeouts_run_cancels_the_job_and_says_how_it_stood() -> None:
    """A decision is durable before it is carried out, and the times that RunPod tells are kept: they cost money."""
    scene = Scene(run_timeout_s=60.0)
    scene.runpod.will_play(Play(takes_s=600.0))
    scene.runpod.will_say("status-sync", RemoteJob("job-1", "IN_PROGRESS"))
    scene.after(59.0, scene.runpod.will_recover, "status-sync")
    scene.endpoint.can_hold = False
    ending = await scene.attempt().make()
    assert isinstance(ending, Ending)
    assert ending == replace(
        ours(Outcome.TIMED_OUT, "timeouts.run passed; the job's last status was IN_PROGRESS, and it was cancelled"),
        status="CANCELLED",
        execution_time_ms=ending.execution_time_ms,
    )
    assert ending.execution_time_ms == pytest.approx(60_000, abs=100)
    assert scene.history[-3:] == ["CancelDecided 1", "cancel job-1", "status job-1"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(RemoteJob("job-1", "COMPLETED", "in time"), id="it ended first"),
        pytest.param(http(404), id="it is not there to cancel"),
        pytest.param(http(500), id="an answer lost"),
    ],
)
@in_virtual_time
async def test_a_job_that_ended_before_it_could_be_cancelled_keeps_its_result(answer: object) -> None:
    """Somebody paid for it."""
    scene = Scene(run_timeout_s=60.0)
    scene.runpod.will_play(Play(takes_s=60.5, output="in time"))
    scene.runpod.will_say("cancel", After(1.0, answer), answer)
    scene.after(61.3, scene.runpod.will_say, "cancel", http(404))
    ending = await scene.attempt().make()
    assert isinstance(ending, Ending)
    assert (ending.outcome, ending.output) == (Outcome.COMPLETED, "in time")


@in_virtual_time
async def test_a_job_that_nobody_can_say_anything_about_after_its_cancel_has_timed_out() -> None:
    """The run ends by its limit, even if the network does not."""
    scene = Scene(run_timeout_s=60.0)
    scene.runpod.will_play(Play(takes_s=600.0))
    for operation in ("cancel", "status-sync", "status"):
        scene.after(30.0, scene.runpod.will_say, operation, REFUSED)
    ending = await scene.attempt().make()
    said = "timeouts.run passed; the job's last status was not known, and it was cancelled"
    assert ending == ours(Outcome.TIMED_OUT, said)
    assert scene.clock.elapsed_s == pytest.approx(75.0, abs=0.1)


@in_virtual_time
async def test_every_job_is_cancelled_however_many_there_are() -> None:
    """/cancel has a low rate. A job that is settled and was never told to end would run, and cost, on and on."""
    scene = Scene(rates={"cancel": Rate(30, 10.0)})
    scene.runpod.play = lambda given: Play(takes_s=3600.0)
    scene.after(60.0, scene.switch.cancel, Reason.JOB_TIMEOUT)
    endings = await asyncio.gather(*(scene.attempt(Work(a_run(number))).make() for number in range(100)))
    assert {ending.outcome for ending in endings if isinstance(ending, Ending)} == {Outcome.TIMED_OUT}
    assert sorted(scene.runpod.cancelled) == sorted(scene.runpod.jobs)


@in_virtual_time
async def test_a_second_ctrl_c_cancels_the_job() -> None:
    """It is the person's decision, so it is recorded first, and the run is settled as cancelled."""
    scene = Scene()
    scene.runpod.will_play(Play(takes_s=600.0))
    scene.after(30.0, scene.switch.close, Reason.INTERRUPT)
    scene.after(31.0, scene.switch.cancel, Reason.CANCEL)
    ending = await scene.attempt().make()
    assert isinstance(ending, Ending)
    assert (ending.outcome, ending.status) == (Outcome.CANCELLED, "CANCELLED")
    assert ending.error == {"type": None, "message": "cancelled by us", "traceback": None}
    assert scene.history[-4:] == ["status-sync job-1", "CancelDecided 1", "cancel job-1", "status-sync job-1"]
    assert scene.clock.elapsed_s == pytest.approx(31.0, abs=0.1)


@in_virtual_time
async def test_a_second_ctrl_c_waits_15_s_at_most_and_leaves_what_it_can_t_end() -> None:
    """The person wants their terminal back; a resume follows the job."""
    scene = Scene()
    scene.runpod.will_play(Play(takes_s=600.0))
    scene.runpod.will_say("cancel", http(503))
    scene.after(30.0, scene.switch.cancel, Reason.CANCEL)
    attempt = scene.attempt()
    assert await attempt.make() is Left.LEFT
    assert scene.clock.elapsed_s == pytest.approx(45.0, abs=0.1)
    assert attempt.work.job_id == "job-1"


@pytest.mark.parametrize(("run_timeout_s", "asked"), [(2.0, 2), (20.0, 1)], ids=["just submitted", "later"])
@in_virtual_time
async def test_a_job_that_can_t_be_cancelled_yet_is_cancelled_a_moment_later(run_timeout_s: float, asked: int) -> None:
    """RunPod may not see a job at once, and what it does not see it does not stop: it would run, and be paid for."""
    scene = Scene(run_timeout_s=run_timeout_s)
    scene.runpod.will_play(Play(takes_s=600.0))
    scene.runpod.will_say("cancel", not_found(), RemoteJob("job-1", "CANCELLED"))
    await scene.attempt().make()
    assert scene.runpod.cancelled == ["job-1"] * asked


@pytest.mark.parametrize("at_s", [0.005, 5.0, 15.0, 30.0], ids=["intending", "submitting", "following", "later"])
@in_virtual_time
async def test_cancelling_our_own_task_leaves_the_job_alone(at_s: float) -> None:
    """Stopping a job that somebody pays for is a decision, never a side effect of a bug or of a drain's end."""
    scene = Scene()
    scene.runpod.will_play(Play(answer_s=10.0, takes_s=600.0))
    task = asyncio.create_task(scene.attempt().make())
    scene.after(at_s, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scene.clock.elapsed_s == at_s, "and it ends at once"
    assert scene.runpod.cancelled == []
    assert not [words for words in scene.history if words.startswith("CancelDecided")]
    assert ("Withdrawn 1" in scene.history) == (not scene.runpod.asked), "an intent that never left is taken back"


@in_virtual_time
async def test_a_timeout_of_somebody_else_is_not_taken_for_ours() -> None:
    """A bug that raises TimeoutError must come out as one, not cancel a job that runs well."""
    scene = Scene()
    scene.runpod.will_say("status-sync", TimeoutError("a bug"))
    with pytest.raises(TimeoutError, match="a bug"):
        await scene.attempt().make()
    assert scene.runpod.cancelled == []


@pytest.mark.parametrize("timeouts_run", [60.0, 0.0], ids=["just now", "long ago"])
@in_virtual_time
async def test_a_job_of_an_earlier_process_is_looked_at_before_it_is_cancelled(timeouts_run: float) -> None:
    """It may have ended while nobody looked; what /cancel does to a finished job RunPod does not say."""
    scene = Scene(run_timeout_s=timeouts_run)
    scene.runpod.add_job("job-1", Play(takes_s=0.0))
    known = replace(KNOWN, submitted_at=EPOCH - 3600, first_at=EPOCH - 3600)
    ending = await scene.attempt(known).make()
    assert ending == Ending(Outcome.COMPLETED, "ok", None, "COMPLETED", "w-1")
    assert scene.history == ["status-sync job-1"]


@in_virtual_time
async def test_timeouts_run_counts_from_the_first_attempt_also_after_a_restart() -> None:
    """A limit that starts anew with every resume is none."""
    scene = Scene(run_timeout_s=100.0)
    scene.runpod.add_job("job-1", Play(takes_s=3600.0))
    ending = await scene.attempt(replace(KNOWN, first_at=EPOCH - 70.0)).make()
    assert isinstance(ending, Ending)
    assert ending.outcome is Outcome.TIMED_OUT
    assert scene.clock.elapsed_s == pytest.approx(30.0, abs=0.1)


@in_virtual_time
async def test_a_job_that_runpod_lost_or_that_can_t_be_read_ends_the_attempt() -> None:
    """The outcome says that it was not the handler's fault."""
    scene = Scene()
    known = replace(KNOWN, submitted_at=EPOCH - 600, destination=Destination("sdxl", "https://api", "ep"))
    said = "RunPod no longer knows job job-1 (404 twice)"
    assert await scene.attempt(known).make() == ours(Outcome.LOST, said)
    scene.runpod.will_say("status-sync", Unreadable("HTTP 200 with an answer that is not JSON", detail="\ufffd"))
    said = "HTTP 200 with an answer that is not JSON: \ufffd"
    assert await scene.attempt(known).make() == ours(Outcome.UNREADABLE, said)


@in_virtual_time
async def test_a_folder_that_can_t_be_written_stops_a_submit_before_it_leaves() -> None:
    """What can't be remembered must not be paid for."""
    scene = Scene()
    scene.recorder.broken_at = 0
    with pytest.raises(RecordError):
        await scene.attempt().make()
    assert scene.history == []


def test_a_settled_run_says_what_its_last_attempt_came_to() -> None:
    """The event that the recorder writes has the run's line of results.jsonl with it."""
    work = Work(a_run(), attempts=2, job_id="job-2", submitted_at=EPOCH)
    event = settle(work, ours(Outcome.REJECTED, "no"), now=EPOCH + 1)
    assert (event.state, event.attempts, event.at) == (State.FAILED, 2, EPOCH + 1)
    assert b'"outcome":"rejected"' in event.line
    assert b'"job_id":"job-2"' in event.line
    assert settle(Work(a_run()), None, now=EPOCH).state is State.SKIPPED


# Mode sync


@in_virtual_time
async def test_a_short_job_of_mode_sync_takes_one_request() -> None:
    """The answer to the submit is the result, and its id is on record all the same."""
    scene = Scene(mode="sync")
    ending = await scene.attempt().make()
    assert ending == Ending(Outcome.COMPLETED, "ok", None, "COMPLETED", "w-1")
    assert scene.history == ["Intended 1", "runsync", "Accepted job-1"]


@in_virtual_time
async def test_a_long_job_of_mode_sync_is_followed_as_soon_as_its_id_is_known() -> None:
    """Nobody has the id before the answer, so /runsync is held for ten seconds only."""
    scene = Scene(mode="sync")
    scene.runpod.will_play(Play(takes_s=60.0))
    assert await scene.attempt().make() == Ending(Outcome.COMPLETED, "ok", None, "COMPLETED", "w-1")
    assert scene.history == ["Intended 1", "runsync", "Accepted job-1"] + ["status-sync job-1"] * 3
    assert scene.runpod.calls["status-sync"] == [1010.01, 1030.01, 1050.01]


@in_virtual_time
async def test_a_job_of_runsync_is_looked_at_every_20_seconds_whatever_poll_says() -> None:
    """Its result is kept for one minute."""
    scene = Scene(mode="sync", looks=Looks(200.0, 300.0))
    scene.endpoint.can_hold = False
    scene.runpod.will_play(Play(takes_s=100.0))
    await scene.attempt().make()
    looks = scene.runpod.calls["status"]
    assert max(b - a for a, b in pairwise(looks)) == 20.0


@in_virtual_time
async def test_an_interrupt_does_not_cut_a_held_submit_off() -> None:
    """Its answer has the job's id."""
    scene = Scene(mode="sync")
    scene.runpod.will_play(Play(takes_s=5.0))
    scene.after(1.0, scene.switch.cancel, Reason.CANCEL)
    assert isinstance(await scene.attempt().make(), Ending)
    assert "Accepted job-1" in scene.history
    assert scene.runpod.cancelled == []


@in_virtual_time
async def test_an_answer_that_is_too_large_was_paid_for() -> None:
    """It is no refusal of the submit: the job ran."""
    scene = Scene(mode="sync")
    scene.runpod.will_play(Play(error=TooLarge("HTTP 200 with an answer over 256 MiB", status=200)))
    attempt = scene.attempt()
    ending = await attempt.make()
    assert isinstance(ending, Ending)
    assert (ending.outcome, attempt.work.attempts) == (Outcome.TOO_LARGE, 1)
    assert scene.history == ["Intended 1", "runsync"]


# What an endpoint must have first, and answers that nobody can read


@in_virtual_time
async def test_nothing_is_submitted_before_the_endpoint_is_opened() -> None:
    """health.require: until then no run's time counts either."""
    scene = Scene(run_timeout_s=50.0)
    scene.endpoint.opened.clear()
    scene.after(100.0, scene.endpoint.opened.set)
    ending = await scene.attempt().make()
    assert isinstance(ending, Ending)
    assert (ending.outcome, scene.runpod.calls["run"]) == (Outcome.COMPLETED, [1100.01])


@in_virtual_time
async def test_an_interrupt_ends_the_wait_for_an_endpoint() -> None:
    """The run is as it was."""
    scene = Scene()
    scene.endpoint.opened.clear()
    scene.after(1.0, scene.switch.close, Reason.INTERRUPT)
    attempt = scene.attempt()
    assert await attempt.make() is Left.LEFT
    assert attempt.work == Work(a_run())


@in_virtual_time
async def test_a_job_of_an_earlier_process_is_followed_before_the_endpoint_is_opened() -> None:
    """Its result is kept for half an hour only."""
    scene = Scene()
    scene.endpoint.opened.clear()
    scene.runpod.add_job("job-1", Play())
    assert isinstance(await scene.attempt(KNOWN).make(), Ending)


@in_virtual_time
async def test_an_answer_that_nobody_can_read_is_kept_as_a_file() -> None:
    """It was paid for, and a person may still make something of it."""
    scene = Scene()
    html = Unreadable("HTTP 200 with an answer that is not JSON", status=200, detail="<html>", body=b"<html>")
    scene.runpod.will_say("status-sync", html)
    ending = await scene.attempt().make()
    assert isinstance(ending, Ending)
    assert ending.outcome is Outcome.UNREADABLE
    assert ending.error is not None
    assert ending.error["message"] == (
        "HTTP 200 with an answer that is not JSON: <html> (kept as unreadable/photos-0.1.bin)"
    )
    assert scene.received.unreadable == {("photos-0", 1): b"<html>"}
