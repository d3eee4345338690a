"""``runner run --ray``: a batch in shards on a Ray cluster, and what they came to together."""

import asyncio
import secrets
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from runner import batch, extras, locations, on_ray, shards_folder
from runner.check import open_job_file
from runner.commands import shards
from runner.commands.run import Style
from runner.errors import EXIT_INTERRUPTED, UsageError
from runner.narrow import narrowed
from runner.options import Options
from runner.progress import say
from runner.shards import Shard, check_batch_id
from runner.shards_folder import Common
from runner.shards_share import divided


def run(
    options: Options,
    style: Style,
    *,
    address: str,
    of: int,
    batch_id: str | None = None,
    out: TextIO = sys.stdout,
    err: TextIO = sys.stderr,
) -> int:
    """
    Run the job file of *options* in *of* shards on the Ray cluster at *address*, and say what came of it. *batch_id* is
    what they call the batch; None: what nobody has called one yet.

    Returns:
        The exit code of all shards together.

    Raises:
        RunnerError: the file, its data or the options are wrong, or no cluster answers: nothing was sent.
    """
    if not extras.is_there("ray"):
        raise UsageError("--ray needs ray, which is not installed", fix=extras.RAY)
    job_file = open_job_file(
        options.file, overrides=options.overrides, only=options.only, profile=options.profile, env_required=True
    )
    job_file = narrowed(job_file, rows=options.rows, where=options.where)
    divided(job_file, Shard.checked(1, of), options.only)  # what no shard could do is said once, and here
    outputs = batch.outputs_root(job_file.path, dir_in_file=job_file.outputs.dir, output_dir=options.output_dir)
    new = f"ray-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"
    batch_id = new if batch_id is None else check_batch_id(batch_id)
    common = outputs / job_file.name / batch_id
    url = locations.url_of(common)
    if not options.resume and _has_begun(common, url):
        raise UsageError(
            f"batch {batch_id} has begun, in {locations.shown(common)}",
            fix="go on with it with --resume, or leave --batch-id out for a new one",
        )
    # A node has its own folder for what is elsewhere.
    where = outputs.absolute() if url is None else Path(locations.shown(outputs))
    options = replace(options, file=options.file.absolute(), output_dir=where, batch_id=batch_id)
    options = replace(options, resume=True, echo=None)  # a task that Ray starts again goes on
    if not style.quiet:
        say(f"running {job_file.name} {batch_id} in {of} shards on Ray", err)
    mark = None
    if url is None:
        batch.prepare(common)
        mark = on_ray.Mark(common / ".ray", secrets.token_hex(16))
        mark.write()
    ends = asyncio.run(on_ray.run(options, mark, address=address, of=of, quiet=style.quiet, err=err))
    found = shards_folder.find(str(common), outputs) if url is None else _fetched(url)
    if found is None:  # no shard began, and each has said why
        return max((end.code for end in ends if end.code is not None), default=EXIT_INTERRUPTED)
    code = shards.say_end(found, style, out, err)
    if found.left and any(end.code is None or end.code == EXIT_INTERRUPTED for end in ends):
        return EXIT_INTERRUPTED
    return code


def _has_begun(common: Path, url: str | None) -> bool:
    if url is None:
        return (common / "shards").exists()
    from runner.remote.reading import has_shards

    return has_shards(url)


def _fetched(url: str) -> Common | None:
    """The shards at *url*; None where none has begun."""
    from runner.remote.reading import find, has_shards

    if not has_shards(url):
        return None
    found = find(url, None)
    return shards_folder.read(found.path) if any(found.path.glob("shards/*/ledger.sqlite")) else None
