"""Take up the runs of a job, as many as one call of the Batch API carries."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from runner.clock import Clock
from runner.echo import mark, marked
from runner.errors import RunnerError
from runner.events import Ending
from runner.feed import Feed
from runner.runpod_batches import CALL_BYTES
from runner.settling import Settling
from runner.states import Outcome
from runner.stop import Reason, Switch
from runner.tally import JobTally
from runner.units import size
from runner.work import Terms, Work, ours

AT_ONCE = 1_000
"""Requests of one call."""

ROOM_BYTES = 1024 * 1024
"""What is left of the largest body: for what is around the requests, and for those who count otherwise."""

REQUEST_BYTES = CALL_BYTES - 64
"""The largest request: alone in its call."""

IDLE_S = 3.0
"""A draft is finalized when no more rows came for so long."""

GLANCE_S = 0.02
"""What is there at once is there within this."""

Taken = tuple[Work, bytes]
"""A run, and the body that submits it."""


class Intake:
    """
    What is taken up of a job, run by run; whoever takes it gives it back. *key* is the job's ``batch_key``.

    Attributes:
        open: How many runs were taken and not given back.
        trouble: Why the plan can't be read on; None while it can.
    """

    def __init__(
        self,
        feed: Feed,
        settling: Settling,
        terms: Terms,
        *,
        key: str | None,
        clock: Clock,
        switch: Switch,
        tally: JobTally,
        may_widen: Callable[[], bool],
        look_at_limits: Callable[[], None],
    ) -> None:
        self.open = 0
        self.trouble: RunnerError | None = None
        self._feed = feed
        self._settling = settling
        self._terms = terms
        self._key = key
        self._clock = clock
        self._switch = switch
        self._tally = tally
        self._may_widen = may_widen
        self._look_at_limits = look_at_limits
        self._group: asyncio.TaskGroup | None = None
        self._ready: asyncio.Task[bool] | None = None
        self._aside: Taken | None = None

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Waiting for more is a task of *group*: it must not end because nobody waits for it just now."""
        self._group = group

    def hold(self, count: int) -> None:
        """So many runs of an earlier process are under way."""
        self._feed.hold(count)
        self._count(count)

    def give_back(self, work: Work | None = None, wait_s: float = 0.0) -> None:
        """A run is no longer under way; *work* is what is to be tried again, after so many seconds."""
        self._count(-1)
        self._look_at_limits()
        self._feed.give_back(work, wait_s=wait_s)

    def end(self) -> None:
        """Nothing more is taken up."""
        if self._aside is not None:
            self.give_back(self._aside[0])
            self._aside = None

    @property
    def may_take(self) -> bool:
        """Whether one more run may be under way, for all that the job's budget says."""
        return not self._tally.in_flight or self._may_widen()

    async def has_more(self, within_s: float | None = None) -> bool:
        """Wait for something to take up; False when there is nothing, or not within so many seconds."""
        if self._aside is not None:
            return True
        if self._ready is None:
            assert self._group is not None
            self._ready = self._group.create_task(self._is_ready(), name="draft-ready")
        done, _ = await asyncio.wait((self._ready,), timeout=within_s)
        if not done:
            return False
        found, self._ready = self._ready.result(), None
        return found

    async def chunk(self, most: int, most_bytes: int) -> tuple[list[Taken], bool]:
        """
        The next runs, as many as one call takes and are there, and whether they are the last of their draft.

        No more than *most* of them, with bodies of *most_bytes* together; but the first is taken whatever its size.
        """
        chunk: list[Taken] = []
        size_bytes = 0
        call_bytes = min(CALL_BYTES - ROOM_BYTES, most_bytes)
        while len(chunk) < most:
            if not self.may_take or not await self._comes() or self._switch.is_closed:
                return chunk, True
            found, self._aside = self._aside or await self._taken(), None
            if found is None:
                continue
            size_bytes += len(found[1]) + 1
            if size_bytes > call_bytes and (chunk or size_bytes > most_bytes):
                self._aside = found
                return chunk, size_bytes > most_bytes
            chunk.append(found)
        return chunk, False

    async def _comes(self) -> bool:
        """Whether more comes soon. A plan that is read to its end has only what is in flight to wait for."""
        if await self.has_more(GLANCE_S):
            return True
        return not self._feed.is_drained and await self.has_more(IDLE_S)

    async def _is_ready(self) -> bool:
        """Whether there is something to take up. A plan that can't be read on ends the job, not what is in flight."""
        try:
            return await self._feed.ready()
        except RunnerError as error:
            self.trouble = self.trouble or error
            self._switch.close(Reason.INTERRUPT)
            return False

    async def _taken(self) -> Taken | None:
        """The next run and the body that submits it; None when it could not be sent, and was settled."""
        work = self._feed.take()
        if work is None:
            return None
        self._count(1)
        problem, body = self._body(work)
        if problem is None:
            return work.begun(work.first_at or self._clock.now()), body
        await self._settling.settle(work, problem)
        self.give_back()
        return None

    def _body(self, work: Work) -> tuple[Ending | None, bytes]:
        run = work.run
        if run.problem is not None:
            return ours(Outcome.INVALID, run.problem), b""
        if self._key is not None:
            given = marked(run.input, self._key, mark(run.key, work.attempts + 1))
            if given is None:
                why = f"batch_key '{self._key}' needs an input that is a mapping and does not have it"
                return ours(Outcome.INVALID, why), b""
            run = replace(run, input=given)
        body = self._terms.body(run)
        if len(body) <= REQUEST_BYTES:
            return None, body
        told = f"the request has {size(len(body))}, and a call of the Batch API takes {size(REQUEST_BYTES)}"
        return ours(Outcome.TOO_LARGE, told), b""

    def _count(self, change: int) -> None:
        self._tally.in_flight += change
        self.open += change
