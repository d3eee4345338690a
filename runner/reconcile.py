"""Go on with a batch whose job file or data have changed: what is the same goes on, the rest only where it may."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Self

from runner import batch
from runner.batch import Folder
from runner.check import JobFile
from runner.drift import drift, is_same, makes_the_same, rest
from runner.errors import UsageError
from runner.ledger import Ledger
from runner.manifest import manifest, renewed
from runner.needs import in_order
from runner.occurrences import KeyIndex
from runner.options import Options
from runner.plan import JobPlan, Occurrences, Plan, Same
from runner.secret import Masker
from runner.store import Store
from runner.values import JsonObject, dump
from runner.work import Work, settle

log = logging.getLogger(__name__)


class Reconciled:
    """
    A batch beside the plan of now. *notes* are for a person, once `compare` was called; none when nothing differs.
    """

    def __init__(self, before: JsonObject, options: Options, job_file: JobFile, plan: Plan) -> None:
        self.notes: list[str] = []
        self._before = before
        self._options = options
        self._job_file = job_file
        self._plan = plan

    @classmethod
    def of(cls, before: JsonObject, options: Options, job_file: JobFile, plan: Plan) -> Self | None:
        """*before* is the batch's manifest. None where its runs are surely those of the *plan*."""
        return None if is_same(before, plan, job_file.vars) else cls(before, options, job_file, plan)

    def compare(self, store: Store, folder: Folder, works: Sequence[Work], masker: Masker, *, now: float) -> list[Work]:
        """
        Hold the plan against the batch; of *works*, which an earlier process left open, those that go on.

        What is no longer in the plan is not sent again; what RunPod has is followed all the same.

        Raises:
            UsageError: a job is gone that has runs to be followed, or the plan can't be read.
        """
        ledger, accepted = store.ledger, self._options.accept_changes
        lost = {work.run.job for work in works} - self._plan.jobs.keys()
        if lost:
            raise UsageError(
                f"job {min(lost)!r} is no longer in {self._job_file.document.file}, and runs of it are not settled",
                fix="put it back, then go on",
            )
        carried = {name: ledger.taken_up(name) for name in self._before["plan"]}
        gone: set[str] = set()
        for name in in_order(self._job_file.jobs, self._plan.jobs):
            planned = self._plan.jobs[name]
            if planned.job.rows.job is not None:
                if name in carried or accepted:
                    self._check_upstream(folder, planned, carried)
                    carried[name] = planned.at_most(carried[planned.job.rows.job])
                continue
            open_keys = {work.run.key for work in works if work.run.job == name}
            found = drift(self._before, planned, self._job_file.vars, ledger, open_keys, _counting)
            if name in carried or accepted:
                carried[name] = found.carried(accepted=accepted)
            gone |= found.gone_open
            if found.is_any:
                self.notes.append(f"  {name}: {found.say()}")
        if self.notes:
            word = "is taken in" if accepted else "is left out; --accept-changes takes it in"
            self.notes.insert(0, f"batch {folder.id} was started with other inputs; what was changed or added {word}")
            log.warning("%s", ";".join(self.notes))
        ledger.note(plan=carried)
        if accepted:
            self._renew(folder, ledger, masker, carried, now=now)
        dropped = [work for work in works if work.run.key in gone and work.job_id is None]
        known = [replace(work, job_id=work.last_job_id, submitted_at=work.last_submitted_at) for work in dropped]
        store.write([settle(work, work.last, now=now) for work in known])
        return [work for work in works if work not in dropped]

    def _check_upstream(self, folder: Folder, planned: JobPlan, carried: Mapping[str, int]) -> None:
        """
        Make sure that *planned* makes the same of the runs of another job as it did: which runs it has is known only
        once these are settled, so there is no telling what is the same of it and what is other.
        """
        name, source = planned.name, str(planned.job.rows.job)
        if name in self._before["plan"] and not makes_the_same(self._before, planned, self._job_file.vars):
            raise UsageError(
                f"job '{name}' makes its runs of job '{source}', and its input, its rows or the vars are other than"
                f" when batch {folder.id} was started",
                fix="put them back, then go on; or start a new batch with --fresh",
            )
        if source not in carried:
            raise UsageError(
                f"job '{name}' makes its runs of job '{source}', which batch {folder.id} was not started with",
                fix="go on with --accept-changes, or start a new batch with --fresh",
            )

    def _renew(self, folder: Folder, ledger: Ledger, masker: Masker, carried: dict[str, int], *, now: float) -> None:
        """From now on the batch is what the job file says now. The manifest comes last: until then it is compared."""
        for name, planned in self._plan.jobs.items():
            ledger.plan_rows(name, planned.row_digests())
        told = manifest(folder, self._options, self._job_file, self._plan, started_at=now)
        told = renewed(self._before, masker.within(told)) | {"plan": carried}
        batch.write_whole(folder.manifest, dump(told) + b"\n")

    def same(self, ledger: Ledger) -> Callable[[JobPlan, Occurrences], Same] | None:
        """Which runs of a plan go on, with something that counts its rows; None: all of them."""
        if self._options.accept_changes:
            return None
        return lambda planned, counted: rest(self._before, planned, self._job_file.vars, ledger, counted)


def _counting() -> closing[KeyIndex]:
    return closing(KeyIndex())
