"""What is drawn: where the time went, how many runs and workers there were, which worker did what."""

from collections.abc import Sequence

from runner.clock import iso
from runner.page import axes, charts
from runner.page.bins import Span
from runner.page.charts import Series, Told
from runner.page.figures import Distribution, Figures
from runner.page.html import Html, cut, join, tag
from runner.page.overview import NAME_BYTES, section
from runner.page.pauses import Pauses
from runner.page.phases import Phase
from runner.page.tables import table
from runner.page.timelines import Row
from runner.page.words import number, several, share, short, took
from runner.units import elapsed

PHASES = {
    Phase.WAIT: "our own wait",
    Phase.QUEUE: "queue",
    Phase.EXECUTION: "execution",
    Phase.LAG: "until seen",
    Phase.UNTOLD: "not told apart",
}

EXPLAINED = {
    Phase.WAIT: "rate limits, the submit and its answer",
    Phase.QUEUE: "at the endpoint, waiting for a worker",
    Phase.EXECUTION: "in a worker",
    Phase.LAG: "over, but not looked at yet; its output taken",
    Phase.UNTOLD: "at the endpoint, which did not say more",
}

WORKERS = ("running", "idle", "initializing", "throttled", "unhealthy")
MOST_ENDPOINTS = 6


def times(figures: Figures) -> Html | None:
    """How long runs waited at their endpoint, and how long they executed."""
    drawn = [_distribution(one, at) for at, one in enumerate(figures.distributions)]
    if not drawn and not figures.attempts:
        return None
    return section(
        "times",
        "Times",
        _account(figures),
        tag("div", drawn, class_="pair"),
        note="Percentiles are of settled runs, by their last attempt, as RunPod measures it.",
    )


def _account(figures: Figures) -> Html | None:
    total = sum(figures.time_s.values())
    if not total:
        return None
    parts = [(PHASES[phase], phase.value, figures.time_s[phase]) for phase in Phase]
    said = ", ".join(f"{name} {share(size, total)}" for name, _, size in parts if size)
    rows = [
        (
            join(charts.swatch(phase.value), PHASES[phase], tag("span", EXPLAINED[phase], class_="note")),
            share(figures.time_s[phase], total),
            elapsed(figures.time_s[phase] / figures.attempts),
        )
        for phase in Phase
        if figures.time_s[phase]
    ]
    told = Told("account", "Where the time went", said)
    return tag(
        "div",
        tag("h3", "Where the time of an attempt went"),
        charts.shares(parts, told),
        table(("Phase", "Share", "Mean"), rows),
        class_="account",
    )


def _distribution(one: Distribution, at: int) -> Html:
    what = "Delay time" if one.column == "delay_time_ms" else "Execution time"
    told_ms = {name: value for name, value in one.percentiles.items() if value is not None}
    marks = {name: float(value) for name, value in told_ms.items() if name in ("p50", "p95", "p99")}
    line = ", ".join(f"{name} {took(value)}" for name, value in told_ms.items())
    job = cut(one.job, NAME_BYTES)
    told = Told(f"times-{at}", f"{what}, {job}", f"{what} of the runs of {job}: {line}.")
    edges = one.axis.edges(len(one.counts))
    rows = [
        (f"{_edge(low)} – {_edge(high)}", number(count))
        for low, high, count in zip(edges[:-1], edges[1:], one.counts, strict=True)
        if count
    ]
    percentiles = [
        tag("li", tag("i", class_=f"tick {name}"), f"{name} ", tag("b", took(value))) for name, value in told_ms.items()
    ]
    key = tag("ul", percentiles, class_="legend")
    return tag("div", charts.distribution(told, one.counts, marks, one.axis, key, table(("Time", "Runs"), rows)))


def _edge(ms: float) -> str:
    return short(float(f"{ms / 1000:.3g}"))


def flow(figures: Figures) -> Html | None:
    """How many runs settled, and how many were in flight, over time."""
    if not figures.attempts:
        return None
    note = f"By the time since {_moment(figures.span.start)} UTC{_left_out(figures.pauses)}."
    return section("flow", "Over time", _settled(figures), _in_flight(figures), note=note)


def _settled(figures: Figures) -> Html:
    span, counted = _coarser(figures)
    most = max(map(sum, zip(*(one.values for one in counted), strict=True)), default=0.0)
    per, unit = _per(most, span.bin_s)
    series = [Series(one.name, one.kind, [count * per for count in one.values]) for one in counted]
    shown = number(round(most * per, 2))
    told = Told("settled", "Throughput", f"Runs that settled {unit}, at most {shown}.", f"runs settled {unit}")
    return charts.stacked(told, series, figures.axis, axes.counts(most * per), _over_time(span, counted))


def _left_out(pauses: Pauses) -> str:
    found = pauses.stretches
    if not found:
        return ""
    if len(found) > 1:
        return f", without {len(found)} pauses of {elapsed(pauses.total_s)} together in which no process carried it on"
    begin, end = found[0]
    return f", without the pause from {_moment(begin)} to {_moment(end)}, when no process carried it on"


def _moment(at: float) -> str:
    return iso(at)[:19].replace("T", " ")


ENOUGH = 3
"""Runs that a bin should have: where most have none or one, nobody sees how fast it went."""


def _coarser(figures: Figures) -> tuple[Span, list[Series]]:
    """The runs that settled, in as many bins as there are runs to fill them."""
    span = figures.span
    runs = sum(map(sum, figures.settled.values()))
    parts = next((size for size in (1, 2, 3, 4, 5, 6, 10) if runs >= ENOUGH * span.bins / size), 12)
    series = [
        Series(state.value, state.value, [sum(bins[at : at + parts]) for at in range(0, span.bins, parts)])
        for state, bins in figures.settled.items()
    ]
    return Span(span.start, span.end, span.bins // parts), series


def _per(most: float, bin_s: float) -> tuple[float, str]:
    """What a count of a bin is multiplied with, so that it is a rate that people say."""
    units = ((1, "a second"), (60, "a minute"), (3600, "an hour"))
    seconds, unit = next((one for one in units if most / bin_s * one[0] >= 1), units[-1])
    return seconds / bin_s, unit


def _in_flight(figures: Figures) -> Html:
    series = [Series(PHASES[phase], phase.value, figures.in_flight[phase]) for phase in Phase]
    most = max(map(sum, zip(*(one.values for one in series), strict=True)), default=0.0)
    told = Told(
        "in-flight",
        "In flight",
        f"How many runs were on their way at once, by what they were waiting for; at most {number(round(most, 1))}.",
        "runs on their way, and where they were",
    )
    return charts.stacked(told, series, figures.axis, axes.counts(most), _over_time(figures.span, series))


def workers(figures: Figures) -> Html | None:
    """The workers of each endpoint over time, from the looks at its health."""
    found = list(figures.samples.items())
    if not found:
        return None
    drawn = [_workers(figures, name, looks, at) for at, (name, looks) in enumerate(found[:MOST_ENDPOINTS])]
    return section("workers", "Workers", drawn, note="As the endpoint's /health counted them, at each look.")


def _workers(figures: Figures, name: str, looks: Sequence[object], at: int) -> Html:
    series = [Series(kind, f"w-{kind}", [_counted(look, kind) for look in looks]) for kind in WORKERS]
    most = max(map(sum, zip(*(one.values for one in series), strict=True)), default=0.0)
    shown = cut(name, NAME_BYTES)
    told = Told(f"workers-{at}", shown, f"Workers of the endpoint {shown} by state; at most {number(most)}.")
    return charts.stacked(told, series, figures.axis, axes.counts(most), _over_time(figures.span, series))


def _counted(look: object, kind: str) -> float:
    if not isinstance(look, dict):
        return 0.0
    if kind == "idle":  # RunPod counts the same workers as idle and as ready
        return float(max(look.get("idle", 0), look.get("ready", 0)))
    return float(look.get(kind, 0))


def _over_time(span: Span, series: Sequence[Series]) -> Html:
    shown = [one for one in series if any(one.values)]
    rows = [
        (short(float(f"{span.bin_s * at:.3g}")), *(number(round(one.values[at], 1)) for one in shown))
        for at in range(span.bins)
        if any(one.values[at] for one in shown)
    ]
    return table(("From", *(one.name for one in shown)), rows)


def timeline(figures: Figures) -> Html | None:
    """What each worker did when."""
    drawn = figures.timeline
    if not drawn.rows:
        return None
    by_run = not drawn.columns
    told = Told(
        "timeline",
        "Each attempt" if by_run else "How busy each worker was",
        f"{several(figures.attempts, 'attempt')} in {several(len(drawn.rows), 'row')}.",
        "each bar an attempt, from its intent to when its end was seen"
        if by_run
        else f"in {drawn.columns} parts of time, as there are {number(figures.attempts)} attempts",
    )
    shown = [phase for phase in Phase if figures.time_s[phase]] if by_run else [Phase.EXECUTION]
    key = charts.legend([Series(PHASES[phase], phase.value, ()) for phase in shown])
    rows = [
        (
            _who(row),
            number(row.attempts),
            elapsed(row.busy_s),
            elapsed(row.busy_s / row.attempts if row.attempts else 0),
        )
        for row in drawn.rows
    ]
    numbers = table(("Worker", "Attempts", "Executed", "Mean"), rows)
    return section("timeline", "Timeline", charts.timeline(told, drawn, _who, figures.axis, key, numbers))


def _who(row: Row) -> str:
    if row.others:
        return f"{several(row.others, 'more worker')}"
    return cut(row.worker, 80) if row.worker is not None else "no worker named"
