"""
How many ended batches of a job file are kept: which go when another one ends, and how one is removed.

Only folders that batches have are ever looked at: links, and whatever else is beside them, stay as they are.
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from runner.batch import Folder
from runner.durable import sync_folder
from runner.errors import RecordError, RunnerError
from runner.inventory import Held, held
from runner.spec import Keep
from runner.states import Verdict

ASIDE = ".removing-"
"""A batch's name begins with it while it is removed: nothing lists it then, and the next clean ends a cut off one."""

log = logging.getLogger(__name__)


def apply(keep: Keep, ended: Folder) -> list[str]:
    """
    Remove what is beyond *keep* of the batches beside *ended*, which has just come to its end, under its lock.

    Returns:
        What a person has to know: what should have gone and did not.
    """
    root = ended.path.parent
    if keep.succeeded is None and keep.failed is None:
        return []
    if root.is_symlink():
        return [f"note: {root} is a link, so no old batch is removed there"]
    try:
        going = [one.folder.path for one in beyond(keep, held(root), ended)]
        for path in [*going, *cut_off(root)]:
            remove(path)
            log.info("old batch removed", extra={"batch": path.name.removeprefix(ASIDE)})
    except RunnerError as error:  # the batch has ended, and is as it is
        log.warning("old batches are left: %s", error.message)
        return [f"note: old batches are left: {error.message}"]
    return []


def beyond(keep: Keep, batches: Sequence[Held], ended: Folder) -> Iterator[Held]:
    """
    Which of the *batches* of one job file, the newest first, go when the one in *ended* has come to its end.

    Never that one, what `latest` leads to, what a newer one repeats, or one that is unfinished or can't be read.
    """
    root = ended.path.parent
    needed = {ended.path.resolve(), (root / "latest").resolve()}
    repeated = {one.account.repeats for one in batches if one.account is not None}
    seen = dict.fromkeys(("succeeded", "failed"), 0)
    for one in batches:
        if one.account is None or one.account.verdict is None or not one.account.is_finished:
            continue
        kind = "succeeded" if one.account.verdict == Verdict.PASS else "failed"
        seen[kind] += 1
        most = keep.succeeded if kind == "succeeded" else keep.failed
        is_needed = one.folder.path.resolve() in needed or one.folder.id in repeated
        if most is not None and seen[kind] > most and not is_needed:
            yield one


def cut_off(root: Path) -> list[Path]:
    """What an earlier removal in *root* left, as it was cut off."""
    return [path for path in sorted(root.glob(f"{ASIDE}*")) if path.is_dir() and not path.is_symlink()]


def remove(path: Path) -> None:
    """
    Remove a batch, in one step for whoever looks.

    Raises:
        RecordError: it can't be removed.
    """
    try:
        if not path.name.startswith(ASIDE):
            path = path.rename(path.with_name(ASIDE + path.name))
            sync_folder(path.parent)
        shutil.rmtree(path)
    except OSError as error:
        raise RecordError(
            f"{path} can't be removed: {error.strerror or error}",
            fix="see who may write it, then clean again: what is hidden already is removed first",
        ) from None
