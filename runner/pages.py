"""
Read what came of a RunPod batch, in an order that nobody knows, while requests end and pages shift.

The counts say when there is something to read, and whether there will be more. What is read is known by its id alone,
so a page that shifted costs another reading, never a result.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runner.batch_answers import DRAFT, Child, Counts, Page
from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import EndpointRefused, NotFound, RateLimited, RunPodError, TooLarge, Unreadable
from runner.pace import again_s
from runner.policy import Looks, backoff_s
from runner.runpod_batches import RunPodBatches

T = TypeVar("T")

log = logging.getLogger(__name__)

PAGE = 100
"""So many requests are asked for at once; the sample in RunPod's docs has 50. A page that is too large is halved."""

FIRST_LOOK_S = 1.0
"""The first pause between looks at the counts; then they grow."""

LONGEST_LOOK_S = 60.0
"""The longest: batches take hours."""

PAGE_S = 0.2
"""While a batch runs a page is read at most this often on average: a batch of 5,000 is read every 10 s."""

RARELY_S = 300.0
"""A batch is read this often at least, whatever its counts say."""

MISSING_S = 120.0
"""A result that is on no page, though all have ended, is looked for this long, and at least `MISSING_READS` times."""

MISSING_READS = 5

UNREADABLE_LOOKS = 3
"""So many answers in a row that can't be read are taken for one that is too large."""

GRACE_S = 10.0
"""So long a batch may be unknown before it is taken for gone."""


class Gone(Exception):
    """Raised when RunPod no longer knows a batch."""


async def answered(
    endpoint: LiveEndpoint, clock: Clock, send: Callable[[], Awaitable[T]], *, may_shrink: bool = False
) -> T:
    """
    What *send* gives, which may be sent again without harm, asked as often as it takes. *may_shrink*: less can be asked
    for, where an answer can't be read.

    Raises:
        Gone: RunPod does not know the batch.
        TooLarge, Unreadable: the answer can't be read; the latter three times. Only where it *may_shrink*.
        EndpointRefused: the endpoint no longer lets us ask.
    """
    failures = refusals = unreadable = missing = 0
    while True:
        try:
            return await endpoint.call("batch", send)
        except EndpointRefused:
            raise
        except NotFound:
            missing += 1
            asked_at = clock.monotonic()
            if missing > 1 and await _is_known(endpoint, asked_at, clock):
                raise Gone from None
            await clock.sleep(GRACE_S if missing == 1 else 1.0)
        except (TooLarge, Unreadable) as error:
            unreadable += 1
            if may_shrink and (isinstance(error, TooLarge) or unreadable >= UNREADABLE_LOOKS):
                raise
            await clock.sleep(backoff_s(unreadable, initial_s=1.0, most_s=30.0, jitter=clock.chance()))
        except RateLimited:
            refusals += 1
            await clock.sleep(again_s(refusals, clock.chance()))
        except RunPodError:
            failures += 1
            await clock.sleep(backoff_s(failures, initial_s=0.25, most_s=30.0, jitter=clock.chance()))


async def _is_known(endpoint: LiveEndpoint, asked_at: float, clock: Clock) -> bool:
    """Whether the endpoint itself answers, so that a 404 is about the batch."""
    try:
        await endpoint.check_known(within_s=clock.monotonic() - asked_at)
    except NotFound as error:
        raise endpoint.refuse(
            error, "the endpoint is unknown to RunPod or to this key; its batches are kept for --resume"
        ) from None
    except RunPodError:
        return False
    return True


class Reading:
    """
    One RunPod batch, read until nothing more will come of it. *left* says how many results are still wanted;
    *is_accounted* whether as many came that nobody can say whose they are.

    Attributes:
        counts: How it stood at the last look; None before the first.
    """

    def __init__(
        self,
        batch_id: str,
        api: RunPodBatches,
        endpoint: LiveEndpoint,
        *,
        looks: Looks,
        left: Callable[[], int],
        is_accounted: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self.counts: Counts | None = None
        self._id = batch_id
        self._api = api
        self._endpoint = endpoint
        self._looks = looks
        self._left = left
        self._is_accounted = is_accounted
        self._clock = clock
        self._limit = PAGE
        self._quiet = 0
        self._read_at = -math.inf
        self._read_ended = -1
        self._offset: int | None = None  # of the page to come; None between two readings
        self._shown = self._open = 0
        self._over_since: float | None = None
        self._reads_over = 0
        self._is_first = True
        self._is_over = False

    def hurry(self) -> None:
        """Something happened to it: look again at once."""
        self._is_first, self._quiet, self._read_at = True, 0, -math.inf

    async def more(self) -> list[Child] | None:
        """
        Wait for the next requests that are over, some of which may have been told before; None when no more will come.

        It may be cancelled, and called again: nothing is lost by that.

        Raises:
            Gone: RunPod no longer knows the batch.
            EndpointRefused: the endpoint no longer lets us ask.
        """
        while self._left() and not self._is_over:
            if self._offset is not None:
                return await self._page()
            if not self._is_first:
                await self._clock.sleep(self._wait_s())
            self._is_first = False
            await self._look()
            if self._is_worth_reading():
                self._offset, self._shown, self._open = 0, 0, 0
        return None

    def _wait_s(self) -> float:
        if self._over_since is not None:
            return max(1.0, self._looks.least_s) if self._looks.most_s >= 1.0 else self._looks.most_s
        most_s = min(self._looks.most_s, LONGEST_LOOK_S)
        return float(min(most_s, max(self._looks.least_s, FIRST_LOOK_S * 1.25 ** min(self._quiet, 30))))

    async def _look(self) -> None:
        before = self.counts
        counts = await answered(self._endpoint, self._clock, lambda: self._api.counts(self._id))
        has_moved = before is None or counts.ended != before.ended
        self._quiet = max(0, self._quiet - 2) if has_moved else self._quiet + 1
        if before is None or counts.status != before.status:
            log.info("RunPod batch is %s", counts.status, extra={"batch": self._id, "requests": counts.total})
        self.counts = counts
        if self._is_ended(counts) and self._over_since is None:
            self._over_since = self._clock.monotonic()

    @staticmethod
    def _is_ended(counts: Counts) -> bool:
        """Whether nothing of it goes on, by its counts."""
        return counts.is_done or (counts.is_broken_off and not counts.in_progress)

    def _is_worth_reading(self) -> bool:
        counts = self.counts
        assert counts is not None
        if counts.status == DRAFT:
            return False
        if self._over_since is not None:
            return True
        since_s = self._clock.monotonic() - self._read_at
        if counts.ended == self._read_ended and counts.total is not None:
            return since_s >= RARELY_S
        return since_s >= PAGE_S * (counts.total or PAGE) / PAGE

    async def _page(self) -> list[Child]:
        assert self._offset is not None
        offset, limit = self._offset, self._limit
        try:
            page: Page = await answered(
                self._endpoint,
                self._clock,
                lambda: self._api.page(self._id, offset=offset, limit=limit),
                may_shrink=True,
            )
        except (TooLarge, Unreadable) as error:
            if limit > 1:
                self._limit = max(1, limit // 2)
            else:
                log.warning("a result can't be read: %s", error.message, extra={"batch": self._id, "offset": offset})
                self._offset, self._open = offset + 1, self._open + 1
            return []
        self._shown += page.shown
        self._open += sum(not child.is_final for child in page.children)
        end = offset + page.shown
        has_more = page.shown >= limit if page.has_more is None else page.has_more
        if page.total is not None and end < page.total and page.shown:
            has_more = True
        if has_more and page.shown:
            self._offset = end
        else:
            self._end_reading(page.total)
        return [child for child in page.children if child.is_final]

    def _end_reading(self, total: int | None) -> None:
        """All pages were read, from the first to the last."""
        counts, now = self.counts, self._clock.monotonic()
        assert counts is not None
        self._offset, self._read_at, self._read_ended = None, now, counts.ended
        if not self._is_ended(counts):
            # Whatever is counted: some may be neither completed nor failed.
            are_all = self._shown > 0 and self._shown == (counts.total if total is None else total)
            if self._open or counts.in_progress or not are_all:
                self._over_since, self._reads_over = None, 0
                return
            self._over_since = self._over_since or now
        assert self._over_since is not None
        self._reads_over += 1
        if self._is_accounted():
            self._is_over = True
        elif counts.is_broken_off and counts.total is not None and self._left() <= counts.total - counts.ended:
            self._is_over = True  # what has no result never ran: there is nothing to look for
        elif now - self._over_since >= MISSING_S and self._reads_over >= MISSING_READS:
            self._is_over = True
