"""Numbers as a page shows them."""

from runner.units import elapsed


def number(value: float) -> str:
    """A count, with a comma each three digits; what is no whole number has one or two digits behind the point."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


def several(count: int, noun: str) -> str:
    """*count* and what is counted: ``1 run``, ``2,000 runs``."""
    return f"{number(count)} {noun}" if count == 1 else f"{number(count)} {noun}s"


def share(part: float, whole: float) -> str:
    """*part* of *whole* in percent; 100 and 0 only where it is all or nothing."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.0f}%" if percent in (0, 100) else f"{percent:.1f}%"


def took(ms: float | None) -> str:
    """A time in ms for people; a dash where there is none."""
    return "–" if ms is None else elapsed(max(0.0, ms) / 1000)


def short(seconds: float) -> str:
    """A round time at an axis: ``0``, ``500ms``, ``20s``, ``5m``, ``1h30``, ``2d``."""
    if seconds == 0:
        return "0"
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    if seconds < 60:
        return f"{seconds:g}s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}m" if not rest else f"{minutes}m{rest:02d}"
    if seconds < 86_400:
        hours, rest = divmod(round(seconds / 60), 60)
        return f"{hours}h" if not rest else f"{hours}h{rest:02d}"
    days, rest = divmod(round(seconds / 3600), 24)
    return f"{days}d" if not rest else f"{days}d{rest}h"


def usd(amount: float | None) -> str:
    """An amount in US dollars, with as many digits as it takes to see it."""
    if amount is None:
        return "–"
    if amount == 0:
        return "0"
    return f"{amount:,.{2 if amount >= 100 else 4 if amount >= 0.01 else 6}f}"
