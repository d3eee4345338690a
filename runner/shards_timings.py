"""What a report draws, read from the ledgers of a batch's shards as from the one of a whole batch."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from heapq import merge, nlargest
from itertools import chain, islice

from runner.ledger import Ledger
from runner.shards_ledgers import Ledgers, messages
from runner.states import State
from runner.timings import Artifact, Attempt, EndedRun, FailedRun, TimedRun, Timings
from runner.values import JsonObject


def timings_of(ledger: Ledger) -> Timings:
    """What *ledger*, of a whole batch or of its shards, knows of times."""
    return ShardTimings(ledger) if isinstance(ledger, Ledgers) else Timings(ledger)


class ShardTimings(Timings):
    """What the shards know of times, together. All that a method says of a batch it says of all of them."""

    def __init__(self, ledgers: Ledgers) -> None:
        self._ledgers = ledgers
        self._parts = [Timings(one) for one in ledgers.parts]

    def last_at(self) -> float | None:
        return max((at for one in self._parts if (at := one.last_at()) is not None), default=None)

    def count(self) -> int:
        return sum(one.count() for one in self._parts)

    def attempts(self) -> Iterator[Attempt]:
        yield from merge(*(one.attempts() for one in self._parts), key=lambda attempt: attempt.intended_at)

    def indexes(self) -> dict[str, int]:
        return {key: index for one in self._parts for key, index in one.indexes().items()}

    def workers(self) -> Iterator[tuple[str | None, int, int]]:
        attempts: Counter[str | None] = Counter()
        busy_ms: Counter[str | None] = Counter()
        for one in self._parts:
            for worker, count, total_ms in one.workers():
                attempts[worker] += count
                busy_ms[worker] += total_ms
        for worker in sorted(attempts, key=lambda name: (-busy_ms[name], name is not None, name or "")):
            yield worker, attempts[worker], busy_ms[worker]

    def looks(self) -> Sequence[float]:
        return array("d", merge(*(one.looks() for one in self._parts)))

    def is_quiet(self, begin: float, end: float) -> bool:
        return all(one.is_quiet(begin, end) for one in self._parts)

    def settled(self, start: float, bin_s: float, *, since: float, until: float) -> Iterator[tuple[State, int, int]]:
        for one in self._parts:
            yield from one.settled(start, bin_s, since=since, until=until)

    def histogram(self, job: str, column: str, edges: Sequence[float]) -> list[int]:
        return [sum(counts) for counts in zip(*(one.histogram(job, column, edges) for one in self._parts), strict=True)]

    def slowest(self, job: str, most: int) -> list[TimedRun]:
        every = chain.from_iterable(one.slowest(job, most) for one in self._parts)
        return nlargest(most, every, key=lambda run: run.execution_time_ms)

    def messages(self, job: str) -> Iterator[tuple[str, int]]:
        yield from messages(self._ledgers.parts, job)

    def failed(self, job: str, message: str, most: int) -> list[FailedRun]:
        return list(islice(chain.from_iterable(one.failed(job, message, most) for one in self._parts), most))

    def settled_runs(self, job: str, most: int, states: Sequence[State] | None = None) -> Iterator[EndedRun]:
        every = (one.settled_runs(job, most, states) for one in self._parts)
        yield from islice(merge(*every, key=lambda run: run.index), most)

    def matrix(self, job: str) -> Iterator[tuple[JsonObject, State, int | None]]:
        for one in self._parts:
            yield from one.matrix(job)

    def artifacts(self, most: int, *, images: bool) -> list[Artifact]:
        every = (
            [_below(folder, found) for found in one.artifacts(most, images=images)]
            for folder, one in zip(self._ledgers.folders, self._parts, strict=True)
        )
        by_place: Callable[[Artifact], tuple[str, int, str]] = lambda one: (one.job, one.index, one.path)  # noqa: E731
        return list(islice(merge(*every, key=by_place), most))

    def artifact_totals(self) -> tuple[int, int]:
        totals = [one.artifact_totals() for one in self._parts]
        return sum(count for count, _ in totals), sum(size_bytes for _, size_bytes in totals)


def _below(folder: str, artifact: Artifact) -> Artifact:
    return Artifact(f"{folder}/{artifact.path}", artifact.job, artifact.index, artifact.size_bytes)
