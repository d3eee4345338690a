"""What the fast fake of RunPod's API is asked to be like."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchmarks.durations import Durations, fixed
from runner.local.limits import DOCUMENTED, Limit


@dataclass(frozen=True)
class Rates:
    """
    How often requests go wrong, as shares of all requests but /health.

    ``refused``: a 429, nothing is carried out. ``broken``: a 500 or a 502 with HTML. ``cut``: the connection is reset.
    Of the latter two every second one, by chance, is carried out first, so that only its answer is lost.
    """

    refused: float = 0.0
    broken: float = 0.0
    cut: float = 0.0


BAD_DAY = Rates(refused=0.05, broken=0.02, cut=0.01)


@dataclass(frozen=True)
class Options:
    """
    A service to measure clients on.

    Args:
        workers: How many simulated workers take the jobs, first come, first served. They need no CPU.
        durations: How long a job takes, drawn in the order in which jobs are accepted. `fixed(0)` with a worker free:
            it is over before its submit is answered.
        seed: Of durations and faults.
        output_bytes: About how long a job's output is, as JSON: an object with the job's ``key`` and a ``text``.
        chunks: How many chunks a job streams, evenly over its time; then its output is ``[]``, as for a generator.
        status_sync: False has /status-sync answer 404, as if RunPod had none.
        limits: Requests in any window of 10 s, and at once, by bucket (`runner.local.limits`); None for no limits.
        retry_after: Whether a 429 says when to come again.
        faults: What goes wrong on purpose.
    """

    workers: int = 100
    durations: Durations = field(default_factory=lambda: fixed(0.0))
    seed: int = 1
    output_bytes: int = 64
    chunks: int = 0
    status_sync: bool = True
    limits: Mapping[str, Limit] | None = None
    retry_after: bool = False
    faults: Rates = field(default_factory=Rates)

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        limits = None if self.limits is None else {name: asdict(limit) for name, limit in self.limits.items()}
        return {**asdict(replace(self, limits=None)), "limits": limits}

    @classmethod
    def from_json(cls, shown: dict[str, Any]) -> "Options":
        """What `to_json` gave."""
        limits = shown["limits"]
        return cls(
            **{
                **shown,
                "durations": Durations(**shown["durations"]),
                "faults": Rates(**shown["faults"]),
                "limits": None if limits is None else {name: Limit(**limit) for name, limit in limits.items()},
            }
        )


DOCUMENTED_LIMITS = DOCUMENTED
"""RunPod's table, for `Options.limits`."""
