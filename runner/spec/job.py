"""A job: an endpoint, rows, and the input made of each."""

from typing import Literal

from pydantic import Field

from runner.scalars import Schema
from runner.spec.artifact import Artifact
from runner.spec.base import Count, Label, Spec
from runner.spec.bounds import ThresholdsByMetric
from runner.spec.rows import Rows
from runner.spec.settings import Policy, Poll, Retry, S3Config, StopWhen, Timeouts
from runner.values import JsonValue


class Job(Spec):
    """What to run: an endpoint, rows, and the input made of each."""

    endpoint: str = Field(description="A name under `endpoints`.")
    mode: Literal["async", "sync", "stream", "batch"] = Field(
        default="async",
        description="How to run it. async: submit, then follow; sync: by /runsync, for short jobs; stream: take the "
        "chunks as they come; batch: by RunPod's Batch API, which is beta and may take hours.",
    )
    batch_key: Label | None = Field(
        default=None,
        description="With mode batch: a key that is put into each run's `input`, and that the handler has to give back "
        "under the same name in its output. Needed only if RunPod gives no ids when requests are appended.",
        examples=["runner_key"],
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
    rows: Rows = Field(default=Rows.left_out(), description="What the job is run with.")
    input: JsonValue = Field(
        default=None, description="RunPod's `input`: any YAML but an empty one; its texts are Jinja2 templates."
    )
    policy: Policy = Field(default=Policy.left_out(), description="RunPod's execution policy.")
    webhook: str | None = Field(
        default=None,
        min_length=1,
        description="RunPod posts each job's end there, in addition. Kept secret.",
        examples=["${HOOK_URL}"],
    )
    s3_config: S3Config | None = Field(default=None, description="A bucket for the worker, passed through.")
    timeouts: Timeouts = Field(default=Timeouts.left_out(), description="Our own limits in time.")
    poll: Poll = Field(default=Poll.left_out(), description="How often a job is looked at.")
    concurrency: Count | None = Field(default=None, description="Runs of this job in flight; default: the endpoint's.")
    retry: Retry = Field(default=Retry.left_out(), description="What is tried again. Default: nothing is.")
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
    cost: str | None = Field(
        default=None,
        min_length=1,
        description="An expression over output, status, row, matrix, vars, repeat, execution_time_ms and "
        "delay_time_ms: what an attempt cost, in USD, where its output tells. It takes the place of execution time at "
        "`cost_per_second`, which still counts for attempts that tell none.",
        examples=["output.usage.cost_usd"],
    )
    stop_when: StopWhen = Field(default=StopWhen.left_out(), description="When to start nothing more.")
    thresholds: ThresholdsByMetric = Field(
        default={}, description="What the numbers of this job's runs must be, beside the thresholds of the batch."
    )
    artifacts: list[Artifact] = Field(default=[], description="Files made of each run's output.")
