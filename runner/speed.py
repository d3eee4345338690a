"""How fast a job goes, of late: runs a second, USD an hour, time left. Pure; time is an argument."""

from collections.abc import Callable
from dataclasses import dataclass

SPACING_S = 1.0
"""What was seen is kept so far apart at first."""

MOST = 600
"""So many moments are kept at most; then every other one goes, and those that come are twice as far apart."""

LATELY_S = 60.0
"""Of late is the last minute, or the last quarter of the time, whichever is longer."""

_SHORTEST_S = 1.0
"""After less than this nobody knows how fast it goes."""


@dataclass(frozen=True, slots=True)
class _Moment:
    at_s: float
    settled: int
    usd: float | None


class Speed:
    """
    How fast one job goes, or all together. *settled* are the runs that this process settled: what an earlier one did,
    or an earlier batch, took it no time.
    """

    def __init__(self) -> None:
        self._seen: list[_Moment] = []
        self._spacing_s = SPACING_S
        self._now: _Moment | None = None

    def saw(self, at_s: float, settled: int, usd: float | None) -> None:
        """At *at_s*, seconds on any one clock, so many runs are settled, and *usd* is spent; None is not known."""
        self._now = _Moment(at_s, settled, usd)
        if self._seen and at_s - self._seen[-1].at_s < self._spacing_s:
            return
        self._seen.append(self._now)
        if len(self._seen) > MOST:
            del self._seen[1::2]
            self._spacing_s *= 2

    @property
    def runs_per_s(self) -> float | None:
        """Runs settled in a second; None while nothing tells."""
        span = self._span(lambda before, now: now.settled > before.settled)
        return None if span is None else (span[1].settled - span[0].settled) / (span[1].at_s - span[0].at_s)

    @property
    def usd_per_h(self) -> float | None:
        """USD spent in an hour; None while nothing tells."""
        span = self._span(lambda before, now: before.usd != now.usd)
        if span is None or span[1].usd is None:
            return None
        return (span[1].usd - (span[0].usd or 0.0)) / (span[1].at_s - span[0].at_s) * 3600

    def left_s(self, pending: int) -> float | None:
        """How long *pending* runs will take at this; None while nothing tells, and when none is left."""
        per_s = self.runs_per_s
        return pending / per_s if per_s and pending else None

    def _span(self, has_moved: Callable[[_Moment, _Moment], bool]) -> tuple[_Moment, _Moment] | None:
        """The beginning and the end of what is of late, or where nothing has moved in that, of all the time."""
        now = self._now
        if now is None or now.at_s - self._seen[0].at_s < _SHORTEST_S:
            return None
        lately_s = max(LATELY_S, (now.at_s - self._seen[0].at_s) / 4)
        late = next(one for one in self._seen if one is self._seen[-1] or one.at_s >= now.at_s - lately_s)
        for before in (late, self._seen[0]):
            if now.at_s - before.at_s >= _SHORTEST_S and has_moved(before, now):
                return before, now
        return None
