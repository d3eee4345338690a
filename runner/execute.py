"""
Run one job file, from its text to its health report: what the command and notebooks call.

Installs no signal handlers, and prints nothing unless it is asked to.
"""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner import batch, locations, results
from runner.batch import Folder
from runner.clock import Clock, SystemClock
from runner.errors import (
    EXIT_FAIL,
    EXIT_INTERRUPTED,
    EXIT_PASS,
    EXIT_REFUSED,
    EndpointRefused,
    JobFileError,
    UsageError,
)
from runner.options import Options
from runner.records import record
from runner.row_slice import RowSlice
from runner.states import Verdict
from runner.values import JsonObject

if TYPE_CHECKING:
    from runner.check import JobFile
    from runner.conduct import Ended
    from runner.live import Live
    from runner.plan import Plan
    from runner.remote.hold import Hold

# Whoever asks only how a batch ended does not wait for the imports of what would run it: they are in the functions.

EXIT_CODES = {
    Verdict.PASS: EXIT_PASS,
    Verdict.FAIL: EXIT_FAIL,
    Verdict.STOPPED: EXIT_FAIL,
    Verdict.INTERRUPTED: EXIT_INTERRUPTED,
    Verdict.REFUSED: EXIT_REFUSED,
}


@record(frozen=True)
class Batch:
    """
    A batch that has come to its end, for now. *health* is the object of health.json.

    *notes* are what a person has to know of older ones, which should have been removed.
    """

    folder: Folder
    verdict: Verdict
    exit_code: int
    health: JsonObject
    refusals: tuple[EndpointRefused, ...] = ()
    notes: tuple[str, ...] = ()

    def results(self) -> Iterator[JsonObject]:
        """The settled runs, as results.jsonl has them, in the order of settling."""
        return results.read(self.folder.results) if self.folder.results.exists() else iter(())


Watch = Callable[["Live"], None]


async def run(
    file: str | Path,
    *,
    jobs: Sequence[str] = (),
    vars: Mapping[str, str] | None = None,
    profile: str | None = None,
    limit: int | None = None,
    rows: str | None = None,
    where: str | None = None,
    output_dir: str | Path | None = None,
    resume: bool = False,
    fresh: bool = False,
    local_url: str | None = None,
    progress: bool = False,
) -> Batch:
    """
    Run the job file *file* to its end: what notebooks and tests call. Installs no signal handlers, and prints nothing
    unless it is asked to.

    Args:
        file: The job file.
        jobs: Jobs to run; empty: all.
        vars: Values for the file's `vars`, as text; they take the type that the file has.
        profile: The file's profile to use; None: the file as it is without any.
        limit: At most this many runs of each job.
        rows: The slice of each job's rows to run, such as ``10:20``; they count from 0, after the file's own choice.
        where: An expression that rows must satisfy in addition to the file's.
        output_dir: The folder for batches; None: as the job file says.
        resume: Go on with the newest unfinished batch, if there is one.
        fresh: Start a new batch beside an unfinished one, and take no result from an earlier one (``reuse``).
        local_url: The base URL of ``runner serve``; its token is read from RUNNER_LOCAL_TOKEN.
        progress: Say on stderr how far it is: a line now and then, as a notebook shows it; on a terminal a table.

    Raises:
        RunnerError: what `execute` raises. That runs failed is no error: it is the batch's verdict.
    """
    options = Options(
        Path(file),
        only=tuple(jobs),
        overrides=dict(vars or {}),
        profile=profile,
        limit=limit,
        rows=None if rows is None else RowSlice.parse(rows),
        where=where,
        output_dir=None if output_dir is None else Path(output_dir),
        resume=resume,
        fresh=fresh,
        local_url=local_url,
    )
    if not progress:
        return await execute(options)
    from runner.progress import Display, showing

    async with showing(Display(sys.stderr)) as show:
        return await execute(options, watch=show)


async def execute(options: Options, *, watch: Watch | None = None, clock: Clock | None = None) -> Batch:
    """
    Run a job file to its end.

    Args:
        options: What to run.
        watch: Called once with the live batch, before the first run starts.
        clock: Time and chance; None: the machine's.

    Raises:
        JobFileError: the file or its data is invalid.
        UsageError: the options don't fit the file, the folder, or an unfinished batch.
        BatchBusy: another process is running a batch of this job file.
        RecordError: the batch folder can't be written any more.
    """
    from runner import shards_folder
    from runner.conduct import Conduct
    from runner.narrow import narrowed
    from runner.shards_share import divided
    from runner.stdin import keep_stdin

    clock = clock or SystemClock()
    job_file = narrowed(_job_file(options), rows=options.rows, where=options.where)
    if options.shard is not None:
        job_file = divided(job_file, options.shard, options.only)
    root = _root(options, job_file)
    if options.batch is not None:  # where it is elsewhere, what was looked at is not what is written to
        options = replace(options, batch=Folder(locations.written(options.batch.path)))
    batch.prepare(root)
    async with AsyncExitStack() as stack:
        lock = stack.enter_context(batch.lock(root, now=clock.now()))
        hold = None if locations.url_of(root) is None else await _held(options, job_file, root, stack)
        resumed = None if hold is not None and hold.is_over else _resumed(options, root, job_file.name)
        if resumed is None and options.resume and hold is not None:
            resumed = hold.left  # all is settled, and not all of it is there
        if resumed is not None:
            resumed.drop_wish()  # of a process that is gone: it was not heeded
            lock.runs(resumed)  # from here on a wish is for us, however long the data take to read
            # A shard is started anew under another id, so whoever starts it again gets its end. Of one that is
            # elsewhere and is not all there the rest is sent first.
            is_asked = options.shard is not None and options.batch is None and (hold is None or hold.left is None)
            if is_asked and (so_far := ended(resumed)) is not None:
                return so_far
        made = batch.create(root, now=clock.now()) if resumed is None and job_file.reads_stdin(options.only) else None
        try:
            if made is not None and options.repeat is not None:
                from runner import repeat

                repeat.copy_stdin(options.repeat, made.stdin)
            elif made is not None:
                await keep_stdin(made.stdin)
            folder = resumed or made
            plan = _plan(options, job_file, resumed, stdin=folder.stdin if folder is not None else None)
            if options.repeat is not None:
                from runner import repeat

                repeat.check_inputs(options.repeat, plan=plan, accepted=options.accept_changes)
        except BaseException:
            if made is not None:  # nothing was sent: it is no batch yet
                shutil.rmtree(made.path, ignore_errors=True)
            raise
        other = None
        if resumed is None and options.shard is not None:
            made = shards_folder.prepared(root)
            other = None if hold is None else await hold.other_shard(made)
            if other is not None:
                shards_folder.check_count(root.parent.parent, options.shard, other[0])
        conduct = Conduct(options, job_file, plan, clock, lock, stack, hold, other_shard=other)
        end = await conduct.run(root, resumed, watch, made=made)
        notes = await _keep(job_file, end)  # while the lock is held, and the log is open
    return Batch(end.folder, end.verdict, EXIT_CODES[end.verdict], end.health, end.refusals, notes)


def ended(folder: Folder, *, retry_failed: bool = False) -> Batch | None:
    """
    The batch in *folder* as it ended; None when there is something to go on with. With *retry_failed* there is also
    where a run did not succeed.
    """
    from runner import report
    from runner.ledger import Ledger
    from runner.resume import progress

    if progress(folder).unfinished:
        return None
    with Ledger.read_only(folder.ledger) as ledger:
        if ledger.noted("verdict") is None or (retry_failed and next(ledger.unsuccessful(), None)):
            return None
        health = report.fold(ledger, report.told(ledger, folder))
    verdict = Verdict(health["verdict"])
    return Batch(folder, verdict, EXIT_CODES[verdict], health)


async def _keep(job_file: "JobFile", ended: "Ended") -> tuple[str, ...]:
    """Remove older batches as the job file says, unless this one is to be gone on with; what was left, in words."""
    keep = job_file.outputs.keep
    is_asked = keep.succeeded is not None or keep.failed is not None
    if not is_asked or ended.verdict in (Verdict.INTERRUPTED, Verdict.REFUSED):
        return ()
    import asyncio

    from runner.keep import apply

    return tuple(await asyncio.to_thread(apply, keep, ended.folder))


def _job_file(options: Options) -> "JobFile":
    """
    The job file; to cancel or to repeat a batch, as that was started with it: what was sent has to end whatever the
    file says now.
    """
    from runner.check import open_job_file

    if options.cancel and options.batch is not None:
        from runner.recorded import recorded

        return recorded(options.batch.read_manifest())
    if options.repeat is not None:
        from runner import repeat

        repeat.check_inputs(options.repeat, accepted=options.accept_changes)
        return repeat.job_file(options.repeat.read_manifest(), options.only)
    return open_job_file(
        options.file, overrides=options.overrides, only=options.only, profile=options.profile, env_required=True
    )


def _root(options: Options, job_file: "JobFile") -> Path:
    """The folder that holds the batches of *job_file*; that of a shard, which is the only one in it."""
    if (known := options.batch or options.repeat) is not None:
        return locations.written(known.lock)
    dir_in_file = job_file.outputs.dir
    root = batch.outputs_root(job_file.path, dir_in_file=dir_in_file, output_dir=options.output_dir) / job_file.name
    if options.shard is None:
        return root
    from runner.shards_folder import check_room, folder_of

    assert options.batch_id is not None  # whoever asks for a shard says of which batch
    check_room(root / options.batch_id, options.shard)
    return folder_of(root, options.batch_id, options.shard)


async def _held(options: Options, job_file: "JobFile", root: Path, stack: AsyncExitStack) -> "Hold":
    """The remote folder that *root* stands for, fetched as far as needed."""
    from runner.needs import needed
    from runner.remote.hold import hold

    held = await stack.enter_async_context(hold(root, take_over=options.take_over))
    if options.shard is not None:  # its jobs need no others, and reuse only what this machine has
        await (held.fetch_shard(Folder(root)) if options.batch is None else held.fetch(options.batch, artifacts=False))
        return held
    if any(job.reuse != "never" for job in job_file.jobs.values()):
        await held.fetch_all()
    # Runs that are made of others read the files of those.
    artifacts = any(needed(job) for job in job_file.jobs.values())
    if options.batch is not None:
        await held.fetch(options.batch, artifacts=artifacts)
    elif not options.fresh:
        await held.fetch_newest(artifacts=artifacts)
    return held


def _plan(options: Options, job_file: "JobFile", resumed: Folder | None, *, stdin: Path | None) -> "Plan":
    """The plan; one without runs where the data can't be read, if all that is wanted is to cancel what was sent."""
    from runner.drift import same_plan
    from runner.plan import make_plan, no_plan

    try:
        if resumed is not None:
            told = resumed.read_manifest()
            if (plan := same_plan(told, job_file, options.chosen, only=options.only, stdin=stdin)) is not None:
                return plan
        return make_plan(job_file, only=options.only, limit=options.limit, stdin=stdin)
    except (JobFileError, UsageError):
        if not options.cancel:
            raise
        return no_plan(job_file, only=options.only, limit=options.limit)


def _resumed(options: Options, root: Path, name: str) -> Folder | None:
    """
    The batch to go on with; None to start a new one.

    Raises:
        UsageError: an unfinished one stands in the way.
    """
    from runner.resume import newest_unfinished

    if options.batch is not None:
        return options.batch
    if options.shard is not None:
        from runner.shards_folder import begun_in

        return begun_in(root, is_resumed=options.resume)
    begun = None if options.fresh else newest_unfinished(root)
    if begun is None:
        return None
    folder, so_far = begun
    if not options.resume and not so_far.unfinished:
        return None  # killed after its last run: only its report is missing, which is in nobody's way
    if not options.resume:
        raise UsageError(
            f"batch {folder.id} of {name!r} is unfinished: {so_far.unfinished} of {so_far.planned} runs"
            " are not settled",
            fix="go on with it with --resume, or start a new one beside it with --fresh",
        )
    return folder
