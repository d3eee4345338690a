"""What an endpoint's counters mean."""

import re

import pytest
from terminal import ROOT

from runner.events import Sampled
from runner.health import BLIND, PAUSED, Past, diagnosis, is_calm, workers_up
from runner.values import JsonObject

LOGS = "see their logs in RunPod's console, then the endpoint's container image, start command and env variables"
STALLED = "see the workers' logs in RunPod's console, then the endpoint's start command and container image"
COLD = "to start less often, turn FlashBoot on, or raise the idle timeout or active workers"
NONE = "set max workers above 0, and where it is, allow more GPU types or data centers"


@pytest.mark.parametrize(
    ("jobs", "workers", "said"),
    [
        ({}, {}, "idle: nothing waits and nothing runs"),
        ({"inQueue": 0, "completed": 9}, {"idle": 3, "ready": 3}, "idle: nothing waits and nothing runs"),
        ({"inQueue": 0, "inProgress": 0}, {"running": 3}, "idle: nothing waits and nothing runs"),
        ({"inQueue": 0}, {"idle": 1, "throttled": 3}, "idle: nothing waits and nothing runs"),
        ({"inQueue": 0}, {"running": 2}, "working: 2 workers busy, nothing waits"),
        ({"inProgress": 1}, {}, "working: 1 worker busy, nothing waits"),
        (
            {"inQueue": 9, "inProgress": 2},
            {"running": 2, "initializing": 3},
            "working: 2 workers busy, 3 starting, 9 jobs waiting",
        ),
        (
            {"inQueue": 9, "inProgress": 4},
            {"running": 4},
            "saturated: 4 workers busy, 9 jobs waiting; to be done sooner, raise max workers",
        ),
        (
            {"inQueue": 9, "inProgress": 4},
            {"running": 4, "throttled": 1},
            "saturated: 4 workers busy, 1 without a free GPU, 9 jobs waiting; to be done sooner, raise max workers,"
            " or allow more GPU types or data centers",
        ),
        (
            {"inQueue": 1, "inProgress": 1},
            {"running": 1, "throttled": 2, "unhealthy": 1},
            f"crash-looping: 1 of 4 workers unhealthy, 1 up, 1 job waiting; {LOGS}",
        ),
        (
            {"inQueue": 3},
            {"unhealthy": 1, "throttled": 2},
            f"crash-looping: 1 of 3 workers unhealthy, none up, 3 jobs waiting; {LOGS}",
        ),
        ({}, {"unhealthy": 2}, f"crash-looping: 2 of 2 workers unhealthy, none up; {LOGS}"),
        ({"inQueue": 0}, {"unhealthy": 2, "idle": 2}, f"crash-looping: 2 of 4 workers unhealthy, 2 up; {LOGS}"),
        (
            {"inQueue": 3},
            {"throttled": 2, "initializing": 1},
            "throttled: 2 of 3 workers without a free GPU, 3 jobs waiting; allow more GPU types or data centers",
        ),
        (
            {"inQueue": 3, "inProgress": 1},
            {"throttled": 2, "running": 1},
            "throttled: 2 of 3 workers without a free GPU, 1 busy, 3 jobs waiting;"
            " allow more GPU types or data centers",
        ),
        (
            {"inQueue": 1, "inProgress": 0},
            {"running": 1, "ready": 0},
            f"stalled: 1 worker up that took none, 1 job waiting; {STALLED}",
        ),
        ({"inQueue": 1}, {"initializing": 2}, f"cold start: 2 of 2 workers starting, 1 job waiting; {COLD}"),
        ({"inQueue": 5}, {"idle": 0, "running": 0}, f"no workers: not one worker, 5 jobs waiting; {NONE}"),
        ({"inQueue": 5}, {}, f"no workers: not one worker, 5 jobs waiting; {NONE}"),
        ({"inQueue": 5}, {"idle": 1}, "starting: 1 worker up that took none yet, 5 jobs waiting"),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else "",
)
def test_counters_become_a_sentence(jobs: JsonObject, workers: JsonObject, said: str) -> None:
    """Who sees a queue that does not move wants to know which setting to change."""
    assert diagnosis(Sampled("sdxl", 1.0, jobs, workers)).sentence() == said


@pytest.mark.parametrize(
    ("jobs", "workers", "past", "said"),
    [
        pytest.param(
            {"inQueue": 4, "inProgress": 1},
            {"running": 1},
            Past(retried=3),
            "crash-looping: 3 jobs tried again as their workers died, and none completed, 4 jobs waiting; see the"
            " workers' logs in RunPod's console, and if memory runs out, choose GPU types with more of it",
            id="workers that die at work are shown as healthy ones",
        ),
        pytest.param(
            {"inQueue": 4, "inProgress": 1},
            {"running": 1},
            Past(retried=3, completed=40),
            "saturated: 1 worker busy, 4 jobs waiting; to be done sooner, raise max workers",
            id="some retries are no loop",
        ),
        pytest.param(
            {"inQueue": 4, "inProgress": 60},
            {"running": 60},
            Past(retried=3),
            "saturated: 60 workers busy, 4 jobs waiting; to be done sooner, raise max workers",
            id="nor are they among many long jobs",
        ),
        pytest.param(
            {"inQueue": 4, "inProgress": 0},
            {"running": 1},
            Past(completed=2, has_moved=True),
            "saturated: 1 worker busy, 4 jobs waiting; to be done sooner, raise max workers",
            id="between two jobs",
        ),
        pytest.param(
            {"inQueue": 4, "inProgress": 0},
            {"idle": 2, "ready": 2},
            Past(stood_s=15.0),
            "starting: 2 workers up that took none yet, 4 jobs waiting",
            id="idle workers wake up",
        ),
        pytest.param(
            {"inQueue": 4, "inProgress": 0},
            {"idle": 2, "ready": 2},
            Past(stood_s=30.0),
            f"stalled: 2 workers up that took none, 4 jobs waiting; {STALLED}",
            id="idle workers that don't wake up",
        ),
        pytest.param(
            {"inQueue": 4},
            {"initializing": 2},
            Past(stood_s=420.0),
            "cold start: 2 of 2 workers starting, 4 jobs waiting; set RUNPOD_INIT_TIMEOUT above the 7 min that RunPod"
            " allows, or make the image or model load faster",
            id="a start that RunPod will cut off",
        ),
    ],
)
def test_earlier_looks_tell_what_one_can_t(jobs: JsonObject, workers: JsonObject, past: Past, said: str) -> None:
    """The same counters mean something else a minute later."""
    assert diagnosis(Sampled("sdxl", 1.0, jobs, workers), past).sentence() == said


@pytest.mark.parametrize(
    ("workers", "stood_s", "is_sure"),
    [({}, None, False), ({}, 15.0, True), ({"running": 1}, None, False), ({"throttled": 1}, None, True)],
)
def test_a_queue_that_may_move_in_a_moment_is_told_with_caution(
    workers: JsonObject, stood_s: float | None, is_sure: bool
) -> None:
    """An endpoint that scales up from nothing has no worker for a second or two."""
    looked = Sampled("sdxl", 1.0, {"inQueue": 3, "inProgress": 0}, workers)
    assert diagnosis(looked, Past(stood_s=stood_s)).is_sure is is_sure


def test_a_failed_look_tells_why() -> None:
    """Its counters are unknown, not zero."""
    looked = Sampled("sdxl", 1.0, {}, {}, "RunPod answered HTTP 500")
    assert diagnosis(looked).sentence() == "can't be told: RunPod answered HTTP 500"


def test_a_paused_endpoint_is_called_so() -> None:
    """Its 409 is no outage: somebody set its max workers to 0."""
    assert diagnosis(Sampled("sdxl", 1.0, {}, {}, PAUSED)).sentence() == (
        "paused: it answers 409, for it allows no workers; set its max workers above 0"
    )


@pytest.mark.parametrize(
    ("workers", "up"),
    [
        ({"idle": 2, "initializing": 1, "ready": 2, "running": 1, "throttled": 1, "unhealthy": 0}, 3),
        ({"idle": 1, "initializing": 1, "ready": 1, "running": 3, "throttled": 0, "unhealthy": 0}, 4),
        ({"idle": 0, "initializing": 2, "ready": 0, "running": 3, "throttled": 0, "unhealthy": 0}, 3),
        ({"idle": 0, "initializing": 1, "ready": 1, "running": 3, "throttled": 0, "unhealthy": 0}, 4),
        ({"idle": 1, "running": 2}, 3),
        ({"ready": 2}, 2),
        ({"initializing": 4, "throttled": 1, "idle": 0}, 0),
        ({"initializing": 4}, None),
        ({}, None),
    ],
)
def test_a_worker_that_is_ready_and_idle_counts_once(workers: dict[str, int], up: int | None) -> None:
    """The first three are answers of one live endpoint that had three workers, then four, then three up."""
    assert workers_up(workers) == up


def test_a_diagnosis_asks_for_something_or_is_calm() -> None:
    """The summary shows those alone that somebody can act on."""
    calm = [diagnosis(None), diagnosis(Sampled("a", 1.0, {}, {})), diagnosis(Sampled("a", 1.0, {}, {"running": 1}))]
    assert all(one.is_calm and is_calm(one.sentence()) for one in calm)
    for one in (Sampled("a", 1.0, {"inQueue": 1}, {}), Sampled("a", 1.0, {}, {}, "HTTP 500")):
        assert not diagnosis(one).is_calm
        assert not is_calm(diagnosis(one).sentence())


def test_no_look_is_no_idleness() -> None:
    """Nothing is known of it."""
    assert diagnosis(None).sentence() == "not looked at"


def test_the_documentation_has_every_word() -> None:
    """Who finds one in a report looks it up."""
    text = (ROOT / "docs/endpoints.md").read_text()
    words = {one for line in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for one in re.findall(r"`([^`]+)`", line)}
    source = (ROOT / "runner/health.py").read_text()
    assert words == {*re.findall(r'Diagnosis\("([^"]+)"', source), BLIND}
