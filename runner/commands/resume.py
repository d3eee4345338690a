"""``runner resume``: go on with one batch, whichever it is."""

import sys
from pathlib import Path
from typing import TextIO

from runner import batch, locations, shards_folder
from runner.commands.run import Style, tell
from runner.commands.run import run as run_batch
from runner.execute import ended as ended_as
from runner.options import Options


def resume(
    name: str,
    style: Style,
    *,
    output_dir: Path | None = None,
    retry_failed: bool = False,
    accept_changes: bool = False,
    take_over: bool = False,
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
    outputs = batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=output_dir)
    how = {
        "retry_failed": retry_failed,
        "accept_changes": accept_changes,
        "take_over": take_over,
        "local_url": local_url,
        "token_env": token_env,
        "drain_s": drain_s,
    }
    if (common := shards_folder.find(name, outputs)) is not None:
        from runner.commands.shards import resume as resume_shards

        return resume_shards(common, style, how, out=out, err=err)
    folder = batch.find(name, outputs)
    options = Options.of_batch(folder, **how)
    is_whole = locations.url_of(folder.path) is None or locations.is_whole(folder.path)
    ended = ended_as(folder, retry_failed=retry_failed) if is_whole and not accept_changes else None
    if ended is None:
        return run_batch(options, style, out=out, err=err)
    tell(ended, style, out, err)
    return ended.exit_code
