"""Show a running batch: a live table on a terminal, plain lines elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TextIO

from runner.execute import Live
from runner.states import State
from runner.tally import JobTally, Tally
from runner.units import elapsed

if TYPE_CHECKING:
    from rich.table import Table

REFRESH_S = 0.25
PLAIN_EVERY_S = 30.0


@asynccontextmanager
async def shown(live: Live, err: TextIO) -> AsyncIterator[None]:
    """Show *live* on *err* while the block runs: redrawn in place on a terminal, a line now and then elsewhere."""
    what = f"{live.folder.path.parent.name} {live.folder.id}"
    print(f"{'going on with' if live.resumed else 'running'} {what}: {live.tally.planned} runs", file=err, flush=True)
    show = _redraw(live, err) if _is_terminal(err) else _tell(live, err)
    task = asyncio.create_task(show, name="progress")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _is_terminal(err: TextIO) -> bool:
    return err.isatty()


async def _tell(live: Live, err: TextIO) -> None:
    began = asyncio.get_running_loop().time()
    while True:
        await asyncio.sleep(PLAIN_EVERY_S)
        print(f"{elapsed(asyncio.get_running_loop().time() - began)}: {states(live.tally)}", file=err, flush=True)


async def _redraw(live: Live, err: TextIO) -> None:
    # rich takes 0.05 s to import, and who redirects to a file never needs it.
    from rich.console import Console
    from rich.live import Live as Display

    began = asyncio.get_running_loop().time()
    with Display(console=Console(file=err), auto_refresh=False, transient=True) as display:
        while True:
            display.update(_table(live, asyncio.get_running_loop().time() - began), refresh=True)
            await asyncio.sleep(REFRESH_S)


def _table(live: Live, took_s: float) -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("job", "runs", "done", "in flight", "succeeded", "failed", "other", "eta"):
        table.add_column(column, justify="left" if column == "job" else "right")
    for name, job in live.tally.jobs.items():
        other = job.states[State.CANCELLED] + job.states[State.SKIPPED]
        figures = (
            job.planned,
            job.settled,
            job.in_flight,
            job.states[State.SUCCEEDED],
            job.states[State.FAILED],
            other,
        )
        table.add_row(name, *map(str, figures), eta(job, took_s))
    table.caption = f"{elapsed(took_s)}  Ctrl-C: start no more, follow what runs"
    table.caption_justify = "left"
    return table


def eta(job: JobTally, took_s: float) -> str:
    """When *job* will be done at the pace so far, as text; empty while nothing tells."""
    done_here = job.settled - job.settled_before
    if not done_here or not job.pending:
        return ""
    return elapsed(took_s / done_here * job.pending)


def states(tally: Tally) -> str:
    """The batch in a line: ``12 of 600 runs settled: 11 succeeded, 1 failed; 8 in flight``."""
    settled = [f"{tally.total(state)} {state}" for state in State if state.is_final and tally.total(state)]
    text = f"{tally.settled} of {tally.planned} runs settled"
    if settled:
        text += ": " + ", ".join(settled)
    return text + (f"; {tally.in_flight} in flight" if tally.in_flight else "")
