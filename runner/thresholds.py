"""A bound on one number of a batch, such as ``p95 < 30s``: its text to a record, and whether a value holds it."""

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from runner import units
from runner.records import record
from runner.values import JsonObject, JsonValue

COUNTS = ("failed", "succeeded", "cancelled", "skipped", "retried", "answer_lost")
"""Metrics that count runs: their bounds are whole numbers, or shares of all runs."""

TIMES = ("execution_time", "delay_time")
"""Metrics that have a value for each run: their bounds are durations, and need a statistic."""

ABORTING = ("failed", "succeeded", "cancelled", "skipped", "answer_lost", "cost")
"""Metrics whose bounds can be found broken before the end, by counting: what has happened stays so."""

STATISTICS = ("p50", "p90", "p95", "p99", "max", "mean")

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_FORM = re.compile(r"\s*(?P<statistic>[A-Za-z]\w*)?\s*(?P<operator>[<>=!~]+)\s*(?P<bound>.*?)\s*", re.DOTALL)
_COUNT = re.compile(r"\d{1,15}", re.ASCII)
_SHARE = re.compile(r"\d*\.\d+|\d+\.", re.ASCII)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_USD = re.compile(r"(\d{1,12}(?:\.\d+)?)\s*USD", re.ASCII)


@record(frozen=True, slots=True)
class Threshold:
    """
    What a number of the batch must be for it to pass.

    *unit* says what *bound* counts: ``runs``, ``share`` (0 to 1, of all runs), ``ms`` or ``USD``. *statistic* is one
    of `STATISTICS` for times, else None. *text* is the bound as its author wrote it. With *abort* nothing more is
    started once it can't hold any more.
    """

    metric: str
    statistic: str | None
    operator: str
    bound: float
    unit: str
    text: str
    abort: bool = False

    def holds(self, value: float) -> bool:
        """Whether *value*, in the threshold's unit, is within the bound."""
        return _OPERATORS[self.operator](value, self.bound)

    def lost(self, low: float, high: float) -> float | None:
        """
        Where the number will be between *low* and *high* at the end: the better of the two when no number between them
        is within the bound, None while one is.
        """
        if self.operator in ("<", "<="):
            return None if self.holds(low) else low
        if self.operator in (">", ">="):
            return None if self.holds(high) else high
        return low if low > self.bound else high if high < self.bound else None

    def say(self, value: float | None) -> str:
        """*value*, in the threshold's unit, for people: rounded, but never across the bound. None is not known."""
        if value is None:
            return _UNKNOWN[self.unit]
        holds = self.holds(value)
        texts = (text for rounded, text in _rounded(value, self.unit) if self.holds(rounded) is holds)
        return next(texts, f"{value!r} {self.unit}")


@dataclass(slots=True)
class BadThreshold(Exception):
    """Raised when a text is no threshold of its metric."""

    message: str
    fix: str | None = None


def parse(metric: str, text: str) -> Threshold:
    """
    The threshold that *text* sets for *metric*.

    Raises:
        BadThreshold: it is none; the message says what to write.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise BadThreshold(f"expected a comparison, found '{text}'", f'write "{example(metric)}"')
    if form["operator"] not in _OPERATORS:
        raise BadThreshold(f"unknown comparison '{form['operator']}'", "known: " + ", ".join(map(repr, _OPERATORS)))
    statistic = form["statistic"]
    if metric not in TIMES and statistic is not None:
        raise BadThreshold(f"'{metric}' is one number, without '{statistic}'", f'write "{example(metric)}"')
    if metric in TIMES and statistic not in STATISTICS:
        message = f"unknown statistic '{statistic}'" if statistic else f"'{metric}' needs a statistic"
        raise BadThreshold(message, f'known: {", ".join(STATISTICS)}, as in "{_EXAMPLES["time"]}"')
    bound, unit = _BOUNDS[_kind(metric)](form["bound"])
    return Threshold(metric, statistic, form["operator"], bound, unit, text.strip())


def read(metric: str, written: JsonValue) -> tuple[Threshold, ...]:
    """
    The bounds that a manifest has for *metric*: a text, an object with `bound` and `abort`, or a list of such.

    Raises:
        BadThreshold: one is none.
    """
    each = written if isinstance(written, list) else [written]
    return tuple(
        replace(parse(metric, one["bound"]), abort=one.get("abort", False))
        if isinstance(one, dict)
        else parse(metric, str(one))
        for one in each
    )


def as_written(bounds: Sequence[Threshold]) -> JsonValue:
    """What `read` reads as *bounds*."""
    each: list[JsonValue] = [{"bound": one.text, "abort": True} if one.abort else one.text for one in bounds]
    return each[0] if len(each) == 1 else each


def all_of(written: JsonObject) -> tuple[Threshold, ...]:
    """The bounds of every metric of *written*, in their order."""
    return tuple(one for metric, bounds in written.items() for one in read(metric, bounds))


def example(metric: str) -> str:
    """A threshold for *metric*, as a message shows it."""
    return ">= 99%" if metric == "succeeded" else _EXAMPLES[_kind(metric)]


def _kind(metric: str) -> str:
    return "count" if metric in COUNTS else "time" if metric in TIMES else "cost"


_EXAMPLES = {"count": "< 1%", "time": "p95 < 30s", "cost": "< 5 USD"}


def share(text: str) -> float | None:
    """The share that a text such as ``10%`` says, None when it is none of 0 to 100 %."""
    found = _PERCENT.fullmatch(text.strip())
    # Not divided by 100: 99.9 / 100 is above 0.999, and 999 of 1000 runs would be below 99.9 %.
    return float(f"{found[1]}e-2") if found and float(found[1]) <= 100 else None


def usd(text: str) -> float | None:
    """The amount that a text such as ``5.00 USD`` says, None when it says none."""
    found = _USD.fullmatch(text.strip())
    return float(found[1]) if found else None


def _count(text: str) -> tuple[float, str]:
    if _COUNT.fullmatch(text):
        return float(text), "runs"
    part = float(text) if _SHARE.fullmatch(text) else share(text)
    if part is None or part > 1:
        raise BadThreshold(f"expected a count of runs or a share of them, found '{text}'", "write 3, 1% or 0.99")
    return part, "share"


def _time(text: str) -> tuple[float, str]:
    try:
        return round(units.duration_s(text) * 1000, 6), "ms"
    except ValueError:
        fix = f"write {text}s" if _COUNT.fullmatch(text) else "write 500ms, 90s, 5m, 2h or 1d"
        raise BadThreshold(f"expected a duration with its unit, found '{text}'", fix) from None


def _cost(text: str) -> tuple[float, str]:
    amount = usd(text)
    if amount is None:
        raise BadThreshold(f"expected an amount in USD, found '{text}'", "write 5 USD")
    return amount, "USD"


_BOUNDS: dict[str, Callable[[str], tuple[float, str]]] = {"count": _count, "time": _time, "cost": _cost}

_UNKNOWN = {
    "runs": "not known",
    "share": "no run was planned",
    "ms": "no run has a time",
    "USD": "not known: an endpoint has no cost_per_second",
}


def _rounded(value: float, unit: str) -> Iterator[tuple[float, str]]:
    """*value* rounded less and less, each with its text."""
    if unit == "runs":
        yield value, f"{value:.0f} run" if value == 1 else f"{value:.0f} runs"
    elif unit == "USD":
        for decimals in range(2 if value >= 1 else 4, 13):
            yield round(value, decimals), f"{value:.{decimals}f} USD"
    else:
        for digits in range(2 if unit == "share" else 3, 18):
            rounded = float(f"{value:.{digits}g}")
            yield rounded, percent(rounded) if unit == "share" else _ms(rounded)


def _ms(time_ms: float) -> str:
    if time_ms < 1000:
        return f"{time_ms:.15g}ms"
    return units.duration(time_ms / 1000) if time_ms % 60_000 == 0 else f"{time_ms / 1000:.15g}s"


def percent(part: float) -> str:
    """The share *part* for people: ``3.2%``."""
    return f"{round(part * 100, 12):.12g}%"
