"""Files that last."""

import errno
import os
from pathlib import Path

import pytest

from runner.durable import write_whole
from runner.errors import RecordError


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_an_old_file_stays_whole_when_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Half a report is worse than yesterday's."""
    path = tmp_path / "health.json"
    write_whole(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(step, fail)
    with pytest.raises(RecordError) as caught:
        write_whole(path, b"new")
    monkeypatch.undo()
    assert caught.value.render() == (
        f"error: {path} can't be written: Input/output error\n"
        "  help: see that the disk has room and the folder can be written, then go on with --resume"
    )
    assert (path.read_bytes(), [one.name for one in tmp_path.iterdir()]) == (b"old", ["health.json"])


def test_a_whole_file_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After power loss a renamed file that was not synced may be empty."""
    steps: list[str] = []
    replace = Path.replace

    def renamed(aside: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(aside, target)

    monkeypatch.setattr(os, "fsync", lambda _: steps.append("sync"))
    monkeypatch.setattr(Path, "replace", renamed)
    write_whole(tmp_path / "x", b"data")
    assert steps == ["sync", "rename", "sync"]
