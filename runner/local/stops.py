"""The stop channel: what each worker is to stop, whether it heard so, and which workers don't obey. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from runner.local.deadlines import Deadlines


@dataclass(slots=True)
class _Orders:
    """One worker's: *waiting* to be told, and *given*, by job id, with the time."""

    waiting: list[str] = field(default_factory=list)
    given: dict[str, float] = field(default_factory=dict)


class Stops:
    """
    Orders to stop single jobs, for workers that listen to them: real ones do from runpod 1.10.0 on.

    A worker has *limit_s* to hear of an order: to be told, and to ask again, which it can't while a handler blocks it.
    Times are seconds on any one clock.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._orders: dict[str, _Orders] = {}
        self._unheard = Deadlines()

    def listens(self, worker_id: str) -> bool:
        """Whether this worker ever asked what to stop."""
        return worker_id in self._orders

    def asks(self, worker_id: str, now: float) -> None:
        """The worker asks what to stop: all that it was told before, it heard."""
        orders = self._orders.setdefault(worker_id, _Orders())
        self._unheard.drop(worker_id)
        if orders.waiting:
            self._unheard.set(worker_id, now + self._limit_s)

    def order(self, worker_id: str, job_id: str, now: float) -> None:
        """Have the worker stop a job."""
        orders = self._orders.setdefault(worker_id, _Orders())
        self._unheard.hasten(worker_id, now + self._limit_s)
        orders.waiting.append(job_id)
        orders.given[job_id] = now

    def waiting(self, worker_id: str) -> bool:
        """Whether there is something to tell this worker."""
        return worker_id in self._orders and bool(self._orders[worker_id].waiting)

    def tell(self, worker_id: str) -> list[str]:
        """What to tell this worker now, once."""
        orders = self._orders.get(worker_id)
        if orders is None:
            return []
        told, orders.waiting = orders.waiting, []
        return told

    def disobeys(self, worker_id: str, works_on: Iterable[str], now: float) -> list[str]:
        """Of the jobs that the worker says it *works_on*, those that it was to stop long ago."""
        orders = self._orders.get(worker_id)
        if orders is None:
            return []
        orders.given = {job_id: orders.given[job_id] for job_id in works_on if job_id in orders.given}
        return [job_id for job_id, at in orders.given.items() if now - at >= self._limit_s]

    def next(self) -> float | None:
        """When the next worker will be `deaf`, None for never."""
        return self._unheard.next()

    def deaf(self, now: float) -> str | None:
        """A worker that did not hear an order in time, once; None if there is none."""
        return self._unheard.due(now)

    def forget(self, worker_id: str) -> None:
        """Forget a worker that is gone for good."""
        self._orders.pop(worker_id, None)
        self._unheard.drop(worker_id)
