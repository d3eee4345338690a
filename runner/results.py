"""The lines of results.jsonl: build one, and read them back."""

import zlib
from collections.abc import Iterator
from datetime import datetime
from hashlib import blake2b
from pathlib import Path

from runner import files
from runner.clock import iso
from runner.events import Accepted, Ending, Settled
from runner.runs import Run
from runner.states import Outcome, State
from runner.values import MISSING, JsonObject, dump_line, parse

LONG_BYTES = 16 * 1024
"""A longer line is known by a quicker digest, and alone has its output while it waits for the disk."""

_DIGEST_BYTES = 16


def line(
    run: Run,
    ending: Ending | None,
    *,
    state: State,
    attempts: int,
    job_id: str | None,
    submitted_at: float | None,
    settled_at: float,
    reused_from: str | None = None,
) -> bytes:
    """
    The line of a settled *run*, newline included; times are seconds since the epoch, None when it was never submitted.

    *ending* is None for a skipped run, whose error is why it was skipped, where that is known. An attempt without
    output has no key ``output``: null is an output. *reused_from* is the batch that made the result; a line has that
    key only when it was another one, and the key ``cost_usd`` only when its last attempt told what it cost.
    """
    shown: JsonObject = {
        "key": run.key,
        "job": run.job,
        "index": run.index,
        "state": state,
        "outcome": ending.outcome if ending else None,
        "status": ending.status if ending else None,
        "row": run.row,
        "matrix": run.matrix,
        "repeat": run.repeat,
        "input": files.shown(run.input),
    }
    if ending is not None and ending.output is not MISSING:
        shown["output"] = ending.output
    shown |= {
        "error": ending.error if ending else _skipped(run),
        "job_id": job_id,
        "worker_id": ending.worker_id if ending else None,
        "attempts": attempts,
        "delay_time_ms": ending.delay_time_ms if ending else None,
        "execution_time_ms": ending.execution_time_ms if ending else None,
        "submitted_at": None if submitted_at is None else iso(submitted_at),
        "settled_at": iso(settled_at),
        "artifacts": list(ending.artifacts) if ending else [],
    }
    if reused_from is not None:
        shown["reused_from"] = reused_from
    elif ending is not None and ending.cost_usd is not None:  # what an earlier batch paid is not paid again
        shown["cost_usd"] = ending.cost_usd
    return dump_line(shown)


def _skipped(run: Run) -> JsonObject | None:
    return None if run.skip is None else {"type": None, "message": run.skip, "traceback": None}


def settled(text: bytes) -> Settled:
    """The event that a line of results.jsonl tells of, read back from the line alone."""
    shown = parse(text)
    run = Run(
        job=shown["job"],
        index=shown["index"],
        key=shown["key"],
        row=shown["row"],
        matrix=shown["matrix"],
        repeat=shown["repeat"],
        input=shown["input"],
        skip=shown["error"]["message"] if shown["outcome"] is None and shown["error"] is not None else None,
    )
    ending = None
    if shown["outcome"] is not None:
        ending = Ending(
            outcome=Outcome(shown["outcome"]),
            output=shown.get("output", MISSING),
            error=shown["error"],
            status=shown["status"],
            worker_id=shown["worker_id"],
            delay_time_ms=shown["delay_time_ms"],
            execution_time_ms=shown["execution_time_ms"],
            artifacts=tuple(shown["artifacts"]),
            cost_usd=shown.get("cost_usd"),
        )
    at, reused_from = _epoch(shown["settled_at"]), shown.get("reused_from")
    return Settled(run, shown["attempts"], State(shown["state"]), ending, text, at, reused_from)


def accepted(text: bytes) -> Accepted | None:
    """The answer to the submit that a line of results.jsonl came of; None when its run never got a job id."""
    shown = parse(text)
    if shown["job_id"] is None or shown["submitted_at"] is None:
        return None
    return Accepted(shown["key"], shown["attempts"], shown["job_id"], _epoch(shown["submitted_at"]))


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def digest(text: bytes) -> bytes:
    """
    The digest by which the ledger knows a line again: blake2b, 128 bit; of a long line its CRC-32.

    It tells of damage and mix-ups, not of forgery, and of an output of 256 kB blake2b cost more than all else.
    """
    return zlib.crc32(text).to_bytes(4, "big") if len(text) > LONG_BYTES else _blake2b(text)


def is_same(text: bytes, known: bytes) -> bool:
    """Whether *text* is the line that has the digest *known*, which for a long line may be of either kind."""
    return known == (_blake2b(text) if len(known) == _DIGEST_BYTES else digest(text))


def _blake2b(text: bytes) -> bytes:
    return blake2b(text, digest_size=_DIGEST_BYTES).digest()


def read(path: Path) -> Iterator[JsonObject]:
    """The settled runs in *path*, in the order of settling. A torn last line, left by a kill, is skipped."""
    with path.open("rb") as file:
        for text in file:
            if text.endswith(b"\n"):
                yield parse(text)
