"""What lines of results.jsonl say of how their runs ended, and jobs that differ in mode alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fake_http import Reply
from scripted import SILENT, Carried

from runner.values import MISSING, JsonObject, JsonValue

MODES: Mapping[str, str] = MappingProxyType({"async": "async", "sync": "sync", "stream": "stream"})
"""The modes, by the name of a job that has it."""


def patience(*replies: Reply) -> dict[str, Any]:
    """Keys of a job that waits for no answer for long, where one of *replies* is none."""
    return {"timeouts": {"request": "400ms"}} if SILENT in replies else {}


def jobs(keys: Mapping[str, Any], ways: Mapping[str, str] = MODES) -> dict[str, dict[str, Any]]:
    """For each of *ways*, a job of that name and mode with *keys*."""
    return {name: {"mode": mode, **keys} for name, mode in ways.items()}


def operation(mode: str) -> str:
    """What a job of *mode* submits by."""
    return "runsync" if mode == "sync" else "run"


@dataclass(frozen=True)
class Line:
    """What a line of results.jsonl says of how its run ended."""

    state: str
    outcome: str | None
    status: str | None = "COMPLETED"
    output: JsonValue = MISSING
    message: str | None = None
    type: str | None = None
    traceback: str | None = None
    attempts: int = 1
    job_id: str | None = "job-1"
    artifacts: tuple[str, ...] = ()


def completed(output: JsonValue, **more: Any) -> Line:
    """The line of a run that succeeded."""
    return Line("succeeded", "completed", output=output, **more)


def failed(outcome: str, message: str, **more: Any) -> Line:
    """The line of a run that failed; RunPod said so, unless *more* has another status."""
    return Line("failed", outcome, **({"message": message, "status": "FAILED"} | more))


SKIPPED = Line("skipped", None, None, attempts=0, job_id=None)
"""The line of a run that was never sent."""


def line_of(told: JsonObject) -> Line:
    """What the line *told* says."""
    error = told["error"] or {"message": None, "type": None, "traceback": None}
    assert set(error) == {"message", "type", "traceback"}
    return Line(
        told["state"],
        told["outcome"],
        told["status"],
        told.get("output", MISSING),
        attempts=told["attempts"],
        job_id=told["job_id"],
        artifacts=tuple(told["artifacts"]),
        **error,
    )


def all_lines_of(carried: Carried) -> dict[str, list[Line]]:
    """The lines of each job by the runs' index, but not the neighbour's."""
    return {
        name: [line_of(told) for told in sorted(runs, key=lambda told: int(told["index"]))]
        for name, runs in carried.runs.items()
        if name != "neighbour"
    }


def lines_of(carried: Carried) -> dict[str, Line]:
    """The one line of each job, but not the neighbour's."""
    found = {}
    for name, runs in all_lines_of(carried).items():
        (found[name],) = runs
    return found
