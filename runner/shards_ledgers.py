"""
The ledgers of a batch's shards, read as the one of a whole batch: what a report folds, each shard's part added up.

Nothing is copied. Numbers come from the shards' own indexes, so that memory does not grow with the batch.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from heapq import merge, nsmallest
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

from runner.cost import NONE, Costs
from runner.events import Sampled
from runner.ledger import Ledger
from runner.states import Outcome, State
from runner.timings import Timings
from runner.values import JsonObject, JsonValue


class Ledgers(Ledger):
    """
    Several ledgers as one that is only read. *folders* are where each lies, seen from the batch's folder; *noted* is
    what the whole batch's would say of it as a whole.
    """

    def __init__(self, parts: Sequence[Ledger], folders: Sequence[str], noted: Mapping[str, JsonValue]) -> None:
        self.parts = tuple(parts)
        self.folders = tuple(folders)
        self._noted = noted

    @classmethod
    def of(cls, stack: ExitStack, ledgers: Mapping[str, Path], noted: Mapping[str, JsonValue]) -> Self:
        """The *ledgers*, by the folders that they lie in, opened to look at them; *stack* closes them."""
        parts = [stack.enter_context(Ledger.read_only(path)) for path in ledgers.values()]
        return cls(parts, list(ledgers), noted)

    def close(self) -> None:
        """Close all of them."""
        for one in self.parts:
            one.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all that is read of a shard in the ``with`` block speak of one moment; each shard has its own."""
        with ExitStack() as stack:
            for one in self.parts:
                stack.enter_context(one.snapshot())
            yield

    def noted(self, name: str) -> JsonValue:
        return self._noted.get(name)

    def counts(self) -> dict[str, dict[tuple[State, Outcome | None], int]]:
        found: dict[str, dict[tuple[State, Outcome | None], int]] = {}
        for one in self.parts:
            for job, counts in one.counts().items():
                total = Counter(found.get(job, {}))
                total.update(counts)
                found[job] = dict(total)
        return found

    def reused(self) -> dict[str, int]:
        return dict(sum((Counter(one.reused()) for one in self.parts), Counter()))

    def spent(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for one in self.parts:
            for job, (attempts, total_ms) in one.spent().items():
                before = found.get(job, (0, 0))
                found[job] = (before[0] + attempts, before[1] + total_ms)
        return found

    def costs(self) -> dict[str, Costs]:
        found: dict[str, Costs] = {}
        for one in self.parts:
            for job, costs in one.costs().items():
                found[job] = found.get(job, NONE).plus(costs)
        return found

    def untold(self, job: str) -> int:
        return sum(one.untold(job) for one in self.parts)

    def skipped_because(self, end: str, job: str | None = None) -> int:
        return sum(one.skipped_because(end, job) for one in self.parts)

    def tried_again(self, job: str | None = None) -> int:
        return sum(one.tried_again(job) for one in self.parts)

    def attempt_totals(self, job: str) -> tuple[int, int]:
        totals = [one.attempt_totals(job) for one in self.parts]
        return sum(retried for retried, _ in totals), sum(total_ms for _, total_ms in totals)

    def times(self, job: str | None, column: str) -> Iterator[tuple[int, int]]:
        for time_ms, found in groupby(merge(*(one.times(job, column) for one in self.parts)), key=itemgetter(0)):
            yield time_ms, sum(count for _, count in found)

    def percentiles(self, job: str | None, column: str, ranks: Sequence[float]) -> list[int | None]:
        total = sum(count for _, count in self.times(job, column))
        if not total:
            return [None for _ in ranks]
        wanted = sorted((max(0, math.ceil(total * rank / 100) - 1), place) for place, rank in enumerate(ranks))
        found: list[int | None] = [None for _ in ranks]
        times, passed, value = self.times(job, column), 0, 0
        for number, place in wanted:
            while passed <= number:
                value, count = next(times)
                passed += count
            found[place] = value
        return found

    def mean(self, job: str | None, column: str) -> float | None:
        count = total = 0
        for time_ms, runs in self.times(job, column):
            count, total = count + runs, total + time_ms * runs
        return total / count if count else None

    def errors(self, job: str, most: int = 20) -> list[tuple[str, int]]:
        return nsmallest(most, messages(self.parts, job), key=lambda one: (-one[1], one[0]))

    def samples(self) -> Iterator[Sampled]:
        yield from merge(*(one.samples() for one in self.parts), key=lambda sample: sample.at)

    def unsuccessful(self) -> Iterator[tuple[str, Outcome | None]]:
        for one in self.parts:
            yield from one.unsuccessful()


def messages(ledgers: Sequence[Ledger], job: str) -> Iterator[tuple[str, int]]:
    """Each error message of *job* with how many runs of all *ledgers* have it, by code points."""
    every = merge(*(Timings(one).messages(job) for one in ledgers))
    for message, found in groupby(every, key=itemgetter(0)):
        yield message, sum(count for _, count in found)


def stopped(ledgers: Sequence[Ledger]) -> JsonObject:
    """Why jobs were stopped for good, by name: the first shard's word of each."""
    found: dict[str, Any] = {}
    for one in ledgers:
        found = (one.noted("stopped") or {}) | found
    return found
