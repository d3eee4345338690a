"""A live endpoint: every call to it waits for its turn, and teaches us whether the endpoint takes our jobs."""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runner.answers import EndpointHealth
from runner.clock import Clock
from runner.course import Course
from runner.crew import FEWEST, Crew
from runner.errors import (
    EndpointRefused,
    Forbidden,
    NotFound,
    Paused,
    PaymentRequired,
    RateLimited,
    RunPodError,
    Unauthorized,
    Unreachable,
)
from runner.events import Destination
from runner.hazard import Times
from runner.looks import Known, Price
from runner.oldest import Oldest
from runner.pace import BUCKETS, IN_A_ROW, Pace, Turn
from runner.runpod import RunPod
from runner.shards import WHOLE, Shard
from runner.slots import Slots
from runner.width import Width

T = TypeVar("T")

log = logging.getLogger(__name__)

CAPS = {"run": 190, "runsync": 380, "status": 380, "cancel": 19, "purge": 1, "health": 10, "batch": 19}
"""Calls under way at once, by bucket: 95 % of RunPod's table. Source: RunPod docs, "Rate limits" (read August 2026)."""

HELD = 300
"""Requests that may be held open at once; the rest of the cap stays free for plain looks."""

OUTRUN_S = 0.25
"""An end that is seen so much later than it came could have been seen earlier."""

PATIENCE_S = 120.0
"""How long an endpoint that was never reached is tried before it is refused."""


class LiveEndpoint:
    """
    One endpoint while a batch runs.

    Attributes:
        slots: Taken by each run in flight, whichever job it is of; as many as its `width` says now.
        oldest: The jobs in flight that are worth a look.
        price: What a look costs.
        held: Taken by each status-sync that the server holds open.
        can_hold: False for good once the server turned out not to know status-sync.
        has_held: True for good once it answered one: from then on a 404 to it is about the job.
        opened: Set while jobs may be submitted; cleared while the endpoint has not yet what the job file requires.
        seen: Set once its health was asked for; until then nothing is submitted, and few jobs at once are looked at.
        refusal: Why nothing more may be submitted; None while it may.
        is_paused: Whether the last submit met a 409. `/health` need not tell.
        course: What the looks at its health came to.
    """

    def __init__(
        self,
        destination: Destination,
        client: RunPod,
        pace: Pace,
        clock: Clock,
        *,
        concurrency: int | None,
        shard: Shard = WHOLE,
    ) -> None:
        """
        *concurrency* is the most runs in flight, None for as many as keep the workers busy: of all shards, of which
        this one is *shard*.
        """
        self.destination = destination
        self.client = client
        looks = pace.rates["status"]
        self.width = Width(concurrency, looks_per_s=looks.count / looks.period_s, shard=shard)
        self.slots = Slots(self.width.most)
        self.oldest = Oldest()
        self.price = Price()
        self.held = asyncio.Semaphore(max(1, shard.count(HELD)))
        self.can_hold = True
        self.has_held = False
        self.opened = asyncio.Event()
        self.opened.set()
        self.seen = asyncio.Event()
        self.seen.set()
        self.refusal: EndpointRefused | None = None
        self.is_paused = False
        self.course = Course()
        self._pace = pace
        self._clock = clock
        self._caps = {bucket: Slots(max(1, shard.count(count))) for bucket, count in CAPS.items()}
        self._turns = {bucket: asyncio.Lock() for bucket in CAPS}
        self._reached = False
        self._first_tried_at: float | None = None
        self._failed: Counter[str] = Counter()
        self._checking = asyncio.Lock()
        self._known_at = -math.inf
        self._crew = Crew()
        self._executions = Times()
        self._known: dict[str, Known] = {}
        self._priced_at = clock.monotonic()
        self._looks_wanted = 0

    def to_be_looked_at(self) -> None:
        """Its health is about to be asked for, for the first time."""
        self.seen.clear()
        self._fit()

    def looked_at(self) -> None:
        """Its health was asked for, whatever came of it."""
        self.seen.set()
        self._fit()

    @property
    def is_open(self) -> bool:
        """Whether jobs may be submitted."""
        return self.seen.is_set() and self.opened.is_set()

    async def until_open(self) -> None:
        """Wait until jobs may be submitted."""
        while not self.is_open:
            await self.seen.wait()
            await self.opened.wait()

    def turn_now(self, operation: str) -> Turn | None:
        """A turn for *operation* that is to be given to `call` at once; None where there is something to wait for."""
        bucket, now = BUCKETS[operation], self._clock.monotonic()
        if self._is_turn(operation, bucket, now) and self._caps[bucket].take_now():
            return self._pace.spend(operation, now)
        return None

    async def call(self, operation: str, send: Callable[[], Awaitable[T]], turn: Turn | None = None) -> T:
        """
        Call *send* when *operation* may go: at once where there is a *turn*, which is from `turn_now`.

        Raises:
            EndpointRefused: this endpoint will not do it, now or later: 401, 402, a confirmed 403, or never reached.
            RunPodError: as `RunPod`'s method raises it. After a RateLimited the caller waits (`again_s`); what all
                calls have to wait for is waited for here, by the next one.
        """
        bucket = BUCKETS[operation]
        self._looks_wanted += bucket == "status"
        cap = self._caps[bucket]
        if turn is None:
            if self.refusal is not None:
                self._check(operation)
            if not cap.take_now():
                await cap.take()
        try:
            if turn is None:
                turn = await self._turn(operation, bucket)
            try:
                if self.refusal is not None:
                    self._check(operation)
                answer = await send()
            except RunPodError as error:
                turn.answered(self._clock.monotonic())
                await self._learn(error, operation, turn)
                raise
            finally:
                turn.answered(self._clock.monotonic())
        finally:
            cap.release()
        self._reached = True
        self._failed[bucket] = 0
        if self.is_paused and operation in ("run", "runsync"):
            self.is_paused = False
        self._pace.taken(operation, turn)
        return answer

    def _check(self, operation: str) -> None:
        if operation in ("run", "runsync") and self.refusal is not None:
            raise self.refusal

    async def check_known(self, *, within_s: float) -> None:
        """
        Make sure that `/health` answers, unless it was asked in the last *within_s* seconds and did: one answer serves
        all who wait for it.

        Raises:
            NotFound: the endpoint itself is unknown.
            RunPodError: nothing can be told now.
        """
        since = self._clock.monotonic() - within_s
        async with self._checking:
            if self._known_at < since:
                asked_at = self._clock.monotonic()
                await self.health()
                self._known_at = asked_at

    async def health(self) -> EndpointHealth:
        """
        Read `/health`, and learn how many workers there are.

        Raises:
            EndpointRefused, RunPodError: as `call` does.
        """
        found = await self.call("health", self.client.health)
        self._crew.saw(found.workers)
        is_saturated = found.jobs.get("inQueue", 0) > 0 and not found.workers.get("idle", 0)
        self.width.saw(self._crew.told, is_saturated=is_saturated)
        self._fit()
        return found

    def _is_turn(self, operation: str, bucket: str, now: float) -> bool:
        return not self._turns[bucket].locked() and self._pace.wait_s(operation, now) <= 0

    async def _turn(self, operation: str, bucket: str) -> Turn:
        now = self._clock.monotonic()
        if self._is_turn(operation, bucket, now):
            return self._pace.spend(operation, now)
        # The lock is first come, first served, and lets one waiter sleep at a time; no await separates look and spend.
        async with self._turns[bucket]:
            while (wait_s := self._pace.wait_s(operation, self._clock.monotonic())) > 0:
                await self._clock.sleep(wait_s)
            return self._pace.spend(operation, self._clock.monotonic())

    # What its jobs teach

    def expect(self, *, ttl_s: float, execution_s: float) -> None:
        """Runs are to come that RunPod forgets after *ttl_s*, and that may take *execution_s*."""
        self.width.expect(ttl_s=ttl_s, execution_s=execution_s)
        self._fit()

    def known(self, job: str) -> Known:
        """What the runs of *job* taught about how long they take here."""
        known = self._known.get(job)
        if known is None:
            known = self._known[job] = Known()
        return known

    def ended(self, job: str, *, ran_s: float | None, queued_s: float | None, waited_s: float | None) -> None:
        """
        Learn from the end of a run of *job*.

        Args:
            job: Its name in the job file.
            ran_s: How long it ran on its worker; None where nobody says.
            queued_s: How long it waited for a worker; None where nobody says.
            waited_s: How long after it was among the oldest it ended, below 0 if before that; None if it was looked at
                at once, whatever its age.
        """
        known = self.known(job)
        if ran_s is not None:
            known.executions.add(ran_s)
            self._executions.add(ran_s)
            self._crew.ended(ran_s, self._clock.monotonic())
            if queued_s is None or queued_s <= max(0.1, 0.1 * ran_s):
                self.width.starved()
        if waited_s is not None:
            known.waits.add(waited_s)
            if waited_s < -OUTRUN_S:
                self._crew.outran()
        self._fit()

    def priced(self) -> float:
        """What a look costs now, in seconds of delay."""
        now, rate = self._clock.monotonic(), self._pace.rates["status"]
        since_s = now - self._priced_at
        if since_s >= rate.period_s / 2:  # it takes a while until a new price shows in what is wanted
            self.price.update(self._looks_wanted / (rate.count * since_s / rate.period_s))
            self._priced_at, self._looks_wanted = now, 0
        return self.price.price_s

    def _fit(self) -> None:
        """Bring the places in flight, and those to be looked at, in step with what is known."""
        limit = self.width.limit(self._clock.monotonic(), workers=self._crew.told, execution_s=self._executions.mean_s)
        if limit != self.slots.limit:
            self.slots.resize(limit)
        self.oldest.resize(self._crew.oldest() if self.seen.is_set() else FEWEST)

    async def _learn(self, error: RunPodError, operation: str, turn: Turn) -> None:
        self._reached = self._reached or error.status is not None
        log.warning("%s", error.message, extra={"endpoint": self.destination.name, "detail": error.detail})
        if self._is_trouble(error, operation, turn):
            self.width.trouble(self._clock.monotonic())
            self._fit()
        match error:
            case Unauthorized():
                raise self.refuse(error, "check the endpoint's 'api_key': RunPod's console lists the valid ones")
            case PaymentRequired():
                raise self.refuse(error, "add credit to the RunPod account, then go on with --resume")
            case Forbidden() if operation != "health":
                await self._confirm(error)
            case Paused() if operation in ("run", "runsync"):
                self.is_paused = True
            case Unreachable():
                self._lose_patience(error)

    def _is_trouble(self, error: RunPodError, operation: str, turn: Turn) -> bool:
        """Whether *error* is about more than one call: RunPod wants less of us, or fails again and again."""
        if isinstance(error, RateLimited):
            now, jitter = self._clock.monotonic(), self._clock.chance()
            return self._pace.refused(operation, turn, now, retry_after_s=error.retry_after_s, jitter=jitter)
        if error.status is None:
            return False
        if error.status < 500:
            self._pace.taken(operation, turn)
            return False
        self._failed[BUCKETS[operation]] += 1
        return self._failed[BUCKETS[operation]] >= IN_A_ROW

    async def _confirm(self, error: Forbidden) -> None:
        """A lone 403 may be a firewall's word about one body; one that `/health` repeats is about the key."""
        try:
            await self.check_known(within_s=0)
        except (Forbidden, NotFound):
            raise self.refuse(error, "check that the endpoint's 'api_key' may use this endpoint") from None
        except RunPodError:
            return

    def _lose_patience(self, error: Unreachable) -> None:
        now = self._clock.monotonic()
        if self._first_tried_at is None:
            self._first_tried_at = now
        if not self._reached and now - self._first_tried_at >= PATIENCE_S:
            raise self.refuse(error, "check the endpoint's 'base_url' and this machine's network")

    def refuse(self, error: RunPodError, fix: str) -> EndpointRefused:
        """Submit nothing more to this endpoint, because of *error*; the exception to raise."""
        name, said = self.destination.name, f" ({error.detail})" if error.detail else ""
        return self.refuse_because(f"endpoint {name!r} refused: {error.message}{said}", fix)

    def refuse_because(self, message: str, fix: str) -> EndpointRefused:
        """Submit nothing more to this endpoint, as *message* says; the exception to raise, which is the first one's."""
        if self.refusal is None:
            self.refusal = EndpointRefused(message, fix=fix)
        return self.refusal
