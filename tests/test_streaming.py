"""Streams: chunks as they come, what can be vouched for, and what decides in the end."""

from typing import Any

import pytest
from fakes import EPOCH, Play, Scene, a_run, http, in_virtual_time, not_found

from runner.answers import Chunks, RemoteJob
from runner.errors import AnswerLost, Unreachable
from runner.events import Ending
from runner.policy import stream_output
from runner.states import Outcome
from runner.stop import Reason
from runner.values import MISSING
from runner.work import Left, Work

CUT = AnswerLost("GET /stream of endpoint 'ep': the answer was cut short, or could not be decompressed")
RESUMED = Work(a_run(), attempts=1, job_id="job-1", submitted_at=EPOCH, first_at=EPOCH)
THREE = ((1.0, "a"), (2.0, "b"), (3.0, "c"))


def a_scene(**play: Any) -> Scene:
    """An endpoint whose jobs stream three chunks in three seconds, and end after four with an empty list."""
    scene = Scene(mode="stream")
    shown: dict[str, Any] = {"takes_s": 4.0, "output": [], "chunks": THREE}
    told = Play(**shown | play)
    scene.runpod.play = lambda given: told
    return scene


async def ending_of(scene: Scene, work: Work | None = None) -> Ending:
    """How an attempt ends."""
    ending = await scene.attempt(work).make()
    assert isinstance(ending, Ending)
    return ending


@in_virtual_time
async def test_chunks_are_kept_as_they_come_and_are_the_output() -> None:
    """A reader of the file sees the first words while the last are still being made."""
    scene = a_scene()
    kept: list[int] = []
    for after_s in (0.5, 1.5, 2.5, 3.5):
        scene.after(after_s, lambda: kept.append(len(scene.received.chunks["photos-0", 1])))
    ending = await ending_of(scene)
    assert (ending.outcome, ending.output) == (Outcome.COMPLETED, ["a", "b", "c"])
    assert kept == [0, 1, 2, 3]
    assert scene.received.chunks == {("photos-0", 1): ["a", "b", "c"]}
    assert scene.history[-1] == "status-sync job-1"


@in_virtual_time
async def test_a_list_that_status_has_is_the_output() -> None:
    """An aggregate is complete, whatever became of the chunks."""
    scene = a_scene(output=["a", "b", "c", "d"])
    scene.runpod.will_say("stream", CUT)
    ending = await ending_of(scene)
    assert (ending.outcome, ending.output) == (Outcome.COMPLETED, ["a", "b", "c", "d"])


@in_virtual_time
async def test_an_answer_that_was_cut_off_may_have_held_chunks() -> None:
    """RunPod gives a chunk out once, so what comes afterwards is not all."""
    scene = a_scene()
    scene.runpod.will_say("stream", CUT)
    scene.after(0.3, scene.runpod.will_recover, "stream")
    ending = await ending_of(scene)
    assert (ending.outcome, ending.output) == (Outcome.INCOMPLETE, ["a", "b", "c"])
    assert ending.error is not None
    assert ending.error["message"] == "chunks of the stream may be missing; those that came are kept"


@in_virtual_time
async def test_a_connection_that_never_came_about_took_no_chunk() -> None:
    """Nothing was sent, so nothing was drained."""
    scene = a_scene()
    scene.runpod.will_say("stream", Unreachable("GET /stream of endpoint 'ep': no connection"), http(429))
    scene.after(0.8, scene.runpod.will_recover, "stream")
    ending = await ending_of(scene)
    assert (ending.outcome, ending.output) == (Outcome.COMPLETED, ["a", "b", "c"])


@in_virtual_time
async def test_a_resumed_stream_goes_on_but_is_not_vouched_for() -> None:
    """What the earlier process had in hand when it died went with it."""
    scene = a_scene()
    scene.runpod.add_job("job-1", Play(takes_s=4.0, output=[], chunks=THREE[1:]))
    scene.received.chunks["photos-0", 1] = ["a"]
    ending = await ending_of(scene, RESUMED)
    assert (ending.outcome, ending.output) == (Outcome.INCOMPLETE, ["a", "b", "c"])
    assert scene.received.chunks["photos-0", 1] == ["a", "b", "c"]


@pytest.mark.parametrize("restarted", ["by its retries", "by its status"])
@in_virtual_time
async def test_the_chunks_of_a_job_that_ran_twice_are_not_one_output(restarted: str) -> None:
    """RunPod runs a job again when its worker dies, and the second run streams from the beginning."""
    if restarted == "by its retries":
        scene = a_scene(retries=1)
    else:
        scene = a_scene()
        scene.runpod.will_say(
            "stream",
            Chunks("IN_PROGRESS", ["a"]),
            Chunks("IN_QUEUE", []),
            Chunks("IN_PROGRESS", ["a", "b"]),
            Chunks("COMPLETED", []),
        )
    assert (await ending_of(scene)).outcome is Outcome.INCOMPLETE


@in_virtual_time
async def test_a_handler_that_streams_nothing_gives_its_output() -> None:
    """Mode stream does no harm to a handler that returns."""
    scene = a_scene(output={"text": "abc"}, chunks=())
    ending = await ending_of(scene)
    assert (ending.outcome, ending.output) == (Outcome.COMPLETED, {"text": "abc"})


@in_virtual_time
async def test_a_handler_that_failed_midway_keeps_what_it_streamed() -> None:
    """The error is told by /status alone."""
    scene = a_scene(status="FAILED", failure="handler: no horse \ntraceback: Traceback ...", output=MISSING)
    ending = await ending_of(scene)
    assert (ending.outcome, ending.output) == (Outcome.FAILED, ["a", "b", "c"])
    assert ending.error == {"type": None, "message": "no horse", "traceback": "Traceback ..."}


@in_virtual_time
async def test_a_stream_that_takes_too_long_is_cancelled_and_its_chunks_kept() -> None:
    """timeouts.run holds for streams as well."""
    scene = Scene(mode="stream", run_timeout_s=2.5)
    scene.runpod.play = lambda given: Play(takes_s=100.0, output=[], chunks=THREE)
    ending = await ending_of(scene)
    assert (ending.outcome, ending.output) == (Outcome.TIMED_OUT, ["a", "b"])
    assert scene.runpod.cancelled == ["job-1"]


@in_virtual_time
async def test_a_server_without_stream_still_gives_the_result() -> None:
    """/status has the output of an aggregate, and of a handler that returns."""
    scene = a_scene(output=["a", "b", "c"], takes_s=30.0)
    scene.runpod.will_say("stream", http(405))
    assert (await ending_of(scene)).output == ["a", "b", "c"]


@in_virtual_time
async def test_a_job_that_is_gone_is_lost_with_what_it_streamed() -> None:
    """The chunks are paid for."""
    scene = a_scene()
    scene.after(20.0, scene.runpod.jobs.clear)
    scene.runpod.play = lambda given: Play(takes_s=100.0, output=[], chunks=THREE)
    ending = await ending_of(scene)
    assert (ending.outcome, ending.output) == (Outcome.LOST, ["a", "b", "c"])


@in_virtual_time
async def test_chunks_of_single_words_do_not_take_a_request_each() -> None:
    """Reads keep the distance that `poll` sets."""
    scene = a_scene(takes_s=10.0, chunks=tuple((number / 20, number) for number in range(200)))
    ending = await ending_of(scene)
    assert ending.output == list(range(200))
    assert len(scene.runpod.calls["stream"]) <= 42


@in_virtual_time
async def test_a_stream_over_the_limit_is_ended_at_runpod(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be paid for to its end, and nobody could hold its output."""
    monkeypatch.setattr("runner.streaming.MOST_BYTES", 2)
    scene = a_scene(takes_s=1000.0)
    ending = await ending_of(scene)
    assert ending.outcome is Outcome.TOO_LARGE
    assert ending.output == ["a", "b", "c"]
    assert scene.runpod.cancelled == ["job-1"]


@in_virtual_time
async def test_a_second_ctrl_c_cancels_a_stream() -> None:
    """As any other job."""
    scene = a_scene(takes_s=1000.0)
    scene.after(2.5, scene.switch.cancel, Reason.CANCEL)
    ending = await ending_of(scene)
    assert (ending.outcome, ending.output, ending.status) == (Outcome.CANCELLED, ["a", "b"], "CANCELLED")


@in_virtual_time
async def test_a_read_that_a_cancel_cut_off_may_have_taken_chunks_with_it() -> None:
    """The job may complete all the same, and must not pass for a result with chunks missing."""
    scene = a_scene()
    scene.runpod.will_say("cancel", RemoteJob("job-1", "CANCELLED"))
    scene.after(2.5, scene.switch.cancel, Reason.ABANDON)
    assert (await ending_of(scene)).outcome is Outcome.INCOMPLETE


@in_virtual_time
async def test_an_unknown_job_is_not_lost_before_its_grace() -> None:
    """It may not be visible yet."""
    scene = a_scene()
    scene.runpod.will_say("stream", not_found())
    scene.after(3.5, scene.runpod.will_recover, "stream")
    ending = await ending_of(scene)
    assert (ending.outcome, ending.output) == (Outcome.COMPLETED, ["a", "b", "c"])
    assert not isinstance(ending, Left)


@pytest.mark.parametrize(
    ("output", "chunks", "is_whole", "expected"),
    [
        pytest.param([], ["a"], True, (["a"], True), id="chunks"),
        pytest.param(MISSING, ["a"], True, (["a"], True), id="chunks, and no output"),
        pytest.param({"n": 1}, ["a"], True, (["a"], True), id="chunks before what was returned"),
        pytest.param(["a", "b"], ["a"], False, (["a", "b"], True), id="a list at /status"),
        pytest.param([], ["a"], False, (["a"], False), id="chunks that may not be all"),
        pytest.param([], [], False, ([], False), id="all chunks may be lost"),
        pytest.param(MISSING, [], False, (MISSING, False), id="no output, and chunks may be lost"),
        pytest.param({"n": 1}, [], False, ({"n": 1}, True), id="what was returned is no generator's"),
        pytest.param(None, [], False, (None, True), id="null was returned"),
        pytest.param([], [], True, ([], True), id="a generator that yielded nothing"),
    ],
)
def test_what_the_output_of_a_stream_is(
    output: object, chunks: list[object], is_whole: bool, expected: tuple[object, bool]
) -> None:
    """A list at /status first, then chunks that are surely all."""
    assert stream_output(RemoteJob("j", "COMPLETED", output), chunks, is_whole=is_whole) == expected
