"""Assemble the lanes of one job: its feed, its terms, what becomes of its outputs, and its limits."""

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing

from runner import variables
from runner.abort import Abort
from runner.artifacts import Artifacts
from runner.check import JobFile
from runner.clock import Clock
from runner.dispatch import Feed, Lanes
from runner.earlier import Earlier
from runner.endpoint import LiveEndpoint
from runner.events import Destination, Settled
from runner.judge import StopAt
from runner.ledger import Ledger
from runner.live import Live
from runner.needs import needed
from runner.occurrences import KeyIndex
from runner.outputs import Outputs
from runner.payload import wire_policy, wire_s3_config
from runner.pipeline import Pipeline
from runner.plan import JobPlan, Occurrences, Same
from runner.policy import DEFAULT_EXECUTION_TIMEOUT_S, DEFAULT_TTL_S, Looks, RetryPolicy
from runner.received import Received
from runner.record import Recorder
from runner.reuse import Reuse
from runner.runs import Run
from runner.secret import Masker, Secret
from runner.spec import Job, LocalEndpoint
from runner.stop import Reason
from runner.work import Terms, Work

GRACE_S = 300.0
"""What ``timeouts.run`` gives beyond RunPod's ttl: after the ttl RunPod itself no longer knows the job."""


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
        if live.resumed or has_needs:
            ledger = stack.enter_context(Ledger.read_only(live.folder.ledger))
            self._known = ledger.knows if live.resumed else _nothing
            if has_needs:
                self._pipeline = Pipeline(job_file, live, ledger, recorder, stack)

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
        has_more = tally.pending > len(first) or job.rows.job is not None
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
        if self._pipeline is not None:
            self._pipeline.join(name, lanes, feed, held)
        return lanes

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
        run_timeout_s=timeouts.run_s or (policy.ttl_s or DEFAULT_TTL_S) + GRACE_S,
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


def _nothing(_key: str) -> bool:
    """A new batch knows no run yet."""
    return False
