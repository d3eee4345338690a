"""
Carry a job's runs by RunPod's Batch API: fill drafts, have them run, and follow the RunPod batches that they become.

Runs come from the same feed as those of lanes, and settle by the same code. What is in flight is known by its key and
its request id only; what it was given is read from the ledger when its result is there.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from runner.clock import Clock
from runner.drafts import Doubt, Draft, Drafts, TooMuch
from runner.endpoint import LiveEndpoint
from runner.errors import EndpointRefused, RunnerError
from runner.harvest import Harvest, work_of
from runner.intake import AT_ONCE, Intake, Taken
from runner.ledger import Ledger, OpenDraft, Sent
from runner.policy import backoff_s
from runner.record import Recorder
from runner.settling import Settling
from runner.states import Outcome
from runner.stop import Over, Reason, Switch
from runner.work import Terms, Work, ours

log = logging.getLogger(__name__)

MOST_ACTIVE = 10
"""Batches of an endpoint that may be active, drafts among them. Source: RunPod docs, "Batch API"."""

MOST_REQUESTS = 5_000
"""Requests of a batch. Source: RunPod docs, "Batch API". Ten such batches are the 50,000 that may be queued."""

STOPPABLE_REQUESTS = 500
"""The same for a job that its failures or its cost may stop: what is finalized is in flight."""

TRIAL_REQUESTS = 10
"""The same while it is not known whether results can be told whose they are."""

DRAFT_BYTES = 128 * 1024 * 1024
"""What a draft may hold: if it is dropped, all of it is read into memory again."""

MOST_DOUBTS = 8
"""So many drafts in a row may be dropped before the job is refused."""

FOR_GOOD = (Reason.CANCEL, Reason.ABANDON, Reason.JOB_TIMEOUT)
"""What runs is cancelled."""


@dataclass(frozen=True, slots=True)
class Manner:
    """
    How a job is run by the Batch API.

    *key* is its ``batch_key``. *most_open* bounds the runs in flight; None does not. *is_stoppable* says that something
    may stop it on the way. *fills* is False where new runs go another way, and only what was finalized is followed.
    """

    key: str | None = None
    most_open: int | None = None
    is_stoppable: bool = False
    fills: bool = True


class Carrier:
    """
    One job's drafts and RunPod batches.

    Attributes:
        fills: Whether new runs are sent by it.
        trouble: Why it can't go on, once `run` is over.
    """

    def __init__(
        self,
        manner: Manner,
        known: Sequence[OpenDraft],
        *,
        drafts: Drafts,
        intake: Intake,
        settling: Settling,
        terms: Terms,
        endpoint: LiveEndpoint,
        endpoint_of: Callable[[OpenDraft], LiveEndpoint],
        recorder: Recorder,
        ledger: Ledger,
        clock: Clock,
        switch: Switch,
        wake: Callable[[], None],
    ) -> None:
        """*known* are what an earlier process left; *wake* lets the feed look at the switch."""
        self.fills = manner.fills
        self.trouble: RunnerError | None = None
        self._manner = manner
        self._known = known
        self._drafts = drafts
        self._intake = intake
        self._settling = settling
        self._terms = terms
        self._endpoint = endpoint
        self._endpoint_of = endpoint_of
        self._recorder = recorder
        self._ledger = ledger
        self._clock = clock
        self._switch = switch
        self._wake = wake
        self._changed = asyncio.Event()
        self._active = 0
        self._has_ids: bool | None = None
        self._echoes = False
        self._doubts = 0
        self._again: dict[str, Work] = {}  # of the draft being filled: how the attempts before it ended

    async def run(self) -> None:
        """Carry the job to its end, or as far as its switch lets it."""
        async with asyncio.TaskGroup() as group:
            self._intake.begin(group)
            for one in self._known:
                sent = self._ledger.sent(one.number)
                self._intake.hold(len(sent))
                self._active += 1
                group.create_task(self._go_on(one, sent), name=f"draft-{one.number}")
            if self.fills:
                group.create_task(self._fill(group), name="drafts")
        self.trouble = self.trouble or self._intake.trouble

    # Filling drafts

    async def _fill(self, group: asyncio.TaskGroup) -> None:
        while await self._has_room(group) and await self._intake.has_more():
            self._active += 1
            filled = await self._tried()
            if filled is None:
                self._active -= 1
                continue
            draft, finalized_at = filled
            told = {"draft": draft.number, "requests": len(draft.sent)}
            log.info("RunPod batch %s finalized", draft.batch_id, extra=told)
            harvest = self._harvest(
                draft.number, draft.batch_id, draft.sent, finalized_at, self._endpoint, key=self._manner.key
            )
            group.create_task(self._follow(harvest, self._endpoint), name=f"batch-{draft.number}")
            del draft, filled
        self._intake.end()

    async def _has_room(self, group: asyncio.TaskGroup) -> bool:
        """Wait until another draft may be begun; False when none may any more."""
        closed = group.create_task(self._switch.closed(within_s=1e9), name="drafts-closed")
        try:
            while not self._switch.is_closed:
                if self._is_room:
                    return True
                self._changed.clear()
                changed = group.create_task(self._changed.wait(), name="drafts-changed")
                await asyncio.wait((closed, changed), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        finally:
            closed.cancel()
        return False

    @property
    def _is_room(self) -> bool:
        most = self._manner.most_open
        if self._is_on_trial and self._active:
            return False
        if self._active >= MOST_ACTIVE or (most is not None and self._intake.open > most // 2):
            return False
        return self._intake.may_take

    @property
    def _is_on_trial(self) -> bool:
        """Whether it is not known yet that results can be told whose they are."""
        return self._manner.key is not None and not (self._has_ids or self._echoes)

    def _most(self) -> int:
        """How many runs the next draft may have."""
        most = STOPPABLE_REQUESTS if self._manner.is_stoppable else MOST_REQUESTS
        if self._is_on_trial:
            most = TRIAL_REQUESTS
        return most if self._manner.most_open is None else min(most, self._manner.most_open - self._intake.open)

    async def _tried(self) -> tuple[Draft, float] | None:
        """A draft with the next runs, finalized, and when it was; None when nothing came of it."""
        try:
            filled = await self._filled()
        except Over:
            return None
        except EndpointRefused as error:
            self._refuse(error)
            return None
        except Doubt as error:
            log.warning("a draft is dropped: %s", error)
            await self._doubted(error)
            return None
        self._doubts = 0
        return filled

    async def _filled(self) -> tuple[Draft, float]:
        """
        The same.

        Raises:
            Over: nothing more may begin, or nothing was there; what was taken up is given back.
            Doubt: the draft was dropped, its runs given back.
            EndpointRefused: so it was, and the endpoint takes no more.
        """
        draft: Draft | None = None
        chunk: list[Taken] = []
        most, is_last = self._most(), False
        self._again = {}
        try:
            async with self._switch.start(1e9):
                await self._endpoint.until_open()
            while not is_last and not self._switch.is_closed:
                room = most if draft is None else most - len(draft.sent)
                spare_bytes = DRAFT_BYTES - (draft.size_bytes if draft else 0)
                chunk, is_last = await self._intake.chunk(min(room, AT_ONCE), spare_bytes)
                if chunk:
                    draft = draft or await self._drafts.begin()
                    await self._append(draft, chunk)
                is_last = is_last or (draft is not None and len(draft.sent) >= most)
            if draft is None or not draft.sent:
                raise Over
            return draft, await self._drafts.finalize(draft)
        except (Over, Doubt, EndpointRefused) as error:
            for work, _ in chunk:
                self._intake.give_back(work)
            if draft is not None:
                await self._end_draft(draft, error)
            raise

    async def _end_draft(self, draft: Draft, error: Exception) -> None:
        """Give up a draft, unless a resume has to ask what became of it."""
        if draft.is_finalizing and isinstance(error, EndpointRefused):
            self._leave(len(draft.sent))
            return
        try:
            await self._drop(draft.number, draft.batch_id, draft.sent)
        except EndpointRefused as refused:
            log.warning("a draft is left to a resume: %s", refused.message, extra={"draft": draft.number})

    async def _append(self, draft: Draft, chunk: list[Taken]) -> None:
        """Append what is in *chunk*, and take out of it what is in the draft, or was settled."""
        most = len(chunk)
        while chunk:
            some = chunk[:most]
            works = [work for work, _ in some]
            try:
                has_ids = await self._drafts.append(draft, works, [body for _, body in some])
            except TooMuch as error:
                if len(some) > 1:
                    log.warning("%s; fewer requests are appended at once", error, extra={"draft": draft.number})
                    most = len(some) // 2
                    continue
                del chunk[0]
                await self._settling.settle(works[0], ours(Outcome.REJECTED, error.why))
                self._intake.give_back()
                continue
            del chunk[: len(some)]
            most *= 2
            self._again |= {work.run.key: work for work in works if work.attempts}
            self._has_ids = has_ids
            if not has_ids and self._manner.key is None:
                raise EndpointRefused(
                    f"endpoint '{self._endpoint.destination.name}' gives no ids for the requests of a batch, so no"
                    " result could be told whose it is; nothing was run",
                    fix="write batch_key: NAME, and let the handler give input[NAME] back as output[NAME];"
                    " or write mode: async",
                )

    async def _drop(self, number: int, batch_id: str, sent: Sequence[Sent]) -> None:
        """Give up a draft: its runs go back, as they were before it."""
        works = [self._again.get(one.key) or self._before(one) for one in sent]
        await self._drafts.drop(number)
        for work in works:
            self._intake.give_back(work)
        await self._drafts.abandon(number, batch_id)

    def _before(self, one: Sent) -> Work:
        return replace(work_of(one, self._ledger), attempts=one.attempt - 1, job_id=None, submitted_at=None)

    async def _doubted(self, error: Doubt) -> None:
        """Wait before another draft is made, or give up."""
        self._doubts += 1
        if self._doubts >= MOST_DOUBTS:
            name = self._endpoint.destination.name
            message = f"endpoint '{name}': {self._doubts} drafts in a row had to be dropped, the last one: {error}"
            self._refuse(EndpointRefused(message, fix="nothing of them was run; write mode: async"))
        elif self._doubts > 1:
            wait_s = backoff_s(self._doubts, initial_s=1.0, most_s=60.0, jitter=self._clock.chance())
            await self._switch.closed(within_s=wait_s)

    def _refuse(self, error: EndpointRefused) -> None:
        """This job is not gone on with; what it has in flight is followed, and others go on."""
        if self._endpoint.refusal is None:  # else it is said by the endpoint
            self.trouble = self.trouble or error
        self._switch.close(Reason.REFUSED)
        self._wake()

    # Following RunPod batches

    async def _go_on(self, one: OpenDraft, sent: list[Sent]) -> None:
        """Bring what an earlier process left to its end."""
        endpoint = self._endpoint_of(one)
        assert one.batch_id is not None, "what has no id is over when a batch is gone on with"
        drafts = self._drafts
        if endpoint is not self._endpoint:
            drafts = drafts.at(endpoint, timeout_s=self._terms.request_timeout_s)
        try:
            if one.dropped_at is not None:
                await drafts.abandon(one.number, one.batch_id)
                return
            finalized_at = one.finalized_at or await self._resolved(one, drafts)
        except Over:
            self._leave(len(sent))  # as it is, for a resume
        except Doubt as error:
            log.warning("a draft is dropped: %s", error)
            await self._drop(one.number, one.batch_id, sent)
        except EndpointRefused as error:
            self._stop_at(error)
            self._leave(len(sent))
        else:
            is_cancelled = one.cancel_at is not None
            harvest = self._harvest(
                one.number,
                one.batch_id,
                sent,
                finalized_at,
                endpoint,
                key=one.key,
                is_cancelled=is_cancelled,
                is_known=True,
                told=self._ledger.told(one.number),
            )
            self._active += 1
            await self._follow(harvest, endpoint)
        finally:
            self._active -= 1
            self._changed.set()

    async def _resolved(self, one: OpenDraft, drafts: Drafts) -> float:
        """When a draft was finalized that an earlier process was about to finalize."""
        try:
            return await drafts.resolve(one)
        except Over:
            if self._switch.reason not in FOR_GOOD:
                raise
            return self._clock.now()  # it is cancelled at once, and followed: so nothing of it can be missed

    def _harvest(
        self,
        number: int,
        batch_id: str,
        sent: list[Sent],
        finalized_at: float,
        endpoint: LiveEndpoint,
        *,
        key: str | None,
        is_cancelled: bool = False,
        is_known: bool = False,
        told: Sequence[str | None] = (),
    ) -> Harvest:
        return Harvest(
            number,
            batch_id,
            sent,
            finalized_at,
            key=key,
            terms=self._terms,
            endpoint=endpoint,
            intake=self._intake,
            settling=self._settling,
            recorder=self._recorder,
            ledger=self._ledger,
            clock=self._clock,
            switch=self._switch,
            is_cancelled=is_cancelled,
            is_known=is_known,
            told=told,
            tell=self._changed.set,
        )

    async def _follow(self, harvest: Harvest, endpoint: LiveEndpoint) -> None:
        try:
            await harvest.bring_in()
        except EndpointRefused as error:
            harvest.leave()
            self._stop_at(error)
        finally:
            self._echoes = self._echoes or harvest.whose.echoes > 0
            self._active -= 1
            self._changed.set()
        if self._is_on_trial and harvest.whose.mute is not None:
            name = self._manner.key
            self._refuse(
                EndpointRefused(
                    f"job '{self._drafts.job}': request {harvest.whose.mute} was completed, and its output does not"
                    f" give '{name}' back, so no result could be told whose it is",
                    fix=f"let the handler give input['{name}'] back as output['{name}']; or write mode: async",
                )
            )

    def _stop_at(self, error: EndpointRefused) -> None:
        log.warning("%s", error.message)
        if self._endpoint.refusal is not None:  # else it is one that only an earlier process sent to
            self._switch.close(Reason.REFUSED)
            self._wake()

    def _leave(self, count: int) -> None:
        """So many runs stay as the ledger has them, for a resume."""
        for _ in range(count):
            self._intake.give_back()
