"""
Conduct one batch: open what it needs, hand it down, carry it to its end, and report.

What is opened goes on the exit stack of whoever calls, so that one place closes it.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from runner import batch, report
from runner.attempt import Terms, Work
from runner.batch import Folder
from runner.check import JobFile
from runner.clock import Clock
from runner.dispatch import Feed, Lanes
from runner.endpoint import LiveEndpoint
from runner.errors import EndpointRefused
from runner.events import Destination
from runner.ledger import KeyIndex, Ledger
from runner.live import Live
from runner.log import log_to
from runner.manifest import manifest
from runner.network import WIDTH, Network
from runner.options import Options
from runner.payload import wire_policy
from runner.plan import JobPlan, Plan
from runner.policy import DEFAULT_TTL_S, RetryPolicy
from runner.record import Recorder, Store
from runner.resume import check_same, past_submits, reopen
from runner.runs import Run
from runner.sample import sampling
from runner.spec import Job
from runner.states import Verdict
from runner.stop import Reason
from runner.tally import Tally, verdict
from runner.values import JsonObject, dump

GRACE_S = 300.0
"""What ``timeouts.run`` gives beyond RunPod's ttl: after the ttl RunPod itself no longer knows the job."""

PAUSED_S = 300.0
"""How long a paused endpoint is tried before it is refused."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ended:
    """How a batch came to its end, for now. *health* is the object of health.json."""

    folder: Folder
    verdict: Verdict
    health: JsonObject
    refusals: tuple[EndpointRefused, ...]


class Conduct:
    """The parts of one batch, opened in order on *stack*, which its owner closes."""

    def __init__(self, options: Options, job_file: JobFile, plan: Plan, clock: Clock, stack: AsyncExitStack) -> None:
        self._options = options
        self._job_file = job_file
        self._plan = plan
        self._clock = clock
        self._stack = stack

    async def run(self, root: Path, resumed: Folder | None, watch: Callable[[Live], None] | None) -> Ended:
        """Carry a new batch in *root*, or the one in *resumed*, to its end. *watch* is given it as it starts."""
        network = Network(
            self._job_file,
            [planned.job.endpoint for planned in self._plan.jobs.values()],
            self._clock,
            local_url=self._options.local_url,
            token_env=self._options.token_env,
        )
        await self._stack.enter_async_context(network)
        folder = self._go_on(resumed) if resumed else self._begin(root, network)
        self._stack.enter_context(log_to(folder.log, network.masker))
        ledger = self._stack.enter_context(Ledger.open(folder.ledger))
        store = Store(ledger, folder.results)
        self._stack.callback(store.close)
        works = self._reopen(store)
        now, monotonic = self._clock.now(), self._clock.monotonic()
        recent = ledger.recent_submits(now - network.longest_window_s)
        endpoints = network.endpoints(past_submits(recent, now=now, monotonic=monotonic))
        tally = Tally({name: job.runs for name, job in self._plan.jobs.items()})
        tally.restore(ledger.counts())
        live = Live(folder, tally, endpoints, resumed=resumed is not None)
        ledger.note(verdict=None, ended_at=None)
        log.info("batch %s", "goes on" if resumed else "starts", extra={"batch": folder.id, "runs": tally.planned})
        async with Recorder(store) as recorder:
            if watch is not None:
                watch(live)
            elsewhere = await self._carry(live, recorder, network, works)
        return self._end(live, ledger, [*live.endpoints.values(), *elsewhere])

    def _begin(self, root: Path, network: Network) -> Folder:
        """A new batch's folder with its manifest and an empty ledger; `latest` points to it once they are there."""
        folder = batch.create(root, now=self._clock.now())
        started_at = self._clock.now()
        told = manifest(folder, self._options, self._job_file, self._plan, started_at=started_at)
        batch.write_whole(folder.manifest, dump(network.masker.within(told)) + b"\n")
        # A ledger that has its name is a whole one: a kill before that leaves a folder that nothing was sent from.
        aside = folder.path / ".ledger.sqlite.tmp"
        with Ledger.create(aside) as ledger:
            ledger.note(started_at=started_at, plan=told["plan"])
        aside.replace(folder.ledger)
        batch.sync_folder(folder.path)
        batch.point_latest(folder)
        return folder

    def _go_on(self, folder: Folder) -> Folder:
        check_same(folder.read_manifest(), self._job_file, self._plan, overrides=self._options.chosen)
        return folder

    def _reopen(self, store: Store) -> list[Work]:
        """Bring the folder's files together, and say what an earlier process left open."""
        adopted = store.repair()
        if adopted:
            log.info("adopted results that the ledger did not speak of yet", extra={"lines": adopted})
        resubmit = {name: job.on_answer_lost == "resubmit" for name, job in self._job_file.jobs.items()}
        events, works = reopen(store.ledger.open_runs(), resubmit=resubmit, now=self._clock.now())
        if events:
            store.write(events)
        return works

    async def _carry(
        self, live: Live, recorder: Recorder, network: Network, works: Sequence[Work]
    ) -> Sequence[LiveEndpoint]:
        """Run the lanes; the endpoints that only an earlier process sent to."""
        elsewhere = network.elsewhere({work.destination for work in works if work.destination}, live.endpoints)
        first = {name: [work for work in works if work.run.job == name] for name in self._plan.jobs}
        with ExitStack() as stack:
            known = stack.enter_context(Ledger.read_only(live.folder.ledger)).knows if live.resumed else _nothing
            async with sampling([*live.endpoints.values(), *elsewhere.values()], recorder, self._clock):
                lanes = [
                    self._lanes(
                        planned,
                        Feed(
                            self._new_runs(planned, live.tally.jobs[name].pending, first[name], stack),
                            first[name],
                            known=known,
                            switch=live.switches[name],
                            clock=self._clock,
                        ),
                        live,
                        recorder,
                        elsewhere,
                    )
                    for name, planned in self._plan.jobs.items()
                ]
                await live.carry(lanes)
        return tuple(elsewhere.values())

    def _new_runs(self, planned: JobPlan, pending: int, first: Sequence[Work], stack: ExitStack) -> Iterator[Run]:
        """The runs of the plan; none where all that is pending was taken up before, so that a resume is quick."""
        if pending == len(first):
            return iter(())
        return planned.expand(stack.enter_context(closing(KeyIndex())))

    def _lanes(
        self,
        planned: JobPlan,
        feed: Feed,
        live: Live,
        recorder: Recorder,
        elsewhere: Mapping[Destination, LiveEndpoint],
    ) -> Lanes:
        job, endpoint, switch = planned.job, live.endpoints[planned.job.endpoint], live.switches[planned.name]
        tally = live.tally.jobs[planned.name]
        if endpoint.refusal is not None:
            switch.close(Reason.REFUSED)
        retry = job.retry
        return Lanes(
            feed=feed,
            width=self._width(job, tally.pending),
            terms=terms(job),
            retry=RetryPolicy(retry.attempts, retry.outcomes, retry.wait_initial_s, retry.wait_max_s),
            resubmit=job.on_answer_lost == "resubmit",
            timeout_s=job.timeouts.job_s,
            endpoint=endpoint,
            elsewhere=elsewhere,
            recorder=recorder,
            clock=self._clock,
            switch=switch,
            tally=tally,
        )

    def _width(self, job: Job, pending: int) -> int:
        """Lanes for *job*: no more than could be in flight, at least one."""
        of_endpoint = self._job_file.endpoints[job.endpoint].concurrency or WIDTH
        return max(1, min(job.concurrency or WIDTH, of_endpoint, pending))

    def _end(self, live: Live, ledger: Ledger, endpoints: Sequence[LiveEndpoint]) -> Ended:
        refusals = tuple(one.refusal for one in endpoints if one.refusal is not None)
        stopped = any(switch.reason is Reason.JOB_TIMEOUT for switch in live.switches.values())
        came_to = verdict(
            live.tally, interrupted=live.interrupted or bool(live.troubles), refused=bool(refusals), stopped=stopped
        )
        ledger.note(verdict=came_to, ended_at=self._clock.now())
        health = report.fold(ledger, report.told(ledger, live.folder))
        report.write(live.folder, health)
        log.info("batch ends", extra={"batch": live.folder.id, "verdict": came_to})
        if live.troubles:
            raise live.troubles[0]
        return Ended(live.folder, came_to, health, refusals)


def terms(job: Job) -> Terms:
    """What *job* asks of its attempts, in RunPod's words where they are sent."""
    policy, timeouts = job.policy, job.timeouts
    return Terms(
        policy=wire_policy(policy),
        execution_timeout_s=policy.execution_timeout_s,
        request_timeout_s=timeouts.request_s,
        run_timeout_s=timeouts.run_s or (policy.ttl_s or DEFAULT_TTL_S) + GRACE_S,
        paused_s=PAUSED_S,
    )


def _nothing(_key: str) -> bool:
    """A new batch knows no run yet."""
    return False
