"""The body of a submit."""

from runner.payload import payload, wire_policy, wire_s3_config
from runner.spec import Policy, S3Config


def test_nothing_is_sent_that_the_file_does_not_have() -> None:
    """A policy of nulls could mean something to the server."""
    assert payload({"a": 1}, wire_policy(Policy())) == {"input": {"a": 1}}


def test_keys_are_runpods_on_the_wire() -> None:
    """Snake case in the file, camel case there; references are left to whoever sends them."""
    written = {"access_id": "${ID}", "access_secret": "${SECRET}", "bucket_name": "b", "endpoint_url": "https://s3"}
    config = wire_s3_config(S3Config.model_validate(written))
    assert config == {
        "accessId": "${ID}",
        "accessSecret": "${SECRET}",
        "bucketName": "b",
        "endpointUrl": "https://s3",
    }
    assert wire_s3_config(S3Config.model_validate(written | {"object_path": "x/"}))["objectPath"] == "x/"
    body = payload(1, {"ttl": 10_000}, webhook="https://example.com", s3_config=config)
    assert body == {"input": 1, "policy": {"ttl": 10_000}, "webhook": "https://example.com", "s3Config": config}
