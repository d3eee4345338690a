"""Wait on one submitted job until its status is final. Cancelling the wait leaves the job alone."""

import asyncio
import math

from runner.answers import RemoteJob
from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import NotFound, RateLimited, RunPodError, TooLarge, Unreadable, Unsupported
from runner.looks import bounded_s, wait_s
from runner.pace import again_s
from runner.policy import DEFAULT_LOOKS, DEFAULT_TTL_S, KEPT_S, Looks, backoff_s
from runner.records import record
from runner.states import Outcome
from runner.units import duration, elapsed

HOLD_MS = 90_000
"""The longest wait that RunPod's own clients ask of status-sync. Source: runpod-sdk 1.1.2 and the Go SDK."""

GRACE_S = 10.0
"""So long after its submit a job may not be visible yet. Source: public clients of the service; not documented."""

UNREADABLE_LOOKS = 3
"""So many answers in a row that can't be read are an outcome."""

UNREADABLE_WAIT_S = 15.0
"""Pause after an answer that can't be read: a proxy's page that passes must not cost a result."""

HELD_LOOK_S = 1.0
"""A status-sync that took so long was held by the server, so it has waited enough; a quicker one wants a pause."""


@record(frozen=True, slots=True)
class Vanished:
    """
    No answer about the job will come any more: what to call that, and why.

    *body* is the answer that nobody could read, if that was it. *is_running* says that the job may well go on.
    """

    outcome: Outcome
    message: str
    body: bytes | None = None
    is_running: bool = False


class Following:
    """
    The looks at one job. *submitted_at* is in seconds since the epoch, also after a restart.

    RunPod knows an unfinished job for *ttl_s* seconds from its submit, and a result for *kept_s* from its end. *job* is
    the name in the job file: its runs teach how long they take. With *at_once* the first look is not waited for.
    """

    def __init__(
        self,
        endpoint: LiveEndpoint,
        job_id: str,
        *,
        submitted_at: float,
        request_timeout_s: float,
        clock: Clock,
        looks: Looks = DEFAULT_LOOKS,
        ttl_s: float = DEFAULT_TTL_S,
        kept_s: float = KEPT_S,
        job: str = "",
        at_once: bool = False,
    ) -> None:
        self.last_status: str | None = None
        self._endpoint = endpoint
        self._job_id = job_id
        self._submitted_at = submitted_at
        self._timeout_s = request_timeout_s
        self._clock = clock
        self._bounds = looks
        self._ttl_s = ttl_s
        self._kept_s = kept_s
        self._seen_at = submitted_at
        # From here on a clock that nobody can set counts: else a step of the calendar would take the grace away.
        self._age_s = max(0.0, clock.now() - submitted_at) - clock.monotonic()
        self._sent_age_s = 0.0
        self._job = job
        self._at_once = at_once
        self._learns_waits = not at_once
        self._in_age_s = math.inf
        self._came_in: asyncio.Future[None] | None = None
        self._unended_age_s = 0.0
        self._ran_s: float | None = None
        self._looks = 0
        self._asked_at = 0.0
        self._is_holding = False
        self._failures = 0
        self._refusals = 0
        self._missing = 0
        self._unreadable = 0

    @property
    def age_s(self) -> float:
        """Seconds since the submit, as far as this process can tell."""
        return self._age_s + self._clock.monotonic()

    async def until_final(self) -> RemoteJob | Vanished:
        """
        Ask until the job's status is final, or nobody knows the job any more. Faults on the way are not outcomes.

        Asked a second time it looks at once, for something has happened to the job.

        Raises:
            EndpointRefused: the endpoint no longer lets us ask; the job is as it was.
        """
        self._in_age_s = math.inf
        self._place = self._endpoint.oldest.enter(self._submitted_at, self._come_in)
        try:
            return await self._until_final()
        finally:
            self._endpoint.oldest.leave(self._place)

    def look_at_once(self) -> None:
        """Something says that the job has ended, or soon will have."""
        self._at_once = True

    async def _until_final(self) -> RemoteJob | Vanished:
        at_once, self._at_once = self._at_once, True
        if not at_once:
            await self._until_due()
        while True:
            try:
                job = await self._look()
            except NotFound:
                if await self._is_lost():
                    return Vanished(Outcome.LOST, f"RunPod no longer knows job {self._job_id} ({self._why_lost()})")
            except TooLarge as error:
                return Vanished(Outcome.TOO_LARGE, error.message)
            except Unreadable as error:
                self._unreadable += 1
                if self._unreadable >= UNREADABLE_LOOKS:
                    return Vanished(Outcome.UNREADABLE, f"{error.message}: {error.detail}", body=error.body)
                await self._clock.sleep(UNREADABLE_WAIT_S)
            except RateLimited:
                self._refusals += 1
                await self._clock.sleep(again_s(self._refusals, self._clock.chance()))
            except RunPodError:
                await self._back_off()
            else:
                self.last_status = job.status
                self._seen_at = self._clock.now()
                self._failures = self._refusals = self._missing = self._unreadable = 0
                if job.is_final:
                    self._learn(job)
                    return job
                self._saw(job)
                await self._pause()

    async def _look(self) -> RemoteJob:
        endpoint = self._endpoint
        self._looks += 1
        self._is_holding = False
        if not self._may_hold():
            return await endpoint.call("status", self._status)
        async with endpoint.held:
            try:
                job = await endpoint.call("status-sync", self._status_sync)
            except Unsupported:
                self._is_holding = False
            except NotFound:
                self._is_holding = False
                if endpoint.has_held:
                    raise
            else:
                endpoint.has_held = True
                return job
        # status-sync is in RunPod's clients and not in its docs, so a 404 may speak of the operation, not of the job.
        job = await endpoint.call("status", self._status)
        endpoint.can_hold = False
        return job

    async def _status(self) -> RemoteJob:
        self._sent_age_s = self.age_s
        return await self._endpoint.client.status(self._job_id, timeout_s=self._timeout_s)

    async def _status_sync(self) -> RemoteJob:
        now = self._clock.monotonic()
        self._asked_at, self._is_holding, self._sent_age_s = now, True, self._age_s + now
        hold_ms = max(1000, min(HOLD_MS, round(self._bounds.most_s * 1000)))
        return await self._endpoint.client.status_sync(self._job_id, wait_ms=hold_ms, timeout_s=self._timeout_s)

    async def _pause(self) -> None:
        """Wait until the next look. What the server held this one for counts, where it held it at all."""
        if not self._is_holding:
            await self._until_due()
            return
        took_s = self._clock.monotonic() - self._asked_at
        if took_s >= HELD_LOOK_S:
            await self._clock.sleep(max(0.0, self._bounds.least_s - took_s))
        else:
            await self._clock.sleep(self._bounds.wait_s(self._looks))

    # When

    async def _until_due(self) -> None:
        """Wait until a look is worth it. One that the server will hold is, as soon as the job may be running."""
        if not self._place.is_in and not await self._until_in():
            return
        if self._may_hold():
            return
        age_s = self.age_s
        due_s = wait_s(
            self._endpoint.known(self._job),
            age_s=age_s,
            in_s=age_s - self._in_age_s,
            ran_s=self._ran_s,
            looks=self._looks,
            price_s=self._endpoint.priced(),
            bounds=self._bounds,
            ttl_s=self._ttl_s,
        )
        await self._clock.sleep(due_s)

    async def _until_in(self) -> bool:
        """Wait until the job is among the oldest; False when it has to be looked at before that."""
        rarely_s = bounded_s(math.inf, age_s=self.age_s, bounds=self._bounds, ttl_s=self._ttl_s)
        self._came_in = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(rarely_s):
                await self._came_in
        except TimeoutError:
            if not self._place.is_in:
                return False
        finally:
            self._came_in = None
        return True

    def _come_in(self) -> None:
        self._in_age_s = self.age_s
        if self._came_in is not None and not self._came_in.done():
            self._came_in.set_result(None)

    def _may_hold(self) -> bool:
        endpoint = self._endpoint
        return endpoint.can_hold and self._place.is_in and not endpoint.held.locked()

    # What looks teach

    def _saw(self, job: RemoteJob) -> None:
        """It goes on: since when it runs, if that is told."""
        self._unended_age_s = self._sent_age_s
        if job.status == "IN_QUEUE":
            self._ran_s = 0.0
        elif job.delay_time_ms is None:
            self._ran_s = None
        else:
            self._ran_s = max(0.0, self._sent_age_s - job.delay_time_ms / 1000)

    def _learn(self, job: RemoteJob) -> None:
        """It ended by itself: how long that took."""
        if job.status not in ("COMPLETED", "FAILED"):
            return
        ran_s = None if job.execution_time_ms is None else job.execution_time_ms / 1000
        queued_s = None if job.delay_time_ms is None else job.delay_time_ms / 1000
        age_s = self.age_s
        ended_age_s = age_s if self._is_holding else (self._unended_age_s + age_s) / 2
        if ran_s is not None and queued_s is not None:
            ended_age_s = min(age_s, max(self._unended_age_s, queued_s + ran_s))
        # Below 0: it ended before anybody thought it worth a look.
        waited_s = ended_age_s - min(age_s, self._in_age_s) if self._learns_waits else None
        self._endpoint.ended(self._job, ran_s=ran_s, queued_s=queued_s, waited_s=waited_s)

    async def _back_off(self) -> None:
        self._failures += 1
        await self._clock.sleep(backoff_s(self._failures, initial_s=0.25, most_s=30.0, jitter=self._clock.chance()))

    def _why_lost(self) -> str:
        """What may have become of the job: RunPod answers 404 whatever it was."""
        now = self._clock.now()
        if now - self._submitted_at >= self._ttl_s:
            return f"its ttl of {duration(self._ttl_s)} is over"
        if now - self._seen_at >= self._kept_s:
            unseen = f"nobody looked at it for {elapsed(now - self._seen_at)}"
            return f"{unseen}, and a result is kept for {duration(self._kept_s)}"
        return "404 twice"

    async def _is_lost(self) -> bool:
        """
        Whether a 404 means it: past the grace, at the second look, while the endpoint itself is known.

        What counts is when a look was sent, for its answer may take long, and what /health says after each of the two:
        an endpoint that is gone for a moment answers 404 for all of its jobs.
        """
        if self._sent_age_s < GRACE_S:
            await self._clock.sleep(1.0)
            return False
        try:
            await self._endpoint.check_known(within_s=self.age_s - self._sent_age_s)
        except NotFound as error:
            raise self._endpoint.refuse(
                error, "the endpoint is unknown to RunPod or to this key; its jobs are kept for --resume"
            ) from None
        except RunPodError:
            await self._back_off()
            return False
        self._missing += 1
        if self._missing < 2:
            await self._clock.sleep(1.0)
            return False
        return True
