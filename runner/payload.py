"""The body of a submit, in RunPod's words."""

from runner.spec import Policy, S3Config
from runner.values import JsonObject, JsonValue

RUN_BODY_BYTES = 10 * 1024 * 1024
"""The largest body that /run takes. Source: RunPod's gateway, "exceeded max body size of 10MiB" (field reports)."""

RUNSYNC_BODY_BYTES = 20_000_000
"""The largest body that /runsync takes: 20 MB, read the careful way. Source: RunPod docs, "Send API requests"."""


def wire_policy(policy: Policy) -> JsonObject:
    """*policy* as RunPod takes it, times in ms: only what the file sets."""
    known = {
        "executionTimeout": None if policy.execution_timeout_s is None else round(policy.execution_timeout_s * 1000),
        "ttl": None if policy.ttl_s is None else round(policy.ttl_s * 1000),
        "lowPriority": policy.low_priority,
    }
    return {key: value for key, value in known.items() if value is not None}


def wire_s3_config(config: S3Config) -> dict[str, str]:
    """*config* under the names that RunPod takes, its values as they are: whoever sends them resolves them."""
    known = {
        "accessId": config.access_id,
        "accessSecret": config.access_secret,
        "bucketName": config.bucket_name,
        "endpointUrl": config.endpoint_url,
        "objectPath": config.object_path,
    }
    return {key: value for key, value in known.items() if value is not None}


def payload(
    given: JsonValue, policy: JsonObject, *, webhook: str | None = None, s3_config: JsonObject | None = None
) -> JsonObject:
    """The body for the input *given*. Nothing is sent beside it unless the job file has it."""
    more = {"policy": policy or None, "webhook": webhook, "s3Config": s3_config}
    return {"input": given} | {key: value for key, value in more.items() if value is not None}
