"""
Conduct one batch: open what it needs, hand it down, carry it to its end, and report.

What is opened goes on the exit stack of whoever calls, so that one place closes it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner import batch, recorded, reuse, shards_folder
from runner.artifacts import Artifacts
from runner.assemble import Assembly, terms
from runner.batch import Folder, Lock
from runner.check import JobFile
from runner.clock import Clock
from runner.drift import is_same
from runner.earlier import Earlier
from runner.endpoint import LiveEndpoint
from runner.errors import BatchBusy, EndpointRefused, RecordError, UsageError
from runner.events import Destination
from runner.fetch import open_fetcher
from runner.ledger import Ledger
from runner.live import Live
from runner.log import log_to
from runner.manifest import manifest
from runner.network import Network
from runner.options import Options
from runner.plan import Plan, no_plan
from runner.reconcile import Reconciled
from runner.record import Recorder
from runner.records import record
from runner.resume import check_options, left_drafts, most_urgent_first, past_submits, reopen, unsuccessful
from runner.sample import gate, sampling
from runner.shapes import SHAPES
from runner.shards import Shard
from runner.states import State, Verdict
from runner.store import Store
from runner.tally import Tally, verdict
from runner.values import JsonObject, dump
from runner.work import Work

if TYPE_CHECKING:
    from runner.remote.hold import Hold
    from runner.remote.upload import Upload

WISH_S = 0.5
"""How often a running batch looks whether somebody wishes to cancel it."""

log = logging.getLogger(__name__)


@record(frozen=True)
class Ended:
    """How a batch came to its end, for now. *health* is the object of health.json."""

    folder: Folder
    verdict: Verdict
    health: JsonObject
    refusals: tuple[EndpointRefused, ...]


class Conduct:
    """The parts of one batch, opened in order on *stack*, which its owner closes."""

    def __init__(
        self,
        options: Options,
        job_file: JobFile,
        plan: Plan,
        clock: Clock,
        lock: Lock,
        stack: AsyncExitStack,
        hold: "Hold | None" = None,
        other_shard: tuple[Shard, JsonObject] | None = None,
    ) -> None:
        """
        *hold* is the remote folder that what is written here goes to; None where there is none. *other_shard* is one
        that is there, and its manifest, for a new shard to agree with.
        """
        self._options = options
        self._job_file = job_file
        self._plan = plan
        self._clock = clock
        self._lock = lock
        self._stack = stack
        self._hold = hold
        self._other_shard = other_shard
        self._upload: Upload | None = None
        self._reconciled: Reconciled | None = None  # none where the plan is surely the batch's own
        self._earlier = Earlier((), ())  # none until there is a batch
        self._whole: JsonObject | None = None  # the runs by job that a resumed batch has, where that is so

    async def run(
        self, root: Path, resumed: Folder | None, watch: Callable[[Live], None] | None, *, made: Folder | None = None
    ) -> Ended:
        """
        Carry a new batch in *root*, or the one in *resumed*, to its end. *watch* is given it as it starts.

        *made* is the new batch's folder, where it had to be made before the plan.
        """
        network = Network(
            self._job_file,
            [planned.job.endpoint for planned in self._plan.jobs.values()],
            self._clock,
            local_url=self._options.local_url,
            token_env=self._options.token_env,
        )
        await self._stack.enter_async_context(network)
        # Before anything is written: the masker must know the secrets in them.
        self._terms = {
            name: terms(planned.job, network.masker, paused_s=self._job_file.health.wait_s)
            for name, planned in self._plan.jobs.items()
        }
        folder = self._go_on(resumed) if resumed else self._begin(root, network, made)
        self._lock.runs(folder)
        self._stack.enter_context(log_to(folder.log, network.masker, echo=self._options.echo))
        ledger = self._stack.enter_context(Ledger.open(folder.ledger))
        if self._hold is not None:
            self._upload = await self._hold.upload(folder)
            self._upload.begin(ledger)
        store = Store(ledger, folder.results)
        self._stack.callback(store.close)
        works = self._reopen(store)
        self._sent_to = self._followed(ledger)
        if self._reconciled is not None:
            works = self._reconciled.compare(store, folder, works, network.masker, now=self._clock.now())
        elif self._whole not in (None, ledger.noted("plan")):
            ledger.note(plan=self._whole)  # what was left out while the data were others is in the plan again
        now, monotonic = self._clock.now(), self._clock.monotonic()
        recent = ledger.recent_submits(now - network.longest_window_s)
        endpoints = network.endpoints(past_submits(recent, now=now, monotonic=monotonic))
        tally = Tally(ledger.noted("plan"))
        counts = ledger.counts()
        tally.restore(counts, ledger.spent(), ledger.reused(), ledger.costs())
        for name, planned in self._plan.jobs.items():
            if name in tally.jobs:
                tally.jobs[name].elsewhere = planned.whole - planned.runs
        live = Live(folder, tally, endpoints, resumed=resumed is not None)
        rates = {name: one.cost_per_second for name, one in self._job_file.endpoints.items()}
        live.usd_per_s = {name: rates[planned.job.endpoint] for name, planned in self._plan.jobs.items()}
        live.notes = self._reconciled.notes if self._reconciled else []
        told = folder.read_manifest()
        self._earlier, shapes = reuse.begin(
            folder,
            ledger,
            self._job_file,
            {name: endpoints[planned.job.endpoint].destination for name, planned in self._plan.jobs.items()},
            # Who was killed before anything was begun left no result of a shape that nobody knows.
            is_resumed=any(counts.values()),
            # A batch that was begun with nothing reused stays so.
            is_fresh=self._options.fresh or self._options.cancel or told.get("fresh", False),
        )
        self._stack.callback(self._earlier.close)
        ledger.note(verdict=None, ended_at=None, **{SHAPES: shapes})
        live.hints = [*self._earlier.notes]
        if self._options.repeat is not None:
            from runner import repeat

            live.notes, live.hints = repeat.told(self._options.repeat.read_manifest(), told)
        log.info("batch %s", "goes on" if resumed else "starts", extra={"batch": folder.id, "runs": tally.planned})
        async with Recorder(store, self._upload) as recorder, self._sending(live, recorder):
            if watch is not None:
                watch(live)
            if self._options.cancel:
                live.abandon()
            async with self._wishes(live):
                elsewhere = await self._carry(live, recorder, network, works)
        store.drop_superseded()
        try:
            return await self._end(live, ledger, [*live.endpoints.values(), *elsewhere])
        finally:
            if self._upload is not None:
                await asyncio.to_thread(self._upload.finish, ledger)

    def _begin(self, root: Path, network: Network, made: Folder | None) -> Folder:
        """A new batch's folder with its manifest and an empty ledger; `latest` points to it once they are there."""
        folder = made or batch.create(root, now=self._clock.now())
        started_at = self._clock.now()
        told = manifest(
            folder,
            self._options,
            self._job_file,
            self._plan,
            started_at=started_at,
            destinations=network.destinations,
        )
        told = network.masker.within(told)
        shards_folder.check_agrees(folder, told, self._other_shard)
        batch.write_whole(folder.manifest, dump(told) + b"\n")
        # A ledger that has its name is a whole one: a kill before that leaves a folder that nothing was sent from.
        aside = folder.path / ".ledger.sqlite.tmp"
        with Ledger.create(aside) as ledger:
            ledger.note(started_at=started_at, plan=told["plan"])
            for name, planned in self._plan.jobs.items():
                ledger.plan_rows(name, planned.row_digests())
            ledger.fold()
        try:
            aside.replace(folder.ledger)
            batch.sync_folder(folder.path)
        except OSError as error:
            raise RecordError(
                f"{folder.ledger} can't be written: {error.strerror}",
                fix="see that the disk has room and the folder can be written",
            ) from None
        if self._options.shard is None:
            batch.point_latest(folder)
        return folder

    def _go_on(self, folder: Folder) -> Folder:
        told = folder.read_manifest()
        check_options(told, overrides=self._options.chosen)
        if self._options.cancel:
            # Nothing is gone on with; but a run that was never sent has a line only as its data still say it.
            if is_same(told, self._plan, self._job_file.vars):
                self._whole = told["plan"]
            else:
                self._plan = no_plan(self._job_file, only=self._options.only, limit=self._options.limit)
            return folder
        self._reconciled = Reconciled.of(told, self._options, self._job_file, self._plan)
        self._whole = told["plan"] if self._reconciled is None else None
        return folder

    def _reopen(self, store: Store) -> list[Work]:
        """Bring the folder's files together, and say what an earlier process left open."""
        adopted = store.repair()
        if adopted:
            log.info("adopted results that the ledger did not speak of yet", extra={"lines": adopted})
        if self._options.retry_failed:
            again, lost = unsuccessful(store.ledger, now=self._clock.now())
            log.info("runs that did not succeed are run again", extra={"runs": len(again), "answer_lost": lost})
            store.reopen(again)
            store.ledger.note(stopped={})
        resubmit = {name: job.on_answer_lost == "resubmit" for name, job in self._job_file.jobs.items()}
        store.write(left_drafts(store.ledger.open_drafts(), store.ledger.sent, now=self._clock.now()))
        events, works = reopen(store.ledger.open_runs(), resubmit=resubmit, now=self._clock.now())
        if events:
            store.write(events)
        return works

    @asynccontextmanager
    async def _sending(self, live: Live, recorder: Recorder) -> AsyncIterator[None]:
        """Send what is recorded to the remote folder, if there is one; where it takes nothing more, the batch ends."""
        upload = self._upload
        if upload is None:
            yield
            return

        async def heed() -> None:
            error = await upload.failed()
            live.drain(0.0 if isinstance(error, BatchBusy) else self._options.drain_s)

        upload.tells(recorder.tell)
        live.afar = upload.said
        async with upload:
            task = asyncio.create_task(heed(), name="remote-folder")
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])

    def _followed(self, ledger: Ledger) -> set[Destination]:
        """Where the RunPod batches are that an earlier process left."""
        drafts = ledger.open_drafts()
        lost = {one.job for one in drafts} - self._plan.jobs.keys()
        if lost:
            raise UsageError(
                f"job {min(lost)!r} is not among the jobs of {self._job_file.document.file}, and a RunPod batch of it"
                " is not over",
                fix="put it back, then go on",
            )
        return {one.destination for one in drafts}

    @asynccontextmanager
    async def _wishes(self, live: Live) -> AsyncIterator[None]:
        """Heed ``runner cancel`` while the block runs."""

        async def heed() -> None:
            while not live.folder.wish.exists():
                await self._clock.sleep(WISH_S)
            log.warning("cancelled by 'runner cancel'")
            live.abandon()

        task = asyncio.create_task(heed(), name="wishes")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            live.folder.drop_wish()

    @asynccontextmanager
    async def _gates(self, live: Live, recorder: Recorder) -> AsyncIterator[None]:
        """Hold submits back until each endpoint has what ``health.require`` asks for; following goes on meanwhile."""
        health = self._job_file.health
        if health.require is None or health.require.workers_ready is None:
            yield
            return
        required = health.require.workers_ready

        async def open_when_ready(endpoint: LiveEndpoint) -> None:
            try:
                await gate(
                    endpoint,
                    recorder,
                    self._clock,
                    workers_ready=required,
                    wait_s=health.wait_s,
                    every_s=health.every_s,
                )
            finally:
                endpoint.opened.set()

        for endpoint in live.endpoints.values():
            endpoint.opened.clear()
        tasks = [asyncio.create_task(open_when_ready(one), name="gate") for one in live.endpoints.values()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (failure := task.exception()) is not None:
                raise failure

    async def _carry(
        self, live: Live, recorder: Recorder, network: Network, works: Sequence[Work]
    ) -> Sequence[LiveEndpoint]:
        """Run the lanes; the endpoints that only an earlier process sent to."""
        sent_to = {work.destination for work in works if work.destination} | self._sent_to
        sent_to -= {one.destination for one in live.endpoints.values()}
        before = recorded.endpoints(live.folder.read_manifest()) if sent_to else []
        elsewhere = network.elsewhere(sent_to, before)
        health = self._job_file.health
        every = [*live.endpoints.values(), *elsewhere.values()]
        async with open_fetcher() as fetcher, live.until_over():
            artifacts = Artifacts(live.folder.path, recorder, fetcher)
            artifacts.clear()
            with ExitStack() as stack:
                ledger = stack.enter_context(Ledger.read_only(live.folder.ledger))
                assembly = Assembly(
                    self._job_file,
                    live,
                    recorder,
                    artifacts,
                    self._terms,
                    elsewhere,
                    network.masker,
                    self._clock,
                    stack,
                    self._earlier,
                )
                follows = any(work.job_id is not None for work in works)
                async with sampling(every, recorder, self._clock, every_s=health.every_s, waits=not follows):
                    lanes = [
                        assembly.lanes(
                            self._plan.jobs[name],
                            [work for work in works if work.run.job == name],
                            self._reconciled.same(ledger) if self._reconciled else None,
                        )
                        for name in most_urgent_first(self._plan.jobs, works)
                        if name in live.tally.jobs
                    ]
                    async with self._gates(live, recorder):
                        await live.carry(lanes)
        return tuple(elsewhere.values())

    async def _end(self, live: Live, ledger: Ledger, endpoints: Sequence[LiveEndpoint]) -> Ended:
        from runner import forms, report, reports  # here, for no batch is to wait for them when it starts
        from runner.gates import WHEN_FALSE

        refusals = tuple(one.refusal for one in endpoints if one.refusal is not None)
        ledger.database.shrink()  # a report sorts all runs: in what the record took until now, not beside it
        stopped = any(switch.reason is not None and switch.reason.is_for_good for switch in live.switches.values())
        why = (ledger.noted("stopped") or {}) | live.stopped
        facts = report.told(ledger, live.folder)
        # Not the tally of this process: what was recorded in the moment in which a drain ended is in the ledger only.
        tally = Tally(ledger.noted("plan"))
        tally.restore(ledger.counts())
        came_to = verdict(
            tally,
            interrupted=live.interrupted or bool(live.troubles),
            refused=bool(refusals) or any(isinstance(one, EndpointRefused) for one in live.troubles),
            stopped=stopped or bool(why),
            thresholds_hold=report.thresholds_hold(ledger, facts),
            unwanted=ledger.skipped_because(WHEN_FALSE) if tally.total(State.SKIPPED) else 0,
        )
        ended_at = self._clock.now()
        facts = replace(facts, verdict=came_to, ended_at=ended_at, stopped=why)
        health = report.fold(ledger, facts)
        report.write(live.folder, health)
        await asyncio.to_thread(_draw, ledger, live.folder, health, ended_at)
        await asyncio.to_thread(reports.write, ledger, live.folder, health, self._job_file.outputs.reports)
        if beside := forms.beside(self._job_file.outputs.results):
            await asyncio.to_thread(forms.write, live.folder, beside)
        # Last: a batch that was killed before it has no verdict, so a resume ends it, report and all.
        ledger.note(verdict=came_to, ended_at=ended_at, stopped=why)
        log.info("batch ends", extra={"batch": live.folder.id, "verdict": came_to})
        if live.troubles:
            raise live.troubles[0]
        return Ended(live.folder, came_to, health, refusals)


def _draw(ledger: Ledger, folder: Folder, health: JsonObject, now: float) -> None:
    """Write report.html."""
    from runner.page.document import write  # here, for no batch is to wait for it when it starts

    write(ledger, folder, health, now=now)
