"""One concrete input of a job: what a plan is made of."""

from typing import Protocol

from runner.records import record
from runner.values import JsonObject, JsonValue


class Occurrences(Protocol):
    """Counts equal runs, so that each gets a key of its own."""

    def count(self, digest: bytes) -> int:
        """How often *digest* was counted before; counts it once more."""
        ...


@record(frozen=True, slots=True)
class Run:
    """
    One concrete input of a job.

    *key* is 32 hex digits, the same for the same job name and input in every batch, on every machine. *index* is the
    position in the job's plan, from 0. *input* is what the handler gets; None when *problem* says why the row could
    not be rendered. No two runs share a list or a mapping. A text in *input* that is the content of a local file is a
    `runner.files.FileText`, equal to that text; `runner.files.shown` gives the input as results have it. *skip* says
    why it is not to be run at all, None for one that is: what it needs did not succeed.
    """

    job: str
    index: int
    key: str
    row: JsonObject | None
    matrix: JsonObject | None
    repeat: int
    input: JsonValue
    problem: str | None = None
    skip: str | None = None
