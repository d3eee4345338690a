"""When a batch is to begin: what people write, what it means, and what is refused because it could mean two things."""

import itertools
import shutil
import subprocess
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.schedule import DAYS, EXAMPLES, BadSchedule, Times, cron, every, moments

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2026, 11, 23, 12, tzinfo=UTC)


def first(times: Times, count: int = 3, now: datetime = MONDAY) -> list[str]:
    """The next times, as the clocks at the place show them."""
    found = itertools.islice(moments(times, UTC, now), count)
    return [one.at.strftime("%a %m-%d %H:%M %z") for one in found]


@pytest.mark.parametrize(
    ("sentence", "text", "calendar", "expected"),
    [
        ("15 minutes", "*/15 * * * *", "*-*-* *:00,15,30,45:00", "Mon 11-23 12:15"),
        ("hour at :05", "5 * * * *", "*-*-* *:05:00", "Mon 11-23 12:05"),
        ("6 hours at :15", "15 */6 * * *", "*-*-* 00,06,12,18:15:00", "Mon 11-23 12:15"),
        ("day at 02:30", "30 2 * * *", "*-*-* 02:30:00", "Tue 11-24 02:30"),
        ("day  at 12:00", "0 12 * * *", "*-*-* 12:00:00", "Tue 11-24 12:00"),
        ("weekday at 02:30", "30 2 * * 1-5", "Mon,Tue,Wed,Thu,Fri *-*-* 02:30:00", "Tue 11-24 02:30"),
        ("Sunday at 23:59", "59 23 * * 0", "Sun *-*-* 23:59:00", "Sun 11-29 23:59"),
        ("thursday and monday at 02:30", "30 2 * * 1,4", "Mon,Thu *-*-* 02:30:00", "Thu 11-26 02:30"),
        ("monday, tuesday and sunday at 02:30", "30 2 * * 0-2", "Mon,Tue,Sun *-*-* 02:30:00", "Tue 11-24 02:30"),
        ("month on the 1st at 00:00", "0 0 1 * *", "*-*-01 00:00:00", "Tue 12-01 00:00"),
        ("month on the 22nd at 00:00", "0 0 22 * *", "*-*-22 00:00:00", "Tue 12-22 00:00"),
    ],
)
def test_a_sentence_means_the_same_to_people_cron_and_systemd(
    sentence: str, text: str, calendar: str, expected: str
) -> None:
    """It is written once, and started by whatever there is."""
    times = every(sentence)
    assert (times.cron, times.calendar) == (text, calendar)
    assert first(times, 1) == [f"{expected} +0000"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_a_message_is_one(example: str) -> None:
    """People copy them."""
    assert every(example.removeprefix("every ")).shortest_s >= 60


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("7 minutes", "an hour has no even number of times 7 minutes", "write every 6 minutes"),
        ("0 minutes", "an hour has no even number of times 0 minutes", "write every 2 minutes"),
        ("90 minutes", "an hour has no even number of times 90 minutes", "write every 30 minutes"),
        ("24 hours at :00", "a day has no even number of times 24 hours", "write every 12 hours"),
        ("day at 2:30", "a time of day has four digits, found '2:30'", "write 02:30"),
        ("month on the 31st at 02:30", "not every month has a day 31", "write the 28th, or an earlier day"),
        ("month on the 0th at 02:30", "not every month has a day 0", "write the 1st"),
        ("month on the 2st at 02:30", "'2st' is no day", "write 2nd"),
        ("monday and Monday at 02:30", "'monday' is there twice", "remove one of the two"),
        ("every day at 02:30", "'every' is there twice", "write every: day at 02:30"),
    ],
)
def test_a_sentence_that_could_mean_two_things_is_refused(text: str, message: str, fix: str) -> None:
    """A batch that begins at another time than was meant is found a night too late."""
    with pytest.raises(BadSchedule) as caught:
        every(text)
    assert (caught.value.message, caught.value.fix) == (message, fix)


@pytest.mark.parametrize(
    "text", ["", "day", "day at 24:00", "day at 02:30 UTC", "dya at 02:30", "day at ٠٢:30", "-5 minutes"]
)
def test_what_is_no_sentence_is_told_with_those_that_are(text: str) -> None:
    """There are few, so all are named."""
    with pytest.raises(BadSchedule) as caught:
        every(text)
    assert caught.value.message == f"expected a schedule, found 'every {text}'"
    assert caught.value.fix is not None
    assert "'every day at 02:30'" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 2 * * *", "30 2 * * *"),
        ("  30\t2 * *  * ", "30 2 * * *"),
        ("*/15 8-18/2 * * mon-fri", "*/15 8,10,12,14,16,18 * * 1-5"),
        ("0,30 0 1 JAN,jul *", "0,30 0 1 1,7 *"),
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("0-59 0-23 1-31 1-12 0-6", "* * * * *"),
        ("*/7 * * * *", "*/7 * * * *"),
        ("0 0 29 2 *", "0 0 29 2 *"),
        ("0 0 */10 * *", "0 0 1,11,21,31 * *"),
    ],
)
def test_a_cron_text_is_put_into_the_numbers_that_every_cron_takes(text: str, expected: str) -> None:
    """Kubernetes knows no day 7, and old crons no names in ranges."""
    assert cron(text).cron == expected
    assert cron(expected).cron == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@daily", "'@daily' is not known to every cron"),
        ("0 0 * *", "expected the five fields of cron, found 4 fields"),
        ("0 0 0 * * *", "expected the five fields of cron, found 6 fields"),
        ("60 0 * * *", "expected 0 to 59 for the minute, found '60'"),
        ("0 24 * * *", "expected 0 to 23 for the hour, found '24'"),
        ("0 0 0 * *", "expected 1 to 31 for the day of the month, found '0'"),
        ("0 0 * foo *", "'foo' is no month"),
        ("0 0 * * monday", "'monday' is no day of the week"),
        ("0 22-2 * * *", "'22-2' ends before it begins"),
        ("0 5/2 * * *", "'5/2' has a step and no range"),
        ("*/0 0 * * *", "'*/0' is no minute: a step is a number from 1"),
        ("*/x 0 * * *", "'*/x' is no minute: a step is a number from 1"),
        ("0,,5 0 * * *", "'' is no minute"),
        ("0 0 30 2 *", "'0 0 30 2 *' never comes"),
        (
            "0 0 13 * 5",
            "cron takes a day that fits either the day of the month or the day of the week, others only both",
        ),
    ],
)
def test_a_cron_text_that_is_none_or_means_two_things_is_refused(text: str, message: str) -> None:
    """Some crons take what others refuse."""
    with pytest.raises(BadSchedule) as caught:
        cron(text)
    assert caught.value.message == message


FIELD = st.sampled_from(["*", "*/2", "*/7", "1", "1-5", "2-6/2", "1,3,5", "5,6"])


@given(minute=FIELD, hour=FIELD, day=FIELD, month=FIELD)
def test_a_cron_text_comes_back_from_its_own_times(minute: str, hour: str, day: str, month: str) -> None:
    """What is printed for cron begins when what was written does."""
    times = cron(f"{minute} {hour} {day} {month} *")
    again = cron(times.cron)
    assert (again.minutes, again.hours, again.days, again.months) == (
        times.minutes,
        times.hours,
        times.days,
        times.months,
    )


def test_a_time_that_the_clocks_jump_over_or_show_twice_is_known() -> None:
    """Whoever pays for a night has to know whether it begins once."""
    times = every("day at 02:30")
    spring = list(itertools.islice(moments(times, BERLIN, datetime(2027, 3, 26, 12, tzinfo=UTC)), 3))
    assert [one.at.isoformat() for one in spring] == [
        "2027-03-27T02:30:00+01:00",
        "2027-03-28T03:30:00+02:00",
        "2027-03-29T02:30:00+02:00",
    ]
    assert [(one.skipped, one.twice) for one in spring] == [(False, False), (True, False), (False, False)]
    autumn = list(itertools.islice(moments(times, BERLIN, datetime(2027, 10, 30, 12, tzinfo=UTC)), 2))
    assert [(one.at.isoformat(), one.twice) for one in autumn] == [
        ("2027-10-31T02:30:00+02:00", True),
        ("2027-11-01T02:30:00+01:00", False),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("*/15 * * * *", 900), ("*/7 * * * *", 240), ("0 0 * * *", 86_400), ("0 0 1 * *", 28 * 86_400)],
)
def test_the_shortest_time_between_two_starts_is_known(text: str, expected: int) -> None:
    """It is the deadline of a batch that has none of its own."""
    assert cron(text).shortest_s == expected


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="the calendars are compared with systemd's own")
@pytest.mark.parametrize("example", [*EXAMPLES, "every sunday at 00:00", f"every {', '.join(DAYS[:3])} at 01:00"])
def test_systemd_begins_at_the_same_times(example: str) -> None:
    """Held against what systemd itself makes of it."""
    times = every(example.removeprefix("every "))
    words = ["systemd-analyze", "calendar", "--iterations=3", "--base-time=2026-11-23 12:00:00 UTC"]
    ran = subprocess.run([*words, f"{times.calendar} UTC"], capture_output=True, text=True, check=True)
    elapses = [line.partition(": ")[2] for line in ran.stdout.splitlines() if line.strip().startswith(("Next", "Iter"))]
    expected = [one.at.strftime("%a %Y-%m-%d %H:%M:00 UTC") for one in itertools.islice(moments(times, UTC, MONDAY), 3)]
    assert elapses == expected
