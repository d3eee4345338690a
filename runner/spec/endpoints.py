"""Endpoints: where jobs can run, on RunPod or on this machine."""

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from runner.scalars import RateLimit
from runner.spec.base import Cost, Count, Spec
from runner.units import Rate


def _endpoint_kind(value: object) -> str:
    """Which of the two kinds of endpoint the user means, judged by its keys alone."""
    if isinstance(value, dict):
        hints = STARTS if "id" in value else (*STARTS, "workers", "return_aggregate_stream")
        return LOCAL if any(key in value for key in hints) else REMOTE
    return LOCAL if isinstance(value, LocalEndpoint) else REMOTE


STARTS = ("handler", "command", "external")
"""How the workers of a local endpoint can be started: one key each, of which every local endpoint has exactly one."""


REMOTE, LOCAL = "<remote>", "<local>"
"""Union tags, which pydantic puts into the paths of errors; no key of a job file looks like them."""


class RateLimits(Spec):
    """How often each operation may be called, in any window of the duration. Default: 95 % of RunPod's table."""

    run: RateLimit = Field(
        default=Rate(950, 10.0), description="Submits by /run.", json_schema_extra={"default": "950/10s"}
    )
    runsync: RateLimit = Field(
        default=Rate(1900, 10.0), description="Submits by /runsync.", json_schema_extra={"default": "1900/10s"}
    )
    status: RateLimit = Field(
        default=Rate(1900, 10.0),
        description="Looks: /status, /status-sync and /stream share it.",
        json_schema_extra={"default": "1900/10s"},
    )
    cancel: RateLimit = Field(
        default=Rate(95, 10.0), description="Cancellations.", json_schema_extra={"default": "95/10s"}
    )
    purge: RateLimit = Field(
        default=Rate(1, 10.0), description="Purges of the queue.", json_schema_extra={"default": "1/10s"}
    )
    health: RateLimit = Field(
        default=Rate(10, 10.0), description="Reads of /health.", json_schema_extra={"default": "10/10s"}
    )
    batch: RateLimit = Field(
        default=Rate(190, 10.0),
        description="Calls of the Batch API, all together. RunPod documents no limit: this is a guess.",
        json_schema_extra={"default": "190/10s"},
    )


class RemoteEndpoint(Spec):
    """A queue-based serverless endpoint on RunPod."""

    id: str = Field(min_length=1, description="RunPod's endpoint id.", examples=["${SDXL_ENDPOINT_ID}"])
    api_key: str = Field(default="${RUNPOD_API_KEY}", description="A reference to the key, never the key itself.")
    base_url: str = Field(
        default="https://api.runpod.ai/v2", description="Where the API is; http:// only for loopback."
    )
    concurrency: Count | None = Field(
        default=None, description="Runs in flight on it, all jobs together; default: adaptive."
    )
    rate_limits: RateLimits = Field(
        default=RateLimits.left_out(), description="Calls per duration, for each operation."
    )
    cost_per_second: Cost | None = Field(default=None, description="USD per worker second, for the estimate.")


class LocalEndpoint(Spec):
    """An endpoint on this machine that speaks RunPod's API on loopback: one of handler, command and external."""

    handler: str | None = Field(
        default=None, description="File and function of a handler.", examples=["handlers/horse.py:handler"]
    )
    command: str | None = Field(
        default=None,
        min_length=1,
        description="A program that speaks RunPod's worker protocol, such as an unmodified worker built on the "
        "`runpod` package. Split without a shell, looked for on PATH, started in the job file's folder.",
        examples=["python handlers/horse.py"],
    )
    external: bool = Field(
        default=False,
        description="You start the workers, in Docker or on another GPU; `runner serve` prints how they find it.",
    )
    workers: Count = Field(default=1, description="Worker processes.")
    return_aggregate_stream: bool = Field(
        default=True, description="Whether a generator's chunks become its output. A `command` has its own setting."
    )
    concurrency: Count | None = Field(
        default=None, description="Runs in flight on it, all jobs together; default: adaptive."
    )
    cost_per_second: Cost | None = Field(default=None, description="USD per worker second, for the estimate.")


Endpoint = RemoteEndpoint | LocalEndpoint


AnyEndpoint = Annotated[
    Annotated[RemoteEndpoint, Tag(REMOTE)] | Annotated[LocalEndpoint, Tag(LOCAL)],
    Discriminator(_endpoint_kind),
]
