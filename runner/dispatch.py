"""
Own the task group: carry every run of a plan to a settled state under the limits; drain on stop.

A lane takes a run, carries one attempt, and either settles it or hands it back to be tried again later. Nothing here
raises for a run's failure: that is data. What comes out of `dispatch` is a bug, or a folder that can't be written.
"""

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from runner.abort import Abort
from runner.attempt import Attempt
from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import EndpointRefused, RecordError, RunnerError
from runner.events import Destination, Ended, Ending, Settled
from runner.judge import StopAt, may_widen, stop_reason
from runner.outputs import Outputs
from runner.policy import RetryPolicy, backoff_s
from runner.received import Received
from runner.record import Done, Recorder
from runner.results import LONG_BYTES
from runner.runs import Run
from runner.slots import Slots
from runner.states import Outcome, State
from runner.stop import Reason, Switch
from runner.tally import JobTally
from runner.units import elapsed, size
from runner.work import Left, Terms, Work, ours, settle

log = logging.getLogger(__name__)

SKIPS_AT_ONCE = 200
"""So many runs that are known already are passed over before others get the loop."""

SETTLED_AT_ONCE = 200
"""So many runs of a job that was stopped for good are settled together."""

REUSED_AT_ONCE = 500
"""So many runs that settle without being sent may wait for the disk together."""

_END = object()
"""What comes behind the last run of a plan."""


class Feed:
    """
    What a job's lanes take up, in this order: runs to submit again, retries that are due, the plan.

    *runs* gives None where there is nothing yet, and is asked again after `wake`. *known* says whether a run of the
    plan was taken up in an earlier process. *waits*: the job waits for others before its first run.

    Attributes:
        begun: Set once there was anything to take up, at once where the job waits for no other.
    """

    def __init__(
        self,
        runs: Iterator[Run | None],
        first: Iterable[Work],
        *,
        known: Callable[[str], bool],
        switch: Switch,
        clock: Clock,
        waits: bool = False,
    ) -> None:
        self._runs = runs
        self._is_read = False
        self._first = deque(first)
        self._known = known
        self._switch = switch
        self._clock = clock
        self._settle: Callable[[Run], Awaitable[bool]] | None = None
        self._settles_all = False
        self._peeked: Run | None = None
        self._later: list[tuple[float, int, Work]] = []
        self._numbers = count()
        self._in_hand = 0
        self._reading = asyncio.Lock()
        self._changed = asyncio.Event()
        self.begun = asyncio.Event()
        if self._first or not waits:
            self.begun.set()

    def settle_by(self, settle: Callable[[Run], Awaitable[bool]], *, skipped_only: bool) -> None:
        """
        Let *settle* settle a run of the plan before any lane takes it up; it says whether it did. With *skipped_only*
        it is asked about those only that are not to be run at all.
        """
        self._settle, self._settles_all = settle, not skipped_only

    def known(self) -> list[Work]:
        """The jobs that RunPod has: they are taken up at once, and given back like any other."""
        known = [work for work in self._first if work.job_id is not None]
        self._first = deque(work for work in self._first if work.job_id is None)
        self._in_hand += len(known)
        return known

    async def ready(self) -> bool:
        """Wait until there is something to `take`; False when there will be nothing more."""
        while not self._is_over():
            if self._first or self._is_due() or await self._peek() or self._first:
                return True
            if self._is_read and not self._later and not self._in_hand:
                return False
            await self._change()
        return False

    def take(self) -> Work | None:
        """The next run; None when another lane was quicker."""
        work = self._next()
        self._in_hand += work is not None
        return work

    def _next(self) -> Work | None:
        if self._is_over():
            return None
        if self._first:
            return self._first.popleft()
        if self._is_due():
            return heapq.heappop(self._later)[2]
        run, self._peeked = self._peeked, None
        return None if run is None else Work(run)

    def give_back(self, work: Work | None = None, *, wait_s: float = 0.0) -> None:
        """A lane is done with what it took; *work* is what to try again after *wait_s* seconds."""
        self._in_hand -= 1
        if work is not None:
            heapq.heappush(self._later, (self._clock.monotonic() + wait_s, next(self._numbers), work))
        self._changed.set()

    def rest(self) -> Iterator[Work | None]:
        """Everything that was not taken, for a job that was stopped for good. None: nothing yet, wait for `more`."""
        while self._first or self._later or not self._is_read:
            if self._first:
                yield self._first.popleft()
                continue
            if self._later:
                yield heapq.heappop(self._later)[2]
                continue
            run, self._peeked = self._peeked or self._drawn(), None
            if run is not None and not self._known(run.key):
                yield Work(run)
            elif run is None and not self._is_read:
                yield None

    def give(self, work: Work) -> None:
        """Let *work*, which an earlier process left open, be taken up next."""
        self._first.append(work)
        self._changed.set()

    async def more(self) -> None:
        """Wait until somebody wakes us, who has more runs for `rest`, or no more."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        """Let the lanes look at the switch again, and at what the plan has by now."""
        self._changed.set()

    def _drawn(self) -> Run | None:
        """The next run of the plan; None when there is none yet, and behind the last one."""
        run: Any = next(self._runs, _END)
        if run is _END:
            self._is_read = True
            return None
        if run is not None and not self.begun.is_set():
            self.begun.set()
        found: Run | None = run
        return found

    def _is_over(self) -> bool:
        """Whether nothing more is taken up."""
        return self._switch.is_closed

    def _is_due(self) -> bool:
        return bool(self._later) and self._later[0][0] <= self._clock.monotonic()

    async def _peek(self) -> bool:
        """Whether it is worth another look: at a run of the plan that is not known yet, a due retry, or the switch."""
        async with self._reading:  # all lanes at once would keep the loop for as many times the lookups
            passed = 0
            while self._peeked is None and not self._is_due() and not self._is_over():
                run = self._drawn()
                if run is None:
                    return False
                is_asked = self._settle is not None and (self._settles_all or run.skip is not None)
                if not self._known(run.key) and not (is_asked and await self._is_settled(run)):
                    self._peeked = run
                passed += 1
                if passed % SKIPS_AT_ONCE == 0:
                    await asyncio.sleep(0)
        return True

    async def _is_settled(self, run: Run) -> bool:
        """Whether *run* was settled without being sent."""
        return self._settle is not None and await self._settle(run)

    async def _change(self) -> None:
        """Wait for a lane to give something back, for the next retry to be due, or for the switch."""
        if self._switch.is_closed:  # it may have been closed, and the lanes woken, while the plan was read
            return
        self._changed.clear()
        due_s = self._later[0][0] - self._clock.monotonic() if self._later else None
        try:
            async with asyncio.timeout(due_s):
                await self._changed.wait()
        except TimeoutError:
            return


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
        reuse: Callable[[Run], Awaitable[Settled | None]] | None = None,
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
            downstream: The feeds of the jobs that need this one: they are woken when a run of it has settled.
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
        self._retry = retry
        self._resubmit = resubmit
        self._stop_at = stop_at
        self._abort = abort
        self._may_stop = stop_at.is_any or (abort is not None and abort.is_asked)
        self._timeout_s = timeout_s
        self._endpoint = endpoint
        self._elsewhere = elsewhere
        self._recorder = recorder
        self._received = received
        self._outputs = outputs
        self._clock = clock
        self._tally = tally
        self._reuse = reuse
        feed.settle_by(self._settle_unsent, skipped_only=reuse is None)
        self.downstream: list[Feed] = []
        self.is_over = False
        self._started = 0
        self._idle = 0
        self._recording: set[Done] = set()
        self._unrecorded = asyncio.Event()

    async def run(self) -> None:
        """Carry the job to its end, or as far as its switch lets it."""
        self._look_at_limits()  # a resume may find them reached
        async with asyncio.TaskGroup() as group:
            timer = group.create_task(self._watch(), name="job-timer")
            disk = group.create_task(self._watch_disk(), name="job-disk")
            known = [] if self.switch.reason is Reason.INTERRUPT else self._feed.known()
            for _ in known:  # here, so that they are there before the first lane of any job takes a place
                for slots in (self._slots, self._endpoint.slots):
                    slots.take_over()
            async with asyncio.TaskGroup() as lanes:
                for work in known:
                    lanes.create_task(self._follow(work), name=f"follow-{work.run.index}")
                self._start_lane(lanes)
            timer.cancel()
            disk.cancel()
        while self._recording:
            recorded, _ = await asyncio.wait(self._recording)
            for one in recorded:
                one.result()
        if self.switch.reason is Reason.STOP_WHEN and self._abort is not None and self._tally.pending:
            self.stopped_because = self.stopped_because or self._abort.why
        if self.switch.reason is Reason.ABANDON:
            self.stopped_because = "cancelled by 'runner cancel'"
        if self.switch.reason is not None and self.switch.reason.is_for_good and not self._rest_stays:
            await self._skip_rest()
        self.is_over = True
        self._wake_downstream()

    async def _watch_disk(self) -> None:
        """Raise when a settled run could not be recorded: no lane waits for it, and the others may follow for hours."""
        await self._unrecorded.wait()
        for one in self._recording:
            if one.done():
                one.result()

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

    def _wake_downstream(self) -> None:
        for feed in self.downstream:
            feed.wake()

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
        if self._idle == 0 and self._started < self._width and (not self._started or self._may_widen()):
            lanes.create_task(self._lane(lanes), name=f"lane-{self._started}")
            self._started += 1
            self._idle += 1

    def _may_widen(self) -> bool:
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
        self._look_at_limits()
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
            await self._settle(work, ours(Outcome.INVALID, work.run.problem))
            return None, 0.0
        body = self._terms.body(work.run) if work.job_id is None else b""
        if len(body) > self._terms.most_body_bytes:
            most = f"RunPod's /{self._terms.operation} takes {size(self._terms.most_body_bytes)}"
            told = f"the request body has {size(len(body))}, and {most}"
            await self._settle(work, ours(Outcome.TOO_LARGE, told))
            return None, 0.0
        endpoint = self._endpoint
        if work.destination is not None:
            endpoint = self._elsewhere.get(work.destination, endpoint)
        attempt = Attempt(work, body, self._terms, endpoint, self._recorder, self._received, self._clock, self.switch)
        del body  # the attempt lets go of it once it was sent
        ending = await attempt.make()
        if ending is Left.LEFT:
            return (attempt.work if attempt.work.job_id is None else None), 0.0
        self._tally.ended(ending.execution_time_ms)
        ending = await self._outputs.finish(attempt.work, ending)
        wanted = None
        if self._outputs.decides_retries:
            ending, wanted = self._outputs.wants_another(attempt.work, ending)
        decided = self._decide(attempt.work, ending, wanted)
        if not isinstance(decided, Settled):
            return decided
        del ending  # its output may be long, and the line has it: only one of the two waits for the disk
        if self._may_stop:  # whether anything more starts depends on it
            await self._record(decided)
        else:
            self._record_soon(decided)
        return None, 0.0

    def _decide(self, work: Work, ending: Ending, wanted: bool | None) -> Settled | tuple[Work, float]:
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
        is_attempt = work.job_id is not None or ending.outcome is Outcome.ANSWER_LOST
        # After timeouts.run no time is left; a job that is being stopped for good tries nothing again either.
        reason = self.switch.reason
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

    async def _settle(self, work: Work, ending: Ending | None) -> None:
        await self._record(self._settled(work, ending))

    def _settled(self, work: Work, ending: Ending | None) -> Settled:
        if ending is not None and ending.outcome is not Outcome.COMPLETED:
            log.warning("%s", ending.outcome, extra=_fields(work, ending))
        return settle(work, ending, now=self._clock.now())

    async def _settle_unsent(self, run: Run) -> bool:
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
        while len(self._recording) > REUSED_AT_ONCE:
            done, _ = await asyncio.wait(self._recording, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        return True

    def _record_soon(self, event: Settled) -> Done:
        """
        Record *event* while the lane goes on: no worker waits for our disk, and the lane's next intent, which comes
        after it in order, shares its commit. So a lane has one such event at most, and `_settle_unsent` so many as it
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
        self._wake_downstream()

    async def _record(self, event: Settled) -> None:
        await self._recorder.record(event)
        self._tally.settle(event.state, event.ending.outcome if event.ending else None)
        self._wake_downstream()

    def _look_at_limits(self) -> None:
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
                    group.create_task(self._settle(known, work.last), name=f"skip-{work.run.index}")


def _fields(work: Work, ending: Ending) -> dict[str, object]:
    """What the log says of an attempt, beside its outcome."""
    return {
        "job": work.run.job,
        "run": work.run.key,
        "attempt": work.attempts,
        "job_id": work.job_id,
        "error": ending.error["message"] if ending.error else None,
    }


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
