"""Decide where a batch goes on: which one, whether it still is the same, and what its open runs need first."""

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from runner.batch import Folder, check_newest, newest_first
from runner.errors import UsageError
from runner.events import EMBEDDED, DraftDropped, DraftOver, Ended, Event, Reopened
from runner.ledger import Ledger, OpenDraft, OpenRun, Sent
from runner.records import record
from runner.states import SETTLED, Outcome
from runner.values import JsonObject
from runner.work import Work, ours, settle

SYNC_ID = "sync-"
"""How the ids of /runsync's jobs begin: their results are kept for 1 minute, others for 30. Source: RunPod docs."""


@record(frozen=True, slots=True)
class Progress:
    """How far a batch is, by its ledger. *has_ended* is False while it runs, and when it was killed."""

    planned: int
    settled: int
    has_ended: bool

    @property
    def unfinished(self) -> int:
        """Runs that are not settled."""
        return self.planned - self.settled


def progress(folder: Folder) -> Progress:
    """How far the batch in *folder* is."""
    with Ledger.read_only(folder.ledger) as ledger:
        planned = ledger.noted("plan")
        counts = ledger.counts()
        has_ended = ledger.noted("verdict") is not None
    settled = sum(n for job in counts.values() for (state, _), n in job.items() if state in SETTLED)
    return Progress(sum(planned.values()), settled, has_ended)


def newest_unfinished(root: Path) -> tuple[Folder, Progress] | None:
    """
    The newest batch in *root*, if runs of it are not settled, or it was killed before it said what it came to; None
    when there is none, or it is finished.

    Raises:
        UsageError: its ledger is gone.
    """
    check_newest(root)
    for folder in newest_first(root)[:1]:
        found = progress(folder)
        return (folder, found) if found.unfinished or not found.has_ended else None
    return None


def check_options(manifest: JsonObject, *, overrides: JsonObject) -> None:
    """
    Make sure that a batch is gone on with by the options that it was started with.

    Raises:
        UsageError: they differ; the message says what they were.
    """
    if manifest["overrides"] != overrides:
        raise UsageError(
            f"batch {manifest['batch']} can't be gone on with like this: its options were"
            f" {_options(manifest['overrides'])}",
            fix="give the same options, or start a new batch with --fresh",
        )


def _options(overrides: JsonObject) -> str:
    words = [f"--var {name}={value}" for name, value in overrides["vars"].items()]
    words += [f"--job {name}" for name in overrides["jobs"]]
    if overrides.get("profile") is not None:
        words.append(f"--profile {overrides['profile']}")
    if overrides["limit"] is not None:
        words.append(f"--limit {overrides['limit']}")
    if "rows" in overrides:
        words.append(f"--rows {overrides['rows']}")
    if "where" in overrides:
        words.append(f"--where {shlex.quote(overrides['where'])}")
    if "shard" in overrides:
        words.append(f"--shard {overrides['shard']}")
    return " ".join(words) or "none"


def left_drafts(found: Sequence[OpenDraft], sent: Callable[[int], list[Sent]], *, now: float) -> list[Event]:
    """
    What the ledger must hear of the drafts that an earlier process left open. *sent* gives the runs of one.

    What was not about to be finalized surely was not: its runs are pending again. What was is asked about, or followed.
    An embedded endpoint ended with its process, so nothing of it is there any more.
    """
    events: list[Event] = []
    for one in found:
        is_gone = one.destination.base_url == EMBEDDED
        if one.dropped_at is None and one.finalizing_at is None:
            events.append(DraftDropped(one.number, now))
        elif is_gone and one.dropped_at is None:
            events += [Ended(run.key, run.attempt, None, now) for run in sent(one.number)]
        if is_gone or one.batch_id is None:
            events.append(DraftOver(one.number, now))
    return events


def reopen(found: Sequence[OpenRun], *, resubmit: Mapping[str, bool], now: float) -> tuple[list[Event], list[Work]]:
    """
    What an earlier process left open: what the ledger must hear of it, and the work that goes on, in the same order.

    A job id that RunPod gave is followed, those of /runsync first, then the oldest. An intent without an id is
    `answer_lost`: settled, or submitted again where *resubmit* of its job says so. A job of an embedded endpoint ended
    with it, nothing was billed, so it is pending.
    """
    events: list[Event] = []
    works: list[Work] = []
    for one in found:
        failures = sum(outcome not in (None, Outcome.ANSWER_LOST) for outcome in one.outcomes)
        work = Work(one.run, attempts=one.attempt, failures=failures, first_at=one.first_at, last=one.last)
        if one.ended:
            works.append(replace(work, last_job_id=one.job_id, last_submitted_at=one.submitted_at))
        elif one.destination.base_url == EMBEDDED:
            events.append(Ended(one.run.key, one.attempt, None, now))
            works.append(work)
        elif one.job_id is not None:
            works.append(replace(work, job_id=one.job_id, submitted_at=one.submitted_at, destination=one.destination))
        else:
            lost = ours(Outcome.ANSWER_LOST, "the runner ended before RunPod's answer came; the job may exist")
            if resubmit[one.run.job]:
                events.append(Ended(one.run.key, one.attempt, lost, now))
                works.append(replace(work, last=lost))
            else:
                events.append(settle(work, lost, now=now))
    works.sort(key=lambda work: not (work.job_id or "").startswith(SYNC_ID))
    return events, works


def most_urgent_first(jobs: Collection[str], works: Sequence[Work]) -> list[str]:
    """
    The names of *jobs* in the order in which their runs are to be taken up, *works* being in theirs: a job with results
    that expire soon does not wait for the looks of all that another has in flight.
    """
    found = dict.fromkeys(work.run.job for work in works if work.job_id is not None)
    return [*(name for name in found if name in jobs), *(name for name in jobs if name not in found)]


def unsuccessful(ledger: Ledger, *, now: float) -> tuple[list[Reopened], int]:
    """What runs the runs again that did not succeed, and how many of them may have been paid for unseen."""
    found = list(ledger.unsuccessful())
    lost = sum(outcome is Outcome.ANSWER_LOST for _, outcome in found)
    return [Reopened(key, now) for key, _ in found], lost


def past_submits(recent: Sequence[tuple[str, float]], *, now: float, monotonic: float) -> Mapping[str, list[float]]:
    """When, on the monotonic clock, earlier processes submitted to each endpoint: a rate window must know of it."""
    past: dict[str, list[float]] = {}
    for endpoint, at in recent:
        past.setdefault(endpoint, []).append(min(monotonic, monotonic - (now - at)))
    return past
