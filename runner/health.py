"""Say why an endpoint behaves as it does, purely, from a look at its ``/health`` and what changed since others."""

from collections.abc import Mapping

from runner.events import Sampled
from runner.records import record

PAUSED = "paused: it allows no workers; set its max workers above 0"
"""The problem of a sample of an endpoint that answers 409."""

CALM = ("idle", "working", "not looked at", "was ")
"""How a diagnosis begins that asks nothing of anybody now."""

MILD = ("cold start", "saturated", "starting")
"""What a busy endpoint may well be: worth a word, no reason to worry."""

BLIND = "can't be told"
"""The word for an endpoint whose health can't be read."""

RETRIES = 2
"""So many jobs that RunPod ran again, and half as many as run, are no accident while none completed."""

STARTS_S = 30.0
"""Idle workers that take nothing for so long don't merely wake up."""

INIT_LIMIT_S = 420.0
"""RunPod calls a worker unhealthy that starts for longer. Source: RunPod docs, "Workers" (read August 2026)."""

CRASHING = "see their logs in RunPod's console, then the endpoint's container image, start command and env variables"
DYING = "see the workers' logs in RunPod's console, and if memory runs out, choose GPU types with more of it"
SCARCE = "allow more GPU types or data centers"
NONE = "set max workers above 0, and where it is, allow more GPU types or data centers"
STALLED = "see the workers' logs in RunPod's console, then the endpoint's start command and container image"
COLD = "to start less often, turn FlashBoot on, or raise the idle timeout or active workers"
SLOW_START = "set RUNPOD_INIT_TIMEOUT above the 7 min that RunPod allows, or make the image or model load faster"
FULL = "to be done sooner, raise max workers"


@record(frozen=True, slots=True)
class Past:
    """
    What the looks before one tell about it.

    *completed* and *retried* are how many jobs were so in the last minutes, *has_moved* whether a job ended since the
    look before. *stood_s* is for how long now jobs wait that nobody takes; None when a look is the first of these.
    """

    completed: int = 0
    retried: int = 0
    has_moved: bool = False
    stood_s: float | None = None


FIRST = Past()
"""Nothing: there was no look before."""


@record(frozen=True, slots=True)
class Diagnosis:
    """
    What is the matter with an endpoint: a *word* for it, what was *seen*, and the setting that mends it.

    *fix* is None where there is nothing to mend, or nobody can tell what. *is_sure* is False where another look some
    seconds later may well say something else.
    """

    word: str
    seen: str = ""
    fix: str | None = None
    is_sure: bool = True

    @property
    def is_calm(self) -> bool:
        """Whether it asks nothing of anybody."""
        return is_calm(self.word)

    def sentence(self, when: str = "") -> str:
        """All of it in a sentence; *when* says since when it is so."""
        text = f"{self.word}: {self.seen}{when}" if self.seen else self.word
        return f"{text}; {self.fix}" if self.fix else text


def workers_up(workers: Mapping[str, int]) -> int | None:
    """
    How many workers the counters of ``/health`` show that take jobs; None when they don't say.

    ``ready`` and ``idle`` count the same workers, and ``running`` others. RunPod documents none of them. Source: live
    answers that users of the service published in 2026, such as idle 2, ready 2, running 1, then 1, 1, 3, then 0, 0, 3.
    Idle ones may be scaled down, and cost nothing until a job wakes them.
    """
    told = [workers[name] for name in ("idle", "ready", "running") if name in workers]
    waiting = max(workers.get("idle", 0), workers.get("ready", 0))
    return waiting + workers.get("running", 0) if told else None


def is_calm(said: str) -> bool:
    """Whether the diagnosis *said* asks nothing of anybody."""
    return said.startswith(CALM)


def is_grave(said: str) -> bool:
    """Whether the diagnosis *said* may be why runs did not succeed, be it over by now or not."""
    word = said.removeprefix("was ")
    return not word.startswith((*CALM, *MILD, BLIND))


def is_standing(sample: Sampled) -> bool:
    """Whether jobs wait and no worker has one."""
    taken = sample.jobs.get("inProgress")
    has_any = sample.workers.get("running", 0) if taken is None else taken
    return bool(sample.jobs.get("inQueue", 0)) and not has_any


def diagnosis(sample: Sampled | None, past: Past = FIRST, *, is_awaited: bool = False) -> Diagnosis:
    """
    What is the matter with the endpoint that *sample* was taken of, in the light of the looks before.

    Counters that RunPod did not send are unknown, not zero. With *is_awaited* somebody waits for workers although
    nothing is queued. Source of the readings: RunPod docs, "Endpoint health", and the official MCP server's queue
    diagnosis (summer 2026).
    """
    if sample is None:
        return Diagnosis("not looked at")
    if sample.problem == PAUSED:
        return Diagnosis("paused", "it answers 409, for it allows no workers", "set its max workers above 0")
    if sample.problem is not None:
        return Diagnosis(BLIND, sample.problem)
    workers, queued, taken = sample.workers, sample.jobs.get("inQueue", 0), sample.jobs.get("inProgress")
    running, unhealthy = workers.get("running", 0), workers.get("unhealthy", 0)
    throttled, starting = workers.get("throttled", 0), workers.get("initializing", 0)
    up = max(workers_up(workers) or 0, taken or 0)
    of_all = up + unhealthy + throttled + starting
    # One that runs without a job has just ended one, if jobs end; else it takes none.
    busy = 0 if taken == 0 and queued and not past.has_moved else running or taken or 0
    idle = taken == 0 and not queued
    waiting = _waiting(queued)
    if unhealthy:
        rest = f", {up} up" if up else ", none up"
        return Diagnosis("crash-looping", f"{_part(unhealthy, of_all)} unhealthy{rest}{waiting}", CRASHING)
    if past.retried >= max(RETRIES, (taken or 0) / 2) and not past.completed and (queued or taken):
        seen = f"{_count(past.retried, 'job')} tried again as their workers died, and none completed{waiting}"
        return Diagnosis("crash-looping", seen, DYING)
    if not queued and not is_awaited:
        if busy and not idle:
            return Diagnosis("working", f"{_count(busy, 'worker')} busy, nothing waits")
        return Diagnosis("idle", "nothing waits and nothing runs")
    if throttled and throttled >= busy:
        rest = f", {busy} busy" if busy else ""
        return Diagnosis("throttled", f"{_part(throttled, of_all)} without a free GPU{rest}{waiting}", SCARCE)
    if busy:
        return _busy(busy, starting, throttled, waiting)
    if starting:
        fix = SLOW_START if (past.stood_s or 0) >= INIT_LIMIT_S else COLD
        return Diagnosis("cold start", f"{_part(starting, of_all)} starting{waiting}", fix)
    if not up:
        return Diagnosis("no workers", f"not one worker{waiting}", NONE, is_sure=past.stood_s is not None)
    if running or (past.stood_s or 0) >= STARTS_S:
        seen = f"{_count(up, 'worker')} up that took none{waiting}"
        return Diagnosis("stalled", seen, STALLED, is_sure=past.stood_s is not None)
    return Diagnosis("starting", f"{_count(up, 'worker')} up that took none yet{waiting}", is_sure=False)


def _busy(busy: int, starting: int, throttled: int, waiting: str) -> Diagnosis:
    """What is to be said where jobs wait and workers work."""
    others = f", {starting} starting" if starting else ""
    others += f", {throttled} without a free GPU" if throttled else ""
    seen = f"{_count(busy, 'worker')} busy{others}{waiting}"
    if starting:
        return Diagnosis("working", seen)
    return Diagnosis("saturated", seen, f"{FULL}, or {SCARCE}" if throttled else FULL)


def _waiting(queued: int) -> str:
    return f", {_count(queued, 'job')} waiting" if queued else ""


def _part(number: int, of_all: int) -> str:
    """``2 of 4 workers``."""
    return f"{number} of {_count(of_all, 'worker')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
