"""The grammar of a job file."""

import re
from typing import Any

import pytest
from pydantic import BaseModel

from runner import spec
from runner.salvage import validate
from runner.states import Outcome
from runner.units import Rate

SMALLEST: dict[str, Any] = {
    "version": 1,
    "name": "t",
    "endpoints": {"sdxl": {"id": "abc"}},
    "jobs": {"j": {"endpoint": "sdxl", "input": {"x": 1}}},
}


MODELS: list[type[spec.Spec]] = [*spec.MODELS.values(), spec.LocalEndpoint, spec.Defaults]


def test_defaults_are_safe_for_money() -> None:
    """Nothing is tried again, and nothing submitted twice, unless the file says so."""
    job = spec.JobFileSpec.model_validate(SMALLEST).jobs["j"]
    assert job.mode == "async"
    assert (job.retry.attempts, job.on_answer_lost) == (1, "fail")
    assert job.retry.outcomes == (Outcome.TIMED_OUT, Outcome.CRASHED, Outcome.LOST)
    assert (job.timeouts.request_s, job.timeouts.run_s, job.timeouts.job_s) == (30.0, None, None)
    assert job.policy == spec.Policy()


def test_default_rates_are_95_percent_of_runpods_table() -> None:
    """A 429 slows the whole endpoint, so we stay below it."""
    limits = spec.RateLimits()
    assert (limits.run, limits.runsync, limits.status) == (Rate(950, 10), Rate(1900, 10), Rate(1900, 10))
    assert (limits.cancel, limits.purge, limits.health) == (Rate(95, 10), Rate(1, 10), Rate(10, 10))


def test_what_a_file_leaves_out_asks_for_nothing() -> None:
    """No webhook, no file, no bound on money: only what somebody wrote."""
    parts = spec.JobFileSpec.model_validate(SMALLEST)
    job = parts.jobs["j"]
    assert (job.webhook, job.s3_config, job.success_when, job.artifacts) == (None, None, None, [])
    stop = job.stop_when
    assert (stop.failed_count, stop.failed_share, stop.cost_usd) == (None, None, None)
    assert (job.poll.min_s, job.poll.max_s) == (0.25, 300.0)
    assert (parts.health.every_s, parts.health.wait_s, parts.health.require) == (15.0, 300.0, None)
    assert parts.thresholds == {}


@pytest.mark.parametrize(
    ("written", "count", "share", "cost"),
    [
        ({"failed": 20}, 20, None, None),
        ({"failed": "10%"}, None, 0.1, None),
        ({"failed": "0.5 %", "cost": "5.00 USD"}, None, 0.005, 5.0),
        ({"cost": "12USD"}, None, None, 12.0),
    ],
)
def test_stop_when_is_a_count_or_a_share_and_an_amount(
    written: dict[str, object], count: int | None, share: float | None, cost: float | None
) -> None:
    """`10` and `10%` are told apart by what is written, never by size."""
    stop = spec.StopWhen.model_validate(written)
    assert (stop.failed_count, stop.failed_share, stop.cost_usd) == (count, share, cost)


@pytest.mark.parametrize("kind", spec.ARTIFACT_KINDS)
def test_an_artifact_knows_what_it_is_made_from(kind: str) -> None:
    """Also after it was written to the manifest and read again, with null for the others."""
    artifact = spec.Artifact.model_validate({"path": "a", kind: "{{ output }}"})
    again = spec.Artifact.model_validate(artifact.model_dump(mode="json", by_alias=True))
    assert [(one.kind, one.value) for one in (artifact, again)] == [(kind, "{{ output }}")] * 2


def test_null_is_a_json_artifact() -> None:
    """Odd, and what its author wrote."""
    assert spec.Artifact.model_validate({"path": "a", "json": None}).kinds == ["json"]
    assert spec.Artifact.model_validate({"path": "a", "text": None}).kinds == []


def test_thresholds_are_kept_by_metric() -> None:
    """The report lists them by name, with the bound as it was written."""
    written = {"execution_time": "p95 < 30s", "failed": "<  1%"}
    parts = spec.JobFileSpec.model_validate(SMALLEST | {"thresholds": written})
    assert list(parts.thresholds) == ["execution_time", "failed"]
    assert [one.bound for one in parts.thresholds["failed"]] == [0.01]
    assert parts.model_dump(mode="json")["thresholds"] == written


def test_attributes_carry_the_unit_that_keys_leave_out() -> None:
    """RunPod mixes milliseconds and seconds; nobody should have to guess ours."""
    raw = SMALLEST | {"jobs": {"j": {"endpoint": "sdxl", "input": 1, "policy": {"execution_timeout": "5m"}}}}
    assert spec.JobFileSpec.model_validate(raw).jobs["j"].policy.execution_timeout_s == 300


def test_models_are_frozen_and_closed() -> None:
    """A misspelled key is a setting that quietly does nothing."""
    for model in MODELS:
        assert model.model_config["frozen"]
        assert model.model_config["extra"] == "forbid"
        assert model.model_config["strict"]


def test_every_key_has_a_description() -> None:
    """The JSON Schema is made from it, and editors show it."""
    for model in MODELS:
        assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_the_models_give_a_json_schema_with_defaults_in_users_words() -> None:
    """A default of 30.0 would not be valid in a file."""
    schema = spec.JobFileSpec.model_json_schema()
    assert schema["$defs"]["Timeouts"]["properties"]["request"]["default"] == "30s"
    assert schema["$defs"]["RateLimits"]["properties"]["run"]["default"] == "950/10s"
    assert schema["properties"]["version"]["const"] == 1


def test_a_spec_dumps_to_what_it_was_read_from() -> None:
    """The manifest keeps the resolved file, and reading that must give the same."""
    job = {
        "endpoint": "sdxl",
        "input": 1,
        "stop_when": {"failed": "7.5%", "cost": "0.01 USD"},
        "poll": {"min": "1s"},
        "artifacts": [{"path": "a", "json": {"b": None}}],
    }
    more = {"jobs": {"j": job}, "thresholds": {"failed": "< 1%"}, "health": {"require": {"workers_ready": 1}}}
    known = spec.JobFileSpec.model_validate(SMALLEST | more)
    assert spec.JobFileSpec.model_validate(known.model_dump(mode="json", by_alias=True)) == known


def test_no_key_is_both_known_and_not_supported_yet() -> None:
    """The table of what is not supported yet shrinks as keys arrive."""
    models: dict[str, list[type[BaseModel]]] = {place: [model] for place, model in spec.MODELS.items()}
    models["endpoints.*"].append(spec.LocalEndpoint)
    for place, names in spec.NOT_YET.items():
        for model in models.get(place, []):
            assert not set(names) & {field.alias or name for name, field in model.model_fields.items()}


@pytest.mark.parametrize("wrong", [True, 1.0, "1", 2, None], ids=repr)
def test_only_the_number_1_is_a_version(wrong: object) -> None:
    """A Literal would take true and 1.0 as well."""
    findings, _ = validate(SMALLEST | {"version": wrong})
    assert [finding.fix for finding in findings] == ["write version: 1"]


@pytest.mark.parametrize("part", [{}, [], None, 3, "x", True, {"a": {}}, {"a": None}, [[]]], ids=repr)
@pytest.mark.parametrize("key", [*SMALLEST, "vars", "outputs", "description", "health", "thresholds"])
def test_our_own_words_for_whatever_is_wrong(key: str, part: object) -> None:
    """pydantic's texts speak of inputs and instances, and users of keys and values."""
    findings, _ = validate(SMALLEST | {key: part})
    for finding in findings:
        assert not re.search(r"[Ii]nput should|valid |instance|pydantic|type=", finding.message)
        assert finding.message[0].islower() or finding.message[0] == "'"


@pytest.mark.parametrize(
    "part", [{}, [], 3, -1, "x", True, 0.5, {"a": {}}, {"path": None}, [[]], [None], [{}]], ids=repr
)
@pytest.mark.parametrize(
    "key", ["mode", "webhook", "s3_config", "poll", "success_when", "stop_when", "artifacts", "rows", "retry"]
)
def test_our_own_words_for_whatever_is_wrong_in_a_job(key: str, part: object) -> None:
    """And what is wrong in one place leaves the job to be checked."""
    job = SMALLEST["jobs"]["j"] | {key: part}
    findings, left = validate(SMALLEST | {"jobs": {"j": job}})
    assert left is not None
    assert "j" in left.jobs
    for finding in findings:
        assert finding.loc[:3] == ("jobs", "j", key)
        assert not re.search(r"[Ii]nput should|valid |instance|pydantic|type=", finding.message)


def test_a_bad_artifact_moves_no_other() -> None:
    """Places go by position: what stands behind a mistake must still be found where it is."""
    artifacts = [7, {"text": "a"}, {"path": "b", "base64": 3}, {"path": "c", "text": "{{ c }}"}]
    job = SMALLEST["jobs"]["j"] | {"artifacts": artifacts}
    findings, left = validate(SMALLEST | {"jobs": {"j": job}})
    assert [finding.loc[3:] for finding in findings] == [(0,), (1,), (2, "base64")]
    assert left is not None
    assert left.jobs["j"].artifacts[3].value == "{{ c }}"


def test_one_mistake_leaves_the_rest_to_be_checked() -> None:
    """All problems at once, or a person fixes a file ten times."""
    jobs = {"good": {"endpoint": "sdxl", "input": 1}, "bad": {"endpoint": "sdxl", "retry": {"attempts": 0}}}
    findings, left = validate(SMALLEST | {"version": 3, "jobs": jobs})
    assert len(findings) == 2
    assert left is not None
    assert sorted(left.jobs) == ["bad", "good"]
