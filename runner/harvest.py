"""Settle what came of a RunPod batch, run by run, as its pages tell it; what nobody can tell is settled at its end."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace

from runner.answers import RemoteJob
from runner.attempt import CANCEL_S, FIRST_LOOK_S, named
from runner.batch_answers import FAILED, Child
from runner.clock import Clock
from runner.echo import Rest, Whose
from runner.endpoint import LiveEndpoint
from runner.errors import NotFound, Refused
from runner.events import Accepted, BatchCancelDecided, DraftOver, Ending
from runner.intake import Intake
from runner.ledger import Ledger, Sent
from runner.pages import Gone, Reading, answered
from runner.record import Recorder
from runner.runpod_batches import RunPodBatches
from runner.settling import Settling
from runner.states import Outcome
from runner.stop import Over, Reason, Switch
from runner.work import Terms, Work, ours


class Harvest:
    """
    One RunPod batch on its way to its end. *finalized_at* is in seconds since the epoch; *is_cancelled* says that it
    was decided to cancel it, *is_known* that an earlier process made it, *told* are the request ids of the results that
    it knew, None for one of which it did not. *tell* is called when runs of it have settled.
    """

    def __init__(
        self,
        number: int,
        batch_id: str,
        sent: Sequence[Sent],
        finalized_at: float,
        *,
        key: str | None,
        terms: Terms,
        endpoint: LiveEndpoint,
        intake: Intake,
        settling: Settling,
        recorder: Recorder,
        ledger: Ledger,
        clock: Clock,
        switch: Switch,
        is_cancelled: bool = False,
        is_known: bool = False,
        told: Sequence[str | None] = (),
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self.whose = Whose(sent, key, told)
        self._number = number
        self._id = batch_id
        self._finalized_at = finalized_at
        self._terms = terms
        self._endpoint = endpoint
        self._intake = intake
        self._settling = settling
        self._recorder = recorder
        self._ledger = ledger
        self._clock = clock
        self._switch = switch
        self._is_cancelled = is_cancelled
        self._why: str | None = None  # it was cancelled by a time limit, not by a person
        # It may have ended while nobody looked: that is seen first, whatever timeouts.run says by now.
        self._at_least_s = FIRST_LOOK_S if is_known else 0.0
        self._tell = tell
        self._api = RunPodBatches(endpoint.client, timeout_s=terms.request_timeout_s)
        self._reading = Reading(
            batch_id,
            self._api,
            endpoint,
            looks=terms.looks,
            left=lambda: self.whose.left,
            is_accounted=lambda: self.whose.is_accounted,
            clock=clock,
        )

    async def bring_in(self) -> None:
        """
        Follow it, and settle its runs, until nothing more will come of it. What is left then is for a resume.

        Raises:
            EndpointRefused: the endpoint no longer lets us ask.
        """
        is_gone = False
        scope: asyncio.Timeout | None = None
        while True:
            try:
                async with scope or self._limit():
                    children = await self._reading.more()
            except Over:
                scope = await self._cancel()
                continue
            except TimeoutError:
                self.leave()
                return
            except Gone:
                is_gone = True
                break
            if scope is not None:
                scope = asyncio.timeout_at(scope.when())
            if children is None:
                break
            await self._settle_all(children)
        await self._settle_rest(is_gone=is_gone)
        await self._settling.all_recorded()
        self._recorder.tell(DraftOver(self._number, self._clock.now()))

    def leave(self) -> None:
        """What is left stays as the ledger has it, for a resume."""
        for _ in range(self.whose.left):
            self._intake.give_back()

    def _limit(self) -> AbstractAsyncContextManager[asyncio.Timeout]:
        left_s = self._finalized_at + self._terms.run_timeout_s - self._clock.now()
        return self._switch.limit(max(self._at_least_s, left_s))

    async def _cancel(self) -> asyncio.Timeout:
        """Drop what is queued; how long to follow what runs. A person who waits gets an end, else there is none."""
        if not self._is_cancelled:
            await self._recorder.record(BatchCancelDecided(self._number, self._clock.now()))
            self._is_cancelled = True
        reason = self._switch.reason
        if reason not in (Reason.CANCEL, Reason.ABANDON):
            which = "timeouts.job" if reason is Reason.JOB_TIMEOUT else "timeouts.run"
            self._why = f"{which} passed, and its RunPod batch was cancelled"
        scope = asyncio.timeout(CANCEL_S if reason is Reason.CANCEL else None)
        with suppress(TimeoutError, Gone):  # the looks that follow say how it is
            async with scope:
                await answered(self._endpoint, self._clock, self._ask_to_cancel)
        self._reading.hurry()
        return asyncio.timeout_at(scope.when())

    async def _ask_to_cancel(self) -> None:
        try:
            await self._api.cancel(self._id)
        except Refused as error:
            if isinstance(error, NotFound) or error.status in (401, 402, 403):
                raise
            # It is over already: the looks that follow say how.

    # Settling

    async def _settle_all(self, children: Sequence[Child]) -> None:
        counts = self._reading.counts
        is_over = self._is_cancelled or (counts is not None and counts.is_broken_off)
        found: list[tuple[Sent, Child]] = []
        for child in children:
            if child.job.status == "CANCELLED" and not is_over:
                continue  # whether its batch failed or was cancelled is not known yet
            one = self.whose.take(child)
            if one is not None:
                found.append((one, child))
        async with asyncio.TaskGroup() as group:
            for one, child in found:
                group.create_task(self._settle(one, child), name=f"settle-{one.key}")
        await self._settling.room()
        self._tell()

    async def _settle(self, one: Sent, child: Child) -> None:
        job = child.job
        if child.started_at is not None and job.delay_time_ms is None:
            job = replace(job, delay_time_ms=max(0, round((child.started_at - self._finalized_at) * 1000)))
        await self._end(one, self._ending(job), job.job_id)

    def _ending(self, job: RemoteJob) -> Ending:
        if job.status == "CANCELLED":
            return self._unrun(job.status)
        return named(job, execution_timeout_s=self._terms.execution_timeout_s)

    def _unrun(self, status: str | None) -> Ending:
        """The ending of a request that was dropped before it ran: it was not executed, and cost nothing."""
        counts = self._reading.counts
        if self._why is not None:
            ending = ours(Outcome.TIMED_OUT, self._why)
        elif self._is_cancelled:
            ending = ours(Outcome.CANCELLED, "cancelled by us")
        elif counts is not None and counts.status == FAILED:
            ending = ours(Outcome.CRASHED, "its RunPod batch failed before it ran; it was not executed")
        else:
            ending = ours(Outcome.CANCELLED, "its RunPod batch was cancelled, not by us; it was not executed")
        return replace(ending, status=status)

    async def _settle_rest(self, *, is_gone: bool) -> None:
        """What is left when no more results will come."""
        counts = self._reading.counts
        is_broken_off = counts is not None and counts.is_broken_off
        for rest in self.whose.rest():
            request_id = rest.sent.request_id
            if is_gone:
                ending = ours(Outcome.LOST, f"RunPod no longer knows batch {self._id}, or its results")
            elif rest.job is not None:
                ending = _alike(self._ending(rest.job), rest)
                request_id = request_id or (None if rest.why else rest.job.job_id)
            elif rest.is_failed:
                ending = ours(Outcome.FAILED, rest.why)
            elif is_broken_off and rest.is_silent:
                ending = self._unrun(None)
            else:
                ending = ours(Outcome.LOST, rest.why)
            await self._end(rest.sent, ending, request_id)

    async def _end(self, one: Sent, ending: Ending, request_id: str | None) -> None:
        if request_id is not None and one.request_id != request_id:
            self._recorder.tell(Accepted(one.key, one.attempt, request_id, one.submitted_at))
        work = replace(work_of(one, self._ledger), job_id=request_id)
        again, wait_s = await self._settling.ended(work, ending, was_sent=True)
        self._intake.give_back(again, wait_s)


def work_of(one: Sent, ledger: Ledger) -> Work:
    """The run of *one* on its way, what it was given read from the *ledger*."""
    known = ledger.known(one.key)
    assert known is not None, "what is in a draft has a row"
    return Work(
        known.run,
        attempts=one.attempt,
        failures=one.failures,
        job_id=one.request_id,
        submitted_at=one.submitted_at,
        first_at=one.first_at,
    )


def _alike(ending: Ending, rest: Rest) -> Ending:
    """*ending*, whose times and worker may be those of another one of several that ended alike."""
    if not rest.why or ending.error is None or rest.job is None or rest.job.error is None:
        return ending
    error = ending.error | {"message": f"{ending.error['message']} ({rest.why})"}
    return replace(ending, error=error, execution_time_ms=None, delay_time_ms=None, worker_id=None)
