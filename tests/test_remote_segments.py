"""Segments of a ledger, and a ledger that is made of them again."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.database import Database
from runner.errors import RecordError
from runner.ledger import VERSION, Ledger
from runner.remote import segments

HEADER = {"writer": "w", "results": {"made": 0, "end": 0, "parts": []}}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A new ledger that notes its changes."""
    Ledger.create(tmp_path / "ledger.sqlite").close()
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        segments.capture(opened.database)
        yield opened


def content(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables that segments are of, with their places."""
    return {
        table.name: sorted(tuple(row) for row in database.rows(f"SELECT {table.place()}, * FROM {table.name}"))
        for table in segments.tables(database)
    }


def sent(ledger: Ledger, to: Path) -> Path:
    """The segment of all that is new in *ledger*, which takes it for sent."""
    database = ledger.database
    upto = segments.newest(database)
    segments.write(database, to.with_suffix(".body"), upto=upto)
    segments.head(to, HEADER, to.with_suffix(".body"))
    with database.transaction():
        segments.forget(database, upto)
    return to


def change(database: Database, chance: random.Random) -> None:
    """Something that a ledger may come to hold, or lose."""
    key, other = f"k{chance.randrange(40)}", f"n{chance.randrange(20)}"
    with database.transaction():
        match chance.randrange(6):
            case 0:
                values = (key, "job", chance.randrange(9), "submitting", 1, b"\x00\xff" * 8, 1.0, '{"input": "ü"}')
                database.do(
                    "INSERT OR REPLACE INTO runs (key, job, position, state, attempts, line_digest, settled_at, given)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    values,
                )
            case 1:
                database.do("UPDATE runs SET state = ?, message = NULL WHERE key = ?", (other, key))
            case 2:
                database.do("DELETE FROM runs WHERE key = ?", (key,))
            case 3:
                database.do("INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, 1, 'x', 2)", (other, other, key))
            case 4:
                database.do("DELETE FROM artifacts WHERE key = ?", (key,))
            case 5:
                database.do("INSERT OR REPLACE INTO drafted VALUES (?, ?, 1)", (key, chance.randrange(3)))
                database.do("DELETE FROM drafted WHERE key = ?", (f"k{chance.randrange(40)}",))


@pytest.mark.parametrize("seed", range(3))
def test_a_ledger_made_of_its_segments_has_every_row(seed: int, ledger: Ledger, tmp_path: Path) -> None:
    """Whoever goes on elsewhere knows what the one knew who was there before, and nothing that was taken back."""
    chance = random.Random(seed)
    ledger.note(plan={"job": 40})
    found: list[Path] = []
    for number in range(12):
        for _ in range(chance.randrange(30)):
            change(ledger.database, chance)
        found.append(sent(ledger, tmp_path / f"{number}.gz"))
        found += found[-1:] if chance.random() < 0.3 else []  # one that is applied twice does no harm
    with Ledger.create(tmp_path / "again.sqlite") as again:
        with again.database.transaction():
            for path in found:
                segments.apply(again.database, path)
        assert content(again.database) == content(ledger.database)
        assert again.noted("plan") == {"job": 40}


def test_what_changes_while_a_segment_is_sent_is_in_the_next_one(ledger: Ledger, tmp_path: Path) -> None:
    """`forget` drops what was sent, by number, and no number comes twice."""
    ledger.note(a=1)
    upto = segments.newest(ledger.database)
    ledger.note(b=2)
    with ledger.database.transaction():
        segments.forget(ledger.database, upto)
    after = segments.newest(ledger.database)
    assert after > upto
    with ledger.database.transaction():
        segments.forget(ledger.database, after)
    assert segments.newest(ledger.database) == 0
    ledger.note(c=3)
    assert segments.newest(ledger.database) > after


def test_what_was_there_before_is_sent_unless_it_is_known_to_be(tmp_path: Path) -> None:
    """A batch's first segment has all of its beginning; one that was fetched has nothing to send."""
    for name, is_sent in (("new", False), ("fetched", True)):
        with Ledger.create(tmp_path / name) as one:
            one.note(plan={"job": 1})
            segments.capture(one.database, is_sent=is_sent)
            assert bool(segments.newest(one.database)) is not is_sent


def test_a_segment_that_is_cut_is_told(ledger: Ledger, tmp_path: Path) -> None:
    """Half of one must not pass for all of it."""
    for number in range(200):
        ledger.note(**{f"n{number}": random.Random(number).random()})
    path = sent(ledger, tmp_path / "segment")
    path.write_bytes(path.read_bytes()[:-20])
    with Ledger.create(tmp_path / "again.sqlite") as again:
        with pytest.raises(RecordError, match="is damaged") as caught, again.database.transaction():
            segments.apply(again.database, path)
        assert caught.value.fix == "put the object back from an older version of it"
        assert again.noted("n0") is None


def test_a_part_of_another_version_is_told(ledger: Ledger, tmp_path: Path) -> None:
    """A newer runner may keep what this one would lose."""
    ledger.database.do("CREATE TABLE later (a)")
    segments.capture(ledger.database)
    ledger.database.do("INSERT INTO later VALUES (1)")
    path = sent(ledger, tmp_path / "segment")
    with (
        Ledger(Database.create(tmp_path / "b", schema="CREATE TABLE meta (name);", version=VERSION), tmp_path) as other,
        pytest.raises(RecordError, match=r"^segment has a part 'later' that this version does not know$"),
        other.database.transaction(),
    ):
        segments.apply(other.database, path)
