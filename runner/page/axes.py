"""Choose the ends and the labels of axes, so that labels are round numbers at even distances. Pure."""

from dataclasses import dataclass
from math import ceil, floor, log10

from runner.page.words import number, short


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from *low* to *high* with *labels* at even distances, the first at *low*; *log* is for decades."""

    low: float
    high: float
    labels: tuple[str, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Where *value* is: 0 at the low end, 1 at the high one, never outside."""
        if self.log:
            value, low, high = log10(max(value, self.low)), log10(self.low), log10(self.high)
            return min(1.0, max(0.0, (value - low) / (high - low)))
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def edges(self, count: int) -> list[float]:
        """The borders of *count* equal parts."""
        if self.log:
            low, high = log10(self.low), log10(self.high)
            return [10 ** (low + (high - low) * at / count) for at in range(count + 1)]
        return [self.low + (self.high - self.low) * at / count for at in range(count + 1)]


def counts(most: float) -> Axis:
    """An axis for what is counted: from zero to a round number not below *most*."""
    if most <= 1:
        return Axis(0, 1, ("0", "1"))
    unit = 10.0 ** floor(log10(most))
    steps = (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if unit > 1 else (1, 2, 3, 4, 5, 6, 8, 10)
    top = next(unit * step for step in steps if unit * step >= most)
    middle = top / 2
    whole = middle == int(middle)
    return Axis(0, top, ("0", number(middle), number(top)) if whole else ("0", number(top)))


_STEPS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30),
    *(60, 120, 180, 300, 600, 900, 1200, 1800, 3600, 7200, 10_800, 14_400, 21_600, 43_200, 86_400),
)


def times(length_s: float) -> Axis:
    """An axis of time from zero to a little more than *length_s* seconds."""
    length_s = max(length_s, 0.001)
    fits = [
        (step * parts, -parts, step, parts)
        for parts in (3, 4, 5)
        for step in (*_STEPS_S, ceil(length_s / parts / 86_400) * 86_400)
        if step * parts >= length_s
    ]
    high, _, step, parts = min(fits)
    return Axis(0, high, tuple(short(step * at) for at in range(parts + 1)))


def spread_ms(least: float, middle: float, most: float) -> Axis:
    """An axis for times in ms, from the *least* to the *most*: even, or by decades where the longest are far off."""
    if most > 20 * max(1.0, middle):
        first, last = floor(log10(max(1.0, least))), ceil(log10(most * 1.000001))
        return Axis(10.0**first, 10.0**last, tuple(_decade(at) for at in range(first, last + 1)), log=True)
    even = times(most / 1000)
    return Axis(0, even.high * 1000, even.labels)


def _decade(power: int) -> str:
    """So many ms as a decade: ``10ms``, ``100s``; the usual ``1m40`` would not be seen to be one."""
    return f"{10**power}ms" if power < 3 else f"{10 ** (power - 3):,}s"
