"""Say in sentences what a health report says in numbers. Pure."""

from runner.judge import said
from runner.page.words import number, several, share
from runner.states import Verdict
from runner.values import JsonObject

RUNNING, UNFINISHED = "running", "unfinished"


def sentence(health: JsonObject) -> str:
    """What the batch came to, in a sentence or two."""
    totals, verdict = health["batch"], health["verdict"]
    runs, pending = totals["runs"], totals["pending"]
    if verdict == RUNNING:
        return f"{_of(runs - pending, runs)} settled, {number(totals['succeeded'])} succeeded so far."
    if verdict == UNFINISHED:
        return f"{_of(pending, runs)} pending, and no process carries the batch on."
    if not runs:
        return "No run was planned: there was nothing to do."
    came = f"All {several(runs, 'run')} succeeded." if totals["succeeded"] == runs else f"{_came(totals)}."
    if runs == 1 and totals["succeeded"]:
        came = "The one run succeeded."
    reasons = [held for held in (_held(health),) if held]
    reasons += [f"Job {name} was stopped: {job['stopped']}." for name, job in health["jobs"].items() if job["stopped"]]
    if verdict == Verdict.INTERRUPTED:
        reasons.append("It was interrupted.")
    if verdict == Verdict.REFUSED:
        reasons.append("An endpoint refused us.")
    return " ".join([*reasons, came])


def _came(totals: JsonObject) -> str:
    runs = totals["runs"]
    parts = [f"{_of(totals['succeeded'], runs)} succeeded ({share(totals['succeeded'], runs)})"]
    parts += [
        f"{number(totals[word])} {word}" for word in ("failed", "cancelled", "skipped", "pending") if totals[word]
    ]
    return ", ".join(parts)


def _held(health: JsonObject) -> str:
    """Whether the thresholds hold; nothing while runs are pending, for they may still change that."""
    count = len(health["thresholds"])
    broken = sum(not one["pass"] for one in health["thresholds"])
    if not count or health["batch"]["pending"]:
        return ""
    every = {1: "The threshold", 2: "Both thresholds"}.get(count, f"All {count} thresholds")
    if not broken:
        return f"{every} {'holds' if count == 1 else 'hold'}."
    if broken == count:
        return f"{every} {'is' if count == 1 else 'are'} broken."
    return f"{broken} of {count} thresholds {'is' if broken == 1 else 'are'} broken."


def bounds(health: JsonObject) -> list[tuple[str, bool]]:
    """Each threshold with its number, and whether it holds."""
    return [(said(one), one["pass"]) for one in health["thresholds"]]


def _of(part: int, whole: int) -> str:
    return f"{number(part)} of {several(whole, 'run')}"
