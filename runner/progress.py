"""Show a running batch: a live table on a terminal, plain lines elsewhere."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from runner.plain import plain
from runner.states import State
from runner.stdout import let_go
from runner.tally import JobTally, Tally
from runner.units import elapsed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from runner.live import Live

REFRESH_S = 0.25
PLAIN_EVERY_S = 30.0


def say(text: str, err: TextIO) -> None:
    """Print *text* on *err* at once. A terminal that is gone must not end a batch that somebody pays for."""
    try:
        print(text, file=err, flush=True)
    except OSError:
        let_go(err)


class Display:
    """Shows a batch on *err*: redrawn in place on a terminal, a line now and then elsewhere."""

    def __init__(self, err: TextIO) -> None:
        self._err = err
        self._console: Console | None = None  # there while a table is drawn

    def say(self, text: str) -> None:
        """Print *text* at once, above the table where there is one: what stands below is drawn over."""
        if self._console is None:
            say(text, self._err)
            return
        try:
            self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
        except OSError:  # as in `say`
            let_go(self._err)

    def leave(self) -> None:
        """Leave the terminal fit for a shell, because the process ends at once."""
        if self._console is not None:
            with suppress(OSError):
                self._console.show_cursor()
            say("", self._err)

    async def show(self, live: "Live") -> None:
        """Show *live* until cancelled."""
        what = f"{live.folder.path.parent.name} {live.folder.id}"
        self.say(f"{'going on with' if live.resumed else 'running'} {what}: {live.tally.planned} runs")
        began = asyncio.get_running_loop().time()
        if self._err.isatty():
            await self._redraw(live, began)
        else:
            await self._tell(live, began)

    async def _tell(self, live: "Live", began: float) -> None:
        while True:
            await asyncio.sleep(PLAIN_EVERY_S)
            self.say(f"{elapsed(asyncio.get_running_loop().time() - began)}: {states(live.tally)}")
            for said in troubles(live):
                self.say(f"  {said}")

    async def _redraw(self, live: "Live", began: float) -> None:
        # rich takes 0.05 s to import, and who redirects to a file never needs it.
        from rich.console import Console
        from rich.live import Live as Drawn

        console = Console(file=self._err)
        try:
            with Drawn(console=console, auto_refresh=False, transient=True) as drawn:
                self._console = console
                while True:
                    took_s = asyncio.get_running_loop().time() - began
                    drawn.update(
                        table(live.tally, took_s, is_ending=live.interrupted, said=troubles(live)), refresh=True
                    )
                    await asyncio.sleep(REFRESH_S)
        except OSError:  # as in `say`
            let_go(self._err)
        finally:
            self._console = None


def troubles(live: "Live") -> list[str]:
    """A line for each endpoint that asks for something."""
    courses = {name: endpoint.course for name, endpoint in live.endpoints.items()}
    return [plain(f"endpoint {name}: {one.now()}") for name, one in courses.items() if not one.newest.is_calm]


def table(tally: Tally, took_s: float, *, is_ending: bool = False, said: Sequence[str] = ()) -> "Table":
    """
    A line a job, with what a person wants to know *took_s* seconds after the start, and below what is to be *said*;
    *is_ending*: a signal was heard.
    """
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("job", "runs", "settled", "in flight", "succeeded", "failed", "other", "eta"):
        shown.add_column(column, justify="left" if column == "job" else "right", no_wrap=True)
    for name, job in tally.jobs.items():
        other = job.states[State.CANCELLED] + job.states[State.SKIPPED]
        ended = (job.states[State.SUCCEEDED], job.states[State.FAILED], other)
        last = f"waits for {', '.join(job.waits_for)}" if job.waits_for and job.pending else eta(job, took_s)
        shown.add_row(name, *map(str, (job.planned, job.settled, job.in_flight, *ended)), last)
    caption = f"{tally.reused} reused; " if tally.reused else ""
    caption += elapsed(took_s) + ("" if is_ending else "; Ctrl-C starts nothing more and follows what runs")
    shown.caption = Text("\n".join([caption, *said]))
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
    settled += [f"{tally.reused} of them reused"] if tally.reused else []
    text = f"{tally.settled} of {tally.planned} runs settled"
    if settled:
        text += ": " + ", ".join(settled)
    text += f"; {tally.in_flight} in flight" if tally.in_flight else ""
    for name, job in tally.jobs.items():
        if job.waits_for and job.pending:
            text += f"; {name} waits for {', '.join(job.waits_for)}"
    return text
