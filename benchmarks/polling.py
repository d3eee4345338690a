"""
Compare ways of waiting for jobs, purely: requests per job against the delay after which an end is noticed.

    python -m benchmarks.polling [--jobs 2000] [--seed 1] [--svg polling.svg]

Time is simulated (`benchmarks.waiting`), so the figures are the same on every machine. A submit is a request as well.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.durations import bimodal, exponential, lognormal
from benchmarks.waiting import Held, Learned, Result, Simulation, Spaced, Way, Work
from runner.looks import CHEAP_S

SIDE = 250
REQUESTS = (1, 3, 10, 30, 100, 300)
DELAYS_S = (0.01, 0.1, 1.0, 10.0)
COLOURS = {
    "fixed": "#7f7f7f",
    "back-off": "#d62728",
    "long poll": "#9467bd",
    "ours, /status": "#1f77b4",
    "ours, status-sync": "#2ca02c",
}


WORKS = (
    Work("2 s, 1.2 x workers", lognormal(2.0), 1.2),
    Work("2 s, 4 x workers", lognormal(2.0), 4.0),
    Work("60 s, 1.2 x workers", lognormal(60.0), 1.2),
    Work("exponential 10 s", exponential(10.0), 1.2),
    Work("2 / 30 s", bimodal(2.0, 30.0), 1.2),
)


def ways(work: Work, in_flight: int) -> dict[str, list[tuple[str, Callable[[], Way]]]]:
    """Each way, with the settings that it is tried with."""
    oldest = min(300, round(1.2 * work.workers))
    return {
        "fixed": [(f"{s:g} s", partial(Spaced, s)) for s in (0.25, 0.5, 1.0, 2.0, 5.0)],
        "back-off": [(f"{s:g} s, x 2, at most 5 s", partial(Spaced, s, 2.0)) for s in (0.05, 0.1, 0.25, 1.0)],
        "ours, /status": [(f"c = {c:g} s", partial(Learned, oldest, c)) for c in (0.02, CHEAP_S, 0.1, 0.2, 0.5)],
        "long poll": [("90 s, all", partial(Held, in_flight))],
        "ours, status-sync": [("90 s, the oldest", partial(Held, oldest))],
    }


def measured(work: Work, *, jobs: int, seed: int) -> dict[str, list[tuple[str, Result]]]:
    """Every way on *work*."""
    in_flight = round(work.per_worker * work.workers)
    return {
        name: [(setting, Simulation(work, jobs, seed).run(in_flight, way())) for setting, way in settings]
        for name, settings in ways(work, in_flight).items()
    }


def plot(found: Mapping[Work, Mapping[str, Sequence[tuple[str, Result]]]]) -> str:
    """An SVG: a panel for each workload, delay upwards, requests a job to the right, both logarithmic."""
    parts = []
    for number, (work, results) in enumerate(found.items()):
        left, top = 60 + number % 3 * 330, 50 + number // 3 * 290
        parts.append(f'<text x="{left}" y="{top - 12}" font-weight="bold">{work.name}</text>')
        parts.append(f'<rect x="{left}" y="{top}" width="{SIDE}" height="{SIDE - 40}" fill="none" stroke="#999"/>')
        parts += [
            f'<text x="{left + _x(requests)}" y="{top + SIDE - 24}" text-anchor="middle">{requests}</text>'
            for requests in REQUESTS
        ]
        parts += [
            f'<text x="{left - 6}" y="{top + _y(delay_s) + 4}" text-anchor="end">{delay_s:g} s</text>'
            for delay_s in DELAYS_S
        ]
        for name, points in results.items():
            at = [(left + _x(one.requests), top + _y(one.delay_s)) for _, one in points]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[name]}"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{COLOURS[name]}"/>' for x, y in at]
    for number, (name, colour) in enumerate(COLOURS.items()):
        y = 350 + number * 20
        parts.append(f'<circle cx="730" cy="{y - 4}" r="4" fill="{colour}"/><text x="742" y="{y}">{name}</text>')
    parts.append('<text x="722" y="480">to the right: requests a job; upwards: mean delay</text>')
    body = "\n".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1040 620" font-family="sans-serif" font-size="12">\n'
        f'<rect width="1040" height="620" fill="white"/>\n{body}\n</svg>\n'
    )


def _x(requests: float) -> float:
    return SIDE * math.log(max(1.0, requests) / REQUESTS[0]) / math.log(REQUESTS[-1] / REQUESTS[0])


def _y(delay_s: float) -> float:
    height = SIDE - 40
    share = math.log(max(DELAYS_S[0], delay_s) / DELAYS_S[0]) / math.log(DELAYS_S[-1] / DELAYS_S[0])
    return height * (1.0 - share)


def table(found: Mapping[Work, Mapping[str, Sequence[tuple[str, Result]]]]) -> str:
    """The same in figures."""
    lines = []
    for work, results in found.items():
        lines += ["", work.name, f"  {'':18} {'':24} {'mean delay':>10} {'p95':>8} {'requests/job':>13}"]
        for name, points in results.items():
            for setting, one in points:
                figures = f"{one.delay_s:8.2f} s {one.late_s:6.2f} s {one.requests:13.1f}"
                lines.append(f"  {name:18} {setting:24} {figures}")
    return "\n".join(lines[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--svg", type=Path, help="write the plot there")
    chosen = parser.parse_args()
    found = {work: measured(work, jobs=chosen.jobs, seed=chosen.seed) for work in WORKS}
    print(table(found))
    if chosen.svg:
        chosen.svg.write_text(plot(found))


if __name__ == "__main__":
    main()
