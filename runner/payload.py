"""The body of a submit, in RunPod's words."""

from runner.spec import Policy
from runner.values import JsonObject, JsonValue

RUN_BODY_BYTES = 10 * 1024 * 1024
"""The largest body that /run takes. Source: RunPod's gateway, "exceeded max body size of 10MiB" (field reports)."""


def wire_policy(policy: Policy) -> JsonObject:
    """*policy* as RunPod takes it, times in ms: only what the file sets."""
    known = {
        "executionTimeout": None if policy.execution_timeout_s is None else round(policy.execution_timeout_s * 1000),
        "ttl": None if policy.ttl_s is None else round(policy.ttl_s * 1000),
        "lowPriority": policy.low_priority,
    }
    return {key: value for key, value in known.items() if value is not None}


def payload(given: JsonValue, policy: JsonObject) -> JsonObject:
    """The body for the input *given*. No ``policy`` is sent unless the job file has one."""
    return {"input": given, "policy": policy} if policy else {"input": given}
