"""Say how a plan differs from the one that a batch was started with, and which of its runs are still the same."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path

from runner.check import JobFile
from runner.inputs.source import InputFile
from runner.ledger import Ledger
from runner.plan import JobPlan, Occurrences, Plan, recalled, row_digest
from runner.records import record
from runner.spec import Rows, written
from runner.values import JsonObject

NAME = "runpod-runner"
"""The distribution that we are."""

Counting = Callable[[], AbstractContextManager[Occurrences]]
"""Opens something that counts equal runs, or rows, from nought."""


@record(frozen=True, slots=True)
class Drift:
    """
    One job of a batch beside the plan of now, in runs.

    *done* are settled; *same* are as they were, and not settled; *other* were not in the batch's plan like this; *gone*
    were, and are no longer: *gone_known* of them were taken up, those in *gone_open* are not settled.
    """

    done: int
    same: int
    other: int
    gone: int
    gone_known: int
    gone_open: frozenset[str]

    @property
    def is_any(self) -> bool:
        """Whether anything differs."""
        return bool(self.other or self.gone)

    def carried(self, *, accepted: bool) -> int:
        """The runs that the batch has from now on; with those that are other, where they are *accepted*."""
        return self.done + self.same + self.gone_known + (self.other if accepted else 0)

    def say(self) -> str:
        """For people: ``40 done, 55 to go as before; 2 changed, 1 added, 0 removed``."""
        changed = min(self.other, self.gone)
        return (
            f"{self.done} done, {self.same} to go as before; "
            f"{changed} changed, {self.other - changed} added, {self.gone - changed} removed"
        )


class Rest:
    """
    Which runs that were never taken up are the same as before: their row was there, as often, and was combined so.

    It is for one expansion of a plan. *rows* are the digests of the rows before, sorted.
    """

    def __init__(
        self, rows: "array[int]", combinations: Sequence[JsonObject | None], repeat: int, counted: Occurrences
    ) -> None:
        self._rows = rows
        self._combinations = combinations
        self._repeat = repeat
        self._counted = counted

    def has_row(self, row: JsonObject | None, /) -> bool:
        """Whether *row*, the next of the plan, was there before."""
        digest = row_digest(row)
        before = bisect_right(self._rows, digest) - bisect_left(self._rows, digest)
        return self._counted.count(digest.to_bytes(8, "big")) < before

    def has(self, combination: JsonObject | None, repeat: int, /) -> bool:
        """Whether each row was run with *combination* and *repeat*."""
        return repeat < self._repeat and combination in self._combinations


def is_same(manifest: JsonObject, plan: Plan, vars_: JsonObject) -> bool:
    """Whether *plan* surely has the runs of the batch of *manifest*: all that they are made of is as it was."""
    files = {str(file.path.absolute()): file.sha256 for file in plan.inputs}
    if files != {one["path"]: one["sha256"] for one in manifest["inputs"]}:
        return False
    return manifest["plan"].keys() == plan.jobs.keys() and all(
        makes_the_same(manifest, planned, vars_) for planned in plan.jobs.values()
    )


def makes_the_same(manifest: JsonObject, planned: JobPlan, vars_: JsonObject) -> bool:
    """Whether the job makes the same runs of the same data as it did in the batch of *manifest*."""
    if not _same_inputs(manifest, planned, vars_):
        return False
    return bool(manifest["spec"]["jobs"][planned.name]["rows"] == written(planned.job)["rows"])


def same_plan(
    manifest: JsonObject, job_file: JobFile, chosen: JsonObject, *, only: Sequence[str], stdin: Path | None
) -> Plan | None:
    """
    The plan of the batch of *manifest*, its data not read again; None where it must be made to know whether it is that.

    *chosen* is what was chosen of *job_file*, as the manifest has it.
    """
    if manifest["overrides"] != chosen or "changes" in manifest or manifest["versions"][NAME] != version(NAME):
        return None  # after changes a batch has more runs than its plan: those that are no longer in it
    known = {Path(one["path"]): InputFile(**one | {"path": Path(one["path"])}) for one in manifest["inputs"]}
    plan = recalled(job_file, manifest["plan"], known, only=only, limit=chosen["limit"], stdin=stdin)
    return plan if plan is not None and is_same(manifest, plan, job_file.vars) else None


def rest(manifest: JsonObject, planned: JobPlan, vars_: JsonObject, ledger: Ledger, counted: Occurrences) -> Rest:
    """
    The runs of *planned* that the batch of *manifest* had, and that were never taken up.

    A job that makes other inputs of its rows has none of them.
    """
    if not _same_inputs(manifest, planned, vars_):
        return Rest(array("Q"), [], 0, counted)
    before = Rows.read(manifest["spec"]["jobs"][planned.name]["rows"])
    return Rest(ledger.planned_rows(planned.name), JobPlan.combinations_of(before), before.repeat, counted)


def drift(
    manifest: JsonObject,
    planned: JobPlan,
    vars_: JsonObject,
    ledger: Ledger,
    open_keys: Collection[str],
    counting: Counting,
) -> Drift:
    """
    Hold *planned* against the batch of *manifest*: every run is expanded, twice.

    *open_keys* are the runs that were taken up and are not settled.

    Raises:
        UsageError: the plan can't be read to its end.
    """
    done = going_on = new = same = 0
    seen_open: set[str] = set()
    with counting() as counted:
        for run in planned.expand(counted):
            if run.key in open_keys:
                seen_open.add(run.key)
                going_on += 1
            elif ledger.knows(run.key):
                done += 1
            else:
                new += 1
    with counting() as counted, counting() as rows:
        before = rest(manifest, planned, vars_, ledger, rows)
        same = sum(not ledger.knows(run.key) for run in planned.expand(counted, same=before))
    was = int(manifest["plan"].get(planned.name, 0))
    return Drift(
        done=done,
        same=going_on + same,
        other=new - same,
        gone=max(0, was - done - going_on - same),
        gone_known=ledger.taken_up(planned.name) - done - going_on,
        gone_open=frozenset(open_keys) - seen_open,
    )


def _same_inputs(manifest: JsonObject, planned: JobPlan, vars_: JsonObject) -> bool:
    """Whether the job makes the same inputs of the same rows as it did in the batch of *manifest*."""
    before = manifest["spec"]["jobs"].get(planned.name)
    return before is not None and before["input"] == planned.job.input and manifest["vars"] == vars_
