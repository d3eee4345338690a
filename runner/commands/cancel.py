"""``runner cancel``: end a batch for good, and its jobs at RunPod."""

import asyncio
import sys
import time
from pathlib import Path
from typing import TextIO

from runner import batch, locations, report, shards_folder, shards_told
from runner.batch import Folder
from runner.commands.shards import as_now
from runner.errors import EXIT_FAIL, EXIT_PASS, BatchBusy
from runner.execute import execute
from runner.ledger import Ledger
from runner.options import Options
from runner.plain import plain
from runner.progress import say
from runner.resume import progress
from runner.shards_folder import Common, Standing
from runner.summary import summary
from runner.values import JsonObject, dump

LOOK_S = 0.2
"""How often it is looked whether the process that runs the batch has ended it."""


def cancel(
    name: str,
    *,
    output_dir: Path | None = None,
    take_over: bool = False,
    token_env: str | None = None,
    as_json: bool = False,
    out: TextIO = sys.stdout,
    err: TextIO = sys.stderr,
) -> int:
    """
    End the batch *name*: the process that runs it is asked to, and where there is none it is done here.

    Returns:
        0 when nothing of it is left at RunPod that we know of, 1 otherwise.

    Raises:
        RunnerError: as `runner.execute.execute` does.
    """
    outputs = batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=output_dir)
    if (common := shards_folder.find(name, outputs)) is not None:
        return _shards(common, take_over, token_env, as_json, out, err)
    folder = batch.find(name, outputs)
    if locations.is_looked_at(folder.path):
        if batch.is_running(folder) and not take_over:
            raise BatchBusy(
                f"{locations.shown(folder.path)} is being run on another machine",
                fix="stop it there, with Ctrl-C or runner cancel, or write --take-over",
            )
        return _end_elsewhere(folder, take_over, token_env, as_json, out, err)
    if not progress(folder).unfinished and not batch.is_running(folder):
        say(f"batch {folder.id} has ended already; there is nothing to cancel", err)
        return _tell(folder, as_json, out, err)
    while not _was_heeded(folder, err):
        try:
            ended = asyncio.run(execute(Options.of_batch(folder, cancel=True, token_env=token_env)))
        except BatchBusy:
            if not batch.is_running(folder):  # it is held for another batch, or for this one in a moment
                raise
        else:
            for refusal in ended.refusals:
                say(refusal.render(), err)
            for note in ended.notes:
                say(plain(note), err)
            break
    return _tell(folder, as_json, out, err)


def _shards(common: Common, take_over: bool, token_env: str | None, as_json: bool, out: TextIO, err: TextIO) -> int:
    """End all shards of *common* that are there, one after another; those that are missing were never sent."""
    codes = []
    for one in common.there:
        if one.standing is not Standing.ENDED:
            here = Folder(locations.written(one.folder.path))  # a process of this machine can be asked to
            folder = here if batch.is_running(here) else one.folder
            codes.append(cancel(str(folder.path), take_over=take_over, token_env=token_env, out=err, err=err))
    common = as_now(common)
    with shards_told.opened(common) as whole:
        health = shards_told.as_json(common, whole.health)
        say(dump(health).decode() if as_json else shards_told.as_text(common, whole.health), out)
    return max(codes, default=EXIT_PASS)


def _end_elsewhere(
    folder: Folder, take_over: bool, token_env: str | None, as_json: bool, out: TextIO, err: TextIO
) -> int:
    """End a batch whose folder is elsewhere, and which no process of this machine runs."""
    if not progress(folder).unfinished:
        say(f"batch {folder.id} has ended already; there is nothing to cancel", err)
        return _tell(folder, as_json, out, err)
    options = Options.of_batch(folder, cancel=True, take_over=take_over, token_env=token_env)
    ended = asyncio.run(execute(options))
    for refusal in ended.refusals:
        say(refusal.render(), err)
    return _tell(ended.folder, as_json, out, err)


def _was_heeded(folder: Folder, err: TextIO) -> bool:
    """Ask the process that runs the batch, as long as there is one; whether it ended the batch."""
    if not batch.is_running(folder):
        return False
    say(f"asked the process that runs batch {folder.id} to cancel it; waiting for its end", err)
    while batch.is_running(folder):
        folder.wish.touch()  # again and again: another process may go on with the batch while we wait
        time.sleep(LOOK_S)
    folder.wish.unlink(missing_ok=True)
    return not progress(folder).unfinished


def _tell(folder: Folder, as_json: bool, out: TextIO, err: TextIO) -> int:
    with Ledger.read_only(folder.ledger) as ledger:
        facts = report.told(ledger, folder, verdict="unfinished")
        health: JsonObject = report.fold(ledger, facts)
        left = sum(one.job_id is not None and not one.ended for one in ledger.open_runs())
        left += sum(len(ledger.sent(one.number)) for one in ledger.open_drafts())
    say(dump(health).decode() if as_json else summary(health, locations.shown(folder.path)), out)
    # Jobs that need others are settled once those are, which the jobs that are left keep from it.
    later = sum(job["pending"] for name, job in health["jobs"].items() if name in facts.needs) if left else 0
    if (stay := health["batch"]["pending"] - left - later) > 0:
        runs = "1 run that was never sent stays" if stay == 1 else f"{stay} runs that were never sent stay"
        say(f"warning: {runs} pending: the data are no longer those that the batch was started with", err)
        say("  help: put them back and run 'runner cancel' again, or start a new batch with --fresh", err)
    if left:
        jobs = "1 job is" if left == 1 else f"{left} jobs are"
        say(f"error: {jobs} not known to have ended at RunPod", err)
        say("  help: run 'runner cancel' again once RunPod answers", err)
        return EXIT_FAIL
    return EXIT_PASS
