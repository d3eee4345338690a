"""Runs, endings and events for tests, with everything that a test does not speak of filled in."""

from pathlib import Path
from typing import Any

from runner.events import Accepted, Destination, Ended, Ending, Event, Intended, Settled
from runner.ledger import Ledger
from runner.results import line
from runner.runs import Run
from runner.states import Outcome, State
from runner.store import Store
from runner.values import JsonObject, JsonValue

HERE = Destination("sdxl", "https://api.runpod.ai/v2", "abc123")


def a_run(key: str = "k1", job: str = "photos", *, index: int = 0, given: JsonValue = None, **more: Any) -> Run:
    """The run *key*."""
    return Run(job=job, index=index, key=key, row=None, matrix=None, repeat=0, input=given or {"x": 1}, **more)


def error(message: str) -> JsonObject:
    """An attempt's error."""
    return {"type": None, "message": message, "traceback": None}


def an_ending(outcome: Outcome = Outcome.COMPLETED, **more: Any) -> Ending:
    """How an attempt ended: with null as output, and an error where it was no success."""
    told: JsonObject = {"output": None, "status": "COMPLETED", "worker_id": "w1"}
    if outcome is not Outcome.COMPLETED:
        told |= {"status": "FAILED", "error": error(f"it was {outcome}")}
    return Ending(outcome=outcome, **(told | more))


def intended(run: Run, attempt: int = 1, *, at: float = 100.0, to: Destination = HERE) -> Intended:
    """A submit about to be sent."""
    return Intended(run, attempt, to, at)


def accepted(run: Run, attempt: int = 1, *, at: float = 101.0) -> Accepted:
    """Its answer."""
    return Accepted(run.key, attempt, f"{run.key}-job-{attempt}", at)


def ended(run: Run, attempt: int = 1, ending: Ending | None = None, *, at: float = 102.0) -> Ended:
    """An attempt that failed and will be tried again, unless *ending* says otherwise."""
    return Ended(run.key, attempt, ending or an_ending(Outcome.FAILED), at)


def a_settled(run: Run, attempts: int = 1, ending: Ending | None = None, *, at: float = 103.0) -> Settled:
    """The end of a run: completed, unless *ending* says otherwise. Its job id is the one of `accepted`."""
    ending = ending or an_ending()
    return _settled(run, attempts, ending.outcome.state, ending, at)


def skipped(run: Run, *, at: float = 103.0) -> Settled:
    """The end of a run that never began."""
    return _settled(run, 0, State.SKIPPED, None, at)


def _settled(run: Run, attempts: int, state: State, ending: Ending | None, at: float) -> Settled:
    job_id, submitted_at = (f"{run.key}-job-{attempts}", 101.0) if attempts else (None, None)
    text = line(run, ending, state=state, attempts=attempts, job_id=job_id, submitted_at=submitted_at, settled_at=at)
    return Settled(run, attempts, state, ending, text, at)


def carried(run: Run, ending: Ending | None = None) -> list[Event]:
    """The whole life of a run with one attempt."""
    return [intended(run), accepted(run), a_settled(run, ending=ending)]


def unsynced(ledger: Ledger) -> Ledger:
    """*ledger*, no longer waiting for the disk: for tests of many commits that no power loss will meet."""
    ledger._db.do("PRAGMA synchronous = OFF")
    return ledger


def new_store(folder: Path) -> Store:
    """A store with nothing in it."""
    return Store(Ledger.create(folder / "ledger.sqlite"), folder / "results.jsonl")


def opened_store(folder: Path) -> Store:
    """The store in *folder*, as a resume opens it."""
    return Store(Ledger.open(folder / "ledger.sqlite"), folder / "results.jsonl")
