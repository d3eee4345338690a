"""
Turn the JSON that RunPod answers into records.

Strict about what a decision rests on, lenient about the rest: extra fields are ignored, a field of the wrong type is
as good as absent. Where even that leaves nothing to go on, a reader raises ValueError, which says what is missing.
"""

import re
from typing import Final

from runner.plain import plain
from runner.records import record
from runner.states import is_final_status
from runner.values import MISSING, JsonObject, JsonValue, Missing, dump, parse

UNKNOWN_STATUS: Final = "UNKNOWN"
"""Stands where an answer that may do without a status had none. Never final."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_CLASS = re.compile(r"<class '([^']+)'>")
_GENERATOR_ERROR = re.compile(r"handler: (?P<message>.*?) ?\ntraceback: ?(?P<traceback>.*)", re.DOTALL)


@record(frozen=True, slots=True)
class RemoteJob:
    """
    What RunPod said of one job at one moment.

    *output* is a result only once *status* is COMPLETED: before, it is a progress update. *error* is None when it was
    absent, null or empty. Times are None when RunPod did not say; *retries* counts RunPod's own re-runs.
    """

    job_id: str
    status: str
    output: JsonValue | Missing = MISSING
    error: JsonValue | None = None
    delay_time_ms: int | None = None
    execution_time_ms: int | None = None
    worker_id: str | None = None
    retries: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether the job is over."""
        return is_final_status(self.status)


@record(frozen=True, slots=True)
class Chunks:
    """
    What a job yielded since the last read, in order. Reading took it away: RunPod gives a chunk out once.

    *status* may be final while chunks are still to come, and an error is told by ``/status`` alone.
    """

    status: str
    chunks: list[JsonValue]

    @property
    def is_final(self) -> bool:
        """Whether the job is over; there may be more chunks all the same."""
        return is_final_status(self.status)


@record(frozen=True, slots=True)
class EndpointHealth:
    """RunPod's counters of an endpoint. A counter that was not there is unknown, not zero."""

    jobs: dict[str, int]
    workers: dict[str, int]


@record(frozen=True, slots=True)
class Purged:
    """How many queued jobs were dropped, of every client of the endpoint; None when RunPod did not say."""

    removed: int | None


@record(frozen=True, slots=True)
class HandlerFailure:
    """A job's error as people read it. *type* is the exception's name, None when the error did not name one."""

    type: str | None
    message: str
    traceback: str | None


def is_id(text: str) -> bool:
    """Whether *text* can be an endpoint's or a job's id, and so go into a URL as it is."""
    return _ID.fullmatch(text) is not None


def read_submitted(answer: JsonValue) -> RemoteJob:
    """
    The job that a submit made.

    A status may be missing: with the id in hand the job can be looked at, without it a paid job would be lost.

    Raises:
        ValueError: there is no usable id.
    """
    fields = _object(answer)
    job_id = fields.get("id")
    if not isinstance(job_id, str) or not is_id(job_id):
        raise ValueError("an answer that names no job")
    return _job(fields, job_id=job_id, status=_status(fields) or UNKNOWN_STATUS)


def read_job(answer: JsonValue, *, job_id: str) -> RemoteJob:
    """
    The state of the job we asked for; the answer's own id is not looked at.

    Raises:
        ValueError: there is no status, so nothing is known of the job.
    """
    fields = _object(answer)
    status = _status(fields)
    if status is None:
        raise ValueError("an answer without a status")
    return _job(fields, job_id=job_id, status=status)


def read_chunks(answer: JsonValue) -> Chunks:
    """
    The chunks of one stream answer: an object with a list ``stream``, one without it, or a bare list.

    An item's chunk is its ``output``; an object without that key (metrics) is none, anything else is a chunk itself.

    Raises:
        ValueError: it is none of these.
    """
    fields = {"stream": answer} if isinstance(answer, list) else _object(answer)
    items = fields.get("stream")
    if items is None:
        items = []
    if not isinstance(items, list):
        raise ValueError("an answer whose stream is not a list")
    chunks = [item.get("output", MISSING) if isinstance(item, dict) else item for item in items]
    return Chunks(_status(fields) or UNKNOWN_STATUS, [chunk for chunk in chunks if chunk is not MISSING])


def read_health(answer: JsonValue) -> EndpointHealth:
    """The counters that are there. Any JSON will do: that an endpoint answers is news by itself."""
    fields = answer if isinstance(answer, dict) else {}
    return EndpointHealth(jobs=_counters(fields.get("jobs")), workers=_counters(fields.get("workers")))


def read_purged(answer: JsonValue) -> Purged:
    """
    The count of dropped jobs.

    Raises:
        ValueError: the answer is not an object.
    """
    return Purged(_count(_object(answer).get("removed")))


def parse_error(error: JsonValue) -> HandlerFailure:
    """
    A job's ``error`` as type, message and traceback, free of escape sequences and control characters.

    RunPod's worker sends JSON text for a raised exception, plain text for one raised by a generator, and whatever
    the handler itself returned under ``error``.
    """
    fields = _reported(error)
    if fields is not None:
        kind, traceback = fields.get("error_type"), fields.get("error_traceback")
        return HandlerFailure(
            _class_name(kind) if isinstance(kind, str) and kind else None,
            _text(fields["error_message"]),
            plain(traceback) if isinstance(traceback, str) and traceback else None,
        )
    if isinstance(error, str) and (found := _GENERATOR_ERROR.fullmatch(error)):
        return HandlerFailure(None, plain(found["message"]), plain(found["traceback"]) or None)
    return HandlerFailure(None, _text(error), None)


def _reported(error: JsonValue) -> JsonObject | None:
    """The report of an exception that *error* is, or holds as JSON text; None when it is neither."""
    if isinstance(error, str) and error.lstrip().startswith("{"):
        try:
            error = parse(error.encode())
        except (ValueError, RecursionError):
            return None
    return error if isinstance(error, dict) and "error_message" in error else None


def _class_name(kind: str) -> str:
    """``ValueError`` of ``<class 'ValueError'>``, which is how the worker writes it."""
    found = _CLASS.fullmatch(kind)
    return plain(found[1] if found else kind)


def _text(value: JsonValue) -> str:
    return plain(value if isinstance(value, str) else dump(value).decode("utf-8", "replace"))


def _object(answer: JsonValue) -> JsonObject:
    if not isinstance(answer, dict):
        raise ValueError("an answer that is not a JSON object")
    return answer


def _job(fields: JsonObject, *, job_id: str, status: str) -> RemoteJob:
    worker_id = fields.get("workerId")
    return RemoteJob(
        job_id=job_id,
        status=status,
        output=fields.get("output", MISSING),
        error=fields.get("error") or None,
        delay_time_ms=_count(fields.get("delayTime")),
        execution_time_ms=_count(fields.get("executionTime")),
        worker_id=_word(worker_id) if isinstance(worker_id, str) and worker_id else None,
        retries=_count(fields.get("retries")),
    )


def _status(fields: JsonObject) -> str | None:
    status = fields.get("status")
    return _word(status) if isinstance(status, str) and status else None


def _word(text: str) -> str:
    """*text* fit for a table cell. Odd characters are replaced, not removed: removal could make a final status."""
    text = text[:100]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _count(value: JsonValue) -> int | None:
    """*value* if it counts something and fits a column of the ledger. True is not 1 here."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def _counters(group: JsonValue) -> dict[str, int]:
    """The counters in *group* that are numbers."""
    named = group.items() if isinstance(group, dict) else ()
    return {_word(name): count for name, value in named if (count := _count(value)) is not None}
