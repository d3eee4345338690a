"""
Build what renders a job's `input`: a tree of closures over the values a template sees.

Each call gives a new tree, so that runs share nothing that could change. A template that only looks something up
(``{{ row.prompt }}``, ``{{ vars.style }}, {{ row.prompt }}``) skips jinja; when the shortcut meets anything but
plain text and whole numbers, jinja decides.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runner.records import record
from runner.values import JsonValue
from runner.wording import Loc

Scope = dict[str, Any]
"""What a template sees: row, matrix, vars, repeat; run and output once there are such."""

BATCH = " batch"
"""The key in a scope of the folder of a batch, for a job whose rows are another's runs; no template can name it."""

Render = Callable[[Scope], JsonValue]


@record(frozen=True, slots=True)
class Use:
    """A name that a template reads: ``row.prompt`` is root row, key prompt. *guarded*: it may be undefined."""

    root: str
    key: str | None
    guarded: bool


@record(frozen=True, slots=True)
class Compiled:
    """A template, ready to render, and the names it reads."""

    render: Render
    names: frozenset[str]
    uses: tuple[Use, ...]


@dataclass(slots=True)
class RenderError(Exception):
    """Raised when a template can't be rendered with these values. *loc* is its place in the job file."""

    loc: Loc
    message: str

    def __str__(self) -> str:
        return self.message


def is_template(text: str) -> bool:
    """Whether *text* holds anything that jinja would act on."""
    return "{{" in text or "{%" in text or "{#" in text


def build(value: JsonValue, loc: Loc, compile_text: Callable[[str, Loc], Render]) -> Render:
    """What renders *value*, an input or a part of one; mapping keys are never templates."""
    if isinstance(value, str) and is_template(value):
        return compile_text(value, loc)
    if isinstance(value, dict):
        return _mapping({key: build(item, (*loc, key), compile_text) for key, item in value.items()}, value)
    if isinstance(value, list):
        items = [build(item, (*loc, index), compile_text) for index, item in enumerate(value)]
        return lambda scope: [item(scope) for item in items]
    return lambda _scope: value


def _mapping(parts: dict[str, Render], source: dict[str, JsonValue]) -> Render:
    """Renders a mapping: its plain entries are copied at once, the others are called."""
    plain = {key: value for key, value in source.items() if _is_plain(value)}
    called = [(key, part) for key, part in parts.items() if key not in plain]

    def render(scope: Scope) -> JsonValue:
        result = dict.fromkeys(source) if plain else {}
        result.update(plain)
        for key, part in called:
            result[key] = part(scope)
        return result

    return render


def _is_plain(value: JsonValue) -> bool:
    """Whether *value* renders to itself and can't be changed, so that it may be shared."""
    return not isinstance(value, dict | list) and not (isinstance(value, str) and is_template(value))


def copy(value: JsonValue) -> JsonValue:
    """A copy of a JSON value that shares no list or mapping with it."""
    if isinstance(value, dict):
        return {key: copy(item) for key, item in value.items()}
    return [copy(item) for item in value] if isinstance(value, list) else value


def lookup(path: tuple[str, ...]) -> Render:
    """What looks up *path* in a scope; anything but mappings on the way is a KeyError or TypeError."""
    if len(path) == 2:
        first, second = path
        return lambda scope: scope[first][second]

    def get(scope: Scope) -> JsonValue:
        value: Any = scope
        for part in path:
            value = value[part]
        return value

    return get


def quick_value(path: tuple[str, ...], otherwise: Render, *, shared: bool = False) -> Render:
    """What renders a lone ``{{ path }}``. *shared*: its value may be handed on as it is, lists and mappings too."""
    get = lookup(path)

    def render(scope: Scope) -> JsonValue:
        try:
            value = get(scope)
        except (KeyError, TypeError, IndexError):
            return otherwise(scope)
        kind = type(value)
        plain = kind is str or kind is int or kind is bool or value is None
        return value if plain or shared else otherwise(scope)

    return render


def quick_text(parts: list[str | tuple[str, ...]], otherwise: Render) -> Render:
    """What renders texts between lookups."""
    form = "".join(part.replace("%", "%%") if isinstance(part, str) else "%s" for part in parts)
    gets = [lookup(part) for part in parts if isinstance(part, tuple)]

    def render(scope: Scope) -> JsonValue:
        try:
            values = tuple([get(scope) for get in gets])
        except (KeyError, TypeError, IndexError):
            return otherwise(scope)
        for value in values:
            if type(value) is not str and type(value) is not int:
                return otherwise(scope)
        return form % values

    return render
