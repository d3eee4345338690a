"""
When a batch is to begin: the sentences and the cron texts that a job file may have, and the times that they mean.

Pure. What a text leaves open is refused, so that cron, systemd and Kubernetes begin at the same times.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from runner.records import record

DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
"""In cron's numbers, which begin at 0."""

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
"""In cron's numbers, which begin at 1."""

EXAMPLES = (
    "every 15 minutes",
    "every hour at :15",
    "every 6 hours at :15",
    "every day at 02:30",
    "every weekday at 02:30",
    "every monday and thursday at 02:30",
    "every month on the 1st at 02:30",
)
"""One of each kind of sentence."""

HORIZON_DAYS = 366 * 9
"""Within so many days comes every time that ever comes: a 29 February, at most eight years after another."""


class BadSchedule(ValueError):
    """Raised when a text is no schedule; *fix* may say what would be one."""

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


@record(frozen=True, slots=True)
class Times:
    """
    The times of a schedule, in the local time of no place in particular.

    *text* is as it was written. *minutes*, *hours*, *days* (of the month) and *months* are in order; *weekdays* are
    numbered as in `DAYS`. Of *days* and *weekdays* at most one leaves a day out.
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]

    @property
    def cron(self) -> str:
        """The five fields of cron, in numbers, as every cron takes them."""
        parts = ((self.minutes, 0, 59), (self.hours, 0, 23), (self.days, 1, 31), (self.months, 1, 12))
        return " ".join([*(_field(*part) for part in parts), _field(self.weekdays, 0, 6)])

    @property
    def calendar(self) -> str:
        """The same as systemd's ``OnCalendar`` has it, without a time zone."""
        names = ",".join(DAYS[day][:3].capitalize() for day in (1, 2, 3, 4, 5, 6, 0) if day in self.weekdays)
        days = f"{names} " if len(self.weekdays) < len(DAYS) else ""
        month, day = _listed(self.months, 12), _listed(self.days, 31)
        return f"{days}*-{month}-{day} {_listed(self.hours, 24)}:{_listed(self.minutes, 60)}:00"

    def after(self, moment: datetime) -> Iterator[datetime]:
        """The times after *moment*, both without a time zone, in order; none when nine years have none."""
        for ahead in range(HORIZON_DAYS):
            day = moment.date() + timedelta(days=ahead)
            if not self._has(day):
                continue
            for hour in self.hours:
                for minute in self.minutes:
                    if (found := datetime.combine(day, time(hour, minute))) > moment:
                        yield found

    def _has(self, day: date) -> bool:
        return day.day in self.days and day.month in self.months and day.isoweekday() % 7 in self.weekdays

    @property
    def shortest_s(self) -> float:
        """The shortest time between two of its times, by a clock that is never changed, in seconds."""
        times = self.after(datetime(2027, 1, 1))  # noqa: DTZ001 - local to no place
        before, shortest = next(times), timedelta(days=366 * 8)
        for _, found in zip(range(1500), times, strict=False):
            before, shortest = found, min(shortest, found - before)
        return shortest.total_seconds()


@record(frozen=True, slots=True)
class Moment:
    """One time at a place. *skipped*: the clock jumps over it that day; *twice*: it comes again an hour later."""

    at: datetime
    skipped: bool = False
    twice: bool = False


def moments(times: Times, zone: tzinfo | None, now: datetime) -> Iterator[Moment]:
    """
    The times after *now* at the place whose clocks show *zone*'s time; None is this machine's own.

    One that the clock jumps over is where cron and systemd put it: after the jump.
    """
    for found in times.after(now.astimezone(zone).replace(tzinfo=None)):
        first, second = (_placed(found.replace(fold=fold), zone) for fold in (0, 1))
        skipped = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != found
        yield Moment(
            first.astimezone(UTC).astimezone(zone),
            skipped,
            not skipped and first.utctimetuple() != second.utctimetuple(),
        )


def _placed(found: datetime, zone: tzinfo | None) -> datetime:
    return found.astimezone() if zone is None else found.replace(tzinfo=zone)


# What people write

_CLOCK = r"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9])"
_PAST = r":(?P<minute>[0-5][0-9])"
_DAY = "|".join(f"[{day[0].upper()}{day[0]}]{day[1:]}" for day in DAYS)
_MINUTES = [step for step in range(2, 31) if 60 % step == 0]
_HOURS = [step for step in range(2, 13) if 24 % step == 0]
_SUFFIXES = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd"}
_DATES = [f"{day}{_SUFFIXES.get(day, 'th')}" for day in range(1, 29)]
PATTERN = (
    rf"(({'|'.join(map(str, _MINUTES))})\s+minutes|(({'|'.join(map(str, _HOURS))})\s+hours|hour)\s+at\s+:[0-5][0-9]|"
    rf"(day|weekday|({_DAY})((,\s*|\s+and\s+)({_DAY}))*|month\s+on\s+the\s+({'|'.join(_DATES)}))"
    r"\s+at\s+([01][0-9]|2[0-3]):[0-5][0-9])"
)
"""What editors know of a sentence, behind its `every`."""

_EVERY = range(60), range(24), range(1, 32), range(1, 13), range(7)


def every(text: str) -> Times:
    """
    The times of a sentence, *text* being what follows its ``every``.

    Raises:
        BadSchedule: it is none of the sentences in `EXAMPLES`.
    """
    for pattern, read in _SENTENCES:
        if found := re.fullmatch(rf"\s*{pattern}\s*", text, re.ASCII):
            return _times(text.strip(), read(found))
    if late := re.search(r"\bat\s+([0-9]):([0-5][0-9])\s*$", text, re.ASCII):
        raise BadSchedule(f"a time of day has four digits, found '{late[1]}:{late[2]}'", f"write 0{late[1]}:{late[2]}")
    if text.split()[:1] == ["every"]:
        raise BadSchedule("'every' is there twice", "write every: day at 02:30")
    raise BadSchedule(f"expected a schedule, found 'every {text.strip()[:60]}'", known())


def known() -> str:
    """What to write instead of something that is no schedule."""
    *first, last = (f"'{example}'" for example in EXAMPLES if " and " not in example and "6" not in example)
    return f"write {', '.join(first)} or {last}; or {{cron: '30 2 * * *'}}"


Parts = dict[int, Sequence[int]]
"""The numbers of some of the five fields, by the place of the field."""


def _minutes(found: re.Match[str]) -> Parts:
    return {0: _even(int(found["number"]), _MINUTES, 60, "minutes")}


def _hours(found: re.Match[str]) -> Parts:
    return {0: [int(found["minute"])], 1: _even(int(found["number"]), _HOURS, 24, "hours")}


def _even(step: int, fitting: Sequence[int], whole: int, unit: str) -> Sequence[int]:
    """Every *step* of a *whole* hour or day, one of the *fitting*: the time over its end must be no other one."""
    if step not in fitting:
        what = "an hour" if unit == "minutes" else "a day"
        near = min(fitting, key=lambda one: (abs(one - step), one))
        raise BadSchedule(f"{what} has no even number of times {step} {unit}", f"write every {near} {unit}")
    return range(0, whole, step)


def _at(found: re.Match[str]) -> Parts:
    return {0: [int(found["minute"])], 1: [int(found["hour"])]}


def _on_days(found: re.Match[str]) -> Parts:
    names = re.findall(r"[a-z]+day", found["days"].lower())
    doubled = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if doubled is not None:
        raise BadSchedule(f"'{doubled}' is there twice", "remove one of the two")
    return _at(found) | {4: sorted(DAYS.index(name) for name in names)}


def _on_date(found: re.Match[str]) -> Parts:
    day, suffix = int(found["day"]), found["suffix"]
    if not 1 <= day <= 28:
        fix = "write the 28th, or an earlier day" if day else "write the 1st"
        raise BadSchedule(f"not every month has a day {day}", fix)
    if f"{day}{suffix}" not in _DATES:
        raise BadSchedule(f"'{day}{suffix}' is no day", f"write {_DATES[day - 1]}")
    return _at(found) | {2: [day]}


_SENTENCES: tuple[tuple[str, Callable[[re.Match[str]], Parts]], ...] = (
    (r"(?P<number>0|[1-9][0-9]{0,3})\s+minutes", _minutes),
    (rf"hour\s+at\s+{_PAST}", lambda found: {0: [int(found["minute"])]}),
    (rf"(?P<number>0|[1-9][0-9]{{0,3}})\s+hours\s+at\s+{_PAST}", _hours),
    (rf"day\s+at\s+{_CLOCK}", _at),
    (rf"weekday\s+at\s+{_CLOCK}", lambda found: _at(found) | {4: range(1, 6)}),
    (rf"(?P<days>({_DAY})((,\s*|\s+and\s+)({_DAY}))*)\s+at\s+{_CLOCK}", _on_days),
    (rf"month\s+on\s+the\s+(?P<day>0|[1-9][0-9]{{0,3}})(?P<suffix>st|nd|rd|th)\s+at\s+{_CLOCK}", _on_date),
)


def _times(text: str, parts: Parts) -> Times:
    minutes, hours, days, months, weekdays = (tuple(parts.get(place, whole)) for place, whole in enumerate(_EVERY))
    return Times(text, minutes, hours, days, months, weekdays)


# What cron takes

_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of the week", 0, 7, tuple(day[:3] for day in DAYS)),
)


def cron(text: str) -> Times:
    """
    The times of a cron text: minute, hour, day of the month, month, day of the week.

    Raises:
        BadSchedule: it is none, never comes, or means one thing to cron and another to systemd or Kubernetes.
    """
    fields = text.split()
    if text.strip().startswith("@"):
        raise BadSchedule(f"'{text.strip()[:40]}' is not known to every cron", "write its five fields, as 30 2 * * *")
    if len(fields) != len(_FIELDS):
        found = f"{len(fields)} field" + ("" if len(fields) == 1 else "s")
        raise BadSchedule(f"expected the five fields of cron, found {found}", "write minute, hour, day, month, weekday")
    numbers = [_numbers(field, *known) for field, known in zip(fields, _FIELDS, strict=True)]
    numbers[4] = sorted({number % 7 for number in numbers[4]})
    if len(numbers[2]) < 31 and len(numbers[4]) < 7:
        message = "cron takes a day that fits either the day of the month or the day of the week, others only both"
        raise BadSchedule(message, "write * for one of the two")
    made = _times(" ".join(fields), dict(enumerate(numbers)))
    if next(made.after(datetime(2027, 1, 1)), None) is None:  # noqa: DTZ001 - local to no place
        raise BadSchedule(f"'{made.text}' never comes", "no such month has such a day")
    return made


def _numbers(field: str, noun: str, least: int, most: int, names: Sequence[str]) -> list[int]:
    """What a field means, in order."""
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = least, 6 if most == 7 else most
        else:
            low = _number(first, part, noun, least, most, names)
            high = _number(last, part, noun, least, most, names) if dash else low
        if slash and (not step.isdecimal() or not step.isascii() or not 1 <= int(step[:4]) <= most):
            raise BadSchedule(f"'{part[:40]}' is no {noun}: a step is a number from 1", _cron_fix(noun))
        if slash and not dash and span != "*":
            raise BadSchedule(f"'{part[:40]}' has a step and no range", f"write {first}-{most}/{step[:4]}")
        if high < low:
            raise BadSchedule(f"'{part[:40]}' ends before it begins", f"write {low}-{most},{least}-{high}")
        found.update(range(low, high + 1, int(step) if slash else 1))
    return sorted(found)


def _number(word: str, part: str, noun: str, least: int, most: int, names: Sequence[str]) -> int:
    if word.lower() in names:
        return names.index(word.lower()) + (1 if names is MONTHS else 0)
    if not (word.isdecimal() and word.isascii()):
        raise BadSchedule(f"'{part[:40]}' is no {noun}", _cron_fix(noun))
    if not least <= int(word[:6]) <= most:
        raise BadSchedule(f"expected {least} to {most} for the {noun}, found '{word[:20]}'")
    return int(word)


def _cron_fix(noun: str) -> str:
    return "write *, */2, 2, 2-4, 2-8/3 or 2,4" + (", or names such as mon" if noun == "day of the week" else "")


def _field(numbers: Sequence[int], least: int, most: int) -> str:
    """*numbers* as a field of cron: the shortest that every cron reads alike."""
    if len(numbers) == most - least + 1:
        return "*"
    step = numbers[1] - numbers[0] if len(numbers) > 2 else 0
    if step > 1 and least == 0 and tuple(numbers) == tuple(range(0, most + 1, step)):
        return f"*/{step}"
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ",".join(f"{span[0]}-{span[-1]}" if len(span) > 2 else ",".join(map(str, span)) for span in spans)


def _listed(numbers: Sequence[int], whole: int) -> str:
    """*numbers* as a part of systemd's calendar."""
    return "*" if len(numbers) == whole else ",".join(f"{number:02}" for number in numbers)
