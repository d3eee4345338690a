"""Say in a few lines of text what a batch came to."""

from runner.plain import plain
from runner.units import elapsed
from runner.values import JsonObject


def summary(health: JsonObject, folder: str) -> str:
    """What a batch came to, for a person: the verdict, each job, its commonest errors, where the files are."""
    totals = health["batch"]
    lines = [f"{health['verdict']}: {totals['name']} {totals['id']}"]
    width = max((len(name) for name in health["jobs"]), default=0)
    for name, job in health["jobs"].items():
        lines.append(f"  {name:<{width}}  {_job(job)}")
        lines += [f"  {'':<{width}}  {error['count']} x {_first_line(error['message'])}" for error in job["errors"][:3]]
    return "\n".join([*lines, f"  {folder}"])


def _job(job: JsonObject) -> str:
    text = f"{job['succeeded']} of {job['runs']} succeeded"
    others = [f"{count} {outcome}" for outcome, count in job["outcomes"].items() if outcome != "completed"]
    others += [f"{job[word]} {word}" for word in ("skipped", "pending") if job[word]]
    if others:
        text += " (" + ", ".join(others) + ")"
    if job["retried"]:
        text += f", {job['retried']} retried"
    if job["execution_time_ms"]["p50"] is not None:
        text += f", execution p50 {elapsed(job['execution_time_ms']['p50'] / 1000)}"
        text += f" p95 {elapsed(job['execution_time_ms']['p95'] / 1000)}"
    if job["cost_usd"] is not None:
        text += f", at least {job['cost_usd']:.4f} USD"
    return text


def _first_line(message: str | None, width: int = 100) -> str:
    text = plain((message or "").strip().split("\n")[0])
    return text if len(text) <= width else text[: width - 1] + "…"
