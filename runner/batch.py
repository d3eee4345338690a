"""The batch folder: where it is, make it, lock it, find it, its manifest, and `latest`."""

import fcntl
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from runner import locations
from runner.durable import sync_folder as sync_folder
from runner.durable import write_whole as write_whole
from runner.errors import BatchBusy, RecordError, UsageError
from runner.records import record
from runner.shards import SHARDS, Shard
from runner.values import JsonObject, parse

_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}")
_NO_LOCKS = re.compile(r"nfs\d?|cifs|smb\d?|smbfs|fuse(\..*)?|9p|afs|beegfs|ceph|glusterfs|gpfs|lustre|vboxsf")


@record(frozen=True, slots=True)
class Folder:
    """One batch's folder, and the files in it."""

    path: Path

    @property
    def id(self) -> str:
        """The batch's id: when it was started (UTC), and four hex digits of chance."""
        return self.path.name

    @property
    def lock(self) -> Path:
        """Where the lock is that whoever runs it holds: beside it for all batches, but each shard has its own."""
        return self.path.parent if Shard.of_folder(self.path.name) is None else self.path

    @property
    def root(self) -> Path:
        """The folder that holds all batches of its job file."""
        return self.path.parent if Shard.of_folder(self.path.name) is None else self.path.parents[2]

    @property
    def label(self) -> str:
        """What a person calls it: its job file's name, and its id."""
        return " ".join(part for part in self.path.relative_to(self.root.parent).parts if part != SHARDS)

    @property
    def ledger(self) -> Path:
        """The source of truth."""
        return self.path / "ledger.sqlite"

    @property
    def results(self) -> Path:
        """One line per settled run."""
        return self.path / "results.jsonl"

    def form(self, kind: str) -> Path:
        """The same in another form, such as ``csv``, where the job file asks for it."""
        return self.path / f"results.{kind}"

    @property
    def manifest(self) -> Path:
        """What ran."""
        return self.path / "manifest.json"

    @property
    def health(self) -> Path:
        """The health report, for machines."""
        return self.path / "health.json"

    @property
    def report(self) -> Path:
        """The health report, for people."""
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        """The structured log."""
        return self.path / "log.jsonl"

    @property
    def stdin(self) -> Path:
        """What stdin gave, where rows come from it."""
        return self.path / "stdin.jsonl"

    @property
    def wish(self) -> Path:
        """There while somebody asks the process that runs the batch to cancel it."""
        return self.path / ".cancel"

    def drop_wish(self) -> None:
        """
        Let nobody's wish to cancel be there any more.

        Raises:
            RecordError: there is one, and it can't be removed.
        """
        try:
            self.wish.unlink(missing_ok=True)
        except OSError as error:
            if self.wish.exists():  # a disk that is read-only refuses to remove what isn't there, too
                raise RecordError(
                    f"{self.wish} can't be removed: {error.strerror}",
                    fix="see that the folder can be written, then go on with --resume",
                ) from None

    def read_manifest(self) -> JsonObject:
        """
        The manifest, as it was written when the batch started.

        Raises:
            UsageError: it is gone or damaged.
        """
        try:
            found: JsonObject = parse(self.manifest.read_bytes())
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else error
            raise UsageError(
                f"{self.manifest} can't be read: {said}",
                fix="restore it from a copy, or start a new batch with --fresh",
            ) from None
        return found


def outputs_root(job_file: Path, *, dir_in_file: str | None, output_dir: Path | None) -> Path:
    """
    The folder that holds the batches of all job files: not the one of a batch.

    *output_dir* (the command line's) starts at the working directory. *dir_in_file* starts at the job file's folder;
    its default is ``batches`` beside the nearest ``.git`` or ``pyproject.toml`` above the job file, else beside the
    file, so that cron and a developer share lock, `latest` and resume.

    Where either is a URL, this is the folder of this machine that stands for it.
    """
    if (url := locations.url_in(output_dir or dir_in_file)) is not None:
        return locations.here(url)
    if output_dir is not None:
        return output_dir.absolute()
    if dir_in_file is not None:
        return job_file.absolute().parent / dir_in_file
    for folder in job_file.absolute().parents:
        if (folder / ".git").exists() or (folder / "pyproject.toml").is_file():
            return folder / "batches"
    return job_file.absolute().parent / "batches"


def prepare(root: Path) -> None:
    """
    Make sure that batches can be kept in *root*.

    Raises:
        UsageError: it can't be written, or its file system has no dependable locks and no WAL.
    """
    try:
        new = [folder for folder in (root, *root.parents) if not folder.exists()]
        root.mkdir(parents=True, exist_ok=True)
        # Else a power failure may take the whole folder, and what was sent from it. The last two also where they were
        # there: who made them may have been killed before this.
        for folder in dict.fromkeys([*(one.parent for one in new), root.parent.parent, root.parent]):
            with suppress(PermissionError):  # it may be one to pass through only
                sync_folder(folder)
    except OSError as error:
        raise UsageError(
            f"the output folder {root} can't be made: {error.strerror}",
            fix="name another one with 'outputs.dir' in the job file, or with --output-dir",
        ) from None
    if not os.access(root, os.W_OK | os.X_OK):
        raise UsageError(
            f"the output folder {root} can't be written",
            fix="change its permissions, or name another one with 'outputs.dir' or --output-dir",
        )
    kind = _file_system(root)
    if _NO_LOCKS.fullmatch(kind):
        raise UsageError(
            f"the output folder {root} is on {kind}, where SQLite's WAL and kernel locks can't be relied on",
            fix="name a folder on a local disk with 'outputs.dir' or --output-dir, and copy finished batches away",
        )


def _file_system(path: Path) -> str:
    """The type of the file system that *path* is on; empty where the system does not say."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return ""
    best, kind = "", ""
    where = str(path.resolve())
    for line in mounts.read_text(errors="replace").splitlines():
        _, at, name, *_ = line.split(" ")
        at = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), at)
        inside = where == at or where.startswith(at.rstrip("/") + "/")
        if inside and len(at) >= len(best):
            best, kind = at, name
    return kind


class Lock:
    """The lock while it is held. Its file says who holds it, for people and for ``runner cancel``."""

    def __init__(self, file: int, *, now: float) -> None:
        self._file = file
        since = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        pid = os.getpid()
        self._told: JsonObject = {"pid": pid, "began": _stat(pid)[1], "host": platform.node(), "since": since}
        self._tell()

    def runs(self, folder: Folder) -> None:
        """Say that it is held for the batch in *folder*."""
        self._told["batch"] = folder.id
        self._tell()

    def _tell(self) -> None:
        with suppress(OSError):  # on a full disk the lock holds all the same; only its text is missing
            _put(self._file, self._told)


@contextmanager
def lock(root: Path, *, now: float) -> Iterator[Lock]:
    """
    Hold the one place from which batches in *root* are written.

    It is a kernel lock: it is free as soon as its holder is dead, however it died.

    Raises:
        BatchBusy: another process holds it; the message says which.
    """
    file = _lock_file(root / ".lock", root.name)
    try:
        held = Lock(file, now=now)
        try:
            yield held
        finally:
            with suppress(OSError):  # on a broken disk the text stays; the lock itself is free all the same
                os.ftruncate(file, 0)
    finally:
        os.close(file)


def _lock_file(path: Path, name: str) -> int:
    """The descriptor of the lock file at *path*, locked."""
    file = -1
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _holder(file) if isinstance(error, BlockingIOError) else None
        if file >= 0:
            os.close(file)
        if holder is not None:
            raise BatchBusy(
                f"another batch of {name!r} is running: {holder}",
                fix="wait for it, or stop it with Ctrl-C or SIGTERM there; 'runner status' shows where it stands",
            ) from None
        raise UsageError(
            f"{path} can't be locked: {error.strerror}",
            fix="change its permissions, or name another folder with 'outputs.dir' or --output-dir",
        ) from None
    return file


def holder_is_alive(root: Path) -> bool:
    """Whether the process that last took the lock of *root* lives; for a person to read, no lock is tried for it."""
    try:
        found = json.loads((root / ".lock").read_bytes())
        if "until" in found:  # of a folder that is elsewhere, perhaps of another machine
            return bool(found["until"] > time.time())
        return bool(found["host"] == platform.node() and lives(found["pid"], found.get("began")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def began_at(pid: int) -> str | None:
    """When the process *pid* began, as its system counts; None where nobody says."""
    return _stat(pid)[1]


def lives(pid: int, began: str | None) -> bool:
    """Whether the process *pid* that *began* then lives: its number may be another's by now, as in a new container."""
    try:
        os.kill(pid, 0)
    except PermissionError:  # somebody else's
        pass
    except OSError:
        return False
    state, at = _stat(pid)
    return state != "Z" and (began is None or at is None or at == began)


def _stat(pid: int) -> tuple[str | None, str | None]:
    """The state of a process, Z for one that is dead and not yet buried, and when it began; None where nobody says."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None, None
    return fields[0], fields[19]


def is_running(folder: Folder) -> bool:
    """Whether a process that lives says that it runs the batch in *folder*."""
    root = folder.lock
    if not holder_is_alive(root):
        return False
    try:
        return bool(json.loads((root / ".lock").read_bytes())["batch"] == folder.id)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _holder(file: int) -> str:
    try:
        found = json.loads(os.pread(file, 4096, 0))
        return f"process {found['pid']} on {found['host']}, since {found['since']}"
    except (ValueError, KeyError, TypeError):  # it is just being written: the lock counts, not the text
        return "its process has not said yet which it is"


def _put(file: int, value: JsonObject) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(value).encode(), 0)


def create(root: Path, *, now: float) -> Folder:
    """Make a new batch's folder in *root*, durably. Its id is greater than any of the same second."""
    started = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    least = max((int(path.name[-4:], 16) + 1 for path in root.glob(f"{started}-[0-9a-f]*")), default=0)
    # From the lower half of what is left, so that many more have room above.
    folder = Folder(root / f"{started}-{least + secrets.randbelow(max(1, (0x10000 - least) // 2)):04x}")
    try:
        folder.path.mkdir()
        sync_folder(root)
    except OSError as error:
        raise RecordError(
            f"the batch folder {folder.path} can't be made: {error.strerror}",
            fix="see that the disk has room and the folder can be written",
        ) from None
    return folder


def point_latest(folder: Folder) -> None:
    """
    Let `latest` beside *folder* point to it, in one step.

    Raises:
        RecordError: the link can't be made.
    """
    latest, aside = folder.path.parent / "latest", folder.path.parent / f".latest.{folder.id}"
    try:
        aside.unlink(missing_ok=True)
        aside.symlink_to(folder.id)
        aside.replace(latest)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise RecordError(
            f"{latest} can't be pointed to {folder.id}: {error.strerror}",
            fix="see that nothing but a link has that name, and that the disk has symbolic links",
        ) from None


def is_id(name: str) -> bool:
    """Whether *name* is one that batches have."""
    return _ID.fullmatch(name) is not None


def newest_first(root: Path) -> list[Folder]:
    """The batches in *root* that have a ledger, the newest start first."""
    return [folder for folder in _folders(root) if folder.ledger.exists()]


def _folders(root: Path) -> list[Folder]:
    if not root.is_dir():
        return []
    found = [Folder(path) for path in root.iterdir() if _ID.fullmatch(path.name) and not path.is_symlink()]
    return sorted(found, key=lambda folder: folder.id, reverse=True)


def check_newest(root: Path) -> None:
    """
    Make sure that the newest batch in *root* has not lost its ledger: nobody could say any more what it sent. A kill
    leaves no such folder, for results.jsonl is made after the ledger.

    Raises:
        UsageError: it has.
    """
    newest = next(iter(_begun(root)), None)
    if newest is not None:
        _check_ledger(newest)


def _begun(root: Path) -> list[Folder]:
    """The batches in *root* that may have sent something, the newest start first."""
    return [folder for folder in _folders(root) if folder.ledger.exists() or folder.results.exists()]


def _check_ledger(folder: Folder) -> None:
    if not folder.ledger.exists():
        raise UsageError(
            f"{folder.ledger} is gone, and {folder.results.name} beside it is not: nobody knows which jobs batch"
            f" {folder.id} sent",
            fix="restore it from a copy, or start a new batch with --fresh, which may pay again for what was sent",
        )


def find(name: str, outputs: Path) -> Folder:
    """
    The batch that *name* means: a folder, a batch id, ``latest``, or the name of a job file (its latest).

    Raises:
        UsageError: there is none, or it has lost its ledger.
    """
    path = Path(name).resolve()
    if (path / "ledger.sqlite").exists():
        return Folder(path)
    roots = [root for root in outputs.iterdir() if root.is_dir()] if outputs.is_dir() else []
    if not _ID.fullmatch(name) and name != "latest":
        roots = [outputs / name]
    found = [folder for root in roots for folder in _begun(root) if folder.id == name or not _ID.fullmatch(name)]
    if _ID.fullmatch(path.name) and Folder(path).results.exists():
        found.append(Folder(path))
    by_id = outputs.glob(f"*/{name}/{SHARDS}") if "/" not in name else ()  # a path that is not there means no other
    shared = [one for one in (path / SHARDS, *by_id) if one.is_dir()]
    if not found and shared:
        raise UsageError(
            f"{shared[0].parent} is the folder of a batch's shards, and this command takes one of them",
            fix=f"give a folder in {shared[0]}; status, results, verify, report, show, resume and cancel take all of"
            " them",
        )
    if not found:
        raise UsageError(
            f"no batch {name!r}: it is no batch folder, and {outputs} holds none of that name",
            fix="give a batch folder, an id, a job file's name, or 'latest'; --output-dir says where to look",
        )
    newest = max(found, key=lambda folder: folder.id)
    _check_ledger(newest)
    return newest


def git_state(folder: Path) -> JsonObject | None:
    """
    The commit that *folder* is at, and whether tracked files differ from it; None where there is no repository.

    ``dirty`` is None when git did not say in time.
    """
    if shutil.which("git") is None:
        return None

    def ask(*words: str) -> str | None:
        command = ["git", "--no-optional-locks", "-C", str(folder), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return None
    differing = ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if differing is None else bool(differing)}
