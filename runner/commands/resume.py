"""``runner resume``: go on with one batch, whichever it is."""

import sys
from pathlib import Path
from typing import TextIO

from runner import batch, report
from runner.commands.run import Style, tell
from runner.commands.run import run as run_batch
from runner.execute import EXIT_CODES, Batch
from runner.ledger import Ledger
from runner.options import Options
from runner.resume import progress
from runner.states import Verdict


def resume(
    name: str,
    style: Style,
    *,
    output_dir: Path | None = None,
    retry_failed: bool = False,
    accept_changes: bool = False,
    local_url: str | None = None,
    token_env: str | None = None,
    drain_s: float | None = None,
    out: TextIO = sys.stdout,
    err: TextIO = sys.stderr,
) -> int:
    """
    Go on with the batch *name*; with *retry_failed* also run again what did not succeed. The exit code.

    One that is finished sends nothing, and exits as it did.

    Raises:
        RunnerError: as `runner.execute.execute` does.
    """
    folder = batch.find(name, batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=output_dir))
    options = Options.of_batch(
        folder,
        retry_failed=retry_failed,
        accept_changes=accept_changes,
        local_url=local_url,
        token_env=token_env,
        drain_s=drain_s,
    )
    ended = None if accept_changes else _ended(folder, retry_failed=retry_failed)
    if ended is None:
        return run_batch(options, style, out=out, err=err)
    tell(ended, style, out, err)
    return ended.exit_code


def _ended(folder: batch.Folder, *, retry_failed: bool) -> Batch | None:
    """The batch as it ended; None when there is something to go on with."""
    if progress(folder).unfinished:
        return None
    with Ledger.read_only(folder.ledger) as ledger:
        if ledger.noted("verdict") is None or (retry_failed and next(ledger.unsuccessful(), None)):
            return None
        health = report.fold(ledger, report.told(ledger, folder))
    verdict = Verdict(health["verdict"])
    return Batch(folder, verdict, EXIT_CODES[verdict], health)
