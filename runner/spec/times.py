"""When a batch is to begin."""

from collections.abc import Callable
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator

from runner import schedule
from runner.scalars import found, mistake, written
from runner.schedule import BadSchedule, Times
from runner.spec.base import Spec


def _every(value: object) -> Times:
    return _times(value, schedule.every)


def _cron(value: object) -> Times:
    return _times(value, schedule.cron)


def _times(value: object, read: Callable[[str], Times]) -> Times:
    """The times that *read* finds in *value*."""
    if not isinstance(value, str):
        raise mistake(f"expected a text, found {found(value)}", schedule.known())
    try:
        return read(value)
    except BadSchedule as bad:
        raise mistake(bad.message, bad.fix) from None


_AS_WRITTEN = PlainSerializer(lambda times: times.text, return_type=str)


class Schedule(Spec):
    """
    When to begin, for `runner schedule`, which prints what cron, systemd or Kubernetes takes; `runner run` ignores it.

    Exactly one of every and cron.
    """

    every: Annotated[Times, PlainValidator(_every), _AS_WRITTEN, written(schedule.PATTERN)] | None = Field(
        default=None,
        description="What follows the word in a sentence: 15 minutes; hour at :15; 6 hours at :15; day, weekday or "
        "monday and thursday at 02:30; month on the 1st at 02:30.",
        examples=["day at 02:30"],
    )
    cron: Annotated[Times, PlainValidator(_cron), _AS_WRITTEN, written(r"([^\s@]\S*\s+){4}\S+")] | None = Field(
        default=None,
        description="The five fields of cron: minute, hour, day of the month, month, day of the week; one of the two "
        "days is *.",
        examples=["30 2 * * *"],
    )
    time_zone: str | None = Field(
        default=None,
        min_length=1,
        description="Whose clock is meant, by its IANA name. Default: that of the machine.",
        examples=["Europe/Berlin"],
    )

    @property
    def times(self) -> Times:
        """Its times; a checked schedule has them."""
        times = self.every or self.cron
        assert times is not None
        return times

    @property
    def sentence(self) -> str:
        """It in a line."""
        words = f"every {self.times.text}" if self.every else f"cron {self.times.text}"
        return f"{words}, {self.time_zone}" if self.time_zone else words


def _schedule(value: object) -> object:
    """A sentence is short for what follows its `every`."""
    if isinstance(value, dict | Schedule):
        return value
    if not isinstance(value, str):
        raise mistake(f"expected a schedule, found {found(value)}", schedule.known())
    words = value.split(maxsplit=1)
    if words[:1] != ["every"]:
        raise mistake(f"expected a schedule, found {found(value)}", schedule.known())
    sentence = "".join(words[1:])
    _every(sentence)  # here, for what is wrong with it is told of this value
    return {"every": sentence}


_Sentence = Annotated[str, written(rf"every\s+{schedule.PATTERN}")]

WrittenSchedule = Annotated[Schedule, BeforeValidator(_schedule, json_schema_input_type=_Sentence | Schedule)]
"""A schedule as a job file has it: a sentence, or a mapping."""
