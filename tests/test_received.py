"""What jobs sent, as it came: stream files and answers that nobody can read."""

import errno
import os
from pathlib import Path

import pytest

from runner.errors import RecordError
from runner.received import Received


async def test_chunks_are_in_the_file_as_soon_as_they_are_appended(tmp_path: Path) -> None:
    """A kill a moment later takes none of them."""
    file = Received(tmp_path).stream("k0", 2)
    await file.append(["a", {"n": 1}])
    path = tmp_path / "streams/k0.2.jsonl"
    assert path.read_bytes() == b'"a"\n{"n":1}\n'
    await file.append([None])
    await file.close()
    assert path.read_bytes() == b'"a"\n{"n":1}\nnull\n'


async def test_a_stream_without_chunks_leaves_no_file(tmp_path: Path) -> None:
    """Ten thousand empty files tell nothing."""
    file = Received(tmp_path).stream("k0", 1)
    assert await file.read() == []
    await file.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_torn_line_is_taken_off_before_more_is_written(tmp_path: Path) -> None:
    """A kill in the middle of a write must not spoil the chunk that follows."""
    (tmp_path / "streams").mkdir()
    path = tmp_path / "streams/k0.1.jsonl"
    path.write_bytes(b'"a"\n"b"\n"to')
    file = Received(tmp_path).stream("k0", 1)
    assert await file.read() == ["a", "b"]
    await file.append(["c"])
    file.leave()
    assert path.read_bytes() == b'"a"\n"b"\n"c"\n'


async def test_lines_that_a_power_loss_left_as_zeros_are_taken_out(tmp_path: Path) -> None:
    """Their bytes were never on the disk; the chunks around them are still worth keeping."""
    (tmp_path / "streams").mkdir()
    path = tmp_path / "streams/k0.1.jsonl"
    path.write_bytes(b'"a"\n' + bytes(6) + b'"\n"c"\n' + bytes(40))
    file = Received(tmp_path).stream("k0", 1)
    assert await file.read() == ["a", "c"]
    assert path.read_bytes() == b'"a"\n"c"\n'


async def test_a_full_disk_is_said_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that are drained and can't be written are lost: nothing more may be read."""

    def full(_file: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    file = Received(tmp_path).stream("k0", 1)
    with pytest.raises(RecordError) as caught:
        await file.append(["a"])
    file.leave()
    assert caught.value.render() == (
        f"error: {tmp_path}/streams/k0.1.jsonl can't be written: No space left on device\n"
        "  help: see that the disk has room and the folder can be written, then go on with --resume"
    )


async def test_an_answer_that_nobody_can_read_is_kept_byte_for_byte(tmp_path: Path) -> None:
    """A person may still make something of it."""
    body = b"<html>\x00\xff"
    assert await Received(tmp_path).keep_unreadable("k0", 1, body) == "unreadable/k0.1.bin"
    assert (tmp_path / "unreadable/k0.1.bin").read_bytes() == body
