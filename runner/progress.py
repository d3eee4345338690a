"""Show a running batch: a table that is drawn in place on a terminal, plain lines elsewhere."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TextIO

from runner.board import EndpointView, JobView, View, board, rate, trust, usd
from runner.cost import label
from runner.plain import plain
from runner.speed import Speed
from runner.states import State
from runner.stdout import let_go
from runner.tally import Tally
from runner.units import elapsed

if TYPE_CHECKING:
    from runner.live import Live
    from runner.screen import Screen

REFRESH_S = 0.25

STOPPED_S = 3.0
"""Who was not there for so long was stopped by Ctrl-Z, and a shell has written since. No signal need have said so."""

PLAIN_EVERY_S = ((60.0, 10.0), (600.0, 30.0), (3600.0, 60.0))
"""Until so many seconds after the start a plain line comes every so many."""

PLAIN_LATER_S = 300.0
"""From then on one comes so often: a log of a day is read by people, too."""


def say(text: str, err: TextIO) -> None:
    """Print *text* on *err* at once. A terminal that is gone must not end a batch that somebody pays for."""
    try:
        print(text, file=err, flush=True)
    except OSError:
        let_go(err)


class Watched:
    """A running batch as it is looked at again and again: how fast it goes is seen only so."""

    def __init__(self, live: "Live", began_s: float) -> None:
        """*began_s* is when its display began, by any clock."""
        self._live = live
        self._began_s = began_s
        self._speeds = {name: Speed() for name in live.tally.jobs}
        self._all = Speed()

    def view(self, now_s: float) -> View:
        """The batch as it is at *now_s*, by the same clock."""
        live = self._live
        jobs = []
        for name, tally in live.tally.jobs.items():
            spent = tally.spent_usd(live.usd_per_s.get(name))
            self._speeds[name].saw(now_s, tally.settled - tally.settled_before, spent)
            jobs.append(JobView(name, tally, self._speeds[name], spent))
        endpoints = []
        for name, endpoint in live.endpoints.items():
            course = endpoint.course
            trouble = None if course.newest.is_calm else plain(course.now())
            endpoints.append(EndpointView(name, course.sample, trouble))
        afar = live.afar()
        said = None if afar is None else plain(afar)
        view = View(jobs, endpoints, self._all, now_s - self._began_s, is_ending=live.interrupted, afar=said)
        self._all.saw(now_s, sum(one.settled - one.settled_before for one in live.tally.jobs.values()), view.usd)
        return view


class Display:
    """Shows a batch on *err*: redrawn in place on a terminal, a line now and then elsewhere."""

    def __init__(self, err: TextIO, env: Mapping[str, str] | None = None) -> None:
        self._err = err
        self._env = os.environ if env is None else env
        self._screen: Screen | None = None  # there while a table is drawn

    def say(self, text: str) -> None:
        """Print *text* at once, above the table where there is one: what stands below is drawn over."""
        if self._screen is None:
            say(text, self._err)
        else:
            self._screen.say(text)

    def went_on(self) -> None:
        """The process was stopped and goes on: what stands below the table is a shell's, and not to be drawn over."""
        if self._screen is not None:
            self._screen.forget()

    def leave(self) -> None:
        """Leave the terminal fit for a shell, because the process ends at once."""
        if self._screen is not None:
            self._screen.forget()
            self._screen.end()

    async def show(self, live: "Live") -> None:
        """Show *live* until cancelled."""
        from runner.screen import Screen, can_draw  # only a terminal needs them

        first = f"{'going on with' if live.resumed else 'running'} {live.folder.label}: {live.tally.planned} runs"
        watched = Watched(live, asyncio.get_running_loop().time())
        if can_draw(self._err, self._env):
            screen = Screen(self._err, self._env)
            screen.say(first)  # by its thread: from here on nobody waits for the terminal
            await self._redraw(screen, watched)
        else:
            self.say(first)
            await self._tell(watched)

    async def _tell(self, watched: Watched) -> None:
        now_s = asyncio.get_running_loop().time
        watched.view(now_s())
        took_s = 0.0
        while True:
            await asyncio.sleep(pause_s(took_s))
            view = watched.view(now_s())
            took_s = view.took_s
            self.say(f"{elapsed(took_s)}: {line(view)}")
            for one in view.endpoints:
                if one.trouble is not None:
                    self.say(plain(f"  endpoint {one.name}: {one.trouble}"))
            if view.afar is not None:
                self.say(f"  {view.afar}")

    async def _redraw(self, screen: "Screen", watched: Watched) -> None:
        loop = asyncio.get_running_loop()
        self._screen, drawn_at = screen, loop.time()
        try:
            while True:
                view = watched.view(loop.time())
                if not screen.is_ours or loop.time() - drawn_at > STOPPED_S:
                    screen.forget()
                if screen.is_ours and not screen.is_behind:
                    width, height = screen.size()
                    screen.draw(board(view, width=width, height=height))
                drawn_at = loop.time()
                await asyncio.sleep(REFRESH_S)
        finally:
            self._screen = None
            await asyncio.shield(asyncio.to_thread(screen.end))


@asynccontextmanager
async def showing(display: Display) -> AsyncIterator[Callable[["Live"], None]]:
    """What is to be told of a batch that starts: *display* shows it until the block ends."""
    shown: list[asyncio.Task[None]] = []

    def watch(live: "Live") -> None:
        shown.append(asyncio.create_task(display.show(live), name="display"))

    try:
        yield watch
    finally:
        for task in shown:
            task.cancel()
            await asyncio.wait([task])


def pause_s(took_s: float) -> float:
    """How long after *took_s* seconds the next plain line comes: the longer a batch takes, the fewer there are."""
    return next((every_s for until_s, every_s in PLAIN_EVERY_S if took_s < until_s), PLAIN_LATER_S)


def line(view: View) -> str:
    """A batch in a plain line: its runs by state, how fast it goes, how long it may still take, what it has cost."""
    tally = Tally({})
    tally.jobs = {one.name: one.tally for one in view.jobs}
    text = states(tally)
    per_s, left_s = view.all.runs_per_s, view.all.left_s(tally.pending)
    if per_s is not None and tally.pending:
        text += f"; {rate(per_s)}" + (f", about {elapsed(left_s)} left" if left_s is not None else "")
    if view.usd:
        text += f"; {label(usd(view.usd), *trust(view.jobs))}"
        per_h = view.all.usd_per_h
        text += "" if per_h is None else f", {usd(per_h)} USD/h"
    return text


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
