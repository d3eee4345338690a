"""A run on its way: what lanes take up and hand back, on which terms, and how it settles."""

from collections.abc import Mapping
from dataclasses import field, replace
from enum import Enum

from runner.events import Destination, Ending, Settled
from runner.payload import RUN_BODY_BYTES, RUNSYNC_BODY_BYTES, payload
from runner.policy import DEFAULT_LOOKS, DEFAULT_TTL_S, Looks
from runner.records import record
from runner.results import LONG_BYTES, line
from runner.runs import Run
from runner.secret import Secret
from runner.states import Outcome, State
from runner.values import MISSING, JsonObject, dump


@record(frozen=True, slots=True)
class Work:
    """
    A run on its way: what a lane takes up, and hands back to be tried again.

    *attempts* counts the submits so far that may have been accepted; *failures* those of them that the retry policy
    answers for. *job_id* and *submitted_at* (seconds since the epoch) are of the last one, None when it is over.
    *first_at* is when the first was intended, None before that: ``timeouts.run`` counts from there. *destination* is
    where an earlier process sent the job, None when it was this one. *last* is how the last attempt ended, for a run
    that waits to be tried again; *last_job_id* and *last_submitted_at* are what it was known by.
    """

    run: Run
    attempts: int = 0
    failures: int = 0
    job_id: str | None = None
    submitted_at: float | None = None
    first_at: float | None = None
    destination: Destination | None = None
    last: Ending | None = None
    last_job_id: str | None = None
    last_submitted_at: float | None = None

    def begun(self, at: float) -> "Work":
        """The same run, first intended at *at*."""
        return self._with(self.attempts, self.job_id, self.submitted_at, at)

    def accepted(self, attempt: int, job_id: str, at: float) -> "Work":
        """The same run, its submit number *attempt* accepted as *job_id*."""
        return self._with(attempt, job_id, at, self.first_at)

    def _with(self, attempts: int, job_id: str | None, submitted_at: float | None, first_at: float | None) -> "Work":
        # By hand, for every run comes by twice: `dataclasses.replace` takes twice as long.
        return Work(
            self.run,
            attempts=attempts,
            failures=self.failures,
            job_id=job_id,
            submitted_at=submitted_at,
            first_at=first_at,
            destination=self.destination,
            last=self.last,
            last_job_id=self.last_job_id,
            last_submitted_at=self.last_submitted_at,
        )

    def again(self, ending: Ending, *, failures: int) -> "Work":
        """The same run, to be tried again after *ending*."""
        return Work(
            self.run,
            attempts=self.attempts,
            failures=failures,
            first_at=self.first_at,
            last=ending,
            last_job_id=self.job_id,
            last_submitted_at=self.submitted_at,
        )


class Left(Enum):
    """Why an attempt has no ending: the run stays as the ledger has it, for a resume."""

    LEFT = "left"


@record(frozen=True, slots=True)
class Terms:
    """
    What one job asks of its attempts.

    *mode* is the job file's: async, sync, stream or batch. *policy* is in RunPod's words. *webhook* and *s3_config* are
    what the job file has for RunPod and the worker, None for nothing. *execution_timeout_s* is None where RunPod's
    default holds. *paused_s* is how long a paused endpoint is tried, *ttl_s* how long RunPod knows an unfinished job.
    """

    policy: JsonObject
    execution_timeout_s: float | None
    request_timeout_s: float
    run_timeout_s: float
    paused_s: float
    mode: str = "async"
    looks: Looks = DEFAULT_LOOKS
    ttl_s: float = DEFAULT_TTL_S
    webhook: Secret | None = None
    s3_config: Mapping[str, Secret] = field(default_factory=dict)

    @property
    def operation(self) -> str:
        """The operation that submits."""
        return "runsync" if self.mode == "sync" else "run"

    @property
    def most_body_bytes(self) -> int:
        """The largest body that the operation takes."""
        return RUNSYNC_BODY_BYTES if self.mode == "sync" else RUN_BODY_BYTES

    def body(self, run: Run) -> bytes:
        """The body that submits *run*, secrets and all: keep no copy of it."""
        webhook = None if self.webhook is None else self.webhook.reveal()
        s3_config = {name: secret.reveal() for name, secret in self.s3_config.items()} or None
        return dump(payload(run.input, self.policy, webhook=webhook, s3_config=s3_config))

    def left_s(self, first_at: float, now: float) -> float:
        """Seconds until ``timeouts.run`` passes for a run first intended at *first_at*, by the ledger's clock."""
        return first_at + self.run_timeout_s - now


def ours(named: Outcome, message: str) -> Ending:
    """An ending that we name, not RunPod."""
    return Ending(named, output=MISSING, error={"type": None, "message": message, "traceback": None})


def settle(work: Work, ending: Ending | None, *, now: float) -> Settled:
    """The event that gives *work*'s run its last state; *ending* is None for a run that is skipped."""
    state = State.SKIPPED if ending is None else ending.outcome.state
    text = line(
        work.run,
        ending,
        state=state,
        attempts=work.attempts,
        job_id=work.job_id,
        submitted_at=work.submitted_at,
        settled_at=now,
    )
    if ending is not None and len(text) > LONG_BYTES:  # once is enough for what waits for the disk
        ending = replace(ending, output=MISSING)
    return Settled(work.run, work.attempts, state, ending, text, now)
