"""Durations, rates and sizes: text to number, and back."""

import re
from math import ceil

from runner.records import record

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,300}(?:\.[0-9]+)?)\s*((?:[KMG]i?)?B)")
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_RATE = re.compile(r"([0-9]+)\s*/\s*([0-9]*(?:\.[0-9]+)?)\s*(ms|s|m|h|d)")


def duration_s(text: str) -> float:
    """
    Seconds in a duration such as ``500ms``, ``90s``, ``5m``, ``2h``, ``1d``.

    Raises:
        ValueError: there is no unit, or it is none of these; the message says what to write.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError("a duration needs a number and a unit: 500ms, 90s, 5m, 2h or 1d")
    return float(found[1]) * _SECONDS[found[2]]


@record(frozen=True, slots=True)
class Rate:
    """At most *count* calls in any window of *period_s* seconds."""

    count: int
    period_s: float

    def __str__(self) -> str:
        return f"{self.count}/{duration(self.period_s)}"


def rate(text: str) -> Rate:
    """
    The rate in a text such as ``950/10s``; ``5/s`` is ``5/1s``.

    Raises:
        ValueError: it is not of that form, or the count or the period is zero.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise ValueError("a rate is a count and a duration")
    count, period_s = int(found[1]), float(found[2] or 1) * _SECONDS[found[3]]
    if count < 1 or period_s <= 0:
        raise ValueError("a rate needs a count of at least 1 and a duration above zero")
    return Rate(count, period_s)


def duration(seconds: float) -> str:
    """*seconds* for people and for files: the largest unit that divides it, else seconds with at most 3 decimals."""
    if 0 < seconds < 1:
        return f"{round(seconds * 1000)}ms"
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS[unit] and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds // _SECONDS[unit])}{unit}"
    return f"{round(seconds, 3):g}s"


def elapsed(seconds: float) -> str:
    """*seconds* as a person says it of something that takes time: ``40ms``, ``1.4s``, ``12s``, ``3m05s``, ``2h10m``."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def size(count_bytes: int) -> str:
    """*count_bytes* for people: ``512 B``, ``1.5 KiB``, ``10.0 MiB``."""
    amount = float(count_bytes)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def size_bytes(text: str) -> int:
    """
    Bytes in a size such as ``500 KB``, ``20 MiB``, ``1.5 GiB``; a part of a byte is a whole one.

    Raises:
        ValueError: there is no unit, or it is none of B, KB, MB, GB, KiB, MiB, GiB.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError("a size needs a number and a unit: 500 KB, 20 MiB, 1 GiB")
    return ceil(float(found[1]) * _BYTES[found[2]])


def size_text(count_bytes: int) -> str:
    """*count_bytes* for files, exactly: in the largest unit that divides it."""
    for unit in ("GiB", "GB", "MiB", "MB", "KiB", "KB"):
        if count_bytes and count_bytes % _BYTES[unit] == 0:
            return f"{count_bytes // _BYTES[unit]} {unit}"
    return f"{count_bytes} B"
