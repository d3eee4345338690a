"""Read and write the JSON of the local endpoint's wire: strict, and never surprised by what a client sends."""

import json
import re
from dataclasses import dataclass
from typing import Any

import orjson

from runner.local.job import Policy
from runner.values import JsonObject, JsonValue

_LONG_DIGITS = re.compile(rb"\d{19}")
_DEFAULT = Policy()


class BadBody(ValueError):
    """Raised when a body is not what the operation takes; the message is for whoever sent it."""


def parse(body: bytes) -> JsonValue:
    """
    The JSON value in *body*; NaN and Infinity are not JSON.

    Raises:
        BadBody: it is not JSON, or nested deeper than the parser goes.
    """
    try:
        # orjson reads integers beyond 64 bit as floats, so such bodies go to the standard library at once.
        if not _LONG_DIGITS.search(body):
            return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass  # the standard library takes a bit more (deeper nesting, lone surrogates), and has the last word
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadBody(f"bad request: body: not valid JSON: {error}") from error


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def encode(value: JsonValue) -> bytes:
    """
    *value*, as `parse` gave it, as compact JSON, valid UTF-8 in any case.

    Raises:
        BadBody: it is nested deeper than the standard library writes.
    """
    try:
        return orjson.dumps(value)
    except TypeError:  # big integers, lone surrogates, deep nesting
        try:
            return json.dumps(value, separators=(",", ":")).encode()
        except RecursionError as error:
            raise BadBody("bad request: body: nested too deeply") from error


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client asks for: any JSON value as *input*. *webhook* and *s3_config* are None when they are not there."""

    input: JsonValue
    policy: Policy
    webhook: str | None = None
    s3_config: JsonObject | None = None


def submission(body: bytes) -> Submission:
    """
    What the body of /run or /runsync asks for. Unknown keys are ignored, as RunPod does.

    Raises:
        BadBody: it is not JSON, or as `asked`.
    """
    return asked(parse(body))


def asked(value: JsonValue) -> Submission:
    """
    What this value, a body or a batch's request, asks for.

    Raises:
        BadBody: no JSON object, no ``input`` key, or a policy, webhook or s3Config of the wrong types.
    """
    if not isinstance(value, dict):
        raise BadBody("bad request: body: must be a JSON object")
    if "input" not in value:
        raise BadBody("bad request: body: 'input' is required")
    webhook = value.get("webhook")
    if webhook is not None and not (isinstance(webhook, str) and is_unicode(webhook)):
        raise BadBody("bad request: body: 'webhook' must be a URL")
    s3_config = value.get("s3Config")
    if s3_config is not None and not isinstance(s3_config, dict):
        raise BadBody("bad request: body: 's3Config' must be an object")
    return Submission(value["input"], _policy(value.get("policy")), webhook or None, s3_config)


def is_unicode(text: str) -> bool:
    """Whether *text* can be written again: JSON can name half a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _policy(value: JsonValue) -> Policy:
    if value is None:
        return _DEFAULT
    if not isinstance(value, dict):
        raise BadBody("bad request: body: 'policy' must be an object")
    low_priority = value.get("lowPriority", _DEFAULT.low_priority)
    if not isinstance(low_priority, bool):
        raise BadBody("bad request: body: 'policy.lowPriority' must be true or false")
    return Policy(
        execution_timeout_s=_milliseconds(value, "executionTimeout", _DEFAULT.execution_timeout_s),
        ttl_s=_milliseconds(value, "ttl", _DEFAULT.ttl_s),
        low_priority=low_priority,
    )


def _milliseconds(policy: JsonObject, key: str, default_s: float) -> float:
    """
    Seconds in a policy's milliseconds.

    Values under RunPod's documented minimum are taken: what RunPod does with them is not documented, and a local job
    that ends in a second is what people want to try. Above the maximum of 7 days they are refused.
    """
    value = policy.get(key)
    if value is None:
        return default_s
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 604_800_000:
        raise BadBody(f"bad request: body: 'policy.{key}' must be milliseconds, an integer in 1..604800000")
    return value / 1000


def result(body: bytes) -> JsonObject:
    """
    What a worker posted: ``output``, ``error``, ``status`` and more, all of them optional.

    Raises:
        BadBody: it is not a JSON object.
    """
    value = parse(body)
    if not isinstance(value, dict):
        raise BadBody("bad request: body: must be a JSON object")
    return value


def text_or_none(value: JsonObject, key: str) -> bytes | None:
    """The JSON text of a key's value, None if the key is not there; null is a value."""
    return encode(value[key]) if key in value else None


def fragment(text: bytes) -> Any:
    """*text*, which is JSON already, to be put into a larger value that `encode` writes."""
    return orjson.Fragment(text)
