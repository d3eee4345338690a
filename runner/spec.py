"""
Define the grammar of a job file: frozen models, unknown keys refused.

What users write is read strictly: YAML has typed its scalars already, so ``"3"`` is no integer. An attribute whose
unit matters carries it in its name and is written without it: ``execution_timeout: 5m`` is `execution_timeout_s`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainSerializer, PlainValidator, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from runner import units
from runner.states import RETRYABLE, Outcome
from runner.units import Rate
from runner.values import JsonObject, JsonValue

NAME = r"^[a-z0-9][a-z0-9._-]*$"
"""Names the output folder, so it is the same on file systems that ignore case."""

LABEL = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
"""Names of jobs and endpoints: they end up in URLs and file names."""

LONGEST_S = 365 * 86_400.0

DATA_KINDS = ("csv", "tsv", "jsonl")
"""Kinds of data files that `rows.file` reads, by suffix."""

NOT_YET: dict[str, tuple[str, ...]] = {
    "": ("health", "thresholds", "defaults"),
    "endpoints.*": ("command", "external", "defaults"),
    "jobs.*": ("webhook", "s3_config", "success_when", "needs", "stop_when", "artifacts", "poll"),
    "jobs.*.rows": ("shuffle", "job"),
    "values of jobs.*.mode": ("sync", "stream"),
    "values of outputs.results": ("parquet", "csv"),
    "suffixes": ("json", "yaml", "yml", "parquet", "gz"),
    "filters": ("file_base64", "file_data_uri"),
}
"""What the contract has and this version refuses as "not supported yet", by the place where it is written."""


def found(value: object) -> str:
    """*value* as a message names it: its kind, and the value itself where it is short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}…'"
    if isinstance(value, int | float):
        return str(value)[:60]
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else type(value).__name__


def _mistake(message: str, fix: str | None = None) -> PydanticCustomError:
    """A problem in our own words; `runner.wording` hands them on as they are."""
    return PydanticCustomError("mistake", "{message}", {"message": message, "fix": fix})


def _wait(value: object) -> float:
    """Seconds in a duration, zero allowed."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise _mistake(f"a duration needs a unit, found {found(value)}", f"write {found(value)}s")
    if not isinstance(value, str):
        raise _mistake(f"expected a duration, found {found(value)}", "write a number and a unit, such as 30s")
    try:
        seconds = units.duration_s(value)
    except ValueError:
        raise _mistake(f"expected a duration, found {found(value)}", "write 500ms, 90s, 5m, 2h or 1d") from None
    if seconds > LONGEST_S:
        raise _mistake(f"a duration is at most 365d, found {found(value)}")
    return seconds


def _duration(value: object) -> float:
    """Seconds in a duration above zero."""
    seconds = _wait(value)
    if seconds <= 0:
        raise _mistake(f"a duration must be above zero, found {found(value)}")
    return seconds


def _rate(value: object) -> Rate:
    try:
        return units.rate(value) if isinstance(value, str) else units.rate("")
    except ValueError:
        raise _mistake(f"expected a rate, found {found(value)}", "write a count and a duration: 950/10s") from None


def _version(value: object) -> int:
    # `Literal[1]` would take `true` and `1.0`: both equal 1 in Python.
    if type(value) is not int or value != 1:
        raise _mistake(f"expected version 1, found {found(value)}", "write version: 1")
    return value


def _outcome(value: object) -> Outcome:
    if isinstance(value, str) and value in RETRYABLE:
        return Outcome(value)
    raise PydanticCustomError("choice", "unknown outcome", {"noun": "outcome", "choices": sorted(RETRYABLE)})


def _endpoint_kind(value: object) -> str:
    """Which of the two kinds of endpoint the user means, judged by its keys alone."""
    local = ("handler", "command", "external", "workers", "return_aggregate_stream")
    if isinstance(value, dict):
        return LOCAL if "handler" in value or ("id" not in value and any(key in value for key in local)) else REMOTE
    return LOCAL if isinstance(value, LocalEndpoint) else REMOTE


REMOTE, LOCAL = "<remote>", "<local>"
"""Union tags, which pydantic puts into the paths of errors; no key of a job file looks like them."""

_DURATION_SCHEMA = WithJsonSchema({"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*$"})
# Serializers give users' words back: for the manifest, and for defaults in the JSON Schema.
_IN_WORDS = PlainSerializer(units.duration, return_type=str)
Duration = Annotated[float, PlainValidator(_duration), _IN_WORDS, _DURATION_SCHEMA]
Wait = Annotated[float, PlainValidator(_wait), _IN_WORDS, _DURATION_SCHEMA]
RateLimit = Annotated[
    Rate,
    PlainValidator(_rate),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+\s*/\s*\d*(\.\d+)?\s*(ms|s|m|h|d)\s*$"}),
]
RetryOutcome = Annotated[
    Outcome,
    PlainValidator(_outcome),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"enum": sorted(RETRYABLE)}),
]
Version = Annotated[int, PlainValidator(_version), WithJsonSchema({"const": 1})]
Count = Annotated[int, Field(ge=1)]
Label = Annotated[str, Field(pattern=LABEL, max_length=64)]
Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Spec(BaseModel):
    """What every part of a job file is: frozen, strict, closed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


class RateLimits(Spec):
    """How often each operation may be called, in any window of the duration. Default: 95 % of RunPod's table."""

    run: RateLimit = Field(
        default=Rate(950, 10.0), description="Submits by /run.", json_schema_extra={"default": "950/10s"}
    )
    runsync: RateLimit = Field(
        default=Rate(1900, 10.0), description="Submits by /runsync.", json_schema_extra={"default": "1900/10s"}
    )
    status: RateLimit = Field(
        default=Rate(1900, 10.0), description="Looks: /status, /status-sync and /stream share it."
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
    rate_limits: RateLimits = Field(default=RateLimits(), description="Calls per duration, for each operation.")
    cost_per_second: Cost | None = Field(default=None, description="USD per worker second, for the estimate.")


class LocalEndpoint(Spec):
    """An embedded endpoint that hosts the user's own handler and speaks RunPod's API on loopback."""

    handler: str = Field(description="File and function of the handler.", examples=["handlers/horse.py:handler"])
    workers: Count = Field(default=1, description="Worker processes.")
    return_aggregate_stream: bool = Field(default=True, description="Whether a generator's chunks become its output.")
    concurrency: Count | None = Field(
        default=None, description="Runs in flight on it, all jobs together; default: adaptive."
    )
    cost_per_second: Cost | None = Field(default=None, description="USD per worker second, for the estimate.")


Endpoint = RemoteEndpoint | LocalEndpoint
_Endpoint = Annotated[
    Annotated[RemoteEndpoint, Tag(REMOTE)] | Annotated[LocalEndpoint, Tag(LOCAL)],
    Discriminator(_endpoint_kind),
]


class Rows(Spec):
    """What a job is run with: rows x matrix x repeat. All optional; without any there is one run."""

    file: str | None = Field(
        default=None, min_length=1, description="A data file: csv, tsv or jsonl, from the job file's folder."
    )
    inline: list[JsonObject] | None = Field(default=None, min_length=1, description="The rows themselves.")
    where: str | None = Field(
        default=None, min_length=1, description="An expression over row and vars; true keeps the row."
    )
    limit: Count | None = Field(default=None, description="Keep the first rows only, counted after `where`.")
    matrix: dict[str, Annotated[list[JsonValue], Field(min_length=1)]] | None = Field(
        default=None, min_length=1, description="Values to combine: every row is run with every combination."
    )
    include: list[Annotated[JsonObject, Field(min_length=1)]] = Field(
        default=[], description="Combinations to add, or to extend, as in GitHub Actions' matrix."
    )
    exclude: list[Annotated[JsonObject, Field(min_length=1)]] = Field(
        default=[], description="Combinations to leave out; a partial one matches all that have these values."
    )
    repeat: Count = Field(default=1, description="How often each row and combination is run.")


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


class Job(Spec):
    """What to run: an endpoint, rows, and the input made of each."""

    endpoint: str = Field(description="A name under `endpoints`.")
    mode: Literal["async"] = Field(default="async", description="How to run it: submit, then follow.")
    rows: Rows = Field(default=Rows(), description="What the job is run with.")
    input: JsonValue = Field(default=None, description="RunPod's `input`: any YAML; its texts are Jinja2 templates.")
    policy: Policy = Field(default=Policy(), description="RunPod's execution policy.")
    timeouts: Timeouts = Field(default=Timeouts(), description="Our own limits in time.")
    concurrency: Count | None = Field(default=None, description="Runs of this job in flight; default: the endpoint's.")
    retry: Retry = Field(default=Retry(), description="What is tried again. Default: nothing is.")
    on_answer_lost: Literal["fail", "resubmit"] = Field(
        default="fail", description="What to do when a submit's answer never came: the job may exist, and be paid for."
    )


class Outputs(Spec):
    """Where results go."""

    dir: str | None = Field(
        default=None,
        min_length=1,
        description="Default: `batches` beside the nearest .git or pyproject.toml, else the file.",
    )
    results: list[Literal["jsonl"]] = Field(default=["jsonl"], min_length=1, description="Forms of the results file.")


class JobFileSpec(Spec):
    """A whole job file."""

    version: Version = Field(description="The version of this grammar.")
    name: Annotated[str, Field(pattern=NAME, max_length=64)] = Field(description="Names the output folder.")
    description: str = Field(default="", description="For people.")
    vars: JsonObject = Field(default={}, description="Constants for templates. Public: they are recorded.")
    endpoints: dict[Label, _Endpoint] = Field(min_length=1, description="Where jobs can run.")
    jobs: dict[Label, Job] = Field(min_length=1, description="What to run.")
    outputs: Outputs = Field(default=Outputs(), description="Where results go.")


MODELS: dict[str, type[Spec]] = {
    "": JobFileSpec,
    "endpoints.*": RemoteEndpoint,
    "endpoints.*.rate_limits": RateLimits,
    "jobs.*": Job,
    "jobs.*.rows": Rows,
    "jobs.*.policy": Policy,
    "jobs.*.timeouts": Timeouts,
    "jobs.*.retry": Retry,
    "outputs": Outputs,
}
"""The model of each place, so that a message can name the keys that are known there."""


def keys(model: type[Spec]) -> list[str]:
    """The keys of *model* as users write them, in order."""
    return [field.alias or name for name, field in model.model_fields.items()]
