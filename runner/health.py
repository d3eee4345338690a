"""Say why an endpoint behaves as it does, purely, from a look at its ``/health``."""

from runner.events import Sampled


def diagnosis(sample: Sampled | None) -> str:
    """
    One sentence on the endpoint that *sample* was taken of: what its counters mean, and which setting to look at.

    Counters that RunPod did not send are unknown, not zero. Source of the readings: RunPod docs, "Endpoint health", and
    the official MCP server's queue diagnosis (summer 2026).
    """
    if sample is None:
        return "not looked at"
    if sample.problem is not None:
        return f"can't be told: {sample.problem}"
    workers, queued = sample.workers, sample.jobs.get("inQueue", 0)
    running = workers.get("running", 0) or sample.jobs.get("inProgress", 0)
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
