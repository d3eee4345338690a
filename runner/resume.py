"""Decide where a batch goes on: which one, whether it still is the same, and what its open runs need first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runner.attempt import Work, ours, settle
from runner.batch import Folder, newest_first
from runner.check import JobFile
from runner.errors import UsageError
from runner.events import EMBEDDED, Ended, Event
from runner.ledger import Ledger, OpenRun
from runner.plan import Plan
from runner.states import SETTLED, Outcome
from runner.values import JsonObject


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is, by its ledger."""

    planned: int
    settled: int

    @property
    def unfinished(self) -> int:
        """Runs that are not settled."""
        return self.planned - self.settled


def progress(folder: Folder) -> Progress:
    """How far the batch in *folder* is."""
    with Ledger.read_only(folder.ledger) as ledger:
        planned = ledger.noted("plan")
        counts = ledger.counts()
    settled = sum(n for job in counts.values() for (state, _), n in job.items() if state in SETTLED)
    return Progress(sum(planned.values()), settled)


def newest_unfinished(root: Path) -> tuple[Folder, Progress] | None:
    """The newest batch in *root*, if runs of it are not settled; None when there is none, or it is finished."""
    for folder in newest_first(root)[:1]:
        found = progress(folder)
        return (folder, found) if found.unfinished else None
    return None


def check_same(manifest: JsonObject, job_file: JobFile, plan: Plan, *, overrides: JsonObject) -> None:
    """
    Make sure that going on with a batch runs what it was started with.

    Raises:
        UsageError: job file, variables, options or data differ; the message names each.
    """
    changed = []
    if manifest["overrides"] != overrides:
        changed.append(f"its options were {_options(manifest['overrides'])}")
    if manifest["job_file"]["sha256"] != job_file.sha256:
        changed.append(f"{job_file.path} has changed")
    if manifest["vars"] != job_file.vars:
        changed.append("the value of a variable in 'vars' has changed")
    now = {str(file.path.absolute()): file.sha256 for file in plan.inputs}
    changed += [f"{one['path']} has changed" for one in manifest["inputs"] if now.get(one["path"]) != one["sha256"]]
    if changed:
        raise UsageError(
            f"batch {manifest['batch']} can't be gone on with as it was: " + "; ".join(changed),
            fix="put it back as it was, or start a new batch with --fresh",
        )


def _options(overrides: JsonObject) -> str:
    words = [f"--var {name}={value}" for name, value in overrides["vars"].items()]
    words += [f"--job {name}" for name in overrides["jobs"]]
    if overrides["limit"] is not None:
        words.append(f"--limit {overrides['limit']}")
    return " ".join(words) or "none"


def reopen(found: Sequence[OpenRun], *, resubmit: Mapping[str, bool], now: float) -> tuple[list[Event], list[Work]]:
    """
    What an earlier process left open: what the ledger must hear of it, and the work that goes on, in the same order.

    A job id that RunPod gave is followed. An intent without an id is `answer_lost`: settled, or submitted again where
    *resubmit* of its job says so. A job of an embedded endpoint ended with it, nothing was billed, so it is pending.
    """
    events: list[Event] = []
    works: list[Work] = []
    for one in found:
        failures = sum(outcome not in (None, Outcome.ANSWER_LOST) for outcome in one.outcomes)
        work = Work(one.run, attempts=one.attempt, failures=failures, first_at=one.first_at, last=one.last)
        if one.ended:
            works.append(work)
        elif one.destination.base_url == EMBEDDED:
            events.append(Ended(one.run.key, one.attempt, None, now))
            works.append(work)
        elif one.job_id is not None:
            works.append(replace(work, job_id=one.job_id, submitted_at=one.submitted_at, destination=one.destination))
        else:
            lost = ours(Outcome.ANSWER_LOST, "the runner ended before RunPod's answer came; the job may exist")
            if resubmit[one.run.job]:
                events.append(Ended(one.run.key, one.attempt, lost, now))
                works.append(work)
            else:
                events.append(settle(work, lost, now=now))
    return events, works


def past_submits(recent: Sequence[tuple[str, float]], *, now: float, monotonic: float) -> Mapping[str, list[float]]:
    """When, on the monotonic clock, earlier processes submitted to each endpoint: a rate window must know of it."""
    past: dict[str, list[float]] = {}
    for endpoint, at in recent:
        past.setdefault(endpoint, []).append(min(monotonic, monotonic - (now - at)))
    return past
