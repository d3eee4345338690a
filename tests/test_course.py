"""What the looks at an endpoint come to, over a batch."""

from collections.abc import Iterable

import pytest

from runner.course import Course, course
from runner.events import Sampled
from runner.health import PAUSED

AT = 1_770_000_000.0
"""2026-02-02 02:40:00 UTC."""

IDLE = ({"inQueue": 0}, {"idle": 2})
SCARCE = ({"inQueue": 5, "inProgress": 0}, {"throttled": 2})
NONE = ({"inQueue": 5, "inProgress": 0}, {"idle": 0})
FULL = ({"inQueue": 5, "inProgress": 2}, {"running": 2})
COLD = ({"inQueue": 5, "inProgress": 0}, {"initializing": 2})
ASLEEP = ({"inQueue": 5, "inProgress": 0}, {"idle": 2})
SICK = ({"inQueue": 5, "inProgress": 2}, {"running": 2, "unhealthy": 2})

Look = tuple[dict[str, int], dict[str, int]] | str


def looks(found: Iterable[Look], *, every_s: float = 15.0) -> list[Sampled]:
    """A sample for each of these; a text is the problem of one that failed."""
    return [
        Sampled("sdxl", AT + number * every_s, {}, {}, look)
        if isinstance(look, str)
        else Sampled("sdxl", AT + number * every_s, *look)
        for number, look in enumerate(found)
    ]


def over_all(*found: Look) -> str:
    """What is said in the end."""
    return course(looks(found)).over_all()


def test_a_state_is_said_with_the_time_since_when_it_lasts() -> None:
    """Whoever comes late wants to know whether it was so all the night."""
    assert over_all(IDLE, SCARCE, SCARCE, SCARCE) == (
        "throttled: 2 of 2 workers without a free GPU, 5 jobs waiting, since 02:40:15 UTC;"
        " allow more GPU types or data centers"
    )


def test_a_look_that_fails_does_not_begin_it_anew() -> None:
    """RunPod's front door has bad minutes; the queue goes on not to move."""
    assert over_all(SCARCE, "HTTP 503", SCARCE).startswith(
        "throttled: 2 of 2 workers without a free GPU, 5 jobs waiting, since 02:40:00 UTC;"
    )
    assert over_all(SCARCE, "HTTP 503", "HTTP 503") == "can't be told: HTTP 503, since 02:40:15 UTC"


def test_a_day_without_a_look_ends_it() -> None:
    """A batch that goes on next morning knows nothing of the night."""
    made = course(looks([SCARCE, SCARCE]))
    made.add(Sampled("sdxl", AT + 86_400.0, *SCARCE))
    assert made.now() == (
        "throttled: 2 of 2 workers without a free GPU, 5 jobs waiting; allow more GPU types or data centers"
    )


def test_what_began_yesterday_is_said_with_its_date() -> None:
    """02:40 would be taken for today's."""
    made = course(looks([SCARCE] * 97, every_s=900.0))
    assert ", since 2026-02-02 02:40:00 UTC;" in made.now()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param(
            [COLD, COLD, FULL, IDLE],
            "was cold start: 2 of 2 workers starting, 5 jobs waiting, in 2 of 4 looks, from 02:40:00 to 02:40:15 UTC;"
            " to start less often, turn FlashBoot on, or raise the idle timeout or active workers",
            id="a cold start",
        ),
        pytest.param(
            [COLD, FULL, FULL, FULL, IDLE],
            "was saturated: 2 workers busy, 5 jobs waiting, in 3 of 5 looks, from 02:40:15 to 02:40:45 UTC;"
            " to be done sooner, raise max workers",
            id="what it was longest",
        ),
        pytest.param(
            [SCARCE, SCARCE, FULL, FULL, FULL, IDLE],
            "was throttled: 2 of 2 workers without a free GPU, 5 jobs waiting, in 2 of 6 looks,"
            " from 02:40:00 to 02:40:15 UTC; allow more GPU types or data centers",
            id="what is grave before what is not",
        ),
        pytest.param(
            [PAUSED, FULL, IDLE],
            "was paused: it answers 409, for it allows no workers, in 1 of 3 looks, from 02:40:00 to 02:40:00 UTC;"
            " set its max workers above 0",
            id="paused for a moment",
        ),
        pytest.param([NONE, FULL, *[IDLE] * 20], "idle: nothing waits and nothing runs", id="a moment each"),
        pytest.param([IDLE, IDLE], "idle: nothing waits and nothing runs", id="nothing"),
        pytest.param([], "not looked at", id="no look"),
    ],
)
def test_an_endpoint_that_is_well_in_the_end_tells_what_it_was(found: list[Look], said: str) -> None:
    """Its last look is at an empty queue, which explains nothing."""
    assert over_all(*found) == said


def test_workers_that_sleep_on_are_stalled_since_jobs_began_to_wait() -> None:
    """Idle workers take some seconds to wake up, not half a minute."""
    made = Course()
    said = [(made.add(look), made.newest.word) for look in looks([ASLEEP, ASLEEP, ASLEEP])]
    assert [word for _, word in said] == ["starting", "starting", "stalled"]
    assert made.now().startswith("stalled: 2 workers up that took none, 5 jobs waiting; see")
    made.add(Sampled("sdxl", AT + 45.0, *ASLEEP))
    assert made.now().startswith("stalled: 2 workers up that took none, 5 jobs waiting, since 02:40:00 UTC; see")


def test_jobs_that_end_between_two_looks_are_work() -> None:
    """A worker that is between two short jobs when we look has none at that moment."""
    quick = [
        ({"inQueue": 50 - ended, "inProgress": 0, "completed": ended}, {"running": 1, "idle": 0})
        for ended in (10, 20, 30)
    ]
    assert course(looks(quick)).now() == (
        "saturated: 1 worker busy, 20 jobs waiting, since 02:40:15 UTC; to be done sooner, raise max workers"
    )


def test_workers_that_die_at_work_are_found_by_their_jobs() -> None:
    """Each is up again by the next look, so no counter of workers shows it."""
    dying = [
        ({"inQueue": 5, "inProgress": 1, "completed": 7, "failed": number // 2, "retried": number}, {"running": 1})
        for number in range(4)
    ]
    made = course(looks(dying))
    assert made.now() == (
        "crash-looping: 3 jobs tried again as their workers died, and none completed, 5 jobs waiting,"
        " since 02:40:30 UTC; see the workers' logs in RunPod's console, and if memory runs out, choose GPU types with"
        " more of it"
    )
    assert made.evidence()["lately"] == {"completed": 0, "failed": 1, "retried": 3, "over_s": 45.0}


def test_what_happened_long_ago_is_no_evidence() -> None:
    """Two retries in the first minute don't make a loop of an hour."""
    jobs = [{"inQueue": 5, "inProgress": 1, "completed": 0, "retried": retried} for retried in (0, 2, *[2] * 30)]
    found = course(looks([(one, {"running": 1}) for one in jobs]))
    assert found.newest.word == "saturated"


def test_counters_that_are_set_back_are_no_evidence() -> None:
    """An endpoint that was made anew counts from 0."""
    jobs = [{"inQueue": 1, "inProgress": 0, "completed": completed} for completed in (900, 0)]
    assert course(looks([(one, {"running": 1}) for one in jobs])).newest.word == "stalled"


def test_only_changes_are_news() -> None:
    """A log of a night must not say the same every quarter of a minute; and that it is idle at first is no news."""
    made = Course()
    said = [made.add(look) for look in looks([IDLE, NONE, FULL, FULL, SICK, "HTTP 503", SICK, IDLE])]
    assert [one and one.partition(":")[0] for one in said] == [
        None,
        None,
        "saturated",
        None,
        "crash-looping",
        None,
        None,
        "idle",
    ]


def test_the_evidence_says_what_it_was_in_how_many_looks() -> None:
    """For dashboards, and for who wants more than a sentence."""
    assert course(looks([COLD, FULL, FULL])).evidence() == {
        "condition": "saturated",
        "since": "2026-02-02T02:40:15.000Z",
        "until": "2026-02-02T02:40:30.000Z",
        "looks": 2,
        "most_waiting": 5,
        "lately": {"completed": 0, "failed": 0, "retried": 0, "over_s": 30.0},
        "conditions": {
            "cold start": {
                "looks": 1,
                "since": "2026-02-02T02:40:00.000Z",
                "until": "2026-02-02T02:40:00.000Z",
                "most_waiting": 5,
            },
            "saturated": {
                "looks": 2,
                "since": "2026-02-02T02:40:15.000Z",
                "until": "2026-02-02T02:40:30.000Z",
                "most_waiting": 5,
            },
        },
    }
    assert Course().evidence() == {}


def test_a_week_of_looks_takes_no_more_memory_than_a_minute() -> None:
    """`health.every: 1s` and a batch that nobody ends."""
    made = course(looks([FULL, SCARCE] * 5_000, every_s=1.0))
    assert made.looks == 10_000
    assert len(made._recent) <= 302
