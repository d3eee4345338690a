"""Fold a batch's ledger into the figures of its page, in bounded memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import nlargest
from itertools import chain
from math import inf

from runner.batch import Folder
from runner.events import Sampled
from runner.ledger import Ledger
from runner.page import axes
from runner.page.axes import Axis
from runner.page.bins import Occupancy, Span
from runner.page.errors import Group, grouped
from runner.page.grid import MatrixAxis, by_parameter
from runner.page.pauses import Pauses, between, worth_it
from runner.page.phases import Phase, Stretch, phases
from runner.page.timelines import Timeline, Timelines
from runner.shards_timings import timings_of
from runner.states import State
from runner.timings import Artifact, FailedRun, TimedRun, Timings
from runner.values import JsonObject

BINS = 60
"""Points on an axis of time."""

BARS = {400: 40, 60: 20, 0: 10}
"""Bars of a distribution, by how many runs there are at least: few in many bars are a row of teeth."""

JOBS_DRAWN = 8
"""So many jobs have their times drawn; all are in the tables."""

SLOWEST = 10
ERRORS = 20
EXAMPLES = 3
PICTURES = 60
OTHER_FILES = 40

LARGE_LEDGER_BYTES = 1 << 30
"""From here on, to read all inputs again for their matrix would take longer than the page is worth."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How many settled runs of a job took how long: *counts* for equal parts of *axis*, whose unit is ms."""

    job: str
    column: str
    axis: Axis
    counts: Sequence[int]
    percentiles: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A group of runs that failed alike, and some of them, with the error of the first."""

    group: Group
    examples: Sequence[FailedRun]


@dataclass(frozen=True, slots=True)
class Files:
    """What outputs became: how many, and the first of them."""

    count: int = 0
    size_bytes: int = 0
    pictures: Sequence[Artifact] = ()
    others: Sequence[Artifact] = ()


@dataclass(frozen=True, slots=True)
class Figures:
    """
    All that is drawn. Lists over time have one number for each bin of *span*, which leaves *pauses* out; *axis* is its
    labels.

    *samples* are of each endpoint the last look in each bin, None where there was none yet. *matrix* is None where the
    ledger is too large to be read for it.
    """

    span: Span
    axis: Axis
    pauses: Pauses
    settled: Mapping[State, Sequence[int]]
    in_flight: Mapping[Phase, Sequence[float]]
    time_s: Mapping[Phase, float]
    attempts: int
    samples: Mapping[str, Sequence[Mapping[str, int] | None]]
    distributions: Sequence[Distribution]
    timeline: Timeline
    slowest: Sequence[TimedRun]
    failures: Sequence[Failure]
    failures_left: int
    matrix: Sequence[MatrixAxis] | None
    files: Files = field(default_factory=Files)


RECENT = 12
"""Bins from which it is guessed how fast a batch goes on."""


def left_s(figures: Figures, pending: int, *, now: float) -> float | None:
    """How long *pending* runs may take if it goes on as it did of late; None where nothing settled of late."""
    last = figures.span.bin(figures.pauses.drawn(now))
    recent = range(max(0, last - RECENT), last)  # the bin that is under way is not full
    settled = sum(bins[at] for bins in figures.settled.values() for at in recent)
    return pending * len(recent) * figures.span.bin_s / settled if settled else None


def fold(ledger: Ledger, folder: Folder, health: JsonObject, *, now: float) -> Figures:
    """The figures of the batch in *folder*, of which *health* is the report, as of *now*."""
    timings = timings_of(ledger)
    with ledger.snapshot():
        start, until = _ends(timings, health, now)
        pauses = _pauses(timings, start, until)
        axis = axes.times(until - start - pauses.total_s)
        span = Span(start, start + axis.high, BINS)
        in_flight = {phase: Occupancy(span) for phase in Phase}
        timelines = Timelines(timings, span)
        attempts = 0
        for attempt in timings.attempts():
            attempts += 1
            stretches = phases(attempt, now=until)
            if pauses.stretches:
                stretches = _without(pauses, stretches)
            for phase, begin, end in stretches:
                in_flight[phase].add(begin, end)
            timelines.add(attempt, stretches)
        jobs = list(health["jobs"])
        failures, left = _failures(timings, jobs)
        return Figures(
            span=span,
            axis=axis,
            pauses=pauses,
            settled=_settled(timings, span, pauses),
            in_flight={phase: found.means() for phase, found in in_flight.items()},
            time_s={phase: found.total_s for phase, found in in_flight.items()},
            attempts=attempts,
            samples=_samples(ledger.samples(), span, pauses, until),
            distributions=list(_distributions(ledger, timings, health["jobs"])),
            timeline=timelines.timeline(),
            slowest=nlargest(
                SLOWEST,
                chain.from_iterable(timings.slowest(job, SLOWEST) for job in jobs),
                key=lambda run: run.execution_time_ms,
            ),
            failures=failures,
            failures_left=left,
            matrix=by_parameter(timings, jobs) if _size_bytes(folder) < LARGE_LEDGER_BYTES else None,
            files=Files(
                *timings.artifact_totals(),
                timings.artifacts(PICTURES, images=True),
                timings.artifacts(OTHER_FILES, images=False),
            ),
        )


def _ends(timings: Timings, health: JsonObject, now: float) -> tuple[float, float]:
    """When the batch began, and until when it is shown."""
    start = datetime.fromisoformat(health["batch"]["started_at"]).timestamp()
    ended_at = health["batch"]["ended_at"]
    if ended_at is not None:
        until = datetime.fromisoformat(ended_at).timestamp()
    else:  # one that was cut off ended nobody knows when: what is known of it last is all that can be shown
        until = now if health["verdict"] == "running" else timings.last_at() or start
    return start, max(start, until)


def _pauses(timings: Timings, start: float, until: float) -> Pauses:
    quiet = [(begin, end) for begin, end in between(timings.looks()) if timings.is_quiet(begin, end)]
    return worth_it(quiet, start=start, until=until)


def _without(pauses: Pauses, stretches: Iterable[Stretch]) -> list[Stretch]:
    """*stretches* as they are drawn; what was in a pause altogether is gone."""
    moved = [(phase, pauses.drawn(begin), pauses.drawn(end)) for phase, begin, end in stretches]
    return [one for one in moved if one[2] > one[1]]


def _settled(timings: Timings, span: Span, pauses: Pauses) -> dict[State, list[int]]:
    found = {state: [0] * span.bins for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED)}
    borders = [-inf, *chain.from_iterable(pauses.stretches), inf]
    for since, until in zip(borders[::2], borders[1::2], strict=True):
        left_out_s = 0.0 if since == -inf else since - pauses.drawn(since)
        for state, number, count in timings.settled(span.start + left_out_s, span.bin_s, since=since, until=until):
            if state in found:
                found[state][min(span.bins - 1, max(0, number))] += count
    return found


def _samples(
    samples: Iterable[Sampled], span: Span, pauses: Pauses, until: float
) -> dict[str, list[dict[str, int] | None]]:
    """The workers of each endpoint over time, *until* then: each bin has the last look in it, or before it."""
    found: dict[str, list[dict[str, int] | None]] = {}
    for sample in samples:
        if sample.problem is None:
            bins = found.setdefault(sample.endpoint, [None] * span.bins)
            bins[span.bin(pauses.drawn(sample.at))] = sample.workers
    for bins in found.values():
        last: dict[str, int] | None = None
        for number in range(span.bin(pauses.drawn(until)) + 1):
            last = bins[number] = bins[number] or last
    return found


def _distributions(ledger: Ledger, timings: Timings, jobs: Mapping[str, JsonObject]) -> Iterable[Distribution]:
    largest = nlargest(JOBS_DRAWN, jobs, key=lambda job: jobs[job]["runs"])
    for job in [one for one in jobs if one in largest]:
        settled = jobs[job]["runs"] - jobs[job]["pending"]
        bars = next(count for least, count in BARS.items() if settled >= least)
        for column in ("delay_time_ms", "execution_time_ms"):
            told = jobs[job][column]
            if told["max"] is None:
                continue
            (least,) = ledger.percentiles(job, column, [0.0])
            axis = axes.spread_ms(least or 0, told["p50"], told["max"])
            edges = [min(0.0, least or 0), *axis.edges(bars)[1:-1], max(axis.high, told["max"]) + 1]
            yield Distribution(job, column, axis, timings.histogram(job, column, edges), told)


def _failures(timings: Timings, jobs: Iterable[str]) -> tuple[list[Failure], int]:
    groups: list[Group] = []
    left = 0
    for job in jobs:
        found, more = grouped(job, timings.messages(job))
        groups += found
        left += more
    groups.sort(key=lambda one: -one.count)
    left += sum(one.count for one in groups[ERRORS:])
    return [Failure(one, timings.failed(one.job, one.message, EXAMPLES)) for one in groups[:ERRORS]], left


def _size_bytes(folder: Folder) -> int:
    try:
        return folder.ledger.stat().st_size
    except OSError:
        return 0
