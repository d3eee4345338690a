"""The settings of a job: mappings of keys that are merged with the defaults one by one."""

from typing import Annotated

from pydantic import Field

from runner.scalars import Duration, RetryOutcome, RunLimit, Usd, Wait
from runner.spec.base import Spec
from runner.states import Outcome


class Policy(Spec):
    """RunPod's execution policy. Nothing is sent that the file does not set."""

    execution_timeout_s: Duration | None = Field(
        default=None, alias="execution_timeout", description="How long a job may run, 5s to 7d. RunPod's default: 10m."
    )
    ttl_s: Duration | None = Field(
        default=None,
        alias="ttl",
        description="How long a job may exist from its submit, queue included, 10s to 7d; default 24h.",
    )
    low_priority: bool | None = Field(default=None, description="Whether the job may not trigger scaling.")


class Timeouts(Spec):
    """Our own limits in time; none of them is sent."""

    request_s: Duration = Field(
        default=30.0,
        alias="request",
        json_schema_extra={"default": "30s"},
        description="One request, beyond any wait asked of the server.",
    )
    run_s: Duration | None = Field(
        default=None, alias="run", description="One run with all its attempts. Default: the ttl (24h) and a grace."
    )
    job_s: Duration | None = Field(default=None, alias="job", description="The whole job. Default: no limit.")


class Retry(Spec):
    """Which outcomes are tried again, how often, how soon. Each attempt is paid for."""

    attempts: Annotated[int, Field(ge=1, le=100)] = Field(default=1, description="Attempts in all: 1 means no retry.")
    outcomes: tuple[RetryOutcome, ...] = Field(
        default=(Outcome.TIMED_OUT, Outcome.CRASHED, Outcome.LOST),
        strict=False,
        min_length=1,
        description="Outcomes to try again. Default: those that another worker may well complete.",
    )
    wait_initial_s: Wait = Field(
        default=1.0,
        alias="wait_initial",
        json_schema_extra={"default": "1s"},
        description="Longest wait before the second attempt.",
    )
    wait_max_s: Wait = Field(
        default=60.0, alias="wait_max", description="No wait is longer than this.", json_schema_extra={"default": "1m"}
    )


class S3Config(Spec):
    """A bucket for the worker, passed through to it. Of use only when the worker's code reads it."""

    access_id: str = Field(min_length=1, description="The id of the access key.", examples=["${S3_ACCESS_ID}"])
    access_secret: str = Field(
        description="A reference to the secret, never the secret itself.", examples=["${S3_SECRET}"]
    )
    bucket_name: str = Field(min_length=1, description="The bucket.")
    endpoint_url: str = Field(min_length=1, description="Where the bucket is.")
    object_path: str | None = Field(default=None, min_length=1, description="Where in the bucket.")


class Poll(Spec):
    """How often a job is looked at. The rate limits hold all the same."""

    min_s: Duration = Field(
        default=0.25,
        alias="min",
        json_schema_extra={"default": "250ms"},
        description="Shortest time between two looks, at least 50ms.",
    )
    max_s: Duration = Field(
        default=300.0,
        alias="max",
        json_schema_extra={"default": "5m"},
        description="Longest time between two looks, at most 5m: results are kept for 30 minutes only.",
    )


class StopWhen(Spec):
    """When to start nothing more: what runs is settled, the rest is skipped, and the verdict is stopped."""

    failed: RunLimit | None = Field(
        default=None, description="So many failed runs, or such a percentage of the plan.", examples=["10%", 20]
    )
    cost_usd: Usd | None = Field(
        default=None,
        alias="cost",
        description="So much spent: what outputs tell (`cost`), else execution only, a lower bound of the bill.",
        examples=["5.00 USD"],
    )

    @property
    def failed_count(self) -> int | None:
        """Failed runs that stop the job; None when there is no limit, or it is a share."""
        return self.failed.count if self.failed else None

    @property
    def failed_share(self) -> float | None:
        """The share of the plan, above 0 to 1, that stops the job when it has failed; None when there is no such."""
        return self.failed.share if self.failed else None
