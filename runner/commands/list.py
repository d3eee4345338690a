"""``runner list``: the batches that are there, the newest first."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from runner import batch, locations
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

COLUMNS = (
    *("name", "profile", "id", "verdict", "settled", "succeeded", "reused", "failed", "other"),
    *("started", "took", "size"),
)
LEFT = {"name", "profile", "id", "verdict", "started"}

AT_TIMES = ("profile", "reused")
"""Columns that are there when a batch has something in them."""


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
    if (url := locations.url_in(name)) is not None:
        output_dir, name = Path(url), None
    if (url := locations.url_in(output_dir)) is not None:
        from runner.remote.reading import all_in

        outputs = all_in(url, name)
    else:
        outputs = batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=output_dir)
    found = sorted(_entries(outputs, name), key=lambda entry: str(entry["id"]), reverse=True)
    if as_json:
        text = dump({"batches": found}).decode()
    elif found:
        text = "\n".join(_table(found, time.time() if now is None else now))
    else:
        text = f"no batches{f' of {name!r}' if name else ''} in {locations.shown(outputs)}"
    with while_read():
        print(text, file=out or sys.stdout)
    return EXIT_PASS


def _entries(outputs: Path, name: str | None) -> Iterator[JsonObject]:
    """What ``--format json`` says of each batch."""
    is_elsewhere = locations.is_looked_at(outputs)
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
                "path": locations.shown(one.folder.path),
                **_said(one.account, "running" if one is running else "unfinished"),
                "size_bytes": None if is_elsewhere else size_bytes(one.folder.path, most_files=MOST_FILES),
                "problem": one.problem,
            }


def _said(account: Account | None, otherwise: str) -> JsonObject:
    words = [state.value for state in State if state in SETTLED]
    if account is None:
        return dict.fromkeys(
            ("profile", "verdict", "runs", "settled", *words, "reused", "repeats", "started_at", "ended_at")
        )
    return {
        "profile": account.profile,
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
    found = [_row(entry, now) for entry in entries]
    columns = [name for name in COLUMNS if name not in AT_TIMES or any(row.get(name) for row in found)]
    widths = {name: max(len(name), *(len(row.get(name, "")) for row in found)) for name in columns}
    yield _line([f"{name:<{widths[name]}}" if name in LEFT else f"{name:>{widths[name]}}" for name in columns])
    for row in found:
        shown = [name for name in columns if name in row] if "problem" in row else columns
        cells = [f"{row[name]:<{widths[name]}}" if name in LEFT else f"{row[name]:>{widths[name]}}" for name in shown]
        yield _line([*cells, *([row["problem"]] if "problem" in row else [])])


def _line(cells: Sequence[str]) -> str:
    return "  ".join(cells).rstrip()


def _row(entry: JsonObject, now: float) -> Mapping[str, str]:
    """The cells of a batch by column, and where it can't be read its ``problem``."""
    if entry["problem"] is not None:
        problem = plain(entry["problem"]).replace("\n", " ")
        return {"name": plain(entry["name"]), "profile": "", "id": entry["id"], "problem": problem}
    started = datetime.fromisoformat(entry["started_at"])
    ended_at = entry["ended_at"]
    ended = datetime.fromisoformat(ended_at) if ended_at else datetime.fromtimestamp(now, UTC)
    # What was cut off took until nobody knows when.
    took_s = (ended - started).total_seconds() if ended_at or entry["verdict"] == "running" else None
    return {
        "name": plain(entry["name"]),
        "profile": plain(entry["profile"] or ""),
        "id": entry["id"],
        "verdict": entry["verdict"],
        "settled": f"{entry['settled']}/{entry['runs']}",
        "succeeded": str(entry["succeeded"]),
        "reused": str(entry["reused"] or ""),
        "failed": str(entry["failed"]),
        "other": str(entry["cancelled"] + entry["skipped"]),
        "started": f"{started:%Y-%m-%d %H:%M:%S}Z",
        "took": "" if took_s is None else elapsed(max(0.0, took_s)),
        "size": "" if entry["size_bytes"] is None else size(entry["size_bytes"]),
    }
