"""
Make drafts of RunPod's Batch API, and have them run, so that nothing is paid for twice.

A draft that was not finalized costs nothing. So whatever is in doubt about one ends in `drop`, and in another draft;
what is in doubt about finalizing it is asked.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from runner.batch_answers import DRAFT
from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import (
    AnswerLost,
    EndpointRefused,
    Forbidden,
    NotFound,
    NotSent,
    Paused,
    RateLimited,
    Refused,
    RunPodError,
    Unsupported,
)
from runner.events import (
    Appended,
    DraftDropped,
    Drafted,
    DraftMade,
    DraftOver,
    Enrolled,
    Finalized,
    Finalizing,
)
from runner.ledger import OpenDraft, Sent
from runner.pace import again_s
from runner.pages import Gone, answered
from runner.policy import backoff_s
from runner.record import Recorder
from runner.runpod_batches import RunPodBatches
from runner.stop import Over, Switch
from runner.submission import PAUSED_WAIT_S, said
from runner.work import Work

T = TypeVar("T")

log = logging.getLogger(__name__)

FULL_WAIT_S = 60.0
"""The longest pause while RunPod takes no more: 10 batches are active, or 50,000 requests queued, whosever."""

REFUSED_FINALIZES = 5
"""So many times RunPod may refuse to finalize a draft that stays one."""


class Doubt(Exception):
    """Raised when a draft is not surely what it should be: it is dropped, and another one made."""


class TooMuch(Exception):
    """Raised when RunPod refused requests that were to be appended; the draft is as it was. *why* is what it said."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(slots=True)
class Draft:
    """A draft that this process makes: *sent* are the runs in it, *size_bytes* what was appended."""

    number: int
    batch_id: str
    sent: list[Sent] = field(default_factory=list)
    size_bytes: int = 0
    is_finalizing: bool = False


class Drafts:
    """
    What makes the drafts of one job. *label* begins their display names, *next_number* numbers those of the batch.
    """

    def __init__(
        self,
        job: str,
        *,
        label: str,
        next_number: Callable[[], int],
        api: RunPodBatches,
        endpoint: LiveEndpoint,
        recorder: Recorder,
        clock: Clock,
        switch: Switch,
        paused_s: float,
        key: str | None = None,
    ) -> None:
        self.job = job
        self._label = label
        self._next_number = next_number
        self._api = api
        self._endpoint = endpoint
        self._recorder = recorder
        self._clock = clock
        self._switch = switch
        self._paused_s = paused_s
        self._key = key

    def at(self, endpoint: LiveEndpoint, *, timeout_s: float) -> "Drafts":
        """The same for drafts that an earlier process made at *endpoint*."""
        return Drafts(
            self.job,
            label=self._label,
            next_number=self._next_number,
            api=RunPodBatches(endpoint.client, timeout_s=timeout_s),
            endpoint=endpoint,
            recorder=self._recorder,
            clock=self._clock,
            switch=self._switch,
            paused_s=self._paused_s,
        )

    async def begin(self) -> Draft:
        """
        Make an empty draft.

        Raises:
            Over: the switch was closed before there was one.
            EndpointRefused: the endpoint takes none, or knows no Batch API.
        """
        number = self._next_number()
        drafted = Drafted(number, self.job, self._endpoint.destination, self._clock.now(), self._key)
        await self._recorder.record(drafted)
        try:
            batch_id = await self._created()
        except BaseException:
            self._recorder.tell(DraftDropped(number, self._clock.now()))
            self._recorder.tell(DraftOver(number, self._clock.now()))
            raise
        await self._recorder.record(DraftMade(number, batch_id))
        draft = Draft(number, batch_id)
        try:
            await self._endpoint.call("batch", lambda: self._api.name(batch_id, f"{self._label}/{number}"))
        except EndpointRefused:
            raise
        except RunPodError as error:  # it is for people, and nothing rests on it
            log.info("a draft has no display name: %s", said(error), extra={"draft": number})
        return draft

    async def _created(self) -> str:
        unknown = 0
        while True:
            try:
                return await self._patiently(self._api.create)
            except AnswerLost as error:
                log.warning("%s; there may be an empty draft more, which costs nothing", said(error))
                await self._switch.closed(within_s=1.0)
            except (NotFound, Unsupported) as error:
                await self._is_known()
                raise EndpointRefused(
                    f"endpoint '{self._endpoint.destination.name}' knows no Batch API: {said(error)}",
                    fix="write mode: async",
                ) from None
            except Refused as error:
                # Of a key that may not use the endpoint `/health` says the same; as long as that says nothing, nobody
                # knows whether it is this, and not the Batch API, that is forbidden.
                if isinstance(error, Forbidden) and not await self._is_known():
                    unknown += 1
                    wait_s = backoff_s(unknown, initial_s=1.0, most_s=30.0, jitter=self._clock.chance())
                    await self._switch.closed(within_s=wait_s)
                    continue
                raise EndpointRefused(f"no batch can be made: {said(error)}", fix="write mode: async") from None

    async def _is_known(self) -> bool:
        """
        Whether `/health` answers; False where it can't be told now.

        Raises:
            EndpointRefused: the endpoint is unknown, or not for this key.
        """
        try:
            await self._endpoint.check_known(within_s=0)
        except NotFound as error:
            raise self._endpoint.refuse(error, "check the endpoint's 'id', and that the key may see it") from None
        except Forbidden as error:
            raise self._endpoint.refuse(error, "check that the endpoint's 'api_key' may use this endpoint") from None
        except RunPodError:
            return False
        return True

    async def append(self, draft: Draft, works: Sequence[Work], bodies: Sequence[bytes]) -> bool:
        """
        Add the runs of *works*; whether RunPod gave their ids. It is all durable when this returns.

        Raises:
            Doubt: they may be in the draft or not.
            TooMuch: they surely are not, and would not be another time.
            Over, EndpointRefused: as for `begin`.
        """
        try:
            ids = await self._patiently(lambda: self._api.append(draft.batch_id, bodies))
        except Refused as error:
            if isinstance(error, NotFound | Paused) or await self._total(draft) != len(draft.sent):
                raise Doubt(said(error)) from None
            raise TooMuch(said(error)) from None
        except RunPodError as error:
            raise Doubt(said(error)) from None
        if ids and len(ids) != len(works):
            raise Doubt(f"{len(works)} requests were appended, and {len(ids)} ids came back")
        if {one.request_id for one in draft.sent} & set(ids):
            raise Doubt("an id came back that another request has")
        now = self._clock.now()
        given: Sequence[str | None] = ids or [None] * len(works)
        enrolled = [
            Enrolled(one.run, one.attempts + 1, request_id) for one, request_id in zip(works, given, strict=True)
        ]
        await self._recorder.record(Appended(draft.number, self._endpoint.destination, tuple(enrolled), now))
        draft.sent += [
            Sent(work.run.key, one.attempt, one.request_id, work.failures, work.first_at or now, now)
            for work, one in zip(works, enrolled, strict=True)
        ]
        draft.size_bytes += sum(map(len, bodies))
        return bool(ids)

    async def finalize(self, draft: Draft) -> float:
        """
        Have *draft* run; when RunPod had said so, in seconds since the epoch.

        Raises:
            Doubt: it was not finalized, and is not what we made; or RunPod refuses to, and it stays a draft.
            Over: the switch was closed before it was finalized.
            EndpointRefused: the endpoint refused; whether it was finalized is to be asked (`resolve`).
        """
        if (total := await self._total(draft)) not in (None, len(draft.sent)):
            raise Doubt(f"RunPod counts {total} requests in a draft of {len(draft.sent)}")
        if self._switch.is_closed:
            raise Over
        await self._recorder.record(Finalizing(draft.number, self._clock.now()))
        if self._recorder.afar is not None:
            await self._recorder.afar.saved()  # whoever goes on elsewhere must ask about it, not drop it
        draft.is_finalizing = True
        return await self._finalized(draft.number, draft.batch_id, is_stoppable=True)

    async def resolve(self, one: OpenDraft) -> float:
        """
        Bring a draft of an earlier process, that may have been finalized, to where it surely is; when that was.

        Raises:
            Doubt, Over, EndpointRefused: as for `finalize`.
        """
        assert one.batch_id is not None
        status = await self._status(one.batch_id)
        if status == DRAFT:
            if self._switch.is_closed:
                raise Over
            return await self._finalized(one.number, one.batch_id, is_stoppable=True)
        return await self._is_finalized(one.number)

    async def _finalized(self, number: int, batch_id: str, *, is_stoppable: bool) -> float:
        refusals = 0
        while True:
            try:
                await self._patiently(lambda: self._api.finalize(batch_id), is_stoppable=is_stoppable)
            except (AnswerLost, Refused) as error:
                is_stoppable = False  # from here on it may have been finalized
                status = await self._status(batch_id)
                log.warning("%s; the draft is %s", said(error), status, extra={"draft": number})
                if status == DRAFT:
                    refusals += isinstance(error, Refused)
                    if refusals >= REFUSED_FINALIZES:
                        raise Doubt(said(error)) from None
                    await self._clock.sleep(min(10.0, 0.5 * 2**refusals))
                    continue
            return await self._is_finalized(number)

    async def _is_finalized(self, number: int) -> float:
        now = self._clock.now()
        await self._recorder.record(Finalized(number, now))
        return now

    async def drop(self, number: int) -> None:
        """Give up a draft that surely was not finalized: its runs are pending again. `abandon` is to follow."""
        await self._recorder.record(DraftDropped(number, self._clock.now()))

    async def abandon(self, number: int, batch_id: str) -> None:
        """Have RunPod forget a draft that was dropped: it would count among those that are active."""
        with suppress(Gone):
            await answered(self._endpoint, self._clock, lambda: self._cancelled(batch_id))
        self._recorder.tell(DraftOver(number, self._clock.now()))

    async def _cancelled(self, batch_id: str) -> None:
        try:
            await self._api.cancel(batch_id)
        except Refused as error:
            if isinstance(error, NotFound | Unsupported) or error.status in (401, 402, 403, 429):
                raise
            log.info("a draft can't be cancelled: %s", said(error))  # it is over, or will stay as it is

    # Calls

    async def _patiently(self, send: Callable[[], Awaitable[T]], *, is_stoppable: bool = True) -> T:
        """
        What *send* gives, sent again as often as it surely did nothing because RunPod was not reached, or full.

        Raises:
            Over: the switch was closed before it was sent, if it *is_stoppable*.
            AnswerLost: it may have been done.
            Refused: RunPod said no.
        """
        failures = refusals = 0
        paused_since: float | None = None
        while True:
            if is_stoppable and self._switch.is_closed:
                raise Over
            try:
                return await self._endpoint.call("batch", send)
            except EndpointRefused:
                raise
            except Paused as error:
                if "PAUSED" not in error.detail:  # the state of the draft forbids it
                    raise
                now = self._clock.monotonic()
                paused_since = now if paused_since is None else paused_since
                left_s = paused_since + self._paused_s - now
                if left_s <= 0:
                    raise self._endpoint.refuse(error, "set the endpoint's max workers above 0") from None
                wait_s = min(PAUSED_WAIT_S, left_s)
            except RateLimited as error:
                refusals += 1
                wait_s = again_s(refusals, self._clock.chance()) if refusals < 8 else FULL_WAIT_S
                if refusals in (5, 50):
                    log.warning("RunPod takes no more batches or requests for now: %s", said(error))
            except NotSent:
                failures += 1
                wait_s = backoff_s(failures, initial_s=0.5, most_s=30.0, jitter=self._clock.chance())
            await (self._switch.closed(within_s=wait_s) if is_stoppable else self._clock.sleep(wait_s))

    async def _status(self, batch_id: str) -> str:
        """RunPod's word for how a batch stands; that it is gone is one, too."""
        try:
            return (await answered(self._endpoint, self._clock, lambda: self._api.counts(batch_id))).status
        except Gone:
            return "not known any more"

    async def _total(self, draft: Draft) -> int | None:
        """How many requests RunPod counts in *draft*; None where it does not say. It must be a draft."""
        try:
            counts = await answered(self._endpoint, self._clock, lambda: self._api.counts(draft.batch_id))
        except Gone as error:
            raise Doubt("RunPod does not know the draft any more") from error
        if counts.status != DRAFT:
            raise Doubt(f"RunPod says that the draft is {counts.status}")
        return counts.total
