"""A ledger that somebody else has touched is known by what stands beside it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.errors import RecordError
from runner.ledger import Ledger

FIX = (
    "\n  help: put the batch's folder back from a copy, all of it, or start a new batch with --fresh, which may pay"
    " again for what was sent; delete {seal} to go on with what is there"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger that was committed three times, and closed."""
    found = tmp_path / "ledger.sqlite"
    Ledger.create(found).close()
    with Ledger.open(found) as ledger:
        for number in range(3):
            ledger.note(number=number)
    return found


def refused(path: Path) -> str:
    with pytest.raises(RecordError) as caught:
        Ledger.open(path)
    return caught.value.render()


def test_a_ledger_that_was_closed_opens_again(path: Path) -> None:
    """As often as one likes, with commits between and without."""
    for number in range(3):
        with Ledger.open(path) as ledger:
            assert ledger.noted("number") == 2
        with Ledger.open(path) as ledger:
            ledger.note(again=number)


def test_a_changed_byte_of_a_closed_ledger_is_said(path: Path) -> None:
    """SQLite itself would take it for what was written."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    seal = path.with_name(".ledger.seal")
    said = f"error: {path} is not as it was closed: some of its bytes have changed{FIX.format(seal=seal)}"
    assert [refused(path), refused(path)] == [said, said]
    seal.unlink()
    Ledger.open(path).close()


def cut(wal: Path) -> None:
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])


@pytest.mark.parametrize("harm", [Path.unlink, cut])
def test_a_wal_that_was_cut_or_left_behind_is_said(path: Path, harm: Callable[[Path], None]) -> None:
    """For SQLite that is what a crash leaves, and every job in it would be sent again."""
    killed = path.parent / "killed"
    ledger = Ledger.open(path)
    for number in range(40):
        ledger.note(number=number)
    shutil.copytree(path.parent, killed, ignore=shutil.ignore_patterns("killed"))
    ledger.close()
    Ledger.open(killed / "ledger.sqlite").close()
    ledger = Ledger.open(path)
    ledger.note(number=40)
    torn = path.parent / "torn"
    shutil.copytree(path.parent, torn, ignore=shutil.ignore_patterns("killed", "*-shm"))
    ledger.close()
    harm(torn / "ledger.sqlite-wal")
    found = torn / "ledger.sqlite"
    fix = FIX.format(seal=torn / ".ledger.seal")
    said = f"error: {found} has lost what was written last: 44 commits were made, and it has 43{fix}"
    assert [refused(found), refused(found)] == [said, said]


def test_a_seal_that_a_crash_left_empty_says_nothing(path: Path) -> None:
    """It is never synced while a batch runs: less may be there, never more."""
    for left in (b"", bytes(21), b"%020d\n" % 2, b"%020d\nabc" % 3):
        path.with_name(".ledger.seal").write_bytes(left)
        with Ledger.open(path) as ledger:
            assert ledger.noted("number") == 2


def test_a_text_that_is_none_any_more_is_said(path: Path) -> None:
    """SQLite gives out what the bytes are, and Python can't read them."""
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE meta", b"CREATE TABLE m\xaeta"))
    path.with_name(".ledger.seal").unlink()
    with pytest.raises(RecordError) as caught, Ledger.read_only(path) as ledger:
        ledger.noted("number")
    assert caught.value.render().startswith(f"error: the ledger {path} ")
