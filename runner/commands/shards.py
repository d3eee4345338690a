"""Go on with what is left of a batch in shards, and say what all of them came to together."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TextIO

from runner import locations, shards_folder, shards_told
from runner.commands.run import Style, tell
from runner.commands.run import run as run_batch
from runner.errors import EXIT_FAIL, EXIT_INTERRUPTED, EXIT_PASS, EXIT_REFUSED, EXIT_TERMINATED, BatchBusy, UsageError
from runner.execute import EXIT_CODES, Batch, ended
from runner.options import Options
from runner.progress import say
from runner.shards_folder import Common, Part, Standing
from runner.states import Verdict


def resume(common: Common, style: Style, how: Mapping[str, Any], *, out: TextIO, err: TextIO) -> int:
    """
    Go on with all shards of *common* that are left, one after another, and start those that are missing. *how* is for
    each of them. A shard that runs elsewhere is left to itself.

    Returns:
        The exit code of the whole; that of a shard that was interrupted or refused, at which it ends.

    Raises:
        RunnerError: as `runner.execute.execute` does.
    """
    is_elsewhere = locations.is_looked_at(common.path)
    for one in common.parts:
        if one.standing is Standing.RUNNING and not (is_elsewhere and how["take_over"]):
            if is_elsewhere:
                say(f"shard {one.shard} is left to the process that runs it; --take-over is for one that is dead", err)
            continue
        if one.standing is Standing.ENDED and not _again(one, how):
            continue
        options = _options(common, one, how)
        say(f"going on with shard {one.shard}, which is {one.standing}", err)
        try:
            code = run_batch(options, Style(quiet=True, shows_progress=False), out=out, err=err)
        except BatchBusy as busy:  # somebody has just gone on with it
            say(busy.render(), err)
            continue
        if code in (EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_REFUSED):
            return code
    return say_end(as_now(common), style, out, err)


def as_now(common: Common) -> Common:
    """
    *common* as it is by now, wherever it is.

    Raises:
        RunnerError: it can't be read any more.
    """
    if locations.is_looked_at(common.path):
        from runner.remote.reading import find

        find(locations.shown(common.path), None)
    return shards_folder.read(common.path)


def say_end(common: Common, style: Style, out: TextIO, err: TextIO) -> int:
    """Say what all shards of *common* came to together, unless it is all well and nobody wants to hear it; the code."""
    with shards_told.opened(common) as whole:
        verdict = whole.health["verdict"]
        is_over = verdict in set(Verdict)
        came_to = Verdict(verdict) if is_over else Verdict.INTERRUPTED
        code = EXIT_CODES[came_to] if is_over else EXIT_FAIL
        tell(Batch(whole.folder, came_to, code, shards_told.as_json(common, whole.health)), style, out, err)
        if not style.as_json and (not style.quiet or code != EXIT_PASS):
            say("\n".join(shards_told.said(common)), err if style.quiet or style.sums_up_as_json else out)
    return code


def _again(part: Part, how: Mapping[str, Any]) -> bool:
    """Whether there is something to go on with in *part*, which has ended."""
    return how["accept_changes"] or ended(part.folder, retry_failed=how["retry_failed"]) is None


def _options(common: Common, part: Part, how: Mapping[str, Any]) -> Options:
    """What goes on with *part*, or starts it as those were that are there."""
    if part.manifest is not None:
        return Options.of_batch(part.folder, **how)
    like = common.there[0]
    assert like.manifest is not None
    if not common.is_in_place:
        raise UsageError(
            f"shard {part.shard} is missing, and {locations.shown(common.path)} is a copy: it would be made elsewhere",
            fix=f"start it where it belongs, then copy its folder here: {common.start(part)}",
        )
    return replace(
        Options.of_batch(like.folder, **how),
        batch=None,
        shard=part.shard,
        output_dir=common.outputs,
        fresh=like.manifest["fresh"],
        resume=True,
        retry_failed=False,
        accept_changes=False,
    )
