"""Thresholds: what the numbers of a batch, or of a job, must be."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, TypeAdapter, ValidationInfo, WithJsonSchema

from runner import thresholds
from runner.scalars import NUMBER, UNIT, found, mistake
from runner.spec.base import Spec
from runner.thresholds import BadThreshold, Threshold


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
        default=None,
        description="What outputs tell (`cost`), else execution time at `cost_per_second`.",
        examples=["< 5.00 USD"],
    )


def _by_metric(value: object) -> dict[str, tuple[Threshold, ...]]:
    """Thresholds by metric, in the order of the file. What is wrong with one is told at its key."""
    parts = Thresholds.read(value)
    written = value if isinstance(value, dict) else {}
    return {name: found for name in written if (found := getattr(parts, name, None)) is not None}


ThresholdsByMetric = Annotated[
    dict[str, tuple[Threshold, ...]],
    PlainValidator(_by_metric, json_schema_input_type=Thresholds),
    PlainSerializer(lambda given: {name: thresholds.as_written(bounds) for name, bounds in given.items()}),
]
