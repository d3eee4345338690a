"""The one writer: order of writing, repair after a kill, and the thread around it."""

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from happened import a_run, a_settled, accepted, an_ending, carried, ended, intended, new_store, opened_store, unsynced

from runner import record, results
from runner import store as store_module
from runner.database import Database
from runner.errors import RecordError
from runner.events import Event, Sampled, Settled, Withdrawn
from runner.ledger import Ledger, Place
from runner.record import GROUP, MANY, Recorder
from runner.results import digest
from runner.states import Outcome, State
from runner.store import Store

FIX = "\n  help: see that the disk has room and the folder can be written, then go on with --resume"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = new_store(tmp_path)
    yield store
    store.close()


def some(first: int, count: int) -> list[Event]:
    """The lives of *count* runs that were intended and accepted in earlier groups."""
    return [a_settled(a_run(f"k{n}", index=n)) for n in range(first, first + count)]


def begun(store: Store, *numbers: int) -> None:
    """Bring runs as far as a job id."""
    for number in numbers:
        run = a_run(f"k{number}", index=number)
        store.write([intended(run), accepted(run)])


# Order


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the disk, in its order."""
    told: list[str] = []

    def spied(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any) -> Any:
            told.append(name)
            return real(*words)

        return call

    monkeypatch.setattr(os, "write", spied("line", os.write))
    monkeypatch.setattr(os, "fdatasync", spied("sync", os.fdatasync))
    monkeypatch.setattr(Ledger, "apply", spied("commit", Ledger.apply))
    return told


def test_a_line_is_synced_before_its_row_is_committed(store: Store, steps: list[str]) -> None:
    """The other way round, a kill would leave a row that promises a result nobody has."""
    store.write(carried(a_run()))
    assert steps == ["line", "sync", "commit"]


def test_a_group_shares_one_write_one_sync_and_one_commit(store: Store, steps: list[str]) -> None:
    """A sync to disk takes milliseconds, and there may be a thousand runs a second."""
    store.write([event for number in range(50) for event in carried(a_run(f"k{number}"))])
    assert steps == ["line", "sync", "commit"]


def test_without_a_line_nothing_but_the_ledger_is_touched(store: Store, steps: list[str]) -> None:
    """An intent is in the way of every submit."""
    store.write([intended(a_run())])
    store.write([])
    assert steps == ["commit"]


def test_the_name_of_the_results_file_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose folder was not synced may be gone after power loss, however often it was synced itself."""
    synced: list[Path] = []
    monkeypatch.setattr(store_module, "sync_folder", synced.append)
    new_store(tmp_path).close()
    assert synced == [tmp_path]


def test_every_row_knows_its_line(store: Store, tmp_path: Path) -> None:
    """Also when a write takes only a part at a time."""
    for group in (some(0, 3), some(3, 2)):
        store.write(group)
    data = (tmp_path / "results.jsonl").read_bytes()
    for number in range(5):
        place = store.ledger.settled_line(f"k{number}")
        assert place is not None
        line = data[place.offset : place.offset + place.length]
        assert (digest(line), results.settled(line).run.key) == (place.digest, f"k{number}")


def test_a_write_that_takes_a_part_is_gone_on_with(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large lines, and signals, make the kernel do that."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:7]))
    event = a_settled(a_run(), 0)
    store.write([event])
    assert (tmp_path / "results.jsonl").read_bytes() == event.line


# Failures


def refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")


def refuse_commit(real: Callable[..., int]) -> Callable[..., int]:
    def do(self: Database, sql: str, values: tuple[object, ...] = ()) -> int:
        if sql == "COMMIT":
            raise RecordError("the ledger can't be used: disk I/O error")
        return real(self, sql, values)

    return do


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("write", "results.jsonl can't be written: No space left on device"),
        ("fdatasync", "results.jsonl can't be written: No space left on device"),
        ("commit", "can't be used: disk I/O error"),
    ],
)
async def test_a_failure_reaches_who_waits_and_all_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, message: str
) -> None:
    """What could not be written must not look saved, and nothing more may be paid for."""
    store = new_store(tmp_path)
    recorder = Recorder(store)

    async def batch() -> None:
        async with recorder:
            await recorder.record(intended(a_run()))
            with monkeypatch.context() as broken:
                if step == "commit":
                    broken.setattr(Database, "do", refuse_commit(Database.do))
                else:
                    broken.setattr(os, step, refuse)
                found = await asyncio.gather(*(recorder.record(one) for one in some(1, 3)), return_exceptions=True)
            assert all(isinstance(one, RecordError) and one.message.endswith(message) for one in found)
            assert recorder.failure in found
            with pytest.raises(RecordError):
                recorder.tell(intended(a_run("late")))
            with pytest.raises(RecordError):
                await recorder.record(intended(a_run("late")))

    with pytest.raises(RecordError) as final:
        await batch()
    assert final.value is recorder.failure
    store.close()
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.counts() == {"photos": {(State.SUBMITTING, None): 1}}


def test_a_full_disk_is_said_in_full(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which file, why, and how to go on."""
    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(RecordError) as caught:
        store.write(some(0, 1))
    path = tmp_path / "results.jsonl"
    assert caught.value.render() == f"error: {path} can't be written: No space left on device{FIX}"


async def test_a_failure_that_nobody_waited_for_is_said_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A withdrawal that is told last must not be lost in silence."""
    store = new_store(tmp_path)
    monkeypatch.setattr(Ledger, "apply", refuse)
    with pytest.raises(RecordError, match="No space left on device"):
        async with Recorder(store) as recorder:
            recorder.tell(intended(a_run()))
    store.close()


async def test_a_bug_in_the_writer_is_no_silence(tmp_path: Path) -> None:
    """Who waits must not wait for ever."""
    store = new_store(tmp_path)
    with pytest.raises(RecordError) as caught:
        async with Recorder(store) as recorder:
            await recorder.record(Withdrawn("nobody", 1))
    assert caught.value.message == 'the recorder failed: AssertionError("run nobody can\'t become pending")'
    assert isinstance(caught.value.__cause__, AssertionError)
    store.close()


async def test_another_error_is_not_covered_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first trouble is the one to show."""
    store = new_store(tmp_path)
    monkeypatch.setattr(Ledger, "apply", refuse)

    async def batch() -> None:
        async with Recorder(store) as recorder:
            recorder.tell(intended(a_run()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await batch()
    store.close()


# Repair


def state(store: Store) -> dict[str, State]:
    """Where each open run stands; those that are settled are not in it."""
    return {one.run.key: State.SUBMITTED if one.job_id else State.SUBMITTING for one in store.ledger.open_runs()}


def test_a_kill_between_line_and_commit_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is on disk: it is adopted, not paid for again."""
    store = new_store(tmp_path)
    begun(store, 1, 2)
    store.write(some(1, 1))
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "apply", refuse)
        with pytest.raises(OSError, match="No space"):
            store.write(some(2, 1))
    store.close()
    again = opened_store(tmp_path)
    assert state(again) == {"k2": State.SUBMITTED}
    assert (again.repair(), state(again), again.repair()) == (1, {}, 0)
    assert again.ledger.settled_line("k2") == Place(*placed(tmp_path, 1))
    again.close()


def placed(folder: Path, number: int) -> tuple[int, int, bytes]:
    lines = (folder / "results.jsonl").read_bytes().splitlines(keepends=True)
    return sum(map(len, lines[:number])), len(lines[number]), digest(lines[number])


def test_every_prefix_of_the_last_group_is_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a kill cut the writing: whole lines are kept, the torn one goes, the rest is as before."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    store = new_store(before)
    begun(store, 1, 2, 3)
    store.write(some(1, 1))
    store.close()
    shutil.copytree(before, after)
    old = (before / "results.jsonl").read_bytes()
    store = opened_store(after)
    store.write(some(2, 2))
    store.close()
    new = (after / "results.jsonl").read_bytes()
    ledger = (before / "ledger.sqlite").read_bytes()
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    folder = tmp_path / "cut"
    folder.mkdir()
    for end in range(len(old), len(new) + 1):
        (folder / ".ledger.seal").unlink(missing_ok=True)  # it speaks of the ledger of the last time
        (folder / "ledger.sqlite").write_bytes(ledger)
        (folder / "results.jsonl").write_bytes(new[:end])
        store = opened_store(folder)
        unsynced(store.ledger)
        whole = new[: new.rfind(b"\n", 0, end) + 1]
        kept = whole.count(b"\n")
        assert store.repair() == kept - 1
        assert (folder / "results.jsonl").read_bytes() == whole
        assert state(store) == {f"k{number}": State.SUBMITTED for number in range(kept + 1, 4)}
        assert store.ledger.lines_end() == len(whole)
        store.close()


def test_what_is_adopted_is_synced_before_it_is_committed(tmp_path: Path, steps: list[str]) -> None:
    """The kill may have come before the sync: a later power loss must not find the ledger ahead of the lines."""
    store = new_store(tmp_path)
    (tmp_path / "results.jsonl").write_bytes(a_settled(a_run(), 0).line)
    store.close()
    again = opened_store(tmp_path)
    steps.clear()
    again.repair()
    assert steps == ["sync", "commit", "commit"][: len(steps)]
    assert steps[0] == "sync"
    again.close()


def test_an_adopted_line_brings_the_job_id_that_the_ledger_missed(tmp_path: Path) -> None:
    """Answer and result may share a commit, and a kill then takes both from the ledger."""
    store = new_store(tmp_path)
    run = a_run()
    store.write([intended(run)])
    store.close()
    (tmp_path / "results.jsonl").write_bytes(a_settled(run).line)
    again = opened_store(tmp_path)
    assert again.repair() == 1
    assert again.ledger.counts() == {"photos": {(State.SUCCEEDED, Outcome.COMPLETED): 1}}
    assert again.ledger._db.first("SELECT job_id, submitted_at FROM attempts")[:] == ("k1-job-1", 101.0)
    again.close()


def test_a_ledger_of_an_earlier_day_is_brought_up_to_the_results(tmp_path: Path) -> None:
    """Somebody copied the folder without the WAL beside the ledger: what was saved is saved."""
    store = new_store(tmp_path)
    run = a_run("k2")
    store.write([intended(run), accepted(run), ended(run)])
    store.close()
    lines = [a_settled(a_run("k1"), 3).line, a_settled(run, 2).line, a_settled(a_run("k3"), 0, an_ending()).line]
    (tmp_path / "results.jsonl").write_bytes(b"".join(lines))
    again = opened_store(tmp_path)
    assert (again.repair(), again.ledger.open_runs()) == (3, [])
    again.close()


def test_a_long_tail_is_adopted_whole(tmp_path: Path) -> None:
    """However much of it there is: cutting any of it would lose results that were paid for."""
    new_store(tmp_path).close()
    lines = [a_settled(a_run(f"k{number}"), 0).line for number in range(GROUP + 3)]
    (tmp_path / "results.jsonl").write_bytes(b"".join(lines))
    again = opened_store(tmp_path)
    assert again.repair() == GROUP + 3
    assert again.ledger.lines_end() == sum(map(len, lines))
    again.close()


@pytest.mark.parametrize("size", [70_000, 5_000_000], ids=["more than a pipe", "an image"])
def test_a_huge_line_is_one_line(tmp_path: Path, size: int) -> None:
    """Outputs are images, in base64."""
    store = new_store(tmp_path)
    event = a_settled(a_run(), 0, an_ending(output="x" * size))
    store.write([event])
    store.close()
    again = opened_store(tmp_path)
    assert again.repair() == 0
    (tmp_path / "results.jsonl").write_bytes(event.line + a_settled(a_run("k2"), 0, an_ending(output="y" * size)).line)
    again.close()
    again = opened_store(tmp_path)
    assert again.repair() == 1
    again.close()


@pytest.mark.parametrize("hole", [b"\0" * 400 + b"\n", b"\0\0{}\n", b"{}\n", b'"text"\n', b"\n", b"\xff\xfe\n"])
def test_a_hole_that_power_loss_left_costs_no_line_beside_it(tmp_path: Path, hole: bytes) -> None:
    """Blocks reach the disk in any order; what was not synced may be zeros, and what follows whole."""
    store = new_store(tmp_path)
    store.write(some(0, 1))
    store.close()
    first = (tmp_path / "results.jsonl").read_bytes()
    one, two, three = (event.line for event in some(1, 3) if isinstance(event, Settled))
    (tmp_path / "results.jsonl").write_bytes(first + one + hole + two + hole + three + b'{"torn')
    again = opened_store(tmp_path)
    assert again.repair() == 3
    assert (tmp_path / "results.jsonl").read_bytes() == first + one + two + three
    assert again.repair() == 0
    again.close()


def test_results_that_got_shorter_are_not_gone_on_with(tmp_path: Path) -> None:
    """Adding to them would put lines where the ledger says others are."""
    store = new_store(tmp_path)
    store.write(some(0, 2))
    store.close()
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    again = opened_store(tmp_path)
    with pytest.raises(RecordError) as caught:
        again.repair()
    assert caught.value.render() == (
        f"error: {path} is shorter than the ledger says: {len(whole) - 1} of {len(whole)} bytes are there\n"
        "  help: restore the file from a copy; the ledger beside it still knows every job id"
    )
    again.close()


def test_results_that_were_edited_are_not_gone_on_with(tmp_path: Path) -> None:
    """An editor that changed the line ends would make every offset wrong, and the tail look torn."""
    store = new_store(tmp_path)
    store.write(some(0, 2))
    store.close()
    path = tmp_path / "results.jsonl"
    path.write_bytes(edited := path.read_bytes().replace(b"\n", b"\r\n"))
    again = opened_store(tmp_path)
    place = again.ledger.last_line()
    assert place is not None
    with pytest.raises(RecordError) as caught:
        again.repair()
    assert caught.value.render() == (
        f"error: {path} is not as it was written: the line at byte {place.offset} has changed\n"
        "  help: restore the file from a copy; the ledger beside it still knows every job id"
    )
    assert path.read_bytes() == edited
    again.close()


# The thread


async def test_events_of_one_task_stay_in_order_and_leaving_waits_for_them(tmp_path: Path) -> None:
    """A told event is as good as written once the block is left."""
    store = new_store(tmp_path)
    run = a_run()
    async with Recorder(store) as recorder:
        events: list[Event] = [intended(run), accepted(run), ended(run), intended(run, 2), accepted(run, 2)]
        for event in events:
            recorder.tell(event)
        assert recorder.failure is None
    assert [(one.attempt, one.job_id) for one in store.ledger.open_runs()] == [(2, "k1-job-2")]
    store.close()


async def test_many_tasks_may_speak_at_once(tmp_path: Path) -> None:
    """Each lane says what happens to its own run, in order."""
    store = new_store(tmp_path)

    async def life(number: int) -> None:
        for event in carried(a_run(f"k{number}", index=number)):
            await recorder.record(event)

    async with Recorder(store) as recorder:
        await asyncio.gather(*(life(number) for number in range(200)))
    assert store.ledger.counts() == {"photos": {(State.SUCCEEDED, Outcome.COMPLETED): 200}}
    store.close()


class Gate:
    """Holds the writer's thread before each write until it is let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        real = Store.write

        def write(store: Store, events: list[Event]) -> None:
            self.reached.set()
            assert self.open.wait(10)
            real(store, events)

        monkeypatch.setattr(Store, "write", write)

    async def wait(self) -> None:
        """Until the thread stands before it."""
        assert await asyncio.to_thread(self.reached.wait, 10)


async def test_a_waiter_that_is_cancelled_takes_no_event_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled task can't unsay what it said."""
    store = new_store(tmp_path)
    gate = Gate(monkeypatch)
    async with Recorder(store) as recorder:
        waiter = asyncio.create_task(recorder.record(intended(a_run())))
        await gate.wait()
        waiter.cancel()
        queued = asyncio.create_task(recorder.record(intended(a_run("k2"))))
        await asyncio.sleep(0)
        queued.cancel()
        await asyncio.wait([waiter, queued])
        gate.open.set()
    assert waiter.cancelled()
    assert queued.cancelled()
    assert store.ledger.counts() == {"photos": {(State.SUBMITTING, None): 2}}
    store.close()


async def test_leaving_waits_for_the_writer_even_while_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the files would be closed under a thread that writes, and its bytes could go into another file."""
    store = new_store(tmp_path)
    gate = Gate(monkeypatch)

    async def batch() -> None:
        async with Recorder(store) as recorder:
            recorder.tell(intended(a_run()))

    task = asyncio.create_task(batch())
    await gate.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    gate.open.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert store.ledger.knows("k1")
    store.close()


async def test_nothing_can_be_said_after_the_end(tmp_path: Path) -> None:
    """It would never be written, and who waits would wait for ever."""
    store = new_store(tmp_path)
    async with Recorder(store) as recorder:
        pass
    with pytest.raises(AssertionError, match="nobody is left to record"):
        recorder.tell(Sampled("sdxl", 1.0, {}, {}))
    with pytest.raises(AssertionError, match="nobody is left to record"):
        await recorder.record(Sampled("sdxl", 1.0, {}, {}))
    store.close()


async def test_what_comes_while_a_commit_is_under_way_shares_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync is paid once for many; but not for so many that whoever is among them waits long."""
    store = new_store(tmp_path)
    gate = Gate(monkeypatch)
    sizes: list[int] = []
    monkeypatch.setattr(Ledger, "apply", lambda _, events: sizes.append(len(events)))
    async with Recorder(store) as recorder:
        recorder.tell(Sampled("sdxl", 0.0, {}, {}))
        await gate.wait()
        for number in range(GROUP + 10):
            recorder.tell(Sampled("sdxl", float(number), {}, {}))
        gate.open.set()
    assert sizes == [1, GROUP, 10]
    store.close()


async def test_after_a_large_commit_the_next_one_lets_some_gather(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes the interpreter's lock from the jobs in flight at every statement, be it for one run or for many."""
    monkeypatch.setattr(record, "APART_S", 0.3)
    store = new_store(tmp_path)
    sizes: list[int] = []
    monkeypatch.setattr(Ledger, "apply", lambda _, events: sizes.append(len(events)))
    async with Recorder(store) as recorder:
        await asyncio.wait([recorder.record_soon(Sampled("sdxl", 0.0, {}, {})) for _ in range(MANY)])
        said = []
        for number in range(20):
            said.append(recorder.record_soon(Sampled("sdxl", float(number), {}, {})))
            await asyncio.sleep(0)
        await asyncio.wait(said)
    assert sizes == [MANY, 20]
    store.close()


async def test_after_a_small_commit_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is idle until an intent is durable is paid for."""
    monkeypatch.setattr(record, "APART_S", 5.0)
    store = new_store(tmp_path)
    async with asyncio.timeout(3), Recorder(store) as recorder:
        await asyncio.wait([recorder.record_soon(Sampled("sdxl", 0.0, {}, {})) for _ in range(MANY - 1)])
        await recorder.record(Sampled("sdxl", 1.0, {}, {}))
    assert len(list(store.ledger.samples())) == MANY
    store.close()
