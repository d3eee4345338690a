"""Get a job id for a run, so that nothing is paid for twice unawares: the intent first, the request, the id."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial

from runner.answers import RemoteJob
from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import (
    AnswerLost,
    EndpointRefused,
    NotFound,
    NotSent,
    Paused,
    RecordError,
    RunPodError,
    TooLarge,
    Unreachable,
)
from runner.events import EMBEDDED, Accepted, Ending, Intended, Withdrawn
from runner.pace import again_s
from runner.policy import backoff_s
from runner.record import Afar, Recorder
from runner.states import Outcome
from runner.stop import Over, Switch
from runner.work import Left, Terms, Work, ours

PAUSED_WAIT_S = 15.0
"""Pause between submits to a paused endpoint. Source: public clients of the service; RunPod documents no figure."""

SYNC_WAIT_MS = 10_000
"""How long /runsync is asked to hold: until it answers nobody has the job's id, so it is short."""


_FOREVER_S = 1e9


class Submission:
    """One submit of a run, sent as often as it is surely not accepted. `work` says what it came to."""

    def __init__(
        self,
        work: Work,
        body: bytes,
        terms: Terms,
        endpoint: LiveEndpoint,
        recorder: Recorder,
        clock: Clock,
        switch: Switch,
    ) -> None:
        self.work = work
        self._body = body
        self._terms = terms
        self._endpoint = endpoint
        self._recorder = recorder
        self._clock = clock
        self._switch = switch
        self._number = 0  # of the submit that the ledger holds as intended; 0 is none
        self._failures = 0
        self._refusals = 0
        self._paused_since: float | None = None

    async def make(self) -> RemoteJob | Ending | Left:
        """
        Get the job; an ending when there will be none, or nobody knows. It may be final, in mode sync.

        Raises:
            EndpointRefused: nothing can be submitted to this endpoint now; the run is pending.
            RecordError: the batch folder can't be written.
        """
        if self._switch.is_closed:
            return Left.LEFT
        if not self._endpoint.is_open:
            try:
                async with self._switch.start(_FOREVER_S):
                    await self._endpoint.until_open()
            except Over:
                return Left.LEFT
        if self.work.first_at is None:
            self.work = self.work.begun(self._clock.now())
        while True:
            try:
                job = await self._sent()
            except Over:
                if self._switch.is_closed:
                    return Left.LEFT
                # The line of a run that waited to be tried again names its last job: that one was paid for.
                last = self.work
                self.work = replace(last, job_id=last.last_job_id, submitted_at=last.last_submitted_at)
                return ours(Outcome.TIMED_OUT, "timeouts.run passed before the endpoint accepted the run")
            except AnswerLost as error:
                self.work = replace(self.work, attempts=self._number)
                return ours(Outcome.ANSWER_LOST, f"{said(error)}; the job may exist and be paid for")
            except EndpointRefused:
                self._withdraw()
                raise
            except RunPodError as error:
                if isinstance(error, TooLarge) and (error.status or 0) < 300:  # it ran: its result is what is too large
                    self.work = replace(self.work, attempts=self._number)
                    return ours(Outcome.TOO_LARGE, said(error))
                self._withdraw()
                wait_s = self._next_try_s(error)
                if wait_s is None:
                    return ours(Outcome.TOO_LARGE if isinstance(error, TooLarge) else Outcome.REJECTED, said(error))
            else:
                self._accept(job)
                return job
            await self._switch.closed(within_s=min(wait_s, self._left_s()))

    async def _sent(self) -> RemoteJob:
        """Send the request when its turn comes; Over is raised when the run may not start any more."""
        endpoint, operation = self._endpoint, self._terms.operation
        turn = endpoint.turn_now(operation)
        if turn is not None:  # then there is no wait that a stop would have to end
            return await endpoint.call(operation, self._send, turn)
        async with self._switch.start(self._left_s()) as scope:
            return await endpoint.call(operation, partial(self._send, scope))

    async def _send(self, scope: asyncio.Timeout | None = None) -> RemoteJob:
        """Send the request, its turn having come; the intent is durable before it leaves."""
        if self._switch.is_closed or self._left_s() <= 0:
            raise Over
        if scope is not None:
            # From here on neither a stop nor timeouts.run cuts the request short: its answer would be lost.
            self._switch.started(scope)
        number = self.work.attempts + 1
        intended = Intended(self.work.run, number, self._endpoint.destination, self._clock.now())
        try:
            await self._recorder.record(intended)
        except asyncio.CancelledError:
            with suppress(RecordError):  # then nobody knows what is on the disk, and the resume takes it for sent
                self._recorder.tell(Withdrawn(self.work.run.key, number))
            raise
        if self._recorder.afar is not None and self._endpoint.destination.base_url != EMBEDDED:
            await self._saved_afar(self._recorder.afar, number)
        self._number = number
        client, timeout_s = self._endpoint.client, self._terms.request_timeout_s
        if self._terms.mode == "sync":
            return await client.runsync(self._body, wait_ms=SYNC_WAIT_MS, timeout_s=timeout_s)
        return await client.run(self._body, timeout_s=timeout_s)

    async def _saved_afar(self, afar: Afar, number: int) -> None:
        """
        Wait until the intent is in the remote folder, too: whoever goes on elsewhere must know of it. A stop ends this
        waiting, for nothing was sent.
        """
        try:
            async with self._switch.start(_FOREVER_S):
                await afar.saved()
        except (Over, asyncio.CancelledError):
            with suppress(RecordError):
                self._recorder.tell(Withdrawn(self.work.run.key, number))
            raise

    def _accept(self, job: RemoteJob) -> None:
        now = self._clock.now()
        self._recorder.tell(Accepted(self.work.run.key, self._number, job.job_id, now))
        self.work = self.work.accepted(self._number, job.job_id, now)

    def _withdraw(self) -> None:
        """Take the intent back, if there is one: nothing was accepted, and nothing is under way."""
        if self._number:
            self._recorder.tell(Withdrawn(self.work.run.key, self._number))
            self._number = 0

    def _next_try_s(self, error: RunPodError) -> float | None:
        """
        Seconds to wait before the same request is sent again; None when *error* is the last word on it.

        Raises:
            EndpointRefused: it is the last word on the endpoint.
        """
        match error:
            case Unreachable():
                self._failures += 1
                return backoff_s(self._failures, initial_s=0.5, most_s=30.0, jitter=self._clock.chance())
            case NotSent():  # 429
                self._refusals += 1
                return again_s(self._refusals, self._clock.chance())
            case Paused():
                now = self._clock.monotonic()
                self._paused_since = now if self._paused_since is None else self._paused_since
                left_s = self._paused_since + self._terms.paused_s - now
                if left_s <= 0:
                    raise self._endpoint.refuse(error, "set the endpoint's max workers above 0") from None
                return min(PAUSED_WAIT_S, left_s)
            case NotFound():
                raise self._endpoint.refuse(error, "check the endpoint's 'id', and that the key may see it") from None
        return None

    def _left_s(self) -> float:
        assert self.work.first_at is not None
        return self._terms.left_s(self.work.first_at, self._clock.now())


def said(error: RunPodError) -> str:
    """What *error* says, with what RunPod said."""
    return f"{error.message}: {error.detail}" if error.detail else error.message
