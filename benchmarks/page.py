"""Write what was measured as docs/benchmarks.md."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from benchmarks.stage import Ran
from benchmarks.verdicts import Check, Measured

CEILINGS: Mapping[str, Mapping[str, Any]] = {
    "run + status-sync": {"jobs": 20_000, "look": "status-sync", "until_final": True},
    "runsync": {"jobs": 40_000, "submit": "runsync", "look": None},
}
"""The server's own ceiling is measured with these loads."""

HEAD = """\
# Benchmarks

`make bench` measured this and wrote this page. Each client runs in a process of its own on one core, against the same
fast fake of RunPod's API (`benchmarks/fast_server.py`) on another; the runner is the command itself, with its ledger
and its results on disk, synced. Plain aiohttp (`benchmarks/clients/plain_aiohttp.py`) uses uvloop and orjson and writes
the same lines, but keeps no record, retries nothing and syncs nothing. Clients take turns, so that each round meets the
same machine; figures are medians, the least and the most in brackets. CPU is that of the whole process, start included.

Machines differ and are noisy: ratios, requests and latencies mean something elsewhere, seconds do not. What CI watches
is counted, not timed: `tests/test_effort_of_runs.py`.
"""

TAIL = """\
## What limits us now, and what would come next

- **CPU a job** (run + status) is a fifth HTTP, a fifth the record in its own thread (SQLite's statements, commits,
  syncs), and for the rest the engine between them: the plan, pacing, learning, deciding, the line of results.jsonl. A
  request cost 28 µs by aiohttp's connections and parser (`runner/exchange.py`), where aiohttp's session takes 83; to
  keep idle connections at hand, and to bound all requests by one timer, has since spared some 12 of what is around it.
  A client of our own on `asyncio.Protocol`, as `benchmarks/load.py` has it, takes 13: not worth aiohttp's TLS and years
  of corner cases. Next would be the fold of all attempts for report.html (8 µs a run), and fewer awaits between a lane
  and its request: a run is some 290 calls of our own functions. Keys come in no order, so each run touches two pages of
  the ledger's indexes; were they in order, it would be 4 % less, and with smaller pages it is more.
- **Big outputs** cost what plain aiohttp pays, 610 µs a job, and some 370 more (`perf`, over 3,000 jobs): 160 of the
  interpreter, of which 50 are the longer start and the rest is the run's own way, 80 of the kernel for syncing its
  pages, which plain aiohttp leaves to it after its end, 70 a digest of the line, 60 copies and SQLite. The output is
  parsed, because a line that is not JSON would spoil the file. The bar of 1.2 leaves 120: the digest and the start
  alone take them.
- **Commits** hold what came in while the last one was under way. Two syncs stand behind each: the results, then the
  ledger that speaks of them. They could be one only if the ledger held the results too. Large ones begin 16 ms apart
  (`APART_S` in `runner/record.py`): while one is under way, its thread and the event loop take the interpreter's lock
  from each other at every statement and every answer, and that was a tenth of the CPU of zero-second jobs. 12 ms won
  less, 25 ms no more.
- **Latency** with held requests is half a round trip and one turn of the loop. Without status-sync it is what the
  rate of looks allows.
- **Makespan of tiny jobs** (bar 6) is bound by CPU: 2,000 jobs a second leave 0.5 ms to each.
- **RunPod's limits** (100 submits and 200 looks a second for an endpoint) are far below what one process can do;
  there the runner is as fast as they let it.
- **Memory** is the interpreter, its libraries and what is in flight. The plan, the keys and the record are on disk.
- **Start-up** is imports, some 330 of 450 ms: aiohttp a third, of which a quarter is OpenSSL reading the system's
  certificates; typer and pydantic another, for pydantic reads the command line, too; the rest in many small parts.
  aiohttp in a thread of its own was tried and won nothing on two cores: all but the certificates hold the
  interpreter's lock. The collector looks at none of it, only the command that was asked for gets a parser, each model
  is built once and without plugins, and what only the end of a batch needs is not imported before. A resume's first
  job is followed before the last is taken up; beside the imports its start is SQLite's look through a ledger that was
  not closed (half of it reading the WAL), and 1,000 open runs read back. Nobody waits for `/health`.
"""


@dataclass
class Told:
    """All that goes on the page: *ceilings* are requests a second of the server, and its CPU µs a request."""

    machine: Mapping[str, str]
    ceilings: dict[str, tuple[float, float]] = field(default_factory=dict)
    measured: list[tuple[int, str, Measured]] = field(default_factory=list)

    @property
    def all_met(self) -> bool:
        """Whether every bar that was measured is met."""
        return all(check.is_met(values) for _, _, one in self.measured for check, values in one.values.items())


def page(told: Told, *, seconds: float) -> str:
    """The page, as Markdown."""
    return "\n".join([HEAD, *_machine(told, seconds), "", *_bars(told), "", *_clients(told), TAIL])


def _machine(told: Told, seconds: float) -> Iterator[str]:
    yield f"Measured on {datetime.now(UTC):%-d %B %Y}, in {seconds / 60:.0f} min."
    yield ""
    yield from (f"- {name}: {value}" for name, value in told.machine.items())
    for work, (rate, cost_us) in told.ceilings.items():
        yield f"- the server's own ceiling, {work}: {rate:,.0f} requests/s at {cost_us:.0f} µs of its core"


def _bars(told: Told) -> Iterator[str]:
    yield "## The bars"
    yield ""
    yield "| # | work | figure | bar | measured | met |"
    yield "|--:|---|---|--:|--:|:-:|"
    for number, title, measured in told.measured:
        for check, values in measured.values.items():
            bound = f"{'≥' if check.at_least else '≤'} {_number(check.bound)}"
            goal = f" (goal {_number(check.goal)})" if check.goal is not None else ""
            met = "yes" if check.is_met(values) else "**no**"
            yield f"| {number} | {title} | {check.what} | {bound}{goal} | {_shown(check, values)} | {met} |"


def _shown(check: Check, values: Sequence[float]) -> str:
    unit = f" {check.unit}" if check.unit else ""
    return _spread(values) + unit


def _spread(values: Sequence[float]) -> str:
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} [{_number(min(values))}–{_number(max(values))}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"


def _clients(told: Told) -> Iterator[str]:
    yield "## The clients"
    yield ""
    yield (
        "| work | client | jobs | CPU ms a job | requests a job | detection p50 / p95, ms | makespan, of the ideal"
        " | lost | peak MB |"
    )
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for number, title, measured in told.measured:
        by_client: dict[tuple[str, int], list[Ran]] = {}
        for ran in measured.ran:
            by_client.setdefault((ran.client, ran.jobs), []).append(ran)
        for (client, jobs), runs in by_client.items():
            cpu = _spread([one.cpu_ms for one in runs])
            lost = _spread([one.lost for one in runs])
            peak = _spread([one.cost.peak_bytes / 1e6 for one in runs])
            story = _story(runs)
            yield f"| {number}: {title} | {client} | {jobs:,} | {cpu} | {story} | {lost} | {peak} |"
    yield ""


def _story(runs: Sequence[Ran]) -> str:
    """What the server says of them; nothing where it was not asked."""
    heard = [one.report for one in runs if one.report is not None]
    if not heard or not heard[0].detections_s:
        return "– | – | –"
    asked = _spread([one.requests_per_job for one in heard])
    p50, p95 = (
        _spread([one.detections_s[int((len(one.detections_s) - 1) * rank)] * 1000 for one in heard])
        for rank in (0.5, 0.95)
    )
    ideal = [one.makespan_s / one.ideal_makespan_s for one in heard if one.ideal_makespan_s > 0.5]
    return f"{asked} | {p50} / {p95} | {_spread(ideal) if ideal else '–'}"
