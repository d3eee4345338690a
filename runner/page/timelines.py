"""When each worker did what: run by run where they are few, in bins where they are many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.page.bins import Occupancy, Span, lanes
from runner.page.phases import Phase, Stretch
from runner.timings import Attempt, Timings
from runner.units import elapsed

MOST_BARS = 1_000
"""More are never drawn: a bar is a run, or a bin of a worker's time."""

MOST_LANES = 200
"""Runs one below the other; beyond that the picture is higher than anybody scrolls."""

ROWS = 20
"""Workers that have a row of their own, the busiest; the others share one."""

COLUMNS = 45
"""Bins of a row: with the rows, the shared one and runs that no worker was named for, these stay below the most."""

assert (ROWS + 2) * COLUMNS <= MOST_BARS


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt: in which *lane* of its row it is drawn, where its time went, and whose it is."""

    lane: int
    run: str
    number: int
    stretches: Sequence[Stretch]

    @property
    def title(self) -> str:
        """What it is, in a line."""
        again = f", attempt {self.number}" if self.number > 1 else ""
        parts = ", ".join(f"{phase} {elapsed(end - begin)}" for phase, begin, end in self.stretches)
        return f"{self.run}{again}: {parts}"


@dataclass(frozen=True, slots=True)
class Row:
    """
    A worker, or what several share; *worker* is None for runs of which no worker is known.

    Either *bars* are its attempts, or *busy* is how many of them it executed at once, bin by bin.
    """

    worker: str | None
    attempts: int
    busy_s: float
    bars: Sequence[Bar] = ()
    busy: Sequence[float] = ()
    others: int = 0

    @property
    def lanes(self) -> int:
        """How many lanes its bars take."""
        return max((bar.lane for bar in self.bars), default=0) + 1


@dataclass(frozen=True, slots=True)
class Timeline:
    """The rows, and the stretch of time that they show; *columns* is 0 where every attempt is drawn by itself."""

    rows: Sequence[Row]
    span: Span
    columns: int


class Timelines:
    """Makes the timeline: told of one attempt after the other."""

    def __init__(self, timings: Timings, span: Span) -> None:
        self._span = span
        self._few = timings.count() <= MOST_BARS
        self._indexes = timings.indexes() if self._few else {}
        self._rows: dict[str | None, _Told] = {None: _Told(None)}
        self._shared = _Told(None)
        for worker, attempts, busy_ms in timings.workers():
            told = self._shared
            if worker is None or len(self._rows) <= ROWS:
                told = self._rows.setdefault(worker, _Told(worker))
            else:
                told.others += 1
            told.attempts += attempts
            told.busy_s += busy_ms / 1000
        self._coarse = Span(span.start, span.end, COLUMNS)

    def add(self, attempt: Attempt, stretches: Sequence[Stretch]) -> None:
        """One more attempt, and where its time went."""
        if not stretches:
            return
        told = self._rows.get(attempt.worker_id, self._shared)
        if self._few:
            told.kept.append((attempt, stretches))
        for phase, begin, end in stretches:
            if phase is Phase.EXECUTION:
                if told.busy is None:
                    told.busy = Occupancy(self._coarse)
                told.busy.add(begin, end)

    def timeline(self) -> Timeline:
        """What came of it."""
        rows = [*self._rows.values(), self._shared]
        if self._few:
            exact = [told.exact(self._indexes) for told in sorted(rows, key=_Told.begin) if told.kept]
            if sum(row.lanes for row in exact) <= MOST_LANES:
                return Timeline(exact, self._span, 0)
        return Timeline([told.binned() for told in rows if told.busy is not None], self._coarse, COLUMNS)


class _Told:
    """What is told of a row so far."""

    def __init__(self, worker: str | None) -> None:
        self.worker = worker
        self.attempts = self.others = 0
        self.busy_s = 0.0
        self.busy: Occupancy | None = None
        self.kept: list[tuple[Attempt, Sequence[Stretch]]] = []

    def begin(self) -> tuple[bool, float]:
        """When it first executed something; what is no worker's comes last."""
        begins = (begin for _, stretches in self.kept for phase, begin, _ in stretches if phase is Phase.EXECUTION)
        return self.worker is None, min(begins, default=0.0)

    def exact(self, indexes: Mapping[str, int]) -> Row:
        """It with a bar for each attempt."""
        self.kept.sort(key=lambda one: one[1][0][1])
        places = lanes([(stretches[0][1], stretches[-1][2]) for _, stretches in self.kept])
        bars = [
            Bar(lane, f"{attempt.job}:{indexes.get(attempt.key, 0)}", attempt.number, stretches)
            for lane, (attempt, stretches) in zip(places, self.kept, strict=True)
        ]
        return Row(self.worker, self.attempts, self.busy_s, bars, others=self.others)

    def binned(self) -> Row:
        """It with how busy it was over time."""
        busy = [] if self.busy is None else self.busy.means()
        return Row(self.worker, self.attempts, self.busy_s, busy=busy, others=self.others)
