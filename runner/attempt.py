"""Make one attempt at a run: submit it, follow it, name how it ended."""

import asyncio
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

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
from runner.policy import backoff_s, outcome
from runner.record import Recorder
from runner.results import line
from runner.runs import Run
from runner.states import Outcome, State
from runner.stop import Over, Reason, Switch
from runner.values import MISSING, JsonObject

CANCEL_S = 15.0
"""How long a job is asked after once it was asked to be cancelled, before it is left as it is."""

FIRST_LOOK_S = 10.0
"""How long a job of an earlier process is followed at least."""

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
        self._number = 0  # of the submit that the ledger holds as intended; 0 is none
        self._failures = 0
        self._paused_since: float | None = None

    async def make(self) -> Ending | Left:
        """
        Carry the attempt to its end. Afterwards `work` says what it came to, job id and counts included.

        Raises:
            EndpointRefused: nothing more can be done at this endpoint now; the ledger says where the run stands.
            RecordError: the batch folder can't be written.
        """
        if self.work.job_id is not None:
            # It may have ended while nobody looked: that is seen first, whatever timeouts.run says by now.
            return await self._follow(at_least_s=FIRST_LOOK_S)
        ended = await self._submit()
        return await self._follow() if ended is None else ended

    # Submitting

    async def _submit(self) -> Ending | Left | None:
        """Get a job id; None when there is one. What is surely not accepted is withdrawn, and sent again."""
        if self.work.first_at is None:
            self.work = replace(self.work, first_at=self._clock.now())
        while True:
            try:
                async with self._switch.start(self._left_s()) as scope:
                    job = await self._endpoint.call("run", partial(self._send, scope))
            except Over:
                if self._switch.is_closed:
                    return Left.LEFT
                return ours(Outcome.TIMED_OUT, "timeouts.run passed before the endpoint accepted the run")
            except AnswerLost as error:
                self.work = replace(self.work, attempts=self._number)
                return ours(Outcome.ANSWER_LOST, f"{_said(error)}; the job may exist and be paid for")
            except EndpointRefused:
                self._withdraw()
                raise
            except RunPodError as error:
                self._withdraw()
                wait_s = self._next_try_s(error)
                if wait_s is None:
                    return ours(Outcome.TOO_LARGE if isinstance(error, TooLarge) else Outcome.REJECTED, _said(error))
            else:
                self._accept(job)
                return None
            await self._switch.closed(within_s=min(wait_s, self._left_s()))

    async def _send(self, scope: asyncio.Timeout) -> RemoteJob:
        """Send the request, its turn having come; the intent is durable before it leaves."""
        if self._switch.is_closed or self._left_s() <= 0:
            raise Over
        # From here on neither a stop nor timeouts.run cuts the request short: its answer would be lost.
        self._switch.started(scope)
        number = self.work.attempts + 1
        await self._recorder.record(Intended(self.work.run, number, self._endpoint.destination, self._clock.now()))
        self._number = number
        return await self._endpoint.client.run(self._body, timeout_s=self._terms.request_timeout_s)

    def _accept(self, job: RemoteJob) -> None:
        now = self._clock.now()
        self._recorder.tell(Accepted(self.work.run.key, self._number, job.job_id, now))
        self.work = replace(self.work, attempts=self._number, job_id=job.job_id, submitted_at=now)

    def _withdraw(self) -> None:
        """Take the intent back, if there is one: nothing was accepted, and nothing is under way."""
        if self._number:
            self._recorder.tell(Withdrawn(self.work.run.key, self._number))
            self._number = 0

    def _next_try_s(self, error: RunPodError) -> float | None:
        """
        Seconds to wait before the same request is sent again; None when *error* is the last word on it.

        Raises:
            EndpointRefused: it is the last word on the endpoint.
        """
        match error:
            case Unreachable():
                self._failures += 1
                return backoff_s(self._failures, initial_s=0.5, most_s=30.0, jitter=self._clock.chance())
            case NotSent():
                return 0.0  # the endpoint's pace holds the next call back
            case Paused():
                now = self._clock.monotonic()
                self._paused_since = now if self._paused_since is None else self._paused_since
                left_s = self._paused_since + self._terms.paused_s - now
                if left_s <= 0:
                    raise self._endpoint.refuse(error, "set the endpoint's max workers above 0") from None
                return min(PAUSED_WAIT_S, left_s)
            case NotFound():
                raise self._endpoint.refuse(error, "check the endpoint's 'id', and that the key may see it") from None
        return None

    # Following

    async def _follow(self, *, at_least_s: float = 0.0) -> Ending | Left:
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
            async with self._switch.limit(max(at_least_s, self._left_s())):
                return self._ending(await following.until_final())
        except Over:
            return await self._cancel(following)

    def _left_s(self) -> float:
        """Seconds until ``timeouts.run`` passes, over all attempts, by the clock that the ledger was written with."""
        assert self.work.first_at is not None
        return self.work.first_at + self._terms.run_timeout_s - self._clock.now()

    async def _cancel(self, following: Following) -> Ending | Left:
        """End the job at RunPod. If it turns out to be final already, its own result counts."""
        work, last = self.work, following.last_status or "not known"
        await self._recorder.record(CancelDecided(work.run.key, work.attempts, self._clock.now()))
        found: RemoteJob | Vanished | None = None
        # A person who waits gets an end; else the turn of each /cancel is waited for, however many there are.
        scope = asyncio.timeout(CANCEL_S if self._switch.reason is Reason.CANCEL else None)
        try:
            async with scope:
                await self._ask_to_cancel(scope)
                found = await following.until_final()
        except TimeoutError:
            if not scope.expired():
                raise
        if isinstance(found, RemoteJob) and found.status != "CANCELLED":
            return self._ending(found)
        if self._switch.reason is Reason.CANCEL:
            if found is None:
                return Left.LEFT
            ending = replace(ours(Outcome.CANCELLED, "cancelled by us"), status="CANCELLED")
        else:
            which = "timeouts.job" if self._switch.reason is Reason.JOB_TIMEOUT else "timeouts.run"
            ending = ours(Outcome.TIMED_OUT, f"{which} passed; the job's last status was {last}, and it was cancelled")
            ending = replace(ending, status=following.last_status)
        if isinstance(found, RemoteJob):  # what it cost until then is RunPod's to say
            told = self._ending(found)
            ending = replace(told, outcome=ending.outcome, error=ending.error)
        return ending

    async def _ask_to_cancel(self, scope: asyncio.Timeout) -> None:
        failures = 0
        while True:
            try:
                await self._endpoint.call("cancel", partial(self._send_cancel, scope))
            except Refused:
                return  # it ended already, or is unknown: the look that follows says which
            except RunPodError:
                failures += 1
                await self._clock.sleep(backoff_s(failures, initial_s=0.5, most_s=4.0, jitter=self._clock.chance()))
            else:
                return

    async def _send_cancel(self, scope: asyncio.Timeout) -> RemoteJob:
        assert self.work.job_id is not None
        if scope.when() is None:
            scope.reschedule(asyncio.get_running_loop().time() + CANCEL_S)
        return await self._endpoint.client.cancel(self.work.job_id)

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


def _said(error: RunPodError) -> str:
    return f"{error.message}: {error.detail}" if error.detail else error.message


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
