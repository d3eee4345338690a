"""One job of an endpoint: what is known of it, in RunPod's words."""

from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """RunPod's statuses. TIMED_OUT is reached on demand only: a job whose ttl passes is gone."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def is_final(self) -> bool:
        """Whether only /retry can change it."""
        return self not in (Status.IN_QUEUE, Status.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class Policy:
    """A job's own limits. *ttl_s* runs from the submit and covers everything; *execution_timeout_s* from the take."""

    execution_timeout_s: float = 600.0
    ttl_s: float = 86_400.0
    low_priority: bool = False


@dataclass(slots=True, eq=False)
class Job:
    """
    One job. *input*, *output*, *error* and *chunks* are JSON texts; None means that there is none.

    *output* is a progress report while the job is in progress. *delay_ms* is None until a worker took the job,
    *execution_ms* until it ended; both are of the last attempt. *webhook* is the URL that hears of the end;
    *s3_config* goes to the worker, and to nobody else; *batch_id* is the batch that it is a request of. *expires_at* is
    when an unfinished job is removed, wherever it stands.
    """

    id: str
    input: bytes
    policy: Policy
    is_sync: bool
    queued_at: float
    webhook: str | None = None
    s3_config: bytes | None = None
    batch_id: str | None = None
    status: Status = Status.IN_QUEUE
    taken_at: float | None = None
    delay_ms: int | None = None
    execution_ms: int | None = None
    worker_id: str | None = None
    output: bytes | None = None
    error: bytes | None = None
    retries: int = 0
    chunks: list[bytes] = field(default_factory=list)
    expires_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.expires_at = self.queued_at + self.policy.ttl_s

    def reset(self) -> None:
        """Forget the last attempt: the job is queued again."""
        self.status = Status.IN_QUEUE
        self.taken_at = self.delay_ms = self.execution_ms = None
        self.worker_id = self.output = self.error = None
        self.chunks.clear()
