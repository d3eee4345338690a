"""``runner verify``: whether a batch's files are still as they were written."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from runner import batch, locations, shards_folder
from runner.errors import EXIT_FAIL, EXIT_PASS, RecordError, UsageError
from runner.plain import plain
from runner.stdout import while_read
from runner.units import size
from runner.values import JsonObject, dump
from runner.verify import Checked, Finding, Kind
from runner.verify import verify as findings

MOST_SAID, MOST_LISTED = 20, 10_000
"""So many findings of a kind are told, to a person and as JSON; all are counted."""

_ANEW = (
    "else start a new batch when this one has ended: where a job has 'reuse: succeeded' it takes from it what is as it"
    " was written, and runs the rest again"
)
_FIXES = {
    Kind.RESULTS_SHORT: "restore it from a copy; what can be done without one is told with its lines",
    Kind.LINE_CHANGED: f"restore the file from a copy; {_ANEW}",
    Kind.LINE_GONE: f"restore the file from a copy; {_ANEW}",
    Kind.LINES_MOVED: "restore the file from a copy, or undo what was done to it; until then 'runner results' still"
    " reads these lines, and 'runner show' and reuse don't find them",
    Kind.LINE_UNKNOWN: "restore the file from a copy; a line that somebody added can be taken out again",
    Kind.FILE_GONE: f"restore it from a copy; {_ANEW}",
    Kind.FILE_CHANGED: f"restore it from a copy; {_ANEW}",
    Kind.FILE_UNREADABLE: "see who may read it, and its disk",
}


@dataclass(slots=True)
class _Told:
    """What was found, *most* of a kind kept, in the order of finding."""

    most: int
    counts: Counter[Kind] = field(default_factory=Counter)
    kept: dict[Kind, list[Finding]] = field(default_factory=lambda: {kind: [] for kind in Kind})

    def add(self, finding: Finding) -> None:
        self.counts[finding.kind] += 1
        if len(self.kept[finding.kind]) < self.most:
            self.kept[finding.kind].append(finding)


def verify(name: str, *, output_dir: Path | None, as_json: bool = False, out: TextIO | None = None) -> int:
    """
    Hold the files of the batch *name*, or of its shards, against its ledger, and print what differs. Changes nothing.

    Returns:
        0 when all is as it was written, 1 when something is not.

    Raises:
        UsageError: there is no such batch, or it can't be read.
    """
    outputs = batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=output_dir)
    checked, told = Checked(), _Told(MOST_LISTED if as_json else MOST_SAID)
    try:
        common = shards_folder.find(name, outputs)
        if common is None:
            folders = [batch.find(name, outputs)]
        else:
            folders = [one.folder for one in common.there]
            for one in common.left:
                said = f"shard {one.shard} is {one.standing}: {common.start(one)}"
                checked.notes.append(f"not all is among these, {said}")
        for folder in folders:
            for finding in findings(folder, checked):
                told.add(finding)
    except RecordError as error:  # a ledger: with its exit code it would be taken for a finding
        raise UsageError(error.message, fix=error.fix) from None
    path = folders[0].path if common is None else common.path
    with while_read():
        for line in [dump(_document(path, told, checked)).decode()] if as_json else _text(path, told, checked):
            print(line, file=out or sys.stdout)
    return EXIT_FAIL if told.counts else EXIT_PASS


def _text(path: Path, told: _Told, checked: Checked) -> Iterator[str]:
    for kind, found in told.kept.items():
        yield from (plain(one.message) for one in found)
        if told.counts[kind] > len(found):
            yield f"and {told.counts[kind] - len(found):,} more like these"
        if found:
            yield f"  help: {_fix(found[0])}"
    yield from (f"note: {plain(note)}" for note in checked.notes)
    came_to = _count(told.counts.total(), "finding") if told.counts else "all is as it was written"
    looked_at = f"{_count(checked.lines, 'line')} and {_count(checked.files, 'artifact')}, {size(checked.size_bytes)}"
    yield f"{path.name}: {came_to} ({looked_at})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _document(path: Path, told: _Told, checked: Checked) -> JsonObject:
    return {
        "batch": {"id": path.name, "path": locations.shown(path)},
        "as_written": not told.counts,
        "lines": checked.lines,
        "artifacts": checked.files,
        "size_bytes": checked.size_bytes,
        "counts": dict(told.counts),
        "findings": [_as_json(one) for found in told.kept.values() for one in found],
        "notes": checked.notes,
    }


def _as_json(one: Finding) -> JsonObject:
    run = one.run
    return {
        "kind": one.kind,
        "file": str(one.file),
        "line": one.line,
        "byte": one.byte,
        "key": run.key if run else None,
        "job": run.job if run else None,
        "index": run.index if run else None,
        "message": one.message,
        "fix": _fix(one),
    }


def _fix(one: Finding) -> str:
    if locations.is_looked_at(one.file):
        return f"remove the folder {one.file.parent}: it is fetched again when it is looked at"
    return _FIXES[one.kind]
