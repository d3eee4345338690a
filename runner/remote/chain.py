"""The segments of one batch in a remote folder, in order; a batch's folder made of them again."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from runner.batch import Folder
from runner.database import Database
from runner.durable import sync_folder, write_whole
from runner.errors import RecordError, UsageError
from runner.ledger import VERSION, Ledger, folded
from runner.remote import segments
from runner.remote.objects import Missing, Objects
from runner.values import JsonObject, dump, parse

LEDGER, RESULTS = "ledger", "results"
CONTENTS = "contents.json"
"""What is in a batch's folder, written last: without it, or with one that speaks of fewer segments, more is to come."""

TOGETHER = 8
"""So many objects are asked for at once."""

STATE = ".remote.json"
"""In a folder of this machine: what it has of the remote one."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of results.jsonl: its *name*, and where it begins there. *sha256* is None where nobody has said it."""

    name: str
    offset: int
    size_bytes: int
    sha256: str | None


def segment_name(number: int) -> str:
    """The name of the segment *number*, below the batch's own."""
    return f"{LEDGER}/{number:08}.jsonl.gz"


def part_name(made: int, offset: int, writer: str, digest: str) -> str:
    """The name of a part of results.jsonl. It tells the content, so no two writers mean different ones by it."""
    return f"{RESULTS}/{made:04}-{offset:014}-{writer}-{digest[:16]}.jsonl"


@dataclass(frozen=True, slots=True)
class _Known:
    """
    What the folder of a reader has: so many *segments*, and results up to *end*, of the file that was *made* anew so
    often. The parts *left* are spoken of and not read.
    """

    segments: int = 0
    made: int = 0
    end: int = 0
    left: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Chain:
    """
    What a remote folder has of the batch *prefix*: *count* segments, the last of which says *last*.

    *parts* are all parts of its results by name, with their sizes, those that no segment speaks of included.
    """

    objects: Objects
    prefix: str
    count: int
    last: JsonObject | None
    last_digest: str
    parts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, objects: Objects, prefix: str) -> "Chain":
        """
        Look at what is there.

        Raises:
            UsageError: a segment is gone.
            StoreError: the store doesn't say.
        """
        found = objects.names(f"{prefix}/{LEDGER}")
        wanted = [f"{prefix}/{segment_name(number)}" for number in range(1, len(found) + 1)]
        for name in wanted:
            if name not in found:
                raise UsageError(
                    f"{objects.url}/{name} is gone: nobody knows any more which jobs that batch sent",
                    fix="put it back from an older version, or start a new batch with --fresh, which may pay again",
                )
        parts = objects.names(f"{prefix}/{RESULTS}")
        if not wanted:
            return cls(objects, prefix, 0, None, "", parts)
        with tempfile.TemporaryDirectory(prefix="runner-") as folder:
            path = Path(folder, "last")
            objects.get_file(wanted[-1], path)
            return cls(objects, prefix, len(wanted), segments.header(path), segments.digest_of(path), parts)

    def contents(self) -> JsonObject | None:
        """What was written last, if all that it speaks of is all that there is; None while more is to come."""
        try:
            found: JsonObject = parse(self.objects.get(f"{self.prefix}/{CONTENTS}"))
        except (Missing, ValueError):
            return None
        return found if found.get("segments") == self.count else None

    def restore(self, to: Folder, *, artifacts: bool = False, results: bool = True, only_read: bool = False) -> None:
        """
        Make the folder *to* of what is there: ledger, manifest, *results*, and *artifacts*, as far as they are wanted.

        With *only_read* nobody will write to it, and the next call goes on where this one ended. A kill leaves a folder
        that the next call makes whole.

        Raises:
            RecordError: an object is damaged, or the disk is full.
            StoreError: the store doesn't give it.
        """
        assert self.last is not None, "it was seen that there is something"
        try:
            to.path.mkdir(parents=True, exist_ok=True)
            known = self._known(to) if only_read else _Known()
            (to.path / STATE).unlink(missing_ok=True)
            for name in ("manifest.json", "stdin.jsonl"):
                self._file(name, to.path / name)
            left = list(known.left)
            if known.segments < self.count:
                left += self._ledger(to, known.segments, only_read=only_read)
            unspoken = [] if only_read else self._unspoken()
            end = known.end
            if results:
                end = self._results(to, end, [*left, *unspoken])
                left = []
            self._claim(to, unspoken)
            if artifacts:
                self._artifacts(to)
        except OSError as error:
            raise RecordError(
                f"{to.path} can't be written: {error.strerror or error}",
                fix="see that the disk has room, or name another one with RUNNER_CACHE_DIR",
            ) from None
        now = _Known(self.count, self.last["results"]["made"], end, tuple(left))
        _put(to, asdict(now) if only_read else {"writers": [self.last["writer"]]})

    def _known(self, to: Folder) -> "_Known":
        """What *to* has of an earlier call."""
        assert self.last is not None
        told = _told(to)
        if told.get("made") != self.last["results"]["made"] or not to.ledger.exists():
            return _Known()
        known = _Known(told["segments"], told["made"], told["end"], tuple(Part(**one) for one in told["left"]))
        size_bytes = to.results.stat().st_size if to.results.exists() else 0
        return known if known.segments <= self.count and known.end == size_bytes else _Known()

    def _file(self, name: str, path: Path) -> None:
        aside = path.with_name(f".{path.name}.tmp")
        try:
            self.objects.get_file(f"{self.prefix}/{name}", aside)
        except Missing:
            return
        aside.replace(path)

    def _ledger(self, to: Folder, applied: int, *, only_read: bool) -> list[Part]:
        """Let the ledger in *to*, which has so many segments *applied*, have all; the parts of results they name."""
        assert self.last is not None
        aside = to.path / ".ledger.sqlite.tmp"
        for left in to.path.glob(".ledger.sqlite.tmp*"):
            left.unlink()
        if applied:
            shutil.copyfile(to.ledger, aside)
        spoken: list[Part] = []
        # Without a seal: it is no ledger yet that anybody wrote to.
        with Ledger(Database.open(aside, version=VERSION), aside) if applied else Ledger.create(aside) as ledger:
            with ledger.database.transaction():
                for path in self._segments(applied + 1):
                    segments.apply(ledger.database, path)
                    results = segments.header(path)["results"]
                    spoken += [
                        Part(*one) for one in results["parts"] if results["made"] == self.last["results"]["made"]
                    ]
            if not only_read:
                segments.capture(ledger.database, is_sent=True)
            ledger.fold()
        for left in (*to.path.glob("ledger.sqlite*"), *to.path.glob(".ledger.seal")):
            left.unlink()
        aside.replace(to.ledger)
        sync_folder(to.path)
        return spoken

    def _segments(self, first: int) -> Iterator[Path]:
        """Files with the segments from *first* on, in order, each a link of the chain; some are fetched ahead."""
        before = ""
        with tempfile.TemporaryDirectory(prefix="runner-") as folder, ThreadPoolExecutor(TOGETHER) as pool:
            for start in range(first, self.count + 1, TOGETHER * 4):
                numbers = range(start, min(start + TOGETHER * 4, self.count + 1))
                paths = [Path(folder, f"{number}") for number in numbers]
                names = [f"{self.prefix}/{segment_name(number)}" for number in numbers]
                for _ in pool.map(self.objects.get_file, names, paths):
                    pass
                for name, path in zip(names, paths, strict=True):
                    told = segments.header(path)["previous"]
                    if before and told != before:
                        raise RecordError(
                            f"{self.objects.url}/{name} does not follow on the segment before it: one has been changed",
                            fix="put it back from an older version of it",
                        )
                    before = segments.digest_of(path)
                    yield path
                    path.unlink()

    def _unspoken(self) -> list[Part]:
        """
        Parts of results that the last writer put before it was cut off, and that no segment of it speaks of any more:
        what is in their lines was paid for.
        """
        assert self.last is not None
        made, at = self.last["results"]["made"], self.last["results"]["end"]
        found: list[Part] = []
        for name, size in sorted(self.parts.items(), key=lambda part: (part[0].split("-")[:-2], -part[1])):
            of, offset, writer, _ = name.rpartition("/")[2].split("-")
            if int(of) == made and int(offset) == at and writer == self.last["writer"] and size:
                found.append(Part(name.removeprefix(f"{self.prefix}/"), at, size, None))
                at += size
        return found

    def _results(self, to: Folder, known: int, parts: Sequence[Part]) -> int:
        """Write the *parts* behind the *known* bytes of results.jsonl; where they end."""
        at = known
        with to.results.open("r+b" if known else "wb") as file:
            file.seek(known)
            for part in parts:
                data = self.objects.get(f"{self.prefix}/{part.name}")
                is_whole = part.offset == at and part.size_bytes == len(data)
                if not is_whole or part.sha256 not in (None, hashlib.sha256(data).hexdigest()):
                    raise RecordError(
                        f"{self.objects.url}/{self.prefix}/{part.name} is not as it was written",
                        fix="put it back from an older version of it",
                    )
                file.write(data)
                at += len(data)
        sync_folder(to.path)
        return at

    def _claim(self, to: Folder, unspoken: Sequence[Part]) -> None:
        """
        Enter the files of the runs in the *unspoken* parts: whoever adopts their lines relies on it that the names are
        taken, and that it is known what is in them.
        """
        lines = [
            parse(line) for part in unspoken for line in self.objects.get(f"{self.prefix}/{part.name}").splitlines()
        ]
        rows: list[tuple[object, ...]] = []
        with tempfile.TemporaryDirectory(prefix="runner-") as folder:
            for line in lines:
                for path in line["artifacts"]:
                    local = Path(folder, "artifact")
                    self.objects.get_file(f"{self.prefix}/{path}", local)
                    digest, size_bytes = segments.digest_of(local), local.stat().st_size
                    rows.append((folded(path), path, line["key"], line["attempts"], digest, size_bytes))
        if rows:
            with Ledger(Database.open(to.ledger, version=VERSION), to.ledger) as ledger, ledger.database.transaction():
                # The triggers that note what is to be sent are there already.
                ledger.database.do_each("INSERT OR IGNORE INTO artifacts VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _artifacts(self, to: Folder) -> None:
        for name in self.objects.names(f"{self.prefix}/artifacts"):
            path = to.path / name.removeprefix(f"{self.prefix}/")
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                aside = path.with_name(f".{path.name}.tmp")
                self.objects.get_file(name, aside)
                aside.replace(path)


# Whether the folder of this machine is behind


def writers(folder: Folder) -> list[str]:
    """The writers that the folder of this machine is not behind: it has what they wrote, and perhaps more."""
    found: list[str] = _told(folder).get("writers", [])
    return found


def add_writer(folder: Folder, token: str) -> None:
    """Say, durably, that *token* is about to send what is in *folder*."""
    _put(folder, {"writers": [*writers(folder), token][-50:]})


def _told(folder: Folder) -> JsonObject:
    try:
        found: JsonObject = parse((folder.path / STATE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def _put(folder: Folder, told: JsonObject) -> None:
    write_whole(folder.path / STATE, dump(told))
