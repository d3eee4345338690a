"""
The words of a job file that stand for a number, each read into one, or refused in our own words.

Durations, rates, money, shares. Serializers give users' words back: for the manifest, and for defaults in the schema.
"""

from typing import Annotated

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from runner import thresholds, units
from runner.records import record
from runner.states import RETRYABLE, Outcome
from runner.units import Rate
from runner.values import JsonObject

LONGEST_S = 365 * 86_400.0


def found(value: object) -> str:
    """*value* as a message names it: its kind, and the value itself where it is short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}…'"
    if isinstance(value, int | float):
        return str(value)[:60]
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else type(value).__name__


def mistake(message: str, fix: str | None = None) -> PydanticCustomError:
    """A problem in our own words; `runner.wording` hands them on as they are."""
    return PydanticCustomError("mistake", "{message}", {"message": message, "fix": fix})


def _wait(value: object) -> float:
    """Seconds in a duration, zero allowed."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise mistake(f"a duration needs a unit, found {found(value)}", f"write {found(value)}s")
    if not isinstance(value, str):
        raise mistake(f"expected a duration, found {found(value)}", "write a number and a unit, such as 30s")
    try:
        seconds = units.duration_s(value)
    except ValueError:
        raise mistake(f"expected a duration, found {found(value)}", "write 500ms, 90s, 5m, 2h or 1d") from None
    if seconds > LONGEST_S:
        raise mistake(f"a duration is at most 365d, found {found(value)}")
    return seconds


def _duration(value: object) -> float:
    """Seconds in a duration above zero."""
    seconds = _wait(value)
    if seconds <= 0:
        raise mistake(f"a duration must be above zero, found {found(value)}")
    return seconds


def _rate(value: object) -> Rate:
    try:
        return units.rate(value) if isinstance(value, str) else units.rate("")
    except ValueError as error:
        raise mistake(f"{error}, found {found(value)}", "write 950/10s, or 5/s") from None


def _outcome(value: object) -> Outcome:
    if isinstance(value, str) and value in RETRYABLE:
        return Outcome(value)
    raise PydanticCustomError("choice", "unknown outcome", {"noun": "outcome", "choices": sorted(RETRYABLE)})


@record(frozen=True, slots=True)
class Limit:
    """So many runs, or such a share of the plan: one of the two is None."""

    count: int | None
    share: float | None

    def __str__(self) -> str:
        return str(self.count) if self.share is None else f"{round(self.share * 100, 9):g}%"


def _limit(value: object) -> Limit:
    """A limit on runs: a whole number of them, or a percentage of the plan."""
    if isinstance(value, Limit):
        return value
    if type(value) is int:
        if value < 1:
            raise mistake(f"expected at least 1, found {value}")
        return Limit(value, None)
    share = thresholds.share(value) if isinstance(value, str) else None
    if share is None or share <= 0:
        fix = "write 20 or 10%"
        if isinstance(value, str) and value.strip().isdecimal():
            fix = f"write {value.strip()} without quotes"
        elif isinstance(value, float) and 0 < value < 1:
            fix = f"write {value * 100:g}%"
        elif isinstance(value, str) and value.strip().endswith("%"):
            fix = "a percentage is above 0% and at most 100%"
        raise mistake(f"expected a count of runs or a percentage, found {found(value)}", fix)
    return Limit(None, share)


def _usd(value: object) -> float:
    """An amount above zero."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise mistake(f"an amount needs its currency, found {found(value)}", f"write {found(value)} USD")
    amount = thresholds.usd(value) if isinstance(value, str) else None
    if amount is None:
        raise mistake(f"expected an amount in USD, found {found(value)}", "write 5.00 USD")
    if amount <= 0:
        raise mistake(f"an amount must be above zero, found {found(value)}")
    return amount


def _size(value: object) -> int:
    """Bytes in a size above zero."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise mistake(f"a size needs a unit, found {found(value)}", f"write {found(value)} MiB, or another unit")
    try:
        size_bytes = units.size_bytes(value) if isinstance(value, str) else 0
    except ValueError:
        size_bytes = 0
    if size_bytes < 1:
        raise mistake(f"expected a size, found {found(value)}", "write 500 KB, 20 MiB or 1 GiB")
    return size_bytes


def _schema(value: object) -> JsonObject | str:
    if isinstance(value, dict) or (isinstance(value, str) and value):
        return value
    fix = "write the schema itself, or the path of a JSON file with it"
    raise mistake(f"expected a JSON Schema, found {found(value)}", fix)


# Patterns for editors: `[0-9]`, for `\d` is other digits too in some languages; zero is told apart without a lookahead.
NUMBER = r"[0-9]+(\.[0-9]+)?"
ABOVE_ZERO = r"(0*[1-9][0-9]*(\.[0-9]+)?|0+\.0*[1-9][0-9]*)"
UNIT = "(ms|s|m|h|d)"


def written(pattern: str) -> WithJsonSchema:
    """What editors know of a text: it is *pattern*, with any space around it."""
    return WithJsonSchema({"type": "string", "pattern": rf"^\s*{pattern}\s*$"})


_IN_WORDS = PlainSerializer(units.duration, return_type=str)
Duration = Annotated[float, PlainValidator(_duration), _IN_WORDS, written(rf"{ABOVE_ZERO}\s*{UNIT}")]
Wait = Annotated[float, PlainValidator(_wait), _IN_WORDS, written(rf"{NUMBER}\s*{UNIT}")]
RateLimit = Annotated[
    Rate,
    PlainValidator(_rate),
    PlainSerializer(str, return_type=str),
    written(rf"0*[1-9][0-9]*\s*/\s*({ABOVE_ZERO}|\.0*[1-9][0-9]*)?\s*{UNIT}"),
]
RetryOutcome = Annotated[
    Outcome,
    PlainValidator(_outcome),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"enum": sorted(RETRYABLE)}),
]
Size = Annotated[
    int,
    PlainValidator(_size),
    PlainSerializer(units.size_text, return_type=str),
    written(rf"{ABOVE_ZERO}\s*([KMG]i?)?B"),
]
Schema = Annotated[
    JsonObject | str,
    PlainValidator(_schema),
    PlainSerializer(lambda schema: schema),
    WithJsonSchema({"type": ["object", "string"], "minLength": 1}),
]
_SHARE = r"^\s*(0*[1-9][0-9]?(\.[0-9]+)?|0+\.0*[1-9][0-9]*|0*100(\.0+)?)\s*%\s*$"
RunLimit = Annotated[
    Limit,
    PlainValidator(_limit),
    PlainSerializer(lambda limit: str(limit) if limit.count is None else limit.count),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _SHARE}]}),
]
Usd = Annotated[
    float,
    PlainValidator(_usd),
    PlainSerializer(lambda amount: f"{amount:.15g} USD", return_type=str),
    written(rf"{ABOVE_ZERO}\s*USD"),
]
