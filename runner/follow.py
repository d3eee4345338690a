"""Wait on one submitted job until its status is final. Cancelling the wait leaves the job alone."""

from dataclasses import dataclass

from runner.answers import RemoteJob
from runner.clock import Clock
from runner.endpoint import KNOWN_S, LiveEndpoint
from runner.errors import NotFound, RateLimited, RunPodError, TooLarge, Unreadable, Unsupported
from runner.policy import backoff_s, look_wait_s
from runner.states import Outcome

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


@dataclass(frozen=True, slots=True)
class Vanished:
    """No answer about the job will come any more: what to call that, and why."""

    outcome: Outcome
    message: str


class Following:
    """The looks at one job. *submitted_at* is in seconds since the epoch, also after a restart."""

    def __init__(
        self, endpoint: LiveEndpoint, job_id: str, *, submitted_at: float, request_timeout_s: float, clock: Clock
    ) -> None:
        self.last_status: str | None = None
        self._endpoint = endpoint
        self._job_id = job_id
        self._submitted_at = submitted_at
        self._timeout_s = request_timeout_s
        self._clock = clock
        self._looks = 0
        self._was_held = False
        self._failures = 0
        self._missing = 0
        self._unreadable = 0

    async def until_final(self) -> RemoteJob | Vanished:
        """
        Ask until the job's status is final, or nobody knows the job any more. Faults on the way are not outcomes.

        Raises:
            EndpointRefused: the endpoint no longer lets us ask; the job is as it was.
        """
        while True:
            try:
                job = await self._look()
            except NotFound:
                if await self._is_lost():
                    return Vanished(Outcome.LOST, f"RunPod no longer knows job {self._job_id} (404 twice)")
            except TooLarge as error:
                return Vanished(Outcome.TOO_LARGE, error.message)
            except Unreadable as error:
                self._unreadable += 1
                if self._unreadable >= UNREADABLE_LOOKS:
                    return Vanished(Outcome.UNREADABLE, f"{error.message}: {error.detail}")
                await self._clock.sleep(UNREADABLE_WAIT_S)
            except RateLimited:
                continue  # the endpoint's pace holds the next call back
            except RunPodError:
                await self._back_off()
            else:
                self.last_status = job.status
                self._failures = self._missing = self._unreadable = 0
                if job.is_final:
                    return job
                if not self._was_held:
                    await self._clock.sleep(look_wait_s(self._looks))

    async def _look(self) -> RemoteJob:
        endpoint = self._endpoint
        self._looks += 1
        self._was_held = False
        if not endpoint.can_hold or endpoint.held.locked():
            return await endpoint.call("status", self._status)
        async with endpoint.held:
            try:
                job = await endpoint.call("status-sync", self._status_sync)
            except Unsupported:
                pass
            except NotFound:
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
        return await self._endpoint.client.status(self._job_id, timeout_s=self._timeout_s)

    async def _status_sync(self) -> RemoteJob:
        asked_at = self._clock.monotonic()
        job = await self._endpoint.client.status_sync(self._job_id, wait_ms=HOLD_MS, timeout_s=self._timeout_s)
        self._was_held = self._clock.monotonic() - asked_at >= HELD_LOOK_S
        return job

    async def _back_off(self) -> None:
        self._failures += 1
        await self._clock.sleep(backoff_s(self._failures, initial_s=0.5, most_s=30.0, jitter=self._clock.chance()))

    async def _is_lost(self) -> bool:
        """Whether a 404 means it: past the grace, at the second look, while the endpoint itself is known."""
        self._missing += 1
        if self._missing < 2 or self._clock.now() - self._submitted_at < GRACE_S:
            await self._clock.sleep(1.0)
            return False
        try:
            await self._endpoint.check_known(within_s=KNOWN_S)
        except NotFound as error:
            raise self._endpoint.refuse(
                error, "the endpoint is unknown to RunPod or to this key; its jobs are kept for --resume"
            ) from None
        except RunPodError:
            await self._back_off()
            return False
        return True
