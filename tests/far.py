"""Remote folders for tests: objects that are files, and stores that do not do what they are asked."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from runner.batch import Folder
from runner.events import Destination, Intended
from runner.ledger import Ledger
from runner.remote.chain import Chain
from runner.remote.lease import Lease
from runner.remote.objects import Files
from runner.remote.upload import Upload
from runner.runs import Run

BATCH = "20260101T000000Z-0000"
PREFIX = f"t/{BATCH}"
THERE = Destination("gpu", "https://api.runpod.ai/v2", "abc")


class Broken(Files):
    """A store that raises what *error* gives before each put; None lets it go on."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.error: Callable[[str], Exception | None] = lambda _: None

    def put(self, name: str, data: bytes, *, new: bool = False) -> None:
        self._raise(name)
        super().put(name, data, new=new)

    def put_file(self, name: str, path: Path, *, new: bool = False) -> None:
        self._raise(name)
        super().put_file(name, path, new=new)

    def _raise(self, name: str) -> None:
        if (error := self.error(name)) is not None:
            raise error


def folder(path: Path) -> Folder:
    """A batch's folder with a ledger and what else it begins with."""
    made = Folder(path / "t" / BATCH)
    made.path.mkdir(parents=True)
    made.manifest.write_bytes(b"{}")
    made.results.touch()
    with Ledger.create(made.ledger) as ledger:
        ledger.note(plan={"only": 3})
    return made


def objects(path: Path) -> Broken:
    """A remote folder in *path*."""
    return Broken(f"file://{path / 'there'}")


def upload(there: Broken, here: Folder, lease: Lease | None = None) -> Upload:
    """What sends *here* to *there*."""
    return Upload(there, lease or Lease(there, "t"), here, PREFIX, Chain.read(there, PREFIX))


def intended(n: int) -> Intended:
    """The intent of a run, which is the *n*-th."""
    key = hashlib.blake2b(b"%d" % n, digest_size=16).hexdigest()
    run = Run(job="only", index=n, key=key, row={"n": n}, matrix={}, repeat=0, input={"n": n})
    return Intended(run, 1, THERE, 1000.0 + n)


async def until(true: Callable[[], object]) -> None:
    """Look again and again until *true*, for ten seconds at most."""
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to be")
