"""What an endpoint needs of whoever runs its workers, and what it says of them."""

from typing import NamedTuple, Protocol

from runner.values import JsonObject


class Workers(Protocol):
    """What an endpoint needs of whoever runs its workers."""

    leased: bool
    """Whether only its signs of life tell that a worker lives; if not, its end will be told."""

    def admits(self, worker_id: str) -> bool:
        """Whether this worker may have jobs: it lives, and is not being ended."""
        ...

    def alive(self, worker_id: str) -> None:
        """Called at every sign of life."""
        ...

    def left(self, worker_id: str) -> None:
        """Called when a worker without a job hangs up while it waits for one."""
        ...

    def ready(self, worker_id: str) -> None:
        """Called when a worker asks for a job: its handler is imported."""
        ...

    def failed(self, worker_id: str, report: JsonObject) -> None:
        """Called when a worker reports that it can't work, before it exits."""
        ...

    def end(self, worker_id: str) -> bool:
        """End this worker now; False if it is not one of ours, and only asking it to stop is left."""
        ...

    def counts(self) -> tuple[int, int, int]:
        """How many workers are initializing, ready (with a job or without), unhealthy."""
        ...


class WorkerCounts(NamedTuple):
    """The worker counters of /health."""

    idle: int
    initializing: int
    running: int
    throttled: int
    unhealthy: int
