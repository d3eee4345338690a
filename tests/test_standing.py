"""The lines that stand: none torn, none superseded, also while files change."""

from contextlib import closing
from pathlib import Path

import pytest
from happened import a_run, a_settled, accepted, an_ending, intended, opened_store
from old_batches import MIXED, a_batch, mixed

from runner.batch import Folder
from runner.errors import UsageError
from runner.events import Reopened
from runner.ledger import Ledger
from runner.standing import Lines, line_at, standing
from runner.states import Outcome


def keys(folder: Folder) -> list[str]:
    """The keys of the lines that stand, read twice."""
    lines, why = standing(folder)
    assert why is None
    with closing(lines):
        found = [line["key"] for _, line in lines]
        assert [line["key"] for _, line in lines] == found
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return a_batch(tmp_path, mixed(), planned=MIXED)


def test_lines_are_read_as_they_are(folder: Folder) -> None:
    """To pass them on unchanged."""
    lines, _ = standing(folder)
    with closing(lines):
        assert b"".join(text for text, _ in lines) == folder.results.read_bytes()
    assert keys(folder) == ["aaaa1", "aaaa2", "bbbb3", "cccc4"]


def test_what_is_written_meanwhile_is_not_read(folder: Folder) -> None:
    """A second pass must meet the lines of the first one; a torn one is none."""
    with folder.results.open("ab") as file:
        file.write(b'{"key": "torn')
    assert len(keys(folder)) == 4
    lines, _ = standing(folder)
    with closing(lines), folder.results.open("ab") as file:
        file.write(b'", "more": 1}\n')
        file.flush()
        assert len(list(lines)) == 4


def test_lines_that_the_ledger_does_not_speak_of_yet_count(folder: Folder) -> None:
    """They are durable before the ledger is: what is settled is settled."""
    with folder.results.open("ab") as file:
        file.write(a_settled(a_run("dddd5", index=3)).line)
    assert keys(folder)[-1] == "dddd5"


def test_a_batch_without_results_has_no_lines(tmp_path: Path) -> None:
    """It has only just begun."""
    folder = a_batch(tmp_path)
    assert keys(folder) == []
    folder.results.unlink()
    assert keys(folder) == []


def test_the_lines_of_runs_that_run_again_are_left_out(folder: Folder) -> None:
    """Until the batch ends they are still in the file: counted, they would be runs that nobody has."""
    store = opened_store(folder.path)
    store.reopen([Reopened("aaaa2", 200.0), Reopened("bbbb3", 200.0)])
    assert keys(folder) == ["aaaa1", "cccc4"]
    again = a_run("aaaa2", index=1)
    store.write([intended(again, 2), accepted(again, 2), a_settled(again, 2, an_ending(Outcome.LOST))])
    assert keys(folder) == ["aaaa1", "cccc4", "aaaa2"]
    lines, _ = standing(folder)
    with closing(lines):
        store.drop_superseded()
        assert [line["key"] for _, line in lines] == ["aaaa1", "cccc4", "aaaa2"]
    assert keys(folder) == ["aaaa1", "cccc4", "aaaa2"]
    store.close()


def test_when_all_lines_are_superseded_none_stands(folder: Folder) -> None:
    """The last gap reaches to the end."""
    with closing(opened_store(folder.path)) as store:
        store.reopen([Reopened("bbbb3", 200.0), Reopened("aaaa2", 200.0)])
    with Ledger.open(folder.ledger) as ledger:
        ledger._db.do("UPDATE runs SET line_offset = NULL")
    assert keys(folder) == []


def test_results_can_be_read_without_their_ledger(folder: Folder) -> None:
    """It is the one file that every script reads; but what the ledger would have said is not known."""
    folder.ledger.write_bytes(b"no ledger")
    lines, why = standing(folder)
    with closing(lines):
        assert len(list(lines)) == 4
    assert why == f"the ledger {folder.ledger} can't be used: file is not a database"


def test_a_batch_whose_end_was_cut_off_is_read_with_a_doubt(folder: Folder) -> None:
    """Between the ledger's commit and the new file's name, for as long as nobody goes on with it."""
    with Ledger.open(folder.ledger) as ledger:
        ledger.note(results_aside=True, superseded_end=0)
    lines, why = standing(folder)
    with closing(lines):
        assert len(list(lines)) == 4
    assert why == f"the end of the batch was cut off while it wrote {folder.results} anew"


def test_a_damaged_line_is_named(folder: Folder) -> None:
    """Not skipped: a run would be missing, and nobody would know."""
    text = folder.results.read_bytes().splitlines(keepends=True)
    folder.results.write_bytes(text[0] + b"\0" * (len(text[1]) - 1) + b"\n" + text[2] + text[3])
    with pytest.raises(UsageError) as caught:
        keys(folder)
    assert caught.value.render() == (
        f"error: line 2 of {folder.results} can't be read: it is not JSON\n  help: restore the file from a copy; a hole"
        " that a power loss left is mended by going on with the batch"
    )


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    """Somebody else's, perhaps."""
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(UsageError) as caught:
        Lines(tmp_path / "results.jsonl")
    assert caught.value.render() == (
        f"error: {tmp_path}/results.jsonl can't be read: Is a directory\n  help: see who may read it, and its disk"
    )


def test_a_line_is_found_at_its_place_or_not_at_all(folder: Folder) -> None:
    """Whatever else stands there by now must not be taken for it."""
    with Ledger.read_only(folder.ledger) as ledger:
        place = ledger.settled_line("aaaa2")
    assert place is not None
    found = line_at(folder, place)
    assert found is not None
    assert found["key"] == "aaaa2"
    folder.results.write_bytes(b"x" + folder.results.read_bytes())
    assert line_at(folder, place) is None
    folder.results.unlink()
    assert line_at(folder, place) is None
