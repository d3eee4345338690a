"""Artifacts: files made of a run's output."""

from pydantic import Field

from runner.scalars import Size
from runner.spec.base import Spec
from runner.values import JsonValue

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
