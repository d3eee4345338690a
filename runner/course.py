"""What all looks at one endpoint came to: how it is, since when, and what it was most of the time. Pure."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from runner.clock import iso
from runner.events import Sampled
from runner.health import BLIND, FIRST, MILD, Diagnosis, Past, diagnosis, is_grave, is_standing
from runner.values import JsonObject

WINDOW_S = 300.0
"""How far back jobs count that completed or were run again."""

GAP_S = 3600.0
"""Nobody knows what was between two looks that are so far apart, or more than this."""

SHARE = 0.1
"""What a busy endpoint may well be is told afterwards if it was so in this part of the looks."""

ONCE = ("paused", "cold start")
"""What one look is enough for, to be told afterwards."""

ENDED = ("completed", "failed")


@dataclass(slots=True)
class _Spell:
    """
    Looks that found the same, from *since* to *until* (seconds since the epoch). *peak* is what was seen when most jobs
    waited, *newest* what was seen last.
    """

    since: float
    until: float
    newest: Diagnosis
    peak: Diagnosis
    looks: int = 0
    most_queued: int = -1

    def add(self, found: Diagnosis, sample: Sampled) -> None:
        self.until, self.newest = sample.at, found
        self.looks += 1
        queued = sample.jobs.get("inQueue", 0)
        if queued >= self.most_queued:
            self.most_queued, self.peak = queued, found


@dataclass(slots=True)
class Course:
    """The looks at one endpoint, told one by one in their order; what is kept does not grow with them."""

    looks: int = 0
    _recent: deque[Sampled] = field(default_factory=deque)
    _spell: _Spell | None = None
    _blind: _Spell | None = None  # while the newest look failed; what it was before may still be so
    _ever: dict[str, _Spell] = field(default_factory=dict)
    _standing_since: float | None = None
    _newest: Sampled | None = None
    _told: str = ""

    def add(self, sample: Sampled) -> str | None:
        """
        Take in a look; what is to be said of it where it finds another state than the one that was said last.

        Of one that failed whoever looked has said it.
        """
        past = self._past(sample)
        found = diagnosis(sample, past)
        self.looks += 1
        newest, self._newest = self._newest, sample
        if newest is not None and sample.at - newest.at >= GAP_S:
            self._spell = self._blind = None
        if sample.problem is not None:
            self._blind = self._going_on(self._blind, found, sample)
        else:
            self._blind = None
            self._spell = self._going_on(self._spell, found, sample)
        ever = self._ever.get(found.word)
        if ever is None:
            ever = self._ever[found.word] = _Spell(self._since(found, sample), sample.at, found, found)
        ever.add(found, sample)
        if not found.is_sure or found.word in (self._told, BLIND):
            return None
        is_news = bool(self._told) or not found.is_calm
        self._told = found.word
        return self.now() if is_news else None

    def _past(self, sample: Sampled) -> Past:
        if sample.problem is not None:
            return FIRST
        recent = self._recent
        while len(recent) > 1 and sample.at - recent[0].at > WINDOW_S:
            recent.popleft()
        if recent and sample.at - recent[-1].at >= GAP_S:
            recent.clear()
        has_moved = bool(recent) and any(_growth(recent[-1], sample, word) for word in ENDED)
        stood_s = None
        if not is_standing(sample) or has_moved:
            self._standing_since = None
        elif self._standing_since is None or not recent:
            self._standing_since = sample.at
        else:
            stood_s = sample.at - self._standing_since
        recent.append(sample)
        return Past(
            completed=_growth(recent[0], sample, "completed"),
            retried=_growth(recent[0], sample, "retried"),
            has_moved=has_moved,
            stood_s=stood_s,
        )

    def _going_on(self, spell: _Spell | None, found: Diagnosis, sample: Sampled) -> _Spell:
        if spell is None or spell.newest.word != found.word:
            spell = _Spell(self._since(found, sample), sample.at, found, found)
        spell.add(found, sample)
        return spell

    def _since(self, found: Diagnosis, sample: Sampled) -> float:
        """When it began: what is called stalled was waiting before."""
        if found.word == "stalled" and self._standing_since is not None:
            return self._standing_since
        return sample.at

    @property
    def newest(self) -> Diagnosis:
        """What the newest look found."""
        spell = self._blind or self._spell
        return diagnosis(None) if spell is None else spell.newest

    @property
    def sample(self) -> Sampled | None:
        """The newest look itself; None while there was none."""
        return self._newest

    def now(self) -> str:
        """How it is, in a sentence."""
        spell = self._blind or self._spell
        if spell is None:
            return self.newest.sentence()
        lasts = spell.looks > 1 and not spell.newest.is_calm
        return spell.newest.sentence(f", since {_moment(spell.since, spell.until)} UTC" if lasts else "")

    def over_all(self) -> str:
        """How it is, in a sentence; if it is well, what it was before that slowed the batch."""
        worst = self._worst() if self.newest.is_calm else None
        if worst is None:
            return self.now()
        peak, first, last = worst.peak, _moment(worst.since, worst.until), _moment(worst.until, worst.until)
        when = f", in {worst.looks} of {self.looks} looks, from {first} to {last} UTC"
        return Diagnosis(f"was {peak.word}", peak.seen, peak.fix).sentence(when)

    def _worst(self) -> _Spell | None:
        """What it was in most looks, of what is grave; else of what is not."""
        told = {word: spell for word, spell in self._ever.items() if self._is_much(spell)}
        grave = [spell for word, spell in told.items() if is_grave(word)]
        mild = [spell for word, spell in told.items() if word in MILD and spell.peak.fix]
        return max(grave or mild, key=lambda spell: spell.looks, default=None)

    def _is_much(self, spell: _Spell) -> bool:
        word = spell.newest.word
        if word in MILD and spell.looks < SHARE * self.looks:
            return False
        return spell.looks > 1 or word in ONCE

    def evidence(self) -> JsonObject:
        """
        What the sentences are made of: since when it is as it is, in how many looks; what the jobs did in the last
        minutes; and in how many looks it was what.
        """
        spell = self._blind or self._spell
        if spell is None:
            return {}
        oldest = self._recent[0] if self._recent else None
        lately: JsonObject = {}
        if oldest is not None and len(self._recent) > 1:
            newest = self._recent[-1]
            lately = {word: _growth(oldest, newest, word) for word in (*ENDED, "retried")}
            lately["over_s"] = round(newest.at - oldest.at, 3)
        return {
            "condition": spell.newest.word,
            "since": iso(spell.since),
            "until": iso(spell.until),
            "looks": spell.looks,
            "most_waiting": max(0, spell.most_queued),
            "lately": lately,
            "conditions": {
                word: {
                    "looks": one.looks,
                    "since": iso(one.since),
                    "until": iso(one.until),
                    "most_waiting": max(0, one.most_queued),
                }
                for word, one in self._ever.items()
            },
        }


def course(samples: Iterable[Sampled]) -> Course:
    """The course of the looks *samples* at one endpoint."""
    made = Course()
    for sample in samples:
        made.add(sample)
    return made


def _growth(before: Sampled, after: Sampled, word: str) -> int:
    """How much a counter grew; one that was set back, or that is not there, did not."""
    if word not in before.jobs or word not in after.jobs:
        return 0
    return max(0, after.jobs[word] - before.jobs[word])


def _moment(at: float, now: float) -> str:
    """The time of day of *at*, with its date where that is not the date of *now*."""
    then = datetime.fromtimestamp(at, UTC)
    is_today = then.date() == datetime.fromtimestamp(now, UTC).date()
    return f"{then:%H:%M:%S}" if is_today else f"{then:%Y-%m-%d %H:%M:%S}"
