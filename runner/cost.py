"""What attempts cost: what their outputs tell, else their execution time at the endpoint's rate. Pure."""

from collections.abc import Iterable
from enum import StrEnum

from runner.records import record
from runner.values import JsonObject


class Basis(StrEnum):
    """What an amount is made of: how far it may be trusted."""

    EXACT = "exact"
    """Every attempt told what it cost."""
    MIXED = "mixed"
    """Some did; of the others it is execution only, or nothing where no rate is known. So it is a lower bound."""
    EXECUTION = "execution"
    """Execution time at `cost_per_second`, a lower bound: workers are also paid for while they start and idle."""


@record(frozen=True, slots=True)
class Costs:
    """
    What attempts told that they cost: so many *told*, *usd* together; *timed* of them have an execution time,
    *execution_ms* together.
    """

    told: int = 0
    usd: float = 0.0
    timed: int = 0
    execution_ms: int = 0

    def plus(self, more: "Costs") -> "Costs":
        """These and *more*."""
        return Costs(
            self.told + more.told,
            self.usd + more.usd,
            self.timed + more.timed,
            self.execution_ms + more.execution_ms,
        )


NONE = Costs()


def spent_usd(execution_ms: int, costs: Costs, usd_per_s: float | None) -> float | None:
    """
    What attempts cost that executed for *execution_ms*, of which those of *costs* told it; *usd_per_s* is their
    endpoint's rate. None where nothing is known.
    """
    if usd_per_s is None:
        return costs.usd if costs.told else None
    return costs.usd + (execution_ms - costs.execution_ms) / 1000 * usd_per_s


def basis(costs: Costs, untold: int, *, is_asked: bool) -> Basis:
    """The basis of an amount of which *untold* attempts told nothing; *is_asked*: the job has a ``cost``."""
    if untold or not (costs.told or is_asked):
        return Basis.MIXED if costs.told else Basis.EXECUTION
    return Basis.EXACT


def total(jobs: Iterable[JsonObject]) -> tuple[float | None, Basis | None]:
    """What *jobs* of health.json cost together, and its basis; None where that of one that has runs is not known."""
    counted = [job for job in jobs if job["runs"]]
    amounts = [job["cost_usd"] for job in counted]
    if not amounts or None in amounts:
        return None, None
    kinds = {Basis(job.get("cost_basis") or Basis.EXECUTION) for job in counted}
    return round(sum(amounts), 6), kinds.pop() if len(kinds) == 1 else Basis.MIXED


def label(usd: str, kind: str | None, untold: int = 0) -> str:
    """The amount *usd*, as text, with how far it may be trusted; *kind* is a `Basis`."""
    if kind == Basis.EXACT:
        return f"{usd} USD"
    if kind == Basis.MIXED and not untold:
        return f"at least {usd} USD, in part execution only"
    if kind == Basis.MIXED:
        return f"at least {usd} USD, {untold} {'attempt' if untold == 1 else 'attempts'} told no cost"
    return f"at least {usd} USD, execution only"
