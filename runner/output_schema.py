"""
Know whether an output fits a JSON Schema. Alone imports jsonschema_rs, once a job has a schema.

The schema is the user's, the output anybody's. So nothing is fetched that a schema refers to, patterns take linear time
whatever they are held against (they know no look-around), and what is said of an output is short, however long it is.

Not jsonschema, which is 100 times slower and whose patterns an output can make run for hours; nor fastjsonschema,
which has the same patterns and fetches what a ``$ref`` names.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import extras, values
from runner.scalars import found
from runner.units import size
from runner.values import JsonObject, JsonValue

Loc = tuple[int | str, ...]
"""The keys and positions that lead to a part of a schema."""

Fits = Callable[[JsonValue], str | None]
"""Says what is wrong with an output as answers have it, 200 levels deep at most; None when it fits."""

MOST_BYTES = 1024 * 1024
"""The largest file with a schema: the manifest has it whole."""

MOST_CHARACTERS = 300
"""How long a message gets."""

_MASK = "it"
_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
}


_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}
_COUNTS = {
    "minItems": ("at least", "entry", "entries"),
    "maxItems": ("at most", "entry", "entries"),
    "minLength": ("at least", "character", "characters"),
    "maxLength": ("at most", "character", "characters"),
    "minProperties": ("at least", "key", "keys"),
    "maxProperties": ("at most", "key", "keys"),
}


@dataclass(slots=True)
class SchemaProblem(Exception):
    """Raised when there is no schema to go by. *path* leads to the part of it that is wrong."""

    message: str
    fix: str | None = None
    path: Loc = ()


def read(name: str, folder: Path) -> JsonObject:
    """
    The schema in the file *name*, which is below *folder*.

    Raises:
        SchemaProblem: there is none; the message says why.
    """
    base = folder.resolve()
    try:
        path = (base / name).resolve()
        if Path(name).is_absolute() or not path.is_relative_to(base):
            raise SchemaProblem(f"{found(name)} is outside the job file's folder", "put the schema below it")
        if path.is_dir():
            raise SchemaProblem(f"{found(name)} is a folder", "name the file in it")
        if path.exists() and not path.is_file():  # opening a pipe would wait for whoever writes to it
            raise SchemaProblem(f"{found(name)} is no regular file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise SchemaProblem(f"there is no file {found(name)}", "a path starts at the job file's folder") from None
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in a path; until Python 3.13, a circle of links
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise SchemaProblem(f"{found(name)} can't be read: {why.lower()}") from None
    if len(data) > MOST_BYTES:
        raise SchemaProblem(f"{found(name)} has more than {size(MOST_BYTES)}, the most that a schema may have")
    try:
        schema = values.parse(data)
    except (ValueError, RecursionError):
        fix = "a schema in a file is JSON; in the job file it is YAML"
        raise SchemaProblem(f"{found(name)} is not JSON", fix) from None
    if not isinstance(schema, dict):
        raise SchemaProblem(f"{found(name)} is no JSON Schema: expected a mapping, found {found(schema)}")
    return schema


def compile_schema(schema: JsonObject) -> Fits:
    """
    What holds an output against *schema*.

    Raises:
        SchemaProblem: it is no JSON Schema, or refers to what is not in it.
    """
    try:
        import jsonschema_rs as engine
    except ImportError:
        message = "'output_schema' needs the library jsonschema-rs, which is not installed"
        raise SchemaProblem(message, extras.SCHEMA) from None
    try:
        # `meta.validate`, for one, would ask the host of a `$schema` for it.
        validator = engine.validator_for(schema, mask=_MASK, offline=True, pattern_options=engine.RegexOptions())
    except engine.ValidationError as error:
        if error.kind.name == "$ref":
            raise _not_there(schema, str(error.message)) from None
        path = tuple(error.instance_path)
        wanting = f"unknown type {found(error.instance)}" if path[-1:] == ("type",) else _wanting(error)
        fix = f"known: {', '.join([*_TYPES, 'null'])}" if path[-1:] == ("type",) else None
        raise SchemaProblem(f"this is no JSON Schema: {wanting}", fix, path) from None
    except ValueError as error:
        raise SchemaProblem(f"this schema can't be used: {_short(str(error))}") from None

    def misfit(output: JsonValue) -> str | None:
        try:
            validator.validate(output)
        except engine.ValidationError as error:
            return _short(f"{_place(error.instance_path)}: {_wanting(error)}")
        except UnicodeEncodeError:
            return "a text in it has a lone surrogate, and can't be checked"
        except ValueError as error:
            return _short(f"output can't be checked: {error}")
        return None

    return misfit


def _not_there(schema: JsonObject, said: str) -> SchemaProblem:
    """What to say of a reference that leads nowhere; the engine *said* where to, and not where it stands."""
    quoted = re.search("'([^']*)'", said)
    name = quoted[1] if quoted else said
    if said.startswith("Unknown meta-schema"):
        return SchemaProblem(f"this dialect of JSON Schema is not known: {found(name)}", _DIALECTS, ("$schema",))
    path = next((path for path, reference in _references(schema, ()) if _leads_to(reference, name)), ())
    return SchemaProblem(f"there is no {found(name)} in this schema", _OFFLINE, path)


def _references(part: JsonValue, path: Loc) -> Iterator[tuple[Loc, str]]:
    """Every reference below *part*, and where it stands."""
    if isinstance(part, dict | list):
        for key, inner in part.items() if isinstance(part, dict) else enumerate(part):
            if key in ("$ref", "$dynamicRef") and isinstance(inner, str):
                yield (*path, key), inner
            yield from _references(inner, (*path, key))


def _leads_to(reference: str, name: str) -> bool:
    return reference == name or reference.endswith(f"#{name}") or name.endswith(f"/{reference}")


_DIALECTS = (
    "leave '$schema' out for https://json-schema.org/draft/2020-12/schema; drafts 4, 6, 7 and 2019-09 are known, too"
)
_OFFLINE = "nothing is fetched: put what it names under '$defs', and write '#/$defs/…'"
_REGEX = "a regular expression without look-around and back-references"


def _wanting(error: Any) -> str:
    """What *error* misses, in our words where it is common; the value itself only where it is short."""
    kind, value = error.kind, error.instance
    name = str(kind.name)
    if name in _BOUNDS:
        return f"expected {_BOUNDS[name]} {kind.limit}, found {found(value)}"
    if name in _COUNTS:
        least, one, many = _COUNTS[name]
        return f"expected {least} {kind.limit} {one if kind.limit == 1 else many}, found {len(value)}"
    match name:
        case "type":
            return f"expected {' or '.join(_TYPES.get(one, one) for one in kind.types)}, found {found(value)}"
        case "required":
            return f"there is no {found(kind.property)}"
        case "enum":
            return f"expected one of {_listed(kind.options)}, found {found(value)}"
        case "const":
            return f"expected {found(kind.expected_value)}, found {found(value)}"
        case "additionalProperties" | "unevaluatedProperties":
            return f"unexpected key {_listed(kind.unexpected)}"
        case "pattern":
            return f"expected a text like {found(kind.pattern)}, found {found(value)}"
        case "anyOf" | "oneOf":
            many = "more than one" if type(kind).__name__ == "OneOfMultipleValid" else "none"
            return f"{many} of the alternatives in '{name}' fits {found(value)}"
        case "not":
            return f"{found(value)} is what 'not' forbids"
        case "falseSchema":
            return f"nothing may be here, found {found(value)}"
        case "format" if kind.format == "regex":
            return f"expected {_REGEX}, found {found(value)}"
    return _short(str(error.message))


def _listed(values_: Iterable[object]) -> str:
    """The first of some values, and how many more there are."""
    names = [found(one) for one in values_]
    more = f" and {len(names) - 5} more" if len(names) > 6 else ""
    return ", ".join(names[: 5 if more else 6]) + more


def _place(path: Iterable[int | str]) -> str:
    """``output.images[3].score``."""
    parts = [
        f"[{part}]" if isinstance(part, int) else f".{part}" if part.isidentifier() else f"[{found(part)}]"
        for part in path
    ]
    return "output" + "".join(parts)


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
