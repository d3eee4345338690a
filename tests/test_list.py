"""The batches that are there."""

import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from happened import a_run, a_settled, carried
from old_batches import BEGAN, MIXED, a_batch, mixed

from runner import batch
from runner.commands.list import list_batches
from runner.errors import UsageError
from runner.inventory import size_bytes
from runner.states import Verdict


def said(outputs: Path, name: str | None = None) -> str:
    """What a person is told, two hours after the batches began; sizes depend on SQLite, so they are left out."""
    out = io.StringIO()
    assert list_batches(name, output_dir=outputs, now=BEGAN + 7200, out=out) == 0
    return re.sub(r"\d+\.\d KiB", lambda found: "SIZE".rjust(len(found[0])), out.getvalue())


def document(outputs: Path) -> list[dict[str, Any]]:
    """What a program is told."""
    out = io.StringIO()
    assert list_batches(output_dir=outputs, as_json=True, out=out) == 0
    found: list[dict[str, Any]] = json.loads(out.getvalue())["batches"]
    return found


def test_the_newest_comes_first_whatever_its_name(tmp_path: Path) -> None:
    """What somebody looks for is mostly the last one."""
    a_batch(tmp_path, carried(a_run()))
    a_batch(tmp_path, mixed(), planned=MIXED, id_="20270116T080000Z-0000", verdict=Verdict.INTERRUPTED)
    a_batch(tmp_path, name="captions", id_="20270115T090000Z-0000", verdict=None, took_s=None)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "horses" / "20270117T080000Z-0000").mkdir()
    assert (
        said(tmp_path)
        == """\
name      id                     verdict      settled  succeeded  failed  other  started                took       size
horses    20270116T080000Z-0000  interrupted      4/5          2       1      1  2027-01-15 08:00:00Z  1m05s       SIZE
captions  20270115T090000Z-0000  unfinished       0/1          0       0      0  2027-01-15 08:00:00Z              SIZE
horses    20270115T080000Z-7f3a  pass             1/1          1       0      0  2027-01-15 08:00:00Z  1m05s       SIZE
"""
    )
    assert [line.split()[0] for line in said(tmp_path, "captions").splitlines()] == ["name", "captions"]


def test_a_program_gets_every_number(tmp_path: Path) -> None:
    """The words are those of health.json."""
    folder = a_batch(tmp_path, mixed(), planned=MIXED, verdict=Verdict.INTERRUPTED)
    assert document(tmp_path) == [
        {
            "id": folder.id,
            "name": "horses",
            "path": str(folder.path),
            "profile": None,
            "verdict": "interrupted",
            "runs": 5,
            "settled": 4,
            "succeeded": 2,
            "failed": 1,
            "cancelled": 0,
            "skipped": 1,
            "reused": 0,
            "repeats": None,
            "started_at": "2027-01-15T08:00:00.000Z",
            "ended_at": "2027-01-15T08:01:05.000Z",
            "size_bytes": size_bytes(folder.path),
            "problem": None,
        }
    ]


def test_profile_and_reused_runs_have_columns_where_there_are_any(tmp_path: Path) -> None:
    """Two batches of one file that differ in these are not the same."""
    a_batch(tmp_path, carried(a_run()))
    taken = replace(a_settled(a_run(), 0), attempts=0, reused_from="20270114T080000Z-7f3a")
    folder = a_batch(tmp_path, [taken], id_="20270116T080000Z-0000")
    manifest = json.loads(folder.manifest.read_bytes())
    folder.manifest.write_text(json.dumps(manifest | {"overrides": {"profile": "nightly"}}))
    assert [line[:83].rstrip() for line in said(tmp_path).splitlines()] == [
        "name    profile  id                     verdict  settled  succeeded  reused  failed",
        "horses  nightly  20270116T080000Z-0000  pass         1/1          1       1       0",
        "horses           20270115T080000Z-7f3a  pass         1/1          1               0",
    ]
    assert [(one["profile"], one["reused"]) for one in document(tmp_path)] == [("nightly", 1), (None, 0)]


@pytest.mark.parametrize("name", [None, "horses"])
def test_no_batches_is_one_line(tmp_path: Path, name: str | None) -> None:
    """And no error: there may be none yet."""
    of = "" if name is None else " of 'horses'"
    for outputs in (tmp_path, tmp_path / "nowhere"):
        assert said(outputs, name) == f"no batches{of} in {outputs}\n"
        assert document(outputs) == []


def test_the_running_batch_is_the_one_that_was_last_written(tmp_path: Path) -> None:
    """Beside it there may be one that was killed long ago and never went on."""
    killed = a_batch(tmp_path, verdict=None, took_s=None)
    running = a_batch(tmp_path, id_="20270115T080001Z-0000", verdict=None, took_s=None)
    ended = a_batch(tmp_path, id_="20270115T080002Z-0000")
    for number, folder in enumerate((killed, running, ended)):
        os.utime(folder.log, (BEGAN + number, BEGAN + number))

    def verdicts() -> list[str]:
        return [one["verdict"] for one in document(tmp_path)]

    assert verdicts() == ["pass", "unfinished", "unfinished"]
    with batch.lock(tmp_path / "horses", now=BEGAN):
        assert verdicts() == ["pass", "running", "unfinished"]
        (line,) = [line.split() for line in said(tmp_path).splitlines() if running.id in line]
        assert line == [
            *("horses", running.id, "running", "0/1", "0", "0", "0"),
            *("2027-01-15", "08:00:00Z", "2h00m", "SIZE"),
        ]
        os.utime(killed.log, (BEGAN + 9, BEGAN + 9))  # it goes on, by `runner resume`
        assert verdicts() == ["pass", "unfinished", "running"]


def test_one_that_can_not_be_read_says_why_and_hides_no_other(tmp_path: Path) -> None:
    """An older version's, a damaged one, one without its manifest."""
    whole = a_batch(tmp_path)
    damaged = a_batch(tmp_path, id_="20270115T080001Z-0000")
    damaged.ledger.write_bytes(b"no ledger")
    without = a_batch(tmp_path, id_="20270115T080002Z-0000")
    without.manifest.unlink()
    assert said(tmp_path) == (
        "name    id                     verdict  settled  succeeded  failed  other  started                took"
        "       size\n"
        f"horses  {without.id}  {without.manifest} can't be read: No such file or directory\n"
        f"horses  {damaged.id}  the ledger {damaged.ledger} can't be used: file is not a database\n"
        f"horses  {whole.id}  pass         0/1          0       0      0  2027-01-15 08:00:00Z  1m05s       SIZE\n"
    )
    assert [one["problem"] is None for one in document(tmp_path)] == [False, False, True]
    assert document(tmp_path)[0]["verdict"] is None


def test_what_is_no_folder_can_not_be_listed(tmp_path: Path) -> None:
    """A mistyped --output-dir."""
    (tmp_path / "file").touch()
    assert said(tmp_path / "file") == f"no batches in {tmp_path / 'file'}\n"


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's, perhaps."""

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UsageError) as caught:
        said(tmp_path)
    assert caught.value.render() == (
        f"error: {tmp_path} can't be read: Permission denied\n  help: see who may read it, or name another folder"
    )


def test_a_size_is_that_of_all_files_and_of_nothing_that_is_linked(tmp_path: Path) -> None:
    """Artifacts are most of a batch."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/one").write_bytes(b"x" * 1000)
    (tmp_path / "a/two").write_bytes(b"x" * 24)
    (tmp_path / "a/up").symlink_to(tmp_path)
    size = size_bytes(tmp_path)
    assert size is not None
    assert 1024 < size < 2000
    assert size_bytes(tmp_path, most_files=5) == size
    assert size_bytes(tmp_path, most_files=4) is None
    assert size_bytes(tmp_path / "nowhere") == 0


def test_a_name_s_folder_that_may_not_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody else's batches in a shared folder."""
    a_batch(tmp_path, name="captions")
    a_batch(tmp_path)
    real = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "captions":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert [one["name"] for one in document(tmp_path)] == ["horses"]
    assert capsys.readouterr().err == f"note: {tmp_path}/captions can't be read: Permission denied\n"
