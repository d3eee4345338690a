"""Rows: what a job is run with."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from runner.scalars import found, mistake
from runner.spec.base import Count, Label, Spec
from runner.values import JsonObject, JsonValue

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
