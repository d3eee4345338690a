"""Decide when each call may go: exact sliding windows, and holding back after a 429. Pure; time is an argument."""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice

from runner.units import Rate

BUCKETS = {
    "run": "run",
    "runsync": "runsync",
    "status": "status",
    "status-sync": "status",
    "stream": "status",
    "cancel": "cancel",
    "retry": "run",
    "purge-queue": "purge",
    "health": "health",
}
"""
Which of the configured rates each operation counts against.

status, status-sync and stream share one. Source: RunPod docs, "Rate limits", as they stood until 2025; the current page
lists status and stream apart and leaves status-sync out, so sharing is the careful reading.
"""

HELD = ("status-sync", "stream", "runsync")
"""Operations whose answers the server may hold back: when one comes says nothing of when its request came there."""

ARRIVED_S = 1.0
"""A request that is held has surely come there after so long."""

ANSWERED_S = 10.0
"""After so long a request counts, whether its answer came or not: a server that hangs must not stop everything."""

CAREFUL_S = 60.0
"""For so long a window is kept smaller, or calls further apart, after a 429 that we may have brought about."""


MOST_OF_IT = 0.7
"""From this share of a rate on a 429 may be about its window."""


class Turn:
    """One call that went, for its window to know when the server counted it."""

    __slots__ = ("_answered_at", "_at_most", "at", "is_refused")

    def __init__(self, at: float, *, within_s: float = 0.0) -> None:
        self.at = at
        self.is_refused = False
        self._at_most = at + within_s
        self._answered_at: float | None = None

    def counted_at(self, now: float) -> float:
        """The latest time at which the server can have counted it, as far as that is known at *now*."""
        return min(now if self._answered_at is None else self._answered_at, self._at_most)

    def answered(self, now: float) -> None:
        """Its answer came, or will not come."""
        self._answered_at = now


class Window:
    """
    At most ``rate.count`` calls in any window of ``rate.period_s`` seconds, as the server counts them.

    A request is counted somewhere between leaving us and its answer, and nobody knows where. So a call goes a whole
    period after the answer to the one that was *count* calls before it: the server then counted that one earlier, and
    this one later, than a period apart. That is exact whatever the network does, and costs a round trip in a period.
    """

    def __init__(self, rate: Rate, past: Iterable[float] = ()) -> None:
        self._rate = rate
        self._spent: deque[Turn] = deque((Turn(at) for at in past), maxlen=rate.count)
        self._allowed = rate.count
        self._apart_s = 0.0
        self._careful_until = -math.inf

    def wait_s(self, now: float) -> float:
        """Seconds until a call may go, as far as is known now; 0 when one may go now."""
        allowed, wait_s = self._rate.count, 0.0
        if now < self._careful_until:
            allowed = self._allowed
            if self._apart_s and self._spent:
                wait_s = max(0.0, self._spent[-1].at + self._apart_s - now)
        if len(self._spent) < allowed:
            return wait_s
        return max(wait_s, self._spent[-allowed].counted_at(now) + self._rate.period_s - now, 0.0)

    def spend(self, now: float, *, within_s: float = 0.0) -> Turn:
        """Count a call that goes now, and is there *within_s* seconds if no answer comes before."""
        turn, spent = Turn(now, within_s=within_s), self._spent
        while spent and spent[0].counted_at(now) + self._rate.period_s <= now:
            spent.popleft()  # it can hold nothing up any more, and a generous rate would keep a million of them
        spent.append(turn)
        return turn

    def used(self, now: float, *, within_s: float) -> float:
        """The share of the rate that was in use in the last *within_s* seconds: 1 is all of it."""
        return self._since(now - within_s) / (self._rate.count * within_s / self._rate.period_s)

    def refused(self, turn: Turn, now: float) -> None:
        """
        The server said 429 to the call of *turn*. Its window may be stricter than ours: where most of the rate was in
        use, less is used for a while; where calls came in a burst, they come evenly for a while. If it was neither, so
        few went that it is about something else.
        """
        turn.is_refused = True
        if now < self._careful_until - CAREFUL_S + 1.0:
            return  # of the same burst
        rate, was_careful = self._rate, now < self._careful_until
        if not was_careful:
            self._allowed, self._apart_s = rate.count, 0.0
        even_s = rate.period_s / rate.count
        if self.used(now, within_s=rate.period_s) >= MOST_OF_IT:
            taken = sum(not one.is_refused for one in islice(reversed(self._spent), self._since(now - rate.period_s)))
            self._allowed = max(1, min(rate.count, round(0.95 * taken)))
        elif was_careful and self._apart_s:
            self._apart_s = min(2 * even_s, self._apart_s / 0.8)
        elif self.used(now, within_s=rate.period_s / 10) > 1.0:
            self._apart_s = even_s / 0.9
        else:
            return
        self._careful_until = now + CAREFUL_S

    def _since(self, at: float) -> int:
        count = 0
        for turn in reversed(self._spent):
            if turn.at <= at:
                break
            count += 1
        return count


class Pace:
    """When calls to one endpoint may go. Times are monotonic seconds."""

    def __init__(self, rates: Mapping[str, Rate], past: Mapping[str, Iterable[float]] | None = None) -> None:
        """*rates* has one entry for each bucket in `BUCKETS`; *past* are times of earlier calls, oldest first."""
        past = past or {}
        self.rates = rates
        self._windows = {bucket: Window(rate, past.get(bucket, ())) for bucket, rate in rates.items()}
        self._held_until = 0.0

    def wait_s(self, operation: str, now: float) -> float:
        """Seconds until *operation* may be called, as far as is known now; 0 when now."""
        return max(self._windows[BUCKETS[operation]].wait_s(now), self._held_until - now, 0.0)

    def spend(self, operation: str, now: float) -> Turn:
        """Count a call of *operation* that goes now; what is returned is to be told when it was answered."""
        within_s = ARRIVED_S if operation in HELD else ANSWERED_S
        return self._windows[BUCKETS[operation]].spend(now, within_s=within_s)

    def hold(self, until: float) -> None:
        """Let nothing go before *until*: RunPod said 429, and what it counts may be more than what we count."""
        self._held_until = max(self._held_until, until)

    def refused(self, operation: str, turn: Turn, now: float) -> None:
        """RunPod said 429 to *operation*, which went at *turn*: maybe at our own rate."""
        self._windows[BUCKETS[operation]].refused(turn, now)
