"""
Decide which requests of clients go wrong, and how: a bad day that can be had again. Pure.

Whether a fault is due depends on the seed, the endpoint, the operation, and how many requests of that operation came
before, and on nothing else (but for faults that are bound to time). The same requests meet the same faults.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can go wrong with a request. Where nothing else is said, the operation is not carried out."""

    TOO_MANY = "429"
    INTERNAL = "500"
    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"
    GATEWAY_TIMEOUT = "504"
    PAUSED = "paused"
    """409, as of an endpoint without workers."""
    NOT_FOUND = "not_found"
    """404, as of a job that is not visible yet, or no more."""
    RESET_BEFORE = "reset_before"

    # Carried out, and then the answer goes wrong.
    INTERNAL_AFTER = "500_after"
    BAD_GATEWAY_AFTER = "502_after"
    UNAVAILABLE_AFTER = "503_after"
    GATEWAY_TIMEOUT_AFTER = "504_after"
    RESET_AFTER = "reset_after"
    SLOW = "slow"
    """The answer comes in small pieces."""
    CUT = "cut"
    """The answer ends before the length that it claims."""
    WRONG_TYPE = "wrong_type"
    """The right JSON, as text/html."""
    HTML = "html"
    """200, and a page of HTML."""
    UNKNOWN_STATUS = "unknown_status"
    """A job's status that no client has heard of."""
    DUPLICATE_CHUNK = "duplicate_chunk"
    """The last chunk of the answer comes twice."""
    LOST_CHUNK = "lost_chunk"
    """The last chunk of the answer never comes."""
    SHIFTED_PAGE = "shifted_page"
    """A page of a batch's requests begins one later than it says, as if one before it had gone elsewhere."""
    BATCH_FAILS = "batch_fails"
    """The batch that is finalized is FAILED when half of its requests, rounded down, have ended."""


SUBMITS = ("run", "runsync")
LOOKS = ("status", "status-sync", "stream")
BATCH_LOOKS = ("batch-status", "batch-requests")
BATCH_CHANGES = ("batch-update", "batch-append", "batch-remove", "batch-finalize", "batch-cancel")
BATCHES = ("batch-create", "batch-list", *BATCH_LOOKS, *BATCH_CHANGES)
"""The Batch API's, several of which share a path: POST /batch creates, GET /batch lists, and so on."""

OPERATIONS = (*SUBMITS, *LOOKS, "cancel", "retry", "purge-queue", "health", *BATCHES)

_LIMITED_TO = {
    Kind.PAUSED: SUBMITS,
    Kind.NOT_FOUND: (*LOOKS, "cancel", "retry", *BATCH_LOOKS, *BATCH_CHANGES),
    Kind.UNKNOWN_STATUS: ("runsync", *LOOKS, "batch-status"),
    Kind.DUPLICATE_CHUNK: ("stream",),
    Kind.LOST_CHUNK: ("stream",),
    Kind.SHIFTED_PAGE: ("batch-requests",),
    Kind.BATCH_FAILS: ("batch-finalize",),
}


def operations(kind: Kind) -> Sequence[str]:
    """The operations that *kind* can happen to."""
    return _LIMITED_TO.get(kind, OPERATIONS)


@dataclass(frozen=True, slots=True)
class Often:
    """
    How often a fault is due: by chance, or the first so many requests of every so many, or for a while.

    *every* None: the first ones only, once. *for_s* counts from the server's start, for `Kind.NOT_FOUND` from the
    job's submit.
    """

    chance: float = 1.0
    first: int | None = None
    every: int | None = None
    for_s: float | None = None

    def is_due(self, number: int, roll: float, age_s: float) -> bool:
        """Whether it is, for the request of this *number*, from 0. *roll* is in [0, 1), *age_s* what *for_s* limits."""
        if self.first is not None and (number if self.every is None else number % self.every) >= self.first:
            return False
        return roll < self.chance and (self.for_s is None or age_s < self.for_s)


ALWAYS = Often()


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One kind of fault, how often, and to which operation; None means all that it can happen to.

    *retry_after_s* goes into a refusal's Retry-After, as seconds or *as_date*; None for no such header. *over_s* is how
    long a slow answer takes. *shown* is the unknown status.
    """

    kind: Kind
    often: Often = ALWAYS
    operation: str | None = None
    retry_after_s: float | None = None
    as_date: bool = False
    over_s: float = 2.0
    shown: str = "PREPARING"

    def concerns(self, operation: str) -> bool:
        """Whether it can happen to this operation."""
        return operation in operations(self.kind) and self.operation in (None, operation)


class Order(StrEnum):
    """In which order the requests of a batch are paged. All but the first two shift pages while requests end."""

    INPUTS = "inputs"
    """As they were appended."""
    SHUFFLED = "shuffled"
    FAILURES_FIRST = "failures_first"
    """As the console has it: failed ones, then completed ones, then the rest: what was on a page comes again."""
    NEWEST_FIRST = "newest_first"
    """The last that ended comes first, then the rest: what was on a page comes again on the next."""
    UNFINISHED_FIRST = "unfinished_first"
    """What has not ended comes first: who pages on meanwhile never sees some that ended."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """
    What is wrong with the endpoint itself, not with single requests.

    Every worker is *cold* for *cold_start_s* after it first asks for a job: it gets none, and is shown initializing.
    *throttled*, *unhealthy* and *stalled* are workers that /health shows besides those that are there; stalled ones are
    shown running, and take nothing. *times_out*: a passed executionTimeout ends a job TIMED_OUT, as RunPod's docs say,
    instead of FAILED, as users see it.

    Of the Batch API: a finalized batch waits for *batch_delay_s* before it starts; *batch_ids*: appending answers the
    ids of the requests; *batch_order* is that of the pages; *batch_extra*: answers have fields that nobody knows.
    """

    cold_start_s: float = 0.0
    throttled: int = 0
    unhealthy: int = 0
    stalled: int = 0
    times_out: bool = False
    batch_delay_s: float = 0.0
    batch_ids: bool = True
    batch_order: Order = Order.INPUTS
    batch_extra: bool = False


FINE = Conditions()


@dataclass(frozen=True, slots=True)
class Faults:
    """
    A bad day: of several faults that are due, the first one happens.

    *by_header*: clients may ask for a fault themselves, for one request, with the header ``X-Runner-Fault``.
    """

    faults: tuple[Fault, ...] = ()
    conditions: Conditions = FINE
    seed: int = 0
    by_header: bool = False


@dataclass(slots=True)
class _Course:
    """The requests of one operation: what can happen to them, each with its own chance, and how many there were."""

    faults: Sequence[tuple[Fault, random.Random]]
    number: int = 0


class Draws:
    """
    Draw the fault of each request of the endpoint called *endpoint*.

    What one fault does to a request changes nothing for the others: each rolls for every request.
    """

    def __init__(self, endpoint: str, faults: Sequence[Fault], seed: int = 0) -> None:
        self._courses = {
            operation: _Course(
                [
                    (fault, random.Random(f"{seed} {endpoint} {operation} {place}"))
                    for place, fault in enumerate(faults)
                    if fault.concerns(operation)
                ]
            )
            for operation in OPERATIONS
        }

    def draw(self, operation: str, *, age_s: float, job_age_s: float | None) -> Fault | None:
        """
        The fault of the next request of *operation*, None for none.

        *age_s* is that of the server, *job_age_s* that of the job that is asked for, None if there is no such job.
        """
        course = self._courses[operation]
        number, course.number = course.number, course.number + 1
        rolled = [(fault, chance.random()) for fault, chance in course.faults]
        for fault, roll in rolled:
            limited_s = job_age_s if fault.kind is Kind.NOT_FOUND else age_s
            if limited_s is not None and fault.often.is_due(number, roll, limited_s):
                return fault
        return None
