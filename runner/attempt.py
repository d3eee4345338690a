"""Make one attempt: submit it, follow it, name how it ended."""

import asyncio
from dataclasses import replace
from functools import partial

from runner.answers import RemoteJob, parse_error
from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import NotFound, Refused, RunPodError
from runner.events import CancelDecided, Ending
from runner.follow import GRACE_S, Following, Vanished
from runner.policy import KEPT_S, SYNC_KEPT_S, Looks, backoff_s, outcome, stream_output
from runner.received import Received
from runner.record import Recorder
from runner.states import Outcome
from runner.stop import Over, Reason, Switch
from runner.streaming import Streaming
from runner.submission import Submission
from runner.values import JsonObject
from runner.work import Left, Terms, Work, ours

CANCEL_S = 15.0
"""How long a job is asked after once it was asked to be cancelled, before it is left as it is."""

FIRST_LOOK_S = 10.0
"""How long a job of an earlier process is followed at least."""

SYNC_LOOK_S = 20.0
"""A job of /runsync is looked at this often at least: its result is kept for one minute only."""


class Attempt:
    """One attempt at a run, from its intent to its ending."""

    def __init__(
        self,
        work: Work,
        body: bytes,
        terms: Terms,
        endpoint: LiveEndpoint,
        recorder: Recorder,
        received: Received,
        clock: Clock,
        switch: Switch,
    ) -> None:
        self.work = work
        self._body = body
        self._terms = terms
        self._endpoint = endpoint
        self._recorder = recorder
        self._received = received
        self._clock = clock
        self._switch = switch

    async def make(self) -> Ending | Left:
        """
        Carry the attempt to its end. Afterwards `work` says what it came to, job id and counts included.

        Raises:
            EndpointRefused: nothing more can be done at this endpoint now; the ledger says where the run stands.
            RecordError: the batch folder can't be written.
        """
        if self.work.job_id is not None:
            # It may have ended while nobody looked: that is seen first, whatever timeouts.run says by now.
            return await self._follow(at_least_s=FIRST_LOOK_S, is_resumed=True)
        body, self._body = self._body, b""  # it may be megabytes, and nobody wants it any more once it was sent
        submission = Submission(self.work, body, self._terms, self._endpoint, self._recorder, self._clock, self._switch)
        del body
        try:
            found = await submission.make()
        finally:
            self.work = submission.work
        del submission
        if not isinstance(found, RemoteJob):
            return found
        if found.is_final and self._terms.mode == "sync":
            return self._ending(found)
        return await self._follow()

    async def _follow(self, *, at_least_s: float = 0.0, is_resumed: bool = False) -> Ending | Left:
        work = self.work
        assert work.job_id is not None
        assert work.submitted_at is not None
        assert work.first_at is not None
        looks, kept_s = self._terms.looks, KEPT_S
        if self._terms.mode == "sync":
            kept_s = SYNC_KEPT_S
            looks = Looks(min(looks.least_s, SYNC_LOOK_S), min(looks.most_s, SYNC_LOOK_S))
        following = Following(
            self._endpoint,
            work.job_id,
            submitted_at=work.submitted_at,
            request_timeout_s=self._terms.request_timeout_s,
            clock=self._clock,
            looks=looks,
            ttl_s=self._terms.ttl_s,
            kept_s=kept_s,
            job=work.run.job,
            at_once=is_resumed or self._terms.mode == "sync",
        )
        streaming = None
        if self._terms.mode == "stream":
            streaming = Streaming(
                following,
                self._endpoint,
                work.job_id,
                self._received.stream(work.run.key, work.attempts),
                request_timeout_s=self._terms.request_timeout_s,
                looks=looks,
                is_resumed=is_resumed,
                clock=self._clock,
            )
        left_s = self._terms.left_s(work.first_at, self._clock.now())
        try:
            async with self._switch.limit(max(at_least_s, left_s)):
                found = await (streaming or following).until_final()
        except Over:
            ending = await self._cancel(following, streaming)
        else:
            if isinstance(found, Vanished) and found.is_running:
                await self._recorder.record(CancelDecided(work.run.key, work.attempts, self._clock.now()))
                await self._ask_to_cancel(following)
            ending = self._ending(found, streaming)
            if isinstance(found, Vanished):
                ending = replace(ending, status=following.last_status)
                if found.body is not None:
                    ending = await self._kept(ending, found.body)
        return ending

    async def _kept(self, ending: Ending, body: bytes) -> Ending:
        """*ending*, the answer that nobody could read kept as a file that it names."""
        kept = await self._received.keep_unreadable(self.work.run.key, self.work.attempts, body)
        assert ending.error is not None
        return replace(ending, error=ending.error | {"message": f"{ending.error['message']} (kept as {kept})"})

    # Cancelling

    async def _cancel(self, following: Following, streaming: Streaming | None) -> Ending | Left:
        """End the job at RunPod. If it turns out to be final already, its own result counts."""
        work, last = self.work, following.last_status or "not known"
        await self._recorder.record(CancelDecided(work.run.key, work.attempts, self._clock.now()))
        found: RemoteJob | Vanished | None = None
        # A person who waits gets an end; else the turn of each /cancel is waited for, however many there are.
        scope = asyncio.timeout(CANCEL_S if self._switch.reason is Reason.CANCEL else None)
        try:
            async with scope:
                await self._ask_to_cancel(following, scope)
                found = await (streaming or following).until_final()
        except TimeoutError:
            if not scope.expired():
                raise
        if isinstance(found, RemoteJob) and found.status != "CANCELLED":
            return self._ending(found, streaming)
        if self._switch.reason in (Reason.CANCEL, Reason.ABANDON):
            if found is None:
                return Left.LEFT
            ending = replace(ours(Outcome.CANCELLED, "cancelled by us"), status="CANCELLED")
        else:
            which = "timeouts.job" if self._switch.reason is Reason.JOB_TIMEOUT else "timeouts.run"
            ending = ours(Outcome.TIMED_OUT, f"{which} passed; the job's last status was {last}, and it was cancelled")
            ending = replace(ending, status=following.last_status)
        if found is not None:  # what it cost until then, and what it streamed, is RunPod's to say
            told = self._ending(found, streaming)
            status = told.status if isinstance(found, RemoteJob) else ending.status
            ending = replace(told, outcome=ending.outcome, error=ending.error, status=status)
        elif streaming is not None and streaming.chunks:
            ending = replace(ending, output=streaming.chunks)
        return ending

    async def _ask_to_cancel(self, following: Following, scope: asyncio.Timeout | None = None) -> None:
        failures = 0
        while True:
            try:
                await self._endpoint.call("cancel", partial(self._send_cancel, scope))
            except Refused as error:
                if not isinstance(error, NotFound) or following.age_s >= GRACE_S:
                    return  # it ended already, or is unknown: the look that follows says which
                await self._clock.sleep(1.0)  # it may not be visible yet, and would run to its end
            except RunPodError:
                failures += 1
                await self._clock.sleep(backoff_s(failures, initial_s=0.5, most_s=4.0, jitter=self._clock.chance()))
            else:
                return

    async def _send_cancel(self, scope: asyncio.Timeout | None) -> RemoteJob:
        assert self.work.job_id is not None
        if scope is not None and scope.when() is None:
            scope.reschedule(asyncio.get_running_loop().time() + CANCEL_S)
        return await self._endpoint.client.cancel(self.work.job_id)

    # Naming the ending

    def _ending(self, found: RemoteJob | Vanished, streaming: Streaming | None = None) -> Ending:
        if isinstance(found, Vanished):
            ending = ours(found.outcome, found.message)
            return replace(ending, output=streaming.chunks) if streaming and streaming.chunks else ending
        is_vouched_for = True
        if streaming is not None:
            output, is_vouched_for = stream_output(found, streaming.chunks, is_whole=streaming.is_whole)
            found = replace(found, output=output)
        return named(found, execution_timeout_s=self._terms.execution_timeout_s, is_vouched_for=is_vouched_for)


def named(found: RemoteJob, *, execution_timeout_s: float | None, is_vouched_for: bool = True) -> Ending:
    """The ending that the final answer *found* tells of; *is_vouched_for*: its output is surely whole."""
    called = outcome(found, execution_timeout_s=execution_timeout_s)
    message = f"RunPod says {found.status} and gives no error"
    if not is_vouched_for and called in (Outcome.COMPLETED, Outcome.COMPLETED_WITHOUT_OUTPUT):
        called, message = Outcome.INCOMPLETE, "chunks of the stream may be missing; those that came are kept"
    elif called is Outcome.COMPLETED_WITHOUT_OUTPUT:
        message = "RunPod says COMPLETED and gives no output"
    error: JsonObject | None = None
    if found.error is not None:
        failure = parse_error(found.error)
        error = {"type": failure.type, "message": failure.message, "traceback": failure.traceback}
    elif called is not Outcome.COMPLETED:
        error = {"type": None, "message": message, "traceback": None}
    return Ending(
        outcome=called,
        output=found.output,
        error=error,
        status=found.status,
        worker_id=found.worker_id,
        delay_time_ms=found.delay_time_ms,
        execution_time_ms=found.execution_time_ms,
    )
