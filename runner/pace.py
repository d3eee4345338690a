"""Decide when each call may go: exact sliding windows, and holding back after a 429. Pure; time is an argument."""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice

from runner.policy import backoff_s
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
    "batch": "batch",
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

HERE_AND_THERE = 0.1
"""A share of refusals that is no more than this, though we are careful already, is not our doing."""

GROWS_PER_S = 0.01
"""The share of a rate by which a smaller window grows in a second, once it may: what is too much shows at once."""

IN_A_ROW = 3
"""So many calls refused in a row are no chance: RunPod takes no more of them for now."""


def again_s(refusals: int, jitter: float) -> float:
    """Seconds until a call goes again that was refused *refusals* times in a row (1 or more); others go on."""
    return backoff_s(refusals, initial_s=0.2, most_s=10.0, jitter=jitter)


class Turn:
    """One call that went, for its window to know when the server counted it."""

    __slots__ = ("_answered_at", "_at_most", "at", "is_refused", "is_taken")

    def __init__(self, at: float, *, within_s: float = 0.0) -> None:
        self.at = at
        self.is_refused = False
        self.is_taken = False
        self._at_most = at + within_s
        self._answered_at: float | None = None

    def counted_at(self, now: float) -> float:
        """The latest time at which the server can have counted it, as far as that is known at *now*."""
        return min(now if self._answered_at is None else self._answered_at, self._at_most)

    def answered(self, now: float) -> None:
        """Its answer came, or will not come."""
        self._answered_at = now

    def was_taken(self, now: float) -> bool:
        """Whether the server let it in: it answered, or has it since so long that a 429 would have come by now."""
        return self.is_taken or (self._answered_at is None and self._at_most <= now)


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
        if self._allowed < allowed:
            grown = min(1.0, max(0.0, now - self._careful_until) * GROWS_PER_S)
            allowed = min(allowed, self._allowed + math.floor(grown * allowed))
        if self._apart_s and self._spent and now < self._careful_until:
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
        rate, was_careful = self._rate, now < self._careful_until
        gone = self._since(now - rate.period_s)
        taken = sum(not one.is_refused for one in islice(reversed(self._spent), gone))
        smaller = max(1, min(rate.count, round(0.95 * taken)))
        if now < self._careful_until - CAREFUL_S + 1.0:  # of the same burst: more of what had gone was not taken
            if self._allowed < rate.count:
                self._allowed = min(self._allowed, smaller)
            return
        if was_careful and gone - taken <= HERE_AND_THERE * gone:
            return
        if not was_careful:
            self._apart_s = 0.0
        even_s = rate.period_s / rate.count
        if self.used(now, within_s=rate.period_s) >= MOST_OF_IT:
            self._allowed = smaller
        elif was_careful and self._apart_s:
            self._apart_s = min(2 * even_s, self._apart_s / 0.8)
        elif self.used(now, within_s=rate.period_s / 10) > 1.0:
            self._apart_s, self._allowed = even_s / 0.9, rate.count
        else:
            return
        self._careful_until = now + CAREFUL_S

    def took(self, since: float, now: float) -> bool:
        """Whether a call was taken that went at *since* or later."""
        for turn in reversed(self._spent):
            if turn.at < since:
                break
            if turn.was_taken(now):
                return True
        return False

    def _since(self, at: float) -> int:
        count = 0
        for turn in reversed(self._spent):
            if turn.at <= at:
                break
            count += 1
        return count


class Row:
    """
    Refusals of one bucket, for as long as nothing is taken: whether they are about each call, or about all.

    A server that takes no more refuses whatever comes; one that has a bad moment refuses here and there. So a refusal
    counts only while no call that went with it, or after it, was taken.
    """

    def __init__(self, window: Window) -> None:
        self.held_until = -math.inf
        self._window = window
        self._began_at = math.inf
        self._count = 0
        self._holds = 0

    def taken(self, turn: Turn) -> None:
        """The call of *turn* was taken."""
        turn.is_taken = True
        if turn.at >= self._began_at:
            self._end()

    def refused(self, turn: Turn, now: float, jitter: float) -> bool:
        """The call of *turn* was refused; whether that is about the others as well, which are held back then."""
        if self._count and self._window.took(self._began_at, now):
            self._end()
        if self._window.took(turn.at, now):
            return False
        self._began_at = min(self._began_at, turn.at)
        self._count += 1
        if self._count < IN_A_ROW:
            return False
        if turn.at >= self.held_until:  # of many that were under way together one counts
            self._holds += 1
            self.held_until = now + backoff_s(self._holds, initial_s=1.0, most_s=60.0, jitter=jitter)
        return True

    def _end(self) -> None:
        self._began_at, self._count, self._holds = math.inf, 0, 0


class Pace:
    """When calls to one endpoint may go. Times are monotonic seconds."""

    def __init__(self, rates: Mapping[str, Rate], past: Mapping[str, Iterable[float]] | None = None) -> None:
        """*rates* has one entry for each bucket in `BUCKETS`; *past* are times of earlier calls, oldest first."""
        past = past or {}
        self.rates = rates
        self._windows = {bucket: Window(rate, past.get(bucket, ())) for bucket, rate in rates.items()}
        self._rows = {bucket: Row(window) for bucket, window in self._windows.items()}
        self._held_until = 0.0

    def wait_s(self, operation: str, now: float) -> float:
        """Seconds until *operation* may be called, as far as is known now; 0 when now."""
        bucket = BUCKETS[operation]
        held_until = max(self._held_until, self._rows[bucket].held_until)
        return max(self._windows[bucket].wait_s(now), held_until - now, 0.0)

    def spend(self, operation: str, now: float) -> Turn:
        """Count a call of *operation* that goes now; what is returned is to be told when it was answered."""
        within_s = ARRIVED_S if operation in HELD else ANSWERED_S
        return self._windows[BUCKETS[operation]].spend(now, within_s=within_s)

    def hold(self, until: float) -> None:
        """Let nothing go before *until*: RunPod said when to come again, and nobody knows what it counts."""
        self._held_until = max(self._held_until, until)

    def taken(self, operation: str, turn: Turn) -> None:
        """RunPod did not say 429 to *operation*, which went at *turn*."""
        self._rows[BUCKETS[operation]].taken(turn)

    def refused(
        self, operation: str, turn: Turn, now: float, *, retry_after_s: float | None = None, jitter: float = 0.0
    ) -> bool:
        """
        RunPod said 429 to *operation*, which went at *turn*: maybe at our own rate.

        *retry_after_s* is what it asked for; None or 0 means that it did not say. *jitter* is in [0, 1). True when
        others are held back as well; else only this call is to wait (`again_s`).
        """
        bucket = BUCKETS[operation]
        self._windows[bucket].refused(turn, now)
        is_full = self._rows[bucket].refused(turn, now, jitter)
        if not retry_after_s:
            return is_full
        self.hold(now + retry_after_s)
        return True
