"""Make the JSON Schema of job files from the models: editors complete, explain and check with it."""

import json
from typing import Any

from runner.spec import JobFileSpec

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """
    The schema, as ``schemas/job.schema.json`` has it.

    It knows what one value can be by itself; cross-references, templates and the environment are the validator's.
    """
    made = JobFileSpec.model_json_schema(by_alias=True, mode="validation")
    made = _plain(made)
    made["$defs"]["Job"]["required"].append("input")  # it has a default, so that its absence gets a message of its own
    return {"$schema": DRAFT, "title": "A job file of runner", **{k: v for k, v in made.items() if k != "title"}}


def text() -> str:
    """The schema as the file has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _plain(part: Any, *, names: bool = False) -> Any:
    """*part* without what says nothing: repeated titles, defaults of null. *names*: its keys are users' words."""
    if isinstance(part, list):
        return [_plain(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = part if names else {key: value for key, value in part.items() if not _is_noise(key, value)}
    return {key: _plain(value, names=key in ("properties", "$defs")) for key, value in kept.items()}


def _is_noise(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or (key == "default" and value is None)
