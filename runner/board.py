"""What a terminal shows of a running batch: lines that fit its width and its height. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from runner.cells import columns, cut, padded, wrapped
from runner.cost import Basis, label
from runner.events import Sampled
from runner.plain import plain
from runner.speed import Speed
from runner.states import State
from runner.tally import JobTally
from runner.units import elapsed

HINT = "Ctrl-C starts nothing more and follows what runs"

LEAST_NAME = 8
"""A job's name is cut to so many columns before a column of numbers is left out."""

GAP = 2
"""Columns between two columns."""

MOST_WRAPPED = 3
"""So many lines a sentence about an endpoint takes at most."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line: its *text*, and its *tone*: what colour says beside the words, ``dim``, ``bad``, ``open`` or nothing."""

    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class JobView:
    """One job as it is now; *usd* is what it has spent so far, None where nobody knows."""

    name: str
    tally: JobTally
    speed: Speed
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One endpoint: the newest look at it, and the sentence that asks for something, if one does."""

    name: str
    newest: Sampled | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """
    A running batch, *took_s* seconds after its start; *is_ending*: a signal was heard. *afar* is what is wrong with its
    remote folder, None while nothing is.
    """

    jobs: Sequence[JobView]
    endpoints: Sequence[EndpointView]
    all: Speed
    took_s: float
    is_ending: bool = False
    afar: str | None = None

    @property
    def usd(self) -> float | None:
        """What those jobs have spent so far of which it is known; None where it is of none."""
        known = [one.usd for one in self.jobs if one.usd is not None]
        return sum(known) if known else None


def board(view: View, *, width: int, height: int) -> list[Line]:
    """*view* in lines of at most *width* columns, at most *height* of them. What does not fit is counted, not cut."""
    foot = [Line(text) for text in wrapped(_foot(view), width, max(1, height - 2))]
    room = max(1, height - len(foot))
    ends = _endpoints(view.endpoints, width, most=max(0, (room - 2) // 2 if len(view.jobs) < room // 2 else room // 3))
    return [*_jobs(view, width, most=room - len(ends)), *ends, *foot]


# Jobs

_COLUMNS = ("settled", "in flight", "succeeded", "failed", "other", "rate", "eta", "USD", "USD/h")
_FIRST_TO_GO = ("other", "succeeded", "USD/h", "rate", "USD", "in flight", "eta", "failed")


def _jobs(view: View, width: int, *, most: int) -> list[Line]:
    """A header, a line a job, and one for all; where these are too many, what is in flight and one for the rest."""
    total = _total(view)
    if most <= 2:
        return [Line(cut(_in_a_line(total), width))]
    shown, left = _chosen(view.jobs, most - 1 - (len(view.jobs) > 1))
    rows = [(one.name, _cells(one), _tone(one)) for one in shown]
    if left:
        rows.append((f"{len(left)} more", _cells(_together(left, Speed(), None)), "dim"))
    if len(view.jobs) > 1:
        rows.append(("all", _cells(total), ""))
    return _table(rows, width)


def _chosen(jobs: Sequence[JobView], most: int) -> tuple[list[JobView], list[JobView]]:
    """Those that are shown, in their order, and those that are not: what is in flight is told before what is over."""
    if len(jobs) <= most:
        return list(jobs), []
    ranked = sorted(jobs, key=lambda one: (not one.tally.in_flight, not one.tally.pending, bool(one.tally.waits_for)))
    kept = {one.name for one in islice(ranked, max(0, most - 1))}
    return [one for one in jobs if one.name in kept], [one for one in jobs if one.name not in kept]


def _total(view: View) -> JobView:
    return _together(view.jobs, view.all, view.usd)


def _together(jobs: Iterable[JobView], speed: Speed, usd: float | None) -> JobView:
    """*jobs* as if they were one; *usd* is what they spent."""
    found = JobTally(0)
    for one in jobs:
        found.planned += one.tally.planned
        found.in_flight += one.tally.in_flight
        found.states.update(one.tally.states)
    return JobView("all", found, speed, usd)


def _cells(one: JobView) -> Mapping[str, str]:
    """What each column has of a job; nothing where there is nothing to say."""
    tally = one.tally
    other = tally.states[State.CANCELLED] + tally.states[State.SKIPPED]
    share = f" {int(100 * tally.settled / tally.planned)}%" if tally.planned and tally.settled else ""
    left_s = one.speed.left_s(tally.pending)
    waits = tally.waits_for if tally.pending and not tally.settled and not tally.in_flight else ()
    per_s, per_h = one.speed.runs_per_s, one.speed.usd_per_h
    return {
        "settled": f"{tally.settled:,}/{tally.planned:,}{share}",
        "in flight": f"{tally.in_flight:,}" if tally.in_flight else "",
        "succeeded": f"{tally.states[State.SUCCEEDED]:,}",
        "failed": f"{tally.failed:,}",
        "other": f"{other:,}" if other else "",
        "rate": rate(per_s) if per_s is not None and tally.pending else "",
        "eta": f"waits for {', '.join(waits)}" if waits else elapsed(left_s) if left_s is not None else "",
        "USD": "" if one.usd is None else usd(one.usd),
        "USD/h": "" if per_h is None or not tally.pending else usd(per_h),
    }


def _tone(one: JobView) -> str:
    if one.tally.failed:
        return "bad"
    return "dim" if not one.tally.pending else ""


def _table(rows: Sequence[tuple[str, Mapping[str, str], str]], width: int) -> list[Line]:
    """*rows* below their header, in as many columns as fit."""
    told = [name for name in _COLUMNS if any(cells[name] for _, cells, _ in rows)]
    sizes = {name: max(len(name), *(columns(cells[name]) for _, cells, _ in rows)) for name in told}
    if "eta" in sizes:  # what a job waits for may be long, and says less than numbers do
        times = [columns(cells["eta"]) for _, cells, _ in rows if not cells["eta"].startswith("waits")]
        least = max([len("eta"), *times])
        wanted = max(least, min(sizes["eta"], width // 3))
        others = sum(sizes[one] + GAP for one in told if one != "eta") + GAP
        sizes["eta"] = wanted if LEAST_NAME + others + wanted <= width else least
    names = max(3, *(columns(name) for name, _, _ in rows))
    for name in _FIRST_TO_GO:
        if min(names, LEAST_NAME) + sum(sizes[one] + GAP for one in told) <= width:
            break
        if name in told:
            told.remove(name)
    rest = width - sum(sizes[one] + GAP for one in told)
    names = max(1, min(names, rest))
    head = _row("job", {name: name for name in told}, told, sizes, names, width)
    return [Line(head, "dim")] + [
        Line(_row(name, cells, told, sizes, names, width), tone) for name, cells, tone in rows
    ]


def _row(
    name: str, cells: Mapping[str, str], told: Sequence[str], sizes: Mapping[str, int], names: int, width: int
) -> str:
    parts = [padded(cut(plain(name), names), names)]
    parts += [padded(cut(cells[one], sizes[one]), sizes[one], left=False) for one in told]
    return cut((" " * GAP).join(parts).rstrip(), width)


def _in_a_line(total: JobView) -> str:
    cells = _cells(total)
    said = [f"{cells['settled']} settled", f"{cells['failed']} failed" if total.tally.failed else ""]
    said += [f"{cells['in flight']} in flight" if cells["in flight"] else "", cells["rate"]]
    said += [f"{cells['eta']} left" if cells["eta"] else ""]
    return ", ".join(one for one in said if one)


# Endpoints

_WORKERS = {"running": "busy", "initializing": "starting", "throttled": "without a free GPU", "unhealthy": "unhealthy"}


def _endpoints(endpoints: Sequence[EndpointView], width: int, *, most: int) -> list[Line]:
    """A line or more for each endpoint, those in trouble first; at most *most*."""
    told = sorted(endpoints, key=lambda one: one.trouble is None)
    lines: list[Line] = []
    for number, one in enumerate(told):
        left = len(told) - number - 1
        free = min(MOST_WRAPPED, most - len(lines) - (left > 0))
        text = workers(one.newest) if one.trouble is None else one.trouble
        text = plain(f"endpoint {one.name}: {text}") if text else ""
        if one.trouble is None:
            said = [Line(cut(text, width), "dim")] if text else []
        else:
            said = [Line(part, "open") for part in wrapped(text, width, max(1, free))]
        if len(lines) + len(said) + (left > 0) > most:
            noun = "endpoint" if left + 1 == 1 else "endpoints"
            return [*lines, Line(cut(f"{left + 1} more {noun}", width), "dim")] if len(lines) < most else lines
        lines += said
    return lines


def workers(newest: Sampled | None) -> str:
    """The workers of an endpoint by its *newest* look, and what waits: ``3 workers busy, 1 idle; 12 waiting``."""
    if newest is None or newest.problem is not None:
        return ""
    counts = {word: newest.workers.get(name, 0) for name, word in _WORKERS.items()}
    counts["idle"] = max(newest.workers.get("idle", 0), newest.workers.get("ready", 0))
    parts = [f"{count} {word}" for word, count in counts.items() if count]
    said = f"workers: {', '.join(parts)}" if parts else "no workers"
    queued = newest.jobs.get("inQueue", 0)
    return f"{said}; {queued:,} waiting" if queued else said


# The foot


def _foot(view: View) -> str:
    said = [elapsed(view.took_s)] if view.afar is None else [view.afar, elapsed(view.took_s)]
    reused = sum(one.tally.reused for one in view.jobs)
    if reused:
        said.append(f"{reused:,} reused")
    if view.usd:
        said.append(label(usd(view.usd), *trust(view.jobs)))
        per_h = view.all.usd_per_h
        if per_h is not None:
            said.append(f"{usd(per_h)} USD/h")
    if not view.is_ending:
        said.append(HINT)
    return "; ".join(said)


def trust(jobs: Iterable[JobView]) -> tuple[Basis, int]:
    """The basis of what *jobs* have spent so far, and how many attempts told nothing beside others that did."""
    begun = [one.tally for one in jobs if one.usd is not None or one.tally.settled]
    untold = sum(one.untold_attempts for one in begun if one.costs.told)
    has_told = [one for one in begun if one.costs.told]
    if not has_told:
        return Basis.EXECUTION, 0
    return Basis.MIXED if untold or len(has_told) < len(begun) else Basis.EXACT, untold


# Texts


def rate(per_s: float) -> str:
    """A pace for people, in the unit that makes it a number above 1: ``4.5/s``, ``40/min``, ``3.0/h``."""
    for each, unit in ((1, "s"), (60, "min"), (3600, "h")):
        many = per_s * each
        if many >= 1 or unit == "h":
            return f"{many:,.0f}/{unit}" if many >= 10 else f"{many:.1f}/{unit}"
    raise AssertionError(per_s)


def usd(amount: float) -> str:
    """An amount without its unit, with as many digits as it takes to see it."""
    if not amount:
        return "0"
    return f"{amount:,.2f}" if amount >= 10 else f"{amount:.4f}" if amount >= 0.01 else f"{amount:.6f}"
