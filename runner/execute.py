"""
Conduct one batch, from a job file to its health report.

Opens what a batch needs (lock, folder, ledger, local endpoints, HTTP session) on one exit stack, hands it down, and
closes it. Installs no signal handlers and prints nothing: that is for the command that calls it.
"""

import asyncio
import logging
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from runner import batch, report, results
from runner.attempt import Terms, Work
from runner.batch import Folder
from runner.check import JobFile, open_job_file
from runner.clock import Clock, SystemClock, iso
from runner.dispatch import Feed, Lanes, dispatch
from runner.endpoint import LiveEndpoint
from runner.errors import EXIT_FAIL, EXIT_INTERRUPTED, EXIT_PASS, EXIT_REFUSED, EndpointRefused, RunnerError, UsageError
from runner.events import Destination
from runner.ledger import KeyIndex, Ledger
from runner.log import log_to
from runner.network import WIDTH, Network
from runner.payload import wire_policy
from runner.plan import JobPlan, Plan, Run, make_plan
from runner.policy import DEFAULT_TTL_S, RetryPolicy
from runner.record import Recorder, Store
from runner.resume import check_same, newest_unfinished, past_submits, reopen
from runner.sample import sampling
from runner.spec import Job
from runner.states import Verdict
from runner.stop import Reason, Switch
from runner.tally import Tally, verdict
from runner.values import JsonObject, dump

GRACE_S = 300.0
"""What ``timeouts.run`` gives beyond RunPod's ttl: after the ttl RunPod itself no longer knows the job."""

PAUSED_S = 300.0
"""How long a paused endpoint is tried before it is refused."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """
    What to run, and how.

    Attributes:
        file: The job file.
        only: Jobs to run; empty: all.
        overrides: Values for `vars`.
        limit: At most this many runs of each job; None: all.
        output_dir: The folder for the batches of all job files; None: as the job file or its default says.
        resume: Go on with the newest unfinished batch, if there is one.
        fresh: Start a new batch beside an unfinished one.
        local_url: The base URL of a served local endpoint to use instead of an embedded one; None: embed.
        token_env: The environment variable that holds its token.
        drain_s: After the first signal, how long to follow what is in flight.
    """

    file: Path
    only: tuple[str, ...] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    output_dir: Path | None = None
    resume: bool = False
    fresh: bool = False
    local_url: str | None = None
    token_env: str = "RUNNER_LOCAL_TOKEN"
    drain_s: float = 25.0

    @property
    def chosen(self) -> JsonObject:
        """What was chosen of the file, as the manifest records it: a resume must choose the same."""
        return {"vars": dict(self.overrides), "jobs": sorted(self.only), "limit": self.limit}


@dataclass(frozen=True)
class Batch:
    """A batch that has come to its end, for now. *health* is the object of health.json."""

    folder: Folder
    verdict: Verdict
    exit_code: int
    health: JsonObject
    refusals: tuple[EndpointRefused, ...] = ()

    def results(self) -> Iterator[JsonObject]:
        """The settled runs, as results.jsonl has them, in the order of settling."""
        return results.read(self.folder.results) if self.folder.results.exists() else iter(())


class Live:
    """A batch while it runs: what a progress display reads, and what a signal asks for."""

    def __init__(self, folder: Folder, tally: Tally, endpoints: Mapping[str, LiveEndpoint], *, resumed: bool) -> None:
        self.folder = folder
        self.tally = tally
        self.endpoints = endpoints
        self.resumed = resumed
        self.switches: dict[str, Switch] = {job: Switch() for job in tally.jobs}
        self.interrupted = False
        self.troubles: list[RunnerError] = []
        self._scope: asyncio.Timeout | None = None  # none before the first run starts, and after the last has ended

    def drain(self, within_s: float) -> None:
        """Start nothing more; whatever is still in flight after *within_s* seconds is left to resume."""
        self.interrupted = True
        for switch in self.switches.values():
            switch.close(Reason.INTERRUPT)
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time() + within_s)

    def cancel(self) -> None:
        """Start nothing more, and cancel what is in flight at RunPod."""
        self.interrupted = True
        if self._scope is not None:
            self._scope.reschedule(None)
        for switch in self.switches.values():
            switch.cancel(Reason.CANCEL)

    async def carry(self, lanes: Sequence[Lanes]) -> None:
        """Run the lanes to their end, or to the end of a drain."""
        try:
            async with asyncio.timeout(None) as self._scope:
                await dispatch(lanes)
        except TimeoutError:
            log.warning("the drain is over; what is still in flight is left to resume")
        finally:
            self._scope = None
        self.troubles = [one.trouble for one in lanes if one.trouble is not None]


Watch = Callable[[Live], None]


async def run(
    file: str | Path,
    *,
    jobs: Sequence[str] = (),
    vars: Mapping[str, str] | None = None,
    limit: int | None = None,
    output_dir: str | Path | None = None,
    resume: bool = False,
    fresh: bool = False,
    local_url: str | None = None,
) -> Batch:
    """
    Run the job file *file* to its end: what notebooks and tests call. Installs no signal handlers and prints nothing.

    Args:
        file: The job file.
        jobs: Jobs to run; empty: all.
        vars: Values for the file's `vars`, as text; they take the type that the file has.
        limit: At most this many runs of each job.
        output_dir: The folder for batches; None: as the job file says.
        resume: Go on with the newest unfinished batch, if there is one.
        fresh: Start a new batch beside an unfinished one.
        local_url: The base URL of ``runner serve``; its token is read from RUNNER_LOCAL_TOKEN.

    Raises:
        RunnerError: what `execute` raises. That runs failed is no error: it is the batch's verdict.
    """
    options = Options(
        Path(file),
        only=tuple(jobs),
        overrides=dict(vars or {}),
        limit=limit,
        output_dir=None if output_dir is None else Path(output_dir),
        resume=resume,
        fresh=fresh,
        local_url=local_url,
    )
    return await execute(options)


async def execute(options: Options, *, watch: Watch | None = None, clock: Clock | None = None) -> Batch:
    """
    Run a job file to its end.

    Args:
        options: What to run.
        watch: Called once with the live batch, before the first run starts.
        clock: Time and chance; None: the machine's.

    Raises:
        JobFileError: the file or its data is invalid.
        UsageError: the options don't fit the file, the folder, or an unfinished batch.
        BatchBusy: another process is running a batch of this job file.
        RecordError: the batch folder can't be written any more.
    """
    clock = clock or SystemClock()
    job_file = open_job_file(options.file, overrides=options.overrides, only=options.only, env_required=True)
    root = batch.outputs_root(job_file.path, dir_in_file=job_file.outputs.dir, output_dir=options.output_dir)
    root /= job_file.name
    batch.prepare(root)
    async with AsyncExitStack() as stack:
        stack.enter_context(batch.lock(root, now=clock.now()))
        begun = newest_unfinished(root)
        if begun is not None and not options.resume and not options.fresh:
            folder, so_far = begun
            raise UsageError(
                f"batch {folder.id} of {job_file.name!r} is unfinished: {so_far.unfinished} of {so_far.planned} runs"
                " are not settled",
                fix="go on with it with --resume, or start a new one beside it with --fresh",
            )
        plan = make_plan(job_file, only=options.only, limit=options.limit)
        conduct = _Conduct(options, job_file, plan, clock, stack)
        return await conduct.run(root, begun[0] if begun and options.resume else None, watch)


class _Conduct:
    """The parts of one batch, opened in order."""

    def __init__(self, options: Options, job_file: JobFile, plan: Plan, clock: Clock, stack: AsyncExitStack) -> None:
        self._options = options
        self._job_file = job_file
        self._plan = plan
        self._clock = clock
        self._stack = stack

    async def run(self, root: Path, resumed: Folder | None, watch: Watch | None) -> Batch:
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
        ledger = Ledger.open(folder.ledger)
        store = Store(ledger, folder.results)
        self._stack.callback(store.close)
        works = self._reopen(store)
        now, monotonic = self._clock.now(), self._clock.monotonic()
        endpoints = network.endpoints(past_submits(ledger.recent_submits(now - 60), now=now, monotonic=monotonic))
        tally = Tally({name: job.runs for name, job in self._plan.jobs.items()})
        tally.restore(ledger.counts())
        live = Live(folder, tally, endpoints, resumed=resumed is not None)
        ledger.note(verdict=None, ended_at=None)
        log.info("batch %s", "goes on" if resumed else "starts", extra={"batch": folder.id, "runs": tally.planned})
        async with Recorder(store) as recorder:
            if watch is not None:
                watch(live)
            await self._carry(live, recorder, network, works)
        return self._end(live, ledger)

    def _begin(self, root: Path, network: Network) -> Folder:
        """A new batch's folder with its manifest and an empty ledger; `latest` points to it once they are there."""
        folder = batch.create(root, now=self._clock.now())
        started_at = self._clock.now()
        manifest = network.masker(dump(self._manifest(folder, started_at)).decode())
        batch.write_whole(folder.manifest, manifest.encode() + b"\n")
        with Ledger.create(folder.ledger) as ledger:
            ledger.note(started_at=started_at, plan={name: job.runs for name, job in self._plan.jobs.items()})
        batch.sync_folder(folder.path)
        batch.point_latest(folder)
        return folder

    def _go_on(self, folder: Folder) -> Folder:
        check_same(folder.read_manifest(), self._job_file, self._plan, overrides=self._options.chosen)
        return folder

    def _manifest(self, folder: Folder, started_at: float) -> JsonObject:
        job_file = self._job_file
        return {
            "batch": folder.id,
            "name": job_file.name,
            "started_at": iso(started_at),
            "job_file": {"path": str(job_file.path.absolute()), "sha256": job_file.sha256},
            "inputs": [
                {"path": str(one.path.absolute()), "sha256": one.sha256, "size_bytes": one.size_bytes, "rows": one.rows}
                for one in self._plan.inputs
            ],
            "spec": job_file.spec.model_dump(mode="json", by_alias=True),
            "vars": job_file.vars,
            "overrides": self._options.chosen,
            "local_url": self._options.local_url,
            "plan": {name: job.runs for name, job in self._plan.jobs.items()},
            "versions": {name: version(name) for name in ("runpod-runner", "aiohttp", "pydantic", "jinja2", "pyyaml")}
            | {"python": platform.python_version()},
            "git": batch.git_state(job_file.folder),
            "host": platform.node(),
            "working_directory": str(Path.cwd()),
            "argv": sys.argv,
        }

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

    async def _carry(self, live: Live, recorder: Recorder, network: Network, works: Sequence[Work]) -> None:
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
            width=max(
                1,
                min(
                    job.concurrency or WIDTH, self._job_file.endpoints[job.endpoint].concurrency or WIDTH, tally.pending
                ),
            ),
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

    def _end(self, live: Live, ledger: Ledger) -> Batch:
        refusals = tuple(one.refusal for one in live.endpoints.values() if one.refusal is not None)
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
        return Batch(live.folder, came_to, EXIT_CODES[came_to], health, refusals)


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


EXIT_CODES = {
    Verdict.PASS: EXIT_PASS,
    Verdict.FAIL: EXIT_FAIL,
    Verdict.STOPPED: EXIT_FAIL,
    Verdict.INTERRUPTED: EXIT_INTERRUPTED,
    Verdict.REFUSED: EXIT_REFUSED,
}
