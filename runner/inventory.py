"""The batches that an outputs folder holds: how far each is, what it came to, what it takes on disk."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runner.batch import Folder, holder_is_alive, newest_first
from runner.errors import RunnerError, UsageError
from runner.ledger import Ledger
from runner.states import SETTLED, State


@dataclass(frozen=True, slots=True)
class Account:
    """
    How far a batch is, by its ledger. Times are seconds since the epoch.

    *verdict* is None while nobody has said what it came to. *states* counts the settled runs; *reused* of them have the
    result of an earlier batch. *repeats* is the id of the batch that it ran again, None where it is no such. *profile*
    is the job file's that it was run with, None for none.
    """

    verdict: str | None
    planned: int
    states: Mapping[State, int]
    started_at: float
    ended_at: float | None
    reused: int = 0
    repeats: str | None = None
    profile: str | None = None

    @property
    def settled(self) -> int:
        """Runs that are settled."""
        return sum(self.states.values())

    @property
    def is_finished(self) -> bool:
        """Whether every run is settled."""
        return self.settled >= self.planned


@dataclass(frozen=True, slots=True)
class Held:
    """A batch that is there: of which job file, how far it is; or, if that can't be read, the *problem*."""

    name: str
    folder: Folder
    account: Account | None
    problem: str | None = None


def roots(outputs: Path, name: str | None = None) -> list[Path]:
    """
    The folders in *outputs* that may hold batches, one for each job file's name; only that of *name*, if given.

    Raises:
        UsageError: *outputs* can't be read.
    """
    if name is not None:
        return [outputs / name] if (outputs / name).is_dir() else []
    with _said_plainly(outputs):
        return sorted(path for path in outputs.iterdir() if path.is_dir()) if outputs.is_dir() else []


def held(root: Path) -> list[Held]:
    """
    The batches in *root*, the newest first. One that can't be read has its problem, and hides no other.

    Raises:
        UsageError: *root* itself can't be read.
    """
    with _said_plainly(root):
        return [_held(root.name, folder) for folder in newest_first(root)]


def _held(name: str, folder: Folder) -> Held:
    try:
        manifest = folder.read_manifest()
        with Ledger.read_only(folder.ledger) as ledger, ledger.snapshot():
            states: Counter[State] = Counter()
            for counts in ledger.counts().values():
                for (state, _), count in counts.items():
                    states[state] += count if state in SETTLED else 0
            account = Account(
                verdict=ledger.noted("verdict"),
                planned=sum(ledger.noted("plan").values()),
                states=states,
                started_at=ledger.noted("started_at"),
                ended_at=ledger.noted("ended_at"),
                reused=sum(ledger.reused().values()),
                repeats=manifest.get("repeats"),
                profile=manifest.get("overrides", {}).get("profile"),
            )
    except RunnerError as error:
        return Held(name, folder, None, error.message)
    return Held(name, folder, account)


def live(root: Path, batches: Iterable[Held]) -> Held | None:
    """The one of the *batches* in *root* that is running now: without a verdict, and the last one written to."""
    if not holder_is_alive(root):
        return None
    without = [one for one in batches if one.account is not None and one.account.verdict is None]
    return max(without, key=lambda one: _written_at(one.folder), default=None)


def _written_at(folder: Folder) -> float:
    """When something was last written, seconds since the epoch; of the log, as readers touch SQLite's files."""
    try:
        return folder.log.stat().st_mtime
    except OSError:
        return 0.0


def size_bytes(path: Path, *, most_files: int | None = None) -> int | None:
    """
    What the files below *path* have, links not followed; None when there are more than *most_files*.

    Files that go away meanwhile, or can't be seen, don't count.
    """
    total, seen, left = 0, 0, [path]
    while left:
        with suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                seen += 1
                if most_files is not None and seen > most_files:
                    return None
                if entry.is_dir(follow_symlinks=False):
                    left.append(Path(entry.path))
                else:
                    with suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_size
    return total


@contextmanager
def _said_plainly(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror or error}", fix="see who may read it, or name another folder"
        ) from None
