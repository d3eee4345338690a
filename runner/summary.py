"""Say in a few lines of text what a batch came to."""

from collections.abc import Iterator
from shlex import quote

from runner.cost import label
from runner.health import is_calm, is_grave
from runner.judge import said
from runner.plain import plain
from runner.states import Verdict
from runner.units import elapsed
from runner.values import JsonObject

ERRORS = 3
"""So many of a job's errors are shown, the commonest."""


COUNTED = ("runs", "succeeded", "failed", "cancelled", "skipped", "pending", "retried", "reused")
"""The counts of a batch that one line tells."""


def summary(health: JsonObject, folder: str) -> str:
    """
    What a batch came to, for a person: the verdict, why it is no pass, each job with its commonest errors, what to
    do next, and last the folder in a line by itself.
    """
    totals = health["batch"]
    under = f" with profile '{totals['profile']}'" if totals.get("profile") is not None else ""
    lines = [f"{health['verdict']}: {totals['name']} {totals['id']}{under}", *_why(health)]
    width = max((len(name) for name in health["jobs"]), default=0)
    for name, job in health["jobs"].items():
        lines.append(f"  {name:<{width}}  {_job(job)}")
        lines += [
            f"  {'':<{width}}  {error['count']} x {_first_line(error['message'])}" for error in job["errors"][:ERRORS]
        ]
    return "\n".join([*lines, *_next(health, folder), f"  {folder}"])


def sum_up(health: JsonObject, folder: str, exit_code: int) -> JsonObject:
    """
    What a batch came to, for a program: the object of ``--summary json``. Its fields are a contract: see
    docs/ci-and-metrics.md.
    """
    totals = health["batch"]
    return {
        "verdict": health["verdict"],
        "exit_code": exit_code,
        "name": totals["name"],
        "batch": totals["id"],
        "profile": totals.get("profile"),
        "folder": folder,
        "started_at": totals["started_at"],
        "ended_at": totals["ended_at"],
        **{word: totals[word] for word in COUNTED},
        "cost_usd": totals["cost_usd"],
        "cost_basis": totals["cost_basis"],
        "stopped": {name: job["stopped"] for name, job in health["jobs"].items() if job["stopped"]},
        "thresholds_broken": [plain(said(one)) for one in health["thresholds"] if not one["pass"]],
    }


def _why(health: JsonObject) -> Iterator[str]:
    """Why the batch is no pass, or not yet."""
    if health["verdict"] == Verdict.PASS:
        return
    reasons = [f"{name}: {job['stopped']}" for name, job in health["jobs"].items() if job["stopped"]]
    reasons += [f"threshold {said(one)}" for one in health["thresholds"] if not one["pass"]]
    totals = health["batch"]
    if totals["pending"]:
        reasons.append(f"{totals['pending']} of {_runs(totals['runs'])} pending")
        reasons += [
            f"endpoint {name}: {endpoint['diagnosis']}"
            for name, endpoint in health["endpoints"].items()
            if not is_calm(endpoint["diagnosis"])
        ]
    elif totals["succeeded"] < totals["runs"]:
        if not reasons:
            reasons.append(f"{totals['runs'] - totals['succeeded']} of {_runs(totals['runs'])} did not succeed")
        reasons += [
            f"endpoint {name}: {endpoint['diagnosis']}"
            for name, endpoint in health["endpoints"].items()
            if is_grave(endpoint["diagnosis"])
        ]
    yield from (f"  {plain(reason)}" for reason in reasons)


def _next(health: JsonObject, folder: str) -> Iterator[str]:
    """What to do about it. Who runs a batch says itself how a pending one goes on."""
    if health["verdict"] == Verdict.PASS:
        return
    if any(job["errors"] for job in health["jobs"].values()):
        yield "  results.jsonl has each run's error, log.jsonl what happened when"
    totals = health["batch"]
    if not totals["pending"] and totals["succeeded"] < totals["runs"]:
        yield f"  to run again what did not succeed: runner resume {quote(folder)} --retry-failed"


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _job(job: JsonObject) -> str:
    text = f"{job['succeeded']} of {job['runs']} succeeded"
    others = [f"{job['reused']} reused"] if job["reused"] else []
    others += [f"{count} {outcome}" for outcome, count in job["outcomes"].items() if outcome != "completed"]
    others += [f"{job[word]} {word}" for word in ("skipped", "pending") if job[word]]
    if others:
        text += " (" + ", ".join(others) + ")"
    if job["retried"]:
        text += f", {job['retried']} retried"
    if job["execution_time_ms"]["p50"] is not None:
        text += f", execution p50 {elapsed(job['execution_time_ms']['p50'] / 1000)}"
        text += f" p95 {elapsed(job['execution_time_ms']['p95'] / 1000)}"
    if job["cost_usd"] is not None:
        amount = f"{job['cost_usd']:.4f}"
        text += f", {label(amount, job.get('cost_basis'), job.get('cost_untold', 0))}"
    elif job.get("cost_untold"):
        text += f", cost unknown ({job['cost_untold']} told none)"
    if "waits_for" in job:
        text += f", waits for {', '.join(job['waits_for'])}"
    return text


def _first_line(message: str | None, width: int = 100) -> str:
    text = plain((message or "").strip().split("\n")[0]) or "(no message)"
    return text if len(text) <= width else text[: width - 1] + "…"
