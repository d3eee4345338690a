"""What a batch's folder gains is sent in order, by one writer, and made a folder of again."""

import gzip
import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from far import BATCH, PREFIX, Broken, folder, intended, objects, until, upload

from runner.batch import Folder
from runner.errors import BatchBusy, RecordError, UsageError
from runner.events import Accepted, Ending, FileClaim, Settled
from runner.events import Claimed as Claim
from runner.ledger import Ledger
from runner.record import Recorder
from runner.remote import chain, lease, segments
from runner.remote import upload as uploads
from runner.remote.chain import Chain
from runner.remote.lease import Lease
from runner.remote.objects import Away, Denied, Files
from runner.remote.upload import Upload
from runner.results import line
from runner.states import Outcome, State
from runner.store import Store


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of files needs no pauses."""
    monkeypatch.setattr(uploads, "SOONEST_S", 0.02)
    monkeypatch.setattr(uploads, "EVERY_S", 0.05)


@contextmanager
def opened(here: Folder, to: Upload) -> Iterator[Store]:
    """The store of a batch whose changes are noted for *to*."""
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger.open(here.ledger))
        to.begin(ledger)
        store = Store(ledger, here.results)
        store.repair()
        yield store
        store.close()


def is_all_sent(here: Folder) -> bool:
    """Whether nothing is left to be sent."""
    with Ledger.read_only(here.ledger) as ledger:
        return segments.newest(ledger.database) == 0


def settled(n: int, *, artifacts: tuple[str, ...] = ()) -> Settled:
    """The end of the *n*-th run."""
    run, ending = intended(n).run, Ending(Outcome.COMPLETED, {"n": n}, artifacts=artifacts)
    text = line(run, ending, state=State.SUCCEEDED, attempts=1, job_id=f"id-{n}", submitted_at=1.0, settled_at=2.0)
    return Settled(run, 1, State.SUCCEEDED, ending, text, 2.0)


def accepted(n: int) -> Accepted:
    """The answer to the submit of the *n*-th run."""
    return Accepted(intended(n).run.key, 1, f"id-{n}", 1.0)


def fetched(there: Files, to: Path) -> Folder:
    """The batch as another machine has it that goes on with it."""
    made = Folder(to / BATCH)
    Chain.read(there, PREFIX).restore(made)
    return made


async def test_a_folder_made_of_what_was_sent_is_the_one_that_it_was_made_of(tmp_path: Path) -> None:
    """Ledger, results and files; then the list of all, which says that nothing more is to come."""
    here, there = folder(tmp_path), objects(tmp_path)
    to = upload(there, here)
    with opened(here, to) as store:
        async with Recorder(store, to) as recorder, to:
            to.tells(recorder.tell)
            await recorder.record(intended(0))
            await to.saved()
            recorder.tell(accepted(0))
            (here.path / "artifacts").mkdir()
            (here.path / "artifacts/0.txt").write_text("a picture")
            await recorder.claim(Claim(intended(0).run.key, 1, (FileClaim("artifacts/0.txt", "d" * 64, 9),)))
            await recorder.record(settled(0, artifacts=("artifacts/0.txt",)))
            await recorder.record(intended(1))
        here.health.write_text("{}")
        to.finish(store.ledger)

    again = fetched(there, tmp_path / "elsewhere")
    assert again.results.read_bytes() == here.results.read_bytes()
    with Ledger.open(again.ledger) as known:
        assert [(one.run.index, one.job_id) for one in known.open_runs()] == [(1, None)]
        assert known.settled_line(intended(0).run.key) is not None
    contents = Chain.read(there, PREFIX).contents()
    assert contents is not None
    assert contents["unfinished"] == 2
    assert [one["name"] for one in contents["objects"][1:]] == ["health.json", "manifest.json", "artifacts/0.txt"]
    assert there.get(f"{PREFIX}/artifacts/0.txt") == b"a picture"


async def test_a_line_goes_with_its_row_and_not_before(tmp_path: Path) -> None:
    """A line is on the disk a moment before its row; one that went ahead would leave its files behind."""
    here, there = folder(tmp_path), objects(tmp_path)
    to = upload(there, here)
    with opened(here, to) as store:
        async with Recorder(store, to) as recorder, to:
            await recorder.record(settled(0))
            with here.results.open("ab") as file:
                file.write(settled(1).line)
            await to.saved()
    last = Chain.read(there, PREFIX).last
    assert last is not None
    assert last["results"]["end"] == len(settled(0).line)


async def test_nothing_is_saved_while_the_store_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So no run starts; what is recorded here meanwhile is sent once the store is back."""
    monkeypatch.setattr(uploads, "RETRY_S", 0.02)
    here, there = folder(tmp_path), objects(tmp_path)
    to = upload(there, here)
    there.error = lambda _: Away("503 Slow Down")
    with opened(here, to) as store:
        async with Recorder(store, to) as recorder, to:
            to.tells(recorder.tell)
            await recorder.record(intended(0))
            waiting = to.saved()
            await until(to.said)
            assert re.fullmatch(
                r"the remote folder takes nothing since \S+: 503 Slow Down; no run starts", to.said() or ""
            )
            await recorder.record(settled(1))
            assert not waiting.done()
            there.error = lambda _: None
            await waiting
            assert to.said() is None
        to.finish(store.ledger)
    assert fetched(there, tmp_path / "elsewhere").results.read_bytes() == here.results.read_bytes()


@pytest.mark.parametrize(("error", "limit"), [(Denied("403"), "REFUSED_S"), (Away("no route"), "GIVE_UP_S")])
async def test_a_store_that_stays_away_ends_the_batch(
    error: Exception, limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a message that says where the rest is, and what sends it on."""
    for name in ("RETRY_S", limit, "FINISH_S"):
        monkeypatch.setattr(uploads, name, 0.01)
    here, there = folder(tmp_path), objects(tmp_path)
    to = upload(there, here)
    there.error = lambda _: error
    with opened(here, to) as store:
        async with Recorder(store, to) as recorder, to:
            await recorder.record(intended(0))
            waiting = to.saved()
            failed = await to.failed()
            assert not waiting.done()
        with pytest.raises(RecordError) as caught:
            to.finish(store.ledger)
    assert failed.message == caught.value.message == f"{there.url}/{PREFIX} can't be written: {error}"
    assert caught.value.fix == (
        f"what is missing there is in {here.path}; once the store takes it, go on on this machine with"
        f" runner resume {there.url}/{PREFIX}"
    )


async def test_who_was_taken_over_can_save_no_more_intents(tmp_path: Path) -> None:
    """Its lease may be over by a clock that is wrong: even so nothing is sent twice."""
    here, there = folder(tmp_path), objects(tmp_path)
    first = upload(there, here)
    with opened(here, first) as store:
        async with Recorder(store, first) as recorder, first:
            first.tells(recorder.tell)
            await recorder.record(intended(0))
            await first.saved()
            await until(lambda: is_all_sent(here))
            other = fetched(there, tmp_path / "elsewhere")
            second = upload(there, other)
            with opened(other, second) as theirs:
                async with Recorder(theirs, second), second:
                    await second.saved()
            await recorder.record(intended(1))
            waiting = first.saved()
            failed = await first.failed()
            assert not waiting.done()
        with pytest.raises(BatchBusy):
            first.finish(store.ledger)
    assert isinstance(failed, BatchBusy)
    assert failed.message == f"{there.url}/{PREFIX} was taken over; nothing more is sent from here"
    with Ledger.read_only(fetched(there, tmp_path / "third").ledger) as known:
        assert not known.knows(intended(1).run.key)


async def test_a_put_whose_answer_was_lost_is_known_as_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object is there, and it is our own: nobody has taken over. What came meanwhile goes behind it."""
    monkeypatch.setattr(uploads, "RETRY_S", 0.01)
    here, there = folder(tmp_path), objects(tmp_path)
    to = upload(there, here)
    lost: list[str] = []

    def put_file(name: str, path: Path, *, new: bool = False) -> None:
        Files.put_file(there, name, path, new=new)
        if name.endswith("02.jsonl.gz") and not lost:
            lost.append(name)
            raise Away("read timeout")

    monkeypatch.setattr(there, "put_file", put_file)
    with opened(here, to) as store:
        async with Recorder(store, to) as recorder, to:
            await to.saved()
            await recorder.record(settled(0))
            waiting = to.saved()
            await until(lambda: lost)
            await recorder.record(settled(1))
            await waiting
        to.finish(store.ledger)
        assert to.failure is None
    again = fetched(there, tmp_path / "elsewhere")
    assert again.results.read_bytes() == here.results.read_bytes()


async def test_lines_that_no_segment_speaks_of_are_adopted(tmp_path: Path) -> None:
    """What is in them was paid for; a part that a stranger has put is none of them."""
    here, there = folder(tmp_path), objects(tmp_path)
    to = upload(there, here)
    with opened(here, to) as store:
        async with Recorder(store, to) as recorder, to:
            await recorder.record(settled(0))
            await to.saved()
            await recorder.record(settled(1))
        end = len(settled(0).line)
        for writer, n in ((to._lease.token, 1), ("0" * 16, 2)):
            there.put(f"{PREFIX}/{chain.part_name(0, end, writer, 'd' * 64)}", settled(n).line)
    again = fetched(there, tmp_path / "elsewhere")
    assert again.results.read_bytes() == settled(0).line + settled(1).line


async def test_files_of_adopted_lines_keep_their_names(tmp_path: Path) -> None:
    """Another run must not take the name of a file whose claim was not sent any more."""
    here, there = folder(tmp_path), objects(tmp_path)
    to = upload(there, here)
    with opened(here, to) as store:
        async with Recorder(store, to), to:
            await to.saved()
    there.put(f"{PREFIX}/artifacts/A.txt", b"a picture")
    text = settled(0, artifacts=("artifacts/A.txt",)).line
    there.put(f"{PREFIX}/{chain.part_name(0, 0, to._lease.token, 'd' * 64)}", text)
    again = fetched(there, tmp_path / "elsewhere")
    second = upload(there, again)
    with opened(again, second) as store:
        assert store.ledger.artifacts(intended(0).run.key) == [
            FileClaim("artifacts/A.txt", hashlib.sha256(b"a picture").hexdigest(), 9)
        ]
        taken = store.write([Claim(intended(1).run.key, 1, (FileClaim("artifacts/a.txt", "d" * 64, 9),))])
        assert [one.path for one in taken.values()] == ["artifacts/A.txt"]
        second.finish(store.ledger)
    third = fetched(there, tmp_path / "third")
    with Ledger.read_only(third.ledger) as known:
        assert [one.path for one in known.artifacts(intended(0).run.key)] == ["artifacts/A.txt"]


async def sent(here: Folder, there: Broken) -> None:
    """Send a batch of three segments."""
    to = upload(there, here)
    with opened(here, to) as store:
        async with Recorder(store, to) as recorder, to:
            to.tells(recorder.tell)
            for n in range(2):
                await recorder.record(settled(n))
                await to.saved()
        to.finish(store.ledger)


async def test_a_segment_that_is_gone_or_changed_is_told(tmp_path: Path) -> None:
    """Else a batch would be gone on with that has forgotten what it sent."""
    here, there = folder(tmp_path), objects(tmp_path)
    await sent(here, there)
    first, second = (tmp_path / f"there/{PREFIX}/ledger/{number:08}.jsonl.gz" for number in (1, 2))
    whole = first.read_bytes()
    header, rest = gzip.decompress(whole).split(b"\n", 1)
    first.write_bytes(gzip.compress(header.replace(b'"at":"2', b'"at":"1') + b"\n" + rest))
    with pytest.raises(RecordError) as changed:
        fetched(there, tmp_path / "a")
    assert changed.value.message == (
        f"{there.url}/{PREFIX}/ledger/{second.name} does not follow on the segment before it: one has been changed"
    )
    first.unlink()
    with pytest.raises(UsageError) as gone:
        fetched(there, tmp_path / "b")
    assert gone.value.message == (
        f"{there.url}/{PREFIX}/ledger/{first.name} is gone: nobody knows any more which jobs that batch sent"
    )


async def test_results_that_are_not_as_they_were_written_are_told(tmp_path: Path) -> None:
    """A line is looked at when it is fetched, not when somebody relies on it."""
    here, there = folder(tmp_path), objects(tmp_path)
    await sent(here, there)
    (part, *_) = sorted((tmp_path / f"there/{PREFIX}/results").iterdir())
    part.write_bytes(part.read_bytes().replace(b"succeeded", b"succeedex"))
    with pytest.raises(RecordError) as caught:
        fetched(there, tmp_path / "elsewhere")
    assert caught.value.message == f"{there.url}/{PREFIX}/results/{part.name} is not as it was written"


async def test_results_that_were_written_anew_are_sent_anew(tmp_path: Path) -> None:
    """Runs that were run again leave lines behind that go at the end, and every place changes."""
    here, there = folder(tmp_path), objects(tmp_path)
    to = upload(there, here)
    with opened(here, to) as store:
        async with Recorder(store, to) as recorder, to:
            for n in range(3):
                await recorder.record(settled(n))
            await to.saved()
        store.ledger.database.do("UPDATE runs SET line_offset = NULL WHERE position = 0")
        store.ledger.note(superseded_end=len(settled(0).line))
        store.drop_superseded()
        to.finish(store.ledger)
    again = fetched(there, tmp_path / "elsewhere")
    assert again.results.read_bytes() == settled(1).line + settled(2).line == here.results.read_bytes()


def test_a_lease_names_its_holder(tmp_path: Path) -> None:
    """And when it is over, for whoever meets it."""
    there = objects(tmp_path)
    held = Lease(there, "t")
    held.take(take_over=False)
    try:
        told = lease.read(there, "t")
        assert told is not None
        with pytest.raises(BatchBusy) as caught:
            Lease(there, "t").take(take_over=False)
        assert caught.value.message == (
            f"{there.url}/t is being written to: process {told['pid']} on {told['host']}, since {told['since']}"
        )
        at = time.strftime("%H:%M:%S UTC", time.gmtime(lease.until(told)))
        assert caught.value.fix == (
            f"wait for it; if that process is dead, its lease ends at {at}, or write --take-over"
        )
    finally:
        held.release()
    assert lease.read(there, "t") is None


@pytest.mark.parametrize(
    ("change", "is_held"),
    [
        ({}, True),
        ({"renewed_at": 0.0}, False),
        ({"machine": "another"}, True),
        ({"began": "not then"}, False),
        ({"began": "not then", "machine": "another"}, True),
    ],
    ids=["alive", "not renewed", "elsewhere", "dead here", "pid of elsewhere"],
)
def test_a_lease_is_over_with_its_process_or_its_time(change: dict[str, Any], is_held: bool, tmp_path: Path) -> None:
    """A process that died on this machine is known at once; of one elsewhere only time tells."""
    there = objects(tmp_path)
    held = Lease(there, "t")
    held.take(take_over=False)
    told = json.loads(there.get("t/lease.json")) | change
    assert lease.is_held(told, time.time()) is is_held
    held.release()


async def test_a_lease_that_was_taken_over_stops_its_first_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its next segment fails, and with the name of who has it now."""
    monkeypatch.setattr(lease, "RENEW_S", 0.02)
    monkeypatch.setattr(uploads, "EVERY_S", 0.05)
    here, there = folder(tmp_path), objects(tmp_path)
    held = Lease(there, "t")
    held.take(take_over=False)
    to = upload(there, here, held)
    other = json.loads(there.get("t/lease.json")) | {"token": "another", "host": "gpu-7"}

    def is_lost() -> bool:
        there.put("t/lease.json", json.dumps(other).encode())  # again, for it may just have been about to renew its own
        return held.lost_to is not None

    with opened(here, to) as store:
        async with Recorder(store, to), to:
            await until(is_lost)
            failed = await to.failed()
    assert failed.message == (
        f"{there.url}/{PREFIX} was taken over by process {other['pid']} on gpu-7, since {other['since']};"
        " nothing more is sent from here"
    )
    held.release()
    told = lease.read(there, "t")
    assert told is not None
    assert told["token"] == "another"  # that is not the first one's to give back


def test_who_takes_over_from_the_living_lets_it_see_that_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else both would be about to put the same segment, and whoever was asked for would lose it half of the time."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    there = objects(tmp_path)
    first, second = Lease(there, "t"), Lease(there, "t")
    first.take(take_over=False)
    second.take(take_over=True)
    assert slept == [lease.RENEW_S + 1]
    first.release()
    second.release()
    assert lease.read(there, "t") is None
