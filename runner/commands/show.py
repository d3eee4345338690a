"""``runner show``: one run of a batch: what went in, each attempt, what came out."""

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from runner import batch, locations, shards_folder
from runner.batch import Folder
from runner.clock import iso
from runner.detail import detail
from runner.errors import EXIT_PASS, UsageError
from runner.files import shown
from runner.ledger import KnownRun, Ledger, PastAttempt, Place
from runner.shards import Shard
from runner.shards_folder import Common
from runner.standing import LOOKS, line_at
from runner.states import State
from runner.stdout import while_read
from runner.tables import FIELDS
from runner.values import JsonObject, dump

LEAST = 4
"""Characters of a key that may stand for it."""


def show(name: str, run: str, *, output_dir: Path | None, as_json: bool = False, out: TextIO | None = None) -> int:
    """
    Print the run of the batch *name* that *run* means: a key or the beginning of one, JOB:INDEX, or an index.

    Raises:
        UsageError: there is no such batch, or *run* means none or several of its runs.
    """
    outputs = batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=output_dir)
    common = shards_folder.find(name, outputs)
    folder = batch.find(name, outputs) if common is None else _holding(common, run)
    with Ledger.read_only(folder.ledger) as ledger:
        document = _document(ledger, folder, run)
    with while_read():
        print(dump(document).decode() if as_json else detail(document), file=out or sys.stdout)
    return EXIT_PASS


def _holding(common: Common, run: str) -> Folder:
    """The shard of *common* that has a row of the run; the first one, which says so, where none has."""
    for part in common.there:
        with Ledger.read_only(part.folder.ledger) as ledger, suppress(UsageError):
            if _which(ledger, part.folder, run).key is not None:
                return part.folder
    return common.there[0].folder


def _document(ledger: Ledger, folder: Folder, run: str) -> JsonObject:
    """What ``--format json`` prints: the run as results.jsonl has it, or would, and its attempts."""
    document: JsonObject = {}
    for _ in range(LOOKS):
        document, place = _known(ledger, folder, run)
        if place is None:
            return document
        line = line_at(folder, place)
        if line is not None:
            return _whole(document, line)
        where = f"the ledger says that its line is at byte {place.offset} of {folder.results}"
        document["problem"] = f"{where}, and it is not there"
    return document


def _known(ledger: Ledger, folder: Folder, run: str) -> tuple[JsonObject, Place | None]:
    """What the ledger knows of the run, and where its line stands; None while it is not settled."""
    shown_batch = {"id": folder.id, "path": locations.shown(folder.path)}
    with ledger.snapshot():
        which = _which(ledger, folder, run)
        known = None if which.key is None else ledger.known(which.key)
        if known is None:
            nothing = _line(key=None, job=which.job, index=which.index, state=State.PENDING)
            return {"batch": shown_batch, "run": nothing, "attempts": []}, None
        attempts = ledger.attempts(known.run.key)
        document = {
            "batch": shown_batch,
            "run": _told(known, attempts),
            "attempts": [_attempt(one) for one in attempts],
        }
        place = ledger.settled_line(known.run.key)
        claims = [asdict(claim) for claim in ledger.artifacts(known.run.key)] if place else []
        return document | ({"files": claims} if claims else {}), place


def _whole(document: JsonObject, line: JsonObject) -> JsonObject:
    """*document* with the *line* of its run, and of the files that the run claimed those that it has."""
    files = [file for file in document.pop("files", ()) if file["path"] in line["artifacts"]]
    return document | {"run": line} | ({"files": files} if files else {})


@dataclass(frozen=True, slots=True)
class _Which:
    """The run that is meant; *key* is None while it has no row."""

    key: str | None
    job: str
    index: int


def _which(ledger: Ledger, folder: Folder, text: str) -> _Which:
    planned: Mapping[str, int] = ledger.noted("plan")
    if Shard.of_folder(folder.path.name) is not None:
        planned = folder.read_manifest()["shard"]["plan"]  # an index is a place in the plan of all shards
    job, colon, number = text.rpartition(":")
    is_index = re.fullmatch("[0-9]{1,18}", number) is not None
    if colon:
        if job not in planned:
            from runner.wording import suggest

            raise UsageError(f"batch {folder.id} has no job {job!r}", fix=suggest(job, planned))
        key = ledger.key_at(job, int(number)) if is_index else None
        if not is_index or (key is None and int(number) >= planned[job]):
            raise UsageError(f"job {job!r} has no run {number!r}", fix=_indexes({job: planned[job]}))
        return _Which(key, job, int(number))
    jobs = [name for name, runs in planned.items() if is_index and int(number) < runs]
    if len(jobs) > 1:
        raise UsageError(
            f"{len(jobs)} jobs have a run {number}", fix="write " + " or ".join(f"{name}:{number}" for name in jobs)
        )
    if jobs:
        return _Which(ledger.key_at(jobs[0], int(number)), jobs[0], int(number))
    return _by_key(ledger, folder, text, fix=_indexes(planned))


def _by_key(ledger: Ledger, folder: Folder, text: str, *, fix: str) -> _Which:
    if len(text) < LEAST:
        raise UsageError(
            f"batch {folder.id} has no run {text!r}", fix=f"{fix}; of a key, {LEAST} characters are needed"
        )
    found = ledger.keys_like(text, 3)
    if not found:
        raise UsageError(
            f"batch {folder.id} has no run whose key begins with {text!r}",
            fix=f"{fix}; a run that has not been started is known by its index only",
        )
    if len(found) > 1 and found[0][0] != text:
        several = ", ".join(f"{key} ({job}:{index})" for key, job, index in found[:2])
        more = " and more" if len(found) > 2 else ""
        raise UsageError(f"several keys begin with {text!r}: {several}{more}", fix="write more of the key")
    return _Which(*found[0])


def _indexes(planned: Mapping[str, int]) -> str:
    """Which runs there are to ask for."""
    spans = [f"{job}:0 to {job}:{runs - 1}" if runs > 1 else f"{job}:0" for job, runs in planned.items() if runs]
    return "its runs are " + ", ".join(spans)


def _line(**known: object) -> JsonObject:
    """A line of results.jsonl of which only so much is *known*."""
    nothing = {field: None for field in FIELDS if field not in ("output", "reused_from", "cost_usd")}
    return nothing | {"attempts": 0, "artifacts": []} | known


def _told(known: KnownRun, attempts: Sequence[PastAttempt]) -> JsonObject:
    """The run as far as the ledger knows it."""
    run, last = known.run, attempts[-1] if attempts else None
    return _line(
        key=run.key,
        job=run.job,
        index=run.index,
        state=known.state,
        outcome=known.outcome,
        row=run.row,
        matrix=run.matrix,
        repeat=run.repeat,
        input=shown(run.input),
        job_id=last.job_id if last else None,
        attempts=known.attempts,
        submitted_at=_iso(last.submitted_at if last else None),
        settled_at=_iso(known.settled_at),
    )


def _attempt(one: PastAttempt) -> JsonObject:
    ending = one.ending
    return {
        "attempt": one.number,
        "endpoint": one.destination.name,
        "endpoint_id": one.destination.endpoint_id,
        "base_url": one.destination.base_url,
        "job_id": one.job_id,
        "intended_at": iso(one.intended_at),
        "submitted_at": _iso(one.submitted_at),
        "cancel_decided_at": _iso(one.cancel_at),
        "ended_at": _iso(one.ended_at),
        "outcome": ending.outcome if ending else None,
        "status": ending.status if ending else None,
        "worker_id": ending.worker_id if ending else None,
        "delay_time_ms": ending.delay_time_ms if ending else None,
        "execution_time_ms": ending.execution_time_ms if ending else None,
        "cost_usd": ending.cost_usd if ending else None,
        "error": ending.error if ending else None,
    }


def _iso(at: float | None) -> str | None:
    return None if at is None else iso(at)
