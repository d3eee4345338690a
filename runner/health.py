"""Say why an endpoint behaves as it does, purely, from a look at its ``/health``."""

from collections.abc import Mapping

from runner.events import Sampled

PAUSED = "paused: it allows no workers; set its max workers above 0"
"""The diagnosis of an endpoint that answers 409, and the problem of a sample that met it."""

CALM = ("idle", "working", "not looked at")
"""How a diagnosis begins that asks nothing of anybody."""


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


def diagnosis(sample: Sampled | None) -> str:
    """
    One sentence on the endpoint that *sample* was taken of: what its counters mean, and which setting to look at.

    Counters that RunPod did not send are unknown, not zero. Source of the readings: RunPod docs, "Endpoint health", and
    the official MCP server's queue diagnosis (summer 2026).
    """
    if sample is None:
        return "not looked at"
    if sample.problem is not None:
        return PAUSED if sample.problem == PAUSED else f"can't be told: {sample.problem}"
    workers, queued, taken = sample.workers, sample.jobs.get("inQueue", 0), sample.jobs.get("inProgress")
    running = workers.get("running", 0) or taken or 0
    if running and taken == 0:  # it runs because it has just ended a job, or although it takes none
        if not queued:
            return "idle: nothing waits and nothing runs"
        up = f"{_count(running, 'worker')} up that took none"
        return f"stalled: {_count(queued, 'job')} waiting, {up}; if that lasts, see the workers' logs"
    if running and queued:
        return f"saturated: {_count(running, 'worker')} busy, {_count(queued, 'job')} waiting; more workers would help"
    if running:
        return f"working: {_count(running, 'worker')} busy, nothing waits"
    if workers.get("unhealthy", 0):
        crashing = _count(workers["unhealthy"], "worker")
        return f"crash-looping: {crashing} unhealthy, so jobs may wait for ever; see the workers' logs"
    if not queued:
        return "idle: nothing waits and nothing runs"
    waiting = _count(queued, "job")
    if workers.get("throttled", 0):
        short = _count(workers["throttled"], "worker")
        return f"throttled: {waiting} waiting, {short} without a free GPU; allow more GPU types or regions"
    if workers.get("initializing", 0):
        return f"cold start: {waiting} waiting, {_count(workers['initializing'], 'worker')} starting"
    if not any(workers.values()):
        return f"stuck: {waiting} waiting and no worker; check max workers, GPU types and regions"
    return f"starting: {waiting} waiting, no worker has taken one yet"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
