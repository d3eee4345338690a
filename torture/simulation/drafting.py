"""What one process of a simulated life tells of its drafts of RunPod's Batch API, and what it may do with them."""

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.events import Appended, DraftDropped, DraftMade, Event, Finalizing

if TYPE_CHECKING:
    from torture.simulation.process import Process
    from torture.simulation.transport import Exchange


@dataclass
class OneDraft:
    """A draft, as the ledger has it."""

    number: int
    job: str
    batch_id: str | None
    finalizing_at: float | None
    finalized_at: float | None
    cancel_at: float | None
    dropped_at: float | None
    over_at: float | None


def read(db: sqlite3.Connection) -> tuple[list[OneDraft], dict[tuple[str, int], int]]:
    """The drafts of a ledger, and in which of them attempts are."""
    columns = "number, job, batch_id, finalizing_at, finalized_at, cancel_at, dropped_at, over_at"
    drafts = [OneDraft(*row) for row in db.execute(f"SELECT {columns} FROM drafts ORDER BY number")]
    return drafts, {(key, attempt): draft for key, attempt, draft in db.execute("SELECT * FROM drafted")}


class Drafting:
    """What one process tells of its drafts. *runs* are those in drafts or RunPod batches: their draft and their job."""

    def __init__(self, process: "Process") -> None:
        self.runs: dict[str, tuple[int, str]] = {}
        self._process = process
        self._numbers: dict[str, int] = {}
        self._finalizing: set[int] = set()
        self._may_be_finalized: set[int] = set()
        self._dropped: set[int] = set()

    def found(self, db: sqlite3.Connection) -> None:
        """What an earlier process left."""
        drafts, drafted = read(db)
        jobs = {one.number: one.job for one in drafts}
        for one in drafts:
            if one.batch_id is not None:
                self._numbers[one.batch_id] = one.number
            if one.finalizing_at is not None:
                self._finalizing.add(one.number)
                self._may_be_finalized.add(one.number)
            if one.dropped_at is not None:
                self._dropped.add(one.number)
        for key, attempt in db.execute("SELECT key, attempt FROM attempts WHERE ended_at IS NULL"):
            if (number := drafted.get((key, attempt))) is not None:
                self.runs[key] = number, jobs[number]

    def told(self, event: Event) -> None:
        """The engine told its recorder of *event*."""
        process = self._process
        match event:
            case Appended():
                for one in event.requests:
                    process.world.started(one.run)
                    process.may_be_made(one.run, is_again=one.attempt > 1)
                    if one.run.key in self.runs or one.run.key in process.in_flight:
                        process.world.blame(f"{one.run.key[:6]} is in a draft, and under way already")
                    self.runs[one.run.key] = event.number, one.run.job
            case DraftDropped():
                self._dropped.add(event.number)
                self.runs = {key: one for key, one in self.runs.items() if one[0] != event.number}
            case Finalizing():
                self._finalizing.add(event.number)
                self._may_finalize(event.number)

    def _may_finalize(self, number: int) -> None:
        process = self._process
        job = next((job for draft, job in self.runs.values() if draft == number), None)
        if job is None:
            process.world.blame(f"draft {number} is finalized, and nothing is in it")
            return
        process.may_begin(job)
        spec = process.world.scenario.spec
        of_job = spec["jobs"][job]
        there = sum(one == job and draft in self._finalizing for draft, one in self.runs.values())
        for most in (spec["endpoints"][of_job["endpoint"]].get("concurrency"), of_job.get("concurrency")):
            if most is not None and there > most and not process.disk_failed:
                process.world.blame(f"{there} runs in finalized batches at once, and the concurrency is {most}")

    def ended(self, key: str) -> str | None:
        """The run of *key* ended, or its attempt; the job, if it was in a draft."""
        found = self.runs.pop(key, None)
        return None if found is None else found[1]

    def durable(self, event: Event) -> None:
        """*event* is on disk."""
        if isinstance(event, DraftMade):
            self._numbers[event.batch_id] = event.number
        elif isinstance(event, Finalizing):
            self._may_be_finalized.add(event.number)

    def leaves(self, exchange: "Exchange") -> None:
        """A call of the Batch API leaves."""
        call, world = exchange.batch_call, self._process.world
        if call in ("create", "counts", "page"):
            return
        number = self._numbers.get(exchange.job_id or "")
        if number is None:
            world.blame(f"{call} of {exchange.job_id}, whose id is not on disk")
        elif call in ("append", "finalize") and number in self._dropped:
            world.blame(f"{call} of draft {number}, which was given up")
        elif call == "append" and number in self._finalizing:
            world.blame(f"append to draft {number}, which may have been finalized")
        elif call == "finalize" and number not in self._may_be_finalized:
            world.blame(f"draft {number} is finalized before that is on disk")
