"""
Say what a batch came to in Prometheus's text format, for the textfile collector of node_exporter.

All metrics are gauges: a file speaks of one batch, and the next one begins again. The label of a job file's job is
`job_name`, for `job` is Prometheus's own.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from runner.cost import Basis
from runner.states import SETTLED, State, Verdict
from runner.values import JsonObject

SUFFIX = ".prom"
"""How the names of files end that node_exporter reads."""

METRICS = {
    "runner_verdict": "What the newest batch came to: 1 for its verdict, 0 for the others.",
    "runner_started_timestamp_seconds": "When the newest batch was started.",
    "runner_ended_timestamp_seconds": "When the newest batch ended.",
    "runner_last_success_timestamp_seconds": "When the newest batch ended that passed.",
    "runner_runs": "Runs of the newest batch by state.",
    "runner_run_outcomes": "Runs of the newest batch by how their last attempt ended.",
    "runner_retried_runs": "Runs of the newest batch that took more than one attempt.",
    "runner_reused_runs": "Runs of the newest batch that have the result of an earlier one.",
    "runner_execution_time_seconds": "Time of runs on their workers.",
    "runner_delay_time_seconds": "Time of runs in the queue.",
    "runner_execution_cost_usd": "What execution cost in the newest batch, a lower bound of the bill.",
    "runner_cost_usd": "What the newest batch cost, as far as its basis tells: exact, mixed or execution.",
    "runner_threshold_holds": "Whether the newest batch holds a threshold.",
}
"""Each metric with its help, in the order of the file. Names and helps are the same in every file, as they must be."""

_Sample = tuple[str, Mapping[str, str], float]


def document(health: JsonObject, *, last_success_at: float | None) -> bytes:
    """
    The file for *health*, the object of health.json; *last_success_at* (seconds since the epoch) is when the newest
    batch of this job file ended that passed, None where none is known.

    A number that nobody knows has no line.
    """
    found: dict[str, list[str]] = {name: [] for name in METRICS}
    for name, labels, value in _samples(health, last_success_at):
        found[name].append(f"{name}{_labels({'batch': health['batch']['name'], **labels})} {_number(value)}\n")
    return "".join(_family(name, lines) for name, lines in found.items() if lines).encode()


def ended_at(health: JsonObject) -> float | None:
    """When the batch of *health* ended, in seconds since the epoch; None while it has not."""
    return _at(health["batch"]["ended_at"])


def _family(name: str, lines: Iterable[str]) -> str:
    return f"# HELP {name} {METRICS[name]}\n# TYPE {name} gauge\n{''.join(lines)}"


def _samples(health: JsonObject, last_success_at: float | None) -> Iterator[_Sample]:
    for verdict in Verdict:
        yield "runner_verdict", {"verdict": verdict.value}, float(health["verdict"] == verdict)
    times = {
        "started": _at(health["batch"]["started_at"]),
        "ended": ended_at(health),
        "last_success": last_success_at,
    }
    for word, at in times.items():
        if at is not None:
            yield f"runner_{word}_timestamp_seconds", {}, at
    for name, job in health["jobs"].items():
        yield from _job({"job_name": name}, job)
    for one in health["thresholds"]:
        of = {"job_name": one["job"]} if one.get("job") else {}
        yield "runner_threshold_holds", of | {"threshold": f"{one['name']} {one['bound']}"}, float(one["pass"])


def _job(label: Mapping[str, str], job: JsonObject) -> Iterator[_Sample]:
    for state in (*(state.value for state in State if state in SETTLED), "pending"):
        yield "runner_runs", {**label, "state": state}, job[state]
    for outcome, count in job["outcomes"].items():
        yield "runner_run_outcomes", {**label, "outcome": outcome}, count
    yield "runner_retried_runs", label, job["retried"]
    yield "runner_reused_runs", label, job["reused"]
    for time in ("execution_time", "delay_time"):
        for statistic, value_ms in job[f"{time}_ms"].items():
            if value_ms is not None:
                yield f"runner_{time}_seconds", {**label, "statistic": statistic}, value_ms / 1000
    if job["cost_usd"] is not None:
        basis = job.get("cost_basis") or Basis.EXECUTION
        if basis == Basis.EXECUTION:
            yield "runner_execution_cost_usd", label, job["cost_usd"]
        yield "runner_cost_usd", {**label, "basis": str(basis)}, job["cost_usd"]


def _at(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _labels(named: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in named.items()) + "}"


def _escaped(foreign: str) -> str:
    """*foreign* as the value of a label: a backslash, a quote and a line's end are the only ones that need it."""
    return foreign.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
