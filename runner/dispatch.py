"""
Own the task group: carry every run of a plan to a settled state under the limits; drain on stop.

A lane takes a run, carries one attempt, and either settles it or hands it back to be tried again later. Nothing here
raises for a run's failure: that is data. What comes out of `dispatch` is a bug, or a folder that can't be written.
"""

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import count, islice

from runner.attempt import Attempt
from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import EndpointRefused, RecordError, RunnerError
from runner.events import Destination, Ended, Ending, Settled
from runner.judge import StopAt, stop_reason
from runner.outputs import Outputs
from runner.policy import RetryPolicy, backoff_s
from runner.received import Received
from runner.record import Done, Recorder
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


class Feed:
    """
    What a job's lanes take up, in this order: runs to submit again, retries that are due, the plan.

    *known* says whether a run of the plan was taken up in an earlier process.
    """

    def __init__(
        self, runs: Iterator[Run], first: Iterable[Work], *, known: Callable[[str], bool], switch: Switch, clock: Clock
    ) -> None:
        self._runs = runs
        self._first = deque(first)
        self._known = known
        self._switch = switch
        self._clock = clock
        self._peeked: Run | None = None
        self._later: list[tuple[float, int, Work]] = []
        self._numbers = count()
        self._in_hand = 0
        self._reading = asyncio.Lock()
        self._changed = asyncio.Event()

    def known(self) -> list[Work]:
        """The jobs that RunPod has: they are taken up at once, and given back like any other."""
        known = [work for work in self._first if work.job_id is not None]
        self._first = deque(work for work in self._first if work.job_id is None)
        self._in_hand += len(known)
        return known

    async def ready(self) -> bool:
        """Wait until there is something to `take`; False when there will be nothing more."""
        while not self._is_over():
            if self._first or self._is_due() or await self._peek():
                return True
            if not self._later and not self._in_hand:
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

    def rest(self) -> Iterator[Work]:
        """Everything that was not taken, for a job that was stopped for good."""
        while self._first:
            yield self._first.popleft()
        while self._later:
            yield heapq.heappop(self._later)[2]
        while (run := self._peeked or next(self._runs, None)) is not None:
            self._peeked = None
            if not self._known(run.key):
                yield Work(run)

    def wake(self) -> None:
        """Let the lanes look at the switch again."""
        self._changed.set()

    def _is_over(self) -> bool:
        """Whether nothing more is taken up."""
        return self._switch.is_closed

    def _is_due(self) -> bool:
        return bool(self._later) and self._later[0][0] <= self._clock.monotonic()

    async def _peek(self) -> bool:
        """Whether it is worth another look: at a run of the plan that is not known yet, a due retry, or the end."""
        async with self._reading:  # all lanes at once would keep the loop for as many times the lookups
            passed = 0
            while self._peeked is None and not self._is_due() and not self._is_over():
                run = next(self._runs, None)
                if run is None:
                    return False
                if not self._known(run.key):
                    self._peeked = run
                passed += 1
                if passed % SKIPS_AT_ONCE == 0:
                    await asyncio.sleep(0)
        return True

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
    ) -> None:
        """
        Args:
            width: How many runs of this job may be in flight at once.
            resubmit: Whether a submit whose answer was lost is sent again (``on_answer_lost``).
            stop_at: When the job is stopped for good, though what runs goes on (``stop_when``).
            timeout_s: ``timeouts.job``: seconds until the job is stopped for good; None means no limit.
            elsewhere: The endpoints that an earlier process sent jobs to, and that the job file no longer speaks of.
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
        self._may_stop = stop_at != StopAt()
        self._timeout_s = timeout_s
        self._endpoint = endpoint
        self._elsewhere = elsewhere
        self._recorder = recorder
        self._received = received
        self._outputs = outputs
        self._clock = clock
        self._tally = tally
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
        if self.switch.reason is Reason.ABANDON:
            self.stopped_because = "cancelled by 'runner cancel'"
        if self.switch.reason is not None and self.switch.reason.is_for_good and not self._rest_stays:
            await self._skip_rest()

    async def _watch_disk(self) -> None:
        """Raise when a settled run could not be recorded: no lane waits for it, and the others may follow for hours."""
        await self._unrecorded.wait()
        for one in self._recording:
            if one.done():
                one.result()

    async def _watch(self) -> None:
        """Wake the lanes when the switch is closed; when ``timeouts.job`` passes, end what is in flight as well."""
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
        if self._idle == 0 and self._started < self._width:
            lanes.create_task(self._lane(lanes), name=f"lane-{self._started}")
            self._started += 1
            self._idle += 1

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
        ending = await attempt.make()
        if ending is Left.LEFT:
            return (attempt.work if attempt.work.job_id is None else None), 0.0
        self._tally.ended(ending.execution_time_ms)
        ending = await self._outputs.finish(attempt.work, ending)
        decided = self._decide(attempt.work, ending)
        if not isinstance(decided, Settled):
            return decided
        del ending  # its output may be long, and the line has it: only one of the two waits for the disk
        if self._may_stop:  # whether anything more starts depends on it
            await self._record(decided)
        else:
            self._record_soon(decided)
        return None, 0.0

    def _decide(self, work: Work, ending: Ending) -> Settled | tuple[Work, float]:
        """Settle, or hand back to be tried again, after so many seconds."""
        failures = work.failures + (ending.outcome is not Outcome.ANSWER_LOST)
        wait_s = self._retry.next_wait_s(ending.outcome, failures=failures, jitter=self._clock.chance())
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

    def _record_soon(self, event: Settled) -> None:
        """
        Record *event* while the lane goes on: no worker waits for our disk, and the lane's next intent, which comes
        after it in order, shares its commit. So a lane has one such event at most. It is counted once it is on disk.
        """
        recorded = self._recorder.record_soon(event)
        self._recording.add(recorded)
        ended_as = event.ending.outcome if event.ending else None
        recorded.add_done_callback(partial(self._recorded, event.state, ended_as))

    def _recorded(self, state: State, outcome: Outcome | None, recorded: Done) -> None:
        if recorded.exception() is not None:
            self._unrecorded.set()
            return
        self._recording.discard(recorded)
        self._tally.settle(state, outcome)

    async def _record(self, event: Settled) -> None:
        await self._recorder.record(event)
        self._tally.settle(event.state, event.ending.outcome if event.ending else None)

    def _look_at_limits(self) -> None:
        """Start nothing more once ``stop_when`` says so; what runs is carried to its end."""
        if not self._may_stop or self.switch.is_closed:
            return
        why = stop_reason(self._tally, self._stop_at)
        if why is not None:
            log.warning("%s; nothing more is started", why)
            self.stopped_because = why
            self.switch.close(Reason.STOP_WHEN)
            self._feed.wake()

    async def _skip_rest(self) -> None:
        rest = self._feed.rest()
        while some := list(islice(rest, SETTLED_AT_ONCE)):  # they share a commit; one by one each would wait for a disk
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
