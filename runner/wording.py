"""Say in our own words what pydantic found: what, where, fix. Its own texts never reach a user."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from runner import spec
from runner.records import record
from runner.states import Outcome

Loc = tuple[int | str, ...]
"""A path into a job file: keys and positions."""

_TAGS = (spec.LOCAL, spec.REMOTE)
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "a mapping",
    "finite_number": "a finite number",
}
_SECRETS = {
    "endpoints.*.api_key": ("expected a reference to the key", "write ${RUNPOD_API_KEY}"),
    "jobs.*.webhook": ("expected a URL, or a reference to one", "write ${HOOK_URL}"),
    "jobs.*.s3_config": ("expected a mapping", "write access_id, access_secret, bucket_name and endpoint_url below it"),
    "jobs.*.s3_config.access_id": ("expected the id of a key, or a reference to it", "write ${S3_ACCESS_ID}"),
    "jobs.*.s3_config.access_secret": ("expected a reference to the secret", "write ${S3_SECRET}"),
}
"""Places whose values no message may show, and what is said instead."""
_NOUNS = {"jobs": "job", "endpoints": "endpoint", "profiles": "profile"}
_YAML_1_1 = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_PATTERNS = {
    spec.NAME: "lower case letters, digits, '.', '_' and '-', the first a letter or a digit",
    spec.LABEL: "letters, digits, '.', '_' and '-', the first a letter, a digit or '_'",
}


@record(frozen=True, slots=True)
class Finding:
    """A problem at a path of the file. *at_key* points at the key there instead of its value."""

    loc: Loc
    message: str
    fix: str | None = None
    at_key: bool = False


def suggest(word: str, known: Iterable[str]) -> str | None:
    """What to say of an unknown *word*: the nearest known one, else all of them."""
    import difflib  # 3 ms, and only a mistake needs it

    names = [str(name) for name in known]
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return "known: " + ", ".join(f"'{name}'" for name in names) if names else None


def place(loc: Sequence[int | str]) -> str:
    """The place in the grammar that *loc* speaks of: ``jobs.*.retry`` for every job's, and for the one they share."""
    loc = _of_file(loc)
    if loc[:1] == ("defaults",):
        loc = ("jobs", "*", *loc[1:])
    parts = ["*" if n == 1 and loc[0] in _NOUNS else str(part) for n, part in enumerate(loc)]
    return ".".join(part for part in parts if not part.isdigit())


def _of_file(loc: Sequence[int | str]) -> Loc:
    """The part of the file that a profile's part at *loc* stands for; *loc* itself anywhere else."""
    return tuple(loc[2:] if loc[:1] == ("profiles",) and len(loc) > 2 else loc)


def _inside(loc: Loc) -> str:
    """``" in 'retry'"`` for a key at *loc*; nothing at the top of the file."""
    if len(loc) < 2:
        return ""
    loc = loc if len(loc) == 3 else _of_file(loc)
    noun = f"{_NOUNS[str(loc[0])]} " if len(loc) == 3 and loc[0] in _NOUNS else ""
    names = [part for part in loc[:-1] if isinstance(part, str)]
    return f" in {noun}'{names[-1]}'"


def findings(errors: Iterable[Any]) -> list[Finding]:
    """What pydantic's *errors* say, in our words; one that only follows from another is left out."""
    told = [(path(error["loc"]), error) for error in errors]
    locs = [loc for loc, _ in told]
    found = []
    for loc, error in told:
        follows = error["type"] == "too_short" and any(len(o) > len(loc) and o[: len(loc)] == loc for o in locs)
        if not follows:
            found.append(_finding(loc, error))
    return found


def path(loc: Loc) -> Loc:
    """*loc* without what pydantic put in of its own: union tags; a bad key stays as the last part."""
    return tuple(part for part in loc if part not in _TAGS and part != "[key]")


def _finding(loc: Loc, error: Any) -> Finding:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "mistake":
        return Finding(loc, context["message"], context["fix"])
    if kind == "extra_forbidden":
        return _unknown_key(loc, local=spec.LOCAL in error["loc"])
    if kind == "missing":
        return _missing(loc)
    if kind in ("literal_error", "choice"):
        return _choice(loc, value, context)
    if kind in _EXPECTED:
        return _wrong_type(loc, value, _EXPECTED[kind])
    if kind == "string_pattern_mismatch":
        message = f"{spec.found(value)} is not a name: expected {_PATTERNS[context['pattern']]}"
        return Finding(loc, message, _name_fix(str(value), context["pattern"]), at_key="[key]" in error["loc"])
    if kind in ("too_short", "string_too_short"):
        return Finding(loc, f"{_named(loc)} is empty", _empty_fix(loc, value))
    if kind == "string_too_long":
        message = f"a name has at most {context['max_length']} characters, found {len(value)}"
        return Finding(loc, message, at_key="[key]" in error["loc"])
    bound = _bound(context)
    return Finding(loc, f"expected {bound or 'another value'}, found {spec.found(value)}")


def _name_fix(value: str, pattern: str) -> str | None:
    """A name that is near *value*, when there is one."""
    near = re.sub(r"[^A-Za-z0-9._-]+", "-", value.lower() if pattern == spec.NAME else value).strip(".-")
    return f"write it as {near}" if re.search(pattern, near) else None


def _empty_fix(loc: Loc, value: object) -> str:
    """What to put where there is nothing."""
    if place(loc) == "jobs.*.artifacts.path":
        return "write where it goes, such as images/{{ run.index }}.png"
    if isinstance(loc[-1], int):
        return "give it a key, or remove it"
    if isinstance(value, str):
        return "write a text, or remove the key"
    if place(loc) in _NOUNS:
        return f"write at least one {_NOUNS[place(loc)]} below it"
    return "give it an entry, or remove the key"


def _named(loc: Loc) -> str:
    """The part at *loc* by its key, or by its position in a list."""
    if isinstance(loc[-1], int) and len(loc) > 1:
        return f"entry {loc[-1] + 1} of '{loc[-2]}'"
    return f"'{loc[-1]}'"


def _bound(context: dict[str, Any]) -> str | None:
    """A number's bound in words."""
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return next((f"{word} {context[name]}" for name, word in words.items() if name in context), None)


def _unknown_key(loc: Loc, *, local: bool) -> Finding:
    key, parent = str(loc[-1]), place(loc[:-1])
    model = spec.LocalEndpoint if local and parent == "endpoints.*" else spec.MODELS.get(parent)
    known = spec.keys(model) if model else []
    if parent == "endpoints.*":
        other = spec.RemoteEndpoint if local else spec.LocalEndpoint
        if key in spec.keys(other):
            here, there = ("a local", "a RunPod") if local else ("a RunPod", "a local")
            fix = (
                "'handler', 'command' or 'external' makes an endpoint local, 'id' makes it RunPod's: write one of them"
            )
            return Finding(loc, f"'{key}' belongs to {there} endpoint, and '{loc[-2]}' is {here} one", fix, at_key=True)
    message = f"unknown key '{key}'{_inside(loc)}"
    if len(_of_file(loc)) == 2 and parent == "jobs.*":  # in `defaults`
        known = [name for name in known if name not in spec.OWN]
        if key in spec.OWN:
            return Finding(loc, f"'{key}' can't be shared", "write it into the jobs that it is meant for", at_key=True)
    nearest = _space_fix(key, known) or _ELSEWHERE.get(f"{parent}.{key}") or suggest(key, known)
    return Finding(loc, message, nearest, at_key=True)


_SHARED = "what jobs share stands under 'defaults', at the top of the file or of a profile"
_ELSEWHERE = {
    "endpoints.*.defaults": _SHARED,
    "jobs.*.defaults": _SHARED,
    "profiles.*.jobs": f"a profile has no jobs of its own; {_SHARED}",
    "profiles.*.name": "to keep a profile's batches apart, give it outputs: {dir: …}",
}
"""Keys that people look for where they are not, and what they do instead."""


def _space_fix(text: str, known: Iterable[str]) -> str | None:
    """What to do about ``attempts:3``, which YAML reads as one text."""
    key, colon, rest = text.partition(":")
    return f"put a space after the ':': {key}: {rest}" if colon and key in known else None


def _missing(loc: Loc) -> Finding:
    key = str(loc[-1])
    fixes = {
        "version": "write version: 1",
        "name": "write name: and a short name for the output folder",
        "endpoint": "write endpoint: and a name under 'endpoints'",
        "id": "write id: and RunPod's endpoint id, or handler: and a file and function to run locally",
        "path": "write path: and where it goes, such as images/{{ run.index }}.png",
        "access_id": "write access_id: ${S3_ACCESS_ID}",
        "access_secret": "write access_secret: ${S3_SECRET}",
        "bucket_name": "write bucket_name: and the bucket",
        "endpoint_url": "write endpoint_url: and where the bucket is",
    }
    return Finding(loc[:-1], f"missing key '{key}'{_inside(loc)}", fixes.get(key), at_key=len(loc) > 1)


def _choice(loc: Loc, value: object, context: dict[str, Any]) -> Finding:
    """A word that is none of the few allowed."""
    written = context.get("expected", "").replace(" or ", ", ")
    known = context.get("choices") or [word.strip("'") for word in written.split(", ")]
    noun = context.get("noun") or next(part for part in reversed(loc) if isinstance(part, str))
    if not isinstance(value, str):
        return _wrong_type(loc, value, "one of " + ", ".join(f"'{word}'" for word in known))
    if value in spec.NOT_YET.get(f"values of {place(loc)}", ()):
        return Finding(loc, f"{noun} '{value}' is not supported yet", suggest("", known))
    if noun == "outcome" and value in list(Outcome):
        fix = "'on_answer_lost' decides about it" if value == Outcome.ANSWER_LOST else suggest("", known)
        return Finding(loc, f"outcome '{value}' is never tried again", fix)
    return Finding(loc, f"unknown {noun} {spec.found(value)}", suggest(value, known))


def _wrong_type(loc: Loc, value: object, expected: str) -> Finding:
    secret = _SECRETS.get(place(loc))
    if secret is not None:  # whatever it is, it may be the secret itself
        return Finding(loc, *secret)
    fix = _shorthand(loc, value, expected) or _type_fix(value, expected)
    return Finding(loc, f"expected {expected}, found {spec.found(value)}", fix)


_SHORTHANDS = {
    "jobs.*.rows": "file",
    "jobs.*.retry": "attempts",
    "jobs.*.timeouts": "run",
    "jobs.*.policy": "execution_timeout",
    "jobs.*.poll": "max",
    "jobs.*.stop_when": "failed",
    "health": "every",
    "outputs": "dir",
}
"""The key that is meant when a mapping is written as one value."""
_EXPRESSIONS = {
    "jobs.*.rows.where": "row.lang == 'en'",
    "jobs.*.success_when": "output.image is defined",
    "jobs.*.retry_when": "outcome == 'crashed'",
    "jobs.*.artifacts.for": "output.images",
    "jobs.*.cost": "output.usage.cost_usd",
    "jobs.*.when": "jobs.captions.failed == 0",
}


def _shorthand(loc: Loc, value: object, expected: str) -> str | None:
    """What to write where the short way that somebody took doesn't exist."""
    where = place(loc)
    slip = _space_fix(value, spec.keys(spec.MODELS[where])) if where in spec.MODELS and isinstance(value, str) else None
    if slip:
        return slip
    if where == "jobs.*.rows.shuffle":
        return "write a seed, such as shuffle: 7"
    if expected == "text" and where in _EXPRESSIONS:
        return f"write an expression, such as {_EXPRESSIONS[where]}"
    if where == "endpoints.*.command" and isinstance(value, list):
        return "write it as one text: command: python handlers/horse.py"
    if expected == "a list" and where == "jobs.*.artifacts" and isinstance(value, dict):
        return "put [ ] around it, or '- ' before it"
    if expected == "a mapping" and where == "thresholds":
        return 'write thresholds: {failed: "< 1%"}'
    if expected != "a mapping" or where not in _SHORTHANDS:
        return None
    if where == "jobs.*.rows" and isinstance(value, list):
        return "write rows: {inline: […]}"
    key, last = _SHORTHANDS[where], loc[-1]
    return f"write {last}: {{{key}: {value}}}" if isinstance(value, str | int | float) else None


def _type_fix(value: object, expected: str) -> str | None:
    """What to write instead, where that can be guessed."""
    if expected == "true or false" and isinstance(value, str):
        return f"write {_YAML_1_1.get(value.lower(), 'true or false')}"
    if expected in ("a whole number", "a number") and isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return None
        return f"write {value} without quotes"
    if expected == "text" and value is not None and not isinstance(value, dict | list):
        return f'quote it: "{spec.found(value)}"'
    if expected == "a list" and not isinstance(value, dict):
        return f"write [{value if isinstance(value, str) else spec.found(value)}]" if value is not None else None
    return None
