"""
``runner clean``: old batches removed, the newest of each job file kept.

A batch needs no other one: what it reused of an earlier one it has itself, lines and files.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from runner import batch, locations
from runner.errors import EXIT_BUSY, EXIT_PASS, BatchBusy, UsageError
from runner.inventory import Held, held, roots, size_bytes
from runner.keep import ASIDE, cut_off, remove
from runner.plain import plain
from runner.stdout import while_read
from runner.units import size
from runner.values import JsonObject, dump

KEEP = 10
"""So many batches of a job file are kept unless somebody says otherwise."""


@dataclass(frozen=True, slots=True)
class Rules:
    """
    What goes: of each job file the batches beyond the newest *keep* that were started more than *older_than_s* ago.

    Never the one that ``latest`` points to. Those that are unfinished, or can't be read, only if *unfinished*.
    """

    keep: int = KEEP
    older_than_s: float = 0.0
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class Manners:
    """How it goes: without asking (*yes*), only said (*dry_run*), said as JSON."""

    yes: bool = False
    dry_run: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Old:
    """A batch that goes. *note* is what a person should know before."""

    name: str
    id: str
    path: Path
    size_bytes: int
    note: str | None

    def as_json(self) -> JsonObject:
        """The batch as ``--format json`` has it."""
        return {"id": self.id, "name": self.name, "path": str(self.path), "size_bytes": self.size_bytes}


def clean(
    name: str | None, rules: Rules, manners: Manners, *, output_dir: Path | None, now: float | None = None
) -> int:
    """
    Remove old batches of the job file's *name*, or of all, once a person has agreed.

    Returns:
        0, or 5 when a job file's batches were left alone because one of them is running.

    Raises:
        BatchBusy: a batch of *name* is running.
        UsageError: there is no *name*, or nobody can be asked and *manners* don't say yes.
        RecordError: a batch can't be removed.
    """
    now = time.time() if now is None else now
    locations.check_is_here("clean", name, output_dir)
    outputs = batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=output_dir)
    code = EXIT_PASS
    going: dict[Path, list[Old]] = {}
    for root in _roots(outputs, name):
        found = list(_old(root, rules, now))
        if found and _is_busy(root, now, manners, must_not_be=name is not None):
            code = EXIT_BUSY
        elif found:
            going[root] = found
    all_ = [old for found in going.values() for old in found]
    if not manners.as_json:
        _tell(_listed(all_) or ["nothing to remove"])
    if not all_ or manners.dry_run or not _is_agreed(all_, manners):
        return _end([], all_, manners, code)
    removed: list[Old] = []
    for root, found in going.items():
        try:
            removed += _remove(root, found, rules, now)
        except BatchBusy as error:  # it began while somebody was asked
            print(error.render(), file=sys.stderr)
            code = EXIT_BUSY
    return _end(removed, all_, manners, code)


def _roots(outputs: Path, name: str | None) -> Iterator[Path]:
    """The folders to look through. A link may lead anywhere, so none is followed."""
    if name is not None and (name in ("", ".", "..") or "/" in name):
        raise UsageError(f"{name!r} is no job file's name", fix="write the 'name' that the job file has")
    known = roots(outputs)
    for root in known if name is None else [outputs / name]:
        if root.is_symlink() and name is not None:
            raise UsageError(
                f"{root} is a link, and clean follows none",
                fix=f"clean where it leads: --output-dir {root.resolve().parent}",
            )
        if root.is_symlink():
            print(f"note: {root} is a link, and clean follows none", file=sys.stderr)
        elif root in known:
            yield root
        else:
            from runner.wording import suggest  # knows the whole grammar, which only a mistake needs

            raise UsageError(
                f"{outputs} has no batches of {name!r}", fix=suggest(root.name, [one.name for one in known])
            )


def _old(root: Path, rules: Rules, now: float) -> Iterator[Old]:
    """What goes by the *rules*, the newest first; then what an earlier clean began to remove."""
    latest = (root / "latest").resolve()
    for one in held(root)[rules.keep :]:
        begun = datetime.strptime(one.folder.id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        note = _why_not(one)
        if (
            one.folder.path.resolve() != latest
            and now - begun.timestamp() > rules.older_than_s
            and (note is None or rules.unfinished)
        ):
            yield Old(root.name, one.folder.id, one.folder.path, size_bytes(one.folder.path) or 0, note)
    for path in cut_off(root):
        note = "an earlier clean was cut off"
        yield Old(root.name, path.name.removeprefix(ASIDE), path, size_bytes(path) or 0, note)


def _why_not(one: Held) -> str | None:
    if one.account is None:
        return one.problem
    if one.account.is_finished:
        return None
    return f"unfinished: {one.account.planned - one.account.settled} of {one.account.planned} runs are not settled"


def _is_busy(root: Path, now: float, manners: Manners, *, must_not_be: bool) -> bool:
    """Whether a batch in *root* is running; says so, or raises BatchBusy, before anybody is asked."""
    if manners.dry_run:  # which writes nothing, and a lock is written
        is_busy, said = batch.holder_is_alive(root), f"a batch of {root.name!r} is running"
    else:
        try:
            with batch.lock(root, now=now):
                is_busy, said = False, ""
        except BatchBusy as error:
            if must_not_be:
                raise
            is_busy, said = True, error.message
    if is_busy:
        print(f"note: {said}; its batches are left alone", file=sys.stderr)
    return is_busy


def _is_agreed(going: Sequence[Old], manners: Manners) -> bool:
    if manners.yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{_counted(going)} would be removed, and there is no terminal to ask at",
            fix="add --yes to remove them, or --dry-run to only see them",
        )
    print(f"remove {_counted(going)}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _remove(root: Path, going: Sequence[Old], rules: Rules, now: float) -> Iterator[Old]:
    """Remove those *going* that still may, now that no batch can begin or go on."""
    with batch.lock(root, now=now):
        still = {old.path for old in _old(root, rules, now)}
        for old in going:
            if old.path in still:
                remove(old.path)
                yield old


def _listed(going: Sequence[Old]) -> list[str]:
    names, sizes = [plain(old.name) for old in going], [size(old.size_bytes) for old in going]
    wide, wider = (max(map(len, texts), default=0) for texts in (names, sizes))
    return [
        f"{name:<{wide}}  {old.id}  {amount:>{wider}}" + (f"  {plain(old.note)}" if old.note else "")
        for old, name, amount in zip(going, names, sizes, strict=True)
    ]


def _counted(going: Sequence[Old]) -> str:
    many = "1 batch" if len(going) == 1 else f"{len(going)} batches"
    return f"{many}, {size(_total(going))}"


def _total(going: Sequence[Old]) -> int:
    return sum(old.size_bytes for old in going)


def _end(removed: Sequence[Old], going: Sequence[Old], manners: Manners, code: int) -> int:
    """Say what came of it."""
    if manners.as_json and manners.dry_run:
        _tell([_json("would_remove", going, "would_free_bytes")])
    elif manners.as_json:
        _tell([_json("removed", removed, "freed_bytes")])
    elif going:
        would = f"would remove {_counted(going)}" if manners.dry_run else "nothing removed"
        _tell([f"removed {_counted(removed)} freed" if removed else would])
    return code


def _json(what: str, batches: Sequence[Old], total: str) -> str:
    return dump({what: [old.as_json() for old in batches], total: _total(batches)}).decode()


def _tell(lines: Sequence[str]) -> None:
    with while_read():
        print("\n".join(lines))
