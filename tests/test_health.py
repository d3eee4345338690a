"""What an endpoint's counters mean."""

import pytest

from runner.events import Sampled
from runner.health import PAUSED, diagnosis, is_calm, workers_up
from runner.values import JsonObject


@pytest.mark.parametrize(
    ("jobs", "workers", "said"),
    [
        ({}, {}, "idle: nothing waits and nothing runs"),
        ({"inQueue": 0, "completed": 9}, {"idle": 3, "ready": 3}, "idle: nothing waits and nothing runs"),
        ({"inQueue": 0, "inProgress": 0}, {"running": 3}, "idle: nothing waits and nothing runs"),
        ({"inQueue": 0}, {"running": 2}, "working: 2 workers busy, nothing waits"),
        ({"inProgress": 1}, {}, "working: 1 worker busy, nothing waits"),
        (
            {"inQueue": 9, "inProgress": 4},
            {"running": 4},
            "saturated: 4 workers busy, 9 jobs waiting; more workers would help",
        ),
        (
            {"inQueue": 1, "inProgress": 1},
            {"running": 1, "throttled": 2, "unhealthy": 1},
            "saturated: 1 worker busy, 1 job waiting; more workers would help",
        ),
        (
            {"inQueue": 3},
            {"unhealthy": 1, "throttled": 2},
            "crash-looping: 1 worker unhealthy, so jobs may wait for ever; see the workers' logs",
        ),
        ({}, {"unhealthy": 2}, "crash-looping: 2 workers unhealthy, so jobs may wait for ever; see the workers' logs"),
        (
            {"inQueue": 3},
            {"throttled": 2, "initializing": 1},
            "throttled: 3 jobs waiting, 2 workers without a free GPU; allow more GPU types or regions",
        ),
        (
            {"inQueue": 1, "inProgress": 0},
            {"running": 1, "ready": 0},
            "stalled: 1 job waiting, 1 worker up that took none; if that lasts, see the workers' logs",
        ),
        ({"inQueue": 1}, {"initializing": 2}, "cold start: 1 job waiting, 2 workers starting"),
        (
            {"inQueue": 5},
            {"idle": 0, "running": 0},
            "stuck: 5 jobs waiting and no worker; check max workers, GPU types and regions",
        ),
        ({"inQueue": 5}, {}, "stuck: 5 jobs waiting and no worker; check max workers, GPU types and regions"),
        ({"inQueue": 5}, {"idle": 1}, "starting: 5 jobs waiting, no worker has taken one yet"),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else "",
)
def test_counters_become_a_sentence(jobs: JsonObject, workers: JsonObject, said: str) -> None:
    """Who sees a queue that does not move wants to know which setting to change."""
    assert diagnosis(Sampled("sdxl", 1.0, jobs, workers)) == said


def test_a_failed_look_tells_why() -> None:
    """Its counters are unknown, not zero."""
    looked = Sampled("sdxl", 1.0, {}, {}, "RunPod answered HTTP 500")
    assert diagnosis(looked) == "can't be told: RunPod answered HTTP 500"


def test_a_paused_endpoint_is_called_so() -> None:
    """Its 409 is no outage: somebody set its max workers to 0."""
    assert diagnosis(Sampled("sdxl", 1.0, {}, {}, PAUSED)) == (
        "paused: it allows no workers; set its max workers above 0"
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
    assert all(map(is_calm, calm))
    assert not is_calm(diagnosis(Sampled("a", 1.0, {"inQueue": 1}, {})))
    assert not is_calm(diagnosis(Sampled("a", 1.0, {}, {}, "HTTP 500")))


def test_no_look_is_no_idleness() -> None:
    """Nothing is known of it."""
    assert diagnosis(None) == "not looked at"
