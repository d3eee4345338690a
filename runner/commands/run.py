"""``runner run``: carry a job file to its end, with signals and a progress display around it."""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from typing import TextIO

from runner.errors import EXIT_INTERRUPTED, EXIT_PASS, EXIT_TERMINATED
from runner.execute import Batch, execute
from runner.live import Live
from runner.options import Options
from runner.progress import say, show
from runner.summary import summary
from runner.values import dump

SECOND_S = 1.0
"""A second Ctrl-C within this time is the same wish as the first: a key that bounces must not cancel paid jobs."""


@dataclass(frozen=True)
class Style:
    """How to speak: *quiet* says nothing when all is well, *as_json* prints the health report on stdout."""

    quiet: bool = False
    as_json: bool = False


def run(options: Options, style: Style, *, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> int:
    """
    Run the job file of *options* and say what came of it; the exit code.

    Raises:
        RunnerError: as `execute` does.
    """
    return asyncio.run(_run(options, style, out, err))


async def _run(options: Options, style: Style, out: TextIO, err: TextIO) -> int:
    signals = Signals(options.drain_s, err)
    display: list[asyncio.Task[None]] = []

    def watch(live: Live) -> None:
        signals.install(live)
        if not style.quiet and not style.as_json:
            display.append(asyncio.create_task(show(live, err), name="display"))

    try:
        batch = await execute(options, watch=watch)
    finally:
        signals.remove()
        for task in display:
            task.cancel()
            await asyncio.wait([task])
    _tell(batch, style, out, err)
    if batch.exit_code == EXIT_INTERRUPTED and signals.last not in (None, signal.SIGINT):
        return EXIT_TERMINATED
    return batch.exit_code


def _tell(batch: Batch, style: Style, out: TextIO, err: TextIO) -> None:
    for refusal in batch.refusals:
        say(refusal.render(), err)
    if style.as_json:
        say(dump(batch.health).decode(), out)
    elif not style.quiet or batch.exit_code != EXIT_PASS:
        say(summary(batch.health, str(batch.folder.path)), err if style.quiet else out)
    if batch.health["batch"]["pending"] and not style.as_json:
        say("  go on with --resume", err)


class Signals:
    """
    What a signal does to a batch.

    The first starts nothing more and follows what runs for a while. A Ctrl-C at least a second after that cancels at
    RunPod what is in flight; one more ends the process at once. SIGTERM and SIGHUP never cancel.
    """

    def __init__(self, drain_s: float, err: TextIO) -> None:
        self.last: signal.Signals | None = None
        self._drain_s = drain_s
        self._err = err
        self._live: Live | None = None
        self._at_s = 0.0
        self._cancelled = False

    def install(self, live: Live) -> None:
        """Let signals speak to *live*."""
        self._live = live
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._take, number)

    def remove(self) -> None:
        """Give the signals back."""
        if self._live is not None:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _take(self, number: signal.Signals) -> None:
        assert self._live is not None
        now_s = asyncio.get_running_loop().time()
        since_s, self._at_s = now_s - self._at_s, now_s
        first, self.last = self.last is None, number
        if first:
            self._live.drain(self._drain_s)
            flying = self._live.tally.in_flight
            self._say(f"{number.name}: starting nothing more; following {flying} in flight for {self._drain_s:g}s")
            self._say("  Ctrl-C again cancels them at RunPod; a resume goes on with them otherwise")
        elif number is signal.SIGINT and self._cancelled and since_s >= SECOND_S:
            self._say("leaving at once; --resume goes on from the ledger")
            os._exit(EXIT_INTERRUPTED)
        elif number is signal.SIGINT and since_s >= SECOND_S:
            self._cancelled = True
            self._say(f"cancelling {self._live.tally.in_flight} at RunPod")
            self._live.cancel()

    def _say(self, text: str) -> None:
        say(text, self._err)
