"""
Own the task group: carry every run of a plan to a settled state under the limits; drain on stop.

A lane takes a run, carries one attempt, and either settles it or hands it back to be tried again later. Nothing here
raises for a run's failure: that is data. What comes out of `dispatch` is a bug, or a folder that can't be written.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from runner.abort import Abort
from runner.attempt import Attempt
from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import EndpointRefused, RecordError, RunnerError
from runner.events import Destination
from runner.feed import Feed
from runner.judge import StopAt, may_widen, stop_reason
from runner.outputs import Outputs
from runner.policy import RetryPolicy
from runner.received import Received
from runner.record import Recorder
from runner.settling import Reuse, Settling
from runner.slots import Slots
from runner.states import Outcome
from runner.stop import Reason, Switch
from runner.tally import JobTally
from runner.units import elapsed, size
from runner.work import Left, Terms, Work, ours

if TYPE_CHECKING:
    from runner.carrier import Carrier  # most jobs have none, and need not wait for its import

log = logging.getLogger(__name__)

SETTLED_AT_ONCE = 200
"""So many runs of a job that was stopped for good are settled together."""

FOLLOWED_AT_ONCE = 10
"""So many jobs of an earlier process begin to be followed before what they ask for is sent."""


class Lanes:
    """One job's lanes: they share its feed, its switch, and its terms."""

    def __init__(
        self,
        *,
        name: str,
        feed: Feed,
        width: int,
        terms: Terms,
        retry: RetryPolicy,
        resubmit: bool,
        stop_at: StopAt,
        timeout_s: float | None,
        endpoint: LiveEndpoint,
        elsewhere: Mapping[Destination, LiveEndpoint],
        recorder: Recorder,
        received: Received,
        outputs: Outputs,
        clock: Clock,
        switch: Switch,
        tally: JobTally,
        reuse: Reuse | None = None,
        abort: Abort | None = None,
    ) -> None:
        """
        Args:
            width: How many runs of this job may be in flight at once.
            resubmit: Whether a submit whose answer was lost is sent again (``on_answer_lost``).
            stop_at: When the job is stopped for good, though what runs goes on (``stop_when``).
            timeout_s: ``timeouts.job``: seconds until the job is stopped for good; None means no limit.
            elsewhere: The endpoints that an earlier process sent jobs to, and that the job file no longer speaks of.
            abort: When the whole batch is stopped for good.
            reuse: Gives the end of a run that an earlier batch has the result of; None for one that has to be sent.

        Attributes:
            settling: What becomes of its runs once it is known how they ended.
            carrier: What carries runs by the Batch API; None where none are.
            is_over: Whether nothing of it will settle any more in this process.
        """
        self.name = name
        self.switch = switch
        self.trouble: RunnerError | None = None
        self.stopped_because: str | None = None
        self._rest_stays = False
        self._feed = feed
        self._width = width
        self._slots = Slots(width)
        self._terms = terms
        self._stop_at = stop_at
        self._abort = abort
        self._may_stop = stop_at.is_any or (abort is not None and abort.is_asked)
        self._timeout_s = timeout_s
        self._endpoint = endpoint
        self._elsewhere = elsewhere
        self._recorder = recorder
        self._received = received
        self._clock = clock
        self._tally = tally
        self.settling = Settling(
            terms=terms,
            retry=retry,
            resubmit=resubmit,
            recorder=recorder,
            outputs=outputs,
            clock=clock,
            switch=switch,
            tally=tally,
            may_stop=self._may_stop,
            reuse=reuse,
        )
        feed.settle_by(self.settling.settle_unsent, skipped_only=reuse is None)
        self.is_over = False
        self.carrier: Carrier | None = None
        self._started = 0
        self._idle = 0

    async def run(self) -> None:
        """Carry the job to its end, or as far as its switch lets it."""
        self.look_at_limits()  # a resume may find them reached
        async with asyncio.TaskGroup() as group:
            timer = group.create_task(self._watch(), name="job-timer")
            disk = group.create_task(self.settling.watch_disk(), name="job-disk")
            known = [] if self.switch.reason is Reason.INTERRUPT else self._feed.known()
            for _ in known:  # here, so that they are there before the first lane of any job takes a place
                for slots in (self._slots, self._endpoint.slots):
                    slots.take_over()
            async with asyncio.TaskGroup() as lanes:
                for number, work in enumerate(known, 1):
                    lanes.create_task(self._follow(work), name=f"follow-{work.run.index}")
                    if number % FOLLOWED_AT_ONCE == 0:
                        await asyncio.sleep(0)
                if self.carrier is not None:
                    lanes.create_task(self.carrier.run(), name="carrier")
                if self.carrier is None or not self.carrier.fills:
                    self._start_lane(lanes)
            timer.cancel()
            disk.cancel()
        if self.carrier is not None:
            self.trouble = self.trouble or self.carrier.trouble
        await self.settling.all_recorded()
        if self.switch.reason is Reason.STOP_WHEN and self._abort is not None and self._tally.pending:
            self.stopped_because = self.stopped_because or self._abort.why
        if self.switch.reason is Reason.ABANDON:
            self.stopped_because = "cancelled by 'runner cancel'"
        if self.switch.reason is not None and self.switch.reason.is_for_good and not self._rest_stays:
            await self._skip_rest()
        self.is_over = True
        self.settling.wake_downstream()

    async def _watch(self) -> None:
        """Wake the lanes when the switch is closed; when ``timeouts.job`` passes, end what is in flight as well."""
        await self._has_begun()
        limit_s = self._timeout_s if self._timeout_s is not None else 1e9
        over_at = self._clock.monotonic() + limit_s
        if await self.switch.closed(within_s=limit_s):
            self._feed.wake()
            await self._clock.sleep(over_at - self._clock.monotonic())
            if self.switch.reason in (Reason.CANCEL, Reason.ABANDON):
                return
            self._rest_stays = self.switch.reason in (Reason.INTERRUPT, Reason.REFUSED)
        else:
            self.stopped_because = f"timeouts.job passed: {elapsed(limit_s)}"
        self.switch.cancel(Reason.JOB_TIMEOUT)
        self._feed.wake()

    async def _has_begun(self) -> None:
        """Wait for the first run, or for the switch: until then ``timeouts.job`` does not count."""
        if self._feed.begun.is_set():
            return
        async with asyncio.TaskGroup() as group:
            begun = group.create_task(self._feed.begun.wait(), name="job-begun")
            closed = group.create_task(self.switch.closed(within_s=1e9), name="job-closed")
            await asyncio.wait((begun, closed), return_when=asyncio.FIRST_COMPLETED)
            begun.cancel()
            closed.cancel()

    async def _follow(self, work: Work) -> None:
        """
        Carry a job that an earlier process submitted to the end of its attempt. It is looked at at once, however many
        there are: its result is kept for so long only, and it is in flight whatever the concurrency is now.
        Its places are taken already.
        """
        try:
            await self._take_up(work)
        finally:
            for slots in (self._slots, self._endpoint.slots):
                slots.release()

    def _start_lane(self, lanes: asyncio.TaskGroup) -> None:
        """One lane waits for something to take up; when it has it, another one is started to wait, up to the width."""
        if self._idle == 0 and self._started < self._width and (not self._started or self.may_widen()):
            lanes.create_task(self._lane(lanes), name=f"lane-{self._started}")
            self._started += 1
            self._idle += 1

    def may_widen(self) -> bool:
        """Whether one more run may be begun beside those in flight, for all that its budget says."""
        return may_widen(self._tally, self._stop_at)

    async def _lane(self, lanes: asyncio.TaskGroup) -> None:
        while await self._is_ready():
            async with self._slots, self._endpoint.slots:
                work = self._feed.take()
                if work is not None:
                    self._idle -= 1
                    self._start_lane(lanes)
                    await self._take_up(work)
                    self._idle += 1

    async def _take_up(self, work: Work) -> None:
        self._tally.in_flight += 1
        try:
            again, wait_s = await self._carry(work)
        except EndpointRefused:
            if self._endpoint.refusal is not None:  # else it is one that only an earlier process sent to
                self.switch.close(Reason.REFUSED)
            again, wait_s = None, 0.0
        finally:
            self._tally.in_flight -= 1
        self.look_at_limits()
        self._feed.give_back(again, wait_s=wait_s)

    async def _is_ready(self) -> bool:
        """Whether there is something to take up. A plan that can't be read on ends the job, not what is in flight."""
        try:
            return await self._feed.ready()
        except RunnerError as error:
            self.trouble = self.trouble or error
            self.switch.close(Reason.INTERRUPT)
            return False

    async def _carry(self, work: Work) -> tuple[Work | None, float]:
        """One attempt at *work*; what to try again, if anything, and after how many seconds."""
        if work.run.problem is not None:
            await self.settling.settle(work, ours(Outcome.INVALID, work.run.problem))
            return None, 0.0
        body = self._terms.body(work.run) if work.job_id is None else b""
        if len(body) > self._terms.most_body_bytes:
            most = f"RunPod's /{self._terms.operation} takes {size(self._terms.most_body_bytes)}"
            told = f"the request body has {size(len(body))}, and {most}"
            await self.settling.settle(work, ours(Outcome.TOO_LARGE, told))
            return None, 0.0
        endpoint = self._endpoint
        if work.destination is not None:
            endpoint = self._elsewhere.get(work.destination, endpoint)
        attempt = Attempt(work, body, self._terms, endpoint, self._recorder, self._received, self._clock, self.switch)
        del body  # the attempt lets go of it once it was sent
        ending = await attempt.make()
        if ending is Left.LEFT:
            return (attempt.work if attempt.work.job_id is None else None), 0.0
        return await self.settling.ended(attempt.work, ending)

    def look_at_limits(self) -> None:
        """Start nothing more once ``stop_when`` says so; what runs is carried to its end."""
        if not self._may_stop or self.switch.is_closed:
            return
        why = stop_reason(self._tally, self._stop_at)
        if why is None and self._abort is not None:
            why = self._abort.look()
        if why is not None:
            log.warning("%s; nothing more is started", why)
            self.stopped_because = why
            self.switch.close(Reason.STOP_WHEN)
            self._feed.wake()

    async def _skip_rest(self) -> None:
        rest, is_all = self._feed.rest(), False
        while not is_all:
            some: list[Work] = []  # they share a commit; one by one each would wait for a disk
            for work in rest:
                if work is not None:
                    some.append(work)
                if work is None or len(some) == SETTLED_AT_ONCE:
                    break
            else:
                is_all = True
            if not some and not is_all:
                await self._feed.more()
            async with asyncio.TaskGroup() as group:
                for work in some:
                    known = replace(work, job_id=work.last_job_id, submitted_at=work.last_submitted_at)
                    group.create_task(self.settling.settle(known, work.last), name=f"skip-{work.run.index}")


async def dispatch(jobs: Iterable[Lanes]) -> None:
    """
    Carry every job to its end, all at the same time.

    Raises:
        RecordError: the batch folder can't be written any more; what is in flight is left to resume.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for number, job in enumerate(jobs):
                group.create_task(job.run(), name=f"job-{number}")
    except BaseExceptionGroup as errors:
        disk, bugs = errors.split(RecordError)
        if disk is None or bugs is not None:
            raise
        # Every lane that was recording says the same, so one of them tells all.
        raise _first(disk) from None


def _first(group: BaseExceptionGroup[RecordError]) -> RecordError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
