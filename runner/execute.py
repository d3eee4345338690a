"""
Run one job file, from its text to its health report: what the command and notebooks call.

Installs no signal handlers and prints nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from runner import batch, results
from runner.batch import Folder
from runner.check import not_run, open_job_file
from runner.clock import Clock, SystemClock
from runner.conduct import Conduct
from runner.errors import (
    EXIT_FAIL,
    EXIT_INTERRUPTED,
    EXIT_PASS,
    EXIT_REFUSED,
    EndpointRefused,
    JobFileError,
    UsageError,
)
from runner.live import Live
from runner.options import Options
from runner.plan import make_plan
from runner.resume import newest_unfinished
from runner.states import Verdict
from runner.values import JsonObject

EXIT_CODES = {
    Verdict.PASS: EXIT_PASS,
    Verdict.FAIL: EXIT_FAIL,
    Verdict.STOPPED: EXIT_FAIL,
    Verdict.INTERRUPTED: EXIT_INTERRUPTED,
    Verdict.REFUSED: EXIT_REFUSED,
}


@dataclass(frozen=True)
class Batch:
    """A batch that has come to its end, for now. *health* is the object of health.json."""

    folder: Folder
    verdict: Verdict
    exit_code: int
    health: JsonObject
    refusals: tuple[EndpointRefused, ...] = ()

    def results(self) -> Iterator[JsonObject]:
        """The settled runs, as results.jsonl has them, in the order of settling."""
        return results.read(self.folder.results) if self.folder.results.exists() else iter(())


Watch = Callable[[Live], None]


async def run(
    file: str | Path,
    *,
    jobs: Sequence[str] = (),
    vars: Mapping[str, str] | None = None,
    limit: int | None = None,
    output_dir: str | Path | None = None,
    resume: bool = False,
    fresh: bool = False,
    local_url: str | None = None,
) -> Batch:
    """
    Run the job file *file* to its end: what notebooks and tests call. Installs no signal handlers and prints nothing.

    Args:
        file: The job file.
        jobs: Jobs to run; empty: all.
        vars: Values for the file's `vars`, as text; they take the type that the file has.
        limit: At most this many runs of each job.
        output_dir: The folder for batches; None: as the job file says.
        resume: Go on with the newest unfinished batch, if there is one.
        fresh: Start a new batch beside an unfinished one.
        local_url: The base URL of ``runner serve``; its token is read from RUNNER_LOCAL_TOKEN.

    Raises:
        RunnerError: what `execute` raises. That runs failed is no error: it is the batch's verdict.
    """
    options = Options(
        Path(file),
        only=tuple(jobs),
        overrides=dict(vars or {}),
        limit=limit,
        output_dir=None if output_dir is None else Path(output_dir),
        resume=resume,
        fresh=fresh,
        local_url=local_url,
    )
    return await execute(options)


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
    clock = clock or SystemClock()
    job_file = open_job_file(options.file, overrides=options.overrides, only=options.only, env_required=True)
    if problems := not_run(job_file, options.only):
        raise JobFileError(problems)
    root = batch.outputs_root(job_file.path, dir_in_file=job_file.outputs.dir, output_dir=options.output_dir)
    root /= job_file.name
    batch.prepare(root)
    async with AsyncExitStack() as stack:
        stack.enter_context(batch.lock(root, now=clock.now()))
        begun = None if options.fresh else newest_unfinished(root)
        if begun is not None and not options.resume:
            folder, so_far = begun
            raise UsageError(
                f"batch {folder.id} of {job_file.name!r} is unfinished: {so_far.unfinished} of {so_far.planned} runs"
                " are not settled",
                fix="go on with it with --resume, or start a new one beside it with --fresh",
            )
        plan = make_plan(job_file, only=options.only, limit=options.limit)
        conduct = Conduct(options, job_file, plan, clock, stack)
        ended = await conduct.run(root, begun[0] if begun else None, watch)
    return Batch(ended.folder, ended.verdict, EXIT_CODES[ended.verdict], ended.health, ended.refusals)
