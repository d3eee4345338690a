"""Make the JSON Schema of job files from the models: editors complete, explain and check with it."""

import json
from collections.abc import Iterable
from itertools import combinations
from typing import Any

from runner import variables
from runner.spec import ARTIFACT_KINDS, DATA_KINDS, PACKINGS, SOURCES, WrittenJobFile

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """
    The schema, as ``schemas/job.schema.json`` has it.

    It knows what one value can be by itself, and which keys go together; cross-references, templates and the
    environment are the validator's. What it refuses, the validator refuses.
    """
    made = WrittenJobFile.model_json_schema(by_alias=True, mode="validation")
    made = _plain(made)
    parts = made["$defs"] | {"WrittenJobFile": made}
    del parts["Job"]["required"]
    made["allOf"] = [_in_jobs_or_defaults(key) for key in ("endpoint", "input")]
    for model, extra in _TOGETHER.items():
        parts[model] |= extra
    for (model, key), extra in _TEXTS.items():
        parts[model]["properties"][key] |= extra
        if model == "Job" and key in parts["Defaults"]["properties"]:
            parts["Defaults"]["properties"][key] |= extra
    return {"$schema": DRAFT, "title": "A job file of runner", **{k: v for k, v in made.items() if k != "title"}}


def text() -> str:
    """The schema as the file has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _given(key: str, kind: str | list[str]) -> dict[str, Any]:
    """That *key* is there: null is as if it were not."""
    return {"required": [key], "properties": {key: {"type": kind}}}


def _in_jobs_or_defaults(key: str) -> dict[str, Any]:
    """That every job has *key*, or all have it from the defaults."""
    shared = {"required": ["defaults"], "properties": {"defaults": {"required": [key]}}}
    return {"if": shared, "else": {"properties": {"jobs": {"additionalProperties": {"required": [key]}}}}}


def _any_case(word: str) -> str:
    return "".join(f"[{letter.upper()}{letter}]" for letter in word)


def _suffix(words: Iterable[str]) -> str:
    return rf"\.({'|'.join(map(_any_case, words))})"


_ROWS = [_given(key, "array" if key == "inline" else "string") for key in (*SOURCES, "job")]
_OF_ALL_ROWS = [_given("sample", ["integer", "object"]), _given("shuffle", "integer")]
_OF_ROWS = [_given("where", "string"), _given("limit", "integer"), *_OF_ALL_ROWS]
_COLLECTS = {"required": ["collect"], "properties": {"collect": {"const": True}}}
_EXCLUDES = {"required": ["exclude"], "properties": {"exclude": {"minItems": 1}}}
_EXTERNAL = {"required": ["external"], "properties": {"external": {"const": True}}}
_TOGETHER: dict[str, dict[str, Any]] = {
    # Null is a value of `json`.
    "Artifact": {
        "oneOf": [_given(kind, "string") for kind in ARTIFACT_KINDS if kind != "json"] + [{"required": ["json"]}]
    },
    "LocalEndpoint": {
        "allOf": [
            {"oneOf": [_given("handler", "string"), _given("command", "string"), _EXTERNAL]},
            {"if": _EXTERNAL, "then": {"not": {"required": ["workers"]}}},
            {"if": {"required": ["return_aggregate_stream"]}, "then": _given("handler", "string")},
        ]
    },
    "Rows": {
        "allOf": [
            *({"not": {"allOf": list(pair)}} for pair in combinations(_ROWS, 2)),
            {"if": {"anyOf": _OF_ROWS}, "then": {"anyOf": _ROWS}},
            {"if": _given("glob", "string"), "then": _given("folder", "string")},
            {"if": _EXCLUDES, "then": _given("matrix", "object")},
            {"if": _COLLECTS, "then": _given("job", "string")},
            {"if": _given("job", "string"), "then": {"not": {"anyOf": _OF_ALL_ROWS}}},
        ],
    },
    "Schedule": {"allOf": [{"oneOf": [_given("every", "string"), _given("cron", "string")]}]},
}
"""Which keys exclude, and which need, one another, by model. The validator says it in words of its own."""

_NO_SECRETS = {"propertyNames": {"not": {"pattern": variables.SECRET_NAME}}}
_REFERENCE = {"pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"}
_URL = {"pattern": r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s/?#@]+\S*$|\$\{"}
_NO_TEMPLATE = {"not": {"type": "string", "pattern": r"^\s*\{\{"}}
_PACKED = rf"({_suffix(PACKINGS)})?$"
_TEXT_FILE = _suffix(kind for kind in DATA_KINDS if kind != "parquet")
_DATA_FILE = rf"^-$|[*?\[]|{_TEXT_FILE}{_PACKED}|{_suffix(['parquet'])}$"
_HOST = r"https://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)|http://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])"
_TEXTS: dict[tuple[str, str], dict[str, Any]] = {
    ("WrittenJobFile", "vars"): _NO_SECRETS,
    ("Profile", "vars"): _NO_SECRETS,
    ("RemoteEndpoint", "id"): {"pattern": r"^[A-Za-z0-9][A-Za-z0-9_-]*$|\$\{"},
    ("RemoteEndpoint", "api_key"): _REFERENCE,
    ("RemoteEndpoint", "base_url"): {"pattern": rf"^({_HOST})(:[0-9]{{1,5}})?(/[^\s?#@]*)?$|\$\{{"},
    ("LocalEndpoint", "handler"): {"pattern": r"\.py:[^\s:./\\()-]+$"},
    ("LocalEndpoint", "command"): {"pattern": r"[^\s'\"]"},
    ("Rows", "file"): {"pattern": _DATA_FILE},
    ("Rows", "openai"): {"pattern": rf"[*?\[]|{_suffix(['jsonl'])}{_PACKED}"},
    ("Rows", "where"): _NO_TEMPLATE,
    ("Job", "input"): {"not": {"enum": [{}, [], "", 0, False, None]}},
    ("Job", "needs"): {"uniqueItems": True},
    ("Job", "when"): _NO_TEMPLATE,
    ("Job", "webhook"): _URL,
    ("Job", "success_when"): _NO_TEMPLATE,
    ("Job", "retry_when"): _NO_TEMPLATE,
    ("Job", "cost"): _NO_TEMPLATE,
    ("Artifact", "for"): _NO_TEMPLATE,
    ("S3Config", "access_secret"): _REFERENCE,
    ("S3Config", "endpoint_url"): _URL,
}
"""What can be told of a value that the validator looks at only once the file is read: with a variable in it, little."""


def _plain(part: Any, *, names: bool = False) -> Any:
    """
    *part* without what says nothing, and closed: no titles, no null as a default, nor a mapping of all defaults.

    *names*: its keys are users' words.
    """
    if isinstance(part, list):
        return [_plain(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = part if names else {key: value for key, value in part.items() if not _is_noise(key, value)}
    if "patternProperties" in kept and not names:
        kept["additionalProperties"] = False  # a key that no pattern takes
    return {
        key: _plain(value, names=key in ("properties", "$defs", "patternProperties")) for key, value in kept.items()
    }


def _is_noise(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or (
        key == "default" and (value is None or isinstance(value, dict))
    )
