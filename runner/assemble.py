"""Assemble the lanes of one job: its feed, its terms, what becomes of its outputs, and its limits."""

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import count
from typing import TYPE_CHECKING

from runner import variables
from runner.abort import Abort
from runner.artifacts import Artifacts
from runner.check import JobFile
from runner.clock import Clock
from runner.dispatch import Lanes
from runner.earlier import Earlier
from runner.endpoint import LiveEndpoint
from runner.events import Destination, Settled
from runner.feed import Feed
from runner.judge import StopAt
from runner.ledger import Ledger, OpenDraft
from runner.live import Live
from runner.needs import needed
from runner.occurrences import KeyIndex
from runner.outputs import Outputs
from runner.payload import wire_policy, wire_s3_config
from runner.plan import JobPlan, Occurrences, Same
from runner.policy import DEFAULT_EXECUTION_TIMEOUT_S, DEFAULT_TTL_S, Looks, RetryPolicy
from runner.received import Received
from runner.record import Recorder
from runner.reuse import Reuse
from runner.runs import Run
from runner.secret import Masker, Secret
from runner.spec import Job, LocalEndpoint
from runner.stop import Reason
from runner.thresholds import Threshold
from runner.work import Terms, Work

if TYPE_CHECKING:
    from runner.carrier import Carrier
    from runner.pipeline import Pipeline

GRACE_S = 300.0
"""What ``timeouts.run`` gives beyond RunPod's ttl: after the ttl RunPod itself no longer knows the job."""

BATCH_S = 7 * 86_400.0
"""``timeouts.run`` of a RunPod batch, from when it was finalized, where nobody sets it: its workers are of idle hours.
"""

SameOf = Callable[[JobPlan, Occurrences], Same]
"""Says which runs of a plan are meant, with something that counts its rows."""


class Assembly:
    """
    What the lanes of a batch share. *terms* are by job, *elsewhere* what only an earlier process sent to, *earlier* the
    batches whose results may be taken.
    """

    def __init__(
        self,
        job_file: JobFile,
        live: Live,
        recorder: Recorder,
        artifacts: Artifacts,
        terms: Mapping[str, Terms],
        elsewhere: Mapping[Destination, LiveEndpoint],
        masker: Masker,
        clock: Clock,
        stack: ExitStack,
        earlier: Earlier,
    ) -> None:
        self._job_file = job_file
        self._live = live
        self._recorder = recorder
        self._artifacts = artifacts
        self._terms = terms
        self._elsewhere = elsewhere
        self._masker = masker
        self._clock = clock
        self._stack = stack
        self._earlier = earlier
        self._known: Callable[[str], bool] = _nothing
        self._pipeline: Pipeline | None = None
        rates = {name: job_file.endpoints[job.endpoint].cost_per_second for name, job in job_file.jobs.items()}
        self._abort = Abort(job_file.thresholds, live.tally, live.switches, rates)
        has_needs = any(needed(job) for job in job_file.jobs.values())
        has_batches = any(job.mode == "batch" for job in job_file.jobs.values())
        self._ledger: Ledger | None = None
        self._drafts: list[OpenDraft] = []
        self._numbers = count(1)
        if live.resumed or has_needs or has_batches:
            ledger = stack.enter_context(Ledger.read_only(live.folder.ledger))
            self._ledger = ledger
            self._drafts, self._numbers = ledger.open_drafts(), count(ledger.last_draft() + 1)
            self._known = ledger.knows if live.resumed else _nothing
            if has_needs:
                self._pipeline = _pipeline(job_file, live, ledger, recorder, stack)

    def lanes(self, planned: JobPlan, first: Sequence[Work], same: SameOf | None) -> Lanes:
        """The lanes of one job, which take up *first* before the plan, of which *same* says what is meant."""
        job, name, live = planned.job, planned.name, self._live
        endpoint, spec = live.endpoints[job.endpoint], self._job_file.endpoints[job.endpoint]
        switch, tally = live.switches[name], live.tally.jobs[name]
        if endpoint.refusal is not None:
            switch.close(Reason.REFUSED)
        asked = self._terms[name]
        endpoint.expect(ttl_s=asked.ttl_s, execution_s=asked.execution_timeout_s or DEFAULT_EXECUTION_TIMEOUT_S)
        # A resume of which nothing is pending but what was taken up before does not read the data again.
        drafts = [one for one in self._drafts if one.job == name]
        drafted = self._ledger.drafted(name) if self._ledger is not None and drafts else 0
        has_more = tally.pending > len(first) + drafted or job.rows.job is not None
        runs = self._runs(planned, same) if has_more else iter(())
        waits = bool(needed(job))
        held: Sequence[Work] = ()
        if self._pipeline is not None and self._pipeline.holds(name):
            first, held = [one for one in first if one.job_id], [one for one in first if not one.job_id]
        feed = Feed(runs, first, known=self._known, switch=switch, clock=self._clock, waits=waits)
        lanes = Lanes(
            name=name,
            feed=feed,
            width=max(1, min(job.concurrency or tally.pending, endpoint.width.most, tally.pending)),
            terms=asked,
            retry=RetryPolicy(job.retry.attempts, job.retry.outcomes, job.retry.wait_initial_s, job.retry.wait_max_s),
            resubmit=job.on_answer_lost == "resubmit",
            stop_at=StopAt(
                job.stop_when.failed_count,
                job.stop_when.failed_share,
                job.stop_when.cost_usd,
                spec.cost_per_second,
                tuple(one for bounds in job.thresholds.values() for one in bounds if one.abort),
                asked.execution_timeout_s or DEFAULT_EXECUTION_TIMEOUT_S,
            ),
            abort=self._abort,
            timeout_s=job.timeouts.job_s,
            endpoint=endpoint,
            elsewhere=self._elsewhere,
            recorder=self._recorder,
            received=Received(live.folder.path),
            outputs=Outputs(
                self._job_file.templates[name],
                self._job_file.vars,
                self._artifacts,
                loopback=isinstance(spec, LocalEndpoint),
                masker=self._masker,
            ),
            clock=self._clock,
            switch=switch,
            tally=tally,
            reuse=self._reuse(name),
        )
        if job.mode == "batch" or drafts:
            lanes.carrier = self._carrier(job, lanes, feed, drafts)
        if self._pipeline is not None:
            self._pipeline.join(name, lanes, feed, held)
        return lanes

    def _carrier(self, job: Job, lanes: Lanes, feed: Feed, known: Sequence[OpenDraft]) -> "Carrier":
        """What carries runs of *job* by the Batch API: new ones if it is in that mode, and those in *known* drafts."""
        from runner.carrier import Carrier, Manner  # most jobs have none, and need not wait for its import
        from runner.drafts import Drafts
        from runner.intake import Intake
        from runner.runpod_batches import RunPodBatches

        live, name, clock = self._live, lanes.name, self._clock
        endpoint, asked, switch = live.endpoints[job.endpoint], self._terms[name], live.switches[name]
        assert self._ledger is not None
        bounds = [one for one in (job.concurrency, self._job_file.endpoints[job.endpoint].concurrency) if one]
        stops = bool(job.stop_when.model_fields_set) or any(one.abort for one in _thresholds(job, self._job_file))
        drafts = Drafts(
            name,
            label=f"{self._job_file.name}/{live.folder.id}/{name}",
            next_number=lambda: next(self._numbers),
            api=RunPodBatches(endpoint.client, timeout_s=asked.request_timeout_s),
            endpoint=endpoint,
            recorder=self._recorder,
            clock=clock,
            switch=switch,
            paused_s=asked.paused_s,
            key=job.batch_key,
        )
        intake = Intake(
            feed,
            lanes.settling,
            asked,
            key=job.batch_key,
            clock=clock,
            switch=switch,
            tally=live.tally.jobs[name],
            may_widen=lanes.may_widen,
            look_at_limits=lanes.look_at_limits,
        )
        return Carrier(
            Manner(job.batch_key, min(bounds, default=None), is_stoppable=stops, fills=job.mode == "batch"),
            known,
            drafts=drafts,
            intake=intake,
            settling=lanes.settling,
            terms=asked,
            endpoint=endpoint,
            endpoint_of=lambda one: self._elsewhere.get(one.destination, endpoint),
            recorder=self._recorder,
            ledger=self._ledger,
            clock=clock,
            switch=switch,
            wake=feed.wake,
        )

    def _reuse(self, name: str) -> Callable[[Run], Awaitable[Settled | None]] | None:
        """What takes results of the job *name* from earlier batches; None where none has any that may be taken."""
        if not self._earlier.holding(name):
            return None
        return Reuse(self._earlier, self._job_file, name, self._artifacts, self._clock).take

    def _runs(self, planned: JobPlan, same: SameOf | None) -> Iterator[Run | None]:
        counted = self._stack.enter_context(closing(KeyIndex()))
        if planned.job.rows.job is not None:
            plain: Iterator[Run] = iter(())
        elif same is None:
            plain = planned.expand(counted)
        else:
            plain = planned.expand(counted, same=same(planned, self._stack.enter_context(closing(KeyIndex()))))
        if self._pipeline is None or not needed(planned.job):
            return plain
        return self._pipeline.runs(planned.of_batch(self._live.folder.path), plain, counted)


def terms(job: Job, masker: Masker, *, paused_s: float) -> Terms:
    """
    What *job* asks of its attempts, in RunPod's words where they are sent; *masker* learns the secrets among it.

    Raises:
        UsageError: a variable that the webhook or the s3_config refers to is not set.
    """
    policy, timeouts = job.policy, job.timeouts
    webhook = None if job.webhook is None else _secret(job.webhook, "the webhook", masker)
    s3_config = {
        name: _secret(text, f"s3Config.{name}", masker if name.startswith("access") else None)
        for name, text in (wire_s3_config(job.s3_config) if job.s3_config else {}).items()
    }
    return Terms(
        policy=wire_policy(policy),
        execution_timeout_s=policy.execution_timeout_s,
        request_timeout_s=timeouts.request_s,
        run_timeout_s=timeouts.run_s or _run_timeout_s(job),
        paused_s=paused_s,
        mode=job.mode,
        looks=Looks(job.poll.min_s, job.poll.max_s),
        ttl_s=policy.ttl_s or DEFAULT_TTL_S,
        webhook=webhook,
        s3_config=s3_config,
    )


def _secret(text: str, name: str, masker: Masker | None) -> Secret:
    """*text* resolved; *masker*, unless there is none, masks it and what its variables hold."""
    secret = Secret(variables.resolve(text, os.environ), name=name)
    if masker is not None:
        masker.add(secret)
        for variable in variables.names(text):
            if os.environ.get(variable):
                masker.add(Secret(os.environ[variable], name=f"${{{variable}}}"))
        for default in variables.defaults(text):  # a literal, and the manifest has what the job file says
            masker.add(Secret(default, name=f"the default in {name}"))
    return secret


def _pipeline(job_file: JobFile, live: Live, ledger: Ledger, recorder: Recorder, stack: ExitStack) -> "Pipeline":
    from runner.pipeline import Pipeline  # here, for most job files need nothing of it

    return Pipeline(job_file, live, ledger, recorder, stack)


def _run_timeout_s(job: Job) -> float:
    """``timeouts.run`` where the file has none."""
    return BATCH_S if job.mode == "batch" else (job.policy.ttl_s or DEFAULT_TTL_S) + GRACE_S


def _thresholds(job: Job, job_file: JobFile) -> Iterator[Threshold]:
    """The thresholds that *job* may be stopped by."""
    for bounds in (*job.thresholds.values(), *job_file.thresholds.values()):
        yield from bounds


def _nothing(_key: str) -> bool:
    """A new batch knows no run yet."""
    return False
