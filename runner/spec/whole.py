"""A whole job file, and the model of each place in it."""

from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema

from runner.scalars import found, mistake
from runner.spec.artifact import Artifact
from runner.spec.base import NAME, Label, Spec
from runner.spec.bounds import Thresholds, ThresholdsByMetric
from runner.spec.endpoints import AnyEndpoint, RateLimits, RemoteEndpoint
from runner.spec.job import Job
from runner.spec.layers import Layered, Profile
from runner.spec.outputs import Health, Keep, Outputs, Require
from runner.spec.rows import Rows, Sample
from runner.spec.settings import Policy, Poll, Retry, S3Config, StopWhen, Timeouts
from runner.spec.times import Schedule, WrittenSchedule
from runner.values import JsonObject


def _version(value: object) -> int:
    # `Literal[1]` would take `true` and `1.0`: both equal 1 in Python.
    if type(value) is not int or value != 1:
        raise mistake(f"expected version 1, found {found(value)}", "write version: 1")
    return value


Version = Annotated[int, PlainValidator(_version), WithJsonSchema({"const": 1})]


class JobFileSpec(Spec):
    """A whole job file, as it takes effect: its defaults are in its jobs, and the chosen profile in its parts."""

    version: Version = Field(description="The version of this grammar.")
    name: Annotated[str, Field(pattern=NAME, max_length=64)] = Field(description="Names the output folder.")
    description: str = Field(default="", description="For people.")
    schedule: WrittenSchedule | None = Field(
        default=None,
        description="When to begin, for `runner schedule`; `runner run` ignores it. A sentence, or a mapping.",
        examples=["every day at 02:30"],
    )
    vars: JsonObject = Field(default={}, description="Constants for templates. Public: they are recorded.")
    endpoints: dict[Label, AnyEndpoint] = Field(min_length=1, description="Where jobs can run.")
    jobs: dict[Label, Job] = Field(min_length=1, description="What to run.")
    outputs: Outputs = Field(default=Outputs.left_out(), description="Where results go, and in which form.")
    health: Health = Field(default=Health.left_out(), description="How the endpoints are watched.")
    thresholds: ThresholdsByMetric = Field(
        default={}, description="The batch's verdict, by metric. Without any, every run must succeed."
    )


def written(job: Job) -> JsonObject:
    """
    *job* as JSON, by the keys that users write.

    As part of a whole file, whose model is built by whoever loads one; `Job.model_dump` would build another.
    """
    whole = JobFileSpec.model_construct(jobs={"": job})
    told: JsonObject = whole.model_dump(mode="json", by_alias=True, include={"jobs"})["jobs"][""]
    return told


class WrittenJobFile(Layered, JobFileSpec):
    """A whole job file."""


MODELS: dict[str, type[Spec]] = {
    "": WrittenJobFile,
    "endpoints.*": RemoteEndpoint,
    "endpoints.*.rate_limits": RateLimits,
    "jobs.*": Job,
    "jobs.*.rows": Rows,
    "jobs.*.rows.sample": Sample,
    "jobs.*.policy": Policy,
    "jobs.*.timeouts": Timeouts,
    "jobs.*.retry": Retry,
    "jobs.*.s3_config": S3Config,
    "jobs.*.poll": Poll,
    "jobs.*.stop_when": StopWhen,
    "jobs.*.artifacts": Artifact,
    "schedule": Schedule,
    "outputs": Outputs,
    "outputs.keep": Keep,
    "health": Health,
    "health.require": Require,
    "thresholds": Thresholds,
    "jobs.*.thresholds": Thresholds,
    "profiles.*": Profile,
}
"""The model of each place, so that a message can name the keys that are known there."""
