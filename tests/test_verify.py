"""`runner verify`: what is said of a batch whose files were edited, cut or damaged, and of one where nothing was."""

import errno
import io
import json
import re
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from happened import a_run, a_settled, accepted, an_ending, carried, ended, intended, opened_store, unsynced
from old_batches import MIXED, a_batch, mixed
from terminal import runner

from runner import locations
from runner.batch import Folder
from runner.commands.verify import verify
from runner.errors import UsageError
from runner.events import Claimed, Event, FileClaim, Reopened
from runner.ledger import Ledger
from runner.runs import Run
from runner.states import Outcome, Verdict
from runner.values import JsonObject, dump

PLANNED = {"photos": 3, "captions": 1}

ANEW = (
    "else start a new batch when this one has ended: where a job has 'reuse: succeeded' it takes from it what is as it"
    " was written, and runs the rest again\n"
)
COPY = f"  help: restore the file from a copy; {ANEW}"
FILE_COPY = f"  help: restore it from a copy; {ANEW}"
MOVED = (
    "  help: restore the file from a copy, or undo what was done to it; until then 'runner results' still reads these"
    " lines, and 'runner show' and reuse don't find them\n"
)
ADDED = "  help: restore the file from a copy; a line that somebody added can be taken out again\n"
SHORT = "  help: restore it from a copy; what can be done without one is told with its lines\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A batch that has ended, with four lines."""
    return a_batch(tmp_path, mixed(), planned=PLANNED)


def said(folder: Folder) -> tuple[int, str]:
    """Exit code and text, without the batch's path, and how many bytes were looked at."""
    out = io.StringIO()
    code = verify(str(folder.path), output_dir=None, out=out)
    text = out.getvalue().replace(f"{folder.path}/", "").replace(folder.id, "ID")
    return code, re.sub(r", [\d.]+ K?i?B\)\n$", ")\n", text)


def document(folder: Folder) -> Any:
    """What a program is told."""
    out = io.StringIO()
    verify(str(folder.path), output_dir=None, as_json=True, out=out)
    return json.loads(out.getvalue())


def lines(folder: Folder) -> list[bytes]:
    return folder.results.read_bytes().splitlines(keepends=True)


def damaged(line: bytes, old: bytes, new: bytes) -> bytes:
    """*line* with one thing in it changed."""
    assert line.count(old) == 1
    return line.replace(old, new)


def places(folder: Folder) -> list[int]:
    """Where each line was written."""
    with Ledger.read_only(folder.ledger) as ledger:
        return [offset for offset, _ in ledger.places()]


def well(*, count: int = 4, files: int = 0) -> tuple[int, str]:
    """What is said where nothing is wrong."""
    return 0, f"ID: all is as it was written ({count} lines and {files} artifacts)\n"


def test_of_an_untouched_batch_all_is_well_and_it_stays_untouched(folder: Folder) -> None:
    """It may be asked every night."""
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    assert said(folder) == well()
    after = {path.name: path.read_bytes() for path in folder.path.iterdir() if not path.name.endswith(("-wal", "-shm"))}
    assert after == before


def test_a_batch_that_has_just_begun_is_well(tmp_path: Path) -> None:
    """It has no results.jsonl yet, and none is missing."""
    folder = a_batch(tmp_path, verdict=None)
    folder.results.unlink()
    assert said(folder) == (0, "ID: all is as it was written (0 lines and 0 artifacts)\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"no horse", b"NO horse"), (b'"job"', b'job""'), (b"aaaa2", b"aaaaX"), (b"\n", b" ")],
    ids=["its error", "its JSON", "its key", "its end"],
)
def test_a_changed_byte_is_named_with_its_line_and_run(folder: Folder, old: bytes, new: bytes) -> None:
    """A digest that nobody compares protects nobody."""
    text = lines(folder)
    at = text[1].index(old)
    text[1] = text[1][:at] + new + text[1][at + len(old) :]
    folder.results.write_bytes(b"".join(text))
    code, told = said(folder)
    assert code == 1
    assert told == (
        f"line 2 of results.jsonl, at byte {len(text[0])}, is not as it was written: it is that of run 1 of job"
        f" 'photos', key aaaa2\n{COPY}ID: 1 finding (4 lines and 0 artifacts)\n"
    )


def test_a_changed_byte_of_a_long_line_is_noticed(tmp_path: Path) -> None:
    """Long lines have a digest of another kind."""
    events = [*carried(a_run("k1"), an_ending(output="x" * 17_000)), *carried(a_run("k2", index=1))]
    folder = a_batch(tmp_path, events, planned={"photos": 2})
    assert said(folder)[0] == 0
    data = bytearray(folder.results.read_bytes())
    data[9_000] ^= 1
    folder.results.write_bytes(data)
    code, told = said(folder)
    assert (code, told.partition("\n")[0]) == (
        1,
        "line 1 of results.jsonl, at byte 0, is not as it was written: it is that of run 0 of job 'photos', key k1",
    )


def test_of_a_removed_line_those_behind_it_are_one_finding(folder: Folder) -> None:
    """Of a million lines behind it each would be another finding."""
    text, (_, second, third, _) = lines(folder), places(folder)
    folder.results.write_bytes(text[0] + text[2] + text[3])
    whole = len(b"".join(text))
    assert said(folder) == (
        1,
        f"results.jsonl is shorter than the ledger says: {whole - len(text[1]):,} of {whole:,} bytes are there\n{SHORT}"
        f"the line of run 1 of job 'photos', key aaaa2 is gone from results.jsonl: it was at byte {second}\n{COPY}"
        f"line 2 of results.jsonl, at byte {second}, was written at byte {third:,} (and 1 more have moved): it is that"
        f" of run 2 of job 'photos', key bbbb3\n{MOVED}ID: 3 findings (4 lines and 0 artifacts)\n",
    )


def test_of_an_edited_line_those_behind_it_have_moved(folder: Folder) -> None:
    """What an editor does."""
    text, third = lines(folder), places(folder)[2]
    text[1] = damaged(text[1], b"no horse", b"one horse")
    folder.results.write_bytes(b"".join(text))
    assert said(folder) == (
        1,
        f"line 2 of results.jsonl, at byte {len(text[0])}, is not as it was written: it is that of run 1 of job"
        f" 'photos', key aaaa2\n{COPY}"
        f"line 3 of results.jsonl, at byte {third + 1:,}, was written at byte {third:,} (and 1 more have moved): it is"
        f" that of run 2 of job 'photos', key bbbb3\n{MOVED}ID: 2 findings (4 lines and 0 artifacts)\n",
    )


def test_sorted_lines_have_all_moved_and_none_is_lost(folder: Folder) -> None:
    """Nothing is to be paid for again because of that."""
    folder.results.write_bytes(b"".join(reversed(lines(folder))))
    found = document(folder)
    assert found["counts"] == {"lines_moved": 1}
    assert "(and 3 more have moved)" in found["findings"][0]["message"]
    folder.results.write_bytes(b"".join(2 * lines(folder)))
    assert document(folder)["counts"] == {"lines_moved": 1, "line_unknown": 4}


def test_a_truncated_file_says_which_runs_are_gone(folder: Folder) -> None:
    """The torn one is there in part."""
    text, where = lines(folder), places(folder)
    folder.results.write_bytes(b"".join(text)[: where[2] + 50])
    whole = len(b"".join(text))
    assert said(folder) == (
        1,
        f"results.jsonl is shorter than the ledger says: {where[2] + 50:,} of {whole:,} bytes are there\n{SHORT}"
        f"line 3 of results.jsonl, at byte {where[2]:,}, is not as it was written: it is that of run 2 of job 'photos',"
        f" key bbbb3\n{COPY}"
        "the line of run 0 of job 'captions', key cccc4 is gone from results.jsonl: it was at byte"
        f" {where[3]:,}\n{COPY}ID: 3 findings (4 lines and 0 artifacts)\n",
    )


def test_a_file_that_is_gone_is_called_that(folder: Folder) -> None:
    """With each run whose result went with it."""
    folder.results.unlink()
    code, told = said(folder)
    assert (code, told.splitlines(keepends=True)[:2]) == (1, ["results.jsonl is gone\n", SHORT])
    assert document(folder)["counts"] == {"results_short": 1, "line_gone": 4}
    assert not folder.results.exists()


@pytest.mark.parametrize("added", [b"garbage\n", b"torn", a_settled(a_run("dddd5", index=3)).line])
def test_what_was_appended_is_of_no_run(folder: Folder, added: bytes) -> None:
    """Whoever reads the file would count it."""
    end = folder.results.stat().st_size
    with folder.results.open("ab") as file:
        file.write(added)
    assert said(folder) == (
        1,
        f"line 5 of results.jsonl, at byte {end:,}, is none that the ledger speaks of\n{ADDED}"
        "ID: 1 finding (4 lines and 0 artifacts)\n",
    )


@pytest.mark.parametrize("added", [b"garbage\n", b"\n", None], ids=["garbage", "an empty line", "a line twice"])
def test_what_was_put_in_between_is_told_from_what_it_moved(folder: Folder, added: bytes | None) -> None:
    """The line that was there before is not damaged."""
    text, where = lines(folder), places(folder)
    added = added or text[0]
    folder.results.write_bytes(text[0] + text[1] + added + text[2] + text[3])
    assert said(folder) == (
        1,
        f"line 4 of results.jsonl, at byte {where[2] + len(added):,}, was written at byte {where[2]:,} (and 1 more have"
        f" moved): it is that of run 2 of job 'photos', key bbbb3\n{MOVED}"
        f"line 3 of results.jsonl, at byte {where[2]:,}, is none that the ledger speaks of\n{ADDED}"
        "ID: 2 findings (4 lines and 0 artifacts)\n",
    )


def test_a_line_without_end_does_not_fill_the_memory(folder: Folder) -> None:
    """A hole of gigabytes, as a disk may leave it."""
    with folder.results.open("r+b") as file:
        file.truncate(0)
        file.truncate(40 * 1024 * 1024)
    tracemalloc.start()
    try:
        assert document(folder)["counts"] == {"line_changed": 1, "line_gone": 3}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_a_person_is_told_twenty_of_a_kind_and_how_many_more(tmp_path: Path) -> None:
    """A program all of them."""
    events = [one for number in range(30) for one in carried(a_run(f"k{number:02}", index=number))]
    folder = a_batch(tmp_path, events, planned={"photos": 30})
    folder.results.write_bytes(folder.results.read_bytes().replace(b'"x":1', b'"x":2'))
    told = said(folder)[1].splitlines(keepends=True)
    assert told[20:] == ["and 10 more like these\n", COPY, "ID: 30 findings (30 lines and 0 artifacts)\n"]
    found = document(folder)
    assert [one["line"] for one in found["findings"]] == [*range(1, 31)]
    assert found["counts"] == {"line_changed": 30}


# While a batch is on its way


@pytest.mark.parametrize(("verdict", "planned"), [(None, PLANNED), (Verdict.INTERRUPTED, MIXED)])
def test_what_stands_behind_the_last_line_of_an_unfinished_batch_is_no_damage(
    tmp_path: Path, verdict: Verdict | None, planned: dict[str, int]
) -> None:
    """A kill left it, and a resume adopts or cuts it."""
    folder = a_batch(tmp_path, mixed(), planned=planned, verdict=verdict)
    size = folder.results.stat().st_size
    with folder.results.open("ab") as file:
        file.write(a_settled(a_run("dddd5", index=3)).line + b'{"key": "torn')
    more = folder.results.stat().st_size - size
    note = (
        f"note: the last {more} bytes of results.jsonl are not in the ledger yet: the batch is not at its end, and"
        " whoever goes on with it adopts whole lines and cuts off a torn one\n"
    )
    code, told = well()
    assert said(folder) == (code, note + told)
    with closing(opened_store(folder.path)) as store:
        assert store.repair() == 1
    assert said(folder) == well(count=5)


def test_lines_of_runs_that_run_again_are_no_damage(folder: Folder) -> None:
    """They stand in the file until the batch ends; what is as it was written beside them is held to that."""
    text = lines(folder)
    again = a_run("aaaa2", index=1)
    with closing(opened_store(folder.path)) as store:
        store.reopen([Reopened("aaaa2", 200.0), Reopened("bbbb3", 200.0)])
        store.write([intended(again, 2), accepted(again, 2), a_settled(again, 2)])
    assert said(folder)[0] == 0
    first, *_, last = lines(folder)
    first, last = (damaged(line, b'"w1"', b'"w2"') for line in (first, last))
    folder.results.write_bytes(b"".join([first, *text[1:], last]))
    assert [(one["kind"], one["key"], one["line"]) for one in document(folder)["findings"]] == [
        ("line_changed", "aaaa1", 1),
        ("line_changed", "aaaa2", 5),
    ]
    folder.results.write_bytes(b"".join(text))
    assert document(folder)["counts"] == {"results_short": 1, "line_gone": 1}


def test_a_hole_that_a_resume_takes_out_is_no_damage(folder: Folder) -> None:
    """A power loss left it, and the next process is just adopting what is behind it."""
    line = a_settled(a_run("dddd5", index=3)).line
    end = folder.results.stat().st_size
    with closing(opened_store(folder.path)) as store:
        with folder.results.open("ab") as file:
            file.write(b"\0" * 50 + b"\n")
        store.ledger.note(has_hole=True, verdict=None)
    with closing(opened_store(folder.path)) as store:
        store.write([a_settled(a_run("dddd5", index=3))])
    assert places(folder)[-1] == end + 51
    assert said(folder) == well(count=5)
    with Ledger.open(folder.ledger) as ledger:
        ledger.note(has_hole=False)
    assert document(folder)["counts"] == {"line_unknown": 1}
    assert lines(folder)[-1] == line


@pytest.mark.parametrize("moment", ["snapshot", "settled_after"])
def test_a_live_batch_is_checked_as_it_was_at_one_moment(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Runs settle meanwhile, and the end of the batch writes the file anew."""
    with Ledger.open(folder.ledger) as ledger:
        ledger.note(verdict=None)
    again = a_run("aaaa2", index=1)
    meanwhile: list[Event] = [intended(again, 2), accepted(again, 2), a_settled(again, 2)]
    real = getattr(Ledger, moment)
    with closing(opened_store(folder.path)) as store:
        store.reopen([Reopened("aaaa2", 200.0)])
        old = folder.results.stat().st_ino

        def slow(ledger: Ledger, *words: Any) -> Any:
            if meanwhile:
                store.write(meanwhile)
                store.drop_superseded()
                meanwhile.clear()
            return real(ledger, *words)

        monkeypatch.setattr(Ledger, moment, slow)
        assert document(folder)["as_written"]
        assert folder.results.stat().st_ino != old
        assert (document(folder)["as_written"], document(folder)["lines"]) == (True, 4)


def test_a_file_that_is_being_written_anew_is_not_judged(folder: Folder) -> None:
    """The ledger has the new places, and the old file has the name."""
    with Ledger.open(folder.ledger) as ledger:
        ledger.note(results_aside=True)
    with pytest.raises(UsageError) as caught:
        said(folder)
    assert caught.value.render() == (
        f"error: {folder.results} can't be checked: the end of the batch is writing it anew, or was cut off while it"
        " did\n  help: check the batch once it has ended; 'runner resume' ends one that was cut off"
    )


# Artifacts


def claimed(run: Run, attempt: int, *names: str) -> Claimed:
    """Files that hold their own names."""
    return Claimed(run.key, attempt, tuple(FileClaim(f, sha256(f.encode()).hexdigest(), len(f)) for f in names))


def with_artifacts(tmp_path: Path) -> Folder:
    """
    A batch of two runs with an artifact each, and one that failed. No file is there of what the first one claimed in an
    attempt that failed, and in one that was cut off and gone on with, nor of what the failed one claimed.
    """
    first, second, third = (a_run(f"k{number}", index=number) for number in range(3))
    events: list[Event] = [
        *(intended(first), accepted(first), claimed(first, 1, "artifacts/0.gif"), ended(first)),
        *(intended(first, 2), accepted(first, 2), claimed(first, 2, "artifacts/0.jpg")),
        claimed(first, 2, "artifacts/a b.png"),
        a_settled(first, 2, an_ending(artifacts=("artifacts/a b.png",))),
        *(intended(second), accepted(second), claimed(second, 1, "artifacts/deep/1.png")),
        a_settled(second, 1, an_ending(artifacts=("artifacts/deep/1.png",))),
        *(intended(third), accepted(third), claimed(third, 1, "artifacts/2.png")),
        a_settled(third, 1, an_ending(Outcome.ARTIFACT_FAILED)),
    ]
    folder = a_batch(tmp_path, events, planned={"photos": 3})
    for name in ("artifacts/a b.png", "artifacts/deep/1.png"):
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_text(name)
    return folder


def test_artifacts_that_are_as_they_were_made_are_well(tmp_path: Path) -> None:
    """A name that a run claimed and has not after all is no file that is missing."""
    folder = with_artifacts(tmp_path)
    assert said(folder) == well(count=3, files=2)


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (removed, "is gone"),
        (lambda path: path.write_text("artifacts/a b.PNG"), "is not as it was made: its sha256 is another"),
        (lambda path: path.write_text("short"), "has 5 bytes, and was made with 17"),
    ],
    ids=["gone", "changed", "cut"],
)
def test_an_artifact_that_is_not_as_it_was_made_is_named(
    tmp_path: Path, act: Callable[[Path], object], message: str
) -> None:
    """With the run that made it."""
    folder = with_artifacts(tmp_path)
    act(folder.path / "artifacts/a b.png")
    code, told = said(folder)
    assert code == 1
    assert told.startswith(
        f"artifacts/a b.png {message}; it is an artifact of run 0 of job 'photos', key k0\n{FILE_COPY}ID: 1 finding ("
    )


def test_an_artifact_that_can_not_be_read_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails in one place may have the rest."""

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    folder = with_artifacts(tmp_path)
    monkeypatch.setattr("hashlib.file_digest", failing)
    assert said(folder) == (
        1,
        "artifacts/a b.png can't be read: Input/output error; it is an artifact of run 0 of job 'photos', key k0\n"
        "artifacts/deep/1.png can't be read: Input/output error; it is an artifact of run 1 of job 'photos', key k1\n"
        "  help: see who may read it, and its disk\nID: 2 findings (3 lines and 2 artifacts)\n",
    )


def test_an_artifact_is_told_of_a_damaged_line_too(tmp_path: Path) -> None:
    """Of what its last attempt claimed nobody can say any more that it is not the run's."""
    folder = with_artifacts(tmp_path)
    (folder.path / "artifacts/deep/1.png").unlink()
    folder.results.write_bytes(folder.results.read_bytes().replace(b'"x":1', b'"x":2'))
    assert document(folder)["counts"] == {"line_changed": 3, "file_gone": 2}


# Which batch


def sharded(outputs: Path) -> Path:
    """A batch in three shards, of which the last has not begun."""
    common = outputs / "horses/2026-11-23"
    for number in (1, 2):
        runs = carried(replace(a_run(f"k{number}"), index=number))
        shard = a_batch(outputs, runs, id_=f"{common.name}/shards/0{number}-of-03", planned={"photos": 1})
        manifest: JsonObject = {
            "name": "horses",
            "spec": {},
            "vars": {},
            "inputs": [],
            "overrides": {"jobs": [], "vars": {}},
            "shard": {"batch_id": common.name, "plan": {"photos": 3}},
            "versions": {"runpod-runner": "0.1.0"},
            "job_file": {"path": "horses.yaml"},
            "local_url": None,
            "fresh": False,
        }
        shard.manifest.write_bytes(dump(manifest))
    return common


def test_all_shards_that_are_there_are_checked(tmp_path: Path) -> None:
    """Those that are not are said."""
    common = sharded(tmp_path)
    start = f"runner run horses.yaml --shard 3/3 --batch-id 2026-11-23 --output-dir {tmp_path}"
    note = f"note: not all is among these, shard 3/3 is missing: {start}\n"
    out = io.StringIO()
    assert verify("2026-11-23", output_dir=tmp_path, out=out) == 0
    assert out.getvalue() == f"{note}2026-11-23: all is as it was written (2 lines and 0 artifacts, 746 B)\n"
    results = common / "shards/02-of-03/results.jsonl"
    results.write_bytes(results.read_bytes() + b"x")
    out = io.StringIO()
    assert verify(str(common), output_dir=None, out=out) == 1
    assert out.getvalue() == (
        f"line 2 of {results}, at byte 373, is none that the ledger speaks of\n{ADDED}"
        f"{note}2026-11-23: 1 finding (2 lines and 0 artifacts, 746 B)\n"
    )


def test_of_a_remote_folder_what_was_fetched_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its artifacts are not fetched, and what is here can be fetched again."""
    monkeypatch.setenv("RUNNER_CACHE_DIR", str(tmp_path))
    here = locations.here("s3://bucket/batches", locations.READ)
    folder = a_batch(here, mixed(), planned=PLANNED)
    note = f"note: the artifacts of s3://bucket/batches/horses/{folder.id} are there, and were not looked at\n"
    note = note.replace(folder.id, "ID")
    assert said(folder) == (0, note + well()[1])
    end = folder.results.stat().st_size
    with folder.results.open("ab") as file:
        file.write(b"x")
    assert said(folder) == (
        1,
        f"line 5 of results.jsonl, at byte {end:,}, is none that the ledger speaks of\n"
        f"  help: remove the folder {folder.path.parent}/ID: it is fetched again when it is looked at\n"
        f"{note}ID: 1 finding (4 lines and 0 artifacts)\n",
    )


def test_the_document_has_all_that_is_known_of_a_finding(folder: Folder) -> None:
    """A program mends, or asks for a copy, by it."""
    text = lines(folder)
    folder.results.write_bytes(b"".join([text[0], damaged(text[1], b"no horse", b"NO horse"), *text[2:]]))
    at = len(text[0])
    assert document(folder) == {
        "batch": {"id": folder.id, "path": str(folder.path)},
        "as_written": False,
        "lines": 4,
        "artifacts": 0,
        "size_bytes": len(b"".join(text)),
        "counts": {"line_changed": 1},
        "findings": [
            {
                "kind": "line_changed",
                "file": str(folder.results),
                "line": 2,
                "byte": at,
                "key": "aaaa2",
                "job": "photos",
                "index": 1,
                "message": f"line 2 of {folder.results}, at byte {at}, is not as it was written: it is that of run 1 of"
                " job 'photos', key aaaa2",
                "fix": COPY.removeprefix("  help: ").strip(),
            }
        ],
        "notes": [],
    }


def test_the_command_exits_1_for_damage_and_2_for_what_it_can_not_check(folder: Folder) -> None:
    """A script must not take a batch that is not there for a damaged one, nor a lost ledger for a lost line."""
    root = folder.path.parents[1]
    folder.results.write_bytes(b"")
    ran = runner("verify", "horses", "--output-dir", root, cwd=root)
    assert (ran.code, ran.err, ran.out.splitlines()[-1]) == (
        1,
        "",
        f"{folder.id}: 5 findings (4 lines and 0 artifacts, 0 B)",
    )
    folder.ledger.write_bytes(b"no ledger")
    ran = runner("verify", "horses", "--output-dir", root, cwd=root)
    assert (ran.code, ran.out, ran.err) == (
        2,
        "",
        f"error: the ledger {folder.ledger} can't be used: file is not a database\n  help: put it back from a copy, or"
        " start a new batch with --fresh; results.jsonl beside it has what was settled\n",
    )


def test_what_can_not_be_read_is_no_finding(folder: Folder, tmp_path: Path) -> None:
    """Nobody knows whether it is as it was written."""
    folder.results.unlink()
    folder.results.mkdir()
    with pytest.raises(UsageError) as caught:
        said(folder)
    assert caught.value.render() == (
        f"error: {folder.results} can't be read: Is a directory\n  help: see who may read it, and its disk"
    )
    with pytest.raises(UsageError, match="no batch 'nothing': it is no batch folder, and"):
        verify("nothing", output_dir=tmp_path)


def test_memory_does_not_grow_with_the_lines(tmp_path: Path) -> None:
    """Nor with what is wrong with them: a million lines may have moved."""
    folder = a_batch(tmp_path, planned={"photos": 5000})
    with closing(opened_store(folder.path)) as store:
        unsynced(store.ledger)
        ending = an_ending(output="x" * 1000)
        store.write([a_settled(a_run(f"{n:08}", index=n), 1, ending) for n in range(5000)])
    folder.results.write_bytes(b"x" + folder.results.read_bytes())
    tracemalloc.start()
    try:
        assert document(folder)["counts"] == {"line_changed": 1, "lines_moved": 1}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000 < folder.results.stat().st_size
