"""
Send what a batch's folder gains to the remote folder, from a thread of its own: artifacts, results, then the segment.

A segment speaks of nothing that is not there before it. It is put only if nobody has put one of that number: so there
is one writer, and one that has lost the folder knows it before it sends anything more to an endpoint.
"""

import asyncio
import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from runner.batch import Folder
from runner.clock import iso
from runner.database import Database
from runner.entries import UNSENT
from runner.errors import BatchBusy, RecordError, RunnerError
from runner.events import Uploaded
from runner.ledger import VERSION, Ledger
from runner.remote import chain, lease, segments
from runner.remote.chain import CONTENTS, Chain
from runner.remote.lease import Lease
from runner.remote.objects import Denied, Exists, Missing, Objects, StoreError
from runner.states import SETTLED
from runner.store import MADE
from runner.units import elapsed
from runner.values import JsonObject, dump

EVERY_S = 5.0
"""How often what is new is sent."""

SOONEST_S = 1.0
"""How soon after the last segment the next one goes when a run waits for it to be submitted, or has just been."""

RETRY_S = 2.0
MOST_RETRY_S = 30.0

GIVE_UP_S = 1800.0
"""A store that could not be reached for so long ends the batch, as a signal does."""

REFUSED_S = 60.0
"""The same for one that says no: a bucket that is gone, credentials that ran out."""

FINISH_S = 60.0
"""How long the end of a batch waits for a store that does not answer."""

PART_BYTES = 16 * 1024 * 1024
TOGETHER = 4
"""So many artifacts go at once."""

log = logging.getLogger(__name__)


class Upload:
    """
    Sends what the batch in *folder* gains. `begin` comes first, `saved` while it runs, `finish` at its end.

    Attributes:
        failure: Why nothing is sent any more; None while it is, or may be.
    """

    def __init__(self, objects: Objects, held: Lease, folder: Folder, prefix: str, found: Chain) -> None:
        self.failure: RunnerError | None = None
        self._objects = objects
        self._lease = held
        self._folder = folder
        self._prefix = prefix
        self._count = found.count
        self._previous = found.last_digest
        results = found.last["results"] if found.last else {"made": 0, "end": 0}
        self._made, self._end = results["made"], results["end"]
        self._is_first = True
        self._is_soon = False
        self._failing_since: float | None = None
        self._trouble = ""
        self._wake = threading.Condition()
        self._waiting: list[asyncio.Future[None]] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="upload", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told: Callable[[Uploaded], None] | None = None
        self._failed = asyncio.Event()

    def begin(self, ledger: Ledger) -> None:
        """Note what changes in *ledger* from now on."""
        segments.capture(ledger.database)

    async def __aenter__(self) -> "Upload":
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    def tells(self, told: Callable[[Uploaded], None]) -> None:
        """Let *told*, called on the loop, record what was sent."""
        self._told = told

    async def __aexit__(self, *_: object) -> None:
        """Send nothing more by itself. What is on its way is waited for."""
        with self._wake:
            self._is_over = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def saved(self) -> asyncio.Future[None]:
        """Done once all that the ledger holds now is in the remote folder; not before, so perhaps never."""
        assert self._loop is not None
        future: asyncio.Future[None] = self._loop.create_future()
        with self._wake:
            self._waiting.append(future)
            self._wake.notify()
        return future

    async def failed(self) -> RunnerError:
        """Wait until nothing can be sent any more; why."""
        await self._failed.wait()
        assert self.failure is not None
        return self.failure

    def said(self) -> str | None:
        """What a person has to know while it goes wrong; None while all is well."""
        since = self._failing_since
        if since is None:
            return None
        return (
            f"the remote folder takes nothing since {elapsed(time.monotonic() - since)}: {self._trouble}; no run starts"
        )

    # The thread

    def _work(self) -> None:
        began, failures = -EVERY_S, 0
        with Ledger.read_only(self._folder.ledger) as ledger:
            while True:
                with self._wake:
                    while not self._is_over and (left_s := self._due_s(began, failures)) > 0:
                        self._wake.wait(left_s)
                    if self._is_over:
                        return
                    waiting, self._waiting = self._waiting, []
                began = time.monotonic()
                try:
                    upto = self._round(ledger)
                except StoreError as error:
                    failures += 1
                    self._failing(error)
                except BaseException as error:  # noqa: BLE001 - a bug here must reach whoever waits, not vanish
                    self._fail(error)
                else:
                    if failures:
                        log.info("the remote folder takes what is new again")
                    failures, self._failing_since = 0, None
                    self._is_soon = bool(waiting)  # what the submits came to is worth as much
                    self._on_loop(self._done, upto, waiting)
                    waiting = []
                with self._wake:
                    self._waiting = [*waiting, *self._waiting]
                if self.failure is not None:
                    return

    def _due_s(self, began: float, failures: int) -> float:
        """Seconds until the next round."""
        pause_s = SOONEST_S if self._waiting or self._is_first or self._is_soon else EVERY_S
        if failures:
            pause_s = min(RETRY_S * 2 ** min(failures - 1, 10), MOST_RETRY_S)
        return began + pause_s - time.monotonic()

    def _failing(self, error: StoreError) -> None:
        now = time.monotonic()
        self._trouble = str(error)
        if self._failing_since is None:
            self._failing_since = now
            log.warning("the remote folder takes nothing; no run starts until it does: %s", error)
        limit_s = REFUSED_S if isinstance(error, Denied | Missing) else GIVE_UP_S
        if now - self._failing_since >= limit_s:
            self._fail(self._unsent(error))

    def _unsent(self, error: StoreError) -> RecordError:
        return RecordError(
            f"{self._objects.url}/{self._prefix} can't be written: {error}",
            fix=f"what is missing there is in {self._folder.path}; once the store takes it, go on on this machine with"
            f" runner resume {self._objects.url}/{self._prefix}",
        )

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, RunnerError):
            self.failure = error
        else:
            self.failure = RecordError(f"what is new could not be sent to the remote folder: {error!r}")
            self.failure.__cause__ = error
        log.error("%s", self.failure.message)
        self._on_loop(self._failed.set)

    def _on_loop(self, call: Callable[..., None], *values: object) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is gone, and nobody waits
            self._loop.call_soon_threadsafe(call, *values)

    def _done(self, upto: int, waiting: list[asyncio.Future[None]]) -> None:
        for one in waiting:
            if not one.done():
                one.set_result(None)
        if upto and self._told is not None and not self._is_over:
            with suppress(RecordError):  # whoever waits for the disk says so; sending it once more does no harm
                self._told(Uploaded(upto))

    # A round

    def _round(self, ledger: Ledger) -> int:
        """Send what is new; the number of the newest change that is sent, 0 where nothing is new."""
        database = ledger.database
        if self._lease.lost_to is not None:
            raise self._taken(self._lease.lost_to)
        if self._is_first:
            self._first()
        with tempfile.TemporaryDirectory(dir=self._folder.path, prefix=".sending-") as spool:
            body, whole = Path(spool, "body"), Path(spool, "segment")
            with ledger.snapshot():  # not longer: what takes a while comes after it
                upto = segments.newest(database)
                if not upto and not self._is_first:
                    return 0
                made = ledger.noted(MADE) or 0
                is_anew = made != self._made
                end = 0 if is_anew else self._end
                files = list(_artifacts(database, upto, end))
                # Not to the end of the file: a line beyond has no row yet, so its files would be passed over for good.
                bound = max(ledger.lines_end(), ledger.noted("superseded_end") or 0)
                segments.write(database, body, upto=upto)
            with ThreadPoolExecutor(TOGETHER) as pool:
                for _ in pool.map(lambda file: self._artifact(*file, is_anew=is_anew), files):
                    pass
            parts: list[list[object]] = []
            for data in _new(self._folder.results, end, bound):
                digest = hashlib.sha256(data).hexdigest()
                name = chain.part_name(made, end, self._lease.token, digest)
                self._objects.put(f"{self._prefix}/{name}", data)
                parts.append([name, end, len(data), digest])
                end += len(data)
            header: JsonObject = {
                "segment": self._count + 1,
                "version": VERSION,
                "writer": self._lease.token,
                "at": iso(time.time()),
                "previous": self._previous,
                "results": {"made": made, "end": end, "parts": parts},
            }
            digest = segments.head(whole, header, body)
            self._put(whole, digest)
        self._count += 1
        self._previous, self._made, self._end = digest, made, end
        self._is_first = False
        return upto

    def _first(self) -> None:
        """What has to be there before the first segment of this process."""
        self._objects.remove(f"{self._prefix}/{CONTENTS}")  # there is more to come
        for path in (self._folder.manifest, self._folder.stdin):
            if path.exists():
                self._objects.put_file(f"{self._prefix}/{path.name}", path)
        chain.add_writer(self._folder, self._lease.token)

    def _put(self, path: Path, digest: str) -> None:
        """Put the segment in *path*, unless another process has put one of its number."""
        name = f"{self._prefix}/{chain.segment_name(self._count + 1)}"
        try:
            self._objects.put_file(name, path, new=True)
        except Exists:
            # It may be ours: the answer to an earlier try was lost.
            if hashlib.sha256(self._objects.get(name)).hexdigest() == digest:
                return
            theirs = path.with_name("theirs")
            self._objects.get_file(name, theirs)
            told = segments.header(theirs)
            if told["writer"] == self._lease.token:
                # An earlier try of ours, made before there was as much to say: what it says is said again behind it.
                self._count, self._previous = self._count + 1, segments.digest_of(theirs)
                self._made, self._end = told["results"]["made"], told["results"]["end"]
                self._is_first = False
                raise StoreAgain("an earlier try was taken after all") from None
            raise self._taken(lease.read(self._objects, self._lease.folder)) from None

    def _taken(self, told: JsonObject | None) -> BatchBusy:
        by = f" by {lease.said(told)}" if told is not None else ""
        return BatchBusy(
            f"{self._objects.url}/{self._prefix} was taken over{by}; nothing more is sent from here",
            fix="let that process carry the batch to its end; what is in flight is known to it",
        )

    def _artifact(self, path: str, size_bytes: int, *, is_anew: bool) -> None:
        local, name = self._folder.path / path, f"{self._prefix}/{path}"
        if not local.exists():  # it was sent by the process that made it, elsewhere
            return
        if is_anew and self._objects.names(name).get(name) == size_bytes:
            return
        self._objects.put_file(name, local)

    # The end

    def finish(self, ledger: Ledger) -> None:
        """
        Send all that is left, the reports too, and at last what is there; call it when nothing writes any more.

        Raises:
            RunnerError: it can't be sent; what is there is not whole, and says so.
        """
        if self.failure is not None and not isinstance(self.failure, RecordError):
            raise self.failure
        until = time.monotonic() + FINISH_S
        while True:
            try:
                self._all(ledger)
            except StoreError as error:
                if time.monotonic() >= until or isinstance(error, Denied | Missing):
                    raise self._unsent(error) from None
                time.sleep(RETRY_S)
            else:
                return

    def _all(self, ledger: Ledger) -> None:
        database = ledger.database
        while upto := self._round(ledger):
            with database.transaction():
                segments.forget(database, upto)
        files = [path for path in sorted(self._folder.path.iterdir()) if path.is_file() and _is_report(path)]
        for path in files:
            self._objects.put_file(f"{self._prefix}/{path.name}", path)
        with tempfile.TemporaryDirectory(dir=self._folder.path, prefix=".sending-") as spool:
            path = Path(spool, "contents")
            with path.open("wb") as file:
                for line in self._contents(ledger, files):
                    file.write(line)
            self._objects.put_file(f"{self._prefix}/{CONTENTS}", path)

    def _contents(self, ledger: Ledger, files: list[Path]) -> Iterator[bytes]:
        """The text of contents.json, object by object: artifacts may be many."""
        plan, counts = ledger.noted("plan"), ledger.counts().values()
        settled = sum(runs for job in counts for (state, _), runs in job.items() if state in SETTLED)
        told: JsonObject = {
            "batch": self._folder.id,
            "verdict": ledger.noted("verdict"),
            "unfinished": sum(plan.values()) - settled,
            "written_at": iso(time.time()),
            "segments": self._count,
            "last_segment_sha256": self._previous,
        }
        yield dump(told)[:-1] + b',"objects":[\n'
        results = f"{self._prefix}/{chain.RESULTS}"
        between = b""
        for name, size_bytes in self._objects.names(results).items():
            said = name.rpartition("-")[2].partition(".")[0]
            below = name.removeprefix(f"{self._prefix}/")
            yield between + dump({"name": below, "size_bytes": size_bytes, "sha256_begins": said})
            between = b",\n"
        for path in files:
            digest = segments.digest_of(path)
            yield between + dump({"name": path.name, "size_bytes": path.stat().st_size, "sha256": digest})
            between = b",\n"
        for path_, size_bytes, digest in _made(ledger.database):
            yield between + dump({"name": path_, "size_bytes": size_bytes, "sha256": digest})
            between = b",\n"
        yield b"\n]}\n"


class StoreAgain(StoreError):
    """Raised when the same round has to be made again."""


def _is_report(path: Path) -> bool:
    """Whether *path* is a file of a batch that goes as a whole, and at the end."""
    name = path.name
    return not name.startswith((".", "ledger.sqlite")) and name not in ("results.jsonl", "stdin.jsonl")


def _artifacts(database: Database, upto: int, end: int) -> Iterator[tuple[str, int]]:
    """Path and size of the files of runs that have settled since, whose lines stand at *end* or behind it."""
    rows = database.rows(
        "SELECT a.path, a.size_bytes FROM artifacts a JOIN runs r ON r.key = a.key WHERE r.line_offset >= ? AND"
        f" r.rowid IN (SELECT place FROM {UNSENT} WHERE part = 'runs' AND number <= ?)",
        (end, upto),
    )
    yield from ((row[0], row[1]) for row in rows)


def _made(database: Database) -> Iterator[tuple[str, int, str]]:
    rows = database.rows(
        "SELECT a.path, a.size_bytes, a.sha256 FROM artifacts a JOIN runs r ON r.key = a.key"
        " WHERE r.state = 'succeeded' ORDER BY a.path"
    )
    yield from ((row[0], row[1], row[2]) for row in rows)


def _new(results: Path, start: int, end: int) -> Iterator[bytes]:
    """The lines of *results* from *start* to *end*, where one ends, in parts of a bearable size."""
    with results.open("rb") as file:
        file.seek(start)
        while (left := end - file.tell()) > 0 and (data := file.read(min(left, PART_BYTES))):
            if not data.endswith(b"\n"):
                whole = data.rfind(b"\n") + 1
                if whole:
                    file.seek(whole - len(data), os.SEEK_CUR)
                    data = data[:whole]
                else:  # a line that is longer than a part
                    data += file.readline()
            yield data
