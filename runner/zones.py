"""
Check a schedule beyond what its model sees: one way to say it, and a time zone that this machine knows.

Say its next times.
"""

import itertools
from collections.abc import Iterator
from datetime import datetime, tzinfo
from typing import Any

from runner.schedule import Moment, moments
from runner.spec import Schedule
from runner.values import JsonObject
from runner.wording import Finding, suggest

NEXT = 3
"""So many times are shown."""


def problems(schedule: Schedule, written: Any) -> Iterator[Finding]:
    """What is wrong with *schedule*; *written* is what the file has there, valid or not."""
    named = [key for key in written if key in ("every", "cron")] if isinstance(written, dict) else ["every"]
    named = [key for key in named if not isinstance(written, dict) or written[key] is not None]
    if not named:
        fix = "write every: day at 02:30; or cron: '30 2 * * *'"
        yield Finding(("schedule",), "missing key 'every' in 'schedule'", fix, at_key=True)
    for key in named[1:]:
        message = f"'{named[0]}' and '{key}' can't stand together"
        yield Finding(("schedule", key), message, "keep one of the two", at_key=True)
    if schedule.time_zone is not None and (trouble := zone_problem(schedule.time_zone)):
        yield Finding(("schedule", "time_zone"), *trouble)


def zone_problem(name: str) -> tuple[str, str | None] | None:
    """What is wrong with *name* as the name of a time zone, and what to do about it; None when it is one."""
    import zoneinfo  # 5 ms, and only a file with a time zone needs it

    try:
        zoneinfo.ZoneInfo(name)
        if name not in ("localtime", "Factory"):  # which mean something else on each machine
            return None
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        pass  # a folder, a path out of the folder of zones, or none of them: told below
    known = zoneinfo.available_timezones()
    if not known:
        return "this machine has no time zones", "install them: pip install tzdata, or Debian's package of that name"
    return f"unknown time zone '{name}'", suggest(name, known) or "write an IANA name, such as Europe/Berlin or UTC"


def zone(schedule: Schedule) -> tzinfo | None:
    """The time zone of a checked *schedule*; None: that of the machine."""
    if schedule.time_zone is None:
        return None
    import zoneinfo

    return zoneinfo.ZoneInfo(schedule.time_zone)


def next_times(schedule: Schedule, now: datetime) -> list[Moment]:
    """The next times after *now* of a checked *schedule*."""
    return list(itertools.islice(moments(schedule.times, zone(schedule), now), NEXT))


def facts(schedule: Schedule, now: datetime) -> JsonObject:
    """A checked *schedule* as ``--format json`` has it."""
    return {
        "schedule": schedule.sentence,
        "cron": schedule.times.cron,
        "time_zone": schedule.time_zone,
        "next": [one.at.isoformat() for one in next_times(schedule, now)],
    }


def summary(schedule: Schedule, now: datetime) -> str:
    """A checked *schedule* and its next times, in a line."""
    return f"{schedule.sentence}; next: {', '.join(shown(one) for one in next_times(schedule, now))}"


def shown(one: Moment) -> str:
    """A time for people."""
    return one.at.strftime("%a %Y-%m-%d %H:%M %Z")
