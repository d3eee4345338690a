"""Look at batches that are elsewhere: what is asked for is fetched into a folder that nobody writes to."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner import batch, locations
from runner.batch import Folder
from runner.durable import write_whole
from runner.errors import UsageError
from runner.remote import lease
from runner.remote.chain import Chain
from runner.remote.objects import Objects, open_objects, said_plainly
from runner.values import dump


def find(name: str, output_dir: Path | None) -> Folder:
    """
    The batch that *name* means, as `batch.find` has it; it may be a URL, and so may *output_dir*.

    A batch that is elsewhere is fetched, without its artifacts; one that this machine is running is looked at in place.

    Raises:
        UsageError: there is none, or it can't be read.
    """
    url, outputs = locations.url_in(name), locations.url_in(output_dir)
    if url is None and outputs is None:
        return batch.find(name, batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=output_dir))
    if url is not None:
        outputs, _, name = url.rpartition("/")
        if batch.is_id(name) or name == "latest":
            outputs, _, of = outputs.rpartition("/")
            return _Elsewhere(outputs).one(None if name == "latest" else name, of)
        return _Elsewhere(outputs).one(None, name)
    assert outputs is not None
    if batch.is_id(name):
        return _Elsewhere(outputs).one(name, None)
    return _Elsewhere(outputs).one(None, None if name == "latest" else name)


def all_in(url: str, name: str | None) -> Path:
    """
    A folder of this machine with the batches at *url*, only those of *name* if given, to be listed.

    Raises:
        UsageError: they can't be read.
    """
    there = _Elsewhere(url)
    for of in [name] if name is not None else there.job_files():
        for one in there.ids(of):
            there.fetch(of, one, results=False)
    return there.here


class _Elsewhere:
    """The batches of all job files that are at one URL."""

    def __init__(self, url: str) -> None:
        self.objects: Objects = open_objects(url)
        self.here = locations.here(url, locations.READ)
        self._written = locations.here(url)

    def job_files(self) -> list[str]:
        """The names of the job files."""
        with said_plainly(self.objects):
            return self.objects.folders("")

    def ids(self, of: str) -> list[str]:
        """The batches of the job file's name *of*, the newest start first."""
        with said_plainly(self.objects):
            return sorted((name for name in self.objects.folders(of) if batch.is_id(name)), reverse=True)

    def one(self, batch_id: str | None, of: str | None) -> Folder:
        """The batch with that id, None for the newest, of the job file's name *of*, None for all."""
        found = [
            (name, one)
            for name in ([of] if of is not None else self.job_files())
            for one in self.ids(name)
            if batch_id in (None, one)
        ]
        for name, one in sorted(found, key=lambda pair: pair[1], reverse=True):
            if (folder := self.fetch(name, one)) is not None:
                return folder
        what = f"{of}/{batch_id or 'latest'}" if of is not None else batch_id or "latest"
        raise UsageError(
            f"no batch {what!r}: {self.objects.url} holds none",
            fix="give the URL of a batch's folder, or that of a job file's name below 'outputs.dir'",
        )

    def fetch(self, of: str, batch_id: str, *, results: bool = True) -> Folder | None:
        """The batch as it is now; None if nothing was ever sent from it."""
        running = Folder(self._written / of / batch_id)
        if running.ledger.exists() and batch.is_running(running):
            return running
        folder = Folder(self.here / of / batch_id)
        with said_plainly(self.objects), _alone(folder.path):
            found = Chain.read(self.objects, f"{of}/{batch_id}")
            if not found.count:
                return None
            found.restore(folder, only_read=True, results=results)
            if found.contents() is None:
                (folder.path / locations.WHOLE).unlink(missing_ok=True)
            else:
                (folder.path / locations.WHOLE).touch()
            self._say_who_runs(of)
        return folder

    def _say_who_runs(self, of: str) -> None:
        told = lease.read(self.objects, of)
        is_held = told is not None and lease.is_held(told, 0.0)
        path = self.here / of / ".lock"
        if told is None or not is_held:
            path.unlink(missing_ok=True)
        else:
            write_whole(path, dump(told | {"until": lease.until(told)}))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time fetch into the folder *path*."""
    path.mkdir(parents=True, exist_ok=True)
    file = os.open(path / ".fetching", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
