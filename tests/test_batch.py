"""The batch folder: where it is, its lock, its files."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runner import batch
from runner.batch import Folder
from runner.errors import BatchBusy, RecordError, UsageError

NOW = 1_800_000_000.0


# Where batches are


@pytest.mark.parametrize(
    ("mark", "dir_in_file", "output_dir", "expected"),
    [
        pytest.param(None, None, None, "a/b/c/batches", id="beside the file"),
        pytest.param("a/.git/", None, None, "a/batches", id="beside .git"),
        pytest.param("a/b/.git", None, None, "a/b/batches", id="beside a worktree's .git"),
        pytest.param("a/b/pyproject.toml", None, None, "a/b/batches", id="beside pyproject.toml"),
        pytest.param("a/.git/", "out", None, "a/b/c/out", id="the file's word starts at the file"),
        pytest.param("a/.git/", "../out", None, "a/b/c/../out", id="and may go up"),
        pytest.param("a/.git/", "/srv/out", None, "/srv/out", id="and may be absolute"),
        pytest.param("a/.git/", "out", "here", "here", id="the command line starts at the working directory"),
    ],
)
def test_the_outputs_root(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mark: str | None,
    dir_in_file: str | None,
    output_dir: str | None,
    expected: str,
) -> None:
    """Cron and a developer must find the same lock, `latest` and unfinished batch."""
    folder = tmp_path / "a/b/c"
    folder.mkdir(parents=True)
    if mark is not None:
        (tmp_path / mark).mkdir() if mark.endswith("/") else (tmp_path / mark).touch()
    monkeypatch.chdir(tmp_path)
    found = batch.outputs_root(
        folder / "job.yaml", dir_in_file=dir_in_file, output_dir=None if output_dir is None else Path(output_dir)
    )
    assert found == tmp_path / expected
    if output_dir is None and not expected.startswith("/"):
        monkeypatch.chdir(folder)
        assert batch.outputs_root(Path("job.yaml"), dir_in_file=dir_in_file, output_dir=None) == found


def test_preparing_makes_the_folder(tmp_path: Path) -> None:
    """And again is no trouble."""
    for _ in range(2):
        batch.prepare(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()


def test_the_names_of_new_folders_are_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power failure must not take the folder with all that was paid for; nor after a kill before the sync."""
    synced: list[Path] = []
    monkeypatch.setattr(batch, "sync_folder", synced.append)
    batch.prepare(tmp_path / "a/b/c")
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a/b"}
    synced.clear()
    batch.prepare(tmp_path / "a/b/c")
    assert set(synced) == {tmp_path / "a", tmp_path / "a/b"}


def test_a_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    """Before anything is sent."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        batch.prepare(tmp_path / "file" / "horses")
    assert caught.value.render() == (
        f"error: the output folder {tmp_path}/file/horses can't be made: Not a directory\n"
        "  help: name another one with 'outputs.dir' in the job file, or with --output-dir"
    )


def test_a_folder_that_can_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError) as caught:
        batch.prepare(tmp_path)
    assert caught.value.render() == (
        f"error: the output folder {tmp_path} can't be written\n"
        "  help: change its permissions, or name another one with 'outputs.dir' or --output-dir"
    )


@contextmanager
def mounted(monkeypatch: pytest.MonkeyPatch, *lines: str) -> Iterator[None]:
    """Let the system say that these are its mounts."""
    real = Path.read_text
    table = "".join(f"{line} rw 0 0\n" for line in ("/dev/vda / ext4", "proc /proc proc", *lines))

    def read_text(path: Path, *words: Any, **named: Any) -> str:
        return table if path == Path("/proc/self/mounts") else real(path, *words, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", read_text)
        yield


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "fuse", "fuse.sshfs", "9p", "lustre", "ceph", "vboxsf"]
)
def test_a_folder_without_dependable_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """SQLite would lose commits there, or let two processes write."""
    share = str(tmp_path / "a share").replace(" ", "\\040")
    with mounted(monkeypatch, f"server:/x {share} {kind}"), pytest.raises(UsageError) as caught:
        batch.prepare(tmp_path / "a share" / "horses")
    assert caught.value.render() == (
        f"error: the output folder {tmp_path}/a share/horses is on {kind}, where SQLite's WAL and kernel locks can't be"
        " relied on\n  help: name a folder on a local disk with 'outputs.dir' or --output-dir, and copy finished"
        " batches away"
    )


@pytest.mark.parametrize(
    "mounts",
    [
        ["server:/x {path}/other nfs"],
        ["server:/x {path}/hor nfs"],
        ["server:/x {path} nfs4", "/dev/vdb {path}/horses xfs"],
        ["server:/x {path}/horses nfs4", "/dev/vdb {path}/horses xfs"],
        ["/dev/sda1 {path} fuseblk"],
    ],
    ids=["elsewhere", "a like name", "a disk within", "mounted over", "a local disk"],
)
def test_the_innermost_and_last_mount_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: list[str]
) -> None:
    """A share somewhere on the machine is no reason to refuse a local disk."""
    with mounted(monkeypatch, *(line.format(path=tmp_path) for line in mounts)):
        batch.prepare(tmp_path / "horses")


# The lock

HOLD = """
import os, subprocess, sys, time
from pathlib import Path
from runner import batch
from runner.errors import BatchBusy
root, how = Path(sys.argv[1]), sys.argv[2]
try:
    with batch.lock(root, now=1_800_000_000.0):
        if how == "worker":
            child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=sys.stdin)
        print(os.getpid(), flush=True)
        sys.stdin.read()
except BatchBusy as error:
    print(error.render(), flush=True)
    sys.exit(error.exit_code)
"""


@contextmanager
def holder(root: Path, how: str = "alone") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of *root*, or says why it can't."""
    words = [sys.executable, "-c", HOLD, str(root), how]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_process_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    """Two crons at once must not both pay."""
    with holder(tmp_path) as first:
        pid = said(first)
        with pytest.raises(BatchBusy) as caught, batch.lock(tmp_path, now=NOW):
            pass
        assert batch.holder_is_alive(tmp_path)
        with holder(tmp_path) as second:
            out, _ = second.communicate()
    assert second.returncode == 5
    assert out == f"{caught.value.render()}\n"
    assert caught.value.render() == (
        f"error: another batch of {tmp_path.name!r} is running: process {pid} on {os.uname().nodename},"
        " since 2027-01-15T08:00:00+00:00\n"
        "  help: wait for it, or stop it with Ctrl-C or SIGTERM there; 'runner status' shows where it stands"
    )


@pytest.mark.parametrize("how", ["alone", "worker"])
def test_a_dead_holder_s_lock_is_free(tmp_path: Path, how: str) -> None:
    """Also while a worker that it started lives on: nobody should have to delete a lock file by hand."""
    with holder(tmp_path, how) as process:
        said(process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not batch.holder_is_alive(tmp_path)
        with batch.lock(tmp_path, now=NOW):
            assert batch.holder_is_alive(tmp_path)


def test_a_holder_that_has_said_nothing_yet_is_believed(tmp_path: Path) -> None:
    """It may be between taking the lock and writing its name."""
    with batch.lock(tmp_path, now=NOW):
        (tmp_path / ".lock").write_bytes(b'{"pid')
        with pytest.raises(BatchBusy, match="its process has not said yet which it is"), batch.lock(tmp_path, now=NOW):
            pass


def test_nobody_is_named_once_the_lock_is_free(tmp_path: Path) -> None:
    """However the batch ended: `runner status` must not call it live."""
    for error in (None, ZeroDivisionError):
        try:
            with batch.lock(tmp_path, now=NOW):
                if error is not None:
                    raise error
        except ZeroDivisionError:
            pass
        assert (tmp_path / ".lock").read_bytes() == b""
        assert not batch.holder_is_alive(tmp_path)
    assert not batch.holder_is_alive(tmp_path / "nowhere")


def test_a_holder_of_another_user_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's cron job may not be signalled by who asks for its status."""

    def kill(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with batch.lock(tmp_path, now=NOW):
        monkeypatch.setattr(os, "kill", kill)
        assert batch.holder_is_alive(tmp_path)
        (tmp_path / ".lock").write_text('{"pid": 1, "host": "elsewhere", "since": ""}')
        assert not batch.holder_is_alive(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="nobody says when a process began")
def test_a_number_that_another_process_has_by_now_is_no_holder(tmp_path: Path) -> None:
    """A container that is started anew gives the same numbers to other processes; who waits would wait for ever."""
    with batch.lock(tmp_path, now=NOW):
        told = json.loads((tmp_path / ".lock").read_bytes())
        (tmp_path / ".lock").write_text(json.dumps(told | {"began": "1"}))
        assert not batch.holder_is_alive(tmp_path)
        (tmp_path / ".lock").write_text(json.dumps({name: told[name] for name in ("pid", "host")}))
        assert batch.holder_is_alive(tmp_path)


def test_a_holder_that_is_dead_and_not_yet_buried_is_no_holder(tmp_path: Path) -> None:
    """Where nothing buries the dead, as in many containers, it would hold the batch for ever."""
    with holder(tmp_path) as process:
        said(process)
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not batch.holder_is_alive(tmp_path)


@pytest.mark.parametrize(
    ("function", "number", "why"),
    [("os.open", errno.EACCES, "Permission denied"), ("fcntl.flock", errno.ENOLCK, "No locks available")],
)
def test_a_lock_that_can_not_be_taken_is_said_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int, why: str
) -> None:
    """The lock file may be somebody else's, the folder without locks."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(function, refuse)
    with pytest.raises(UsageError) as caught, batch.lock(tmp_path, now=NOW):
        pass
    monkeypatch.undo()
    assert caught.value.render() == (
        f"error: {tmp_path}/.lock can't be locked: {why}\n"
        "  help: change its permissions, or name another folder with 'outputs.dir' or --output-dir"
    )


def test_a_full_disk_does_not_keep_the_lock_from_being_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds it is for people to read; making the folder will say what is wrong."""

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    with batch.lock(tmp_path, now=NOW), pytest.raises(BatchBusy), batch.lock(tmp_path, now=NOW):
        pass


# Making, finding


def a_batch(root: Path, number: int = 0) -> Folder:
    """A batch with an (empty) ledger, started *number* seconds after `NOW`."""
    root.mkdir(parents=True, exist_ok=True)
    folder = batch.create(root, now=NOW + number)
    folder.ledger.touch()
    return folder


def test_a_batch_is_named_by_its_start(tmp_path: Path) -> None:
    """Names sort by time; the four digits keep two hosts apart."""
    assert a_batch(tmp_path).id.startswith("20270115T080000Z-")
    assert len(a_batch(tmp_path).id) == len("20261123T022312Z-7f3a")


def test_batches_of_one_second_stay_in_order(tmp_path: Path) -> None:
    """`latest`, --resume and status take the greatest id for the newest start."""
    made = [a_batch(tmp_path) for _ in range(8)]
    assert batch.newest_first(tmp_path) == made[::-1]


def test_making_a_batch_is_durable_or_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything after rests on the folder's being there."""
    synced: list[Path] = []
    monkeypatch.setattr(batch, "sync_folder", synced.append)
    batch.create(tmp_path, now=NOW)
    assert synced == [tmp_path]
    with pytest.raises(RecordError) as caught:
        batch.create(tmp_path / "nowhere", now=NOW)
    assert caught.value.message.endswith("can't be made: No such file or directory")


def test_latest_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dashboard that reads it at any moment finds a batch."""
    seen: list[str] = []
    real = Path.replace

    def replace(aside: Path, target: Path) -> Path:
        seen.append(str(target.readlink()) if target.is_symlink() else "")
        return real(aside, target)

    monkeypatch.setattr(Path, "replace", replace)
    one, other = a_batch(tmp_path), a_batch(tmp_path, 9)
    for folder in (one, other):
        batch.point_latest(folder)
        assert (tmp_path / "latest").resolve() == folder.path
    assert seen == ["", one.id]
    assert sorted(path.name for path in tmp_path.iterdir()) == [one.id, other.id, "latest"]


def test_a_folder_that_is_called_latest_is_said_plainly(tmp_path: Path) -> None:
    """Somebody copied a batch without minding links."""
    (tmp_path / "latest").mkdir()
    folder = a_batch(tmp_path)
    with pytest.raises(RecordError) as caught:
        batch.point_latest(folder)
    assert caught.value.render() == (
        f"error: {tmp_path}/latest can't be pointed to {folder.id}: Is a directory\n"
        "  help: see that nothing but a link has that name, and that the disk has symbolic links"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.id, "latest"]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Batches of two job files; the newest is a cat's, and one never got its ledger."""
    for name, number in (("horses", 0), ("horses", 5), ("cats", 9)):
        batch.point_latest(a_batch(tmp_path / name, number))
    batch.create(tmp_path / "horses", now=NOW + 100)
    (tmp_path / "notes.txt").touch()
    return tmp_path


FIND: dict[str, tuple[Callable[[Path, dict[str, Folder]], object], str]] = {
    "a folder": (lambda _, made: made["old horses"].path, "old horses"),
    "a link": (lambda outputs, _: outputs / "horses/latest", "horses"),
    "an id": (lambda _, made: made["old horses"].id, "old horses"),
    "latest": (lambda *_: "latest", "cats"),
    "a name": (lambda *_: "horses", "horses"),
}


@pytest.mark.parametrize(("named", "expected"), FIND.values(), ids=list(FIND))
def test_a_batch_is_found_by(outputs: Path, named: Callable[[Path, dict[str, Folder]], object], expected: str) -> None:
    """Whatever is at hand: what the shell completes, what the report says, what one remembers."""
    horses = batch.newest_first(outputs / "horses")
    (cats,) = batch.newest_first(outputs / "cats")
    made = {"horses": horses[0], "old horses": horses[1], "cats": cats}
    assert batch.find(str(named(outputs, made)), outputs) == made[expected]


@pytest.mark.parametrize("name", ["dogs", "20270115T080000Z-zzzz", "20000101T000000Z-0000", "notes.txt"])
def test_no_batch_of_that_name_is_said_plainly(outputs: Path, name: str) -> None:
    """With what a name may be."""
    with pytest.raises(UsageError) as caught:
        batch.find(name, outputs)
    assert caught.value.render() == (
        f"error: no batch {name!r}: it is no batch folder, and {outputs} holds none of that name\n"
        "  help: give a batch folder, an id, a job file's name, or 'latest'; --output-dir says where to look"
    )
    with pytest.raises(UsageError):
        batch.find(name, outputs / "nowhere")


@pytest.mark.parametrize("name", ["horses", "latest", "{folder.id}", "{folder.path}"])
def test_a_batch_that_has_lost_its_ledger_is_said_plainly(outputs: Path, name: str) -> None:
    """An older batch in its place would be shown, or gone on with, as if it were the one that is meant."""
    (folder,) = batch.newest_first(outputs / "cats")
    newest = folder if name == "latest" else batch.newest_first(outputs / "horses")[0]
    newest.ledger.unlink()
    newest.results.touch()
    with pytest.raises(UsageError) as caught:
        batch.find(name.format(folder=newest), outputs)
    assert caught.value.render() == (
        f"error: {newest.ledger} is gone, and results.jsonl beside it is not: nobody knows which jobs batch"
        f" {newest.id} sent\n"
        "  help: restore it from a copy, or start a new batch with --fresh, which may pay again for what was sent"
    )


# Files


def test_a_manifest_reads_back_or_is_said_plainly(tmp_path: Path) -> None:
    """A batch can't be gone on with when nobody knows what it ran."""
    folder = a_batch(tmp_path)
    batch.write_whole(folder.manifest, b'{"name": "horses"}\n')
    assert folder.read_manifest() == {"name": "horses"}
    for data, why in ((b"{", "Expecting property name"), (None, "No such file or directory")):
        folder.manifest.unlink()
        if data is not None:
            folder.manifest.write_bytes(data)
        with pytest.raises(UsageError) as caught:
            folder.read_manifest()
        assert caught.value.message.startswith(f"{folder.manifest} can't be read: {why}")
        assert caught.value.fix == "restore it from a copy, or start a new batch with --fresh"


# git


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, "-C", str(folder), *words], check=True, capture_output=True)


def test_the_manifest_knows_the_commit(tmp_path: Path) -> None:
    """And whether what ran is what was committed; files that git does not track don't count."""
    git(tmp_path, "init")
    assert batch.git_state(tmp_path) is None
    (tmp_path / "job.yaml").write_text("1")
    git(tmp_path, "add", "job.yaml")
    git(tmp_path, "commit", "-m", "x")
    (tmp_path / "other").touch()
    found = batch.git_state(tmp_path)
    assert found is not None
    assert (len(found["commit"]), found["dirty"]) == (40, False)
    (tmp_path / "job.yaml").write_text("2")
    assert batch.git_state(tmp_path) == found | {"dirty": True}


def test_without_git_or_a_repository_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slim image has no git."""
    assert batch.git_state(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert batch.git_state(Path(__file__).parent) is None


def test_a_git_that_takes_too_long_does_not_keep_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository may be huge, or on a slow disk: then it is unknown whether something differs."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if "status" in command:
            raise subprocess.TimeoutExpired(command, 10)
        return subprocess.CompletedProcess(command, 0, "c0ffee\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert batch.git_state(tmp_path) == {"commit": "c0ffee", "dirty": None}


def test_a_wish_that_is_not_there_need_not_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is read-only refuses that, too; but a wish that stays would cancel the next resume."""

    def refuse(_: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    folder = Folder(tmp_path)
    folder.drop_wish()
    folder.wish.touch()
    with pytest.raises(RecordError) as caught:
        folder.drop_wish()
    assert caught.value.render() == (
        f"error: {folder.wish} can't be removed: Read-only file system\n"
        "  help: see that the folder can be written, then go on with --resume"
    )
