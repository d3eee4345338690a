"""Hold a value against the grammar, and keep what is valid of it, so that one mistake doesn't hide all others."""

from typing import Any

from pydantic import ValidationError

from runner import wording
from runner.spec import UNREAD, JobFileSpec, Layered
from runner.values import JsonObject, JsonValue
from runner.wording import Finding, Loc


def validate(value: JsonObject) -> tuple[list[Finding], JobFileSpec | None]:
    """Every problem that *value* has with the grammar, and the model of what is left without them."""
    try:
        return [], JobFileSpec.read(value)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    found = wording.findings(errors)
    for _ in range(6):  # a job without its endpoint goes whole, then perhaps `jobs`: no path is deeper
        for loc in sorted({_removable(error) for error in errors}, key=_by_position, reverse=True):
            stand_in = _stand_in(loc)
            value = _without(value, loc) if stand_in is None else _with(value, loc, stand_in)
        try:
            return found, JobFileSpec.read(value)
        except ValidationError as error:
            errors = error.errors(include_url=False)
    return found, None


def of_layers(value: JsonObject) -> list[Finding]:
    """Every problem that the `defaults` and `profiles` of *value* have with the grammar, by themselves."""
    layers = {name: value[name] for name in ("defaults", "profiles") if name in value}
    if not layers:
        return []  # nor is the model built, which takes as long as reading a file
    try:
        Layered.read(layers)
    except ValidationError as error:
        return wording.findings(error.errors(include_url=False))
    return []


_STAND_INS: dict[str, JsonValue] = {
    "version": 1,
    "name": "x",
    "endpoints": {"x": {"id": "x"}},
    "jobs": {"x": {"endpoint": "", "input": "x"}},
    "jobs.*.endpoint": "",
    "jobs.*.artifacts.path": UNREAD,
    "jobs.*.artifacts.for": "[]",
}
"""What stands for a part that nothing can do without."""

_ARTIFACT: JsonValue = {"path": UNREAD, "text": ""}


def _stand_in(loc: Loc) -> JsonValue:
    """What stands for the part at *loc*, None where it can be left out."""
    place = wording.place(loc)
    if place == "jobs.*.artifacts":  # the places of later artifacts go by position
        return _ARTIFACT if isinstance(loc[-1], int) else None
    return _STAND_INS.get(place)


def _by_position(loc: Loc) -> tuple[str, ...]:
    # List positions fall from the end, so that removing one does not move the next.
    return tuple(f"{part:09}" if isinstance(part, int) else part for part in loc)


def _removable(error: Any) -> Loc:
    """What to leave out for *error* to go: the value, or whatever misses one."""
    loc = wording.path(error["loc"])
    return loc[:-1] if error["type"] == "missing" and wording.place(loc) not in _STAND_INS else loc


def _without(value: JsonValue, loc: Loc) -> JsonValue:
    """*value* without the part at *loc*; other parts are shared."""
    if not loc:
        return value
    first, *rest = loc
    if isinstance(value, dict) and first in value:
        left = {key: item for key, item in value.items() if key != first}
        return value | {first: _without(value[first], tuple(rest))} if rest else left
    if isinstance(value, list) and isinstance(first, int) and first < len(value):
        new = [_without(value[first], tuple(rest))] if rest else []
        return value[:first] + new + value[first + 1 :]
    return value


def _with(value: JsonValue, loc: Loc, part: JsonValue) -> JsonValue:
    """*value* with *part* at *loc*; what is on the way is copied."""
    if not loc:
        return part
    first = loc[0]
    if isinstance(value, list) and isinstance(first, int):
        return [_with(item, loc[1:], part) if number == first else item for number, item in enumerate(value)]
    inner = value.get(first) if isinstance(value, dict) else None
    return (value if isinstance(value, dict) else {}) | {first: _with(inner, loc[1:], part)}
