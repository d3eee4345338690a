"""What a kill or a power loss leaves of a store at every step: it mends itself, and nothing is lost or taken twice."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from happened import a_run, a_settled, accepted, an_ending, ended, intended, new_store, opened_store, skipped, unsynced
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner import store as store_module
from runner.database import Database
from runner.errors import RecordError
from runner.events import Event, Reopened, Settled
from runner.results import digest, settled
from runner.runs import Run
from runner.states import Outcome
from runner.store import Store

FILES = ("ledger.sqlite", "ledger.sqlite-wal", "results.jsonl", ".results.jsonl.new")
FAILED = an_ending(Outcome.FAILED)


def the_run(number: int) -> Run:
    """The run *number*."""
    return a_run(f"k{number}", index=number)


def life(number: int, attempt: int = 1, *, succeeds: bool = True) -> list[Event]:
    """An attempt at a run that settles it."""
    run, at = the_run(number), 1000.0 * attempt
    ending = an_ending(output=f"of attempt {attempt}") if succeeds else FAILED
    return [
        intended(run, attempt, at=at),
        accepted(run, attempt, at=at + 1),
        a_settled(run, attempt, ending, at=at + 2),
    ]


def again(*numbers: int) -> list[Reopened]:
    """The wish to run these again."""
    return [Reopened(f"k{number}", 500.0) for number in numbers]


# The state of a store, told by its files alone


def lines_of(store: Store, folder: Path) -> dict[str, bytes]:
    """The line of every settled run, which must stand where the ledger says, and be what it says."""
    data = (folder / "results.jsonl").read_bytes()
    found: dict[str, bytes] = {}
    for offset, length in store.ledger.places():
        line = data[offset : offset + length]
        key = settled(line).run.key
        place = store.ledger.settled_line(key)
        assert place is not None
        assert (place.offset, place.length, place.digest) == (offset, length, digest(line))
        found[key] = line
    return found


def count_settled(store: Store) -> int:
    """How many runs the ledger counts as settled."""
    return sum(count for job in store.ledger.counts().values() for (state, _), count in job.items() if state.is_final)


def check_ends_clean(store: Store, folder: Path) -> None:
    """The end of the batch leaves the lines of settled runs, one each, in their order, and no other file."""
    before = lines_of(store, folder)
    assert len(before) == count_settled(store)
    store.drop_superseded()
    assert lines_of(store, folder) == before
    assert (folder / "results.jsonl").read_bytes() == b"".join(before.values())
    assert not (folder / ".results.jsonl.new").exists()


# Disks


@dataclass
class Disk:
    """
    Takes a picture of the folder before every step that reaches the disk, as a kill would leave it, and as a power loss
    would that forgets whatever was not synced: bytes, and names.
    """

    folder: Path
    pictures: list[dict[str, bytes]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    _synced: dict[int, bytes] = field(default_factory=dict)  # by inode
    _names: dict[str, int] = field(default_factory=dict)

    def step(self, name: str) -> None:
        """What is there before *name* happens."""
        self.steps.append(name)
        now = {file: self.folder / file for file in FILES if (self.folder / file).exists()}
        ledger = {file: path.read_bytes() for file, path in now.items() if file.startswith("ledger")}
        inodes = {file: path.stat().st_ino for file, path in now.items() if file not in ledger}
        self.pictures.append({file: path.read_bytes() for file, path in now.items()})
        for names in (inodes, self._names):  # names reach the disk sooner or later
            self.pictures.append(ledger | {file: self._synced.get(inode, b"") for file, inode in names.items()})

    def sync(self, descriptor: int) -> None:
        """What is in the file, or the folder, is safe now."""
        about = os.fstat(descriptor)
        if about.st_ino == self.folder.stat().st_ino:
            paths = {file: self.folder / file for file in FILES if not file.startswith("ledger")}
            self._names = {file: path.stat().st_ino for file, path in paths.items() if path.exists()}
        else:
            self._synced[about.st_ino] = os.pread(descriptor, about.st_size, 0) if about.st_size else b""


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Disk]:
    """Watch everything that a store does to the disk while the block runs; what is there is safe before."""
    disk = Disk(folder)

    def spied(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            disk.step(name)
            if name not in ("fsync", "fdatasync"):
                return real(*words, **named)
            with readable(words[0]) as descriptor:
                disk.sync(descriptor)
            return None

        return call

    def do(database: Database, sql: str, values: Sequence[Any] = ()) -> int:
        if sql == "COMMIT":
            disk.step("commit")
        return real_do(database, sql, values)

    real_do = Database.do
    for path in (folder, *(folder / file for file in FILES if (folder / file).exists())):
        descriptor = os.open(path, os.O_RDONLY)
        disk.sync(descriptor)
        os.close(descriptor)
    with monkeypatch.context() as patched:
        for name in ("write", "fdatasync", "fsync", "ftruncate", "replace"):
            patched.setattr(os, name, spied(name, getattr(os, name)))
        patched.setattr(Database, "do", do)
        yield disk
        disk.step("end")


@contextmanager
def readable(descriptor: int) -> Iterator[int]:
    """The same file, open for reading, which one that is written may not be."""
    found = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    try:
        yield found
    finally:
        os.close(found)


def restored(picture: dict[str, bytes], folder: Path) -> Store:
    """The store as a resume opens it on what *picture* shows."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file, data in picture.items():
        (folder / file).write_bytes(data)
    store = opened_store(folder)
    unsynced(store.ledger)
    return store


def check_every_picture(disk: Disk, folder: Path, *allowed: dict[str, bytes]) -> None:
    """
    Whatever is left after any step: the line of each run is one of those *allowed*, or missing where that is allowed;
    and the batch can be ended from there.
    """
    for picture in disk.pictures:
        store = restored(picture, folder)
        store.repair()
        found = lines_of(store, folder)
        for key in set(found).union(*allowed):
            assert found.get(key) in [lines.get(key) for lines in allowed], key
        assert store.repair() == 0
        assert lines_of(store, folder) == found
        check_ends_clean(store, folder)
        store.close()


def a_mixed_store(folder: Path) -> Store:
    """A store of two runs that succeeded, two that failed between them, and one that was skipped."""
    folder.mkdir()
    store = new_store(folder)
    for number in range(4):
        store.write(life(number, succeeds=number in (0, 2)))
    store.write([skipped(the_run(4))])
    return store


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Store]:
    """That store, in the folder "batch"."""
    store = a_mixed_store(tmp_path / "batch")
    yield store
    store.close()


# Running again


def test_what_is_run_again_is_as_if_it_had_not_settled_but_for_its_history(mixed: Store, tmp_path: Path) -> None:
    """Only who succeeded stays; attempts are money, so their numbers go on, and the retry policy begins anew."""
    mixed.reopen(again(1, 3, 4))
    assert lines_of(mixed, tmp_path / "batch").keys() == {"k0", "k2"}
    assert [(one.run.key, one.attempt, one.ended, one.outcomes, one.first_at) for one in mixed.ledger.open_runs()] == [
        ("k1", 1, True, (), None),
        ("k3", 1, True, (), None),
    ]
    assert [one.last.outcome for one in mixed.ledger.open_runs() if one.last] == [Outcome.FAILED] * 2
    assert not mixed.ledger.knows("k4")
    mixed.write(life(1, 2))
    assert [one.number for one in mixed.ledger.attempts("k1")] == [1, 2]
    check_ends_clean(mixed, tmp_path / "batch")


def test_a_run_that_succeeded_is_never_run_again(mixed: Store, tmp_path: Path) -> None:
    """Its result is paid for, and who asks for it again has made a mistake of ours."""
    before = lines_of(mixed, tmp_path / "batch")
    with pytest.raises(AssertionError, match="run k0 can't be run again"):
        mixed.reopen(again(1, 0))
    assert lines_of(mixed, tmp_path / "batch") == before


def test_without_anything_to_run_again_nothing_is_written_anew(mixed: Store, tmp_path: Path) -> None:
    """A file of gigabytes is not copied for nothing."""
    inode = (tmp_path / "batch/results.jsonl").stat().st_ino
    mixed.reopen([])
    mixed.drop_superseded()
    assert (tmp_path / "batch/results.jsonl").stat().st_ino == inode


def test_lines_are_in_the_order_of_settling_once_superseded_ones_are_gone(mixed: Store, tmp_path: Path) -> None:
    """A retry is newer than what succeeded before it."""
    mixed.reopen(again(1, 3, 4))
    mixed.write([*life(3, 2), *life(1, 2, succeeds=False), *life(4)])
    mixed.drop_superseded()
    data = (tmp_path / "batch/results.jsonl").read_bytes()
    assert [settled(line).run.key for line in data.splitlines(keepends=True)] == ["k0", "k2", "k3", "k1", "k4"]
    mixed.write(life(5))
    assert lines_of(mixed, tmp_path / "batch").keys() == {f"k{number}" for number in range(6)}


# Kills


def test_a_kill_while_runs_are_reopened(mixed: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are settled as they were, or run again; never both, and no old line comes back later."""
    before = lines_of(mixed, tmp_path / "batch")
    with watched(monkeypatch, tmp_path / "batch") as disk:
        mixed.reopen(again(1, 3, 4))
    assert disk.steps == ["commit", "commit", "end"]
    after = lines_of(mixed, tmp_path / "batch")
    check_every_picture(disk, tmp_path / "left", before, after)


def test_a_kill_while_superseded_lines_are_dropped(
    mixed: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the only time that a file with results is replaced."""
    mixed.reopen(again(1, 3, 4))
    mixed.write([*life(3, 2), *life(4)])
    before = lines_of(mixed, tmp_path / "batch")
    (tmp_path / "batch/.results.jsonl.new").write_bytes(b"left by an earlier kill")
    with watched(monkeypatch, tmp_path / "batch") as disk:
        mixed.drop_superseded()
    assert disk.steps == ["fsync", "fsync", "commit", "replace", "fsync", "commit", "end"]
    assert lines_of(mixed, tmp_path / "batch") == before
    check_every_picture(disk, tmp_path / "left", before, before)


def test_a_kill_while_runs_settle_again(mixed: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new line is adopted, the old one is not."""
    mixed.reopen(again(1, 3, 4))
    mixed.write([event for number in (1, 3) for event in life(number, 2)[:-1]])
    before = lines_of(mixed, tmp_path / "batch")
    with watched(monkeypatch, tmp_path / "batch") as disk:
        mixed.write([life(1, 2)[-1], life(3, 2, succeeds=False)[-1], skipped(the_run(4), at=9000.0)])
    assert disk.steps == ["write", "fdatasync", "commit", "end"]
    after = lines_of(mixed, tmp_path / "batch")
    check_every_picture(disk, tmp_path / "left", before, after)
    store = restored(disk.pictures[-6], tmp_path / "left")  # killed before the commit: the lines are there
    assert store.repair() == 3
    assert lines_of(store, tmp_path / "left") == after
    store.close()


def test_a_kill_while_a_kill_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that goes down twice in an evening loses no more than one that does once."""
    store = a_mixed_store(tmp_path / "batch")
    store.reopen(again(1, 3, 4))
    before = lines_of(store, tmp_path / "batch")
    store.close()
    results = tmp_path / "batch/results.jsonl"
    lines = [life(1, 2)[-1], life(3, 2)[-1], skipped(the_run(4), at=9000.0)]
    one, two, three = (event.line for event in lines if isinstance(event, Settled))
    results.write_bytes(results.read_bytes() + one + b"\0" * 300 + b"\n" + two + three + b'{"torn')
    store = opened_store(tmp_path / "batch")
    with watched(monkeypatch, tmp_path / "batch") as disk:
        assert store.repair() == 3
    after = lines_of(store, tmp_path / "batch")
    assert after == before | {"k1": one, "k3": two, "k4": three}
    assert results.read_bytes() == b"".join(after.values())
    check_every_picture(disk, tmp_path / "left", after)
    store.close()


# Failures


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_while_lines_are_dropped_is_said_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The results are there all the same, and the next resume cleans up."""
    store = a_mixed_store(tmp_path / "batch")
    store.reopen(again(1, 3, 4))
    store.write(life(1, 2))
    before = lines_of(store, tmp_path / "batch")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, step, refuse)
        with pytest.raises(RecordError) as caught:
            store.drop_superseded()
    assert caught.value.message.endswith("can't be written: No space left on device")
    assert caught.value.fix == "see that the disk has room and the folder can be written, then go on with --resume"
    store.close()
    store = opened_store(tmp_path / "batch")
    assert store.repair() == 0
    assert lines_of(store, tmp_path / "batch") == before
    check_ends_clean(store, tmp_path / "batch")
    store.close()


# Whatever happens


OPERATIONS = st.tuples(st.sampled_from(["settle", "fail", "skip", "wait", "again", "end", "resume"]), st.integers(0, 5))


class Life:
    """A batch of six runs, carried by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.store = new_store(folder)
        unsynced(self.store.ledger)

    def act(self, what: str, number: int) -> None:
        """Let *what* happen to the run *number*, where it can."""
        self.count += 1
        at, key = 1000.0 * self.count, f"k{number}"
        if what == "again":
            found = [key for key, _ in self.store.ledger.unsuccessful()]
            self.store.reopen([Reopened(key, at) for key in found[: number + 1]])
        elif what == "end":
            self.store.drop_superseded()
        elif what == "resume":
            self.store.repair()
        elif key not in lines_of(self.store, self.folder):
            self._carry(what, the_run(number), at)

    def _carry(self, what: str, run: Run, at: float) -> None:
        """Carry an attempt of *run* to its end; one that a kill cut off goes on."""
        attempts = self.store.ledger.attempts(run.key)
        attempt = len(attempts)
        if what == "skip":
            self.store.write([] if attempts else [skipped(run, at=at)])
            return
        if not attempts or attempts[-1].ended_at is not None:
            attempt += 1
            self.store.write([intended(run, attempt, at=at)])
        if not attempts or attempts[-1].job_id is None or attempts[-1].ended_at is not None:
            self.store.write([accepted(run, attempt, at=at + 1)])
        if what == "wait":
            self.store.write([ended(run, attempt, FAILED, at=at + 2)])
        else:
            ending = an_ending(output=self.count) if what == "settle" else FAILED
            self.store.write([a_settled(run, attempt, ending, at=at + 2)])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    operations=st.lists(st.tuples(OPERATIONS, st.none() | st.integers(0, 40)), max_size=14),
)
def test_no_history_with_kills_loses_a_line_or_takes_an_old_one(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[tuple[str, int], int | None]]
) -> None:
    """Whatever is done in whatever order, and wherever it is cut off: each run is as before, or as after."""
    root = tmp_path_factory.mktemp("history")
    (root / "batch").mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(store_module, "sync_folder", lambda _: None)
        one = Life(root / "batch")
        for (what, number), kill in operations:
            before = lines_of(one.store, one.folder)
            with watched(monkeypatch, one.folder) as disk:
                one.act(what, number)
            after = lines_of(one.store, one.folder)
            if kill is None:
                continue
            one.store.close()
            # Of a kill only: what is not synced here was not meant to be, see `unsynced`.
            picture = disk.pictures[::3][kill % len(disk.steps)]
            one.store = restored(picture, one.folder)
            one.store.repair()
            found = lines_of(one.store, one.folder)
            for key in before.keys() | after.keys() | found.keys():
                assert found.get(key) in (before.get(key), after.get(key)), (key, what)
        one.store.repair()
        check_ends_clean(one.store, one.folder)
        one.store.close()
