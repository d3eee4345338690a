"""Old batches removed, and nothing else, ever."""

import io
import json
import os
import pty
import select
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from happened import a_run, carried
from old_batches import BEGAN, MIXED, a_batch, mixed

from runner import batch
from runner.batch import Folder, newest_first
from runner.commands import clean as module
from runner.commands.clean import Manners, Rules, clean
from runner.errors import BatchBusy, RecordError, UsageError

DAY_S = 86_400.0
NOW = BEGAN + 10 * DAY_S
YES = Manners(yes=True)


def one_a_day(outputs: Path, days: int, name: str = "horses") -> list[Folder]:
    """A finished batch a day, the first on the 15th, each with an artifact; `latest` is the last."""
    found = []
    for day in range(days):
        folder = a_batch(outputs, carried(a_run()), name=name, id_=f"202701{15 + day}T080000Z-0000")
        (folder.path / "artifacts").mkdir()
        (folder.path / "artifacts/one.png").write_bytes(b"x" * 1000)
        found.append(folder)
    return found


def left(outputs: Path, name: str = "horses") -> list[int]:
    """The days of the batches that are left, and nothing hidden beside them."""
    hidden = {path.name for path in (outputs / name).iterdir() if path.name.startswith(".")}
    assert hidden <= {".lock"}
    return sorted(int(folder.id[6:8]) for folder in newest_first(outputs / name))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(), [15, 16, 17, 18]),
        (Rules(keep=3), [16, 17, 18]),
        (Rules(keep=1), [18]),
        (Rules(keep=0), [18]),
        (Rules(keep=1, older_than_s=9 * DAY_S), [16, 17, 18]),
        (Rules(keep=0, older_than_s=7.5 * DAY_S), [18]),
        (Rules(keep=3, older_than_s=9 * DAY_S), [16, 17, 18]),
        (Rules(keep=4, older_than_s=1.0), [15, 16, 17, 18]),
    ],
    ids=str,
)
def test_what_goes_is_both_beyond_the_newest_and_old_enough(tmp_path: Path, rules: Rules, expected: list[int]) -> None:
    """And never what `latest` points to."""
    one_a_day(tmp_path, 4)
    assert clean(None, rules, YES, output_dir=tmp_path, now=NOW) == 0
    assert left(tmp_path) == expected
    assert (tmp_path / "horses" / "latest").resolve().is_dir()


def test_each_job_file_keeps_its_newest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A busy one must not push out the batches of another; a name narrows it to one."""
    one_a_day(tmp_path, 3)
    one_a_day(tmp_path, 2, "captions")
    assert clean("captions", Rules(keep=1), YES, output_dir=tmp_path, now=NOW) == 0
    assert (left(tmp_path), left(tmp_path, "captions")) == ([15, 16, 17], [16])
    assert clean(None, Rules(keep=2), YES, output_dir=tmp_path, now=NOW) == 0
    assert (left(tmp_path), left(tmp_path, "captions")) == ([16, 17], [16])
    capsys.readouterr()
    assert clean(None, Rules(keep=2), YES, output_dir=tmp_path, now=NOW) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_an_unfinished_batch_stays_unless_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its runs may be at RunPod, paid for; and one that can't be read may be unfinished."""
    a_batch(tmp_path, mixed(), planned=MIXED, id_="20270113T080000Z-0000")
    damaged = a_batch(tmp_path, id_="20270114T080000Z-0000")
    damaged.ledger.write_bytes(b"no ledger")
    one_a_day(tmp_path, 2)
    assert clean(None, Rules(keep=0), YES, output_dir=tmp_path, now=NOW) == 0
    assert left(tmp_path) == [13, 14, 16]
    capsys.readouterr()
    assert clean(None, Rules(keep=0, unfinished=True), YES, output_dir=tmp_path, now=NOW) == 0
    assert left(tmp_path) == [16]
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(f" B  the ledger {damaged.ledger} can't be used: file is not a database")
    assert said[1].endswith(" KiB  unfinished: 1 of 5 runs are not settled")


def test_what_goes_is_listed_with_its_size_and_what_was_freed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that nobody removes what they did not mean to."""
    old = one_a_day(tmp_path, 3)[:2]
    (old[0].path / "artifacts/two.png").write_bytes(b"x" * 5_000_000)
    assert clean(None, Rules(keep=1), Manners(dry_run=True), output_dir=tmp_path, now=NOW) == 0
    said = capsys.readouterr().out.splitlines()
    sizes = [line.split("  ")[-1].strip() for line in said[:2]]
    assert said == [
        f"horses  {old[1].id}  {sizes[0]:>9}",
        f"horses  {old[0].id}  {sizes[1]:>9}",
        f"would remove 2 batches, {said[2].partition(', ')[2]}",
    ]
    assert (sizes[0].endswith(" KiB"), sizes[1].endswith(" MiB")) == (True, True)
    assert left(tmp_path) == [15, 16, 17]
    assert clean(None, Rules(keep=1), YES, output_dir=tmp_path, now=NOW) == 0
    total = said[2].partition(", ")[2]
    assert capsys.readouterr().out.splitlines() == [*said[:2], f"removed 2 batches, {total} freed"]


def test_a_program_gets_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before, after, and when there was nothing to do."""
    old = one_a_day(tmp_path, 2)[0]

    def said(*, dry_run: bool) -> object:
        clean(None, Rules(keep=1), Manners(yes=True, dry_run=dry_run, as_json=True), output_dir=tmp_path, now=NOW)
        return json.loads(capsys.readouterr().out)

    assert said(dry_run=True)  # the first look at a ledger makes SQLite put files beside it
    size = sum(path.stat().st_size for path in old.path.rglob("*") if path.is_file())
    gone = [{"id": old.id, "name": "horses", "path": str(old.path), "size_bytes": size}]
    assert said(dry_run=True) == {"would_remove": gone, "would_free_bytes": size}
    assert said(dry_run=False) == {"removed": gone, "freed_bytes": size}
    assert said(dry_run=False) == {"removed": [], "freed_bytes": 0}


def test_without_a_terminal_nobody_can_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cron job that forgot --yes must not hang, nor remove."""
    one_a_day(tmp_path, 2)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError) as caught:
        clean(None, Rules(keep=1), Manners(), output_dir=tmp_path, now=NOW)
    found = caught.value.render()
    assert found.startswith("error: 1 batch, ")
    assert found.partition("KiB ")[2] == (
        "would be removed, and there is no terminal to ask at\n"
        "  help: add --yes to remove them, or --dry-run to only see them"
    )
    assert left(tmp_path) == [15, 16]


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Ask and answer at a terminal, in the block; its other side."""
    main, side = pty.openpty()
    with os.fdopen(side) as stdin, os.fdopen(os.dup(side), "w") as stderr, monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", stdin)
        patched.setattr(sys, "stderr", stderr)
        yield main
    os.close(main)


@pytest.mark.parametrize(
    ("answer", "expected"), [("y", [16]), ("Yes", [16]), ("n", [15, 16]), ("", [15, 16]), ("sure", [15, 16])]
)
def test_on_a_terminal_a_person_agrees(
    tmp_path: Path,
    answer: str,
    expected: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Anything but yes is no."""
    one_a_day(tmp_path, 2)
    with terminal(monkeypatch) as keyboard:
        os.write(keyboard, f"{answer}\n".encode())
        assert clean(None, Rules(keep=1), Manners(), output_dir=tmp_path, now=NOW) == 0
        seen = b""
        while b"remove 1 batch, " not in seen:  # a terminal gives what it has in pieces, the echo first
            assert select.select([keyboard], [], [], 5.0)[0], seen
            seen += os.read(keyboard, 1000)
    assert left(tmp_path) == expected
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("removed 1 batch, " if expected == [16] else "nothing removed")


def test_a_name_whose_batch_is_running_is_busy(tmp_path: Path) -> None:
    """What is being written is not removed, and nobody is asked."""
    one_a_day(tmp_path, 2)
    with batch.lock(tmp_path / "horses", now=NOW), pytest.raises(BatchBusy):
        clean("horses", Rules(keep=1), YES, output_dir=tmp_path, now=NOW)
    assert left(tmp_path) == [15, 16]


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_running_batch_keeps_only_its_own_kind(
    tmp_path: Path, dry_run: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """One job file that always runs must not keep the disk from being cleaned."""
    one_a_day(tmp_path, 2)
    one_a_day(tmp_path, 2, "captions")
    with batch.lock(tmp_path / "horses", now=NOW):
        manners = Manners(yes=True, dry_run=dry_run)
        assert clean(None, Rules(keep=1), manners, output_dir=tmp_path, now=NOW) == 5
    assert (left(tmp_path), left(tmp_path, "captions")) == ([15, 16], [15, 16] if dry_run else [16])
    said = capsys.readouterr()
    if dry_run:
        assert said.err == "note: a batch of 'horses' is running; its batches are left alone\n"
    else:
        assert said.err.startswith("note: another batch of 'horses' is running: process ")
        assert said.err.endswith("; its batches are left alone\n")
    assert "horses" not in said.out


def test_what_began_while_somebody_was_asked_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lock is not held meanwhile: a cron job must not fail because of a question on a screen."""
    one_a_day(tmp_path, 3)

    def goes_on(*_: object) -> bool:
        latest = tmp_path / "horses" / "latest"
        latest.unlink()
        latest.symlink_to("20270115T080000Z-0000")
        return True

    monkeypatch.setattr(module, "_is_agreed", goes_on)
    assert clean(None, Rules(keep=1), Manners(), output_dir=tmp_path, now=NOW) == 0
    assert left(tmp_path) == [15, 17]
    assert capsys.readouterr().out.splitlines()[-1].startswith("removed 1 batch, ")


def test_what_a_killed_clean_left_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is hidden from the first moment on, so nothing ever lists half a batch."""
    one_a_day(tmp_path, 3)

    def killed(path: Path) -> None:
        (path / "ledger.sqlite").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        clean(None, Rules(keep=1), YES, output_dir=tmp_path, now=NOW)
    monkeypatch.undo()
    assert [folder.id[6:8] for folder in newest_first(tmp_path / "horses")] == ["17", "15"]
    assert (tmp_path / "horses/.removing-20270116T080000Z-0000").is_dir()
    assert clean(None, Rules(keep=5), YES, output_dir=tmp_path, now=NOW) == 0
    assert left(tmp_path) == [15, 17]


def test_a_batch_that_can_not_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's files, perhaps."""
    old = one_a_day(tmp_path, 2)[0]

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(RecordError) as caught:
        clean(None, Rules(keep=1), YES, output_dir=tmp_path, now=NOW)
    assert caught.value.render() == (
        f"error: {old.path.parent}/.removing-{old.id} can't be removed: Permission denied\n"
        "  help: see who may write it, then clean again: what is hidden already is removed first"
    )


def test_links_are_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither out of the outputs folder, nor out of a batch, nor to a batch elsewhere."""
    elsewhere, outputs = tmp_path / "elsewhere", tmp_path / "outputs"
    one_a_day(elsewhere, 3)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    old = one_a_day(outputs, 2, "captions")[0]
    (old.path / "link").symlink_to(precious)
    (outputs / "captions/20270101T080000Z-0000").symlink_to(elsewhere / "horses/20270115T080000Z-0000")
    (outputs / "captions/.removing-x").symlink_to(precious)
    (outputs / "horses").symlink_to(elsewhere / "horses")
    assert clean(None, Rules(keep=0), YES, output_dir=outputs, now=NOW) == 0
    assert capsys.readouterr().err == f"note: {outputs}/horses is a link, and clean follows none\n"
    assert (left(elsewhere), (precious / "file").exists()) == ([15, 16, 17], True)
    assert [folder.id[6:8] for folder in newest_first(outputs / "captions")] == ["16"]
    with pytest.raises(UsageError) as caught:
        clean("horses", Rules(keep=0), YES, output_dir=outputs, now=NOW)
    assert caught.value.render() == (
        f"error: {outputs}/horses is a link, and clean follows none\n"
        f"  help: clean where it leads: --output-dir {elsewhere}"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("horse", "{outputs} has no batches of 'horse'\n  help: did you mean 'horses'?"),
        ("../x", "'../x' is no job file's name\n  help: write the 'name' that the job file has"),
        ("..", "'..' is no job file's name\n  help: write the 'name' that the job file has"),
        ("", "'' is no job file's name\n  help: write the 'name' that the job file has"),
    ],
)
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str, message: str) -> None:
    """Above all one that leads somewhere else."""
    one_a_day(tmp_path, 2)
    with pytest.raises(UsageError) as caught:
        clean(name, Rules(keep=0), YES, output_dir=tmp_path, now=NOW)
    assert caught.value.render() == "error: " + message.replace("{outputs}", str(tmp_path))
