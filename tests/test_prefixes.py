"""Disk prefixes: some moments of what `python -m torture.prefixes` replays, and that they bite."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from torture import shim
from torture.prefixes import ROWS, Recording, Replayer, Wish, record, replay
from torture.replay import Disk, Op
from torture.stub import Stub

SEED = 7


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    """The endpoint that can be set to any moment of its past."""
    with Stub() as found:
        yield found


@pytest.fixture(scope="module")
def recording(stub: Stub) -> Iterator[Recording]:
    """One batch that was killed, gone on with, and tried again."""
    try:
        shim.library()
    except shim.NoCompiler as error:
        pytest.skip(f"the record of a disk needs a C compiler: {error}")
    with tempfile.TemporaryDirectory() as folder:
        yield record(Path(folder), stub, random.Random(SEED))


@pytest.mark.filterwarnings("default")
def test_a_batch_is_gone_on_with_from_any_moment_of_its_disk(recording: Recording, stub: Stub) -> None:
    """Nothing is lost, nothing is paid for twice unawares, and the classes add up; `play` looks at all of it."""
    found = replay(recording, stub, SEED, Wish(most=60))
    assert [text for one in found.values() for text in one.problems] == []
    assert sum(one.cases for one in found.values()) >= 40
    assert set(found) <= set(ROWS)


def test_a_moment_can_be_played_again_from_what_was_kept(
    recording: Recording, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording is of processes, so no seed makes the same one again."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    *_, (number, kind, _) = Replayer(recording, stub, SEED).moments()
    recording.keep_for(SEED)
    folder = recording.scene.folder.parent
    aside = folder.rename(folder.with_name(f"{folder.name}-aside"))
    try:
        with Recording.kept(recording.kept_as(SEED)) as again:
            assert (again.ops, again.jobs, again.keep) == (recording.ops, recording.jobs, recording.keep)
            found = replay(again, stub, SEED, Wish(case=f"{number} {kind}"))
        assert [(one.cases, one.problems) for one in found.values()] == [(1, [])]
        assert not folder.exists()
    finally:
        aside.rename(folder)


def op(kind: str, path: str, data: bytes = b"", *, other: str = "", offset: int = 0) -> Op:
    return Op(kind, path, other, offset, data)


def test_only_what_was_synced_is_certain() -> None:
    """A file's bytes by a sync of the file, its name by one of its folder."""
    disk = Disk(Path("/d"))
    for one in (
        op("create", "/d/a"),
        op("write", "/d/a", b"one"),
        op("sync", "/d/a"),
        op("write", "/d/a", b"two", offset=3),
        op("create", "/d/b"),
    ):
        disk.do(one)
    assert disk.present() == {"/d/a": b"onetwo", "/d/b": b""}
    assert disk.absent() == {}
    disk.do(op("sync", "/d"))
    assert disk.absent() == {"/d/a": b"one", "/d/b": b""}
    disk.do(op("rename", "/d/a", other="/d/b"))
    assert (disk.present(), disk.absent()) == ({"/d/b": b"onetwo"}, {"/d/a": b"one", "/d/b": b""})
    lefts = [disk.mixed(random.Random(seed)) for seed in range(40)]
    assert {tuple(sorted(left)) for left in lefts} == {("/d/a", "/d/b"), ("/d/b",)}
