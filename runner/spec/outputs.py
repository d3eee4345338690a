"""Where results go, and how the endpoints are watched."""

from typing import Literal

from pydantic import Field

from runner.scalars import Duration, Wait
from runner.spec.base import Count, Spec


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
        description="Default: `batches` beside the nearest .git or pyproject.toml, else the file. A URL such as "
        "s3://bucket/prefix keeps the batches there (docs/remote-folders.md; needs the extra `remote`).",
        examples=["s3://bucket/batches"],
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
    keep: Keep = Field(default=Keep.left_out(), description="How many ended batches are kept. Default: all.")


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
