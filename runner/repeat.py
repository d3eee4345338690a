"""Run a batch again from its manifest: what it was made of, what differs now, and whether the same comes out."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from runner.batch import Folder, is_id
from runner.check import JobFile, open_job_file
from runner.durable import sync_folder
from runner.errors import RecordError, UsageError
from runner.inputs.folder import EVERY, FolderFiles
from runner.ledger import Ledger
from runner.plain import plain
from runner.plan import Plan
from runner.recorded import recorded
from runner.records import record
from runner.secret import MASK
from runner.standing import line_at, standing
from runner.states import State
from runner.values import JsonObject, canonical, dump

NAMED = 3
"""So many files, or runs, are named; of more their number is said."""

STDIN = "stdin"
"""What rows are called that were piped in: each batch has a copy of its own."""


def job_file(manifest: JsonObject, only: Sequence[str]) -> JobFile:
    """
    The job file that the batch of *manifest* ran, its vars as they were resolved then.

    The file itself where it is still the same, else what the manifest has of it. *only* are the jobs that ran.

    Raises:
        JobFileError: what it needs from the environment, or beside it, is not there any more.
        UsageError: the manifest can't be read back, or lacks a secret that was written in the file.
    """
    path, overrides = Path(manifest["job_file"]["path"]), manifest["overrides"]
    is_masked = MASK in dump(manifest["vars"]).decode()
    if _sha256(path) == manifest["job_file"]["sha256"]:
        profile = overrides.get("profile")
        found = open_job_file(path, overrides=overrides["vars"], only=only, profile=profile, env_required=True)
        return found if is_masked else replace(found, vars=manifest["vars"])
    if is_masked or MASK in dump(manifest["spec"]).decode():
        raise UsageError(
            f"batch {manifest['batch']} can't be repeated: its job file has changed or is gone, and the manifest has"
            " none of the secrets that were written in it",
            fix=f"put {path} back as it was, its text is in the manifest save for these",
        )
    return recorded(manifest)


def check_inputs(batch: Folder, *, plan: Plan | None = None, accepted: bool) -> None:
    """
    Make sure that the data files of *batch* are as they were; with *plan* also that it reads no others.

    Raises:
        UsageError: they are not, and that is not *accepted*; or what was piped into the batch is gone.
    """
    told = batch.read_manifest()
    if plan is None:
        wrong = [f"{name} {why}" for name, why in _wrong(batch, told)]
    else:
        known = dict(_inputs(told))
        found = {_named(one.path.absolute()): one.sha256 for one in plan.inputs}
        wrong = [
            f"{name} {_why(known.get(name), sha256)}" for name, sha256 in found.items() if known.get(name) != sha256
        ]
    if wrong and not accepted:
        more = f", and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise UsageError(
            f"batch {batch.id} can't be repeated as it was: {', '.join(wrong[:NAMED])}{more}",
            fix="put back what it read, or run what is there now with --accept-changes",
        )


def _why(before: str | None, now: str | None) -> str:
    return "is new" if before is None else "is gone" if now is None else "has changed"


def _wrong(batch: Folder, told: JsonObject) -> Iterator[tuple[str, str]]:
    folders = _folders(told)
    for name, sha256 in _inputs(told):
        path = batch.stdin if name == STDIN else Path(name)
        found = folders[name].digest() if name in folders else _sha256(path)
        if found is None:
            yield str(path), "is gone" if not path.exists() else "can't be read"
        elif found != sha256:
            yield str(path), "has changed"


def _folders(told: JsonObject) -> dict[str, FolderFiles]:
    """The folders whose files are rows, by the names that the manifest *told* has for them."""
    base = Path(told["job_file"]["path"]).parent
    rows = [job["rows"] for job in told["spec"]["jobs"].values()]
    found = [FolderFiles(base, one["folder"], one["glob"] or EVERY) for one in rows if one.get("folder") is not None]
    return {str(one.path): one for one in found}


def copy_stdin(batch: Folder, to: Path) -> None:
    """
    Let *to*, which must not exist, be what was piped into *batch*.

    Raises:
        UsageError: it is gone.
        RecordError: *to* can't be written.
    """
    if not batch.stdin.exists():
        raise UsageError(
            f"batch {batch.id} can't be repeated: {batch.stdin} is gone, and its rows came from there",
            fix="put it back from a copy, or run the job file with the rows piped into it",
        )
    try:
        shutil.copyfile(batch.stdin, to)
        with to.open("rb+") as file:
            os.fsync(file.fileno())
        sync_folder(to.parent)
    except OSError as error:
        raise RecordError(
            f"{to} can't be written: {error.strerror or error}",
            fix="see that the disk has room and the folder can be written",
        ) from None


def told(before: JsonObject, now: JsonObject) -> tuple[list[str], list[str]]:
    """What a person must know before the batch of the manifest *before* is repeated, and what one may want to know."""
    found = differences(before, now)
    if not found:
        return [], [f"repeating batch {before['batch']}: nothing differs"]
    return [f"repeating batch {before['batch']}, and this differs:", *(f"  {plain(one)}" for one in found)], []


def differences(before: JsonObject, now: JsonObject) -> list[str]:
    """How a batch differs from the one that it repeats, by their manifests: a line for each thing, for people."""
    return [
        *_of_job_file(before),
        *_of_inputs(before, now),
        *_of_handlers(before.get("handlers") or {}, now["handlers"]),
        *_of_destinations(before.get("destinations") or {}, now["destinations"]),
        *(
            f"{name} was {old}, and is {new}"
            for name, new in now["versions"].items()
            if (old := before["versions"].get(name, new)) != new
        ),
        *_of_git(before["git"], now["git"]),
    ]


def _of_job_file(before: JsonObject) -> Iterator[str]:
    path = Path(before["job_file"]["path"])
    found = _sha256(path)
    if found != before["job_file"]["sha256"]:
        yield f"{path} {'is gone' if found is None else 'has changed'}: it runs as it was recorded"


def _of_inputs(before: JsonObject, now: JsonObject) -> Iterator[str]:
    old, new = dict(_inputs(before)), dict(_inputs(now))
    for name in {**old, **new}:
        if old.get(name) != new.get(name):
            yield f"{name} {_why(old.get(name), new.get(name))}"


def _of_handlers(before: JsonObject, now: JsonObject) -> Iterator[str]:
    for name, one in now.items():
        if name in before and before[name]["sha256"] != one["sha256"]:
            yield f"the handler of endpoint '{name}' has changed: {one['handler']}"


def _of_destinations(before: JsonObject, now: JsonObject) -> Iterator[str]:
    for name, one in now.items():
        old = before.get(name) or one
        if old != one and MASK not in dump([old, one]).decode():
            yield f"endpoint '{name}' was {_destination(old)}, and is {_destination(one)}"


def _destination(to: JsonObject) -> str:
    return f"{to['endpoint_id']} at {to['base_url']}"


def _of_git(before: JsonObject | None, now: JsonObject | None) -> Iterator[str]:
    if before != now:
        yield f"git was at {_commit(before)}, and is at {_commit(now)}"
    elif before is not None and before["dirty"]:
        yield f"git is at {_commit(before)}, as before: these may be others"


def _commit(state: JsonObject | None) -> str:
    if state is None:
        return "no commit"
    return str(state["commit"])[:12] + (", with uncommitted changes" if state["dirty"] else "")


def _inputs(told: JsonObject) -> Iterator[tuple[str, str]]:
    """Name and digest of each data file of the manifest *told*."""
    for one in told["inputs"]:
        yield _named(Path(one["path"])), one["sha256"]


def _named(path: Path) -> str:
    return STDIN if path == Folder(path.parent).stdin and is_id(path.parent.name) else str(path)


def _sha256(path: Path) -> str | None:
    """The digest of the file at *path*; None when it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


@record(frozen=True, slots=True)
class Compared:
    """
    A batch beside the one that it repeats: how many runs gave the *same* output, and how many other ones.

    *differing* names the first of the others. *alone* are the runs that did not succeed in both.
    """

    batch: str
    same: int
    other: int
    differing: Sequence[str]
    alone: int

    def say(self) -> str:
        """For people: ``598 of 600 runs gave the same output as in 20261123T022312Z-7f3a; 2 differ: photos:3, …``."""
        compared = self.same + self.other
        text = f"{self.same} of {compared} runs gave the same output as in {self.batch}"
        if self.other:
            more = f" and {self.other - NAMED} more" if self.other > NAMED else ""
            text += f"; {self.other} {'differs' if self.other == 1 else 'differ'}: {', '.join(self.differing)}{more}"
        return text + (f"; {self.alone} did not succeed in both" if self.alone else "")


def compare(before: Folder, now: Folder) -> Compared:
    """
    Hold the outputs of the batch in *now* against those of *before*, run by run, by their keys.

    Raises:
        RunnerError: one of them can't be read.
    """
    same = other = alone = 0
    differing: list[str] = []
    lines, _ = standing(now)
    with closing(lines), Ledger.read_only(before.ledger) as ledger:
        for _, line in lines:
            place = ledger.succeeded_line(line["key"]) if line["state"] == State.SUCCEEDED else None
            known = None if place is None else line_at(before, place)
            if known is None:
                alone += 1
            elif _is_same_output(line, known):
                same += 1
            else:
                other += 1
                if other <= NAMED:
                    differing.append(f"{line['job']}:{line['index']}")
    return Compared(before.id, same, other, differing, alone)


def _is_same_output(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    if ("output" in one) != ("output" in other):
        return False
    return canonical(one.get("output")) == canonical(other.get("output"))
