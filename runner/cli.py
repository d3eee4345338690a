"""Parse the command line, call one command, turn what comes of it into an exit code."""

import copy
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypedDict

import typer

from runner import exit_codes
from runner.errors import EXIT_BUG, EXIT_INTERRUPTED, RunnerError, UsageError

if TYPE_CHECKING:
    from runner.row_slice import RowSlice
    from runner.shards_auto import Place

# Heavy imports happen inside the commands: `runner --help` answers in a quarter of a second.

app = typer.Typer(
    name="runner",
    no_args_is_help=True,
    add_completion=False,
    # Locals in a traceback could show a key.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A declarative, YAML-driven job runner for RunPod's serverless endpoints.",
    epilog=exit_codes.short(),
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The job file.", show_default=False)]
Var = Annotated[list[str], typer.Option("--var", metavar="K=V", help="Override a variable of the file.")]
Only = Annotated[list[str], typer.Option("--job", metavar="NAME", help="Only this job; may be repeated.")]
Profile = Annotated[str | None, typer.Option("--profile", metavar="NAME", help="Use this profile of the file.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="At most N runs of each job.")]
Rows = Annotated[
    str | None, typer.Option("--rows", metavar="FROM:TO", help="Only these rows of each job, from 0; 5: or :3, too.")
]
Where = Annotated[
    str | None, typer.Option(metavar="EXPR", help="Only rows where this is true, too, such as row.lang == 'en'")
]
Format = Annotated[str, typer.Option("--format", metavar="text|json", help="What to print on stdout.")]
OutputDir = Annotated[
    Path | None, typer.Option(metavar="D", help="The folder for batches, from the working directory.")
]
Local = Annotated[
    str | None, typer.Option("--local", metavar="URL", help="Use the endpoint that 'runner serve' serves at URL.")
]


TokenEnv = Annotated[str, typer.Option(metavar="NAME", help="The environment variable with the token for --local.")]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Of a remote folder: write to it though its lease has another holder.")
]
Drain = Annotated[str, typer.Option(metavar="DURATION", help="After a first signal, follow what runs for so long.")]
AcceptChanges = Annotated[
    bool, typer.Option("--accept-changes", help="Going on, take in runs that were changed or added since.")
]
Summary = Annotated[
    str,
    typer.Option("--summary", metavar="text|json", help="json: end with one line of JSON on stdout, text on stderr."),
]
Prometheus = Annotated[
    Path | None,
    typer.Option(
        "--prometheus", metavar="PATH", help="At the end, write metrics to this .prom file for node_exporter."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing when all is well.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say the log on stderr, instead of the progress.")]
Batch = Annotated[str, typer.Argument(metavar="BATCH", help="A folder, an id, a NAME, or latest.", show_default=False)]


@app.command(epilog=exit_codes.epilog())
def run(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="The job file.", show_default=False)] = None,
    job: Only = [],  # noqa: B006 - typer makes a new list for each call
    var: Var = [],  # noqa: B006
    profile: Profile = None,
    limit: Limit = None,
    rows: Rows = None,
    where: Where = None,
    output_dir: OutputDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with this file's newest unfinished batch.")] = False,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Start a new batch, also beside an unfinished one, in which nothing is reused."),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="K/N|auto", help="Only part K of N of the runs; auto asks Slurm, Kubernetes."),
    ] = None,
    batch_id: Annotated[
        str | None, typer.Option("--batch-id", metavar="ID", help="What all shards of one batch call it: its folder.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="local|ADDRESS", help="Run all shards on this Ray cluster; see --shards."),
    ] = None,
    shards: Annotated[
        int | None, typer.Option("--shards", min=1, metavar="N", help="With --ray: in so many shards.")
    ] = None,
    repeat: Annotated[
        str | None,
        typer.Option("--repeat", metavar="BATCH", help="Instead of FILE: run this batch again, as a new one."),
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Going on or repeating, take in what was changed or added since.")
    ] = False,
    take_over: TakeOver = False,
    local: Local = None,
    token_env: TokenEnv = "RUNNER_LOCAL_TOKEN",
    drain: Drain = "25s",
    prometheus: Prometheus = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    summary: Summary = "text",
    format_: Format = "text",
) -> int:
    """Run a job file, or again what a batch ran, to its end."""
    from runner.commands.run import Style, repeating
    from runner.commands.run import run as command
    from runner.options import Options

    if quiet and verbose:
        raise UsageError("--quiet and -v exclude each other", fix="leave one out")
    if resume and fresh:
        raise UsageError("--resume and --fresh exclude each other", fix="leave one out")
    if file is None and repeat is None:
        raise UsageError("there is no job file to run", fix="write runner run FILE, or runner run --repeat BATCH")
    if (ray is None) != (shards is None) or (ray is not None and (shard is not None or repeat is not None)):
        raise UsageError(
            "--ray and --shards come together, without --shard and --repeat", fix="write --ray local --shards 4"
        )
    place = None if ray is not None else _place(shard, batch_id)
    options = Options(
        file=file or Path(),
        only=tuple(job),
        overrides=_overrides(var),
        profile=profile,
        limit=limit,
        rows=_rows(rows),
        where=where,
        output_dir=output_dir,
        resume=resume,
        fresh=fresh,
        take_over=take_over,
        shard=None if place is None else place.shard,
        batch_id=None if place is None else place.batch_id,
        accept_changes=accept_changes,
        local_url=local,
        token_env=token_env,
        drain_s=_duration("--drain", drain),
        echo=sys.stderr if verbose else None,
    )
    if repeat is not None:
        options = repeating(_batch(repeat, output_dir), options)
    ends = _ends(format_, summary, prometheus)
    style = Style(quiet=quiet, shows_progress=not verbose, **ends)
    if ray is not None and shards is not None:
        from runner.commands.ray import run as run_on_ray

        return run_on_ray(options, style, address=ray, of=shards, batch_id=batch_id)
    return command(options, style)


@app.command()
def resume(
    batch: Batch,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also run again what did not succeed; it may be paid for again.")
    ] = False,
    accept_changes: AcceptChanges = False,
    take_over: TakeOver = False,
    output_dir: OutputDir = None,
    local: Local = None,
    token_env: TokenEnv = "RUNNER_LOCAL_TOKEN",
    drain: Drain = "25s",
    prometheus: Prometheus = None,
    quiet: Quiet = False,
    summary: Summary = "text",
    format_: Format = "text",
) -> int:
    """Go on with one batch; a finished one sends nothing."""
    from runner.commands.resume import resume as command
    from runner.commands.run import Style

    return command(
        _batch(batch, output_dir),
        Style(quiet=quiet, **_ends(format_, summary, prometheus)),
        output_dir=output_dir,
        retry_failed=retry_failed,
        accept_changes=accept_changes,
        take_over=take_over,
        local_url=local,
        token_env=token_env,
        drain_s=_duration("--drain", drain),
    )


@app.command()
def cancel(
    batch: Batch,
    take_over: TakeOver = False,
    output_dir: OutputDir = None,
    token_env: TokenEnv = "RUNNER_LOCAL_TOKEN",
    format_: Format = "text",
) -> int:
    """End a batch for good: cancel its jobs at RunPod, skip what was never sent."""
    from runner.commands.cancel import cancel as command

    return command(
        _batch(batch, output_dir),
        output_dir=output_dir,
        take_over=take_over,
        token_env=token_env,
        as_json=_is_json(format_),
    )


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The job files.", show_default=False)],
    var: Var = [],  # noqa: B006
    profile: Profile = None,
    strict: Annotated[bool, typer.Option("--strict", help="An unset environment variable is an error.")] = False,
    format_: Format = "text",
) -> int:
    """Say every problem of every file; sends nothing."""
    from runner.commands.validate import validate as command

    return command(files, overrides=_overrides(var), profile=profile, strict=strict, as_json=_is_json(format_))


@app.command()
def plan(
    file: File,
    job: Only = [],  # noqa: B006
    var: Var = [],  # noqa: B006
    profile: Profile = None,
    limit: Limit = None,
    rows: Rows = None,
    where: Where = None,
    format_: Format = "text",
) -> int:
    """Show runs, payloads and an estimate; sends nothing."""
    from runner.commands.plan import plan as command

    return command(
        file,
        overrides=_overrides(var),
        only=job,
        profile=profile,
        limit=limit,
        rows=_rows(rows),
        where=where,
        as_json=_is_json(format_),
    )


@app.command()
def status(
    batch: Annotated[str, typer.Argument(metavar="[BATCH]", help="A folder, an id, a NAME, or latest.")] = "latest",
    output_dir: OutputDir = None,
    format_: Format = "text",
) -> int:
    """Show where a batch stands, live or ended."""
    from runner.commands.status import status as command

    return command(_batch(batch, output_dir), output_dir=output_dir, as_json=_is_json(format_))


FORMS = """\b
Formats:
  jsonl    lines of results.jsonl as they stand
  json     one array of them
  csv      a column for each key of rows, matrix and outputs; in a cell, lists
           and objects are JSON. No cell can become a formula: a text that begins
           with = + - @ or a control character gets an apostrophe before it
  parquet  the same columns with their types; needs 'runpod-runner[parquet]'
  openai   OpenAI's batch output: the output of each custom_id, or its error
"""


@app.command(epilog=FORMS)
def results(
    batch: Annotated[str, typer.Argument(metavar="[BATCH]", help="A folder, an id, a NAME, or latest.")] = "latest",
    job: Annotated[list[str], typer.Option("--job", metavar="NAME", help="Only this job's; may be repeated.")] = [],  # noqa: B006
    state: Annotated[
        list[str], typer.Option("--state", metavar="S", help="Only in this state, such as failed; may be repeated.")
    ] = [],  # noqa: B006
    outcome: Annotated[
        list[str], typer.Option("--outcome", metavar="O", help="Only with this outcome; may be repeated.")
    ] = [],  # noqa: B006
    where: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Only where this is true, such as output.score > 0.5")
    ] = None,
    fields: Annotated[
        str | None, typer.Option(metavar="A,B.C", help="Only these fields, such as key,row.prompt,output.score")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write to this file instead of stdout, whole or not at all.")
    ] = None,
    output_dir: OutputDir = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="jsonl|json|csv|parquet|openai", help="What to write, see below.")
    ] = "jsonl",
) -> int:
    """Filter and convert the results of a batch, live or ended."""
    from runner.commands.results import Wanted
    from runner.commands.results import results as command

    wanted = Wanted(
        jobs=job,
        states=state,
        outcomes=outcome,
        where=where,
        format=format_,
        fields=None if fields is None else [field.strip() for field in fields.split(",")],
    )
    return command(_batch(batch, output_dir), wanted, output_dir=output_dir, output=output)


@app.command()
def report(
    batch: Annotated[str, typer.Argument(metavar="[BATCH]", help="A folder, an id, a NAME, or latest.")] = "latest",
    output: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write to this file instead of report.html in its folder.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    output_dir: OutputDir = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="text|json|junit|prometheus",
            help="What to print on stdout; junit and prometheus are written in place of the page, also to --output.",
        ),
    ] = "text",
) -> int:
    """Write the report of a batch, live or ended, as one page that opens offline."""
    from runner.commands.report import write_report as command

    if format_ not in (forms := ("text", "json", "junit", "prometheus")):
        raise UsageError(f"--format is one of {', '.join(forms)}, found {format_!r}", fix="write --format junit")
    if open_ and format_ in ("junit", "prometheus"):
        raise UsageError(f"--open and --format {format_} exclude each other", fix="leave one out")
    return command(_batch(batch, output_dir), output_dir=output_dir, output=output, opens=open_, form=format_)


@app.command()
def watch(
    batch: Annotated[str, typer.Argument(metavar="[BATCH]", help="A folder, an id, a NAME, or latest.")] = "latest",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0 takes any free port.")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    output_dir: OutputDir = None,
) -> int:
    """Show the report of a batch in a browser while it runs, on this machine only."""
    from runner.commands.watch import watch as command

    return command(batch, output_dir=output_dir, port=port, opens=open_)


@app.command()
def show(
    batch: Batch,
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A key or its beginning, JOB:INDEX, or an index.", show_default=False)
    ],
    output_dir: OutputDir = None,
    format_: Format = "text",
) -> int:
    """Show one run of a batch: its input, each attempt, its output or error."""
    from runner.commands.show import show as command

    return command(_batch(batch, output_dir), run, output_dir=output_dir, as_json=_is_json(format_))


@app.command()
def verify(batch: Batch, output_dir: OutputDir = None, format_: Format = "text") -> int:
    """Say whether a batch's results and artifacts are still as they were written; changes nothing."""
    from runner.commands.verify import verify as command

    return command(_batch(batch, output_dir), output_dir=output_dir, as_json=_is_json(format_))


@app.command("list")
def list_(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only the batches of this job file's name.")
    ] = None,
    output_dir: OutputDir = None,
    format_: Format = "text",
) -> int:
    """List the batches, the newest first."""
    from runner.commands.list import list_batches as command

    return command(name, output_dir=output_dir, as_json=_is_json(format_))


@app.command()
def clean(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only the batches of this job file's name.")
    ] = None,
    keep: Annotated[int, typer.Option(min=0, metavar="N", help="Keep the newest N of each name.")] = 10,
    older_than: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Of the others, only those started longer ago, as 30d.")
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Also those that are unfinished, or can't be read.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    output_dir: OutputDir = None,
    format_: Format = "text",
) -> int:
    """Remove old batches; asks before."""
    from runner.commands.clean import Manners, Rules
    from runner.commands.clean import clean as command

    older_than_s = 0.0 if older_than is None else _duration("--older-than", older_than, example="30d")
    manners = Manners(yes=yes, dry_run=dry_run, as_json=_is_json(format_))
    return command(name, Rules(keep, older_than_s, unfinished), manners, output_dir=output_dir)


@app.command()
def health(
    file: File,
    profile: Profile = None,
    local: Local = None,
    token_env: Annotated[
        str, typer.Option(metavar="NAME", help="The environment variable with the token for --local.")
    ] = "RUNNER_LOCAL_TOKEN",
    format_: Format = "text",
) -> int:
    """Ask each endpoint how it is, and explain it."""
    from runner.commands.health import health as command

    return command(file, profile=profile, local_url=local, token_env=token_env, as_json=_is_json(format_))


@app.command()
def purge(
    file: File,
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its name in the file.", show_default=False)],
    profile: Profile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    local: Local = None,
    token_env: TokenEnv = "RUNNER_LOCAL_TOKEN",
    format_: Format = "text",
) -> int:
    """Drop every queued job of an endpoint, other clients' too."""
    from runner.commands.purge import purge as command

    return command(
        file,
        endpoint,
        confirmed=yes,
        profile=profile,
        local_url=local,
        token_env=token_env,
        as_json=_is_json(format_),
    )


BAD_DAYS = """\b
FAULT is [OPERATION:]KIND[=HOW OFTEN][,OPTION=VALUE], and the first that is due happens:
  429=5%                 one request in twenty, by chance
  run:reset_after=3      the first three submits: queued, but the answer is lost
  status:502=20/200      the first 20 of every 200 looks
  429=3,retry_after=2s   says when to come again, in seconds; retry_at=2s: as a date
  not_found=500ms        of each job, for so long after its submit
  paused=8s              in the first 8 s
  slow=1/10,over=5s      every tenth answer, in small pieces
  unknown_status=1%,shown=RUNNING
\b
Kinds that refuse a request:
  429 500 502 503 504 paused not_found reset_before
Kinds that carry it out, and spoil the answer:
  500_after 502_after 503_after 504_after reset_after slow cut wrong_type html
  unknown_status duplicate_chunk lost_chunk shifted_page batch_fails
States of the endpoint:
  cold_start=20s throttled=2 unhealthy=1 stalled=1 times_out
  batch_delay=20s batch_ids=off batch_order=failures_first batch_extra
\b
Operations of the Batch API:
  batch-create batch-append batch-remove batch-update batch-finalize batch-cancel
  batch-list batch-status batch-requests
"""


@app.command(epilog=BAD_DAYS)
def serve(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE|HANDLER", help="The job file, or a handler: PATH.py:name.", show_default=False),
    ],
    profile: Profile = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="A loopback address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0 takes any free port.")] = 0,
    token_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment variable with the token; default: a new one.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Append every accepted job to this file, as JSON lines.")
    ] = None,
    rate_limits: Annotated[
        bool,
        typer.Option("--rate-limits", help="Hold clients to RunPod's rate limits; say at the end what that refused."),
    ] = False,
    retention: Annotated[
        str, typer.Option(metavar="DURATION", help="How long results are kept; those of /runsync at most 1m.")
    ] = "30m",
    fault: Annotated[
        list[str], typer.Option(metavar="FAULT", help="Have this go wrong, see below; may be repeated.")
    ] = [],  # noqa: B006 - typer makes a new list for each call
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed and requests meet the same faults.")] = 0,
    fault_header: Annotated[
        bool, typer.Option("--fault-header", help="Let a request ask for a fault by itself: 'X-Runner-Fault: 502'.")
    ] = False,
) -> int:
    """Serve the local endpoints of a job file, or one handler, by themselves, on good days and bad ones."""
    from runner.commands.serve import Manner, Where
    from runner.commands.serve import serve as command

    manner = Manner(
        faults=tuple(fault),
        seed=seed,
        fault_header=fault_header,
        rate_limits=rate_limits,
        retention_s=_duration("--retention", retention, example="30m"),
    )
    return command(file, Where(host=host, port=port, token_env=token_env, log=log), manner, profile=profile)


@app.command()
def schedule(
    file: File,
    crontab: Annotated[bool, typer.Option("--crontab", help="Print the lines for crontab -e.")] = False,
    systemd: Annotated[bool, typer.Option("--systemd", help="Print a service and its timer.")] = False,
    k8s: Annotated[bool, typer.Option("--k8s", help="Print a CronJob and the claim for its batches.")] = False,
    env_file: Annotated[
        Path | None,
        typer.Option("--env-file", metavar="PATH", help="Has the variables; default: NAME.env beside the job file."),
    ] = None,
    mail_to: Annotated[
        str | None, typer.Option("--mail-to", metavar="ADDRESS", help="For --crontab: who is told of trouble.")
    ] = None,
    image: Annotated[str | None, typer.Option(metavar="IMAGE", help="For --k8s: has runner and the job file.")] = None,
    job: Only = [],  # noqa: B006
    var: Var = [],  # noqa: B006
    profile: Profile = None,
    output_dir: OutputDir = None,
    format_: Format = "text",
) -> int:
    """Say when a job file is to begin, or print what begins it; starts nothing."""
    from runner.commands.schedule import Wanted
    from runner.commands.schedule import schedule as command

    forms = {"crontab": crontab, "systemd": systemd, "kubernetes": k8s}
    chosen = [form for form, is_wanted in forms.items() if is_wanted]
    if len(chosen) > 1:
        raise UsageError("--crontab, --systemd and --k8s exclude each other", fix="write one of them")
    wanted = Wanted(chosen[0] if chosen else None, env_file, mail_to, image, as_json=_is_json(format_))
    return command(file, wanted, overrides=_overrides(var), only=job, profile=profile, output_dir=output_dir)


@app.command()
def schema() -> int:
    """Print the JSON Schema of job files, for editors."""
    from runner.commands.schema import schema as command

    return command()


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="The folder to write into.")] = Path(),
) -> int:
    """Write a job file, a handler, the schema and a README that run as they are."""
    from runner.commands.init import init as command

    return command(folder)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"runner {version('runpod-runner')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Nothing to do: the options act by themselves."""


def _overrides(pairs: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--var wants NAME=VALUE, found {pair!r}", fix="write --var style=ink")
        found[name] = value
    return found


def _batch(name: str, output_dir: Path | None) -> str:
    """*name*, or where one that is elsewhere was fetched to."""
    from runner.locations import url_in

    if url_in(name) is None and url_in(output_dir) is None:
        return name
    from runner.remote.reading import find

    return str(find(name, output_dir).path)


def _rows(text: str | None) -> "RowSlice | None":
    from runner.row_slice import RowSlice

    return None if text is None else RowSlice.parse(text)


def _place(shard: str | None, batch_id: str | None) -> "Place | None":
    if shard is None:
        if batch_id is not None:
            raise UsageError("--batch-id is for the shards of a batch", fix="write --shard 3/16 too, or leave it out")
        return None
    import os

    from runner.shards_auto import asked

    return asked(shard, batch_id, os.environ)


def _is_json(word: str) -> bool:
    if word not in ("text", "json"):
        raise UsageError(f"--format is text or json, found {word!r}", fix="write --format json")
    return word == "json"


class _Ends(TypedDict):
    as_json: bool
    sums_up_as_json: bool
    prometheus: Path | None


def _ends(format_: str, summary: str, prometheus: Path | None) -> _Ends:
    """What a batch leaves for programs when it ends, as the command line asks for it."""
    if summary not in ("text", "json"):
        raise UsageError(f"--summary is text or json, found {summary!r}", fix="write --summary json")
    ends = _Ends(as_json=_is_json(format_), sums_up_as_json=summary == "json", prometheus=prometheus)
    if ends["as_json"] and ends["sums_up_as_json"]:
        raise UsageError("--summary json and --format json exclude each other", fix="leave one out")
    if prometheus is not None and prometheus.suffix != ".prom":
        raise UsageError(
            f"--prometheus {prometheus}: node_exporter reads files whose names end in .prom",
            fix=f"write --prometheus {prometheus.with_suffix('.prom')}",
        )
    return ends


def _duration(option: str, text: str, *, example: str = "25s") -> float:
    from runner.units import duration_s

    try:
        return duration_s(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: {error}", fix=f"write {option} {example}") from None


def commands() -> dict[str, Any]:
    """Every command by its name, with its options, as typer has them: what the reference is made of."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def main() -> NoReturn:
    """The command ``runner``. Every error becomes its exit code here; what is no `RunnerError` is our bug."""
    try:
        code = _app(sys.argv[1:2])(standalone_mode=False)
    except RunnerError as error:
        print(error.render(), file=sys.stderr)
        code = error.exit_code
    except typer.Abort:
        code = EXIT_INTERRUPTED
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place where a bug becomes an exit code
        code = _told(error)
    sys.exit(code or 0)


def _app(first: list[str]) -> typer.Typer:
    """
    The whole command line, or only the command that its *first* word names: typer builds a parser for each, which is a
    tenth of what `runner --help` takes.
    """
    asked = [one for one in app.registered_commands if first == [one.name or getattr(one.callback, "__name__", None)]]
    if not asked:
        return app
    alone = copy.copy(app)
    alone.registered_commands = asked
    return alone


def _told(error: Exception) -> int:
    """Say what *error* is: a wrong command line in its own words, anything else as our bug, with its traceback."""
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # click's UsageError, which typer does not export
        error.show()
        return int(error.exit_code)
    from runner.secret import masked

    print(masked("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    print("this is a bug in runner; please report it with the lines above", file=sys.stderr)
    return EXIT_BUG
