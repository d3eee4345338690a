"""Make one attempt at a run: submit it, follow it, name how it ended."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from enum import Enum

from runner.answers import RemoteJob, parse_error
from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import (
    AnswerLost,
    EndpointRefused,
    NotFound,
    NotSent,
    Paused,
    Refused,
    RunPodError,
    TooLarge,
    Unreachable,
)
from runner.events import Accepted, CancelDecided, Destination, Ending, Intended, Settled, Withdrawn
from runner.follow import Following, Vanished
from runner.plan import Run
from runner.policy import backoff_s, outcome
from runner.record import Recorder
from runner.results import line
from runner.states import Outcome, State
from runner.stop import Reason, Switch
from runner.values import MISSING, JsonObject

CANCEL_S = 15.0
"""How long a cancelled job is asked after before it is left as it is."""

PAUSED_WAIT_S = 15.0
"""Pause between submits to a paused endpoint. Source: public clients of the service; RunPod documents no figure."""


@dataclass(frozen=True, slots=True)
class Work:
    """
    A run on its way: what a lane takes up, and hands back to be tried again.

    *attempts* counts the submits so far that may have been accepted; *failures* those of them that the retry policy
    answers for. *job_id* and *submitted_at* (seconds since the epoch) are of the last one, None when it is over.
    *first_at* is when the first was intended, None before that: ``timeouts.run`` counts from there. *destination* is
    where an earlier process sent the job, None when it was this one. *last* is how the last attempt ended, for a run
    that waits to be tried again.
    """

    run: Run
    attempts: int = 0
    failures: int = 0
    job_id: str | None = None
    submitted_at: float | None = None
    first_at: float | None = None
    destination: Destination | None = None
    last: Ending | None = None


class Left(Enum):
    """Why an attempt has no ending: the run stays as the ledger has it, for a resume."""

    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Terms:
    """What one job asks of its attempts."""

    policy: JsonObject
    execution_timeout_s: float | None
    request_timeout_s: float
    run_timeout_s: float
    paused_s: float


class Attempt:
    """One attempt at a run, from its intent to its ending."""

    def __init__(
        self,
        work: Work,
        body: bytes,
        terms: Terms,
        endpoint: LiveEndpoint,
        recorder: Recorder,
        clock: Clock,
        switch: Switch,
    ) -> None:
        self.work = work
        self._body = body
        self._terms = terms
        self._endpoint = endpoint
        self._recorder = recorder
        self._clock = clock
        self._switch = switch

    async def make(self) -> Ending | Left:
        """
        Carry the attempt to its end. Afterwards `work` says what it came to, job id and counts included.

        Raises:
            EndpointRefused: nothing more can be done at this endpoint now; the ledger says where the run stands.
            RecordError: the batch folder can't be written.
        """
        if self.work.job_id is None:
            ended = await self._submit()
            if ended is not None:
                return ended
        return await self._follow()

    # Submitting

    async def _submit(self) -> Ending | Left | None:
        """Get a job id; None when there is one. The intent is durable before the request leaves."""
        now = self._clock.now()
        number = self.work.attempts + 1
        destination = self._endpoint.destination
        await self._recorder.record(Intended(self.work.run, number, destination, now))
        self.work = replace(self.work, first_at=self.work.first_at or now)
        failures, paused_since = 0, None
        while True:
            try:
                job = await self._endpoint.call("run", self._send)
            except Unreachable:
                failures += 1
                wait_s = backoff_s(failures, initial_s=0.5, most_s=30.0, jitter=self._clock.chance())
            except NotSent:
                wait_s = 0.0  # the endpoint's pace holds the next call back
            except Paused as error:
                paused_since = paused_since or self._clock.monotonic()
                if self._clock.monotonic() - paused_since >= self._terms.paused_s:
                    self._withdraw(number)
                    raise self._endpoint.refuse(error, "set the endpoint's max workers above 0") from None
                wait_s = min(PAUSED_WAIT_S, self._terms.paused_s)
            except (EndpointRefused, NotFound) as error:
                self._withdraw(number)
                if isinstance(error, EndpointRefused):
                    raise
                raise self._endpoint.refuse(error, "check the endpoint's 'id', and that the key may see it") from None
            except RunPodError as error:
                return self._not_submitted(error, number)
            else:
                submitted_at = self._clock.now()
                self._recorder.tell(Accepted(self.work.run.key, number, job.job_id, submitted_at))
                self.work = replace(self.work, attempts=number, job_id=job.job_id, submitted_at=submitted_at)
                return None
            if await self._switch.closed(within_s=min(wait_s, self._left_s())):
                self._withdraw(number)
                return Left.LEFT
            if self._left_s() <= 0:
                self._withdraw(number)
                return ours(Outcome.TIMED_OUT, "timeouts.run passed before the endpoint accepted the run")

    def _send(self) -> Awaitable[RemoteJob]:
        return self._endpoint.client.run(self._body, timeout_s=self._terms.request_timeout_s)

    def _withdraw(self, number: int) -> None:
        self._recorder.tell(Withdrawn(self.work.run.key, number))

    def _not_submitted(self, error: RunPodError, number: int) -> Ending:
        """How a submit ended that brought no job id."""
        said = f"{error.message}: {error.detail}" if error.detail else error.message
        if isinstance(error, AnswerLost):
            self.work = replace(self.work, attempts=number)
            return ours(Outcome.ANSWER_LOST, f"{said}; the job may exist and be paid for")
        self._withdraw(number)
        if isinstance(error, TooLarge):
            return ours(Outcome.TOO_LARGE, said)
        assert isinstance(error, Refused), error
        return ours(Outcome.REJECTED, said)

    # Following

    async def _follow(self) -> Ending | Left:
        work = self.work
        assert work.job_id is not None
        assert work.submitted_at is not None
        following = Following(
            self._endpoint,
            work.job_id,
            submitted_at=work.submitted_at,
            request_timeout_s=self._terms.request_timeout_s,
            clock=self._clock,
        )
        try:
            async with self._switch.limit(max(0.0, self._left_s())):
                return self._ending(await following.until_final())
        except TimeoutError:
            return await self._cancel(following)

    def _left_s(self) -> float:
        """Seconds until ``timeouts.run`` passes, over all attempts, by the clock that the ledger was written with."""
        assert self.work.first_at is not None
        return self.work.first_at + self._terms.run_timeout_s - self._clock.now()

    async def _cancel(self, following: Following) -> Ending | Left:
        """End the job at RunPod. If it turns out to be final already, its own result counts."""
        work = self.work
        await self._recorder.record(CancelDecided(work.run.key, work.attempts, self._clock.now()))
        found: RemoteJob | Vanished | None = None
        try:
            async with asyncio.timeout(CANCEL_S):
                await self._ask_to_cancel()
                found = await following.until_final()
        except TimeoutError:
            pass  # RunPod has been told; what it makes of it is not worth more waiting
        if isinstance(found, RemoteJob) and found.status != "CANCELLED":
            return self._ending(found)
        if self._switch.reason is Reason.CANCEL:
            if found is None:
                return Left.LEFT
            return replace(ours(Outcome.CANCELLED, "cancelled by us"), status="CANCELLED")
        which = "timeouts.job" if self._switch.reason is Reason.JOB_TIMEOUT else "timeouts.run"
        last = following.last_status or "not known"
        ending = ours(Outcome.TIMED_OUT, f"{which} passed; the job's last status was {last}, and it was cancelled")
        return replace(ending, status=following.last_status)

    async def _ask_to_cancel(self) -> None:
        assert self.work.job_id is not None
        job_id = self.work.job_id
        failures = 0
        while True:
            try:
                await self._endpoint.call("cancel", lambda: self._endpoint.client.cancel(job_id))
            except Refused:
                return  # it ended already, or is unknown: the look that follows says which
            except RunPodError:
                failures += 1
                await self._clock.sleep(backoff_s(failures, initial_s=0.5, most_s=4.0, jitter=self._clock.chance()))
            else:
                return

    def _ending(self, found: RemoteJob | Vanished) -> Ending:
        if isinstance(found, Vanished):
            return ours(found.outcome, found.message)
        failure = None if found.error is None else parse_error(found.error)
        error: JsonObject | None = None
        if failure is not None:
            error = {"type": failure.type, "message": failure.message, "traceback": failure.traceback}
        named = outcome(found, execution_timeout_s=self._terms.execution_timeout_s)
        if error is None and named is not Outcome.COMPLETED:
            error = {"type": None, "message": f"RunPod says {found.status} and gives no error", "traceback": None}
        return Ending(
            outcome=named,
            output=found.output,
            error=error,
            status=found.status,
            worker_id=found.worker_id,
            delay_time_ms=found.delay_time_ms,
            execution_time_ms=found.execution_time_ms,
        )


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
    return Settled(work.run, work.attempts, state, ending, text, now)
