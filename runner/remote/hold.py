"""Hold a remote folder while a batch runs: alone in it, with a folder of this machine that has what is there."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from runner import batch, locations
from runner.batch import Folder
from runner.remote import chain
from runner.remote.chain import Chain
from runner.remote.lease import Lease
from runner.remote.objects import Missing, Objects, open_objects, said_plainly
from runner.remote.upload import Upload
from runner.shards import Shard
from runner.values import JsonObject, parse


class Hold:
    """
    The remote folder that *root*, a folder of this machine, stands for; it is ours alone.

    Attributes:
        is_over: Whether the newest batch there has surely ended, as `fetch_newest` found; it was not fetched then.
        left: The newest batch, or the shard, where it was fetched: it is not known to have all that its process had to
            write.
    """

    def __init__(self, objects: Objects, base: Path, root: Path, held: Lease) -> None:
        self._objects = objects
        self._base = base
        self._root = root
        self._lease = held
        self.is_over = False
        self.left: Folder | None = None

    def _prefix(self, folder: Folder) -> str:
        return folder.path.relative_to(self._base).as_posix()

    async def fetch(self, folder: Folder, *, artifacts: bool) -> None:
        """
        Let *folder* be as the remote one is, with *artifacts* if they are wanted, unless it has more to say: it is of
        the process that wrote there last.

        Raises:
            RunnerError: the remote folder is damaged, or can't be read.
        """
        await asyncio.to_thread(self._fetch, folder, artifacts=artifacts)

    def _fetch(self, folder: Folder, *, artifacts: bool) -> None:
        with said_plainly(self._objects):
            found = Chain.read(self._objects, self._prefix(folder))
            if found.last is None or (folder.ledger.exists() and found.last["writer"] in chain.writers(folder)):
                return
            _clear(folder)
            found.restore(folder, artifacts=artifacts)

    async def fetch_shard(self, folder: Folder) -> None:
        """
        Fetch the shard in *folder* as far as it has begun there. Where it has not, nothing of an earlier one stays
        here: no request of it ever left, for no intent is there.

        Raises:
            RunnerError: as `fetch` does.
        """

        def fetch() -> None:
            with said_plainly(self._objects):
                found = Chain.read(self._objects, self._prefix(folder))
                if not found.count:
                    _clear(folder)
                    return
                if found.contents() is None:
                    self.left = folder
            self._fetch(folder, artifacts=False)

        await asyncio.to_thread(fetch)

    async def other_shard(self, folder: Folder) -> tuple[Shard, JsonObject] | None:
        """
        Another shard of the batch that the one in *folder* is of, and its manifest; None where none has begun there.

        Raises:
            RunnerError: as `fetch` does.
        """
        return await asyncio.to_thread(self._other_shard, folder)

    def _other_shard(self, folder: Folder) -> tuple[Shard, JsonObject] | None:
        shards = self._prefix(Folder(folder.path.parent))
        with said_plainly(self._objects):
            for name in self._objects.folders(shards):
                shard = Shard.of_folder(name)
                if shard is None or name == folder.path.name:
                    continue
                with suppress(Missing, ValueError):  # it is just being made
                    told: JsonObject = parse(self._objects.get(f"{shards}/{name}/manifest.json"))
                    return shard, told
        return None

    async def fetch_newest(self, *, artifacts: bool) -> None:
        """
        Fetch the newest batch, if there is something to go on with.

        Raises:
            RunnerError: as `fetch` does.
        """
        await asyncio.to_thread(self._fetch_newest, artifacts)

    def _fetch_newest(self, artifacts: bool) -> None:
        here = max((folder.id for folder in batch.newest_first(self._root)), default="")
        with said_plainly(self._objects):
            for name in self._ids():
                found = Chain.read(self._objects, self._prefix(Folder(self._root / name)))
                if not found.count:
                    continue  # nothing was sent from it
                if name < here:
                    return  # the newer one here never came so far that anything was sent
                contents = found.contents()
                if contents is not None and contents["verdict"] is not None and not contents["unfinished"]:
                    self.is_over = True
                    return
                self.left = Folder(self._root / name)
                self._fetch(self.left, artifacts=artifacts)
                return

    async def fetch_all(self) -> None:
        """Fetch all batches with their files, for what is known from them is not sent again."""

        def fetch() -> None:
            with said_plainly(self._objects):
                for name in self._ids():
                    self._fetch(Folder(self._root / name), artifacts=True)

        await asyncio.to_thread(fetch)

    def _ids(self) -> list[str]:
        """The batches that are there, the newest start first."""
        found = self._objects.folders(self._root.relative_to(self._base).as_posix())
        return sorted((name for name in found if batch.is_id(name)), reverse=True)

    async def upload(self, folder: Folder) -> Upload:
        """
        What sends what *folder* gains.

        Raises:
            RunnerError: the remote folder can't be read.
        """
        self._lease.runs(folder.id)

        def made() -> Upload:
            with said_plainly(self._objects):
                prefix = self._prefix(folder)
                return Upload(self._objects, self._lease, folder, prefix, Chain.read(self._objects, prefix))

        return await asyncio.to_thread(made)


def _clear(folder: Folder) -> None:
    """Remove what is in *folder*, but the lock that this process holds there if it runs a shard."""
    if not folder.path.is_dir():
        return
    for path in folder.path.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != ".lock":
            path.unlink(missing_ok=True)


@asynccontextmanager
async def hold(root: Path, *, take_over: bool) -> AsyncIterator[Hold]:
    """
    Be alone in the remote folder that *root* stands for, while the block runs.

    Raises:
        BatchBusy: another process is; with *take_over* it is told, in the end, that it is no more.
        UsageError: there is no such folder, or it can't be used from here.
    """
    found = locations.base_of(root)
    assert found is not None, "it was seen that it stands for one"
    base, url = found

    def take() -> tuple[Objects, Lease]:
        objects = open_objects(url)
        held = Lease(objects, root.relative_to(base).as_posix())
        with said_plainly(objects):
            held.take(take_over=take_over)
        return objects, held

    objects, held = await asyncio.to_thread(take)
    try:
        yield Hold(objects, base, root, held)
    finally:
        await asyncio.shield(asyncio.to_thread(held.release))
