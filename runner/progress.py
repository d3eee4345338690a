"""Show a running batch: a live table on a terminal, plain lines elsewhere."""

import asyncio
from typing import TYPE_CHECKING, TextIO

from runner.live import Live
from runner.states import State
from runner.tally import JobTally, Tally
from runner.units import elapsed

if TYPE_CHECKING:
    from rich.table import Table

REFRESH_S = 0.25
PLAIN_EVERY_S = 30.0


def say(text: str, err: TextIO) -> None:
    """Print *text* on *err* at once. A terminal that is gone must not end a batch that somebody pays for."""
    try:
        print(text, file=err, flush=True)
    except OSError:
        return


async def show(live: Live, err: TextIO) -> None:
    """Show *live* on *err* until cancelled: redrawn in place on a terminal, a line now and then elsewhere."""
    what = f"{live.folder.path.parent.name} {live.folder.id}"
    say(f"{'going on with' if live.resumed else 'running'} {what}: {live.tally.planned} runs", err)
    began = asyncio.get_running_loop().time()
    if err.isatty():
        await _redraw(live, began, err)
    else:
        await _tell(live, began, err)


async def _tell(live: Live, began: float, err: TextIO) -> None:
    while True:
        await asyncio.sleep(PLAIN_EVERY_S)
        say(f"{elapsed(asyncio.get_running_loop().time() - began)}: {states(live.tally)}", err)


async def _redraw(live: Live, began: float, err: TextIO) -> None:
    # rich takes 0.05 s to import, and who redirects to a file never needs it.
    from rich.console import Console
    from rich.live import Live as Display

    try:
        with Display(console=Console(file=err), auto_refresh=False, transient=True) as display:
            while True:
                display.update(table(live.tally, asyncio.get_running_loop().time() - began), refresh=True)
                await asyncio.sleep(REFRESH_S)
    except OSError:
        return  # as in `say`


def table(tally: Tally, took_s: float) -> "Table":
    """A line a job, with what a person wants to know *took_s* seconds after the start."""
    from rich.table import Table

    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("job", "runs", "settled", "in flight", "succeeded", "failed", "other", "eta"):
        shown.add_column(column, justify="left" if column == "job" else "right", no_wrap=True)
    for name, job in tally.jobs.items():
        other = job.states[State.CANCELLED] + job.states[State.SKIPPED]
        ended = (job.states[State.SUCCEEDED], job.states[State.FAILED], other)
        shown.add_row(name, *map(str, (job.planned, job.settled, job.in_flight, *ended)), eta(job, took_s))
    shown.caption = f"{elapsed(took_s)}; Ctrl-C starts nothing more and follows what runs"
    shown.caption_justify = "left"
    return shown


def eta(job: JobTally, took_s: float) -> str:
    """How long *job* will still take at the pace so far, as text; empty while nothing tells."""
    settled_here = job.settled - job.settled_before
    if not settled_here or not job.pending:
        return ""
    return elapsed(took_s / settled_here * job.pending)


def states(tally: Tally) -> str:
    """The batch in a line: ``12 of 600 runs settled: 11 succeeded, 1 failed; 8 in flight``."""
    settled = [f"{tally.total(state)} {state}" for state in State if state.is_final and tally.total(state)]
    text = f"{tally.settled} of {tally.planned} runs settled"
    if settled:
        text += ": " + ", ".join(settled)
    return text + (f"; {tally.in_flight} in flight" if tally.in_flight else "")
