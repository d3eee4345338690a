"""What is laid over one another: defaults below jobs, profiles over the file."""

from copy import copy
from typing import Annotated, Any

from pydantic import Field, PlainValidator, create_model

from runner.spec.base import Label, Spec
from runner.spec.bounds import ThresholdsByMetric
from runner.spec.endpoints import AnyEndpoint
from runner.spec.job import Job
from runner.spec.outputs import Health, Outputs
from runner.values import JsonObject

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
    Defaults.read(value)
    return dict(value) if isinstance(value, dict) else {}


_Defaults = Annotated[JsonObject, PlainValidator(_checked_defaults, json_schema_input_type=Defaults)]


class Profile(Spec):
    """What is other when the file is run with `--profile NAME`; all else is as the file has it."""

    description: str = Field(default="", description="For people.")
    endpoints: dict[Label, AnyEndpoint] = Field(
        default={}, description="Endpoints in place of the file's of the same names, each whole; or additional ones."
    )
    vars: JsonObject = Field(default={}, description="Other values for the file's vars, by name.")
    defaults: _Defaults = Field(
        default={}, description="Laid over the file's `defaults`; what a job says itself still wins."
    )
    outputs: Outputs = Field(default=Outputs.left_out(), description="Laid over the file's `outputs`, key by key.")
    health: Health = Field(default=Health.left_out(), description="Laid over the file's `health`, key by key.")
    thresholds: ThresholdsByMetric = Field(
        default={}, description="Laid over the file's `thresholds`, by metric; null takes one away."
    )


class Layered(Spec):
    """What is laid over one another in a job file, and is no part of what it then comes to."""

    defaults: _Defaults = Field(default={}, description="What every job has that it does not say itself.")
    profiles: dict[Label, Profile] = Field(
        default={}, description="The same file for other places, chosen by `--profile NAME`. Without it, none applies."
    )
