"""
The folder that a batch's shards have in common: where each is in it, which are there, whether they are of one batch.

    <outputs.dir>/<name>/<batch id>/shards/03-of-16/    a batch folder of its own: ledger, results, lock

Nobody writes into the common folder but the shards, each into its own, so that hosts need not talk: folders of several
hosts are brought together by copying them to one place.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from shlex import join

from runner import batch, locations
from runner.batch import Folder
from runner.errors import RecordError, RunnerError, UsageError
from runner.resume import progress
from runner.shards import SHARDS, Shard
from runner.values import JsonObject


class Standing(StrEnum):
    """Where a shard stands."""

    MISSING = "missing"
    UNFINISHED = "unfinished"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Part:
    """One shard: where it stands; its *manifest* is None where it is missing."""

    shard: Shard
    folder: Folder
    standing: Standing
    manifest: JsonObject | None


@dataclass(frozen=True, slots=True)
class Common:
    """The folder at *path*, with all shards of the batch, also those that are missing."""

    path: Path
    parts: tuple[Part, ...]

    @property
    def there(self) -> list[Part]:
        """The shards that are there."""
        return [one for one in self.parts if one.manifest is not None]

    @property
    def left(self) -> list[Part]:
        """The shards that are to be started, or to be gone on with."""
        return [one for one in self.parts if one.standing in (Standing.MISSING, Standing.UNFINISHED)]

    def start(self, part: Part) -> str:
        """The command that starts *part*, or goes on with it."""
        if part.manifest is not None:
            return join(["runner", "resume", locations.shown(part.folder.path)])
        like = self.there[0].manifest
        assert like is not None
        outputs = self.outputs if self.is_in_place else None
        return join(["runner", *start_words(like, part.shard, outputs)])

    @property
    def outputs(self) -> Path:
        """The folder of the batches of all job files; the URL of one that is elsewhere, for options to take."""
        url = locations.url_of(self.path.parent.parent)
        return self.path.parent.parent if url is None else Path(url)

    @property
    def is_in_place(self) -> bool:
        """Whether it is where its shards are made, and not where somebody has copied them."""
        like = self.there[0].manifest
        return like is not None and (self.path.parent.name, self.path.name) == (like["name"], like["shard"]["batch_id"])


def folder_of(root: Path, batch_id: str, shard: Shard) -> Path:
    """Where *shard* is in *root*, the folder that holds all batches of a job file."""
    return root / batch_id / SHARDS / shard.folder


def start_words(told: JsonObject, shard: Shard, outputs: Path | None) -> list[str]:
    """
    The words behind ``runner`` that start *shard* as another one was that has the manifest *told*; in the folder
    *outputs*, or where the job file says.
    """
    chosen = told["overrides"]
    words = ["run", told["job_file"]["path"], "--shard", str(shard), "--batch-id", told["shard"]["batch_id"]]
    if outputs is not None:
        words += ["--output-dir", locations.url_in(outputs) or str(outputs)]
    for name in chosen["jobs"]:
        words += ["--job", name]
    for name, value in chosen["vars"].items():
        words += ["--var", f"{name}={value}"]
    for option in ("profile", "limit", "rows", "where"):
        if chosen.get(option) is not None:
            words += [f"--{option}", str(chosen[option])]
    if told["local_url"] is not None:
        words += ["--local", told["local_url"]]
    return [*words, "--fresh"] if told["fresh"] else words


def find(name: str, outputs: Path) -> Common | None:
    """
    The common folder that *name* means: its path, or the id of a batch in *outputs*. None where it means no such.

    Raises:
        UsageError: its shards can't be read, or are of several batches.
    """
    path = Path(name).resolve()
    if (path / "ledger.sqlite").exists():
        return None
    if path.name == SHARDS and _folders(path.parent):
        path = path.parent
    found = [path] if _folders(path) else []
    if not found and "/" not in name and outputs.is_dir():
        found = [root / name for root in sorted(outputs.iterdir()) if _folders(root / name)]
    if len(found) > 1:
        said = ", ".join(str(one) for one in found)
        raise UsageError(f"{name!r} is the id of several batches: {said}", fix="give the folder of one of them")
    return None if not found else read(found[0])


def read(path: Path) -> Common:
    """
    The common folder at *path*.

    Raises:
        UsageError: its shards can't be read, or are of several batches.
    """
    folders = _folders(path)
    of = {shard.of for shard in folders}
    where = locations.shown(path)
    if len(of) != 1:
        said = " and ".join(str(one) for one in sorted(of))
        raise UsageError(f"{where}/{SHARDS} has shards of {said}", fix="keep those of one batch, move the others away")
    parts = tuple(_part(path, Shard(number, min(of))) for number in range(1, min(of) + 1))
    common = Common(path, parts)
    if not common.there:
        raise UsageError(f"{where}/{SHARDS} has no shard that has begun", fix="start one with 'runner run --shard'")
    first = common.there[0]
    for other in common.there[1:]:
        if (differs := _differ(first.manifest or {}, other.manifest or {})) is not None:
            raise UsageError(
                f"shards {first.shard} and {other.shard} in {where} are of different batches: {differs}",
                fix="start those that are wrong again, with another --batch-id",
            )
    return common


def _part(path: Path, shard: Shard) -> Part:
    folder = Folder(path / SHARDS / shard.folder)
    if not folder.ledger.exists():
        if folder.results.exists():
            raise UsageError(
                f"{folder.ledger} is gone, and {folder.results.name} beside it is not: nobody knows which jobs shard"
                f" {shard} sent",
                fix="restore it from a copy, or start all shards again with another --batch-id",
            )
        return Part(shard, folder, Standing.MISSING, None)
    standing = Standing.RUNNING if batch.is_running(folder) else Standing.ENDED
    if standing is Standing.ENDED:
        so_far = progress(folder)
        is_cut_off = locations.is_looked_at(path) and not locations.is_whole(folder.path)
        is_left = so_far.unfinished or not so_far.has_ended or is_cut_off
        standing = Standing.UNFINISHED if is_left else Standing.ENDED
    return Part(shard, folder, standing, folder.read_manifest())


def _folders(path: Path) -> list[Shard]:
    """The shards that have a folder in *path*, upwards."""
    with suppress(OSError):
        found = (Shard.of_folder(one.name) for one in (path / SHARDS).iterdir())
        return sorted(one for one in found if one is not None)
    return []


def prepared(root: Path) -> Folder:
    """
    The shard's folder *root*, which is there, without what a start that was killed left of a ledger.

    Raises:
        RecordError: that can't be removed.
    """
    try:
        for left in root.glob(".ledger.sqlite.tmp*"):
            left.unlink()
    except OSError as error:
        raise RecordError(
            f"{root} can't be written: {error.strerror}", fix="see that the disk has room and the folder can be written"
        ) from None
    return Folder(root)


def begun_in(root: Path, *, is_resumed: bool) -> Folder | None:
    """
    The shard in the folder *root* to go on with; None where it has not begun.

    Raises:
        UsageError: it has, and is not to be gone on with; or it has lost its ledger.
    """
    shard = Shard.of_folder(root.name)
    assert shard is not None
    part = _part(root.parent.parent, shard)
    if part.manifest is None:
        return None
    if not is_resumed:
        raise UsageError(
            f"shard {shard} of batch {root.parent.parent.name} has begun, in {locations.shown(root)}",
            fix="go on with it with --resume, which also says how it ended; or give all shards another --batch-id",
        )
    return part.folder


def check_room(path: Path, shard: Shard) -> None:
    """
    Make sure that *shard* is of the batch in the common folder *path*, as far as other shards' folders are there.

    Raises:
        UsageError: these are of another number of shards.
    """
    if locations.url_of(path) is not None:
        return  # others may have been fetched here long ago: whoever holds the folder looks there
    for other in _folders(path):
        check_count(path, shard, other)


def check_count(path: Path, shard: Shard, other: Shard) -> None:
    """
    Make sure that *shard* is one of as many as the *other*, which is in the common folder *path*.

    Raises:
        UsageError: it is not.
    """
    if other.of != shard.of:
        is_one = locations.shown(path / SHARDS / other.folder)
        raise UsageError(
            f"--shard {shard}: batch {path.name} has {other.of} shards, {is_one} is one of them",
            fix=f"write --shard NUMBER/{other.of}, or another --batch-id",
        )


def check_agrees(folder: Folder, told: JsonObject, beside: tuple[Shard, JsonObject] | None = None) -> None:
    """
    Make sure that the batch in *folder*, of which *told* is to be the manifest, is of one batch with the shards beside
    it, if it is a shard and there are any: else some runs would be in two of them, and others in none. For a folder
    that is elsewhere *beside* is one of those that are there, and its manifest.

    Raises:
        UsageError: it is not.
    """
    shard = Shard.of_folder(folder.path.name)
    if shard is None:
        return
    is_here = locations.url_of(folder.path) is None
    others = _manifests(folder.path.parent, shard) if is_here else [beside] if beside is not None else []
    for number, other in others:
        if (differs := _differ(other, told)) is not None:
            where = locations.shown(folder.path.parent)
            raise UsageError(
                f"shard {shard} is not of one batch with shard {number} in {where}: {differs}",
                fix="give all shards the same file, data and options, or this one another --batch-id",
            )
        return  # which agrees with all others


def _manifests(shards: Path, without: Shard) -> Iterator[tuple[Shard, JsonObject]]:
    """The manifests in the folder *shards*, but that of one shard."""
    for shard in _folders(shards.parent):
        if shard == without:  # what a start that was killed left of it
            continue
        with suppress(RunnerError):  # it is just being made
            yield shard, Folder(shards / shard.folder).read_manifest()


def _differ(one: JsonObject, other: JsonObject) -> str | None:
    """What differs between two manifests that must not, in words; None where nothing does."""
    mine, its = _same(one), _same(other)
    return next((f"their {what} differ" for what in mine if mine[what] != its[what]), None)


def _same(told: JsonObject) -> Mapping[str, object]:
    """What the manifests of all shards of a batch have the same, by what it is called."""
    return {
        "job files": told["spec"],
        "vars": told["vars"],
        "data": sorted(one["sha256"] for one in told["inputs"]),
        "options": {name: value for name, value in told["overrides"].items() if name != "shard"},
        "ids": told["shard"]["batch_id"],
        "plans": told["shard"]["plan"],
        "versions of runner": told["versions"]["runpod-runner"],
    }
