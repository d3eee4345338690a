"""Settle the runs of one job: judge how an attempt ended, try again or give the run its last state, record it once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from runner.clock import Clock
from runner.events import Ended, Ending, Settled
from runner.feed import Feed
from runner.outputs import Outputs
from runner.policy import RetryPolicy, backoff_s
from runner.record import Done, Recorder
from runner.results import LONG_BYTES
from runner.runs import Run
from runner.states import Outcome, State
from runner.stop import Reason, Switch
from runner.tally import JobTally
from runner.work import Terms, Work, settle

log = logging.getLogger(__name__)

REUSED_AT_ONCE = 500
"""So many runs that settle without a lane of their own may wait for the disk together."""

Reuse = Callable[[Run], Awaitable[Settled | None]]
"""Gives the end of a run that an earlier batch has the result of; None for one that has to be sent."""


class Settling:
    """
    What becomes of one job's runs once it is known how they ended, whoever carried them.

    Attributes:
        downstream: The feeds of the jobs that need this one: they are woken when a run of it has settled.
    """

    def __init__(
        self,
        *,
        terms: Terms,
        retry: RetryPolicy,
        resubmit: bool,
        recorder: Recorder,
        outputs: Outputs,
        clock: Clock,
        switch: Switch,
        tally: JobTally,
        may_stop: bool,
        reuse: Reuse | None,
    ) -> None:
        """*may_stop*: whether anything more starts may depend on how a run settles, so that each is waited for."""
        self.downstream: list[Feed] = []
        self._terms = terms
        self._retry = retry
        self._resubmit = resubmit
        self._recorder = recorder
        self._outputs = outputs
        self._clock = clock
        self._switch = switch
        self._tally = tally
        self._may_stop = may_stop
        self._reuse = reuse
        self._recording: set[Done] = set()
        self._unrecorded = asyncio.Event()

    async def watch_disk(self) -> None:
        """Raise when a settled run could not be recorded: no lane waits for it, and the others may follow for hours."""
        await self._unrecorded.wait()
        for one in self._recording:
            if one.done():
                one.result()

    async def all_recorded(self) -> None:
        """Wait until everything that settled is on disk."""
        while self._recording:
            recorded, _ = await asyncio.wait(self._recording)
            for one in recorded:
                one.result()

    def wake_downstream(self) -> None:
        """Let the jobs that need this one look again."""
        for feed in self.downstream:
            feed.wake()

    async def ended(self, work: Work, ending: Ending, *, was_sent: bool = False) -> tuple[Work | None, float]:
        """
        The last attempt of *work* ended so: settle the run, or say what to try again and after how many seconds.

        *was_sent*: it is known to have been submitted, though it has no job id.
        """
        ending = await self._outputs.finish(work, ending)
        self._tally.ended(ending.execution_time_ms, ending.cost_usd)
        wanted = None
        if self._outputs.decides_retries:
            ending, wanted = self._outputs.wants_another(work, ending)
        decided = self._decide(work, ending, wanted, was_sent=was_sent)
        if not isinstance(decided, Settled):
            return decided
        del ending  # its output may be long, and the line has it: only one of the two waits for the disk
        if self._may_stop:  # whether anything more starts depends on it
            await self._record(decided)
        else:
            self._record_soon(decided)
        return None, 0.0

    def _decide(
        self, work: Work, ending: Ending, wanted: bool | None, *, was_sent: bool
    ) -> Settled | tuple[Work, float]:
        """Settle, or hand back to be tried again, after so many seconds; *wanted* is ``retry_when``'s word, if any."""
        failures = work.failures + (ending.outcome is not Outcome.ANSWER_LOST)
        jitter = self._clock.chance()
        wait_s = self._retry.next_wait_s(ending.outcome, failures=failures, jitter=jitter, wanted=wanted)
        if ending.outcome is Outcome.ANSWER_LOST and self._resubmit:
            # Each may be paid for, so a bad hour of RunPod's must not be met with one a second.
            lost, retry = max(1, work.attempts - failures), self._retry
            jitter = self._clock.chance()
            wait_s = backoff_s(lost, initial_s=retry.wait_initial_s, most_s=retry.wait_max_s, jitter=jitter)
        # What never became an attempt can't be tried again, whatever the calendar says of timeouts.run by now.
        is_attempt = was_sent or work.job_id is not None or ending.outcome is Outcome.ANSWER_LOST
        # After timeouts.run no time is left; a job that is being stopped for good tries nothing again either.
        reason = self._switch.reason
        stopped = reason is Reason.CANCEL or (reason is not None and reason.is_for_good)
        if wait_s is None or not is_attempt or stopped or self._is_over(work, wait_s):
            return self._settled(work, ending)
        self._tally.retried += 1
        log.info("%s, tried again in %.1f s", ending.outcome, wait_s, extra=_fields(work, ending))
        self._recorder.tell(Ended(work.run.key, work.attempts, ending, self._clock.now()))
        return work.again(ending, failures=failures), wait_s

    def _is_over(self, work: Work, wait_s: float) -> bool:
        first_at = work.first_at if work.first_at is not None else self._clock.now()
        return self._clock.now() + wait_s >= first_at + self._terms.run_timeout_s

    async def settle(self, work: Work, ending: Ending | None) -> None:
        """Give *work*'s run its last state; *ending* is None for a run that is skipped."""
        await self._record(self._settled(work, ending))

    def _settled(self, work: Work, ending: Ending | None) -> Settled:
        if ending is not None and ending.outcome is not Outcome.COMPLETED:
            log.warning("%s", ending.outcome, extra=_fields(work, ending))
        return settle(work, ending, now=self._clock.now())

    async def settle_unsent(self, run: Run) -> bool:
        """
        Settle *run* by what an earlier batch has of it, or as one that is not to be run at all, so that it takes no
        slot and no call; whether it is such.
        """
        event: Settled | None = None
        if run.skip is not None:
            event = self._settled(Work(run), None)
        elif self._reuse is not None and run.problem is None:
            event = await self._reuse(run)
        if event is None:
            return False
        recorded = self._record_soon(event)
        if len(event.line) > LONG_BYTES:  # one of them waits in memory, not hundreds
            await asyncio.wait([recorded])
        await self.room()
        return True

    async def room(self) -> None:
        """Wait until few enough runs wait for the disk."""
        while len(self._recording) > REUSED_AT_ONCE:
            done, _ = await asyncio.wait(self._recording, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()

    def _record_soon(self, event: Settled) -> Done:
        """
        Record *event* while the lane goes on: no worker waits for our disk, and the lane's next intent, which comes
        after it in order, shares its commit. So a lane has one such event at most, and `settle_unsent` so many as it
        lets wait. It is counted once it is on disk.
        """
        recorded = self._recorder.record_soon(event)
        self._recording.add(recorded)
        ended_as = event.ending.outcome if event.ending else None
        is_reused = event.reused_from is not None
        recorded.add_done_callback(partial(self._recorded, event.state, ended_as, is_reused))
        return recorded

    def _recorded(self, state: State, outcome: Outcome | None, is_reused: bool, recorded: Done) -> None:
        if recorded.exception() is not None:
            self._unrecorded.set()
            return
        self._recording.discard(recorded)
        if is_reused:
            self._tally.reuse()
        else:
            self._tally.settle(state, outcome)
        self.wake_downstream()

    async def _record(self, event: Settled) -> None:
        await self._recorder.record(event)
        self._tally.settle(event.state, event.ending.outcome if event.ending else None)
        self.wake_downstream()


def _fields(work: Work, ending: Ending) -> dict[str, object]:
    """What the log says of an attempt, beside its outcome."""
    return {
        "job": work.run.job,
        "run": work.run.key,
        "attempt": work.attempts,
        "job_id": work.job_id,
        "error": ending.error["message"] if ending.error else None,
    }
