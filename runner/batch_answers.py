"""
Turn what RunPod's Batch API answers into records, as leniently as a decision allows: the API is beta.

Source: RunPod docs, "Batch API" (beta; read August 2026). What they leave open is guessed here, and named:

- appending may answer the ids of the new requests, in the order in which they were sent, under ``requests``,
  ``requestIds`` or ``ids``; each is a text, or an object with ``id``
- requests that wait or run may be on the pages, too: whatever has no final status is not over
- a request's execution is from ``startedAt`` to ``completedAt``, where it has no ``executionTime`` of its own
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from runner.answers import RemoteJob, is_id, read_job
from runner.states import is_final_status
from runner.values import JsonObject, JsonValue

DRAFT, FINALIZED, FAILED, CANCELLED = "DRAFT", "FINALIZED", "FAILED", "CANCELLED"
"""RunPod's words for how a batch stands; there is none for one that is done."""

_LISTS = ("requests", "requestIds", "ids")


@dataclass(frozen=True, slots=True)
class Counts:
    """
    How a RunPod batch stands. *status* is RunPod's word, maybe one that nobody knows. A count is None where there was
    none.
    """

    status: str
    total: int | None = None
    in_progress: int | None = None
    completed: int | None = None
    failed: int | None = None

    @property
    def ended(self) -> int:
        """How many requests are over."""
        return (self.completed or 0) + (self.failed or 0)

    @property
    def is_done(self) -> bool:
        """Whether every request is over by the counts. A batch of none is not: it may not be counted yet."""
        return bool(self.total) and self.ended >= (self.total or 0)

    @property
    def is_broken_off(self) -> bool:
        """Whether it ended before its requests did, or at least may have."""
        return self.status in (FAILED, CANCELLED)


@dataclass(frozen=True, slots=True)
class Child:
    """A request on a page: *job* is what it came to so far, under the request's id. *started_at*: seconds, epoch."""

    job: RemoteJob
    started_at: float | None

    @property
    def is_final(self) -> bool:
        """Whether it is over."""
        return is_final_status(self.job.status)


@dataclass(frozen=True, slots=True)
class Page:
    """Some requests of a RunPod batch. *total* is None, and *has_more* guessed by the length, where nobody said."""

    children: list[Child]
    shown: int
    total: int | None
    has_more: bool | None


def read_made(answer: JsonValue) -> str:
    """
    The id of the draft that was made.

    Raises:
        ValueError: there is no usable id.
    """
    batch_id = answer.get("id") if isinstance(answer, dict) else None
    if not isinstance(batch_id, str) or not is_id(batch_id):
        raise ValueError("an answer that names no batch")
    return batch_id


def read_appended(answer: JsonValue) -> list[str]:
    """The ids of the appended requests, in their order; none where the answer has none that all can be used."""
    if not isinstance(answer, dict):
        return []
    lists = (answer.get(name) for name in _LISTS)
    found: list[JsonValue] = next((one for one in lists if isinstance(one, list)), [])
    ids = [one.get("id") if isinstance(one, dict) else one for one in found]
    usable = [one for one in ids if isinstance(one, str) and is_id(one)]
    return usable if len(set(usable)) == len(ids) else []


def read_counts(answer: JsonValue) -> Counts:
    """
    How a batch stands.

    Raises:
        ValueError: there is no status, so nothing is known.
    """
    status = answer.get("status") if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or not isinstance(status, str) or not status:
        raise ValueError("an answer without a status")
    names = ("requestTotal", "requestInProgress", "requestCompleted", "requestFailed")
    return Counts(status[:100], *(_count(answer.get(name)) for name in names))


def read_page(answer: JsonValue) -> Page:
    """
    A page of requests. What is no request that can be told from others, by an id and a status, is passed over.

    Raises:
        ValueError: there is no list of requests.
    """
    items = answer.get("requests") if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or not isinstance(items, list):
        raise ValueError("an answer without requests")
    has_more = answer.get("hasMore")
    return Page(
        children=[child for one in items if isinstance(one, dict) and (child := _child(one)) is not None],
        shown=len(items),
        total=_count(answer.get("total")),
        has_more=has_more if isinstance(has_more, bool) else None,
    )


def _child(fields: JsonObject) -> Child | None:
    request_id = fields.get("id")
    if not isinstance(request_id, str) or not is_id(request_id):
        return None
    started_at, ended_at = _time(fields.get("startedAt")), _time(fields.get("completedAt"))
    if fields.get("executionTime") is None and started_at is not None and ended_at is not None:
        fields = fields | {"executionTime": max(0, round((ended_at - started_at) * 1000))}
    try:
        return Child(read_job(fields, job_id=request_id), started_at)
    except ValueError:
        return None


def _count(value: JsonValue) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def _time(value: JsonValue) -> float | None:
    """A time as RFC 3339 has it, in seconds since the epoch; None for anything else."""
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
