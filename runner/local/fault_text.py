"""
Read faults as people write them, on the command line and in a header:

    [OPERATION:]KIND[=HOW OFTEN][,OPTION=VALUE]...

    429=5%                    one in twenty requests, by chance
    run:reset_after=3         the first three submits
    status:502=20/200         the first 20 of every 200 looks
    paused=8s                 in the first 8 s; not_found=500ms: of each job
    429=5%,retry_after=2s     in seconds; retry_at=2s: as a date
    slow,over=5s              every answer
    unknown_status=1%,shown=RUNNING
    cold_start=20s  throttled=2  unhealthy=1  stalled=1  times_out
    batch-append:reset_after=1  batch-requests:shifted_page=10%  batch_fails=1
    batch_delay=20s  batch_ids=off  batch_order=failures_first  batch_extra
"""

import contextlib
import re
from collections.abc import Callable, Iterable
from typing import Any

from runner.errors import UsageError
from runner.local.faults import ALWAYS, OPERATIONS, Conditions, Fault, Faults, Kind, Often, Order, operations
from runner.units import duration_s

HEADER = "X-Runner-Fault"
"""The request header that asks for a fault, where the server lets clients do so."""

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?)%")
_COUNT = re.compile(r"(\d{1,9})(?:/(\d{1,9}))?")
_STATUS = re.compile(r"[A-Za-z0-9_-]{1,40}")

_HOW_OFTEN = "write 5%, a count such as 3 or 20/200, or a duration such as 8s"
_RETRY = frozenset({"retry_after", "retry_at"})
_OPTIONS = {
    Kind.TOO_MANY: _RETRY,
    Kind.UNAVAILABLE: _RETRY,
    Kind.SLOW: frozenset({"over"}),
    Kind.UNKNOWN_STATUS: frozenset({"shown"}),
}


def faults(texts: Iterable[str], *, seed: int = 0, by_header: bool = False) -> Faults:
    """
    The bad day that these texts describe.

    Raises:
        UsageError: one of them is no fault; nothing is guessed.
    """
    single: list[Fault] = []
    conditions: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name in CONDITIONS:
            key, read = CONDITIONS[name]
            conditions[key] = read(text, value)
        else:
            single.append(fault(text))
    return Faults(tuple(single), Conditions(**conditions), seed, by_header)


def fault(text: str) -> Fault:
    """
    The one fault that *text* describes.

    Raises:
        UsageError: it is none.
    """
    head, *rest = text.split(",")
    name, has_often, often = head.partition("=")
    operation, has_operation, kind_name = name.rpartition(":")
    if kind_name not in list(Kind):
        known = ", ".join([*Kind, *CONDITIONS])
        raise UsageError(f"'{text}' is no fault: nothing is called '{kind_name}'", fix=f"choose one of {known}")
    kind = Kind(kind_name)
    if has_operation and operation not in operations(kind):
        of = "no such operation" if operation not in OPERATIONS else f"{kind} can't happen to it"
        raise UsageError(f"'{text}' is no fault: {operation}: {of}", fix=f"choose one of {', '.join(operations(kind))}")
    options: dict[str, Any] = {}
    for one in rest:
        options |= _option(text, kind, one)
    return Fault(kind, _often(text, often) if has_often else ALWAYS, operation if has_operation else None, **options)


def _often(text: str, often: str) -> Often:
    if found := _PERCENT.fullmatch(often):
        if float(found[1]) <= 100:
            return Often(chance=float(found[1]) / 100)
    elif found := _COUNT.fullmatch(often):
        first, every = int(found[1]), int(found[2]) if found[2] else None
        if every is None or 0 < first <= every:
            return Often(first=first, every=every)
    else:
        with contextlib.suppress(ValueError):
            return Often(for_s=duration_s(often))
    raise UsageError(f"'{text}' is no fault: '{often}' is not how often", fix=_HOW_OFTEN)


def _option(text: str, kind: Kind, option: str) -> dict[str, Any]:
    """What *option* says, by the names of `Fault`'s fields."""
    name, _, value = option.partition("=")
    known = _OPTIONS.get(kind, frozenset())
    if name not in known:
        fix = f"choose one of {', '.join(sorted(known))}" if known else "leave it out"
        raise UsageError(f"'{text}' is no fault: {kind} has no option '{name}'", fix=fix)
    if name == "shown":
        if not _STATUS.fullmatch(value):
            message = f"'{text}' is no fault: '{value}' can't be a status"
            raise UsageError(message, fix="use letters, digits, '-' and '_'")
        return {"shown": value}
    seconds = _seconds(text, value, f"write {name}=2s")
    return {"over_s": seconds} if name == "over" else {"retry_after_s": seconds, "as_date": name == "retry_at"}


def _seconds(text: str, value: str, fix: str) -> float:
    try:
        return duration_s(value)
    except ValueError as error:
        raise UsageError(f"'{text}' is no fault: '{value}': {error}", fix=fix) from error


def _count(text: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) <= 6):
        raise UsageError(f"'{text}' is no fault: '{value}' is no number of workers", fix="write a count such as 2")
    return int(value)


def _flag(text: str, value: str) -> bool:
    if "=" in text:
        raise UsageError(f"'{text}' is no fault: it takes no value", fix=f"write {text.partition('=')[0]}")
    return True


def _switch(text: str, value: str) -> bool:
    if value not in ("on", "off"):
        raise UsageError(f"'{text}' is no fault: '{value}' is neither on nor off", fix="write on or off")
    return value == "on"


def _order(text: str, value: str) -> Order:
    if value not in list(Order):
        raise UsageError(f"'{text}' is no fault: '{value}' is no order", fix=f"choose one of {', '.join(Order)}")
    return Order(value)


CONDITIONS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "cold_start": ("cold_start_s", lambda text, value: _seconds(text, value, "write cold_start=20s")),
    "throttled": ("throttled", _count),
    "unhealthy": ("unhealthy", _count),
    "stalled": ("stalled", _count),
    "times_out": ("times_out", _flag),
    "batch_delay": ("batch_delay_s", lambda text, value: _seconds(text, value, "write batch_delay=20s")),
    "batch_ids": ("batch_ids", _switch),
    "batch_order": ("batch_order", _order),
    "batch_extra": ("batch_extra", _flag),
}
"""States of the endpoint by the names that people write, each with a field of `Conditions` and how it is read."""
