"""Know the workers that somebody else starts, by their signs of life only."""

from dataclasses import dataclass

from runner.clock import Clock
from runner.values import JsonObject


@dataclass(slots=True)
class _Sign:
    """The last that was heard of one worker."""

    at: float
    is_ready: bool = False
    is_unhealthy: bool = False


class External:
    """
    The workers of an endpoint that nobody here started, and that nobody here can end.

    One that gave no sign of life for *lease_s* is no longer counted; its id may come again.
    """

    leased = True

    def __init__(self, clock: Clock, lease_s: float) -> None:
        self._clock = clock
        self._lease_s = lease_s
        self._signs: dict[str, _Sign] = {}

    def admits(self, worker_id: str) -> bool:
        return True

    def alive(self, worker_id: str) -> None:
        now = self._clock.monotonic()
        if worker_id not in self._signs:
            self._forget_the_silent(now)
        self._signs.setdefault(worker_id, _Sign(now)).at = now

    def left(self, worker_id: str) -> None:
        self._signs.pop(worker_id, None)

    def ready(self, worker_id: str) -> None:
        self.alive(worker_id)
        self._signs[worker_id].is_ready = True
        self._signs[worker_id].is_unhealthy = False

    def failed(self, worker_id: str, report: JsonObject) -> None:
        self.alive(worker_id)
        self._signs[worker_id].is_unhealthy = True

    def end(self, worker_id: str) -> bool:
        return False

    def counts(self) -> tuple[int, int, int]:
        self._forget_the_silent(self._clock.monotonic())
        unhealthy = sum(sign.is_unhealthy for sign in self._signs.values())
        ready = sum(sign.is_ready and not sign.is_unhealthy for sign in self._signs.values())
        return len(self._signs) - ready - unhealthy, ready, unhealthy

    def _forget_the_silent(self, now: float) -> None:
        self._signs = {name: sign for name, sign in self._signs.items() if now - sign.at < self._lease_s}
