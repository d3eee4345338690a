"""``runner run``: carry a job file to its end, with signals and a progress display around it."""

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from runner import batch, locations, runtime
from runner.batch import Folder
from runner.errors import EXIT_INTERRUPTED, EXIT_PASS, EXIT_TERMINATED, RunnerError, UsageError
from runner.execute import Batch, execute
from runner.options import Options
from runner.plain import plain
from runner.progress import Display, say, showing
from runner.records import record
from runner.summary import sum_up, summary
from runner.values import dump

if TYPE_CHECKING:
    from runner.live import Live

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Those that end a batch in order."""

SECOND_S = 1.0
"""A second Ctrl-C within this time is the same wish as the first: a key that bounces must not cancel paid jobs."""


@record(frozen=True)
class Style:
    """
    How to speak: *quiet* says nothing when all is well, *as_json* prints the health report on stdout, *shows_progress*
    draws the batch while it runs. At its end metrics are written to *prometheus*, if that is a path, and with
    *sums_up_as_json* stdout has one line of JSON, whatever else is said on stderr.
    """

    quiet: bool = False
    as_json: bool = False
    shows_progress: bool = True
    prometheus: Path | None = None
    sums_up_as_json: bool = False


def run(options: Options, style: Style, *, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> int:
    """
    Run the job file of *options* and say what came of it; the exit code.

    Raises:
        RunnerError: as `execute` does.
    """
    return runtime.run(_run(options, style, out, err))


def repeating(name: str, options: Options) -> Options:
    """
    What runs the batch *name* again: all that was chosen is its own, how it is run is said by *options*.

    Raises:
        UsageError: there is no such batch, or *options* choose something else.
    """
    chosen = {
        "FILE": options.file != Path(),
        "--job": options.only,
        "--var": options.overrides,
        "--profile": options.profile,
        "--limit": options.limit,
        "--rows": options.rows,
        "--where": options.where,
        "--shard": options.shard,
        "--resume": options.resume,
    }
    given = [word for word, value in chosen.items() if value]
    if given:
        raise UsageError(
            f"--repeat and {given[0]} exclude each other: a batch is repeated as it was", fix="leave one out"
        )
    root = batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=options.output_dir)
    folder = batch.find(name, root)
    before = Options.of_batch(folder)
    if before.shard is not None:
        raise UsageError(
            f"batch {folder.label} is shard {before.shard}, and a shard is not repeated by itself",
            fix="run all shards again with another --batch-id",
        )
    return replace(
        before,
        batch=None,
        repeat=folder,
        fresh=True,  # else it would take what it is to make again
        accept_changes=options.accept_changes,
        local_url=options.local_url,
        token_env=options.token_env,
        drain_s=options.drain_s,
        echo=options.echo,
    )


async def _run(options: Options, style: Style, out: TextIO, err: TextIO) -> int:
    display = Display(err)
    signals = Signals(options.drain_s, display)
    async with showing(display) as show:

        def watch(live: "Live") -> None:
            runtime.settle_in()
            signals.install(live)
            for note in live.notes:  # also for cron: what is left out of a batch is not all well
                say(note, err)
            for hint in () if style.quiet else live.hints:
                say(hint, err)
            if style.shows_progress and not style.quiet and not style.as_json:
                show(live)

        try:
            ended = await execute(options, watch=watch)
        finally:
            signals.remove()
    if ended.exit_code == EXIT_INTERRUPTED and signals.last not in (None, signal.SIGINT):
        ended = replace(ended, exit_code=EXIT_TERMINATED)
    tell(ended, style, out, err)
    if options.repeat is not None:
        _compare(options.repeat, ended.folder, style, out, err)
    return ended.exit_code


def _compare(before: Folder, now: Folder, style: Style, out: TextIO, err: TextIO) -> None:
    """Say whether the batch in *now* gave what that in *before* did, unless it did and nobody wants to hear it."""
    from runner.repeat import compare

    try:
        found = compare(before, now)
    except RunnerError as error:  # the batch has ended, and is as it is
        say(error.render(), err)
        return
    if found.other or found.alone or not style.quiet:
        say(found.say(), err if style.as_json or style.quiet or style.sums_up_as_json else out)


def _measure(ended: Batch, path: Path, err: TextIO) -> None:
    """Write the metrics of the batch that *ended* to *path*. Where that fails it is said, and the batch is as it is."""
    from runner import prometheus, reports
    from runner.commands.report import put

    last_success_at = reports.last_success_at(ended.folder, ended.health)
    try:
        put(path.resolve(), prometheus.document(ended.health, last_success_at=last_success_at))
    except RunnerError as error:
        say(error.render(), err)


def tell(ended: Batch, style: Style, out: TextIO, err: TextIO) -> None:
    """
    Say what came of the batch that *ended*: nothing, if it is all well and nobody wants to hear it. Metrics are
    written, too, where they are asked for.
    """
    for refusal in ended.refusals:
        say(refusal.render(), err)
    if style.as_json:
        say(dump(ended.health).decode(), out)
    elif not style.quiet or ended.exit_code != EXIT_PASS:
        told = summary(ended.health, locations.shown(ended.folder.path))
        say(told, err if style.quiet or style.sums_up_as_json else out)
    if ended.health["batch"]["pending"] and not style.as_json:
        say("  go on with --resume", err)
    for note in ended.notes:
        say(plain(note), err)
    if style.sums_up_as_json:
        say(dump(sum_up(ended.health, locations.shown(ended.folder.path), ended.exit_code)).decode(), out)
    if style.prometheus is not None:
        _measure(ended, style.prometheus, err)


class Signals:
    """
    What a signal does to a batch.

    The first starts nothing more and follows what runs for a while. A Ctrl-C at least a second after that cancels at
    RunPod what is in flight; one more ends the process at once. SIGTERM and SIGHUP never cancel.
    """

    def __init__(self, drain_s: float, display: Display) -> None:
        self.last: signal.Signals | None = None
        self._drain_s = drain_s
        self._display = display
        self._live: Live | None = None
        self._at_s = 0.0  # when the last one came that counted
        self._cancelled = False

    def install(self, live: "Live") -> None:
        """Let signals speak to *live*. One that we were started to ignore, as nohup has it, is ignored."""
        self._live = live
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._take, number)
        loop.add_signal_handler(signal.SIGCONT, self._display.went_on)

    def remove(self) -> None:
        """Give the signals back."""
        if self._live is not None:
            loop = asyncio.get_running_loop()
            for number in (*SIGNALS, signal.SIGCONT):
                loop.remove_signal_handler(number)

    def _take(self, number: signal.Signals) -> None:
        assert self._live is not None
        now_s = asyncio.get_running_loop().time()
        first, self.last = self.last is None, number
        if not first and (number is not signal.SIGINT or now_s - self._at_s < SECOND_S):
            return
        self._at_s = now_s
        flying = self._live.tally.in_flight
        if first:
            self._live.drain(self._drain_s)
            if not flying:
                self._display.say(f"{number.name}: starting nothing more; nothing is in flight")
                return
            following = f"following {flying} in flight for {self._drain_s:g}s"
            self._display.say(f"{number.name}: starting nothing more; {following}")
            self._display.say("  Ctrl-C again cancels them at RunPod; a resume goes on with them otherwise")
        elif self._cancelled:
            self._display.say("leaving at once; --resume goes on from the ledger")
            self._display.leave()
            os._exit(EXIT_INTERRUPTED)
        else:
            self._cancelled = True
            self._display.say(f"cancelling {flying} at RunPod")
            self._live.cancel()
