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
from itertools import count, islice

from runner.attempt import Attempt, Left, Terms, Work, ours, settle
from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import EndpointRefused, RecordError, RunnerError
from runner.events import Destination, Ended, Ending
from runner.payload import RUN_BODY_BYTES, payload
from runner.policy import RetryPolicy
from runner.record import Recorder
from runner.runs import Run
from runner.states import Outcome
from runner.stop import Reason, Switch
from runner.tally import JobTally
from runner.units import size
from runner.values import dump

log = logging.getLogger(__name__)

SKIPS_AT_ONCE = 200
"""So many runs that are known already are passed over before others get the loop."""

SETTLED_AT_ONCE = 200
"""So many runs of a job that was stopped for good are settled together."""


class Feed:
    """
    What a job's lanes take up, in this order: runs to follow or to submit again, retries that are due, the plan.

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
        """Whether nothing more is taken up. A job that RunPod has is followed all the same, unless we are to leave."""
        if not self._switch.is_closed:
            return False
        waits = bool(self._first) and self._first[0].job_id is not None
        return not waits or self._switch.reason is Reason.INTERRUPT

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
        feed: Feed,
        width: int,
        terms: Terms,
        retry: RetryPolicy,
        resubmit: bool,
        timeout_s: float | None,
        endpoint: LiveEndpoint,
        elsewhere: Mapping[Destination, LiveEndpoint],
        recorder: Recorder,
        clock: Clock,
        switch: Switch,
        tally: JobTally,
    ) -> None:
        """
        Args:
            width: How many runs of this job may be in flight at once.
            resubmit: Whether a submit whose answer was lost is sent again (``on_answer_lost``).
            timeout_s: ``timeouts.job``: seconds until the job is stopped for good; None means no limit.
            elsewhere: The endpoints that an earlier process sent jobs to, and that the job file no longer speaks of.
        """
        self.switch = switch
        self.trouble: RunnerError | None = None
        self._is_stopped_for_good = False
        self._feed = feed
        self._width = width
        self._terms = terms
        self._retry = retry
        self._resubmit = resubmit
        self._timeout_s = timeout_s
        self._endpoint = endpoint
        self._elsewhere = elsewhere
        self._recorder = recorder
        self._clock = clock
        self._tally = tally

    async def run(self) -> None:
        """Carry the job to its end, or as far as its switch lets it."""
        async with asyncio.TaskGroup() as group:
            timer = group.create_task(self._watch(), name="job-timer")
            lanes = [group.create_task(self._lane(), name=f"lane-{number}") for number in range(self._width)]
            await asyncio.wait(lanes)
            timer.cancel()
        if self._is_stopped_for_good:
            await self._skip_rest()

    async def _watch(self) -> None:
        """Wake the lanes when the switch is closed; when ``timeouts.job`` passes, end what is in flight as well."""
        limit_s = self._timeout_s if self._timeout_s is not None else 1e9
        over_at = self._clock.monotonic() + limit_s
        if await self.switch.closed(within_s=limit_s):
            self._feed.wake()
            await self._clock.sleep(over_at - self._clock.monotonic())
            if self.switch.reason is Reason.CANCEL:
                return
        else:
            self._is_stopped_for_good = True
        self.switch.cancel(Reason.JOB_TIMEOUT)
        self._feed.wake()

    async def _lane(self) -> None:
        while await self._is_ready():
            async with self._endpoint.slots:
                work = self._feed.take()
                if work is None:
                    continue
                self._tally.in_flight += 1
                try:
                    again, wait_s = await self._carry(work)
                except EndpointRefused:
                    if self._endpoint.refusal is not None:  # else it is one that only an earlier process sent to
                        self.switch.close(Reason.REFUSED)
                    again, wait_s = None, 0.0
                finally:
                    self._tally.in_flight -= 1
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
        body = dump(payload(work.run.input, self._terms.policy))
        if len(body) > RUN_BODY_BYTES:
            told = f"the request body has {size(len(body))}, and RunPod's /run takes {size(RUN_BODY_BYTES)}"
            await self._settle(work, ours(Outcome.TOO_LARGE, told))
            return None, 0.0
        endpoint = self._endpoint
        if work.destination is not None:
            endpoint = self._elsewhere.get(work.destination, endpoint)
        attempt = Attempt(work, body, self._terms, endpoint, self._recorder, self._clock, self.switch)
        ending = await attempt.make()
        if ending is Left.LEFT:
            return (attempt.work if attempt.work.job_id is None else None), 0.0
        return await self._decide(attempt.work, ending)

    async def _decide(self, work: Work, ending: Ending) -> tuple[Work | None, float]:
        """Settle, or hand back to be tried again."""
        failures = work.failures + (ending.outcome is not Outcome.ANSWER_LOST)
        wait_s = self._retry.next_wait_s(ending.outcome, failures=failures, jitter=self._clock.chance())
        if ending.outcome is Outcome.ANSWER_LOST and self._resubmit:
            wait_s = self._retry.wait_initial_s
        # After timeouts.run no time is left; a job that is being stopped for good tries nothing again either.
        stopped = self.switch.reason in (Reason.JOB_TIMEOUT, Reason.CANCEL)
        if wait_s is None or stopped or self._is_over(work, wait_s):
            await self._settle(work, ending)
            return None, 0.0
        self._tally.retried += 1
        log.info("%s, tried again in %.1f s", ending.outcome, wait_s, extra=_fields(work, ending))
        self._recorder.tell(Ended(work.run.key, work.attempts, ending, self._clock.now()))
        return Work(work.run, attempts=work.attempts, failures=failures, first_at=work.first_at, last=ending), wait_s

    def _is_over(self, work: Work, wait_s: float) -> bool:
        first_at = work.first_at if work.first_at is not None else self._clock.now()
        return self._clock.now() + wait_s >= first_at + self._terms.run_timeout_s

    async def _settle(self, work: Work, ending: Ending | None) -> None:
        if ending is not None and ending.outcome is not Outcome.COMPLETED:
            log.warning("%s", ending.outcome, extra=_fields(work, ending))
        event = settle(work, ending, now=self._clock.now())
        await self._recorder.record(event)
        self._tally.settle(event.state, ending.outcome if ending else None)

    async def _skip_rest(self) -> None:
        rest = self._feed.rest()
        while some := list(islice(rest, SETTLED_AT_ONCE)):  # they share a commit; one by one each would wait for a disk
            async with asyncio.TaskGroup() as group:
                for work in some:
                    group.create_task(self._settle(work, work.last), name=f"skip-{work.run.index}")


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
