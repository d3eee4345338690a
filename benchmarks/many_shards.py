"""
Many shards against one endpoint's limits, purely: do they keep them, and what does it cost to divide them?

    python -m benchmarks.many_shards [--seed 1] [--for 120]

Time is simulated, so the figures are the same on every machine. The shards pace themselves by the code that paces real
ones (`runner.pace`, with the parts of `runner.shards`); the endpoint counts by that of the local endpoint
(`runner.local.limits`), and would refuse one submit too many. Each has as many runs as it likes, the hardest case.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from runner.local.limits import Limit, Meter, RateLimits
from runner.pace import Pace, Turn
from runner.shards import Shard
from runner.units import Rate

RATE = Rate(950, 10.0)
"""The default of ``rate_limits.run``: the endpoint of the simulation allows so many, and not one more."""

COUNTS = (1, 4, 16, 64, 95)
RUNS = (1_000_000, 10_000_000, 100_000_000)


@dataclass(frozen=True, slots=True)
class Kept:
    """How shards kept the limits: submits that were *taken* and *refused*, and what share of the rate was used."""

    taken: int
    refused: int
    used: float


def keep(shards: int, *, seed: int, for_s: float, divided: bool = True) -> Kept:
    """
    Let *shards* submit all they may for *for_s* seconds; each begins at a time of its own in the first ten.

    A submit takes 20 ms to 0.8 s, and counts at a moment of that which nobody knows. *divided*: each paces itself at
    its part of the rate; else at all of it, as processes do that know nothing of each other.
    """
    chance = random.Random(seed)
    meter = Meter(RateLimits({"run": Limit(RATE.count)}))
    parts = [Shard(number, shards).rate(RATE) if divided else RATE for number in range(1, shards + 1)]
    paces = [Pace({"run": part}) for part in parts]
    began = [chance.uniform(0.0, RATE.period_s) for _ in paces]
    events: list[tuple[float, int, str, int, Turn | None]] = []
    for number, at in enumerate(began):
        heappush(events, (at, len(events), "go", number, None))
    order, taken, counted_from, counted = len(events), 0, 2 * RATE.period_s, 0
    while events:
        now, _, what, number, turn = heappop(events)
        if now > for_s:
            break
        pace = paces[number]
        order += 3
        if what == "arrives":
            if meter.admit("run", now) is None:
                taken += 1
                counted += now >= counted_from
        elif turn is not None:
            turn.answered(now)
        elif (wait_s := pace.wait_s("run", now)) > 0:
            heappush(events, (now + max(wait_s, 1e-6), order, "go", number, None))
        else:
            spent = pace.spend("run", now)
            took_s = min(0.8, 0.02 + chance.expovariate(10.0))
            heappush(events, (now + chance.uniform(0.0, took_s), order, "arrives", number, None))
            heappush(events, (now + took_s, order + 1, "answered", number, spent))
            heappush(events, (now, order + 2, "go", number, None))
    possible = RATE.count / RATE.period_s * (for_s - counted_from)
    return Kept(taken, meter.refused["run"], counted / possible)


def slowest(shards: int, runs: int, *, seed: int) -> float:
    """
    How long the last shard takes, as a multiple of what all would take as one: keys fall to shards by chance, and parts
    of a rate are whole numbers. Both count when the endpoint's rate is what bounds the batch.
    """
    sizes = split(shards, runs, random.Random(seed))
    parts = [Shard(number, shards).rate(RATE).count for number in range(1, shards + 1)]
    return max(size / part for size, part in zip(sizes, parts, strict=True)) / (runs / RATE.count)


def split(shards: int, runs: int, chance: random.Random) -> Sequence[int]:
    """How many of *runs* fall to each of *shards*: a binomial after the other, near enough normal at such sizes."""
    sizes, left = [], runs
    for others in range(shards - 1, 0, -1):
        share = 1 / (others + 1)
        size = round(chance.gauss(left * share, (left * share * (1 - share)) ** 0.5))
        sizes.append(size)
        left -= size
    return [*sizes, left]


def table(seed: int, for_s: float) -> str:
    """The figures, as Markdown."""
    head = "| shards | submits refused | of the rate used | refused, rate undivided |"
    lines = [head, "|--:|--:|--:|--:|"]
    for shards in COUNTS:
        kept = keep(shards, seed=seed, for_s=for_s)
        alone = keep(shards, seed=seed, for_s=min(for_s, 3 * RATE.period_s), divided=False)
        share = alone.refused / (alone.taken + alone.refused)
        lines.append(f"| {shards} | {kept.refused} of {kept.taken} | {kept.used:.1%} | {share:.0%} |")
    named = " | ".join(f"{runs:,} runs" for runs in RUNS)
    lines += ["", f"| shards | {named} |", "|--:" * (len(RUNS) + 1) + "|"]
    for shards in COUNTS:
        cells = (f"{slowest(shards, runs, seed=seed):.3f} ×" for runs in RUNS)
        lines.append(f"| {shards} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_shards", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--for", type=float, default=120.0, dest="for_s", metavar="SECONDS")
    chosen = parser.parse_args()
    print(table(chosen.seed, chosen.for_s))


if __name__ == "__main__":
    main()
