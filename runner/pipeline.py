"""Let runs flow from job to job of a batch: hold a job back until it may begin, and make its runs of another's."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace

from runner.check import JobFile
from runner.dispatch import Lanes
from runner.events import Forgotten, Planned
from runner.feed import Feed
from runner.gates import Closed, Gate, Standing, skipped
from runner.ledger import KnownRun, Ledger
from runner.live import Live
from runner.needs import needed
from runner.plan import JobPlan, Occurrences
from runner.record import Recorder
from runner.runs import Run
from runner.upstream import AT_ONCE, Given, Upstream
from runner.values import JsonObject
from runner.work import Work


class Pipeline:
    """
    The jobs of one batch that need each other. `join` tells it of each job's lanes before any of them runs.

    *ledger* is read while the *recorder* writes.
    """

    def __init__(self, job_file: JobFile, live: Live, ledger: Ledger, recorder: Recorder, stack: ExitStack) -> None:
        self._job_file = job_file
        self._tallies = live.tally.jobs
        self._ledger = ledger
        self._folder = live.folder
        self._recorder = recorder
        self._stack = stack
        self._resumed = live.resumed
        self._lanes: dict[str, Lanes] = {}
        self._feeds: dict[str, Feed] = {}
        self._held: dict[str, Work] = {}  # by key, until it is known whether their rows stay as they were
        self._collected: set[str] = set()  # jobs whose collected row is what it will stay in this process

    def holds(self, name: str) -> bool:
        """Whether open runs of the job *name* have to wait: they are made of a collected row, which may have grown."""
        source: str | None = name
        while source is not None and (rows := self._job_file.jobs[source].rows).job is not None:
            if rows.collect:
                return True
            source = rows.job
        return False

    def join(self, name: str, lanes: Lanes, feed: Feed, held: Iterable[Work]) -> None:
        """
        Let the job *name* take part: those that need it hear of its runs, and it of theirs that it needs. Its feed gets
        what is *held* when it may.
        """
        self._held |= {one.run.key: one for one in held}
        self._lanes[name], self._feeds[name] = lanes, feed
        for other in self._lanes:
            for upstream, downstream in ((name, other), (other, name)):
                if upstream in needed(self._job_file.jobs[downstream]) and other != name:
                    self._lanes[upstream].settling.downstream.append(self._feeds[downstream])
        if self._job_file.jobs[name].rows.collect:
            lanes.settling.downstream.append(feed)  # a run of its own may stand in the way of the new one

    def runs(self, planned: JobPlan, plain: Iterator[Run], counted: Occurrences) -> Iterator[Run | None]:
        """
        The runs of *planned*, which needs other jobs, as far as they are there by now: None where there is nothing yet.

        It ends early, with runs left for a resume, when a job that it needs does. *plain* are the runs of a job whose
        rows are no other's. With the gate closed, each run says why it is skipped.
        """
        job, tally = planned.job, self._tallies[planned.name]
        gate = self._gate(planned.name)
        while (standing := self._standing(gate.waits_for)) is Standing.UNDER_WAY:
            tally.waits_for = gate.waits_for
            yield None
        if standing is Standing.LEFT:
            return
        closed = gate.judged(self._tallies, self._closed)
        if job.rows.job is None:
            made: Iterator[Run | None] = plain
        elif job.rows.collect:
            made = self._of_all(planned, job.rows.job, counted)
        else:
            made = self._of_each(planned, job.rows.job, counted)
        for run in made:
            if run is None:
                tally.waits_for = () if self._feeds[planned.name].begun.is_set() else needed(job)
                yield None
                continue
            tally.waits_for = ()
            if (held := self._held.pop(run.key, None)) is not None:
                self._feeds[planned.name].give(held)
            yield run if closed is None or run.skip is not None else replace(run, skip=closed.why)

    def _gate(self, name: str) -> Gate:
        return Gate(self._job_file.jobs[name], self._job_file.templates[name].when, self._job_file.vars)

    def _closed(self, name: str) -> Closed | None:
        """Why the job *name* was skipped, which is settled, as all are that it waits for; None when it was not."""
        return self._gate(name).judged(self._tallies, self._closed)

    def _standing(self, names: Iterable[str]) -> Standing:
        """How the jobs *names* stand, together."""
        found = Standing.SETTLED
        for name in names:
            lanes = self._lanes.get(name)
            if lanes is None or (lanes.is_over and self._tallies[name].pending > 0):
                return Standing.LEFT
            if not lanes.is_over:
                found = Standing.UNDER_WAY
        return found

    def _of_each(self, planned: JobPlan, source: str, counted: Occurrences) -> Iterator[Run | None]:
        """The runs made of each run of the job *source*, as they settle."""
        upstream = self._upstream(source)
        limit = planned.job.rows.limit
        made = kept = 0
        missed: list[Given] = []  # with a limit, they take the places that no other row wants, once all are there
        while limit is None or kept < limit:
            standing = self._standing((source,))  # before the look: what settles after it is seen by the next one
            for number, given in enumerate(upstream.new() if self._may_read(source) else (), 1):
                if number % AT_ONCE == 0:
                    self._pause(planned.name)
                    yield None
                if given.why is None:
                    before = made
                    for run in planned.of_row(given.row, given.number, counted):
                        made += 1
                        yield run
                    kept += made > before
                elif limit is None:
                    for run in planned.skipped(given.row, given.number, given.why, counted):
                        made += 1
                        yield run
                elif len(missed) < limit:
                    missed.append(given)
                if kept == limit:
                    break
            else:
                if standing is Standing.LEFT:
                    return
                if standing is Standing.SETTLED:
                    break
                if self._standing((source,)) is standing:  # else it ended while we gave runs, and wakes nobody again
                    yield None
        for given in missed[: (limit or 0) - kept]:
            for run in planned.skipped(given.row, given.number, given.why or "", counted):
                made += 1
                yield run
        self._count(planned, made)

    def _of_all(self, planned: JobPlan, source: str, counted: Occurrences) -> Iterator[Run | None]:
        """The runs made of all runs of the job *source* together, which are settled."""
        found: list[JsonObject] = []
        for number, given in enumerate(self._upstream(source).new(), 1):
            found += [given.row] if given.why is None else []
            if number % AT_ONCE == 0:
                self._pause(planned.name)
                yield None
        row: JsonObject = {"runs": sorted(found, key=lambda one: one["index"])}
        if self._resumed:
            yield from self._replaced(planned, row)
        self._collected.add(planned.name)
        for feed in self._lanes[planned.name].settling.downstream:
            feed.wake()
        made = 0
        closed = skipped(source, self._closed(source))
        why = f"no run of job '{source}' succeeded" if closed is None else closed.why
        for run in planned.of_row(row, 0, counted) if found else planned.skipped(row, 0, why, counted):
            made += 1
            yield run
        self._count(planned, made)

    def _replaced(self, planned: JobPlan, row: JsonObject) -> Iterator[None]:
        """
        Let the runs be forgotten that were made of another row than *row*: since then more runs of the source have
        succeeded, because a person had them run again. Gives None until it is done.
        """
        while True:
            stale = [one for one in self._ledger.runs_of(planned.name) if one.run.row != row]
            stale += [run for one in stale for run in self._made_of(one)]
            if all(one.settled_at is not None or one.run.key in self._held for one in stale):
                break
            yield None
        done = [self._recorder.record_soon(Forgotten(one.run.key)) for one in stale]
        for one in stale:
            if self._held.pop(one.run.key, None) is None:
                self._tallies[one.run.job].forget(one.state, one.outcome)
        for recorded in done:
            recorded.add_done_callback(lambda _: self._feeds[planned.name].wake())
        while not all(recorded.done() for recorded in done):
            yield None
        for recorded in done:
            recorded.result()

    def _made_of(self, one: KnownRun) -> Iterator[KnownRun]:
        """What was made of the output of the run *one*, and what of that in turn."""
        for name, job in self._job_file.jobs.items():
            if job.rows.job == one.run.job and not job.rows.collect:
                for made in self._ledger.made_of(name, one.run.key):
                    yield made
                    yield from self._made_of(made)

    def _pause(self, name: str) -> None:
        """Let others have the loop, however many rows make no run; the job *name* goes on at once."""
        asyncio.get_running_loop().call_soon(self._feeds[name].wake)

    def _may_read(self, source: str) -> bool:
        """Whether the runs of *source* that are there will stay: those of a collected row may be about to go."""
        is_collected = self._job_file.jobs[source].rows.collect
        if not (self._resumed and is_collected) or source in self._collected:
            return True
        return self._standing((source,)) is not Standing.UNDER_WAY

    def _upstream(self, source: str) -> Upstream:
        upstream = Upstream(source, self._ledger, self._folder.results)
        self._stack.callback(upstream.close)
        return upstream

    def _count(self, planned: JobPlan, made: int) -> None:
        """So many runs the job has: what was planned was a bound."""
        tally = self._tallies[planned.name]
        if tally.planned != made:
            tally.planned = made
            self._recorder.tell(Planned(planned.name, made))
