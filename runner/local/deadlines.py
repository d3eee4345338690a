"""Keep one deadline per key, and say which come first, without ever looking at all of them."""

import heapq


class Deadlines:
    """
    One deadline per key; setting it again moves it.

    A moved or dropped deadline stays in the heap until it surfaces or until the heap is half waste, so every operation
    costs O(log n), amortized, and the memory follows the number of keys. Times are seconds on any one clock.
    """

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, key: str) -> bool:
        return key in self._at

    def set(self, key: str, at: float) -> None:
        """Make *at* the deadline of *key*, in place of any other."""
        if self._at.get(key) == at:
            return
        self._at[key] = at
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._at) + 64:
            self._heap = [(at, key) for key, at in self._at.items()]
            heapq.heapify(self._heap)

    def hasten(self, key: str, at: float) -> None:
        """Make *at* the deadline of *key*, unless it has an earlier one."""
        self.set(key, min(at, self._at.get(key, at)))

    def drop(self, key: str) -> None:
        """Forget *key*, if it is known."""
        self._at.pop(key, None)

    def next(self) -> float | None:
        """The earliest deadline, None if there is none."""
        while self._heap:
            at, key = self._heap[0]
            if self._at.get(key) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def due(self, now: float) -> str | None:
        """Forget one key whose deadline is at or before *now*, and return it; None if there is none."""
        at = self.next()
        if at is None or at > now:
            return None
        key = heapq.heappop(self._heap)[1]
        del self._at[key]
        return key
