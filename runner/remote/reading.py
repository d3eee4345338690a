"""Look at batches that are elsewhere: what is asked for is fetched into a folder that nobody writes to."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from runner import batch, locations
from runner.batch import Folder
from runner.durable import write_whole
from runner.errors import UsageError
from runner.remote import lease
from runner.remote.chain import Chain
from runner.remote.objects import Objects, open_objects, said_plainly
from runner.shards import SHARDS, Shard
from runner.values import dump

TOGETHER = 4
"""So many shards are fetched at once; each may fetch several objects at once."""


def find(name: str, output_dir: Path | None) -> Folder:
    """
    The batch that *name* means, as `batch.find` has it; it may be a URL, and so may *output_dir*.

    A batch that is elsewhere is fetched, without its artifacts; one that this machine is running is looked at in place.
    One in shards is the folder that they have in common: all of them are fetched.

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
        return _in_shards(url) or _Elsewhere(outputs).one(None, name)
    assert outputs is not None
    there = _Elsewhere(outputs)
    if batch.is_id(name):
        return there.one(name, None)
    if name == "latest":
        return there.one(None, None)
    found = [of for of in there.job_files() if there.shards(of, name)]
    if len(found) > 1:
        said = ", ".join(f"{outputs}/{of}/{name}" for of in found)
        raise UsageError(f"{name!r} is the id of several batches: {said}", fix="give the URL of one of them")
    return there.one(None, name) if not found else there.common(found[0], name)


def _in_shards(url: str) -> Folder | None:
    """The folder that the shards at *url* have in common, or the one shard that it means; None where it means none."""
    shard = Shard.of_folder(url.rpartition("/")[2])
    common = url.rpartition("/")[0] if shard is not None else url
    if common.rpartition("/")[2] == SHARDS:
        common = common.rpartition("/")[0]
    elif shard is not None:
        return None
    outputs, _, batch_id = common.rpartition("/")
    outputs, _, of = outputs.rpartition("/")
    if "://" not in outputs or outputs.endswith("/"):  # there are too few names in it
        return None
    if shard is None:
        objects = open_objects(common)
        with said_plainly(objects):
            is_common = any(Shard.of_folder(name) is not None for name in objects.folders(SHARDS))
        return _Elsewhere(outputs).common(of, batch_id) if is_common else None
    if (folder := _Elsewhere(outputs).fetch(of, f"{batch_id}/{SHARDS}/{shard.folder}")) is None:
        raise UsageError(
            f"shard {shard} has not begun at {url}", fix="runner status says of the common folder what starts it"
        )
    return folder


def has_shards(url: str) -> bool:
    """
    Whether a shard has begun in the common folder at *url*.

    Raises:
        UsageError: it can't be read.
    """
    outputs, of, batch_id = url.rsplit("/", 2)
    return bool(_Elsewhere(outputs).shards(of, batch_id))


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

    def shards(self, of: str, batch_id: str) -> list[Shard]:
        """The shards of that batch that have a folder there."""
        with said_plainly(self.objects):
            found = (Shard.of_folder(name) for name in self.objects.folders(f"{of}/{batch_id}/{SHARDS}"))
            return sorted(one for one in found if one is not None)

    def common(self, of: str, batch_id: str) -> Folder:
        """The folder with all shards of that batch as they are now; one that was removed there is removed here."""
        found = self.shards(of, batch_id)
        folder = self.here / of / batch_id
        for path in (folder / SHARDS).glob("*-of-*"):
            if path.name not in {one.folder for one in found}:
                shutil.rmtree(path, ignore_errors=True)
        with ThreadPoolExecutor(TOGETHER) as pool:
            for _ in pool.map(lambda one: self.fetch(of, f"{batch_id}/{SHARDS}/{one.folder}"), found):
                pass
        return Folder(folder)

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
        """The batch as it is now, or a shard, named by its folder; None if nothing was ever sent from it."""
        running = Folder(self._written / of / batch_id)
        is_shard = Shard.of_folder(running.id) is not None
        if not is_shard and running.ledger.exists() and batch.is_running(running):
            return running
        folder = Folder(self.here / of / batch_id)
        with said_plainly(self.objects), _alone(folder.path):
            found = Chain.read(self.objects, f"{of}/{batch_id}")
            if not found.count:
                for left in (folder.ledger, folder.results):  # of one that was removed there
                    left.unlink(missing_ok=True)
                return None
            found.restore(folder, only_read=True, results=results)
            if found.contents() is None:
                (folder.path / locations.WHOLE).unlink(missing_ok=True)
            else:
                (folder.path / locations.WHOLE).touch()
            self._say_who_runs(folder)
        return folder

    def _say_who_runs(self, folder: Folder) -> None:
        told = lease.read(self.objects, folder.lock.relative_to(self.here).as_posix())
        is_held = told is not None and lease.is_held(told, 0.0)
        path = folder.lock / ".lock"
        if told is None or not is_held:
            path.unlink(missing_ok=True)
            return
        if folder.lock == folder.path:  # a shard's is for nothing else, also while it does not say so yet
            told["batch"] = folder.id
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
