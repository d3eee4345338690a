"""What can happen to a run, as records: the dispatcher says them, the recorder makes them durable."""

from runner.records import record
from runner.runs import Run
from runner.states import Outcome, State
from runner.values import JsonObject, JsonValue

EMBEDDED = "embedded"
"""Stands for the base URL of an embedded endpoint: it ends with its process, so no URL of it means anything later."""


@record(frozen=True, slots=True)
class Destination:
    """Where an attempt goes: the endpoint's *name* in the job file, its base URL and RunPod's id. Holds no secret."""

    name: str
    base_url: str
    endpoint_id: str


@record(frozen=True, slots=True)
class Ending:
    """
    How an attempt ended.

    *output* is ``MISSING`` when there was none; null is an output. *error* is ``{"type", "message", "traceback"}``.
    *status* is RunPod's last word, None when it never said one. Times are RunPod's, None when it did not say.
    *artifacts* are the files made of the output, as paths in the batch folder. *cost_usd* is what the attempt cost as
    the job's ``cost`` reads it, None where there is none, or nothing was told that can be meant.
    """

    outcome: Outcome
    output: JsonValue
    error: JsonObject | None = None
    status: str | None = None
    worker_id: str | None = None
    delay_time_ms: int | None = None
    execution_time_ms: int | None = None
    artifacts: tuple[str, ...] = ()
    cost_usd: float | None = None


@record(frozen=True, slots=True)
class Intended:
    """A submit is about to be sent. Durable before the request leaves."""

    run: Run
    attempt: int
    destination: Destination
    at: float


@record(frozen=True, slots=True)
class Withdrawn:
    """An intended submit was surely not accepted, and is given up: it never counts as an attempt."""

    key: str
    attempt: int


@record(frozen=True, slots=True)
class Accepted:
    """RunPod answered a submit with a job id."""

    key: str
    attempt: int
    job_id: str
    at: float


@record(frozen=True, slots=True)
class FileClaim:
    """A file that a run is about to put into the batch folder: its *path* there, and what is in it."""

    path: str
    sha256: str
    size_bytes: int


@record(frozen=True, slots=True)
class Claimed:
    """
    A run is about to give *files* their names: no other run of the batch may have one of them.

    Durable before a file gets its name. It is taken whole or not at all.
    """

    key: str
    attempt: int
    files: tuple[FileClaim, ...]


@record(frozen=True, slots=True)
class CancelDecided:
    """We are about to ask RunPod to cancel the attempt's job."""

    key: str
    attempt: int
    at: float


@record(frozen=True, slots=True)
class Ended:
    """
    An attempt ended and its run is pending again.

    *ending* is None when the attempt ended with its embedded endpoint: nobody can say how, and nothing was billed.
    """

    key: str
    attempt: int
    ending: Ending | None
    at: float


@record(frozen=True, slots=True)
class Settled:
    """
    A run got its last state. *line* is its line of results.jsonl, newline included.

    *attempts* counts the submits that may have been accepted; *ending* is None for a skipped run, and for one whose
    last attempt was recorded before; its output may be left to the line. *reused_from* is the batch whose result this
    is; None when it is our own.
    """

    run: Run
    attempts: int
    state: State
    ending: Ending | None
    line: bytes
    at: float
    reused_from: str | None = None


@record(frozen=True, slots=True)
class Reopened:
    """A settled run that did not succeed is to be run again; its attempts stay on record."""

    key: str
    at: float


@record(frozen=True, slots=True)
class Forgotten:
    """
    A run that is not under way is no longer in the plan, because the row that it was made of has become another: its
    line is superseded. Its attempts stay on record, for they were paid for.
    """

    key: str


@record(frozen=True, slots=True)
class Planned:
    """How many runs a job has was counted: until then only a bound was known."""

    job: str
    runs: int


@record(frozen=True, slots=True)
class Drafted:
    """
    A draft of RunPod's Batch API is about to be made: the *number* it has in this batch, and whose runs it takes. *key*
    is the name under which they carry a key that the handler echoes, None for none.
    """

    number: int
    job: str
    destination: Destination
    at: float
    key: str | None = None


@record(frozen=True, slots=True)
class DraftMade:
    """RunPod answered with the id of a draft."""

    number: int
    batch_id: str


@record(frozen=True, slots=True)
class Enrolled:
    """A run that was appended to a draft. *request_id* is None where RunPod gave none."""

    run: Run
    attempt: int
    request_id: str | None


@record(frozen=True, slots=True)
class Appended:
    """These runs are in a draft. While it is not finalized they cost nothing; durable before it can be."""

    number: int
    destination: Destination
    requests: tuple[Enrolled, ...]
    at: float


@record(frozen=True, slots=True)
class DraftDropped:
    """A draft is given up that surely was not finalized: its runs are pending, as if they had never been in it."""

    number: int
    at: float


@record(frozen=True, slots=True)
class Finalizing:
    """A draft is about to be finalized. Durable before the request leaves."""

    number: int
    at: float


@record(frozen=True, slots=True)
class Finalized:
    """A draft was finalized: it runs, and is paid for."""

    number: int
    at: float


@record(frozen=True, slots=True)
class BatchCancelDecided:
    """We are about to ask RunPod to cancel a RunPod batch."""

    number: int
    at: float


@record(frozen=True, slots=True)
class DraftOver:
    """Nobody need ask about a draft, or the RunPod batch it became, any more."""

    number: int
    at: float


@record(frozen=True, slots=True)
class Uploaded:
    """The remote folder has all changes of the ledger *upto* that number: of a batch that has such a folder."""

    upto: int


@record(frozen=True, slots=True)
class Sampled:
    """One look at an endpoint's ``/health``: the counters it gave, or the *problem* with asking."""

    endpoint: str
    at: float
    jobs: dict[str, int]
    workers: dict[str, int]
    problem: str | None = None


Event = (
    Intended
    | Withdrawn
    | Accepted
    | Claimed
    | CancelDecided
    | Ended
    | Settled
    | Reopened
    | Forgotten
    | Planned
    | Drafted
    | DraftMade
    | Appended
    | DraftDropped
    | Finalizing
    | Finalized
    | BatchCancelDecided
    | DraftOver
    | Sampled
    | Uploaded
)
