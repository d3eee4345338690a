"""
The words of a job file that stand for a number, each read into one, or refused in our own words.

Durations, rates, money, shares. Serializers give users' words back: for the manifest, and for defaults in the schema.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from runner import thresholds, units
from runner.states import RETRYABLE, Outcome
from runner.units import Rate

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
    except ValueError:
        raise mistake(f"expected a rate, found {found(value)}", "write a count and a duration: 950/10s") from None


def _outcome(value: object) -> Outcome:
    if isinstance(value, str) and value in RETRYABLE:
        return Outcome(value)
    raise PydanticCustomError("choice", "unknown outcome", {"noun": "outcome", "choices": sorted(RETRYABLE)})


@dataclass(frozen=True, slots=True)
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
        raise mistake(f"expected a count of runs or a percentage, found {found(value)}", "write 20 or 10%")
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


_DURATION_SCHEMA = WithJsonSchema({"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*$"})
_IN_WORDS = PlainSerializer(units.duration, return_type=str)
Duration = Annotated[float, PlainValidator(_duration), _IN_WORDS, _DURATION_SCHEMA]
Wait = Annotated[float, PlainValidator(_wait), _IN_WORDS, _DURATION_SCHEMA]
RateLimit = Annotated[
    Rate,
    PlainValidator(_rate),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+\s*/\s*\d*(\.\d+)?\s*(ms|s|m|h|d)\s*$"}),
]
RetryOutcome = Annotated[
    Outcome,
    PlainValidator(_outcome),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"enum": sorted(RETRYABLE)}),
]
RunLimit = Annotated[
    Limit,
    PlainValidator(_limit),
    PlainSerializer(lambda limit: str(limit) if limit.count is None else limit.count),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%\s*$"}]}
    ),
]
Usd = Annotated[
    float,
    PlainValidator(_usd),
    PlainSerializer(lambda amount: f"{amount:.15g} USD", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*USD\s*$"}),
]
