"""
The bars: what the runner is held against, each with its work and its bounds, and how each figure comes of a round.

Bars 7, 8 and 12, which are more than one batch, are measured in `benchmarks.longer`.
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.durations import fixed, lognormal
from benchmarks.longer import at_scale, on_start, resumed
from benchmarks.options import BAD_DAY, DOCUMENTED_LIMITS, Options
from benchmarks.stage import Ran, Stage, Work
from benchmarks.verdicts import Check, Measured

Round = Mapping[str, Ran]
"""What each client came to in one round."""

BIG_BYTES = 256_000

PLAIN, THREADS, ASYNCIO, JS = "plain aiohttp", "runpod, threads", "runpod, asyncio", "runpod-sdk (JS)"


@dataclass(frozen=True)
class Bar:
    """
    One work and what it may take. *checks* say how to read a round; the *rivals* take part in every round, the *peers*
    in the first one only, with so many jobs: they take long.
    """

    number: int
    title: str
    work: Work
    checks: Mapping[Check, Callable[[Round], float]]
    rivals: Sequence[str] = ()
    peers: Mapping[str, int] = field(default_factory=dict)
    rounds: int | None = None  # None: as many as asked for

    def measure(self, stage: Stage, rounds: int) -> Measured:
        """Run it, clients in turn."""
        ran: list[Ran] = []
        values: dict[Check, list[float]] = {check: [] for check in self.checks}
        for number in range(min(rounds, self.rounds or rounds)):
            this = {client: stage.ran(client, self.work) for client in (*self.rivals, "runner")}
            for check, value in self.checks.items():
                values[check].append(value(this))
            ran += this.values()
            for peer, jobs in self.peers.items() if number == 0 else ():
                if not stage.has(peer):
                    continue
                try:
                    ran.append(stage.ran(peer, replace(self.work, jobs=jobs)))
                except RuntimeError as error:  # the figures of others need not go with it
                    print(f"        {peer} is left out: {error}", file=sys.stderr, flush=True)
        return Measured(values, ran)


@dataclass(frozen=True)
class Longer:
    """A bar that is more than one batch."""

    number: int
    title: str
    measured: Callable[[Stage, int], Measured]

    def measure(self, stage: Stage, rounds: int) -> Measured:
        """Run it."""
        return self.measured(stage, rounds)


def cpu(this: Round) -> float:
    """CPU a job as a multiple of plain aiohttp's."""
    return this["runner"].cpu_ms / this[PLAIN].cpu_ms


def detection(rank: float) -> Callable[[Round], float]:
    """A percentile of how long after its end a job's result was there, in ms."""

    def found(this: Round) -> float:
        seen = this["runner"].seen.detections_s
        return seen[min(len(seen) - 1, int(len(seen) * rank / 100))] * 1000

    return found


def mean_detection(this: Round) -> float:
    """The mean of the same, in s."""
    return statistics.fmean(this["runner"].seen.detections_s)


def requests(this: Round) -> float:
    """Requests a job."""
    return this["runner"].seen.requests_per_job


def makespan(this: Round) -> float:
    """The time that it took, as a multiple of the time that it takes at best."""
    seen = this["runner"].seen
    return seen.makespan_s / seen.ideal_makespan_s


def limited_makespan(this: Round) -> float:
    """The same where the limits allow no better."""
    seen = this["runner"].seen
    return seen.makespan_s / seen.limit_bound_makespan_s


def lost(this: Round) -> float:
    """Jobs without a result."""
    return this["runner"].lost


def needless(this: Round) -> float:
    """Jobs paid for twice beyond those whose answer was lost, which were to be submitted again."""
    seen = this["runner"].seen
    return max(0, seen.duplicates - seen.faults.get("5xx after", 0) - seen.faults.get("reset after", 0))


def refused(this: Round) -> float:
    """The share of requests that met a 429 of our own making, in percent."""
    seen = this["runner"].seen
    return sum(seen.refused.values()) / max(1, sum(seen.requests.values())) * 100


def peak_over_base(this: Round) -> float:
    """Peak memory in MB."""
    return this["runner"].cost.peak_bytes / 1e6


TINY = Options()
SLOW = Options(workers=50, durations=lognormal(2.0))
QUICK = Options(workers=100, durations=fixed(0.05))
CPU = "CPU a job, of plain aiohttp's"
AT_BEST = "makespan, of the ideal"

BARS: Sequence[Bar | Longer] = (
    Bar(
        1,
        "run + status, zero-second jobs, 100 in flight",
        Work(TINY, 20_000),
        {Check(CPU, 2.0, "×", goal=1.5): cpu},
        rivals=(PLAIN,),
        peers={THREADS: 500, ASYNCIO: 1000, JS: 500},
    ),
    Bar(
        2,
        "runsync, zero-second jobs, 100 in flight",
        Work(TINY, 20_000, mode="runsync"),
        {Check(CPU, 2.2, "×", goal=1.6): cpu},
        rivals=(PLAIN,),
        peers={THREADS: 1000, JS: 2000},
    ),
    Bar(
        3,
        "50 workers, lognormal 2 s, 200 in flight",
        Work(SLOW, 750, in_flight=200),
        {
            Check("detection p50", 1.5, "ms"): detection(50),
            Check("detection p95", 3.0, "ms"): detection(95),
            Check("requests a job", 2.0, "", slack=0.005): requests,
            Check(AT_BEST, 1.01, "×"): makespan,
        },
        peers={ASYNCIO: 300, JS: 300},
        rounds=1,
    ),
    Bar(
        4,
        "the same, as many in flight as workers",
        Work(SLOW, 750, in_flight=50),
        {Check(AT_BEST, 1.01, "×"): makespan},
        rounds=1,
    ),
    Bar(
        5,
        "the same as 3 without status-sync",
        Work(replace(SLOW, status_sync=False), 750, in_flight=200),
        {Check("mean detection", 0.3, "s"): mean_detection, Check("requests a job", 6.5, ""): requests},
        rounds=1,
    ),
    Bar(
        6,
        "100 workers × 50 ms, by runsync",
        Work(QUICK, 10_000, mode="runsync", in_flight=300),
        {Check(AT_BEST, 1.02, "×"): makespan},
        rounds=2,
    ),
    Bar(
        6,
        "100 workers × 50 ms, by run + status",
        Work(QUICK, 10_000, in_flight=300),
        {Check(AT_BEST, 1.05, "×"): makespan},
        rounds=2,
    ),
    Longer(7, "200,000 tiny runs", at_scale),
    Longer(8, "start-up", on_start),
    Bar(
        9,
        "5 % 429, 2 % 5xx, 1 % resets; 1000 jobs of 0.5 s on 50 workers",
        Work(
            Options(workers=50, durations=fixed(0.5), faults=BAD_DAY),
            1000,
            job={"on_answer_lost": "resubmit"},
        ),
        {
            Check("jobs lost of 1000", 0, ""): lost,
            Check("paid twice where no answer was lost", 0, ""): needless,
            Check(AT_BEST, 1.6, "×"): makespan,
        },
        peers={THREADS: 1000, ASYNCIO: 1000, JS: 1000},
        rounds=1,
    ),
    Bar(
        10,
        "documented limits, 3000 jobs of 0.5 s, 300 in flight",
        Work(Options(workers=300, durations=fixed(0.5), limits=DOCUMENTED_LIMITS), 3000, in_flight=300),
        {
            Check("jobs lost of 3000", 0, ""): lost,
            Check("429s of our own making", 0, "% of the requests"): refused,
            Check("makespan, of the limit-bound ideal", 1.1, "×"): limited_makespan,
        },
        peers={ASYNCIO: 3000, JS: 3000},
        rounds=1,
    ),
    Bar(
        11,
        "outputs of 256 kB, 100 in flight",
        Work(replace(TINY, output_bytes=BIG_BYTES), 3000),
        {
            Check(CPU, 1.2, "×"): cpu,
            Check("peak memory, base + 2 × in flight × output", 70 + 2 * 100 * BIG_BYTES / 1e6, "MB"): peak_over_base,
        },
        rivals=(PLAIN,),
    ),
    Longer(12, "resume", resumed),
)
