"""``runner list``: the batches that are there, the newest first."""

import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from runner import batch
from runner.clock import iso
from runner.errors import EXIT_PASS, UsageError
from runner.inventory import Account, held, live, roots, size_bytes
from runner.plain import plain
from runner.states import SETTLED, State
from runner.stdout import while_read
from runner.units import elapsed, size
from runner.values import JsonObject, dump

MOST_FILES = 10_000
"""A batch with more files is listed without its size: to add them up would take longer than all the rest."""

COLUMNS = ("name", "id", "verdict", "settled", "succeeded", "failed", "other", "started", "took", "size")
LEFT = {"name", "id", "verdict", "started"}


def list_batches(
    name: str | None = None,
    *,
    output_dir: Path | None,
    as_json: bool = False,
    now: float | None = None,
    out: TextIO | None = None,
) -> int:
    """
    Print the batches of the job file's *name*, or all, the newest first.

    Raises:
        UsageError: the outputs folder can't be read.
    """
    outputs = batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=output_dir)
    found = sorted(_entries(outputs, name), key=lambda entry: str(entry["id"]), reverse=True)
    if as_json:
        text = dump({"batches": found}).decode()
    elif found:
        text = "\n".join(_table(found, time.time() if now is None else now))
    else:
        text = f"no batches{f' of {name!r}' if name else ''} in {outputs}"
    with while_read():
        print(text, file=out or sys.stdout)
    return EXIT_PASS


def _entries(outputs: Path, name: str | None) -> Iterator[JsonObject]:
    """What ``--format json`` says of each batch."""
    for root in roots(outputs, name):
        try:
            batches = held(root)
        except UsageError as error:  # another's, perhaps: it hides no other
            print(f"note: {error.message}", file=sys.stderr)
            continue
        running = live(root, batches)
        for one in batches:
            yield {
                "id": one.folder.id,
                "name": one.name,
                "path": str(one.folder.path),
                **_said(one.account, "running" if one is running else "unfinished"),
                "size_bytes": size_bytes(one.folder.path, most_files=MOST_FILES),
                "problem": one.problem,
            }


def _said(account: Account | None, otherwise: str) -> JsonObject:
    words = [state.value for state in State if state in SETTLED]
    if account is None:
        return dict.fromkeys(("verdict", "runs", "settled", *words, "reused", "repeats", "started_at", "ended_at"))
    return {
        "verdict": account.verdict or otherwise,
        "runs": account.planned,
        "settled": account.settled,
        **{word: account.states.get(State(word), 0) for word in words},
        "reused": account.reused,
        "repeats": account.repeats,
        "started_at": iso(account.started_at),
        "ended_at": None if account.ended_at is None else iso(account.ended_at),
    }


def _table(entries: Sequence[JsonObject], now: float) -> Iterator[str]:
    """The batches for a person. What can't be read has its problem where the others have their numbers."""
    rows = [_row(entry, now) for entry in entries]
    whole = [COLUMNS, *(row for row in rows if len(row) == len(COLUMNS))]
    widths = [max(len(row[number]) for row in whole) for number in range(len(COLUMNS))]
    widths[:2] = [max(len(row[number]) for row in [COLUMNS, *rows]) for number in range(2)]
    for row in [COLUMNS, *rows]:
        cells = [
            f"{text:<{width}}" if column in LEFT or len(row) != len(COLUMNS) else f"{text:>{width}}"
            for column, width, text in zip(COLUMNS, widths, row, strict=False)
        ]
        yield "  ".join(cells).rstrip()


def _row(entry: JsonObject, now: float) -> tuple[str, ...]:
    if entry["problem"] is not None:
        return plain(entry["name"]), entry["id"], plain(entry["problem"]).replace("\n", " ")
    started = datetime.fromisoformat(entry["started_at"])
    ended_at = entry["ended_at"]
    ended = datetime.fromisoformat(ended_at) if ended_at else datetime.fromtimestamp(now, UTC)
    # What was cut off took until nobody knows when.
    took_s = (ended - started).total_seconds() if ended_at or entry["verdict"] == "running" else None
    return (
        plain(entry["name"]),
        entry["id"],
        entry["verdict"],
        f"{entry['settled']}/{entry['runs']}",
        str(entry["succeeded"]),
        str(entry["failed"]),
        str(entry["cancelled"] + entry["skipped"]),
        f"{started:%Y-%m-%d %H:%M:%S}Z",
        "" if took_s is None else elapsed(max(0.0, took_s)),
        "" if entry["size_bytes"] is None else size(entry["size_bytes"]),
    )
