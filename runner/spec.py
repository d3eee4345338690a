"""
Define the grammar of a job file: frozen models, unknown keys refused.

What users write is read strictly: YAML has typed its scalars already, so ``"3"`` is no integer. An attribute whose
unit matters carries it in its name and is written without it: ``execution_timeout: 5m`` is `execution_timeout_s`.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
    create_model,
)

from runner import schedule, thresholds
from runner.scalars import (
    NUMBER,
    UNIT,
    Duration,
    RateLimit,
    RetryOutcome,
    RunLimit,
    Schema,
    Size,
    Usd,
    Wait,
    mistake,
    written,
)
from runner.scalars import found as found
from runner.schedule import BadSchedule, Times
from runner.states import Outcome
from runner.thresholds import BadThreshold, Threshold
from runner.units import Rate
from runner.values import JsonObject, JsonValue

NAME = r"^[a-z0-9][a-z0-9._-]*$"
"""Names the output folder, so it is the same on file systems that ignore case."""

LABEL = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
"""Names of jobs and endpoints: they end up in URLs and file names."""

DATA_KINDS = ("csv", "tsv", "jsonl", "json", "yaml", "yml", "parquet")
"""Kinds of data files that `rows.file` reads, by suffix; one of `PACKINGS` may follow all but the last."""

PACKINGS = ("gz", "zst", "bz2", "xz")
"""How data files may be packed, by suffix."""

SOURCES = ("file", "inline", "folder", "openai")
"""Keys of `rows` that say where rows come from; there is at most one of them, and none beside `job`."""

NOT_YET: dict[str, tuple[str, ...]] = {
    "suffixes": ("arrow", "feather", "xlsx", "zip"),
}
"""What the contract has and this version refuses as "not supported yet", by the place where it is written."""


def _version(value: object) -> int:
    # `Literal[1]` would take `true` and `1.0`: both equal 1 in Python.
    if type(value) is not int or value != 1:
        raise mistake(f"expected version 1, found {found(value)}", "write version: 1")
    return value


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

Version = Annotated[int, PlainValidator(_version), WithJsonSchema({"const": 1})]
Count = Annotated[int, Field(ge=1)]
Label = Annotated[str, Field(pattern=LABEL, max_length=64)]
Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Spec(BaseModel):
    """What every part of a job file is: frozen, strict, closed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


def _bounds(value: object, info: ValidationInfo) -> tuple[Threshold, ...]:
    """The thresholds for the metric that the field is named after. What is wrong with one of a list is told there."""
    one = partial(_threshold, metric=str(info.field_name))
    if not isinstance(value, list):
        return (one(value),)
    if not value:
        raise mistake("expected at least one threshold, found an empty list", "leave it out, or write one")
    return tuple(TypeAdapter(list[Annotated[Any, PlainValidator(one)]]).validate_python(value))


def _threshold(value: object, *, metric: str) -> Threshold:
    text, aborts = value, False
    if isinstance(value, dict):
        for key in value:
            if key not in ("bound", "abort"):
                raise mistake(f"unknown key '{key}' in '{metric}'", "known: 'bound', 'abort'")
        text, aborts = value.get("bound"), value.get("abort", False)
        if "bound" not in value:
            raise mistake(
                f"'bound' is missing in '{metric}'", f'write {{bound: "{thresholds.example(metric)}", abort: true}}'
            )
        if not isinstance(aborts, bool):
            raise mistake(f"expected true or false for 'abort', found {found(aborts)}", "write abort: true")
    if not isinstance(text, str):
        raise mistake(f"expected a text, found {found(text)}", f'write "{thresholds.example(metric)}"')
    if aborts and metric not in thresholds.ABORTING:
        raise mistake(
            f"'abort' of '{metric}': whether it is broken is known at the end only",
            f"leave it out; known with it: {', '.join(thresholds.ABORTING)}",
        )
    try:
        return replace(thresholds.parse(metric, text), abort=aborts)
    except BadThreshold as bad:
        raise mistake(bad.message, bad.fix) from None


_COMPARISON = r"(<=?|>=?|==)"
_COUNT = r"([0-9]{1,15}|0*\.[0-9]+|0+\.|0*1\.0*|(0*[0-9]{1,2}(\.[0-9]+)?|0*100(\.0+)?)\s*%)"


def _written_bounds(pattern: str, *, aborts: bool | None = None) -> WithJsonSchema:
    """What editors know of the bounds of a metric; *aborts* is the one value that `abort` may have, None for either."""
    text = {"type": "string", "pattern": rf"^\s*{pattern}\s*$"}
    abort = {"type": "boolean"} if aborts is None else {"const": aborts}
    one = {
        "type": "object",
        "properties": {"bound": text, "abort": abort},
        "required": ["bound"],
        "additionalProperties": False,
    }
    return WithJsonSchema({"anyOf": [text, one, {"type": "array", "items": {"anyOf": [text, one]}, "minItems": 1}]})


_Bounds = tuple[Threshold, ...]
CountThreshold = Annotated[_Bounds, PlainValidator(_bounds), _written_bounds(rf"{_COMPARISON}\s*{_COUNT}")]
RetriedThreshold = Annotated[
    _Bounds, PlainValidator(_bounds), _written_bounds(rf"{_COMPARISON}\s*{_COUNT}", aborts=False)
]
TimeThreshold = Annotated[
    _Bounds,
    PlainValidator(_bounds),
    _written_bounds(rf"({'|'.join(thresholds.STATISTICS)})\s*{_COMPARISON}\s*{NUMBER}\s*{UNIT}", aborts=False),
]
CostThreshold = Annotated[
    _Bounds, PlainValidator(_bounds), _written_bounds(rf"{_COMPARISON}\s*[0-9]{{1,12}}(\.[0-9]+)?\s*USD")
]


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
_Endpoint = Annotated[
    Annotated[RemoteEndpoint, Tag(REMOTE)] | Annotated[LocalEndpoint, Tag(LOCAL)],
    Discriminator(_endpoint_kind),
]


class Sample(Spec):
    """Some of the rows, drawn so that each is as likely as any other; they keep the order of the source."""

    size: Count = Field(description="How many; all, where there are fewer.")
    seed: int = Field(default=0, description="Another seed draws others; one seed the same on every machine.")


def _sample(value: object) -> object:
    """``sample: 100`` is short for its size."""
    if not isinstance(value, int | dict | Sample) or isinstance(value, bool):
        raise mistake(f"expected a number of rows, found {found(value)}", "write sample: {size: 100, seed: 7}, or 100")
    if isinstance(value, int) and value < 1:
        raise mistake(f"expected at least 1, found {value}", None)
    return {"size": value} if isinstance(value, int) else value


class Rows(Spec):
    """What a job is run with: rows x matrix x repeat. All optional; without any there is one run."""

    file: str | None = Field(
        default=None,
        min_length=1,
        description="A data file below or beside the job file: csv, tsv, jsonl, json, yaml, these also packed as .gz, "
        ".zst, .bz2 or .xz, and parquet; a glob of such files, read in the order of their names; or `-`: jsonl from "
        "stdin.",
        examples=["data/prompts.csv", "data/*.jsonl.gz", "-"],
    )
    inline: list[JsonObject] | None = Field(default=None, min_length=1, description="The rows themselves.")
    folder: str | None = Field(
        default=None,
        min_length=1,
        description="A folder below the job file's: one row for each file in it, in the order of their paths: row.path "
        "(for `file_base64`), row.name, row.stem, row.suffix, row.size_bytes, row.sha256. Hidden files are left out.",
        examples=["photos"],
    )
    glob: str | None = Field(
        default=None,
        min_length=1,
        description="With `folder`: which of its files; ** stands for folders, {a,b} for either. Default: *, those "
        "that are in no folder below it.",
        examples=["*.png", "**/*.{jpg,png}"],
    )
    openai: str | None = Field(
        default=None,
        min_length=1,
        description="A file of requests for OpenAI's Batch API or vLLM's run-batch, as it is: row.custom_id, "
        "row.method, row.url, row.body. Also packed, also a glob.",
        examples=["requests.jsonl"],
    )
    job: Label | None = Field(
        default=None,
        description="Another job, whose runs are the rows, as they succeed: row.output, row.artifacts, row.row. A run "
        "of it that does not succeed skips the runs that it would have made.",
        examples=["captions"],
    )
    collect: bool = Field(
        default=False,
        description="With `job`: one row for all of its succeeded runs together, once all are settled: row.runs.",
    )
    where: str | None = Field(
        default=None,
        min_length=1,
        description="An expression over row and vars; true keeps the row.",
        examples=["row.lang == 'en'"],
    )
    sample: Annotated[Sample, BeforeValidator(_sample, json_schema_input_type=Count | Sample)] | None = Field(
        default=None, description="Some of the kept rows, by chance: how many, or size and seed.", examples=[100]
    )
    shuffle: int | None = Field(
        default=None, description="A seed: the kept rows come in an order of its own, the same on every machine."
    )
    limit: Count | None = Field(
        default=None, description="Keep the first rows only, counted after `where`, `sample` and `shuffle`."
    )
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
        description="So much spent on execution, a lower bound of the bill.",
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


ARTIFACT_KINDS = ("base64", "data_uri", "url", "text", "json")
"""What an artifact can be made from: one key each, of which every artifact has exactly one."""

MOST_ARTIFACT_BYTES = 256 * 1024 * 1024
"""No answer is larger, and no download may be."""


UNREAD = "\ufffc"
"""Stands for an artifact's path that could not be read, so that the rest of the artifact is checked."""


class Artifact(Spec):
    """A file made of a run's output. Exactly one of base64, data_uri, url, text and json says of which part."""

    path: str = Field(
        min_length=1,
        description="A template: where it goes, below the batch's `artifacts`. It sees run.index, run.key, row, "
        "matrix, repeat, vars, with `for` item and item_index, and ext: png, mp4, json, …, by what the content is, "
        "whatever it is said to be; bin where nothing tells.",
        examples=["images/{{ run.index }}.png", "images/{{ run.index }}-{{ item_index }}.{{ ext }}"],
    )
    for_: str | None = Field(
        default=None,
        alias="for",
        min_length=1,
        description="An expression for a list: each of its items makes a file. The templates then see item, and "
        "item_index, from 0. An empty list makes none.",
        examples=["output.images"],
    )
    most_bytes: Size | None = Field(
        default=None,
        alias="max_size",
        description="A larger file is refused before it is decoded, or while it is downloaded, and the run fails as "
        "artifact_failed. Default, and at most: 256 MiB.",
        examples=["20 MiB"],
    )
    base64: str | None = Field(
        default=None, description="A template for a text in base64.", examples=["{{ output.image }}"]
    )
    data_uri: str | None = Field(default=None, description="A template for a data URI.")
    url: str | None = Field(default=None, description="A template for the URL to fetch it from.")
    text: str | None = Field(default=None, description="A template for the text itself.")
    json_: JsonValue = Field(
        default=None,
        alias="json",
        description="Any YAML whose texts are templates; written as JSON.",
        examples=["{{ output.boxes }}"],
    )

    @property
    def kinds(self) -> list[str]:
        """The kinds that are written; a checked artifact has one."""
        written = [kind for kind in ARTIFACT_KINDS if getattr(self, attribute(kind)) is not None]
        return written or (["json"] if "json_" in self.model_fields_set else [])  # null is a value there

    @property
    def kind(self) -> str:
        """What it is made from: one of `ARTIFACT_KINDS`."""
        return self.kinds[0]

    @property
    def value(self) -> JsonValue:
        """The template for what it is made from."""
        return getattr(self, attribute(self.kind))


def attribute(kind: str) -> str:
    """The attribute of `Artifact` for the key *kind*."""
    return "json_" if kind == "json" else kind  # pydantic's models have a method of that name


class Thresholds(Spec):
    """
    What the numbers must be: with any for the batch, they and those of its jobs are the verdict. With some for jobs
    only, every run of the other jobs must succeed.

    Counts are a number of runs, or a share of them (`1%`, `0.01`). Times take p50, p90, p95, p99, max or mean. A list
    has several bounds. `{bound: "< 1%", abort: true}` starts nothing more, as `stop_when` does, once the bound can't
    hold any more whatever becomes of the rest: a share is one of the plan, so one early failure of many aborts nothing.
    """

    failed: CountThreshold | None = Field(
        default=None, description="Runs that failed.", examples=["< 1%", {"bound": "< 1%", "abort": True}]
    )
    succeeded: CountThreshold | None = Field(default=None, description="Runs that succeeded.", examples=[">= 0.99"])
    cancelled: CountThreshold | None = Field(default=None, description="Runs that were cancelled.")
    skipped: CountThreshold | None = Field(default=None, description="Runs that were never started.")
    retried: RetriedThreshold | None = Field(default=None, description="Runs that took more than one attempt.")
    answer_lost: CountThreshold | None = Field(
        default=None, description="Runs whose submit was never answered: jobs that may exist, and be paid for."
    )
    execution_time: TimeThreshold | None = Field(
        default=None, description="Time on a worker.", examples=["p95 < 30s", ["p95 < 30s", "max < 2m"]]
    )
    delay_time: TimeThreshold | None = Field(default=None, description="Time in the queue.")
    cost: CostThreshold | None = Field(
        default=None, description="Execution time at `cost_per_second`.", examples=["< 5.00 USD"]
    )


def _by_metric(value: object) -> dict[str, tuple[Threshold, ...]]:
    """Thresholds by metric, in the order of the file. What is wrong with one is told at its key."""
    parts = Thresholds.model_validate(value)
    written = value if isinstance(value, dict) else {}
    return {name: found for name in written if (found := getattr(parts, name, None)) is not None}


_Thresholds = Annotated[
    dict[str, tuple[Threshold, ...]],
    PlainValidator(_by_metric, json_schema_input_type=Thresholds),
    PlainSerializer(lambda given: {name: thresholds.as_written(bounds) for name, bounds in given.items()}),
]


class Job(Spec):
    """What to run: an endpoint, rows, and the input made of each."""

    endpoint: str = Field(description="A name under `endpoints`.")
    mode: Literal["async", "sync", "stream"] = Field(
        default="async",
        description="How to run it. async: submit, then follow; sync: by /runsync, for short jobs; stream: take the "
        "chunks as they come.",
    )
    needs: list[Label] = Field(
        default=[],
        description="Jobs that come first. Unless `when` is written, all of their runs must succeed, or this job's are "
        "skipped.",
        examples=[["warm_up"]],
    )
    when: str | None = Field(
        default=None,
        min_length=1,
        description="An expression over vars and, of each needed job, jobs.NAME.runs, .succeeded, .failed, .cancelled "
        "and .skipped; looked at once they are settled. Unless it is true, the job's runs are skipped.",
        examples=["jobs.captions.succeeded >= 10"],
    )
    rows: Rows = Field(default=Rows(), description="What the job is run with.")
    input: JsonValue = Field(
        default=None, description="RunPod's `input`: any YAML but an empty one; its texts are Jinja2 templates."
    )
    policy: Policy = Field(default=Policy(), description="RunPod's execution policy.")
    webhook: str | None = Field(
        default=None,
        min_length=1,
        description="RunPod posts each job's end there, in addition. Kept secret.",
        examples=["${HOOK_URL}"],
    )
    s3_config: S3Config | None = Field(default=None, description="A bucket for the worker, passed through.")
    timeouts: Timeouts = Field(default=Timeouts(), description="Our own limits in time.")
    poll: Poll = Field(default=Poll(), description="How often a job is looked at.")
    concurrency: Count | None = Field(default=None, description="Runs of this job in flight; default: the endpoint's.")
    retry: Retry = Field(default=Retry(), description="What is tried again. Default: nothing is.")
    on_answer_lost: Literal["fail", "resubmit"] = Field(
        default="fail", description="What to do when a submit's answer never came: the job may exist, and be paid for."
    )
    reuse: Literal["never", "succeeded"] = Field(
        default="never",
        description="succeeded: a run that succeeded in an earlier batch with the same endpoint, handler file and "
        "checks is not sent: its result and artifacts are taken. `--fresh` overrides.",
    )
    success_when: str | None = Field(
        default=None,
        min_length=1,
        description="An expression over output, status, row, matrix, vars, repeat, execution_time_ms and "
        "delay_time_ms: unless it is true, a completed job is a failure. A job that is completed without output fails, "
        "too, unless this is true of it: `output is not defined`.",
        examples=["output.image is defined"],
    )
    retry_when: str | None = Field(
        default=None,
        min_length=1,
        description="An expression over outcome, output, status, error, attempts, row, matrix, vars, repeat, "
        "execution_time_ms and delay_time_ms: true tries the run again, within `retry.attempts`. It takes the place of "
        "`retry.outcomes`: it alone decides, of all outcomes that can be tried again.",
        examples=["outcome == 'crashed' or outcome == 'check_failed' and output.busy"],
    )
    output_schema: Schema | None = Field(
        default=None,
        description="A JSON Schema, here or in a JSON file below the job file's folder: an output that does not fit is "
        "a failure, check_failed, before `success_when` is asked. Nothing that it refers to is fetched; its patterns "
        "know no look-around. Needs the extra `schema`.",
        examples=["schemas/output.json", {"type": "object", "required": ["image"]}],
    )
    stop_when: StopWhen = Field(default=StopWhen(), description="When to start nothing more.")
    thresholds: _Thresholds = Field(
        default={}, description="What the numbers of this job's runs must be, beside the thresholds of the batch."
    )
    artifacts: list[Artifact] = Field(default=[], description="Files made of each run's output.")


class Keep(Spec):
    """
    How many ended batches are kept, the newest; when one ends, older ones are removed as `runner clean` does it.

    None is removed that is unfinished, that `latest` leads to, or that a kept one repeats.
    """

    succeeded: Count | None = Field(default=None, description="Batches that passed. Default: all.", examples=[10])
    failed: Count | None = Field(
        default=None, description="Batches that did not pass, or were stopped. Default: all.", examples=[20]
    )


class Outputs(Spec):
    """Where results go."""

    dir: str | None = Field(
        default=None,
        min_length=1,
        description="Default: `batches` beside the nearest .git or pyproject.toml, else the file.",
    )
    results: list[Literal["jsonl", "csv", "parquet"]] = Field(
        default=["jsonl"],
        min_length=1,
        description="Forms of the results. jsonl is always written, a line as a run settles: it is the record. csv and "
        "parquet (which needs pyarrow) are made of it when the batch ends or pauses, with a column for each key of "
        "rows and matrix. In csv a text that a spreadsheet would take for a formula begins with an apostrophe.",
        examples=[["jsonl", "parquet"]],
    )
    reports: list[Literal["junit", "prometheus"]] = Field(
        default=[],
        description="What other programs read of a batch's end, beside health.json and report.html. junit: junit.xml, "
        "for CI; prometheus: runner.prom, in the format of node_exporter's textfile collector, for which `runner run "
        "--prometheus PATH` writes it where it is read.",
        examples=[["junit"]],
    )
    keep: Keep = Field(default=Keep(), description="How many ended batches are kept. Default: all.")


class Require(Spec):
    """What an endpoint must have before anything is submitted to it."""

    workers_ready: Count | None = Field(default=None, description="Workers that are ready, idle or running.")


class Health(Spec):
    """How the endpoints are watched while a batch runs."""

    every_s: Duration = Field(
        default=15.0,
        alias="every",
        json_schema_extra={"default": "15s"},
        description="How often each endpoint's /health is read.",
    )
    wait_s: Wait = Field(
        default=300.0,
        alias="wait",
        json_schema_extra={"default": "5m"},
        description="How long to wait for an endpoint that is paused, or has not what `require` asks for.",
    )
    require: Require | None = Field(default=None, description="What each endpoint must have at the start.")


def _every(value: object) -> Times:
    return _times(value, schedule.every)


def _cron(value: object) -> Times:
    return _times(value, schedule.cron)


def _times(value: object, read: Callable[[str], Times]) -> Times:
    """The times that *read* finds in *value*."""
    if not isinstance(value, str):
        raise mistake(f"expected a text, found {found(value)}", schedule.known())
    try:
        return read(value)
    except BadSchedule as bad:
        raise mistake(bad.message, bad.fix) from None


_AS_WRITTEN = PlainSerializer(lambda times: times.text, return_type=str)


class Schedule(Spec):
    """
    When to begin, for `runner schedule`, which prints what cron, systemd or Kubernetes takes; `runner run` ignores it.

    Exactly one of every and cron.
    """

    every: Annotated[Times, PlainValidator(_every), _AS_WRITTEN, written(schedule.PATTERN)] | None = Field(
        default=None,
        description="What follows the word in a sentence: 15 minutes; hour at :15; 6 hours at :15; day, weekday or "
        "monday and thursday at 02:30; month on the 1st at 02:30.",
        examples=["day at 02:30"],
    )
    cron: Annotated[Times, PlainValidator(_cron), _AS_WRITTEN, written(r"([^\s@]\S*\s+){4}\S+")] | None = Field(
        default=None,
        description="The five fields of cron: minute, hour, day of the month, month, day of the week; one of the two "
        "days is *.",
        examples=["30 2 * * *"],
    )
    time_zone: str | None = Field(
        default=None,
        min_length=1,
        description="Whose clock is meant, by its IANA name. Default: that of the machine.",
        examples=["Europe/Berlin"],
    )

    @property
    def times(self) -> Times:
        """Its times; a checked schedule has them."""
        times = self.every or self.cron
        assert times is not None
        return times

    @property
    def sentence(self) -> str:
        """It in a line."""
        words = f"every {self.times.text}" if self.every else f"cron {self.times.text}"
        return f"{words}, {self.time_zone}" if self.time_zone else words


def _schedule(value: object) -> object:
    """A sentence is short for what follows its `every`."""
    if isinstance(value, dict | Schedule):
        return value
    if not isinstance(value, str):
        raise mistake(f"expected a schedule, found {found(value)}", schedule.known())
    words = value.split(maxsplit=1)
    if words[:1] != ["every"]:
        raise mistake(f"expected a schedule, found {found(value)}", schedule.known())
    sentence = "".join(words[1:])
    _every(sentence)  # here, for what is wrong with it is told of this value
    return {"every": sentence}


_Sentence = Annotated[str, written(rf"every\s+{schedule.PATTERN}")]


class JobFileSpec(Spec):
    """A whole job file, as it takes effect: its defaults are in its jobs, and the chosen profile in its parts."""

    version: Version = Field(description="The version of this grammar.")
    name: Annotated[str, Field(pattern=NAME, max_length=64)] = Field(description="Names the output folder.")
    description: str = Field(default="", description="For people.")
    schedule: Annotated[Schedule, BeforeValidator(_schedule, json_schema_input_type=_Sentence | Schedule)] | None = (
        Field(
            default=None,
            description="When to begin, for `runner schedule`; `runner run` ignores it. A sentence, or a mapping.",
            examples=["every day at 02:30"],
        )
    )
    vars: JsonObject = Field(default={}, description="Constants for templates. Public: they are recorded.")
    endpoints: dict[Label, _Endpoint] = Field(min_length=1, description="Where jobs can run.")
    jobs: dict[Label, Job] = Field(min_length=1, description="What to run.")
    outputs: Outputs = Field(default=Outputs(), description="Where results go, and in which form.")
    health: Health = Field(default=Health(), description="How the endpoints are watched.")
    thresholds: _Thresholds = Field(
        default={}, description="The batch's verdict, by metric. Without any, every run must succeed."
    )


OWN = ("needs", "when")
"""Keys that each job has for itself: how jobs follow one another is no setting that they share."""

SETTINGS = ("policy", "timeouts", "poll", "retry", "stop_when")
"""Keys of a job whose mappings are merged with the defaults key by key; all others are replaced whole."""


def _shared() -> dict[str, Any]:
    """The fields of a job that jobs can share, none of them required."""
    fields = {name: (field.annotation, copy(field)) for name, field in Job.model_fields.items() if name not in OWN}
    for _, field in fields.values():
        field.default = None if field.is_required() else field.default
    return fields


Defaults: type[Spec] = create_model(
    "Defaults",
    __base__=Spec,
    __doc__="What every job has that it does not say itself. The keys of policy, timeouts, poll, retry and stop_when "
    "are taken one by one, all else whole.",
    **_shared(),
)


def _checked_defaults(value: object) -> JsonObject:
    """The defaults as they are written: they are merged before anything is made of them."""
    Defaults.model_validate(value)
    return dict(value) if isinstance(value, dict) else {}


_Defaults = Annotated[JsonObject, PlainValidator(_checked_defaults, json_schema_input_type=Defaults)]


class Profile(Spec):
    """What is other when the file is run with `--profile NAME`; all else is as the file has it."""

    description: str = Field(default="", description="For people.")
    endpoints: dict[Label, _Endpoint] = Field(
        default={}, description="Endpoints in place of the file's of the same names, each whole; or additional ones."
    )
    vars: JsonObject = Field(default={}, description="Other values for the file's vars, by name.")
    defaults: _Defaults = Field(
        default={}, description="Laid over the file's `defaults`; what a job says itself still wins."
    )
    outputs: Outputs = Field(default=Outputs(), description="Laid over the file's `outputs`, key by key.")
    health: Health = Field(default=Health(), description="Laid over the file's `health`, key by key.")
    thresholds: _Thresholds = Field(
        default={}, description="Laid over the file's `thresholds`, by metric; null takes one away."
    )


class Layered(Spec):
    """What is laid over one another in a job file, and is no part of what it then comes to."""

    defaults: _Defaults = Field(default={}, description="What every job has that it does not say itself.")
    profiles: dict[Label, Profile] = Field(
        default={}, description="The same file for other places, chosen by `--profile NAME`. Without it, none applies."
    )


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


def keys(model: type[Spec]) -> list[str]:
    """The keys of *model* as users write them, in order."""
    return [field.alias or name for name, field in model.model_fields.items()]
