"""The runs of a grid by the values of each of its parameters, in bounded memory."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runner.page.bins import Median
from runner.states import State
from runner.timings import Timings
from runner.values import dump

MATRIX_VALUES = 24
"""Values of a parameter that are told apart, the first that come."""

MATRIX_AXES = 8


@dataclass(frozen=True, slots=True)
class Cell:
    """What became of the runs with one value of a matrix."""

    value: str
    runs: int
    succeeded: int
    execution_ms: float | None


@dataclass(frozen=True, slots=True)
class MatrixAxis:
    """The runs of a job by the values of one parameter; *left* is how many runs have yet other values."""

    job: str
    name: str
    cells: Sequence[Cell]
    left: int


def by_parameter(timings: Timings, jobs: Iterable[str]) -> list[MatrixAxis]:
    """Every parameter of every one of *jobs* that has a matrix."""
    found: list[MatrixAxis] = []
    for job in jobs:
        tallies: dict[str, dict[str, _Tally]] = {}
        left: Counter[str] = Counter()
        for matrix, state, time_ms in timings.matrix(job):
            for name, value in list(matrix.items())[:MATRIX_AXES]:
                text = value if isinstance(value, str) else dump(value).decode()
                values = tallies.setdefault(name, {})
                if text not in values:
                    if len(values) >= MATRIX_VALUES:
                        left[name] += 1
                        continue
                    values[text] = _Tally()
                values[text].add(state, time_ms)
        found += [
            MatrixAxis(job, name, [tally.cell(value) for value, tally in values.items()], left[name])
            for name, values in tallies.items()
        ]
    return found


class _Tally:
    def __init__(self) -> None:
        self.runs = self.succeeded = 0
        self.times = Median()

    def add(self, state: State, time_ms: int | None) -> None:
        self.runs += 1
        self.succeeded += state is State.SUCCEEDED
        if time_ms is not None:
            self.times.add(time_ms)

    def cell(self, value: str) -> Cell:
        return Cell(value, self.runs, self.succeeded, self.times.value)
