"""What a job's lanes take up: runs to submit again, retries that are due, the plan."""

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import count
from typing import Any

from runner.clock import Clock
from runner.runs import Run
from runner.stop import Switch
from runner.work import Work

SKIPS_AT_ONCE = 200
"""So many runs that are known already are passed over before others get the loop."""

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

    def hold(self, count: int) -> None:
        """So many runs of an earlier process are under way: they are given back like any other."""
        self._in_hand += count

    @property
    def is_drained(self) -> bool:
        """Whether nothing more comes but what was taken and may be given back."""
        return self._is_read and not (self._first or self._later) and self._peeked is None

    async def ready(self) -> bool:
        """Wait until there is something to `take`; False when there will be nothing more."""
        while not self._switch.is_closed:
            if self._first or (self._later and self._is_due()) or await self._peek() or self._first:
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
        if self._switch.is_closed:
            return None
        if self._first:
            return self._first.popleft()
        if self._later and self._is_due():
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

    def _is_due(self) -> bool:
        return self._later[0][0] <= self._clock.monotonic()

    async def _peek(self) -> bool:
        """Whether it is worth another look: at a run of the plan that is not known yet, a due retry, or the switch."""
        async with self._reading:  # all lanes at once would keep the loop for as many times the lookups
            passed = 0
            while self._peeked is None and not (self._later and self._is_due()) and not self._switch.is_closed:
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
